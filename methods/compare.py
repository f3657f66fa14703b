"""All estimators side by side: the same images, the same noise, along one trajectory.

The parameters follow one estimator (--follow; SimpleMuProp, as in the code of Tucker et al. 2017,
arXiv 1703.07370, or else the first of --methods). All the others estimate the same gradient at
every step, each with its own learned parts. E is a moving average (decay .999, debiased) over the
steps, which gives step i the weight a_i, Σ a_i = 1. For the gradient g_k of estimator k,

    μ          = Σ_k w_k E[g_k]    over the unbiased ones,  w_k ∝ 1 / Var g_k,  Σ_k w_k = 1
    variance_k = mean_d ( E[g_k²]_d − μ_d² )                over all parameters d
    bias_k     = E[g_k] − μ = E[d_k],   d_k = g_k − Σ_j w_j g_j
    noise_k²   = Σ_i a_i² Var d_k of step i,                what bias_k² is if there is no bias

All estimators have the same images and random numbers at a step, so much of their noise cancels in
the difference d_k: the noise of the bias is that of this paired difference. Weights and noise are
those of each tensor of parameters. "bias" and "noise" in the table are root mean squares over all
parameters, a tensor being weighted by 1 / its noise². So (bias / noise)² is the mean over the
parameters of (bias / its own noise)²: about 1 for an unbiased estimator, above 1 for a biased one.
A tensor in which k agrees with the others to rounding is left out.

Every image has --samples rows, which have the same bits for all estimators (but for DisARM's second
bit). RLOO, DoubleCV and RODEO use the rows of an image together, the others take the mean over
them, and DisARM makes a pair of every row. What that costs is in two columns: variance × time,
variance_k times the milliseconds of a step, and variance × f, times the evaluations of f for an
image. n times as many samples would divide the variance by n and multiply either cost by it.

VIMCO and LocalDisARM follow another objective, the bound of all K = --samples samples. They are a
group of their own, with a μ of their own.
--toy compares exact values for one bit instead, over a grid of θ and of targets t.
--add FILE.py runs your own `estimate` and `init_aux` (methods/README.md) beside them, or with --toy
your `gradient_samples`, a function of u and v (check.py), under the file's name. μ is without it.

    python methods/compare.py
"""

import itertools
import math
import sys
import time
from functools import partial

import concrete
import disarm
import muprop
import nvil
import rebar
import reinforce
import reinmax
import relax
import rloo
import rodeo
import vimco
from common import Assign, Toy, exact_gradient, logit, quadrature, sigmoid

from harness import cli, figures, paired
from harness.bias_test import one_bit_nodes
from harness.runfolder import open_run, write_rows
from harness.streams import NOISE, stream
from harness.toy import few_outcomes, outcomes, pair_cells
from harness.run import train
from harness.userfile import load_estimator

import autograd.numpy as anp
import numpy as np

METHODS = {
    "REINFORCE": (reinforce.estimate, reinforce.init_aux),
    "NVIL": (nvil.estimate, nvil.init_aux),
    "SimpleMuProp": (partial(muprop.estimate, simple=True), partial(muprop.init_aux, simple=True)),
    "MuProp": (muprop.estimate, muprop.init_aux),
    "Concrete": (concrete.estimate, concrete.init_aux),
    "ST": (partial(reinmax.estimate, estimator="st"), reinmax.init_aux),
    "ReinMax": (reinmax.estimate, reinmax.init_aux),
    "REBAR": (partial(rebar.estimate, adapt="eta"), rebar.init_aux),
    "DynamicREBAR": (rebar.estimate, rebar.init_aux),
    "RLOO": (rloo.estimate, rloo.init_aux),
    "DisARM": (disarm.estimate, disarm.init_aux),
    "VIMCO": (vimco.estimate, vimco.init_aux),
    "LocalDisARM": (partial(disarm.estimate, bound=True), disarm.init_aux),
    "RELAX": (relax.estimate, relax.init_aux),
    "DoubleCV": tuple(partial(function, estimator="double-cv")
                      for function in (rodeo.estimate, rodeo.init_aux)),
    "RODEO": (rodeo.estimate, rodeo.init_aux),
}  # fmt: skip
BIASED = {"Concrete", "ST", "ReinMax"}
ADDED = set()  # by --add
OTHER_OBJECTIVE = {"VIMCO", "LocalDisARM"}  # the bound of K samples
TOGETHER = {"RLOO", "DoubleCV", "RODEO", *OTHER_OBJECTIVE}  # use an image's rows together
SAMPLED = {"DisARM", *TOGETHER}  # their estimate wants to know --samples
COLUMNS = (*paired.COLUMNS, "ms")
DRAWS = 20_000  # of the toy, for the measured variance
REBARS = ("REBAR", "DynamicREBAR")
READ_BY = {  # the flags of some methods, and which these are
    "--temperature": ("Concrete", *REBARS, "RELAX"), "--relaxation": ("Concrete", *REBARS),
    "--noise": (*REBARS, "RELAX"), "--control-variate": REBARS, "--as-released": REBARS,
}  # fmt: skip


