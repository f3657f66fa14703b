"""How a method is trained and run: optimiser, loop, run folder, figures, command line, the toy.

    Adam, GradientVariance      on flat vectors, in place
    multi_sample_bound          evaluation
    Trainer, fit                what `python methods/<method>.py` does, for any model …
    train, train_toy            … for the sigmoid belief network, and for one bit
    parser, parse, run          its flags, and errors in one line

Nothing here estimates a gradient, and nobody needs this file to check an equation.
"""

import argparse
import contextlib
import csv
import json
import math
import os
import platform
import signal
import sys
import time
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from common import (
    DATASETS,
    ROOT,
    SBN,
    TASKS,
    Dataset,
    InputError,
    Toy,
    bernoulli_log_prob,
    load_dataset,
    logit,
    quadrature,
    sigmoid,
)

import autograd.numpy as anp  # where a value may be traced
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp
from tqdm import tqdm

# ------------------------------------------------------------------- optimiser, moving averages


def _blocks(*vectors, size=32768):
    """Slices of flat vectors, and a buffer, so small that an update of them stays in the cache."""
    buffer = np.empty(size, vectors[0].dtype)
    for start in range(0, len(vectors[0]), size):
        parts = [vector[start : start + size] for vector in vectors]
        yield *parts, buffer[: len(parts[0])]


class Adam:
    """Adam (Kingma & Ba 2014, in the form ending their section 2) on a flat vector, in place.

    beta2 = .99999 is the REBAR authors' setting: the moments of a noisy gradient need long memory.
    """

    def __init__(self, size, lr, beta1=0.9, beta2=0.99999, eps=1e-8, dtype=np.float32):
        self.lr, self.beta1, self.beta2, self.eps, self.t = lr, beta1, beta2, eps, 0
        self.m, self.v = np.zeros(size, dtype), np.zeros(size, dtype)

    def ascend(self, params, gradient):
        """One step up the gradient; a negative lr descends."""
        self.t += 1
        weight1 = (1 - self.beta1**self.t) / (1 - self.beta1)  # of the sums m and v, so that
        weight2 = (1 - self.beta2**self.t) / (1 - self.beta2)  # m / weight1 is the average
        rate = self.lr * math.sqrt(weight2) / weight1
        eps = self.eps / math.sqrt(1 - self.beta2)
        for p, g, m, v, buffer in _blocks(params, gradient, self.m, self.v):
            m *= self.beta1
            m += g
            v *= self.beta2
            v += np.multiply(g, g, out=buffer)
            np.sqrt(v, out=buffer)
            buffer += eps
            np.divide(m, buffer, out=buffer)
            buffer *= rate
            p += buffer


class GradientVariance:
    """Mean over parameters of a gradient's variance, from debiased averages of g and |g|²."""

    def __init__(self, size, decay=0.999, dtype=np.float32):
        self.decay, self.t = decay, 0
        self.m1, self.m2 = np.zeros(size, dtype), np.zeros(())

    def update(self, gradient):
        """Take in one gradient (size,); returns the present estimate, and it without debiasing.

        The latter starts at 0 and is what the REBAR authors' code prints.
        """
        self.t += 1
        self.m2 *= self.decay
        first = 0.0
        for g, m1, _ in _blocks(gradient, self.m1):
            m1 *= self.decay
            m1 += g
            first += float(m1 @ m1)
            self.m2 += g @ g
        weights = (1 - self.decay**self.t) / (1 - self.decay), 1 / (1 - self.decay)
        return [(float(self.m2) / w - first / w**2) / len(gradient) for w in weights]


