"""The networks with Gaussian latent variables: a VAE (dreg.py), and M2 (semi_supervised.py)."""

import itertools
import math

from categorical import hard_sample, log_softmax
from common import (
    NOISE_MARGIN,
    InputError,
    affine,
    bernoulli_log_prob,
    gradients,
    init_mlp,
    logit,
    mlp,
    outer,
    sigmoid,
    softplus,
    stop_gradient,
    tanh,
    times,
)

import autograd.numpy as np
import numpy  # without autograd's wrappers, in the one loop that they would slow down
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f


@primitive
def log_normal(z, mu, sigma):
    """log N(z; μ, σ²) in nats, summed over the last axis."""
    scaled = (z - mu) / sigma
    constant = 0.5 * math.log(2 * math.pi) * z.shape[-1]
    squares = numpy.einsum("...i,...i->...", scaled, scaled)
    return -0.5 * squares - numpy.sum(numpy.log(sigma), axis=-1) - constant


defvjp(
    log_normal,
    lambda ans, z, mu, sigma: unbroadcast_f(z, lambda g: g[..., None] * (mu - z) / sigma**2),
    lambda ans, z, mu, sigma: unbroadcast_f(mu, lambda g: g[..., None] * (z - mu) / sigma**2),
    lambda ans, z, mu, sigma: unbroadcast_f(
        sigma, lambda g: g[..., None] * (((z - mu) / sigma) ** 2 - 1) / sigma
    ),
)


@primitive
def tangent(x, value, slope):
    """The value (...) of a function of x (..., n) whose derivative `slope`, like x, is known.

    First derivatives only: `slope` is taken for a constant.
    """
    return value


def _times_slope(g, slope):
    """g[..., None] * slope; where a plain g is 1 everywhere, a pass over all logits is saved."""
    if isinstance(g, numpy.ndarray) and numpy.all(g == 1):  # neither traced nor compiled
        return slope
    return g[..., None] * slope


defvjp(tangent, lambda ans, x, value, slope: lambda g: _times_slope(g, slope))


@primitive
def weighted_affine(h, W, b, c):
    """affine(h, W, b), but row h_k counts c_k times in the gradients of W and b, not in h's own.

    `c` is a list of one array (...), which may be put in until the backward pass begins. First
    derivatives only.
    """
    return affine.fun(h, W, b)


defvjp(
    weighted_affine,
    lambda ans, h, W, b, c: lambda g: times(g, np.transpose(W)),
    lambda ans, h, W, b, c: lambda g: outer(c[0][..., None] * h, g),
    lambda ans, h, W, b, c: lambda g: outer(c[0][..., None], g)[0],
)


def bernoulli(x, logits):
    """log Bernoulli(x|σ(logits)) (K, batch) in nats, and its derivative x − σ(logits).

    x has shape (batch, pixels), the logits l (K, batch, pixels). Both results come from
    t = tanh(l / 2):

        σ(l) = (1 + t) / 2,    log p = (x − 1/2) l − |l| / 2 + log(1 + |t|) − log 2.
    """
    t = numpy.tanh(0.5 * logits)
    terms = (x - 0.5) * logits - 0.5 * numpy.abs(logits) + numpy.log1p(numpy.abs(t))
    return numpy.sum(terms, axis=-1) - math.log(2) * logits.shape[-1], x - 0.5 - 0.5 * t


