"""One look for all figures: a colour, line and marker per method; and TensorBoard.

matplotlib is imported where it is used: a run needs it at its end only.
"""

import contextlib
import math
import re
import socket
import time

from common import InputError, sigmoid

from harness.runfolder import naming
from harness.streams import PICTURES, stream

import numpy as np

# Okabe and Ito's colours, which colour-blind readers can tell apart; blue is darker, so that it is
# not the grey of red in print. One colour is one idea; the methods that share it differ in line
# and in marker.
BLACK, BLUE, SKY, GREEN = "#000000", "#004F91", "#56B4E9", "#009E73"
ORANGE, RED, PINK, GREY = "#E69F00", "#D55E00", "#CC79A7", "#777777"
DENSE, LONG = (0, (3, 1)), (0, (7, 2))  # two more dashes
STYLES = {
    # the score function, with ever better baselines
    "REINFORCE": (BLACK, "-", "o"), "RLOO": (BLACK, "--", "s"),
    "NVIL": (BLUE, "-", "s"), "VIMCO": (BLUE, "--", "o"), "DisARM": (SKY, "-", "D"),
    "LocalDisARM": (SKY, ":", "o"),
    # the mean field as a control variate
    "MuProp": (GREEN, "-", "^"), "SimpleMuProp": (GREEN, "--", "v"),
    # relaxations and other biased gradients
    "Concrete": (ORANGE, "-", "X"), "straight-through": (ORANGE, "--", "P"),
    "ReinMax": (ORANGE, ":", "*"), "ST": (ORANGE, "--", "P"),
    "ST-Gumbel": (PINK, "-", "s"), "Gumbel-Rao": (BLUE, "--", "o"),
    # classes without replacement
    "unordered": (GREEN, "-", "^"), "sum-and-sample": (SKY, "--", "D"),
    # the relaxation as a control variate, and learned ones
    "REBAR": (RED, "--", "d"), "DynamicREBAR": (RED, "-", "h"),
    "RELAX": (PINK, "-", "p"), "RODEO": (PINK, "--", "<"),
    "DoubleCV": (PINK, ":", ">"),
    # bounds of K samples
    "iwae": (BLACK, "-", "o"), "stl": (ORANGE, "--", "P"),
    "dreg": (BLUE, "-", "s"), "dreg-norm": (BLUE, ":", "D"), "dreg-cv": (BLUE, "--", "h"),
    "rws": (GREEN, "-", "^"), "rws-dreg": (GREEN, "--", "v"), "rws-dreg-norm": (GREEN, ":", "*"),
    "dreg-alpha": (SKY, "--", "d"), "jk": (PINK, "-", "p"), "jk-dreg": (PINK, "--", "<"),
    # the class of an unlabelled image
    "marginal": (BLUE, "-", "s"),
    # the samplers of a Boltzmann machine
    "exact": (BLACK, "-", ""), "PA": (BLUE, "-", "s"), "PCD": (ORANGE, "--", "o"),
    "AIS": (GREEN, ":", "^"), "independent samples": (GREY, LONG, ""),
    # the bounds of a run
    "train": (BLACK, "-", "o"), "valid": (BLUE, "--", "s"), "test": (RED, "-", "D"),
    "independent pixels": (GREY, ":", ""), "": (BLACK, "-", "o"),
}  # fmt: skip
ALIASES = {"Gumbel-Softmax": "Concrete", "gumbel": "Concrete", "reinforce": "REINFORCE",
           "reinmax": "ReinMax",
           "C = 0": "REINFORCE", "C = E[f]": "RLOO"}  # fmt: skip
OTHERS = [(SKY, "--", ">"), (PINK, ":", "H"), (GREY, "-", "8"), (SKY, DENSE, "x")]


def style(name, position=0):
    """The keywords color, linestyle and marker of a curve of the method `name`.

    What follows a comma is not part of the name: "valid, 100 samples" is drawn as "valid". A name
    that is not in the table gets one of OTHERS, by its `position` among the curves.
    """
    name = name.split(", ")[0]
    look = STYLES.get(ALIASES.get(name, name)) or OTHERS[position % len(OTHERS)]
    return dict(zip(("color", "linestyle", "marker"), look))


