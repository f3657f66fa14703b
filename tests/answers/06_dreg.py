"""Answers to the exercises of chapter 6 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "6.2",
        "right",
        "both samples written out",
        """
def mirrored_dreg(log_w, slope):
    w1 = 1 / (1 + np.exp(log_w[:, 1] - log_w[:, 0]))
    w2 = 1 - w1
    d1, d2 = slope[:, 0], slope[:, 1]
    return w1 * d1 + w2 * d2 - 2 * w1 * w2 * (d1 + d2)
""",
    ),
    (
        "6.2",
        "right",
        "as squares",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - np.max(log_w, axis=1, keepdims=True))
    w = w / np.sum(w, axis=1, keepdims=True)
    return np.sum(slope * (w - 2 * np.prod(w, axis=1, keepdims=True)), axis=1)
""",
    ),
    (
        "6.2",
        "wrong visibly",
        "dreg as if the samples were independent",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(w**2 * slope, axis=1)
""",
    ),
    (
        "6.2",
        "wrong visibly",
        "the path only",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(w * slope, axis=1)
""",
    ),
    (
        "6.2",
        "wrong visibly",
        "the mirror image does not move",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(w * slope, axis=1) - 2 * w[:, 0] * w[:, 1] * slope[:, 0]
""",
    ),
    (
        "6.2",
        "wrong visibly",
        "the mirror image moves the same way",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(w * slope, axis=1) - 2 * w[:, 0] * w[:, 1] * (slope[:, 0] - slope[:, 1])
""",
    ),
    (
        "6.2",
        "wrong visibly",
        "half of the repair",
        """
def mirrored_dreg(log_w, slope):
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(w * slope, axis=1) - w[:, 0] * w[:, 1] * np.sum(slope, axis=1)
""",
    ),
    (
        "6.3",
        "right",
        "by the p-values of scipy",
        """
def biased_parameters(d, level):
    return stats.ttest_1samp(d, 0).pvalue < level / d.shape[1]
""",
    ),
    (
        "6.3",
        "right",
        "Šidák instead of Bonferroni",
        """
def biased_parameters(d, level):
    n, P = d.shape
    each = 1 - (1 - level) ** (1 / P)
    limit = stats.t.ppf(1 - each / 2, n - 1)
    return [abs(column.mean()) * n**0.5 > limit * column.std(ddof=1) for column in d.T]
""",
    ),
    (
        "6.3",
        "right",
        "one after the other, from the smallest p-value on (Holm)",
        """
def biased_parameters(d, level):
    p = stats.ttest_1samp(d, 0).pvalue
    found = np.zeros(len(p), bool)
    for rank, k in enumerate(np.argsort(p)):
        if p[k] >= level / (len(p) - rank):
            break
        found[k] = True
    return found
""",
    ),
    (
        "6.3",
        "wrong visibly",
        "the level for every parameter",
        """
def biased_parameters(d, level):
    return stats.ttest_1samp(d, 0).pvalue < level
""",
    ),
    (
        "6.3",
        "wrong visibly",
        "one side only",
        """
def biased_parameters(d, level):
    n, P = d.shape
    t = d.mean(axis=0) / (d.std(axis=0, ddof=1) / np.sqrt(n))
    return t > stats.t.isf(level / P, n - 1)
""",
    ),
    (
        "6.3",
        "wrong visibly",
        "the normal distribution for few rows",
        """
def biased_parameters(d, level):
    n, P = d.shape
    z = d.mean(axis=0) / (d.std(axis=0, ddof=1) / np.sqrt(n))
    return np.abs(z) > stats.norm.isf(level / (2 * P))
""",
    ),
    (
        "6.3",
        "wrong visibly",
        "without the square root of n",
        """
def biased_parameters(d, level):
    n, P = d.shape
    t = d.mean(axis=0) / d.std(axis=0, ddof=1)
    return np.abs(t) > stats.t.isf(level / (2 * P), n - 1)
""",
    ),
    (
        "6.3",
        "wrong visibly",
        "one t for all parameters",
        """
def biased_parameters(d, level):
    p = stats.ttest_1samp(d.mean(axis=1), 0).pvalue
    return np.full(d.shape[1], p < level)
""",
    ),
    (
        "6.3",
        "wrong",
        "one spread for all parameters",
        """
def biased_parameters(d, level):
    n, P = d.shape
    t = d.mean(axis=0) / (d.std(ddof=1) / np.sqrt(n))
    return np.abs(t) > stats.t.isf(level / (2 * P), n - 1)
""",
    ),
    (
        "6.4",
        "right",
        "an image at a time",
        """
def mended_weights(log_w, path):
    rows = []
    for l, p in zip(log_w, path):
        w = np.exp(l - logsumexp(l))
        rows.append(w**2 @ p)
    return np.array(rows)
""",
    ),
    (
        "6.4",
        "right",
        "squares of the weights in logarithms",
        """
def mended_weights(log_w, path):
    log_w = log_w - logsumexp(log_w, axis=-1, keepdims=True)
    return np.einsum("nk,nkd->nd", np.exp(2 * log_w), path)
""",
    ),
    (
        "6.4",
        "wrong visibly",
        "one slip mended: the sign",
        """
def mended_weights(log_w, path):
    w = np.exp(log_w - np.max(log_w, axis=0))
    w = w / np.sum(w, axis=0)
    return np.sum(w[..., None] ** 2 * path, axis=1)
""",
    ),
    (
        "6.4",
        "wrong visibly",
        "the other one mended: the axis",
        """
def mended_weights(log_w, path):
    w = np.exp(-log_w + np.min(log_w, axis=1, keepdims=True))
    w = w / np.sum(w, axis=1, keepdims=True)
    return np.sum(w[..., None] ** 2 * path, axis=1)
""",
    ),
    (
        "6.4",
        "wrong visibly",
        "the weights without a square",
        """
def mended_weights(log_w, path):
    w = np.exp(log_w - np.max(log_w, axis=1, keepdims=True))
    w = w / np.sum(w, axis=1, keepdims=True)
    return np.sum(w[..., None] * path, axis=1)
""",
    ),
    (
        "6.4",
        "wrong visibly",
        "weights that do not sum to 1",
        """
def mended_weights(log_w, path):
    w = np.exp(log_w - np.max(log_w, axis=1, keepdims=True))
    return np.sum(w[..., None] ** 2 * path, axis=1)
""",
    ),
    (
        "6.4",
        "wrong",
        "nothing subtracted before exp",
        """
def mended_weights(log_w, path):
    w = np.exp(log_w)
    w = w / np.sum(w, axis=1, keepdims=True)
    return np.sum(w[..., None] ** 2 * path, axis=1)
""",
    ),
    (
        "6.5",
        "right",
        "numbers computed beforehand",
        """
def mended_surrogate(log_joint, phi, eps):
    still = stop_gradient(phi)
    z = phi[0] + np.exp(phi[1]) * eps
    s = log_joint(z) - log_normal(z, still[0], np.exp(still[1]))
    w = np.exp(stop_gradient(s))
    w = w / np.sum(w, axis=1, keepdims=True)
    return np.sum(w**2 * s, axis=1)
""",
    ),
    (
        "6.5",
        "right",
        "one softmax, stopped, of log-weights that are stopped in q",
        """
def mended_surrogate(log_joint, phi, eps):
    sigma = np.exp(phi[1])
    z = phi[0] + sigma * eps
    log_w = log_joint(z) - log_normal(z, stop_gradient(phi[0]), stop_gradient(sigma))
    log_weights = stop_gradient(log_w - logsumexp(log_w, axis=1, keepdims=True))
    return np.sum(np.exp(2 * log_weights) * log_w, axis=1)
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "one stop added: σ",
        """
def mended_surrogate(log_joint, phi, eps):
    mu, sigma = phi[0], np.exp(phi[1])
    z = mu + sigma * eps
    log_w = log_joint(z) - log_normal(z, mu, sigma)
    w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    s = log_joint(z) - log_normal(z, stop_gradient(mu), stop_gradient(sigma))
    return np.sum(w**2 * s, axis=1)
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "one stop added: the weights",
        """
def mended_surrogate(log_joint, phi, eps):
    mu, sigma = phi[0], np.exp(phi[1])
    z = mu + sigma * eps
    log_w = log_joint(z) - log_normal(z, mu, sigma)
    w = stop_gradient(np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True)))
    s = log_joint(z) - log_normal(z, stop_gradient(mu), sigma)
    return np.sum(w**2 * s, axis=1)
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "the sample is stopped, too",
        """
def mended_surrogate(log_joint, phi, eps):
    mu, sigma = phi[0], np.exp(phi[1])
    z = stop_gradient(mu + sigma * eps)
    log_w = log_joint(z) - log_normal(z, mu, sigma)
    w = stop_gradient(np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True)))
    return np.sum(w**2 * log_w, axis=1)
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "IWAE: no stop in q",
        """
def mended_surrogate(log_joint, phi, eps):
    z = phi[0] + np.exp(phi[1]) * eps
    log_w = log_joint(z) - log_normal(z, phi[0], np.exp(phi[1]))
    return logsumexp(log_w, axis=1) - np.log(eps.shape[1])
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "half a square: stop(w) · w",
        """
