"""nbgrader's configuration for this course; nbgrader reads it where it is started: in this folder.

    cd notebooks
    mkdir -p nbgrader/source/week1
    cp solutions/00_*.ipynb nbgrader/source/week1
    nbgrader generate_assignment week1    # writes nbgrader/release/week1, for the students
    nbgrader autograde week1              # reads nbgrader/submitted/STUDENT/week1

All its files are in notebooks/nbgrader, which git ignores. This folder must not be on PYTHONPATH:
Python 3.10 would start with our site.py in the place of its own. So kernels get it on `sys.path`
when they have started.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
(HERE / "nbgrader").mkdir(exist_ok=True)

c = get_config()  # noqa: F821  nbgrader has it
c.CourseDirectory.course_id = "gradient-estimation"
c.CourseDirectory.root = str(HERE / "nbgrader")

# The kernels that run the notebooks: ours, whatever a student's file names, with course.py in reach
path = f"import sys; sys.path.insert(0, {str(HERE)!r})"
c.ExecutePreprocessor.extra_arguments = [f"--IPKernelApp.exec_lines={path}"]
c.ExecutePreprocessor.kernel_name = "python3"
c.ExecutePreprocessor.timeout = 120  # seconds of one cell
