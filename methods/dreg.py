"""DReG: doubly reparameterized gradients (Tucker et al. 2019, arXiv 1810.04152).

A VAE with Gaussian z_k = μ + σ ε_k, k = 1 … K, has the importance weights and the bound (IWAE)

    log w_k = log p(x, z_k) − log q(z_k|x),    L = log mean_k w_k ≤ log p(x).

With w̃_k = w_k / Σ_j w_j, the gradient of L for the inference network φ is a sum over samples of
w̃_k times the path through z_k, and of −w̃_k times the score ∇log q(z_k|x) at fixed z_k. The means
of the two parts nearly cancel, their noise does not: it drowns the signal as K grows. A second
reparameterization turns the score into a path as well, and what is left is

    ∇φ E[L]  =  E[ Σ_k w̃_k² (∂ log w_k / ∂z_k) ∂z_k/∂φ ].

The same step turns the gradient of reweighted wake-sleep (rws) into a path with the weights
w̃_k − w̃_k², and it applies to the jackknife bound of Nowozin 2018 (jk). The estimator of Roeder et
al. 2017 (stl, arXiv 1703.09194) only drops the score, and so is biased for K > 1. With mirrored
noise (--antithetic) dreg is biased too, because z_k then moves with its mirror image; iwae is not.

Cost: one pass forward and one backward through the decoder, whatever the estimator. Each further
estimator to compare with (--track) costs a pass through the encoder. What differs from the authors'
code: the task "predict" models the lower half of an image given the upper half; the bias check
ends by itself, tests every parameter and does not train; validation and test bits are fixed;
dreg-cv's baseline is the bound of the K − 1 other samples (theirs is larger by log(K − 1)).

    python methods/dreg.py
"""

import math
import sys
from functools import partial

# common before numpy: it chooses the number of BLAS threads
from common import InputError, gradients, log_mean_exp, one_of, shaped, stop_gradient, value_of
from concrete import finite
from harness import cli
from harness.data import load_dataset
from harness.diagnostics import bias_check
from harness.figures import plot_snr_and_gap
from harness.gaussian import GaussianVAE, encoder_gradients, log_normal, tangent, weighted_affine
from harness.runfolder import open_run, print_row, write_json, write_rows
from harness.streams import INIT, stream
from harness.tracking import TrackingTrainer
from harness.run import fit

import autograd.numpy as np
from tqdm import tqdm

# ----------------------------------------------------------- the estimators, as three surrogates


def surrogates(estimator, log_w, s, r, alpha=0.9, cv=(0.0, 0.0, 0.0, 0.0)):
    """The value of the bound, and what to differentiate for θ and for φ: each (batch,), in nats.

    The gradient of the second for the generative model θ, and of the third for the inference
    network φ, is the estimate (ascent). log_w, s and r have shape (K, batch):
        log_w    log p(x, z) − log q(z|x), in which everything varies
        s        the same with q's μ and σ stopped: only the path through z varies
        r        log q(z|x) with z stopped: only the score varies.
    `alpha` belongs to dreg-alpha, the scalars `cv` to dreg-cv. Raises ValueError for an estimator
    that is unknown, or needs more samples.
    """
    K = check(estimator, len(log_w))
    total = lambda terms: np.sum(terms, axis=0)  # over the samples
    L = log_mean_exp(log_w, 0)  # the bound of Burda et al. 2016 (arXiv 1509.00519)
    w = stop_gradient(softmax(log_w, 0))  # w̃
    w2 = w * w

    def w_others():  # w̃_k Σ_{j≠k} w̃_j = w̃ − w̃², but without the loss where w̃ rounds to 1
        return w * np.dot(1 - np.eye(K, dtype=w.dtype), w)

    def J():  # Nowozin 2018: K L − (K − 1) × mean of the K bounds with one sample left out
        return K * L - (K - 1) * np.sum(without_each(log_w)[0], axis=0) / K

    def jk_weights():  # those of dreg for each of the K + 1 bounds in J
        _, w_without = without_each(log_w)  # (K, K, batch), 0 for the sample that is left out
        return K * w2 - (K - 1) * stop_gradient(np.sum(w_without**2, axis=0)) / K

    def norm_weights():  # w_others / Σ w_others, from logarithms, as all of them may round to 0
        return stop_gradient(softmax(log_w + without_each(log_w)[0], 0))

    def control_variates():  # score or path form of each half of dreg, with baselines
        a, b, gamma, delta = cv
        L_others = stop_gradient(without_each(log_w)[0])  # the bound of the K − 1 other samples
        first = a * (stop_gradient(L) - (1 - gamma) * L_others) * r + (1 - a) * w * s
        second = (1 - b) * ((1 - delta) / K - w) * r - b * w_others() * s
        return total(first + second)

    table = {  # (value, for θ, for φ); where nobody is named, see Tucker et al. 2019
        "iwae": lambda: (L, L, L),  # Burda et al. 2016
        "rws": lambda: (L, L, total(w * r)),  # Bornschein & Bengio 2014: the wake phase of φ
        "stl": lambda: (L, L, total(w * s)),  # Roeder et al. 2017: the path alone
        "dreg": lambda: (L, L, total(w2 * s)),  # IWAE-DReG
        "rws-dreg": lambda: (L, L, total(w_others() * s)),  # RWS-DReG
        "dreg-norm": lambda: (L, L, total(w2 * s) / total(w2)),
        "rws-dreg-norm": lambda: (L, L, total(norm_weights() * s)),
        "dreg-alpha": lambda: (L, L, total(((1 - alpha) * w2 + alpha * w_others()) * s)),
        "jk": lambda: (J(), J(), J()),  # Nowozin 2018
        "jk-dreg": lambda: (J(), J(), total(jk_weights() * s)),  # JVI-DReG
        "dreg-cv": lambda: (L, L, control_variates()),
    }
    return table[estimator]()


