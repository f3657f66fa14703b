"""Learning from a few labels a class: the model M2 of Kingma et al. 2014 (arXiv 1406.5298).

The class y of an image x is a latent variable, seen for a few images only: y uniform, z ~ N(0, I),
x ~ p(x|y, z), with a classifier q(y|x) and an encoder q(z|x, y). In nats, with their equations,

    labelled    −L(x, y) = E_{q(z|x,y)}[log p(x|y, z)] + log p(y) − KL(q(z|x, y), p(z))     (6)
    unlabelled  −U(x)    = E_{q(y|x)}[−L(x, y)] + H(q(y|x))                                 (7)
    maximised   J^α      = mean −U + mean −L + α mean log q(y|x)                         (8, 9)

The first two are bounds on log p(x, y) and log p(x); the last two means of J^α are over labelled
images. H is exact, z pathwise. The lesson is the gradient of E_{q(y|x)}[f(y)], f = −L(x, ·), for C
classes (--unlabelled):

    marginal          Σ_y q(y|x) f(y)                                       exact, C passes of f
    gumbel            f(h),  h = softmax((log q + g) / T), g Gumbel noise   biased, 1 pass ¹
    straight-through  f(y),  y = one-hot argmax h, with dy = dh             biased, 1 pass
    reinmax           f(y),  with the dy of reinmax.py, to second order     biased, 1 pass
    reinforce         (f(y_s) − mean of the other f) ∇log q(y_s|x) + ∇f(y_s)    unbiased, S passes
    unordered         Σ_s w_s [(f(y_s) − B_s) ∇log q(y_s|x) + ∇f(y_s)]          unbiased, S passes

gumbel and straight-through are Jang et al. 2017 (arXiv 1611.01144); soft y can carry more than a
class. unordered has S different classes, with w and B of unordered.py. ¹ A step of gumbel makes one
more pass, with hard y and no gradient, to report −U: f(h) is no bound. Unlike both papers: nets of
one tanh layer, dropout of the classifier's pixels, means for sums. Bounds and training are of bits,
accuracy is that of argmax q(y|x) at the grey levels of x.

    python methods/semi_supervised.py
"""

from functools import partial

import reinmax as second_order
import unordered as without_replacement
from categorical import hard_sample, sample
from common import (  # before numpy: it chooses the number of BLAS threads
    Assign,
    InputError,
    gradients,
    stop_gradient,
)
from harness import cli
from harness.data import DATASETS, LABEL_KEYS, is_file, load_dataset, read_images
from harness.figures import plot_analogies, plot_confusion
from harness.gaussian import M2
from harness.models import ACTIVATIONS
from harness.optimizer import Adam, flatten
from harness.streams import INIT, LABELLED, LABELS, SUPERVISED, stream
from harness.run import fit
from harness.trainer import Trainer

import autograd.numpy as np
from tqdm import tqdm

# ------------------------------------------- E_{q(y|x)}[f(y)], several times: (batch,) from log q
# f maps y (samples, batch, C), one-hot or relaxed, to (samples, batch); u are uniforms like y.


def marginal(f, log_q, u, temperature):
    y = np.eye(log_q.shape[-1], dtype=log_q.dtype)[:, None]  # (C, 1, C): each class, all images
    return np.sum(np.exp(log_q).T * f(y), axis=0)


def gumbel(f, log_q, u, temperature):
    h = np.exp(sample(log_q, u, temperature))
    return np.sum(f(h), axis=0) / len(u)


def straight_through(f, log_q, u, temperature):
    h = np.exp(sample(log_q, u, temperature))
    y = h + stop_gradient(hard_sample(log_q, u) - h)
    return np.sum(f(y), axis=0) / len(u)


def reinforce(f, log_q, u, temperature):
    y, S = hard_sample(log_q, u), len(u)
    f_y, log_q_y = f(y), np.sum(y * log_q, axis=-1)
    others = (np.sum(stop_gradient(f_y), axis=0) - stop_gradient(f_y)) / (S - 1)
    score = (stop_gradient(f_y) - others) * (log_q_y - stop_gradient(log_q_y))  # of value 0
    return np.sum(f_y + score, axis=0) / S


def reinmax(f, log_q, u, temperature):
    y = second_order.classes(log_q, u, None, T=temperature)
    return np.sum(f(y), axis=0) / len(u)