def evaluations(name, layers, samples, joint=False):
    """Of f for an image of `samples` rows and a step, without those for the report; or nan.

    `joint`: REBAR has one relaxation, not one a layer.
    """
    rebar_terms = 2 if joint else 1 + layers
    per_row = {"SimpleMuProp": 2, "MuProp": 2, "REBAR": rebar_terms, "DynamicREBAR": rebar_terms,
               "DisARM": 1 + layers, "LocalDisARM": 1 + layers, "RELAX": 1 + layers}  # fmt: skip
    return samples * per_row.get(name, math.nan if name in ADDED else 1)


def init_aux(rng, model, *, methods, options):
    """One list: steps done and the length of each method's aux; the table (methods, columns); the
    averages `squares` and `products` of paired.py; every method's average of g, then its own aux.
    """
    params, K = model.init(rng), len(methods)
    averages = [np.zeros(sum(p.size for p in params), model.dtype) for _ in methods]
    own = [METHODS[name][1](rng, model, **options.get(name, {})) for name in methods]
    shapes = (K, len(COLUMNS)), (len(params), K), (len(params), K, K)
    tables = [np.zeros(shape) for shape in shapes]
    return [np.array([0, *map(len, own)]), *tables, *averages, *itertools.chain(*own)]


def estimate(model, params, aux, x, noise, *, methods, follow, options):
    """All estimators on one batch: bound and gradients of `follow`, gradients or state of aux."""
    (count, *lengths), _, squares, products = aux[:4]
    means, rest = aux[4 : 4 + len(methods)], iter(aux[4 + len(methods) :])
    all_grads, own_grads, milliseconds = [], [], []
    for name, length in zip(methods, lengths):
        own = [next(rest) for _ in range(int(length))]
        start = time.perf_counter()
        bound, grads, aux_grads = METHODS[name][0](
            model, params, own, x, noise, **options.get(name, {})
        )
        milliseconds.append(1e3 * (time.perf_counter() - start))
        if name == follow:
            followed = bound, grads
        all_grads.append(grads)
        own_grads += aux_grads
    means, squares, products = paired.updated(means, squares, products, all_grads)
    sizes = [p.size for p in params]
    table = moments(methods, sizes, means, squares, products, count + 1)
    table = np.column_stack([table, milliseconds])
    state = [np.array([count + 1, *lengths]), table, squares, products, *means]
    return *followed, [*map(Assign, state), *own_grads]


def moments(methods, *averages):
    """`paired.moments` of the methods, the bound of K samples a group of its own."""
    biased, other = ([name in group for name in methods] for group in (BIASED, OTHER_OBJECTIVE))
    return paired.moments(*averages, np.array(biased), np.array(other))


def report(model, aux, *, methods):
    """What to log: every number of the table as "column/method"."""
    names = [f"{column}/{name}" for name in methods for column in COLUMNS]
    return dict(zip(names, map(float, np.ravel(aux[1]))))


