"""Six estimators on dynamic MNIST, in the configuration of another code base's logs.

The configuration of github.com/thjashin/rodeo (TensorFlow): a VAE of 200 bits with a fixed prior,
nets 784-200-200-200 and back with LeakyReLU .3 (or affine maps), Glorot's initialisation, no
centring, batch 100, Adam with lr 1e-3 and betas .9, .999. Logged as there: after 1, 1001, 2001, …
updates the mean bound of one sample over the 50,000 training images, with fresh bits; and of the
variance of the encoder's gradient a moving average (decay .999, from 0, not debiased).

    python tests/benchmarks/rodeo_runs.py --out DIR --steps 3000 --seeds 1 2 3

One JSON file a run; a run that has its file is not repeated. Needs data/mnist.npz. With --theirs
(their logs: a list "runs" with "estimator", "K", "encoder_type", "seed" and "rows") and --result it
writes both side by side to data/results/rodeo_runs.json, and prints the table of means. Rows of
estimators without runs in DIR are kept as the file has them.
"""

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "methods"))

import disarm
import relax
import rloo
import rodeo
from harness.data import binarize, load_dataset
from harness.diagnostics import GradientVariance
from harness.models import SBN, multi_sample_bound
from harness.optimizer import flatten
from harness.streams import EVALUATION, ORDER, stream
from harness.trainer import Trainer

import numpy as np


def double_cv(K):
    """What RUNS says of Double CV with K samples."""
    options = {"estimator": "double-cv"}
    return (K, partial(rodeo.estimate, samples=K, **options), partial(rodeo.init_aux, **options))


nothing = lambda rng, model: []
# encoder, label, rows of an image, estimator, what it learns
RUNS = [
    ("nonlinear", "RLOO-2", 2, partial(rloo.estimate, samples=2), nothing),
    ("nonlinear", "DisARM-2", 1, disarm.estimate, nothing),
    ("nonlinear", "DoubleCV-2", *double_cv(2)),
    ("nonlinear", "RODEO-2", 2, partial(rodeo.estimate, samples=2), rodeo.init_aux),
    ("nonlinear", "RELAX-1", 1, relax.estimate, partial(relax.init_aux, temperature=0.1)),
    ("nonlinear", "RLOO-3", 3, partial(rloo.estimate, samples=3), nothing),
    ("nonlinear", "ARMS-3", 3, partial(disarm.estimate, estimator="arms", samples=3), nothing),
    ("nonlinear", "DoubleCV-3", *double_cv(3)),
    ("nonlinear", "RODEO-3", 3, partial(rodeo.estimate, samples=3), rodeo.init_aux),
    ("linear", "RLOO-2", 2, partial(rloo.estimate, samples=2), nothing),
    ("linear", "DisARM-2", 1, disarm.estimate, nothing),
    ("linear", "DoubleCV-2", *double_cv(2)),
]


def local_order(n, buffer, rng):
    """0 … n − 1 as a sliding buffer shuffles them: each place is taken by one of the next few."""
    waiting, order = list(range(buffer)), []
    for new in range(buffer, n):
        k = rng.integers(buffer)
        order.append(waiting[k])
        waiting[k] = new
    return np.array(order + list(rng.permutation(waiting)))


