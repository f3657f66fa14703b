"""Gumbel-Softmax: its distribution, which of its estimators are unbiased and which are not, the
model's bounds, runs, and mutations.

One variable of three classes is integrated exactly, by `quadrature`, which is itself proved first.
Monte Carlo tests say what they can detect; their false-alarm rate is proofs.FALSE_ALARM each.
"""

import csv
import itertools
import json
import math

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from autograd import grad, jacobian
from autograd.tracer import getval
from scipy import stats
from scipy.special import logsumexp, softmax

M = proofs.load()
LOGITS = np.array([[-0.5, 0.4, 1.0]])  # one variable of three classes
PI = softmax(LOGITS[0])
TEMPERATURES = (0.1, 0.5, 1.0, 3.0)


def quadratic(h):
    return anp.sum((h - np.array([0.1, 0.6, 0.3])) ** 2, axis=(-2, -1))


def steep(h):
    return anp.exp(anp.sum(h * np.array([2.0, 0.0, -1.0]), axis=(-2, -1)))


FUNCTIONS = (quadratic, steep)


def mean_and_variance(m, f, **options):
    """Of the gradient samples of one variable, by quadrature: (3,) each."""
    u, weights = m.categorical.quadrature(LOGITS)
    g = m.gumbel_softmax.gradient_samples(f, LOGITS, u, u, **options)[:, 0]
    mean = weights @ g
    return mean, weights @ g**2 - mean**2


def exact(f):
    """π_k (f_k − Σ π f), the derivative of Σ π_k f_k."""
    values = f(np.eye(3)[:, None])
    return PI * (values - PI @ values)


# ------------------------------------------------------------------------- proofs: the distribution


def density_integrates_to_one(m):
    """Over the log-ratios y_k − y_K, K = 2 and 3, any T: 1e-8; for K = 1 it is 1."""
    for T in TEMPERATURES:
        r = np.arange(-45, 45, 0.25) / T
        for a in (np.array([0.7, -1.2]), np.array([-0.5, 1.4, 0.3])):
            K = len(a)
            grid = np.stack([*np.meshgrid(*[r] * (K - 1)), np.zeros([len(r)] * (K - 1))], axis=-1)
            p = np.exp(m.gumbel_softmax.log_density(M.gumbel_softmax.log_softmax(grid), a, T))
            assert abs(p.sum() * (r[1] - r[0]) ** (K - 1) - 1) < 1e-8, (K, T)
        assert m.gumbel_softmax.log_density(np.zeros(1), np.array([3.0]), T) == pytest.approx(0)


def density_is_the_derivative_of_the_cdf(m):
    """In all K − 1 log-ratios, for K = 2, 3, 4 and any T, to 1e-9 of it."""
    rng = np.random.default_rng(0)
    for K, T in itertools.product((2, 3, 4), TEMPERATURES):
        for _ in range(5):
            a, y = rng.standard_normal(K), rng.standard_normal(K) / T
            slope = lambda y: m.categorical.cdf(y, a, T)
            for k in range(K - 1):
                slope = lambda y, k=k, inner=slope: grad(inner)(y)[k]
            log_p = m.gumbel_softmax.log_density(M.gumbel_softmax.log_softmax(y), a, T)
            assert slope(y) == pytest.approx(math.exp(log_p), rel=1e-9), (K, T)


def sampler_follows_the_cdf(m):
    """P(Y_k − Y_K ≤ c_k for all k): 100,000 draws, for nine c each, K = 1, 2, 3, 5 and any T.

    A binomial z-test of every share; with probability .99 it detects one that is .013 off.
    """
    rng, n, regions = np.random.default_rng(1), 100_000, 9
    threshold = stats.norm.isf(proofs.FALSE_ALARM / (2 * 4 * len(TEMPERATURES) * regions))
    for K, T in itertools.product((1, 2, 3, 5), TEMPERATURES):
        a = rng.standard_normal(K)
        y = m.gumbel_softmax.sample(a, rng.uniform(1e-12, 1, (n, K)), T)
        np.testing.assert_allclose(np.exp(y).sum(axis=1), 1, rtol=1e-12)
        for _ in range(regions):
            c = rng.standard_normal(K) / T
            share = np.mean(np.all(y - y[:, -1:] <= c - c[-1], axis=1))
            p = M.categorical.cdf(c, a, T)
            error = math.sqrt(max(p * (1 - p), 1e-12) / n)
            assert abs(share - p) <= threshold * error, (K, T, share, p)


def quadrature_is_exact(m):
    """Shares of the classes, mean and variance π²/3 of the differences of the Gumbel noise."""
    u, weights = m.categorical.quadrature(LOGITS)
    np.testing.assert_allclose(
        weights @ m.gumbel_softmax.hard_sample(LOGITS, u)[:, 0], PI, atol=1e-9
    )
    G = -np.log(-np.log(u))[:, 0]
    np.testing.assert_allclose(weights @ (G - G[:, :1]), 0, atol=1e-8)
    np.testing.assert_allclose(weights @ (G - G[:, :1])[:, 1:] ** 2, math.pi**2 / 3, rtol=1e-6)


