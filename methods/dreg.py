"""DReG: doubly reparameterized gradients (Tucker et al. 2019, arXiv 1810.04152).

A VAE with Gaussian z_k = μ + σ ε_k, k = 1 … K, has the importance weights and the bound (IWAE)

    log w_k = log p(x, z_k) − log q(z_k|x),    L = log mean_k w_k ≤ log p(x).

∇L for the inference network φ sums w̃_k = w_k / Σ_j w_j times the path through z_k *and* the score
−∇log q(z_k|x). The score has mean zero only weighted by a constant; weighted by w̃_k it is the noise
that drowns the signal as K grows. Reparameterize it a second time, and what is left is a path only:

    ∇φ E[L]  =  E[ Σ_k w̃_k² (∂ log w_k / ∂z_k) ∂z_k/∂φ ].

The same step turns reweighted wake-sleep (rws) into Σ (w̃ − w̃²) …, and the jackknife bound of
Nowozin 2018 (jk) into a path. stl only drops the score (Roeder et al. 2017, arXiv 1703.09194),
which is biased for K > 1. Mirrored noise (--antithetic) ties the samples in pairs and so breaks the
second step: dreg is biased with it, iwae is not.

Cost: one pass forward and one backward through the decoder, whatever the estimator; another one to
compare with (--track) costs a pass through the encoder. Unlike the authors' code: task predict
models the lower half given the upper, the bias check ends, looks at every parameter and trains no
further, and validation and test bits are fixed.

    python methods/dreg.py
"""

import math
import sys
import zipfile
from functools import partial
from pathlib import Path

from common import (  # before numpy: it chooses the number of BLAS threads
    InputError,
    gradients,
    log_mean_exp,
    stop_gradient,
)
from harness import cli, figures
from harness.diagnostics import GradientVariance, bias_check, log_variance_and_snr
from harness.data import load_dataset
from harness.gaussian import GaussianVAE, log_normal, tangent
from harness.optimizer import flatten
from harness.runfolder import open_run, print_row, write_json, write_rows
from harness.streams import INIT, stream
from harness.trainer import Trainer, fit

import autograd.numpy as np
from tqdm import tqdm

# -------------------------------------------------------------------------------- the estimators


def surrogates(estimator, log_w, s, r, alpha=0.9, cv=(0.0, 0.0, 0.0, 0.0)):
    """(value, surrogate for the generative model, surrogate for the inference network) in nats.

    log_w, s and r have shape (K, batch) and are equal, or differ in sign, but not in what varies:
        log_w    log p(x, z) − log q(z|x), everything varies
        s        the same with q's μ and σ stopped: only the path through z varies
        r        log q(z|x) with z stopped: only the score varies.
    The gradient of a surrogate, summed or not, is the estimate (ascent). Each has shape (batch,).
    """
    K, total = len(log_w), lambda terms: np.sum(terms, axis=0)
    L, w = log_mean_exp(log_w, 0), stop_gradient(softmax(log_w, 0))
    w2 = w * w
    tiny = np.finfo(w.dtype).tiny  # so that 0 / 0, where one weight is all, is 0

    def J():  # Nowozin's jackknife: K L − (K − 1) × mean of the K bounds with one sample left out
        return K * L - (K - 1) * np.sum(without_each(log_w)[0], axis=0) / K

    def jk_weights():
        _, w_without = without_each(log_w)  # (K, K, batch), 0 for the sample that is left out
        return K * w2 - (K - 1) * stop_gradient(np.sum(w_without**2, axis=0)) / K

    def control_variates():
        a, b, gamma, delta = cv
        others = stop_gradient(without_each(log_w)[0])  # the bound of the K − 1 other samples
        first = a * (stop_gradient(L) - (1 - gamma) * others) * r + (1 - a) * w * s
        second = (1 - b) * ((1 - delta) / K - w) * r + b * (w2 - w) * s
        return total(first + second)

    table = {
        "iwae": lambda: (L, L, L),
        "rws": lambda: (L, L, total(w * r)),
        "stl": lambda: (L, L, total(w * s)),
        "dreg": lambda: (L, L, total(w2 * s)),
        "rws-dreg": lambda: (L, L, total((w - w2) * s)),
        "dreg-norm": lambda: (L, L, total(w2 * s) / total(w2)),
        "rws-dreg-norm": lambda: (L, L, total((w - w2) * s) / (total(w - w2) + tiny)),
        "dreg-alpha": lambda: (L, L, total((alpha * w + (1 - 2 * alpha) * w2) * s)),
        "jk": lambda: (J(), J(), J()),
        "jk-dreg": lambda: (J(), J(), total(jk_weights() * s)),
        "dreg-cv": lambda: (L, L, control_variates()),
    }
    return table[estimator]()


