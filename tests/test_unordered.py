"""Sampling without replacement: exact by enumeration of what can be drawn; the draws; mutations."""

import itertools
import math

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from scipy.stats import chi2
from test_runs import read_log, run

M = proofs.load()
ESTIMATORS = M.unordered.ESTIMATORS
LOGITS = np.array([[0.9, -0.4, 0.2, -1.3]])  # one variable of four classes
PAIR = np.array([[0.6, -0.3, 0.1], [-0.8, 0.2, 1.0]])  # two of three


def f(b):
    """Of one-hots (n, D, C); jumps, so it has no slope."""
    numbers = np.sin(3.0 * np.arange(b.shape[1] * b.shape[2])).reshape(b.shape[1:])
    return np.round(3 * np.exp((b * numbers).sum(axis=(1, 2)))) / 3 + 2


def all_values(D, C):
    return np.eye(C)[list(itertools.product(range(C), repeat=D))]  # (C^D, D, C)


def log_p(logits, b):
    pi = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.log((b * pi).sum(axis=-1)).sum(axis=-1)


def orders(p, K):
    """All that K draws without replacement can give, with its probability: (sequences, K)."""
    sequences = np.array(list(itertools.permutations(range(len(p)), K)))
    q = p[sequences]
    return sequences, np.prod(q / (1 - np.cumsum(q, axis=1) + q), axis=1)


def taken(p, sequence, estimator):
    """S, of what was drawn in this order."""
    if estimator == "unordered":
        return list(sequence)
    likeliest = list(np.argsort(-p)[: len(sequence) - 1])
    return likeliest + [s for s in sequence if s not in likeliest][:1]


# ------------------------------------------------------------------------------------------ proofs


def completions_are_exact(m):
    """W of every subset against the sum over the orders in which the rest can come: 1e-13."""
    p = np.array([0.4, 0.25, 0.2, 0.1])  # the domain has more values than S
    W = m.unordered.completions(p[None])
    for size in range(5):
        for U in itertools.combinations(range(4), size):
            rest = [t for t in range(4) if t not in U]
            total = 0.0
            for order in itertools.permutations(rest):
                q, gone = 1.0, p[list(U)].sum()
                for t in order:
                    q, gone = q * p[t] / (1 - gone), gone + p[t]
                total += q
            assert abs(W[U][0] - total) < 1e-13, U
    scaled = m.unordered.completions(p[None] / 0.1, np.array([0.1]))
    assert abs(scaled[()][0] * 0.1**4 / W[()][0] - 1) < 1e-12


def is_exact(m):
    """The mean over all draws is the exact gradient, of one and of two variables: 1e-12."""
    for logits, K in ((LOGITS, 2), (LOGITS, 3), (LOGITS, 4), (PAIR, 2), (PAIR, 3)):
        values = all_values(*logits.shape)
        log, F = log_p(logits, values), f(values)
        pi = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        exact = np.tensordot(np.exp(log) * F, values - pi, 1)
        sequences, weights = orders(np.exp(log), K)
        for estimator in ESTIMATORS:
            S = np.array([taken(np.exp(log), s, estimator) for s in sequences])
            w, signal = m.unordered.RULES[estimator](log[S], F[S])
            g = np.einsum("nk,nkij->nij", w * signal, (values - pi)[S])
            assert np.abs(np.tensordot(weights, g, 1) - exact).max() < 1e-12, (estimator, K)
            assert abs(weights @ np.sum(w * F[S], axis=1) - np.exp(log) @ F) < 1e-12
            np.testing.assert_allclose(np.sum(w, axis=1), 1, rtol=1e-13)


