"""The steps of our methods in PyTorch (eager) and JAX (jit), to time ours against.

The mathematics is written once, for both, in terms of `ops`: what is sum, stop_gradient, … there.
With `tuned` it saves what ours saves: one pass for z and z̃, no direct derivatives where they
cancel, and fused Adam. Without, it is the code that people write: a pass each for b, z and z̃, and
Adam as it comes. Optimiser and random numbers are each framework's own.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np

BETA1, BETA2, EPS = 0.9, 0.99999, 1e-8

# ------------------------------------------------------------------- sigmoid belief network, linear


def unpack(params, layers):
    """Networks (W, b): those of q, upwards; the prior's logits; those of p, upwards."""
    pairs = lambda flat: list(zip(flat[::2], flat[1::2]))
    return pairs(params[: 2 * layers]), params[2 * layers], pairs(params[2 * layers + 1 :])[::-1]


def infer(ops, nets, x, mean, sample, known=()):
    h, activations, logits = x - mean, [], list(known)
    for layer, (W, b) in enumerate(nets[0]):
        if layer == len(logits):
            logits.append(ops.linear(h, W, b))
        activations.append(sample(layer, logits[layer]))
        h = 2 * activations[layer] - 1
    return activations, logits


def bound(ops, nets, x, offset, h, a):
    _, prior, p = nets
    below = [ops.linear(2 * h_i - 1, W, b) for h_i, (W, b) in zip(h, p)]
    total = ops.log_prob(x, below[0] + offset)
    for h_i, a_i, logits in zip(h, a, [*below[1:], prior]):
        total = total + ops.log_prob(h_i, logits) - ops.log_prob(h_i, a_i)
    return total


def reinforce(ops, params, x, noise, data):
    """The surrogate whose gradient methods/reinforce.py estimates."""
    nets = unpack(params, len(noise))
    b, a = infer(ops, nets, x, data.mean, lambda layer, a: ops.hard(a, noise[layer][0]))
    f_b = bound(ops, nets, x, data.offset, b, [ops.stop(a_i) for a_i in a])
    log_q = sum(ops.log_prob(b_i, a_i) for b_i, a_i in zip(b, a))
    signal = ops.stop(f_b)
    signal = signal - (ops.sum(signal) - signal) / (len(x) - 1)
    return ops.sum(signal * log_q + f_b) / len(x)


def rebar(ops, params, x, noise, data, temperature):
    """What methods/rebar.py differentiates: f(b) (batch,) and, as lists with an element for every
    layer, log q (batch,), and f at z and z̃, of shape (2, batch), or at z = z̃, (batch,), if tuned.
    """
    nets, u = unpack(params, len(noise)), [u for u, _ in noise]
    b, a = infer(ops, nets, x, data.mean, lambda layer, a: ops.hard(a, u[layer]))
    f_b = bound(ops, nets, x, data.offset, b, [ops.stop(a_i) for a_i in a])
    stopped = [ops.stop(a_i) for a_i in a]
    direct = unpack([ops.stop(p) for p in params], len(noise)) if ops.tuned else nets

    def relaxed_pass(first, known, slope):
        """f with bits below the layer `first`, and there z with dz/da = slope(dz̃/da)."""

        def sample(layer, a_i):
            if layer < first:
                return b[layer]
            z = a_i + ops.logit(u[layer])
            if layer == first:
                s, fixed = 2 * b[layer] - 1, stopped[layer]
                tilde = -ops.expm1(-abs(ops.stop(z))) * ops.sigmoid(s * fixed)
                z = ops.stop(z) + slope(tilde) * (a[layer] - fixed)
            return ops.sigmoid(z / temperature + a_i * (temperature / (temperature + 1)))

        h, logits = infer(ops, direct, x, data.mean, sample, known[: first + 1])
        return bound(ops, direct, x, data.offset, h, logits)

    layers = range(len(noise))
    if ops.tuned:  # all direct derivatives of the difference cancel
        relaxed = [relaxed_pass(layer, stopped, lambda tilde: 1 - tilde) for layer in layers]
    else:
        slopes = (lambda tilde: 1), (lambda tilde: tilde)
        relaxed = [ops.stack([relaxed_pass(layer, a, slope) for slope in slopes])
                   for layer in layers]  # fmt: skip
    return f_b, [ops.log_prob(b_i, a_i) for b_i, a_i in zip(b, a)], relaxed


