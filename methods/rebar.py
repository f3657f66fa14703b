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

import training
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    bernoulli_log_prob,
    gradients,
    hard_sample,
    init_mlp,
    logit,
    mlp,
    sigmoid,
    softplus,
    stop_gradient,
)

import autograd.numpy as np

# --------------------------------------------------------------------------------- the estimator


def rebar(model, params, x, noise, temperature, eta, baseline, *, relaxation="rebar",
          conditional="coupled", control_variate="per-layer", as_released=False):  # fmt: skip
    """f(b) (batch,) and the REBAR gradient of its mean, a list like params (ascent).

    `noise` holds a pair (u, v) of uniforms per layer; `eta` is a scalar or one per parameter,
    `baseline` a scalar or (batch,).
    """
    u = [u_i for u_i, _ in noise]

    def surrogates(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, u[layer]))
        f_b = model.bound(params, x, b, stop_gradient(a))
        log_q = [bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a)]
        reinforce = f_b + (stop_gradient(f_b) - baseline) * sum(log_q)

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
                eps_i = eps[layer] if conditioned else logit(u[layer])
                return relax(a_i, eps_i, temperature, relaxation)

            return model.bound(direct, x, *model.infer(direct, x, sample, known[: first + 1]))

        control = 0
        for layer in range(1 if joint else len(b)):
            f = relaxed(layer)
            difference, f_tilde = (f, f) if one_pass else (f[0] - f[1], f[1])
            score = sum(log_q) if joint else log_q[layer]
            control = control + difference - stop_gradient(f_tilde) * score
        if np.ndim(eta) == 0:
            return [np.sum(reinforce + eta * control) / len(x)], f_b
        return [np.sum(reinforce) / len(x), np.sum(control) / len(x)], f_b

    grads, f_b = gradients(surrogates, params)
    if np.ndim(eta) == 0:
        return f_b, grads[0]
    return f_b, [g + eta_k * h for g, eta_k, h in zip(grads[0], eta, grads[1])]


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
    fixed = [] if adapt == "temperature" else aux[-1:]

    def second_moment(adapted):
        network, eta, temperature = learned([*adapted, *fixed])
        baseline = mlp(network, model.centre(x))[:, 0]
        f_b, grads = rebar(model, params, x, noise, temperature, eta, baseline, **options)
        total = sum(np.sum(g * g) for g in grads)
        return [total / sum(np.size(g) for g in grads)], [f_b, *grads]

    (aux_grads,), (f_b, *grads) = gradients(second_moment, aux[: len(aux) - len(fixed)])
    return f_b, grads, [*aux_grads, *map(np.zeros_like, fixed)]


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
    import reinforce  # only to draw it beside this method

    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    training.train_toy(args, {"REINFORCE": plain, "REBAR": (estimate, init_aux)})


def main(argv=None):
    p = training.parser("rebar", __doc__)
    p.flag("--adapt", "learn T, η and C; η and C; or none", choices=("temperature", "eta", "none"))
    p.flag("--temperature", "T, or its first value", 0.5, type=training.POSITIVE)
    p.flag("--relaxation", "of the bits", choices=("rebar", "concrete"))
    p.flag("--noise", "z̃ from the random numbers of z, or from its own", dest="conditional",
           choices=("coupled", "independent"))  # fmt: skip
    p.flag("--control-variate", "one relaxation a layer, or one", choices=("per-layer", "joint"))
    p.flag("--as-released", "the published construction, biased", action="store_true")
    args = training.parse(p, argv)
    if args.as_released:
        print("--as-released: with two or more layers the gradient is biased", file=sys.stderr)
    names = ("adapt", "relaxation", "conditional", "control_variate", "as_released")
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    init = partial(init_aux, temperature=args.temperature, adapt=args.adapt)
    return toy(args, ours, init) if args.toy else training.train(args, ours, init, report)


if __name__ == "__main__":
    training.run(main)
