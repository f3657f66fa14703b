"""The proofs that an estimator is right, as functions of the modules under test.

Each takes `m`, a namespace with the modules of methods/ by name, and raises AssertionError if the
estimator is wrong. The tests call them with the real modules, and with mutated ones, which they
have to reject.
"""

import ast
import graphlib
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import autograd.core
import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

METHODS = Path(__file__).resolve().parents[1] / "methods"
FALSE_ALARM = 1e-6  # of one Monte Carlo test, over all the numbers that it compares


def heed():
    """For preexec_fn: a shell starts background jobs with SIGINT ignored, nohup with SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def imports():
    """{module of methods/: the modules of methods/ that it imports}, by dotted name.

    Imports inside functions count: none may hide a circle.
    """
    paths = [*METHODS.glob("*.py"), *METHODS.glob("harness/*.py")]
    names = {".".join(path.relative_to(METHODS).with_suffix("").parts): path for path in paths}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    del names["harness.numpy_to_jax"]  # needs jax, and changes autograd
    graph = {}
    for name, path in names.items():
        found = {name.rpartition(".")[0]}  # the package of a module comes before it
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = found & {*names} - {name}
    return graph


def load(mutations=()):
    """The modules, executed from their files with each (file, old, new) replaced in the source.

    In the order of the floors: what is imported comes first. A file in harness/ is named without
    its folder, here and in the namespace returned; a tuple of files stands for the one of them that
    holds the old text. That text has to occur exactly once, so that a mutation cannot outlive the
    code it breaks.
    """
    names = list(graphlib.TopologicalSorter(imports()).static_order())
    paths = {name: METHODS / (name.replace(".", "/") + ".py") for name in names}
    paths["harness"] = METHODS / "harness" / "__init__.py"
    short = {name: name.rpartition(".")[2] for name in names}
    sources = {short[name]: paths[name].read_text(encoding="utf-8") for name in names}
    for files, old, new in mutations:
        files = [files] if isinstance(files, str) else files
        count = sum(sources[name].count(old) for name in files)
        assert count == 1, f"{files}: {count} times: {old}"
        sources |= {name: sources[name].replace(old, new) for name in files}
    modules, before = {}, {name: sys.modules.get(name) for name in names}
    try:
        for name in names:
            module = modules[short[name]] = sys.modules[name] = ModuleType(name)
            module.__file__ = str(paths[name])
            if paths[name].stem == "__init__":
                module.__path__ = [str(paths[name].parent)]
            exec(compile(sources[short[name]], module.__file__, "exec"), vars(module))
            if "." in name:  # as an import would
                setattr(sys.modules[name.rpartition(".")[0]], short[name], module)
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    return SimpleNamespace(**modules)


# ---------------------------------------------------------------------------------- exact, one bit


def quadratic(b):
    return anp.sum((b - 0.45) ** 2, axis=-1)


def steep(b):
    return anp.sum(anp.exp(1.5 * b) - 2 * b, axis=-1)


FUNCTIONS = (quadratic, steep)
LOGITS = (-2.0, 0.3, 1.5)


def mean_on_grid(samples, m, logit, n_u, n_v=1, **options):
    """E[gradient sample] and its variance for one bit, by quadrature over u (and v)."""
    u, v, weights = m.common.quadrature(np.array([logit]), n_u, n_v)
    g = samples(np.array([logit]), u, v, **options)[:, 0]
    mean = weights @ g
    return mean, weights @ g**2 - mean**2


def reinforce_is_exact(m):
    """Without a baseline: the mean over u equals the enumerated gradient to 1e-12."""
    for f in FUNCTIONS:
        for logit in LOGITS:
            samples = lambda *args: m.reinforce.gradient_samples(f, *args)
            mean, _ = mean_on_grid(samples, m, logit, 50)
            assert abs(mean - m.common.exact_gradient(f, [logit])[0]) < 1e-12


def batch_baseline_is_exact(m):
    """A batch of three rows: the mean over all 8 outcomes, each from one u, is exact to 1e-12."""
    logits = np.array([0.7])
    theta = m.common.sigmoid(logits)[0]
    for f in FUNCTIONS:
        mean = 0.0
        for k in range(8):
            bits = (k >> np.arange(3)[:, None]) & 1
            u = np.where(bits == 1, 1 - theta / 2, (1 - theta) / 2)
            g = m.reinforce.gradient_samples(f, logits, u, u, baseline="batch")
            mean += np.prod(np.where(bits == 1, theta, 1 - theta)) * g.mean()
        assert abs(mean - m.common.exact_gradient(f, logits)[0]) < 1e-12


def one_pass_is_plain(m, layers=2, relaxation="rebar"):
    """REBAR's single relaxed pass gives the gradients of the plain form, to rounding.

    For every parameter of an SBN, of r and of c.
    """
    rng = np.random.default_rng(3)
    model, params, x = tiny_sbn(m, layers=layers)
    noise, C = model.draw_noise(rng, len(x)), rng.standard_normal(len(x))
    forms = m.rebar.surrogates, m.rebar.surrogates_in_one_pass
    found = []
    for form in forms:

        def both(params):
            r, c, f_b = form(model, params, x, noise, 0.4, C, relaxation=relaxation)
            return [anp.sum(r), anp.sum(c)], [f_b]

        found.append(m.common.gradients(both, params))
    (plain, (f_plain,)), (fast, (f_fast,)) = found
    np.testing.assert_array_equal(f_plain, f_fast)
    for ours, theirs in zip(plain, fast):
        for g, h in zip(ours, theirs):
            np.testing.assert_allclose(g, h, rtol=1e-9, atol=1e-12)


def rebar_is_exact(m, conditional="coupled", temperatures=(0.1, 0.5, 2.0)):
    """For every f, logit, relaxation, T and η: 1e-6, and 1e-5 for T ≤ .1, by the midpoint rule.

    Coupled noise needs an integral over u only, independent noise one over u and v.
    """
    n_u, n_v = (20000, 1) if conditional == "coupled" else (1000, 1000)
    for f in FUNCTIONS:
        for logit in LOGITS if conditional == "coupled" else LOGITS[:1]:
            exact = m.common.exact_gradient(f, [logit])[0]
            for relaxation in ("rebar", "concrete"):
                for temperature in temperatures:
                    samples = lambda *args: m.rebar.gradient_samples(
                        f, *args, temperature=temperature, eta=0.7, baseline=0.2,
                        relaxation=relaxation, conditional=conditional,
                    )  # fmt: skip
                    mean, _ = mean_on_grid(samples, m, logit, n_u, n_v)
                    tolerance = 1e-5 if temperature <= 0.1 else 1e-6
                    case = (f.__name__, logit, relaxation, temperature, mean - exact)
                    assert abs(mean - exact) < tolerance, case


# ------------------------------------------------------------------- every parameter of a tiny SBN


def tiny_sbn(m, layers=2, hidden=2, task="generate", nonlinear=False, seed=1):
    """A model of 3 or 4 pixels in float64, its parameters away from zero, and two images."""
    rng = np.random.default_rng(seed)
    pixels = 3 if task == "generate" else 4
    mean = np.array([0.3, 0.5, 0.6, 0.4])[:pixels]
    model = m.models.SBN(mean, hidden, layers, nonlinear, task, dtype=np.float64)
    params = [p + 0.5 * rng.standard_normal(p.shape) for p in model.init(rng)]
    return model, params, np.array([[1.0, 0, 1, 1], [0, 1, 1, 0]])[:, :pixels]


def assert_unbiased(m, model, params, x, estimator, rng, blocks=100, rows=2000, exact=None):
    """harness.diagnostics.gradient_test at FALSE_ALARM: (largest |t|, bias, scale).

    A bias of `bias`, in the worst parameter, would be found with probability .99; `scale` is the
    largest true gradient, `exact` or that of the mean bound of one sample.
    """
    result, exact = m.diagnostics.gradient_test(
        model, params, x, estimator, rng, blocks=blocks, rows=rows, false_alarm=FALSE_ALARM,
        exact=exact,
    )  # fmt: skip
    assert result.passed, str(result)
    return result.t.max(), result.detectable.max(), np.abs(exact).max()


def reinforce_is_unbiased(m, rng, baseline="batch", rows=2000, **model_options):
    model, params, x = tiny_sbn(m, **model_options)
    estimator = lambda x, noise: m.reinforce.estimate(
        model, params, [], x, noise, baseline=baseline
    )[1]
    return assert_unbiased(m, model, params, x, estimator, rng, rows=rows)


def rebar_is_unbiased(m, rng, model_options=(), blocks=100, rows=2000, **options):
    """REBAR with all its learned parts, at values that training would reach, not at the first."""
    model, params, x = tiny_sbn(m, **dict(model_options))
    aux = m.rebar.init_aux(rng, model, temperature=0.4)
    aux = [np.asarray(a) + 0.3 * rng.standard_normal(np.shape(a)) for a in aux]
    estimator = lambda x, noise: m.rebar.estimate(model, params, aux, x, noise, **options)[1]
    return assert_unbiased(m, model, params, x, estimator, rng, blocks, rows)


# ---------------------------------------------------------- K samples of an image, by enumeration


def product(b):
    """Not a sum over bits, for D = 1, 2."""
    return anp.exp(b[:, 0] - 0.4 * b[:, -1]) + anp.sin(2 * b[:, 0] + 3 * b[:, -1]) + 0.5


def mean_over_outcomes(m, samples, logits, K):
    """E of gradient samples, and their variances, over all (2^D)^K outcomes: (D,) each."""
    u, v, weights = m.toy.outcomes(np.array(logits), K)
    assert abs(weights.sum() - 1) < 1e-12
    g = samples(np.array(logits), u, v)
    return weights @ g, weights @ g**2 - (weights @ g) ** 2


def all_bits(model, K):
    """Every outcome of K samples of the model's bits: a list per layer of (2^(K total), K, D)."""
    total = sum(model.units)
    bits = ((np.arange(2 ** (K * total))[:, None] >> np.arange(K * total)) & 1).astype(float)
    return np.split(bits.reshape(-1, K, total), np.cumsum(model.units)[:-1], axis=-1)


