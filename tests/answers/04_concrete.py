"""Answers to the exercises of chapter 4 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "4.2",
        "right",
        "the Jacobian of softmax as a matrix",
        """
def relaxed_gradient(slope, logits, u, T):
    e = np.exp((logits - np.log(-np.log(u))) / T)
    h = e / e.sum(axis=1, keepdims=True)
    J = (h[:, :, None] * np.eye(h.shape[1]) - h[:, :, None] * h[:, None, :]) / T
    return np.einsum("nkj,nj->nk", J, slope(h))
""",
    ),
    (
        "4.2",
        "right",
        "a row at a time",
        """
def relaxed_gradient(slope, logits, u, T):
    rows = []
    for row in u:
        h = np.exp(log_softmax((logits - np.log(-np.log(row))) / T))
        g = slope(h[None])[0]
        rows.append(h * (g - h @ g) / T)
    return np.array(rows)
""",
    ),
    (
        "4.2",
        "wrong visibly",
        "the 1 / T of the temperature is missing",
        """
def relaxed_gradient(slope, logits, u, T):
    h = np.exp(log_softmax((logits - np.log(-np.log(u))) / T))
    g = slope(h)
    return h * (g - np.sum(h * g, axis=1, keepdims=True))
""",
    ),
    (
        "4.2",
        "wrong visibly",
        "the diagonal of the Jacobian only",
        """
def relaxed_gradient(slope, logits, u, T):
    h = np.exp(log_softmax((logits - np.log(-np.log(u))) / T))
    return h * (1 - h) * slope(h) / T
""",
    ),
    (
        "4.2",
        "wrong visibly",
        "one sign of the Gumbel noise is missing",
        """
def relaxed_gradient(slope, logits, u, T):
    h = np.exp(log_softmax((logits + np.log(-np.log(u))) / T))
    g = slope(h)
    return h * (g - np.sum(h * g, axis=1, keepdims=True)) / T
""",
    ),
    (
        "4.2",
        "wrong visibly",
        "the check's own differences",
        """
def relaxed_gradient(slope, logits, u, T):
    return by_differences(u)
""",
    ),
    (
        "4.2",
        "wrong",
        "right for three classes only",
        """
def relaxed_gradient(slope, logits, u, T):
    h = np.exp(log_softmax((logits - np.log(-np.log(u))) / T))
    g = slope(h)
    out = [h[:, k] * (g[:, k] - sum(h[:, j] * g[:, j] for j in range(3))) for k in range(3)]
    return np.stack(out, axis=1) / T
""",
    ),
    (
        "4.3",
        "right",
        "a coarse grid",
        """
def best_temperature(n):
    grid = np.exp(np.linspace(np.log(0.02), np.log(5), 40))
    errors = []
    for T in grid:
        bias, variance = bias_and_variance(T)
        errors.append(bias**2 + variance / n)
    return grid[int(np.argmin(np.array(errors)))]
""",
    ),
    (
        "4.3",
        "right",
        "scipy, with shape (1,)",
        """
def best_temperature(n):
    from scipy.optimize import minimize_scalar

    def error(log_T):
        bias, variance = bias_and_variance(np.exp(log_T))
        return bias**2 + variance / n

    bounds = (np.log(0.02), np.log(5))
    return np.array([np.exp(minimize_scalar(error, bounds=bounds, method="bounded").x)])
""",
    ),
    (
        "4.3",
        "wrong visibly",
        "the bias, not its square",
        """
def best_temperature(n):
    grid = np.geomspace(0.02, 5, 200)
    moments = np.array([bias_and_variance(T) for T in grid])
    return grid[np.argmin(abs(moments[:, 0]) + moments[:, 1] / n)]
""",
    ),
    (
        "4.3",
        "wrong visibly",
        "the error of one estimate",
        """
def best_temperature(n):
    grid = np.geomspace(0.02, 5, 200)
    moments = np.array([bias_and_variance(T) for T in grid])
    return grid[np.argmin(moments[:, 0] ** 2 + moments[:, 1])]
""",
    ),
    (
        "4.3",
        "wrong visibly",
        "the bias shrinks with n, too",
        """
def best_temperature(n):
    grid = np.geomspace(0.02, 5, 200)
    moments = np.array([bias_and_variance(T) for T in grid])
    return grid[np.argmin((moments[:, 0] ** 2 + moments[:, 1]) / n)]
""",
    ),
    (
        "4.3",
        "wrong visibly",
        "as cold as possible",
        """
def best_temperature(n):
    return 0.02
""",
    ),
    (
        "4.3",
        "wrong visibly",
        "the check's own function",
        """
def best_temperature(n):
    grid = np.geomspace(0.02, 5, 200)
    return grid[np.argmin([error_03(T, n) for T in grid])]
""",
    ),
    (
        "4.4",
        "right",
        "the log-sum-exp written out",
        """
def mended_density(y, logits, T):
    n, a = y.shape[-1], logits - T * y
    log_sum = np.log(np.sum(np.exp(a), axis=-1))
    constant = np.sum(np.log(np.arange(1, n))) + (n - 1) * np.log(T)
    return constant + np.sum(a, axis=-1) - n * log_sum
