"""All estimators side by side: the same images, the same noise, along one trajectory.

The parameters follow one estimator (--follow; SimpleMuProp, as in the code of Tucker et al. 2017,
arXiv 1703.07370). All the others estimate the same gradient at every step, each with its own
learned parts, trained in the background. With moving averages (decay .999, debiased) of the
gradient g_k of estimator k and of its square, and μ the average of E[g_k] over the unbiased ones,

    variance_k = mean_d ( E[g_k²]_d − μ_d² )        bias_k = sqrt( mean_d (E[g_k] − μ)_d² )

over all parameters d. The bias contains the noise of the averages, "noise" in the table: only a
bias well above it is one. Variance × time, variance_k times the milliseconds of a step, decides
what to use: n times as many samples would divide the first by n and multiply the second by it.

--toy compares exact values instead, by quadrature, for one bit over a grid of θ and targets t.

    python methods/compare.py
"""

import itertools
import math
import sys
import time
from functools import partial

import concrete
import muprop
import nvil
import rebar
import reinforce
from common import Assign, Toy, exact_gradient, logit, quadrature, sigmoid

from harness import cli
from harness.optimizer import flatten
from harness.runfolder import open_run, write_rows
from harness.streams import NOISE, stream
from harness.trainer import train

import autograd.numpy as anp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

METHODS = {
    "REINFORCE": (reinforce.estimate, reinforce.init_aux),
    "NVIL": (nvil.estimate, nvil.init_aux),
    "SimpleMuProp": (
        partial(muprop.estimate, simple=True),
        partial(muprop.init_aux, simple=True),
    ),
    "MuProp": (muprop.estimate, muprop.init_aux),
    "Concrete": (concrete.estimate, concrete.init_aux),
    "REBAR": (partial(rebar.estimate, adapt="eta"), rebar.init_aux),
    "DynamicREBAR": (rebar.estimate, rebar.init_aux),
}
BIASED = {"Concrete"}
DECAY = 0.999
COLUMNS = ("variance", "raw_variance", "bias", "noise", "ms")


def init_aux(rng, model, *, methods):
    """One list: step count and length of each method's aux; table (methods, columns); every
    method's averages of g and of g²; every method's own aux."""
    size = sum(p.size for p in model.init(rng))
    averages = [np.zeros(size, model.dtype) for _ in range(2 * len(methods))]
    own = [METHODS[name][1](rng, model) for name in methods]
    table = np.zeros((len(methods), len(COLUMNS)))
    return [np.array([0, *map(len, own)]), table, *averages, *itertools.chain(*own)]


def estimate(model, params, aux, x, noise, *, methods, follow, options):
    """All estimators on one batch: bound and gradients of `follow`, gradients or state of aux."""
    (count, *lengths), rest = aux[0], iter(aux[2:])
    averages = [next(rest) for _ in range(2 * len(methods))]
    new_averages, own_grads, milliseconds = [], [], []
    for k, name in enumerate(methods):
        own = [next(rest) for _ in range(int(lengths[k]))]
        start = time.perf_counter()
        bound, grads, aux_grads = METHODS[name][0](
            model, params, own, x, noise, **options.get(name, {})
        )
        milliseconds.append(1e3 * (time.perf_counter() - start))
        if name == follow:
            followed = bound, grads
        g, _ = flatten(grads, model.dtype)
        for average, value in zip(averages[2 * k : 2 * k + 2], (g, g * g)):
            new_averages.append(average + (1 - DECAY) * (value - average))
        own_grads += aux_grads
    table = moments(methods, new_averages, 1 - DECAY ** (count + 1))
    table[:, COLUMNS.index("ms")] = milliseconds
    state = [np.array([count + 1, *lengths]), table, *new_averages]
    return *followed, [*map(Assign, state), *own_grads]