def two_classes_are_the_binary_case(m):
    """Samples, densities and estimates of C = 2 are those of concrete.py for a_0 − a_1: 1e-10."""
    rng = np.random.default_rng(0)
    a, u = rng.standard_normal(2), rng.uniform(0.01, 0.99, (100, 1, 2))
    G = -np.log(-np.log(u))
    one = 1 / (1 + np.exp(G[..., 1] - G[..., 0]))  # the uniform of the bit: logit is G_0 − G_1
    difference = a[:1] - a[1:]
    f = lambda h: anp.exp(1.5 * h[:, 0]) - 2 * h[:, 0]
    f_classes = lambda h: f(h[..., 0])
    for T in TEMPERATURES:
        y, bit = m.gumbel_softmax.sample(a, u, T), m.concrete.sample(difference, one, T)
        np.testing.assert_allclose(y[..., 0] - y[..., 1], bit, rtol=1e-10)
        np.testing.assert_allclose(
            m.gumbel_softmax.log_density(y, a, T),
            m.concrete.log_density(bit, difference, T)[:, 0:1], rtol=1e-10,
        )  # fmt: skip
        np.testing.assert_allclose(
            m.categorical.cdf(y, a, T), m.concrete.cdf(bit, difference, T), rtol=1e-9
        )
        for ours, theirs in (
            ({"temperature": T},
             lambda: m.concrete.gradient_samples(f, difference, one, one, temperature=T)),
            ({"temperature": T, "straight_through": True}, lambda: m.concrete.gradient_samples(
                f, difference, one, one, temperature=T, straight_through=True)),
            ({"temperature": T, "estimator": "rebar", "eta": 0.8}, lambda: m.rebar.gradient_samples(
                f, difference, one, one, temperature=T, eta=0.8, relaxation="concrete")),
            ({"estimator": "reinforce"}, lambda: m.reinforce.gradient_samples(
                f, difference, one, one)),
        ):  # fmt: skip
            g = m.gumbel_softmax.gradient_samples(f_classes, a[None], u, u, **ours)
            np.testing.assert_allclose(g[:, 0, :1], theirs(), rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(g.sum(axis=-1), 0, atol=1e-10)


# ------------------------------------------------------------------- proofs: unbiased, one variable


def score_function_is_exact(m):
    for f, baseline in itertools.product(FUNCTIONS, (0.0, 0.7)):
        mean, _ = mean_and_variance(m, f, estimator="reinforce", baseline=baseline)
        np.testing.assert_allclose(mean, exact(f), atol=1e-9)


def mean_of_others_leaves_one_out(m):
    """C of every sample as the definition has it, in a loop: 1e-12; one row is refused."""
    f = np.random.default_rng(0).standard_normal((3, 4))
    for i, j in np.ndindex(3, 4):
        others = np.delete(f[i], j)
        expected = np.log(np.mean(np.exp([*others, others.mean()])))
        assert m.gumbel_softmax.mean_of_others(f)[i, j] == pytest.approx(expected, rel=1e-12)
        C = m.gumbel_softmax.mean_of_others(f[:, j : j + 1])[i, 0]
        np.testing.assert_allclose(C, np.delete(f[:, j], i).mean(), rtol=1e-12)
    with pytest.raises(m.common.InputError, match="two rows"):
        m.gumbel_softmax.mean_of_others(f[:1, :1])


def rebar_is_exact(m):
    """Coupled, for every f and T, η ≠ 1 and C ≠ 0: 1e-9 by quadrature over u."""
    for f, T in itertools.product(FUNCTIONS, TEMPERATURES):
        mean, _ = mean_and_variance(m, f, estimator="rebar", temperature=T, eta=0.7, baseline=0.2)
        np.testing.assert_allclose(mean, exact(f), atol=1e-9, err_msg=f"{f.__name__}, T = {T}")


def independent_rebar_is_exact(m):
    """With a z̃ of its own noise: 1e-7, by quadrature over u, and over v for every class.

    As functions of (u, v) the samples are p(u) + q(b(u), v), so that their mean is that of
    p(u) + q(b(u), v_0) over u and of q(b, v) − q(b, v_0) over v, for every b.
    """
    u, weights = m.categorical.quadrature(LOGITS, 60)
    v, v_weights = m.categorical.quadrature(np.zeros((1, 3)), 60)
    v_0, b = np.full((1, 1, 3), 0.5), m.gumbel_softmax.hard_sample(LOGITS, u)[:, 0]
    for f, T in itertools.product(FUNCTIONS, (0.5, 1.0, 3.0)):
        samples = lambda u, v: m.gumbel_softmax.gradient_samples(
            f, LOGITS, u, v, estimator="rebar", temperature=T, eta=0.7, baseline=0.2,
            conditional="independent",
        )[:, 0]  # fmt: skip
        mean = weights @ samples(u, np.broadcast_to(v_0, u.shape))
        for k in range(3):
            u_k = u[np.argmax(b[:, k])][None]  # any u of this class
            difference = samples(np.broadcast_to(u_k, v.shape), v) - samples(u_k, v_0)
            mean = mean + PI[k] * (v_weights @ difference)
        np.testing.assert_allclose(mean, exact(f), atol=1e-7, err_msg=f"{f.__name__}, T = {T}")


def truncated(log_pi, b, v):
    """z̃ given b as it is published: −log(−log v_b), and −log(−log v_k / π_k − log v_b)."""
    top = -anp.log(anp.sum(b * v, axis=-1, keepdims=True))
    return -anp.log((1 - b) * -anp.log(v) / anp.exp(log_pi) + top)


def coupled_noise_is_the_truncated_one(m):
    """At the v that makes z̃ = z, found by hand, dz̃/dlog π of the published formula: 1e-9.

    And the other pair is the published formula for any v.
    """
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 2, 4))
    u, fresh = rng.uniform(0.01, 0.99, (2, *a.shape))
    log_pi = a - logsumexp(a, axis=-1, keepdims=True)
    z = log_pi - np.log(-np.log(u))
    top = z.max(axis=-1, keepdims=True)
    b = (z == top).astype(float)
    v = np.where(
        b == 1, np.exp(-np.exp(-top)), np.exp(-np.exp(log_pi) * (np.exp(-z) - np.exp(-top)))
    )
    np.testing.assert_allclose(truncated(log_pi, b, v), z, atol=1e-9)
    pull = rng.standard_normal(a.shape)  # a direction of the logits, and that of log π:
    of_log_pi = pull - np.sum(np.exp(log_pi) * pull, axis=-1, keepdims=True)
    moved = [truncated(log_pi + step * of_log_pi, b, v) for step in (1e-6, -1e-6)]
    expected = of_log_pi - (moved[0] - moved[1]) / 2e-6
    step = lambda t: m.gumbel_softmax.coupled_difference(a + t * pull, u)
    np.testing.assert_allclose(step(0.0), z, atol=1e-12)
    np.testing.assert_allclose(jacobian(step)(0.0), expected, atol=1e-7)
    pair = m.gumbel_softmax.independent_pair(a, u, fresh)
    np.testing.assert_allclose(pair[0], z, atol=1e-12)
    np.testing.assert_allclose(pair[1], truncated(log_pi, b, fresh), atol=1e-9)
    np.testing.assert_array_equal(pair[1].argmax(axis=-1), z.argmax(axis=-1))


# ----------------------------------------------------------------- proofs: every parameter of a net


def tiny(m, task="generate", seed=1, hidden=(2,), learned_prior=True, dtype=np.float64,
         layers=None, activation="tanh"):  # fmt: skip
    """A net of 3 or 4 pixels with two variables of three classes a layer, away from its start.

    The layers are one, for the task "predict" two, or as many as is said.
    """
    rng = np.random.default_rng(seed)
    mean = np.array([0.3, 0.5, 0.6, 0.4])[: 3 if task == "generate" else 4]
    layers = layers or (1 if task == "generate" else 2)
    model = m.gumbel_softmax.CategoricalNet(
        mean, 2, 3, layers, hidden, learned_prior and task == "generate", task, dtype, activation
    )
    params = [(p + 0.7 * rng.standard_normal(p.shape)).astype(dtype) for p in model.init(rng)]
    return model, params, np.array([[1.0, 0, 1, 1], [0, 1, 1, 0]], dtype)[:, : len(mean)]


def outcomes(layers, variables=2, classes=3):
    """All one-hots of the layers: list of arrays (n, 1, N, K)."""
    chosen = np.array(list(itertools.product(range(classes), repeat=layers * variables)))
    b = np.eye(classes)[chosen].reshape(-1, layers, 1, variables, classes)
    return [b[:, layer] for layer in range(layers)]


def enumerated(samples):
    """exact_model_gradient(model, params, x) of the bound of `samples` samples, by enumeration."""

    def gradient(model, params, x):
        one = outcomes(model.layers)
        n = len(one[0])

        def mean_bound(flat):
            params = unflatten(flat, shapes)
            total = 0.0
            for image in x:
                rows = [np.broadcast_to(b, (n, 1, *b.shape[2:])) for b in one]
                b, a = model.infer(params, image[None], lambda layer, logits: rows[layer])
                log_q = sum(M.gumbel_softmax.log_prob(b_i, a_i) for b_i, a_i in zip(b, a))[:, 0]
                f = model.bound(params, image[None], b, a)[:, 0]
                if samples == 1:
                    total = total + anp.sum(anp.exp(log_q) * f)
                else:
                    L = anp.logaddexp(f[:, None], f[None]) - math.log(2)
                    total = total + anp.sum(anp.exp(log_q[:, None] + log_q[None]) * L)
            return total / len(x)

        shapes = [p.shape for p in params]
        flat = np.concatenate([p.ravel() for p in params])
        return unflatten(grad(mean_bound)(flat), shapes)

    return gradient


def unflatten(flat, shapes):
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [flat[end - math.prod(shape) : end].reshape(shape) for end, shape in zip(ends, shapes)]


def is_unbiased(m, estimator, task="generate", samples=1, rng=None, layers=None):
    """`estimator(model, params, x, noise)` against enumeration: proofs.assert_unbiased's result."""
    model, params, x = tiny(m, task, layers=layers)
    exact = enumerated(samples)(model, params, x)
    gradient = lambda x, noise: estimator(model, params, x, noise)
    return proofs.assert_unbiased(
        M, model, params, x, gradient, rng or np.random.default_rng(0), rows=1200, exact=exact
    )


