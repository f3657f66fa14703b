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
    "digits": Source("digits", "", {"steps": 2200, "lr": 3e-3, "eval_epochs": 5}),
    "mnist": Source("mnist", "binarized-mnist", PAPER),
    "mnist-grey": Source("mnist", "", PAPER),
    "omniglot": Source("omniglot", "", PAPER),
}
SPLITS = ("train", "valid", "test")
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
        for split in SPLITS:
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
    the training images stay grey and `batch` draws their bits afresh; validation and test stay
    fixed. The publisher of MNIST's bits did not divide training and validation as the grey file
    does: most of his validation digits are grey training images. So `mnist` has, with `dynamic`,
    the validation images of the grey file, as bits of one draw; test is the publisher's. Raises
    InputError for an unknown name or a file that cannot be used.
    """
    if name not in DATASETS:
        raise InputError(f"--dataset: '{name}' is unknown; choose from {', '.join(DATASETS)}")
    source = DATASETS[name]
    published = read_images(source.bits) if source.bits else None
    grey = read_images(source.grey) if dynamic or not published else None
    files = [file for file in (published, grey) if file]
    shape, *others = [tuple(map(int, file["shape"])) for file in files]
    if others and others != [shape]:
        raise InputError(f"--dataset: the images of {source.bits}.npz and {source.grey}.npz differ "
                         f"in shape: {shape} and {others[0]}")  # fmt: skip
    splits = fixed_bits(grey or published)
    if dynamic:
        splits["train"] = grey["train"]
    if dynamic and published:
        splits["test"] = published["test"]
    return Dataset(
        name=name, levels=int(grey["levels"]) if dynamic else 1, shape=shape, **splits,
        verified=all(bool(file.get("verified", True)) for file in files),
    )  # fmt: skip


def fixed_bits(file):
    """The bits of all splits of a file: as they are, or of its grey levels by one seeded draw."""
    splits, rng = {}, np.random.default_rng(BINARIZATION_SEED)
    for split in SPLITS:  # in blocks: the uniforms are four times the images
        blocks = np.array_split(file[split], math.ceil(len(file[split]) / 1000))
        splits[split] = np.concatenate([binarize(b, int(file["levels"]), rng) for b in blocks])
    return splits
