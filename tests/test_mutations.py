"""Broken on purpose: each mutation of the source has to be rejected by the proof named beside it.

Most are published bugs, or the ones that people make when they write these estimators.
"""

import numpy as np
import proofs
import pytest

unbiased = lambda m, **options: proofs.rebar_is_unbiased(m, np.random.default_rng(0), **options)
variance = proofs.variance_gradient_is_exact
MUTATIONS = {
    # -- rebar.py
    "dz̃/da taken for 0": (
        proofs.rebar_is_exact,
        (
            "rebar",
            "z_l = with_slope(z_l, a[l], 1 - slope",
            "z_l = with_slope(z_l, a[l], 1 - 0 * slope",
        ),
    ),
    "dz̃/da taken for 1": (
        proofs.rebar_is_exact,
        ("rebar", "with_slope(z_l, a[l], 1 - slope_of_z_tilde(z_l, a_fixed[l]))", "z_l"),
    ),
    "η on one term only": (
        proofs.rebar_is_exact,
        ("rebar", "- stop_gradient(f_z) * log_q[l]", "- stop_gradient(f_z) * log_q[l] / 0.7"),
    ),
    "sign of the control variate's score term": (
        proofs.rebar_is_exact,
        ("rebar", "c + f_z - stop_gradient(f_z)", "c + f_z + stop_gradient(f_z)"),
    ),
    "f(z̃) not stopped in the score term": (
        proofs.rebar_is_exact,
        ("rebar", "- stop_gradient(f_z) * log_q[l]", "- f_z * log_q[l]"),
    ),
    "dz̃/da with the sign of b lost": (
        proofs.rebar_is_exact,
        ("rebar", "sigmoid(np.where(z > 0, a, -a))", "sigmoid(a)"),
    ),
    "z̃ | b with the sign of b lost": (
        lambda m: proofs.rebar_is_exact(m, "independent", temperatures=(0.5,)),
        ("rebar", "+ softplus(s * a))", "+ softplus(a))"),
    ),
    "plain form: f(z̃) not stopped in the score term": (
        proofs.one_pass_is_plain,
        ("rebar", "- stop_gradient(f_z_tilde) *", "- f_z_tilde *"),
    ),
    "plain form: noise above not moved along with its logits": (
        proofs.one_pass_is_plain,
        ("rebar", "z[layer] + (a_i - a[layer])", "z[layer]"),
    ),
    "plain form: z̃ above layer l too": (
        proofs.one_pass_is_plain,
        ("rebar", "z_tilde if joint or as_released else z", "z_tilde"),
    ),
    "plain form: score of the wrong layer": (
        proofs.one_pass_is_plain,
        ("rebar", "if joint else log_q[l])", "if joint else log_q[0])"),
    ),
    "plain form: z̃ below in the place of hard bits": (
        proofs.one_pass_is_plain,
        (
            "rebar",
            "return b[layer] if layer < l else relax(z_i, a_i, T, relaxation)",
            "return relax(z_i, a_i, T, relaxation)",
        ),
    ),
    "slope of z̃ in the layers above": (
        unbiased,
        (
            "rebar",
            "z_i = z_l if layer == l else a_i + logit(noise[layer][0])",
            "z_i = z_l if layer == l else with_slope(a_i + logit(noise[layer][0]), a[layer], -1)",
        ),
    ),
    "score of the wrong layer": (
        unbiased,
        ("rebar", "- stop_gradient(f_z) * log_q[l]", "- stop_gradient(f_z) * log_q[0]"),
    ),
    "[B, 1] baseline against [B]": (
        unbiased,
        ("rebar", "model.centre(x))[:, 0]", "model.centre(x))[:, :1]"),
    ),
    "baseline that sees its own sample": (
        unbiased,
        (
            "rebar",
            "r = f_b + stop_gradient(f_b - C) * sum(log_q)\n    c = 0\n    for",
            "r = f_b + stop_gradient(0.5 * f_b - C) * sum(log_q)\n    c = 0\n    for",
        ),
    ),
    "T's gradient stopped in the score term": (
        variance,
        (
            "common",
            "return x._value if isbox(x) else x",
            "while isbox(x):\n        x = x._value\n    return x",
        ),
    ),
    "η without the derivative of its sigmoid": (
        variance,
        (
            "rebar",
            "2 * sigmoid(eta_logits)",
            "2 * sigmoid(stop_gradient(eta_logits)) + eta_logits - stop_gradient(eta_logits)",
        ),
    ),
    "T's slope without η": (
        variance,
        ("rebar", "sum(eta_k * np.vdot(g_k, d_k)", "sum(np.vdot(g_k, d_k)"),
    ),
    "C's slope with the wrong sign": (variance, ("rebar", "-g_score / len(C)", "g_score / len(C)")),
    # -- reinforce.py
    "mean over the other rows that keeps the row itself": (
        proofs.batch_baseline_is_exact,
        ("reinforce", "(np.sum(signal) - signal) / (len(x) - 1)", "np.sum(signal) / len(x)"),
    ),
    "sign of the score": (
        proofs.reinforce_is_exact,
        ("reinforce", "signal * log_q + f_b", "f_b - signal * log_q"),
    ),
    "direct derivative of f left out": (
        lambda m: proofs.reinforce_is_unbiased(m, np.random.default_rng(0)),
        ("reinforce", "signal * log_q + f_b", "signal * log_q"),
    ),
    # -- common.py
    "one uniform shared by all units": (
        lambda m: proofs.reinforce_is_unbiased(m, np.random.default_rng(0)),
        (
            "common",
            "[rng.random((2, batch, n), dtype=dtype) for n in units]",
            "[np.repeat(rng.random((2, batch, 1), dtype=dtype), n, axis=2) for n in units]",
        ),
    ),
    "log q of one layer only": (
        lambda m: proofs.reinforce_is_unbiased(m, np.random.default_rng(0)),
        ("reinforce", "for b_i, a_i in zip(b, logits)", "for b_i, a_i in zip(b[:1], logits)"),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)


def test_the_same_proofs_accept_the_unmutated_code():
    m = proofs.load()
    for proof in {proof for proof, _ in MUTATIONS.values()}:
        proof(m)