def rebar_gradients(ops, params, x, noise, data, temperature, baseline, eta=None):
    """The estimate by methods/rebar.py, with `eta` one per tensor, or 1.

    The weights of the scores are not differentiated by params, but by temperature and baseline:
    so they are cotangents, and not stopped inside of the surrogate.
    """
    outputs, pull = ops.vjp(lambda *params: rebar(ops, params, x, noise, data, temperature), params)
    (f_b, log_q, relaxed), n = outputs, len(x)
    one = f_b * 0 + 1 / n
    f_tilde, difference = (relaxed, one) if ops.tuned else (
        [f[1] for f in relaxed], ops.stack([one, -one])
    )  # fmt: skip
    reinforce = one, [(f_b - baseline) / n for _ in log_q], [0 * f for f in relaxed]
    control = 0 * f_b, [-f / n for f in f_tilde], [difference for _ in relaxed]
    if eta is None:
        both = [(p + q) for p, q in zip(reinforce[1], control[1])]
        return pull((one, both, control[2]))
    return [g + eta_k * h for g, eta_k, h in zip(pull(reinforce), eta, pull(control))]


def second_moment(ops, params, aux, x, noise, data):
    """Mean square of the adaptive REBAR gradient, and that gradient."""
    W1, b1, W2, b2, eta_logits, log_temperature = aux
    h = ops.tanh(ops.linear(x - data.mean, W1, b1))
    baseline, eta = ops.linear(h, W2, b2)[:, 0], 2 * ops.sigmoid(eta_logits)
    T = ops.exp(log_temperature)
    grads = rebar_gradients(ops, params, x, noise, data, T, baseline, eta)
    size = sum(int(np.prod(p.shape)) for p in params)
    return sum(ops.sum(g_k * g_k) for g_k in grads) / size, grads


# ----------------------------------------------------------------------------------- Gaussian VAE


def dreg(ops, params, x, eps, data):
    """The generative gradient of the K-sample bound and DReG's for q, in one backward pass."""
    phi, theta = params[:6], params[6:]

    def net(h, W1, b1, W2, b2, W3, b3):
        h = ops.tanh(ops.linear(ops.tanh(ops.linear(h, W1, b1)), W2, b2))
        return ops.linear(h, W3, b3)

    def q(*phi):
        out = net(x - data.mean, *phi)
        mu, sigma = out[:, : eps.shape[-1]], ops.softplus(out[:, eps.shape[-1] :] + 0.25)
        return mu + sigma * eps, mu, sigma

    def log_weights(z, *theta):
        log_p = ops.log_prob(x, net(z, *theta) + data.offset) - 0.5 * ops.sum(z * z, -1)
        log_q = -0.5 * ops.sum(((z - mu) / sigma) ** 2, -1) - ops.sum(ops.log(sigma), -1)
        return log_p - log_q

    (z, mu, sigma), pull_q = ops.vjp(q, phi)
    mu, sigma, z = ops.stop(mu), ops.stop(sigma), ops.leaf(z)
    log_w, pull_p = ops.vjp(log_weights, [z, *theta])
    w = ops.softmax(ops.stop(log_w), 0)
    dz, *theta_grads = pull_p(w / len(x))
    return [*pull_q((w[..., None] * dz, 0 * mu, 0 * sigma)), *theta_grads]


# ---------------------------------------------------------------------------------------- PyTorch


