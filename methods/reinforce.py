"""REINFORCE: the score-function estimator (Williams 1992; Glynn 1990).

The gradient of an expectation over bits b ~ q(b) = Bernoulli(sigmoid(logits)) needs no derivative
of the function inside, because ∇q = q ∇log q:

    ∇ E[f(b)] = E[ (f(b) − C) ∇log q(b) + ∇f(b) ]

where ∇f(b) is the direct derivative (of the decoder's parameters, b held fixed), and C is any
number that does not depend on b: E[∇log q] = 0. The direct derivative of the − log q inside f has
mean zero for the same reason and is left out. With several layers, log q(b) is summed over them.

Baselines C (--baseline): "batch" is the mean of f over the other rows of the batch, as in the code
of Tucker et al. 2017 (arXiv 1703.07370); "none" is C = 0, the plain estimator. The rows are other
images. For the mean over other samples of the same image, leave-one-out, see rloo.py.

Cost per step: one evaluation of f and one derivative of log p and log q.

    python methods/reinforce.py
"""

from functools import partial

from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    one_of,
    sigmoid,
    stop_gradient,
)
from harness import cli
from harness.toy import train_toy
from harness.run import train

import autograd.numpy as np

BASELINES = ("batch", "none")
NEEDS_TWO = "the mean over the other rows needs two rows; use a larger batch or --baseline none"


def init_aux(rng, model):
    """REINFORCE has nothing of its own to learn."""
    return []


def estimate(model, params, aux, x, noise, *, baseline="batch"):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), [].

    `noise` is a list of pairs (u, v) of uniforms, one pair a layer; v is not used. `baseline` may
    also be C itself, a number or (batch,). Raises InputError for an unknown baseline, and for
    "batch" with a single row.
    """
    C = 0.0 if isinstance(baseline, str) else baseline
    of_batch = isinstance(baseline, str) and one_of("baseline", baseline, BASELINES) == "batch"
    if of_batch and len(x) < 2:
        raise InputError(f"--batch-size: {NEEDS_TWO}")

    def surrogate(params):
        b, logits = model.infer(params, x, lambda layer, a: hard_sample(a, noise[layer][0]))
        f_b = model.bound(params, x, b, stop_gradient(logits))
        log_q = sum(bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, logits))
        signal = stop_gradient(f_b) - C
        if of_batch:
            signal = signal - (np.sum(signal) - signal) / (len(x) - 1)
        return [np.sum(signal * log_q + f_b) / len(x)], f_b

    (grads,), f_b = gradients(surrogate, params)
    return f_b, grads, []


def gradient_samples(f, logits, u, v, *, baseline="none"):
    """n single-sample estimates of d/dlogits E[f(b)]: (n, D), for f: (n, D) -> (n,).

    `logits` has shape (D,), the uniforms u and v (n, D); v is not used. The rows are independent
    with baseline "none"; "batch" takes the n rows as one batch.
    """
    logits, u, v = check_samples(logits, u, v)
    tiled = np.tile(logits, (len(u), 1))  # one row of logits per sample, so one gradient each
    x = np.zeros((len(u), 0))
    model = Toy(f, len(logits))
    _, (grads,), _ = estimate(model, [tiled], [], x, [(u, v)], baseline=baseline)
    return len(u) * grads


def toy(args):
    """Without a baseline, and with C = E[f(b)], which is known for one bit."""

    def centred(model, params, *rest):
        theta, (f_0, f_1) = sigmoid(params[0]), model.f(np.array([[0.0], [1.0]]))
        C = np.ravel((1 - theta) * f_0 + theta * f_1)  # (rows,)
        return estimate(model, params, *rest, baseline=C)

    plain = partial(estimate, baseline="none")
    train_toy(args, {"C = 0": (plain, init_aux), "C = E[f]": (centred, init_aux)})


def main(argv=None):
    p = cli.parser("reinforce", __doc__)
    p.flag("--baseline", "C in the formula", choices=BASELINES)
    args = cli.parse(p, argv)
    if args.toy:
        p.unread("with --toy, which draws both", "--baseline")
        return toy(args)
    if args.baseline == "batch" and args.batch_size * args.samples < 2:
        p.error(f"--batch-size: {NEEDS_TWO}")
    return train(args, partial(estimate, baseline=args.baseline), init_aux)


if __name__ == "__main__":
    cli.run(main)
