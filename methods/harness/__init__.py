"""What a run needs besides an equation: data, models, optimiser, loop, run folder, figures, flags.

No reader of an equation ever opens these files. One BLAS thread (at batch 24 a second one is
slower) unless OPENBLAS_NUM_THREADS says otherwise: so import this, or common, before numpy.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import contextlib
import ctypes


def _keep_freed_memory():
    """Otherwise glibc maps every large array afresh, page by page; other systems have no mallopt.

    Without it a step of DReG by tests/benchmarks/speed.py takes 1.09 times as long, and the smaller
    steps of the others 1.02 times at most.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**25)


_keep_freed_memory()
