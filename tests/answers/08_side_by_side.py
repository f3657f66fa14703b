"""Answers to the exercises of chapter 8 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "8.2",
        "right",
        "cross-fitting by halves",
        """
def weight_from(a, b):
    d = b - a
    spread = np.var(d)
    return np.clip(np.mean((b - b.mean()) * d) / spread, 0, 1) if spread > 0 else 0.5


def combined(g1, g2):
    half = len(g1) // 2
    first, second = slice(0, half), slice(half, None)
    total = 0.0
    for mine, other in ((first, second), (second, first)):
        w = weight_from(g1[other], g2[other])
        total += np.sum(w * g1[mine] + (1 - w) * g2[mine])
    return total / len(g1)
""",
    ),
    (
        "8.2",
        "right",
        "sums without one pair, with shape (1,)",
        """
def combined(g1, g2):
    m, d = len(g1) - 1, g2 - g1
    rest = lambda x: (np.sum(x) - x) / m  # the mean over all other pairs, (n,)
    spread = rest(d**2) - rest(d) ** 2
    w = (rest(g2 * d) - rest(g2) * rest(d)) / np.where(spread > 0, spread, 1)
    return np.atleast_1d(np.mean(g2 - np.clip(w, 0, 1) * d))
""",
    ),
    (
        "8.2",
        "wrong visibly",
        "the weight from the samples that it weighs",
        """
def combined(g1, g2):
    spread = np.var(g1 - g2)
    w = 0.5 if spread == 0 else (np.var(g2) - np.cov(g1, g2, ddof=0)[0, 1]) / spread
    w = np.clip(w, 0, 1)
    return np.mean(w * g1 + (1 - w) * g2)
""",
    ),
    (
        "8.2",
        "wrong visibly",
        "half and half",
        """
def combined(g1, g2):
    return np.mean(g1 + g2) / 2
""",
    ),
    (
        "8.2",
        "wrong visibly",
        "g1 and g2 exchanged",
        """
def combined(g1, g2):
    n = len(g1)
    others = (np.arange(n)[:, None] + np.arange(1, n)) % n
    a, b = g1[others], g2[others]
    cov = np.mean((a - a.mean(axis=1, keepdims=True)) * b, axis=1)
    w = np.clip((np.var(b, axis=1) - cov) / (np.var(a - b, axis=1) + 1e-300), 0, 1)
    return np.mean((1 - w) * g1 + w * g2)
""",
    ),
    (
        "8.2",
        "wrong visibly",
        "each pair its own quieter half",
        """
def combined(g1, g2):
    closer = np.abs(g1 - np.median(g1)) < np.abs(g2 - np.median(g2))
    return np.mean(np.where(closer, g1, g2))
""",
    ),
    (
        "8.2",
        "wrong visibly",
        "the quieter one of the two",
        """
def combined(g1, g2):
    return np.mean(g1) if np.var(g1) < np.var(g2) else np.mean(g2)
""",
    ),
    (
        "8.3",
        "right",
        "one n after the other",
        """
def first_n(moments):
    (b_1, V_1), (b_2, V_2) = moments("Concrete"), moments("REBAR")
    n = 1
    while b_2**2 + V_2 / n > b_1**2 + V_1 / n + 1e-12:
        n += 1
    return n
""",
    ),
    (
        "8.3",
        "right",
        "all n at once",
        """
def first_n(moments):
    n = np.arange(1, 100_001)
    error = lambda name: moments(name)[0] ** 2 + moments(name)[1] / n
    return n[error("REBAR") <= error("Concrete") + 1e-12][:1]
""",
    ),
    (
        "8.3",
        "wrong visibly",
        "rounded down",
        """
def first_n(moments):
    (bias, V_1), (_, V_2) = moments("Concrete"), moments("REBAR")
    return max(1, int((V_2 - V_1) / bias**2))
""",
    ),
    (
        "8.3",
        "wrong visibly",
        "the variance of Concrete is forgotten",
        """
def first_n(moments):
    (bias, _), (_, V_2) = moments("Concrete"), moments("REBAR")
    return max(1, int(np.ceil(V_2 / bias**2)))
""",
    ),
    (
        "8.3",
        "wrong visibly",
        "the bias without its square",
        """
def first_n(moments):
    (bias, V_1), (_, V_2) = moments("Concrete"), moments("REBAR")
    return max(1, int(np.ceil((V_2 - V_1) / abs(bias))))
""",
    ),
    (
        "8.3",
        "wrong visibly",
        "not a whole number",
        """
def first_n(moments):
    (bias, V_1), (_, V_2) = moments("Concrete"), moments("REBAR")
    return (V_2 - V_1) / bias**2
""",
    ),
    (
        "8.3",
        "wrong visibly",
        "the check's own function",
        """
def first_n(moments):
    n = 1
    while lead_03(n, moments) < 0:
        n += 1
    return n
""",
    ),
    (
        "8.3",
        "wrong",
        "no n below 1 is expected",
        """
def first_n(moments):
    (bias, V_1), (_, V_2) = moments("Concrete"), moments("REBAR")
    return int(np.ceil((V_2 - V_1) / bias**2))
""",
    ),
    (
        "8.4",
        "right",
        "weights written out",
        """
