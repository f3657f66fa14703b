"""Figures: what a reader can tell apart, what is drawn of few points, and what the labels say."""

import itertools
import json
import subprocess
import sys

import numpy as np
import proofs
import pytest
from matplotlib.colors import to_rgb

M = proofs.load()
STYLES = M.figures.STYLES


def lightness(color):
    """The grey of a colour in print: relative luminance, as perceived (0 black, 100 white)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return 116 * (0.2126 * r + 0.7152 * g + 0.0722 * b) ** (1 / 3) - 16


# what is drawn in one panel, by compare.py and the toys, by dreg.py, by rbm.py, and by every run
BITS = ["REINFORCE", "RLOO", "NVIL", "VIMCO", "DisARM", "MuProp", "SimpleMuProp", "Concrete",
        "straight-through", "ReinMax", "REBAR", "DynamicREBAR", "RELAX", "RODEO"]  # fmt: skip
PANELS = [BITS, M.dreg.ESTIMATORS, ["exact", "PA", "PCD", "AIS", "independent samples"],
          ["train", "valid", "test", "independent pixels"], [*M.compare.METHODS], [*M.compare.TOY],
          [*M.semi_supervised.UNLABELLED]]  # fmt: skip


@pytest.mark.parametrize("names", PANELS, ids=lambda names: names[0])
def test_curves_of_a_panel_can_be_told_apart(names):
    """All are in the table; two differ in line or marker, and, in grey, not by lightness alone."""
    for one, other in itertools.combinations(names, 2):
        looks = [M.figures.style(name) for name in (one, other)]
        a, b = ((look["linestyle"], look["marker"]) for look in looks)
        assert a != b, (one, other)
        if looks[0]["color"] == looks[1]["color"]:
            assert a[0] != b[0], (one, other)
            assert a[1] != b[1], (one, other)
    known = {*STYLES, *M.figures.ALIASES}
    assert known.issuperset(names)


def test_coinciding_curves_of_the_toy_differ_in_grey():
    """For one bit NVIL and REBAR can be equal: dashes over a solid line that is darker by 15."""
    over, under = M.figures.style("REBAR"), M.figures.style("NVIL")
    assert (over["linestyle"], under["linestyle"]) == ("--", "-")
    assert lightness(over["color"]) - lightness(under["color"]) > 15


def test_a_name_has_one_style_everywhere():
    style = M.figures.style
    assert style("valid, 100 samples") == style("valid", 7)
    assert style("Gumbel-Softmax") == style("Concrete") == style("gumbel")
    unknown = [style("a method of yours", k) for k in range(4)]
    assert len({str(look) for look in unknown}) == 4


def test_spread():
    spread = M.figures.spread
    np.testing.assert_allclose(spread([0.1, 0.5, 0.9], 0.1), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread([0.5, 0.5, 0.5], 0.1), [0.4, 0.5, 0.6])
    np.testing.assert_allclose(spread([0.0, 0.0, 0.15], 0.1), [0.0, 0.1, 0.2])
    np.testing.assert_allclose(spread([0.97, 1.0], 0.1), [0.9, 1.0])
    np.testing.assert_allclose(spread([0.2, 0.3, 0.7], 0.2), [0.15, 0.35, 0.7])


def drawn(monkeypatch):
    """A list of the figures that are saved from now on."""
    saved, save = [], M.figures.save
    both = lambda figure, path: saved.append(figure) or save(figure, path)
    monkeypatch.setattr(M.figures, "save", both)
    return saved


@pytest.mark.parametrize("points", [1, 2, 8, 12, 13, 100])
def test_markers(points):
    """Every point of few has one; of many, at most eight; also where the style has none."""
    _, (axis,) = M.figures.new_figure(1)
    x = np.arange(points)
    first = M.figures.draw(axis, x, x, "REBAR")
    second = M.figures.draw(axis, x, x, "NVIL", position=1)
    marked = [x[line.get_markevery()[0] :: line.get_markevery()[1]] for line in (first, second)]
    if points <= 12:
        assert len(marked[0]) == len(marked[1]) == points
    else:
        assert 5 <= len(marked[0]) <= 8
        assert set(marked[0]).isdisjoint(marked[1])
    bare = M.figures.draw(axis, x, x, "independent pixels").get_marker()
    assert bare == ("." if points == 1 else "")


def test_a_run_says_which_bound_is_of_how_many_samples(tmp_path, monkeypatch):
    """A single evaluation is seen; "train" is of 1 sample, or of K where the method's bound is."""
    saved = drawn(monkeypatch)
    flags = ["--hidden", 5, "--steps", 4, "--samples", 3, "--eval-samples", 7, "--out"]
    for method, train in (("reinforce", "1 sample"), ("concrete", "3 samples")):
        getattr(M, method).main([*map(str, flags), str(tmp_path / method)])
        labels = {line.get_label(): line for line in saved[-2].axes[0].get_lines()}
        assert f"train, {train}" in labels
        for name in ("valid, 7 samples", "test, 7 samples"):
            (x,), marker = labels[name].get_xdata(), labels[name].get_marker()
            assert x == 4
            assert marker not in ("", "None")
        assert "log mean exp" in saved[-2].axes[0].get_title(loc="left")