def reinforce_is_unbiased(m, task="generate", samples=1, rng=None, layers=None):
    estimator = lambda model, params, x, noise: m.gumbel_softmax.reinforce(
        model, params, [], x, noise, samples=samples
    )[1]
    return is_unbiased(m, estimator, task, samples, rng, layers)


def nvil_is_unbiased(m, task="generate", rng=None, layers=None):
    """With v < 1 and so s = 1, and a network away from its start."""

    def estimator(model, params, x, noise):
        rng = np.random.default_rng(3)
        aux = [
            t + 0.3 * rng.standard_normal(t.shape) for t in m.gumbel_softmax.init_nvil(rng, model)
        ]
        aux[-1] = np.array(0.5)
        return m.gumbel_softmax.nvil(model, params, aux, x, noise)[1]

    return is_unbiased(m, estimator, task, rng=rng, layers=layers)


def rebar_is_unbiased(m, task="generate", conditional="coupled", rng=None, layers=None):
    """With all that it learns, away from its start."""

    def estimator(model, params, x, noise):
        rng = np.random.default_rng(3)
        aux = m.gumbel_softmax.init_rebar(rng, model, 0.4)
        aux = [t + 0.3 * rng.standard_normal(np.shape(t)) for t in aux]
        return m.gumbel_softmax.adaptive_rebar(
            model, params, aux, x, noise, conditional=conditional
        )[1]

    return is_unbiased(m, estimator, task, rng=rng, layers=layers)


def gumbel_softmax_is_unbiased(m, task="generate", layers=None, **options):
    """For the discrete model, which it is not."""
    estimator = lambda model, params, x, noise: m.gumbel_softmax.gumbel_softmax(
        model, params, x, noise, np.log(0.5), **options
    )[2]
    return is_unbiased(m, estimator, task, layers=layers)


# ------------------------------------------------------------ proofs: the objective that is relaxed


def objective_is_as_written(m, task="generate", objective="kl", samples=1, straight_through=False,
                            layers=None, activation="tanh"):  # fmt: skip
    """Value against the equation, written out with scipy; gradient against differences: 1e-7.

    With straight-through the value is that of hard one-hots, and the gradient is not compared.
    """
    model, params, x = tiny(m, task, layers=layers, activation=activation)
    function = {"tanh": np.tanh, "relu": lambda a: np.where(a > 0, a, 0)}[activation]
    x, T, T_p = np.repeat(x, samples, axis=0), 0.6, 0.9
    noise = model.draw_noise(np.random.default_rng(0), len(x))

    def value(params, log_T):
        P, T = dict(zip(model.names, params)), math.exp(log_T)
        net = lambda name, h: (
            function(h @ P[f"{name}.W0"] + P[f"{name}.b0"]) @ P[f"{name}.W1"] + P[f"{name}.b1"]
        )
        below, h, y, a = (x - model.mean)[:, : model.context or None], [], [], []
        for layer, (u, _) in enumerate(noise):
            a.append(net(f"q{layer}", below).reshape(-1, 2, 3))
            z = a[-1] - np.log(-np.log(u))
            y.append(z / T - logsumexp(z / T, axis=-1, keepdims=True))
            h.append(np.eye(3)[z.argmax(axis=-1)] if straight_through else np.exp(y[-1]))
            below = h[-1].reshape(-1, 6)
        pixels = net("p", h[0 if task == "generate" else -1].reshape(-1, 6)) + model.offset
        f = stats.bernoulli.logpmf(x[:, model.context :], 1 / (1 + np.exp(-pixels))).sum(axis=1)
        for layer in range(len(noise) if task == "generate" else 0):
            top, h_l, y_l = layer == len(noise) - 1, h[layer], y[layer]
            above = P["prior"] if top else net(f"p{layer + 1}", h[layer + 1].reshape(-1, 6))
            p, q = (t - logsumexp(t, axis=-1, keepdims=True)
                    for t in (above.reshape(-1, 2, 3), a[layer]))  # fmt: skip
            if objective == "kl":
                f = f - np.sum(np.exp(q) * (q - p), axis=(1, 2))
            elif objective == "log-mass":
                f = f + np.sum(h_l * (p - q), axis=(1, 2))
            else:  # eq. 11 and 20 of Maddison et al., with the Jacobian from h to log-ratios
                for logits, t, sign in ((p, T_p, 1), (q, T, -1)):
                    over = np.prod(np.exp(logits) * np.exp(y_l) ** -t, axis=-1)
                    under = np.sum(np.exp(logits) * np.exp(y_l) ** -t, axis=-1)
                    f = f + sign * np.sum(np.log(2 * t**2 * over / under**3), axis=1)
        return np.log(np.mean(np.exp(f.reshape(-1, samples)), axis=1))

    _, f_h, grads, slope = m.gumbel_softmax.gumbel_softmax(
        model, params, x, noise, math.log(T), objective=objective, samples=samples,
        straight_through=straight_through, prior_temperature=T_p,
    )  # fmt: skip
    np.testing.assert_allclose(f_h, value(params, math.log(T)), rtol=1e-9)
    if straight_through:
        return
    for k, tensor in enumerate(params):
        for at in np.ndindex(tensor.shape):
            moved = [[p.copy() for p in params] for _ in range(2)]
            moved[0][k][at] += 1e-5
            moved[1][k][at] -= 1e-5
            d = (value(moved[0], math.log(T)) - value(moved[1], math.log(T))).mean() / 2e-5
            assert abs(d - grads[k][at]) < 1e-7, (model.names[k], at)
    d = (value(params, math.log(T) + 1e-5) - value(params, math.log(T) - 1e-5)).mean() / 2e-5
    assert abs(d - slope) < 1e-7


def reported_bound_is_discrete(m):
    """That of the hard one-hots of the same u, by hand; m of them are in one multi-sample bound."""
    for task, samples in itertools.product(("generate", "predict"), (1, 3)):
        model, params, x = tiny(m, task)
        x = np.repeat(x, samples, axis=0)
        noise = model.draw_noise(np.random.default_rng(0), len(x))
        hard = lambda layer, a: np.eye(3)[(a - np.log(-np.log(noise[layer][0]))).argmax(axis=-1)]
        f = model.bound(params, x, *model.infer(params, x, hard)).reshape(-1, samples)
        expected = np.log(np.exp(f).mean(axis=1))
        aux, options = m.gumbel_softmax.init_aux(None, model), {"objective": "log-mass"}
        bound, _, _ = m.gumbel_softmax.estimate(
            model, params, aux, x, noise, samples=samples, **options
        )
        np.testing.assert_allclose(bound, expected, rtol=1e-12)
        L, _, _ = m.gumbel_softmax.reinforce(model, params, [], x, noise, samples=samples)
        np.testing.assert_allclose(L, expected, rtol=1e-12)


def straight_through_is_one_hot(m):
    """Exactly, also where z ties; its gradient is f' at b through the softmax: 1e-12."""
    u = np.random.default_rng(0).uniform(0.01, 0.99, (500, 1, 3))
    u[:100] = u[:100, :, :1]  # with equal logits, a tie of three
    seen = []

    def f(h):
        seen.extend([getval(h)] * (len(h) == 500))  # not those by which f is found to have slopes
        return quadratic(h) + steep(h)

    for logits in (np.zeros((1, 3)), LOGITS):
        g = m.gumbel_softmax.gradient_samples(f, logits, u, u, straight_through=True)[:, 0]
        b = seen[0][:, 0]
        assert np.array_equal(np.sort(b, axis=1), np.tile([0.0, 0, 1], (500, 1)))
        assert np.all(seen[0] == seen[1])
        h = softmax((logits[0] - np.log(-np.log(u[:, 0]))) / 0.5, axis=1)
        df = grad(lambda b: anp.sum(quadratic(b) + steep(b)))(b[:, None])[:, 0]
        expected = h * (df - np.sum(h * df, axis=1, keepdims=True)) / 0.5
        np.testing.assert_allclose(g, expected, atol=1e-12)
        seen.clear()