def mended_variance(gradients, decay):
    w = decay ** np.arange(len(gradients))[::-1]
    w = w / w.sum()
    mean = w @ gradients
    return np.mean(w @ (gradients - mean) ** 2)
""",
    ),
    (
        "8.4",
        "right",
        "a decay that grows",
        """
def mended_variance(gradients, decay):
    first = second = weight = 0.0
    for g in gradients:
        weight = decay * weight + 1 - decay
        first = first + (1 - decay) / weight * (g - first)
        second = second + (1 - decay) / weight * (g**2 - second)
    return (second - first**2).mean()
""",
    ),
    (
        "8.4",
        "wrong visibly",
        "half debiased: the squares only",
        """
def mended_variance(gradients, decay):
    first, second = 0.0, 0.0
    for g in gradients:
        first = decay * first + (1 - decay) * g
        second = decay * second + (1 - decay) * g**2
    return np.mean(second / (1 - decay ** len(gradients)) - first**2)
""",
    ),
    (
        "8.4",
        "wrong visibly",
        "half debiased: the mean only",
        """
def mended_variance(gradients, decay):
    first, second = 0.0, 0.0
    for g in gradients:
        first = decay * first + (1 - decay) * g
        second = decay * second + (1 - decay) * g**2
    return np.mean(second - (first / (1 - decay ** len(gradients))) ** 2)
""",
    ),
    (
        "8.4",
        "wrong visibly",
        "the difference debiased",
        """
def mended_variance(gradients, decay):
    first, second = 0.0, 0.0
    for g in gradients:
        first = decay * first + (1 - decay) * g
        second = decay * second + (1 - decay) * g**2
    return np.mean(second - first**2) / (1 - decay ** len(gradients))
""",
    ),
    (
        "8.4",
        "wrong",
        "the variance of all gradients, nothing forgotten",
        """
def mended_variance(gradients, decay):
    return np.mean(np.var(gradients, axis=0))
""",
    ),
    (
        "8.5",
        "right",
        "both on a copy of the noise",
        """
def mended_compare(one, other, seed, n):
    first, second = (np.random.default_rng(seed).random(n) for _ in range(2))
    d = one(first) - other(second)
    return np.mean(d), np.sqrt(np.sum((d - d.mean()) ** 2) / (n - 1) / n)
""",
    ),
    (
        "8.5",
        "right",
        "the error from both variances and the covariance",
        """
def mended_compare(one, other, seed, n):
    u = np.random.default_rng(seed).uniform(size=n)
    a, b = one(u), other(u)
    C = np.cov(a, b)
    return np.mean(a - b), np.sqrt(max(C[0, 0] + C[1, 1] - 2 * C[0, 1], 0) / n)
""",
    ),
    (
        "8.5",
        "wrong visibly",
        "the standard deviation, not the error",
        """
def mended_compare(one, other, seed, n):
    u = np.random.default_rng(seed).random(n)
    d = one(u) - other(u)
    return d.mean(), d.std(ddof=1)
""",
    ),
    (
        "8.5",
        "wrong visibly",
        "divided by n, not by its root",
        """
def mended_compare(one, other, seed, n):
    u = np.random.default_rng(seed).random(n)
    d = one(u) - other(u)
    return d.mean(), d.std(ddof=1) / n
""",
    ),
    (
        "8.5",
        "wrong visibly",
        "the error bars added as if they were independent",
        """
def mended_compare(one, other, seed, n):
    u = np.random.default_rng(seed).random(n)
    a, b = one(u), other(u)
    return np.mean(a - b), np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n)
""",
    ),
    (
        "8.5",
        "wrong visibly",
        "the same seed for every comparison",
        """
def mended_compare(one, other, seed, n):
    u = np.random.default_rng(0).random(n)
    d = one(u) - other(u)
    return d.mean(), d.std(ddof=1) / np.sqrt(n)
""",
    ),
    (
        "8.6",
        "right",
        "by the jackknife over images",
        """
def mended_error(g):
    B = len(g)
    without = (g.mean(axis=1).sum() - g.mean(axis=1)) / (B - 1)
    return np.sqrt((B - 1) / B * np.sum((without - without.mean()) ** 2))
""",
    ),
    (
        "8.6",
        "right",
        "variances between and within images",
        """
def mended_error(g):
    B, K = g.shape
    centred = g - g.mean()
    return np.sqrt(np.sum(centred.sum(axis=1) ** 2) / K**2 / (B * (B - 1)))
""",
    ),
    (
        "8.6",
        "wrong visibly",
        "over samples, not over images",
        """
def mended_error(g):
    means = g.mean(axis=0)
    return np.std(means, ddof=1) / np.sqrt(len(means))
""",
    ),
    (
        "8.6",
        "wrong visibly",
        "the spread of the rows, over the number of images",
        """
def mended_error(g):
    return np.std(g, ddof=1) / np.sqrt(len(g))
""",
    ),
    (
        "8.6",
        "wrong visibly",
        "the means of the images, over the number of rows",
        """
def mended_error(g):
    return np.std(g.mean(axis=1), ddof=1) / np.sqrt(g.size)
""",
    ),
    (
        "8.6",
        "wrong visibly",
        "without the root",
        """
def mended_error(g):
    return np.std(g.mean(axis=1), ddof=1) / len(g)
""",
    ),
]
