"""Right answers in other forms, and wrong ones: exercise, verdict, why, source of the cell."""

ANSWERS = [
    (
        "S.2",
        "right",
        "one code after the other, with logaddexp",
        """
import itertools

def log_evidence(log_joint, D):
    total = -np.inf
    for code in itertools.product([0.0, 1.0], repeat=D):
        total = np.logaddexp(total, log_joint(np.array([code]))[0])
    return total
""",
    ),
    (
        "S.2",
        "right",
        "scipy's logsumexp, the codes by meshgrid, and the shape (1,)",
        """
from scipy.special import logsumexp

def log_evidence(log_joint, D):
    codes = np.stack(np.meshgrid(*D * [[0, 1]]), axis=-1).reshape(-1, D)
    return float(logsumexp(log_joint(codes)))
""",
    ),
    (
        "S.2",
        "wrong",
        "the terms become 0 before they are added",
        """
def log_evidence(log_joint, D):
    codes = ((np.arange(2**D)[:, None] >> np.arange(D)) & 1).astype(float)
    with np.errstate(all="ignore"):
        return np.log(np.sum(np.exp(log_joint(codes))))
""",
    ),
    (
        "S.2",
        "wrong",
        "the mean over the codes in place of the sum",
        """
def log_evidence(log_joint, D):
    codes = ((np.arange(2**D)[:, None] >> np.arange(D)) & 1).astype(float)
    terms = log_joint(codes)
    return terms.max() + np.log(np.mean(np.exp(terms - terms.max())))
""",
    ),
    (
        "S.2",
        "wrong",
        "the last code is forgotten",
        """
def log_evidence(log_joint, D):
    codes = ((np.arange(2**D - 1)[:, None] >> np.arange(D)) & 1).astype(float)
    terms = log_joint(codes)
    return terms.max() + np.log(np.sum(np.exp(terms - terms.max())))
""",
    ),
    (
        "S.2",
        "wrong",
        "the sum of the logarithms",
        """
def log_evidence(log_joint, D):
    codes = ((np.arange(2**D)[:, None] >> np.arange(D)) & 1).astype(float)
    return np.sum(log_joint(codes))
""",
    ),
    (
        "S.3",
        "right",
        "one code after the other",
        """
import itertools

def bound(log_joint, q):
    total = 0.0
    for code in itertools.product([0, 1], repeat=len(q)):
        b = np.array(code)
        weight = np.prod(np.where(b == 1, q, 1 - q))
        total += weight * (float(log_joint(b[None])[0]) - np.log(weight))
    return total
""",
    ),
    (
        "S.3",
        "right",
        "the entropy of q apart, in closed form",
        """
def bound(log_joint, q):
    codes = np.stack(np.meshgrid(*len(q) * [[0.0, 1.0]]), axis=-1).reshape(-1, len(q))
    weight = np.prod(np.where(codes == 1, q, 1 - q), axis=1)
    return weight @ log_joint(codes) - np.sum(q * np.log(q) + (1 - q) * np.log1p(-q))
""",
    ),
    (
        "S.3",
        "wrong",
        "the logarithm of the mean: log p(x) for every q",
        """
def bound(log_joint, q):
    codes = np.stack(np.meshgrid(*len(q) * [[0.0, 1.0]]), axis=-1).reshape(-1, len(q))
    weight = np.prod(np.where(codes == 1, q, 1 - q), axis=1)
    return np.log(np.sum(np.exp(log_joint(codes)))) + 0 * weight[0]
""",
    ),
    (
        "S.3",
        "wrong",
        "without − log q",
        """
def bound(log_joint, q):
    codes = np.stack(np.meshgrid(*len(q) * [[0.0, 1.0]]), axis=-1).reshape(-1, len(q))
    weight = np.prod(np.where(codes == 1, q, 1 - q), axis=1)
    return weight @ log_joint(codes)
""",
    ),
    (
        "S.3",
        "wrong",
        "a bit of 0 has no share in q",
        """
def bound(log_joint, q):
    codes = np.stack(np.meshgrid(*len(q) * [[0.0, 1.0]]), axis=-1).reshape(-1, len(q))
    weight = np.prod(np.where(codes == 1, q, 1.0), axis=1)
    return weight @ (log_joint(codes) - np.log(weight))
""",
    ),
    (
        "S.3",
        "wrong",
        "right for bits that are independent in the posterior only: f at the mean bits",
        """
def bound(log_joint, q):
    entropy = -np.sum(q * np.log(q) + (1 - q) * np.log(1 - q))
    return float(log_joint(q[None])[0]) + entropy
""",
    ),
    (
        "S.4",
        "right",
        "sums with decaying weights in place of averages",
        """
def adam_step(at, gradient, state, rate):
    total, squares, t = state
    total, squares, t = 0.9 * total + gradient, 0.999 * squares + gradient**2, t + 1
    mean = total * (1 - 0.9) / (1 - 0.9**t)
    square = squares * (1 - 0.999) / (1 - 0.999**t)
    return at - rate * mean / np.sqrt(square), (total, squares, t)
""",
    ),
    (
        "S.4",
        "right",
        "both corrections in the rate, as at the end of section 2 of the paper",
        """
def adam_step(at, gradient, state, rate):
    mean, square, t = state[0] * 0.9 + 0.1 * gradient, state[1], state[2] + 1
    square = square + 0.001 * (gradient**2 - square)
    rate = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return at - rate * mean / (np.sqrt(square) + 1e-9), (mean, square, t)
""",
    ),
    (
        "S.4",
        "wrong",
        "averages that start at 0 are not corrected",
        """
def adam_step(at, gradient, state, rate):
    mean, square, t = state
    mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
    return at - rate * mean / (np.sqrt(square) + 1e-8), (mean, square, t + 1)
""",
    ),
    (
        "S.4",
        "wrong",
        "the decays swapped",
        """
def adam_step(at, gradient, state, rate):
    mean, square, t = state
    t, mean = t + 1, 0.999 * mean + 0.001 * gradient
    square = 0.9 * square + 0.1 * gradient**2
    step = mean / (1 - 0.999**t) / (np.sqrt(square / (1 - 0.9**t)) + 1e-8)
    return at - rate * step, (mean, square, t)
""",
    ),
    (
        "S.4",
        "wrong",
        "no memory: the sign of the present gradient",
        """
def adam_step(at, gradient, state, rate):
    return at - rate * np.sign(gradient), state
""",
    ),
    (
        "S.4",
        "wrong",
        "no square root",
        """
def adam_step(at, gradient, state, rate):
    mean, square, t = state
    t, mean = t + 1, 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    return at - rate * mean / (1 - 0.9**t) / (square / (1 - 0.999**t)), (mean, square, t)
""",
    ),
    (
        "S.4",
        "wrong",
        "it climbs",
        """
def adam_step(at, gradient, state, rate):
    mean, square, t = state
    t, mean = t + 1, 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    step = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    return at + rate * step, (mean, square, t)
""",
    ),
    (
        "S.5",
        "right",
        "with the sample variance",
        """
def mended(estimates, truth):
    n = len(estimates)
    return np.sqrt(n) * (np.mean(estimates) - truth) / np.std(estimates, ddof=1)
""",
    ),
    (
        "S.5",
        "right",
        "from sums",
        """
def mended(estimates, truth):
    off = np.asarray(estimates) - truth
    n, total = off.size, off.sum()
    return total / np.sqrt(np.sum(off**2) - total**2 / n)
""",
    ),
    (
        "S.5",
        "wrong",
        "divided by n in place of its root",
        """
def mended(estimates, truth):
    return (np.mean(estimates) - truth) / (np.std(estimates) / len(estimates))
""",
    ),
    (
        "S.5",
        "wrong",
        "the variance in place of the standard deviation",
        """
def mended(estimates, truth):
    return (np.mean(estimates) - truth) / (np.var(estimates) / np.sqrt(len(estimates)))
""",
    ),
    (
        "S.5",
        "wrong",
        "the root of n on the wrong side",
        """
def mended(estimates, truth):
    return (np.mean(estimates) - truth) / (np.std(estimates) * np.sqrt(len(estimates)))
""",
    ),
    (
        "S.5",
        "wrong",
        "a distance without its sign",
        """
def mended(estimates, truth):
    return abs(np.mean(estimates) - truth) / (np.std(estimates) / np.sqrt(len(estimates)))
""",
    ),
    (
        "S.6",
        "right",
        "by counting upwards",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    n = 1
    while unbiased_variance / n > bias**2 + biased_variance / n:
        n += 1
    return n
""",
    ),
    (
        "S.6",
        "right",
        "as a float that is whole",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    return np.maximum(1.0, np.ceil((unbiased_variance - biased_variance) / bias**2))
""",
    ),
    (
        "S.6",
        "wrong",
        "rounded down",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    return max(1, int((unbiased_variance - biased_variance) / bias**2))
""",
    ),
    (
        "S.6",
        "wrong",
        "the bias is not squared",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    return max(1, int(np.ceil((unbiased_variance - biased_variance) / abs(bias))))
""",
    ),
    (
        "S.6",
        "wrong",
        "the variance of the biased one is forgotten",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    return max(1, int(np.ceil(unbiased_variance / bias**2)))
""",
    ),
    (
        "S.6",
        "wrong",
        "below 1, where the unbiased one varies less",
        """
def samples_needed(bias, biased_variance, unbiased_variance):
    return int(np.ceil((unbiased_variance - biased_variance) / bias**2))
""",
    ),
]
