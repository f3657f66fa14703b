"""Double CV and RODEO: control variates from the slopes of f at the other samples (Titsias & Shi
2022, arXiv 2111.05300; Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv 2202.09497).

Draw b_1 … b_K ~ q(b|x), of D bits with probabilities θ. Sample k has f_k = f(b_k) and the slope
G_k = ∂f/∂b at b_k. Ḡ_{−k} is the mean of G over the others. Double CV (--estimator double-cv)
corrects every f_k, in the baselines and in itself:

    c_k = α Ḡ_{−k}·(b_k − θ)
    ∇_a E[f(b)] = E[ 1/K Σ_k ( (f_k + c_k − 1/(K−1) Σ_{j≠k} (f_j + c_j)) (b_k − θ)
                               − α Ḡ_{−k} θ(1−θ) ) ].

RODEO has more functions of mean zero than linear ones. A Markov chain that turns bit i over at the
rate q_i(b), the probability of its other value, keeps q(b|x). So its generator makes, of any
function h, one of mean zero (a Stein operator; b^i is b with bit i turned over):

    (A h)(b) = 1/D Σ_i q_i(b) (h(b^i) − h(b))            E[(A h)(b)] = 0.

The functions of sample k come from the other samples and a network H with two outputs:

    h_k(y) = 1/(K−1) Σ_{j≠k} H(G_j·(y − b_j), f_j) = (h¹_k(y), h²_k(y))
    ∇_a E[f(b)] = E[ 1/K Σ_k ( (f_k − 1/(K−1) Σ_{j≠k} (f_j + α (A h¹_j)(b_j))) (b_k − θ)
                               + β (A [h²_k (y − θ)])(b_k) ) ].

Both are unbiased for every α, β, H and even G. A correction c_j or (A h_j)(b_j) has mean zero given
all samples but j, and so has its product with b_k − θ, k ≠ j. The product of c_k with b_k − θ has
the mean α Ḡ_{−k} θ(1−θ), which is subtracted. With L layers each has its own G, α, β and H, and
what is held fixed includes the layers below of the same sample. α, β and H descend the mean square
of the gradient for the logits. At α = β = 0, where they begin, both are RLOO.

Cost per image and step: K evaluations of f and K of ∇f, and for RODEO K(K−1)(D+1) of the small H.

    python methods/rodeo.py
"""

import itertools
from functools import partial

import reinforce
import rloo
from common import (  # before numpy: it chooses the number of BLAS threads
    Toy,
    check_samples,
    gradients,
    hard_sample,
    init_mlp,
    mlp,
    one_of,
    shaped,
    sigmoid,
    stop_gradient,
)
from concrete import finite, network_weights, no_effect
from harness import cli
from harness.toy import outcomes, train_toy
from harness.run import train

import autograd.numpy as np
from autograd.extend import defvjp, primitive

ESTIMATORS = ("rodeo", "double-cv")

# --------------------------------------------------------------------------------- the estimators
# Here f is (images, K), and b, G and θ are (images, K, D): of one layer. They return g of the same
# shape: the gradient for the logits is its mean over the samples.


def of_others(values):
    """The mean over the other samples: (images, K, …) -> (images, K, …)."""
    return (np.sum(values, axis=1, keepdims=True) - values) / (values.shape[1] - 1)


def double_cv(f, b, G, theta, alpha):
    """g of Double CV."""
    G_others = of_others(G)
    f_and_c = f + alpha * np.sum(G_others * (b - theta), axis=2)
    signal = f_and_c - of_others(f_and_c)
    return signal[:, :, None] * (b - theta) - alpha * G_others * theta * (1 - theta)


def rodeo(f, b, G, theta, alpha, beta, H):
    """g of RODEO; H maps (…, 2) to (…, 2). No table of D neighbours of D bits is made."""
    h, h_turned = neighbours(f, b, G, H)
    q, D = np.where(b == 1, 1 - theta, theta), b.shape[2]  # rate of turning bit i over
    Ah = np.sum(q[..., None] * (h_turned - h[:, :, None]), axis=2) / D  # (images, K, 2)
    # (y − θ) at b^i is (b − θ), but for its bit i, which differs by 1 − 2 b_i
    Ah_vector = Ah[:, :, 1:] * (b - theta) + q * h_turned[..., 1] * (1 - 2 * b) / D
    signal = f - of_others(f + alpha * Ah[:, :, 0])
    return signal[:, :, None] * (b - theta) + beta * Ah_vector


