"""sweep.py on one machine: what it runs, what it leaves, how it goes on, what it chooses.

With a cluster: test_sweep_dask.py.
"""

import csv
import itertools
import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import dvae_sharp
import numpy as np
import proofs
import pytest
import sweep
from harness import pool, sweep_report
from test_runs import assert_same_run, run

from common import InputError

SMALL = "--hidden 4 --batch-size 50 --eval-samples 2 --no-plots"


def command(words, out):
    """The words of a sweep: what stands before a lone --, then --out, then the rest and SMALL."""
    mine, _, flags = words.partition(" -- ")
    return [*shlex.split(mine), "--out", str(out), "--", *shlex.split(f"{flags} {SMALL}")]


def start(words, out):
    program = [sys.executable, str(proofs.METHODS / "sweep.py"), *command(words, out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(program, preexec_fn=proofs.heed, **pipes)


def done(words, out):
    """(exit code, stdout, stderr) of a sweep run to its end."""
    process = start(words, out)
    printed = process.communicate(timeout=120)
    return process.returncode, *printed


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ------------------------------------------------------------------------------ a sweep and its end

# lr 1e38 diverges, and has to stop nothing
WORDS = "reinforce 'rloo --samples 2' --seeds 0-1 --grid lr=1e-2,1e38 --processes 2 -- --steps 30"
NAMES = [f"{method}-lr={lr}-seed={seed}" for method in ("reinforce", "rloo-samples-2")
         for lr in ("1e-2", "1e38") for seed in (0, 1)]  # fmt: skip


INTERRUPT = """if True:
    sys.path.insert(0, sys.argv[1].rpartition("/")[0])
    import os, runpy, signal; from harness import trainer
    step = trainer.Trainer.step
    def step_then_interrupt(self, *limit):
        step(self, *limit)
        if self.step_count == 15:
            os.kill(os.getpid(), signal.SIGINT)
    trainer.Trainer.step = step_then_interrupt
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of eight runs of which four diverge; one was half done before it began."""
    folder = tmp_path_factory.mktemp("sweep") / "a sweep"
    flags = [*SMALL.split(), "--steps", 30, "--lr", "1e-2", "--seed", 1]
    assert run("reinforce", *flags, "--out", folder / NAMES[1], code=INTERRUPT)[0] == 130
    return folder, *done(WORDS, folder)


def test_what_a_sweep_leaves(swept):
    folder, code, out, err = swept
    assert code == 1
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {*NAMES}
    summaries = {name for name in NAMES if (folder / name / "summary.json").exists()}
    assert summaries == {name for name in NAMES if "1e-2" in name}
    assert [f"{k}/8" for k in range(1, 9)] == [line.split()[0] for line in out.splitlines()[1:9]]
    lines = err.splitlines()
    assert lines[-1] == "sweep.py: 4 of 8 runs not done"
    assert sorted(line.split(":")[0].strip() for line in lines[:-1]) == sorted({*NAMES} - summaries)
    assert all("is not finite" in line for line in lines[:-1])
    assert 10_000 < (folder / "sweep.png").stat().st_size < 150_000


def test_table_and_csv_say_what_the_summaries_say(swept):
    folder, _, out, _ = swept
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["folder"] for row in rows] == [str(folder / name) for name in NAMES]
    assert [row["state"] for row in rows] == (["done"] * 2 + ["failed"] * 2) * 2
    for row in rows[:2] + rows[4:6]:
        summary = json.loads((folder / row["folder"] / "summary.json").read_text())
        for key in ("valid_bound", "test_bound", "log_grad_variance", "seconds"):
            assert float(row[key]) == summary[key]
    for method, mine in (("reinforce", rows[:2]), ("rloo --samples 2", rows[4:6])):
        cells = []
        for key in ("valid_bound", "test_bound", "log_grad_variance"):
            a, b = (float(row[key]) for row in mine)
            cells.append(
                f"{(a + b) / 2:.3f} ± {abs(a - b) / 2:.3f}"
            )  # of two: s / √2 = |a − b| / 2
        found = [" ".join(line.split()) for line in out.splitlines()]
        assert any(line.startswith(f"{method} 1e-2 2 {' '.join(cells)} ") for line in found)
        assert any(line.startswith(f"{method} * 1e-2 2 {' '.join(cells)} ") for line in found)
        assert f"{method} 1e38 0 of 2" in found


@pytest.mark.parametrize("name", [NAMES[0], NAMES[1], NAMES[5]])
def test_runs_are_those_of_a_serial_sweep_bit_for_bit(swept, name, tmp_path):
    """Also the one that was half done, which was not begun anew."""
    method, samples = name.split("-")[0], ["--samples", 2] * name.startswith("rloo")
    flags = [*SMALL.split(), "--steps", 30, "--lr", "1e-2", "--seed", name[-1], *samples]
    assert run(method, *flags, "--out", tmp_path / "run")[0] == 0
    assert_same_run(swept[0] / name, tmp_path / "run")
    first = (swept[0] / f"{name}.txt").read_text().splitlines()[0]
    assert ("--resume" in first) == (name == NAMES[1])


def test_repeating_does_only_what_is_missing(swept):
    folder, *_ = swept
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = WORDS.replace("1e-2,1e38", "1e-2").replace("0-1", "0-2")
    code, out, err = done(again, folder)
    assert (code, err) == (0, "")
    assert out.startswith("4 of 6 runs done, ")
    assert "reinforce-lr=1e-2-seed=2  done" in out
    kept = {path: t for path, t in before.items() if path.parent != folder or path.suffix == ".txt"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_dry_run_and_status_start_nothing(swept):
    folder, *_ = swept
    before = sorted(folder.rglob("*"))
    words = WORDS.replace("0-1", "0,1,7").replace(" -- ", " {} -- ")
    code, out, _ = done(words.format("--dry-run"), folder)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 12
    assert [line.split()[0] for line in lines[:3]] == ["done", "done", "new"]
    assert shlex.split(lines[2])[1:] == [
        "python", str(proofs.METHODS / "reinforce.py"), "--steps", "30", *SMALL.split(),
        "--lr", "1e-2", "--seed", "7", "--out", str(folder / "reinforce-lr=1e-2-seed=7"),
    ]  # fmt: skip
    code, out, _ = done(words.format("--status"), folder)
    *lines, last = out.splitlines()
    assert lines[0].split() == ["done", "30", "of", "30", "reinforce-lr=1e-2-seed=0"]
    assert "is not finite" in lines[3]
    assert last.startswith("4 done, 4 new, 4 failed, nothing is running; what is missing takes ")
    assert sorted(folder.rglob("*")) == before


# --------------------------------------------------------------------------- interruption, resuming

LONG = "reinforce --seeds 0-1 --processes 2 -- --steps 2000 --lr 1e-3"


def steps_of(folder):
    run = sweep.Run("", (), 0, pool.Job((), str(folder)))
    return sweep_report.steps_done(run)[0]


def test_kill_and_ctrl_c_leave_all_resumable(tmp_path):
    """kill -9 of the sweep, then Ctrl-C to the sweep alone: no run goes on without it, and at the
    end all is as without interruption."""
    folders = [tmp_path / "sweep" / f"reinforce-seed={seed}" for seed in (0, 1)]
    steps = dict.fromkeys(folders, 0)
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(LONG, tmp_path / "sweep")
        until(lambda: all(steps_of(folder) > steps[folder] for folder in folders))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (-9 if number == signal.SIGKILL else 130)
        if number == signal.SIGINT:
            assert err == "sweep.py: stopped; repeat the command to go on\n"
        until(lambda: all(pool.look(str(f), 2000)[0] != "running" for f in folders), 15)
        for folder in folders:
            assert pool.look(str(folder), 2000)[0] == "stopped"
            with np.load(folder / "checkpoint.npz") as file:
                assert steps[folder] < file["step_count"] < 2000
                steps[folder] = int(file["step_count"])
    assert done(LONG, tmp_path / "sweep")[0] == 0
    flags = [*SMALL.split(), "--steps", 2000, "--lr", 1e-3, "--seed", 1]
    assert run("reinforce", *flags, "--out", tmp_path / "run")[0] == 0
    assert_same_run(folders[1], tmp_path / "run")


def fake(folder, last_line=None, age=0.0, host=None, files=()):
    """The folder of a run as it would be found, and the output beside it; its path as text."""
    folder.mkdir()
    for name, content in dict(files).items():
        (folder / name).write_text(content)
    if last_line is not None:
        output = folder.with_name(f"{folder.name}.txt")
        output.write_text(f"{host or socket.gethostname()} now command\n{last_line}\n")
        os.utime(output, (time.time() - age,) * 2)
    return str(folder)


SUMMARY, CHECKPOINT = {"summary.json": '{"steps": 30}'}, {"checkpoint.npz": ""}


@pytest.mark.parametrize(
    ("state", "line", "found"),
    [
        ("done", "", {"files": SUMMARY, "last_line": "failed before\nexit code 1"}),
        ("stopped", "30", {"files": {"summary.json": '{"steps": 20}'} | CHECKPOINT,
                           "last_line": "30\nexit code 0"}),
        ("new", "", {}),
        ("new", "step 1", {"last_line": "step 1", "age": 25}),
        ("stopped", "", {"files": CHECKPOINT}),
        ("stopped", "step 1", {"files": CHECKPOINT, "last_line": "step 1", "age": 25}),
        ("stopped", "saved", {"files": CHECKPOINT, "last_line": "saved\nexit code 130"}),
        ("stopped", "saved", {"files": CHECKPOINT, "last_line": "saved\nexit code 129"}),
        ("stopped", "saved", {"files": CHECKPOINT, "last_line": "saved\nexit code 143"}),
        ("running", "step 1", {"files": CHECKPOINT, "last_line": "step 1", "age": 15}),
        ("running", "step 1", {"last_line": "step 1", "age": 300, "host": "another"}),
        ("stopped", "step 1", {"files": CHECKPOINT, "last_line": "step 1", "age": 340,
                               "host": "another"}),
        ("failed", "no!", {"files": CHECKPOINT, "last_line": "no!\nexit code 1"}),
        ("failed", "killed by signal 9", {"last_line": "killed by signal 9\nexit code -9"}),
    ],
)  # fmt: skip
def test_the_state_of_a_run(state, line, found, tmp_path):
    assert pool.look(fake(tmp_path / "run", **found), 30) == (state, line)


def test_a_run_that_another_process_has_is_waited_for(tmp_path):
    """It is not started a second time, neither while the other lives nor once it is done."""
    folder = fake(tmp_path / "run", last_line="step 1")
    ended = []
    job = pool.Job(("/no/such/program",), folder, 30, sys.executable, str(tmp_path))
    worker = threading.Thread(target=lambda: ended.append(pool.work(job)))
    worker.start()
    time.sleep(1.2)
    assert not ended
    (tmp_path / "run" / "summary.json").write_text('{"steps": 30}')
    worker.join(10)
    assert ended == [("done", "")]


def test_a_log_without_a_checkpoint_is_not_thrown_away(tmp_path):
    """A folder that was hardly begun is begun anew; one with a log is reported."""
    program = tmp_path / "program.py"
    program.write_text("import os, sys; os.mkdir(sys.argv[2])\n"
                       "open(sys.argv[2] + '/summary.json', 'w').write('{}')")  # fmt: skip
    job = lambda folder: pool.Job((str(program),), folder, None, sys.executable, str(tmp_path))
    begun = fake(tmp_path / "begun", files={"config.json": "{}", "log.csv.partial": ""})
    assert pool.work(job(begun)) == ("done", "")
    assert os.listdir(begun) == ["summary.json"]
    logged = fake(tmp_path / "logged", files={"config.json": "{}", "log.csv": "step"})
    state, line = pool.work(job(logged))
    assert (state, sorted(os.listdir(logged))) == ("failed", ["config.json", "log.csv"])
    assert "no checkpoint" in line


def test_a_killed_program_and_what_a_machine_does_not_see(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os; os.kill(os.getpid(), 9)")
    job = pool.Job((str(program),), str(tmp_path / "run"), 1, sys.executable, str(tmp_path))
    assert pool.work(job) == ("failed", "killed by signal 9")
    for change in ({"cwd": "/not/there"}, {"python": "/not/there"}, {"command": ("/not/there",)}):
        state, line = pool.work(job._replace(**change))
        assert state == "failed"
        assert "does not see /not/there" in line


# ----------------------------------------------------------------------------------- what is chosen


def made_up(bounds, done=None):
    """(rows, runs) of one method: `bounds` has (valid, test) for each value of lr and seed."""
    rows, runs = [], []
    for lr, pairs in bounds.items():
        for seed, (valid, test) in enumerate(pairs):
            there = valid is not None
            rows.append(
                {
                    "state": "done" if there else "failed",
                    "valid_bound": valid if there else "",
                    "test_bound": test if there else "",
                    "seconds": 1.0 if there else "",
                }
            )
            runs.append(sweep.Run("nvil", (("lr", lr),), seed, None))  # fmt: skip
    return rows, runs


def best(bounds):
    found = sweep_report.points(*made_up(bounds), "bound")
    return [row["values"][0][1] for row in found if row["best"]]


def test_the_best_is_chosen_by_validation_among_those_with_the_most_seeds():
    assert best({"1": [(-3.0, -9.0)], "2": [(-4.0, -1.0)]}) == ["1"]
    assert best({"1": [(-4.0, -1.0)], "2": [(-3.0, -9.0)]}) == ["2"]
    assert best({"1": [(-1.0, -1.0), (None, 0)], "2": [(-3.0, -9.0), (-5.0, -9.0)]}) == ["2"]
    assert best({"1": [(-1.0, -1.0), (None, 0)], "2": [(None, 0), (-3.0, -9.0)]}) == ["1"]
    assert best({"1": [(None, 0)], "2": [(None, 0)]}) == []


def test_bounds_on_other_images_are_not_compared():
    """One best for each value of a flag that says on what is judged."""
    rows, runs = made_up({"1": [(-3.0, -9.0)], "2": [(-4.0, -1.0)]})
    values = [(("dataset", name),) for name in ("a", "b")]
    runs = [run._replace(values=v + run.values) for v in values for run in runs]
    found = sweep_report.points([*rows, *rows], runs, "bound")
    assert [row["values"] for row in found if row["best"]] == [
        (("dataset", name), ("lr", "1")) for name in "ab"
    ]


def test_csv_keeps_the_values_of_the_grid_and_the_figure_has_the_runs_that_are_done(
    tmp_path, monkeypatch
):
    """A summary with an entry of the same name; and a run that failed beside one that is done."""
    values = (("labels", "1"),)
    runs = [logged(tmp_path / name, "m", seed, 10, 2.5, 10)._replace(values=values)
            for seed, name in enumerate("ab")]  # fmt: skip
    (tmp_path / "a" / "summary.json").write_text(
        '{"labels": 10, "steps": 10, "valid_bound": -1.0, "seconds": 2.5}'
    )
    rows = sweep_report.collect(runs)
    assert [row["labels"] for row in rows] == ["1", "1"]
    drawn, band = [], sweep_report.band
    monkeypatch.setattr(
        sweep_report, "band", lambda runs, key: (drawn.append(len(runs)), band(runs, key))[1]
    )
    title = []
    look = lambda figure, path: title.append(figure.axes[0].get_title(loc="left"))
    monkeypatch.setattr(sweep_report.figures, "save", look)
    sweep_report.write(tmp_path, runs, "bound")
    assert set(drawn) == {1}
    assert title == ["mean ± standard error of 1 seeds"]


def test_what_failed_before_counts_as_missing(tmp_path, capsys):
    """In the time that --status tells, and in that of a sweep that tries it again."""
    folder = tmp_path / "reinforce-seed=0"
    logged(folder, "reinforce", 0, 10, 20.0, 100)
    (tmp_path / "reinforce-seed=0.txt").write_text("host\nno!\nexit code 1\n")
    words = "reinforce --processes 1 -- --steps 100"
    sweep.main(command(words.replace(" --", " --status --", 1), tmp_path))
    out = capsys.readouterr().out
    assert "failed          10 of 100  reinforce-seed=0  no!" in out
    assert "1 failed, nothing is running; what is missing takes 3 min" in out
    run = sweep.Run("reinforce", (), 0, pool.Job((), str(folder), 100))
    assert sweep.Progress([run], 1).states == ["new"]


def test_the_reason_of_a_failure_comes_last(tmp_path):
    """Also if rows of the table were printed before, to a file as here."""
    code, _, err = done("reinforce --grid lr=2e36 -- --steps 20 --log-every 1", tmp_path)
    assert code == 1
    assert "reinforce-lr=2e36-seed=0: reinforce.py: stopped at step 1; " in err
    assert len(sweep_report.read_log(tmp_path / "reinforce-lr=2e36-seed=0")["step"]) == 1


def test_mean_and_standard_error():
    (row,) = sweep_report.points(*made_up({"1": [(-1.0, 0.0), (-2.0, 0.0), (-6.0, 0.0)]}), "bound")
    mean, error = row["valid_bound"]
    assert mean == -3
    assert error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    (row,) = sweep_report.points(*made_up({"1": [(-1.0, 0.0)]}), "bound")
    assert "-1.000  " in sweep_report.table([row])[1]
    assert "±" not in sweep_report.table([row])[1]


def logged(folder, method, seed, steps, seconds, total, rows=()):
    folder.mkdir()
    text = "step,valid_bound,seconds\n" + "".join(f"{s},{y},{t}\n" for s, y, t in rows)
    (folder / "log.csv").write_text(text + f"{steps},-1.0,{seconds}\n" * (not rows))
    return sweep.Run(method, (), seed, pool.Job((), str(folder), total))


def test_seconds_left_and_the_band(tmp_path):
    slow = logged(tmp_path / "a", "slow", 0, 10, 20.0, 100)  # 2 s a step, 90 steps left
    fast = logged(tmp_path / "b", "fast", 0, 50, 10.0, 100)  # .2 s a step, 50 steps left
    new = sweep.Run("slow", (), 1, pool.Job((), str(tmp_path / "c"), 100))  # 100 steps left
    left = sweep_report.seconds_left([slow, fast, new], ["running", "running", "new"], 1)
    assert left == pytest.approx((180 + 10 + 200) / 2)
    assert sweep_report.seconds_left([slow, fast], ["done", "stopped"], 8) == pytest.approx(10)
    assert sweep_report.seconds_left([new], ["new"], 1) is None
    runs = [
        logged(tmp_path / "d", "m", 0, 0, 0, 9, [(1, -4, 1), (2, "", 2), (3, -2, 3), (4, -1, 4)]),
        logged(tmp_path / "e", "m", 1, 0, 0, 9, [(1, -2, 3), (2, -9, 4), (3, -2, 9)]),
    ]
    steps, seconds, mean, error = sweep_report.band(runs, "valid_bound")
    np.testing.assert_array_equal(steps, [1, 3])
    np.testing.assert_array_equal(seconds, [2, 6])
    np.testing.assert_array_equal(mean, [-3, -2])
    np.testing.assert_allclose(error, [1, 0])


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rbm", "'rbm' cannot be swept; choose from concrete, "),
        ("", "METHOD: name one at least"),
        ("''", "'' cannot be swept"),
        ("rebar --seeds 3-1", "--seeds: '3-1' has to be like"),
        ("rebar --seeds 1,1", "--seeds: '1,1' has to be like"),
        ("rebar --seeds 4-0,1", "--seeds: '4-0,1' has to be like"),
        ("rebar --seeds -1", "--seeds: "),
        ("rebar --grid lr", "--grid: 'lr' has to be like"),
        ("rebar --grid lr=1,,2", "--grid: 'lr=1,,2' has to be like"),
        ("rebar --grid lr=1,1", "--grid: 'lr=1,1' has to be like"),
        ("rebar --grid lr=1 --grid lr=2", "--grid: lr is given twice"),
        ("rebar --grid seed=1,2", "--seed: give --seeds"),
        ("rebar --grid 'lr=1, 1'", "--grid: 'lr=1, 1' has to be like"),
        ("'rloo --samples 4' --grid samples=2", "--samples: --grid says what it is"),
        ("rebar --grid lr=1 -- --lr=2", "--lr=2: --grid says what it is"),
        ('"rloo --samples \'4"', "has to be like rebar or 'rloo --samples 4'"),
        (f"'rloo {' '.join(['--samples 4'] * 30)}'", "would have too long a name"),
        ("rebar --python no-such-python", "--python: 'no-such-python' has to be a program"),
        ("unordered", "'unordered' cannot be swept"),
        ("rebar rebar", "name each method once"),
        ("rebar -- --out x", "--out: is that of the sweep"),
        ("rebar -- --resume=x", "--resume=x: a sweep resumes by itself"),
        ("rebar -- --toy", "--toy: a toy has no validation"),
        ("'rebar --seed 3'", "--seed: give --seeds"),
        ("rebar --dry-run --status", "not allowed with"),
        ("rebar --scheduler tcp://x:1 --processes 2", "--processes: the workers"),
    ],
)
def test_bad_flags(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        sweep.main(command(words, tmp_path / "sweep"))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert message in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nvil rebar --grid temperature=.1", "nvil: unrecognized arguments: --temperature .1"),
        (
            "rebar --grid lr=1e-3,.001",
            "--grid: rebar-lr=.001-seed=0 is the same run as rebar-lr=1e-3-",
        ),
        ("rebar --grid lr=1e-3,-1", "rebar: argument --lr: '-1' has to be a number above 0"),
        ("rebar -- --as-released", "rebar: --as-released: it has no effect with --layers 1"),
        ("rebar --grid nonlinear=off,on -- --activation leaky-relu", "--activation: of the layers"),
        ("'rloo --samples 0'", "rloo --samples 0: argument --samples: '0'"),
        ("reinforce -- --dataset omniglot", "omniglot.npz is not there"),
    ],
)
def test_flags_that_a_method_refuses_are_refused_before_anything_starts(
    words, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep.data, "ROOT", tmp_path)  # has no data
    monkeypatch.setattr(sweep, "readable", sweep.readable.__wrapped__)
    if "omniglot" not in words:
        monkeypatch.setattr(sweep, "readable", lambda name: None)
    with pytest.raises(InputError, match=re.escape(message)):
        sweep.main(command(words, tmp_path / "sweep"))
    assert not (tmp_path / "sweep").exists()


