"""What every method shares. Nothing here estimates a gradient, and nothing is about images.

Numerics, twice differentiable; tracing; and the truth: Toy, the smallest model, exact_gradient.
Bounds are in nats and are maximised. One BLAS thread (at batch 24 a second one is slower) unless
OPENBLAS_NUM_THREADS says otherwise, so import this before numpy.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import itertools
import math
import warnings
from typing import NamedTuple

import autograd.numpy as anp  # where a value may be traced
import numpy as np
from autograd.core import JVPNode, VJPNode, add_outgrads, vspace
from autograd.extend import defjvp, defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval, isbox, new_box, toposort, trace_stack
from scipy.special import ndtri

NOISE_MARGIN = 1e-6  # uniforms stay in [margin, 1 − margin], so that logit(u) is finite in float32


class InputError(ValueError):
    """The user asked for the impossible; the message names the flag or file and the remedy."""


def one_of(name, value, choices):
    """The value, if it is one of the choices; raises InputError naming the argument if not."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}: choose from {', '.join(choices)}, not {value!r}")
    return value


def shaped(name, value, finite=True, **axes):
    """The value as floats with axes of these sizes (None: any), or one number; or InputError."""
    if isbox(value):  # traced: somebody differentiates by it
        return value
    right = ", ".join(axis if n is None else f"{axis} = {n}" for axis, n in axes.items())
    kind = "finite " if finite else ""
    right = f"{kind}numbers of shape ({right})" if axes else f"a {kind}number"
    try:
        value = np.asarray(value)
        if value.dtype.kind in "cmMSU":  # complex numbers, dates, words
            raise TypeError(f"it is of type {value.dtype}")
        value = value if value.dtype in (np.float32, np.float64) else value.astype(np.float64)
    except (TypeError, ValueError) as error:  # or lists of several lengths
        raise InputError(f"{name}: has to be {right} ({error})") from error
    fits = value.size and all(size in (None, n) for size, n in zip(axes.values(), value.shape))
    sound = np.isfinite(value) if finite else ~np.isnan(value)
    if value.ndim != len(axes) or not fits or not np.all(sound):
        raise InputError(f"{name}: has to be {right}, not {value.shape if axes else value} or NaN")
    return value


def uniforms(name, value, low="epsneg", **axes):
    """As `shaped`, for numbers from 0 to 1; clipped to [finfo.low, 1 − finfo.epsneg], for logs."""
    w = shaped(name, value, **axes)
    if np.min(w) < 0 or np.max(w) > 1:
        raise InputError(f"{name}: has to be uniforms, from 0 to 1; it is noise of another kind")
    return np.clip(w, getattr(np.finfo(w.dtype), low), 1 - np.finfo(w.dtype).epsneg)


def check_samples(logits, u, v, **samples):
    """logits (D,), and u and v (n, D) or, with samples K=None, (n, K, D), for `gradient_samples`.

    A logit of ±∞, of a bit that is always 0 or 1, becomes ±1e4.
    """
    logits = np.clip(shaped("logits", logits, finite=False, D=None), -1e4, 1e4)
    axes = {"n": None, **samples, "D": len(logits)}
    u = uniforms("u", u, **axes)
    if "K" in samples and u.shape[1] < 2:
        raise InputError("u: has to be of shape (n, K, D) with K ≥ 2 samples")
    return logits, u, uniforms("v", v, **dict(zip(axes, u.shape)))


# ---------------------------------------------------------------------------------------- numerics


@primitive
def sigmoid(x):
    with np.errstate(over="ignore"):  # exp(100) is inf in float32, and 1 / inf is the right answer
        return 1 / (1 + np.exp(-x))


@primitive
def softplus(x):
    """log(1 + exp(x)), without overflow; np.logaddexp is not vectorised and far slower."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@primitive
def tanh(x):
    """autograd's own has g / cosh(x)² for its derivative: slow, and an overflow for large x."""
    return np.tanh(x)


defvjp(sigmoid, lambda ans, x: lambda g: g * ans * (1 - ans))
defvjp(tanh, lambda ans, x: lambda g: g * (1 - ans * ans))
defvjp(softplus, lambda ans, x: lambda g: g * sigmoid(x))
defjvp(sigmoid, lambda g, ans, x: g * ans * (1 - ans))
defjvp(tanh, lambda g, ans, x: g * (1 - ans * ans))
defjvp(softplus, lambda g, ans, x: g * sigmoid(x))


