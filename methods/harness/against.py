"""check.py --against: is a function equal to one of this collection, element by element?

Unbiased is weak evidence for a re-implementation: a wrong one may be unbiased as well, and only
noisier. Equal on the same u and v is strong evidence.
"""

import ast
import inspect
import itertools
import re
from typing import NamedTuple

from common import InputError

from harness.backends import BACKENDS
from harness.bias_test import draw_noise
from harness.cases import function

import numpy as np

# Options that gradient_samples of rebar.py hands to another function; gumbel_softmax.py has OPTIONS
PASSED_ON = {"rebar": ("relaxation", "conditional", "control_variate", "as_released")}
ROWS = 200  # estimates of every function at every scale of the logits
TOLERANCE = 1e-6  # relative
RARE = (
    0.2  # share of the rows with a frequent rare bit, which would else be missing at logits of ±6
)
MIRRORED = {
    "1 − u in the place of u": (True, False),
    "1 − v in the place of v": (False, True),
    "1 − u and 1 − v in the place of u and v": (True, True),
}


class Pair(NamedTuple):
    """One function at one scale of the logits: how many of its elements differ, and by how much."""

    function: str
    logits: str
    elements: int
    differ: int
    largest: float  # difference, over the largest element


class Comparison(NamedTuple):
    """The outcome: `print(comparison)`, `comparison.equal`, `.rows`, `.verdict`."""

    equal: bool
    rows: list
    verdict: str

    def __str__(self):
        lines = [f"{'f':10}{'logits':>7}{'elements':>10}{'differ':>8}   largest difference"]
        for row in self.rows:
            lines.append(f"{row.function:10}{row.logits:>7}{row.elements:10,}{row.differ:8,}   "
                         f"{row.largest:.1g} of the largest element")  # fmt: skip
        return "\n".join([*lines, "", self.verdict])

    def assert_equal(self):
        """Raise AssertionError with the verdict if an element differs: for your own tests."""
        if not self.equal:
            raise AssertionError(self.verdict)


def parse(text, known):
    """("rebar", {"temperature": 0.5, "eta": 1}) from rebar:temperature=.5,eta=1.

    A value that is no number, list, true or false is a name; an option without a value is True.
    Raises InputError for a method that is not among the names `known`, and an option given twice.
    """
    name, _, rest = text.partition(":")
    if name not in known:
        raise InputError(f"--against: '{name}' is unknown; choose from {', '.join(known)}")
    options = {}
    for word in re.split(r",(?![^\[]*\])", rest) if rest else ():  # no comma inside of [ ]
        option, given, value = (part.strip() for part in word.partition("="))
        if option in options:
            raise InputError(f"--against: {option} is given twice")
        value = value.capitalize() if value in ("true", "false") else value
        try:
            options[option] = ast.literal_eval(value) if given else True
        except (ValueError, SyntaxError):
            options[option] = value
    return name, options


def with_options(name, samples, options):
    """`samples`, our gradient_samples of the method `name`, with `options`. Raises InputError."""
    own = {key: p for key, p in inspect.signature(samples).parameters.items()
           if p.kind is p.KEYWORD_ONLY}  # fmt: skip
    of_estimators = samples.__globals__.get("OPTIONS", {}).values()
    known = [*own, *PASSED_ON.get(name, ()), *dict.fromkeys(itertools.chain(*of_estimators))]
    for option, value in options.items():
        if option not in known:
            raise InputError(f"--against: {name} has no option '{option}': "
                             f"choose from {', '.join(known)}")  # fmt: skip
        if value is True and option in own and not isinstance(own[option].default, bool):
            raise InputError(f"--against: {name}:{option} needs a value, as in {option}=1")
        if option in own and isinstance(own[option].default, bool) > isinstance(value, bool):
            raise InputError(f"--against: {name}:{option} has to be true or false, not {value}")

    def ours(f, logits, u, v):
        try:
            return samples(f, logits, u, v, **options)
        except (TypeError, ValueError) as error:
            line, more = str(error), ""
            if line.startswith("logits: "):
                more = " (leave --classes away)" if np.ndim(logits) == 2 else " (with --classes C)"
            elif line.startswith("u: "):
                many = np.ndim(u) > np.ndim(logits) + 1
                more = " (leave --samples away)" if many else " (with --samples K)"
            raise InputError(f"--against: {name}: {line}{more}") from error

    return ours


def compare(call, ours, label, cases, shape_of, seed):
    """Compare call(case, u, v) -> (n, size), the user's, with `ours` on the same u, v: Comparison.

    Raises InputError if the user's function draws noise of its own.
    """
    rows, first, numpy = [], None, BACKENDS["numpy"]()
    for k, case in enumerate(cases):
        rng = np.random.default_rng([seed, k])
        corner = 0 if case.logits.ndim == 2 else RARE
        u, v, _ = draw_noise(rng, case.logits, shape_of(ROWS, case), corner)
        exact = ours(function(case, numpy), case.logits, u, v).reshape(ROWS, -1)
        if not np.all(np.isfinite(exact)):
            raise InputError(f"--against: {label} is not finite for f = {case.name}")
        theirs = call(case, u, v)
        if k == 0 and not np.array_equal(theirs, call(case, u, v)):
            raise InputError("--against: gradient_samples draws noise of its own; it has to use u "
                             "and v, or no element can be equal")  # fmt: skip
        wrong, scale = differs(theirs, exact), np.max(np.abs(exact)) or 1.0
        largest = np.max(np.abs(theirs - exact)) / scale
        rows.append(Pair(case.name, case.label, exact.size, int(wrong.sum()), float(largest)))
        if wrong.any() and first is None:
            first = explain(case, u, v, theirs, exact, wrong, call)
    total, worst = sum(row.elements for row in rows), max(row.largest for row in rows)
    if first is None:
        return Comparison(True, rows, f"equal to {label} in all {total:,} elements: no difference "
                          f"above {worst:.1g} of the largest element")  # fmt: skip
    count = sum(row.differ for row in rows)
    return Comparison(
        False, rows, f"not equal to {label}: {count:,} of {total:,} elements differ; {first}"
    )


def differs(theirs, exact):
    """Which elements are not equal, up to rounding of double precision: like them."""
    row = np.max(np.abs(exact), axis=1, keepdims=True)
    allowed = TOLERANCE * (np.abs(exact) + row) + 1e-3 * TOLERANCE * np.max(np.abs(exact))
    return ~(np.abs(theirs - exact) <= allowed)


def explain(case, u, v, theirs, exact, wrong, call):
    """The first element that differs, in words; and whether the other half of the noise helps."""
    i, j = np.argwhere(wrong)[0]
    where = f"{case.name} at logits {case.label}, row {i}, component {j}"
    text = (f"the first is {where}: yours {theirs[i, j]:.10g}, ours {exact[i, j]:.10g}, difference "
            f"{theirs[i, j] - exact[i, j]:.3g}\n  logits {case.logits.tolist()}\n  u "
            f"{u[i].tolist()}\n  v {v[i].tolist()}")  # fmt: skip
    for words, (of_u, of_v) in MIRRORED.items():
        if not differs(call(case, 1 - u if of_u else u, 1 - v if of_v else v), exact).any():
            return f"{text}\nIt is equal with {words}. Here b = 1[logits + logit(u) > 0]."
    return text
