"""What a module lives on, and ways to look at it that leave everything as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


def tensor_like(model: nn.Module) -> Tensor:
    """A tensor of the model's device and dtype: a parameter, if it has one."""
    return next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, so that an example moves no statistics; each part back after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed torch's generators, in eval mode and without torch's validation of arguments.

    Random state, mode and validation are put back at the end.
    """
    like = tensor_like(model)
    devices = [like.device] if like.is_cuda else []
    with in_eval_mode(model), torch.random.fork_rng(devices=devices), unvalidated():
        torch.manual_seed(seed)
        yield


@contextmanager
def unvalidated() -> Iterator[None]:
    """Switch torch's look at every distribution's arguments off: for loops, which checked."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def device() -> torch.device:
    """The device to put models on: cuda where there is one, else cpu.

    Under torchrun each process gets a GPU of its own.

    Example:
        >>> import vaelib
        >>> vaelib.device().type in ("cpu", "cuda")
        True
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if rank is None else f"cuda:{rank}")


def positive_int(name: str, value: int) -> int:
    """value, if it is a whole number of at least 1; else a ValueError or TypeError with `name`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected a whole number of at least 1.")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected a whole number of at least 1.")
    return int(value)


def said(error: BaseException) -> str:
    """The first line of what an error says; its name where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
