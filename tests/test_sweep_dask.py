"""sweep.py on a real cluster: a scheduler and workers of Dask as processes of their own.

What a sweep of one process would have left, bit for bit: with a run that was half done before,
a worker that is killed in the middle of a run, and a scheduler that is stopped and started again.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import proofs
import pytest
from test_runs import SMALL, assert_same_run, run
from test_sweep import INTERRUPT, until

pytest.importorskip("distributed")

FLAGS = [*SMALL, "--steps", "400", "--log-every", "10", "--eval-every", "400"]
NAMES = [f"reinforce-lr={lr}-seed={seed}" for lr in ("1e-2", "1e-3") for seed in (0, 1)]
WORDS = "reinforce --seeds 0-1 --grid lr=1e-2,1e-3"


def dask(*words, folder):
    """Start `dask scheduler …` or `dask worker …`, with its files in `folder`."""
    program = [sys.executable, "-m", "dask", *map(str, words)]
    log = open(folder / f"{words[0]}-{time.monotonic()}.txt", "wb")  # noqa: SIM115
    environment = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    return subprocess.Popen(
        program, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True
    )


def kill(process):
    """SIGKILL for a process and all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def cluster(tmp_path):
    """Functions that start a scheduler and a worker of one thread; all are killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, address = [], f"tcp://127.0.0.1:{port}"

    def scheduler():
        words = ["--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show"]
        started.append(dask("scheduler", *words, folder=tmp_path))
        until(lambda: answers(port))
        return started[-1]

    def worker():
        words = ["--nthreads", 1, "--no-nanny", "--no-dashboard", "--death-timeout", 60]
        started.append(dask("worker", address, *words, folder=tmp_path))
        return started[-1]

    yield address, scheduler, worker
    for process in started:
        if process.poll() is None:
            kill(process)


def sweep(out, *words):
    line = [*shlex.split(WORDS), *words, "--out", str(out), "--", *FLAGS]
    program = [sys.executable, str(proofs.METHODS / "sweep.py"), *map(str, line)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(program, **pipes)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    process = sweep(out, "--processes", 1)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


def steps_of(folder):
    """The last step in the log of a run; 0 without one."""
    try:
        return int((folder / "log.csv").read_text().splitlines()[-1].partition(",")[0])
    except (OSError, ValueError, IndexError):
        return 0


def assert_same_sweep(out, serial):
    for name in NAMES:
        assert_same_run(out / name, serial / name)
        one, other = (json.loads((folder / name / "summary.json").read_text())
                      for folder in (out, serial))  # fmt: skip
        for key in one.keys() - {"seconds", "steps_per_second"}:
            assert one[key] == other[key], (name, key)


def test_a_worker_is_killed_and_a_run_was_half_done(cluster, serial, tmp_path):
    address, scheduler, worker = cluster
    out = tmp_path / "out"
    out.mkdir()
    half = [*FLAGS, "--lr", "1e-2", "--seed", 1, "--out", out / NAMES[1]]
    assert run("reinforce", *half, code=INTERRUPT)[0] == 130
    scheduler()
    first = worker()
    process = sweep(out, "--scheduler", address)
    until(lambda: any(0 < steps_of(out / name) < 350 for name in NAMES if name != NAMES[1]))
    kill(first)
    worker(), worker()
    printed, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert_same_sweep(out, serial)
    outputs = [Path(out, f"{name}.txt").read_text() for name in NAMES]
    assert any("--resume" in text for text in outputs)  # not from the beginning
    assert "--resume" in outputs[1]
    assert "4/4" in printed


def test_the_scheduler_is_stopped_and_started_again(cluster, serial, tmp_path):
    address, scheduler, worker = cluster
    first, out = scheduler(), tmp_path / "out"
    worker()
    process = sweep(out, "--scheduler", address)
    until(lambda: any(steps_of(out / name) for name in NAMES))
    kill(first)
    scheduler()
    worker()
    printed, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    assert "is gone; waiting for it" in printed
    assert_same_sweep(out, serial)


def test_no_scheduler_is_one_line(tmp_path):
    process = sweep(tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--scheduler: no scheduler of Dask answers at tcp://127.0.0.1:9" in err
    assert len(err.strip().splitlines()) == 1
