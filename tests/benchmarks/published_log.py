"""The training log in the README of the REBAR authors' code, reproduced on binarized MNIST.

    .venv/bin/python data/download.py binarized-mnist
    .venv/bin/python tests/benchmarks/published_log.py

Trains `SBNDynamicRebar`, two linear layers, lr 3e-4, for four epochs and three seeds, once as
released and once in the unbiased form, and writes data/results/rebar_published_log.json. Two runs
at a time, about a quarter of an hour; runs that are in the folder --runs already are not repeated.
"""

import argparse
import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "data" / "results" / "rebar_published_log.json"
SEEDS = (0, 1, 2)
FLAGS = "--dataset mnist --layers 2 --steps 8336 --no-plots"
FORMS = {"as released": "--as-released", "unbiased": ""}
# github.com/tensorflow/models, research/rebar, README: means over the steps of epochs 1 to 4
PUBLISHED = {
    "train_bound": [-231.03, -156.87, -143.47, -137.65],
    "temperature": [0.371, 0.310, 0.262, 0.223],
    "log_grad_variance/not_debiased": [-3.647, -4.428, -4.856, -4.956],
}


def command(form, seed):
    return f"methods/rebar.py {FLAGS} {FORMS[form]} --seed {seed}".replace("  ", " ")


def train(form, seed, runs):
    """Run one training to its end, unless its folder has a summary; returns the folder."""
    folder = runs / f"{form.replace(' ', '-')}-{seed}"
    if not (folder / "summary.json").exists():
        arguments = [*command(form, seed).split(), "--out", str(folder)]
        if (folder / "checkpoint.npz").exists():
            arguments = ["methods/rebar.py", "--resume", str(folder)]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        print(f"{form}, seed {seed}: done", flush=True)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "published-log")
    runs = parser.parse_args().runs.resolve()
    jobs = [(form, seed) for seed in SEEDS for form in FORMS]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda job: train(*job, runs), jobs))
    result = {"published": PUBLISHED, "runs": []}
    for (form, seed), folder in zip(jobs, folders):
        with open(folder / "log.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        epochs = {key: [round(float(row[key]), 4) for row in rows] for key in PUBLISHED}
        result["runs"].append({
            "form": form, "seed": seed, "command": f"python {command(form, seed)}",
            "versions": config["versions"], "data_verified": config["data_verified"],
            "steps": [int(row["step"]) for row in rows], **epochs,
            "valid_bound": summary["valid_bound"], "test_bound": summary["test_bound"],
            "seconds": round(summary["seconds"]),
        })  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for form in FORMS:
        print(f"\n{form}: mean of {len(SEEDS)} seeds [lowest, highest] | published")
        for key, published in PUBLISHED.items():
            ours = zip(*(run[key] for run in result["runs"] if run["form"] == form))
            cells = [
                f"{sum(x) / len(x):.3f} [{min(x):.3f}, {max(x):.3f}] | {target:.3f}"
                for x, target in zip(ours, published)
            ]
            print(f"{key}:", ";  ".join(cells))


if __name__ == "__main__":
    main()
