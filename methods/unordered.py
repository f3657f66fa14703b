"""Samples without replacement: the unordered set estimator (Kool, van Hoof, Welling 2020, arXiv
2002.06043), and the sum over the likeliest plus one sample (Liu et al. 2019, 1810.04777), for
classes.

A variable of C classes, or several of them together, takes a value b with probability p(b). Draw S,
a set of K different values, one after the other and none twice. If U ⊂ S has been drawn, then the
rest of S is drawn next, in any order, with probability

    W(U) = Σ_{t ∈ S∖U} p(t) / (1 − p(U)) W(U ∪ t),     W(S) = 1,     p(U) = Σ_{s ∈ U} p(s).

So S has probability W(∅). The first value drawn estimates E[f], and so does its mean over all
orders in which S could have come, Σ_s w_s f(s), with less noise. If s is taken out of the domain,
the others in S estimate the rest of E[f] in the same way. With p(s) f(s) this is the baseline B_s.

    w_s = p(s) W(s) / W(∅),     B_s = p(s) f(s) + Σ_{s' ≠ s} p(s') W(s, s') / W(s) f(s')
    ∇ E[f(b)]  ≈  Σ_{s ∈ S} w_s [(f(s) − B_s) ∇log p(s) + ∇f(s)],     unbiased for K ≥ 2.

--estimator sum-and-sample: S has the K − 1 likeliest values, with w_s = p(s), and one drawn from
the others, with w = 1 − Σ p(s). B is the mean of f over the likeliest. Where K is the number of
all values, both are the exact sum. f may be a black box.

Values of several variables are drawn together, by a beam that keeps the K best (stochastic beam
search, Kool et al. 2019, arXiv 1903.06059), from the noise of a sample with replacement.

Cost per image and step: K evaluations of f, as RLOO. gumbel_softmax.py trains a model by them, with
--estimator unordered --samples K. Here is the toy:

    python methods/unordered.py
"""

import argparse
import itertools

from categorical import CategoricalToy, check_logits, gumbel, log_prob, log_softmax
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    gradients,
    one_of,
    shaped,
    stop_gradient,
    uniforms,
    value_of,
)
from harness import cli, figures
from harness.runfolder import open_run

import autograd.numpy as np

MOST = 10  # W has 2^K values

# -------------------------------------------------------------------------------- the estimators


def completions(q, unit=1.0):
    """W(U) / unit^(K − |U|) of every subset U of S, a dict from tuples in order.

    q = p / unit has shape (images, K), `unit` (images,): small p would leave nothing of W(∅).
    """
    K = q.shape[1]
    outside = 1 - unit * np.sum(q, axis=1)  # p of all other values, 0 if it is rounding alone
    outside = np.where(outside > 8 * np.finfo(q.dtype).eps, outside, 0)
    W = {tuple(range(K)): np.ones_like(q[:, 0])}
    for size in range(K - 1, -1, -1):
        for U in itertools.combinations(range(K), size):
            rest = [t for t in range(K) if t not in U]
            left = outside + unit * np.sum(q[:, rest], axis=1)  # 1 − p(U), which may round to 0
            W[U] = sum(q[:, t] * W[tuple(sorted((*U, t)))] for t in rest) / left
    return W


def unordered(log_p, f):
    """w_s and f(s) − B_s of the values in S, (images, K) like log p(s) and f(s)."""
    K = log_p.shape[1]
    top = np.max(log_p, axis=1)
    smallest = 0.9 * np.log(np.finfo(log_p.dtype).tiny)  # no q is 0, which W would be divided by
    q, unit = np.exp(np.maximum(log_p - top[:, None], smallest)), np.exp(top)
    W = completions(q, unit)
    w = np.stack([q[:, s] * W[s,] / W[()] for s in range(K)], axis=1)
    B = []
    for s in range(K):
        others = (t for t in range(K) if t != s)
        terms = (q[:, t] * W[min(s, t), max(s, t)] / W[s,] * f[:, t] for t in others)
        B.append(unit * q[:, s] * f[:, s] + sum(terms))
    return w, f - np.stack(B, axis=1)


def sum_and_sample(log_p, f):
    """w and f − B, (images, K), of the K − 1 likeliest values and, the last, one of the others."""
    p = np.exp(log_p)
    total = np.sum(p[:, :-1], axis=1, keepdims=True)
    w = np.concatenate([p[:, :-1], np.maximum(1 - total, p[:, -1:])], axis=1)
    q = np.exp(log_p[:, :-1] - log_p[:, :1])  # p by that of the likeliest: all p may round to 0
    return w, f - np.sum(q * f[:, :-1], axis=1, keepdims=True) / np.sum(q, axis=1, keepdims=True)


