"""Concrete / Gumbel-Softmax: Maddison et al. 2017 (arXiv 1611.00712), Jang et al. (1611.01144).

A bit is b = 1[z > 0], z = a + logit(u) with the logits a and a uniform u. Replace it by the relaxed
bit h = σ(y), y = z / T, in every layer, and the gradient flows through the sample itself:

    ∇ E[f(b)]  ≈  E[ ∇ f(σ((a + logit(u)) / T)) ].

This is *biased* for the discrete model. As T → 0 the bias goes to 0 and the variance to infinity.

What is f at h (--objective)? "log-mass" interpolates the Bernoulli log-masses of the bound linearly
(eq. 21 of Maddison et al.; SBNGumbel in the code of REBAR). It is no bound on anything. "density"
is a true bound, of a relaxed model (eq. 20): h has density, not mass. With r = a − T y,

    log q(y) = log T + r − 2 log(1 + exp(r))      and p the same, with a T of its own.

The derivative dh/dy would cancel between p and q, so densities are taken at y, which does not
round to an end as h does. Task "predict" has no term for h: there both objectives are one, a bound.
--straight-through: hard bits forward, relaxed backward; for f not quadratic biased even as T → 0.
--samples m: log (1/m) Σ_i exp f(h_i) in place of f(h), a tighter bound where f is one. Logged:
train_bound is the *discrete* one, of hard bits from the same u; relaxed_objective that of h.

Cost per step: f and ∇f once at h, and f at b, only to report it. Unlike the papers: no weight
decay, Adam as for every method here. Variables of C classes are in gumbel_softmax.py.

    python methods/concrete.py
"""

import warnings
from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    Assign,
    InputError,
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    log_mean_exp,
    logit,
    one_of,
    shaped,
    sigmoid,
    softplus,
    stop_gradient,
    value_of,
)
from harness import cli
from harness.toy import train_toy
from harness.run import train

import autograd.numpy as np
from autograd.tracer import getval

TEMPERATURE = {"log-mass": 0.5, "density": 2 / 3}  # the latter and the prior's: Maddison et al.
PRIOR_TEMPERATURE = MIN_TEMPERATURE = 0.5
RELAXATIONS = ("concrete", "rebar")
NO_DENSITY = "--objective density: it needs --relaxation concrete and no --straight-through"

# ---------------------------------------------------- the binary Concrete distribution, of h = σ(y)


def sample(a, u, temperature, relaxation="concrete"):
    """y = (a + logit(u)) / T, the logit of a relaxed bit; "rebar" adds a T / (T + 1) to it.

    As T → 0 both relaxed bits σ(y) tend to b; as T → ∞ to 1/2 ("concrete") or σ(a) ("rebar").
    """
    y = (a + logit(u)) / temperature
    return y + a * (temperature / (temperature + 1)) if relaxation == "rebar" else y


def log_density(y, a, temperature):
    """log density of y, elementwise: logistic with location a / T and scale 1 / T."""
    r = a - temperature * y
    return np.log(temperature) + r - 2 * softplus(r)


def density(h, a, temperature):
    """Density of the relaxed bit h = σ(y) in (0, 1), elementwise."""
    return np.exp(log_density(logit(h), a, temperature)) / (h * (1 - h))


def cdf(y, a, temperature):
    """P(Y ≤ y), which is P(H ≤ σ(y)); it inverts `sample`: cdf(sample(a, u, T), a, T) = u."""
    return sigmoid(temperature * y - a)


# --------------------------------------------------------------------------------- the estimator


