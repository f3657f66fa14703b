"""Whatever the command line, the output or the memory: one line and an exit code, no traceback."""

import os
import subprocess
import sys

import numpy as np
import proofs
import pytest
from harness import cli
from test_runs import SMALL, read_log, run

FUZZ = proofs.METHODS.parent / "tests" / "benchmarks" / "fuzz_flags.py"


def test_no_traceback_of_three_hundred_command_lines():
    """A small share of tests/benchmarks/fuzz_flags.py, over all programs."""
    command = [sys.executable, FUZZ, "--lines", "300", "--limit", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert done.stdout.startswith("300 lines in ")


LINES = [
    (["--hidden", "4294967296"], "argument --hidden: '4294967296' has to be a whole number of at "
                                 "least 1 and at most 100000"),
    (["--eval-samples", "9" * 20], "argument --eval-samples: '99999999999999999999' has to be"),
    (["--seed", "9" * 5000], "argument --seed: '9999999999999999999999999999999999999999' has to"),
    (["--hidden=--"], "--hidden: '--' is not a value of it"),
    (["--hidden", "--"], "argument --hidden: expected one argument"),
    (["--out=--"], "--out: '--' is not a value of it"),
    (["--out", ""], "argument --out: it is empty; name a folder"),
    (["--resume", " "], "argument --resume: it is empty; name a folder"),
    (["--resume", "a\nb"], "--resume: a b/config.json is not the config of a run"),
    (["--hidden", "a\nb\x1b[31m"], "argument --hidden: 'a b?[31m' has to be a whole number"),
    (["--a\nb"], "unrecognized arguments: --a b"),
    (["x" * 20_000], "unrecognized arguments: xxx"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), LINES, ids=lambda value: str(value)[:30])
def test_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("reinforce", *flags)
    assert (code, out, os.listdir(tmp_path)) == (2, "", [])
    assert err.startswith(f"reinforce.py: error: {message}")
    assert err.count("\n") == 1
    assert len(err) < 1000


def test_more_memory_than_there_is(tmp_path):
    """Within 1 GB: a network of 32 GB. One line says what needs less."""
    limit = """if True:
        import resource, runpy
        sys.path.insert(0, sys.argv[1].rpartition("/")[0])
        resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    flags = ["--hidden", 90_000, "--layers", 2, "--out", tmp_path / "run"]
    code, _, err = run("reinforce", *flags, code=limit)
    assert code == 2
    assert "Unable to allocate" in err
    assert "a smaller --batch-size, fewer samples or smaller networks need less" in err
    assert err.count("\n") == 1


# log T is a thousand after a step
CLASSES = ["--variables", "4", "--classes", "3", "--lr", "100", "--steps", "30", *SMALL]
DIVERGING = [
    ("rebar", ["--toy", "--lr", "1000", "--steps", "300"], "REBAR stopped at step "),
    ("concrete", ["--toy", "--lr", "1e308", "--steps", "300"], "Concrete stopped at step "),
    ("compare", ["--lr", "1e308", "--steps", "5", *SMALL], "stopped at step 1; the gradient of "),
    ("reinforce", ["--lr", "1e38", "--steps", "1", *SMALL], "stopped at step 1; valid_bound is "),
    ("rbm", ["--lr", "1e38", "--steps", "20"], "stopped at step "),
    ("gumbel_softmax", [*CLASSES, "--learn-temperature"], "stopped at step 1; the gradient of "),
    ("gumbel_softmax", [*CLASSES, "--estimator", "rebar"], "stopped at step 1; the gradient of "),
]


@pytest.mark.parametrize(("program", "flags", "message"), DIVERGING)
def test_a_run_that_diverges(program, flags, message, tmp_path):
    """One line, exit code 1, no warning before it, and no number in the log that is none."""
    code, _, err = run(program, *flags, "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith(f"{program}.py: {message}")
    assert "not finite" in err or "out of reach" in err
    assert "a smaller --lr may help" in err
    if (tmp_path / "run" / "log.csv").exists():
        numbers = [x for row in read_log(tmp_path / "run") for x in row.values() if x]
        assert np.isfinite([float(x) for x in numbers]).all()
    assert not (tmp_path / "run" / "summary.json").exists()


# --------------------------------------------------------------------------------------- the output


def python(*words, **options):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("flags", [["--help"], ["--toy", "--steps", "60", "--no-plots"]])
def test_an_output_that_does_not_know_all_letters(encoding, flags, tmp_path):
    """θ becomes a question mark, and the run goes on."""
    where = ["--out", tmp_path / "run"] if "--toy" in flags else []
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = python(proofs.METHODS / "rebar.py", *flags, *where, env=environment, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


@pytest.mark.parametrize("sink", [">&-", "2>&-", ">/dev/full", "| head -1"])
def test_an_output_that_takes_nothing(sink, tmp_path):
    """Closed, full, or gone after a line: the run does not need it."""
    run_of = f"{sys.executable} {proofs.METHODS}/reinforce.py --steps 120 --log-every 1"
    line = f"{run_of} {' '.join(SMALL)} --out {tmp_path}/run {sink}"
    done = subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
    assert len(read_log(tmp_path / "run")) == 120


def test_one_line():
    assert cli.one_line("a\nb\t\x1b[1m π\u2028c ") == "a b ?[1m π c"
    assert len(cli.one_line("x" * 10_000)) < 700