def torch_ops(tuned, compiled):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)
    program = torch.compile if compiled else lambda f: f

    def linear(h, W, b):
        return torch.addmm(b, h, W) if h.dim() == 2 else h @ W + b

    def log_prob(x, logits):
        x, logits = torch.broadcast_tensors(x, logits)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)

    def vjp(f, inputs):
        outputs = program(f)(*inputs)

        def pull(cotangents):
            return torch.autograd.grad(
                flat(outputs), inputs, flat(cotangents), create_graph=nested["grad"],
                retain_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip

        return outputs, pull

    def flat(tree):
        return [tree] if torch.is_tensor(tree) else [x for part in tree for x in flat(part)]

    nested = {"grad": False}  # are the gradients to be differentiated?
    return SimpleNamespace(
        tuned=tuned, program=program, linear=linear, log_prob=log_prob, vjp=vjp, nested=nested,
        leaf=lambda x: x.detach().requires_grad_(), stop=lambda x: x.detach(),
        hard=lambda a, u: (a.detach() + torch.logit(u) > 0).to(a.dtype),
        sum=lambda x, axis=None: x.sum() if axis is None else x.sum(axis), stack=torch.stack,
        softmax=torch.softmax, sigmoid=torch.sigmoid, softplus=F.softplus, tanh=torch.tanh,
        exp=torch.exp, log=torch.log, expm1=torch.expm1, logit=torch.logit,
    )  # fmt: skip


class Torch:
    """Gradients and training steps in PyTorch: eager, or its functions by torch.compile."""

    def __init__(self, method, params, aux, data, lr, tuned=True, compiled=False):
        import torch

        self.torch, self.ops, self.method = torch, torch_ops(tuned, compiled), method
        self.reinforce = self.ops.program(partial(reinforce, self.ops))
        self.ops.nested["grad"] = method == "REBAR, adaptive"
        tensor = lambda array: torch.tensor(np.asarray(array, np.float32))
        self.data = SimpleNamespace(mean=tensor(data.mean), offset=tensor(data.offset))
        self.images, self.shapes, self.batch = tensor(data.images), data.shapes, data.batch
        self.params = [tensor(p).requires_grad_() for p in params]
        self.aux = [tensor(a).requires_grad_(method == "REBAR, adaptive") for a in aux]
        betas = (BETA1, 0.999 if method == "DReG" else BETA2)
        make = lambda tensors, lr, up: torch.optim.Adam(
            tensors, lr=lr, betas=betas, eps=EPS, maximize=up, fused=tuned or None
        )
        self.ascent = make(self.params, lr, True)
        self.descent = make(self.aux, 10 * lr, False) if self.aux else None

    def gradients(self, x, noise):
        """Like params and like aux, on the given numpy arrays."""
        tensors = lambda item: [self.torch.tensor(a) for a in item]
        noise = self.torch.tensor(noise) if self.method == "DReG" else list(map(tensors, noise))
        grads, aux_grads = self._gradients(self.torch.tensor(x), noise)
        return [g.numpy() for g in grads], [g.numpy() for g in aux_grads]

    def _gradients(self, x, noise):
        grad, f = self.torch.autograd.grad, (self.ops, self.params)
        if self.method == "REBAR, adaptive":
            moment, grads = second_moment(*f, self.aux, x, noise, self.data)
            return [g.detach() for g in grads], grad(moment, self.aux)
        if self.method == "REBAR, fixed":
            return rebar_gradients(*f, x, noise, self.data, 0.5, 0.0), []
        if self.method == "REINFORCE":
            return grad(self.reinforce(self.params, x, noise, self.data), self.params), []
        return dreg(*f, x, noise, self.data), []

    def step(self):
        torch = self.torch
        x = self.images[torch.randint(len(self.images), (self.batch,))]
        if self.method == "DReG":
            noise = torch.randn(self.shapes)
        else:
            noise = [torch.rand(s).clamp(1e-6, 1 - 1e-6).unbind() for s in self.shapes]
        grads, aux_grads = self._gradients(x, noise)
        for tensors, gradients, adam in (
            (self.params, grads, self.ascent), (self.aux, aux_grads, self.descent)
        ):  # fmt: skip
            if gradients:
                for tensor, g in zip(tensors, gradients):
                    tensor.grad = g
                adam.step()


# -------------------------------------------------------------------------------------------- JAX


def jax_ops():
    import jax
    import jax.numpy as jnp

    log_prob = lambda x, logits: jnp.sum(x * logits - jax.nn.softplus(logits), -1)
    logit = lambda u: jnp.log(u) - jnp.log1p(-u)

    def vjp(f, inputs):
        outputs, pull = jax.vjp(f, *inputs)
        return outputs, pull

    return SimpleNamespace(
        tuned=True, linear=lambda h, W, b: h @ W + b, log_prob=log_prob, vjp=vjp,
        leaf=lambda x: x, stop=jax.lax.stop_gradient,
        hard=lambda a, u: (jax.lax.stop_gradient(a) + logit(u) > 0).astype(a.dtype),
        sum=lambda x, axis=None: jnp.sum(x, axis), stack=jnp.stack, softmax=jax.nn.softmax,
        sigmoid=jax.nn.sigmoid, softplus=jax.nn.softplus, tanh=jnp.tanh, exp=jnp.exp, log=jnp.log,
        expm1=jnp.expm1, logit=logit,
    )  # fmt: skip


class Jax:
    """Gradients and training steps in JAX, jitted as a whole."""

    def __init__(self, method, params, aux, data, lr):
        import jax
        import jax.numpy as jnp

        self.jax, ops = jax, jax_ops()
        array = lambda a: jnp.asarray(np.asarray(a, np.float32))
        facts = SimpleNamespace(mean=array(data.mean), offset=array(data.offset))
        images, params, aux = array(data.images), list(map(array, params)), list(map(array, aux))
        beta2 = 0.999 if method == "DReG" else BETA2

        def gradients(params, aux, x, noise):
            if method == "DReG":
                return dreg(ops, params, x, noise, facts), []
            if method == "REINFORCE":
                return jax.grad(lambda p: reinforce(ops, p, x, noise, facts))(params), []
            if method == "REBAR, fixed":
                return rebar_gradients(ops, params, x, noise, facts, 0.5, 0.0), []
            moment = lambda aux: second_moment(ops, params, aux, x, noise, facts)
            aux_grads, grads = jax.grad(moment, has_aux=True)(aux)
            return grads, aux_grads

        def adam(tensor, g, m, v, t, lr):
            m, v = BETA1 * m + (1 - BETA1) * g, beta2 * v + (1 - beta2) * g * g
            rate = lr * jnp.sqrt(1 - beta2**t) / (1 - BETA1**t)
            return tensor + rate * m / (jnp.sqrt(v) + EPS), m, v

        def step(state):
            params, aux, moments, aux_moments, key, t = state
            key, for_rows, for_noise = jax.random.split(key, 3)
            x = images[jax.random.randint(for_rows, (data.batch,), 0, len(images))]
            if method == "DReG":
                noise = jax.random.normal(for_noise, data.shapes)
            else:
                keys = jax.random.split(for_noise, len(data.shapes))
                draw = lambda key, s: jax.random.uniform(key, s, minval=1e-6, maxval=1 - 1e-6)
                noise = [tuple(draw(k, s)) for k, s in zip(keys, data.shapes)]
            grads, aux_grads = gradients(params, aux, x, noise)
            t = t + 1
            new = [adam(p, g, *mv, t, lr) for p, g, mv in zip(params, grads, moments)]
            new_aux = [
                adam(a, g, *mv, t, -10 * lr) for a, g, mv in zip(aux, aux_grads, aux_moments)
            ]
            values = lambda updates: [p for p, *_ in updates]
            rest = lambda updates: [tuple(mv) for _, *mv in updates]
            aux = values(new_aux) or aux
            return values(new), aux, rest(new), rest(new_aux) or aux_moments, key, t

        moments = lambda tensors: [(jnp.zeros_like(a), jnp.zeros_like(a)) for a in tensors]
        key = jax.random.key(0, impl="unsafe_rbg")  # the fastest generator on a CPU
        self.state = params, aux, moments(params), moments(aux), key, jnp.float32(0)
        self._gradients = jax.jit(gradients)
        self._step = jax.jit(step, donate_argnums=0)

    def gradients(self, x, noise):
        """Like params and like aux, on the given numpy arrays."""
        params, aux, *_ = self.state
        grads, aux_grads = self._gradients(params, aux, x, noise)
        return [np.asarray(g) for g in grads], [np.asarray(g) for g in aux_grads]

    def step(self):
        self.state = self.jax.block_until_ready(self._step(self.state))
