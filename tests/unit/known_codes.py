"""Factors on a grid, and codes of them whose disentanglement is known, for tests."""

import pytest
import torch

CLASSES = [2, 3, 4, 6]


def grid(classes, repeats=1):
    """Every combination of the classes, equally often: factors that are exactly independent."""
    return torch.cartesian_prod(*[torch.arange(c) for c in classes]).repeat(repeats, 1)


FACTORS = grid(CLASSES, 10)  # 1,440 rows
STRAIGHT = FACTORS.double()[:, [2, 0, 3, 1]] * torch.tensor([1.0, -3.0, 0.1, 40.0]) + 7.0


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def halves(codes, factors):
    """Train and test, rows taken in turn at random."""
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    a, b = order.chunk(2)
    return codes[a], factors[a], codes[b], factors[b]


def of_whole(codes, factors):
    """Train and test that are the same rows, so that both are exact."""
    return codes, factors, codes, factors


ROTATION = torch.linalg.qr(noise(4, 4, seed=3))[0]
SCALED = FACTORS.double() / (torch.tensor(CLASSES) - 1) + 0.02 * noise(len(FACTORS), 4)
CODES = {
    "straight": SCALED,
    "rotated": SCALED @ ROTATION,
    "random": noise(len(FACTORS), 5, seed=1),
    "doubled": torch.cat([SCALED, SCALED[:, :1] + 0.02 * noise(len(FACTORS), 1, seed=2)], 1),
    "mixed": torch.cat([SCALED @ noise(4, 2, seed=4), SCALED[:, 2:] + 0.3 * noise(1440, 2)], 1),
}
every_code = pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
