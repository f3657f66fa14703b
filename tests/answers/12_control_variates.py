"""Answers to the exercises of chapter 12 that its checks have to refuse, or to accept.

Each is (exercise, "wrong" or "right", what it is, the source in the place of the solution cell).
"""

ANSWERS = [
    ("12.2", "wrong", "the score function alone", '''
def lax(f_z, c_z, slope_z, theta, z):
    return f_z * (1 - np.exp(theta) * z)
'''),
    ("12.2", "wrong", "the path of c alone", '''
def lax(f_z, c_z, slope_z, theta, z):
    return -slope_z * z
'''),
    ("12.2", "wrong", "c subtracted and not paid back", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z) * (1 - np.exp(theta) * z)
'''),
    ("12.2", "wrong", "paid back with the other sign", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z) * (1 - np.exp(theta) * z) + slope_z * z
'''),
    ("12.2", "wrong", "z moves as a location", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z) * (1 - np.exp(theta) * z) + slope_z
'''),
    ("12.2", "wrong", "the score by the rate, not by its logarithm", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z) * (np.exp(-theta) - z) - slope_z * z
'''),
    ("12.2", "wrong", "right at θ = 0 only", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z) * (1 - z) - slope_z * z
'''),
    ("12.2", "wrong", "half of c", '''
def lax(f_z, c_z, slope_z, theta, z):
    return (f_z - c_z / 2) * (1 - np.exp(theta) * z) - slope_z * z
'''),
    ("12.2", "wrong", "the exact gradient of P(z > t), whatever f is", '''
def lax(f_z, c_z, slope_z, theta, z):
    above = np.exp(-np.exp(theta) * t_02)
    return np.full(len(z), -np.exp(theta) * t_02 * above)
'''),
    ("12.2", "right", "by the uniform behind z", '''
def lax(f_z, c_z, slope_z, theta, z):
    u = np.exp(-np.exp(theta) * z)
    return (f_z - c_z) * (1 + np.log(u)) + slope_z * np.exp(-theta) * np.log(u)
'''),
    ("12.2", "right", "a loop, as a list", '''
def lax(f_z, c_z, slope_z, theta, z):
    rate, rows = np.exp(theta), []
    for f, c, dc, x in zip(f_z, c_z, slope_z, z):
        rows.append(f * (1 - rate * x) - c * (1 - rate * x) - x * dc)
    return rows
'''),
    ("12.3", "wrong", "the other sign", '''
def best_weights(g_0, psi):
    return np.linalg.lstsq(psi.reshape(-1, psi.shape[2]), g_0.ravel(), rcond=None)[0]
'''),
    ("12.3", "wrong", "each weight by itself", '''
def best_weights(g_0, psi):
    return -np.einsum("nd,ndm->m", g_0, psi) / np.einsum("ndm,ndm->m", psi, psi)
'''),
    ("12.3", "wrong", "the first logit only", '''
def best_weights(g_0, psi):
    return np.linalg.lstsq(psi[:, 0], -g_0[:, 0], rcond=None)[0]
'''),
    ("12.3", "wrong", "the mean of the best weights of each logit", '''
def best_weights(g_0, psi):
    each = [np.linalg.lstsq(psi[:, i], -g_0[:, i], rcond=None)[0] for i in range(g_0.shape[1])]
    return np.mean(each, axis=0)
'''),
    ("12.3", "wrong", "the variance of the sum of the logits", '''
def best_weights(g_0, psi):
    return np.linalg.lstsq(psi.sum(axis=1), -g_0.sum(axis=1), rcond=None)[0]
'''),
    ("12.3", "wrong", "no control variate", '''
def best_weights(g_0, psi):
    return np.zeros(psi.shape[2])
'''),
    ("12.3", "wrong", "one weight for all", '''
def best_weights(g_0, psi):
    one = psi.sum(axis=2)
    return np.full(psi.shape[2], -np.sum(g_0 * one) / np.sum(one**2))
'''),
    ("12.3", "wrong", "a strong ridge", '''
def best_weights(g_0, psi):
    rows = psi.reshape(-1, psi.shape[2])
    S = rows.T @ rows
    return -np.linalg.solve(S + 0.2 * np.trace(S) * np.eye(len(S)), rows.T @ g_0.ravel())
