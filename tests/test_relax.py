"""RELAX and LAX: unbiased by quadrature and on every parameter, with random networks; mutations."""

import itertools
import math

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from autograd.tracer import isbox
from scipy.special import ndtri
from test_runs import SMALL, read_log, run

M = proofs.load()
NOISE = ("coupled", "independent")

# ------------------------------------------------------------------------------------------ proofs


def random_net(rng, sizes):
    """[W1, b1, W2, b2] from standard normals."""
    inputs, hidden = sizes
    shapes = (inputs, hidden), (hidden,), (hidden, 1), (1,)
    return [rng.standard_normal(shape) for shape in shapes]


def smooth(n):
    t = (np.arange(n) + 0.5) / n
    return t - np.sin(2 * np.pi * t) / (2 * np.pi), (1 - np.cos(2 * np.pi * t)) / n


def nodes(m, logit, n_v=1, n=64):
    """Midpoints u, v (n, 1) and weights, split at the jump of b, dense where logit(u) is steep.

    The substitution t − sin(2πt)/2π is flat at both ends of each part, where z may be infinite.
    """
    (u, w), (v, w_v) = smooth(n), smooth(n_v) if n_v > 1 else (np.array([0.5]), np.ones(1))
    jump = 1 / (1 + np.exp(logit))
    u, w = np.append(jump * u, jump + (1 - jump) * u), np.append(jump * w, (1 - jump) * w)
    u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(u, v, indexing="ij"))
    return u, v, np.outer(w, w_v).reshape(-1)


def moments(m, f, logit, noise, n=64, **options):
    """Mean and variance of RELAX's gradient for one bit."""
    u, v, weights = nodes(m, logit, n if noise == "independent" else 1, n)
    g = m.relax.gradient_samples(f, np.array([logit]), u, v, conditional=noise, **options)[:, 0]
    mean = weights @ g
    return mean, weights @ g**2 - mean**2


def is_exact(m, noises=NOISE, black_boxes=(False, True)):
    """The mean over the noise is the enumerated gradient, 1e-6, whatever r, T and η are."""
    rng = np.random.default_rng(0)
    for f, logit, noise, black_box in itertools.product(
        proofs.FUNCTIONS, proofs.LOGITS, noises, black_boxes
    ):
        rho, exact = random_net(rng, (1, 5)), m.common.exact_gradient(f, [logit])[0]
        options = {"rho": rho, "temperature": rng.uniform(0.3, 1.5), "eta": rng.normal()}
        options = {"rho": rho, "black_box": True} if black_box else options
        mean, _ = moments(m, f, logit, noise, **options)
        assert abs(mean - exact) < 1e-6, (f.__name__, logit, noise, black_box, mean - exact)


def random_parts(m, model, rng, black_box):
    """T, η and r, all random, as an `aux` that training might reach."""
    aux = m.relax.init_aux(rng, model, 0.4, black_box, hidden=5)
    aux = [np.asarray(a) + 0.3 * rng.standard_normal(np.shape(a)) for a in aux]
    return [np.array(a) for a in aux], m.relax.learned(aux, black_box)


def every_parameter(m, options, noise="coupled", black_box=False, rows=2000, seed=0):
    """The mean of 100 × `rows` draws against the enumerated gradient of every parameter.

    A z-test at 1e-6 for the whole model: (largest |t|, smallest detectable bias, scale).
    """
    rng = np.random.default_rng(seed)
    model, params, x = proofs.tiny_sbn(m, **options)
    _, parts = random_parts(m, model, rng, black_box)
    estimator = lambda x, uv: m.relax.relax(model, params, x, uv, *parts, conditional=noise)[1]
    return proofs.assert_unbiased(m, model, params, x, estimator, rng, rows=rows)


