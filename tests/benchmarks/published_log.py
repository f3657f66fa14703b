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
import csv
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
FORMS = {"as released": " --as-released", "unbiased": ""}
TRACKED = "NVIL,SimpleMuProp,MuProp,REBAR,DynamicREBAR"
COMMANDS = {
    "rebar": "methods/rebar.py --dataset mnist --layers 2 --steps 8336 --no-plots",
    "variances": "methods/compare.py --dataset omniglot --layers 2 --steps 1918 --no-plots"
    f" --methods {TRACKED}",
}
RESULTS = {"rebar": "rebar_published_log.json", "variances": "compare_published_variances.json"}
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


def train(command, folder):
    """Run one training to its end, unless its folder has a summary; returns the folder."""
    if not (folder / "summary.json").exists():
        arguments = [*command.split(), "--out", str(folder)]
        if (folder / "checkpoint.npz").exists():
            arguments = [command.split()[0], "--resume", str(folder)]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        print(f"{folder.name}: done", flush=True)
    return folder


def read(row, key):
    value = math.log(float(row[key[4:]])) if key.startswith("log ") else float(row[key])
    return round(value, 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=[*COMMANDS])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "published")
    args = parser.parse_args()
    published, result = PUBLISHED[args.experiment], []
    jobs = [(form, seed) for seed in SEEDS for form in FORMS]
    commands = [f"{COMMANDS[args.experiment]}{FORMS[form]} --seed {seed}" for form, seed in jobs]
    names = [f"{args.experiment}-{form.replace(' ', '-')}-{seed}" for form, seed in jobs]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(train, commands, [args.runs.resolve() / name for name in names]))
    for (form, seed), command, folder in zip(jobs, commands, folders):
        with open(folder / "log.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        result.append({
            "form": form, "seed": seed, "command": f"python {command}",
            "versions": config["versions"], "data_verified": config["data_verified"],
            "steps": [int(row["step"]) for row in rows],
            **{key: [read(row, key) for row in rows] for key in published},
            "valid_bound": summary["valid_bound"], "test_bound": summary["test_bound"],
            "seconds": round(summary["seconds"]),
        })  # fmt: skip
    path = ROOT / "data" / "results" / RESULTS[args.experiment]
    path.parent.mkdir(exist_ok=True)
    content = {"published": published, "runs": result}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
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
