"""DVAE, DVAE++, DVAE#: a VAE whose prior over binary z is a Boltzmann machine (rbm.py).

Rolfe 2017 (arXiv 1609.02200), Vahdat et al. 2018 (1802.04920), Vahdat et al. 2018 (1805.07445).

Every bit z gets a continuous partner ζ ~ r(ζ|z), near z, and the decoder sees ζ. The bits are in
groups, and q of a group sees the ζ of the groups before it. Without z, every ζ has a mixture of
two distributions that overlap. With its logit a, q = σ(a) and the cdf F = (1 − q) R0 + q R1,

    ∇ E[f(ζ)] = E[ Σ_i ∂f/∂ζ_i dζ_i/da_i ∇a_i ],   dζ/da = (R0 − R1) / (r0 / q + r1 / (1 − q)).

That is unbiased for the smoothed model. The objective is log p(x|ζ) + c·(−KL), a bound at c = 1; c
rises from 0 to 1:
    DVAE    r(ζ|0) is a spike at 0:  KL(q(z|x) || p(z)), Rolfe's gradient of the pair term
    DVAE++  other r:                 the same KL, from q(z|ζ, x), which is known
    DVAE#   p(ζ) = Σ_z p(z) r(ζ|z):  log p(ζ) − log q(ζ|x), so that importance weighting works;
            p(ζ) from mean-field (a bound), or exactly by the Gaussian integral trick

log Z and its gradient are those of chains that follow the RBM: population annealing, or PCD.
Evaluation is of the discrete model: z binary, log Z by annealed importance sampling (AIS).
Cost per step: one pass through the networks, and the chains' `--sweeps` Gibbs sweeps.

Unlike the released code: λ of the Gaussian trick follows W at every step, and its slope is in
the gradient; log Z and the derivative for s are right at every step; the power law has no offsets
(it is kept as logit ζ); batch norm's γ does not decay. As there, the training bits of omniglot are
drawn afresh at every step by default. Equation numbers are from the comments of that code.

    python methods/dvae_sharp.py
"""

import math
from functools import partial
from typing import NamedTuple

# common before numpy: it chooses the number of BLAS threads
from common import Assign, bernoulli_log_prob, gradients, hard_sample, log_mean_exp
from common import sigmoid, softplus, stop_gradient, times, with_slope
from rbm import SAMPLERS, Chains, energy, sides

from harness import cli
from harness.data import load_dataset
from harness.hierarchy import DVAE, STRUCTURES
from harness.streams import stream
from harness.run import fit
from harness.trainer import Trainer

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from scipy.special import ndtr, ndtri

# ------------------------------------------------------------ 1. smoothing: ζ ~ r(ζ|z) near the bit