def every_parameter_is_exact(m, task="generate"):
    """Every parameter of a tiny model, whose f has parameters of its own; all draws: 1e-12."""
    rng, K = np.random.default_rng(4), 2
    mean = np.array([0.3, 0.5, 0.6, 0.4])
    model = m.models.CategoricalNet(mean, 2, 2, 1, [3], True, task, dtype=np.float64)
    params = [p + 0.5 * rng.standard_normal(p.shape) for p in model.init(rng)]
    values, image = all_values(2, 2), np.array([[1.0, 0, 1, 1]])

    def expected(params):
        b, a = model.infer(params, image, lambda layer, a: values[:, None])
        q = anp.exp(m.categorical.log_prob(b[0], a[0]))
        return [anp.sum(q * model.bound(params, image, b, a))], []

    (exact,), _ = m.common.gradients(expected, params)
    _, (a,) = model.infer(params, image, lambda layer, a: values[:1])
    p = np.exp(log_p(a[0], values))
    noise = model.draw_noise(rng, K)
    for estimator in ESTIMATORS:
        total = [np.zeros_like(g) for g in exact]
        for sequence, weight in zip(*orders(p, K)):
            S = values[taken(p, sequence, estimator)]
            m.unordered.sets = lambda estimator, a, u, S=S: S[None]
            _, grads, _ = m.unordered.estimate(
                model, params, [], np.repeat(image, K, axis=0), noise, estimator=estimator
            )
            for mean, g in zip(total, grads):
                mean += weight * g
        for name, ours, g in zip(model.names, total, exact, strict=True):
            assert np.abs(ours - g).max() < 1e-12, (estimator, name)


def draws_are_right(m):
    """How often each sequence of 2 of the 9 values of two variables comes: χ², 60,000 draws.

    A false alarm has probability 1e-6. For sum-and-sample it is the last value that is random.
    """
    sets, n, K = m.unordered.sets, 60_000, 2
    rng, values = np.random.default_rng(5), all_values(2, 3)
    p = np.exp(log_p(PAIR, values))
    u = np.clip(rng.random((n, K, 2, 3)), 1e-300, None)
    a = np.broadcast_to(PAIR, (n, 2, 3))
    code = lambda b: np.argmax(b, axis=-1) @ np.array([3, 1])  # (n, K)
    drawn = code(sets("unordered", a, u))
    sequences, weights = orders(p, K)
    assert abs(weights.sum() - 1) < 1e-12
    found = np.bincount(drawn[:, 0] * 9 + drawn[:, 1], minlength=81)
    assert found.sum() == found[sequences[:, 0] * 9 + sequences[:, 1]].sum()  # none twice
    counts, mean = found[sequences[:, 0] * 9 + sequences[:, 1]], n * weights
    assert np.sum((counts - mean) ** 2 / mean) < chi2.isf(proofs.FALSE_ALARM, len(mean) - 1)
    drawn = code(sets("sum-and-sample", a, u))
    likeliest, others = np.argmax(p), np.argsort(-p)[1:]
    assert np.all(drawn[:, 0] == likeliest)
    counts = np.bincount(drawn[:, 1], minlength=9)[others]
    mean = n * p[others] / p[others].sum()
    assert counts.sum() == n
    assert np.sum((counts - mean) ** 2 / mean) < chi2.isf(proofs.FALSE_ALARM, len(mean) - 1)


def the_likeliest_are(m):
    """The beam finds the likeliest of all values of five variables of three classes."""
    logits = np.random.default_rng(6).standard_normal((5, 3))
    log = m.categorical.log_softmax(logits)[None]
    found = m.unordered.beam(log, 10, lambda i, phi, g: phi)[0]
    values = all_values(5, 3)
    best = values[np.argsort(-log_p(logits, values))[:10]]
    np.testing.assert_array_equal(found, np.argmax(best, axis=-1))


# ------------------------------------------------------------------------------------------- tests


def test_completions():
    completions_are_exact(M)


def test_exact():
    is_exact(M)


@pytest.mark.parametrize("task", ["generate", "predict"])
def test_every_parameter(task):
    every_parameter_is_exact(proofs.load(), task)


def test_draws():
    draws_are_right(M)


