"""Rate, distortion and mutual information against Gaussian channels, whose are known."""

import math

import pytest
import torch
from oracles import Ppca
from torch.distributions import Independent, Normal

import vaelib
from vaelib.evaluate import active_units, coverage, information


def test_pca_shares_its_nats_as_the_closed_form_says():
    ppca = Ppca()
    x = ppca.sample(4000)
    found = information(ppca.vae(), x)
    # x given z is a Gaussian channel, and with the exact q the aggregate posterior is the prior.
    signal = torch.eye(2, dtype=torch.float64) + ppca.W.T @ ppca.W / ppca.sigma**2
    exact = 0.5 * torch.logdet(signal).item()
    low, high = found.mutual_information
    assert found.rate == pytest.approx(exact, abs=4 * found.rate_stderr)
    assert low - 0.1 < exact < high + 0.1
    assert low <= high <= found.rate
    assert high - low < 0.1
    assert -0.1 < found.marginal_kl[0] <= found.marginal_kl[1] < 0.1
    noise = Independent(Normal(torch.zeros(5).double(), ppca.sigma), 1).entropy().item()
    assert found.distortion == pytest.approx(noise, abs=4 * found.distortion_stderr)
    assert found.elbo == pytest.approx(ppca.evidence().log_prob(x).mean().item(), abs=0.05)
    assert sum(found.kl_parts) == pytest.approx(found.rate)
    assert found.active_units == 2


def test_a_shifted_posterior_pays_the_marginal_kl():
    ppca = Ppca()
    found = information(ppca.vae(shift=0.5), ppca.sample(4000))
    # The aggregate posterior is N(0.5, I) in place of N(0, I): 2 dimensions of 0.5^2 / 2 nats.
    assert found.marginal_kl[0] - 0.06 < 0.25 < found.marginal_kl[1] + 0.06


def test_the_lower_bound_stops_at_log_n_and_the_upper_does_not():
    ppca = Ppca(num_pixels=8, latent_dim=6, sigma=0.05)
    signal = torch.eye(6, dtype=torch.float64) + ppca.W.T @ ppca.W / ppca.sigma**2
    exact = 0.5 * torch.logdet(signal).item()
    low, high = information(ppca.vae(), ppca.sample(100)).mutual_information
    assert low <= math.log(100) + 1e-9 < exact
    assert high > 0.9 * exact


def test_nothing_told_is_nothing_measured():
    inner = Ppca().vae()
    torch.nn.init.zeros_(inner.encoder.weight)
    found = information(inner, Ppca().sample(500))
    assert found.mutual_information[0] == pytest.approx(0, abs=1e-9)
    assert found.mutual_information[1] == pytest.approx(0, abs=0.02)
    assert found.active_units == 0


def test_active_units_are_those_whose_mean_varies():
    model = Ppca(num_pixels=6, latent_dim=4).vae()
    x = Ppca(num_pixels=6, latent_dim=4).sample(500)
    assert active_units(model, x) == 4
    with torch.no_grad():
        model.encoder.weight[2] = 0  # its mean is the same for every x
    assert active_units(model, x) == 3
    assert active_units(model, x, threshold=1e6) == 0


def test_coverage_is_the_level_where_q_is_the_posterior():
    ppca = Ppca()
    x = ppca.sample(300)
    torch.manual_seed(0)
    z = ppca.posterior(x).sample((100,))
    for level in (0.5, 0.9):
        error = 4 * math.sqrt(level * (1 - level) / 30_000)
        assert coverage(ppca.vae().encode(x), z, level).tolist() == pytest.approx(
            [level] * 2, abs=error
        )
    wide = coverage(ppca.vae(stretch=2.0).encode(x), z, 0.5)
    expected = 2 * Normal(0.0, 1.0).cdf(torch.tensor(2 * 0.67449)).item() - 1
    assert wide.tolist() == pytest.approx([expected] * 2, abs=0.02)


def test_bits_are_drawn_as_log_marginal_draws_them():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
    grey = (torch.rand(60, 1, 4, 4) * 255).to(torch.uint8)
    state = torch.get_rng_state()
    found = information(model, grey, data_seed=3)
    assert found == information(model, vaelib.data.binarize(grey, 3))
    assert found != information(model, grey, data_seed=4)
    assert torch.equal(torch.get_rng_state(), state)