def bernoulli_in_blocks(x, logits):
    """The same as `bernoulli`, faster: a few samples at a time, in two buffers that stay in the
    cache, and a logarithm for up to 64 factors, as in common.bernoulli_log_prob. A compiled run,
    whose arrays are not numpy's, takes the plain form."""
    if not isinstance(logits, numpy.ndarray):
        return bernoulli(x, logits)
    log_p, slope = numpy.empty(logits.shape[:-1], logits.dtype), numpy.empty_like(logits)
    centred, ones = x - 0.5, numpy.ones(logits.shape[-1], logits.dtype)
    step, n = max(1, 96 // len(x)), math.gcd(logits.shape[-1], 64)
    half, t = numpy.empty_like(logits[:step]), numpy.empty_like(logits[:step])
    for k in range(0, len(logits), step):
        part, l = slice(k, k + step), logits[k : k + step]
        half, t = half[: len(l)], t[: len(l)]
        numpy.tanh(numpy.multiply(l, 0.5, out=half), out=t)
        numpy.add(numpy.multiply(t, -0.5, out=slope[part]), centred, out=slope[part])
        numpy.add(numpy.abs(t, out=t), 1, out=t)
        products = numpy.prod(t.reshape(*t.shape[:2], n, t.shape[2] // n), axis=2)
        logarithms = numpy.sum(numpy.log(products), axis=-1) - numpy.abs(half, out=half) @ ones
        log_p[part] = numpy.einsum("kbp,bp->kb", l, centred) + logarithms
    return log_p - math.log(2) * logits.shape[-1], slope


def encoder_gradients(model, phi, x, slopes):
    """The gradients, lists like phi, that belong to each of the slopes [∂/∂μ, ∂/∂σ]; and for each
    mean_i |g_i|², if the gradient is the mean over images i of g_i.

    In a layer h W + b, g_i is h_i ⊗ δ_i for W and δ_i for b, with δ_i the batch size times the
    slope of the output: |g_i|² = Σ (|h_i|² + 1) |δ_i|², summed over layers. A zero that is added to
    the output has this slope.
    """
    zeros = [np.zeros((len(x), len(b)), b.dtype) for b in phi[1::2]]

    def linear(arrays):
        inputs, outputs = [], iter(arrays[len(phi) :])

        def layer(h, W, b):
            inputs.append(h)
            return affine(h, W, b) + next(outputs)

        mu_sigma = model.q(arrays[: len(phi)], x, layer)
        return [sum(np.sum(a * d) for a, d in zip(mu_sigma, pair)) for pair in slopes], inputs

    grads, inputs = gradients(linear, [*phi, *zeros])
    squares = lambda a: np.einsum("ij,ij->i", a, a)  # (batch,)
    weights = [len(x) * (1 + squares(h)) for h in inputs]
    mean_square = lambda deltas: sum(np.dot(w, squares(d)) for w, d in zip(weights, deltas))
    return [g[: len(phi)] for g in grads], [mean_square(g[len(phi) :]) for g in grads]


class GaussianVAE:
    """z ~ N(0, I) of `latent` units, pixels p(x|z), inference network q(z|x), all in float32.

    Every network has two tanh layers of `hidden` units. Task "predict": the upper half of the image
    is the context, z ~ N(μ, σ²) given it by a network of its own, and the lower half is modelled
    given both; q sees the whole image. Noise has K = n_samples samples, the second half of them
    mirrored if `antithetic`; raises InputError if K is odd then.
    """

    def __init__(self, mean, latent=50, hidden=200, task="generate", n_samples=1,
                 antithetic=False, dtype=np.float32):  # fmt: skip
        if antithetic and n_samples % 2:
            raise InputError(f"--antithetic: --samples has to be even, not {n_samples}")
        self.latent, self.task, self.dtype = latent, task, dtype
        self.n_samples, self.antithetic, self.n_inputs = n_samples, antithetic, len(mean)
        self.mean = np.asarray(mean, dtype)
        self.context = len(mean) // 2 if task == "predict" else 0  # pixels given, not modelled
        self.offset = logit(np.clip(mean, 0.001, 0.999))[self.context :].astype(dtype)
        self.sizes = {"q": [len(mean), hidden, hidden, 2 * latent],
                      "p": [latent + self.context, hidden, hidden, len(self.offset)]}  # fmt: skip
        if self.context:
            self.sizes["prior"] = [self.context, hidden, hidden, 2 * latent]
        self.names = [f"{net}.{kind}{i}" for net in self.sizes for i in range(3) for kind in "Wb"]

    def init(self, rng):
        """Xavier: uniform in ±√(6 / (n + m)); biases zero."""
        params = []
        for sizes in self.sizes.values():
            for n, m in itertools.pairwise(sizes):
                W = math.sqrt(6 / (n + m)) * rng.uniform(-1, 1, (n, m))
                params += [W.astype(self.dtype), np.zeros(m, self.dtype)]
        return params

    def split(self, params):
        """(phi, theta): the parameters of the inference network and of the generative model."""
        return params[:6], params[6:]

    def draw_noise(self, rng, batch):
        """[ε of shape (K, batch, latent)]."""
        K = self.n_samples // 2 if self.antithetic else self.n_samples
        eps = rng.standard_normal((K, batch, self.latent), self.dtype)
        return [np.concatenate([eps, -eps]) if self.antithetic else eps]

    def q(self, phi, x, layer=affine):
        """μ and σ (batch, latent) of q(z|x) for images x (batch, pixels); `layer` as in mlp."""
        return self._gaussian(phi, x - self.mean, layer)

    def prior(self, theta, x):
        """Mean and σ of p(z), or of p(z|upper half of x): (latent,) or (batch, latent)."""
        if self.context:
            return self._gaussian(theta[6:], (x - self.mean)[:, : self.context])
        return np.zeros(self.latent, self.dtype), np.ones(self.latent, self.dtype)

    def _gaussian(self, net, h, layer=affine):
        h = mlp(net, h, layer=layer)
        return h[:, : self.latent], softplus(h[:, self.latent :] + 0.25)

    def log_likelihood(self, theta, x, z, layer=affine):
        """log p(x|z), or log p(lower half|upper half, z): (..., batch) nats for z (..., batch, D).

        `layer` as in mlp.
        """
        logits = self._pixels(theta, x, z, layer)
        return tangent(logits, *bernoulli_in_blocks(x[:, self.context :], stop_gradient(logits)))

    def _pixels(self, theta, x, z, layer=affine):
        """Logits of the pixels that are modelled."""
        *hidden, bias = theta[:6]
        if self.context:
            upper = (x - self.mean)[:, : self.context]
            upper = np.broadcast_to(upper, (*z.shape[:-1], self.context))
            z = np.concatenate([z, upper], axis=-1)
        return mlp([*hidden, bias + self.offset], z, layer=layer)

    def weighted_samples(self, params, x, n_samples, rng):
        """Samples z (n_samples, batch, latent) of q(z|x), and log p(x, z) − log q(z|x) of each."""
        phi, theta = self.split(params)
        mu, sigma = self.q(phi, x)
        z = mu + sigma * rng.standard_normal((n_samples, *mu.shape), self.dtype)
        log_p = self.log_likelihood(theta, x, z) + log_normal(z, *self.prior(theta, x))
        return z, log_p - log_normal(z, mu, sigma)

    def log_weights(self, params, x, n_samples, rng):
        """log p(x, z) − log q(z|x) in nats of fresh samples: (n_samples, batch)."""
        return self.weighted_samples(params, x, n_samples, rng)[1]

    def reconstruct(self, params, x, rng):
        """Pixel probabilities at the z of the largest weight; "predict" keeps the upper half of x
        and takes z from its prior, which does not see the lower one."""
        theta = self.split(params)[1]
        if self.context:
            mu, sigma = self.prior(theta, x)
            z = mu + sigma * rng.standard_normal(mu.shape, self.dtype)
        else:
            z, log_w = self.weighted_samples(params, x, self.n_samples, rng)
            z = z[np.argmax(log_w, axis=0), np.arange(len(x))]
        pixels = sigmoid(self._pixels(theta, x, z))
        return np.concatenate([x[:, : self.context], pixels], axis=1)

    def generate(self, params, rng, n):
        """Pixel probabilities of n images from the model of task "generate": (n, pixels)."""
        z = rng.standard_normal((n, self.latent), self.dtype)
        return sigmoid(self._pixels(self.split(params)[1], None, z))


class M2:
    """p(y) uniform over C classes, p(z) = N(0, I), p(x|y, z) of bits; q(y|x), q(z|x, y) Gaussian.

    Every net has `depth` layers of `hidden` units with that activation; y enters the first of them.
    Nets see x − mean, pixel logits have the offset logit(mean), mean (pixels,) being that of the
    images. y (..., batch, C) is one-hot or relaxed, and may have leading axes; so has what comes of
    it.
    """

    task, context = "generate", 0

    def __init__(self, mean, classes=10, z=10, hidden=200, depth=1, samples=1, dtype=np.float32,
                 activation=tanh):  # fmt: skip
        self.activation = activation
        self.dtype, self.classes, self.z, self.samples = dtype, classes, z, samples
        self.mean = np.asarray(mean, dtype)
        self.offset = logit(np.clip(mean, 0.001, 0.999)).astype(dtype)
        width, pixels, self.n_classifier = [hidden] * depth, len(mean), 2 * (depth + 1)
        self.sizes = {"q(y|x)": [pixels, *width, classes],
                      "q(z|x,y)": [pixels, *width, 2 * z],
                      "p(x|y,z)": [z, *width, pixels]}  # fmt: skip
        tensors = [f"{kind}{i}" for i in range(depth + 1) for kind in "Wb"]
        self.names = [f"q(y|x).{tensor}" for tensor in tensors]
        self.names += [f"{net}.{tensor}" for net in [*self.sizes][1:] for tensor in ["Y", *tensors]]

    def init(self, rng):
        params = []
        for net, sizes in self.sizes.items():
            if net != "q(y|x)":
                params += [rng.standard_normal((self.classes, sizes[1])).astype(self.dtype)]
            params += init_mlp(rng, sizes, self.dtype)
        return params

    def draw_noise(self, rng, batch):
        """u (samples, batch, C), uniform in (0, 1), and ε (batch, z), normal."""
        u = rng.random((self.samples, batch, self.classes), self.dtype)
        eps = rng.standard_normal((batch, self.z), self.dtype)
        return np.clip(u, NOISE_MARGIN, 1 - NOISE_MARGIN), eps

    def _nets(self, params):
        n = self.n_classifier
        return params[:n], params[n : 2 * n + 1], params[2 * n + 1 :]

    def classify(self, params, x, keep=1.0):
        """log q(y|x), (batch, C); `keep` (batch, pixels) is that of dropout, see `draw_keep`."""
        a = mlp(self._nets(params)[0], (x - self.mean) * keep, self.activation)
        return log_softmax(a)

    def encode(self, params, x, y):
        """Mean and log variance of q(z|x, y), (..., batch, z) each."""
        both = joint_mlp(self._nets(params)[1], x - self.mean, y, self.activation)
        return both[..., : self.z], both[..., self.z :]

    def decode(self, params, y, z):
        """Logits of p(x|y, z), (..., batch, pixels)."""
        return joint_mlp(self._nets(params)[2], z, y, self.activation) + self.offset

    def bound(self, params, x, y, eps):
        """−L(x, y), with z = mean + sd ε and the KL term exact: (..., batch) nats."""
        mean, log_var = self.encode(params, x, y)
        z = mean + np.exp(log_var / 2) * eps
        kl = np.sum(mean**2 + np.exp(log_var) - 1 - log_var, axis=-1) / 2
        log_p = bernoulli_log_prob(x, self.decode(params, y, z))
        return log_p - math.log(self.classes) - kl

    def log_weights(self, params, x, n_samples, rng):
        """log p(x, y, z) − log q(y, z|x) of draws from q; its mean is −U: (n_samples, batch)."""
        log_q, shape = self.classify(params, x), (n_samples, len(x))
        u = rng.random((*shape, self.classes), self.dtype)
        y = hard_sample(log_q, np.clip(u, NOISE_MARGIN, 1 - NOISE_MARGIN))
        mean, log_var = self.encode(params, x, y)
        eps = rng.standard_normal((*shape, self.z), self.dtype)
        z = mean + np.exp(log_var / 2) * eps
        log_p = bernoulli_log_prob(x, self.decode(params, y, z)) - math.log(self.classes)
        log_ratio = np.sum(eps**2 + log_var - z**2, axis=-1) / 2  # log p(z) − log q(z|x, y)
        return log_p + log_ratio - np.sum(y * log_q, axis=-1)

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of y and the mean of z."""
        y = hard_sample(self.classify(params, x), self.draw_noise(rng, len(x))[0][0])
        return sigmoid(self.decode(params, y, self.encode(params, x, y)[0]))

    def generate(self, params, rng, n):
        """Pixel probabilities of n images, the classes by turns, (n, pixels)."""
        y = np.eye(self.classes, dtype=self.dtype)[np.arange(n) % self.classes]
        return sigmoid(self.decode(params, y, rng.standard_normal((n, self.z), self.dtype)))


def joint_mlp(params, h, y, activation):
    """The net of (h, y): y (..., batch, C) adds Y to the first layer, whose h part is done once."""
    Y, W, b, *rest = params
    return mlp(rest, activation(affine(h, W, b) + times(y, Y)), activation)
