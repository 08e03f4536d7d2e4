"""Annealed importance sampling against pPCA's exact likelihood."""

import math

import pytest
import torch
from kinds import KINDS
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


@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_of_model_are_refused_in_a_sentence(name):
    kind = KINDS[name]
    model, (x, y) = kind.make(), kind.data(8)
    y = y if model.labels == "given" else None
    if name in ("flat", "heavy", "conditional", "tokens", "full_covariance"):
        assert ais(model, x, num_steps=2, y=y).acceptance > 0
        return
    for ask in (lambda: ais(model, x, y=y), lambda: bidirectional(model, 8, y=y)):
        with pytest.raises(ValueError, match="moves a single flat, continuous z.*, but") as caught:
            ask()
        assert str(caught.value).count(".") == 1


def test_a_decode_that_is_not_the_models_own_is_refused():
    class Other(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            _, latent = super().infer(x, num_samples, noise, y)
            return self.decode(latent.z + 1), latent

    inner = Ppca().vae()
    model = Other(inner.encoder, inner.decoder, 2, likelihood=inner.likelihood)
    with pytest.raises(ValueError, match="draws have another p"):
        ais(model, Ppca().sample(3))


def test_labels_are_a_condition():
    kind = KINDS["conditional"]
    model, (x, y) = kind.make(), kind.data(20)
    exact = kind.log_px(model, x, y).detach()
    found = ais(model, x, num_samples=32, num_steps=60, y=y)
    assert abs(found.mean - exact.mean().item()) < 4 * found.mc_stderr + 0.01
    assert found.conditional and "log p(x|y)" in repr(found)
    below, above = bidirectional(model, 20, num_steps=60, y=y)
    assert below.conditional and abs(above.mean - below.mean) < 0.2


def poisson(logits):
    return torch.distributions.Poisson(logits.exp())


def test_a_rate_that_overflows_is_a_rejection():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(1, (), x_shape=(2,), likelihood=poisson)
    with torch.no_grad():
        model.decoder[0].weight.copy_(torch.tensor([[30.0], [-30.0]]))
        model.decoder[0].bias.zero_()
    x = torch.tensor([[0, 1], [2, 0], [1, 1]])  # int64 counts
    # By quadrature; the rate e^(30 z) is infinite in float32 where |z| > 2.96, as 3 in 1,000 are.
    z = torch.linspace(-6, 6, 120_001).double()[:, None]
    rate = (z * torch.tensor([30.0, -30.0]).double()).exp()
    log_px_z = (x[:, None] * rate.log() - rate - (x[:, None] + 1.0).double().lgamma()).sum(-1)
    log_pz = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    exact = (log_px_z + log_pz).logsumexp(1) + math.log(1e-4)
    found = ais(model, x, num_samples=500, num_steps=100)
    assert found.values.isfinite().all() and 0 < found.acceptance < 1
    error = (1 / found.ess - 1 / 500).sqrt()
    assert ((found.values - exact).abs() < 4 * error).all()


def test_a_density_that_is_infinite_somewhere_does_not_hold_the_chains():
    class Spiked(torch.distributions.Normal):
        def log_prob(self, value):
            return torch.where(self.loc > 2.2, torch.inf, super().log_prob(value))

    ppca = Ppca(num_pixels=1, latent_dim=1)
    ppca.W, ppca.mu, ppca.sigma = torch.eye(1).double(), torch.zeros(1).double(), 1.0
    model, x = ppca.vae(stretch=0.5), torch.zeros(2, 1).double()
    model.likelihood = lambda mean: Spiked(mean, 1.0)
    found = ais(model, x, num_samples=1000, num_steps=30, start="posterior")
    # The posterior is N(0, 1/2): 9 in 10,000 of it lie beyond 2.2.
    error = (1 / found.ess - 1 / 1000).sqrt()
    assert ((found.values - ppca.evidence().log_prob(x)).abs() < 4 * error + 1e-3).all()


def test_the_acceptance_is_that_of_the_run_that_counts():
    ppca = Ppca()
    x = ppca.sample(5)
    kept = ais(ppca.vae(), x, num_steps=60)
    assert 0.4 < kept.acceptance < 1
    assert f"{kept.acceptance:.0%} of moves accepted" in repr(kept)
    nowhere = vaelib.VAE(
        *(getattr(ppca.vae(), name) for name in ("encoder", "decoder", "latent_dim")),
        likelihood=vaelib.gaussian(1e-6),  # no step is small enough
    )
    assert ais(nowhere, x, num_steps=5).acceptance < 0.1
