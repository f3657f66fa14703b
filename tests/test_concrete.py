"""Concrete: its distribution, that it is unbiased for its own objective and biased for the discrete
one, that "density" is a bound and "log-mass" none, and mutations.

Integrals over a logistic variable are trapezoidal sums, which for analytic integrands converge
exponentially: no Monte Carlo but where a test has to reject.
"""

import csv
import itertools
import json
import math

import numpy as np
import proofs
import pytest
from autograd import elementwise_grad
from scipy.stats import logistic

M = proofs.load()
CASES = [(a, T) for a in (-3.0, 0.0, 1.2) for T in (0.1, 0.5, 1.0, 5.0)]


def nodes(step=0.01, half=33.0):
    """s, uniforms u = σ(s) (n, 1) and weights, so that weights @ g(s) is E[g(logit(U))]."""
    s = np.arange(-half, half + step / 2, step)
    return s, logistic.cdf(s)[:, None], step * logistic.pdf(s)


# ------------------------------------------------------------------------------------------ proofs


def density_integrates_to_one(m):
    """That of y, over the line, and that of h, over (0, 1), both to 1e-9."""
    for a, T in CASES:
        y = a / T + np.linspace(-45, 45, 20001) / T
        assert abs(np.sum(np.exp(m.concrete.log_density(y, a, T))) * (y[1] - y[0]) - 1) < 1e-9
        inner = y[np.abs(y) < 15]  # h = σ(y) rounds to an end further out
        h, dh = 1 / (1 + np.exp(-inner)), logistic.pdf(inner)  # of which cdf has the rest
        mass = np.sum(m.concrete.density(h, a, T) * dh) * (y[1] - y[0])
        expected = np.diff(m.concrete.cdf(inner[[0, -1]], a, T))[0]
        ends = 0.5 * (m.concrete.density(h, a, T) * dh)[[0, -1]].sum() * (y[1] - y[0])
        assert abs(mass - ends - expected) < 1e-6


def sample_inverts_cdf(m):
    """cdf(sample(u)) = u, and the derivative of the cdf is the density: the three agree."""
    u = np.linspace(0.001, 0.999, 999)
    for a, T in CASES:
        y = m.concrete.sample(a, u, T)
        np.testing.assert_allclose(m.concrete.cdf(y, a, T), u, rtol=1e-12)
        slope = elementwise_grad(lambda y: m.concrete.cdf(y, a, T))(y)
        np.testing.assert_allclose(np.exp(m.concrete.log_density(y, a, T)), slope, rtol=1e-10)
        np.testing.assert_allclose(
            m.concrete.log_density(y, a, T), logistic.logpdf(y, a / T, 1 / T), rtol=1e-9, atol=1e-9
        )


def is_exact_for_the_relaxed_function(m):
    """Mean over u = d/da ∫ f(σ(z / T)) p(z − κa) dz, where a is in the density of z only: 1e-6."""
    s, u, weights = nodes()
    for f in proofs.FUNCTIONS:
        for logit in proofs.LOGITS:
            for T, relaxation in itertools.product((0.1, 0.5, 2.0, 5.0), ("concrete", "rebar")):
                options = {"temperature": T, "relaxation": relaxation}
                samples = m.concrete.gradient_samples(f, np.array([logit]), u, u, **options)
                kappa = 1 + T * T / (T + 1) if relaxation == "rebar" else 1.0
                z = kappa * logit + s
                slope = logistic.pdf(s) * np.tanh(s / 2)  # −p'(s)
                value = f(logistic.cdf(z / T)[:, None])
                exact = kappa * np.sum(value * slope) * (s[1] - s[0])
                assert abs(weights @ samples[:, 0] - exact) < 1e-6, (f.__name__, logit, options)