def unordered(f, log_q, u, temperature):
    sets = without_replacement.sets("unordered", stop_gradient(log_q)[:, None], by_image(u))
    y = np.swapaxes(sets[:, :, 0], 0, 1)  # (S, batch, C), S different classes of an image
    f_y, log_q_y = f(y), np.sum(y * log_q, axis=-1)
    w, f_minus_B = without_replacement.unordered(*(stop_gradient(a).T for a in (log_q_y, f_y)))
    score = f_minus_B.T * (log_q_y - stop_gradient(log_q_y))  # of value 0
    return np.sum(w.T * (f_y + score), axis=0)


def by_image(u):
    """u (S, batch, C) as unordered.py has it: (batch, S, 1, C), y being the only variable."""
    return np.swapaxes(u, 0, 1)[:, :, None]


UNLABELLED = {"marginal": marginal, "gumbel": gumbel, "straight-through": straight_through,
              "reinmax": reinmax, "reinforce": reinforce, "unordered": unordered}  # fmt: skip


# The defaults of --alpha, chosen by the labels of the validation images: data/results/README.md
ALPHA = {
    "digits": dict.fromkeys(UNLABELLED, 1.0),
    "mnist": {"marginal": 1.0, "gumbel": 30.0, "straight-through": 100.0, "reinmax": 10.0,
              "reinforce": 10.0, "unordered": 10.0},
}  # fmt: skip


# ------------------------------------------------------------------------------------- estimator


def objective(model, params, x, noise, temperature, *, unlabelled="marginal", alpha=1.0):
    """J^α, a scalar, and −U of every unlabelled image, (batch,), as it enters it.

    `x` is (unlabelled images, labelled images, their classes one-hot), `noise` (u (samples, batch,
    C) uniform; ε (batch, z) normal, ε of the labelled images; what dropout keeps of either). One ε
    serves all y of an image: that takes from the differences between classes the noise of z.
    """
    (x_u, x_l, y_l), (u, eps_u, eps_l, keep_u, keep_l) = x, noise
    log_q = model.classify(params, x_u, keep_u)
    f = lambda y: model.bound(params, x_u, y, eps_u)
    entropy = -np.sum(np.exp(log_q) * log_q, axis=-1)
    minus_U = UNLABELLED[unlabelled](f, log_q, u, temperature) + entropy  # eq. 7
    minus_L = model.bound(params, x_l, y_l, eps_l)  # eq. 6
    log_q_l = np.sum(y_l * model.classify(params, x_l, keep_l), axis=-1)
    labelled = np.sum(minus_L + alpha * log_q_l) / len(x_l)
    return np.sum(minus_U) / len(x_u) + labelled, minus_U  # eq. 8 and 9


def init_aux(rng, model):
    """Nothing learned, but a state: [steps done, T of the last one]."""
    return [np.zeros(()), np.zeros(())]


def estimate(model, params, aux, x, noise, *, unlabelled="marginal", alpha=1.0, alpha_ramp=0,
             temperature=1.0, anneal_rate=0.0, min_temperature=0.5):  # fmt: skip
    """The estimator: −U of the discrete model (batch,), nats; gradients like params (ascent); aux.

    The gradient is that of `objective` at T = max(min_temperature, temperature exp(−R step)), with
    R = anneal_rate, or at `temperature` if R is 0; and at α min(1, step / alpha_ramp). For
    "gumbel", of which −U is no bound, the one returned is that of hard y from the same noise.
    """
    T = np.array(temperature, model.dtype)
    if anneal_rate:
        T = np.maximum(min_temperature, temperature * np.exp(-anneal_rate * aux[0]))
    if alpha_ramp:
        alpha = alpha * np.minimum(1, aux[0] / alpha_ramp)

    def J(params):
        J, minus_U = objective(model, params, x, noise, T, unlabelled=unlabelled, alpha=alpha)
        return [J], minus_U

    (grads,), minus_U = gradients(J, params)
    if unlabelled == "gumbel":
        _, minus_U = objective(model, params, x, noise, T, unlabelled="straight-through")
    return minus_U, grads, [Assign(np.array(x, model.dtype)) for x in (aux[0] + 1, T)]


# ------------------------------------------------------------------------------------------- model


