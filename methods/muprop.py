"""MuProp (Gu et al. 2016, arXiv 1511.05176): REINFORCE around the mean-field network.

The mean-field pass replaces the bits of every layer i by their means, μ_i = σ(a_i(μ_{i−1})). Its
bound f_mf and the total derivatives D_i = df_mf/dμ_i, through all the layers above too, make a
first-order Taylor expansion of f around μ. Its coefficients do not depend on b. So it may be
subtracted from f(b), and what that takes from the mean of the gradient is known, and added again:

    signal_i = f(b) − s0_i f_mf − s1_i ⟨D_i, b_i − μ_i⟩ − C_i(x)
    ∇ E[f(b)] = E[ Σ_i signal_i ∇log q(b_i | b_{i−1}) + s1_i ⟨D_i, ∇σ(a_i)⟩ + ∇f(b) ]

with a_i the logits given the sampled bits below. Scales s0_i, s1_i in (0, 2) and networks C_i, one
per layer, minimise the squared signals. SimpleMuProp (--simple; Tucker et al. 2017, arXiv
1703.07370) keeps f_mf only, with one scale and one C for all layers:

    signal = f(b) − s f_mf − C(x).

Learning the scales is the practice of Tucker et al.'s code; --fixed-scales has s0 = s1 = s = 1, as
Gu et al. f has to be differentiable for MuProp.
Cost per step: f and ∇f once at b, f once at μ, and for MuProp its derivative by μ.

    python methods/muprop.py
"""

from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    init_mlp,
    mlp,
    shaped,
    sigmoid,
    stop_gradient,
)
from concrete import finite, no_effect
from harness import cli
from harness.toy import train_toy
from harness.run import train

import autograd.numpy as np

# --------------------------------------------------------------------------------- the estimator


def mean_field(model, params, x, simple=False):
    """f_mf (batch,), and per layer μ_i and D_i = df_mf/dμ_i, in total: (batch, units) each.

    With `simple` every D_i is 0, and f needs no derivative.
    """
    if simple:
        mu, a = model.infer(params, x, lambda layer, a_i: sigmoid(a_i))
        return model.bound(params, x, mu, a), mu, [np.zeros_like(mu_i) for mu_i in mu]
    zeros = [np.zeros((len(x), n), model.dtype) for n in model.units]

    def bound(shifts):  # a shift of μ_i also moves all that the layers above make of it
        mu, a = model.infer(params, x, lambda layer, a_i: sigmoid(a_i) + shifts[layer])
        f_mf = model.bound(params, x, mu, a)
        return [np.sum(f_mf)], [f_mf, *mu]

    (D,), (f_mf, *mu) = gradients(bound, zeros)
    return f_mf, mu, D


def signals(f_b, f_mf, linear, s0, s1, baseline):
    """signal_i (layers, batch) from `linear`, the terms ⟨D_i, b_i − μ_i⟩ (layers, batch).

    s0, s1 have shape (layers, 1) and `baseline` (layers, batch), or 1 for the same in all layers.
    """
    return f_b - s0 * f_mf - s1 * linear - baseline


