"""DisARM, or U2G: antithetic pairs of bits (Dong, Mnih, Tucker 2020, arXiv 2006.10680; Yin et al.
2020, arXiv 2006.06448); ARM, of which it is the conditional mean; ARMS, for K samples.

One uniform u makes two bits that are as different as they can be, π = σ(a) being P(b = 1):

    b = 1[u > 1 − π]        b̃ = 1[u < π]

ARM (Yin & Zhou 2019, arXiv 1807.11143; --estimator arm) and its mean given b and b̃, DisARM:

    ∇_a E[f(b)] = E[ (f(b) − f(b̃)) (u − 1/2) ]                           ARM
                = E[ (f(b) − f(b̃)) (b − b̃) σ(|a|) / 2 ]                   DisARM

The mean takes away the variance that u has beyond b and b̃, so DisARM never has more variance than
ARM. Where b = b̃ it is 0. Each of several bits has its own u, and f(b) − f(b̃) is that of all bits.

With L layers, every layer i has a pair of its own. b̃_i is drawn given the same b_{i−1} as b_i, and
the layers above are computed again from their uniforms u, given b̃_i:

    g_i = (f(b) − f(b_1 … b_{i−1}, b̃_i, above)) (b_i − b̃_i) σ(|a_i|) / 2

The mean of ∇f, the direct derivative, over all L + 1 passes is added to g. For the bound of K
samples (--bound; "local DisARM"), f(b) is log 1/K Σ_k exp f(b_k), and f(b̃) the same with one of
the samples replaced by its antithetic one.

ARMS (Dimitriev & Zhou 2021, arXiv 2105.14141; --estimator arms): K samples, each two of them with
the correlation ρ < 0, made of K uniforms by a Dirichlet copula. For K = 2 it is DisARM:

    d ~ Dirichlet(1, …, 1)      b_k = 1[(1 − d_k)^(K−1) < π], with 0 and 1 exchanged for π > 1/2
    g = 1/(K−1) Σ_k (f_k − f̄) (b_k − π) / (1 − ρ)

Cost per pair: L + 1 evaluations of f and as many derivatives; of ARMS, L K.

    python methods/disarm.py
"""

import math
from functools import partial

import rloo
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    Toy,
    check_samples,
    gradients,
    hard_sample,
    log_mean_exp,
    one_of,
    sigmoid,
    stop_gradient,
)
from harness import cli
from harness.toy import copula_outcomes, pair_cells, train_toy
from harness.run import train
from vimco import log_sum_others

import autograd.numpy as np

ESTIMATORS = ("disarm", "arm", "arms")

# ------------------------------------------------------------------------------------------- pairs


def pair_gradient(difference, a, u, estimator="disarm"):
    """g of a layer (rows, D), from f(b) − f(b̃) (rows,), its logits and uniforms (rows, D)."""
    if estimator == "arm":
        return difference[:, None] * (u - 0.5)
    b, b_tilde = hard_sample(a, u), hard_sample(a, 1 - u)
    return difference[:, None] * (b - b_tilde) * sigmoid(np.abs(a)) / 2


def pairs(model, params, x, noise, *, estimator="disarm", samples=1, bound=False):
    """f(b) (rows,), or the bound L (images,), and the gradient of its mean: a pair a row."""
    layers, u = len(model.units), [u_i for u_i, _ in noise]

    def sample(layer, a):  # (passes, rows, D); pass i + 1 has b̃ in layer i, and else b
        antithetic = np.arange(layers + 1)[:, None, None] == layer + 1
        return np.where(antithetic, hard_sample(a, 1 - u[layer]), hard_sample(a, u[layer]))

    def surrogate(params):
        b, a = model.infer(params, x, sample)
        f = model.bound(params, x, b, a if bound else stop_gradient(a))  # (passes, rows)
        if bound:
            L, differences = local(f, samples)
        else:
            L, differences = f, stop_gradient(f[0] - f[1:])
        total = np.sum(L) / (layers + 1)
        for i, a_i in enumerate(a):
            a_i = a_i[0] if i else a_i  # as in pass i + 1: the layers below are the same
            total = total + np.sum(
                pair_gradient(differences[i], stop_gradient(a_i), u[i], estimator) * a_i
            )
        return [total / L.shape[1]], L[0]

    (grads,), L = gradients(surrogate, params)
    return L, grads


