"""Write notebooks/exercises/ from notebooks/solutions/: the same notebooks without the answers.

Cells carry nbgrader's metadata and markers, and what is written is what `nbgrader
generate_assignment` shows a student; nbgrader itself is not needed. In a solution cell the lines
from ### BEGIN SOLUTION to ### END SOLUTION become a stub, hidden tests go, and so do all outputs.

    python notebooks/release.py                          # the public exercises, as they are here
    python notebooks/release.py --key SPRING-27 --to DIR  # for a course of your own
    python notebooks/release.py --key SPRING-27 --to DIR --with-answers  # its solutions

The key decides the numbers in the checks. For some exercises notebooks/variants/ has another task
of the same kind; there the key decides which of them a course gets.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
LINES = re.DOTALL | re.MULTILINE
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n.*?### END SOLUTION", LINES)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS[ \t]*\n.*?### END HIDDEN TESTS\n?", LINES)
MARKERS = ("### BEGIN", "### END")
KEY = 'KEY = "public"'


def sections(notebook):
    """[(number, cells)] in order: "0.4" for the cells from "## 0.4 …" on, "" before the first."""
    found = [("", [])]
    for cell in notebook.cells:
        heading = re.match(r"## (\w+\.\d+) ", cell.source)
        if cell.cell_type == "markdown" and heading:
            found.append((heading[1], []))
        found[-1][1].append(cell)
    return found


def pick(key, name, count):
    """Which of `count` tasks the course `key` gets for the exercise `name`; the first in public."""
    digest = hashlib.sha256(f"{key} {name} task".encode()).digest()
    return 0 if key == "public" else int.from_bytes(digest[:8], "big") % count


def for_course(solution, variants, key):
    """A copy of a solution notebook with the tasks of the course: its own or those of `variants`.

    `variants` is a notebook with other cells for some of the exercises, or None.
    """
    solution, others = nbformat.from_dict(solution), {}
    for number, cells in sections(variants) if variants else []:
        others.setdefault(number, []).append(cells)
    cells = []
    for number, own in sections(solution):
        tasks = [own, *others.get(number, [])] if number else [own]
        cells += tasks[pick(key, number, len(tasks))]
    solution.cells = cells
    return solution


def of_course(path, key):
    """The solution notebook at `path` as `key` wants it; variants are in the folder beside it."""
    other = path.resolve().parent.parent / "variants" / path.name
    variants = nbformat.read(other, 4) if other.exists() and key != "public" else None
    return for_course(nbformat.read(path, 4), variants, key)


def solved(notebook, key):
    """A copy of a solution notebook with the key of the course, for nbgrader's source folder."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace(KEY, _keyed(key))
            cell.outputs, cell.execution_count = [], None
    return notebook


def _keyed(key):
    return f"KEY = {key!r}".replace("'", '"')


def released(notebook, key="public"):
    """A copy of a solution notebook as students get it, with the numbers of the course `key`."""
    notebook = nbformat.from_dict(notebook)
    if key != "public" and not any(KEY in cell.source for cell in notebook.cells):
        raise ValueError(f"no cell has {KEY}, so --key would change nothing")
    for cell in notebook.cells:
        cell.source = cell.source.replace("\r\n", "\n")  # line ends of Windows
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("solution"):
            cell.source = _without_solution(cell)
        cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
        if any(marker in cell.source for marker in MARKERS):
            name = facts.get("grade_id", cell.id)
            raise ValueError(f"cell {name}: a marker has no partner, or is not in a solution cell")
        if cell.cell_type == "code":
            cell.source = cell.source.replace(KEY, _keyed(key))
            cell.outputs, cell.execution_count = [], None
    return notebook


def _without_solution(cell):
    if cell.cell_type == "markdown":
        return "YOUR ANSWER HERE"
    stub = lambda match: "\n".join(match[1] + line for line in STUB.splitlines())
    source, count = SOLUTION.subn(stub, cell.source)
    left = any(marker in source for marker in MARKERS)  # `released` says so
    return source if count or left else STUB


