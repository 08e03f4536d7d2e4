"""Mixtures as priors, against torch's own, quadrature and the encoder that they borrow."""

import math

import pytest
import torch
from oracles import grid_2d
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import vaelib
from vaelib.mixture_priors import GaussianMixture
from vaelib.priors import MixturePrior, VampPrior


def parts(components=5, latent_dim=2, seed=0):
    torch.manual_seed(seed)
    mean = 2 * torch.randn(components, latent_dim).double()
    sigma = torch.rand(components, latent_dim).double() + 0.2
    return torch.randn(components).double(), mean, sigma


def by_torch(logits, mean, sigma):
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(mean, sigma), 1))


def small_vae(prior, **keywords):
    return vaelib.mlp_vae(2, (8,), x_shape=(1, 2, 2), prior=prior, **keywords)


def bits(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 1, 2, 2, generator=generator) < 0.5).float()


def test_the_density_is_that_of_torchs_mixture():
    z = 3 * torch.randn(4, 6, 3).double()
    mixture = parts(latent_dim=3)
    exact = by_torch(*mixture).log_prob(z)
    torch.testing.assert_close(GaussianMixture(*mixture).log_prob(z), exact)


def test_narrow_components_lose_nothing_in_float32():
    """Squares of 3,000 deviations: in float32 their differences would be off by nats."""
    torch.manual_seed(0)
    mean, sigma = 3 * torch.randn(50, 10), torch.full((50, 10), 1e-3)
    z = mean[:20] + sigma[:20] * torch.randn(20, 10)
    exact = by_torch(torch.zeros(50).double(), mean.double(), sigma.double()).log_prob(z.double())
    found = GaussianMixture(torch.zeros(50), mean, sigma).log_prob(z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-4)


def test_it_integrates_to_one_and_its_draws_have_its_moments():
    """Quadrature over the plane; 40,000 draws, 4 standard errors."""
    mixture = GaussianMixture(*parts())
    z, log_area = grid_2d(12.0, 801)
    p = (mixture.log_prob(z) + log_area).exp()
    assert math.isclose(p.sum(), 1, abs_tol=1e-6)
    torch.testing.assert_close(mixture.mean, (p[:, None] * z).sum(0), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    draws = mixture.sample((40_000,))
    for moment in (lambda z: z, lambda z: z.square(), lambda z: z[:, :1] * z[:, 1:]):
        exact = (p[:, None] * moment(z)).sum(0)
        error = moment(draws).std(0) / math.sqrt(len(draws))
        assert ((moment(draws).mean(0) - exact).abs() < 4 * error).all()


def test_gradients_are_those_of_torchs_mixture():
    z, ours, theirs = torch.randn(7, 2).double(), [], []
    for kind, found in ((GaussianMixture, ours), (by_torch, theirs)):
        leaves = [t.requires_grad_() for t in (z.clone(), *parts())]
        total = kind(*leaves[1:]).log_prob(leaves[0]).sum()
        found += torch.autograd.grad(total, leaves)
    torch.testing.assert_close(ours, theirs)


def test_a_vampprior_at_the_data_is_the_aggregate_posterior():
    x = bits(30)
    model = small_vae(VampPrior(30, (1, 2, 2), pixels=False))
    model.prior.start_at(x)
    q, z = model.encode(model.prior.pseudo_inputs), torch.randn(5, 2)
    each = Normal(q.base_dist.loc, q.base_dist.scale).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(model.pz().log_prob(z), each.logsumexp(1) - math.log(30))
    assert sorted(model.prior.pseudo_inputs.flatten(1).tolist()) == sorted(x.flatten(1).tolist())


def test_pseudo_inputs_of_pixels_stay_between_paper_and_ink():
    grey = (torch.rand(30, 1, 2, 2) * 256).to(torch.uint8)
    prior = VampPrior(30, (1, 2, 2))
    prior.start_at(grey)
    near = (prior.pseudo_inputs.flatten(1)[:, None] - grey.flatten(1) / 255).abs().amax(-1)
    assert near.amin(1).max() < 0.021  # 0 and 1 have no logit
    assert (prior.pseudo_inputs > 0).all() and (prior.pseudo_inputs < 1).all()


def test_a_vampprior_of_another_posterior_mixes_that():
    model = small_vae(VampPrior(10, (1, 2, 2)), posterior=vaelib.posteriors.laplace)
    q, z = model.encode(model.prior.pseudo_inputs), torch.randn(5, 2)
    each = q.log_prob(z[:, None])
    torch.testing.assert_close(model.pz().log_prob(z), each.logsumexp(1) - math.log(10))


def test_a_mixture_starts_at_codes():
    codes = 5 + torch.randn(200, 2)
    prior = MixturePrior(2, 20)
    before = prior().log_prob(codes).mean()
    prior.start_at(codes)
    assert prior().log_prob(codes).mean() > before + 5
    assert {tuple(row) for row in prior.mean.tolist()} <= {tuple(row) for row in codes.tolist()}
    MixturePrior(2, 300).start_at(codes)  # more components than codes


PRIORS = {
    "mixture": lambda: MixturePrior(2, 5),
    "vamp": lambda: VampPrior(5, (1, 2, 2)),
}
every_prior = pytest.mark.parametrize("name", PRIORS)


@every_prior
def test_the_contract_is_kept(name):
    torch.manual_seed(0)
    vaelib.check_model(small_vae(PRIORS[name]()), bits(64))


@every_prior
def test_training_moves_every_parameter_of_the_prior(name):
    torch.manual_seed(0)
    model = small_vae(PRIORS[name]())
    before = [p.clone() for p in model.prior.parameters()]
    vaelib.fit(model, bits(64), epochs=2, batch_size=16, lr=1e-2, objective=vaelib.stl)
    assert all((p != b).any() for p, b in zip(model.prior.parameters(), before))


@every_prior
def test_a_file_holds_it(name, tmp_path):
    model = small_vae(PRIORS[name]()).eval()
    vaelib.save(model, tmp_path / "model.safetensors")
    again, z = vaelib.load(tmp_path / "model.safetensors"), torch.randn(5, 2)
    assert type(again.prior) is type(model.prior)
    assert torch.equal(again.pz().log_prob(z), model.pz().log_prob(z))


@pytest.mark.parametrize(
    "make", [lambda: MixturePrior(2, 0), lambda: VampPrior(5, (0, 2)), lambda: MixturePrior(2.5)]
)
def test_sizes_are_positive_whole_numbers(make):
    with pytest.raises((ValueError, TypeError), match="expected a whole number"):
        make()
