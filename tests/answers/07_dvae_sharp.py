"""Answers to the exercises of chapter 7 for test_answers.py, right ones and wrong ones."""

ANSWERS = [
    (
        "7.2",
        "right",
        "ζ of the other bit by reflection, a bit at a time",
        """
def smooth(q, k, z, rho):
    near = 1 - rho ** (1 / k)
    zeta = np.where(z == 1, 1 - near, near)
    r_0 = k * (1 - zeta) ** (k - 1)
    r_1 = k * zeta ** (k - 1)
    between = 1 - (1 - zeta) ** k - zeta**k
    return zeta, between / (q * r_1 + (1 - q) * r_0)
""",
    ),
    (
        "7.2",
        "right",
        "the derivative by differences of the mixture's distribution",
        """
def smooth(q, k, z, rho):
    zeta = 1 - (1 - rho) ** (1 / k)
    zeta = zeta * (z == 0) + (1 - zeta) * (z == 1)
    R = lambda q, x: q * x**k + (1 - q) * (1 - (1 - x) ** k)
    density = q * k * zeta ** (k - 1) + (1 - q) * k * (1 - zeta) ** (k - 1)
    return zeta, -(R(q + 1e-6, zeta) - R(q - 1e-6, zeta)) / 2e-6 / density
""",
    ),
    (
        "7.2",
        "wrong visibly",
        "the sign of the derivative",
        """
def smooth(q, k, z, rho):
    zeta = 1 - (1 - rho) ** (1 / k)
    zeta = np.where(z > 0, 1 - zeta, zeta)
    p = q * k * zeta ** (k - 1) + (1 - q) * k * (1 - zeta) ** (k - 1)
    return zeta, (zeta**k - 1 + (1 - zeta) ** k) / p
""",
    ),
    (
        "7.2",
        "wrong visibly",
        "the density of the drawn bit only",
        """
def smooth(q, k, z, rho):
    zeta = 1 - (1 - rho) ** (1 / k)
    zeta = np.where(z > 0, 1 - zeta, zeta)
    p = np.where(z > 0, k * zeta ** (k - 1), k * (1 - zeta) ** (k - 1))
    return zeta, (1 - (1 - zeta) ** k - zeta**k) / p
""",
    ),
    (
        "7.2",
        "wrong visibly",
        "drawn from a density that is not r",
        """
def smooth(q, k, z, rho):
    zeta = rho**k
    zeta = np.where(z > 0, 1 - zeta, zeta)
    p = q * k * zeta ** (k - 1) + (1 - q) * k * (1 - zeta) ** (k - 1)
    return zeta, (1 - (1 - zeta) ** k - zeta**k) / p
""",
    ),
    (
        "7.2",
        "wrong visibly",
        "the bits exchanged",
        """
def smooth(q, k, z, rho):
    zeta = 1 - (1 - rho) ** (1 / k)
    zeta = np.where(z > 0, zeta, 1 - zeta)
    p = q * k * zeta ** (k - 1) + (1 - q) * k * (1 - zeta) ** (k - 1)
    return zeta, (1 - (1 - zeta) ** k - zeta**k) / p
""",
    ),
    (
        "7.3",
        "right",
        "a grid of steps of 10 %",
        """
def best_beta(moments, exact, n):
    grid = 200 ** np.linspace(0, 1, 56)
    mean, variance = np.array([moments(beta) for beta in grid]).T
    return grid[np.argmin((mean - exact) ** 2 + variance / n)]
""",
    ),
    (
        "7.3",
        "right",
        "scipy, with shape (1,)",
        """
def best_beta(moments, exact, n):
    from scipy.optimize import minimize_scalar

    def error(log_beta):
        mean, variance = moments(np.exp(log_beta))
        return np.log((mean - exact) ** 2 + variance / n)

    return np.array([np.exp(minimize_scalar(error, bounds=(0, np.log(200)), method="bounded").x)])
""",
    ),
    (
        "7.3",
        "wrong visibly",
        "the bias, not its square",
        """
def best_beta(moments, exact, n):
    grid = np.geomspace(1, 200, 400)
    mean, variance = np.array([moments(beta) for beta in grid]).T
    return grid[np.argmin(abs(mean - exact) + variance / n)]
""",
    ),
    (
        "7.3",
        "wrong visibly",
        "for one estimate",
        """
def best_beta(moments, exact, n):
    grid = np.geomspace(1, 200, 400)
    mean, variance = np.array([moments(beta) for beta in grid]).T
    return grid[np.argmin((mean - exact) ** 2 + variance)]
""",
    ),
    (
        "7.3",
        "wrong visibly",
        "the least bias",
        """
def best_beta(moments, exact, n):
    return 200.0
""",
    ),
    (
        "7.3",
        "wrong visibly",
        "the variance falls with the square of n",
        """
def best_beta(moments, exact, n):
    grid = np.geomspace(1, 200, 400)
    mean, variance = np.array([moments(beta) for beta in grid]).T
    return grid[np.argmin((mean - exact) ** 2 + variance / n**2)]
""",
    ),
    (
        "7.4",
        "right",
        "by posterior weights of the two components",
        """
def mended(a, delta, s, zeta):
    normal = lambda x: -0.5 * (x / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    one = normal(zeta - delta - 1) - np.logaddexp(0, -a)
    zero = normal(zeta - delta) - np.logaddexp(0, a)
    log_density = np.logaddexp(one, zero)
    slope = np.exp(one - log_density) * (zeta - delta - 1) / s
    return log_density, slope + np.exp(zero - log_density) * (zeta - delta) / s
""",
    ),
    (
        "7.4",
        "right",
        "the derivative by differences of the distribution function",
        """
def mended(a, delta, s, zeta):
    from scipy.special import ndtr

    x, q = zeta - delta, sigmoid(a)
    normal = lambda x: -0.5 * (x / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    log_p = np.logaddexp(normal(x) - np.logaddexp(0, a), normal(x - 1) - np.logaddexp(0, -a))
    F = lambda s: (1 - q) * ndtr(x / s) + q * ndtr((x - 1) / s)
    return log_p, -(F(s + 1e-6) - F(s - 1e-6)) / 2e-6 / np.exp(log_p)
""",
    ),
    (
        "7.4",
        "wrong visibly",
        "one slip mended: the shift",
        """
def mended(a, delta, s, zeta):
    x = zeta - delta
    log_ratio = (x**2 - (x - 1) ** 2) / (2 * s**2)
    log_density = np.log(1 - np.minimum(sigmoid(a), 1 - 1e-4)) + np.logaddexp(0, a + log_ratio)
    log_density = log_density - 0.5 * (x / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    return log_density, (x - sigmoid(a + log_ratio)) / s
""",
    ),
    (
        "7.4",
        "wrong visibly",
        "the other one mended: the clipped logarithm",
        """
def mended(a, delta, s, zeta):
    x = zeta - delta
    log_ratio = (x**2 - (x - 1) ** 2) / (2 * s**2)
    log_density = np.logaddexp(0, a + log_ratio) - np.logaddexp(0, a)
    log_density = log_density - 0.5 * (x / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    return log_density, (zeta - sigmoid(a + log_ratio)) / s
""",
    ),
    (
        "7.4",
        "wrong visibly",
        "the prior in the place of the posterior weights",
        """
def mended(a, delta, s, zeta):
    x = zeta - delta
    log_ratio = (x**2 - (x - 1) ** 2) / (2 * s**2)
    log_density = np.logaddexp(0, a + log_ratio) - np.logaddexp(0, a)
    log_density = log_density - 0.5 * (x / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    return log_density, (x - sigmoid(a)) / s
""",
    ),
    (
        "7.4",
        "wrong visibly",
        "the scale is missing in the density",
        """
def mended(a, delta, s, zeta):
    x = zeta - delta
    log_ratio = (x**2 - (x - 1) ** 2) / (2 * s**2)
    log_density = np.logaddexp(0, a + log_ratio) - np.logaddexp(0, a) - 0.5 * (x / s) ** 2
    return log_density - 0.5 * np.log(2 * np.pi), (x - sigmoid(a + log_ratio)) / s
""",
    ),
    (
        "7.5",
        "right",
        "common.py has it",
        """
def mended_bound(log_w):
    return common.log_mean_exp(log_w, 0)
""",
    ),
    (
        "7.5",
        "right",
        "one sample after the other",
        """
def mended_bound(log_w):
    total = log_w[0]
    for row in log_w[1:]:
        total = np.logaddexp(total, row)
    return total - np.log(len(log_w))
""",
    ),
    (
        "7.5",
        "right",
        "with more digits, and the largest subtracted",
        """
def mended_bound(log_w):
    log_w = log_w.astype(np.float64)
    top = log_w.max(axis=0)
    return np.log(np.exp(log_w - top).mean(axis=0)) + top
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "in float64",
        """
def mended_bound(log_w):
    log_w = log_w.astype(np.float64)
    highest = np.mean(log_w, axis=0)
    return np.log(np.mean(np.exp(log_w - highest), axis=0)) + highest
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "in float64, nothing subtracted",
        """
def mended_bound(log_w):
    return np.log(np.mean(np.exp(log_w.astype(np.float64)), axis=0))
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "the least subtracted",
        """
def mended_bound(log_w):
    lowest = np.min(log_w, axis=0)
    return np.log(np.mean(np.exp(log_w - lowest), axis=0)) + lowest
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "the largest only",
        """
def mended_bound(log_w):
    return np.max(log_w, axis=0)
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "the sum, not the mean",
        """
def mended_bound(log_w):
    top = np.max(log_w, axis=0)
    return np.log(np.sum(np.exp(log_w - top), axis=0)) + top
""",
    ),
    (
        "7.5",
        "wrong",
        "the largest of all images",
        """
def mended_bound(log_w):
    top = np.max(log_w)
    return np.log(np.mean(np.exp(log_w - top), axis=0)) + top
""",
    ),
    (
        "7.6",
        "right",
        "by population annealing",
        """
def mended_log_Z(path, evaluate, rng):
    z1, z2 = boltzmann.fair_bits(rng, 2000, path[0])
    found = []
    for k, rbm in enumerate(path):
        if k > 0:
            change = boltzmann.population_annealing(path[k - 1], rbm, z1, z2, rng, 3)
        found.append(evaluate(rbm) if k % 20 == 0 else found[-1] + change)
    return found
""",
    ),
    (
        "7.6",
        "right",
        "evaluated at the start only, with more chains",
        """
def mended_log_Z(path, evaluate, rng):
    z1, z2 = boltzmann.fair_bits(rng, 4000, path[0])
    log_Z = [evaluate(path[0])]
    for old, new in zip(path, path[1:]):
        boltzmann.gibbs(old, z1, z2, rng, 5)
        drop = boltzmann.energy(old, z1, z2) - boltzmann.energy(new, z1, z2)
        log_Z.append(log_Z[-1] + np.log(np.mean(np.exp(drop))))
    return np.array(log_Z)
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "interpolated",
        """
def mended_log_Z(path, evaluate, rng):
    at = range(0, len(path), 20)
    return np.interp(range(len(path)), at, [evaluate(path[k]) for k in at])
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "the mean of the log-weights",
        """
def mended_log_Z(path, evaluate, rng):
    z1, z2 = boltzmann.fair_bits(rng, 1000, path[0])
    log_Z, old = [], path[0]
    for k, rbm in enumerate(path):
        if k % 20 == 0:
            known = evaluate(rbm)
        else:
            moved = [p - p_old for p, p_old in zip(rbm, old)]
            known = known + np.mean(-boltzmann.energy(moved, z1, z2))
        boltzmann.gibbs(rbm, z1, z2, rng, 5)
        old = rbm
        log_Z.append(known)
    return log_Z
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "chains that never move",
        """
def mended_log_Z(path, evaluate, rng):
    z1, z2 = boltzmann.fair_bits(rng, 1000, path[0])
    log_Z = []
    for k, rbm in enumerate(path):
        if k % 20 == 0:
            known = evaluate(rbm)
        else:
            moved = [p - p_old for p, p_old in zip(rbm, path[k - 1])]
            known = known + common.log_mean_exp(-boltzmann.energy(moved, z1, z2), 0)
        log_Z.append(known)
    return log_Z
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "evaluated at every step",
        """
def mended_log_Z(path, evaluate, rng):
    return [evaluate(rbm) for rbm in path]
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "enumerated",
        """
def mended_log_Z(path, evaluate, rng):
    return [boltzmann.enumerate_rbm(rbm)[0] for rbm in path]
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "AIS at every step",
        """
def mended_log_Z(path, evaluate, rng):
    return [boltzmann.ais(rbm, rng, chains=100, temperatures=100)[0] for rbm in path]
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "the check's own values",
        """
def mended_log_Z(path, evaluate, rng):
    return [evaluate_06(rbm) for rbm in path_06]
""",
    ),
    (
        "7.6",
        "wrong visibly",
        "the sign of the log-weights",
        """
def mended_log_Z(path, evaluate, rng):
    z1, z2 = boltzmann.fair_bits(rng, 1000, path[0])
    log_Z, old = [], path[0]
    for k, rbm in enumerate(path):
        moved = [p - p_old for p, p_old in zip(rbm, old)]
        if k % 20 == 0:
            known = evaluate(rbm)
        else:
            known = known + common.log_mean_exp(boltzmann.energy(moved, z1, z2), 0)
        boltzmann.gibbs(rbm, z1, z2, rng, 5)
        old = rbm
        log_Z.append(known)
    return log_Z
""",
    ),
    (
        "7.5",
        "wrong visibly",
        "in long double",
        """
def mended_bound(log_w):
    log_w = log_w.astype(np.longdouble)
    highest = np.mean(log_w, axis=0)
    return np.log(np.mean(np.exp(log_w - highest), axis=0)) + highest
""",
    ),
]
