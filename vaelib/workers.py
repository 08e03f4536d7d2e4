"""The processes that share a training run: those that torchrun started, or this one alone.

PyTorch's DistributedDataParallel averages the gradients; here stands only who computes what.
"""

import atexit
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Workers:
    """This process's place among `size` processes, and what it does together with them."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = 0, 1, device
        if dist.is_available() and dist.is_torchelastic_launched():
            if not dist.is_initialized():
                if device.type == "cuda":
                    torch.cuda.set_device(device)
                # After a restart the store still has the addresses of processes that are gone.
                store, rank, size = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
                life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                    store=dist.PrefixStore(life, store),  # type: ignore[attr-defined]
                    rank=rank,
                    world_size=size,
                )
                atexit.register(dist.destroy_process_group)
            self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, n: int) -> tuple[slice, float]:
        """This process's slice of a batch of n, and 1; or, where n leaves it none, a row and 0.

        Every process must compute something, since the others wait for its gradient.
        """
        start, stop = self.rank * n // self.size, (self.rank + 1) * n // self.size
        return (slice(start, stop), 1.0) if stop > start else (slice(0, 1), 0.0)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)

    def no_sync(self, module: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Keep gradients here until the last part of a batch."""
        if wanted and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def add(self, totals: Tensor) -> None:
        """Sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(totals)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; on the CPU, so that no GPU is waited for."""
        if self.size > 1:
            flags = torch.tensor(float(flag))
            dist.all_reduce(flags)
            return bool(flags)
        return flag

    def copy(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.size > 1:
            for t in tensors:
                dist.broadcast(t, src=0)

    def tell(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if self.size > 1:
            values = [value]
            dist.broadcast_object_list(values, src=0, device=self.device)
            return values[0]
        return value
