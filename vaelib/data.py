"""Data sets: found offline first, checked before use, kept as uint8.

`mnist`, `fashion_mnist`, `cifar10` and `olivetti` look in the folder given, then in $VAELIB_DATA,
then in the repository's `data/`, then in the user's cache; all but `olivetti` download last.
SHA-256 is checked before a byte is used. `sprites` and `faces` are drawn when they are asked for,
from factors that are known.
"""

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arrays import Images, binarize, dequantize
from .faces import faces
from .sprites import sprites

# MNIST and Fashion-MNIST -----------------------------------------------------------------------

# Name, then SHA-256 of the .gz that torchvision knows and of the raw idx file within.
MNIST_FILES = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
FASHION_FILES = {
    "train-images-idx3-ubyte": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def mnist(root: str | Path | None = None) -> tuple[Images, Images]:
    """MNIST, train (60,000) and test (10,000): x uint8 [N, 1, 28, 28], y int64 [N].

    (LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/.)

    Args:
        root: a folder that has ``MNIST/raw/*-ubyte`` or ``.gz``, torchvision's layout.

    Returns:
        Train and test.

    Raises:
        ValueError: for a file whose SHA-256 is wrong.
        OSError: where the set is nowhere and cannot be downloaded.

    Example:
        >>> import vaelib
        >>> train, test = vaelib.data.mnist()
        >>> test
        Images(x: uint8 [10000, 1, 28, 28], 0 to 255; y: int64 [10000], 0 to 9)
    """
    return _idx_sets("MNIST", MNIST_FILES, root)


def fashion_mnist(root: str | Path | None = None) -> tuple[Images, Images]:
    """Fashion-MNIST, train (60,000) and test (10,000): x uint8 [N, 1, 28, 28], y int64 [N].

    Ten kinds of clothing, in MNIST's form (Xiao, Rasul & Vollgraf, 2017,
    https://arxiv.org/abs/1708.07747).

    Args:
        root: a folder that has ``FashionMNIST/raw/*-ubyte`` or ``.gz``, torchvision's layout.

    Returns:
        Train and test.

    Raises:
        ValueError: for a file whose SHA-256 is wrong.
        OSError: where the set is nowhere and cannot be downloaded.

    Example:
        >>> import vaelib
        >>> train, test = vaelib.data.fashion_mnist()
        >>> train
        Images(x: uint8 [60000, 1, 28, 28], 0 to 255; y: int64 [60000], 0 to 9)
    """
    return _idx_sets("FashionMNIST", FASHION_FILES, root)


def _idx_sets(
    name: str, files: dict[str, tuple[str, str]], root: str | Path | None
) -> tuple[Images, Images]:
    folder = find(f"{name}/raw", root)
    if folder is None:
        folder = _download(name, cache(root))
    train_x, train_y, test_x, test_y = (_idx(folder, file, *files[file]) for file in files)
    return (
        Images(train_x.unsqueeze(1), train_y.long()),
        Images(test_x.unsqueeze(1), test_y.long()),
    )


def _download(name: str, root: Path) -> Path:
    from torchvision import datasets

    try:
        getattr(datasets, name)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(
            f"{name} is in none of the folders that vaelib looks in, and could not be downloaded "
            f"to {root} ({reason}); expected a network, or {name}/raw with its four files: copy "
            f"them there, or set VAELIB_DATA to a folder that has {name}/raw."
        ) from error
    return root / name / "raw"


def _idx(folder: Path, name: str, sha_gz: str, sha_raw: str) -> Tensor:
    """Read one idx file, raw or .gz, its SHA-256 checked before a byte is used."""
    packed, raw = folder / f"{name}.gz", folder / name
    if packed.is_file():
        content = _checked(packed, sha_gz)
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:  # pragma: no cover - the hash is right
            raise ValueError(f"{packed} cannot be unpacked: {error}.") from error
    elif raw.is_file():
        content = _checked(raw, sha_raw)
    else:
        raise FileNotFoundError(
            f"{folder} has neither {name}.gz nor {name}; expected the set's four files: copy the "
            "missing one there, or remove the folder to have vaelib look elsewhere."
        )
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return torch.from_numpy(values.copy())


# CIFAR-10 --------------------------------------------------------------------------------------

# Our subset: images 0 to 9,999 of train and 0 to 1,999 of test, mosaics a hundred tiles wide.
CIFAR10_SUBSET = {
    "train_10000.webp": "0c540445580e2b4751a4fb5e79175f3eced765d47d186c46cf6aaa7a076c47d9",
    "train_10000_labels.npy": "ea38c21f22083329899457a6a5d4bb6836743cbfa01ee4b534e976b8b16bbb48",
    "test_2000.webp": "9d7250ac051afad2b8f8dc0c7f25d944b964de6a0b9a2404e65debd50c26c4d1",
    "test_2000_labels.npy": "238368989fcc802a82c92ac1845b6e5afed16cf999703e96a904d152ab3f5412",
}
# The whole set in the same form, a mosaic a batch.
CIFAR10_FULL = {
    "data_batch_1.webp": "33ee1170f92bf498b555fd84884f47b0fd5cf861cd8906ba0494510ca02d8860",
    "data_batch_2.webp": "f0cd79b244135a07833be96f5a711f71baf12b52ebbb0558a5e2b87a0fb99d41",
    "data_batch_3.webp": "0fc8b7a37cf952720a4edb4401b27e0ac02fc6d8ec3b7a3fc7e7065e74fb0ea8",
    "data_batch_4.webp": "3b94be3871dce4b7effe0bd85d7fea95d53946968481a5d323db7a3fbeb0ea3e",
    "data_batch_5.webp": "864b5f2f1384951903533f09e5daec38734f154bc6ec7267a7e8fb6008e3942d",
    "train_labels.npy": "fad921ba16b0efeebb54393d1351545d1fe1a357f6f81324c821e3e11b956c70",
    "test_batch.webp": "1925251749113162ebc2866d7e46840a66fa4573713aa743599fd9d0370e7362",
    "test_labels.npy": "19004b019bd095265b4ce6637c9ff979c66abcbc8e658a665f791b487cdea5eb",
}


def cifar10(root: str | Path | None = None, subset: bool = True) -> tuple[Images, Images]:
    """CIFAR-10, train and test: x uint8 [N, 3, 32, 32], y int64 [N].

    (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf.)

    Args:
        root: a folder that has ``cifar10``, mosaics in lossless WebP (data/README.md says how), or
            torchvision's ``cifar-10-batches-py``.
        subset: train 0 to 9,999 and test 0 to 1,999, wherever they are found; the repository has
            them. Otherwise the whole set, 50,000 and 10,000.

    Returns:
        Train and test.

    Raises:
        ValueError: for a file whose hash is wrong.
        OSError: where the set is nowhere and cannot be downloaded.

    Example:
        >>> import vaelib
        >>> train, test = vaelib.data.cifar10()
        >>> test
        Images(x: uint8 [2000, 3, 32, 32], 0 to 255; y: int64 [2000], 0 to 9)
    """
    for place in _places(root):
        folder = Path(place).expanduser()
        mosaics = folder / "cifar10"
        if subset and (mosaics / "train_10000.webp").is_file():
            return _cifar10_mosaics(mosaics, CIFAR10_SUBSET)
        if (mosaics / "data_batch_1.webp").is_file():
            train, test = _cifar10_mosaics(mosaics, CIFAR10_FULL)
            break
        if (folder / "cifar-10-batches-py").is_dir():
            train, test = _torchvision_cifar10(folder, download=False)
            break
    else:
        train, test = _torchvision_cifar10(cache(root), download=True)
    return (train[:10_000], test[:2_000]) if subset else (train, test)


def _cifar10_mosaics(folder: Path, files: dict[str, str]) -> tuple[Images, Images]:
    """Read and check all of `files`, in their order: train's images and labels, then test's."""
    parts: list[Images] = []
    mosaics: list[Tensor] = []
    for name, content in _contents(folder, files):
        if name.endswith(".webp"):
            mosaics.append(_tiles(content, 32, "RGB"))
        else:
            parts.append(Images(torch.cat(mosaics), _labels(content)))
            mosaics = []
    train, test = parts
    return train, test


def _torchvision_cifar10(root: Path, download: bool) -> tuple[Images, Images]:
    """What torchvision reads and checks by MD5, before it opens a pickle."""
    from torchvision.datasets import CIFAR10

    try:
        sets = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        if not download:
            raise ValueError(
                f"{root / 'cifar-10-batches-py'} is damaged or not whole ({reason}); remove it "
                "and fetch it again."
            ) from error
        raise OSError(
            "CIFAR-10 is in none of the folders that vaelib looks in, and could not be downloaded "
            f"to {root} ({reason}); expected a network, or a folder cifar10 or "
            "cifar-10-batches-py: copy it there, or set VAELIB_DATA to a folder that has it. For "
            "the first 10,000 images and the repository's data, use cifar10(subset=True)."
        ) from error
    train, test = (
        Images(torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets))
        for s in sets
    )
    return train, test


