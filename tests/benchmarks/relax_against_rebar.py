"""RELAX against REBAR: the variance of the gradient when both have learned their own parts.

One bit, f = (b − .499)², θ held fixed: every estimator learns its parts from 100 samples a step;
then the variance of a single estimate is integrated by quadrature. Digits: compare.py, along the
trajectory of REBAR, three seeds.

    python tests/benchmarks/relax_against_rebar.py      # 15 minutes; data/results/relax.json
"""

import argparse
import math
import sys
from functools import partial
from pathlib import Path

from runs import ROOT, facts, log_rows, train_all, write

sys.path.insert(0, str(ROOT / "methods"))

import rebar
import reinforce
import relax
from common import Toy, draw_noise, logit, quadrature
from harness.optimizer import Adam, flatten
from harness.streams import INIT, NOISE, stream

import autograd.numpy as np

ROWS, STEPS, SEEDS = 100, 6000, (0, 1, 2)
RELAXED = {"relaxation": "concrete"}
BLACK_BOX = {"black_box": True}
ESTIMATORS = {
    "REINFORCE": (partial(reinforce.estimate, baseline="none"), reinforce.init_aux),
    "REBAR": (rebar.estimate, rebar.init_aux),
    "REBAR, σ(z/T)": (partial(rebar.estimate, **RELAXED), rebar.init_aux),
    "RELAX": (relax.estimate, relax.init_aux),
    "RELAX, black box": (
        partial(relax.estimate, **BLACK_BOX),
        partial(relax.init_aux, **BLACK_BOX),
    ),
}
DIGITS = (
    "methods/compare.py --methods REINFORCE,DynamicREBAR,RELAX --follow DynamicREBAR"
    " --samples 1 --steps 10000 --no-plots --layers 1 --seed {seed}"
)


def one_bit(name, theta, seed, target=0.499):
    """Exact log variance of one estimate at θ, before and after training the method's own parts."""
    estimate, init_aux = ESTIMATORS[name]
    model, logits = Toy(lambda b: np.sum((b - target) ** 2, axis=-1), 1), np.array([logit(theta)])
    flat, aux = flatten(init_aux(stream(seed, INIT), model), np.float64)
    u, v, weights = quadrature(logits, 4000)

    def log_variance():
        tiled = [np.tile(logits, (len(u), 1))]
        _, (g,), _ = estimate(model, tiled, aux, np.zeros((len(u), 0)), [(u, v)])
        g = len(u) * g[:, 0]
        return math.log(weights @ g**2 - (weights @ g) ** 2)

    first = log_variance()
    adam = Adam(flat.size, -0.01, dtype=np.float64)
    params, x = [np.tile(logits, (ROWS, 1))], np.zeros((ROWS, 0))
    for step in range(STEPS if aux else 0):
        adam.lr = -0.01 if step < STEPS / 2 else -0.001
        noise = draw_noise(stream(seed, NOISE, step), ROWS, [1], np.float64)
        *_, aux_grads = estimate(model, params, aux, x, noise)
        adam.ascend(flat, ROWS**2 * flatten(aux_grads, np.float64)[0])
    return {"estimator": name, "theta": theta, "seed": seed, "steps": STEPS, "first": first,
            "log_variance": log_variance()}  # fmt: skip


def digits(folder):
    """The last row of compare.py's log, per seed: log variance, bias, noise and ms of a step."""
    commands = {f"relax-1-{seed}": DIGITS.format(seed=seed) for seed in SEEDS}
    for name, path in train_all(commands, folder).items():
        last = {key: value for key, value in log_rows(path)[-1].items()
                if key.startswith(("variance/", "bias/", "noise/", "ms/"))}  # fmt: skip
        yield facts(commands[name], path) | {"last": last}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    args = parser.parse_args()
    bit = [one_bit(name, theta, seed)
           for name in ESTIMATORS for theta in (0.5, 0.3) for seed in SEEDS]  # fmt: skip
    for row in bit:
        print(*row.values())
    write("relax", {"one_bit": bit, "digits": list(digits(args.runs))})


if __name__ == "__main__":
    main()
