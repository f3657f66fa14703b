"""DVAE, DVAE++, DVAE#: smoothing, priors, bounds and gradients against quadrature and enumeration.

The Boltzmann machine alone is in test_rbm.py. Monte Carlo tests have a false-alarm rate of 1e-6
each, over all numbers they compare, and assert which bias they detect with probability .99.
"""

import argparse
import csv
import itertools
import json
import math
from types import SimpleNamespace

import autograd
import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from scipy import stats
from scipy.special import expit, logsumexp

M = proofs.load()
SMOOTHINGS = {"EXPONENTIAL": 6.0, "UNIFORM_EXPONENTIAL": 10.0, "POWER": 20.0, "GAUSSIAN": 12.0}
FALSE_ALARM = proofs.FALSE_ALARM


def smoothing(m, name):
    return getattr(m.dvae_sharp, name), SMOOTHINGS[name]


def grid(name, n=20001):
    """Values of y over the whole support, evenly spaced."""
    low, high = {"POWER": (-700, 700), "GAUSSIAN": (-2, 3)}.get(name, (0, 1))
    return np.linspace(low, high, n)


def z_test(samples, expected, what=""):
    """Largest |t| of the column means, to be below the threshold; the sharpness per column."""
    result = M.diagnostics.mean_test(samples, expected, FALSE_ALARM)
    assert result.passed, f"{what} {result}"
    return result.detectable


# -------------------------------------------------------------------------------- 1. smoothing: r


def cdf_is_the_integral_of_pdf(m):
    """By the trapezoidal rule, 1e-5; from 0 to 1 over the support."""
    for name in SMOOTHINGS:
        r, beta = smoothing(m, name)
        y = grid(name, 400_001)
        cdf, pdf = r.distribution(y, beta)
        integral = np.concatenate([[0], np.cumsum((pdf[1:] + pdf[:-1]) / 2)]) * (y[1] - y[0])
        np.testing.assert_allclose(cdf - cdf[0], integral, atol=1e-5, err_msg=name)
        assert abs(cdf[0]) < 1e-10
        assert abs(cdf[-1] - 1) < 1e-10


def draw_follows_cdf(m):
    """Kolmogorov–Smirnov distance on a fine grid of uniforms: 1e-4."""
    rho = (np.arange(20_000) + 0.5) / 20_000
    for name in SMOOTHINGS:
        r, beta = smoothing(m, name)
        F = np.sort(r.distribution(r.draw(rho, beta), beta)[0])
        assert np.abs(F - rho).max() < 1e-4, name


def log_ratio_is_of_the_pdfs(m):
    for name in SMOOTHINGS:
        r, beta = smoothing(m, name)
        y = grid(name, 2001)[300:-300]
        y = y[(r.distribution(y, beta)[1] > 0) & (r.distribution(r.mirror(y), beta)[1] > 0)]
        ratio = np.log(r.distribution(r.mirror(y), beta)[1]) - np.log(r.distribution(y, beta)[1])
        np.testing.assert_allclose(r.log_ratio(y, beta), ratio, atol=1e-9, rtol=1e-9, err_msg=name)


def mixture_cdf(r, beta, a, y):
    """F(y) = (1 − q) R0 + q R1; also with a spike."""
    q, R1 = expit(a), 1 - r.distribution(r.mirror(y), beta)[0]
    return (1 - q) * (1 if r.spike else r.distribution(y, beta)[0]) + q * R1


def numeric_inverse(F, low, high):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if F(middle) < 0 else (low, middle)
    return (low + high) / 2


def velocity_is_that_of_the_inverse_cdf(m):
    """Against central differences of F⁻¹ by bisection, at many ρ and logits: 1e-5 relative."""
    d = m.dvae_sharp
    for name in [*SMOOTHINGS, "SPIKE_EXPONENTIAL"]:
        r = getattr(d, name)
        beta = SMOOTHINGS.get(name, 4.0)
        low, high = grid(name, 2)
        for a, rho in itertools.product((-2.0, 0.3, 1.7), np.linspace(0.03, 0.97, 13)):
            if r.spike and rho < expit(-a) + 0.01:
                continue
            inverse = lambda a: numeric_inverse(
                lambda y: mixture_cdf(r, beta, a, y) - rho, low, high
            )
            step = 1e-4
            difference = (inverse(a + step) - inverse(a - step)) / (2 * step)
            value = d.velocity(np.array(a), np.array(inverse(a)), r, beta)
            assert abs(value - difference) < 1e-5 * max(1, abs(difference)), (name, a, rho)
    assert d.velocity(np.array(0.3), np.array(0.0), d.SPIKE_EXPONENTIAL, 4.0) == 0


def exponential_velocity_is_the_closed_form(m):
    """The mixture of two exponentials has an inverse in closed form; autograd differentiates it."""
    beta = SMOOTHINGS["EXPONENTIAL"]

    def inverse(a, rho):
        q = 1 / (1 + anp.exp(-a))
        b = (rho + math.exp(-beta) * (q - rho)) / (1 - q) - 1
        c = -q * math.exp(-beta) / (1 - q)
        return -anp.log((-b + anp.sqrt(b**2 - 4 * c)) / 2) / beta

    for a, rho in itertools.product((-3.0, 0.2, 2.5), np.linspace(0.02, 0.98, 9)):
        y = inverse(a, rho)
        exact = autograd.grad(inverse)(a, rho)
        value = m.dvae_sharp.velocity(np.array(a), np.array(y), m.dvae_sharp.EXPONENTIAL, beta)
        assert abs(value - exact) < 1e-10 * max(1, abs(exact))


def relax_is_unbiased(m):
    """E[g(ζ)] and its derivative for a by 2-d quadrature over u and ρ, for g smooth: 2e-3.

    u has to be integrated only to either side of its jump; ρ by the midpoint rule. The truth is
    (1 − q) E[g | z = 0] + q E[g | z = 1].
    """
    d, n = m.dvae_sharp, 20_000
    rho = (np.arange(n) + 0.5) / n
    g = lambda zeta: anp.sin(3 * zeta) + zeta**2
    for name in [*SMOOTHINGS, "SPIKE_EXPONENTIAL"]:
        r, beta = getattr(d, name), SMOOTHINGS.get(name, 4.0)
        for a in (-1.5, 0.4):
            q = expit(a)
            u = np.repeat([(1 - q) / 2, 1 - q / 2], n)  # z = 0, z = 1
            w = np.repeat([(1 - q) / n, q / n], n)
            nodes = np.tile(rho, 2)

            mean = lambda logits: anp.sum(w * g(r.zeta(d.relax(logits, u, nodes, r, beta))))
            logits = np.full(2 * n, a)
            zeta0 = np.zeros(n) if r.spike else r.zeta(r.draw(rho, beta))
            zeta1 = r.zeta(r.mirror(r.draw(rho, beta)))
            exact = q * (1 - q) * (g(zeta1).mean() - g(zeta0).mean())
            value = autograd.grad(mean)(logits).sum()
            assert abs(mean(logits) - (1 - q) * g(zeta0).mean() - q * g(zeta1).mean()) < 1e-9
            assert abs(value - exact) < 2e-3 * abs(exact), (name, a, value, exact)


