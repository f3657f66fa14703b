"""Our estimators on the noise of other people's code: what it returns, element by element.

data/rodeo_fixture.npz holds what github.com/thjashin/rodeo (TensorFlow 2.15, commit cfb4427) gives
for a small network, ten MNIST images and given uniforms: the gradients of minus the bound, summed
over the images. Of the largest tensors every 16th row or column is kept. In
rodeo_fixture_learned.npz are the methods that learn something, with its gradients. The network of
RELAX is kept for the pixels that are not 0 in all images, its gradient for every 8th of those.
"""

from pathlib import Path

import numpy as np
import proofs
import pytest

M = proofs.load()
FILE = Path(__file__).parent / "data" / "rodeo_fixture.npz"
LEARNED = FILE.with_name("rodeo_fixture_learned.npz")
NETWORK = {"activation": "leaky-relu", "slope": 0.3, "centring": False, "prior": "fixed"}
CASES = {  # in their file: samples of an image, module, options
    "reinforce_loo_K2": (2, "rloo", {"samples": 2}),
    "reinforce_loo_K3": (3, "rloo", {"samples": 3}),
    "disarm_K2": (1, "disarm", {}),
    "arms_K3": (3, "disarm", {"estimator": "arms", "samples": 3}),
}


def with_offsets(m):
    """An SBN with one more parameter: an offset of every row's logits, whose gradient is theirs."""

    class Offsets(m.models.SBN):
        def infer(self, params, x, sample, known_logits=()):
            _, (a,) = super().infer(params, x, lambda layer, a: a)
            return super().infer(params, x, sample, [a + params[-1]])

    return Offsets


def largest_error(m, case, dtype=np.float64):
    """The largest deviation of any element, relative to the largest of its array, and its name."""
    K, module, options = CASES[case]
    with np.load(FILE) as file:
        data = dict(file)
    params = [data[f"{net}_{i}"].astype(dtype) for net in ("enc", "dec") for i in range(6)]
    model = with_offsets(m)(np.full(784, 0.5), 20, 1, True, dtype=dtype, **NETWORK)
    x = np.repeat(np.unpackbits(data["x"], axis=1).astype(dtype), K, axis=0)
    u = np.moveaxis(data["u"][:K], 0, 1).reshape(-1, 20).astype(dtype)  # K rows of an image
    params.append(np.zeros((len(x), 20), dtype))
    bound, grads, _ = getattr(m, module).estimate(model, params, [], x, [(u, u)], **options)
    images = len(x) // K
    *grads, offsets = (-images * g for g in grads)
    ours = {f"encgrad_{i}": g for i, g in enumerate(grads[:6])}
    ours |= {f"decgrad_{i}": g for i, g in enumerate(grads[6:])}
    ours["encgrad_0"] = ours["encgrad_0"][::16]
    ours |= {f"decgrad_{i}": ours[f"decgrad_{i}"][..., ::16] for i in (4, 5)}
    ours["loss"] = -bound.reshape(images, K).mean(axis=1)
    ours["eta_grads"] = offsets.reshape(images, K, 20).sum(axis=1)
    names = [key.removeprefix(f"{case}/") for key in data if key.startswith(f"{case}/")]
    assert len(names) == (14 if module == "rloo" else 7)  # the decoder trains on other samples
    errors = {}
    for name in names:
        theirs = data[f"{case}/{name}"]
        assert theirs.shape == ours[name].shape
        errors[name] = np.abs(theirs - ours[name]).max() / np.abs(theirs).max()
    worst = max(errors, key=errors.get)
    return errors[worst], worst


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_their_gradients(case, dtype):
    error, name = largest_error(M, case, dtype)
    print(f"{case}: {error:.1e} in {name}")
    assert error < 1e-4


