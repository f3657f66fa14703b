"""One bit, fitted by several estimators: the exact variance of each beside the measured one; and
one variable of three classes, without a fit."""

import itertools
import math
from functools import partial

import categorical
from common import InputError, Toy, quadrature, sigmoid

from harness import figures
from harness.data import Dataset
from harness.runfolder import open_run, write_rows
from harness.stopping import diverging
from harness.trainer import Trainer

import autograd.numpy as anp
import numpy as np
from tqdm import tqdm


def outcomes(logits, samples):
    """All outcomes of K = `samples` draws of D bits, each from one u: u, v (n, K, D), weights (n,).

    n = 2^(K D); the weights are the probabilities. v, which no such estimator uses, is like u.
    Raises InputError for more than 2^16.
    """
    few_outcomes(samples * len(logits))
    n, theta = samples * len(logits), sigmoid(np.asarray(logits, np.float64))
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    bits = bits.reshape(-1, samples, len(logits))
    u = np.where(bits == 1, 1 - theta / 2, (1 - theta) / 2)
    return u, u, np.prod(np.where(bits == 1, theta, 1 - theta), axis=(1, 2))


def few_outcomes(bits):
    """Raises InputError if there are too many for all their outcomes."""
    if bits > 16:
        raise InputError(
            f"--samples: the toy enumerates all their outcomes; 16 at most, not {bits}"
        )


def pair_cells(logits):
    """Nodes u, v (n, D) and weights (n,) for antithetic pairs of D bits: n = 6^D.

    θ and 1 − θ cut (0, 1) into three cells for every bit. In each of them b = 1[u > 1 − θ] and
    b̃ = 1[u < θ] are constant. Two nodes of Gauss in a cell are exact for polynomials up to u³.
    """
    nodes = []
    for theta in sigmoid(np.asarray(logits, np.float64)):
        edges = np.sort([0, theta, 1 - theta, 1])
        middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
        nodes.append([(c + s * h, h) for c, h in zip(middle, half) for s in (-(3**-0.5), 3**-0.5)])
    u, weights = np.moveaxis([*itertools.product(*nodes)], -1, 0)  # (n, D) each
    return u, u, np.prod(weights, axis=1)


def copula_outcomes(logits, samples):
    """All outcomes of the K = `samples` bits of ARMS, D units each: u, v (n, K, D), weights (n,).

    A sample has the rarer value, of probability m, if its Dirichlet share exceeds
    t = 1 − m^(1/(K−1)). s given shares all do so with probability max(1 − s t, 0)^(K−1); inclusion
    and exclusion make of it that of an outcome. Its u is one that leads there: exp(−share).
    Raises InputError for K D > 16.
    """
    few_outcomes(samples * len(logits))
    units, K = [], samples
    for m in sigmoid(-np.abs(np.asarray(logits, np.float64))):
        t, outcomes = 1 - m ** (1 / (K - 1)), []
        for rare in itertools.product([False, True], repeat=K):
            s = sum(rare)
            terms = [(-1) ** j * math.comb(K - s, j) * max(1 - (s + j) * t, 0) ** (K - 1)
                     for j in range(K - s + 1)]  # fmt: skip
            if sum(terms) < 1e-15:
                continue
            low = min(t, (1 - s * t) / (K - s)) / 2 if s < K else 0
            low, high = (low, (1 - (K - s) * low) / s) if s else (1 / K, 0)
            outcomes.append((np.exp(-np.where(rare, high, low)), sum(terms)))
        units.append(outcomes)
    u, weights = zip(*(zip(*outcome) for outcome in itertools.product(*units)))
    u = np.moveaxis(np.array(u), 1, 2)  # (n, K, D)
    return u, u, np.prod(weights, axis=1)


def exact_variance(estimate, model, params, aux, samples=1, nodes=None):
    """Var of the gradient for one bit's logit, by quadrature: that of the mean of `samples` rows.

    `model` is a Toy of one bit. `nodes(logits)` gives u, v and weights (n,): the former (n, 1), by
    default those of `quadrature`, or (n, K, 1) for estimators that use K rows together. Other rows
    have to be independent, as a baseline taken from them would not leave them; then the variance
    of the mean is that of one row over their number. Nothing is drawn.
    """
    u, v, weights = nodes(params[0]) if nodes else quadrature(params[0], 60, 10)
    u, v = u.reshape(-1, 1), v.reshape(-1, 1)  # K consecutive rows a node
    tiled, no_x = [np.tile(params[0], (len(u), 1))], np.zeros((len(u), 0))
    _, (g,), _ = estimate(model, tiled, aux, no_x, [(u, v)])
    g = g.reshape(len(weights), -1).sum(axis=1)
    g = g * len(weights)  # the mean over the nodes undone: a gradient per node
    K = len(u) // len(weights)
    return (weights @ g**2 - (weights @ g) ** 2) * K / samples