def new_figure(n, width=4.4, height=3.4, frame=False, rows=1, **options):
    """A figure of n panels side by side, `width` × `height` inches each: (figure, list of axes).

    `frame` draws all four sides of a panel, as for images; with `rows` there are n in each of them;
    `options` are those of subplots.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * n, height * rows), layout="constrained")
    axes = figure.subplots(rows, n, squeeze=False, **options).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(frame)
    return figure, list(axes)


def save(figure, path):
    figure.savefig(path, dpi=110)


def draw(axis, x, y, name, *, position=0, **options):
    """A curve in the style of `name`, above or below which no other is hidden.

    At most eight markers, at places of its own, with a white edge; narrow dashes lie over broad
    solid lines: of two curves that coincide, both are seen. Few points, as of a few
    evaluations, have a marker each.
    """
    look = style(name, position)
    every = 1 if len(x) <= 12 else -(-len(x) // 8)
    every = (3 * position % every, every)
    over = {"-": 2.0, "--": 2.2, "-.": 2.3, ":": 2.4}.get(look["linestyle"], 2.1)
    look["marker"] = look["marker"] or ("." if len(x) == 1 else "")
    look |= {"linewidth": 1.9 if over == 2 else 1.3, "zorder": over, "label": name,
             "markersize": 7, "markevery": every, "markeredgecolor": "white",
             "markeredgewidth": 0.7}  # fmt: skip
    return axis.plot(x, y, **look | options)[0]


def label_curves(axis, lines=None, size=8.5):
    """The name of every curve at its right end, moved apart where they would meet.

    A short piece of the curve's own line leads from its end to its name. Names that do not fit
    beside the panel are put in a legend above it.
    """
    lines = [line for line in lines or axis.get_lines() if len(line.get_xdata())]
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)  # from here on fixed, and so is the place of every end
    place = axis.transScale + axis.transLimits  # from data to fractions of the panel
    rows = axis.get_gridspec().nrows
    height = axis.figure.get_figheight() / rows * 72 * 0.72  # of the panel, about, in points
    gap = 1.25 * size / height
    if len(lines) * gap > 1:
        return axis.legend(
            handles=lines, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=size,
            frameon=False,
        )  # fmt: skip
    ends = []
    for line in lines:
        x, y = (np.asarray(values, float) for values in line.get_data())
        last = np.flatnonzero(np.isfinite(y))
        if len(last):
            ends.append([*place.transform((x[last[-1]], y[last[-1]])), line])
    ends.sort(key=lambda end: end[1])
    heights = spread([min(max(y, 0), 1) for _, y, _ in ends], gap)
    for (x, y, line), at in zip(ends, heights):
        leader = {"color": line.get_color(), "linewidth": 0.8, "clip_on": False, "zorder": 1}
        x = x if x > 0.9 else 0.98  # a curve that ends early is not to look longer
        axis.plot([x, 1.03, 1.05], [y, at, at], "-", transform=axis.transAxes, **leader)
        axis.text(1.06, at, line.get_label(), transform=axis.transAxes, va="center", size=size)


def dots(axis, values, x_label):
    """One dot a name, the lowest value on top, each in the colour and marker of its name."""
    names = sorted(values, key=values.get, reverse=True)
    for k, name in enumerate(names):
        look = style(name, k)
        axis.plot(values[name], k, color=look["color"], marker=look["marker"], markersize=7)
    axis.set_yticks(range(len(names)), names)
    axis.grid(axis="y", alpha=0.3)
    axis.set(xlabel=x_label)


def spread(heights, gap):
    """Ascending numbers in [0, 1], moved as little as needed to be `gap` apart and stay inside."""
    groups = []  # [sum of wishes for the lowest, count]: neighbours that touch move as one
    for height in heights:
        groups.append([height, 1])
        while True:
            total, count = groups[-1]
            groups[-1] = [min(max(total / count, 0), 1 - (count - 1) * gap) * count, count]
            if len(groups) < 2:
                break
            (total_0, n_0), (total_1, n_1) = groups[-2:]
            if total_0 / n_0 + n_0 * gap <= total_1 / n_1 + 1e-12:
                break
            groups[-2:] = [[total_0 + total_1 - n_0 * n_1 * gap, n_0 + n_1]]
    return [total / count + k * gap for total, count in groups for k in range(count)]


def plot_curves(path, steps, panels, notes=None):
    """One panel per y label in `panels`, each a dict of curves over the steps ("" is no value).

    `notes` has a line to be put above a panel, by the same labels.
    """
    figure, axes = new_figure(len(panels))
    for axis, (y_label, curves) in zip(axes, panels.items()):
        for k, (name, values) in enumerate(curves.items()):
            points = [(step, y) for step, y in zip(steps, values) if y != ""]
            draw(axis, *(zip(*points) if points else ([], [])), name, position=k)
        axis.set(xlabel="step", ylabel=y_label)
        axis.set_title((notes or {}).get(y_label, ""), loc="left", size=8.5)
        if len(curves) > 1:
            label_curves(axis)
    save(figure, path)


def plot_run(path, trainer, rows, trivial):
    """curves.png: the bounds, the gradient's variance, that of tracked estimators, and T.

    `rows` are those of the log, `trivial` is the test bound of independent pixels.
    """
    args, columns = trainer.args, {key: [row[key] for row in rows] for key in rows[-1]}
    of = lambda k: f", {k} samples" if k > 1 else ", 1 sample" if k else ""
    samples = {"train": trainer.bound_samples} | dict.fromkeys(("valid", "test"), args.eval_samples)
    bounds = {f"{split}{of(k)}": columns[f"{split}_bound"] for split, k in samples.items()}
    bounds["independent pixels"] = [trivial] * len(rows)
    label = "bound, nats per image"
    panels = {label: bounds, "log variance of the gradient": {"": columns["log_grad_variance"]}}
    for key in columns:  # log_<what>_variance, that of the estimator trained, and …/<tracked one>
        what, _, name = key.partition("/")
        if re.fullmatch("log_.*_variance", what) and what != "log_grad_variance":
            curves = panels.setdefault(what.replace("_", " "), {})
            curves[name or getattr(args, "estimator", "trained")] = columns[key]
    if "temperature" in columns:
        panels["temperature"] = {"": columns["temperature"]}
    note = "of K samples: log mean exp, a higher bound than that of 1"
    plot_curves(path, columns["step"], panels, {label: note})


def plot_snr_and_gap(path, rows, names):
    """DReG's toy: signal-to-noise ratios against K, and the gap with its 95 % interval."""
    figure, (left, right) = new_figure(2, 4.8, 3.6)
    counts, gap, error = (np.array([row[key] for row in rows]) for key in ("K", "gap", "gap_error"))
    for k, name in enumerate(names):
        snr = np.array([row[name] for row in rows])
        draw(left, counts, np.where(snr > 0, snr, math.nan), name, position=k)
    left.set(xlabel="K", ylabel="signal-to-noise ratio of the gradient for μ")
    left.set(xscale="log", yscale="log")
    label_curves(left)
    right.set(xscale="log", yscale="log", xlabel="K", ylabel="log p(x) − E[L], nats (95 %)")
    right.errorbar(counts, gap, 1.96 * error, fmt="ko-", markersize=5, capsize=3)
    right.set_ylim(bottom=np.min(gap[gap > 0]) / 3)
    save(figure, path)


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
    """samples.png: the grids of `pictures`."""
    grids = pictures(trainer)
    figure, axes = new_figure(len(grids), 3.2, 3.5, frame=True)
    for axis, (title, grid) in zip(axes, grids.items()):
        axis.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
        axis.set(title=title, xticks=[], yticks=[])
    save(figure, path)


