"""M2: its bounds by hand, below the exact evidence, and the six gradients of E_{q(y|x)}: exact,
unbiased, biased, all by enumeration of y and quadrature over the noise; then runs and mutations.

The tiny model has 3 pixels, z of one dimension, C classes. Integrals over a normal variable are
trapezoidal sums, which converge exponentially.
"""

import argparse
import csv
import importlib
import itertools
import json
import math

import numpy as np
import proofs
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import bernoulli, norm, t

M = proofs.load()
ALL = ("marginal", "gumbel", "straight-through", "reinmax", "reinforce", "unordered")
SEVERAL = ("reinforce", "unordered")  # samples of an image, at least 2


def tiny(m, classes=3, seed=1, samples=1, depth=1, activation="tanh"):
    """A model in float64, its parameters away from zero, and a batch of images with noise."""
    rng = np.random.default_rng(seed)
    model = m.gaussian.M2(
        [0.3, 0.5, 0.6],
        classes,
        1,
        2,
        depth,
        samples,
        np.float64,
        activation=m.models.ACTIVATIONS[activation],
    )
    params = [p + 0.5 * rng.standard_normal(p.shape) for p in model.init(rng)]
    x_u, x_l = np.array([[1.0, 0, 1], [0, 1, 1]]), np.array([[0.0, 0, 1], [1, 1, 0], [1, 0, 0]])
    y_l = np.eye(classes)[np.arange(3) % classes]
    noise = (*model.draw_noise(rng, len(x_u)), rng.standard_normal((3, 1)), 1.0, 1.0)
    return model, params, (x_u, x_l, y_l), noise


def grads_of(m, unlabelled, model, params, x, noise, **options):
    """The gradient of `objective`, all tensors as one vector; T is 1 unless it is said."""
    T = options.pop("temperature", 1.0)
    _, grads, _ = m.semi_supervised.estimate(
        model, params, m.semi_supervised.init_aux(None, model), x, noise, unlabelled=unlabelled,
        temperature=T, min_temperature=T, **options,
    )  # fmt: skip
    return np.concatenate([g.ravel() for g in grads])


# ------------------------------------------------------------------------------ written out by hand


RELU = lambda a: np.where(a > 0, a, 0)


def net_by_hand(model, params, net, h, k=None, activation=np.tanh):
    """The output of a net at h; y = k enters the first layer, if the net has it."""
    P = {name: np.asarray(p) for name, p in zip(model.names, params)}
    h = h @ P[f"{net}.W0"] + P[f"{net}.b0"] + (0 if k is None else P[f"{net}.Y"][k])
    for i in range(1, sum(name.startswith(f"{net}.W") for name in P)):
        h = activation(h) @ P[f"{net}.W{i}"] + P[f"{net}.b{i}"]
    return h


def log_joint(model, params, x, k, z, activation=np.tanh):
    """log p(x, y = k, z) of one image, for z (n,)."""
    a = net_by_hand(model, params, "p(x|y,z)", z[:, None], k, activation)
    p = 1 / (1 + np.exp(-(a + model.offset)))
    return bernoulli.logpmf(x, p).sum(axis=1) + norm.logpdf(z) - math.log(model.classes)


def log_q_by_hand(model, params, x, activation=np.tanh):
    return log_softmax(net_by_hand(model, params, "q(y|x)", x - model.mean, activation=activation))


def encoder_by_hand(model, params, x, k, activation=np.tanh):
    mean, log_var = net_by_hand(model, params, "q(z|x,y)", x - model.mean, k, activation)
    return mean, math.exp(log_var / 2)


def minus_L_by_hand(model, params, x, k, eps, activation=np.tanh):
    """One sample of −L(x, k), but for the KL term, which is in closed form."""
    mean, sd = encoder_by_hand(model, params, x, k, activation)
    z = np.array([mean + sd * eps])
    kl = -math.log(sd) + (sd**2 + mean**2) / 2 - 0.5
    return (log_joint(model, params, x, k, z, activation) - norm.logpdf(z))[0] - kl


def objective_by_hand(model, params, x, noise, alpha, activation=np.tanh):
    """J with E_{q(y|x)} as a sum over classes, image by image; and −U of each image."""
    (x_u, x_l, y_l), (_, eps_u, eps_l, *_), minus_U, labelled = x, noise, [], []
    for image, eps in zip(x_u, eps_u[:, 0]):
        total, log_q = 0.0, log_q_by_hand(model, params, image, activation)
        for k in range(model.classes):
            f = minus_L_by_hand(model, params, image, k, eps, activation)
            total += math.exp(log_q[k]) * (f - log_q[k])
        minus_U.append(total)
    for image, y, eps in zip(x_l, y_l, eps_l[:, 0]):
        k = int(np.argmax(y))
        log_q = log_q_by_hand(model, params, image, activation)[k]
        minus_L = minus_L_by_hand(model, params, image, k, eps, activation)
        labelled.append(minus_L + alpha * log_q)
    return np.mean(minus_U) + np.mean(labelled), np.array(minus_U)


def marginal_is_the_enumerated_objective(m, depth=1, activation="tanh"):
    """The value, and the gradient of every parameter by central differences: 1e-12 and 1e-8."""
    function = {"tanh": np.tanh, "relu": RELU}[activation]
    for classes in (1, 2, 3):
        model, params, x, noise = tiny(m, classes, depth=depth, activation=activation)
        alpha = 0.7
        J, minus_U = m.semi_supervised.objective(model, params, x, noise, 1.0, alpha=alpha)
        expected, each = objective_by_hand(model, params, x, noise, alpha, function)
        np.testing.assert_allclose(J, expected, rtol=1e-12)
        np.testing.assert_allclose(minus_U, each, rtol=1e-12)
        g = iter(grads_of(m, "marginal", model, params, x, noise, alpha=alpha))
        for tensor in params:
            for at in np.ndindex(tensor.shape):
                values, kept = [], tensor[at]
                for step in (1e-5, -1e-5):
                    tensor[at] = kept + step
                    values.append(objective_by_hand(model, params, x, noise, alpha, function)[0])
                tensor[at] = kept
                assert abs((values[0] - values[1]) / 2e-5 - next(g)) < 1e-8