def logit(p):
    return np.log(p / (1 - p))  # numpy's log1p is not vectorised


def _rows(h):
    """View (..., n) as (rows, n), so that any leading axes become one matrix product."""
    return h.reshape(math.prod(h.shape[:-1]), h.shape[-1])


@primitive
def times(h, W):
    """h @ W for h of shape (..., n) and W of shape (n, m), as one BLAS call."""
    return (_rows(h) @ W).reshape(*h.shape[:-1], W.shape[1])


@primitive
def outer(h, g):
    """The sum over all leading axes of the outer products of h (..., n) and g (..., m): (n, m)."""
    return _rows(h).T @ _rows(g)


@primitive
def affine(h, W, b):
    """h @ W + b for h of shape (..., n)."""
    out = _rows(h) @ W
    out += b
    return out.reshape(*h.shape[:-1], len(b))


# The derivatives of `times` and `outer` are again `times` and `outer`, so any order is at hand.
defvjp(times, lambda ans, h, W: lambda g: times(g, anp.transpose(W)),
       lambda ans, h, W: lambda g: outer(h, g))  # fmt: skip
defvjp(outer, lambda ans, h, g: lambda G: times(g, anp.transpose(G)),
       lambda ans, h, g: lambda G: times(h, G))  # fmt: skip
defvjp(affine, lambda ans, h, W, b: lambda g: times(g, anp.transpose(W)),
       lambda ans, h, W, b: lambda g: outer(h, g),
       lambda ans, h, W, b: lambda g: anp.sum(_rows(g), axis=0))  # fmt: skip
defjvp(times, lambda g, ans, h, W: times(g, W), lambda g, ans, h, W: times(h, g))
defjvp(outer, lambda G, ans, h, g: outer(G, g), lambda G, ans, h, g: outer(h, G))
defjvp(affine, lambda g, ans, h, W, b: times(g, W), lambda g, ans, h, W, b: times(h, g),
       lambda g, ans, h, W, b: anp.broadcast_to(g, ans.shape))  # fmt: skip