def moments(methods, averages, weight):
    """The table (methods, columns) of variance and bias from averages that started at zero."""
    first, second = averages[::2], averages[1::2]
    mu = sum(m1 for name, m1 in zip(methods, first) if name not in BIASED)
    mu = mu / sum(name not in BIASED for name in methods)
    table = np.zeros((len(methods), len(COLUMNS)))
    square = float(mu @ mu) / mu.size
    for k, (m1, m2) in enumerate(zip(first, second)):
        mean_square = float(m2.sum(dtype=np.float64)) / mu.size
        table[k, 0] = mean_square / weight - square / weight**2
        table[k, 1] = mean_square - square
        table[k, 2] = math.sqrt(float((m1 - mu) @ (m1 - mu)) / mu.size) / weight
    # an average with this decay has (1 − decay) / (1 + decay) of the variance of one gradient, more
    # while it is young; that of μ comes in addition
    share = (1 - DECAY) / (1 + DECAY) * (2 - weight) / weight
    pooled = [table[k, 0] for k, name in enumerate(methods) if name not in BIASED]
    table[:, 3] = np.sqrt(share * np.maximum(table[:, 0] + sum(pooled) / len(pooled) ** 2, 0))
    return table


def report(model, aux, *, methods):
    """What to log: every number of the table as "column/method"."""
    names = [f"{column}/{name}" for name in methods for column in COLUMNS]
    return dict(zip(names, map(float, np.ravel(aux[1]))))


def print_table(row, methods):
    """The table at the last row of the log."""
    print(f"\n{'':14} log variance       bias      noise   ms/step   variance × ms")
    for name in methods:
        variance, _, bias, noise, ms = (row[f"{column}/{name}"] for column in COLUMNS)
        note = "  biased" if name in BIASED else ""
        print(f"{name:14}{math.log(max(variance, 1e-300)):13.2f}{bias:11.2e}{noise:11.2e}{ms:10.2f}"
              f"{variance * ms:16.2e}{note}")  # fmt: skip


def plot(path, rows, methods):
    """Variance against the step, and variance × time at the end."""
    figure = Figure(figsize=(10, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in rows]
    styles = itertools.cycle(["-", "--", "-.", ":"])
    for name in methods:
        variance = np.array([row[f"variance/{name}"] for row in rows])
        variance[variance <= 0] = np.nan  # a young average, less than the square of the pooled one
        left.semilogy(steps, variance, next(styles), label=name)
    left.set(xlabel="step", ylabel="mean variance of the gradient")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    cost = {name: rows[-1][f"variance/{name}"] * rows[-1][f"ms/{name}"] for name in methods}
    names = sorted(cost, key=cost.get, reverse=True)
    right.semilogx([cost[name] for name in names], names, "ko")
    right.grid(axis="y", alpha=0.3)
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel="variance × milliseconds of a step, at the end")
    figure.savefig(path, dpi=110)


# ------------------------------------------------------------------------------------ toy and main

TOY = {
    "REINFORCE": reinforce.gradient_samples,
    "NVIL": nvil.gradient_samples,
    "MuProp": muprop.gradient_samples,
    "Concrete": concrete.gradient_samples,
    "REBAR": rebar.gradient_samples,
}


def learned_options(name, f, logits, moments_of):
    """What each method would learn for one bit: the options of its gradient_samples.

    NVIL's C is E[f], the optimum of its squared error. MuProp's s1 (in [0, 2], with C) makes the
    expansion exact if it can: one bit makes every f linear. REBAR has NVIL's C and the η in [0, 2]
    of least variance.
    """
    theta, f_0, f_1 = float(sigmoid(logits)[0]), *f(np.array([[0.0], [1.0]]))
    mean = theta * f_1 + (1 - theta) * f_0
    if name == "NVIL":
        return {"baseline": mean}
    if name == "MuProp":
        (D,) = muprop.mean_field(Toy(f, 1), [logits], np.zeros((1, 0)))[2]
        s1 = float(np.clip((f_1 - f_0) / D[0, 0], 0, 2)) if D[0, 0] else 0.0
        return {"s0": 0.0, "s1": s1, "baseline": mean}
    if name == "REBAR":
        choices = [{"eta": eta, "baseline": mean} for eta in np.linspace(0, 2, 41)]
        return min(choices, key=lambda options: moments_of(options)[1])
    return {}


