"""The course: every notebook runs in a fresh kernel, and shows what it showed when committed.

The exercises are what release.py writes; every check of theirs fails until there is an answer,
passes with it, and catches the bug that it is there to catch.
"""

import base64
import copy
import io
import re
import shutil
import subprocess
import sys

import classroom
import ipywidgets
import nbformat
import numpy as np
import proofs
import pytest
from classroom import NOTEBOOKS, read, release
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

CHAPTERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
SOLUTIONS = sorted(path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb"))
SECONDS = 300  # of one cell; a chapter takes up to a minute
EVERY_CHAPTER = ("## The problem", "## Derivation", "## Unbiased", "## Variance", "## What breaks",
                 "on digits")  # fmt: skip
SLIDERS = "application/vnd.jupyter.widget-view+json"
HEADINGS = {  # of the lessons that derive no estimator
    "00_before_you_start.ipynb": ("## The bound", "## Gradient descent", "## What is a gradient"),
}


def execute(notebook, folder, **options):
    """Run the cells of a copy in a fresh kernel and return it; a failing cell raises."""
    notebook = copy.deepcopy(notebook)
    where = {"metadata": {"path": str(NOTEBOOKS / folder)}}
    options = {"timeout": SECONDS, "kernel_name": "python3", "resources": where} | options
    NotebookClient(notebook, **options).execute()
    return notebook


def errors(notebook):
    """The error message of every code cell, "" where there is none, by position."""
    messages = {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            raised = [out for out in cell.outputs if out.output_type == "error"]
            messages[i] = f"{raised[0].ename}: {raised[0].evalue}" if raised else ""
    return messages


def printed(cell):
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def numbers_in(text):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text.replace("−", "-"))]


def graded(notebook):
    """Positions of the cells with automatic checks."""
    facts = [c.metadata.get("nbgrader", {}) for c in notebook.cells]
    return [i for i, fact in enumerate(facts) if fact.get("grade") and not fact["solution"]]


# ---------------------------------------------------------------------------------------- chapters


def exercises_of(name):
    """The exercises of a chapter; lessons of one chapter (05_…, 05b_…) share them."""
    if name in SOLUTIONS:
        return name
    number = name.partition("_")[0].rstrip("b")
    return next(other for other in SOLUTIONS if other.startswith(f"{number}_"))


def test_every_chapter_has_its_exercises():
    assert sorted({exercises_of(name) for name in CHAPTERS}) == SOLUTIONS
    assert CHAPTERS[0].startswith("00_")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_runs_and_shows_what_it_showed(name):
    """Fresh outputs: the headline figures of the committed run, within the cell's tolerance."""
    committed = read(".", name)
    fresh = execute(committed, ".")
    headlines = [
        i for i, c in enumerate(committed.cells) if "headline" in c.metadata.get("tags", [])
    ]
    assert headlines, "no cell has the tag headline"
    for i in headlines:
        was, now = printed(committed.cells[i]), printed(fresh.cells[i])
        assert len(numbers_in(was)) > 0
        tolerance = committed.cells[i].metadata["tolerance"]
        np.testing.assert_allclose(numbers_in(now), numbers_in(was), rtol=tolerance, err_msg=now)


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_is_complete_and_short(name):
    notebook, path = read(".", name), NOTEBOOKS / name
    code = [c for c in notebook.cells if c.cell_type == "code"]
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert len(text.split()) <= 2000
    assert sum(1 for c in code for line in c.source.splitlines() if line.strip()) <= 260
    assert path.stat().st_size < 400_000
    assert all(c.execution_count for c in code), "not executed"
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "not in one go"
    assert not any(errors(notebook).values())
    said = [out.text for c in code for out in c.outputs if out.get("name") == "stderr"]
    assert not [text for text in said if "Warning" in text or "/" in text]
    assert sum("image/png" in out.get("data", {}) for c in code for out in c.outputs) >= 3
    headings = HEADINGS.get(name, EVERY_CHAPTER)
    for expected in ("**You will learn**", "**You need**", "## Exercises", "## Further reading",
                     f"exercises/{exercises_of(name)}", "<details>", *headings):  # fmt: skip
        assert expected in text, expected


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_are_sharp_small_and_described(name):
    """110 dpi, at most 64 colours; the text for those who cannot see them is the caption."""
    notebook = read(".", name)
    outputs = [out for c in notebook.cells if c.cell_type == "code" for out in c.outputs]
    captions = {out.data.get("text/markdown") for out in outputs if "data" in out}
    for out in outputs:
        if "image/png" in out.get("data", {}):
            caption = out.metadata["image/png"]["alt"]
            assert len(caption.split()) >= 8
            assert f"*Figure: {caption}*" in captions
            picture = Image.open(io.BytesIO(base64.b64decode(out.data["image/png"])))
            assert picture.width >= 390  # 3.6 inches
            assert len(picture.convert("RGB").getcolors(100_000)) <= 64
        assert SLIDERS not in out.get("data", {}), "run it by notebooks/course.py"
    assert "widgets" not in notebook.metadata, "run it by notebooks/course.py"


