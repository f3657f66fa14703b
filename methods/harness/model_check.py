"""check.py --model: an `estimate` on every parameter of tiny networks, or of a user's model."""

import copy

from common import InputError, hard_sample

from harness.backends import BACKENDS
from harness.bias_test import (
    ESTIMATES,
    FALSE_ALARM,
    LOOKS,
    TOO_LARGE,
    Evidence,
    detectable,
    looks,
)
from harness.cases import exact_bound_gradient
from harness.check_report import make_row, report, sharp
from harness.models import SBN
from harness.optimizer import Adam, as_promised, assign_state, flatten
from harness.userfile import called

import numpy as np

IMAGES = np.array([[1.0, 0, 1], [0, 1, 1]])
ROWS = 1000  # of one call, about


def belief_network(layers, seed):
    """(generator, model, parameters, images, label) of a tiny sigmoid belief network."""
    rng = np.random.default_rng([seed, layers])
    model = SBN(np.array([0.3, 0.5, 0.6]), 2, layers, dtype=np.float64)
    params = [p + 0.5 * rng.standard_normal(p.shape) for p in model.init(rng)]
    return rng, model, params, IMAGES, f"{layers} layers"


class Network:
    """A tiny network, what the estimator has learned on it, and the evidence so far.

    `what` is what `belief_network` returns.
    """

    def __init__(self, what, estimate, init_aux, draw_noise, samples, target, file):
        self.rng, self.model, self.params, images, self.label = what
        # each image in consecutive rows, a multiple of `samples`
        self.x = np.repeat(images, samples * -(-ROWS // (len(images) * samples)), axis=0)
        self.estimate, self.draw_noise, self.file = estimate, draw_noise, file
        self.options = {"samples": samples} if samples > 1 else {}
        exact = exact_bound_gradient(self.model, self.params, images,
                                     samples if target == "bound" else 1)  # fmt: skip
        exact = flatten(exact, float)[0]
        pairs = self.model.draw_noise(self.rng, len(self.x))
        b, a = self.model.infer(self.params, self.x, lambda i, a_i: hard_sample(a_i, pairs[i][0]))
        range_of_f = float(np.ptp(self.model.bound(self.params, self.x, b, a)))
        self.evidence, self.plain = Evidence(exact, 1.0, range_of_f), Evidence(exact, 1.0)
        with called(file):
            aux = init_aux(self.rng, self.model)
        self.flat_aux, self.aux = flatten(aux, float)
        adam = Adam(len(self.flat_aux), 0.01, dtype=float)
        for _ in range(30):  # so that what it learns is not at its first value
            _, aux_grads = self.call(self.model, self.noise())
            adam.ascend(self.flat_aux, -flatten(assign_state(self.aux, aux_grads), float)[0])

    def noise(self):
        if self.draw_noise is None:
            return self.model.draw_noise(self.rng, len(self.x))
        with called(self.file):
            return self.draw_noise(self.rng, self.model, len(self.x))

    def call(self, model, noise):
        """The gradient of one call, flat, and what is for aux."""
        with called(self.file):
            params, aux = ([a.copy() for a in arrays] for arrays in (self.params, self.aux))
            result = self.estimate(
                model, params, aux, self.x.copy(), noise, **self.options
            )  # copies: the estimator may write into them
        _, grads, aux_grads, *_ = as_promised(result, self.params, self.aux)
        g, _ = flatten(grads, float)
        if not np.all(np.abs(g) < TOO_LARGE):
            raise InputError("estimate returned a gradient that is not finite, or above 1e100")
        return g, aux_grads

    def evaluations(self):
        """Of f and of ∇f for a row of x."""
        counts, model = [0, 0], copy.copy(self.model)
        probe = BACKENDS["numpy"]().probe(counts, 1)
        for name in ("bound", "bound_terms"):
            plain = getattr(self.model, name)
            count = lambda params, x, b, a, plain=plain: plain(params, x, [probe(b[0]), *b[1:]], a)
            setattr(model, name, count)
        self.call(model, self.noise())
        return [count / len(self.x) for count in counts]


def check_model(estimate, init_aux, against, draw_noise=None, *, samples=1, target="mean",
                estimates=ESTIMATES, layers=(2, 3), seed=0, file=None, own=()):  # fmt: skip
    """Check an `estimate` on every parameter of a belief network of two and of three layers.

    Or on those of `own`, each like the result of `belief_network`.

    Its own parts first learn for 30 steps and then stay. `draw_noise` is that of its file, if it
    needs more than the model's pairs; `against` is the `estimate` whose variance is shown beside.
    A call takes some 1,000 rows, and its mean is one number in a t test. Returns a Report.
    """
    networks = [
        Network(what, estimate, init_aux, draw_noise, samples, target, file)
        for what in own or [belief_network(n, seed) for n in layers]
    ]
    counts = [net.evaluations() for net in networks]
    delta = FALSE_ALARM / (LOOKS * sum(net.evidence.exact.size for net in networks))
    for size in looks(estimates):
        rows = []
        for net, (f, df) in zip(networks, counts):
            while net.evidence.n < max(32, size // ROWS):
                noise = net.noise()
                net.evidence.add(net.call(net.model, noise)[0][None], np.ones(1))
                if net.plain.n < 32:
                    pairs = noise[: len(net.model.units)]
                    _, g, _ = against(net.model, net.params, [], net.x, pairs)
                    net.plain.add(flatten(g, float)[0][None], np.ones(1))
            rows += [row._replace(f=f, df=df) for row in tensors(net, delta)]
        if any(row.biased for row in rows) or all(map(sharp, rows)):
            break
    return report(rows)


def tensors(net, delta):
    """A row per parameter tensor."""
    rounding = max(1e-12, 64 * np.finfo(net.model.dtype).eps)
    m, error, limit = net.evidence.student(delta, len(net.x), rounding)
    e, per_row = net.evidence, len(net.x)  # the variance of a row is that of a mean, times them
    ends = np.cumsum([p.size for p in net.params])
    rows = []
    for name, p, end in zip(net.model.names, net.params, ends):
        part = slice(end - p.size, end)
        rows.append(make_row(
            name, net.label, e.exact[part], 1.0,
            per_row * net.plain.variance()[part], per_row * e.n, m[part], error[part], limit[part],
            np.max(detectable(error[part], limit[part])), per_row * e.variance()[part],
        ))  # fmt: skip
    return rows