def temperature_follows_its_schedule(m):
    """max(minimum, T_0 exp(−r t)), t in steps of `anneal_every`; and as logged and used."""
    model, params, x = tiny(m)
    noise, aux = model.draw_noise(np.random.default_rng(0), len(x)), None
    annealing = {"temperature": 2.0, "anneal_rate": 0.3, "anneal_every": 2, "min_temperature": 0.7}
    aux, seen = m.gumbel_softmax.init_aux(None, model, 2.0), []
    for _ in range(7):
        _, _, new = m.gumbel_softmax.estimate(model, params, aux, x, noise, annealing=annealing)
        aux = [a.value for a in new]
        seen.append(m.gumbel_softmax.report(model, aux)["temperature"])
    expected = [2, 2, 2 * math.exp(-0.6), 2 * math.exp(-0.6), *[0.7] * 3]
    expected[4:6] = [max(0.7, 2 * math.exp(-1.2))] * 2
    np.testing.assert_allclose(seen, expected)
    _, f_h, _, _ = m.gumbel_softmax.gumbel_softmax(model, params, x, noise, math.log(0.7))
    assert aux[0] == 7
    assert aux[2] == pytest.approx(f_h.mean())


def nvil_scales_q_only(m):
    """v = 16 divides the gradient of q by 4 and leaves p's; C's is that of least squares: 1e-9."""
    model, params, x = tiny(m)
    x = np.repeat(x, 4, axis=0)
    noise, rng = model.draw_noise(np.random.default_rng(0), len(x)), np.random.default_rng(0)
    aux = m.gumbel_softmax.init_nvil(rng, model)
    aux = [t + 0.3 * rng.standard_normal(t.shape) for t in aux]
    f, plain, aux_grads = m.gumbel_softmax.nvil(model, params, [*aux[:-1], np.array(0.9)], x, noise)
    _, scaled, new = m.gumbel_softmax.nvil(model, params, [*aux[:-1], np.array(16.0)], x, noise)
    for name, g, h in zip(model.names, plain, scaled):
        np.testing.assert_allclose(h, g / 4 if name.startswith("q") else g, rtol=1e-9)
    W1, b1, W2, b2 = aux[:-1]
    C = lambda W1: (np.tanh((x - model.mean) @ W1 + b1) @ W2 + b2)[:, 0]
    assert new[-1].value == pytest.approx(0.8 * 16 + 0.2 * np.var(f - C(W1)))
    step = np.zeros_like(W1)
    step[1, 7] = 1e-5
    d = (np.mean((f - C(W1 + step)) ** 2) - np.mean((f - C(W1 - step)) ** 2)) / 2e-5
    assert abs(d - aux_grads[0][1, 7]) < 1e-7


def variance_gradient_is_exact(m, conditional="coupled"):
    """d(mean g²) of C, η and T against central differences: 1e-7."""
    for task in ("generate", "predict"):
        model, params, x = tiny(m, task)
        rng, x = np.random.default_rng(2), np.repeat(x, 2, axis=0)
        aux = [np.array(t + 0.3) for t in m.gumbel_softmax.init_rebar(rng, model)]
        noise = model.draw_noise(rng, len(x))
        run = lambda aux: m.gumbel_softmax.adaptive_rebar(
            model, params, aux, x, noise, conditional=conditional
        )
        mean_square = lambda aux: np.mean(np.concatenate([g.ravel() for g in run(aux)[1]]) ** 2)
        _, _, aux_grads = run(aux)
        for k, tensor in enumerate(aux):
            for index in list(np.ndindex(np.shape(tensor)))[:6]:
                moved = [[t.copy() for t in aux] for _ in range(2)]
                moved[0][k][index] += 1e-5
                moved[1][k][index] -= 1e-5
                d = (mean_square(moved[0]) - mean_square(moved[1])) / 2e-5
                assert abs(d - aux_grads[k][index]) < 1e-7 * max(1, abs(d)), (task, k, index)


# -------------------------------------------------------------------------------- proofs: the model


def bound_of_layers_is_as_written(m, layers=3):
    """Of many outcomes of three layers: log p(x, b) − log q(b|x), with scipy: 1e-12."""
    model, params, x = tiny(m, layers=layers)
    P, b = dict(zip(model.names, params)), [b[::7] for b in outcomes(layers)]
    rows = [np.broadcast_to(b_i, (len(b_i), len(x), 2, 3)) for b_i in b]

    def log_p(name, h, b):
        h = h.reshape(*h.shape[:-2], 6) if name != "q0" else h
        a = np.tanh(h @ P[f"{name}.W0"] + P[f"{name}.b0"]) @ P[f"{name}.W1"] + P[f"{name}.b1"]
        if name == "p":
            return stats.bernoulli.logpmf(b, 1 / (1 + np.exp(-a - model.offset))).sum(axis=-1)
        a = a.reshape(*a.shape[:-1], 2, 3)
        return np.sum(b * (a - logsumexp(a, axis=-1, keepdims=True)), axis=(-2, -1))

    expected = log_p("p", rows[0], x)
    for layer in range(layers):
        below = rows[layer - 1] if layer else x - model.mean
        expected = expected - log_p(f"q{layer}", below, rows[layer])
        if layer:
            expected = expected + log_p(f"p{layer}", rows[layer], rows[layer - 1])
    prior = P["prior"] - logsumexp(P["prior"], axis=-1, keepdims=True)
    expected = expected + np.sum(rows[-1] * prior, axis=(-2, -1))
    _, a = model.infer(params, x, lambda layer, logits: rows[layer])
    np.testing.assert_allclose(model.bound(params, x, rows, a), expected, rtol=1e-12)


def evidence_of_layers_sums_to_one(m):
    """p(x) of all eight images of 3 pixels, summed over all outcomes of two layers: 1e-12.

    The bound of every image, by enumeration, is below its log p(x).
    """
    model, params, _ = tiny(m, layers=2)
    x, b = np.array(list(itertools.product((0.0, 1.0), repeat=3))), outcomes(2)
    rows = [np.broadcast_to(b_i, (len(b_i), len(x), 2, 3)) for b_i in b]
    _, a = model.infer(params, x, lambda layer, logits: rows[layer])
    log_q = sum(M.gumbel_softmax.log_prob(b_i, a_i) for b_i, a_i in zip(rows, a))
    f = model.bound(params, x, rows, a)
    evidence = logsumexp(log_q + f, axis=0)
    assert abs(logsumexp(evidence)) < 1e-12
    assert np.all(np.sum(np.exp(log_q) * f, axis=0) < evidence)
    w = model.log_weights(params, x, 50_000, np.random.default_rng(0))
    error = w.std(axis=0) / math.sqrt(len(w))
    assert np.all(np.abs(w.mean(axis=0) - np.sum(np.exp(log_q) * f, axis=0)) < 6 * error)


def images_come_down_the_layers(m):
    """The top layer is from the prior and each below from its net: shares of the pictures.

    With a prior and p1 that leave no doubt there is one image but for 1 in 10,000.
    """
    model, params, _ = tiny(m, layers=2)
    P = dict(zip(model.names, params))
    P["prior"][...] = np.array([[20.0, 0, 0], [0, 0, 20]])
    P["p1.W1"][...] *= 300
    top = np.array([[[1.0, 0, 0], [0, 0, 1]]])
    a = np.tanh(top.reshape(1, 6) @ P["p1.W0"] + P["p1.b0"]) @ P["p1.W1"] + P["p1.b1"]
    below = np.eye(3)[a.reshape(1, 2, 3).argmax(axis=-1)]
    assert np.all(np.sort(a.reshape(2, 3), axis=1)[:, -2] < a.reshape(2, 3).max(axis=1) - 9)
    expected = 1 / (1 + np.exp(-model.pixels(params, below)))
    images = model.generate(params, np.random.default_rng(0), 200)
    assert np.mean(np.all(np.abs(images - expected) < 1e-12, axis=1)) > 0.97


