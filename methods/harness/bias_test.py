"""Is the mean of an estimator the exact gradient? A sequential test without a normal assumption.

The deviations x of n estimates from the exact value have a mean m, a variance V and a range R.
Maurer & Pontil 2009 (arXiv 0907.3740, theorem 4): for any distribution with that range, if the true
mean is 0,

    P(|m| > sqrt(2 V log(4/δ) / n) + 7 R log(4/δ) / (3 (n − 1)))  ≤  δ.

A z-test would want normal means instead. It fails at logits of ±6: there a bit turns once in 400
draws, a few thousand draws have a handful of such events, and a sample without one has next to no
variance, hence an enormous z. The first term of the bound is 6.4 standard errors at δ = 3e-9, where
a z-test has 6; the second pays for the events that were not seen.

R is not known. In its place is twice the range of the deviations so far, and at least the spread of
f, or a hundredth of it where the noise visits rare bits (`draw_noise`): what has not been seen yet
has a small weight there. So the guarantee fails only for an estimator whose largest values are more
than twice those seen and rarer than about 20 / n. All tests at all looks share δ (Bonferroni).
"""

import itertools
import math

import numpy as np
from scipy import stats

FALSE_ALARM, POWER = 1e-6, 0.99
ESTIMATES = 256_000  # at most, of every gradient
LOOKS = 4  # each at four times as many estimates as the one before
SHARED_NOISE = 1.8  # the errors of whole calls are so many times what independent rows explain


def looks(estimates):
    return [max(64, estimates // 4**k) for k in reversed(range(LOOKS))]


class Evidence:
    """Running sums over the deviations of estimates (n, size) from `exact` (size,).

    R is at least `least_range`; `spread`, that of f, tells what is mere rounding.
    """

    def __init__(self, exact, spread, least_range=0.0):
        self.exact, self.spread, self.least_range = exact, spread, least_range
        self.n, self.calls = 0, []
        self.total, self.square, self.second = (np.zeros(exact.size) for _ in range(3))
        self.low, self.high = np.full(exact.size, np.inf), np.full(exact.size, -np.inf)

    def add(self, g, weights):
        """Take in one call's estimates g (n, size), with the importance weights of its noise."""
        x = weights[:, None] * g - self.exact
        self.n += len(x)
        self.total += x.sum(axis=0)
        self.square += (x * x).sum(axis=0)
        self.second += weights @ (g * g)
        self.low = np.minimum(self.low, x.min(axis=0))
        self.high = np.maximum(self.high, x.max(axis=0))
        self.calls.append((len(x), x.sum(axis=0)))

    def mean(self):
        return self.exact + self.total / self.n

    def variance(self):
        """Of one estimate, under its own distribution: (size,)."""
        return np.maximum(self.second / self.n - self.mean() ** 2, 0)

    def bernstein(self, delta):
        """The deviation of the mean, its standard error, and what |deviation| may be: (size,).

        If the rows of a call share noise, the means of whole calls are tested instead, by Student.
        """
        n, m = self.n, self.total / self.n
        error = np.sqrt(np.maximum(self.square / n - m * m, 0) / (n - 1))
        R = np.maximum(2 * (self.high - self.low), self.least_range)
        log = math.log(4 / delta)
        limit = math.sqrt(2 * log) * error + 7 * R * log / (3 * (n - 1))
        rows, sums = (np.array(part) for part in zip(*self.calls))
        B = len(rows)
        of_calls = np.sqrt(np.sum((sums - rows[:, None] * m) ** 2, axis=0) * B / (B - 1)) / n
        if B >= 32 and np.any(of_calls > SHARED_NOISE * error + 1e-12 * self.spread):
            error = np.maximum(error, of_calls)
            limit = np.maximum(limit, stats.t.isf(delta / 2, B - 1) * error)
        return m, error, limit

    def student(self, delta):
        """The same for estimates that are themselves means of many, and so nearly normal."""
        n, m = self.n, self.total / self.n
        error = np.sqrt(np.maximum(self.square / n - m * m, 0) / (n - 1))
        limit = stats.t.isf(delta / 2, n - 1) * error + 1e-12 * (self.spread + np.abs(self.exact))
        return m, error, limit


def detectable(error, limit):
    """The smallest bias that is found with probability POWER: (size,)."""
    return limit + stats.norm.isf(1 - POWER) * error


# ------------------------------------------------------------------------ noise that visits corners


def draw_noise(rng, theta, shape, corner):
    """Uniforms u, v of a shape (n, ..., D), and the weights (n,) of the rows.

    The thresholds θ and 1 − θ divide [0, 1] into three cells, and each coordinate of u falls into
    each of them with a probability of at least `corner`, roughly; the weight is the ratio of the
    densities. So rare bits are not rare, and no weight is above exp(2 corner · coordinates).
    corner = 0 is plain uniform noise, with weights of 1.
    """
    u, v = rng.random((2, *shape))
    weights = np.ones(shape[0])
    if corner:
        low = np.minimum(theta, 1 - theta)
        p = np.array([low, 1 - 2 * low, low])  # (3, D)
        q = np.maximum(p, corner)
        q = q / q.sum(axis=0)
        start = np.array([0 * low, low, 1 - low])
        x = rng.random(shape)
        cell = (x > q[0]).astype(int) + (x > q[0] + q[1])  # (n, ..., D)
        column = np.broadcast_to(np.arange(len(low)), shape)
        u = start[cell, column] + u * p[cell, column]
        ratio = (p / q)[cell, column]
        weights = ratio.reshape(shape[0], -1).prod(axis=1)
    return np.clip(u, 1e-6, 1 - 1e-6), np.clip(v, 1e-6, 1 - 1e-6), weights


def one_bit_nodes(theta, m):
    """Nodes u, v (9 m², 1) and weights of a rule for E[g(u, v)], split at θ and 1 − θ.

    In every piece it is the tanh-sinh rule, which does not mind singularities and steep slopes at
    the ends of a piece.
    """
    t = (np.arange(m) + 0.5) * (5.8 / m) - 2.9
    x = 1 / (1 + np.exp(-np.pi * np.sinh(t)))
    w = np.pi * np.cosh(t) * x * (1 - x) * (5.8 / m)
    edges = np.array([0, min(theta, 1 - theta), max(theta, 1 - theta), 1])
    nodes = np.concatenate([a + (b - a) * x for a, b in itertools.pairwise(edges)])
    weights = np.concatenate([(b - a) * w for a, b in itertools.pairwise(edges)])
    nodes, weights = np.clip(nodes, 1e-12, 1 - 1e-12), weights / weights.sum()
    u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    return u, v, np.outer(weights, weights).ravel()
