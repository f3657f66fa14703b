"""Many runs at once: methods × grid × seeds, on all cores of this machine or on a cluster.

    python methods/sweep.py rebar nvil "rloo --samples 4" --seeds 0-4 --grid lr=1e-3,3e-3 \\
        -- --steps 2000 --layers 2
    python methods/sweep.py … --dry-run        what it would run
    python methods/sweep.py … --status         what is done, running, failed; when it will end

What follows a lone -- are flags of all runs; a method in quotes may have flags of its own.
--grid FLAG=VALUE,VALUE,… tries every value, and every combination if it is given several times; a
flag without a value takes on and off. Bad flags are refused before anything starts.

Repeat the command to go on: it does only what is missing. A run is done if its folder has a
summary.json; one that has a checkpoint is resumed. A run that fails stops no other. Ctrl-C saves.
Exit code 0: all is done; 1: some runs failed.

The end is a table of mean ± standard error over the seeds. For each method it has the point of the
grid with the best validation, among those with the most seeds done; then the whole grid. Beside it:
results.csv, a row a run; and sweep.png, validation and log variance against step and seconds.

--scheduler ADDRESS hands the runs to a Dask cluster (pip install 'dask[distributed]'). Its workers
have to see this checkout, --out, --python and the present folder under the same paths; they need
nothing else of ours. A run whose worker dies goes to another, from its checkpoint.
"""

import argparse
import contextlib
import functools
import hashlib
import importlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from common import InputError

from harness import cli, data, pool, sweep_report
from harness.stopping import Stopped
from harness.trainer import Trainer

from tqdm import tqdm

METHODS = Path(__file__).resolve().parent
# These have no validation to choose by.
NOT_SWEPT = {"common", "categorical", "check", "compare", "sweep", "rbm", "unordered"}
OURS = {"--out": "is that of the sweep, before the --", "--seed": "give --seeds before the --",
        "--resume": "a sweep resumes by itself", "--toy": "a toy has no validation",
        "--bias-check": "it is no training", "--help": "ask the method",
        "-h": "ask the method"}  # fmt: skip
MAY_DIFFER = cli.RESUME_MAY_CHANGE - {"steps"} | {"out"}


class Run(NamedTuple):
    """One run: the method as it was given, its point ((flag, value), …) of the grid, the seed."""

    method: str
    values: tuple
    seed: int
    job: pool.Job


# -------------------------------------------------------------------------------- what is to be run


def seeds(text):
    """ "0-4,7" -> [0, 1, 2, 3, 4, 7]"""
    found = []
    for part in text.split(","):
        low, high = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip()).groups()
        these = range(int(low), int(high or low) + 1)
        if not these:
            raise ValueError
        found += these
    if len(found) != len(set(found)):
        raise ValueError
    return found


def axis(text):
    """ "lr=1e-3,3e-3" -> ("lr", ["1e-3", "3e-3"])"""
    name, equals, values = text.partition("=")
    name, values = name.removeprefix("--"), [value.strip() for value in values.split(",")]
    if not name or not equals or "" in values or len(values) != len(set(values)):
        raise ValueError
    return name, values


def words_of(method):
    """The words of a METHOD, program first; ValueError for a quotation mark without another."""
    return shlex.split(method) or [""]


def program_of(text):
    """The full path of a program, also of one that is found by PATH."""
    if found := shutil.which(text):
        return os.path.abspath(found)
    raise ValueError


def kind(convert, right):
    """An argparse type; `right` says what would be."""

    def converted(text):
        try:
            return convert(text)
        except (ValueError, AttributeError):
            raise argparse.ArgumentTypeError(f"'{text}' has to be {right}") from None

    return converted


