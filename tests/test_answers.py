"""The checks of the exercises are tried with answers: wrong ones are refused, right ones pass.

answers/NN_name.py has the tries for notebooks/solutions/NN_name.ipynb, one tuple each:

    ("1.2", "wrong", "includes the sample itself", '''def signal_per_image(f_b):\n    ...''')

exercise, kind, what it does, and the source that takes the place of the whole solution cell. A
"right" answer has to pass the whole check, a "wrong" one to fail it in its own words, and a
"wrong visibly" one to fail already what a student sees of it, without the hidden tests.
"""

import collections
import re

import classroom
import pytest

ANSWERS = classroom.proofs.METHODS.parent / "tests" / "answers"
CHAPTERS = sorted(path.stem for path in (classroom.NOTEBOOKS / "solutions").glob("*.ipynb"))


def answers(chapter):
    return classroom.load_file(ANSWERS / f"{chapter}.py").ANSWERS


def amiss(one, printed, error):
    """What is wrong with the verdict on a try, "" if nothing is."""
    number, kind, what, _ = one
    refused = re.match(rf"AssertionError: Exercise {re.escape(number or '')} .+: ", error)
    if kind.startswith("wrong"):
        right = refused and "nothing is here yet" not in error
    else:
        right = not error and (f"Exercise {number} " in printed or kind == "solution")
    return "" if right else f"{number}, {kind}, {what}: {error or 'passed'}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_checks_tell_right_answers_from_wrong_ones(chapter, monkeypatch):
    with classroom.in_folder(monkeypatch, "solutions"):
        notebook = classroom.read("solutions", f"{chapter}.ipynb")
        tried = list(classroom.try_answers(notebook, answers(chapter)))
    faults = [fault for fault in (amiss(*verdict) for verdict in tried) if fault]
    assert not faults, "\n".join(faults)
    assert len(tried) > len(answers(chapter)), "an answer is to no exercise of this chapter"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_check_is_tried_with_three_wrong_answers_and_two_right_ones(chapter):
    cells = classroom.code_cells(classroom.read("solutions", f"{chapter}.ipynb"))
    exercises = [number for number, kind, _ in cells if kind == "solution"]
    count = collections.Counter()
    for number, kind, _, _ in answers(chapter):
        assert number in exercises
        assert kind in ("right", "wrong", "wrong visibly")
        count[number, kind[:5]] += 1
    for number in exercises:
        assert count[number, "right"] >= 2, number
        assert count[number, "wrong"] >= 3, number
    sources = [source for *_, source in answers(chapter)]
    assert len({*sources}) == len(sources), "an answer is there twice"


def test_a_check_that_passes_everything_would_be_found(monkeypatch):
    """And one that refuses everything: the runner's own test, with a notebook of one exercise."""
    cell = lambda source, **facts: classroom.nbformat.v4.new_code_cell(
        source, metadata={"nbgrader": facts}
    )
    title = classroom.nbformat.v4.new_markdown_cell("## 9.1 Implement: one\n\nReturn 1.")
    tries = [("9.1", "wrong", "two", "def one():\n    return 2"),
             ("9.1", "wrong visibly", "true", "def one():\n    return True"),
             ("9.1", "right", "a float", "def one():\n    return 1.0"),
             ("9.1", "right", "from the state", "def one():\n    return state[0]")]  # fmt: skip
    checks = {
        "assert one() == 1\n    assert one() is not True": [],
        "assert one() == 1\n    ### BEGIN HIDDEN TESTS\n    assert one() is not True\n"
        "    ### END HIDDEN TESTS": ["wrong visibly"],
        "one()": ["wrong", "wrong visibly"],
        "assert type(one()) is int and one() < 2 and one() is not True": ["right"],
        "state[0] += one() - 1\n    assert one() == 1 == state[0] and one() is not True": [],
    }
    for check, expected in checks.items():
        check = f"from course import exercise\nwith exercise('9.1 one'):\n    {check}"
        cells = [title, cell("import sys\nsys.path.insert(0, '..')\nimport course\nstate = [1]"),
                 cell("def one():\n    return 1", solution=True, grade=False),
                 cell(check, solution=False, grade=True)]  # fmt: skip
        with classroom.in_folder(monkeypatch, "solutions"):
            tried = list(
                classroom.try_answers(classroom.nbformat.v4.new_notebook(cells=cells), tries)
            )
        assert [one[1] for one, *rest in tried if amiss(one, *rest)] == expected, check