class Smoothing(NamedTuple):
    """r(ζ|0) as functions of y, and of β; r(ζ|1) is its mirror image, and ζ = zeta(y).

    y is ζ itself or, for the power law, logit ζ: there ζ and 1 − ζ reach 1e-100, and float32 has
    no such number near 0 or 1. `draw` maps a uniform to y ~ r(·|0); `distribution` is the cdf R0
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


# The normal distribution of mean 0, by the mirror 1, and variance 1/β; ζ may be any number.
def gaussian(zeta, beta):
    return ndtr(zeta * beta**0.5), (beta / (2 * math.pi)) ** 0.5 * np.exp(-beta * zeta**2 / 2)


def gaussian_log_ratio(zeta, beta):
    return beta * (zeta - 0.5)


EXPONENTIAL = Smoothing(exponential_draw, exponential, lambda zeta, beta: beta * (2 * zeta - 1))
SPIKE_EXPONENTIAL = EXPONENTIAL._replace(spike=True, log_ratio=None)
UNIFORM_EXPONENTIAL = Smoothing(uniform_exponential_draw, uniform_exponential,
                                uniform_exponential_log_ratio)  # fmt: skip
POWER = Smoothing(power_draw, power, lambda y, beta: (1 - 1 / beta) * y, lambda y: -y, sigmoid)
GAUSSIAN = Smoothing(lambda rho, beta: ndtri(rho) / beta**0.5, gaussian, gaussian_log_ratio)


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


defvjp(relax, lambda y, a, u, rho, *kind: lambda g: g * velocity(a, y, *kind), argnums=(0,))


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

# ------------------------------------------- 2. −KL(q(ζ or z|x) || prior), as each variant has it


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
    """DVAE's −KL of bits, with Rolfe's gradient: equations 11 and 12 of 1609.02200v2.

    z = 1[ζ > 0], but for the last group its mean. When q_i grows, bit i of side 1 turns from 0 to 1
    at ζ_i = 0, where the later groups do not notice; so dq_i meets their value given z_i = 0,
    which (1 − z_i) / (1 − q_i) selects. The rest of the change is in the later q_j, through ζ.
    """
    if len(a) == 1:
        return dvae_plus_plus(rbm, log_Z, a, zeta)
    z = [(zeta_i > 0).astype(zeta_i.dtype) for zeta_i in stop_gradient(zeta)]
    (z1, z2), (a1, a2) = sides([*z[:-1], sigmoid(stop_gradient(a[-1]))]), sides(a)
    slope1 = (1 - z1) * stop_gradient(sigmoid(a1))  # (1 − z) / (1 − q) · dq/da, finite for q = 1
    z1, z2 = with_slope(z1, a1, slope1), with_slope(z2, sigmoid(a2), 1)
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


def marginal(rbm, log_Z, a, log_r0, log_r1):
    """DVAE#: log p(ζ) − log q(ζ|x), with p(ζ) = Σ_z p(z) Π r(ζ_i|z_i) bounded by mean-field.

    Section 3.1 and equation 6 of 1805.07445, plainly; log r of every group, at its ζ:
        log p(ζ)   ≥ −E(m) + m'log r1 + (1 − m)'log r0 + H(m) − log Z, for any means m of bits,
        log q(ζ|x) = Σ log((1 − q) r0 + q r1).
    It is close where ζ is close to bits. At the best m the derivative for m is 0, so m is a
    constant (envelope theorem).
    """
    a, log_r0, log_r1 = (np.concatenate(sides(groups), axis=-1) for groups in (a, log_r0, log_r1))
    ratios = np.split(stop_gradient(log_r1 - log_r0), 2, axis=-1)
    logits = mean_field(stop_gradient(rbm), *ratios)
    l = np.concatenate(logits, axis=-1)
    m = sigmoid(l)
    log_p = np.sum(m * log_r1 + (1 - m) * log_r0 + bernoulli_entropy(l), axis=-1)
    log_p = log_p - energy(rbm, *(sigmoid(l_k) for l_k in logits)) - log_Z
    log_q = np.logaddexp(log_r0 - softplus(a), log_r1 - softplus(-a))
    return log_p - np.sum(log_q, axis=-1)


# --- the same, faster: log q = Σ softplus(a + ratio) − softplus(a) + log r0, and log r0 cancels


def dvae_sharp(rbm, log_Z, a, log_ratio):
    """`marginal`, from log_ratio = log r(ζ|1) − log r(ζ|0) of every group alone."""
    ratios = sides(log_ratio)
    logits = mean_field(stop_gradient(rbm), *stop_gradient(ratios))
    m = [sigmoid(l) for l in logits]
    terms = [m_k * ratio + bernoulli_entropy(l) - softplus(a_k + ratio) + softplus(a_k)
             for m_k, ratio, l, a_k in zip(m, ratios, logits, sides(a))]  # fmt: skip
    return np.sum(terms[0], axis=-1) + np.sum(terms[1], axis=-1) - energy(rbm, *m) - log_Z


def valid_lambda(W, beta):
    """λ of the Gaussian integral trick: β, or more if M = λ + [0 W; W' 0] needs it, at this W.

    The eigenvalues of M are λ ± the singular values of W; the smallest one is kept at 5 or more.
    The largest singular value is u'W v. At its best u and v the derivative for them is 0, so they
    are constants (envelope theorem), and its derivative for W is u v'.
    """
    fixed = stop_gradient(W)
    fixed = fixed / (np.max(np.abs(fixed)) + 1e-30)  # the squares are within the range of float32
    v = np.linalg.eigh(np.dot(np.transpose(fixed), fixed))[1][:, -1]
    u = np.dot(fixed, v)
    u = u / np.sqrt(np.sum(u**2) + 1e-30)  # 0 at W = 0
    more = np.dot(u, np.dot(W, v)) + 5 - beta
    return beta + more * (stop_gradient(more) > 0)  # np.maximum has a derivative in float64


def gaussian_integral(rbm, log_Z, zeta, q, lam):
    """DVAE# (gi): log p(ζ) − log q(ζ|x) with ζ|z ~ N(z, M⁻¹) in p and N(z + shift, s²) in q.

    M = λ + [0 W; W' 0] is chosen such that the pairs z1'W z2 cancel in p(z) p(ζ|z):
    log p(ζ) = ½ log det(M / 2π) − ½ ζ'Mζ + Σ softplus(Mζ + b − λ/2) − log Z, exactly.
    det M is λⁿ det(1 − W W' / λ²), as one side is summed out (Schur complement). The paper's
    letter for λ is β. `q` holds logits, shifts and scales s of every group.
    """
    b1, b2, W = rbm
    zeta1, zeta2 = sides(zeta)
    n = len(b1) + len(b2)
    M_zeta = lam * zeta1 + times(zeta2, np.transpose(W)), lam * zeta2 + times(zeta1, W)
    log_p = sum(np.sum(softplus(Mz + (b - lam / 2)) - z * Mz / 2, axis=-1)
                for z, Mz, b in zip((zeta1, zeta2), M_zeta, (b1, b2)))  # fmt: skip
    overlap = np.eye(len(b1), dtype=W.dtype) - np.dot(W, np.transpose(W)) / lam**2
    log_p = log_p + (n * np.log(lam) + np.linalg.slogdet(overlap)[1]) / 2 - log_Z
    log_q = 0
    for zeta_i, (a_i, shift_i, s_i) in zip(zeta, q):
        x = zeta_i - shift_i
        mixture = softplus(a_i + gaussian_log_ratio(x, s_i**-2)) - softplus(a_i)
        log_q = log_q + np.sum(mixture - (x / s_i) ** 2 / 2 - np.log(s_i), axis=-1)
    return log_p - log_q  # both without −n/2 log 2π


class Variant(NamedTuple):
    """A smoothing and the −KL that goes with it; `marginal` if it is one of p(ζ), as in DVAE#.

    The released code's β for mnist and digits, and for omniglot, by structure: 1-layer-lin,
    1-layer-nonlin, more layers.
    """

    smoothing: Smoothing
    minus_kl: callable
    marginal: bool
    beta_mnist: tuple
    beta_omniglot: tuple


VARIANTS = {
    "dvaes_power": Variant(POWER, dvae_sharp, True, (40, 40, 30), (40, 30, 20)),
    "dvae_spike_exp": Variant(SPIKE_EXPONENTIAL, dvae, False, (5, 5, 4), (4, 4, 4)),
    "dvaepp_exp": Variant(EXPONENTIAL, dvae_plus_plus, False, (12, 14, 10), (14, 12, 10)),
    "dvaepp_power": Variant(POWER, dvae_plus_plus, False, (40, 30, 30), (40, 40, 30)),
    "dvaes_gi": Variant(GAUSSIAN, gaussian_integral, True, (40, 30, 30), (40, 30, 25)),
    "dvaes_gauss": Variant(GAUSSIAN, dvae_sharp, True, (40, 30, 25), (40, 25, 25)),
    "dvaes_exp": Variant(EXPONENTIAL, dvae_sharp, True, (12, 12, 10), (12, 10, 8)),
    "dvaes_unexp": Variant(UNIFORM_EXPONENTIAL, dvae_sharp, True, (40, 30, 16), (40, 16, 16)),
}


def default_beta(dataset, struct, variant):
    """β by dataset, structure and variant; see Variant."""
    _, _, _, of_mnist, of_omniglot = VARIANTS[variant]
    column = {"1-layer-lin": 0, "1-layer-nonlin": 1}.get(struct, 2)
    return float((of_omniglot if dataset == "omniglot" else of_mnist)[column])


# --------------------------------------------------------------------------------- 3. the estimator


class Draw(NamedTuple):
    """What is random in a step: uniforms (u, ρ) per group, and what the chains say of the prior."""

    noise: list
    log_Z: np.ndarray  # ()
    moments: list  # E z1, E z2, E z1 z2', the gradient of log Z
    warm_up: np.ndarray = 1.0  # (), c in recon − c KL


def smoothed_terms(model, params, x, draw, variant, beta, normalize):
    """log p(x|ζ) and −KL, its sample or its mean, for every row of x: (rows,) each, in nats."""
    smoothing, minus_kl, *_ = VARIANTS[variant]
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
        rows = minus_kl(rbm, log_Z, zeta, q, valid_lambda(rbm[2], beta))
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
    normalize, seen = model.by_batch()

    def average(log_w):
        log_w = np.reshape(log_w, (-1, samples))
        return log_mean_exp(log_w, 1) if VARIANTS[variant].marginal else np.sum(log_w, 1) / samples

    def objective(params):
        recon, minus_kl = smoothed_terms(model, params, x, draw, variant, beta, normalize)
        goal = average(recon + draw.warm_up * minus_kl)
        return [np.sum(goal) / len(goal)], average(recon + minus_kl)

    (grads,), bound = gradients(objective, params)
    grads = [g - weight_decay * p if np.ndim(p) == 2 else g for g, p in zip(grads, params)]
    return bound, grads, [Assign(value) for value in model.moved(aux, seen)]


# ----------------------------------------------------------------------- 4. the run, its evaluation


class Run(Trainer):
    """A Trainer with the chains of the prior, and evaluation with log Z by AIS.

    The chains follow the RBM at the end of every step, and so does their running log Z. Every row
    of the log sets it right by AIS, and says by how much it was off.
    """

    measures = ("bound", "log_Z/ais", "log_Z/ais_error")

    def __init__(self, args, data, model):
        ours = partial(estimate, variant=args.variant, beta=args.beta, samples=args.samples)
        rate = lambda step: schedule(step / args.steps)
        report = lambda *_: {"log_Z": float(self.chains.log_Z), "warm_up/c": self.warm_up()}
        super().__init__(args, data, model, ours, init_aux, report, rate=rate,
                         adam={"beta2": 0.999, "eps": 1e-3}, keep_best=True)  # fmt: skip
        self.rbm = model.rbm(self.params)  # views, so always the present ones
        self.chains = Chains(self.rbm, partial(stream, args.seed), args.chains, args.sampler,
                             args.sweeps, ais_chains=args.ais_chains,
                             ais_temperatures=args.ais_temperatures)  # fmt: skip
        model.statistics, model.prior = self.aux, self.chains

    def warm_up(self):
        return min(self.step_count / (0.3 * self.args.steps), 1.0)

    def draw(self):
        x, noise = super().draw()
        log_Z, c = (np.array(x, self.model.dtype) for x in (self.chains.log_Z, self.warm_up()))
        return x, Draw(noise, log_Z, self.chains.moments(), c)

    def step(self, limit=1):
        old = [p.copy() for p in self.rbm]
        super().step()
        self.chains.step(old, self.rbm, self.step_count)

    def evaluate(self, split):
        log_Z, error = self.chains.ais(self.rbm)
        return super().evaluate(split) | {"log_Z/ais": log_Z, "log_Z/ais_error": error}

    def row(self, bounds=()):
        """As in Trainer; AIS sets the running log Z right. It was right at the last row too, so on
        average it was off by about half of its drift, by which the bound is corrected."""
        drift = self.chains.correct(self.rbm)
        row = super().row(bounds)
        return row | {"train_bound": row["train_bound"] + drift / 2, "log_Z/drift": drift}

    def arrays(self):
        return super().arrays() | self.chains.arrays()


def schedule(done):
    """The factor of the learning rate when the share `done` of all steps is done."""
    ends, factors = (0.02, 0.6, 0.75, 0.95), (1 / 10, 1, 1 / 3, 1 / 10, 1 / 33)
    return factors[sum(done >= end for end in ends)]


# ------------------------------------------------------------------------------------------- main


def main(argv=None):
    small = {"chains": 200, "sweeps": 10, "ais_chains": 256, "ais_temperatures": 200,
             "test_samples": 1000, "steps": 1300, "width": 100, "log_every": 130}  # fmt: skip
    large = {"chains": 1000, "sweeps": 40, "ais_chains": 1024, "ais_temperatures": 1000,
             "test_samples": 4000, "steps": 1_000_000, "width": 200, "log_every": 500}  # fmt: skip
    both = {"lr": 3e-3, "eval_epochs": 40, "dynamic_binarization": False}
    p = cli.parser("dvae_sharp", __doc__, sbn=False, dynamic=None, batch_size=100, compiled=False,
                   digits=small | both, full=large | both)  # fmt: skip
    p.config["omniglot"]["dynamic_binarization"] = True  # as the released code has it
    p.keeps_steps = True  # see `schedule` and `warm_up`
    p.flag("--variant", "see above and VARIANTS", choices=tuple(VARIANTS))
    p.flag("--struct", "groups of latent units and kind of networks", choices=tuple(STRUCTURES))
    p.flag("--beta", "sharpness of the smoothing; default: by dataset, structure and variant",
           type=cli.TEMPERATURE)  # fmt: skip
    p.flag("--sampler", "of the prior in training", choices=tuple(SAMPLERS))
    sizes = {"width": "units of a side of the RBM and of tanh layers", "chains": "of the sampler",
             "sweeps": "of its chains per step", "ais_chains": "of AIS",
             "ais_temperatures": "of AIS", "test_samples": "samples of the final test"}  # fmt: skip
    for key, help in sizes.items():
        p.flag(f"--{key.replace('_', '-')}",
               f"{help}; default: {small[key]} for digits, {large[key]} for the others",
               type=cli.number(int, 2 if "chains" in key else 1, 10**6), metavar="N")  # fmt: skip
    args = cli.parse(p, argv)
    if args.task != "generate":
        p.error("--task: this model is of whole images only")
    if args.width % 2:
        p.error(f"--width: {args.width} has to be even, as a group may be half of it")
    if args.batch_size == 1 and STRUCTURES[args.struct][1]:  # tanh layers, which have batch norm
        p.error("--batch-size: batch norm makes a single image 0; take 2, or --struct 1-layer-lin")
    if args.variant == "dvaes_gi" and args.beta and args.beta <= 5:
        p.error(f"--beta: {args.beta} has no effect on dvaes_gi, whose λ is never below 5")
    args.beta = args.beta or default_beta(args.dataset, args.struct, args.variant)
    data = load_dataset(args.dataset, args.dynamic_binarization)
    return fit(Run(args, data, DVAE(data.train_mean, args.struct, args.width, args.variant)))


if __name__ == "__main__":
    cli.run(main)
