"""The bound and the variance of the inference network's gradient along training, K = 64.

    .venv/bin/python data/download.py mnist
    .venv/bin/python tests/benchmarks/dreg_figure.py --runs DIR --only dreg-0 iwae-0   # 1 h each
    .venv/bin/python tests/benchmarks/dreg_figure.py --runs DIR --record      # only writes down

MNIST with fresh bits, batch 32, Adam at 3e-4, as in Tucker et al. 2019 (arXiv 1810.04152), whose
figures show this for up to 5,000,000 steps and print no numbers; here 100,000 steps, compiled. A
run that is not finished is written down with the steps that it has. data/results/dreg_figure.json
keeps the rows of runs that are not in DIR.
"""

import argparse
import json
from pathlib import Path

from matplotlib.ticker import MaxNLocator
from runs import ROOT, kept, log_rows, save, train_all, write

from harness import figures

PAIRS = (("iwae", "stl", "dreg"), ("rws", "rws-dreg"), ("jk", "jk-dreg"))
SEEDS = {"iwae": (0, 1, 2), "dreg": (0, 1, 2)}  # of the others 0
COMMANDS = {
    f"{estimator}-{seed}": "methods/dreg.py --dataset mnist --samples 64 --steps 100000 --compile"
    " --no-plots --log-every 1000 --eval-every 10000 --eval-samples 64 --test-samples 64"
    f" --estimator {estimator} --seed {seed}"
    for group in PAIRS
    for estimator in group
    for seed in SEEDS.get(estimator, (0,))
}


def row(name, folder):
    """What the log of a run says so far, or None if it has no row yet."""
    rows = log_rows(folder)
    if not rows:
        return None
    estimator, _, seed = name.rpartition("-")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    curve = lambda key: [[int(r["step"]), round(r[key], 3)] for r in rows if key in r]
    every_fifth = lambda points: points[::-5][::-1]  # and the last one
    return {
        "run": name, "estimator": estimator, "seed": int(seed),
        "command": f"python {COMMANDS[name]}", "versions": config["versions"],
        "complete": (folder / "summary.json").exists(), "steps": int(rows[-1]["step"]),
        "hours": round(rows[-1]["seconds"] / 3600, 2), "valid_bound": curve("valid_bound"),
        "test_bound": rows[-1].get("test_bound"), "train_bound": every_fifth(curve("train_bound")),
        "log_inference_variance": every_fifth(curve("log_inference_variance")),
    }  # fmt: skip


def table(rows):
    """Lines of Markdown: what every run has at its end, or at the step that it has reached."""
    known = {r["run"]: r for r in rows}
    lines = ["| estimator | seed | steps | training bound | log variance | test bound |",
             "|---" * 6 + "|"]  # fmt: skip
    for name in COMMANDS:
        estimator, _, seed = name.rpartition("-")
        steps, numbers = "not run", [None] * 3
        if r := known.get(name):
            steps = f"{r['steps']:,}"
            numbers = [r[key][-1][1] for key in ("train_bound", "log_inference_variance")]
            numbers += [r["test_bound"]]
        cells = ["" if x is None else f"{x:.2f}".replace("-", "−") for x in numbers]
        lines.append(f"| `{estimator}` | {' | '.join([seed, steps, *cells])} |")
    return lines


def plot(path, rows):
    """Training bound and log variance against the step: a column for each group of estimators."""
    groups = [group for group in PAIRS if any(r["estimator"] in group for r in rows)]
    figure, axes = figures.new_figure(len(groups), 3.8, 2.8, rows=2)
    for column, group in enumerate(groups):
        panels = {"train_bound": "training bound, K = 64, nats",
                  "log_inference_variance": "log variance, inference network"}  # fmt: skip
        for line, (key, label) in enumerate(panels.items()):
            axis = axes[line * len(groups) + column]
            for run in (r for r in rows if r["estimator"] in group):
                paler = {"alpha": 0.4} if run["seed"] else {}
                figures.draw(axis, *zip(*run[key]), run["estimator"], **paler)
            axis.set(xlabel="step", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            if key == "train_bound":
                axis.set_ylim(bottom=-115)  # where the first steps are does not matter
            figures.label_curves(axis, [c for c in axis.get_lines() if c.get_alpha() is None])
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="+", default=[*COMMANDS], choices=[*COMMANDS],
                        metavar="RUN")  # fmt: skip
    parser.add_argument("--at-once", type=int, default=2, metavar="N")
    parser.add_argument("--record", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.record:
        train_all({name: COMMANDS[name] for name in args.only}, args.runs, args.at_once)
    new = [r for name in args.only if (r := row(name, args.runs / name))]
    rows = kept("dreg_figure", new, COMMANDS)
    write("dreg_figure", {"runs": rows})
    plot(ROOT / "data" / "results" / "dreg_figure.png", rows)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
