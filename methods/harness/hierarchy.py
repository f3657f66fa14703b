"""The networks of a VAE whose prior over groups of bits is a Boltzmann machine (dvae_sharp.py)."""

import itertools

from common import (
    bernoulli_log_prob,
    draw_noise,
    init_mlp,
    logit,
    sigmoid,
    stop_gradient,
    tanh,
    times,
)

from harness.models import draw_bits

import autograd.numpy as np
from autograd.extend import defvjp, primitive


# Groups of latent units, and tanh layers in q of every group and in p(x|ζ).
STRUCTURES = {
    "2-layer-nonlin": (2, 2),
    "1-layer-lin": (1, 0),
    "1-layer-nonlin": (1, 2),
    "4-layer-nonlin": (4, 2),
}
BATCH_NORM_EPSILON, KEEP = 1e-2, 0.8  # KEEP: of the moving averages, at every step


def mean_and_variance(h):
    """Mean and variance of every unit over the rows; float32 stays."""
    mean = np.sum(h, axis=0) / len(h)
    return mean, np.sum((h - mean) ** 2, axis=0) / len(h)


@primitive
def standardize(h):
    """Batch norm in training: (h − mean) / √(variance + ε), of the rows of h (rows, units)."""
    mean, variance = mean_and_variance(h)
    return (h - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)


def standardize_vjp(ans, h):
    scale = 1 / np.sqrt(mean_and_variance(h)[1] + BATCH_NORM_EPSILON)
    mean = lambda x: np.sum(x, axis=0) / len(x)
    return lambda g: scale * (g - mean(g) - ans * mean(g * ans))


defvjp(standardize, standardize_vjp)


