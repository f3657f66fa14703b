"""The shared parts: numerics, tracing, data, models, optimiser, moving averages, evaluation."""

import hashlib
import itertools
import math
from functools import partial
from types import SimpleNamespace

import autograd.numpy as anp
import numpy as np
import proofs
import pytest
from autograd import grad
from autograd.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp

M = proofs.load()
common = M.common

# ---------------------------------------------------------------------------------------- numerics


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "tanh"])
def test_elementwise_primitives_are_twice_differentiable(name, rng):
    check_grads(getattr(common, name), modes=["rev", "fwd"], order=2)(
        3 * rng.standard_normal((2, 3))
    )


def test_matrix_primitives_are_twice_differentiable(rng):
    h, g = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 5))
    W, b = rng.standard_normal((4, 5)), rng.standard_normal(5)
    check_grads(common.times, modes=["rev", "fwd"], order=2)(h, W)
    check_grads(common.outer, modes=["rev", "fwd"], order=2)(h, g)
    check_grads(common.affine, modes=["rev", "fwd"], order=2)(h, W, b)
    np.testing.assert_allclose(common.affine(h, W, b), h @ W + b, rtol=1e-12)
    np.testing.assert_allclose(common.outer(h, g), np.einsum("abi,abj->ij", h, g), rtol=1e-12)


@pytest.mark.parametrize(("x_shape", "a_shape"), [((3, 4), (3, 4)), ((3, 4), (2, 3, 4)), ((2, 3, 4), (4,))])  # fmt: skip # noqa: E501
def test_bernoulli_log_prob(x_shape, a_shape, rng):
    x, a = rng.random(x_shape), rng.standard_normal(a_shape)
    p = 1 / (1 + np.exp(-a))
    expected = np.sum(x * np.log(p) + (1 - x) * np.log(1 - p), axis=-1)
    np.testing.assert_allclose(common.bernoulli_log_prob(x, a), expected, rtol=1e-12)
    check_grads(common.bernoulli_log_prob, modes=["rev", "fwd"], order=2)(x, a)


def test_numerics_do_not_overflow():
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(common.sigmoid(x), [0, 0, 0.5, 1, 1], atol=1e-30)
        np.testing.assert_allclose(common.softplus(x), [0, 0, math.log(2), 100, 1e4], atol=1e-30)
    assert common.sigmoid(np.array([-80.0]))[0] == pytest.approx(math.exp(-80), rel=1e-12)


def test_logit_near_its_ends():
    p = np.array([1e-30, 0.25, 0.5, 1 - 2.0**-53])
    np.testing.assert_allclose(common.logit(p), np.log(p) - np.log1p(-p), rtol=1e-15)


@pytest.mark.parametrize("shapes", [((3, 4), (), ()), ((3, 1), (), (3, 4)), ((3, 4), (4,), (3, 1))])
def test_where_with_branches_that_are_broadcast(shapes, rng):
    """By differences; np.where of autograd 1.9 fails here without an error."""
    condition = rng.random(shapes[0]) > 0.5
    branches = [rng.standard_normal(shape) for shape in shapes[1:]]
    choose = lambda x, y: common.where(condition, x, y) ** 2
    np.testing.assert_array_equal(choose(*branches), np.where(condition, *branches) ** 2)
    check_grads(choose, modes=["rev", "fwd"], order=2)(*branches)


def test_he_initialisation_is_truncated_at_two_sd():
    """Variance 2 / fan-in after truncation: 200,000 weights, false alarm 1e-6, sharp to 2 %."""
    W, b, *_ = common.init_mlp(np.random.default_rng(0), [400, 500, 1], np.float64)
    sd = math.sqrt(2.6 / 400)
    assert 1.99 * sd < np.abs(W).max() <= 2 * sd
    kept = stats.truncnorm(-2, 2).var() * sd**2
    error = (W**2).std() / math.sqrt(W.size)
    assert stats.norm.isf(5e-7) * error < 0.02 * kept
    assert abs((W**2).mean() - kept) < stats.norm.isf(5e-7) * error
    assert kept == pytest.approx(2 / 400, rel=0.01)
    assert not b.any()


# ----------------------------------------------------------------------------------------- tracing


def test_gradients_of_several_scalars_equal_autograd():
    f = lambda a, b: anp.sum(anp.sin(a) * b)
    g = lambda a, b: anp.sum(a * b**3)
    a, b = np.array([0.3, -1.0]), np.array([2.0, 0.5])
    (df, dg), rest = common.gradients(lambda p: ([f(*p), g(*p)], [2 * p[0]]), [a, b])
    for ours, function in ((df, f), (dg, g)):
        np.testing.assert_allclose(ours, [grad(function, i)(a, b) for i in (0, 1)], rtol=1e-12)
    assert type(rest[0]) is np.ndarray


