"""REBAR (Tucker et al. 2017, arXiv 1703.07370): REINFORCE with a relaxed control variate.

Layer l has logits a_l and noise u_l. With z_l = a_l + logit(u_l) its bits are b_l = 1[z_l > 0]. z̃_l
is a draw from p(z_l | b_l): by default from the same random numbers, so that z̃_l = z_l in value
but not in slope. Write f_l(z) for the bound f with hard bits b below layer l, the relaxed bits of
z_l at temperature T in layer l, and relaxed bits above it, from the same noise u for z and z̃. With
L layers and q_l(b_l) = Bernoulli(σ(a_l)),

    ∇ E[f(b)] = E[ ∇f(b) + (f(b) − C) Σ_l ∇log q_l
                   + η Σ_l ( ∇f_l(z) − ∇f_l(z̃) − f_l(z̃) ∇log q_l ) ].

Each term of the second sum has mean zero, for every η, T and C. Near T = 0 the relaxed bits are
close to the hard ones. Then f_l(z̃) ∇log q_l cancels most of the noise of f(b) ∇log q_l, and the
other two terms pay back its mean pathwise.

C(x) is a network, η one scalar per parameter tensor, T one temperature. They descend the mean
square of the gradient. The gradient is unbiased, so this is its variance up to a constant.

f has to be differentiable between the bits, and to rise and fall by its derivative alone: for an f
with jumps (a threshold, a rounding) the estimate is biased.

The released code conditions the noise above layer l too in f_l(z̃), which is biased for L > 1
(--as-released). Cost per step: f and ∇f once at b, and once relaxed for each layer (see "the same,
faster"); about as much again to adapt T, η and C.

    python methods/rebar.py
"""

import sys
from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    init_mlp,
    jvp,
    logit,
    mlp,
    one_of,
    shaped,
    sigmoid,
    softplus,
    stop_gradient,
    with_slope,
)
from concrete import check_slope, finite, positive
from harness import cli
from harness.toy import train_toy
from harness.run import train

import autograd.numpy as np

RELAXATIONS, CONDITIONALS = ("rebar", "concrete"), ("coupled", "independent")
CONTROL_VARIATES = ("per-layer", "joint")
ADAPT = ("temperature", "eta", "none")

# --------------------------------------------------------------------------------- the estimator


def surrogates(
    model, params, x, noise, T, C, *,
    relaxation="rebar", conditional="coupled", control_variate="per-layer", as_released=False,
):  # fmt: skip
    """r, c and f(b), (batch,) each. The estimate is the gradient of the mean of r + η c."""
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
    log_q = [bernoulli_log_prob(b_l, a_l) for b_l, a_l in zip(b, a)]
    f_b = model.bound(params, x, b, stop_gradient(a))
    pairs = [z_and_z_tilde(a_l, *uv, conditional) for a_l, uv in zip(a, noise)]
    z, z_tilde = [list(of_layers) for of_layers in zip(*pairs)]

    def f(l, z):
        """The bound with hard bits below layer l, and relaxed ones from l on."""

        def sample(layer, a_i):  # above l the logits a_i are others than a, and z moves with them
            z_i = z[layer] + (a_i - a[layer])
            return b[layer] if layer < l else relax(z_i, a_i, T, relaxation)

        return model.bound(params, x, *model.infer(params, x, sample))

    r = f_b + stop_gradient(f_b - C) * sum(log_q)
    c = 0
    joint = control_variate == "joint"  # one term for all layers, from the lowest on
    for l in range(1 if joint else len(b)):
        above = z_tilde if joint or as_released else z
        f_z, f_z_tilde = f(l, z), f(l, [*z[:l], z_tilde[l], *above[l + 1 :]])
        c = c + f_z - f_z_tilde - stop_gradient(f_z_tilde) * (sum(log_q) if joint else log_q[l])
    return r, c, f_b


def relax(z, a, T, relaxation="rebar"):
    """The relaxed bit σ(z / T); "rebar" adds a T / (T + 1), which brings its mean close to σ(a).

    As T → 0 both tend to the hard bit; as T → ∞ to σ(a) ("rebar") or 1/2 ("concrete").
    """
    return sigmoid(z / T + a * (T / (T + 1)) if relaxation == "rebar" else z / T)


def z_and_z_tilde(a, u, v, conditional):
    """z, and z̃ from p(z | b), for logits a and uniforms u and v, (batch, units) each.

    z = a + logit(u) and b = 1[z > 0]. With s = 2b − 1 (appendix of the paper),
        z̃ = s softplus(s logit(v) + softplus(s a)).
    "independent" takes v as it is. "coupled", common random numbers, takes the v that makes z̃ = z
    in value. The slopes still differ: dz/da = 1, and dz̃/da = (1 − exp(−|z|)) σ(s a).
    """
    z, s = a + logit(u), 2 * hard_sample(a, u) - 1
    if conditional == "independent":
        return z, s * softplus(s * logit(v) + softplus(s * a))
    return z, with_slope(stop_gradient(z), a, slope_of_z_tilde(stop_gradient(z), stop_gradient(a)))


