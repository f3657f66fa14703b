"""How far from the exact gradient for the classifier are the estimators of semi_supervised.py?

    .venv/bin/python data/download.py all
    .venv/bin/python tests/benchmarks/semi_supervised_gradients.py

On 1,000 unlabelled images, every estimator of the gradient g of E_{q(y|x)}[f(y)] is drawn many
times: its bias, relative to the norm of g; the cosine of its mean and g, both corrected for the
noise left in that mean; and the noise of one draw, its root mean square distance from the mean
relative to the norm of g. This is done

* on a model that was trained by the exact gradient, for several temperatures;
* along the training by each estimator itself, with α = 1 and with its default, after each of STEPS
  steps. "labels" is then the norm of the gradient of α log q(y|x) of the labelled images,
  relative to that of g.

Writes data/results/semi_supervised_gradients.json and .png.
"""

import argparse
import importlib.util
import sys
from argparse import Namespace
from functools import partial

from runs import ROOT, save, write

sys.path.insert(0, str(ROOT / "methods"))
import autograd.numpy as np
import common
import semi_supervised
from harness import figures
from harness.gaussian import M2
from harness.optimizer import flatten
from harness.runfolder import versions
from harness.streams import LABELLED, stream

STEPS = (100, 300, 1000, 3000, 8000)
SETTINGS = [("gumbel", T, 1) for T in (1.0, 0.5, 0.1)]
SETTINGS += [("straight-through", T, 1) for T in (1.0, 0.5)]
SETTINGS += [("reinmax", 1.0, 1), ("reinforce", 1.0, 2), ("unordered", 1.0, 2)]
OWN = {"gumbel": 1, "straight-through": 1, "reinmax": 1, "reinforce": 2}  # samples


def make_trainer(args, unlabelled, samples, alpha):
    """The trainer that semi_supervised.py has with these flags."""
    data, labelled, judged = semi_supervised.load(args.dataset, args.labels, seed=0)
    model = M2(data.train_mean, samples=samples)
    relaxed = unlabelled in ("gumbel", "straight-through")
    estimate = partial(semi_supervised.estimate, unlabelled=unlabelled, alpha=alpha,
                       anneal_rate=3e-5 if relaxed else 0.0)  # fmt: skip
    flags = Namespace(seed=0, samples=samples, lr=2e-3, batch_size=100, dropout=0.5,
                      compile=args.compile)  # fmt: skip
    return semi_supervised.M2Trainer(flags, data, labelled, judged, model, estimate,
                                     semi_supervised.init_aux, adam={"beta2": 0.999})  # fmt: skip


def advance(trainer, step):
    """Train up to `step`."""
    while trainer.step_count < step:
        trainer.step(step - trainer.step_count)
    trainer.sync()


class Gradients:
    """Gradients for the classifier on the same images at the present parameters of a trainer."""

    def __init__(self, trainer, images=1000):
        self.trainer, self.model, self.rng = trainer, trainer.model, np.random.default_rng(0)
        rows = self.rng.integers(len(trainer.data.train), size=images)
        self.x = trainer.data.batch(rows, self.rng)
        self.eps = self.model.draw_noise(self.rng, images)[1]
        n = self.model.n_classifier
        self.classifier, self.rest = trainer.params[:n], trainer.params[n:]

    def of(self, mean_of):
        """The gradient of a scalar function of all parameters, flat, for the classifier's."""
        f = lambda classifier: ([mean_of([*classifier, *self.rest])], [])
        (grads,), _ = common.gradients(f, self.classifier)
        return flatten(grads, np.float64)[0]

    def unlabelled(self, name, u, temperature):
        def mean_of(params):
            f = lambda y: self.model.bound(params, self.x, y, self.eps)
            log_q = self.model.classify(params, self.x)
            values = semi_supervised.UNLABELLED[name](f, log_q, u, temperature)
            return np.sum(values) / len(self.x)

        return self.of(mean_of)

    def labelled(self):
        """Of the mean of log q(y|x) over a batch of labelled images."""
        args, rng = self.trainer.args, stream(0, LABELLED, 0)
        x, y, *_ = semi_supervised.labelled_batch(self.trainer.labelled, self.model, rng, args)
        return self.of(lambda params: np.sum(y * self.model.classify(params, x)) / len(x))

    def exact(self):
        """g"""
        return self.unlabelled("marginal", None, None)

    def compare(self, name, temperature, samples, draws):
        """A dict: bias, cosine and noise of an estimator."""
        g, self.model.samples = self.exact(), samples
        noise = lambda: self.model.draw_noise(self.rng, len(self.x))[0]
        drawn = [self.unlabelled(name, noise(), temperature) for _ in range(draws)]
        mean, norm = np.mean(drawn, axis=0), np.linalg.norm(g)
        variance = np.sum(np.var(drawn, axis=0, ddof=1))  # of one draw, over all parameters
        squared = lambda vector: max(vector @ vector - variance / draws, 0.0)
        return {"bias": round(float(np.sqrt(squared(mean - g)) / norm), 3),
                "cosine": round(float(mean @ g / norm / max(np.sqrt(squared(mean)), 1e-12)), 3),
                "noise": round(float(np.sqrt(variance) / norm), 3)}  # fmt: skip


