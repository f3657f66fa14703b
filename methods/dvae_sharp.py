"""DVAE, DVAE++, DVAE#: a VAE whose prior over binary z is a Boltzmann machine.

Rolfe 2017 (arXiv 1609.02200), Vahdat et al. 2018 (1802.04920), Vahdat et al. 2018 (1805.07445).

Every bit z gets a continuous partner ζ ~ r(ζ|z), near z, and the decoder sees ζ. Without z its
distribution is a mixture of two that overlap, with q = σ(a) and the cdf F = (1 − q) R0 + q R1:

    ∇ E[f(ζ)] = E[ f'(ζ) dζ/da ∇a ],     dζ/da = (R0 − R1) / (r0 / q + r1 / (1 − q)).

That is unbiased for the smoothed model, whose bound is recon + c·(−KL), c rising from 0 to 1:
    DVAE    r(ζ|0) is a spike at 0:  KL(q(z|x) || p(z)), Rolfe's gradient of the pair term
    DVAE++  other r:                 the same KL, from q(z|ζ, x), which is known
    DVAE#   p(ζ) = Σ_z p(z) r(ζ|z):  log p(ζ) − log q(ζ|x), so that importance weighting works;
            p(ζ) from mean-field (a bound), or exactly by the Gaussian integral trick

log Z and its gradient are those of chains that follow the RBM: population annealing, or PCD.
Evaluation is of the discrete model: z binary, log Z by annealed importance sampling (AIS).
Cost per step: one pass through the networks, and the chains' `--sweeps` Gibbs sweeps.

Other than the released code: λ of the Gaussian trick, log Z and the derivative for σ are right at
every step; the power law has no offsets (it is kept as logit ζ); batch norm's γ does not decay.

    python methods/dvae_sharp.py        --rbm-demo bars: the samplers against enumeration
"""

import itertools
import math
from functools import partial
from typing import NamedTuple

import training
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    bernoulli_log_prob,
    draw_bits,
    draw_noise,
    gradients,
    hard_sample,
    init_mlp,
    load_dataset,
    log_mean_exp,
    logit,
    outer,
    sigmoid,
    softplus,
    stop_gradient,
    tanh,
    times,
)

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.scipy.special import logsumexp
from scipy.special import ndtr, ndtri
from tqdm import tqdm

# ------------------------------------------------------------- 1. the RBM, a list b1, b2, W: energy


def energy(rbm, z1, z2):
    """E(z) = −b1'z1 − b2'z2 − z1'W z2, in nats, for z1 (..., n1) and z2 (..., n2): (...)."""
    b1, b2, W = rbm
    return -np.sum(b1 * z1, axis=-1) - np.sum((b2 + times(z1, W)) * z2, axis=-1)


