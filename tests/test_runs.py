"""The programs as a user runs them: run folder, resuming, interruption, faults and bad input."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import proofs
import pytest

M = proofs.load()
SMALL = ["--hidden", "6", "--batch-size", "50", "--eval-samples", "5", "--no-plots"]


def start(method, *flags, code=None, methods=proofs.METHODS):
    """Start methods/<method>.py, or with `code` a program that may break parts of it first."""
    path = str(methods / f"{method}.py")
    program = [path] if code is None else ["-c", f"import sys\n{code}", path]
    command = [sys.executable, *program, *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=proofs.heed, **pipes)


def run(method, *flags, **options):
    """(exit code, stdout, stderr) of methods/<method>.py run to its end."""
    process = start(method, *flags, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def read_log(folder):
    with open(folder / "log.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_run(folder, other, extended=False):
    """Bit for bit the same checkpoint and log, but for the seconds.

    `extended`: the first was longer from the start, and did not evaluate where the other had ended.
    """
    with np.load(folder / "checkpoint.npz") as a, np.load(other / "checkpoint.npz") as b:
        assert a.files == b.files
        for key in set(a.files) - {"seconds"}:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    rows, others = read_log(folder), read_log(other)
    for row, its in zip(rows, others, strict=True):
        left_out = {key for key in row if extended and not row[key]}
        assert all(row[key] == its[key] for key in row.keys() - {"seconds"} - left_out), (row, its)
        assert row.keys() == its.keys()


# ------------------------------------------------------------------------------------ what is left


@pytest.mark.parametrize("method", ["reinforce", "nvil", "muprop", "rebar"])
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_a_run_leaves_what_the_readme_says(method, task, tmp_path):
    flags = ["--steps", 60, "--hidden", 20, "--task", task, "--layers", 2, "--eval-samples", 10]
    code, out, err = run(method, *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    figures = {"curves.png", "samples.png"}
    assert files == {"config.json", "log.csv", "checkpoint.npz", "summary.json"} | figures
    for name in figures:
        assert (tmp_path / "run" / name).stat().st_size > 10_000
    rows = read_log(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [55, 60]
    assert float(rows[1]["train_bound"]) > float(rows[0]["train_bound"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["method"] == method
    assert summary["task"] == task
    assert summary["steps"] == 60
    assert summary["test_bound"] == float(rows[1]["test_bound"])
    data, half = M.data.load_dataset("digits"), 32 if task == "predict" else 0
    p, bits = data.train.mean(axis=0)[half:], data.test[:, half:]
    p = np.clip(p, 0.001, 0.999)
    trivial = np.mean(np.sum(np.where(bits == 1, np.log(p), np.log(1 - p)), axis=1))
    assert summary["independent_pixels_test"] == pytest.approx(trivial)
    assert abs(summary["test_bound"] - trivial) < 10  # barely trained, but near it
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["flags"]["hidden"] == 20
    assert config["flags"]["lr"] == 3e-3
    assert config["versions"]["numpy"] == np.__version__
    header, *table = (line.split() for line in out.splitlines()[:3])
    shown = ["step", "train_bound", "valid_bound", "log_grad_variance"]
    assert header == [*shown, *(["temperature"] if method == "rebar" else [])]
    assert [row[0] for row in table] == ["55", "60"]
    assert f"{summary['test_bound']:.3f} nats (10 samples)" in out
    assert "independent pixels" in out


def test_training_beats_the_trivial_model(tmp_path):
    """25 epochs of REBAR: better than independent pixels, on images it has not seen."""
    code, *_ = run("rebar", "--steps", 1375, "--no-plots", "--out", tmp_path / "run")
    assert code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_bound"] > summary["independent_pixels_test"] + 1.5


def test_rebar_trains_with_less_variance_than_reinforce(tmp_path):
    """Same seed and steps; e times less is far below the ratio seen (about 5)."""
    logs = {}
    for method in ("reinforce", "rebar"):
        run(method, "--steps", 330, "--no-plots", "--out", tmp_path / method)
        logs[method] = float(read_log(tmp_path / method)[-1]["log_grad_variance"])
    assert logs["rebar"] < logs["reinforce"] - 1


@pytest.mark.parametrize("method", ["reinforce", "rebar"])
def test_toy(method, tmp_path):
    """The moving average follows the exact variance; the better method's is lower."""
    code, out, err = run(method, "--toy", "--steps", 1200, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    assert (tmp_path / "toy" / "toy.png").stat().st_size > 10_000
    rows = read_log(tmp_path / "toy")
    last = {row["method"]: row for row in rows}
    plain, better = ("C = 0", "C = E[f]") if method == "reinforce" else ("REINFORCE", "REBAR")
    assert set(last) == {plain, better}
    for row in last.values():
        theta = float(row["theta"])
        assert float(row["loss"]) == pytest.approx(0.2025 + 0.1 * theta)
    assert float(last[plain]["log_grad_variance"]) == pytest.approx(
        float(last[plain]["exact_log_variance"]), abs=0.3
    )
    exact = [float(last[label]["exact_log_variance"]) for label in (better, plain)]
    assert exact[0] < exact[1] - 1
    assert "θ" in out
    code, _, err = run(method, "--resume", tmp_path / "toy")
    assert code == 2
    assert "is a run of the toy" in err
    code, _, err = run(method, "--toy", "--out", tmp_path / "toy")
    folder = tmp_path / "toy"  # it cannot be resumed, so that is no advice
    assert err == f"{method}.py: error: --out: {folder} exists; choose another folder\n"
    assert read_log(tmp_path / "toy") == rows


def test_seed_decides_everything(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("rebar", *SMALL, "--steps", 30, "--seed", seed, "--out", tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "a", tmp_path / "c")


# --------------------------------------------------------------------------- interruption, resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A REBAR run of 90 steps with rows at 26, 52, 78 and 90, never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert run("rebar", *SMALL, "--steps", 90, "--out", folder)[0] == 0
    return folder


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(uninterrupted, tmp_path):
    """Stopped by Ctrl-C in the middle of an epoch, which saves and prints the command to go on."""
    interrupt = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy, signal; from harness import trainer
        step = trainer.Trainer.step
        def step_then_interrupt(self, *limit):
            step(self, *limit)
            if self.step_count == 40:
                os.kill(os.getpid(), signal.SIGINT)
        trainer.Trainer.step = step_then_interrupt
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    folder = tmp_path / "a run"
    code, _, err = run("rebar", *SMALL, "--steps", 90, "--out", folder, code=interrupt)
    assert code == 130
    assert "stopped at step 40" in err
    assert len(err.strip().splitlines()) == 1
    with np.load(folder / "checkpoint.npz") as file:
        assert file["step_count"] == 40
    _, program, *flags = shlex.split(err.partition("go on with: ")[2])
    assert (program, flags[:2]) == (str(proofs.METHODS / "rebar.py"), ["--resume", str(folder)])
    assert run("rebar", *flags)[0] == 0
    assert not (folder / "curves.png").exists()  # the command has --no-plots, as the run
    assert_same_run(folder, uninterrupted)


def test_a_resumed_run_draws_figures_or_not_as_its_own_command_says(tmp_path):
    flags = ["--hidden", 2, "--batch-size", 50, "--eval-samples", 1, "--out", tmp_path / "run"]
    for more, drawn in (
        ([*flags, "--steps", 2, "--no-plots"], False),
        (["--resume", tmp_path / "run", "--steps", 4], True),
        (["--resume", tmp_path / "run", "--steps", 6, "--no-plots"], False),
    ):
        for path in tmp_path.glob("run/*.png"):
            path.unlink()
        assert run("rebar", *more)[::2] == (0, "")
        assert sorted(path.name for path in tmp_path.glob("run/*.png")) == [
            "curves.png", "samples.png",
        ] * drawn  # fmt: skip
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert config["flags"]["no_plots"] == (not drawn)


def test_kill_in_the_middle_of_a_write_loses_nothing(uninterrupted, tmp_path):
    """SIGKILL with half of the third checkpoint written; the one before it is whole."""
    kill = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy, signal; from harness import trainer
        savez, calls = trainer.np.savez, []
        def half_a_save(file, **arrays):
            calls.append(1)
            if len(calls) == 3:
                file.write(b"PK half a checkpoint")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            savez(file, **arrays)
        trainer.np.savez = half_a_save
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    folder = tmp_path / "run"
    code, *_ = run("rebar", *SMALL, "--steps", 90, "--out", folder, code=kill)
    assert code == -signal.SIGKILL
    assert (folder / "checkpoint.npz.partial").read_bytes() == b"PK half a checkpoint"
    assert len(read_log(folder)) == 2  # one row more than the checkpoint knows of
    assert run("rebar", "--resume", folder)[0] == 0
    assert_same_run(folder, uninterrupted)


def test_ctrl_c_during_evaluation_and_a_real_signal(tmp_path):
    """SIGINT from outside, while a long evaluation runs, ends at once and leaves a checkpoint."""
    announce = f"""if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import pathlib, runpy; from harness import trainer
        evaluate = trainer.Trainer.evaluate
        def announced(self, split):
            pathlib.Path({str(tmp_path / "evaluating")!r}).touch()
            return evaluate(self, split)
        trainer.Trainer.evaluate = announced
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    folder = tmp_path / "run"
    flags = ["--steps", 200, "--eval-every", 55, "--eval-samples", 200_000, "--no-plots"]
    process = start("reinforce", *flags, "--out", folder, code=announce)
    deadline = time.monotonic() + 60
    while not (tmp_path / "evaluating").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped at step 55" in err
    with np.load(folder / "checkpoint.npz") as file:
        assert (file["step_count"], file["last_row"]) == (55, 0)


def test_extending_a_finished_run(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    assert run("rebar", *SMALL, "--steps", 78, "--out", folder)[0] == 0
    code, _, err = run("rebar", "--resume", folder)
    assert code == 2
    assert "has all its 78 steps" in err
    assert run("rebar", "--resume", folder, "--steps", 90)[0] == 0
    assert_same_run(uninterrupted, folder, extended=True)
    assert json.loads((folder / "config.json").read_text())["flags"]["steps"] == 90


def test_nan_stops_with_the_step_and_the_tensor_and_keeps_the_last_good_checkpoint(tmp_path):
    poison = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import runpy; from harness import trainer
        step = trainer.Trainer.step
        def step_with_a_nan(self, *limit):
            if self.step_count == 40:
                estimate = self.estimate
                def broken(*args):
                    bound, grads, aux_grads = estimate(*args)
                    grads[1][0] = float("nan")
                    return bound, grads, aux_grads
                self.estimate = broken
            step(self, *limit)
        trainer.Trainer.step = step_with_a_nan
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    folder = tmp_path / "run"
    code, _, err = run("rebar", *SMALL, "--steps", 90, "--out", folder, code=poison)
    assert code == 1
    assert "stopped at step 40: the gradient of q0.b0 is not finite" in err.replace(";", ":")
    assert str(folder) in err
    assert "Traceback" not in err
    with np.load(folder / "checkpoint.npz") as file:
        assert file["step_count"] == 26
        assert all(np.isfinite(file[key]).all() for key in {*file.files} - {"best_bound"})


class Scripted(M.trainer.Trainer):
    """Its parameter is the number of steps done, and its valid bound what BOUNDS says of that."""

    BOUNDS = (None, 1.0, 3.0, 2.0, 2.5)
    fail_at_the_end = False

    def __init__(self, args):
        images = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
        data = M.data.Dataset("digits", images, images, images, levels=1, shape=(1, 3))
        model = M.common.Toy(proofs.steep, 1)
        model.context = 0
        estimate = lambda *_: (np.zeros(1), [np.ones(1)], [])
        options = {"keep_best": True, "adam": {"eps": 0}}
        super().__init__(args, data, model, estimate, lambda rng, model: [], **options)

    def evaluate(self, split):
        return {"bound": self.BOUNDS[round(float(self.params[0][0]))] - (split == "test")}

    def bound(self, split, n_samples, progress=False):
        if self.fail_at_the_end:
            raise KeyboardInterrupt
        return 10 * float(self.params[0][0])


def scripted_args(folder, steps, resume=None):
    p = M.cli.parser("scripted", "", sbn=False)
    p.flag("--test-samples", "", 7, type=int)
    where = ["--resume", str(folder)] if resume else ["--out", str(folder)]
    flags = ["--steps", str(steps), "--eval-every", "1", "--lr", "1", "--batch-size", "2"]
    return M.cli.parse(p, [*flags, *where, "--no-plots"])


def test_the_best_parameters_are_kept_through_resume_and_ctrl_c_in_the_last_evaluation(tmp_path):
    """Bounds 1, 3, 2 | 2.5: step 2 is reported, but training goes on from the last step."""
    args = scripted_args(tmp_path / "run", 3)
    trainer = Scripted(args)
    trainer.fail_at_the_end = True
    with pytest.raises(M.stopping.Stopped, match="130"):
        M.run.fit(trainer)
    assert not (tmp_path / "run" / "summary.json").exists()
    for steps in (3, 4):  # what was left of the run, and one more step
        args = scripted_args(tmp_path / "run", steps, resume=True)
        M.run.fit(Scripted(args))
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert (summary["valid_bound"], summary["test_bound"]) == (3.0, 2.0)
        assert summary["test_log_likelihood"] == pytest.approx(20)
        assert summary["test_samples"] == 7
        with np.load(tmp_path / "run" / "checkpoint.npz") as file:
            np.testing.assert_allclose([file["params"], file["best_params"]], [[steps], [2]])
            assert file["best_bound"] == 3
    assert [float(row["valid_bound"]) for row in read_log(tmp_path / "run")] == [1, 3, 2, 2.5]
    shorter = json.loads((tmp_path / "run" / "summary-3.json").read_text())
    assert (shorter["steps"], summary["steps"]) == (3, 4)  # the summary of the shorter run stays
    with pytest.raises(M.common.InputError, match="has all its 4 steps"):
        M.run.fit(Scripted(scripted_args(tmp_path / "run", 4, resume=True)))


def test_divergence_is_not_silent(tmp_path):
    code, _, err = run("reinforce", *SMALL, "--lr", "1e38", "--out", tmp_path / "run")
    assert code == 1
    assert "not finite" in err
    assert "--lr" in err


# --------------------------------------------------------------------------------------- bad input


BAD = [
    (["--dataset", "cifar"], "--dataset"),
    (["--task", "dream"], "--task"),
    (["--layers", "0"], "argument --layers: '0' has to be a whole number of at least 1"),
    (["--hidden", "-3"], "--hidden"),
    (["--hidden", "2.5"], "--hidden"),
    (["--steps", "0"], "--steps"),
    (["--batch-size", "0"], "--batch-size"),
    (["--batch-size", "1"], "--batch-size: the mean over the other rows needs two rows"),
    (["--lr", "0"], "argument --lr: '0' has to be a number above 0"),
    (["--lr", "nan"], "--lr"),
    (["--samples", "-1"], "--samples"),
    (["--seed", "-1"], "--seed"),
    (["--eval-every", "0"], "--eval-every"),
    (["--log-every", "x"], "--log-every"),
    (["--eval-samples", "0"], "--eval-samples"),
    (["--baseline", "mean"], "--baseline"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--hid", "3"], "--hid"),
    (["--target", "inf"], "--target"),
    (["--out", __file__], f"--out: {__file__} exists"),
    (["--out", f"{__file__}/run"], "--out: cannot make"),
    (["--resume", "no-such-folder"], "--resume: no-such-folder/config.json"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_and_exit_code_2(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("reinforce", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        (["--dataset", "mnist"], "binarized-mnist"),
        (["--dataset", "mnist-grey"], "mnist"),
        (["--dataset", "omniglot"], "omniglot"),
    ],
)  # fmt: skip
def test_dataset_that_is_not_there(flags, file, tmp_path):
    """In a copy of the project without data: the message is the command that gets it."""
    shutil.copytree(proofs.METHODS, tmp_path / "methods")
    code, _, err = run("reinforce", *flags, methods=tmp_path / "methods")
    assert code == 2
    assert err.strip().endswith(f"get it with 'python data/download.py {file}'")
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "0"], "--temperature"),
        (["--relaxation", "hard"], "--relaxation"),
        (["--noise", "shared"], "--noise"),
        (["--control-variate", "none"], "--control-variate"),
        (["--adapt", "all"], "--adapt"),
    ],
)  # fmt: skip
def test_bad_input_of_rebar(flags, message):
    code, _, err = run("rebar", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_run_folder_that_exists_is_left_alone(uninterrupted):
    before = {path: path.read_bytes() for path in uninterrupted.iterdir()}
    code, _, err = run("rebar", *SMALL, "--out", uninterrupted)
    assert code == 2
    assert f"--out: {uninterrupted} exists; choose another folder or --resume it\n" in err
    assert {path: path.read_bytes() for path in uninterrupted.iterdir()} == before


def damage(folder, kind):
    path = folder / "checkpoint.npz"
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif kind == "not a checkpoint":
        np.savez(path, weights=np.zeros(3))
    elif kind == "of another model":
        with np.load(path) as file:
            np.savez(path, **{**file, "params": np.zeros(7, np.float32)})
    elif kind == "pickled":
        with np.load(path) as file:
            np.savez(path, **{**file, "params": np.array([{}], object)})
    elif kind == "without its log":
        (folder / "log.csv").unlink()


@pytest.mark.parametrize(
    "kind",
    ["missing", "truncated", "flipped", "not a checkpoint", "of another model", "pickled",
     "without its log"],
)  # fmt: skip
def test_resuming_a_bad_checkpoint(kind, tmp_path):
    folder = tmp_path / "run"
    run("rebar", *SMALL, "--steps", 30, "--out", folder)
    damage(folder, kind)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, _, err = run("rebar", "--resume", folder, "--steps", 60)
    assert code == 2
    assert "--resume" in err
    assert len(err.strip().splitlines()) == 1, err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_resuming_with_other_flags_or_another_method(uninterrupted):
    for flags, message in [
        (["--hidden", "7"], "--hidden: a resumed run keeps its 6"),
        (["--layers", "2"], "--layers: a resumed run keeps its 1"),
        (["--noise", "independent"], "--noise: a resumed run keeps its coupled"),
        (["--no-centring"], "--no-centring: a resumed run goes on as it began"),
        (["--slope", "0.1"], "--slope: a resumed run goes on as it began"),
        (["--out", "elsewhere"], "--out: a resumed run stays in its folder"),
    ]:
        code, _, err = run("rebar", "--resume", uninterrupted, "--steps", 100, *flags)
        assert code == 2
        assert message in err
    code, _, err = run("reinforce", "--resume", uninterrupted)
    assert code == 2
    assert "is a run of rebar" in err


def test_no_space_left(tmp_path):
    """A full disk: one line, and the last checkpoint is still whole."""
    full = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import errno, os, runpy; from harness import trainer
        savez, calls = trainer.np.savez, []
        def no_space(file, **arrays):
            calls.append(1)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint.npz.partial")
            savez(file, **arrays)
        trainer.np.savez = no_space
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    folder = tmp_path / "run"
    code, _, err = run("rebar", *SMALL, "--steps", 90, "--out", folder, code=full)
    assert code == 2
    assert f"cannot write {folder / 'checkpoint.npz'} (No space left on device)" in err
    assert f"go on with: python {proofs.METHODS / 'rebar.py'} --resume {folder}" in err
    assert len(err.strip().splitlines()) == 1
    assert {path.name for path in folder.iterdir()} == {"checkpoint.npz", "config.json", "log.csv"}
    with np.load(folder / "checkpoint.npz") as file:
        assert file["step_count"] == 26


def test_as_released_warns(tmp_path):
    flags = ["--steps", 2, "--layers", 2, "--as-released", "--out", tmp_path / "run"]
    code, _, err = run("rebar", *SMALL, *flags)
    assert code == 0
    assert "biased" in err


def test_a_large_dataset_brings_the_papers_configuration_and_its_checksums(tmp_path):
    """On a made-up omniglot.npz whose file had another checksum: config.json says so."""
    shutil.copytree(proofs.METHODS, tmp_path / "methods")
    (tmp_path / "data").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (40, 16), dtype=np.uint8)
    arrays = {"train": images, "valid": images[:5], "test": images[5:9], "verified": False}
    shape = np.array([4, 4], np.uint8)
    np.savez(tmp_path / "data" / "omniglot.npz", **arrays, levels=np.uint8(255), shape=shape)
    flags = ["--dataset", "omniglot", "--steps", 3, "--out", tmp_path / "run"]
    code, _, err = run("rebar", *flags, "--no-plots", methods=tmp_path / "methods")
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data_verified"] is False
    paper = {"hidden": 200, "batch_size": 24, "lr": 3e-4, "eval_epochs": 20, "temperature": 0.5}
    paper |= {"eval_samples": 100, "samples": 1, "dynamic_binarization": False, "layers": 1}
    assert {key: config["flags"][key] for key in paper} == paper
    code, out, _ = run("rebar", "--help")
    assert "2200 for digits, 2000000 for the" in out