def exact_bound_gradient(m, model, params, x, K, multi_sample=True):
    """Gradient of the mean K-sample bound E[log 1/K Σ_k w_k], like params, by enumeration.

    Without `multi_sample`, that of the mean of log w_k, which is the bound of one sample.
    """
    layers = [b[:, :, None] for b in all_bits(model, K)]  # (outcomes, K, 1, D)
    layers = [np.broadcast_to(b, (*b.shape[:2], len(x), b.shape[3])) for b in layers]

    def expected(params):
        b, a = model.infer(params, x, lambda layer, logits: layers[layer])
        log_q = sum(m.common.bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
        f = model.bound(params, x, b, a)  # (outcomes, K, images)
        L = m.common.log_mean_exp(f, axis=1) if multi_sample else anp.mean(f, axis=1)
        return [anp.sum(anp.exp(anp.sum(log_q, axis=1)) * L) / len(x)], []

    (grads,), _ = m.common.gradients(expected, params)
    return grads


def mean_estimate(m, model, params, x, K, estimator):
    """E of `estimator(x, noise)` over all outcomes of K samples, like params, image by image.

    The bits are forced by uniforms next to 0 and 1; so the estimate may depend on bits only.
    """
    layers, total = all_bits(model, K), [np.zeros_like(p) for p in params]
    for image in x:
        rows = np.tile(image, (K, 1))
        for outcome in zip(*layers):
            b, a = model.infer(params, rows, lambda layer, logits: outcome[layer])
            log_q = sum(m.common.bernoulli_log_prob(b_i, a_i).sum() for b_i, a_i in zip(b, a))
            u = [np.where(b_i == 1, 1 - 1e-9, 1e-9) for b_i in b]
            grads = estimator(rows, [(u_i, u_i) for u_i in u])
            for mean, g in zip(total, grads):
                mean += np.exp(log_q) / len(x) * g
    return total


TINY = (
    {"layers": 1},
    {"layers": 2, "hidden": 1},
    {"layers": 3, "hidden": 1},
    {"layers": 1, "task": "predict"},
    {"layers": 2, "hidden": 1, "task": "predict"},
    {"layers": 3, "hidden": 1, "task": "predict"},
)


def every_parameter_is_exact(m, estimate, options, model_options, multi_sample, K=2):
    """The mean estimate of every parameter of a tiny SBN equals the enumerated one to 1e-12."""
    model, params, x = tiny_sbn(m, **model_options)
    estimator = lambda x, noise: estimate(model, params, [], x, noise, samples=K, **options)[1]
    exact = exact_bound_gradient(m, model, params, x, K, multi_sample)
    for name, mean, g in zip(
        model.names, mean_estimate(m, model, params, x, K, estimator), exact, strict=True
    ):
        assert np.abs(mean - g).max() < 1e-12, (name, np.abs(mean - g).max())


def images_are_apart(m, estimate, K=3, **options):
    """The estimate of two images of K rows is the mean of their own estimates: 1e-13."""
    rng, (model, params, x) = np.random.default_rng(3), tiny_sbn(m)
    x, noise = np.repeat(x, K, axis=0), model.draw_noise(rng, 2 * K)
    call = lambda s: estimate(
        model, params, [], x[s], [(u[s], v[s]) for u, v in noise], samples=K, **options
    )
    parts = [call(slice(0, K)), call(slice(K, 2 * K))]
    bound, grads, _ = call(slice(None))
    np.testing.assert_allclose(bound, np.concatenate([p[0] for p in parts]), rtol=1e-13)
    for g, g_0, g_1 in zip(grads, parts[0][1], parts[1][1]):
        np.testing.assert_allclose(g, (g_0 + g_1) / 2, rtol=1e-13, atol=1e-14)


# ------------------------------------------------------------- the variance, and its own gradient


def single_bit_moments(m, f=steep, logit=0.3, n_u=300, n_v=1, **options):
    """Mean and variance of REBAR's gradient for one bit, by default at T = .5, η = 1, C = 0."""
    samples = lambda *args: m.rebar.gradient_samples(f, *args, **options)
    return mean_on_grid(samples, m, logit, n_u, n_v)


def variance_gradient_is_exact(m, **options):
    """d(mean g²)/d(log T), d/dη, d/dC against central differences, on a two-layer SBN: 1e-7."""
    rng = np.random.default_rng(2)
    model, params, x = tiny_sbn(m)
    aux = [np.array(a + 0.3) for a in m.rebar.init_aux(rng, model)]
    x = np.repeat(x, 3, axis=0)
    noise = model.draw_noise(rng, len(x))

    def mean_square(aux):
        _, grads, _ = m.rebar.estimate(model, params, aux, x, noise, **options)
        return np.mean(np.concatenate([g.ravel() for g in grads]) ** 2)

    _, _, aux_grads = m.rebar.estimate(model, params, aux, x, noise, **options)
    for k, (tensor, gradient) in enumerate(zip(aux, aux_grads)):
        for index in list(np.ndindex(np.shape(tensor)))[:12]:
            values = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in aux]
                moved[k][index] += step
                values.append(mean_square(moved))
            difference = (values[0] - values[1]) / 2e-5
            assert abs(difference - gradient[index]) < 1e-7 * max(1, abs(difference)), (k, index)


