"""REBAR (Tucker et al. 2017, arXiv 1703.07370): REINFORCE with a relaxed control variate.

Let z = a + logit(u) with the logits a, so that b = 1[z > 0], and z̃ the same given b, an
independent draw from p(z | b). With σ(z) short for the relaxation at temperature T,

    ∇ E[f(b)] = E[ (f(b) − C − η f(σ(z̃))) ∇log q(b) + ∇f(b) + η ∇(f(σ(z)) − f(σ(z̃))) ].

The three terms with η have mean zero together, for every η, T and C. When σ(z̃) is close to b,
f(σ(z̃)) cancels what makes REINFORCE noisy, and what that biases is paid back pathwise.

C(x) is a network, η one scalar per parameter tensor, T one temperature. All of them descend the
mean square of the gradient, which for an unbiased estimator is its variance up to a constant.
With several layers the control variate is a sum over layers l: the bits below l are hard, layer l
is z or z̃, and the layers above follow relaxed, from the *same* plain noise in both terms. The
released code conditions their noise too, which biases the upper layers (--as-released).

Cost per step: f and ∇f once at b and once relaxed for each of L layers, as z̃ = z will do (see
noise_pair); about that again to adapt.

    python methods/rebar.py
"""

import sys
from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    bernoulli_log_prob,
    gradients,
    hard_sample,
    init_mlp,
    jvp,
    logit,
    mlp,
    sigmoid,
    softplus,
    stop_gradient,
)
from harness import cli
from harness.toy import train_toy
from harness.trainer import train

import autograd.numpy as np

# --------------------------------------------------------------------------------- the estimator


def rebar(model, params, x, noise, temperature, eta, baseline, **options):
    """f(b) (batch,) and the REBAR gradient of its mean, a list like params (ascent).

    `noise` holds a pair (u, v) of uniforms per layer; `eta` is a scalar or one per parameter,
    `baseline` a scalar or (batch,). The options are those of `control_terms`.
    """
    if np.ndim(eta):
        f_b, r, c = separately(model, params, x, noise, temperature, baseline, **options)
        return f_b, combine(r, eta, c)

    def surrogate(params):
        r, c, f_b = surrogates(model, params, x, noise, temperature, eta, baseline, **options)
        return [np.sum(r + c) / len(x)], f_b

    (grads,), f_b = gradients(surrogate, params)
    return f_b, grads


def separately(model, params, x, noise, temperature, baseline, **options):
    """f(b), and of the gradient r + η c of its mean r and c, lists like params."""

    def both(params):
        r, c, f_b = surrogates(model, params, x, noise, temperature, 1.0, baseline, **options)
        return [np.sum(r) / len(x), np.sum(c) / len(x)], f_b

    (r, c), f_b = gradients(both, params)
    return f_b, r, c


def combine(r, eta, c):
    return [r_k + eta_k * c_k for r_k, eta_k, c_k in zip(r, eta, c)]


def surrogates(model, params, x, noise, temperature, eta, baseline, **options):
    """What is to be differentiated, without and with a scalar η, and f(b): (batch,) each."""
    b, a, log_q = sweep = hard_sweep(model, params, x, noise)
    f_b = model.bound(params, x, b, stop_gradient(a))
    reinforce = f_b + (stop_gradient(f_b) - baseline) * sum(log_q)
    control = control_terms(model, params, x, noise, sweep, temperature, eta, **options)
    return reinforce, control, f_b


def hard_sweep(model, params, x, noise):
    """b, its logits and log q(b) (batch,), a list of one per layer each."""
    u = [u_i for u_i, _ in noise]
    b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, u[layer]))
    return b, a, [bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a)]


def control_terms(
    model, params, x, noise, sweep, temperature, eta, *,
    relaxation="rebar", conditional="coupled", control_variate="per-layer", as_released=False,
):  # fmt: skip
    """The terms with η of the surrogate, (batch,); `sweep` is what hard_sweep returns."""
    b, a, log_q = sweep
    # Coupled z and z̃ are equal: in f(σ(z)) − f(σ(z̃)) all direct derivatives cancel, and unless
    # several layers have a z̃ at once, one pass with the slope of z less that of z̃ is enough.
    coupled, joint = conditional == "coupled", control_variate == "joint"
    one_pass = coupled and (len(b) == 1 or not (joint or as_released))
    direct = stop_gradient(params) if coupled else params
    known = stop_gradient(a) if one_pass else a
    pairs = [noise_pair(a_i, *uv, conditional) for a_i, uv in zip(a, noise)]
    eps = [2 * eps_i - eps_tilde if one_pass else np.array([eps_i, eps_tilde])
           for eps_i, eps_tilde in pairs]  # fmt: skip

    def relaxed(first):
        """f at z and at z̃, (2, batch), or (batch,) in one pass; hard bits below `first`."""

        def sample(layer, a_i):
            if layer < first:
                return b[layer]
            conditioned = layer == first or as_released or joint
            eps_i = eps[layer] if conditioned else logit(noise[layer][0])
            return relax(a_i, eps_i, temperature, relaxation)

        return model.bound(direct, x, *model.infer(direct, x, sample, known[: first + 1]))

    control = 0
    for layer in range(1 if joint else len(b)):
        f = relaxed(layer)
        difference, f_tilde = (f, f) if one_pass else (f[0] - f[1], f[1])
        score = sum(log_q) if joint else log_q[layer]
        control = control + difference - stop_gradient(f_tilde) * score
    return eta * control


