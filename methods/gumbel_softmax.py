"""Gumbel-Softmax, or Concrete variables of C classes: Jang et al. 2017 (arXiv 1611.01144), Maddison
et al. 2017 (1611.00712); beside it score functions and REBAR (1703.07370) for the same model.

A variable of C classes is b = one_hot(argmax z), z = log π + G, with π = softmax(a) and Gumbel
noise G = −log(−log u). Replace b by h = softmax(z / T), and the gradient flows through the sample:

    ∇ E[f(b)]  ≈  E[ ∇ f(softmax((log π + G) / T)) ],     less biased but noisier as T → 0.

f(h) is log p(x|h) and, by --objective, as Maddison et al. number them,

    density    Σ_layers log p(y) − log q(y), the densities of y = log h           eq. 20
    log-mass   Σ_layers Σ h (log p − log q)                                       eq. 21
    kl         −KL(q(b|x) || p(b)) of the discrete distributions, of one layer    eq. 22

Only "density" is a bound, on a relaxed model. --straight-through: hard forward, relaxed backward. T
is fixed, annealed or learned by ascent on f(h); the others than "density" let that T run away. With
--samples m, f is log (1/m) Σ_i exp f(h_i). --estimator reinmax, st, st-gumbel and gumbel-rao: h is
hard, with a slope of reinmax.py. unordered and sum-and-sample are unordered.py. reinforce (m > 1:
VIMCO), nvil and rebar take hard b; they are unbiased, NVIL up to a scale.

Cost per step: f and ∇f at h, and f at b to report it. REBAR: f at b, once at h for each layer, and
the same again to adapt. The sizes are those of a notebook of Jang et al. Its nets are ReLU and its
targets grey levels; ours are tanh and bits.

    python methods/gumbel_softmax.py
"""

from functools import partial

import reinmax
import unordered
import vimco
from categorical import (CategoricalToy, check_samples, conditional, gumbel, hard_sample,
                         log_density, log_prob, log_softmax, sample)  # fmt: skip

# common before numpy: it chooses the number of BLAS threads
from common import Assign, InputError, gradients, init_mlp, log_mean_exp, mlp
from common import one_of, shaped, sigmoid, stop_gradient, with_slope
from concrete import check_slope, finite, no_effect, positive
from rebar import adaptive
from harness import class_flags, cli
from harness.data import load_dataset
from harness.models import CategoricalNet
from harness.run import fit
from harness.toy import toy_of_classes
from harness.trainer import Trainer

import autograd.numpy as np

OBJECTIVES = ("kl", "log-mass", "density")

# ------------------------------------------------------------------------- through the relaxation


def gumbel_softmax(model, params, x, noise, log_T, *, objective="kl", straight_through=False,
                   hard=None, prior_temperature=0.4, samples=1):  # fmt: skip
    """f(b) and f(h), (batch / samples,) in nats, and gradients of mean f(h): like params, of log T.

    Every image is in `samples` consecutive rows of x. `noise` holds a pair (u, v) of uniforms per
    layer. With `hard`, the function reinmax.classes, h is what that makes of a layer's logits, its
    pair and T; without it v is not used. Raises InputError where f is not defined.
    """
    check(model.task, objective, straight_through or hard, samples, len(noise))
    u = [u_i for u_i, _ in noise]
    multi_sample = lambda f: log_mean_exp(np.reshape(f, (-1, samples)), axis=1)

    def relaxed(tensors):
        *params, log_T = tensors
        T, y = np.exp(log_T), []

        def relax(layer, a):
            if hard:
                return hard(a, *noise[layer], T=T)
            y.append(sample(a, u[layer], T))
            h = np.exp(y[layer])
            return hard_sample(a, u[layer]) + (h - stop_gradient(h)) if straight_through else h

        h, a = model.infer(params, x, relax)
        if model.task == "predict" or objective == "log-mass":
            f_h = model.bound(params, x, h, a)  # eq. 21
        else:
            f_h, p = model.log_likelihood(params, x, h), model.generative_logits(params, h)
            if objective == "kl":
                pi = np.exp(log_softmax(a[0]))
                f_h = f_h + log_prob(pi, p[0]) - log_prob(pi, a[0])  # eq. 22
            else:
                T_p = np.array(prior_temperature, model.dtype)
                for y_i, p_i, a_i in zip(y, p, a):
                    log_ratio = log_density(y_i, p_i, T_p) - log_density(y_i, a_i, T)
                    f_h = f_h + np.sum(log_ratio, axis=-1)  # eq. 20
        f_h = multi_sample(f_h)
        return [np.sum(f_h) / len(f_h)], f_h

    (grads,), f_h = gradients(relaxed, [*params, log_T])
    b, a = model.infer(params, x, lambda layer, a: hard_sample(a, u[layer]))
    return multi_sample(model.bound(params, x, b, a)), f_h, grads[:-1], grads[-1]


