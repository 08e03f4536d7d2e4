"""Data: found offline first, checked before use, kept as uint8.

`mnist` and `cifar10` look in the folder given, then in $VAELIB_DATA, then in the repository's
`data/`, then in the user's cache, and download last. SHA-256 is checked before a byte is used.
"""

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .distributions import is_bernoulli


@dataclass(frozen=True)
class Images:
    """Images and their labels: x uint8 [N, C, H, W], y int64 [N]. Slices are `Images` again."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> "Images":
        if isinstance(index, int):
            raise TypeError(
                f"Images got index {index}; expected a slice or a tensor: use x[{index}] and "
                f"y[{index}] for one image and its label."
            )
        return Images(self.x[index], self.y[index])

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as `x, y = images`."""
        return iter((self.x, self.y))


Data = Images | Tensor | np.ndarray


# Binary and floating data ----------------------------------------------------------------------


def as_tensor(data: Data) -> Tensor:
    """Images, a tensor or a NumPy array as a tensor of uint8 or floats; booleans become floats.

    Raises TypeError for anything else.
    """
    if isinstance(data, Images):
        data = data.x
    if isinstance(data, np.ndarray) and data.dtype.kind in "buif":
        data = np.ascontiguousarray(data)
        data = torch.from_numpy(data if data.flags.writeable else data.copy())
    if not isinstance(data, Tensor):
        what = "an array of " + str(data.dtype) if isinstance(data, np.ndarray) else type(data)
        raise TypeError(
            f"The data are {getattr(what, '__name__', what)}; expected Images, a tensor or a "
            "NumPy array of uint8 pixels or floats."
        )
    if data.dtype == torch.bool:
        return data.to(torch.get_default_dtype())
    if data.dtype != torch.uint8 and not data.is_floating_point():
        raise TypeError(
            f"The data are {data.dtype}; expected uint8 pixels (0 to 255) or floats: convert "
            "with .to(torch.uint8) or .float()."
        )
    return data


def scale_pixels(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 divided by 255, in the default float dtype unless told; floats stay as they are."""
    if x.dtype != torch.uint8:
        return x
    return x.to(dtype or torch.get_default_dtype()).div_(255)


def is_grey(x: Tensor) -> bool:
    """Whether any value is neither 0 nor 1 (neither 0 nor 255 in uint8)."""
    one = 255 if x.dtype == torch.uint8 else 1
    return not bool(((x == 0) | (x == one)).all())


def binarize(x: Data, seed: int = 0) -> Tensor:
    """Draw binary pixels, x ~ Bernoulli(grey): uint8 or floats in [0, 1] -> {0., 1.}, same shape.

    0 and 1 stay as they are, so calling it twice is harmless. The draw is made on the CPU, so
    every device gets the same bits; the caller's random state is left as it was. Raises
    ValueError for values outside [0, 1] (Salakhutdinov & Murray, ICML 2008, introduced this use
    of MNIST).
    """
    x = as_tensor(x)
    check_grey(x)
    device, x = x.device, scale_pixels(x.cpu())
    ink = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < x
    return ink.to(device, x.dtype)


def dequantize(x: Data, seed: int = 0) -> Tensor:
    """Pixels of 8 bits as real numbers: (x + u) / 256, u uniform in [0, 1); floats in [0, 1).

    For a density p over such numbers, E_u log p + D log(1 / 256) is at most the log-probability
    of the pixels, so its bits can be compared with those of likelihoods over pixels (Uria, Murray
    & Larochelle, NeurIPS 2013; Theis et al., ICLR 2016, https://arxiv.org/abs/1511.01844, Section
    3.1). Drawn on the CPU, once; the caller's random state is left as it was. Raises TypeError
    for data that are no uint8: floats have no steps to fill.
    """
    x = as_tensor(x)
    if x.dtype != torch.uint8:
        raise TypeError(f"dequantize got {x.dtype}; expected uint8 pixels, 0 to 255.")
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    # In float32 255 + u may round up to 256, which is outside.
    return ((x.cpu() + noise) / 256).clamp(max=1 - 2**-24).to(x.device)


def check_grey(x: Tensor, whole: bool = True) -> None:
    """ValueError unless x holds chances of ink: uint8 pixels, or floats in [0, 1].

    whole: whether x is all the data; a batch of black images may well have no pixel above 1.
    """
    if len(x) == 0:
        raise ValueError(f"The data have shape {list(x.shape)}: no examples; expected at least 1.")
    low, high = x.min(), x.max()
    if x.dtype == torch.uint8:
        if high == 1 and whole:
            raise ValueError(
                "The data are uint8 and none is above 1; expected pixels from 0 to 255: if these "
                "are binary already, pass x.float()."
            )
    elif not (low >= 0 and high <= 1):  # also where they are NaN
        hint = "divide by 255, or pass uint8" if high > 1 else "they are chances of ink"
        if low.isnan():
            hint = "remove or fill the missing pixels"
        raise ValueError(
            f"The data run from {low:.4g} to {high:.4g}; a Bernoulli likelihood expects values in "
            f"[0, 1]: {hint}."
        )


def check_values(x: Tensor, px_z: Distribution) -> None:
    """ValueError unless the likelihood gives every value in x a density."""
    if not bool(x.isfinite().all()):
        raise ValueError(
            "x has pixels that are NaN or infinite; expected numbers: remove or fill them."
        )
    if is_bernoulli(px_z):
        if is_grey(x):
            raise ValueError(
                f"x has grey values between {x.min():.4g} and {x.max():.4g}, but a Bernoulli "
                "likelihood is over 0 and 1: draw binary pixels with vaelib.data.binarize(x), or "
                "choose another likelihood."
            )
        return
    support = px_z.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is not None and not bool(support.check(x).all()):
        raise ValueError(
            f"x has values between {x.min():.4g} and {x.max():.4g}, but the likelihood is over "
            f"{support}: rescale x, or choose another likelihood."
        )


def check_data(data: Data, px_z: Distribution, whole: bool = True) -> Tensor:
    """The data (or, if not `whole`, a batch) as a tensor, checked against the likelihood's rule."""
    x = as_tensor(data)
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"The data have shape {list(x.shape)}; expected [N, ...], N at least 1.")
    if px_z.event_shape != x.shape[1:]:
        raise ValueError(
            f"The data have shape {list(x.shape)}, but the model is over {list(px_z.event_shape)}; "
            "expected one example to have that shape: reshape the data, or change the model."
        )
    if is_bernoulli(px_z):
        check_grey(x, whole)
    else:
        for rows in x.split(4096):
            check_values(scale_pixels(rows), px_z)
    return x