def print_table(row, methods, samples, f_evaluations):
    """The table at the last row of the log, the K-sample bound in a group of its own."""
    print(f"\n{'':14}log variance      bias     noise  bias / noise   ms/step  variance × ms"
          "    f  variance × f")  # fmt: skip
    ordered = sorted(methods, key=lambda name: name in OTHER_OBJECTIVE)
    for k, name in enumerate(ordered):
        if name in OTHER_OBJECTIVE and (k == 0 or ordered[k - 1] not in OTHER_OBJECTIVE):
            print(f"the bound of {samples} samples, another objective:")
        variance, _, bias, noise, ms = (row[f"{column}/{name}"] for column in COLUMNS)
        note = "  yours" if name in ADDED else "  biased" if name in BIASED else ""
        ratio = f"{bias / noise:14.2f}" if noise else f"{'-':>14}"
        n = f_evaluations[name]
        print(f"{name:14}{math.log(max(variance, 1e-300)):12.2f}{bias:10.2e}{noise:10.2e}{ratio}"
              f"{ms:10.2f}{variance * ms:15.2e}{n:5}{variance * n:14.2e}{note}")  # fmt: skip


def plot(path, rows, methods, f_evaluations):
    """Variance against the step; bias over its noise, and variance × its two costs, at the end."""
    figure, (left, middle, right, last_axis) = figures.new_figure(4, 4.2, 3.4)
    steps, last = [row["step"] for row in rows], rows[-1]
    for k, name in enumerate(methods):
        variance = np.array([row[f"variance/{name}"] for row in rows])
        variance[variance <= 0] = np.nan  # a young average, less than the square of the pooled one
        figures.draw(left, steps, variance, name, position=k)
    left.set(xlabel="step", ylabel="variance of the gradient, mean", yscale="log")
    figures.label_curves(left)
    ratio = {name: last[f"bias/{name}"] / (last[f"noise/{name}"] or np.inf) for name in methods}
    cost = {name: last[f"variance/{name}"] * last[f"ms/{name}"] for name in methods}
    figures.dots(middle, ratio, "bias / noise, at the end (1: no bias seen)")
    middle.axvline(1, color="k", linewidth=0.8, zorder=1)
    middle.set_xlim(left=0)
    figures.dots(right, cost, "variance × ms of a step, at the end")
    right.set_xlim(left=0)
    cost = {name: last[f"variance/{name}"] * f_evaluations[name] for name in methods}
    figures.dots(last_axis, cost, "variance × evaluations of f, at the end")
    last_axis.set_xlim(left=0)
    figures.save(figure, path)


# ------------------------------------------------------------------------------------ toy and main

TOY = {
    "REINFORCE": reinforce.gradient_samples,
    "NVIL": nvil.gradient_samples,
    "MuProp": muprop.gradient_samples,
    "Concrete": concrete.gradient_samples,
    "ST": partial(reinmax.gradient_samples, estimator="st"),
    "ReinMax": reinmax.gradient_samples,
    "REBAR": rebar.gradient_samples,
    "RLOO": rloo.gradient_samples,
    "DisARM": disarm.gradient_samples,
    "VIMCO": vimco.gradient_samples,
    "DoubleCV": partial(rodeo.gradient_samples, estimator="double-cv"),
    "RODEO": rodeo.gradient_samples,
}


def toy_nodes(name, logits, samples):
    """What the mean over the noise of a method's estimate is: nodes u, v and weights."""
    if name in ADDED:  # may jump at θ and at 1 − θ, in u and in v
        return one_bit_nodes(float(sigmoid(logits)[0]), 64)
    if name in TOGETHER:
        return outcomes(logits, samples)
    return pair_cells(logits) if name == "DisARM" else quadrature(logits, 2000)


def toy_gradient(name, f, logits, samples):
    """What the method estimates: d/da E[f(b)] of one bit, or d/da E[log 1/K Σ_k exp f(b_k)]."""
    if name not in OTHER_OBJECTIVE:
        return float(exact_gradient(f, logits)[0])
    u, _, weights = outcomes(logits, samples)
    b, theta = (u[:, :, 0] > 1 - sigmoid(logits)).astype(float), sigmoid(logits)[0]
    L = np.log(np.mean(np.exp(f(b.reshape(-1, 1))).reshape(b.shape), axis=1))
    return float(weights @ (L * np.sum(b - theta, axis=1)))


