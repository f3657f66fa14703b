"""Rebuild data/digits.npz from scikit-learn's copy of the UCI digits (see data/README.md).

The project ships the result; only this script needs scikit-learn:

    pip install scikit-learn
    python data/make_digits.py
"""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np
from download import Parser

SPLITS = {"train": 1297, "valid": 200, "test": 300}
SEED = 0


def stratified_split(labels, sizes, rng):
    """Row indices of each split, with every class in proportion; `sizes` adds up to len(labels).

    The rows of a class are shuffled and spread evenly over (0, 1); sorting all rows by that
    position and cutting at the sizes gives every split its share of each class, to within one row.
    """
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.split(np.argsort(position), np.cumsum(sizes)[:-1])


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = Parser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    p.parse_args(argv)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        p.error("it needs scikit-learn: pip install scikit-learn")
    images, labels = load_digits(return_X_y=True)  # (1797, 64) grey levels 0 … 16
    rng = np.random.default_rng(SEED)
    arrays = {"levels": np.uint8(16), "shape": np.array([8, 8], np.uint8)}
    for split, rows in zip(SPLITS, stratified_split(labels, list(SPLITS.values()), rng)):
        rows = rng.permutation(rows)
        arrays[split] = images[rows].astype(np.uint8)
        arrays[f"labels_{split}"] = labels[rows].astype(np.uint8)
    path = Path(__file__).with_name("digits.npz")
    partial = path.with_name(".digits-partial.npz")
    np.savez_compressed(partial, **arrays)
    os.replace(partial, path)
    for split in SPLITS:
        counts = np.bincount(arrays[f"labels_{split}"])
        print(f"{split}: {len(arrays[split])} images, per class {counts.min()} to {counts.max()}")
    digest = hashlib.md5(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest()
    print(f"{path.name}: {path.stat().st_size} bytes, md5 of its arrays {digest}")


if __name__ == "__main__":
    main()
