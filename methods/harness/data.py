"""The datasets: images as bits, or as grey levels whose bits are drawn afresh at every step."""

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

from common import InputError

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Dataset(NamedTuple):
    """Images as rows of uint8: bits, or grey levels 0 … levels in `train` if bits are drawn afresh.

    `train`, `valid`, `test` have shape (rows, pixels); `train_mean` (pixels,) is P(pixel = 1).
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    levels: int
    shape: tuple
    verified: bool = True  # the checksums of the files it was made from were the published ones

    @property
    def train_mean(self):
        return self.train.mean(axis=0, dtype=np.float64) / self.levels

    def batch(self, rows, rng, dtype=np.float32):
        """Training images `rows` as bits of type dtype; grey levels are probabilities of ink."""
        return binarize(self.train[rows], self.levels, rng).astype(dtype)


def binarize(images, levels, rng):
    """Bits with P(1) = grey level / levels; images with one level are bits already."""
    if levels == 1:
        return images
    return (rng.random(images.shape, np.float32) * levels < images).astype(np.uint8)


class Source(NamedTuple):
    """Which data/*.npz a dataset comes from, and the settings its users expect."""

    grey: str  # the file with grey levels …
    bits: str  # … and the one with the bits, if somebody else has fixed them
    config: dict


PAPER = {"steps": 2_000_000, "lr": 3e-4, "eval_epochs": 20}
DATASETS = {
    "digits": Source("digits", "", {"steps": 4400, "lr": 3e-3, "eval_epochs": 1}),
    "mnist": Source("mnist", "binarized-mnist", PAPER),
    "mnist-grey": Source("mnist", "", PAPER),
    "omniglot": Source("omniglot", "", PAPER),
}
TASKS = ("generate", "predict")
BINARIZATION_SEED = 5


def read_images(name):
    """The arrays of data/<name>.npz: train, valid, test, levels, shape, perhaps labels.

    Raises InputError if the file is missing or is not what data/README.md describes.
    """
    path = ROOT / "data" / f"{name}.npz"
    if not path.exists():
        raise InputError(f"{path} is not there: get it with 'python data/download.py {name}'")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        pixels = math.prod(int(side) for side in arrays["shape"])
        for split in ("train", "valid", "test"):
            images = arrays[split]
            if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != pixels:
                raise ValueError(f"{split} is {images.dtype} {images.shape}")
            if not len(images) or images.max() > arrays["levels"]:
                raise ValueError(f"{split} is empty or brighter than {arrays['levels']}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a data file of this project ({error}): delete it and get it again "
            f"with 'python data/download.py {name}'"
        ) from error
    return arrays


def load_dataset(name, dynamic=False):
    """The Dataset called `name`: digits, mnist, mnist-grey or omniglot.

    Static bits are fixed once, by their publisher or by one draw with a fixed seed. With `dynamic`
    the training images stay grey and `batch` draws their bits afresh; validation and test are
    always the static bits. Raises InputError for an unknown name or a file that cannot be used.
    """
    if name not in DATASETS:
        raise InputError(f"--dataset: '{name}' is unknown; choose from {', '.join(DATASETS)}")
    source, rng = DATASETS[name], np.random.default_rng(BINARIZATION_SEED)
    static = read_images(source.bits or source.grey)
    grey = read_images(source.grey) if dynamic and source.bits else static
    verified = all(bool(file.get("verified", True)) for file in (static, grey))
    shape, levels = tuple(map(int, static["shape"])), int(static["levels"])
    splits = {}
    for split in ("train", "valid", "test"):  # in blocks: the uniforms are four times the images
        blocks = np.array_split(static[split], math.ceil(len(static[split]) / 1000))
        splits[split] = np.concatenate([binarize(block, levels, rng) for block in blocks])
    if dynamic:
        splits["train"] = grey["train"]
    levels = int(grey["levels"]) if dynamic else 1
    return Dataset(name=name, levels=levels, shape=shape, verified=verified, **splits)
