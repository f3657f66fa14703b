"""The networks with discrete latent variables, and their evaluation.

A method sees only init, draw_noise, infer, bound, bound_terms, generative_logits, centre, n_inputs,
units; evaluation sees log_weights.
"""

import itertools
import math
from functools import partial

from categorical import log_prob, log_softmax
from common import (
    bernoulli_log_prob,
    draw_noise,
    init_mlp,
    logit,
    mlp,
    sigmoid,
    tanh,
)

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive
from scipy.special import logsumexp
from tqdm import tqdm


@primitive
def leaky_relu(x, slope):
    return np.where(x > 0, x, slope * x)


def slope_at(x, slope):
    """1 or `slope`, in the type of x: autograd's own derivative of where would be float64."""
    return anp.where(x > 0, x.dtype.type(1), x.dtype.type(slope))


defvjp(leaky_relu, lambda ans, x, slope: lambda g: g * slope_at(x, slope))
defjvp(leaky_relu, lambda g, ans, x, slope: g * slope_at(x, slope))


ACTIVATIONS = {"tanh": tanh, "relu": partial(leaky_relu, slope=0.0)}


def init_glorot(rng, sizes, dtype):
    """Weights of mlp, uniform with the variance 2 / (inputs + outputs) of Glorot; biases zero."""
    params = []
    for n, m in itertools.pairwise(sizes):
        weights = math.sqrt(6 / (n + m)) * rng.uniform(-1, 1, (n, m))
        params += [weights.astype(dtype), np.zeros(m, dtype)]
    return params


@primitive
def signed(b):
    """2b − 1: bits as −1 and 1."""
    return 2 * b - 1


defvjp(signed, lambda ans, b: lambda g: 2 * g)
defjvp(signed, lambda g, ans, b: 2 * g)


def draw_bits(rng, logits, shape):
    """Bernoulli(sigmoid(logits)) bits of the given shape; not to be differentiated."""
    return (rng.random(shape, logits.dtype) < sigmoid(logits)).astype(logits.dtype)