def test_the_folder_of_another_run_is_refused(tmp_path):
    """Other flags, or more steps than asked for; more steps may be asked for."""
    flags, _ = sweep.settings(sweep.Run("rebar", (), 0, pool.Job(
        (str(proofs.METHODS / "rebar.py"), *SMALL.split(), "--steps", "30", "--seed", "0"), "x",
    )))  # fmt: skip
    fake(tmp_path / "rebar-seed=0", files={"config.json": json.dumps({"flags": flags})})
    for words in ("rebar --dry-run -- --steps 30", "rebar --dry-run -- --steps 40 --log-every 7"):
        sweep.main(command(words, tmp_path))
    for words, message in (
        ("--steps 20", "--steps 30, not 20"),
        ("--layers 2", "--layers 1, not 2"),
    ):
        with pytest.raises(InputError, match=message):
            sweep.main(command(f"rebar --dry-run -- --steps 30 {words}", tmp_path))


def test_a_measure_that_no_run_has_is_refused_before_anything_starts(tmp_path, capsys):
    with pytest.raises(SystemExit):
        sweep.main(command("reinforce --measure acuracy", tmp_path / "sweep"))
    assert "--measure: reinforce has no acuracy; it has bound" in capsys.readouterr().err
    assert sweep.measures(sweep.Run("", (), 0, pool.Job(("semi_supervised.py",), ""))) == {
        "bound", "accuracy"
    }  # fmt: skip
    assert not (tmp_path / "sweep").exists()


