"""Data: found, checked, drawn."""

import functools
import gzip
import hashlib
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

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


def test_fashion_mnist_is_the_one_that_torchvision_reads(tmp_path, no_network):
    shutil.copytree(DATA / "FashionMNIST" / "raw", tmp_path / "FashionMNIST" / "raw")
    train, test = vaelib.data.fashion_mnist(tmp_path)
    for ours, theirs in [
        (train, FashionMNIST(tmp_path, train=True, download=True)),  # unpacks the .gz it finds
        (test, FashionMNIST(tmp_path, train=False)),
    ]:
        assert torch.equal(ours.x[:, 0], theirs.data)
        assert torch.equal(ours.y, theirs.targets)
    assert train.y.bincount().tolist() == 10 * [6_000]


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
        (torch.full((3, 4), 7), TypeError, r"torch.int64 from 7 to 7.* convert with"),
        ("digits.png", TypeError, "str; expected Images"),
        (np.array(["a", "b"]), TypeError, "array of <U1"),
    ],
)
def test_bad_input_gets_one_clear_sentence(x, error, says):
    with pytest.raises(error, match=says):
        vaelib.data.binarize(x)


def test_booleans_are_binary_data():
    assert torch.equal(vaelib.data.binarize(torch.eye(3).bool()), torch.eye(3))


def test_cifar10_is_the_one_that_was_published():
    train, test = vaelib.data.cifar10()
    assert train.x.shape == (10_000, 3, 32, 32)
    assert test.x.shape == (2_000, 3, 32, 32)
    assert train.x.dtype == torch.uint8
    assert train.y.dtype == torch.int64
    # The first and last values of the first training image, as its authors' page has them.
    assert train.x[0, :, 0, 0].tolist() == [59, 62, 63]
    assert train.x[0, :, -1, -1].tolist() == [123, 92, 72]
    assert train.y[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    assert test.y[:4].tolist() == [3, 8, 8, 0]
    assert train.x.long().sum((0, 2, 3)).tolist() == [1288517123, 1262189222, 1167674233]
    digest = hashlib.sha256(test.x.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    assert digest.hexdigest().startswith("4946cb5ae9a2c68e")


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


@pytest.fixture
def cifar10_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path))
    shutil.copytree(DATA / "cifar10", tmp_path / "cifar10")
    return tmp_path / "cifar10"


def test_a_damaged_cifar10_is_an_error_and_never_a_reason_to_look_further(cifar10_copy):
    file = cifar10_copy / "test_2000.webp"
    flip_a_bit(file)
    with pytest.raises(ValueError, match=r"test_2000.webp is damaged: its SHA-256 is"):
        vaelib.data.cifar10()
    file.unlink()
    with pytest.raises(FileNotFoundError, match="has no test_2000.webp; expected train_10000"):
        vaelib.data.cifar10()


def cifar_batches(folder):
    """A tiny set in torchvision's form; its MD5s are not the published ones."""
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / "cifar-10-batches-py" / name).write_bytes(b"not a pickle that anybody opens")


def test_the_whole_cifar10_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(vaelib.data, "_places", lambda root: [tmp_path])
    monkeypatch.setattr(vaelib.data, "cache", lambda root=None: tmp_path / "cache")
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")  # nobody listens there
    with pytest.raises(OSError, match="could not be downloaded to .*set VAELIB_DATA"):
        vaelib.data.cifar10(subset=False)
    cifar_batches(tmp_path)
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged or not whole"):
        vaelib.data.cifar10()


