"""Sprites: like the real ones, the same everywhere, and drawn only when asked for.

`dsprites_frames.npz`, beside this file, holds 258 frames of dSprites as bits, with the classes of
their factors. They were cut from the animation `dsprites.gif` of
https://github.com/google-deepmind/dsprites-dataset, commit
fa310c66517cfc1939d77fe17c725154efc97127 (Matthey, Higgins, Hassabis & Lerchner, 2017), and are
under the Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vaelib
from vaelib.data import sprites
from vaelib.sprites import FACTORS, draw

MIDDLE = [0, 2, 5, 0, 16, 16]


def sprite(**classes):
    """One picture, {0, 1} float64 [64, 64]: a heart in the middle but for these classes."""
    row = [classes.get(name, middle) for name, middle in zip(FACTORS, MIDDLE)]
    return draw([row])[0, 0].double() / 255


def test_real_frames_come_out_the_same():
    with np.load(Path(__file__).with_name("dsprites_frames.npz")) as real:
        classes, frames = real["latents_classes"], real["imgs"]
    assert frames.shape == (258, 64, 64)
    wrong = (draw(classes)[:, 0].numpy() // 255 != frames).sum((1, 2))
    assert (wrong > 0).sum() <= 1
    assert wrong.sum() <= 2  # of 1,056,768 pixels


def test_pictures_are_black_and_white_and_know_their_factors():
    images = sprites(50)
    assert images.x.shape == (50, 1, 64, 64) and images.x.dtype == torch.uint8
    assert set(images.x.unique().tolist()) == {0, 255}
    assert images.y.shape == (50, 6) and images.y.dtype == torch.int64
    assert torch.equal(draw(images.y), images.x)
    assert torch.equal(vaelib.data.binarize(images), images.x / 255)


def test_no_sprite_comes_twice():
    assert math.prod(FACTORS.values()) == 737_280
    # With replacement, some 17 pairs were alike.
    assert len(sprites(5000).y.unique(dim=0)) == 5000


def test_small_ones_are_the_means_of_large_ones():
    small, large = sprites(60, size=32), sprites(60)
    assert small.x.shape == (60, 1, 32, 32) and small.x.dtype == torch.uint8
    assert torch.equal(small.y, large.y)
    assert torch.equal(small.x, (F.avg_pool2d(large.x.double(), 2) + 0.5).to(torch.uint8))
    assert set(small.x.unique().tolist()) == {0, 64, 128, 191, 255}


def test_every_sprite_lies_inside_the_picture():
    corners = list(itertools.product([0], range(3), [5], range(40), [0, 31], [0, 31]))
    x = draw(corners)
    assert not x[..., [0, -1], :].any() and not x[..., [0, -1]].any()


@pytest.mark.parametrize("name", ["shape", "scale", "orientation", "x", "y"])
def test_each_factor_moves_the_picture(name):
    # orientation's last class is its first again
    last = 10 if name == "orientation" else FACTORS[name] - 1
    assert (sprite(**{name: 0}) != sprite(**{name: last})).sum() > 20


@pytest.mark.parametrize("shape", range(3))
def test_a_whole_turn_is_none(shape):
    assert torch.equal(sprite(shape=shape, orientation=39), sprite(shape=shape, orientation=0))


def test_shapes_have_their_symmetries_at_every_angle():
    # At x = y = 0 the centre is where four pixels meet, so that a quarter turn keeps the grid.
    square, ellipse, heart = (
        draw([[0, shape, 5, k, 0, 0] for k in range(40)])[:, 0, :32, :32] for shape in range(3)
    )
    assert torch.equal(square, square.rot90(1, (1, 2)))  # a period of 90 degrees
    assert torch.equal(ellipse, ellipse.rot90(2, (1, 2)))  # of 180
    assert not torch.equal(ellipse, ellipse.rot90(1, (1, 2)))
    assert torch.equal(heart.flip(2), heart.flip(0))  # the mirror image turns the other way
    assert not torch.equal(heart, heart.rot90(2, (1, 2)))


@pytest.mark.parametrize("shape", [0, 1])
def test_the_centre_of_mass_follows_the_position(shape):
    pixels = torch.arange(64) + 0.5
    for place in range(32):
        picture = sprite(shape=shape, orientation=7, x=place, y=31 - place)
        across, down = picture.sum(0) @ pixels.double(), picture.sum(1) @ pixels.double()
        # A picture of some 300 pixels rounds its centre to about a tenth of one.
        assert (across / picture.sum()).item() == pytest.approx(16 + 32 * place / 31, abs=0.15)
        assert (down / picture.sum()).item() == pytest.approx(48 - 32 * place / 31, abs=0.15)


def test_area_grows_with_the_square_of_the_scale():
    exact = {0: 4 * 9.598**2, 1: math.pi * 12.766 * 7.214}
    for shape, area in exact.items():
        for scale in range(6):
            inked = draw([[0, shape, scale, k, 5, 9] for k in range(39)]) == 255
            mean = inked.sum((1, 2, 3)).double().mean().item()
            assert mean == pytest.approx(area * (0.5 + 0.1 * scale) ** 2, rel=0.01)


@pytest.mark.parametrize(
    "factors, error, words",
    [
        ([[0, 3, 0, 0, 0, 0]], ValueError, "Sprite 0 has shape 3; expected a class from 0 to 2"),
        ([MIDDLE, [0, 0, 0, -1, 0, 0]], ValueError, "Sprite 1 has orientation -1; .* 0 to 39"),
        ([[1, 0, 0, 0, 0, 0]], ValueError, "has color 1; expected a class from 0 to 0"),
        ([[2, 5, 0, 16, 16]], ValueError, r"shape \[1, 5\]; expected \[N, 6\]"),
        (MIDDLE, ValueError, r"shape \[6\]; expected \[N, 6\]"),
        ([[0.0, 2.0, 1.0, 0.5, 0.5, 0.5]], TypeError, "float32; expected classes, int64"),
    ],
)
def test_bad_factors_get_a_sentence(factors, error, words):
    with pytest.raises(error, match=words):
        draw(factors)


@pytest.mark.parametrize("n", [0, 737_281])
def test_bad_counts_get_a_sentence(n):
    with pytest.raises(ValueError, match="expected 1 to 737,280"):
        sprites(n)


def test_no_factors_are_no_pictures():
    assert draw(torch.empty(0, 6, dtype=torch.int64)).shape == (0, 1, 64, 64)
    assert draw(torch.empty(0, 6, dtype=torch.int64), size=32).shape == (0, 1, 32, 32)


def test_bad_sizes_get_a_sentence():
    with pytest.raises(ValueError, match="size is 28; expected 64 or 32"):
        sprites(3, size=28)


def test_the_function_stands_in_data_and_the_module_in_the_package():
    assert vaelib.data.sprites is vaelib.sprites.sprites
    assert vaelib.data.faces is vaelib.faces.faces
