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
    "dz̃/da dropped": (
        proofs.rebar_is_exact,
        ("rebar", "eps + (slope - 1) * (a - a_fixed)", "eps + 0 * slope * (a - a_fixed)"),
    ),
    "η on one term only": (
        proofs.rebar_is_exact,
        ("rebar", "- stop_gradient(f_tilde) * score", "- stop_gradient(f_tilde) * score / eta"),
    ),
    "sign of the control variate's score term": (
        proofs.rebar_is_exact,
        ("rebar", "difference - stop_gradient(f_tilde)", "difference + stop_gradient(f_tilde)"),
    ),
    "f(z̃) not stopped in the score term": (
        proofs.rebar_is_exact,
        ("rebar", "- stop_gradient(f_tilde) * score", "- f_tilde * score"),
    ),
    "dz̃/da with the sign of b lost": (
        proofs.rebar_is_exact,
        ("rebar", "sigmoid(s * a_fixed)", "sigmoid(a_fixed)"),
    ),
    "a probability where a logit is meant": (
        unbiased,
        ("rebar", "hard_sample(a_i, u[layer])", "hard_sample(sigmoid(a_i), u[layer])"),
    ),
    "z̃ | b with the sign of b lost": (
        lambda m: proofs.rebar_is_exact(m, "independent", temperatures=(0.5,)),
        ("rebar", "+ softplus(s * a)) - a", "+ softplus(a)) - a"),
    ),
    "v-noise on the layers above the switched one": (
        unbiased,
        (
            "rebar",
            "conditioned = layer == first or as_released",
            "conditioned = layer >= first or as_released",
        ),
    ),
    "score of the wrong layer": (
        unbiased,
        (
            "rebar",
            "if joint else log_q[layer]",
            "if joint else log_q[0]",
        ),
    ),
    "[B, 1] baseline against [B]": (
        unbiased,
        ("rebar", "model.centre(x))[:, 0]", "model.centre(x))[:, :1]"),
    ),
    "baseline that sees its own sample": (
        unbiased,
        ("rebar", "(stop_gradient(f_b) - baseline)", "(0.5 * stop_gradient(f_b) - baseline)"),
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
    "C's slope with the wrong sign": (variance, ("rebar", "-g_score / len(x)", "g_score / len(x)")),
    # -- reinforce.py
    "leave-one-out that keeps the one": (
        proofs.leave_one_out_is_exact,
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
