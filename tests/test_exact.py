"""REINFORCE and REBAR against the enumerated gradient, exactly: by quadrature over the noise."""

import numpy as np
import proofs
import pytest

M = proofs.load()


def test_reinforce():
    proofs.reinforce_is_exact(M)


def test_reinforce_batch_baseline():
    proofs.batch_baseline_is_exact(M)


def test_rebar_coupled():
    proofs.rebar_is_exact(M, "coupled")


@pytest.mark.slow
def test_rebar_independent():
    proofs.rebar_is_exact(M, "independent", temperatures=(0.5,))


@pytest.mark.parametrize("conditional", ["coupled", "independent"])
def test_rebar_without_control_variate_is_reinforce(conditional, rng):
    u, v = rng.random((2, 50, 3))
    logits = np.array([-1.0, 0.2, 2.0])
    ours = M.rebar.gradient_samples(proofs.steep, logits, u, v, eta=0.0, conditional=conditional)
    reinforce = M.reinforce.gradient_samples(proofs.steep, logits, u, v)
    np.testing.assert_allclose(ours, reinforce, rtol=1e-12)


def test_exact_gradient_is_the_formula():
    """Two bits by hand: d/da_1 E[f] = σ'(a_1) Σ_b2 p(b2) (f(1, b2) − f(0, b2))."""
    f = lambda b: 2 * b[:, 0] - 3 * b[:, 0] * b[:, 1] + b[:, 1]
    a = np.array([0.4, -1.1])
    p = 1 / (1 + np.exp(-a))
    expected = p * (1 - p) * np.array([2 - 3 * p[1], 1 - 3 * p[0]])
    np.testing.assert_allclose(M.common.exact_gradient(f, a), expected, rtol=1e-12)


def test_exact_model_gradient_is_the_derivative_of_the_expected_bound():
    """Against central differences of Σ_h q(h|x) bound, with q and the bound in plain numpy."""
    model, params, x = proofs.tiny_sbn(M)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    log_p = lambda b, a: np.sum(b * np.log(sigmoid(a)) + (1 - b) * np.log(sigmoid(-a)))

    def expected_bound(params):
        W_q0, b_q0, W_q1, b_q1, prior, W_p1, b_p1, W_p0, b_p0 = params
        offset, total = np.log(model.mean / (1 - model.mean)), 0.0
        for image in x:
            for k in range(16):
                h = (k >> np.arange(4)) & 1
                h0, h1 = h[:2], h[2:]
                a0 = (image - model.mean) @ W_q0 + b_q0
                a1 = (2 * h0 - 1) @ W_q1 + b_q1
                log_q = log_p(h0, a0) + log_p(h1, a1)
                joint = log_p(image, (2 * h0 - 1) @ W_p0 + b_p0 + offset) + log_p(h1, prior)
                joint += log_p(h0, (2 * h1 - 1) @ W_p1 + b_p1)
                total += np.exp(log_q) * (joint - log_q) / len(x)
        return total

    grads = M.diagnostics.exact_model_gradient(model, params, x)
    for k, g in enumerate(grads):
        for index in np.ndindex(g.shape):
            moved = [[p.copy() for p in params] for _ in range(2)]
            moved[0][k][index] += 1e-5
            moved[1][k][index] -= 1e-5
            difference = (expected_bound(moved[0]) - expected_bound(moved[1])) / 2e-5
            assert abs(difference - g[index]) < 1e-8


def test_enumeration_refuses_more_than_16_bits():
    with pytest.raises(ValueError, match="at most 16 hidden bits, not 17"):
        M.common.exact_gradient(proofs.quadratic, np.zeros(17))
    assert M.common.exact_gradient(proofs.quadratic, np.zeros(16)).shape == (16,)


def test_predict_exact_model_gradient_ignores_the_entropy():
    """Task "predict" has no KL term: a constant likelihood gives a zero gradient to the chain."""
    model, params, x = proofs.tiny_sbn(M, task="predict")
    params[-2] = np.zeros_like(params[-2])  # the pixels no longer depend on the bits
    grads = M.diagnostics.exact_model_gradient(model, params, x)
    for name, g in zip(model.names, grads):
        if name.startswith("q"):
            np.testing.assert_allclose(g, 0, atol=1e-14)
        elif name == "p0.b0":
            assert np.abs(g).max() > 0.01
