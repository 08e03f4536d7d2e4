"""Bounds between the ELBO and iwae: their order on any draws, quadrature, and dreg's gradient."""

import functools
import itertools

import pytest
import torch
from contract import every_kind, mean_and_error, names, sampled, within
from kinds import KINDS
from kinds.gaussians import LinearNormal, moved, normal, standard
from kinds.hierarchies import SX, BottomUp, TopDown
from oracles import Ppca
from torch.distributions import Normal
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent
from vaelib.bounds import dreg, renyi, tvo


@every_kind
@torch.no_grad()
def test_on_the_same_draws_all_lie_between_the_elbo_and_iwae(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    draw = kind.make().draw(x, 6, y=y)
    low, high = sampled(draw) - 1e-6, vaelib.iwae(draw) + 1e-6
    rising = [renyi(draw, alpha) for alpha in (0.99, 0.5, 0.1)]
    rising = [low, *rising, high]
    assert all((a <= b + 1e-9).all() for a, b in itertools.pairwise(rising))
    rising = [tvo(draw, (0.0,)), tvo(draw, (0.0, 0.5)), tvo(draw, (0.0, 0.25, 0.5, 0.75))]
    assert_close(rising[0], sampled(draw))
    rising = [low, *rising, high]
    assert all((a <= b + 1e-9).all() for a, b in itertools.pairwise(rising))


@torch.no_grad()
def test_at_their_ends_they_are_the_elbo_and_iwae():
    draw = KINDS["flat"].make().draw(KINDS["flat"].data()[0], 50)
    assert_close(renyi(draw, 1.0), sampled(draw))
    assert_close(renyi(draw, 0.0), vaelib.iwae(draw))
    fine = tvo(draw, tuple(i / 4000 for i in range(4000)))
    assert_close(fine, vaelib.iwae(draw), rtol=0, atol=0.01)


@torch.no_grad()
def test_with_many_draws_they_are_the_integrals_that_they_estimate():
    """z ~ N(0, 1), x | z ~ N(z, 1/2), q = N(0.4, 0.9): everything by quadrature."""
    x, q = torch.tensor([[1.0]], dtype=torch.float64), Normal(0.4, 0.9)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    cell = (grid[1] - grid[0]).item()

    def log_joint(z):
        return Normal(0.0, 1.0).log_prob(z) + Normal(z, 0.5**0.5).log_prob(x.squeeze())

    log_q, log_p = q.log_prob(grid), log_joint(grid)
    z = q.sample((500_000, 1, 1)).double()
    q_of = normal(torch.full((1, 1), 0.4).double(), torch.full((1, 1), 0.9).double())
    draw = Draw.of(x, normal(z, torch.full_like(z, 0.5**0.5)), Latent(z, q_of, standard(1)))
    for alpha in (0.2, 0.5, 0.8):
        exact = ((alpha * log_q + (1 - alpha) * log_p).logsumexp(0) + torch.tensor(cell).log()) / (
            1 - alpha
        )
        assert_close(renyi(draw, alpha), exact.view(1), rtol=0, atol=5e-3)
    betas = (0.0, 0.1, 0.4)
    exact = 0.0
    for beta, step in zip(betas, (0.1, 0.3, 0.6)):
        path = ((1 - beta) * log_q + beta * log_p).softmax(0)
        exact += step * (path * (log_p - log_q)).sum()
    assert_close(tvo(draw, betas), exact.view(1), rtol=0, atol=5e-3)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_renyi_refuses_what_is_no_lower_bound(alpha):
    draw = KINDS["flat"].make().draw(KINDS["flat"].data()[0], 3)
    with pytest.raises(ValueError, match="expected a number from 0"):
        renyi(draw, alpha)


@pytest.mark.parametrize("betas", [(), (0.1, 0.5), (0.0, 0.5, 0.5), (0.0, 1.0)])
def test_tvo_refuses_betas_that_are_no_left_ends(betas):
    draw = KINDS["flat"].make().draw(KINDS["flat"].data()[0], 3)
    with pytest.raises(ValueError, match="expected rising numbers, the first 0"):
        tvo(draw, betas)


# The doubly reparameterized gradient -------------------------------------------------------------


def held(module: LinearNormal, v):
    """The module's distribution, by weights that carry no gradient, at an input that may."""
    weights = {name: p.detach() for name, p in module.named_parameters()}
    return torch.func.functional_call(module, weights, (v,))


class Ladder(TopDown):
    """TopDown, whose second latent carries what dreg needs; or what is wrong."""

    detached = False

    def infer(self, x, num_samples=1, noise=None, y=None):
        px_z, first, second = super().infer(x, num_samples, noise, y)
        seen = torch.cat([first.z, x.expand(len(first.z), *x.shape)], -1)
        stopped = held(self.q1, seen.detach() if self.detached else seen)
        return px_z, first, Latent(second.z, second.q, second.p, stopped=stopped)


class Detached(Ladder):
    detached = True


class Chain(BottomUp):
    def infer(self, x, num_samples=1, noise=None, y=None):
        px_z, first, second = super().infer(x, num_samples, noise, y)
        return px_z, first, Latent(second.z, second.q, second.p, stopped=held(self.q2, first.z))


class ReadsBoth(TopDown):
    """A decoder that reads z2 as well, so that the upper layer has two ways to x."""

    def infer(self, x, num_samples=1, noise=None, y=None):
        q2 = self.q2(x)
        z2 = moved(q2, num_samples, None)
        seen = torch.cat([z2, x.expand(len(z2), *x.shape)], -1)
        q1 = self.q1(seen)
        z1 = moved(q1, num_samples, None)
        second = Latent(z1, q1, self.p1(z2), stopped=held(self.q1, seen))
        px_z = normal(self.decoder(z1) + z2.sum(-1, keepdim=True), SX)
        return px_z, Latent(z2, q2, standard(2)), second


def differences(model, x, num_samples=4, times=64, copies=200):
    """Gradients of dreg less those of iwae, on the same draws, [times, parameters]."""
    x = x.repeat(copies, 1)
    rows = []
    for seed in range(times):
        row = []
        for objective in (dreg, vaelib.iwae):
            torch.manual_seed(seed)
            value = objective(model.draw(x, num_samples)).mean()
            row.append(torch.autograd.grad(value, list(model.parameters())))
        rows.append(torch.cat([(a - b).flatten() for a, b in zip(*row)]))
    return torch.stack(rows)


@pytest.mark.parametrize("build", [KINDS["flat"].build, Ladder, Chain, ReadsBoth])
def test_dreg_is_iwae_by_another_gradient_of_the_same_mean(build):
    torch.manual_seed(1)
    model, x = build().double(), KINDS["flat"].data(2)[0]
    x = x if build is KINDS["flat"].build else KINDS["top_down"].data(2)[0]
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    draw = model.draw(x, 5)
    assert_close(dreg(draw), vaelib.iwae(draw))
    mean, error = mean_and_error(differences(model, x))
    assert within(mean, 0.0, error) and error.max() > 1e-5


def test_it_is_told_from_a_gradient_that_forgets_how_a_layer_moves_the_next_q():
    torch.manual_seed(1)
    model, x = Detached(), KINDS["top_down"].data(2)[0]
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    mean, error = mean_and_error(differences(model, x))
    assert not within(mean, 0.0, error)


def test_dreg_leaves_the_gradient_of_p_as_it_is():
    kind = KINDS["flat"]
    model, x = kind.make(), kind.data()[0]
    parameters = [p for name, p in model.named_parameters() if name.startswith("decoder")]
    assert parameters
    found = []
    for objective in (dreg, vaelib.iwae):
        torch.manual_seed(0)
        found.append(torch.autograd.grad(objective(model.draw(x, 5)).sum(), parameters))
    for a, b in zip(*found):
        assert_close(a, b)


def test_dreg_has_no_noise_where_q_is_exact_whatever_K():
    ppca = Ppca()
    model, x = ppca.vae(), ppca.sample(4)
    parameters = list(model.encoder.parameters())
    for parameter in parameters:
        parameter.requires_grad_()
    for num_samples in (1, 7):
        largest = {}
        for objective in (dreg, vaelib.iwae):
            value = objective(model.draw(x, num_samples)).sum()
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            largest[objective] = max(g.abs().max() for g in found if g is not None)
        landed, noisy = largest.values()
        assert landed < 1e-5 < 1e-2 < noisy


def test_with_one_draw_dreg_is_sticking_the_landing():
    kind = KINDS["flat"]
    model, x = kind.make(), kind.data()[0]
    found = []
    for objective in (dreg, vaelib.stl):
        torch.manual_seed(0)
        found.append(torch.autograd.grad(objective(model.draw(x, 1)).sum(), model.parameters()))
    for a, b in zip(*found):
        assert_close(a, b)


@names("listed", "labelled", "quantized")
def test_dreg_refuses_what_is_not_drawn_by_equal_draws(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    with pytest.raises(ValueError, match="is not drawn by equal draws"):
        dreg(kind.make().draw(x, 3, y=y))


def test_dreg_refuses_a_q_of_earlier_latents_without_its_stopped_twin():
    kind, (x, _) = KINDS["top_down"], KINDS["top_down"].data()
    with pytest.raises(ValueError, match="reads earlier latents, and its Latent carries no"):
        dreg(kind.make().draw(x, 3))


@pytest.mark.parametrize(
    "objective", [dreg, functools.partial(renyi, alpha=0.5), tvo], ids=["dreg", "renyi", "tvo"]
)
def test_each_trains(objective):
    torch.manual_seed(0)
    ppca = Ppca(latent_dim=2)
    x = ppca.sample(512).float()
    likelihood = vaelib.gaussian(0.7)
    model = vaelib.mlp_vae(2, (16,), x_shape=(5,), likelihood=likelihood)
    before = vaelib.log_marginal(model, x, 50).mean
    vaelib.fit(model, x, objective=objective, num_samples=4, epochs=5, lr=1e-2)
    assert vaelib.log_marginal(model, x, 50).mean > before + 0.5
    vaelib.check_model(model, x, objective=objective)