def test_gradients_nest_and_stop_gradient_stops_one_level():
    """d/dT of d/da of sg(a² T) a: the inner derivative is a² T, its outer one a²."""

    def outer(T):
        inner = lambda p: ([common.stop_gradient(p[0] ** 2 * T[0]) * p[0]], None)
        ((da,),), _ = common.gradients(inner, [np.array(3.0)])
        return [da], common.stop_gradient(da)

    ((dT,),), da = common.gradients(outer, [np.array(2.0)])
    assert da == pytest.approx(18)
    assert dT == pytest.approx(9)


def test_jvp_is_the_directional_derivative_also_of_gradients(rng):
    """Of an SBN's bound and its gradient, against central differences; 0 where nothing varies."""
    model = M.models.SBN(np.full(6, 0.3), 4, 2, dtype=np.float64)
    params, direction = model.init(rng), model.init(rng)
    x, bits = (rng.random((3, 6)) < 0.5) * 1.0, [(rng.random((3, 4)) < 0.5) * 1.0 for _ in "12"]

    def bound(params):
        b, a = model.infer(params, x, lambda layer, a: bits[layer])
        return model.bound(params, x, b, a)

    def f(params):
        (grads,), value = common.gradients(lambda p: ([anp.sum(bound(p) ** 2)], bound(p)), params)
        return [value, *grads, x], value

    values, slopes, rest = common.jvp(f, params, direction)
    np.testing.assert_array_equal(rest, values[0])
    along = lambda h: f([p + h * d for p, d in zip(params, direction)])[0]
    for i, (value, slope) in enumerate(zip(values, slopes)):
        np.testing.assert_allclose(value, f(params)[0][i], rtol=1e-12)
        numeric = (along(1e-5)[i] - along(-1e-5)[i]) / 2e-5
        np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-6)


def test_lost_gradient_path_warns():
    with pytest.warns(UserWarning, match="independent of input"):
        common.gradients(lambda p: ([np.array(1.0)], None), [np.array(2.0)])


# -------------------------------------------------------------------------------------------- data