ESTIMATORS = ("dreg", "iwae", "stl", "rws", "rws-dreg", "dreg-norm", "rws-dreg-norm",
              "dreg-alpha", "jk", "jk-dreg", "dreg-cv")  # fmt: skip
OPTIONS = {"dreg-alpha": {"alpha": {}}, "dreg-cv": {"cv": {"scalars": 4}}}  # and their axes
# With one sample these are undefined or, as w̃ = 1, have nothing to learn from.
NEED_TWO = ("rws", "rws-dreg", "rws-dreg-norm", "jk", "jk-dreg", "dreg-cv")


def check(estimator, K, where="--samples"):
    """K, if the estimator is defined for K samples; InputError, a ValueError, if it is not."""
    one_of("estimator", estimator, ESTIMATORS)
    if K < 2 and estimator in NEED_TWO:
        raise InputError(f"{where}: {estimator} needs at least 2")
    return K


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


def plain_estimate(model, params, aux, x, noise, *, estimator="dreg", alpha=0.9):
    """What `estimate` returns, read off the surrogates: two of them are differentiated."""
    (eps,), (phi, theta) = noise, model.split(params)  # eps: (K, batch, latent)
    cv = aux[0] if aux else np.zeros(4, eps.dtype)

    def sample(phi, theta):
        mu, sigma = model.q(phi, x)  # (batch, latent)
        z = mu + sigma * eps
        log_p = model.log_likelihood(theta, x, z) + log_normal(z, *model.prior(theta, x))
        s = log_p - log_normal(z, stop_gradient(mu), stop_gradient(sigma))
        r = log_normal(stop_gradient(z), mu, sigma)
        return log_p - log_normal(z, mu, sigma), s, r

    def for_phi(phi, cv=cv):
        L, _, surrogate = surrogates(estimator, *sample(phi, theta), alpha, cv)
        return [np.sum(surrogate) / len(x)], L

    def for_theta(theta):
        _, surrogate, _ = surrogates(estimator, *sample(phi, theta))
        return [np.sum(surrogate) / len(x)], []

    def mean_square(cv):  # of the gradient for φ: its variance, up to a constant
        ((g,), _) = gradients(lambda phi: for_phi(phi, cv[0]), phi)
        g = np.concatenate([np.ravel(g_i) for g_i in g])
        return [np.sum(g**2) / len(g)], []

    (phi_grads,), L = gradients(for_phi, phi)
    (theta_grads,), _ = gradients(for_theta, theta)
    aux_grads = gradients(mean_square, aux)[0][0] if aux else []
    return L, [*phi_grads, *theta_grads], aux_grads


# ------------------------- the same, faster: one pass through the decoder, and only of its tangent


def density_gradients(estimators, mu, sigma, eps, log_p, dlog_p, **options):
    """The gradient of the mean inference surrogate for [μ, σ], a list, of each of the estimators.

    mu and sigma have shape (batch, D), `eps` (K, batch, D). log_p (K, batch) is log p(x, z), and
    dlog_p its derivative, like eps: no more is needed of the decoder than its tangent at z. The
    options are alpha and cv. Also returns the first estimator's value (batch,) in nats.
    """

    def means(mu_sigma):
        mu, sigma = mu_sigma
        z = mu + sigma * eps
        log_joint = tangent(z, log_p, dlog_p)
        log_w = log_joint - log_normal(z, mu, sigma)
        s = log_joint - log_normal(z, stop_gradient(mu), stop_gradient(sigma))
        r = log_normal(stop_gradient(z), mu, sigma)
        triples = [surrogates(name, log_w, s, r, **options) for name in estimators]
        return [np.sum(phi) / len(phi) for _, _, phi in triples], triples[0][0]

    return gradients(means, [mu, sigma])


