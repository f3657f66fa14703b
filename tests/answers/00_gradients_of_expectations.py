"""Answers to the exercises of chapter 0 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "0.2",
        "right",
        "scores by the density of z",
        """
def score_gaussian(f, mu, log_s, eps):
    s = np.exp(log_s)
    z = mu + s * eps
    by_mu = (z - mu) / s**2
    by_log_s = ((z - mu) / s) ** 2 - 1
    return f(z)[:, None] * np.column_stack([by_mu, by_log_s])
""",
    ),
    (
        "0.2",
        "right",
        "with a baseline, f at the mean",
        """
def score_gaussian(f, mu, log_s, eps):
    signal = f(mu + np.exp(log_s) * eps) - f(np.array([mu]))
    return (signal * np.array([eps * np.exp(-log_s), eps**2 - 1])).T
""",
    ),
    (
        "0.2",
        "wrong visibly",
        "no 1 / s in the score of mu",
        """
def score_gaussian(f, mu, log_s, eps):
    f_z = f(mu + np.exp(log_s) * eps)
    return np.stack([f_z * eps, f_z * (eps**2 - 1)], axis=1)
""",
    ),
    (
        "0.2",
        "wrong visibly",
        "by s, not by log s",
        """
def score_gaussian(f, mu, log_s, eps):
    s = np.exp(log_s)
    f_z = f(mu + s * eps)
    return np.stack([f_z * eps / s, f_z * (eps**2 - 1) / s], axis=1)
""",
    ),
    (
        "0.2",
        "wrong visibly",
        "the exact gradient that the check has",
        """
def score_gaussian(f, mu, log_s, eps):
    return np.tile(exact_02, (len(eps), 1))
""",
    ),
    (
        "0.2",
        "wrong visibly",
        "the exact gradient for f = sin, whatever f is",
        """
def score_gaussian(f, mu, log_s, eps):
    s2 = np.exp(2 * log_s)
    exact = np.exp(-s2 / 2) * np.array([np.cos(mu), -np.sin(mu) * s2])
    return np.tile(exact, (len(eps), 1))
""",
    ),
    (
        "0.2",
        "wrong visibly",
        "differentiates f after all, by differences",
        """
def score_gaussian(f, mu, log_s, eps):
    s = np.exp(log_s)
    z = mu + s * eps
    slope = (f(z + 1e-5) - f(z - 1e-5)) / 2e-5
    return np.stack([slope, slope * s * eps], axis=1)
""",
    ),
    (
        "0.3",
        "right",
        "z first, and its derivatives from it",
        """
def path_gaussian(slope, mu, log_s, eps):
    z = mu + np.exp(log_s) * eps
    return slope(z)[:, None] * np.stack([np.ones_like(z), z - mu], axis=1)
""",
    ),
    (
        "0.3",
        "right",
        "a loop over the samples",
        """
def path_gaussian(slope, mu, log_s, eps):
    rows = []
    for e in eps:
        d = slope(mu + np.exp(log_s) * e)
        rows.append([d, d * np.exp(log_s) * e])
    return np.array(rows)
""",
    ),
    (
        "0.3",
        "wrong visibly",
        "by s, not by log s",
        """
def path_gaussian(slope, mu, log_s, eps):
    d = slope(mu + np.exp(log_s) * eps)
    return np.stack([d, d * eps], axis=1)
""",
    ),
    (
        "0.3",
        "wrong visibly",
        "the slope at the mean",
        """
def path_gaussian(slope, mu, log_s, eps):
    d = slope(np.full(len(eps), mu))
    return np.stack([d, d * np.exp(log_s) * eps], axis=1)
""",
    ),
    (
        "0.3",
        "wrong visibly",
        "the score function once more",
        """
def path_gaussian(slope, mu, log_s, eps):
    return score_gaussian(f_02, mu, log_s, eps)
