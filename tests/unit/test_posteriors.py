"""Richer posteriors: laws against closed forms and quadrature, strata, training and files.

Statistical tests have fixed seeds and allow 4 standard errors.
"""

import math

import pytest
import torch
from contract import mean_and_error, repeated, sampled, within
from oracles import grid_2d
from small import grey, small, weights
from torch import nn
from torch.distributions import Independent, Normal
from torch.testing import assert_close

import vaelib
from vaelib.posteriors import (
    AutoregressiveFlow,
    CouplingFlow,
    NormalMixture,
    full_covariance,
    latent,
    normal,
)

RICH = {
    "full covariance": lambda: full_covariance,
    "coupling": lambda: CouplingFlow(2, context_dim=3, hidden=8, num_layers=2),
    "autoregressive": lambda: AutoregressiveFlow(2, context_dim=3, hidden=8),
    "mixture": lambda: NormalMixture(3),
}
every_rich = pytest.mark.parametrize("name", RICH)

# Correlated normals ------------------------------------------------------------------------------


def test_without_correlation_it_is_the_diagonal_normal():
    parameters = torch.randn(5, 9, dtype=torch.float64)
    parameters[:, 6:] = 0
    z, exact = torch.randn(7, 5, 3).double(), Independent(normal(parameters[:, :6]), 1)
    assert_close(full_covariance(parameters).log_prob(z), exact.log_prob(z))


def test_its_covariance_is_that_of_the_factor_written_by_hand():
    mu, log_var, (a, b, c) = torch.randn(3).double(), torch.randn(3).double(), (0.3, -0.7, 1.1)
    below = torch.tensor([a, b, c], dtype=torch.float64, requires_grad=True)
    s = (0.5 * log_var).exp()
    factor = torch.tensor([[s[0], 0, 0], [a, s[1], 0], [b, c, s[2]]], dtype=torch.float64)
    q = full_covariance(torch.cat([mu, log_var, below]))
    assert_close(q.covariance_matrix, factor @ factor.T)
    assert_close(q.mean, mu)
    (slope,) = torch.autograd.grad(q.covariance_matrix[1, 0], below)
    assert_close(slope, torch.stack([s[0], 0 * s[0], 0 * s[0]]))


@pytest.mark.parametrize("n", [1, 3, 4, 6, 8])
def test_numbers_that_no_factor_has_get_a_sentence(n):
    with pytest.raises(ValueError, match=f"got {n} parameters; expected L"):
        full_covariance(torch.zeros(2, n))


def test_a_full_covariance_reaches_a_correlated_posterior_and_a_diagonal_one_cannot():
    """x1 = z1 + z2 + noise of deviation 0.5: the bound of the best q of each kind, exactly.

    Of a normal posterior of precision P, the best diagonal q misses by half of
    sum log P_ii - log det P nats.
    """
    torch.manual_seed(0)
    w, sigma = torch.ones(1, 2), 0.5
    precision = torch.eye(2) + w.T @ w / sigma**2
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    x = 2.25**0.5 * torch.randn(256, 1)
    exact = Normal(0.0, 2.25**0.5).log_prob(x).mean()
    found = {}
    for posterior, n in ((normal, 4), (full_covariance, 5)):
        model = vaelib.VAE(
            nn.Linear(1, n), nn.Linear(2, 1), 2, vaelib.gaussian(sigma), posterior=posterior
        )
        with torch.no_grad():
            model.decoder.weight.copy_(w), model.decoder.bias.zero_()
        model.decoder.requires_grad_(False)
        vaelib.fit(model, x, epochs=300, batch_size=256, lr=0.03, num_samples=16)
        torch.manual_seed(1)
        found[n] = vaelib.elbo(model.draw(x, 500)).mean().detach()
    assert abs(exact - found[4] - gap) < 0.05 and abs(exact - found[5]) < 0.05 < gap / 4


# Mixtures ----------------------------------------------------------------------------------------


def mixed(seed=0, batch_size=1, num_components=3, latent_dim=2):
    torch.manual_seed(seed)
    n = num_components * (2 * latent_dim + 1)
    parameters = torch.randn(batch_size, n, dtype=torch.float64).requires_grad_()
    return NormalMixture(num_components)(parameters), parameters


