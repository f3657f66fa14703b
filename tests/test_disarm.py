"""DisARM, ARM, ARMS: exactly, cell by cell; on every parameter of tiny networks; mutations."""

import itertools

import numpy as np
import proofs
import pytest
from scipy import stats
from test_runs import SMALL, read_log, run

M = proofs.load()
LOGITS = ([0.3], [-2.0], [0.0], [0.7, -1.1])
FUNCTIONS = (*proofs.FUNCTIONS, proofs.product)
sigmoid = lambda a: 1 / (1 + np.exp(-np.asarray(a)))

# ------------------------------------------------------------------------------------------ proofs


def moments(m, f, logits, nodes, **options):
    """Mean and variance (D,) of gradient samples over the nodes (u, v, weights)."""
    u, v, weights = nodes
    assert abs(weights.sum() - 1) < 1e-12
    g = m.disarm.gradient_samples(f, np.array(logits), u, v, **options)
    return weights @ g, weights @ g**2 - (weights @ g) ** 2


def pairs_are_exact(m, estimators=("disarm", "arm")):
    """Mean over the cells of the unit cube = enumerated gradient, 1e-12; one pair and two."""
    for logits, f, estimator in itertools.product(LOGITS, FUNCTIONS, estimators):
        nodes, exact = m.toy.pair_cells(logits), m.common.exact_gradient(f, logits)
        mean, _ = moments(m, f, logits, nodes, estimator=estimator)
        assert np.abs(mean - exact).max() < 1e-12, (logits, f.__name__, estimator)
        u, _, w = nodes
        i, j = np.indices((len(u), len(u))).reshape(2, -1)
        two = np.stack([u[i], u[j]], axis=1)  # (n², P, D)
        mean, _ = moments(m, f, logits, (two, two, w[i] * w[j]), estimator=estimator)
        assert np.abs(mean - exact).max() < 1e-12, "two pairs"


def local_is_exact(m, **options):
    """Two bits' bounds of K = 2 and of K = 3 samples of one bit, with a pair each: 1e-12."""
    for logits, K in (([0.3], 2), ([-1.2], 3), ([0.7, -1.1], 2)):
        u, _, w = m.toy.pair_cells(np.tile(logits, K))
        u = u.reshape(len(u), K, -1)
        for f in FUNCTIONS:
            toy, x = m.common.Toy(f, len(logits)), np.zeros((1, 0))
            (exact,) = proofs.exact_bound_gradient(m, toy, [np.array(logits)], x, K)
            mean, _ = moments(m, f, logits, (u, u, w), bound=True, **options)
            assert np.abs(mean - exact).max() < 1e-12, (logits, K, f.__name__)


def arms_is_exact(m):
    """Mean over all outcomes of the copula = enumerated gradient, 1e-12, K = 2, 3, 4."""
    for logits, f, K in itertools.product(LOGITS, FUNCTIONS, (2, 3, 4)):
        exact = m.common.exact_gradient(f, logits)
        nodes = m.toy.copula_outcomes(logits, K)
        mean, _ = moments(m, f, logits, nodes, estimator="arms")
        assert np.abs(mean - exact).max() < 1e-12, (logits, f.__name__, K)


def copula_has_its_probabilities(m):
    """300,000 draws of K bits: every outcome as often as inclusion and exclusion say.

    χ² over the outcomes of each case at 1e-6 / 12; finds probabilities that are off by about 1 %.
    """
    rng = np.random.default_rng(0)
    for a, K in itertools.product((-2.0, -0.4, 0.0, 1.3), (2, 3, 4)):
        u, _, weights = m.toy.copula_outcomes([a], K)
        place = lambda b: b.reshape(-1, K) @ 2 ** np.arange(K)
        bits = lambda u: m.disarm.copula_bits(np.array([a]), u.reshape(-1, 1), K).astype(int)
        n, expected = 300_000, np.zeros(2**K)
        np.add.at(expected, place(bits(u)), n * weights)
        counts = np.bincount(place(bits(rng.random((n, K)))), minlength=2**K)
        assert counts[expected == 0].sum() == 0
        chi2 = np.sum((counts - expected)[expected > 0] ** 2 / expected[expected > 0])
        assert chi2 < stats.chi2.isf(1e-6 / 12, np.sum(expected > 0) - 1), (a, K)


