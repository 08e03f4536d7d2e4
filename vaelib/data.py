"""Data: found offline first, checked before use, kept as uint8.

`mnist` looks in the folder given, then in $VAELIB_DATA, then in the repository's `data/`, then in
the user's cache, and downloads last. SHA-256 is checked before a byte is used.
"""

import gzip
import hashlib
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


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., expected {sha256[:12]}...; "
            "remove it and fetch it again."
        )
    return content


__all__ = ["Images", "binarize", "mnist"]
