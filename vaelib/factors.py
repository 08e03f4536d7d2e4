"""Factors: what pictures that are drawn from known classes have in common, sprites and faces.

Introduced in book/models/14_disentanglement.ipynb.
"""

from typing import Any

import torch
from torch import Tensor

SIZE = 64  # pixels a side, as drawn


def check_factors(factors: Any, sizes: dict[str, int], kind: str) -> Tensor:
    """Classes as int64 [N, F]; an error that names the one of this kind that cannot be drawn.

    sizes: each factor's number of classes.
    """
    factors = torch.as_tensor(factors)
    if factors.is_floating_point() or factors.is_complex() or factors.dtype == torch.bool:
        raise TypeError(
            f"The factors are {str(factors.dtype).removeprefix('torch.')}; expected classes, "
            "int64: give whole numbers, such as factors.long()."
        )
    if factors.dim() != 2 or factors.shape[1] != len(sizes):
        raise ValueError(
            f"The factors have shape {list(factors.shape)}; expected [N, {len(sizes)}], a row a "
            f"{kind}: {', '.join(sizes)}."
        )
    factors = factors.to(torch.int64)
    classes = torch.tensor(list(sizes.values()), device=factors.device)
    outside = ((factors < 0) | (factors >= classes)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        name, count = list(sizes.items())[column]
        raise ValueError(
            f"{kind.capitalize()} {row} has {name} {factors[row, column]}; expected a class from "
            f"0 to {count - 1}: give the number of the step, not its value."
        )
    return factors


def check_size(size: int) -> None:
    """ValueError for a size in which nothing is drawn."""
    if size not in (SIZE, SIZE // 2):
        raise ValueError(
            f"size is {size}; expected {SIZE} or {SIZE // 2} pixels a side: resize from {SIZE} for "
            "others."
        )


def at_size(x: Tensor, size: int) -> Tensor:
    """Pictures, uint8 [n, 64, 64], at 64 or 32: the mean of each 2 x 2, rounded, a half up."""
    if size == SIZE:
        return x
    x = x.to(torch.int16)  # whole numbers: the same bits everywhere, and fast
    x = x[:, ::2] + x[:, 1::2]
    x = x[:, :, ::2] + x[:, :, 1::2]
    return ((x + 2) >> 2).to(torch.uint8)