def correlation_is_the_formula(m):
    """ρ of two of the bits and P(b = 1) = θ, from the outcomes' probabilities: 1e-12."""
    for a, K in itertools.product((-6.0, -2.0, -0.4, 0.0, 1.3), (2, 3, 4)):
        u, _, weights = m.toy.copula_outcomes([a], K)
        b = m.disarm.copula_bits(np.array([a]), u.reshape(-1, 1), K).reshape(-1, K)
        theta = sigmoid(a)
        np.testing.assert_allclose(weights @ b, theta, rtol=1e-12)
        rho = (weights @ (b[:, 0] * b[:, 1]) - theta**2) / (theta * (1 - theta))
        assert rho < 0
        found = m.disarm.decorrelation(np.array([a]), K)[0]
        assert abs(found - 1 / (1 - rho)) < 1e-12


def mean_of_arm_is_disarm(m):
    """E[ARM | b, b̃] = DisARM in every cell of the unit square, of which there are nine: 1e-15."""
    logits = np.array([0.7, -1.1])
    u, _, w = m.toy.pair_cells(logits)
    arm, disarm = (
        m.disarm.gradient_samples(proofs.product, logits, u, u, estimator=estimator)
        for estimator in ("arm", "disarm")
    )
    cell = np.stack([u > 1 - sigmoid(logits), u < sigmoid(logits)], axis=2).reshape(len(u), 4)
    cells = np.unique(cell, axis=0)
    assert len(cells) == 9
    for c in cells:
        here = (cell == c).all(axis=1)
        assert np.ptp(disarm[here], axis=0).max() == 0
        mean = w[here] @ arm[here] / w[here].sum()
        assert np.abs(mean - disarm[here][0]).max() < 1e-15


def one_layer_is_exact(m, task="generate", **options):
    """Every parameter of an SBN of two bits, over the cells of each image: 1e-12."""
    model, params, x = proofs.tiny_sbn(m, layers=1, task=task)
    total, K = [np.zeros_like(p) for p in params], options.get("samples", 1)
    for image in x:
        _, (a,) = model.infer(params, image[None], lambda layer, a: a)
        if options.get("estimator") == "arms":
            u, _, weights = m.toy.copula_outcomes(a[0], K)
        else:
            u, _, weights = m.toy.pair_cells(np.tile(a[0], K))
        for u_i, weight in zip(u.reshape(len(u), K, 2), weights):
            rows, noise = np.tile(image, (K, 1)), [(u_i, u_i)]
            _, grads, _ = m.disarm.estimate(model, params, [], rows, noise, **options)
            for mean, g in zip(total, grads):
                mean += weight / len(x) * g
    bound = options.get("bound", False)
    exact = proofs.exact_bound_gradient(m, model, params, x, K if bound else 1)
    for name, mean, g in zip(model.names, total, exact, strict=True):
        assert np.abs(mean - g).max() < 1e-12, (name, np.abs(mean - g).max())


def is_unbiased(m, rng, model_options, rows=6000, **options):
    model, params, x = proofs.tiny_sbn(m, **model_options)
    estimator = lambda x, noise: m.disarm.estimate(model, params, [], x, noise, **options)[1]
    K = options["samples"] if options.get("bound") else 1
    exact = proofs.exact_bound_gradient(m, model, params, x, K)
    return proofs.assert_unbiased(m, model, params, x, estimator, rng, 100, rows, exact)


# ------------------------------------------------------------------------------------------- tests


def test_pairs():
    pairs_are_exact(M)


@pytest.mark.parametrize("estimator", ["disarm", "arm"])
def test_local(estimator):
    local_is_exact(M, estimator=estimator)


def test_arms():
    arms_is_exact(M)


def test_copula():
    copula_has_its_probabilities(M)


