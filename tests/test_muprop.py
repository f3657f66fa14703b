"""MuProp and SimpleMuProp: exact on one bit, on every parameter of tiny models, and mutations."""

import numpy as np
import proofs
import pytest
from test_runs import read_log, run

M = proofs.load()

# ------------------------------------------------------------------------------------------ proofs


def is_exact(m, simple=False):
    """Mean over u equals the enumerated gradient to 1e-12, for any scales and baseline."""
    scales = {"s0": 0.7, "simple": True} if simple else {"s0": 0.7, "s1": 1.3}
    for f in proofs.FUNCTIONS:
        for logit in proofs.LOGITS:
            samples = lambda *args: m.muprop.gradient_samples(f, *args, baseline=0.2, **scales)
            mean, _ = proofs.mean_on_grid(samples, m, logit, 50)
            assert abs(mean - m.common.exact_gradient(f, [logit])[0]) < 1e-12


def is_unbiased(m, rng, simple=False, blocks=100, rows=4000, **model_options):
    """Every parameter, with scales and baselines away from their first values."""
    model, params, x = proofs.tiny_sbn(m, **model_options)
    aux = [np.array(a) for a in m.muprop.init_aux(rng, model, simple=simple)]
    aux = [a + 0.3 * rng.standard_normal(a.shape) for a in aux]
    aux[-1] += 2 * (-1.0) ** np.arange(len(aux[-1]))[:, None]  # s1 far apart from layer to layer
    estimator = lambda x, noise: m.muprop.estimate(model, params, aux, x, noise, simple=simple)[1]
    return proofs.assert_unbiased(m, model, params, x, estimator, rng, blocks, rows)


def derivative_is_total(m, layers=3):
    """D_i against central differences of f_mf, in which a shift of μ_i moves the layers above."""
    model, params, x = proofs.tiny_sbn(m, layers=layers)
    _, _, D = m.muprop.mean_field(model, params, x)

    def f_mf(layer, unit, step):
        def sample(i, a):
            mean = 1 / (1 + np.exp(-a))
            return mean + step * (np.arange(2) == unit) if i == layer else mean

        activations, logits = model.infer(params, x, sample)
        return model.bound(params, x, activations, logits)

    for layer in range(layers):
        for unit in range(2):
            ends = [f_mf(layer, unit, step) for step in (1e-5, -1e-5)]
            difference = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(D[layer][:, unit], difference, atol=1e-8)


def aux_gradient_is_exact(m, simple=False):
    """d/daux of the mean of Σ_i signal_i² (of the one signal, if `simple`), written out here, by
    central differences: 1e-7."""
    rng = np.random.default_rng(4)
    model, params, x = proofs.tiny_sbn(m)
    aux = [np.array(a) + 0.2 for a in m.muprop.init_aux(rng, model, simple=simple)]
    x = np.repeat(x, 3, axis=0)
    noise = model.draw_noise(rng, len(x))
    f_mf, mu, D = m.muprop.mean_field(model, params, x)
    b, a = model.infer(params, x, lambda layer, a: m.common.hard_sample(a, noise[layer][0]))
    f_b = model.bound(params, x, b, a)

    def objective(aux):
        total, sigmoid = 0.0, lambda w: 1 / (1 + np.exp(-w))
        for i in range(1 if simple else len(b)):
            net = aux[4 * i : 4 * i + 4]
            C = (np.tanh((x - model.mean) @ net[0] + net[1]) @ net[2] + net[3])[:, 0]
            s0, s1 = (2 * sigmoid(w[i, 0]) for w in aux[-2:])
            linear = 0 if simple else np.sum(D[i] * (b[i] - mu[i]), axis=1)
            total += np.mean((f_b - s0 * f_mf - s1 * linear - C) ** 2)
        return total

    _, _, aux_grads = m.muprop.estimate(model, params, aux, x, noise, simple=simple)
    for k, (tensor, gradient) in enumerate(zip(aux, aux_grads)):
        for index in list(np.ndindex(tensor.shape))[:8]:
            moved = [[t.copy() for t in aux] for _ in range(2)]
            moved[0][k][index] += 1e-5
            moved[1][k][index] -= 1e-5
            difference = (objective(moved[0]) - objective(moved[1])) / 2e-5
            assert abs(difference - gradient[index]) < 1e-7 * max(1, abs(difference)), (k, index)


# ------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("simple", [False, True])
def test_exact(simple):
    is_exact(M, simple=simple)


@pytest.mark.parametrize("simple", [False, True])
@pytest.mark.parametrize(
    "model",
    [{}, {"task": "predict"}, {"layers": 3, "hidden": 1}, {"nonlinear": True}, {"layers": 1}],
    ids=str,
)
def test_unbiased(rng, model, simple):
    """400,000 draws, false alarm 1e-6, detects 10 % of the largest gradient with prob. .99."""
    z, bias, scale = is_unbiased(M, rng, simple, **model)
    print(f"|z| ≤ {z:.2f}, detects {bias:.4f}, largest gradient {scale:.3f}")
    assert bias < 0.1 * scale