def multi_sample_bound(model, params, images, n_samples, rng, progress=False):
    """log mean_k exp(log w_k) over n_samples importance weights: (rows,) nats, for rows of bits.

    A lower bound on log p(x), tighter with more samples (Burda et al. 2015, arXiv 1509.00519).
    Memory is bounded: at most 1,000 samples are in it at once.
    """
    rows, bounds = max(1, 1000 // n_samples), []
    hidden = None if progress else True  # None shows it on a terminal only
    for start in tqdm(range(0, len(images), rows), desc="evaluation", leave=False, disable=hidden):
        x = images[start : start + rows].astype(model.dtype)
        counts = [min(1000, n_samples - first) for first in range(0, n_samples, 1000)]
        log_weights = np.concatenate([model.log_weights(params, x, n, rng) for n in counts])
        bounds.append(logsumexp(log_weights.astype(np.float64), axis=0) - math.log(n_samples))
    return np.concatenate(bounds)


# One random stream per purpose and index: a resumed run needs no generator state, and evaluation
# cannot disturb training.
INIT, ORDER, NOISE, EVALUATION, PICTURES = range(5)


def stream(seed, purpose, index=0):
    return np.random.default_rng([seed, purpose, index])


def flatten(arrays, dtype):
    """One contiguous vector with the content of all arrays, and a list of its views like them."""
    flat = np.concatenate([np.zeros(0, dtype), *map(np.ravel, arrays)]).astype(dtype, copy=False)
    ends = np.cumsum([np.size(a) for a in arrays], dtype=int)
    return flat, [flat[e - np.size(a) : e].reshape(np.shape(a)) for a, e in zip(arrays, ends)]


class Assign(NamedTuple):
    """In place of a gradient of aux: the tensor is not learned but a state, with this new value.

    For moving averages, step counts and numbers to log: they are in the checkpoint like all of aux.
    """

    value: np.ndarray


def assign_state(aux, aux_grads):
    """Carry out what is to be assigned to tensors of aux; returns the gradients of the others."""
    gradients = []
    for tensor, g in zip(aux, aux_grads):
        if isinstance(g, Assign):
            tensor[...] = g.value
        gradients.append(np.zeros_like(tensor) if isinstance(g, Assign) else g)
    return gradients


class Trainer:
    """A run's whole state and its step: Adam(lr) ascends the bound, Adam(aux_rate lr) descends the
    method's own objectives. Every gradient is taken before any update.

    `report(model, aux)` is a dict of what to log of aux (keys with a "/" are not shown on the
    screen); `adam` has settings of both Adams; `rate(step)` multiplies lr. With `keep_best` the
    parameters of the best validation bound are what the run ends with.
    """

    COUNTERS = ("step_count", "last_row", "seconds", "best_bound")
    measures = ("bound",)  # what `evaluate` returns

    def __init__(self, args, data, model, estimate, init_aux, report=lambda model, aux: {}, *,
                 adam=None, aux_rate=10, rate=lambda step: 1.0, keep_best=False):  # fmt: skip
        self.args, self.data, self.model = args, data, model
        self.estimate, self.report, self.rate, self.aux_rate = estimate, report, rate, aux_rate
        self.copies = args.samples  # of every image in a batch
        dtype, seed, adam = model.dtype, args.seed, adam or {}
        self.flat_params, self.params = flatten(model.init(stream(seed, INIT)), dtype)
        self.flat_aux, self.aux = flatten(init_aux(stream(seed, INIT, 1), model), dtype)
        self.ascent = Adam(self.flat_params.size, args.lr, dtype=dtype, **adam)
        self.descent = Adam(self.flat_aux.size, -aux_rate * args.lr, dtype=dtype, **adam)
        self.variance = GradientVariance(self.flat_params.size, dtype=dtype)
        self.steps_per_epoch = math.ceil(len(data.train) / args.batch_size)
        self.step_count, self.last_row, self.seconds, self.best_bound = 0, 0, 0.0, -math.inf
        self.best = [self.flat_params.copy(), self.flat_aux.copy()] if keep_best else []
        self.sums = {}  # of what is logged, over the steps since the last row of the log
        self.order_epoch = -1

    def draw(self):
        """Images (batch, pixels) and noise of the present step."""
        args = self.args
        epoch, position = divmod(self.step_count, self.steps_per_epoch)
        if epoch != self.order_epoch:  # np.resize fills a short last batch with the first rows
            rows = stream(args.seed, ORDER, epoch).permutation(len(self.data.train))
            self.order = np.resize(rows, (self.steps_per_epoch, args.batch_size))
            self.order_epoch = epoch
        rng = stream(args.seed, NOISE, self.step_count)
        x = self.data.batch(self.order[position], rng, self.model.dtype)
        x = np.repeat(x, self.copies, axis=0)
        return x, self.model.draw_noise(rng, len(x))

    def step(self):
        """One update. Raises FloatingPointError if a value is not finite."""
        model, (x, noise) = self.model, self.draw()
        bound, grads, aux_grads = self.estimate(model, self.params, self.aux, x, noise)
        aux_grads = assign_state(self.aux, aux_grads)
        gradient, aux_gradient = (flatten(g, model.dtype)[0] for g in (grads, aux_grads))
        bound, (variance, raw) = float(bound.mean()), self.variance.update(gradient)
        logged = {"train_bound": bound, "variance": variance, "raw_variance": raw}
        logged |= self.report(model, self.aux)
        if not math.isfinite(bound + variance + float(aux_gradient.sum())):
            self._refuse("the gradient of ", grads + aux_grads)
            raise FloatingPointError("the bound is not finite")
        lr = self.args.lr * self.rate(self.step_count)
        self.ascent.lr, self.descent.lr = lr, -self.aux_rate * lr
        self.ascent.ascend(self.flat_params, gradient)
        self.descent.ascend(self.flat_aux, aux_gradient)
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in logged.items()}
        self.step_count += 1

    def _refuse(self, what, tensors):
        """Raise FloatingPointError with the name of the first tensor that is not finite."""
        names = [*self.model.names, *(f"the method's tensor {i}" for i in range(len(self.aux)))]
        for name, tensor in zip(names, tensors):
            if not np.all(np.isfinite(tensor)):
                raise FloatingPointError(f"{what}{name} is not finite")

    def bound(self, split, n_samples, progress=False):
        """Mean multi-sample bound of "valid" or "test" in nats, always with the same noise."""
        rng, images = stream(self.args.seed, EVALUATION), getattr(self.data, split)
        bounds = multi_sample_bound(self.model, self.params, images, n_samples, rng, progress)
        return float(bounds.mean())

    def evaluate(self, split):
        """What to log of "valid" or "test", a dict of `measures`; the bound in nats."""
        return {"bound": self.bound(split, self.args.eval_samples)}

    def remember(self, valid_bound):
        """With keep_best, copy the parameters if none so far were better on validation."""
        if self.best and valid_bound != "" and valid_bound > self.best_bound:
            self.best_bound = valid_bound
            self.best[0][...], self.best[1][...] = self.flat_params, self.flat_aux

    @contextlib.contextmanager
    def at_best(self):
        """With keep_best, have the best parameters in the place of the present ones for a while."""

        def exchange():
            with uninterrupted():
                for present, best in zip((self.flat_params, self.flat_aux), self.best):
                    present[...], best[...] = best.copy(), present.copy()

        try:
            exchange()
            yield
        finally:
            exchange()

    def row(self, bounds=()):
        """What to log, as means over the steps since the last row; and `bounds`, a dict."""
        n, log = self.step_count - self.last_row, lambda x: math.log(max(x, 1e-300))
        means = {key: total / n for key, total in self.sums.items()}
        row = {"step": self.step_count, "train_bound": means.pop("train_bound"), **dict(bounds)}
        row["log_grad_variance"] = log(means.pop("variance"))
        row["log_grad_variance/not_debiased"] = log(means.pop("raw_variance"))
        self.last_row, self.sums = self.step_count, {}
        return row | means

    def arrays(self):
        """Everything that a step changes in place, by its name in the checkpoint."""
        return {"params": self.flat_params, "aux": self.flat_aux,
                "ascent_m": self.ascent.m, "ascent_v": self.ascent.v,
                "descent_m": self.descent.m, "descent_v": self.descent.v,
                "variance_m1": self.variance.m1, "variance_m2": self.variance.m2,
                **dict(zip(("best_params", "best_aux"), self.best))}  # fmt: skip

    def save(self, folder):
        """Write the checkpoint of a run folder; the last one goes only when this one is whole.

        Raises FloatingPointError, leaving the last one, if a parameter is not finite.
        """
        self._refuse("", self.params + self.aux)
        with atomic_write(folder / "checkpoint.npz", "wb") as file:
            counters = {key: getattr(self, key) for key in self.COUNTERS}
            sums = {"sum_keys": list(self.sums), "sums": list(self.sums.values())}
            np.savez(file, **self.arrays(), **counters, **sums)

    def resume(self, folder):
        """Take up the checkpoint of a run folder, bit for bit; returns the rows logged so far.

        Raises InputError if it is missing, damaged, of another run, or has nothing left to do.
        """
        path, arrays = folder / "checkpoint.npz", self.arrays()
        try:
            with np.load(path, allow_pickle=False) as file:
                loaded = dict(file)
            for key, array in arrays.items():
                if loaded[key].shape != array.shape or loaded[key].dtype != array.dtype:
                    raise ValueError(f"{key} has shape {loaded[key].shape}, not {array.shape}")
            counters = {key: loaded[key].item() for key in self.COUNTERS}
            counters["sums"] = dict(zip(map(str, loaded["sum_keys"]), loaded["sums"].tolist()))
            rows = read_rows(folder / "log.csv", counters["last_row"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"--resume: {path} cannot be taken up ({error})") from error
        if self.args.steps <= counters["last_row"] and (folder / "summary.json").exists():
            raise InputError(
                f"--resume: {folder} has all its {self.args.steps} steps; raise --steps"
            )
        for key, array in arrays.items():
            array[...] = loaded[key]
        vars(self).update(counters)
        self.ascent.t = self.descent.t = self.variance.t = self.step_count
        return rows


def train(args, estimate, init_aux, report=lambda model, aux: {}):
    """Train an SBN on the dataset of `args` by `estimate`; returns the run folder and its log.

    `init_aux(rng, model)` makes the method's own parameters; for `report` see Trainer, for what is
    raised see fit.
    """
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model = SBN(data.train_mean, args.hidden, args.layers, args.nonlinear, args.task)
    return fit(Trainer(args, data, model, estimate, init_aux, report))


def fit(trainer):
    """Train as the flags say, from the start or the checkpoint; returns the run folder and its log.

    Raises InputError for a run folder that cannot be used. Ends the process with the way to
    resume, leaving a checkpoint, after Ctrl-C (exit code 130) and on a value that is not finite
    (exit code 1).
    """
    args = trainer.args
    rows = trainer.resume(Path(args.resume)) if args.resume else []
    writer_class = tensorboard_class() if args.tensorboard else None
    folder = open_run(args, data_verified=trainer.data.verified)
    writer = writer_class(str(folder), purge_step=trainer.last_row + 1) if writer_class else None
    log_every = args.log_every or trainer.steps_per_epoch
    eval_every = args.eval_every or args.eval_epochs * trainer.steps_per_epoch
    blank = {f"{split}_{name}": "" for split in ("valid", "test") for name in trainer.measures}
    started, saved = time.perf_counter() - trainer.seconds, -math.inf
    bar = tqdm(total=args.steps, initial=trainer.step_count, unit="step", disable=None)
    try:
        while True:
            step, at_end = trainer.step_count, trainer.step_count >= args.steps
            trainer.seconds = time.perf_counter() - started
            evaluate = at_end or step % eval_every == 0
            due = step > trainer.last_row and (evaluate or step % log_every == 0)
            if due:
                values = evaluation(trainer) if evaluate else blank
            with uninterrupted():
                if due:
                    trainer.remember(values["valid_bound"])
                    rows.append(trainer.row(values) | {"seconds": round(trainer.seconds, 3)})
                    write_rows(folder / "log.csv", rows)
                    print_row(rows[-1], header=len(rows) == 1)
                    if writer:
                        write_tensorboard(writer, trainer, rows[-1])
                if due or time.perf_counter() - saved > 60:  # seconds
                    trainer.save(folder)
                    saved = time.perf_counter()
                if not at_end:
                    trainer.step()
            if at_end:
                finish(trainer, rows, folder)
                return folder, rows
            bar.update()
    except KeyboardInterrupt:
        with contextlib.suppress(FloatingPointError):
            trainer.save(folder)
        stop = 130, f"go on with: python {sys.argv[0]} --resume {folder}"
    except FloatingPointError as error:
        stop = 1, f"{error}; the last good checkpoint is in {folder}; a smaller --lr may help"
    finally:
        bar.close()
        if writer:
            writer.close()
    end(stop[0], f"stopped at step {trainer.step_count}; {stop[1]}")


def evaluation(trainer):
    """The measures of the present parameters on validation and test images: valid_bound, …"""
    splits = {split: trainer.evaluate(split) for split in ("valid", "test")}
    return {f"{split}_{name}": x for split, values in splits.items() for name, x in values.items()}


def finish(trainer, rows, folder):
    """Figures and summary.json; prints the result beside that of a trivial model."""
    args, model, data, last = trainer.args, trainer.model, trainer.data, rows[-1]
    mean, test = data.train_mean[model.context :], data.test[:, model.context :]
    trivial = bernoulli_log_prob(test.astype(float), logit(np.clip(mean, 0.001, 0.999))).mean()
    with trainer.at_best():
        if trainer.best:
            last = last | evaluation(trainer)
        results = {key: last[key] for key in last if key.endswith(("_bound", *trainer.measures))}
        if n_samples := getattr(args, "test_samples", None):
            results["test_log_likelihood"] = trainer.bound("test", n_samples, progress=True)
            results["test_samples"] = n_samples
        if not args.no_plots:
            columns = {key: [row[key] for row in rows] for key in last}
            bounds = {key: columns[f"{key}_bound"] for key in ("train", "valid", "test")}
            bounds["independent pixels, test"] = [trivial] * len(rows)
            panels = {"bound, nats per image": bounds,
                      "log mean gradient variance": {"": columns["log_grad_variance"]}}  # fmt: skip
            if "temperature" in columns:
                panels["temperature"] = {"": columns["temperature"]}
            plot_curves(folder / "curves.png", columns["step"], panels)
            plot_samples(folder / "samples.png", trainer)
    summary = {
        "method": args.method, "dataset": args.dataset, "task": args.task, "steps": args.steps,
        **results,
        "independent_pixels_test": float(trivial), "log_grad_variance": last["log_grad_variance"],
        "seconds": trainer.seconds, "steps_per_second": args.steps / trainer.seconds,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    bounds = {"test bound": (results["test_bound"], args.eval_samples)}
    if n_samples:
        bounds["test log-likelihood"] = results["test_log_likelihood"], n_samples
    for name, (value, samples) in bounds.items():
        tqdm.write(f"{name:20}{value:9.3f} nats ({samples} samples)")
    tqdm.write(f"{'independent pixels':20}{trivial:9.3f} nats\n{'run folder':20}{folder}")


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


# --------------------------------------------------------------------------------- the run folder


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Open a file that takes the place of `path` only once it is written to the end."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextlib.contextmanager
def uninterrupted():
    """Hold Ctrl-C back until the block is done, so that no update is left half made."""
    received = []
    previous = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        raise KeyboardInterrupt


def write_json(path, content):
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_rows(path, rows):
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path, last_step):
    """The rows of a log up to the step last_step, with numbers as numbers."""
    if last_step == 0:
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = [{k: float(x) if x else "" for k, x in row.items()} for row in csv.DictReader(file)]
    return [row | {"step": int(row["step"])} for row in rows if row["step"] <= last_step]


def open_run(args, **facts):
    """The folder of this run with its config.json; new unless --resume, else an InputError."""
    label = f"{args.method}-{'toy' if getattr(args, 'toy', False) else args.dataset}"
    default = ROOT / "runs" / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(args.resume or args.out or default)
    try:
        folder.mkdir(parents=True, exist_ok=bool(args.resume))
    except FileExistsError:
        raise InputError(f"--out: {folder} exists; choose another folder or --resume it") from None
    except OSError as error:
        raise InputError(f"--out: cannot make {folder} ({error.strerror})") from None
    versions = {name: version(name) for name in ("numpy", "autograd", "scipy")}
    versions["python"] = platform.python_version()
    flags = {key: value for key, value in vars(args).items() if key != "resume"}
    write_json(folder / "config.json", {"flags": flags, **facts, "versions": versions})
    return folder


def print_row(row, header):
    """One row of the table on the screen: the log, but for test bound, seconds, keys with "/"."""
    shown = {k: x for k, x in row.items() if k not in ("test_bound", "seconds") and "/" not in k}
    if header:
        tqdm.write("  ".join(f"{key:>8}" for key in shown))
    cells = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in shown.values())
    tqdm.write("  ".join(f"{x:>{max(len(key), 8)}}" for key, x in zip(shown, cells)))


