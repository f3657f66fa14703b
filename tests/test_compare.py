"""The comparison: its table against formulas, its trajectory against the plain run, its toy."""

import contextlib
import csv
import io
import math
import re
import textwrap

import numpy as np
import proofs
import pytest
from test_runs import SMALL, read_log, run

M = proofs.load()


def averages_of(gradients, sizes):
    """`updated` after every step of gradients (steps, methods, parameters), split by `sizes`."""
    _, K, D = gradients.shape
    T, splits = len(sizes), np.cumsum(sizes)[:-1]
    averages = [np.zeros(D)] * K, np.zeros((T, K)), np.zeros((T, K, K))
    for step in gradients:
        averages = M.paired.updated(*averages, [np.split(g, splits) for g in step])
    return averages


def test_moments_are_the_formulas(rng):
    """30 gradients of three methods, one biased, of a noisy tensor, a quiet one, and one in which
    all agree: with weights, moments and paired differences written out."""
    methods, n, sizes = ["NVIL", "Concrete", "REBAR"], 30, [20, 30, 10]
    g = rng.standard_normal((n, 3, 60)) + np.array([0, 2, 0])[:, None]
    g *= np.array([3, 1, 1])[:, None]
    g[:, :, 20:50] *= 0.1
    g[:, :, 50:] = g[:, :1, 50:]
    table = M.compare.moments(methods, sizes, *averages_of(g, sizes), n)
    a = 0.999 ** np.arange(n)[::-1]
    weight = 0.001 * a.sum()
    a /= a.sum()
    q = np.sum(a**2)
    mean, square = np.tensordot(a, g, 1), np.tensordot(a, g**2, 1)
    mu, bias, noise = np.zeros(60), [], []
    for tensor in (slice(20), slice(20, 50)):
        variance = np.sum(square[:, tensor] - mean[:, tensor] ** 2, axis=1)
        w = np.array([1 / variance[0], 0, 1 / variance[2]])
        w /= w.sum()
        mu[tensor] = w @ mean[:, tensor]
        d = g[:, :, tensor] - np.einsum("k,nkd->nd", w, g[:, :, tensor])[:, None]  # paired
        bias.append(np.sum(np.tensordot(a, d, 1) ** 2, axis=1))
        # Σ a² |d|², less what E d has of it: the variance of the average, without bias
        noise.append((np.tensordot(a**2, np.sum(d**2, axis=2), 1) - q * bias[-1]) / (1 - q))
    mu[50:] = mean[0, 50:]
    bias, noise, size = np.array(bias), np.array(noise), np.array([[20], [30]])
    np.testing.assert_allclose(table[:, 0], np.mean(square - mu**2, axis=1), rtol=1e-9)
    plain = (mean[0] + mean[2]) / 2
    raw = np.mean(weight * square - (weight * plain) ** 2, axis=1)
    np.testing.assert_allclose(table[:, 1], raw, rtol=1e-9)
    precision = np.sum(size * size / noise, axis=0)  # a parameter's noise² is noise / size
    np.testing.assert_allclose(table[:, 2] ** 2, np.sum(bias * size / noise, axis=0) / precision)
    np.testing.assert_allclose(table[:, 3] ** 2, 50 / precision)
    assert table[1, 2] > 4 * table[1, 3]  # the biased one is found