def discrete_bound_is_below_the_evidence(m):
    """log p(x) by enumeration: many samples come near it, one stays below, for both tasks."""
    for task in ("generate", "predict"):
        model, params, x = tiny(m, task)
        b = outcomes(model.layers)
        rows = [np.broadcast_to(b_i, (len(b_i), len(x), 2, 3)) for b_i in b]
        _, a = model.infer(params, x, lambda layer, logits: rows[layer])
        log_q = sum(M.gumbel_softmax.log_prob(b_i, a_i) for b_i, a_i in zip(rows, a))
        f = model.bound(params, x, rows, a)
        evidence, elbo = logsumexp(log_q + f, axis=0), np.sum(np.exp(log_q) * f, axis=0)
        w = model.log_weights(params, x, 100_000, np.random.default_rng(0))
        assert np.all(elbo < evidence)
        # log-weights here have sd < 2: five standard errors of the two means
        np.testing.assert_allclose(w.mean(axis=0), elbo, atol=5 * w.std() / math.sqrt(1e5))
        np.testing.assert_allclose(logsumexp(w, axis=0) - math.log(1e5), evidence, atol=0.03)


def pictures_are_of_the_model(m):
    """Given pixels are kept; new images come from the classes that the prior is for."""
    for task in ("generate", "predict"):
        model, params, x = tiny(m, task)
        rng = np.random.default_rng(0)
        images = model.reconstruct(params, x, rng)
        assert images.shape == x.shape
        np.testing.assert_array_equal(images[:, : model.context], x[:, : model.context])
    model, params, _ = tiny(m)
    params[-1][...] = np.array([[9.0, 0, 0], [0, 0, 30]])  # the prior: nearly always these classes
    b = np.array([[[1.0, 0, 0], [0, 0, 1]]])
    expected = 1 / (1 + np.exp(-model.pixels(params, b)))
    images = model.generate(params, np.random.default_rng(0), 200)
    assert np.mean(np.all(np.abs(images - expected) < 1e-12, axis=1)) > 0.95


def enumeration_is_exact(m):
    """Two variables: against differences of the sum over all nine outcomes, 1e-8."""
    logits, f = np.random.default_rng(0).standard_normal((2, 3)), steep
    total = lambda logits: sum(
        np.prod(softmax(logits, axis=1)[[0, 1], [i, j]]) * f(np.eye(3)[[i, j]])
        for i, j in itertools.product(range(3), repeat=2)
    )
    g = m.categorical.exact_gradient(f, logits)
    for at in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[at] = 1e-6
        assert abs((total(logits + step) - total(logits - step)) / 2e-6 - g[at]) < 1e-8
    far = m.categorical.exact_gradient(f, logits + np.array([[-2e4], [3e4]]))  # the same p
    assert np.abs(far - g).max() < 1e-8
    with pytest.raises(m.common.InputError, match="65,536"):
        m.categorical.exact_gradient(f, np.zeros((11, 3)))


# ---------------------------------------------------------------------------------------- the tests


PROOFS = [
    density_integrates_to_one, density_is_the_derivative_of_the_cdf, sampler_follows_the_cdf,
    quadrature_is_exact, two_classes_are_the_binary_case, score_function_is_exact,
    mean_of_others_leaves_one_out, rebar_is_exact,
    independent_rebar_is_exact, coupled_noise_is_the_truncated_one, reported_bound_is_discrete,
    straight_through_is_one_hot, temperature_follows_its_schedule, nvil_scales_q_only,
    variance_gradient_is_exact, bound_of_layers_is_as_written, evidence_of_layers_sums_to_one,
    images_come_down_the_layers, discrete_bound_is_below_the_evidence, pictures_are_of_the_model,
    enumeration_is_exact,
]  # fmt: skip


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_proof(proof):
    proof(M)


# ----------------------------------------------------------- unbiased, for every parameter of a net


def check(result, largest_bias):
    """With probability .99 a bias of this share of the largest gradient would be detected."""
    z, bias, scale = result
    print(f"|z| ≤ {z:.2f}, detects {bias:.4f}, largest gradient {scale:.3f}")
    assert bias < largest_bias * scale  # the test is sharp enough to mean something


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_reinforce(rng, task, samples):
    check(reinforce_is_unbiased(M, task, samples, rng), 0.2)


@pytest.mark.parametrize("task", ["generate", "predict"])
def test_nvil(rng, task):
    check(nvil_is_unbiased(M, task, rng), 0.25)


@pytest.mark.parametrize("conditional", ["coupled", "independent"])
@pytest.mark.parametrize("task", ["generate", "predict"])
def test_rebar(rng, task, conditional):
    check(rebar_is_unbiased(M, task, conditional, rng), 0.2)


def test_two_layers_of_classes(rng):
    """q(b0|x) q(b1|b0) and p(b1) p(b0|b1) p(x|b0): every parameter's gradient, 81 outcomes."""
    check(reinforce_is_unbiased(M, "generate", 1, rng, layers=2), 0.25)
    check(reinforce_is_unbiased(M, "generate", 2, rng, layers=2), 0.25)
    check(nvil_is_unbiased(M, "generate", rng, layers=2), 0.3)
    check(rebar_is_unbiased(M, "generate", "coupled", rng, layers=2), 0.25)


TWO_LAYERS = [
    {"objective": "log-mass"},
    {"objective": "density"},
    {"objective": "log-mass", "straight_through": True},
    {"objective": "log-mass", "hard": M.reinmax.hard("reinmax")},
    {"objective": "log-mass", "hard": M.reinmax.hard("st")},
]


@pytest.mark.parametrize("options", TWO_LAYERS, ids=[f"{k}" for k in range(len(TWO_LAYERS))])
def test_bias_of_two_layers_is_rejected(options):
    with pytest.raises(AssertionError, match="biased"):
        gumbel_softmax_is_unbiased(M, layers=2, **options)


BIASED = [{}, {"objective": "log-mass"}, {"objective": "density"}, {"straight_through": True}]


@pytest.mark.parametrize("options", BIASED, ids=str)
def test_bias_is_rejected(options):
    with pytest.raises(AssertionError, match="biased"):
        gumbel_softmax_is_unbiased(M, **options)


def test_bias_of_a_chain_is_rejected():
    with pytest.raises(AssertionError, match="biased"):
        gumbel_softmax_is_unbiased(M, "predict")


# ---------------------------------------------------------------------------- the relaxed objective


@pytest.mark.parametrize("objective", ["kl", "log-mass", "density"])
def test_objective(objective):
    objective_is_as_written(M, objective=objective)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "density", "samples": 3},
        {"objective": "log-mass", "samples": 2},
        {"task": "predict"},
        {"task": "predict", "samples": 3},
        {"straight_through": True},
        {"task": "predict", "straight_through": True},
        {"layers": 2, "objective": "log-mass"},
        {"layers": 3, "objective": "density", "samples": 2},
        {"layers": 2, "objective": "log-mass", "straight_through": True},
        {"layers": 2, "objective": "density", "activation": "relu"},
    ],
    ids=str,
)
def test_objective_of_samples_and_chains(options):
    objective_is_as_written(M, **options)