def slope_of_z_tilde(z, a):
    """dz̃/da at z̃ = z; |z| > 0 decides the sign of b."""
    return (1 - np.exp(-np.abs(z))) * sigmoid(np.where(z > 0, a, -a))


def rebar(model, params, x, noise, temperature, eta, baseline, **options):
    """f(b) (batch,) and the REBAR gradient of its mean, a list like params (ascent).

    `noise` holds a pair (u, v) of uniforms per layer; `eta` is a scalar or one per parameter,
    `baseline` a scalar or (batch,). The options are those of `surrogates`.
    """
    if np.ndim(eta):
        shaped("eta", eta, tensors=len(params))
        f_b, r, c = r_and_c(model, params, x, noise, temperature, baseline, **options)
        return f_b, [r_k + eta_k * c_k for r_k, eta_k, c_k in zip(r, eta, c)]

    def surrogate(params):
        r, c, f_b = fastest(model, params, x, noise, temperature, baseline, **options)
        return [np.sum(r + eta * c) / len(x)], f_b

    (grads,), f_b = gradients(surrogate, params)
    return f_b, grads


def r_and_c(model, params, x, noise, temperature, baseline, **options):
    """f(b), and the gradients of the means of r and of c, lists like params."""

    def both(params):
        r, c, f_b = fastest(model, params, x, noise, temperature, baseline, **options)
        return [np.sum(r) / len(x), np.sum(c) / len(x)], f_b

    (r, c), f_b = gradients(both, params)
    return f_b, r, c


# -------------------------------------------------------------------------------- the same, faster


def surrogates_in_one_pass(model, params, x, noise, T, C, *, relaxation="rebar"):
    """`surrogates` for coupled noise and a term per layer, with one relaxed pass a layer for two.

    Coupled, z̃_l = z_l, so f_l(z) and f_l(z̃) have the same value, and so do their derivatives by
    everything but z_l. What is left of ∇f_l(z) − ∇f_l(z̃) is ∂f/∂z_l times the difference of the
    slopes, 1 − dz̃/da. So r and c have the right gradients, but c has another value.
    """
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
    log_q = [bernoulli_log_prob(b_l, a_l) for b_l, a_l in zip(b, a)]
    f_b = model.bound(params, x, b, stop_gradient(a))
    fixed, a_fixed = stop_gradient(params), stop_gradient(a)
    r = f_b + stop_gradient(f_b - C) * sum(log_q)
    c = 0
    for l in range(len(b)):
        z_l = a_fixed[l] + logit(noise[l][0])
        z_l = with_slope(z_l, a[l], 1 - slope_of_z_tilde(z_l, a_fixed[l]))

        def sample(layer, a_i):
            if layer < l:
                return b[layer]
            z_i = z_l if layer == l else a_i + logit(noise[layer][0])
            return relax(z_i, a_i, T, relaxation)

        f_z = model.bound(fixed, x, *model.infer(fixed, x, sample, a_fixed[: l + 1]))
        c = c + f_z - stop_gradient(f_z) * log_q[l]
    return r, c, f_b


def fastest(model, params, x, noise, T, C, *, relaxation="rebar", conditional="coupled",
            control_variate="per-layer", as_released=False):  # fmt: skip
    """r, c and f(b) by `surrogates_in_one_pass` where it applies, or else by `surrogates`."""
    one_of("relaxation", relaxation, RELAXATIONS)
    one_of("conditional", conditional, CONDITIONALS)
    one_of("control_variate", control_variate, CONTROL_VARIATES)
    several = len(noise) > 1 and (control_variate == "joint" or as_released)
    if conditional == "coupled" and not several:
        return surrogates_in_one_pass(model, params, x, noise, T, C, relaxation=relaxation)
    return surrogates(
        model, params, x, noise, T, C, relaxation=relaxation, conditional=conditional,
        control_variate=control_variate, as_released=as_released,
    )  # fmt: skip


# ------------------------------------------------------------------------- what it learns itself


def init_aux(rng, model, temperature=0.5, adapt="temperature"):
    """[W1, b1, W2, b2 of C; logits of η/2, one per tensor of the model; log T], or just [log T]."""
    if adapt == "none":
        return [np.log(temperature)]
    network = init_mlp(rng, [model.n_inputs, 100, 1], model.dtype)
    return [*network, np.zeros(len(model.names)), np.log(temperature)]


def learned(aux):
    """(network of C, η in (0, 2), T) from aux."""
    *network, eta_logits, log_temperature = aux
    return network, 2 * sigmoid(eta_logits), np.exp(log_temperature)


