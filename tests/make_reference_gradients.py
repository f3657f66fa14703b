"""Write data/reference_gradients.npz: every estimator's rows on given noise, for other languages.

    python tests/make_reference_gradients.py

data/README.md says what is in it and how to read it.
"""

import importlib
import itertools
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "methods"))

import common  # before numpy: it chooses the number of BLAS threads
import muprop
from check import PAPERS
from harness.against import parse

import autograd.numpy as np

PATH = ROOT / "data" / "reference_gradients.npz"
ROWS, BITS, SAMPLES, VARIABLES, CLASSES = 30, 4, 3, 2, 3

# t_i = w_i b_i, or Σ_c w_ic b_ic for classes, and s = Σ_i t_i
F = {
    "quadratic": lambda t: (np.sum(t, axis=-1) - 0.45) ** 2,
    "product": lambda t: np.prod(t + 1.3, axis=-1),
    "exp": lambda t: np.exp(np.sum(t, axis=-1)),
}
OF_BITS = {"": [
    "reinforce", "nvil:baseline=0.4", "muprop:s0=0.7,s1=0.9,baseline=0.1", "muprop:simple,s0=0.7",
    "disarm", "disarm:estimator=arm", "concrete:temperature=0.5",
    "concrete:temperature=0.5,straight_through", "reinmax", "reinmax:estimator=st",
    "reinmax:estimator=st-gumbel,temperature=0.5", "rebar:temperature=0.5,eta=0.8,baseline=0.1",
    "rebar:temperature=0.5,eta=0.8,conditional=independent",
    "rebar:temperature=0.5,eta=0.8,relaxation=concrete", "relax:temperature=0.5,eta=0.8,rho=net",
    "relax:black_box,rho=net",
], "many_": [
    "rloo", "vimco", "vimco:mean=arithmetic", "disarm:bound", "disarm:estimator=arms",
    "rodeo:estimator=double-cv,alpha=0.3", "rodeo:alpha=0.3,beta=0.2,rho=net",
]}  # fmt: skip
OF_CLASSES = {"": [
    "gumbel_softmax:estimator=reinforce", "gumbel_softmax:temperature=0.5",
    "gumbel_softmax:temperature=0.5,straight_through", "gumbel_softmax:estimator=st",
    "gumbel_softmax:estimator=reinmax", "gumbel_softmax:estimator=rebar,temperature=0.5,eta=0.8",
], "many_": ["unordered", "unordered:estimator=sum-and-sample"]}  # fmt: skip
OWN = {  # what a method learns itself
    "nvil": ("baseline",), "muprop": ("s0", "s1", "baseline"), "rebar": ("temperature", "eta"),
    "relax": ("temperature", "eta", "rho"), "rodeo": ("alpha", "beta", "rho"),
    "gumbel_softmax": ("temperature", "eta"),
}  # fmt: skip


def inputs():
    """Logits, weights and noise, and the networks of RELAX and RODEO."""
    rng = np.random.default_rng(2017)
    bits, classes = (BITS,), (VARIABLES, CLASSES)
    arrays = {}
    for kind, shape in (("bits", bits), ("classes", classes)):
        arrays[f"{kind}/logits"] = np.round(rng.uniform(-2, 2, shape), 2)
        arrays[f"{kind}/w"] = np.round(rng.uniform(-1, 1, shape), 2)
        arrays |= {f"{kind}/{name}": rng.random((ROWS, *shape)) for name in ("u", "v")}
        many = (ROWS, SAMPLES, *shape)
        arrays |= {f"{kind}/many_{name}": rng.random(many) for name in ("u", "v")}
    for name, sizes in (("relax", (BITS, 3, 1)), ("rodeo", (2, 3, 2))):
        for i, (n, m) in enumerate(itertools.pairwise(sizes), 1):
            arrays[f"{name}/W{i}"] = np.round(rng.standard_normal((n, m)), 2)
            arrays[f"{name}/b{i}"] = np.round(rng.standard_normal(m), 2)
    return arrays


def network(arrays, name):
    return [arrays[f"{name}/{part}"] for part in ("W1", "b1", "W2", "b2")]


def function(arrays, kind, name):
    """f of bits (…, D), or of one-hots (…, D, C), to (…)."""
    w = arrays[f"{kind}/w"]
    return lambda b: F[name](b * w if kind == "bits" else np.sum(b * w, axis=-1))


def squared_signal(name, f, logits, u, options):
    """What NVIL and MuProp minimise: the mean of (f(b) − what they subtract)² over the rows."""
    simple = options.get("simple", False)
    s0, s1 = options.get("s0", 0 if name == "nvil" else 1), options.get("s1", 1)
    model, x = common.Toy(f, len(logits)), np.zeros((len(u), 0))
    b = common.hard_sample(np.tile(logits, (len(u), 1)), u)
    f_mf, (mu,), (D,) = muprop.mean_field(model, [np.tile(logits, (len(u), 1))], x, simple)
    linear = np.sum(D * (b - mu), axis=1)
    use = 0 if simple or name == "nvil" else s1
    return np.mean((f(b) - s0 * f_mf - use * linear - options.get("baseline", 0)) ** 2)


def objective(key, f, arrays, kind, many):
    """(the objective as a function of own parameters by name, their values)."""
    name, options = parse(key, PAPERS)
    if options.get("rho") == "net":
        options["rho"] = network(arrays, name)
    noise = [arrays[f"{kind}/{many}{x}"] for x in ("u", "v")]
    samples, logits = importlib.import_module(name).gradient_samples, arrays[f"{kind}/logits"]
    rows = partial(samples, f, logits, *noise)
    own = {p: options[p] for p in OWN.get(name, ()) if p in options}

    def value(**changed):
        if name in ("nvil", "muprop"):
            return squared_signal(name, f, logits, noise[0], options | changed)
        g = rows(**options | changed)
        return np.sum(g**2) / len(g)

    return rows(**options), value, own


def derivative(value, x, h=1e-5):
    """d value / dx of an array x, elementwise, by four values around it; to about 1e-9."""
    x = np.asarray(x, float)
    slope = np.zeros(x.size)
    for i, unit in enumerate(np.eye(x.size)):
        at = lambda step, unit=unit: value(x + step * unit.reshape(x.shape))
        slope[i] = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    return slope.reshape(x.shape)


def make():
    """All arrays of the file, by name."""
    arrays = inputs()
    every = [("bits", OF_BITS), ("classes", OF_CLASSES)]
    for (kind, methods), f_name in itertools.product(every, F):
        f = function(arrays, kind, f_name)
        for many, key in [(many, key) for many, keys in methods.items() for key in keys]:
            rows, value, own = objective(key, f, arrays, kind, many)
            arrays[f"{kind}/{many}{f_name}/{key}"] = rows
            for p, x in own.items():
                where = f"{kind}/{many}{f_name}/{key}/d_{p}"
                if p != "rho":
                    arrays[where] = derivative(lambda x, p=p, value=value: value(**{p: x}), x)
                    continue
                for i, part in enumerate(("W1", "b1", "W2", "b2")):
                    changed = lambda t, i=i, x=x: [t if j == i else x[j] for j in range(4)]
                    of_part = lambda t, value=value, changed=changed: value(rho=changed(t))
                    arrays[f"{where}/{part}"] = derivative(of_part, x[i])
    return arrays


def main():
    arrays = make()
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH}: {len(arrays)} arrays, {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