def test_correlation():
    correlation_is_the_formula(M)


def test_the_mean_of_arm():
    mean_of_arm_is_disarm(M)


ALL = (
    {},
    {"estimator": "arm"},
    {"estimator": "arms", "samples": 3},
    {"bound": True, "samples": 2},
)


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("options", ALL, ids=str)
def test_every_parameter_of_one_layer(options, task):
    one_layer_is_exact(M, task, **options)


@pytest.mark.parametrize(
    "model",
    [
        {"layers": 2},
        {"layers": 3, "hidden": 1},
        {"layers": 2, "task": "predict"},
        {"layers": 3, "hidden": 1, "task": "predict"},
    ],
    ids=str,
)
@pytest.mark.parametrize("options", ALL, ids=str)
def test_every_parameter_of_several_layers(rng, options, model):
    """False alarm 1e-6; finds 5 % of the largest gradient with probability .99."""
    z, bias, scale = is_unbiased(M, rng, model, **options)
    print(f"|z| ≤ {z:.2f}, detects {bias:.4f}, largest gradient {scale:.3f}")
    assert bias < 0.05 * scale


@pytest.mark.parametrize("options", ALL[2:], ids=str)
def test_images_are_apart(options):
    options = {key: value for key, value in options.items() if key != "samples"}
    proofs.images_are_apart(M, M.disarm.estimate, **options)


def test_variance_is_never_above_that_of_arm():
    """For every bit of every case."""
    for logits, f in itertools.product(LOGITS, FUNCTIONS):
        nodes = M.toy.pair_cells(logits)
        ours = moments(M, f, logits, nodes)[1]
        assert np.all(ours <= moments(M, f, logits, nodes, estimator="arm")[1] + 1e-15)


def test_variance_beside_two_samples_of_rloo(rng):
    """Summed over the bits, for 60 random functions of 2 and 3: below RLOO's in every one of them.

    It can be equal: for the parity of three fair bits, which an odd number of flips changes.
    """

    def both(f, logits):
        rloo = lambda *arguments: M.rloo.gradient_samples(f, *arguments)
        ours = moments(M, f, logits, M.toy.pair_cells(logits))[1].sum()
        return ours, proofs.mean_over_outcomes(M, rloo, logits, 2)[1].sum()

    for D in (2, 3):
        for _ in range(30):
            table, logits = rng.standard_normal(2**D), rng.normal(0, 1.5, D)
            f = lambda b: table[(b @ 2 ** np.arange(D)).astype(int)]
            ours, rloo = both(f, logits)
            assert ours < rloo
    ours, rloo = both(lambda b: np.sum(b, axis=1) % 2, np.zeros(3))
    assert ours == pytest.approx(rloo, rel=1e-12)
    assert ours == pytest.approx(3 / 16, rel=1e-12)


def test_variances_on_two_bits_are_those_measured_elsewhere():
    """Figures of an independent implementation for the same f and logits, to 1e-4."""
    f = lambda b: (
        np.sum((b - 0.45) ** 2, axis=1)
        + np.sin(2 * b[:, 0] + 3 * b[:, 1]) + np.exp(b[:, 0] * b[:, 1] / 2) + 1.3
    )  # fmt: skip
    logits = [0.7, -1.1]
    cells, three = M.toy.pair_cells(logits), M.toy.copula_outcomes(logits, 3)
    total = lambda nodes, **options: moments(M, f, logits, nodes, **options)[1].sum()
    assert total(cells) == pytest.approx(0.0549, abs=1e-4)
    assert total(cells, estimator="arm") == pytest.approx(0.0696, abs=1e-4)
    assert total(three, estimator="arms") == pytest.approx(0.0121, abs=1e-4)
    rloo = lambda *arguments: M.rloo.gradient_samples(f, *arguments)
    for K, value in ((2, 0.1048), (3, 0.0458)):
        variance = proofs.mean_over_outcomes(M, rloo, logits, K)[1].sum()
        assert variance == pytest.approx(value, abs=1e-4)


