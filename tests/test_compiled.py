"""--compile: the same gradients as an eager run, the same checkpoints, or one line that refuses.

Runs differ in the last digits, and a bit that lies within them turns. So the runs that are compared
over many steps have a tiny --lr: they see the same bits, and their averages of gradients agree.
"""

import contextlib
import csv
import json
import subprocess
import sys

import common
import numpy as np
import proofs
import pytest
from test_runs import SMALL, run

STILL = ["--lr", "1e-7", "--steps", 20, "--log-every", 10, "--eval-every", 10]
SBN = ["--hidden", 6, "--batch-size", 20, "--eval-samples", 2]
TWO = [*SBN, "--layers", 2]
CLASSES = ["--variables", 3, "--classes", 4, "--batch-size", 20, "--eval-samples", 2]
RUNS = {
    "reinforce": TWO,
    "reinforce --baseline none --task predict": TWO,
    "rloo --samples 3": SBN,
    "nvil --layer-local --normalize --moving-average": TWO,
    "vimco --samples 3": SBN,
    "vimco --samples 3 --ovis 0.5": SBN,
    "muprop": TWO,
    "muprop --simple": SBN,
    "disarm": TWO,
    "disarm --estimator arms": SBN,
    "disarm --bound": TWO,
    "concrete --objective density": TWO,
    "concrete --straight-through --anneal-rate 0.01": SBN,
    "reinmax": TWO,
    "reinmax --estimator gumbel-rao --inner 3": SBN,
    "rebar": TWO,
    "rebar --adapt none --control-variate joint": TWO,
    "rebar --nonlinear": SBN,
    "relax": TWO,
    "relax --black-box": SBN,
    "rodeo --samples 3": TWO,
    "rodeo --estimator double-cv --samples 2": SBN,
    "gumbel_softmax": CLASSES,
    "gumbel_softmax --estimator gumbel-rao --inner 3": CLASSES,
    "gumbel_softmax --learn-temperature": CLASSES,
    "gumbel_softmax --estimator unordered --samples 3": CLASSES,
    "gumbel_softmax --estimator sum-and-sample --samples 2": CLASSES,
    "gumbel_softmax --estimator rebar": CLASSES,
    "gumbel_softmax --layers 2 --objective density --activation relu": CLASSES,
    "gumbel_softmax --layers 2 --estimator rebar --decay 0.5 --decay-every 5": CLASSES,
    "gumbel_softmax --estimator nvil": CLASSES,
    "semi_supervised --unlabelled gumbel": ["--hidden", 6, "--z", 2, "--eval-samples", 2],
    "semi_supervised --unlabelled reinforce --samples 2": ["--hidden", 6, "--eval-samples", 2],
    "semi_supervised --unlabelled unordered --samples 3 --activation relu --depth 2": [
        "--hidden",
        6,
        "--eval-samples",
        2,
    ],
    "semi_supervised --unlabelled reinmax --alpha-ramp 15 --decay 0.5 --decay-every 5": [
        "--hidden",
        6,
        "--eval-samples",
        2,
    ],
    "dreg --samples 4 --track stl": ["--hidden", 6, "--eval-samples", 2],
}


def trained(folder, *flags):
    """The arrays of the checkpoint and the rows of the log of a run."""
    method, *flags = flags
    code, _, err = run(method, *flags, "--no-plots", "--out", folder)
    assert (code, err) == (0, "")
    return read(folder)


def read(folder):
    with np.load(folder / "checkpoint.npz") as file:
        arrays = dict(file)
    with open(folder / "log.csv", encoding="utf-8") as file:
        return arrays, list(csv.DictReader(file))


def assert_close(one, two, extended=False):
    """`extended`: the first was longer from the start, and has no bounds where the other ended."""
    (arrays, rows), (others, other_rows) = one, two
    for key in ("variance_m1", "variance_m2", "descent_m", "ascent_m", "ascent_v", "aux", "params"):
        size = np.max(np.abs(arrays[key]), initial=0)
        np.testing.assert_allclose(others[key], arrays[key], rtol=0, atol=1e-4 * size, err_msg=key)
    for row, other in zip(rows, other_rows, strict=True):
        left_out = {key for key in row if extended and not row[key]}
        for key in row.keys() - {"seconds"} - left_out:
            assert bool(row[key]) == bool(other[key]), key
            values = [float(r[key] or 0) for r in (row, other)]
            assert values[1] == pytest.approx(values[0], rel=1e-3, abs=1e-3), key


@pytest.mark.parametrize("command", RUNS)
def test_compiled_is_eager(command, tmp_path):
    """Averages of all gradients over 20 steps to 1e-4 of the largest, every row of the log."""
    pytest.importorskip("jax")
    words = [*command.split(), *RUNS[command], *STILL]
    eager = trained(tmp_path / "eager", *words)
    assert_close(eager, trained(tmp_path / "compiled", *words, "--compile"))


