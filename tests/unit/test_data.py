"""Data: found, checked, drawn."""

import functools
import gzip
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

import vaelib

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def mnist_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "empty"))
    shutil.copytree(DATA / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    for raw in (tmp_path / "MNIST" / "raw").glob("*-ubyte"):
        raw.unlink()
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there


@pytest.fixture
def mirror(mnist_copy):
    """MNIST's four files on a loopback server, as a public mirror has them."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=mnist_copy / "MNIST" / "raw")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_mnist_is_the_one_that_torchvision_reads(mnist_copy):
    train, test = vaelib.data.mnist()
    for ours, theirs in [
        (train, MNIST(mnist_copy, train=True, download=True)),  # unpacks the .gz it finds
        (test, MNIST(mnist_copy, train=False)),
    ]:
        assert torch.equal(ours.x[:, 0], theirs.data)
        assert torch.equal(ours.y, theirs.targets)
    assert train.x.dtype == torch.uint8
    assert train.y.dtype == torch.int64
    assert train.x.shape == (60_000, 1, 28, 28)
    assert test.x.shape == (10_000, 1, 28, 28)


def test_raw_files_are_read_too(mnist_copy):
    raw = mnist_copy / "MNIST" / "raw"
    for packed in raw.glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert torch.equal(vaelib.data.mnist(mnist_copy)[1].x, vaelib.data.mnist()[1].x)


@pytest.mark.parametrize("packed", [True, False])
def test_a_flipped_bit_is_an_error(mnist_copy, packed):
    path = mnist_copy / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    if not packed:
        path.unlink()
        path, content = path.with_suffix(""), gzip.decompress(content)
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.* is damaged"):
        vaelib.data.mnist(mnist_copy)


def test_a_missing_file_is_named(mnist_copy):
    (mnist_copy / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        vaelib.data.mnist(mnist_copy)


def test_vaelib_data_comes_before_the_repository(mnist_copy, monkeypatch):
    monkeypatch.setenv("VAELIB_DATA", str(mnist_copy))
    assert vaelib.data.find("MNIST/raw") == mnist_copy / "MNIST" / "raw"
    (mnist_copy / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged"):  # never a reason to look further
        vaelib.data.mnist()


def test_without_data_and_network_the_error_says_what_to_do(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr(vaelib.data, "find", lambda *_: None)
    with pytest.raises(OSError, match="could not be downloaded .* set VAELIB_DATA"):
        vaelib.data.mnist(tmp_path)


def test_outside_a_checkout_torchvision_downloads(tmp_path, monkeypatch, mirror):
    monkeypatch.setattr(vaelib.data, "find", lambda *_: None)
    monkeypatch.setattr(MNIST, "mirrors", [mirror])
    train, _ = vaelib.data.mnist(tmp_path / "fresh")
    assert len(train) == 60_000
    assert (tmp_path / "fresh" / "MNIST" / "raw").is_dir()


def test_images_slice_and_unpack():
    _, test = vaelib.data.mnist()
    x, y = test[5:8]
    assert x.shape == (3, 1, 28, 28)
    assert torch.equal(y, test.y[5:8])
    assert len(test[test.y == 3]) == 1010
    with pytest.raises(TypeError, match="expected a slice"):
        test[0]


def test_ink_comes_with_the_chance_that_grey_says():
    """Each of the 256 grey levels, 200,000 pixels: 4.5 standard errors, and 0 and 255 exact."""
    n = 200_000
    for start in range(0, 256, 32):
        grey = torch.arange(start, start + 32, dtype=torch.uint8)
        ink = vaelib.data.binarize(grey.repeat(n, 1), seed=start).mean(0, dtype=torch.float64)
        p = grey.double() / 255
        assert ((ink - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt()).all()


def test_binarize_twice_is_harmless_and_seeded():
    _, test = vaelib.data.mnist()
    x = test.x[:50]
    state = torch.get_rng_state()
    once = vaelib.data.binarize(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(once.unique().tolist()) == {0.0, 1.0}
    assert once.dtype == torch.get_default_dtype()
    assert torch.equal(vaelib.data.binarize(once, seed=9), once)
    assert torch.equal(vaelib.data.binarize(test[:50]), once)
    assert torch.equal(vaelib.data.binarize(x.numpy()), once)
    assert torch.equal(vaelib.data.binarize(x.float() / 255), once)
    assert not torch.equal(vaelib.data.binarize(x, seed=1), once)
    assert vaelib.data.binarize(x.double() / 255).dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (torch.rand(3, 4) * 255, ValueError, "divide by 255"),
        (torch.rand(3, 4) - 1, ValueError, r"expects values in \[0, 1\]"),
        (torch.full((3, 4), torch.nan), ValueError, "missing pixels"),
        (torch.zeros(0, 4), ValueError, "no examples"),
        (torch.eye(4).to(torch.uint8), ValueError, "binary already"),
        (torch.zeros(3, 4, dtype=torch.int64), TypeError, "torch.int64"),
        ("digits.png", TypeError, "str; expected Images"),
        (np.array(["a", "b"]), TypeError, "array of <U1"),
    ],
)
def test_bad_input_gets_one_clear_sentence(x, error, says):
    with pytest.raises(error, match=says):
        vaelib.data.binarize(x)


def test_booleans_are_binary_data():
    assert torch.equal(vaelib.data.binarize(torch.eye(3).bool()), torch.eye(3))