# --------------------------------------------------------------------------------------- exercises


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exercises_are_what_release_writes(name):
    assert read("exercises", name) == release.released(read("solutions", name))
    assert "### BEGIN" not in (NOTEBOOKS / "exercises" / name).read_text(encoding="utf-8")


def variants_of(name, number):
    """The other tasks for an exercise."""
    path = NOTEBOOKS / "variants" / name
    found = release.sections(nbformat.read(path, as_version=4)) if path.exists() else []
    return [cells for other, cells in found if other == number]


def test_release_writes_the_course_of_a_key(tmp_path):
    """Same cells, but for the key and its tasks; and the same files as here without one."""
    command = [sys.executable, NOTEBOOKS / "release.py", "--to", tmp_path / "mine"]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run([*command, "--key", "A-7"], check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == SOLUTIONS
    for name in SOLUTIONS:
        mine = release.sections(nbformat.read(tmp_path / "mine" / name, 4))
        ours = release.sections(read("exercises", name))
        assert [number for number, _ in mine] == [number for number, _ in ours]
        pairs = [  # of cells; the key may have chosen other tasks (test_teaching.py)
            pair
            for (number, a), (_, b) in zip(mine, ours)
            if release.pick("A-7", number, 2) == 0 or not variants_of(name, number)
            for pair in zip(a, b, strict=True)
        ]
        changed = [(a.source, b.source) for a, b in pairs if a != b]
        assert len(changed) == 1
        assert changed[0][0] == changed[0][1].replace('KEY = "public"', 'KEY = "A-7"')
    bad = subprocess.run([*command, "--key", "a b"], check=False, capture_output=True, text=True)
    assert bad.returncode == 2
    assert "--key: 'a b'" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exercise_cells_are_fit_for_grading(name):
    """nbgrader's metadata, whole and unique; four to six exercises; a stub for every solution."""
    notebook = read("solutions", name)
    facts = [c.metadata["nbgrader"] for c in notebook.cells if "nbgrader" in c.metadata]
    keys = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
    for fact in facts:
        assert set(fact) == keys | ({"points"} if fact["grade"] else set())
    assert len({fact["grade_id"] for fact in facts}) == len(facts)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    titles = re.findall(r"^## (\w+)\.(\d+) (\w+(?: the bug)?)", text, re.MULTILINE)
    assert [int(number) for _, number, _ in titles] == list(range(1, len(titles) + 1))
    assert 4 <= len(titles) <= 6
    kinds, needed = {kind for *_, kind in titles}, {"Derive", "Implement", "Find the bug"}
    assert needed <= kinds <= needed | {"Measure"}
    answers = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
    for cell in answers:
        if cell.cell_type == "code":
            assert cell.source.count("### BEGIN SOLUTION") == 1


def with_bugs(notebook, key):
    """A solution notebook with the numbers of `key`, and the positions of cells added to it.

    After the check of a bug hunt they repeat it, without its hidden tests, with the bug in place of
    the mended code.
    """
    cells, hunts = [], []
    for cell in notebook.cells:
        cell.source = cell.source.replace(release.KEY, f'KEY = "{key}"')
        cells.append(cell)
        if hunt := cell.metadata.get("bug_hunt"):
            mended, bug = hunt["mended"], hunt["released"]
            visible = release.HIDDEN.sub("", cell.source)
            again = f"kept, {mended} = {mended}, {bug}\n{visible}"
            hunts.append(len(cells))
            cells.append(nbformat.v4.new_code_cell(again))
            cells.append(nbformat.v4.new_code_cell(f"{mended} = kept"))
    notebook.cells = cells
    assert hunts
    return notebook, hunts


def in_this_process(notebook, folder, monkeypatch):
    """What `execute` does with allow_errors, in a fraction of its time: no kernel is started."""
    namespace = {"__name__": "__main__"}
    with classroom.in_folder(monkeypatch, folder):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                text, error = classroom.run(cell.source, namespace=namespace)
                name, _, value = error.partition(": ")
                cell.outputs = [nbformat.v4.new_output("stream", text=text)]
                if error:
                    cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=value))
    return notebook


