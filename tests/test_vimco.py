"""VIMCO and OVIS: the gradient of the K-sample bound by enumeration, stability, mutations."""

import numpy as np
import proofs
import pytest
from scipy.special import logsumexp
from test_runs import SMALL, read_log, run

M = proofs.load()
CASES = [([0.3], 2), ([0.3], 3), ([0.7, -1.1], 2), ([0.7, -1.1], 3)]
FUNCTIONS = (*proofs.FUNCTIONS, proofs.product)
UNBIASED = [{"mean": "geometric"}, {"mean": "arithmetic"}, {"mean": "none"}, {"ovis": 0.0}]

# ------------------------------------------------------------------------------------------ proofs


def exact_gradient(m, f, logits, K):
    """Of E[log 1/K Σ_k exp f(b_k)], by enumeration: (D,)."""
    toy, x = m.common.Toy(f, len(logits)), np.zeros((1, 0))
    return proofs.exact_bound_gradient(m, toy, [np.array(logits)], x, K)[0]


def is_exact(m, **options):
    """The mean over all outcomes is the enumerated gradient: 1e-12."""
    for logits, K in CASES:
        for f in FUNCTIONS:
            samples = lambda *args: m.vimco.gradient_samples(f, *args, **options)
            mean, _ = proofs.mean_over_outcomes(m, samples, logits, K)
            assert np.abs(mean - exact_gradient(m, f, logits, K)).max() < 1e-12, (logits, K)


def ovis_bias(m):
    """γ > 0 errs by γ E[Σ_k w̃_k ∇log q(b_k)], written out here, to 1e-12; and that is not 0."""
    for (logits, K), gamma in [(case, g) for case in CASES for g in (0.4, 1.0)]:
        f, theta = proofs.product, 1 / (1 + np.exp(-np.array(logits)))
        u, _, weights = m.toy.outcomes(np.array(logits), K)
        b = (u > 1 - theta).astype(float)
        w = np.exp(f(b.reshape(-1, len(logits)))).reshape(-1, K)
        w /= w.sum(axis=1, keepdims=True)
        bias = gamma * weights @ np.einsum("nk,nkd->nd", w, b - theta)
        samples = lambda *args: m.vimco.gradient_samples(f, *args, ovis=gamma)
        mean, _ = proofs.mean_over_outcomes(m, samples, logits, K)
        found = mean - exact_gradient(m, f, logits, K)
        assert np.abs(found - bias).max() < 1e-12
        assert np.abs(bias).max() > 0.003


