"""ReinMax and straight-through: their order, their formulas, code of others; mutations.

All are biased, and known to be: what is proved is for which f they are not, and what they are.
"""

from functools import partial
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from test_runs import SMALL, read_log, run

M = proofs.load()
ESTIMATORS = M.reinmax.ESTIMATORS
# What the code of the paper's authors, github.com/LiyuanLucasLiu/ReinMax (commit 2367056, PyTorch,
# float32), gives for the logits of 2 × 4 variables of 8 classes: for every estimator and T, the
# class drawn and the gradient of Σ w b; Gumbel noise, or three draws of exponentials.
VECTORS = np.load(Path(__file__).parent / "data" / "reinmax_vectors.npz")

BITS = np.array([0.7, -1.1])
CLASSES = np.array([[0.6, -0.3, 0.1], [-0.8, 0.2, 1.0]])


def linear(b):
    return 1.3 * b[:, 0] - 0.7 * b[:, -1]


def quadratic(b):
    """With cross terms."""
    return 2 * b[:, 0] * b[:, -1] - 0.6 * (b[:, 0] - 0.3) ** 2 + b[:, -1] * (b[:, 0] + 0.2)


def cubic(b):
    return (b[:, 0] - 0.4) ** 3 + b[:, 0] ** 2 * b[:, -1]


def of_classes(f):
    """The same for one-hots (n, N, K), by a number for every class of a variable."""
    numbers = np.array([[0.0, 1.2, -0.7], [0.4, -1.0, 0.3]])
    return lambda b: f(anp.sum(b * numbers, axis=-1))


# ------------------------------------------------------------------------------------------ proofs


def mean_for_bits(m, f, **options):
    """E of an estimate that depends on the bits only, and what it should be: (D,) each."""
    u, v, weights = m.toy.outcomes(BITS, 1)
    g = m.reinmax.gradient_samples(f, BITS, u[:, 0], v[:, 0], **options)
    return weights @ g, m.common.exact_gradient(f, BITS)


def mean_for_classes(m, f, **options):
    """The same for two variables of three classes: (D, K) each."""
    f, pi = of_classes(f), np.exp(CLASSES) / np.exp(CLASSES).sum(axis=-1, keepdims=True)
    chosen = np.array(list(np.ndindex(3, 3)))
    one_hot = np.eye(3)[chosen]
    u = 1e-9 + (1 - 2e-9) * one_hot
    g = m.gumbel_softmax.gradient_samples(f, CLASSES, u, u, **options)
    weights = pi[0, chosen[:, 0]] * pi[1, chosen[:, 1]]
    return np.tensordot(weights, g, 1), m.categorical.exact_gradient(f, CLASSES)


def bias(m, f, estimator, mean=mean_for_bits, **options):
    found, exact = mean(m, f, estimator=estimator, **options)
    return np.abs(found - exact).max()


def order_is(m, mean=mean_for_bits):
    """ST is exact for linear f, ReinMax for quadratic f too, at T = 1 only; neither for a cubic."""
    of = partial(bias, m, mean=mean)
    for estimator, exact in (("st", [linear]), ("reinmax", [linear, quadratic])):
        for f in (linear, quadratic, cubic):
            if f in exact:
                assert of(f, estimator, temperature=1.0) < 1e-12, (estimator, f.__name__)
            else:
                assert of(f, estimator, temperature=1.0) > 1e-2, (estimator, f.__name__)
        for T in (0.7, 1.3):
            assert of(linear, estimator, temperature=T) > 1e-2, (estimator, T)


