"""The notebooks of the course as files, and their cells run in this process, without a kernel."""

import contextlib
import copy
import importlib.util
import io
import re
import sys
import warnings

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import proofs

NOTEBOOKS = proofs.METHODS.parent / "notebooks"


def load_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load_file(NOTEBOOKS / "release.py")


def read(folder, name):
    return nbformat.read(NOTEBOOKS / folder / name, as_version=4)


def code_cells(notebook):
    """(number of the exercise, "setup", "solution" or "check", cell) of every code cell."""
    number = None
    for cell in notebook.cells:
        title = re.search(r"^## (\w+\.\d+) ", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown":
            number = title[1] if title else number
        else:
            facts = cell.metadata.get("nbgrader", {})
            kind = "solution" if facts.get("solution") else "check" if facts.get("grade") else None
            yield number, kind or "setup", cell


@contextlib.contextmanager
def in_folder(monkeypatch, folder):
    """Where the cells of this folder's notebooks run; sys.path and the figures' look come back."""
    with monkeypatch.context() as patch, plt.rc_context():
        patch.chdir(NOTEBOOKS / folder)
        patch.setattr(sys, "path", sys.path[:])
        yield


def run(*sources, namespace):
    """Run cells one after the other: (what they print, the error that ended them or "")."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what wrong answers do with numbers
        try:
            for source in sources:
                exec(compile(source, "<cell>", "exec"), namespace)
        except Exception as error:
            return printed.getvalue(), f"{type(error).__name__}: {error}"
    return printed.getvalue(), ""


def kept(namespace):
    """A function that puts everything back: names, contents of arrays and lists, random states."""
    names = dict(namespace)
    contents = [(x, copy.deepcopy(x)) for x in names.values() if isinstance(x, (np.ndarray, list))]
    generators = [x for x in names.values() if isinstance(x, np.random.Generator)]
    states = [(x.bit_generator, x.bit_generator.state) for x in generators]

    def put_back():
        namespace.clear()
        namespace.update(names)
        for x, content in contents:
            x[... if isinstance(x, np.ndarray) else slice(None)] = copy.deepcopy(content)
        for generator, state in states:
            generator.state = state

    return put_back


def try_answers(notebook, tries):
    """Run a solution notebook, and in the place of each solution the answers of `tries` first.

    `tries`: (exercise, kind, what it does, source) each. Yields (try, printed, error); a cell of
    the notebook itself that fails is yielded like a try, in the name of the solution.
    """
    namespace, cells = {"__name__": "__main__"}, list(code_cells(notebook))
    for i, (number, kind, cell) in enumerate(cells):
        if kind == "solution":
            last = next(k for k in range(i + 1, len(cells)) if cells[k][1] == "check")
            following = [cell.source for _, _, cell in cells[i + 1 : last + 1]]
            put_back = kept(namespace)
            for one in tries:
                if one[0] == number:
                    hidden = one[1] != "wrong visibly"
                    check = following[-1] if hidden else release.HIDDEN.sub("", following[-1])
                    yield one, *run(one[3], *following[:-1], check, namespace=namespace)
                    put_back()
        yield (number, "solution", kind, cell.source), *run(cell.source, namespace=namespace)
