"""RLOO, and its two cousins that are not the gradient: enumeration, identities, mutations."""

import numpy as np
import proofs
import pytest
from scipy import stats
from test_runs import SMALL, read_log, run

M = proofs.load()
CASES = [([0.3], 2), ([0.3], 3), ([0.7, -1.1], 2), ([0.7, -1.1], 3)]
FUNCTIONS = (*proofs.FUNCTIONS, proofs.product)

# ------------------------------------------------------------------------------------------ proofs


def is_exact(m, baseline="leave-one-out", factor=lambda K: 1.0):
    """The mean over all outcomes is `factor(K)` times the enumerated gradient: 1e-12."""
    for logits, K in CASES:
        for f in FUNCTIONS:
            samples = lambda *args: m.rloo.gradient_samples(f, *args, baseline=baseline)
            mean, _ = proofs.mean_over_outcomes(m, samples, logits, K)
            exact = factor(K) * m.common.exact_gradient(f, logits)
            assert np.abs(mean - exact).max() < 1e-12, (logits, K, f.__name__)


def mean_shrinks(m):
    is_exact(m, "mean", lambda K: 1 - 1 / K)


def grpo_by_enumeration(m):
    """One bit, f = b: Σ over the counts of a binomial, written out here, to 1e-12; its limit."""
    for p in (0.1, 0.5, 0.9):
        means = []
        for K in (2, 4, 8):
            logits = [np.log(p / (1 - p))]
            samples = lambda *args: m.rloo.gradient_samples(lambda b: b[:, 0], *args,
                                                            baseline="grpo")  # fmt: skip
            means.append(proofs.mean_over_outcomes(m, samples, logits, K)[0][0])
            c = np.arange(1, K)  # ones among K; with 0 or K of them the advantage is 0
            share = c / K
            sd = np.sqrt(share * (1 - share))
            g = (c * (1 - share) / sd * (1 - p) + (K - c) * (-share / sd) * (-p)) / K
            assert abs(means[-1] - stats.binom.pmf(c, K, p) @ g) < 1e-12
        limit = np.sqrt(p * (1 - p))  # d/da 2 arcsin √σ(a)
        assert abs(means[0] - p * (1 - p)) < 1e-12  # exact for two samples, by accident
        assert means[0] < means[1] < means[2] < limit


def vargrad_is_rloo(m):
    """For every parameter of q, with 1 to 3 layers, on the same noise: 1e-12."""
    for layers in (1, 2, 3):
        model, params, x = proofs.tiny_sbn(m, layers=layers)
        x, rng = np.repeat(x, 3, axis=0), np.random.default_rng(5)
        noise = model.draw_noise(rng, len(x))
        _, grads, _ = m.rloo.estimate(model, params, [], x, noise, samples=3)
        for name, g, h in zip(
            model.names, grads, m.rloo.vargrad(model, params, x, noise, samples=3)
        ):
            if name.startswith("q"):
                assert np.abs(g).max() > 1e-3
                assert np.abs(g + h).max() < 1e-12, name


def every_parameter(m, **model_options):
    proofs.every_parameter_is_exact(m, m.rloo.estimate, {}, model_options, multi_sample=False)


# ------------------------------------------------------------------------------------------- tests


def test_exact():
    is_exact(M)


def test_the_mean_of_all_shrinks_the_gradient():
    mean_shrinks(M)


def test_grpo_is_another_objective():
    grpo_by_enumeration(M)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_grpo_tends_to_the_arcsine(p):
    """1,024 samples, summed over the counts: within .6 % of √(p(1−p)), .09 or .25 being right."""
    K = 1024
    c = np.arange(K + 1)
    f = (np.arange(K) < c[:, None]).astype(float)  # (counts, K)
    g = np.mean(M.rloo.advantage(f, "grpo") * (f - p), axis=1)
    assert stats.binom.pmf(c, K, p) @ g == pytest.approx(np.sqrt(p * (1 - p)), rel=0.006)


def test_grpo_of_equal_values_is_zero(rng):
    for K in range(2, 40):
        for value in rng.standard_normal(5):
            assert not np.any(M.rloo.advantage(np.full((1, K), value), "grpo"))


@pytest.mark.parametrize("model", proofs.TINY, ids=str)
def test_every_parameter(model):
    every_parameter(M, **model)


def test_three_samples_and_a_nonlinear_network():
    options = {"layers": 1, "hidden": 1, "nonlinear": True}
    proofs.every_parameter_is_exact(M, M.rloo.estimate, {}, options, False, K=3)


@pytest.mark.parametrize("baseline", M.rloo.BASELINES)
def test_images_are_apart(baseline):
    proofs.images_are_apart(M, M.rloo.estimate, baseline=baseline)


def test_vargrad():
    vargrad_is_rloo(M)


def test_two_samples_are_half_a_difference(rng):
    """K = 2 written out: (f_1 − f_2) (b_1 − b_2) / 2."""
    logits, u = np.array([0.4, -1.0]), rng.random((200, 2, 2))
    b = (u > 1 / (1 + np.exp(logits))).astype(float)
    f = proofs.product
    by_hand = 0.5 * (f(b[:, 0]) - f(b[:, 1]))[:, None] * (b[:, 0] - b[:, 1])
    ours = M.rloo.gradient_samples(f, logits, u, u)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12, atol=1e-14)


