"""Faults of a disk: whatever bit of a run's files changes, the run is refused, or is the same."""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
import types

import numpy as np
import proofs
import pytest
from test_runs import SMALL, assert_same_run, read_log, run, start

M = proofs.load()
FILES = ("checkpoint.npz", "log.csv", "config.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "run"
    flags = ["--steps", 60, "--log-every", 5, "--out", folder]
    assert run("rebar", *SMALL, *flags)[0] == 0
    return folder


def wait_for(what, seconds=60):
    """Until a path exists, or a function is true."""
    end = time.monotonic() + seconds
    while not (what.exists() if hasattr(what, "exists") else what()):
        assert time.monotonic() < end
        time.sleep(0.02)


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


@pytest.mark.parametrize("where", ["trainer.np.savez", "lock.Lock.__exit__"])
def test_a_second_signal_changes_nothing(where, finished, tmp_path):
    """SIGHUP while SIGTERM saves, or has saved: the checkpoint is whole, the way to resume said."""
    twice = f"""if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy, signal; from harness import lock, trainer
        step, then, sent = trainer.Trainer.step, {where}, []
        def step_then_signal(self, *limit):
            step(self, *limit)
            if self.step_count == 33:
                sent.append(1)
                os.kill(os.getpid(), signal.SIGTERM)
        def signal_then(*arguments, **arrays):
            if sent:
                os.kill(os.getpid(), signal.SIGHUP)
            then(*arguments, **arrays)
        trainer.Trainer.step, {where} = step_then_signal, signal_then
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", tmp_path / "run"]
    code, _, err = run("rebar", *flags, code=twice)
    assert code == 143
    assert "stopped at step 33; go on with: python" in err
    assert len(err.strip().splitlines()) == 1
    with np.load(tmp_path / "run" / "checkpoint.npz") as file:
        assert file["step_count"] == 33
    assert run("rebar", "--resume", tmp_path / "run", "--no-plots")[0] == 0
    assert_same_run(tmp_path / "run", finished)


def test_a_signal_that_was_held_back_goes_to_whom_it_belongs():
    """To the handler that was there before, once the block is done."""
    got, before = [], signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with contextlib.suppress(KeyboardInterrupt), M.stopping.uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == []
        assert got == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt) as error, M.stopping.uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
        assert error.value.args == (signal.SIGTERM,)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_long_after_the_first_counts(monkeypatch):
    """A user's code may have caught the first one; what comes within ten seconds does nothing."""
    before = {number: signal.getsignal(number) for number in M.stopping.SIGNALS}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        M.stopping.heed_signals()
        handler, ended = signal.getsignal(signal.SIGTERM), []
        for seconds in (100, 109, 111, 112):
            monkeypatch.setattr(M.stopping.time, "monotonic", lambda seconds=seconds: seconds)
            try:
                handler(signal.SIGTERM, None)
            except KeyboardInterrupt:  # caught here, as it would end the whole of pytest
                ended.append(seconds)
        assert ended == [100, 111]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


# ---------------------------------------------------------------------- what comes after the steps

AFTER = {
    "rebar": ("curves.png", "samples.png"),
    "compare": ("compare.png", "curves.png"),
    "semi_supervised": ("analogies.png", "confusion.png"),
    "dreg": ("bias_check.json", "curves.png"),
}
FLAGS = {
    "rebar": SMALL,
    "compare": (*SMALL, "--samples", 2, "--methods", "REINFORCE,REBAR", "--follow", "REBAR"),
    "semi_supervised": ("--hidden", 4, "--z", 2, "--eval-samples", 1),
    "dreg": ("--hidden", 4, "--latent", 2, "--samples", 2, "--eval-samples", 2,
             "--test-samples", 2, "--bias-check", "--draws", 50),
}  # fmt: skip


@pytest.mark.parametrize("method", AFTER)
def test_killed_after_the_last_step_a_run_is_completed(method, tmp_path):
    """By kill -9 when all is written but the summary, so all of it is made again, and is equal."""
    kill = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy; from harness import run
        write = run.write_json
        def kill(path, content):
            os.kill(os.getpid(), 9) if path.name == "summary.json" else write(path, content)
        run.write_json = kill
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    flags = [*(flag for flag in FLAGS[method] if flag != "--no-plots"), "--steps", 20, "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, out, err = run(method, *flags, whole)
    assert err == ""
    assert run(method, *flags, killed, code=kill)[0] == -9
    assert not (killed / "summary.json").exists()
    for name in AFTER[method]:
        (killed / name).unlink()
    code, again, err = run(method, "--resume", killed)
    assert (code, err) == (0, "")
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in killed.iterdir()} == names
    assert names >= {"summary.json", *AFTER[method]}
    if method == "compare":  # it measures times
        for rows in zip(read_log(killed), read_log(whole), strict=True):
            a, b = ({k: x for k, x in row.items() if k[:3] not in ("ms/", "sec")} for row in rows)
            assert a == b
        return
    assert_same_run(killed, whole)
    for name in names - {"checkpoint.npz", "config.json", "log.csv", "summary.json"}:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    a, b = (json.loads((f / "summary.json").read_text(encoding="utf-8")) for f in (killed, whole))
    assert {k: a[k] for k in a if "second" not in k} == {k: b[k] for k in b if "second" not in k}
    ends = [[line for line in text.splitlines() if "nats" in line or "%" in line or "bias" in line]
            for text in (out, again)]  # fmt: skip
    assert ends[0] == ends[1] != []


def test_a_longer_run_has_no_summary_of_the_shorter_one(finished, tmp_path):
    """A folder with a summary is complete: one that goes on has none until its end."""
    shutil.copytree(finished, tmp_path / "run")
    stop = """if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import os, runpy, signal; from harness import trainer
        def step(self, *limit):
            os.kill(os.getpid(), signal.SIGTERM)
        trainer.Trainer.step = step
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    assert run("rebar", "--resume", tmp_path / "run", "--steps", 80, code=stop)[0] == 143
    assert not (tmp_path / "run" / "summary.json").exists()


# --------------------------------------------------------------------------- one process at a time


def test_a_second_process_on_a_folder_is_refused(tmp_path):
    """While the first one runs; it ends as if nothing had been."""
    flags = [*SMALL, "--out", tmp_path / "run", "--steps", 400]
    first = start("rebar", *flags)
    wait_for(tmp_path / "run" / "checkpoint.npz")
    first.send_signal(signal.SIGSTOP)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    code, _, err = run("rebar", "--resume", tmp_path / "run")
    assert code == 2
    line = (
        f"--resume: {tmp_path / 'run'} is in use by process {first.pid} on {socket.gethostname()}"
    )
    assert err == f"rebar.py: error: {line}; wait for its end, or stop it\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert not (tmp_path / "run" / "lock").exists()


def holder(**changes):
    me = {"host": socket.gethostname(), "process": os.getpid()}
    return me | {"started": M.lock.started(os.getpid()), "id": "x"} | changes


@pytest.mark.parametrize(
    ("changes", "age", "stale"),
    [
        ({}, 10_000, False),  # it lives: on this host its age says nothing
        ({"started": "1"}, 0, True),  # another process has its number by now
        ({"process": 2**22 + 1}, 0, True),
        ({"host": "elsewhere"}, 250, False),
        ({"host": "elsewhere"}, 350, True),
        (None, 250, False),  # a file that is not a lock of ours
        (None, 350, True),
    ],
)
def test_a_lock_is_stale_when_its_process_is_gone(changes, age, stale, tmp_path):
    path = tmp_path / "lock"
    path.write_text("" if changes is None else json.dumps(holder(**changes)))
    os.utime(path, times=(time.time() - age,) * 2)
    before = path.read_bytes()
    if not stale:
        with pytest.raises(M.common.InputError, match="is in use by process"):
            M.lock.Lock(tmp_path).__enter__()
        assert path.read_bytes() == before
        return
    with M.lock.Lock(tmp_path) as lock:
        assert lock.read() == lock.mine
        lock.check()
        assert [p.name for p in tmp_path.iterdir()] == ["lock"]
    assert not path.exists()


def test_a_holder_gives_signs_and_stops_when_the_lock_is_anothers(tmp_path, monkeypatch):
    monkeypatch.setattr(M.lock, "SIGN", 0.01)
    with M.lock.Lock(tmp_path) as lock:
        os.utime(lock.path, times=(0, 0))
        wait_for(lambda: lock.path.stat().st_mtime > 0)
        lock.path.write_text(json.dumps(holder(id="another")))
        with pytest.raises(M.stopping.Stopped, match="is another process's by now; nothing was"):
            lock.check()
    assert json.loads(lock.path.read_text())["id"] == "another"  # it is not ours to remove


def break_in(folder, at, action):
    """A program that does `action` in step `at` of a run in `folder`, and then goes on."""
    return f"""if True:
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        import json, pathlib, resource, runpy, shutil; from harness import trainer
        step, folder = trainer.Trainer.step, pathlib.Path({str(folder)!r})
        def step_and_more(self, *limit):
            step(self, *limit)
            if self.step_count == {at}:
                {action}
        trainer.Trainer.step = step_and_more
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """


def test_a_run_whose_folder_another_process_took_writes_nothing(tmp_path):
    """As after a long sleep of the machine. The log and the checkpoint are then the other's."""
    folder = tmp_path / "run"
    take = break_in(folder, 33, "(folder / 'lock').write_text('{}')")
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", folder]
    code, _, err = run("rebar", *flags, code=take)
    assert code == 1
    assert f"{folder} is another process's by now; nothing was written to it" in err
    assert len(err.strip().splitlines()) == 1
    assert [int(row["step"]) for row in read_log(folder)] == [*range(5, 35, 5)]


# ---------------------------------------------------------------------------------------- the disk


def test_a_folder_that_is_deleted_during_a_run(tmp_path):
    delete = break_in(tmp_path / "run", 33, "shutil.rmtree(folder)")
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", tmp_path / "run"]
    code, _, err = run("rebar", *flags, code=delete)
    assert code == 1
    assert err == f"rebar.py: {tmp_path / 'run'} is no longer there; nothing was written to it\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [600, 12_000], ids=["log", "checkpoint"])
def test_a_file_that_can_grow_no_further(size, finished, tmp_path):
    """By a limit of the system. It is named, nothing is left beside it, and the run can go on."""
    folder = tmp_path / "run"
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    flags = [*SMALL, "--steps", 60, "--log-every", 5, "--out", folder]
    code, _, err = run("rebar", *flags, code=break_in(folder, 33, limit))
    assert code == 2
    name = "log.csv" if size == 600 else "checkpoint.npz"
    assert f"cannot write {folder / name} (File too large); mend it and go on with: python" in err
    assert len(err.strip().splitlines()) == 1
    assert {path.name for path in folder.iterdir()} == {"checkpoint.npz", "config.json", "log.csv"}
    assert run("rebar", "--resume", folder)[0] == 0
    assert_same_run(folder, finished)


# ---------------------------------------------------------------------------------- what may help


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--lr", "1e308", "a smaller --lr may help"),
        ("--temperature", "1e308", "no step was made yet, so another --temperature may help"),
    ],
)
def test_the_hint_names_the_flag_that_is_at_fault(flag, value, words, tmp_path):
    flags = [*FLAGS["compare"], "--steps", 60, flag, value]
    code, _, err = run("compare", *flags, "--out", tmp_path / "run")
    assert code == 1
    assert words in err
    assert len(err.strip().splitlines()) == 1
