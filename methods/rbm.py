"""The restricted Boltzmann machine: energy, sampling, log Z by enumeration and by AIS.

python methods/rbm.py        the samplers against enumeration
"""

import math
from functools import partial

from common import InputError, log_mean_exp, outer, sigmoid, softplus, times

from harness.data import load_dataset
from harness.figures import plot_curves
from harness.optimizer import Adam, flatten
from harness.runfolder import open_run, write_rows
from harness.streams import AIS, CHAINS, GIBBS, INIT
from harness.streams import stream as random_stream

import autograd.numpy as np
from autograd.scipy.special import logsumexp
from tqdm import tqdm


# ---------------------------------------------------------------- the RBM, a list b1, b2, W: energy


def energy(rbm, z1, z2):
    """E(z) = −b1'z1 − b2'z2 − z1'W z2, in nats, for z1 (..., n1) and z2 (..., n2): (...)."""
    b1, b2, W = rbm
    return -np.sum(b1 * z1, axis=-1) - np.sum((b2 + times(z1, W)) * z2, axis=-1)


def enumerate_rbm(rbm):
    """Exact (log Z, moments) by a sum over all states of the smaller side; see sample_moments.

    Raises InputError (a ValueError) if that side has more than 20 units.
    """
    b1, b2, W = rbm
    if len(b1) > len(b2):
        log_Z, (m2, m1, m21) = enumerate_rbm([b2, b1, W.T])
        return log_Z, [m1, m2, m21.T]
    n = len(b1)
    if n > 20:
        raise InputError(f"enumeration is for at most 20 units on a side, not {n}")
    log_Z, moments = -np.inf, [np.zeros_like(p) for p in rbm]
    for states in np.array_split(np.arange(2**n), max(1, 2**n // 4096)):
        z1 = ((states[:, None] >> np.arange(n)) & 1).astype(W.dtype)
        a2 = b2 + z1 @ W
        log_p = z1 @ b1 + np.sum(softplus(a2), axis=1)  # of z1, without −log Z
        new = np.logaddexp(log_Z, logsumexp(log_p, 0))
        p, z2 = np.exp(log_p - new)[:, None], sigmoid(a2)  # z2 is E[z2 | z1]
        sums = np.sum(p * z1, axis=0), np.sum(p * z2, axis=0), (p * z1).T @ z2
        moments = [np.exp(log_Z - new) * m + s for m, s in zip(moments, sums)]
        log_Z = new
    return log_Z, moments


# ---------------------------------------------------------------------------- sampling from the RBM


def fair_bits(rng, chains, rbm):
    """(z1, z2) of shapes (chains, n1), (chains, n2), in the type of the RBM: its state at W = 0."""
    return [(rng.random((chains, len(b))) < 0.5).astype(b.dtype) for b in rbm[:2]]


def gibbs(rbm, z1, z2, rng, sweeps):
    """`sweeps` times z2 | z1, then z1 | z2, for all chains (rows) at once and in place."""
    b1, b2, W = rbm
    buffers = [(np.empty_like(z), np.empty_like(z)) for z in (z1, z2)]
    with np.errstate(over="ignore", invalid="ignore"):  # exp(a) = inf is a probability of 1
        for _ in range(sweeps):
            _flip(z1, W, b2, rng, *buffers[1], z2)
            _flip(z2, W.T, b1, rng, *buffers[0], z1)


def _flip(given, W, b, rng, a, u, z):
    """z = 1[u > σ(−a)], a = given W + b, written as u (1 + exp(a)) > 1: no pass but in place."""
    np.matmul(given, W, out=a)
    a += b
    np.exp(a, out=a)
    a += 1
    a *= rng.random(out=u, dtype=u.dtype)
    np.greater(a, 1, out=z)


def sample_moments(z1, z2, w=None):
    """[E z1, E z2, E z1 z2'] over chains, equally or by weights w (Σ w = 1): d log Z / d rbm."""
    w = np.full(len(z1), 1 / len(z1), z1.dtype) if w is None else w
    return [w @ z1, w @ z2, outer(w[:, None] * z1, z2)]


def pcd(old, new, z1, z2, rng, sweeps):
    """Persistent contrastive divergence: the chains of RBM `old` make `sweeps` sweeps in `new`.

    Returns the change of log Z, −log mean exp(E_new − E_old) over the chains where they arrive:
    sound as long as the sweeps keep up with the RBM. In place.
    """
    gibbs(new, z1, z2, rng, sweeps)
    return -float(log_mean_exp(-_log_weights(old, new, z1, z2), 0))


def population_annealing(old, new, z1, z2, rng, sweeps, min_ess=0.5):
    """The chains of RBM `old` make `sweeps` sweeps in it, are weighted by exp(E_old − E_new), and
    resampled to be those of `new` (Hukushima & Iba 2003). Returns the change of log Z. In place.

    If the effective sample size is below min_ess of the chains, the way is halved until it is not,
    and the rest follows in the same manner. The sweeps come first: `new` is made from the moments
    of these very chains, and their noise would be in E_old − E_new if they had not moved since.
    """
    start, log_ratio = 0.0, 0.0  # start: where on the way from old to new
    while start < 1:
        here = [p + (p_new - p) * p.dtype.type(start) for p, p_new in zip(old, new)]
        gibbs(here, z1, z2, rng, sweeps)
        # E is linear in the parameters: a part of the way has that part of the log-weights
        log_w, part = (1 - start) * _log_weights(old, new, z1, z2), 1.0
        while effective_sample_size(part * log_w) < min_ess * len(z1):
            part /= 2
        start = 1.0 if part == 1 else start + part * (1 - start)
        log_ratio += float(log_mean_exp(part * log_w, 0))
        rows = resample(part * log_w, rng.random())
        z1[...], z2[...] = z1[rows], z2[rows]
    return log_ratio


def _log_weights(old, new, z1, z2):
    """E_old − E_new of every chain, in double precision."""
    return -energy([p_new - p for p, p_new in zip(old, new)], z1, z2).astype(float)


def effective_sample_size(log_w):
    """(Σ w)² / Σ w², between 1 and the number of weights."""
    w = np.exp(log_w - log_w.max())
    return w.sum() ** 2 / (w @ w)


def resample(log_w, u):
    """Systematic resampling: row i comes up ⌊n w_i⌋ or ⌈n w_i⌉ times, Σ w = 1; u is uniform."""
    n, ends = len(log_w), np.cumsum(np.exp(log_w - log_w.max()))
    rows = np.searchsorted(ends, (np.arange(n) + u) / n * ends[-1], side="right")
    return np.minimum(rows, n - 1)  # should u round up to 1


SAMPLERS = {"pa": population_annealing, "pcd": pcd}


def ais(rbm, rng, chains=1024, temperatures=1000):
    """(log Z, its standard error, moments) by annealed importance sampling; Z itself is unbiased.

    The chains start as fair bits, log Z = (n1 + n2) log 2, and pass through the RBMs k/K · (b1, b2,
    W), k = 1 … K, with one Gibbs sweep in each (Neal 2001, arXiv physics/9803008).
    """
    z1, z2 = fair_bits(rng, chains, rbm)
    log_w = np.zeros(chains)
    for k in range(1, temperatures + 1):
        log_w -= energy(rbm, z1, z2) / temperatures
        if k < temperatures:
            gibbs([p * p.dtype.type(k / temperatures) for p in rbm], z1, z2, rng, 1)
    log_Z = sum(map(len, rbm[:2])) * math.log(2) + log_mean_exp(log_w, 0)
    w = np.exp(log_w - logsumexp(log_w))
    error = w.std(ddof=1) * math.sqrt(chains)  # of Z, over Z
    return float(log_Z), float(error), sample_moments(z1, z2, w.astype(z1.dtype))


# ------------------------------------------------------------------- the samplers against the truth


def bars_and_stripes(side=4):
    """All images of side × side pixels whose rows, or columns, are of one colour each, as bits."""
    lines = (np.arange(2**side)[:, None] >> np.arange(side)) & 1
    bars = np.repeat(lines, side, axis=0).reshape(-1, side, side)
    return np.unique(np.concatenate([bars, bars.transpose(0, 2, 1)]).reshape(-1, side**2), axis=0)


def rbm_demo(args, hidden=10):
    """Fit an RBM of few hidden units, and compare what PA, PCD and AIS say of it with enumeration.

    Maximum likelihood by the chains of --sampler; those of the other follow the same RBM. Writes
    log.csv and rbm.png: log Z, its errors, and the root mean square errors of its gradient.
    """
    folder = open_run(args)
    images = bars_and_stripes() if args.rbm_demo == "bars" else load_dataset("digits").train
    v, stream = images.astype(np.float32), partial(random_stream, args.seed)
    shapes = (v.shape[1],), (hidden,), (v.shape[1], hidden)
    flat, rbm = flatten([np.zeros(shape) for shape in shapes], np.float32)
    rbm[2][...] = 0.01 * stream(INIT).standard_normal(shapes[2])
    log_Z_start = enumerate_rbm(rbm)[0]
    chains = {name: fair_bits(stream(CHAINS), args.chains, rbm) for name in SAMPLERS}
    log_Z, adam, rows = dict.fromkeys(SAMPLERS, log_Z_start), Adam(flat.size, args.lr), []
    for step in tqdm(range(1, args.steps + 1), disable=None):
        h = sigmoid(rbm[1] + v @ rbm[2])
        data = np.mean(v, axis=0), np.mean(h, axis=0), v.T @ h / len(v)
        model, old = sample_moments(*chains[args.sampler]), [p.copy() for p in rbm]
        adam.ascend(flat, flatten([d - m for d, m in zip(data, model)], np.float32)[0])
        for name, sampler in SAMPLERS.items():
            log_Z[name] += sampler(old, rbm, *chains[name], stream(GIBBS, step), args.sweeps)
        if step % max(1, args.steps // 40) == 0:
            rows.append(compare(rbm, v, chains, log_Z, stream(AIS, step), args) | {"step": step})
    write_demo(folder, rows, args.no_plots)


def compare(rbm, v, chains, log_Z, rng, args):
    """One row of the log: log Z and the error of its gradient, by enumeration and all samplers."""
    exact, moments = enumerate_rbm([p.astype(float) for p in rbm])
    *by_ais, ais_moments = ais(rbm, rng, args.ais_chains, args.ais_temperatures)
    estimates = {name: sample_moments(*pair) for name, pair in chains.items()}
    row = {"log_Z": exact, "log_Z_ais": by_ais[0], "ais_error": by_ais[1]}
    row |= {f"log_Z_{name}": value for name, value in log_Z.items()}
    rms = lambda x: math.sqrt(np.mean(np.concatenate([np.ravel(x_k) for x_k in x]) ** 2))
    for name, estimate in (estimates | {"ais": ais_moments}).items():
        row[f"gradient_{name}"] = rms([e - m for e, m in zip(estimate, moments)])
    variances = [m * (1 - m) / args.chains for m in moments]
    row["gradient_independent"] = rms([np.sqrt(np.maximum(x, 0)) for x in variances])
    log_p = v @ rbm[0] + np.sum(softplus(rbm[1] + v @ rbm[2]), axis=1) - exact
    return row | {"log_likelihood": float(np.mean(log_p))}


def write_demo(folder, rows, no_plots):
    write_rows(folder / "log.csv", rows)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    difference = lambda name: [a - b for a, b in zip(columns[f"log_Z_{name}"], columns["log_Z"])]
    names = {"pa": "PA", "pcd": "PCD", "ais": "AIS"}
    panels = {
        "log Z, nats": {"exact": columns["log_Z"]}
        | {label: columns[f"log_Z_{name}"] for name, label in names.items()},
        "log Z − exact, nats": {label: difference(name) for name, label in names.items()},
        "error of the gradient (RMS)": {
            label: columns[f"gradient_{name}"]
            for name, label in (names | {"independent": "independent samples"}).items()
        },
        "exact log-likelihood, nats": {"": columns["log_likelihood"]},
    }
    if not no_plots:
        plot_curves(folder / "rbm.png", columns["step"], panels)
    last = rows[-1]
    for name, label in ({"": "enumeration"} | names).items():
        value, error = last[f"log_Z_{name}".rstrip("_")], last.get(f"gradient_{name}", 0.0)
        print(f"{label:12} log Z {value:9.3f}   RMS error of the gradient {error:.4f}")
    print(f"run folder {folder}")