# -------------------------------------------------------------------------------- the six gradients


def uniforms_for(classes_drawn, K):
    """u (samples, 1, K) that make the Gumbel-max trick draw these classes."""
    return np.where(np.eye(K)[list(classes_drawn)] == 1, 1 - 1e-12, 1e-12)[:, None]


def reinforce_is_exact(m, samples=2):
    """The mean over all outcomes of y_1, …, y_S, each with its probability, for every parameter.

    It has to be the gradient of `marginal`, and the value its value: 1e-12.
    """
    model, params, (x_u, x_l, y_l), (_, eps_u, *rest) = tiny(m, samples=samples)
    x, K = (x_u[:1], x_l, y_l), model.classes
    q = np.exp(log_q_by_hand(model, params, x_u[0]))
    mean, value = 0.0, 0.0
    for outcome in itertools.product(range(K), repeat=samples):
        noise = uniforms_for(outcome, K), eps_u[:1], *rest
        weight = math.prod(q[k] for k in outcome)
        mean = mean + weight * grads_of(m, "reinforce", model, params, x, noise)
        J, _ = m.semi_supervised.objective(model, params, x, noise, 1.0, unlabelled="reinforce")
        value += weight * J
    exact = grads_of(m, "marginal", model, params, x, noise)
    np.testing.assert_allclose(mean, exact, atol=1e-12)
    J, _ = m.semi_supervised.objective(model, params, x, noise, 1.0)
    np.testing.assert_allclose(value, J, rtol=1e-12)


def unordered_is_exact(m):
    """The mean over all sets of 2 of 3 and of 4, each with its probability, for every parameter.

    The sequences that draw a set, one class after the other and none twice, have its probability.
    It has to be the gradient of `marginal`, and the value its value: 1e-12.
    """
    for K, samples in ((3, 2), (4, 2), (4, 3)):
        model, params, (x_u, x_l, y_l), (_, eps_u, *rest) = tiny(m, K, samples=samples)
        x, q = (x_u[:1], x_l, y_l), np.exp(log_q_by_hand(model, params, x_u[0]))
        mean, value = 0.0, 0.0
        for chosen in itertools.combinations(range(K), samples):
            weight = 0.0
            for order in itertools.permutations(chosen):
                left = [1 - sum(q[k] for k in order[:i]) for i in range(samples)]
                weight += math.prod(q[k] / rest for k, rest in zip(order, left))
            u = np.where(np.isin(np.arange(K), chosen), 1 - 1e-9, 1e-9)
            noise = np.tile(u, (samples, 1, 1)), eps_u[:1], *rest
            mean = mean + weight * grads_of(m, "unordered", model, params, x, noise)
            J, _ = m.semi_supervised.objective(model, params, x, noise, 1.0, unlabelled="unordered")
            value += weight * J
        exact = grads_of(m, "marginal", model, params, x, noise)
        np.testing.assert_allclose(mean, exact, atol=1e-12)
        J, _ = m.semi_supervised.objective(model, params, x, noise, 1.0)
        np.testing.assert_allclose(value, J, rtol=1e-12)


def unordered_of_all_classes_is_marginal(m):
    """With S = K the set is always all classes, and nothing is left to chance: 1e-12."""
    model, params, x, noise = tiny(m, classes=3, samples=3)
    g = grads_of(m, "unordered", model, params, x, noise)
    np.testing.assert_allclose(g, grads_of(m, "marginal", model, params, x, noise), atol=1e-12)


def unordered_draws_one_set_an_image(m):
    """S different classes of each image, by the largest of log q + g of its own noise."""
    model, params, x, noise = tiny(m, classes=4, samples=2)
    seen, u = [], noise[0]
    log_q = np.array([log_q_by_hand(model, params, image) for image in x[0]])
    f = lambda y: seen.append(y) or np.zeros(y.shape[:2])
    m.semi_supervised.unordered(f, log_q, u, 1.0)
    likeliest = np.argsort(-(log_q - np.log(-np.log(u[0]))), axis=-1)[:, :2]
    np.testing.assert_array_equal(seen[0], np.eye(4)[likeliest.T])


def reinmax_mean(m, f, log_q):
    """The mean of the estimate by log q (1, K), over y by enumeration, and the exact gradient."""
    K, mean = log_q.shape[-1], 0.0

    def gradient(function, u):
        def value(tensors):
            v = function(f, m.categorical.log_softmax(tensors[0]), u, 1.0)
            return [m.common.anp.sum(v)], []

        return m.common.gradients(value, [log_q])[0][0][0]

    for k in range(K):
        g = gradient(m.semi_supervised.reinmax, uniforms_for([k], K))
        mean = mean + np.exp(log_q[0, k]) * g
    return mean, gradient(m.semi_supervised.marginal, None)


def reinmax_is_exact_for_quadratic_f(m):
    """By enumeration of y: 1e-12 for a quadratic f of all y_k; a cubic is off by more than 1 %."""
    rng, log_q = np.random.default_rng(0), log_softmax([[0.3, -1.0, 0.5, 0.1]], axis=-1)
    A, c, cube = rng.standard_normal((4, 4)), rng.standard_normal(4), rng.standard_normal(4)
    quadratic = lambda y: m.common.anp.sum((y @ A) * y + y * c, axis=-1)
    mean, exact = reinmax_mean(m, quadratic, log_q)
    np.testing.assert_allclose(mean, exact, atol=1e-12)
    mean, exact = reinmax_mean(m, lambda y: m.common.anp.sum(y * cube, axis=-1) ** 3, log_q)
    assert np.abs(mean - exact).max() > 0.01 * np.abs(exact).max()


