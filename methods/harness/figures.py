"""Figures of runs, and TensorBoard."""

from common import InputError, sigmoid

from harness.streams import PICTURES, stream

import numpy as np
from matplotlib.figure import Figure


LINES = "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))


def plot_curves(path, steps, panels):
    """One panel per y label in `panels`, each a dict of curves over the steps ("" is no value).

    A curve has the same line and colour in every panel.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="tight")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items()):
        for label, values in curves.items():
            points = [(step, y) for step, y in zip(steps, values) if y != ""]
            k = labels.index(label)
            style = {"linestyle": LINES[k % len(LINES)], "color": f"C{k % 10}"}
            axis.plot(*zip(*points), **style, label=label)
        axis.set(xlabel="step", ylabel=y_label)
        if len(curves) > 1:  # above the panel, where it hides no curve
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def pictures(trainer):
    """Grids (height, width) of test images, a reconstruction of each, and new images of the model.

    For task "predict": test images, and two predictions of the lower half of each.
    """
    model, params, shape = trainer.model, trainer.params, trainer.data.shape
    rng, x = stream(trainer.args.seed, PICTURES), trainer.data.test[:36].astype(model.dtype)
    first = model.reconstruct(params, x, rng)
    if model.task == "predict":
        second = model.reconstruct(params, x, rng)
        grids = {"test images": x, "lower half predicted": first, "predicted again": second}
    else:
        samples = model.generate(params, rng, 36)
        grids = {"test images": x, "reconstructed": first, "samples from the model": samples}
    for title, images in grids.items():
        images = np.concatenate([images, np.zeros((36 - len(images), images.shape[1]))])
        tiles = np.pad(images.reshape(6, 6, *shape), [(0, 0), (0, 0), (0, 1), (0, 1)])
        grids[title] = np.hstack(np.hstack(tiles))
    return grids


def plot_samples(path, trainer):
    grids = pictures(trainer)
    figure = Figure(figsize=(3.2 * len(grids), 3.5), layout="tight")
    for axis, (title, grid) in zip(figure.subplots(1, len(grids)), grids.items()):
        axis.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def tensorboard_class():
    """tensorboardX's SummaryWriter; raises InputError if that optional package is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        hint = "pip install tensorboardX, or leave the flag away"
        raise InputError(f"--tensorboard: {error}; {hint}") from None
    return SummaryWriter


def write_tensorboard(writer, trainer, row):
    """The numbers of a row of the log and, with an evaluation, pictures."""
    for key, value in row.items():
        if value != "" and key not in ("step", "seconds"):
            writer.add_scalar(key, value, row["step"])
    if row["test_bound"] != "":
        for title, grid in pictures(trainer).items():
            writer.add_image(title, grid[None], row["step"])
    writer.flush()


def plot_analogies(path, trainer, predict, rows=10):
    """A test image a row, then its z with every class y in turn: style a row, class a column;
    `predict(model, params, x)` gives the class of x."""
    model, params, shape = trainer.model, trainer.params, trainer.data.shape
    x = trainer.data.test[:rows].astype(model.dtype)
    classes = np.eye(model.classes, dtype=model.dtype)
    z, _ = model.encode(params, x, classes[predict(model, params, x)])
    images = sigmoid(model.decode(params, classes[:, None], z))  # (K, rows, pixels)
    tiles = np.concatenate([x[None], images]).reshape(-1, len(x), *shape)
    tiles = np.pad(tiles, [(0, 0), (0, 0), (0, 1), (0, 1)])
    grid = np.hstack([np.vstack(column) for column in tiles])
    figure = Figure(figsize=(6, 6 * grid.shape[0] / grid.shape[1] + 0.6), layout="tight")
    axis, width = figure.subplots(), shape[1] + 1
    axis.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
    axis.set_xticks((np.arange(len(tiles)) + 0.5) * width, ["x", *range(model.classes)])
    axis.set(yticks=[], xlabel="test image, class y", ylabel="style z, that of the test image")
    figure.savefig(path, dpi=110)


def plot_confusion(path, truth, predicted, classes):
    """How many test images of each class, a row each, were taken for which, a column each."""
    counts = np.eye(classes, dtype=int)[truth].T @ np.eye(classes, dtype=int)[predicted]
    axis = (figure := Figure(figsize=(5, 5), layout="tight")).subplots()
    axis.imshow(counts / np.sum(counts, axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        if n:
            axis.text(j, i, n, ha="center", va="center", size=8, color="w" if i == j else "k")
    axis.set(xlabel="predicted class", ylabel="true class")
    figure.savefig(path, dpi=110)
