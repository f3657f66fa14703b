"""nbgrader: kernels of its configuration find course.py, without PYTHONPATH; and it grades."""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys

import nbformat
import proofs
import pytest
from nbclient import NotebookClient
from traitlets.config.loader import PyFileConfigLoader

NOTEBOOKS = proofs.METHODS.parent / "notebooks"
CHAPTER = "00_gradients_of_expectations.ipynb"


@pytest.fixture
def desk(tmp_path):
    """A copy of what nbgrader needs of notebooks/, because it writes beside its configuration."""
    for name in ("nbgrader_config.py", "course.py", "site.py", "release.py", "mathml.py"):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        shutil.copy(NOTEBOOKS / name, tmp_path / "notebooks")
    os.symlink(proofs.METHODS, tmp_path / "methods")
    return tmp_path / "notebooks"


def test_a_kernel_of_the_configuration_finds_the_course(desk, tmp_path):
    config = PyFileConfigLoader("nbgrader_config.py", path=str(desk)).load_config()
    assert config.CourseDirectory.root == str(desk / "nbgrader")
    says = "import course, site, os\nprint(course.__file__, site.__file__, os.getenv('PYTHONPATH'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(says)])
    notebook.metadata["kernelspec"] = {"name": "julia-1.9", "display_name": "Julia"}
    facts = config.ExecutePreprocessor
    where = {"metadata": {"path": str(tmp_path)}}
    options = {name: facts[name] for name in ("extra_arguments", "kernel_name", "timeout")}
    NotebookClient(notebook, resources=where, **options).execute()
    found = notebook.cells[0].outputs[0].text.split()
    assert found[0] == str(desk / "course.py")
    assert str(desk) not in found[1]  # Python's own
    assert found[2] == str(os.getenv("PYTHONPATH"))


@pytest.mark.slow
def test_nbgrader_releases_and_grades(desk):
    if importlib.util.find_spec("nbgrader") is None:
        pytest.skip("nbgrader is not installed")
    root = desk / "nbgrader"
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": beside}  # it starts a program of its environment

    def run(*words):
        done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=desk, check=False,
                              capture_output=True, text=True, env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr[-1000:]

    for folder in ("source/week1", "submitted/ann/week1", "submitted/bob/week1"):
        (root / folder).mkdir(parents=True)
    for folder in ("source/week1", "submitted/ann/week1"):
        shutil.copy(NOTEBOOKS / "solutions" / CHAPTER, root / folder)
    run("generate_assignment", "week1")
    released = nbformat.read(root / "release" / "week1" / CHAPTER, as_version=4)
    ours = nbformat.read(NOTEBOOKS / "exercises" / CHAPTER, as_version=4)
    assert [cell.source for cell in released.cells] == [cell.source for cell in ours.cells]
    shutil.copy(root / "release" / "week1" / CHAPTER, root / "submitted" / "bob" / "week1")
    run("autograde", "week1")
    run("export", f"--to={desk / 'grades.csv'}")
    with open(desk / "grades.csv", encoding="utf-8") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    checks = [
        c.metadata.nbgrader for c in ours.cells if c.metadata.get("nbgrader", {}).get("grade")
    ]
    automatic = sum(fact["points"] for fact in checks if not fact["solution"])
    assert scores == {"ann": automatic, "bob": 0}