class SBN:
    """Sigmoid belief network: `layers` stochastic layers of `hidden` bits, joined by affine maps
    or, if `nonlinear`, by two tanh layers of the same width.

    Task "generate": q(b0|x) q(b1|b0) … and p(…b1) p(b0|b1) p(x|b0) with a learned prior on top.
    Task "predict": the upper half of the image, b0, b1, …, the lower half, as one chain of
    conditionals; there is no other q, so the bound has no KL term.

    Nets see x − mean or 2b − 1. Pixel logits have the fixed offset logit(mean), mean (pixels,)
    being that of the training images. Activations may carry leading axes, (..., batch, hidden), to
    run several samples of a batch in one sweep; the bound then is (..., batch).

    To be like others' networks: the `activation` "tanh" or "leaky-relu", the latter with a `slope`;
    without `centring` nets see x and b as they are, and there is no offset; the `prior` "learned"
    or "fixed" at P(b = 1) = 1/2, and then no parameter; `init` of the weights "he" or "glorot".
    """

    def __init__(
        self, mean, hidden=200, layers=1, nonlinear=False, task="generate", dtype=np.float32, *,
        activation="tanh", slope=0.3, centring=True, prior="learned", init="he",
    ):  # fmt: skip
        self.dtype, self.units, self.task, self.n_inputs = dtype, [hidden] * layers, task, len(mean)
        self.mean = np.asarray(mean, dtype) * centring
        self.context = len(mean) // 2 if task == "predict" else 0  # pixels given, not modelled
        self.offset = logit(np.clip(mean, 0.001, 0.999))[self.context :].astype(dtype) * centring
        leaky = lambda h: leaky_relu(h, slope)
        self.mlp = partial(mlp, activation={"tanh": tanh, "leaky-relu": leaky}[activation])
        self.code = signed if centring else lambda b: b  # of bits, as inputs of a net
        self.init_mlp = {"he": init_mlp, "glorot": init_glorot}[init]
        between = [hidden] * (3 if nonlinear else 1)
        pixels_in, pixels_out = self.context or len(mean), len(mean) - self.context
        self.sizes = {f"q{layer}": [hidden, *between] for layer in range(layers)}
        self.sizes["q0"] = [pixels_in, *between]
        if task == "generate":
            self.sizes |= {"prior": [hidden]} if prior == "learned" else {}
            self.sizes |= {f"p{layer}": [hidden, *between] for layer in range(layers - 1, 0, -1)}
        self.sizes["p0"] = [hidden, *between[:-1], pixels_out]
        self.names, self.slices = [], {}
        for net, sizes in self.sizes.items():
            tensors = [f"{net}.{kind}{i}" for i in range(len(sizes) - 1) for kind in "Wb"]
            self.names += tensors or [net]  # the prior is one vector of logits
            self.slices[net] = slice(len(self.names) - len(tensors or [net]), len(self.names))

    def _nets(self, params):
        """The flat list of parameters as a dict: q0, q1, …, prior, …, p1, p0."""
        fixed = {"prior": [np.zeros(self.units[-1], self.dtype)]}
        return fixed | {net: params[place] for net, place in self.slices.items()}

    def init(self, rng):
        params = []
        for net, sizes in self.sizes.items():
            is_prior = net == "prior"
            params += (
                [np.zeros(sizes, self.dtype)] if is_prior else self.init_mlp(rng, sizes, self.dtype)
            )
        return params

    def draw_noise(self, rng, batch):
        return draw_noise(rng, batch, self.units, self.dtype)

    def centre(self, x):
        """What a net sees of the images x (batch, pixels)."""
        return x - self.mean

    def infer(self, params, x, sample, known_logits=()):
        """Run the stochastic layers; `sample(layer, logits)` decides what each of them emits.

        Returns activations and logits, a list each. `known_logits`, of the lowest layers, spares
        computing them again when a sweep starts like an earlier one.
        """
        nets, h = self._nets(params), self.centre(x)[:, : self.context or None]
        activations, logits = [], list(known_logits)
        for layer in range(len(self.units)):
            if layer == len(logits):
                logits.append(self.mlp(nets[f"q{layer}"], h))
            activations.append(sample(layer, logits[layer]))
            h = self.code(activations[layer])
        return activations, logits

    def bound(self, params, x, activations, logits):
        """log p(x, h) − log q(h|x), or log p(lower half|h) for the task "predict": (..., batch)."""
        first, *rest = self.bound_terms(params, x, activations, logits)
        return sum(rest, first)

    def bound_terms(self, params, x, activations, logits):
        """A list of terms, one per layer, whose sum is the bound; term i knows no layer above i.

        log p(b_{i−1}|b_i) − log q(b_i|b_{i−1}), b_{−1} being x, and in the last one the prior.
        """
        nets, b = self._nets(params), activations
        if self.task == "predict":  # the numbers 0, then the bound
            log_p = bernoulli_log_prob(x[:, self.context :], self._pixels(nets, b[-1]))
            return [0.0] * (len(b) - 1) + [log_p]
        logits_p = [self._pixels(nets, b[0]), *self.generative_logits(params, b)]
        *log_p, prior = (bernoulli_log_prob(*pair) for pair in zip([x, *b], logits_p))
        log_p[-1] = log_p[-1] + prior
        return [p_i - bernoulli_log_prob(b_i, a_i) for p_i, b_i, a_i in zip(log_p, b, logits)]

    def generative_logits(self, params, activations):
        """Logits of p(b_i|b_{i+1}) for every layer i, the prior's last; [] for "predict"."""
        if self.task == "predict":
            return []
        nets, above = self._nets(params), activations[1:]
        between = [self.mlp(nets[f"p{i}"], self.code(b_i)) for i, b_i in enumerate(above, start=1)]
        return [*between, nets["prior"][0]]

    def _pixels(self, nets, h):
        *net, bias = nets["p0"]
        return self.mlp([*net, bias + self.offset], self.code(h))

    def log_weights(self, params, x, n_samples, rng):
        """The bound for n_samples draws of the bits for every row of x: (n_samples, batch)."""
        sample = lambda layer, a: draw_bits(rng, a, (n_samples, len(x), a.shape[-1]))
        return self.bound(params, x, *self.infer(params, x, sample))

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of the bits; "predict" keeps the upper half of x."""
        b, _ = self.infer(params, x, lambda layer, a: draw_bits(rng, a, a.shape))
        nets = self._nets(params)
        lower = sigmoid(self._pixels(nets, b[-1] if self.task == "predict" else b[0]))
        return np.concatenate([x[:, : self.context], lower], axis=1)

    def generate(self, params, rng, n):
        """Pixel probabilities of n images from the model, (n, pixels)."""
        nets = self._nets(params)
        logits = np.tile(nets["prior"][0], (n, 1))
        for layer in range(len(self.units) - 1, -1, -1):
            b = draw_bits(rng, logits, logits.shape)
            logits = self.mlp(nets[f"p{layer}"], self.code(b)) if layer else self._pixels(nets, b)
        return sigmoid(logits)


class CategoricalNet:
    """`layers` layers of `variables` (N) categoricals of `classes` (C), with nets between them.

    Task "generate": q(b0|x) q(b1|b0) … and p(…b1) p(b0|b1) p(x|b0). The nets have the `hidden`
    layers of that `activation`, "tanh" or "relu", those of p in reverse order; the prior of the top
    is uniform or learned. Task "predict": the upper half of the image, b0, b1, …, the lower half,
    as one chain of such nets; there is no other q, so the bound has no KL. Activations have shape
    (..., batch, N, C), and the bound (..., batch).
    """

    def __init__(self, mean, variables=30, classes=10, layers=1, hidden=(512, 256),
                 learned_prior=False, task="generate", dtype=np.float32,
                 activation="tanh"):  # fmt: skip
        self.mlp = partial(mlp, activation=ACTIVATIONS[activation])
        self.dtype, self.task, self.n_inputs = dtype, task, len(mean)
        self.layers, self.shape, self.learned_prior = layers, (variables, classes), learned_prior
        self.mean = np.asarray(mean, dtype)
        self.context = len(mean) // 2 if task == "predict" else 0  # pixels given, not modelled
        self.offset = logit(np.clip(mean, 0.001, 0.999))[self.context :].astype(dtype)
        width, hidden = variables * classes, list(hidden)
        self.sizes = {f"q{layer}": [width, *hidden, width] for layer in range(layers)}
        self.sizes["q0"] = [self.context or len(mean), *hidden, width]
        if task == "generate":
            between = [width, *hidden[::-1], width]
            self.sizes |= {f"p{layer}": between for layer in range(layers - 1, 0, -1)}
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
        """Logits of the prior of the top layer, (N, C)."""
        return params[-1] if self.learned_prior else np.zeros(self.shape, self.dtype)

    def generative_logits(self, params, activations):
        """Logits of p(b_i|b_{i+1}) for every layer i, the prior's last; [] for "predict"."""
        if self.task == "predict":
            return []
        above = enumerate(activations[1:], start=1)
        return [*(self._logits(params, f"p{i}", flat(b)) for i, b in above), self.prior(params)]

    def _logits(self, params, net, h):
        """What a net says of the variables of a layer: (..., N, C)."""
        a = self.mlp(self._net(params, net), h)
        return np.reshape(a, (*a.shape[:-1], *self.shape))

    def draw_noise(self, rng, batch):
        """Per layer a pair (u, v) of uniforms in (0, 1), each of shape (batch, N, C)."""
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
                logits.append(self._logits(params, f"q{layer}", below))
            activations.append(sample(layer, logits[layer]))
            below = flat(activations[layer])
        return activations, logits

    def log_likelihood(self, params, x, activations):
        """log p(x|b0), or that of the lower half given the last layer for the task "predict"."""
        b = activations[-1 if self.task == "predict" else 0]
        return bernoulli_log_prob(x[:, self.context :], self.pixels(params, b))

    def bound(self, params, x, activations, logits):
        """log p(x, b) − log q(b|x), or log p(lower half|b); linear in a relaxed b but for p."""
        of_layers = zip(activations, self.generative_logits(params, activations), logits)
        log_ratios = [log_prob(b, p) - log_prob(b, a) for b, p, a in of_layers]  # [] for "predict"
        return sum(log_ratios, self.log_likelihood(params, x, activations))

    def pixels(self, params, b):
        *net, bias = self._net(params, "p")
        return self.mlp([*net, bias + self.offset], flat(b))

    def log_weights(self, params, x, n_samples, rng):
        """The bound for n_samples draws of b for every row of x: (n_samples, batch)."""
        draw = lambda layer, a: draw_one_hot(rng, a, (n_samples, *a.shape[-3:]))
        return self.bound(params, x, *self.infer(params, x, draw))

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of b; "predict" keeps the upper half of x."""
        b, _ = self.infer(params, x, lambda layer, a: draw_one_hot(rng, a, a.shape))
        modelled = self.pixels(params, b[-1 if self.task == "predict" else 0])
        return np.concatenate([x[:, : self.context], sigmoid(modelled)], axis=1)

    def generate(self, params, rng, n):
        """Pixel probabilities of n images from the model, (n, pixels)."""
        b = draw_one_hot(rng, self.prior(params), (n, *self.shape))
        for layer in range(self.layers - 1, 0, -1):
            a = self._logits(params, f"p{layer}", flat(b))
            b = draw_one_hot(rng, a, a.shape)
        return sigmoid(self.pixels(params, b))


def flat(b):
    return np.reshape(b, (*b.shape[:-2], b.shape[-2] * b.shape[-1]))


def draw_one_hot(rng, a, shape):
    """Categorical(softmax(a)) one-hots of the given shape; not to be differentiated."""
    below = np.cumsum(np.exp(log_softmax(a)), axis=-1)[..., :-1]  # not all: it may sum to < 1
    chosen = np.sum(rng.random((*shape[:-1], 1), a.dtype) > below, axis=-1)
    return np.eye(shape[-1], dtype=a.dtype)[chosen]


def multi_sample_bound(model, params, images, n_samples, rng, progress=False):
    """log mean_k exp(log w_k) over n_samples importance weights: (rows,) nats, for rows of bits.

    A lower bound on log p(x), tighter with more samples (Burda et al. 2016, arXiv 1509.00519).
    Memory is bounded: at most 1,000 samples are in it at once.
    """
    rows, bounds = max(1, 1000 // n_samples), []
    hidden = None if progress else True  # None shows it on a terminal only
    for start in tqdm(range(0, len(images), rows), desc="evaluation", leave=False, disable=hidden):
        x = images[start : start + rows].astype(model.dtype)
        counts = [min(1000, n_samples - first) for first in range(0, n_samples, 1000)]
        log_weights = np.concatenate([model.log_weights(params, x, n, rng) for n in counts])
        bounds.append(logsumexp(log_weights.astype(np.float64), axis=0) - math.log(n_samples))
    return np.concatenate(bounds)
