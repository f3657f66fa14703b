"""What the notebooks share: the way to methods/, the look of figures, and checks of properties.

A check knows what is true of every right answer, not the answer: that an estimator is unbiased,
that its variance is below some other one's, that two computations agree. So its message can say
what is wrong, and passing it gives no formula away.

    python notebooks/course.py notebooks/04_concrete.ipynb  # run a chapter and keep what it shows
"""

import base64
import contextlib
import csv
import hashlib
import importlib
import io
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "methods"))

import common  # before numpy: it chooses the number of BLAS threads

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython.display import Markdown, display
from PIL import Image
from scipy import stats
from scipy.special import roots_legendre

FALSE_ALARM = 1e-6  # of one statistical check of a right answer

# Lines that can be told apart in grey.
COLORS = ["k", "tab:blue", "tab:orange", "tab:green", "tab:red"]
STYLES = ["-", "--", "-.", ":", "-"]
plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.prop_cycle": cycler(
            color=COLORS, linestyle=STYLES, linewidth=[1.5, 1.5, 1.5, 1.5, 3]
        ),
        "figure.constrained_layout.use": True,
        "figure.dpi": 110,
        "figure.figsize": (5.6, 3.4),
        "grid.alpha": 0.3,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
    }
)

# ----------------------------------------------------------------------------------------- figures


def png(figure):
    """The figure as PNG of at most 64 colours: a third of the bytes, so a notebook stays small."""
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=plt.rcParams["figure.dpi"])
    image = Image.open(whole).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def show(caption, figure=None):
    """Show a figure, the current one unless it is given, with its caption, and close it.

    The caption says what is drawn and what to see. It is also the text for those who cannot see
    the picture.
    """
    figure = figure or plt.gcf()
    picture = base64.b64encode(png(figure)).decode("ascii")
    plt.close(figure)
    data = {"image/png": picture, "text/plain": f"Figure: {caption}"}
    display(data, metadata={"image/png": {"alt": caption}}, raw=True)
    display(Markdown(f"*Figure: {caption}*"))


