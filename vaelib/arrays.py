"""Arrays: what data look like in memory, how they become tensors, and how they are checked.

Introduced in book/foundations/05_first_vae.ipynb.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from .distributions import is_bernoulli, support_of


@dataclass(frozen=True, repr=False)
class Images:
    """Examples and their labels; slices are `Images` again, and ``x, y = images`` unpacks them.

    Attributes:
        x: [N, ...], such as uint8 [N, C, H, W].
        y: int64 [N, ...].

    Raises:
        ValueError: where x and y have not the same length.

    Example:
        >>> import torch, vaelib
        >>> images = vaelib.data.Images(torch.zeros(5, 1, 28, 28), torch.arange(5))
        >>> images[:3]
        Images(x: float32 [3, 1, 28, 28], 0 to 0; y: int64 [3], 0 to 2)
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(
                f"Images got {len(self.x)} examples and {len(self.y)} labels; expected a label for "
                "each example."
            )

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

    def __repr__(self) -> str:
        return f"Images(x: {_in_short(self.x)}; y: {_in_short(self.y)})"


def _in_short(t: Any) -> str:
    """Dtype, shape and range of an array."""
    name = str(getattr(t, "dtype", type(t).__name__)).removeprefix("torch.")
    text = f"{name} {list(np.shape(t))}"
    return f"{text}, {t.min().item():.4g} to {t.max().item():.4g}" if 0 not in np.shape(t) else text


Data = Images | Tensor | np.ndarray


def is_on_disk(data: Any) -> bool:
    """Whether data are an array-like that is read by slices: a memory map, or h5py's or zarr's."""
    if isinstance(data, np.memmap):
        return True
    alike = all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__"))
    return alike and not isinstance(data, Tensor | np.ndarray)


def as_tensor(data: Data) -> Tensor:
    """Images, a tensor or an array as a tensor: uint8 (pixels), floats, or int64 (counts, tokens).

    Booleans become floats, other integers int64; an array on disk is read. Raises TypeError for
    anything else.
    """
    if isinstance(data, Images):
        data = data.x
    if not isinstance(data, Tensor) and is_on_disk(data):
        data = np.asarray(data[0 : data.shape[0]])
    if isinstance(data, np.ndarray) and data.dtype.kind in "buif":
        data = np.ascontiguousarray(data)
        if data.dtype.kind == "u" and data.dtype != np.uint8:
            data = data.astype(np.int64)
        data = torch.from_numpy(data if data.flags.writeable else data.copy())
    if not isinstance(data, Tensor):
        what = "an array of " + str(data.dtype) if isinstance(data, np.ndarray) else type(data)
        raise TypeError(
            f"The data are {getattr(what, '__name__', what)}; expected Images, a tensor or a "
            "NumPy array of uint8 pixels, floats, or int64 counts or tokens."
            + (" Stack the data set's items first." if hasattr(data, "__getitem__") else "")
        )
    if data.dtype == torch.bool:
        return data.to(torch.get_default_dtype())
    if data.is_complex():
        raise TypeError(f"The data are {data.dtype}; expected real numbers.")
    if data.dtype == torch.uint8 or data.is_floating_point():
        return data
    return data.to(torch.int64)


def as_labels(y: Any) -> Tensor:
    """Labels as int64 [N, ...]; floats (a condition that is measured) stay. TypeError otherwise."""
    try:
        y = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"y is {type(y).__name__}; expected labels, int64 [N, ...].") from error
    if y.dim() == 0:
        raise ValueError("y is a single number; expected labels [N, ...], one for each example.")
    return y if y.is_floating_point() else y.to(torch.int64)