def test_the_noise_is_that_of_the_bias(rng):
    """Unbiased methods that share most of their noise, of which one is loud at first: bias / noise
    is 1. It is a mean over 20,000 independent parameters, so 4.9 sd (false alarm 1e-6) are 5 % of
    its square; a bias of the size of the noise is found."""
    n, D = 40, 20_000
    sd = np.array([1.0, 0.3, 0.1])[:, None] * np.ones(n)
    sd[0, : n // 2] = 10
    g = rng.standard_normal((n, 1, D)) + rng.standard_normal((n, 3, D)) * sd.T[:, :, None]
    methods, sizes = ["NVIL", "MuProp", "REBAR"], [D // 2, D // 2]
    for shift, found in ((0, False), (1, True)):
        averages = averages_of(g, sizes)
        noise = M.compare.moments(methods, sizes, *averages, n)[1, 3]
        averages[0][1] = averages[0][1] + shift * noise * (1 - 0.999**n)
        table = M.compare.moments(methods, sizes, *averages, n)
        far = np.abs((table[:, 2] / table[:, 3]) ** 2 - 1) > 4.9 * np.sqrt(2 / D)
        assert far[1] == found, table[:, 2:4]
        assert found or not far.any()


def test_one_step_and_one_unbiased_method(rng):
    """After one step all is noise; a method that is its own reference has no bias and no noise."""
    g = rng.standard_normal((1, 2, 8))
    first = M.compare.moments(["NVIL", "REBAR"], [8], *averages_of(g, [8]), 1)
    np.testing.assert_allclose(first[:, 2], first[:, 3])
    g = rng.standard_normal((5, 2, 8))
    alone = M.compare.moments(["NVIL", "Concrete"], [8], *averages_of(g, [8]), 5)
    assert np.all(alone[0, 2:4] == 0)
    assert np.all(alone[1, 2:4] > 0)


def test_the_followed_trajectory_is_the_plain_run(tmp_path):
    """With --follow REINFORCE, the log of reinforce.py to the last bit; all other parts run too."""
    flags = [*SMALL, "--steps", 52, "--samples", 2]
    assert run("reinforce", *flags, "--out", tmp_path / "plain")[0] == 0
    code, out, err = run("compare", *flags, "--follow", "REINFORCE", "--out", tmp_path / "all")
    assert (code, err) == (0, "")
    plain, rows = read_log(tmp_path / "plain"), read_log(tmp_path / "all")
    for key in set(plain[0]) - {"seconds"}:
        assert [row[key] for row in rows] == [row[key] for row in plain]
    last = rows[-1]
    for name in M.compare.METHODS:
        assert float(last[f"variance/{name}"]) > 0
        assert f"{math.log(float(last[f'variance/{name}'])):13.2f}" in out
    assert float(last["variance/REINFORCE"]) == pytest.approx(
        math.exp(float(last["log_grad_variance"])), rel=0.2  # but for the pooled mean
    )  # fmt: skip


def test_concrete_is_found_biased_and_the_variances_are_in_order(tmp_path):
    """800 steps on digits, seed 0: only Concrete's bias stands out of the noise of its averages.

    What of the others is not 1 is chance: seeds 0 to 4 have .98 to 1.03, Concrete 2.12 to 2.14. The
    bias of ST and ReinMax is below that noise.
    """
    flags = ["--steps", 800, "--samples", 1, "--eval-samples", 5]
    code, *_ = run("compare", *flags, "--out", tmp_path / "run")
    assert code == 0
    assert (tmp_path / "run" / "compare.png").stat().st_size > 10_000
    last = {key: float(x) for key, x in read_log(tmp_path / "run")[-1].items()}
    ratio = {name: last[f"bias/{name}"] / last[f"noise/{name}"]
             for name in M.compare.METHODS if name not in M.compare.TOGETHER}  # fmt: skip
    assert ratio.pop("Concrete") > 1.5
    assert all(0.9 < x < 1.1 for x in ratio.values()), ratio
    assert "RLOO" not in str(last)  # of one sample there is none
    order = ["DynamicREBAR", "REBAR", "MuProp", "SimpleMuProp", "REINFORCE"]
    variances = [last[f"variance/{name}"] for name in order]
    assert variances == sorted(variances)


def test_the_relaxed_estimators_have_the_settings_of_the_flags(tmp_path, monkeypatch):
    """What their init_aux and estimate are called with; and REBAR's evaluations of f."""
    seen = {}
    for name in ("REBAR", "DynamicREBAR", "RELAX", "Concrete"):
        estimate, init_aux = M.compare.METHODS[name]

        def spied(*args, _name=name, _estimate=estimate, **options):
            seen[_name] |= options
            return _estimate(*args, **options)

        def spied_init(*args, _name=name, _init=init_aux, **options):
            seen[_name] = {f"first {key}": value for key, value in options.items()}
            return _init(*args, **options)

        monkeypatch.setitem(M.compare.METHODS, name, (spied, spied_init))
    flags = f"--steps 2 --layers 2 --methods {','.join(M.compare.METHODS)}"
    flags += " --temperature .2 --relaxation concrete --noise independent --control-variate joint"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        M.compare.main([*SMALL, *flags.split(), "--out", str(tmp_path / "run")])
    ours = {"relaxation": "concrete", "conditional": "independent"}
    ours |= {"control_variate": "joint", "as_released": False, "first temperature": 0.2}
    assert seen["REBAR"] == seen["DynamicREBAR"] == ours
    assert seen["RELAX"] == {"conditional": "independent", "first temperature": 0.2}
    assert seen["Concrete"] == {"relaxation": "concrete", "temperature": 0.2}
    lines = {line.split()[0]: line.split() for line in out.getvalue().splitlines() if "e-" in line}
    f = [int(lines[name][-2]) for name in ("REBAR", "DynamicREBAR", "RELAX")]
    assert f == [4, 4, 6]  # two rows an image, two layers: one relaxation for both, or one each


def test_resumed_comparison(tmp_path):
    """Equal to the uninterrupted one in all but the times, and the bounds at the first end."""
    flags = [*SMALL, "--methods", "NVIL,Concrete,REBAR", "--follow", "NVIL"]
    assert run("compare", *flags, "--steps", 52, "--out", tmp_path / "whole")[0] == 0
    assert run("compare", *flags, "--steps", 26, "--out", tmp_path / "parts")[0] == 0
    assert run("compare", "--resume", tmp_path / "parts", "--steps", 52)[0] == 0
    whole, parts = read_log(tmp_path / "whole"), read_log(tmp_path / "parts")
    for row, other in zip(whole, parts, strict=True):  # "": the whole one did not evaluate there
        for key in row:
            if not key.startswith(("ms/", "seconds")) and row[key] != "":
                assert row[key] == other[key], key


def test_toy_table(tmp_path):
    """Exact means equal the exact gradient, but for Concrete and ST; measured variances agree (6 %,
    20,000 samples). The orders that theory promises hold; NVIL ≤ REINFORCE it does not promise."""
    code, _, err = run("compare", "--toy", "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    with open(tmp_path / "toy" / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 180
    variance, far = {}, {"Concrete": 0, "ST": 0}
    for row in rows:
        key = row["target"], row["theta"]
        exact, mean = float(row["exact"]), float(row["mean"])
        if row["method"] in far:
            far[row["method"]] += abs(mean - exact) > 0.003
        else:
            assert abs(mean - exact) < 1e-6
        values = float(row["variance"]), float(row["measured_variance"])
        assert values[1] == pytest.approx(values[0], rel=0.06, abs=1e-12)
        variance[key, row["method"]] = values[0]
    # Concrete is not far off at t = .499, θ = .5, where the relaxation is all but symmetric; ST is
    # exact at θ = .5
    assert far == {"Concrete": 14, "ST": 12}
    worse = 0
    for key in {key for key, _ in variance}:
        nvil = variance[key, "NVIL"]
        assert variance[key, "REBAR"] <= nvil + 1e-12  # η = 0 is NVIL
        assert variance[key, "MuProp"] <= nvil + 1e-12  # s1 = 0 is NVIL
        worse += nvil > variance[key, "REINFORCE"]
        assert variance[key, "DisARM"] <= variance[key, "RLOO"]  # both have two evaluations of f
        for name in ("DoubleCV", "RODEO"):
            assert variance[key, name] <= variance[key, "RLOO"] + 1e-12  # α = 0 is RLOO
    assert worse == 2  # E[f], the least-squares baseline, is not the one of least variance


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "NVIL,ARSM"], "--methods: 'ARSM' is unknown; choose from REINFORCE,"),
        (["--follow", "MuProp", "--methods", "NVIL"], "--follow: MuProp has to be among --methods"),
        (["--follow", "ARSM"], "--follow"),
        (["--samples", "1", "--methods", "NVIL,RLOO", "--follow", "NVIL"], "--samples: RLOO needs"),
        (["--follow", "VIMCO", "--methods", "VIMCO,Concrete"], "--methods: bias is measured"),
        (["--toy", "--samples", "17"], "--samples: the toy enumerates all their outcomes"),
        (["--follow", "Concrete", "--methods", "Concrete"], "--methods: bias is measured against"),
        (["--batch-size", "1", "--samples", "1"], "--batch-size: REINFORCE's baseline needs two"),
    ],
)
def test_bad_input(flags, message):
    code, _, err = run("compare", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_bound_of_k_samples_is_a_group_of_its_own(rng):
    """A method of another objective, whose mean is elsewhere, changes no number of the others."""
    methods, n, sizes = ["NVIL", "Concrete", "RLOO", "VIMCO", "LocalDisARM"], 20, [15, 25]
    g = rng.standard_normal((n, 5, 40))
    g[:, 3:] += 100
    all_five = M.compare.moments(methods, sizes, *averages_of(g, sizes), n)
    first = M.compare.moments(methods[:3], sizes, *averages_of(g[:, :3], sizes), n)
    second = M.compare.moments(["RLOO", "NVIL"], sizes, *averages_of(g[:, 3:], sizes), n)
    np.testing.assert_allclose(all_five[:3], first, rtol=1e-9)
    np.testing.assert_allclose(all_five[3:], second, rtol=1e-9)
    assert all_five[3, 2] < 2  # not the distance from the others' mean, 100


def test_all_estimators_get_the_same_bits_and_pay_for_f(tmp_path):
    """Two layers, two rows an image: RLOO's bound is REINFORCE's; the columns of the table."""
    flags = [*SMALL, "--steps", 12, "--layers", 2, "--follow", "RLOO", "--lr", "1e-9"]
    names = "REINFORCE,RLOO,DisARM,VIMCO,LocalDisARM,REBAR,RELAX,DoubleCV,RODEO"
    code, out, err = run("compare", *flags, "--methods", names, "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    flags[flags.index("RLOO")] = "REINFORCE"
    assert run("compare", *flags, "--methods", names, "--out", tmp_path / "b")[0] == 0
    bounds = [float(read_log(tmp_path / x)[-1]["train_bound"]) for x in "ab"]
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-4)
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "e-0" in line}
    f = {"REINFORCE": 2, "RLOO": 2, "DisARM": 6, "VIMCO": 2, "LocalDisARM": 6, "REBAR": 6,
         "RELAX": 6, "DoubleCV": 2, "RODEO": 2}  # fmt: skip
    assert {name: int(line[-2]) for name, line in lines.items()} == f
    last = read_log(tmp_path / "a")[-1]
    for name, n in f.items():
        assert float(lines[name][-1]) == pytest.approx(
            n * float(last[f"variance/{name}"]), rel=0.01
        )
    assert out.index("DisARM") < out.index("the bound of 2 samples") < out.index("VIMCO")


