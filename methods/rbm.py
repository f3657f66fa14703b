"""The restricted Boltzmann machine (RBM): energy, Gibbs sampling, its gradient, and log Z.

A distribution of two sides of bits, z1 and z2, with parameters b1, b2, W (a list, `rbm`):

    p(z) = exp(−E(z)) / Z,      E(z) = −b1'z1 − b2'z2 − z1'W z2,      Z = Σ_z exp(−E(z)).

Given one side, the units of the other are independent: sampling alternates between the sides
(Gibbs). The gradient of log Z is E_p[z1], E_p[z2], E_p[z1 z2'], so that samples are all it needs.
log Z itself is a sum over 2^(n1 + n2) states. Three estimates of it, and the truth for small n:

    enumeration            all states of the smaller side, at most 20 units
    AIS                    annealed importance sampling, from W = 0; E[estimate of Z] = Z
    population annealing   the change of log Z in a step of training, by weighted chains
    PCD                    the same by chains that are not weighted, but swept on

`Chains` follow an RBM while it is trained; the prior of dvae_sharp.py is one.

As a program: fit an RBM to small images, and compare all of these with enumeration.

    python methods/rbm.py
"""

import argparse
import math
import time
from functools import partial

from common import InputError, log_mean_exp, one_of, outer, shaped, sigmoid, softplus, times
from harness import cli, streams
from harness.data import bars_and_stripes, load_dataset
from harness.figures import plot_curves
from harness.optimizer import Adam, flatten
from harness.runfolder import open_run, write_json, write_rows
from harness.stopping import diverging

import autograd.numpy as np
from scipy.special import logsumexp
from tqdm import tqdm

# --------------------------------------------------------------------------- energy and enumeration


def check_rbm(rbm):
    """b1 (n1,), b2 (n2,) and W (n1, n2) as finite floats of one type; InputError for all else."""
    if not hasattr(rbm, "__len__") or len(rbm) != 3:
        raise InputError("rbm: has to be a list of three arrays, [b1, b2, W]")
    b1, b2 = shaped("b1", rbm[0], n1=None), shaped("b2", rbm[1], n2=None)
    W = shaped("W", rbm[2], n1=len(b1), n2=len(b2))
    return [p.astype(np.result_type(b1, b2, W)) for p in (b1, b2, W)]


def energy(rbm, z1, z2):
    """E(z) = −b1'z1 − b2'z2 − z1'W z2, in nats, for z1 (..., n1) and z2 (..., n2): (...)."""
    b1, b2, W = rbm
    return -np.sum(b1 * z1, axis=-1) - np.sum((b2 + times(z1, W)) * z2, axis=-1)


