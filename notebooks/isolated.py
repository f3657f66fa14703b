"""Runs the checks of one notebook; a student's code runs in forked processes only.

grade.py copies this file into a folder without solutions and starts it there, a fresh process for
each notebook. This process runs the setup, the tools and the checks, all of them the teacher's. It
never runs a line of an answer. Where a check calls an answer, a fork of this process runs the
answer and sends plain data back: numbers, strings, arrays, and lists of these. So an answer can
replace `course.assert_same`, numpy or AssertionError in its own process only, and an object with an
`__eq__` of its own never arrives at a check.

A function that a check passes to an answer is called back here, so that a check may count its
calls. A fork may not start processes, use the network, write outside of the working folder or
open notebooks. Input and output: JSON, see `main`.
"""

import _posixsubprocess
import ast
import builtins
import contextlib
import ctypes  # noqa: F401  before `lock`, which refuses it
import json
import os
import re
import resource
import signal
import socket  # noqa: F401
import subprocess
import sys
import types
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
from autograd import make_vjp
from autograd.extend import Box, defvjp_argnums, primitive

SAFE_ERRORS = ("NotImplementedError", "ValueError", "TypeError", "ZeroDivisionError", "KeyError")
MEMORY = 4 << 30  # bytes that an answer may take
KINDS = "biufcU"  # of arrays: numbers and strings
FUNCTIONS = (types.FunctionType, types.MethodType, np.ufunc)
LARGEST = 1 << 30  # bytes of one result


class NotPlainError(TypeError):
    """A value that is no plain data."""


class OutOfTime(BaseException):  # so that no `except Exception` catches it
    """A cell ran longer than --timeout."""


# ------------------------------------------------------------------------------------- plain data


def pack(value, keep=None):
    """Bytes of plain data. `keep(function)` gives the number under which a function is kept."""
    arrays = []

    def encode(x):
        if x is None or isinstance(x, (bool, str)):
            return str(x) if isinstance(x, str) else x
        if isinstance(x, (int, float)) and not isinstance(x, np.generic):
            return int(x) if isinstance(x, int) else float(x)
        if isinstance(x, (np.ndarray, np.generic)):
            a = np.array(x, order="C", subok=False)
            if a.dtype.kind not in KINDS:
                raise NotPlainError(f"an array of type {a.dtype}")
            arrays.append(a.tobytes())
            scalar = isinstance(x, np.generic)
            return {"array": [a.dtype.str, a.shape, len(arrays[-1]), scalar]}
        if isinstance(x, (list, tuple)):
            return {type(x).__name__ if type(x) in (list, tuple) else "tuple": [*map(encode, x)]}
        if isinstance(x, dict):
            return {"dict": [[encode(k), encode(v)] for k, v in x.items()]}
        if callable(x) and keep:
            return {"function": keep(x)}
        raise NotPlainError(f"a {type(x).__name__}")

    head = json.dumps(encode(value)).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(arrays)


def unpack(message, function=None):
    """The data of `pack`; `function(number)` stands for a function that was kept."""
    size = int.from_bytes(message[:8], "little")
    at = 8 + size

    def decode(x):
        nonlocal at
        if not isinstance(x, dict):
            return x
        ((kind, value),) = x.items()
        if kind == "array":
            dtype, shape, length, scalar = value
            dtype = np.dtype(dtype)
            if dtype.kind not in KINDS:
                raise ValueError("no plain array")
            a = np.ndarray(shape, dtype, bytearray(message[at : at + length]))
            at += length
            return a[()] if scalar else a
        if kind == "dict":
            return {decode(k): decode(v) for k, v in value}
        if kind == "function":
            return function(value)
        return (list if kind == "list" else tuple)(map(decode, value))

    return decode(json.loads(message[8:at]))


# ---------------------------------------------------------------------------- in the forked process