def test_runs_on_another_file_are_refused(tmp_path):
    """A file of the same name whose images have changed since the first run."""
    images, words = tmp_path / "mine.npz", "reinforce -- --steps 2 --dataset"
    train = np.random.default_rng(0).integers(0, 2, (50, 16), dtype=np.uint8)
    np.savez(images, train=train)
    code, out, _ = done(f"{words} {images}", tmp_path / "sweep")
    assert code == 0
    assert "the data have no test images: what is called test here is validation" in out
    sweep.main(command(f"{words} {images}".replace(" --", " --dry-run --", 1), tmp_path / "sweep"))
    np.savez(images, train=1 - train)
    with pytest.raises(InputError, match=r"--out: \S+-seed=0 is a run on another \S+mine.npz"):
        sweep.main(command(f"{words} {images}", tmp_path / "sweep"))


def test_a_run_whose_rate_depends_on_its_length_is_not_made_longer(tmp_path, capsys):
    """dvae_sharp.py, alone and in a sweep; the same number of steps may be said again."""
    small = "--width 4 --chains 10 --sweeps 1 --ais-chains 4 --ais-temperatures 3 --test-samples 2"
    words = f"dvae_sharp -- {small} --eval-samples 2 --batch-size 50 --no-plots --steps"
    mine, _, flags = words.partition(" -- ")
    line = lambda steps: [mine, "--out", str(tmp_path), "--", *flags.split(), steps]
    sweep.main(line("2"))
    sweep.main(line("2"))
    with pytest.raises(InputError, match="has --steps 2, not 3; choose another folder"):
        sweep.main(line("3"))
    with pytest.raises(InputError, match="has no --dynamic-binarization; choose another folder"):
        sweep.main([*line("2"), "--dynamic-binarization"])
    with pytest.raises(SystemExit):
        dvae_sharp.main(["--resume", f"{tmp_path}/dvae_sharp-seed=0", "--steps", "3"])
    assert "--steps: a resumed run keeps its 2, as its learning" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        dvae_sharp.main(["--resume", f"{tmp_path}/dvae_sharp-seed=0"])
    assert "has all its 2 steps; start anew for more" in capsys.readouterr().err