def mended_surrogate(log_joint, phi, eps):
    mu, sigma = phi[0], np.exp(phi[1])
    z = mu + sigma * eps
    s = log_joint(z) - log_normal(z, stop_gradient(mu), stop_gradient(sigma))
    w = np.exp(s - logsumexp(s, axis=1, keepdims=True))
    return np.sum(stop_gradient(w) * w * s, axis=1)
""",
    ),
    (
        "6.5",
        "wrong visibly",
        "the bound itself, by the check's sum",
        """
def mended_surrogate(log_joint, phi, eps):
    return mean_bound(phi) * np.ones(len(eps))
""",
    ),
    (
        "6.6",
        "right",
        "the sum without a sample by subtraction",
        """
def mended_jackknife(log_w):
    K, top = log_w.shape[1], np.max(log_w, axis=1, keepdims=True)
    bound = np.log(np.mean(np.exp(log_w - top), axis=1)) + top[:, 0]
    bits = 1 - np.eye(K)
    rest = [np.log(np.exp(log_w - top) @ row / (K - 1)) + top[:, 0] for row in bits]
    return K * bound - (K - 1) * sum(rest) / K
""",
    ),
    (
        "6.6",
        "right",
        "L plus its estimated bias",
        """
def mended_jackknife(log_w):
    K = log_w.shape[1]
    L = logsumexp(log_w, axis=1) - np.log(K)
    bias = 0.0
    for j in range(K):
        rest = np.concatenate([log_w[:, :j], log_w[:, j + 1 :]], axis=1)
        bias = bias + L - (logsumexp(rest, axis=1) - np.log(K - 1))
    return L + (K - 1) / K * bias
