"""Speed: a training step beside PyTorch, JAX and its bare matrix products; growth; the toy.

    .venv/bin/python tests/benchmarks/speed.py         # 8 minutes; writes data/results/speed.json

1. A step is what training does without its log: batch, noise, gradients, both Adams. The peers
   (peers.py; left out if not installed) do the same in float32, and their gradients are compared
   with ours on the same noise first. 784 pixels, 200 units, batch 24, REBAR and REINFORCE; DReG
   with two layers of 200 tanh units, 50 latent, K = 64, batch 32. "Compiled" is our step with
   --compile; it contains the moving average of the gradient for the log. Then every other estimator
   for bits, one layer: of K = 2 samples of 12 images where it uses several.
2. The floor is the matrix products that the step cannot do without, each once, on arrays of the
   right size. Beside it, where the rest of the step goes.
3. Growth: time and peak memory of fixed REBAR's step in the batch, the units and the layers.
4. Samples per second of every gradient_samples on the toy, beside one trace for each sample.
5. DVAE# with the published sizes: a step's networks and sampler, and of the sampler the floor: its
   matrix products and uniform random numbers.

Everything on one thread of one core; bursts are interleaved, so that ratios hold while the speed of
the machine drifts. Shown are medians.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import argparse
import importlib.util
import itertools
import sys
import time
import tracemalloc
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import peers
from runs import ROOT, write

sys.path.insert(0, str(ROOT / "methods"))
import concrete
import disarm
import dreg
import dvae_sharp
import gumbel_softmax
import muprop
import nvil
import numpy as np
import rebar
import reinforce
import reinmax
import rbm
import relax
import rloo
import rodeo
import vimco
from harness.compiled import BLOCK
from harness.data import Dataset
from harness.diagnostics import GradientVariance
from harness.gaussian import GaussianVAE, log_normal
from harness.hierarchy import DVAE
from harness.models import SBN
from harness import optimizer
from harness.trainer import Trainer

PIXELS, UNITS, BATCH, LR = 784, 200, 24, 3e-4
DREG = {"K": 64, "batch": 32, "latent": 50}
METHODS = {
    "REINFORCE": (reinforce.estimate, reinforce.init_aux),
    "REBAR, fixed": (
        partial(rebar.estimate, adapt="none"),
        partial(rebar.init_aux, adapt="none"),
    ),
    "REBAR, adaptive": (rebar.estimate, rebar.init_aux),
    "DReG": (dreg.estimate, dreg.init_aux),
}
CASES = [*itertools.product((1, 2), METHODS)]
CASES.remove((1, "DReG"))
OTHERS = {  # without peers; the last of each is K
    "NVIL": (nvil.estimate, nvil.init_aux, 1),
    "MuProp": (muprop.estimate, muprop.init_aux, 1),
    "Concrete": (concrete.estimate, concrete.init_aux, 1),
    "ReinMax": (reinmax.estimate, reinmax.init_aux, 1),
    "DisARM": (disarm.estimate, disarm.init_aux, 1),
    "RELAX": (relax.estimate, relax.init_aux, 1),
    "RLOO": (rloo.estimate, rloo.init_aux, 2),
    "VIMCO": (vimco.estimate, vimco.init_aux, 2),
    "Double CV": (
        partial(rodeo.estimate, estimator="double-cv"),
        partial(rodeo.init_aux, estimator="double-cv"),
        2,
    ),
    "RODEO": (rodeo.estimate, rodeo.init_aux, 2),
}


def burst(call, n):
    """Median seconds of n calls, after one that warms up the caches."""
    call()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def interleaved(calls, repeats, n=20):
    """Median seconds of each of a dict of calls, from `repeats` bursts of each by turns."""
    times = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            times[key].append(burst(call, n if key != "compiled" else max(2, n // BLOCK)))
    return {key: float(np.median(values)) for key, values in times.items()}


# ------------------------------------------------------------------------------ ours, and the floor


def make_trainer(method, layers=1, units=UNITS, batch=BATCH, compiled=False):
    """A Trainer on random bits; without the moving averages of the log, unless it is compiled."""
    rng = np.random.default_rng(0)
    bits = (rng.random((20 * batch, PIXELS)) < 0.2).astype(np.uint8)
    data = Dataset("random", bits, bits[:1], bits[:1], levels=1, shape=(28, 28))
    estimate, init_aux, *K = (METHODS | OTHERS)[method]
    K, adam = K[0] if K else 1, None
    args = SimpleNamespace(seed=0, lr=LR, batch_size=batch // K, samples=K, compile=compiled)
    if method == "DReG":
        args.batch_size, adam = DREG["batch"], {"beta2": 0.999}
        model = GaussianVAE(data.train_mean, DREG["latent"], n_samples=DREG["K"])
    else:
        model = SBN(data.train_mean, units, layers)
    if K > 1:
        estimate = partial(estimate, samples=K)
    trainer = Trainer(args, data, model, estimate, init_aux, adam=adam)
    if not compiled:
        trainer.variance = SimpleNamespace(update=lambda gradient: (0.0, 0.0))
    for tensor in trainer.params:  # else biases are zero, and an error in them might not be seen
        tensor += 0.05 * rng.standard_normal(tensor.shape).astype(np.float32)
    return trainer


def matrix_products(method, layers):
    """A function that makes the products h @ W, h.T @ g and g @ W.T of a step, and nothing else."""
    rng = np.random.default_rng(0)

    def net(rows, n, m):
        arrays = [rng.standard_normal(s, np.float32) for s in ((rows, n), (n, m), (rows, m))]
        return arrays, rng.standard_normal((m, n), np.float32).T  # g @ W.T reads W as it lies

    forward = lambda nets: [(h, W) for (h, W, _), _ in nets]
    weights = lambda nets: [(h.T, g) for (h, _, g), _ in nets]
    inputs = lambda nets: [(g, W.T) for (_, W, g), _ in nets]
    chain = lambda rows, sizes: [net(rows, *pair) for pair in itertools.pairwise(sizes)]
    if method == "DReG":
        q = chain(DREG["batch"], [PIXELS, 200, 200, 2 * DREG["latent"]])
        p = chain(DREG["batch"] * DREG["K"], [DREG["latent"], 200, 200, PIXELS])
        products = [*forward(q), *weights(q), *inputs(q[1:])]
        products += [*forward(p), *weights(p), *inputs(p)]
    else:
        q = [net(BATCH, UNITS if layer else PIXELS, UNITS) for layer in range(layers)]
        p = [net(BATCH, UNITS, UNITS if layer else PIXELS) for layer in range(layers)]
        products = [*forward(q), *forward(p), *weights(q), *weights(p)]  # f(b)
        through = []  # from f at the relaxed bits of every layer down to their logits
        for above in (q[first + 1 :] for first in range(layers)):
            through += [*forward(above), *forward(p), *inputs(p), *inputs(above)]
        if method != "REINFORCE":
            products += through
        if method == "REBAR, adaptive":  # ∇ with and without η; along T; ∇log q along g; C
            C = chain(BATCH, [PIXELS, 100, 1])
            products += [*weights(q), *through, *weights(q)]
            products += [*forward(q), *forward(q), *forward(C), *weights(C), *inputs(C[1:])]

    def run():
        for left, right in products:
            left @ right

    return run


def parts_of_a_step(trainer):
    """What the step consists of, as calls by name."""
    x, noise = trainer.draw()
    estimate = partial(trainer.estimate, trainer.model, trainer.params, trainer.aux)
    _, grads, aux_grads = estimate(x, noise)
    flatten = lambda: [optimizer.flatten(g, np.float32)[0] for g in (grads, aux_grads)]
    gradient, aux_gradient = flatten()
    variance = GradientVariance(gradient.size)
    return {
        "batch, noise": trainer.draw,
        "estimator": lambda: estimate(x, noise),
        "flatten": flatten,
        "Adam": lambda: trainer.ascent.ascend(trainer.flat_params, gradient * 1e-3),
        "Adam of aux": lambda: trainer.descent.ascend(trainer.flat_aux, aux_gradient * 1e-3),
        "variance for the log": lambda: variance.update(gradient),
    }


# ---------------------------------------------------------------------------------------- the peers


def make_peers(method, trainer, x, noise):
    """Yields name, peer, and its largest error of a gradient, relative to its largest element."""
    if method in OTHERS:
        return
    shape = noise[0].shape if method == "DReG" else [np.shape(pair) for pair in noise]
    facts = SimpleNamespace(mean=trainer.model.mean, offset=trainer.model.offset, shapes=shape,
                            images=trainer.data.train, batch=len(x))  # fmt: skip
    aux = trainer.aux if method == "REBAR, adaptive" else []
    installed = lambda name: importlib.util.find_spec(name) is not None
    made = {}
    if installed("torch"):
        made["PyTorch, tuned"] = peers.Torch(method, trainer.params, aux, facts, LR)
        made["PyTorch, plain"] = peers.Torch(method, trainer.params, aux, facts, LR, tuned=False)
        if method != "REBAR, adaptive":  # torch.compile cannot differentiate twice
            made["torch.compile"] = peers.Torch(
                method, trainer.params, aux, facts, LR, compiled=True
            )
    if installed("jax"):
        made["JAX"] = peers.Jax(method, trainer.params, aux, facts, LR)
    _, grads, aux_grads = trainer.estimate(trainer.model, trainer.params, trainer.aux, x, noise)
    ours = grads + (aux_grads if aux else [])
    for name, peer in made.items():
        theirs = itertools.chain(*peer.gradients(x, noise[0] if method == "DReG" else noise))
        errors = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(ours, theirs, strict=True)]
        if max(errors) > 1e-4:
            raise AssertionError(f"{name}, {method}: gradients differ by {max(errors):.1e}")
        yield name, peer, float(max(errors))


def steps(repeats):
    rows = []
    for layers, method in [*CASES, *((1, name) for name in OTHERS)]:
        trainer, errors = make_trainer(method, layers), {}
        calls = {"ours": trainer.step}
        if importlib.util.find_spec("jax"):
            compiled = make_trainer(method, layers, compiled=True)
            compiled.compiled.checks_left = 0
            calls["compiled"] = partial(compiled.step, BLOCK)
        if method in METHODS:
            calls["floor"] = matrix_products(method, layers)
        for name, peer, errors[name] in make_peers(method, trainer, *trainer.draw()):
            calls[name] = peer.step
        n = 5 if method == "DReG" else 20
        ms = {name: 1e3 * s for name, s in interleaved(calls, repeats, n).items()}
        if "compiled" in ms:
            ms["compiled"] /= BLOCK
        shares = interleaved(parts_of_a_step(make_trainer(method, layers)), max(1, repeats // 2), n)
        shares = {name: round(1e3 * seconds, 3) for name, seconds in shares.items()}
        rows.append({"layers": layers, "method": method, "ms": ms, "parts_ms": shares,
                     "gradient_error": errors})  # fmt: skip
        print(f"{layers} {method:16}", *(f"{name} {value:.2f} ms" for name, value in ms.items()),
              *(f"{name} / ours {ms[name] / ms['ours']:.2f}" for name in ms if name != "ours"),
              sep="  ")  # fmt: skip
        print(" " * 19, *(f"{name} {value}" for name, value in shares.items()), sep="  ")
    return rows


# ------------------------------------------------------------------------------ growth, and the toy


def growth(repeats):
    """Time and peak memory of fixed REBAR's step, and their log-log slopes."""
    axes = {"batch": (24, 96, 384, 768), "units": (50, 200, 400, 800), "layers": (1, 2, 3, 4)}
    result = {}
    for axis, values in axes.items():
        trainers = {v: make_trainer("REBAR, fixed", **{axis: v}) for v in values}
        seconds = interleaved({v: t.step for v, t in trainers.items()}, repeats, 5)
        peaks = []
        for trainer in trainers.values():
            tracemalloc.start()
            trainer.step()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        slope = lambda y: round(float(np.polyfit(np.log(values), np.log(y), 1)[0]), 2)
        result[axis] = {"values": values, "ms": [round(1e3 * seconds[v], 2) for v in values],
                        "peak_MB": [round(peak / 1e6, 1) for peak in peaks],
                        "slope_ms": slope([*seconds.values()]),
                        "slope_MB": slope(peaks)}  # fmt: skip
        print(axis, result[axis])
    return result