def plot_curves(path, steps, panels):
    """One panel per y label in `panels`, each a dict of curves over the steps ("" is no value)."""
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="tight")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items()):
        for (label, values), style in zip(curves.items(), ("-", "--", "-.", ":")):
            points = [(step, y) for step, y in zip(steps, values) if y != ""]
            axis.plot(*zip(*points), style, label=label)
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


# ------------------------------------------------------------------------------------ command line


def number(kind, low, high=math.inf, open_low=False):
    """An argparse type: int or float, low ≤ x ≤ high, or low < x with open_low."""

    def convert(text):
        try:
            x = kind(text)
            if math.isfinite(x) and low <= x <= high and not (open_low and x == low):
                return x
        except (ValueError, OverflowError):
            pass
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(
            f"'{text}' has to be {what} {'above' if open_low else 'of at least'} {low}"
            + (f" and at most {high}" if high < math.inf else "")
        )

    return convert


class Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, without the usage
        self.exit(2, f"{self.prog}: error: {message}\n")

    def flag(self, name, help, default=None, **options):
        """add_argument, with the default (of choices, the first) named in the help."""
        if default is None and "choices" in options:
            default = options["choices"][0]
        if default is not None:
            options["default"], help = default, f"{help}; default: {default}"
        self.add_argument(name, help=help, **options)