def test_toy_of_several_samples(tmp_path):
    """RLOO's variance with K = 4 below that with 2; VIMCO's exact gradient is that of its bound."""
    rows = {}
    for K in (2, 4):
        code, _, err = run(
            "compare", "--toy", "--samples", K, "--no-plots", "--out", tmp_path / f"{K}"
        )
        assert (code, err) == (0, "")
        for row in read_log(tmp_path / f"{K}"):
            rows[K, row["target"], row["theta"], row["method"]] = row
    for target, theta in {key[1:3] for key in rows}:
        two, four = (rows[K, target, theta, "RLOO"] for K in (2, 4))
        assert float(four["variance"]) <= float(two["variance"])
        assert (two["evaluations"], four["evaluations"]) == ("2", "4")
        vimco = rows[4, target, theta, "VIMCO"]
        t, p = float(target), float(theta)
        E = lambda p: sum(
            math.comb(4, c) * p**c * (1 - p) ** (4 - c)
            * math.log((c * math.exp((1 - t) ** 2) + (4 - c) * math.exp(t**2)) / 4)
            for c in range(5)
        )  # fmt: skip
        slope = (E(p + 1e-5) - E(p - 1e-5)) / 2e-5 * p * (1 - p)
        assert float(vimco["exact"]) == pytest.approx(slope, abs=1e-8)
        assert float(vimco["mean"]) == pytest.approx(slope, abs=1e-8)


