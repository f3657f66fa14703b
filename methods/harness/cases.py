"""Functions of a few bits or classes with known gradients: what check.py tries an estimator on."""

import itertools
import math
from typing import NamedTuple

from common import InputError, gradients, log_mean_exp

from harness.diagnostics import exact_model_gradient

import autograd.numpy as anp
import numpy as np
from scipy.special import log_expit, log_softmax

SHAPES = {  # of the terms t, (..., D), t_i = w_i b_i, and their sum s; smooth between 0 and 1
    "linear": lambda xp, t, s: s,
    "quadratic": lambda xp, t, s: (s - 0.45) ** 2,
    "cubic": lambda xp, t, s: (s - 0.3) ** 3,
    "exp": lambda xp, t, s: xp.exp(s),
    "one bit": lambda xp, t, s: (t[..., -1] + 1) ** 3,
    "offset": lambda xp, t, s: 20 + 0.5 * (s - 0.45) ** 2,
    "product": lambda xp, t, s: math.prod(t[..., i] + 1.3 for i in range(t.shape[-1])),
}
SCALES = (0.3, 2.0, 6.0)  # of the logits
MOST_OUTCOMES = 2**16


class Case(NamedTuple):
    name: str
    scale: float
    logits: np.ndarray  # (D,) or (D, C)
    w: np.ndarray  # like logits
    exact: np.ndarray  # the gradient, flat
    spread: float  # of f: the largest value less the smallest
    largest: float  # |f|
    reinforce_variance: np.ndarray  # of an estimate by REINFORCE without a baseline, flat

    @property
    def label(self):
        return f"±{self.scale:g}" if len(self.logits) > 1 else f"{self.scale:g}"


def function(case, backend, probe=lambda b: b):
    """f of the case for arrays of the backend: b (..., D), or one-hots (..., D, C), to (...)."""
    xp, w, shape = backend.xp, backend.tensor(case.w), case.w.shape

    def f(b):
        if tuple(b.shape[-len(shape) :]) != shape:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"f takes an array (n, {wanted}) and was given {tuple(b.shape)}")
        return SHAPES[case.name](xp, *terms(xp, probe(b), w))

    return f


def terms(xp, b, w):
    """t, (..., D), and s, (...)."""
    t = b * w
    t = xp.sum(t, axis=-1) if w.ndim == 2 else t
    return t, xp.sum(t, axis=-1)


def cases(bits, classes=None, samples=1, target="mean"):
    """All functions at all logits. For one bit the scales come with both signs."""
    shape = (bits, classes) if classes else (bits,)
    size = math.prod(shape)
    count = (classes or 2) ** bits
    if target == "bound":
        count = math.comb(count + samples - 1, samples)
    if count > MOST_OUTCOMES:
        raise InputError(
            f"the exact gradient is a sum over {count} outcomes, and at most {MOST_OUTCOMES} are "
            "allowed: use fewer --bits, --classes or --samples"
        )
    k = np.arange(size).reshape(shape)
    signs, sizes = 1 - 2.0 * (k % 2), 1 - 0.5 * k / size  # no two alike
    w = (0.9 - 0.1 * signs) * sizes * -signs[::-1] * min(1, math.sqrt(5 / bits))
    scales = [s * sign for s in SCALES for sign in ((1, -1) if bits == 1 and s > 1 else (1,))]
    made = []
    for scale in scales:
        logits = scale * signs * (sizes if scale < 1 or classes else 1 - 0.1 * k / size)
        for name in SHAPES:
            case = Case(name, scale, logits, w, *[None] * 4)
            made.append(case._replace(**known(case, samples, target)))
    return made


def known(case, samples, target):
    """exact, spread, largest and reinforce_variance of a case, by enumeration of all outcomes."""
    logits, shape = case.logits, case.logits.shape
    if logits.ndim == 2:
        b = np.eye(shape[1])[list(itertools.product(range(shape[1]), repeat=shape[0]))]
        log_p = np.sum(b * log_softmax(logits, axis=-1), axis=(1, 2))
        mean = np.exp(log_softmax(logits, axis=-1))
    else:
        b = np.array(list(itertools.product((0.0, 1.0), repeat=shape[0])))
        log_p = np.sum(b * log_expit(logits) + (1 - b) * log_expit(-logits), axis=1)
        mean = np.exp(log_expit(logits))
    f = np.asarray(SHAPES[case.name](np, *terms(np, b, case.w)))  # (outcomes,)
    score = (b - mean).reshape(len(b), -1)  # (outcomes, size)
    spread, largest = float(np.ptp(f)), float(np.max(np.abs(f)))
    if target == "bound":
        index, log_many = multisets(len(b), samples)
        log_p = log_many + log_p[index].sum(axis=1)
        f, score = log_mean_exp(f[index], axis=1), score[index].sum(axis=1)
    p, g = np.exp(log_p)[:, None], f[:, None] * score
    exact = np.sum(p * g, axis=0)
    # f less its mean, or else the large offset would leave only half the digits of a gradient at ±6
    centred = (f - np.sum(p[:, 0] * f))[:, None] * score
    variance = np.sum(p * g * g, axis=0) - exact**2
    return {
        "exact": np.sum(p * centred, axis=0),
        "spread": spread,
        "largest": largest,
        "reinforce_variance": variance / (samples if target == "mean" else 1),
    }


def multisets(outcomes, samples):
    """Every multiset of `samples` out of the outcomes, (m, samples), and the log of how many
    ordered draws are like it, (m,)."""
    pairs = itertools.combinations_with_replacement(range(outcomes), samples)
    index = np.fromiter(itertools.chain.from_iterable(pairs), int).reshape(-1, samples)
    run, log_same = np.ones(len(index)), np.zeros(len(index))
    for i, j in zip(index.T[:-1], index.T[1:]):
        run = np.where(i == j, run + 1, 1)  # r! of a run of r equal ones, factor by factor
        log_same += np.log(run)
    return index, math.lgamma(samples + 1) - log_same


def exact_bound_gradient(model, params, x, samples):
    """Gradient of the mean over x of E[log mean_k exp bound(b_k)], a list like params."""
    if samples == 1:
        return exact_model_gradient(model, params, x)
    total = sum(model.units)
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=total)))
    tiled = np.broadcast_to(bits[:, None], (len(bits), len(x), total)).astype(model.dtype)
    layers = np.split(tiled, np.cumsum(model.units)[:-1], axis=-1)
    index, log_many = multisets(len(bits), samples)

    def mean_bound(params):
        b, a = model.infer(params, x, lambda layer, logits: layers[layer])
        f, log_q = model.bound(params, x, b, a), 0  # (outcomes, batch)
        for b_i, a_i in zip(b, a):
            log_q = log_q + anp.sum(b_i * a_i - anp.logaddexp(0, a_i), axis=-1)
        log_p = log_many[:, None] + anp.sum(log_q[index], axis=1)
        return [anp.sum(anp.exp(log_p) * log_mean_exp(f[index], axis=1)) / len(x)], []

    (grads,), _ = gradients(mean_bound, params)
    return grads
