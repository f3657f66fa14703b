"""One random stream per purpose and index: a resumed run needs no generator state, and evaluation
cannot disturb training."""

import numpy as np

INIT, ORDER, NOISE, EVALUATION, PICTURES = range(5)
CHAINS, GIBBS, AIS = range(10, 13)  # of a Boltzmann prior
LABELS, LABELLED, SUPERVISED = 100, 101, 102  # of semi-supervised learning


def stream(seed, purpose, index=0):
    return np.random.default_rng([seed, purpose, index])
