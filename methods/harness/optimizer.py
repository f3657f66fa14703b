"""Adam on a flat vector, in place; the flat vector with its views; and what an estimate returns."""

import math

from common import Assign, InputError

import numpy as np


def _blocks(*vectors, size=32768):
    """Slices of flat vectors, and a buffer, so small that an update of them stays in the cache."""
    buffer = np.empty(size, vectors[0].dtype)
    for start in range(0, len(vectors[0]), size):
        parts = [vector[start : start + size] for vector in vectors]
        yield *parts, buffer[: len(parts[0])]


class Adam:
    """Adam (Kingma & Ba 2014, in the form ending their section 2) on a flat vector, in place.

    beta2 = .99999 is the REBAR authors' setting: the moments of a noisy gradient need long memory.
    """

    def __init__(self, size, lr, beta1=0.9, beta2=0.99999, eps=1e-8, dtype=np.float32):
        self.lr, self.beta1, self.beta2, self.t = lr, beta1, beta2, 0
        self.scaled_eps = eps / math.sqrt(1 - beta2)  # v is a sum
        self.m, self.v = np.zeros(size, dtype), np.zeros(size, dtype)

    def next_rate(self):
        """What m / (√v + scaled_eps) is multiplied with in the next step, which it counts."""
        self.t += 1
        weight1 = (1 - self.beta1**self.t) / (1 - self.beta1)  # of the sums m and v, so that
        weight2 = (1 - self.beta2**self.t) / (1 - self.beta2)  # m / weight1 is the average
        return self.lr * math.sqrt(weight2) / weight1

    def ascend(self, params, gradient):
        """One step up the gradient; a negative lr descends."""
        rate, eps = self.next_rate(), self.scaled_eps
        for p, g, m, v, buffer in _blocks(params, gradient, self.m, self.v):
            m *= self.beta1
            m += g
            v *= self.beta2
            v += np.multiply(g, g, out=buffer)
            np.sqrt(v, out=buffer)
            buffer += eps
            np.divide(m, buffer, out=buffer)
            buffer *= rate
            p += buffer


def flatten(arrays, dtype):
    """One contiguous vector with the content of all arrays, and a list of its views like them."""
    flat = np.concatenate([np.zeros(0, dtype), *map(np.ravel, arrays)]).astype(dtype, copy=False)
    ends = np.cumsum([np.size(a) for a in arrays], dtype=int)
    return flat, [flat[e - np.size(a) : e].reshape(np.shape(a)) for a, e in zip(arrays, ends)]


def assign_state(aux, aux_grads):
    """Carry out what is to be assigned to tensors of aux; returns the gradients of the others."""
    gradients = []
    for tensor, g in zip(aux, aux_grads):
        if isinstance(g, Assign):
            tensor[...] = g.value
        gradients.append(np.zeros_like(tensor) if isinstance(g, Assign) else g)
    return gradients


def as_promised(result, params, aux):
    """bound, grads, aux_grads, … as an estimate returns them; InputError if they are others."""
    several = (tuple, list)
    if not isinstance(result, several) or len(result) < 3 or not all(
        isinstance(part, several) for part in result[1:3]
    ):  # fmt: skip
        raise InputError("estimate has to return a bound, a list of gradients and one for aux")
    for what, arrays, found in (("params", params, result[1]), ("aux", aux, result[2])):
        wanted = [np.shape(a) for a in arrays]
        try:
            shapes = [np.shape(g.value if isinstance(g, Assign) else g) for g in found]
        except ValueError:  # lists of several lengths
            shapes = "lists of several lengths"
        if shapes != wanted:
            raise InputError(f"estimate has to return gradients of {what}, of the shapes {wanted}, "
                             f"not {shapes}")  # fmt: skip
    bound, grads, aux_grads, *more = result
    return bound, [*grads], [*aux_grads], *more