def run(data, encoder, samples, estimate, init_aux, seed, steps, buffer=None):
    """The rows of one run: step, bound (nats), ln variance, seconds of training so far."""
    network = {"activation": "leaky-relu", "slope": 0.3} if encoder == "nonlinear" else {}
    model = SBN(data.train_mean, nonlinear=encoder == "nonlinear", **network, centring=False,
                prior="fixed", init="glorot")  # fmt: skip
    args = SimpleNamespace(seed=seed, samples=samples, lr=1e-3, batch_size=100)
    n = sum(name.startswith("q") for name in model.names)
    latest = []

    def watched(model, params, aux, x, noise):
        bound, grads, aux_grads = estimate(model, params, aux, x, noise)
        latest[:] = variance.update(flatten(grads[:n], model.dtype)[0])
        return bound, grads, aux_grads

    adam = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-7}
    trainer = Trainer(args, data, model, watched, init_aux, adam=adam)
    variance = GradientVariance(sum(p.size for p in trainer.params[:n]))
    rows, seconds = [], 0.0
    for step in range(steps + 1):
        if buffer and step % trainer.steps_per_epoch == 0:
            trainer.order_epoch = step // trainer.steps_per_epoch
            order = local_order(len(data.train), buffer, stream(seed, ORDER, trainer.order_epoch))
            trainer.order = order.reshape(trainer.steps_per_epoch, -1)
        start = time.perf_counter()
        trainer.step()
        seconds += time.perf_counter() - start
        if step % 1000 == 0:
            rng = stream(seed, EVALUATION, step)
            images = binarize(data.train, data.levels, rng)
            bound = multi_sample_bound(model, trainer.params, images, 1, rng).mean()
            rows.append({"step": step, "bound": float(bound), "seconds": round(seconds, 1),
                         "ln_variance": math.log(max(latest[1], 1e-300))})  # fmt: skip
            print(encoder, seed, rows[-1], flush=True)
    return rows


def side_by_side(out, theirs):
    """A list of dicts: the means of both over seeds, their spreads, and whether they agree.

    They agree if the means differ by no more than the larger spread of seeds (max − min) and 1 % of
    the bound, or .1 in ln variance.
    """
    ours = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    table = []
    for encoder, label, *_ in RUNS:
        name, K = label.split("-")
        mine = [r["rows"] for r in ours if (r["encoder"], r["estimator"]) == (encoder, label)]
        same = lambda r: (r["encoder_type"], r["estimator"], r["K"]) == (encoder, name, int(K))
        others = [r["rows"] for r in theirs["runs"] if same(r)]
        if not mine:
            continue
        for step in (1000, 2000, 3000):
            row = {"encoder": encoder, "estimator": label, "step": step}
            keys = {"bound": "objective_elbo_train50000", "ln_variance": "variance"}
            for key, their_key in keys.items():
                log = math.log if key == "ln_variance" else float
                a = [r[key] for rows in mine for r in rows if r["step"] == step]
                b = [log(r[their_key]) for rows in others for r in rows if r["step"] == step]
                spread = max(max(a) - min(a), max(b) - min(b))
                margin = 0.1 if key == "ln_variance" else 0.01 * abs(sum(b) / len(b))
                mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
                row |= {f"{key}_ours": mean_a, f"{key}_theirs": mean_b, f"{key}_seeds_ours": a,
                        f"{key}_seeds_theirs": b,
                        f"{key}_agrees": abs(mean_a - mean_b) <= spread + margin}  # fmt: skip
            table.append(row)
    return table


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--buffer", type=int, help="shuffle through a buffer of as many images")
    p.add_argument("--only", default="", help="only the runs whose name has this in it")
    p.add_argument("--theirs", type=Path)
    p.add_argument("--result", type=Path)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = load_dataset("mnist-grey", dynamic=True)
    for seed in args.seeds:
        for encoder, label, samples, estimate, init_aux in RUNS:
            path = args.out / f"{encoder}-{label}-{seed}.json"
            if path.exists() or args.only not in path.name:
                continue
            print(path.name, flush=True)
            rows = run(data, encoder, samples, estimate, init_aux, seed, args.steps, args.buffer)
            result = {"encoder": encoder, "estimator": label, "seed": seed, "rows": rows}
            path.write_text(json.dumps(result), encoding="utf-8")
    if args.theirs:
        theirs = json.loads(args.theirs.read_text(encoding="utf-8"))
        table = side_by_side(args.out, theirs)
        for row in table:
            print("| {encoder} | {estimator} | {step} | {bound_ours:.1f} | {bound_theirs:.1f} "
                  "| {ln_variance_ours:.2f} | {ln_variance_theirs:.2f} |".format(**row),
                  row["bound_agrees"], row["ln_variance_agrees"])  # fmt: skip
        key = lambda row: (row["encoder"], row["estimator"], row["step"])
        before = json.loads(args.result.read_text("utf-8"))["table"] if args.result.exists() else []
        rows = {key(row): row for row in [*before, *table]}
        args.result.write_text(json.dumps({"table": [*rows.values()]}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
