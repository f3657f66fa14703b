"""Every parameter of tiny sigmoid belief networks, by Monte Carlo against enumeration.

False-alarm rate 1e-6 per test over all parameters. With probability .99 a test detects a bias of
3 % of the largest gradient (a million draws) or 10 % (200,000 draws), as it asserts of itself.
"""

import proofs
import pytest

M = proofs.load()


def check(result, largest_bias):
    z, bias, scale = result
    print(f"|z| ≤ {z:.2f}, detects {bias:.4f}, largest gradient {scale:.3f}")
    assert bias < largest_bias * scale  # the test is sharp enough to mean something


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("baseline", ["batch", "none"])
def test_reinforce(rng, baseline, task):
    check(proofs.reinforce_is_unbiased(M, rng, baseline, task=task), 0.1)


def test_reinforce_nonlinear(rng):
    check(proofs.reinforce_is_unbiased(M, rng, nonlinear=True), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"adapt": "temperature"},
        {"adapt": "eta"},
        {"relaxation": "concrete"},
        {"conditional": "independent"},
        {"control_variate": "joint"},
        {"control_variate": "joint", "conditional": "independent"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_rebar(rng, options):
    check(proofs.rebar_is_unbiased(M, rng, blocks=200, rows=5000, **options), 0.03)


@pytest.mark.parametrize(
    "model",
    [{"layers": 1}, {"layers": 3, "hidden": 1}, {"task": "predict"}, {"nonlinear": True}],
    ids=str,
)
def test_rebar_on_other_models(rng, model):
    check(proofs.rebar_is_unbiased(M, rng, model), 0.1)


@pytest.mark.parametrize("conditional", ["coupled", "independent"])
def test_released_rebar_is_rejected(rng, conditional):
    """The published construct conditions the noise of the upper layers: biased there."""
    with pytest.raises(AssertionError, match="biased"):
        proofs.rebar_is_unbiased(M, rng, as_released=True, conditional=conditional)


def test_released_rebar_is_unbiased_with_one_layer(rng):
    check(proofs.rebar_is_unbiased(M, rng, {"layers": 1}, as_released=True), 0.1)
