"""Fetch the full-size image sets, verify them and write data/<name>.npz (see data/README.md).

    python data/download.py mnist binarized-mnist omniglot fashion-mnist
    python data/download.py all --from DIR_OR_URL     # the same files from a folder or a server

Downloads stay in memory; what is not verified, or not complete, never becomes a data file.
"""

import argparse
import gzip
import hashlib
import http.client
import io
import math
import os
import queue
import re
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
from tqdm import tqdm

TIMEOUT = 30  # seconds of silence from a server
SLOWEST = 50_000  # bytes a second; with TIMEOUT it is the deadline of a whole file
PAUSE = 2  # seconds before an address with a fault that may pass gets its second chance
SIDE = 28
CHUNK = 2**16


class Fault(ValueError):
    """What is wrong with a file or a request, in words for the user."""


def plain(text):
    """Text of a server or a user for the terminal: one line, and no control characters."""
    text = "".join(x if x.isprintable() else "?" for x in str(text))
    return text if len(text) <= 300 else f"{text[:300]} ..."


class File(NamedTuple):
    """A published file; a .gz is unpacked. `md5` is of its content, or, if `packed`, of the .gz."""

    name: str
    md5: str
    limit: float  # MB; a larger file, packed or unpacked, is refused
    shape: tuple | dict  # of the array, or of each of a .mat by name
    packed: bool = False


class Source(NamedTuple):
    """Where a dataset is published, and how its parsed files become train, valid and test."""

    addresses: str  # separated by spaces
    files: list
    build: Callable  # (parsed files, n_valid) → arrays
    n_valid: int
    levels: int
    folder: str = ""  # that --from may have for it, if other files have the same names


# ----------------------------------------------------------------------------------------- formats


def parse_idx(content, shape):
    """An IDX file of bytes: a header with the shape, then the values."""
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if content[: len(header)] != header or len(content) != len(header) + math.prod(shape):
        raise Fault(f"is not an IDX file of {shape} bytes")
    array = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
    if array.ndim == 1 and array.max() > 9:
        raise Fault(f"has the label {array.max()}")
    return array


def parse_amat(content, shape):
    """Text of bits, separated by single spaces: two bytes a bit, so no need to split it."""
    rows, pixels = shape
    if len(content) != 2 * rows * pixels:  # perhaps only other line ends, or spaces after a row
        lines = (b" ".join(line.split()) for line in content.splitlines())
        content = b"".join(line + b"\n" for line in lines if line)
    if len(content) == 2 * rows * pixels:
        text = np.frombuffer(content, np.uint8).reshape(rows, pixels, 2)
        bits, gaps = text[..., 0] - ord("0"), text[..., 1]
        if bits.max() <= 1 and (gaps[:, :-1] == ord(" ")).all() and (gaps[:, -1] == 10).all():
            return bits
    raise Fault(f"is not text with {rows} rows of {pixels} bits")


def parse_mat(content, shapes):
    """A MATLAB file: for every name in `shapes`, one image a column, column by column, in [0, 1].

    Returns {name: grey levels 0 … 255, one upright image a row}.
    """
    file, images = io.BytesIO(content), {}
    try:
        found = {name: shape for name, shape, _ in scipy.io.whosmat(file)}
        for name, shape in shapes.items():  # before memory is set aside for what it may claim
            if found.get(name) != shape:
                raise Fault(f"{name} is {found.get(name, 'missing')} instead of {shape}")
        arrays = scipy.io.loadmat(file, variable_names=list(shapes))
    except Exception as error:  # scipy has no error of its own for a file that is broken
        raise Fault(f"is not the expected MATLAB file ({error})") from error
    for name in shapes:
        x = arrays.pop(name)
        numbers = isinstance(x, np.ndarray) and x.dtype.kind in "biuf"
        if not (numbers and x.min() >= 0 and x.max() <= 1):
            raise Fault(f"{name} is not a matrix of numbers from 0 to 1")
        grey = x.T * 255.0
        columns = np.rint(grey, out=grey).astype(np.uint8).reshape(-1, SIDE, SIDE)
        images[name] = columns.swapaxes(1, 2).reshape(len(x.T), -1)
    return images


# ------------------------------------------------------------------------------------------ splits


def build_mnist(parsed, n_valid):
    images, labels, test, test_labels = (x.reshape(len(x), -1) for x in parsed)
    arrays = {"train": images[:-n_valid], "valid": images[-n_valid:], "test": test}
    labels = {"train": labels[:-n_valid], "valid": labels[-n_valid:], "test": test_labels}
    return arrays | {f"labels_{split}": x.ravel() for split, x in labels.items()}


def build_binarized(parsed, n_valid):
    return dict(zip(("train", "valid", "test"), parsed))


def build_omniglot(parsed, n_valid):
    """Validation is the end of the shuffled training rows: the split of the REBAR authors' code."""
    images = parsed[0]["data"]
    images = images[np.random.RandomState(123).permutation(len(images))]
    return {"train": images[:-n_valid], "valid": images[-n_valid:], "test": parsed[0]["testdata"]}