def as_published(m):
    """Every parameter of a two-layer network, by other code for the same slopes: 1e-12.

    ST by its three lines; ReinMax by a surrogate through two sigmoids.
    """
    model, params, x = proofs.tiny_sbn(m, layers=2)
    x = np.repeat(x, 4, axis=0)
    noise = model.draw_noise(np.random.default_rng(5), len(x))
    stop, sigmoid, T = m.common.stop_gradient, m.common.sigmoid, 1.4

    def st(a, b):
        h = sigmoid(a / T)
        return h + stop(b - h)

    def reinmax(a, b):
        pi_1 = (sigmoid(stop(a) / T) + b) / 2
        pi_1 = sigmoid(np.log(pi_1 / (1 - pi_1)) - stop(a) + a)
        pi_2 = 2 * pi_1 - sigmoid(a) / 2
        return pi_2 - stop(pi_2) + b

    for name, rule in (("st", st), ("reinmax", reinmax)):

        def bound(params):
            draw = lambda layer, a: rule(a, (stop(a) > -m.common.logit(noise[layer][0])) * 1.0)
            b, a = model.infer(params, x, draw)
            f = model.bound(params, x, b, [stop(a_l) for a_l in a])
            return [anp.sum(f) / len(x)], f

        (expected,), f = m.common.gradients(bound, params)
        ours, grads, _ = m.reinmax.estimate(
            model, params, [], x, noise, estimator=name, temperature=T
        )
        np.testing.assert_array_equal(ours, f)
        for tensor, g, h in zip(model.names, grads, expected, strict=True):
            assert np.abs(h).max() > 1e-4
            np.testing.assert_allclose(g, h, rtol=0, atol=1e-12, err_msg=(name, tensor))


def agrees_with_theirs(m, names=ESTIMATORS):
    """Element by element with the authors' code, in float32: 2e-6."""
    logits, w = VECTORS["logits"], VECTORS["slope"]
    for T in (0.5, 1.0, 1.3):
        for name in names:
            chosen, theirs = VECTORS[f"{name} {T} class"], VECTORS[f"{name} {T} gradient"]
            u = np.where(np.eye(8)[chosen] == 1, 1 - 1e-12, 1e-12)  # forces the class
            draws = [u]
            if name == "st-gumbel":
                u = np.exp(-np.exp(-VECTORS[f"{name} {T} noise"].astype(float)))
            if name == "gumbel-rao":
                draws = np.exp(-np.moveaxis(VECTORS[f"{name} {T} noise"].astype(float), -1, 0))

            def weighted(params):
                b = [m.reinmax.classes(*params, u, v, estimator=name, T=T) for v in draws]
                return [sum(anp.sum(w * b_r) for b_r in b) / len(b)], b[0]

            ((ours,),), b = m.common.gradients(weighted, [logits])
            np.testing.assert_array_equal(np.argmax(b, axis=-1), chosen)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6, err_msg=f"{name} {T}")


def gumbel_rao_has_the_mean_of_st_gumbel(m, T=0.7):
    """One bit, and one variable of three classes; by quadrature over u, and v given the outcome.

    1e-4 for a bit. For classes, 20,000 draws of v per class: within 5 standard errors.
    """
    logits, f = np.array([0.4]), lambda b: anp.exp(b[:, 0])
    samples = partial(m.reinmax.gradient_samples, f, temperature=T)
    plain, _ = proofs.mean_on_grid(partial(samples, estimator="st-gumbel"), m, 0.4, 20_000)
    for inner in (1, 3):
        rao = partial(samples, estimator="gumbel-rao", inner=inner)
        mean, _ = proofs.mean_on_grid(rao, m, 0.4, 400, 400)
        assert abs(mean - plain) < 1e-4, (inner, mean, plain)
    logits, f = CLASSES[:1], of_classes(lambda b: anp.exp(b[:, 0]))
    samples = partial(m.gumbel_softmax.gradient_samples, f, logits, temperature=T)
    u, weights = m.categorical.quadrature(logits)
    plain = np.tensordot(weights, samples(u, u, estimator="st-gumbel"), 1)
    rng, pi = np.random.default_rng(0), np.exp(logits[0]) / np.exp(logits[0]).sum()
    v = rng.random((20_000, 1, 3))
    mean, variance = 0, 0
    for k in range(3):
        u = np.broadcast_to(1e-9 + (1 - 2e-9) * np.eye(3)[k], v.shape)
        g = samples(u, v, estimator="gumbel-rao", inner=2)
        mean, variance = mean + pi[k] * g.mean(0), variance + pi[k] ** 2 * g.var(0) / len(v)
    assert np.abs(mean - plain).max() < 5 * np.sqrt(variance.max()) < 5e-3


