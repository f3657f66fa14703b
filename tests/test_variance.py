"""The variance of the estimators, by quadrature, and REBAR's construction, exactly."""

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from autograd import elementwise_grad
from scipy import stats

M = proofs.load()
ETAS = np.linspace(0, 2, 21)  # index 10 is η = 1


def variances(m=M, **options):
    return np.array([proofs.single_bit_moments(m, eta=eta, **options)[1] for eta in ETAS])


@pytest.mark.parametrize("f", proofs.FUNCTIONS)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_variance_is_a_parabola_in_eta_and_least_away_from_zero(f, temperature, logit):
    """η = 0 is REINFORCE. The variance is exactly quadratic in η; its vertex is no worse."""
    values = variances(f=f, temperature=temperature, logit=logit)
    parabola = np.polyfit(ETAS[[0, 10, 20]], values[[0, 10, 20]], 2)
    np.testing.assert_allclose(np.polyval(parabola, ETAS), values, rtol=1e-6, atol=1e-9)
    best = -parabola[1] / (2 * parabola[0])
    _, at_best = proofs.single_bit_moments(M, f=f, temperature=temperature, logit=logit, eta=best)
    assert 0 < at_best <= values[0]


@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_rebar_halves_the_variance_of_reinforce(logit):
    """For the monotone function `steep` at T = .5, with the best η, at every logit."""
    values = variances(logit=logit)
    assert values.min() < 0.5 * values[0]


@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_z_tilde_independent_of_b_is_unbiased_but_worse(logit):
    """Only a variance test can see this mistake: z̃ = a + logit(v) with v that does not know b.

    At η = 1, that is; with its own best η it can even win, as at logit 1.5.
    """
    right = "return z, s * softplus(s * logit(v) + softplus(s * a))"
    wrong = proofs.load([("rebar", right, "return z, a + logit(v)")])
    options = {"logit": logit, "conditional": "independent", "n_u": 200, "n_v": 200}
    mean, variance = proofs.single_bit_moments(M, **options)
    wrong_mean, wrong_variance = proofs.single_bit_moments(wrong, **options)
    assert abs(wrong_mean - mean) < 1e-5
    assert wrong_variance > 1.3 * variance


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_measured_variance_is_the_quadrature_variance(eta, rng):
    """200,000 samples; false alarm 1e-6; detects a difference of 5 % with probability .99."""
    n, logits = 200_000, np.array([0.3])
    u, v = rng.random((2, n, 1))
    g = M.rebar.gradient_samples(proofs.steep, logits, u, v, eta=eta)[:, 0]
    mean, exact = proofs.single_bit_moments(M, eta=eta, n_u=20000)
    squares = (g - mean) ** 2
    error = squares.std() / np.sqrt(n)
    assert (stats.norm.isf(5e-7) + stats.norm.isf(0.01)) * error < 0.05 * exact
    assert abs(squares.mean() - exact) < stats.norm.isf(5e-7) * error


@pytest.mark.parametrize("options", [{}, {"conditional": "independent"}, {"as_released": True}], ids=str)  # fmt: skip # noqa: E501
def test_variance_gradient(options):
    proofs.variance_gradient_is_exact(M, **options)


# ------------------------------------------------------------------------------- the construction


def draw(rng, n=2000):
    a = 3 * rng.standard_normal((n, 4))
    u, v = np.clip(rng.random((2, n, 4)), 1e-6, 1 - 1e-6)
    return a, u, v


@pytest.mark.parametrize("conditional", ["coupled", "independent"])
def test_z_and_z_tilde_lie_on_the_side_of_b(conditional, rng):
    a, u, v = draw(rng)
    z, z_tilde = M.rebar.z_and_z_tilde(a, u, v, conditional)
    b = M.common.hard_sample(a, u)
    assert 0.3 < b.mean() < 0.7
    np.testing.assert_array_equal(b, z > 0)
    np.testing.assert_array_equal(b, z_tilde > 0)


def test_coupled_z_tilde_is_z(rng):
    a, u, v = draw(rng)
    z, z_tilde = M.rebar.z_and_z_tilde(a, u, v, "coupled")
    np.testing.assert_array_equal(z_tilde, z)


def test_independent_z_tilde_follows_the_conditional_distribution(rng):
    """σ(z̃ − a) is v squeezed into the part of (0, 1) where u gives the same b."""
    a, u, v = draw(rng)
    _, z_tilde = M.rebar.z_and_z_tilde(a, u, v, "independent")
    jump = 1 / (1 + np.exp(a))
    squeezed = np.where(u > jump, jump + (1 - jump) * v, jump * v)
    np.testing.assert_allclose(1 / (1 + np.exp(a - z_tilde)), squeezed, rtol=1e-9)