def test_total_derivative():
    derivative_is_total(M)


@pytest.mark.parametrize("simple", [False, True])
def test_aux_gradient(simple):
    aux_gradient_is_exact(M, simple)


def test_linear_function_has_no_variance():
    """For f linear in b and full scales the Taylor expansion is f itself."""
    weights = np.array([1.0, -2.0, 0.5])
    u = np.random.default_rng(0).random((200, 3))
    logits = np.array([0.3, -1.0, 2.0])
    g = M.muprop.gradient_samples(lambda b: b @ weights, logits, u, u)
    exact = M.common.exact_gradient(lambda b: b @ weights, logits)
    np.testing.assert_allclose(g, np.tile(exact, (200, 1)), atol=1e-12)


@pytest.mark.parametrize("f", proofs.FUNCTIONS)
@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_the_right_scale_leaves_no_variance_for_one_bit(f, logit):
    """One bit makes any f linear: s1 = (f(1) − f(0)) / D and C so that signal(0) = 0.

    With s1 = 1 the expansion can be worse than none: for the quadratic it is, at every logit.
    """
    logits, mu = np.array([logit]), 1 / (1 + np.exp(-logit))
    (D,) = M.muprop.mean_field(M.common.Toy(f, 1), [logits], np.zeros((1, 0)))[2]
    f_0, f_1 = f(np.array([[0.0], [1.0]]))
    s1 = (f_1 - f_0) / D[0, 0]
    options = {"s0": 0.0, "s1": s1, "baseline": f_0 + s1 * D[0, 0] * mu}
    samples = lambda *args: M.muprop.gradient_samples(f, *args, **options)
    mean, variance = proofs.mean_on_grid(samples, M, logit, 50)
    assert mean == pytest.approx(M.common.exact_gradient(f, logits)[0], rel=1e-9)
    assert abs(variance) < 1e-12
    reinforce = lambda *args: M.reinforce.gradient_samples(f, *args)
    unscaled = lambda *args: M.muprop.gradient_samples(f, *args)
    if f is proofs.quadratic:
        _, without = proofs.mean_on_grid(reinforce, M, logit, 50)
        assert proofs.mean_on_grid(unscaled, M, logit, 50)[1] > without


def test_simple_is_reinforce_with_the_mean_field_baseline():
    logits, u = np.array([0.3, -1.0]), np.random.default_rng(0).random((50, 2))
    ours = M.muprop.gradient_samples(proofs.steep, logits, u, u, s0=0.8, simple=True)
    value = 0.8 * proofs.steep(1 / (1 + np.exp(-logits[None])))
    shifted = lambda b: proofs.steep(b) - value
    np.testing.assert_allclose(ours, M.reinforce.gradient_samples(shifted, logits, u, u), 1e-10)


@pytest.mark.parametrize("simple", [False, True])
def test_float32_is_kept(monkeypatch, simple):
    proofs.float32_is_kept(M, monkeypatch, "muprop", aux_options={"simple": simple}, simple=simple)


@pytest.mark.parametrize(("flags", "label"), [([], "MuProp"), (["--simple"], "SimpleMuProp")])
def test_toy(flags, label, tmp_path):
    """Beside REINFORCE, and with less variance, exact at the learned scales, after 1,200 steps."""
    code, _, err = run("muprop", "--toy", *flags, "--steps", 1200, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    last = {row["method"]: float(row["exact_log_variance"]) for row in read_log(tmp_path / "toy")}
    assert last[label] < last["REINFORCE"] - 1


unbiased = lambda m: is_unbiased(m, np.random.default_rng(0))
MUTATIONS = {
    "partial derivative instead of the total": (
        derivative_is_total,
        (
            "lambda layer, a_i: sigmoid(a_i) + shifts[layer])",
            "lambda layer, a_i: stop_gradient(sigmoid(a_i)) + shifts[layer])",
        ),
    ),
    "correction term forgotten": (
        is_exact,
        ("            if not simple:", "            if simple:"),
    ),
    "correction without its scale": (
        is_exact,
        ("s1[layer] * np.sum(D[layer] * sigmoid(a_i)", "np.sum(D[layer] * sigmoid(a_i)"),
    ),
    "probability where a logit is meant": (is_exact, ("D[layer] * sigmoid(a_i)", "D[layer] * a_i")),
    "the scales of the lowest layer for all": (
        unbiased,
        ("total + s1[layer] *", "total + s1[0] *"),
    ),
    "D of the lowest layer for all": (unbiased, ("np.sum(D[layer] *", "np.sum(D[0] *")),
    "baseline that sees its own sample": (
        is_exact,
        ("return f_b - s0 * f_mf", "return 0.5 * f_b - s0 * f_mf"),
    ),
    "signal of the wrong sign": (
        aux_gradient_is_exact,
        ("- s1 * linear - baseline", "+ s1 * linear - baseline"),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([("muprop", old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