def expand(p, args, flags):
    """The runs of a command: a list of Run. What cannot be swept ends the process."""
    there = sorted({path.stem for path in METHODS.glob("*.py")} - NOT_SWEPT)
    names = [name for name, _ in args.grid]
    given = [*flags, *itertools.chain(*map(words_of, args.methods))]
    for flag in [*given, *(f"--{name}" for name in names)]:
        if flag.partition("=")[0] in OURS:
            p.error(f"{flag}: {OURS[flag.partition('=')[0]]}")
    for flag in given:
        if flag.partition("=")[0].removeprefix("--") in names and flag.startswith("--"):
            p.error(f"{flag}: --grid says what it is; leave one of them away")
    if len(names) != len(set(names)):
        p.error(
            f"--grid: {max(names, key=names.count)} is given twice; name all its values at once"
        )
    runs = []
    for method in args.methods:
        program, *own = words_of(method)
        if program not in there:
            p.error(f"METHOD: '{program}' cannot be swept; choose from {', '.join(there)}")
        for values in itertools.product(*(values for _, values in args.grid)):
            point = tuple(zip(names, values))
            words = [word for name, value in point if value != "off"
                     for word in (f"--{name}", value)[: 1 if value == "on" else 2]]  # fmt: skip
            for seed in args.seeds:
                parts = [method, *(f"{name}={value}" for name, value in point), f"seed={seed}"]
                name = "-".join(re.sub(r"[^\w.=+]+", "-", part).strip("-") for part in parts)
                if len(name.encode()) > 240:
                    p.error(f"METHOD: the folder {name:.40}… would have too long a name; let flags "
                            "that all runs share follow the --")  # fmt: skip
                program_and_flags = str(METHODS / f"{program}.py"), *own, *flags, *words
                command = *program_and_flags, "--seed", str(seed)
                job = pool.Job(command, str(args.out / name), None, args.python, os.getcwd())
                runs.append(Run(method, point, seed, job))
    folders = [run.job.folder for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            p.error(f"two of the runs would be {Path(folder).name}: name each method once")
    return runs


# ------------------------------------------------------------------------- what would be refused


class Accepted(Exception):
    """A program has accepted its flags and is about to read its images."""


def settings(run):
    """(all flags of a run as its program understands them, the program's Parser).

    The program's own main() is called, up to where it reads its images. Raises InputError if it
    refuses the flags.
    """
    program, *flags = run.job.command
    module, parsed, parse = importlib.import_module(Path(program).stem), [], cli.parse
    line = "it reads no images"

    def parse_and_remember(p, *arguments):
        args = parse(p, *arguments)
        parsed.append((args, p))
        return args

    def accept(name):
        readable(name)
        raise Accepted

    said, read_images = io.StringIO(), data.read_images
    cli.parse, data.read_images = parse_and_remember, accept
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            module.main([*flags, "--out", run.job.folder])
    except Accepted:
        args, p = parsed[-1]
        return vars(args), p
    except SystemExit:
        line = said.getvalue().strip().rpartition("\n")[2].partition(" error: ")[2]
    except InputError as error:
        line = str(error)
    finally:
        cli.parse, data.read_images = parse, read_images
    raise InputError(f"{run.method}: {line}")


@functools.cache
def readable(name, read_images=data.read_images):
    """Raises InputError if the images `name` are missing or damaged."""
    read_images(name)


def check(runs):
    """The runs with their steps, if their programs accept their flags and those of their folders.

    Raises InputError for the first that does not, whose folder is that of another run or has a run
    on other images, or that is the same as one before it.
    """
    checked, names = [], {}
    for run in runs:
        flags, p = settings(run)
        flags, config = json.loads(json.dumps(flags)), config_of(run.job.folder)
        for key, value in config.get("flags", {}).items():
            longer = key == "steps" and flags.get(key, value) > value and not p.keeps_steps
            if flags.get(key, value) != value and key not in MAY_DIFFER and not longer:
                what = p.differs(key, value, flags[key])
                raise InputError(f"--out: {run.job.folder} has {what}; choose another folder")
        if data.is_file(flags["dataset"]) and config.get("data_sha256") not in (
            None, data.seal(flags["dataset"])
        ):  # fmt: skip
            raise InputError(f"--out: {run.job.folder} is a run on another {flags['dataset']}; "
                             "choose another folder")  # fmt: skip
        one = json.dumps(flags | {"out": ""}, sort_keys=True)
        if one in names:
            name = Path(run.job.folder).name
            raise InputError(f"--grid: {name} is the same run as {names[one]}; name it once")
        names[one] = Path(run.job.folder).name
        checked.append(run._replace(job=run.job._replace(steps=flags["steps"])))
    return checked


def config_of(folder):
    """The config.json of a run; {} if there is none that can be read."""
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        return config if isinstance(config["flags"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def measures(run):
    """What the program of a run measures on validation: the bound, and what its Trainer adds."""
    module = importlib.import_module(Path(run.job.command[0]).stem)
    kinds = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Trainer)]
    return {"bound", *itertools.chain(*(kind.measures for kind in kinds))}


# ------------------------------------------------------------------------------------ to run them


class Progress:
    """A line for each run that ends; on a terminal also a bar for each that runs."""

    def __init__(self, runs, processes):
        self.runs, self.processes, self.bars, self.next = runs, processes, {}, 0.0
        states = [pool.look(run.job.folder, run.job.steps)[0] for run in runs]
        self.states = ["new" if state == "failed" else state for state in states]  # tried again
        self.over = self.states.count("done")

    def ended(self, job, state, line):
        k = [run.job for run in self.runs].index(job)
        self.states[k], self.over = state, self.over + 1
        left = sweep_report.seconds_left(self.runs, self.states, self.processes)
        more = f"; {sweep_report.duration(left)} left" if self.over < len(self.runs) else ""
        what = line if state != "done" else f"{sweep_report.steps_done(self.runs[k])[1]:.0f} s"
        name = Path(job.folder).name
        tqdm.write(f"{self.over}/{len(self.runs)}  {name}  {state}: {what}{more}")
        if name in self.bars:
            self.bars.pop(name).close()

    def show(self):
        """Every two seconds: look which runs have begun, and how far they are."""
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + max(2, len(self.runs) / 50)
        for k, run in enumerate(self.runs):
            if self.states[k] in ("done", "failed"):
                continue
            self.states[k], _ = pool.look(run.job.folder, run.job.steps)
            if self.states[k] == "running":
                name, (steps, _) = Path(run.job.folder).name, sweep_report.steps_done(run)
                if name not in self.bars:
                    self.bars[name] = tqdm(total=run.job.steps, desc=name, unit="step",
                                           initial=steps, leave=False, disable=None)  # fmt: skip
                self.bars[name].update(steps - self.bars[name].n)


def perform(runs, args):
    """Do what is missing; returns [(run, last line)] of those that failed."""
    progress, failed = Progress(runs, args.processes), []
    by_folder = {run.job.folder: run for run in runs}
    jobs = [run.job for run, state in zip(runs, progress.states) if state != "done"]
    print(f"{len(runs) - len(jobs)} of {len(runs)} runs done, in {args.out}", flush=True)
    cluster = args.scheduler and pool.on_cluster(jobs, args.scheduler)
    with contextlib.closing(cluster or pool.here(jobs, args.processes)) as ends:
        for job, state, line in ends:
            if job:
                progress.ended(job, state, line)
                if state != "done":
                    failed.append((by_folder[job.folder], line))
            elif line:
                tqdm.write(line)
            progress.show()
    return failed


def status(runs, args):
    """Print the state of every run and when they will have ended."""
    states = [pool.look(run.job.folder, run.job.steps) for run in runs]
    for run, (state, line) in zip(runs, states):
        steps, _ = sweep_report.steps_done(run)
        what = f"  {line}" if state == "failed" else ""
        print(f"{state:8} {steps:>9} of {run.job.steps}  {Path(run.job.folder).name}{what}")
    names = [state for state, _ in states]
    counts = [f"{names.count(state)} {state}" for state in dict.fromkeys(names)]
    again = [state if "running" in names or state != "failed" else "new" for state in names]
    left = sweep_report.seconds_left(runs, again, args.processes)
    if "running" in names:
        if left is not None:
            end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        counts.append(f"{sweep_report.duration(left)} left" + (f", until {end}" if left else ""))
    elif {*names} - {"done"}:
        counts.append(f"nothing is running; what is missing takes {sweep_report.duration(left)}")
    print(", ".join(counts))


def main(argv=None):
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    words, flags = words[:cut], words[cut + 1 :]
    usage = "%(prog)s METHOD [METHOD …] [flags] [-- flags of the methods]"
    p = cli.Parser(__doc__, prog="sweep.py", usage=usage)
    p.add_argument("methods", nargs="*", metavar="METHOD", help="rebar, or 'rloo --samples 4'",
                   type=kind(lambda text: words_of(text) and text,
                             "like rebar or 'rloo --samples 4'"))  # fmt: skip
    p.flag("--seeds", "such as 0-4 or 0,3; default: 0", type=kind(seeds, "like 0-4 or 0,3"))
    p.add_argument("--grid", action="append", default=[], metavar="FLAG=A,B,…", help="to try",
                   type=kind(axis, "like lr=1e-3,3e-3, with different values"))  # fmt: skip
    p.flag("--out", "folder; default: runs/sweep-, and a code of what follows the --",
           type=lambda text: Path(cli.folder(text)).resolve(), metavar="DIR")  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    p.flag("--processes", "at a time on this machine; default: one a core", type=cli.COUNT)
    p.flag("--scheduler", "of a Dask cluster that does the runs", metavar="ADDRESS")
    p.flag("--python", "that starts the runs", sys.executable, metavar="PATH",
           type=kind(program_of, "a program"))  # fmt: skip
    p.flag("--measure", "of validation, by which the best is chosen: bound, accuracy", "bound",
           metavar="NAME")  # fmt: skip
    what = p.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list the commands, start nothing")
    what.add_argument("--status", action="store_true", help="say how far it is, start nothing")
    args = p.parse_args(words)
    if not args.methods:
        p.error("METHOD: name one at least, such as rebar")
    if args.scheduler and args.processes:
        p.error("--processes: the workers of --scheduler say how many runs they take")
    args.processes, args.seeds = args.processes or cores, args.seeds or [0]
    code = hashlib.sha256(shlex.join(flags).encode()).hexdigest()[:8]
    args.out = args.out or data.ROOT / "runs" / f"sweep-{code}"
    runs = expand(p, args, flags)
    for run in runs:
        if args.measure not in measures(run):
            there = ", ".join(sorted(measures(run)))
            p.error(f"--measure: {run.method} has no {args.measure}; it has {there}")
    runs = check(runs)
    if args.dry_run:
        for run in runs:
            state, _ = pool.look(run.job.folder, run.job.steps)
            command = shlex.join(["python", *run.job.command, "--out", run.job.folder])
            print(f"{state:8} {command}")
        return
    if args.status:
        status(runs, args)
        return
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        failed = perform(runs, args)
    except KeyboardInterrupt as signal:
        code = 128 + (signal.args or (2,))[0]
        raise Stopped(code, "stopped; repeat the command to go on") from None
    print("", *sweep_report.write(args.out, runs, args.measure), sep="\n")
    print(f"\n{args.out / 'results.csv'}, {args.out / 'sweep.png'}", flush=True)
    if failed:
        for run, line in failed:
            print(f"  {Path(run.job.folder).name}: {line}", file=sys.stderr)
        raise Stopped(1, f"{len(failed)} of {len(runs)} runs not done")


if __name__ == "__main__":
    cli.run(main)