def shifted_gaussian_is_unbiased(m):
    """d/d(a, shift, s) of E[g(ζ)] for ζ ~ N(z + shift, s²): by quadrature over the normal, 1e-4."""
    d, n = m.dvae_sharp, 100_000
    rho = (np.arange(n) + 0.5) / n
    normal = stats.norm.ppf(rho)
    g = lambda zeta: anp.sin(3 * zeta) + zeta**2

    def truth(theta):
        a, shift, s = theta
        q = 1 / (1 + anp.exp(-a))
        return (1 - q) * anp.mean(g(shift + s * normal)) + q * anp.mean(g(1 + shift + s * normal))

    for a, shift, s in ((0.5, 0.2, 0.3), (-1.0, -0.15, 0.15)):
        q = expit(a)
        u = np.repeat([(1 - q) / 2, 1 - q / 2], n)
        w = np.repeat([(1 - q) / n, q / n], n)

        def mean(theta):
            zeta = d.relax_shifted(theta[0] + 0 * u, theta[1] + 0 * u, theta[2], u, np.tile(rho, 2))
            return anp.sum(w * g(zeta))

        theta = [np.array(a), np.array(shift), np.array([s])]
        exact = autograd.grad(truth)([a, shift, s])
        value = np.ravel([np.sum(v) for v in autograd.grad(mean)(theta)])
        np.testing.assert_allclose(value, exact, rtol=1e-3, atol=1e-4)


def test_cdf_is_the_integral_of_pdf():
    cdf_is_the_integral_of_pdf(M)


def test_draw_follows_cdf():
    draw_follows_cdf(M)


def test_log_ratio():
    log_ratio_is_of_the_pdfs(M)


def test_velocity():
    velocity_is_that_of_the_inverse_cdf(M)


def test_exponential_velocity():
    exponential_velocity_is_the_closed_form(M)


def test_relax():
    relax_is_unbiased(M)


def test_shifted_gaussian():
    shifted_gaussian_is_unbiased(M)


@pytest.mark.parametrize("name", [*SMOOTHINGS, "SPIKE_EXPONENTIAL"])
def test_sharp_smoothing_tends_to_the_bits(rng, name):
    """At a large β, ζ is within .1 of its bit but for a share that falls with 1/β or faster."""
    r, a = getattr(M.dvae_sharp, name), np.full(100_000, 0.3)
    u, rho = rng.random((2, len(a)))
    z = M.common.hard_sample(a, u)
    far = []
    for beta in (10.0, 1000.0):
        zeta = r.zeta(M.dvae_sharp.relax(a, u, rho, r, beta))
        far.append(np.mean(np.abs(zeta - z) > 0.1))
    expected = 0.05 * 0.8 if name == "UNIFORM_EXPONENTIAL" else 0.0  # its uniform part stays
    assert far[1] <= max(0.1 * far[0], expected + 0.01)


@pytest.mark.parametrize("name", [*SMOOTHINGS, "SPIKE_EXPONENTIAL"])
def test_extremes_are_finite(name):
    """Logits ±50 and ±100, uniforms at their ends, in float32: values, gradients, log-ratios."""
    d, dtype = M.dvae_sharp, np.float32
    r, beta = getattr(d, name), SMOOTHINGS.get(name, 4.0) * 2
    ends = np.array([1e-6, 0.5, 1 - 1e-6], dtype)
    cases = np.array(list(itertools.product([-100, -50, 0, 50, 100], ends, ends)), dtype).T
    a, u, rho = (np.ascontiguousarray(c) for c in cases)
    with np.errstate(invalid="raise", divide="raise"):
        y = d.relax(a, u, rho, r, beta)
        v = d.velocity(a, y, r, beta)
        zeta = r.zeta(y)
    assert y.dtype == v.dtype == dtype
    for x in (y, v, zeta) if r.spike else (y, v, zeta, r.log_ratio(y, beta)):
        assert np.all(np.isfinite(x))
    if name == "POWER":
        assert zeta.min() == 0
        assert zeta.max() == 1
    assert np.all(v >= 0)


# -------------------------------------------------------------------- 2. priors over ζ, at given ζ


def all_states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def random_rbm(n=2, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(shape) for shape in (n, n, (n, n))]


def log_prior(rbm):
    """log p(z) of all states (side 1, then side 2), and the states."""
    z = all_states(2 * len(rbm[0]))
    z1, z2 = np.split(z, 2, axis=1)
    minus_E = z1 @ rbm[0] + z2 @ rbm[1] + np.sum((z1 @ rbm[2]) * z2, axis=1)
    return z, minus_E - logsumexp(minus_E)


def numbers(rng, n=2):
    """Logits, and values y of two groups of n units, for three rows."""
    return [[2 * rng.standard_normal((3, n)) for _ in range(2)] for _ in range(2)]


def gaussian_integral_is_exact(m):
    """log p(ζ) − log q(ζ|x) against sums over all z, at q near 0, near 1 and between: 1e-9.

    The second RBM has couplings so large that λ = β would make no density.
    """
    d, rng = m.dvae_sharp, np.random.default_rng(0)
    for scale, beta in ((1.0, 10.0), (8.0, 4.0)):
        rbm = random_rbm(2, scale)
        log_Z, _ = m.rbm.enumerate_rbm(rbm)
        a = [np.array([[0.5, -1.0], [14.0, -14.0], [3.0, 9.0]]) for _ in range(2)]
        zeta = [0.5 + rng.standard_normal((3, 2)) for _ in range(2)]
        shift, s = [0.2 * rng.random((3, 2)) for _ in range(2)], [np.array([0.2, 0.3])] * 2
        lam = d.valid_lambda(rbm[2], beta)
        value = d.gaussian_integral(rbm, log_Z, zeta, list(zip(a, shift, s)), lam)
        states, log_p = log_prior(rbm)
        M_matrix = lam * np.eye(4)
        M_matrix[:2, 2:], M_matrix[2:, :2] = rbm[2], rbm[2].T
        assert np.linalg.eigvalsh(M_matrix).min() > 0
        z_all, expected = np.concatenate(zeta, axis=1), []
        for row in range(3):
            normal = [stats.multivariate_normal.logpdf(z_all[row], z, np.linalg.inv(M_matrix))
                      for z in states]  # fmt: skip
            log_q = 0.0
            for a_i, zeta_i, shift_i in zip(a, zeta, shift):
                log_one = -np.logaddexp(0, -a_i[row]) + stats.norm.logpdf(
                    zeta_i[row], 1 + shift_i[row], s[0]
                )
                log_zero = -np.logaddexp(0, a_i[row]) + stats.norm.logpdf(
                    zeta_i[row], shift_i[row], s[0]
                )
                log_q += np.sum(np.logaddexp(log_one, log_zero))
            expected.append(logsumexp(log_p + normal) - log_q)
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def exact_marginal(m, rbm, a, ratio):
    """log Σ_z p(z) Π (r1/r0)^z − log Π ((1 − q) + q r1/r0), by enumeration: (rows,)."""
    states, log_p = log_prior(rbm)
    both, logits = np.concatenate(ratio, axis=1), np.concatenate(a, axis=1)
    log_q = np.sum(np.logaddexp(0, logits + both) - np.logaddexp(0, logits), axis=1)
    return logsumexp(log_p + both @ states.T, axis=1) - log_q