def along(args, unlabelled, alpha):
    """The rows of one training run, one for each of args.steps."""
    trainer = make_trainer(args, unlabelled, OWN[unlabelled], alpha)
    for step in args.steps:
        advance(trainer, step)
        T = float(trainer.aux[1])
        gradients = Gradients(trainer, args.images)
        found = gradients.compare(unlabelled, T, OWN[unlabelled], args.draws)
        labels = alpha * np.linalg.norm(gradients.labelled()) / np.linalg.norm(gradients.exact())
        x, y = trainer.judged["valid"]
        hits = semi_supervised.predict(trainer.model, trainer.params, x) == y
        row = {"unlabelled": unlabelled, "alpha": alpha, "step": step,
               "valid_accuracy": round(float(np.mean(hits)), 4), "temperature": round(T, 3),
               **found, "labels": round(float(labels), 3)}  # fmt: skip
        print(row, flush=True)
        yield row


def plot(path, rows):
    """Accuracy, bias and noise against the step: above with α = 1, below with the default."""
    figure, axes = figures.new_figure(3, 3.8, 2.7, rows=2)
    panels = {"valid_accuracy": "validation accuracy", "bias": "bias / |g|",
              "noise": "noise of a draw / |g|"}  # fmt: skip
    for k, (key, label) in enumerate(panels.items()):
        for line, title in enumerate(("α = 1", "default α")):
            axis = axes[3 * line + k]
            for position, name in enumerate(OWN):
                mine = [row for row in rows if row["unlabelled"] == name]
                first = mine[0]["alpha"]
                mine = [row for row in mine if (row["alpha"] == first) == (line == 0)]
                x, y = ([row[what] for row in mine] for what in ("step", key))
                figures.draw(axis, x, y, name, position=position)
            axis.set(xlabel="step", ylabel=label, xscale="log")
            axis.set_title(title, size=10)
            axis.minorticks_off()
            axis.set_xticks(STEPS, STEPS)
    for k, (above, below) in enumerate(zip(axes[:3], axes[3:])):
        limits = [*above.get_ylim(), *below.get_ylim()]
        for axis in (above, below):
            axis.set_ylim(0 if k else min(limits), max(limits))
            figures.label_curves(axis)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    args = Namespace(dataset="mnist", labels=10, images=1000, steps=STEPS, draws=args.draws,
                     compile=importlib.util.find_spec("jax") is not None)  # fmt: skip
    trainer = make_trainer(args, "marginal", 1, 1.0)
    advance(trainer, 1000)
    gradients, rows = Gradients(trainer), []
    for name, temperature, samples in SETTINGS:
        row = {"unlabelled": name, "temperature": temperature, "samples": samples}
        rows.append(row | gradients.compare(name, temperature, samples, 2 * args.draws))
        print(rows[-1], flush=True)
    default = semi_supervised.ALPHA["mnist"]
    training = [row for name in OWN for alpha in (1.0, default[name])
                for row in along(args, name, alpha)]  # fmt: skip
    content = {"command": "python tests/benchmarks/semi_supervised_gradients.py",
               "model": "semi_supervised.py --dataset mnist, 1,000 steps by marginal, alpha 1",
               "draws": {"rows": 2 * args.draws, "training": args.draws},
               "versions": versions()}  # fmt: skip
    write("semi_supervised_gradients", content | {"rows": rows, "training": training})
    plot(ROOT / "data" / "results" / "semi_supervised_gradients.png", training)


if __name__ == "__main__":
    main()