def test_what_is_in_the_folder_of_a_run_stays(tmp_path):
    """A file or a folder that no run wrote fails this run only, by name, and is not removed."""
    notes, inner = tmp_path / "reinforce-seed=0" / "notes.md", tmp_path / "reinforce-seed=1" / "x"
    inner.mkdir(parents=True)
    notes.parent.mkdir()
    notes.write_text("mine")
    code, _, err = done("reinforce --seeds 0-2 --processes 1 -- --steps 2", tmp_path)
    assert code == 1
    assert notes.read_text() == "mine"
    assert inner.is_dir()
    assert "reinforce-seed=0 has no checkpoint, but notes.md; remove it to start anew" in err
    assert "reinforce-seed=1 has no checkpoint, but x; remove it" in err
    assert (tmp_path / "reinforce-seed=2" / "summary.json").exists()


def test_what_happens_to_a_job_stops_no_other(tmp_path):
    """An error of the machine, here a name that no file can have, fails its run."""
    program = tmp_path / "program.py"
    program.write_text("import os, sys; os.mkdir(sys.argv[2])\n"
                       "open(sys.argv[2] + '/summary.json', 'w').write('{}')")  # fmt: skip
    jobs = [pool.Job((str(program),), str(tmp_path / name), None, sys.executable, str(tmp_path))
            for name in ("x" * 300, "good")]  # fmt: skip
    ends = {job.folder: (state, line) for job, state, line in pool.here(jobs, 1) if job}
    assert ends[jobs[0].folder][0] == "failed"
    assert "too long" in ends[jobs[0].folder][1]
    assert ends[jobs[1].folder] == ("done", "")


