"""How many steps a second of semi_supervised.py, by the number of classes.

    .venv/bin/python data/download.py mnist
    .venv/bin/python tests/benchmarks/semi_supervised_speed.py          # 2 minutes
    .venv/bin/python tests/benchmarks/semi_supervised_speed.py --whole  # runs, not steps; 10

A step is what a run does: batches and noise, the estimator, both Adams, what is logged. So a step
of gumbel contains the second pass, with hard y and no gradient, by which it reports −U;
straight-through has none. Only the labels are not a run's: they are random classes. Times are of
CPU; every round has one step of each trainer, so that what else the machine does meets all alike.
Writes data/results/semi_supervised_speed.json and .png.

--whole times whole runs of two epochs, from the start of the program to its end: with the images
read, an evaluation after each epoch and at the end, and the classifier of the labels alone. It
writes data/results/semi_supervised_whole_runs.json.
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from runs import ROOT, write

sys.path.insert(0, str(ROOT / "methods"))
import common  # noqa: F401  (before numpy: it chooses the number of BLAS threads)
import numpy as np
import semi_supervised
from harness import figures
from harness.gaussian import M2
from harness.runfolder import versions

MODES = ("marginal", "gumbel", "straight-through")
CLASSES = (2, 5, 10, 20, 50, 100)
# gumbel / marginal of Jang et al. 2017 (arXiv 1611.01144): convolutional nets, a GPU
PUBLISHED = {10: 2.0, 100: 9.9}


def make_trainer(dataset, mode, classes, batch=100):
    """A run's trainer, but for 100 labelled images of random classes."""
    data, (labelled, _), _ = semi_supervised.load(dataset, 10, seed=0)
    labels = np.random.default_rng(0).integers(classes, size=len(labelled.train))
    args = argparse.Namespace(seed=0, samples=1, lr=1e-4, batch_size=batch, dropout=0.5)
    model = M2(data.train_mean, classes)
    estimate = partial(semi_supervised.estimate, unlabelled=mode)
    return semi_supervised.M2Trainer(
        args, data, (labelled, labels), {}, model, estimate, semi_supervised.init_aux
    )


def measure(dataset, counts=CLASSES, rounds=21):
    """{mode: steps per CPU second for each of `counts`}, from medians of rounds that take turns."""
    trainers = {(mode, k): make_trainer(dataset, mode, k) for k in counts for mode in MODES}
    seconds = {key: [] for key in trainers}
    for _ in range(rounds + 1):
        for key, trainer in trainers.items():
            start = time.process_time()
            trainer.step()
            seconds[key].append(time.process_time() - start)
    median = {key: float(np.median(values[1:])) for key, values in seconds.items()}  # 1 to warm up
    return {mode: [1 / median[mode, k] for k in counts] for mode in MODES}


def whole_runs(dataset, counts, steps):
    """{mode: CPU seconds of a run of so many steps, for each of `counts`}, one run at a time.

    The images of `dataset` get random classes, and 100 of them have a label.
    """
    seconds = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder, np.load(ROOT / "data" / f"{dataset}.npz") as file:
        arrays, rng = dict(file), np.random.default_rng(0)
        for k in counts:
            for key in [key for key in arrays if key.startswith("labels_")]:
                arrays[key] = rng.permutation(np.arange(len(arrays[key])) % k)
            path = Path(folder, f"{k}.npz")
            np.savez(path, **arrays)
            for mode in MODES:
                flags = f"--dataset {path} --labels {100 // k} --unlabelled {mode} --no-plots"
                flags += f" --steps {steps} --out {folder}/{mode}-{k}"
                program = ROOT / "methods" / "semi_supervised.py"
                command = [sys.executable, str(program), *flags.split()]
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, check=True, capture_output=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                seconds[mode].append(round(used, 2))
                print(f"{k:7d} {mode:20}{used:8.1f} s", flush=True)
    return seconds


def plot(path, counts, speed):
    """Steps per second, and how many times those of marginal, against the number of classes."""
    figure, (left, right) = figures.new_figure(2)
    for k, mode in enumerate(MODES):
        figures.draw(left, counts, speed[mode], mode, position=k)
        if mode != "marginal":
            ratio = np.divide(speed[mode], speed["marginal"])
            figures.draw(right, counts, ratio, mode, position=k)
    published = right.plot(*zip(*PUBLISHED.items()), "k*", markersize=9, zorder=3, linestyle="none")
    for axis, y_label in ((left, "steps per CPU second"), (right, "times as fast as marginal")):
        axis.set(xlabel="classes K", ylabel=y_label, xscale="log", yscale="log")
        axis.set_xticks(counts, counts)
        axis.xaxis.set_minor_formatter("")
        axis.yaxis.set_minor_formatter("")
        axis.yaxis.set_major_formatter("{x:g}")
    left.set_yticks([5, 10, 20, 50, 100])
    right.set_yticks([1, 2, 4, 8, 16])
    figures.label_curves(left)
    figures.label_curves(right, right.get_lines()[:-1])
    text = "gumbel of Jang et al.,\nconvolutional nets, GPU"
    right.legend(published, [text], loc="lower right", frameon=False, fontsize=8.5)
    figures.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "digits"))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--whole", action="store_true", help="whole runs")
    args = parser.parse_args()
    command = f"python tests/benchmarks/semi_supervised_speed.py --dataset {args.dataset}"
    known = {"command": command, "machine": machine(), "versions": versions()}
    if args.whole:
        counts, steps = (10, 20, 50, 100), 2 * 499
        known["command"] += " --whole"
        content = known | {"classes": counts, "steps": steps}
        return write(
            "semi_supervised_whole_runs", content | whole_runs(args.dataset, counts, steps)
        )
    speed = measure(args.dataset, rounds=args.rounds)
    ratios = {f"{mode} / marginal": [a / b for a, b in zip(speed[mode], speed["marginal"])]
              for mode in MODES[1:]}  # fmt: skip
    print("classes " + "".join(f"{name:>30}" for name in [*speed, *ratios]))
    for k, *values in zip(CLASSES, *speed.values(), *ratios.values()):
        print(f"{k:7d} " + "".join(f"{value:30.2f}" for value in values))
    content = known | {"rounds": args.rounds, "classes": CLASSES} | speed | ratios
    write("semi_supervised_speed", content)
    plot(ROOT / "data" / "results" / "semi_supervised_speed.png", CLASSES, speed)


def machine():
    """The processor's name, as Linux gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
