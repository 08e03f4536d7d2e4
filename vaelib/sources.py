"""Where `fit` reads its examples: rows on the device, or read as they are needed.

Data that fit are kept on the model's device as they came (MNIST as uint8), and a batch is an
index into them. An array on disk, or any `torch.utils.data.Dataset`, is read a batch at a time.
Both give the same rows for the same order.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .arrays import Data, as_labels, as_tensor, check_data, is_on_disk
from .contract import labels_kind, labels_of, takes_missing
from .modes import tensor_like

SAMPLED = 256  # examples that stand for a data set too large to be read twice
Rows = tuple[Tensor, Tensor | None]  # x [n, ...], and labels where the model takes them


class Resident:
    """Data on the model's device, checked once, before the first step."""

    def __init__(self, data: Data, model: nn.Module) -> None:
        self.x, self.y = as_tensor(data), labels_of(model, data, training=True)
        self.model = model

    def __len__(self) -> int:
        return len(self.x)

    def first(self) -> Rows:
        """A few examples, to see what they look like."""
        return self.x[:SAMPLED], None if self.y is None else self.y[:SAMPLED]

    def check(self, px_z: Distribution) -> str:
        """Check the data against the likelihood, move them to the device; their fingerprint."""
        like = tensor_like(self.model)
        x = check_data(self.x, px_z, missing=takes_missing(self.model))
        found = _fingerprint(x, len(x))
        if self.y is not None:
            found += " " + _fingerprint(self.y, len(x))
            self.y = self.y.to(like.device)
        self.x = x.to(like.device, like.dtype if x.is_floating_point() else None)
        return found

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Rows]:
        """The rows of each index, in order."""
        sizes = [len(index) for index in indices]
        for index in torch.cat(list(indices)).to(self.x.device).split(sizes):
            yield (
                self.x.index_select(0, index),
                None if self.y is None else self.y.index_select(0, index),
            )


class Streamed:
    """Data read as they are needed, each batch checked on the CPU before it moves."""

    def __init__(self, data: Any, model: nn.Module) -> None:
        if isinstance(data, DataLoader):
            raise TypeError(
                "The data are a DataLoader; expected what it loads, since fit makes the batches: "
                "pass its .dataset, and batch_size=."
            )
        labelled = labels_kind(model) is not None
        if is_on_disk(data):
            if labelled:
                labels_of(model, data, training=True)  # it has none, and says so
        elif isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise TypeError(
                f"The data are a {type(data).__name__}, which has no length; expected a Dataset "
                "with __len__ and __getitem__, since every epoch takes a new order."
            )
        self.items = _Items(data, labelled)
        self.like, self.missing = tensor_like(model), takes_missing(model)
        self.px_z: Distribution | None = None
        if len(self) == 0:
            raise ValueError("The data set has no examples; expected at least 1.")
        few = min(len(self), SAMPLED)
        spread = torch.arange(few) * (len(self) - 1) // max(1, few - 1)
        with torch.random.fork_rng(devices=[]):  # a data set may draw at random
            torch.manual_seed(0)
            xs, ys = zip(*self.loader(spread.split(64), 0))
        self.sample = torch.cat(xs), None if ys[0] is None else torch.cat(ys)

    def __len__(self) -> int:
        return len(self.items)

    def first(self) -> Rows:
        """A few examples from all over the data, to see what they look like."""
        return self.sample

    def check(self, px_z: Distribution) -> str:
        """Check the sample against the likelihood; the fingerprint of what it stands for."""
        self.px_z = px_z
        x, y = self.sample
        for part in x.split(64):
            check_data(part, px_z, whole=False, missing=self.missing)
        return " ".join(_fingerprint(t, len(self)) for t in (x, y) if t is not None)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Rows]:
        """The rows of each index, in order, read ahead where there is a GPU to feed."""
        loader = self.loader(indices, num_workers=2 if self.like.is_cuda else 0)
        for index, (x, y) in zip(indices, loader):
            try:
                check_data(x, self.px_z, whole=False, missing=self.missing)  # type: ignore[arg-type]
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"{error} These are examples {index[:8].tolist()} and so on, a batch of "
                    f"{len(index)}."
                ) from error
            x = x.to(self.like.device, non_blocking=True)
            x = x.to(self.like.dtype) if x.is_floating_point() else x
            yield x, None if y is None else y.to(self.like.device, non_blocking=True)

    def loader(self, indices: Sequence[Tensor], num_workers: int) -> DataLoader[Any]:
        """A DataLoader of the rows of each index."""
        return DataLoader(
            self.items,
            batch_sampler=(index.tolist() for index in indices),  # a batch's numbers at a time
            num_workers=num_workers,
            collate_fn=_as_they_are,  # type: ignore[arg-type]
            pin_memory=self.like.is_cuda,
            # The caller's is not to move; another order makes a random data set draw anew.
            generator=torch.Generator().manual_seed(hash(tuple(indices[0].tolist()))),
        )