@pytest.mark.parametrize(
    ("case", "file", "old", "new"),
    [
        ("reinforce_loo_K3", "rloo", "(K / (K - 1))", "1"),
        ("disarm_K2", "disarm", "sigmoid(np.abs(a)) / 2", "sigmoid(np.abs(a)) / 2.001"),
        ("disarm_K2", "disarm", "np.where(antithetic, hard_sample(a, 1 - u[layer])",
         "np.where(antithetic, hard_sample(a, u[layer] / 2)"),
        ("arms_K3", "disarm", "np.where(a < 0, rare, ~rare)", "np.where(a < 1, rare, ~rare)"),
        ("arms_K3", "disarm", "2 * m ** (1 / (samples - 1)) - 1", "m ** (2 / (samples - 1))"),
        ("reinforce_loo_K2", "models", "np.where(x > 0, x, slope * x)",
         "np.where(x > 0, x, 0.31 * x)"),
        ("reinforce_loo_K2", "models", "signed if centring else lambda b: b", "signed"),
    ],
)  # fmt: skip
def test_mutation_is_rejected(case, file, old, new):
    assert largest_error(proofs.load([(file, old, new)]), case)[0] > 1e-4


# -------------------------------------------------------------------------------------- learned


def read(dtype):
    """Both files, the bits of the images, and the parameters."""
    with np.load(FILE) as file, np.load(LEARNED) as learned:
        data = dict(file) | dict(learned)
    params = [data[f"{net}_{i}"].astype(dtype) for net in ("enc", "dec") for i in range(6)]
    return data, np.unpackbits(data["x"], axis=1).astype(dtype), params


def errors(case, data, ours):
    """The deviation of every array of a case, relative to the largest element of the array."""
    theirs = {key.removeprefix(f"{case}/"): data[key] for key in data if key.startswith(f"{case}/")}
    assert ours.keys() <= theirs.keys()
    for name, array in ours.items():
        assert np.shape(array) == theirs[name].shape, name
    return {
        name: np.abs(theirs[name] - array).max() / np.abs(theirs[name]).max()
        for name, array in ours.items()
    }


def relax_errors(m, dtype=np.float64):
    """Theirs is c = scale · (r + f), ours η f + r: their scale multiplies the last layer of our r.

    Their objective is the sum of the squares of the gradient, itself a sum over the images.
    """
    case = "relax_K2"
    data, x, params = read(dtype)
    active = np.flatnonzero(x.any(axis=0))
    W1, b1, W2, b2 = (data[f"{case}/control_{i}"].astype(dtype) for i in range(4))
    whole = np.zeros((784 + 20, W1.shape[1]), dtype)
    seen = np.append(active, np.arange(784, 804))
    whole[seen] = W1
    scale, log_T = (data[f"{case}/{name}"].astype(dtype) for name in ("scaling", "log_temperature"))
    aux = [whole, b1, scale * W2, scale * b2, np.full(1, scale), log_T]
    model = m.models.SBN(np.full(784, 0.5), 20, 1, True, dtype=dtype, **NETWORK)
    uv = data["relax_uv"].astype(dtype)
    options = {"conditional": "independent", "activation": lambda h: m.models.leaky_relu(h, 0.3)}
    bound, grads, slopes = m.relax.estimate(model, params, aux, x, [(uv[:10], uv[10:])], **options)
    slopes = [len(x) ** 2 * sum(p.size for p in params) * g for g in slopes]
    by_W1, by_b1, by_W2, by_b2, by_eta, by_log_T = slopes
    ours = {f"{net}grad_{i}": -len(x) * grads[6 * k + i]
            for k, net in enumerate(("enc", "dec")) for i in range(6)}  # fmt: skip
    ours["encgrad_0"] = ours["encgrad_0"][::16]
    ours |= {f"decgrad_{i}": ours[f"decgrad_{i}"][..., ::16] for i in (4, 5)}
    ours |= {"thetagrad_0": by_W1[seen][::8], "thetagrad_1": by_b1, "loss": -bound}
    ours |= {"thetagrad_2": scale * by_W2, "thetagrad_3": scale * by_b2, "thetagrad_4": by_log_T}
    ours["thetagrad_5"] = by_eta[0] + np.sum(by_W2 * W2) + np.sum(by_b2 * b2)
    return errors(case, data, ours)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_relax(dtype):
    """Every gradient, with those of the network, T and the scale."""
    found = relax_errors(M, dtype)
    assert len(found) == 19
    worst = max(found, key=found.get)
    print(f"RELAX: {found[worst]:.1e} in {worst}")
    assert found[worst] < 1e-4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("signal = stop_gradient(f_b - c_z_tilde)", "signal = stop_gradient(f_b - c_z)"),
        ("c([*below, a_l], z_tilde)", "c([*below, stop_gradient(a_l)], z_tilde)"),
        ("for g in grads) / size]", "for g in grads[1:]) / size]"),
    ],
)
def test_mutation_of_relax_is_rejected(old, new):
    assert max(relax_errors(proofs.load([("relax", old, new)])).values()) > 1e-4


