"""notebooks/grade.py: right answers get their points, and no trick gets any.

Each student of a small course hands in one notebook; all are graded in one run.
"""

import csv
import importlib.util
import json
import sys

import nbformat
import proofs
import pytest

NOTEBOOKS = proofs.METHODS.parent / "notebooks"


def load_grade():
    sys.path.insert(0, str(NOTEBOOKS))  # for release
    try:
        spec = importlib.util.spec_from_file_location("grade", NOTEBOOKS / "grade.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(NOTEBOOKS))
    return module


if sys.platform == "win32":
    pytest.skip("grade.py needs os.fork", allow_module_level=True)
grade = load_grade()

SETUP = """import sys
sys.path.insert(0, "..")
import course
import numpy as np
from course import exercise
KEY = "public"
rng = np.random.default_rng(0)
course.secret = lambda x: x**2"""
SQUARE = "def square(x):\n    ### BEGIN SOLUTION\n    return x**2\n    ### END SOLUTION"
CHECK_SQUARE = """with exercise("9.1 square"):
    X = np.arange(1.0, 5.0)
    wanted = X**2
    course.assert_same(square(X), wanted)
    ### BEGIN HIDDEN TESTS
    assert square(-3.0) == 9
    course.secret = lambda x: x  # a check may take something away while it calls an answer
    assert square(-4.0) == 16
    ### END HIDDEN TESTS"""
MEAN = "def mean(f, n, rng):\n    ### BEGIN SOLUTION\n    return f(rng.random(n)).mean()\n    ### END SOLUTION"  # noqa: E501
CHECK_MEAN = """calls = []
with exercise("9.2 mean"):
    f = lambda u: calls.append(len(u)) or u
    values = np.array([mean(f, 100, rng) for _ in range(30)])
    assert sum(calls) == 3000, "100 evaluations a mean"
    assert abs(values.mean() - 0.5) < 0.05
    assert values.std() > 0.01, "the noise is always the same"
    ### BEGIN HIDDEN TESTS
    assert mean(lambda u: 0 * u + 7, 10, rng) == 7
    ### END HIDDEN TESTS"""

SLOPE = """def slope(f, x):
    ### BEGIN SOLUTION
    import autograd
    assert f(x) == x**3
    return autograd.grad(f)(x)
    ### END SOLUTION"""
CHECK_SLOPE = """import autograd
cubes = []
def cube(x):
    cubes.append(type(x).__name__)
    return x**3
with exercise("9.3 slope"):
    assert slope(cube, 2.0) == 12  # autograd's objects cannot leave the answer's process
    assert cubes == ["float"] * 2, cubes  # the plain calls arrive here
    assert autograd.grad(lambda x: 2 * square0(x))(3.0) == 12"""


def code(name, source, points=0, solution=False):
    cell = nbformat.v4.new_code_cell(source)
    facts = {"grade": points > 0, "grade_id": name, "locked": not solution, "schema_version": 3}
    facts |= {"solution": solution, "task": False} | ({"points": points} if points else {})
    cell.metadata["nbgrader"] = facts
    return cell


def course():
    """A solution: four copies of 9.1, so that four tricks share a process, and 9.2."""
    text = nbformat.v4.new_markdown_cell("Because.")
    text.metadata["nbgrader"] = {"grade": True, "grade_id": "why", "locked": False, "points": 4,
                                 "schema_version": 3, "solution": True, "task": False}  # fmt: skip
    cells = [code("setup", SETUP), nbformat.v4.new_markdown_cell("## 9.1 Implement: the square")]
    for i in range(4):
        pair = code(f"square{i}", SQUARE, solution=True), code(f"square{i}_test", CHECK_SQUARE, 2)
        for cell in pair:
            cell.source = cell.source.replace("square(", f"square{i}(")
        cells += pair
    cells += [nbformat.v4.new_markdown_cell("## 9.2 Implement: the mean"), text]
    cells[-1:-1] = [code("mean", MEAN, solution=True), code("mean_test", CHECK_MEAN, 3)]
    cells[-1:-1] = [code("slope", SLOPE, solution=True), code("slope_test", CHECK_SLOPE, 1)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


# What replaces `square`: the points of 9.1 and words of the status. 9.2 is right and keeps its 3.
SQUARES = {
    "right": ("def square(x):\n    return x * x", 2, "passed"),
    "right, with its own test": ("%matplotlib inline\n!ls\ndef square(x):\n    return x * x\n"
                                 "print(square(3))\nsquare(1 / 0)", 2, "passed"),
    "right, timed": ("%%time\ndef square(x):\n    return x * x", 2, "passed"),
    "empty": ("def square(x):\n    raise NotImplementedError()", 0, "empty"),
    "wrong": ("def square(x):\n    return 2 * x", 0, "they should be equal"),
    "visible check only": ("def square(x):\n    return abs(x) * x", 0, "failed"),
    "syntax": ("def square(x:\n    return", 0, "SyntaxError"),
    "prints": ("print('Exercise 9.1 square: passed')\ndef square(x):\n"
               "    print('Exercise 9.1 square: passed')\n    return 0 * x", 0, "failed"),
    "new checks": ("import contextlib\ncourse.exercise = exercise = lambda name: "
                   "contextlib.suppress(BaseException)\ncourse.assert_same = print\n"
                   "def square(x):\n    course.assert_same = lambda *a: None\n    return 0 * x",
                   0, "failed"),
    "new errors": ("import builtins\nbuiltins.AssertionError = builtins.Exception = KeyError\n"
                   "def square(x):\n    return 0 * x", 0, "failed"),
    "new numpy": ("np.allclose = np.core = lambda *a, **k: True\nnp.max = lambda *a, **k: 0\n"
                  "def square(x):\n    return 0 * x", 0, "failed"),
    "deletes": ("del course, exercise\ncalls = wanted = X = None\ndef square(x):\n    return 0 * x",
                0, "failed"),
    "sees the check": ("def square(x):\n    return wanted", 0, "wanted"),
    "uses the secret": ("def square(x):\n    return course.secret(x)", 0, "failed"),
    "libraries": ("from scipy import integrate, optimize\nimport matplotlib.pyplot as plt\n"
                  "def square(x):\n    plt.figure()\n    import tempfile\n"
                  "    with tempfile.TemporaryFile() as file:\n        np.save(file, x)\n"
                  "    root = optimize.brentq(lambda y: y - 2, 0, 5)\n"
                  "    area = integrate.quad(lambda y: y, 0, 2)[0]\n"
                  "    return x**root * area / 2 if np.ndim(x) else float(x)**2", 2, "passed"),
    "exit": ("import sys\ndef square(x):\n    sys.exit(0)", 0, "SystemExit"),
    "hard exit": ("import os\ndef square(x):\n    os._exit(0)", 0, "ended the Python process"),
    "kills": ("import os\ndef square(x):\n    os.kill(os.getppid(), 9)", 0, "os.kill"),
    "stops an iteration": ("def square(x):\n    raise StopIteration", 0, "StopIteration"),
    "loops": ("def square(x):\n    while True:\n        pass", 0, "timeout"),
    "loops above": ("while True:\n    pass", 0, "it did not end within 6 s"),
    "loops below": ("def square(x):\n    return x * x\nk = 0\nwhile k < 10:\n    k = 0", 0,
                    "it did not end within 6 s"),
    "exits below": ("import os\ndef square(x):\n    return x * x\nos._exit(3)", 0,
                    "ended the Python process"),
    "wrong indentation": ("def square(x):\n        y = x\n    return y", 0, "IndentationError"),
    "not implemented elsewhere": ("def square(x):\n    raise NotImplementedError('VJP of it')", 0,
                                  "NotImplementedError: VJP of it"),
    "fills a list": ("powers = []\npowers.append(2)\ndef square(x):\n    return x**powers[0]", 2,
                     "passed"),
    "opens a folder": ("import os\ndef square(x):\n"
                       "    return os.open(os.path.dirname({solution!r}), os.O_RDONLY)", 0,
                       "may not open"),
    "starts a program from within": (
        "from multiprocessing import util\ndef square(x):\n"
        "    return util.spawnv_passfds(b'/bin/true', [b'true'], [])", 0, "may not start"),
    "takes all memory": ("def square(x):\n    return np.ones(10**11)", 0, "Memory"),
    "equals": ("class Yes:\n    __array__ = lambda *a, **k: np.zeros(4)\n"
               "    __eq__ = lambda a, b: True\ndef square(x):\n    return Yes()",
               0, "your function returned a Yes"),
    "equal arrays": ("class Yes(np.ndarray):\n    __eq__ = __sub__ = lambda a, b: a * 0 == 0\n"
                     "    __array_ufunc__ = lambda *a, **k: np.zeros(4)\n"
                     "def square(x):\n    return np.zeros_like(x).view(Yes)", 0, "failed"),
    "reads the solution": ("def square(x):\n    return len(open({solution!r}).read()) + 0 * x",
                           0, "may not open"),
    "starts a program": ("import subprocess\ndef square(x):\n"
                         "    return subprocess.run(['cat', {solution!r}])", 0, "may not use"),
    "changes the tools": ("def square(x):\n    open('../course.py', 'w').write('')\n"
                          "    open({solution!r}, 'w').write('')", 0, "may not open"),
    "writes points": ("import os\ndef square(x):\n    for i in range(3, 60):\n        try:\n"
                      "            os.write(i, b'{\"id\": \"square_test\", \"status\": \"\"}\\n')\n"
                      "        except OSError:\n            pass\n    return 0 * x", 0, "error"),
}  # fmt: skip

NAMES = [*SQUARES]  # four in a notebook
GROUPS = {f"student {i // 4}": NAMES[i : i + 4] for i in range(0, len(NAMES), 4)}


def edited(name):
    """Other notebooks: (text of the file, points of 9.1, points of 9.2, words of the status)."""
    notebook = course()
    square = notebook.cells[2]
    square.source = "def square0(x):\n    return x * x"
    points, status = (2, 3), "passed"
    if name == "edited check":
        square.source = "def square0(x):\n    return 0 * x"
        notebook.cells[3].source = "print('Exercise 9.1 square: passed')"
        notebook.cells[3].metadata["nbgrader"]["points"] = 100
        points, status = (0, 3), "failed"
    elif name == "no answer cell":
        del notebook.cells[2]
        points, status = (0, 3), "missing"
    elif name == "no cells":
        notebook.cells = []
        points, status = (0, 0), "missing"
    elif name == "answer twice":
        notebook.cells.append(code("square0", "def square0(x):\n    return 0 * x", solution=True))
        points, status = (0, 3), "stands 2 times"
    elif name == "kernel":
        notebook.metadata["kernelspec"] = {"name": "julia-1.9", "display_name": "Julia"}
    elif name == "helper":
        square.source = "def square0(x):\n    return helper(x)"
        source = "TWO = 2\ndef helper(x):\n    return x**TWO\nfor i in range(10**12): pass"
        notebook.cells.insert(2, nbformat.v4.new_code_cell(source))
    elif name == "helpers below":  # between the answer and its check; a lambda, and below zero
        square.source = "def square0(x):\n    return -helper(x) / FACTOR[0]"
        source = "helper = lambda x: x * x\nFACTOR: list = [-1]\nFACTOR[0] = -1"
        notebook.cells.insert(3, nbformat.v4.new_code_cell(source))
    elif name == "own derivative":
        square.source = ("from autograd.extend import defvjp, primitive\n@primitive\n"
                         "def square0(x):\n    return x * x\n"
                         "defvjp(square0, lambda ans, x: lambda g: 2 * g * x)")  # fmt: skip
    elif name == "another key":
        notebook.cells[0].source = SETUP.replace("public", "SPRING-27")
        status = "passed; this notebook is of the key SPRING-27"
    elif name == "text below":
        why = next(k for k, c in enumerate(notebook.cells) if c.source == "Because.")
        notebook.cells[why].source = "YOUR ANSWER HERE"
        notebook.cells.insert(why + 1, nbformat.v4.new_markdown_cell("Because it is so."))
    elif name == "a cell without a type":
        raw = json.loads(nbformat.writes(notebook))
        del raw["cells"][0]["cell_type"]
        return json.dumps(raw), (0, 0), "no notebook"
    elif name == "nbformat 3":
        old = nbformat.v3.nbbase
        cells = [
            old.new_code_cell(input=c.source, metadata=c.metadata) for c in notebook.cells[:-1]
        ]
        sheet = old.new_worksheet(cells=cells)
        notebook = old.new_notebook(worksheets=[sheet])
        return json.dumps(notebook), points, status
    elif name == "broken":
        return nbformat.writes(notebook)[:1500], (0, 0), "no notebook"
    elif name == "a list":
        return "[]", (0, 0), "no notebook"
    return nbformat.writes(notebook), points, status


EDITS = ["edited check", "no answer cell", "no cells", "answer twice", "kernel", "helper",
         "nbformat 3", "broken", "a list", "helpers below", "own derivative", "another key",
         "text below", "a cell without a type"]  # fmt: skip


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """{(student, exercise): row of the CSV}."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "solutions").mkdir()
    solution = desk / "solutions" / "09_small.ipynb"
    nbformat.write(course(), solution)
    before = solution.read_bytes()
    for student, names in GROUPS.items():
        notebook = course()
        for i, name in enumerate(names):
            source = SQUARES[name][0].replace("{solution!r}", repr(str(solution)))
            source = source.replace("square(", f"square{i}(").replace("_test", f"{i}_test")
            notebook.cells[2 + 2 * i].source = source
        folder = desk / "submitted" / student / "week 1"
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / "09_small.ipynb")
    for name in EDITS:
        (desk / "submitted" / name).mkdir()
        path = desk / "submitted" / name / "09_small.ipynb"
        path.write_text(edited(name)[0], encoding="utf-8")
    (desk / "submitted" / "nothing").mkdir()
    (desk / "submitted" / "nothing" / "09_small.ipynb").symlink_to(solution)
    flags = ["--solutions", str(desk / "solutions"), "--timeout", "6"]
    grade.main([str(desk), *flags, "--out", str(desk / "points.csv")])
    assert solution.read_bytes() == before
    with open(desk / "points.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * (len(GROUPS) + len(EDITS) + 1)
    return {(row["student"], row["exercise"]): row for row in rows}


@pytest.mark.parametrize("name", SQUARES)
def test_an_answer_gets_its_points_and_a_trick_none(points, name):
    _, expected, words = SQUARES[name]
    student = next(student for student, names in GROUPS.items() if name in names)
    i = GROUPS[student].index(name)
    row, other = points[student, f"square{i}_test"], points[student, "mean_test"]
    assert (row["points"], row["maximum"]) == (str(expected), "2"), row["status"]
    assert words in row["status"]
    assert (other["points"], other["status"]) == ("3", "passed")


@pytest.mark.parametrize("name", EDITS)
def test_other_notebooks_get_the_points_of_their_answers(points, name):
    _, expected, words = edited(name)
    rows = points[name, "square0_test"], points[name, "mean_test"]
    assert tuple(int(row["points"]) for row in rows) == expected, rows
    assert words in rows[0]["status"]


def test_functions_and_derivatives_pass_between_the_processes(points):
    """An answer differentiates a function of the check; a check differentiates an answer."""
    assert points["student 0", "slope_test"]["status"] == "passed"
    assert points["kernel", "slope_test"]["points"] == "1"
    assert points["own derivative", "slope_test"]["points"] == "1"


def test_derivations_wait_for_a_human(points):
    row = points["student 1", "why"]
    assert (row["kind"], row["points"], row["maximum"]) == ("by hand", "", "4")
    assert row["status"] == "waits for a human"
    assert row["title"] == "9.2 Implement: the mean"
    assert points["nbformat 3", "why"]["points"] == "0"  # it has no such cell
    assert points["text below", "why"]["status"] == "waits for a human"
    assert {points["nothing", x]["status"] for x in ("square0_test", "why")} == {"missing"}


def test_grade_refuses_bad_input_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "00_x.ipynb").write_text("")
    (tmp_path / "old.csv").write_text("precious")
    here = str(tmp_path)
    broken = {  # a cell, and what is done to it
        "points": (3, lambda cell: cell.metadata["nbgrader"].pop("points")),
        "syntax": (2, lambda cell: cell.update(source="def x(:")),
        "twice": (2, lambda cell: cell.metadata["nbgrader"].update(grade_id="mean")),
    }
    for name, (index, harm) in broken.items():
        notebook = course()
        harm(notebook.cells[index])
        (tmp_path / name).mkdir()
        nbformat.write(notebook, tmp_path / name / "09_small.ipynb")
    (tmp_path / "loose" / "bob").mkdir(parents=True)
    for path in (tmp_path / "loose" / "09_small.ipynb", tmp_path / "loose" / "bob" / "x.ipynb"):
        nbformat.write(course(), path)
    for flags, words in (
        (["no such"], "FOLDER: no such is no folder"),
        ([str(tmp_path / "empty")], "has no STUDENT/NAME.ipynb"),
        ([here, "--out", str(tmp_path / "old.csv")], "exists; name a new file"),
        ([here, "--out", str(tmp_path / "no" / "x.csv")], "is no folder"),
        ([here, "--out", str(tmp_path / "ann"), "--force"], "has to be a file to write to"),
        ([here, "--out", " "], "--out: ' ' has to be a file"),
        ([here, "--solutions", str(tmp_path / "points")], "cell square0_test has no points"),
        ([here, "--solutions", str(tmp_path / "syntax")], "cell square0: invalid syntax"),
        ([here, "--solutions", str(tmp_path / "twice")], "two cells have the grade_id mean"),
        (
            [str(tmp_path / "loose"), "--solutions", str(tmp_path / "loose")],
            "09_small.ipynb lies beside the students",
        ),
        ([here, "--key", "a b"], "--key: 'a b'"),
        ([here, "--timeout", "0"], "--timeout"),
        ([here, "--timeout", "nan"], "--timeout"),
        ([here, "--solutions", str(tmp_path / "no")], "--solutions"),
        ([here, "--solutions", str(tmp_path / "empty")], "has no notebooks"),
        ([here, "--solutions", str(tmp_path / "ann")], "00_x.ipynb: this is no notebook"),
    ):
        with pytest.raises(SystemExit) as end:
            grade.main(flags)
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert (tmp_path / "old.csv").read_text() == "precious"


def test_what_is_handed_in_twice_is_named_and_a_stopped_run_keeps_its_rows(
    tmp_path, monkeypatch, capsys
):
    """A chapter of the same name as its exercises is not taken for them."""
    (tmp_path / "solutions").mkdir()
    nbformat.write(course(), tmp_path / "solutions" / "09_small.ipynb")
    for folder in ("a/one", "a/two", "b/exercises"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        nbformat.write(course(), tmp_path / "in" / folder / "09_small.ipynb")
    chapter = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Nine")])
    nbformat.write(chapter, tmp_path / "in" / "b" / "09_small.ipynb")

    def graded(path, solution, *rest):
        if path.parent.name == "exercises":
            raise KeyboardInterrupt
        raise RuntimeError("a fault of ours")

    flags = ["--solutions", str(tmp_path / "solutions"), "--out", str(tmp_path / "out.csv")]
    monkeypatch.setattr(grade, "grade", graded)
    with pytest.raises(SystemExit) as end:
        grade.main([str(tmp_path / "in"), *flags])
    assert end.value.code == 130
    assert "the rows so far are in" in capsys.readouterr().err
    text = (tmp_path / "out.csv.partial").read_text(encoding="utf-8")
    assert (
        text.count("error: handed in more than once: one/09_small.ipynb, two/09_small.ipynb") == 7
    )
    (tmp_path / "in" / "b" / "exercises").rename(tmp_path / "in" / "b" / "mine")
    grade.main([str(tmp_path / "in"), *flags])
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert text.count("error: RuntimeError: a fault of ours") == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["06_dreg.ipynb"])  # one check differentiates an answer
def test_solutions_get_all_points(name, tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / name).write_bytes((NOTEBOOKS / "solutions" / name).read_bytes())
    grade.main([str(tmp_path), "--key", "A-7", "--out", str(tmp_path / "points.csv")])
    with open(tmp_path / "points.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "check"]
    assert len(rows) >= 4
    assert [row["points"] for row in rows] == [row["maximum"] for row in rows]


def test_a_status_is_one_line_and_no_formula():
    assert grade.one_line("=cmd()\nx\x00") == "'=cmd() x"