def mean_field_is_a_tight_bound(m):
    """Never above the sum over all z; equal to 1e-6 where all ratios are large."""
    d, rng = m.dvae_sharp, np.random.default_rng(1)
    gaps = {}
    for scale in (1.0, 3.0, 10.0, 40.0):
        gaps[scale] = []
        for seed in range(20):
            rbm = random_rbm(2, 1.0, seed)
            a = [2 * rng.standard_normal((3, 2)) for _ in range(2)]
            ratio = [scale * rng.choice([-1, 1], (3, 2)) * (0.7 + rng.random((3, 2)))
                     for _ in range(2)]  # fmt: skip
            value = d.dvae_sharp(rbm, m.rbm.enumerate_rbm(rbm)[0], a, ratio)
            gaps[scale].append(exact_marginal(m, rbm, a, ratio) - value)
        gaps[scale] = np.array(gaps[scale])
        assert gaps[scale].min() > -1e-9
    means = [gap.mean() for gap in gaps.values()]
    assert means[0] > means[1] > means[2] > means[3]
    assert gaps[40.0].max() < 1e-6
    assert means[0] < 0.2


def envelope_gradient_is_exact(m):
    """With mean-field converged, the gradient is that of the whole function, m included: 1e-6."""
    d, rng = m.dvae_sharp, np.random.default_rng(2)
    original = d.mean_field
    d.mean_field = lambda *args: original(*args, sweeps=300)
    rbm, (a, ratio) = random_rbm(2, 0.7), numbers(rng)
    tensors = [*rbm, *a, *ratio]
    value = lambda t: anp.sum(d.dvae_sharp(t[:3], 0.0, t[3:5], t[5:]))
    gradient = autograd.grad(value)(tensors)
    for k, tensor in enumerate(tensors):
        for index in np.ndindex(tensor.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [t.copy() for t in tensors]
                moved[k][index] += step
                values.append(value(moved))
            assert abs((values[0] - values[1]) / 2e-5 - gradient[k][index]) < 1e-6, (k, index)


def test_gaussian_integral():
    gaussian_integral_is_exact(M)


def test_mean_field():
    mean_field_is_a_tight_bound(M)


def marginal_is_the_plain_form(m):
    """Value and gradient in the RBM, logits and ζ of `dvae_sharp` are those of `marginal`: 1e-9."""
    d, rng = m.dvae_sharp, np.random.default_rng(4)
    for name in SMOOTHINGS:
        r, beta = smoothing(m, name)
        log_r = lambda y, r=r, beta=beta: anp.log(r.distribution(y, beta)[1])
        for groups, n in ((2, 3), (4, 2), (1, 6)):
            rbm = random_rbm(groups * n // 2, 0.7)
            a, u, rho = rng.standard_normal(n), *rng.random((2, groups, 3, n))
            a = [a + rng.standard_normal((3, n)) for _ in range(groups)]
            y = [d.relax(*auv, r, beta) for auv in zip(a, u, rho)]

            def fast(rbm, a, y):
                return d.dvae_sharp(rbm, 0.3, a, [r.log_ratio(y_i, beta) for y_i in y])

            def plain(rbm, a, y):
                zero, one = ([log_r(s) for s in side] for side in (y, [r.mirror(s) for s in y]))
                return d.marginal(rbm, 0.3, a, zero, one)

            t = rbm, a, y
            np.testing.assert_allclose(fast(*t), plain(*t), rtol=1e-9, err_msg=name)
            for k in (0, 1) if name == "GAUSSIAN" else (0, 1, 2):  # ndtr cannot be traced
                gradients = (autograd.grad(lambda *t, f=f: anp.sum(f(*t)), k)(*t)
                             for f in (fast, plain))  # fmt: skip
                for g, h in zip(*gradients):
                    np.testing.assert_allclose(g, h, rtol=1e-7, atol=1e-9, err_msg=name)


def test_marginal():
    marginal_is_the_plain_form(M)


def lambda_is_differentiated(m):
    """λ − 5 is the largest singular value if β is small, and its gradient, by differences: 1e-7.

    At W = 0, where there is none, the gradient is finite; with a large β, λ is β and it is 0.
    """
    d, rng = m.dvae_sharp, np.random.default_rng(0)
    for shape in ((1, 1), (4, 4), (6, 6)):
        W = rng.standard_normal(shape)
        assert d.valid_lambda(W, 1.0) == pytest.approx(np.linalg.svd(W)[1].max() + 5, rel=1e-12)
        gradient = autograd.grad(d.valid_lambda)(W, 1.0)
        for index in np.ndindex(shape):
            step = np.zeros(shape)
            step[index] = 1e-5
            values = [np.linalg.svd(W + s)[1].max() for s in (step, -step)]
            assert abs((values[0] - values[1]) / 2e-5 - gradient[index]) < 1e-7
        assert np.all(autograd.grad(d.valid_lambda)(W, 100.0) == 0)
        assert np.all(np.isfinite(autograd.grad(d.valid_lambda)(0 * W, 1.0)))
    for size in (1e-25, 1e25):  # beyond the range of float32 when squared
        W = np.float32(size) * rng.standard_normal((5, 5)).astype(np.float32)
        sigma = np.linalg.svd(W)[1].max()
        assert d.valid_lambda(W, 1.0) == pytest.approx(sigma + 5, rel=1e-5)
        assert d.valid_lambda(W, 1.0).dtype == np.float32


def test_lambda():
    lambda_is_differentiated(M)


def test_envelope_gradient():
    envelope_gradient_is_exact(M)


# --------------------------------------------------- the gradient of all parameters, by quadrature

BETAS = {"dvae_spike_exp": 3.0, "dvaepp_exp": 6.0, "dvaepp_power": 6.0, "dvaes_gi": 8.0,
         "dvaes_gauss": 10.0, "dvaes_exp": 6.0, "dvaes_unexp": 8.0, "dvaes_power": 6.0}  # fmt: skip
UNITS = 1  # per group


def tiny(m, variant, struct="2-layer-nonlin", width=UNITS, seed=1, dtype=np.float64):
    """A model of three pixels, its parameters and statistics away from where they start."""
    rng = np.random.default_rng(seed)
    model = m.hierarchy.DVAE(np.array([0.3, 0.5, 0.6]), struct, width, variant, dtype=dtype)
    move = lambda p: (p + 0.6 * rng.standard_normal(p.shape)).astype(dtype)
    params = [move(p) for p in model.init(rng)]
    model.statistics = [np.abs(move(t)) for t in model.statistics]
    model.prior = exact_prior(m)
    return model, params


def exact_prior(m):
    """What DVAE asks of rbm.Chains, but with log Z by enumeration."""
    energy = lambda rbm, groups: m.rbm.energy(rbm, *m.rbm.sides(groups))
    return SimpleNamespace(energy=energy, ais=lambda rbm: (m.rbm.enumerate_rbm(rbm)[0], 0.0))


X = np.array([[1.0, 0, 1]])


def smoothed(r, beta, z, rho):
    y = r.draw(rho, beta)
    return r.zeta(r.mirror(y)) if z else (np.zeros_like(rho) if r.spike else r.zeta(y))


def rho_grid(groups, n):
    """Gauss–Legendre nodes of the unit cube, (n^groups, groups), and their weights."""
    x, w = np.polynomial.legendre.leggauss(n)
    rho = np.stack(np.meshgrid(*[(x + 1) / 2] * groups, indexing="ij"), axis=-1)
    weights = np.prod(np.meshgrid(*[w / 2] * groups, indexing="ij"), axis=0)
    return rho.reshape(-1, groups), weights.ravel()


def truth(m, model, variant, params, x, n, beta):
    """The smoothed bound of one unit a group, its prior by hand: Σ_z ∫ dρ q(z|ζ, x) (…).

    The ζ do not depend on the parameters here (dvaes_gi: z + shift + s n), so that autograd
    needs no implicit gradient, and the bits of every group are summed over with their probability.
    """
    d = m.dvae_sharp
    r, groups = d.VARIANTS[variant].smoothing, len(model.units)
    (rho, weights), total = rho_grid(groups, n), 0.0
    rows = np.tile(x, (len(rho), 1))
    b1, b2, W = params[:3]
    half = groups // 2
    for z in itertools.product((0, 1), repeat=groups):
        logits, extra = [], []

        def emit(i, out, z=z, logits=logits, extra=extra):
            logits.append(out[:, :1])
            if variant != "dvaes_gi":
                return smoothed(r, beta, z[i], rho[:, i : i + 1])
            extra.append((0.5 * (1 / (1 + anp.exp(-out[:, 1:])) - 0.5),
                          anp.abs(0.2 * params[i - groups]) + 0.05))  # fmt: skip
            return z[i] + extra[i][0] + extra[i][1] * stats.norm.ppf(rho[:, i : i + 1])

        zeta, _ = model.infer(params, rows, emit, model.by_moving_averages)
        log_mass = lambda bit, a: bit * a - anp.logaddexp(0, a)
        log_q_z = sum(log_mass(z_i, a) for z_i, a in zip(z, logits))[:, 0]
        pixels = model.decode(params, zeta, model.by_moving_averages)
        recon = anp.sum(log_mass(x, pixels), axis=1)
        states = all_states(groups)
        s1, s2 = states[:, :half], states[:, half:]
        minus_E = s1 @ b1 + s2 @ b2 + anp.sum(anp.dot(s1, W) * s2, axis=1)
        log_Z = anp.log(anp.sum(anp.exp(minus_E)))
        if not d.VARIANTS[variant].marginal:
            mine = int("".join(map(str, z)), 2)
            value = recon + minus_E[mine] - log_Z - log_q_z
        elif variant == "dvaes_gi":
            (z1, z2), w = zeta, W[0, 0]
            lam = anp.maximum(beta, anp.abs(w) + 5)
            normal = 0.0
            for s, e in zip(states, minus_E):
                u1, u2 = z1[:, 0] - s[0], z2[:, 0] - s[1]
                quad = lam * (u1**2 + u2**2) + 2 * w * u1 * u2
                normal = normal + anp.exp(
                    e - log_Z - quad / 2 + anp.log(lam**2 - w**2) / 2 - math.log(2 * math.pi)
                )
            log_q = 0.0
            for zeta_i, a_i, (t, s) in zip(zeta, logits, extra):
                q, v = 1 / (1 + anp.exp(-a_i)), (zeta_i - t) / s
                pdf = lambda v, s=s: anp.exp(-(v**2) / 2) / (s * math.sqrt(2 * math.pi))
                log_q = log_q + anp.log((1 - q) * pdf(v) + q * pdf(v - 1 / s))[:, 0]
            value = recon + anp.log(normal) - log_q
        else:
            y = [r.draw(rho[:, i : i + 1], beta) for i in range(2)]
            y = [r.mirror(y_i) if z_i else y_i for z_i, y_i in zip(z, y)]
            log_r = [
                [np.log(r.distribution(t, beta)[1]) for t in (y_i, r.mirror(y_i))] for y_i in y
            ]
            c1, c2 = (one - zero for zero, one in log_r)
            fixed = m.common.stop_gradient
            m1 = np.full_like(c1, 0.5)
            for _ in range(5):
                m2 = expit(fixed(b2) + m1 * fixed(W)[0, 0] + c2)
                m1 = expit(fixed(b1) + m2 * fixed(W)[0, 0] + c1)
            entropy = -sum(t * np.log(np.maximum(t, 1e-300)) for t in (m1, 1 - m1, m2, 1 - m2))
            log_p = m1 * (b1 + c1) + m2 * (b2 + c2) + m1 * m2 * W + entropy - log_Z
            log_p = log_p + log_r[0][0] + log_r[1][0]
            log_q = 0.0
            for a_i, (zero, one) in zip(logits, log_r):
                q = 1 / (1 + anp.exp(-a_i))
                log_q = log_q + anp.log((1 - q) * np.exp(zero) + q * np.exp(one))
            value = recon + (log_p - log_q)[:, 0]
        total = total + anp.sum(weights * anp.exp(log_q_z) * value)
    return total


def nodes(m, model, variant, params, x, n, beta):
    """Uniforms (u, ρ) per group and weights, so that sums are means: every z, ρ on a grid."""
    d, r = m.dvae_sharp, m.dvae_sharp.VARIANTS[variant].smoothing
    (rho, weights), u_all, w_all = rho_grid(len(model.units), n), [], []
    rows = np.tile(x, (len(rho), 1))
    for z in itertools.product((0, 1), repeat=len(model.units)):
        u, w = [], weights.copy()

        def emit(i, out, z=z, u=u):
            q = expit(out[:, :1])
            u.append(1 - q / 2 if z[i] else (1 - q) / 2)
            w[...] *= q[:, 0] if z[i] else 1 - q[:, 0]
            rho_i = rho[:, i : i + 1]
            if variant == "dvaes_gi":
                return d.relax_shifted(*model.gaussian(params, i, out), u[i], rho_i)
            return r.zeta(d.relax(out, u[i], rho_i, r, beta))

        model.infer(params, rows, emit, model.by_moving_averages)
        u_all.append(np.concatenate(u, axis=1))
        w_all.append(w)
    u, rho = np.concatenate(u_all), np.tile(rho, (len(u_all), 1))
    pairs = [(u[:, i : i + 1], rho[:, i : i + 1]) for i in range(u.shape[1])]
    return pairs, np.concatenate(w_all)


def estimated(m, model, variant, params, x, n, beta):
    """Mean of recon − KL over all noise, and its gradient, as the method has them."""
    d = m.dvae_sharp
    noise, w = nodes(m, model, variant, params, x, n, beta)
    log_Z, moments = m.rbm.enumerate_rbm(params[:3])
    draw, rows = d.Draw(noise, log_Z, moments), np.tile(x, (len(w), 1))

    def mean(params):
        terms = d.smoothed_terms(model, params, rows, draw, variant, beta, model.by_moving_averages)
        return [anp.sum(w * (terms[0] + terms[1]))], terms[0]

    original = d.gradients
    (grads,), _ = original(mean, params)
    return mean(params)[0][0], grads


def gradient_is_exact(m, variant, n=80, tolerance=1e-6, beta=None, **options):
    """The mean over all noise of bound and gradient of every parameter, against `truth`.

    The error of the quadrature with n nodes per group is below the tolerance.
    """
    (model, params), beta = tiny(m, variant, **options), beta or BETAS[variant]
    value, grads = estimated(m, model, variant, params, X, n, beta)
    expected = truth(m, model, variant, params, X, n, beta)
    exact = autograd.grad(lambda p: truth(m, model, variant, p, X, n, beta))(params)
    scale = max(np.abs(g).max() for g in exact)
    assert abs(value - expected) < 1e-4 * abs(expected), (variant, value, expected)
    for name, g, e in zip(model.names, grads, exact):
        error = np.abs(g - e).max()
        assert error < tolerance * scale, (variant, name, error / scale)


# The quantile of the normal distribution, and the jump of a mixture, need more nodes than these.
TOLERANCE = {"dvaes_gi": 2e-4, "dvaes_unexp": 3e-3}


@pytest.mark.parametrize("variant", M.dvae_sharp.VARIANTS)
def test_gradient(variant):
    gradient_is_exact(M, variant, tolerance=TOLERANCE.get(variant, 1e-6))


def gradient_is_exact_where_lambda_follows_W(m):
    """The Gaussian integral at β = 1, where λ = ‖W‖ + 5: the slope of λ is in the gradient of W."""
    gradient_is_exact(m, "dvaes_gi", tolerance=TOLERANCE["dvaes_gi"], beta=1.0)


def test_gradient_where_lambda_follows_W():
    gradient_is_exact_where_lambda_follows_W(M)


@pytest.mark.parametrize("variant", ["dvae_spike_exp", "dvaepp_exp"])
def test_gradient_with_four_groups(variant):
    """Two groups on a side of the RBM, 7 nodes a group."""
    four_groups_are_exact(M, variant)


def four_groups_are_exact(m, variant):
    gradient_is_exact(m, variant, n=7, tolerance=0.01, struct="4-layer-nonlin", width=2)


# ---------------------------------------------------------------------------------- they are bounds


def log_likelihood(m, model, variant, params, x, n=60):
    """Exact log p(x) of the smoothed model with one unit a group, for an image x (1, pixels)."""
    d, beta = m.dvae_sharp, BETAS[variant]
    r, (states, log_p) = d.VARIANTS[variant].smoothing, log_prior(params[:3])
    (rho, weights), total = rho_grid(2, n), []
    lam = d.valid_lambda(params[2], beta)
    root = np.linalg.cholesky(np.linalg.inv([[lam, params[2][0, 0]], [params[2][0, 0], lam]]))
    for z, log_p_z in zip(states, log_p):
        if variant == "dvaes_gi":
            zeta = list((z + stats.norm.ppf(rho) @ root.T).T[..., None])
        else:
            zeta = [smoothed(r, beta, z[i], rho[:, i : i + 1]) for i in range(2)]
        pixels = model.decode(params, zeta, model.by_moving_averages)
        log_p_x = np.sum(x * pixels - np.logaddexp(0, pixels), axis=1)
        total.append(log_p_z + logsumexp(log_p_x, b=weights))
    return logsumexp(total)


def smoothed_log_weights(m, model, variant, params, rng, n, log_Z=None):
    d = m.dvae_sharp
    exact_log_Z, moments = m.rbm.enumerate_rbm(params[:3])
    draw = d.Draw(model.draw_noise(rng, n), log_Z or exact_log_Z, moments)
    return sum(d.smoothed_terms(model, params, np.tile(X, (n, 1)), draw, variant, BETAS[variant],
                                model.by_moving_averages))  # fmt: skip


def bounds_are_bounds(m, variant, rng, n=20_000):
    """E[bound] ≤ log p(x) for one and five samples, and five are not worse: z > −5 on 5 models.

    For DVAE#, moreover E[w] = p(x) if p(ζ) is exact (dvaes_gi), and E[w] ≤ p(x) if it is bounded.
    """
    for seed in range(5):
        model, params = tiny(m, variant, seed=seed)
        if variant == "dvaes_gi":  # q has to be wider than p(ζ|x), or E[w²] is infinite
            params[-2:] = [np.full(1, 3.0)] * 2
        exact = log_likelihood(m, model, variant, params, X)
        log_w = smoothed_log_weights(m, model, variant, params, rng, n)
        one, five = log_w.reshape(-1, 5).mean(axis=1), logsumexp(log_w.reshape(-1, 5), axis=1)
        error = five.std() / math.sqrt(n / 5)
        if m.dvae_sharp.VARIANTS[variant].marginal:
            five = five - math.log(5)
            assert one.mean() <= five.mean() <= exact + 5 * error
            w = np.exp(log_w - exact)
            z = (w.mean() - 1) / (w.std() / math.sqrt(n))
            assert z < 5
            if variant == "dvaes_gi":
                assert z > -5
        assert one.mean() < exact + 5 * one.std() / math.sqrt(n / 5)


@pytest.mark.parametrize("variant", M.dvae_sharp.VARIANTS)
def test_bounds(rng, variant):
    bounds_are_bounds(M, variant, rng)


@pytest.mark.parametrize("variant", M.dvae_sharp.VARIANTS)
def test_importance_weighting(variant):
    """The reported bound, by hand; the gradient of log mean w is Σ softmax(log w) ∇ log w."""
    importance_weighting_is_by_hand(M, variant)


def importance_weighting_is_by_hand(m, variant, samples=3):
    d, rng = m.dvae_sharp, np.random.default_rng(0)
    model, params = tiny(m, variant, struct="1-layer-lin", width=2)  # no batch norm
    x = np.repeat(np.array([[1.0, 0, 1], [0, 0, 1]]), samples, axis=0)
    log_Z, moments = m.rbm.enumerate_rbm(params[:3])
    draw = d.Draw(model.draw_noise(rng, len(x)), log_Z, moments)
    options = {"variant": variant, "beta": BETAS[variant]}
    bound, grads, aux = d.estimate(model, params, [], x, draw, samples=samples, **options,
                                   weight_decay=0)  # fmt: skip
    log_w, each = [], []
    for i in range(len(x)):
        one = draw._replace(noise=[(u[i : i + 1], v[i : i + 1]) for u, v in draw.noise])
        value, g, _ = d.estimate(model, params, [], x[i : i + 1], one, **options, weight_decay=0)
        log_w.append(value[0])
        each.append(g)
    log_w = np.reshape(log_w, (2, samples))
    if d.VARIANTS[variant].marginal:
        expected, w = logsumexp(log_w, axis=1) - math.log(samples), np.exp(log_w)
        w = w / w.sum(axis=1, keepdims=True)
    else:
        expected, w = log_w.mean(axis=1), np.full((2, samples), 1 / samples)
    np.testing.assert_allclose(bound, expected, rtol=1e-10)
    for k, g in enumerate(grads):
        by_hand = sum(w_i * g_i[k] for w_i, g_i in zip(w.ravel() / 2, each))
        np.testing.assert_allclose(g, by_hand, rtol=1e-8, atol=1e-10)
    assert aux == []


def evaluation_is_unbiased(m, variant="dvaes_power", struct="2-layer-nonlin", n=200_000):
    """E[w] = p(x) of the discrete model, by a sum over all z; so E[log mean w] ≤ log p(x)."""
    model, params = tiny(m, variant, struct, width=2)
    rng, groups = np.random.default_rng(3), len(model.units)
    states, log_p = log_prior(params[:3])
    z = np.split(states, groups, axis=1)
    pixels = model.decode(params, z, model.by_moving_averages)
    exact = logsumexp(log_p + np.sum(X * pixels - np.logaddexp(0, pixels), axis=1))
    log_w = model.log_weights(params, np.repeat(X, 2, axis=0), n // 2, rng)
    assert log_w.shape == (n // 2, 2)
    w = np.exp(log_w - exact).ravel()
    bias = z_test(w[:, None], 1.0, struct)
    assert bias < 0.1
    few = logsumexp(log_w.reshape(-1, 10), axis=1) - math.log(10)
    assert few.mean() < exact


@pytest.mark.parametrize("struct", M.hierarchy.STRUCTURES)
@pytest.mark.parametrize("variant", ["dvaes_power", "dvaes_gi"])
def test_evaluation(variant, struct):
    evaluation_is_unbiased(M, variant, struct)


# ---------------------------------------------------------------------- batch norm, decay, warm-up


def test_batch_norm_in_training_and_evaluation():
    batch_norm_is_by_hand(M)


def batch_norm_is_by_hand(m):
    """The first layer's statistics move by a fifth; with them in place evaluation is training."""
    d, rng = m.dvae_sharp, np.random.default_rng(0)
    model, params = tiny(m, "dvaes_exp", "1-layer-nonlin", width=4)
    x = rng.integers(0, 2, (6, 3)).astype(float)
    log_Z, moments = m.rbm.enumerate_rbm(params[:3])
    draw = d.Draw(model.draw_noise(rng, 6), log_Z, moments)
    aux = [t.copy() for t in model.statistics]
    bound, _, new = d.estimate(model, params, aux, x, draw, variant="dvaes_exp", beta=6.0)
    assert len(new) == len(aux) == 8
    h = (x - model.mean) @ dict(zip(model.names, params))["q0.W0.0"]
    np.testing.assert_allclose(new[0].value, 0.8 * aux[0] + 0.2 * h.mean(axis=0))
    np.testing.assert_allclose(new[1].value, 0.8 * aux[1] + 0.2 * h.var(axis=0))
    model.statistics = [(t.value - 0.8 * a) / 0.2 for t, a in zip(new, aux)]
    recon, minus_kl = d.smoothed_terms(model, params, x, draw, "dvaes_exp", 6.0,
                                       model.by_moving_averages)  # fmt: skip
    np.testing.assert_allclose(recon + minus_kl, bound, rtol=1e-10)
    p = dict(zip(model.names, params))
    t = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 0.01)
    t = np.tanh(t * p["q0.gamma0"] + p["q0.shift0"])
    by_hand = model.network(params, "q0", [x - model.mean], lambda k, h: m.hierarchy.standardize(h))
    second = t @ p["q0.W1"]
    s = (second - second.mean(axis=0)) / np.sqrt(second.var(axis=0) + 0.01)
    s = np.tanh(s * p["q0.gamma1"] + p["q0.shift1"])
    np.testing.assert_allclose(by_hand, s @ p["q0.W2"] + p["q0.b"], rtol=1e-10)


def standardize_is_differentiated(m):
    """Its derivative by hand against autograd's of the same formula: 1e-12."""
    rng = np.random.default_rng(0)
    h, g = rng.standard_normal((2, 6, 3))

    def by_autograd(h):
        mean = anp.mean(h, axis=0)
        return anp.sum(g * (h - mean) / anp.sqrt(anp.mean((h - mean) ** 2, axis=0) + 0.01))

    ours = autograd.grad(lambda h: anp.sum(g * m.hierarchy.standardize(h)))(h)
    np.testing.assert_allclose(ours, autograd.grad(by_autograd)(h), atol=1e-12)


def test_standardize():
    standardize_is_differentiated(M)


def decay_and_warm_up_are_in_the_gradient_only(m):
    d, rng = m.dvae_sharp, np.random.default_rng(0)
    model, params = tiny(m, "dvaes_gi", width=4)
    x = rng.integers(0, 2, (6, 3)).astype(float)
    log_Z, moments = m.rbm.enumerate_rbm(params[:3])
    draw = d.Draw(model.draw_noise(rng, 6), log_Z, moments)
    run = lambda draw, decay: d.estimate(
        model, params, model.statistics, x, draw, variant="dvaes_gi", beta=8.0, weight_decay=decay
    )
    (bound, plain, _), (same, decayed, _) = run(draw, 0.0), run(draw, 0.25)
    np.testing.assert_array_equal(bound, same)
    for name, p, g, h in zip(model.names, params, plain, decayed):
        expected = g - 0.25 * p if ".W" in name else g
        np.testing.assert_allclose(h, expected, err_msg=name)
    also, cold, _ = run(draw._replace(warm_up=0.0), 0.0)
    np.testing.assert_array_equal(bound, also)
    for name, g_cold, g in zip(model.names, cold, plain):
        if name.startswith("prior"):
            assert np.all(g_cold == 0)
        if name.startswith("p."):  # the likelihood is whole at c = 0
            np.testing.assert_allclose(g_cold, g, atol=1e-12, err_msg=name)
    half = run(draw._replace(warm_up=0.5), 0.0)[1]
    for g0, g_half, g1 in zip(cold, half, plain):
        np.testing.assert_allclose(g_half, (g0 + g1) / 2, atol=1e-12)


def test_decay_and_warm_up():
    decay_and_warm_up_are_in_the_gradient_only(M)


def test_schedule_and_betas():
    d = M.dvae_sharp
    shares = [0, 0.019, 0.02, 0.59, 0.6, 0.74, 0.75, 0.94, 0.95, 1]
    factors = [0.1, 0.1, 1, 1, 1 / 3, 1 / 3, 0.1, 0.1, 1 / 33, 1 / 33]
    assert [d.schedule(share) for share in shares] == factors
    assert d.default_beta("mnist", "2-layer-nonlin", "dvaes_power") == 30
    assert d.default_beta("digits", "1-layer-nonlin", "dvaepp_exp") == 14
    assert d.default_beta("omniglot", "4-layer-nonlin", "dvaes_power") == 20
    assert d.default_beta("omniglot", "1-layer-lin", "dvae_spike_exp") == 4


@pytest.mark.parametrize("struct", M.hierarchy.STRUCTURES)
@pytest.mark.parametrize("variant", M.dvae_sharp.VARIANTS)
def test_float32_is_kept_and_finite(monkeypatch, variant, struct):
    """In every traced value and gradient, also where the prior's couplings are large."""
    promoted = proofs.promotions(M, monkeypatch)
    d, rng = M.dvae_sharp, np.random.default_rng(0)
    model = M.hierarchy.DVAE(np.full(8, 0.3), struct, 8, variant)
    model.prior = exact_prior(M)
    x = (rng.random((6, 8)) < 0.3).astype(np.float32)
    for size in (0.0, 20.0):
        params = [p + np.float32(size) * rng.standard_normal(p.shape).astype(np.float32)
                  for p in model.init(rng)]  # fmt: skip
        chains = M.rbm.fair_bits(rng, 10, params)
        number = lambda x: np.array(x, np.float32)
        draw = d.Draw(
            model.draw_noise(rng, 6), number(3), M.rbm.sample_moments(*chains), number(0.5)
        )
        beta = d.default_beta("mnist", struct, variant)
        bound, grads, new = d.estimate(model, params, model.init_statistics(), x, draw,
                                       variant=variant, beta=beta, samples=2)  # fmt: skip
        new = [g.value for g in new]
        assert promoted == []
        assert {a.dtype for a in (bound, *grads, *new)} == {np.dtype(np.float32)}
        assert [g.shape for g in grads] == [p.shape for p in params]
        assert all(np.all(np.isfinite(a)) for a in (bound, *grads, *new))
        w = model.log_weights(params, x, 3, rng)
        assert w.dtype == np.float32


# --------------------------------------------------------------------------------------- whole runs

SMALL = ["--width", "4", "--chains", "20", "--sweeps", "2", "--ais-chains", "20",
         "--ais-temperatures", "5", "--eval-samples", "3", "--test-samples", "4",
         "--batch-size", "50"]  # fmt: skip


def run(folder, *flags):
    """The log of a small run."""
    M.dvae_sharp.main([*SMALL, "--out", str(folder), *flags])
    with open(folder / "log.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("struct", M.hierarchy.STRUCTURES)
def test_all_variants_run(tmp_path, struct):
    for k, variant in enumerate(M.dvae_sharp.VARIANTS):
        flags = ["--variant", variant, "--struct", struct, "--steps", "3", "--no-plots"]
        flags += ["--sampler", ("pa", "pcd")[k % 2], "--samples", str(1 + k % 3)]
        (row,) = run(tmp_path / variant, *flags)
        assert math.isfinite(float(row["train_bound"]))
        summary = json.loads((tmp_path / variant / "summary.json").read_text())
        assert summary["test_samples"] == 4
        assert summary["test_log_likelihood"] < 0
        config = json.loads((tmp_path / variant / "config.json").read_text())
        assert config["flags"]["beta"] == M.dvae_sharp.default_beta("digits", struct, variant)


@pytest.mark.parametrize("sampler", ["pa", "pcd"])
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, sampler):
    """Chains, moving averages, log Z and all; stopped at step 5, between two rows of the log."""
    flags = ["--steps", "9", "--log-every", "3", "--eval-every", "3", "--no-plots"]
    flags += ["--sampler", sampler]
    run(tmp_path / "whole", *flags)
    step = M.dvae_sharp.Run.step

    def interrupted(self, *limit):
        step(self, *limit)
        if self.step_count == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(M.dvae_sharp.Run, "step", interrupted)
    with pytest.raises(M.stopping.Stopped):
        run(tmp_path / "half", *flags)
    monkeypatch.undo()
    M.dvae_sharp.main(["--resume", str(tmp_path / "half")])
    with (
        np.load(tmp_path / "whole" / "checkpoint.npz") as whole,
        np.load(tmp_path / "half" / "checkpoint.npz") as half,
    ):
        assert {"chains_1", "chains_2", "log_Z"} <= set(whole.files)
        for key in {*whole.files, *half.files} - {"seconds"}:
            np.testing.assert_array_equal(whole[key], half[key], err_msg=key)


def running_log_Z_is_current(m, sampler="pa"):
    """Through 100 steps of a Run, against enumeration: less than .15 nats off at every 20th.

    Few chains and a large step: the noise of the moments is a good part of every move, so that an
    estimate of its effect by the same chains, before they have moved, is off by one nat.
    """
    d, flags = m.dvae_sharp, {"samples": 1, "seed": 0, "steps": 100, "batch_size": 50}
    flags |= {"variant": "dvaepp_exp", "beta": 10.0, "sampler": sampler, "sweeps": 5, "chains": 100}
    flags |= {"lr": 3e-2, "ais_chains": 20, "ais_temperatures": 5}
    args, data = argparse.Namespace(**flags), m.data.load_dataset("digits")
    run = d.Run(args, data, m.hierarchy.DVAE(data.train_mean, width=10, variant="dvaepp_exp"))
    errors = []
    for _ in range(5):
        for _ in range(20):
            run.step()
        exact = m.rbm.enumerate_rbm([p.astype(float) for p in run.rbm])[0]
        errors.append(float(run.chains.log_Z) - exact)
    assert np.abs(errors).max() < 0.15, errors


@pytest.mark.parametrize("sampler", ["pa", "pcd"])
def test_running_log_Z_is_current(sampler):
    running_log_Z_is_current(M, sampler)


def test_pictures_and_running_log_Z(tmp_path):
    """A few more steps: figures are there, and every row starts with log Z as AIS has it."""
    rows = run(tmp_path / "run", "--steps", "40", "--log-every", "20", "--chains", "500")
    for name in ("curves.png", "samples.png"):
        assert (tmp_path / "run" / name).stat().st_size > 10_000
    assert all(abs(float(row["log_Z/drift"])) < 0.3 for row in rows)


@pytest.mark.parametrize(
    ("flags", "dynamic"),
    [((), False), (("--dataset", "mnist"), False), (("--dataset", "omniglot"), True),
     (("--dataset", "omniglot", "--static-binarization"), False),
     (("--dataset", "mnist", "--dynamic-binarization"), True)],
)  # fmt: skip
def test_omniglot_has_fresh_bits_by_default(monkeypatch, flags, dynamic):
    """As the released code has it; the flags ask for the other."""
    asked = []

    def load_dataset(name, dynamic):
        asked.append(dynamic)
        raise M.common.InputError("enough")

    monkeypatch.setattr(M.dvae_sharp, "load_dataset", load_dataset)
    with pytest.raises(M.common.InputError, match="enough"):
        M.dvae_sharp.main([*flags])
    assert asked == [dynamic]


@pytest.mark.parametrize(
    "flags",
    [["--variant", "vae"], ["--struct", "3-layer"], ["--width", "5"], ["--beta", "0"],
     ["--sampler", "gibbs"], ["--chains", "1"], ["--sweeps", "0"], ["--task", "predict"],
     ["--test-samples", "0"], ["--ais-chains", "1"], ["--beta", "5", "--variant", "dvaes_gi"],
     ["--static-binarization", "--dynamic-binarization"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_flags(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        M.dvae_sharp.main([*flags, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flags[0] in error
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------- mutations

everything = lambda variant: (
    lambda m: gradient_is_exact(m, variant, tolerance=TOLERANCE.get(variant, 1e-6))
)
four_groups = lambda variant: lambda m: four_groups_are_exact(m, variant)
MUTATIONS = {
    "released: dζ/ds as if the mean were not shifted": (
        shifted_gaussian_is_unbiased,
        ("g * widening(a, zeta - shift, s)", "g * widening(a, zeta, s)"),
    ),
    "released: λ stale, from before W grew": (
        gaussian_integral_is_exact,
        ("return beta + more * (stop_gradient(more) > 0)", "return beta + 0 * more"),
    ),
    "released: λ a constant for the gradient": (
        gradient_is_exact_where_lambda_follows_W,
        ("5 - beta\n", "5 - beta\n    more = stop_gradient(more) + 0 * np.sum(W)\n"),
    ),
    "the smallest singular value for the largest": (
        lambda_is_differentiated,
        ("np.transpose(fixed), fixed))[1][:, -1]", "np.transpose(fixed), fixed))[1][:, 0]"),
    ),
    "released: q clipped in one place only": (
        gaussian_integral_is_exact,
        (
            "mixture = softplus(a_i + gaussian_log_ratio(x, s_i**-2)) - softplus(a_i)",
            "mixture = softplus(a_i + gaussian_log_ratio(x, s_i**-2)) "
            "- softplus(np.minimum(a_i, 9.21))",
        ),
    ),
    "released: γ decays": (
        decay_and_warm_up_are_in_the_gradient_only,
        ("if np.ndim(p) == 2 else g", "if np.ndim(p) == 2 or len(p) == 4 else g"),
    ),
    "R0 and R1 exchanged": (
        velocity_is_that_of_the_inverse_cdf,
        ("return (R0 - (1 - not_R1)) / ((1", "return (1 - not_R1 - R0) / ((1"),
    ),
    "q and 1 − q exchanged": (
        exponential_velocity_is_the_closed_form,
        (
            "(1 + np.exp(-a)) * r0 + (1 + np.exp(a)) * r1)",
            "(1 + np.exp(a)) * r0 + (1 + np.exp(-a)) * r1)",
        ),
    ),
    "the derivative of one component alone": (
        relax_is_unbiased,
        ("/ ((1 + np.exp(-a)) * r0 +", "/ (0 * r0 +"),
    ),
    "power law without its Jacobian": (
        cdf_is_the_integral_of_pdf,
        ("return R, R * sigmoid(-y) / beta", "return R, R / beta"),
    ),
    "β for 1 / β in the power law": (
        draw_follows_cdf,
        ("log_zeta = beta * np.log(rho)", "log_zeta = np.log(rho) / beta"),
    ),
    "a log-ratio of half the size": (
        log_ratio_is_of_the_pdfs,
        ("lambda zeta, beta: beta * (2 * zeta - 1)", "lambda zeta, beta: beta * (zeta - 0.5)"),
    ),
    "Rolfe's factor (1 − z) / (1 − q) left out": (
        everything("dvae_spike_exp"),
        ("slope1 = (1 - z1) * stop_gradient(sigmoid(a1))", "slope1 = sigmoid(stop_gradient(a1)) * "
         "(1 - sigmoid(stop_gradient(a1)))"),
    ),
    "Rolfe's term of side 1 left out": (
        everything("dvae_spike_exp"),
        ("with_slope(z1, a1, slope1)", "z1"),
    ),
    "Rolfe's term of side 2 left out": (
        four_groups("dvae_spike_exp"),
        ("with_slope(z2, sigmoid(a2), 1)", "z2"),
    ),
    "DVAE++ with q(z1|x) for q(z1|ζ, x)": (
        everything("dvaepp_exp"),
        ("nu = sigmoid(a1 + ratio1) if len(a) > 1", "nu = sigmoid(a1) if len(a) > 1"),
    ),
    "mean-field differentiated": (
        everything("dvaes_gauss"),
        ("mean_field(stop_gradient(rbm), *stop_gradient(ratios))", "mean_field(rbm, *ratios, 1)"),
    ),
    "mean-field without what ζ says": (
        mean_field_is_a_tight_bound,
        ("np.transpose(W)) + ratio1", "np.transpose(W))"),
    ),
    "entropy of the mean-field left out": (
        mean_field_is_a_tight_bound,
        ("m_k * ratio + bernoulli_entropy(l) - softplus", "m_k * ratio - softplus"),
    ),
    "plain form: log q without its mixture": (
        marginal_is_the_plain_form,
        ("np.logaddexp(log_r0 - softplus(a), log_r1 - softplus(-a))", "log_r1 - softplus(-a)"),
    ),
    "plain form: r of the other bit": (
        marginal_is_the_plain_form,
        ("m * log_r1 + (1 - m) * log_r0", "m * log_r0 + (1 - m) * log_r1"),
    ),
    "log det of the Gaussian integral left out": (
        gaussian_integral_is_exact,
        ("+ np.linalg.slogdet(overlap)[1]) / 2", ") / 2"),
    ),
    "gradient of log Z left out": (
        everything("dvaes_exp"),
        ("log_Z = log_Z + np.sum((p - stop_gradient(p)) * moment)", "pass"),
    ),
    "the mean of log w for DVAE#": (
        lambda m: importance_weighting_is_by_hand(m, "dvaes_exp"),
        ("return log_mean_exp(log_w, 1) if VARIANTS[variant].marginal else np", "return np"),
    ),
    "weights of other images": (
        lambda m: importance_weighting_is_by_hand(m, "dvaes_exp"),
        ("np.reshape(log_w, (-1, samples))", "np.transpose(np.reshape(log_w, (samples, -1)))"),
    ),
    "evaluation without log q of all groups but one": (
        evaluation_is_unbiased,
        ("log_q = log_q + bernoulli_log_prob(z, a)", "log_q = bernoulli_log_prob(z, a)"),
    ),
    "evaluation with the RBM's sides exchanged": (
        evaluation_is_unbiased,
        ("self.prior.energy(rbm, z)", "self.prior.energy(rbm, z[::-1])"),
    ),
    "population annealing that weights before it sweeps": (
        running_log_Z_is_current,
        (
            "        gibbs(here, z1, z2, rng, sweeps)\n        # E is",
            "        sweep = lambda: gibbs(here, z1, z2, rng, sweeps)\n        # E is",
        ),
        ("= z1[rows], z2[rows]\n", "= z1[rows], z2[rows]\n        sweep()\n"),
    ),
    "PCD that weights before it sweeps": (
        lambda m: running_log_Z_is_current(m, "pcd"),
        (
            "    gibbs(new, z1, z2, rng, sweeps)\n"
            "    return -float(log_mean_exp(-energy_drop(old, new, z1, z2), 0))",
            "    change = float(log_mean_exp(energy_drop(old, new, z1, z2), 0))\n"
            "    gibbs(new, z1, z2, rng, sweeps)\n    return change",
        ),
    ),
    "log Z of the training bound stale": (
        running_log_Z_is_current,
        ("self.log_Z += self.sampler", "_ = self.sampler"),
    ),
    "batch norm differentiated as if the statistics were fixed": (
        standardize_is_differentiated,
        ("scale * (g - mean(g) - ans * mean(g * ans))", "scale * g"),
    ),
    "batch statistics kept the wrong way round": (
        batch_norm_is_by_hand,
        ("KEEP * old + (1 - KEEP) * m", "(1 - KEEP) * old + KEEP * m"),
    ),
    "warm-up of the likelihood too": (
        decay_and_warm_up_are_in_the_gradient_only,
        ("average(recon + draw.warm_up * minus_kl)", "draw.warm_up * average(recon + minus_kl)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, *changes = MUTATIONS[name]
    mutated = proofs.load([(("dvae_sharp", "hierarchy", "rbm"), *change) for change in changes])
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        proof(mutated)
