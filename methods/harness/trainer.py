"""A run's whole state, and its step."""

import contextlib
import math
import os

from common import InputError

from harness.compiled import Compiled
from harness.diagnostics import GradientVariance
from harness.models import multi_sample_bound
from harness.optimizer import Adam, as_promised, assign_state, flatten
from harness.runfolder import read_checkpoint, save_checkpoint
from harness.stopping import quiet, uninterrupted
from harness.streams import EVALUATION, INIT, NOISE, ORDER, stream

import numpy as np


class Trainer:
    """A run's whole state and its step: Adam(lr) ascends the bound, Adam(aux_rate lr) descends the
    method's own objectives. Every gradient is taken before any update.

    `report(model, aux)` is a dict of what to log of aux (keys with a "/" are not shown on the
    screen); it also gets what an estimate returns beyond the gradients of aux. `adam` has settings
    of both Adams; `rate(step)` multiplies lr. With `keep_best` the parameters of the best
    validation bound are what the run ends with.
    """

    COUNTERS = ("step_count", "last_row", "seconds", "best_bound", "bound_samples")
    measures = ("bound",)  # what `evaluate` returns
    bound_samples = 0  # of the bound that a step returns, known after the first
    first_step = 0  # of the images and the noise that this run draws

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
        self.compiled = Compiled(self) if getattr(args, "compile", False) else None

    def draw(self, ahead=0):
        """Images (batch, pixels) and noise of the present step, or of one `ahead` of it."""
        args, t = self.args, self.first_step + self.step_count + ahead
        epoch, position = divmod(t, self.steps_per_epoch)
        if epoch != self.order_epoch:  # np.resize fills a short last batch with the first rows
            rows = stream(args.seed, ORDER, epoch).permutation(len(self.data.train))
            self.order = np.resize(rows, (self.steps_per_epoch, args.batch_size))
            self.order_epoch = epoch
        rng = stream(args.seed, NOISE, t)
        x = self.data.batch(self.order[position], rng, self.model.dtype)
        x = np.repeat(x, self.copies, axis=0)
        return x, self.model.draw_noise(rng, len(x))

    def step(self, limit=1):
        """One update; in a compiled run up to `limit` of them, in one call.

        Raises FloatingPointError if a value is not finite.
        """
        with quiet():
            if self.compiled:
                return self.compiled.steps(limit)
            self.at_their_rates()
            self.add(self.update(*self.draw()))
        self.step_count += 1

    def at_their_rates(self):
        """Both Adams, with the lr of the present step, at most the largest number of their type."""
        lr, largest = self.args.lr * self.rate(self.step_count), np.finfo(self.model.dtype).max
        self.ascent.lr = min(lr, float(largest))
        self.descent.lr = -min(self.aux_rate * lr, float(largest))
        return self.ascent, self.descent

    def add(self, logged):
        """Add what is to be logged of a step to that of the others since the last row."""
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in logged.items()}

    def estimated(self, params, aux, x, noise):
        """What the estimate returns for the model. Raises InputError if it has another form."""
        result = as_promised(self.estimate(self.model, params, aux, x, noise), params, aux)
        if np.ndim(result[0]) != 1:
            raise InputError("estimate has to return the bound of every row, (rows,)")
        return result

    def update(self, x, noise):
        """The step for images and noise; returns what is to be logged of it."""
        model = self.model
        bound, grads, aux_grads, *more = self.estimated(self.params, self.aux, x, noise)
        aux_grads = assign_state(self.aux, aux_grads)
        gradient, aux_gradient = (flatten(g, model.dtype)[0] for g in (grads, aux_grads))
        self.bound_samples = self.samples_in(bound)
        bound, (variance, raw) = float(bound.mean()), self.variance.update(gradient)
        logged = {"train_bound": bound, "variance": variance, "raw_variance": raw}
        if not math.isfinite(bound + variance + float(aux_gradient.sum())):
            self.refuse_gradients(grads + aux_grads)
        logged |= self.report(model, self.aux, *more)
        self.ascent.ascend(self.flat_params, gradient)
        self.descent.ascend(self.flat_aux, aux_gradient)
        return logged

    def sync(self):
        """Have the state of a compiled run in the arrays of this object."""
        if self.compiled:
            self.compiled.store()

    def samples_in(self, bound):
        """K if the values of `bound` are bounds of K samples, one an image; 1 if one a sample."""
        return self.args.samples * self.args.batch_size // np.size(bound)

    def refuse_gradients(self, gradients):
        """Raise FloatingPointError for a step in which something is not finite, and say what."""
        self._refuse("the gradient of ", gradients)
        raise FloatingPointError("the bound is not finite")

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

        self.sync()
        if self.compiled:
            self.compiled.state = None  # from here on the arrays of this object have it
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
        self.sync()
        self._refuse("", self.params + self.aux)
        counters = {key: getattr(self, key) for key in self.COUNTERS}
        sums = {"sum_keys": list(self.sums), "sums": list(self.sums.values())}
        save_checkpoint(folder, {**self.arrays(), **counters, **sums})

    def resume(self, folder):
        """Take up the checkpoint of a run folder, bit for bit; returns the rows logged so far.

        Raises InputError if it is missing, damaged, of another run, or has nothing left to do.
        """
        path, arrays = folder / "checkpoint.npz", self.arrays()
        try:
            loaded, rows, log_size = read_checkpoint(folder)
            for key, array in arrays.items():
                if loaded[key].shape != array.shape or loaded[key].dtype != array.dtype:
                    raise ValueError(f"{key} has shape {loaded[key].shape}, not {array.shape}")
            counters = {key: loaded[key].item() for key in self.COUNTERS}
            counters["sums"] = dict(zip(map(str, loaded["sum_keys"]), loaded["sums"].tolist()))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--resume: {path} cannot be taken up ({error})") from error
        done = counters["step_count"]
        if self.args.steps < done:
            raise InputError(f"--steps: {folder} has done {done} steps; give it more, or none")
        if self.args.steps <= counters["last_row"] and (folder / "summary.json").exists():
            raise InputError(
                f"--resume: {folder} has all its {self.args.steps} steps; raise --steps"
            )
        for key, array in arrays.items():
            array[...] = loaded[key]
        vars(self).update(counters)
        self.ascent.t = self.descent.t = self.variance.t = self.step_count
        if log_size or (folder / "log.csv").exists():
            os.truncate(folder / "log.csv", log_size)  # of what came later, nothing is known
        return rows