def load(name, n, seed, dynamic=True):
    """(data without the labelled images, (labelled data, classes), (images, classes) to be judged).

    The labelled images, n of every class, are drawn from the training set. The last is a dict for
    "valid" and "test", of grey levels in [0, 1]. `dynamic` is that of load_dataset. Raises
    InputError for a dataset without labels or with too few.
    """
    source = name if is_file(name) else DATASETS[name].grey
    arrays = read_images(source)
    if lacking := [key for key in LABEL_KEYS if key not in arrays]:
        instead = "" if is_file(name) else "; choose digits, mnist or fashion-mnist"
        raise InputError(f"--dataset: {name} has no {lacking[0]}{instead}")
    y, rng = arrays["labels_train"], stream(seed, LABELS)
    counts = np.bincount(y, minlength=2)
    least = int(np.argmin(counts))
    if counts[least] == 0:
        raise InputError(f"--dataset: labels_train of {name} has no class {least}: classes are "
                         "0 … C − 1, two at least")  # fmt: skip
    for key in LABEL_KEYS:
        if max(arrays[key]) >= len(counts):
            raise InputError(f"--dataset: {key} of {name} has the class {max(arrays[key])}, which "
                             "labels_train has not")  # fmt: skip
    if n >= counts[least]:
        raise InputError(f"--labels: class {least} has only {counts[least]} images, and one at "
                         f"least has to stay without a label; {n} are asked for")  # fmt: skip
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == k))[:n] for k in np.unique(y)])
    data = load_dataset("mnist-grey" if source == "mnist" else source, dynamic)
    labelled = data._replace(train=data.train[rows])
    data = data._replace(train=np.delete(data.train, rows, axis=0))
    grey = lambda split: (arrays[split] / np.float32(arrays["levels"]), arrays[f"labels_{split}"])
    return data, (labelled, y[rows]), {split: grey(split) for split in ("valid", "test")}


def labelled_batch(labelled, model, rng, args):
    """x, y, ε, keep of at most a batch of labelled images: bits, one-hot classes and noise."""
    data, classes = labelled
    rows = rng.permutation(len(classes))[: args.batch_size]
    x, y = data.batch(rows, rng, model.dtype), np.eye(model.classes, dtype=model.dtype)
    eps = rng.standard_normal((len(x), model.z), model.dtype)
    return x, y[classes[rows]], eps, draw_keep(rng, x, args.dropout)


def draw_keep(rng, x, dropout):
    """What multiplies the classifier's input: 0 with probability P, otherwise 1 / (1 − P)."""
    return (rng.random(x.shape, np.float32) >= dropout).astype(x.dtype) / x.dtype.type(1 - dropout)


def predict(model, params, x):
    """argmax_y q(y|x) of every row of x; for grey levels, the mean of the bits, it is better."""
    return np.argmax(model.classify(params, x), axis=-1)


class M2Trainer(Trainer):
    """Adds labelled images to every batch, and the accuracy to every evaluation."""

    measures = ("bound", "accuracy")

    def __init__(self, args, data, labelled, judged, *rest, **options):
        super().__init__(args, data, *rest, **options)
        self.copies, self.labelled, self.judged = 1, labelled, judged

    def samples_in(self, bound):
        return 1  # --samples of y are averaged, not put into one bound

    def draw(self):
        args, (x_u, (u, eps_u)) = self.args, super().draw()
        rng = stream(args.seed, LABELLED, self.step_count)
        keep_u = draw_keep(rng, x_u, args.dropout)
        x_l, y_l, *noise_l = labelled_batch(self.labelled, self.model, rng, args)
        return (x_u, x_l, y_l), (u, eps_u, noise_l[0], keep_u, noise_l[1])

    def evaluate(self, split):
        x, y = self.judged[split]
        hits = predict(self.model, self.params, x) == y
        return super().evaluate(split) | {"accuracy": float(np.mean(hits))}


def supervised_only(args, model, labelled, rate):
    """Parameters of the same classifier, trained as long in the same way on the labels alone."""
    params = model.init(stream(args.seed, INIT))
    flat, params = flatten(params[: model.n_classifier], model.dtype)
    adam = Adam(flat.size, args.lr, beta2=0.999)
    for step in range(args.steps):
        adam.lr = args.lr * rate(step)
        rng = stream(args.seed, SUPERVISED, step)
        x, y, _, keep = labelled_batch(labelled, model, rng, args)
        f = lambda params: ([np.sum(y * model.classify(params, x, keep)) / len(x)], [])
        (grads,), _ = gradients(f, params)
        adam.ascend(flat, flatten(grads, model.dtype)[0])
    return params


# -------------------------------------------------------------------------------------------- main


