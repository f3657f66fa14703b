"""NVIL: exact on one bit, on every parameter of tiny models, its averages, runs, and mutations."""

import itertools
import json

import numpy as np
import proofs
import pytest
from test_runs import SMALL, assert_same_run, read_log, run

M = proofs.load()
FLAGS = ("moving_average", "normalize", "layer_local")
OPTIONS = [{}, *({flag: True} for flag in FLAGS), dict.fromkeys(FLAGS, True)]

# ------------------------------------------------------------------------------------------ proofs


def trained(m, rng, model, layer_local=False):
    """aux away from its first values, with c ≠ 0 and √v = 2, 3, 4 from the lowest signal up."""
    aux = [np.array(a) for a in m.nvil.init_aux(rng, model, layer_local=layer_local)]
    aux = [a + 0.3 * rng.standard_normal(a.shape) for a in aux]
    aux[-1] = (2.0 + np.arange(len(aux[-1]))) ** 2
    return aux


def unscale(model, grads, aux):
    """The gradients with those of q multiplied by the s of their layer: --normalize undone."""
    s = np.maximum(1, np.sqrt(aux[-1]))
    return [
        g * s[min(int(name[1]), len(s) - 1)] if name.startswith("q") else g
        for name, g in zip(model.names, grads)
    ]


def is_exact(m):
    """The mean over u equals the enumerated gradient to 1e-12, for any constant baseline."""
    for f, logit, baseline in itertools.product(proofs.FUNCTIONS, proofs.LOGITS, (0.0, 0.7)):
        samples = lambda *args: m.nvil.gradient_samples(f, *args, baseline=baseline)
        mean, _ = proofs.mean_on_grid(samples, m, logit, 50)
        assert abs(mean - m.common.exact_gradient(f, [logit])[0]) < 1e-12


def batch_is_exact(m, **options):
    """A batch of three rows: the mean over all 8 outcomes is exact to 1e-12, or it over s.

    In so small a batch an average that includes the present step would show.
    """
    logits, model = np.array([0.7]), m.common.Toy(proofs.steep, 1)
    theta, aux = m.common.sigmoid(logits)[0], trained(m, np.random.default_rng(0), model)
    mean = 0.0
    for k in range(8):
        bits = (k >> np.arange(3)[:, None]) & 1
        u = np.where(bits == 1, 1 - theta / 2, (1 - theta) / 2)
        _, (g,), _ = m.nvil.estimate(model, [logits], aux, np.zeros((3, 0)), [(u, u)], **options)
        mean += np.prod(np.where(bits == 1, theta, 1 - theta)) * g
    s = 2 if "normalize" in options else 1
    np.testing.assert_allclose(mean * s, m.common.exact_gradient(proofs.steep, logits), atol=1e-12)


def is_unbiased(m, rng, options, blocks=100, rows=4000, undo=unscale, **model_options):
    """Every parameter; with --normalize, that of p as it is and that of q times its layer's s."""
    model, params, x = proofs.tiny_sbn(m, **model_options)
    aux = trained(m, rng, model, "layer_local" in options)

    def estimator(x, noise):
        _, grads, _ = m.nvil.estimate(model, params, aux, x, noise, **options)
        return undo(model, grads, aux) if "normalize" in options else grads

    return proofs.assert_unbiased(m, model, params, x, estimator, rng, blocks, rows)


def one_step(m, options, task="generate", seed=4):
    """A model, its two images three times each, noise for them, and aux: what `estimate` takes."""
    rng = np.random.default_rng(seed)
    model, params, x = proofs.tiny_sbn(m, task=task)
    aux = trained(m, rng, model, "layer_local" in options)
    x = np.repeat(x, 3, axis=0)
    return model, params, aux, x, model.draw_noise(rng, len(x))


