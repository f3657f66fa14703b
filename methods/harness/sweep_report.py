"""What a sweep found: a row a run, means over the seeds, the best of the grid, curves."""

import contextlib
import csv
import json
import math
from itertools import groupby

from harness import figures
from harness.pool import look
from harness.runfolder import write_rows

import numpy as np

LOG_VARIANCE = "log_grad_variance"
# Flags that say of which images and samples a bound is: bounds with others cannot be compared.
JUDGED_BY = {"dataset", "task", "eval-samples", "static-binarization", "dynamic-binarization"}


def read_log(folder):
    """The columns of a run's log as lists of numbers, nan where it has none; {} without a log.

    A row that is cut short or no numbers, as a full disk or a power cut leaves one, is left out.
    """
    rows = []
    with (
        contextlib.suppress(OSError),
        open(f"{folder}/log.csv", encoding="utf-8", errors="replace", newline="") as file,
    ):
        for row in csv.DictReader(line.replace("\0", "?") for line in file):
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                numbers = {key: math.nan if x == "" else float(x) for key, x in row.items()}
                if math.isfinite(numbers["step"] + numbers["seconds"]):
                    rows.append(numbers)
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


def steps_done(run):
    """(steps, seconds) by the last row of a run's log."""
    log = read_log(run.job.folder)
    return (int(log["step"][-1]), log["seconds"][-1]) if log else (0, 0.0)


def seconds_left(runs, states, processes):
    """When all runs will have ended, in seconds; None while no run has a log.

    `states` are those of the runs. As many as run now run at once, or `processes` if none does. A
    step takes as long as so far: with the same method and settings, else the same method, else any.
    """
    steps, seconds = zip(*(steps_done(run) for run in runs))
    keys = [((run.method, run.values), run.method, "any") for run in runs]
    left, missing = 0.0, 0
    for run, state, done, mine in zip(runs, states, steps, keys):
        if state in ("done", "failed"):
            continue
        for level, key in enumerate(mine):
            alike = [k for k, other in enumerate(keys) if other[level] == key and steps[k]]
            if alike:
                break
        else:
            return None
        speed = sum(seconds[k] for k in alike) / sum(steps[k] for k in alike)
        left, missing = left + max(run.job.steps - done, 0) * speed, missing + 1
    return left / max(min(states.count("running") or processes, missing), 1)