def objective_by_hand(model, params, x, T, T_prior, objective, relaxation, s, centres):
    """E[f(h)] of each image, for one unit a layer, written out with scipy's logistic distribution.

    The nodes z = centre + s are fixed numbers and the parameters only in densities and weights, so
    that nothing here is reparametrised. `centres` is filled at the first call, and used later.
    """
    P, step = dict(zip(model.names, params)), s[1] - s[0]
    kappa = 1 + T * T / (T + 1) if relaxation == "rebar" else 1.0
    mass = lambda h, a: h * a - np.logaddexp(0, a)

    def log_prob(z, a, temperature):  # of a layer's h = σ(z / T), or of its z / T
        if objective == "density":
            return logistic.logpdf(z / T, a / temperature, 1 / temperature)
        return mass(logistic.cdf(z / T), a)

    net = lambda name, h: (2 * h - 1) * P[f"{name}.W0"][0, 0] + P[f"{name}.b0"][0]
    predict, layers, totals = model.task == "predict", len(model.units), []
    for i, image in enumerate(x):
        inside = (image - model.mean)[: model.context or None]
        weight, f, z = np.ones(1), np.zeros(1), []  # a further axis for the nodes of every layer
        for layer in range(layers):
            if layer:
                a = net(f"q{layer}", logistic.cdf(z[-1] / T))
            else:
                a = inside @ P["q0.W0"] + P["q0.b0"]
            a, centre = a[..., None], centres.setdefault((i, layer), kappa * a[..., None])
            z = [z_i[..., None] for z_i in z] + [centre + s]
            weight = weight[..., None] * step * logistic.pdf(z[-1] - kappa * a)
            f = f[..., None] - log_prob(z[-1], a, T)
            if layer:
                p = net(f"p{layer}", logistic.cdf(z[-1] / T)) if not predict else 0.0
                f = f + log_prob(z[-2], p, T_prior)
        h = logistic.cdf(z[-1 if predict else 0] / T)[..., None]
        pixels = (2 * h - 1) * P["p0.W0"][0] + P["p0.b0"] + model.offset
        pixels = np.sum(mass(image[model.context :], pixels), axis=-1)
        f = pixels if predict else f + log_prob(z[-1], P["prior"][0], T_prior) + pixels
        totals.append(np.sum(weight * f))
    return np.array(totals)


def is_exact_for_its_own_objective(m, layers=1, task="generate", objective="density",
                                   relaxation="concrete"):  # fmt: skip
    """Value and gradient of every parameter against `objective_by_hand`: 1e-6."""
    T, T_prior, step = (2 / 3, 0.5, 0.4) if layers == 1 else (1.0, 0.7, 0.8)
    model, params, x = proofs.tiny_sbn(m, layers=layers, hidden=1, task=task)
    s, u, weights = nodes(step, 20.0)
    value, gradient = 0.0, [0.0] * len(params)
    for index in itertools.product(range(len(s)), repeat=layers):
        noise = [(np.full((len(x), 1), u[k, 0]),) * 2 for k in index]
        _, f_h, grads = m.concrete.concrete(
            model, params, x, noise, T,
            objective=objective, relaxation=relaxation, prior_temperature=T_prior,
        )  # fmt: skip
        weight = math.prod(weights[k] for k in index)
        value = value + weight * f_h
        gradient = [total + weight * g for total, g in zip(gradient, grads)]
    centres = {}
    by_hand = lambda params: objective_by_hand(
        model, params, x, T, T_prior, objective, relaxation, s, centres
    )
    np.testing.assert_allclose(value, by_hand(params), atol=1e-6)
    for k, tensor in enumerate(params):
        for at in np.ndindex(tensor.shape):
            moved = [[p.copy() for p in params] for _ in range(2)]
            moved[0][k][at] += 1e-4
            moved[1][k][at] -= 1e-4
            difference = (by_hand(moved[0]) - by_hand(moved[1])).mean() / 2e-4
            assert abs(difference - gradient[k][at]) < 1e-6, (model.names[k], at)


def straight_through_is_the_chain_rule(m):
    """df/db at the hard bits, times dh/da = h (1 − h) / T, for every u: 1e-12."""
    u = np.random.default_rng(0).random((200, 1))
    for f, logit in itertools.product(proofs.FUNCTIONS, proofs.LOGITS):
        g = m.concrete.gradient_samples(f, np.array([logit]), u, u, straight_through=True)
        h = 1 / (1 + np.exp(-(logit + np.log(u / (1 - u))) / 0.5))
        b = (u > 1 - 1 / (1 + np.exp(-logit))).astype(float)
        np.testing.assert_allclose(g, elementwise_grad(f)(b) * h * (1 - h) / 0.5, atol=1e-12)