def one_pass_is_plain(m):
    """One evaluation of c gives the gradients of the plain form, for every parameter: 1e-12."""
    for layers, black_box in itertools.product((1, 2, 3), (False, True)):
        rng = np.random.default_rng(3)
        model, params, x = proofs.tiny_sbn(m, layers=layers)
        _, parts = random_parts(m, model, rng, black_box)
        noise = model.draw_noise(rng, len(x))
        found = []
        for form in (m.relax.surrogate, m.relax.surrogate_in_one_pass):

            def total(params, form=form):
                total, f_b = form(model, params, x, noise, *parts)
                return [anp.sum(total)], f_b

            found.append(m.common.gradients(total, params)[0][0])
        for name, plain, fast in zip(model.names, *found):
            np.testing.assert_allclose(fast, plain, rtol=1e-11, atol=1e-12, err_msg=name)


def slopes_are_exact(m, noise="coupled", black_box=False):
    """The gradients for T, η and ρ against central differences of the mean square: 1e-7."""
    rng = np.random.default_rng(2)
    model, params, x = proofs.tiny_sbn(m)
    aux, _ = random_parts(m, model, rng, black_box)
    x = np.repeat(x, 3, axis=0)
    uv = model.draw_noise(rng, len(x))
    estimate = lambda aux: m.relax.estimate(
        model, params, aux, x, uv, black_box=black_box, conditional=noise
    )
    mean_square = lambda aux: np.mean(np.concatenate([g.ravel() for g in estimate(aux)[1]]) ** 2)
    for k, gradient in enumerate(estimate(aux)[2]):
        assert np.abs(gradient).max() > 1e-9, k
        for index in list(np.ndindex(np.shape(aux[k])))[:12]:
            values = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in aux]
                moved[k][index] += step
                values.append(mean_square(moved))
            difference = (values[0] - values[1]) / 2e-5
            assert abs(difference - gradient[index]) < 1e-7 * max(1, abs(difference)), (k, index)


def lax_is_exact(m):
    """A Gaussian, f = 1[z > .4] + sin z, a random c: d/d(mean, log sd) by quadrature: 1e-6."""
    mean, log_sd, jump = 0.3, -0.4, 0.4
    p, rng = (jump - mean) / np.exp(log_sd), np.random.default_rng(0)
    f = lambda z: (z > jump) + np.sin(z)
    W1, b1, W2, b2 = random_net(rng, (1, 4))
    c = lambda z: anp.tanh(anp.reshape(z, (-1, 1)) @ W1 + b1) @ W2[:, 0] + b2[0]
    below, (s, w) = 0.5 * (1 + math.erf(p / np.sqrt(2))), smooth(1000)
    u, w = np.append(below * s, below + (1 - below) * s), np.append(below * w, (1 - below) * w)
    mean_g = w @ m.relax.lax_samples(f, c, mean, log_sd, ndtri(u))
    sd, density = np.exp(log_sd), np.exp(-(p**2) / 2) / np.sqrt(2 * np.pi)
    damped = np.exp(-(sd**2) / 2)  # E sin z = sin(mean) damped
    exact = [density / sd + np.cos(mean) * damped, density * p - sd**2 * np.sin(mean) * damped]
    assert np.abs(mean_g - exact).max() < 1e-6


# ------------------------------------------------------------------------------------------- tests


def test_exact():
    is_exact(M)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("black_box", [False, True])
@pytest.mark.parametrize("model", proofs.TINY, ids=str)
def test_every_parameter(model, black_box, noise):
    """False alarm 1e-6 each. The smallest detectable bias is below a tenth of the gradient's
    largest element."""
    t, bias, scale = every_parameter(M, model, noise, black_box, rows=1000)
    print(f"largest |t| {t:.1f}, detectable bias {bias:.4f}, gradient {scale:.3f}")
    assert bias < 0.1 * scale


def test_one_pass():
    one_pass_is_plain(M)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("black_box", [False, True])
def test_slopes_of_the_mean_square(noise, black_box):
    slopes_are_exact(M, noise, black_box)


def test_lax():
    lax_is_exact(M)


