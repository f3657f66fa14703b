"""How far from the exact gradient for the classifier are the estimators of semi_supervised.py?

    .venv/bin/python data/download.py all
    .venv/bin/python tests/benchmarks/semi_supervised_gradients.py

Trains M2 for 1,000 steps by its exact gradient. Then, on 1,000 unlabelled images, every estimator
of the gradient g of E_{q(y|x)}[f(y)] is drawn many times: its bias, relative to the norm of g; the
cosine of its mean and g, both corrected for the noise left in that mean; and the noise of one draw,
its root mean square distance from the mean relative to the norm of g. Writes
data/results/semi_supervised_gradients.json.
"""

import argparse
import json
import sys
from pathlib import Path

from runs import ROOT, train_all, write

sys.path.insert(0, str(ROOT / "methods"))
import autograd.numpy as np
import common
import semi_supervised
from harness.gaussian import M2
from harness.optimizer import flatten

COMMAND = "methods/semi_supervised.py --dataset mnist --steps 1000 --alpha 1 --no-plots"
SETTINGS = [("gumbel", T, 1) for T in (1.0, 0.5, 0.1)]
SETTINGS += [("straight-through", T, 1) for T in (1.0, 0.5)] + [("reinforce", 1.0, 2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    (folder,) = train_all({"semi_supervised_gradients": COMMAND}, args.runs).values()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    flags = config["flags"]
    data, *_ = semi_supervised.load(flags["dataset"], flags["labels"], flags["seed"])
    model = M2(data.train_mean, 10, flags["z"], flags["hidden"], flags["depth"])
    rng = np.random.default_rng(0)
    flat, params = flatten(model.init(rng), model.dtype)
    with np.load(folder / "checkpoint.npz", allow_pickle=False) as file:
        flat[...] = file["params"]
    x = data.batch(rng.integers(len(data.train), size=1000), rng)
    _, eps = model.draw_noise(rng, len(x))
    classifier, rest = params[: model.n_classifier], params[model.n_classifier :]

    def gradient(unlabelled, u, temperature):
        def objective(classifier):
            both = [*classifier, *rest]
            f = lambda y: model.bound(both, x, y, eps)
            log_q = model.classify(both, x)
            values = semi_supervised.UNLABELLED[unlabelled](f, log_q, u, temperature)
            return [np.sum(values) / len(x)], []

        (grads,), _ = common.gradients(objective, classifier)
        return flatten(grads, np.float64)[0]

    g, rows = gradient("marginal", None, None), []
    for unlabelled, temperature, samples in SETTINGS:
        model.samples = samples
        draws = [gradient(unlabelled, model.draw_noise(rng, len(x))[0], temperature)
                 for _ in range(args.draws)]  # fmt: skip
        mean, norm = np.mean(draws, axis=0), np.linalg.norm(g)
        variance = np.sum(np.var(draws, axis=0, ddof=1))  # of one draw, over all parameters
        squared = lambda vector: max(vector @ vector - variance / args.draws, 0.0)
        row = {"unlabelled": unlabelled, "temperature": temperature, "samples": samples,
               "bias": round(float(np.sqrt(squared(mean - g)) / norm), 3),
               "cosine": round(float(mean @ g / norm / np.sqrt(squared(mean))), 3),
               "noise": round(float(np.sqrt(variance) / norm), 3)}  # fmt: skip
        rows.append(row)
        print(row)
    content = {
        "command": "python tests/benchmarks/semi_supervised_gradients.py",
        "model": f"python {COMMAND}", "draws": args.draws, "versions": config["versions"],
    }  # fmt: skip
    write("semi_supervised_gradients", content | {"rows": rows})


if __name__ == "__main__":
    main()