def ovis_is_as_printed(m):
    """The gradient of every parameter of q is Σ_k (d_k − c_k) ∇log q(b_k): 1e-12."""
    for layers, gamma in ((1, 0.0), (2, 0.7), (2, 1.0)):
        model, params, x = proofs.tiny_sbn(m, layers=layers)
        K, rng = 4, np.random.default_rng(6)
        x = np.repeat(x, K, axis=0)
        noise = model.draw_noise(rng, len(x))
        _, grads, _ = m.vimco.estimate(model, params, [], x, noise, samples=K, ovis=gamma)
        b, a = model.infer(params, x, lambda i, a: m.common.hard_sample(a, noise[i][0]))
        f = model.bound(params, x, b, a).reshape(-1, K)
        L = logsumexp(f, axis=1, keepdims=True) - np.log(K)
        w = np.exp(f - logsumexp(f, axis=1, keepdims=True))
        Z = np.array([[logsumexp(np.delete(row, k)) for k in range(K)] for row in f])
        c = Z - np.log(K - 1) - gamma * w + (1 - gamma) * np.log(1 - 1 / K)
        coefficient = ((L - w) - c).ravel()

        def score(params):
            _, a = model.infer(params, x, lambda layer, a: b[layer])
            log_q = sum(m.common.bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
            return [(coefficient * log_q).sum() / len(f)], []

        q = {k: name for k, name in enumerate(model.names) if name.startswith("q")}
        own = lambda q_params: [q_params[k] if k in q else p for k, p in enumerate(params)]
        (by_hand,), _ = m.common.gradients(lambda p: score(own(p)), params[: len(q)])
        for k, g in zip(q, by_hand):
            np.testing.assert_allclose(grads[k], g, rtol=1e-11, atol=1e-13)


def swapped_is_the_definition(m):
    """L_{−k} of either mean in a loop over k: 1e-12, with weights that differ by e^±30."""
    f = 10 * np.random.default_rng(0).standard_normal((5, 4))
    for i, k in np.ndindex(5, 4):
        others = np.delete(f[i], k)
        for mean, value in (
            ("geometric", others.mean()),
            ("arithmetic", np.log(np.mean(np.exp(others)))),
        ):
            expected = np.log(np.mean(np.exp([*others, value])))
            found = m.vimco.swapped(f, mean)[i, k]
            assert abs(found - expected) < 1e-12 * max(1, abs(expected)), (mean, found, expected)


def others_are_stable(m):
    """Log-weights of ± 10⁴, equal ones, one far above: 1e-12 of a sum for each k."""
    rng = np.random.default_rng(0)
    f = 1e4 * rng.standard_normal((200, 5))
    f[:50] = f[:50, :1]
    f[50:100] = rng.standard_normal((50, 5))
    f[100:150, 1:] = 60 + rng.standard_normal((50, 4))
    f[100:150, 0] = 100.0  # exp(−40) of it is below its last digit
    expected = np.array([[logsumexp(np.delete(row, k)) for k in range(5)] for row in f])
    with np.errstate(all="raise", under="ignore"):
        found = m.vimco.log_sum_others(f)
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
    assert np.abs((found - expected)[50:150]).max() < 1e-12


def every_parameter(m, options, K=2, **model_options):
    proofs.every_parameter_is_exact(m, m.vimco.estimate, options, model_options, True, K)


# ------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("options", UNBIASED, ids=str)
def test_exact(options):
    is_exact(M, **options)


def test_the_bias_of_ovis():
    ovis_bias(M)


def test_ovis_is_as_printed():
    ovis_is_as_printed(M)


@pytest.mark.parametrize("model", proofs.TINY, ids=str)
def test_every_parameter(model):
    for options in UNBIASED:
        every_parameter(M, options, **model)


@pytest.mark.parametrize("options", UNBIASED, ids=str)
def test_three_samples_of_a_network(options):
    every_parameter(M, options, K=3, layers=1, hidden=1, nonlinear=True)


@pytest.mark.parametrize("options", [*UNBIASED, {"ovis": 0.6}], ids=str)
def test_images_are_apart(options):
    proofs.images_are_apart(M, M.vimco.estimate, **options)


def test_swapped():
    swapped_is_the_definition(M)


def test_stability():
    others_are_stable(M)
    f = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    assert np.isfinite(M.vimco.signals(f)).all()
    np.testing.assert_allclose(M.vimco.signals(f)[1], 0, atol=1e-9)


def test_a_million_samples():
    """In O(K): a table of K² numbers would not fit into any memory."""
    f = np.random.default_rng(0).standard_normal((1, 10**6))
    found = M.vimco.log_sum_others(f)
    assert found[0, 7] == pytest.approx(logsumexp(np.delete(f[0], 7)), rel=1e-12)


def test_both_means_agree_for_two_samples(rng):
    f = 5 * rng.standard_normal((50, 2))
    np.testing.assert_allclose(M.vimco.swapped(f, "geometric"), f[:, ::-1], rtol=1e-12)
    np.testing.assert_allclose(M.vimco.swapped(f, "arithmetic"), f[:, ::-1], rtol=1e-12)


def test_variance_falls_with_the_baseline_and_with_its_constant():
    """By enumeration, K = 3, over the parameters of q: none > arithmetic > OVIS with γ = 0.

    The geometric mean has no place in this order: here it is the best of them.
    """
    model, params, x = proofs.tiny_sbn(M, layers=1)

    def variance(**options):
        estimate = lambda x, noise: M.vimco.estimate(
            model, params, [], x, noise, samples=3, **options
        )[1]
        square = lambda x, noise: [g**2 for g in estimate(x, noise)]
        first, second = (proofs.mean_estimate(M, model, params, x[:1], 3, e)
                         for e in (estimate, square))  # fmt: skip
        return sum(np.sum(s - g**2) for s, g in zip(second[:2], first[:2]))

    none, arithmetic, geometric = (variance(mean=x) for x in ("none", "arithmetic", "geometric"))
    ovis = variance(ovis=0.0)
    print(f"none {none:.3g}, means {arithmetic:.3g}, {geometric:.3g}, OVIS {ovis:.3g}")
    assert ovis < arithmetic < none
    assert geometric < none


def test_the_score_function_of_gumbel_softmax_has_the_same_baseline(rng):
    f = rng.standard_normal((4, 3))
    np.testing.assert_array_equal(M.gumbel_softmax.mean_of_others(f), M.vimco.swapped(f))


def test_float32_is_kept(monkeypatch):
    for options in (*UNBIASED, {"ovis": 0.5}):
        with monkeypatch.context() as patch:
            proofs.float32_is_kept(M, patch, "vimco", samples=3, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.zeros((5, 1, 2)) + 0.5}, "u: .* K ≥ 2"),
        ({"u": np.zeros((5, 3, 1)) + 0.5}, r"u: .* shape \(n, K, D = 2\), not \(5, 3, 1\)"),
        ({"v": np.zeros((5, 2)) + 0.5}, r"v: .* shape \(n = 5, K = 3, D = 2\), not \(5, 2\)"),
        ({"mean": "harmonic"}, "mean: choose from geometric, arithmetic, none, not 'harmonic'"),
        ({"ovis": 1.5}, "ovis: γ has to be from 0 to 1"),
        ({"ovis": 0.5, "mean": "arithmetic"}, "ovis: γ has to be .* mean left at its default"),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.full((5, 3, 2), 0.5)
    arguments = {"f": proofs.quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.vimco.gradient_samples(**arguments)


def test_rows_that_are_no_images_are_refused():
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), 2)
    for samples, message in ((1, "two or more"), (3, "2 rows are not images of 3 samples")):
        with pytest.raises(ValueError, match=message):
            M.vimco.estimate(model, params, [], x, noise, samples=samples)


