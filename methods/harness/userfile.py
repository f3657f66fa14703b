"""A user's own file: it is run among its own modules, and its errors are shown as hers."""

import contextlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path

from common import InputError

from harness.optimizer import as_promised

import numpy as np

METHODS = Path(__file__).resolve().parents[1]


class UserError(InputError):
    """An exception inside the user's file; the message is its traceback, down to her last line."""


def load_file(path):
    """The module of a Python file, run with the file's folder first on sys.path.

    Modules of ours that carry the name of a file or folder beside it (every research repository
    has a common.py) are taken out of sys.modules first, so that the user's imports find her own.
    Raises InputError when there is no such file, UserError when it cannot be run.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file: its name has to end in .py")
    folder = path.parent
    if folder != METHODS:
        hers = {p.stem for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name.partition(".")[0] in hers and file and METHODS in Path(file).resolve().parents:
                del sys.modules[name]
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if before is not None:
            sys.modules[path.stem] = before
        raise UserError(shown(error, path)) from error
    return module


def parts(text):
    """(FILE.py, FUNCTION) of FILE.py:FUNCTION; the second is "" if it is not given."""
    file, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    if not file:
        raise InputError(f"'{text}' has to be FILE.py or FILE.py:FUNCTION")
    return file, name


def load_module(text):
    """(path, module) of FILE.py or FILE.py:FUNCTION."""
    file, _ = parts(text)
    return Path(file).resolve(), load_file(file)


def load_function(text, default):
    """FILE.py:FUNCTION as (function, module, path); without a FUNCTION it is `default`."""
    path, module = load_module(text)
    return function_of(module, text, default), module, path


def function_of(module, text, default):
    """The function that FILE.py:FUNCTION names in its module, `default` without a FUNCTION."""
    file, name = parts(text)
    function = getattr(module, name or default, None)
    if not callable(function):
        more = "write FILE.py:FUNCTION"
        others = [x for x in ("estimate", "model") if default != "estimate" and hasattr(module, x)]
        if others:
            more += f", or --model to check its {others[0]}"
        raise InputError(f"{file} has no function {name or default}: {more}")
    return function


def load_estimator(path, toy, taken):
    """The estimator of a user's file: (its name, `estimate`, `init_aux` or None, has it `samples`).

    With `toy` it is `gradient_samples` instead of `estimate`. Both get copies of all arrays, and
    raise InputError for a result of wrong shapes or that is not finite, `gradient_samples` also if
    it draws noise of its own. Raises InputError if the name of the file is among those `taken`.
    """
    wanted = "gradient_samples" if toy else "estimate"
    try:
        function, module, file = load_function(f"{path}:{wanted}", wanted)
    except UserError:
        raise
    except InputError as error:
        raise InputError(f"--add: {error}") from error
    if file.stem in taken or "," in file.stem:
        raise InputError(f"--add: {path}: rename it, {file.stem} cannot be the name of a method")
    if hasattr(module, "draw_noise") and not toy:
        raise InputError(f"--add: {path} has a draw_noise; here all share the pairs of the model")

    def refuse_unless(right, what):
        if not right:
            raise InputError(f"--add: {path}: {wanted} has to return {what}")

    def estimate(model, params, aux, x, noise, **options):
        pairs = [tuple(map(np.array, pair)) for pair in noise]
        with called(file):
            result = function(model, copies(params), copies(aux), x.copy(), pairs, **options)
        try:
            as_promised(result, params, aux)
        except InputError as error:
            raise InputError(f"--add: {path}: {error}") from error
        refuse_unless(all(np.all(np.isfinite(g)) for g in result[1]), "gradients that are finite")
        return result

    known = []

    def gradient_samples(f, logits, u, v, **options):
        with called(file):
            g = np.asarray(function(f, *copies((logits, u, v)), **options))
            again = g if known else np.asarray(function(f, *copies((logits, u, v)), **options))
        known.append(function)  # once is enough
        wanted = (len(u), len(logits))
        refuse_unless(g.shape == wanted, f"the shape (n, D) = {wanted}, not {g.shape}")
        refuse_unless(np.all(np.isfinite(g)), "what is finite")
        refuse_unless(np.array_equal(g, again), "the same for the same u and v: the mean is exact")
        return g

    def init_aux(rng, model):
        with called(file):
            return module.init_aux(rng, model)

    samples = "samples" in inspect.signature(function).parameters
    init_aux = init_aux if hasattr(module, "init_aux") else None
    return file.stem, gradient_samples if toy else estimate, init_aux, samples


def copies(arrays):
    return [np.array(a) for a in arrays]


def shown(error, path):
    """The traceback of an error from the first to the last line of the user's own files.

    Those are `path` and whatever else lies under its folder, but for installed packages and for
    our modules. An error without a line of hers keeps its whole traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)

    def is_hers(frame):
        file = Path(frame.filename).resolve()
        apart = METHODS in file.parents or "site-packages" in file.parts
        if frame.filename.startswith("<"):  # no file
            return False
        return file == path or (path.parent in file.parents and not apart)

    hers = [i for i, frame in enumerate(frames) if is_hers(frame)]
    if hers:
        frames = frames[hers[0] : hers[-1] + 1]
    elif isinstance(error, SyntaxError):
        frames = []  # the message has the line
    lines = traceback.format_list(frames) + traceback.format_exception_only(error)
    return "in your file:\n" + "".join(lines).rstrip()


@contextlib.contextmanager
def called(path):
    """Turns an error inside a function of the user's file `path` into a UserError.

    Without a path the error goes on as it is: to whoever called us from a program.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if path is None:
            raise
        raise UserError(shown(error, path)) from error
