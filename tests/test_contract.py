"""The contract of the public functions: nonsense is a ValueError that names the argument.

What is unusual but has an answer gives that answer: infinite logits, uniforms of exactly 0 or 1,
float16.
"""

import re

import autograd.numpy as anp
import numpy as np
import proofs
import pytest

M = proofs.load()
L, U = np.array([0.3, -1.0]), np.random.default_rng(0).uniform(0.01, 0.99, (6, 2))
quadratic = proofs.quadratic

# gradient_samples of the methods for bits, by what their uniforms look like
SINGLE = {
    "reinforce": {}, "nvil": {}, "muprop": {}, "concrete": {}, "rebar": {}, "disarm": {},
    "relax": {}, "relax black box": {"black_box": True},
    "reinmax": {}, "reinmax st": {"estimator": "st"},
    "reinmax st-gumbel": {"estimator": "st-gumbel"},
    "reinmax gumbel-rao": {"estimator": "gumbel-rao"},
    "relax independent": {"conditional": "independent"},
    "rebar independent": {"conditional": "independent"}, "muprop simple": {"simple": True},
    "concrete straight-through": {"straight_through": True},
    "reinforce batch": {"baseline": "batch"},
}  # fmt: skip
SEVERAL = {
    "rloo": {}, "vimco": {}, "disarm arms": {"estimator": "arms"},
    "rodeo": {}, "rodeo double-cv": {"estimator": "double-cv"},
}  # fmt: skip
ALL = SINGLE | SEVERAL
DIFFERENTIABLE = ("concrete", "rebar", "rebar independent", "concrete straight-through", "relax",
                  "reinmax", "reinmax gumbel-rao")  # fmt: skip


def call(name, f=quadratic, logits=L, u=None, v=None, **options):
    if u is None:
        u = U if name in SINGLE else np.stack([U, U[::-1], 1 - U], axis=1)
    v = u if v is None else v
    function = getattr(M, name.split()[0]).gradient_samples
    return function(f, logits, u, v, **ALL[name] | options)


@pytest.mark.parametrize("name", ALL)
def test_right_shapes_are_taken(name):
    g = call(name)
    assert g.shape == (6, 2)
    assert np.isfinite(g).all()


SHAPES = [
    ("logits", {"logits": L[None]}), ("logits", {"logits": L[:, None]}),
    ("logits", {"logits": 0.3}),
    ("u", {"logits": L[:1]}), ("u", {"logits": np.append(L, 0.0)}),
    ("logits", {"logits": np.array([0.3, np.nan])}),
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("argument", "change"), SHAPES)
def test_logits_of_another_shape_are_refused(name, argument, change):
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        call(name, **change)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("argument", ["u", "v"])
def test_uniforms_of_another_shape_are_refused(name, argument):
    good = U if name in SINGLE else np.stack([U, U[::-1], 1 - U], axis=1)
    wrong = [
        good[..., :1],
        good[:1, ..., :1],
        good[0],
        good[..., None],
        np.full(good.shape, np.nan),
    ]
    if argument == "v":
        wrong += [good[:3], good[:1]]
    for values in wrong:
        with pytest.raises(ValueError, match=r"^[uv]: "):
            call(name, **{"u": good, "v": good} | {argument: values})


