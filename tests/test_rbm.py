"""The Boltzmann machine of dvae_sharp.py: enumeration, Gibbs, PCD, population annealing, AIS.

Monte Carlo tests have a false-alarm rate of 1e-6 each, over all numbers they compare, and say
which bias they would detect.
"""

import itertools

import autograd
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
    n, k = samples.shape
    error = samples.std(axis=0, ddof=1) / np.sqrt(n)
    threshold = stats.t.isf(proofs.FALSE_ALARM / (2 * k), n - 1)
    t = np.abs(samples.mean(axis=0) - expected) / np.maximum(error, 1e-12)
    return t, threshold, (threshold + stats.norm.isf(0.01)) * error


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
        ("_flip(z2, W.T, b1, rng, *buffers[0], z1)", "pass"),
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
        ("len, rbm[:2])) * math.log(2)", "len, rbm[:1])) * math.log(2)"),
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
