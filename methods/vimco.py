"""VIMCO: the K-sample bound, with a baseline for every sample made of the others (Mnih & Rezende
2016, arXiv 1602.06725).

Draw b_1 … b_K ~ q(b|x), with weights w_k = p(x, b_k) / q(b_k|x). The bound of K samples (Burda et
al. 2016, arXiv 1509.00519) is tighter than that of one:

    L = log 1/K Σ_k w_k         w̃_k = w_k / Σ_j w_j
    ∇ E[L] = E[ Σ_k (L − L_{−k}) ∇log q(b_k) + Σ_k w̃_k ∇log w_k ]

The second sum is ∇L with the b_k held fixed. Its part − w̃_k ∇log q(b_k) has mean zero for one
sample only. L_{−k} is L with w_k replaced by a mean of the others (--mean). So it does
not depend on b_k, and is a good guess of L:

    arithmetic   1/(K−1) Σ_{j≠k} w_j                L_{−k} = log 1/(K−1) Σ_{j≠k} w_j
    geometric    exp 1/(K−1) Σ_{j≠k} log w_j        the paper's choice; for K = 2 both agree

"none" is L_{−k} = 0, to see what that is worth.

OVIS (Liévin et al. 2020, arXiv 2008.01998; --ovis GAMMA) puts both parts of ∇log q together:

    Σ_k (d_k − c_k) ∇log q(b_k)     d_k = L − w̃_k
                                    c_k = log 1/(K−1) Σ_{j≠k} w_j − γ w̃_k + (1−γ) log(1 − 1/K)

where c_k for γ = 0 is what d_k tends to when w̃_k is small. That is VIMCO with the arithmetic mean
and one constant less, so unbiased. For γ > 0, as printed, c_k depends on b_k, and the bias is
γ E[Σ_k w̃_k ∇log q(b_k)]. Here − w̃_k ∇log q(b_k) stays in ∇L, and the signal is d_k + w̃_k − c_k.
The constant helps only if log w contains − log q, which it does not in the toy and for --task
predict.

Cost per image and step: K evaluations of f = log w, and K derivatives of log p and log q.

    python methods/vimco.py
"""

import math
from functools import partial

from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    log_mean_exp,
    one_of,
    shaped,
    stop_gradient,
)
from harness import cli
from harness.toy import outcomes, train_toy
from harness.run import train

import autograd.numpy as np

MEANS = ("geometric", "arithmetic", "none")

# --------------------------------------------------------------------------------- the estimator


def log_sum_others(f):
    """log Σ_{j≠k} exp f_j for every k: (images, K), like f. For numbers of any size; not traced.

    In O(K). Without the largest, f_top, the others are summed afresh. Any other f_k leaves f_top in
    the sum, so that subtracting exp(f_k − f_top) loses no digits.
    """
    K = f.shape[1]
    is_top = np.arange(K) == np.argmax(f, axis=1)[:, None]  # one in every row, even of equals
    top, w = np.max(f, axis=1, keepdims=True), np.exp(f - np.max(f, axis=1, keepdims=True))
    without_top = log_mean_exp(np.where(is_top, -np.inf, f), axis=1)[:, None] + math.log(K)
    without_k = np.where(is_top, 1, np.sum(w, axis=1, keepdims=True) - w)
    return np.where(is_top, without_top, top + np.log(without_k))


def swapped(f, mean="geometric"):
    """L_{−k}, the bound with f_k = log w_k replaced by a mean of the others: (images, K)."""
    K, others = f.shape[1], log_sum_others(f)
    if mean == "arithmetic":
        return others - math.log(K - 1)
    mean_f = (np.sum(f, axis=1, keepdims=True) - f) / (K - 1)
    return np.logaddexp(others, mean_f) - math.log(K)


def signals(f, mean="geometric", ovis=None):
    """What multiplies ∇log q(b_k) beside ∇L: (images, K), for f = log w; `ovis` is a γ or None."""
    K, L = f.shape[1], log_mean_exp(f, axis=1)[:, None]
    if mean == "none":
        return L + 0 * f
    if ovis is None:
        return L - swapped(f, mean)
    w = np.exp(f - L) / K  # w̃
    return L - swapped(f, "arithmetic") + ovis * w - (1 - ovis) * math.log(1 - 1 / K)


