"""--tensorboard, read back from the event file; and its one-line error without tensorboardX."""

import csv
import struct

import pytest
from test_faults import break_in
from test_runs import SMALL, run


def read_events(folder):
    """{(tag, step): float, or (height, width) of an image} of every event file in the folder."""
    from tensorboardX.proto.event_pb2 import Event

    values = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):  # a record: length, its checksum, event, its checksum
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            for value in event.summary.value:
                if value.HasField("image"):
                    values[value.tag, event.step] = (value.image.height, value.image.width)
                else:
                    values[value.tag, event.step] = value.simple_value
    return values


def test_event_file_holds_the_log_and_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "run"
    flags = ["--steps", 60, "--eval-every", 52, "--tensorboard"]
    code, _, err = run("rebar", *SMALL, *flags, "--out", folder)
    assert (code, err) == (0, "")
    events = read_events(folder)
    with open(folder / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["26", "52", "60"]
    expected = {
        (key.replace(" ", "_"), int(row["step"])): float(value)
        for row in rows
        for key, value in row.items()
        if key not in ("step", "seconds") and value
    }
    numbers = {key: value for key, value in events.items() if not isinstance(value, tuple)}
    assert numbers.keys() == expected.keys()
    for key, value in expected.items():
        assert numbers[key] == pytest.approx(value, rel=1e-6)
    assert ("valid_bound", 26) not in numbers
    assert {"train_bound", "test_bound", "temperature", "eta/q0.W0"} <= {tag for tag, _ in numbers}
    images = {key: value for key, value in events.items() if isinstance(value, tuple)}
    titles = ("test_images", "reconstructed", "samples_from_the_model")
    assert images == {(title, step): (54, 54) for title in titles for step in (52, 60)}


@pytest.mark.parametrize("size", [600, 95_000], ids=["log", "events"])
def test_a_full_disk_is_one_line(size, tmp_path):
    """The file is named that could not be written, and no thread or exit of another says more."""
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "run"
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    flags = ["--hidden", 1, "--steps", 60, "--log-every", 1, "--eval-every", 1, "--tensorboard"]
    flags = [*SMALL, *flags, "--out", folder]
    code, _, err = run("rebar", *flags, code=break_in(folder, 20, limit))
    assert (code, len(err.strip().splitlines())) == (2, 1), err
    name = "log.csv" if size == 600 else "events.out.tfevents."
    assert f"; cannot write {folder / name}" in err
    assert err.endswith(f" --resume {folder} --tensorboard --no-plots\n")


def test_without_tensorboardx_one_line_and_exit_code_2(tmp_path):
    block = """if True:
        import runpy
        sys.modules["tensorboardX"] = None
        sys.argv = sys.argv[1:]
        sys.path.insert(0, sys.argv[0].rpartition("/")[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    flags = ["--tensorboard", "--out", tmp_path / "run"]
    code, out, err = run("reinforce", *flags, code=block)
    assert (code, out) == (2, "")
    assert "pip install tensorboardX" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