def duration(seconds):
    """ "40 s", "12 min", "3.5 h", or "unknown" for None."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def collect(runs):
    """A dict a run: method, the grid's values, seed, state, folder, and all numbers of summary.json
    (those that a run lacks are "")."""
    rows = []
    for run in runs:
        state, line = look(run.job.folder, run.job.steps)
        row = {"method": run.method, **dict(run.values), "seed": run.seed, "state": state,
               "last_line": "" if state == "done" else line, "folder": run.job.folder}  # fmt: skip
        if state == "done":
            with open(f"{run.job.folder}/summary.json", encoding="utf-8") as file:
                summary = json.load(file)
            numbers = {k: x for k, x in summary.items() if isinstance(x, (int, float))}
            row = row | numbers | row  # the flags of the grid stay what they are
        rows.append(row)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, "") for key in keys} for row in rows]


def mean(values):
    """(mean, standard error) of a list; the error of fewer than two is nan."""
    n = len(values)
    error = np.std(values, ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(values)), float(error)


def points(rows, runs, measure):
    """A dict a method and point of the grid, in the order of the runs: its means over the seeds.

    "best" is true for the point of each method with the highest valid_<measure> among those that
    have the most seeds done; if the grid has a flag of JUDGED_BY, for one at each value of it. The
    test images have no say in it.
    """
    measures = [f"valid_{measure}", f"test_{measure}", "test_log_likelihood", LOG_VARIANCE]
    found = []
    point = lambda pair: (pair[1].method, pair[1].values)
    for (method, values), group in groupby(zip(rows, runs), point):
        group = [row for row, _ in group]
        done = [row for row in group if row["state"] == "done"]
        row = {"method": method, "values": values, "done": len(done), "seeds": len(group)}
        for key in [*measures, "seconds"]:
            numbers = [float(r[key]) for r in done if r.get(key, "") != ""]
            row[key] = mean(numbers) if numbers and len(numbers) == len(done) else None
        found.append(row)
    for row in found:
        rivals = [r for r in found if contest(r) == contest(row) and r[measures[0]]]
        most = max((r["done"] for r in rivals), default=0)
        rivals = [r for r in rivals if r["done"] == most]
        row["best"] = bool(rivals) and row is max(rivals, key=lambda r: r[measures[0]][0])
    return found


def contest(row):
    """Those rows of `points` that agree in this can be compared."""
    return row["method"], *(pair for pair in row["values"] if pair[0] in JUDGED_BY)


def table(found):
    """Lines of text: the points chosen for each method; then, if there are others, the whole grid
    with the chosen marked by *."""
    axes = [name for name, _ in found[0]["values"]]
    known = ("method", "values", "done", "seeds", "best")
    keys = [key for key in found[0] if key not in known and any(row[key] for row in found)]

    def cells(row, mark):
        numbers = []
        for key in keys:
            digits = 1 if key == "seconds" else 3
            shown = [f"{x:.{digits}f}" for x in row[key] or () if math.isfinite(x)]
            numbers.append(" ± ".join(shown))
        seeds = f"{row['done']} of {row['seeds']}" if row["done"] < row["seeds"] else row["done"]
        chosen = mark if row["best"] else ""
        return [
            row["method"] + chosen,
            *(value for _, value in row["values"]),
            str(seeds),
            *numbers,
        ]

    best = [row for row in found if row["best"]]
    lines = []
    tables = [("", best)] * bool(best) + [(" *", found)] * (best != found)
    for mark, chosen in tables:
        rows = [["method", *axes, "seeds", *(key.replace("_", " ") for key in keys)]]
        rows += [cells(row, mark) for row in chosen]
        first, *widths = [max(map(len, column)) for column in zip(*rows)]
        for name, *row in rows:
            right = (f"{x:>{width}}" for x, width in zip(row, widths))
            lines.append("  ".join([f"{name:{first}}", *right]).rstrip())
        lines.append("")
    return lines[:-1]


def band(runs, key):
    """steps, seconds, mean and standard error of a column of the log, over the runs.

    At the steps where every run that has begun has a value; the seconds are means too.
    """
    logs = [log for log in (read_log(run.job.folder) for run in runs) if key in log]
    columns = [{step: (second, y) for step, second, y in zip(log["step"], log["seconds"], log[key])
                if math.isfinite(y)} for log in logs]  # fmt: skip
    steps = sorted(set.intersection(*map(set, columns))) if columns else []
    seconds = [np.mean([column[step][0] for column in columns]) for step in steps]
    means = [mean([column[step][1] for column in columns]) for step in steps]
    return np.array(steps), np.array(seconds), *np.array(means).reshape(-1, 2).T


def look_of(method):
    """The name in figures.STYLES of a method as it was given, such as "dreg --estimator iwae"."""
    looks = {name.lower(): name for name in figures.STYLES}
    known = [looks[word] for word in method.lower().split() if word in looks]
    return known[-1] if known else method


def plot(path, rows, runs, found, measure):
    """sweep.png: validation and log variance against step and seconds, mean ± standard error.

    A curve a method, of its best point; of all its points while none is done. Of the runs that are
    done, or of all that have begun while none is.
    """
    chosen = {contest(row) for row in found if row["best"]}
    found = [row for row in found if row["best"] or contest(row) not in chosen]
    done, seeds = {row["folder"] for row in rows if row["state"] == "done"}, set()
    names = [look_of(row["method"]) for row in found]
    keys = {f"valid_{measure}": f"validation {measure}", LOG_VARIANCE: "log variance"}
    figure, axes = figures.new_figure(2, 5.2, 3.2, rows=2)
    for k, row in enumerate(found):
        mine = [run for run in runs if (run.method, run.values) == (row["method"], row["values"])]
        mine = [run for run in mine if run.job.folder in done] or mine
        seeds.add(sum(bool(read_log(run.job.folder)) for run in mine))
        name = names[k] if names.count(names[k]) == 1 else row["method"]
        label = ", ".join([row["method"], *(f"{key} {value}" for key, value in row["values"])])
        for (key, y_label), pair in zip(keys.items(), (axes[:2], axes[2:])):
            steps, seconds, y, error = band(mine, key)
            for axis, x, x_label in zip(pair, (steps, seconds), ("step", "seconds")):
                axis.set(xlabel=x_label, ylabel=y_label)
                if len(x):
                    line = figures.draw(axis, x, y, name, position=k, label=label)
                    error = np.nan_to_num(error)
                    axis.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.2,
                                      linewidth=0)  # fmt: skip
    for axis in axes:
        figures.label_curves(axis)
    note = f"mean ± standard error of {' or '.join(map(str, sorted(seeds)))} seeds"
    axes[0].set_title(note, loc="left", size=8.5)
    figures.save(figure, path)


def write(folder, runs, measure):
    """results.csv and sweep.png in the folder of the sweep; the lines of the table."""
    rows = collect(runs)
    write_rows(folder / "results.csv", rows)
    found = points(rows, runs, measure)
    plot(folder / "sweep.png", rows, runs, found, measure)
    notes = ["the data have no test images: what is called test here is validation"]
    return table(found) + notes * any(not has_test(run) for run in runs)


def has_test(run):
    """Whether the images of a run have a test split of their own, by its config.json, if any."""
    try:
        with open(f"{run.job.folder}/config.json", encoding="utf-8") as file:
            return json.load(file).get("data_has_test", True)
    except (OSError, ValueError):
        return True