def test_flags_that_may_change_do_when_a_run_goes_on(tmp_path):
    """--log-every; and what the program printed before it was stopped stays in its output."""
    flags = [*SMALL.split(), "--steps", 30, "--log-every", 3, "--seed", 0]
    folder = tmp_path / "reinforce-seed=0"
    assert run("reinforce", *flags, "--out", folder, code=INTERRUPT)[0] == 130
    folder.with_name(f"{folder.name}.txt").write_text("host\nearlier\nexit code 130\n")
    code, *_ = done("reinforce -- --steps 30 --log-every 5", tmp_path)
    assert code == 0
    steps = sweep_report.read_log(folder)["step"]
    assert steps == [3, 6, 9, 12, 15, 20, 25, 30]
    lines = folder.with_name(f"{folder.name}.txt").read_text().splitlines()
    assert lines[1:5] == ["host", "earlier", "exit code 130", "-- again:"]
    assert lines[-1] == "exit code 0"


def test_a_log_that_was_cut(tmp_path):
    """Half a row, as a full disk leaves one, and what a power cut leaves, are not rows."""
    run = logged(tmp_path / "a", "m", 0, 10, 2.5, 20)
    with open(tmp_path / "a" / "log.csv", "a") as file:
        file.write("12,-1.0,\n\0\0\0\n13")
    assert sweep_report.read_log(tmp_path / "a") == {
        "step": [10], "valid_bound": [-1], "seconds": [2.5]
    }  # fmt: skip
    assert sweep_report.steps_done(run) == (10, 2.5)