def test_toy(tmp_path):
    """Less variance than without a baseline, by enumeration of the five samples."""
    code, _, err = run("vimco", "--toy", "--steps", 1200, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    last = {row["method"]: float(row["exact_log_variance"]) for row in read_log(tmp_path / "toy")}
    assert last["VIMCO"] < last["no baseline"] - 1


def test_a_run(tmp_path):
    """The training bound is that of K samples: near the evaluation's with as many."""
    flags = [*SMALL, "--steps", 110, "--samples", 4, "--mean", "arithmetic", "--lr", 1e-2]
    code, _, err = run("vimco", *flags, "--eval-samples", 4, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    last = read_log(tmp_path / "run")[-1]
    assert float(last["train_bound"]) == pytest.approx(float(last["valid_bound"]), abs=1.5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--samples", 1], "--samples: the bound of VIMCO needs two or more"),
        (["--ovis", 2], "argument --ovis: '2' has to be a number of at least 0 and at most 1"),
        (["--ovis", 0, "--mean", "arithmetic"], "--mean: OVIS has its own"),
        (["--ovis", 0, "--toy"], "--ovis: for weights with q in them"),
        (["--ovis", 0, "--task", "predict"], "--ovis: for weights with q in them"),
    ],
)
def test_bad_flags(flags, message):
    code, _, err = run("vimco", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


MUTATIONS = {
    "the − log q of the weights held fixed": (
        lambda m: every_parameter(m, {}, layers=1),
        ("model.bound(params, x, b, a), (-1", "model.bound(params, x, b, stop_gradient(a)), (-1"),
    ),
    "a mean with the sample itself": (
        is_exact,
        (
            "(np.sum(f, axis=1, keepdims=True) - f) / (K - 1)",
            "np.sum(f, axis=1, keepdims=True) / K + 0 * f",
        ),
    ),
    "the sample itself in the sum of the others": (
        lambda m: is_exact(m, mean="arithmetic"),
        ("np.sum(w, axis=1, keepdims=True) - w)", "np.sum(w, axis=1, keepdims=True) + 0 * w)"),
    ),
    "the largest taken off by subtraction too": (
        others_are_stable,
        ("np.where(is_top, without_top, top", "np.where(f < top, without_top, top"),
    ),
    "arithmetic mean not divided by K − 1": (
        swapped_is_the_definition,
        ("return others - math.log(K - 1)", "return others - math.log(K)"),
    ),
    "sign of the signal": (
        is_exact,
        ("return L - swapped(f, mean)", "return swapped(f, mean) - L"),
    ),
    "L not differentiated": (
        lambda m: every_parameter(m, {}, layers=1),
        ("(np.sum(signal * log_q) + np.sum(L)) / len(L)", "np.sum(signal * log_q) / len(L)"),
    ),
    "w̃ without 1 / K": (ovis_bias, ("w = np.exp(f - L) / K", "w = np.exp(f - L)")),
    "OVIS with γ on the wrong term": (
        lambda m: is_exact(m, ovis=0.0),
        ("ovis * w - (1 - ovis) *", "(1 - ovis) * w - ovis *"),
    ),
    "OVIS with its constant added": (ovis_is_as_printed, ("- (1 - ovis) *", "+ (1 - ovis) *")),
    "log q of one layer only": (
        lambda m: every_parameter(m, {}, layers=2, hidden=1),
        ("for b_i, a_i in zip(b, a))", "for b_i, a_i in zip(b[:1], a))"),
    ),
    "samples of other images": (
        lambda m: proofs.images_are_apart(m, m.vimco.estimate),
        (
            "f = np.reshape(model.bound(params, x, b, a), (-1, samples))",
            "f = np.reshape(model.bound(params, x, b, a), (samples, -1)).T",
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([("vimco", old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
