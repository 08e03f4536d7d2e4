"""Faces: each factor does what its name says, and nothing else."""

import pytest
import torch
from torch.nn import functional as F

import vaelib
from vaelib.data import faces
from vaelib.faces import FACTORS, draw

NAMES = list(FACTORS)
MIDDLE = {name: 10 if classes == 21 else 0 for name, classes in FACTORS.items()}
LAST = {name: classes - 1 for name, classes in FACTORS.items()}
ENDS = [0, 20]  # of a dial


def portraits(**factors):
    """int64 [n, 64, 64] of 0 to 255: dials in the middle, no switches but these, numbers or [n]."""
    columns = [torch.as_tensor(factors.get(name, MIDDLE[name])) for name in FACTORS]
    y = torch.stack(torch.broadcast_tensors(*columns), -1)
    return draw(y.reshape(-1, len(FACTORS)))[:, 0].long()


def change(name, low, high, **factors):
    """Where that factor, moved from low to high, changes grey by more than 8 of 255."""
    low, high = (portraits(**factors, **{name: value}) for value in (low, high))
    return (low - high).abs() > 8


def settings(**factors):
    """Every combination of these factors' values."""
    grid = torch.cartesian_prod(*(torch.tensor(values) for values in factors.values()))
    return dict(zip(factors, grid.unbind(1)))


def test_portraits_know_their_factors():
    images = faces(20)
    assert images.x.shape == (20, 1, 64, 64) and images.x.dtype == torch.uint8
    assert images.y.shape == (20, 12) and images.y.dtype == torch.int64
    assert torch.equal(draw(images.y), images.x)
    assert images.x.amin() < 40 and images.x.amax() > 215  # the grey scale is used


def test_a_face_does_not_hang_on_those_beside_it():
    images = faces(19)  # more than a chunk
    assert torch.equal(draw(images.y[17:]), images.x[17:])


def test_small_ones_are_the_means_of_large_ones():
    y = faces(5).y
    small, large = draw(y, size=32), draw(y)
    assert small.shape == (5, 1, 32, 32) and small.dtype == torch.uint8
    assert torch.equal(small, (F.avg_pool2d(large.double(), 2) + 0.5).to(torch.uint8))
    assert torch.equal(faces(5, size=32).x, small)


@pytest.mark.parametrize("size", [64, 32])
def test_a_mirror_image_has_the_opposite_pose_and_light(size):
    y = faces(40, seed=8).y
    opposite = y.clone()
    for name in ("pose", "light"):
        opposite[:, NAMES.index(name)] = 20 - y[:, NAMES.index(name)]
    x = draw(y, size)
    assert torch.equal(draw(opposite, size).flip(-1), x)
    assert not torch.equal(x.flip(-1), x)


@pytest.mark.parametrize("name", FACTORS)
def test_each_factor_moves_every_face(name):
    y = faces(30, seed=3).y
    low, high = y.clone(), y.clone()
    low[:, NAMES.index(name)], high[:, NAMES.index(name)] = 0, LAST[name]
    moved = (draw(low).int() - draw(high).int()).abs() > 8
    assert moved.flatten(1).sum(1).min() >= 25  # pixels


@pytest.mark.parametrize(
    "name, rows",
    [
        ("glasses", slice(18, 35)),
        ("facial_hair", slice(22, 60)),
        ("smile", slice(28, 52)),
        ("eye_distance", slice(16, 36)),
        ("brows", slice(14, 27)),
        ("nose", slice(22, 42)),
    ],
)
def test_a_feature_changes_its_own_rows_alone(name, rows):
    anywhere = settings(pose=[0, 10, 20], light=[0, 10, 20])
    moved = change(name, 0, LAST[name], **anywhere).any(2)
    assert moved[:, rows].any(1).all()
    moved[:, rows] = False
    assert not moved.any()


def test_the_wall_behind_keeps_its_grey():
    x = faces(50, seed=5).x
    assert (x[:, 0, :, 0].float().std(0)[:40] == 0).all()


@pytest.mark.parametrize("name, pixels", [("glasses", 120), ("facial_hair", 300)])
def test_a_switch_shows_on_every_skin_under_all_hair(name, pixels):
    everyone = settings(skin=ENDS, hair_tone=ENDS, hair_length=ENDS, pose=ENDS, light=ENDS)
    assert change(name, 0, 1, **everyone).sum((1, 2)).min() > pixels


def test_the_brighter_half_is_where_the_light_comes_from():
    left, right = portraits(light=torch.tensor(ENDS))[:, 10:50].float().chunk(2, 2)
    brighter = right.mean((1, 2)) - left.mean((1, 2))
    assert brighter[0] < -20 and brighter[1] > 20


def test_a_turn_takes_the_eyes_along():
    """Where eye distance moves the picture, the eyes are."""
    eyes = change("eye_distance", 0, 20, pose=torch.arange(0, 21, 5)).sum(1).float()
    column = eyes @ torch.arange(64.0) / eyes.sum(1)
    assert (column.diff() > 3).all()


def test_classes_of_a_set_are_even_and_independent(monkeypatch):
    monkeypatch.setattr(vaelib.faces, "draw", lambda factors, size: factors)  # y is enough
    y = faces(20_000).y
    for column, classes in zip(y.T, FACTORS.values()):
        counts = column.bincount(minlength=classes).double()
        assert len(counts) == classes
        expected = len(y) / classes
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < classes - 1 + 4 * (2 * (classes - 1)) ** 0.5
    correlation = y.double().T.corrcoef() - torch.eye(12)
    assert correlation.abs().max() < 4 / len(y) ** 0.5


@pytest.mark.parametrize(
    "row, error, words",
    [
        ([2] + 11 * [0], ValueError, "Face 0 has glasses 2; expected a class from 0 to 1: "),
        ([0, -1] + 10 * [0], ValueError, "Face 0 has facial_hair -1; expected a class from 0 to 1"),
        ([0, 0, 21] + 9 * [0], ValueError, "Face 0 has smile 21; expected a class from 0 to 20"),
        (11 * [0], ValueError, r"shape \[1, 11\]; expected \[N, 12\], a row a face: glasses, "),
        (12 * [0.5], TypeError, "float32; expected classes, int64: give whole numbers"),
    ],
)
def test_bad_factors_get_a_sentence(row, error, words):
    with pytest.raises(error, match=words):
        draw([row])


def test_bad_sizes_and_counts_get_a_sentence():
    with pytest.raises(ValueError, match="size is 28; expected 64 or 32"):
        draw(torch.zeros(1, 12, dtype=torch.int64), size=28)
    with pytest.raises(ValueError, match="n is 0; expected a whole number of at least 1"):
        faces(0)


def test_no_factors_are_no_pictures():
    assert draw(torch.empty(0, 12, dtype=torch.int64)).shape == (0, 1, 64, 64)