def residuals(model, params, aux, x, noise, layer_local=False, **_):
    """l_i − C_i (signals, batch) of the tiny two-layer model, written out in plain numpy."""
    log_p = lambda b, a: np.sum(b * a - np.log(1 + np.exp(a)), axis=1)
    tanh_layer = lambda h, W1, b1, W2, b2: (np.tanh(h @ W1 + b1) @ W2 + b2)[:, 0]
    W_q0, b_q0, W_q1, b_q1, *p = params
    centred = x - model.mean
    a0 = centred[:, : model.context or None] @ W_q0 + b_q0
    b0 = (noise[0][0] > 1 / (1 + np.exp(a0))) * 1.0
    a1 = (2 * b0 - 1) @ W_q1 + b_q1
    b1 = (noise[1][0] > 1 / (1 + np.exp(a1))) * 1.0
    offset = np.log(model.mean / (1 - model.mean))[model.context :]
    if model.task == "predict":
        l0 = l1 = log_p(x[:, 2:], (2 * b1 - 1) @ p[0] + p[1] + offset)
    else:
        prior, W_p1, b_p1, W_p0, b_p0 = p
        l1 = log_p(b0, (2 * b1 - 1) @ W_p1 + b_p1) + log_p(b1, prior) - log_p(b1, a1)
        l0 = l1 + log_p(x, (2 * b0 - 1) @ W_p0 + b_p0 + offset) - log_p(b0, a0)
    if not layer_local:
        return np.array([l0 - tanh_layer(centred, *aux[:4])])
    return np.array([l0 - tanh_layer(centred, *aux[:4]), l1 - tanh_layer(2 * b0 - 1, *aux[4:8])])


