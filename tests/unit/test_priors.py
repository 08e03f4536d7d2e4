"""Learnt priors: they integrate to one, and their samples are those of their density."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

import vaelib
from vaelib.priors import AutoregressivePrior, FlowPrior


def bent(latent_dim: int, seed: int = 0) -> FlowPrior:
    """A flow far from its start."""
    torch.manual_seed(seed)
    flow = FlowPrior(latent_dim, hidden=16).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return flow


def grid(half_width: float = 20.0, n: int = 1401) -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]).item() ** 2


@torch.no_grad()
def test_it_starts_as_the_standard_normal():
    z = torch.randn(5, 7, 3)
    exact = MultivariateNormal(torch.zeros(3), torch.eye(3)).log_prob(z)
    torch.testing.assert_close(FlowPrior(3)().log_prob(z), exact)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_its_density_integrates_to_one_and_has_the_samples_moments(seed):
    """Quadrature over the plane; 40,000 samples, 4 standard errors."""
    pz = bent(2, seed)()
    z, area = grid()
    p = pz.log_prob(z).exp() * area
    assert math.isclose(p.sum(), 1, abs_tol=1e-5)
    samples = pz.sample((40_000,))
    for moment in (lambda z: z, lambda z: z.square(), lambda z: z[:, :1] * z[:, 1:]):
        exact = (p[:, None] * moment(z)).sum(0)
        error = moment(samples).std(0) / math.sqrt(len(samples))
        assert ((moment(samples).mean(0) - exact).abs() < 4 * error).all()


@torch.no_grad()
def test_log_prob_is_the_change_of_variables_by_autograd():
    """An odd number of latents; the Jacobian of u -> z from autograd."""
    pz = bent(5)()
    u = torch.randn(5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(pz.from_normal, u)
    exact = MultivariateNormal(torch.zeros(5).double(), torch.eye(5).double()).log_prob(u)
    exact = exact - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(pz.log_prob(pz.from_normal(u)), exact)


def test_training_moves_the_prior_and_a_vae_samples_from_it():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(4, (16,), x_shape=(8,), prior=FlowPrior(4))
    before = [p.clone() for p in model.prior.parameters()]
    x = (torch.rand(64, 8) < 0.5).float()
    vaelib.fit(model, x, epochs=2, batch_size=16, lr=1e-2)
    assert any((p != b).any() for p, b in zip(model.prior.parameters(), before, strict=True))
    assert model.sample(3).shape == (3, 8)
    assert model.draw(x).kl_parts is None
    assert math.isfinite(vaelib.log_marginal(model, x, 10).mean)


def test_one_latent_cannot_be_halved():
    with pytest.raises(ValueError, match="at least 2"):
        FlowPrior(1)


# An autoregressive prior -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FlowPrior, AutoregressivePrior])
def test_a_file_keeps_the_names_of_a_priors_weights(kind, tmp_path):
    """Files of weights are kept for years: a layer's network is nets.i, two linear layers."""
    model = vaelib.mlp_vae(2, (8,), x_shape=(4,), prior=kind(2, hidden=5, num_layers=1))
    names = [name for name, _ in model.prior.named_parameters()]
    assert names == ["nets.0.0.weight", "nets.0.0.bias", "nets.0.2.weight", "nets.0.2.bias"]
    vaelib.fit(model, torch.rand(20, 4).round(), epochs=2, lr=1e-2)
    vaelib.save(model, tmp_path / "model.safetensors")
    z = torch.randn(7, 2)
    loaded = vaelib.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.pz().log_prob(z), model.pz().log_prob(z))


def test_an_autoregressive_prior_learns_a_banana():
    """z2 = z1^2 + noise, whose entropy is known: the density comes within 0.1 nats of it."""
    torch.manual_seed(0)
    prior = AutoregressivePrior(2, hidden=32)
    optimizer = torch.optim.Adam(prior.parameters(), 1e-2)
    for _ in range(600):
        z1 = torch.randn(512, 1)
        z = torch.cat([z1, z1**2 + 0.5 * torch.randn(512, 1)], -1)
        optimizer.zero_grad()
        loss = -prior().log_prob(z).mean()
        loss.backward()
        optimizer.step()
    entropy = 1 + math.log(2 * math.pi) + math.log(0.5)
    assert abs(loss.item() - entropy) < 0.1
