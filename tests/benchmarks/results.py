"""The long measurements of README's results, each from many runs, into data/results/<name>.json.

    .venv/bin/python data/download.py all
    .venv/bin/python tests/benchmarks/results.py dreg             # IWAE and DReG, MNIST
    .venv/bin/python tests/benchmarks/results.py semi_supervised_digits
    .venv/bin/python tests/benchmarks/results.py semi_supervised_mnist

Two runs at a time. Runs that are in the folder --runs already are not repeated, and those that were
stopped go on.
"""

import argparse
import itertools
from pathlib import Path

from runs import ROOT, facts, train_all, write

M2 = "methods/semi_supervised.py --no-plots"
OBJECTIVES = {"marginal": "marginal", "gumbel": "gumbel", "straight-through": "straight-through",
              "reinforce": "reinforce --samples 2"}  # fmt: skip
EXPERIMENTS = {
    "dreg": (
        "methods/dreg.py --dataset mnist --batch-size 20 --lr 1e-3 --steps 50000"
        " --samples {K} --estimator {estimator}",
        {"K": (1, 5, 50), "estimator": ("dreg", "iwae")},
        "test_log_likelihood",
    ),
    "semi_supervised_digits": (
        f"{M2} --labels {{labels}} --unlabelled {{unlabelled}} --seed {{seed}}",
        {"labels": (2, 10), "unlabelled": tuple(OBJECTIVES), "seed": (0, 1, 2)},
        "test_accuracy",
    ),
    "semi_supervised_mnist": (
        f"{M2} --dataset mnist --unlabelled {{unlabelled}} --seed {{seed}}",
        {"unlabelled": tuple(OBJECTIVES), "seed": (0, 1, 2)},
        "test_accuracy",
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=[*EXPERIMENTS])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    args = parser.parse_args()
    template, axes, measure = EXPERIMENTS[args.experiment]
    settings = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    named = {"-".join([args.experiment, *map(str, s.values())]): s for s in settings}
    flags = lambda s: s | {"unlabelled": OBJECTIVES.get(s.get("unlabelled"))}
    commands = {name: template.format(**flags(s)) for name, s in named.items()}
    folders = train_all(commands, args.runs)
    results = [named[name] | facts(commands[name], folders[name]) for name in named]
    write(args.experiment, {"runs": results})
    for result in results:
        print(*(f"{key} {result[key]}" for key in axes), f"{measure} {result[measure]:.4f}")


if __name__ == "__main__":
    main()