COUNT, POSITIVE = number(int, 1), number(float, 0, open_low=True)
TOY = {"steps": 5000, "lr": 1e-3}
RESUME_MAY_CHANGE = {"resume", "steps", "log_every", "eval_every", "no_plots", "tensorboard"}


def parser(method, description, *, sbn=True, dynamic=False, digits=None, full=None, steps=None,
           batch_size=24, samples=1, eval_samples=100):  # fmt: skip
    """The flags that all methods share; a method adds its own and then calls `parse`.

    `digits` and `full` are what differs from the settings of the datasets, digits and all others:
    steps, lr, eval_epochs, log_every, and samples, if that is None. `steps` is the number of
    updates, if it is not to depend on the dataset. A method with a model of its
    own leaves out the flags of the SBN and the toy; `dynamic` makes fresh bits the default.
    """
    layout = argparse.RawDescriptionHelpFormatter
    p = Parser(description=description, formatter_class=layout, allow_abbrev=False)
    p.set_defaults(method=method)
    changes = {name: digits if name == "digits" else full for name in DATASETS}
    p.config = {name: DATASETS[name].config | (changes[name] or {}) for name in DATASETS}
    small, large = p.config["digits"], p.config["mnist"]
    by_dataset = lambda key: f"default: {small[key]} for digits, {large[key]} for the others"
    p.flag("--dataset", "see data/README.md", choices=list(DATASETS))
    p.flag("--task", "model images, or their lower half given the upper", choices=TASKS)
    if sbn:
        p.flag("--layers", "stochastic layers", 1, type=COUNT, metavar="L")
        p.flag("--hidden", "units of every layer", 200, type=COUNT, metavar="N")
        p.flag("--nonlinear", "two tanh layers between stochastic ones", action="store_true")
    updates = "updates" if steps else f"updates; {by_dataset('steps')}"
    p.flag("--steps", updates, steps, type=COUNT, metavar="N")
    p.flag("--batch-size", "images per update", batch_size, type=COUNT, metavar="N")
    what = "Adam's step, tenfold for what the method learns" if sbn else "Adam's step"
    p.flag("--lr", f"{what}; {by_dataset('lr')}", type=POSITIVE)
    what = "samples per image in training"
    p.flag("--samples", what if samples else f"{what}; {by_dataset('samples')}", samples,
           type=COUNT, metavar="K")  # fmt: skip
    p.flag("--seed", "of everything random", 0, type=number(int, 0))
    if dynamic:
        p.flag("--static-binarization", "fix the training bits once, not draw them afresh",
               dest="dynamic_binarization", action="store_false")  # fmt: skip
    else:
        p.flag("--dynamic-binarization", "draw training bits afresh from the grey levels",
               action="store_true")  # fmt: skip
    log_every = by_dataset("log_every") if "log_every" in small else "default: an epoch"
    p.flag("--log-every", f"steps per row of the table; {log_every}", type=COUNT, metavar="N")
    p.flag("--eval-every", f"steps per evaluation; {by_dataset('eval_epochs')}, in epochs",
           type=COUNT, metavar="N")  # fmt: skip
    p.flag("--eval-samples", "samples of the evaluation's bound", eval_samples, type=COUNT,
           metavar="K")  # fmt: skip
    p.flag("--out", "new folder; default: runs/<method>-<dataset>-<time>", metavar="DIR")
    p.flag("--resume", "go on with the run in DIR, with its own settings", metavar="DIR")
    p.flag("--no-plots", "write no figures", action="store_true")
    p.flag("--tensorboard", "also log to TensorBoard (needs tensorboardX)", action="store_true")
    if sbn:
        p.flag("--toy", "fit one bit instead: minimise E[(b - target)^2]", action="store_true")
        p.flag("--target", "of the toy", 0.45, type=number(float, 0))
    return p