def panels(axes, groups, draw, x, y):
    """Call draw(axis, name) for the names of each group, one group {title: names} an axis.

    Above every panel is a legend with the title. x and y are the labels of the whole row. Returns
    the axis of each name; of a name in several groups, the last one.
    """
    for axis, (title, names) in zip(axes, groups.items()):
        for name in names:
            draw(axis, name)
        columns = 2 if len(axes) > 1 else 3
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": columns}
        axis.legend(title=title, fontsize=8, **above)
    axes[0].set_ylabel(y)
    axes[len(axes) // 2].set_xlabel(x)
    return {name: axis for axis, names in zip(axes, groups.values()) for name in names}


SLIDERS = "application/vnd.jupyter.widget-view+json"  # the type of what shows them


def sliders(draw, **ranges):
    """Call draw(name=value, …), which draws a figure, whenever a slider is moved.

    Each range is (lowest, highest, step, start). A page without a kernel has no sliders: it shows
    a line that says so, as does a kernel without ipywidgets.
    """
    missing = f"Run this notebook with Jupyter to move {', '.join(ranges)} with a slider."
    try:
        import ipywidgets
    except ImportError:
        print(missing)
        return
    knobs = {
        name: ipywidgets.FloatSlider(
            start, min=low, max=high, step=step, description=name, continuous_update=False
        )
        for name, (low, high, step, start) in ranges.items()
    }
    image = ipywidgets.Image(format="png")

    def redraw(change=None):
        plt.figure()
        draw(**{name: knob.value for name, knob in knobs.items()})
        image.value = png(plt.gcf())
        plt.close()

    redraw()
    for knob in knobs.values():
        knob.observe(redraw, "value")
    box = ipywidgets.VBox([*knobs.values(), image])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display({SLIDERS: view, "text/plain": missing}, raw=True)


# --------------------------------------------------------------------------------------- exercises


LEFT = "_left_by_checks"  # a name in notebooks: what their checks have assigned, {name: value}


def exercise(name, answer=None, *hide):
    """Around the checks of an exercise: says which one passed, failed, or is not written yet.

    With `answer`, the function to be checked, it gives back the same function, which now runs out
    of sight of its check (`out_of_sight`): what the check compares with is no answer. `hide` names
    more that would be none: "exact_02" of the notebook, or "rbm.enumerate_rbm" of a module.
    """
    notebook = sys._getframe(1).f_globals  # the names of the notebook that says `with exercise`
    return _exercise(name, answer, {"common.exact_gradient", *hide}, notebook)


@contextlib.contextmanager
def _exercise(name, answer, hide, notebook):
    before = _without(notebook.get(LEFT, {}), notebook)
    try:
        yield out_of_sight(answer, notebook, before, hide) if answer else None
    except NotImplementedError as error:
        if error.args:  # of autograd or another library
            raise
        missing = "nothing is here yet. Replace `raise NotImplementedError()` by your code."
        raise AssertionError(f"Exercise {name}: {missing}") from None
    except AssertionError as error:
        raise AssertionError(f"Exercise {name}: {error}") from None
    finally:  # what this check leaves behind is hidden when it is run once more
        if answer:
            notebook[LEFT] = _without(before, notebook)
    print(f"Exercise {name}: passed")


def _without(known, names):
    """The entries of `names` that are not in `known` with the same value."""
    new = lambda k, x: k != LEFT and (k not in known or x is not known[k])
    return {k: x for k, x in names.items() if new(k, x)}


def out_of_sight(answer, notebook, before, hide):
    """`answer`, but while it runs, `notebook` has the names that it had `before` the check.

    The functions of modules that `hide` names ("module.name") refuse to be called, and its other
    names are gone. Functions that the check hands over see everything, as the check does.
    """
    stubs = {}
    for path in hide:
        module, _, attribute = path.rpartition(".")
        if module:
            module = importlib.import_module(module)
            stubs[path] = (module, attribute, getattr(module, attribute), _refusal(path))
    real = {id(function): stub for _, _, function, stub in stubs.values()}
    before = {k: real.get(id(x), x) for k, x in before.items() if k not in hide}

    def switch(names, hidden):
        """Give the notebook these names; returns those that it had."""
        had = dict(notebook)
        for k in had.keys() - names.keys():
            del notebook[k]
        notebook.update(names)
        for module, attribute, function, stub in stubs.values():
            setattr(module, attribute, stub if hidden else function)
        return had

    def handed_over(f):
        def in_sight(*args, **options):
            if not seen:  # the answer has returned, and autograd calls what it was given
                return f(*args, **options)
            mine = switch(seen[-1], hidden=False)
            try:
                return f(*args, **options)
            finally:
                seen[-1] = switch(mine, hidden=True)

        return in_sight if callable(f) else f

    seen = []  # the names that the check sees, one entry a call of the answer that is under way

    def alone(*args, **options):
        args = [handed_over(x) for x in args]
        options = {k: handed_over(x) for k, x in options.items()}
        seen.append(switch(before, hidden=True))
        try:
            return answer(*args, **options)
        except NameError as error:
            if error.name in seen[-1]:
                message = f"your answer uses the name {error.name}, which belongs to the check"
                raise AssertionError(message) from None
            raise
        finally:
            before.clear()
            before.update(switch(seen.pop(), hidden=False))

    return alone


def _refusal(path):
    def refuse(*args, **options):
        raise AssertionError(f"your answer calls {path}, which does the exercise for you")

    return refuse


def numbers(key, name, *ranges):
    """The numbers of an exercise in the course `key`: uniform in each (low, high), two decimals."""
    digest = hashlib.sha256(f"{key} {name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    values = [round(float(rng.uniform(low, high)), 2) for low, high in ranges]
    return values if len(values) > 1 else values[0]


# ------------------------------------------------------------------------------------------ checks


def z_scores(samples, exact):
    """How many standard errors the mean of samples (n, …) is from `exact`, elementwise."""
    samples = np.asarray(samples, np.float64)
    difference = samples.mean(axis=0) - exact
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    rounding = 1e-12 * (1 + np.abs(exact))  # a constant has no standard error
    return difference / (error + rounding)


def z_limit(count):
    """What the largest of `count` |z| of an unbiased estimator exceeds with FALSE_ALARM."""
    return stats.norm.isf(FALSE_ALARM / (2 * count))


def assert_unbiased(samples, exact, precision=None):
    """The mean of the estimates (n, D) is `exact`, as far as n estimates can tell.

    `precision` is the bias that the check has to be able to see; too noisy samples fail it.
    """
    samples, exact = np.asarray(samples), np.asarray(exact)
    assert samples.shape[1:] == exact.shape, (
        f"your estimates have the shape {samples.shape}; it should be (n, {exact.shape[0]}), "
        "one gradient a row"
    )
    assert np.all(np.isfinite(samples)), "some of your estimates are not finite"
    z, limit = z_scores(samples, exact), z_limit(exact.size)
    worst = np.argmax(np.abs(z))
    assert np.abs(z[worst]) < limit, (
        f"the estimator is biased. Component {worst} has the mean {samples[:, worst].mean():.4f} "
        f"over {len(samples):,} estimates; the exact gradient is {exact[worst]:.4f}, "
        f"{abs(z[worst]):.0f} standard errors away"
    )
    if precision is not None:
        visible = limit * samples.std(axis=0).max() / np.sqrt(len(samples))
        assert visible < precision, (
            f"the estimates are so noisy that a bias of {visible:.2g} could hide in them; "
            f"{len(samples):,} of them should show one of {precision:.2g}"
        )


def assert_biased(samples, exact):
    """The mean of the estimates (n, D) is *not* `exact`: the claim of a chapter, or a bug found."""
    z = z_scores(samples, np.asarray(exact))
    assert np.abs(z).max() > z_limit(z.size), "no bias is to be seen here"


def one_number(value):
    """A float, from a number or an array of any shape that holds one."""
    assert np.size(value) == 1, f"you return {np.size(value)} numbers; it should be one"
    return float(np.ravel(value)[0])


def assert_varies(samples):
    """The estimates (n, D) are estimates: not the exact gradient in every row."""
    assert np.ptp(np.asarray(samples), axis=0).max() > 1e-6, (
        "all your estimates are the same, whatever the sample: that is the gradient computed in "
        "another way, not an estimate from the noise"
    )


def assert_variance_below(samples, limit, of="the limit"):
    """The variance of the estimates (n, D), summed over D, is below `limit`, beyond doubt.

    `limit` is a number, or other estimates (n, D) of the same gradient.
    """
    squares = lambda s: np.sum((s - s.mean(axis=0)) ** 2, axis=1)
    mine, theirs = squares(np.asarray(samples)), limit
    doubt = mine.var() / len(mine)
    if np.ndim(limit):
        theirs = squares(np.asarray(limit))
        doubt, theirs = doubt + theirs.var() / len(theirs), theirs.mean()
    doubt = stats.norm.isf(FALSE_ALARM) * np.sqrt(doubt)
    assert mine.mean() + doubt < theirs, (
        f"the variance is {mine.mean():.4g} ± {doubt:.1g}; it should be below {theirs:.4g}, {of}"
    )


def assert_same(yours, expected, what="the two results", rtol=1e-8, atol=1e-10):
    """Two computations of the same numbers agree."""
    yours, expected = np.asarray(yours), np.asarray(expected)
    assert yours.shape == expected.shape, (
        f"{what}: the shape is {yours.shape}, it should be {expected.shape}"
    )
    gap = np.max(np.abs(yours - expected), initial=0)
    assert np.allclose(yours, expected, rtol=rtol, atol=atol), (
        f"{what}: they should be equal and differ by up to {gap:.3g}"
    )


# ----------------------------------------------------------------------- exact moments, bands, runs


def exact_moments(gradient, logits, n_u=500, n_v=1):
    """Mean and variance, each (1,), of `gradient(u, v) -> (n, 1)` for one bit, by quadrature."""
    u, v, weights = common.quadrature(np.asarray(logits, np.float64), n_u, n_v)
    g = gradient(u, v)
    mean = weights @ g
    return mean, weights @ (g - mean) ** 2


def tensor_rule(logits, points):
    """Nodes u (n, D) and weights (n,), by Gauss–Legendre, of the mean over D uniform numbers.

    p and 1 − p cut each axis into three cells, n = (3 points)^D in all. In a cell the bits
    1[u > 1 − p] and 1[u < p] are constant, so one point is exact for functions of bits.
    """
    x, weight = (array / 2 for array in roots_legendre(points))
    cuts = [np.sort([0, p, 1 - p, 1]) for p in common.sigmoid(np.asarray(logits, np.float64))]
    u = [np.ravel(cut[:-1] + np.diff(cut) * (x[:, None] + 0.5)) for cut in cuts]
    weights = [np.ravel(np.diff(cut) * weight[:, None]) for cut in cuts]
    u, weights = (np.stack(np.meshgrid(*p), axis=-1).reshape(-1, len(p)) for p in (u, weights))
    return u, np.prod(weights, axis=1)


def running_mean(samples, points=200):
    """Counts n, means of the first n of samples (N,), and half-widths of 95 % bands around them."""
    n = np.unique(np.geomspace(10, len(samples), points).astype(int))
    mean = np.cumsum(samples)[n - 1] / n
    square = np.cumsum(np.square(samples))[n - 1] / n
    return n, mean, stats.norm.isf(0.025) * np.sqrt(np.maximum(square - mean**2, 0) / n)


def train(method, *flags):
    """Run methods/<method>.py on digits in a temporary folder; returns its log as columns."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = ["--no-plots", "--out", f"{folder}/run", *map(str, flags)]
        importlib.import_module(method).main(arguments)
        with open(f"{folder}/run/log.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


# ------------------------------------------------------------------------- the program, for authors


def run(path):
    """Run a notebook in a fresh kernel and write it back with its outputs.

    What depends on the run and not on the notebook is left out: times, the state of the sliders
    (as large as a figure) and their views, which show nothing without a kernel.
    """
    import nbformat  # the kernel of a notebook needs neither
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(Path(path).resolve().parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(SLIDERS, None)
    nbformat.write(notebook, path)


def main(argv=None):
    from release import Parser  # late: a chapter needs none of it

    p = Parser(description=run.__doc__, allow_abbrev=False)
    p.add_argument("notebooks", nargs="+", metavar="FILE", help="notebooks to run, in place")
    for path in p.parse_args(argv).notebooks:
        try:
            run(path)
        except Exception as error:  # nbformat and the kernel have many
            plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without colours
            lines = [line for line in plain.splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
            p.exit(2, f"{p.prog}: error: {path}: {reason:.300}\n")


if __name__ == "__main__":
    main()
