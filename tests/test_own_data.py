"""--dataset FILE.npz: a user's own images, in every program that trains, and unfit files."""

import hashlib
import json

import numpy as np
import proofs
import pytest
from test_runs import assert_same_run, run

M = proofs.load()
TRAIN = {
    "rebar": ["--hidden", 6, "--eval-samples", 5],
    "compare": ["--hidden", 6, "--methods", "RLOO,DisARM", "--follow", "DisARM"],
    "dreg": ["--hidden", 6, "--latent", 3, "--samples", 2, "--test-samples", 5],
    "gumbel_softmax": ["--hidden", 6, "--variables", 2, "--classes", 3, "--eval-samples", 5],
    "semi_supervised": ["--hidden", 6, "--labels", 4, "--eval-samples", 2],
    "dvae_sharp": ["--width", 4, "--chains", 10, "--ais-chains", 10, "--ais-temperatures", 5,
                   "--test-samples", 5],
    "rbm": ["--hidden", 3, "--chains", 10, "--ais-chains", 10, "--ais-temperatures", 5],
}  # fmt: skip


def images(seed=0, n=64):
    """Bits (n, 4, 5), whose third row is brighter, and labels of three classes."""
    rng = np.random.default_rng(seed)
    p = np.repeat([0.2, 0.3, 0.9, 0.4], 5).reshape(4, 5)
    return (rng.random((n, 4, 5)) < p).astype(np.uint8), rng.permutation(np.arange(n) % 3)