def relaxed_mean(m, unlabelled, T, n=4001):
    """E over u of the relaxed gradient for two classes, whose Gumbel noise differs by a logistic s.

    The samples are the n midpoints of its distribution, so that one estimate is the integral.
    """
    model, params, (x_u, x_l, y_l), (_, eps_u, *rest) = tiny(m, classes=2)
    s = M.common.logit((np.arange(n) + 0.5) / n)
    g = np.stack([s / 2, -s / 2], axis=-1)[:, None]  # (n, 1, 2): Gumbel noise, up to a shift
    u = np.exp(-np.exp(-g))
    x, noise = (x_u[:1], x_l, y_l), (u, eps_u[:1], *rest)
    biased = grads_of(m, unlabelled, model, params, x, noise, temperature=T)
    return biased, grads_of(m, "marginal", model, params, x, noise)


def bias(m, unlabelled, T):
    """Largest error of the relaxed gradient of any parameter, relative to the largest gradient."""
    biased, exact = relaxed_mean(m, unlabelled, T)
    return np.abs(biased - exact).max() / np.abs(exact).max()


def gumbel_becomes_exact_as_it_cools(m):
    biases = [bias(m, "gumbel", T) for T in (1.0, 0.5, 0.25, 0.1, 0.03)]
    assert biases[0] > 0.02
    assert all(colder < 0.75 * warmer for warmer, colder in itertools.pairwise(biases)), biases
    assert biases[-1] < 0.01


def straight_through_is_the_chain_rule(m):
    """f and df/dy at the hard y, dy/dlogits that of the softmax, written out: 1e-12."""
    rng, K, T = np.random.default_rng(0), 4, 0.6
    slope, u = rng.standard_normal(K), rng.random((5, 1, K))
    a = rng.standard_normal((1, K))

    def value(params):
        f = lambda y: m.common.anp.sum(y * slope, axis=-1) ** 2
        log_q = m.categorical.log_softmax(params[0])
        v = m.semi_supervised.straight_through(f, log_q, u, T)
        return [v[0]], v

    ((g,),), v = m.common.gradients(value, [a])
    perturbed = log_softmax(a, axis=-1) - np.log(-np.log(u))
    winner, h = perturbed.argmax(axis=-1)[:, 0], softmax(perturbed / T, axis=-1)[:, 0]
    np.testing.assert_allclose(v[0], np.mean(slope[winner] ** 2), rtol=1e-12)
    df = 2 * slope[winner][:, None] * slope  # (samples, K)
    by_hand = np.mean(h * (df - np.sum(df * h, axis=1, keepdims=True)), axis=0) / T
    np.testing.assert_allclose(g[0], by_hand, atol=1e-12)


def hard_y_has_probabilities_q(m, rng):
    """Of 800,000 draws: Student t of every frequency; false alarm 1e-6, detects .006."""
    model, params, (x, *_), _ = tiny(m, samples=2000)
    blocks = []
    for _ in range(200):
        u, _ = model.draw_noise(rng, len(x))
        blocks.append(m.categorical.hard_sample(model.classify(params, x), u).mean(axis=0))
    q = np.exp([log_q_by_hand(model, params, image) for image in x])
    error = np.std(blocks, axis=0, ddof=1) / math.sqrt(len(blocks))
    threshold = t.isf(1e-6 / (2 * q.size), len(blocks) - 1)
    assert np.all(np.abs(np.mean(blocks, axis=0) - q) < threshold * error)
    assert (threshold + norm.isf(0.01)) * error.max() < 0.006


# --------------------------------------------------------------------- bounds on the exact evidence


def normal_nodes(half=12, step=0.05):
    """Nodes and weights with weights @ g(nodes) = E[g(ε)], ε normal."""
    nodes = np.arange(-half, half + step / 2, step)
    return nodes, step * norm.pdf(nodes)


def log_evidence(model, params, x):
    """log p(x, y) of one image, (K,),; integrals over z are trapezoidal sums."""
    z, weights = normal_nodes()
    terms = [log_joint(model, params, x, k, z) - norm.logpdf(z) for k in range(model.classes)]
    return logsumexp(terms, b=weights, axis=1)


def elbos(m, model, params, x):
    """E[−L(x, y)] of one image, (K,), and E[−U(x)], with the noise ε integrated out."""
    nodes, weights = normal_nodes()
    tiled, eps = np.tile(x, (len(nodes), 1)), nodes[:, None]
    minus_L = model.bound(params, tiled, np.eye(model.classes)[:, None], eps) @ weights
    labelled = tiled[:1], np.eye(model.classes)[:1], np.zeros((1, 1))
    u = np.full((1, len(nodes), model.classes), 0.5)
    x, noise = (tiled, *labelled[:2]), (u, eps, labelled[2], 1.0, 1.0)
    _, minus_U = m.semi_supervised.objective(model, params, x, noise, 1.0)
    return minus_L, minus_U @ weights


def bounds_are_below_the_evidence(m):
    """−L ≤ log p(x, y) and −U ≤ log p(x) for ten models and all eight images of three pixels."""
    for seed in range(10):
        model, params, _, _ = tiny(m, seed=seed)
        images = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
        evidence = np.array([log_evidence(model, params, x) for x in images])  # (8, K)
        assert abs(logsumexp(evidence)) < 1e-9  # the eight images are all there are
        for x, log_p in zip(images, evidence):
            minus_L, minus_U = elbos(m, model, params, x)
            assert np.all(minus_L < log_p)
            assert minus_U < logsumexp(log_p)


