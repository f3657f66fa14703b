"""Many runs of our programs, several at a time: on this machine, or on a cluster that Dask leads.

What is known of a run is in files that every machine sees: its folder, and beside it FOLDER.txt.
That has the command, all that the program has printed, also at earlier starts, and its exit code.
It is touched every SIGN seconds while the program lives. A run is done if its folder has a summary,
and can be resumed if it has a checkpoint. `work` is all that happens on a worker; it needs only the
standard library.
"""

import contextlib
import json
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple

from common import InputError

SIGN, POLL, PATIENCE = 2, 0.5, 600  # seconds
TRIES = 4
STALE = {True: 20, False: 330}  # seconds without a sign of a program that ran on this host or not
# Exit codes of a program that can go on, if any.
STOPPED = {"0", "129", "130", "143", "-1", "-2", "-15"}
BEGUN = {"config.json", "lock"}  # files of a run that was hardly begun
TAIL = 4000  # bytes of what a program printed that are searched for its last line
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# How a program is started: it stops as by Ctrl-C, which saves, when whoever started it is gone,
# because that closes its standard input.
KEEPER = f"""
import contextlib, os, runpy, signal, sys, threading, time
output, *sys.argv = sys.argv[1:]
def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    os._exit(130)
def sign():
    while True:
        with contextlib.suppress(OSError):
            os.utime(output)
        time.sleep({SIGN})
signal.signal(signal.SIGINT, signal.default_int_handler)
for function in (watch, sign):
    threading.Thread(target=function, daemon=True).start()
sys.path[0], code = os.path.dirname(sys.argv[0]), 1
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code or 0
    raise
except KeyboardInterrupt:
    code = 130
    sys.exit(code)
finally:
    sys.stderr.flush()
    print(f"exit code {{code}}", flush=True)
"""


class Job(NamedTuple):
    """A run: the program and its flags, without --out; its folder; its steps, if they are known."""

    command: tuple
    folder: str
    steps: int | None = None
    python: str = sys.executable
    cwd: str = "."


def look(folder, steps=None):
    """The state of a run and its last line.

    The state is "done", "running", "failed", "stopped" (it can be resumed) or "new". A summary of
    other than `steps` steps, if they are given, is not that of this run.
    """
    with contextlib.suppress(OSError):
        os.listdir(folder)  # on a network's file system: have what other machines have written
    with contextlib.suppress(OSError, ValueError), open(f"{folder}/summary.json", "rb") as file:
        if steps is None or json.load(file).get("steps") == steps:
            return "done", ""
    host, age, lines = output_of(folder)
    code = re.fullmatch(r"exit code (.+)", lines[-1]) if lines else None
    last = lines[-2] if len(lines) > 1 and code else lines[-1] if lines else ""
    if host and not code and age < STALE[host == socket.gethostname()]:
        return "running", last
    if code and code[1] not in STOPPED:
        return "failed", last
    return ("stopped" if os.path.exists(f"{folder}/checkpoint.npz") else "new"), last


def output_of(folder):
    """(host, seconds since the last sign, last lines) of FOLDER.txt; ("", inf, []) without one."""
    try:
        with open(f"{folder}.txt", "rb") as file:
            facts = os.fstat(file.fileno())
            host = file.readline().decode(errors="replace").partition(" ")[0]
            file.seek(max(file.tell(), facts.st_size - TAIL))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return "", float("inf"), []
    return host, time.time() - facts.st_mtime, lines


