"""Grade what students hand in: points per exercise, as CSV.

    python notebooks/grade.py submitted --out points.csv
    python notebooks/grade.py submitted --key SPRING-27 --out points.csv

FOLDER has a folder for each student, with notebooks in it at any depth: STUDENT/NAME.ipynb, or
nbgrader's STUDENT/ASSIGNMENT/NAME.ipynb (FOLDER is then `submitted`, or the folder that has it).

Setup, tools and checks, hidden tests included, are those of the solution notebook of the same
name. From the student's notebook come the cells for answers, found by nbgrader's `grade_id`, and
the imports, functions, classes and constants of cells that the student added, in their places.
Nothing else of it is read: no output, no check, no kernel name. A bare expression, such as a print,
is not run, unless it changes what its cell has defined. Other lines outside of functions run again
for each check. A cell that does not come to its end costs only its own points.

The checks run in a process of their own (isolated.py), which never runs a student's code, so no
answer can change the points. It cannot read the solutions either. (An answer that walks through
Python's frames might see the numbers of a check.)

The CSV has a row for each exercise: student, notebook, exercise, title, kind, points, maximum,
status. Kind is "check" or "by hand"; points are empty where a derivation waits for a human. It is
written student by student, to FILE.csv.partial until it is whole.
"""

import argparse
import ast
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import release
from IPython.core.inputtransformer2 import TransformerManager
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
COLUMNS = ["student", "notebook", "exercise", "title", "kind", "points", "maximum", "status"]
EMPTY = "nothing is here yet"
KEY = re.compile(r'^KEY = "([\w.-]+)"', re.MULTILINE)


def facts(cell):
    return cell.metadata.get("nbgrader", {})


def one_line(text, width=300):
    """Text that a spreadsheet shows in one cell and does not take for a formula."""
    line = " ".join("".join(x if x.isprintable() else " " for x in str(text)).split())
    return ("'" + line if line[:1] in "=+-@" else line)[:width]


# -------------------------------------------------------------------------------- the two notebooks


def exercises(solution):
    """Rows of the CSV without a student: exercise, title, kind, maximum; in order."""
    rows, title = [], ""
    for cell in solution.cells:
        if cell.cell_type == "markdown" and not facts(cell):
            titles = re.findall(r"^#+ (\w+\.\d+.*)$", cell.source, re.MULTILINE)
            title = titles[-1] if titles else title
        if facts(cell).get("grade"):
            kind = "by hand" if facts(cell).get("solution") else "check"
            row = {"exercise": facts(cell)["grade_id"], "title": title, "kind": kind}
            rows.append(row | {"maximum": facts(cell)["points"]})
    return rows