PARSERS = {".gz": parse_idx, ".amat": parse_amat, ".mat": parse_mat}
MNIST = [
    File("train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb", 48, (60_000, 28, 28)),
    File("train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624", 0.1, (60_000,)),
    File("t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea", 8, (10_000, 28, 28)),
    File("t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637", 0.1, (10_000,)),
]
FASHION = [
    file._replace(md5=md5, packed=True)
    for file, md5 in zip(MNIST, (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
    ))
]  # fmt: skip
BINARIZED = [
    File("binarized_mnist_train.amat", "db28b1a6ae0fe70cbd3da91acf46e477", 79, (50_000, 784)),
    File("binarized_mnist_valid.amat", "bf37822a04e94123630de6a7dfd9c9ef", 16, (10_000, 784)),
    File("binarized_mnist_test.amat", "14e41ae11040adba6ab8cb291eda0dd8", 16, (10_000, 784)),
]
MATRICES = {"data": (784, 24_345), "testdata": (784, 8_070)}
OMNIGLOT = [File("chardata.mat", "21ecaf34373511aa7691cf2e0802aa3d", 100, MATRICES)]
SOURCES = {
    "mnist": Source(
        "https://storage.googleapis.com/cvdf-datasets/mnist/ "
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        MNIST, build_mnist, n_valid=10_000, levels=255,
    ),
    "fashion-mnist": Source(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/ "
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        FASHION, build_mnist, n_valid=10_000, levels=255, folder="fashion-mnist",
    ),
    "binarized-mnist": Source(
        "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/ "
        "https://raw.githubusercontent.com/riannevdberg/sylvester-flows/master/data/MNIST_static/",
        BINARIZED, build_binarized, n_valid=0, levels=1,
    ),
    "omniglot": Source(
        "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",
        OMNIGLOT, build_omniglot, n_valid=1_345, levels=255,
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------- fetching


class Redirect(urllib.request.HTTPRedirectHandler):
    """Follow a server to http and https only, and never from https to http."""

    def redirect_request(self, request, body, code, message, headers, address):
        scheme = address.partition(":")[0].lower()
        if scheme not in {"https", request.type}:
            raise Fault(f"redirects from {request.type} to {address}, which is not followed")
        return super().redirect_request(request, body, code, message, headers, address)


def read(address, limit):
    """The bytes at an address (http, https or the path of a file), at most `limit` of them.

    They have to be complete after `TIMEOUT + limit / SLOWEST` seconds, however slow the server is.
    """
    seconds, answer = TIMEOUT + limit / SLOWEST, queue.SimpleQueue()
    end, late = time.monotonic() + seconds, Fault(f"is not complete after {seconds:.0f} seconds")

    def work():  # in a thread, because a server can also be slow before the content begins
        try:
            answer.put((_read(address, limit, end, late), None))
        except Exception as error:
            answer.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    while time.monotonic() < end:
        try:
            content, error = answer.get(timeout=0.5)  # short, so that Ctrl-C works everywhere
        except queue.Empty:
            continue
        if error:
            raise error
        return content
    raise late


def _read(address, limit, end, late):
    if "://" in address:
        opened = urllib.request.build_opener(Redirect).open(address, timeout=TIMEOUT)
    elif os.path.exists(address) and not os.path.isfile(address):
        raise Fault("is not a file")  # opening a named pipe would wait for a writer
    else:
        opened = open(address, "rb")  # noqa: SIM115
    with opened as body:
        total = getattr(body, "length", None)  # as the server announces it
        too_large = Fault(f"is larger than {limit:,} bytes")
        if total is not None and total > limit:
            raise too_large
        content, name = bytearray(), plain(address.rpartition("/")[2])
        with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None) as bar:
            while len(content) != total:
                chunk = body.read1(CHUNK if total is None else min(CHUNK, total - len(content)))
                if not chunk:
                    break
                content += chunk
                bar.update(len(chunk))
                if len(content) > limit:
                    raise too_large
                if time.monotonic() > end:
                    raise late
    if total is not None and len(content) < total:  # http.client reports it only for chunked bodies
        raise ConnectionError(f"the connection ended after {len(content):,} of {total:,} bytes")
    return bytes(content)


def unpack(content, limit):
    """The content of a gzip file, never more than `limit` bytes of it."""
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Fault(f"cannot be unpacked ({error})") from error
    if len(content) > limit:
        raise Fault(f"unpacks to more than {limit:,} bytes")
    return content


def may_pass(error):
    """Whether asking the same server again can help."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code == 429
    network = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)
    return isinstance(error, network)


def fetch(dataset, file, addresses, allow_unverified):
    """(arrays, md5) of a file from the first address that has the published one.

    With `allow_unverified` the first other file in the right format will do if none has it.
    """
    parse, limit = PARSERS[Path(file.name).suffix], int(file.limit * 1e6)
    failures, spare, warning = {}, None, ""
    owners = {f.md5: name for name, source in SOURCES.items() for f in source.files if not f.packed}
    for address in [*addresses, *addresses]:
        if address in failures:  # the second round
            if spare or not may_pass(failures[address]):
                continue
            time.sleep(PAUSE)
        try:
            content = packed = read(f"{address}{file.name}", limit)
            if file.name.endswith(".gz"):
                content = unpack(content, limit)
            md5s = [hashlib.md5(x, usedforsecurity=False).hexdigest() for x in (content, packed)]
            md5 = md5s[file.packed]
            if md5 == file.md5:
                return parse(content, file.shape), md5
            if owners.get(md5s[0], dataset) != dataset:  # its files have the same names
                raise Fault(f"is the file of {owners[md5s[0]]}")
            failures[address] = Fault(f"has md5 {md5} instead of {file.md5}")
            if allow_unverified and not spare:
                spare = parse(content, file.shape), md5
                warning = plain(f"{address}{file.name} {failures[address]}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures[address] = error
    if spare:
        print(f"WARNING: NOT VERIFIED: {warning}; --allow-unverified takes it", file=sys.stderr)
        return spare
    tried = "".join(f"\n  {plain(f'{a}{file.name}: {e}')}" for a, e in failures.items())
    raise Fault(f"no usable {file.name}; tried{tried}")


# ----------------------------------------------------------------------------------------- writing


def save(path, arrays):
    """Write an .npz that takes its place under `path` only once it is complete on the disk."""
    for left in path.parent.glob(f".{path.stem}-*.npz"):  # by a process killed while it wrote
        if time.time() - left.stat().st_mtime > 3600:
            left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def get(name, path, folder=None, allow_unverified=False):
    """Fetch the dataset `name`, from `folder` or else from where it is published, into `path`."""
    source = SOURCES[name]
    if folder and source.folder and os.path.isdir(f"{folder}{source.folder}"):
        folder += f"{source.folder}/"
    addresses = [folder] if folder else source.addresses.split()
    try:
        fetched = [fetch(name, file, addresses, allow_unverified) for file in source.files]
    except Fault as error:
        names = ", ".join(file.name for file in source.files)
        raise Fault(
            f"{name}: {error}\nTo supply it by hand, put {names} into a folder DIR and run\n"
            f"  python data/download.py {name} --from DIR\n"
            "(with --allow-unverified to accept another md5)"
        ) from error
    parsed, md5s = zip(*fetched)
    arrays = source.build(parsed, source.n_valid)
    arrays["levels"] = np.uint8(source.levels)
    arrays["shape"] = np.array([SIDE, SIDE], np.uint8)
    arrays["verified"] = np.bool_(all(md5 == file.md5 for md5, file in zip(md5s, source.files)))
    arrays["source"] = np.array([f"{md5}  {file.name}" for md5, file in zip(md5s, source.files)])
    save(path, arrays)
    print(f"{name}: wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


class Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, without the usage
        self.exit(2, f"{self.prog}: error: {plain(message):.600}\n")

    def parse_known_args(self, args=None, namespace=None):  # argparse stumbles over --flag=--
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"{word[:-3]}: '--' is not a value of it")
        return super().parse_known_args(args, namespace)


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = Parser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    p.add_argument("dataset", nargs="+", choices=[*SOURCES, "all"], help="what to fetch")
    p.add_argument("--from", dest="folder", metavar="DIR_OR_URL", help="where the files are")
    p.add_argument("--out", metavar="DIR", default=Path(__file__).parent, help="default: data")
    p.add_argument("--allow-unverified", action="store_true", help="accept another checksum")
    args = p.parse_args(argv)
    folder = args.folder and args.folder.rstrip("/") + "/"
    if folder is not None and not (re.match("https?://", folder) or os.path.isdir(folder)):
        p.error(
            f"--from: '{args.folder}' is neither a folder nor an address with http:// or https://"
        )
    if not str(args.out).strip():
        p.error("--out: it is empty; name a folder")
    names = list(SOURCES) if "all" in args.dataset else list(dict.fromkeys(args.dataset))
    code = 0
    try:
        is_new = not Path(args.out).exists()
        Path(args.out).mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(args.out) / f"{name}.npz"
            if path.exists():
                print(f"{name}: {path} is there already; delete it to fetch it again")
                continue
            try:
                get(name, path, folder, args.allow_unverified)
            except Fault as error:  # the other datasets may still be had
                print(f"{p.prog}: error: {error}", file=sys.stderr)
                code = 2
        if is_new and not any(Path(args.out).iterdir()):
            Path(args.out).rmdir()
    except OSError as error:
        p.error(f"--out: cannot write {error.filename or args.out}: {error.strerror or error}")
    except KeyboardInterrupt:
        p.exit(130, f"{p.prog}: stopped\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
