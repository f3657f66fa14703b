"""check.py: right estimators pass, wrong ones are found, its statistics keep their promises.

Estimators of this file are written out, each with the mistakes that people make in it: `wrong`
names one. The mutations of the other suites go through the tool too. Every check has a false-alarm
rate of 1e-6; tests/benchmarks/check_seeds.py repeats the right ones with hundreds of seeds.
"""

import json
import os
import subprocess
import sys
from functools import partial

import autograd.numpy as anp
import check
import numpy as np
import proofs
import pytest
import test_gumbel_softmax
import test_mutations
import test_muprop
import test_nvil
from autograd import elementwise_grad
from common import exact_gradient, log_mean_exp, logit, sigmoid
from harness import backends, bias_test, cases, check_report, model_check
from scipy import stats

M = proofs.load()
NUMPY = backends.numpy_backend()
QUICK = {"estimates": 16_000}

# ---------------------------------------------------------------- estimators, right and wrong


def gradient(f, b):
    """∇f at every row of b."""
    return elementwise_grad(lambda b: anp.sum(f(b)))(b)


def reinforce(f, logits, u, v, wrong=None):
    theta = sigmoid(-logits if wrong == "sign of the logits" else logits)
    if wrong == "one uniform for all bits":
        u = u[:, :1]
    b = (u < theta) * 1.0 * np.ones(logits.shape)
    signal, score = f(b), b - theta
    if wrong == "probability for logit":
        score = score / (theta * (1 - theta))
    if wrong == "score of 1 only":
        score = b * (1 - theta)
    if wrong == "gradient of a mean for that of a sum":
        signal = signal / len(u)
    if wrong == "mean over the wrong axis":
        signal = np.mean(f(b)[:, None] * np.ones(b.shape), axis=0, keepdims=True)
        return signal * score
    if wrong == "float16":
        signal = signal.astype(np.float16)
    if wrong == "divided by its size":
        signal = signal / np.abs(signal)
    if wrong == "clipped":
        signal = np.clip(signal, -3, 3)
    if wrong == "rows normalised":
        signal = (signal - signal.mean()) / signal.std()
    if wrong == "signs squared":
        score = np.abs(score)
    if wrong == "bits in reverse":
        score = score[:, ::-1]
    return signal[:, None] * score


def rloo(f, logits, u, v, wrong=None):
    """u (n, K, D)."""
    theta, K = sigmoid(logits), u.shape[1]
    b = (u < theta) * 1.0
    fs = f(b)  # (n, K)
    baseline = (fs.sum(axis=1, keepdims=True) - fs) / (K - 1)
    if wrong == "its own sample in the baseline":
        baseline = fs.mean(axis=1, keepdims=True)
    if wrong == "off by one: divided by K":
        baseline = (fs.sum(axis=1, keepdims=True) - fs) / K + 0.1 * fs
    if wrong == "off by one: the sample before":
        baseline = np.roll(fs, 1, axis=1)
        baseline[:, 0] = fs[:, 0]
    signal = fs - baseline
    if wrong == "divided by the standard deviation":
        signal = signal / (fs.std(axis=1, keepdims=True) + 1e-8)
    if wrong == "leave-one-out of float16 sums":
        low = fs.astype(np.float16)
        signal = fs - (low.sum(axis=1, keepdims=True, dtype=np.float16) - low) / (K - 1)
    mean = np.sum if wrong == "sum for mean over samples" else np.mean
    return mean(signal[..., None] * (b - theta), axis=1)


def vimco(f, logits, u, v, wrong=None):
    """Of the bound of K samples; u (n, K, D)."""
    theta, K = sigmoid(logits), u.shape[1]
    b = (u < theta) * 1.0
    fs = f(b)
    L = log_mean_exp(fs, axis=1)[:, None]
    others = (fs.sum(axis=1, keepdims=True) - fs) / (K if wrong == "others divided by K" else K - 1)
    if wrong == "mean with the sample itself":
        others = fs.mean(axis=1, keepdims=True) + 0 * fs
    swapped = np.where(np.eye(K, dtype=bool), others[:, :, None], fs[:, None])
    baseline = log_mean_exp(swapped, axis=2)
    signal = fs - baseline if wrong == "f for L" else L - baseline
    return np.sum(signal[..., None] * (b - theta), axis=1)


def disarm(f, logits, u, v, wrong=None):
    theta = sigmoid(logits)
    b, other = (u > 1 - theta) * 1.0, (u < theta) * 1.0
    if wrong == "independent pair":
        other = (v < theta) * 1.0
    sign = np.where(other == 1, -1.0, 1.0) * (b != other)
    if wrong == "no indicator":
        sign = np.where(other == 1, -1.0, 1.0)
    weight = sigmoid(logits if wrong == "σ(a) for σ(|a|)" else np.abs(logits))
    half = 1.0 if wrong == "without the half" else 0.5
    return half * (f(b) - f(other))[:, None] * sign * weight


