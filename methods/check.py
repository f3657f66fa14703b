"""Is my estimator unbiased? Checks a gradient estimator of yours against exact gradients.

    python methods/check.py --template torch > mine.py          (or numpy, or jax)
    python methods/check.py mine.py --backend torch

`gradient_samples(f, logits, u, v) -> (n, D)` makes n estimates of the gradient of E[f(b)] with
respect to logits (D,), for bits b ~ Bernoulli(sigmoid(logits)) and f: (n, D) -> (n,). It may use
the uniforms u and v, (n, D), or draw its own noise. Name another function as mine.py:name. Exit
code 0: no bias found; 1: biased; 2: bad input, or an error in your file, shown with its line.

The functions f have curvature, cross terms, a single bit, a large constant; the logits are near 0,
±2 and ±6. Known mistakes show in some of them. The exact gradient comes from enumeration. The test
is sequential: it adds estimates until the verdict is certain. For one bit, an estimator that is a
function of u and v is integrated instead.

Estimates are heavy-tailed at ±6, where bits seldom turn. So the limit is that of the empirical
Bernstein inequality, which needs no normal means and pays for events not yet seen; and an estimator
that is a function of u and v gets noise with frequent rare bits, and weights that make up for it
(harness/bias_test.py). All looks, functions, logits and components share the rate of false alarms,
1e-6. Nothing is averaged over components: opposite biases would cancel.

--samples K: u, v are (n, K, D), and each row is made of K samples; with --target bound it estimates
the gradient of E[log mean_k exp f(b_k)]. --classes C: logits (D, C), u, v (n, D, C), one-hot b.
--model: the file has an `estimate`; every parameter of two tiny belief networks is checked. Or it
has a `model` of yours and a few `images`, rows of x: then the estimators of rebar.py and rloo.py
(or its own `estimate`) are checked on that model, after what they rely on.

--against rebar:temperature=.5,eta=1 asks another question: is the function equal to that method of
this collection, element by element, on the same u and v? It names the first element that differs.
"""

import math
import shlex
from functools import partial
from pathlib import Path

import concrete
import disarm
import gumbel_softmax
import muprop
import nvil
import rebar
import reinforce
import reinmax
import relax
import rloo
import rodeo
import unordered
import vimco
from common import InputError, sigmoid  # before numpy: it chooses the number of BLAS threads

import harness.against
from harness import cli
from harness.backends import BACKENDS, TEMPLATES
from harness.bias_test import (
    CALLS,
    ESTIMATES,
    FALSE_ALARM,
    FEW,
    LOOKS,
    RARE,
    TOO_LARGE,
    Evidence,
    detectable,
    draw_noise,
    looks,
    one_bit_nodes,
)
from harness.cases import SCALES, SHAPES, cases, function
from harness.check_report import figure, make_row, report, sharp
from harness.interface import check_interface
from harness.model_check import check_model
from harness.probes import draws_noise, rows_together
from harness.runfolder import write_json
from harness.stopping import Stopped
from harness.userfile import called, function_of, load_function, load_module

import numpy as np
from tqdm import tqdm

# all at the start: a user's folder, first on sys.path, may have files of the same names
PAPERS = {
    paper.__name__: paper
    for paper in (reinforce, rloo, nvil, vimco, muprop, disarm, concrete, reinmax, rebar, relax,
                  rodeo, gumbel_softmax, unordered)
}  # fmt: skip
QUADRATURE = 1e-6  # of the largest |f|: what the integral for one bit may be off

# --------------------------------------------------------------------------------- gradient_samples