def test_values_of_the_grid_become_flags(tmp_path, capsys):
    words = "rebar --grid nonlinear=on,off --grid layers=1,2 --dry-run"
    sweep.main(command(words, tmp_path))
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    tails = [" ".join(line[line.index("--no-plots") + 1 : line.index("--seed")]) for line in lines]
    assert tails == ["--nonlinear --layers 1", "--nonlinear --layers 2", "--layers 1", "--layers 2"]
    assert lines[3][-1] == str(tmp_path / "rebar-nonlinear=off-layers=2-seed=0")


def test_the_long_measurements_are_made_this_way(tmp_path, monkeypatch):
    """tests/benchmarks/runs.py: what is done is not repeated; a failure comes last, by name."""
    monkeypatch.syspath_prepend(proofs.METHODS.parent / "tests" / "benchmarks")
    import runs

    commands = {"good": f"methods/reinforce.py {SMALL} --steps 2"}
    folders = runs.train_all(commands, tmp_path / "runs")
    facts = runs.facts(commands["good"], folders["good"])
    assert (facts["command"], facts["steps"]) == (f"python {commands['good']}", 2)
    bad = f"methods/reinforce.py {SMALL} --steps 9 --lr 1e38"
    with pytest.raises(RuntimeError, match=r"^not done: \S+/bad$"):
        runs.train_all({"bad": bad, **commands}, tmp_path / "runs")
    assert "is not finite" in (tmp_path / "runs" / "bad.txt").read_text()
    assert runs.facts(commands["good"], folders["good"]) == facts
    for words, message in (("--layers 2", "--layers 1, not 2"), ("--stepps 2", "--stepps")):
        with pytest.raises(InputError, match=message):
            runs.train_all({"good": f"{commands['good']} {words}"}, tmp_path / "runs")