def aux_gradient_is_exact(m, options, task="generate"):
    """d/dC of the mean over the batch of Σ_i signal_i², by central differences: 1e-7."""
    model, params, aux, x, noise = one_step(m, options, task)

    def objective(aux):
        signal = residuals(model, params, aux, x, noise, **options)
        if "moving_average" in options:
            signal = signal - aux[-2][:, None]
        return np.mean(np.sum(signal**2, axis=0))

    _, _, aux_grads = m.nvil.estimate(model, params, aux, x, noise, **options)
    for k, gradient in enumerate(aux_grads[:-2]):
        for index in list(np.ndindex(gradient.shape))[:: max(1, gradient.size // 8)]:
            moved = [[t.copy() for t in aux] for _ in range(2)]
            moved[0][k][index] += 1e-5
            moved[1][k][index] -= 1e-5
            difference = (objective(moved[0]) - objective(moved[1])) / 2e-5
            assert abs(difference - gradient[index]) < 1e-7 * max(1, abs(difference)), (k, index)


def averages_follow_the_recursion(m, options):
    """c and v after three steps, from 0: c ← .8 c + .2 mean, v ← .8 v + .2 variance of l − C."""
    model, params, aux, _, _ = one_step(m, options)
    aux[-2:] = np.zeros((2, len(aux[-1])))
    c = v = 0.0
    for seed in range(3):
        _, _, _, x, noise = one_step(m, options, seed=seed)
        _, _, aux_grads = m.nvil.estimate(model, params, aux, x, noise, **options)
        r = residuals(model, params, aux, x, noise, **options)
        mean = np.array([sum(r_i) / 6 for r_i in r])
        c = 0.8 * c + 0.2 * mean
        v = 0.8 * v + 0.2 * np.array([sum((r_i - m_i) ** 2) / 6 for r_i, m_i in zip(r, mean)])
        assert [type(g) for g in aux_grads[-2:]] == [m.common.Assign] * 2
        aux[-2:] = [g.value for g in aux_grads[-2:]]
        np.testing.assert_allclose(aux[-2:], [c, v], rtol=1e-10)


def averages_are_those_of_earlier_steps(m, options):
    """c acts as the same number in the bias of C, and s as a division of q's gradient: 1e-12.

    So whatever the present sample does to the averages, its own gradient knows nothing of it.
    """
    model, params, aux, x, noise = one_step(m, options)
    bound, grads, aux_grads = m.nvil.estimate(model, params, aux, x, noise, **options)
    if "normalize" in options:
        grads = unscale(model, grads, aux)
    if "moving_average" in options:
        for i, c_i in enumerate(aux[-2]):
            aux[4 * i + 3] = aux[4 * i + 3] + c_i
    plain = {"layer_local": True} if "layer_local" in options else {}
    other = m.nvil.estimate(model, params, aux, x, noise, **plain)
    np.testing.assert_array_equal(bound, other[0])
    for g, other_g in zip([*grads, *aux_grads[:-2]], [*other[1], *other[2][:-2]]):
        np.testing.assert_allclose(g, other_g, rtol=1e-10, atol=1e-12)


def first_averages_change_nothing(m):
    """With c = v = 0 the flags have no effect on a step; a v below 1 does not magnify it either."""
    model, params, aux, x, noise = one_step(m, {})
    for v in (0.9, 0.0):
        aux[-2:] = np.array([[0.0], [v]])
        flags = {"moving_average": True, "normalize": True}
        grads, plain = (
            m.nvil.estimate(model, params, aux, x, noise, **options)[1] for options in (flags, {})
        )
        for g, other in zip(grads, plain):
            np.testing.assert_array_equal(g, other)


# ---------------------------------------------------------------------------------------- no bias


def test_exact():
    is_exact(M)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_exact_in_a_small_batch(options):
    batch_is_exact(M, **options)


def check(result):
    """400,000 draws, false alarm 1e-6, detects 10 % of the largest gradient with prob. .99."""
    z, bias, scale = result
    print(f"|z| ≤ {z:.2f}, detects {bias:.4f}, largest gradient {scale:.3f}")
    assert bias < 0.1 * scale


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_unbiased(rng, options, task):
    check(is_unbiased(M, rng, options, task=task))


@pytest.mark.parametrize(
    "model",
    [{"layers": 1}, {"layers": 3, "hidden": 1}, {"nonlinear": True}],
    ids=str,
)
def test_unbiased_on_other_models(rng, model):
    check(is_unbiased(M, rng, dict.fromkeys(FLAGS, True), **model))


@pytest.mark.parametrize("task", ["generate", "predict"])
def test_normalized_is_not_the_gradient(rng, task):
    """Only q's gradient is divided by s, so as it stands it is not that of the bound."""
    with pytest.raises(AssertionError, match="biased"):
        is_unbiased(M, rng, {"normalize": True}, undo=lambda model, grads, aux: grads, task=task)


# ---------------------------------------------------------------------------- what it learns, keeps


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_aux_gradient(options, task):
    aux_gradient_is_exact(M, options, task)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_averages(options):
    averages_follow_the_recursion(M, options)
    averages_are_those_of_earlier_steps(M, options)


def test_first_averages():
    first_averages_change_nothing(M)


def test_terms_sum_to_the_bound_and_know_no_layer_above(rng):
    for task in ("generate", "predict"):
        model, params, x = proofs.tiny_sbn(M, layers=3, task=task)
        b, a = model.infer(params, x, lambda layer, a: M.common.hard_sample(a, rng.random(a.shape)))
        terms = model.bound_terms(params, x, b, a)
        np.testing.assert_allclose(sum(terms), model.bound(params, x, b, a), rtol=1e-14)
        for i in (0, 1):
            changed = [b_i if j <= i else 1 - b_i for j, b_i in enumerate(b)]
            other = model.bound_terms(params, x, changed, a)
            for j in range(i + 1):
                np.testing.assert_array_equal(terms[j], other[j])
            assert np.any(terms[-1] != other[-1])


# --------------------------------------------------------------------------------------- variance


@pytest.mark.parametrize("f", proofs.FUNCTIONS)
@pytest.mark.parametrize("logit", proofs.LOGITS)
def test_variance_of_one_bit(f, logit):
    """g = (f(b) − C)(b − θ) has variance θ (1 − θ) ((1 − θ)(f(1) − C) + θ (f(0) − C))².

    The best constant leaves none. C = E[f], which least squares finds, leaves some, no more than
    REINFORCE's here: it is not the C of least variance.
    """
    theta, (f_0, f_1) = 1 / (1 + np.exp(-logit)), f(np.array([[0.0], [1.0]]))
    best, mean_f = (1 - theta) * f_1 + theta * f_0, theta * f_1 + (1 - theta) * f_0
    samples = lambda *args, **options: M.nvil.gradient_samples(f, *args, **options)
    measured = []
    for C in (best, mean_f, 0.0):
        _, variance = proofs.mean_on_grid(samples, M, logit, 50, baseline=C)
        formula = theta * (1 - theta) * ((1 - theta) * (f_1 - C) + theta * (f_0 - C)) ** 2
        assert variance == pytest.approx(formula, rel=1e-9, abs=1e-14)
        measured.append(variance)
    samples = lambda *args: M.reinforce.gradient_samples(f, *args)
    _, reinforce = proofs.mean_on_grid(samples, M, logit, 50)
    assert measured[2] == pytest.approx(reinforce, rel=1e-9)
    assert measured[0] <= measured[1] < reinforce
    assert measured[0] < 1e-14


def test_best_constant_baseline_of_two_bits():
    """Var = A − 2 B C + D C²: NVIL at C = B / D beats REINFORCE, by the B² / D that it says."""
    u = np.random.default_rng(0).random((2000, 2))
    logits = np.array([0.4, -1.1])
    total = lambda C: np.sum(M.nvil.gradient_samples(proofs.steep, logits, u, u, baseline=C) ** 2)
    at_0, at_1, at_2 = map(total, (0.0, 1.0, 2.0))
    D = (at_0 - 2 * at_1 + at_2) / 2
    B = (at_0 + D - at_1) / 2
    assert total(B / D) == pytest.approx(at_0 - B**2 / D, rel=1e-9)
    assert total(B / D) < 0.5 * at_0
    plain = M.reinforce.gradient_samples(proofs.steep, logits, u, u)
    assert at_0 == pytest.approx(np.sum(plain**2), rel=1e-9)


# ----------------------------------------------------------------------------------------- float32


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float32_is_kept(monkeypatch, options, task, layers):
    aux_options = {"layer_local": "layer_local" in options}
    proofs.float32_is_kept(M, monkeypatch, "nvil", task, layers, aux_options, **options)


# -------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("task", ["generate", "predict"])
def test_a_resumed_run_is_the_whole_one(task, tmp_path):
    """With all flags, 20 + 15 steps against 35, the averages included."""
    flags = [*SMALL, "--layers", 2, "--task", task, "--moving-average", "--normalize"]
    flags += ["--layer-local", "--log-every", 5, "--eval-every", 20]
    for name, steps in (("whole", 35), ("parts", 20)):
        code, _, err = run("nvil", *flags, "--steps", steps, "--out", tmp_path / name)
        assert (code, err) == (0, "")
    assert run("nvil", "--resume", tmp_path / "parts", "--steps", 35)[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts", extended=True)
    with np.load(tmp_path / "whole" / "checkpoint.npz") as file:
        c, v = file["aux"][-4:].reshape(2, 2)
    assert np.all(c != 0)
    assert np.all(v > 0)
    row = read_log(tmp_path / "whole")[-1]
    logged = [f"signal_{what}/{i}" for what in ("mean", "sd") for i in (0, 1)]
    assert set(logged) <= row.keys()
    seen = M.nvil.report(None, [c, v])
    assert list(seen) == logged
    np.testing.assert_allclose(list(seen.values()), [*c, *np.sqrt(v)])
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["method"] == "nvil"


def test_less_variance_than_reinforce_without_a_baseline(tmp_path):
    """Six epochs, same seed: the variance is less than a third."""
    logs = {}
    for method, *flags in (("nvil",), ("reinforce", "--baseline", "none")):
        run(method, *flags, "--steps", 330, "--no-plots", "--out", tmp_path / method)
        logs[method] = float(read_log(tmp_path / method)[-1]["log_grad_variance"])
    print(logs)
    assert logs["nvil"] < logs["reinforce"] - np.log(3)


def test_toy(tmp_path):
    """C has become the constant E[f], and with it the variance is less than REINFORCE's."""
    code, out, err = run("nvil", "--toy", "--steps", 1200, "--out", tmp_path / "toy")
    assert (code, err) == (0, "")
    assert "NVIL" in out
    last = {row["method"]: row for row in read_log(tmp_path / "toy")}
    assert set(last) == {"REINFORCE", "NVIL"}
    exact = {name: float(row["exact_log_variance"]) for name, row in last.items()}
    assert exact["NVIL"] < exact["REINFORCE"] - 1


# --------------------------------------------------------------------------------------- mutations

ALL = dict.fromkeys(FLAGS, True)
unbiased = lambda m: is_unbiased(m, np.random.default_rng(0), {}, 100, 400)
local = lambda m: is_unbiased(m, np.random.default_rng(0), {"layer_local": True})
MUTATIONS = {
    "sign of the score": (
        is_exact,
        ("nvil", "surrogate + stop_gradient(signal)", "surrogate - stop_gradient(signal)"),
    ),
    "sign of the baseline": (
        lambda m: aux_gradient_is_exact(m, {}),
        ("nvil", "residual = l_i - C_i", "residual = l_i + C_i"),
    ),
    "C fitted without c": (
        lambda m: aux_gradient_is_exact(m, {"moving_average": True}),
        ("nvil", "squared_signals + signal**2", "squared_signals + residual**2"),
    ),
    "c that includes the present batch": (
        lambda m: batch_is_exact(m, moving_average=True),
        (
            "nvil",
            "signal = residual - c[i] if",
            "signal = residual - 0.8 * c[i] - 0.2 * np.sum(residual) / len(x) if",
        ),
    ),
    "v that includes the present batch": (
        lambda m: batch_is_exact(m, normalize=True),
        (
            "nvil",
            "stop_gradient(signal) / scale[i]",
            "stop_gradient(signal) / np.sqrt(0.8 * v[i] + 0.2 * np.var(stop_gradient(signal)))",
        ),
    ),
    "c of the lowest layer for all": (
        lambda m: averages_are_those_of_earlier_steps(m, ALL),
        ("nvil", "residual - c[i] if", "residual - c[0] if"),
    ),
    "s of the lowest layer for all": (
        lambda m: averages_are_those_of_earlier_steps(m, ALL),
        ("nvil", "/ scale[i]", "/ scale[0]"),
    ),
    "v where √v is meant": (
        lambda m: batch_is_exact(m, normalize=True),
        ("nvil", "np.maximum(1, np.sqrt(v))", "np.maximum(1, v)"),
    ),
    "a small v magnifies": (
        first_averages_change_nothing,
        ("nvil", "np.maximum(1, np.sqrt(v))", "np.sqrt(v)"),
    ),
    "s on p's gradient too": (
        lambda m: is_unbiased(m, np.random.default_rng(0), {"normalize": True}),
        ("nvil", "surrogate = surrogate + stop_gradient(signal) / scale[i] * log_q[i]",
         "surrogate = (surrogate + stop_gradient(signal) * log_q[i]) / scale[i]"),
    ),
    "averages that forget at once": (
        lambda m: averages_follow_the_recursion(m, ALL),
        ("nvil", "DECAY = 0.8", "DECAY = 0.2"),
    ),
    "v about 0 instead of the mean": (
        lambda m: averages_follow_the_recursion(m, {}),
        ("nvil", "np.var(residuals, axis=1)", "np.mean(residuals**2, axis=1)"),
    ),
    "[B, 1] baseline against [B]": (
        unbiased,
        ("nvil", "inputs[i])[:, 0]", "inputs[i])[:, :1]"),
    ),
    "[B, 1] baseline against [B], on one bit": (
        batch_is_exact,
        ("nvil", "inputs[i])[:, 0]", "inputs[i])[:, :1]"),
    ),
    "layer-local signal without its own layer's term": (
        local,
        ("nvil", "sum(stop_gradient(terms[i:]))", "sum(stop_gradient(terms[i + 1 :]))"),
    ),
    "layer-local signal without the layers above": (
        local,
        ("nvil", "sum(stop_gradient(terms[i:]))", "stop_gradient(terms[i])"),
    ),
    "prior credited to the lowest layer": (
        local,
        ("models", "log_p[-1] = log_p[-1] + prior", "log_p[0] = log_p[0] + prior"),
    ),
    "predicted half credited to the lowest layer": (
        lambda m: is_unbiased(m, np.random.default_rng(0), {"layer_local": True}, task="predict"),
        ("models", "[0.0] * (len(b) - 1) + [log_p]", "[log_p] + [0.0] * (len(b) - 1)"),
    ),
    "layer baseline that sees its own bits": (
        local,
        ("nvil", "for b_i in b[:-1])", "for b_i in b[1:])"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)


def test_the_same_proofs_accept_the_unmutated_code():
    for proof in {proof for proof, _ in MUTATIONS.values()}:
        proof(M)
