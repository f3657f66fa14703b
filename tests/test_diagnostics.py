"""The test of an expected value: its false alarms, its power, and what it refuses."""

import numpy as np
import proofs
import pytest

M = proofs.load()
mean_test = M.diagnostics.mean_test
TESTS = 4000


def test_mean_test_is_the_formula():
    result = mean_test([[1.0, 5.0], [3.0, 5.5], [8.0, 9.0]], [2.0, 6.0], false_alarm=0.02)
    np.testing.assert_allclose(result.bias, [2, 0.5])
    error = np.sqrt([13 / 3, 4.75 / 3])  # variances 13 and 4.75
    np.testing.assert_allclose(result.t, [2, 0.5] / error)
    assert result.limit == pytest.approx(9.92484, abs=1e-5)  # t of 2 degrees, two-sided 1 %
    np.testing.assert_allclose(result.detectable, (9.92484 + 2.32635) * error, rtol=1e-5)
    assert result.passed
    assert "no bias" in str(result)


def test_false_alarms_are_as_rare_as_stated(rng):
    """4,000 tests, of one column and of 50, at 20 %: the share of alarms to 4.9 sd (1e-6)."""
    alarms = [not mean_test(rng.standard_normal(8), 0.0, false_alarm=0.2).passed
              for _ in range(TESTS)]  # fmt: skip
    assert abs(np.mean(alarms) - 0.2) < 4.9 * np.sqrt(0.2 * 0.8 / TESTS)
    many = [not mean_test(rng.standard_normal((8, 50)), 0.0, false_alarm=0.2).passed
            for _ in range(TESTS)]  # fmt: skip
    some = 1 - (1 - 0.2 / 50) ** 50  # of 50 independent columns
    assert abs(np.mean(many) - some) < 4.9 * np.sqrt(some * (1 - some) / TESTS)


def test_a_detectable_bias_is_found(rng):
    """A bias of `detectable`, for n = 500 rows known to 3 %, is found in .99 of all tests, and half
    of it in less than a third: 4,000 tests at 1e-3; the shares to 4.9 sd and 3 % of the bias."""
    size = mean_test(rng.standard_normal((500, 2000)), 0.0, 1e-3 * 2000).detectable.mean()
    found = lambda bias: np.mean([
        not mean_test(rng.standard_normal(500) + bias, 0.0, 1e-3).passed for _ in range(TESTS)
    ])  # fmt: skip
    assert found(size) == pytest.approx(0.99, abs=4.9 * np.sqrt(0.0099 / TESTS) + 0.005)
    assert found(size / 2) < 1 / 3


def test_one_number_that_is_not_finite_is_no_pass():
    samples = np.random.default_rng(0).standard_normal((10, 3))
    samples[2, 1] = np.nan
    result = mean_test(samples, 0.0)
    assert not result.passed
    assert "nan" in str(result)


@pytest.mark.parametrize(
    ("samples", "expected", "message"),
    [
        ([[1.0, 2.0]], 0.0, "samples: at least two rows"),
        (3.0, 0.0, "samples: at least two rows"),
        (np.zeros((5, 3)), [1.0, 2.0], r"expected: a row of samples has shape \(3,\)"),
        (np.zeros((5, 3)), [[1.0]], "expected"),
    ],
)
def test_bad_input(samples, expected, message):
    with pytest.raises(ValueError, match=message):
        mean_test(samples, expected)