def relax(a, eps, temperature, relaxation="rebar"):
    """The relaxed bit σ(z / T), z = a + eps; "rebar" adds a T / (T + 1) to reach the mean σ(a).

    As T → 0 both tend to the hard bit; as T → ∞ to σ(a) ("rebar") or 1/2 ("concrete").
    """
    z = a + eps
    shift = a * (temperature / (temperature + 1)) if relaxation == "rebar" else 0
    return sigmoid(z / temperature + shift)


def noise_pair(a, u, v, conditional):
    """ε and ε̃, (batch, units) each, such that z = a + ε and z̃ = a + ε̃; ε̃ depends on a.

    ε = logit(u), and z̃ is a draw from p(z | b): with s = 2b − 1,
        z̃ = s softplus(s logit(v) + softplus(s a)).
    "independent" takes v as it comes. "coupled", common random numbers, takes the v that makes
    z̃ = z: then only the derivative differs, dz̃/da = (1 − exp(−|z|)) σ(s a) instead of 1.
    """
    eps, s, a_fixed = logit(u), 2 * hard_sample(a, u) - 1, stop_gradient(a)
    if conditional == "independent":
        return eps, s * softplus(s * logit(v) + softplus(s * a)) - a
    slope = -np.expm1(-np.abs(a_fixed + eps)) * sigmoid(s * a_fixed)  # dz̃/da
    return eps, eps + (slope - 1) * (a - a_fixed)


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
    if adapt == "none":
        f_b, grads = rebar(model, params, x, noise, np.exp(aux[-1]), 1.0, 0.0, **options)
        return f_b, grads, [np.zeros_like(tensor) for tensor in aux]

    def linear(aux):  # what has the gradient of the mean square: T, η and C times its slopes
        network, eta, T = learned(aux)
        C = mlp(network, model.centre(x))[:, 0]
        f_b, grads, (by_T, by_eta, by_C) = mean_square_slopes(
            model, params, x, noise, *stop_gradient([T, eta, C]), adapt == "temperature", **options
        )
        return [T * by_T + np.sum(eta * by_eta) + np.sum(C * by_C)], [f_b, *grads]

    (aux_grads,), (f_b, *grads) = gradients(linear, aux)
    return f_b, grads, aux_grads


def mean_square_slopes(model, params, x, noise, temperature, eta, baseline, with_T, **options):
    """f(b), the gradient g with one η per tensor, and the slopes of mean(g²) in T, η and C.

    g = r + η c, and d mean(g²) = 2 mean(g dg) needs no second reverse pass: dg/dη is c, ∂c/∂T comes
    with c in a pass forward, and C of an image subtracts ∇log q(b) / batch from g. The slope in T
    is 0 unless `with_T`.
    """

    def r_and_c(temperature):
        f_b, r, c = separately(model, params, x, noise, *temperature, baseline, **options)
        return [f_b, *r, *c]

    one, n = np.ones_like(temperature), len(params) + 1
    values, by_T = jvp(r_and_c, [temperature], [one]) if with_T else (r_and_c([temperature]), [])
    f_b, r, c, c_by_T = values[0], values[1:n], values[n:], by_T[n:]
    g = combine(r, eta, c)
    log_q = lambda params: [sum(hard_sweep(model, params, x, noise)[2])]
    _, (g_score,) = jvp(log_q, params, g)  # g'∇log q(b) of every image
    slopes = (
        sum(eta_k * np.vdot(g_k, d_k) for eta_k, g_k, d_k in zip(eta, g, c_by_T)),
        np.array([np.vdot(g_k, c_k) for g_k, c_k in zip(g, c)]),
        -g_score / len(x),
    )
    size = sum(np.size(g_k) for g_k in g)
    return f_b, g, [slope * (2 / size) for slope in slopes]


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, temperature=0.5, eta=1.0, baseline=0.0, **options):
    """n independent single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v only matters for conditional
    "independent". The other options are those of `rebar`.
    """
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    x = np.zeros((len(u), 0))
    model = Toy(f, len(logits))
    _, (grads,) = rebar(model, [tiled], x, [(u, v)], temperature, eta, baseline, **options)
    return len(u) * grads


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
    p.flag("--adapt", "learn T, η and C; η and C; or none", choices=("temperature", "eta", "none"))
    p.flag("--temperature", "T, or its first value", 0.5, type=cli.POSITIVE)
    p.flag("--relaxation", "of the bits", choices=("rebar", "concrete"))
    p.flag("--noise", "z̃ from the random numbers of z, or from its own", dest="conditional",
           choices=("coupled", "independent"))  # fmt: skip
    p.flag("--control-variate", "one relaxation a layer, or one", choices=("per-layer", "joint"))
    p.flag("--as-released", "the published construction, biased", action="store_true")
    args = cli.parse(p, argv)
    if args.as_released:
        print("--as-released: with two or more layers the gradient is biased", file=sys.stderr)
    names = ("adapt", "relaxation", "conditional", "control_variate", "as_released")
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    init = partial(init_aux, temperature=args.temperature, adapt=args.adapt)
    return toy(args, ours, init) if args.toy else train(args, ours, init, report)


if __name__ == "__main__":
    cli.run(main)
