"""--compile: whole training steps as one program of JAX. The estimator's file stays as it is.

An eager step is a few hundred calls of numpy, one after the other. Each reads its arrays from
memory and writes its result back. A compiler that sees all calls of a step at once can join them
into a few loops. numpy_to_jax.py shows them to JAX: the estimator runs once, on arrays without
values; autograd takes its derivatives as ever; JAX notes every call. These notes are the program.
From then on the program runs, and the estimator's Python code does not.

The state (parameters, both Adams, the moving average of the gradient) stays on the device that JAX
chooses (JAX_PLATFORMS). `store` copies it into the arrays of the Trainer for an evaluation or a
checkpoint, which is the same as that of an eager run. Images and noise come from numpy as in an
eager run, so the two can be compared step by step. They are drawn for a block of steps, and one
call of the program makes these steps: what a call costs is paid once a block.

A program does not change. A random number drawn inside `estimate`, a clock, a count kept outside
would be a constant of it. So the first steps are computed eagerly, too, twice each, until two have
agreed: all digits of the two eager gradients, and the compiled one up to rounding. The run is
refused once three have not. One or two may differ by chance: at the kink of a relu, or where a bit
is just at its threshold. What changes later, as at the 1,000th call, or slowly from step to step,
is not noticed.
"""

import importlib
import importlib.util
import math

from common import Assign, InputError

from harness.optimizer import assign_state, flatten

import numpy as np

BLOCK = 16  # steps that one call makes at most
TOLERANCE = 1e-3  # between eager and compiled, of the largest element of a tensor
STATE = ("params", "aux", "ascent_m", "ascent_v", "descent_m", "descent_v", "variance_m1")


def require_jax():
    """Raise InputError, with the command that installs JAX, if it is not there."""
    if importlib.util.find_spec("jax") is None:
        raise InputError("--compile: needs JAX: pip install jax, or say --no-compile")


def ascended(jnp, adam, vector, g, m, v, rate):
    """One step up g, as Adam.ascend: the new vector, m and v."""
    m, v = adam.beta1 * m + g, adam.beta2 * v + g * g
    return vector + rate * m / (jnp.sqrt(v) + adam.scaled_eps), m, v


