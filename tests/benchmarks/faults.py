"""Kill runs of every program at random moments, and resume them: is anything lost or different?

Every program is run once without interruption. Then, again and again, a run of one of them gets
one of four signals (KILL, TERM, HUP, INT) at a moment drawn from the whole length of that run, so
also before the first step, in an evaluation, in figures and in the bias check; a third of them get
it once the last step is done. It is resumed, or begun again if it had saved nothing, until it is
done. The folder then has to be equal to the uninterrupted one in everything but the seconds, and
nothing else may be in it. Prints a line for every difference; the exit code is 1 if there is one.

    python tests/benchmarks/faults.py --kills 200
"""

import argparse
import collections
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

METHODS = Path(__file__).resolve().parents[2] / "methods"
SIGNALS = {"KILL": -9, "TERM": 143, "HUP": 129, "INT": 130}  # and the exit codes they lead to
NET = ["--hidden", "6", "--layers", "2", "--eval-samples", "5"]
PAIR = [*NET, "--samples", "2"]
GAUSS = ["--hidden", "8", "--latent", "3", "--samples", "4", "--eval-samples", "5",
         "--test-samples", "10"]  # fmt: skip
PROGRAMS = {
    **{name: (name, NET) for name in ("reinforce", "nvil", "muprop", "concrete", "rebar", "relax",
                                    "reinmax")},
    **{name: (name, PAIR) for name in ("rloo", "vimco", "rodeo")},
    "disarm": ("disarm", NET),
    "compare": ("compare", [*PAIR, "--methods", "REINFORCE,REBAR", "--follow", "REBAR"]),
    "gumbel_softmax": ("gumbel_softmax", ["--variables", "3", "--classes", "4", "--hidden", "8",
                                          "--eval-samples", "5", "--early-stop"]),
    "semi_supervised": ("semi_supervised", ["--hidden", "8", "--z", "2", "--eval-samples", "2"]),
    "dreg": ("dreg", [*GAUSS, "--track", "iwae"]),
    "dreg --bias-check": ("dreg", [*GAUSS, "--bias-check", "--draws", "300"]),
    "dvae_sharp": ("dvae_sharp", ["--width", "8", "--chains", "20", "--sweeps", "2",
                                  "--ais-chains", "16", "--ais-temperatures", "20",
                                  "--eval-samples", "5", "--test-samples", "10"]),
}  # fmt: skip
STEPS = ["--steps", "60", "--log-every", "10"]


def command(name, *more):
    method, flags = PROGRAMS[name]
    return [sys.executable, str(METHODS / f"{method}.py"), *([] if more[0] == "--resume" else
            [*flags, *STEPS]), *map(str, more)]  # fmt: skip


def heed():
    """A shell starts background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(words):
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def steps_done(folder):
    """The steps of the checkpoint in a folder; 0 without one."""
    try:
        with np.load(folder / "checkpoint.npz") as file:
            return int(file["step_count"])
    except OSError:
        return 0


def without_seconds(value, measures_times):
    """A row or a summary without what differs from run to run."""
    times = ("second", "ms/") if measures_times else ("second",)
    return {k: x for k, x in value.items() if not any(word in k for word in times)}


def content(folder, measures_times):
    """{file: what it has to be equal in}; `measures_times` leaves out what depends on them."""
    found = {}
    for path in folder.iterdir():
        if path.name == "checkpoint.npz":
            with np.load(path) as file:
                left_out = {"seconds", *(("aux", "sums") if measures_times else ())}
                found[path.name] = {k: file[k].tobytes() for k in file.files if k not in left_out}
        elif path.name == "log.csv":
            rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            found[path.name] = [without_seconds(row, measures_times) for row in rows]
        elif path.name == "summary.json":
            summary = json.loads(path.read_text(encoding="utf-8"))
            found[path.name] = without_seconds(summary, measures_times)
        elif path.name == "config.json":
            found[path.name] = json.loads(path.read_text(encoding="utf-8"))["flags"] | {"out": ""}
        else:
            found[path.name] = "" if measures_times else path.read_bytes()
    return found


def whole(name, folder):
    """Run a program without interruption: its seconds, and those after the last step's row."""
    began = time.monotonic()
    process, last = start(command(name, "--out", folder)), None
    while process.poll() is None:
        if last is None and steps_done_in_log(folder) == 60:
            last = time.monotonic()
        time.sleep(0.01)
    out, err = process.communicate()
    if process.returncode or err:
        raise SystemExit(f"{name}: exit code {process.returncode}: {err}{out[-500:]}")
    return time.monotonic() - began, time.monotonic() - (last or began)