def assert_solved(fresh, hunts):
    """Solutions pass; bugs are refused, in the words of the check."""
    for i, message in errors(fresh).items():
        if i in hunts:
            assert re.match(r"AssertionError: Exercise \w+\.\d+ .+: ", message), message
        else:
            assert message == ""
    for i in graded(fresh):
        assert ": passed" in printed(fresh.cells[i])


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_pass_their_checks_and_bugs_do_not(name):
    """In a kernel, as a student and nbgrader run them, with the numbers of the public course."""
    notebook, hunts = with_bugs(read("solutions", name), "public")
    assert_solved(execute(notebook, "solutions", allow_errors=True), hunts)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_pass_with_the_numbers_of_another_course(name, monkeypatch):
    notebook, hunts = with_bugs(read("solutions", name), "A-7")
    assert_solved(in_this_process(notebook, "solutions", monkeypatch), hunts)


def assert_unsolved(fresh):
    """Every check fails with the name of its exercise and what to do; nothing else fails."""
    messages = errors(fresh)
    checks = graded(fresh)
    assert len(checks) >= 3
    for i, message in messages.items():
        expected = (
            r"AssertionError: Exercise \w+\.\d+ .+: nothing is here yet\." if i in checks else "$"
        )
        assert re.match(expected, message), f"cell {i}: {message}"


@pytest.mark.parametrize("name", SOLUTIONS)
def test_unsolved_exercises_say_so(name, monkeypatch):
    assert_unsolved(in_this_process(read("exercises", name), "exercises", monkeypatch))


@pytest.mark.slow
def test_unsolved_exercises_say_so_in_a_kernel():
    assert_unsolved(execute(read("exercises", SOLUTIONS[0]), "exercises", allow_errors=True))


# ------------------------------------------------------------------------------ checks and runner


@pytest.fixture
def course():
    before = sys.path[:]
    yield classroom.load_file(NOTEBOOKS / "course.py")
    sys.path[:] = before


def test_course_checks_tell_right_from_wrong(course, rng):
    exact = np.array([0.3, -0.1])
    fair = exact + rng.standard_normal((100_000, 2))
    course.assert_unbiased(fair, exact, precision=0.05)
    course.assert_same(fair, fair.copy())
    course.assert_variance_below(fair, 2.2)
    course.assert_variance_below(fair, 2 * fair)
    wrong = [
        (lambda: course.assert_unbiased(fair + [0, 0.03], exact), "biased. Component 1"),
        (lambda: course.assert_unbiased(fair, exact, precision=0.001), "could hide"),
        (lambda: course.assert_unbiased(fair[:, 0], exact), "shape"),
        (lambda: course.assert_unbiased(fair * np.nan, exact), "not finite"),
        (lambda: course.assert_biased(fair, exact), "no bias"),
        (lambda: course.assert_variance_below(fair, 1.9), "should be below"),
        (lambda: course.assert_variance_below(fair, fair[::-1]), "should be below"),
        (lambda: course.assert_same(fair, fair + 1e-3), "differ by up to 0.001"),
        (lambda: course.assert_same(fair, fair[0]), "shape"),
    ]
    course.assert_biased(fair + [0, 0.03], exact)
    for check, message in wrong:
        with pytest.raises(AssertionError, match=message):
            check()


