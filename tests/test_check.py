"""check.py: right estimators pass, wrong ones are found, its statistics keep their promises.

Estimators of this file are written out, each with the mistakes that people make in it: `wrong`
names one. The mutations of the other suites go through the tool too. Every check has a false-alarm
rate of 1e-6; tests/benchmarks/check_seeds.py repeats the right ones with hundreds of seeds.
"""

import json
import re
import shlex
import subprocess
import sys
import textwrap
from functools import partial

import autograd.numpy as anp
import categorical
import check
import numpy as np
import proofs
import pytest
import test_gumbel_softmax
import test_mutations
import test_muprop
import test_nvil
from autograd import elementwise_grad
from common import Toy, exact_gradient, log_mean_exp, logit, sigmoid
from harness import backends, bias_test, cases, model_check
from scipy import stats

M = proofs.load()
NUMPY = backends.numpy_backend()
QUICK = {"estimates": 16_000}

# ---------------------------------------------------------------- estimators, right and wrong


def gradient(f, b):
    """∇f at every row of b."""
    return elementwise_grad(lambda b: anp.sum(f(b)))(b)


def reinforce(f, logits, u, v, wrong=None):
    theta = sigmoid(-logits if wrong == "sign of the logits" else logits)
    if wrong == "one uniform for all bits":
        u = u[:, :1]
    b = (u < theta) * 1.0 * np.ones(logits.shape)
    signal, score = f(b), b - theta
    if wrong == "probability for logit":
        score = score / (theta * (1 - theta))
    if wrong == "score of 1 only":
        score = b * (1 - theta)
    if wrong == "gradient of a mean for that of a sum":
        signal = signal / len(u)
    if wrong == "mean over the wrong axis":
        signal = np.mean(f(b)[:, None] * np.ones(b.shape), axis=0, keepdims=True)
        return signal * score
    if wrong == "float16":
        signal = signal.astype(np.float16)
    if wrong == "divided by its size":
        signal = np.sign(signal)
    if wrong == "clipped":
        signal = np.clip(signal, -3, 3)
    if wrong == "rows normalised":
        signal = (signal - signal.mean()) / (signal.std() + 1e-8)
    if wrong == "signs squared":
        score = np.abs(score)
    if wrong == "bits in reverse":
        score = score[:, ::-1]
    return signal[:, None] * score


def rloo(f, logits, u, v, wrong=None):
    """u (n, K, D)."""
    theta, K = sigmoid(logits), u.shape[1]
    b = (u < theta) * 1.0
    fs = f(b)  # (n, K)
    baseline = (fs.sum(axis=1, keepdims=True) - fs) / (K - 1)
    if wrong == "its own sample in the baseline":
        baseline = fs.mean(axis=1, keepdims=True)
    if wrong == "off by one: divided by K":
        baseline = (fs.sum(axis=1, keepdims=True) - fs) / K + 0.1 * fs
    if wrong == "off by one: the sample before":
        baseline = np.roll(fs, 1, axis=1)
        baseline[:, 0] = fs[:, 0]
    signal = fs - baseline
    if wrong == "divided by the standard deviation":
        signal = signal / (fs.std(axis=1, keepdims=True) + 1e-8)
    mean = np.sum if wrong == "sum for mean over samples" else np.mean
    return mean(signal[..., None] * (b - theta), axis=1)


def vimco(f, logits, u, v, wrong=None):
    """Of the bound of K samples; u (n, K, D)."""
    theta, K = sigmoid(logits), u.shape[1]
    b = (u < theta) * 1.0
    fs = f(b)
    L = log_mean_exp(fs, axis=1)[:, None]
    others = (fs.sum(axis=1, keepdims=True) - fs) / (K if wrong == "others divided by K" else K - 1)
    if wrong == "mean with the sample itself":
        others = fs.mean(axis=1, keepdims=True) + 0 * fs
    swapped = np.where(np.eye(K, dtype=bool), others[:, :, None], fs[:, None])
    baseline = log_mean_exp(swapped, axis=2)
    signal = fs - baseline if wrong == "f for L" else L - baseline
    return np.sum(signal[..., None] * (b - theta), axis=1)


def disarm(f, logits, u, v, wrong=None):
    theta = sigmoid(logits)
    b, other = (u > 1 - theta) * 1.0, (u < theta) * 1.0
    if wrong == "independent pair":
        other = (v < theta) * 1.0
    sign = np.where(other == 1, -1.0, 1.0) * (b != other)
    weight = sigmoid(logits if wrong == "σ(a) for σ(|a|)" else np.abs(logits))
    half = 1.0 if wrong == "without the half" else 0.5
    return half * (f(b) - f(other))[:, None] * sign * weight  # without 1[b ≠ b̃] unbiased as well


def muprop(f, logits, u, v, wrong=None):
    theta = sigmoid(logits)
    b, mu = (u < theta) * 1.0, np.tile(theta, (len(u), 1))
    D = gradient(f, b if wrong == "expanded around the sample" else mu)
    signal = f(b) - f(mu) - np.sum(D * (b - mu), axis=1)
    slope = D if wrong == "θ(1 − θ) forgotten" else D * theta * (1 - theta)
    return signal[:, None] * (b - theta) + (0 if wrong == "correction forgotten" else slope)


def rebar(f, logits, u, v, wrong=None, T=0.5, eta=0.8):
    """z̃ from v."""
    if wrong == "u and v the same array":
        v = u
    theta = sigmoid(logits)
    z = logits + logit(u)
    b = (z > 0) * 1.0
    s = 2 * b - 1

    def conditional(a):
        z_tilde = s * anp.log1p(anp.exp(s * logit(v) + anp.log1p(anp.exp(s * a))))
        return (
            anp.log1p(anp.exp(s * logit(v) + anp.log1p(anp.exp(a)))) if wrong == "sign" else z_tilde
        )

    soft = lambda z: 1 / (1 + anp.exp(-z / T))
    z_tilde = conditional(logits + 0 * u)
    slope = elementwise_grad(conditional)(logits + 0 * u)
    if wrong == "dz̃/da = 1":
        slope = 1 + 0 * slope
    if wrong == "dz̃/da dropped":
        slope = 0 * slope
    path = lambda z, dz: gradient(lambda z: f(soft(z)), z) * dz
    tilde = path(z_tilde, slope)
    if wrong == "f(z̃) detached":
        tilde = 0 * tilde
    scale = 1.0 if wrong == "η on one term only" else eta
    score = (f(b) - eta * f(soft(z_tilde)))[:, None] * (b - theta)
    return score + scale * (path(z, 1.0) - tilde)


