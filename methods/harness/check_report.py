"""What check.py found: rows, a table, a verdict in words, a figure."""

import math
from typing import NamedTuple

from harness.bias_test import FALSE_ALARM, POWER

import numpy as np

PRECISION = 0.02  # of the gradient's norm: where less would be found, no more is drawn
TINY = 1e-6  # of f's spread: a gradient below that is no unit for a bias


class Row(NamedTuple):
    """What was found for one function at one scale of the logits, or for one tensor of a model.

    component, exact, mean, error (standard error) and z are those of the component with the largest
    |z|, variance and reinforce_variance sums over all components, f and df evaluations of f and ∇f
    per estimate, `detects` the smallest bias that would have been found, in `unit`.
    """

    function: str
    logits: str
    component: int
    exact: float
    mean: float
    error: float
    z: float
    variance: float
    reinforce_variance: float
    f: float
    df: float
    estimates: int
    detects: float
    unit: str
    biased: bool
    excess: float  # the largest |mean − exact| in units of what is allowed
    gradient: list
    means: list
    errors: list


class Report(NamedTuple):
    """The outcome: `print(report)`, `report.unbiased`, `report.rows`, `report.verdict`."""

    unbiased: bool
    rows: list
    verdict: str

    def __str__(self):
        head = (
            f"{'f':10}{'logits':>7} comp {'exact':>10}{'mean':>11} ± {'s.e.':9}{'|z|':>6}"
            f"{'variance':>10}{'REINFORCE':>11}{'f':>5}{'∇f':>5}{'estimates':>11}   finds"
        )
        lines = [head]
        for r in self.rows:
            z = f"{min(r.z, 9999.9):6.1f}" if math.isfinite(r.z) else f"{'':6}"  # an integral
            lines.append(
                f"{r.function:10}{r.logits:>7}{r.component:5} {r.exact:10.3g}{r.mean:11.3g} ± "
                f"{r.error:<9.2g}{z}{r.variance:10.3g}{r.reinforce_variance:11.3g}{r.f:5.3g}"
                f"{r.df:5.3g}{r.estimates:11,}   {r.detects:.2g} of {r.unit}"
                + ("  BIASED" if r.biased else "")
            )
        return "\n".join([*lines, "", self.verdict])

    def assert_unbiased(self):
        """Raise AssertionError with the verdict if a bias was found: for your own tests."""
        if not self.unbiased:
            raise AssertionError(self.verdict)


def make_row(name, where, exact, spread, reinforce_variance, n, m, error, limit, smallest,
             variance):  # fmt: skip
    """The row of a gradient `exact` (size,), from the deviation m, its error and limit (size,)."""
    z = np.where(np.abs(m) > 1e-9 * spread, np.abs(m) / np.maximum(error, 1e-300), 0)
    excess, norm = np.abs(m) / limit, float(np.linalg.norm(exact))
    i = int(np.argmax(excess))
    unit, size = ("norm", norm) if norm > TINY * spread else ("f's spread", spread)
    return Row(name, where, i, float(exact[i]), float(exact[i] + m[i]), float(error[i]),
               float(z[i]), float(np.sum(variance)), float(np.sum(reinforce_variance)), math.nan,
               math.nan, n, float(smallest / size), unit, not excess[i] <= 1, float(excess[i]),
               *(a.tolist() for a in (exact, exact + m, error)))  # fmt: skip


def sharp(row):
    return row.detects <= PRECISION and row.unit == "norm"


def report(rows, note=""):
    """The verdict over all rows, in words; `note` is what else to say of the test."""
    alarms = f"(false alarms: {FALSE_ALARM:g}{note})"
    worst = max(rows, key=lambda row: row.excess)
    if worst.biased:
        z = f"{worst.z:.1f}" if worst.z < 1e6 else "more than 1e6"
        z = "by integration" if math.isnan(worst.z) else f"± {worst.error:.2g}, |z| = {z}"
        where = "logits " * (not worst.logits.endswith("layers")) + worst.logits
        return Report(False, rows, (
            f"biased: {worst.function}, {where}, component {worst.component}: mean "
            f"{worst.mean:.6g} instead of {worst.exact:.6g}, {z} {alarms}"))  # fmt: skip
    total, by_norm = sum(row.estimates for row in rows), [r for r in rows if r.unit == "norm"]
    texts = []
    for unit, mine in (("the gradient's norm", by_norm),
                       ("f's spread", [r for r in rows if r not in by_norm])):  # fmt: skip
        if mine:
            sizes = sorted(row.detects for row in mine)
            last = max(mine, key=lambda row: row.detects)
            texts.append(f"{last.detects:.2g} of {unit} (the worst case, {last.function} at "
                         f"{last.logits}; median {sizes[len(sizes) // 2]:.2g})")  # fmt: skip
    if all(math.isnan(row.z) for row in rows):
        return Report(True, rows, "unbiased: by integration over u and v, no mean is off by more "
                      f"than {' or '.join(texts)}")  # fmt: skip
    return Report(True, rows, (
        f"unbiased as far as {total:,} estimates can tell: a bias of {' or '.join(texts)} in any "
        f"component would have been found with probability {POWER:g} {alarms}"))  # fmt: skip


def figure(path, report):
    """Bias of every component with 1.96 standard errors, the line being exact; and variances."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7, 0.42 * len(report.rows)), 7), layout="tight")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.axhline(0, color="k", linewidth=0.8, label="exact")
    for x, row in enumerate(report.rows):
        exact, mean, error = (np.array(a) for a in (row.gradient, row.means, row.errors))
        unit = np.linalg.norm(exact) or 1.0
        at = x + np.linspace(-0.35, 0.35, len(exact) + 2)[1:-1]
        top.errorbar(at, (mean - exact) / unit, 1.96 * error / unit, fmt=".", markersize=4,
                     linewidth=0.8, color="C1" if row.biased else "C0")  # fmt: skip
    top.set(ylabel="(mean − exact) / |exact gradient|\nby component; orange: biased")
    top.legend(frameon=False)
    for label, key, style in (("this estimator", "variance", "o"),
                              ("REINFORCE", "reinforce_variance", "kx")):  # fmt: skip
        values = np.array([getattr(row, key) for row in report.rows])
        bottom.semilogy(np.where(values > 0, values, np.nan), style, label=label)
    names = [f"{row.function}, {row.logits}" for row in report.rows]
    bottom.set_xticks(range(len(names)), names, rotation=90)
    bottom.set(ylabel="variance of one estimate")
    bottom.legend(frameon=False)
    figure.savefig(path, dpi=110)
