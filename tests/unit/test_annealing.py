"""Annealed importance sampling against pPCA's exact likelihood."""

import math

import pytest
import torch
from oracles import Ppca

import vaelib
from vaelib.evaluate import ais, bidirectional


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_ais_finds_the_exact_likelihood_with_a_bad_encoder(start):
    ppca = Ppca()
    x = ppca.sample(20)
    exact = ppca.evidence().log_prob(x)
    model = ppca.vae(stretch=0.5, shift=1.0)
    found = ais(model, x, num_samples=32, num_steps=60, start=start)
    assert abs(found.mean - exact.mean().item()) < 4 * found.mc_stderr + 0.01
    naive = vaelib.log_marginal(model, x, 32)
    assert (found.values - exact).abs().max() < (naive.values - exact).abs().max()


def test_weights_are_unbiased_at_few_temperatures():
    ppca = Ppca()
    x = ppca.sample(4)
    found = ais(ppca.vae(), x, num_samples=4000, num_steps=5, num_leaps=3)
    ratio = (found.values - ppca.evidence().log_prob(x)).exp()
    error = (1 / found.ess - 1 / 4000).sqrt()
    assert ((ratio - 1).abs() < 4 * error).all()


def test_bounds_from_both_sides_close_on_the_truth():
    ppca = Ppca()
    gaps = []
    for steps in (4, 80):
        below, above = bidirectional(ppca.vae(), 100, num_samples=4, num_steps=steps)
        gaps.append(above.mean - below.mean)
    assert abs(gaps[1]) < 0.1 < gaps[0]
    truth = -ppca.evidence().entropy().item()  # of the 100 examples that the model drew
    assert abs(below.mean - truth) < 4 * below.stderr


def test_a_network_is_annealed_in_float32_and_the_seed_decides():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4)).train()
    grey = (torch.rand(5, 1, 4, 4) * 255).to(torch.uint8)
    state = torch.get_rng_state()
    found = ais(model, grey, num_steps=20)
    assert found.values.tolist() == ais(model, grey, num_steps=20).values.tolist()
    assert found.values.tolist() != ais(model, grey, num_steps=20, seed=1).values.tolist()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert math.isnan(found.last_gain)  # chains have no K-curve
    assert found.mean == pytest.approx(vaelib.log_marginal(model, grey, 5000).mean, abs=0.05)
    with pytest.raises(ValueError, match="start is 'q'; expected 'prior' or 'posterior'"):
        ais(model, grey, start="q")