def test_course_false_alarms_are_as_rare_as_stated(course, rng, monkeypatch):
    """At a level of 5 % over three components, 2,000 fair estimators: 100 ± 5 sd of alarms."""
    monkeypatch.setattr(course, "FALSE_ALARM", 0.05)
    z = course.z_scores(rng.standard_normal((400, 6000)), np.zeros(6000)).reshape(2000, 3)
    alarms = np.sum(np.abs(z).max(axis=1) > course.z_limit(3))
    assert abs(alarms - 100) < 5 * np.sqrt(95)


SCENE = """
helper, cache = lambda x: x + 1, []

def answer(f, x):
    cache.append(x)
    return {}
"""


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("helper(f(x))", ""),
        ("x + 2 if len(cache) == 1 else helper(x) + 1", ""),
        ("truth", "your answer uses the name truth, which belongs to the check"),
        ("given", "your answer uses the name given, which belongs to the check"),
        ("common.exact_gradient(f, x)", "your answer calls common.exact_gradient, which does"),
        ("exact(f, x)", "your answer calls common.exact_gradient, which does"),
        ("common.all_bits(x)", "your answer calls common.all_bits, which does the exercise"),
        ("helper(x) + x", "wrong"),
    ],
)
def test_an_answer_runs_out_of_sight_of_its_check(course, returned, message):
    """Twice, as a student runs the check cell again; and then everything is as it was."""
    check = """
with course.exercise("1.1 two more", answer, "given", "common.all_bits") as tried:
    truth, slope = 7, 1
    assert tried(lambda x: x + slope, 5) == truth, "wrong"
    assert cache[-1] == 5 and common.exact_gradient is exact and len(common.all_bits(2)) == given
"""
    names = {"course": course, "common": course.common, "exact": course.common.exact_gradient}
    names["given"] = 4
    exec(SCENE.replace("{}", returned), names)
    for _ in range(2):
        _, error = classroom.run(check, namespace=names)
        expected = f"AssertionError: Exercise 1.1 two more: {message}" if message else ""
        assert error.startswith(expected)
        assert bool(error) == bool(expected)
        assert names["given"] == 4
        assert names["truth"] == 7
        assert names["exact"] is course.common.exact_gradient
    assert names["cache"] == [5, 5]


def test_course_show_has_a_caption_and_few_colours(course, monkeypatch):
    shown = []
    monkeypatch.setattr(course, "display", lambda *data, **options: shown.append((data, options)))
    figure, axis = course.plt.subplots(figsize=(4, 3))
    axis.imshow(np.arange(400).reshape(20, 20), cmap="viridis")
    course.show("a square of many colours", figure)
    ((data,), options), ((caption,), _) = shown
    assert options["metadata"]["image/png"]["alt"] == "a square of many colours"
    assert caption.data == "*Figure: a square of many colours*"
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture.size == (440, 330)
    assert 32 < len(picture.convert("RGB").getcolors(10_000)) <= 64
    assert not course.plt.get_fignums()


def test_course_sliders_draw_and_say_what_is_missing(course, monkeypatch, capsys):
    """With ipywidgets every move draws anew; without it one line says what it is for."""
    drawn, shown, made, plain = [], [], [], ipywidgets.FloatSlider
    monkeypatch.setattr(course, "display", lambda data, **options: shown.append(data))
    make = lambda *values, **options: made.append(plain(*values, **options)) or made[-1]
    monkeypatch.setattr(ipywidgets, "FloatSlider", make)
    course.sliders(lambda T: drawn.append(T), T=(0.1, 5, 0.1, 0.5))
    assert drawn == [0.5]
    assert shown[0]["text/plain"] == "Run this notebook with Jupyter to move T with a slider."
    (slider,) = made
    slider.value = 2.0
    assert drawn == [0.5, 2.0]
    with pytest.raises(ZeroDivisionError):  # a mistake in the drawing is not swallowed
        course.sliders(lambda T: 1 / 0, T=(0.1, 5, 0.1, 0.5))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    course.sliders(lambda T: drawn.append(T), T=(0.1, 5, 0.1, 0.5))
    assert "to move T with a slider" in capsys.readouterr().out
    assert drawn == [0.5, 2.0]