def muprop(model, params, x, noise, s0, s1, baseline, *, simple=False):
    """f(b) (batch,), f_mf (batch,), the linear terms, and the gradient of mean f(b) (ascent)."""
    f_mf, mu, D = mean_field(model, params, x, simple)

    def surrogate(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        f_b = model.bound(params, x, b, stop_gradient(a))
        linear = np.array([np.sum(D_i * (b_i - m), axis=1) for D_i, b_i, m in zip(D, b, mu)])
        signal = signals(stop_gradient(f_b), f_mf, linear, s0, s1, baseline)
        total = f_b
        for layer, (b_i, a_i) in enumerate(zip(b, a)):
            total = total + signal[layer] * bernoulli_log_prob(b_i, a_i)
            if not simple:
                total = total + s1[layer] * np.sum(D[layer] * sigmoid(a_i), axis=1)
        return [np.sum(total) / len(x)], [f_b, linear]

    (grads,), (f_b, linear) = gradients(surrogate, params)
    return f_b, f_mf, linear, grads


# ------------------------------------------------------------------------- what it learns itself


def init_aux(rng, model, simple=False):
    """[W1, b1, W2, b2 of every C_i; logits of s0/2 and of s1/2], for one layer if `simple`."""
    layers = 1 if simple else len(model.units)
    aux = []
    for _ in range(layers):
        aux += init_mlp(rng, [model.n_inputs, 100, 1], model.dtype)
    return [*aux, np.zeros((layers, 1)), np.zeros((layers, 1))]


def learned(aux, inputs, fixed_scales=False):
    """s0, s1 in (0, 2), or 1 if they are fixed, and C (layers, batch), from aux."""
    *tensors, w0, w1 = aux
    networks = [tensors[k : k + 4] for k in range(0, len(tensors), 4)]
    baseline = np.array([mlp(network, inputs)[:, 0] for network in networks])
    if fixed_scales:
        return np.ones(w0.shape), np.ones(w1.shape), baseline
    return 2 * sigmoid(w0), 2 * sigmoid(w1), baseline


def estimate(model, params, aux, x, noise, *, simple=False, fixed_scales=False):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean over the batch of Σ_i signal_i², a sum of one term if `simple`,
    where all layers have one signal; 0 for scales that are fixed.
    """
    s0_s1_C = partial(learned, inputs=model.centre(x), fixed_scales=fixed_scales)
    f_b, f_mf, linear, grads = muprop(model, params, x, noise, *s0_s1_C(aux), simple=simple)
    linear = linear[:1] if simple else linear

    def squared_signals(aux):
        signal = signals(f_b, f_mf, linear, *s0_s1_C(aux))
        return [np.sum(signal**2) / len(x)], []

    (aux_grads,), _ = gradients(squared_signals, aux)
    return f_b, grads, aux_grads


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, s0=1.0, s1=None, baseline=0.0, simple=False):
    """n independent single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v is not used. f has to be differentiable,
    but for `simple`, which is REINFORCE with the baseline s0 f(σ(logits)) + baseline. That has no
    s1, which is by default 1.
    """
    if simple:
        no_effect("simple", s1=s1)
    logits, u, v = check_samples(logits, u, v)
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    model, x = Toy(f, len(logits)), np.zeros((len(u), 0))
    given = {"s0": s0, "s1": 1.0 if s1 is None else s1, "baseline": baseline}
    s0, s1, baseline = (np.full((1, 1), shaped(*pair)) for pair in given.items())
    *_, (grads,) = muprop(model, [tiled], x, [(u, v)], s0, s1, baseline, simple=simple)
    return finite(len(u) * grads)


def report(model, aux):
    """What to log: the scales of every layer."""
    s0, s1 = (2 * sigmoid(w)[:, 0] for w in aux[-2:])
    return {f"s{k}/{i}": float(s_i) for k, s in enumerate((s0, s1)) for i, s_i in enumerate(s)}


def toy(args, estimate, init_aux):
    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    label = "SimpleMuProp" if args.simple else "MuProp"
    train_toy(args, {"REINFORCE": plain, label: (estimate, init_aux)})


def main(argv=None):
    p = cli.parser("muprop", __doc__)
    p.flag("--simple", "SimpleMuProp: the mean-field bound only", action="store_true")
    p.flag("--fixed-scales", "s0 = s1 = 1, not learned", action="store_true")
    args = cli.parse(p, argv)
    ours = partial(estimate, simple=args.simple, fixed_scales=args.fixed_scales)
    init = partial(init_aux, simple=args.simple)
    return toy(args, ours, init) if args.toy else train(args, ours, init, report)


if __name__ == "__main__":
    cli.run(main)