def learned_options(name, f, logits, moments_of):
    """What each method would learn for one bit: the options of its gradient_samples.

    NVIL's C is E[f], the optimum of its squared error. MuProp's s1 (in [0, 2], with C) makes the
    expansion exact if it can: one bit makes every f linear. REBAR has NVIL's C and the η in [0, 2]
    of least variance; DoubleCV and RODEO, whose H is (s, s), have the α in [−2, 2] of least.
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
    if name in ("DoubleCV", "RODEO"):
        choices = [{"alpha": alpha} for alpha in np.linspace(-2, 2, 41)]
        return min(choices, key=lambda options: moments_of(options)[1])
    return {}


def compare_toy(args):
    """Exact mean and variance of an estimate, beside the variance of DRAWS of them.

    T is .5, for ST and ReinMax 1. An estimate is of one sample; of RLOO, VIMCO, DoubleCV and RODEO
    it is of --samples. The column f has the evaluations.
    """
    folder, rows, K = open_run(args), [], args.samples
    rng = stream(args.seed, NOISE)
    names = [name for name in TOY if K > 1 or name not in TOGETHER]
    print("target  theta  method      gradient: exact       mean   variance   measured  ns/sample"
          "    f")  # fmt: skip
    for target in (0.2, 0.45, 0.499):
        f = lambda b, t=target: anp.sum((b - t) ** 2, axis=-1)
        for theta in (0.1, 0.3, 0.5, 0.7, 0.9):
            logits = np.array([float(logit(theta))])
            noise = np.clip(rng.random((2, DRAWS, 1)), 1e-6, 1 - 1e-6)
            together = np.clip(rng.random((2, DRAWS, K, 1)), 1e-6, 1 - 1e-6)
            for name in names:
                samples, exact = TOY[name], toy_gradient(name, f, logits, K)
                u, v, weights = toy_nodes(name, logits, K)

                def moments_of(options):
                    g = samples(f, logits, u, v, **options)[:, 0]
                    return weights @ g, max(weights @ g**2 - (weights @ g) ** 2, 0.0)

                options = learned_options(name, f, logits, moments_of)
                mean, variance = moments_of(options)
                start = time.perf_counter()
                drawn = together if name in TOGETHER else noise
                measured = samples(f, logits, *drawn, **options).var()
                ns = 1e9 * (time.perf_counter() - start) / len(noise[0])
                n = evaluations(name, 1, K if name in TOGETHER else 1)
                rows.append({"target": target, "theta": theta, "method": name, "exact": exact,
                             "mean": mean, "variance": variance, "measured_variance": measured,
                             "ns_per_sample": ns, "evaluations": n})  # fmt: skip
                print(f"{target:6}{theta:7}  {name:12}{exact:15.6f}{mean:11.6f}{variance:11.2e}"
                      f"{measured:11.2e}{ns:11.0f}{n:5}")  # fmt: skip
    write_rows(folder / "log.csv", rows)
    if not args.no_plots:
        plot_toy(folder / "toy.png", rows)
    print(f"run folder  {folder}")


def plot_toy(path, rows):
    """Exact variance of every method against θ, a panel per target."""
    targets = sorted({row["target"] for row in rows})
    figure, axes = figures.new_figure(len(targets), 4, 3.6, sharey=True)
    for axis, target in zip(axes, targets):
        for k, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = [row for row in rows if row["target"] == target and row["method"] == name]
            theta, variance = ([row[key] for row in mine] for key in ("theta", "variance"))
            figures.draw(axis, theta, np.maximum(variance, 1e-12), name, position=k)
        axis.set(xlabel="θ", title=f"t = {target}", yscale="log")
    axes[0].set(ylabel="exact variance (shown from 1e-12)")
    figures.label_curves(axes[-1])
    figures.save(figure, path)


def add(path, toy):
    """Put the estimator of a user's file into TOY or METHODS, under the file's name."""
    name, function, init, samples = load_estimator(path, toy, {*METHODS, *TOY})
    (TOY if toy else METHODS)[name] = function if toy else (function, init or reinforce.init_aux)
    ADDED.add(name)
    SAMPLED.update([name] * samples)
    BIASED.add(name)  # whether it is or not: μ is to be known without it


def settings(args):
    """The keywords that the flags give to the init_aux, and to the estimate, of each method."""
    relaxed = {"relaxation": args.relaxation} if args.relaxation else {}
    keys = ("conditional", "control_variate", "as_released")
    options = {name: {"samples": args.samples} for name in SAMPLED}
    options |= dict.fromkeys(REBARS, relaxed | {key: getattr(args, key) for key in keys})
    options["Concrete"] = relaxed | {"temperature": args.temperature}
    options["RELAX"] = {"conditional": args.conditional}
    first = {name: {"temperature": args.temperature or 0.5} for name in (*REBARS, "RELAX")}
    return first, options


def main(argv=None):
    p = cli.parser("compare", __doc__, steps=2000, samples=2, compiled=False,
                   read_by_toy=("--samples", "--seed", "--no-plots"))  # fmt: skip
    p.flag("--follow", "whose gradient moves the parameters", "SimpleMuProp", metavar="NAME")
    p.flag("--methods", "comma-separated; default: all", metavar="A,B,…")
    p.flag("--temperature", "T of Concrete, the first T of REBAR and RELAX; default: 0.5",
           type=cli.POSITIVE)  # fmt: skip
    p.add_argument("--relaxation", help="of Concrete and REBAR; default: each its own",
                   choices=rebar.RELAXATIONS)  # fmt: skip
    p.flag("--noise", "of REBAR and RELAX", dest="conditional", choices=rebar.CONDITIONALS)
    p.flag("--control-variate", "of REBAR", choices=rebar.CONTROL_VARIATES)
    p.flag("--as-released", "REBAR's published construction, biased", action="store_true")
    p.flag("--add", "a file with your own estimator, see above", metavar="FILE.py")
    args = cli.parse(p, argv)
    if args.add:
        add(args.add, args.toy)
    if args.layers == 1:
        p.unread("with --layers 1", "--as-released", "--control-variate")
    joint = args.control_variate == "joint"
    if joint:
        p.unread("with --control-variate joint", "--as-released")
    if args.toy:
        p.unread("with --toy", "--follow", "--methods", *READ_BY)
        few_outcomes(args.samples)
        return compare_toy(args)
    usual = [name for name in METHODS if args.samples > 1 or name not in TOGETHER]
    methods = list(dict.fromkeys(args.methods.split(",") if args.methods else usual))
    for flag, name in [("--methods", name) for name in methods] + [("--follow", args.follow)]:
        if name not in METHODS:
            p.error(f"{flag}: '{name}' is unknown; choose from {','.join(METHODS)}")
    for name in ADDED.difference(methods):
        p.error(f"--add: {name} is not among --methods; name it there, too")
    if args.follow not in methods:
        if "--follow" in p.given:
            p.error(f"--follow: {args.follow} has to be among --methods {args.methods}")
        args.follow = methods[0]
    for name in sorted(TOGETHER.intersection(methods)):
        if args.samples < 2:
            p.error(f"--samples: {name} needs two or more of every image")
    if (BIASED & {*methods}) and (BIASED | OTHER_OBJECTIVE).issuperset(methods):
        p.error("--methods: bias is measured against the unbiased ones; name one of those too")
    if "REINFORCE" in methods and args.batch_size * args.samples < 2:
        p.error("--batch-size: REINFORCE's baseline needs two rows; or leave it out of --methods")
    for flag, readers in READ_BY.items():
        if not set(readers).intersection(methods):
            p.unread(f"without {', '.join(readers)} among --methods", flag)
    if args.as_released:
        print("--as-released: both REBARs are biased, and in the pooled mean", file=sys.stderr)
    first, options = settings(args)
    ours = partial(estimate, methods=methods, follow=args.follow, options=options)
    init, log = partial(init_aux, methods=methods, options=first), partial(report, methods=methods)
    n = {name: evaluations(name, args.layers, args.samples, joint) for name in methods}

    def complete(folder, rows):
        if not args.no_plots:
            plot(folder / "compare.png", rows, methods, n)
        return {}

    _, rows = train(args, ours, init, log, complete)
    print_table(rows[-1], methods, args.samples, n)


if __name__ == "__main__":
    cli.run(main)