def test_course_runs_a_notebook_without_the_state_of_its_sliders(course, tmp_path, capsys):
    path, sources = (
        tmp_path / "x.ipynb",
        ["import course", "course.sliders(lambda T: None, T=(0, 2, 1, 1))"],
    )
    shutil.copy(NOTEBOOKS / "course.py", tmp_path)
    sources.insert(0, f"import sys; sys.path.insert(0, {str(proofs.METHODS)!r})")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    course.main([str(path)])
    notebook = nbformat.read(path, 4)
    (output,) = [out for out in notebook.cells[2].outputs if out.output_type == "display_data"]
    assert output.data == {"text/plain": "Run this notebook with Jupyter to move T with a slider."}
    assert "widgets" not in notebook.metadata
    assert [c.execution_count for c in notebook.cells] == [1, 2, 3]
    assert not any("execution" in c.metadata for c in notebook.cells)
    failing = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(failing, path)
    with pytest.raises(SystemExit) as end:
        course.main([str(path)])
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(f"error: {path}: ZeroDivisionError: division by zero")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        course.main([str(path)])
    assert end.value.code == 2
    assert f"error: {path}: " in capsys.readouterr().err.splitlines()[-1]
    assert path.read_text(encoding="utf-8") == "{"


def test_course_numbers_belong_to_key_and_exercise(course):
    public = course.numbers("public", "1.2", (0, 1), (5, 6))
    assert public == course.numbers("public", "1.2", (0, 1), (5, 6))
    assert public != course.numbers("A-7", "1.2", (0, 1), (5, 6))
    assert public != course.numbers("public", "1.3", (0, 1), (5, 6))
    assert 0 <= public[0] <= 1
    assert 5 <= public[1] <= 6