def local(f, samples):
    """From f (passes, rows): L of every pass (passes, images), and the differences (layers, rows)

    L(b_1 … b_K) − L(b_1 … b̃_k … b_K) that replacing sample k makes, for every k.
    """
    f = np.reshape(f, (len(f), -1, samples))
    L, value = log_mean_exp(f, axis=2), stop_gradient(f)
    replaced = np.logaddexp(log_sum_others(value[0]), value[1:]) - math.log(samples)
    return L, np.reshape(stop_gradient(L)[0][:, None] - replaced, (len(f) - 1, -1))


# ---------------------------------------------------------------------------- K samples by a copula


def copula_bits(a, u, samples):
    """K = `samples` bits of every unit that are negatively correlated, from uniforms (images K, D).

    The logits a (…, images K, D) are the same for the K rows of an image. Not traced.
    """
    e = np.reshape(-np.log(u), (-1, samples, u.shape[1]))  # exponential; e / Σ e is Dirichlet
    d = np.reshape(e / np.sum(e, axis=1, keepdims=True), u.shape)
    rare = (1 - d) ** (samples - 1) < sigmoid(-np.abs(a))  # with probability min(π, 1 − π)
    return np.where(a < 0, rare, ~rare).astype(a.dtype)


def decorrelation(a, samples):
    """1 / (1 − ρ) for the correlation ρ of any two of the K bits: like the logits a.

    With m = min(π, 1 − π), two of them are both of the rarer value with probability
    B = max(2 m^(1/(K−1)) − 1, 0)^(K−1), and 1 − ρ = (m − B) / (m (1 − m)).
    """
    m = np.maximum(sigmoid(-np.abs(a)), np.finfo(a.dtype).tiny)
    B = np.maximum(2 * m ** (1 / (samples - 1)) - 1, 0) ** (samples - 1)
    return m * (1 - m) / (m - B)


def arms(model, params, x, noise, *, samples):
    """f (rows,) and the gradient of its mean, like params: K = `samples` consecutive rows an image.

    Pass i, for layer i: the K rows have the same layers below, those of their first row; in layer i
    the copula's bits; and above it bits of their own.
    """
    layers, u = len(model.units), [u_i for u_i, _ in noise]
    first = [np.repeat(u_i[::samples], samples, axis=0) for u_i in u]
    index = np.arange(layers)[:, None, None]

    def sample(layer, a):  # (passes, rows, D)
        a = stop_gradient(a)
        below, above = hard_sample(a, first[layer]), hard_sample(a, u[layer])
        here = copula_bits(a, u[layer], samples)
        return np.where(index > layer, below, np.where(index < layer, above, here))

    def surrogate(params):
        b, a = model.infer(params, x, sample)
        f = model.bound(params, x, b, stop_gradient(a))  # (passes, rows)
        total = np.sum(f) / layers
        for i, a_i in enumerate(a):
            a_i, b_i = a_i[i] if i else a_i, b[i][i]
            A = rloo.advantage(np.reshape(stop_gradient(f)[i], (-1, samples)))  # K/(K−1) (f_k − f̄)
            fixed = stop_gradient(a_i)
            g = np.reshape(A, (-1, 1)) * (b_i - sigmoid(fixed)) * decorrelation(fixed, samples)
            total = total + np.sum(g * a_i)
        return [total / len(x)], f[0]

    (grads,), f = gradients(surrogate, params)
    return f, grads


# --------------------------------------------------------------------------------- the estimator


def init_aux(rng, model):
    """Nothing is learned."""
    return []


