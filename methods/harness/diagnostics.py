"""Bias and variance of a gradient, measured."""

import math
from typing import NamedTuple

from common import all_bits, bernoulli_log_prob, gradients

from harness.optimizer import _blocks

import autograd.numpy as anp
import numpy as np
from scipy.special import ndtri, stdtrit
from tqdm import tqdm


class GradientVariance:
    """Mean over parameters of a gradient's variance, from debiased averages of g and |g|²."""

    def __init__(self, size, decay=0.999, dtype=np.float32):
        self.decay, self.t = decay, 0
        self.m1, self.m2 = np.zeros(size, dtype), np.zeros(())

    def update(self, gradient):
        """Take in one gradient (size,); returns the present estimate, and it without debiasing.

        The latter starts at 0 and is what the REBAR authors' code prints.
        """
        first = square = 0.0
        for g, m1, _ in _blocks(gradient, self.m1):
            m1 *= self.decay
            m1 += g
            first += float(m1 @ m1)
            square += g @ g
        return self.take(first, square)

    def take(self, first, square):
        """The rest of `update`, given |m1|² after the step and |g|²."""
        self.t += 1
        self.m2 *= self.decay
        self.m2 += square
        weights = (1 - self.decay**self.t) / (1 - self.decay), 1 / (1 - self.decay)
        return [(float(self.m2) / w - first / w**2) / len(self.m1) for w in weights]


class SignalToNoise:
    """Variance and signal-to-noise ratio of a minibatch's gradient g = mean_i g_i of n images.

    The g_i of single images are independent and have one expectation, so that

        noise   (mean_i |g_i|² − |g|²) / (n − 1)    has expectation  tr Cov g,
        signal  |g|² − noise                        has expectation  |E g|².

    All of them are taken at the same parameters, so this holds while the parameters move. (The
    average of successive gradients would not do. Their noise cancels within an epoch, in which
    every image comes once, and around an optimum, where steps forth follow steps back.)
    """

    def __init__(self, size, decay=0.99):
        self.size, self.decay = size, decay
        self.weight, self.signal, self.noise = np.zeros((3, 1))

    def update(self, square, mean_square, n):
        """Take in |g|² and mean_i |g_i|² of a minibatch of n ≥ 2 images.

        Returns, by moving averages, log mean_d Var g_d over the `size` parameters d, and
        √(|E g|² / tr Cov g), which is 0 where no signal can be told from the noise.
        """
        noise = (mean_square - square) / (n - 1)
        for average, new in ((self.weight, 1), (self.signal, square - noise), (self.noise, noise)):
            average *= self.decay
            average += new
        (weight,), (signal,), (noise,) = self.weight, self.signal, np.maximum(self.noise, 1e-300)
        return math.log(noise / weight / self.size), math.sqrt(max(signal, 0) / noise)


# ---------------------------------------------------------------------------------- the bias check

FALSE_ALARM, POWER = 1e-3, 0.99


def bias_check(draw_pair, names, precision, most_draws):
    """Has the gradient of the estimator names[0] the expectation of that of names[1]?

    `draw_pair()` returns both for one minibatch, from the same noise and always at the same
    parameters: a vector (size,) each. Every call draws other images and other noise.
    A pooled test, of the mean difference over all parameters, misses biases of opposite sign, which
    cancel in it. Here every parameter also has a t of its own, and the largest decides, at a level
    that makes a false alarm in any of them as rare as FALSE_ALARM (Bonferroni).
    The check ends when a bias of `precision` times the gradient's norm, in any single parameter,
    would be found with probability POWER, or after `most_draws` ≥ 2. Returns a dict of what was
    found, with the verdict in words.
    """
    n, pooled = 0, []
    total = total_square = gradient = 0.0  # sums over draws, (size,)
    gradient_square = difference_square = 0.0  # sums of squared norms
    while True:
        g, h = (np.asarray(vector, np.float64) for vector in draw_pair())
        d, n = g - h, n + 1
        pooled.append(np.mean(d))
        total, total_square, gradient = total + d, total_square + d * d, gradient + h
        gradient_square, difference_square = gradient_square + h @ h, difference_square + d @ d
        if n < most_draws and n % 100:
            continue
        mean = total / n
        error = np.sqrt(np.maximum(total_square / n - mean**2, 0) / (n - 1))
        t = np.abs(mean) / np.maximum(error, 1e-300)
        limit = -stdtrit(n - 1, FALSE_ALARM / (2 * len(t)))
        # squared norms of the expectations, without the noise that those of the means have
        norm, bias = (
            math.sqrt(max(s @ s - squares, 0) / (n * (n - 1)))
            for s, squares in ((gradient, gradient_square), (total, difference_square))
        )
        detectable = (limit + ndtri(POWER)) * error.max() / max(norm, 1e-300)
        result = {
            "draws": n,
            "pooled_t": float(np.mean(pooled) * n**0.5 / max(np.std(pooled, ddof=1), 1e-300)),
            "largest_t": float(t.max()), "limit": float(limit), "detectable": float(detectable),
            "bias_norm": bias / max(norm, 1e-300), "gradient_norm": norm,
        }  # fmt: skip
        tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in result.items()))
        if detectable <= precision or n >= most_draws:
            break
    return result | {"verdict": verdict(names, result, precision, len(t))}


