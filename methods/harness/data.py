"""The datasets: images as bits, or as grey levels whose bits are drawn afresh at every step."""

import hashlib
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
    sha256: str = ""  # of a user's own file
    own_test: bool = True  # False: there are no test images, and `test` is `valid`

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
    "fashion-mnist": Source("fashion-mnist", "", PAPER),
    "omniglot": Source("omniglot", "", PAPER),
}
CHOICES = f"{', '.join(DATASETS)}, or a FILE.npz of your own"
SPLITS = ("train", "valid", "test")
LABEL_KEYS = tuple(f"labels_{split}" for split in SPLITS)
KEYS = (*SPLITS, *LABEL_KEYS, "levels", "shape", "verified", "source")
TASKS = ("generate", "predict")
BINARIZATION_SEED = 5


def is_file(dataset):
    """Whether the value of --dataset is a user's own file, not a name in DATASETS."""
    return dataset.endswith(".npz")


def read_images(name):
    """The arrays of data/<name>.npz, or of a user's own FILE.npz, as data/README.md describes them.

    They are train, valid, test, levels, shape, perhaps labels; `notes` says in words what an own
    file left out and `fill` filled in, `own_test` whether it has test. Raises InputError, with the
    name of file and key, if the file is missing or is not what is described there.
    """
    own, get = is_file(name), f"get it with 'python data/download.py {name}'"
    path = Path(name) if own else ROOT / "data" / f"{name}.npz"
    if not path.exists():
        raise InputError(f"--dataset: {path} is not there{'' if own else f': {get}'}")
    try:
        arrays = read_arrays(path)
        if not own and (missing := {*SPLITS, "levels", "shape"} - arrays.keys()):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return fill(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if own:
            raise InputError(f"--dataset: {path}: {error} (see data/README.md)") from error
        raise InputError(f"{path} is not a data file of this project ({error}): delete it and "
                         f"{get.replace('get it', 'get it again')}") from error  # fmt: skip


def read_arrays(path):
    """The arrays of an .npz file. Raises ValueError for keys that are unknown or not to be read."""
    arrays = {}
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz file, or is damaged")
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            if key not in KEYS:
                raise ValueError(f"its key '{key}' is none of {', '.join(KEYS)}")
            try:
                arrays[key] = file[key]
            except Exception as error:  # zipfile, zlib, lzma and numpy have one each
                reason = str(error) or type(error).__name__
                raise ValueError(f"{key}: {reason}") from error
            if not isinstance(arrays[key], np.ndarray):
                raise ValueError(f"{key} is no array of numpy")
    return arrays


def fill(arrays):
    """The arrays of a file, checked; images as rows of pixels, and what is missing filled in.

    levels: 1 if no pixel is above 1, else 255. shape: that of the images, else a square, else one
    line. valid: the last tenth of train. test: valid. Labels go with their images. Raises
    ValueError with the key that is wrong.
    """
    if "train" not in arrays:
        raise ValueError("it has no key train")
    arrays, sides = {**arrays, "notes": []}, {}
    for split in SPLITS:
        if split in arrays:
            images = check_images(split, arrays[split])
            arrays[split], sides[split] = images.reshape(len(images), -1), images.shape[1:]
        if f"labels_{split}" in arrays:
            check_labels(arrays, split)
    pixels = arrays["train"].shape[1]
    for split in sides:
        if arrays[split].shape[1] != pixels:
            raise ValueError(f"{split} has {arrays[split].shape[1]} pixels, train has {pixels}")
    side = math.isqrt(pixels)
    usual = (side, side) if side * side == pixels else (1, pixels)
    shape = np.asarray(arrays.get("shape", sides["train"] if len(sides["train"]) == 2 else usual))
    whole = shape.dtype.kind in "iu" and shape.shape == (2,) and np.min(shape) > 0
    if not whole or math.prod(map(int, shape)) != pixels:
        raise ValueError(f"shape is {np.ravel(shape).tolist()}: it has to be height and width, of "
                         f"{pixels} pixels together")  # fmt: skip
    for split, side in sides.items():
        if len(side) == 2 and side != tuple(shape):
            raise ValueError(f"{split} has images of {side[0]} × {side[1]} pixels, and the height "
                             f"and width are {shape[0]} × {shape[1]}")  # fmt: skip
    if np.ndim(arrays.get("verified", True)):
        raise ValueError("verified has to be one true or false")
    brightest = {split: int(arrays[split].max()) for split in sides}
    levels = arrays.get("levels", np.array(1 if max(brightest.values()) <= 1 else 255))
    if "levels" not in arrays and levels == 255:
        if dark := [split for split, value in brightest.items() if value <= 1]:
            raise ValueError(f"{dark[0]} has bits only, and another split grey levels: say levels")
        if max(brightest.values()) < 255:
            arrays["notes"].append(f"has no levels: full ink is taken to be 255, the largest grey "
                                   f"level in it is {max(brightest.values())}")  # fmt: skip
    if np.ndim(levels) or levels.dtype.kind not in "iu" or not 1 <= levels <= 255:
        raise ValueError("levels has to be one whole number from 1 to 255, that of full ink")
    for split, value in brightest.items():
        if value > levels:
            raise ValueError(f"{split} has the grey level {value}, above levels, which is {levels}")
    arrays |= {"levels": int(levels), "shape": tuple(int(n) for n in shape)}
    return with_splits(arrays)


def check_images(split, images):
    """Images (rows, pixels) or (rows, height, width) as uint8. Raises ValueError."""
    if images.dtype not in (np.uint8, bool):
        raise ValueError(f"{split} is of type {images.dtype}: it has to be uint8, bits 0 and 1 or "
                         "grey levels 0 … 255")  # fmt: skip
    if images.ndim not in (2, 3) or images.size == 0:
        raise ValueError(f"{split} has the shape {images.shape}: it has to be (images, pixels) or "
                         "(images, height, width), without colours, and not empty")  # fmt: skip
    return images.astype(np.uint8)


def check_labels(arrays, split):
    """Labels of a split: a class for each image. Raises ValueError."""
    key, labels = f"labels_{split}", arrays[f"labels_{split}"]
    if split not in arrays:
        raise ValueError(f"{key}: the file has no {split}")
    if labels.dtype.kind not in "iu" or labels.shape != (len(arrays[split]),):
        raise ValueError(f"{key} is {labels.dtype} {labels.shape}: it has to be whole numbers, one "
                         f"for each of the {len(arrays[split])} images")  # fmt: skip
    if labels.min() < 0 or labels.max() > 255:
        raise ValueError(f"{key}: classes are 0 … 255, not {labels.min()} … {labels.max()}")


def with_splits(arrays):
    """All three splits: without valid the last tenth of train, without test valid. With labels."""
    if "valid" not in arrays:
        n = max(1, len(arrays["train"]) // 10)
        if len(arrays["train"]) == 1:
            raise ValueError("train has one image, and none is left for valid")
        for key in {"train", "labels_train"} & arrays.keys():
            arrays[key.replace("train", "valid")] = arrays[key][-n:]
            arrays[key] = arrays[key][:-n]
        arrays["notes"].append(f"has no valid: the last {n} images of train are taken")
    arrays["own_test"] = "test" in arrays
    if not arrays["own_test"]:
        for key in {"valid", "labels_valid"} & arrays.keys():
            arrays[key.replace("valid", "test")] = arrays[key]
        arrays["notes"].append("has no test: valid is taken")
    return arrays


def load_dataset(name, dynamic=False):
    """The Dataset called `name`: one of DATASETS, or a user's own FILE.npz.

    Static bits are fixed once, by their publisher or by one draw with a fixed seed. With `dynamic`
    the training images stay grey and `batch` draws their bits afresh; validation and test stay
    fixed. The publisher of MNIST's bits did not divide training and validation as the grey file
    does: most of his validation digits are grey training images. So `mnist` has, with `dynamic`,
    the validation images of the grey file, as bits of one draw; test is the publisher's. Prints
    what an own file leaves out. Raises InputError for an unknown name or a file that cannot be
    used.
    """
    if not is_file(name) and name not in DATASETS:
        raise InputError(f"--dataset: '{name}' is unknown; choose from {CHOICES}")
    source = Source(name, "", {}) if is_file(name) else DATASETS[name]
    published = read_images(source.bits) if source.bits else None
    grey = read_images(source.grey) if dynamic or not published else None
    files = [file for file in (published, grey) if file]
    if len({file["shape"] for file in files}) > 1:
        raise InputError(f"--dataset: the images of {source.bits}.npz and {source.grey}.npz differ "
                         f"in shape: {files[0]['shape']} and {files[1]['shape']}")  # fmt: skip
    for note in [note for file in files for note in file["notes"]]:
        print(f"{Path(name).name} {note}")
    splits = fixed_bits(grey or published)
    if dynamic:
        splits["train"] = grey["train"]
    if dynamic and published:
        splits["test"] = published["test"]
    return Dataset(
        name=name, levels=grey["levels"] if dynamic else 1, shape=files[0]["shape"], **splits,
        verified=all(bool(file.get("verified", not is_file(name))) for file in files),
        sha256=seal(name) if is_file(name) else "", own_test=all(f["own_test"] for f in files),
    )  # fmt: skip


def seal(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def fixed_bits(file):
    """The bits of all splits of a file: as they are, or of its grey levels by one seeded draw."""
    splits, rng = {}, np.random.default_rng(BINARIZATION_SEED)
    for split in SPLITS:  # in blocks: the uniforms are four times the images
        blocks = np.array_split(file[split], math.ceil(len(file[split]) / 1000))
        splits[split] = np.concatenate([binarize(b, file["levels"], rng) for b in blocks])
    return splits


def bars_and_stripes(side=4):
    """All images of side × side pixels whose rows, or columns, are of one colour each, as bits."""
    lines = (np.arange(2**side)[:, None] >> np.arange(side)) & 1
    bars = np.repeat(lines, side, axis=0).reshape(-1, side, side)
    return np.unique(np.concatenate([bars, bars.transpose(0, 2, 1)]).reshape(-1, side**2), axis=0)