def test_digits_are_the_shipped_ones():
    with np.load(M.data.ROOT / "data" / "digits.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    digest = hashlib.md5(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest()
    assert digest == "58ed921a53a87ce48e39131e6275b4c9"
    sizes = {split: len(arrays[split]) for split in ("train", "valid", "test")}
    assert sizes == {"train": 1297, "valid": 200, "test": 300}
    for split, size in sizes.items():
        shares = np.bincount(arrays[f"labels_{split}"], minlength=10) / size
        whole = np.bincount(np.concatenate([arrays[f"labels_{s}"] for s in sizes])) / 1797
        np.testing.assert_allclose(shares, whole, atol=1.5 / size)


def test_static_bits_are_fixed_and_dynamic_ones_follow_the_grey_levels(rng):
    """Ink frequency of 500 draws against grey/16: Bonferroni over pixels, false alarm 1e-6."""
    static, again = M.data.load_dataset("digits"), M.data.load_dataset("digits")
    dynamic = M.data.load_dataset("digits", dynamic=True)
    np.testing.assert_array_equal(static.train, again.train)
    np.testing.assert_array_equal(static.test, dynamic.test)
    assert set(np.unique(static.train)) == {0, 1}
    assert static.levels == 1
    assert dynamic.levels == 16
    rows = np.arange(40)
    np.testing.assert_array_equal(static.batch(rows, rng), static.train[rows])
    p = dynamic.train[rows] / 16
    draws = np.mean([dynamic.batch(rows, rng) for _ in range(500)], axis=0)
    certain = (p == 0) | (p == 1)
    np.testing.assert_array_equal(draws[certain], p[certain])
    alarm = 1e-6 / (2 * p[~certain].size)
    low, high = stats.binom.ppf([alarm, 1 - alarm], 500, p[~certain][:, None]).T
    counts = 500 * draws[~certain]
    assert np.all((low <= counts) & (counts <= high))
    assert np.mean(static.train) == pytest.approx(np.mean(dynamic.train / 16), abs=0.005)
    np.testing.assert_allclose(dynamic.train_mean, dynamic.train.mean(axis=0) / 16)


def test_missing_and_foreign_data_files_say_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(M.data, "ROOT", tmp_path)
    with pytest.raises(common.InputError, match=r"python data/download.py binarized-mnist"):
        M.data.load_dataset("mnist")
    with pytest.raises(common.InputError, match=r"python data/download.py omniglot"):
        M.data.load_dataset("omniglot")
    with pytest.raises(common.InputError, match="choose from digits, mnist"):
        M.data.load_dataset("cifar")
    path = tmp_path / "data" / "omniglot.npz"
    good = dict.fromkeys(("train", "valid", "test"), np.ones((2, 6), np.uint8))
    good |= {"levels": np.uint8(1), "shape": np.array([2, 3], np.uint8)}
    np.savez(path, **good)
    assert M.data.load_dataset("omniglot").shape == (2, 3)
    bad = [
        {"test": np.ones((2, 5), np.uint8)}, {"valid": np.ones((2, 6))},
        {"train": np.full((2, 6), 2, np.uint8)}, {"test": np.ones((0, 6), np.uint8)},
    ]  # fmt: skip
    for change in bad:
        np.savez(path, **(good | change))
        with pytest.raises(common.InputError, match="not a data file of this project"):
            M.data.load_dataset("omniglot")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(common.InputError, match="not a data file of this project"):
        M.data.load_dataset("omniglot")


def known_digits(folder):
    """Data files of which every digit is known: `identify` reads its number off its pixels.

    Digits 0 … 59 are for training and validation, 100 … 119 for the test. The publisher of the bits
    divided the 60 otherwise than the grey file does, as for MNIST.
    """
    rng, numbers = np.random.default_rng(3), np.arange(60)

    def grey(ids):  # eight pixels are certain and say which digit it is, eight are in between
        certain = 255 * ((ids[:, None] >> np.arange(8)) & 1)
        return np.hstack([certain, rng.integers(60, 200, (len(ids), 8))]).astype(np.uint8)

    images = grey(np.arange(120))
    bits = (rng.random(images.shape) * 255 < images).astype(np.uint8)
    shape, test, other = np.array([4, 4], np.uint8), np.arange(100, 120), rng.permutation(60)
    for name in ("digits", "mnist", "omniglot"):
        rows = {"train": numbers[:50], "valid": numbers[50:], "test": test}
        labels = {f"labels_{split}": (ids % 2).astype(np.uint8) for split, ids in rows.items()}
        arrays = {split: images[ids] for split, ids in rows.items()}
        np.savez(folder / f"{name}.npz", **arrays, **labels, levels=np.uint8(255), shape=shape)
    arrays = {"train": bits[other[:50]], "valid": bits[other[50:]], "test": bits[test]}
    np.savez(folder / "binarized-mnist.npz", **arrays, levels=np.uint8(1), shape=shape)
    assert len({*other[50:]} & {*numbers[:50]}) > 5  # of the publisher's 10
    return arrays


def identify(images, levels=1):
    return {*map(int, (images[:, :8] // levels) @ (1 << np.arange(8)))}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["digits", "mnist", "mnist-grey", "omniglot"])
def test_no_digit_is_in_two_splits(name, dynamic, tmp_path, monkeypatch):
    """Training, validation and test have 50, 10 and 20 digits that are known, and none twice."""
    (tmp_path / "data").mkdir()
    published = known_digits(tmp_path / "data")
    monkeypatch.setattr(M.data, "ROOT", tmp_path)
    data = M.data.load_dataset(name, dynamic)
    splits = identify(data.train, data.levels), identify(data.valid), identify(data.test)
    assert [len(ids) for ids in splits] == [50, 10, 20]
    assert len(set.union(*splits)) == 80
    again = M.data.load_dataset(name, dynamic)
    np.testing.assert_array_equal(data.valid, again.valid)
    if name == "mnist":
        np.testing.assert_array_equal(data.test, published["test"])
        grey = M.data.load_dataset("mnist-grey").valid
        np.testing.assert_array_equal(data.valid, grey if dynamic else published["valid"])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["digits", "mnist", "mnist-grey"])
def test_no_labelled_digit_is_judged(name, dynamic, tmp_path, monkeypatch):
    """The labelled and the unlabelled images, and those that the classifier is judged by."""
    (tmp_path / "data").mkdir()
    known_digits(tmp_path / "data")
    monkeypatch.setattr(M.data, "ROOT", tmp_path)
    data, (labelled, y), judged = M.semi_supervised.load(name, 3, 0, dynamic)
    sets = [identify(data.train, data.levels), identify(labelled.train, data.levels)]
    sets += [identify(data.valid), identify(data.test)]
    assert [len(ids) for ids in sets] == [44, 6, 10, 20]
    assert len(set.union(*sets)) == 80
    for split, ids in zip(("valid", "test"), sets[2:]):
        images, labels = judged[split]
        assert identify(np.rint(images).astype(int)) == ids
        np.testing.assert_array_equal(labels, [i % 2 for i in sorted(ids)])
    assert np.bincount(y).tolist() == [3, 3]


def test_the_two_files_of_mnist_have_to_fit(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    known_digits(tmp_path / "data")
    monkeypatch.setattr(M.data, "ROOT", tmp_path)
    small = dict.fromkeys(("train", "valid", "test"), np.ones((2, 6), np.uint8))
    small |= {"levels": np.uint8(1), "shape": np.array([2, 3], np.uint8)}
    np.savez(tmp_path / "data" / "binarized-mnist.npz", **small)
    with pytest.raises(common.InputError, match="differ in shape"):
        M.data.load_dataset("mnist", dynamic=True)


# ------------------------------------------------------------------------------------------ models


def test_noise_is_float32_and_never_reaches_0_or_1():
    class Extreme:
        def random(self, shape, dtype):
            return np.resize(np.array([0, 1 - 2**-24], dtype), shape)

    ((u, v),) = common.draw_noise(Extreme(), 2, [3], np.float32)
    assert u.dtype == v.dtype == np.float32
    assert np.isfinite(common.logit(np.stack([u, v]))).all()


@pytest.mark.parametrize(
    "options",
    list(itertools.product((1, 2, 3), (False, True), ("generate", "predict"))),
    ids=str,
)
def test_names_and_shapes_of_sbn(options):
    layers, nonlinear, task = options
    model = M.models.SBN(np.full(8, 0.3), 5, layers, nonlinear, task)
    params = model.init(np.random.default_rng(0))
    shapes = dict(zip(model.names, (p.shape for p in params)))
    assert len(shapes) == len(params)
    assert {p.dtype for p in params} == {np.dtype(np.float32)}
    per_net, nets = (6 if nonlinear else 2), layers + (layers if task == "generate" else 1)
    assert len(params) == per_net * nets + (task == "generate")
    half = 4 if task == "predict" else 8
    assert shapes["q0.W0"] == (half, 5)
    assert shapes[f"p0.b{2 if nonlinear else 0}"] == (half,)
    assert ("p1.W0" in shapes) == (task == "generate" and layers > 1)


def test_activations_with_leading_axes_are_several_sweeps(rng):
    """bound of stacked activations = stacked bounds, hard or relaxed."""
    model, params, x = proofs.tiny_sbn(M, layers=2, nonlinear=True)
    h = rng.random((5, 2, 2, 2))  # sweep, layer, batch, unit
    stacked, logits = model.infer(params, x, lambda layer, a: h[:, layer])
    together = model.bound(params, x, stacked, logits)
    for k in range(5):
        one = model.bound(params, x, *model.infer(params, x, lambda layer, a: h[k, layer]))
        np.testing.assert_allclose(together[k], one, rtol=1e-12)


def test_predict_bound_sees_the_lower_half_only(rng):
    model, params, x = proofs.tiny_sbn(M, task="predict")
    h = [rng.random((2, 2)), rng.random((2, 2))]
    W, b = params[-2:]
    offset = np.log(model.mean / (1 - model.mean))[2:]
    p = 1 / (1 + np.exp(-((2 * h[1] - 1) @ W + b + offset)))
    lower = x[:, 2:]
    expected = np.sum(lower * np.log(p) + (1 - lower) * np.log(1 - p), axis=1)
    np.testing.assert_allclose(model.bound(params, x, h, [None, None]), expected, rtol=1e-12)


def test_samples_of_the_model_have_its_pixel_means(rng):
    """Mean pixel probability of 100,000 samples against enumeration; false alarm 1e-6."""
    model, params, _ = proofs.tiny_sbn(M, layers=2)
    images = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    h = [bits[:, None, :2] * np.ones((1, 8, 1)), bits[:, None, 2:] * np.ones((1, 8, 1))]
    no_q = [np.zeros((16, 8, 2))] * 2  # log q = 4 log(1/2), taken out again
    joint = np.exp(model.bound(params, images, h, no_q) + 4 * math.log(0.5))
    exact = joint.sum(axis=0) @ images
    assert joint.sum() == pytest.approx(1, rel=1e-10)
    samples = model.generate(params, rng, 100_000)
    error = samples.std(axis=0) / math.sqrt(100_000)
    assert np.all(np.abs(samples.mean(axis=0) - exact) < stats.norm.isf(1e-6 / 6) * error)
    assert np.all(stats.norm.isf(1e-6 / 6) * error < 0.01)


def test_multi_sample_bound_is_the_importance_estimate(rng):
    """Its mean weight is p(x), exactly unbiased, and it is itself below log p(x).

    500,000 estimates from 5 samples; false alarm 1e-6; sharp to 2 % of p(x).
    """
    model, params, x = proofs.tiny_sbn(M)
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    h = [np.repeat(bits[:, None, part], 2, axis=1).astype(float) for part in ([0, 1], [2, 3])]
    sweep = model.infer(params, x, lambda layer, a: h[layer])
    log_q = sum(common.bernoulli_log_prob(b, a) for b, a in zip(*sweep))
    log_p = logsumexp(model.bound(params, x, *sweep) + log_q, axis=0)
    for image, truth in zip(x, log_p):
        images = np.repeat(image[None], 500_000, axis=0).astype(np.uint8)
        estimates = M.models.multi_sample_bound(model, params, images, 5, rng)
        ratios = np.exp(estimates - truth)
        error = ratios.std() / math.sqrt(len(ratios))
        assert stats.norm.isf(5e-7) * error < 0.02
        assert abs(ratios.mean() - 1) < stats.norm.isf(5e-7) * error
        assert estimates.mean() < truth
        many = M.models.multi_sample_bound(model, params, images[:1], 50_000, rng)  # in 50 chunks
        assert abs(math.exp(many[0] - truth) - 1) < 5 * ratios.std() * math.sqrt(5 / 50_000)


# -------------------------------------------------------------------------------------- optimiser


def test_adam_follows_the_formula(rng):
    """Over more than one block, against the textbook form with ε̂ outside the bias correction."""
    size, adam = 40_000, M.optimizer.Adam(40_000, 0.01, dtype=np.float64)
    params, expected = np.zeros(size), np.zeros(size)
    m = v = 0.0
    for t in range(1, 6):
        g = rng.standard_normal(size)
        adam.ascend(params, g)
        m, v = 0.9 * m + 0.1 * g, 0.99999 * v + 0.00001 * g**2
        rate = 0.01 * math.sqrt(1 - 0.99999**t) / (1 - 0.9**t)
        expected += rate * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(params, expected, rtol=1e-9)


def test_gradient_variance_is_the_debiased_moving_variance(rng):
    """Against weighted moments written out; and 0 for a constant gradient from the first step."""
    variance, gradients = M.diagnostics.GradientVariance(40_000, decay=0.9, dtype=np.float64), []
    for t in range(1, 8):
        gradients.append(rng.standard_normal(40_000) * np.linspace(0, 3, 40_000))
        weights = 0.9 ** np.arange(t)[::-1]
        weights /= weights.sum()
        first = np.tensordot(weights, gradients, 1)
        second = np.tensordot(weights, np.square(gradients), 1)
        expected = np.mean(second - first**2)
        debiased, raw = variance.update(gradients[-1])
        assert debiased == pytest.approx(expected, rel=1e-9, abs=1e-12)
        whole = 1 - 0.9**t
        assert raw == pytest.approx(np.mean(whole * second - (whole * first) ** 2), rel=1e-9)
    constant = M.diagnostics.GradientVariance(5, dtype=np.float64)
    assert [abs(constant.update(np.ones(5))[0]) < 1e-12 for _ in range(3)] == [True] * 3


def test_assigned_state_is_kept_as_it_is():
    """A tensor of aux that `estimate` assigns takes that value; its neighbour descends."""
    data = M.data.Dataset("toy", *[np.zeros((1, 0), np.uint8)] * 3, levels=1, shape=(0, 0))
    args = SimpleNamespace(seed=0, lr=0.1, batch_size=1, samples=1)

    def estimate(model, params, aux, x, noise):
        return np.zeros(1), [np.zeros(1)], [common.Assign(aux[0] + 1), np.ones(2)]

    init_aux = lambda rng, model: [np.zeros(()), np.zeros(2)]
    trainer = M.trainer.Trainer(args, data, common.Toy(proofs.steep, 1), estimate, init_aux)
    for _ in range(3):
        trainer.step()
    assert trainer.aux[0] == 3
    np.testing.assert_allclose(trainer.aux[1], -3.0, rtol=1e-5)  # Adam: 10 lr = 1 a step, but for ε̂


@pytest.mark.parametrize(("result", "message"), [
    ((np.zeros(1), [np.zeros(1)]), "a bound, a list of gradients and one for aux"),
    ((np.zeros(1), [np.zeros(1)], None), "a bound, a list of gradients and one for aux"),
    ((0.0, [np.zeros(1)], [np.zeros(2)]), "the bound of every row, (rows,)"),
    ((np.zeros(1), [[[1.0], 2.0]], [np.zeros(2)]), "[(1,)], not lists of several lengths"),
    (([0.0], [np.zeros(2)], [np.zeros(2)]), "params, of the shapes [(1,)], not [(2,)]"),
    (([0.0], [np.zeros(1)], []), "aux, of the shapes [(2,)], not []"),
    (([0.0], [np.zeros(1)], [common.Assign(np.zeros(3))]), "aux, of the shapes [(2,)], not [(3,)]"),
])  # fmt: skip
def test_what_an_estimate_returns_is_checked(result, message):
    """Gradients of the right number in other shapes would be taken for those of other elements."""
    data = M.data.Dataset("toy", *[np.zeros((1, 0), np.uint8)] * 3, levels=1, shape=(0, 0))
    args = SimpleNamespace(seed=0, lr=0.1, batch_size=1, samples=1)
    model, init_aux = common.Toy(proofs.steep, 1), lambda rng, model: [np.zeros(2)]
    trainer = M.trainer.Trainer(args, data, model, lambda *_: result, init_aux)
    with pytest.raises(common.InputError) as error:
        trainer.step()
    assert str(error.value).startswith("estimate has to return ")
    assert str(error.value).endswith(message)


def test_learning_rate_schedule_and_adam_settings():
    """A constant gradient moves a parameter by lr rate(step), and aux by aux_rate times that."""
    data = M.data.Dataset("toy", *[np.zeros((1, 0), np.uint8)] * 3, levels=1, shape=(0, 0))
    args = SimpleNamespace(seed=0, lr=0.1, batch_size=1, samples=1)
    estimate = lambda *_: (np.zeros(1), [np.full(1, 7.0)], [np.full(1, 7.0)])
    options = {"rate": lambda step: 2.0**-step, "aux_rate": 3, "adam": {"eps": 0, "beta2": 0.9}}
    model, init_aux = common.Toy(proofs.steep, 1), lambda rng, model: [np.zeros(1)]
    trainer = M.trainer.Trainer(args, data, model, estimate, init_aux, **options)
    for _ in range(3):
        trainer.step()
    assert trainer.params[0] == pytest.approx(0.1 * (1 + 1 / 2 + 1 / 4), rel=1e-12)
    assert trainer.aux[0] == pytest.approx(-3 * trainer.params[0], rel=1e-12)
    assert trainer.ascent.beta2 == trainer.descent.beta2 == 0.9


def test_log_mean_exp(rng):
    """Value, first and second derivative; a weight of −inf is a weight of 0; float32 is kept."""
    x = rng.standard_normal((3, 5))
    np.testing.assert_allclose(common.log_mean_exp(x, 0), np.log(np.mean(np.exp(x), axis=0)))
    assert common.log_mean_exp(x + 1e4, 0) == pytest.approx(common.log_mean_exp(x, 0) + 1e4)
    check_grads(lambda x: common.log_mean_exp(x, 1), modes=["rev"], order=2)(x)
    x[0] = -np.inf
    np.testing.assert_allclose(common.log_mean_exp(x, 0), np.log(np.sum(np.exp(x[1:]), axis=0) / 3))
    assert common.log_mean_exp(x.astype(np.float32), 0).dtype == np.float32


# ----------------------------------------------------------------------------------------- float32


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("reinforce", {}), ("reinforce", {"baseline": "none"}), ("rebar", {}),
        ("rebar", {"adapt": "eta"}), ("rebar", {"adapt": "none"}),
        ("rebar", {"conditional": "independent", "relaxation": "concrete"}),
        ("rebar", {"control_variate": "joint"}), ("rebar", {"as_released": True}),
    ],
    ids=str,
)  # fmt: skip
def test_float32_is_kept_everywhere(monkeypatch, method, options, task, layers):
    proofs.float32_is_kept(M, monkeypatch, method, task, layers, **options)


# ------------------------------------------------------- what gradient_samples and f are handed


SHAPES = {name: (2,) if name in ("rloo", "vimco", "rodeo") else () for name in (
    "reinforce", "rloo", "nvil", "vimco", "muprop", "disarm", "concrete", "reinmax", "rebar",
    "relax", "rodeo")}  # fmt: skip
SQUARES = lambda b: anp.sum((b - 0.45) ** 2, axis=-1)


@pytest.mark.parametrize("name", SHAPES)
def test_noise_and_logits_are_checked(name, rng):
    """Noise that is no uniform, none at all, and logits of other types, for every file of bits."""
    samples, logits = getattr(M, name).gradient_samples, np.array([0.3, -1.0])
    u, v = rng.random((2, 50, *SHAPES[name], 2))
    assert np.all(np.isfinite(samples(SQUARES, logits, u, v)))
    for arguments, message in (
        ((logits, 5 * u - 2, v), "u: has to be uniforms, from 0 to 1"),
        ((logits, u, v + 1), "v: has to be uniforms"),
        ((logits, u[:0], v[:0]), "u: has to be finite numbers of shape"),
        ((logits + 0j, u, v), "logits: has to be numbers of shape"),
        ((["a", "b"], u, v), "logits: has to be numbers of shape"),
        (([[1.0], [1.0, 2.0]], u, v), "logits: has to be numbers of shape"),
        ((logits, u * np.nan, v), "u: has to be finite numbers of shape"),
    ):
        with pytest.raises(M.common.InputError, match=message):
            samples(SQUARES, *arguments)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nvil", {"baseline": np.nan}), ("nvil", {"baseline": [1, 2]}), ("nvil", {"baseline": "a"}),
        ("muprop", {"s0": np.nan}), ("muprop", {"s1": np.inf}), ("muprop", {"baseline": None}),
        ("rebar", {"eta": np.nan}), ("rebar", {"baseline": np.nan}), ("relax", {"eta": np.inf}),
        ("rodeo", {"alpha": np.inf}), ("vimco", {"ovis": "1"}), ("vimco", {"ovis": np.nan}),
    ],
)  # fmt: skip
def test_numbers_among_the_options_are_checked(name, options, rng):
    u, v = rng.random((2, 50, *SHAPES[name], 2))
    (option,) = options
    with pytest.raises(M.common.InputError, match=f"{option}: has to be a finite number"):
        getattr(M, name).gradient_samples(SQUARES, np.zeros(2), u, v, **options)