def check(task, objective, straight_through, samples, layers=1):
    """Raise InputError where f(h) is not defined."""
    one_of("objective", objective, OBJECTIVES)
    if task == "generate" and objective == "density" and straight_through:
        raise InputError(
            "--objective: 'density' is that of a relaxed h, which --straight-through and "
            "the estimators of reinmax.py make hard; take 'kl' or 'log-mass'"
        )
    for flag, number in (("--samples", samples), ("--layers", layers)):
        if task == "generate" and objective == "kl" and number > 1:
            raise InputError(f"{flag}: 'kl' is for one; add --objective log-mass or density")


def schedule(step, temperature=0.5, anneal_rate=None, anneal_every=1, min_temperature=0.5):
    """T: `temperature`, or to anneal max(min_temperature, temperature · exp(−anneal_rate · t)).

    t is the step, or the last multiple of anneal_every before it.
    """
    if anneal_rate is None:
        return temperature
    t = anneal_every * (step // anneal_every)
    return np.maximum(min_temperature, temperature * np.exp(-anneal_rate * t))


def init_aux(rng, model, temperature=0.5):
    """[steps done; log T, of the last one, or learned; mean f(h) of its batch]."""
    return [np.zeros(()), np.log(temperature), np.zeros(())]


def estimate(model, params, aux, x, noise, *, learn_temperature=False, annealing=None, **options):
    """The estimator: the discrete bound in nats, gradients like params (ascent), those of aux.

    Unless T is learned it is schedule(step, **annealing). Options are those of gumbel_softmax.
    """
    step, log_T, _ = aux
    if not learn_temperature:
        log_T = np.array(np.log(schedule(step, **annealing or {})), model.dtype)
    f_b, f_h, grads, slope = gumbel_softmax(model, params, x, noise, log_T, **options)
    steps, mean, log_T = (
        Assign(np.array(state, model.dtype)) for state in (step + 1, np.sum(f_h) / len(f_h), log_T)
    )
    return f_b, grads, [steps, -slope if learn_temperature else log_T, mean]


# ----------------------------------------------------------------------------- the score function


def score_function(model, params, x, noise, baseline, *, scale=1.0, samples=1):
    """L, the bound of `samples` samples (images,), and the gradient of its mean, like params:

    Σ_i (L − C_i) / s ∇log q(b_i) + ∇L,     C = baseline(f), of f's shape (images, samples).
    """

    def surrogate(params):
        b, a = model.infer(params, x, lambda layer, a: hard_sample(a, noise[layer][0]))
        # the derivative of −log q in f has mean zero, unless other samples weight it
        f = model.bound(params, x, b, a if samples > 1 else stop_gradient(a))
        f = np.reshape(f, (-1, samples))
        log_q = np.reshape(sum(log_prob(b_i, a_i) for b_i, a_i in zip(b, a)), f.shape)
        L = log_mean_exp(f, axis=1)
        signal = (stop_gradient(L)[:, None] - baseline(stop_gradient(f))) / scale
        return [(np.sum(signal * log_q) + np.sum(L)) / len(L)], L

    (grads,), L = gradients(surrogate, params)
    return L, grads


def mean_of_others(f):
    """C of every sample in f (images, m), not depending on it. m = 1: the mean of other images.

    m > 1: the bound with this f replaced by the mean of the image's others, as in vimco.py. Raises
    InputError for a single row.
    """
    images, m = f.shape
    if f.size < 2:
        raise InputError("--batch-size: the mean over the other rows needs two rows")
    return (np.sum(f) - f) / (images - 1) if m == 1 else vimco.swapped(f)


def reinforce(model, params, aux, x, noise, *, samples=1):
    """The score function with that baseline: L, gradients like params (ascent), []."""
    return *score_function(model, params, x, noise, mean_of_others, samples=samples), []


def init_nvil(rng, model):
    """[W1, b1, W2, b2 of C; v]."""
    return [*init_mlp(rng, [model.n_inputs, 100, 1], model.dtype), np.zeros(())]


def nvil(model, params, aux, x, noise):
    """The score function with a network C(x) and s = max(1, √v): f(b), gradients, those of aux.

    v is a moving average of the variance of f − C in earlier steps (see methods/nvil.py: s rescales
    the gradient of q, and of q only). C descends the mean of (f − C)².
    """
    *network, v = aux
    C = lambda network: mlp(network, model.centre(x))  # (batch, 1)
    scale = np.maximum(1, np.sqrt(v))
    f, grads = score_function(model, params, x, noise, lambda f: C(network), scale=scale)
    squared_error = lambda network: ([np.sum((f[:, None] - C(network)) ** 2) / len(x)], [])
    (network_grads,), _ = gradients(squared_error, network)
    v = 0.8 * v + 0.2 * np.var(f - C(network)[:, 0])
    return f, grads, [*network_grads, Assign(np.array(v, f.dtype))]


# ------------------------------------------------------------------------------------------ REBAR


def rebar(model, params, x, noise, temperature, eta, baseline, *, conditional="coupled"):
    """f(b) (batch,) and the gradient of its mean, a list like params (ascent), with h̃ from z̃:

        (f(b) − C − η f(h̃)) ∇log q(b) + ∇f(b) + η ∇(f(h) − f(h̃)).

    The terms with η are summed over the layer that is relaxed; below it are the b, and above it
    plain relaxed samples, the same for h and h̃. η is one per parameter, C a number or (batch,).
    """
    if len(eta) != len(params):
        raise InputError(f"eta: has to be one number per parameter, {len(params)}, not {len(eta)}")
    f_b, r, c = r_and_c(model, params, x, noise, temperature, baseline, conditional)
    return f_b, [r_k + eta_k * c_k for r_k, eta_k, c_k in zip(r, eta, c)]


def r_and_c(model, params, x, noise, temperature, baseline, conditional="coupled"):
    """f(b), and the gradients without and with η, as in rebar.py: lists like params."""
    one_of("conditional", conditional, ("coupled", "independent"))
    u = [u_i for u_i, _ in noise]

    def surrogates(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, u[layer]))
        f_b = model.bound(params, x, b, stop_gradient(a))
        log_q = [log_prob(b_i, a_i) for b_i, a_i in zip(b, a)]
        # f's own derivatives at h and h̃ have the same mean: only those through z and z̃ are kept
        direct, known = stop_gradient(params), stop_gradient(a)

        def f_at(z, first):
            """f with b below the layer `first`, and there softmax(z / T)."""

            def relax(layer, a_i):
                if layer < first:
                    return b[layer]
                z_i = z if layer == first else a_i + gumbel(u[layer])
                return np.exp(log_softmax(z_i / temperature))

            return model.bound(direct, x, *model.infer(direct, x, relax, known[: first + 1]))

        control = 0
        for layer, (a_i, log_q_i, (u_i, v_i)) in enumerate(zip(a, log_q, noise)):
            if conditional == "coupled":
                f_tilde = difference = f_at(coupled_difference(a_i, u_i), layer)
            else:
                f, f_tilde = f_at(independent_pair(a_i, u_i, v_i), layer)
                difference = f - f_tilde
            control = control + difference - stop_gradient(f_tilde) * log_q_i
        score = f_b + (stop_gradient(f_b) - baseline) * sum(log_q)
        return [np.sum(score) / len(x), np.sum(control) / len(x)], f_b

    (r, c), f_b = gradients(surrogates, params)
    return f_b, r, c


