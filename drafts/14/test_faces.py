"""Faces: each factor does what its name says, and nothing else."""

import pytest
import torch

from vaelib.faces import FACTORS, SWITCHES, faces, random_faces


def portraits(**factors):
    """int64 [n, 64, 64] of 0 to 255: all factors 0 but these, numbers or [n]."""
    columns = [torch.as_tensor(factors.get(name, 0.0)).float() for name in FACTORS]
    y = torch.stack(torch.broadcast_tensors(*columns), -1)
    return faces(y.reshape(-1, len(FACTORS)))[:, 0].long()


def change(name, low, high, **factors):
    """Where that factor, moved from low to high, changes grey by more than 8 of 255."""
    low, high = (portraits(**factors, **{name: value}) for value in (low, high))
    return (low - high).abs() > 8


def settings(**factors):
    """Every combination of these factors' values."""
    grid = torch.cartesian_prod(*(torch.tensor(values) for values in factors.values()))
    return dict(zip(factors, grid.unbind(1)))


def test_portraits_know_their_factors():
    images = random_faces(20)
    assert images.x.shape == (20, 1, 64, 64) and images.x.dtype == torch.uint8
    assert images.y.shape == (20, len(FACTORS)) and images.y.dtype == torch.float32
    assert torch.equal(faces(images.y), images.x)
    assert images.x.amin() < 40 and images.x.amax() > 215  # the grey scale is used


def test_a_seed_is_a_set_and_the_callers_random_state_stays():
    before = torch.get_rng_state()
    first = random_faces(20, seed=1)
    assert torch.equal(first.x, random_faces(20, seed=1).x)
    assert not torch.equal(first.y, random_faces(20, seed=2).y)
    assert torch.equal(before, torch.get_rng_state())


def test_a_face_does_not_hang_on_those_beside_it():
    images = random_faces(19)  # more than a chunk
    assert torch.equal(faces(images.y[17:]), images.x[17:])


def test_small_ones_are_the_means_of_large_ones():
    y = random_faces(5).y
    small, large = faces(y, size=32).float(), faces(y).float()
    assert small.shape == (5, 1, 32, 32)
    mean = torch.nn.functional.avg_pool2d(large, 2)
    assert (small - mean).abs().max() <= 1  # both were rounded


def test_a_mirror_image_has_the_opposite_pose_and_light():
    y = random_faces(20).y
    opposite = y.clone()
    for name in ("pose", "light"):
        opposite[:, FACTORS.index(name)] *= -1
    # To the bit on one machine; a sum in another order may round differently.
    assert (faces(y).int() - faces(opposite).flip(-1).int()).abs().max() <= 1
    assert not torch.equal(faces(y), faces(y).flip(-1))


@pytest.mark.parametrize("name", FACTORS)
def test_each_factor_moves_every_face(name):
    y = random_faces(30, seed=3).y
    low, high = y.clone(), y.clone()
    low[:, FACTORS.index(name)], high[:, FACTORS.index(name)] = -(name not in SWITCHES), 1
    moved = (faces(low).int() - faces(high).int()).abs() > 8
    assert moved.flatten(1).sum(1).min() >= 25  # pixels


@pytest.mark.parametrize(
    "name, low, rows",
    [
        ("glasses", 0, slice(18, 35)),
        ("facial_hair", 0, slice(22, 60)),
        ("smile", -1, slice(28, 52)),
        ("eye_distance", -1, slice(16, 36)),
        ("brows", -1, slice(14, 27)),
        ("nose", -1, slice(22, 42)),
    ],
)
def test_a_feature_changes_its_own_rows_alone(name, low, rows):
    anywhere = settings(pose=[-1, 0, 1], light=[-1, 0, 1])
    moved = change(name, low, 1, **anywhere).any(2)
    assert moved[:, rows].any(1).all()
    moved[:, rows] = False
    assert not moved.any()


def test_the_wall_behind_keeps_its_grey():
    x = random_faces(50, seed=5).x
    assert (x[:, 0, :, 0].float().std(0)[:40] == 0).all()


@pytest.mark.parametrize("name, pixels", [("glasses", 120), ("facial_hair", 300)])
def test_a_switch_shows_on_every_skin_under_all_hair(name, pixels):
    ends = [-1, 1]
    everyone = settings(skin=ends, hair_tone=ends, hair_length=ends, pose=ends, light=ends)
    assert change(name, 0, 1, **everyone).sum((1, 2)).min() > pixels


def test_the_brighter_half_is_where_the_light_comes_from():
    left, right = portraits(light=torch.tensor([-1, 1]))[:, 10:50].float().chunk(2, 2)
    brighter = right.mean((1, 2)) - left.mean((1, 2))
    assert brighter[0] < -20 and brighter[1] > 20


def test_a_turn_takes_the_eyes_along():
    """Where eye distance moves the picture, the eyes are."""
    eyes = change("eye_distance", -1, 1, pose=torch.linspace(-1, 1, 5)).sum(1).float()
    column = eyes @ torch.arange(64.0) / eyes.sum(1)
    assert (column.diff() > 3).all()


@pytest.mark.parametrize(
    "row, words",
    [
        ([0.5] + [0.0] * 11, "Face 0 has glasses 0.5; expected 0 or 1"),
        ([0.0, -1.0] + [0.0] * 10, "Face 0 has facial_hair -1; expected 0 or 1"),
        ([0.0, 0.0, 1.5] + [0.0] * 9, "Face 0 has smile 1.5; expected a number from -1 to 1"),
        ([0.0] * 11 + [float("nan")], "Face 0 has nose nan; expected a number from -1 to 1"),
        ([0.0] * 11, r"shape \[1, 11\]; expected \[N, 12\], a row a face: glasses, "),
    ],
)
def test_bad_factors_get_a_sentence(row, words):
    with pytest.raises(ValueError, match=words):
        faces([row])


def test_bad_sizes_and_counts_get_a_sentence():
    with pytest.raises(ValueError, match="size 28; expected 64 or 32"):
        faces(torch.zeros(1, 12), size=28)
    with pytest.raises(ValueError, match="n = 0; expected at least 1"):
        random_faces(0)
