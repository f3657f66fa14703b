"""The course: every notebook runs in a fresh kernel, and shows what it showed when committed.

The exercises are what release.py writes; every check of theirs fails until there is an answer,
passes with it, and catches the bug that it is there to catch.
"""

import copy
import importlib.util
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import proofs
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = proofs.METHODS.parent / "notebooks"
CHAPTERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
SOLUTIONS = sorted(path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb"))
SECONDS = 300  # of one cell; a chapter takes up to a minute


def load_module(name):
    spec = importlib.util.spec_from_file_location(name, NOTEBOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load_module("release")


def read(folder, name):
    return nbformat.read(NOTEBOOKS / folder / name, as_version=4)


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


def test_every_chapter_has_its_exercises():
    assert CHAPTERS == SOLUTIONS
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
    assert len(text.split()) <= 1500
    assert sum(1 for c in code for line in c.source.splitlines() if line.strip()) <= 200
    assert path.stat().st_size < 400_000
    assert all(c.execution_count for c in code), "not executed"
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "not in one go"
    assert not any(errors(notebook).values())
    assert sum("image/png" in out.get("data", {}) for c in code for out in c.outputs) >= 3
    for expected in ("**You will learn**", "**You need**", "## The problem", "## Derivation",
                     "## Unbiased", "## Variance", "## What breaks", "on digits", "## Exercises",
                     "## Further reading", f"exercises/{name}"):  # fmt: skip
        assert expected in text, expected


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
    titles = re.findall(r"^## (\d)\.(\d) (\w+(?: the bug)?)", text, re.MULTILINE)
    assert [int(number) for _, number, _ in titles] == list(range(1, len(titles) + 1))
    assert 4 <= len(titles) <= 6
    kinds, needed = {kind for *_, kind in titles}, {"Derive", "Implement", "Find the bug"}
    assert needed <= kinds <= needed | {"Measure"}
    answers = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
    for cell in answers:
        if cell.cell_type == "code":
            assert cell.source.count("### BEGIN SOLUTION") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLUTIONS)
@pytest.mark.parametrize("key", ["public", "A-7"])
def test_solutions_pass_their_checks_and_bugs_do_not(name, key):
    """With the numbers of this course and of another.

    After the check of a bug hunt it is repeated with the bug in the place of the mended code.
    """
    notebook, cells, hunts = read("solutions", name), [], []
    for cell in notebook.cells:
        cell.source = cell.source.replace(release.KEY, f'KEY = "{key}"')
        cells.append(cell)
        if hunt := cell.metadata.get("bug_hunt"):
            mended, bug = hunt["mended"], hunt["released"]
            again = f"kept, {mended} = {mended}, {bug}\n{cell.source}"
            hunts.append(len(cells))
            cells.append(nbformat.v4.new_code_cell(again))
            cells.append(nbformat.v4.new_code_cell(f"{mended} = kept"))
    notebook.cells = cells
    fresh = execute(notebook, "solutions", allow_errors=True)
    assert hunts
    for i, message in errors(fresh).items():
        if i in hunts:  # refused, in the words of the check
            assert re.match(r"AssertionError: Exercise \d\.\d .+: ", message), message
        else:
            assert message == ""
    for i in graded(fresh):
        assert ": passed" in printed(fresh.cells[i])


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLUTIONS)
def test_unsolved_exercises_say_so(name):
    """Every check fails with the name of its exercise and what to do; nothing else fails."""
    fresh = execute(read("exercises", name), "exercises", allow_errors=True)
    messages = errors(fresh)
    checks = graded(fresh)
    assert len(checks) >= 3
    for i, message in messages.items():
        expected = (
            r"AssertionError: Exercise \d\.\d .+: nothing is here yet\." if i in checks else "$"
        )
        assert re.match(expected, message), f"cell {i}: {message}"


# ------------------------------------------------------------------------------ checks and runner


@pytest.fixture
def course():
    before = sys.path[:]
    yield load_module("course")
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
    capsys.readouterr()
    student = desk / "mine" / SOLUTIONS[1]
    answered = student.read_text("utf-8").replace("raise NotImplementedError()", "return 1", 1)
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
