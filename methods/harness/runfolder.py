"""The folder of a run, and its files: written whole or not at all."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from common import InputError

from harness.data import ROOT

import numpy as np
from tqdm import tqdm

# These change no number: a resumed run has those of its own command line, not of the first one.
SWITCHES = ("tensorboard", "no_plots")


@contextlib.contextmanager
def naming(path):
    """Have an OSError name `path`; that of a write names no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Open a file that takes the place of `path` only once it is written to the end.

    Raises OSError, leaving `path` as it was and nothing beside it, if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with naming(path), open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial)


def write_json(path, content):
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_rows(path, rows):
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def append_row(path, row):
    """Add a row to a log, and before the first one the names of its columns.

    Raises OSError; half a row that it may leave is cut off by --resume.
    """
    with naming(path), open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def save_checkpoint(folder, arrays):
    """Write checkpoint.npz: a file of numpy, then the size and SHA-256 of log.csv, and its own.

    So every changed bit of either is noticed; what the log gets after this is not sealed.
    """
    path = folder / "log.csv"
    log = path.read_bytes() if path.exists() else b""
    with atomic_write(folder / "checkpoint.npz", "w+b") as file:
        np.savez(file, **arrays)
        file.seek(0, os.SEEK_END)
        file.write(len(log).to_bytes(8, "big") + hashlib.sha256(log).digest())
        file.seek(0)
        content = file.read()
        file.write(hashlib.sha256(content).digest())


def read_checkpoint(folder):
    """The arrays of checkpoint.npz; the rows that log.csv had when it was written, with numbers as
    numbers; and their size in bytes. Raises ValueError or OSError for a file that has changed.
    """
    content = (folder / "checkpoint.npz").read_bytes()
    content, seal = content[:-32], content[-32:]
    if len(content) < 40 or hashlib.sha256(content).digest() != seal:
        raise ValueError("it is damaged, or was written by an older version")
    size, log_seal = int.from_bytes(content[-40:-32], "big"), content[-32:]
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    log = (folder / "log.csv").read_bytes()[:size] if size else b""
    if hashlib.sha256(log).digest() != log_seal:
        raise ValueError("log.csv beside it has changed since")
    text = io.StringIO(log.decode(), newline="")
    rows = [{k: float(x) if x else "" for k, x in row.items()} for row in csv.DictReader(text)]
    return arrays, [row | {"step": int(row["step"])} for row in rows], size


def open_run(args, **facts):
    """A new folder for a run that cannot be resumed, with its config.json; raises as claim."""
    folder = claim(args, "choose another folder")
    write_config(folder, args, **facts)
    return folder


def claim(args, remedy="choose another folder or --resume it"):
    """The folder of this run: new unless --resume. Raises InputError if there is none.

    `remedy` is what the message says where --out is there already.
    """
    label = f"{args.method}-{'toy' if getattr(args, 'toy', False) else Path(args.dataset).stem}"
    default = ROOT / "runs" / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, others = Path(args.resume or args.out or default), itertools.count(2)
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=bool(args.resume))
            break
        except FileExistsError:
            if args.resume or args.out:
                raise InputError(f"--out: {folder} exists; {remedy}") from None
            folder = default.with_name(f"{default.name}-{next(others)}")  # one of the same second
        except OSError as error:
            raise InputError(f"--out: cannot make {folder} ({error.strerror})") from None
    return folder


def write_config(folder, args, **facts):
    """config.json: the flags with their seal, the versions of what the run uses, and `facts`."""
    flags = {key: value for key, value in vars(args).items() if key != "resume"}
    seal = {"flags_sha256": flags_seal(flags)}
    write_json(folder / "config.json", {"flags": flags, **seal, **facts, "versions": versions()})


def versions():
    """Those of Python and of the packages that every run uses."""
    known = {name: version(name) for name in ("numpy", "autograd", "scipy")}
    return known | {"python": platform.python_version()}


def flags_seal(flags):
    return hashlib.sha256(json.dumps(flags, sort_keys=True).encode()).hexdigest()


def read_config(folder):
    """The content of the config.json of a run. Raises ValueError or OSError."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def read_flags(folder):
    """The flags in the config.json of a run. Raises ValueError or OSError if they have changed."""
    content = read_config(folder)
    if not isinstance(content, dict) or content.get("flags_sha256") != flags_seal(content["flags"]):
        raise ValueError("its flags have changed since, or an older version wrote it")
    return content["flags"]


def print_row(row, header):
    """One row of the table on the screen: the log, but for test bound, seconds, keys with "/"."""
    shown = {k: x for k, x in row.items() if k not in ("test_bound", "seconds") and "/" not in k}
    if header:
        tqdm.write("  ".join(f"{key:>8}" for key in shown))
    cells = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in shown.values())
    tqdm.write("  ".join(f"{x:>{max(len(key), 8)}}" for key, x in zip(shown, cells)))
