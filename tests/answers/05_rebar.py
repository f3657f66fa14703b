"""Answers to the exercises of chapter 5 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "5.2",
        "right",
        "z = 0 as the bound, by quantiles of the truncated normal",
        """
def conditional_probit(a, b, v):
    low, high = (stats.norm.cdf(-a), 1.0) if b else (0.0, stats.norm.cdf(-a))
    return a + stats.norm.ppf(low + (high - low) * v)
""",
    ),
    (
        "5.2",
        "right",
        "from the other end",
        """
def conditional_probit(a, b, v):
    if b == 1:
        return a - stats.norm.ppf(stats.norm.cdf(a) * (1 - v))
    return a - stats.norm.ppf(1 - stats.norm.cdf(-a) * (1 - v))
""",
    ),
    (
        "5.2",
        "right",
        "by scipy",
        """
def conditional_probit(a, b, v):
    limits = (-a, np.inf) if b == 1 else (-np.inf, -a)
    return a + stats.truncnorm.ppf(v, *limits)
""",
    ),
    (
        "5.2",
        "wrong visibly",
        "noise without the condition",
        """
def conditional_probit(a, b, v):
    return a + stats.norm.ppf(v)
""",
    ),
    (
        "5.2",
        "wrong visibly",
        "the bits exchanged",
        """
def conditional_probit(a, b, v):
    if b == 0:
        return a + stats.norm.ppf(stats.norm.cdf(-a) + v * stats.norm.cdf(a))
    return a + stats.norm.ppf(v * stats.norm.cdf(-a))
""",
    ),
    (
        "5.2",
        "wrong visibly",
        "half a normal on the side of b",
        """
def conditional_probit(a, b, v):
    return (2 * b - 1) * np.abs(stats.norm.ppf(0.5 + v / 2))
""",
    ),
    (
        "5.2",
        "wrong visibly",
        "folded: the right sign, another law",
        """
def conditional_probit(a, b, v):
    return (2 * b - 1) * np.abs(a + stats.norm.ppf(v))
""",
    ),
    (
        "5.2",
        "wrong visibly",
        "the right law, but frozen: no path in a",
        """
def conditional_probit(a, b, v):
    fixed = a_02
    if b == 1:
        return fixed + stats.norm.ppf(stats.norm.cdf(-fixed) + v * stats.norm.cdf(fixed))
    return fixed + stats.norm.ppf(v * stats.norm.cdf(-fixed))
""",
    ),
    (
        "5.3",
        "right",
        "a search on a grid of 0.05",
        """
def best_eta(estimates):
    u, _, weights = common.quadrature([theta_03], 5000)
    grid = np.arange(-1, 4, 0.05)
    variances = []
    for eta in grid:
        g = estimates(u, eta)[:, 0]
        variances.append(weights @ g**2 - (weights @ g) ** 2)
    return grid[np.argmin(variances)]
""",
    ),
    (
        "5.3",
        "right",
        "a parabola through three variances, with shape (1,)",
        """
def best_eta(estimates):
    v = [course.exact_moments(lambda u, v: estimates(u, eta), [theta_03], n_u=5000)[1]
         for eta in (0.0, 0.5, 1.0)]
    a, b, _ = np.polyfit([0.0, 0.5, 1.0], np.ravel(v), 2)
    return np.array([-b / (2 * a)])
""",
    ),
    (
        "5.3",
        "wrong visibly",
        "η = 1",
        """
def best_eta(estimates):
    return 1.0
""",
    ),
    (
        "5.3",
        "wrong visibly",
        "the sign",
        """
def best_eta(estimates):
    u, _, weights = common.quadrature([theta_03], 5000)
    g_0, g_1 = (estimates(u, eta)[:, 0] for eta in (0.0, 1.0))
    c = g_1 - g_0
    return (weights @ ((g_0 - weights @ g_0) * c)) / (weights @ c**2)
""",
    ),
    (
        "5.3",
        "wrong visibly",
        "divided by the variance of the wrong one",
        """
def best_eta(estimates):
    u, _, weights = common.quadrature([theta_03], 5000)
    g_0, g_1 = (estimates(u, eta)[:, 0] for eta in (0.0, 1.0))
    c = g_1 - g_0
    return -(weights @ ((g_0 - weights @ g_0) * c)) / (weights @ (g_0 - weights @ g_0) ** 2)
""",
    ),
    (
        "5.3",
        "wrong visibly",
        "the better one of 0 and 1",
        """
def best_eta(estimates):
    u, _, weights = common.quadrature([theta_03], 5000)
    g_0, g_1 = (estimates(u, eta)[:, 0] for eta in (0.0, 1.0))
    return float(weights @ g_1**2 < weights @ g_0**2)
""",
    ),
    (
        "5.3",
        "wrong visibly",
        "the check's own function",
        """
def best_eta(estimates):
    grid = np.arange(-1, 4, 0.02)
    return grid[np.argmin([variance_03(eta) for eta in grid])]
