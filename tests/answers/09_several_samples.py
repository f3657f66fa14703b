"""Answers to the exercises of chapter 9: what the checks have to accept and to refuse.

(exercise, verdict, what it is, source in the place of the solution cell)
"""

ANSWERS = [
    # ---------------------------------------------------------- 9.2 a median as the baseline
    ("9.2", "right", "a loop over samples", '''
def signals_by_median(f_b):
    signal = []
    for row in f_b:
        signal.append([])
        for k, value in enumerate(row):
            others = sorted(x for j, x in enumerate(row) if j != k)
            n = len(others)
            signal[-1].append(value - (others[n // 2] + others[(n - 1) // 2]) / 2)
    return signal
'''),
    ("9.2", "right", "a masked diagonal", '''
def signals_by_median(f_b):
    N, K = f_b.shape
    table = np.repeat(f_b[:, None, :], K, axis=1)
    table[:, np.arange(K), np.arange(K)] = np.nan
    return f_b - np.nanmedian(table, axis=2)
'''),
    ("9.2", "wrong", "the median of all samples, its own included", '''
def signals_by_median(f_b):
    return f_b - np.median(f_b, axis=1, keepdims=True)
'''),
    ("9.2", "wrong", "the mean of the others", '''
def signals_by_median(f_b):
    K = f_b.shape[1]
    return f_b - (np.sum(f_b, axis=1, keepdims=True) - f_b) / (K - 1)
'''),
    ("9.2", "wrong", "the lower of the middle two", '''
def signals_by_median(f_b):
    K = f_b.shape[1]
    others = [np.sort(np.delete(f_b, k, axis=1), axis=1)[:, (K - 2) // 2] for k in range(K)]
    return f_b - np.stack(others, axis=1)
'''),
    ("9.2", "wrong", "the median over the images", '''
def signals_by_median(f_b):
    return f_b - np.median(f_b, axis=0, keepdims=True)
'''),
    ("9.2", "wrong", "the middle of the others for K = 4 only", '''
def signals_by_median(f_b):
    K = f_b.shape[1]
    others = [np.sort(np.delete(f_b, k, axis=1), axis=1)[:, min(1, K - 2)] for k in range(K)]
    return f_b - np.stack(others, axis=1)
'''),
    ("9.2", "wrong", "no baseline", '''
def signals_by_median(f_b):
    return f_b
'''),
    ("9.2", "wrong", "the method file", '''
import rloo
def signals_by_median(f_b):
    return rloo.advantage(f_b)
'''),
    ("9.2", "wrong", "the exact gradient", '''
def signals_by_median(f_b):
    return np.tile(common.exact_gradient(lambda b: b[:, 0], np.zeros(1)), f_b.shape)
'''),
    # ---------------------------------------------------------- 9.3 any power mean
    ("9.3", "right", "a masked table of all pairs", '''
def signals_by_power(log_w, r):
    K = log_w.shape[1]
    eye = np.eye(K, dtype=bool)
    x = np.where(eye, -np.inf, r * log_w[:, None, :])
    top = np.max(x, axis=2, keepdims=True)
    log_M = (top[..., 0] + np.log(np.sum(np.exp(x - top), axis=2) / (K - 1))) / r
    swapped = np.where(eye, log_M[:, :, None], log_w[:, None, :])
    return np.logaddexp.reduce(log_w, axis=1)[:, None] - np.logaddexp.reduce(swapped, axis=2)
'''),
    ("9.3", "right", "a loop over rows, as a list", '''
def signals_by_power(log_w, r):
    signals = []
    for row in log_w:
        top = row.max()
        w = np.exp(row - top)
        signals.append([])
        for k in range(len(w)):
            others = [row[j] - top for j in range(len(w)) if j != k]
            up = max(r * x for x in others)
            log_M = (up + np.log(np.mean([np.exp(r * x - up) for x in others]))) / r
            signals[-1].append(np.log(w.sum() / (w.sum() - w[k] + np.exp(log_M))))
    return signals
'''),
    ("9.3", "wrong", "no root", '''
def signals_by_power(log_w, r):
    L, signal = log_mean_exp(log_w, 1), []
    for k in range(log_w.shape[1]):
        others = np.delete(log_w, k, axis=1)
        mean = log_mean_exp(r * others, 1)
        signal.append(L - log_mean_exp(np.column_stack([others, mean]), 1))
    return np.stack(signal, axis=1)
'''),
    ("9.3", "wrong", "the mean of all weights, its own included", '''
def signals_by_power(log_w, r):
    L, signal = log_mean_exp(log_w, 1), []
    mean = log_mean_exp(r * log_w, 1) / r
    for k in range(log_w.shape[1]):
        others = np.delete(log_w, k, axis=1)
        signal.append(L - log_mean_exp(np.column_stack([others, mean]), 1))
    return np.stack(signal, axis=1)
'''),
    ("9.3", "wrong", "a power of the log-weights", '''
def signals_by_power(log_w, r):
    L, signal = log_mean_exp(log_w, 1), []
    for k in range(log_w.shape[1]):
        others = np.delete(log_w, k, axis=1)
        mean = -np.mean(np.abs(others) ** r, axis=1) ** (1 / r)
        signal.append(L - log_mean_exp(np.column_stack([others, mean]), 1))
    return np.stack(signal, axis=1)
'''),
    ("9.3", "wrong", "weights that overflow", '''
def signals_by_power(log_w, r):
    with np.errstate(all="ignore"):
        w, signal = np.exp(log_w), []
        for k in range(w.shape[1]):
            others = np.delete(w, k, axis=1)
            mean = np.mean(others**r, axis=1) ** (1 / r)
            swapped = np.column_stack([others, mean])
            signal.append(np.log(w.mean(axis=1)) - np.log(swapped.mean(axis=1)))
    return np.stack(signal, axis=1)
'''),
    ("9.3", "wrong", "the replaced bound of K − 1 samples", '''
def signals_by_power(log_w, r):
    L, signal = log_mean_exp(log_w, 1), []
    for k in range(log_w.shape[1]):
        signal.append(L - log_mean_exp(r * np.delete(log_w, k, axis=1), 1) / r)
    return np.stack(signal, axis=1)
'''),
    ("9.3", "wrong", "the method file, the nearest of its means", '''
import vimco
def signals_by_power(log_w, r):
    return vimco.signals(log_w, "arithmetic" if r > 0.5 else "geometric")
'''),
    ("9.3", "wrong", "no baseline", '''
def signals_by_power(log_w, r):
    return log_mean_exp(log_w, 1)[:, None] + 0 * log_w
'''),
    # ---------------------------------------------------------- 9.4 images or samples
    ("9.4", "right", "the closed form, rounded on both sides", '''
def best_samples(theta, effects):
    e = np.asarray(effects, float)
    K = 1 + np.sqrt(2 * np.mean(e**2) / np.var(e))
    cost = lambda K: K * np.var(e) + 2 * np.mean(e**2) / (K - 1)
    around = [k for k in (int(K), int(K) + 1) if k >= 2]
    return min(around, key=cost)
'''),
    ("9.4", "right", "all numbers of ones, enumerated", '''
def best_samples(theta, effects):
    from math import comb
    p, best = sigmoid(theta), None
    for K in range(2, 30):
        first = second = 0
        for m in range(K + 1):
            P = comb(K, m) * p**m * (1 - p) ** (K - m)
            for e in effects:
                g = e * m * (K - m) / K / (K - 1)
                first += P * g / len(effects)
                second += P * g * g / len(effects)
        cost = K * (second - first**2)
        if best is None or cost < best[0]:
            best = cost, K
    return np.int64(best[1])
'''),
    ("9.4", "wrong", "images that all have the mean effect", '''
def best_samples(theta, effects):
    return 39
'''),
    ("9.4", "wrong", "two, as in the paper", '''
def best_samples(theta, effects):
    return 2
'''),
    ("9.4", "wrong", "right for the first case only", '''
def best_samples(theta, effects):
    low, *_, high = effects
    return {(0.2): 39}.get(theta, 5)
'''),
    ("9.4", "wrong", "no rounding", '''
def best_samples(theta, effects):
    e = np.asarray(effects, float)
    return 1 + np.sqrt(2 * np.mean(e**2) / np.var(e))
'''),
    ("9.4", "wrong", "by the function of the check", '''
def best_samples(theta, effects):
    values = costs(theta, effects)
    return min(values, key=values.get)
'''),
    ("9.4", "wrong", "without the covariance of the baselines", '''
def best_samples(theta, effects):
    e = np.asarray(effects, float)
    return int(round(1 + np.sqrt(np.mean(e**2) / np.var(e))))
'''),
    ("9.4", "wrong", "the least variance of one image", '''
def best_samples(theta, effects):
    p, e = sigmoid(theta), np.asarray(effects)
    g = e * p * (1 - p)
    cost = lambda K: np.mean(2 * g**2 / (K - 1)) / K
    return min(range(2, 40), key=cost)
'''),
    # ---------------------------------------------------------- 9.5 rows and images
    ("9.5", "right", "a loop over images", '''
def mended(f_b, score, K):
    total = np.zeros(score.shape[1])
    for i in range(0, len(f_b), K):
        f, s = f_b[i : i + K], score[i : i + K]
        total += (f - f.mean()) @ s / (K - 1)
    return total / (len(f_b) // K)
'''),
    ("9.5", "right", "pairs, as a list", '''
def mended(f_b, score, K):
    N, D = len(f_b) // K, score.shape[1]
    f, s = f_b.reshape(N, K), score.reshape(N, K, D)
    d = f[:, :, None] - f[:, None, :]
    e = s[:, :, None] - s[:, None, :]
    return list(np.sum(d[..., None] * e, axis=(0, 1, 2)) / (2 * N * K * (K - 1)))
'''),
    ("9.5", "right", "the transposed table, turned back", '''
def mended(f_b, score, K):
    f = np.reshape(f_b, (-1, K)).T
    others = (np.sum(f, axis=0) - f) / (K - 1)
    signal = (f - others).T.ravel()
    return signal @ score / len(score)
'''),
    ("9.5", "wrong", "turned back at the end only", '''
def mended(f_b, score, K):
    f_b = np.reshape(f_b, (K, -1))
    others = (np.sum(f_b, axis=0) - f_b) / (K - 1)
    signal = np.reshape((f_b - others).T, -1)
    return np.mean(signal[:, None] * score, axis=0)
'''),
    ("9.5", "wrong", "all other rows of the batch", '''
def mended(f_b, score, K):
    others = (np.sum(f_b) - f_b) / (len(f_b) - 1)
    return np.mean((f_b - others)[:, None] * score, axis=0)
'''),
    ("9.5", "wrong", "includes the sample itself", '''
def mended(f_b, score, K):
    f_b = np.reshape(f_b, (-1, K))
    signal = np.reshape(f_b - f_b.mean(axis=1, keepdims=True), -1)
    return np.mean(signal[:, None] * score, axis=0)
'''),
    ("9.5", "wrong", "the sum over images", '''
def mended(f_b, score, K):
    f_b = np.reshape(f_b, (-1, K))
    signal = np.reshape(f_b - f_b.mean(axis=1, keepdims=True), -1)
    return signal @ score / (K - 1)
'''),
    ("9.5", "wrong", "right for two samples only", '''
def mended(f_b, score, K):
    f_b = np.reshape(f_b, (-1, K))
    signal = np.reshape(f_b - f_b[:, ::-1], -1)
    return np.mean(signal[:, None] * score, axis=0)
'''),
    ("9.5", "wrong", "nothing changed", '''
mended = released
'''),
    ("9.5", "wrong", "the exact gradient of another f", '''
def mended(f_b, score, K):
    return common.exact_gradient(lambda b: b[:, 0], np.zeros(2))
'''),
]  # fmt: skip