def enumerate_rbm(rbm):
    """Exact (log Z, moments) by a sum over all states of the smaller side; see sample_moments.

    Raises InputError (a ValueError) if that side has more than 20 units.
    """
    b1, b2, W = rbm
    if len(b1) > len(b2):
        log_Z, (m2, m1, m21) = enumerate_rbm([b2, b1, W.T])
        return log_Z, [m1, m2, m21.T]
    n = len(b1)
    if n > 20:
        raise InputError(f"enumeration is for at most 20 units on a side, not {n}")
    log_Z, moments = -np.inf, [np.zeros_like(p) for p in rbm]
    for states in np.array_split(np.arange(2**n), max(1, 2**n // 4096)):
        z1 = ((states[:, None] >> np.arange(n)) & 1).astype(W.dtype)
        a2 = b2 + z1 @ W
        log_p = z1 @ b1 + np.sum(softplus(a2), axis=1)  # of z1, without −log Z
        new = np.logaddexp(log_Z, logsumexp(log_p, 0))
        p, z2 = np.exp(log_p - new)[:, None], sigmoid(a2)  # z2 is E[z2 | z1]
        sums = np.sum(p * z1, axis=0), np.sum(p * z2, axis=0), (p * z1).T @ z2
        moments = [np.exp(log_Z - new) * m + s for m, s in zip(moments, sums)]
        log_Z = new
    return log_Z, moments


# ------------------------------------------------------------------------ sampling from the RBM


def fair_bits(rng, chains, rbm):
    """(z1, z2) of shapes (chains, n1), (chains, n2), in the type of the RBM: its state at W = 0."""
    return [(rng.random((chains, len(b))) < 0.5).astype(b.dtype) for b in rbm[:2]]


def gibbs(rbm, z1, z2, rng, sweeps):
    """`sweeps` times z2 | z1, then z1 | z2, for all chains (rows) at once and in place."""
    b1, b2, W = rbm
    buffers = [(np.empty_like(z), np.empty_like(z)) for z in (z1, z2)]
    with np.errstate(over="ignore", invalid="ignore"):  # exp(a) = inf is a probability of 1
        for _ in range(sweeps):
            _flip(z1, W, b2, rng, *buffers[1], z2)
            _flip(z2, W.T, b1, rng, *buffers[0], z1)


def _flip(given, W, b, rng, a, u, z):
    """z = 1[u > σ(−a)], a = given W + b, written as u (1 + exp(a)) > 1: no pass but in place."""
    np.matmul(given, W, out=a)
    a += b
    np.exp(a, out=a)
    a += 1
    a *= rng.random(out=u, dtype=u.dtype)
    np.greater(a, 1, out=z)


def sample_moments(z1, z2, w=None):
    """[E z1, E z2, E z1 z2'] over chains, equally or by weights w (Σ w = 1): d log Z / d rbm."""
    w = np.full(len(z1), 1 / len(z1), z1.dtype) if w is None else w
    return [w @ z1, w @ z2, outer(w[:, None] * z1, z2)]


def pcd(old, new, z1, z2, rng, sweeps):
    """Persistent contrastive divergence: the chains of RBM `old` make `sweeps` sweeps in `new`.

    Returns the change of log Z, −log mean exp(E_new − E_old) over the chains where they arrive:
    sound as long as the sweeps keep up with the RBM. In place.
    """
    gibbs(new, z1, z2, rng, sweeps)
    return -float(log_mean_exp(-_log_weights(old, new, z1, z2), 0))


def population_annealing(old, new, z1, z2, rng, sweeps, min_ess=0.5):
    """The chains of RBM `old` make `sweeps` sweeps in it, are weighted by exp(E_old − E_new), and
    resampled to be those of `new` (Hukushima & Iba 2003). Returns the change of log Z. In place.

    If the effective sample size is below min_ess of the chains, the way is halved until it is not,
    and the rest follows in the same manner. The sweeps come first: `new` is made from the moments
    of these very chains, and their noise would be in E_old − E_new if they had not moved since.
    """
    start, log_ratio = 0.0, 0.0  # start: where on the way from old to new
    while start < 1:
        here = [p + (p_new - p) * p.dtype.type(start) for p, p_new in zip(old, new)]
        gibbs(here, z1, z2, rng, sweeps)
        # E is linear in the parameters: a part of the way has that part of the log-weights
        log_w, part = (1 - start) * _log_weights(old, new, z1, z2), 1.0
        while effective_sample_size(part * log_w) < min_ess * len(z1):
            part /= 2
        start = 1.0 if part == 1 else start + part * (1 - start)
        log_ratio += float(log_mean_exp(part * log_w, 0))
        rows = resample(part * log_w, rng.random())
        z1[...], z2[...] = z1[rows], z2[rows]
    return log_ratio


def _log_weights(old, new, z1, z2):
    """E_old − E_new of every chain, in double precision."""
    return -energy([p_new - p for p, p_new in zip(old, new)], z1, z2).astype(float)


def effective_sample_size(log_w):
    """(Σ w)² / Σ w², between 1 and the number of weights."""
    w = np.exp(log_w - log_w.max())
    return w.sum() ** 2 / (w @ w)


def resample(log_w, u):
    """Systematic resampling: row i comes up ⌊n w_i⌋ or ⌈n w_i⌉ times, Σ w = 1; u is uniform."""
    n, ends = len(log_w), np.cumsum(np.exp(log_w - log_w.max()))
    rows = np.searchsorted(ends, (np.arange(n) + u) / n * ends[-1], side="right")
    return np.minimum(rows, n - 1)  # should u round up to 1


SAMPLERS = {"pa": population_annealing, "pcd": pcd}


def ais(rbm, rng, chains=1024, temperatures=1000):
    """(log Z, its standard error, moments) by annealed importance sampling; Z itself is unbiased.

    The chains start as fair bits, log Z = (n1 + n2) log 2, and pass through the RBMs k/K · (b1, b2,
    W), k = 1 … K, with one Gibbs sweep in each (Neal 2001, arXiv physics/9803008).
    """
    z1, z2 = fair_bits(rng, chains, rbm)
    log_w = np.zeros(chains)
    for k in range(1, temperatures + 1):
        log_w -= energy(rbm, z1, z2) / temperatures
        if k < temperatures:
            gibbs([p * p.dtype.type(k / temperatures) for p in rbm], z1, z2, rng, 1)
    log_Z = sum(map(len, rbm[:2])) * math.log(2) + log_mean_exp(log_w, 0)
    w = np.exp(log_w - logsumexp(log_w))
    error = w.std(ddof=1) * math.sqrt(chains)  # of Z, over Z
    return float(log_Z), float(error), sample_moments(z1, z2, w.astype(z1.dtype))


# ------------------------------------------------------------ 2. smoothing: ζ ~ r(ζ|z) near the bit


class Smoothing(NamedTuple):
    """r(ζ|0) as functions of y, and of β; r(ζ|1) is its mirror image, and ζ = zeta(y).

    y is ζ itself or, for the power law, logit ζ: there ζ and 1 − ζ reach 1e-100, which float32
    knows near 0 but not near 1. `draw` maps a uniform to y ~ r(·|0); `distribution` is the cdf R0
    and the density r0 of y; `mirror` maps the y of ζ to that of 1 − ζ; `log_ratio`, to be
    differentiated, is log r(ζ|1) − log r(ζ|0). A `spike` at 0 may take the place of r(ζ|0).
    """

    draw: callable
    distribution: callable
    log_ratio: callable
    mirror: callable = lambda y: 1 - y
    zeta: callable = lambda y: y
    spike: bool = False


# r(ζ|0) = β exp(−β ζ) / (1 − exp(−β)) on [0, 1].
def exponential_draw(rho, beta):
    return -np.log1p(math.expm1(-beta) * rho) / beta


def exponential(zeta, beta):
    decay, total = np.exp(-beta * zeta), -math.expm1(-beta)
    return (1 - decay) / total, beta / total * decay


def exponential_log_ratio(zeta, beta):
    return beta * (2 * zeta - 1)


# The same but for a share of ε that is uniform, and bounds the ratio.
EPSILON = 0.05


def uniform_exponential_draw(rho, beta):
    rest = np.maximum(rho - EPSILON, 0) / (1 - EPSILON)
    return np.where(rho < EPSILON, rho / EPSILON, exponential_draw(rest, beta))


def uniform_exponential(zeta, beta):
    R, r = exponential(zeta, beta)
    return EPSILON * zeta + (1 - EPSILON) * R, EPSILON + (1 - EPSILON) * r


def uniform_exponential_log_ratio(zeta, beta):
    (_, one), (_, zero) = uniform_exponential(1 - zeta, beta), uniform_exponential(zeta, beta)
    return np.log(one) - np.log(zero)


# The power law ζ = ρ^β, r(ζ|0) = ζ^(1/β − 1) / β, of y = logit ζ: log ζ is −softplus(−y).
def power_draw(rho, beta):
    log_zeta = beta * np.log(rho)
    return log_zeta - np.log(-np.expm1(log_zeta))


def power(y, beta):
    R = np.exp(-softplus(-y) / beta)
    return R, R * sigmoid(-y) / beta


def power_log_ratio(y, beta):
    return (1 - 1 / beta) * y


# The normal distribution of mean 0, by the mirror 1, and variance 1/β; ζ may be any number.
def gaussian_draw(rho, beta):
    return ndtri(rho) / beta**0.5


def gaussian(zeta, beta):
    return ndtr(zeta * beta**0.5), (beta / (2 * math.pi)) ** 0.5 * np.exp(-beta * zeta**2 / 2)


def gaussian_log_ratio(zeta, beta):
    return beta * (zeta - 0.5)


EXPONENTIAL = Smoothing(exponential_draw, exponential, exponential_log_ratio)
SPIKE_EXPONENTIAL = EXPONENTIAL._replace(spike=True, log_ratio=None)
UNIFORM_EXPONENTIAL = Smoothing(uniform_exponential_draw, uniform_exponential,
                                uniform_exponential_log_ratio)  # fmt: skip
POWER = Smoothing(power_draw, power, power_log_ratio, lambda y: -y, sigmoid)
GAUSSIAN = Smoothing(gaussian_draw, gaussian, gaussian_log_ratio)


@primitive
def relax(a, u, rho, smoothing, beta):
    """y of ζ ~ r(ζ|z), z ~ Bernoulli(σ(a)), from uniforms u and ρ; differentiable in the logits a.

    The derivative is the implicit one: that of y with F(y) fixed, F being the cdf of y with z
    summed out.
    """
    z, y0 = hard_sample(a, u), smoothing.draw(rho, beta)
    return np.where(z > 0, smoothing.mirror(y0), 0 if smoothing.spike else y0)


def velocity(a, y, smoothing, beta):
    """dy/da = (R0 − R1) / (r0 / q + r1 / (1 − q)), q = σ(a): how y moves if F(y) is to stay."""
    not_R1, r1 = smoothing.distribution(smoothing.mirror(y), beta)  # 1 − R1
    with np.errstate(over="ignore"):  # then the velocity is 0, and right
        if smoothing.spike:  # nothing moves within the spike, and above it r0 = 0, R0 = 1
            return np.where(y > 0, not_R1 / ((1 + np.exp(a)) * r1), 0)
        R0, r0 = smoothing.distribution(y, beta)
        return (R0 - (1 - not_R1)) / ((1 + np.exp(-a)) * r0 + (1 + np.exp(a)) * r1)


defvjp(
    relax,
    lambda y, a, u, rho, smoothing, beta: lambda g: g * velocity(a, y, smoothing, beta),
    argnums=(0,),
)


@primitive
def relax_shifted(a, shift, s, u, rho):
    """ζ ~ N(z + shift, s²), z ~ Bernoulli(σ(a)); differentiable, implicitly, in a, shift and s."""
    return hard_sample(a, u) + shift + s * ndtri(rho)


def widening(a, x, s):
    """dζ/ds at x = ζ − shift: Σ_k p(z = k|ζ) (x − k) / s."""
    return (x - sigmoid(a + gaussian_log_ratio(x, s**-2))) / s


defvjp(
    relax_shifted,
    lambda zeta, a, shift, s, u, rho: lambda g: g * velocity(a, zeta - shift, GAUSSIAN, s**-2),
    lambda zeta, a, shift, s, u, rho: lambda g: g,
    lambda zeta, a, shift, s, u, rho: unbroadcast_f(s, lambda g: g * widening(a, zeta - shift, s)),
    argnums=(0, 1, 2),
)

# ------------------------------------------- 3. −KL(q(ζ or z|x) || prior), as each variant has it


def sides(groups):
    """(side 1, side 2) of the RBM: the first and the second half of all units, (..., n) each."""
    if len(groups) == 1:
        n = groups[0].shape[-1] // 2
        return groups[0][..., :n], groups[0][..., n:]
    halves = groups[: len(groups) // 2], groups[len(groups) // 2 :]
    return [h[0] if len(h) == 1 else np.concatenate(h, axis=-1) for h in halves]


def bernoulli_entropy(a):
    """Elementwise, in nats, of logits a."""
    return softplus(a) - a * sigmoid(a)


def minus_kl_of_bits(rbm, log_Z, a, pair):
    """Σ H(q_i) + q'b + pair − log Z, which is −KL(q(z|x) || p(z)) if pair is E z1'W z2: (rows,)."""
    (a1, a2), (b1, b2, _) = sides(a), rbm
    terms = [np.sum(bernoulli_entropy(ak) + sigmoid(ak) * bk, axis=-1)
             for ak, bk in ((a1, b1), (a2, b2))]  # fmt: skip
    return terms[0] + terms[1] + pair - log_Z


def dvae(rbm, log_Z, a, zeta):
    """DVAE's −KL of bits; the gradient of the pair term is Rolfe's (appendix of 1609.02200).

    z = 1[ζ > 0], but for the last group its mean. When q_i grows, bit i of side 1 turns from 0 to 1
    at ζ_i = 0, where the later groups do not notice; so dq_i meets their value given z_i = 0,
    which (1 − z_i) / (1 − q_i) selects. The rest of the change is in the later q_j, through ζ.
    """
    if len(a) == 1:
        return dvae_plus_plus(rbm, log_Z, a, zeta)
    z = [(zeta_i > 0).astype(zeta_i.dtype) for zeta_i in stop_gradient(zeta)]
    (z1, z2), (a1, a2) = sides([*z[:-1], sigmoid(stop_gradient(a[-1]))]), sides(a)
    slope1 = (1 - z1) * stop_gradient(sigmoid(a1))  # (1 − z) / (1 − q) · dq/da, finite for q = 1
    z1 = z1 + slope1 * (a1 - stop_gradient(a1))
    z2 = z2 + sigmoid(a2) - stop_gradient(sigmoid(a2))
    return minus_kl_of_bits(rbm, log_Z, a, np.sum(times(z1, rbm[2]) * z2, axis=-1))


def dvae_plus_plus(rbm, log_Z, a, log_ratio):
    """DVAE++'s −KL of bits: in the pair term side 1 is ν = q(z1|ζ, x) and side 2 is q(z2|ζ, x).

    `log_ratio` is log r(ζ|1) − log r(ζ|0) per group; with one group z is independent given x, and
    ν is q.
    """
    (a1, a2), (ratio1, _) = sides(a), sides(log_ratio)
    nu = sigmoid(a1 + ratio1) if len(a) > 1 else sigmoid(a1)
    return minus_kl_of_bits(rbm, log_Z, a, np.sum(times(nu, rbm[2]) * sigmoid(a2), axis=-1))


def mean_field(rbm, ratio1, ratio2, sweeps=5):
    """Logits of the factorial distribution near p(z|ζ) ∝ exp(−E(z) + ratio'z), both sides."""
    b1, b2, W = rbm
    l1 = np.zeros_like(ratio1)
    for _ in range(sweeps):
        l2 = b2 + times(sigmoid(l1), W) + ratio2
        l1 = b1 + times(sigmoid(l2), np.transpose(W)) + ratio1
    return l1, l2


def dvae_sharp(rbm, log_Z, a, log_ratio):
    """DVAE#: log p(ζ) − log q(ζ|x), with p(ζ) = Σ_z p(z) Π r(ζ_i|z_i) bounded by mean-field.

    log p(ζ) ≥ −E(m) + ratio'm + H(m) − log Z + Σ log r(ζ_i|0), close where ζ is close to bits. At
    the best m the derivative for m is 0, so m is a constant (envelope theorem). The last sum is
    in log q(ζ|x) = Σ softplus(a + ratio) − softplus(a) + log r(ζ_i|0) too, and cancels.
    """
    ratios = sides(log_ratio)
    logits = mean_field(stop_gradient(rbm), *stop_gradient(ratios))
    m = [sigmoid(l) for l in logits]
    terms = [m_k * ratio + bernoulli_entropy(l) - softplus(a_k + ratio) + softplus(a_k)
             for m_k, ratio, l, a_k in zip(m, ratios, logits, sides(a))]  # fmt: skip
    return np.sum(terms[0], axis=-1) + np.sum(terms[1], axis=-1) - energy(rbm, *m) - log_Z


def valid_lambda(W, beta):
    """λ of the Gaussian integral trick: β, or more if M = λ + [0 W; W' 0] needs it, at this W.

    The eigenvalues of M are λ ± the singular values of W; the smallest one is kept at 5 or more.
    """
    return max(beta, float(np.linalg.norm(W, 2)) + 5)


def gaussian_integral(rbm, log_Z, zeta, q, lam):
    """DVAE# (gi): log p(ζ) − log q(ζ|x) with ζ|z ~ N(z, M⁻¹) in p and N(z + shift, s²) in q.

    M = λ + [0 W; W' 0] is chosen such that the pairs z1'W z2 cancel in p(z) p(ζ|z):
    log p(ζ) = ½ log det(M / 2π) − ½ ζ'Mζ + Σ softplus(Mζ + b − λ/2) − log Z, exactly.
    `q` holds logits, shifts and scales s of every group.
    """
    b1, b2, W = rbm
    zeta1, zeta2 = sides(zeta)
    n = len(b1) + len(b2)
    pairs1, pairs2 = times(zeta2, np.transpose(W)), times(zeta1, W)
    log_p = sum(np.sum(softplus(lam * (z - 0.5) + pairs + b) - z * (lam * z + pairs) / 2, axis=-1)
                for z, pairs, b in ((zeta1, pairs1, b1), (zeta2, pairs2, b2)))  # fmt: skip
    overlap = np.eye(len(b1), dtype=W.dtype) - np.dot(W, np.transpose(W)) / lam**2
    log_p = log_p + (n * math.log(lam) + np.linalg.slogdet(overlap)[1]) / 2 - log_Z
    log_q = 0
    for zeta_i, (a_i, shift_i, s_i) in zip(zeta, q):
        x = zeta_i - shift_i
        mixture = softplus(a_i + gaussian_log_ratio(x, s_i**-2)) - softplus(a_i)
        log_q = log_q + np.sum(mixture - (x / s_i) ** 2 / 2 - np.log(s_i), axis=-1)
    return log_p - log_q  # both without −n/2 log 2π


class Variant(NamedTuple):
    """A smoothing and the −KL that goes with it; `marginal` if it is one of p(ζ), as in DVAE#."""

    smoothing: Smoothing
    minus_kl: callable
    marginal: bool


VARIANTS = {
    "dvaes_power": Variant(POWER, dvae_sharp, marginal=True),
    "dvae_spike_exp": Variant(SPIKE_EXPONENTIAL, dvae, marginal=False),
    "dvaepp_exp": Variant(EXPONENTIAL, dvae_plus_plus, marginal=False),
    "dvaepp_power": Variant(POWER, dvae_plus_plus, marginal=False),
    "dvaes_gi": Variant(GAUSSIAN, gaussian_integral, marginal=True),
    "dvaes_gauss": Variant(GAUSSIAN, dvae_sharp, marginal=True),
    "dvaes_exp": Variant(EXPONENTIAL, dvae_sharp, marginal=True),
    "dvaes_unexp": Variant(UNIFORM_EXPONENTIAL, dvae_sharp, marginal=True),
}

# --------------------------------------------------------------------------------- 4. the networks

# Groups of latent units, and tanh layers in q of every group and in p(x|ζ).
STRUCTURES = {
    "2-layer-nonlin": (2, 2),
    "1-layer-lin": (1, 0),
    "1-layer-nonlin": (1, 2),
    "4-layer-nonlin": (4, 2),
}
BATCH_NORM_EPSILON, KEEP = 1e-2, 0.8  # KEEP: of the moving averages, at every step


def mean_and_variance(h):
    """Mean and variance of every unit over the rows; float32 stays."""
    mean = np.sum(h, axis=0) / len(h)
    return mean, np.sum((h - mean) ** 2, axis=0) / len(h)


@primitive
def standardize(h):
    """Batch norm in training: (h − mean) / √(variance + ε), of the rows of h (rows, units)."""
    mean, variance = mean_and_variance(h)
    return (h - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)


def standardize_vjp(ans, h):
    scale = 1 / np.sqrt(mean_and_variance(h)[1] + BATCH_NORM_EPSILON)
    mean = lambda x: np.sum(x, axis=0) / len(x)
    return lambda g: scale * (g - mean(g) - ans * mean(g * ans))


defvjp(standardize, standardize_vjp)


class DVAE:
    """q(ζ|x) in autoregressive groups, an RBM p(z) of two equal sides, p(x|ζ): the networks.

    `width` is that of a side of the RBM (with one group, of both together) and of the tanh layers;
    it has to be even. `statistics`, `chains` and `log_Z` are neither learned nor noise: the moving
    averages of batch norm, for evaluation; chains that follow the prior, to generate from; and
    log Z for evaluation. They belong to the run (see Run), which lets them be seen here.
    """

    task, context = "generate", 0

    def __init__(self, mean, struct="2-layer-nonlin", width=200, variant="dvaes_power",
                 dtype=np.float32):  # fmt: skip
        n_groups, n_hidden = STRUCTURES[struct]
        n = width // 2 if n_groups == 4 else width
        self.dtype, self.units, gaussian = dtype, [n] * n_groups, variant == "dvaes_gi"
        self.mean = np.asarray(mean, dtype)
        self.offset = logit(np.clip(mean, 0.001, 0.999)).astype(dtype)
        side, outputs = n * n_groups // 2, 2 * n if gaussian else n
        hidden = [width] * n_hidden
        self.shapes = {"prior.b1": (side,), "prior.b2": (side,), "prior.W": (side, side)}
        self.sizes = {}  # of every network: those of its inputs, then the others
        for i in range(n_groups):
            self.sizes[f"q{i}"] = [len(mean), *self.units[:i]], [*hidden, outputs]
        self.sizes["p"] = self.units, [*hidden, len(mean)]
        for net, (inputs, sizes) in self.sizes.items():
            self.shapes |= {f"{net}.W0.{k}": (m, sizes[0]) for k, m in enumerate(inputs)}
            for j, (m, following) in enumerate(itertools.pairwise(sizes)):
                self.shapes |= {f"{net}.gamma{j}": (m,), f"{net}.shift{j}": (m,)}
                self.shapes[f"{net}.W{j + 1}"] = m, following
            self.shapes[f"{net}.b"] = (sizes[-1],)
        if gaussian:
            self.shapes |= {f"q{i}.s": (n,) for i in range(n_groups)}
        self.names = list(self.shapes)
        self.layers = [f"{net}.{j}" for net in self.sizes for j in range(n_hidden)]  # tanh
        self.statistics, self.chains, self.log_Z = self.init_statistics(), None, math.nan

    def init(self, rng):
        """Prior zero, kernels as in init_mlp, γ and the scales of ζ one, all else zero."""
        params = {name: np.zeros(shape, self.dtype) for name, shape in self.shapes.items()}
        for net, (inputs, sizes) in self.sizes.items():
            kernels = init_mlp(rng, [sum(inputs), *sizes], self.dtype)[::2]
            first = np.split(kernels[0], np.cumsum(inputs)[:-1])  # one kernel per input
            params |= {f"{net}.W0.{k}": W for k, W in enumerate(first)}
            params |= {f"{net}.W{j}": W for j, W in enumerate(kernels[1:], start=1)}
        return [p + 1 if "gamma" in name or name.endswith(".s") else p
                for name, p in params.items()]  # fmt: skip

    def init_statistics(self):
        """Moving mean 0 and variance 1 of every tanh layer's inputs."""
        sizes = [m for _, sizes in self.sizes.values() for m in sizes[:-1]]
        return [f(m, self.dtype) for m in sizes for f in (np.zeros, np.ones)]

    def by_moving_averages(self, layer, h):
        """Batch norm in evaluation, of the layer of that number."""
        mean, variance = self.statistics[2 * layer : 2 * layer + 2]
        return (h - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)

    def draw_noise(self, rng, batch):
        return draw_noise(rng, batch, self.units, self.dtype)

    def rbm(self, params):
        return params[:3]

    def network(self, params, net, inputs, normalize):
        """Outputs of one network; its inputs (..., rows, ·) each have a kernel of their own."""
        p, n_hidden = dict(zip(self.names, params)), len(self.sizes[net][1]) - 1
        first, *rest = (times(x_k, p[f"{net}.W0.{k}"]) for k, x_k in enumerate(inputs))
        h = sum(rest, first)
        for j in range(n_hidden):
            h = normalize(self.layers.index(f"{net}.{j}"), h)
            h = tanh(h * p[f"{net}.gamma{j}"] + p[f"{net}.shift{j}"])
            h = times(h, p[f"{net}.W{j + 1}"])
        return h + p[f"{net}.b"]

    def infer(self, params, x, sample, normalize):
        """Run the groups of q in order; returns what they emit, and the outputs they had.

        `sample(i, outputs)` decides what group i emits, and `normalize(layer, h)` what batch norm
        does: `by_moving_averages`, or as the rows at hand are.
        """
        emitted, outputs = [], []
        for i in range(len(self.units)):
            inputs = [x - self.mean, *emitted]
            outputs.append(self.network(params, f"q{i}", inputs, normalize))
            emitted.append(sample(i, outputs[i]))
        return emitted, outputs

    def decode(self, params, zeta, normalize):
        """Logits of the pixels."""
        return self.network(params, "p", zeta, normalize) + self.offset

    def gaussian(self, params, i, outputs):
        """For dvaes_gi: logits, shifts in (−¼, ¼) and scales above .05 of the ζ of group i."""
        n, p = self.units[i], params[i - len(self.units)]
        shift = 0.5 * (sigmoid(outputs[..., n:]) - 0.5)
        return outputs[..., :n], shift, np.abs(0.2 * p) + 0.05

    def log_weights(self, params, x, n_samples, rng):
        """log p(x, z) − log q(z|x) for n_samples draws of the bits of every row: (n_samples, rows).

        This is the discrete model, which has no ζ: the networks see z.
        """
        log_q = 0

        def emit(i, outputs):
            nonlocal log_q
            a = outputs[..., : self.units[i]]
            z = draw_bits(rng, a, (n_samples, *a.shape[-2:]))
            log_q = log_q + bernoulli_log_prob(z, a)
            return z

        z, _ = self.infer(params, x, emit, self.by_moving_averages)
        recon = bernoulli_log_prob(x, self.decode(params, z, self.by_moving_averages))
        return recon - energy(self.rbm(params), *sides(z)) - self.log_Z - log_q

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of the bits."""

        def emit(i, outputs):
            a = outputs[:, : self.units[i]]
            return draw_bits(rng, a, a.shape)

        z, _ = self.infer(params, x, emit, self.by_moving_averages)
        return sigmoid(self.decode(params, z, self.by_moving_averages))

    def generate(self, params, rng, n):
        """Pixel probabilities of n images, from n chains of the prior after 1000 further sweeps."""
        rows = rng.choice(len(self.chains[0]), n, replace=n > len(self.chains[0]))
        z1, z2 = (z[rows] for z in self.chains)
        gibbs(self.rbm(params), z1, z2, rng, 1000)
        z = np.split(np.concatenate([z1, z2], axis=1), np.cumsum(self.units)[:-1], axis=1)
        return sigmoid(self.decode(params, z, self.by_moving_averages))


# -------------------------------------------------------------------------------- the estimator


class Draw(NamedTuple):
    """What is random in a step: uniforms (u, ρ) per group, and what the chains say of the prior."""

    noise: list
    log_Z: float
    moments: list  # E z1, E z2, E z1 z2', the gradient of log Z
    warm_up: float = 1.0  # c in recon − c KL


def smoothed_terms(model, params, x, draw, variant, beta, normalize):
    """log p(x|ζ) and −KL, its sample or its mean, for every row of x: (rows,) each, in nats."""
    smoothing, minus_kl, _ = VARIANTS[variant]
    rbm = model.rbm(params)
    log_Z = draw.log_Z  # with the gradient that the chains give it
    for p, moment in zip(rbm, draw.moments):
        log_Z = log_Z + np.sum((p - stop_gradient(p)) * moment)

    if variant == "dvaes_gi":
        q = []  # logits, shifts and scales of every group

        def emit(i, outputs):
            q.append(model.gaussian(params, i, outputs))
            return relax_shifted(*q[i], *draw.noise[i])

        zeta, _ = model.infer(params, x, emit, normalize)
        rows = minus_kl(rbm, log_Z, zeta, q, valid_lambda(stop_gradient(rbm[2]), beta))
    else:
        y = []

        def emit(i, a):
            y.append(relax(a, *draw.noise[i], smoothing, beta))
            return smoothing.zeta(y[i])

        zeta, a = model.infer(params, x, emit, normalize)
        ratio = [y_i if smoothing.spike else smoothing.log_ratio(y_i, beta) for y_i in y]
        rows = minus_kl(rbm, log_Z, a, ratio)
    return bernoulli_log_prob(x, model.decode(params, zeta, normalize)), rows


def init_aux(rng, model):
    """Nothing learned, but the moving averages of batch norm."""
    return model.init_statistics()


def estimate(model, params, aux, x, draw, *, variant="dvaes_power", beta=30.0, samples=1,
             weight_decay=1e-4):  # fmt: skip
    """The estimator: bound (batch,) in nats, gradients like params (ascent), new moving averages.

    x has every image `samples` times in a row. DVAE# has the importance weighted bound
    log mean_k w_k, the others the mean of log w_k. The bound is that of the smoothed model without
    warm-up and weight decay, which are in the gradient. Kernels and W decay, vectors do not: a
    kernel before batch norm may shrink and change nothing, but a smaller γ is another function.
    """
    seen = [None] * len(model.layers)

    def normalize(layer, h):
        seen[layer] = mean_and_variance(stop_gradient(h))
        return standardize(h)

    def average(log_w):
        log_w = np.reshape(log_w, (-1, samples))
        return log_mean_exp(log_w, 1) if VARIANTS[variant].marginal else np.sum(log_w, 1) / samples

    def objective(params):
        recon, minus_kl = smoothed_terms(model, params, x, draw, variant, beta, normalize)
        goal = average(recon + draw.warm_up * minus_kl)
        return [np.sum(goal) / len(goal)], average(recon + minus_kl)

    (grads,), bound = gradients(objective, params)
    grads = [g - weight_decay * p if np.ndim(p) == 2 else g for g, p in zip(grads, params)]
    new = [KEEP * old + (1 - KEEP) * m for old, m in zip(aux, itertools.chain(*seen))]
    return bound, grads, [training.Assign(value) for value in new]


# ----------------------------------------------------------------------- 5. the run, its evaluation

CHAINS, GIBBS, AIS = range(10, 13)  # purposes of random streams, beside those of training.py


class Run(training.Trainer):
    """A Trainer with the chains of the prior, and evaluation with log Z by AIS.

    The chains follow the RBM at the end of every step, and `log_Z` is the running sum of what
    the sampler says of its change. Every row of the log sets it right by AIS, and says by how much.
    """

    measures = ("bound", "log_Z/ais", "log_Z/ais_error")

    def __init__(self, args, data, model):
        ours = partial(estimate, variant=args.variant, beta=args.beta, samples=args.samples)
        rate = lambda step: schedule(step / args.steps)
        super().__init__(args, data, model, ours, init_aux, self.prior_report, rate=rate,
                         adam={"beta2": 0.999, "eps": 1e-3}, keep_best=True)  # fmt: skip
        self.chains = fair_bits(training.stream(args.seed, CHAINS), args.chains, self.params)
        self.log_Z = np.array(sum(model.units) * math.log(2))  # exact, as the prior starts at zero
        model.statistics, model.chains = self.aux, self.chains  # views, so always the present ones
        self.known, self.known_log_Z = None, None  # the RBM of the last AIS, and its result

    def prior_report(self, model, aux):
        return {"log_Z": float(self.log_Z), "warm_up/c": self.warm_up()}

    def warm_up(self):
        return min(self.step_count / (0.3 * self.args.steps), 1.0)

    def draw(self):
        x, noise = super().draw()
        return x, Draw(noise, float(self.log_Z), sample_moments(*self.chains), self.warm_up())

    def step(self):
        rbm = self.model.rbm(self.params)
        old = [p.copy() for p in rbm]
        super().step()
        rng = training.stream(self.args.seed, GIBBS, self.step_count)
        self.log_Z += SAMPLERS[self.args.sampler](old, rbm, *self.chains, rng, self.args.sweeps)

    def ais(self):
        """(log Z, standard error) of the present RBM; run once for every RBM."""
        args, rbm = self.args, self.model.rbm(self.params)
        present = [p.tobytes() for p in rbm]
        if present != self.known:
            rng = training.stream(args.seed, AIS)
            *self.known_log_Z, _ = ais(rbm, rng, args.ais_chains, args.ais_temperatures)
            self.known = present
        return self.known_log_Z

    def bound(self, split, n_samples, progress=False):
        self.model.log_Z, _ = self.ais()
        return super().bound(split, n_samples, progress)

    def evaluate(self, split):
        log_Z, error = self.ais()
        return super().evaluate(split) | {"log_Z/ais": log_Z, "log_Z/ais_error": error}

    def row(self, bounds=()):
        """As in Trainer; a row ends with AIS, and what the running sum was off by begins anew.

        It was right at the last row, so on average it was off by about half of that.
        """
        log_Z, _ = self.ais()
        drift = float(self.log_Z) - log_Z
        row = super().row(bounds)
        self.log_Z[...] = log_Z
        return row | {"train_bound": row["train_bound"] + drift / 2, "log_Z/drift": drift}

    def arrays(self):
        z1, z2 = self.chains
        return super().arrays() | {"chains_1": z1, "chains_2": z2, "log_Z": self.log_Z}


def schedule(done):
    """The factor of the learning rate when the share `done` of all steps is done."""
    ends, factors = (0.02, 0.6, 0.75, 0.95), (1 / 10, 1, 1 / 3, 1 / 10, 1 / 33)
    return factors[sum(done >= end for end in ends)]


# β of every variant, by structure, for mnist and digits and for omniglot (the released code's).
ORDER = ("dvae_spike_exp", "dvaepp_exp", "dvaepp_power", "dvaes_gi", "dvaes_gauss", "dvaes_exp",
         "dvaes_unexp", "dvaes_power")  # fmt: skip
BETA = {
    ("mnist", "1-layer-lin"): (5, 12, 40, 40, 40, 12, 40, 40),
    ("mnist", "1-layer-nonlin"): (5, 14, 30, 30, 30, 12, 30, 40),
    ("mnist", "2-layer-nonlin"): (4, 10, 30, 30, 25, 10, 16, 30),
    ("mnist", "4-layer-nonlin"): (4, 10, 30, 30, 25, 10, 16, 30),
    ("omniglot", "1-layer-lin"): (4, 14, 40, 40, 40, 12, 40, 40),
    ("omniglot", "1-layer-nonlin"): (4, 12, 40, 30, 25, 10, 16, 30),
    ("omniglot", "2-layer-nonlin"): (4, 10, 30, 25, 25, 8, 16, 20),
    ("omniglot", "4-layer-nonlin"): (4, 10, 30, 25, 25, 8, 16, 20),
}


def default_beta(dataset, struct, variant):
    family = "omniglot" if dataset == "omniglot" else "mnist"
    return float(BETA[family, struct][ORDER.index(variant)])


# --------------------------------------------------------------- 6. the samplers against the truth


def bars_and_stripes(side=4):
    """All images of side × side pixels whose rows, or columns, are of one colour each, as bits."""
    lines = (np.arange(2**side)[:, None] >> np.arange(side)) & 1
    bars = np.repeat(lines, side, axis=0).reshape(-1, side, side)
    return np.unique(np.concatenate([bars, bars.transpose(0, 2, 1)]).reshape(-1, side**2), axis=0)


def rbm_demo(args, hidden=10):
    """Fit an RBM of few hidden units, and compare what PA, PCD and AIS say of it with enumeration.

    Maximum likelihood by the chains of --sampler; those of the other follow the same RBM. Writes
    log.csv and rbm.png: log Z, its errors, and the root mean square errors of its gradient.
    """
    folder = training.open_run(args)
    images = bars_and_stripes() if args.rbm_demo == "bars" else load_dataset("digits").train
    v, stream = images.astype(np.float32), partial(training.stream, args.seed)
    shapes = (v.shape[1],), (hidden,), (v.shape[1], hidden)
    flat, rbm = training.flatten([np.zeros(shape) for shape in shapes], np.float32)
    rbm[2][...] = 0.01 * stream(training.INIT).standard_normal(shapes[2])
    log_Z_start = enumerate_rbm(rbm)[0]
    chains = {name: fair_bits(stream(CHAINS), args.chains, rbm) for name in SAMPLERS}
    log_Z, adam, rows = dict.fromkeys(SAMPLERS, log_Z_start), training.Adam(flat.size, args.lr), []
    for step in tqdm(range(1, args.steps + 1), disable=None):
        h = sigmoid(rbm[1] + v @ rbm[2])
        data = np.mean(v, axis=0), np.mean(h, axis=0), v.T @ h / len(v)
        model, old = sample_moments(*chains[args.sampler]), [p.copy() for p in rbm]
        adam.ascend(flat, training.flatten([d - m for d, m in zip(data, model)], np.float32)[0])
        for name, sampler in SAMPLERS.items():
            log_Z[name] += sampler(old, rbm, *chains[name], stream(GIBBS, step), args.sweeps)
        if step % max(1, args.steps // 40) == 0:
            rows.append(compare(rbm, v, chains, log_Z, stream(AIS, step), args) | {"step": step})
    write_demo(folder, rows, args.no_plots)


def compare(rbm, v, chains, log_Z, rng, args):
    """One row of the log: log Z and the error of its gradient, by enumeration and all samplers."""
    exact, moments = enumerate_rbm([p.astype(float) for p in rbm])
    *by_ais, ais_moments = ais(rbm, rng, args.ais_chains, args.ais_temperatures)
    estimates = {name: sample_moments(*pair) for name, pair in chains.items()}
    row = {"log_Z": exact, "log_Z_ais": by_ais[0], "ais_error": by_ais[1]}
    row |= {f"log_Z_{name}": value for name, value in log_Z.items()}
    rms = lambda x: math.sqrt(np.mean(np.concatenate([np.ravel(x_k) for x_k in x]) ** 2))
    for name, estimate in (estimates | {"ais": ais_moments}).items():
        row[f"gradient_{name}"] = rms([e - m for e, m in zip(estimate, moments)])
    variances = [m * (1 - m) / args.chains for m in moments]
    row["gradient_independent"] = rms([np.sqrt(np.maximum(x, 0)) for x in variances])
    log_p = v @ rbm[0] + np.sum(softplus(rbm[1] + v @ rbm[2]), axis=1) - exact
    return row | {"log_likelihood": float(np.mean(log_p))}


def write_demo(folder, rows, no_plots):
    training.write_rows(folder / "log.csv", rows)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    difference = lambda name: [a - b for a, b in zip(columns[f"log_Z_{name}"], columns["log_Z"])]
    names = {"pa": "PA", "pcd": "PCD", "ais": "AIS"}
    panels = {
        "log Z, nats": {"exact": columns["log_Z"]}
        | {label: columns[f"log_Z_{name}"] for name, label in names.items()},
        "log Z − exact, nats": {label: difference(name) for name, label in names.items()},
        "error of the gradient (RMS)": {
            label: columns[f"gradient_{name}"]
            for name, label in (names | {"independent": "independent samples"}).items()
        },
        "exact log-likelihood, nats": {"": columns["log_likelihood"]},
    }
    if not no_plots:
        training.plot_curves(folder / "rbm.png", columns["step"], panels)
    last = rows[-1]
    for name, label in ({"": "enumeration"} | names).items():
        value, error = last[f"log_Z_{name}".rstrip("_")], last.get(f"gradient_{name}", 0.0)
        print(f"{label:12} log Z {value:9.3f}   RMS error of the gradient {error:.4f}")
    print(f"run folder {folder}")


# ------------------------------------------------------------------------------------------- main


def main(argv=None):
    small = {"chains": 200, "sweeps": 10, "ais_chains": 256, "ais_temperatures": 200,
             "test_samples": 1000}  # fmt: skip
    large = {"chains": 1000, "sweeps": 40, "ais_chains": 1024, "ais_temperatures": 1000,
             "test_samples": 4000}  # fmt: skip
    small |= {"steps": 2500, "lr": 3e-3, "eval_epochs": 40, "width": 100, "log_every": 260}
    large |= {"steps": 1_000_000, "lr": 3e-3, "eval_epochs": 40, "width": 200, "log_every": 500}
    p = training.parser("dvae_sharp", __doc__, sbn=False, batch_size=100, digits=small, full=large)
    p.flag("--variant", "see above and VARIANTS", choices=tuple(VARIANTS))
    p.flag("--struct", "groups of latent units and kind of networks", choices=tuple(STRUCTURES))
    p.flag("--beta", "sharpness of the smoothing; default: by dataset, structure and variant",
           type=training.POSITIVE)  # fmt: skip
    p.flag("--sampler", "of the prior in training", choices=tuple(SAMPLERS))
    for name, help in (("width", "units of a side of the RBM and of tanh layers"),
                       ("chains", "of the sampler"), ("sweeps", "of its chains per step"),
                       ("ais-chains", "of AIS"), ("ais-temperatures", "of AIS"),
                       ("test-samples", "importance samples of the final test")):  # fmt: skip
        key = name.replace("-", "_")
        both = f"default: {small[key]} for digits, {large[key]} for the others"
        p.flag(f"--{name}", f"{help}; {both}", type=training.COUNT, metavar="N")
    p.add_argument("--rbm-demo", choices=("bars", "digits"),
                   help="fit a small RBM instead, the samplers against enumeration")  # fmt: skip
    args = training.parse(p, argv)
    if args.task != "generate":
        p.error("--task: this model is of whole images only")
    if args.width % 2:
        p.error(f"--width: {args.width} has to be even, as a group may be half of it")
    if args.chains < 2 or args.ais_chains < 2:
        p.error("--chains, --ais-chains: at least 2")
    if args.rbm_demo and args.resume:
        p.error(f"--resume: {args.resume} is a run of --rbm-demo, which takes a minute: start anew")
    if args.rbm_demo:
        return rbm_demo(args)
    args.beta = args.beta or default_beta(args.dataset, args.struct, args.variant)
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model = DVAE(data.train_mean, args.struct, args.width, args.variant)
    return training.fit(Run(args, data, model))


if __name__ == "__main__":
    training.run(main)
