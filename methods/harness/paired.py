"""Averages of the gradients of several estimators that have the same noise: variance and bias.

The definitions of compare.py: a weighted mean μ over the unbiased ones, and the noise of the paired
difference from it. The averages move with the decay below.
"""

import numpy as np

DECAY = 0.999
ROUNDING = 1e-5  # of |g|²: squared differences below it are the rounding of float32
COLUMNS = ("variance", "raw_variance", "bias", "noise")


def updated(means, squares, products, all_grads):
    """The averages after one more step, `all_grads` being a list of gradients for each method.

    `means` are Σ_i a_i g_k over all parameters, `squares` (tensors, methods) Σ_i a_i |g_k|², and
    `products` (tensors, methods, methods) Σ_i a_i² g_j · g_k, all before they are debiased.
    """
    new = 1 - DECAY
    tensors = [np.stack([np.ravel(g) for g in tensor]) for tensor in zip(*all_grads)]
    gram = np.array([g @ g.T for g in tensors])  # (tensors, methods, methods)
    squares = DECAY * squares + new * np.diagonal(gram, axis1=1, axis2=2)
    products = DECAY**2 * products + new**2 * gram
    flat = (np.concatenate([np.ravel(g) for g in grads]) for grads in all_grads)
    return [m + new * (g - m) for m, g in zip(means, flat)], squares, products


def moments(sizes, means, squares, products, count, biased, group):
    """The table (methods, columns) of variance and bias after `count` steps of `updated`.

    `sizes` has the number of parameters of every tensor. `biased` and `group` have an entry for
    every method: its μ is the mean over those of its group that are not biased. With q = Σ a_i², an
    average m of independent x_i has E|m|² = |E x|² + Σ a_i² Var x_i: this noise is taken out of m.
    """
    reference = (group[:, None] == group) & ~biased  # row k: those whose mean is μ for method k
    weight = 1 - DECAY**count  # what the weights of the averages sum to
    q = (1 - DECAY) / (1 + DECAY) * (2 - weight) / weight
    without = lambda square, mean_square: (  # of one step all is taken for noise
        np.maximum(square - mean_square, 0) / (1 - q) if count > 1 else square
    )
    K = len(means)
    table = np.zeros((K, len(COLUMNS)))
    bias, precision, counted = np.zeros(K), np.zeros(K), np.zeros(K)
    every_mean = np.split(np.stack(means), np.cumsum(sizes)[:-1], axis=1)  # (methods, size) each
    for size, m, square, product in zip(sizes, every_mean, squares, products):
        m, square, product = m / weight, square / weight, product / weight**2
        variance = without(square, np.sum(m * m, axis=1))
        w = reference / np.maximum(variance, 1e-6 * square + 1e-30)  # (methods, methods)
        w = w / np.sum(w, axis=1, keepdims=True)
        mu = w @ m
        table[:, 0] += square - np.sum(mu * mu, axis=1)
        plain = reference @ m / np.sum(reference, axis=1, keepdims=True)  # as in the authors' code
        table[:, 1] += weight * square - weight**2 * np.sum(plain * plain, axis=1)
        to_d = np.eye(K) - w  # d = to_d @ g
        bias_square = np.sum((m - mu) ** 2, axis=1)
        d_square = np.einsum("kj,jl,kl->k", to_d, product, to_d)
        noise = without(d_square, q * bias_square) / size  # of a parameter
        seen = noise > ROUNDING * np.diagonal(product) / size
        inverse = seen / np.where(seen, noise, 1)
        bias, precision = bias + bias_square * inverse, precision + size * inverse
        counted = counted + size * seen
    table[:, :2] /= sum(sizes)
    table[:, 2] = np.sqrt(bias / np.maximum(precision, 1e-300))
    table[:, 3] = np.sqrt(counted / np.maximum(precision, 1e-300))
    return table
