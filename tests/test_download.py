"""data/download.py: what it makes of the published formats, and what no fault may leave behind."""

import errno
import gzip
import io
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import urllib.request

import common
import mirror
import numpy as np
import proofs
import pytest
from harness import data
from mirror import FILES, IMAGES, ROOT

SPLITS = ("train", "valid", "test")


class Site:
    """The downloader with a table of small files, at two addresses of a server; `out` is ours."""

    def __init__(self, server, folder, capsys):
        self.download, self.server, self.capsys = mirror.load(), server, capsys
        self.out = folder / "data"
        self.out.mkdir()
        (self.out / "notes.txt").write_text("mine")
        self.addresses = [f"{server.url}/first/", f"{server.url}/second/"]
        self.download.SOURCES = mirror.shrink(self.download, " ".join(self.addresses))
        self.download.TIMEOUT, self.download.PAUSE = 0.25, 0

    def reply(self, name, reply, places=("first", "second")):
        self.server.replies |= {f"/{place}/{name}": reply for place in places}

    def run(self, *args):
        """(exit code, stdout, stderr) of `download.py args`."""
        with pytest.raises(SystemExit) as end:
            self.download.main([*args, "--out", str(self.out)])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return end.value.code, out, err

    def arrays(self, name):
        with np.load(self.out / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def asked(self, name):
        return [path.split("/")[1] for path in self.server.log if path.endswith(f"/{name}")]

    def contents(self):
        return {path.name: path.read_bytes() for path in self.out.iterdir()}

    def check_untouched(self):
        assert self.contents() == {"notes.txt": b"mine"}


@pytest.fixture
def site(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    with mirror.Mirror() as server:
        yield Site(server, tmp_path, capsys)


def check_all(arrays, expected, levels):
    """The arrays, and nothing else, as uint8; and the project's own reader takes them."""
    for key, value in expected.items():
        assert arrays[key].dtype == np.uint8
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    assert arrays.keys() - expected.keys() == {"levels", "shape", "verified", "source"}
    assert arrays["levels"].dtype == arrays["shape"].dtype == np.uint8
    assert arrays["levels"] == levels
    assert arrays["shape"].tolist() == [28, 28]
    assert arrays["verified"].dtype == bool


def check_bits(arrays):
    check_all(arrays, {split: IMAGES[f"bits_{split}"] for split in SPLITS}, 1)


# ------------------------------------------------------------------------------------ what is made


def test_mnist(site):
    code, out, err = site.run("mnist")
    assert (code, err) == (0, "")
    assert out.startswith("mnist: wrote ")
    train, test, labels = IMAGES["train"].reshape(7, 784), IMAGES["test"], IMAGES["train_labels"]
    expected = {"train": train[:5], "valid": train[5:], "test": test.reshape(4, 784)}
    expected |= {"labels_train": labels[:5], "labels_valid": labels[5:]}
    expected["labels_test"] = IMAGES["test_labels"]
    arrays = site.arrays("mnist")
    check_all(arrays, expected, 255)
    assert arrays["verified"]
    assert arrays["source"].tolist() == [
        f"{mirror.digest(name, FILES[name])}  {name}" for name in list(FILES)[:4]
    ]
    assert site.asked("train-images-idx3-ubyte.gz") == ["first"]
    assert sorted(site.contents()) == ["mnist.npz", "notes.txt"]
    np.testing.assert_array_equal(data.read_images("mnist")["valid"], train[5:])


def test_fashion_mnist_is_known_by_its_packed_files(site):
    """Its files have the names of MNIST's: --from takes them from a folder of their own, if any."""
    assert site.run("fashion-mnist")[::2] == (0, "")
    arrays = site.arrays("fashion-mnist")
    np.testing.assert_array_equal(arrays["labels_valid"], IMAGES["train_labels"][5:])
    np.testing.assert_array_equal(data.read_images("fashion-mnist")["valid"], arrays["valid"])
    name = "train-images-idx3-ubyte.gz"
    assert arrays["source"][0] == f"{mirror.digest(name, FILES[name], packed=True)}  {name}"
    both = site.out / "both"
    (both / "fashion-mnist").mkdir(parents=True)
    for file in list(FILES)[:4]:
        (both / file).write_bytes(FILES[file])
        packed_again = gzip.compress(gzip.decompress(FILES[file]), 1)
        (both / "fashion-mnist" / file).write_bytes(packed_again)
    (site.out / "fashion-mnist.npz").unlink()
    code, _, err = site.run("fashion-mnist", "--from", str(both))
    assert (code, "both/fashion-mnist/train-images-idx3-ubyte.gz: " in err) == (2, True)


def test_the_files_of_mnist_are_never_taken_for_fashion_mnist(site):
    """Not even unverified."""
    sources = site.download.SOURCES
    fashion = [file._replace(md5="0" * 32) for file in sources["fashion-mnist"].files]
    sources["fashion-mnist"] = sources["fashion-mnist"]._replace(files=fashion)
    code, _, err = site.run("fashion-mnist", "--allow-unverified")
    assert (code, "is the file of mnist" in err) == (2, True)
    site.check_untouched()


def test_binarized_mnist(site):
    assert site.run("binarized-mnist")[::2] == (0, "")
    check_bits(site.arrays("binarized-mnist"))
    np.testing.assert_array_equal(data.read_images("binarized-mnist")["test"], IMAGES["bits_test"])


def test_omniglot_is_upright_rounded_and_split(site):
    assert site.run("omniglot")[::2] == (0, "")
    order = np.random.RandomState(123).permutation(9)
    assert order.tolist() != list(range(9))
    train = IMAGES["data"].reshape(9, 784)[order]
    expected = {"train": train[:5], "valid": train[5:], "test": IMAGES["testdata"].reshape(3, 784)}
    check_all(site.arrays("omniglot"), expected, 255)
    np.testing.assert_array_equal(data.read_images("omniglot")["valid"], train[5:])


def test_all_from_a_folder_feed_the_datasets(site, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    assert site.run("all", "--from", f"{tmp_path}/")[::2] == (0, "")
    assert site.server.log == []
    dynamic = data.load_dataset("mnist", dynamic=True)
    assert dynamic.levels == 255
    np.testing.assert_array_equal(dynamic.train, IMAGES["train"].reshape(7, 784)[:5])
    grey = IMAGES["train"].reshape(7, 784)[5:] / 255  # validation: the same file, as bits
    assert np.isin(dynamic.valid, (0, 1)).all()
    assert abs(np.mean((dynamic.valid - grey) * (grey - 0.5))) < 0.022  # 6 σ; of others −.08
    np.testing.assert_array_equal(dynamic.test, IMAGES["bits_test"])
    assert data.load_dataset("omniglot").train.max() == 1


def test_from_another_server(site):
    site.reply("chardata.mat", mirror.missing)
    assert site.run("omniglot", "--from", f"{site.server.url}/third")[0] == 0
    (site.out / "omniglot.npz").unlink()
    assert site.run("omniglot", "--from", f"{site.server.url}/third/")[0] == 0
    assert site.asked("chardata.mat") == ["third", "third"]


def test_what_is_there_is_skipped(site):
    site.run("binarized-mnist")
    before = site.contents()
    site.server.log.clear()
    code, out, err = site.run("binarized-mnist", "binarized-mnist")
    assert (code, err, site.server.log) == (0, "", [])
    assert "there already" in out
    assert out.count("\n") == 1
    assert site.contents() == before


def test_the_published_files_fit_their_limits():
    sources = mirror.load().SOURCES
    files = [file for source in sources.values() for file in source.files]
    assert [file.name for file in files] == [*list(FILES)[:4], *FILES]
    assert len({file.md5 for file in files}) == len(files)
    for file in files[:-1]:
        values = np.prod(file.shape)
        size = 2 * values if file.name.endswith(".amat") else values + 4 + 4 * len(file.shape)
        assert size < file.limit * 1e6 < 2 * size + 1e5
    assert [sources[name].n_valid for name in sources] == [10_000, 10_000, 0, 1_345]
    addresses = " ".join(source.addresses for source in sources.values()).split()
    assert len(addresses) == 7
    assert all(a.startswith("https://") and a.endswith("/") for a in addresses)
    assert [(f.shape[0], f.shape[1:]) for f in files[:4:2]] == [
        (60_000, (28, 28)), (10_000, (28, 28))]  # fmt: skip


def test_the_text_of_binarized_mnist_is_read_fast():
    bits = np.random.default_rng(0).integers(0, 2, (50_000, 784), np.uint8)
    text = np.full((50_000, 784, 2), ord(" "), np.uint8)
    text[..., 0] = bits + ord("0")
    text[:, -1, 1] = ord("\n")
    content = text.tobytes()
    start = time.perf_counter()
    read = mirror.load().parse_amat(content, bits.shape)
    assert time.perf_counter() - start < 3  # 78 of 110 MB, and all in 5 s
    assert read.nbytes == bits.nbytes
    np.testing.assert_array_equal(read, bits)


# ---------------------------------------------------------------------------------- faulty servers

TRAIN = "train-images-idx3-ubyte.gz"
BOMB = gzip.compress(bytes(mirror.LIMIT + 1))
TRANSIENT = {
    "busy": (mirror.busy, "HTTP Error 503"),
    "truncated": (mirror.truncated, "the connection ended after"),
    "dropped": (mirror.dropped, ""),  # reset or short, as the system has it
    "stalled": (mirror.stalled, "timed out"),
    "silent": (mirror.silent, "timed out"),
}
FINAL = {
    "404": (mirror.missing, "HTTP Error 404: Not Found"),
    "announced too large": (mirror.oversized, "is larger than 100,000 bytes"),
    "endless": (mirror.endless, "is larger than 100,000 bytes"),
    "a byte too large": (mirror.unannounced, "is larger than 100,000 bytes"),
    "bomb": (BOMB, "unpacks to more than 100,000 bytes"),
    "half a gzip file": (FILES[TRAIN][:500], "cannot be unpacked"),
    "no gzip file": (b"<html>Please log in</html>", "cannot be unpacked"),
    "noise in a gzip file": (FILES[TRAIN][:10] + b"\xff" * 50, "cannot be unpacked"),
    "bad check sum": (FILES[TRAIN][:-8] + bytes(8), "cannot be unpacked"),
    "another file": (FILES["t10k-images-idx3-ubyte.gz"], mirror.digest(TRAIN, FILES[TRAIN])),
}  # fmt: skip
FAULTS = TRANSIENT | FINAL


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_next_address_is_tried(site, fault):
    site.reply(TRAIN, FAULTS[fault][0], ["first"])
    assert site.run("mnist")[::2] == (0, "")
    assert site.asked(TRAIN) == ["first", "second"]
    np.testing.assert_array_equal(site.arrays("mnist")["test"], IMAGES["test"].reshape(4, 784))
    assert site.arrays("mnist")["verified"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_everywhere_is_an_error_that_says_what_to_do(site, fault):
    reply, reason = FAULTS[fault]
    site.reply(TRAIN, reply)
    start = time.monotonic()
    code, out, err = site.run("mnist")
    assert time.monotonic() - start < 5
    assert (code, out) == (2, "")
    first, *tried, by_hand, command, hint = err.splitlines()
    assert first == f"{os.path.basename(sys.argv[0])}: error: mnist: no usable {TRAIN}; tried"
    assert [line.split(": ")[0] for line in tried] == [f"  {a}{TRAIN}" for a in site.addresses]
    assert all(reason in line for line in tried)
    assert all(name in by_hand for name in list(FILES)[:4])
    assert command == "  python data/download.py mnist --from DIR"
    assert "--allow-unverified" in hint
    # only what may pass is asked for twice
    assert site.asked(TRAIN) == ["first", "second"] * (2 if fault in TRANSIENT else 1)
    site.check_untouched()


def test_a_bomb_costs_no_memory():
    bomb = gzip.compress(bytes(30_000_000))
    download = mirror.load()
    tracemalloc.start()
    with pytest.raises(download.Fault, match="unpacks to more than 1,000 bytes"):
        download.unpack(bomb, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_a_second_try_may_succeed(site):
    def once(handler, body):
        site.server.replies.clear()
        mirror.dropped(handler, body)

    site.reply("chardata.mat", mirror.missing, ["first"])
    site.reply("chardata.mat", once, ["second"])
    assert site.run("omniglot")[::2] == (0, "")
    assert site.asked("chardata.mat") == ["first", "second", "second"]


def test_nobody_listens(site):
    code, _, err = site.run("omniglot", "--from", "http://127.0.0.1:9")
    assert code == 2
    assert "127.0.0.1:9/chardata.mat: <urlopen error" in err
    site.check_untouched()


@pytest.mark.parametrize("reply", [mirror.dripping, mirror.dripping_header])
def test_a_slow_server_has_a_deadline(site, reply):
    """It is never silent for TIMEOUT; of the two addresses none is asked twice."""
    site.download.SLOWEST = mirror.LIMIT / 0.5
    site.reply("chardata.mat", reply)
    start = time.monotonic()
    code, _, err = site.run("omniglot")
    assert time.monotonic() - start < 5
    assert (code, err.count("chardata.mat: is not complete after 1 seconds")) == (2, 2)
    assert site.asked("chardata.mat") == ["first", "second"]
    site.check_untouched()


def test_the_text_of_a_server_is_printed_without_control_characters(site):
    site.reply("chardata.mat", mirror.rude)
    err = site.run("omniglot")[2]
    assert err.count("HTTP Error 404: ?[31mred?]0;title??line\n") == 2
    assert all(line.isprintable() for line in err.splitlines())
    site.check_untouched()


REDIRECTS = ["ftp://127.0.0.1:9/x", "file:///etc/passwd", "data:,x", "FTP://127.0.0.1:9/x"]


@pytest.mark.parametrize("address", REDIRECTS)
def test_a_redirect_leads_to_http_only(site, address):
    site.reply("chardata.mat", mirror.redirect_to(address))
    code, _, err = site.run("omniglot")
    assert (code, err.lower().count("redirect")) == (2, 2)
    assert "urlopen" not in err  # nothing was opened
    site.check_untouched()


def test_a_redirect_is_followed_but_not_from_https_to_http(site):
    other = f"{site.server.url}/third/chardata.mat"
    site.reply("chardata.mat", mirror.redirect_to(other))
    assert site.run("omniglot")[0] == 0
    assert site.asked("chardata.mat") == ["first", "third"]
    Request, follow = urllib.request.Request, site.download.Redirect().redirect_request
    for old, new in [("http", "http"), ("http", "https"), ("https", "https"), ("https", "HTTPS")]:
        followed = follow(Request(f"{old}://a/b"), None, 302, "Found", {}, f"{new}://c/d")
        assert followed.full_url == f"{new}://c/d"
    for old, new in [("https", "http"), ("http", "ftp"), ("https", "file")]:
        with pytest.raises(site.download.Fault, match=f"from {old} to {new}://c/d"):
            follow(Request(f"{old}://a/b"), None, 302, "Found", {}, f"{new}://c/d")


def test_what_is_not_a_file_is_not_opened(site, tmp_path):
    """A named pipe would wait for a writer; a folder and a device have no end or no content."""
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
        path = tmp_path / "chardata.mat"
        make(path)
        code, _, err = site.run("omniglot", "--from", str(tmp_path))
        assert (code, err.count(f"{path}: is not a file\n")) == (2, 1)
        path.rmdir() if path.is_dir() else path.unlink()
    site.check_untouched()


def test_a_fault_of_one_dataset_leaves_the_others(site):
    site.reply("binarized_mnist_test.amat", mirror.missing)
    code, out, err = site.run("all")
    assert code == 2
    there = ["fashion-mnist.npz", "mnist.npz", "notes.txt", "omniglot.npz"]
    assert sorted(site.contents()) == there
    assert out.count("wrote") == 3
    assert err.count("error:") == 1


# ------------------------------------------------------------------------------------ faulty files


def test_another_checksum_has_to_be_allowed_and_is_recorded(site):
    other = mirror.amat(1 - IMAGES["bits_train"])
    site.reply("binarized_mnist_train.amat", other)
    code, _, err = site.run("binarized-mnist")
    assert code == 2
    md5 = mirror.digest("", other)
    assert err.count(f"has md5 {md5} instead of") == 2
    site.check_untouched()
    code, _, err = site.run("binarized-mnist", "--allow-unverified")
    assert code == 0
    assert err.startswith(f"WARNING: NOT VERIFIED: {site.addresses[0]}binarized_mnist_train.amat")
    assert md5 in err
    assert err.count("\n") == 1
    arrays = site.arrays("binarized-mnist")
    np.testing.assert_array_equal(arrays["train"], 1 - IMAGES["bits_train"])
    assert arrays["verified"].tolist() is False
    assert arrays["source"][0] == f"{md5}  binarized_mnist_train.amat"


def test_the_published_file_comes_before_an_allowed_other(site):
    site.reply("binarized_mnist_train.amat", mirror.amat(1 - IMAGES["bits_train"]), ["first"])
    assert site.run("binarized-mnist", "--allow-unverified")[::2] == (0, "")
    check_bits(site.arrays("binarized-mnist"))
    assert site.arrays("binarized-mnist")["verified"]


AMAT = "binarized_mnist_train.amat"


@pytest.mark.parametrize(
    "change",
    [(b"\n", b"\r\n"), (b"\n", b"  \n"), (b" ", b"   "), (b"\n", b"\n\n"), (b"\n", b"\n", 4)],
)
def test_other_white_space_in_an_amat_is_understood(site, change):
    site.reply(AMAT, FILES[AMAT].replace(*change) if len(change) == 2 else FILES[AMAT][:-1])
    assert site.run("binarized-mnist", "--allow-unverified")[0] == 0
    check_bits(site.arrays("binarized-mnist"))
    assert not site.arrays("binarized-mnist")["verified"]


MAT, LABELS = "chardata.mat", "train-labels-idx1-ubyte.gz"
ZEROS = {"data": np.zeros((784, 9)), "testdata": np.zeros((784, 3))}
NAN = np.where(np.arange(9) == 5, np.nan, ZEROS["data"])
LABEL = mirror.idx(np.array([0, 1, 2, 3, 4, 5, 10], np.uint8))
MALFORMED = {
    "a 2": ("binarized-mnist", AMAT, FILES[AMAT].replace(b"1", b"2", 1)),
    "a letter": ("binarized-mnist", AMAT, FILES[AMAT].replace(b"1", b"/", 1)),
    "commas": ("binarized-mnist", AMAT, FILES[AMAT].replace(b" ", b",")),
    "one comma": ("binarized-mnist", AMAT, FILES[AMAT].replace(b" ", b",", 1)),
    "one long row": ("binarized-mnist", AMAT, FILES[AMAT].replace(b"\n", b" ")),
    "a row less": ("binarized-mnist", AMAT, FILES["binarized_mnist_valid.amat"]),
    "empty": ("binarized-mnist", AMAT, b""),
    "longer than its header": ("mnist", TRAIN, gzip.compress(mirror.idx(IMAGES["train"]) + b"0")),
    "shorter than its header": ("mnist", TRAIN, gzip.compress(mirror.idx(IMAGES["train"])[:-1])),
    "other rows": ("mnist", TRAIN, FILES["t10k-images-idx3-ubyte.gz"]),
    "no idx": ("mnist", TRAIN, gzip.compress(b"1" + mirror.idx(IMAGES["train"])[1:])),
    "label 10": ("mnist", LABELS, gzip.compress(LABEL)),
    "no mat": ("omniglot", MAT, b"<html>Please log in</html>" * 50),
    "half a mat": ("omniglot", MAT, FILES[MAT][:5000]),
    "noise for a mat": ("omniglot", MAT, FILES[MAT][:200] + bytes(range(256)) * 20),
    "empty mat": ("omniglot", MAT, b""),
    "an npz": ("omniglot", MAT, (ROOT / "data" / "digits.npz").read_bytes()),
    "without test": ("omniglot", MAT, mirror.mat(data=ZEROS["data"])),
    "fewer columns": ("omniglot", MAT, mirror.mat(**ZEROS | {"data": np.zeros((784, 8))})),
    "too bright": ("omniglot", MAT, mirror.mat(**ZEROS | {"data": ZEROS["data"] + 1.01})),
    "negative": ("omniglot", MAT, mirror.mat(**ZEROS | {"testdata": ZEROS["testdata"] - 0.01})),
    "nan": ("omniglot", MAT, mirror.mat(**ZEROS | {"data": NAN})),
    "cells": ("omniglot", MAT, mirror.mat(**ZEROS | {"testdata": np.full((784, 3), {}, object)})),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_even_if_unverified_is_allowed(site, case):
    dataset, name, content = MALFORMED[case]
    site.reply(name, content)
    code, out, err = site.run(dataset, "--allow-unverified")
    assert (code, out) == (2, "")
    _, *tried, _, _, _ = err.splitlines()
    reasons = ("is not", "has the label 10", "instead of (784,", "matrix of numbers from 0 to 1")
    assert len(tried) == 2
    assert all(any(reason in line for reason in reasons) for line in tried)
    assert "WARNING" not in err
    site.check_untouched()
    site.server.replies.clear()
    assert site.run(dataset)[::2] == (0, "")


def test_a_verified_file_that_is_malformed_is_an_error_too(site):
    content = b"not text of bits"
    source = site.download.SOURCES["binarized-mnist"]
    source.files[0] = source.files[0]._replace(md5=mirror.digest("", content))
    site.reply(AMAT, content)
    code, _, err = site.run("binarized-mnist")
    assert code == 2
    assert err.count("is not text with 5 rows of 784 bits") == 2
    site.check_untouched()


WRONG = {
    "transposed": {"train": np.zeros((784, 3), np.uint8)},
    "videos": {"train": np.zeros((3, 2, 28, 28), np.uint8)},
    "doubles": {"valid": np.zeros((3, 784))},
    "too bright": {"test": np.full((3, 784), 2, np.uint8)},
    "no rows": {"test": np.zeros((0, 784), np.uint8)},
    "other shape": {"shape": np.array([8, 8], np.uint8)},
    "pickled": {"train": np.full((3, 784), None, object)},
}


@pytest.mark.parametrize("case", WRONG)
def test_an_npz_of_wrong_shapes_is_refused(site, case):
    good = {split: np.zeros((3, 784), np.uint8) for split in SPLITS}
    good |= {"levels": np.uint8(1), "shape": np.array([28, 28], np.uint8)}
    path = site.out / "binarized-mnist.npz"
    np.savez(path, **good)
    assert len(data.read_images("binarized-mnist")["train"]) == 3
    np.savez(path, **good | WRONG[case])
    with pytest.raises(common.InputError) as caught:
        data.read_images("binarized-mnist")
    message = str(caught.value)
    assert message.startswith(f"{path} is not a data file of this project (")
    assert message.endswith("get it again with 'python data/download.py binarized-mnist'")
    assert "\n" not in message


# ----------------------------------------------------------------------------------- while writing


class Faulty(io.FileIO):
    """A file that lets a thousand bytes through, and then `fault` happens."""

    def write(self, data):
        if self.tell() + len(data) > 1000:
            super().write(memoryview(data).cast("B")[: 1000 - self.tell()])
            self.fault()
        return super().write(data)


def faulty_open(fault):
    kind = type("Faulty", (Faulty,), {"fault": lambda self: fault()})
    return lambda path, mode: kind(path, "w") if mode == "wb" else open(path, mode)


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_no_space_left(site, monkeypatch, where):
    site.run("omniglot")
    before = site.contents()
    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(site.download, "open", faulty_open(no_space), raising=False)
        else:
            patch.setattr(os, "fsync", no_space)
        code, out, err = site.run("binarized-mnist", "mnist")
    assert (code, out) == (2, "")
    assert err.endswith(f"error: --out: cannot write {site.out}: No space left on device\n")
    assert err.count("\n") == 1
    assert site.contents() == before
    assert site.run("binarized-mnist")[0] == 0
    check_bits(site.arrays("binarized-mnist"))


def test_interrupted_while_writing(site, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(site.download, "open", faulty_open(interrupt), raising=False)
    code, _, err = site.run("binarized-mnist")
    assert (code, err.split(": ")[1:]) == (130, ["stopped\n"])
    site.check_untouched()


def start(site, code=""):
    """data/download.py for binarized-mnist in a process of its own, after running `code` there."""
    script = f"""if True:
        import os, signal, sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        sys.path.insert(0, {str(ROOT / "methods")!r})
        import mirror, test_download
        download = mirror.load()
        download.SOURCES = mirror.shrink(download, {" ".join(site.addresses)!r})
        {code}
        download.main(["binarized-mnist", "--out", {str(site.out)!r}])
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], preexec_fn=proofs.heed, **pipes)


def test_kill_9_while_writing(site):
    kill = "lambda: os.kill(os.getpid(), signal.SIGKILL)"
    process = start(site, f"download.open = test_download.faulty_open({kill})")
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    (partial,) = [path for path in site.out.iterdir() if path.name != "notes.txt"]
    assert partial.stat().st_size == 1000  # it was in the middle of the write
    assert partial.match(".*.npz")  # hidden, and what .gitignore leaves out
    with pytest.raises(common.InputError, match="is not there"):
        data.read_images("binarized-mnist")
    assert site.run("binarized-mnist")[::2] == (0, "")
    check_bits(site.arrays("binarized-mnist"))
    assert partial.exists()  # it might be that of a process that still writes …
    (site.out / "binarized-mnist.npz").unlink()
    os.utime(partial, (0, 0))
    assert site.run("binarized-mnist")[0] == 0
    assert sorted(site.contents()) == ["binarized-mnist.npz", "notes.txt"]  # … but not for hours


def test_ctrl_c_while_downloading(site):
    site.reply("binarized_mnist_valid.amat", mirror.stalled)
    process = start(site)
    deadline = time.monotonic() + 20
    while not site.asked("binarized_mnist_valid.amat") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "-c: stopped\n")
    site.check_untouched()


# ------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["cifar"], "invalid choice: 'cifar'"),
        ([], "required: dataset"),
        (["mnist", "--fro", "x"], "unrecognized arguments: --fro"),
        (["mnist", "--from", "nowhere"], "--from: 'nowhere' is neither a folder nor an address"),
        (["mnist", "--from", "file:///etc"], "--from: 'file:///etc' is neither a folder nor"),
        (["mnist", "--from", ""], "--from: '' is neither a folder nor"),
        (["mnist", "--from", "a\nb\x1b[31m"], "--from: 'a?b?[31m' is neither a folder nor"),
        (["mnist", "--a\nb"], "unrecognized arguments: --a?b"),
    ],
)
def test_a_bad_command_is_one_line(site, args, words):
    code, out, err = site.run(*args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    site.check_untouched()


def test_an_empty_out_is_refused(site, monkeypatch, tmp_path):
    """As an unset variable of a shell leaves it; it would mean the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        site.download.main(["omniglot", "--out", ""])
    assert end.value.code == 2
    assert site.capsys.readouterr().err.endswith("error: --out: it is empty; name a folder\n")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_program_ends_with_2_and_no_traceback(tmp_path):
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, str(ROOT / "data" / "download.py"), "omniglot"]
    done = subprocess.run(
        [*command, "--from", str(tmp_path), "--out", str(tmp_path / "file")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    where = f"download.py: error: --out: cannot write {tmp_path}/file: File exists\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", where)