def test_an_f_that_writes_or_is_not_finite_is_refused(rng):
    def writes(b):
        b -= 0.45
        return np.sum(b**2, axis=-1)

    u, v = rng.random((2, 50, 2))
    one_hot = rng.random((2, 50, 1, 3))
    of_logs = lambda b: np.log(b[:, 0])  # −∞ for a bit that is 0
    for f, message in ((writes, "f: writes into its argument"), (of_logs, "f: returned -inf")):
        with pytest.raises(M.common.InputError, match=message), np.errstate(divide="ignore"):
            M.common.exact_gradient(f, np.zeros(2))
        with pytest.raises(M.common.InputError, match=message), np.errstate(divide="ignore"):
            M.reinforce.gradient_samples(f, np.zeros(2), u, v)
    jumps = lambda b: np.round(b[:, 0, 0])
    for estimator in ("gumbel-softmax", "st", "rebar"):
        with pytest.raises(M.common.InputError, match="f: has slope 0 wherever"):
            M.gumbel_softmax.gradient_samples(
                jumps, np.zeros((1, 3)), *one_hot, estimator=estimator
            )
    M.gumbel_softmax.gradient_samples(jumps, np.zeros((1, 3)), *one_hot, estimator="reinforce")
    with pytest.raises(M.common.InputError, match="basline: estimator reinforce has no such"):
        M.gumbel_softmax.gradient_samples(jumps, np.zeros((1, 3)), *one_hot, estimator="reinforce",
                                          basline=1.0)  # fmt: skip
    for estimator, options in (("gumbel-softmax", {"samples": 2}), ("rebar", {"inner": 3}),
                               ("gumbel-softmax", {"objective": "density"}),
                               ("st", {"straight_through": True})):  # fmt: skip
        with pytest.raises(
            M.common.InputError, match=f"{next(iter(options))}: estimator {estimator} has"
        ):
            M.gumbel_softmax.gradient_samples(
                jumps, np.zeros((1, 3)), *one_hot, estimator=estimator, **options
            )
    for samples in (M.concrete, M.rebar, M.relax, M.reinmax):
        with pytest.raises(M.common.InputError, match="temperature: has to be a finite number"):
            samples.gradient_samples(lambda b: b[:, 0], np.zeros(2), u, v, temperature="0.5")
    with pytest.raises(M.common.InputError, match="u: has to be uniforms"):
        M.gumbel_softmax.gradient_samples(jumps, np.zeros((1, 3)), 9 * one_hot[0], one_hot[1])
    log_joint = lambda z: -anp.sum(z**2, axis=-1)
    eps = rng.standard_normal((4, 3, 2))
    for arguments, message in (
        ((np.full(2, np.nan), np.zeros(2), eps), "mu: "),
        ((np.zeros(2), np.zeros(3), eps), "log_sigma: "),
        ((np.zeros(2), np.full(2, 1e4), eps), "log_sigma: has to be from -80 to 80"),
        ((np.zeros(2), np.full(2, -60, np.float32), eps), "log_sigma: has to be from -40 to 40"),
        ((np.array([np.inf, 0]), np.zeros(2), eps), "mu: has to be finite"),
        ((np.zeros(2), np.zeros(2), np.where(eps > 1, np.inf, eps)), "eps: has to be finite"),
        ((np.zeros(2), np.zeros(2), eps[0]), "eps: "),
    ):  # fmt: skip
        with pytest.raises(M.common.InputError, match=message):
            M.dreg.gradient_samples(log_joint, *arguments)
    M.dreg.gradient_samples(log_joint, [0, 0], [0, 0], eps.tolist())