# ----------------------------------------------------------------------------------------- float32


def promotions(m, monkeypatch):
    """A list that will name every operation with a traced value or a gradient not in float32."""
    promoted, init = [], autograd.core.VJPNode.__init__

    def node(self, value, fun, *args):
        if np.asarray(getval(value)).dtype != np.float32:
            promoted.append(fun.__name__)
        init(self, value, fun, *args)

    def add(previous, g):
        if getattr(getval(g), "dtype", np.float32) != np.float32:  # a sparse one has none
            promoted.append("a gradient")
        return autograd.core.add_outgrads(previous, g)

    init_jvp = autograd.core.JVPNode.__init__

    def tangent(self, *args):
        init_jvp(self, *args)
        if getattr(getval(self.g), "dtype", np.float32) != np.float32:
            promoted.append("a tangent")

    monkeypatch.setattr(autograd.core.VJPNode, "__init__", node)
    monkeypatch.setattr(autograd.core.JVPNode, "__init__", tangent)
    monkeypatch.setattr(m.common, "add_outgrads", add)
    return promoted


def float32_is_kept(m, monkeypatch, name, task="generate", layers=2, aux_options=(), **options):
    """In every traced value, every gradient on the way, and every result of methods/<name>.py.

    One float64 would double the cost of all that follows, without a sign of it in the dtype of the
    gradients.
    """
    promoted = promotions(m, monkeypatch)
    rng, method = np.random.default_rng(0), getattr(m, name)
    model = m.models.SBN(np.full(8, 0.3), 5, layers, task=task)
    x = (rng.random((6, 8)) < 0.3).astype(np.float32)
    _, aux = m.optimizer.flatten(method.init_aux(rng, model, **dict(aux_options)), np.float32)
    params, noise = model.init(rng), model.draw_noise(rng, len(x))
    bound, grads, aux_grads = method.estimate(model, params, aux, x, noise, **options)
    new = [g.value if isinstance(g, m.common.Assign) else g for g in aux_grads]
    assert promoted == []
    assert {np.asarray(a).dtype for a in (bound, *grads, *new)} == {np.dtype(np.float32)}
    assert [g.shape for g in grads] == [p.shape for p in params]
    assert [np.shape(g) for g in new] == [np.shape(a) for a in aux]