def test_release_refuses_a_marker_without_partner():
    cell = nbformat.v4.new_code_cell("def f():\n    ### BEGIN SOLUTION\n    return 1")
    cell.metadata["nbgrader"] = {"solution": False, "grade_id": "x"}
    with pytest.raises(ValueError, match="cell x: a marker has no partner"):
        release.released(nbformat.v4.new_notebook(cells=[cell]))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder of notebooks with two solutions, for release.py to work in."""
    (tmp_path / "solutions").mkdir()
    for name in SOLUTIONS[:2]:
        (tmp_path / "solutions" / name).write_bytes((NOTEBOOKS / "solutions" / name).read_bytes())
        (tmp_path / name).write_bytes((NOTEBOOKS / name).read_bytes())
    monkeypatch.setattr(release, "HERE", tmp_path)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, desk, *args):
    """The one line with which release.py refuses `args`, and changes no file."""
    before = contents(desk)
    with pytest.raises(SystemExit) as end:
        release.main(args)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert contents(desk) == before
    return line


def test_release_overwrites_nothing_but_empty_exercises(desk, capsys):
    (desk / "link").symlink_to(desk / "solutions")
    for to in ("solutions", "solutions/new", "link", ".", "new/../solutions"):
        assert "overlaps" in refused(capsys, desk, "--to", str(desk / to))
    assert "it is empty" in refused(capsys, desk, "--to", "")
    assert "cannot write" in refused(capsys, desk, "--to", str(desk / SOLUTIONS[0]))
    release.main(["--to", str(desk / "mine")])
    release.main(["--to", str(desk / "mine"), "--key", "A-7"])
    release.main(["--to", str(desk / "mine"), "--key", "B-8"])
    capsys.readouterr()
    student = desk / "mine" / SOLUTIONS[1]
    empty = student.read_text("utf-8")
    stub = "raise NotImplementedError()"
    added = nbformat.reads(empty, 4)
    added.cells.append(nbformat.v4.new_code_cell("my = 'experiment'"))
    for answered in (
        empty.replace(stub, "return 1", 1),
        nbformat.writes(added),
        empty.replace(f"    {stub}", f"    half = 'done'\\n\",\n    \"    {stub}", 1),
    ):
        assert answered != empty
        student.write_text(answered, "utf-8")
        assert "would be lost" in refused(capsys, desk, "--to", str(desk / "mine"))


def test_release_refuses_a_broken_solution_and_writes_none(desk, capsys):
    path = desk / "solutions" / SOLUTIONS[1]
    whole = path.read_text("utf-8")
    for broken in ("", "{}", "[]", whole[:1000], whole.replace("### END SOLUTION", "", 1)):
        path.write_text(broken, "utf-8")
        assert f"error: {SOLUTIONS[1]}: " in refused(capsys, desk)
    path.write_text(whole.replace('KEY = \\"public\\"', "KEY = 'public'"), "utf-8")
    assert "--key would change nothing" in refused(capsys, desk, "--key", "A-7")


@pytest.mark.parametrize("ends", ["\r\n", "  \n"])
def test_release_understands_other_ends_of_marker_lines(ends):
    """Line ends of Windows, and spaces after a marker; no answer cell loses its def."""
    for name in SOLUTIONS:
        notebook = read("solutions", name)
        for cell in notebook.cells:
            if cell.cell_type == "code" and ends == "  \n":
                cell.source = re.sub("(### BEGIN .*)\n", "\\1  \n", cell.source)
            else:
                cell.source = cell.source.replace("\n", ends) if "\r" in ends else cell.source
        assert release.released(notebook) == read("exercises", name)


def test_make_digits_without_scikit_learn(tmp_path):
    """--help works, a run ends in one line, and neither touches the data."""
    script = tmp_path / "make_digits.py"
    for name in ("make_digits.py", "download.py"):
        shutil.copy(NOTEBOOKS.parent / "data" / name, tmp_path)
    (tmp_path / "sklearn.py").write_text("raise ImportError('none here')")
    for flags, code in ((["--help"], 0), (["--no-such"], 2), ([], 2)):
        done = subprocess.run([sys.executable, script, *flags], check=False, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    assert done.stderr == (
        "make_digits.py: error: it needs scikit-learn: pip install scikit-learn\n"
    )
    assert not list(tmp_path.glob("*.npz"))


def test_a_broken_chapter_is_noticed():
    """The runner itself: a false claim raises."""
    cells = [nbformat.v4.new_code_cell("assert 1 == 2")]
    with pytest.raises(CellExecutionError):
        execute(nbformat.v4.new_notebook(cells=cells), ".")


def test_course_tensor_rule_has_the_moments_of_bits_and_uniforms(course):
    """One point a cell is exact for the bits b and b̃ of any logits, two for u² too."""
    p = 1 / (1 + np.exp([-0.3, 1.0]))
    for points in (1, 2):
        u, weights = course.tensor_rule([0.3, -1.0], points)
        assert u.shape == ((3 * points) ** 2, 2)
        b, mirrored = (u > 1 - p) * 1.0, (u < p) * 1.0
        np.testing.assert_allclose(weights @ b, p, rtol=1e-12)
        np.testing.assert_allclose(weights @ (b * mirrored), np.maximum(2 * p - 1, 0), atol=1e-12)
        np.testing.assert_allclose(weights @ (b[:, 0] * mirrored[:, 1]), p[0] * p[1], rtol=1e-12)
    np.testing.assert_allclose(weights @ (u[:, 0] ** 2 * u[:, 1]), 1 / 6, rtol=1e-12)


def test_course_panels_draw_every_name_and_label_the_row(course):
    """A group an axis, in its order; a legend with the title above; where a name is drawn last."""
    figure, axes = course.plt.subplots(1, 3)
    groups, drawn = {"one": ("a", "b"), "two": ("a", "c"), "three": ("d",)}, []

    def draw(axis, name):
        drawn.append((axis, name))
        axis.plot([0, 1], label=name)

    place = course.panels(axes, groups, draw, "x of all", "y of all")
    assert drawn == [(axes[0], "a"), (axes[0], "b"), (axes[1], "a"), (axes[1], "c"), (axes[2], "d")]
    assert place == {"a": axes[1], "b": axes[0], "c": axes[1], "d": axes[2]}
    for axis, (title, names) in zip(axes, groups.items()):
        legend = axis.get_legend()
        assert legend.get_title().get_text() == title
        assert tuple(text.get_text() for text in legend.get_texts()) == names
        figure.canvas.draw()
        assert legend.get_window_extent().y0 >= axis.get_window_extent().y1
    assert [axis.get_xlabel() for axis in axes] == ["", "x of all", ""]
    assert [axis.get_ylabel() for axis in axes] == ["y of all", "", ""]
    course.plt.close(figure)