def test_coupled_derivative_is_that_of_the_independent_formula(rng):
    """At the v for which z̃ = z, dz̃/da of "coupled" and of "independent" agree."""
    a, u, _ = draw(rng, 200)
    jump = 1 / (1 + np.exp(a))
    v = np.where(u > jump, (u - jump) / (1 - jump), u / jump)
    slopes = [
        elementwise_grad(lambda a: M.rebar.z_and_z_tilde(a, u, v, kind)[1])(a)
        for kind in ("coupled", "independent")
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("relaxation", "mean"), [("rebar", True), ("concrete", False)])
def test_limits_of_the_relaxation(relaxation, mean, rng):
    """T → 0 is the hard bit; T → ∞ the mean σ(a), or 1/2 for the plain Concrete."""
    a, u, _ = draw(rng)
    z = a + M.common.logit(u)
    keep = np.abs(z) > 0.05
    cold = M.rebar.relax(z, a, 1e-3, relaxation)
    np.testing.assert_allclose(cold[keep], M.common.hard_sample(a, u)[keep], atol=1e-8)
    hot = M.rebar.relax(z, a, 1e8, relaxation)
    np.testing.assert_allclose(hot, 1 / (1 + np.exp(-a)) if mean else 0.5, atol=1e-6)


def test_relaxation_formula(rng):
    """σ((T² + T + 1) / (T (T + 1)) a + logit(u) / T), the form printed by the authors' code."""
    a, u, _ = draw(rng)
    T, eps = 0.7, np.log(u) - np.log(1 - u)
    expected = 1 / (1 + np.exp(-(T * T + T + 1) / (T * (T + 1)) * a - eps / T))
    np.testing.assert_allclose(M.rebar.relax(a + eps, a, T), expected, rtol=1e-9)


# ------------------------------------------------------------------- the decoder's control variate


def decoder_gradients(m, options, eta, layers=2):
    rng = np.random.default_rng(3)
    model, params, x = proofs.tiny_sbn(m, layers=layers)
    noise = model.draw_noise(rng, len(x))
    _, grads = m.rebar.rebar(model, params, x, noise, 0.5, eta, 0.1, **options)
    return dict(zip(model.names, grads))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("relaxation", ["rebar", "concrete"])
def test_one_pass_is_the_plain_form(layers, relaxation):
    proofs.one_pass_is_plain(M, layers=layers, relaxation=relaxation)


@pytest.mark.parametrize("option", [
    {"conditional": "independent"}, {"control_variate": "joint"}, {"as_released": True},
], ids=str)  # fmt: skip
def test_the_plain_form_is_taken_where_one_pass_does_not_apply(option):
    """With two layers; each option changes the gradient, so that it is not lost on the way."""
    ours = decoder_gradients(M, option, 1.0)
    by_hand = decoder_gradients(proofs.load([PLAIN]), option, 1.0)
    default = decoder_gradients(M, {}, 1.0)
    for name in ours:
        np.testing.assert_array_equal(ours[name], by_hand[name])
    assert max(np.abs(ours[name] - default[name]).max() for name in ours) > 1e-3


PLAIN = ("rebar", 'if conditional == "coupled" and not several:', "if False:")


def test_coupled_noise_leaves_the_decoder_to_reinforce():
    """With coupled noise f(σ(z)) = f(σ(z̃)) in value, so p gets REINFORCE's gradient."""
    for option in ({}, {"control_variate": "joint"}, {"as_released": True}):
        ours, reinforce = (decoder_gradients(M, option, eta) for eta in (1.0, 0.0))
        for name in ours:
            if name.startswith("q"):
                assert np.abs(ours[name] - reinforce[name]).max() > 1e-3
            else:
                np.testing.assert_allclose(ours[name], reinforce[name], rtol=1e-9, atol=1e-12)


def test_one_eta_per_tensor():
    """A vector of equal η is the scalar; other η weigh each tensor's control variate alone."""
    zero, one = (decoder_gradients(M, {}, eta) for eta in (0.0, 1.0))
    etas = np.linspace(0.2, 1.8, len(zero))
    mixed = decoder_gradients(M, {}, etas)
    for eta, name in zip(etas, zero):
        expected = zero[name] + eta * (one[name] - zero[name])
        np.testing.assert_allclose(mixed[name], expected, rtol=1e-9, atol=1e-12)


def test_constant_function_has_no_variance():
    """f = 3: with η = 1 the control variate cancels f itself at every u."""
    u, v, _ = M.common.quadrature(np.array([0.3]), 50)
    constant = lambda b: 0 * anp.sum(b, axis=-1) + 3.0
    g = M.rebar.gradient_samples(constant, np.array([0.3]), u, v, eta=1.0)
    np.testing.assert_allclose(g, 0, atol=1e-12)
