"""NVIL (Mnih & Gregor 2014, arXiv 1402.0030): REINFORCE with learned baselines.

A network C(x), one tanh layer of 100 units, learns by least squares to predict f(b) from the image:

    signal = f(b) − C(x),    ∇ E[f(b)] = E[ signal ∇log q(b) + ∇f(b) ].

This, one signal for all layers, is the default and the NVIL of Tucker et al. 2017 (arXiv
1703.07370). Mnih & Gregor have three refinements, here flags:

--moving-average  also subtracts c, a moving average of the signal in earlier steps.
--normalize       divides it by s = max(1, √v), v a moving average of its variance in earlier
                  steps. As s is fixed before the step, q's gradient is exactly the unbiased one
                  over s; p's keeps its scale, so their balance shifts.
--layer-local     gives b_i only the terms of f that it can change, and a baseline that sees the
                  layer below (C_0 sees x); C, c and s are then one per layer. With b_{−1} = x,
                      l_i = Σ_{j≥i} [log p(b_{j−1} | b_j) − log q(b_j | b_{j−1})] + log p(b_{L−1}).
                  Task "predict" has one term, which all layers change: every l_i is f.

Recalled, not checked against the paper: the factor .8 of the averages, --layer-local, and that its
c and v include the present batch. Ours do not: a baseline must not see its own sample. Cost per
step: that of REINFORCE, and a small network a signal.

    python methods/nvil.py
"""

from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    Assign,
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    init_mlp,
    mlp,
    shaped,
    stop_gradient,
)
from harness import cli
from harness.toy import train_toy
from harness.run import train

import autograd.numpy as np

DECAY = 0.8  # of the moving averages c and v

# --------------------------------------------------------------------------------- the estimator


def estimate(model, params, aux, x, noise, *, moving_average=False, normalize=False,
             layer_local=False):  # fmt: skip
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean over the batch of signal², summed over the signals, for the
    networks C, and new values of the averages c and v (tracked whether used or not). `noise` is a
    list of pairs (u, v) of uniforms, one pair a layer; the v of the noise is not used.
    """
    (*networks, c, v), n = aux, len(params)
    scale = np.maximum(1, np.sqrt(v)) if normalize else np.ones_like(v)

    def objectives(tensors):
        params, networks = tensors[:n], tensors[n:]
        b, logits = model.infer(params, x, lambda layer, a: hard_sample(a, noise[layer][0]))
        log_q = [bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, logits)]
        if layer_local:
            terms = model.bound_terms(params, x, b, stop_gradient(logits))
            f_b, inputs = sum(terms), [model.centre(x), *(2 * b_i - 1 for b_i in b[:-1])]
            l = [sum(stop_gradient(terms[i:])) for i in range(len(b))]  # l[0] is f(b)
        else:
            f_b, inputs = model.bound(params, x, b, stop_gradient(logits)), [model.centre(x)]
            l, log_q = [stop_gradient(f_b)], [sum(log_q)]

        surrogate, squared_signals, residuals = f_b, 0, []
        for i, l_i in enumerate(l):
            C_i = mlp(networks[4 * i : 4 * i + 4], inputs[i])[:, 0]
            residual = l_i - C_i
            signal = residual - c[i] if moving_average else residual
            surrogate = surrogate + stop_gradient(signal) / scale[i] * log_q[i]
            squared_signals = squared_signals + signal**2
            residuals.append(residual)
        return [np.sum(surrogate) / len(x), np.sum(squared_signals) / len(x)], [f_b, *residuals]

    # One trace for both: the first objective is the model's, the second the networks'.
    (grads, aux_grads), (f_b, *residuals) = gradients(objectives, [*params, *networks])
    residuals = np.array(residuals)  # (signals, batch)
    new_c = DECAY * c + (1 - DECAY) * np.mean(residuals, axis=1)
    new_v = DECAY * v + (1 - DECAY) * np.var(residuals, axis=1)
    averages = [Assign(new_c), Assign(new_v)]
    return f_b, grads[:n], [*aux_grads[n:], *averages]


# ------------------------------------------------------------------------- what it learns itself


def init_aux(rng, model, layer_local=False):
    """[W1, b1, W2, b2 of every C_i; c; v], c and v with one element per signal, from 0."""
    inputs = [model.n_inputs, *model.units[:-1]] if layer_local else [model.n_inputs]
    aux = []
    for n in inputs:
        aux += init_mlp(rng, [n, 100, 1], model.dtype)
    return [*aux, *np.zeros((2, len(inputs)), model.dtype)]


def report(model, aux):
    """What to log of every signal f − C: its moving average c and standard deviation √v."""
    log = {f"signal_mean/{i}": float(c_i) for i, c_i in enumerate(aux[-2])}
    return log | {f"signal_sd/{i}": float(sd) for i, sd in enumerate(np.sqrt(aux[-1]))}


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, baseline=0.0):
    """n independent single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v is not used. C is the number `baseline`.
    """
    logits, u, v = check_samples(logits, u, v)
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    x, model = np.zeros((len(u), 0)), Toy(f, len(logits))
    aux = [
        np.zeros((0, 1)),
        np.zeros(1),
        np.zeros((1, 1)),
        np.full(1, shaped("baseline", baseline)),
        *np.zeros((2, 1)),
    ]
    _, (grads,), _ = estimate(model, [tiled], aux, x, [(u, v)])
    return len(u) * grads


def toy(args, estimate, init_aux):
    plain = partial(reinforce.estimate, baseline="none"), reinforce.init_aux
    train_toy(args, {"REINFORCE": plain, "NVIL": (estimate, init_aux)})


def main(argv=None):
    p = cli.parser("nvil", __doc__)
    p.flag("--moving-average", "subtract c, of earlier signals", action="store_true")
    p.flag("--normalize", "divide the signal by max(1, √v)", action="store_true")
    p.flag("--layer-local", "a signal and a baseline per layer", action="store_true")
    args = cli.parse(p, argv)
    if args.layers == 1:
        p.unread("with --layers 1", "--layer-local")
    if args.samples == 1 and (args.toy or args.batch_size == 1):  # one signal has no variance
        p.unread(f"with {'--toy' if args.toy else '--batch-size 1'} and --samples 1", "--normalize")
    names = ("moving_average", "normalize", "layer_local")
    ours = partial(estimate, **{name: getattr(args, name) for name in names})
    init = partial(init_aux, layer_local=args.layer_local)
    return toy(args, ours, init) if args.toy else train(args, ours, init, report)


if __name__ == "__main__":
    cli.run(main)
