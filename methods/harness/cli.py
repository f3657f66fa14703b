"""The flags that all programs share, and errors in one line."""

import argparse
import math
import os
import sys
from pathlib import Path

from common import InputError

from harness.data import CHOICES, DATASETS, TASKS, is_file, read_images
from harness.process import limit_memory, take_output
from harness.runfolder import SWITCHES, read_flags
from harness.stopping import Stopped, heed_signals
from harness.userfile import UserError


def number(kind, low, high=math.inf, open_low=False):
    """An argparse type: int or float, low ≤ x ≤ high, or low < x with open_low."""

    def convert(text):
        try:
            x = kind(text)
            if math.isfinite(x) and low <= x <= high and not (open_low and x == low):
                return x
        except (ValueError, OverflowError):
            pass
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(
            f"'{text:.40}' has to be {what} {'above' if open_low else 'of at least'} {low}"
            + (f" and at most {high}" if high < math.inf else "")
        )

    return convert


def folder(text):
    """An argparse type: a name that is not empty, as that of a shell's variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a folder")
    return text


def dataset(text):
    """An argparse type: a name in DATASETS, or the full path of a user's own FILE.npz."""
    if text in DATASETS:
        return text
    if is_file(text):
        return os.path.abspath(text)
    raise argparse.ArgumentTypeError(f"'{text:.100}' is unknown: choose from {CHOICES}")


def one_line(message):
    """The message with its line ends as spaces, ? for what cannot be printed, and not too long."""
    line = "".join(x if x.isprintable() else "?" for x in " ".join(str(message).split()))
    return line if len(line) <= 600 else f"{line[:400]} … {line[-190:]}"


class Parser(argparse.ArgumentParser):
    """Errors in one line; and flags that are given but not read are refused (see `unread`)."""

    given = frozenset()  # the flags on the command line, as the user wrote them
    keeps_steps = False  # what a run does depends on --steps, so that it cannot be made longer

    def __init__(self, description, **options):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(
            description=description, formatter_class=layout, allow_abbrev=False, **options
        )

    def error(self, message):  # one line, without the usage
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")

    def parse_known_args(self, args=None, namespace=None):
        """As in argparse, which would take --flag=-- for a flag without a value, and stumble."""
        for word in sys.argv[1:] if args is None else args:
            name, _, value = word.partition("=")
            if value == "--" and name in self._option_string_actions:
                self.error(f"{name}: '--' is not a value of it")
        return super().parse_known_args(args, namespace)

    def flag(self, name, help, default=None, **options):
        """add_argument, with the default (of choices, the first) named in the help."""
        if default is None and "choices" in options:
            default = options["choices"][0]
        if default is not None:
            options["default"], help = default, f"{help}; default: {default}"
        self.add_argument(name, help=help, **options)

    def unread(self, mode, *names):
        """The run does not read the flags `names`: refuse them if the command line has one.

        `mode`, "with --x" or "without --x", says why. What a default sets is not refused.
        """
        assert self._option_string_actions.keys() >= {*names}, names
        for name in names:
            if name in self.given:
                self.error(f"{name}: it has no effect {mode}")

    def reads_only(self, mode, *names):
        """The run reads the flags `names`, and refuses all others; `mode` as in `unread`."""
        self.unread(mode, *sorted(self.given - {"--help", "--out", "--resume", *names}))

    def flag_of(self, dest):
        """The flag that sets args.dest, of two the one on the command line; `dest` if none does."""
        flags = [flag for flag, x in self._option_string_actions.items() if x.dest == dest]
        return next((flag for flag in flags if flag in self.given), flags[0] if flags else dest)

    def differs(self, dest, theirs, ours):
        """How `theirs`, args.dest of a run, and ours differ, in words: "--hidden 6, not 7"."""
        flag = self.flag_of(dest)
        if isinstance(theirs, bool):
            return flag if self._option_string_actions[flag].const is theirs else f"no {flag}"
        if theirs is None:
            return f"no {flag}"
        return f"{flag} {theirs}" if ours is None else f"{flag} {theirs}, not {ours}"


