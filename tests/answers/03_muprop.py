"""Answers to the exercises of chapter 3 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "3.2",
        "right",
        "f split in two parts",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    score = b - mu
    linear = C + np.sum(w * (b - mu), axis=1)
    return (f(b) - linear).reshape(-1, 1) * score + w * mu * common.sigmoid(-logits)
""",
    ),
    (
        "3.2",
        "right",
        "what is given back by summing over all bits",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    every, q = all_bits(logits)
    back = (q * ((every - mu) @ w)) @ (every - mu)
    return (f(b) - C - (b - mu) @ w)[:, None] * (b - mu) + back
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "nothing given back",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    return (f(b) - C - (b - mu) @ w)[:, None] * (b - mu)
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "the slopes given back, not through the logits",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    return (f(b) - C - (b - mu) @ w)[:, None] * (b - mu) + w
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "the constant is ignored",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    return (f(b) - (b - mu) @ w)[:, None] * (b - mu) + w * mu * (1 - mu)
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "the sign of what is given back",
        """
def with_linear(f, logits, b, w, C):
    mu = common.sigmoid(logits)
    return (f(b) - C - (b - mu) @ w)[:, None] * (b - mu) - w * mu * (1 - mu)
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def with_linear(f, logits, b, w, C):
    return np.tile(common.exact_gradient(f, logits), (len(b), 1))
""",
    ),
    (
        "3.2",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def with_linear(f, logits, b, w, C):
    every, q = all_bits(logits)
    return np.tile((q * f(every)) @ (every - common.sigmoid(logits)), (len(b), 1))
""",
    ),
    (
        "3.3",
        "right",
        "bisection",
        """
def break_even(a, theta):
    mean_f = -5 + a * common.sigmoid(theta)
    target = one_bit(a, 0.0, theta, s0=0.0, s1=0.0, baseline=mean_f)
    low, high = 0.0, 50.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if one_bit(a, middle, theta) < target else (low, middle)
    return high
""",
    ),
    (
        "3.3",
        "right",
        "a formula in tanh",
        """
def break_even(a, theta):
    t = np.tanh(abs(theta) / 2)
    return np.array([4 * a * t / (1 + 3 * t**2)])
""",
    ),
    (
        "3.3",
        "wrong visibly",
        "right for θ > 0 only",
        """
def break_even(a, theta):
    p = common.sigmoid(theta)
    return a * (2 * p - 1) / (1 - 3 * p * (1 - p))
""",
    ),
    (
        "3.3",
        "wrong visibly",
        "tangent and chord confused",
        """
def break_even(a, theta):
    p = common.sigmoid(theta)
    return a * abs(1 - 2 * p) / (1 - p * (1 - p))
""",
    ),
    (
        "3.3",
        "wrong visibly",
        "where the tangent's slope is the chord's",
        """
def break_even(a, theta):
    return a
""",
    ),
    (
        "3.3",
        "wrong visibly",
        "half of it",
        """
def break_even(a, theta):
    p = common.sigmoid(theta)
    return 0.5 * a * abs(1 - 2 * p) / (1 - 3 * p * (1 - p))
""",
    ),
    (
        "3.4",
        "right",
        "the gradient at every row's μ",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits) + 0 * b
    D = autograd.grad(lambda m: anp.sum(f(m)))(mu)
    signal = f(b) - f(mu) - np.sum(D * (b - mu), axis=1)
    return signal[:, None] * (b - mu) + D * mu * (1 - mu)
""",
    ),
    (
        "3.4",
        "right",
        "the derivative by central differences",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits)
    steps = 1e-5 * np.eye(len(mu))
    D = (f(mu + steps) - f(mu - steps)) / 2e-5
    signal = f(b) - f(mu[None]) - (b - mu) @ D
    return signal[:, None] * (b - mu) + D * mu * (1 - mu)
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "plain REINFORCE",
        """
def mended_34(f, logits, b):
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "REINFORCE with f(μ) as baseline",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits)
    return (f(b) - f(mu[None]))[:, None] * (b - mu)
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "expanded at a fair coin, given back at μ",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits)
    D = autograd.grad(lambda m: f(m[None])[0])(0 * mu + 0.5)
    signal = f(b) - f(mu[None]) - (b - mu) @ D
    return signal[:, None] * (b - mu) + D * b.mean(axis=0) * (1 - mu)
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "the correction without μ (1 − μ)",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits)
    D = autograd.grad(lambda m: f(m[None])[0])(mu)
    signal = f(b) - f(mu[None]) - (b - mu) @ D
    return signal[:, None] * (b - mu) + D
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended_34(f, logits, b):
    return np.tile(common.exact_gradient(f, logits), (len(b), 1))
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def mended_34(f, logits, b):
    every, q = all_bits(logits)
    return np.tile((q * f(every)) @ (every - common.sigmoid(logits)), (len(b), 1))
""",
    ),
    (
        "3.4",
        "wrong visibly",
        "the estimator of muprop.py",
        """
def mended_34(f, logits, b):
    p = common.sigmoid(logits)
    u = np.where(b == 1, 1 - p / 2, (1 - p) / 2)
    return muprop.gradient_samples(f, logits, u, u)
""",
    ),
    (
        "3.4",
        "wrong",
        "without the value at μ",
        """
def mended_34(f, logits, b):
    mu = common.sigmoid(logits)
    D = autograd.grad(lambda m: f(m[None])[0])(mu)
    signal = f(b) - (b - mu) @ D - f(mu[None]) * 0 - D @ mu
    return signal[:, None] * (b - mu) + D * mu * (1 - mu)
""",
    ),
    (
        "3.5",
        "right",
        "by hand",
        """
def mended_35(f, logits, b):
    mu = common.sigmoid(logits)
    return (f(b) - f(np.tile(mu, (len(b), 1))))[:, None] * (b - mu)
""",
    ),
    (
        "3.5",
        "right",
        "the trace cut with stop_gradient",
        """
def mended_35(f, logits, b):
    def surrogate(tiled):
        mu = common.stop_gradient(1 / (1 + anp.exp(-tiled)))
        log_q = anp.sum(b * tiled - anp.log(1 + anp.exp(tiled)), axis=1)
        return anp.sum((f(b) - f(mu)) * log_q)

    return autograd.grad(surrogate)(np.tile(logits, (len(b), 1)))
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "no baseline any more",
        """
def mended_35(f, logits, b):
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "log q cut out as well, so that only the leak is left",
        """
def mended_35(f, logits, b):
    def surrogate(tiled):
        mu = 1 / (1 + anp.exp(-tiled))
        log_q = common.stop_gradient(anp.sum(b * tiled - anp.log(1 + anp.exp(tiled)), axis=1))
        return anp.sum((f(b) - f(mu)) * log_q)

    return autograd.grad(surrogate)(np.tile(logits, (len(b), 1)))
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "one gradient of all rows, divided by their number",
        """
def mended_35(f, logits, b):
    mu = common.sigmoid(logits)
    g = (f(b) - f(mu[None])) @ (b - mu) / len(b)
    return np.tile(g, (len(b), 1))
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "the estimator of muprop.py",
        """
def mended_35(f, logits, b):
    p = common.sigmoid(logits)
    u = np.where(b == 1, 1 - p / 2, (1 - p) / 2)
    return muprop.gradient_samples(f, logits, u, u, s1=0.0)
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended_35(f, logits, b):
    return np.tile(common.exact_gradient(f, logits), (len(b), 1))
""",
    ),
    (
        "3.5",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def mended_35(f, logits, b):
    every, q = all_bits(logits)
    return np.tile((q * f(every)) @ (every - common.sigmoid(logits)), (len(b), 1))
""",
    ),
    (
        "3.5",
        "wrong",
        "f of a fair coin as the baseline",
        """
def mended_35(f, logits, b):
    return (f(b) - f(0 * b + 0.5))[:, None] * (b - common.sigmoid(logits))
""",
    ),
]
