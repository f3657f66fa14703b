"""Answers to the exercises of chapter 2 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "2.2",
        "right",
        "a loop over the rows",
        """
def baseline_gradient(phi, features, f_b):
    total = np.zeros(len(phi))
    for x, f in zip(features, f_b):
        total += 2 * (phi @ x - f) * x
    return total / len(f_b)
""",
    ),
    (
        "2.2",
        "right",
        "by the normal equations",
        """
def baseline_gradient(phi, features, f_b):
    return 2 * (features.T @ features @ phi - features.T @ f_b) / len(f_b)
""",
    ),
    (
        "2.2",
        "wrong visibly",
        "the sum, not the mean",
        """
def baseline_gradient(phi, features, f_b):
    return -2 * (f_b - features @ phi) @ features
""",
    ),
    (
        "2.2",
        "wrong visibly",
        "for ascent",
        """
def baseline_gradient(phi, features, f_b):
    return 2 * (f_b - features @ phi) @ features / len(f_b)
""",
    ),
    (
        "2.2",
        "wrong visibly",
        "half of it",
        """
def baseline_gradient(phi, features, f_b):
    return -(f_b - features @ phi) @ features / len(f_b)
""",
    ),
    (
        "2.2",
        "wrong visibly",
        "the check's own differences",
        """
def baseline_gradient(phi, features, f_b):
    return np.array(differences)
""",
    ),
    (
        "2.3",
        "right",
        "with the squares' mean",
        """
def centred_and_normalized(f_b):
    out, c, v = np.empty(f_b.shape), 0, 0
    for t in range(len(f_b)):
        scale = np.sqrt(v) if v > 1 else 1
        out[t] = (f_b[t] - c) / scale
        mean = np.mean(f_b[t])
        c = c + 0.2 * (mean - c)
        v = v + 0.2 * (np.mean(f_b[t] ** 2) - mean**2 - v)
    return out
""",
    ),
    (
        "2.3",
        "right",
        "weights of all earlier steps",
        """
def centred_and_normalized(f_b):
    mean, variance = f_b.mean(axis=1), f_b.var(axis=1)
    out = []
    for t in range(len(f_b)):
        weight = 0.2 * 0.8 ** np.arange(t)[::-1]
        out.append((f_b[t] - weight @ mean[:t]) / max(1, (weight @ variance[:t]) ** 0.5))
    return np.stack(out)
""",
    ),
    (
        "2.3",
        "right",
        "the unbiased variance",
        """
