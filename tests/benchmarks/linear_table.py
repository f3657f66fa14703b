"""The table of RELAX's paper for linear networks: the highest training bound after 2,000,000 steps.

    python tests/benchmarks/linear_table.py --runs DIR --only nvil-mnist-1    # runs what is missing
    python tests/benchmarks/linear_table.py --runs DIR --record               # only writes down

Static MNIST and Omniglot, 200 bits a layer, batch 24, Adam at 3e-4 (beta2 .99999), seed 0,
compiled. The training bound is that of one sample, a mean over 10,420 steps. A run that is not
finished is written down with the steps that it has. data/results/linear_table.json keeps the rows
of runs that are not in DIR; the table on the screen has all, beside the published numbers. The
figure linear_table.png has the curves.
"""

import argparse
import json
from pathlib import Path

from runs import ROOT, kept, log_rows, save, train_all, write

from harness import figures

METHODS = {  # the beginning of a run's name, which begins with the method: (label, further flags)
    "nvil": ("NVIL", ""), "muprop": ("MuProp", ""), "concrete": ("Concrete", "--temperature .1"),
    "rebar": ("REBAR", ""), "relax": ("RELAX", ""),
    "rloo": ("RLOO, K = 2", "--samples 2 --batch-size 12"),
    "disarm": ("DisARM", "--batch-size 12"), "reinmax": ("ReinMax", ""),
    "nvil-1e-3": ("NVIL at 1e-3", "--lr 1e-3"),
    "concrete-.5": ("Concrete at .5", "--temperature .5"),
}  # fmt: skip
PUBLISHED = {  # Grathwohl et al. 2018 (arXiv 1711.00123), table 1
    "mnist-1": (-112.5, -111.7, -111.3, -111.6, -111.20),
    "mnist-2": (-99.6, -99.07, -99.62, -98.22, -98.00),
    "omniglot-1": (-117.44, -117.09, -117.23, -116.63, -116.57),
}
MEAN_OVER = 10_420  # steps of a row of the log: five epochs of MNIST
REST = "--no-plots --eval-every 1000000"  # an evaluation takes ten seconds


def commands():
    """{name of the run: command}."""
    found = {}
    for name, (_, flags) in METHODS.items():
        for which in PUBLISHED:
            dataset, layers = which.split("-")
            line = [f"methods/{name.split('-')[0]}.py --dataset {dataset} --layers {layers}",
                    "--compile", *flags.split()]  # fmt: skip
            found[f"{name}-{which}"] = " ".join([*line, f"--log-every {MEAN_OVER}", REST])
    return found


def means(rows):
    """The rows of a log at the multiples of MEAN_OVER, with the mean bound of all steps between.

    An evaluation ends a row of the log, too: a row may be the mean of a few steps only.
    """
    found, step, total = [], 0, 0.0
    for r in rows:
        total += (r["step"] - step) * r["train_bound"]
        step = r["step"]
        if step % MEAN_OVER == 0:
            found.append(r | {"train_bound": total / MEAN_OVER})
            total = 0.0
    return found


def row(name, command, folder):
    """What the log of a run says so far, or None if it has no row yet."""
    rows, summary = log_rows(folder), folder / "summary.json"
    whole = means(rows)
    if not whole:
        return None
    best, last = max(whole, key=lambda r: r["train_bound"]), rows[-1]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    valid = [r["valid_bound"] for r in rows if "valid_bound" in r]
    return {
        "run": name, "command": f"python {command}", "versions": config["versions"],
        "data_verified": config["data_verified"], "complete": summary.exists(),
        "steps": int(last["step"]), "hours": round(last["seconds"] / 3600, 2),
        "highest_train_bound": best["train_bound"], "at_step": int(best["step"]),
        "valid_bound": valid[-1] if valid else None, "test_bound": last.get("test_bound"),
        "log_grad_variance": last["log_grad_variance"],
        **{key: last[key] for key in ("relaxed_objective",) if key in last},
        "curve": [[int(r["step"]), round(r["train_bound"], 3), round(r["log_grad_variance"], 3)]
                  for r in whole[:: max(1, len(whole) // 50)]],
    }  # fmt: skip


def table(rows):
    """Lines of Markdown: a row a method, a column for each data set and depth, ours | published."""
    known = {r["run"]: r for r in rows}
    lines = ["| | " + " | ".join(f"{which}, ours | published" for which in PUBLISHED) + " |",
             "|---" * (1 + 2 * len(PUBLISHED)) + "|"]  # fmt: skip
    for k, (name, (label, _)) in enumerate(METHODS.items()):
        cells = []
        for which, published in PUBLISHED.items():
            found = known.get(f"{name}-{which}")
            ours = "not run" if not found else f"{found['highest_train_bound']:.2f}"
            if found and not found["complete"]:
                ours += f" ({found['steps']:,} steps)"
            cells += [ours, f"{published[k]:.2f}" if k < len(published) else ""]
        lines.append(f"| {label} | " + " | ".join(cells).replace("-", "−") + " |")
    return lines


def plot(path, rows):
    """A row for each data set and depth that has runs: training bound and log variance against the
    step; published bounds at the end."""
    known = {r["run"]: r for r in rows}
    runs = {which: [(k, label, run) for k, (name, (label, _)) in enumerate(METHODS.items())
                    if (run := known.get(f"{name}-{which}"))]
            for which in PUBLISHED}  # fmt: skip
    shown = [which for which in PUBLISHED if runs[which]]
    figure, axes = figures.new_figure(2, 5.0, 3.8, rows=len(shown))
    for which, left, right in zip(shown, axes[::2], axes[1::2]):
        for k, label, run in runs[which]:
            steps, bound, variance = zip(*run["curve"])
            for axis, y in ((left, bound), (right, variance)):
                figures.draw(axis, steps, y, label.split(",")[0], position=k)
        curves = [*left.get_lines()]
        for k, ((label, _), bound) in enumerate(zip(METHODS.values(), PUBLISHED[which])):
            look = figures.style(label, k) | {"linestyle": "none", "markersize": 9, "mec": "black"}
            left.plot(2e6, bound, zorder=3, clip_on=False, **look)
        dataset, layers = which.split("-")
        name = {"mnist": "MNIST", "omniglot": "Omniglot"}[dataset]
        title = f"{name}, layers: {layers}; with a black edge: published"
        left.set_title(title, loc="left", size=8.5)
        left.set(xlabel="step", ylabel="training bound, nats")
        left.set_ylim(bottom=min(PUBLISHED[which]) - 18)
        right.set(xlabel="step", ylabel="log variance of the gradient")
        for axis in (left, right):
            axis.set_xlim(0, 2e6)
            axis.set_xticks([0, 5e5, 1e6, 1.5e6, 2e6], ["0", "0.5 M", "1 M", "1.5 M", "2 M"])
        figures.label_curves(left, curves)
        figures.label_curves(right)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--only", nargs="+", default=[*commands()], choices=[*commands()],
                        metavar="RUN")  # fmt: skip
    parser.add_argument("--at-once", type=int, default=2, metavar="N")
    parser.add_argument("--record", action="store_true", help="run nothing")
    args = parser.parse_args()
    chosen = {name: commands()[name] for name in args.only}
    if not args.record:
        train_all(chosen, args.runs, args.at_once)
    new = [r for n in chosen if (r := row(n, chosen[n], args.runs / n))]
    rows = kept("linear_table", new, commands())
    write("linear_table", {"runs": rows})
    plot(ROOT / "data" / "results" / "linear_table.png", rows)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