""",
    ),
    (
        "6.6",
        "wrong visibly",
        "plain L",
        """
def mended_jackknife(log_w):
    return logsumexp(log_w, axis=1) - np.log(log_w.shape[1])
""",
    ),
    (
        "6.6",
        "wrong visibly",
        "2L − L′, right for K = 2 only",
        """
def mended_jackknife(log_w):
    K = log_w.shape[1]
    L = logsumexp(log_w, axis=1) - np.log(K)
    rest = [logsumexp(np.delete(log_w, j, axis=1), axis=1) - np.log(K - 1) for j in range(K)]
    return 2 * L - np.mean(np.array(rest), axis=0)
""",
    ),
    (
        "6.6",
        "wrong",
        "only one sample left out",
        """
def mended_jackknife(log_w):
    K = log_w.shape[1]
    L = logsumexp(log_w, axis=1) - np.log(K)
    rest = logsumexp(log_w[:, 1:], axis=1) - np.log(K - 1)
    return K * L - (K - 1) * rest
""",
    ),
    (
        "6.6",
        "wrong visibly",
        "the sign of the correction",
        """
def mended_jackknife(log_w):
    K = log_w.shape[1]
    L = logsumexp(log_w, axis=1) - np.log(K)
    rest = [logsumexp(np.delete(log_w, j, axis=1), axis=1) - np.log(K - 1) for j in range(K)]
    return L - (K - 1) * (L - np.mean(np.array(rest), axis=0))
""",
    ),
    (
        "6.6",
        "wrong visibly",
        "the largest weight left out",
        """
def mended_jackknife(log_w):
    K = log_w.shape[1]
    L = logsumexp(log_w, axis=1) - np.log(K)
    rest = logsumexp(np.sort(log_w, axis=1)[:, :-1], axis=1) - np.log(K - 1)
    return K * L - (K - 1) * rest
""",
    ),
    (
        "6.6",
        "wrong",
        "nothing subtracted before exp",
        """
def mended_jackknife(log_w):
    K, w = log_w.shape[1], np.exp(log_w)
    rest = [np.log(np.mean(np.delete(w, j, axis=1), axis=1)) for j in range(K)]
    return K * np.log(np.mean(w, axis=1)) - (K - 1) * np.mean(np.array(rest), axis=0)
""",
    ),
]