def test_a_whole_set_is_read_and_its_part_is_ours(tmp_path, monkeypatch):
    whole = tmp_path / "cifar10"
    whole.mkdir()
    files = {}
    labels = np.arange(100, dtype=np.uint8)
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 256, (6, 100, 32, 32, 3), dtype=np.uint8)  # six mosaics of 100 tiles
    for name in vaelib.data.CIFAR10_FULL:
        file = whole / name
        if name.endswith(".webp"):
            tiles = batches[5 if "test" in name else int(name[11]) - 1]
            page = tiles.reshape(1, 100, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(32, 3200, 3)
            Image.fromarray(page).save(file, lossless=True, exact=True)
        else:
            np.save(file, np.tile(labels, 5) if "train" in name else labels)
        files[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(vaelib.data, "CIFAR10_FULL", files)
    monkeypatch.setattr(vaelib.data, "_places", lambda root: [tmp_path])
    train, test = vaelib.data.cifar10(subset=False)
    expected = torch.from_numpy(batches[:5].reshape(500, 32, 32, 3)).permute(0, 3, 1, 2)
    assert torch.equal(train.x, expected)
    assert torch.equal(test.x, torch.from_numpy(batches[5]).permute(0, 3, 1, 2))
    assert train.y.tolist() == labels.tolist() * 5
    part, _ = vaelib.data.cifar10()
    assert torch.equal(part.x, expected)  # of a set this small, all


def test_the_faces_are_those_that_scikit_learn_has():
    x, _ = vaelib.data.olivetti()
    assert x.shape == (400, 1, 64, 64)
    assert x.dtype == torch.uint8
    # What fetch_olivetti_faces gives: the first values of the first face, and the mean.
    floats = x.double() / 242
    assert floats.max() == 1
    assert floats[0, 0, 0, :3].tolist() == pytest.approx([0.30991736, 0.3677686, 0.41735536])
    assert floats.mean().item() == pytest.approx(0.54704, abs=1e-5)
    digest = hashlib.sha256(x.numpy().tobytes())
    assert digest.hexdigest().startswith("a3f75007cc103363")


def test_ten_faces_a_person_person_after_person():
    _, y = vaelib.data.olivetti()
    assert y.shape == (400, 3)
    assert y.dtype == torch.int64
    subject, eyeglasses, facial_hair = y.unbind(1)
    assert torch.equal(subject, torch.arange(40).repeat_interleave(10))
    assert eyeglasses.bincount().tolist() == [281, 119]
    assert facial_hair.bincount().tolist() == [310, 90]
    hair = facial_hair.view(40, 10)
    assert (hair == hair[:, :1]).all()  # judged once a person
    assert hair[:, 0].nonzero().flatten().tolist() == [6, 10, 13, 15, 16, 24, 25, 27, 36]
    worn = eyeglasses.view(40, 10).sum(1)  # never by 25, always by 8
    assert worn.bincount().tolist() == [25, 0, 1, 1, 0, 2, 0, 0, 3, 0, 8]
    assert (eyeglasses * facial_hair).sum() == 41


@pytest.fixture
def olivetti_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path))
    shutil.copytree(DATA / "olivetti", tmp_path / "olivetti")
    return tmp_path / "olivetti"


@pytest.mark.parametrize("name", ["faces.webp", "labels.npy"])
def test_a_damaged_face_is_an_error_and_never_a_reason_to_look_further(olivetti_copy, name):
    file = olivetti_copy / name
    flip_a_bit(file)
    with pytest.raises(ValueError, match=rf"{name} is damaged: its SHA-256 is"):
        vaelib.data.olivetti()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no {name}; expected faces.webp and labels"):
        vaelib.data.olivetti()


def test_a_folder_that_is_given_comes_before_all_others(olivetti_copy, tmp_path):
    given = tmp_path / "given"
    (olivetti_copy / "labels.npy").write_bytes(b"no")
    shutil.copytree(DATA / "olivetti", given / "olivetti")
    assert torch.equal(vaelib.data.olivetti(given).y[:, 0].bincount(), torch.full((40,), 10))


def test_without_the_faces_the_error_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(vaelib.data, "_places", lambda root: [tmp_path])
    with pytest.raises(FileNotFoundError, match="not downloaded; .* copy .* set VAELIB_DATA"):
        vaelib.data.olivetti()


def test_dequantized_pixels_keep_their_value_and_stay_below_one():
    x = torch.arange(256, dtype=torch.uint8).repeat(200).view(-1, 1, 16, 16)
    state = torch.get_rng_state()
    y = vaelib.data.dequantize(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal((y * 256).floor().to(torch.uint8), x)
    assert 0 <= y.min() < y.max() < 1
    fraction = y.double() * 256 - x
    assert abs(fraction.mean() - 0.5) < 4 * (1 / 12 / x.numel()) ** 0.5
    assert torch.equal(y, vaelib.data.dequantize(x))
    assert not torch.equal(y, vaelib.data.dequantize(x, seed=1))
    with pytest.raises(TypeError, match="got torch.float32; expected uint8"):
        vaelib.data.dequantize(y)
