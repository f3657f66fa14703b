"""No flag is without effect: in every mode of every program it changes the results, or is refused.

The runs are tiny, of made-up images, all in this process; a mode's own run is the yardstick.
"""

import contextlib
import csv
import importlib
import importlib.util
import io
import itertools
import json
import shlex
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import common
import compare
import dreg
import numpy as np
import proofs
import pytest
from harness import cli, data

PROGRAMS = sorted(
    path.stem for path in proofs.METHODS.glob("*.py") if "cli.parser(" in path.read_text("utf-8")
)
SKIPPED = {"--help", "--out", "--resume",  # they say where, not what
           "--add",  # needs a file: see test_compare.py
           "--inference-only",  # needs a run: see test_dreg.py
           "--no-compile"}  # and --compile needs jax: see test_compiled.py  # fmt: skip
TRAINING = ["--dataset", "--task", "--layers", "--hidden", "--nonlinear", "--batch-size",
            "--dynamic-binarization", "--log-every", "--eval-every", "--eval-samples",
            "--tensorboard", "--activation", "--slope", "--no-centring", "--prior", "--init",
            "--beta1", "--beta2"]  # fmt: skip
# Other values than the defaults; the other flags have choices, or no value.
VALUES = {
    "--alpha": "0.5", "--alpha-ramp": "2", "--decay": "0.7", "--decay-every": "2", "--depth": "2",
    "--anneal-every": "1", "--anneal-rate": "0.3", "--batch-size": "7",
    "--classes": "4", "--dataset": "mnist-grey", "--dropout": "0.2", "--eval-every": "1",
    "--eval-samples": "3", "--hidden": "5", "--labels": "3", "--latent": "3", "--layers": "3 2",
    "--log-every": "1", "--lr": "0.2", "--methods": "REINFORCE,SimpleMuProp",
    "--min-temperature": "0.9", "--prior-temperature": "0.9", "--samples": "3 4", "--seed": "1",
    "--steps": "4", "--target": "0.3", "--temperature": "0.7",
    "--unlabelled": "straight-through gumbel",  # each by one sample
    "--variables": "3", "--z": "3", "--slope": "0.1", "--beta1": "0.5", "--beta2": "0.9",
    "--test-samples": "4", "--precision": "5", "--against": "stl rws", "--draws": "30",
    "--track": "stl rws", "--beta": "8",
    "--width": "6", "--chains": "6", "--sweeps": "2", "--ais-chains": "5",
    "--ais-temperatures": "4", "--ovis": "0.5", "--mean": "arithmetic", "--follow": "NVIL",
    "--objective": "log-mass kl density", "--pairs": "5", "--forward-temperature": "2",
    "--inner": "3",
}  # fmt: skip


class Mode(NamedTuple):
    """The flags that choose a mode of a program, and those that it has to refuse."""

    flags: str
    refused: list


# Of every sigmoid belief network
LINEAR = ["--activation", "--slope"]  # without --nonlinear
PREDICT = [*LINEAR, "--prior"]
SMALL = "--steps 3 --batch-size 8 --hidden 4 --eval-samples 2 --lr 0.1"
TOY = "--toy --steps 3 --lr 0.1"
SEMI = (
    "--steps 3 --batch-size 8 --hidden 4 --z 2 --eval-samples 2 --lr 0.1 --labels 2 --decay 0.5"
    " --decay-every 1"
)
CLASSES = (
    "--steps 3 --batch-size 8 --variables 2 --classes 3 --eval-samples 2 --lr 0.1 --decay 0.5"
    " --decay-every 1"
)
RELAXED = ["--straight-through", "--learn-temperature", "--objective", "--prior-temperature",
           "--anneal-rate", "--anneal-every", "--min-temperature"]  # fmt: skip
