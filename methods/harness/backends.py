"""numpy, torch and jax behind one small interface, for the functions that check.py hands out.

Each backend has arrays in float64, the functions exp, sum and prod by which a test function is
written, and `probe(counts)`: an identity that counts what passes through it, rows of b on the way
forward, counts[0], and rows of a derivative with respect to b, counts[1].
"""

import math
from typing import NamedTuple

from common import InputError

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive


class Backend(NamedTuple):
    name: str
    xp: object  # the module with exp, sum, prod, asarray
    tensor: object  # numpy array -> array of the backend, float64
    array: object  # and back
    seed: object  # seeds the global generators that an estimator may draw its own noise from
    probe: object  # (counts, axes of one b) -> the identity on b


def _rows(shape, axes):
    return math.prod(shape[: len(shape) - axes])


def numpy_backend():
    def probe(counts, axes):
        @primitive
        def counted(b):
            counts[0] += _rows(b.shape, axes)
            return b

        def derivative(b, g):
            counts[1] += _rows(np.shape(b), axes)
            return g

        defvjp(counted, lambda ans, b: lambda g: derivative(b, g))
        defjvp(counted, lambda g, ans, b: derivative(b, g))
        return counted

    copy = lambda a: np.array(a, np.float64)  # the user may write into it
    return Backend("numpy", anp, copy, np.asarray, np.random.seed, probe)


def torch_backend():
    try:
        import torch
    except ImportError:
        raise InputError("--backend torch: pip install torch, or choose another") from None

    def probe(counts, axes):
        def derivative(g):
            counts[1] += _rows(g.shape, axes)

        def counted(b):
            counts[0] += _rows(b.shape, axes)
            if b.requires_grad:
                b = b.view_as(b)
                b.register_hook(derivative)
            return b

        return counted

    def seed(number):
        np.random.seed(number)  # noqa: NPY002
        torch.manual_seed(number)

    tensor = lambda a: torch.tensor(np.asarray(a), dtype=torch.float64)
    array = lambda a: (a.detach().cpu() if hasattr(a, "detach") else torch.as_tensor(a)).numpy()
    return Backend("torch", torch, tensor, array, seed, probe)


def jax_backend():
    try:
        import jax
    except ImportError:
        raise InputError("--backend jax: pip install jax, or choose another") from None
    jax.config.update("jax_enable_x64", True)

    def probe(counts, axes):
        def note(kind, b):  # in a callback, so that vmap and jit count each evaluation too
            counts[kind] += _rows(np.shape(b), axes)

        @jax.custom_jvp
        def counted(b):
            jax.debug.callback(lambda b: note(0, b), b)
            return b

        @counted.defjvp
        def _(values, tangents):
            jax.debug.callback(lambda b: note(1, b), values[0])
            return counted(values[0]), tangents[0]

        return counted

    tensor = lambda a: jax.numpy.asarray(a, dtype="float64")

    def array(a):
        jax.effects_barrier()  # the callbacks that count have ended
        return np.asarray(a)

    return Backend("jax", jax.numpy, tensor, array, np.random.seed, probe)


BACKENDS = {"numpy": numpy_backend, "torch": torch_backend, "jax": jax_backend}

# ---------------------------------------------------------------------------------- files to copy

TEMPLATES = {
    "numpy": '''\
"""Your estimator here. To check it:  python methods/check.py mine.py"""

import autograd.numpy as np  # plain numpy will do where f is not differentiated


def gradient_samples(f, logits, u, v):
    """n estimates, (n, D), of the gradient of E[f(b)] with respect to logits (D,).

    The bits b are Bernoulli(sigmoid(logits)), and f maps (n, D) to (n,). u and v are uniforms,
    (n, D); draw your own noise instead if you like. Row i of the result is one estimate.
    """
    theta = 1 / (1 + np.exp(-logits))
    b, other = (u < theta) * 1.0, (v < theta) * 1.0
    signal = f(b) - f(other)  # REINFORCE; the baseline is f at another sample
    return signal[:, None] * (b - theta)  # the score, d log q(b) / d logits
''',
    "torch": '''\
"""Your estimator here. To check it:  python methods/check.py mine.py --backend torch"""

import torch


def gradient_samples(f, logits, u, v):
    """n estimates, (n, D), of the gradient of E[f(b)] with respect to logits (D,).

    The bits b are Bernoulli(sigmoid(logits)), and f maps (n, D) to (n,); it is differentiable. u
    and v are uniforms, (n, D); this example draws its own noise. Row i of the result is one
    estimate.
    """
    logits = logits.expand(u.shape).clone().requires_grad_()  # a row for each estimate
    q = torch.distributions.Bernoulli(logits=logits)
    b, other = q.sample(), q.sample()
    signal = (f(b) - f(other)).detach()  # REINFORCE; the baseline is f at another sample
    loss = (signal * q.log_prob(b).sum(-1)).sum()
    return torch.autograd.grad(loss, logits)[0]
''',
    "jax": '''\
"""Your estimator here. To check it:  python methods/check.py mine.py --backend jax"""

import jax
import jax.numpy as jnp


def gradient_samples(f, logits, u, v):
    """n estimates, (n, D), of the gradient of E[f(b)] with respect to logits (D,).

    The bits b are Bernoulli(sigmoid(logits)), and f maps (n, D) to (n,); it is differentiable. u
    and v are uniforms, (n, D). With noise of your own, use a new key in every call. Row i of the
    result is one estimate.
    """
    theta = jax.nn.sigmoid(logits)
    b, other = (u < theta).astype(u.dtype), (v < theta).astype(u.dtype)
    signal = f(b) - f(other)  # REINFORCE; the baseline is f at another sample

    def surrogate(logits):  # logits (n, D), a row for each estimate
        log_q = b * jax.nn.log_sigmoid(logits) + (1 - b) * jax.nn.log_sigmoid(-logits)
        return jnp.sum(signal * jnp.sum(log_q, axis=-1))

    return jax.grad(surrogate)(jnp.broadcast_to(logits, u.shape))
''',
}