def estimate(model, params, aux, x, noise, *, adapt="temperature", **options):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square of the gradient over all parameters. `adapt` says for
    what: "temperature" is everything, "eta" leaves T out, "none" leaves all out: η = 1, C = 0. The
    other options are those of `rebar`.
    """
    if one_of("adapt", adapt, ADAPT) == "none":
        f_b, grads = rebar(model, params, x, noise, np.exp(aux[-1]), 1.0, 0.0, **options)
        return f_b, grads, [np.zeros_like(tensor) for tensor in aux]

    def log_q(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        return sum(bernoulli_log_prob(b_l, a_l) for b_l, a_l in zip(b, a))

    parts = lambda T, C: r_and_c(model, params, x, noise, T, C, **options)
    return adaptive(model, params, aux, x, parts, log_q, adapt == "temperature")


def adaptive(model, params, aux, x, r_and_c, log_q, with_T=True):
    """f(b), the gradients, and those of aux, which descend the mean square: as `estimate`.

    `r_and_c(T, C)` is f(b) and the gradients r and c, `log_q(params)` is Σ_l log q_l, (batch,).
    """

    def surrogate(aux):  # T, η and C times their slopes has the gradient of the mean square
        network, eta, T = learned(aux)
        C = mlp(network, model.centre(x))[:, 0]
        f_b, grads, (by_T, by_eta, by_C) = mean_square_slopes(
            params, r_and_c, log_q, *stop_gradient([T, eta, C]), with_T
        )
        return [T * by_T + np.sum(eta * by_eta) + np.sum(C * by_C)], [f_b, *grads]

    (aux_grads,), (f_b, *grads) = gradients(surrogate, aux)
    return f_b, grads, aux_grads


def mean_square_slopes(params, r_and_c, log_q, T, eta, C, with_T):
    """f(b), the gradient g with one η per tensor, and the slopes of mean(g²) in T, η and C.

    g = r + η c with the gradients r and c. d mean(g²) = 2 mean(g dg) takes no second pass
    backward: dg/dη is c, dg/dT is η ∂c/∂T, by a pass forward, and C of an image subtracts
    Σ_l ∇log q_l / batch from g. The slope in T is 0 unless `with_T`.
    """

    def c_of(temperature):
        f_b, r, c = r_and_c(*temperature, C)
        return c, [f_b, *r]

    if with_T:
        c, dc_dT, (f_b, *r) = jvp(c_of, [T], [np.ones_like(T)])
    else:
        c, (f_b, *r) = c_of([T])
        dc_dT = []
    g = [r_k + eta_k * c_k for r_k, eta_k, c_k in zip(r, eta, c)]
    _, (g_score,), _ = jvp(lambda params: ([log_q(params)], []), params, g)  # g'∇log q of an image
    slopes = (
        sum(eta_k * np.vdot(g_k, d_k) for eta_k, g_k, d_k in zip(eta, g, dc_dT)),
        np.array([np.vdot(g_k, c_k) for g_k, c_k in zip(g, c)]),
        -g_score / len(C),
    )
    size = sum(np.size(g_k) for g_k in g)
    return f_b, g, [slope * (2 / size) for slope in slopes]


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, temperature=0.5, eta=1.0, baseline=0.0, **options):
    """n independent single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v only matters for conditional
    "independent". The other options are those of `rebar`.
    """
    logits, u, v = check_samples(logits, u, v)
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    x = np.zeros((len(u), 0))
    model = Toy(f, len(logits))
    positive("temperature", temperature)
    eta, baseline = shaped("eta", eta), shaped("baseline", baseline)
    check_slope(f, sigmoid((logits + logit(u)) / temperature))
    _, (grads,) = rebar(model, [tiled], x, [(u, v)], temperature, eta, baseline, **options)
    return finite(len(u) * grads)


def report(model, aux):
    """What to log: the temperature and, if it is learned, η of every tensor under "eta/"."""
    log = {"temperature": float(np.exp(aux[-1]))}
    if len(aux) > 1:
        _, eta, _ = learned(aux)
        log |= {f"eta/{name}": float(eta_k) for name, eta_k in zip(model.names, eta)}
    return log


def toy(args, estimate, init_aux):
    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    train_toy(args, {"REINFORCE": plain, "REBAR": (estimate, init_aux)})


def main(argv=None):
    p = cli.parser("rebar", __doc__)
    p.flag("--adapt", "learn T, η and C; η and C; or none", choices=ADAPT)
    p.flag("--temperature", "T, or its first value", 0.5, type=cli.TEMPERATURE)
    p.flag("--relaxation", "of the bits", choices=RELAXATIONS)
    p.flag("--noise", "z̃ from the random numbers of z, or from its own", dest="conditional",
           choices=CONDITIONALS)  # fmt: skip
    p.flag("--control-variate", "one relaxation a layer, or one", choices=CONTROL_VARIATES)
    p.flag("--as-released", "the published construction, biased", action="store_true")
    args = cli.parse(p, argv)
    if args.layers == 1:
        p.unread("with --layers 1", "--as-released", "--control-variate")
    if args.control_variate == "joint":
        p.unread("with --control-variate joint", "--as-released")
    if args.as_released:
        print("--as-released: with two or more layers the gradient is biased", file=sys.stderr)
    names = ("adapt", "relaxation", "conditional", "control_variate", "as_released")
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    init = partial(init_aux, temperature=args.temperature, adapt=args.adapt)
    return toy(args, ours, init) if args.toy else train(args, ours, init, report)


if __name__ == "__main__":
    cli.run(main)
