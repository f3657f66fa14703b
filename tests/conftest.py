"""One BLAS thread, methods/ on sys.path, and what pytest has to know; the tools are proofs.py."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "methods"))

import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--vary-seed", action="store_true", help="draw Monte Carlo tests from a new seed"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", 'slow: a long proof; leave out with -m "not slow"')
    # autograd's sign that a path of the gradient is lost
    config.addinivalue_line("filterwarnings", "error:Output seems independent of input")


@pytest.fixture
def rng(request):
    """A generator with a fixed seed, or with --vary-seed a new one, which is printed."""
    seed = 0
    if request.config.getoption("--vary-seed"):
        seed = int.from_bytes(os.urandom(4), "little")
        print(f"seed {seed}")
    return np.random.default_rng(seed)