def bounds_are_tight_at_the_posterior(m):
    """A decoder without z makes q(z|x, y) = p(z) the posterior; q(y|x) is set to its own: 1e-9."""
    model, params, _, _ = tiny(m)
    P, x = dict(zip(model.names, params)), np.array([1.0, 0, 1])
    for name in ("p(x|y,z).W0", "q(z|x,y).W1", "q(z|x,y).b1", "q(y|x).W1"):
        P[name][...] = 0
    log_p = log_evidence(model, params, x)
    P["q(y|x).b1"][...] = log_p
    minus_L, minus_U = elbos(m, model, params, x)
    np.testing.assert_allclose(minus_L, log_p, atol=1e-9)
    np.testing.assert_allclose(minus_U, logsumexp(log_p), atol=1e-9)


class Scripted:
    """In place of a generator: it returns the noise that it was given."""

    def __init__(self, uniforms, normals):
        self.random = lambda shape, dtype: uniforms.reshape(shape)
        self.standard_normal = lambda shape, dtype: normals.reshape(shape)


def importance_weights_average_to_the_evidence(m):
    """E[w] = p(x) and E[log w] = −U, by all classes and a trapezoidal sum over ε: 1e-9."""
    model, params, (x, *_), _ = tiny(m)
    nodes, _ = normal_nodes(half=40)  # w grows where q is narrower than the prior
    log_weights = norm.logpdf(nodes) + math.log(0.05)
    n, K = len(nodes), model.classes
    rng = Scripted(np.tile(uniforms_for(range(K), K), (n, 1, 1)), np.repeat(nodes, K))
    for image in x:
        log_w = model.log_weights(params, image[None], n * K, rng)[:, 0]
        log_q = (log_weights[:, None] + log_q_by_hand(model, params, image)).ravel()
        log_p = logsumexp(log_evidence(model, params, image))
        assert abs(logsumexp(log_q + log_w) - log_p) < 1e-9
        assert abs(np.exp(log_q) @ log_w - elbos(m, model, params, image)[1]) < 1e-9


# -------------------------------------------------------------------------------------------- tests


def test_marginal_is_the_enumerated_objective():
    marginal_is_the_enumerated_objective(M)


@pytest.mark.parametrize("samples", [2, 3])
def test_reinforce_is_exact(samples):
    reinforce_is_exact(M, samples)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nets(depth, activation):
    marginal_is_the_enumerated_objective(M, depth, activation)


def test_unordered_is_exact():
    unordered_is_exact(M)


def test_unordered_of_all_classes_is_marginal():
    unordered_of_all_classes_is_marginal(M)


def test_unordered_draws_one_set_an_image():
    unordered_draws_one_set_an_image(M)


def test_reinmax_is_exact_for_quadratic_f():
    reinmax_is_exact_for_quadratic_f(M)


@pytest.mark.parametrize("T", [1.0, 2.0])
def test_reinmax_is_biased(T):
    """On M2, whose f is not quadratic: by more than 2 % of the largest gradient."""
    assert bias(M, "reinmax", T) > 0.02


def test_gumbel_becomes_exact_as_it_cools():
    gumbel_becomes_exact_as_it_cools(M)


@pytest.mark.parametrize("T", [0.5, 0.1, 0.03])
def test_straight_through_stays_biased(T):
    """By more than 4 % of the largest gradient, also where the soft one is all but exact."""
    assert bias(M, "straight-through", T) > 0.04


def test_straight_through_is_the_chain_rule():
    straight_through_is_the_chain_rule(M)


def test_hard_y_has_probabilities_q(rng):
    hard_y_has_probabilities_q(M, rng)


def test_bounds_are_below_the_evidence():
    bounds_are_below_the_evidence(M)


def test_bounds_are_tight_at_the_posterior():
    bounds_are_tight_at_the_posterior(M)


def test_importance_weights_average_to_the_evidence():
    importance_weights_average_to_the_evidence(M)


# -------------------------------------------------------------------------------------- its numbers


@pytest.mark.parametrize("unlabelled", ALL[:-1])  # unordered needs two classes
def test_one_class_is_an_ordinary_vae(unlabelled):
    """K = 1: H = 0, log q = 0, and −U = −L(x, 0) for every estimator, and so the gradients."""
    model, params, x, noise = tiny(M, classes=1, samples=2)
    _, minus_U = M.semi_supervised.objective(model, params, x, noise, 0.5, unlabelled=unlabelled)
    expected = model.bound(params, x[0], np.ones((2, 1)), noise[1])
    np.testing.assert_allclose(minus_U, expected, rtol=1e-12)
    g = grads_of(M, unlabelled, model, params, x, noise)
    np.testing.assert_allclose(g, grads_of(M, "marginal", model, params, x, noise), atol=1e-12)


def returned_bound_is_discrete(m):
    """That of hard y from the same u, if one is drawn, also when f took a relaxed one."""
    model, params, x, noise = tiny(m, samples=2)
    aux, u = m.semi_supervised.init_aux(None, model), noise[0]
    for unlabelled in ALL[1:-1]:
        bound, *_ = m.semi_supervised.estimate(model, params, aux, x, noise, unlabelled=unlabelled)
        for i, image in enumerate(x[0]):
            log_q = log_q_by_hand(model, params, image)
            drawn = np.argmax(log_q - np.log(-np.log(u[:, i])), axis=-1)
            eps = noise[1][i, 0]
            f = [minus_L_by_hand(model, params, image, k, eps) for k in drawn]
            assert abs(bound[i] - np.mean(f) + np.exp(log_q) @ log_q) < 1e-12


def temperature_is_annealed(m):
    """T = max(minimum, first · exp(−R t)), t counted in aux, and it is the T that is used."""
    model, params, x, noise = tiny(m)
    aux, seen = m.semi_supervised.init_aux(None, model), []
    for _ in range(4):
        options = {"temperature": 2.0, "anneal_rate": 0.4, "min_temperature": 0.7}
        _, grads, aux = m.semi_supervised.estimate(
            model, params, aux, x, noise, unlabelled="gumbel", **options
        )
        aux = [a.value for a in aux]
        seen.append(float(aux[1]))
        flat = np.concatenate([g.ravel() for g in grads])
        at_T = grads_of(m, "gumbel", model, params, x, noise, temperature=seen[-1])
        np.testing.assert_array_equal(flat, at_T)
    np.testing.assert_allclose(seen, [2, 2 * math.exp(-0.4), 2 * math.exp(-0.8), 0.7])