def train(args, rate):
    data, labelled, judged = load(args.dataset, args.labels, args.seed, args.dynamic_binarization)
    classes = len(np.unique(labelled[1]))
    if args.unlabelled == "unordered" and args.samples > classes:
        raise InputError(f"--samples: there are only {classes} classes to draw, not {args.samples}")
    model = M2(data.train_mean, classes, args.z, args.hidden, args.depth, args.samples,
               activation=ACTIVATIONS[args.activation])  # fmt: skip
    options = ("unlabelled", "alpha", "alpha_ramp", "temperature", "anneal_rate", "min_temperature")
    ours = partial(estimate, **{name: getattr(args, name) for name in options})
    report = lambda model, aux: {"temperature": float(aux[1])}
    trainer = M2Trainer(
        args, data, labelled, judged, model, ours, init_aux, report, adam={"beta2": 0.999},
        rate=rate,
    )  # fmt: skip

    def complete(folder, rows):
        x, y = judged["test"]
        classifier = supervised_only(args, model, labelled, rate)
        alone = float(np.mean(predict(model, classifier, x) == y))
        if not args.no_plots:
            plot_analogies(folder / "analogies.png", trainer, predict)
            plot_confusion(folder / "confusion.png", y, predict(model, trainer.params, x), classes)
        accuracy, n = rows[-1]["test_accuracy"], len(labelled[1])
        tqdm.write(f"{'test accuracy':20}{accuracy:9.2%} with {n} labels")
        tqdm.write(f"{'supervised only':20}{alone:9.2%} with the same labels, classifier and steps")
        return {"labels": n, "supervised_test_accuracy": alone}

    fit(trainer, complete)


def main(argv=None):
    p = cli.parser(
        "semi_supervised", __doc__, sbn=False, dynamic=True, batch_size=100, eval_samples=10,
        digits={"steps": 2000, "lr": 2e-3, "eval_epochs": 10, "labels": 2},
        full={"steps": 20_000, "lr": 2e-3, "eval_epochs": 1, "labels": 10},
    )  # fmt: skip
    p.flag("--unlabelled", "gradient of the unlabelled bound, see above", choices=list(UNLABELLED))
    p.flag("--labels", "labelled images of every class; default: 2 for digits, 10 for the others",
           type=cli.COUNT, metavar="N")  # fmt: skip
    p.flag("--alpha", "weight of the classifier's term; default: see ALPHA in this file",
           type=cli.number(float, 0, 1e6))  # fmt: skip
    p.flag("--alpha-ramp", "steps in which alpha rises from 0; default: 0, no ramp",
           type=cli.COUNT, metavar="N")  # fmt: skip
    p.flag("--dropout", "of the classifier's pixels in training; not in the papers", 0.5,
           type=cli.number(float, 0, 0.99), metavar="P")  # fmt: skip
    p.flag("--z", "dimensions of z", 10, type=cli.UNITS, metavar="N")
    p.flag("--hidden", "units of a layer of the nets", 200, type=cli.UNITS, metavar="N")
    p.flag("--depth", "such layers of every net", 1, type=cli.LAYERS, metavar="N")
    p.flag("--activation", "of these layers", choices=list(ACTIVATIONS))
    cli.decay_flags(p, 1.0)
    p.flag("--temperature", "first T of the relaxations", 1.0, type=cli.TEMPERATURE)
    p.flag("--anneal-rate", "R: T = max(minimum, first exp(-R step)); 0: T stays; default: 3e-5, "
           "with --unlabelled reinmax 0", type=cli.number(float, 0, 1e6), metavar="R")  # fmt: skip
    p.flag("--min-temperature", "the minimum", 0.5, type=cli.TEMPERATURE)
    args = cli.parse(p, argv)
    if args.alpha is None:
        args.alpha = ALPHA["digits" if args.dataset == "digits" else "mnist"][args.unlabelled]
    if args.alpha == 0:
        p.unread("with --alpha 0", "--alpha-ramp")
    if args.anneal_rate is None:
        args.anneal_rate = 0.0 if args.unlabelled == "reinmax" else 3e-5
    if args.unlabelled in ("marginal", "reinforce", "unordered"):
        mode = f"with --unlabelled {args.unlabelled}"
        p.unread(mode, "--temperature", "--anneal-rate", "--min-temperature")
    if args.unlabelled == "marginal":
        p.unread("with --unlabelled marginal", "--samples")
    if args.anneal_rate == 0:
        p.unread("without --anneal-rate", "--min-temperature")
    elif args.min_temperature == args.temperature:
        p.unread("with --min-temperature equal to --temperature", "--anneal-rate")
    elif args.min_temperature > args.temperature:
        p.error("--min-temperature: it is above --temperature, from where T falls to it")
    if args.task != "generate":
        p.error("--task: M2 is a model of whole images")
    if args.unlabelled == "reinforce" and args.samples < 2:
        p.error("--samples: reinforce needs at least 2, each being a baseline for the others")
    most = without_replacement.MOST
    if args.unlabelled == "unordered" and not 2 <= args.samples <= most:
        p.error(f"--samples: unordered takes 2 to {most} different classes of an image")
    train(args, cli.decay(p, args))


if __name__ == "__main__":
    cli.run(main)