def verdict(names, result, precision, n_parameters):
    """The outcome of bias_check in words."""
    name, against = names
    rate = f"false alarms: {FALSE_ALARM:g} of all checks"
    if result["largest_t"] > result["limit"]:
        return (f"{name} is biased with respect to {against}: the largest |t| of a parameter is "
                f"{result['largest_t']:.1f}, above {result['limit']:.1f} ({rate}); the norm of "
                f"the bias is about {result['bias_norm']:.2g} of the gradient's")  # fmt: skip
    if result["detectable"] == 0:
        return f"{name} and {against} had the same gradient in all {result['draws']} draws"
    found = (f"a bias of {result['detectable']:.2g} of the gradient's norm in any one of "
             f"{n_parameters} parameters would be found with probability {POWER}")  # fmt: skip
    if result["detectable"] <= precision:
        return f"no bias of {name} with respect to {against} found: {found} ({rate})"
    return f"undecided after {result['draws']} draws: only {found}; raise --draws"


# ------------------------------------------------------------------- the test of an expected value


def exact_model_gradient(model, params, x):
    """Exact gradient of the mean bound over the rows of x, a list like params, by enumeration.

    Raises InputError (a ValueError) above 16 hidden bits.
    """
    bits = all_bits(sum(model.units)).astype(model.dtype)  # (2^total, total)
    bits = np.broadcast_to(bits[:, None, :], (len(bits), len(x), bits.shape[1]))
    layers = np.split(bits, np.cumsum(model.units)[:-1], axis=-1)

    def expected_bound(params):
        b, a = model.infer(params, x, lambda layer, logits: layers[layer])
        log_q = sum(bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))  # (2^total, batch)
        return [anp.sum(anp.exp(log_q) * model.bound(params, x, b, a)) / len(x)], []

    (grads,), _ = gradients(expected_bound, params)
    return grads


class MeanTest(NamedTuple):
    """What `mean_test` found: a limit for all columns, and the rest with a value for each."""

    t: np.ndarray  # |mean − expected| / its standard error
    limit: float  # a t above it is a false alarm with the stated probability
    bias: np.ndarray  # mean − expected
    detectable: np.ndarray  # the smallest bias that would be found with the stated power

    @property
    def passed(self):
        return bool(np.all(self.t < self.limit))  # False for a t that is not a number

    def __str__(self):
        worst = float(np.max(self.t))  # a NaN if there is one
        if self.passed:
            return f"no bias seen: |t| {worst:.1f} below {self.limit:.1f}"
        return f"biased: |t| {worst:.1f} above {self.limit:.1f}"


def mean_test(samples, expected, false_alarm=1e-6, power=0.99):
    """Student's t-test of the mean of every column against `expected`, two-sided: a MeanTest.

    `samples` (n, …) has n ≥ 2 independent rows, close to normal, such as means over blocks of
    draws; `expected` is what the means have to be, of the shape of a row, or one number. An
    unbiased estimator fails in any column with a probability of at most `false_alarm` (Bonferroni).
    A bias of `detectable` in a column is found with probability `power`. Raises ValueError for
    less than two rows, or for an `expected` that does not fit a row.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim < 1 or len(samples) < 2:
        raise ValueError(f"samples: at least two rows are needed, not shape {samples.shape}")
    expected = np.asarray(expected, np.float64)
    if expected.shape not in ((), samples.shape[1:]):
        raise ValueError(
            f"expected: a row of samples has shape {samples.shape[1:]}, not {expected.shape}"
        )
    n, samples = len(samples), samples.reshape(len(samples), -1)
    rounding = 1e-12 * np.max(np.abs(samples), initial=1e-300)
    error = np.maximum(samples.std(axis=0, ddof=1) / math.sqrt(n), rounding)
    bias = samples.mean(axis=0) - expected.ravel()
    limit = float(-stdtrit(n - 1, false_alarm / (2 * samples.shape[1])))
    detectable = (limit + ndtri(power)) * error
    return MeanTest(np.abs(bias) / error, limit, bias, detectable)


def gradient_test(model, params, x, estimator, rng, *, blocks=100, rows=2000, draw_noise=None,
                  false_alarm=1e-6, power=0.99, exact=None):  # fmt: skip
    """Is the estimator's mean the enumerated gradient? (MeanTest over all parameters, the latter).

    `estimator(x, noise)` returns gradients like params of the mean bound of the rows of x. Each of
    `blocks` independent gradients takes `rows` // len(x) draws for every image; `draw_noise(rng,
    rows)` is the model's unless given. For models whose bits can be enumerated (see
    exact_model_gradient); `exact`, like params, is there for another objective than the mean
    bound of one sample. `false_alarm` and `power` are those of `mean_test`.
    """
    draw_noise = draw_noise or model.draw_noise
    flat = lambda grads: np.concatenate([np.ravel(g) for g in grads]).astype(np.float64)
    exact = flat(exact_model_gradient(model, params, x) if exact is None else exact)
    tiled = np.repeat(x, rows // len(x), axis=0)
    means = [flat(estimator(tiled, draw_noise(rng, len(tiled)))) for _ in range(blocks)]
    return mean_test(means, exact, false_alarm, power), exact
