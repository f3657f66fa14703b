"""For the teacher: the key's tasks, the rubrics, the plans of notebooks/README.md."""

import csv
import re

import nbformat
import proofs
import pytest
from test_grade import grade

release = grade.release
NOTEBOOKS = proofs.METHODS.parent / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
VARIANTS = sorted((NOTEBOOKS / "variants").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def facts(cell):
    return cell.metadata.get("nbgrader", {})


def with_all_variants(path, monkeypatch):
    monkeypatch.setattr(release, "pick", lambda key, name, count: count - 1)
    return release.for_course(read(NOTEBOOKS / "solutions" / path.name), read(path), "A-7")


# ------------------------------------------------------------------------------- what a key chooses


def test_public_has_the_first_task_and_keys_differ():
    assert {release.pick("public", name, 2) for name in ("0.4", "0.5", "4.1", "5.2")} == {0}
    picks = [release.pick(f"KEY-{i}", "0.4", 2) for i in range(400)]
    assert 140 < sum(picks) < 260  # fair: ± 6 standard deviations
    assert picks[:2] != picks[2:4] or picks[4:6] != picks[6:8]
    together = [release.pick(f"KEY-{i}", "0.5", 2) == pick for i, pick in enumerate(picks)]
    assert 140 < sum(together) < 260  # and independent


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem[:2])
def test_variants_replace_whole_exercises(path, monkeypatch):
    """Same numbers, kinds and points of exercises; metadata fit for grading; no answers."""
    own = read(NOTEBOOKS / "solutions" / path.name)
    other = with_all_variants(path, monkeypatch)
    changed = {number for number, _ in release.sections(read(path))} - {""}
    assert changed <= {number for number, _ in release.sections(own)}
    for (number, before), (again, after) in zip(release.sections(own), release.sections(other)):
        assert number == again
        assert (before == after) == (number not in changed)
        points = lambda cells: sum(facts(cell).get("points", 0) for cell in cells)
        assert points(before) == points(after)
        assert before[0].source.partition(":")[0] == after[0].source.partition(":")[0]
    names = [facts(cell)["grade_id"] for cell in other.cells if facts(cell)]
    assert len(names) == len(set(names))
    mine = {facts(cell)["grade_id"] for cell in read(path).cells if facts(cell)}
    assert not mine & {facts(cell).get("grade_id") for cell in own.cells}
    for cell in read(path).cells:
        if facts(cell):
            keys = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
            assert set(facts(cell)) == keys | ({"points"} if facts(cell)["grade"] else set())
    text = nbformat.writes(release.released(other, "A-7"))
    assert "### BEGIN" not in text
    assert 'KEY = \\"A-7\\"' in text


def test_release_writes_the_tasks_of_the_key_and_their_solutions(tmp_path, capsys):
    key = next(f"K{i}" for i in range(99) if release.pick(f"K{i}", "0.4", 2) == 1)
    release.main(["--key", key, "--to", str(tmp_path / "exercises")])
    release.main(["--key", key, "--to", str(tmp_path / "source"), "--with-answers"])
    name = "00_gradients_of_expectations.ipynb"
    for folder in ("exercises", "source"):
        cells = read(tmp_path / folder / name).cells
        (answer,) = (c for c in cells if facts(c).get("grade_id") == "ex00_4_gauss")
        assert ("hermegauss" in answer.source) == (folder == "source")
        assert not any(facts(cell).get("grade_id") == "ex00_4" for cell in cells)
        assert any(f'KEY = "{key}"' in cell.source for cell in cells)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        release.main(["--key", key, "--with-answers"])
    assert "--with-answers: name another folder" in capsys.readouterr().err