def test_the_tables_of_long_runs_show_what_is_not_finished(tmp_path, monkeypatch):
    """Rows and curves of linear_table.py and dreg_figure.py, from one run that is half done."""
    monkeypatch.syspath_prepend(proofs.METHODS.parent / "tests" / "benchmarks")
    import dreg_figure
    import linear_table
    import runs

    small = "--dataset digits --no-plots --log-every 2 --steps 4 --batch-size 8"
    commands = {"rebar-mnist-1": f"methods/rebar.py {small} --hidden 4",
                "dreg-1": f"methods/dreg.py {small} --hidden 4 --latent 2 --samples 4"
                " --eval-every 2 --eval-samples 2 --test-samples 2"}  # fmt: skip
    folders = runs.train_all(commands, tmp_path)
    monkeypatch.setattr(linear_table, "MEAN_OVER", 2)
    logs = {name: runs.log_rows(folder) for name, folder in folders.items()}
    bounds = [row["train_bound"] for row in logs["rebar-mnist-1"]]
    bits = linear_table.row("rebar-mnist-1", "the command", folders["rebar-mnist-1"])
    assert (bits["complete"], bits["steps"], bits["hours"]) == (True, 4, 0.0)
    assert bits["highest_train_bound"] == max(bounds)
    assert [point[:2] for point in bits["curve"]] == [[2, round(bounds[0], 3)],
                                                      [4, round(bounds[1], 3)]]  # fmt: skip
    # a row of the log that an evaluation cut short has its share of the mean only
    cut = [{"step": step, "train_bound": bound} for step, bound in ((2, 1.0), (3, 5.0), (4, 7.0))]
    joined = linear_table.means([*cut, {"step": 5, "train_bound": 9.0}])
    assert joined == [{"step": 2, "train_bound": 1.0}, {"step": 4, "train_bound": 6.0}]
    (folders["rebar-mnist-1"] / "summary.json").unlink()
    half = linear_table.row("rebar-mnist-1", "the command", folders["rebar-mnist-1"])
    table = "\n".join(linear_table.table([half]))
    assert f"| REBAR | {max(bounds):.2f} (4 steps) | −111.60 | not run |".replace("-", "−") in table
    assert "| NVIL | not run | −112.50 |" in table
    assert linear_table.row("rebar-mnist-1", "the command", tmp_path / "nothing") is None

    gauss = dreg_figure.row("dreg-1", folders["dreg-1"])
    assert (gauss["estimator"], gauss["seed"], gauss["complete"]) == ("dreg", 1, True)
    assert [step for step, _ in gauss["valid_bound"]] == [2, 4]
    assert gauss["test_bound"] == logs["dreg-1"][-1]["test_bound"]
    assert dreg_figure.row("dreg-1", tmp_path / "nothing") is None
    last = logs["dreg-1"][-1]
    assert gauss["train_bound"] == [[4, round(last["train_bound"], 3)]]
    keys = ("train_bound", "log_inference_variance", "test_bound")
    cells = " | ".join(f"{last[key]:.2f}".replace("-", "−") for key in keys)
    table = dreg_figure.table([gauss])
    assert f"| `dreg` | 1 | 4 | {cells} |" in table
    assert "| `dreg` | 0 | not run |  |  |  |" in table
    many = [[k, float(k)] for k in range(9)]
    rows = [{"estimator": e, "seed": s, "train_bound": many, "log_inference_variance": many}
            for e, s in (("iwae", 0), ("iwae", 1), ("jk", 0))]  # fmt: skip
    monkeypatch.setattr(runs, "ROOT", tmp_path)  # a new row takes the place of an old one
    runs.write("long", {"runs": [{"run": "b", "steps": 1}, {"run": "a", "steps": 2}]})
    new = [{"run": "b", "steps": 3}]
    assert runs.kept("long", new, "abc") == [{"run": "a", "steps": 2}, *new]
    assert runs.kept("nothing", new, "abc") == new

    dreg_figure.plot(tmp_path / "dreg.png", rows)
    linear_table.plot(tmp_path / "linear.png", [bits, bits | {"run": "nvil-omniglot-1"}])
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("dreg.png", "linear.png"))


