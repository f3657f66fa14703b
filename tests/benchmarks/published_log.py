"""What the README of the REBAR authors' code prints of its training, reproduced.

    .venv/bin/python data/download.py binarized-mnist omniglot
    .venv/bin/python tests/benchmarks/published_log.py rebar        # a quarter of an hour
    .venv/bin/python tests/benchmarks/published_log.py variances    # likewise

"rebar" is `SBNDynamicRebar`, two linear layers, lr 3e-4, four epochs of binarized MNIST;
"variances" is `SBNTrackGradVariances`, the same network on two epochs of Omniglot. Three seeds
each, as released and in the unbiased form, two runs at a time, into data/results/*.json. Runs that
are in the folder --runs already are not repeated, and those that were stopped go on.
"""

import argparse
import math
from pathlib import Path

from runs import ROOT, facts, log_rows, train_all, write

SEEDS = (0, 1, 2)
FORMS = {"as released": " --as-released", "unbiased": ""}
TRACKED = "NVIL,SimpleMuProp,MuProp,REBAR,DynamicREBAR"
COMMANDS = {
    "rebar": "methods/rebar.py --dataset mnist --layers 2 --steps 8336 --no-plots",
    "variances": "methods/compare.py --dataset omniglot --layers 2 --steps 1918 --no-plots"
    f" --methods {TRACKED}",
}
RESULTS = {"rebar": "rebar_published_log", "variances": "compare_published_variances"}
# github.com/tensorflow/models, research/rebar, README: means over the steps of each epoch, or (for
# the keys with "log") the logarithm of that mean
PUBLISHED = {
    "rebar": {
        "train_bound": [-231.03, -156.87, -143.47, -137.65],
        "temperature": [0.371, 0.310, 0.262, 0.223],
        "log_grad_variance/not_debiased": [-3.647, -4.428, -4.856, -4.956],
    },
    "variances": {
        "train_bound": [-260.5, -206.9],
        "log raw_variance/NVIL": [2.76, 2.27],
        "log raw_variance/SimpleMuProp": [-0.041, -0.707],
        "log raw_variance/MuProp": [-0.034, -0.718],
        "log raw_variance/REBAR": [-3.54, -3.66],
        "log raw_variance/DynamicREBAR": [-3.73, -3.86],
    },
}


def read(row, key):
    value = math.log(row[key[4:]]) if key.startswith("log ") else row[key]
    return round(value, 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=[*COMMANDS])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "published")
    args = parser.parse_args()
    published, result = PUBLISHED[args.experiment], []
    jobs = {f"{args.experiment}-{form.replace(' ', '-')}-{seed}": (form, seed)
            for seed in SEEDS for form in FORMS}  # fmt: skip
    commands = {name: f"{COMMANDS[args.experiment]}{FORMS[form]} --seed {seed}"
                for name, (form, seed) in jobs.items()}  # fmt: skip
    for name, folder in train_all(commands, args.runs).items():
        rows = log_rows(folder)
        known = facts(commands[name], folder)
        keys = ("command", "versions", "data_verified")
        result.append({
            **dict(zip(("form", "seed"), jobs[name])), **{key: known[key] for key in keys},
            "steps": [int(row["step"]) for row in rows],
            **{key: [read(row, key) for row in rows] for key in published},
            "valid_bound": known["valid_bound"], "test_bound": known["test_bound"],
            "seconds": known["seconds"],
        })  # fmt: skip
    write(RESULTS[args.experiment], {"published": published, "runs": result})
    for form in FORMS:
        print(f"\n{form}: mean of {len(SEEDS)} seeds [lowest, highest] | published")
        for key, targets in published.items():
            ours = zip(*(run[key] for run in result if run["form"] == form))
            cells = [
                f"{sum(x) / len(x):.3f} [{min(x):.3f}, {max(x):.3f}] | {target:.3f}"
                for x, target in zip(ours, targets)
            ]
            print(f"{key}:", ";  ".join(cells))


if __name__ == "__main__":
    main()
