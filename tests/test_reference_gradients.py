"""data/reference_gradients.npz: what the code gives, derivatives by another way, and its size."""

import autograd
import autograd.numpy as anp
import common
import make_reference_gradients as made
import numpy as np
import proofs
import pytest
import rebar
import relax
import rodeo
from check import PAPERS

PAGE = proofs.METHODS.parent / "data" / "README.md"


@pytest.fixture(scope="module")
def file():
    with np.load(made.PATH, allow_pickle=False) as arrays:
        return dict(arrays)


def test_the_file_is_what_the_code_gives(file):
    """Rows to rounding; derivatives from differences to the 1e-8 that they are good for."""
    fresh = made.make()
    assert fresh.keys() == file.keys()
    for key, x in fresh.items():
        assert x.dtype == np.float64
        rtol = 1e-7 if "/d_" in key else 1e-10
        np.testing.assert_allclose(file[key], x, rtol, rtol * np.abs(x).max(), err_msg=key)
    assert made.PATH.stat().st_size <= 300_000


def test_every_method_and_every_function_is_in_it(file):
    methods = {key.split("/")[2].partition(":")[0] for key in file if key.count("/") > 1}
    assert methods >= {*PAPERS}
    page = PAGE.read_text(encoding="utf-8")
    for name in made.F:
        assert f"| `{name}` |" in page
        assert f"bits/{name}/reinforce" in file
        assert f"classes/many_{name}/unordered" in file


def rows_of(file, key, f_name, **changed):
    f = made.function(file, "bits", f_name)
    name, options = made.parse(key, PAPERS)
    if "rho" in options:
        options["rho"] = made.network(file, name)
    samples = {"rebar": rebar, "relax": relax}[name].gradient_samples
    u, v = file["bits/u"], file["bits/v"]
    return samples(f, file["bits/logits"], u, v, **options | changed)


@pytest.mark.parametrize("f_name", made.F)
@pytest.mark.parametrize("own", made.OWN["rebar"])
@pytest.mark.parametrize("key", [k for k in made.OF_BITS[""] if "temperature=0.5,eta" in k])
def test_temperature_and_eta_by_autograd(file, key, own, f_name):
    square = lambda x: anp.mean(anp.sum(rows_of(file, key, f_name, **{own: x}) ** 2, axis=1))
    exact = autograd.grad(square)({"temperature": 0.5, "eta": 0.8}[own])
    assert file[f"bits/{f_name}/{key}/d_{own}"] == pytest.approx(exact, rel=1e-8)


def aux_gradients(module, file, noise, f_name, aux, **options):
    """What `estimate` gives for the method's own parameters; one row of logits per estimate."""
    u, v = (file[f"bits/{noise}{x}"].reshape(-1, made.BITS) for x in ("u", "v"))
    model = common.Toy(made.function(file, "bits", f_name), made.BITS)
    logits = np.tile(file["bits/logits"], (len(u), 1))
    x = np.zeros((len(u), 0))
    return module.estimate(model, [logits], aux, x, [(u, v)], **options)[2]


@pytest.mark.parametrize("f_name", made.F)
def test_relax_by_its_own_trace(file, f_name):
    """Its networks see the noise only, like those that `estimate` trains on the toy."""
    net = made.network(file, "relax")
    found = aux_gradients(relax, file, "", f_name, [*net, np.array([0.8]), np.log(0.5)])
    where = f"bits/{f_name}/relax:temperature=0.5,eta=0.8,rho=net/d_"
    # it descends the mean over rows and bits of (g / rows)²
    found = [made.ROWS**2 * made.BITS * g for g in found]
    for part, g in zip(("W1", "b1", "W2", "b2"), found):
        np.testing.assert_allclose(g, file[f"{where}rho/{part}"], 1e-6, 1e-8)
    assert found[-2][0] == pytest.approx(file[f"{where}eta"], rel=1e-7)
    assert found[-1] / 0.5 == pytest.approx(file[f"{where}temperature"], rel=1e-7)


@pytest.mark.parametrize("f_name", made.F)
def test_rodeo_by_its_own_trace(file, f_name):
    net = made.network(file, "rodeo")
    aux = [*net, np.array([0.3]), np.array([0.2])]
    found = aux_gradients(rodeo, file, "many_", f_name, aux, samples=made.SAMPLES)
    where = f"bits/many_{f_name}/rodeo:alpha=0.3,beta=0.2,rho=net/d_"
    scale = file[f"{where}alpha"] / found[-2][0]
    np.testing.assert_allclose(scale * found[-1][0], file[f"{where}beta"], 1e-6, 1e-9)
    for part, g in zip(("W1", "b1", "W2", "b2"), found):
        np.testing.assert_allclose(scale * g, file[f"{where}rho/{part}"], 1e-6, 1e-8)


def test_another_estimator_is_noticed(file):
    """The comparison itself: a changed option gives other rows."""
    key = "rebar:temperature=0.5,eta=0.8,baseline=0.1"
    right = rows_of(file, key, "exp")
    np.testing.assert_allclose(right, file[f"bits/exp/{key}"], 1e-10, 1e-12)
    assert np.abs(rows_of(file, key, "exp", eta=0.81) - right).max() > 1e-3