def steps_done_in_log(folder):
    try:
        return int((folder / "log.csv").read_text().strip().rpartition("\n")[2].partition(",")[0])
    except (OSError, ValueError):
        return 0


def kill_and_resume(name, sign, late, seconds, rng, folder, counts):
    """What is wrong with a run that got a signal, as lines."""
    wrong, process = [], start(command(name, "--out", folder))
    if late:  # once the last step is in the log: evaluation is done, the rest is not
        while process.poll() is None and steps_done_in_log(folder) < 60:
            time.sleep(0.002)
        time.sleep(rng.random() * seconds[1])
    else:
        time.sleep(rng.random() * seconds[0])
    if process.poll() is None:
        process.send_signal(getattr(signal, f"SIG{sign}"))
    _, err = process.communicate()
    done = steps_done(folder)
    ended = process.returncode == 0
    counts["ended before"] += ended
    counts["after the last step"] += done == 60 and not ended
    counts["before the first checkpoint"] += done == 0
    counts[sign] += not ended
    early = (-1, -2, -15, 1)  # while Python starts, or imports
    if process.returncode not in (0, SIGNALS[sign]) and not (
        done == 0 and process.returncode in early
    ):
        wrong.append(f"exit code {process.returncode}: {err.strip()[-300:]}")
    if err.count("\n") > 1 and done > 0:
        wrong.append(f"{err.count(chr(10))} lines on stderr: {err.strip()[-300:]}")
    if not ended and (folder / "summary.json").exists() and sign != "KILL":
        counts["with a summary"] += 1
    if not (folder / "summary.json").exists():
        if done:
            words = command(name, "--resume", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            words = command(name, "--out", folder)
        process = start(words)
        _, err = process.communicate()
        if process.returncode or err:
            wrong.append(f"resumed: exit code {process.returncode}: {err.strip()[-300:]}")
    return wrong


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--kills", type=int, default=200, metavar="N")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--processes", type=int, default=2)
    args = p.parse_args()
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    seconds = {name: whole(name, home / name) for name in PROGRAMS}
    right = {name: content(home / name, name == "compare") for name in PROGRAMS}
    counts, failures, lock = collections.Counter(), [], threading.Lock()

    def one(k):
        rng = random.Random(f"{args.seed} {k}")
        name = [*PROGRAMS][k % len(PROGRAMS)]
        sign, folder = rng.choice([*SIGNALS]), home / f"kill-{k}"
        wrong = kill_and_resume(name, sign, k % 3 == 0, seconds[name], rng, folder, counts)
        found = content(folder, name == "compare")
        if found.keys() != right[name].keys():
            wrong.append(f"files: {sorted(found.keys() ^ right[name].keys())}")
        for file in found.keys() & right[name].keys():
            if found[file] != right[name][file]:
                wrong.append(f"{file} differs")
        with lock:
            failures.extend(wrong)
            for line in wrong:
                print(f"kill {k}, {name}, SIG{sign}: {line}", flush=True)
        if not wrong:
            shutil.rmtree(folder)

    with ThreadPoolExecutor(args.processes) as pool:
        list(pool.map(one, range(args.kills)))
    print(f"{args.kills} kills of {len(PROGRAMS)} programs, seed {args.seed}; {dict(counts)}; "
          f"{len(failures)} faults")  # fmt: skip
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
