"""A trainer that follows the gradients of several estimators; and a start from another run."""

from pathlib import Path

from common import InputError

from harness.diagnostics import SignalToNoise
from harness.optimizer import flatten
from harness.runfolder import read_checkpoint, read_config, read_flags
from harness.trainer import Trainer

import numpy as np


class TrackingTrainer(Trainer):
    """Trains by the first of the estimators `names`, and follows the inference gradients of all.

    `all_gradients(names, model, params, aux, x, noise)` returns the bound of the first estimator;
    for each a gradient like phi; the gradients like theta and aux of the first; and for each
    mean_i |g_i|², see SignalToNoise. With frozen=True it may leave out those like theta. The other
    arguments are Trainer's. The gradients of a batch of one image do not show their noise, and are
    not followed; raises InputError if there are others than the first.
    """

    COUNTERS = (*Trainer.COUNTERS, "first_step")

    def __init__(self, args, data, model, all_gradients, names, init_aux, *, report, **options):
        if args.batch_size < 2 and len(names) > 1:
            raise InputError("--track: needs a --batch-size of at least 2, to see the noise")
        both = lambda model, aux, *squares: self.track(*squares) | report(model, aux)
        super().__init__(args, data, model, self.step_gradients, init_aux, both, **options)
        self.copies, self.all_gradients, self.names = 1, all_gradients, names
        size = sum(p.size for p in model.split(self.params)[0])
        self.snr = {name: SignalToNoise(size) for name in names}
        self.pairs_drawn = 0

    def step_gradients(self, model, params, aux, x, noise):
        """The estimate to train by, and what `track` needs of all estimators."""
        bound, phi, theta, aux_grads, mean_squares = self.all_gradients(
            self.names, model, params, aux, x, noise
        )
        squares = [sum(np.vdot(g_i, g_i) for g_i in g) for g in phi]  # |g|² of every estimator
        return bound, [*phi[0], *theta], aux_grads, squares, mean_squares

    def track(self, squares, mean_squares):
        """What to log of the inference gradients, given |g|² and mean_i |g_i|² of each one."""
        tracked, n = {}, self.args.batch_size
        for name, square, mean_square in zip(self.names if n > 1 else (), squares, mean_squares):
            log_variance, snr = self.snr[name].update(float(square), float(mean_square), n)
            label = "" if name == self.names[0] else f"/{name}"
            tracked[f"log_inference_variance{label}"] = log_variance
            tracked[f"inference_snr{label}"] = snr
        return tracked

    def draw_pair(self, names):
        """The inference gradients (size,) of two estimators for the next images, from one noise.

        Nothing is learned from them.
        """
        x, noise = self.draw(ahead=self.pairs_drawn)
        self.pairs_drawn += 1  # other images and other noise next time
        _, pair, *_ = self.all_gradients(
            names, self.model, self.params, self.aux, x, noise, frozen=True
        )
        return [flatten(g, self.model.dtype)[0] for g in pair]

    def start_from(self, folder, flag, same, differs):
        """Take the parameters of the run in `folder`, and those of the method if they fit.

        The images and the noise go on where those of that run, and of its own source, stopped: none
        is used twice, even with the same seed. Raises InputError, naming `flag`, for a run in which
        a flag of `same` has another value, whose images were others, or whose checkpoint cannot be
        used; a file of the user's own may have another name. `differs` has words for another value,
        as cli.Parser.differs.
        """
        path = Path(folder) / "config.json"
        try:
            if not folder:
                raise ValueError("the name of the folder is empty")
            flags, before = read_flags(folder), read_config(folder).get("data_sha256", "")
            now = self.data.sha256  # "" but for a user's own file
            for key in ("method", *same):
                renamed = key == "dataset" and now and now == before
                if flags[key] != getattr(self.args, key) and not renamed:
                    what = differs(key, flags[key], getattr(self.args, key))
                    raise ValueError(f"it has {what}")
            if now != before:
                raise ValueError(f"it had the images of sha256 {before:.12}…, not {now:.12}…")
            path = Path(folder) / "checkpoint.npz"
            arrays, *_ = read_checkpoint(Path(folder))
            params, aux = arrays["params"], arrays["aux"]
            first_step = int(arrays["step_count"]) + int(arrays["first_step"])
            if (params.shape, params.dtype) != (self.flat_params.shape, self.flat_params.dtype):
                raise ValueError(f"it has {params.size} parameters, not {self.flat_params.size}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{flag}: {path} cannot be used ({error})") from error
        self.flat_params[...], self.first_step = params, first_step
        if aux.shape == self.flat_aux.shape:
            self.flat_aux[...] = aux

    def arrays(self):
        keys = [(name, key) for name in self.names for key in ("weight", "signal", "noise")]
        averages = {f"{name}_{key}": getattr(self.snr[name], key) for name, key in keys}
        return super().arrays() | averages