""",
    ),
    (
        "4.4",
        "right",
        "T taken out of the softmax",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    total = np.log(common.math.factorial(n - 1) * T ** (n - 1))
    return total + (log_softmax(logits - T * y) + 0.0).sum(axis=-1)
""",
    ),
    (
        "4.4",
        "wrong visibly",
        "the density mirrored",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    constant = np.log(common.math.factorial(n - 1)) + (n - 1) * np.log(T)
    return constant + np.sum(log_softmax(logits + T * y), axis=-1)
""",
    ),
    (
        "4.4",
        "wrong visibly",
        "the factorial of n",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    constant = np.log(common.math.factorial(n)) + (n - 1) * np.log(T)
    return constant + np.sum(log_softmax(logits - T * y), axis=-1)
""",
    ),
    (
        "4.4",
        "wrong visibly",
        "n log T",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    constant = np.log(common.math.factorial(n - 1)) + n * np.log(T)
    return constant + np.sum(log_softmax(logits - T * y), axis=-1)
""",
    ),
    (
        "4.4",
        "wrong visibly",
        "the classes in the reverse order, right for two of them",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    constant = np.log(common.math.factorial(n - 1)) + (n - 1) * np.log(T)
    order = np.array([*range(n - 2, -1, -1), n - 1])
    return constant + np.sum(log_softmax(logits[order] - T * y), axis=-1)
""",
    ),
    (
        "4.4",
        "wrong visibly",
        "the logits are ignored",
        """
def mended_density(y, logits, T):
    n = y.shape[-1]
    constant = np.log(common.math.factorial(n - 1)) + (n - 1) * np.log(T)
    return constant + np.sum(log_softmax(-T * y), axis=-1)
""",
    ),
    (
        "4.5",
        "right",
        "from unnormalised logits, the first of equal ones",
        """
def mended_sampler(logits, u, T):
    z = logits - np.log(-np.log(u))
    h = np.exp(log_softmax(z / T))
    hard = np.zeros(h.shape)
    hard[np.arange(len(h)), np.argmax(h, axis=1)] = 1
    return h, hard
""",
    ),
    (
        "4.5",
        "right",
        "log p instead of the logits",
        """
def mended_sampler(logits, u, T):
    z = log_softmax(logits) - np.log(-np.log(u))
    e = np.exp((z - z.max(axis=1)[:, None]) / T)
    h = e / e.sum(axis=1)[:, None]
    hard = (np.argmax(z, axis=1)[:, None] == np.arange(h.shape[1])).astype(float)
    return h, hard
""",
    ),
    (
        "4.5",
        "wrong visibly",
        "one slip mended: probabilities for logits are left",
        """
def mended_sampler(logits, u, T):
    z = np.exp(log_softmax(logits)) - np.log(-np.log(u))
    h = np.exp(log_softmax(z / T))
    return h, np.eye(h.shape[1])[np.argmax(h, axis=1)]
""",
    ),
    (
        "4.5",
        "wrong visibly",
        "the other one mended: equal ones are left",
        """
def mended_sampler(logits, u, T):
    z = logits - np.log(-np.log(u))
    h = np.exp(log_softmax(z / T))
    return h, (z == np.max(z, axis=1, keepdims=True)).astype(float)
""",
    ),
    (
        "4.5",
        "wrong visibly",
        "the noise of an exponential variable",
        """
def mended_sampler(logits, u, T):
    z = logits - np.log(u)
    h = np.exp(log_softmax(z / T))
    return h, np.eye(h.shape[1])[np.argmax(h, axis=1)]
""",
    ),
    (
        "4.5",
        "wrong visibly",
        "the temperature is forgotten",
        """
def mended_sampler(logits, u, T):
    z = logits - np.log(-np.log(u))
    h = np.exp(log_softmax(z))
    return h, np.eye(h.shape[1])[np.argmax(h, axis=1)]
""",
    ),
    (
        "4.5",
        "wrong visibly",
        "the hard sample has noise of its own",
        """
def mended_sampler(logits, u, T):
    z = logits - np.log(-np.log(u))
    h = np.exp(log_softmax(z / T))
    other = logits - np.log(-np.log(u[::-1]))
    return h, np.eye(h.shape[1])[np.argmax(other, axis=1)]
""",
    ),
    (
        "4.6",
        "right",
        "by probabilities",
        """
def mended_evaluation(f, logits, u, T):
    return f(np.where(u < sigmoid(logits), 1.0, 0.0))
""",
    ),
    (
        "4.6",
        "right",
        "the relaxed sample rounded",
        """
def mended_evaluation(f, logits, u, T):
    h = sigmoid((logits + logit(u)) / T)
    return f((h > 0.5) * 1.0)
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "f at the mean bits",
        """
def mended_evaluation(f, logits, u, T):
    return f(np.tile(sigmoid(logits), (len(u), 1)))
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "f at a relaxed coin, colder",
        """
def mended_evaluation(f, logits, u, T):
    return f(sigmoid((logits + logit(u)) / 0.1))
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "the mean of f, enumerated, in every row",
        """
def mended_evaluation(f, logits, u, T):
    bits = common.all_bits(3).astype(float)
    q = np.prod(sigmoid((2 * bits - 1) * logits), axis=1)
    return np.full(len(u), q @ f(bits))
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "the most probable bits",
        """
def mended_evaluation(f, logits, u, T):
    return f(np.tile((logits > 0) * 1.0, (len(u), 1)))
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "fair coins",
        """
def mended_evaluation(f, logits, u, T):
    return f((u > 0.5) * 1.0)
""",
    ),
    (
        "4.6",
        "wrong visibly",
        "the temperature in the wrong place",
        """
def mended_evaluation(f, logits, u, T):
    return f((logits / T + logit(u) > 0) * 1.0)
""",
    ),
]
