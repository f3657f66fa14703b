"""Write notebooks/exercises/ from notebooks/solutions/: the same notebooks without the answers.

Cells carry nbgrader's metadata and markers, and what is written is what `nbgrader
generate_assignment` shows a student; nbgrader itself is not needed. In a solution cell the lines
from ### BEGIN SOLUTION to ### END SOLUTION become a stub, hidden tests go, and so do all outputs.

    python notebooks/release.py                          # the public exercises, as they are here
    python notebooks/release.py --key SPRING-27 --to DIR  # other numbers, for a course of your own
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
LINES = re.DOTALL | re.MULTILINE
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?### END SOLUTION", LINES)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n?", LINES)
MARKERS = ("### BEGIN", "### END")
KEY = 'KEY = "public"'


def released(notebook, key="public"):
    """A copy of a solution notebook as students get it, with the numbers of the course `key`."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("solution"):
            cell.source = _without_solution(cell)
        cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
        if any(marker in cell.source for marker in MARKERS):
            name = facts.get("grade_id", cell.id)
            raise ValueError(f"cell {name}: a marker has no partner, or is not in a solution cell")
        if cell.cell_type == "code":
            cell.source = cell.source.replace(KEY, f"KEY = {key!r}".replace("'", '"'))
            cell.outputs, cell.execution_count = [], None
    return notebook


def _without_solution(cell):
    if cell.cell_type == "markdown":
        return "YOUR ANSWER HERE"
    stub = lambda match: "\n".join(match[1] + line for line in STUB.splitlines())
    source, count = SOLUTION.subn(stub, cell.source)
    return source if count else STUB


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("--key", default="public", help="of the course; it decides the numbers")
    p.add_argument("--to", default=HERE / "exercises", type=Path, help="folder to write to")
    args = p.parse_args(argv)
    if not re.fullmatch(r"[\w.-]+", args.key):
        p.error(f"--key: '{args.key}' may have letters, digits, '-', '_' and '.' only")
    paths = sorted((HERE / "solutions").glob("*.ipynb"))
    if not paths:
        p.error(f"{HERE / 'solutions'} has no notebooks: they are what the exercises are made from")
    args.to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        try:
            notebook = released(nbformat.read(path, as_version=4), args.key)
        except (ValueError, nbformat.reader.NotJSONError) as error:
            p.error(f"{path.name}: {error}")
        nbformat.write(notebook, args.to / path.name)
    print(f"{len(paths)} notebooks written to {args.to}", file=sys.stderr)


if __name__ == "__main__":
    main()