def test_variance_falls_with_samples_and_below_the_plain_estimator():
    """By enumeration, for bits far from certain: RLOO against K samples with C = 0."""
    for f in FUNCTIONS:
        g = lambda *args: M.rloo.gradient_samples(f, *args)
        two, three = (proofs.mean_over_outcomes(M, g, [0.3], K)[1][0] for K in (2, 3))
        plain = lambda logits, u, v: M.reinforce.gradient_samples(f, logits, u[:, 0], v[:, 0])
        one = proofs.mean_over_outcomes(M, plain, [0.3], 2)[1][0]
        assert three < two
        assert two < one / 2


def test_float32_is_kept(monkeypatch):
    for baseline in M.rloo.BASELINES:
        with monkeypatch.context() as patch:
            proofs.float32_is_kept(M, patch, "rloo", samples=3, baseline=baseline)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.zeros((5, 1, 2)) + 0.5}, "u: .* K ≥ 2"),
        ({"u": np.zeros((5, 2)) + 0.5}, r"u: .* shape \(n, K, D = 2\), not \(5, 2\)"),
        ({"u": np.zeros((5, 3, 1)) + 0.5}, r"u: .* shape \(n, K, D = 2\), not \(5, 3, 1\)"),
        ({"v": np.zeros((5, 2, 2)) + 0.5}, r"v: .* shape \(n = 5, K = 3, D = 2\), not \(5, 2, 2\)"),
        ({"logits": np.zeros((1, 2))}, r"logits: .* shape \(D\), not \(1, 2\)"),
        ({"baseline": "leave_one_out"}, "baseline: choose from leave-one-out, mean, grpo"),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.full((5, 3, 2), 0.5)
    arguments = {"f": proofs.quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.rloo.gradient_samples(**arguments)


def test_rows_that_are_no_images_are_refused():
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), 2)
    for samples, message in ((1, "two or more"), (3, "2 rows are not images of 3 samples")):
        with pytest.raises(ValueError, match=message):
            M.rloo.estimate(model, params, [], x, noise, samples=samples)


def test_uniforms_of_exactly_0_and_1_are_finite():
    u = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]])
    ours = M.rloo.gradient_samples(proofs.product, np.array([0.4, -1.0]), u, u)
    inside = np.clip(u, 1e-3, 1 - 1e-3)
    expected = M.rloo.gradient_samples(proofs.product, np.array([0.4, -1.0]), inside, inside)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_toy(tmp_path):
    """Less variance than without a baseline at the same K; the exact value beside the measured."""
    code, _, err = run("rloo", "--toy", "--steps", 1200, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    last = {row["method"]: float(row["exact_log_variance"]) for row in read_log(tmp_path / "toy")}
    assert last["RLOO"] < last["REINFORCE"] - 1


def test_a_run_and_its_flags(tmp_path):
    flags = [*SMALL, "--steps", 60, "--samples", 3, "--baseline", "grpo", "--layers", 2]
    code, _, err = run("rloo", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])
    code, _, err = run("rloo", "--samples", 1)
    assert (code, err) == (2, "rloo.py: error: --samples: RLOO needs two or more of every image\n")


MUTATIONS = {
    "the mean of all K, without K / (K − 1)": (
        is_exact,
        ("rloo", "return centred * (K / (K - 1))", "return centred"),
    ),
    "K / (K − 1) turned over": (is_exact, ("rloo", "(K / (K - 1))", "((K - 1) / K)")),
    "the mean over other images": (
        lambda m: proofs.images_are_apart(m, m.rloo.estimate),
        (
            "rloo",
            "np.reshape(stop_gradient(f), (-1, samples))",
            "np.transpose(np.reshape(stop_gradient(f), (samples, -1)))",
        ),
    ),
    "standard deviation with K − 1": (
        grpo_by_enumeration,
        (
            "rloo",
            "np.sum(centred**2, axis=1, keepdims=True) / K)",
            "np.sum(centred**2, axis=1, keepdims=True) / (K - 1))",
        ),
    ),
    "direct derivative of f left out": (
        lambda m: every_parameter(m, layers=1),
        ("rloo", "np.reshape(A, f.shape) * log_q + f)", "np.reshape(A, f.shape) * log_q)"),
    ),
    "log q of one layer only": (
        lambda m: every_parameter(m, layers=2, hidden=1),
        ("rloo", "for b_i, a_i in zip(b, a))", "for b_i, a_i in zip(b[:1], a))"),
    ),
    "sign of the score": (
        is_exact,
        (
            "rloo",
            "np.reshape(A, f.shape) * log_q + f",
            "f - np.reshape(A, f.shape) * log_q",
        ),
    ),
    "sum over the samples where a mean is meant": (
        is_exact,
        ("rloo", "return n * np.sum(", "return n * K * np.sum("),
    ),
    "VarGrad with the variance of the population": (
        vargrad_is_rloo,
        ("rloo", "np.sum(centred**2) / (samples - 1)", "np.sum(centred**2) / samples"),
    ),
    "VarGrad with log q held fixed": (
        vargrad_is_rloo,
        (
            "rloo",
            "model.bound(params, x, b, a), (-1",
            "model.bound(params, x, b, stop_gradient(a)), (-1",
        ),
    ),
    "outcomes of one sample counted for all": (
        is_exact,
        (
            "toy",
            "(2**n)[:, None] >> np.arange(n)",
            "(2**n)[:, None] >> np.arange(n) // samples",
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)