def temperatures_are_apart(m):
    """F is of the draw, T of the slope: one bit of the docstring's table, in numbers."""
    a, F, T = np.array([0.8]), 2.0, 0.6
    rng = np.random.default_rng(1)
    u, v = rng.uniform(0.01, 0.99, (2, 200, 1))
    b = (a / F + np.log(u / (1 - u)) > 0) * 1.0
    sigmoid = lambda t: 1 / (1 + np.exp(-t))
    J = lambda p: p * (1 - p)
    slopes = {
        "st": J(sigmoid(a / T)) / T + 0 * b,
        "st-gumbel": J(sigmoid((a / F + np.log(u / (1 - u))) / T)) / T,
        "reinmax": 2 * J((sigmoid(a / T) + b) / 2) - J(sigmoid(a)) / 2,
    }
    for name, slope in slopes.items():
        g = m.reinmax.gradient_samples(
            lambda b: anp.exp(2 * b[:, 0]), a, u, v, estimator=name, temperature=T,
            forward_temperature=F,
        )  # fmt: skip
        np.testing.assert_allclose(g, slope * 2 * np.exp(2 * b), rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("mean", [mean_for_bits, mean_for_classes])
def test_order(mean):
    order_is(M, mean)


def test_every_parameter_as_published():
    as_published(M)


def test_code_of_others():
    agrees_with_theirs(M)


@pytest.mark.slow
def test_gumbel_rao_has_the_mean_of_st_gumbel():
    gumbel_rao_has_the_mean_of_st_gumbel(M)


def test_temperatures_are_apart():
    temperatures_are_apart(M)


@pytest.mark.parametrize("inner", [1, 10])
def test_gumbel_rao_has_less_variance(inner, rng):
    """Rao-Blackwell: for M = 1 the same variance, for M = 10 less than two thirds; 20,000 draws."""
    u, v = rng.random((2, 20_000, 2))
    samples = partial(M.reinmax.gradient_samples, cubic, BITS, u, v, temperature=0.5)
    plain = samples(estimator="st-gumbel").var(axis=0).sum()
    rao = samples(estimator="gumbel-rao", inner=inner).var(axis=0).sum()
    assert (0.9 < rao / plain < 1.1) if inner == 1 else (rao / plain < 2 / 3)


def test_the_name_of_st_gumbel_elsewhere(rng):
    """It is --straight-through of concrete.py and of gumbel_softmax.py."""
    u, T = rng.random((50, 2)), 0.6
    g = M.reinmax.gradient_samples(cubic, BITS, u, u, estimator="st-gumbel", temperature=T)
    same = M.concrete.gradient_samples(cubic, BITS, u, u, temperature=T, straight_through=True)
    np.testing.assert_allclose(g, same, rtol=1e-10, atol=1e-13)
    u = rng.random((50, 2, 3))
    samples = partial(M.gumbel_softmax.gradient_samples, of_classes(cubic), CLASSES, u, u)
    g, same = (
        samples(estimator="st-gumbel", temperature=T),
        samples(straight_through=True, temperature=T),
    )
    np.testing.assert_allclose(g, same, rtol=1e-10, atol=1e-13)


def test_two_classes_are_a_bit(rng):
    """Logits (a, 0) with the same outcome; not of ST-Gumbel, whose noise is another."""
    u, numbers = rng.random((50, 2)), np.array([1.0, 0.0])
    bits = u > 1 / (1 + np.exp(BITS))
    forced = np.where(np.stack([bits, ~bits], axis=-1), 1 - 1e-9, 1e-9)
    f = lambda b: cubic(anp.sum(b * numbers, axis=-1))
    for estimator in ("st", "reinmax"):
        g = M.gumbel_softmax.gradient_samples(
            f, np.stack([BITS, 0 * BITS], axis=-1), forced, forced, estimator=estimator,
            temperature=1.3,
        )  # fmt: skip
        same = M.reinmax.gradient_samples(cubic, BITS, u, u, estimator=estimator, temperature=1.3)
        np.testing.assert_allclose(g[..., 0], same, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(g[..., 1], -same, rtol=1e-9, atol=1e-12)


def test_the_bound_is_that_of_the_model():
    """Also if the gradient is at bits of another F."""
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), len(x))
    bound = partial(M.reinmax.estimate, model, params, [], x, noise)
    np.testing.assert_array_equal(bound()[0], bound(forward_temperature=3.0)[0])
    assert np.any(bound()[1][0] != bound(forward_temperature=3.0)[1][0])


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_float32_is_kept(monkeypatch, task, estimator):
    for options in ({}, {"temperature": 0.7, "forward_temperature": 1.3}):
        proofs.float32_is_kept(M, monkeypatch, "reinmax", task, estimator=estimator, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "gapped"}, "estimator: choose from reinmax, st, st-gumbel, gumbel-rao"),
        ({"temperature": 0.0}, "temperature: "),
        ({"forward_temperature": -1.0}, "forward_temperature: "),
        ({"estimator": "gumbel-rao", "inner": 0}, "inner: "),
        ({"estimator": "gumbel-rao", "inner": 1.5}, "inner: "),
        ({"f": lambda b: anp.round(b)[:, 0]}, "f: "),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.random.default_rng(0).random((5, 2))
    arguments = {"f": quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.reinmax.gradient_samples(**arguments)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run(tmp_path, estimator):
    flags = [*SMALL, "--steps", 60, "--layers", 2, "--estimator", estimator]
    code, _, err = run("reinmax", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_with_classes(tmp_path, estimator):
    flags = ["--estimator", estimator, "--steps", 40, "--variables", 4, "--classes", 3, "--hidden",
             8, "--lr", 0.01, "--eval-samples", 3, "--log-every", 20, "--no-plots"]  # fmt: skip
    code, _, err = run("gumbel_softmax", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["temperature"]) == 1
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])