def test_what_the_experiments_run(monkeypatch):
    """results.py: every command is one that its program accepts, and says what its name says."""
    monkeypatch.syspath_prepend(proofs.METHODS.parent / "tests" / "benchmarks")
    import results

    lines = {}
    for name, (template, axes, _) in results.EXPERIMENTS.items():
        for values in itertools.product(*axes.values()):
            setting = dict(zip(axes, values))
            lines[(name, *values)] = template.format(**results.words(setting))
    assert len(set(lines.values())) >= len(lines) - len(results.CATEGORICAL)  # lr, then seed 0
    assert "concrete.py" in lines["structured", "concrete", 1, 0]
    assert "methods/nvil.py" in lines["structured", "vimco", 1, 0]
    assert "methods/vimco.py" in lines["structured", "vimco", 5, 0]
    assert "--lr 3e-4" in lines["categorical_lr", "vimco", "3e-4"]
    assert (
        "--unlabelled unordered --samples 2" in lines["semi_supervised_digits", 2, "unordered", 0]
    )
    for line in lines.values():
        program, *flags = line.split()
        flags = [flag.replace("mnist", "digits") for flag in flags if flag != "--compile"]
        run = sweep.Run(line, (), 0, sweep.pool.Job((proofs.METHODS.parent / program, *flags), "x"))
        sweep.settings(run)
