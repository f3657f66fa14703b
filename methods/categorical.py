"""Variables of C classes: the distribution and its relaxation, models, exact answers.

A variable is a one-hot b ~ Categorical(softmax(a)), a model has N of them in a layer: logits and
activations have the shape (..., N, C). CategoricalNet of harness/models.py offers to a method what
SBN does, with noise of shape (batch, N, C). The estimators are in gumbel_softmax.py.
"""

import itertools
import math

from common import InputError, gradients, shaped, softplus, stop_gradient, uniforms, value_of

import autograd.numpy as np
from autograd.extend import defjvp, defvjp, primitive

# ---------------------------- the categorical distribution, and the Concrete one, of y = log h


@primitive
def log_softmax(z):
    """log of exp(z) / Σ exp(z) over the last axis."""
    z = z - np.max(z, axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


defvjp(log_softmax, lambda ans, z: lambda g: g - np.exp(ans) * np.sum(g, axis=-1, keepdims=True))
defjvp(log_softmax, lambda g, ans, z: g - np.sum(np.exp(ans) * g, axis=-1, keepdims=True))


def softmax(z):
    return np.exp(log_softmax(z))


def log_prob(b, a):
    """log Categorical(b | softmax(a)) in nats, summed over the last two axes, (N, C)."""
    return np.sum(b * log_softmax(a), axis=(-2, -1))


def gumbel(u):
    return -np.log(-np.log(u))


def hard_sample(a, u):
    """b = one_hot(argmax(a + G)) ~ Categorical(softmax(a)), of a tie the first; not traced."""
    z = stop_gradient(a) + gumbel(u)
    return (np.arange(z.shape[-1]) == np.argmax(z, axis=-1)[..., None]).astype(z.dtype)


def conditional(a, b, v):
    """z = log π + G given b = one_hot(argmax z), from uniforms v like a, with π = softmax(a):

    −log(−log v_k / π_k − log v_b), a soft minimum of log π_k + G_k and the top G_b.
    """
    G = gumbel(v)
    top = np.sum(b * G, axis=-1, keepdims=True)
    return top - (1 - b) * softplus(top - log_softmax(a) - G)


def sample(a, u, temperature):
    """y = log h of the relaxed one-hot h = softmax((a + G) / T): eq. 2 of Jang et al. 2017."""
    return log_softmax((a + gumbel(u)) / temperature)


def log_density(y, a, temperature):
    """log density of the C − 1 log-ratios y_k − y_C, over the last axis: eq. 11 of Maddison et al.

    It is (C − 1)! T^(C−1) Π_k softmax(a − T y)_k; T to the power 1 − C is a published misprint.
    """
    C = a.shape[-1]
    constant = math.lgamma(C) + (C - 1) * np.log(temperature)
    return constant + np.sum(log_softmax(a - temperature * y), axis=-1)


def cdf(y, a, temperature):
    """P(Y_k − Y_C ≤ y_k − y_C for all k); the derivative in all log-ratios is the density."""
    return np.exp(log_softmax(a - temperature * y)[..., -1])


# --------------------------------------------------------------------- a few variables, exactly


class CategoricalToy:
    """The smallest model: params = [logits (n, D, C)], bound = f(one-hots (n, D, C))."""

    task = "predict"  # f holds neither log p nor log q of b

    def __init__(self, f):
        self.f = f

    def infer(self, params, x, sample, known_logits=()):
        (logits,) = known_logits or params
        return [sample(0, logits)], [logits]

    def bound(self, params, x, activations, logits):
        (b,) = activations
        return np.reshape(value_of(self.f, np.reshape(b, (-1, *b.shape[-2:]))), b.shape[:-2])


def check_logits(logits):
    """logits (D, C) as floats, each variable's largest 0, others at least −1e4; or InputError."""
    logits = shaped("logits", logits, finite=False, D=None, C=None)
    if not np.all(np.any(np.isfinite(logits), axis=1)) or np.any(logits == np.inf):
        raise InputError("logits: each variable needs a class with a finite logit, and none of +∞")
    return np.maximum(logits - np.max(logits, axis=1, keepdims=True), -1e4)


def check_samples(logits, u, v):
    """logits (D, C), u and v (n, D, C), checked for `gradient_samples`."""
    logits = check_logits(logits)
    axes, low = {"D": len(logits), "C": logits.shape[1]}, "tiny"
    u = uniforms("u", u, low, n=None, **axes)
    return logits, u, uniforms("v", v, low, n=len(u), **axes)


def exact_gradient(f, logits):
    """d/dlogits E[f(b)] by enumeration: (D, C). Raises InputError above 65,536 outcomes."""
    logits = check_logits(np.asarray(logits, np.float64))
    D, C = logits.shape
    if C**D > 2**16:
        raise InputError(f"enumeration is for at most 65,536 outcomes, not {C}^{D}")
    b = np.eye(C)[list(itertools.product(range(C), repeat=D))]  # (C^D, D, C)
    mean = lambda logits: ([np.sum(np.exp(log_prob(b, logits[0])) * value_of(f, b))], [])
    ((gradient,),), _ = gradients(mean, [logits])
    return gradient


def quadrature(logits, n=100):
    """Nodes u (3 n², 1, 3) and weights, for one variable of three classes: weights @ g(u) = E[g].

    g may depend on b and the differences of z, as a gradient does. If class k wins, by w₁ and w₂
    over the others, then b is k, and the differences have the density p_k of log h at T = 1:

        E[g] = Σ_k ∫∫ g(k, w₁, w₂) p_k(w₁, w₂) dw₁ dw₂    over w₁, w₂ > 0, where g is smooth.

    Put w = exp(s − exp(−s)), dw = w (1 + exp(−s)) ds. What is integrated then vanishes at both ends
    of s, with all its derivatives: at w = 0 because dw does, at ∞ because p_k falls as exp(−w). For
    such a function the trapezoidal rule converges exponentially. InputError if it is not exact.
    """
    s = np.linspace(-3.3, 3.4, n)
    w = np.exp(s - np.exp(-s))
    dw = w * (1 + np.exp(-s)) * (s[1] - s[0])
    log_pi, nodes, weights = log_softmax(shaped("logits", logits, D=1, C=3))[0], [], []
    for k in range(3):
        z = -np.insert(np.stack(np.meshgrid(w, w), -1).reshape(-1, 2), k, 0, axis=1)
        weights.append(np.outer(dw, dw).ravel() * np.exp(log_density(z, log_pi, 1.0)))
        G = z - log_pi  # free to be shifted, by so much that no u rounds to 0 or 1
        nodes.append(np.exp(-np.exp(6 + np.min(G, axis=1, keepdims=True) - G)))
    if not abs(np.sum(weights) - 1) < 1e-4:  # as for logits 30 apart
        raise InputError(f"logits: too far apart: the weights sum to {np.sum(weights):.3g}, not 1")
    return np.concatenate(nodes)[:, None], np.concatenate(weights)
