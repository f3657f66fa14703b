"""Answers to the exercises of chapter 11 that its checks have to refuse, or to accept.

Each is (exercise, "wrong" or "right", what it is, the source in the place of the solution cell).
"""

ANSWERS = [
    ("11.2", "wrong", "straight-through", '''
def second_order(slope, theta, levels, k):
    pi = softmax(theta)
    return slope[:, None] * pi * (levels - pi @ levels)
'''),
    ("11.2", "wrong", "without the half", '''
def second_order(slope, theta, levels, k):
    step = levels - levels[k][:, None]
    toward = slope[:, None] * softmax(theta) * step
    return toward - np.eye(len(theta))[k] * np.sum(toward, axis=1, keepdims=True)
'''),
    ("11.2", "wrong", "levels one apart", '''
def second_order(slope, theta, levels, k):
    step = np.arange(len(theta)) - k[:, None]
    toward = 0.5 * slope[:, None] * softmax(theta) * step
    return toward - np.eye(len(theta))[k] * np.sum(toward, axis=1, keepdims=True)
'''),
    ("11.2", "wrong", "the neighbours only", '''
def second_order(slope, theta, levels, k):
    step = levels - levels[k][:, None]
    near = abs(np.arange(len(theta)) - k[:, None]) <= 1
    toward = 0.5 * slope[:, None] * softmax(theta) * step * near
    return toward - np.eye(len(theta))[k] * np.sum(toward, axis=1, keepdims=True)
'''),
    ("11.2", "wrong", "right for two levels only", '''
def second_order(slope, theta, levels, k):
    pi, n = softmax(theta), np.arange(len(k))
    g = np.zeros((len(k), len(theta)))
    other = (k + 1) % len(theta)
    g[n, other] = 0.5 * slope * pi[other] * (levels[other] - levels[k])
    g[n, k] = -g[n, other]
    return g
'''),
    ("11.2", "wrong", "nothing pushes the drawn level", '''
def second_order(slope, theta, levels, k):
    return slope[:, None] * softmax(theta) * (levels - levels[k][:, None])
'''),
    ("11.2", "wrong", "the exact gradient of x², whatever f is", '''
def second_order(slope, theta, levels, k):
    pi = softmax(theta)
    exact = pi * (levels**2 - pi @ levels**2)
    return np.tile(exact, (len(k), 1))
'''),
    ("11.2", "wrong", "the mean over the rows that it got", '''
def second_order(slope, theta, levels, k):
    step = levels - levels[k][:, None]
    toward = 0.5 * slope[:, None] * softmax(theta) * step
    g = toward - np.eye(len(theta))[k] * np.sum(toward, axis=1, keepdims=True)
    return np.tile(softmax(theta)[k] @ g / np.sum(softmax(theta)[k]), (len(k), 1))
'''),
    ("11.2", "right", "the matrix of the paper, row by row, as a list", '''
def second_order(slope, theta, levels, k):
    J = lambda p: np.diag(p) - np.outer(p, p)
    pi, rows = softmax(theta), []
    for df, c in zip(slope, k):
        b = np.eye(len(theta))[c]
        rows.append((2 * J((pi + b) / 2) - J(pi) / 2) @ (df * levels))
    return rows
'''),
    ("11.2", "right", "a loop over pairs", '''
def second_order(slope, theta, levels, k):
    pi, g = softmax(theta), np.zeros((len(k), len(theta)))
    for n, c in enumerate(k):
        for j in range(len(theta)):
            push = 0.5 * pi[j] * (levels[j] - levels[c]) * slope[n]
            g[n, j] += push
            g[n, c] -= push
    return g
'''),
    ("11.3", "wrong", "draws that do not know the bit", '''
def gumbel_rao(slope, theta, b, v, T):
    h = sigmoid((theta[:, None] + logit(v)) / T)
    return slope * np.mean(h * (1 - h), axis=2) / T
'''),
    ("11.3", "wrong", "plain draws with the sign of the bit", '''
def gumbel_rao(slope, theta, b, v, T):
    z = (2 * b - 1)[:, :, None] * abs(theta[:, None] + logit(v))
    h = sigmoid(z / T)
    return slope * np.mean(h * (1 - h), axis=2) / T
'''),
    ("11.3", "wrong", "a total derivative", '''
def gumbel_rao(slope, theta, b, v, T):
    s = (2 * b - 1)[:, :, None]
    z = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta[:, None]))))
    h, moves = sigmoid(z / T), (1 - np.exp(-abs(z))) * sigmoid(s * theta[:, None])
    return slope * np.mean(h * (1 - h) * moves, axis=2) / T
'''),
    ("11.3", "wrong", "without 1 / T", '''
def gumbel_rao(slope, theta, b, v, T):
    s = (2 * b - 1)[:, :, None]
    z = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta[:, None]))))
    h = sigmoid(z / T)
    return slope * np.mean(h * (1 - h), axis=2)
'''),
    ("11.3", "wrong", "the mean of h before J", '''
def gumbel_rao(slope, theta, b, v, T):
    s = (2 * b - 1)[:, :, None]
    z = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta[:, None]))))
    h = np.mean(sigmoid(z / T), axis=2)
    return slope * h * (1 - h) / T
'''),
    ("11.3", "wrong", "the first draw only", '''
def gumbel_rao(slope, theta, b, v, T):
    s = 2 * b - 1
    z = s * np.log1p(np.exp(s * logit(v[:, :, 0]) + np.log1p(np.exp(s * theta))))
    h = sigmoid(z / T)
    return slope * h * (1 - h) / T
'''),
    ("11.3", "wrong", "ReinMax", '''
def gumbel_rao(slope, theta, b, v, T):
    return slope * abs(b - sigmoid(theta)) / 2
'''),
    ("11.3", "wrong", "the mean given the bit, by the check's own helper", '''
def gumbel_rao(slope, theta, b, v, T):
    rows = [[moment_03(a_i, b_i, T, 1) for a_i, b_i in zip(theta, row)] for row in b[:1]]
    return slope * rows
'''),
    ("11.3", "wrong", "the method file, which makes its M draws of one uniform", '''
def gumbel_rao(slope, theta, b, v, T):
    import reinmax

    u, options = np.where(b == 1, 1 - 1e-9, 1e-9), {"T": T, "inner": v.shape[2]}
    emitted = lambda theta: reinmax.bits(theta, u, v[:, :, 0], estimator="gumbel-rao", **options)
    return autograd.grad(lambda theta: np.sum(slope * emitted(theta)))(theta + np.zeros(b.shape))
'''),
    ("11.3", "wrong", "right for b = 1 only", '''
def gumbel_rao(slope, theta, b, v, T):
    z = np.log1p(np.exp(logit(v) + np.log1p(np.exp(theta[:, None]))))
    h = sigmoid(z / T)
    return slope * np.mean(h * (1 - h), axis=2) / T
'''),
    ("11.3", "right", "by the uniform given the bit", '''
def gumbel_rao(slope, theta, b, v, T):
    p = sigmoid(theta)[:, None]
    u = np.where(b[:, :, None] == 1, 1 - p + p * v, (1 - p) * v)
    h = sigmoid((theta[:, None] + logit(u)) / T)
    return slope * np.mean(h * (1 - h) / T, axis=2)
'''),
    ("11.3", "right", "a loop over draws, v the other way round", '''
def gumbel_rao(slope, theta, b, v, T):
    total = np.zeros(b.shape)
    for m in range(v.shape[2]):
        w, p = 1 - v[:, :, m], sigmoid(theta)
        u = b * (1 - p + p * w) + (1 - b) * (1 - p) * w
        h = sigmoid((theta + np.log(u / (1 - u))) / T)
        total = total + slope * h * (1 - h) / T
    return (total / v.shape[2]).tolist()
'''),
    ("11.4", "wrong", "the variance of REINFORCE alone", '''
def crossover(f, slope, theta):
    b, p = np.array([0.0, 1.0]), sigmoid(theta)
    chance = np.array([1 - p, p])
    exact = p * (1 - p) * (f(b)[1] - f(b)[0])
    score, reinmax = f(b) * (b - p), abs(b - p) / 2 * slope(b)
    variance = lambda g: chance @ (g - chance @ g) ** 2
    return int(np.floor(variance(score) / (chance @ reinmax - exact) ** 2)) + 1
'''),
    ("11.4", "wrong", "standard deviations", '''
def crossover(f, slope, theta):
    b, p = np.array([0.0, 1.0]), sigmoid(theta)
    chance = np.array([1 - p, p])
    exact = p * (1 - p) * (f(b)[1] - f(b)[0])
    score, reinmax = f(b) * (b - p), abs(b - p) / 2 * slope(b)
    sd = lambda g: np.sqrt(chance @ (g - chance @ g) ** 2)
    return max(1, int((sd(score) - sd(reinmax)) / abs(chance @ reinmax - exact)) + 1)
'''),
    ("11.4", "wrong", "straight-through for ReinMax", '''
def crossover(f, slope, theta):
    b, p = np.array([0.0, 1.0]), sigmoid(theta)
    chance = np.array([1 - p, p])
    exact = p * (1 - p) * (f(b)[1] - f(b)[0])
    score, reinmax = f(b) * (b - p), p * (1 - p) * slope(b)
    variance = lambda g: chance @ (g - chance @ g) ** 2
    n = (variance(score) - variance(reinmax)) / (chance @ reinmax - exact) ** 2
    return max(1, int(np.floor(n)) + 1)
'''),
    ("11.4", "wrong", "no estimate at all may be the least", '''
def crossover(f, slope, theta):
    b, p = np.array([0.0, 1.0]), sigmoid(theta)
    chance = np.array([1 - p, p])
    exact = p * (1 - p) * (f(b)[1] - f(b)[0])
    score, reinmax = f(b) * (b - p), abs(b - p) / 2 * slope(b)
    variance = lambda g: chance @ (g - chance @ g) ** 2
    n = (variance(score) - variance(reinmax)) / (chance @ reinmax - exact) ** 2
    return int(np.floor(n)) + 1
'''),
    ("11.4", "wrong", "rounded down", '''
def crossover(f, slope, theta):
    b, p = np.array([0.0, 1.0]), sigmoid(theta)
    chance = np.array([1 - p, p])
    exact = p * (1 - p) * (f(b)[1] - f(b)[0])
    score, reinmax = f(b) * (b - p), abs(b - p) / 2 * slope(b)
    variance = lambda g: chance @ (g - chance @ g) ** 2
    n = (variance(score) - variance(reinmax)) / (chance @ reinmax - exact) ** 2
    return max(1, int(np.floor(n)))
'''),
    ("11.4", "wrong", "a search with the check's own errors", '''
def crossover(f, slope, theta):
    n = 1
    while True:
        unbiased, biased = errors_04(f, slope, theta, n)
        if unbiased < biased:
            return n
        n += 1
'''),
    ("11.4", "wrong", "a guess", '''
def crossover(f, slope, theta):
    return 100
'''),
    ("11.4", "right", "a search over n", '''
def crossover(f, slope, theta):
    p1 = sigmoid(theta)
    p0 = 1 - p1
    f0, f1, d0, d1 = f(0.0), f(1.0), slope(0.0), slope(1.0)
    exact = p0 * p1 * (f1 - f0)
    mean = p0 * p1 * (d0 + d1) / 2
    r0, r1, m0, m1 = -p1 * f0, p0 * f1, p1 * d0 / 2, p0 * d1 / 2
    n = 1
    while p0 * p1 * (r1 - r0) ** 2 / n >= (mean - exact) ** 2 + p0 * p1 * (m1 - m0) ** 2 / n:
        n += 1
    return n
'''),
    ("11.4", "right", "moments by quadrature and the method files, as a float", '''
def crossover(f, slope, theta):
    import reinforce, reinmax

    def moments(method, **options):
        f_bits = lambda b: f(b[:, 0])
        draw = lambda u, v: method.gradient_samples(f_bits, np.array([theta]), u, v, **options)
        mean, variance = course.exact_moments(draw, [theta])
        return mean[0], variance[0]

    exact, v_score = moments(reinforce)
    biased, v_reinmax = moments(reinmax)
    return np.maximum(1.0, np.floor((v_score - v_reinmax) / (biased - exact) ** 2) + 1)
'''),
    ("11.5", "wrong", "straight-through", '''
def mended_emit(theta, b):
    h = sigmoid(theta)
    return b + h - stop_gradient(h)
'''),
    ("11.5", "wrong", "the middle stopped, so that it has no slope", '''
def mended_emit(theta, b):
    h = 2 * stop_gradient((sigmoid(theta) + b) / 2) - sigmoid(theta) / 2
    return b + h - stop_gradient(h)
'''),
    ("11.5", "wrong", "twice the middle as released", '''
def mended_emit(theta, b):
    h = 4 * (sigmoid(theta) + b) / 2 - sigmoid(theta) / 2
    return b + h - stop_gradient(h)
'''),
    ("11.5", "wrong", "the right slope, another value", '''
def mended_emit(theta, b):
    middle = stop_gradient(logit((sigmoid(theta) + b) / 2) - theta) + theta
    return 2 * sigmoid(middle) - sigmoid(theta) / 2
'''),
    ("11.5", "wrong", "the logits in the middle, not the probabilities", '''
def mended_emit(theta, b):
    h = 2 * sigmoid((theta + b) / 2) - sigmoid(theta) / 2
    return b + h - stop_gradient(h)
'''),
    ("11.5", "wrong", "the score function's sign: it descends at b = 0", '''
def mended_emit(theta, b):
    slope = stop_gradient(b - sigmoid(theta)) / 2
    return b + slope * (theta - stop_gradient(theta))
'''),
    ("11.5", "right", "a slope of its own", '''
def mended_emit(theta, b):
    slope = stop_gradient(abs(b - sigmoid(theta)) / 2)
    return b + slope * (theta - stop_gradient(theta))
'''),
    ("11.5", "right", "with_slope of common.py, and J of the paper", '''
def mended_emit(theta, b):
    p = stop_gradient(sigmoid(theta))
    J = lambda p: p * (1 - p)
    return common.with_slope(b, theta, 2 * J((p + b) / 2) - J(p) / 2)
'''),
    ("11.5", "right", "np.where", '''
def mended_emit(theta, b):
    half = sigmoid(stop_gradient(theta)) / 2
    push = theta - stop_gradient(theta)
    return np.where(b == 1, 1 + (0.5 - half) * push, half * push)
'''),
    ("11.6", "wrong", "noise that does not know b", '''
def mended_rao(slope, theta, b, v, T):
    h = softmax((theta - np.log(-np.log(v))) / T)
    return h * (slope - np.sum(h * slope, axis=1, keepdims=True)) / T
'''),
    ("11.6", "wrong", "straight-through without noise", '''
def mended_rao(slope, theta, b, v, T):
    h = softmax(theta / T)
    return h * (slope - np.sum(h * slope, axis=1, keepdims=True)) / T
'''),
    ("11.6", "wrong", "without 1 / T", '''
def mended_rao(slope, theta, b, v, T):
    h = softmax(categorical.conditional(theta, b, v) / T)
    return h * (slope - np.sum(h * slope, axis=1, keepdims=True))
'''),
    ("11.6", "wrong", "all of z stopped, and θ added outside", '''
def mended_rao(slope, theta, b, v, T):
    def surrogate(theta):
        z = stop_gradient(categorical.conditional(theta, b, v))
        return np.sum(slope * softmax(z / T + theta - stop_gradient(theta)))

    return autograd.grad(surrogate)(theta)
'''),
    ("11.6", "wrong", "ReinMax", '''
def mended_rao(slope, theta, b, v, T):
    pi = softmax(theta)
    J = lambda p: p * slope - p * np.sum(p * slope, axis=1, keepdims=True)
    return 2 * J((pi + b) / 2) - J(pi) / 2
'''),
    ("11.6", "wrong", "only the top held fixed", '''
def mended_rao(slope, theta, b, v, T):
    def surrogate(theta):
        z = categorical.conditional(theta, b, v)
        z = b * stop_gradient(z) + (1 - b) * z
        return np.sum(slope * softmax(z / T))

    return autograd.grad(surrogate)(theta)
'''),
    ("11.6", "right", "J by hand", '''
def mended_rao(slope, theta, b, v, T):
    h = softmax(categorical.conditional(theta, b, v) / T)
    return h * (slope - np.sum(h * slope, axis=1, keepdims=True)) / T
'''),
    ("11.6", "right", "matrices, and the draw written out", '''
def mended_rao(slope, theta, b, v, T):
    E = -np.log(v)
    top = np.sum(b * E, axis=1, keepdims=True)
    z = -np.log(np.where(b == 1, top, E / softmax(theta) + top))
    h = softmax(z / T)
    J = np.einsum("nk,kl->nkl", h, np.eye(3)) - h[:, :, None] * h[:, None, :]
    return np.einsum("nkl,nl->nk", J, slope) / T
'''),
]  # fmt: skip