def generative_gradients(estimator, model, theta, x, z, log_q, frozen=False):
    """log p(x, z) (K, batch), its derivative like z, and the gradient of the mean generative
    surrogate, a list like theta; [] if theta is `frozen`.

    The surrogate's derivative with respect to log w_k is the weight c_k of sample k in ∇θ, while
    dlog p / dz is wanted of each sample alone. Hence one backward pass in which every sample counts
    1, and c_k only where it adds to the gradient of a parameter.
    """
    c = []  # for c_k, (K, batch), once log w_k is known, which is before the backward pass
    layer = lambda h, W, b: weighted_affine(h, W, b, c)

    def unit(arrays):
        z, params = arrays[0], theta if frozen else arrays[1:]
        prior = model.prior(params, x)
        log_p = model.log_likelihood(params, x, z, layer) + log_normal(z, *stop_gradient(prior))
        c.append(generative_weights(estimator, stop_gradient(log_p) - log_q))
        prior_only = np.sum(c[0] * log_normal(stop_gradient(z), *prior))
        return [np.sum(log_p) + prior_only], log_p

    ((dlog_p, *grads),), log_p = gradients(unit, [z] if frozen else [z, *theta])
    return log_p, dlog_p, grads


def generative_weights(estimator, log_w):
    """∂(mean generative surrogate) / ∂ log w, (K, batch): w̃ / batch, or the jackknife's."""
    value = lambda log_w: surrogates(estimator, log_w, log_w, log_w)[1]
    ((c,),), _ = gradients(lambda a: ([np.sum(value(*a)) / log_w.shape[1]], []), [log_w])
    return c


def all_gradients(estimators, model, params, aux, x, noise, *, alpha=0.9, frozen=False):
    """For the first of the estimators bound (batch,), gradients of theta and of aux; for all, phi.

    See `estimate`; the result is bound, a list of lists like phi, a list like theta, one like aux,
    and for each estimator mean_i |g_i|², if its gradient of phi is the mean over images of g_i.
    """
    (eps,), (phi, theta) = noise, model.split(params)
    for name in estimators:
        check(name, len(eps))
    mu, sigma = model.q(phi, x)
    z = mu + sigma * eps
    log_p, dlog_p, theta_grads = generative_gradients(
        estimators[0], model, theta, x, z, log_normal(z, mu, sigma), frozen
    )
    at = mu, sigma, eps, log_p, dlog_p
    slopes_of = lambda names, cv: density_gradients(names, *at, alpha=alpha, cv=cv)

    def mean_square(aux):
        slopes, _ = slopes_of(["dreg-cv"], *aux)
        ((g,), _) = encoder_gradients(model, phi, x, slopes)
        return [sum(np.sum(g_i * g_i) for g_i in g) / sum(np.size(g_i) for g_i in g)], []

    slopes, bound = slopes_of(estimators, aux[0] if aux else np.zeros(4, z.dtype))
    grads, mean_squares = encoder_gradients(model, phi, x, slopes)
    theta_grads = theta_grads or [np.zeros_like(p) for p in theta]
    aux_grads = gradients(mean_square, aux)[0][0] if aux else []
    return bound, grads, theta_grads, aux_grads, mean_squares


def init_aux(rng, model, estimator="dreg"):
    """dreg-cv learns four scalars, 0 at first; all others nothing."""
    return [np.zeros(4, model.dtype)] if estimator == "dreg-cv" else []


def estimate(model, params, aux, x, noise, *, estimator="dreg", **options):
    """The estimator: bound (batch,) in nats, gradients like params (ascent), gradients like aux.

    The latter are those of the mean square of the inference network's gradient. `noise` is
    [ε (K, batch, latent)]. The options are `alpha`, of dreg-alpha, and `frozen`: the gradient of
    the generative parameters is 0. Raises InputError if the estimator needs more samples.
    """
    bound, phi, theta, aux_grads, _ = all_gradients(
        [estimator], model, params, aux, x, noise, **options
    )
    return bound, [*phi[0], *theta], aux_grads