COUNT, POSITIVE = number(int, 1, 10**9), number(float, 0, open_low=True)
UNITS, LAYERS = number(int, 1, 10**5), number(int, 1, 1000)  # more fit into no memory
ROWS, SAMPLES = number(int, 1, 10**5), number(int, 1, 10**6)  # of a batch, of a bound
TEMPERATURE, RATE = number(float, 1e-4, 1e4), number(float, 0, 1e6, open_low=True)
SEED = number(int, 0, 2**63 - 1)
OTHERS = "mnist-grey"  # whose settings a file of the user's own gets
TOY = {"steps": 5000, "lr": 1e-3}
READ_BY_TOY = ("--steps", "--lr", "--samples", "--seed", "--no-plots", "--target")
RESUME_MAY_CHANGE = {"resume", "steps", "log_every", "eval_every", "compile", *SWITCHES}


def parser(method, description, *, sbn=True, dynamic=False, digits=None, full=None, steps=None,
           batch_size=24, samples=1, eval_samples=100, goal="mean", compiled=True,
           read_by_toy=READ_BY_TOY):  # fmt: skip
    """The flags that all methods share; a method adds its own and then calls `parse`.

    `digits` and `full` are what differs from the settings of the datasets, digits and all others:
    steps, lr, eval_epochs, log_every, and samples, if that is None. `steps` is the number of
    updates, if it is not to depend on the dataset. A method with a model of its
    own leaves out the flags of the SBN and the toy; `dynamic` makes fresh bits the default, and
    None lets `digits` and `full` say which (`dynamic_binarization`). `goal` is what is made of f at
    the samples of an image, for the help; `read_by_toy` are those of these flags that --toy reads.
    """
    p = Parser(description)
    p.set_defaults(method=method)
    changes = {name: digits if name == "digits" else full for name in DATASETS}
    p.config = {name: DATASETS[name].config | (changes[name] or {}) for name in DATASETS}
    small, large = p.config["digits"], p.config[OTHERS]
    by_dataset = lambda key: f"default: {small[key]} for digits, {large[key]} for the others"
    p.flag("--dataset", f"{CHOICES}; see data/README.md", "digits", type=dataset, metavar="NAME")
    p.flag("--task", "model images, or their lower half given the upper", choices=TASKS)
    if sbn:
        p.flag("--layers", "stochastic layers", 1, type=LAYERS, metavar="L")
        p.flag("--hidden", "units of every layer", 200, type=UNITS, metavar="N")
        p.flag("--nonlinear", "two tanh layers between stochastic ones", action="store_true")
        p.flag("--activation", "of the layers of --nonlinear", choices=("tanh", "leaky-relu"))
        p.flag("--slope", "of leaky-relu below 0; default: 0.3", type=number(float, 0, 1))
        p.flag("--no-centring", "nets see 0 and 1, and pixel logits have no offset by the mean",
               dest="centring", action="store_false")  # fmt: skip
        p.flag("--prior", "of the top layer: its logits learned, or fixed at 0",
               choices=("learned", "fixed"))  # fmt: skip
        p.flag("--init", "of the weights", choices=("he", "glorot"))
        p.flag("--beta1", "Adam's average of the gradient", 0.9, type=number(float, 0, 0.99999))
        p.flag("--beta2", "Adam's average of its square", 0.99999, type=number(float, 0, 0.999999))
    updates = "updates" if steps else f"updates; {by_dataset('steps')}"
    p.flag("--steps", updates, steps, type=COUNT, metavar="N")
    p.flag("--batch-size", "images per update", batch_size, type=ROWS, metavar="N")
    what = "Adam's step, tenfold for what the method learns" if sbn else "Adam's step"
    p.flag("--lr", f"{what}; {by_dataset('lr')}", type=POSITIVE)
    what = f"samples per image in training; the goal is the {goal} of f over them"
    p.flag("--samples", what if samples else f"{what}; {by_dataset('samples')}", samples,
           type=ROWS, metavar="K")  # fmt: skip
    p.flag("--seed", "of everything random", 0, type=SEED)
    bits = p.add_mutually_exclusive_group()
    p.set_defaults(dynamic_binarization=dynamic)
    if dynamic is not False:
        bits.add_argument("--static-binarization", dest="dynamic_binarization", default=dynamic,
                          help="fix the training bits once, not draw them afresh",
                          action="store_false")  # fmt: skip
    if dynamic is not True:
        bits.add_argument("--dynamic-binarization", action="store_true", default=dynamic,
                          help="draw training bits afresh from the grey levels")  # fmt: skip
    log_every = by_dataset("log_every") if "log_every" in small else "default: an epoch"
    p.flag("--log-every", f"steps per row of the table; {log_every}", type=COUNT, metavar="N")
    p.flag("--eval-every", f"steps per evaluation; {by_dataset('eval_epochs')}, in epochs",
           type=COUNT, metavar="N")  # fmt: skip
    p.flag("--eval-samples", "samples of the evaluation's bound", eval_samples, type=SAMPLES,
           metavar="K")  # fmt: skip
    p.flag("--out", "new folder; default: runs/<method>-<dataset>-<time>", type=folder,
           metavar="DIR")  # fmt: skip
    p.flag("--resume", "go on with the run in DIR, with its settings; but say again: --no-plots, "
           "--tensorboard", type=folder, metavar="DIR")  # fmt: skip
    p.flag("--no-plots", "write no figures", action="store_true")
    p.flag("--tensorboard", "also log to TensorBoard (needs tensorboardX)", action="store_true")
    if compiled:
        p.flag("--compile", "run the step as one program of JAX (needs jax); --no-compile resumes "
               "such a run without it", action=argparse.BooleanOptionalAction)  # fmt: skip
        p.set_defaults(compile=False)
    if sbn:
        p.flag("--toy", "fit one bit instead: minimise E[(b - target)^2]", action="store_true")
        p.flag("--target", "of the toy", 0.45, type=number(float, 0, 1e6))
    p.unread_by_toy = p._option_string_actions.keys() - {"--help", "--out", "--resume", "--toy"}
    p.unread_by_toy -= {*read_by_toy}
    return p