def neighbours(f, b, G, H):
    """h_k(b_k), (images, K, 2), and h_k(b_k^i) for every bit i, (images, K, D, 2).

    G_j·(b_k^i − b_j) = G_j·(b_k − b_j) + G_ji (1 − 2 b_ki).
    """
    K = f.shape[1]
    h, h_turned = 0, 0
    for shift in range(1, K):  # sample j = k + shift beside sample k
        j = (np.arange(K) + shift) % K
        at_b = np.sum(G[:, j] * (b - b[:, j]), axis=2)
        turned = at_b[:, :, None] + G[:, j] * (1 - 2 * b)
        h = h + H(np.stack([at_b, f[:, j]], axis=2))
        f_j = np.broadcast_to(f[:, j, None], turned.shape)
        h_turned = h_turned + H(np.stack([turned, f_j], axis=3))
    return h / (K - 1), h_turned / (K - 1)


def network(rho, inputs):
    """H with the weights rho = [W1, b1, W2, b2] and a leaky ReLU, which knows no scale."""
    return mlp(rho, inputs, leaky)


@primitive
def leaky(h):
    return np.maximum(h, 0.3 * h)


defvjp(leaky, lambda ans, h: lambda g: np.where(h > 0, g, 0.3 * g))


def init_aux(rng, model, estimator="rodeo", hidden=100):
    """[α], or [W1, b1, W2, b2 of H for every layer; α; β]; α and β have one value per layer."""
    zero = np.zeros(len(model.units))
    if estimator == "double-cv":
        return [zero]
    nets = [init_mlp(rng, [2, hidden, 2], model.dtype) for _ in model.units]
    return [*itertools.chain(*nets), zero, zero.copy()]


def estimate(model, params, aux, x, noise, *, samples=2, estimator="rodeo"):
    """The estimator: bound (rows,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square, over images and bits, of the gradient for the logits.
    Every image is in `samples` = K consecutive rows of x. `noise` is a list of pairs (u, v) of
    uniforms, one pair a layer; v is not used. Raises InputError for K < 2, for rows that K does
    not divide, and for an unknown estimator.
    """
    one_of("estimator", estimator, ESTIMATORS)
    rloo.check(len(x), samples, "leave-one-out")
    hard = lambda layer, a_l: hard_sample(a_l, noise[layer][0])
    b, a = model.infer(params, x, hard)
    L = len(b)

    def sum_of_f(tensors):  # b, then params; the logits are fixed in params: E[∇log q] = 0
        b, params = tensors[:L], tensors[L:]
        _, a = model.infer(stop_gradient(params), x, lambda layer, a_l: b[layer])
        f = model.bound(params, x, b, a)
        return [np.sum(f)], f

    (slopes,), f = gradients(sum_of_f, [*b, *params])
    G, direct = slopes[:L], slopes[L:]
    images = lambda rows: np.reshape(rows, (-1, samples, *rows.shape[1:]))

    def mean_square(aux):
        g = []
        for l, (b_l, G_l, a_l) in enumerate(zip(b, G, a)):
            of_layer = images(f), images(b_l), images(G_l), images(sigmoid(a_l))
            if estimator == "double-cv":
                g.append(double_cv(*of_layer, aux[0][l]))
            else:
                *rho, alpha, beta = aux
                H = partial(network, rho[4 * l : 4 * l + 4])
                g.append(rodeo(*of_layer, alpha[l], beta[l], H))
        squares = [(np.sum(g_l, axis=1) / samples) ** 2 for g_l in g]
        size = sum(square.size for square in squares)
        return [sum(np.sum(square) for square in squares) / size], g

    (aux_grads,), g = gradients(mean_square, aux)

    def surrogate(params):
        _, a = model.infer(params, x, lambda layer, a_l: b[layer])
        return [sum(np.sum(np.reshape(g_l, a_l.shape) * a_l) for g_l, a_l in zip(g, a))], []

    (of_logits,), _ = gradients(surrogate, params)
    return f, [(direct_k + g_k) / len(x) for direct_k, g_k in zip(direct, of_logits)], aux_grads


