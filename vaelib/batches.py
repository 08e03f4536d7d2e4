"""Batches for `fit`: who draws bits and noise, and who takes a process's share.

Introduced in book/foundations/06_training.ipynb.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arrays import scale_pixels
from .contract import takes_missing
from .distributions import is_bernoulli
from .modes import tensor_like
from .settings import Settings
from .sources import Resident, Streamed
from .workers import Workers


@dataclass(frozen=True)
class Batch:
    """What this process computes of a batch of `size` examples.

    weight: 1, or 0 where the share is a row that is not its own (see `Workers.share`).
    """

    x: Tensor  # [b, ...], bits drawn
    y: Tensor | None
    noise: Tensor | None  # [K, b, noise_dim]
    size: int
    weight: float

    def split(self, size: int) -> Iterator["Batch"]:
        """Parts of at most `size` rows."""
        for start in range(0, len(self.x), size):
            rows = slice(start, start + size)
            yield Batch(
                self.x[rows],
                None if self.y is None else self.y[rows],
                None if self.noise is None else self.noise[:, rows],
                self.size,
                self.weight,
            )


class Batches:
    """The batches of a run, an epoch at a time, and all the randomness that is `fit`'s own.

    The order of the examples, ink, and noise for models that take it (`noise_dim`). Every process
    draws the whole batch's and uses its own share, so that many give what one gives.
    """

    def __init__(
        self,
        source: Resident | Streamed,
        model: nn.Module,
        px_z: Distribution,
        settings: Settings,
        workers: Workers,
    ) -> None:
        self.source, self.workers = source, workers
        self.batch_size = min(settings.batch_size, len(source))
        self.num_samples = settings.num_samples
        self.per_epoch = math.ceil(len(source) / self.batch_size)
        like = tensor_like(model)
        self.dtype, self.device = like.dtype, like.device
        self.noise_dim: int | None = getattr(model, "noise_dim", None)
        self.bits = is_bernoulli(px_z)
        self.missing = takes_missing(model)
        self.orders = torch.Generator().manual_seed(settings.seed)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed + 2**31)
        self.order: tuple[Tensor, ...] = ()  # the examples of each batch of this epoch
        self.order_state = self.orders.get_state()  # from which it was drawn

    @property
    def share(self) -> int:
        """How many rows of a whole batch are this process's."""
        rows, _ = self.workers.share(self.batch_size)
        return rows.stop - rows.start

    def epoch(self, done: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, in an order of its own, but for the first `done`."""
        self.order_state = self.orders.get_state()
        order = torch.randperm(len(self.source), generator=self.orders)
        self.order = order.split(self.batch_size)
        left = self.order[done:]
        mine = [index[self.workers.share(len(index))[0]] for index in left]
        for index, (x, y) in zip(left, self.source.batches(mine)):
            share, weight = self.workers.share(len(index))
            noise = self._noise(len(index))
            x = self._ink(x, len(index), share) if self.bits else scale_pixels(x, self.dtype)
            yield Batch(x, y, None if noise is None else noise[:, share], len(index), weight)

    def _noise(self, n: int) -> Tensor | None:
        """Standard normals for the whole batch, [K, n, noise_dim]."""
        if self.noise_dim is None:
            return None
        shape = (self.num_samples, n, self.noise_dim)
        return torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.device)

    def _ink(self, grey: Tensor, n: int, share: slice) -> Tensor:
        """This process's share, its pixels drawn by its part of the whole batch's words."""
        count = n * math.prod(grey.shape[1:])
        longs = torch.empty(math.ceil(count / 4), dtype=torch.int64, device=self.device)
        longs.random_(-(2**63), None, generator=self.generator)  # all 64 bits are random
        words = longs.view(torch.int16)[:count].view(n, *grey.shape[1:])
        ink = draw_ink(grey, self.dtype, words[share])
        return torch.where(grey.isnan(), torch.nan, ink) if self.missing else ink

    def state(self) -> dict[str, Tensor]:
        """What it takes to go on in the midst of this epoch."""
        return {"order": self.order_state, "noise": self.generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave: the next `epoch` has the same order."""
        self.orders.set_state(state["order"])
        self.order_state = state["order"]
        self.generator.set_state(state["noise"])

    def end_epoch(self) -> None:
        """From here on `state` is of the next epoch."""
        self.order_state = self.orders.get_state()


def draw_ink(grey: Tensor, dtype: torch.dtype, words: Tensor) -> Tensor:
    """Binary pixels, P(ink) = grey / 255 to 2^-16, 0 and 255 exact: {0, 1} of dtype.

    grey: uint8, or numbers in [0, 1]. words: uniform int16, of the same shape: sixteen bits a
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