def parse(p, argv=None):
    """Parse and check the flags; with --resume they come from the run's config.json.

    A bad flag ends the process with one line and exit code 2.
    """
    args = p.parse_args(argv)
    if args.resume:
        path = Path(args.resume) / "config.json"
        try:
            flags = json.loads(path.read_text(encoding="utf-8"))["flags"]
            method = flags["method"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            p.error(f"--resume: {path} is not the config of a run ({error})")
        if method != args.method:
            p.error(f"--resume: {args.resume} is a run of {method}: use methods/{method}.py")
        if flags.get("toy"):
            p.error(f"--resume: {args.resume} is a run of the toy, which takes seconds: start anew")
        if args.out:
            p.error("--out: a resumed run stays in its folder; leave --out or --resume away")
        args = p.parse_args(argv, argparse.Namespace(**flags))
        for key in flags.keys() - RESUME_MAY_CHANGE:
            if getattr(args, key) != flags[key]:
                p.error(f"--{key.replace('_', '-')}: a resumed run keeps its {flags[key]}")
    toy = hasattr(args, "target") and args.toy  # of one bit; other toys train nothing
    for key, value in (p.config[args.dataset] | (TOY if toy else {})).items():
        if getattr(args, key, None) is None:
            setattr(args, key, value)
    return args


def end(code, message):
    """Leave the process with one line on stderr."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(code)


def run(main):
    """Call main() as a program: an InputError becomes one line on stderr and exit code 2."""
    try:
        main()
    except (InputError, OSError) as error:
        end(2, f"error: {error}")
    except KeyboardInterrupt:
        end(130, "stopped")
