"""numpy calls on JAX arrays, so that an estimator compiles as its file has it (pip install jax).

numpy has two protocols for arrays of other libraries: NEP 13 for ufuncs and operators, NEP 18 for
all other functions. By them numpy hands every call on a `Lazy` array to the class, which calls the
function of the same name in jax.numpy. autograd sees numpy calls and differentiates as ever, so
stop_gradient, gradients and jvp keep their meaning. JAX sees only what numpy was asked for.

What a compiled step cannot do raises NotCompilable and names the operation: `if`, float() or int()
of a value that is known only when the step runs, a plain numpy array that is filled with one. JAX,
numpy or autograd may be the first to stumble, in errors of their own: `refusal` makes one line of
each, with the line of the estimator.

Importing this file teaches autograd the class `Lazy`. Ordinary arrays are treated as before.
"""

import sysconfig
import traceback
from pathlib import Path

import autograd.numpy.numpy_vjps as vjps
import autograd.numpy.numpy_wrapper as wrapper
import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from autograd.extend import VSpace
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import isbox
from common import InputError


class NotCompilable(InputError):
    """Says which operation it was."""


APART = {  # where the line that a user can change is not
    Path(__file__).parent, Path(__file__).parents[1] / "common.py",
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
}  # fmt: skip


def refusal(error):
    """The InputError, one line, for an error while the step was compiled.

    It says what NotCompilable says, if that is among the causes: numpy may hide it behind an error
    of its own. Its place is the last line that is not of a package, of harness/ or common.py.
    """
    causes = [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    why = next((e for e in causes if isinstance(e, NotCompilable)), error)
    what = next(filter(None, str(why).splitlines()), type(why).__name__).rstrip(".")
    if isinstance(why, jax.errors.UnexpectedTracerError):
        what = "it keeps a value from one call for the next, outside of aux"
    place = "the estimator"
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        if file.is_file() and APART.isdisjoint((file, *file.parents)):
            place = f"{file.name}, line {frame.lineno}, `{frame.line}`,"
    return InputError(f"--compile: {place} cannot be compiled: {what}; leave --compile away")


# ------------------------------------------------------------------------------------- the array


class Lazy(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the step that is being compiled: shape and type are known, the values not yet.

    `own` says that no other array can be a view of this one. Only then may it be written in place:
    JAX has no views, so another array would not see the change that numpy would have shown it.
    """

    def __init__(self, value, own=False):
        self.value, self.own = value, own

    shape, dtype, ndim, size = (
        property(lambda self, name=name: getattr(self.value, name))
        for name in ("shape", "dtype", "ndim", "size")
    )
    T = property(lambda self: np.transpose(self))

    def __len__(self):
        return len(self.value)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name):  # the methods of numpy's arrays: sum, reshape, astype, …
        if name.startswith("_") or name in IN_PLACE or not hasattr(np.ndarray, name):
            raise AttributeError(f"a compiled array has no .{name}")
        self.own = False

        def method(*args, **kwargs):
            return lazy(getattr(self.value, name)(*raw(args), **raw(kwargs)), name in FRESH)

        return method

    def view(self, kind):  # autograd's np.concatenate makes an ndarray of its result
        return self

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        if any(map(isbox, inputs)):
            return NotImplemented  # autograd comes first
        if method == "at" and ufunc is np.add:
            target, index, g = inputs
            return target._write(target.value.at[raw(index)].add(raw(g)))
        function = jax_function(ufunc.__name__, jnp, jax.scipy.special)
        if method != "__call__":  # reduce, accumulate, outer
            function = getattr(function, method)
        result = function(*raw(inputs), **raw(kwargs))
        if not out:
            return lazy(result, own=method == "__call__")
        if not isinstance(out[0], Lazy):
            raise NotCompilable(f"np.{ufunc.__name__} in place into a plain numpy array")
        out[0]._write(result)
        return out[0]

    def __array_function__(self, function, types, args, kwargs):
        name, module = function.__name__, function.__module__.removeprefix("numpy").strip(".")
        function = jax_function(name, getattr(jnp, module, jnp) if module else jnp)
        kwargs = {key: raw(value) for key, value in kwargs.items() if value is not None}
        if name not in FRESH:  # the result may be a view
            jax.tree.map(_share, args, is_leaf=_is_lazy)
        return lazy(function(*raw(args), **kwargs), name in FRESH)

    def __getitem__(self, index):
        self.own = False
        return Lazy(self.value[self._checked(index)])

    def __setitem__(self, index, value):
        self._write(self.value.at[self._checked(index)].set(raw(value)))

    def _checked(self, index):
        """The index, with numpy's errors: JAX takes the nearest element for one that is not there.

        An index that is itself computed cannot be checked.
        """
        index = raw(index)
        if not any(isinstance(i, jax.Array) for i in (index if type(index) is tuple else [index])):
            np.broadcast_to(np.int8(0), self.shape)[index]
        return index

    def _write(self, value):
        if not self.own:
            raise NotCompilable("a write into an array that others may see")
        self.value = jnp.broadcast_to(value, self.shape).astype(self.dtype)


def _unknown(name, operation):
    def refuse(self, *args, **kwargs):
        raise NotCompilable(f"{operation} of a value that is known only when the step runs")

    setattr(Lazy, name, refuse)


_unknown("__bool__", "if, while, and, or, not, max() or min()")
_unknown("__float__", "float() or a function of math")
_unknown("__int__", "int()")
_unknown("__index__", "range() or a shape")
_unknown("__array__", "a plain numpy array, or a function outside numpy's protocols,")
_unknown("__format__", "printing")
_unknown("item", "item()")
_unknown("tolist", "tolist()")
IN_PLACE = {"sort", "partition", "fill", "put", "resize", "setfield", "byteswap", "itemset"}
FRESH = {"empty_like", "zeros_like", "ones_like", "full_like", "copy"}  # never views


def _is_lazy(x):
    return isinstance(x, Lazy)


def _share(x):
    if isinstance(x, Lazy):
        x.own = False


def _tensordot(a, b, axes=2):
    """jax.numpy's takes tuples only."""
    return jnp.tensordot(a, b, axes if isinstance(axes, int) else tuple(map(tuple, axes)))


OTHERS = {
    "sort": lambda x, axis=-1, *_: jnp.sort(x, axis),  # autograd gives kind and order by position
    "argsort": lambda x, axis=-1, *_: jnp.argsort(x, axis),
    "tensordot": _tensordot,
    "psi": jax.scipy.special.digamma,
}


def jax_function(name, *modules):
    """The function of JAX that has the name of numpy's or scipy.special's."""
    found = [OTHERS[name]] if name in OTHERS else [getattr(m, name, None) for m in modules]
    for function in found:
        if function is not None:
            return function
    raise NotCompilable(f"{name}, of which JAX has no function,")


def raw(tree):
    """The JAX arrays in lists, tuples and dicts of Lazy ones."""
    return jax.tree.map(lambda x: x.value if _is_lazy(x) else x, tree, is_leaf=_is_lazy)


def lazy(tree, own=False):
    """Lazy arrays in the place of JAX's. The named tuples of jax.numpy become plain ones."""
    if isinstance(tree, tuple) and type(tree).__module__.startswith("jax"):
        tree = tuple(tree)
    return jax.tree.map(lambda x: Lazy(x, own) if isinstance(x, jax.Array) else x, tree)


# ----------------------------------------------------------------------- what autograd has to know


class Space(VSpace):
    """The zeros and ones that autograd begins a backward pass with."""

    def __init__(self, x):
        self.shape, self.dtype = x.shape, x.dtype

    def zeros(self):
        return Lazy(jnp.zeros(self.shape, self.dtype), own=True)

    def ones(self):
        return Lazy(jnp.ones(self.shape, self.dtype), own=True)


class Numpy:
    """numpy, of which array and asarray, which are in no protocol, take Lazy arrays too."""

    def __getattr__(self, name):
        return getattr(np, name)

    def array(self, x, dtype=None, **kwargs):
        if any(map(_is_lazy, x if type(x) in (list, tuple) else [x])):
            return Lazy(jnp.array(raw(x), dtype, **kwargs), own=True)
        return np.array(x, dtype, **kwargs)

    def asarray(self, x, dtype=None):
        return self.array(x, dtype) if _is_lazy(x) else np.asarray(x, dtype)


def _parse_einsum_input(operands, parse=wrapper._parse_einsum_input):
    """autograd wants the subscripts only, and shapes are enough for them."""
    empty = lambda x: np.broadcast_to(np.int8(0), x.shape) if _is_lazy(x) else x
    return parse(list(map(empty, operands)))


ArrayBox.register(Lazy)
VSpace.register(Lazy, Space)
wrapper._np = vjps.onp = Numpy()
wrapper._parse_einsum_input = _parse_einsum_input