# ------------------------------------------------------------------------------------ toy and main


def gradient_samples(f, logits, u, v, *, estimator="rodeo", alpha=None, beta=None, rho=None):
    """n independent estimates of d/dlogits E[f(b)], of K samples each: (n, D).

    f maps bits (n, D) to values (n,), and is differentiated; where it jumps, the estimates are
    unbiased still. `logits` has shape (D,), the uniforms u and v (n, K, D), and v is not used.
    α is by default what takes half of the linear part away: −1/2 for "double-cv", D/2 for "rodeo".
    Of "rodeo" only are β, by default 0, and `rho`, which is H: [W1 (2, h), b1 (h,), W2 (h, 2), b2
    (2,)], by default H(s, f) = (s, s).
    """
    if one_of("estimator", estimator, ESTIMATORS) == "double-cv":
        no_effect(estimator, beta=beta, rho=rho)
    logits, u, v = check_samples(logits, u, v, K=None)
    n, K, D = u.shape
    if rho is None:  # the leaky ReLU of s, less that of −s, is 1.3 s
        W1, W2 = np.array([[1.0, -1], [0, 0]]), np.array([[1.0, 1], [-1, -1]]) / 1.3
        rho = [W1, np.zeros(2), W2, np.zeros(2)]
    rho = network_weights(rho, 2, 2)
    if alpha is None:
        alpha = -0.5 if estimator == "double-cv" else D / 2
    beta = 0.0 if beta is None else beta
    alpha, beta = (np.array([shaped(*pair)]) for pair in (("alpha", alpha), ("beta", beta)))
    aux = [alpha] if estimator == "double-cv" else [*rho, alpha, beta]
    tiled = np.tile(logits, (n * K, 1))  # one row of logits per sample, so one gradient each
    model, x, flat = Toy(f, D), np.zeros((n * K, 0)), (n * K, D)
    noise = [(np.reshape(u, flat), np.reshape(v, flat))]
    _, (grads,), _ = estimate(model, [tiled], aux, x, noise, samples=K, estimator=estimator)
    return finite(n * np.sum(np.reshape(grads, (n, K, D)), axis=1))


def report(model, aux, estimator="rodeo"):
    """What to log: α, and for RODEO β, of every layer under "alpha/" and "beta/"."""
    parts = {"alpha": aux[0]} if estimator == "double-cv" else {"alpha": aux[-2], "beta": aux[-1]}
    return {f"{name}/{l}": float(v) for name, values in parts.items() for l, v in enumerate(values)}


def toy(args, estimate, init_aux):
    """Beside RLOO, and REINFORCE without a baseline, at the same K."""
    label = "RODEO" if args.estimator == "rodeo" else "Double CV"
    methods = {
        "REINFORCE": (partial(reinforce.estimate, baseline="none"), reinforce.init_aux),
        "RLOO": (partial(rloo.estimate, samples=args.samples), rloo.init_aux),
        label: (estimate, init_aux),
    }
    train_toy(args, methods, lambda logits: outcomes(logits, args.samples))


def main(argv=None):
    p = cli.parser("rodeo", __doc__, samples=2)
    p.flag("--estimator", "see above", choices=ESTIMATORS)
    args = cli.parse(p, argv)
    if args.samples < 2:
        p.error("--samples: RODEO and Double CV need two or more of every image")
    ours = partial(estimate, samples=args.samples, estimator=args.estimator)
    init = partial(init_aux, estimator=args.estimator)
    if args.toy:
        return toy(args, ours, init)
    return train(args, ours, init, partial(report, estimator=args.estimator))


if __name__ == "__main__":
    cli.run(main)