ESTIMATORS = ("dreg", "iwae", "stl", "rws", "rws-dreg", "dreg-norm", "rws-dreg-norm",
              "dreg-alpha", "jk", "jk-dreg", "dreg-cv")  # fmt: skip
# With one sample these are undefined or, as w̃ = 1, have nothing to learn from.
NEED_TWO = ("rws", "rws-dreg", "rws-dreg-norm", "jk", "jk-dreg", "dreg-cv")


def softmax(log_w, axis):
    """w_k / Σ_j w_j, the sum being over `axis`."""
    mean = np.expand_dims(log_mean_exp(log_w, axis), axis)
    return np.exp(log_w - mean) / log_w.shape[axis]


def without_each(log_w):
    """Bounds (K, batch) and normalized weights (K, K, batch) without the first axis's sample."""
    K = len(log_w)
    left_out = np.where(np.eye(K, dtype=bool), -np.inf, 0).astype(log_w.dtype)[..., None]
    log_w = log_w + left_out
    return log_mean_exp(log_w, 1) + math.log(K / (K - 1)), softmax(log_w, 1)


# ----------------------------------------------- their gradients, with one pass through the decoder


def inference_gradients(estimators, q, phi, eps, log_p, dlog_p, **options):
    """The gradient of the mean inference surrogate, a list like phi, of each of the estimators.

    q(phi) returns μ and σ (batch, D), `eps` has shape (K, batch, D). log_p (K, batch) is
    log p(x, z) and dlog_p its derivative, like eps: its tangent at z is all that is needed of it.
    The options are alpha and cv. Also returns the first estimator's value (batch,) in nats.
    """

    def means(phi):
        mu, sigma = q(phi)
        z = mu + sigma * eps
        log_joint = tangent(z, log_p, dlog_p)
        log_w = log_joint - log_normal(z, mu, sigma)
        s = log_joint - log_normal(z, stop_gradient(mu), stop_gradient(sigma))
        r = log_normal(stop_gradient(z), mu, sigma)
        triples = [surrogates(name, log_w, s, r, **options) for name in estimators]
        return [np.sum(phi) / eps.shape[1] for _, _, phi in triples], triples[0][0]

    return gradients(means, phi)


def generative_gradients(estimator, model, theta, x, z, log_q, frozen=False):
    """log p(x, z) (K, batch), its derivative like z, and the gradient of the mean generative
    surrogate, a list like theta; [] if theta is `frozen`.

    The surrogate's derivative with respect to log w_k is the weight c_k of sample k in ∇θ, while
    dlog p / dz is wanted of each sample alone. Hence one backward pass in which every sample counts
    1, and c_k only where it adds to the gradient of a parameter.
    """
    c = np.empty(z.shape[:-1], z.dtype)  # filled in once the weights are known

    def unit(arrays):
        z, params = arrays[0], theta if frozen else arrays[1:]
        prior = model.prior(params, x)
        log_p = model.log_likelihood(params, x, z, c) + log_normal(z, *stop_gradient(prior))
        c[...] = generative_weights(estimator, stop_gradient(log_p) - log_q)
        prior_only = np.sum(c * log_normal(stop_gradient(z), *prior))
        return [np.sum(log_p) + prior_only], log_p

    ((dlog_p, *grads),), log_p = gradients(unit, [z] if frozen else [z, *theta])
    return log_p, dlog_p, grads


def generative_weights(estimator, log_w):
    """∂(mean generative surrogate) / ∂ log w, (K, batch): w̃ / batch, or the jackknife's."""
    surrogate = lambda log_w: surrogates(estimator, log_w, log_w, log_w)[1]
    mean = lambda arrays: ([np.sum(surrogate(*arrays)) / log_w.shape[1]], [])
    (((c,),), _) = gradients(mean, [log_w])
    return c


