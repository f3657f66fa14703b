"""Answers to the exercises of chapter 1 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "1.2",
        "right",
        "a loop over the samples",
        """
def signal_per_image(f_b):
    signal = np.empty_like(f_b)
    for k in range(f_b.shape[1]):
        signal[:, k] = f_b[:, k] - np.delete(f_b, k, axis=1).mean(axis=1)
    return signal
""",
    ),
    (
        "1.2",
        "right",
        "the deviation from the mean of all, stretched",
        """
def signal_per_image(f_b):
    K = f_b.shape[1]
    return (f_b - f_b.mean(axis=1, keepdims=True)) * K / (K - 1)
""",
    ),
    (
        "1.2",
        "wrong visibly",
        "includes the sample itself",
        """
def signal_per_image(f_b):
    return f_b - f_b.mean(axis=1, keepdims=True)
""",
    ),
    (
        "1.2",
        "wrong visibly",
        "the mean over the whole batch, without the sample",
        """
def signal_per_image(f_b):
    return f_b - (f_b.sum() - f_b) / (f_b.size - 1)
""",
    ),
    (
        "1.2",
        "wrong visibly",
        "the other images instead of the other samples",
        """
def signal_per_image(f_b):
    others = (np.sum(f_b, axis=0) - f_b) / max(len(f_b) - 1, 1)
    return f_b - others
""",
    ),
    (
        "1.2",
        "wrong",
        "one other sample, not the mean of all",
        """
def signal_per_image(f_b):
    return f_b - np.roll(f_b, 1, axis=1)
""",
    ),
    (
        "1.2",
        "wrong",
        "the median of the others",
        """
def signal_per_image(f_b):
    rest = [np.median(np.delete(f_b, k, axis=1), axis=1) for k in range(f_b.shape[1])]
    return f_b - np.stack(rest, axis=1)
""",
    ),
    (
        "1.3",
        "right",
        "the two outcomes, weighted with their probabilities",
        """
def one_coin_at_a_time(f, logits, b):
    p, columns = common.sigmoid(logits), []
    for d in range(len(logits)):
        total = 0.0
        for value, probability in ((0.0, 1 - p[d]), (1.0, p[d])):
            other = b.copy()
            other[:, d] = value
            total = total + probability * f(other) * (value - p[d])
        columns.append(total)
    return np.stack(columns, axis=1)
""",
    ),
    (
        "1.3",
        "right",
        "D + 1 evaluations: the coin turned round",
        """
def one_coin_at_a_time(f, logits, b):
    p, f_b, g = common.sigmoid(logits), f(b), np.zeros_like(b)
    for d in range(b.shape[1]):
        other = b.copy()
        other[:, d] = 1 - other[:, d]
        g[:, d] = p[d] * (1 - p[d]) * (f_b - f(other)) * (2 * b[:, d] - 1)
    return g
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "the difference without the weight p (1 - p)",
        """
def one_coin_at_a_time(f, logits, b):
    g = np.zeros(b.shape)
    for d in range(b.shape[1]):
        up, down = b.copy(), b.copy()
        up[:, d], down[:, d] = 1, 0
        g[:, d] = f(up) - f(down)
    return g
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "a baseline of the other coins that leaves noise of coin d",
        """
def one_coin_at_a_time(f, logits, b):
    p, g = common.sigmoid(logits), np.zeros(b.shape)
    for d in range(b.shape[1]):
        up, down = b.copy(), b.copy()
        up[:, d], down[:, d] = 1, 0
        C = p[d] * f(up) + (1 - p[d]) * f(down)
        g[:, d] = (f(b) - C) * (b[:, d] - p[d])
    return g
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "REINFORCE",
        """
def one_coin_at_a_time(f, logits, b):
    return f(b)[:, None] * (b - common.sigmoid(logits))
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def one_coin_at_a_time(f, logits, b):
    return np.tile(common.exact_gradient(f, logits), (len(b), 1))
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "the exact gradient, enumerated",
        """
def one_coin_at_a_time(f, logits, b):
    bits, weight = all_batches(1, logits)
    bits = bits[:, 0]
    exact = (weight * f(bits)) @ (bits - common.sigmoid(logits))
    return np.tile(exact, (len(b), 1))
""",
    ),
    (
        "1.3",
        "wrong visibly",
        "the other coins at their means",
        """
def one_coin_at_a_time(f, logits, b):
    p, g = common.sigmoid(logits), np.zeros(b.shape)
    for d in range(b.shape[1]):
        up, down = np.tile(p, (len(b), 1)), np.tile(p, (len(b), 1))
        up[:, d], down[:, d] = 1, 0
        g[:, d] = p[d] * (1 - p[d]) * (f(up) - f(down))
    return g
""",
    ),
    (
        "1.4",
        "right",
        "all batches listed",
        """
