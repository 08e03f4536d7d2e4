"""Batches for `fit`: rows of data that live on the device, or that a DataLoader brings.

Data that fit are kept on the model's device as they came (MNIST as uint8), and a batch is an
index into them. A memory-mapped array, or any `torch.utils.data.Dataset`, is read a batch at a
time. Both give the same batches for the same order.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .data import Data, check_data

SAMPLED = 256  # examples that stand for a data set too large to be read twice


class Resident:
    """Data on the model's device, checked once, before the first step."""

    def __init__(self, data: Data, px_z: Distribution, device: torch.device) -> None:
        x = check_data(data, px_z)
        self.fingerprint = _fingerprint(x, len(x))
        self.x = x.to(device)

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """The rows of each index, [b, ...], in order."""
        sizes = [len(index) for index in indices]
        for index in torch.cat(list(indices)).to(self.x.device).split(sizes):
            yield self.x.index_select(0, index)


class Streamed:
    """Data read as they are needed, each batch checked on the CPU before it moves."""

    def __init__(
        self, data: Dataset[Any] | np.memmap, px_z: Distribution, device: torch.device
    ) -> None:
        self.dataset = _Rows(data) if isinstance(data, np.memmap) else data
        self.px_z, self.device = px_z, device
        if isinstance(data, IterableDataset) or not hasattr(self.dataset, "__len__"):
            raise TypeError(
                f"The data are a {type(data).__name__}, which has no length; expected a Dataset "
                "with __len__ and __getitem__, since every epoch takes a new order."
            )
        count = len(self)
        if count == 0:
            raise ValueError("The data set has no examples; expected at least 1.")
        few = min(count, SAMPLED)
        spread = torch.arange(few) * (count - 1) // max(1, few - 1)
        with torch.random.fork_rng(devices=[]):  # a data set may draw at random
            torch.manual_seed(0)
            sample = torch.cat([self._checked(rows) for rows in self._loader(spread.split(64), 0)])
        self.fingerprint = _fingerprint(sample, count)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """The rows of each index, [b, ...], in order, read ahead where there is a GPU to feed."""
        loader = self._loader(indices, num_workers=2 if self.device.type == "cuda" else 0)
        for index, rows in zip(indices, loader):
            try:
                x = self._checked(rows)
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"{error} These are examples {index[:8].tolist()} and so on, a batch of "
                    f"{len(index)}."
                ) from error
            yield x.to(self.device, non_blocking=True)

    def _loader(self, indices: Sequence[Tensor], num_workers: int) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=(index.tolist() for index in indices),  # a batch's numbers at a time
            num_workers=num_workers,
            pin_memory=self.device.type == "cuda",
            # The caller's is not to move; another order makes a random data set draw anew.
            generator=torch.Generator().manual_seed(hash(tuple(indices[0].tolist()))),
        )

    def _checked(self, rows: Any) -> Tensor:
        x = rows[0] if isinstance(rows, list | tuple) else rows  # (images, labels)
        return check_data(x, self.px_z, whole=False)


class _Rows(Dataset[Tensor]):
    """A memory-mapped array, of which a batch is read at once."""

    def __init__(self, array: np.memmap) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitems__(self, index: list[int]) -> list[Tensor]:
        return list(torch.from_numpy(self.array[index]))  # fancy indexing copies: no memmap left


def open_data(
    data: Data | Dataset[Any], px_z: Distribution, device: torch.device
) -> Resident | Streamed:
    """The data as something that gives batches on the device."""
    if isinstance(data, np.memmap | Dataset):
        return Streamed(data, px_z, device)
    return Resident(data, px_z, device)


def draw_ink(grey: Tensor, dtype: torch.dtype, words: Tensor) -> Tensor:
    """Binary pixels, P(ink) = grey / 255 to 2^-16, 0 and 255 exact: {0, 1} of dtype.

    grey: uint8, or floats in [0, 1]. words: uniform int16, of the same shape: sixteen bits a
    pixel, a twentieth of the time that `torch.bernoulli` takes on a CPU.
    """
    if grey.dtype == torch.uint8:
        # 257 grey - 2^15 runs from the least int16 to the greatest; the greatest word is put
        # below it, so that 255 is always ink, and no word is below the least: 0 never is.
        least = torch.tensor(-(2**15), dtype=torch.int16)
        chance = torch.add(least, grey.to(torch.int16), alpha=257)
        uniform = words.clamp_(max=2**15 - 2)
    else:
        chance, uniform = grey, words.to(torch.float32).add_(2**15 + 0.5).div_(2**16)
    ink = torch.empty(grey.shape, dtype=dtype, device=grey.device)
    return torch.lt(uniform, chance, out=ink)  # seven times faster than by way of bool


def _fingerprint(x: Tensor, count: int) -> str:
    content = x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return f"{[count, *x.shape[1:]]} {hashlib.sha256(content.data).hexdigest()[:16]}"