RULES = {"unordered": unordered, "sum-and-sample": sum_and_sample}
ESTIMATORS = tuple(RULES)


def init_aux(rng, model):
    """Nothing is learned: []."""
    return []


def estimate(model, params, aux, x, noise, *, estimator="unordered", samples=2):
    """The estimator: Σ_s w_s f(s) (images,) in nats, gradients like params (ascent), [].

    Every image is in `samples` = K consecutive rows of x. `noise` holds a pair (u, v) of uniforms,
    of the only layer; v is not used. Raises InputError for K below 2, above 10 or above the number
    of values, and for several layers.
    """
    check(len(x), samples, noise, estimator)
    images = lambda array: np.reshape(array, (-1, samples, *array.shape[1:]))

    def surrogate(params):
        draw = lambda layer, a: np.reshape(
            sets(estimator, images(stop_gradient(a))[:, 0], images(noise[0][0])), a.shape
        )
        b, a = model.infer(params, x, draw)
        f = images(model.bound(params, x, b, stop_gradient(a)))  # −log q's derivative has mean 0
        log_p = images(log_prob(b[0], a[0]))
        w, signal = RULES[estimator](stop_gradient(log_p), stop_gradient(f))
        L = np.sum(w * f, axis=1)
        return [(np.sum(w * signal * log_p) + np.sum(L)) / len(L)], L

    (grads,), L = gradients(surrogate, params)
    return L, grads, []


def check(rows, samples, noise, estimator):
    """Raise InputError for what these estimators are not defined for."""
    one_of("estimator", estimator, ESTIMATORS)
    if len(noise) != 1:
        raise InputError(f"layers: the estimator '{estimator}' is for one, not {len(noise)}")
    if not 2 <= samples <= MOST or samples % 1 or rows % samples:
        raise InputError(f"samples: {samples} of an image in {rows} rows; it has to be 2 to {MOST}")
    N, C = noise[0][0].shape[1:]
    if N * np.log(C) < np.log(samples) * (1 - 1e-12):
        raise InputError(f"samples: there are only {C**N} values to draw, not {samples}")


# ------------------------------------------------------------------- drawing without replacement


def sets(estimator, a, u):
    """The one-hots of S (images, K, N, C), for logits a (images, N, C) and uniforms u like them."""
    K, C = u.shape[1], u.shape[3]
    log_pi = log_softmax(a)
    drawn = beam(log_pi, K, lambda i, phi, g: moved(phi + gumbel(u[:, :, i]), g))  # (images, K, N)
    if estimator == "sum-and-sample":
        likeliest = beam(log_pi, K - 1, lambda i, phi, g: phi)
        known = np.any(np.all(drawn[:, :, None] == likeliest[:, None], axis=3), axis=2)
        first = np.argmin(known, axis=1)  # not known: K were drawn, and K − 1 are the likeliest
        other = np.take_along_axis(drawn, first[:, None, None], axis=1)
        drawn = np.concatenate([likeliest, other], axis=1)
    return (np.arange(C) == drawn[..., None]).astype(u.dtype)


def beam(log_pi, K, score):
    """The K values of best score, best first, as classes (images, K, N).

    `score(i, phi, g)` gives the scores of values of the first i + 1 variables, (images, K, C), from
    their log probabilities phi, like them, and the scores g (images, K) of what they continue. None
    is above g. log π has shape (images, N, C).
    """
    images, N, C = log_pi.shape
    first = np.where(np.arange(K) == 0, 0, -np.inf).astype(log_pi.dtype)  # one: the empty value
    g = np.tile(first, (images, 1))
    phi, classes = g, np.zeros((images, K, 0), int)
    for i in range(N):
        phi = phi[:, :, None] + log_pi[:, None, i]
        alive = g[:, :, None] > -np.inf
        phi = np.where(alive, phi, 0)
        scores = np.where(alive, score(i, phi, np.where(alive, g[:, :, None], 0)), -np.inf)
        best = np.argsort(-np.reshape(scores, (images, -1)), axis=1)[:, :K]
        take = lambda array: np.take_along_axis(np.reshape(array, (images, -1)), best, axis=1)
        phi, g, parent = take(phi), take(scores), best // C
        before = np.take_along_axis(classes, parent[:, :, None], axis=1)
        classes = np.concatenate([before, (best % C)[:, :, None]], axis=2)
    return classes