OF_REINMAX = ["--forward-temperature", "--inner"]
REBAR = ["--as-released", "--control-variate"]  # they differ from two layers on
TWO = f"{SMALL} --layers 2"
DREG = (
    "--steps 3 --batch-size 8 --hidden 4 --latent 2 --samples 2 --eval-samples 2 --lr 0.1"
    " --test-samples 3"
)
TRAINING_OF_ITS_OWN = [
    "--dataset", "--task", "--steps", "--batch-size", "--lr", "--samples", "--log-every",
    "--eval-every", "--eval-samples", "--tensorboard", "--static-binarization", "--estimator",
    "--antithetic", "--latent", "--hidden", "--track", "--test-samples", "--bias-check",
]  # fmt: skip
OF_CHECK = ["--against", "--precision", "--draws"]
DVAE = (
    "--steps 3 --batch-size 8 --width 4 --eval-samples 2 --lr 0.1 --test-samples 3 --chains 4"
    " --sweeps 1 --ais-chains 4 --ais-temperatures 3"
)
MODES = {
    "rloo": [
        Mode(SMALL, ["--target"]),
        Mode(f"{SMALL} --task predict", ["--target"]),
        Mode(TOY, TRAINING),
    ],
    "vimco": [
        Mode(SMALL, ["--target"]),
        Mode(TOY, [*TRAINING, "--ovis"]),
    ],
    "disarm": [
        Mode(SMALL, ["--target"]),
        Mode(f"{SMALL} --estimator arms --samples 3", ["--target", "--bound"]),
        Mode(TOY, [*TRAINING, "--bound", "--pairs", "--samples"]),
        Mode(f"{TOY} --estimator arms --samples 3", [*TRAINING, "--bound"]),
    ],
    "reinforce": [
        Mode(SMALL, ["--target"]),
        Mode(f"{SMALL} --task predict", ["--target"]),
        Mode(TOY, [*TRAINING, "--baseline"]),
    ],
    "nvil": [
        Mode(TWO, ["--target"]),
        Mode(f"{TWO} --task predict", ["--target"]),
        Mode(SMALL, ["--target", "--layer-local"]),
        Mode(f"{TWO} --batch-size 1", ["--target", "--normalize"]),
        Mode(TOY, [*TRAINING, "--layer-local", "--normalize"]),
    ],
    "muprop": [
        Mode(SMALL, ["--target"]),
        Mode(f"{SMALL} --simple", ["--target"]),
        Mode(TOY, TRAINING),
        Mode(f"{TOY} --simple", TRAINING),
    ],
    "concrete": [
        Mode(SMALL, ["--target", "--prior-temperature", "--min-temperature"]),
        Mode(f"{SMALL} --task predict",
             ["--target", "--objective", "--prior-temperature", "--min-temperature"]),
        Mode(f"{SMALL} --objective density",
             ["--target", "--relaxation", "--straight-through", "--min-temperature"]),
        Mode(f"{SMALL} --anneal-rate 0.2", ["--target", "--temperature", "--prior-temperature"]),
        Mode(TOY, [*TRAINING, "--objective", "--prior-temperature", "--min-temperature"]),
    ],
    "reinmax": [
        Mode(TWO, ["--target", "--inner"]),
        Mode(f"{SMALL} --task predict --estimator st", ["--target", "--inner"]),
        Mode(f"{SMALL} --estimator gumbel-rao", ["--target"]),
        Mode(TOY, [*TRAINING, "--inner"]),
    ],
    "rebar": [
        Mode(TWO, ["--target"]),
        Mode(f"{TWO} --task predict", ["--target"]),
        Mode(f"{TWO} --adapt none", ["--target"]),
        Mode(f"{TWO} --control-variate joint", ["--target", "--as-released"]),
        Mode(SMALL, ["--target", *REBAR]),
        Mode(TOY, [*TRAINING, *REBAR]),
    ],
    "relax": [
        Mode(TWO, ["--target"]),
        Mode(f"{SMALL} --task predict", ["--target"]),
        Mode(f"{SMALL} --black-box", ["--target", "--temperature"]),
        Mode(TOY, TRAINING),
        Mode(f"{TOY} --black-box", TRAINING),
    ],
    "rodeo": [
        Mode(SMALL, ["--target"]),
        Mode(f"{TWO} --task predict --estimator double-cv", ["--target"]),
        Mode(TOY, TRAINING),
        Mode(f"{TOY} --estimator double-cv", TRAINING),
    ],
    "compare": [
        Mode(TWO, ["--target"]),
        Mode(SMALL, ["--target", "--as-released", "--control-variate"]),
        Mode(f"{TWO} --methods SimpleMuProp,NVIL", ["--target", *compare.READ_BY]),
        Mode(f"{TWO} --methods SimpleMuProp,NVIL,Concrete",
             ["--target", "--noise", "--control-variate", "--as-released"]),
        Mode(f"{TWO} --methods SimpleMuProp,NVIL,RELAX",
             ["--target", "--relaxation", "--control-variate", "--as-released"]),
        Mode("--toy",
             [*TRAINING, *compare.READ_BY, "--target", "--methods", "--follow", "--steps", "--lr"]),
    ],
    "gumbel_softmax": [
        Mode(CLASSES, [*OF_REINMAX, "--samples", "--noise", "--prior-temperature",
                       "--anneal-every", "--min-temperature"]),
        Mode(f"{CLASSES} --objective log-mass",
             [*OF_REINMAX, "--noise", "--prior-temperature", "--anneal-every",
              "--min-temperature"]),
        Mode(f"{CLASSES} --objective density",
             [*OF_REINMAX, "--noise", "--straight-through", "--anneal-every",
              "--min-temperature"]),
        Mode(f"{CLASSES} --anneal-rate 0.2 --anneal-every 2",
             [*OF_REINMAX, "--samples", "--noise", "--prior-temperature",
              "--learn-temperature"]),
        Mode(f"{CLASSES} --learn-temperature",
             [*OF_REINMAX, "--samples", "--noise", "--prior-temperature",
              "--anneal-rate", "--anneal-every", "--min-temperature"]),
        Mode(f"{CLASSES} --task predict",
             [*OF_REINMAX, "--activation", "--noise", "--objective", "--prior",
              "--prior-temperature", "--anneal-every", "--min-temperature"]),
        Mode(f"{CLASSES} --estimator reinmax --anneal-rate 0.2 --anneal-every 2",
             ["--inner", "--samples", "--noise", "--straight-through",
              "--learn-temperature", "--prior-temperature"]),
        Mode(f"{CLASSES} --estimator gumbel-rao --objective log-mass --samples 2 --anneal-rate 0.2"
             " --anneal-every 2",
             ["--noise", "--straight-through", "--learn-temperature", "--prior-temperature"]),
        Mode(f"{CLASSES} --estimator reinforce",
             [*OF_REINMAX, "--noise", "--temperature", *RELAXED]),
        Mode(f"{CLASSES} --estimator unordered --samples 2",
             [*OF_REINMAX, "--layers", "--noise", "--temperature", *RELAXED]),
        Mode(f"{CLASSES} --task predict --estimator sum-and-sample --samples 2",
             [*OF_REINMAX, "--activation", "--layers", "--noise", "--temperature", "--prior",
              *RELAXED]),
        Mode(f"{CLASSES} --estimator nvil",
             [*OF_REINMAX, "--samples", "--noise", "--temperature", *RELAXED]),
        Mode(f"{CLASSES} --estimator rebar", [*OF_REINMAX, "--samples", *RELAXED]),
        Mode(f"{CLASSES} --layers 2 --objective log-mass",
             [*OF_REINMAX, "--noise", "--prior-temperature", "--anneal-every",
              "--min-temperature"]),
        Mode("--toy", ["*"]),
    ],
    "dreg": [
        Mode(DREG, ["--alpha", *OF_CHECK]),
        Mode(f"{DREG} --task predict --static-binarization", ["--alpha", *OF_CHECK]),
        Mode(f"{DREG} --estimator dreg --track iwae,dreg-alpha", OF_CHECK),
        Mode(f"{DREG} --antithetic", ["--alpha", *OF_CHECK]),
        Mode(f"{DREG} --bias-check --estimator dreg --against iwae --draws 40", ["--alpha"]),
        Mode("--toy", [*TRAINING_OF_ITS_OWN, *OF_CHECK, "--alpha"]),
    ],
    "dvae_sharp": [
        Mode(DVAE, ["--task"]),
        Mode(f"{DVAE} --variant dvaes_gi", ["--task"]),
        Mode(f"{DVAE} --sampler pcd --struct 1-layer-nonlin", ["--task"]),
    ],
    "semi_supervised": [
        Mode(SEMI, ["--task", "--samples", "--temperature", "--anneal-rate", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled gumbel --samples 2 --anneal-rate 0.2", ["--task"]),
        Mode(f"{SEMI} --unlabelled straight-through --anneal-rate 0.2", ["--task"]),
        Mode(f"{SEMI} --unlabelled gumbel --anneal-rate 0", ["--task", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled gumbel --temperature 0.5",
             ["--task", "--anneal-rate", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled reinforce --samples 2",
             ["--task", "--temperature", "--anneal-rate", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled unordered --samples 2",
             ["--task", "--temperature", "--anneal-rate", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled reinmax", ["--task", "--min-temperature"]),
        Mode(f"{SEMI} --unlabelled reinmax --anneal-rate 0.2", ["--task"]),
        Mode(f"{SEMI} --alpha 0", ["--task", "--alpha-ramp", "--samples", "--temperature",
                                   "--anneal-rate", "--min-temperature"]),
    ],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory):
    """Instead of data/*.npz: 60, 20 and 20 images of 4 × 4 in ten classes."""
    root, rng = tmp_path_factory.mktemp("root"), np.random.default_rng(0)
    (root / "data").mkdir()
    for name in ("digits", "mnist"):
        arrays = {"levels": np.uint8(16), "shape": np.array([4, 4], np.uint8)}
        for split, size in (("train", 60), ("valid", 20), ("test", 20)):
            arrays[split] = rng.integers(0, 17, (size, 16)).astype(np.uint8)
            arrays[f"labels_{split}"] = (np.arange(size) % 10).astype(np.uint8)
        np.savez(root / "data" / f"{name}.npz", **arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "ROOT", root)
        nodes = lambda logits, n_u, n_v=1: common.quadrature(logits, 20, min(n_v, 4))
        patch.setattr(compare, "quadrature", nodes)  # its toy takes seconds
        patch.setattr(compare, "DRAWS", 100)
        patch.setattr(dreg.toy, "__defaults__", ((1, 2, 3, 4, 5, 6, 7),))  # and so does this one
        patch.setattr(compare, "time", SimpleNamespace(perf_counter=lambda: 0.0))
        yield


def parser_of(program):
    """The parser of a program as its main() makes it, with all flags."""

    class Made(Exception):
        pass

    def parse(p, argv=None):
        raise Made(p)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "parse", parse)
        with pytest.raises(Made) as made:
            importlib.import_module(program).main([])
    return made.value.args[0]


def other_value(action, flags):
    """Words that set a flag to another value than the default or `flags` do."""
    if action.nargs in (0, "?"):
        return []
    used = [b for a, b in itertools.pairwise(flags) if a in action.option_strings]
    values = VALUES.get(action.option_strings[0]) or " ".join(action.choices)
    possible = [x for x in values.split() if not action.choices or x in action.choices]
    return [next(x for x in possible if x not in (used or [action.default]))]


def refusal(program, words, folder):
    """The line with which main() refuses these words; "" if the run ends well."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            importlib.import_module(program).main([*words, "--out", str(folder)])
    except SystemExit as end:
        message = printed.getvalue() if end.code == 2 else f"exit code {end.code}"
    except common.InputError as error:  # of which cli.run makes such a line
        message = f"error: {error}\n"
    else:
        return ""
    assert not folder.exists()
    (line,) = message.splitlines()
    return line


def results(folder):
    """What a run left, except what it was told (config.json) and what a clock says."""
    left = {path.name.split(".")[0]: None for path in folder.iterdir()}  # figures, events
    for path in folder.glob("*.json"):
        if path.name != "config.json":
            told = {"seconds", "steps_per_second", "steps", "dataset", "task"}
            content = json.loads(path.read_text("utf-8"))
            left[path.name] = {key: x for key, x in content.items() if key not in told}
    for path in folder.glob("*.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        left[path.name] = [{k: x for k, x in row.items() if k != "seconds"} for row in rows]
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            left[path.name] = {k: file[k].tobytes() for k in file.files if k != "seconds"}
    return left


def refused(program, mode):
    """The flags that a mode has to refuse; a linear network has those of a nonlinear one."""
    network = program not in ("gumbel_softmax", "semi_supervised") and "--toy" not in mode.flags
    of_task = PREDICT if "--task predict" in mode.flags else LINEAR
    return [*mode.refused, *(of_task if network else [])]


CASES = [
    pytest.param(program, mode, id=f"{program} {mode.flags}")
    for program in MODES
    for mode in MODES[program]
]


def test_every_program_has_its_modes_here():
    assert sorted(MODES) == PROGRAMS


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_every_flag_has_an_effect_or_is_refused(program, mode, tmp_path):
    """Refused in one line are the flags that Mode names; all others change the results.

    A flag that chooses another mode may be refused for a flag of this one; the line names that.
    """
    plain, everything = shlex.split(mode.flags), "*" in mode.refused
    to_refuse = refused(program, mode)
    quiet = [] if everything else ["--no-plots"]
    for name in ("before",) if everything else ("before", "again"):
        assert refusal(program, [*plain, *quiet], tmp_path / name) == ""
    before, wrong = results(tmp_path / "before"), []
    assert everything or results(tmp_path / "again") == before
    for action in parser_of(program)._actions:
        name = action.option_strings[-1]
        folder = tmp_path / name
        if name in SKIPPED or (action.nargs in (0, "?") and name in plain):
            continue
        if (program, name) == ("dvae_sharp", "--static-binarization"):  # the default of digits
            continue
        if name == "--tensorboard" and not importlib.util.find_spec("tensorboardX"):
            continue
        words = [*plain, *quiet, name, *other_value(action, plain)]
        if name == "--bias-check":
            words += ["--draws", "30"]  # instead of thousands
        if name == "--no-plots" and not everything:
            words = plain  # the others are without figures, so this one is with them
        line = refusal(program, words, folder)
        if everything or name in to_refuse:
            if f"{name}" not in line:
                wrong.append(f"{name}: should be refused: {line}")
        elif line and not any(f"error: {flag}: " in line for flag in plain if flag != name):
            wrong.append(f"{name}: {line}")
        elif not line and results(folder) == before:
            wrong.append(f"{name}: no effect")
    assert not wrong, "\n".join(wrong)


# Commands with flags of which one leaves the other without effect: the first is refused.
CONTRADICTIONS = """
rebar --layers 3 --toy
rebar --task predict --toy
rebar --dataset mnist --toy
rebar --nonlinear --toy
rebar --control-variate joint
rebar --as-released --layers 1
rebar --as-released --layers 2 --control-variate joint
compare --methods NVIL --toy
compare --target .3 --toy
compare --steps 5 --toy
compare --as-released --layers 2 --methods NVIL,SimpleMuProp
compare --temperature .1 --methods NVIL,SimpleMuProp
compare --relaxation concrete --methods RELAX,SimpleMuProp
compare --noise independent --methods Concrete,SimpleMuProp
compare --control-variate joint
compare --as-released --layers 2 --control-variate joint
concrete --objective density --toy
concrete --objective=log-mass --toy
concrete --objective density --task predict
concrete --prior-temperature 9
concrete --min-temperature .1
concrete --min-temperature 2 --anneal-rate .1
concrete --temperature 1 --anneal-rate .1
gumbel_softmax --objective density --task predict
gumbel_softmax --prior learned --task predict
gumbel_softmax --objective density --estimator nvil
gumbel_softmax --min-temperature 2 --temperature 1 --anneal-rate 1e-3
gumbel_softmax --batch-size 1 --estimator reinforce
gumbel_softmax --batch-size 1 --estimator nvil
dvae_sharp --batch-size 1
dvae_sharp --batch-size 1 --samples 2 --struct 1-layer-nonlin
gumbel_softmax --noise independent
gumbel_softmax --layers 2 --objective kl
gumbel_softmax --decay-every 5 --decay 1
gumbel_softmax --activation relu --task predict
gumbel_softmax --seed 3 --toy
semi_supervised --samples 7
semi_supervised --decay-every 7
semi_supervised --alpha-ramp 7 --alpha 0
semi_supervised --temperature 2 --unlabelled unordered --samples 2
semi_supervised --min-temperature .7 --unlabelled reinmax
semi_supervised --min-temperature .5 --unlabelled reinforce --samples 2
nvil --normalize --batch-size 1
nvil --normalize --toy
nvil --layer-local
reinforce --baseline none --toy
reinforce --target .3
"""


@pytest.mark.parametrize("command", CONTRADICTIONS.strip().splitlines())
def test_contradiction(command, tmp_path):
    program, *words = command.split()
    line = refusal(program, words, tmp_path / "run")
    assert f"error: {words[0].partition('=')[0]}: " in line


def test_a_default_or_a_name_within_a_value_is_not_given(tmp_path):
    """Refused is what the command line says, not what is merely set."""
    p = cli.parser("concrete", "")
    args = cli.parse(p, ["--toy", f"--out={tmp_path}/--layers"])
    assert p.given == {"--toy", "--out"}
    assert args.layers == 1


HELP = """
import sys
try:
    main([*sys.argv[1:], "--help"])
except SystemExit as end:
    assert end.code == 0
slow = {"scipy.stats", "matplotlib", "jax", "torch", "tensorboardX", "IPython", "sklearn", "dask"}
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
"""
WITH_HELP = sorted({*PROGRAMS, "check", "rbm", "sweep"})


@pytest.mark.parametrize("program", WITH_HELP)
def test_help_waits_for_no_large_library(program):
    """--help, a mistyped flag and a run take only what they need: half a second less each."""
    code = f"from {program} import main\n{HELP}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True,
                          cwd=proofs.METHODS)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