def coupled_difference(a, u):
    """z, with the derivative of z − z̃ in log π. Given b, z̃ is a function of π and uniforms F:

        z̃_k(π, F) = −log(e^−top − log F_k / π_k),      ∂z̃_k / ∂log π_k = 1 − e^(z̃_k − top),

    of which the first is the inverse of F_k = P(z̃_k below its value | b, top), a Gumbel variable
    cut off at top = max z. For the class chosen z̃ is top, whose distribution knows no π. Here F is
    the one with z̃ = z, so only derivatives differ: ∂z_k / ∂log π_k is 1.
    """
    log_pi = log_softmax(a)
    z = stop_gradient(log_pi) + gumbel(u)
    return with_slope(z, log_pi, np.exp(z - np.max(z, axis=-1, keepdims=True)))


def independent_pair(a, u, v):
    """z and z̃ (2, batch, N, C), z̃ being a draw given b = one_hot(argmax z) with its own noise v."""
    return np.array([log_softmax(a) + gumbel(u), conditional(a, hard_sample(a, u), v)])


def init_rebar(rng, model, temperature=0.5):
    """[W1, b1, W2, b2 of C; logits of η/2, one per tensor of the model; log T]."""
    return [*init_nvil(rng, model)[:-1], np.zeros(len(model.names)), np.log(temperature)]


