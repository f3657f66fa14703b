"""The comparison: its table against formulas, its trajectory against the plain run, its toy."""

import csv
import math

import numpy as np
import proofs
import pytest
from test_runs import SMALL, read_log, run

M = proofs.load()
UNBIASED = ["REINFORCE", "NVIL", "SimpleMuProp", "MuProp", "REBAR", "DynamicREBAR"]


def test_moments_are_the_formulas(rng):
    """30 gradients of three methods, one biased, with weights and moments written out."""
    methods, n, size = ["NVIL", "Concrete", "REBAR"], 30, 50
    g = rng.standard_normal((n, 3, size)) + np.array([0, 5, 0])[:, None]
    averages = [np.zeros(size) for _ in range(6)]
    for t in range(n):
        for k in range(3):
            averages[2 * k] += 0.001 * (g[t, k] - averages[2 * k])
            averages[2 * k + 1] += 0.001 * (g[t, k] ** 2 - averages[2 * k + 1])
    weight = 1 - 0.999**n
    table = M.compare.moments(methods, averages, weight)
    w = 0.999 ** np.arange(n)[::-1]
    w /= w.sum()
    mean, square = np.tensordot(w, g, 1), np.tensordot(w, g**2, 1)
    mu = (mean[0] + mean[2]) / 2
    variance = np.mean(square - mu**2, axis=1)
    np.testing.assert_allclose(table[:, 0], variance, rtol=1e-9)
    raw = np.mean(weight * square - (weight * mu) ** 2, axis=1)
    np.testing.assert_allclose(table[:, 1], raw, rtol=1e-9)
    np.testing.assert_allclose(table[:, 2], np.sqrt(np.mean((mean - mu) ** 2, axis=1)), rtol=1e-9)
    noise = np.sum(w**2) * (variance + (variance[0] + variance[2]) / 4)
    np.testing.assert_allclose(table[:, 3], np.sqrt(noise), rtol=1e-9)
    assert table[1, 2] > 4  # the biased one is found


def test_the_followed_trajectory_is_the_plain_run(tmp_path):
    """With --follow REINFORCE, the log of reinforce.py to the last bit; all other parts run too."""
    flags = [*SMALL, "--steps", 52]
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
    """800 steps on digits, seed 0: only Concrete's bias stands out of the noise of its averages."""
    code, *_ = run("compare", "--steps", 800, "--eval-samples", 5, "--out", tmp_path / "run")
    assert code == 0
    assert (tmp_path / "run" / "compare.png").stat().st_size > 10_000
    last = {key: float(x) for key, x in read_log(tmp_path / "run")[-1].items()}
    ratio = {name: last[f"bias/{name}"] / last[f"noise/{name}"] for name in M.compare.METHODS}
    assert ratio.pop("Concrete") > 1
    assert max(ratio.values()) < 1
    order = ["DynamicREBAR", "REBAR", "MuProp", "SimpleMuProp", "REINFORCE"]
    variances = [last[f"variance/{name}"] for name in order]
    assert variances == sorted(variances)


def test_resumed_comparison(tmp_path):
    """Equal to the uninterrupted one in all but the times."""
    flags = [*SMALL, "--methods", "NVIL,Concrete,REBAR", "--follow", "NVIL"]
    assert run("compare", *flags, "--steps", 52, "--out", tmp_path / "whole")[0] == 0
    assert run("compare", *flags, "--steps", 26, "--out", tmp_path / "parts")[0] == 0
    assert run("compare", "--resume", tmp_path / "parts", "--steps", 52)[0] == 0
    whole, parts = read_log(tmp_path / "whole"), read_log(tmp_path / "parts")
    for row, other in zip(whole, parts, strict=True):
        for key in row:
            if not key.startswith(("ms/", "seconds")):
                assert row[key] == other[key], key


def test_toy_table(tmp_path):
    """Exact means equal the exact gradient for all but Concrete; measured variances agree (6 %,
    20,000 samples). The orders that theory promises hold; NVIL ≤ REINFORCE it does not promise."""
    code, _, err = run("compare", "--toy", "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    with open(tmp_path / "toy" / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 75
    variance, far = {}, 0
    for row in rows:
        key = row["target"], row["theta"]
        exact, mean = float(row["exact"]), float(row["mean"])
        if row["method"] == "Concrete":
            far += abs(mean - exact) > 0.003
        else:
            assert abs(mean - exact) < 1e-6
        values = float(row["variance"]), float(row["measured_variance"])
        assert values[1] == pytest.approx(values[0], rel=0.06, abs=1e-12)
        variance[key, row["method"]] = values[0]
    assert far == 14  # but for t = .499, θ = .5, where the relaxation is all but symmetric
    worse = 0
    for key in {key for key, _ in variance}:
        nvil = variance[key, "NVIL"]
        assert variance[key, "REBAR"] <= nvil + 1e-12  # η = 0 is NVIL
        assert variance[key, "MuProp"] <= nvil + 1e-12  # s1 = 0 is NVIL
        worse += nvil > variance[key, "REINFORCE"]
    assert worse == 2  # E[f], the least-squares baseline, is not the one of least variance


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "NVIL,VIMCO"], "--methods: 'VIMCO' is unknown; choose from REINFORCE,"),
        (["--follow", "MuProp", "--methods", "NVIL"], "--follow: MuProp has to be among --methods"),
        (["--follow", "VIMCO"], "--follow"),
        (["--follow", "Concrete", "--methods", "Concrete"], "--methods: bias is measured against"),
        (["--batch-size", "1"], "--batch-size: REINFORCE's baseline needs two rows"),
    ],
)
def test_bad_input(flags, message):
    code, _, err = run("compare", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
