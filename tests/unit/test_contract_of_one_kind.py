"""The contract: what one kind alone promises. Codes, labels, posteriors, and data of their own.

The column labels of the table in test_contract.py is among them.
"""

import math

import pytest
import torch
from contract import mean_and_error, names, repeated, sampled, within
from kinds import KINDS
from kinds.codes import Listed, commitment
from kinds.gaussians import SX, normal
from kinds.labels import Labelled
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent

# Codes -------------------------------------------------------------------------------------------


def test_a_listed_code_has_an_exact_gradient_and_iwae_teaches_its_q_nothing():
    kind, (x, _) = KINDS["listed"], KINDS["listed"].data()
    model = kind.make()
    (of_q,) = torch.autograd.grad(vaelib.iwae(model.draw(x)).sum(), model.encoder.weight)
    assert of_q.abs().max() < 1e-12
    q = Categorical(logits=model.encoder(x))
    by_hand = (q.probs.T * (model.log_joint(x) - q.logits.T)).sum(0)
    assert_close(vaelib.elbo(model.draw(x)), by_hand)
    assert_close(vaelib.elbo(model.draw(x)), sampled(model.draw(x)))
    (found,) = torch.autograd.grad(vaelib.elbo(model.draw(x)).sum(), model.encoder.weight)
    (expected,) = torch.autograd.grad(by_hand.sum(), model.encoder.weight)
    assert_close(found, expected)


def test_a_drawn_codes_score_gradient_is_the_listed_ones_in_expectation():
    kind, (x, _) = KINDS["drawn"], KINDS["drawn"].data()
    drawn, listed = kind.make(), Listed()
    listed.load_state_dict(drawn.state_dict())

    def gradient(model, objective):
        value = objective(model.draw(x, 50)).sum()
        found = torch.autograd.grad(value, list(model.parameters()))
        return torch.cat([g.flatten() for g in found])

    torch.manual_seed(0)
    objective = kind.objective()
    assert_close(objective(drawn.draw(x, 3)).shape, torch.Size([8]))
    rows = torch.stack([gradient(drawn, objective) for _ in range(300)])
    mean, error = mean_and_error(rows)
    assert within(mean, gradient(listed, sampled), error)


def test_a_quantized_code_is_a_bound_by_one_code():
    kind, (x, _) = KINDS["quantized"], KINDS["quantized"].data()
    model = kind.make()
    draw = model.draw(x, 2)
    assert draw.is_bound and (draw.log_qz_x == 0).all()
    assert_close(draw.log_w, (kind.log_px(model, x) - kind.wrong(model, x)).expand(2, -1))
    assert_close(draw.rate, -draw.log_pz[0])
    terms = commitment(draw)
    gradients = torch.autograd.grad(terms["elbo"].sum(), [model.encoder.weight, model.logits])
    assert all(g.abs().sum() > 0 for g in gradients)  # straight through the code


# Labels ------------------------------------------------------------------------------------------


def test_a_label_is_summed_over_where_it_is_missing_and_fixed_where_it_is_known():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model = kind.make()
    told = model.draw(x, 2, y=y)
    weights = told.log_weight.exp().reshape(2, 3, -1).sum(0)
    known = y >= 0
    assert_close(weights[:, known], nn.functional.one_hot(y[known], 3).T.double())
    assert ((weights[:, ~known] > 0) & (weights[:, ~known] < 1)).all()
    for objective in (vaelib.elbo, sampled, vaelib.stl):
        value = objective(model.draw(x, 2, y=y)).sum()
        gradients = torch.autograd.grad(value, list(model.parameters()))
        assert all(g.isfinite().all() for g in gradients)
        # A bound on p(x, y) teaches q(y|x) nothing where y is known.
        value = objective(model.draw(x[known], 2, y=y[known])).sum()
        (of_q_y,) = torch.autograd.grad(value, model.q_y.weight, allow_unused=True)
        assert of_q_y is None or of_q_y.abs().max() == 0