def test_the_toy(tmp_path):
    code, _, err = run("reinmax", "--toy", "--steps", 60, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    assert {row["method"] for row in read_log(tmp_path / "toy")} == {"REINFORCE", "ReinMax"}


MUTATIONS = {
    "half of π forgotten": (order_is, ("reinmax", "- J(probabilities(fixed), d) / 2", "")),
    "the whole of it": (
        order_is,
        ("reinmax", "- J(probabilities(fixed), d) / 2", "- J(probabilities(fixed), d)"),
    ),
    "J of π for J of the middle": (
        order_is,
        ("reinmax", "2 * J(middle, d)", "2 * J(probabilities(fixed), d)"),
    ),
    "the value is the middle": (
        as_published,
        ("reinmax", "return b + 2 * J", "return middle + 2 * J"),
    ),
    "1 / T forgotten": (agrees_with_theirs, ("reinmax", "/ (T * len(zs))", "/ len(zs)")),
    "π at T in the second term": (
        agrees_with_theirs,
        ("reinmax", "J(probabilities(fixed), d) / 2", "J(probabilities(fixed / T), d) / 2"),
    ),
    "the sum of M draws for their mean": (
        gumbel_rao_has_the_mean_of_st_gumbel,
        ("reinmax", "/ (T * len(zs))", "/ T"),
    ),
    "draws that do not know b": (
        agrees_with_theirs,
        ("reinmax", "categorical.conditional(drawn, b, w)", "drawn + categorical.gumbel(w)"),
    ),
    "without the product of the means": (
        partial(order_is, mean=mean_for_classes),
        ("reinmax", "(d - np.sum(p * d, axis=-1, keepdims=True))", "d"),
    ),
    "T for F": (temperatures_are_apart, ("reinmax", "drawn = stop_gradient(a) / F\n    zs",
                                         "drawn = stop_gradient(a) / T\n    zs")),
    "the logits of −log q not held": (
        as_published,
        ("reinmax", "model.bound(params, x, b, stop_gradient(a))", "model.bound(params, x, b, a)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)


def test_the_other_reading_of_gumbel_rao():
    """The total derivative, through the logits and G given b, has another mean."""
    other = [
        ("reinmax", "categorical.conditional(drawn, b, w)", "categorical.conditional(a / F, b, w)"),
        ("reinmax", "return b + sum(J(probabilities(z / T), d) for z in zs) / (T * len(zs))",
         "h = sum(probabilities(z / T) for z in zs) / len(zs)\n"
         "    return b + h - stop_gradient(h)"),
    ]  # fmt: skip
    logits, w = CLASSES[:1], np.array([[1.0, -1.0, 0.5]])
    rng = np.random.default_rng(0)
    u, v = rng.random((2, 4000, 1, 3))
    means = []
    for m in (M, proofs.load(other)):
        g = m.gumbel_softmax.gradient_samples(
            lambda b: anp.sum(b * w, axis=(1, 2)), logits, u, v, estimator="gumbel-rao", inner=4
        )
        means.append(g.mean(axis=0)[0])
    assert np.linalg.norm(means[0] - means[1]) > 0.3 * np.linalg.norm(means[0])
    with pytest.raises(AssertionError):
        agrees_with_theirs(proofs.load(other), ["gumbel-rao"])