def toy_samples(repeats, n=2000):
    """Samples per second of the gradient of E[Σ (b_i − .45)²] by D bits, with and without batches.

    One trace for each sample is how the equation reads: grad of the method's surrogate, n times.
    """
    f = lambda b: np.sum((b - 0.45) ** 2, axis=-1)
    rates = {}
    for D in (1, 100):
        rng = np.random.default_rng(0)
        logits, uv = rng.standard_normal(D), np.clip(rng.random((2, n, D)), 1e-6, 1 - 1e-6)
        binary = {"REINFORCE": reinforce, "NVIL": nvil, "MuProp": muprop, "Concrete": concrete,
                  "REBAR": rebar}  # fmt: skip
        calls = {name: partial(m.gradient_samples, f, logits, *uv) for name, m in binary.items()}
        log_joint = lambda z: log_normal(z, np.zeros(D), np.ones(D))
        eps = rng.standard_normal((n, 5, D))
        calls["DReG, K = 5"] = partial(dreg.gradient_samples, log_joint, logits, 0.1 * logits, eps)
        one_hot = np.clip(rng.random((2, n, D, 3)), 1e-6, 1 - 1e-6)
        calls["Gumbel-Softmax, 3 classes"] = partial(
            gumbel_softmax.gradient_samples, lambda h: np.sum(h**2 @ np.arange(3.0), -1),
            rng.standard_normal((D, 3)), *one_hot,
        )  # fmt: skip
        seconds = interleaved(calls, repeats, 3)
        rates[D] = {name: round(n / s) for name, s in seconds.items()}
        few = 50
        singly = {name: lambda m=m: [m.gradient_samples(f, logits, u, v)
                                     for u, v in zip(uv[0, :few, None], uv[1, :few, None])]
                  for name, m in binary.items()}  # fmt: skip
        seconds = interleaved(singly, max(2, repeats // 4), 1)
        rates[f"{D}, one by one"] = {name: round(few / s) for name, s in seconds.items()}
        print(f"D = {D}, samples per second: {rates[D]}")
        print(f"D = {D}, one by one: {rates[f'{D}, one by one']}")
    return rates


# ------------------------------------------------------------------------------------------- DVAE#


def boltzmann(repeats):
    """Milliseconds of DVAE#'s step, batch 100, two groups of 200 bits, 1000 chains, 40 sweeps."""
    rng = np.random.default_rng(0)
    bits = (rng.random((1000, PIXELS)) < 0.2).astype(np.uint8)
    data = Dataset("random", bits, bits[:1], bits[:1], levels=1, shape=(28, 28))
    runs, calls = {}, {}
    for variant, k in itertools.product(dvae_sharp.VARIANTS, (1, 5)):
        beta = dvae_sharp.default_beta("mnist", "2-layer-nonlin", variant)
        args = SimpleNamespace(variant=variant, beta=beta, samples=k, seed=0, steps=1000, lr=3e-3,
                               batch_size=100, chains=1000, sweeps=40, sampler="pa",
                               ais_chains=1024, ais_temperatures=1000)  # fmt: skip
        run = dvae_sharp.Run(args, data, DVAE(data.train_mean, variant=variant))
        run.step()
        calls[f"networks, {variant}, k = {k}"] = partial(
            run.estimate, run.model, run.params, run.aux, *run.draw()
        )
        runs[variant, k] = run
    run = runs["dvaes_power", 1]
    old, z1, z2 = [p.copy() for p in run.rbm], run.chains.z1, run.chains.z2
    new = [p + 1e-3 * rng.standard_normal(p.shape).astype(np.float32) for p in old]
    a, u = np.empty_like(z1), np.empty_like(z1)

    def floor():
        for _ in range(40):
            for z, W in ((z1, old[2]), (z2, old[2].T)):
                np.matmul(z, W, out=a)
                rng.random(out=u, dtype=np.float32)

    calls["step, dvaes_power, k = 1"] = run.step
    calls["sampler"] = partial(rbm.population_annealing, old, new, z1, z2, rng, 40)
    calls["sampler's floor"] = floor
    ms = {
        name: round(1e3 * s, 1) for name, s in interleaved(calls, max(2, repeats // 4), 2).items()
    }
    print("DVAE#:", *(f"{name} {value} ms" for name, value in ms.items()), sep="\n  ")
    return ms


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=12, help="bursts of each; default: 12")
    repeats = parser.parse_args().repeats
    packages = [name for name in ("numpy", "autograd", "torch", "jax")
                if importlib.util.find_spec(name)]  # fmt: skip
    for name in ("torch", "jax"):
        if name not in packages:
            print(f"{name} is not installed: skipped")
    content = {"command": "python tests/benchmarks/speed.py", "repeats": repeats,
               "versions": {name: version(name) for name in packages}}  # fmt: skip
    content |= {"steps": steps(repeats), "growth": growth(repeats), "toy": toy_samples(repeats),
                "dvae_sharp": boltzmann(repeats)}  # fmt: skip
    write("speed", content)


if __name__ == "__main__":
    main()