def concrete(model, params, x, noise, temperature, *, objective="log-mass", relaxation="concrete",
             straight_through=False, prior_temperature=PRIOR_TEMPERATURE,
             samples=1):  # fmt: skip
    """f(b) and f(h), (images,) each, in nats, and the gradient of mean f(h), like params (ascent).

    Every image is in `samples` consecutive rows of x, and f then the multi-sample one. `noise`
    holds a pair (u, v) of uniforms per layer; v is not used. Raises InputError for a density where
    there is none.
    """
    if objective == "density" and (straight_through or relaxation != "concrete"):
        raise InputError(NO_DENSITY)
    u, number = [u_i for u_i, _ in noise], lambda T: np.array(T, model.dtype)
    temperature, prior_temperature = number(temperature), number(prior_temperature)
    multi_sample = lambda f: log_mean_exp(np.reshape(f, (-1, samples)), axis=1)

    def relaxed(params):
        y = []

        def relax(layer, a_i):
            y.append(sample(a_i, u[layer], temperature, relaxation))
            h_i = sigmoid(y[layer])
            if straight_through:
                return h_i + stop_gradient(hard_sample(a_i, u[layer]) - h_i)
            return h_i

        h, a = model.infer(params, x, relax)
        f_h = model.bound(params, x, h, a)
        if objective == "density":  # in the place of every log-mass of h put the log density of y
            for y_i, h_i, a_i, p_i in zip(y, h, a, model.generative_logits(params, h)):
                log_p = log_density(y_i, p_i, prior_temperature)
                log_q = log_density(y_i, a_i, temperature)
                mass = bernoulli_log_prob(h_i, p_i) - bernoulli_log_prob(h_i, a_i)
                f_h = f_h + np.sum(log_p - log_q, axis=-1) - mass
        f_h = multi_sample(f_h)
        return [np.sum(f_h) / len(f_h)], f_h

    (grads,), f_h = gradients(relaxed, params)
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, u[layer]))
    return multi_sample(model.bound(params, x, b, a)), f_h, grads


# ------------------------------------------------------------------------------------ its own state


def schedule(step, temperature=None, anneal_rate=None, min_temperature=MIN_TEMPERATURE):
    """T at a step: `temperature`, or max(min_temperature, exp(−anneal_rate · step)) to anneal."""
    if anneal_rate is None:
        return temperature
    return np.maximum(min_temperature, np.exp(-anneal_rate * step))


def init_aux(rng, model):
    """Nothing learned, but a state: [steps done, T of the last one, mean f(h) of its batch]."""
    return [np.zeros(()), np.zeros(()), np.zeros(())]


def estimate(model, params, aux, x, noise, *, temperature=None, anneal_rate=None,
             min_temperature=MIN_TEMPERATURE, objective="log-mass", **options):  # fmt: skip
    """The estimator: the discrete bound (images,) in nats, gradients like params (ascent), new aux.

    T follows `schedule`; `temperature` None is the objective's own. The other options are those of
    `concrete`.
    """
    step = aux[0]
    T = schedule(step, temperature or TEMPERATURE[objective], anneal_rate, min_temperature)
    f_b, f_h, grads = concrete(model, params, x, noise, T, objective=objective, **options)
    state = step + 1, T, np.sum(f_h) / len(f_h)
    return f_b, grads, [Assign(np.array(value, model.dtype)) for value in state]


# ------------------------------------------------------------------------------------ toy and main


def positive(name, value):
    """The value, if it is a finite number above 0; raises InputError naming the argument if not."""
    if not shaped(name, value) > 0:
        raise InputError(f"{name}: has to be a number above 0, not {value}")
    return value


