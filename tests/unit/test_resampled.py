"""The resampled prior: its normaliser is an estimate; quadrature and draws have the last word."""

import math

import pytest
import torch
from oracles import grid_2d
from torch.distributions import Independent, Normal

import vaelib
from vaelib.priors import ResampledPrior

truncations = pytest.mark.parametrize("truncation", [1, 2, 5, 100])


def picky(truncation=100, seed=0, num_samples=1024):
    """A network that accepts about one draw in five, in some places far more often."""
    torch.manual_seed(seed)
    prior = ResampledPrior(2, hidden=8, truncation=truncation, num_samples=num_samples).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    with torch.no_grad():
        prior.net[-1].bias -= 1.5
    return prior.eval()


def normal():
    return Independent(Normal(torch.zeros(2).double(), 1.0), 1)


def by_quadrature(prior):
    """z [N, 2], p(z) and the area of a cell, from the definition; and Z."""
    z, log_area = grid_2d(8.0, 801)
    area = math.exp(log_area)
    base, a = normal().log_prob(z).exp(), prior.log_accept(z).exp()
    Z, T = (base * a).sum() * area, prior.truncation
    tries = sum((1 - Z) ** t for t in range(T - 1))  # each earlier try, not accepted
    return z, base * (a * tries + (1 - Z) ** (T - 1)), area, Z


@torch.no_grad()
@truncations
def test_the_density_is_that_of_its_definition(truncation):
    """Up to the error of log Z that it states."""
    prior = picky(truncation)
    z, p, area, Z = by_quadrature(prior)
    assert math.isclose(p.sum() * area, 1, abs_tol=1e-6)
    assert 0.05 < Z < 0.5  # else the test is of little
    pz = prior()
    assert abs(pz.log_z - Z.log()) < 4 * pz.stderr
    inside = p > 1e-12
    gap = (pz.log_prob(z)[inside] - p[inside].log()).abs()
    steep = 1 + (truncation - 1) * Z / (1 - Z)  # of log p in log Z, at most
    assert gap.max() < 4 * pz.stderr * steep + 1e-6


@torch.no_grad()
@truncations
def test_draws_follow_the_density(truncation):
    """Moments of 40,000 draws against quadrature, 4 standard errors."""
    prior = picky(truncation)
    z, p, area, _ = by_quadrature(prior)
    torch.manual_seed(1)
    draws = prior().sample((200, 200)).flatten(0, 1)
    for moment in (lambda z: z, lambda z: z.square(), lambda z: prior.log_accept(z)[:, None].exp()):
        exact = (p[:, None] * moment(z)).sum(0) * area
        error = moment(draws).std(0) / math.sqrt(len(draws))
        assert ((moment(draws).mean(0) - exact).abs() < 4 * error).all()


def test_the_training_gradient_is_right_on_average():
    """Of the mean log p at fixed z: autograd through quadrature against 400 calls."""
    torch.manual_seed(0)
    codes, prior = torch.randn(50, 2).double() + 1, picky(num_samples=4096)
    bias = prior.net[-1].bias
    z, log_area = grid_2d(8.0, 401)
    Z = (normal().log_prob(z) + prior.log_accept(z) + log_area).exp().sum()
    reach = (1 - Z) ** (prior.truncation - 1)
    log_p = ((prior.log_accept(codes).exp() / Z * (1 - reach)) + reach).log().mean()
    (exact,) = torch.autograd.grad(log_p, bias)
    prior.train()
    found = torch.cat(
        [torch.autograd.grad(prior().log_prob(codes).mean(), bias)[0] for _ in range(400)]
    )
    error = found.std() / math.sqrt(len(found))
    bias_of_ratio = 1e-3  # Var(a / Z) / 4096, at most
    assert abs(found.mean() - exact) < 4 * error + bias_of_ratio


@torch.no_grad()
def test_the_normaliser_follows_the_weights_and_no_seed():
    prior = picky()
    torch.manual_seed(1)
    before = prior().log_z.item()
    torch.manual_seed(2)
    assert prior().log_z.item() == before
    prior.net[-1].bias.data -= 1.0  # a way that leaves no trace but the value
    lower = prior().log_z.item()
    _, _, _, Z = by_quadrature(prior)
    assert lower < before - 0.3 and abs(lower - Z.log()) < 4 * prior().stderr


def model_of(prior):
    torch.manual_seed(0)
    return vaelib.mlp_vae(2, (8,), x_shape=(4,), prior=prior)


def bits(n=64):
    return (torch.rand(n, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def test_estimates_carry_its_error():
    model = model_of(picky().float())
    found = vaelib.log_marginal(model, bits(), 10)
    assert found.density_stderr == model.prior().stderr > 0
    assert "a density is estimated, +- 0.00" in repr(found)
    report = vaelib.report(model, bits(), bits(), num_samples=10, ais_images=4)
    assert any("is an estimate" in warning for warning in report.warnings)
    assert vaelib.log_marginal(model_of(None), bits(), 10).density_stderr == 0


def test_the_contract_is_kept_and_training_moves_it():
    model = model_of(ResampledPrior(2, hidden=8))
    vaelib.check_model(model, bits())
    before = [p.clone() for p in model.prior.parameters()]
    vaelib.fit(model, bits(), epochs=2, batch_size=16, lr=1e-2)
    assert all((p != b).any() for p, b in zip(model.prior.parameters(), before))


def test_a_file_holds_it(tmp_path):
    model = model_of(ResampledPrior(2, hidden=8, truncation=7)).eval()
    vaelib.save(model, tmp_path / "model.safetensors")
    again, z = vaelib.load(tmp_path / "model.safetensors"), torch.randn(5, 2)
    assert again.prior.truncation == 7
    assert torch.equal(again.pz().log_prob(z), model.pz().log_prob(z))