@torch.no_grad()
def test_a_weight_that_is_told_is_the_one_that_would_be_taken():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()

    class Untold(Labelled):
        told = False

    model, untold = kind.make(), Untold()
    untold.load_state_dict(model.state_dict())
    noise = torch.randn(3, len(x), 2, dtype=torch.float64)
    first, second = model.draw(x, noise=noise, y=y), untold.draw(x, noise=noise, y=y)
    assert_close(first.log_weight, second.log_weight)
    assert_close(first.log_w_by_sample, second.log_w_by_sample)
    assert_close(sampled(first), sampled(second))
    assert second.kl_parts.shape == (len(x), 2)
    assert_close(second.kl_parts[y >= 0, 0], torch.full((4,), math.log(3)).double())
    torch.manual_seed(0)
    difference = repeated(untold, lambda d: sampled(d) - vaelib.elbo(d), x, y, 50)
    mean, error = mean_and_error(difference)
    assert within(mean, 0.0, error)


@torch.no_grad()
def test_a_known_label_may_be_told_by_its_weight_alone():
    """q(y|x) stays as it was; log w is still of p(x, y), not of p(x, y) / q(y|x), no bound."""
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model, y = kind.make(solved=True), torch.arange(8) % 3
    z = torch.arange(3)[:, None].expand(-1, len(x))
    known = torch.where(z == y, 0.0, -math.inf).double()
    q_y, uniform = Categorical(logits=model.q_y(x)), Categorical(logits=torch.zeros(3).double())
    px_z, _, continuous = model.infer(x, 1, None, y)
    draw = Draw.of(x, px_z, Latent(z, q_y, uniform, 3, known), continuous)
    assert_close(vaelib.iwae(draw), kind.log_px(model, x, y))


def test_labels_that_are_learnt_are_no_part_of_scoring():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model = kind.make()
    unseen = vaelib.log_marginal(model, x, num_samples=50)
    labelled = vaelib.log_marginal(model, vaelib.data.Images(x, y.clamp(min=0)), num_samples=50)
    assert torch.equal(unseen.values, labelled.values)
    with pytest.raises(ValueError, match="training only"):
        vaelib.log_marginal(model, x, y=y)


@names("given", "conditional")
def test_labels_that_are_given_are_asked_for_everywhere(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    for call in (model.draw, model.encode, model.reconstruct, lambda x: model.sample(3)):
        with pytest.raises(ValueError, match="got no labels"):
            call(x)
    with pytest.raises(ValueError, match="labels"):
        vaelib.log_marginal(model, x)
    with pytest.raises(ValueError, match="7 labels for 8"):
        model.draw(x, y=y[1:])
    of_images = vaelib.log_marginal(model, vaelib.data.Images(x, y), num_samples=20)
    assert torch.equal(of_images.values, vaelib.log_marginal(model, x, 20, y=y).values)
    assert not torch.equal(
        of_images.values, vaelib.log_marginal(model, x, 20, y=(y + 1) % 3).values
    )
    with pytest.raises(ValueError, match="takes no labels"):
        KINDS["flat"].make().draw(x, y=y)


@torch.no_grad()
def test_decode_takes_the_condition():
    kind, (x, y) = KINDS["conditional"], KINDS["conditional"].data()
    model = kind.make()
    z = torch.randn(3, len(x), 2, dtype=torch.float64)
    expected = z @ model.decoder.linear.weight[:, :2].T + model.means()[y]
    assert_close(model.decode(z, y).mean, expected)
    assert_close(model.decode(z[0], y).mean, expected[0])


# Posteriors --------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_path_by_its_filter_is_the_path_by_its_covariance():
    kind, (x, _) = KINDS["path"], KINDS["path"].data()
    model = kind.make()
    prior, gain = model.pz(), model.gain
    cov = gain**2 * prior.covariance_matrix + SX**2 * torch.eye(7).double()
    whole = torch.distributions.MultivariateNormal(torch.zeros(7).double(), cov)
    assert_close(kind.log_px(model, x), whole.log_prob(x))


@torch.no_grad()
def test_a_heavy_posterior_trains_on_its_own_draws():
    """A Laplace has kurtosis 6; its draws obey Stein's identity, normal noise does not."""
    kind, (x, _) = KINDS["heavy"], KINDS["heavy"].data()
    torch.manual_seed(0)
    draw = kind.make().draw(x, 20_000)
    q = draw.qz_x

    def stein(z):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
        return mean_and_error(((z.detach() - q.mean) * slope).sum(-1).flatten())

    u = (draw.z - q.mean) / q.base_dist.scale
    assert abs((u**4).mean() / (u**2).mean() ** 2 - 6) < 0.2
    mean, error = stein(draw.z)
    assert within(mean, -3.0, error)
    mean, error = stein(q.mean + q.stddev * torch.randn_like(draw.z))
    assert abs(mean + 3) > 20 * error


class Strata(vaelib.VAE):
    """A mixture posterior, a draw from each component: strata, which count by their weights."""

    def __init__(self, swapped=False, held=False):
        super().__init__()
        self.swapped, self.held = swapped, held
        self.log_share = nn.Parameter(torch.tensor([2.0, 0.0, -2.0]))
        self.loc = nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))
        self.log_scale = nn.Parameter(torch.tensor([-0.5, -0.5, -0.5]))

    def infer(self, x, num_samples=1, noise=None, y=None):
        shape = (num_samples, 3, len(x), 1)
        loc, scale = (t[:, None].expand(len(x), 3, 1) for t in (self.loc, self.log_scale.exp()))
        q = MixtureSameFamily(
            Categorical(logits=self.log_share.expand(len(x), 3)), normal(loc, scale)
        )
        eps = torch.randn(shape, dtype=x.dtype)
        z = self.loc[:, None, None] + self.log_scale.exp()[:, None, None] * eps
        z = (z.detach() if self.held else z).flatten(0, 1)
        share = self.log_share.log_softmax(-1)
        share = share.flip(0) if self.swapped else share
        share = share[:, None].expand(num_samples, 3, len(x)).flatten(0, 1)
        p = normal(torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype))
        return normal(z, torch.full_like(z, 0.5)), Latent(z, q, p, values=3, log_weight=share)

    def generate(self, n, y=None):
        z = torch.randn(n, 1, dtype=self.loc.dtype)
        return normal(z, torch.full_like(z, 0.5)), z