@pytest.mark.parametrize("noise", NOISE)
def test_without_a_network_it_is_rebar(noise, rng):
    """r = 0: sample by sample REBAR with σ(z/T), C = 0 and the same η."""
    logits, (u, v) = np.array([0.4, -1.0]), rng.uniform(0.01, 0.99, (2, 50, 2))
    options = {"temperature": 0.3, "eta": 0.7, "conditional": noise}
    ours = M.relax.gradient_samples(proofs.product, logits, u, v, **options)
    rebar = M.rebar.gradient_samples(proofs.product, logits, u, v, relaxation="concrete", **options)
    np.testing.assert_allclose(ours, rebar, rtol=1e-12, atol=1e-13)


def test_it_starts_as_rebar_on_three_layers(rng):
    model, params, x = proofs.tiny_sbn(M, layers=3)
    noise, aux = model.draw_noise(rng, len(x)), M.relax.init_aux(rng, model, 0.4)
    f_b, grads, _ = M.relax.estimate(model, params, aux, x, noise)
    args = model, params, x, noise, 0.4, 1.0, 0.0
    bound, rebar = M.rebar.rebar(*args, relaxation="concrete")
    np.testing.assert_array_equal(f_b, bound)
    for name, g, h in zip(model.names, grads, rebar):
        np.testing.assert_allclose(g, h, rtol=1e-11, atol=1e-12, err_msg=name)


def test_a_black_box_is_never_differentiated(rng):
    """f sees bits, outside any trace; it may jump, be written in plain numpy, and count calls."""
    calls = []

    def f(b):
        assert not isbox(b)
        assert set(np.unique(b)) <= {0.0, 1.0}
        calls.append(len(b))
        return np.where(b.sum(axis=1) > 1, 3.0, np.round(b[:, 0] * 0.7))

    logits, rho = np.array([0.4, -1.0]), random_net(rng, (2, 4))
    u, v = rng.uniform(0.01, 0.99, (2, 30, 2))
    g = M.relax.gradient_samples(f, logits, u, v, rho=rho, black_box=True)
    assert calls == [30]
    assert np.abs(g).max() > 0


def test_a_good_network_takes_the_noise_away():
    """One bit, f = (b − .499)²: r fitted on the mean square leaves < 1 % of REBAR's variance."""
    logit, u, v, w = 0.3, *nodes(M, 0.3)
    f = lambda b: anp.sum((b - 0.499) ** 2, axis=-1)
    model, x = M.common.Toy(f, 1), np.zeros((len(u), 0))
    aux = M.relax.init_aux(np.random.default_rng(0), model, hidden=8)

    # weights of the quadrature as copies of a row would do: the rule is uniform in the index
    def second_moment(aux):
        args = model, [np.full((len(u), 1), logit)], x, [(u, v)]
        _, (g,) = M.relax.relax(*args, *M.relax.learned(aux))
        return [anp.sum(w * (len(u) * g[:, 0]) ** 2)], []

    exact = M.common.exact_gradient(f, [logit])[0]
    first = second_moment(aux)[0][0] - exact**2
    flat, parts = M.optimizer.flatten(aux, np.float64)
    adam = M.optimizer.Adam(flat.size, -0.01, dtype=np.float64)
    for _ in range(1500):
        (grads,), _ = M.common.gradients(second_moment, parts)
        adam.ascend(flat, M.optimizer.flatten(grads, np.float64)[0])
    assert second_moment(parts)[0][0] - exact**2 < 0.01 * first


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("black_box", [False, True])
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_float32_is_kept(monkeypatch, task, black_box, noise):
    options = {"black_box": black_box, "conditional": noise}
    parts = {"black_box": black_box}
    proofs.float32_is_kept(M, monkeypatch, "relax", task, aux_options=parts, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.full((5, 3), 0.5)}, r"u: .* shape \(n, D = 2\)"),
        ({"conditional": "own"}, "conditional: choose from coupled, independent"),
        ({"temperature": 0.0}, "temperature: "),
        ({"rho": [np.zeros((2, 3))]}, r"rho: has to be .*\[W1, b1, W2, b2\]"),
        (
            {"rho": [np.zeros((1, 3)), np.zeros(3), np.zeros((3, 1)), np.zeros(1)]},
            "rho: .*inputs = 2",
        ),
        (
            {"rho": [np.zeros((2, 3)), np.zeros(3), np.zeros((3, 2)), np.zeros(1)]},
            "rho: .*outputs = 1",
        ),
        ({"f": lambda b: anp.sum(anp.round(b), axis=1)}, "f: "),
    ],
)
def test_nonsense_is_refused(change, message):
    u = np.random.default_rng(0).uniform(0.1, 0.9, (5, 2))
    arguments = {"f": proofs.quadratic, "logits": np.zeros(2), "u": u, "v": u} | change
    with pytest.raises(ValueError, match=message):
        M.relax.gradient_samples(**arguments)