def reported_bound_is_discrete(m):
    """The bound of hard bits of the same u; straight-through has the same value as f(h)."""
    for task, layers in itertools.product(("generate", "predict"), (1, 2)):
        model, params, x = proofs.tiny_sbn(m, layers=layers, task=task)
        noise = model.draw_noise(np.random.default_rng(0), len(x))
        hard = lambda layer, a: (noise[layer][0] > 1 / (1 + np.exp(a))).astype(float)
        expected = model.bound(params, x, *model.infer(params, x, hard))
        for options in ({}, {"objective": "density"}, {"straight_through": True}):
            bound, _, aux = m.concrete.estimate(
                model, params, m.concrete.init_aux(None, model), x, noise, **options
            )
            np.testing.assert_allclose(bound, expected, rtol=1e-12)
            same = abs(aux[2].value - expected.mean()) < 1e-9
            assert same == ("straight_through" in options)


def multi_sample_is_exact(m, task="predict", objective="log-mass", samples=3):
    """log (1/m) Σ exp f(h_i), its gradient Σ softmax(f)_i ∇f(h_i), and the same of b: 1e-12.

    Against one call per sample, of one row each; the images' samples are consecutive rows.
    """
    model, params, x = proofs.tiny_sbn(m, layers=2 if task == "predict" else 1, task=task)
    options, rows = {"objective": objective}, np.repeat(x, samples, axis=0)
    noise = model.draw_noise(np.random.default_rng(0), len(rows))
    bound, f_h, grads = m.concrete.concrete(
        model, params, rows, noise, 0.6, samples=samples, **options
    )
    singles = []
    for i, image in enumerate(rows):
        one_row = [tuple(w[i : i + 1] for w in uv) for uv in noise]
        singles.append(m.concrete.concrete(model, params, image[None], one_row, 0.6, **options))
    by_image = lambda k: np.array([single[k][0] for single in singles]).reshape(len(x), samples)
    f_1, f_b = by_image(1), by_image(0)
    np.testing.assert_allclose(f_h, np.log(np.exp(f_1).mean(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(bound, np.log(np.exp(f_b).mean(axis=1)), rtol=1e-12)
    weights = (np.exp(f_1) / np.exp(f_1).sum(axis=1, keepdims=True)).ravel() / len(x)
    for k, g in enumerate(grads):
        expected = sum(w * single[2][k] for w, single in zip(weights, singles))
        np.testing.assert_allclose(g, expected, atol=1e-12)


def annealing_is_exponential(m):
    """max(τ, exp(−r t)), t counted in aux from 0, and T beside it."""
    model, params, x = proofs.tiny_sbn(m)
    noise, aux = (
        model.draw_noise(np.random.default_rng(0), len(x)),
        m.concrete.init_aux(None, model),
    )
    options, seen = {"anneal_rate": 0.3, "min_temperature": 0.4}, []
    for _ in range(5):
        _, _, new = m.concrete.estimate(model, params, aux, x, noise, **options)
        aux = [a.value for a in new]
        seen.append(m.concrete.report(model, aux)["temperature"])
    np.testing.assert_allclose(seen, [1, math.exp(-0.3), math.exp(-0.6), math.exp(-0.9), 0.4])
    _, f_h, _ = m.concrete.concrete(model, params, x, noise, 0.4)
    assert aux[0] == 5
    assert aux[2] == pytest.approx(f_h.mean())  # the temperature is not only reported


def is_unbiased(m, rng, **options):
    """For the discrete model, which it is not."""
    model, params, x = proofs.tiny_sbn(m)
    aux = m.concrete.init_aux(rng, model)
    estimator = lambda x, noise: m.concrete.estimate(model, params, aux, x, noise, **options)[1]
    return proofs.assert_unbiased(m, model, params, x, estimator, rng)


# ------------------------------------------------------------------------------------ distribution


def test_density():
    density_integrates_to_one(M)


def test_sample_cdf_and_density():
    sample_inverts_cdf(M)


def test_half_of_the_relaxed_bits_is_where_the_hard_ones_are():
    """P(h > 1/2) = σ(a) at every T: rounding a relaxed bit is sampling the hard one."""
    for a, T in CASES:
        assert 1 - M.concrete.cdf(0.0, a, T) == pytest.approx(1 / (1 + math.exp(-a)), abs=1e-12)


@pytest.mark.parametrize(("relaxation", "mean"), [("rebar", True), ("concrete", False)])
def test_limits_of_the_relaxation(relaxation, mean, rng):
    a, u = 3 * rng.standard_normal(500), rng.uniform(1e-6, 1 - 1e-6, 500)
    keep = np.abs(a + np.log(u / (1 - u))) > 0.05
    cold = logistic.cdf(M.concrete.sample(a, u, 1e-3, relaxation))
    np.testing.assert_allclose(cold[keep], M.common.hard_sample(a, u)[keep], atol=1e-8)
    hot = logistic.cdf(M.concrete.sample(a, u, 1e8, relaxation))
    np.testing.assert_allclose(hot, logistic.cdf(a) if mean else 0.5, atol=1e-6)


# ---------------------------------------------------------------------- unbiased, for what it takes


def test_exact_for_the_relaxed_function():
    is_exact_for_the_relaxed_function(M)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 2},
        {"objective": "log-mass"},
        {"objective": "log-mass", "layers": 2},
        {"objective": "log-mass", "relaxation": "rebar"},
        {"task": "predict"},
        {"task": "predict", "objective": "log-mass", "layers": 2},
    ],
    ids=str,
)
def test_exact_for_its_own_objective(options):
    is_exact_for_its_own_objective(M, **options)


