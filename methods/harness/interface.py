"""check.py --model on a model of the user's own: does it keep what an `estimate` relies on?"""

import inspect
import itertools
from numbers import Integral

from common import InputError, bernoulli_log_prob, gradients, hard_sample, sigmoid

from harness.userfile import called

import autograd.numpy as np

ATTRIBUTES = ("names", "n_inputs", "units", "dtype", "task")
FUNCTIONS = ("init", "draw_noise", "centre", "infer", "bound", "bound_terms", "generative_logits")
PAGE = "'Write a model' in methods/README.md"


def check_interface(model, images, file=None):
    """Raise InputError with the first promise of methods/README.md that `model` does not keep.

    `images` (rows, n_inputs) are a few values of x. `file` is where the model was read from; its
    own errors are shown with the lines of that file.
    """
    missing = [name for name in ATTRIBUTES + FUNCTIONS if not hasattr(model, name)]
    if missing:
        raise InputError(f"model has no {missing[0]}: see {PAGE}")
    check_attributes(model)
    try:
        images = np.asarray(images, model.dtype)
    except (TypeError, ValueError):
        raise InputError("images has to be numbers, a few rows of x of one length") from None
    need(images.ndim == 2 and len(images) > 0, "images", images.shape, "(rows, n_inputs)")
    need(images.shape[1] == model.n_inputs, "images", images.shape, f"(rows, {model.n_inputs})")
    need_finite("images", images)
    rng, batch, own = np.random.default_rng(0), len(images), model
    model = Guarded(model, file)
    params = model.init(rng)
    need(len(params) == len(model.names), "init", f"{len(params)} arrays", f"{len(model.names)}, "
         "one for each of names")  # fmt: skip
    for name, p in zip(model.names, params):
        need(getattr(p, "dtype", None) == model.dtype, f"{name} of init", getattr(p, "dtype", p),
             f"an array of {np.dtype(model.dtype)}")  # fmt: skip
        need_finite(f"{name} of init", p)
    centred = model.centre(images)
    need(np.shape(centred)[:1] == (batch,), "centre", np.shape(centred), f"({batch}, …)")
    need_finite("centre", centred)
    check_passes(model, params, images, check_noise(model, batch))
    check_slopes(own, params, images)
    if model.task != "predict":
        check_density(model, params, images)


def check_attributes(model):
    units, names, lists = model.units, model.names, (list, tuple, np.ndarray)
    for name, right, wanted in (
        ("units", isinstance(units, lists) and all(isinstance(n, Integral) for n in units),
         "a list, of how many bits each layer has"),
        ("names", isinstance(names, lists), "a list, with a name for each array of init"),
        ("dtype", is_float(model.dtype), "np.float32 or np.float64"),
        ("task", model.task in ("generate", "predict"), "'generate' or 'predict'"),
    ):  # fmt: skip
        if not right:
            raise InputError(f"{name} is {getattr(model, name)!r}; it has to be {wanted}")


def is_float(dtype):
    try:
        return np.dtype(dtype) in (np.float32, np.float64)
    except TypeError:
        return False


class Guarded:
    """The model, with functions whose arguments cannot be written into.

    Raises InputError with the name of a function that tries, and other errors as `called(file)`.
    """

    def __init__(self, model, file):
        self.model, self.file = model, file

    def __getattr__(self, name):
        value = getattr(self.model, name)
        if name not in FUNCTIONS:
            return value

        def function(*arguments):
            try:
                inspect.signature(value).bind(*arguments)
            except TypeError as error:
                raise InputError(f"{name} takes other arguments ({error}): see {PAGE}") from error
            try:
                with called(self.file):
                    return value(*map(read_only, arguments))
            except ValueError as error:
                if "read-only" not in str(error).rpartition("\n")[2]:
                    raise
                raise InputError(f"{name} writes into an array that it was given; it has to leave "
                                 "params, x and activations as they are") from error  # fmt: skip

        return function


def read_only(argument):
    """An argument of a function of the model, of which no array can be changed."""
    if isinstance(argument, (list, tuple)):
        kind = tuple if isinstance(argument, tuple) else list
        return kind(map(read_only, argument))
    if isinstance(argument, np.ndarray):
        argument = argument.view()
        argument.flags.writeable = False
    return argument


def need(right, what, found, wanted):
    if not right:
        raise InputError(f"{what} gives {found}; it has to be {wanted}")


def need_finite(what, array, wanted="finite"):
    need(bool(np.all(np.isfinite(array))), what, "what is not finite", wanted)


def check_noise(model, batch):
    """The noise of model.draw_noise, for which it drew uniforms from its rng, all anew."""
    rng = np.random.default_rng(0)
    draws = [model.draw_noise(r, batch) for r in (rng, rng, np.random.default_rng(0))]
    shapes = [tuple(np.shape(pair)) for pair in draws[0]]
    need(shapes == [(2, batch, n) for n in model.units], "draw_noise", shapes,
         "for each layer a pair of uniforms (rows, units)")  # fmt: skip
    first, second, again = ([np.asarray(w) for pair in noise for w in pair] for noise in draws)
    for w in first:
        need(bool(np.all((w > 0) & (w < 1))), "draw_noise", f"numbers from {np.min(w):.3g} to "
             f"{np.max(w):.3g}", "uniforms in (0, 1)")  # fmt: skip
    alike = [np.array_equal(p, q) for p, q in itertools.combinations([*first, *second], 2)]
    need(not any(alike), "draw_noise", "the same numbers twice", "all new, drawn from rng")
    need(all(map(np.array_equal, first, again)), "draw_noise", "other numbers for the same rng",
         "drawn from rng alone")  # fmt: skip
    return draws[0]