def straight_through(f, logits, u, v):
    theta = sigmoid(logits)
    return gradient(f, (u < theta) * 1.0) * theta * (1 - theta)


def reinmax(f, logits, u, v):
    """Liu et al. 2023 (arXiv 2304.08612): the trapezoidal rule, for bits.

    f(1) − f(0) ≈ (f'(0) + f'(1)) / 2; a sample of weight 1 / (2 q(b)) stands for both ends.
    """
    theta = sigmoid(logits)
    b = (u < theta) * 1.0
    q = np.where(b == 1, theta, 1 - theta)
    return gradient(f, b) * theta * (1 - theta) / (2 * q)


WRONG = {
    reinforce: [
        "sign of the logits", "one uniform for all bits", "probability for logit",
        "score of 1 only", "gradient of a mean for that of a sum", "mean over the wrong axis",
        "divided by its size", "clipped", "rows normalised", "signs squared", "bits in reverse",
    ],
    rloo: [
        "its own sample in the baseline", "off by one: divided by K",
        "off by one: the sample before", "divided by the standard deviation",
        "sum for mean over samples",
    ],
    vimco: ["mean with the sample itself", "f for L"],
    disarm: ["independent pair", "σ(a) for σ(|a|)", "without the half"],
    muprop: ["expanded around the sample", "θ(1 − θ) forgotten", "correction forgotten"],
    rebar: ["u and v the same array", "sign", "dz̃/da = 1", "dz̃/da dropped", "f(z̃) detached",
            "η on one term only"],
}  # fmt: skip
OPTIONS = {rloo: {"samples": 3}, vimco: {"samples": 3, "target": "bound", "bits": 3}}
EXPLICIT = [(function, name) for function, names in WRONG.items() for name in names]


@pytest.mark.parametrize(("function", "wrong"), EXPLICIT, ids=lambda x: getattr(x, "__name__", x))
def test_wrong_estimator_is_found(function, wrong):
    options = OPTIONS.get(function, {})
    assert not check.check(partial(function, wrong=wrong), **options).unbiased


def test_there_are_enough_of_them():
    assert len(EXPLICIT) + len(SAMPLES) + len(MODELS) >= 60


def test_float16_is_found_by_integration():
    report = check.check(partial(reinforce, wrong="float16"), bits=1)
    assert not report.unbiased
    assert any(row.biased for row in report.rows if row.function == "offset")


@pytest.mark.parametrize("function", WRONG)
def test_right_estimator_passes(function):
    report = check.check(function, **OPTIONS.get(function, {}), **QUICK)
    report.assert_unbiased()
    assert len(report.rows) == 21
    assert report.verdict.startswith("unbiased as far as ")


def test_straight_through_is_biased_on_the_quadratic_and_exact_on_the_linear():
    assert not check.check(straight_through, only="quadratic").unbiased
    assert check.check(straight_through, only="linear").unbiased


@pytest.mark.parametrize("bits", [1, 5])
def test_reinmax_is_exact_on_the_quadratic_and_biased_on_the_cubic(bits):
    check.check(reinmax, bits, only="quadratic").assert_unbiased()
    report = check.check(reinmax, bits, only="cubic")
    assert not report.unbiased
    with pytest.raises(AssertionError, match="biased: cubic, logits"):
        report.assert_unbiased()


# ------------------------------------------------------------------------- element by element

RIGHT_ON_ONE = {  # module, options, how, other options
    "REINFORCE": ("reinforce", {}, {}, "baseline=batch"),
    "NVIL": ("nvil", {"baseline": 1.5}, {}, "baseline=1"),
    "MuProp": ("muprop", {"s0": 0.7, "s1": 0.5}, {}, "simple"),
    "RLOO": ("rloo", {}, {"samples": 3}, "baseline=mean"),
    "VIMCO": ("vimco", {}, {"samples": 3}, "mean=arithmetic"),
    "DisARM": ("disarm", {}, {}, "estimator=arm"),
    "ARMS": ("disarm", {"estimator": "arms"}, {"samples": 3}, "estimator=disarm"),
    "Concrete": ("concrete", {}, {}, "straight_through"),
    "ReinMax": ("reinmax", {}, {}, "estimator=st-gumbel"),
    "REBAR": ("rebar", {"eta": 0.7}, {}, "eta=.7,conditional=independent"),
    "RELAX": ("relax", {"eta": 0.7}, {}, "black_box"),
    "RODEO": ("rodeo", {"alpha": 0.5}, {"samples": 2}, "estimator=double-cv,alpha=.5"),
    "Gumbel-Softmax": ("gumbel_softmax", {}, {"classes": 3}, "temperature=1"),
    "unordered": ("unordered", {}, {"classes": 3, "samples": 3}, "estimator=sum-and-sample"),
}  # fmt: skip


def up(f, logits, u, v, wrong=None):
    """REINFORCE with bits that are 1 for a large u, as in the collection."""
    return reinforce(f, logits, 1 - u, v, wrong)