def lock(work):
    """From here on this process cannot harm others, nor read what would give answers away."""
    refused = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
               "os.kill", "os.startfile", "signal.pthread_kill", "socket.", "ctypes.",
               "gc.get_", "pty.", "shutil.", "webbrowser.", "sqlite3.", "syslog.")  # fmt: skip
    changes = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
               "os.chmod", "os.chown", "os.truncate", "os.utime")  # fmt: skip
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    realpath, inside = os.path.realpath, os.path.join(os.path.realpath(work), "")

    def hook(event, args):
        if event.startswith(refused):
            raise PermissionError(f"an answer may not use {event}")
        if event == "open" and isinstance(args[0], (str, bytes)):
            path = realpath(os.fsdecode(args[0]))
            if os.path.join(path, "").startswith(inside) or path == os.devnull:
                return
            if (
                args[2] & writing
                or path.endswith(".ipynb")
                or os.path.join(path, "").startswith("/proc/")
                or os.path.isdir(path)  # it would open what lies below, by a name alone
            ):
                raise PermissionError(f"an answer may not open {path}")
        elif event == "import" and args[0] == "_posixsubprocess":
            raise PermissionError("an answer may not start processes")
        elif event.startswith(changes):
            for path in args:
                if isinstance(path, (str, bytes)) and not realpath(os.fsdecode(path)).startswith(
                    inside
                ):
                    raise PermissionError(f"an answer may not change {path}")

    def refuse(*args):
        raise PermissionError("an answer may not start processes")

    _posixsubprocess.fork_exec = subprocess._fork_exec = refuse  # it has no audit event
    sys.addaudithook(hook)


def run_answers(cells, names):
    """Run a student's cells in a namespace of its own; returns it and {name: error of its cell}.

    Bare expressions (a print, a plot) are left out: they would run again for every fork. But those
    that change what the cell defines, a method of it or autograd's defvjp and defjvp, are run.
    """
    errors = {}
    for source, defines in cells:
        try:
            before = dict(names)
            for statement in ast.parse(source).body:
                if not isinstance(statement, ast.Expr) or changes(statement.value, names, before):
                    exec(compile(ast.Module([statement], []), "answer", "exec"), names)
        except NotImplementedError as error:
            if error.args:  # not that of a cell without an answer
                errors |= dict.fromkeys(defines, f"{type(error).__name__}: {error}")
        except BaseException as error:
            errors |= dict.fromkeys(defines, f"{type(error).__name__}: {error}")
    return names, errors


def changes(expression, names, before):
    """Whether an expression calls defvjp, defjvp, or a method of what this cell has defined."""
    if not isinstance(expression, ast.Call):
        return False
    name = expression.func
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        name = name.value.id
        return name in names and names[name] is not before.get(name) and not callable(names[name])
    return isinstance(name, ast.Name) and re.fullmatch(r"def[jv][vj]?p\w*", name.id) is not None


def serve(connection, grader, first, number):
    """The life of a fork: run the answers, then calls until the other end closes."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.close(grader.results)
    resource.setrlimit(resource.RLIMIT_CPU, (int(grader.seconds) + 5,) * 2)
    with contextlib.suppress(OSError, ValueError):  # not every system has both
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    original = grader.visible()
    grader.forked, grader.connection, grader.again = True, connection, False
    values = list(original.values()) + ([*first["args"]] if first else [])
    generators = {id(x): x for x in values if isinstance(x, np.random.Generator)}
    for x in generators.values():  # the answer's noise is not that of the check
        x.bit_generator.state = x.bit_generator.jumped(number).state
    lock(grader.work)
    grader.local, errors = run_answers(grader.answers, original)
    kept = []
    keep = lambda f: kept.append(f) or len(kept) - 1
    while True:
        request = first or unpack(connection.recv_bytes(), lambda i: Callback(grader, None, i))
        first = None
        try:
            result = call(grader, request, kept, errors)
            reply = pack(["result", result], keep)
        except NotPlainError as error:
            reply = pack(["error", "TypeError", f"your function returned {error}"])
        except BaseException as error:
            reply = pack(["error", type(error).__name__, str(error)[:1000]])
        connection.send_bytes(pack(["again", ""]) if grader.again else reply)
        grader.again = False


def call(grader, request, kept, errors):
    """What a request asks for: a value, what a function returns, or a product with its slope."""
    name = request["name"]
    if name is None:  # only asked whether it lives
        return None
    if isinstance(name, int):
        value = kept[name]
    elif isinstance(grader.local.get(name), Answer) or name not in grader.local:
        why = f"; your cell ended with {errors[name]}" if name in errors else ""
        raise NameError(f"{name} is not defined{why}")
    else:
        value = grader.local[name]
    if request.get("constant"):
        return value
    args, kwargs = request["args"], request["kwargs"]
    if "argnum" not in request:
        return value(*args, **kwargs)
    i = request["argnum"]
    at = lambda x: value(*args[:i], x, *args[i + 1 :], **kwargs)
    return make_vjp(at)(args[i])[0](request["g"])


# --------------------------------------------------------------------------- in the trusted process


class Answer:
    """Stands for a function of the student's in the checks; a call runs in a fork."""

    def __init__(self, grader, name, fork=None):
        self.grader, self.name, self.fork = grader, name, fork
        self.__name__ = str(name)

    def __call__(self, *args, **kwargs):
        if self.grader.forked:  # a check's function, running in the fork
            return self.grader.local[self.name](*args, **kwargs)
        if any(isinstance(x, Box) for x in args):
            return _traced(self, kwargs, *args)
        return self.grader.ask(self, args, kwargs)