def centred_and_normalized(f_b):
    c, v, out = 0.0, 0.0, []
    for row in f_b:
        out.append((row - c) / np.sqrt(np.maximum(v, 1)))
        c, v = 0.8 * c + 0.2 * row.mean(), 0.8 * v + 0.2 * row.var(ddof=1)
    return np.array(out)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "decay swapped",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        signals.append((row - c) / max(1.0, np.sqrt(v)))
        c, v = 0.2 * c + 0.8 * row.mean(), 0.2 * v + 0.8 * row.var()
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "decay swapped, of v only",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        signals.append((row - c) / max(1.0, np.sqrt(v)))
        c, v = 0.8 * c + 0.2 * row.mean(), 0.2 * v + 0.8 * row.var()
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "variance around c",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        signals.append((row - c) / max(1.0, np.sqrt(v)))
        c, v = 0.8 * c + 0.2 * row.mean(), 0.8 * v + 0.2 * np.mean((row - c) ** 2)
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "variance around the new c",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        signals.append((row - c) / max(1.0, np.sqrt(v)))
        c = 0.8 * c + 0.2 * row.mean()
        v = 0.8 * v + 0.2 * np.mean((row - c) ** 2)
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "updated before it is used",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        c, v = 0.8 * c + 0.2 * row.mean(), 0.8 * v + 0.2 * row.var()
        signals.append((row - c) / max(1.0, np.sqrt(v)))
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong visibly",
        "divides by v",
        """
def centred_and_normalized(f_b):
    c = v = 0.0
    signals = []
    for row in f_b:
        signals.append((row - c) / max(1.0, v))
        c, v = 0.8 * c + 0.2 * row.mean(), 0.8 * v + 0.2 * row.var()
    return np.array(signals)
""",
    ),
    (
        "2.3",
        "wrong",
        "without the 1: a small variance magnifies",
        """
def centred_and_normalized(f_b):
    c, v, signals = 0.0, 0.0, []
    for row in f_b:
        signals.append((row - c) / (np.sqrt(v) if v > 0 else 1.0))
        c, v = 0.8 * c + 0.2 * row.mean(), 0.8 * v + 0.2 * row.var()
    return np.array(signals)
""",
    ),
    (
        "2.4",
        "right",
        "by hand",
        """
def mended_24(theta, phi, features, b, f_b):
    signal = f_b - features @ phi
    by_theta = np.mean(signal[:, None] * (b - common.sigmoid(theta)), axis=0)
    return by_theta, -2 * np.mean(signal[:, None] * features, axis=0)
""",
    ),
    (
        "2.4",
        "right",
        "two losses, two calls of grad",
        """
def mended_24(theta, phi, features, b, f_b):
    def reward(theta):
        log_q = anp.sum(b * theta - anp.log(1 + anp.exp(theta)), axis=1)
        return anp.mean((f_b - features @ phi) * log_q)

    def squares(phi):
        return anp.mean((f_b - anp.dot(features, phi)) ** 2)

    return autograd.grad(reward)(theta), autograd.grad(squares)(phi)
""",
    ),
    (
        "2.4",
        "wrong visibly",
        "the squared error is added, the signal is still in the trace",
        """
def mended_24(theta, phi, features, b, f_b):
    def loss(theta, phi):
        log_q = anp.sum(b * theta - anp.log(1 + anp.exp(theta)), axis=1)
        signal = f_b - anp.dot(features, phi)
        return -anp.mean(signal * log_q) + 0.1 * anp.mean(signal**2)

    by_theta, by_phi = autograd.grad(loss, (0, 1))(theta, phi)
    return -by_theta, by_phi
""",
    ),
    (
        "2.4",
        "wrong visibly",
        "the baseline climbs",
        """
def mended_24(theta, phi, features, b, f_b):
    signal = f_b - features @ phi
    by_theta = signal @ (b - common.sigmoid(theta)) / len(b)
    return by_theta, 2 * np.clip(signal, -1, 1) @ features / len(b)
""",
    ),
    (
        "2.4",
        "wrong visibly",
        "descent for the logits, too",
        """
def mended_24(theta, phi, features, b, f_b):
    signal = f_b - features @ phi
    by_theta = signal @ (b - common.sigmoid(theta)) / len(b)
    return -by_theta, -2 * signal @ features / len(b)
""",
    ),
    (
        "2.4",
        "wrong visibly",
        "the exact gradient of the f of the check",
        """
def mended_24(theta, phi, features, b, f_b):
    return common.exact_gradient(f_24, theta), -2 * (f_b - features @ phi) @ features / len(b)
""",
    ),
    (
        "2.4",
        "wrong",
        "the logits do without the baseline",
        """
def mended_24(theta, phi, features, b, f_b):
    signal = f_b - features @ phi
    by_theta = (f_b - f_b.mean()) @ (b - common.sigmoid(theta)) / len(b)
    return by_theta, -2 * signal @ features / len(b)
""",
    ),
    (
        "2.5",
        "right",
        "a loop",
        """
def mended_25(f_b, score, v):
    scale = max(1.0, v**0.5)
    total = sum(f * s for f, s in zip(f_b, score)) / (scale * len(f_b))
    return total, v + 0.2 * (np.var(f_b) - v)
""",
    ),
    (
        "2.5",
        "right",
        "the new v under a name of its own",
        """
def mended_25(f_b, score, v):
    new = 0.8 * v + 0.2 * np.mean((f_b - f_b.mean()) ** 2)
    return f_b @ score / len(f_b) / np.sqrt(np.maximum(v, 1)), new
""",
    ),
    (
        "2.5",
        "wrong visibly",
        "v never updated",
        """
def mended_25(f_b, score, v):
    signal = f_b / max(1.0, np.sqrt(v))
    return np.mean(signal[:, None] * score, axis=0), v
""",
    ),
    (
        "2.5",
        "wrong visibly",
        "the new v is the batch's own variance",
        """
def mended_25(f_b, score, v):
    signal = f_b / max(1.0, np.sqrt(v))
    return np.mean(signal[:, None] * score, axis=0), np.var(f_b)
""",
    ),
    (
        "2.5",
        "wrong visibly",
        "no scale at all",
        """
def mended_25(f_b, score, v):
    return np.mean(f_b[:, None] * score, axis=0), 0.8 * v + 0.2 * np.var(f_b)
""",
    ),
    (
        "2.5",
        "wrong visibly",
        "decay swapped",
        """
def mended_25(f_b, score, v):
    signal = f_b / max(1.0, np.sqrt(v))
    return np.mean(signal[:, None] * score, axis=0), 0.2 * v + 0.8 * np.var(f_b)
""",
    ),
    (
        "2.5",
        "wrong",
        "the 1 is forgotten",
        """
def mended_25(f_b, score, v):
    return f_b @ score / len(f_b) / np.sqrt(v), 0.8 * v + 0.2 * np.var(f_b)
""",
    ),
    (
        "2.6",
        "right",
        "by probabilities",
        """
def mended_26(f, logits, rng, n):
    p = common.sigmoid(logits)
    b = (rng.random((n, len(p))) < p).astype(float)
    return f(b)[:, None] * (b - p)
""",
    ),
    (
        "2.6",
        "right",
        "logistic noise of numpy",
        """
def mended_26(f, logits, rng, n):
    b = np.where(logits + rng.logistic(size=(n, logits.size)) > 0, 1.0, 0.0)
    return (f(b) - f(b[:1] * 0))[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "2.6",
        "wrong visibly",
        "one draw of every coin, for all rows",
        """
def mended_26(f, logits, rng, n):
    u = np.tile(rng.random((1, len(logits))), (n, 1))
    b = (logits + np.log(u) - np.log1p(-u) > 0).astype(float)
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "2.6",
        "wrong visibly",
        "two of the coins still share it",
        """
def mended_26(f, logits, rng, n):
    u = rng.random((n, 3))
    u[:, 2] = u[:, 0]
    b = (logits + np.log(u) - np.log1p(-u) > 0).astype(float)
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "2.6",
        "wrong visibly",
        "coins that are opposed",
        """
def mended_26(f, logits, rng, n):
    u = np.abs(rng.random((n, 1)) - [0, 1, 0])
    b = (logits + np.log(u) - np.log1p(-u) > 0).astype(float)
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "2.6",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended_26(f, logits, rng, n):
    return np.tile(common.exact_gradient(f, logits), (n, 1))
""",
    ),
]
