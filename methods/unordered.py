"""Samples without replacement: the unordered set estimator (Kool, van Hoof, Welling 2020, arXiv
2002.06043), and the sum over the likeliest plus one sample (Liu et al. 2019, 1810.04777), for
classes.

A variable of K classes, or several of them together, takes a value b with probability p(b). Draw S,
a set of k different values, one after the other and none twice. If U ⊂ S has been drawn, then the
rest of S is drawn next, in any order, with probability

    W(U) = Σ_{t ∈ S∖U} p(t) / (1 − p(U)) W(U ∪ t),     W(S) = 1,     p(U) = Σ_{s ∈ U} p(s).

So S has probability W(∅). The first value drawn estimates E[f], and so does its mean over all
orders in which S could have come, Σ_s w_s f(s), with less noise. By the same with s taken out, the
others in S estimate E[f] as well: this is a baseline.

    w_s = p(s) W(s) / W(∅),     B_s = p(s) f(s) + Σ_{s' ≠ s} p(s') W(s, s') / W(s) f(s')
    ∇ E[f(b)]  ≈  Σ_{s ∈ S} w_s [(f(s) − B_s) ∇log p(s) + ∇f(s)],     unbiased for k ≥ 2.

--estimator sum-and-sample: S has the k − 1 likeliest values, with w_s = p(s), and one drawn from
the others, with w = 1 − Σ p(s). B is the mean of f over the likeliest. Where k is the number of
all values, both are the exact sum. f may be a black box.

Values of several variables are drawn together, by a beam that keeps the k best (stochastic beam
search, Kool et al. 2019, arXiv 1903.06059), from the noise of a sample with replacement.

Cost per image and step: k evaluations of f, as RLOO. gumbel_softmax.py trains a model by them, with
--estimator unordered --samples k. Here is the toy:

    python methods/unordered.py
"""

import argparse
import itertools

from categorical import CategoricalToy, check_logits, gumbel, log_prob, log_softmax
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    gradients,
    one_of,
    stop_gradient,
    uniforms,
)
from harness import cli, figures
from harness.runfolder import open_run

import autograd.numpy as np

MOST = 10  # W has 2^k values

# -------------------------------------------------------------------------------- the estimators


def completions(q, unit=1.0):
    """W(U) / unit^(k − |U|) of every subset U of S, a dict from tuples in order.

    q = p / unit has shape (images, k), `unit` (images,): small p would leave nothing of W(∅).
    """
    k = q.shape[1]
    W = {tuple(range(k)): np.ones_like(q[:, 0])}
    for size in range(k - 1, -1, -1):
        for U in itertools.combinations(range(k), size):
            rest = [t for t in range(k) if t not in U]
            # 1 − p(U) is at least the rest of S, also where it rounds to 0
            gone, to_come = (unit * np.sum(q[:, list(part)], axis=1) for part in (U, rest))
            left = np.maximum(1 - gone, to_come)
            W[U] = sum(q[:, t] * W[tuple(sorted((*U, t)))] for t in rest) / left
    return W


def unordered(log_p, f):
    """w_s and f(s) − B_s of the values in S, (images, k) like log p(s) and f(s)."""
    k = log_p.shape[1]
    top = np.max(log_p, axis=1)
    smallest = 0.9 * np.log(np.finfo(log_p.dtype).tiny)  # no q is 0, which W would be divided by
    q, unit = np.exp(np.maximum(log_p - top[:, None], smallest)), np.exp(top)
    W = completions(q, unit)
    w = np.stack([q[:, s] * W[s,] / W[()] for s in range(k)], axis=1)
    B = []
    for s in range(k):
        others = (t for t in range(k) if t != s)
        terms = (q[:, t] * W[min(s, t), max(s, t)] / W[s,] * f[:, t] for t in others)
        B.append(unit * q[:, s] * f[:, s] + sum(terms))
    return w, f - np.stack(B, axis=1)


def sum_and_sample(log_p, f):
    """w and f − B, (images, k), of the k − 1 likeliest values and, the last, one of the others."""
    p = np.exp(log_p)
    total = np.sum(p[:, :-1], axis=1, keepdims=True)
    w = np.concatenate([p[:, :-1], np.maximum(1 - total, p[:, -1:])], axis=1)
    return w, f - np.sum(p[:, :-1] * f[:, :-1], axis=1, keepdims=True) / total


RULES = {"unordered": unordered, "sum-and-sample": sum_and_sample}
ESTIMATORS = tuple(RULES)


def init_aux(rng, model):
    """Nothing is learned: []."""
    return []


