"""The map: bias against variance of every estimator, on two small trained models.

    .venv/bin/python tests/benchmarks/map.py        # 15 minutes; data/results/map.json and map.png

Bits: compare.py trains a sigmoid belief network of 8 bits on digits, and with it what each
estimator learns of its own. Classes: gumbel_softmax.py trains 3 variables of 4 classes by REBAR.
Then the parameters stay. On 20 validation images every estimator draws the gradient for the
parameters of q many times, and enumeration (256 and 64 values an image) gives the exact one, g.

bias: |E − g| / |g|, without the noise left in the mean E of the draws, whose size is `floor`.
variance: the sum over parameters, / |g|², times the evaluations of f per image.
"""

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from runs import ROOT, train_all, write

sys.path.insert(0, str(ROOT / "methods"))

import compare
import concrete
import gumbel_softmax
import reinmax
import unordered
from common import gradients
from harness import figures
from harness.data import load_dataset
from harness.diagnostics import exact_model_gradient
from harness.models import SBN, CategoricalNet
from harness.optimizer import flatten

import autograd.numpy as np
from categorical import log_prob

IMAGES, SAMPLES = 20, 2
COMMANDS = {
    "map-bits": "methods/compare.py --hidden 8 --samples 2 --steps 1000 --follow REBAR --no-plots",
    "map-classes": "methods/gumbel_softmax.py --estimator rebar --variables 3 --classes 4"
    " --hidden 32 --steps 1000 --lr 3e-3 --no-plots",
}
COLD, USUAL = (0.1, 0.25, 0.5, 1.0, 2.0), (0.7, 1.0, 1.3, 2.0)
HARD = {"ST": ("st", USUAL), "ST-Gumbel": ("st-gumbel", COLD[1:]),
        "Gumbel-Rao": ("gumbel-rao", COLD[1:]), "ReinMax": ("reinmax", USUAL)}  # fmt: skip


def checkpoint(folder):
    with np.load(folder / "checkpoint.npz", allow_pickle=False) as file:
        return file["params"].astype(float), file["aux"].astype(float)


def measure(name, draw, exact, draws, evaluations, **more):
    """A row of the map; `draw(rng)` gives the gradients for the tensors of q."""
    rng = np.random.default_rng(0)
    total = square = 0.0
    for _ in range(draws):
        g, _ = flatten(draw(rng), np.float64)
        total, square = total + g, square + g @ g
    mean, norm = total / draws, np.linalg.norm(exact)
    variance = (square - draws * (mean @ mean)) / (draws - 1)
    bias = max((mean - exact) @ (mean - exact) - variance / draws, 0.0) ** 0.5
    floor = (variance / draws) ** 0.5
    row = {"estimator": name, **more, "bias": bias / norm, "floor": floor / norm,
           "variance": variance / norm**2 * evaluations, "evaluations": evaluations}  # fmt: skip
    print(*(f"{x:.4g}" if isinstance(x, float) else x for x in row.values()), flush=True)
    return row


def bits(folder, draws):
    """The rows of the model of bits."""
    data = load_dataset("digits")  # static bits, as in the run
    model = SBN(data.train_mean, 8, 1, dtype=np.float64)
    x = data.valid[:IMAGES].astype(float)
    flat, aux_flat = checkpoint(folder)
    params = flatten(model.init(np.random.default_rng(0)), float)[1]
    names = [*compare.METHODS]
    first, options = compare.settings(SimpleNamespace(
        samples=SAMPLES, temperature=None, relaxation=None, conditional="coupled",
        control_variate="per-layer", as_released=False,
    ))  # fmt: skip
    rng = np.random.default_rng(0)
    whole = flatten(compare.init_aux(rng, model, methods=names, options=first), float)
    params[0].base[...], whole[0][...] = flat, aux_flat
    own, aux = whole[1][4 + len(names) :], {}
    for name, length in zip(names, whole[1][0][1:].astype(int)):
        aux[name], own = own[:length], own[length:]
    of_q = [name.startswith("q") for name in model.names]
    chosen = lambda grads: list(itertools.compress(grads, of_q))
    exact, _ = flatten(chosen(exact_model_gradient(model, params, x)), float)

    def draw(estimate, aux, samples, rng):
        rows = np.repeat(x, samples, axis=0)
        return chosen(estimate(model, params, aux, rows, model.draw_noise(rng, len(rows)))[1])

    one = lambda name: 1 if name not in {"DisARM", *compare.TOGETHER} else SAMPLES
    for name in names:
        if name not in compare.BIASED | compare.OTHER_OBJECTIVE:
            estimate = partial(compare.METHODS[name][0], **options.get(name, {}))
            yield measure(name, partial(draw, estimate, aux[name], one(name)), exact, draws,
                          compare.evaluations(name, 1, one(name)), unbiased=True)  # fmt: skip
    for T in COLD:
        of_T = partial(draw, partial(concrete.estimate, temperature=T), aux["Concrete"], 1)
        yield measure("Concrete", of_T, exact, draws, 1, T=T, unbiased=False)
    for name, (estimator, temperatures) in HARD.items():
        for T in temperatures:
            of_T = partial(reinmax.estimate, estimator=estimator, temperature=T)
            yield measure(name, partial(draw, of_T, [], 1), exact, draws, 1, T=T, unbiased=False)