def test_a_mixtures_density_is_the_weighted_sum_and_has_mass_one():
    q, parameters = mixed()
    z, log_area = grid_2d(half_width=15.0, points=601)
    logits, mu, log_var = parameters[0].split((3, 6, 6))
    expected = sum(
        logits.softmax(0)[c]
        * Independent(Normal(mu[2 * c : 2 * c + 2], log_var[2 * c : 2 * c + 2].exp().sqrt()), 1)
        .log_prob(z)
        .exp()
        for c in range(3)
    )
    found = q.log_prob(z.unsqueeze(1)).squeeze(1).exp()
    assert_close(found, expected)
    assert math.isclose((found.sum() * math.exp(log_area)).item(), 1, abs_tol=1e-4)


def test_strata_count_as_their_components_and_agree_with_plain_draws():
    """E q of some functions: by strata, by plain draws, and the mean in closed form."""
    q, _ = mixed(batch_size=4)
    z, log_weight = q.strata(20_000)
    assert z.shape == (60_000, 4, 2) and log_weight.shape == (60_000, 4)
    assert_close(log_weight[:3].exp().sum(0), torch.ones(4).double())

    def of(z):
        return torch.stack([z[..., 0], z[..., 1], z.prod(-1), z.square().sum(-1).sqrt()], -1)

    with torch.no_grad():
        by_sample = (log_weight.exp().unsqueeze(-1) * of(z)).unflatten(0, (-1, 3)).sum(1)
        (mean, error), (other, other_error) = map(
            mean_and_error, (by_sample, of(q.sample((20_000,))))
        )
        assert within(mean, other, (error**2 + other_error**2).sqrt())
        assert within(mean[..., :2], q.mean, error[..., :2])


def test_a_samples_values_are_one_of_each_component_in_their_order():
    parameters = torch.tensor([[0.0, 0.0, -5.0, 5.0, -9.0, -9.0]]).repeat(2, 1)
    z, _ = NormalMixture(2)(parameters).strata(3)
    assert torch.equal(
        z.sign().squeeze(-1), torch.tensor([-1.0, 1.0]).repeat(3)[:, None].expand(6, 2)
    )


def test_strata_teach_the_weights_and_the_components():
    """The gradient of E q z, in closed form sum of weight times mean, by 20,000 samples of each."""
    q, parameters = mixed(seed=1)
    z, log_weight = q.strata(20_000)
    by_sample = (log_weight.exp().unsqueeze(-1) * z).sum() / 20_000
    exact = q.mean.sum()
    ours, theirs = (
        torch.autograd.grad(t, parameters, retain_graph=True)[0] for t in (by_sample, exact)
    )
    error = q.component_distribution.stddev.norm(dim=-1).max().item() / math.sqrt(20_000)
    assert 4 * error < 0.1 < theirs[:, :3].abs().max()
    assert_close(ours, theirs, rtol=0, atol=4 * error)
    assert_close(ours[:, 3:9], theirs[:, 3:9])  # of the means, whatever the draws


def test_a_stopped_mixture_has_the_gradient_of_z_alone():
    q, _ = mixed(batch_size=4)
    z = torch.randn(5, 4, 2, dtype=torch.float64, requires_grad=True)
    stopped = q.stopped()
    assert_close(stopped.log_prob(z), q.log_prob(z))
    ours, theirs = (torch.autograd.grad(law.log_prob(z).sum(), z)[0] for law in (stopped, q))
    assert_close(ours, theirs)
    assert not stopped.log_prob(z.detach()).requires_grad
    assert not stopped.strata(2)[1].requires_grad


class ByDraws(NormalMixture):
    """The same mixture, of which nobody knows the strata."""

    def __call__(self, parameters):
        q = super().__call__(parameters)
        return torch.distributions.MixtureSameFamily(
            q.mixture_distribution, q.component_distribution, validate_args=False
        )


def two_humps(posterior):
    """z ~ N(0, 1), x | z ~ N(z, 0.5), by a q of two components that is not the posterior."""
    model = vaelib.VAE(
        nn.Linear(1, 6), nn.Linear(1, 1), 1, vaelib.gaussian(0.5**0.5), posterior=posterior
    ).double()
    with torch.no_grad():
        model.encoder.weight.copy_(torch.tensor([[0, 0.3, 0.5, 0.8, 0, 0]]).T)
        model.encoder.bias.copy_(torch.tensor([0.0, 0.5, 0.8, -0.8, -1.0, -0.5]))
        model.decoder.weight.fill_(1), model.decoder.bias.zero_()
    return model


