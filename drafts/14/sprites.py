"""Sprites: dSprites-like pictures, drawn from their factors whenever they are asked for.

dSprites is all 737,280 combinations of six factors (Matthey, Higgins, Hassabis & Lerchner, 2017,
https://github.com/google-deepmind/dsprites-dataset). Its file is not read here: the outlines below
are fitted to the 258 real frames of `data/dsprites_reference`, where 257 come out the same and one
differs by 2 pixels. Call a set drawn this way dSprites-like, not dSprites.

Introduced in book/models/14_disentanglement.ipynb.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .arrays import Images

# dSprites' order and names. Orientation 39 is orientation 0 again: 2 pi. Orientation turns
# counter-clockwise, x runs to the right, y down.
FACTORS = {"color": 1, "shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
SIZE = 64  # pixels a side
REACH = 13  # pixels: what no outline leaves, at any angle
CHUNK = 128  # sprites at a time, so that what is in between stays in the CPU's cache


def sprites(factors: Any) -> Tensor:
    """Pictures of these factors: int64 [N, 6] -> uint8 [N, 1, 64, 64], 0 and 255.

    The white shape has scale 0.5 to 1 and turns by 2 pi / 39 a class; its centre moves from pixel
    16 to pixel 48. A pixel is on where its centre is inside the outline. The same factors give
    the same bits everywhere, and nothing is kept: all 737,280 would take 3 GB.

    Args:
        factors: classes, in the order of `FACTORS`: color (always 0), shape (0 square, 1 ellipse,
            2 heart), scale, orientation, x, y. Whole numbers, anything `torch.as_tensor` takes.

    Raises:
        TypeError: for factors that are no whole numbers.
        ValueError: for factors of another shape, or outside their range.

    Example:
        >>> import torch, vaelib
        >>> heart = vaelib.sprites.sprites([[0, 2, 5, 0, 16, 16]])
        >>> heart.shape, (heart == 255).sum().item()
        (torch.Size([1, 1, 64, 64]), 226)
    """
    factors = _checked(factors)
    x = torch.zeros(len(factors), 1, SIZE, SIZE, dtype=torch.uint8, device=factors.device)
    for shape, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
        for rows in torch.nonzero(factors[:, 1] == shape)[:, 0].split(CHUNK):
            _draw(x, rows, factors[rows], inside)
    return x


def random_sprites(n: int, seed: int = 0) -> Images:
    """n different sprites, each combination as likely as any: x uint8 [n, 1, 64, 64], y [n, 6].

    None comes twice, so slices of what is returned share none. The caller's random state is left
    as it was.

    Args:
        n: how many, at most 737,280.
        seed: of the choice.

    Raises:
        ValueError: unless n is in 1 to 737,280.

    Example:
        >>> import vaelib
        >>> vaelib.sprites.random_sprites(1000)
        Images(x: uint8 [1000, 1, 64, 64], 0 to 255; y: int64 [1000, 6], 0 to 39)
    """
    total = math.prod(FACTORS.values())
    if not 1 <= n <= total:
        raise ValueError(
            f"random_sprites got n = {n}; expected 1 to {total:,}, the number of different sprites."
        )
    index = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n]
    factors = torch.stack(torch.unravel_index(index, tuple(FACTORS.values())), -1)
    return Images(sprites(factors), factors)


def _checked(factors: Any) -> Tensor:
    factors = torch.as_tensor(factors)
    if factors.is_floating_point() or factors.is_complex() or factors.dtype == torch.bool:
        raise TypeError(f"The factors are {factors.dtype}; expected classes, int64: convert them.")
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS):
        raise ValueError(
            f"The factors have shape {list(factors.shape)}; expected [N, {len(FACTORS)}], a row a "
            f"sprite, of classes for {', '.join(FACTORS)}; color is always 0."
        )
    factors = factors.to(torch.int64)
    sizes = torch.tensor(list(FACTORS.values()), device=factors.device)
    outside = ((factors < 0) | (factors >= sizes)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        name, size = list(FACTORS.items())[column]
        raise ValueError(
            f"Sprite {row} has {name} {factors[row, column]}; expected a class from 0 to "
            f"{size - 1}: give the number of the step, not its value."
        )
    return factors


def _draw(
    x: Tensor, rows: Tensor, factors: Tensor, inside: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Draw sprites of one shape into x[rows], each in a window around its centre.

    In float64, where no pixel lies so near an outline that machines could differ.
    """
    scale, angle, *centre = factors[:, 2:].double().unbind(-1)
    scale, angle = (0.5 + 0.1 * scale)[:, None], (angle * (2 * math.pi / 39))[:, None]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    window = torch.arange(-REACH, REACH + 1, device=x.device)
    centre_x, centre_y = (16 + 32 / 31 * c[:, None] for c in centre)
    column, row = (c.floor().long() + window for c in (centre_x, centre_y))  # [n, window]
    dx, dy = column + 0.5 - centre_x, row + 0.5 - centre_y
    u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]  # [n, window, window], the shape upright
    v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
    ink = inside(u, v).to(torch.uint8) * 255
    x[rows[:, None, None], 0, row[:, :, None], column[:, None, :]] = ink


# Outlines at scale 1, in pixels from the centre, v down ----------------------------------------


def _in_square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) < 9.598


def _in_ellipse(u: Tensor, v: Tensor) -> Tensor:
    return (u / 12.766).square() + (v / 7.214).square() < 1


def _in_heart(u: Tensor, v: Tensor) -> Tensor:
    """Inside u = 9.594 sin^3 a, -v = 0.662 (13 cos a - 5 cos 2a - 2 cos 3a - cos 4a) + 1.436.

    Each u has two v, of cos a = +c and -c. In q = c^2, what is even in c lies midway between
    them, and what is odd is half their distance.
    """
    q = 1 - (u.abs() / 9.5937).pow(2 / 3)  # below 0 beside the heart
    middle, half = 4 - 2 * q - 8 * q.square(), q.clamp(min=0).sqrt() * (19 - 8 * q)
    return ((v + 1.43589) / -0.66219 - middle).abs() < half