def classes(folder, draws):
    """The rows of the model of classes."""
    data = load_dataset("digits")  # static bits, as in the run
    model = CategoricalNet(data.train_mean, 3, 4, 1, [32], dtype=np.float64)
    x = data.valid[:IMAGES].astype(float)
    flat, aux_flat = checkpoint(folder)
    rng = np.random.default_rng(0)
    params, aux = (flatten(arrays, float)[1] for arrays in
                   (model.init(rng), gumbel_softmax.init_rebar(rng, model)))  # fmt: skip
    params[0].base[...], aux[0].base[...] = flat, aux_flat
    of_q = [name.startswith("q") for name in model.names]
    chosen = lambda grads: list(itertools.compress(grads, of_q))
    values = np.eye(4)[list(itertools.product(range(4), repeat=3))][:, None]  # (64, 1, N, K)

    def expected(params):
        b, a = model.infer(params, x, lambda layer, a: values + 0 * x[:, :1, None])
        q = np.exp(log_prob(b[0], a[0]))
        return [np.sum(q * model.bound(params, x, b, a)) / len(x)], []

    exact, _ = flatten(chosen(gradients(expected, params)[0][0]), float)

    def draw(estimate, samples, rng):
        rows = np.repeat(x, samples, axis=0)
        return chosen(estimate(model, params, rows, model.draw_noise(rng, len(rows))))

    reinforce = lambda *args: gumbel_softmax.reinforce(*args[:2], [], *args[2:])[1]
    rebar = lambda *args: gumbel_softmax.adaptive_rebar(*args[:2], aux, *args[2:])[1]
    yield measure("REINFORCE", partial(draw, reinforce, 1), exact, draws, 1, unbiased=True)
    yield measure("REBAR", partial(draw, rebar, 1), exact, draws, 2, unbiased=True)
    for name in unordered.ESTIMATORS:
        for k in (2, 4, 8):
            one = lambda *args, k=k, name=name: unordered.estimate(
                *args[:2], [], *args[2:], estimator=name, samples=k
            )[1]
            yield measure(f"{name}, k = {k}", partial(draw, one, k), exact, draws, k, unbiased=True)
    for name, (estimator, temperatures) in {"Gumbel-Softmax": (None, COLD), **HARD}.items():
        for T in temperatures:
            hard = reinmax.hard(estimator) if estimator else None
            one = lambda *args, T=T, hard=hard: gumbel_softmax.gumbel_softmax(
                *args, np.log(T), hard=hard
            )[2]
            yield measure(name, partial(draw, one, 1), exact, draws, 1, T=T, unbiased=False)


def spread(heights, gap):
    """The heights, moved apart to at least `gap`, in their order and about where they were."""
    order, placed = np.argsort(heights), []
    for k in order:
        placed.append(heights[k] if not placed else max(heights[k], placed[-1] + gap))
    shift = np.mean(np.array(placed) - np.sort(heights))
    found = np.empty(len(heights))
    found[order] = np.array(placed) - shift
    return found


def panel(axis, rows, title):
    """One map: on the left edge the unbiased ones, then those of every T, joined."""
    unbiased = [row for row in rows if row["unbiased"]]
    biased = [row for row in rows if not row["unbiased"]]
    left = min(max(row["bias"], row["floor"]) for row in biased) / 5
    heights = np.log10([row["variance"] for row in unbiased])
    every = np.log10([row["variance"] for row in rows])
    places = spread(heights, 0.04 * (every.max() - every.min()))
    for k, (row, place) in enumerate(zip(unbiased, places)):
        look = figures.style(row["estimator"], k)
        axis.plot(left, row["variance"], look["marker"], color=look["color"], ms=7, clip_on=False,
                  mec="white", mew=0.6, zorder=3)  # fmt: skip
        axis.annotate(row["estimator"], (left, row["variance"]), (left * 1.35, 10**place),
                      fontsize=8.5, va="center", arrowprops={"arrowstyle": "-", "lw": 0.5,
                                                             "color": "0.6"})  # fmt: skip
    for k, name in enumerate(dict.fromkeys(row["estimator"] for row in biased)):
        of_name = [row for row in biased if row["estimator"] == name]
        look = figures.style(name, k)
        bias = [max(row["bias"], row["floor"]) for row in of_name]
        axis.plot(
            bias, [row["variance"] for row in of_name], lw=1.4, ms=8, mec="white", mew=0.6, **look
        )
        for row, b in zip(of_name, bias):
            last = row is of_name[-1 if name == "ReinMax" else 0]  # here there is room for the name
            below = last and name == "Gumbel-Rao"
            axis.annotate(
                f"{name}, T = {row['T']:g}" if last else f"{row['T']:g}", (b, row["variance"]),
                (-4, -13) if below else (5, 4), textcoords="offset points",
                ha="right" if below else "left", fontsize=8 if last else 6.5, color=look["color"],
            )  # fmt: skip
    axis.axvline(left * 3.3, color="0.85", lw=0.8)
    axis.set(xscale="log", yscale="log", title=title, ylabel="variance × evaluations of f, / |g|²",
             xlabel="bias / |g|", xlim=(left * 0.8, None))  # fmt: skip
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1.0) if t > left * 3.3]
    axis.set_xticks([left, *ticks], ["0", *(f"{t:g}" for t in ticks)])
    axis.minorticks_off()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--draws", type=int, default=10_000)
    args = parser.parse_args()
    folders = train_all(COMMANDS, args.runs)
    found = {
        "bits": [*bits(folders["map-bits"], args.draws)],
        "classes": [*classes(folders["map-classes"], args.draws)],
    }
    write("map", {"commands": COMMANDS, "draws": args.draws, "images": IMAGES, **found})
    draw(found)


def draw(found):
    figure, axes = figures.new_figure(2, 6.4, 5.2)
    panel(axes[0], found["bits"], "8 bits")
    panel(axes[1], found["classes"], "3 variables of 4 classes")
    figures.save(figure, ROOT / "data" / "results" / "map.png")


if __name__ == "__main__":
    main()