@pytest.mark.parametrize("flags", [(), ("--black-box",), ("--noise", "independent")])
def test_a_run(tmp_path, flags):
    flags = [*SMALL, "--steps", 60, "--layers", 2, *flags]
    code, _, err = run("relax", *flags, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = read_log(tmp_path / "run")
    assert float(rows[-1]["train_bound"]) > float(rows[0]["train_bound"])
    assert ("temperature" in rows[0]) == ("--black-box" not in flags)


SLOPE = "1 - slope_of_z_tilde(z, fixed[l])"
SCORE = "stop_gradient(f_b - c_z) * bernoulli_log_prob(b_l, a_l) + c_z"
coupled = lambda m: is_exact(m, ["coupled"])
independent = lambda m: is_exact(m, ["independent"])
two_layers = lambda m: every_parameter(m, {"layers": 2})
MUTATIONS = {
    "z̃ detached": (coupled, ("relax", SLOPE, "1 + 0 * z")),
    "dz̃/da = 1": (coupled, ("relax", SLOPE, "0 * z")),
    "dz̃/da with the wrong sign": (coupled, ("relax", SLOPE, "1 + slope_of_z_tilde(z, fixed[l])")),
    "z̃ detached, independent noise": (
        independent,
        ("relax", "c([*below, a_l], z_tilde)", "c([*below, a_l], stop_gradient(z_tilde))"),
    ),
    "the signal leaks into the logits": (
        coupled,
        ("relax", SCORE, SCORE.replace("stop_gradient(f_b - c_z)", "(f_b - c_z)")),
    ),
    "the signal leaks into the logits, independent noise": (
        independent,
        ("relax", "signal = stop_gradient(f_b - c_z_tilde)", "signal = f_b - c_z_tilde"),
    ),
    "c(z̃) with the other sign": (
        independent,
        ("relax", "+ c_z - c_z_tilde", "+ c_z + c_z_tilde"),
    ),
    "r sees the bits of its own layer": (coupled, ("relax", "*b[:l], z], axis=1)",
                                                   "*b[:l], z + b[l]], axis=1)")),
    "∇c(z) left out": (coupled, ("relax", SCORE, SCORE.removesuffix(" + c_z"))),
    "direct derivative of f left out": (
        two_layers,
        (
            "relax",
            "total = f_b\n    for l, (a_l, b_l, (u, _))",
            "total = stop_gradient(f_b)\n    for l, (a_l, b_l, (u, _))",
        ),
    ),
    "score of the lowest layer for all": (
        two_layers,
        ("relax", SCORE, SCORE.replace("(b_l, a_l)", "(b[0], a[0])")),
    ),
    "layers below move with the layer's z": (
        one_pass_is_plain,
        ("relax", "fixed = stop_gradient(a[: l + 1])", "fixed = [*a[:l], stop_gradient(a[l])]"),
    ),
    "sum of squares for their mean": (
        slopes_are_exact,
        ("relax", "for g in grads) / size]", "for g in grads)]"),
    ),
    "T learned as log T": (
        slopes_are_exact,
        ("relax", "return np.exp(log_temperature), eta", "return np.exp(stop_gradient("
         "log_temperature)), eta"),
    ),
    "LAX without ∇c": (lax_is_exact, ("relax", "slope[:, None] * path", "0 * path")),
    "LAX: score of the sd": (lax_is_exact, ("relax", "eps**2 - 1]", "eps**2]")),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, mutation = MUTATIONS[name]
    mutated = proofs.load([mutation])
    with pytest.raises(AssertionError):
        proof(mutated)