def test_density_is_a_lower_bound_and_the_others_are_not():
    """On log ∫ p(x|h) p(y) dy, for a decoder that ignores h, where it is log p(x) for any prior.

    The mean of log p(y) − log q(y) then is −KL, below 0; of Σ h (log p − log q) it may be above.
    """
    g, a, p = M.gumbel_softmax, np.array([[0.0, 0.0, 6.0]]), np.zeros((1, 3))
    u, weights = M.categorical.quadrature(a)
    for T, T_p in itertools.product((0.5, 2.0), (0.4, 1.0)):
        y = g.sample(a, u, T)[:, 0]
        minus_kl = weights @ (g.log_density(y, p[0], T_p) - g.log_density(y, a[0], T))
        assert minus_kl < -0.1
    same = g.log_density(y, p[0], 1.0) - g.log_density(y, p[0], 1.0)
    assert np.all(same == 0)  # and nothing is lost where q is p
    h = np.exp(g.sample(a, u, 5.0))
    log_mass = weights @ (g.log_prob(h, p) - g.log_prob(h, a))
    assert log_mass > 0.5


# --------------------------------------------------------------- colder is less biased, and noisier


COLD = (0.4, 0.2, 0.1, 0.05, 0.025)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_bias_shrinks_with_the_temperature_and_variance_grows(f):
    """Towards T = 0 the bias goes to zero like T, the variance to infinity like 1 / T."""
    pairs = [mean_and_variance(M, f, temperature=T) for T in COLD]
    bias = np.array([np.linalg.norm(mean - exact(f)) for mean, _ in pairs])
    variance = np.array([np.sum(v) for _, v in pairs])
    assert np.all(bias[2:] < 0.6 * bias[1:-1])
    assert np.all(variance[2:] > 1.8 * variance[1:-1])


def test_straight_through_stays_biased():
    """Unless f is quadratic: near a tie of two classes its slopes at the ends are averaged."""
    relative = {}
    for f in FUNCTIONS:
        mean, _ = mean_and_variance(M, f, temperature=0.01, straight_through=True)
        relative[f] = np.linalg.norm(mean - exact(f)) / np.linalg.norm(exact(f))
    assert relative[quadratic] < 0.02
    assert relative[steep] > 0.1


def test_rebar_has_less_variance_than_the_score_function():
    """At the best η for each; with z̃'s own noise more than coupled; by quadrature, T = .5."""
    variance = {}
    for eta in (0.0, 0.5, 1.0):
        variance[eta] = mean_and_variance(M, steep, estimator="rebar", eta=eta)[1].sum()
    assert min(variance[0.5], variance[1.0]) < 0.8 * variance[0.0]


# -------------------------------------------------------------------------------------- its numbers


OPTIONS = [
    {}, {"objective": "log-mass"}, {"objective": "density"}, {"straight_through": True},
    {"learn_temperature": True}, {"annealing": {"anneal_rate": 0.1}},
]  # fmt: skip


def estimators(m, **options):
    """Name: (function of model, params, aux, x, noise; init_aux)."""
    g = m.gumbel_softmax
    return {
        "gumbel-softmax": (lambda *args: g.estimate(*args, **options), g.init_aux),
        "reinforce": (g.reinforce, lambda rng, model: []),
        "nvil": (g.nvil, g.init_nvil),
        "rebar": (g.adaptive_rebar, g.init_rebar),
        "rebar, independent": (
            lambda *args: g.adaptive_rebar(*args, conditional="independent"),
            g.init_rebar,
        ),
    }


CASES = [("gumbel-softmax", options) for options in OPTIONS]
CASES += [(name, {}) for name in ("reinforce", "nvil", "rebar", "rebar, independent")]


