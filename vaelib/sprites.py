"""Sprites: dSprites-like pictures, drawn from their factors whenever they are asked for.

dSprites is all 737,280 combinations of six factors (Matthey, Higgins, Hassabis & Lerchner, 2017,
https://github.com/google-deepmind/dsprites-dataset). Its file is not read here: the outlines below
are fitted to 258 of its frames, where 257 come out the same and one differs by 2 pixels. Call a set
drawn this way dSprites-like, not dSprites.

Introduced in book/models/14_disentanglement.ipynb.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .arrays import Images
from .factors import SIZE, at_size, check_factors, check_size

#: How many classes each factor has, by name, in dSprites' order. One color; 3 shapes (square,
#: ellipse, heart); 6 of scale, from 0.5 to 1; 40 of orientation, counter-clockwise by 2 pi / 39
#: each, so that 39 is 0 again; 32 each of x, to the right, and y, down, from pixel 16 to 48.
FACTORS = {"color": 1, "shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
REACH = 13  # pixels: what no outline leaves, at any angle
CHUNK = 128  # sprites at a time, so that what is in between stays in the CPU's cache


def draw(factors: Any, size: int = 64) -> Tensor:
    """Pictures of these factors: int64 [N, 6] -> uint8 [N, 1, size, size], white on black.

    A pixel is on where its centre is inside the outline, so at 64 all are 0 or 255. The same
    factors give the same bits everywhere, and nothing is kept: all 737,280 would take 3 GB.

    Args:
        factors: classes, in the order of `FACTORS`; color is always 0. Whole numbers, anything
            that `torch.as_tensor` takes.
        size: pixels a side, 64 or 32; 32 is the mean of each 2 x 2 of 64, rounded, and so grey at
            the outline.

    Raises:
        TypeError: for factors that are no whole numbers.
        ValueError: for factors of another shape or outside their range, or another size.

    Example:
        >>> import vaelib
        >>> heart = vaelib.sprites.draw([[0, 2, 5, 0, 16, 16]])
        >>> heart.shape, (heart == 255).sum().item()
        (torch.Size([1, 1, 64, 64]), 226)
    """
    factors = check_factors(factors, FACTORS, "sprite")
    check_size(size)
    x = torch.empty(len(factors), 1, size, size, dtype=torch.uint8, device=factors.device)
    for shape, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
        for rows in torch.nonzero(factors[:, 1] == shape)[:, 0].split(CHUNK):
            x[rows, 0] = at_size(_pictures(factors[rows], inside), size)
    return x


def sprites(n: int, seed: int = 0, size: int = 64) -> Images:
    """n different dSprites-like sprites: x uint8 [n, 1, size, size], y int64 [n, 6].

    Every combination of the factors is as likely as any other (Matthey et al., 2017,
    https://github.com/google-deepmind/dsprites-dataset), and none comes twice, so slices of what is
    returned share none. The columns of y are those of `vaelib.sprites.FACTORS`; color, the first,
    has one class. The caller's random state is left as it was.

    Args:
        n: how many, at most 737,280.
        seed: of the choice.
        size: pixels a side, 64 or 32.

    Raises:
        ValueError: unless n is in 1 to 737,280, and for another size.

    Example:
        >>> import vaelib
        >>> vaelib.data.sprites(1000)
        Images(x: uint8 [1000, 1, 64, 64], 0 to 255; y: int64 [1000, 6], 0 to 39)
    """
    total = math.prod(FACTORS.values())
    if not 1 <= n <= total:
        raise ValueError(
            f"sprites got n = {n}; expected 1 to {total:,}, the number of different sprites."
        )
    index = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n]
    factors = torch.stack(torch.unravel_index(index, tuple(FACTORS.values())), -1)
    return Images(draw(factors, size), factors)


def _pictures(factors: Tensor, inside: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sprites of one shape, uint8 [n, 64, 64], each in a window around its centre.

    In float64, where no pixel lies so near an outline that machines could differ.
    """
    scale, angle, *centre = factors[:, 2:].double().unbind(-1)
    scale, angle = (0.5 + 0.1 * scale)[:, None], (angle * (2 * math.pi / 39))[:, None]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    window = torch.arange(-REACH, REACH + 1, device=factors.device)
    centre_x, centre_y = (16 + 32 / 31 * c[:, None] for c in centre)
    column, row = (c.floor().long() + window for c in (centre_x, centre_y))  # [n, window]
    dx, dy = column + 0.5 - centre_x, row + 0.5 - centre_y
    u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]  # [n, window, window], the shape upright
    v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
    x = torch.zeros(len(factors), SIZE, SIZE, dtype=torch.uint8, device=factors.device)
    which = torch.arange(len(factors), device=factors.device)[:, None, None]
    x[which, row[:, :, None], column[:, None, :]] = inside(u, v).to(torch.uint8) * 255
    return x


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


__all__ = ["FACTORS", "draw", "sprites"]