def _unanswered(path, solution):
    """Whether a file is an exercise as this program writes it, with nothing of a student's to lose.

    No cell may be added, and the cells for answers have the stub, and besides only lines that an
    exercise of this key or of no key has.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
        keys = {"public", *re.findall(r'^KEY = "([\w.-]+)"', cells_text(cells), re.MULTILINE)}
        ours = [cell for key in keys for cell in released(of_course(solution, key), key).cells]
    except Exception:  # nbformat has many errors for what is no notebook
        return False
    new, known = {cell.get("id") for cell in ours}, {*cells_text(ours).splitlines()}
    answers = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]

    def empty(cell):
        if cell.cell_type == "markdown":
            return cell.source == "YOUR ANSWER HERE"
        lines = set(cell.source.splitlines())
        return all(line in cell.source for line in STUB.splitlines()) and lines <= known

    others = [cell for cell in cells if not cell.metadata.get("nbgrader")]
    mine = lambda cell: cell.get("id") in new or not set(cell.source.splitlines()) - known
    return bool(answers) and all(map(empty, answers)) and all(map(mine, others))


def cells_text(cells):
    return "\n".join(cell.source for cell in cells)


class Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, without the usage
        line = "".join(x if x.isprintable() else "?" for x in message)
        self.exit(2, f"{self.prog}: error: {line:.600}\n")

    def parse_known_args(self, args=None, namespace=None):  # argparse stumbles over --flag=--
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"{word[:-3]}: '--' is not a value of it")
        return super().parse_known_args(args, namespace)


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = Parser(description=__doc__, allow_abbrev=False, formatter_class=layout)
    p.add_argument("--key", default="public", help="of the course; it decides numbers and tasks")
    p.add_argument("--to", default=str(HERE / "exercises"), help="folder to write to")
    p.add_argument("--with-answers", action="store_true", help="write the solutions, not exercises")
    args = p.parse_args(argv)
    if args.with_answers and Path(args.to).resolve() == HERE / "exercises":
        p.error("--with-answers: name another folder with --to, not the students' exercises")
    if not re.fullmatch(r"[\w.-]{1,80}", args.key):
        p.error(f"--key: '{args.key}' may have letters, digits, '-', '_' and '.' only, 80 at most")
    if not args.to.strip():
        p.error("--to: it is empty; name a folder")
    source, target = HERE / "solutions", Path(args.to).resolve()
    paths = sorted(source.glob("*.ipynb"))
    if not paths:
        p.error(f"{source} has no notebooks: they are what the exercises are made from")
    try:
        if any(_same(source, x) for x in [target, *target.parents]) or target in source.parents:
            p.error(f"--to: {args.to} overlaps {source}, which is what the exercises are made from")
        write(paths, target, args.key, args.with_answers)
    except ValueError as error:
        p.error(str(error))
    except OSError as error:
        p.error(f"--to: cannot write {error.filename or target}: {error.strerror or error}")
    print(f"{len(paths)} notebooks written to {args.to}", file=sys.stderr)


def write(paths, target, key, answers=False):
    """Write the exercises of all solutions, or none if one of them or of the old files is amiss."""
    exercises, make = {}, solved if answers else released
    for path in paths:
        try:
            exercises[path.name] = make(of_course(path, key), key)
        except Exception as error:  # nbformat has many errors for a broken notebook
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"{path.name}: {reason}") from error
    for path in paths:
        name = path.name
        if (target / name).exists() and not _unanswered(target / name, path):
            raise ValueError(f"--to: {target / name} would be lost: it is not an empty exercise")
    target.mkdir(parents=True, exist_ok=True)
    for name, made in exercises.items():
        partial = target / f".{name}.partial"
        try:
            text = nbformat.writes(made) + "\n"
            partial.write_text(text, encoding="utf-8", newline="\n")
            os.replace(partial, target / name)
        finally:
            partial.unlink(missing_ok=True)


def _same(a, b):
    return b.exists() and a.exists() and os.path.samefile(a, b)


if __name__ == "__main__":
    main()
