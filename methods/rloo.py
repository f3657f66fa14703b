"""RLOO: REINFORCE with K samples of the same image, each with the others as its baseline (Kool, van
Hoof, Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free"; Mnih & Rezende 2016).

Draw b_1 … b_K ~ q(b|x), with values f_k = f(b_k). The mean of the other values estimates E[f(b)],
and it does not depend on b_k. So it may be subtracted:

    C_k = 1/(K−1) Σ_{j≠k} f_j
    ∇ E[f(b)] = E[ 1/K Σ_k (f_k − C_k) ∇log q(b_k) + 1/K Σ_k ∇f(b_k) ]

where ∇f(b) is the direct derivative (of the decoder's parameters, b held fixed). With several
layers, log q(b) is summed over them. Nothing is learned, and f may be a black box.

Two changes that look harmless (--baseline). "mean" subtracts the mean of all K values. It contains
f_k, and the gradient of q is too small by the factor 1 − 1/K, exactly. "grpo" also divides by the
standard deviation of the K values (0 where that is 0), as in GRPO (Shao et al. 2024, arXiv
2402.03300). This is the gradient of another objective: for one bit and f = b, instead of
d/da E[b] = π(1−π) it tends to d/da 2 arcsin √π = √(π(1−π)) as K grows; π = σ(a) is P(b = 1).

`reinforce.py --baseline batch` has the mean over the *other images* of the batch for its C: it
costs nothing, but values differ more from image to image than from sample to sample. RLOO
is the one that fine-tunes language models (RLOOTrainer in TRL; verl, AReaL and others have it):
there x is a prompt, b an answer and f its reward.

Cost per image and step: K evaluations of f, and K derivatives of log p and log q.

    python methods/rloo.py
"""

from functools import partial

import reinforce
from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    Toy,
    bernoulli_log_prob,
    check_samples,
    gradients,
    hard_sample,
    one_of,
    stop_gradient,
)
from harness import cli
from harness.toy import outcomes, train_toy
from harness.run import train

import autograd.numpy as np

BASELINES = ("leave-one-out", "mean", "grpo")

# --------------------------------------------------------------------------------- the estimator


def advantage(f, baseline="leave-one-out"):
    """What multiplies ∇log q(b_k): f_k − C_k, or what --baseline says; f has shape (images, K)."""
    K = f.shape[1]
    if baseline == "grpo":
        f = f - f[:, :1]  # equal values are 0 exactly, and so is their standard deviation
    centred = f - np.sum(f, axis=1, keepdims=True) / K
    if baseline == "leave-one-out":
        return centred * (K / (K - 1))  # the same as f_k − C_k
    if baseline == "mean":
        return centred
    sd = np.sqrt(np.sum(centred**2, axis=1, keepdims=True) / K)
    return centred / np.where(sd > 0, sd, 1)


def init_aux(rng, model):
    """RLOO has nothing of its own to learn."""
    return []


def estimate(model, params, aux, x, noise, *, samples=2, baseline="leave-one-out"):
    """The estimator: bound (rows,) in nats, gradients like params (ascent), [].

    Every image is in `samples` = K consecutive rows of x. `noise` is a list of pairs (u, v) of
    uniforms, one pair a layer; v is not used. Raises InputError for K < 2, for rows that K does
    not divide, and for an unknown baseline.
    """
    check(len(x), samples, baseline)

    def surrogate(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        f = model.bound(params, x, b, stop_gradient(a))  # the derivative of −log q has mean zero
        log_q = sum(bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
        A = advantage(np.reshape(stop_gradient(f), (-1, samples)), baseline)
        return [np.sum(np.reshape(A, f.shape) * log_q + f) / len(x)], f

    (grads,), f = gradients(surrogate, params)
    return f, grads, []


def check(rows, samples, baseline):
    """Raise InputError for what RLOO is not defined for."""
    one_of("baseline", baseline, BASELINES)
    if samples < 2:
        raise InputError("samples: RLOO needs two or more of every image")
    if rows % samples:
        raise InputError(f"samples: {rows} rows are not images of {samples} samples each")


def vargrad(model, params, x, noise, *, samples=2):
    """VarGrad (Richter et al. 2020, arXiv 2010.10436): another way to RLOO. Gradients like params.

    Of half the sample variance 1/(K−1) Σ_k (f_k − f̄)² of f = log p − log q, mean over images, with
    the b_k held fixed. For the parameters of q it is minus RLOO's gradient of E[f], sample by
    sample. (For those of p it is something else, and is not used.)
    """
    check(len(x), samples, "leave-one-out")

    def half_variance(params):
        b, a = model.infer(params, x, lambda layer, a_i: hard_sample(a_i, noise[layer][0]))
        f = np.reshape(model.bound(params, x, b, a), (-1, samples))  # log q(b_k) is differentiated
        centred = f - np.sum(f, axis=1, keepdims=True) / samples
        return [0.5 * np.sum(centred**2) / (samples - 1) / len(f)], []

    (grads,), _ = gradients(half_variance, params)
    return grads


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, baseline="leave-one-out"):
    """n independent estimates of d/dlogits E[f(b)], of K samples each: (n, D).

    f maps bits (n, D) to values (n,); `logits` has shape (D,), the uniforms u and v (n, K, D), and
    v is not used. Raises InputError (a ValueError) for other shapes, K < 2, an unknown baseline.
    """
    logits, u, v = check_samples(logits, u, v, K=None)
    n, K, D = u.shape
    tiled = np.tile(logits, (n * K, 1))  # one row of logits per sample, so one gradient each
    model, x, flat = Toy(f, D), np.zeros((n * K, 0)), (n * K, D)
    noise = [(np.reshape(u, flat), np.reshape(v, flat))]
    _, (grads,), _ = estimate(model, [tiled], [], x, noise, samples=K, baseline=baseline)
    return n * np.sum(np.reshape(grads, (n, K, D)), axis=1)


def toy(args):
    """Beside the mean over K samples of REINFORCE without a baseline, at the same K."""
    ours = partial(estimate, samples=args.samples, baseline=args.baseline)
    plain = partial(reinforce.estimate, baseline="none")
    methods = {"REINFORCE": (plain, reinforce.init_aux), "RLOO": (ours, init_aux)}
    train_toy(args, methods, lambda logits: outcomes(logits, args.samples))


def main(argv=None):
    p = cli.parser("rloo", __doc__, samples=2)
    p.flag("--baseline", "of every sample, see above", choices=BASELINES)
    args = cli.parse(p, argv)
    if args.samples < 2:
        p.error("--samples: RLOO needs two or more of every image")
    if args.toy:
        return toy(args)
    return train(args, partial(estimate, samples=args.samples, baseline=args.baseline), init_aux)


if __name__ == "__main__":
    cli.run(main)
