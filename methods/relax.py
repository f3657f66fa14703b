"""RELAX and LAX (Grathwohl et al. 2018, arXiv 1711.00123): a learned function as control variate.

Layer l has logits a_l and noise u_l. With z_l = a_l + logit(u_l) its bits are b_l = 1[z_l > 0]. z̃_l
is a draw from p(z_l | b_l): by default from the same random numbers, so that z̃_l = z_l in value
but not in slope. For any differentiable functions c_l and L layers, with
q_l(b_l) = Bernoulli(σ(a_l)),

    ∇ E[f(b)] = E[ ∇f(b) + Σ_l ( (f(b) − c_l(z̃_l)) ∇log q_l + ∇c_l(z_l) − ∇c_l(z̃_l) ) ].

In the sum ∇ is by a_l: b below layer l, and the noise above it, are held fixed. The terms of c_l
have mean zero. The closer c_l(z) is to f(b), the less is left of the noise of f(b) ∇log q_l. Here

    c_l(z) = η_l f_l(z) + r_ρ(z, x, b_1 … b_{l−1}).

f_l(z) is the bound with hard bits below layer l and relaxed bits σ(z/T) from l on, as in REBAR; r_ρ
is a network. It starts at r = 0, so that RELAX starts as rebar.py with --relaxation concrete and
without C. For a black box
(--black-box) c_l = r_ρ alone: f is never differentiated by b, and may jump. T, η and ρ descend the
mean square of the gradient, which is its variance up to a constant.

LAX is the same for z with a density, which needs no z̃ (`lax_samples`):

    ∇ E[f(z)] = E[ (f(z) − c(z)) ∇log q(z) + ∇c(z) ].

In ∇c_l(z̃_l), z̃_l moves with a_l. The factor f(b) − c_l(z̃_l) is not differentiated. Published code
has held z̃ fixed in the first, and has differentiated the second. Both are biased.
Unlike the authors' code: η_l multiplies f_l alone, T is one for all layers, r_ρ has one layer of
100 units, and the mean square is that of the gradients of all parameters.

Cost per step: f and ∇f once at b; for each layer c_l and its derivative once ("the same, faster"),
and about as much again to adapt T, η and ρ.

    python methods/relax.py
"""

from functools import partial

import rebar
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    init_mlp,
    logit,
    mlp,
    one_of,
    shaped,
    sigmoid,
    stop_gradient,
    tanh,
    with_slope,
)
from concrete import check_slope, finite, network_weights, no_effect, positive
from harness import cli
from harness.toy import train_toy
from harness.run import train
from rebar import CONDITIONALS, slope_of_z_tilde, z_and_z_tilde

import autograd.numpy as np

# --------------------------------------------------------------------------------- the estimator


def surrogate(model, params, x, noise, T, eta, rho, *, conditional="coupled", activation=tanh):
    """(batch,): the estimate is the gradient of its mean by params. And f(b), (batch,)."""
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
    f_b = model.bound(params, x, b, stop_gradient(a))
    c = partial(control_variate, model, stop_gradient(params), x, noise, T, eta, rho, activation, b)
    total = f_b
    for l, (a_l, b_l, uv) in enumerate(zip(a, b, noise)):
        below = stop_gradient(a[:l])
        z, z_tilde = z_and_z_tilde(a_l, *uv, conditional)
        c_z, c_z_tilde = c([*below, a_l], z), c([*below, a_l], z_tilde)
        signal = stop_gradient(f_b - c_z_tilde)
        total = total + signal * bernoulli_log_prob(b_l, a_l) + c_z - c_z_tilde
    return total, f_b


def control_variate(model, params, x, noise, T, eta, rho, activation, b, a, z):
    """c_l(z), (batch,), for the logits a = a_1 … a_l. For a black box eta is None."""
    l = len(a) - 1
    seen = np.concatenate([model.centre(x), *b[:l], z], axis=1)
    r = mlp(rho[4 * l : 4 * l + 4], seen, activation)[:, 0]
    if eta is None:
        return r

    def sample(layer, a_i):
        if layer < l:
            return b[layer]
        return sigmoid((z if layer == l else a_i + logit(noise[layer][0])) / T)

    return eta[l] * model.bound(params, x, *model.infer(params, x, sample, a)) + r


# -------------------------------------------------------------------------------- the same, faster


def surrogate_in_one_pass(model, params, x, noise, T, eta, rho, *, activation=tanh):
    """`surrogate` for coupled noise, with one evaluation of c_l for two.

    Coupled, z̃_l = z_l, so c_l(z) and c_l(z̃) have the same value and the same derivatives. What is
    left of ∇c_l(z) − ∇c_l(z̃) is ∂c_l/∂z times the difference of the slopes, 1 − dz̃/da.
    """
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
    f_b = model.bound(params, x, b, stop_gradient(a))
    c = partial(control_variate, model, stop_gradient(params), x, noise, T, eta, rho, activation, b)
    total = f_b
    for l, (a_l, b_l, (u, _)) in enumerate(zip(a, b, noise)):
        fixed = stop_gradient(a[: l + 1])
        z = fixed[l] + logit(u)
        c_z = c(fixed, with_slope(z, a_l, 1 - slope_of_z_tilde(z, fixed[l])))
        total = total + stop_gradient(f_b - c_z) * bernoulli_log_prob(b_l, a_l) + c_z
    return total, f_b