class Compiled:
    """The compiled steps of a Trainer. It has the state from its first call on."""

    def __init__(self, trainer):
        require_jax()
        self.jit = importlib.import_module("harness.numpy_to_jax")  # late: it changes autograd
        self.trainer, self.state = trainer, None
        self.checks_left, self.may_differ = 2, 2  # steps
        self.program = self.jit.jax.jit(self.block, donate_argnums=0)

    def split(self, key, flat):
        """The arrays of "params" or "aux", of which `flat` is the content."""
        shapes = [a.shape for a in getattr(self.trainer, key)]
        ends = np.cumsum([math.prod(shape) for shape in shapes], dtype=int)
        return [flat[e - math.prod(s) : e].reshape(s) for s, e in zip(shapes, ends)]

    def block(self, state, n, rates, x, noise):
        """What is compiled: the state after the first n of BLOCK steps, and what each reports.

        `rates`, `x` and `noise` have an axis of BLOCK steps in front, and so has each report.
        """
        jax, given = self.jit.jax, (rates, x, noise)
        of = lambda i: jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, 0, False), given)

        def step(i, carry):
            state, reports = carry
            state, report = self.whole_step(state, *of(i))
            return state, jax.tree.map(lambda all, one: all.at[i].set(one), reports, report)

        _, report = jax.eval_shape(lambda state: self.whole_step(state, *of(0)), state)
        reports = jax.tree.map(lambda a: jax.numpy.zeros((BLOCK, *a.shape), a.dtype), report)
        return jax.lax.fori_loop(0, n, step, (state, reports))

    def whole_step(self, state, rates, x, noise):
        """The state after a step, and what the log needs."""
        jnp, trainer, dtype = self.jit.jnp, self.trainer, self.trainer.model.dtype
        params, aux = self.split("params", state["params"]), self.split("aux", state["aux"])
        lazy = self.jit.lazy((params, aux, x, noise))
        bound, grads, aux_grads, *more = self.jit.raw(trainer.estimated(*lazy))

        def flat(arrays):
            parts = [jnp.ravel(jnp.asarray(a, dtype)) for a in arrays]
            return jnp.concatenate([jnp.zeros(0, dtype), *parts])

        # as assign_state: a value where there is an Assign, and there no gradient
        set_to = [g.value if isinstance(g, Assign) else a for a, g in zip(aux, aux_grads)]
        slopes = [0 * a if isinstance(g, Assign) else g for a, g in zip(aux, aux_grads)]
        g, aux_g, assigned = flat(grads), flat(slopes), flat(set_to)
        up, down, (up_rate, down_rate) = trainer.ascent, trainer.descent, rates
        m1 = trainer.variance.decay * state["variance_m1"] + g
        new = {"variance_m1": m1}
        new["params"], new["ascent_m"], new["ascent_v"] = ascended(
            jnp, up, state["params"], g, state["ascent_m"], state["ascent_v"], up_rate
        )
        new["aux"], new["descent_m"], new["descent_v"] = ascended(
            jnp, down, assigned, aux_g, state["descent_m"], state["descent_v"], down_rate
        )
        squares = jnp.stack([a.ravel() @ a.ravel() for a in self.split("params", g)])
        sums = [jnp.sum(a) for a in self.split("aux", aux_g)]  # each is finite, or has a culprit
        return new, (bound, squares, sums, m1 @ m1, assigned, *more)

    def steps(self, limit):
        """Up to `limit` updates; adds what is to be logged of each to that of the Trainer.

        Raises FloatingPointError, as Trainer.update. The state of this object is lost then; the
        arrays of the Trainer are those of the last `store`.
        """
        trainer, tree_map = self.trainer, self.jit.jax.tree.map
        if self.state is None:
            arrays = trainer.arrays()
            self.state = {key: self.jit.jnp.array(arrays[key]) for key in STATE}
        first, n = trainer.step_count, 1 if self.checks_left else min(limit, BLOCK)
        given = []
        for _ in range(n):
            x, noise = trainer.draw()
            rates = [np.float32(adam.next_rate()) for adam in trainer.at_their_rates()]
            given.append((rates, x, noise))
            trainer.step_count += 1
        eager = self.eager(x, noise) if self.checks_left else None
        given += given[-1:] * (BLOCK - n)  # which are not looked at
        given = tree_map(lambda *steps: np.stack(steps), *given)
        try:
            self.state, reports = self.program(self.state, n, *given)
        except Exception as error:
            if not eager:
                raise
            raise self.jit.refusal(error) from error  # it was compiled, and what is eager works
        reports = self.jit.jax.device_get(reports)
        for i in range(n):
            bound, squares, sums, square, aux, *more = tree_map(lambda a, i=i: a[i], reports)
            if not math.isfinite(bound.sum() + squares.sum() + sum(sums)):
                self.state, trainer.step_count = None, first + i
                trainer.refuse_gradients([*squares, *sums])
            if eager:
                self.checks_left -= self.compare(eager, aux)
            variance, raw = trainer.variance.take(float(square), float(squares.sum()))
            trainer.bound_samples = trainer.samples_in(bound)
            trainer.add({
                "train_bound": float(bound.mean()), "variance": variance, "raw_variance": raw,
                **trainer.report(trainer.model, self.split("aux", aux), *more),
            })  # fmt: skip

    def store(self):
        """Copy the state into the arrays of the Trainer."""
        if self.state is not None:
            for key, array in self.trainer.arrays().items():
                if key in STATE:
                    array[...] = np.asarray(self.state[key])

    # -------------------------------------------------------------------- eager beside compiled

    def eager(self, x, noise):
        """What compare needs: the eager gradients, twice, and the averages before the step."""
        trainer, dtype = self.trainer, self.trainer.model.dtype
        self.store()

        def gradients():
            aux = [a.copy() for a in trainer.aux]
            _, grads, aux_grads, *_ = trainer.estimated(trainer.params, aux, x, noise)
            slopes = assign_state(aux, aux_grads)
            return [flatten(arrays, dtype)[0] for arrays in (grads, slopes, aux)]

        keys = "variance_m1", "descent_m", "assigned"
        before = trainer.variance.m1.copy(), trainer.descent.m.copy(), None
        return list(zip(keys, gradients(), gradients(), before))

    def compare(self, eager, assigned):
        """Whether the gradients of the last step agree; InputError if those of three did not."""
        trainer = self.trainer
        decays = {"variance_m1": trainer.variance.decay, "descent_m": trainer.descent.beta1}
        for key, wanted, again, before in eager:
            found = assigned
            if before is not None:  # the average after the step is decay · before + gradient
                found = np.asarray(self.state[key]) - decays[key] * before
            key = "params" if key == "variance_m1" else "aux"
            tensors = zip(*(self.split(key, flat) for flat in (found, wanted, again)))
            for k, (a, b, c) in enumerate(tensors):
                name = trainer.model.names[k] if key == "params" else f"the method's tensor {k}"
                if not np.array_equal(b, c, equal_nan=True):
                    what, more = f"two eager gradients of {name} in one step differ", ""
                elif np.max(np.abs(a - b), initial=0) > TOLERANCE * np.max(np.abs(b), initial=1e-6):
                    what = f"the compiled gradient of {name} is not the eager one"
                    more = ", or cannot be compiled"
                else:
                    continue
                self.may_differ -= 1
                if self.may_differ >= 0:
                    return False
                raise InputError(
                    f"--compile: {what}: the estimator reads something besides its arguments{more}"
                )
        return True