def tensorboard_class():
    """EventFile; raises InputError if tensorboardX, an optional package, is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        hint = "pip install tensorboardX, or leave the flag away"
        raise InputError(f"--tensorboard: {error}; {hint}") from None
    return EventFile


class EventFile:
    """A file of TensorBoard, for rows from the step `first` on. An OSError names it.

    The SummaryWriter of tensorboardX writes in a thread of its own and at the exit of the process.
    On a full disk each of them ends in a traceback, and the main thread may wait for ever.
    """

    def __init__(self, folder, first):
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        self.summary, self.event_pb2 = summary, event_pb2
        self.path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self.file = RecordWriter(str(self.path))
        self.add(first, file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self.add(first, session_log=start)  # what an earlier file has from here on does not count

    def add(self, step, **content):
        event = self.event_pb2.Event(wall_time=time.time(), step=step, **content)
        self.file.write(event.SerializeToString())

    def write(self, trainer, row):
        """The numbers of a row of the log and, with an evaluation, pictures."""
        with naming(self.path):
            for key, value in row.items():
                if value != "" and key not in ("step", "seconds"):
                    self.add(row["step"], summary=self.summary.scalar(key, value))
            if row["valid_bound"] != "":
                for title, grid in pictures(trainer).items():
                    self.add(row["step"], summary=self.summary.image(title, grid[None]))
            self.file.flush()

    def close(self):
        """What a `write` could not write is lost, and it has said so."""
        with contextlib.suppress(OSError):
            self.file.close()


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
    figure, (axis,) = new_figure(1, 6, 6 * grid.shape[0] / grid.shape[1] + 0.6, frame=True)
    width = shape[1] + 1
    axis.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
    axis.set_xticks((np.arange(len(tiles)) + 0.5) * width, ["x", *range(model.classes)])
    axis.set(yticks=[], xlabel="test image, class y", ylabel="style z, that of the test image")
    save(figure, path)


def plot_confusion(path, truth, predicted, classes):
    """How many test images of each class, a row each, were taken for which, a column each."""
    counts = np.eye(classes, dtype=int)[truth].T @ np.eye(classes, dtype=int)[predicted]
    figure, (axis,) = new_figure(1, 5, 5, frame=True)
    axis.imshow(
        counts / np.maximum(np.sum(counts, axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1
    )
    for (i, j), n in np.ndenumerate(counts):
        if n:
            axis.text(j, i, n, ha="center", va="center", size=8, color="w" if i == j else "k")
    axis.set(xlabel="predicted class", ylabel="true class")
    save(figure, path)