@primitive
def _traced(answer, kwargs, *args):
    return answer.grader.ask(answer, args, kwargs)


def _traced_vjp(argnums, ans, args, _):
    answer, kwargs, *rest = args
    ask = lambda i, g: answer.grader.ask(answer, rest, kwargs, argnum=i - 2, g=g)
    return lambda g: [ask(i, g) for i in argnums]


defvjp_argnums(_traced, _traced_vjp)


class Grader:
    """The namespace of the checks, and the forks that run the answers."""

    def __init__(self, work, seconds, results):
        self.work, self.seconds, self.results = work, seconds, results
        self.namespace = {"__name__": "__main__"}
        self.before = set()  # names that were there when the cell began
        self.need_objects = set()  # answers that call functions with more than plain data
        self.home = str(Path(work).parent.parent)  # our modules are below it
        self.answers, self.forks, self.server, self.server_state = [], {}, None, 0
        self.busy = self.forked = False
        self.count = 0

    # ---- forks

    def visible(self):
        """What answers see of the namespace: nothing that the running check has added."""
        return {name: x for name, x in self.namespace.items() if name in self.before}

    def state(self):
        """Changes when a check takes away or replaces a function that answers could see."""
        ours = [vars(m) for m in list(sys.modules.values())
                if str(getattr(m, "__file__", "")).startswith(self.home)]  # fmt: skip
        mark = lambda x: id(x) if x is None or callable(x) else 0
        return hash(
            tuple((k, mark(x)) for names in [self.visible(), *ours] for k, x in names.items())
        )

    def fork(self, first=None):
        """A new process with everything that is here; returns (connection, process id)."""
        mine, theirs = Pipe()
        self.count += 1
        pid = os.fork()
        if pid == 0:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                mine.close()
                for connection, _ in self.forks.values():
                    connection.close()
                serve(theirs, self, first, self.count)
            finally:
                os._exit(0)
        theirs.close()
        self.forks[pid] = mine, pid
        return mine, pid

    def end(self, fork):
        connection, pid = fork
        connection.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.forks[pid]

    # ---- a call of an answer

    def ask(self, answer, args=(), kwargs=None, **what):
        """The result of a request to a fork. Plain arguments, and functions that are called back,
        go to the fork that serves this cell; for others a new one is made, which has them already.
        """
        request = {"name": answer.name, "args": list(args), "kwargs": kwargs or {}} | what
        functions = []  # of the check, which the fork may call, by number
        fork, message = answer.fork, None

        def keep(f):
            if not isinstance(f, FUNCTIONS):
                raise NotPlainError(f"a {type(f).__name__}")
            functions.append(f)
            return len(functions) - 1

        if fork:
            message = pack(request, keep)
        elif not self.busy and answer.name not in self.need_objects:
            with contextlib.suppress(NotPlainError):
                message = pack(request, keep)
                fork = self.serving()
        if not fork:
            functions.clear()
            outer = lambda x: Callback(self, x, keep(x)) if isinstance(x, FUNCTIONS) else x
            request["args"] = [outer(x) for x in args]
            request["kwargs"] = {key: outer(x) for key, x in request["kwargs"].items()}
            fork, message = self.fork(request), None
        fresh = message is None
        if not fresh:
            self._send(fork, message)
        before, self.busy = self.busy, True
        try:
            kind, value, more, held = self._reply(fork, functions)
        finally:
            self.busy = before
        if fresh and not held:
            self.end(fork)
        if kind == "result":
            return value
        if kind == "again" and not fresh and not answer.fork:
            self.need_objects.add(answer.name)
            return self.ask(answer, args, kwargs, **what)
        if value in SAFE_ERRORS:
            raise getattr(builtins, value)(*[more] * bool(more))
        raise RuntimeError(f"{value}: {more}")  # nothing that a check could take for its own

    def serving(self):
        """The fork that serves this cell; a new one if a check has changed what answers see."""
        state = self.state()
        if self.server and self.server_state != state:
            self.end(self.server)
            self.server = None
        if not self.server:
            self.server, self.server_state = self.fork(), state
        return self.server

    def _send(self, fork, message):
        try:
            fork[0].send_bytes(message)
        except OSError:
            self._ended(fork)

    def _ended(self, fork):
        if fork is self.server:
            self.server = None
        self.end(fork)
        raise RuntimeError("your code ended the Python process") from None

    def _reply(self, fork, functions):
        """The fork's last word; on the way there it may call the functions of the check."""
        while True:
            held = []
            stand_in = lambda number: held.append(number) or Answer(self, int(number), fork)
            try:
                kind, value, *more = unpack(fork[0].recv_bytes(LARGEST), stand_in)
                if kind == "result":
                    return kind, value, "", bool(held)
                if kind in ("error", "again"):
                    return kind, str(value), "".join(map(str, more)), False
                function, (args, kwargs) = functions[value], more
            except Exception:  # the end, or no message of `serve`
                self._ended(fork)
            try:
                reply = pack(["result", function(*args, **kwargs)])
            except NotPlainError:
                reply = pack(["not plain"])
            except Exception as error:
                reply = pack(["error", type(error).__name__, str(error)[:1000]])
            self._send(fork, reply)

    # ---- cells

    def probe(self):
        """Leave the last answer out, for its error, if it does not come to its end: it would keep
        every later check from running."""
        try:
            self.ask(Answer(self, None))
            return
        except OutOfTime:
            why = f"it did not end within {self.seconds:g} s"
        except RuntimeError as error:
            why = str(error)
        for fork in list(self.forks.values()):
            self.end(fork)
        self.server = None
        self.answers[-1] = f"raise RuntimeError({why!r})", self.answers[-1][1]
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def run(self, cell):
        """Run one cell; returns "" or what went wrong."""
        self.before = set(self.namespace)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            if cell["kind"] == "answer":
                self.answers.append((cell["source"], cell["names"]))
                self.namespace |= {name: Answer(self, name) for name in cell["names"]}
                self.before = set(self.namespace)
                self.probe()
                for name in cell["constants"]:
                    value = self.ask(self.namespace.pop(name), constant=True)
                    self.namespace[name] = value
            else:
                exec(compile(cell["source"], cell["id"], "exec"), self.namespace)
            return ""
        except OutOfTime:
            for fork in list(self.forks.values()):
                self.end(fork)
            return f"timeout: more than {self.seconds:g} s"
        except AssertionError as error:
            return f"failed: {error}"
        except Exception as error:
            return f"error: {type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if self.server and self.server[1] in self.forks:
                self.end(self.server)
            self.server, self.busy = None, False


