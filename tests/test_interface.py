"""check.py --model on a model of one's own: its promises, and its gradients.

A noisy-or network of two layers, and every promise broken once.
"""

import autograd.numpy as np
import check
import common
import numpy
import pytest
from harness.interface import check_interface
from harness.models import SBN


class Deep:
    """Causes of causes: x_j is on with 1 − exp(−s_j(b1)), b1 is affine in b2. q is a chain."""

    names, task, dtype = ["V1", "V2", "prior", "U", "W"], "generate", np.float64
    n_inputs, units = 4, [3, 2]

    def init(self, rng):
        shapes = [(4, 3), (3, 2), (2,), (2, 3), (3, 4)]
        return [0.5 * rng.standard_normal(shape) for shape in shapes]

    def draw_noise(self, rng, batch):
        return common.draw_noise(rng, batch, self.units, self.dtype)

    def centre(self, x):
        return 2 * x - 1

    def infer(self, params, x, sample, known_logits=()):
        h, activations, logits = self.centre(x), [], list(known_logits)
        for layer in range(2):
            if layer == len(logits):
                logits.append(np.dot(h, params[layer]))
            activations.append(sample(layer, logits[layer]))
            h = 2 * activations[layer] - 1
        return activations, logits

    def bound_terms(self, params, x, activations, logits):
        (b1, b2), (a1, a2) = activations, logits
        s = 0.1 + np.dot(b1, common.softplus(params[4]))
        log_p = np.sum(x * np.log(-np.expm1(-s)) - (1 - x) * s, axis=-1)
        p1, p2 = self.generative_logits(params, activations)
        log = common.bernoulli_log_prob
        return [log_p - log(b1, a1), log(b1, p1) + log(b2, p2) - log(b2, a2)]

    def bound(self, params, x, activations, logits):
        return sum(self.bound_terms(params, x, activations, logits))

    def generative_logits(self, params, activations):
        return [np.dot(activations[1], params[3]), params[2]]


IMAGES = np.array([[1.0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0]])


def test_a_model_that_keeps_all():
    check_interface(Deep(), IMAGES)