# Olivetti faces --------------------------------------------------------------------------------

# A mosaic ten tiles wide, a person a row; and a row of labels for each picture.
OLIVETTI_FILES = {
    "faces.webp": "984a54b24e0973afff4788c9f094cc049dff2ec8d0483f3d9c6578795202af7c",
    "labels.npy": "c1aa9c36f47720111076f00ab8fa2b762670e2815e662b05feafa7202e22578d",
}


def olivetti(root: str | Path | None = None) -> Images:
    """The Olivetti faces, 400: x uint8 [400, 1, 64, 64], y int64 [400, 3].

    Ten pictures each of 40 people, person after person (AT&T Laboratories Cambridge, *The Database
    of Faces*, 1992 to 1994). The columns of y are the subject, 0 to 39, then eyeglasses and facial
    hair, 0 or 1 (119 and 90 pictures). These two were read off by eye, and are no part of the
    original. There is no official split. Make one by person, as below: else each face in the test
    part has been seen in training.

    They are looked for where the other sets are, SHA-256 is checked, and there is no download: they
    come with a checkout of the book.

    Args:
        root: a folder that has ``olivetti``, a mosaic in lossless WebP and labels (data/README.md
            says how).

    Returns:
        All pictures.

    Raises:
        ValueError: for a file whose SHA-256 is wrong.
        FileNotFoundError: where the set is nowhere, or not whole.

    Example:
        >>> import vaelib
        >>> faces = vaelib.data.olivetti()
        >>> faces
        Images(x: uint8 [400, 1, 64, 64], 0 to 242; y: int64 [400, 3], 0 to 39)
        >>> held_out = faces.y[:, 0] % 4 == 3
        >>> train, test = faces[~held_out], faces[held_out]
        >>> len(train), len(test)
        (300, 100)
    """
    folder = find("olivetti", root)
    if folder is None:
        both = " and ".join(OLIVETTI_FILES)
        raise FileNotFoundError(
            "The Olivetti faces are in none of the folders that vaelib looks in, and are not "
            f"downloaded; expected a folder olivetti with {both}: copy data/olivetti from a "
            f"checkout of the book to {cache(root) / 'olivetti'}, or set VAELIB_DATA to a folder "
            "that has it."
        )
    (_, mosaic), (_, labels) = _contents(folder, OLIVETTI_FILES)
    return Images(_tiles(mosaic, 64, "L"), _labels(labels))