def alpha_rises(m):
    """α min(1, t / N), t counted in aux, and it is the α that is used."""
    model, params, x, noise = tiny(m)
    aux = m.semi_supervised.init_aux(None, model)
    for expected in (0.0, 2.0, 4.0, 6.0, 6.0):
        _, grads, aux = m.semi_supervised.estimate(
            model, params, aux, x, noise, alpha=6.0, alpha_ramp=3
        )
        aux = [a.value for a in aux]
        flat = np.concatenate([g.ravel() for g in grads])
        at_alpha = grads_of(m, "marginal", model, params, x, noise, alpha=expected)
        np.testing.assert_allclose(flat, at_alpha, rtol=1e-12)


def small(m, scale=1.0, samples=2):
    """A model in float32 whose class logits are spread by `scale`, a batch and noise."""
    model, rng = (
        m.gaussian.M2(np.full(8, 0.3), 4, 2, 5, samples=samples),
        np.random.default_rng(0),
    )
    params = model.init(rng)
    params[model.n_classifier - 1][...] = scale * np.array([1, -1, 0.5, -1])
    x = [(rng.random((n, 8)) < 0.3).astype(np.float32) for n in (6, 4)]
    noise = *model.draw_noise(rng, 6), rng.standard_normal((4, 2), np.float32)
    keep = [m.semi_supervised.draw_keep(rng, images, 0.4) for images in x]
    return model, params, (*x, np.eye(4, dtype=np.float32)), (*noise, *keep)


@pytest.mark.parametrize("unlabelled", ALL)
@pytest.mark.parametrize("scale", [0, 50, 1e4])
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extremes_are_finite(unlabelled, scale, temperature):
    """Class logits 0 or up to 10,000 apart, the uniforms at their ends, T far out either way."""
    model, params, x, noise = small(M, scale)
    noise[0][0, :, ::2], noise[0][0, :, 1::2] = 1e-6, 1 - 1e-6
    aux = M.semi_supervised.init_aux(None, model)
    bound, grads, _ = M.semi_supervised.estimate(
        model, params, aux, x, noise, unlabelled=unlabelled, temperature=temperature,
        min_temperature=temperature,
    )  # fmt: skip
    assert all(np.all(np.isfinite(a)) for a in (bound, *grads))


@pytest.mark.parametrize("unlabelled", ALL)
def test_float32_is_kept_everywhere(monkeypatch, unlabelled):
    """In every traced value and result: one float64 would double the cost of all that follows."""
    promoted = proofs.promotions(M, monkeypatch)
    model, params, x, noise = small(M)
    _, aux = M.optimizer.flatten(M.semi_supervised.init_aux(None, model), np.float32)
    bound, grads, aux = M.semi_supervised.estimate(
        model, params, aux, x, noise, unlabelled=unlabelled, alpha=0.3, alpha_ramp=2,
        anneal_rate=0.1,
    )  # fmt: skip
    assert promoted == []
    results = [bound, *grads, *[a.value for a in aux]]
    results.append(model.log_weights(params, x[0], 3, np.random.default_rng(0)))
    assert {np.asarray(a).dtype for a in results} == {np.dtype(np.float32)}
    assert [g.shape for g in grads] == [p.shape for p in params]


def test_returned_bound_is_discrete():
    returned_bound_is_discrete(M)


def test_temperature_is_annealed():
    temperature_is_annealed(M)


def test_alpha_rises():
    alpha_rises(M)


# ------------------------------------------------------------------------------ data and whole runs


def test_labels_are_stratified_and_removed():
    """N of every class, by seed, and the unlabelled images are exactly the others, in order."""
    arrays = M.data.read_images("digits")
    data, (labelled, classes), judged = M.semi_supervised.load("digits", 7, seed=3)
    np.testing.assert_array_equal(np.bincount(classes), np.full(10, 7))
    assert len(data.train) == len(arrays["train"]) - 70
    everything = np.concatenate([data.train, labelled.train])
    key = lambda images: np.sort(images.astype(int) @ (np.arange(64) ** 3 + 1))
    np.testing.assert_array_equal(key(everything), key(arrays["train"]))
    for image, y in zip(labelled.train, classes):  # each has its own class
        same = np.all(arrays["train"] == image, axis=1)
        assert set(arrays["labels_train"][same]) == {y}
    np.testing.assert_array_equal(judged["test"][1], arrays["labels_test"])
    np.testing.assert_allclose(judged["test"][0] * 16, arrays["test"])
    _, (other, _), _ = M.semi_supervised.load("digits", 7, seed=4)
    assert np.any(labelled.train != other.train)


def test_dropout_keeps_the_mean(rng):
    keep = M.semi_supervised.draw_keep(rng, np.ones((500, 1000), np.float32), 0.3)
    values, counts = np.unique(keep, return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.7], rtol=1e-6)
    assert abs(counts[0] / keep.size - 0.3) < 5 * math.sqrt(0.21 / keep.size)  # 1 in 2 million


SMALL = ["--hidden", "12", "--z", "3", "--batch-size", "40", "--eval-samples", "3"]


