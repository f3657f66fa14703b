"""What a program asks of its own process: an output that stops no run, and a limit of memory."""

import contextlib
import io
import os
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None


class Unbroken(io.FileIO):
    """A standard output that never stops a run: after `| head`, or on a full disk, it is silent."""

    def write(self, content):
        try:
            return super().write(content)
        except OSError:
            return len(content)


def take_output():
    """Have an output that says every line at once, and anything: a ? where a letter is missing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not a file, as in pytest
            stream.flush()
            buffer = io.BufferedWriter(Unbroken(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(buffer, stream.encoding, "replace", line_buffering=True)
            setattr(sys, name, text)


def limit_memory():
    """Have an error where more memory is asked for than there is, not an end without a word."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limits = [x for x in (soft, hard, there) if x != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
