"""The Boltzmann machine of dvae_sharp.py: enumeration, Gibbs, PCD, population annealing, AIS.

Monte Carlo tests have a false-alarm rate of 1e-6 each, over all numbers they compare, and say
which bias they would detect.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys

import autograd
import autograd.scipy.special
import numpy as np
import proofs
import pytest
from scipy import stats
from scipy.special import logsumexp

M = proofs.load()


def random_rbm(n1=3, n2=4, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(shape) for shape in (n1, n2, (n1, n2))]


def all_states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def by_hand(rbm):
    """All joint states z1, z2 and their probabilities, and log Z, by a loop over pairs."""
    b1, b2, W = rbm
    z1, z2 = (
        np.array(side) for side in zip(*itertools.product(all_states(len(b1)), all_states(len(b2))))
    )
    minus_E = np.array([s @ b1 + t @ b2 + s @ W @ t for s, t in zip(z1, z2)])
    return z1, z2, np.exp(minus_E - logsumexp(minus_E)), logsumexp(minus_E)


def z_scores(samples, expected):
    """t statistics of the column means; the threshold of the false-alarm rate; the sharpness."""
    result = M.diagnostics.mean_test(samples, expected, proofs.FALSE_ALARM)
    return result.t, result.limit, result.detectable


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


# ------------------------------------------------------------------------------------------ proofs


def enumeration_is_exact(m):
    """Against a loop over the joint states, on either side smaller; gradient: 1e-12."""
    for n1, n2 in ((3, 4), (4, 3), (1, 5)):
        rbm = random_rbm(n1, n2)
        z1, z2, p, log_Z = by_hand(rbm)
        value, moments = m.rbm.enumerate_rbm(rbm)
        assert abs(value - log_Z) < 1e-12
        expected = [p @ z1, p @ z2, np.einsum("s,si,sj->ij", p, z1, z2)]
        np.testing.assert_allclose(flat(moments), flat(expected), atol=1e-12)
        minus_E = -m.rbm.energy(rbm, z1, z2)
        np.testing.assert_allclose(np.exp(minus_E - log_Z), p, rtol=1e-12)


def gibbs_follows_the_rbm(m, dtype=np.float64, sampler=None):
    """Joint states of 200,000 chains against enumeration, χ²; detects 1 % in the distribution."""
    rbm = [p.astype(dtype) for p in random_rbm()]
    _, _, p, _ = by_hand(rbm)
    rng = np.random.default_rng(0)
    s1, s2 = m.rbm.fair_bits(rng, 200_000, rbm)
    m.rbm.gibbs(rbm, s1, s2, rng, 40)
    assert s1.dtype == s2.dtype == dtype
    code = np.concatenate([s1, s2], axis=1).astype(int) @ (1 << np.arange(7)[::-1])
    counts = np.bincount(code, minlength=128)
    assert stats.chisquare(counts, len(s1) * p).pvalue > proofs.FALSE_ALARM


def gibbs_is_the_sweep_in_place(m):
    """With the same uniforms the bits are those of the plain form.

    In float32 but for uniforms within rounding of σ(a): expected for less than one bit here, which
    may change the others of its chain; one chain of 1,000 is allowed.
    """
    for dtype, different in ((np.float64, 0), (np.float32, 2)):
        rbm = [p.astype(dtype) for p in random_rbm(5, 3, 2.0)]
        z1, z2 = m.rbm.fair_bits(np.random.default_rng(0), 2000, rbm)
        rng, plain = np.random.default_rng(1), z1.copy()
        for _ in range(4):
            u2, u1 = (rng.random(z.shape, dtype) for z in (z2, z1))
            plain, plain2 = m.rbm.sweep(rbm, plain, u1, u2)
        m.rbm.gibbs(rbm, z1, z2, np.random.default_rng(1), 4)
        for z, p in ((z1, plain), (z2, plain2)):
            assert z.dtype == p.dtype == dtype
            assert np.sum(np.any(z != p, axis=1)) <= different


def moved(rbm, size, seed=5):
    """A further RBM at a distance, for the samplers to follow."""
    rng = np.random.default_rng(seed)
    return [p + size * rng.standard_normal(p.shape) for p in rbm]


def annealing_is_calibrated(m, sampler="pa", size=1.0, sweeps=1, runs=300, chains=400, **options):
    """exp(Δ log Z) is unbiased and the moments are right after it, by `runs` independent runs.

    The chains are exact samples of the old RBM; population annealing needs no sweeps then.
    """
    old = random_rbm()
    new = moved(old, size)
    z1, z2, p, log_Z = by_hand(old)
    log_Z_new, moments = m.rbm.enumerate_rbm(new)
    rng, ratios, means = np.random.default_rng(1), [], []
    for _ in range(runs):
        rows = rng.choice(len(p), chains, p=p)
        s1, s2 = z1[rows], z2[rows]
        change = m.rbm.SAMPLERS[sampler](old, new, s1, s2, rng, sweeps, **options)
        sign = -1 if sampler == "pcd" else 1  # whose 1 / Z is the unbiased one
        ratios.append([np.exp(sign * (change - (log_Z_new - log_Z)))])
        means.append(flat(m.rbm.sample_moments(s1, s2)))
    t, threshold, bias = z_scores(np.array(ratios), 1.0)
    assert t.max() < threshold, f"exp(log Z): |t| {t.max():.1f}"
    t_moments, threshold, bias_moments = z_scores(np.array(means), flat(moments))
    assert t_moments.max() < threshold, f"moments: |t| {t_moments.max():.1f}"
    return bias.max(), bias_moments.max()


def ais_is_unbiased(m, runs=400):
    """Mean of exp(log Z) against the exact Z, and the standard error against the spread."""
    rbm = random_rbm(scale=1.5)
    log_Z, _ = m.rbm.enumerate_rbm(rbm)
    rng = np.random.default_rng(2)
    results = np.array([m.rbm.ais(rbm, rng, 50, 10)[:2] for _ in range(runs)])
    ratio = np.exp(results[:, :1] - log_Z)
    t, threshold, bias = z_scores(ratio, 1.0)
    assert t.max() < threshold, f"|t| {t.max():.1f}"
    spread = results[:, 0].std(ddof=1)
    assert 0.8 < np.median(results[:, 1]) / spread < 1.25
    return bias.max()


def effective_sample_size_is_exact(m):
    """From 1 to n, also for log-weights whose exponentials are beyond all floating point."""
    for log_w, size in (([0.0] * 8, 8), ([-2000.0, 2000, -2000], 1), ([800.0, 800, -800], 2)):
        assert m.rbm.effective_sample_size(np.array(log_w)) == pytest.approx(size)
    w = np.array([0.5, 0.25, 0.25])
    size = m.rbm.effective_sample_size(np.log(w) - 1000)
    assert size == pytest.approx(1 / np.sum(w**2))


def resampling_is_systematic(m):
    """Every count is one of the two integers next to n w, and over u the mean count is n w."""
    rng = np.random.default_rng(3)
    log_w = 2 * rng.standard_normal(20)
    expected = 20 * np.exp(log_w - logsumexp(log_w))
    grid = (np.arange(4000) + 0.5) / 4000
    counts = np.array([np.bincount(m.rbm.resample(log_w, u), minlength=20) for u in grid])
    assert np.all(np.abs(counts - expected) < 1)
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=1e-3)


# ------------------------------------------------------------------------------------------- tests


def test_enumeration():
    enumeration_is_exact(M)


def test_enumeration_of_many_blocks_and_its_limit():
    """14 units a side are several blocks; with W = 0, log Z is a sum over units."""
    b1, b2, W = random_rbm(14, 15)
    log_Z, (m1, m2, m12) = M.rbm.enumerate_rbm([b1, b2, 0 * W])
    assert log_Z == pytest.approx(np.sum(np.logaddexp(0, [*b1, *b2])), abs=1e-10)
    np.testing.assert_allclose(m12, np.outer(m1, m2), atol=1e-12)
    np.testing.assert_allclose(m2, 1 / (1 + np.exp(-b2)), atol=1e-12)
    with pytest.raises(M.common.InputError, match="at most 20"):
        M.rbm.enumerate_rbm(random_rbm(21, 22))


def test_moments_are_the_gradient_of_log_Z():
    rbm = random_rbm()
    _, moments = M.rbm.enumerate_rbm(rbm)
    z1, z2, *_ = by_hand(rbm)

    def log_Z(rbm):
        return autograd.scipy.special.logsumexp(-M.rbm.energy(rbm, z1, z2))

    np.testing.assert_allclose(flat(moments), flat(autograd.grad(log_Z)(rbm)), atol=1e-12)


def test_gibbs_is_the_sweep_in_place():
    gibbs_is_the_sweep_in_place(M)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_sides(groups):
    """The halves of all units in their order, whatever the leading axes."""
    z = np.random.default_rng(0).random((3, 2, 8))
    first, second = M.rbm.sides(np.split(z, groups, axis=-1))
    np.testing.assert_array_equal(first, z[..., :4])
    np.testing.assert_array_equal(second, z[..., 4:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gibbs(dtype):
    gibbs_follows_the_rbm(M, dtype)


def test_gibbs_at_extremes_is_certain_and_silent():
    rbm = [np.full(3, 200, np.float32), np.full(2, -200, np.float32), np.zeros((3, 2), np.float32)]
    rng = np.random.default_rng(0)
    z1, z2 = M.rbm.fair_bits(rng, 50, rbm)
    with np.errstate(over="raise", invalid="raise"):
        M.rbm.gibbs(rbm, z1, z2, rng, 2)
    assert z1.min() == 1
    assert z2.max() == 0


@pytest.mark.parametrize(("size", "sweeps"), [(0.2, 1), (1.0, 1)])
def test_population_annealing(size, sweeps):
    bias, bias_moments = annealing_is_calibrated(M, "pa", size, sweeps)
    print(f"detects {bias:.4f} of Z and {bias_moments:.4f} in the moments")
    assert bias < 0.06
    assert bias_moments < 0.015


def test_population_annealing_takes_sub_steps_when_the_weights_are_poor():
    old, new = random_rbm(), moved(random_rbm(), 3.0)
    z1, z2, p, log_Z = by_hand(old)
    rng, sizes = np.random.default_rng(0), []
    original = M.rbm.effective_sample_size
    rows = rng.choice(len(p), 4000, p=p)
    s1, s2 = z1[rows], z2[rows]
    try:
        M.rbm.effective_sample_size = lambda w: sizes.append(original(w)) or sizes[-1]
        change = M.rbm.population_annealing(old, new, s1, s2, rng, 5)
    finally:
        M.rbm.effective_sample_size = original
    accepted = [size for size in sizes if size >= 2000]
    assert len(accepted) >= 2
    assert len(sizes) > len(accepted)
    assert change == pytest.approx(M.rbm.enumerate_rbm(new)[0] - log_Z, abs=0.3)


def test_population_annealing_gives_up_when_the_rbm_jumps():
    """A step out of all proportion would take it for ever."""
    old = [p.astype(np.float32) for p in random_rbm()]
    z1, z2 = M.rbm.fair_bits(np.random.default_rng(0), 100, old)
    new = moved(old, 1e9)
    with pytest.raises(FloatingPointError, match="too far"):
        M.rbm.population_annealing(old, new, z1, z2, np.random.default_rng(0), 1)


def test_pcd():
    """Both log Z and moments are right after enough sweeps, and not before."""
    bias, bias_moments = annealing_is_calibrated(M, "pcd", 0.3, 40)
    assert bias < 0.02
    assert bias_moments < 0.015
    with pytest.raises(AssertionError, match="log Z"):
        annealing_is_calibrated(M, "pcd", 1.0, 1)


def test_ais():
    bias = ais_is_unbiased(M)
    print(f"detects {bias:.4f} of Z")
    assert bias < 0.15


@pytest.mark.parametrize("temperatures", [1, 2, 300])
def test_ais_with_few_or_many_temperatures(temperatures):
    """One temperature is plain importance sampling; with many the error is small."""
    rbm = random_rbm()
    log_Z, _ = M.rbm.enumerate_rbm(rbm)
    estimate, error, _ = M.rbm.ais(rbm, np.random.default_rng(0), 2000, temperatures)
    assert abs(estimate - log_Z) < 5 * error
    assert error < {1: 0.1, 2: 0.05, 300: 0.01}[temperatures]


@pytest.mark.parametrize(("chains", "temperatures"), [(1, 10), (10, 0)])
def test_ais_without_an_answer(chains, temperatures):
    with pytest.raises(M.common.InputError, match="at least 2 chains and 1 temperature"):
        M.rbm.ais(random_rbm(), np.random.default_rng(0), chains, temperatures)


WRONG = [
    ((np.array([0.0, np.nan]), np.zeros(3), np.zeros((2, 3))), "b1: has to be finite numbers"),
    ((np.array([0.0, -np.inf]), np.zeros(3), np.zeros((2, 3))), "b1: has to be finite numbers"),
    ((np.zeros(2), np.zeros((3, 1)), np.zeros((2, 3))), r"b2: .* \(n2\), not \(3, 1\)"),
    ((np.zeros(2), np.zeros(3), np.zeros((3, 2))), r"W: .* \(n1 = 2, n2 = 3\), not \(3, 2\)"),
    ((np.zeros(2), np.zeros(3), np.full((2, 3), np.inf)), "W: has to be finite numbers"),
    ((np.zeros(2), np.zeros((2, 3))), r"rbm: has to be a list of three arrays, \[b1, b2, W\]"),
    (5, "rbm: has to be a list of three arrays"),
]


@pytest.mark.parametrize(("rbm", "message"), WRONG)
def test_what_is_no_rbm_is_refused(rbm, message):
    calls = (
        lambda: M.rbm.enumerate_rbm(rbm),
        lambda: M.rbm.ais(rbm, np.random.default_rng(0), 10, 5),
        lambda: M.rbm.Chains(rbm, stream, 10),
    )
    for call in calls:
        with pytest.raises(M.common.InputError, match=f"^{message}"):
            call()
    with pytest.raises(M.common.InputError, match=r"^sampler: choose from pa, pcd, not 'x'"):
        M.rbm.Chains(random_rbm(), stream, 10, sampler="x")


def test_an_rbm_of_lists_integers_or_two_types_is_that_of_floats():
    whole = [[1, -1], [0, 2, -1], [[1, 0, -1], [2, 1, 0]]]
    floats, arrays = [np.array(p, float) for p in whole], [np.array(p) for p in whole]
    mixed = [np.array(p, dtype) for p, dtype in zip(whole, (np.float32, float, np.float32))]
    log_Z, moments = M.rbm.enumerate_rbm(floats)
    value, error, _ = M.rbm.ais(floats, np.random.default_rng(0), 50, 20)
    assert abs(value - log_Z) < 5 * error
    for rbm in (whole, arrays, mixed):
        ours, ours_moments = M.rbm.enumerate_rbm(rbm)
        assert ours == log_Z
        np.testing.assert_array_equal(flat(ours_moments), flat(moments))
        assert M.rbm.ais(rbm, np.random.default_rng(0), 50, 20)[:2] == (value, error)
        assert M.rbm.Chains(rbm, stream, 10).z1.dtype == np.float64
    single = M.rbm.Chains([p.astype(np.float32) for p in floats], stream, 10)
    assert single.z1.dtype == single.z2.dtype == np.float32


def test_effective_sample_size():
    effective_sample_size_is_exact(M)


def test_resampling():
    resampling_is_systematic(M)


@pytest.mark.parametrize("sampler", ["pa", "pcd"])
def test_running_log_Z_follows_a_long_way(sampler):
    """From the known start W = 0 through 200 small moves, in float32, as training does."""
    m, rng = M.rbm, np.random.default_rng(0)
    end = [p.astype(np.float32) for p in random_rbm(6, 5, 1.2)]
    path = [[p * np.float32(t) for p in end] for t in np.linspace(0, 1, 201)]
    z1, z2 = m.fair_bits(rng, 1000, end)
    log_Z = 11 * np.log(2)
    for old, new in itertools.pairwise(path):
        log_Z += m.SAMPLERS[sampler](old, new, z1, z2, rng, 3)
    assert log_Z == pytest.approx(m.enumerate_rbm(end)[0], abs=0.05)


# ------------------------------------------------------------------------------------------- Chains


def stream(purpose, index=0):
    return np.random.default_rng([7, purpose, index])


def chains_are_what_they_are_made_of(m):
    """`step` is the sampler, `ais` the function, once for every RBM; `correct` returns the drift.

    log Z starts at that of an RBM that is zero, and is in double precision for every RBM.
    """
    zero = [np.zeros(shape, np.float32) for shape in (3, 4, (3, 4))]
    new = [p.astype(np.float32) for p in random_rbm(scale=0.3)]
    for name, sampler in m.rbm.SAMPLERS.items():
        chains = m.rbm.Chains(zero, stream, 300, name, 2, ais_chains=50, ais_temperatures=20)
        assert chains.log_Z == 7 * np.log(2)
        assert chains.log_Z.dtype == float
        own = m.rbm.Chains(zero, stream, 300, log_Z=np.float32(3))
        assert (own.log_Z, own.log_Z.dtype) == (3, float)
        z1, z2 = m.rbm.fair_bits(stream(m.streams.CHAINS), 300, zero)
        change = sampler(zero, new, z1, z2, stream(m.streams.GIBBS, 5), 2)
        chains.step(zero, new, 5)
        log_Z = 7 * np.log(2) + change
        arrays = chains.arrays()
        for key, value in (("chains_1", z1), ("chains_2", z2), ("log_Z", log_Z)):
            np.testing.assert_array_equal(arrays[key], value)
        moments = m.rbm.sample_moments(z1, z2)
        np.testing.assert_array_equal(flat(chains.moments()), flat(moments))
        value, error, _ = m.rbm.ais(new, stream(m.streams.AIS), 50, 20)
        assert tuple(chains.ais(new)) == (value, error)
        assert chains.correct(new) == log_Z - value
        assert chains.log_Z == arrays["log_Z"] == value
        assert chains.ais(zero)[0] == pytest.approx(7 * np.log(2))
        new[2][0, 0] += 1  # in place, as training does
        assert chains.ais(new)[0] != value
        new[2][0, 0] -= 1
        expected = m.rbm.energy(new, z1, z2)
        np.testing.assert_array_equal(chains.energy(new, [z1, z2]), expected)


def test_chains():
    chains_are_what_they_are_made_of(M)


def further_samples_follow_the_rbm(m, n):
    """Fair bits swept on: moments of n samples against enumeration; detects .02. Chains stay."""
    rbm = random_rbm()
    chains = m.rbm.Chains(rbm, stream, 30_000)
    before = chains.z1.copy(), chains.z2.copy()
    z1, z2 = chains.more(rbm, n, np.random.default_rng(0), sweeps=30)
    assert len(z1) == len(z2) == n
    for z, old in zip((chains.z1, chains.z2), before):
        np.testing.assert_array_equal(z, old)
    pairs = (z1[:, :, None] * z2[:, None]).reshape(n, -1)
    samples = np.concatenate([z1, z2, pairs], axis=1)
    t, threshold, bias = z_scores(samples, flat(m.rbm.enumerate_rbm(rbm)[1]))
    assert t.max() < threshold
    assert bias.max() < 0.03


@pytest.mark.parametrize("n", [20_000, 40_000])
def test_further_samples(n):
    """Fewer than there are chains, and more."""
    further_samples_follow_the_rbm(M, n)


def test_chains_refuse_an_rbm_that_is_not_finite():
    rbm = [np.zeros(shape, np.float32) for shape in (3, 4, (3, 4))]
    chains = M.rbm.Chains(rbm, stream, 20)
    new = [p.copy() for p in rbm]
    new[2][1, 1] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        chains.step(rbm, new, 1)
    assert chains.log_Z == 7 * np.log(2)


# -------------------------------------------------------------------------------------- the program

QUICK = ["--steps", "60", "--ais-chains", "100", "--ais-temperatures", "50"]


@pytest.mark.parametrize(("dataset", "pixels"), [("bars", 16), ("digits", 64)])
def test_program(tmp_path, dataset, pixels):
    M.rbm.main([*QUICK, "--dataset", dataset, "--sampler", "pcd", "--out", str(tmp_path / "run")])
    files = {path.name: path for path in (tmp_path / "run").iterdir()}
    assert set(files) == {"config.json", "log.csv", "rbm.png", "summary.json"}
    assert files["rbm.png"].stat().st_size > 10_000
    with open(files["log.csv"], encoding="utf-8") as file:
        rows = [{k: float(x) for k, x in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert rows[-1]["log_likelihood"] > rows[0]["log_likelihood"]
    assert rows[0]["log_Z"] == pytest.approx((pixels + 10) * np.log(2), abs=0.5)
    for name in ("pa", "pcd", "ais"):
        assert abs(rows[-1][f"log_Z_{name}"] - rows[-1]["log_Z"]) < 0.5
        assert 0 < rows[-1][f"gradient_{name}"] < 3 * rows[-1]["gradient_independent"]
    summary = json.loads(files["summary.json"].read_text())
    assert all(summary[key] == x for key, x in rows[-1].items() if key != "step")
    assert (summary["method"], summary["dataset"], summary["steps"]) == ("rbm", dataset, 60)
    flags = json.loads(files["config.json"].read_text())["flags"]
    assert (flags["sampler"], flags["chains"], flags["hidden"]) == ("pcd", 200, 10)


def test_last_row_is_the_last_step(tmp_path):
    M.rbm.main([*QUICK, "--steps", "85", "--no-plots", "--out", str(tmp_path / "run")])
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[-2:]] == ["84", "85"]
    assert not (tmp_path / "run" / "rbm.png").exists()


def test_log_likelihood_is_exact(tmp_path):
    """compare() against a loop over all states of the RBM of 4 pixels and 2 hidden units."""
    rbm = [p.astype(np.float32) for p in random_rbm(4, 2)]
    z1, _, p, log_Z = by_hand(rbm)
    v = M.rbm.bars_and_stripes(2).astype(np.float32)
    assert v.shape == (6, 4)
    args = argparse.Namespace(ais_chains=50, ais_temperatures=5, chains=20)
    chains = {name: M.rbm.Chains(rbm, stream, 20, name) for name in M.rbm.SAMPLERS}
    row = M.rbm.compare(rbm, v, chains, np.random.default_rng(0), args)
    by_image = [np.log(p[(z1 == image).all(axis=1)].sum()) for image in v]
    assert row["log_likelihood"] == pytest.approx(np.mean(by_image), abs=1e-5)
    assert row["log_Z"] == pytest.approx(log_Z, abs=1e-6)


def test_bars_and_stripes():
    images = M.rbm.bars_and_stripes(4).reshape(-1, 4, 4)
    assert len(np.unique(images.reshape(-1, 16), axis=0)) == len(images) == 30
    rows, columns = (np.all(images == np.take(images, [0], axis), axis=(1, 2)) for axis in (2, 1))
    assert np.all(rows | columns)


def test_a_curve_has_one_style_in_all_panels(tmp_path, monkeypatch):
    figures = []

    new_figure = M.figures.new_figure

    def kept(*args, **options):
        figure, axes = new_figure(*args, **options)
        figures.append(figure)
        return figure, axes

    monkeypatch.setattr(M.figures, "new_figure", kept)
    M.rbm.main([*QUICK, "--out", str(tmp_path / "run")])
    lines = [line for axis in figures[0].axes for line in axis.get_lines()]
    styles = {(line.get_label(), line.get_linestyle(), line.get_color()) for line in lines}
    labels = {"PA", "PCD", "AIS", "exact", "independent samples"}
    assert labels <= {label for label, *_ in styles}
    named = [style for style in styles if style[0] in labels]
    assert len(named) == len({style[1:] for style in named}) == 5


@pytest.mark.parametrize(
    "flags",
    [["--dataset", "letters"], ["--hidden", "21"], ["--hidden", "0"], ["--chains", "1"],
     ["--ais-chains", "1"], ["--ais-temperatures", "0"], ["--sweeps", "0"], ["--steps", "0"],
     ["--lr", "0"], ["--lr", "nan"], ["--sampler", "ais"], ["--seed", "-1"], ["--resume", "x"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_flags(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        M.rbm.main([*flags, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flags[0] in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lr", ["1e308", "1e30"])
def test_a_step_too_large_ends_with_one_line(tmp_path, lr):
    """Not finite, and finite but out of reach: exit code 1, no NaN, no warnings, no summary."""
    path, folder = proofs.METHODS / "rbm.py", tmp_path / "run"
    command = [sys.executable, path, "--lr", lr, "--no-plots", "--out", folder, "--steps", "20"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Boltzmann machine" in result.stderr
    assert "--lr" in result.stderr
    assert not (folder / "summary.json").exists()


# --------------------------------------------------------------------------------------- mutations

MUTATIONS = {
    "sign of the pairs in the energy": (
        enumeration_is_exact,
        ("np.sum((b2 + times(z1, W)) * z2, axis=-1)", "np.sum((b2 - times(z1, W)) * z2, axis=-1)"),
    ),
    "the bias forgotten in Gibbs": (gibbs_follows_the_rbm, ("    a += b\n", "")),
    "bits upside down": (gibbs_follows_the_rbm, ("greater(a, 1, out=z)", "less(a, 1, out=z)")),
    "sides not alternating": (
        gibbs_follows_the_rbm,
        ("_draw_side(z2, W.T, b1, rng, *buffers[0], z1)", "pass"),
    ),
    "plain form: bits upside down": (
        gibbs_is_the_sweep_in_place,
        ("(u2 > sigmoid(-(b2 + z1 @ W)))", "(u2 > sigmoid(b2 + z1 @ W))"),
    ),
    "the running log Z in single precision": (
        chains_are_what_they_are_made_of,
        ("if log_Z is None else log_Z, float)", "if log_Z is None else log_Z)"),
    ),
    "AIS of an earlier RBM": (
        chains_are_what_they_are_made_of,
        ("if content != self._known:", "if self._known is None:"),
    ),
    "a drift of the wrong sign": (
        chains_are_what_they_are_made_of,
        ("drift = float(self.log_Z) - log_Z", "drift = log_Z - float(self.log_Z)"),
    ),
    "pictures from chains that have not moved on": (
        lambda m: further_samples_follow_the_rbm(m, 20_000),
        ("        gibbs(rbm, z1, z2, rng, sweeps)\n        return z1, z2", "        return z1, z2"),
    ),
    "pictures that move the chains": (
        lambda m: further_samples_follow_the_rbm(m, 30_000),
        ("z1, z2 = self.z1[rows], self.z2[rows]", "z1, z2 = self.z1, self.z2"),
    ),
    "weights the wrong way round": (
        annealing_is_calibrated,
        ("return -energy([p_new - p for", "return energy([p_new - p for"),
    ),
    "no resampling": (
        annealing_is_calibrated,
        ("z1[...], z2[...] = z1[rows], z2[rows]", "pass"),
    ),
    "the whole of log Z at a part of the way": (
        lambda m: annealing_is_calibrated(m, size=1.5),
        ("log_mean_exp(part * log_w, 0)", "log_mean_exp(log_w, 0)"),
    ),
    'a "max" that is a mean': (
        effective_sample_size_is_exact,
        (
            "w = np.exp(log_w - log_w.max())\n    return w.sum()",
            "w = np.exp(log_w - log_w.mean())\n    return w.sum()",
        ),
    ),
    "resampling without order": (
        resampling_is_systematic,
        ('(np.arange(n) + u) / n * ends[-1], side="right")', "np.full(n, u) * ends[-1])"),
    ),
    "AIS without its base": (
        ais_is_unbiased,
        ("rbm[:2])) * math.log(2) + log", "rbm[:1])) * math.log(2) + log"),
    ),
    "AIS that moves first and weights then": (
        ais_is_unbiased,
        (
            "log_w -= energy(rbm, z1, z2) / temperatures\n        if k < temperatures:\n"
            "            gibbs([p * p.dtype.type(k / temperatures) for p in rbm], z1, z2, rng, 1)",
            "gibbs([p * p.dtype.type(k / temperatures) for p in rbm], z1, z2, rng, 1)\n"
            "        log_w -= energy(rbm, z1, z2) / temperatures",
        ),
    ),
    "AIS that anneals too fast": (
        ais_is_unbiased,
        ("p.dtype.type(k / temperatures) for", "p.dtype.type((k + 1) / temperatures) for"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([("rbm", old, new)])
    with pytest.raises(AssertionError), np.errstate(over="ignore", invalid="ignore"):
        proof(mutated)
