"""What a user's estimator does with its noise and with its rows, as check.py needs to know."""

import math

from common import InputError

from harness.bias_test import draw_noise

import numpy as np


def draws_noise(call, case, shape_of):
    """Does it draw noise of its own, or is it a function of u and v?"""
    rng = np.random.default_rng(0)
    first, second = (draw_noise(rng, case.logits, shape_of(256, case), 0)[:2] for _ in range(2))
    g = call(case, *first)
    if not np.array_equal(g, call(case, *first)):
        return True
    if np.ptp(g, axis=0).any() and np.array_equal(g, call(case, *second)):
        raise InputError(
            "gradient_samples returns the same in every call: it does not use u, and its own noise "
            "has to differ from call to call (in jax, a new key)"
        )
    return False


def rows_together(call, case, shape_of, own_noise, library):
    """Do rows use each other's samples? Where only others have changed, a row has to stay.

    The others, a random half, have another u and v. If it draws its own noise, they have another f:
    much larger at their places, whether it stacks several samples before or after the rows.
    """
    n, rng = 256, np.random.default_rng(1)
    u, v, _ = draw_noise(rng, case.logits, shape_of(n, case), 0)
    changed = rng.permutation(n) < n // 2
    g = call(case, u, v)
    if not own_noise:
        mask = changed.reshape(-1, *[1] * (u.ndim - 1))
        new_u, new_v, _ = draw_noise(rng, case.logits, u.shape, 0)
        others = call(case, np.where(mask, new_u, u), np.where(mask, new_v, v))
        return not np.array_equal(g[~changed], others[~changed])
    for row_of in (lambda i, count: i % n, lambda i, count: i * n // count):

        def raised(f, row_of=row_of):
            def of_others(b):
                count = math.prod(b.shape[: b.ndim - case.logits.ndim])
                rows, value = row_of(np.arange(count), count), f(b)
                return value + library.tensor(1e9 * changed[rows]).reshape(value.shape)

            return of_others

        found = np.max(np.abs(call(case, u, v, change=raised)[~changed]))
        if found < 1e4 * (1 + np.max(np.abs(g))):
            return False
    return True
