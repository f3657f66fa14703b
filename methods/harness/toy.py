"""One bit, fitted by several estimators: the exact variance of each beside the measured one."""

import math

from common import Toy, quadrature, sigmoid

from harness.data import Dataset
from harness.figures import plot_curves
from harness.runfolder import open_run, write_rows
from harness.trainer import Trainer

import autograd.numpy as anp
import numpy as np
from tqdm import tqdm


def train_toy(args, methods):
    """--toy: fit one bit to minimise E[(b − target)²], b ~ Bernoulli(θ), from single samples.

    `methods` maps a label to (estimate, init_aux). Plots θ, the expected loss, and the variance of
    the gradient: its moving average, and exactly, by quadrature, at the parameters of the step.
    """
    folder, t, every = open_run(args), args.target, max(1, args.steps // 60)
    args.batch_size, no_images = 1, np.zeros((1, 0), np.uint8)
    data = Dataset("toy", no_images, no_images, no_images, levels=1, shape=(0, 0))
    rows, exact_curves = [], {}
    panels = {"θ = P(b = 1)": {}, f"E[(b − {t})²]": {}, "log variance of the gradient": {}}
    for label, (estimate, init_aux) in methods.items():
        model = Toy(lambda b: -anp.sum((b - t) ** 2, axis=-1), 1)
        trainer, mine = Trainer(args, data, model, estimate, init_aux), []
        for step in tqdm(range(1, args.steps + 1), desc=label, disable=None):
            trainer.step()
            if step % every == 0:
                u, v, weights = quadrature(trainer.params[0], 60, 10)
                tiled, no_x = [np.tile(trainer.params[0], (len(u), 1))], np.zeros((len(u), 0))
                _, (g,), _ = estimate(model, tiled, trainer.aux, no_x, [(u, v)])
                g = g[:, 0] * len(u)  # the mean over the rows undone: a gradient per node
                exact = max(weights @ g**2 - (weights @ g) ** 2, 1e-300)
                theta = float(sigmoid(trainer.params[0])[0])
                loss = theta * (1 - t) ** 2 + (1 - theta) * t**2
                mine.append({"method": label, "theta": theta, "loss": loss, **trainer.row(),
                             "exact_log_variance": math.log(exact)})  # fmt: skip
        for panel, key in zip(panels, ("theta", "loss", "log_grad_variance")):
            panels[panel][label] = [row[key] for row in mine]
        exact_curves[f"{label}, exact"] = [row["exact_log_variance"] for row in mine]
        rows += mine
        tqdm.write(f"{label:10} θ {theta:.3f}  loss {loss:.4f} (minimum {min(t, 1 - t) ** 2:.4f})"
                   f"  log variance {math.log(exact):.2f}")  # fmt: skip
    panels["log variance of the gradient"] |= exact_curves
    write_rows(folder / "log.csv", rows)
    if not args.no_plots:
        plot_curves(folder / "toy.png", [row["step"] for row in mine], panels)
    tqdm.write(f"run folder {folder}")
