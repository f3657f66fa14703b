"""The flags of gumbel_softmax.py, and which of them go together."""

from harness import cli
from harness.models import ACTIVATIONS


def add(p, estimators, objectives):
    """Add to the parser p what gumbel_softmax.py has besides the flags of cli.parser."""
    T, small = cli.TEMPERATURE, cli.number(int, 1, 10**4)
    p.flag("--estimator", "of the gradient; the last two know no --samples", choices=estimators)
    p.flag("--variables", "N, variables per layer (Jang et al.'s paper: 20)", 30, type=small)
    p.flag("--classes", "C, classes of a variable", 10, type=small)
    p.flag("--layers", "of variables; default: 1, with --task predict 2", type=cli.LAYERS)
    p.flag("--hidden", "widths of the nets' layers; default: 512 256, with --task predict none",
           type=cli.UNITS, nargs="*", metavar="WIDTH")  # fmt: skip
    p.flag("--activation", "of these layers", choices=list(ACTIVATIONS))
    p.flag("--prior", "p(b)", choices=("uniform", "learned"))
    p.add_argument("--objective", choices=objectives,
                   help="f(h), see above; default: kl, with several layers log-mass")  # fmt: skip
    p.flag("--straight-through", "hard forward, relaxed backward", action="store_true")
    p.flag("--temperature", "T, or its first value; default: 0.5, with density 2/3, annealed or "
           "with an estimator of reinmax.py 1", type=T)  # fmt: skip
    p.flag("--forward-temperature", "F of reinmax.py", 1.0, type=T)
    p.flag("--inner", "M of gumbel-rao", 10, type=cli.number(int, 1, 10_000), metavar="M")
    p.flag("--prior-temperature", "T of p(y), with density", 0.4, type=T)
    p.flag("--anneal-rate", "R: T = max(minimum, T exp(-R step)); Jang et al.: 1e-5 to 1e-4",
           type=cli.RATE)  # fmt: skip
    p.flag("--anneal-every", "steps between the changes of T", 1000, type=cli.COUNT)
    p.flag("--min-temperature", "the minimum, with --anneal-rate", 0.5, type=T)
    p.flag("--learn-temperature", "by ascent on f(h), which only density bounds: else T runs away",
           action="store_true")  # fmt: skip
    p.flag("--noise", "rebar's z̃ from the random numbers of z, or its own", dest="conditional",
           choices=("coupled", "independent"))  # fmt: skip
    p.flag("--early-stop", "end with the parameters of the best validation bound",
           action="store_true")  # fmt: skip
    cli.decay_flags(p, 0.9)  # as in the notebook of Jang et al.
    p.flag("--toy", "draw exact bias and variance against T instead", action="store_true")


def settle(p, args, hard, sets, most):
    """Refuse what these flags do not read or cannot have, and give the others their defaults.

    `hard` are the estimators of reinmax.py, `sets` those of unordered.py, for at most `most`
    samples.
    """
    refuse_unread(p, args, hard, sets)
    generate, distinct = args.task == "generate", args.estimator in sets
    relaxed = args.estimator == "gumbel-softmax" or args.estimator in hard
    args.layers = args.layers or (1 if generate or distinct else 2)
    args.hidden = ([512, 256] if generate else []) if args.hidden is None else args.hidden
    args.objective = args.objective or ("kl" if args.layers == 1 else "log-mass")
    default_T = 2 / 3 if relaxed and args.objective == "density" else 0.5
    default_T = 1.0 if args.anneal_rate or args.estimator in hard else default_T
    args.temperature = args.temperature or default_T
    if distinct and args.layers > 1:
        p.error(f"--layers: --estimator {args.estimator} has one")
    if distinct and not 2 <= args.samples <= min(most, args.classes**args.variables):
        p.error(f"--samples: --estimator {args.estimator} takes 2 to {most} different ones")
    if args.estimator in ("nvil", "rebar") and args.samples > 1:
        p.error("--samples: not for --estimator nvil and rebar")
    if args.learn_temperature and args.anneal_rate:
        p.error("--learn-temperature: leave it or --anneal-rate away")
    if args.anneal_rate and args.min_temperature >= args.temperature:
        p.error("--min-temperature: it has to be below --temperature, from where T falls to it")
    if args.estimator == "nvil" and args.batch_size < 2:
        p.error("--batch-size: the variance that scales the signal of nvil needs two rows")
    if args.estimator == "reinforce" and args.batch_size * args.samples < 2:
        p.error("--batch-size: the leave-one-out baseline needs two rows")


def refuse_unread(p, args, hard, sets):
    """Refuse the flags that these estimators, objectives and tasks do not read."""
    mode = f"with --estimator {args.estimator}"
    if args.estimator != "gumbel-softmax":
        p.unread(mode, "--straight-through", "--prior-temperature", "--learn-temperature")
    if args.estimator not in ("gumbel-softmax", *hard):
        p.unread(mode, "--objective", "--anneal-rate", "--anneal-every", "--min-temperature")
    if args.estimator not in hard:
        p.unread(mode, "--forward-temperature")
    if args.estimator != "gumbel-rao":
        p.unread("without --estimator gumbel-rao", "--inner")
    if args.estimator in ("reinforce", "nvil", *sets):
        p.unread(mode, "--temperature")
    if args.estimator != "rebar":
        p.unread(mode, "--noise")
    if args.task == "predict":
        p.unread("with --task predict", "--prior", "--objective", "--prior-temperature")
    if args.objective != "density":
        p.unread("without --objective density", "--prior-temperature")
    if not args.anneal_rate:
        p.unread("without --anneal-rate", "--anneal-every", "--min-temperature")
    if args.hidden == [] or (args.hidden is None and args.task == "predict"):
        p.unread("with nets without a hidden layer", "--activation")