def test_the_likeliest():
    the_likeliest_are(M)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_values_are_the_exact_sum(estimator, rng):
    """K = C: no noise is left, and half of it or less with every value more."""
    exact = M.categorical.exact_gradient(f, LOGITS)
    variances = []
    for K in (2, 3, 4):
        u = rng.random((5000, K, 1, 4))
        g = M.unordered.gradient_samples(f, LOGITS, u, u, estimator=estimator)
        variances.append(np.sum(np.var(g, axis=0)))
    np.testing.assert_allclose(g, np.broadcast_to(exact, g.shape), rtol=0, atol=1e-13)
    assert variances[2] < 1e-24
    assert variances[1] < variances[0] / 2


def test_the_exact_variance_of_the_toy(rng):
    """Against 50,000 draws: within 4 %."""
    for estimator in ESTIMATORS:
        for K in (2, 3):
            u = rng.random((50_000, K, 1, 4))
            g = M.unordered.gradient_samples(f, LOGITS, u, u, estimator=estimator)
            exact = M.unordered.exact_variance(f, LOGITS[0], K, estimator)
            assert np.sum(np.var(g, axis=0)) == pytest.approx(exact, rel=0.04)


def test_the_exact_variance_refuses_what_has_none():
    f, zeros = lambda b: np.sin(b[:, 0] @ np.arange(3.0)), np.zeros(3)
    for arguments, message in (
        ((f, zeros, 5, "unordered"), "K: has to be from 2 to 3, not 5"),
        ((f, zeros, 1, "sum-and-sample"), "K: has to be from 2 to 3, not 1"),
        ((f, zeros, 2.5, "unordered"), "K: has to be from 2 to 3, not 2.5"),
        ((f, zeros, 2, "reinforce"), "estimator: choose from unordered, sum-and-sample"),
        ((f, zeros[None], 2, "unordered"), r"logits: has to be numbers of shape \(C\)"),
        ((lambda b: b, zeros, 2, "unordered"), r"f: has to return floats \(3,\)"),
        ((f, [900.0, 0, 1], 2, "unordered"), "logits: too far apart"),
    ):
        with pytest.raises(M.common.InputError, match=f"^{message}"), np.errstate(invalid="ignore"):
            M.unordered.exact_variance(*arguments)
    for estimator in ESTIMATORS:
        assert M.unordered.exact_variance(f, [0, 1, 0], 3, estimator) == 0  # all values are in S
        assert M.unordered.exact_variance(f, [900, 0, 1], 3, estimator) == 0
        two = [M.unordered.exact_variance(f, [0, 1, 0], K, estimator) for K in (2, 2.0)]
        assert two[0] == two[1] > 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_images_are_apart(estimator, rng):
    """Two images of three samples have the mean of their own estimates: 1e-13."""
    model = M.models.CategoricalNet(np.full(6, 0.4), 3, 4, 1, [5], dtype=np.float64)
    params, x = model.init(rng), np.repeat((rng.random((2, 6)) < 0.5) * 1.0, 3, axis=0)
    noise = model.draw_noise(rng, 6)
    call = lambda s: M.unordered.estimate(
        model, params, [], x[s], [(u[s], v[s]) for u, v in noise], estimator=estimator, samples=3
    )
    L, grads, _ = call(slice(None))
    parts = [call(slice(0, 3)), call(slice(3, 6))]
    np.testing.assert_allclose(L, [parts[0][0][0], parts[1][0][0]], rtol=1e-13)
    for g, one, other in zip(grads, parts[0][1], parts[1][1]):
        np.testing.assert_allclose(g, (one + other) / 2, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_float32_and_many_values(estimator, monkeypatch, rng):
    """10 of 10^30 values, of probability 1e-30 each: nothing underflows, and float32 is kept."""
    model = M.models.CategoricalNet(np.full(6, 0.4), 30, 10, 1, [5])
    promoted = proofs.promotions(M, monkeypatch)
    params, x = model.init(rng), np.repeat((rng.random((2, 6)) < 0.5) * 1.0, 10, axis=0)
    noise = model.draw_noise(rng, 20)
    L, grads, _ = M.unordered.estimate(
        model, params, [], x.astype(np.float32), noise, estimator=estimator, samples=10
    )
    assert promoted == []
    assert {a.dtype for a in (L, *grads)} == {np.dtype(np.float32)}
    assert all(np.isfinite(a).all() for a in (L, *grads))
    tiny = np.full((1, 10), -300 * math.log(10))
    w, signal = M.unordered.unordered(tiny, np.arange(10.0)[None])
    np.testing.assert_allclose(w, 0.1, rtol=1e-12)
    np.testing.assert_allclose(signal[0], (np.arange(10) - 4.5) * 10 / 9, rtol=1e-9)  # RLOO's


@pytest.mark.parametrize("tail", [(-50, -51, -52), (-60, -61), (-120, -121, -150)], ids=str)
def test_float32_where_a_few_values_have_all_the_probability(tail):
    """All values are in S, so w is p; and so it is nearly for S with one value less."""
    log_p = M.categorical.log_softmax(np.array([[0, 0.3, 0.7, *tail]]))
    p = np.exp(log_p)[0]
    for K in (len(p) - 1, len(p)):
        w, signal = M.unordered.unordered(log_p[:, :K].astype(np.float32), np.zeros((1, K), "f"))
        np.testing.assert_allclose(w[0], p[:K], rtol=1e-5, atol=1e-7)
        assert np.all(signal == 0)
    w, signal = M.unordered.sum_and_sample(np.full((1, 4), -138, "f"), np.arange(4.0)[None])
    np.testing.assert_allclose(w[0], [0, 0, 0, 1], atol=1e-30)
    np.testing.assert_allclose(signal[0], np.arange(4) - 1, rtol=1e-6)  # the likeliest are level


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_float32_is_float64_rounded(estimator):
    """The weights of sets that a sharp p hardly leaves out: 1e-4 of the largest gradient."""
    found = []
    for dtype in (np.float32, np.float64):
        model = M.models.CategoricalNet(np.full(6, 0.4), 2, 4, 1, [5], dtype=dtype)
        rng = np.random.default_rng(3)
        params = [3 * p for p in model.init(rng)]
        x = np.repeat((rng.random((5, 6)) < 0.5).astype(dtype), 4, axis=0)
        u = np.random.default_rng(4).random((20, 2, 4), np.float32).astype(dtype)
        found.append(M.unordered.estimate(
            model, params, [], x, [(u, u)], estimator=estimator, samples=4
        ))  # fmt: skip
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    for g, h in zip(found[0][1], found[1][1]):
        np.testing.assert_allclose(g, h, rtol=0, atol=1e-4 * max(np.abs(h).max(), 1e-3))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_uniforms_and_logits_at_the_edge(estimator):
    u = np.resize([0, 1, 0.5, 1, 0], (6, 3, 1, 4))
    for logits in (LOGITS, np.array([[0.0, -np.inf, 800.0, -3.0]])):
        with np.errstate(all="raise", under="ignore"):
            g = M.unordered.gradient_samples(f, logits, u, u, estimator=estimator)
        assert np.isfinite(g).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.full((5, 1, 1, 4), 0.5)}, "samples: 1 of an image"),
        ({"u": np.full((5, 11, 1, 4), 0.5)}, "samples: 11 of an image"),
        ({"u": np.full((5, 5, 1, 4), 0.5)}, "samples: there are only 4 values"),
        ({"u": np.full((5, 1, 4), 0.5)}, r"u: .* shape \(n, K, D = 1, C = 4\)"),
        ({"v": np.full((5, 3, 1, 4), 0.5)}, "v: "),
        ({"logits": np.zeros(4)}, "logits: "),
        ({"estimator": "ordered"}, "estimator: choose from unordered, sum-and-sample"),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.full((5, 2, 1, 4), 0.5)
    arguments = {"f": f, "logits": LOGITS, "u": u, "v": change.get("u", u)} | change
    with pytest.raises(ValueError, match=message):
        M.unordered.gradient_samples(**arguments)