class Callback:
    """A function of the check, as an answer sees it: a call runs where the check is."""

    def __init__(self, grader, function, number):
        self.grader, self.function, self.number = grader, function, number

    def __call__(self, *args, **kwargs):
        try:
            message = pack(["callback", self.number, args, kwargs])
        except NotPlainError:  # a trace of autograd, or an object
            return self.here(*args, **kwargs)
        self.grader.connection.send_bytes(message)
        kind, *parts = unpack(self.grader.connection.recv_bytes())
        if kind == "result":
            return parts[0]
        if kind == "not plain":
            return self.here(*args, **kwargs)
        error = getattr(builtins, parts[0], None)
        is_error = isinstance(error, type) and issubclass(error, Exception)
        raise (error if is_error else RuntimeError)(parts[1])

    def here(self, *args, **kwargs):
        if self.function is None:  # this fork is older than the function: ask for a new one
            self.grader.again = True
            raise NotPlainError("an object")
        return self.function(*args, **kwargs)


def main():
    """Reads {"seconds", "work", "cells": [{"kind", "id", "source", "names"}, …]} from stdin.

    Kinds are "locked", "answer" and "check". Writes a line {"id", "status"} for each check.
    """
    task = json.load(sys.stdin)
    results = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    grader = Grader(task["work"], task["seconds"], results)

    def alarm(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, alarm)
    trouble = ""
    for cell in task["cells"]:
        status = grader.run(cell)
        if cell["kind"] == "locked":
            trouble = trouble or status
        elif cell["kind"] == "check":
            if "NameError" in status and trouble:
                status = f"{status} (before it: {trouble})"
            line = json.dumps({"id": cell["id"], "status": status}) + "\n"
            os.write(results, line.encode())
    for fork in list(grader.forks.values()):
        grader.end(fork)


if __name__ == "__main__":
    main()