def adaptive_rebar(model, params, aux, x, noise, **options):
    """REBAR with learned C(x), η, T: f(b), gradients, and of aux those of the mean square gradient.

    That is the variance and a constant. The options are those of rebar.
    """

    def log_q(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        return sum(log_prob(b_i, a_i) for b_i, a_i in zip(b, a))

    parts = lambda T, C: r_and_c(model, params, x, noise, T, C, **options)
    return adaptive(model, params, aux, x, parts, log_q)


# --------------------------------------------------------------------------- for a function at hand


OPTIONS = {  # of gradient_samples, by estimator
    "gumbel-softmax": ("straight_through",), "reinforce": ("baseline",),
    "rebar": ("eta", "baseline", "conditional"),
    **dict.fromkeys(reinmax.ESTIMATORS, ("forward_temperature",)),
    "gumbel-rao": ("forward_temperature", "inner"),
}  # fmt: skip


def gradient_samples(f, logits, u, v, *, estimator="gumbel-softmax", temperature=None, **options):
    """n independent single-sample estimates of d/dlogits E[f(b)], by that --estimator: (n, D, C).

    f maps one-hots (n, D, C) to (n,). `logits` has shape (D, C), the uniforms u and v (n, D, C); v
    only matters for conditional "independent" and "gumbel-rao". T is by default .5; "reinforce" has
    none. OPTIONS has the other options: eta is by default 1, baseline 0; for the rest see rebar,
    gumbel_softmax and reinmax.hard. Raises InputError, a ValueError, for other shapes and options.
    """
    one_of("estimator", estimator, OPTIONS)
    for name in options:
        if name not in OPTIONS[estimator]:
            raise InputError(f"{name}: estimator {estimator} has no such option")
    logits, u, v = check_samples(logits, u, v)
    if estimator == "reinforce":
        no_effect(estimator, temperature=temperature)
    temperature = positive("temperature", 0.5 if temperature is None else temperature)
    eta = shaped("eta", options.pop("eta", 1.0))
    baseline = shaped("baseline", options.pop("baseline", 0.0))
    if estimator != "reinforce":
        check_slope(f, np.exp(sample(logits, u, temperature)))
    tiled, x = [np.tile(logits, (len(u), 1, 1))], np.zeros((len(u), 0))  # a gradient per sample
    model, noise = CategoricalToy(f), [(u, v)]
    if estimator in reinmax.ESTIMATORS:
        options = {"hard": reinmax.hard(estimator, **options)}
    if estimator == "gumbel-softmax" or "hard" in options:
        grads = gumbel_softmax(model, tiled, x, noise, np.log(temperature), **options)[2]
    elif estimator == "reinforce":
        _, grads = score_function(model, tiled, x, noise, lambda f: baseline)
    else:
        _, grads = rebar(model, tiled, x, noise, temperature, [eta], baseline, **options)
    return finite(len(u) * grads[0])


# ------------------------------------------------------------------------------------------- main


def report(model, aux):
    """What to log: T, and f(h) beside the discrete train_bound."""
    return {"temperature": float(np.exp(aux[1])), "relaxed_objective": float(aux[2])}


def report_rebar(model, aux):
    """What to log: T, and η of every tensor."""
    eta = {f"eta/{name}": float(e) for name, e in zip(model.names, 2 * sigmoid(aux[-2]))}
    return {"temperature": float(np.exp(aux[-1]))} | eta


def method(args):
    """estimate, init_aux and, where there is something to log, the report of --estimator."""
    take = lambda *names: {name: getattr(args, name) for name in names}
    if args.estimator == "reinforce":
        return partial(reinforce, **take("samples")), lambda rng, model: []
    if args.estimator in unordered.ESTIMATORS:
        return partial(unordered.estimate, **take("estimator", "samples")), unordered.init_aux
    if args.estimator == "nvil":
        return nvil, init_nvil
    start = take("temperature")
    if args.estimator == "rebar":
        ours = partial(adaptive_rebar, **take("conditional"))
        return ours, partial(init_rebar, **start), report_rebar
    options = take("objective", "straight_through", "prior_temperature", "samples")
    options |= {"annealing": start | take("anneal_rate", "anneal_every", "min_temperature")}
    if args.estimator in reinmax.ESTIMATORS:
        options["hard"] = reinmax.hard(args.estimator, **take("forward_temperature", "inner"))
    is_hard = args.straight_through or "hard" in options
    check(args.task, args.objective, is_hard, args.samples, args.layers)
    ours = partial(estimate, **options, **take("learn_temperature"))
    return ours, partial(init_aux, **start), report


def main(argv=None):
    digits = {"steps": 1040, "lr": 1e-3, "eval_epochs": 40, "log_every": 130}
    full = {"steps": 50_000, "lr": 1e-3, "eval_epochs": 20, "log_every": 500}
    p = cli.parser("gumbel_softmax", __doc__, sbn=False, batch_size=100, eval_samples=1000,
                   digits=digits, full=full, goal="log-mean-exp")  # fmt: skip
    hard, sets = reinmax.ESTIMATORS, unordered.ESTIMATORS
    class_flags.add(p, ["gumbel-softmax", *hard, "reinforce", *sets, "nvil", "rebar"], OBJECTIVES)
    args = cli.parse(p, argv)
    if args.toy:
        p.reads_only("with --toy", "--toy")
        return toy_of_classes(args, gradient_samples)
    class_flags.settle(p, args, hard, sets, unordered.MOST)
    rate, ours = cli.decay(p, args), method(args)
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model = CategoricalNet(data.train_mean, args.variables, args.classes, args.layers, args.hidden,
                           args.prior == "learned", args.task,
                           activation=args.activation)  # fmt: skip
    adam = {"beta2": 0.999}
    return fit(Trainer(args, data, model, *ours, adam=adam, rate=rate, keep_best=args.early_stop))


if __name__ == "__main__":
    cli.run(main)
