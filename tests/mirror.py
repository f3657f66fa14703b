"""A small copy of the places where the image sets are published, and a web server that misbehaves.

download = load()               data/download.py as a module
FILES, IMAGES                   every file it knows, a few rows each, and what is in them
shrink(download, addresses)     its table for those files
with Mirror() as mirror: …      a server; `mirror.replies[path]` is a body or a fault below
"""

import gzip
import hashlib
import importlib.util
import io
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import scipy.io

ROOT = Path(__file__).resolve().parent.parent


def load():
    spec = importlib.util.spec_from_file_location("download", ROOT / "data" / "download.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------- files


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def amat(bits):
    return "".join(" ".join(map(str, row)) + "\n" for row in bits.tolist()).encode()


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=True)
    return file.getvalue()


def columns(images, rng):
    """Images as chardata.mat has them: pixels column by column, not quite whole grey levels."""
    pixels = np.stack([image.flatten(order="F") for image in images], axis=1).astype(float)
    return np.clip((pixels + rng.uniform(-0.4, 0.4, pixels.shape)) / 255, 0, 1)


def make():
    rng = np.random.default_rng(1)
    grey = lambda n: rng.integers(0, 256, (n, 28, 28), np.uint8)
    bits = lambda n: rng.integers(0, 2, (n, 784), np.uint8)
    images = {"train": grey(7), "test": grey(4), "data": grey(9), "testdata": grey(3)}
    images |= {f"{split}_labels": rng.integers(0, 10, len(images[split]), np.uint8)
               for split in ("train", "test")}  # fmt: skip
    images |= {f"bits_{split}": bits(n) for split, n in zip(("train", "valid", "test"), (5, 2, 3))}
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images["train"])),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(images["train_labels"])),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(images["test"])),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(images["test_labels"])),
        **{f"binarized_mnist_{split}.amat": amat(images[f"bits_{split}"])
           for split in ("train", "valid", "test")},
        "chardata.mat": mat(data=columns(images["data"], rng),
                            testdata=columns(images["testdata"], rng), target=np.eye(9)),
    }  # fmt: skip
    return images, files


IMAGES, FILES = make()
SHAPES = {
    "train-images-idx3-ubyte.gz": (7, 28, 28),
    "train-labels-idx1-ubyte.gz": (7,),
    "t10k-images-idx3-ubyte.gz": (4, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (4,),
    "binarized_mnist_train.amat": (5, 784),
    "binarized_mnist_valid.amat": (2, 784),
    "binarized_mnist_test.amat": (3, 784),
    "chardata.mat": {"data": (784, 9), "testdata": (784, 3)},
}
N_VALID = {"mnist": 2, "fashion-mnist": 2, "binarized-mnist": 0, "omniglot": 4}
LIMIT = 100_000  # bytes, of every file


def digest(name, content, packed=False):
    unpack = name.endswith(".gz") and not packed
    return hashlib.md5(gzip.decompress(content) if unpack else content).hexdigest()


def shrink(download, addresses):
    """The table of data/download.py with the files above in the place of the published ones."""
    small = lambda file: file._replace(
        md5=digest(file.name, FILES[file.name], file.packed),
        limit=LIMIT / 1e6,
        shape=SHAPES[file.name],
    )
    return {
        name: source._replace(
            addresses=addresses, files=[small(f) for f in source.files], n_valid=N_VALID[name]
        )
        for name, source in download.SOURCES.items()
    }


# ------------------------------------------------------------------------------------------ server


def missing(handler, body):
    handler.send_error(404)


def busy(handler, body):
    handler.send_error(503)


def truncated(handler, body):
    """Announce more than is sent."""
    handler.start(len(body) + 10)
    handler.wfile.write(body)


def dropped(handler, body):
    """Cut the connection in the middle, without a goodbye."""
    handler.start(len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def stalled(handler, body):
    """Send half, and then nothing until the server ends."""
    handler.start(len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.server.ended.wait(20)


def drip(send, ended):
    """A byte every 50 ms, which no limit on silence notices."""
    while not ended.is_set():
        send(b"x")
        ended.wait(0.05)


def dripping(handler, body):
    """Content that is never complete."""
    handler.start(len(body))
    drip(handler.wfile.write, handler.server.ended)


def dripping_header(handler, body):
    """Not even the header is ever complete."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler.wfile.write, handler.server.ended)


def rude(handler, body):
    """A message that would change the colours, the title and the lines of a terminal."""
    handler.wfile.write(b"HTTP/1.1 404 \x1b[31mred\x1b]0;title\x07\x0bline\r\n\r\n")


def redirect_to(address):
    def redirect(handler, body):
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.end_headers()

    return redirect


def silent(handler, body):
    handler.server.ended.wait(20)


def oversized(handler, body):
    """Announce too much; sending it would be a fault of its own."""
    handler.start(LIMIT + 1)
    handler.server.ended.wait(20)


def unannounced(handler, body):
    """A byte too much, of which only the end of the connection tells."""
    handler.start(None)
    handler.wfile.write(bytes(LIMIT + 1))


def endless(handler, body):
    """Announce nothing and never stop."""
    handler.start(None)
    while not handler.server.ended.is_set():
        handler.wfile.write(bytes(10_000))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.log.append(self.path)
        name = self.path.rpartition("/")[2]
        reply, body = self.server.replies.get(self.path), FILES[name]
        try:
            if callable(reply):
                reply(self, body)
            else:
                body = body if reply is None else reply
                self.start(len(body))
                self.wfile.write(body)
        except OSError:  # the client has had enough
            pass

    def start(self, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *args):
        pass


class Mirror(ThreadingHTTPServer):
    """Serves FILES in every folder; `replies` has what differs by path, `log` what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.log, self.ended = {}, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, *_):  # the client has had enough, at a moment of its own choice
        pass