def sides(groups):
    """(side 1, side 2), (..., n) each: the first and the second half of all units.

    `groups` is a list of one array, or of an even number of arrays of equal shape.
    """
    if len(groups) == 1:
        n = groups[0].shape[-1] // 2
        return groups[0][..., :n], groups[0][..., n:]
    halves = groups[: len(groups) // 2], groups[len(groups) // 2 :]
    return [h[0] if len(h) == 1 else np.concatenate(h, axis=-1) for h in halves]


def enumerate_rbm(rbm):
    """Exact (log Z, moments) by a sum over all states of the smaller side; see sample_moments.

    Given z1, the sum over z2 is a product over its units: Σ_z2 exp(−E) = exp(b1'z1) Π (1 + exp a2),
    a2 = b2 + z1 W. Raises InputError (a ValueError) for other shapes, or 21 units on both sides.
    """
    b1, b2, W = rbm = check_rbm(rbm)
    if len(b1) > len(b2):
        log_Z, (m2, m1, m21) = enumerate_rbm([b2, b1, W.T])
        return log_Z, [m1, m2, m21.T]
    n = len(b1)
    if n > 20:
        raise InputError(f"enumeration is for at most 20 units on a side, not {n}")
    log_Z, moments = -np.inf, [np.zeros_like(p) for p in rbm]
    for states in np.array_split(np.arange(2**n), max(1, 2**n // 4096)):  # bounds the memory
        z1 = ((states[:, None] >> np.arange(n)) & 1).astype(W.dtype)
        a2 = b2 + z1 @ W
        log_p = z1 @ b1 + np.sum(softplus(a2), axis=1)  # of z1, without −log Z
        new = np.logaddexp(log_Z, logsumexp(log_p, 0))
        p, z2 = np.exp(log_p - new)[:, None], sigmoid(a2)  # z2 is E[z2 | z1]
        sums = np.sum(p * z1, axis=0), np.sum(p * z2, axis=0), (p * z1).T @ z2
        moments = [np.exp(log_Z - new) * m + s for m, s in zip(moments, sums)]
        log_Z = new
    return log_Z, moments


# ----------------------------------------------------------------------------------- Gibbs sampling


def fair_bits(rng, chains, rbm):
    """(z1, z2) of shapes (chains, n1), (chains, n2), in the type of the RBM: its state at W = 0."""
    return [(rng.random((chains, len(b))) < 0.5).astype(b.dtype) for b in rbm[:2]]


def sweep(rbm, z1, u1, u2):
    """One sweep of all chains (rows): z2 ~ p(z2 | z1), then z1 ~ p(z1 | z2), by uniforms u1, u2.

    A bit of logit a is 1 with probability σ(a), that is if u > σ(−a). Returns the new z1, z2.
    """
    b1, b2, W = rbm
    z2 = (u2 > sigmoid(-(b2 + z1 @ W))).astype(u2.dtype)
    z1 = (u1 > sigmoid(-(b1 + z2 @ W.T))).astype(u1.dtype)
    return z1, z2


def sample_moments(z1, z2, w=None):
    """[E z1, E z2, E z1 z2'] over chains, equally or by weights w (Σ w = 1): d log Z / d rbm."""
    w = np.full(len(z1), 1 / len(z1), z1.dtype) if w is None else w
    return [w @ z1, w @ z2, outer(w[:, None] * z1, z2)]


# --- the same, faster: in place, and σ(−a) = 1 / (1 + exp a) without a pass for the division


def gibbs(rbm, z1, z2, rng, sweeps):
    """`sweeps` times `sweep` with uniforms from rng, in place; z1, z2 have the type of the RBM."""
    b1, b2, W = rbm
    buffers = [(np.empty_like(z), np.empty_like(z)) for z in (z1, z2)]
    with np.errstate(over="ignore", invalid="ignore"):  # exp(a) = inf is a probability of 1
        for _ in range(sweeps):
            _draw_side(z1, W, b2, rng, *buffers[1], z2)
            _draw_side(z2, W.T, b1, rng, *buffers[0], z1)


def _draw_side(given, W, b, rng, a, u, z):
    """z = 1[u > σ(−a)], a = given W + b, written as u (1 + exp a) > 1; a and u are buffers."""
    np.matmul(given, W, out=a)
    a += b
    np.exp(a, out=a)
    a += 1
    a *= rng.random(out=u, dtype=u.dtype)
    np.greater(a, 1, out=z)


# -------------------------------------------------------------------- log Z, from step to step


def pcd(old, new, z1, z2, rng, sweeps):
    """Persistent contrastive divergence (Tieleman 2008): the chains of RBM `old` sweep in `new`.

    Returns the change of log Z, −log mean exp(E_new − E_old) over the chains where they arrive:
    sound as long as the sweeps keep up with the RBM. In place.
    """
    gibbs(new, z1, z2, rng, sweeps)
    return -float(log_mean_exp(-energy_drop(old, new, z1, z2), 0))


def population_annealing(old, new, z1, z2, rng, sweeps, min_ess=0.5):
    """The chains of RBM `old` make `sweeps` sweeps in it, are weighted by exp(E_old − E_new), and
    resampled to be those of `new` (Hukushima & Iba 2003). Returns the change of log Z. In place.

    If the effective sample size is below min_ess of the chains, the way is halved until it is not,
    and the rest follows in the same manner. The sweeps come first: `new` is made from the moments
    of these very chains, and their noise would be in E_old − E_new if they had not moved since.
    Raises FloatingPointError if the way is too long for that.
    """
    start, log_ratio = 0.0, 0.0  # start: where on the way from old to new
    while start < 1:
        here = [p + (p_new - p) * p.dtype.type(start) for p, p_new in zip(old, new)]
        gibbs(here, z1, z2, rng, sweeps)
        # E is linear in the parameters: a part of the way has that part of the log-weights
        log_w, part = (1 - start) * energy_drop(old, new, z1, z2), 1.0
        while effective_sample_size(part * log_w) < min_ess * len(z1):
            part /= 2
            if part < 1e-4:  # some 10,000 parts
                raise FloatingPointError("the Boltzmann machine moves too far in one step")
        start = 1.0 if part == 1 else start + part * (1 - start)
        log_ratio += float(log_mean_exp(part * log_w, 0))
        rows = resample(part * log_w, rng.random())
        z1[...], z2[...] = z1[rows], z2[rows]
    return log_ratio


def energy_drop(old, new, z1, z2):
    """E_old − E_new of every chain, in double precision: the log-weights of the new RBM."""
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

# --------------------------------------------------------------------------------- log Z, from zero


def ais(rbm, rng, chains=1024, temperatures=1000):
    """(log Z, its standard error, moments) by annealed importance sampling; Z itself is unbiased.

    The chains start as fair bits, log Z = (n1 + n2) log 2, and pass through the RBMs k/K · (b1, b2,
    W), k = 1 … K, with one Gibbs sweep in each (Neal 2001, arXiv physics/9803008). Raises
    InputError (a ValueError) for fewer than two chains, no temperature, or other shapes.
    """
    rbm = check_rbm(rbm)
    if chains < 2 or temperatures < 1:
        raise InputError(f"ais: at least 2 chains and 1 temperature, not {chains}, {temperatures}")
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


# ------------------------------------------------------------------- chains that follow an RBM


class Chains:
    """Samples of an RBM that is being trained, its running log Z, and AIS to set that right.

    z1 (chains, n1) and z2 (chains, n2) start as fair bits, samples of the `rbm` at hand if it is
    zero; `log_Z`, an array of shape (), in nats, is exact then (or give its own). All of them
    change in place. `stream(purpose, index)` makes the generators of random numbers.
    """

    def __init__(self, rbm, stream, chains, sampler="pa", sweeps=40, *, ais_chains=1024,
                 ais_temperatures=1000, log_Z=None):  # fmt: skip
        rbm, self.sampler = check_rbm(rbm), SAMPLERS[one_of("sampler", sampler, SAMPLERS)]
        self.stream, self.sweeps, self.ais_size = stream, sweeps, (ais_chains, ais_temperatures)
        self.z1, self.z2 = fair_bits(stream(streams.CHAINS), chains, rbm)
        at_zero = sum(map(len, rbm[:2])) * math.log(2)  # (n1 + n2) log 2
        self.log_Z = np.array(at_zero if log_Z is None else log_Z, float)
        self._known, self._known_log_Z = None, None  # the RBM of the last AIS, and its result

    def step(self, old, new, index):
        """Step number `index`: follow the RBM from `old` to `new`, chains and log Z.

        Raises FloatingPointError if a parameter of `new` is not finite, or too far away.
        """
        if not all(np.all(np.isfinite(p)) for p in new):
            raise FloatingPointError("a parameter of the Boltzmann machine is not finite")
        rng = self.stream(streams.GIBBS, index)
        self.log_Z += self.sampler(old, new, self.z1, self.z2, rng, self.sweeps)

    def moments(self):
        """What the chains say of the gradient of log Z; see sample_moments."""
        return sample_moments(self.z1, self.z2)

    def more(self, rbm, n, rng, sweeps=1000):
        """(z1, z2) of n further samples of the RBM: copies of chains, swept on."""
        rows = rng.choice(len(self.z1), n, replace=n > len(self.z1))
        z1, z2 = self.z1[rows], self.z2[rows]
        gibbs(rbm, z1, z2, rng, sweeps)
        return z1, z2

    def energy(self, rbm, groups):
        """E(z), in nats, of bits in groups; see `sides`."""
        return energy(rbm, *sides(groups))

    def ais(self, rbm):
        """(log Z, its standard error) of the RBM, from zero; run once for every RBM."""
        content = [p.tobytes() for p in rbm]
        if content != self._known:
            *self._known_log_Z, _ = ais(rbm, self.stream(streams.AIS), *self.ais_size)
            self._known = content
        return self._known_log_Z

    def correct(self, rbm):
        """Set the running log Z right by AIS; returns by how much it was too large."""
        log_Z, _ = self.ais(rbm)
        drift = float(self.log_Z) - log_Z
        self.log_Z[...] = log_Z
        return drift

    def arrays(self):
        """Everything that changes in place, by its name in a checkpoint."""
        return {"chains_1": self.z1, "chains_2": self.z2, "log_Z": self.log_Z}


# ------------------------------------------------------ the program: the samplers against the truth

LABELS = {"pa": "PA", "pcd": "PCD", "ais": "AIS"}


def fit_rbm(args):
    """Fit an RBM of few hidden units, and compare what PA, PCD and AIS say of it with enumeration.

    Maximum likelihood by the chains of --sampler; those of the other follow the same RBM. Writes
    log.csv, rbm.png (log Z, its errors, the root mean square errors of its gradient) and
    summary.json. Raises Stopped if the RBM moves out of reach.
    """
    own = {} if args.dataset == "bars" else load_dataset(args.dataset)._asdict()
    folder, started = open_run(args, data_sha256=own.get("sha256", "")), time.perf_counter()
    v = own.get("train", bars_and_stripes()).astype(np.float32)
    stream = partial(streams.stream, args.seed)
    shapes = (v.shape[1],), (args.hidden,), (v.shape[1], args.hidden)
    params, rbm = flatten([np.zeros(shape) for shape in shapes], np.float32)
    rbm[2][...] = 0.01 * stream(streams.INIT).standard_normal(shapes[2])
    log_Z = enumerate_rbm(rbm)[0]
    chains = {name: Chains(rbm, stream, args.chains, name, args.sweeps, log_Z=log_Z)
              for name in SAMPLERS}  # fmt: skip
    adam, rows = Adam(params.size, args.lr), []
    for step in tqdm(range(1, args.steps + 1), disable=None):
        h = sigmoid(rbm[1] + v @ rbm[2])  # (images, hidden)
        data = np.mean(v, axis=0), np.mean(h, axis=0), v.T @ h / len(v)
        model, old = chains[args.sampler].moments(), [p.copy() for p in rbm]
        gradient, _ = flatten([d - m for d, m in zip(data, model)], np.float32)
        with diverging(f"stopped at step {step}"):
            adam.ascend(params, gradient)
            for each in chains.values():
                each.step(old, rbm, step)
            if step % max(1, args.steps // 40) == 0 or step == args.steps:
                row = compare(rbm, v, chains, stream(streams.AIS, step), args)
                rows.append({"step": step} | row)
                write_rows(folder / "log.csv", rows)
    if not args.no_plots:
        plot(folder / "rbm.png", rows)
    facts = {key: getattr(args, key) for key in ("method", "dataset", "steps")}
    facts["seconds"] = time.perf_counter() - started
    write_json(folder / "summary.json", facts | {k: x for k, x in rows[-1].items() if k != "step"})
    for name, label in ({"": "enumeration"} | LABELS).items():
        value, error = rows[-1][f"log_Z_{name}".rstrip("_")], rows[-1].get(f"gradient_{name}", 0.0)
        print(f"{label:12} log Z {value:9.3f}   RMS error of the gradient {error:.4f}")
    print(f"run folder {folder}")


def compare(rbm, v, chains, rng, args):
    """One row of the log: log Z and the error of its gradient, by enumeration and all samplers."""
    exact, moments = enumerate_rbm([p.astype(float) for p in rbm])
    *by_ais, ais_moments = ais(rbm, rng, args.ais_chains, args.ais_temperatures)
    estimates = {name: each.moments() for name, each in chains.items()}
    row = {"log_Z": exact, "log_Z_ais": by_ais[0], "ais_error": by_ais[1]}
    row |= {f"log_Z_{name}": float(each.log_Z) for name, each in chains.items()}
    rms = lambda arrays: math.sqrt(np.mean(np.concatenate([np.ravel(x) for x in arrays]) ** 2))
    for name, estimate in (estimates | {"ais": ais_moments}).items():
        row[f"gradient_{name}"] = rms([e - m for e, m in zip(estimate, moments)])
    variances = [m * (1 - m) / args.chains for m in moments]  # as many samples, but independent
    row["gradient_independent"] = rms([np.sqrt(np.maximum(x, 0)) for x in variances])
    log_p = v @ rbm[0] + np.sum(softplus(rbm[1] + v @ rbm[2]), axis=1) - exact
    row["log_likelihood"] = float(np.mean(log_p))
    if not np.all(np.isfinite([*row.values()])):
        raise FloatingPointError("the Boltzmann machine is out of reach of float32")
    return row


def plot(path, rows):
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    of_all = lambda curve: {label: curve(name) for name, label in LABELS.items()}
    log_Z = lambda name: columns[f"log_Z_{name}"]
    panels = {
        "log Z, nats": of_all(log_Z) | {"exact": columns["log_Z"]},
        "log Z − exact, nats": of_all(
            lambda name: [a - b for a, b in zip(log_Z(name), columns["log_Z"])]
        ),
        "error of the gradient (RMS)": of_all(lambda name: columns[f"gradient_{name}"])
        | {"independent samples": columns["gradient_independent"]},
        "exact log-likelihood, nats": {"": columns["log_likelihood"]},
    }
    plot_curves(path, columns["step"], panels)


def main(argv=None):
    p = cli.Parser(__doc__)
    p.set_defaults(method="rbm")
    many, count = cli.number(int, 2, 10**6), cli.COUNT
    p.flag("--dataset", f"bars (and stripes), {cli.CHOICES}", "bars", metavar="NAME",
           type=lambda name: name if name == "bars" else cli.dataset(name))  # fmt: skip
    p.flag("--hidden", "units of side 2", 10, type=cli.number(int, 1, 20), metavar="N")
    p.flag("--steps", "updates", 2500, type=count, metavar="N")
    p.flag("--lr", "Adam's step", 3e-3, type=cli.POSITIVE)
    p.flag("--sampler", "whose chains give the gradient", choices=tuple(SAMPLERS))
    p.flag("--chains", "of each sampler", 200, type=many, metavar="N")
    p.flag("--sweeps", "of the chains per step", 10, type=count, metavar="N")
    p.flag("--ais-chains", "of AIS", 256, type=many, metavar="N")
    p.flag("--ais-temperatures", "of AIS", 200, type=count, metavar="N")
    p.flag("--seed", "of everything random", 0, type=cli.SEED)
    p.flag("--out", "new folder; default: runs/rbm-<data>-<time>", type=cli.folder, metavar="DIR")
    p.flag("--no-plots", "write no figure", action="store_true")
    p.flag("--resume", argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.resume is not None:
        p.error("--resume: a run takes seconds: start anew")
    return fit_rbm(args)


if __name__ == "__main__":
    cli.run(main)