@pytest.mark.parametrize("task", ["generate", "predict", "generate, two layers"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_float32_is_kept(monkeypatch, name, options, task):
    """In every traced value, every gradient on the way, and every result."""
    promoted = proofs.promotions(M, monkeypatch)
    task, _, two = task.partition(",")
    if two and name == "gumbel-softmax":
        options = {"objective": "log-mass"} | options
    estimate, init_aux = estimators(M, **options)[name]
    net = {"layers": 2, "activation": "relu"} if two else {}
    model, params, x = tiny(M, task, dtype=np.float32, **net)
    rng = np.random.default_rng(0)
    _, aux = M.optimizer.flatten(init_aux(rng, model), np.float32)
    bound, grads, aux_grads = estimate(model, params, aux, x, model.draw_noise(rng, len(x)))
    new = [g.value if isinstance(g, M.common.Assign) else g for g in aux_grads]
    assert promoted == []
    assert {np.asarray(a).dtype for a in (bound, *grads, *new)} == {np.dtype(np.float32)}
    assert [g.shape for g in grads] == [p.shape for p in params]
    assert [np.shape(g) for g in new] == [np.shape(a) for a in aux]
    weights = model.log_weights(params, x, 5, rng)
    assert (weights.shape, weights.dtype) == ((5, len(x)), np.float32)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize(("name", "options"), CASES[:5] + CASES[6:], ids=str)
def test_extremes_are_finite(name, options, temperature):
    """Logits to ±1e4 in float32, uniforms at their ends, T far out; value, gradients, aux."""
    model, params, x = tiny(M, dtype=np.float32)
    params[3][...] = np.array([1e4, -1e4, 0, 50, -50, 1e4], np.float32)  # q's last bias
    ends = np.array([[1e-6, 1 - 1e-6, 1e-6], [1 - 1e-6, 1e-6, 1 - 1e-6]], np.float32)
    noise = [(np.stack([ends, ends]), np.stack([1 - ends, ends]))]
    if "objective" in options:
        options = options | {"prior_temperature": 1 / temperature}
    estimate, init_aux = estimators(M, **options)[name]
    start = {} if name in ("reinforce", "nvil") else {"temperature": temperature}
    if name == "gumbel-softmax" and "learn_temperature" not in options:
        estimate, _ = estimators(M, **options, annealing=start)[name]
    aux = init_aux(np.random.default_rng(0), model, **start)
    _, aux = M.optimizer.flatten(aux, np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        bound, grads, aux_grads = estimate(model, params, aux, x, noise)
    new = [g.value if isinstance(g, M.common.Assign) else g for g in aux_grads]
    assert all(np.all(np.isfinite(a)) for a in (bound, *grads, *new))


def test_one_class_has_nothing_to_say():
    """C = 1: h = b = 1, log q = 0, no gradient, and no warning of a division."""
    u = np.full((5, 2, 1), 0.3)
    for options in (
        {}, {"straight_through": True}, {"estimator": "reinforce"}, {"estimator": "rebar"},
        {"estimator": "rebar", "conditional": "independent"},
    ):  # fmt: skip
        g = M.gumbel_softmax.gradient_samples(quadratic_of_one, np.zeros((2, 1)), u, u, **options)
        np.testing.assert_array_equal(g, np.zeros((5, 2, 1)))
    model = M.gumbel_softmax.CategoricalNet([0.3, 0.5], 3, 1, hidden=[2], dtype=np.float64)
    params, x = model.init(np.random.default_rng(0)), np.array([[1.0, 0], [0, 1]])
    noise = model.draw_noise(np.random.default_rng(0), 2)
    for objective in ("kl", "log-mass", "density"):
        bound, f_h, grads, slope = M.gumbel_softmax.gumbel_softmax(
            model, params, x, noise, np.log(0.5), objective=objective
        )
        np.testing.assert_allclose(f_h, bound, rtol=1e-12)
        assert slope == 0
        assert all(np.all(g == 0) for g, n in zip(grads, model.names) if n.startswith("q"))


def test_rebar_can_be_differentiated_by_eta(rng):
    """The estimates are linear in η, so their slope is the difference at 1 and 0: 1e-12."""
    f, u = lambda h: anp.sum(h**2, axis=(-2, -1)), rng.random((5, 2, 3))
    logits = rng.standard_normal((2, 3))
    at = lambda eta: anp.sum(
        M.gumbel_softmax.gradient_samples(f, logits, u, u, estimator="rebar", eta=eta)[0, 0, 0]
    )
    assert abs(at(1.0) - at(0.0)) > 1e-3
    assert grad(at)(0.7) == pytest.approx(at(1.0) - at(0.0), rel=1e-12)


def test_unknown_choices_of_rebar_are_refused(rng):
    f = lambda h: anp.sum(h**2, axis=(-2, -1))
    tiled, u = [np.zeros((5, 2, 3))], rng.random((5, 2, 3))
    arguments = M.categorical.CategoricalToy(f), tiled, np.zeros((5, 0)), [(u, u)], 0.5
    with pytest.raises(M.common.InputError, match="eta: "):
        M.gumbel_softmax.rebar(*arguments, [], 0.0)
    model, params, x = proofs.tiny_sbn(M)
    aux, noise = M.rebar.init_aux(rng, model), model.draw_noise(rng, len(x))
    with pytest.raises(M.common.InputError, match="adapt: choose from temperature, eta, none"):
        M.rebar.estimate(model, params, aux, x, noise, adapt="temprature")


def quadratic_of_one(h):
    return anp.sum(h**2, axis=(-2, -1))


# --------------------------------------------------------------------------------------- whole runs


SMALL = ["--variables", "3", "--classes", "4", "--eval-samples", "5", "--steps", "6"]
SMALL += ["--log-every", "3", "--no-plots"]


def run(folder, *flags):
    """The log and the summary of a small run."""
    M.gumbel_softmax.main([*SMALL, "--out", str(folder), *flags])
    with open(folder / "log.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("estimator", ["gumbel-softmax", "reinforce", "nvil", "rebar"])
def test_run(tmp_path, estimator, task):
    rows, summary = run(tmp_path / "run", "--estimator", estimator, "--task", task, "--hidden", "8")
    assert [int(row["step"]) for row in rows] == [3, 6]
    assert (summary["method"], summary["task"]) == ("gumbel_softmax", task)
    assert math.isfinite(summary["test_bound"])
    assert ("temperature" in rows[0]) == (estimator in ("gumbel-softmax", "rebar"))


@pytest.mark.parametrize(
    "flags",
    ["--objective density --samples 3 --prior learned", "--straight-through --early-stop",
     "--learn-temperature", "--task predict --samples 5 --layers 3",
     "--estimator reinforce --samples 5", "--layers 2 --activation relu --decay 1",
     "--layers 2 --objective density --samples 2", "--layers 2 --estimator reinmax",
     "--layers 2 --estimator rebar", "--anneal-rate .5 --anneal-every 2 --temperature 2"],
)  # fmt: skip
def test_run_with_options(tmp_path, flags):
    rows, summary = run(tmp_path / "run", *flags.split(), "--hidden", "8")
    assert math.isfinite(summary["test_bound"])
    if "learn-temp" in flags:
        assert float(rows[1]["temperature"]) != float(rows[0]["temperature"])
    if "anneal" in flags:
        T = [2, 2, 2 * math.exp(-1), 2 * math.exp(-1), 0.5, 0.5]
        assert [float(row["temperature"]) for row in rows] == pytest.approx(
            [np.mean(T[:3]), np.mean(T[3:])]
        )


def test_early_stop_ends_with_the_best(tmp_path):
    """At a learning rate that destroys the model the first evaluation stays the best."""
    flags = ["--hidden", "8", "--eval-every", "2", "--lr", "0.5", "--log-every", "2"]
    rows, summary = run(tmp_path / "run", "--early-stop", *flags)
    best = max(rows, key=lambda row: float(row["valid_bound"]))
    assert best is not rows[-1]
    assert summary["valid_bound"] == pytest.approx(float(best["valid_bound"]))
    _, plain = run(tmp_path / "plain", *flags)
    assert plain["valid_bound"] < summary["valid_bound"]


@pytest.mark.parametrize(
    "words",
    [
        "--anneal-rate .1 --anneal-every 2",
        "--layers 2 --activation relu --decay .5 --decay-every 2",
    ],
)
def test_resumed_run_is_the_same(tmp_path, words):
    flags = ["--hidden", "8", *words.split()]
    run(tmp_path / "whole", *flags)
    run(tmp_path / "half", *flags, "--steps", "3")
    M.gumbel_softmax.main(["--resume", str(tmp_path / "half"), "--steps", "6"])
    with (
        np.load(tmp_path / "whole" / "checkpoint.npz") as whole,
        np.load(tmp_path / "half" / "checkpoint.npz") as half,
    ):
        for key in {*whole.files, *half.files} - {"seconds"}:
            np.testing.assert_array_equal(whole[key], half[key], err_msg=key)


def test_learning_rate_falls(tmp_path):
    """A --decay of 1e-9 after 3 steps: the other 3 change nothing, and so the bounds are equal."""
    flags = ["--hidden", "8", "--eval-every", "3"]
    rows, _ = run(tmp_path / "run", *flags, "--decay", "1e-9", "--decay-every", "3")
    assert abs(float(rows[0]["valid_bound"]) - float(rows[1]["valid_bound"])) < 1e-4
    rows, _ = run(tmp_path / "still", *flags, "--decay", "1")
    default, _ = run(tmp_path / "default", *flags)  # .9 every 1,000 steps: the same 6 steps
    assert abs(float(rows[0]["valid_bound"]) - float(rows[1]["valid_bound"])) > 1e-3
    assert [row["valid_bound"] for row in rows] == [row["valid_bound"] for row in default]


@pytest.mark.parametrize(
    "flags",
    [
        "--temperature 0", "--classes 0", "--hidden 0", "--anneal-rate 0", "--decay 0", "--decay 2",
        "--layers 2 --objective kl", "--layers 2 --estimator unordered --samples 2",
        "--decay-every 5 --decay 1", "--activation sigmoid", "--activation relu --hidden",
        "--samples 2 --estimator nvil", "--samples 2 --estimator rebar", "--samples 2",
        "--straight-through --objective density", "--straight-through --estimator rebar",
        "--learn-temperature --anneal-rate .1",
    ],
)  # fmt: skip
def test_bad_flags(tmp_path, capsys, flags):
    argv = [*flags.split(), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        M.cli.run(lambda: M.gumbel_softmax.main(argv))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flags.split()[0] in error
    assert not (tmp_path / "run").exists()


def test_toy(tmp_path):
    M.gumbel_softmax.main(["--toy", "--out", str(tmp_path / "toy")])
    assert (tmp_path / "toy" / "toy.png").stat().st_size > 10_000


# ---------------------------------------------------------------------------------------- mutations


MUTATIONS = {
    # -- the distribution
    "T to the power 1 − C, a published misprint": (
        density_integrates_to_one,
        ("(C - 1) * np.log(temperature)", "(1 - C) * np.log(temperature)"),
    ),
    "(C − 1)! forgotten": (
        density_is_the_derivative_of_the_cdf,
        ("constant = math.lgamma(C) + ", "constant = "),
    ),
    "exponent sign in the density": (
        density_is_the_derivative_of_the_cdf,
        ("np.sum(log_softmax(a - temperature * y)", "np.sum(log_softmax(a + temperature * y)"),
    ),
    "one Gumbel for all classes": (
        sampler_follows_the_cdf,
        ("log_softmax((a + gumbel(u)) / temperature)",
         "log_softmax((a + gumbel(u[..., :1])) / temperature)"),
    ),
    "Gumbel with the sign lost": (
        sampler_follows_the_cdf, ("return -np.log(-np.log(u))", "return np.log(-np.log(u))"),
    ),
    # -- the model
    "classes drawn in the wrong order": (
        discrete_bound_is_below_the_evidence, ("> below, axis=-1)", "< below, axis=-1)"),
    ),
    "new images from the uniform prior": (
        pictures_are_of_the_model,
        ("draw_one_hot(rng, self.prior(params)", "draw_one_hot(rng, 0 * self.prior(params)"),
    ),
    "an enumeration with log q for q": (
        enumeration_is_exact,
        ("np.exp(log_prob(b, logits[0])) * value_of", "log_prob(b, logits[0]) * value_of"),
    ),
    # -- several layers
    "pixels from the top layer": (
        bound_of_layers_is_as_written,
        ('b = activations[-1 if self.task == "predict" else 0]', "b = activations[-1]"),
    ),
    "p of a layer from itself": (
        bound_of_layers_is_as_written,
        ("above = enumerate(activations[1:], start=1)\n        return [*(self._logits",
         "above = enumerate(activations[:-1], start=1)\n        return [*(self._logits"),
    ),
    "the prior for every layer": (
        bound_of_layers_is_as_written,
        ('[*(self._logits(params, f"p{i}", flat(b)) for i, b in above), self.prior(params)]',
         "[self.prior(params) for _ in activations]"),
    ),
    "the top layer's log-ratio left out": (
        evidence_of_layers_sums_to_one,
        ("for b, p, a in of_layers]", "for b, p, a in [*of_layers][:1]]"),
    ),
    "q of every layer from the lowest": (
        lambda m: objective_is_as_written(m, objective="log-mass", layers=3),
        ("below = flat(activations[layer])", "below = flat(activations[0])"),
    ),
    "densities of the lowest layer only": (
        lambda m: objective_is_as_written(m, objective="density", layers=2),
        ("for y_i, p_i, a_i in zip(y, p, a):", "for y_i, p_i, a_i in zip(y[:1], p, a):"),
    ),
    "the layers generated from the prior alone": (
        images_come_down_the_layers,
        ("for layer in range(self.layers - 1, 0, -1):\n            a = self._logits",
         "for layer in range(0):\n            a = self._logits"),
    ),
    "tanh for ReLU": (
        lambda m: objective_is_as_written(m, activation="relu"),
        ("self.mlp = partial(mlp, activation=ACTIVATIONS[activation])\n        self.dtype",
         "self.mlp = mlp\n        self.dtype"),
    ),
    # -- the relaxation
    "T on the logits only": (
        objective_is_as_written,
        ("log_softmax((a + gumbel(u)) / temperature)", "log_softmax(a / temperature + gumbel(u))"),
    ),
    "the reverse KL": (
        objective_is_as_written,
        ("log_prob(pi, p[0]) - log_prob(pi, a[0])", "log_prob(pi, a[0]) - log_prob(pi, p[0])"),
    ),
    "one temperature for p and q": (
        lambda m: objective_is_as_written(m, objective="density"),
        ("log_density(y_i, p_i, T_p)", "log_density(y_i, p_i, T)"),
    ),
    "samples of different images together": (
        lambda m: objective_is_as_written(m, "predict", samples=3),
        ("np.reshape(f, (-1, samples)), axis=1)\n\n    def relaxed",
         "np.reshape(f, (samples, -1)), axis=0)\n\n    def relaxed"),
    ),
    "equal to the max, a published bug": (
        straight_through_is_one_hot,
        ("np.arange(z.shape[-1]) == np.argmax(z, axis=-1)[..., None]",
         "z == np.max(z, axis=-1)[..., None]"),
    ),
    "straight-through that is soft forward": (
        straight_through_is_one_hot,
        ("hard_sample(a, u[layer]) + (h - stop_gradient(h)) if", "h if"),
    ),
    "straight-through without the relaxation's T": (
        straight_through_is_one_hot,
        ("+ (h - stop_gradient(h)) if", "+ T * (h - stop_gradient(h)) if"),
    ),
    "relaxed bound reported as the discrete one": (
        reported_bound_is_discrete,
        ("return multi_sample(model.bound(params, x, b, a)), f_h", "return f_h, f_h"),
    ),
    "steps not counted": (
        temperature_follows_its_schedule, ("for state in (step + 1", "for state in (step"),
    ),
    "annealed at every step": (
        temperature_follows_its_schedule, ("anneal_every * (step // anneal_every)", "step"),
    ),
    # -- score functions
    "mean over the other rows that keeps the row itself": (
        mean_of_others_leaves_one_out,
        ("(np.sum(f) - f) / (images - 1)", "np.sum(f) / images + 0 * f"),
    ),
    "VIMCO's mean with the sample itself": (
        mean_of_others_leaves_one_out,
        ("(np.sum(f, axis=1, keepdims=True) - f) / (K - 1)",
         "np.sum(f, axis=1, keepdims=True) / K + 0 * f"),
    ),
    "log q in f not differentiated with m > 1": (
        lambda m: reinforce_is_unbiased(m, "generate", 2),
        ("a if samples > 1 else stop_gradient(a)", "stop_gradient(a)"),
    ),
    "log q of one layer only": (
        lambda m: reinforce_is_unbiased(m, "predict"),
        ("np.reshape(sum(log_prob(b_i, a_i) for b_i, a_i in zip(b, a)), f.shape)",
         "np.reshape(sum(log_prob(b_i, a_i) for b_i, a_i in zip(b[:1], a)), f.shape)"),
    ),
    "sign of the score": (
        score_function_is_exact,
        ("baseline(stop_gradient(f))) / scale", "baseline(stop_gradient(f))) / -scale"),
    ),
    "[B] baseline against [B, 1]": (
        nvil_is_unbiased, ("lambda f: C(network), scale", "lambda f: C(network)[:, 0], scale"),
    ),
    "baseline that sees the sample": (
        nvil_is_unbiased, ("lambda f: C(network), scale", "lambda f: C(network) + 0.5 * f, scale"),
    ),
    "variance for standard deviation": (
        nvil_scales_q_only, ("np.maximum(1, np.sqrt(v))", "np.maximum(1, v)"),
    ),
    # -- REBAR
    "dz̃/dlog π dropped": (
        rebar_is_exact,
        ("log_pi, np.exp(z - np.max(z, axis=-1, keepdims=True))", "log_pi, 1"),
    ),
    "dz̃/dlog π in place of the difference": (
        rebar_is_exact,
        ("log_pi, np.exp(z - np.max(z, axis=-1, keepdims=True))",
         "log_pi, 1 - np.exp(z - np.max(z, axis=-1, keepdims=True))"),
    ),
    "derivative of the logits, not of log π": (
        coupled_noise_is_the_truncated_one,
        ("    log_pi = log_softmax(a)\n    z =", "    log_pi = a\n    z ="),
    ),
    "sign of the control variate's score": (
        rebar_is_exact,
        ("difference - stop_gradient(f_tilde)", "difference + stop_gradient(f_tilde)"),
    ),
    "f(h̃) not stopped": (
        rebar_is_exact,
        ("difference - stop_gradient(f_tilde) * log_q_i", "difference - f_tilde * log_q_i"),
    ),
    "score of all layers in the control variate": (
        lambda m: rebar_is_unbiased(m, "predict"),
        ("stop_gradient(f_tilde) * log_q_i", "stop_gradient(f_tilde) * sum(log_q)"),
    ),
    "f's own derivative at h, without that at h̃": (
        lambda m: rebar_is_unbiased(m, "predict"),
        ("direct, known = stop_gradient(params)", "direct, known = params"),
    ),
    "not truncated": (
        independent_rebar_is_exact,
        ("top - (1 - b) * softplus(top - log_softmax(a) - G)",
         "b * top + (1 - b) * (log_softmax(a) + G)"),
    ),
    "truncated without π": (
        independent_rebar_is_exact,
        ("softplus(top - log_softmax(a) - G)", "softplus(top - G)"),
    ),
    "T's gradient lost": (
        variance_gradient_is_exact,
        ("params, x, noise, T, C, **options)", "params, x, noise, stop_gradient(T), C, **options)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([(("gumbel_softmax", "vimco", "categorical", "models"), old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
