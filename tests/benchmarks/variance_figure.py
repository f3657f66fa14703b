"""The variance of every estimator's gradient along one trajectory, after a figure of REBAR's paper.

    .venv/bin/python data/download.py binarized-mnist
    .venv/bin/python tests/benchmarks/variance_figure.py       # ten minutes of one core

MNIST, two layers of 200 bits, linear and nonlinear, one sample of an image; the first temperature
of REBAR and RELAX, and that of Concrete, is .1 and .5. The parameters follow SimpleMuProp. The
published figures (Tucker et al. 2017, arXiv 1703.07370) print no numbers. Writes
data/results/variance_figure.json and .png. Runs in the folder --runs are not repeated, those that
were stopped go on.
"""

import argparse
import math
from pathlib import Path

from runs import ROOT, facts, log_rows, save, train_all, write

from harness import figures

METHODS = ("NVIL", "SimpleMuProp", "MuProp", "Concrete", "REBAR", "DynamicREBAR", "RELAX")
NETWORKS = {"linear": "", "nonlinear": " --nonlinear"}
TEMPERATURES = (0.1, 0.5)
FIRST = 100  # step; the averages over steps are too young before


def commands(steps):
    """{(network, temperature): command}"""
    return {
        (network, T): f"methods/compare.py --dataset mnist --layers 2{flag} --samples 1"
        f" --temperature {T} --methods {','.join(METHODS)} --steps {steps} --log-every 50"
        " --eval-every 1000000000 --no-plots"
        for network, flag in NETWORKS.items()
        for T in TEMPERATURES
    }


def log_variance(row, name):
    """Or None, where a young average of squares is less than the square of the pooled mean."""
    variance = row[f"variance/{name}"]
    return round(math.log(variance), 3) if variance > 0 else None


def plot(path, runs):
    """Log variance against the step, a panel a run."""
    figure, axes = figures.new_figure(2, 5.0, 3.4, rows=2, sharey=True)
    for axis, run in zip(axes, runs):
        for k, name in enumerate(METHODS):
            figures.draw(axis, run["steps"], run["log_variance"][name], name, position=k)
        axis.set_title(f"{run['network']}, T = {run['temperature']}", size=10)
        axis.set(xlabel="step", ylabel="log variance of the gradient")
        axis.yaxis.set_tick_params(labelleft=True)
    for axis in axes:
        figures.label_curves(axis)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=2, metavar="N")
    args = parser.parse_args()
    chosen, runs = commands(args.steps), []
    names = {key: f"variance-{key[0]}-{key[1]}" for key in chosen}
    folders = train_all({names[key]: chosen[key] for key in chosen}, args.runs, args.at_once)
    for (network, T), command in chosen.items():
        folder = folders[names[network, T]]
        rows = [row for row in log_rows(folder) if row["step"] >= FIRST]
        known = facts(command, folder)
        runs.append({
            "network": network, "temperature": T,
            **{key: known[key] for key in ("command", "versions", "data_verified", "seconds")},
            "steps": [int(row["step"]) for row in rows],
            "train_bound": [round(row["train_bound"], 2) for row in rows],
            "log_variance": {name: [log_variance(row, name) for row in rows] for name in METHODS},
        })  # fmt: skip
    write("variance_figure", {"runs": runs})
    plot(ROOT / "data" / "results" / "variance_figure.png", runs)
    print("| log variance at the end | " + " | ".join(f"{n}, {T}" for n, T in chosen) + " |")
    for name in METHODS:
        cells = [f"{run['log_variance'][name][-1]:.2f}".replace("-", "−") for run in runs]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
