"""The folder of a run: files that are written whole or not at all."""

import contextlib
import csv
import json
import os
import platform
import signal
import time
from importlib.metadata import version
from pathlib import Path

from common import InputError

from harness.data import ROOT

from tqdm import tqdm


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Open a file that takes the place of `path` only once it is written to the end."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextlib.contextmanager
def uninterrupted():
    """Hold Ctrl-C back until the block is done, so that no update is left half made."""
    received = []
    previous = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        raise KeyboardInterrupt


def write_json(path, content):
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_rows(path, rows):
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path, last_step):
    """The rows of a log up to the step last_step, with numbers as numbers."""
    if last_step == 0:
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = [{k: float(x) if x else "" for k, x in row.items()} for row in csv.DictReader(file)]
    return [row | {"step": int(row["step"])} for row in rows if row["step"] <= last_step]


def open_run(args, **facts):
    """The folder of this run with its config.json; new unless --resume, else an InputError."""
    label = f"{args.method}-{'toy' if getattr(args, 'toy', False) else args.dataset}"
    default = ROOT / "runs" / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.resume or args.out or default)
    try:
        folder.mkdir(parents=True, exist_ok=bool(args.resume))
    except FileExistsError:
        raise InputError(f"--out: {folder} exists; choose another folder or --resume it") from None
    except OSError as error:
        raise InputError(f"--out: cannot make {folder} ({error.strerror})") from None
    versions = {name: version(name) for name in ("numpy", "autograd", "scipy")}
    versions["python"] = platform.python_version()
    flags = {key: value for key, value in vars(args).items() if key != "resume"}
    write_json(folder / "config.json", {"flags": flags, **facts, "versions": versions})
    return folder


def print_row(row, header):
    """One row of the table on the screen: the log, but for test bound, seconds, keys with "/"."""
    shown = {k: x for k, x in row.items() if k not in ("test_bound", "seconds") and "/" not in k}
    if header:
        tqdm.write("  ".join(f"{key:>8}" for key in shown))
    cells = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in shown.values())
    tqdm.write("  ".join(f"{x:>{max(len(key), 8)}}" for key, x in zip(shown, cells)))