MUPROP = "muprop:s0=1,s1=1"
EQUAL = {
    "reinforce": (up, {}),
    "reinforce:baseline=none": (up, {}),
    "nvil:baseline=0.0": (up, {}),
    MUPROP: (lambda f, logits, u, v, wrong=None: muprop(f, logits, 1 - u, v, wrong), {}),
    "rloo": (lambda f, logits, u, v, wrong=None: rloo(f, logits, 1 - u, v, wrong), {"samples": 3}),
    "rebar:temperature=.5,eta=.8,relaxation=concrete,conditional=independent": (
        lambda f, logits, u, v, wrong=None: rebar(f, logits, u, v, wrong), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", EQUAL)
def test_equal_to_a_method_of_the_collection(method):
    function, how = EQUAL[method]
    result = check.against(function, method, **how)
    result.assert_equal()
    assert len(result.rows) == 21
    assert "no difference above" in result.verdict


@pytest.mark.parametrize("name", RIGHT_ON_ONE)
def test_every_method_is_equal_to_itself_and_not_to_another_setting(name):
    module, options, how, other = RIGHT_ON_ONE[name]
    words = ",".join(f"{key}={value}" for key, value in options.items())
    samples = partial(getattr(M, module).gradient_samples, **options)
    how = {"bits": 3, "only": "cubic"} | how
    check.against(samples, f"{module}:{words}", **how).assert_equal()
    result = check.against(samples, f"{module}:{other}", **how)
    assert not result.equal
    with pytest.raises(
        AssertionError, match=r"elements differ; the first is cubic at logits ±0\.3"
    ):
        result.assert_equal()


NEARLY = {
    "float32": lambda g: g.astype(np.float32) * np.float32(1 + 3e-6),
    "one element": lambda g: g + 1e-4 * (np.arange(g.size).reshape(g.shape) == 17),
    "columns in reverse": lambda g: g[:, ::-1],
    "a row later": lambda g: np.roll(g, 1, axis=0),
}


@pytest.mark.parametrize("change", NEARLY)
def test_a_small_difference_is_found(change):
    result = check.against(lambda *a: NEARLY[change](up(*a)), "reinforce", only="linear")
    assert not result.equal
    if change == "one element":
        assert result.rows[0].differ == 1
        assert "row 3, component 2: yours " in result.verdict
        assert "difference 0.0001" in result.verdict


def test_the_other_half_of_the_noise_is_named():
    other = lambda f, logits, u, v: rebar(f, logits, u, 1 - v)
    method = "rebar:temperature=.5,eta=.8,relaxation=concrete,conditional=independent"
    assert "It is equal with 1 − v in" in check.against(other, method, only="exp").verdict
    assert "It is equal with 1 − u in" in check.against(reinforce, "reinforce", only="exp").verdict
    right = check.against(lambda *a: 2 * up(*a), "reinforce", only="exp").verdict
    assert "It is equal with" not in right


AGAINST = [
    (["--against", "rebare"], "--against: 'rebare' is unknown; choose from reinforce, rloo"),
    (["--against", "muprop:eta=1"], "--against: muprop has no option 'eta': choose from s0, s1"),
    (["--against", "rebar:etta=1"], "--against: rebar has no option 'etta': choose from "),
    (["--against", "rebar:temperature=0"], "--against: rebar: temperature: has to be a number abo"),
    (["--against", "rebar:noise=independent"], "has no option 'noise': choose from temperature, "),
    (["--against", "rebar:model=1"], "has no option 'model': choose from"),
    (["--against", "rebar:temperature"], "rebar:temperature needs a value, as in temperature=1"),
    (["--against", "rebar:temperature=abc"], "--against: rebar: temperature: has to be a finite n"),
    (["--against", "rebar:relaxation=soft"], "--against: rebar: relaxation: "),
    (["--against", "rloo"], "not (200, 5) or NaN (with --samples K)"),
    (["--against", "reinforce", "--samples", "3"], "or NaN (leave --samples away)"),
    (["--against", "reinforce", "--classes", "3"], "or NaN (leave --classes away)"),
    (["--against", "muprop:simple=no"], "muprop:simple has to be true or false, not no"),
    (["--against", "rebar:eta=1,eta=2"], "--against: eta is given twice"),
    (["--against", "rebar:eta=1e999"], "eta: has to be a finite number"),
    (["--against", "unordered"], "--against: unordered: logits: "),
    (["--against", "reinforce", "--model"], "--model: not with --against"),
    (["--against", "reinforce", "--estimates", "999"], "--estimates: not with --against"),
    (["--against", "reinforce", "--target", "bound", "--samples", "2"], "--target: not with"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), AGAINST, ids=lambda x: str(x)[:40])
def test_against_in_one_line(flags, message, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def gradient_samples(f, logits, u, v):\n    return 0 * u * f(u)[:, None]\n")
    with pytest.raises(SystemExit) as end:
        check.cli.run(lambda: check.main([str(file), *flags]))
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_ours_is_ours_beside_a_file_of_the_same_name(tmp_path):
    """A copy of rloo.py with a mistake, or of common.py, is not compared with itself."""
    source = (proofs.METHODS / "rloo.py").read_text(encoding="utf-8")
    right, wrong = "(K - 1)", "K"
    assert right in source
    for name in ("rloo", "common"):
        (tmp_path / name).mkdir()
    (tmp_path / "rloo" / "rloo.py").write_text(source.replace(right, wrong), encoding="utf-8")
    common = (proofs.METHODS / "common.py").read_text(encoding="utf-8")
    assert "> 0" in common
    (tmp_path / "common" / "common.py").write_text(common.replace("> 0", "> 1"), encoding="utf-8")
    (tmp_path / "common" / "rloo.py").write_text(source, encoding="utf-8")
    for name in ("rloo", "common"):
        file = str(tmp_path / name / "rloo.py")
        command = [sys.executable, proofs.METHODS / "check.py", file, "--against", "rloo"]
        done = subprocess.run([*command, "--samples", "3", "--only", "linear"], check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "not equal to rloo" in done.stdout


def test_against_as_a_program(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent("""
        import numpy as np

        def fair(f, logits, u, v):
            theta = 1 / (1 + np.exp(-logits))
            b = (u > 1 - theta) * 1.0
            return f(b)[:, None] * (b - theta)

        def noisy(f, logits, u, v):
            return fair(f, logits, np.random.random(u.shape), v)
        """)
    )
    program = [sys.executable, proofs.METHODS / "check.py"]
    run = lambda *words: subprocess.run(
        [*program, *words], check=False, capture_output=True, text=True
    )
    done = run(f"{file}:fair", "--against", "reinforce", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "equal to reinforce in all 21,000 elements" in done.stdout
    assert json.loads((tmp_path / "out" / "check.json").read_text())["equal"] is True
    done = run(f"{file}:fair", "--against", "reinforce:baseline=batch")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "elements differ; the first is linear" in done.stdout
    done = run(f"{file}:noisy", "--against", "reinforce")
    assert done.returncode == 2
    assert "draws noise of its own; it has to use u and v" in done.stderr


# ------------------------------------------------------------------------------- the collection

CATEGORICAL = {"bits": 2, "classes": 3}
THREE = {"samples": 3}
BOUND = {"samples": 3, "target": "bound"}
RIGHT = {
    "REINFORCE": ("reinforce", {}, {}),
    "REINFORCE, batch mean": ("reinforce", {"baseline": "batch"}, {}),
    "NVIL": ("nvil", {"baseline": 1.5}, {}),
    "MuProp": ("muprop", {"s0": 0.7, "s1": 0.5}, {}),
    "SimpleMuProp": ("muprop", {"simple": True}, {}),
    "REBAR": ("rebar", {"eta": 0.7}, {}),
    "REBAR, independent": ("rebar", {"conditional": "independent"}, {}),
    "REBAR, cold": ("rebar", {"temperature": 0.1, "relaxation": "concrete"}, {}),
    "RLOO": ("rloo", {}, THREE),
    "VIMCO": ("vimco", {}, BOUND),
    "VIMCO, arithmetic mean": ("vimco", {"mean": "arithmetic"}, BOUND),
    "DisARM": ("disarm", {}, {}),
    "DisARM, three pairs": ("disarm", {}, THREE),
    "ARM": ("disarm", {"estimator": "arm"}, {}),
    "ARMS": ("disarm", {"estimator": "arms"}, THREE),
    "DisARM, bound": ("disarm", {"bound": True}, BOUND),
    "RELAX": ("relax", {"eta": 0.7}, {}),
    "RELAX, independent": ("relax", {"conditional": "independent"}, {}),
    "REINFORCE, classes": ("gumbel_softmax", {"estimator": "reinforce"}, CATEGORICAL),
    "unordered set": ("unordered", {}, CATEGORICAL | THREE),
    "sum and sample": ("unordered", {"estimator": "sum-and-sample"}, CATEGORICAL | THREE),
    "REBAR, classes": ("gumbel_softmax", {"estimator": "rebar", "eta": 0.7}, CATEGORICAL),
    "REBAR, classes, independent": (
        "gumbel_softmax", {"estimator": "rebar", "conditional": "independent"}, CATEGORICAL,
    ),
}  # fmt: skip
BIASED = {
    "RLOO, mean with its own sample": ("rloo", {"baseline": "mean"}, THREE),
    "GRPO": ("rloo", {"baseline": "grpo"}, THREE),
    "OVIS, γ = 1": ("vimco", {"ovis": 1.0}, BOUND),
    "Concrete": ("concrete", {}, {}),
    "Concrete, cold": ("concrete", {"temperature": 0.1}, {}),
    "Concrete, straight-through": ("concrete", {"straight_through": True}, {}),
    "ST": ("reinmax", {"estimator": "st"}, {}),
    "ReinMax": ("reinmax", {}, {}),
    "Gumbel-Rao": ("reinmax", {"estimator": "gumbel-rao"}, {}),
    "Gumbel-Softmax": ("gumbel_softmax", {}, CATEGORICAL),
    "Gumbel-Softmax, straight-through": (
        "gumbel_softmax", {"straight_through": True}, CATEGORICAL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_collection(name):
    module, options, how = RIGHT[name]
    samples = partial(getattr(M, module).gradient_samples, **options)
    check.check(samples, **how, **QUICK).assert_unbiased()
    if not how and options.get("baseline") != "batch":
        report = check.check(samples, bits=1)
        report.assert_unbiased()
        # at T = .1 some integrals do not converge, and estimates take their place
        assert ("by integration" in report.verdict) == (name != "REBAR, cold")


@pytest.mark.parametrize("estimator", M.rodeo.ESTIMATORS)
def test_rodeo_with_weights_of_its_own(estimator):
    rng = np.random.default_rng(0)
    rho = [rng.standard_normal(shape) for shape in ((2, 4), (4,), (4, 2), (2,))]
    options = {"rho": rho, "beta": 0.7} if estimator == "rodeo" else {"alpha": 0.7}
    own = partial(M.rodeo.gradient_samples, estimator=estimator, **options)
    check.check(own, bits=2, samples=2, **QUICK).assert_unbiased()


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("options", [{}, {"black_box": True}, {"conditional": "independent"}])
def test_relax_with_a_network(bits, options):
    def samples(f, logits, u, v):
        rng, D = np.random.default_rng(0), len(logits)
        rho = [rng.standard_normal(shape) for shape in ((D, 4), (4,), (4, 1), (1,))]
        return M.relax.gradient_samples(f, logits, u, v, rho=rho, **options)

    check.check(samples, bits=bits, **QUICK).assert_unbiased()


@pytest.mark.parametrize("name", BIASED)
def test_biased_collection(name):
    module, options, how = BIASED[name]
    samples = partial(getattr(M, module).gradient_samples, **options)
    assert not check.check(samples, **how).unbiased


def model_report(m, module, aux=(), estimates=64_000, how=(), **options):
    method = getattr(m, module)
    return m.model_check.check_model(
        partial(method.estimate, **options), partial(method.init_aux, **dict(aux)),
        partial(m.reinforce.estimate, baseline="none"), estimates=estimates, **dict(how),
    )  # fmt: skip


LOCAL = {"layer_local": True}
RIGHT_MODELS = {
    "REINFORCE": ("reinforce", {}, {"baseline": "none"}),
    "REINFORCE, batch mean": ("reinforce", {}, {}),
    "NVIL": ("nvil", {}, {"moving_average": True}),
    "NVIL, layer-local": ("nvil", LOCAL, LOCAL),
    "MuProp": ("muprop", {}, {}),
    "SimpleMuProp": ("muprop", {"simple": True}, {"simple": True}),
    "REBAR": ("rebar", {}, {}),
    "REBAR, joint": ("rebar", {}, {"control_variate": "joint"}),
    "REBAR, plain": ("rebar", {"adapt": "none"}, {"adapt": "none"}),
    "RLOO": ("rloo", {}, {"how": THREE}),
    "VIMCO": ("vimco", {}, {"how": BOUND}),
    "DisARM": ("disarm", {}, {}),
    "ARMS": ("disarm", {}, {"estimator": "arms", "how": THREE}),
    "DisARM, bound": ("disarm", {}, {"bound": True, "how": BOUND}),
    "RELAX": ("relax", {}, {}),
    "RELAX, black box": ("relax", {"black_box": True}, {"black_box": True}),
    "RODEO": ("rodeo", {}, {"how": THREE}),
    "Double CV": ("rodeo", {"estimator": "double-cv"}, {"estimator": "double-cv", "how": THREE}),
}
BIASED_MODELS = {
    "Concrete": ("concrete", {}, {}),
    "ST": ("reinmax", {}, {"estimator": "st"}),
    "ReinMax": ("reinmax", {}, {}),
    "REBAR, as released": ("rebar", {}, {"as_released": True}),
    "NVIL, normalized": ("nvil", {}, {"normalize": True}),
    "GRPO": ("rloo", {}, {"baseline": "grpo", "how": THREE}),
    "OVIS, γ = 1": ("vimco", {}, {"ovis": 1.0, "how": BOUND}),
}


@pytest.mark.parametrize("name", RIGHT_MODELS)
def test_collection_on_a_model(name):
    module, aux, options = RIGHT_MODELS[name]
    report = model_report(M, module, aux, **options)
    report.assert_unbiased()
    assert {row.logits for row in report.rows} == {"2 layers", "3 layers"}


@pytest.mark.parametrize("name", BIASED_MODELS)
def test_biased_collection_on_a_model(name):
    module, aux, options = BIASED_MODELS[name]
    assert not model_report(M, module, aux, 256_000, **options).unbiased


# ----------------------------------------------------------- the mutations of the other suites

SUITES = {
    "rebar": test_mutations, "reinforce": test_mutations, "nvil": test_nvil,
    "muprop": test_muprop, "gumbel_softmax": test_gumbel_softmax,
}  # fmt: skip
INDEPENDENT = {"conditional": "independent"}
REBAR_CLASSES = {"estimator": "rebar", "eta": 0.7}
SAMPLES = [  # seen in gradient_samples: (module, mutation, options)
    ("rebar", "dz̃/da taken for 0", {}),
    ("rebar", "dz̃/da taken for 1", {}),
    ("rebar", "η on one term only", {"eta": 0.6}),
    ("rebar", "sign of the control variate's score term", {}),
    ("rebar", "f(z̃) not stopped in the score term", {}),
    ("rebar", "dz̃/da with the sign of b lost", {}),
    ("rebar", "baseline that sees its own sample", {}),
    ("rebar", "z̃ | b with the sign of b lost", INDEPENDENT),
    ("reinforce", "sign of the score", {}),
    ("nvil", "sign of the score", {}),
    ("muprop", "correction term forgotten", {}),
    ("muprop", "correction without its scale", {"s1": 0.6}),
    ("muprop", "probability where a logit is meant", {}),
    ("muprop", "baseline that sees its own sample", {}),
    ("gumbel_softmax", "sign of the score", {"estimator": "reinforce"}),
    ("gumbel_softmax", "dz̃/dlog π dropped", REBAR_CLASSES),
    ("gumbel_softmax", "dz̃/dlog π in place of the difference", REBAR_CLASSES),
    ("gumbel_softmax", "sign of the control variate's score", REBAR_CLASSES),
    ("gumbel_softmax", "f(h̃) not stopped", REBAR_CLASSES),
    ("gumbel_softmax", "not truncated", REBAR_CLASSES | INDEPENDENT),
    ("gumbel_softmax", "truncated without π", REBAR_CLASSES | INDEPENDENT),
]
MODELS = [  # seen on a network only
    ("rebar", "slope of z̃ in the layers above", {}),
    ("rebar", "score of the wrong layer", {}),
    ("rebar", "[B, 1] baseline against [B]", {}),
    ("reinforce", "direct derivative of f left out", {}),
    ("reinforce", "log q of one layer only", {}),
    ("nvil", "layer-local signal without its own layer's term", LOCAL),
    ("nvil", "layer-local signal without the layers above", LOCAL),
    ("nvil", "layer baseline that sees its own bits", LOCAL),
    ("muprop", "the scales of the lowest layer for all", {}),
    ("muprop", "D of the lowest layer for all", {}),
]


def mutated(module, name):
    _, mutation = SUITES[module].MUTATIONS[name]
    if len(mutation) == 2:  # a suite of one file
        mutation = ("gumbel_softmax", "categorical", "models") if module == "gumbel_softmax" else (
            module), *mutation  # fmt: skip
    return proofs.load([mutation])


@pytest.mark.parametrize(("module", "name", "options"), SAMPLES, ids=str)
def test_mutation_is_found(module, name, options):
    samples = partial(getattr(mutated(module, name), module).gradient_samples, **options)
    assert not check.check(samples, **CATEGORICAL if module == "gumbel_softmax" else {}).unbiased


@pytest.mark.parametrize(("module", "name", "options"), MODELS, ids=str)
def test_mutation_is_found_on_a_model(module, name, options):
    report = model_report(mutated(module, name), module, options, 256_000, **options)
    assert not report.unbiased


# ------------------------------------------------------------------------------ exact answers


@pytest.mark.parametrize("bits", [1, 4])
def test_exact_gradients_are_those_of_common(bits):
    for case in cases.cases(bits):
        f = cases.function(case, NUMPY)
        np.testing.assert_allclose(case.exact, exact_gradient(f, case.logits), atol=1e-13)


def test_exact_gradients_of_classes_are_those_of_categorical():
    for case in cases.cases(2, classes=3):
        f = cases.function(case, NUMPY)
        exact = categorical.exact_gradient(f, case.logits)
        np.testing.assert_allclose(case.exact, exact.ravel(), atol=1e-13)


def test_exact_gradients_of_the_bound():
    """By multisets, twice over, and by all ordered outcomes written out."""
    for case in cases.cases(2, samples=3, target="bound"):
        f = cases.function(case, NUMPY)
        toy = Toy(f, 2), [case.logits], np.zeros((1, 0))
        np.testing.assert_allclose(case.exact, cases.exact_bound_gradient(*toy, 3)[0], atol=1e-13)
        b = np.array(list(np.ndindex(*[2] * 6))).reshape(64, 3, 2)
        theta = sigmoid(case.logits)
        p = np.prod(np.where(b == 1, theta, 1 - theta), axis=(1, 2))
        L = np.log(np.mean(np.exp(f(b)), axis=1))
        by_hand = np.sum((p * L)[:, None] * np.sum(b - theta, axis=1), axis=0)
        np.testing.assert_allclose(case.exact, by_hand, atol=1e-12)


def test_variance_of_reinforce_and_of_the_estimates(rng):
    """Exact against measured, with noise of unequal weights, at ±6: 4 % is 7 standard errors."""
    report = check.check(reinforce, only="quadratic", at=6.0, estimates=256_000)
    (row,) = report.rows
    assert row.variance == pytest.approx(row.reinforce_variance, rel=0.04)


def test_importance_weights_are_a_ratio_of_densities(rng):
    """E[w g] is E[g] of uniform noise, for g with a jump where the noise is frequent."""
    logits = np.array([6.0, -2.0])
    u, _, w = bias_test.draw_noise(rng, logits, (400_000, 2), 0.2)
    theta = sigmoid(logits)
    assert w.max() <= (1 - 0.2) ** -2 + 1e-9
    for g, exact in (
        (1.0 + 0 * w, 1.0), ((u[:, 0] > theta[0]) * 1.0, 1 - theta[0]),
        ((u < 1 - theta).all(axis=1) * 1.0, np.prod(1 - theta)), (u[:, 0] * u[:, 1], 0.25),
    ):  # fmt: skip
        x = w * g
        assert abs(x.mean() - exact) < 6 * x.std() / np.sqrt(len(x))
    assert np.mean(u[:, 0] > theta[0]) > 20 * (1 - theta[0])


def test_one_bit_rule_integrates():
    theta = 0.2
    u, v, w = bias_test.one_bit_nodes(theta, 40)
    jump = lambda x: np.where(x < theta, np.exp(x), np.where(x < 1 - theta, x**2, np.sqrt(1 - x)))
    one = np.exp(0.2) - 1 + (0.8**3 - 0.2**3) / 3 + 2 / 3 * 0.2**1.5
    assert w @ (jump(u) * jump(v))[:, 0] == pytest.approx(one**2, abs=1e-9)
    assert w @ logit(u)[:, 0] ** 2 == pytest.approx(np.pi**2 / 3, abs=1e-8)


# --------------------------------------------------------------------------------- statistics


def test_limit_holds_for_rare_events_where_a_z_test_fails(rng):
    """Ten events expected in 4,000 draws, 5,000 times: at most δ = 1 % of alarms, which is at most
    87 but for a chance of 1e-6."""
    p, ours, naive = 0.0025, 0, 0
    for _ in range(5):
        evidence = bias_test.Evidence(np.full(1000, p), 1.0, 1.0)
        evidence.add((rng.random((4000, 1000)) < p) * 1.0, np.ones(4000))
        m, error, limit = evidence.bernstein(0.01)
        ours += np.sum(np.abs(m) > limit)
        naive += np.sum(np.abs(m) > stats.norm.isf(0.005) * error)
    assert stats.binom.isf(1e-6, 5000, 0.01) <= 87
    assert ours <= 87 < naive


def test_no_false_alarm_with_other_seeds():
    """tests/benchmarks/check_seeds.py does this 330 times."""
    for seed in range(1, 8):
        for function in (disarm, reinforce_with_own_noise):
            check.check(function, seed=seed, estimates=4_000).assert_unbiased()


def test_smallest_detectable_bias_is_detected():
    """In 99 of 100 runs, and a quarter of it in few. More than 6 misses: chance 1e-4."""
    case = {"only": "quadratic", "at": 2.0, "estimates": 16_000}
    (row,) = check.check(reinforce, **case).rows
    bias = row.detects * np.linalg.norm(row.gradient) * np.eye(5)[0]
    found = {}
    for share in (1.0, 0.25):
        shifted = lambda *args, share=share: reinforce(*args) + share * bias
        reports = [check.check(shifted, seed=seed, **case) for seed in range(1, 101)]
        found[share] = sum(not report.unbiased for report in reports)
    assert found[1.0] >= 94
    assert found[0.25] <= 50


def test_opposite_biases_do_not_cancel():
    shift = 0.2 * np.array([1, -1, 0, 1, -1])
    report = check.check(lambda *args: reinforce(*args) + shift)
    assert not report.unbiased


def reinforce_with_own_noise(f, logits, u, v):
    return reinforce(f, logits, np.random.random(u.shape), v)  # noqa: NPY002


def test_rows_that_share_noise_are_no_false_alarm_and_their_bias_is_found():
    def shared(f, logits, u, v, bias=0.0):
        return reinforce(f, logits, np.tile(u[:1], (len(u), 1)), v) + bias

    def own(f, logits, u, v, bias=0.0):
        u = np.random.random(logits.shape) * np.ones(u.shape)  # noqa: NPY002
        return reinforce(f, logits, u, v) + bias

    case = {"only": "linear", "at": 0.3}
    for seed in range(10):
        check.check(own, seed=seed, **case).assert_unbiased()
    assert not check.check(partial(own, bias=2.0), **case).unbiased


def batch_baseline(f, logits, u, v, itself=False):
    """The baseline is the mean over the rows of the call, but for the row itself or with it."""
    b = (u < sigmoid(logits)) * 1.0
    y = f(b)
    baseline = y.mean() if itself else (y.sum() - y) / (len(y) - 1)
    return (y - baseline)[:, None] * (b - sigmoid(logits))


def mirrored(f, logits, u, v):
    """The second half of the rows has 1 − u of the first."""
    half = len(u) // 2
    return reinforce(f, logits, np.concatenate([u[:half], 1 - u[:half]]), v)


def with_own_noise(function):
    rng = np.random.default_rng(7)  # which library.seed does not reach
    return lambda f, logits, u, v: function(f, logits, rng.random(u.shape), v)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("bits", [1, 3])
def test_rows_that_use_each_other(own, bits):
    """They come a few at a time: unbiased for every number of rows passes, a bias of 1/n does not.

    With 6,000 rows the commonest mistake, a baseline that contains the row itself, is hidden.
    """
    made = with_own_noise if own else lambda function: function
    case = {"bits": bits, "only": "cubic", "estimates": 16_000}
    for function in (batch_baseline, mirrored):
        report = check.check(made(function), **case)
        report.assert_unbiased()
    assert "rows use each other, and came 4 at a time" in check.check(
        made(batch_baseline), **case
    ).verdict  # fmt: skip
    wrong = check.check(made(partial(batch_baseline, itself=True)), **case)
    assert not wrong.unbiased
    assert "use each other" not in check.check(made(reinforce), **case).verdict


def test_noise_that_rows_share_a_little_of_is_no_false_alarm():
    """Too little to be seen in the small calls of the first look."""

    def shared(f, logits, u, v):
        return reinforce(f, logits, u, v) + 0.02 * np.random.randn(len(logits))  # noqa: NPY002

    for seed in range(3):
        check.check(shared, bits=2, only="cubic", at=2.0, seed=seed).assert_unbiased()


def test_the_user_may_write_into_what_is_handed_out():
    def writes(f, logits, u, v):
        g = reinforce(f, logits, u, v)
        logits -= 9.0
        u[...] = v[...] = 0.5
        return g

    check.check(writes, bits=2, **QUICK).assert_unbiased()
    check.against(writes, "reinforce", bits=2, only="cubic")  # draws no noise of its own

    def estimate(model, params, aux, x, noise):
        result = M.reinforce.estimate(model, params, aux, x, noise, baseline="none")
        x *= 0
        params[0] += 1
        return result

    plain = partial(M.reinforce.estimate, baseline="none")
    check_model = partial(model_check.check_model, layers=(2,), estimates=16_000)
    check_model(estimate, lambda rng, model: [], plain).assert_unbiased()


def test_rounding_and_unseen_events_are_no_bias_of_a_model():
    """float32; and weights of 15, with which nearly all bits are the same in every draw."""
    plain = partial(M.reinforce.estimate, baseline="none")
    for seed, dtype, scale in ((0, np.float32, 1), (0, np.float64, 30), (1, np.float64, 30)):
        rng, _, _, x, label = model_check.belief_network(2, seed)
        model = M.models.SBN(np.array([0.3, 0.5, 0.6]), 2, 2, dtype=dtype)
        params = [(scale * p).astype(dtype) for p in model_check.belief_network(2, seed)[2]]
        own = [(rng, model, params, x.astype(dtype), label)]
        report = model_check.check_model(plain, lambda rng, model: [], plain, own=own,
                                         estimates=16_000)  # fmt: skip
        report.assert_unbiased()


def test_evaluations_are_counted():
    """autograd evaluates f where it differentiates it."""
    for function, options, counts in (
        (reinforce, {}, (1, 0)), (muprop, {}, (3, 1)), (reinmax, {}, (1, 1)),
        (rloo, {"samples": 4}, (4, 0)), (rebar, {}, (4, 2)),
    ):  # fmt: skip
        (row,) = check.check(function, only="exp", at=0.3, **QUICK, **options).rows
        assert (row.f, row.df) == counts


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda f, a, u, v: reinforce(f, a, u, v).mean(axis=0), {}, r"shape \(5,\), not \(n, 5\)"),
        (lambda f, a, u, v: reinforce(f, a, u, v) * np.nan, {}, "returned nan in element"),
        (lambda f, a, u, v: reinforce(f, a, np.random.default_rng(0).random(u.shape), v), {},
         "same in every call"),
        (lambda f, a, u, v: f(u[:, :2]), {}, r"f takes an array \(n, 5\) and was given \(256, 2\)"),
        (reinforce, {"bits": 13}, "bits is 13: a whole number from 1 to 12"),
        (reinforce, {"bits": 2.5}, "bits is 2.5: a whole number"),
        (reinforce, {"bits": "5"}, "bits is '5': a whole number"),
        (reinforce, {"estimates": 0}, "estimates is 0: a whole number from 256"),
        (reinforce, {"classes": 0}, "classes is 0"),
        (reinforce, {"seed": -1}, "seed is -1"),
        (lambda f, a, u, v: reinforce(f, a, u, v) + 1e200, {}, r"returned 1e\+200 in element"),
        (lambda f, a, u, v: reinforce(f, a, u, v) + 0j, {}, "of type complex128, not floats"),
        (reinforce, {"bits": 0}, "bits is 0"),
        (reinforce, {"samples": 0}, "samples is 0"),
        (reinforce, {"classes": 1}, "classes is 1"),
        (reinforce, {"target": "bound"}, "say how many with samples"),
        (reinforce, {"target": "elbo"}, "target is 'elbo': choose from mean, bound"),
        (reinforce, {"backend": "tf"}, "backend is 'tf': choose from numpy, torch, jax"),
        (reinforce, {"only": "sine"}, "only is 'sine': choose from linear, quadratic"),
        (reinforce, {"at": 3.0}, r"at is 3.0: choose from 0.3, 2.0, 6.0"),
        (reinforce, {"at": "6"}, "at is '6': choose"),
        (reinforce, {"bits": 12, "classes": 4}, "16777216 outcomes"),
        (reinforce, {"samples": 12, "target": "bound"}, "fewer --bits, --classes or --samples"),
    ],
)  # fmt: skip
def test_bad_input(function, options, message):
    with pytest.raises(ValueError, match=message):
        check.check(function, **options)


def test_errors_of_the_function_come_through():
    with pytest.raises(ZeroDivisionError):
        check.check(lambda f, logits, u, v: 1 / 0)


def test_bad_shapes_from_an_estimate():
    biased = partial(M.reinforce.estimate, baseline="none")
    wrong = {
        "or above 1e100": lambda *args: (None, [g + 1e200 for g in biased(*args)[1]], []),
        "gradients of params, of the shapes": lambda *args: (None, biased(*args)[1][:-1], []),
        "not finite": lambda *args: (None, [g * np.nan for g in biased(*args)[1]], []),
        "a bound, a list of gradients and one for aux": lambda *args: biased(*args)[:2],
        "gradients of aux, of the shapes": lambda *args: (*biased(*args)[:2], [np.zeros(3)]),
    }
    for message, estimate in wrong.items():
        with pytest.raises(ValueError, match=message):
            model_check.check_model(estimate, lambda rng, model: [], biased)


@pytest.mark.parametrize("other", ["estimate", "model"])
def test_a_file_without_gradient_samples_is_told_of_model(other, tmp_path):
    (tmp_path / "mine.py").write_text(f"{other} = print\n", "utf-8")
    with pytest.raises(ValueError, match=f"no function gradient_samples: .* check its {other}$"):
        check.main([str(tmp_path / "mine.py")])


# ---------------------------------------------------------------------------------- the program


def run(*flags, cwd=None):
    command = [sys.executable, str(proofs.METHODS / "check.py"), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def write(path, text):
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_template_passes_as_printed(backend, tmp_path):
    """In a folder with modules of our names, which have to be hers."""
    if backend != "numpy":
        pytest.importorskip(backend)
    code, text, _ = run("--template", backend)
    assert code == 0
    write(tmp_path / "common.py", "value = 1")
    (tmp_path / "harness").mkdir()
    write(tmp_path / "harness" / "__init__.py", "value = 2")
    (tmp_path / "mine.py").write_text(
        text + "\nimport common, harness\nassert (common.value, harness.value) == (1, 2)\n", "utf-8"
    )
    flags = ["--backend", backend, "--estimates", 4_000]
    code, out, err = run("mine.py", *flags, "--out", tmp_path / "out", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert len(re.findall(r"±(0.3|2|6) .* 2    0 +4,000 ", out)) == 21
    assert out.splitlines()[-1].startswith("unbiased as far as 84,000 estimates can tell: a bias")
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report["unbiased"] is True
    assert len(report["rows"]) == 21
    assert (tmp_path / "out" / "check.png").stat().st_size > 20_000
    assert run("mine.py", "--out", tmp_path / "out", cwd=tmp_path)[0] == 2


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_bias_and_counts_in_other_backends(backend):
    library = pytest.importorskip(backend)
    if backend == "torch":

        def slope(f, b):
            b = b.requires_grad_()
            return library.autograd.grad(f(b).sum(), b)[0]

        theta_of = library.sigmoid
    else:
        slope = lambda f, b: library.grad(lambda b: f(b).sum())(b)
        theta_of = library.nn.sigmoid

    def straight_through(f, logits, u, v):
        theta = theta_of(logits)
        return slope(f, (u < theta) * (0 * u + 1)) * theta * (1 - theta)

    assert check.check(straight_through, backend=backend, only="linear").unbiased
    report = check.check(straight_through, backend=backend, only="quadratic")
    assert not report.unbiased
    assert [(row.f, row.df) for row in report.rows] == [(1, 1)] * 3


def test_a_bias_is_reported_with_a_command_that_repeats_it(tmp_path):
    write(
        tmp_path / "mine.py",
        """
        import numpy as np

        def half(f, logits, u, v):
            theta = 1 / (1 + np.exp(-logits))
            b = (u < theta) * 1.0
            return 0.5 * f(b)[:, None] * (b - theta)
    """,
    )
    code, out, err = run("mine.py:half", "--seed", 3, cwd=tmp_path)
    assert code == 1
    verdict = out.splitlines()[-1]
    assert verdict.startswith("biased: ")
    command = shlex.split(err.partition("the worst case again: ")[2])
    assert command[:2] == ["python", "methods/check.py"]
    code, out, _ = run(*command[2:], cwd=tmp_path)
    assert code == 1
    assert out.splitlines()[-1] == verdict
    assert len(out.splitlines()) == 4  # a head, one row, an empty line, the verdict


def test_errors_are_shown_in_the_users_file(tmp_path):
    write(
        tmp_path / "helper.py",
        """
        import numpy as np

        def solve(u):
            return np.linalg.solve(u, u)  # u is not square
    """,
    )
    write(
        tmp_path / "mine.py",
        """
        import helper

        def gradient_samples(f, logits, u, v):
            return helper.solve(u)

        def estimate(model, params, aux, x, noise):
            return 1 / 0
    """,
    )
    code, out, err = run("mine.py", cwd=tmp_path)
    assert (code, out) == (2, "")
    files = re.findall(r'File "(.*?)", line (\d+)', err)
    assert files == [(str(tmp_path / "mine.py"), "5"), (str(tmp_path / "helper.py"), "5")]
    assert err.splitlines()[-1].startswith("numpy.linalg.LinAlgError: ")
    code, _, err = run("mine.py", "--model", cwd=tmp_path)
    assert code == 2
    assert re.findall(r'File "(.*?)", line (\d+)', err) == [(str(tmp_path / "mine.py"), "8")]
    assert err.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("def gradient_samples(:", "SyntaxError: invalid syntax"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_run(text, last, tmp_path):
    write(tmp_path / "mine.py", text)
    code, _, err = run("mine.py", cwd=tmp_path)
    assert code == 2
    assert re.findall(r'File "(.*?)", line (\d+)', err) == [(str(tmp_path / "mine.py"), "1")]
    assert err.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name the FILE.py to check, or print an example with --template torch"),
        (["none.py"], "there is no file /"),
        (
            [proofs.METHODS / "README.md:f"],
            "README.md is not a Python file: its name has to end in",
        ),
        (["none"], "'none' has to be FILE.py or FILE.py:FUNCTION"),
        (["--template", "numpy", "--bits", 3], "--bits: it has no effect with --template"),
        (["x.py", "--only", "sine"], "--only: invalid choice: 'sine' (choose from"),
        ([proofs.METHODS / "reinforce.py", "--model", "--bits", 3], "--bits: not with --model"),
        ([proofs.METHODS / "reinforce.py", "--template", "torch"], "--template: it takes no file"),
        ([proofs.METHODS / "reinforce.py", "--out", proofs.METHODS], "choose another folder"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises((SystemExit, ValueError)) as stop:
        check.main([*map(str, flags)])
    if stop.type is SystemExit:
        assert stop.value.code == 2
    text = capsys.readouterr().err or str(stop.value)
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_bad_bits_in_one_line():
    code, out, err = run(proofs.METHODS / "reinforce.py", "--bits", 99)
    line = "argument --bits: '99' has to be a whole number of at least 1 and at most 12"
    assert (code, out, err) == (2, "", f"check.py: error: {line}\n")


def test_model_as_a_program(tmp_path):
    """An `estimate` of three samples, with a state and a `draw_noise` of its own."""
    write(
        tmp_path / "mine.py",
        """
        from functools import partial

        import numpy as np
        import reinforce
        from common import Assign

        def init_aux(rng, model):
            return [np.zeros(())]

        def draw_noise(rng, model, batch):
            return [*model.draw_noise(rng, batch), rng.standard_normal(batch)]

        def estimate(model, params, aux, x, noise, *, samples=1, scale=1.0):
            *pairs, normals = noise
            assert samples == 3 and len(normals) == len(x) and (x[::3] == x[1::3]).all()
            bound, grads, _ = reinforce.estimate(model, params, [], x, pairs)
            return bound, [scale * g for g in grads], [Assign(aux[0] + 1)]

        halved = partial(estimate, scale=0.9)
    """,
    )
    flags = ["--model", "--samples", 3, "--estimates", 64_000]
    code, out, err = run("mine.py", *flags, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "unbiased as far as" in out
    code, out, _ = run("mine.py:halved", *flags, cwd=tmp_path)
    assert code == 1
    assert re.search(r"biased: \S+, \d layers, component", out)


@pytest.mark.parametrize("samples", [1, 2])
def test_model_bound(samples):
    """The bound of two samples is not the mean: its estimator passes for one and not the other."""

    def estimate(model, params, aux, x, noise, *, samples=1):
        def surrogate(params):
            b, a = model.infer(params, x, lambda i, a: M.common.hard_sample(a, noise[i][0]))
            f = anp.reshape(model.bound(params, x, b, a), (-1, samples))
            log_q = sum(M.common.bernoulli_log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
            L = M.common.log_mean_exp(f, axis=1)
            signal = M.common.stop_gradient(L)[:, None] * anp.reshape(log_q, f.shape)
            return [(anp.sum(signal) + anp.sum(L)) / len(L)], L

        (grads,), L = M.common.gradients(surrogate, params)
        return L, grads, []

    none = lambda rng, model: []
    against = partial(M.reinforce.estimate, baseline="none")
    how = {"samples": samples, "layers": (2,), "estimates": 64_000}
    for target in ("mean", "bound"):
        report = model_check.check_model(estimate, none, against, target=target, **how)
        assert report.unbiased == (samples == 1 or target == "bound")