@pytest.mark.parametrize("task", ["generate", "predict"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_belief_network_keeps_all(layers, task):
    model = SBN(np.full(4, 0.4), 3, layers, nonlinear=True, task=task, dtype=np.float64)
    check_interface(model, IMAGES)


def float32(self, rng):
    return [p.astype(np.float32) for p in Deep.init(self, rng)]


def forgets_known(self, params, x, sample, known_logits=()):
    return Deep.infer(self, params, x, sample, [a + 0.1 for a in known_logits])


RIGHT = Deep()


def batch_mean(self, params, x, b, a):
    f = RIGHT.bound(params, x, b, a)
    return f + 0 * f if np.ndim(f) > 1 else f - np.mean(f) * np.arange(len(f))


def flat_only(self, params, x, b, a):
    return np.sum(RIGHT.bound(params, x, b, a).reshape(-1, len(x)), axis=0)


def bits_only(self, params, x, b, a):
    at_bits = [np.where(b_i * (1 - b_i) == 0, b_i, np.nan) for b_i in b]
    return RIGHT.bound(params, x, at_bits, a)


def narrow(self, params, x, sample, known_logits=()):
    b, a = RIGHT.infer(params, x, sample, known_logits)
    return b, [a[0], a[1][:, :1]]


def prior_below(self, params, x, b, a):
    first, second = RIGHT.bound_terms(params, x, b, a)
    prior = common.bernoulli_log_prob(b[1], params[2])
    return [first + prior, second - prior]


def in_numpy(self, params, x, b, a):
    both = numpy.concatenate([params[0], params[0]], axis=1)  # an array of objects, if traced
    return RIGHT.bound(params, x, b, a) + np.sum(np.exp(both))


def writes(self, params, x, b, a):
    f = RIGHT.bound(params, x, b, a)
    params[2][0] = params[2][0]
    return f


def writes_if_traced(self, params, x, b, a):
    f = RIGHT.bound(params, x, b, a)
    if not isinstance(params[2], np.ndarray):
        params[2][0] = 0.0
    return f


def in_place(function, argument):
    """RIGHT's function, which first doubles an argument, or the first array of one, in place."""

    def broken(self, *arguments):
        array = arguments[argument]
        array = array[0] if isinstance(array, (list, tuple)) else array
        array *= 2
        return getattr(RIGHT, function)(*arguments)

    return {function: broken}


def emits_doubled(self, params, x, sample, known_logits=()):
    def doubled(layer, a):
        b = sample(layer, a)
        b *= 2
        return b

    return RIGHT.infer(params, x, doubled, known_logits)


def noise_by(draw):
    """draw_noise whose pairs are draw(rng, shape), shape (2, rows, units)."""
    pairs = lambda self, rng, n: [tuple(draw(rng, (2, n, d))) for d in self.units]
    return {"draw_noise": pairs}


def nan_first(self, rng):
    params = RIGHT.init(rng)
    params[1][0] = np.nan
    return params


def nan_logits(self, params, x, sample, known_logits=()):
    b, a = RIGHT.infer(params, x, sample, known_logits)
    return b, [a[0], np.log(a[1] - 100)]


RIGHT_BOUND = lambda self, *a: RIGHT.bound(*a)
RIGHT_TERMS = lambda self, *a: RIGHT.bound_terms(*a)
only_bound = lambda self, *a: [0.0, self.bound(*a)]  # for whatever the bound is
BROKEN = {
    "no centre": ({"centre": None}, "model has no centre"),
    "names missing": ({"names": ["V1"]}, "init gives 5 arrays; it has to be 1, one for each of na"),
    "units of one layer": ({"units": 3}, "units is 3; it has to be a list, of how many bits each"),
    "names in a word": ({"names": "VVpUW"}, "names is 'VVpUW'; it has to be a list, with a name"),
    "whole numbers": ({"dtype": int}, "dtype is <class 'int'>; it has to be np.float32 or np.fl"),
    "task": ({"task": "generation"}, "task is 'generation'; it has to be 'generate' or 'predict'"),
    "no batch": ({"draw_noise": lambda self, rng: []},
                 "draw_noise takes other arguments (too many positional arguments): see 'Write a "),
    "no known logits": ({"infer": lambda self, params, x, s: RIGHT.infer(params, x, s)},
                        "infer takes other arguments (too many positional arguments): see 'Write"),
    "one list": ({"infer": lambda self, *a: [RIGHT.infer(*a)[0]]},
                 "infer gives 1 of them; it has to be two lists, activations and logits"),
    "a narrow prior": ({"generative_logits": lambda self, params, b:
                        [RIGHT.generative_logits(params, b)[0], params[2][:1]],
                        "bound_terms": RIGHT_TERMS},
                       "generative_logits gives the shape (1,); it has to be (3, 2), or (2,) for"),
    "float32": ({"init": float32}, "V1 of init gives float32; it has to be an array of float64"),
    "another size": ({"n_inputs": 5}, "images gives (3, 4); it has to be (rows, 5)"),
    "narrow": ({"infer": narrow}, "infer, its logits, gives [(3, 3), (3, 1)]; it has to be [("),
    "centre of all": ({"centre": lambda self, x: np.sum(x)}, "centre gives (); it has to be"),
    "one uniform": ({"draw_noise": lambda self, rng, n: [rng.random((n, d)) for d in self.units]},
                    "draw_noise gives [(3, 3), (3, 2)]; it has to be for each layer a pair"),
    "known logits": ({"infer": forgets_known}, "infer with known_logits of 1 gives others; it has"),
    "mean": ({"bound": lambda self, *a: np.mean(RIGHT.bound(*a))}, "bound gives (); it has to be"),
    "sum": ({"bound": lambda self, *a: RIGHT.bound(*a) + 1}, "the sum of bound_terms gives "),
    "one term": ({"bound_terms": lambda self, *a: [RIGHT.bound(*a)]},
                 "bound_terms gives 1 terms; it has to be 2, one a layer"),
    "a term too low": ({"bound_terms": prior_below},
                       "term 0 of bound_terms gives another value when a layer above 0 changes"),
    "prior only": ({"generative_logits": lambda self, params, b: [params[2]],
                    "bound_terms": RIGHT_TERMS},
                   "generative_logits gives 1 arrays; it has to be 2"),
    "rows mixed": ({"bound": batch_mean, "bound_terms": only_bound}, "bound of "),
    "leading axes": ({"bound": flat_only, "bound_terms": only_bound},
                     "bound of activations (2, rows, units) gives (3,)"),
    "plain numpy": ({"bound": in_numpy, "bound_terms": only_bound},
                    "bound cannot be differentiated ("),
    "params written into": ({"bound": writes, "bound_terms": only_bound}, "bound writes into an "
                            "array that it was given; it has to leave params, x and activations"),
    "written into if traced": ({"bound": writes_if_traced, "bound_terms": only_bound},
                               "bound cannot be differentiated ("),
    "x written into": (in_place("bound", 1), "bound writes into an array that it was given; it "),
    "bits written into": (in_place("bound_terms", 2) | {"bound": RIGHT_BOUND},
                          "bound_terms writes into an array that it was given; it has to leave"),
    "logits written into": (in_place("bound", 3), "bound writes into an array that it was given; "),
    "x centred in place": (in_place("centre", 0), "centre writes into an array that it was given"),
    "x of infer": (in_place("infer", 1), "infer writes into an array that it was given; it has to"),
    "of the prior": (in_place("generative_logits", 1) | {"bound_terms": RIGHT_TERMS},
                     "generative_logits writes into an array that it was given; it has to leave"),
    "a sample written into": ({"infer": emits_doubled}, "infer writes into an array that it was g"),
    "normal noise": (noise_by(lambda rng, shape: rng.standard_normal(shape)),
                     "draw_noise gives numbers from -0.704 to 1.3; it has to be uniforms in "),
    "noise of 0 and 1": (noise_by(lambda rng, shape: np.round(rng.random(shape))),
                         "draw_noise gives numbers from 0 to 1; it has to be uniforms in (0, 1)"),
    "without rng": (noise_by(lambda rng, shape: np.random.default_rng(0).random(shape)),
                    "draw_noise gives the same numbers twice; it has to be all new, drawn fr"),
    "u for v": (noise_by(lambda rng, shape: np.broadcast_to(rng.random(shape[1:]), shape)),
                "draw_noise gives the same numbers twice; it has to be all new, drawn fr"),
    "another generator": (noise_by(lambda rng, shape: np.random.default_rng().random(shape)),
                          "draw_noise gives other numbers for the same rng; it has to be drawn fr"),
    "init not finite": ({"init": nan_first}, "V2 of init gives what is not finite; it has to be f"),
    "centre not finite": ({"centre": lambda self, x: x / 0}, "centre gives what is not finite; it"),
    "logits not finite": ({"infer": nan_logits}, "infer, its logits, gives what is not finite; it"),
    "the sign of log q": ({"bound": lambda self, params, x, b, a: RIGHT.bound(params, x, b, a)
                           + 2 * common.bernoulli_log_prob(b[1], a[1]), "bound_terms": only_bound},
                          "bound gives Σ_b q exp(bound) = "),
    "bits only": ({"bound": bits_only, "bound_terms": only_bound},
                  "bound gives what is not finite; it has to be finite between bits, too"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_promise_that_is_broken(name):
    changes, message = BROKEN[name]
    bases = (Deep,)
    if name == "no centre":
        bases, changes = (), {k: x for k, x in vars(Deep).items() if k[0] != "_" and k != "centre"}
    with pytest.raises(common.InputError) as error, np.errstate(all="ignore"):
        check_interface(type("Mine", bases, changes)(), IMAGES)
    assert str(error.value).startswith(message), str(error.value)


@pytest.mark.parametrize("dtype", [float, "f8", np.dtype("float64")])
def test_other_words_for_the_same(dtype):
    model = type("Mine", (Deep,), {"dtype": dtype})()
    model.units = np.array(model.units)
    check_interface(model, IMAGES)


def test_images_that_are_not_finite():
    images = np.where(IMAGES == 1, np.nan, IMAGES)
    with pytest.raises(common.InputError, match="images gives what is not finite"):
        check_interface(Deep(), images)


def test_a_file_that_writes_into_x_is_refused_in_a_line(tmp_path):
    """As every broken promise; an error of its own is shown with its lines."""
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    parts = text[text.index("class Deep") : text.index("def test_a_model")]
    head = "import autograd.numpy as np\nimport common\n"
    right = "return 2 * x - 1"
    for name, wrong, start in (
        ("one", "x *= 2; x -= 1; return x", "centre writes into an array that it was given"),
        ("two", "raise ValueError", "in your file:"),
    ):
        file = tmp_path / f"{name}.py"
        assert parts.count(right) == 1
        file.write_text(f"{head}{parts.replace(right, wrong)}model, images = Deep(), IMAGES[:2]\n")
        with pytest.raises(common.InputError) as error:
            check.main([str(file), "--model"])
        assert str(error.value).startswith(start)
        assert ("\n" in str(error.value)) == (name == "two")


def test_two_layers_by_rebar_and_rloo(tmp_path, capsys):
    file = tmp_path / "deep.py"
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    parts = text[text.index("class Deep") : text.index("def test_a_model")]
    file.write_text("import autograd.numpy as np\nimport common\n" + parts + "model = Deep()\n")
    with pytest.raises(common.InputError, match="it has to have images too"):
        check.main([str(file), "--model"])
    file.write_text(file.read_text() + "images = IMAGES[:2]\n")
    check.main([str(file), "--model", "--estimates", "64000"])
    out = capsys.readouterr().out
    assert "unbiased as far as" in out
    assert out.count(" rebar ") == out.count(" rloo ") == 5


def test_its_own_estimate_on_its_own_model(tmp_path, capsys):
    file = tmp_path / "deep.py"
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    parts = text[text.index("class Deep") : text.index("def test_a_model")]
    own = """
import reinforce
model, images = Deep(), IMAGES[:2]
def estimate(model, params, aux, x, noise):
    return reinforce.estimate(model, params, aux, x, noise)
def halved(model, params, aux, x, noise):
    f, grads, aux_grads = reinforce.estimate(model, params, aux, x, noise)
    return f, [0.5 * g for g in grads], aux_grads
"""
    file.write_text("import autograd.numpy as np\nimport common\n" + parts + own)
    check.main([str(file), "--model", "--estimates", "32000"])
    assert capsys.readouterr().out.count(" your model ") == 5
    with pytest.raises(check.Stopped):
        check.main([f"{file}:halved", "--model", "--estimates", "32000"])
    assert "biased: " in capsys.readouterr().out