# Mosaics and labels ----------------------------------------------------------------------------


def _contents(folder: Path, files: dict[str, str]) -> Iterator[tuple[str, io.BytesIO]]:
    """The files of a folder, names and SHA-256, one after the other: there, and checked."""
    *others, last = files
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; expected {', '.join(others)} and {last}: copy the "
                "missing one there, or remove the folder to have vaelib look elsewhere."
            )
        yield name, io.BytesIO(_checked(folder / name, sha256))


def _tiles(mosaic: io.BytesIO, size: int, mode: str) -> Tensor:
    """A picture cut up, row by row: uint8 [N, C, size, size]."""
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(mosaic).convert(mode)))
    height, width = pixels.shape[:2]
    tiles = pixels.reshape(height // size, size, width // size, size, -1)
    return tiles.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()


def _labels(content: io.BytesIO) -> Tensor:
    return torch.from_numpy(np.load(content, allow_pickle=False)).long()


# Where data are -------------------------------------------------------------------------------


def find(name: str, root: str | Path | None = None) -> Path | None:
    """The folder `name` in the first place that has it, or None."""
    for place in _places(root):
        folder = Path(place).expanduser() / name
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    return None


def _places(root: str | Path | None) -> Iterator[str | Path]:
    if root:
        yield root
    if os.environ.get("VAELIB_DATA"):
        yield os.environ["VAELIB_DATA"]
    yield Path(__file__).resolve().parent.parent / "data"
    yield cache()


def cache(root: str | Path | None = None) -> Path:
    """Where downloads go: the folder given, else the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    import pooch

    return Path(pooch.os_cache("vaelib"))


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., expected {sha256[:12]}...; "
            "remove it and fetch it again."
        )
    return content


__all__ = [
    "Images",
    "binarize",
    "cifar10",
    "dequantize",
    "faces",
    "fashion_mnist",
    "mnist",
    "olivetti",
    "sprites",
]