def scale_pixels(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 divided by 255, in the default float dtype unless told; floats stay as they are."""
    if x.dtype != torch.uint8:
        return x
    return x.to(dtype or torch.get_default_dtype()).div_(255)


def some_of(rows: Tensor, n: int) -> Tensor:
    """n rows at random, on their device; each at most once where there are enough."""
    rounds = -(-n // len(rows))
    shuffled = [torch.randperm(len(rows), device=rows.device) for _ in range(rounds)]
    return rows[torch.cat(shuffled)[:n]]


def is_grey(x: Tensor) -> bool:
    """Whether any value is neither 0 nor 1 (neither 0 nor 255 in uint8); NaN is none."""
    one = 255 if x.dtype == torch.uint8 else 1
    bits = (x == 0) | (x == one)
    return not bool((bits | x.isnan() if x.is_floating_point() else bits).all())


def binarize(x: Data, seed: int = 0, missing: bool = False) -> Tensor:
    """Draw binary pixels, x ~ Bernoulli(grey): {0., 1.}, of the same shape.

    0 and 1 stay as they are, so calling it twice is harmless. The draw is made on the CPU, so
    every device gets the same bits; the caller's random state is left as it was (Salakhutdinov &
    Murray, ICML 2008, introduced this use of MNIST).

    Args:
        x: uint8, or floats in [0, 1].
        seed: of the draw.
        missing: whether NaN is a missing pixel, and stays one.

    Raises:
        ValueError: for values outside [0, 1].

    Example:
        >>> import torch, vaelib
        >>> vaelib.data.binarize(torch.tensor([[0, 255, 0, 255]], dtype=torch.uint8))
        tensor([[0., 1., 0., 1.]])
    """
    x = as_tensor(x)
    check_grey(x, missing=missing)
    device, x = x.device, scale_pixels(x.cpu())
    if not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    ink = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < x
    bits = ink.to(x.dtype)
    return (torch.where(x.isnan(), x, bits) if missing else bits).to(device)


def dequantize(x: Data, seed: int = 0) -> Tensor:
    """Pixels of 8 bits as real numbers: (x + u) / 256, u uniform in [0, 1); floats in [0, 1).

    For a density p over such numbers, E_u log p + D log(1 / 256) is at most the log-probability
    of the pixels, so its bits can be compared with those of likelihoods over pixels (Uria, Murray
    & Larochelle, NeurIPS 2013; Theis et al., ICLR 2016, https://arxiv.org/abs/1511.01844, Section
    3.1). Drawn on the CPU, once; the caller's random state is left as it was.

    Args:
        x: uint8.
        seed: of u.

    Raises:
        TypeError: for data that are no uint8: floats have no steps to fill.

    Example:
        >>> import torch, vaelib
        >>> x = torch.tensor([[0, 255]], dtype=torch.uint8)
        >>> (vaelib.data.dequantize(x) * 256).floor()
        tensor([[  0., 255.]])
    """
    x = as_tensor(x)
    if x.dtype != torch.uint8:
        raise TypeError(f"dequantize got {x.dtype}; expected uint8 pixels, 0 to 255.")
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    # In float32 255 + u may round up to 256, which is outside.
    return ((x.cpu() + noise) / 256).clamp(max=1 - 2**-24).to(x.device)


def check_grey(x: Tensor, whole: bool = True, missing: bool = False) -> None:
    """ValueError unless x holds chances of ink: uint8 pixels, or floats in [0, 1].

    whole: whether x is all the data; a batch of black images may well have no pixel above 1.
    missing: whether NaN is allowed.
    """
    if len(x) == 0:
        raise ValueError(f"The data have shape {list(x.shape)}: no examples; expected at least 1.")
    if missing and x.is_floating_point():
        x = x.nan_to_num(0.0)
    low, high = x.min(), x.max()
    if x.dtype == torch.uint8:
        if high == 1 and whole:
            raise ValueError(
                "The data are uint8 and none is above 1; expected pixels from 0 to 255: if these "
                "are binary already, pass x.float()."
            )
    elif not (low >= 0 and high <= 1):  # also where they are NaN
        if not x.is_floating_point():
            raise TypeError(
                f"The data are {x.dtype} from {low} to {high}; a Bernoulli likelihood expects "
                "uint8 pixels, or values in [0, 1]: convert with .to(torch.uint8), or choose "
                "another likelihood."
            )
        hint = "divide by 255, or pass uint8" if high > 1 else "they are chances of ink"
        if low.isnan():
            hint = f"remove or fill the missing pixels, or {MISSING}"
        raise ValueError(
            f"The data run from {low:.4g} to {high:.4g}; a Bernoulli likelihood expects values in "
            f"[0, 1]: {hint}."
        )


MISSING = "give them to a model that says missing = True"


def check_values(x: Tensor, px_z: Distribution, missing: bool = False) -> None:
    """ValueError unless the likelihood gives every value in x a density.

    missing: whether NaN is a missing entry, and so allowed.
    """
    nan = x.isnan()
    if not bool((x.isfinite() | nan if missing else x.isfinite()).all()):
        raise ValueError(
            "x has pixels that are NaN or infinite; expected numbers: remove or fill them"
            + (f", or {MISSING}." if bool(nan.any()) else ".")
        )
    if is_bernoulli(px_z):
        if is_grey(x):
            raise ValueError(
                f"x has grey values between {x.min():.4g} and {x.max():.4g}, but a Bernoulli "
                "likelihood is over 0 and 1: draw binary pixels with vaelib.data.binarize(x), or "
                "choose another likelihood."
            )
        return
    support = support_of(px_z)
    if support is not None and not bool((support.check(x) | nan).all()):
        raise ValueError(
            f"x has values between {x.min():.4g} and {x.max():.4g}, but the likelihood is over "
            f"{support}: rescale x, or choose another likelihood."
        )


def check_shape(x: Tensor, expected: Any) -> None:
    """ValueError unless x holds examples, each of the expected shape where there is one."""
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"The data have shape {list(x.shape)}; expected [N, ...], N at least 1.")
    if expected is not None and tuple(x.shape[1:]) != tuple(expected):
        raise ValueError(
            f"The data have shape {list(x.shape)}, but the model is over {list(expected)}; "
            "expected one example to have that shape: reshape the data, or change the model."
        )


def check_data(data: Data, px_z: Distribution, whole: bool = True, missing: bool = False) -> Tensor:
    """The data (or, if not `whole`, a batch) as a tensor, checked against the likelihood's rule."""
    x = as_tensor(data)
    check_shape(x, px_z.event_shape)
    if is_bernoulli(px_z):
        check_grey(x, whole, missing)
    else:
        for rows in x.split(4096):
            check_values(scale_pixels(rows), px_z, missing)
    return x
