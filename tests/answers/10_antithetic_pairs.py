"""Answers to the exercises of chapter 10: what the checks have to accept and to refuse.

(exercise, verdict, what it is, source in the place of the solution cell)
"""

ANSWERS = [
    # ------------------------------------------------ 10.2 shifted pairs
    ("10.2", "right", "a loop over rows and coins", '''
def shifted_pairs(f, logits, u, delta):
    p = 1 / (1 + np.exp(-logits))
    b = np.where(u < p, 1.0, 0.0)
    other = np.where(np.mod(u + delta, 1) < p, 1.0, 0.0)
    f_b, f_other = f(b), f(other)
    g = np.zeros(u.shape)
    for d, t in enumerate(p):
        differ = t - max(t - delta, 0) - max(t + delta - 1, 0)  # P(b = 1, b' = 0)
        for i in range(len(u)):
            g[i, d] = (f_b[i] - f_other[i]) * (b[i, d] - other[i, d]) / 2 * t * (1 - t) / differ
    return g
'''),
    ("10.2", "right", "the correlation, counted on a fine circle", '''
def shifted_pairs(f, logits, u, delta):
    p, n = sigmoid(logits), 10_000  # all p and δ here are multiples of 1/100
    circle = ((np.arange(n) + 0.5) / n)[:, None]
    both = np.mean((circle < p) & ((circle + delta) % 1 < p), axis=0)
    b, other = (u < p) * 1.0, ((u + delta) % 1 < p) * 1.0
    scale = p * (1 - p) / (p - both)
    return [row for row in (f(b) - f(other))[:, None] * (b - other) * scale / 2]
'''),
    ("10.2", "wrong", "the correlation of mirrored pairs", '''
def shifted_pairs(f, logits, u, delta):
    p = sigmoid(logits)
    b, other = (u < p) * 1.0, ((u + delta) % 1 < p) * 1.0
    return (f(b) - f(other))[:, None] * (b - other) * sigmoid(np.abs(logits)) / 2
'''),
    ("10.2", "wrong", "no correction", '''
def shifted_pairs(f, logits, u, delta):
    p = sigmoid(logits)
    b, other = (u < p) * 1.0, ((u + delta) % 1 < p) * 1.0
    return (f(b) - f(other))[:, None] * (b - other) / 2
'''),
    ("10.2", "wrong", "one of the two overlaps only", '''
def shifted_pairs(f, logits, u, delta):
    p = sigmoid(logits)
    b, other = (u < p) * 1.0, ((u + delta) % 1 < p) * 1.0
    both = np.maximum(p - delta, 0)
    rho = (both - p**2) / (p * (1 - p))
    return (f(b) - f(other))[:, None] * (b - other) / 2 / (1 - rho)
'''),
    ("10.2", "wrong", "no turn around the circle", '''
def shifted_pairs(f, logits, u, delta):
    p = sigmoid(logits)
    b, other = (u < p) * 1.0, (u + delta < p) * 1.0
    both = np.maximum(p - delta, 0) + np.maximum(p - (1 - delta), 0)
    rho = (both - p**2) / (p * (1 - p))
    return (f(b) - f(other))[:, None] * (b - other) / 2 / (1 - rho)
'''),
    ("10.2", "wrong", "the method file: mirrored pairs", '''
import disarm
def shifted_pairs(f, logits, u, delta):
    return disarm.gradient_samples(f, logits, u, u)
'''),
    ("10.2", "wrong", "the exact gradient in every row", '''
def shifted_pairs(f, logits, u, delta):
    return np.tile(common.exact_gradient(f, logits), (len(u), 1))
'''),
    ("10.2", "wrong", "the correlation of the first coin for all", '''
def shifted_pairs(f, logits, u, delta):
    p = sigmoid(logits)
    b, other = (u < p) * 1.0, ((u + delta) % 1 < p) * 1.0
    t = p[0]
    both = max(t - delta, 0) + max(t - (1 - delta), 0)
    return (f(b) - f(other))[:, None] * (b - other) / 2 * t * (1 - t) / (t - both)
'''),
    # ------------------------------------------------ 10.3 two layers
    ("10.3", "right", "the layer above mirrored, too: its uniform is independent of u1", '''
def two_layers(f, a1, a2, u1, u2):
    def pair(a, u):
        p = sigmoid(a)
        return np.where(u > 1 - p, 1.0, 0.0), np.where(u < p, 1.0, 0.0)

    b1, t1 = pair(a1, u1)
    b2, t2 = pair(a2(b1), u2)
    _, above = pair(a2(t1), u2)
    value = f(b1, b2)
    g1 = ((value - f(t1, above)) / 2)[:, None] * (b1 - t1) * np.maximum(sigmoid(a1), sigmoid(-a1))
    p2 = sigmoid(a2(b1))
    g2 = ((value - f(b1, t2)) / 2)[:, None] * (b2 - t2) * np.maximum(p2, 1 - p2)
    return [g1, g2]
'''),
    ("10.3", "right", "all three passes in one call of f", '''
def two_layers(f, a1, a2, u1, u2):
    n = len(u1)
    b1 = (u1 > sigmoid(-a1)) * 1.0
    t1 = (u1 < sigmoid(a1)) * 1.0
    below = np.concatenate([b1, t1, b1])
    a = a2(below)
    top = (np.concatenate([u2, u2, 1 - u2]) > sigmoid(-a)) * 1.0
    value, lower, upper = np.split(f(below, top), 3)
    b2, t2 = top[:n], top[2 * n :]
    g1 = (value - lower)[:, None] * np.where(b1 == t1, 0, b1 - t1) / (1 + np.exp(-np.abs(a1))) / 2
    g2 = (value - upper)[:, None] * (b2 - t2) / (1 + np.exp(-np.abs(a[:n]))) / 2
    return g1, g2
'''),
    ("10.3", "wrong", "the layer above is not drawn anew", '''
def two_layers(f, a1, a2, u1, u2):
    bits = lambda a, u: (u > sigmoid(-a)) * 1.0
    b1, t1 = bits(a1, u1), bits(a1, 1 - u1)
    b2, t2 = bits(a2(b1), u2), bits(a2(b1), 1 - u2)
    g1 = (f(b1, b2) - f(t1, b2))[:, None] * (b1 - t1) * sigmoid(np.abs(a1)) / 2
    return g1, (f(b1, b2) - f(b1, t2))[:, None] * (b2 - t2) * sigmoid(np.abs(a2(b1))) / 2
'''),
    ("10.3", "wrong", "one mirrored pass for both layers", '''
def two_layers(f, a1, a2, u1, u2):
    bits = lambda a, u: (u > sigmoid(-a)) * 1.0
    b1, t1 = bits(a1, u1), bits(a1, 1 - u1)
    b2, t2 = bits(a2(b1), u2), bits(a2(t1), 1 - u2)
    difference = (f(b1, b2) - f(t1, t2))[:, None]
    g1 = difference * (b1 - t1) * sigmoid(np.abs(a1)) / 2
    return g1, difference * (b2 - t2) * sigmoid(np.abs(a2(b1))) / 2
'''),
    ("10.3", "wrong", "the upper pair given the mirrored bits", '''
def two_layers(f, a1, a2, u1, u2):
    bits = lambda a, u: (u > sigmoid(-a)) * 1.0
    b1, t1 = bits(a1, u1), bits(a1, 1 - u1)
    b2, t2, above = bits(a2(b1), u2), bits(a2(t1), 1 - u2), bits(a2(t1), u2)
    g1 = (f(b1, b2) - f(t1, above))[:, None] * (b1 - t1) * sigmoid(np.abs(a1)) / 2
    return g1, (f(b1, b2) - f(b1, t2))[:, None] * (b2 - t2) * sigmoid(np.abs(a2(b1))) / 2
'''),
    ("10.3", "wrong", "σ(a) in the place of σ(|a|)", '''
def two_layers(f, a1, a2, u1, u2):
    bits = lambda a, u: (u > sigmoid(-a)) * 1.0
    b1, t1 = bits(a1, u1), bits(a1, 1 - u1)
    b2, t2, above = bits(a2(b1), u2), bits(a2(b1), 1 - u2), bits(a2(t1), u2)
    g1 = (f(b1, b2) - f(t1, above))[:, None] * (b1 - t1) * sigmoid(a1) / 2
    return g1, (f(b1, b2) - f(b1, t2))[:, None] * (b2 - t2) * sigmoid(a2(b1)) / 2
'''),
    ("10.3", "wrong", "ARM: unbiased, but not DisARM's zero where a pair agrees across layers", '''
def two_layers(f, a1, a2, u1, u2):
    bits = lambda a, u: (u > sigmoid(-a)) * 1.0
    b1, t1 = bits(a1, u1), bits(a1, 1 - u1)
    b2, t2, above = bits(a2(b1), u2), bits(a2(b1), 1 - u2), bits(a2(t1), u2)
    g1 = (f(b1, b2) - f(t1, above))[:, None] * (u1 - 0.5)
    return g1, (f(b1, b2) - f(b1, t2))[:, None] * (u2 - 0.5)
'''),
    ("10.3", "wrong", "REINFORCE", '''
def two_layers(f, a1, a2, u1, u2):
    b1 = (u1 > sigmoid(-a1)) * 1.0
    b2 = (u2 > sigmoid(-a2(b1))) * 1.0
    value = f(b1, b2)[:, None]
    return value * (b1 - sigmoid(a1)), value * (b2 - sigmoid(a2(b1)))
'''),
    ("10.3", "wrong", "their means in every row", '''
def two_layers(f, a1, a2, u1, u2):
    b1 = (u1 > sigmoid(-a1)) * 1.0
    b2 = (u2 > sigmoid(-a2(b1))) * 1.0
    value = f(b1, b2)[:, None]
    g1, g2 = value * (b1 - sigmoid(a1)), value * (b2 - sigmoid(a2(b1)))
    return 0 * g1 + g1.mean(axis=0), 0 * g2 + g2.mean(axis=0)
'''),
    # ------------------------------------------------ 10.4 coins until the gain is used up
    ("10.4", "right", "all cells, listed by the method files", '''
def coins_until(p, r):
    import disarm, rloo
    from harness.toy import outcomes
    f = lambda b: np.sum(b, axis=-1)
    for D in range(1, 8):
        theta, variance = np.full(D, logit(p)), []
        for method, nodes in (disarm, pair_cells(theta)), (rloo, outcomes(theta, 2)):
            u, _, weight = nodes
            g = method.gradient_samples(f, theta, u, u)[:, 0]
            variance.append(weight @ (g - weight @ g) ** 2)
        if variance[0] >= r * variance[1] - 1e-12:
            return D
'''),
    ("10.4", "right", "the quotient, solved for D", '''
def coins_until(p, r):
    m = min(p, 1 - p)
    if r <= (1 - m) * (1 - 2 * m) / (1 - 2 * m * (1 - m)):
        return 1
    # (1 − m + x) / (1 + x) ≥ r with x = 2 (D − 2) m (1 − m)
    x = (r - 1 + m) / (1 - r)
    return int(max(2, np.ceil(2 + x / (2 * m * (1 - m)) - 1e-9)))
'''),
    ("10.4", "wrong", "the squared mean is not subtracted", '''
def coins_until(p, r):
    m = min(p, 1 - p)
    rest = lambda D: 4 * (D - 1) * m**2 * (1 - m) ** 2
    ratio = lambda D: (2 * m * (1 - m) ** 2 + rest(D)) / (2 * m * (1 - m) + rest(D))
    return next(D for D in range(1, 1000) if ratio(D) >= r)
'''),
    ("10.4", "wrong", "other coins that do not depend on the pairing", '''
def coins_until(p, r):
    m, D = min(p, 1 - p), 1
    while (1 - m) ** (1 / D) < r:
        D += 1
    return D
'''),
    ("10.4", "wrong", "the last that is below", '''
def coins_until(p, r):
    m = min(p, 1 - p)
    rest = lambda D: 4 * (D - 2) * m**2 * (1 - m) ** 2
    ratio = lambda D: (2 * m * (1 - m) ** 2 + rest(D)) / (2 * m * (1 - m) + rest(D))
    return next(D for D in range(1, 1000) if ratio(D) >= r) - 1
'''),
    ("10.4", "wrong", "from two coins on", '''
def coins_until(p, r):
    m = min(p, 1 - p)
    rest = lambda D: 4 * (D - 2) * m**2 * (1 - m) ** 2
    ratio = lambda D: (2 * m * (1 - m) ** 2 + rest(D)) / (2 * m * (1 - m) + rest(D))
    return next(D for D in range(2, 1000) if ratio(D) >= r)
'''),
    ("10.4", "wrong", "for p up to ½ only", '''
def coins_until(p, r):
    m = p
    rest = lambda D: 4 * (D - 2) * m**2 * (1 - m) ** 2
    ratio = lambda D: (2 * m * (1 - m) ** 2 + rest(D)) / (2 * m * (1 - m) + rest(D))
    return next(D for D in range(1, 1000) if ratio(D) >= r)
'''),
    ("10.4", "wrong", "by the function of the check", '''
def coins_until(p, r):
    R = lambda D: variance(p, D, False) / variance(p, D, True)
    return next(D for D in range(1, 100) if R(D) >= r)
'''),
    ("10.4", "wrong", "one number for all", '''
def coins_until(p, r):
    return 5
'''),
    # ------------------------------------------------ 10.5 a partner is no stranger
    ("10.5", "right", "a loop over pairs, the other pairs deleted and kept", '''
def mended(f_b, b, logits):
    n, P, _, D = b.shape
    g = np.zeros((n, D))
    for p in range(P):
        C = np.delete(f_b, p, axis=1).reshape(n, -1).mean(axis=1)
        for k in range(2):
            g += (f_b[:, p, k] - C)[:, None] * (b[:, p, k] - sigmoid(logits)) / (2 * P)
    return g
'''),
    ("10.5", "right", "all samples in the baseline, and the correlation taken out again", '''
def mended(f_b, b, logits):
    P, p = f_b.shape[1], sigmoid(logits)
    others = (np.sum(f_b, axis=(1, 2), keepdims=True) - f_b) / (2 * P - 1)
    m = np.minimum(p, 1 - p)
    rho = -m / (1 - m)
    g = np.mean((f_b - others)[..., None] * (b - p), axis=(1, 2))
    return g / (1 - rho / (2 * P - 1))
'''),
    ("10.5", "right", "the mean of one other pair, as a list", '''
def mended(f_b, b, logits):
    C = np.roll(f_b, 1, axis=1).mean(axis=2, keepdims=True)
    return list(np.mean((f_b - C)[..., None] * (b - sigmoid(logits)), axis=(1, 2)))
'''),
    ("10.5", "wrong", "the mean of all samples", '''
def mended(f_b, b, logits):
    C = np.mean(f_b, axis=(1, 2), keepdims=True)
    return np.mean((f_b - C)[..., None] * (b - sigmoid(logits)), axis=(1, 2))
'''),
    ("10.5", "wrong", "the partner alone", '''
def mended(f_b, b, logits):
    return np.mean((f_b - f_b[:, :, ::-1])[..., None] * (b - sigmoid(logits)), axis=(1, 2))
'''),
    ("10.5", "wrong", "the mean of all pairs, rescaled as for independent samples", '''
def mended(f_b, b, logits):
    P = f_b.shape[1]
    C = np.mean(f_b, axis=(1, 2), keepdims=True)
    g = np.mean((f_b - C)[..., None] * (b - sigmoid(logits)), axis=(1, 2))
    return g * 2 * P / (2 * P - 1)
'''),
    ("10.5", "wrong", "no baseline", '''
def mended(f_b, b, logits):
    return np.mean(f_b[..., None] * (b - sigmoid(logits)), axis=(1, 2))
'''),
    ("10.5", "wrong", "right for two pairs only", '''
def mended(f_b, b, logits):
    C = np.mean(f_b[:, ::-1], axis=2, keepdims=True)
    return np.mean((f_b - C)[..., None] * (b - sigmoid(logits)), axis=(1, 2))
'''),
    ("10.5", "wrong", "DisARM, which is not asked for", '''
def mended(f_b, b, logits):
    difference = f_b[:, :, :1] - f_b[:, :, 1:]
    g = difference * (b[:, :, 0] - b[:, :, 1]) * sigmoid(np.abs(logits)) / 2
    return np.mean(g, axis=1)
'''),
    ("10.5", "wrong", "the mean of the estimates in every row", '''
def mended(f_b, b, logits):
    return 0 * b[:, 0, 0] + np.mean(released(f_b, b, logits), axis=0)
'''),
    ("10.5", "wrong", "nine tenths of it the exact gradient of the check", '''
def mended(f_b, b, logits):
    C = np.roll(f_b, 1, axis=1).mean(axis=2, keepdims=True)
    g = np.mean((f_b - C)[..., None] * (b - sigmoid(logits)), axis=(1, 2))
    return 0.9 * exact + 0.1 * g
'''),
    ("10.5", "wrong", "nothing changed", '''
mended = released
'''),
]  # fmt: skip