def estimate(model, params, aux, x, noise, *, estimator="disarm", samples=1, bound=False):
    """The estimator: bound (rows,) in nats, gradients like params (ascent), [].

    Every image is in `samples` consecutive rows of x: pairs, of which the mean is taken, or the K
    samples of "arms" or of the `bound` L, which is returned for every image then: (images,).
    `noise` is a list of pairs (u, v) of uniforms, one pair a layer; v is not used. Raises
    InputError for an unknown estimator, and for rows or K that it is not defined for.
    """
    one_of("estimator", estimator, ESTIMATORS)
    if estimator == "arms" and bound:
        raise InputError("bound: for the estimators disarm and arm; arms has none")
    least = 2 if bound or estimator == "arms" else 1
    if samples < least or len(x) % samples:
        raise InputError(f"samples: {len(x)} rows are not images of K = {samples} ≥ {least} each")
    if estimator == "arms":
        f, grads = arms(model, params, x, noise, samples=samples)
    else:
        options = {"estimator": estimator, "samples": samples, "bound": bound}
        f, grads = pairs(model, params, x, noise, **options)
    return f, grads, []


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, estimator="disarm", bound=False):
    """n independent estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,). The uniforms u and v have shape (n, D), one a pair, or (n, P, D) for P
    pairs; for "arms", and for the `bound` E[log 1/K Σ_k exp f(b_k)] of K samples, (n, K, D). v is
    not used. Raises InputError (a ValueError) for other shapes and an unknown estimator.
    """
    axis = {"K": None} if estimator == "arms" or bound else {"P": None} if np.ndim(u) == 3 else {}
    logits, u, v = check_samples(logits, u, v, **axis)
    n, samples, D = len(u), u[0].size // len(logits), len(logits)
    tiled = np.tile(logits, (n * samples, 1))  # one row of logits per sample, so one gradient each
    noise = [(np.reshape(u, (-1, D)), np.reshape(v, (-1, D)))]
    model, x, options = Toy(f, D), np.zeros((n * samples, 0)), {"samples": samples, "bound": bound}
    _, (grads,), _ = estimate(model, [tiled], [], x, noise, estimator=estimator, **options)
    return n * np.sum(np.reshape(grads, (n, samples, D)), axis=1)


def toy(args):
    """ARM and, unless --estimator arm, DisARM; or ARMS alone, with --samples."""
    ours = partial(estimate, estimator=args.estimator, samples=args.samples)
    if args.estimator == "arms":
        nodes = lambda logits: copula_outcomes(logits, args.samples)
        return train_toy(args, {"ARMS": (ours, init_aux)}, nodes)
    methods = {"ARM": (partial(estimate, estimator="arm"), init_aux)}
    if args.estimator == "disarm":
        methods["DisARM"] = ours, init_aux
    return train_toy(args, methods, pair_cells)


def main(argv=None):
    p = cli.parser("disarm", __doc__)
    p.set_defaults(samples=None)
    p.flag("--estimator", "see above", choices=ESTIMATORS)
    p.flag("--pairs", "of every image; another name of --samples", dest="samples", type=cli.ROWS,
           metavar="P")  # fmt: skip
    p.flag("--bound", "the gradient of the bound of K = --samples samples", action="store_true")
    args = cli.parse(p, argv)
    several = args.bound or args.estimator == "arms"
    args.samples = args.samples or (3 if several else 1)
    if several and args.samples < 2:
        p.error("--samples: --bound and --estimator arms need two or more of every image")
    if args.bound and (args.toy or args.estimator == "arms"):
        p.error("--bound: for pairs on images; leave --toy or --estimator arms away")
    if args.toy and args.estimator != "arms":
        p.unread("with --toy, which looks at one pair", "--pairs", "--samples")
    if args.toy:
        return toy(args)
    options = {"estimator": args.estimator, "samples": args.samples, "bound": args.bound}
    return train(args, partial(estimate, **options), init_aux)


if __name__ == "__main__":
    cli.run(main)
