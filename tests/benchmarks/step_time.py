"""Time of one training step of each method, beside the bare matrix products of the step.

    .venv/bin/python tests/benchmarks/step_time.py

A step is what training does: batch, noise, gradients, both Adams, and the moving averages of the
gradient variance for the log ("without log" leaves those out); 784 pixels, 200 units, batch 24,
float32, one BLAS thread. The floor times nothing but the matrix
products of the step's formulas, each once, on arrays of the right size: forward at every point
where f is evaluated, and backward to whatever has to be learned; for REBAR both at z and at z̃,
though the code needs but one of them. Bursts of each are interleaved,
so that ratios hold while the speed of the machine drifts; medians are shown.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "methods"))
import common
import numpy as np
import rebar
import reinforce
import training

PIXELS, UNITS, BATCH = 784, 200, 24
METHODS = {
    "REINFORCE": (reinforce.estimate, reinforce.init_aux),
    "REBAR, fixed": (
        partial(rebar.estimate, adapt="none"),
        partial(rebar.init_aux, adapt="none"),
    ),
    "REBAR, adaptive": (rebar.estimate, rebar.init_aux),
}


def make_trainer(method, layers, log):
    rng = np.random.default_rng(0)
    bits = (rng.random((20 * BATCH, PIXELS)) < 0.2).astype(np.uint8)
    data = common.Dataset("random", bits, bits[:1], bits[:1], levels=1, shape=(28, 28))
    args = SimpleNamespace(seed=0, lr=3e-4, batch_size=BATCH, samples=1)
    model = common.SBN(data.train_mean, UNITS, layers)
    trainer = training.Trainer(args, data, model, *METHODS[method])
    if not log:
        trainer.variance = SimpleNamespace(update=lambda gradient: (0.0, 0.0))
    return trainer


def matrix_products(method, layers):
    """A function that makes the step's products h @ W, h.T @ g and g @ W.T, and nothing else.

    Only REINFORCE and fixed REBAR have a floor; the adaptive step differentiates the fixed one.
    """
    rng = np.random.default_rng(0)

    def net(n, m):
        arrays = [rng.standard_normal(s, np.float32) for s in ((BATCH, n), (n, m), (BATCH, m))]
        return arrays, rng.standard_normal((m, n), np.float32).T  # g @ W.T reads W as it lies

    q = [net(PIXELS if layer == 0 else UNITS, UNITS) for layer in range(layers)]
    p = [net(UNITS, PIXELS if layer == 0 else UNITS) for layer in range(layers)]
    forward = lambda nets: [(h, W) for (h, W, _), _ in nets]
    weights = lambda nets: [(h.T, g) for (h, _, g), _ in nets]
    inputs = lambda nets: [(g, W.T) for (_, W, g), _ in nets]
    products = forward(q) + forward(p) + weights(q) + weights(p)  # f(b): bits stop the gradient
    if method == "REBAR, fixed":
        for first in range(layers):  # f(σ(z)) and f(σ(z̃)), relaxed from the layer `first` up
            above = q[first + 1 :]
            sweep = forward(above) + forward(p) + inputs(above) + inputs(p)
            products += 2 * (sweep + weights(above) + weights(p))

    def run():
        for left, right in products:
            left @ right

    return run


def burst(call, n):
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return np.median(times)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="bursts of 20 steps; default: 15")
    repeats = parser.parse_args(argv).repeats
    calls = {}
    for layers in (1, 2):
        for method in METHODS:
            calls["step", method, layers] = make_trainer(method, layers, log=True).step
            calls["bare", method, layers] = make_trainer(method, layers, log=False).step
            if method != "REBAR, adaptive":
                calls["floor", method, layers] = matrix_products(method, layers)
    times = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            call()
            times[key].append(burst(call, 20))
    ms = {key: 1e3 * np.median(values) for key, values in times.items()}
    print("layers  method           ms/step  without log  floor ms  step/floor  without log/floor")
    for layers in (1, 2):
        for method in METHODS:
            step, bare = ms["step", method, layers], ms["bare", method, layers]
            floor = ms.get(("floor", method, layers))
            ratios = f"{floor:10.2f}{step / floor:12.1f}{bare / floor:19.1f}" if floor else ""
            print(f"{layers:6}  {method:16}{step:8.2f}{bare:13.2f}{ratios}")
        ratio = ms["step", "REBAR, adaptive", layers] / ms["step", "REBAR, fixed", layers]
        print(f"{layers:6}  adaptive / fixed {ratio:.2f}")


if __name__ == "__main__":
    main()
