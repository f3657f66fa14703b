"""Faults of a disk: whatever bit of a run's files changes, the run is refused, or is the same."""

import signal
import threading
import types

import numpy as np
import proofs
import pytest
from test_runs import SMALL, assert_same_run, read_log, run

M = proofs.load()
FILES = ("checkpoint.npz", "log.csv", "config.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "run"
    flags = ["--steps", 60, "--log-every", 5, "--out", folder]
    assert run("rebar", *SMALL, *flags)[0] == 0
    return folder


def taken_up(folder):
    """What --resume would go on with: flags, arrays and rows; None if it refuses the files."""
    try:
        flags = M.runfolder.read_flags(folder)
        arrays, rows, _ = M.runfolder.read_checkpoint(folder)
    except (OSError, ValueError, KeyError, TypeError):  # what cli.parse and Trainer.resume catch
        return None
    return flags, {key: array.tobytes() for key, array in arrays.items()}, rows


@pytest.mark.parametrize("name", FILES)
def test_a_changed_bit_or_a_lost_end(name, finished):
    """2,000 bits and 200 lengths of each file, at random: refused, or exactly the same.

    The checkpoint and the log are always refused, config.json if it is about a flag.
    """
    path, rng = finished / name, np.random.default_rng(0)
    right, content = taken_up(finished), path.read_bytes()
    refused = 0
    try:
        for k in range(2200):
            changed = bytearray(content)
            if k < 2000:
                changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
            else:
                changed = changed[: rng.integers(len(content))]
            path.write_bytes(changed)
            found = taken_up(finished)
            assert found in (None, right)
            refused += found is None
    finally:
        path.write_bytes(content)
    assert refused == 2200 if name != "config.json" else refused > 1500


def test_a_damaged_log_or_config_is_named_in_one_line(finished):
    log, config = finished / "log.csv", finished / "config.json"
    rows, flags = log.read_bytes().decode(), config.read_bytes().decode()
    for path, content, message in (
        (log, "", "log.csv beside it has changed since"),
        (log, rows.replace("train_bound", "bound"), "log.csv beside it has changed since"),
        (log, rows + "", None),
        (config, flags.replace('"lr": 0.003', '"lr": -1'), "its flags have changed since"),
        (config, flags.replace('"hidden": 6', '"hidden": "6"'), "its flags have changed since"),
        (config, "[]", "config.json"), (config, "", "config.json"),
    ):  # fmt: skip
        before = path.read_bytes()
        path.write_bytes(content.encode())
        code, _, err = run("rebar", "--resume", finished)
        path.write_bytes(before)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
        assert (message or "has all its 60 steps") in err


def test_steps_below_what_is_done(finished):
    code, _, err = run("rebar", "--resume", finished, "--steps", 3)
    assert code == 2
    assert err == f"rebar.py: error: --steps: {finished} has done 60 steps; give it more, or none\n"


def test_rows_that_the_checkpoint_does_not_know_are_cut_off(finished, tmp_path):
    """A row was half written when the power went: the run goes on as if it had not been begun."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        code, *_ = run("rebar", *SMALL, "--steps", 30, "--log-every", 5, "--out", folder)
        assert code == 0
    with open(cut / "log.csv", "a", encoding="utf-8") as file:
        file.write("35,-31.2,")
    for folder in (whole, cut):
        assert run("rebar", "--resume", folder, "--steps", 60)[0] == 0
    assert_same_run(whole, cut)
    assert [int(row["step"]) for row in read_log(cut)] == [*range(5, 65, 5)]


# ----------------------------------------------------------------------------- signals and threads

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_every_signal_saves_and_says_how_to_go_on(number, code, finished, tmp_path):
    """In the middle of a run; resumed, it is the uninterrupted one, bit for bit."""
    stop = f"""if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy; from harness import trainer
        step = trainer.Trainer.step
        def step_then_signal(self, *limit):
            step(self, *limit)
            if self.step_count == 33:
                os.kill(os.getpid(), {int(number)})
        trainer.Trainer.step = step_then_signal
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", tmp_path / "run"]
    found, _, err = run("rebar", *flags, code=stop)
    assert found == code
    assert "stopped at step 33; go on with: python" in err
    assert not (tmp_path / "run" / "summary.json").exists()
    assert run("rebar", "--resume", tmp_path / "run")[0] == 0
    assert_same_run(tmp_path / "run", finished)


def test_a_run_in_a_thread(tmp_path, finished):
    """As a notebook's worker starts it: no signals there, and the same run."""
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", tmp_path / "run"]
    thread = threading.Thread(target=M.rebar.main, args=([*map(str, flags)],))
    thread.start()
    thread.join()
    assert_same_run(tmp_path / "run", finished)


def test_runs_begun_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(M.runfolder, "ROOT", tmp_path)
    monkeypatch.setattr(M.runfolder.time, "strftime", lambda _: "20260101-000000")
    args = types.SimpleNamespace(method="rebar", dataset="digits", resume=None, out=None)
    names = [M.runfolder.open_run(args).name for _ in range(3)]
    assert names == [f"rebar-digits-20260101-000000{suffix}" for suffix in ("", "-2", "-3")]
