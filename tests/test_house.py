"""The house: floors without a circle, and methods that can be taken home."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys

import numpy as np
import proofs
import pytest

GRAPH = proofs.imports()
PAPERS = {name for name in GRAPH if "." not in name and name not in ("common", "categorical")}
PAPERS -= {"harness"}
TOOLS = {"compare", "check", "sweep"}
METHODS = sorted(
    path.stem
    for path in proofs.METHODS.glob("*.py")
    if "\ndef gradient_samples" in path.read_text(encoding="utf-8")
)
# Inside harness/, what is below imports nothing from above.
FLOORS = [
    {"streams", "data", "optimizer", "stopping", "process"},
    {"diagnostics", "models", "gaussian", "hierarchy", "lock"},
    {"compiled"}, {"runfolder"}, {"figures"}, {"trainer"}, {"run"}, {"tracking", "toy", "cli"},
]  # fmt: skip


def test_no_circle():
    assert tuple(graphlib.TopologicalSorter(GRAPH).static_order())


def test_papers_and_tools_then_harness_then_common():
    assert GRAPH["common"] == set()
    assert GRAPH["categorical"] == {"common"}
    for name, imported in GRAPH.items():
        if name.startswith("harness"):
            assert imported.isdisjoint(PAPERS), name
        assert imported.isdisjoint(TOOLS), name
    assert {"rebar", "reinforce", "dreg", "rbm"} <= PAPERS


@pytest.mark.parametrize("name", sorted(set().union(*FLOORS)))
def test_floors_of_the_harness(name):
    level = next(k for k, floor in enumerate(FLOORS) if name in floor)
    above = {f"harness.{other}" for floor in FLOORS[level + 1 :] for other in floor}
    assert GRAPH[f"harness.{name}"].isdisjoint(above)


def test_no_import_inside_a_function():
    """But of what takes long to import, or is not always there."""
    late = {"matplotlib", "scipy", "jax", "dask", "cloudpickle", "torch", "tensorboardX", "sklearn"}
    for path in [*proofs.METHODS.glob("*.py"), *proofs.METHODS.glob("harness/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        names = {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom):
                        names = {node.module}
                    else:
                        continue
                    assert {name.partition(".")[0] for name in names} <= late, path.name


LINES = {"common": 380, "categorical": 150, "dreg": 450, "dvae_sharp": 500}


def test_no_file_is_too_long():
    for path in proofs.METHODS.glob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LINES.get(path.stem, 400), path.name


def test_a_mutation_of_common_reaches_the_harness():
    """harness/ is executed from the mutated source: SBN draws by common.draw_noise."""
    right = "noise = [rng.random((2, batch, n), dtype=dtype) for n in units]"
    mutated = proofs.load([("common", right, right.replace("rng.random(", "0 * rng.random("))])
    model = mutated.models.SBN(np.full(4, 0.5), 3, 2)
    assert all(np.all(u < 0.01) for u, _ in model.draw_noise(np.random.default_rng(0), 5))
    model = proofs.load().models.SBN(np.full(4, 0.5), 3, 2)
    assert all(np.any(u > 0.1) for u, _ in model.draw_noise(np.random.default_rng(0), 5))


# What a method that is taken home does there: estimate the gradient of something at hand
AT_HOME = """
import numpy, METHOD
rng, logits = numpy.random.default_rng(0), numpy.array([0.3, -1.0])
u, v = rng.uniform(0.01, 0.99, (2, 5, *SHAPE))
import autograd.numpy as np
g = METHOD.gradient_samples(lambda b: np.sum(b ** 2, axis=tuple(range(1, b.ndim))), LOGITS, u, v)
assert g.shape[0] == 5 and numpy.isfinite(g).all()
"""


GAUSSIAN_AT_HOME = """
import numpy, dreg
import autograd.numpy as np
eps = numpy.random.default_rng(0).standard_normal((5, 3, 2))
g = dreg.gradient_samples(lambda z: -np.sum(z ** 2, axis=-1), np.ones(2), np.zeros(2), eps)
assert g[0].shape == g[1].shape == (5, 2) and numpy.isfinite(g).all()
"""


def taken(name):
    """The source of a method without the imports of harness, and without all from main on.

    harness/gaussian.py stays: it is what dreg.py knows of Gaussians, and needs common.py only.
    """
    source = (proofs.METHODS / f"{name}.py").read_text(encoding="utf-8")
    source = source[: source.index("\ndef main(")]
    tree, lines = ast.parse(source), source.splitlines()
    for node in tree.body:
        of_harness = isinstance(node, ast.ImportFrom) and node.module.startswith("harness")
        if of_harness and node.module != "harness.gaussian":
            for k in range(node.lineno - 1, node.end_lineno):
                lines[k] = ""
    return "\n".join(lines)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_can_be_taken_home(name, tmp_path):
    """Beside common.py, categorical.py and the papers it names it estimates, without harness/.

    But for harness/gaussian.py, which goes with dreg.py.
    """
    for file in ("common", "categorical"):
        shutil.copy(proofs.METHODS / f"{file}.py", tmp_path)
    if name == "dreg":
        (tmp_path / "harness").mkdir()
        shutil.copy(proofs.METHODS / "harness" / "gaussian.py", tmp_path / "harness")
    papers, found = [name], set()
    while papers:
        paper = papers.pop()
        found.add(paper)
        (tmp_path / f"{paper}.py").write_text(taken(paper), encoding="utf-8")
        papers += sorted((GRAPH[paper] & PAPERS) - found - set(papers))
    shape, logits = "(2,)", "logits"
    if name in ("rloo", "vimco", "rodeo"):
        shape = "(3, 2)"
    if name == "gumbel_softmax":
        shape, logits = "(1, 2)", "logits[None]"
    if name == "unordered":
        shape, logits = "(2, 1, 2)", "logits[None]"
    code = AT_HOME.replace("METHOD", name).replace("SHAPE", shape).replace("LOGITS", logits)
    command = [sys.executable, "-c", GAUSSIAN_AT_HOME if name == "dreg" else code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, re.sub(r"(?s).*Traceback", "", done.stderr)


def test_the_top_level_has_nothing_else():
    """What git keeps there; a user's own files beside it are hers."""
    command = ["git", "ls-files"]
    done = subprocess.run(command, cwd=proofs.METHODS.parent, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    entries = {line.partition("/")[0] for line in done.stdout.splitlines()}
    visible = {"README.md", "methods", "notebooks", "data", "tests", "requirements.txt"}
    assert entries == visible | {".ci", ".gitignore", ".ruff.toml"}
