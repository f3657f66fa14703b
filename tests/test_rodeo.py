"""Double CV and RODEO: exact for every α, β and network, by enumeration; identities; mutations."""

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from test_runs import SMALL, read_log, run

M = proofs.load()
ESTIMATORS = M.rodeo.ESTIMATORS
CASES = [([0.3], 2), ([0.3], 3), ([0.7, -1.1], 2), ([0.7, -1.1], 3)]


def steps(b):
    """Jumps between the bits and at them; its slope says nothing."""
    return anp.round(0.7 * b[:, 0]) + anp.floor(b[:, -1] + 0.5) * b[:, 0] + 0 * b[:, 0]


FUNCTIONS = (*proofs.FUNCTIONS, proofs.product, steps)

# ------------------------------------------------------------------------------------------ proofs


def random_parts(m, model, estimator, seed=0):
    """An `aux` with every number random."""
    rng = np.random.default_rng(seed)
    aux = m.rodeo.init_aux(rng, model, estimator, hidden=5)
    return [a + rng.standard_normal(np.shape(a)) for a in aux]


def is_exact(m, estimators=ESTIMATORS):
    """The mean over all outcomes is the enumerated gradient, for random α, β and H: 1e-12."""
    rng = np.random.default_rng(0)
    for estimator in estimators:
        for logits, K in CASES:
            for f in FUNCTIONS:
                rho = [rng.standard_normal(shape) for shape in ((2, 5), (5,), (5, 2), (2,))]
                options = {"alpha": rng.normal(), "beta": rng.normal(), "rho": rho}
                if estimator == "double-cv":
                    options = {"alpha": options["alpha"]}
                samples = lambda *args: m.rodeo.gradient_samples(
                    f, *args, estimator=estimator, **options
                )
                mean, variance = proofs.mean_over_outcomes(m, samples, logits, K)
                exact = m.common.exact_gradient(f, logits)
                assert np.abs(mean - exact).max() < 1e-12, (estimator, logits, K, f.__name__)
                assert np.min(variance) > 1e-6


def every_parameter(m, options, estimator, K=2):
    """Every parameter of a tiny SBN, with random α, β and H for every layer: 1e-12."""
    model, _, _ = proofs.tiny_sbn(m, **options)
    aux = random_parts(m, model, estimator)

    def estimate(model, params, _, x, noise, **rest):
        return m.rodeo.estimate(model, params, aux, x, noise, estimator=estimator, **rest)

    proofs.every_parameter_is_exact(m, estimate, {}, options, multi_sample=False, K=K)


def is_the_table(m):
    """RODEO written out with the table of all D neighbours of D bits: 1e-13."""
    rng = np.random.default_rng(1)
    n, K, D = 4, 3, 5
    b, theta = (rng.random((n, K, D)) < 0.5).astype(float), rng.random((n, K, D))
    f, G = rng.standard_normal((n, K)), rng.standard_normal((n, K, D))
    rho = [rng.standard_normal(shape) for shape in ((2, 6), (6,), (6, 2), (2,))]
    alpha, beta = 0.7, -1.3

    def H(s, f):
        hidden = np.stack([s, f], axis=-1) @ rho[0] + rho[1]
        return np.where(hidden > 0, hidden, 0.3 * hidden) @ rho[2] + rho[3]

    expected = np.zeros((n, K, D))
    for i in range(n):
        A_1, A_2 = np.zeros(K), np.zeros((K, D))
        for k in range(K):
            others = [j for j in range(K) if j != k]
            h = lambda y: np.mean(
                [H((y - b[i, j]) @ G[i, j], np.full(len(y), f[i, j])) for j in others], axis=0
            )
            y = np.abs(b[i, k] - np.eye(D))  # (D, D): the table
            q = np.where(b[i, k] == 1, 1 - theta[i, k], theta[i, k])
            here = h(b[i, k][None])
            A_1[k] = np.mean(q * (h(y)[:, 0] - here[0, 0]))
            vector = h(y)[:, 1:] * (y - theta[i, k]) - here[:, 1:] * (b[i, k] - theta[i, k])
            A_2[k] = np.mean(q[:, None] * vector, axis=0)
        for k in range(K):
            others = [j for j in range(K) if j != k]
            signal = f[i, k] - np.mean([f[i, j] + alpha * A_1[j] for j in others])
            expected[i, k] = signal * (b[i, k] - theta[i, k]) + beta * A_2[k]
    ours = m.rodeo.rodeo(f, b, G, theta, alpha, beta, lambda s: m.rodeo.network(rho, s))
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)


