"""A run from its flags to its folder: the loop around a Trainer (fit, and train for an SBN)."""

import contextlib
import math
import shlex
import sys
import time

from common import InputError, bernoulli_log_prob, logit

from harness.data import load_dataset
from harness.figures import plot_run, plot_samples, tensorboard_class
from harness.lock import Lock
from harness.models import SBN
from harness.runfolder import (SWITCHES, append_row, claim, print_row, read_config, write_config,
                               write_json)  # fmt: skip
from harness.stopping import Stopped, quiet, uninterrupted
from harness.trainer import Trainer

import numpy as np
from tqdm import tqdm


def train(args, estimate, init_aux, report=lambda model, aux: {}, complete=None):
    """Train an SBN on the dataset of `args` by `estimate`; returns the run folder and its log.

    `init_aux(rng, model)` makes the method's own parameters; for `report` see Trainer, for
    `complete` and what is raised see fit.
    """
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model, adam = sbn(args, data.train_mean), {"beta1": args.beta1, "beta2": args.beta2}
    return fit(Trainer(args, data, model, estimate, init_aux, report, adam=adam), complete)


def sbn(args, mean):
    """The sigmoid belief network that the flags describe."""
    return SBN(mean, args.hidden, args.layers, args.nonlinear, args.task,
               activation=args.activation, slope=0.3 if args.slope is None else args.slope,
               centring=args.centring, prior=args.prior, init=args.init)  # fmt: skip


def fit(trainer, complete=None):
    """Train as the flags say, from the start or the checkpoint; returns the run folder and its log.

    `complete(folder, rows)` does what else belongs to a complete run, figures and files of its own,
    and returns further entries of the summary. Raises InputError for a run folder that cannot be
    used. Raises Stopped with the way to resume, leaving a checkpoint, after Ctrl-C (exit code 130),
    SIGTERM (143), SIGHUP (129), and on a value that is not finite (1) or a file that cannot be
    written (2).
    """
    args = trainer.args
    writer_class = tensorboard_class() if args.tensorboard else None
    folder = claim(args)
    with Lock(folder) as lock:
        rows = resume(trainer, folder) if args.resume else []
        with contextlib.suppress(FileNotFoundError):  # the summary of fewer steps
            (folder / "summary.json").rename(folder / f"summary-{trainer.step_count}.json")
        data = trainer.data
        facts = {"data_verified": data.verified, "data_sha256": data.sha256}
        write_config(folder, args, **facts, data_has_test=data.own_test)
        first = trainer.last_row + 1
        writer = writer_class(folder, first) if writer_class else None
        on = f"go on with: {resume_command(args, folder)}"
        try:
            loop(trainer, rows, folder, lock, writer)
            finish(trainer, rows, folder, lock, complete)
            return folder, rows
        except KeyboardInterrupt as signal:
            code, why = 128 + (signal.args or (2,))[0], on
            lock.check()
            with contextlib.suppress(FloatingPointError):
                trainer.save(folder)
        except FloatingPointError as error:
            code, why = 1, f"{error}; the last good checkpoint is in {folder}; {hint(trainer)}"
        except OSError as error:
            lock.check()
            code, why = (
                2,
                f"cannot write {error.filename or folder} ({error.strerror}); mend it and {on}",
            )
        finally:
            if writer:
                writer.close()
    raise Stopped(code, f"stopped at step {trainer.step_count}; {why}")


def resume_command(args, folder):
    """What to type to go on with a run exactly as it was."""
    given = [name for name in SWITCHES if getattr(args, name, False)]
    switches = [f"--{name.replace('_', '-')}" for name in given]
    return shlex.join(["python", sys.argv[0], "--resume", str(folder), *switches])


def resume(trainer, folder):
    """Set the trainer to the checkpoint of `folder` and return the rows of its log.

    Raises InputError for another file of images than the run began with, or a damaged checkpoint.
    """
    before, now = read_config(folder).get("data_sha256", ""), trainer.data.sha256
    if now != before:
        raise InputError(f"--resume: {trainer.data.name} is not the file that this run began with: "
                         f"its sha256 is {now:.12}…, not {before:.12}…")  # fmt: skip
    return trainer.resume(folder)