# MNIST -----------------------------------------------------------------------------------------

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


def mnist(root: str | Path | None = None) -> tuple[Images, Images]:
    """MNIST, train (60,000) and test (10,000): x uint8 [N, 1, 28, 28], y int64 [N].

    Reads `<root>/MNIST/raw/*-ubyte` or `.gz`, torchvision's layout. Raises ValueError for a file
    whose SHA-256 is wrong, OSError where the set is nowhere and cannot be downloaded
    (LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/).
    """
    folder = find("MNIST/raw", root)
    if folder is None:
        folder = _download_mnist(cache(root))
    train_x, train_y, test_x, test_y = (_idx(folder, name) for name in MNIST_FILES)
    return (
        Images(train_x.unsqueeze(1), train_y.long()),
        Images(test_x.unsqueeze(1), test_y.long()),
    )


def _download_mnist(root: Path) -> Path:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(
            "MNIST is in none of the folders that vaelib looks in, and could not be downloaded to "
            f"{root} ({reason}); expected a network, or MNIST/raw with its four files: copy them "
            "there, or set VAELIB_DATA to a folder that has MNIST/raw."
        ) from error
    return root / "MNIST" / "raw"


def _idx(folder: Path, name: str) -> Tensor:
    """Read one idx file, raw or .gz, its SHA-256 checked before a byte is used."""
    sha_gz, sha_raw = MNIST_FILES[name]
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
            f"{folder} has neither {name}.gz nor {name}; expected MNIST's four files: copy the "
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

    - subset: train 0 to 9,999 and test 0 to 1,999, wherever they are found; the repository has
      them. Otherwise the whole set, 50,000 and 10,000.

    Reads `<root>/cifar10`, mosaics in lossless WebP (data/README.md says how), or torchvision's
    `<root>/cifar-10-batches-py`. Raises ValueError for a file whose hash is wrong, OSError where
    the set is nowhere and cannot be downloaded (Krizhevsky, 2009,
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf).
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
    from PIL import Image

    parts: list[Images] = []
    mosaics: list[Tensor] = []
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; expected {', '.join(files)}: copy the missing one "
                "there, or remove the folder to have vaelib look elsewhere."
            )
        content = io.BytesIO(_checked(folder / name, sha256))
        if name.endswith(".webp"):
            pixels = torch.from_numpy(np.array(Image.open(content).convert("RGB")))
            tiles = pixels.unflatten(0, (-1, 32)).unflatten(2, (-1, 32))  # [rows, 32, 100, 32, 3]
            mosaics.append(tiles.permute(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
        else:
            labels = torch.from_numpy(np.load(content, allow_pickle=False)).long()
            parts.append(Images(torch.cat(mosaics), labels))
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


__all__ = ["Images", "binarize", "cifar10", "dequantize", "mnist"]
