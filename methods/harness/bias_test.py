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
f. Where the noise makes rare bits frequent (`draw_noise`), RARE times the gradient's norm will do,
if that is less: an estimator whose whole gradient came from events of probability 1 / RARE has
values of that size. The guarantee fails only for one that lives on events rarer than this, which
have not shown themselves in n draws. All tests at all looks share δ (Bonferroni).

Rows that use each other, as with the mean of a batch for a baseline, may be unbiased together and
not for every number of them. So they come in calls of FEW, and a call counts once.
"""

import itertools
import math

from common import logit, sigmoid

import numpy as np
from scipy.special import ndtri, stdtrit

FALSE_ALARM, POWER = 1e-6, 0.99
ESTIMATES = 256_000  # at most, of every gradient
LOOKS = 4  # each at four times as many estimates as the one before
RARE = 200  # see above
CALLS = 16  # of equal size, at every look; twice as many at the first
SHARED_NOISE = 1.8  # their means vary so many times more than those of independent rows would
FEW = 4  # rows
TOO_LARGE = 1e100  # a value whose square is no number soon


def looks(estimates):
    return [min(estimates, max(1024, estimates // 4**k)) for k in reversed(range(LOOKS))]


class Evidence:
    """Running sums over the deviations of estimates (n, size) from `exact` (size,).

    R is at least `least_range`; `spread`, that of f, tells what is mere rounding. `shared`: the
    rows of a call use each other, and come in calls of FEW.
    """

    def __init__(self, exact, spread, least_range=0.0, shared=False):
        self.exact, self.spread, self.least_range = exact, spread, least_range
        self.n, self.calls, self.shared, self.few = 0, [], shared, shared
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
        self.calls.append(x.mean(axis=0))

    def compare_calls(self, n, rows):
        """By the last n calls, of `rows` rows each: do the rows of a call share noise?"""
        if n < 2:
            return
        of_rows = np.sqrt(np.maximum(self.square / self.n - (self.total / self.n) ** 2, 0))
        of_calls = np.std(self.calls[-n:], axis=0, ddof=1) * math.sqrt(rows)
        self.shared |= bool(np.any(of_calls > SHARED_NOISE * of_rows + 1e-12 * self.spread))

    def mean(self):
        return self.exact + self.total / self.n

    def variance(self):
        """Of one estimate, under its own distribution: (size,)."""
        return np.maximum(self.second / self.n - self.mean() ** 2, 0)

    def bernstein(self, delta):
        """The deviation of the mean, its standard error, and what |deviation| may be: (size,).

        If the rows of a call share noise, the means of whole calls are what is tested.
        """
        n, m, least = self.n, self.total / self.n, self.least_range
        square, low, high = self.square, self.low, self.high
        if self.shared:
            calls = np.array(self.calls)  # (calls, size)
            n, m, square = len(calls), calls.mean(axis=0), np.sum(calls**2, axis=0)
            least = least if self.few else 0.0
            low, high = calls.min(axis=0), calls.max(axis=0)
        error = np.sqrt(np.maximum(square / n - m * m, 0) / (n - 1))
        R, log = np.maximum(2 * (high - low), least), math.log(4 / delta)
        limit = math.sqrt(2 * log) * error + 7 * R * log / (3 * (n - 1))
        return m, error, limit + 1e-12 * self.spread

    def student(self, delta, rows, rounding):
        """The same for estimates that are themselves means, of `rows` rows, and so nearly normal.

        `least_range` pays for events of a row that were not seen, `rounding` is relative.
        """
        n, m = self.n, self.total / self.n
        error = np.sqrt(np.maximum(self.square / n - m * m, 0) / (n - 1))
        limit = -stdtrit(n - 1, delta / 2) * error + rounding * (self.spread + np.abs(self.exact))
        unseen = 7 * self.least_range * math.log(4 / delta) / (3 * (n * rows - 1))
        return m, error, limit + unseen


def detectable(error, limit):
    """The smallest bias that is found with probability POWER: (size,)."""
    return limit + ndtri(POWER) * error


# ------------------------------------------------------------------------ noise that visits corners


def draw_noise(rng, logits, shape, corner):
    """Uniforms u, v of a shape (n, ..., D), and the weights (n,) of the rows.

    Each coordinate of u is plain with probability 1 − corner. Else logit(u) is moved by plus or
    minus its logit a, which makes b = 1[a + logit(u) > 0], or b = 1[u < σ(a)], a fair bit, and
    values of z = a + logit(u) near 0 frequent. The weight is the ratio of the densities, at most
    (1 − corner) ** −coordinates. corner = 0 is plain noise, with weights of 1.
    """
    u, v = np.clip(rng.random((2, *shape)), 1e-6, 1 - 1e-6)
    weights = np.ones(shape[0])
    if corner:
        moved = (rng.random(shape) < corner) * np.sign(rng.random(shape) - 0.5)  # 0, 1 or −1
        x = logit(u) + moved * logits
        u = np.clip(sigmoid(x), 1e-6, 1 - 1e-6)
        slope = lambda x: sigmoid(x) * sigmoid(-x)  # the density of logit(u)
        fair = (slope(x - logits) + slope(x + logits)) / (2 * slope(x))
        density = 1 - corner + corner * fair
        weights = 1 / density.reshape(shape[0], -1).prod(axis=1)
    return u, v, weights


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