def work(job, unwanted=lambda: False):
    """Start a run or resume it, and wait for its end: its state and last line, as of `look`.

    Stops it as by Ctrl-C once unwanted() is true. Waits for another's process that has the run.
    """
    command, folder, steps, python, cwd = job
    while look(folder, steps)[0] == "running":
        if unwanted():
            return "stopped", "another process has it"
        time.sleep(POLL)
    if look(folder, steps)[0] == "done":
        return "done", ""
    program, *flags = command
    host = socket.gethostname()
    for path in (python, program, cwd, os.path.dirname(folder)):
        if not os.path.exists(path):
            return "failed", f"{host} does not see {path}, which all workers have to share"
    if os.path.exists(f"{folder}/checkpoint.npz"):
        flags += ["--resume", folder, *(["--steps", str(steps)] if steps else [])]
    else:
        there = os.listdir(folder) if os.path.isdir(folder) else []
        others = [x for x in there if x not in BEGUN and not x.endswith(".partial")]
        if others:
            return "failed", f"{folder} has no checkpoint, but {others[0]}; remove it to start anew"
        for file in there:
            os.remove(f"{folder}/{file}")
        flags += ["--out", folder]
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(folder)
    output, before = f"{folder}.txt", ""
    with contextlib.suppress(FileNotFoundError), open(output, errors="replace") as file:
        before = file.read()
    with open(output, "w", errors="replace") as file:
        line = f"{host} {time.strftime('%F %T')} {shlex.join([program, *flags])}"
        print(line, *([f"{before}-- again:"] if before else []), sep="\n", file=file, flush=True)
        process = subprocess.Popen(
            [python, "-u", "-c", KEEPER, output, program, *flags], cwd=cwd, stdin=subprocess.PIPE,
            stdout=file, stderr=file, env={**os.environ, **dict.fromkeys(THREADS, "1")},
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None and not unwanted():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
        finally:
            process.stdin.close()  # a program that still runs saves and stops
            code = process.wait()
    *_, lines = output_of(folder)
    if not lines or not lines[-1].startswith("exit code "):
        with open(output, "a") as file:
            print(f"killed by signal {-code}\n" * (code < 0) + f"exit code {code}", file=file)
    return look(folder, steps)


def here(jobs, processes):
    """Do the jobs, `processes` at a time: yields (job, state, line) for each that has ended, and
    (None, "", "") now and then. When it is closed, all that run save and stop."""
    stopping = threading.Event()
    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(work, job, stopping.is_set): job for job in jobs}
        try:
            while futures:
                for future in wait(futures, 1, FIRST_COMPLETED).done:
                    job, error = futures.pop(future), future.exception()
                    yield job, *(("failed", str(error)) if error else future.result())
                yield None, "", ""
        finally:
            stopping.set()
            pool.shutdown(cancel_futures=True)


def on_worker(job):
    """What Dask runs: `work`, until the worker closes or nobody wants the run any more."""
    from dask.distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def unwanted():
        task = worker.state.tasks.get(key)
        closing = worker.status.name not in ("running", "paused")
        return closing or task is None or task.state == "cancelled"

    return work(job, unwanted)


def connect(address, patience):
    """A client of the scheduler; raises InputError after `patience` seconds without an answer."""
    try:
        from dask.distributed import Client
    except ImportError as error:
        hint = "pip install 'dask[distributed]', or leave the flag away"
        raise InputError(f"--scheduler: {error}; {hint}") from None
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("distributed"):  # its tracebacks; we say in one line what happened
            logging.getLogger(name).setLevel(logging.CRITICAL)
    end = time.monotonic() + patience
    while True:
        try:
            return Client(address, timeout=5)
        except (OSError, ValueError, AssertionError) as error:
            if time.monotonic() > end:
                reason = f"no scheduler of Dask answers at {address} ({error})"
                raise InputError(f"--scheduler: {reason}") from None
            time.sleep(1)


def on_cluster(jobs, address):
    """As `here`, but on the workers of the Dask scheduler at `address`, which share our folders.

    A run whose worker dies or closes goes to another worker and is resumed; TRIES times in a row
    without a new checkpoint are a failure. If the scheduler is gone, (None, "", line) says so once;
    when it is back, it gets all that is not done.
    """
    client, waiting = connect(address, patience=0), list(jobs)
    import cloudpickle
    from dask.distributed import CancelledError, KilledWorker, TimeoutError
    from dask.distributed import wait as wait_for

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    futures, tries = {}, {}

    def submit(job):
        mark = job.folder, saved_at(job.folder)
        tries[mark] = tries.get(mark, 0) + 1
        name = f"{os.path.basename(job.folder)}-{uuid.uuid4().hex}"
        # a lambda is sent by value, and with it all that it uses of this module
        run = client.submit(lambda job: on_worker(job), tuple(job), pure=False, key=name)
        futures[run] = job, mark

    while waiting:
        try:
            while waiting:
                submit(waiting.pop(0))
            while futures and client.status == "running":
                done = ()
                with contextlib.suppress(TimeoutError, CancelledError):
                    done = wait_for([*futures], timeout=1, return_when="FIRST_COMPLETED").done
                if any(run.cancelled() for run in futures):
                    break
                for run in done:
                    job, mark = futures.pop(run)
                    if run.status == "finished":
                        state, line = run.result()
                    else:
                        state, line = "failed", str(run.exception())
                        if isinstance(run.exception(), KilledWorker):
                            state, line = "stopped", "its worker died"
                    if state == "stopped" and tries[mark] < TRIES:
                        submit(job)
                    else:
                        yield job, "failed" if state == "stopped" else state, line
                yield None, "", ""
        finally:
            waiting = [job for job, _ in futures.values()]
            futures.clear()
            with contextlib.suppress(Exception):
                client.close(timeout=5)
        if waiting:
            yield None, "", f"the scheduler at {address} is gone; waiting for it"
            client = connect(address, PATIENCE)


def saved_at(folder):
    """When the checkpoint of a run was written; 0 if it has none."""
    with contextlib.suppress(OSError):
        return os.stat(f"{folder}/checkpoint.npz").st_mtime
    return 0