def write(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def own(tmp_path):
    """A file with train and its labels only."""
    bits, labels = images()
    return write(tmp_path / "own.npz", train=bits, labels_train=labels)


# -------------------------------------------------------------------------------------- it is taken


def test_what_a_file_may_leave_out(own, capsys):
    data = M.data.load_dataset(own)
    bits, labels = images()
    np.testing.assert_array_equal(data.train, bits[:-6].reshape(58, 20))
    np.testing.assert_array_equal(data.valid, bits[-6:].reshape(6, 20))
    np.testing.assert_array_equal(data.test, data.valid)
    assert (data.shape, data.levels, data.verified) == ((4, 5), 1, False)
    assert capsys.readouterr().out.splitlines() == [
        "own.npz has no valid: the last 6 images of train are taken",
        "own.npz has no test: valid is taken",
    ]
    arrays = M.data.read_images(own)
    np.testing.assert_array_equal(arrays["labels_train"], labels[:-6])
    np.testing.assert_array_equal(arrays["labels_test"], labels[-6:])


def test_grey_levels_flat_images_and_what_is_said(tmp_path, capsys):
    grey = np.array([[0, 64, 128, 255]] * 9, np.uint8)
    path = write(tmp_path / "grey.npz", train=grey, valid=grey[:2], test=grey[:1])
    still, fresh = M.data.load_dataset(path), M.data.load_dataset(path, dynamic=True)
    assert still.shape == (2, 2)
    assert set(np.unique(still.train)) == {0, 1}
    np.testing.assert_array_equal(fresh.train, grey)
    assert fresh.levels == 255
    assert "has no levels" not in capsys.readouterr().out
    dark = write(tmp_path / "dark.npz", train=grey // 16, valid=grey // 16, test=grey // 16)
    M.data.load_dataset(dark)
    assert capsys.readouterr().out == (
        "dark.npz has no levels: full ink is taken to be 255, the largest grey level in it is 15\n"
    )
    few = write(tmp_path / "few.npz", train=grey // 64, levels=np.array(3), shape=np.array([1, 4]))
    assert M.data.load_dataset(few, dynamic=True).levels == 3
    assert M.data.load_dataset(few).shape == (1, 4)
    line = write(tmp_path / "line.npz", train=grey[:, :3] > 100)
    assert M.data.load_dataset(line).shape == (1, 3)


@pytest.mark.parametrize("program", TRAIN)
def test_every_program_trains_on_it(program, own, tmp_path):
    flags = [*TRAIN[program], "--dataset", own, "--steps", 6, "--out", tmp_path / "run"]
    code, out, err = run(program, *flags, "--no-plots")
    assert (code, err) == (0, "")
    assert out.count("own.npz has no valid") == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    with open(own, "rb") as file:
        assert config["data_sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert config["flags"]["dataset"] == own


def test_a_relative_name_and_the_default_folder(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(M.runfolder, "ROOT", tmp_path)
    args = M.cli.parse(M.cli.parser("rebar", ""), ["--dataset", "own.npz"])
    assert args.dataset == own
    assert (args.steps, args.lr) == (2_000_000, 3e-4)  # of the large sets
    assert M.runfolder.claim(args).name.startswith("rebar-own-")


# ----------------------------------------------------------------------------------------- resuming


def test_resume_refuses_another_file_and_follows_one_that_was_moved(own, tmp_path):
    flags = [*TRAIN["rebar"], "--no-plots", "--dataset", own, "--log-every", 3]
    assert run("rebar", *flags, "--steps", 9, "--out", tmp_path / "whole")[0] == 0
    assert run("rebar", *flags, "--steps", 6, "--out", tmp_path / "part")[0] == 0
    other = write(tmp_path / "other.npz", train=images(seed=1)[0])
    again = ["--resume", tmp_path / "part", "--steps", 9]
    before = (tmp_path / "part" / "config.json").read_bytes()
    code, _, err = run("rebar", *again, "--dataset", other)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{other} is not the file that this run began with" in err
    assert (tmp_path / "part" / "config.json").read_bytes() == before
    code, _, err = run("rebar", *again, "--dataset", "digits")
    assert code == 2
    assert "--dataset: a resumed run keeps its" in err
    moved = tmp_path / "moved.npz"
    (tmp_path / "own.npz").rename(moved)
    code, _, err = run("rebar", *again)
    assert code == 2
    assert f"its images, {own}, are not there; if the file was moved, say --dataset" in err
    assert run("rebar", *again, "--dataset", moved)[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "part", extended=True)


# ------------------------------------------------------------------------------------ it is refused

BITS = images()[0]
WRONG = {
    "no train": ({"test": BITS}, "it has no key train"),
    "another key": ({"train": BITS, "y": BITS}, "its key 'y' is none of train, valid"),
    "floats": ({"train": BITS * 0.5}, "train is of type float64: it has to be uint8"),
    "wide integers": ({"train": BITS.astype(int)}, "train is of type int64: it has to be uint8"),
    "one axis": ({"train": BITS[0, 0]}, "train has the shape (5,): it has to be (images, pixels)"),
    "empty": ({"train": BITS, "valid": BITS[:0]}, "valid has the shape (0, 4, 5)"),
    "no pixels": ({"train": BITS[:, :0]}, "train has the shape (64, 0, 5)"),
    "objects": ({"train": BITS.astype(object)}, "train: Object arrays cannot be loaded"),
    "another size": ({"train": BITS, "test": BITS[:, :3]}, "test has 15 pixels, train has 20"),
    "another shape": ({"train": BITS, "shape": np.array([4, 4])}, "shape is [4, 4]: it has to be"),
    "shape of words": ({"train": BITS, "shape": np.array(["4", "5"])}, "shape is ['4', '5']: it"),
    "infinite shape": ({"train": BITS, "shape": np.array([np.inf, 4])}, "shape is [inf, 4.0]: it"),
    "half a pixel": ({"train": BITS, "shape": np.array([4.0, 5.0])}, "shape is [4.0, 5.0]: it has"),
    "turned": ({"train": BITS, "valid": BITS.reshape(-1, 5, 4)},
               "valid has images of 5 × 4 pixels, and the height and width are 4 × 5"),
    "turned shape": ({"train": BITS, "shape": np.array([5, 4])}, "train has images of 4 × 5"),
    "verified twice": ({"train": BITS, "verified": np.array([True, False])}, "verified has to be"),
    "negative shape": ({"train": BITS, "shape": np.array([-4, -5])}, "shape is [-4, -5]"),
    "no levels": ({"train": BITS, "levels": np.array(0)}, "levels has to be one whole number"),
    "too bright": ({"train": BITS * 9, "levels": np.array(8)}, "train has the grey level 9, above"),
    "bits and grey": ({"train": BITS, "test": BITS * 200}, "train has bits only, and another"),
    "one image": ({"train": BITS[:1]}, "train has one image, and none is left for valid"),
    "labels short": ({"train": BITS, "labels_train": np.zeros(3, int)},
                     "labels_train is int64 (3,): it has to be whole numbers"),
    "labels float": ({"train": BITS, "labels_train": np.zeros(64)}, "labels_train is float64"),
    "labels below 0": ({"train": BITS, "labels_train": np.full(64, -1)},
                       "labels_train: classes are 0 … 255"),
    "labels of nothing": ({"train": BITS, "labels_test": np.zeros(64, int)},
                          "labels_test: the file has no test"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_as_described(case, tmp_path):
    arrays, message = WRONG[case]
    path = write(tmp_path / "own.npz", **arrays)
    with pytest.raises(M.common.InputError) as error:
        M.data.load_dataset(path)
    assert str(error.value).startswith(f"--dataset: {path}: {message}")


def test_what_is_no_npz_file_at_all(tmp_path):
    path = tmp_path / "own.npz"
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY", b"no zip file", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(M.common.InputError, match=r"own\.npz: "):
            M.data.load_dataset(str(path))
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, train=np.random.default_rng(0).integers(0, 2, (64, 20), np.uint8))
    damaged = bytearray(whole.read_bytes())
    for at in range(60, 180, 20):  # deflated data, whose errors are those of zlib
        path.write_bytes(damaged[:at] + b"\xff" * 8 + damaged[at + 8 :])
        with pytest.raises(M.common.InputError, match=r"own\.npz: "):
            M.data.load_dataset(str(path))
    np.save(tmp_path / "one.npy", BITS)
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(M.common.InputError, match=r"it is not an \.npz file"):
        M.data.load_dataset(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(M.common.InputError, match=r"own\.npz: "):
        M.data.load_dataset(str(path))


REFUSED = [
    ("rebar", ["--dataset", "own.csv"], "'own.csv' is unknown: choose from digits, mnist"),
    ("rebar", ["--dataset", "gone.npz"], "gone.npz is not there"),
    ("rebar", ["--dataset", "own.npz", "--dynamic-binarization"],
     "--dynamic-binarization: it has no effect with images that are bits already"),
    ("dreg", ["--dataset", "own.npz", "--static-binarization"],
     "--static-binarization: it has no effect with images that are bits already"),
    ("semi_supervised", ["--dataset", "bare.npz"], "bare.npz has no labels_train"),
    ("semi_supervised", ["--dataset", "own.npz", "--labels", "30"],
     "--labels: class 2 has only 18 images, and one at least has to stay without a label; 30 are"),
    ("semi_supervised", ["--dataset", "alone.npz"], "labels_train of "),
    ("semi_supervised", ["--dataset", "from1.npz"], "from1.npz has no class 0: classes are 0 … C"),
    ("semi_supervised", ["--dataset", "more.npz"], "labels_test of "),
    ("semi_supervised", ["--dataset", "own.npz", "--labels", "4", "--unlabelled", "unordered",
                         "--samples", "4"], "--samples: there are only 3 classes to draw, not 4"),
    ("rbm", ["--dataset", "own"], "'own' is unknown: choose from digits, mnist"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "flags", "message"), REFUSED)
def test_one_line_and_no_folder(program, flags, message, own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bits, labels = images()
    write("bare.npz", train=bits)
    write("alone.npz", train=bits, labels_train=0 * labels)
    write("from1.npz", train=bits, labels_train=labels + 1)
    write("more.npz", train=bits, test=bits, labels_train=labels, labels_test=labels + 1)
    with pytest.raises(SystemExit) as stop:
        M.cli.run(lambda: getattr(M, program).main([*flags, "--out", "run"]))
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()