""",
    ),
    (
        "5.4",
        "right",
        "the two paths taken apart",
        """
def mended(f, slope, theta, u, T, eta):
    z = theta + logit(u)
    b = np.where(z > 0, 1.0, 0.0)
    h = 1 / (1 + np.exp(-z / T))
    p = sigmoid(theta)
    along = slope(h) * h * (1 - h) / T
    tilde = np.where(b == 1, p * (1 - np.exp(-z)), (1 - p) * (1 - np.exp(z)))
    control = f(h)[:, None] * (b - p) - along + along * tilde
    return f(b)[:, None] * (b - p) - eta * control
""",
    ),
    (
        "5.4",
        "right",
        "dz̃/dθ by differences of z̃ at the same v",
        """
def mended(f, slope, theta, u, T, eta):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    p = sigmoid(theta)
    v = np.where(b == 1, (u - (1 - p)) / p, u / (1 - p))

    def tilde(theta):
        p = sigmoid(theta)
        return theta + logit(np.where(b == 1, 1 - p + v * p, v * (1 - p)))

    left = 1 - (tilde(theta + 1e-6) - tilde(theta - 1e-6)) / 2e-6
    h = sigmoid(z / T)
    path = slope(h) * h * (1 - h) / T * left
    return (f(b) - eta * f(h))[:, None] * (b - p) + eta * path
""",
    ),
    (
        "5.4",
        "wrong visibly",
        "one slip mended: η at f(h)",
        """
def mended(f, slope, theta, u, T, eta):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    h = sigmoid(z / T)
    path = slope(h) * h * (1 - h) / T
    return (f(b) - eta * f(h))[:, None] * (b - sigmoid(theta)) + eta * path
""",
    ),
    (
        "5.4",
        "wrong visibly",
        "the other one mended: the path of z̃",
        """
def mended(f, slope, theta, u, T, eta):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    h = sigmoid(z / T)
    left = 1 - (1 - np.exp(-np.abs(z))) * sigmoid((2 * b - 1) * theta)
    path = slope(h) * h * (1 - h) / T * left
    return (f(b) - f(h))[:, None] * (b - sigmoid(theta)) + eta * path
""",
    ),
    (
        "5.4",
        "wrong visibly",
        "REINFORCE",
        """
def mended(f, slope, theta, u, T, eta):
    b = (theta + logit(u) > 0).astype(float)
    return f(b)[:, None] * (b - sigmoid(theta))