def check(gradient_samples, bits=5, *, backend="numpy", samples=1, classes=None, target="mean",
          estimates=ESTIMATES, only=None, at=None, seed=0, file=None):  # fmt: skip
    """Check gradient_samples(f, logits, u, v), as above, on `bits` variables: a Report.

    `only` is the name of one function and `at` one scale of the logits, to repeat a single case.
    Seeds the global generators of numpy and the backend. Errors raised inside gradient_samples come
    through as they are, unless `file` says where it was read from. Raises InputError (a ValueError)
    for impossible arguments, or a result that is not (n, D) or not finite.
    """
    library, every, chosen = prepare(
        bits, backend, samples, classes, target, only, at, estimates, seed
    )
    call = caller(gradient_samples, library, file)
    shape_of = shape_of_noise(samples)
    library.seed(seed % 2**32)
    own_noise = draws_noise(call, every[0], shape_of)
    together = rows_together(call, every[0], shape_of, own_noise, library)
    coordinates = math.prod(shape_of(1, every[0]))
    corner = 0 if own_noise or together or classes else min(0.2, 1 / coordinates)
    delta = FALSE_ALARM / (LOOKS * len(every) * every[0].exact.size)
    rng = {id(case): np.random.default_rng([seed, k]) for k, case in enumerate(every)}

    def sample(case, evidence, size):
        """Add estimates until there are `size`."""
        calls = CALLS if evidence.n and not evidence.shared else 2 * CALLS
        r, per_call = rng[id(case)], FEW if together else -(-(size - evidence.n) // calls)
        before = len(evidence.calls)
        while evidence.n < size:
            n = min(per_call, size - evidence.n)
            u, v, weights = draw_noise(r, case.logits, shape_of(n, case), corner)
            library.seed(int(r.integers(2**31)))
            evidence.add(call(case, u, v), weights)
        evidence.compare_calls(len(evidence.calls) - before, per_call)

    rows = {id(case): one_bit(call, case) for case in chosen
            if bits == 1 and samples == 1 and not (classes or own_noise or together)}  # fmt: skip
    rows = {key: row for key, row in rows.items() if row}
    left = [case for case in chosen if id(case) not in rows]
    rare = lambda case: RARE * np.linalg.norm(case.exact) if corner else math.inf
    least = lambda case: min(case.spread, rare(case))
    evidence = {id(case): Evidence(case.exact, case.spread, least(case), together)
                for case in left}  # fmt: skip
    counts = {}
    for case in chosen:
        counts[id(case)] = count = [0, 0]
        u, v, _ = draw_noise(np.random.default_rng(seed), case.logits, shape_of(64, case), 0)
        call(case, u, v, library.probe(count, case.logits.ndim))
    for size in looks(estimates):
        if any(row.biased for row in rows.values()):
            break
        for case in tqdm(left, desc=f"{size:,} estimates", leave=False, disable=None):
            sample(case, evidence[id(case)], size)
            rows[id(case)] = judge(case, evidence[id(case)], delta)
        left = [case for case in left if not sharp(rows[id(case)])]
    rows = [rows[id(c)]._replace(f=counts[id(c)][0] / 64, df=counts[id(c)][1] / 64)
            for c in chosen if id(c) in rows]  # fmt: skip
    return report(rows, f"; rows use each other, and came {FEW} at a time" * together)


def against(gradient_samples, method, bits=5, *, backend="numpy", samples=1, classes=None,
            only=None, at=None, seed=0, file=None):  # fmt: skip
    """Compare gradient_samples element by element with a method of this collection: a Comparison.

    `method` is its name, perhaps with hyper-parameters: "rebar:temperature=0.5,eta=1". Both get the
    same u, v, (n, D), or (n, K, D) with `samples`. Other arguments and errors as in `check`.
    """
    library, _, chosen = prepare(bits, backend, samples, classes, "mean", only, at, ESTIMATES, seed)
    name, options = harness.against.parse(method, PAPERS)
    ours = harness.against.with_options(name, PAPERS[name].gradient_samples, options)
    library.seed(seed % 2**32)
    call = caller(gradient_samples, library, file)
    shape_of = shape_of_noise(samples)
    return harness.against.compare(call, ours, method, chosen, shape_of, seed)


def prepare(bits, backend, samples, classes, target, only, at, estimates, seed):
    """(library of the backend, all cases, the chosen ones). Raises InputError."""
    for name, value, allowed in (("backend", backend, BACKENDS), ("only", only, (None, *SHAPES)),
                                 ("target", target, ("mean", "bound"))):  # fmt: skip
        if value not in allowed:
            raise InputError(f"{name} is {value!r}: choose from {', '.join(filter(None, allowed))}")
    for name, value, low, high in (
        ("bits", bits, 1, 12), ("samples", samples, 1, 64), ("estimates", estimates, 256, 10**9),
        ("seed", seed, 0, 2**63 - 1),
        ("classes", 2 if classes is None else classes, 2, 64),
    ):  # fmt: skip
        if not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise InputError(f"{name} is {value!r}: a whole number from {low} to {high}")
    if target == "bound" and samples == 1:
        raise InputError("target bound: it is of several samples; say how many with samples")
    library = BACKENDS[backend]()
    every = cases(bits, classes, samples, target)
    chosen = [c for c in every if only in (None, c.name) and at in (None, abs(c.scale))]
    if not chosen:
        raise InputError(f"at is {at!r}: choose from {', '.join(map(str, SCALES))}")
    return library, every, chosen


def shape_of_noise(samples):
    """The shape of u and v for n estimates of a case, as a function of both."""
    return lambda n, case: (n, *[samples] * (samples > 1), *case.logits.shape)


def caller(gradient_samples, library, file):
    """A function call(case, u, v, probe, change): the estimates of one call in numpy, (n, size).

    `change` makes another function of f. It raises InputError for a result of another shape, or one
    that is not finite.
    """

    def call(case, u, v, probe=lambda b: b, change=lambda f: f):
        f = change(function(case, library, probe))
        with called(file):
            g = gradient_samples(f, *map(library.tensor, (case.logits, u, v)))
            g = np.asarray(library.array(g))
        if g.shape != (len(u), *case.logits.shape):
            wanted = ", ".join(map(str, case.logits.shape))
            raise InputError(f"gradient_samples returned the shape {g.shape}, not (n, {wanted}) "
                             f"with n = {len(u)}: every row is one estimate")  # fmt: skip
        if g.dtype.kind not in "fiub":
            raise InputError(f"gradient_samples returned numbers of type {g.dtype}, not floats")
        g = g.astype(np.float64)
        if not np.all(np.abs(g) < TOO_LARGE):
            where = np.argwhere(~(np.abs(g) < TOO_LARGE))[0]
            raise InputError(
                f"gradient_samples returned {g[tuple(where)]} in element {where.tolist()} "
                f"for f = {case.name}, logits {case.logits}"
            )
        return g.reshape(len(u), -1)

    return call


def judge(case, evidence, delta):
    """The row of a case, by the evidence so far."""
    m, error, limit = evidence.bernstein(delta)
    smallest = np.max(detectable(error, limit))
    return make_row(case.name, case.label, case.exact, case.spread, case.reinforce_variance,
                    evidence.n, m, error, limit, smallest, evidence.variance())  # fmt: skip


def one_bit(call, case):
    """The row of one bit, by integration over u and v; None where the rule does not converge."""
    theta, allowed = float(sigmoid(case.logits)[0]), np.full(1, QUADRATURE * case.largest)
    mean = np.full(1, np.inf)
    for m in (40, 64, 96):
        u, v, weights = one_bit_nodes(theta, m)
        try:
            g, coarse = call(case, u, v), mean
        except InputError:  # in float32 the outermost nodes are 0 or 1
            return None
        mean = weights @ g
        off = np.abs(mean - coarse)
        if off[0] < allowed[0] / 10:
            row = make_row(case.name, case.label, case.exact, case.spread, case.reinforce_variance,
                           len(u), mean - case.exact, off, allowed, allowed[0],
                           weights @ (g * g) - mean**2)  # fmt: skip
            return row._replace(z=math.nan)  # an integral has none
    return None


# --------------------------------------------------------------------------------- --model


def of_models(text, options):
    """The Report on the `estimate` of FILE.py[:NAME], on tiny networks or on the file's `model`.

    A file with a model and no `estimate` is checked with those of rebar.py and rloo.py.
    """
    path, module = load_module(text)
    model, plain = getattr(module, "model", None), partial(reinforce.estimate, baseline="none")
    seed, own = options["seed"], []
    if hasattr(model, "infer") or (model is not None and not hasattr(module, "estimate")):
        images = getattr(module, "images", None)
        if images is None:
            raise InputError(f"{path} has a model; it has to have images too, a few rows of x")
        check_interface(model, images, path)
        x = np.asarray(images, model.dtype)
        rng = np.random.default_rng(seed)
        own = [(rng, model, model.init(rng), x, "your model")]
    if own and ":" not in text and not hasattr(module, "estimate"):
        if options["samples"] > 1:
            raise InputError("--samples: of an estimate; rebar.py has one sample, rloo.py two")
        reports = []
        for name, more in (("rebar", {"samples": 1}), ("rloo", {"samples": 2})):
            paper = PAPERS[name]
            named = [(*what[:-1], name) for what in own]
            reports.append(check_model(paper.estimate, paper.init_aux, plain, own=named, file=path,
                                       **options | more))  # fmt: skip
        return report([row for each in reports for row in each.rows])
    estimate = function_of(module, text, "estimate")
    init_aux = getattr(module, "init_aux", lambda rng, model: [])
    draw = getattr(module, "draw_noise", None)
    return check_model(estimate, init_aux, plain, draw, file=path, own=own, **options)


# ------------------------------------------------------------------------------------------- main


def main(argv=None):
    p = cli.Parser(__doc__)
    p.add_argument("file", nargs="?", metavar="FILE.py[:FUNCTION]", type=cli.folder,
                   help="what to check")  # fmt: skip
    p.add_argument("--template", choices=TEMPLATES, help="print an example to begin with")
    p.flag("--backend", "what the function is written in", choices=tuple(BACKENDS))
    p.flag("--bits", "D, to 12: bits, or variables with --classes", 5, type=cli.number(int, 1, 12),
           metavar="D")  # fmt: skip
    p.flag("--samples", "K samples for each estimate", 1, type=cli.number(int, 1, 64), metavar="K")
    p.flag("--classes", "variables of C classes in the place of bits", type=cli.number(int, 2, 64),
           metavar="C")  # fmt: skip
    p.flag("--target", "E[f], or the bound E[log mean_k exp f(b_k)]", choices=("mean", "bound"))
    p.flag("--model", "check `estimate` on every parameter of a network", action="store_true")
    p.flag("--against", "compare each element with METHOD of this collection: see above",
           metavar="METHOD[:OPTION=VALUE,…]")  # fmt: skip
    p.flag("--estimates", "at most, of each gradient", ESTIMATES, type=cli.number(int, 256, 10**9),
           metavar="N")  # fmt: skip
    p.add_argument("--only", help="a single function", choices=SHAPES, metavar="F")
    p.add_argument("--at", help="a single scale of the logits", type=float, choices=SCALES)
    p.flag("--seed", "of all noise", 0, type=cli.SEED)
    p.flag("--out", "new folder for check.json and check.png", type=cli.folder, metavar="DIR")
    args = p.parse_args(argv)
    if args.template:
        for name in cli.given(p, argv) - {"template", "file"}:
            p.error(f"--{name}: it has no effect with --template")
    if args.target == "bound" and args.samples == 1:
        p.error("--target: the bound is of several samples; say how many with --samples")
    folder = Path(args.out) if args.out else None
    if args.template:
        if args.file:
            p.error("--template: it takes no file; send its output to one with >")
        return print(TEMPLATES[args.template], end="")
    if not args.file:
        p.error("name the FILE.py to check, or print an example with --template torch")
    common = {"samples": args.samples, "target": args.target, "estimates": args.estimates,
              "seed": args.seed}  # fmt: skip
    if folder and folder.exists():
        p.error(f"--out: {folder} exists; choose another folder")
    if args.against:
        for flag in ("model", "target", "estimates"):
            if getattr(args, flag) != p.get_default(flag):
                p.error(f"--{flag}: not with --against")
    if args.model:
        for flag in ("backend", "bits", "classes", "only", "at"):
            if getattr(args, flag) != p.get_default(flag):
                p.error(f"--{flag}: not with --model")
        result = of_models(args.file, common)
    elif args.against:
        harness.against.parse(args.against, PAPERS)
        samples, _, path = load_function(args.file, "gradient_samples")
        result = against(samples, args.against, args.bits, backend=args.backend,
                         samples=args.samples, classes=args.classes, only=args.only, at=args.at,
                         seed=args.seed, file=path)  # fmt: skip
    else:
        samples, _, path = load_function(args.file, "gradient_samples")
        result = check(samples, args.bits, backend=args.backend, classes=args.classes,
                       only=args.only, at=args.at, file=path, **common)  # fmt: skip
    print(result)
    if folder:
        folder.mkdir(parents=True)
        rows = [{key: None if value != value else value for key, value in row._asdict().items()}
                for row in result.rows]  # an integral has no z # fmt: skip
        write_json(folder / "check.json", result._asdict() | {"rows": rows, "flags": vars(args)})
        if not args.against:
            figure(folder / "check.png", result)
    if args.against:
        if not result.equal:
            raise Stopped(1, f"not equal to {args.against}")
    elif not result.unbiased:
        command = ["python", "methods/check.py", args.file, *["--model"] * args.model]
        for flag in ("backend", "bits", "samples", "classes", "target", "estimates", "seed"):
            if (value := getattr(args, flag)) != p.get_default(flag):
                command += [f"--{flag}", str(value)]
        worst = max(result.rows, key=lambda row: row.excess)
        if not args.model:
            command += ["--only", worst.function, "--at", worst.logits.strip("±-")]
        raise Stopped(1, f"the worst case again: {shlex.join(command)}")


if __name__ == "__main__":
    cli.run(main)