def no_effect(mode, **options):
    """Raise InputError for an option that is given, not None, where `mode` has no use for it."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}: has no effect with {mode}: leave it away")


def network_weights(rho, inputs, outputs):
    """[W1 (inputs, h), b1 (h,), W2 (h, outputs), b2 (outputs,)] as floats, if rho is that."""
    if not hasattr(rho, "__len__") or len(rho) != 4:
        raise InputError("rho: has to be a list of four arrays, [W1, b1, W2, b2]")
    W1 = shaped("rho", rho[0], inputs=inputs, h=None)
    shapes = {"h": W1.shape[1]}, {"h": W1.shape[1], "outputs": outputs}, {"outputs": outputs}
    return [W1, *(shaped("rho", array, **axes) for array, axes in zip(rho[1:], shapes))]


def finite(g, name="f"):
    """The estimates or slopes g, if they are finite; if not, InputError naming f."""
    if not np.all(np.isfinite(getval(g))):
        raise InputError(f"{name}: its slope is not finite at some points, as that of √ at 0, or "
                         "another argument is so large that the estimate overflows")  # fmt: skip
    return g


def check_slope(f, h):
    """Raise InputError if f varies over 32 rows of the relaxed bits h (n, D), but has slope 0."""
    h = h[:: len(h) // 32 + 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # autograd's, if f is not traced at all
        ((slope,),), values = gradients(lambda p: ([np.sum(v := value_of(f, p[0]))], v), [h])
    if not np.any(slope) and np.ptp(values) > 0:
        raise InputError("f: has slope 0 wherever it was tried, but varies: it jumps between bits")


def gradient_samples(f, logits, u, v, *, temperature=0.5, relaxation="concrete",
                     straight_through=False):  # fmt: skip
    """n independent single-sample estimates, biased, of d/dlogits E[f(b)]: (n, D).

    f maps (n, D) to (n,) and has to be differentiable. `logits` has shape (D,), the uniforms u and
    v (n, D); v is not used.
    """
    logits, u, v = check_samples(logits, u, v)
    positive("temperature", temperature)
    one_of("relaxation", relaxation, RELAXATIONS)
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    model, x = Toy(f, len(logits)), np.zeros((len(u), 0))
    check_slope(f, sigmoid(sample(logits, u, temperature)))
    *_, (grads,) = concrete(model, [tiled], x, [(u, v)], temperature, relaxation=relaxation,
                            straight_through=straight_through)  # fmt: skip
    return finite(len(u) * grads)


def report(model, aux):
    """What to log: T, and f(h) beside the discrete train_bound."""
    _, temperature, relaxed_objective = aux
    return {"temperature": float(temperature), "relaxed_objective": float(relaxed_objective)}


def toy(args, estimate):
    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    train_toy(args, {"REINFORCE": plain, "Concrete": (estimate, init_aux)})


def main(argv=None):
    goal = "log-mean-exp (with --toy: the mean)"
    p, T = cli.parser("concrete", __doc__, goal=goal), cli.TEMPERATURE
    p.flag("--objective", "f(h), see above", choices=("log-mass", "density"))
    p.flag("--relaxation", "of the bits", choices=RELAXATIONS)
    p.flag("--straight-through", "hard bits forward, relaxed backward", action="store_true")
    p.flag("--temperature", "T; default: 0.5, with density 2/3", type=T)
    p.flag("--prior-temperature", "T of p, with density", PRIOR_TEMPERATURE, type=T)
    p.flag("--anneal-rate", "R: T = max(minimum, exp(-R step))", type=cli.RATE, metavar="R")
    p.flag("--min-temperature", "the minimum, with --anneal-rate", MIN_TEMPERATURE, type=T)
    args = cli.parse(p, argv)
    if args.toy or args.task == "predict":  # f has no term for h
        mode = "with --toy" if args.toy else "with --task predict"
        p.unread(mode, "--objective", "--prior-temperature")
    if args.objective != "density":
        p.unread("without --objective density", "--prior-temperature")
    if not args.anneal_rate:
        p.unread("without --anneal-rate", "--min-temperature")
    elif args.min_temperature >= 1:
        p.error("--min-temperature: it has to be below 1, from where --anneal-rate lets T fall")
    if args.objective == "density" and (args.straight_through or args.relaxation != "concrete"):
        p.error(NO_DENSITY)
    if args.anneal_rate and args.temperature:
        p.error("--temperature: with --anneal-rate T starts at 1 and ends at --min-temperature")
    names = ("objective", "relaxation", "straight_through", "temperature", "prior_temperature",
             "anneal_rate", "min_temperature")  # fmt: skip
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    if args.toy:
        return toy(args, ours)
    return train(args, partial(ours, samples=args.samples), init_aux, report)


if __name__ == "__main__":
    cli.run(main)