def test_strata_are_drawn_and_not_listed():
    torch.manual_seed(0)
    model, x = Strata().double(), 1.25**0.5 * torch.randn(60, 1, dtype=torch.float64)
    exact = Normal(0.0, 1.25**0.5).log_prob(x).sum(-1)
    estimate = vaelib.log_marginal(model, x, num_samples=2000)
    assert estimate.num_samples == 2000 and estimate.mc_stderr > 0
    assert abs(estimate.mean - exact.mean()) < 4 * estimate.mc_stderr + 1e-4
    vaelib.check_model(model, x)
    with pytest.raises(ValueError, match="do not follow its q"):
        vaelib.check_model(Strata(swapped=True).double(), x)
    with pytest.raises(ValueError, match="its z carries no gradient"):
        vaelib.fit(Strata(held=True).double(), x, epochs=1)


# Bits, tokens and what is missing ----------------------------------------------------------------


def test_bits_are_known_by_their_support():
    kind, (x, _) = KINDS["autoregressive"], KINDS["autoregressive"].data()
    model = kind.make()
    with pytest.raises(ValueError, match="binarize"):
        model.draw(x * 0.5 + 0.2)
    grey = torch.rand(40, model.D, dtype=torch.float64)
    estimate = vaelib.log_marginal(model, grey, data_seed=3)
    bits = vaelib.data.binarize(grey, 3)
    assert estimate.data_seed == 3
    assert_close(estimate.values, kind.log_px(model, bits))


def test_tokens_keep_their_values():
    kind, (x, _) = KINDS["tokens"], KINDS["tokens"].data()
    model = kind.make()
    assert x.dtype == torch.int64
    assert torch.equal(model.draw(x).x, x) and torch.equal(model.draw(x.numpy()).x, x)


def test_missing_entries_cost_nothing_and_leave_gradients_finite():
    kind, (x, _) = KINDS["missing"], KINDS["missing"].data()
    model = kind.make()
    draw = model.draw(x, 3)
    assert x[0].isnan().all() and (draw.log_px_z[:, 0] == 0).all()
    gradients = torch.autograd.grad(vaelib.elbo(draw).sum(), list(model.parameters()))
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    solved = kind.make(solved=True)
    assert_close(solved.draw(x).log_w[0, 0].item(), 0.0)  # p of nothing is 1
    assert model.reconstruct(x).isfinite().all()
    with pytest.raises(ValueError, match="missing = True"):
        KINDS["flat"].make().draw(torch.full((2, 5), math.nan))
    with pytest.raises(ValueError, match="infinite"):
        model.draw(x.nan_to_num(math.inf))
