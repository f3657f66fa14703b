"""Variables of K classes: the distribution and its relaxation, models, exact answers.

A variable is a one-hot b ~ Categorical(softmax(a)), a model has N of them in a layer: logits and
activations have the shape (..., N, K). What CategoricalNet offers to a method is what SBN does, but
for noise, (batch, N, K). Nothing here estimates a gradient; gumbel_softmax.py does.
"""

import itertools
import math

from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    bernoulli_log_prob,
    draw_noise,
    gradients,
    init_mlp,
    logit,
    mlp,
    sigmoid,
    stop_gradient,
)

import autograd.numpy as np
from autograd.extend import defvjp, primitive

# ---------------------------- the categorical distribution, and the Concrete one, of y = log h


@primitive
def log_softmax(z):
    """log of exp(z) / Σ exp(z) over the last axis."""
    z = z - np.max(z, axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


defvjp(log_softmax, lambda ans, z: lambda g: g - np.exp(ans) * np.sum(g, axis=-1, keepdims=True))


def log_prob(b, a):
    """log Categorical(b | softmax(a)) in nats, summed over the last two axes, (N, K)."""
    return np.sum(b * log_softmax(a), axis=(-2, -1))


def gumbel(u):
    return -np.log(-np.log(u))


def hard_sample(a, u):
    """b = one_hot(argmax(a + G)) ~ Categorical(softmax(a)), of a tie the first; not traced."""
    z = stop_gradient(a) + gumbel(u)
    return (np.arange(z.shape[-1]) == np.argmax(z, axis=-1)[..., None]).astype(z.dtype)


def sample(a, u, temperature):
    """y = log h of the relaxed one-hot h = softmax((a + G) / T)."""
    return log_softmax((a + gumbel(u)) / temperature)


def log_density(y, a, temperature):
    """log density of the K − 1 log-ratios y_k − y_K, over the last axis (Maddison et al.).

    It is (K − 1)! T^(K−1) Π_k softmax(a − T y)_k; T to the power 1 − K is a published misprint.
    """
    K = a.shape[-1]
    constant = math.lgamma(K) + (K - 1) * np.log(temperature)
    return constant + np.sum(log_softmax(a - temperature * y), axis=-1)


def cdf(y, a, temperature):
    """P(Y_k − Y_K ≤ y_k − y_K for all k); the derivative in all log-ratios is the density."""
    return np.exp(log_softmax(a - temperature * y)[..., -1])


# ------------------------------------------------------------------------------------- the model


class CategoricalNet:
    """`layers` layers of `variables` (N) categoricals of `classes` (K), with tanh nets between.

    Task "generate", one layer: the nets q(b|x) and p(x|b) have the `hidden` tanh layers, p's in
    reverse order; the prior is uniform or learned. Task "predict": the upper half of the image,
    b0, b1, …, the lower half, as one chain of such nets; there is no q, so the bound has no KL.
    Activations have shape (..., batch, N, K), and the bound (..., batch).
    """

    def __init__(self, mean, variables=30, classes=10, layers=1, hidden=(512, 256),
                 learned_prior=False, task="generate", dtype=np.float32):  # fmt: skip
        self.dtype, self.task, self.n_inputs = dtype, task, len(mean)
        self.layers, self.shape, self.learned_prior = layers, (variables, classes), learned_prior
        self.mean = np.asarray(mean, dtype)
        self.context = len(mean) // 2 if task == "predict" else 0  # pixels given, not modelled
        self.offset = logit(np.clip(mean, 0.001, 0.999))[self.context :].astype(dtype)
        width, hidden = variables * classes, list(hidden)
        self.sizes = {f"q{layer}": [width, *hidden, width] for layer in range(layers)}
        self.sizes["q0"] = [self.context or len(mean), *hidden, width]
        self.sizes["p"] = [width, *hidden[::-1], len(mean) - self.context]
        self.names = [f"{net}.{kind}{i}" for net, sizes in self.sizes.items()
                      for i in range(len(sizes) - 1) for kind in "Wb"]  # fmt: skip
        self.names += ["prior"] * learned_prior

    def init(self, rng):
        nets = [init_mlp(rng, sizes, self.dtype) for sizes in self.sizes.values()]
        return [*itertools.chain(*nets), *[np.zeros(self.shape, self.dtype)] * self.learned_prior]

    def _net(self, params, name):
        return [p for key, p in zip(self.names, params) if key.startswith(f"{name}.")]

    def prior(self, params):
        """Logits of the prior, (N, K)."""
        return params[-1] if self.learned_prior else np.zeros(self.shape, self.dtype)

    def draw_noise(self, rng, batch):
        """Per layer a pair (u, v) of uniforms in (0, 1), each of shape (batch, N, K)."""
        noise = draw_noise(rng, batch, [math.prod(self.shape)] * self.layers, self.dtype)
        return [tuple(w.reshape(batch, *self.shape) for w in uv) for uv in noise]

    def centre(self, x):
        return x - self.mean

    def infer(self, params, x, sample, known_logits=()):
        """Activations and logits of all layers, `sample(layer, logits)` being what each emits.

        `known_logits`, of the lowest layers, spares computing them again.
        """
        below = self.centre(x)[:, : self.context or None]
        activations, logits = [], list(known_logits)
        for layer in range(self.layers):
            if layer == len(logits):
                a = mlp(self._net(params, f"q{layer}"), below)
                logits.append(np.reshape(a, (*a.shape[:-1], *self.shape)))
            activations.append(sample(layer, logits[layer]))
            below = flat(activations[layer])
        return activations, logits

    def log_likelihood(self, params, x, activations):
        """log p(x|b), or of its lower half for the task "predict"."""
        return bernoulli_log_prob(x[:, self.context :], self.pixels(params, activations[-1]))

    def bound(self, params, x, activations, logits):
        """log p(x, b) − log q(b|x), or log p(lower half|b); linear in a relaxed b but for p."""
        log_p = self.log_likelihood(params, x, activations)
        if self.task == "predict":
            return log_p
        return log_p + sum(log_prob(b, self.prior(params)) - log_prob(b, a)
                           for b, a in zip(activations, logits))  # fmt: skip

    def pixels(self, params, b):
        *net, bias = self._net(params, "p")
        return mlp([*net, bias + self.offset], flat(b))

    def log_weights(self, params, x, n_samples, rng):
        """The bound for n_samples draws of b for every row of x: (n_samples, batch)."""
        draw = lambda layer, a: draw_one_hot(rng, a, (n_samples, *a.shape[-3:]))
        return self.bound(params, x, *self.infer(params, x, draw))

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of b; "predict" keeps the upper half of x."""
        b, _ = self.infer(params, x, lambda layer, a: draw_one_hot(rng, a, a.shape))
        return np.concatenate([x[:, : self.context], sigmoid(self.pixels(params, b[-1]))], axis=1)

    def generate(self, params, rng, n):
        """Pixel probabilities of n images from the model, (n, pixels)."""
        b = draw_one_hot(rng, self.prior(params), (n, *self.shape))
        return sigmoid(self.pixels(params, b))


def flat(b):
    return np.reshape(b, (*b.shape[:-2], b.shape[-2] * b.shape[-1]))


def draw_one_hot(rng, a, shape):
    """Categorical(softmax(a)) one-hots of the given shape; not to be differentiated."""
    below = np.cumsum(np.exp(log_softmax(a)), axis=-1)[..., :-1]  # not all: it may sum to < 1
    chosen = np.sum(rng.random((*shape[:-1], 1), a.dtype) > below, axis=-1)
    return np.eye(shape[-1], dtype=a.dtype)[chosen]


# --------------------------------------------------------------------- a few variables, exactly


class CategoricalToy:
    """The smallest model: params = [logits (n, D, K)], bound = f(one-hots (n, D, K))."""

    task = "predict"  # f holds neither log p nor log q of b

    def __init__(self, f):
        self.f = f

    def infer(self, params, x, sample, known_logits=()):
        (logits,) = known_logits or params
        return [sample(0, logits)], [logits]

    def bound(self, params, x, activations, logits):
        (b,) = activations
        return np.reshape(self.f(np.reshape(b, (-1, *b.shape[-2:]))), b.shape[:-2])


def exact_gradient(f, logits):
    """d/dlogits E[f(b)] by enumeration: (D, K). Raises InputError above 65,536 outcomes."""
    D, K = np.shape(logits)
    if K**D > 2**16:
        raise InputError(f"enumeration is for at most 65,536 outcomes, not {K}^{D}")
    b = np.eye(K)[list(itertools.product(range(K), repeat=D))]  # (K^D, D, K)
    mean = lambda logits: ([np.sum(np.exp(log_prob(b, logits[0])) * f(b))], [])
    ((gradient,),), _ = gradients(mean, [np.asarray(logits, np.float64)])
    return gradient


def quadrature(logits, n=100):
    """Nodes u (3 n², 1, 3) and weights, for one variable of three classes: weights @ g(u) = E[g].

    g may depend on b and the differences of z, as a gradient does. Where one class wins, by w over
    the others, it is smooth: the trapezoidal rule in s, w = exp(s − exp(−s)), converges fast.
    """
    s = np.linspace(-3.3, 3.4, n)
    w, slope = np.exp(s - np.exp(-s)), 1 + np.exp(-s)
    log_pi, nodes, weights = log_softmax(logits)[0], [], []
    for k in range(3):
        z = -np.insert(np.stack(np.meshgrid(w, w), -1).reshape(-1, 2), k, 0, axis=1)
        dw = np.outer(w * slope, w * slope).ravel() * (s[1] - s[0]) ** 2
        weights.append(dw * np.exp(log_density(z, log_pi, 1.0)))  # T = 1: of differences of z
        G = z - log_pi  # free to be shifted, by so much that no u rounds to 0 or 1
        nodes.append(np.exp(-np.exp(6 + np.min(G, axis=1, keepdims=True) - G)))
    return np.concatenate(nodes)[:, None], np.concatenate(weights)
