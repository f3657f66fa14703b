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

Cost per step: f and ∇f once at b and 2 L times relaxed; about as much again to adapt.

    python methods/rebar.py
"""

import sys
from functools import partial

import common  # before numpy: it chooses the number of BLAS threads
from common import (
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
        b, a = model.infer(params, x, lambda layer, a: hard_sample(a, u[layer]))
        f_b = model.bound(params, x, b, stop_gradient(a))
        log_q = [bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a)]
        reinforce = f_b + stop_gradient(f_b - baseline) * sum(log_q)

        # logit(u) and logit(v), in each layer, v following u' = 1 − σ(a) such that b stays the same
        eps = [logit(u_i) for u_i in u]
        eps_tilde = [conditional_noise(a_i, *uv, conditional) for a_i, uv in zip(a, noise)]

        def relaxed(first):
            """f at the relaxed z and z̃, with hard bits below the layer `first`."""

            def sample(layer, a_i):
                if layer < first:
                    return b[layer]
                both = layer == first or as_released or control_variate == "joint"
                pair = [eps[layer], eps_tilde[layer] if both else eps[layer]]
                return relax(a_i, np.array(pair), temperature, relaxation)  # (2, batch, units)

            return model.bound(params, x, *model.infer(params, x, sample))

        control = 0
        for layer in range(1 if control_variate == "joint" else len(b)):
            f_z, f_z_tilde = relaxed(layer)
            score = sum(log_q) if control_variate == "joint" else log_q[layer]
            control = control + f_z - f_z_tilde - stop_gradient(f_z_tilde) * score
        return [np.mean(reinforce), np.mean(control)], f_b

    (g_reinforce, g_control), f_b = gradients(surrogates, params)
    etas = [eta] * len(params) if np.ndim(eta) == 0 else eta
    return f_b, [g + eta_k * h for g, eta_k, h in zip(g_reinforce, etas, g_control)]


def relax(a, eps, temperature, relaxation="rebar"):
    """The relaxed bit σ(z / T), z = a + eps; "rebar" adds a T / (T + 1) to reach the mean σ(a).

    As T → 0 both tend to the hard bit; as T → ∞ to σ(a) ("rebar") or 1/2 ("concrete").
    """
    z = a + eps
    shift = a * (temperature / (temperature + 1)) if relaxation == "rebar" else 0
    return sigmoid(z / temperature + shift)


def conditional_noise(a, u, v, conditional):
    """logit of a uniform given b = 1[a + logit(u) > 0], so that z̃ = a + this has the sign of z.

    With s = 2b − 1,   z̃ = s softplus(s logit(v) + softplus(s a)),   differentiable in a.
    "independent" takes v as it comes. "coupled", common random numbers, takes the v that makes
    z̃ = z: then only the derivative differs from that of z,   dz̃/da = (1 − exp(−|z|)) σ(s a).
    """
    eps, s, a_fixed = logit(u), 2 * hard_sample(a, u) - 1, stop_gradient(a)
    if conditional == "independent":
        return s * softplus(s * logit(v) + softplus(s * a)) - a
    slope = -np.expm1(-np.abs(a_fixed + eps)) * sigmoid(s * a_fixed)
    return eps + (slope - 1) * (a - a_fixed)


# ------------------------------------------------------------------------- what it learns itself


def init_aux(rng, model, temperature=0.5):
    """[W1, b1, W2, b2 of C; logits of η/2, one per tensor of the model; log T]."""
    network = init_mlp(rng, [model.n_inputs, 100, 1], model.dtype)
    return [*network, np.zeros(len(model.names)), np.log(temperature)]


def learned(aux):
    """(network of C, η in (0, 2), T) from aux."""
    *network, eta_logits, log_temperature = aux
    return network, 2 * sigmoid(eta_logits), np.exp(log_temperature)


def estimate(model, params, aux, x, noise, *, adapt="temperature", **options):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square of the gradient over all parameters. `adapt` says for
    what: "temperature" is everything, "eta" leaves T out, "none" leaves all out, with C = 0. The
    other options are those of `rebar`.
    """
    if adapt == "none":
        _, eta, temperature = learned(aux)
        f_b, grads = rebar(model, params, x, noise, temperature, eta, 0.0, **options)
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
    """What to log: the temperature and, under "eta/", η of every parameter tensor."""
    _, eta, temperature = learned(aux)
    etas = {f"eta/{name}": float(eta_k) for name, eta_k in zip(model.names, eta)}
    return {"temperature": float(temperature), **etas}


def toy(args, estimate, init_aux):
    import reinforce  # only to draw it beside this method

    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    common.train_toy(args, {"REINFORCE": plain, "REBAR": (estimate, init_aux)})


def main(argv=None):
    p = common.parser("rebar", __doc__)

    def choice(flag, help, *choices):
        p.add_argument(
            flag, help=f"{help}; default: {choices[0]}", choices=choices, default=choices[0]
        )

    choice("--adapt", "what the variance teaches", "temperature", "eta", "none")
    p.add_argument("--temperature", help="T, at first if it is adapted; default: 0.5",
                   type=common.POSITIVE, default=0.5)  # fmt: skip
    choice("--relaxation", "of the bits", "rebar", "concrete")
    choice("--noise", "of z̃: the same random numbers as z, or its own", "coupled", "independent")
    choice("--control-variate", "one relaxation per layer, or one of all", "per-layer", "joint")
    p.add_argument("--as-released", action="store_true",
                   help="the published construction, biased for two or more layers")  # fmt: skip
    args = common.parse(p, argv)
    if args.as_released:
        print(
            "--as-released: the gradient of the upper layers is biased (for the lesson)",
            file=sys.stderr,
        )
    options = {"relaxation": args.relaxation, "conditional": args.noise, "adapt": args.adapt,
               "control_variate": args.control_variate, "as_released": args.as_released}  # fmt: skip
    pair = partial(estimate, **options), partial(init_aux, temperature=args.temperature)
    return toy(args, *pair) if args.toy else common.train(args, *pair, report)


if __name__ == "__main__":
    common.run(main)