def slopes_are_exact(m, estimator="rodeo"):
    """Gradients for α, β and H against differences of the mean square over images and bits."""
    rng, n, K, D = np.random.default_rng(2), 4, 3, 2
    model = m.common.Toy(proofs.product, D)
    aux = random_parts(m, model, estimator)
    params, x = [np.tile([0.4, -1.0], (n * K, 1))], np.zeros((n * K, 0))
    noise = model.draw_noise(rng, n * K)
    estimate = lambda aux: m.rodeo.estimate(
        model, params, aux, x, noise, samples=K, estimator=estimator
    )

    def mean_square(aux):
        _, (grads,), _ = estimate(aux)
        return np.mean((n * grads.reshape(n, K, D).sum(axis=1)) ** 2)

    for k, gradient in enumerate(estimate(aux)[2]):
        assert np.abs(gradient).max() > 1e-6, k
        for index in np.ndindex(np.shape(aux[k])):
            values = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in aux]
                moved[k][index] += step
                values.append(mean_square(moved))
            difference = (values[0] - values[1]) / 2e-5
            assert abs(difference - gradient[index]) < 1e-7 * max(1, abs(difference)), (k, index)


def linear_f_has_no_noise(m):
    """f = w·b and α = −1: every sample of Double CV is the exact gradient, to 1e-14."""
    w, logits = np.array([1.5, -0.7, 2.0]), np.array([0.3, -1.0, 0.2])
    u, theta = np.random.default_rng(0).random((50, 3, 3)), 1 / (1 + np.exp(-logits))
    f = lambda b: b @ w
    g = m.rodeo.gradient_samples(f, logits, u, u, estimator="double-cv", alpha=-1.0)
    np.testing.assert_allclose(g, np.tile(w * theta * (1 - theta), (50, 1)), rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------------- tests


def test_exact():
    is_exact(M)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("model", proofs.TINY, ids=str)
def test_every_parameter(model, estimator):
    every_parameter(M, model, estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_three_samples_and_a_nonlinear_network(estimator):
    every_parameter(M, {"layers": 1, "hidden": 1, "nonlinear": True}, estimator, K=3)


def test_the_table_of_neighbours():
    is_the_table(M)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_slopes_of_the_mean_square(estimator):
    slopes_are_exact(M, estimator)


def test_no_noise_for_a_linear_f():
    linear_f_has_no_noise(M)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_it_starts_as_rloo(estimator, rng):
    model, params, x = proofs.tiny_sbn(M, layers=2)
    x = np.repeat(x, 3, axis=0)
    noise, aux = model.draw_noise(rng, len(x)), M.rodeo.init_aux(rng, model, estimator)
    args = model, params, aux, x, noise
    f, grads, _ = M.rodeo.estimate(*args, samples=3, estimator=estimator)
    bound, rloo, _ = M.rloo.estimate(*args, samples=3)
    np.testing.assert_array_equal(f, bound)
    for name, g, h in zip(model.names, grads, rloo):
        np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_f_is_evaluated_once_a_sample(estimator, rng):
    rows = []

    def f(b):
        rows.append(len(b))
        return anp.sum(b**2, axis=-1)

    u = rng.random((7, 3, 2))
    M.rodeo.gradient_samples(f, np.zeros(2), u, u, estimator=estimator)
    assert sum(rows) == 7 * 3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_images_are_apart(estimator):
    model, _, _ = proofs.tiny_sbn(M)
    aux = random_parts(M, model, estimator)
    estimate = lambda model, params, _, x, noise, **rest: M.rodeo.estimate(
        model, params, aux, x, noise, estimator=estimator, **rest
    )
    proofs.images_are_apart(M, estimate)


def test_variance_falls_below_that_of_rloo():
    """Five bits, f smooth: α = −1/2 takes more than half of RLOO's variance away, with K = 2.

    20,000 draws; the standard error of the ratio is below .02.
    """
    rng, w = np.random.default_rng(0), np.array([1.0, -0.8, 0.6, 0.9, -1.2])
    logits, u = np.array([0.3, -1.0, 0.2, 0.5, 0.0]), rng.random((20_000, 2, 5))
    f = lambda b: 3 * anp.tanh(0.5 * (b @ w))
    rloo = M.rloo.gradient_samples(f, logits, u, u).var(axis=0).mean()
    ours = M.rodeo.gradient_samples(f, logits, u, u, estimator="double-cv").var(axis=0).mean()
    assert ours < 0.5 * rloo


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_float32_is_kept(monkeypatch, task, estimator):
    parts, options = {"estimator": estimator}, {"estimator": estimator, "samples": 3}
    proofs.float32_is_kept(M, monkeypatch, "rodeo", task, aux_options=parts, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.full((5, 1, 2), 0.5)}, "u: .* K ≥ 2"),
        ({"u": np.full((5, 2), 0.5)}, r"u: .* shape \(n, K, D = 2\), not \(5, 2\)"),
        ({"estimator": "stein"}, "estimator: choose from rodeo, double-cv"),
        ({"rho": [np.zeros((2, 3))]}, r"rho: has to be .*\[W1, b1, W2, b2\]"),
        ({"rho": [np.zeros((3, 3)), *[np.zeros(3)] * 3]}, "rho: .*inputs = 2"),
        ({"alpha": np.zeros(2)}, "alpha: has to be a finite number"),
        ({"beta": np.nan}, "beta: .*NaN"),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.full((5, 3, 2), 0.5)
    arguments = {"f": proofs.quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.rodeo.gradient_samples(**arguments)


def test_rows_that_are_no_images_are_refused():
    model, params, x = proofs.tiny_sbn(M)
    noise, aux = model.draw_noise(np.random.default_rng(0), 2), random_parts(M, model, "rodeo")
    for samples, message in ((1, "two or more"), (3, "2 rows are not images of 3 samples")):
        with pytest.raises(ValueError, match=message):
            M.rodeo.estimate(model, params, aux, x, noise, samples=samples)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run(tmp_path, estimator):
    """The bound rises, and α leaves 0."""
    flags = [*SMALL, "--steps", 60, "--samples", 3, "--layers", 2, "--estimator", estimator]
    code, _, err = run("rodeo", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])
    assert float(rows[-1]["alpha/1"]) != 0
    assert ("beta/0" in rows[0]) == (estimator == "rodeo")


def test_the_toy(tmp_path):
    code, _, err = run("rodeo", "--toy", "--steps", 60, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    assert {row["method"] for row in read_log(tmp_path / "toy")} == {"REINFORCE", "RLOO", "RODEO"}
    code, _, err = run("rodeo", "--samples", 1)
    assert code == 2
    assert "--samples: RODEO and Double CV need two or more" in err


cv, stein = (lambda m: is_exact(m, ["double-cv"])), (lambda m: is_exact(m, ["rodeo"]))
MUTATIONS = {
    "the slope of the sample itself": (cv, ("rodeo", "G_others = of_others(G)", "G_others = G")),
    "no payment for the correction": (cv, ("rodeo", "- alpha * G_others * theta * (1 - theta)",
                                           "+ 0 * G_others")),
    "payment with the wrong sign": (cv, ("rodeo", "- alpha * G_others * theta",
                                         "+ alpha * G_others * theta")),
    "b not centred in the correction": (cv, ("rodeo", "np.sum(G_others * (b - theta), axis=2)",
                                             "np.sum(G_others * b, axis=2)")),
    "the mean of all for that of the others": (
        cv,
        ("rodeo", "keepdims=True) - values) / (values.shape[1] - 1)",
         "keepdims=True)) / values.shape[1]"),
    ),
    "rates for the wrong value": (
        stein,
        ("rodeo", "np.where(b == 1, 1 - theta, theta)", "np.where(b == 0, 1 - theta, theta)"),
    ),
    "rates left out": (
        stein,
        ("rodeo", "np.sum(q[..., None] * (h_turned", "np.sum((h_turned"),
    ),
    "h at b left out": (
        stein,
        ("rodeo", "(h_turned - h[:, :, None])", "(h_turned - 0 * h[:, :, None])"),
    ),
    "the function of sample k sees sample k": (
        stein,
        ("rodeo", "for shift in range(1, K)", "for shift in range(K)"),
    ),
    "the turned bit not turned in (y − θ)": (
        stein,
        ("rodeo", "+ q * h_turned[..., 1] * (1 - 2 * b) / D", "+ 0 * h_turned[..., 1]"),
    ),
    "D forgotten for the turned bit": (
        lambda m: every_parameter(m, {"layers": 1}, "rodeo"),
        ("rodeo", "* (1 - 2 * b) / D", "* (1 - 2 * b)"),
    ),
    "the turned bit the wrong way": (
        is_the_table,
        ("rodeo", "+ G[:, j] * (1 - 2 * b)", "- G[:, j] * (1 - 2 * b)"),
    ),
    "direct derivative of f left out": (
        lambda m: every_parameter(m, {"layers": 1}, "double-cv"),
        ("rodeo", "(direct_k + g_k) / len(x)", "(0 * direct_k + g_k) / len(x)"),
    ),
    "the upper layer's logits for all": (
        lambda m: every_parameter(m, {"layers": 2, "hidden": 1}, "rodeo"),
        ("rodeo", "images(G_l), images(sigmoid(a_l))", "images(G_l), images(sigmoid(a[-1]))"),
    ),
    "mean square of every sample's g": (
        slopes_are_exact,
        ("rodeo", "[(np.sum(g_l, axis=1) / samples) ** 2 for g_l in g]",
         "[g_l**2 for g_l in g]"),
    ),
    "another slope of the leaky ReLU": (
        lambda m: slopes_are_exact(m, "rodeo"),
        ("rodeo", "np.where(h > 0, g, 0.3 * g)", "np.where(h > 0, g, 0.4 * g)"),
    ),
    "α of the wrong sign": (
        linear_f_has_no_noise,
        ("rodeo", "f_and_c = f + alpha", "f_and_c = f - alpha"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)