@torch.no_grad()
def test_strata_tighten_the_bound_and_keep_it_one():
    """With the same S: a stratified estimate is the mean of a plain one over its components.

    So by Jensen's inequality its expected log is higher; the ELBO's expectation is the same.
    """
    torch.manual_seed(0)
    x = torch.tensor([[-1.0], [0.2], [2.0]], dtype=torch.float64)
    exact = Normal(0.0, 1.5**0.5).log_prob(x).squeeze(-1)
    strata, plain = two_humps(NormalMixture(2)), two_humps(ByDraws(2))
    for num_samples in (1, 5):
        (mean, error), (other, other_error) = (
            mean_and_error(repeated(model, vaelib.iwae, x, None, num_samples, 20_000))
            for model in (strata, plain)
        )
        both = (error**2 + other_error**2).sqrt()
        assert (mean - 4 * error < exact).all()
        assert (mean - other > 4 * both).all()
    (mean, error), (other, other_error) = (
        mean_and_error(repeated(model, sampled, x, None, 2, 20_000)) for model in (strata, plain)
    )
    assert within(mean, other, (error**2 + other_error**2).sqrt())
    estimate = vaelib.log_marginal(strata, x, num_samples=5000)
    assert within(estimate.values.double(), exact, 0.01)


def test_only_what_offers_strata_is_drawn_by_them():
    q, p = mixed()[0], Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    assert latent(q, p, 5).values == 3 and len(latent(q, p, 5).z) == 15
    plain = latent(p.expand((4,)), p, 5)
    assert plain.values == 1 and plain.log_weight is None and len(plain.z) == 5
    with pytest.raises(ValueError, match="expected none, since only a normal's draws"):
        latent(q, p, 1, torch.zeros(1, 1, 2))


@pytest.mark.parametrize("n", [0, 3, 6, 12, 13])
def test_parameters_of_another_number_get_a_sentence(n):
    with pytest.raises(ValueError, match=rf"got {n} parameters; expected 3 \(2 L \+ 1\)"):
        NormalMixture(3)(torch.zeros(2, n))
    with pytest.raises(ValueError, match="num_components is 0"):
        NormalMixture(0)


# In models ---------------------------------------------------------------------------------------


@every_rich
@pytest.mark.parametrize("objective", [vaelib.elbo, vaelib.iwae], ids=["elbo", "iwae"])
def test_every_posterior_trains(name, objective):
    """A few steps, downhill for nobody; every parameter moves."""
    model = small(posterior=RICH[name]())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    bits = (torch.rand(64, 1, 4, 4) < 0.2).float()
    vaelib.fit(model, bits, objective=objective, epochs=8, batch_size=16, lr=1e-2, num_samples=2)
    assert all((p != before[name]).any() for name, p in model.named_parameters())
    history = vaelib.fit(model, bits, objective=objective, epochs=20, batch_size=16, num_samples=2)
    assert history.train[-1] > history.train[0]
    assert model.reconstruct(bits).shape == bits.shape and model.sample(3).shape == (3, 1, 4, 4)
    assert math.isfinite(vaelib.log_marginal(model, bits, 20).mean)


@every_rich
def test_a_file_rebuilds_every_posterior(name, tmp_path):
    model = small(posterior=RICH[name]())
    vaelib.fit(model, grey(), epochs=1, lr=1e-2)
    vaelib.save(model, tmp_path / "model.safetensors")
    loaded = vaelib.load(tmp_path / "model.safetensors")
    assert torch.equal(weights(loaded), weights(model))
    z = torch.randn(7, 40, 2)
    x = grey()
    assert torch.equal(loaded.encode(x).log_prob(z), model.encode(x).log_prob(z))


@pytest.mark.parametrize("kind", [CouplingFlow, AutoregressiveFlow])
def test_a_flow_of_another_size_than_the_models_gets_a_sentence(kind):
    with pytest.raises(ValueError, match=r"latent_dim=2, and its posterior is a .*latent_dim=3"):
        small(posterior=kind(3))


@pytest.mark.slow
def test_a_flow_trains_compiled():
    model = small(posterior=AutoregressiveFlow(2, context_dim=3, hidden=8))
    history = vaelib.fit(model, grey(), epochs=2, batch_size=10, num_samples=2, compile=True)
    assert all(math.isfinite(value) for value in history.train)