def train_toy(args, methods, nodes=None):
    """--toy: fit one bit to minimise E[(b − target)²], b ~ Bernoulli(θ), from --samples a step.

    `methods` maps a label to (estimate, init_aux). Plots θ, of which the loss is a linear function,
    and the variance of the gradient of a step: its moving average, and exactly, by quadrature, at
    the parameters of the step. `nodes` are those of exact_variance. Raises Stopped if a value is
    not finite.
    """
    if nodes:
        nodes(np.zeros(1))  # before there is a folder: it may refuse --samples
    folder, t, every = open_run(args), args.target, max(1, args.steps // 60)
    args.batch_size, no_images = 1, np.zeros((1, 0), np.uint8)
    data = Dataset("toy", no_images, no_images, no_images, levels=1, shape=(0, 0))
    rows = []
    for label, (estimate, init_aux) in methods.items():
        model = Toy(lambda b: -anp.sum((b - t) ** 2, axis=-1), 1)
        trainer = Trainer(args, data, model, estimate, init_aux)
        for step in tqdm(range(1, args.steps + 1), desc=label, disable=None):
            with diverging(f"{label} stopped at step {step}"):
                trainer.step()
                if step % every == 0:
                    rows.append({"method": label, **toy_row(trainer, t, nodes)})
        theta, loss, variance = (rows[-1][key] for key in ("theta", "loss", "exact_log_variance"))
        tqdm.write(f"{label:10} θ {theta:.3f}  loss {loss:.4f} (minimum {min(t, 1 - t) ** 2:.4f})"
                   f"  log variance {variance:.2f}")  # fmt: skip
    write_rows(folder / "log.csv", rows)
    if not args.no_plots:
        plot_toy(folder / "toy.png", rows, t)
    tqdm.write(f"run folder {folder}")


def toy_row(trainer, t, nodes):
    """What is logged of a step of the toy; raises FloatingPointError if it is not finite."""
    theta = float(sigmoid(trainer.params[0])[0])
    exact = exact_variance(trainer.estimate, trainer.model, trainer.params, trainer.aux,
                           trainer.args.samples, nodes)  # fmt: skip
    if not math.isfinite(theta + exact):
        raise FloatingPointError("the variance of the gradient is not finite")
    loss = theta * (1 - t) ** 2 + (1 - theta) * t**2
    return {"theta": theta, "loss": loss, **trainer.row(),
            "exact_log_variance": math.log(max(exact, 1e-300))}  # fmt: skip


def toy_of_classes(args, gradient_samples):
    """Draw exact bias and variance against T, for one variable: --toy of gumbel_softmax.py."""
    folder, logits = open_run(args), np.array([[-0.5, 0.4, 1.0]])
    f = lambda b: anp.exp(b[:, 0] @ np.array([2.0, 0.0, -1.0]))
    (u, weights), exact = categorical.quadrature(logits), categorical.exact_gradient(f, logits)
    mean = lambda g: weights @ g
    centred = {"baseline": mean(f(categorical.hard_sample(logits, u)))}  # C = E[f]

    def samples(T, **options):  # None: of an estimator that has no temperature
        return gradient_samples(f, logits, u, u, temperature=T, **options)[:, 0]

    def best_rebar(T):
        g_0, g_1 = (samples(T, estimator="rebar", eta=eta, **centred) for eta in (0.0, 1.0))
        h = g_1 - g_0  # of mean zero
        return g_0 - np.sum(mean(g_0 * h)) / np.sum(mean(h * h)) * h

    methods = {
        "Gumbel-Softmax": samples,
        "straight-through": partial(samples, straight_through=True),
        "REINFORCE, C = E[f]": lambda T: samples(None, estimator="reinforce", **centred),
        "REBAR, the same C, best η": best_rebar,
    }
    temperatures = np.geomspace(0.05, 5, 31)
    figure, (left, right) = figures.new_figure(2, 4.8, 3.6)
    for k, (label, method) in enumerate(methods.items()):
        g = [method(T) for T in temperatures]
        bias = [np.linalg.norm(mean(g_T) - exact) / np.linalg.norm(exact) for g_T in g]
        variance = [np.sum(mean(g_T**2) - mean(g_T) ** 2) for g_T in g]
        figures.draw(left, temperatures, bias, label, position=k)
        figures.draw(right, temperatures, variance, label, position=k)
    left.set(xlabel="T", ylabel="|E[g] − exact| / |exact|", xscale="log")
    right.set(xlabel="T", ylabel="variance of g", xscale="log", yscale="log")
    figures.label_curves(right)
    figures.save(figure, folder / "toy.png")
    print(f"run folder {folder}")


def plot_toy(path, rows, target):
    """θ, with the loss as its linear function; and both variances, the measured one pale."""
    figure, (left, right) = figures.new_figure(2, 4.8, 3.4)
    labels = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for k, label in enumerate(labels):
        mine = [row for row in rows if row["method"] == label]
        steps, theta, measured, exact = (
            [row[key] for row in mine]
            for key in ("step", "theta", "log_grad_variance", "exact_log_variance")
        )
        figures.draw(left, steps, theta, label, position=k)
        figures.draw(right, steps, measured, label, position=k, marker="", linewidth=5, alpha=0.35,
                     linestyle="-", zorder=1)  # fmt: skip
        lines.append(figures.draw(right, steps, exact, label, position=k, linewidth=1))
    slope = 1 - 2 * target  # of the loss in θ
    loss = f"E[(b − {target:g})²] = {target**2:.4g} {'−' if slope < 0 else '+'} {abs(slope):.4g} θ"
    left.set(xlabel="step", ylabel="θ = P(b = 1)")
    left.set_title(f"the loss is {loss}", loc="left", size=8.5)
    right.set(xlabel="step", ylabel="log variance of the gradient")
    note = "thin: exact, at the θ of the step; broad: its moving average"
    right.set_title(note, loc="left", size=8.5)
    figures.label_curves(left)
    figures.label_curves(right, lines)
    figures.save(figure, path)