def loop(trainer, rows, folder, lock, writer):
    """The steps that are left, each row of the log with a checkpoint."""
    args = trainer.args
    log_every = args.log_every or trainer.steps_per_epoch
    eval_every = args.eval_every or args.eval_epochs * trainer.steps_per_epoch
    every = log_every, eval_every
    blank = {f"{split}_{name}": "" for split in ("valid", "test") for name in trainer.measures}
    started, saved = time.perf_counter() - trainer.seconds, -math.inf
    with tqdm(total=args.steps, initial=trainer.step_count, unit="step", disable=None) as bar:
        while True:
            step, at_end = trainer.step_count, trainer.step_count >= args.steps
            trainer.seconds = time.perf_counter() - started
            evaluate = at_end or step % eval_every == 0
            due = step > trainer.last_row and (evaluate or step % log_every == 0)
            if due:
                splits = ("valid", "test") if at_end else ("valid",) if evaluate else ()
                values = blank | evaluation(trainer, splits)
            with uninterrupted():
                if due:
                    lock.check()
                    trainer.remember(values["valid_bound"])
                    rows.append(trainer.row(values) | {"seconds": round(trainer.seconds, 3)})
                    append_row(folder / "log.csv", rows[-1])
                    print_row(rows[-1], header=len(rows) == 1)
                    if writer:
                        writer.write(trainer, rows[-1])
                if due or time.perf_counter() - saved > 60:  # seconds
                    lock.check()
                    trainer.save(folder)
                    saved = time.perf_counter()
                if at_end:
                    return
                trainer.step(min(args.steps, *(step + n - step % n for n in every)) - step)
            bar.update(trainer.step_count - step)


SCALES = {"temperature", "min_temperature", "prior_temperature", "alpha", "beta"}  # that overflow


def hint(trainer):
    """What may help a run that diverged: before the first step it cannot be --lr."""
    scales = ", ".join(
        f"--{name.replace('_', '-')}" for name in sorted(SCALES & {*vars(trainer.args)})
    )
    if trainer.step_count == 0 and scales:
        return f"no step was made yet, so another {scales} may help"
    return "a smaller --lr may help"


def evaluation(trainer, splits=("valid", "test")):
    """The measures of the present parameters on images that were not trained on: valid_bound, …

    Raises FloatingPointError if one of them is not finite.
    """
    trainer.sync()
    with quiet():
        measures = {split: trainer.evaluate(split) for split in splits}
    row = {f"{split}_{name}": x for split, values in measures.items() for name, x in values.items()}
    for name, x in row.items():
        if not math.isfinite(x):
            raise FloatingPointError(f"{name} is not finite")
    return row


def finish(trainer, rows, folder, lock, complete):
    """Figures, `complete` and, last of all, summary.json; prints the result beside a trivial one.

    Whoever finds a summary may take the run for complete. Without it, --resume begins here again.
    """
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
        lock.check()
        if not args.no_plots:
            plot_run(folder / "curves.png", trainer, rows, trivial)
            plot_samples(folder / "samples.png", trainer)
        more = complete(folder, rows) if complete else {}
    lock.check()
    summary = {
        "method": args.method, "dataset": args.dataset, "task": args.task, "steps": args.steps,
        **results,
        "independent_pixels_test": float(trivial), "log_grad_variance": last["log_grad_variance"],
        "seconds": trainer.seconds, "steps_per_second": args.steps / trainer.seconds, **more,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    bounds = {"test bound": (results["test_bound"], args.eval_samples)}
    if n_samples:
        bounds["test log-likelihood"] = results["test_log_likelihood"], n_samples
    for name, (value, samples) in bounds.items():
        tqdm.write(f"{name:20}{value:9.3f} nats ({samples} samples)")
    tqdm.write(f"{'independent pixels':20}{trivial:9.3f} nats\n{'run folder':20}{folder}")