def test_semi_supervised_averages_its_samples(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    flags = "--unlabelled reinforce --samples 2 --steps 2 --eval-samples 2 --hidden 5 --out"
    M.semi_supervised.main([*flags.split(), str(tmp_path / "run")])
    labels = {line.get_label() for figure in saved for line in figure.axes[0].get_lines()}
    assert "train, 1 sample" in labels


def test_tracked_variances_have_a_panel(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    flags = "--track stl --steps 2 --samples 2 --eval-samples 2 --test-samples 2 --hidden 5 --out"
    M.dreg.main([*flags.split(), str(tmp_path / "run")])
    panels = {axis.get_ylabel(): axis for axis in saved[0].axes}
    axis = panels["log inference variance"]
    labels = [line.get_label() for line in axis.get_lines() if line.get_marker() != "None"]
    assert labels == ["dreg", "stl"]


def test_names_that_do_not_fit_are_in_a_legend():
    _, (axis,) = M.figures.new_figure(1)
    for k in range(30):
        M.figures.draw(axis, [0, 1], [k, k], f"curve {k}", position=k)
    legend = M.figures.label_curves(axis)
    assert len(legend.get_texts()) == 30
    assert not axis.texts


def test_names_lie_at_the_ends(tmp_path):
    """Ends at 0, .5 and 5 in a panel from 0 to 10: the names in this order, 5 at half height."""
    figure, (axis,) = M.figures.new_figure(1)
    for k, end in enumerate((5, 0.5, 0)):
        M.figures.draw(axis, [0, 1, 2], [3, end, np.nan], f"{end}", position=k)
    axis.set_ylim(0, 10)
    assert M.figures.label_curves(axis) is None
    heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert heights["0"] < heights["0.5"] < heights["5"] == 0.5
    M.figures.save(figure, tmp_path / "figure.png")


def test_matplotlib_is_not_imported_before_a_figure():
    names = json.dumps(["compare", "dvae_sharp", "gumbel_softmax", "semi_supervised"])
    code = f"import sys, json; [__import__(n) for n in {names}]; print('matplotlib' in sys.modules)"
    options = {"cwd": proofs.METHODS, "capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", code], **options).stdout.strip() == "False"


# -------------------------------------------------------------------------------------- the toy


def plain(m):
    estimate = lambda *args: m.reinforce.estimate(*args, baseline="none")
    return {"REINFORCE": estimate, "REBAR": m.rebar.estimate}


@pytest.mark.parametrize("name", ["REINFORCE", "REBAR"])
@pytest.mark.parametrize("samples", [1, 10])
def test_the_exact_variance_is_that_of_as_many_samples(name, samples, rng):
    """Against 40,000 means of `samples` rows: 4.9 standard errors of their variance (1e-6), which
    are below 6 %; the variance of one sample is off by a factor of 10."""
    estimate, model = plain(M)[name], M.common.Toy(lambda b: -np.sum((b - 0.45) ** 2, axis=-1), 1)
    aux = [] if name == "REINFORCE" else M.rebar.init_aux(rng, model)
    logits, n = np.array([0.3]), 40_000
    exact = M.toy.exact_variance(estimate, model, [logits], aux, samples)
    u, v = np.clip(rng.random((2, n * samples, 1)), 1e-9, 1 - 1e-9)
    _, (g,), _ = estimate(
        model, [np.tile(logits, (len(u), 1))], aux, np.zeros((len(u), 0)), [(u, v)]
    )
    means = np.mean(len(u) * g.reshape(n, samples), axis=1)
    squares = (means - means.mean()) ** 2
    error = squares.std() / np.sqrt(n)
    assert abs(squares.mean() - exact) < 4.9 * error
    assert 4.9 * error < 0.06 * exact


def test_the_toy_draws_theta_and_says_what_the_loss_is(tmp_path, monkeypatch):
    """--samples 10: the exact log variance of a run is that of ten samples. Two panels do."""
    saved = drawn(monkeypatch)
    flags = ["--toy", "--steps", "60", "--samples", "10", "--target", "0.4", "--out"]
    M.reinforce.main([*flags, str(tmp_path / "toy")])
    (figure,) = saved
    left, right = figure.axes
    assert left.get_ylabel() == "θ = P(b = 1)"
    assert left.get_title(loc="left") == "the loss is E[(b − 0.4)²] = 0.16 + 0.2 θ"
    row = (tmp_path / "toy" / "log.csv").read_text(encoding="utf-8").splitlines()
    first = dict(zip(row[0].split(","), row[1].split(",")))
    theta = float(first["theta"])
    assert float(first["loss"]) == pytest.approx(0.16 + 0.2 * theta)
    # C = 0: g is −(1 − t)² (1 − θ) with probability θ, and t² θ otherwise
    values, p = np.array([-0.36 * (1 - theta), 0.16 * theta]), np.array([theta, 1 - theta])
    variance = (p @ values**2 - (p @ values) ** 2) / 10
    assert float(first["exact_log_variance"]) == pytest.approx(np.log(variance), abs=1e-6)
    exact = [line for line in right.get_lines() if line.get_label() == "C = 0"]
    assert len(exact) == 2  # the moving average, and the exact one over it
    assert exact[0].get_zorder() < exact[1].get_zorder()