'''),
    ("12.3", "wrong", "a minimiser of the check's own variance", '''
def best_weights(g_0, psi):
    from scipy.optimize import minimize

    return minimize(variance_03, np.zeros(psi.shape[2]), args=(g_0, psi)).x
'''),
    ("12.3", "right", "the covariances, logit by logit", '''
def best_weights(g_0, psi):
    S, k = 0.0, 0.0
    for i in range(g_0.shape[1]):
        centred = psi[:, i] - psi[:, i].mean(axis=0)
        S = S + centred.T @ centred
        k = k + centred.T @ (g_0[:, i] - g_0[:, i].mean())
    return -np.linalg.inv(S) @ k
'''),
    ("12.3", "right", "gradient descent on the mean square", '''
def best_weights(g_0, psi):
    rho, n = np.zeros(psi.shape[2]), len(g_0)
    rate = n / np.linalg.norm(np.einsum("ndm,ndk->mk", psi, psi), 2)
    for _ in range(400):
        g = g_0 + psi @ rho
        rho = rho - rate * np.einsum("nd,ndm->m", g, psi) / n
    return rho.tolist()
'''),
    ("12.3", "right", "a general minimiser of the variance", '''
def best_weights(g_0, psi):
    from scipy.optimize import minimize

    return minimize(lambda rho: np.sum(np.var(g_0 + psi @ rho, axis=0)),
                    np.zeros(psi.shape[2])).x
'''),
    ("12.4", "wrong", "the rates of the present values", '''
def stein(chi, b, p):
    total = np.zeros(len(b))
    for i in range(len(p)):
        turned = b.copy()
        turned[:, i] = 1 - b[:, i]
        total += np.where(b[:, i] == 1, p[i], 1 - p[i]) * (chi(turned) - chi(b))
    return total / len(p)
'''),
    ("12.4", "wrong", "rates of Metropolis", '''
def stein(chi, b, p):
    total = np.zeros(len(b))
    for i in range(len(p)):
        turned = b.copy()
        turned[:, i] = 1 - b[:, i]
        odds = np.where(b[:, i] == 1, (1 - p[i]) / p[i], p[i] / (1 - p[i]))
        total += np.minimum(1, odds) * (chi(turned) - chi(b))
    return total / len(p)
'''),
    ("12.4", "wrong", "zero", '''
def stein(chi, b, p):
    return np.zeros(len(b))
'''),
    ("12.4", "wrong", "all bits redrawn at once", '''
def stein(chi, b, p):
    bits = common.all_bits(len(p))
    chance = np.prod(np.where(bits == 1, p, 1 - p), axis=1)
    return chance @ chi(bits) - chi(b)
'''),
    ("12.4", "wrong", "the sum over bits, not the mean", '''
def stein(chi, b, p):
    total = np.zeros(len(b))
    for i in range(len(p)):
        turned = b.copy()
        turned[:, i] = 1 - b[:, i]
        total += np.where(b[:, i] == 1, 1 - p[i], p[i]) * (chi(turned) - chi(b))
    return total
'''),
    ("12.4", "wrong", "χ(b) is not subtracted", '''
def stein(chi, b, p):
    total = np.zeros(len(b))
    for i in range(len(p)):
        turned = b.copy()
        turned[:, i] = 1 - b[:, i]
        total += np.where(b[:, i] == 1, 1 - p[i], p[i]) * chi(turned)
    return total / len(p)
'''),
    ("12.4", "wrong", "the first bit only", '''
def stein(chi, b, p):
    turned = b.copy()
    turned[:, 0] = 1 - b[:, 0]
    return np.where(b[:, 0] == 1, 1 - p[0], p[0]) * (chi(turned) - chi(b))
'''),
    ("12.4", "wrong", "χ less its mean over the rows", '''
def stein(chi, b, p):
    chance = np.prod(np.where(b == 1, p, 1 - p), axis=1)
    return chance @ chi(b) / np.sum(chance) - chi(b)
'''),
    ("12.4", "right", "each bit redrawn given the others", '''
def stein(chi, b, p):
    D, total = len(p), 0.0
    for i in range(D):
        up, down = (np.where(np.arange(D) == i, value, b) for value in (1.0, 0.0))
        total = total + p[i] * chi(up) + (1 - p[i]) * chi(down) - chi(b)
    return total / D