def test_two_samples_of_arms_are_disarm(rng):
    """With the pair's u = e_1 / (e_1 + e_2), and 1 − u where 0 and 1 are exchanged (θ ≥ 1/2)."""
    logits, u = np.array([0.4, -1.0, 0.0]), rng.random((500, 2, 3))
    arms = M.disarm.gradient_samples(proofs.product, logits, u, u, estimator="arms")
    d = np.log(u[:, 0]) / np.log(u).sum(axis=1)
    d = np.where(logits < 0, d, 1 - d)
    disarm = M.disarm.gradient_samples(proofs.product, logits, d, d)
    np.testing.assert_allclose(arms, disarm, rtol=1e-9, atol=1e-12)


def test_logits_of_any_size_are_finite():
    for dtype, a in itertools.product((np.float32, np.float64), (0.0, 30.0, 100.0, 800.0)):
        logits = np.array([a, -a], dtype)
        for K in (2, 5):
            w = M.disarm.decorrelation(logits, K)
            assert w.dtype == dtype
            assert np.all((w > 0) & (w <= 1))
        u = np.random.default_rng(0).random((20, 3, 2)).astype(dtype)
        for estimator in M.disarm.ESTIMATORS:
            g = M.disarm.gradient_samples(proofs.product, logits, u, u, estimator=estimator)
            assert np.isfinite(g).all()


def test_uniforms_of_exactly_0_and_1_are_finite():
    u = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]])
    for estimator in M.disarm.ESTIMATORS:
        g = M.disarm.gradient_samples(proofs.product, np.zeros(2), u, u, estimator=estimator)
        assert np.isfinite(g).all()