RODEO = {  # in their file: samples of an image, estimator
    "double_cv_K2": (2, "double-cv"),
    "double_cv_K3": (3, "double-cv"),
    "discrete_stein_avg_K2": (2, "rodeo"),
    "discrete_stein_output_avg_K3": (3, "rodeo"),
}


def rodeo_errors(m, case, dtype=np.float64):
    """Their f is minus the bound: H of −(s, f), and minus its outputs, is our H.

    They have a layer for each of the inputs s and f, whose sum goes through the leaky ReLU.
    """
    K, estimator = RODEO[case]
    data, x, params = read(dtype)
    get = lambda name: data[f"{case}/{name}"].astype(dtype)
    aux = [np.full(1, get("alpha"))]
    if estimator == "rodeo":
        by_s, b_s, by_f, b_f, W2, b2 = (get(f"control_{i}") for i in range(6))
        W1 = np.concatenate([by_s, by_f])
        aux = [-W1, b_s + b_f, -W2, -b2, *aux, np.full(1, get("beta"))]
    model = with_offsets(m)(np.full(784, 0.5), 20, 1, True, dtype=dtype, **NETWORK)
    x = np.repeat(x, K, axis=0)
    u = np.moveaxis(data["u"][:K], 0, 1).reshape(-1, 20).astype(dtype)  # K rows of an image
    params.append(np.zeros((len(x), 20), dtype))
    bound, grads, slopes = m.rodeo.estimate(
        model, params, aux, x, [(u, u)], samples=K, estimator=estimator
    )
    ours = {f"encgrad_{i}": -len(x) / K * g for i, g in enumerate(grads[:6])}
    ours["encgrad_0"] = ours["encgrad_0"][::16]
    ours["eta_grads"] = -len(x) / K * grads[-1].reshape(-1, K, 20).sum(axis=1)
    ours["loss"] = -bound.reshape(-1, K).mean(axis=1)
    ours["hyper_grads"] = np.concatenate(slopes[-2:] if estimator == "rodeo" else slopes)
    if estimator == "rodeo":
        by_W1, by_b1, by_W2, by_b2 = slopes[:4]
        nets = [-by_W1[:1], by_b1, -by_W1[1:], by_b1, -by_W2, -by_b2]
        ours |= {f"control_grad_{i}": g for i, g in enumerate(nets)}
    return errors(case, data, ours)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", RODEO)
def test_rodeo(case, dtype):
    """Every gradient, with those of α, β and H.

    The latter are sums that nearly cancel: theirs are in float32, and so computed ours move by up
    to 2e-4 too.
    """
    found = rodeo_errors(M, case, dtype)
    assert len(found) == (9 if case.startswith("double_cv") else 15)
    for name, error in found.items():
        print(f"{case}/{name}: {error:.1e}")
        assert error < (1e-3 if name.startswith(("hyper", "control")) else 1e-4), name


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("double_cv_K2", "- alpha * G_others * theta", "- 1.001 * alpha * G_others * theta"),
        ("double_cv_K3", "G_others = of_others(G)", "G_others = G"),
        ("discrete_stein_avg_K2", "* (1 - 2 * b) / D", "* (1 - 2 * b) / (D - 1)"),
        ("discrete_stein_output_avg_K3", "return h / (K - 1), h_turned / (K - 1)",
         "return h / K, h_turned / K"),
        ("discrete_stein_output_avg_K3", "maximum(h, 0.3 * h)", "maximum(h, 0.4 * h)"),
    ],
)  # fmt: skip
def test_mutation_of_rodeo_is_rejected(case, old, new):
    found = rodeo_errors(proofs.load([("rodeo", old, new)]), case)
    assert max(error for name, error in found.items() if name.startswith("enc")) > 1e-4
