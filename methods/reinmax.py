"""Straight-through, to second order: ReinMax (Liu et al. 2023, arXiv 2304.08612); beside it ST, and
ST-Gumbel with and without Rao-Blackwell (Paulus et al. 2021, 2010.04838), for bits and for classes.

Straight-through is three lines. A bit b is drawn with probability π = σ(a), and then

    h = sigmoid(a)                    # something that has a derivative
    b = h + stop_gradient(b - h)      # the value of b, the slope of h
    loss = f(b)

So its gradient is dh/da · ∇f(b): the slope of f at the drawn bits, times the slope of *some* h.
All that is open is h. With z = a + logit(u), b = 1[z > 0] and J(p) = p (1 − p),

    ST            J(σ(a / T)) / T
    ST-Gumbel     J(σ(z / T)) / T
    Gumbel-Rao    E[J(σ(z / T)) | b] / T, by the mean of M draws of z given b
    ReinMax       2 J((σ(a / T) + b) / 2) − J(π) / 2

times ∇f(b), in every layer. For C classes J(p) is the matrix diag(p) − p pᵀ, and σ is softmax.

All are biased. The gradient of E[f(b)] has f(1) − f(0) where these have slopes. At T = 1 ST is
exact for linear f, as Euler's step is. ReinMax at T = 1 has the mean of the slopes at both ends, as
Heun's step has: it is exact for quadratic f, also of many variables, and not for a cubic. With
T ≠ 1 neither is even exact for linear f. Gumbel-Rao has the mean of ST-Gumbel and less variance.

Cost per step: f and ∇f once. --forward-temperature F draws b with z = a / F + logit(u), and
--temperature is the T of the slope (Shah et al. 2024, arXiv 2410.13331). The M draws of z are not
independent: they are those of v + m / M modulo 1 for one uniform v, each of which is uniform.

    python methods/reinmax.py
"""

from functools import partial

import categorical
import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    Toy,
    check_samples,
    gradients,
    hard_sample,
    logit,
    one_of,
    sigmoid,
    stop_gradient,
)
from concrete import check_slope, finite, no_effect, positive
from rebar import z_and_z_tilde
from harness import cli
from harness.run import train
from harness.toy import train_toy

import autograd.numpy as np

NAMES = {"reinmax": "ReinMax", "st": "ST", "st-gumbel": "ST-Gumbel", "gumbel-rao": "Gumbel-Rao"}
ESTIMATORS = tuple(NAMES)

# ------------------------------------------------------------------------------- the estimators


def emit(a, b, zs, T, estimator, probabilities, J):
    """The value of b, with the slope of the estimator by a; all of a's shape, and not traced but a.

    `zs` are the noisy logits of "st-gumbel" and "gumbel-rao". `probabilities` is σ or softmax, and
    J(p, d) the product of the matrix J(p) and the direction d.
    """
    fixed = stop_gradient(a)
    d = a - fixed  # the number 0, with slope 1
    if estimator == "reinmax":
        middle = (probabilities(fixed / T) + b) / 2
        return b + 2 * J(middle, d) - J(probabilities(fixed), d) / 2
    if estimator == "st":
        zs = [fixed]
    return b + sum(J(probabilities(z / T), d) for z in zs) / (T * len(zs))


def bits(a, u, v, *, estimator="reinmax", T=1.0, F=1.0, inner=1):
    """Bits of the logits a with the slope of `estimator`; u and v are uniforms like a."""
    drawn = stop_gradient(a) / F
    zs = [drawn + logit(u)]
    if estimator == "gumbel-rao":
        zs = [z_and_z_tilde(drawn, u, w, "independent")[1] for w in turned(v, inner)]
    return emit(a, hard_sample(drawn, u), zs, T, estimator, sigmoid, lambda p, d: p * (1 - p) * d)


def classes(a, u, v, *, estimator="reinmax", T=1.0, F=1.0, inner=1):
    """One-hots of the logits a (..., C) with that slope; u and v are uniforms like a."""
    drawn = stop_gradient(a) / F
    b, zs = categorical.hard_sample(drawn, u), [drawn + categorical.gumbel(u)]
    if estimator == "gumbel-rao":
        zs = [categorical.conditional(drawn, b, w) for w in turned(v, inner)]
    J = lambda p, d: p * (d - np.sum(p * d, axis=-1, keepdims=True))
    return emit(a, b, zs, T, estimator, categorical.softmax, J)