def all_gradients(estimators, model, params, aux, x, noise, *, alpha=0.9, frozen=False):
    """For the first of the estimators bound (batch,), gradients of theta and of aux; for all, phi.

    See `estimate`; the result is bound, a list of lists like phi, a list like theta, one like aux.
    """
    (eps,), (phi, theta) = noise, model.split(params)
    if len(eps) < 2 and (bad := [name for name in estimators if name in NEED_TWO]):
        raise InputError(f"--samples: {bad[0]} needs at least 2")
    mu, sigma = model.q(phi, x)
    z = mu + sigma * eps
    log_p, dlog_p, theta_grads = generative_gradients(
        estimators[0], model, theta, x, z, log_normal(z, mu, sigma), frozen
    )
    phi_grads = lambda names, cv: inference_gradients(
        names, lambda phi: model.q(phi, x), phi, eps, log_p, dlog_p, alpha=alpha, cv=cv
    )
    cv = aux[0] if aux else np.zeros(4, z.dtype)
    grads, bound = phi_grads(estimators, cv)
    if frozen:
        theta_grads = [np.zeros_like(p) for p in theta]
    return bound, grads, theta_grads, [mean_square_gradient(phi_grads, aux[0])] if aux else []


def mean_square_gradient(phi_grads, cv):
    """The gradient of dreg-cv's mean square, its variance up to a constant: (4,)."""

    def mean_square(arrays):
        ((g,), _) = phi_grads(["dreg-cv"], arrays[0])
        return [sum(np.sum(g_i * g_i) for g_i in g) / sum(np.size(g_i) for g_i in g)], []

    (((gradient,),), _) = gradients(mean_square, [cv])
    return gradient


def init_aux(rng, model, estimator="dreg"):
    """dreg-cv learns four scalars, 0 at first; all others nothing."""
    return [np.zeros(4, model.dtype)] if estimator == "dreg-cv" else []