""",
    ),
    (
        "0.3",
        "wrong visibly",
        "the exact gradient that the check has",
        """
def path_gaussian(slope, mu, log_s, eps):
    return np.tile(exact_02, (len(eps), 1))
""",
    ),
    (
        "0.4",
        "right",
        "a search on a grid of 0.05",
        """
def best_constant(f0, f1, theta):
    p = 1 / (1 + np.exp(-theta))
    grid = np.arange(-10, 10, 0.05)
    second = p * ((f1 - grid) * (1 - p)) ** 2 + (1 - p) * ((f0 - grid) * p) ** 2
    return grid[np.argmin(second)]
""",
    ),
    (
        "0.4",
        "right",
        "by the textbook, with shape (1,)",
        """
def best_constant(f0, f1, theta):
    q = np.array([[common.sigmoid(-theta), common.sigmoid(theta)]])
    s, f = np.array([0, 1]) - q[:, 1], np.array([f0, f1])
    return q @ (f * s**2) / (q @ s**2)
""",
    ),
    (
        "0.4",
        "right",
        "the C at which both outcomes give the same estimate",
        """
def best_constant(f0, f1, theta):
    p = common.sigmoid(theta)
    return np.linalg.solve([[1 - p, 1.0], [-p, 1.0]], [f1 * (1 - p), -f0 * p])[0]
""",
    ),
    (
        "0.4",
        "wrong visibly",
        "the mean of f",
        """
def best_constant(f0, f1, theta):
    p = common.sigmoid(theta)
    return p * f1 + (1 - p) * f0
""",
    ),
    (
        "0.4",
        "wrong visibly",
        "half way between",
        """
def best_constant(f0, f1, theta):
    return (f0 + f1) / 2
""",
    ),
    (
        "0.4",
        "wrong visibly",
        "both constants, one a coin",
        """
def best_constant(f0, f1, theta):
    return np.array([f0, f1])
""",
    ),
    (
        "0.4",
        "wrong",
        "right for theta > 0 only",
        """
def best_constant(f0, f1, theta):
    p = common.sigmoid(abs(theta))
    return (1 - p) * f1 + p * f0
""",
    ),
    (
        "0.5",
        "right",
        "the derivative of log q written out",
        """
def mended(f, logits, u):
    p = common.sigmoid(logits)
    b = np.where(u < p, 1.0, 0.0)
    score = b * (1 - p) - (1 - b) * p
    return f(b).reshape(-1, 1) * score
""",
    ),
    (
        "0.5",
        "right",
        "the other end of the uniform, and a baseline",
        """
def mended(f, logits, u):
    b = (logits + np.log(u / (1 - u)) > 0) * 1.0
    return (f(b) - 0.7)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "the score of a fair coin",
        """
def mended(f, logits, u):
    b = (u < common.sigmoid(logits)).astype(float)
    return f(b)[:, None] * (b - 0.5)
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "the bits turned round",
        """
def mended(f, logits, u):
    p = common.sigmoid(logits)
    b = (u > p).astype(float)
    return f(b)[:, None] * (b - p)
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "by the probabilities, not by the logits",
        """
def mended(f, logits, u):
    p = common.sigmoid(logits)
    b = (u < p).astype(float)
    return f(b)[:, None] * (b - p) / (p * (1 - p))
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended(f, logits, u):
    return np.tile(common.exact_gradient(f, logits), (len(u), 1))
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "the exact gradient of common.py, by another name",
        """
from common import exact_gradient as gradient


def mended(f, logits, u):
    return gradient(f, logits) + 0 * u
""",
    ),
    (
        "0.5",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def mended(f, logits, u):
    exact, p = np.zeros(2), common.sigmoid(logits)
    for b in common.all_bits(2).astype(float):
        exact += np.prod(np.where(b == 1, p, 1 - p)) * f(b[None])[0] * (b - p)
    return np.tile(exact, (len(u), 1))
""",
    ),
]