def read_log(folder):
    with open(folder / "log.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("unlabelled", ALL)
def test_run(tmp_path, capsys, unlabelled):
    """What a run leaves and prints; and that its accuracy is that of the classifier's argmax."""
    flags = ["--unlabelled", unlabelled, "--steps", "40", "--log-every", "20", "--lr", ".01"]
    flags += ["--labels", "10", "--eval-every", "30"]
    flags += ["--samples", "2"] * (unlabelled in SEVERAL)
    flags += ["--no-plots"] * (unlabelled != "gumbel")
    M.semi_supervised.main([*SMALL, *flags, "--out", str(tmp_path / "run")])
    rows = read_log(tmp_path / "run")
    evaluated = {int(row["step"]): (row["valid_accuracy"] != "", row["test_accuracy"] != "")
                 for row in rows}  # fmt: skip
    assert evaluated == {20: (False, False), 30: (True, False), 40: (True, True)}
    if unlabelled == "gumbel":
        figures = {"analogies.png", "confusion.png", "curves.png", "samples.png"}
        assert figures <= {path.name for path in (tmp_path / "run").iterdir()}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["labels"] == 100
    assert summary["test_accuracy"] == float(rows[-1]["test_accuracy"]) > 0.3
    assert 0.3 < summary["supervised_test_accuracy"] < 1
    out = capsys.readouterr().out
    for key in ("test_accuracy", "supervised_test_accuracy"):
        assert f"{summary[key]:.2%}" in out


RESUMED = [
    "--unlabelled gumbel",
    "--unlabelled reinmax --alpha-ramp 8 --activation relu --depth 2",
    "--unlabelled unordered --samples 3 --decay .5 --decay-every 3",
]


@pytest.mark.parametrize("words", RESUMED)
def test_run_resumes_bit_for_bit(tmp_path, words):
    flags = [*SMALL, *words.split(), "--log-every", "5", "--no-plots"]
    M.semi_supervised.main([*flags, "--steps", "10", "--out", str(tmp_path / "whole")])
    M.semi_supervised.main([*flags, "--steps", "5", "--out", str(tmp_path / "half")])
    M.semi_supervised.main(["--resume", str(tmp_path / "half"), "--steps", "10"])
    with (
        np.load(tmp_path / "whole" / "checkpoint.npz") as whole,
        np.load(tmp_path / "half" / "checkpoint.npz") as half,
    ):
        for key in set(whole.files) - {"seconds"}:
            np.testing.assert_array_equal(whole[key], half[key], err_msg=key)


def default_alphas():
    """Every dataset with labels and every gradient has one."""
    program = M.semi_supervised
    return [(dataset, unlabelled, program.ALPHA[dataset][unlabelled])
            for dataset in ("digits", "mnist") for unlabelled in program.UNLABELLED]  # fmt: skip


@pytest.mark.parametrize(("dataset", "unlabelled", "alpha"), default_alphas())
def test_default_alpha(monkeypatch, dataset, unlabelled, alpha):
    """It is that of dataset and gradient; the flag overrides it; mnist-grey is MNIST."""
    seen = []
    monkeypatch.setattr(M.semi_supervised, "train", lambda args, rate: seen.append(args.alpha))
    flags = ["--unlabelled", unlabelled, *["--samples", "2"] * (unlabelled in SEVERAL)]
    for name in (dataset, "mnist-grey")[: 1 + (dataset == "mnist")]:
        M.semi_supervised.main([*flags, "--dataset", name])
        M.semi_supervised.main([*flags, "--dataset", name, "--alpha", "0.25"])
        assert seen == [alpha, 0.25]
        seen.clear()


def test_learning_rate_falls(tmp_path, monkeypatch):
    """By --decay every --decay-every steps, also for the classifier that sees labels alone."""
    seen, Adam = [], M.optimizer.Adam

    class Watched(Adam):
        def ascend(self, *arrays):
            seen.append(self.lr)
            return super().ascend(*arrays)

    monkeypatch.setattr(M.semi_supervised, "Adam", Watched)
    monkeypatch.setattr(M.trainer, "Adam", Watched)
    flags = [*SMALL, "--steps", "5", "--lr", ".01", "--decay", ".5", "--decay-every", "2"]
    M.semi_supervised.main([*flags, "--no-plots", "--out", str(tmp_path / "run")])
    rates = [0.01, 0.01, 0.005, 0.005, 0.0025]
    trained = [lr for lr in seen[:10] if lr > 0]  # the other Adam descends
    np.testing.assert_allclose(trained, rates)
    np.testing.assert_allclose(seen[10:], rates)


def test_speed_by_classes(tmp_path, monkeypatch):
    """The benchmark times what a run does: a step as a run has it, in gumbel two passes."""
    monkeypatch.syspath_prepend(str(proofs.METHODS.parent / "tests" / "benchmarks"))
    speed_of = importlib.import_module("semi_supervised_speed")
    speed = speed_of.measure("digits", counts=(2, 12), rounds=1)
    assert all(len(values) == 2 and min(values) > 0 for values in speed.values())
    speed_of.plot(tmp_path / "speed.png", (2, 12), speed)
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    passes = []
    trainers = {mode: speed_of.make_trainer("digits", mode, 3) for mode in speed_of.MODES}
    for mode, trainer in trainers.items():
        assert trainer.model.classes == 3
        bound = trainer.model.bound
        trainer.model.bound = lambda params, x, y, eps, m=mode, f=bound: (
            passes.append((m, np.shape(y))) or f(params, x, y, eps)
        )
        trainer.step()
    soft, labelled, every = (1, 100, 3), (100, 3), (3, 1, 3)
    once = {"marginal": [every, labelled], "straight-through": [soft, labelled],
            "gumbel": [soft, labelled] * 2}  # fmt: skip
    assert {mode: [shape for m, shape in passes if m == mode] for mode in trainers} == once


def test_gradients_along_training(tmp_path, monkeypatch):
    """The benchmark finds no bias and no noise in the exact gradient, and both in a relaxed one."""
    monkeypatch.syspath_prepend(str(proofs.METHODS.parent / "tests" / "benchmarks"))
    along = importlib.import_module("semi_supervised_gradients")
    args = argparse.Namespace(dataset="digits", labels=2, compile=False, images=50, steps=(1, 3),
                              draws=3)  # fmt: skip
    trainer = along.make_trainer(args, "marginal", 1, 1.0)
    along.advance(trainer, 3)
    assert trainer.step_count == 3
    gradients = along.Gradients(trainer, images=50)
    assert gradients.compare("marginal", 1.0, 1, 2) == {"bias": 0, "cosine": 1, "noise": 0}
    along.advance(trainer, 100)
    hot, cold = (along.Gradients(trainer, 50).compare("gumbel", T, 1, 200) for T in (1.0, 0.1))
    assert 0.2 < hot["bias"] < 1
    assert cold["bias"] < hot["bias"]
    assert 0.1 < hot["noise"] < cold["noise"]
    halves = [gradients.of(lambda p, c=c: c * np.sum(p[0] ** 2)) for c in (0.5, 1.0)]
    np.testing.assert_allclose(2 * halves[0], halves[1])
    np.testing.assert_allclose(halves[0][: trainer.params[0].size], trainer.params[0].ravel())
    rows = [row for name in along.OWN for alpha in (1.0, 10.0)
            for row in along.along(args, name, alpha)]  # fmt: skip
    assert [row["step"] for row in rows] == [1, 3] * 8
    ratio = rows[2]["labels"] / rows[0]["labels"]  # after one step, of Adam, nearly the same model
    assert 5 < ratio < 20
    along.plot(tmp_path / "gradients.png", rows)
    assert (tmp_path / "gradients.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "flags",
    [
        ["--unlabelled", "reinforce"],
        ["--unlabelled", "unordered"],
        ["--samples", "11", "--unlabelled", "unordered"],
        ["--decay", "1.5"],
        ["--decay-every", "5"],
        ["--depth", "0"],
        ["--activation", "sigmoid"],
        ["--alpha-ramp", "0"],
        ["--alpha-ramp", "5", "--alpha", "0"],
        ["--task", "predict"],
        ["--labels", "500"],
        ["--dropout", "1"],
        ["--temperature", "0"],
        ["--min-temperature", "2"],
        ["--alpha", "-1"],
    ],
    ids=" ".join,
)
def test_bad_flags(tmp_path, capsys, flags):
    named = "--samples" if flags[-1] in SEVERAL else flags[0]
    out = ["--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        M.cli.run(lambda: M.semi_supervised.main([*flags, *out]))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert not (tmp_path / "run").exists()


def test_images_without_labels_are_refused(monkeypatch):
    arrays = M.data.read_images("digits")
    bare = {key: x for key, x in arrays.items() if not key.startswith("labels_")}
    monkeypatch.setattr(M.semi_supervised, "read_images", lambda name: bare)
    with pytest.raises(M.common.InputError, match="--dataset: omniglot has no labels"):
        M.semi_supervised.load("omniglot", 10, 0)


# ---------------------------------------------------------------------------------------- mutations


seed_0 = lambda proof: lambda m: proof(m, np.random.default_rng(0))
MUTATIONS = {
    # -- marginal, and what all share
    "classes not weighted by q": (
        marginal_is_the_enumerated_objective,
        ("np.sum(np.exp(log_q).T * f(y), axis=0)", "np.sum(f(y), axis=0) / len(y)"),
    ),
    "log q where q is meant": (
        marginal_is_the_enumerated_objective,
        ("np.exp(log_q).T * f(y)", "log_q.T * f(y)"),
    ),
    "q not differentiated": (
        marginal_is_the_enumerated_objective,
        ("np.exp(log_q).T * f(y)", "np.exp(stop_gradient(log_q)).T * f(y)"),
    ),
    "sign of H": (
        marginal_is_the_enumerated_objective,
        ("entropy = -np.sum(", "entropy = np.sum("),
    ),
    "p(y) forgotten": (
        marginal_is_the_enumerated_objective,
        ("return log_p - math.log(self.classes) - kl", "return log_p - kl"),
    ),
    "KL(z) twice, as released in vae_ssl": (
        marginal_is_the_enumerated_objective,
        ("- math.log(self.classes) - kl", "- math.log(self.classes) - 2 * kl"),
    ),
    "variance where sd is meant": (
        bounds_are_below_the_evidence,
        ("eps\n        kl = ", "eps * np.exp(log_var / 2)\n        kl = "),
    ),
    "KL without the variance": (
        bounds_are_below_the_evidence,
        ("mean**2 + np.exp(log_var) - 1 - log_var", "mean**2"),
    ),
    "labels of the classifier's term ignored": (
        marginal_is_the_enumerated_objective,
        ("np.sum(y_l * model.classify(", "np.sum(model.classify("),
    ),
    "mean over the unlabelled batch for the labelled sum": (
        marginal_is_the_enumerated_objective,
        ("alpha * log_q_l) / len(x_l)", "alpha * log_q_l) / len(x_u)"),
    ),
    "importance weights without q(y|x)": (
        importance_weights_average_to_the_evidence,
        ("log_ratio - np.sum(y * log_q, axis=-1)", "log_ratio"),
    ),
    "importance weights with z for ε": (
        importance_weights_average_to_the_evidence,
        ("np.sum(eps**2 + log_var - z**2", "np.sum(log_var"),
    ),
    # -- gumbel
    "T on the noise only": (
        gumbel_becomes_exact_as_it_cools,
        (
            "h = np.exp(sample(log_q, u, temperature))\n    return",
            "h = np.exp(sample(temperature * log_q, u, temperature))\n    return",
        ),
    ),
    "a probability where a logit is meant": (
        gumbel_becomes_exact_as_it_cools,
        (
            "h = np.exp(sample(log_q, u, temperature))\n    return",
            "h = np.exp(sample(np.exp(log_q), u, temperature))\n    return",
        ),
    ),
    "h not differentiated": (
        gumbel_becomes_exact_as_it_cools,
        ("return np.sum(f(h), axis=0)", "return np.sum(f(stop_gradient(h)), axis=0)"),
    ),
    "the relaxed objective reported as the bound": (
        returned_bound_is_discrete,
        ('if unlabelled == "gumbel":', "if False:"),
    ),
    "annealing that heats": (
        temperature_is_annealed,
        ("np.exp(-anneal_rate", "np.exp(anneal_rate"),
    ),
    # -- straight-through
    "derivative through T = 1": (
        straight_through_is_the_chain_rule,
        (
            "h = np.exp(sample(log_q, u, temperature))\n    y = h",
            "h = np.exp(sample(log_q, u, 1.0))\n    y = h",
        ),
    ),
    "soft forward": (
        straight_through_is_the_chain_rule,
        ("y = h + stop_gradient(hard_sample(log_q, u) - h)", "y = h"),
    ),
    "no derivative": (
        straight_through_is_the_chain_rule,
        ("y = h + stop_gradient(hard_sample(log_q, u) - h)", "y = hard_sample(log_q, u) + 0 * h"),
    ),
    # -- reinforce
    "a baseline that sees its own sample": (
        reinforce_is_exact,
        ("axis=0) - stop_gradient(f_y)) / (S - 1)", "axis=0)) / S"),
    ),
    "sign of the score": (
        reinforce_is_exact,
        ("(stop_gradient(f_y) - others) *", "(others - stop_gradient(f_y)) *"),
    ),
    "direct derivative of f left out": (
        reinforce_is_exact,
        ("np.sum(f_y + score, axis=0)", "np.sum(stop_gradient(f_y) + score, axis=0)"),
    ),
    "score of q, not of log q": (
        reinforce_is_exact,
        (
            "np.sum(y * log_q, axis=-1)\n    others",
            "np.sum(y * np.exp(log_q), axis=-1)\n    others",
        ),
    ),
    # -- unordered
    "the mean of the whole set as the baseline": (
        unordered_is_exact,
        ("score = f_minus_B.T * (", "score = stop_gradient(f_y - np.sum(w.T * f_y, axis=0)) * ("),
    ),
    "the weight of the score forgotten": (
        unordered_is_exact,
        ("w.T * (f_y + score)", "w.T * f_y + score"),
    ),
    "weights of a mean": (unordered_is_exact, ("w.T * (f_y + score)", "(f_y + score) / len(u)")),
    "direct derivative of f left out of the set": (
        unordered_is_exact,
        ("w.T * (f_y + score)", "w.T * (stop_gradient(f_y) + score)"),
    ),
    "weights that are differentiated": (
        unordered_is_exact,
        ("*(stop_gradient(a).T for a in (log_q_y, f_y))", "*(a.T for a in (log_q_y, f_y))"),
    ),
    "sets of the prior": (
        unordered_draws_one_set_an_image,
        ("stop_gradient(log_q)[:, None], by_image(u)", "0 * log_q[:, None], by_image(u)"),
    ),
    "samples and images exchanged": (
        unordered_draws_one_set_an_image,
        (
            "return np.swapaxes(u, 0, 1)[:, :, None]",
            "return np.reshape(u, (u.shape[1], len(u), 1, -1))",
        ),
    ),
    "the set of the first image for all": (
        unordered_draws_one_set_an_image,
        (
            "y = np.swapaxes(sets[:, :, 0], 0, 1)",
            "y = np.swapaxes(0 * sets[:, :, 0] + sets[:1, :, 0], 0, 1)",
        ),
    ),
    # -- reinmax
    "first order": (
        reinmax_is_exact_for_quadratic_f,
        ("classes(log_q, u, None, T=", "classes(log_q, u, None, estimator='st', T="),
    ),
    "the slope of the softmax twice": (
        reinmax_is_exact_for_quadratic_f,
        (
            "return b + 2 * J(middle, d) - J(probabilities(fixed), d) / 2",
            "return b + 2 * J(middle, d) - J(probabilities(fixed), d)",
        ),
    ),
    "y at the mean": (
        reinmax_is_exact_for_quadratic_f,
        (
            "y = second_order.classes(log_q, u, None, T=temperature)",
            "y = np.exp(log_q) + 0 * second_order.classes(log_q, u, None, T=temperature)",
        ),
    ),
    "probabilities where logits are meant": (
        reinmax_is_exact_for_quadratic_f,
        ("second_order.classes(log_q, u", "second_order.classes(np.exp(log_q), u"),
    ),
    # -- α and the nets
    "a ramp of α that never ends": (
        alpha_rises,
        ("np.minimum(1, aux[0] / alpha_ramp)", "aux[0] / alpha_ramp"),
    ),
    "a ramp of α that falls": (
        alpha_rises,
        ("np.minimum(1, aux[0]", "np.maximum(0, 1 - aux[0]"),
    ),
    "α of −L as well": (
        marginal_is_the_enumerated_objective,
        ("minus_L + alpha * log_q_l", "alpha * (minus_L + log_q_l)"),
    ),
    "tanh in the classifier whatever is asked": (
        lambda m: marginal_is_the_enumerated_objective(m, 2, "relu"),
        ("(x - self.mean) * keep, self.activation)", "(x - self.mean) * keep)"),
    ),
    "tanh in the upper layers whatever is asked": (
        lambda m: marginal_is_the_enumerated_objective(m, 2, "relu"),
        (
            "activation(affine(h, W, b) + times(y, Y)), activation)",
            "activation(affine(h, W, b) + times(y, Y)))",
        ),
    ),
    "one uniform shared by the classes": (
        seed_0(hard_y_has_probabilities_q),
        (
            "rng.random((self.samples, batch, self.classes), self.dtype)",
            "rng.random((self.samples, batch, 1), self.dtype) + np.zeros(self.classes)",
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([(("semi_supervised", "gaussian", "reinmax"), old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