SMALL = ["--steps", 40, "--variables", 2, "--classes", 3, "--hidden", 6, "--lr", 0.01,
         "--eval-samples", 3, "--log-every", 20, "--no-plots", "--batch-size", 20]  # fmt: skip


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run(tmp_path, estimator):
    flags = [*SMALL, "--estimator", estimator, "--samples", 3]
    code, _, err = run("gumbel_softmax", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])


def test_runs_that_are_refused(tmp_path):
    for flags, message in (
        ([], "--samples: --estimator unordered takes 2 to 10"),
        (["--samples", 11], "--samples: "),
        (["--samples", 10], "--samples: "),  # there are nine
        (["--samples", 2, "--task", "predict", "--layers", 2], "--layers: "),
    ):
        given = [*SMALL, "--estimator", "unordered", *flags, "--out", tmp_path / "run"]
        code, _, err = run("gumbel_softmax", *given)
        assert (code, message in err) == (2, True), err


def test_the_toy(tmp_path):
    code, out, err = run("unordered", "--classes", 5, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    assert (tmp_path / "toy" / "toy.png").stat().st_size > 5000
    assert all(name in out for name in ("with replacement", *ESTIMATORS))
    code, _, err = run("unordered", "--resume", tmp_path / "toy")
    assert (code, "--resume: " in err) == (2, True)
    code, _, err = run("unordered", "--out", tmp_path / "toy")
    assert (code, err.endswith(" exists; choose another folder\n")) == (2, True)


MUTATIONS = {
    "drawn with replacement": (
        completions_are_exact,
        ("unordered", "left = outside + unit * np.sum(q[:, rest], axis=1)", "left = 1.0"),
    ),
    "the weights of the values alone": (
        is_exact,
        ("unordered", "q[:, s] * W[s,] / W[()] for s", "q[:, s] / np.sum(q, axis=1) for s"),
    ),
    "a baseline that does not depend on s": (
        is_exact,
        ("unordered", "f - np.stack(B, axis=1)", "f - np.sum(w * f, axis=1, keepdims=True)"),
    ),
    "second order ratio by the first": (
        is_exact,
        ("unordered", "W[min(s, t), max(s, t)] / W[s,] * f[:, t]", "W[t,] / W[()] * f[:, t]"),
    ),
    "own value left out of B": (
        is_exact,
        ("unordered", "B.append(unit * q[:, s] * f[:, s] + sum(terms))", "B.append(sum(terms))"),
    ),
    "the last has its own probability": (
        is_exact,
        ("unordered", "np.maximum(1 - total, p[:, -1:])", "p[:, -1:]"),
    ),
    "a baseline that has seen the last": (
        is_exact,
        ("unordered", "np.sum(q * f[:, :-1], axis=1, keepdims=True) / np.sum(q, axis=1, keep",
         "np.sum(w * f, axis=1, keepdims=True) / np.sum(w, axis=1, keep"),
    ),
    "the mean over S of ∇f": (
        every_parameter_is_exact,
        ("unordered", "L = np.sum(w * f, axis=1)", "L = np.mean(f, axis=1)"),
    ),
    "fresh noise for every step of the beam": (
        draws_are_right,
        ("unordered", "moved(phi + gumbel(u[:, :, i]), g)", "phi + gumbel(u[:, :, i])"),
    ),
    "noise that forgets what was chosen": (
        draws_are_right,
        ("unordered", "phi, g, parent = take(phi), take(scores)",
         "phi, g, parent = take(phi), take(phi)"),
    ),
    "the last drawn, not the first of the others": (
        draws_are_right,
        ("unordered", "first = np.argmin(known, axis=1)", "first = np.argmax(known, axis=1)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)