@primitive
def bernoulli_log_prob(x, logits):
    """log Bernoulli(x | sigmoid(logits)) in nats, summed over the last axis.

    For x strictly between 0 and 1 it is the linear interpolation of the log-mass. It is computed as
    Σ (x − 1[a > 0]) a − Σ log(1 + exp(−|a|)), with up to 64 factors to a logarithm, the dear part.
    """
    *rows, n = logits.shape
    shape = (*rows, math.gcd(n, 64), n // math.gcd(n, 64))
    products = np.prod(np.reshape(1 + np.exp(-np.abs(logits)), shape), axis=-2)
    return np.sum((x - (logits > 0)) * logits, axis=-1) - np.sum(np.log(products), axis=-1)


defvjp(bernoulli_log_prob,
       lambda ans, x, logits: unbroadcast_f(x, lambda g: g[..., None] * logits),
       lambda ans, x, logits: unbroadcast_f(
           logits, lambda g: g[..., None] * (x - sigmoid(logits))))  # fmt: skip
defjvp(bernoulli_log_prob, lambda g, ans, x, logits: anp.sum(g * logits, axis=-1),
       lambda g, ans, x, logits: anp.sum(g * (x - sigmoid(logits)), axis=-1))  # fmt: skip


@primitive
def log_mean_exp(x, axis):
    """log of the mean of exp(x) over an axis: a multi-sample bound of log-weights in nats."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):  # log 0 is −inf
        return np.log(np.mean(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)


defvjp(log_mean_exp, lambda ans, x, axis: lambda g: anp.expand_dims(g / x.shape[axis], axis)
       * anp.exp(x - anp.expand_dims(ans, axis)))  # fmt: skip


def mlp(params, h, activation=tanh, layer=affine):
    """A network W1, b1, W2, b2, …: the activation after every map `layer(h, W, b)` but the last."""
    *hidden, W, b = params
    for W_i, b_i in zip(hidden[::2], hidden[1::2]):
        h = activation(layer(h, W_i, b_i))
    return layer(h, W, b)


def init_mlp(rng, sizes, dtype):
    """Weights of mlp: He initialisation from a normal truncated at two sd, biases zero."""
    params = []
    for n, m in itertools.pairwise(sizes):
        sd = math.sqrt(1.3 * 2 / max(n, 1))  # 1.3 makes up for the variance lost by truncation
        tail = 0.5 * math.erfc(math.sqrt(2))  # P(normal < −2)
        weights = sd * ndtri(rng.uniform(tail, 1 - tail, (n, m)))
        params += [weights.astype(dtype), np.zeros(m, dtype)]
    return params


def hard_sample(logits, u):
    """b = 1[logits + logit(u) > 0], a Bernoulli(sigmoid(logits)) bit for uniform u; not traced."""
    z = stop_gradient(logits) + logit(u)
    return (z > 0).astype(z.dtype)


# ----------------------------------------------------------------------------------------- tracing


def stop_gradient(x):
    """Cut x (an array, or a list of them) out of the innermost trace, keeping its value.

    One level only: under an outer trace over, say, a temperature, the value stays differentiable
    with respect to it. That is what differentiating a variance through an estimator needs.
    """
    if isinstance(x, (list, tuple)):
        return [stop_gradient(element) for element in x]
    return x._value if isbox(x) else x


def where(condition, x, y):
    """np.where with right gradients of branches that are broadcast; those of autograd are wrong."""
    zero = np.zeros(np.broadcast_shapes(*map(np.shape, (condition, x, y))), bool)
    return anp.where(condition, x + zero, y + zero)


def with_slope(value, a, slope):
    """`value` with the derivative `slope` by a, arrays of one shape; only a should be traced."""
    return value + slope * (a - stop_gradient(a))


def gradients(f, params):
    """Gradients of several scalars with respect to every array of the list `params`, in one trace.

    `f(params)` returns a list of scalars and the rest, anything else worth keeping. Returns a list
    of gradients per scalar, and the rest with its trace stopped. Differentiable itself. Warns, as
    autograd does, if a scalar depends on none of the parameters.
    """
    with trace_stack.new_trace() as trace:
        roots = [VJPNode.new_root() for _ in params]
        scalars, rest = f([new_box(p, trace, root) for p, root in zip(params, roots)])
    return [_backward(scalar, params, roots) for scalar in scalars], stop_gradient(rest)


def _backward(scalar, params, roots):
    # autograd's own grad keeps one root, and would fill a copy of every parameter at each access
    reached, inputs = {}, set(roots)
    if isbox(scalar):
        pending = {scalar._node: (vspace(scalar._value).ones(), False)}
        for node in toposort(scalar._node):
            gradient = pending.pop(node)
            if node in inputs:
                reached[node] = gradient[0]
            for parent, g in zip(node.parents, node.vjp(gradient[0])):
                pending[parent] = add_outgrads(pending.get(parent), g)
    if not reached:
        warnings.warn("Output seems independent of input.", stacklevel=3)
    zeros = lambda p: np.zeros(np.shape(p), getattr(p, "dtype", None))
    return [reached[r] if r in reached else zeros(p) for r, p in zip(roots, params)]


def jvp(f, inputs, direction):
    """A list of arrays, its derivative in a direction by one pass forward, and the rest.

    `f(inputs)` returns the arrays and the rest, as for `gradients`, which it may contain. The
    derivative is that of f(inputs + ε direction) at ε = 0; all three are lists of arrays.
    """
    with trace_stack.new_trace() as trace:
        nodes = [JVPNode.new_root(v) for v in direction]
        outputs, rest = f([new_box(x, trace, node) for x, node in zip(inputs, nodes)])
    reached = [isbox(out) and out._trace == trace for out in outputs]
    values = [out._value if r else out for out, r in zip(outputs, reached)]
    zero = lambda out: np.broadcast_to(np.zeros((), out.dtype), out.shape)
    slopes = [out._node.g if r else zero(out) for out, r in zip(outputs, reached)]
    return values, slopes, stop_gradient(rest)


def draw_noise(rng, batch, units, dtype):
    """Per stochastic layer a pair (u, v) of uniforms in (0, 1), each of shape (batch, units)."""
    noise = [rng.random((2, batch, n), dtype=dtype) for n in units]
    return [tuple(np.clip(uv, NOISE_MARGIN, 1 - NOISE_MARGIN)) for uv in noise]


def value_of(f, b, name="f", axes=1):
    """f(b), checked: finite floats of the shape of b's first axes. If not, InputError naming f."""
    if isinstance(b, np.ndarray):
        b = b.view()
        b.flags.writeable = False
    try:
        value = f(b)
    except TypeError as error:
        raise InputError(f"{name}: {error}; write it with autograd.numpy, for floats") from error
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise InputError(f"{name}: writes into its argument; it has to leave that alone") from error
    plain = np.asarray(getval(value))
    if plain.shape != (right := b.shape[:axes]) or plain.dtype.kind != "f":
        raise InputError(f"{name}: has to return floats {right}, not {plain.dtype} {plain.shape}")
    if not np.all(np.isfinite(plain)) and np.all(np.isfinite(getval(b))):
        raise InputError(f"{name}: returned {plain[~np.isfinite(plain)][0]}; it has to be finite")
    return value


class Toy:
    """The smallest model: params = [logits], one layer of bits, bound = f(bits).

    `f` maps bits (n, D) to values (n,); write it with autograd.numpy if a method differentiates it.
    The logits have shape (D,), or (n, D) to get the gradient of every row of a batch of n.
    """

    names, n_inputs = ("logits",), 0

    def __init__(self, f, n_units, dtype=np.float64):
        self.f, self.units, self.dtype = f, [n_units], dtype

    def init(self, rng):
        return [np.zeros(self.units[0], self.dtype)]

    def draw_noise(self, rng, batch):
        return draw_noise(rng, batch, self.units, self.dtype)

    def centre(self, x):
        return x

    def infer(self, params, x, sample, known_logits=()):
        (logits,) = known_logits or [params[0] + np.zeros((len(x), 1), self.dtype)]  # (batch, D)
        return [sample(0, logits)], [logits]

    def bound(self, params, x, activations, logits):
        h = activations[0]
        return anp.reshape(value_of(self.f, _rows(h)), h.shape[:-1])

    def bound_terms(self, params, x, activations, logits):
        return [self.bound(params, x, activations, logits)]

    def generative_logits(self, params, activations):
        return []


def exact_gradient(f, logits):
    """d/dlogits E[f(b)] for b ~ Bernoulli(sigmoid(logits)), exactly: (D,); f maps (n, D) to (n,).

    Raises InputError, a ValueError, for D > 16, for another shape and for another f.
    """
    logits = shaped("logits", logits, finite=False, D=None).astype(np.float64).clip(-1e4, 1e4)
    b = all_bits(len(logits))
    mean = lambda a: anp.sum(anp.exp(bernoulli_log_prob(b, a)) * value_of(f, b))
    return gradients(lambda p: ([mean(*p)], []), [logits])[0][0][0]


def all_bits(n):  # (2^n, n)
    if n > 16:
        raise InputError(f"enumeration is for at most 16 hidden bits, not {n}: use fewer units")
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)


def quadrature(logits, n_u=500, n_v=1):
    """Nodes u, v (n, 1) and weights (n,) of the midpoint rule for one bit, logits of shape (1,).

    The rule is split at the jump of b = 1[logits + logit(u) > 0], u = 1 − sigmoid(logits), so that
    integrands smooth on either side converge as 1 / n_u². n_v > 1 also integrates over v.
    """
    jump = float(sigmoid(-shaped("logits", logits, finite=False, D=1).astype(np.float64))[0])
    midpoints = lambda n: (np.arange(n) + 0.5) / n
    u = np.concatenate([jump * midpoints(n_u), jump + (1 - jump) * midpoints(n_u)])
    weights = np.repeat([jump / n_u, (1 - jump) / n_u], n_u)
    u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(u, midpoints(n_v), indexing="ij"))
    return u, v, np.repeat(weights / n_v, n_v)


class Assign(NamedTuple):
    """In place of a gradient of aux: the tensor is a state, as a moving average, of this value."""

    value: np.ndarray