def test_float32_is_kept(monkeypatch):
    for options in ALL:
        with monkeypatch.context() as patch:
            proofs.float32_is_kept(M, patch, "disarm", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.zeros((5, 1)) + 0.5}, r"u: .* shape \(n, D = 2\), not \(5, 1\)"),
        ({"u": np.zeros((5, 4, 1)) + 0.5}, r"u: .* shape \(n, P, D = 2\), not \(5, 4, 1\)"),
        ({"estimator": "u2g"}, "estimator: choose from disarm, arm, arms, not 'u2g'"),
        ({"estimator": "arms"}, r"u: .* shape \(n, K, D = 2\)"),
        ({"bound": True}, r"u: .* shape \(n, K, D = 2\)"),
        ({"u": np.zeros((5, 1, 2)) + 0.5, "bound": True}, "u: .* K ≥ 2"),
        ({"u": np.zeros((5, 2, 2)) + 0.5, "v": np.zeros((5, 2, 2)) + 0.5, "bound": True,
          "estimator": "arms"}, "bound: for the estimators disarm and arm"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(change, message):
    u = np.full((5, 2), 0.5)
    arguments = {"f": proofs.quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.disarm.gradient_samples(**arguments)


def test_rows_that_are_no_images_are_refused():
    model, params, x = proofs.tiny_sbn(M)
    noise = model.draw_noise(np.random.default_rng(0), 2)
    for options in ({"samples": 3}, {"estimator": "arms"}, {"bound": True}):
        with pytest.raises(ValueError, match="samples: 2 rows are not images of K"):
            M.disarm.estimate(model, params, [], x, noise, **options)


def test_toy(tmp_path):
    """DisARM's exact variance below ARM's at every logged step of both."""
    code, _, err = run("disarm", "--toy", "--steps", 600, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    last = {row["method"]: float(row["exact_log_variance"]) for row in read_log(tmp_path / "toy")}
    assert last["DisARM"] < last["ARM"]
    flags = ["--estimator", "arms", "--samples", 4, "--steps", 300]
    code, _, err = run("disarm", "--toy", *flags, "--out", tmp_path / "arms")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "flags",
    [["--pairs", 2, "--layers", 2], ["--estimator", "arms", "--layers", 2], ["--bound"]],
    ids=str,
)
def test_a_run(flags, tmp_path):
    common = [*SMALL, "--steps", 110, "--lr", 1e-2]
    code, _, err = run("disarm", *common, *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"]) + 1
    code, _, err = run("disarm", "--resume", tmp_path / "run", "--steps", 120)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--estimator", "arms", "--samples", 1], "--samples: --bound and --estimator arms need"),
        (["--bound", "--samples", 1], "--samples: --bound and --estimator arms need two"),
        (["--bound", "--estimator", "arms"], "--bound: for pairs on images"),
        (["--bound", "--toy"], "--bound: for pairs on images"),
    ],
)
def test_bad_flags(flags, message):
    code, _, err = run("disarm", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


two_layers = lambda m, **options: is_unbiased(m, np.random.default_rng(0), {"layers": 2}, **options)
MUTATIONS = {
    "σ(a) for σ(|a|)": (pairs_are_exact, ("sigmoid(np.abs(a)) / 2", "sigmoid(a) / 2")),
    "the half forgotten": (pairs_are_exact, ("sigmoid(np.abs(a)) / 2", "sigmoid(np.abs(a))")),
    "the sign (−1)^b̃ lost": (
        pairs_are_exact,
        ("(b - b_tilde) * sigmoid", "np.abs(b - b_tilde) * sigmoid"),
    ),
    "a pair of independent bits": (
        lambda m: pairs_are_exact(m, ["arm"]),
        ("hard_sample(a, 1 - u[layer]), hard", "hard_sample(a, (u[layer] + 0.5) % 1), hard"),
    ),
    "ARM's u without its mean, unbiased but noisier": (
        mean_of_arm_is_disarm, ("(u - 0.5)", "u"),
    ),
    "all layers antithetic at once": (
        two_layers,
        ("np.arange(layers + 1)[:, None, None] == layer + 1",
         "np.arange(layers + 1)[:, None, None] > 0"),
    ),
    "the difference of the first layer for all": (
        two_layers,
        ("pair_gradient(differences[i]", "pair_gradient(differences[0]"),
    ),
    "direct derivative of f left out": (
        one_layer_is_exact,
        ("total = np.sum(L) / (layers + 1)", "total = 0 * np.sum(L)"),
    ),
    "direct derivative summed over the passes": (
        one_layer_is_exact,
        ("total = np.sum(L) / (layers + 1)", "total = np.sum(L)"),
    ),
    "the bound's − log q held fixed": (
        lambda m: one_layer_is_exact(m, bound=True, samples=2),
        ("b, a if bound else stop_gradient(a))", "b, stop_gradient(a))"),
    ),
    "the replaced sample left in the bound": (
        local_is_exact,
        ("np.logaddexp(log_sum_others(value[0]), value[1:])",
         "np.logaddexp(stop_gradient(L)[0][:, None] + math.log(samples), value[1:])"),
    ),
    "ARMS without 1 / (1 − ρ)": (
        arms_is_exact, ("return m * (1 - m) / (m - B)", "return 1 + 0 * B"),
    ),
    "ρ as for K = 2": (
        arms_is_exact, ("return m * (1 - m) / (m - B)", "return 1 - m + 0 * B"),
    ),
    "the copula not turned over for θ > 1/2": (
        arms_is_exact, ("np.where(a < 0, rare, ~rare)", "np.where(a < 9, rare, ~rare)"),
    ),
    "a power of the wrong order": (
        copula_has_its_probabilities, ("(1 - d) ** (samples - 1)", "(1 - d) ** samples"),
    ),
    "shares of two images": (
        lambda m: proofs.images_are_apart(m, m.disarm.estimate, estimator="arms"),
        ("np.sum(e, axis=1, keepdims=True)", "np.sum(e, keepdims=True) / len(e)"),
    ),
    "ARMS with layers below of their own": (
        lambda m: two_layers(m, estimator="arms", samples=3),
        ("first = [np.repeat(u_i[::samples], samples, axis=0) for u_i in u]", "first = u"),
    ),
    "inclusion without exclusion": (arms_is_exact, ("(-1) ** j * math.comb", "math.comb")),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([(("disarm", "toy"), old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