def init_aux(rng, model):
    """VIMCO has nothing of its own to learn."""
    return []


def estimate(model, params, aux, x, noise, *, samples=2, mean="geometric", ovis=None):
    """The estimator: L (images,) in nats, the gradient of its mean like params (ascent), [].

    Every image is in `samples` = K consecutive rows of x. `noise` is a list of pairs (u, v) of
    uniforms, one pair a layer; v is not used. `ovis` is OVIS's γ, or None for VIMCO. Raises
    InputError for K < 2, for rows that K does not divide, for an unknown mean, and for a γ outside
    [0, 1].
    """
    check(len(x), samples, mean, ovis)

    def surrogate(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        f = np.reshape(model.bound(params, x, b, a), (-1, samples))  # with its − log q(b_k)
        log_q = np.reshape(sum(bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a)), f.shape)
        L = log_mean_exp(f, axis=1)
        signal = signals(stop_gradient(f), mean, ovis)
        return [(np.sum(signal * log_q) + np.sum(L)) / len(L)], L

    (grads,), L = gradients(surrogate, params)
    return L, grads, []


def check(rows, samples, mean, ovis):
    """Raise InputError for what VIMCO is not defined for."""
    one_of("mean", mean, MEANS)
    if ovis is not None and not (0 <= ovis <= 1 and mean == "geometric"):
        raise InputError("ovis: γ has to be from 0 to 1, and mean left at its default")
    if samples < 2:
        raise InputError("samples: VIMCO needs two or more of every image")
    if rows % samples:
        raise InputError(f"samples: {rows} rows are not images of {samples} samples each")


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, mean="geometric", ovis=None):
    """n independent estimates of d/dlogits E[log 1/K Σ_k exp f(b_k)], of K samples each: (n, D).

    f maps bits (n, D) to log-weights (n,), in which nothing depends on the logits; `logits` has
    shape (D,), the uniforms u and v (n, K, D), and v is not used. Raises InputError (a ValueError)
    for other shapes, K < 2, an unknown mean, a γ outside [0, 1].
    """
    logits, u, v = check_samples(logits, u, v, K=None)
    ovis = None if ovis is None else float(shaped("ovis", ovis))
    n, K, D = u.shape
    tiled = np.tile(logits, (n * K, 1))  # one row of logits per sample, so one gradient each
    model, x, flat = Toy(f, D), np.zeros((n * K, 0)), (n * K, D)
    noise = [(np.reshape(u, flat), np.reshape(v, flat))]
    _, (grads,), _ = estimate(model, [tiled], [], x, noise, samples=K, mean=mean, ovis=ovis)
    return n * np.sum(np.reshape(grads, (n, K, D)), axis=1)


def toy(args):
    """The bound of K samples with log-weights −(b − target)²: with and without a baseline."""
    ours, plain = (partial(estimate, samples=args.samples, mean=m) for m in (args.mean, "none"))
    methods = {"no baseline": (plain, init_aux), "VIMCO": (ours, init_aux)}
    train_toy(args, methods, lambda logits: outcomes(logits, args.samples))


def main(argv=None):
    p = cli.parser("vimco", __doc__, samples=5)
    p.flag("--mean", "of the others, in the place of a weight", choices=MEANS)
    p.flag("--ovis", "OVIS with this γ instead, from 0 (unbiased) to 1", metavar="GAMMA",
           type=cli.number(float, 0, 1))  # fmt: skip
    args = cli.parse(p, argv)
    if args.samples < 2:
        p.error("--samples: the bound of VIMCO needs two or more of every image")
    if args.ovis is not None and args.mean != MEANS[0]:
        p.error("--mean: OVIS has its own; leave --mean or --ovis away")
    if args.ovis is not None and (args.toy or args.task == "predict"):
        p.error("--ovis: for weights with q in them; leave --toy or --task predict away")
    if args.toy:
        return toy(args)
    ours = partial(estimate, samples=args.samples, mean=args.mean, ovis=args.ovis)
    return train(args, ours, init_aux)


if __name__ == "__main__":
    cli.run(main)