def muprop(f, logits, u, v, wrong=None):
    theta = sigmoid(logits)
    b, mu = (u < theta) * 1.0, np.tile(theta, (len(u), 1))
    D = gradient(f, b if wrong == "expanded around the sample" else mu)
    signal = f(b) - f(mu) - np.sum(D * (b - mu), axis=1)
    slope = D if wrong == "θ(1 − θ) forgotten" else D * theta * (1 - theta)
    return signal[:, None] * (b - theta) + (0 if wrong == "correction forgotten" else slope)


def rebar(f, logits, u, v, wrong=None, T=0.5, eta=0.8):
    """z̃ from v."""
    if wrong == "u and v the same array":
        v = u
    theta = sigmoid(logits)
    z = logits + logit(u)
    b = (z > 0) * 1.0
    s = 2 * b - 1

    def conditional(a):
        z_tilde = s * anp.log1p(anp.exp(s * logit(v) + anp.log1p(anp.exp(s * a))))
        return anp.log1p(anp.exp(s * logit(v) + anp.log1p(anp.exp(a)))) if wrong == "sign" else z_tilde

    soft = lambda z: 1 / (1 + anp.exp(-z / T))
    z_tilde = conditional(logits + 0 * u)
    slope = elementwise_grad(conditional)(logits + 0 * u)
    if wrong == "dz̃/da = 1":
        slope = 1 + 0 * slope
    if wrong == "dz̃/da dropped":
        slope = 0 * slope
    path = lambda z, dz: gradient(lambda z: f(soft(z)), z) * dz
    tilde = path(z_tilde, slope)
    if wrong == "f(z̃) detached":
        tilde = 0 * tilde
    scale = 1.0 if wrong == "η on one term only" else eta
    score = (f(b) - eta * f(soft(z_tilde)))[:, None] * (b - theta)
    return score + scale * (path(z, 1.0) - tilde)


def straight_through(f, logits, u, v):
    theta = sigmoid(logits)
    return gradient(f, (u < theta) * 1.0) * theta * (1 - theta)


def reinmax(f, logits, u, v):
    """Liu et al. 2023 (arXiv 2304.08612): the trapezoidal rule, for bits.

    f(1) − f(0) ≈ (f'(0) + f'(1)) / 2; a sample of weight 1 / (2 q(b)) stands for both ends.
    """
    theta = sigmoid(logits)
    b = (u < theta) * 1.0
    q = np.where(b == 1, theta, 1 - theta)
    return gradient(f, b) * theta * (1 - theta) / (2 * q)


WRONG = {
    reinforce: [
        "sign of the logits", "one uniform for all bits", "probability for logit",
        "score of 1 only", "gradient of a mean for that of a sum", "mean over the wrong axis",
        "divided by its size", "clipped", "rows normalised", "signs squared", "bits in reverse",
    ],
    rloo: [
        "its own sample in the baseline", "off by one: divided by K",
        "off by one: the sample before", "divided by the standard deviation",
        "leave-one-out of float16 sums", "sum for mean over samples",
    ],
    vimco: ["mean with the sample itself", "f for L"],
    disarm: ["independent pair", "no indicator", "σ(a) for σ(|a|)", "without the half"],
    muprop: ["expanded around the sample", "θ(1 − θ) forgotten", "correction forgotten"],
    rebar: ["u and v the same array", "sign", "dz̃/da = 1", "dz̃/da dropped", "f(z̃) detached",
            "η on one term only"],
}  # fmt: skip
OPTIONS = {rloo: {"samples": 3}, vimco: {"samples": 3, "target": "bound", "bits": 3}}
EXPLICIT = [(function, name) for function, names in WRONG.items() for name in names]


@pytest.mark.parametrize(("function", "wrong"), EXPLICIT, ids=str)
def test_wrong_estimator_is_found(function, wrong):
    options = OPTIONS.get(function, {})
    assert not check.check(partial(function, wrong=wrong), **options).unbiased


def test_float16_is_found_by_integration():
    report = check.check(partial(reinforce, wrong="float16"), bits=1)
    assert not report.unbiased
    assert any(row.biased for row in report.rows if row.function == "offset")


@pytest.mark.parametrize("function", WRONG)
def test_right_estimator_passes(function):
    report = check.check(function, **OPTIONS.get(function, {}), **QUICK)
    report.assert_unbiased()
    assert len(report.rows) == 21
    assert report.verdict.startswith("unbiased as far as ")