""",
    ),
    (
        "5.4",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended(f, slope, theta, u, T, eta):
    return np.tile(common.exact_gradient(f, theta), (len(u), 1))
""",
    ),
    (
        "5.4",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def mended(f, slope, theta, u, T, eta):
    bits = common.all_bits(len(theta)).astype(float)
    q = np.prod(sigmoid((2 * bits - 1) * theta), axis=1)
    return np.tile((q * f(bits)) @ (bits - sigmoid(theta)), (len(u), 1))
""",
    ),
    (
        "5.4",
        "wrong",
        "η is always 1",
        """
def mended(f, slope, theta, u, T, eta):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    h = sigmoid(z / T)
    left = 1 - (1 - np.exp(-np.abs(z))) * sigmoid((2 * b - 1) * theta)
    path = slope(h) * h * (1 - h) / T * left
    return (f(b) - f(h))[:, None] * (b - sigmoid(theta)) + path
""",
    ),
    (
        "5.5",
        "right",
        "by the uniform that belongs to b",
        """
def mended_noise(theta, b, v):
    p = sigmoid(theta)
    u = np.where(b == 1, 1 - p + v * p, v * (1 - p))
    return theta + np.log(u) - np.log1p(-u)
""",
    ),
    (
        "5.5",
        "right",
        "the formula of the paper's appendix",
        """
def mended_noise(theta, b, v):
    p = sigmoid(theta)
    one = np.log(v / ((1 - v) * (1 - p)) + 1)
    zero = -np.log(v / ((1 - v) * p) + 1)
    return np.where(b == 1, one, zero)
""",
    ),
    (
        "5.5",
        "wrong visibly",
        "without the condition, once more",
        """
def mended_noise(theta, b, v):
    return theta - logit(v)
""",
    ),
    (
        "5.5",
        "wrong visibly",
        "folded: the right sign, another law",
        """
def mended_noise(theta, b, v):
    return (2 * b - 1) * np.abs(theta + logit(v))
""",
    ),
    (
        "5.5",
        "wrong visibly",
        "the bits exchanged",
        """
def mended_noise(theta, b, v):
    p = sigmoid(theta)
    u = np.where(b == 0, 1 - p + v * p, v * (1 - p))
    return theta + logit(u)
""",
    ),
    (
        "5.5",
        "wrong visibly",
        "the condition, but no path in θ",
        """
def mended_noise(theta, b, v):
    return (2 * b - 1) * np.log1p(v / (1 - v))
""",
    ),
    (
        "5.6",
        "right",
        "the same with one function a layer",
        """
def mended_chain(f, a0, m, k, u0, u1, T):
    def relaxed(a, u):
        z = a + logit(u)
        b = (z > 0).astype(float)
        h = sigmoid(z / T)
        steep = h * (1 - h) / T
        return b, h, steep, 1 - (1 - np.exp(-abs(z))) * sigmoid((2 * b - 1) * a)

    b0, h0, steep0, left0 = relaxed(a0, u0)
    a1 = m + k * (2 * b0 - 1)
    b1, h1, steep1, left1 = relaxed(a1, u1)
    soft1 = sigmoid((m + k * (2 * h0 - 1) + logit(u1)) / T)
    value0, by0, by1 = f(h0, soft1)
    total = by0 + by1 * soft1 * (1 - soft1) / T * 2 * k
    value1, _, above = f(b0, h1)
    value = f(b0, b1)[0]
    first = (value - value0) * (b0 - sigmoid(a0)) + total * steep0 * left0
    second = (value - value1) * (b1 - sigmoid(a1)) + above * steep1 * left1
    return np.column_stack([first, second])
""",
    ),
    (
        "5.6",
        "right",
        "the layer above at its mean in the control variate of layer 0",
        """
def mended_chain(f, a0, m, k, u0, u1, T):
    z0 = a0 + logit(u0)
    b0, h0 = (z0 > 0).astype(float), sigmoid(z0 / T)
    a1 = m + k * (2 * b0 - 1)
    z1 = a1 + logit(u1)
    b1, h1 = (z1 > 0).astype(float), sigmoid(z1 / T)
    left = lambda a, z, b: 1 - (1 - np.exp(-np.abs(z))) * sigmoid((2 * b - 1) * a)
    mean1 = sigmoid(m + k * (2 * h0 - 1))
    f_0, df0, df1 = f(h0, mean1)
    through0 = (df0 + df1 * mean1 * (1 - mean1) * 2 * k) * h0 * (1 - h0) / T * left(a0, z0, b0)
    f_1, _, df1 = f(b0, h1)
    through1 = df1 * h1 * (1 - h1) / T * left(a1, z1, b1)
    f_b = f(b0, b1)[0]
    scores = b0 - sigmoid(a0), b1 - sigmoid(a1)
    return np.stack([(f_b - f_0) * scores[0] + through0, (f_b - f_1) * scores[1] + through1], 1)
""",
    ),
    (
        "5.6",
        "wrong visibly",
        "REINFORCE",
        """
def mended_chain(f, a0, m, k, u0, u1, T):
    b0 = (a0 + logit(u0) > 0).astype(float)
    a1 = m + k * (2 * b0 - 1)
    b1 = (a1 + logit(u1) > 0).astype(float)
    f_b = f(b0, b1)[0]
    return np.stack([f_b * (b0 - sigmoid(a0)), f_b * (b1 - sigmoid(a1))], axis=1)
""",
    ),
    (
        "5.6",
        "wrong visibly",
        "layer 0 does not reach the layer above",
        """
def mended_chain(f, a0, m, k, u0, u1, T):
    left = lambda a, u, b: 1 - (1 - np.exp(-np.abs(a + logit(u)))) * sigmoid((2 * b - 1) * a)
    b0 = (a0 + logit(u0) > 0).astype(float)
    a1 = m + k * (2 * b0 - 1)
    b1 = (a1 + logit(u1) > 0).astype(float)
    h0, h1 = sigmoid((a0 + logit(u0)) / T), sigmoid((a1 + logit(u1)) / T)
    f_0, df0, _ = f(h0, h1)
    f_1, _, df1 = f(b0, h1)
    f_b = f(b0, b1)[0]
    through0 = df0 * h0 * (1 - h0) / T * left(a0, u0, b0)
    through1 = df1 * h1 * (1 - h1) / T * left(a1, u1, b1)
    scores = b0 - sigmoid(a0), b1 - sigmoid(a1)
    return np.stack([(f_b - f_0) * scores[0] + through0, (f_b - f_1) * scores[1] + through1], 1)
""",
    ),
    (
        "5.6",
        "wrong visibly",
        "the gradient by differences of the enumerated mean",
        """
def mended_chain(f, a0, m, k, u0, u1, T):
    def mean(a0, m):
        total = 0.0
        for b0 in (0, 1):
            for b1 in (0, 1):
                q = sigmoid((2 * b0 - 1) * a0) * sigmoid((2 * b1 - 1) * (m + k * (2 * b0 - 1)))
                total += q * f(b0, b1)[0]
        return total

    by_a0 = (mean(a0 + 1e-5, m) - mean(a0 - 1e-5, m)) / 2e-5
    by_m = (mean(a0, m + 1e-5) - mean(a0, m - 1e-5)) / 2e-5
    return np.tile([by_a0, by_m], (len(u0), 1))
""",
    ),
]