def test_checkpoints_are_interchangeable(tmp_path):
    """Compiled after eager, eager after compiled; and compiled after compiled, bit for bit."""
    pytest.importorskip("jax")
    words = ["rebar", *TWO, *STILL]
    whole = trained(tmp_path / "whole", *words, "--compile")
    half = [*words, "--steps", 10]
    for name, first, then in (
        ("same", ["--compile"], []), ("back", ["--compile"], ["--no-compile"]),
        ("forth", [], ["--compile"]),
    ):  # fmt: skip
        trained(tmp_path / name, *half, *first)
        assert run("rebar", "--resume", tmp_path / name, "--steps", 20, *then)[0] == 0
        arrays, rows = read(tmp_path / name)
        assert_close(whole, (arrays, rows), extended=True)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["flags"]["compile"] == (name != "back")
        if name == "same":
            for key in whole[0].keys() - {"seconds"}:
                assert np.array_equal(arrays[key], whole[0][key]), key


def test_a_compiled_run_goes_on_where_jax_is_absent(tmp_path):
    """Eagerly, with --no-compile; else one line says what is missing, and how to go on."""
    pytest.importorskip("jax")
    absent = """if True:
        import importlib.util, runpy
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "jax" else find(name, *more)
        sys.argv = sys.argv[1:]
        sys.path.insert(0, sys.argv[0].rpartition("/")[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    trained(tmp_path / "run", "rebar", *SBN, "--steps", 5, "--compile")
    words = ["--resume", tmp_path / "run", "--steps", 10, "--no-plots"]
    code, _, err = run("rebar", *words, code=absent)
    hint = "needs JAX: pip install jax, or say --no-compile"
    assert (code, err) == (2, f"rebar.py: error: --compile: {hint}\n")
    assert run("rebar", *words, "--no-compile", code=absent)[::2] == (0, "")
    assert read(tmp_path / "run")[0]["step_count"] == 10


def test_early_stop_ends_with_the_best_of_a_compiled_run(tmp_path):
    """At a learning rate that destroys the model: what is reported is an earlier evaluation."""
    pytest.importorskip("jax")
    words = ["gumbel_softmax", *CLASSES, "--hidden", 8, "--early-stop", "--lr", 0.5, "--compile"]
    words += ["--steps", 8, "--log-every", 2, "--eval-every", 2]
    _, rows = trained(tmp_path / "run", *words)
    bounds = [float(row["valid_bound"]) for row in rows]
    assert max(bounds) > bounds[-1] + 0.3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["valid_bound"] == pytest.approx(max(bounds))


def test_blocks_of_any_length_make_the_same_steps(tmp_path):
    """Blocks of 3, of 7 and of 16 steps at most, 40 steps at the default --lr: bit for bit."""
    pytest.importorskip("jax")
    words = ["rebar", *TWO, "--steps", 40, "--eval-every", 40, "--compile"]
    runs = [trained(tmp_path / f"{n}", *words, "--log-every", n)[0] for n in (3, 7, 40)]
    for key in ("params", "aux", "ascent_m", "ascent_v", "descent_v", "variance_m1", "variance_m2"):
        for other in runs[1:]:
            np.testing.assert_array_equal(other[key], runs[0][key], err_msg=key)


def test_what_cannot_be_compiled_is_refused(tmp_path, monkeypatch, capsys):
    """By the name of the operation; and an estimator that reads more than its arguments."""
    pytest.importorskip("jax")
    import reinforce

    right, calls, rng = reinforce.estimate, [], np.random.default_rng(0)
    averages = [0.0]

    def count(*arguments, **options):
        calls.append(0)
        bound, grads, aux = right(*arguments, **options)
        return bound, [len(calls) * g for g in grads], aux

    def anneals(*arguments, **options):  # slowly: two steps alone agree to 1e-3
        calls.append(0)
        bound, grads, aux = right(*arguments, **options)
        return bound, [(1 + 3e-6 * len(calls)) * g for g in grads], aux

    def averaged(*arguments, **options):
        bound, grads, aux = right(*arguments, **options)
        averages.append(0.9 * averages[-1] + 0.1 * np.mean(bound))
        return bound, [g - averages[-2] for g in grads], aux

    def draws(*arguments, **options):
        bound, grads, aux = right(*arguments, **options)
        return bound, [rng.random() * g for g in grads], aux

    def branches(*arguments, **options):
        bound, grads, aux = right(*arguments, **options)
        return bound, [g if bound[0] > 0 else -g for g in grads], aux

    outside = "in one step differ: the estimator reads something besides its arguments"
    for wrong, message in (
        (anneals, outside), (count, outside), (draws, outside),
        (averaged, "it keeps a value from one call for the next, outside of aux"),
        (branches, "if, while, and, or, not, max() or min()"),
    ):  # fmt: skip
        monkeypatch.setattr(reinforce, "estimate", wrong)
        with pytest.raises(ValueError, match="--compile: ") as error:
            reinforce.main([*map(str, SBN), *map(str, STILL), "--compile", "--no-plots",
                            "--out", str(tmp_path / wrong.__name__)])  # fmt: skip
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def filled(f):
    g = np.zeros(len(f))
    g[0] = f[0]
    return g


OPERATIONS = {  # what the line says of each; numpy, JAX and autograd have errors of their own
    "filled": (filled, "`g[0] = f[0]`, cannot be compiled: float()"),
    "selected": (lambda f: np.mean(f[f > np.mean(f)]), "Array boolean indices must be concrete"),
    "found": (lambda f: f[np.where(f > np.mean(f))[0][0]], "np.where(f"),
    "unique": (lambda f: np.mean(np.unique(f)), "np.unique(f)"),
    "out": (lambda f: np.sum(f, out=np.zeros((), f.dtype)), "'out' argument to jnp.sum"),
    "digitize": (lambda f: np.digitize(f, [-90.0, -30.0]), "digitize requires ndarray"),
    "interp": (lambda f: np.interp(f, [-90.0, 0.0], [0.0, 1.0]), "interp requires ndarray"),
    "sorted": (lambda f: [f := f.copy(), f.sort(), f[0]][2], "a compiled array has no .sort"),
    "rounded": (lambda f: int(f[0]), "int() of a value that is known only when the step runs"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_refused_in_a_line(name, tmp_path, monkeypatch):
    """With the place of the operation; the eager run does it."""
    pytest.importorskip("jax")
    import reinforce

    operation, message = OPERATIONS[name]
    right, line = reinforce.estimate, operation.__code__.co_firstlineno

    def estimate(model, params, aux, x, noise, **options):
        f, *_ = right(model, params, aux, x, noise, **options)
        baseline = np.mean(operation(f))
        return right(model, params, aux, x, noise, baseline=baseline)

    monkeypatch.setattr(reinforce, "estimate", estimate)
    command = [*map(str, SBN), "--steps", "1", "--no-plots"]
    reinforce.main([*command, "--out", str(tmp_path / "eager")])
    with pytest.raises(common.InputError) as error:
        reinforce.main([*command, "--compile", "--out", str(tmp_path / "compiled")])
    line += 2 * (name == "filled")
    assert str(error.value).startswith(f"--compile: test_compiled.py, line {line}, `")
    assert message in str(error.value)
    assert str(error.value).endswith("; leave --compile away")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_step_or_two_may_differ_by_rounding(tmp_path, monkeypatch, times):
    """As a relu at its kink: the eager gradient of the first steps is not quite the compiled one.

    The third time refuses the run. Otherwise two later steps have agreed, and no more are compared.
    """
    pytest.importorskip("jax")
    import reinforce
    from harness import compiled

    right, seen = compiled.Compiled.eager, []

    def eager(self, x, noise):
        (key, gradient, _, before), *rest = right(self, x, noise)
        seen.append(self.trainer.step_count)
        gradient = gradient * (1 + 2e-3 * (len(seen) <= times))
        return [(key, gradient, gradient, before), *rest]

    monkeypatch.setattr(compiled.Compiled, "eager", eager)
    message = "the compiled gradient of q0.W0 is not the eager one"
    refused = pytest.raises(ValueError, match=message) if times == 3 else contextlib.nullcontext()
    with refused:
        reinforce.main([*map(str, SBN), *map(str, STILL), "--compile", "--no-plots",
                        "--out", str(tmp_path / "run")])  # fmt: skip
    assert seen == {1: [1, 2, 3], 2: [1, 2, 3, 4], 3: [1, 2, 3]}[times]


def test_a_value_that_is_not_finite_stops_the_run(tmp_path):
    pytest.importorskip("jax")
    flags = [*SMALL, "--steps", 50, "--lr", "1e38", "--no-plots"]
    code, _, err = run("reinforce", *flags, "--compile", "--out", tmp_path / "run")
    assert code == 1
    assert "the gradient of q0.W0 is not finite" in err.splitlines()[-1]


def test_without_jax_the_flag_is_refused_in_one_line(tmp_path, monkeypatch):
    compiled = proofs.load().compiled
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs JAX: pip install jax"):
        compiled.require_jax()


def test_without_the_flag_nothing_of_jax_is_imported(tmp_path):
    code = (
        "import sys, rebar; rebar.main(['--steps', '2', '--hidden', '3', '--eval-samples', '1',"
        f" '--no-plots', '--out', {str(tmp_path / 'run')!r}]);"
        "print(any(name.partition('.')[0] in ('jax', 'jaxlib') for name in sys.modules),"
        " 'harness.numpy_to_jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=proofs.METHODS, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