def _as_they_are(rows: Rows) -> Rows:
    return rows


class _Items(Dataset[Any]):
    """A data set of which a batch is read at once, as (x, y); what does not fit gets a sentence."""

    def __init__(self, data: Any, labelled: bool) -> None:
        self.data, self.labelled = data, labelled

    def __len__(self) -> int:
        return self.data.shape[0] if is_on_disk(self.data) else len(self.data)

    def __getitems__(self, index: list[int]) -> Rows:
        if isinstance(self.data, np.memmap):
            return as_tensor(self.data[index]), None  # fancy indexing copies: no memmap left
        if is_on_disk(self.data):
            return as_tensor(_runs(self.data, index)), None
        xs, ys = zip(*(self._parts(i, item) for i, item in zip(index, self._read(index))))
        for i, x in zip(index, xs):
            if x.shape != xs[0].shape or x.dtype != xs[0].dtype:
                raise ValueError(
                    f"Example {i} has shape {list(x.shape)} and dtype {x.dtype}, but example "
                    f"{index[0]} has {list(xs[0].shape)} and {xs[0].dtype}; expected the same for "
                    "all: crop, pad or convert in the data set."
                )
        return torch.stack(xs), as_labels(torch.stack(ys)) if self.labelled else None

    def _read(self, index: list[int]) -> Iterator[Any]:
        for i in index:
            try:
                yield self.data[i]
            except Exception as error:
                kind = OSError if isinstance(error, OSError) else ValueError
                raise kind(
                    f"The data set failed to give example {i} ({type(error).__name__}: {error}); "
                    f"expected x, or (x, y): look at dataset[{i}]."
                ) from error

    def _parts(self, i: int, item: Any) -> tuple[Tensor, Tensor | None]:
        x, *rest = item if isinstance(item, list | tuple) and item else (item,)
        x = torch.as_tensor(x) if isinstance(x, Tensor | np.ndarray | np.generic) else x
        if not isinstance(x, Tensor):
            told = f"a {type(x).__name__}"
            told += f" with {', '.join(map(str, x))}" if isinstance(x, dict) else ""
            raise TypeError(
                f"Example {i} is {told}; expected a tensor or an array, x or (x, y): let the data "
                "set return those, as with a transform such as torchvision's PILToTensor."
            )
        if not self.labelled:
            return x, None
        if not rest:
            raise ValueError(
                f"Example {i} is x alone, but the model takes labels; expected (x, y)."
            )
        return x, torch.as_tensor(rest[0])


def _runs(array: Any, index: list[int]) -> np.ndarray:
    """Rows of an array-like by slices alone, since not every one takes a list: [n, ...]."""
    order = np.argsort(index, kind="stable")
    wanted = np.asarray(index)[order]
    ends = [*(np.flatnonzero(np.diff(wanted) != 1) + 1), len(wanted)]
    starts = [0, *ends[:-1]]
    parts = [
        np.asarray(array[int(wanted[a]) : int(wanted[b - 1]) + 1]) for a, b in zip(starts, ends)
    ]
    rows = np.concatenate(parts)
    placed = np.empty_like(rows)
    placed[order] = rows
    return placed


def open_data(data: Any, model: nn.Module) -> Resident | Streamed:
    """The data as something that gives rows: read once, or a batch at a time."""
    if is_on_disk(data) or isinstance(data, Dataset | DataLoader):
        return Streamed(data, model)
    return Resident(data, model)


def _fingerprint(x: Tensor, count: int) -> str:
    content = x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return f"{[count, *x.shape[1:]]} {hashlib.sha256(content.data).hexdigest()[:16]}"
