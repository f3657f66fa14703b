"""How a run ends before its time: by a signal, which saves, or on a value that is not finite."""

import contextlib
import math
import signal
import threading
import time

import numpy as np

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
           if hasattr(signal, name)]  # fmt: skip


class Stopped(Exception):
    """The loop ended early: Stopped(exit code, one line that says why and how to go on)."""


def interrupt(number, frame=None):
    """What a signal does: as Ctrl-C, so that a run saves. Its number is in the exception."""
    raise KeyboardInterrupt(int(number))


def heed_signals():
    """Have SIGTERM, SIGHUP and Ctrl-C end a run as Ctrl-C does.

    The program then saves and ends. What comes within ten seconds of a signal changes nothing. What
    comes later does: the program may hang, or a user's code may have caught the first one.
    """
    last = [-math.inf]

    def interrupt_once(number, frame=None):
        if time.monotonic() > last[0] + 10:
            last[0] = time.monotonic()
            interrupt(number)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, interrupt_once)  # nohup has SIGHUP ignored


@contextlib.contextmanager
def uninterrupted():
    """Hold signals back until the block is done, so that no update is left half made.

    Signals come to the main thread only; in another one there is nothing to hold back.
    """
    received, previous = [], {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                previous[number] = signal.signal(number, lambda *call: received.append(call[0]))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        handler = previous[received[0]]
        (handler if callable(handler) else interrupt)(received[0], None)


def quiet():
    """No warnings of numpy while a run diverges: it is stopped where its results are looked at."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


@contextlib.contextmanager
def diverging(where):
    """Quiet; of a FloatingPointError it makes Stopped, with exit code 1 and `where` in its line."""
    try:
        with quiet():
            yield
    except FloatingPointError as error:
        raise Stopped(1, f"{where}; {error}; a smaller --lr may help") from error
