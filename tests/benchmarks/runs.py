"""What the measurements share: many training runs, some at a time, that can be resumed."""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "methods"))

import sweep
from harness import figures, pool
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def train_all(commands, folder, at_once=2):
    """Run `commands`, a dict from name to command, into folder/name; returns {name: folder}.

    Raises RuntimeError if one fails, once the others are done; InputError, before anything starts,
    if a command is bad or its folder is that of another.
    """
    folders, failed = {name: folder.resolve() / name for name in commands}, []
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for name, command in commands.items():
        program, *flags = command.split()
        job = pool.Job((str(ROOT / program), *flags), str(folders[name]), cwd=str(ROOT))
        runs.append(sweep.Run(name, (), 0, job))
    for job, state, line in pool.here([run.job for run in sweep.check(runs)], at_once):
        if job:
            print(f"{Path(job.folder).name}: {state} {line}", flush=True)
            failed += [job.folder] * (state != "done")
    if failed:
        raise RuntimeError(f"not done: {', '.join(failed)}")
    return folders


def facts(command, folder):
    """What a result has to say of its run: command, versions, data, summary."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    seconds = round(summary.pop("seconds"))
    known = {"command": f"python {command}", "versions": config["versions"],
             "data_verified": config["data_verified"]}  # fmt: skip
    return known | summary | {"seconds": seconds}


def log_rows(folder):
    """The rows of a run's log so far, a list of dicts of numbers; none if it has no log."""
    path = folder / "log.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [{k: float(x) for k, x in row.items() if x} for row in csv.DictReader(file)]


def save(figure, path):
    """As figures.save, but with 128 colours: a third of the bytes."""
    figures.save(figure, path)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def kept(name, rows, order):
    """`rows`, dicts with a "run", and of data/results/<name>.json those of other runs, in order."""
    path = ROOT / "data" / "results" / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    known = {row["run"]: row for row in [*before, *rows]}
    return [known[run] for run in order if run in known]


def write(name, content):
    """data/results/<name>.json"""
    path = ROOT / "data" / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