# ------------------------------------------------------------------------------------ --add

MINE = """
    import autograd.numpy as np
    import reinforce
    from common import Assign

    value = {value}

    def init_aux(rng, model):
        return [np.zeros(())]

    def estimate(model, params, aux, x, noise):
        bound, grads, _ = reinforce.estimate(model, params, [], x, noise)
        return bound, [value * g for g in grads], [Assign(aux[0] + 1)]

    def gradient_samples(f, logits, u, v):
        theta = 1 / (1 + np.exp(-logits))
        b, other = (u < theta) * 1.0, (v < theta) * 1.0
        return value * (f(b) - f(other))[:, None] * (b - theta)
"""


def mine(path, value):
    path.write_text(textwrap.dedent(MINE.format(value=value)), encoding="utf-8")
    return path


@pytest.mark.parametrize("value", [1.0, 3.0])
def test_add_runs_the_users_estimate_beside_the_others(value, tmp_path):
    """REINFORCE under another name has its numbers. Three times it has nine times its E[g²], so
    more than nine times its E[g²] − μ², and a bias. The others keep theirs: μ is without it."""
    flags = [*SMALL, "--methods", "REINFORCE,NVIL,MuProp,mine", "--follow", "NVIL", "--steps", 52]
    file = mine(tmp_path / "mine.py", value)
    code, out, err = run("compare", *flags, "--add", file, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    last = {key: float(x) for key, x in read_log(tmp_path / "run")[-1].items()}
    assert re.search(r"\nmine .* yours\n", out)
    if value == 1:
        for column in ("variance", "bias", "noise"):
            same = last[f"{column}/mine"], last[f"{column}/REINFORCE"]
            assert same[0] == pytest.approx(same[1], rel=1e-6)
    else:
        assert last["variance/mine"] > 9 * last["variance/REINFORCE"]
        assert last["bias/mine"] > 1.5 * last["noise/mine"]
    without = [*SMALL, "--methods", "REINFORCE,NVIL,MuProp", "--follow", "NVIL", "--steps", 52]
    assert run("compare", *without, "--out", tmp_path / "without")[0] == 0
    for key, x in read_log(tmp_path / "without")[-1].items():
        if not key.startswith(("ms/", "seconds")):
            assert last[key] == pytest.approx(float(x), rel=1e-5), key
    assert run("compare", "--resume", tmp_path / "run", "--steps", 60)[0] == 0


def test_add_to_the_toy(tmp_path):
    file = mine(tmp_path / "mine.py", 1.0)
    code, _, err = run("compare", "--toy", "--add", file, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    with open(tmp_path / "toy" / "log.csv", encoding="utf-8") as log:
        rows = [row for row in csv.DictReader(log) if row["method"] == "mine"]
    assert len(rows) == 15
    for row in rows:
        t, theta = float(row["target"]), float(row["theta"])
        exact = theta * (1 - theta) * (1 - 2 * t)
        assert float(row["mean"]) == pytest.approx(exact, abs=1e-9)
        # f(b) − f(b̃) is ±Δ where they differ: E[g²] = Δ² θ (1 − θ) (θ² + (1 − θ)²)
        square = (1 - 2 * t) ** 2 * theta * (1 - theta) * (1 - 2 * theta + 2 * theta**2)
        assert float(row["variance"]) == pytest.approx(square - exact**2, abs=1e-9)


WRONG = {  # a file, and what is said of it
    "init": ("def init_aux(rng, model): return 1 / 0\n" "def estimate(*args): pass",
             "ZeroDivisionError: division by zero"),
    "two": ("def estimate(model, params, aux, x, noise): return 0, params",
            "two.py: estimate has to return a bound, a list of gradients and one for aux"),
    "shape": ("def estimate(model, params, aux, x, noise): return 0, [p.T for p in params], []",
              "(6, 64), (64,)], not [(6, 64), (6,), (6,), (64, 6), (64,)]"),
    "nan": ("def estimate(model, params, aux, x, noise):\n"
            "    return 0, [p + float('nan') for p in params], []",
            "nan.py: estimate has to return gradients that are finite"),
}  # fmt: skip
WRONG_TOYS = {
    "noise": ("import numpy as np\ndef gradient_samples(f, logits, u, v): "
              "return np.random.random(u.shape)", "has to return the same for the same u and v"),
    "flat": ("def gradient_samples(f, logits, u, v): return u[:, 0]", "the shape (n, D) = ("),
    "nan": ("def gradient_samples(f, logits, u, v): return u + float('nan')", "what is finite"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "toy"), [*((n, 0) for n in WRONG), *((n, 1) for n in WRONG_TOYS)])
def test_what_an_added_estimator_returns_is_checked(name, toy, tmp_path):
    text, message = (WRONG_TOYS if toy else WRONG)[name]
    (tmp_path / f"{name}.py").write_text(f"{text}\n", "utf-8")
    flags = ["--toy"] if toy else [*SMALL, "--methods", f"REINFORCE,NVIL,{name}"]
    code, _, err = run("compare", *flags, "--add", tmp_path / f"{name}.py", "--out",
                       tmp_path / "run")  # fmt: skip
    assert code == 2
    assert message in err


def test_an_added_estimator_harms_no_other_and_gets_the_samples(tmp_path):
    """It writes into all that it is given, and it may be followed."""
    (tmp_path / "mine.py").write_text(
        "import reinforce\n"
        "def estimate(model, params, aux, x, noise, samples=1):\n"
        "    assert samples == 2\n"
        "    result = reinforce.estimate(model, params, aux, x, noise)\n"
        "    for a in (*params, x, *(a for pair in noise for a in pair)):\n"
        "        a[...] = 9\n"
        "    return result\n", "utf-8"
    )  # fmt: skip
    flags = [*SMALL, "--methods", "REINFORCE,mine,NVIL", "--follow", "mine", "--steps", 3]
    code, _, err = run("compare", *flags, "--add", tmp_path / "mine.py", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    last = read_log(tmp_path / "run")[-1]
    assert float(last["variance/mine"]) == pytest.approx(float(last["variance/REINFORCE"]))
    short = [*SMALL, "--methods", "REINFORCE,NVIL", "--add", tmp_path / "mine.py"]
    code, _, err = run("compare", *short, "--out", tmp_path / "without")
    assert (code, "--add: mine is not among --methods; name it there, too" in err) == (2, True)


def test_bad_files_to_add(tmp_path):
    error = mine(tmp_path / "error.py", "1 / 0")
    late = tmp_path / "late.py"
    late.write_text("def estimate(model, params, aux, x, noise):\n    return 1 / 0\n", "utf-8")
    noise = tmp_path / "noise.py"
    noise.write_text("def estimate(*args): pass\ndef draw_noise(*args): pass\n", "utf-8")
    for file, message in (
        (error, "ZeroDivisionError: division by zero"), (late, "ZeroDivisionError: division by z"),
        (tmp_path / "none.py", f"there is no file {tmp_path / 'none.py'}"),
        (noise, "noise.py has a draw_noise"),
        (mine(tmp_path / "NVIL.py", 1), "NVIL cannot be the name of a method"),
    ):  # fmt: skip
        code, _, err = run("compare", *SMALL, "--add", file, "--out", tmp_path / file.stem)
        assert code == 2
        assert message in err
        if file in (error, late):
            assert [*re.findall(r'File "(.*?)"', err)] == [str(file)]