def hard(estimator, forward_temperature=1.0, inner=10):
    """`classes` with these options, as the argument `hard` of gumbel_softmax.py."""
    check(estimator, forward_temperature, inner)
    return partial(classes, estimator=estimator, F=forward_temperature, inner=int(inner))


def check(estimator, forward_temperature, inner):
    """Raise InputError for options that have no meaning."""
    one_of("estimator", estimator, ESTIMATORS)
    positive("forward_temperature", forward_temperature)
    positive("inner", inner)
    if inner % 1:
        raise InputError(f"inner: is a number of draws, not {inner}")


def turned(v, inner):
    """`inner` uniforms made of one: v + m / inner modulo 1, kept off 0 and 1."""
    margin = np.finfo(v.dtype).eps
    return [np.clip((v + m / inner) % 1, margin, 1 - margin) for m in range(inner)]


def init_aux(rng, model):
    """Nothing is learned: []."""
    return []


def estimate(model, params, aux, x, noise, *, estimator="reinmax", temperature=1.0,
             forward_temperature=1.0, inner=10):  # fmt: skip
    """The estimator, biased: bound (batch,) in nats, gradients like params (ascent), [].

    `noise` holds a pair (u, v) of uniforms per layer; v only matters for "gumbel-rao". The bound is
    that of the model's own bits, also if the gradient is at those of another forward_temperature.
    """
    one_of("estimator", estimator, ESTIMATORS)
    number = lambda T: np.array(T, model.dtype)
    options = {"T": number(temperature), "F": number(forward_temperature), "inner": inner}

    def value(params):
        slopes = lambda layer, a_l: bits(a_l, *noise[layer], estimator=estimator, **options)
        b, a = model.infer(params, x, slopes)
        f = model.bound(params, x, b, stop_gradient(a))  # the derivative by a of −log q has mean 0
        return [np.sum(f) / len(x)], f

    (grads,), f = gradients(value, params)
    if forward_temperature != 1:
        f = model.bound(
            params, x, *model.infer(params, x, lambda layer, a_l: hard_sample(a_l, noise[layer][0]))
        )
    return f, grads, []


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, estimator="reinmax", temperature=1.0,
                     forward_temperature=1.0, inner=None):  # fmt: skip
    """n single-sample estimates, biased, of d/dlogits E[f(b)]: (n, D).

    f maps bits (n, D) to (n,) and is differentiated at bits. `logits` has shape (D,), the uniforms
    u and v (n, D); v only matters for "gumbel-rao", which makes `inner` draws of it, by default 10.
    Raises InputError, a ValueError, for other shapes and options, and for an f that jumps.
    """
    logits, u, v = check_samples(logits, u, v)
    if one_of("estimator", estimator, ESTIMATORS) != "gumbel-rao":
        no_effect(estimator, inner=inner)
    inner = 10 if inner is None else inner
    check(estimator, forward_temperature, inner)
    positive("temperature", temperature)
    check_slope(f, sigmoid(logits + logit(u)))
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    model, x = Toy(f, len(logits)), np.zeros((len(u), 0))
    _, (grads,), _ = estimate(
        model, [tiled], [], x, [(u, v)], estimator=estimator, temperature=temperature,
        forward_temperature=forward_temperature, inner=int(inner),
    )  # fmt: skip
    return finite(len(u) * grads)


def toy(args, estimate):
    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    train_toy(args, {"REINFORCE": plain, NAMES[args.estimator]: (estimate, init_aux)})


def main(argv=None):
    p = cli.parser("reinmax", __doc__)
    p.flag("--estimator", "see above", choices=ESTIMATORS)
    p.flag("--temperature", "T of the slope", 1.0, type=cli.TEMPERATURE)
    p.flag("--forward-temperature", "F, of the draw", 1.0, type=cli.TEMPERATURE)
    p.flag("--inner", "M, draws of gumbel-rao", 10, type=cli.number(int, 1, 10_000), metavar="M")
    args = cli.parse(p, argv)
    if args.estimator != "gumbel-rao":
        p.unread("without --estimator gumbel-rao", "--inner")
    names = "estimator", "temperature", "forward_temperature", "inner"
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    return toy(args, ours) if args.toy else train(args, ours, init_aux)


if __name__ == "__main__":
    cli.run(main)