def relax(model, params, x, noise, T, eta, rho, *, conditional="coupled", activation=tanh):
    """f(b) (batch,) and the RELAX gradient of its mean, a list like params (ascent).

    `noise` holds a pair (u, v) of uniforms per layer, `eta` one number per layer, or None for a
    black box, `rho` four tensors per layer. "independent" noise takes z̃ from v, "coupled" z̃ = z.
    """
    one_of("conditional", conditional, CONDITIONALS)

    def mean(params):
        args = model, params, x, noise, T, eta, rho
        if conditional == "coupled":
            total, f_b = surrogate_in_one_pass(*args, activation=activation)
        else:
            total, f_b = surrogate(*args, conditional=conditional, activation=activation)
        return [np.sum(total) / len(x)], f_b

    (grads,), f_b = gradients(mean, params)
    return f_b, grads


# ------------------------------------------------------------------------- what it learns itself


def init_aux(rng, model, temperature=0.5, black_box=False, hidden=100):
    """[W1, b1, W2, b2 of r for every layer; η, one per layer; log T]; a black box has no η, T."""
    aux, seen = [], model.n_inputs
    for units in model.units:
        seen += units
        W1, b1, W2, b2 = init_mlp(rng, [seen, hidden, 1], model.dtype)
        aux += [W1, b1, 0 * W2, b2]
    return aux if black_box else [*aux, np.ones(len(model.units)), np.log(temperature)]


def learned(aux, black_box=False):
    """(T, η, networks) from aux."""
    if black_box:
        return None, None, aux
    *rho, eta, log_temperature = aux
    return np.exp(log_temperature), eta, rho


def estimate(model, params, aux, x, noise, *, black_box=False, **options):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square of the gradient over all parameters. The options are
    those of `relax`. Raises InputError for an unknown one of "coupled" and "independent".
    """

    def mean_square(aux):
        f_b, grads = relax(model, params, x, noise, *learned(aux, black_box), **options)
        size = sum(np.size(g) for g in grads)
        return [sum(np.sum(g * g) for g in grads) / size], [f_b, *grads]

    (aux_grads,), (f_b, *grads) = gradients(mean_square, aux)
    return f_b, grads, aux_grads


# -------------------------------------------------------------------------------------------- LAX


def lax_samples(f, c, mean, log_sd, eps):
    """Estimates of d/d(mean, log sd) E[f(z)], z ~ N(mean, sd²), one per normal of eps: (n, 2).

    f maps z (n,) to values (n,) and may jump; c does the same and is differentiated.
    """
    sd = np.exp(log_sd)
    z = mean + sd * eps

    def sum_of_c(inputs):
        c_z = c(inputs[0])
        return [np.sum(c_z)], c_z

    ((slope,),), c_z = gradients(sum_of_c, [z])
    score = np.stack([eps / sd, eps**2 - 1], axis=1)
    path = np.stack([np.ones_like(eps), sd * eps], axis=1)  # dz / d(mean, log sd)
    return (f(z) - c_z)[:, None] * score + slope[:, None] * path


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(
    f, logits, u, v, *, temperature=None, eta=None, rho=None, black_box=False, conditional="coupled"
):
    """n independent single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v only matters for conditional
    "independent". `rho` is the network r, [W1 (D, h), b1 (h,), W2 (h, 1), b2 (1,)], by default 0.
    T is by default .5 and η 1. With `black_box` f is not differentiated, and there are no T and η.
    """
    logits, u, v = check_samples(logits, u, v)
    D = len(logits)
    rho = [np.zeros((D, 1)), np.zeros(1), np.zeros((1, 1)), np.zeros(1)] if rho is None else rho
    rho = network_weights(rho, D, 1)
    if black_box:
        no_effect("black_box", temperature=temperature, eta=eta)
    else:
        temperature = positive("temperature", 0.5 if temperature is None else temperature)
        eta = [shaped("eta", 1.0 if eta is None else eta)]
        check_slope(f, sigmoid((logits + logit(u)) / temperature))
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    model, x = Toy(f, D), np.zeros((len(u), 0))
    _, (grads,) = relax(model, [tiled], x, [(u, v)], temperature, eta, rho, conditional=conditional)
    return finite(len(u) * grads)


def report(model, aux, black_box=False):
    """What to log: the temperature, and η of every layer under "eta/"."""
    if black_box:
        return {}
    T, eta, _ = learned(aux)
    return {"temperature": float(T)} | {f"eta/{l}": float(eta_l) for l, eta_l in enumerate(eta)}


def toy(args, estimate, init_aux):
    fixed = partial(
        rebar.estimate, conditional=args.conditional, adapt="eta", relaxation="concrete"
    )
    first = partial(rebar.init_aux, temperature=args.temperature)
    train_toy(args, {"REBAR": (fixed, first), "RELAX": (estimate, init_aux)})


def main(argv=None):
    p = cli.parser("relax", __doc__)
    p.flag("--black-box", "c = r alone: f is not differentiated", action="store_true")
    p.flag("--temperature", "the first value of T", 0.5, type=cli.TEMPERATURE)
    p.flag("--noise", "z̃ from the random numbers of z, or from its own", dest="conditional",
           choices=CONDITIONALS)  # fmt: skip
    args = cli.parse(p, argv)
    if args.black_box and not args.toy:
        p.unread("with --black-box", "--temperature")
    ours = partial(estimate, black_box=args.black_box, conditional=args.conditional)
    init = partial(init_aux, temperature=args.temperature, black_box=args.black_box)
    if args.toy:
        return toy(args, ours, init)
    return train(args, ours, init, partial(report, black_box=args.black_box))


if __name__ == "__main__":
    cli.run(main)
