"""The flags that make the network like others': activation, slope, centring, prior, init, betas."""

import numpy as np
import proofs
import pytest
from test_runs import SMALL, assert_same_run, read_log, run

M = proofs.load()
OTHERS = {"activation": "leaky-relu", "slope": 0.2, "centring": False, "prior": "fixed"}


def network_is_as_described(m, options=OTHERS):
    """Bound and logits of two layers in plain numpy: 1e-12."""
    rng = np.random.default_rng(2)
    model = m.models.SBN(np.array([0.3, 0.6, 0.5]), 2, 2, True, dtype=np.float64, **options)
    params = [p + 0.5 * rng.standard_normal(p.shape) for p in model.init(rng)]
    assert "prior" not in model.names
    nets = {n: params[6 * k : 6 * k + 6] for k, n in enumerate(("q0", "q1", "p1", "p0"))}
    x, b0, b1 = (rng.random((4, n)).round() for n in (3, 2, 2))

    def net(name, h):
        W0, c0, W1, c1, W2, c2 = nets[name]
        for W, c in ((W0, c0), (W1, c1)):
            h = h @ W + c
            h = np.maximum(h, 0) + 0.2 * np.minimum(h, 0)
        return h @ W2 + c2

    log_p = lambda b, a: np.sum(b * a - np.log1p(np.exp(a)), axis=1)
    expected = log_p(x, net("p0", b0)) + log_p(b0, net("p1", b1)) + 2 * np.log(0.5)
    expected = expected - log_p(b0, net("q0", x)) - log_p(b1, net("q1", b0))
    bits = [b0, b1]
    bound = model.bound(params, x, *model.infer(params, x, lambda layer, a: bits[layer]))
    np.testing.assert_allclose(bound, expected, rtol=1e-12)


def glorot_has_its_range(m):
    """±√(6 / (n + m)) is filled to 1 % and never left, in 40,000 draws; biases are zero."""
    W, b = m.models.init_glorot(np.random.default_rng(0), [100, 400], np.float64)
    r = np.sqrt(6 / 500)
    assert 0.99 * r < np.abs(W).max() <= r
    assert abs(W.std() - r / np.sqrt(3)) < 0.01 * r
    assert not b.any()


def leaky_relu_is_differentiated(m):
    """First derivative by autograd, backward and forward, against slopes on both sides of 0."""
    x, right = np.array([-2.0, -0.1, 0.1, 3.0]), np.array([0.2, 0.2, 1.0, 1.0])
    np.testing.assert_allclose(m.models.leaky_relu(x, 0.2), x * right, rtol=1e-15)
    (backward,), _ = m.common.gradients(lambda p: ([m.models.leaky_relu(p[0], 0.2).sum()], []), [x])
    f = lambda p: ([m.models.leaky_relu(p[0], 0.2)], [])
    _, (forward,), _ = m.common.jvp(f, [x], [np.ones(4)])
    np.testing.assert_allclose([backward[0], forward], [right, right], rtol=1e-15)


def test_network():
    network_is_as_described(M)


def test_glorot():
    glorot_has_its_range(M)


def test_leaky_relu():
    leaky_relu_is_differentiated(M)


def test_float32_is_kept(monkeypatch):
    promoted = proofs.promotions(M, monkeypatch)
    rng = np.random.default_rng(0)
    model = M.models.SBN(np.full(8, 0.3), 5, 2, True, init="glorot", **OTHERS)
    x, noise = np.ones((6, 8), np.float32), model.draw_noise(rng, 6)
    _, grads, _ = M.rloo.estimate(model, model.init(rng), [], x, noise, samples=3)
    assert promoted == []
    assert {g.dtype for g in grads} == {np.dtype(np.float32)}


def test_a_run_resumes_with_its_network(tmp_path):
    """Every flag at once; the resumed run is the uninterrupted one in all but the seconds."""
    flags = [*SMALL, "--nonlinear", "--activation", "leaky-relu", "--no-centring", "--prior",
             "fixed", "--init", "glorot", "--beta1", 0.8, "--beta2", 0.999]  # fmt: skip
    assert run("rloo", *flags, "--steps", 52, "--out", tmp_path / "whole")[0] == 0
    assert run("rloo", *flags, "--steps", 26, "--out", tmp_path / "parts")[0] == 0
    code, _, err = run("rloo", "--resume", tmp_path / "parts", "--steps", 52)
    assert (code, err) == (0, "")
    assert_same_run(tmp_path / "whole", tmp_path / "parts", extended=True)
    flags[flags.index(0.8)] = 0.7  # each has an effect; here Adam's
    assert run("rloo", *flags, "--steps", 52, "--out", tmp_path / "other")[0] == 0
    whole, other = (read_log(tmp_path / name)[-1] for name in ("whole", "other"))
    assert other["train_bound"] != whole["train_bound"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--slope", 0.2], "--slope: of --activation leaky-relu; add it"),
        (["--activation", "leaky-relu"], "--activation: of the layers that --nonlinear adds"),
        (["--prior", "fixed", "--task", "predict"], "--prior: --task predict has none"),
        (["--beta2", 1], "argument --beta2: '1' has to be a number"),
    ],
)
def test_flags_without_effect_are_refused(flags, message):
    code, _, err = run("rloo", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


MUTATIONS = {
    "pixels centred all the same": (
        network_is_as_described,
        ("np.asarray(mean, dtype) * centring", "np.asarray(mean, dtype)"),
    ),
    "offset of the mean all the same": (
        network_is_as_described,
        (".astype(dtype) * centring", ".astype(dtype)"),
    ),
    "bits as −1 and 1 all the same": (
        network_is_as_described,
        ("signed if centring else lambda b: b", "signed"),
    ),
    "tanh all the same": (network_is_as_described, ('"leaky-relu": leaky}', '"leaky-relu": tanh}')),
    "Glorot's range with one width": (
        glorot_has_its_range,
        ("math.sqrt(6 / (n + m))", "math.sqrt(6 / n)"),
    ),
    "the slope on the wrong side": (
        leaky_relu_is_differentiated,
        ("anp.where(x > 0, x.dtype.type(1), x.dtype.type(slope))",
         "anp.where(x < 0, x.dtype.type(1), x.dtype.type(slope))"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_rejected(name):
    proof, (old, new) = MUTATIONS[name]
    mutated = proofs.load([("models", old, new)])
    with pytest.raises(AssertionError):
        proof(mutated)