@pytest.mark.parametrize("layers", [1, 2])
def test_predict_has_one_objective(layers):
    """No p or q of h, so that at one T the two objectives are the same to the last bit."""
    model, params, x = proofs.tiny_sbn(M, task="predict", layers=layers)
    noise = model.draw_noise(np.random.default_rng(0), len(x))
    one, two = (
        M.concrete.concrete(model, params, x, noise, 0.5, objective=objective)
        for objective in M.concrete.TEMPERATURE
    )
    for a, b in zip([*one[:2], *one[2]], [*two[:2], *two[2]]):
        np.testing.assert_array_equal(a, b)


def test_straight_through():
    straight_through_is_the_chain_rule(M)


def test_reported_bound_is_discrete():
    reported_bound_is_discrete(M)


@pytest.mark.parametrize(
    "options",
    [{}, {"task": "generate"}, {"task": "generate", "objective": "density"}],
    ids=str,
)
def test_multi_sample(options):
    multi_sample_is_exact(M, **options)


# ------------------------------------------------------------------------------ bound and no bound


def relaxed_elbo(model, params, x, **options):
    """E[f(h)] (batch,) of a model of one unit."""
    _, u, weights = nodes(0.1)
    u, tiled = np.repeat(u, len(x), axis=0), np.tile(x, (len(u), 1))
    _, f_h, _ = M.concrete.concrete(model, params, tiled, [(u, u)], **options)
    return weights @ f_h.reshape(-1, len(x))


def log_evidence(model, params, x, T_prior):
    """log ∫ p(x | σ(y)) p(y) dy for a model of one unit, p(y) Concrete at T_prior: (batch,)."""
    P = dict(zip(model.names, params))
    s, _, weights = nodes(0.1)
    h = logistic.cdf((P["prior"] + s) / T_prior)
    pixels = (2 * h - 1)[:, None] * P["p0.W0"] + P["p0.b0"] + model.offset
    log_lik = np.array([np.sum(xi * pixels - np.logaddexp(0, pixels), axis=1) for xi in x])
    return np.log(np.exp(log_lik) @ weights)


@pytest.mark.parametrize(("T", "T_prior"), [(2 / 3, 0.5), (0.5, 1.0), (2.0, 0.4)])
def test_density_is_a_lower_bound(T, T_prior):
    """On the evidence of the relaxed model: f(h) of ten models, for each of two images."""
    gaps = []
    for seed in range(10):
        model, params, x = proofs.tiny_sbn(M, layers=1, hidden=1, seed=seed)
        options = {"temperature": T, "prior_temperature": T_prior, "objective": "density"}
        elbo = relaxed_elbo(model, params, x, **options)
        gaps.append(log_evidence(model, params, x, T_prior) - elbo)
    assert np.min(gaps) > 0