def writes_into_z(z):
    z[..., 0] = 1
    return anp.sum(z, axis=-1)


@pytest.mark.parametrize(
    ("log_joint", "message"),
    [
        (lambda z: anp.sum(anp.log(z + 1), axis=-1), "returned nan; it has to be finite"),
        (lambda z: anp.sum(anp.sqrt(anp.maximum(z, 0)), axis=-1), "its slope is not finite"),
        (lambda z: anp.sum(anp.floor(z), axis=-1), "has slope 0 at every z, but varies"),
        (lambda z: [anp.sum(z)], r"has to return floats \(4, 3\), not object \(1,\)"),
        (lambda z: anp.sum(z), r"has to return floats \(4, 3\), not float64 \(\)"),
        (lambda z: anp.sum(z, axis=1), r"has to return floats \(4, 3\), not float64 \(4, 2\)"),
        (lambda z: np.zeros((4, 3), int), r"has to return floats \(4, 3\), not int64 \(4, 3\)"),
        (writes_into_z, "does not support item assignment"),
    ],
)
@pytest.mark.filterwarnings("ignore:Output seems independent")
def test_a_log_joint_that_is_not_one_is_refused(log_joint, message):
    eps = np.random.default_rng(0).standard_normal((4, 3, 2))
    with (
        np.errstate(divide="ignore", invalid="ignore"),
        pytest.raises(M.common.InputError, match=f"^log_joint: .*({message})"),
    ):
        M.dreg.gradient_samples(log_joint, np.zeros(2), np.zeros(2), 3 * eps)