'''),
    ("12.4", "right", "one row at a time, as a list", '''
def stein(chi, b, p):
    rows = []
    for row in b:
        total = 0.0
        for i in range(len(p)):
            turned = row.copy()
            turned[i] = 1 - row[i]
            rate = 1 - p[i] if row[i] == 1 else p[i]
            total += rate * (chi(turned[None])[0] - chi(row[None])[0])
        rows.append(total / len(p))
    return rows
'''),
    ("12.4", "right", "all turned bits in one array", '''
def stein(chi, b, p):
    n, D = b.shape
    turned = np.abs(b[:, None, :] - np.eye(D))  # (n, D, D)
    difference = chi(turned.reshape(-1, D)).reshape(n, D) - chi(b)[:, None]
    return np.mean(np.abs(b - p) * difference, axis=1)  # q_i(b) = |b_i − p_i|
'''),
    ("12.5", "wrong", "z̃ moves as z does", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    z_tilde = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    return (f_b - c(z_tilde)) * (b - sigmoid(theta)) + slope(z) - slope(z_tilde)
'''),
    ("12.5", "wrong", "no control variate", '''
def mended_relax(f_b, c, slope, theta, u, v):
    return f_b * ((theta + logit(u) > 0) - sigmoid(theta))
'''),
    ("12.5", "wrong", "no paths", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    z_tilde = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    return (f_b - c(z_tilde)) * (b - sigmoid(theta))
'''),
    ("12.5", "wrong", "the slope of z̃ at z", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    z_tilde = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    moves = (1 - np.exp(-np.abs(z))) * sigmoid(s * theta)
    return (f_b - c(z_tilde)) * (b - sigmoid(theta)) + slope(z) - slope(z_tilde) * moves
'''),
    ("12.5", "wrong", "a z̃ that does not know b", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z, z_tilde = theta + logit(u), theta + logit(v)
    b = (z > 0).astype(float)
    return (f_b - c(z_tilde)) * (b - sigmoid(theta)) + slope(z) - slope(z_tilde)
'''),
    ("12.5", "wrong", "the paths the other way round", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    z_tilde = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    moves = (1 - np.exp(-np.abs(z_tilde))) * sigmoid(s * theta)
    return (f_b - c(z_tilde)) * (b - sigmoid(theta)) + slope(z_tilde) * moves - slope(z)
'''),
    ("12.5", "wrong", "the slope of z̃ for heads only", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    z_tilde = s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    moves = (1 - np.exp(-np.abs(z_tilde))) * sigmoid(theta)
    return (f_b - c(z_tilde)) * (b - sigmoid(theta)) + slope(z) - slope(z_tilde) * moves
'''),
    ("12.5", "wrong", "the exact gradient, by the check's own f", '''
def mended_relax(f_b, c, slope, theta, u, v):
    return np.full(len(u), sigmoid(theta) * sigmoid(-theta) * (f_05[1] - f_05[0]))
'''),
    ("12.5", "right", "the slope of z̃ by differences", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    s = 2 * b - 1
    tilde = lambda theta: s * np.log1p(np.exp(s * logit(v) + np.log1p(np.exp(s * theta))))
    moved = (c(tilde(theta + 1e-5)) - c(tilde(theta - 1e-5))) / 2e-5
    return (f_b - c(tilde(theta))) * (b - sigmoid(theta)) + slope(z) - moved
'''),
    ("12.5", "right", "coupled: z̃ = z in value", '''
def mended_relax(f_b, c, slope, theta, u, v):
    z = theta + logit(u)
    b = (z > 0).astype(float)
    moves = (1 - np.exp(-np.abs(z))) * sigmoid((2 * b - 1) * theta)
    return (f_b - c(z)) * (b - sigmoid(theta)) + slope(z) * (1 - moves)
'''),
    ("12.5", "right", "z̃ by the uniform given b, as a list", '''
def mended_relax(f_b, c, slope, theta, u, v):
    p = sigmoid(theta)
    b = (u > 1 - p).astype(float)
    w = np.where(b == 1, 1 - p + p * v, (1 - p) * v)
    z, z_tilde = theta + logit(u), theta + logit(w)
    dw = np.where(b == 1, v - 1, -v) * p * (1 - p)
    moves = 1 + dw / (w * (1 - w))
    return list((f_b - c(z_tilde)) * (b - p) + slope(z) - slope(z_tilde) * moves)
'''),
    ("12.6", "wrong", "no pay-back", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    slopes = (np.sum(slopes, axis=1, keepdims=True) - slopes) / (K - 1)
    total = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = total - (np.sum(total, axis=1, keepdims=True) - total) / (K - 1)
    return np.mean(signal[:, :, None] * (b - mean), axis=1)
'''),
    ("12.6", "wrong", "paid back with the other sign", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    slopes = (np.sum(slopes, axis=1, keepdims=True) - slopes) / (K - 1)
    total = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = total - (np.sum(total, axis=1, keepdims=True) - total) / (K - 1)
    return np.mean(signal[:, :, None] * (b - mean) + alpha * slopes, axis=1)
'''),
    ("12.6", "wrong", "each sample's own slope", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    total = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = total - (np.sum(total, axis=1, keepdims=True) - total) / (K - 1)
    return np.mean(signal[:, :, None] * (b - mean) - alpha * slopes, axis=1)
'''),
    ("12.6", "wrong", "the mean of the others, no control variate", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    signal = f - (np.sum(f, axis=1, keepdims=True) - f) / (K - 1)
    return np.mean(signal[:, :, None] * (b - mean), axis=1)
'''),
    ("12.6", "wrong", "the path", '''
def mended_cv(f, b, slopes, mean, alpha):
    return np.mean(slopes, axis=1)
'''),
    ("12.6", "wrong", "right for two samples only", '''
def mended_cv(f, b, slopes, mean, alpha):
    slopes = slopes[:, ::-1]
    total = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = total - total[:, ::-1]
    return np.mean(signal[:, :, None] * (b - mean) - alpha * slopes, axis=1)
'''),
    ("12.6", "wrong", "a baseline with the sample itself", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    slopes = (np.sum(slopes, axis=1, keepdims=True) - slopes) / (K - 1)
    total = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = total - np.mean(total, axis=1, keepdims=True)
    return np.mean(signal[:, :, None] * (b - mean) - alpha * slopes, axis=1)
'''),
    ("12.6", "wrong", "double_cv of the method file, which is for bits", '''
def mended_cv(f, b, slopes, mean, alpha):
    import rodeo

    return np.mean(rodeo.double_cv(f, b, slopes, mean + np.zeros(b.shape), alpha), axis=1)
'''),
    ("12.6", "wrong", "the baselines are not corrected", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    slopes = (np.sum(slopes, axis=1, keepdims=True) - slopes) / (K - 1)
    signal = f + alpha * np.sum(slopes * (b - mean), axis=2)
    signal = signal - (np.sum(f, axis=1, keepdims=True) - f) / (K - 1)
    return np.mean(signal[:, :, None] * (b - mean) - alpha * slopes, axis=1)
'''),
    ("12.6", "wrong", "the exact gradient, as the check has it", '''
def mended_cv(f, b, slopes, mean, alpha):
    exact = slant * np.exp(slant * np.sum(mean) + len(mean) * slant**2 / 2)
    return np.full((len(f), len(mean)), exact)
'''),
    ("12.6", "right", "loops over samples, as a list", '''
def mended_cv(f, b, slopes, mean, alpha):
    n, K = f.shape
    slopes = [np.mean([slopes[:, j] for j in range(K) if j != k], axis=0) for k in range(K)]
    total = [f[:, k] + alpha * np.sum(slopes[k] * (b[:, k] - mean), axis=1) for k in range(K)]
    g = 0.0
    for k in range(K):
        baseline = np.mean([total[j] for j in range(K) if j != k], axis=0)
        g = g + (total[k] - baseline)[:, None] * (b[:, k] - mean) - alpha * slopes[k]
    return (g / K).tolist()
'''),
    ("12.6", "right", "a matrix of others, and one pay-back for all", '''
def mended_cv(f, b, slopes, mean, alpha):
    K = f.shape[1]
    M = (np.ones((K, K)) - np.eye(K)) / (K - 1)
    c = np.einsum("kj,njd,nkd->nk", M, slopes, b - mean)
    signal = (f + alpha * c) @ (np.eye(K) - M).T
    return np.einsum("nk,nkd->nd", signal, b - mean) / K - alpha * np.mean(slopes, axis=1)
'''),
]  # fmt: skip