FUNCTIONS = {
    "(n, 1)": lambda b: anp.sum(b, axis=1, keepdims=True),
    "(n, D)": lambda b: b,
    "a number": lambda b: anp.sum(b),
    "integers": lambda b: np.sum(np.asarray(proofs.getval(b)) > 0.5, axis=1),
    "one row too few": lambda b: anp.sum(b, axis=1)[1:],
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_f_of_another_shape_or_type_is_refused(name, f):
    with pytest.raises(ValueError, match=r"^f: "):
        call(name, f=FUNCTIONS[f])


@pytest.mark.parametrize("f", FUNCTIONS)
def test_exact_gradient_refuses_the_same(f):
    with pytest.raises(ValueError, match=r"^f: "):
        M.common.exact_gradient(FUNCTIONS[f], L)
    with pytest.raises(ValueError, match=r"^f: "):
        M.categorical.exact_gradient(FUNCTIONS[f], np.zeros((2, 3)))


@pytest.mark.parametrize("logits", [L[None], L[:, None], 0.3, [np.nan, 0.0]], ids=str)
def test_exact_gradient_refuses_other_logits(logits):
    with pytest.raises(ValueError, match=r"^logits: "):
        M.common.exact_gradient(quadratic, logits)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_an_f_without_slope_is_refused(name):
    """round(b) varies between the bits, but its derivative is 0; so is that of a comparison."""
    for f in (lambda b: anp.sum(anp.round(b), axis=1), lambda b: anp.sum((b > 0.5) * 1.0, axis=1)):
        with pytest.raises(ValueError, match=r"^f: "):
            call(name, f=f)


# Finite at all bits, but their slopes are not: −∞ · 0 at (1, 0), and ∞ where a bit is 0
STEEP = {
    "distance": lambda b: anp.sqrt(anp.sum((b - np.array([1.0, 0.0])) ** 2, axis=1)),
    "root": lambda b: anp.sum(anp.sqrt(b), axis=1),
}
AT_BITS = ("rodeo", "rodeo double-cv", "reinmax", "reinmax st", "reinmax st-gumbel",
           "reinmax gumbel-rao", "concrete straight-through")  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("f", STEEP)
def test_a_slope_that_is_not_finite_is_refused(name, f):
    """By the estimators that take the slope at bits; all others have an answer."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in AT_BITS:
            with pytest.raises(ValueError, match=r"^f: its slope is not finite at some points"):
                call(name, f=STEEP[f])
        else:
            assert np.isfinite(call(name, f=STEEP[f])).all()


def test_a_relaxed_bit_that_rounds_to_0_is_refused_there():
    """At T = 1e-3 the relaxed bits are 0 and 1 to rounding."""
    for name in ("concrete", "rebar", "relax"):
        with (
            np.errstate(divide="ignore", invalid="ignore"),
            pytest.raises(ValueError, match=r"^f: its slope is not finite at some points"),
        ):
            call(name, f=STEEP["root"], temperature=1e-3)


NO_EFFECT = [
    ("rodeo double-cv", "beta", 5.0), ("rodeo double-cv", "rho", [L]), ("muprop simple", "s1", 1.0),
    ("relax black box", "eta", 3.0), ("relax black box", "temperature", 0.5),
    ("reinmax", "inner", 3), ("reinmax st", "inner", 3), ("reinmax st-gumbel", "inner", 10),
]  # fmt: skip


@pytest.mark.parametrize(("name", "option", "value"), NO_EFFECT)
def test_an_option_without_effect_is_refused(name, option, value):
    with pytest.raises(ValueError, match=rf"^{option}: has no effect with "):
        call(name, **{option: value})


def test_the_defaults_of_options_that_some_estimators_lack():
    for name, options in (("rodeo", {"beta": 0.0}), ("muprop", {"s1": 1.0}),
                          ("relax", {"eta": 1.0, "temperature": 0.5}),
                          ("reinmax gumbel-rao", {"inner": 10})):  # fmt: skip
        np.testing.assert_array_equal(call(name), call(name, **options))
        other = {option: 2 * value + 1 for option, value in options.items()}
        assert np.abs(call(name) - call(name, **other)).max() > 1e-3


@pytest.mark.parametrize(("name", "inputs", "outputs"), [("relax", 2, 1), ("rodeo", 2, 2)])
def test_weights_of_a_network(name, inputs, outputs):
    right = [np.ones((inputs, 3)), np.ones(3), np.ones((3, outputs)), np.ones(outputs)]
    given = call(name, rho=[array.tolist() for array in right])
    np.testing.assert_array_equal(given, call(name, rho=right))
    infinite = [np.full((inputs, 3), np.inf), *right[1:]]
    for rho in (5, right[:3], infinite, [*right[:3], np.ones(outputs + 1)], [L, *right[1:]]):
        with pytest.raises(ValueError, match=r"^rho: has to be "):
            call(name, rho=rho)


@pytest.mark.parametrize("name", ALL)
def test_temperatures_and_choices(name):
    module = name.split()[0]
    wrong = {
        "reinforce": [("baseline", "leave_one_out")],
        "concrete": [("relaxation", "gumbel"), ("temperature", 0.0), ("temperature", -1)],
        "rebar": [("relaxation", "gumbel"), ("conditional", "indep"), ("temperature", 0.0),
                  ("control_variate", "per layer"), ("temperature", np.nan),
                  ("temperature", np.inf)],
        "rloo": [("baseline", "batch")], "vimco": [("mean", "harmonic")],
        "disarm": [("estimator", "u2g")],
        "rodeo": [("estimator", "stein"), ("alpha", [0.1]), ("beta", np.nan), ("rho", [L])],
        "reinmax": [("estimator", "gst"), ("temperature", 0.0), ("forward_temperature", np.nan)],
        "relax": [("conditional", "indep"), ("temperature", 0.0), ("rho", [L])],
    }  # fmt: skip
    for argument, value in wrong.get(module, []):
        with pytest.raises(ValueError, match=rf"^{argument}: "):
            call(name, **{argument: value})


@pytest.mark.parametrize("name", ALL)
def test_uniforms_of_exactly_0_and_1_are_finite(name):
    shape = (6, 2) if name in SINGLE else (6, 3, 2)
    for dtype in (np.float32, np.float64):
        u = np.resize(np.array([0, 1, 0.5, 1, 0], dtype), shape)
        with np.errstate(all="raise", under="ignore"):
            assert np.isfinite(call(name, u=u, v=np.flip(u))).all()


@pytest.mark.parametrize("name", ALL)
def test_an_infinite_logit_is_a_fixed_bit(name):
    """Its gradient is 0; that of the other logit is the one of the model without the bit."""
    u = U if name in SINGLE else np.stack([U, U[::-1], 1 - U], axis=1)
    for fixed, bit in ((-np.inf, 0.0), (np.inf, 1.0)):
        g = call(name, logits=np.array([0.3, fixed]))
        alone = lambda b, bit=bit: quadratic(anp.concatenate([b, 0 * b + bit], axis=1))
        expected = call(name, f=alone, logits=L[:1], u=u[..., :1])
        np.testing.assert_array_equal(g[:, 1], 0)
        np.testing.assert_allclose(g[:, 0], expected[:, 0], rtol=1e-9, atol=1e-12)
        exact = M.common.exact_gradient(quadratic, [0.3, fixed])
        np.testing.assert_allclose(exact, [M.common.exact_gradient(alone, [0.3])[0], 0], atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_narrow_floats_are_widened(name):
    half = [x.astype(np.float16) for x in (L, U)]
    u = half[1] if name in SINGLE else np.stack([half[1], half[1][::-1], half[1]], axis=1)
    wide = call(name, logits=half[0].astype(float), u=u.astype(float))
    np.testing.assert_array_equal(call(name, logits=half[0], u=u), wide)


def test_one_eta_per_parameter_tensor():
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), len(x))
    for eta in (np.ones(1), np.ones(len(params) + 1), np.ones((1, len(params)))):
        with pytest.raises(ValueError, match=r"^eta: "):
            M.rebar.rebar(model, params, x, noise, 0.5, eta, 0.0)


# ---------------------------------------------------------------------------------------- classes

A = np.array([[0.3, -1.0, 0.5], [0.0, 0.2, -0.4]])
W = np.random.default_rng(1).uniform(0.01, 0.99, (5, 2, 3))
CLASSES = {"gumbel-softmax": {}, "reinforce": {}, "rebar": {},
           "rebar independent": {"conditional": "independent"}}  # fmt: skip
weights = np.arange(6.0).reshape(2, 3)
of_classes = lambda b: anp.sum((b * weights - 0.3) ** 2, axis=(1, 2))


def call_classes(name, f=of_classes, logits=A, u=W, v=None, **options):
    return M.gumbel_softmax.gradient_samples(
        f, logits, u, u if v is None else v,
        **{"estimator": name.split()[0]} | CLASSES[name] | options,
    )  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    assert np.isfinite(call_classes(name)).all()
    wrong = [
        ("logits", {"logits": A[0]}), ("logits", {"logits": A[None]}),
        ("logits", {"logits": np.where(A > 0.4, np.nan, A)}), ("u", {"u": W[..., :1]}),
        ("logits", {"logits": np.full((2, 3), -np.inf)}), ("u", {"u": W[:, :1]}),
        ("v", {"v": W[:2]}), ("estimator", {"estimator": "vimco"}),
        ("estimator", {"estimator": "nvil"}),
        ("estimator", {"estimator": "REINFORCE"}), ("temperature", {"temperature": 0.0}),
        ("f", {"f": lambda b: anp.sum(b, axis=2)}),
    ]  # fmt: skip
    for argument, change in wrong:
        with pytest.raises(ValueError, match=rf"^{re.escape(argument)}: "):
            call_classes(name, **change)
    u = np.resize([0.0, 1.0, 0.5, 1.0], W.shape)
    assert np.isfinite(call_classes(name, u=u)).all()


def test_a_slope_of_classes_that_is_not_finite_is_refused():
    roots = lambda b: anp.sum(anp.sqrt(b), axis=(1, 2))
    hard = [{"estimator": name} for name in ("reinmax", "st", "st-gumbel", "gumbel-rao")]
    with np.errstate(divide="ignore", invalid="ignore"):
        for options in (*hard, {"straight_through": True}):
            with pytest.raises(ValueError, match=r"^f: its slope is not finite at some points"):
                M.gumbel_softmax.gradient_samples(roots, A, W, W, **options)
        for name in CLASSES:
            assert np.isfinite(call_classes(name, f=roots)).all()


def test_an_option_of_another_estimator_of_classes_is_refused():
    for estimator, option in (("gumbel-softmax", "eta"), ("gumbel-softmax", "baseline"),
                              ("reinforce", "eta"), ("reinmax", "inner"), ("st", "baseline"),
                              ("gumbel-rao", "eta")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{option}: estimator {estimator} has no such opti"):
            M.gumbel_softmax.gradient_samples(
                of_classes, A, W, W, estimator=estimator, **{option: 3}
            )
    with pytest.raises(ValueError, match=r"^temperature: has no effect with reinforce"):
        call_classes("reinforce", temperature=3)
    with pytest.raises(ValueError, match=r"^estimator: choose from reinmax, st"):
        M.reinmax.gradient_samples(lambda b: b[:, 0], [0], W[:, :1, 0], W[:, :1, 0], inner=5,
                                   estimator="reinmx")  # fmt: skip
    np.testing.assert_array_equal(call_classes("rebar"), call_classes("rebar", eta=1, baseline=0))
    assert np.abs(call_classes("rebar") - call_classes("rebar", eta=0.5)).max() > 1e-3


@pytest.mark.parametrize("name", CLASSES)
def test_a_masked_class_never_comes(name):
    """Class 1 of the first variable has the logit −∞: as the model without it, and 0 for it."""
    masked = A.copy()
    masked[0, 1] = -np.inf
    g = call_classes(name, logits=masked)
    assert np.isfinite(g).all()
    np.testing.assert_allclose(g[:, 0, 1], 0, atol=1e-12)
    exact = M.categorical.exact_gradient(of_classes, masked)
    far = M.categorical.exact_gradient(of_classes, np.where(np.isinf(masked), -50.0, masked))
    np.testing.assert_allclose(exact, far, atol=1e-12)
    assert exact[0, 1] == 0