def test_density_bound_is_tight_where_q_is_the_posterior():
    """A decoder that ignores h makes the prior the posterior; then nothing is lost, at any u."""
    model, params, x = proofs.tiny_sbn(M, layers=1, hidden=1)
    params = [0 * p if name in ("q0.W0", "p0.W0") else p for name, p in zip(model.names, params)]
    P = dict(zip(model.names, params))
    P["q0.b0"][...] = P["prior"]
    options = {"temperature": 0.6, "prior_temperature": 0.6, "objective": "density"}
    elbo = relaxed_elbo(model, params, x, **options)
    np.testing.assert_allclose(elbo, log_evidence(model, params, x, 0.6), atol=1e-9)


def test_log_mass_is_no_bound():
    """The same decoder, q far from the prior: the truth loses by that, log-mass gains by it."""
    model, params, x = proofs.tiny_sbn(M, layers=1, hidden=1)
    params = [0 * p if name in ("q0.W0", "p0.W0") else p for name, p in zip(model.names, params)]
    P = dict(zip(model.names, params))
    P["prior"][...], P["q0.b0"][...] = 0, 10
    evidence = log_evidence(model, params, x, 0.5)  # the same for the discrete model
    log_mass = relaxed_elbo(model, params, x, temperature=5.0)
    density = relaxed_elbo(model, params, x, temperature=5.0, objective="density")
    assert np.all(log_mass > evidence + 0.5)
    assert np.all(density < evidence - 0.5)


# --------------------------------------------------------------------- biased for the discrete bits


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "density"}, {"straight_through": True}, {"relaxation": "rebar"}],
    ids=str,
)
def test_bias_is_rejected(rng, options):
    with pytest.raises(AssertionError, match="biased"):
        is_unbiased(M, rng, **options)


COLD = (0.2, 0.1, 0.05, 0.025)


def moments(f, logit, temperature, **options):
    """Bias and variance of the gradient of one bit; discontinuous at u = 1 − σ(a) for hard bits."""
    options |= {"temperature": temperature}
    samples = lambda *args: M.concrete.gradient_samples(f, *args, **options)
    mean, variance = proofs.mean_on_grid(samples, M, logit, 20000)
    return mean - M.common.exact_gradient(f, [logit])[0], variance


@pytest.mark.parametrize("relaxation", ["concrete", "rebar"])
@pytest.mark.parametrize("logit", proofs.LOGITS)
@pytest.mark.parametrize("f", proofs.FUNCTIONS)
def test_colder_is_less_biased_and_more_variable(f, logit, relaxation):
    """Towards T = 0 gap and bias go to zero like T, and the variance to infinity like 1 / T."""
    _, u, weights = nodes(0.001)
    theta = logistic.cdf(logit)
    mean = theta * f(np.ones((1, 1)))[0] + (1 - theta) * f(np.zeros((1, 1)))[0]
    relaxed = lambda T: f(logistic.cdf(M.concrete.sample(logit, u, T, relaxation)))
    gaps = np.array([abs(weights @ relaxed(T) - mean) for T in COLD])
    pairs = [moments(f, logit, T, relaxation=relaxation) for T in COLD]
    bias, variance = np.abs(pairs).T
    assert np.all(gaps[1:] < 0.6 * gaps[:-1])
    assert np.all(bias[2:] < 0.7 * bias[1:-1])
    assert np.all(variance[1:] > 1.8 * variance[:-1])


@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_straight_through_stays_biased(logit):
    """As T → 0 its mean is the slope at the two ends, not the difference between them."""
    for f in proofs.FUNCTIONS:
        ends = np.array([[0.0], [1.0]])
        rise, slopes = np.diff(f(ends))[0], elementwise_grad(f)(ends).mean()
        limit = logistic.pdf(logit) * (slopes - rise)
        bias, _ = moments(f, logit, 0.01, straight_through=True)
        assert abs(bias - limit) < 0.01
        assert (abs(limit) > 0.05) == (
            f is proofs.steep
        )  # the trapezoidal rule: exact if quadratic


# -------------------------------------------------------------------------------------- its numbers