def gradient_samples(log_joint, mu, log_sigma, eps, estimator="dreg", **options):
    """n independent estimates of the gradient of the K-sample bound for (μ, log σ): (n, D) each.

    `log_joint` maps z (n, K, D) to log p(x, z) (n, K) in nats and is differentiable; μ and log σ
    of q = N(μ, σ²) have shape (D,), `eps` is standard normal of shape (n, K, D). The options are
    alpha in [0, 1] of dreg-alpha and the scalars cv of dreg-cv. Raises InputError, a ValueError,
    for other arguments, too few samples, and a log_joint that is not finite, or has no slope.
    """
    mu = shaped("mu", mu, D=None)
    log_sigma = shaped("log_sigma", log_sigma, D=len(mu))
    eps = shaped("eps", eps, n=None, K=None, D=len(mu))
    most = 40 if log_sigma.dtype == np.float32 else 80
    if np.max(np.abs(log_sigma)) > most:
        raise InputError(f"log_sigma: has to be from -{most} to {most}, so that 1/σ² is a number")
    check(estimator, eps.shape[1], "eps")
    for name, value in options.items():
        if name not in OPTIONS.get(estimator, {}):
            raise InputError(f"{name}: estimator {estimator} has no such option")
        options[name] = shaped(name, value, **OPTIONS[estimator][name]).tolist()
    if not 0 <= options.get("alpha", 0) <= 1:
        raise InputError(f"alpha: has to be from 0 to 1, not {options['alpha']}")
    sigma = np.exp(log_sigma)
    total = lambda arrays: (
        [np.sum(log_p := value_of(log_joint, arrays[0], "log_joint", 2))], log_p
    )  # fmt: skip
    ((dlog_p,),), log_p = gradients(total, [mu + sigma * eps])
    if not np.any(finite(dlog_p, "log_joint")) and np.ptp(log_p) > 0:
        raise InputError("log_joint: has slope 0 at every z, but varies: it jumps between them")
    tiled = [np.tile(p, (len(eps), 1)) for p in (mu, sigma)]  # one row, one gradient
    eps, dlog_p = (np.swapaxes(a, 0, 1) for a in (eps, dlog_p))  # K first
    ((d_mu, d_sigma),), _ = density_gradients([estimator], *tiled, eps, log_p.T, dlog_p, **options)
    return len(log_p) * d_mu, len(log_p) * d_sigma * sigma


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


def toy(args, counts=(1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)):
    """--toy: SNR against K on a linear-Gaussian model of 20 dimensions (arXiv 1802.04537)."""
    rng, folder = stream(args.seed, INIT), open_run(args)
    problem = linear_gaussian(rng)
    names, rows = ("dreg", "iwae", "rws-dreg", "rws", "stl"), []
    log_joint, mu, log_sigma, log_p_x = problem
    for K in tqdm(counts, disable=None):
        defined = [name for name in names if K > 1 or name not in NEED_TWO]
        snr = dict.fromkeys(names, math.nan)
        snr |= signal_to_noise(defined, K, 2000, rng, problem)
        z = mu + np.exp(log_sigma) * rng.standard_normal((K, 2000, len(mu)))
        bounds = log_mean_exp(log_joint(z) - log_normal(z, mu, np.exp(log_sigma)), 0)
        gap, error = log_p_x - np.mean(bounds), np.std(bounds, ddof=1) / math.sqrt(len(bounds))
        rows.append({"K": K, **snr, "gap": float(gap), "gap_error": float(error)})
        print_row(rows[-1], header=len(rows) == 1)
    write_rows(folder / "log.csv", rows)
    slopes = {name: np.polyfit(np.log(counts[-6:]), np.log([r[name] for r in rows[-6:]]), 1)[0]
              for name in names}  # fmt: skip
    write_json(folder / "summary.json", {"slopes": slopes, "log_p_x": float(log_p_x)})
    tqdm.write(f"slope of log SNR over log K, K >= {counts[-6:][0]}: "
               + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))  # fmt: skip
    if not args.no_plots:
        plot_snr_and_gap(folder / "toy.png", rows, names)
    tqdm.write(f"run folder {folder}")


# What a run has to have in common with the one that its parameters come from
SAME_MODEL = ("dataset", "dynamic_binarization", "task", "latent", "hidden")
# What has no effect where nothing is trained
TRAINING = {"inference_only", "track", "steps", "lr", "log_every", "eval_every", "eval_samples",
            "test_samples", "tensorboard", "no_plots"}  # fmt: skip