def check_passes(model, params, x, noise):
    """Shapes of infer, bound and its terms; leading axes; and which number depends on which."""
    layers, batch = len(model.units), len(x)
    hard = lambda layer, a: read_only(hard_sample(a, noise[layer][0]))
    inferred = model.infer(params, x, hard)
    need(len(inferred) == 2, "infer", f"{len(inferred)} of them", "two lists, activations and "
         "logits")  # fmt: skip
    b, a = inferred
    wanted = [(batch, n) for n in model.units]
    for what, arrays in (("activations", b), ("logits", a)):
        shapes = [np.shape(array) for array in arrays]
        need(shapes == wanted, f"infer, its {what},", shapes, wanted)
        for array in arrays:
            need_finite(f"infer, its {what},", array)
    same = lambda p, q: np.shape(p) == np.shape(q) and np.allclose(p, q, 1e-6, 1e-9)
    bound = lambda b, a, x=x: model.bound(params, x, b, a)
    f, terms = bound(b, a), model.bound_terms(params, x, b, a)
    prior = model.generative_logits(params, b)
    need(np.shape(f) == (batch,), "bound", np.shape(f), f"({batch},)")
    need_finite("bound", f, "finite at bits")
    need(len(terms) == layers, "bound_terms", f"{len(terms)} terms", f"{layers}, one a layer")
    need(same(sum(terms), f), "the sum of bound_terms", sum(terms), f"that of bound, {f}")
    need(len(prior) in (0, layers), "generative_logits", f"{len(prior)} arrays", f"{layers}")
    for p, (_, n) in zip(prior, wanted):
        right = (batch, n), (1, n), (n,)
        need(np.shape(p) in right, "generative_logits", f"the shape {np.shape(p)}",
             f"{right[0]}, or {right[2]} for all rows")  # fmt: skip
    means = [sigmoid(a_i) for a_i in a]
    need_finite("bound", bound(means, a), "finite between bits, too")

    for layer in range(layers):
        known = model.infer(params, x, hard, a[: layer + 1])
        turned = [1 - b_i if i > layer else b_i for i, b_i in enumerate(b)]
        others = model.bound_terms(params, x, turned, a)
        need(all(map(same, known[1], a)), f"infer with known_logits of {layer + 1}", "others",
             "the same logits")  # fmt: skip
        for i in range(layer + 1):
            need(same(others[i], terms[i]), f"term {i} of bound_terms",
                 f"another value when a layer above {i} changes",
                 f"a function of x and of the layers up to {i}")  # fmt: skip

    twice = [read_only(np.stack([b_i, 1 - b_i])) for b_i in b]  # two samples of each x in a sweep
    many = bound(*model.infer(params, x, lambda layer, a: twice[layer]))
    each = [bound(*model.infer(params, x, lambda l, a, k=k: twice[l][k])) for k in (0, 1)]
    need(same(many, np.stack(each)), "bound of activations (2, rows, units)", np.shape(many),
         "the two bounds of its samples, (2, rows)")  # fmt: skip
    order = np.roll(np.arange(batch), 1)
    rolled = bound([b_i[order] for b_i in b], [a_i[order] for a_i in a], x[order])
    need(same(rolled, f[order]), "bound of the rows in another order", rolled, f"{f[order]}")


def check_slopes(model, params, x):
    """bound can be differentiated, by parameters and by activations."""

    def total(tensors):
        count = len(params)
        own, means = tensors[:count], lambda layer, a: sigmoid(a) + tensors[count + layer]
        return [np.sum(model.bound(own, x, *model.infer(own, x, means)))], []

    shifts = [np.zeros((len(x), n), model.dtype) for n in model.units]
    try:
        gradients(total, [*params, *shifts])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"bound cannot be differentiated ({error}): write the model with autograd.numpy in the "
            "place of numpy, and write into no array"
        ) from error


def check_density(model, params, x):
    """bound is log p − log q: Σ_b q exp(bound) = p(x), whatever logits q has. For few bits."""
    if sum(model.units) > 10:
        return
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=sum(model.units))), model.dtype)
    tiled = np.broadcast_to(bits[:, None], (len(bits), len(x), bits.shape[1]))
    layers = read_only(np.split(tiled, np.cumsum(model.units)[:-1], axis=-1))
    totals = []
    for shift in (0.0, 0.3):
        b, a = model.infer(params, x, lambda layer, a: layers[layer])
        a = [a_i + shift for a_i in a]
        f = model.bound(params, x, b, a)
        log_q = sum(bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
        totals.append(np.sum(np.exp(log_q + f), axis=0))
    need(np.allclose(*totals, 1e-5), "bound", f"Σ_b q exp(bound) = {totals[0][0]:.4g} for the "
         f"first image, and {totals[1][0]:.4g} with other logits of q",
         "log p(x, b) − log q(b|x): then both are p(x)")  # fmt: skip