def test_the_options_of_dreg_are_checked():
    rng, log_joint = np.random.default_rng(0), lambda z: -anp.sum(anp.sqrt(1 + z**2), axis=-1)
    of = partial(M.dreg.gradient_samples, log_joint, np.ones(2), np.zeros(2))
    eps = rng.standard_normal((4, 3, 2))
    for estimator, option, value, message in (
        ("dreg-cv", "cv", (np.nan, 0, 0, 0), "has to be finite numbers of shape"),
        ("dreg-cv", "cv", (0, 1), "has to be finite numbers of shape"),
        ("dreg-alpha", "alpha", 30, "has to be from 0 to 1, not 30.0"),
        ("dreg-alpha", "alpha", -0.1, "has to be from 0 to 1"),
        ("dreg", "alpha", 0.5, "estimator dreg has no such option"),
        ("dreg-alpha", "cv", (0, 0, 0, 0), "estimator dreg-alpha has no such option"),
        ("dreg-cv", "alpha", 0.9, "estimator dreg-cv has no such option"),
    ):
        with pytest.raises(M.common.InputError, match=f"^{option}: {message}"):
            of(eps, estimator, **{option: value})
    for estimator, options in (("dreg-alpha", {"alpha": 0.9}), ("dreg-cv", {"cv": np.zeros(4)})):
        np.testing.assert_array_equal(of(eps, estimator, **options), of(eps, estimator))
        half = {name: np.array(value) / 2 + 0.1 for name, value in options.items()}
        assert np.abs(of(eps, estimator, **half)[0] - of(eps, estimator)[0]).max() > 1e-3


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 40), (np.float64, 80)])
def test_the_narrowest_and_the_widest_gaussian_have_a_gradient(dtype, most):
    """In units of σ that of μ is the same for z / σ, to rounding, and nothing is NaN."""
    eps = np.random.default_rng(0).standard_normal((6, 3, 2)).astype(dtype)
    for sign in (-1, 1):
        log_sigma = np.full(2, sign * most, dtype)
        sigma, zero = np.exp(log_sigma), np.zeros(2, dtype)
        for name in M.dreg.ESTIMATORS:
            scaled = lambda z, sigma=sigma: -anp.sum(anp.sqrt(1 + (z / sigma) ** 2), axis=-1)
            ours = M.dreg.gradient_samples(scaled, zero, log_sigma, eps, name)
            unit = lambda z: -anp.sum(anp.sqrt(1 + z**2), axis=-1)
            expected = M.dreg.gradient_samples(unit, zero, zero, eps, name)
            assert ours[0].dtype == dtype
            np.testing.assert_allclose(ours[0] * sigma, expected[0], rtol=2e-3, atol=1e-4)
            np.testing.assert_allclose(ours[1], expected[1], rtol=2e-3, atol=1e-4)


def test_a_quadrature_is_for_one_variable():
    for logits in (np.zeros(2), 0.0, [np.nan], np.zeros((1, 1))):
        with pytest.raises(M.common.InputError, match=r"^logits: .*D = 1"):
            M.common.quadrature(logits)
    for logits in (np.zeros((2, 3)), np.zeros(3), np.zeros((1, 4)), [[0, -np.inf, 0]]):
        with pytest.raises(M.common.InputError, match=r"^logits: .*D = 1, C = 3"):
            M.categorical.quadrature(logits)
    with pytest.raises(M.common.InputError, match=r"^logits: too far apart: the weights sum"):
        M.categorical.quadrature([[30, 0, -30]])
    u, weights = M.categorical.quadrature([[5, 0, -5]])
    chosen = weights @ M.categorical.hard_sample(np.array([[5.0, 0, -5]]), u)[:, 0]
    expected = M.categorical.softmax(np.array([5.0, 0, -5]))
    np.testing.assert_allclose(chosen, expected, rtol=0, atol=1e-7)
    u, _, weights = M.common.quadrature([0.7], 50)
    assert weights @ (u[:, 0] > 1 - M.common.sigmoid(0.7)) == pytest.approx(M.common.sigmoid(0.7))
