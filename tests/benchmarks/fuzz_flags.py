"""No command line ends in a traceback: thousands of bad ones, over all programs.

    python tests/benchmarks/fuzz_flags.py --lines 5000 --seed 0

A line is a small run of a program, changed: values that no flag takes or only some do (empty, 0,
−1, NaN, 1e308, 2^32, "--", newlines, unicode, …), flags without their values, words too many, and
flags that contradict one another. Each runs in a process forked from this one, in a folder of its
own, beside made-up images, with an output of UTF-8 or of ASCII only. It has to end with

    exit code 0, and nothing on stderr but warnings of ours ("--flag: …"),
    or 2, and one line on stderr that has a word of the command line; nothing new is on the disk,
    or 1, and one line on stderr: the run diverged.

Files that were there are still the same. A line that is still running after --limit seconds counts
as "running": many steps are no fault. Memory is limited to 2 GB. Exit code 0: nothing to report.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "methods"))

import matplotlib.pyplot  # noqa: F401 (here, not in every process again)
import numpy as np
from harness import cli, data, runfolder

ROOT = Path(__file__).resolve().parents[2]

# ------------------------------------------------------------------------- programs and their flags

SMALL = {
    "--steps": "2", "--batch-size": "4", "--hidden": "3", "--eval-samples": "2", "--latent": "2",
    "--test-samples": "2", "--width": "4", "--chains": "4", "--sweeps": "1", "--ais-chains": "4",
    "--ais-temperatures": "3", "--variables": "2", "--classes": "3", "--z": "2", "--labels": "2",
    "--no-plots": None,
}  # fmt: skip
BEGIN = {
    "check": ["mine.py", "--bits", "2", "--estimates", "256"],
    "download": ["mnist", "--from", "empty", "--out", "got"],
    "make_digits": [], "release": [], "sweep": ["reinforce", "--dry-run"],
}  # fmt: skip
BAD = """0|-1|-0|1e308|-1e308|1e-308|1e-45|1e38|nan|NaN|inf|-inf|4294967296|18446744073709551616
99999999999999999999|1000000|0x10|1_000|1e3|1.5|½|١|--|-|é|💥|None|True|[]|{}|%s|%(prog)s|$HOME
../x|/|.|..|/dev/null|mine.py|empty|done|file|file/x|1e|1,2|,|reinforce|REBAR|a=b|=|--toy|-h
a\\nb|\\n|\\t|\\x1b[31m|\\udcff| |1 2|\\u2028|\\r"""
BAD = [word.encode().decode("unicode_escape").encode("latin-1", "surrogatepass").decode()
       if "\\u" not in word and "\\x" not in word else word.encode().decode("unicode_escape")
       for line in BAD.splitlines() for word in line.split("|")]  # fmt: skip
BAD += ["", "9" * 5000, "x" * 300, "x" * 20_000]
GOOD = ["1", "2", "3", "0.5", "0.1", "2.5", "5", "NVIL,REINFORCE", "dreg,iwae"]


def programs():
    """{name: module} of every program that a user may start."""
    names = [path for path in sorted((ROOT / "methods").glob("*.py"))
             if "\ndef main(" in path.read_text(encoding="utf-8")]  # fmt: skip
    others = "notebooks/release.py", "data/download.py", "data/make_digits.py"
    names += [ROOT / path for path in others]
    modules = {}
    for path in names:
        if path.parent.name == "methods":
            modules[path.stem] = importlib.import_module(path.stem)
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        modules[path.stem] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return modules


def parser_of(module):
    """The parser of a program, with all its flags."""

    class Made(Exception):
        pass

    def parse_args(p, *_):
        raise Made(p)

    own = argparse.ArgumentParser.parse_args, cli.Parser.parse_args
    argparse.ArgumentParser.parse_args = cli.Parser.parse_args = parse_args
    try:
        module.main([])
    except Made as made:
        return made.args[0]
    finally:
        argparse.ArgumentParser.parse_args, cli.Parser.parse_args = own


def command(rng, name, parser):
    """The words of one line."""
    actions = [a for a in parser._actions if a.option_strings and "--help" not in a.option_strings]
    known = parser._option_string_actions
    words = list(BEGIN.get(name, []))
    if name not in BEGIN:
        words = [w for flag, x in SMALL.items() if flag in known and rng.random() < 0.97
                 for w in (flag, x) if w]  # fmt: skip
    if "--lr" in known and rng.random() < 0.04:  # it may diverge
        words += ["--steps", "20", "--lr", rng.choice(("1e308", "1e38", "1e30", "1e10", "1000"))]
    if "--toy" in known and rng.random() < 0.25:
        steps = rng.choice((["2"], ["2"], ["300", "--lr", "1000"], ["9", "--lr", "1e308"]))
        words = ["--toy", *(["--steps", *steps, "--no-plots"] if name != "gumbel_softmax" else [])]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4)) if actions else 0):
        action = rng.choice(actions)
        flag, kind = rng.choice(action.option_strings), rng.random()
        if kind < 0.06:  # no value where there is one, or one where there is none
            words += [flag] if action.nargs != 0 else [f"{flag}={rng.choice(BAD)}"]
        elif action.nargs == 0:
            words.append(flag)
        else:
            good = [str(x) for x in action.choices] if action.choices else GOOD
            value = rng.choice(BAD if kind < 0.6 else good)
            words += [f"{flag}={value}"] if kind < 0.3 or rng.random() < 0.3 else [flag, value]
    if rng.random() < 0.06:
        words.insert(rng.randrange(len(words) + 1), rng.choice([*BAD, "--no-such", "--see", "--"]))
    if rng.random() < 0.03:
        rng.shuffle(words)
    return words


# ---------------------------------------------------------------------------- one line in a process


# The traceback of a user's own file, and the downloader's list of what it tried, have several lines
LONGER = "error: in your file:", "To supply it by hand, put"


class Outcome(NamedTuple):
    code: int  # exit code; −1: still running, −2: killed
    out: str
    err: str
    fault: str = ""  # what is wrong with it


def make_data(root):
    """Instead of data/*.npz: 60, 20 and 20 images of 4 × 4 in ten classes."""
    rng = np.random.default_rng(0)
    (root / "data").mkdir(parents=True)
    for name in ("digits", "mnist", "binarized-mnist", "omniglot"):
        levels = 1 if name == "binarized-mnist" else 16
        arrays = {"levels": np.uint8(levels), "shape": np.array([4, 4], np.uint8)}
        for split, size in (("train", 60), ("valid", 20), ("test", 20)):
            arrays[split] = rng.integers(0, levels + 1, (size, 16)).astype(np.uint8)
            if name in ("digits", "mnist"):
                arrays[f"labels_{split}"] = (np.arange(size) % 10).astype(np.uint8)
        np.savez(root / "data" / f"{name}.npz", **arrays)


def prepare(root, modules):
    """The made-up project that all programs are to see in `root`."""
    make_data(root)
    data.ROOT = runfolder.ROOT = root
    (root / "notebooks" / "solutions").mkdir(parents=True)
    for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))[:1]:
        shutil.copy(path, root / "notebooks" / "solutions")
    modules["release"].HERE = root / "notebooks"
    modules["make_digits"].__file__ = str(root / "data" / "make_digits.py")
    modules["download"].__file__ = str(root / "data" / "download.py")
    here = root / "here"
    (here / "empty").mkdir(parents=True)
    (here / "file").write_text("kept\n")
    with contextlib.redirect_stdout(io.StringIO()) as template:
        modules["check"].main(["--template", "numpy"])
    (here / "mine.py").write_text(template.getvalue())
    words = [w for flag, x in SMALL.items() for w in (flag, x) if w]
    small = [w for flag in ("--steps", "--batch-size", "--hidden", "--latent", "--eval-samples",
                            "--test-samples") for w in (flag, SMALL[flag])]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        modules["dreg"].main([*small, "--samples", "2", "--no-plots", "--out", str(here / "done")])
    return words


def snapshot(root):
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None
            for p in root.rglob("*")}  # fmt: skip


def child(module, name, words, root, encoding, limit):
    """Run main(words) as `python NAME.py words` would; never returns."""
    for fd, file in ((1, "out"), (2, "err")):
        os.dup2(os.open(root.parent / file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    code = 99
    try:
        os.chdir(root / "here")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding,
                                      "backslashreplace")  # fmt: skip
        sys.argv = [f"{name}.py", *words]
        resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)
        program = cli.run if module.__file__.startswith(str(ROOT / "methods")) else lambda f: f()
        try:
            program(module.main)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 98
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    os._exit(code)


def run(module, name, words, root, encoding="utf-8", limit=3.0):
    """What became of a line; `root` is the folder that `prepare` filled, and is put back."""
    before = snapshot(root)
    pid = os.fork()
    if pid == 0:
        child(module, name, words, root, encoding, limit)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    code = {-signal.SIGALRM: -1}.get(code, -2 if code < 0 else code)
    out, err = ((root.parent / file).read_bytes().decode(encoding, "backslashreplace")
                for file in ("out", "err"))  # fmt: skip
    after = snapshot(root)
    lost = [path for path, content in before.items() if after.get(path, 0) != content]
    new = sorted(after.keys() - before.keys())
    numbers = [after[path].decode() for path in new if path.endswith(("summary.json", "log.csv"))]
    if code == 0 and re.search(r"(?i)\b(nan|inf|infinity)\b", " ".join(numbers)):
        code = 97  # a result that is none
    for path in sorted(new, reverse=True):
        (root / path).rmdir() if (root / path).is_dir() else (root / path).unlink()
    for path in lost:
        if before[path] is not None:
            (root / path).write_bytes(before[path])
    outcome = Outcome(code, out, err)
    return outcome._replace(fault=fault(outcome, words, lost, new))


def fault(outcome, words, lost, new):
    """What is wrong with an outcome; "" if nothing is."""
    code, _, err, _ = outcome
    lines = err.splitlines()
    if "Traceback" in err:
        return lines[-1][:200]
    if lost:
        return f"overwritten: {lost}"
    if "Warning" in err:
        return next(line for line in lines if "Warning" in line)
    if code in (-1,):
        return ""
    if code == 0:
        ours = all(line.startswith("--") or "written to" in line for line in lines)
        return "" if ours else f"exit 0, but {err[:200]}"
    if code not in (1, 2):
        return f"exit code {code}"
    if any(text in err for text in LONGER):
        return ""
    if len(lines) != 1 or not err.endswith("\n") or len(err) > 2000:
        return f"{len(lines)} lines, {len(err)} characters"
    if not all(x.isprintable() for x in lines[0]):
        return "control characters"
    if code == 2 and new:
        return f"exit code 2, but new files: {new[:4]}"
    said = {re.split("[= \n]", word)[0] for word in words if word.startswith("--")}
    said |= {
        "error: METHOD: ",
        "unrecognized arguments:",
        "argument dataset: ",
        "it needs scikit-learn: ",
        "error: --",
    }
    if code == 2 and not any(flag in err for flag in said):
        return f"names no flag: {lines[0][:200]}"
    return ""


def fuzz(lines, seed, limit=3.0, only=(), folder=None):
    """Yields (name, words, outcome) for as many command lines."""
    modules = programs()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = Path(place) / "root"
        prepare(root, modules)
        names = [name for name in modules if not only or name in only]
        parsers = {name: parser_of(modules[name]) for name in names}
        for k in range(lines):
            name = names[k % len(names)]
            words = command(rng, name, parsers[name])
            encoding = rng.choice(("utf-8", "utf-8", "ascii", "cp1252"))
            yield name, words, run(modules[name], name, words, root, encoding, limit)


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    p.add_argument("--lines", type=int, default=5000, help="how many; default: 5000")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--limit", type=float, default=3.0, help="seconds a line; default: 3")
    p.add_argument("--only", nargs="*", default=(), help="programs; default: all")
    args = p.parse_args(argv)
    codes, faults, started = Counter(), Counter(), time.monotonic()
    for name, words, outcome in fuzz(args.lines, args.seed, args.limit, args.only):
        codes[name, outcome.code] += 1
        if outcome.fault:
            faults[outcome.fault] += 1
            shown = " ".join(repr(w) if w != shlex.quote(w) else w for w in words)
            print(f"{name} {shown[:600]}\n    {outcome.code}: {outcome.fault}", flush=True)
    total = Counter()
    for (_, code), n in codes.items():
        total[code] += n
    label = {-1: "running", -2: "killed", 98: "traceback"}
    ends = (f"{n} {label.get(code, f'exit {code}')}" for code, n in sorted(total.items()))
    print(f"{args.lines} lines in {time.monotonic() - started:.0f} s: {', '.join(ends)}")
    print(f"{sum(faults.values())} faults of {len(faults)} kinds")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
