"""What sprites and faces have in common: pictures drawn from factors."""

import pytest
import torch

from vaelib.data import faces, sprites

pytestmark = pytest.mark.parametrize("drawn", [faces, sprites])


def test_a_seed_is_a_set_and_the_callers_random_state_stays(drawn):
    before = torch.get_rng_state()
    first, again = drawn(30, seed=1), drawn(30, seed=1)
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.equal(first.y, drawn(30, seed=2).y)
    assert torch.equal(before, torch.get_rng_state())


def test_the_callers_default_dtype_changes_no_bit(drawn):
    before = drawn(20).x
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(drawn(20).x, before)
    finally:
        torch.set_default_dtype(torch.float32)