def estimate(model, params, aux, x, noise, *, estimator="unordered", samples=2):
    """The estimator: Σ_s w_s f(s) (images,) in nats, gradients like params (ascent), [].

    Every image is in `samples` = k consecutive rows of x. `noise` holds a pair (u, v) of uniforms,
    of the only layer; v is not used. Raises InputError for k below 2, above 10 or above the number
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
    N, K = noise[0][0].shape[1:]
    if N * np.log(K) < np.log(samples) * (1 - 1e-12):
        raise InputError(f"samples: there are only {K**N} values to draw, not {samples}")


# ------------------------------------------------------------------- drawing without replacement


def sets(estimator, a, u):
    """The one-hots of S (images, k, N, K), for logits a (images, N, K) and uniforms u like them."""
    k, K = u.shape[1], u.shape[3]
    log_pi = log_softmax(a)
    drawn = beam(log_pi, k, lambda i, phi, g: moved(phi + gumbel(u[:, :, i]), g))  # (images, k, N)
    if estimator == "sum-and-sample":
        likeliest = beam(log_pi, k - 1, lambda i, phi, g: phi)
        known = np.any(np.all(drawn[:, :, None] == likeliest[:, None], axis=3), axis=2)
        first = np.argmin(known, axis=1)  # not known: k were drawn, and k − 1 are the likeliest
        other = np.take_along_axis(drawn, first[:, None, None], axis=1)
        drawn = np.concatenate([likeliest, other], axis=1)
    return (np.arange(K) == drawn[..., None]).astype(u.dtype)


def beam(log_pi, k, score):
    """The k values of best score, best first, as classes (images, k, N).

    `score(i, phi, g)` gives the scores of values of the first i + 1 variables, (images, k, K), from
    their log probabilities phi, like them, and the scores g (images, k) of what they continue. None
    is above g. log π has shape (images, N, K).
    """
    images, N, K = log_pi.shape
    first = np.where(np.arange(k) == 0, 0, -np.inf).astype(log_pi.dtype)  # one: the empty value
    g = np.tile(first, (images, 1))
    phi, classes = g, np.zeros((images, k, 0), int)
    for i in range(N):
        phi = phi[:, :, None] + log_pi[:, None, i]
        alive = g[:, :, None] > -np.inf
        phi = np.where(alive, phi, 0)
        scores = np.where(alive, score(i, phi, np.where(alive, g[:, :, None], 0)), -np.inf)
        best = np.argsort(-np.reshape(scores, (images, -1)), axis=1)[:, :k]
        take = lambda array: np.take_along_axis(np.reshape(array, (images, -1)), best, axis=1)
        phi, g, parent = take(phi), take(scores), best // K
        before = np.take_along_axis(classes, parent[:, :, None], axis=1)
        classes = np.concatenate([before, (best % K)[:, :, None]], axis=2)
    return classes


def moved(G, g):
    """Gumbels G (…, K), given that their maximum is g: −log(e^−g − e^−max G + e^−G)."""
    top = np.max(G, axis=-1, keepdims=True)
    less = -np.expm1(np.minimum(G - top, -np.finfo(G.dtype).tiny))  # 1 − e^(G − max), above 0
    v = np.where(top > G, g - G + np.log(less), -np.inf)
    return g - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, estimator="unordered"):
    """n estimates of d/dlogits E[f(b)], from k = u.shape[1] values each: (n, D, K).

    f maps one-hots (m, D, K) to (m,), and may be a black box. `logits` has shape (D, K), the
    uniforms u and v (n, k, D, K); v is not used. Raises InputError, a ValueError, for other shapes.
    """
    logits = check_logits(logits)
    axes, low = {"D": len(logits), "K": logits.shape[1]}, "tiny"
    u = uniforms("u", u, low, n=None, k=None, **axes)
    n, k = u.shape[:2]
    uniforms("v", v, low, n=n, k=k, **axes)
    rows = np.reshape(u, (n * k, *logits.shape))
    tiled = np.tile(logits, (n * k, 1, 1))
    _, (grads,), _ = estimate(
        CategoricalToy(f), [tiled], [], np.zeros((n * k, 0), u.dtype), [(rows, rows)],
        estimator=estimator, samples=k,
    )  # fmt: skip
    return n * np.sum(np.reshape(grads, (n, k, *logits.shape)), axis=1)


def exact_variance(f, logits, k, estimator):
    """The variance of an estimate for one variable, logits (K,), summed over the logits."""
    K = len(logits)
    log_p, values = log_softmax(logits), f(np.eye(K)[:, None])
    score = np.eye(K) - np.exp(log_p)  # ∇log p(b)
    if estimator == "unordered":
        S = np.array(list(itertools.combinations(range(K), k)))
        probability = completions(np.exp(log_p)[S])[()]
    else:
        order = np.argsort(-log_p)
        S = np.array([[*order[: k - 1], last] for last in order[k - 1 :]])
        probability = np.exp(log_p[S[:, -1]])
        probability = probability / np.sum(probability)
    w, signal = RULES[estimator](log_p[S], values[S])
    g = np.sum((w * signal)[:, :, None] * score[S], axis=1)  # (sets, K)
    mean = probability @ g
    return float(np.sum(probability @ g**2 - mean**2))


def main(argv=None):
    p = cli.Parser(__doc__)
    p.set_defaults(method="unordered", dataset="classes")
    p.flag("--classes", "K", 8, type=cli.number(int, 3, MOST), metavar="K")
    p.flag("--out", "new folder; default: runs/unordered-<time>", type=cli.folder, metavar="DIR")
    p.flag("--resume", argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.resume is not None:
        p.error("--resume: this takes a second: start anew")
    folder, K = open_run(args), args.classes
    logits = np.linspace(1.5, -1.5, K)
    f = lambda b: np.sin(2.0 * np.arange(K)) @ b[:, 0].T + 1.0
    samples = range(2, K)
    log_p, values = log_softmax(logits), f(np.eye(K)[:, None])
    g = (values - np.exp(log_p) @ values)[:, None] * (np.eye(K) - np.exp(log_p))
    once = np.sum(np.exp(log_p) @ g**2 - (np.exp(log_p) @ g) ** 2)  # C = E[f]
    curves = {"with replacement, C = E[f]": [once / k for k in samples]}
    for name in ESTIMATORS:
        curves[name] = [exact_variance(f, logits, k, name) for k in samples]
    figure, (axis,) = figures.new_figure(1, 6.2, 3.8)
    for position, (name, curve) in enumerate(curves.items()):
        print(f"{name:27}" + "".join(f"{value:10.4f}" for value in curve))
        figures.draw(axis, list(samples), curve, name, position=position)
    axis.set(xlabel=f"k of {K} classes", ylabel="variance of an estimate", yscale="log")
    figures.label_curves(axis)
    figures.save(figure, folder / "toy.png")
    print(f"run folder {folder}")


if __name__ == "__main__":
    cli.run(main)