def defined(source):
    """The names that an answer of the solution defines: all, and those of values."""
    names, values = [], []
    for statement in ast.parse(source).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            names.append(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            found = [x.id for x in ast.walk(statement) if isinstance(x, ast.Name)
                     and isinstance(x.ctx, ast.Store)]  # fmt: skip
            names += found
            values += [] if isinstance(statement.value, ast.Lambda) else found
    return names, values


def plain_python(source):
    """The code of a cell without magics that time or show something."""
    if re.match(r"\s*%%", source):
        source = source.lstrip().partition("\n")[2]
    try:
        return TransformerManager().transform_cell(source)
    except Exception:  # no Python, as with a wrong indentation: what runs it says so
        return source


def additions(source):
    """The imports, functions, classes and constants of a cell that a student added."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    try:
        body = ast.parse(plain_python(source)).body
        body = [x for x in body if isinstance(x, kinds) or constant(x)]
        return "\n".join(map(ast.unparse, body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def constant(statement):
    """Whether it gives a name to a lambda, or to a number, a string, a list of these, …"""
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
        return False
    if isinstance(statement.value, ast.Lambda):
        return True
    try:
        ast.literal_eval(statement.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def task(solution, submission, key):
    """The cells to run: the teacher's, with the student's answers in their places."""
    known = {facts(cell).get("grade_id"): cell for cell in solution.cells} | {None: None}
    answers, added, before = {}, {}, []
    for cell in submission.cells:
        name = facts(cell).get("grade_id")
        if cell.cell_type != "code":
            continue
        if name is None:
            before.append(additions(cell.source))
        elif name in known:
            added[name], before = [*added.get(name, []), *before], []
            if facts(known[name]).get("solution"):
                answers[name] = cell.source  # the last of several counts
    cells = []
    for cell in solution.cells:
        if cell.cell_type != "code":
            continue
        name, source = facts(cell).get("grade_id", ""), cell.source
        entry = {"id": name, "names": [], "constants": []}
        if facts(cell).get("solution"):
            names, constants = defined(source)
            for text in (*added.get(name, []), plain_python(answers.get(name, ""))):
                cells.append({"kind": "answer", "source": text} | entry)
            cells[-1] |= {"names": names, "constants": constants}
            continue
        source = source.replace(release.KEY, f"KEY = {key!r}")
        kind = "check" if facts(cell).get("grade") else "locked"
        cells += [{"kind": "answer", "source": text} | entry | {"id": ""}
                  for text in added.get(name, [])]  # fmt: skip
        cells.append({"kind": kind, "source": source} | entry)
    if any(before):  # functions below the last answer
        first = next(i for i, cell in enumerate(cells) if cell["kind"] == "answer")
        text = "\n".join(before)
        cells.insert(first, {"kind": "answer", "source": text, "id": "", "names": [],
                             "constants": []})  # fmt: skip
    return cells


# -------------------------------------------------------------------------------------- the grading


def room(folder):
    """A copy of what the checks need, without solutions; returns its folder of notebooks."""
    methods, data = HERE.parent / "methods", HERE.parent / "data"
    shutil.copytree(methods, folder / "methods", ignore=shutil.ignore_patterns("__pycache__"))
    place = folder / "notebooks"
    place.mkdir()
    for file in HERE.glob("*.py"):
        if file.name not in ("grade.py", "release.py", "site.py"):
            shutil.copy(file, place)
    (folder / "data").mkdir()
    if (data / "digits.npz").exists():
        shutil.copy(data / "digits.npz", folder / "data")
    return place


def run_checks(cells, place, seconds):
    """The status of each check by grade_id: "" if it passed."""
    desk = Path(tempfile.mkdtemp(dir=place))  # the only folder that answers may write to
    order = {"seconds": seconds, "work": str(desk), "cells": cells}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    settings = {"MPLBACKEND": "agg", "TMPDIR": str(desk), "MPLCONFIGDIR": str(place)}
    env = {**os.environ, **threads, **settings, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, place / "isolated.py"]
    process = subprocess.Popen(command, cwd=desk, env=env, start_new_session=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)  # fmt: skip
    in_all = 60 + (seconds + 5) * len(cells)
    try:
        output, errors = process.communicate(json.dumps(order).encode(), timeout=in_all)
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it ended early"]
    except subprocess.TimeoutExpired as late:
        output, last = late.output or b"", ["timeout: the notebook took too long"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(desk, ignore_errors=True)
    found = {}
    for line in output.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # no line of isolated.py
            result = json.loads(line)
            found[result["id"]] = str(result["status"])
    checks = [cell["id"] for cell in cells if cell["kind"] == "check"]
    return {name: found.get(name, f"error: {last[0]}") for name in checks}


def grade(path, solution, key, place, seconds):
    """The rows of one notebook that was handed in, without the student."""
    try:
        submission = read(path)
    except ValueError as error:
        rows = exercises(solution)
        return [row | {"points": 0, "status": f"error: {error}"} for row in rows]
    given, below, last = {}, set(), None  # `below`: cells under which the student wrote text
    ours = {cell.source.strip() for cell in solution.cells} | {""}
    for cell in submission.cells:
        name = facts(cell).get("grade_id")
        given.setdefault(name, []).append(cell)
        if name is None and cell.cell_type == "markdown" and cell.source.strip() not in ours:
            below.add(last)
        last = name or last
    keys = [found[1] for cell in submission.cells if (found := KEY.search(cell.source))]
    other = [f"this notebook is of the key {name}" for name in keys[:1] if name != key]
    statuses = run_checks(task(solution, submission, key), place, seconds)
    rows = exercises(solution)
    answer = None  # the grade_id of the last cell for an answer
    answers = {}  # of each check
    for cell in solution.cells:
        answer = facts(cell)["grade_id"] if facts(cell).get("solution") else answer
        answers[facts(cell).get("grade_id")] = answer
    for row in rows:
        name = row["exercise"]
        cells = given.get(answers[name], [])
        notes = ([] if cells else ["missing"]) + other
        if len(cells) > 1:
            notes.append(f"{answers[name]} stands {len(cells)} times: the last one counts")
        if row["kind"] == "by hand":
            text = cells[-1].source.strip() if cells else ""
            written = text not in ("", "YOUR ANSWER HERE") or answers[name] in below
            row["points"] = "" if written else 0
            notes.insert(0, "waits for a human" if written else "empty")
        else:
            status = statuses[name]
            if EMPTY in status:
                status = "empty"
            status = re.sub(r"^failed: Exercise [^:]*: ", "failed: ", status)
            row["points"] = 0 if status else row["maximum"]
            notes.insert(0, status or "passed")
        row["status"] = one_line("; ".join(notes))
    return rows


def read(path):
    """A notebook of any nbformat; a ValueError of one line for what is none."""
    try:
        if path.stat().st_size > 50e6:
            raise ValueError("the file has more than 50 MB")
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:  # what a broken file may lack
            if cell.get("cell_type") not in ("code", "markdown", "raw"):
                raise ValueError("a cell without a type")
            if not isinstance(cell.get("source"), str) or not isinstance(facts(cell), dict):
                raise ValueError("a cell without text")
            if not isinstance(facts(cell).get("grade_id", ""), str):
                raise ValueError("a grade_id that is no text")
        return notebook
    except Exception as error:  # nbformat has many errors for what is no notebook
        reason = one_line(error, 200) or type(error).__name__
        raise ValueError(f"this is no notebook ({reason})") from error


# ---------------------------------------------------------------------------------- submissions


def place_of(folder):
    """The folder that has a folder for each student, in the layout of nbgrader or the plain one."""
    return folder / "submitted" if (folder / "submitted").is_dir() else folder


def handed_in(folder):
    """{student: [paths of notebooks]}."""
    hidden = lambda path: any(part.startswith(".") for part in path.relative_to(folder).parts)
    students = sorted(p for p in folder.iterdir() if p.is_dir() and not hidden(p))
    found = {}
    for student in students:
        mine = lambda path: path.resolve().is_relative_to(student.resolve())  # no link to solutions
        paths = (p for p in student.rglob("*.ipynb") if p.is_file() and not hidden(p) and mine(p))
        found[student.name] = sorted(paths)
    return found


def ids_of(path):
    """The grade_ids of a notebook that was handed in. Raises ValueError for what is none."""
    return {facts(cell).get("grade_id") for cell in read(path).cells} - {None}


def solution_of(path, solutions):
    """The name of the solution for a file: the same name, else the most grade_ids in common."""
    if path.name in solutions:
        return path.name
    known = lambda name: {facts(cell).get("grade_id") for cell in solutions[name].cells}
    with contextlib.suppress(ValueError):
        mine = ids_of(path)
        best = max(solutions, key=lambda name: len(known(name) & mine))
        if known(best) & mine:
            return best
    return None


def with_exercises(paths):
    """Those of several files that have exercises: a chapter has the name of its exercises."""
    found = []
    for path in paths:
        with contextlib.suppress(ValueError):
            found += [path] * bool(ids_of(path))
    return found or paths


def rows_of(folder, student, paths, solutions, wanted, key, place, seconds, bar):
    """All rows of a student: an unknown or broken notebook gives rows with a status."""
    names, rows = {}, []
    row = {"student": one_line(student)}
    for path in paths:
        name = solution_of(path, solutions)
        if name is None:
            status = "error: no solution has this name, or these exercises"
            rows.append(row | {"notebook": one_line(path.name), "status": status})
        names.setdefault(name, []).append(path)
    for name in sorted(wanted):
        found = names.get(name, [])
        found = with_exercises(found) if len(found) > 1 else found
        bar.set_postfix_str(f"{student} {name}"[:60])
        status = "missing"
        if len(found) > 1:
            files = ", ".join(str(path.relative_to(folder / student)) for path in found)
            status = one_line(f"error: handed in more than once: {files}")
        graded = [x | {"points": 0, "status": status} for x in exercises(solutions[name])]
        if len(found) == 1:
            try:
                graded = grade(found[0], solutions[name], key, place, seconds)
            except Exception as error:  # of this notebook; all others are graded
                status = one_line(f"error: {type(error).__name__}: {error}")
                graded = [x | {"status": status} for x in graded]
        rows += [row | {"notebook": name} | x for x in graded]
        bar.update()
    return rows


def check_solution(notebook):
    """Raises ValueError for a solution notebook that cannot be graded by."""
    answer, names = None, set()
    for cell in notebook.cells:
        mine = facts(cell)
        name = mine.get("grade_id")
        if name in names:
            raise ValueError(f"two cells have the grade_id {name}")
        names |= {name} - {None}
        if mine.get("solution"):
            answer = name
            if cell.cell_type == "code":
                try:
                    defined(cell.source)
                except SyntaxError as error:
                    raise ValueError(f"cell {name}: {error}") from error
        if mine.get("grade"):
            if not isinstance(mine.get("points"), (int, float)):
                raise ValueError(f"cell {name} has no points")
            if answer is None:
                raise ValueError(f"cell {name} has no cell for an answer before it")


@contextlib.contextmanager
def written(path):
    """The file `path`, which is there only once it is whole, or else standard output."""
    if path is None:
        yield sys.stdout
        return
    partial = Path(f"{path}.partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        yield file
    os.replace(partial, path)


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = release.Parser(description=__doc__, allow_abbrev=False, formatter_class=layout)
    p.add_argument("folder", metavar="FOLDER", help="with a folder for each student")
    p.add_argument("--key", default="public", help="of the course, as given to release.py")
    p.add_argument(
        "--timeout", type=float, default=120, metavar="SECONDS", help="of one cell (120)"
    )
    p.add_argument("--out", metavar="FILE.csv", help="a new file to write to; else standard output")
    p.add_argument("--solutions", default=str(HERE / "solutions"), metavar="DIR",
                   help="the notebooks with the hidden tests (notebooks/solutions)")  # fmt: skip
    p.add_argument("--force", action="store_true", help="write over an existing --out")
    args = p.parse_args(argv)
    if not hasattr(os, "fork"):
        p.error("this system cannot fork processes; use Linux, macOS or WSL")
    if not re.fullmatch(r"[\w.-]{1,80}", args.key):
        p.error(f"--key: '{args.key}' may have letters, digits, '-', '_' and '.' only, 80 at most")
    if not 0 < args.timeout <= 86400:
        p.error(f"--timeout: {args.timeout:g} has to be above 0 and at most 86400 seconds")
    if not Path(args.folder).is_dir():
        p.error(f"FOLDER: {args.folder} is no folder")
    if not Path(args.solutions).is_dir():
        p.error(f"--solutions: {args.solutions} is no folder")
    if args.out is not None and (not args.out.strip() or Path(args.out).is_dir()):
        p.error(f"--out: '{args.out}' has to be a file to write to")
    if args.out and Path(args.out).exists() and not args.force:
        p.error(f"--out: {args.out} exists; name a new file, or add --force")
    if args.out and not Path(args.out).resolve().parent.is_dir():
        p.error(f"--out: {Path(args.out).resolve().parent} is no folder")
    solutions = {}
    for path in sorted(Path(args.solutions).glob("*.ipynb")):
        try:
            read(path)
            solutions[path.name] = release.of_course(path, args.key)
            check_solution(solutions[path.name])
        except ValueError as error:
            p.error(f"--solutions: {path.name}: {error}")
    if not solutions:
        p.error(f"--solutions: {args.solutions} has no notebooks")
    folder = place_of(Path(args.folder))
    students = handed_in(folder)
    if not any(students.values()):
        p.error(f"FOLDER: {args.folder} has no STUDENT/NAME.ipynb")
    if loose := sorted(path.name for path in folder.glob("*.ipynb")):
        p.error(f"FOLDER: {loose[0]} lies beside the students; put it into a folder of its student")
    wanted = {solution_of(path, solutions) for paths in students.values() for path in paths}
    wanted.discard(None)
    rows = []
    try:
        with written(args.out) as file, tempfile.TemporaryDirectory() as scratch, tqdm(
            total=len(students) * len(wanted), unit="notebook", disable=None
        ) as bar:  # fmt: skip
            table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            table.writeheader()
            place = room(Path(scratch).resolve())
            for student, paths in students.items():
                mine = rows_of(folder, student, paths, solutions, wanted, args.key, place,
                               args.timeout, bar)  # fmt: skip
                table.writerows(mine)
                file.flush()
                rows += mine
    except OSError as error:
        where = args.out or "the standard output"
        p.error(f"--out: cannot write {where}: {error.strerror}")
    except KeyboardInterrupt:
        done = f"; the rows so far are in {args.out}.partial" if args.out and rows else ""
        p.exit(130, f"{p.prog}: stopped{done}\n")
    checks = sum(row.get("kind") == "check" for row in rows)
    still = sum(row.get("points") == "" for row in rows)
    print(f"{len(students)} students: {checks} checks, {still} answers wait for a human",
          file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
