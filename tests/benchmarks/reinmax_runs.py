"""ReinMax and straight-through on a categorical VAE, in the configuration of the authors' code.

The configuration of github.com/LiyuanLucasLiu/ReinMax (PyTorch): N variables of C classes, nets
784-512-256-NK and back with ReLU, PyTorch's initialisation, all 60,000 training images with grey
pixels as soft targets, batch 100, −log p(x|b) of one sample + the analytic KL to the uniform prior
(at temperature 1, differentiated exactly), Adam or RAdam with lr 5e-4, five epochs. The estimators
have T = 1.3, which their scripts give for ReinMax, and draw at temperature 1.

    python tests/benchmarks/reinmax_runs.py --out DIR
    python tests/benchmarks/reinmax_runs.py --out DIR --theirs LOGS.json --model MODEL.npz

One JSON file a run; a run that has its file is not repeated. Needs data/mnist.npz. With --theirs
(their logs: lists "vae_runs" and "bias") both are written side by side to
data/results/reinmax_runs.json; without runs in DIR it keeps those that it has. With --model, their
net after one epoch, so are the bias and the noise of the gradient for the logits of the first 100
images, against enumeration of 8^4 outcomes.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "methods"))

import reinmax
from common import bernoulli_log_prob, gradients, mlp
from harness.data import read_images
from harness.optimizer import flatten
from harness.streams import EVALUATION, INIT, NOISE, ORDER, stream
from runs import ROOT, write

import autograd.numpy as np
from categorical import hard_sample, log_softmax

BATCH, EPOCHS, LR, T = 100, 5, 5e-4, 1.3
# name: variables, classes, optimizer, seeds
CONFIGURATIONS = {"4 × 8": (4, 8, "adam", (0, 1, 2)), "30 × 10": (30, 10, "radam", (0, 1))}
THEIR_NAMES = {"4 × 8": "8_4", "30 × 10": "10_30", "st": "st", "st-gumbel": "gumbel",
               "gumbel-rao": "rao_gumbel", "reinmax": "reinmax"}  # fmt: skip
INNER = 100  # draws of Gumbel-Rao
relu = lambda h: np.maximum(h, 0)


def init(rng, N, K):
    """Weights and biases of both nets: uniform within 1 / √(inputs)."""
    params = []
    for sizes in ([784, 512, 256, N * K], [N * K, 256, 512, 784]):
        for n, m in itertools.pairwise(sizes):
            params += [rng.uniform(-(n**-0.5), n**-0.5, shape) for shape in ((n, m), (m,))]
    return flatten(params, np.float32)


def kl(a):
    """KL(q(b|x) || uniform) in nats, (batch,)."""
    log_q = log_softmax(a)
    return np.sum(np.exp(log_q) * (log_q + np.log(a.shape[-1])), axis=(1, 2))


def negative_bound(params, x, b_of, N, K):
    """−log p(x|b) + KL, (batch,), b being what `b_of` makes of the logits."""
    a = np.reshape(mlp(params[:6], x, relu), (len(x), N, K))
    b = np.reshape(b_of(a), (len(x), N * K))
    return kl(a) - bernoulli_log_prob(x, mlp(params[6:], b, relu))


class Descent:
    """Adam or RAdam (Liu et al. 2020) with β = .9, .999, ε = 1e-8."""

    def __init__(self, size, rectified):
        self.rectified, self.t = rectified, 0
        self.m, self.v = np.zeros(size, np.float32), np.zeros(size, np.float32)

    def step(self, params, g):
        self.t += 1
        self.m += 0.1 * (g - self.m)
        self.v += 0.001 * (g * g - self.v)
        m, unbias = self.m / (1 - 0.9**self.t), np.sqrt(1 - 0.999**self.t)
        if not self.rectified:
            params -= LR * m / (np.sqrt(self.v) / unbias + 1e-8)
            return
        longest = 2 / 0.001 - 1
        length = longest - 2 * self.t * 0.999**self.t / (1 - 0.999**self.t)
        if length > 5:
            rest = lambda rho: (rho - 4) * (rho - 2) / rho
            m = m * np.sqrt(rest(length) / rest(longest)) * unbias / (np.sqrt(self.v) + 1e-8)
        params -= np.float32(LR) * m.astype(np.float32)


def run(images, test, N, K, optimizer, estimator, seed):
    """A row an epoch: the mean of the loss while training, and on the test images after it."""
    flat, params = init(stream(seed, INIT), N, K)
    descent, rows, step = Descent(len(flat), optimizer == "radam"), [], 0
    for epoch in range(EPOCHS):
        order, total = stream(seed, ORDER, epoch).permutation(len(images)), 0.0
        for batch in order.reshape(-1, BATCH):
            uv = stream(seed, NOISE, step).random((2, BATCH, N, K), dtype=np.float32)
            uv = np.clip(uv, 1e-7, 1 - 1e-7)
            draw = lambda a, uv=uv: reinmax.classes(a, *uv, estimator=estimator, T=T, inner=INNER)

            def loss(params, batch=batch, draw=draw):
                f = negative_bound(params, images[batch], draw, N, K)
                return [np.sum(f) / BATCH], f

            (grads,), f = gradients(loss, params)
            total, step = total + float(np.mean(f)), step + 1
            descent.step(flat, flatten(grads, np.float32)[0])
        u = np.clip(stream(seed, EVALUATION, epoch).random((len(test), N, K)), 1e-7, 1 - 1e-7)
        after = negative_bound(params, test, lambda a, u=u: hard_sample(a, u), N, K).mean()
        rows.append(
            {"epoch": epoch + 1, "train": total * BATCH / len(images), "test": float(after)}
        )
        print(estimator, seed, rows[-1], flush=True)
    return rows


def side_by_side(out, theirs):
    """Rows with both test losses after five epochs, each seed and the means.

    They agree if the means differ by no more than the larger spread of seeds (max − min) and 1 %.
    """
    ours, table = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))], []
    for name, estimator in itertools.product(CONFIGURATIONS, reinmax.ESTIMATORS):
        same = lambda r: (r["config"], r["method"], r["tag"], r["temperature"]) == (
            THEIR_NAMES[name], THEIR_NAMES[estimator], "", T)  # fmt: skip
        row = {"configuration": name, "estimator": estimator}
        if not any((r["configuration"], r["estimator"]) == (name, estimator) for r in ours):
            continue
        for key, their_key in (("train", "train_neg_elbo_online"), ("test", "test_neg_elbo")):
            a = [r["rows"][-1][key] for r in ours
                 if (r["configuration"], r["estimator"]) == (name, estimator)]  # fmt: skip
            b = [r["rows"][-1][their_key] for r in theirs["vae_runs"] if same(r)]
            mean_a, mean_b = np.mean(a), np.mean(b)
            margin = max(max(a) - min(a), max(b) - min(b)) + 0.01 * mean_b
            row |= {f"{key}_ours": mean_a, f"{key}_theirs": mean_b, f"{key}_seeds_ours": a,
                    f"{key}_seeds_theirs": b,
                    f"{key}_agrees": bool(abs(mean_a - mean_b) <= margin)}  # fmt: skip
        print(*(f"{x:.1f}" if isinstance(x, float) else x for x in row.values()), flush=True)
        table.append(row)
    return table


# ----------------------------------------------------------------- bias and noise on a fixed net


def slopes(params, x, N, K):
    """All K^N one-hots (S, N K), −log p(x|b) at each (S, batch), and its slopes in b."""
    states = np.eye(K, dtype=np.float32)[list(itertools.product(range(K), repeat=N))]
    states = np.reshape(states, (len(states), N * K))
    values, derivatives = [], np.zeros((len(states), len(x), N * K), np.float32)
    for s, state in enumerate(states):
        rows = np.repeat(state[None], len(x), axis=0)

        def loss(inputs):
            f = -bernoulli_log_prob(x, mlp(params[6:], inputs[0], relu))
            return [np.sum(f)], f

        ((slope,),), f = gradients(loss, [rows])
        values.append(f)
        derivatives[s] = slope
    return states, np.array(values, float), derivatives


def bias_and_noise(file, x, theirs, draws):
    """Rows of relative bias and noise, ours | theirs. ST and ReinMax are enumerated."""
    N, K = 4, 8
    names = [f"{net}.fc{i}.{kind}" for net in ("encoder", "decoder") for i in (1, 2, 3)
             for kind in ("weight", "bias")]  # fmt: skip
    params = [file[name].T for name in names]
    a = np.reshape(mlp(params[:6], x, relu), (len(x), N, K)).astype(float)
    states, values, derivatives = slopes(params, x, N, K)
    one_hots = np.reshape(states, (-1, 1, N, K))
    log_q = np.sum(one_hots * log_softmax(a), axis=(2, 3))  # (S, batch)
    q, pi = np.exp(log_q), np.exp(log_softmax(a))
    g = np.einsum("sb,sbij->bij", q * values, one_hots - pi) / len(x)
    norm, rows = np.linalg.norm(g), []
    tiled = lambda n: np.broadcast_to(a, (n, *a.shape))
    code = lambda b: np.argmax(b, axis=-1) @ (K ** np.arange(N)[::-1])

    def estimates(estimator, T, u, v):
        """(n, batch, N, K), from uniforms like them."""

        def weighted(logits):
            b = reinmax.classes(logits[0], u, v, estimator=estimator, T=T, inner=INNER)
            state = code(hard_sample(tiled(len(u)), u))
            w = derivatives[state, np.arange(len(x))].reshape(u.shape)
            return [np.sum(w * b) / len(x)], []

        ((found,),), _ = gradients(weighted, [tiled(len(u)).copy()])
        return found

    for estimator in reinmax.ESTIMATORS:
        for T in (1.3, 1.0, 0.5):
            same = [r for r in theirs if (r["method"], r["temperature"]) ==
                    (THEIR_NAMES[estimator], T) and r["kind"] != "mc-check"]  # fmt: skip
            if not same:
                continue
            mean, square, rng = 0.0, 0.0, np.random.default_rng(0)
            if estimator in ("st", "reinmax"):
                for part in np.array_split(np.arange(len(states)), 64):
                    b = np.broadcast_to(one_hots[part], (len(part), *a.shape))
                    u = np.where(b == 1, 1 - 1e-12, 1e-12)
                    found, weight = estimates(estimator, T, u, u), q[part]
                    mean = mean + np.einsum("sb,sbij->bij", weight, found)
                    square += np.einsum("sb,sbij->", weight, found**2)
                variance = square - np.sum(mean**2)
            else:
                for _ in range(draws // 20):
                    u, v = np.clip(rng.random((2, 20, *a.shape)), 1e-12, 1 - 1e-12)
                    found = estimates(estimator, T, u, v)
                    mean, square = mean + found.sum(axis=0) / draws, square + np.sum(found**2)
                variance = (square - draws * np.sum(mean**2)) / (draws - 1)
            left = 0.0 if estimator in ("st", "reinmax") else variance / draws
            bias = np.sqrt(max(np.sum((mean - g) ** 2) - left, 0)) / norm
            rows.append({"estimator": estimator, "T": T, "bias_ours": float(bias),
                         "bias_theirs": same[0]["rel_bias_debiased"],
                         "noise_ours": float(np.sqrt(variance) / norm),
                         "noise_theirs": same[0]["rel_noise"]})  # fmt: skip
            print(*rows[-1].values(), flush=True)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--only", default="", help="only the runs whose file name has this in it")
    p.add_argument("--theirs", type=Path)
    p.add_argument("--model", type=Path)
    p.add_argument("--draws", type=int, default=10_000, help="of what is not enumerated")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = read_images("mnist")
    grey = {split: (file[split] / np.float32(255)).astype(np.float32)
            for split in ("train", "valid", "test")}  # fmt: skip
    images = np.concatenate([grey["train"], grey["valid"]])
    for name, (N, K, optimizer, seeds) in CONFIGURATIONS.items():
        for estimator, seed in itertools.product(reinmax.ESTIMATORS, seeds):
            path = args.out / f"{N}x{K}-{estimator}-{seed}.json"
            if path.exists() or args.only not in path.name:
                continue
            rows = run(images, grey["test"], N, K, optimizer, estimator, seed)
            result = {"configuration": name, "estimator": estimator, "seed": seed, "rows": rows}
            path.write_text(json.dumps(result), encoding="utf-8")
    if args.theirs:
        theirs = json.loads(args.theirs.read_text(encoding="utf-8"))
        result = ROOT / "data" / "results" / "reinmax_runs.json"
        found = json.loads(result.read_text("utf-8")) if result.exists() else {}
        found["runs"] = side_by_side(args.out, theirs) or found["runs"]
        if args.model:
            with np.load(args.model) as file:
                bias = theirs["bias"]["8_4"]["rows"]
                found["fixed_model"] = bias_and_noise(dict(file), images[:100], bias, args.draws)
        write("reinmax_runs", found)


if __name__ == "__main__":
    main()