def estimate(model, params, aux, x, noise, *, estimator="dreg", **options):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square of the inference network's gradient. `noise` is
    [ε (K, batch, latent)]. The options are `alpha`, of dreg-alpha, and `frozen`: the gradient of
    the generative parameters is 0. Raises InputError if the estimator needs more samples.
    """
    bound, phi, theta, aux_grads = all_gradients(
        [estimator], model, params, aux, x, noise, **options
    )
    return bound, [*phi[0], *theta], aux_grads


def gradient_samples(log_joint, mu, log_sigma, eps, estimator="dreg", **options):
    """n independent estimates of the gradient of the K-sample bound for (μ, log σ): (n, D) each.

    `log_joint` maps z (n, K, D) to log p(x, z) (n, K) in nats and is differentiable; μ and log σ
    of q = N(μ, σ²) have shape (D,), `eps` is standard normal of shape (n, K, D). The options are
    alpha and cv. Raises InputError if the estimator needs more samples.
    """
    if eps.shape[1] < 2 and estimator in NEED_TWO:
        raise InputError(f"eps: {estimator} needs at least 2 samples")
    z = mu + np.exp(log_sigma) * eps

    def value(arrays):
        log_p = log_joint(arrays[0])
        return [np.sum(log_p)], log_p

    ((dlog_p,),), log_p = gradients(value, [z])
    tiled = [np.tile(p, (len(eps), 1)) for p in (mu, log_sigma)]  # one row, one gradient
    q = lambda phi: (phi[0], np.exp(phi[1]))
    eps, dlog_p = (np.swapaxes(a, 0, 1) for a in (eps, dlog_p))  # K first
    (grads,), _ = inference_gradients([estimator], q, tiled, eps, log_p.T, dlog_p, **options)
    return tuple(len(log_p) * g for g in grads)


# ------------------------------------------------------------------------------------- the model


# ----------------------------------------------------------------------------------------- training


class DregTrainer(Trainer):
    """Trains by the first of the estimators `names` and follows the inference gradients of all."""

    DECAY = 0.99

    def __init__(self, args, data, model, names, options):
        super().__init__(
            args, data, model, self.tracked_estimate, partial(init_aux, estimator=names[0]),
            lambda model, aux: self.tracked, adam={"beta2": 0.999}, aux_rate=1,
        )  # fmt: skip
        self.copies, self.names, self.options, self.tracked = 1, names, options, {}
        size = sum(p.size for p in model.split(self.params)[0])
        self.moments = {name: GradientVariance(size, self.DECAY) for name in names}

    def tracked_estimate(self, model, params, aux, x, noise):
        bound, phi, theta, aux_grads = all_gradients(
            self.names, model, params, aux, x, noise, **self.options
        )
        self.tracked = {}
        for name, g in zip(self.names, phi):
            gradient = flatten(g, model.dtype)[0]
            log_variance, snr = log_variance_and_snr(self.moments[name], gradient)
            label = "" if name == self.names[0] else f"/{name}"
            self.tracked[f"log_inference_variance{label}"] = log_variance
            self.tracked[f"inference_snr{label}"] = snr
        if aux:
            scalars = zip(("alpha", "beta", "gamma", "delta"), aux[0])
            self.tracked |= {f"cv/{name}": float(scalar) for name, scalar in scalars}
        return bound, [*phi[0], *theta], aux_grads

    def arrays(self):
        moments = {f"{name}_{m}": getattr(self.moments[name], m)
                   for name in self.names for m in ("m1", "m2")}  # fmt: skip
        return super().arrays() | moments

    def resume(self, folder):
        rows = super().resume(folder)
        for moments in self.moments.values():
            moments.t = self.step_count
        return rows


def load_params(trainer, flag, folder):
    """Put the parameters of the run in `folder` into the trainer; InputError if they do not fit."""
    path = Path(folder) / "checkpoint.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            params, aux = file["params"], file["aux"]
        if params.shape != trainer.flat_params.shape:
            raise ValueError(f"it has {len(params)} parameters, not {len(trainer.flat_params)}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{flag}: {path} cannot be used ({error})") from error
    trainer.flat_params[...] = params
    if aux.shape == trainer.flat_aux.shape:
        trainer.flat_aux[...] = aux


# ------------------------------------------------------------------------------------ toy and main


def linear_gaussian(rng, D=20, offset=0.05):
    """(log_joint, mu, log_sigma, log p(x)) of z ~ N(m, I), x ~ N(z, I) (arXiv 1802.04537).

    q = N(mu, 2/3 I) is near the posterior N((x + m) / 2, I / 2), its mean `offset` · N(0, I) off.
    """
    m = rng.standard_normal(D)
    x = m + math.sqrt(2) * rng.standard_normal(D)
    one = np.ones(D)
    log_joint = lambda z: log_normal(z, m, one) + log_normal(x, z, one)
    mu = (x + m) / 2 + offset * rng.standard_normal(D)
    return log_joint, mu, np.full(D, 0.5 * math.log(2 / 3)), log_normal(x, m, math.sqrt(2) * one)


# Estimators with the same expectation: what drowns in noise in one is seen in the other.
SAME_MEAN = {"iwae": "dreg", "rws": "rws-dreg"}


def signal_to_noise(estimators, K, n, rng, problem):
    """|E g| / √tr Cov g of each estimator's gradient g for μ, from n ≥ 2 of them."""
    log_joint, mu, log_sigma, _ = problem
    g = {name: [] for name in estimators}
    for _ in range(0, n, rows := max(1, min(n, 20_000 // K))):
        eps = rng.standard_normal((rows, K, len(mu)))
        for name in estimators:
            g[name].append(gradient_samples(log_joint, mu, log_sigma, eps, name)[0])
    g = {name: np.concatenate(parts) for name, parts in g.items()}
    noise = {name: np.sum(np.var(g_i, axis=0, ddof=1)) for name, g_i in g.items()}
    signal = {name: np.sum(np.mean(g_i, axis=0) ** 2) - noise[name] / len(g_i)
              for name, g_i in g.items()}  # fmt: skip
    return {name: math.sqrt(max(signal[SAME_MEAN.get(name, name)], 0) / noise[name]) for name in g}


def toy(args):
    """--toy: SNR against K on a linear-Gaussian model of 20 dimensions (arXiv 1802.04537)."""
    rng, folder = stream(args.seed, INIT), open_run(args)
    problem, counts = linear_gaussian(rng), [1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000]
    names, rows = ("dreg", "iwae", "rws-dreg", "rws", "stl"), []
    log_joint, mu, log_sigma, log_p_x = problem
    for K in tqdm(counts, disable=None):
        defined = [name for name in names if K > 1 or name not in NEED_TWO]
        snr = dict.fromkeys(names, math.nan)
        snr |= signal_to_noise(defined, K, 2000, rng, problem)
        z = mu + np.exp(log_sigma) * rng.standard_normal((K, 2000, len(mu)))
        bounds = log_mean_exp(log_joint(z) - log_normal(z, mu, np.exp(log_sigma)), 0)
        error = np.std(bounds, ddof=1) / math.sqrt(len(bounds))
        rows.append({"K": K, **snr, "gap": float(log_p_x - np.mean(bounds)),
                     "gap_error": float(error)})  # fmt: skip
        print_row(rows[-1], header=len(rows) == 1)
    write_rows(folder / "log.csv", rows)
    slopes = {name: np.polyfit(np.log(counts[5:]), np.log([r[name] for r in rows[5:]]), 1)[0]
              for name in names}  # fmt: skip
    write_json(folder / "summary.json", {"slopes": slopes, "log_p_x": float(log_p_x)})
    tqdm.write("slope of log SNR over log K, K >= 32: "
               + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))  # fmt: skip
    if not args.no_plots:
        plot_toy(folder / "toy.png", rows, names)
    tqdm.write(f"run folder {folder}")


def plot_toy(path, rows, names):
    """The signal-to-noise ratios against K, and the gap with its 95 % interval."""
    figure, (left, right) = figures.new_figure(2, 4.8, 3.6)
    counts, gap, error = (np.array([row[key] for row in rows]) for key in ("K", "gap", "gap_error"))
    for k, name in enumerate(names):
        snr = np.array([row[name] for row in rows])
        figures.draw(left, counts, np.where(snr > 0, snr, math.nan), name, position=k)
    left.set(xlabel="K", ylabel="signal-to-noise ratio of the gradient for μ")
    left.set(xscale="log", yscale="log")
    figures.label_curves(left)
    right.set(xscale="log", yscale="log", xlabel="K", ylabel="log p(x) − E[L], nats (95 %)")
    right.errorbar(counts, gap, 1.96 * error, fmt="ko-", markersize=5, capsize=3)
    right.set_ylim(bottom=np.min(gap[gap > 0]) / 3)
    figures.save(figure, path)


def main(argv=None):
    count, positive = cli.COUNT, cli.POSITIVE
    p = cli.parser("dreg", __doc__, sbn=False, dynamic=True, batch_size=32, samples=None,
                        digits={"steps": 3000, "lr": 2e-3, "eval_epochs": 10, "samples": 16},
                        full={"samples": 64})  # fmt: skip
    p.flag("--estimator", "of the inference network's gradient", choices=ESTIMATORS)
    share = cli.number(float, 0, 1)
    p.flag("--alpha", "of dreg-alpha: 0 is dreg, 1 rws-dreg", 0.9, type=share)
    p.flag("--antithetic", "mirror half of the samples", action="store_true")
    p.flag("--latent", "units of z", 50, type=count, metavar="D")
    p.flag("--hidden", "units of every tanh layer", 200, type=count, metavar="N")
    p.flag("--track", "also log variance and SNR of EST1,EST2,...", metavar="EST")
    p.flag("--test-samples", "samples of the log-likelihood at the end", 5000, type=count,
           metavar="K")  # fmt: skip
    p.flag("--inference-only", "train only q, from the run in DIR", metavar="DIR")
    p.flag("--bias-check", "test the estimator on the run in DIR, or train one first",
           nargs="?", const="", metavar="DIR")  # fmt: skip
    p.flag("--against", "what --bias-check compares with", "iwae", choices=ESTIMATORS)
    p.flag("--precision", "of --bias-check: the bias to find, over the norm", 0.1, type=positive)
    p.flag("--draws", "at most, of --bias-check", 5000, type=cli.number(int, 2), metavar="N")
    p.flag("--toy", "the signal-to-noise ratio against K", action="store_true")
    args = cli.parse(p, argv)
    if args.toy:
        return toy(args)
    tracked = args.track.split(",") if args.track else []
    if unknown := set(tracked) - {*ESTIMATORS}:
        p.error(f"--track: '{min(unknown)}' is none of {', '.join(ESTIMATORS)}")
    names = list(dict.fromkeys([args.estimator, *tracked]))
    checked = [*names, args.against] if args.bias_check is not None else names
    if args.samples < 2 and (bad := [name for name in checked if name in NEED_TWO]):
        p.error(f"--samples: {bad[0]} needs at least 2")
    if args.antithetic and args.samples % 2:
        p.error(f"--antithetic: --samples has to be even, not {args.samples}")
    if args.antithetic and args.estimator not in ("iwae", "jk"):
        print(f"--antithetic: the gradient of {args.estimator} is biased then", file=sys.stderr)
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model = GaussianVAE(data.train_mean, args.latent, args.hidden, args.task, args.samples,
                        args.antithetic)  # fmt: skip
    options = {"alpha": args.alpha, "frozen": args.inference_only is not None}
    trainer = DregTrainer(args, data, model, names, options)
    for flag in ("inference_only", "bias_check"):
        if getattr(args, flag):
            load_params(trainer, f"--{flag.replace('_', '-')}", getattr(args, flag))
    if args.bias_check is None:
        return fit(trainer)
    folder = open_run(args) if args.bias_check else fit(trainer)[0]
    result = bias_check(all_gradients, trainer, args.against, args.precision, args.draws)
    write_json(folder / "bias_check.json", result)
    tqdm.write(f"{result['verdict']}\nrun folder {folder}")


if __name__ == "__main__":
    cli.run(main)