class DVAE:
    """q(ζ|x) in autoregressive groups, an RBM p(z) of two equal sides, p(x|ζ): the networks.

    `width` is that of a side of the RBM (with one group, of both together) and of the tanh layers;
    it has to be even. `variant` matters only if it is "dvaes_gi": its q has a shift and a scale
    too. Two things are neither learned nor noise. They belong to the run, which puts them here for
    evaluation and pictures: `statistics`, the moving averages of batch norm, and `prior`, an object
    with `energy(rbm, groups)`, `ais(rbm)` -> (log Z, error) and `more(rbm, n, rng)` -> (z1, z2),
    such as rbm.Chains.
    """

    task, context = "generate", 0

    def __init__(self, mean, struct="2-layer-nonlin", width=200, variant="dvaes_power",
                 dtype=np.float32):  # fmt: skip
        n_groups, n_hidden = STRUCTURES[struct]
        n = width // 2 if n_groups == 4 else width
        self.dtype, self.units, gaussian = dtype, [n] * n_groups, variant == "dvaes_gi"
        self.mean = np.asarray(mean, dtype)
        self.offset = logit(np.clip(mean, 0.001, 0.999)).astype(dtype)
        side, outputs = n * n_groups // 2, 2 * n if gaussian else n
        hidden = [width] * n_hidden
        self.shapes = {"prior.b1": (side,), "prior.b2": (side,), "prior.W": (side, side)}
        self.sizes = {}  # of every network: those of its inputs, then the others
        for i in range(n_groups):
            self.sizes[f"q{i}"] = [len(mean), *self.units[:i]], [*hidden, outputs]
        self.sizes["p"] = self.units, [*hidden, len(mean)]
        for net, (inputs, sizes) in self.sizes.items():
            self.shapes |= {f"{net}.W0.{k}": (m, sizes[0]) for k, m in enumerate(inputs)}
            for j, (m, following) in enumerate(itertools.pairwise(sizes)):
                self.shapes |= {f"{net}.gamma{j}": (m,), f"{net}.shift{j}": (m,)}
                self.shapes[f"{net}.W{j + 1}"] = m, following
            self.shapes[f"{net}.b"] = (sizes[-1],)
        if gaussian:
            self.shapes |= {f"q{i}.s": (n,) for i in range(n_groups)}
        self.names = list(self.shapes)
        self.layers = [f"{net}.{j}" for net in self.sizes for j in range(n_hidden)]  # tanh
        self.statistics, self.prior = self.init_statistics(), None

    def init(self, rng):
        """Prior zero, kernels as in init_mlp, γ and the scales of ζ one, all else zero."""
        params = {name: np.zeros(shape, self.dtype) for name, shape in self.shapes.items()}
        for net, (inputs, sizes) in self.sizes.items():
            kernels = init_mlp(rng, [sum(inputs), *sizes], self.dtype)[::2]
            first = np.split(kernels[0], np.cumsum(inputs)[:-1])  # one kernel per input
            params |= {f"{net}.W0.{k}": W for k, W in enumerate(first)}
            params |= {f"{net}.W{j}": W for j, W in enumerate(kernels[1:], start=1)}
        return [p + 1 if "gamma" in name or name.endswith(".s") else p
                for name, p in params.items()]  # fmt: skip

    def init_statistics(self):
        """Moving mean 0 and variance 1 of every tanh layer's inputs."""
        sizes = [m for _, sizes in self.sizes.values() for m in sizes[:-1]]
        return [f(m, self.dtype) for m in sizes for f in (np.zeros, np.ones)]

    def by_batch(self):
        """(normalize, seen): batch norm in training, and the (mean, variance) it saw, by layer."""
        seen = [None] * len(self.layers)

        def normalize(layer, h):
            seen[layer] = mean_and_variance(stop_gradient(h))
            return standardize(h)

        return normalize, seen

    def moved(self, statistics, seen):
        """The moving averages after a batch with these means and variances."""
        return [KEEP * old + (1 - KEEP) * m
                for old, m in zip(statistics, itertools.chain(*seen))]  # fmt: skip

    def by_moving_averages(self, layer, h):
        """Batch norm in evaluation, of the layer of that number."""
        mean, variance = self.statistics[2 * layer : 2 * layer + 2]
        return (h - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)

    def draw_noise(self, rng, batch):
        return draw_noise(rng, batch, self.units, self.dtype)

    def rbm(self, params):
        return params[:3]

    def network(self, params, net, inputs, normalize):
        """Outputs of one network; its inputs (..., rows, ·) each have a kernel of their own."""
        p, n_hidden = dict(zip(self.names, params)), len(self.sizes[net][1]) - 1
        first, *rest = (times(x_k, p[f"{net}.W0.{k}"]) for k, x_k in enumerate(inputs))
        h = sum(rest, first)
        for j in range(n_hidden):
            h = normalize(self.layers.index(f"{net}.{j}"), h)
            h = tanh(h * p[f"{net}.gamma{j}"] + p[f"{net}.shift{j}"])
            h = times(h, p[f"{net}.W{j + 1}"])
        return h + p[f"{net}.b"]

    def infer(self, params, x, sample, normalize):
        """Run the groups of q in order; returns what they emit, and the outputs they had.

        `sample(i, outputs)` decides what group i emits, and `normalize(layer, h)` what batch norm
        does: `by_moving_averages`, or the first that `by_batch` returns.
        """
        emitted, outputs = [], []
        for i in range(len(self.units)):
            inputs = [x - self.mean, *emitted]
            outputs.append(self.network(params, f"q{i}", inputs, normalize))
            emitted.append(sample(i, outputs[i]))
        return emitted, outputs

    def decode(self, params, zeta, normalize):
        """Logits of the pixels."""
        return self.network(params, "p", zeta, normalize) + self.offset

    def gaussian(self, params, i, outputs):
        """For dvaes_gi: logits, shifts in (−¼, ¼) and scales above .05 of the ζ of group i."""
        n, p = self.units[i], params[i - len(self.units)]
        shift = 0.5 * (sigmoid(outputs[..., n:]) - 0.5)
        return outputs[..., :n], shift, np.abs(0.2 * p) + 0.05

    def log_weights(self, params, x, n_samples, rng):
        """log p(x, z) − log q(z|x) for n_samples draws of the bits of every row: (n_samples, rows).

        This is the discrete model, which has no ζ: the networks see z. log Z is that of AIS.
        """
        rbm, log_q = self.rbm(params), 0

        def emit(i, outputs):
            nonlocal log_q
            a = outputs[..., : self.units[i]]
            z = draw_bits(rng, a, (n_samples, *a.shape[-2:]))
            log_q = log_q + bernoulli_log_prob(z, a)
            return z

        z, _ = self.infer(params, x, emit, self.by_moving_averages)
        recon = bernoulli_log_prob(x, self.decode(params, z, self.by_moving_averages))
        log_Z, _ = self.prior.ais(rbm)
        return recon - self.prior.energy(rbm, z) - log_Z - log_q

    def reconstruct(self, params, x, rng):
        """Pixel probabilities given a sample of the bits."""

        def emit(i, outputs):
            a = outputs[:, : self.units[i]]
            return draw_bits(rng, a, a.shape)

        z, _ = self.infer(params, x, emit, self.by_moving_averages)
        return sigmoid(self.decode(params, z, self.by_moving_averages))

    def generate(self, params, rng, n):
        """Pixel probabilities of n images, from n samples of the prior."""
        z1, z2 = self.prior.more(self.rbm(params), n, rng)
        z = np.split(np.concatenate([z1, z2], axis=1), np.cumsum(self.units)[:-1], axis=1)
        return sigmoid(self.decode(params, z, self.by_moving_averages))