def enough_rows(f0, f1, theta, epsilon):
    p = common.sigmoid(theta)
    mean = (1 - p) * f0 + p * f1
    one = np.array([(f0 - mean) * -p, (f1 - mean) * (1 - p)])
    q = np.array([1 - p, p])
    limit = q @ (one - q @ one) ** 2
    for B in range(2, 15):
        bits, weight = all_batches(B, np.array([theta]))
        b = bits[..., 0]
        f_b = np.where(b == 1, f1, f0)
        rest = (f_b.sum(axis=1, keepdims=True) - f_b) / (B - 1)
        g = ((f_b - rest) * (b - p)).mean(axis=1)
        if B * (weight @ (g - weight @ g) ** 2) <= (1 + epsilon) * limit:
            return B
""",
    ),
    (
        "1.4",
        "right",
        "the formula solved for B",
        """
def enough_rows(f0, f1, theta, epsilon):
    p = common.sigmoid(theta)
    v = p * (1 - p)  # in units of (f1 - f0)²: the limit is v (1 - 4v), what is added 2 v² / (B - 1)
    if p == 0.5:
        return 2
    return max(2, 1 + int(np.ceil(2 * v / ((1 - 4 * v) * epsilon))))
""",
    ),
    (
        "1.4",
        "wrong visibly",
        "forgets to subtract the squared gradient",
        """
def enough_rows(f0, f1, theta, epsilon):
    p = common.sigmoid(theta)
    q, s, f = np.array([1 - p, p]), np.array([-p, 1 - p]), np.array([f0, f1])
    mean = q @ f
    limit = q @ ((f - mean) * s) ** 2
    B = 2
    while limit * (1 + 1 / (B - 1)) > (1 + epsilon) * limit:
        B += 1
    return B
""",
    ),
    (
        "1.4",
        "wrong visibly",
        "one row too many",
        """
def enough_rows(f0, f1, theta, epsilon):
    v = common.sigmoid(theta) * common.sigmoid(-theta)
    return 2 + int(np.ceil(2 * v / ((1 - 4 * v) * epsilon)))
""",
    ),
    (
        "1.4",
        "wrong visibly",
        "not a whole number",
        """
def enough_rows(f0, f1, theta, epsilon):
    v = common.sigmoid(theta) * common.sigmoid(-theta)
    return 1 + 2 * v / ((1 - 4 * v) * epsilon)
""",
    ),
    (
        "1.4",
        "wrong visibly",
        "the check's own function",
        """
def enough_rows(f0, f1, theta, epsilon):
    B = 2
    while excess(B, f0, f1, theta) > epsilon:
        B += 1
    return B
""",
    ),
    (
        "1.5",
        "right",
        "a row after the other",
        """
def mended(f, logits, b, baseline):
    total = np.zeros(len(logits))
    for row, C in zip(b, baseline):
        total += (f(row[None])[0] - C) * (row - common.sigmoid(logits))
    return total / len(b)
""",
    ),
    (
        "1.5",
        "right",
        "with the column of the log-likelihood, and a column of baselines",
        """
def mended(f, logits, b, baseline):
    signal = np.reshape(f(b), (-1, 1)) - np.reshape(baseline, (-1, 1))
    return np.mean(signal * (b - common.sigmoid(logits)), axis=0)
""",
    ),
    (
        "1.5",
        "wrong visibly",
        "the code with the bug, divided by B once more",
        """
def mended(f, logits, b, baseline):
    signal = np.reshape(f(b), (-1, 1)) - baseline
    return np.mean(signal[..., None] * (b - common.sigmoid(logits)), axis=(0, 1)) / len(b)
""",
    ),
    (
        "1.5",
        "wrong visibly",
        "the sum over the batch",
        """
def mended(f, logits, b, baseline):
    return (f(b) - baseline) @ (b - common.sigmoid(logits))
""",
    ),
    (
        "1.5",
        "wrong",
        "without any baseline",
        """
def mended(f, logits, b, baseline):
    return f(b) @ (b - common.sigmoid(logits)) / len(b)
""",
    ),
    (
        "1.5",
        "wrong",
        "the mean of the baselines for every row",
        """
def mended(f, logits, b, baseline):
    return (f(b) - baseline.mean()) @ (b - common.sigmoid(logits)) / len(b)
""",
    ),
    (
        "1.5",
        "wrong visibly",
        "the exact gradient of common.py",
        """
def mended(f, logits, b, baseline):
    return common.exact_gradient(f, logits)
""",
    ),
    (
        "1.5",
        "wrong",
        "the bug times B: the right mean, the wrong noise",
        """
def mended(f, logits, b, baseline):
    signal = np.reshape(f(b), (-1, 1)) - baseline
    return np.sum(signal[..., None] * (b - common.sigmoid(logits)), axis=(0, 1)) / len(b)
""",
    ),
]