def moved(G, g):
    """Gumbels G (…, C), given that their maximum is g: −log(e^−g − e^−max G + e^−G)."""
    top = np.max(G, axis=-1, keepdims=True)
    less = -np.expm1(np.minimum(G - top, -np.finfo(G.dtype).tiny))  # 1 − e^(G − max), above 0
    v = np.where(top > G, g - G + np.log(less), -np.inf)
    return g - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, estimator="unordered"):
    """n estimates of d/dlogits E[f(b)], from K = u.shape[1] values each: (n, D, C).

    f maps one-hots (m, D, C) to (m,), and may be a black box. `logits` has shape (D, C), the
    uniforms u and v (n, K, D, C); v is not used. Raises InputError, a ValueError, for other shapes.
    """
    logits = check_logits(logits)
    axes, low = {"D": len(logits), "C": logits.shape[1]}, "tiny"
    u = uniforms("u", u, low, n=None, K=None, **axes)
    n, K = u.shape[:2]
    uniforms("v", v, low, n=n, K=K, **axes)
    rows = np.reshape(u, (n * K, *logits.shape))
    tiled = np.tile(logits, (n * K, 1, 1))
    _, (grads,), _ = estimate(
        CategoricalToy(f), [tiled], [], np.zeros((n * K, 0), u.dtype), [(rows, rows)],
        estimator=estimator, samples=K,
    )  # fmt: skip
    return n * np.sum(np.reshape(grads, (n, K, *logits.shape)), axis=1)


def exact_variance(f, logits, K, estimator):
    """The variance of an estimate for one variable, logits (C,), summed over the logits.

    f maps one-hots (C, 1, C) to (C,). Raises InputError, a ValueError, for what is not defined.
    """
    one_of("estimator", estimator, ESTIMATORS)
    C = len(shaped("logits", logits, finite=False, C=None))
    if K not in range(2, min(C, MOST) + 1):
        raise InputError(f"K: has to be from 2 to {min(C, MOST)}, not {K}")
    if K == C:  # the exact sum
        return 0.0
    K = int(K)
    log_p, values = log_softmax(check_logits([logits])[0]), value_of(f, np.eye(C)[:, None])
    score = np.eye(C) - np.exp(log_p)  # ∇log p(b)
    if estimator == "unordered":
        S = np.array(list(itertools.combinations(range(C), K)))
        probability = completions(np.exp(log_p)[S])[()]
    else:
        order = np.argsort(-log_p)
        S = np.array([[*order[: K - 1], last] for last in order[K - 1 :]])
        probability = np.exp(log_p[S[:, -1]])
        probability = probability / np.sum(probability)
    w, signal = RULES[estimator](log_p[S], values[S])
    g = np.sum((w * signal)[:, :, None] * score[S], axis=1)  # (sets, C)
    mean = probability @ g
    variance = float(np.sum(probability @ g**2 - mean**2))
    if not np.isfinite(variance):
        raise InputError("logits: too far apart: some sets have no probability")
    return variance


def main(argv=None):
    p = cli.Parser(__doc__)
    p.set_defaults(method="unordered", dataset="classes")
    p.flag("--classes", "C", 8, type=cli.number(int, 3, MOST), metavar="C")
    p.flag("--out", "new folder; default: runs/unordered-<time>", type=cli.folder, metavar="DIR")
    p.flag("--resume", argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.resume is not None:
        p.error("--resume: this takes a second: start anew")
    folder, C = open_run(args), args.classes
    logits = np.linspace(1.5, -1.5, C)
    f = lambda b: np.sin(2.0 * np.arange(C)) @ b[:, 0].T + 1.0
    samples = range(2, C)
    log_p, values = log_softmax(logits), f(np.eye(C)[:, None])
    g = (values - np.exp(log_p) @ values)[:, None] * (np.eye(C) - np.exp(log_p))
    once = np.sum(np.exp(log_p) @ g**2 - (np.exp(log_p) @ g) ** 2)
    curves = {"with replacement, baseline E[f]": [once / K for K in samples]}
    for name in ESTIMATORS:
        curves[name] = [exact_variance(f, logits, K, name) for K in samples]
    figure, (axis,) = figures.new_figure(1, 6.2, 3.8)
    for position, (name, curve) in enumerate(curves.items()):
        print(f"{name:27}" + "".join(f"{value:10.4f}" for value in curve))
        figures.draw(axis, list(samples), curve, name, position=position)
    axis.set(xlabel=f"K of {C} classes", ylabel="variance of an estimate", yscale="log")
    figures.label_curves(axis)
    figures.save(figure, folder / "toy.png")
    print(f"run folder {folder}")


if __name__ == "__main__":
    cli.run(main)