def decay_flags(p, factor):
    """--decay, by default `factor`, and --decay-every, of a method whose lr falls; see `decay`."""
    p.flag("--decay", "what lr is multiplied with, again and again; 1: lr stays", factor,
           type=number(float, 0, 1, open_low=True))  # fmt: skip
    p.flag("--decay-every", "steps from one such multiplication to the next", 1000, type=COUNT,
           metavar="N")  # fmt: skip


def decay(p, args):
    """rate(step), by which a Trainer multiplies lr; refuses --decay-every where lr stays."""
    if args.decay == 1:
        p.unread("with --decay 1", "--decay-every")
    return lambda step: args.decay ** (step // args.decay_every)


def parse(p, argv=None):
    """Parse and check the flags; with --resume they come from the run's config.json, but SWITCHES.

    A bad flag ends the process with one line and exit code 2, and so does one of these flags that
    the toy does not read. A method refuses those of its own that a mode does not read by `unread`.
    """
    args = p.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    p.given = {word.partition("=")[0] for word in words} & p._option_string_actions.keys()
    if args.resume:
        path = Path(args.resume) / "config.json"
        try:
            flags = read_flags(args.resume)
            method = flags["method"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            p.error(f"--resume: {path} is not the config of a run ({error})")
        if method != args.method:
            p.error(f"--resume: {args.resume} is a run of {method}: use methods/{method}.py")
        if flags.get("toy"):
            p.error(f"--resume: {args.resume} is a run of the toy, which takes seconds: start anew")
        if args.out:
            p.error("--out: a resumed run stays in its folder; leave --out or --resume away")
        kept = {key: value for key, value in flags.items() if key not in SWITCHES}
        args = p.parse_args(argv, argparse.Namespace(**kept))
        if is_file(args.dataset) and not os.path.exists(args.dataset):
            p.error(f"--resume: its images, {args.dataset}, are not there; if the file was moved, "
                    "say --dataset and its new name")  # fmt: skip
        if p.keeps_steps and args.steps != flags["steps"]:
            p.error(f"--steps: a resumed run keeps its {flags['steps']}, as its learning rate "
                    "depends on them; start anew for more")  # fmt: skip
        if p.keeps_steps and (path.parent / "summary.json").exists():
            p.error(f"--resume: {args.resume} has all its {args.steps} steps; start anew for more")
        for key in flags.keys() - RESUME_MAY_CHANGE:
            moved = key == "dataset" and is_file(args.dataset) and is_file(flags[key])
            if getattr(args, key) != flags[key] and not moved:
                is_value = flags[key] is not None and not isinstance(flags[key], bool)
                how = f"keeps its {flags[key]}" if is_value else "goes on as it began"
                p.error(f"{p.flag_of(key)}: a resumed run {how}")
    if getattr(args, "toy", False):
        p.unread("with --toy", *sorted(p.unread_by_toy))
    elif hasattr(args, "target"):
        p.unread("without --toy", "--target")
    if hasattr(args, "centring"):
        check_network(p, args)
    toy = hasattr(args, "target") and args.toy  # of one bit; other toys train nothing
    if is_file(args.dataset) and bits_given(p) and read_images(args.dataset)["levels"] == 1:
        p.unread("with images that are bits already", *bits_given(p))
    of_data = p.config[OTHERS if is_file(args.dataset) else args.dataset]
    for key, value in (of_data | (TOY if toy else {})).items():
        if getattr(args, key, None) is None:
            setattr(args, key, value)
    return args


def bits_given(p):
    """The flags on the command line that say how bits are drawn from grey levels."""
    return p.given & {"--dynamic-binarization", "--static-binarization"}


def given(p, argv=None):
    """The names of the flags that the command line itself has, not a default or a config."""
    absent = object()
    blank = argparse.Namespace(**{action.dest: absent for action in p._actions})
    values = vars(p.parse_args(argv, blank))
    return {action.dest for action in p._actions if values[action.dest] is not absent}


def check_network(p, args):
    """Refuse flags of the network that the others leave without effect."""
    if args.activation != "tanh" and not args.nonlinear:
        p.error("--activation: of the layers that --nonlinear adds; add it")
    if args.slope is not None and args.activation != "leaky-relu":
        p.error("--slope: of --activation leaky-relu; add it, or leave --slope away")
    if args.prior == "fixed" and args.task == "predict":
        p.error("--prior: --task predict has none; leave one of them away")


def end(code, message):
    """Leave the process with one line on stderr; a traceback of a user's file has several."""
    line = message if isinstance(message, UserError) else one_line(message)
    print(f"{Path(sys.argv[0]).name}: {'error: ' * (code == 2)}{line}", file=sys.stderr)
    sys.exit(code)


def run(main):
    """Call main() as a program: an InputError becomes one line on stderr and exit code 2,
    Stopped one with its own code."""
    take_output()
    limit_memory()
    heed_signals()
    try:
        main()
    except (InputError, OSError) as error:
        end(2, error)
    except MemoryError as error:
        end(2, f"{error or 'out of memory'}: a smaller --batch-size, fewer samples or smaller "
               "networks need less")  # fmt: skip
    except Stopped as stop:
        end(*stop.args)
    except KeyboardInterrupt as signal:
        end(128 + (signal.args or (2,))[0], "stopped")