OPTIONS = [{}, {"objective": "density"}, {"straight_through": True}, {"relaxation": "rebar"},
           {"anneal_rate": 0.1}]  # fmt: skip


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float32_is_kept_everywhere(monkeypatch, options, task):
    proofs.float32_is_kept(M, monkeypatch, "concrete", task, **options)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_extremes_are_finite(options, temperature):
    """Logits of ±50, in float32, the uniforms at their ends, T far out on either side."""
    model = M.models.SBN(np.full(8, 0.3), 4, 2)
    rng = np.random.default_rng(0)
    x = (rng.random((6, 8)) < 0.3).astype(np.float32)
    ends = np.array([50, -50, 50, -50], np.float32)
    params = [p + (ends if p.shape == (4,) else 0) for p in model.init(rng)]
    u = np.tile(np.array([1e-6, 1e-6, 1 - 1e-6, 1 - 1e-6], np.float32), (6, 1))
    extra = {"prior_temperature": 1 / temperature} if "objective" in options else {}
    bound, f_h, grads = M.concrete.concrete(
        model, params, x, [(u, u)] * 2, temperature, **options, **extra
    )
    assert all(np.all(np.isfinite(a)) for a in (bound, f_h, *grads))
    a = np.array([-50.0, 50.0], np.float32)
    for y in (-50.0, 50.0):
        y = np.float32(y / temperature)
        assert np.all(np.isfinite(M.concrete.log_density(y, a, temperature)))
        assert np.all(np.isfinite(M.concrete.cdf(y, a, temperature)))


def test_density_needs_densities():
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), len(x))
    for options in ({"relaxation": "rebar"}, {"straight_through": True}):
        with pytest.raises(M.common.InputError, match="needs --relaxation concrete"):
            M.concrete.concrete(model, params, x, noise, 0.5, objective="density", **options)


# --------------------------------------------------------------------------------------- whole runs


SMALL = ["--hidden", "6", "--layers", "2", "--batch-size", "50", "--eval-samples", "5"]


def run(folder, *flags):
    """The log of a small run."""
    M.concrete.main([*SMALL, "--no-plots", "--out", str(folder), *flags])
    with open(folder / "log.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


DENSITY, ST, CURVED = ["--objective", "density"], ["--straight-through"], ["--relaxation", "rebar"]


@pytest.mark.parametrize(
    ("task", "flags"),
    [("generate", flags) for flags in ([], DENSITY, ST, CURVED)]
    + [("predict", flags) for flags in ([], ST, CURVED)],  # the prior is fixed: no density
)
def test_run(tmp_path, task, flags):
    rows = run(tmp_path / "run", "--steps", "6", "--log-every", "3", "--task", task, *flags)
    assert [int(row["step"]) for row in rows] == [3, 6]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["method"], summary["task"]) == ("concrete", task)
    assert math.isfinite(summary["test_bound"])
    for row in rows:
        T = 2 / 3 if "density" in flags else 0.5
        assert float(row["temperature"]) == pytest.approx(T)
        apart = abs(float(row["relaxed_objective"]) - float(row["train_bound"]))
        assert (apart < 1e-3) == ("--straight-through" in flags)


def test_samples_reach_the_objective(tmp_path):
    """A run with --samples 5 logs the multi-sample bound: above the mean of single samples."""
    flags = ["--steps", "3", "--task", "predict", "--lr", "1e-9", "--log-every", "3"]
    one, five = (
        float(run(tmp_path / m, *flags, "--samples", m)[0]["train_bound"]) for m in ("1", "5")
    )
    assert five > one + 0.3


def test_annealing():
    annealing_is_exponential(M)