def test_variants_are_graded_and_the_answers_of_other_courses_fail(tmp_path, monkeypatch):
    """Ann solved the tasks of the course, Bob left the bug, Cat copied a public solution."""
    wanted = {}
    for path in VARIANTS:
        solution = with_all_variants(path, monkeypatch)
        if not any(facts(c).get("grade") and c.cell_type == "code" for c in read(path).cells):
            continue
        for student in ("ann", "bob", "cat"):
            (tmp_path / student).mkdir(exist_ok=True)
        nbformat.write(solution, tmp_path / "ann" / path.name)
        nbformat.write(read(NOTEBOOKS / "solutions" / path.name), tmp_path / "cat" / path.name)
        bugs = []
        for before, cell in zip(solution.cells, solution.cells[1:]):
            if hunt := cell.metadata.get("bug_hunt"):
                before.source = f"{hunt['mended']} = {hunt['released']}"
                bugs.append(facts(cell)["grade_id"])
        nbformat.write(solution, tmp_path / "bob" / path.name)
        for cell in read(path).cells:
            if facts(cell).get("grade") and cell.cell_type == "code":
                wanted[facts(cell)["grade_id"]] = facts(cell)["grade_id"] in bugs
    assert set(wanted) >= {"ex00_4_gauss_test", "ex00_5_p_test", "ex05_2_laplace_test"}
    grade.main([str(tmp_path), "--key", "A-7", "--out", str(tmp_path / "points.csv")])
    with open(tmp_path / "points.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "check"]
    for row in rows:
        if row["student"] == "ann":
            assert row["points"] == row["maximum"], row
        elif row["exercise"] in wanted:
            bug = wanted[row["exercise"]]
            full = row["student"] == "bob" and not bug
            assert row["points"] == (row["maximum"] if full else "0"), row
            if row["student"] == "bob" and bug:
                assert "biased" in row["status"], row


# ------------------------------------------------------------------------------- rubrics and plans


def test_rubrics_share_out_the_points_of_every_answer_that_a_human_grades():
    text = (NOTEBOOKS / "rubrics.md").read_text(encoding="utf-8")
    rubrics = {}
    for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = block.partition("\n")
        number, name = re.match(r"(\w+\.\d+) .*· `(\w+)`$", heading).groups()
        shares = re.findall(r"^\* ([\d.]+): ", body, re.MULTILINE)
        rubrics[name] = number, sum(map(float, shares))
    chapters = {int(x) for x in re.findall(r"^## Chapter (\d+)", text, re.MULTILINE)}
    assert chapters == {int(path.stem[:2]) for path in SOLUTIONS}
    answers = {}
    for path in [*SOLUTIONS, *VARIANTS]:
        for number, cells in release.sections(read(path)):
            for cell in cells:
                if facts(cell).get("grade") and facts(cell)["solution"]:
                    answers[facts(cell)["grade_id"]] = number, facts(cell)["points"]
    assert rubrics == answers


def test_plans_have_minutes_that_add_up_and_exercises_that_exist():
    text = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    numbers = {n for path in SOLUTIONS for n, _ in release.sections(read(path))}
    for clock in ("| minute | what |", "| minute | lesson | workshop |"):
        table = text[text.index(clock) :].split("\n\n")[0]
        spans = re.findall(r"^\| (\d+)–(\d+) \|", table, re.MULTILINE)
        ends = [int(end) for _, end in spans]
        assert [int(start) for start, _ in spans] == [0, *ends[:-1]]
        assert ends[-1] == 90
    plan = text[text.index("| session | chapter |") :].split("\n\n")[0].splitlines()[2:]
    assert len(plan) == 8
    for row in plan:
        chapter = re.match(r"\| \d\.\d \| ([\d or]+) \|", row)[1].split(" or ")
        named = set(re.findall(r"(?<![\d(])(\d\.\d)\b", row.partition("|")[2].partition("|")[2]))
        assert named <= numbers
        assert {name[0] for name in named} <= set(chapter)
        minutes = [int(x) for x in re.findall(r"\((\d+)\)", row.split("|")[3])]
        assert sum(minutes) == 25 * len(chapter)
        if len(chapter) == 1:  # every exercise has its place, once
            assert named == {n for n in numbers if n.partition(".")[0] == chapter[0]}


def test_index_says_the_minutes_that_the_exercises_say():
    text = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| \[(\d+)\]\(exercises/([\w.]+)\) \|", text)
    minutes = {name: sum(int(n) for n, other in rows if other == name) for _, name in rows}
    assert sorted(minutes) == [path.name for path in SOLUTIONS]
    for name, total in minutes.items():  # two lessons may share a sheet
        first = read(NOTEBOOKS / "exercises" / name).cells[0].source
        assert f"About {total} minutes." in first