def compare_toy(args):
    """Exact mean and variance of a single sample, beside 20,000 measured; T = .5."""
    folder, rows = open_run(args), []
    rng = stream(args.seed, NOISE)
    print("target  theta  method      gradient: exact       mean   variance   measured  ns/sample")
    for target in (0.2, 0.45, 0.499):
        f = lambda b, t=target: anp.sum((b - t) ** 2, axis=-1)
        for theta in (0.1, 0.3, 0.5, 0.7, 0.9):
            logits = np.array([float(logit(theta))])
            exact = float(exact_gradient(f, logits)[0])
            u, v, weights = quadrature(logits, 2000)
            noise = np.clip(rng.random((2, 20_000, 1)), 1e-6, 1 - 1e-6)
            for name, samples in TOY.items():

                def moments_of(options, samples=samples):
                    g = samples(f, logits, u, v, **options)[:, 0]
                    return weights @ g, max(weights @ g**2 - (weights @ g) ** 2, 0.0)

                options = learned_options(name, f, logits, moments_of)
                mean, variance = moments_of(options)
                start = time.perf_counter()
                measured = samples(f, logits, *noise, **options).var()
                ns = 1e9 * (time.perf_counter() - start) / len(noise[0])
                rows.append({"target": target, "theta": theta, "method": name, "exact": exact,
                             "mean": mean, "variance": variance, "measured_variance": measured,
                             "ns_per_sample": ns})  # fmt: skip
                print(f"{target:6}{theta:7}  {name:12}{exact:15.6f}{mean:11.6f}{variance:11.2e}"
                      f"{measured:11.2e}{ns:11.0f}")  # fmt: skip
    write_rows(folder / "log.csv", rows)
    if not args.no_plots:
        plot_toy(folder / "toy.png", rows)
    print(f"run folder  {folder}")


def plot_toy(path, rows):
    """Exact variance of every method against θ, a panel per target."""
    targets = sorted({row["target"] for row in rows})
    figure = Figure(figsize=(4 * len(targets), 3.6), layout="tight")
    for axis, target in zip(figure.subplots(1, len(targets), sharey=True), targets):
        for name, style in zip(TOY, ("-o", "--s", "-.^", ":d", "-x")):
            mine = [row for row in rows if row["target"] == target and row["method"] == name]
            theta, variance = ([row[key] for row in mine] for key in ("theta", "variance"))
            axis.semilogy(theta, np.maximum(variance, 1e-12), style, label=name)
        axis.set(xlabel="θ", ylabel="exact variance (shown from 1e-12)", title=f"t = {target}")
    axis.legend()
    figure.savefig(path, dpi=110)


def main(argv=None):
    p = cli.parser("compare", __doc__, steps=2000)
    p.flag("--follow", "whose gradient moves the parameters", "SimpleMuProp", choices=[*METHODS])
    p.flag("--methods", "comma-separated; default: all", metavar="A,B,…")
    p.flag("--as-released", "REBAR's published construction, biased", action="store_true")
    args = cli.parse(p, argv)
    if args.toy:
        return compare_toy(args)
    methods = list(dict.fromkeys(args.methods.split(",") if args.methods else METHODS))
    for name in methods:
        if name not in METHODS:
            p.error(f"--methods: '{name}' is unknown; choose from {','.join(METHODS)}")
    if args.follow not in methods:
        p.error(f"--follow: {args.follow} has to be among --methods {args.methods}")
    if BIASED.issuperset(methods):
        p.error("--methods: bias is measured against the unbiased ones; name one of those too")
    if "REINFORCE" in methods and args.batch_size * args.samples < 2:
        p.error("--batch-size: REINFORCE's baseline needs two rows; or leave it out of --methods")
    if args.as_released and args.layers > 1:
        print("--as-released: both REBARs are biased, and in the pooled mean", file=sys.stderr)
    rebars = {name: {"as_released": args.as_released} for name in ("REBAR", "DynamicREBAR")}
    ours = partial(estimate, methods=methods, follow=args.follow, options=rebars)
    init, log = (partial(function, methods=methods) for function in (init_aux, report))
    folder, rows = train(args, ours, init, log)
    print_table(rows[-1], methods)
    if not args.no_plots:
        plot(folder / "compare.png", rows, methods)


if __name__ == "__main__":
    cli.run(main)