def test_annealed_run_resumes_bit_for_bit(tmp_path):
    flags = ["--anneal-rate", "0.05", "--min-temperature", "0.7", "--log-every", "3"]
    rows = run(tmp_path / "whole", "--steps", "10", *flags)
    run(tmp_path / "half", "--steps", "5", *flags)
    M.concrete.main(["--resume", str(tmp_path / "half"), "--steps", "10"])
    with (
        np.load(tmp_path / "whole" / "checkpoint.npz") as whole,
        np.load(tmp_path / "half" / "checkpoint.npz") as half,
    ):
        for key in {*whole.files, *half.files} - {"seconds"}:
            np.testing.assert_array_equal(whole[key], half[key], err_msg=key)
    temperatures = [max(0.7, math.exp(-0.05 * t)) for t in range(10)]
    expected = [np.mean(temperatures[i : i + 3]) for i in (0, 3, 6, 9)]
    assert [float(row["temperature"]) for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize(
    "flags",
    [
        ["--temperature", "0"],
        ["--temperature", "nan"],
        ["--prior-temperature", "-1"],
        ["--min-temperature", "0"],
        ["--anneal-rate", "0"],
        ["--anneal-rate", ".1", "--temperature", ".5"],
        ["--objective", "density", "--straight-through"],
        ["--objective", "density", "--relaxation", "rebar"],
    ],
    ids=" ".join,
)
def test_bad_flags(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        M.concrete.main([*flags, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flags[0] in error or flags[-2] in error
    assert not (tmp_path / "run").exists()


def test_toy(tmp_path):
    M.concrete.main(["--toy", "--steps", "60", "--no-plots", "--out", str(tmp_path / "toy")])
    with open(tmp_path / "toy" / "log.csv", encoding="utf-8") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"REINFORCE", "Concrete"}


# ---------------------------------------------------------------------------------------- mutations


two_layers = lambda m: is_exact_for_its_own_objective(m, layers=2)
log_mass = lambda m: is_exact_for_its_own_objective(m, objective="log-mass")
MUTATIONS = {
    "T to the power −1, a published misprint": (
        density_integrates_to_one,
        ("return np.log(temperature) + r", "return r - np.log(temperature)"),
    ),
    "exponent sign in the density": (
        sample_inverts_cdf,
        ("r = a - temperature * y", "r = a + temperature * y"),
    ),
    "the density of h without dh/dy": (
        density_integrates_to_one,
        ("temperature)) / (h * (1 - h))", "temperature))"),
    ),
    "prior temperature used for q": (
        is_exact_for_its_own_objective,
        ("log_density(y_i, a_i, temperature)", "log_density(y_i, a_i, prior_temperature)"),
    ),
    "posterior temperature used for p": (
        is_exact_for_its_own_objective,
        ("log_density(y_i, p_i, prior_temperature)", "log_density(y_i, p_i, temperature)"),
    ),
    "the log-mass left in the density": (
        is_exact_for_its_own_objective,
        ("axis=-1) - mass", "axis=-1)"),
    ),
    "p of a layer given itself": (
        two_layers,
        ("self._nets(params), activations[1:]", "self._nets(params), activations[:-1]"),
    ),
    "a probability where a logit is meant": (
        log_mass,
        ("sample(a_i, u[layer], temperature", "sample(sigmoid(a_i), u[layer], temperature"),
    ),
    "log q not differentiated": (
        log_mass,
        ("f_h = model.bound(params, x, h, a)", "f_h = model.bound(params, x, h, stop_gradient(a))"),
    ),
    "T forgotten in the sample": (
        is_exact_for_the_relaxed_function,
        ("y = (a + logit(u)) / temperature", "y = a + logit(u)"),
    ),
    "REBAR's shift with T + 1 for T": (
        is_exact_for_the_relaxed_function,
        ("a * (temperature / (temperature + 1))", "a * (1 / (temperature + 1))"),
    ),
    "derivative through the hard bits": (
        straight_through_is_the_chain_rule,
        ("stop_gradient(hard_sample(a_i, u[layer]) - h_i)", "hard_sample(a_i, u[layer]) - h_i"),
    ),
    "straight-through that is soft forward": (
        straight_through_is_the_chain_rule,
        ("return h_i + stop_gradient(hard_sample(a_i, u[layer]) - h_i)", "return h_i"),
    ),
    "the relaxed bound reported as the discrete one": (
        reported_bound_is_discrete,
        ("return multi_sample(model.bound(params, x, b, a)), f_h", "return f_h, f_h"),
    ),
    "annealing that heats": (
        annealing_is_exponential,
        ("np.exp(-anneal_rate * step)", "np.exp(anneal_rate * step)"),
    ),
    "a mean of bounds for the multi-sample bound": (
        multi_sample_is_exact,
        (
            "log_mean_exp(np.reshape(f, (-1, samples)), axis=1)",
            "np.sum(np.reshape(f, (-1, samples)), axis=1) / samples",
        ),
    ),
    "samples of different images together": (
        multi_sample_is_exact,
        ("np.reshape(f, (-1, samples)), axis=1)", "np.reshape(f, (samples, -1)), axis=0)"),
    ),
    "steps not counted": (annealing_is_exponential, ("state = step + 1, T", "state = step, T")),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([(("common", "models", "concrete"), old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