def check_flags(p, args, given):
    """The estimators to follow. Refuses, in one line, flags without effect or in contradiction."""
    tracked = [] if args.track is None else args.track.split(",")
    names = list(dict.fromkeys([args.estimator, *tracked]))
    checks, checks_run = args.bias_check is not None, isinstance(args.bias_check, str)
    used = [*names, args.against] if checks else names
    of_check = given & {"against", "precision", "draws"}
    idle = {
        "with --toy": given - {"toy", "seed", "out", "no_plots"} if args.toy else (),
        "without dreg-alpha": given & {"alpha"} if "dreg-alpha" not in used else (),
        "without --bias-check": of_check if not checks else (),
        "with --bias-check DIR, which trains nothing": given & TRAINING if checks_run else (),
    }
    for mode, flags in idle.items():
        if flags:
            p.error(f"{p.flag_of(min(flags))}: has no effect {mode}")
    for name in used:
        if name not in ESTIMATORS:
            p.error(f"--track: '{name}' is none of {', '.join(ESTIMATORS)}")
        if name in NEED_TWO and not args.toy and args.samples < 2:
            p.error(f"--samples: {name} needs at least 2")
    if checks and args.estimator == args.against:
        p.error(f"--against: has to be another estimator than {args.estimator}")
    if args.antithetic and args.samples % 2:
        p.error(f"--antithetic: --samples has to be even, not {args.samples}")
    if args.antithetic and args.estimator not in ("iwae", "jk"):
        print(f"--antithetic: the gradient of {args.estimator} is biased then", file=sys.stderr)
    return names


def main(argv=None):
    p = cli.parser("dreg", __doc__, sbn=False, dynamic=True, batch_size=32, samples=None,
                        digits={"steps": 1500, "lr": 2e-3, "eval_epochs": 10, "samples": 16},
                        full={"samples": 64})  # fmt: skip
    p.flag("--estimator", "of the inference network's gradient", choices=ESTIMATORS)
    share = cli.number(float, 0, 1)
    p.flag("--alpha", "of dreg-alpha: 0 is dreg, 1 rws-dreg", 0.9, type=share)
    p.flag("--antithetic", "mirror half of the samples", action="store_true")
    p.flag("--latent", "units of z", 50, type=cli.UNITS, metavar="D")
    p.flag("--hidden", "units of every tanh layer", 200, type=cli.UNITS, metavar="N")
    p.flag("--track", "also log variance and SNR of EST1,EST2,...", metavar="EST")
    p.flag("--test-samples", "samples of the log-likelihood at the end", 5000, type=cli.SAMPLES,
           metavar="K")  # fmt: skip
    p.flag("--inference-only", "train only q, from the run in DIR", type=cli.folder,
           metavar="DIR")  # fmt: skip
    p.flag("--bias-check", "test the estimator on the run in DIR, or train one first",
           nargs="?", const=True, type=cli.folder, metavar="DIR")  # fmt: skip
    p.flag("--against", "what --bias-check compares with", "iwae", choices=ESTIMATORS)
    p.flag("--precision", "of --bias-check: bias to find, over the norm", 0.1, type=cli.POSITIVE)
    p.flag("--draws", "at most, of --bias-check", 5000, type=cli.number(int, 2, 10**9), metavar="N")
    p.flag("--toy", "the signal-to-noise ratio against K", action="store_true")
    args = cli.parse(p, argv)
    names = check_flags(p, args, cli.given(p, argv))
    if args.toy:
        return toy(args)
    data = load_dataset(args.dataset, args.dynamic_binarization)
    model = GaussianVAE(data.train_mean, args.latent, args.hidden, args.task, args.samples,
                        args.antithetic)  # fmt: skip
    frozen, scalars = args.inference_only is not None, ("alpha", "beta", "gamma", "delta")
    trainer = TrackingTrainer(
        args, data, model, partial(all_gradients, alpha=args.alpha, frozen=frozen), names,
        partial(init_aux, estimator=names[0]), adam={"beta2": 0.999}, aux_rate=1,
        report=lambda model, aux: {f"cv/{k}": float(x) for cv in aux for k, x in zip(scalars, cv)},
    )  # fmt: skip
    if frozen and not args.resume:  # a resumed run has the parameters in its own checkpoint
        trainer.start_from(args.inference_only, "--inference-only", SAME_MODEL, p.differs)

    def check(folder, rows=()):
        pair = [args.estimator, args.against]
        result = bias_check(partial(trainer.draw_pair, pair), pair, args.precision, args.draws)
        write_json(folder / "bias_check.json", result)
        tqdm.write(f"{result['verdict']}\nrun folder {folder}")
        return {"bias_check": result}  # in the summary, which a longer run keeps

    if args.bias_check in (None, True):  # True: no DIR is given
        return fit(trainer, check if args.bias_check else None)
    trainer.start_from(args.bias_check, "--bias-check", SAME_MODEL, p.differs)
    check(open_run(args, data_sha256=data.sha256))


if __name__ == "__main__":
    cli.run(main)
