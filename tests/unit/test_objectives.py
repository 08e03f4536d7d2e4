"""Bounds against exact answers: pPCA in closed form, a non-linear model by quadrature."""

import functools
import math

import pytest
import torch
from oracles import Ppca, grid_2d
from torch import nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

import vaelib
from vaelib.objectives import cyclical, linear, modules_of, takes_step


@pytest.fixture
def curved():
    """A small VAE with a non-linear Bernoulli decoder, and binary data for it, in float64."""
    torch.manual_seed(3)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 6))
    encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    model = vaelib.VAE(encoder, decoder, latent_dim=2).double()
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(3)
    x = (torch.rand(4, 6, dtype=torch.float64) < 0.5).double()
    return model, x


@torch.no_grad()
def test_every_weight_is_the_evidence_where_q_is_exact():
    ppca = Ppca()
    x = ppca.sample(16)
    draw = ppca.vae().draw(x, num_samples=7)
    exact = ppca.evidence().log_prob(x)
    assert_close(draw.log_w, exact.expand(7, 16), rtol=0, atol=1e-6)
    assert_close(vaelib.iwae(draw), exact, rtol=0, atol=1e-6)
    assert_close(vaelib.elbo(draw, analytic=False), exact, rtol=0, atol=1e-6)


@torch.no_grad()
def test_gap_of_the_elbo_is_the_posterior_kl_on_ppca():
    ppca = Ppca()
    x = ppca.sample(5)
    model = ppca.vae(stretch=1.5, shift=0.4)
    draw = model.draw(x, num_samples=100_000)
    q = model.encode(x)
    posterior = ppca.posterior(x)
    q_full = torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    expected = ppca.evidence().log_prob(x) - kl_divergence(q_full, posterior)
    for bound, spread in [
        (vaelib.elbo(draw), draw.log_px_z.std(0)),
        (vaelib.elbo(draw, analytic=False), draw.log_w.std(0)),
    ]:
        assert ((bound - expected).abs() < 4 * spread / math.sqrt(100_000)).all()


@torch.no_grad()
def test_elbo_is_evidence_minus_posterior_kl_by_quadrature(curved):
    model, x = curved
    z, log_cell = grid_2d()
    log_pz = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    logits = model.decoder(z)
    q = model.encode(x)
    for i in range(len(x)):
        log_px_z = -nn.functional.binary_cross_entropy_with_logits(
            logits, x[i].expand_as(logits), reduction="none"
        ).sum(-1)
        log_px = torch.logsumexp(log_px_z + log_pz, 0) + log_cell
        log_q = torch.distributions.Normal(q.mean[i], q.stddev[i]).log_prob(z).sum(-1)
        cell = (log_q + log_cell).exp()
        assert_close(cell.sum().item(), 1.0, rtol=0, atol=1e-8)
        kl = (cell * (log_q - (log_px_z + log_pz - log_px))).sum()
        elbo = (cell * (log_px_z + log_pz - log_q)).sum()
        assert_close(elbo, log_px - kl, rtol=0, atol=1e-8)
        draw = model.draw(x[i : i + 1].expand(200, -1), num_samples=500)
        estimate = vaelib.elbo(draw)
        assert abs(estimate.mean() - elbo) < 4 * estimate.std() / math.sqrt(len(estimate))


@torch.no_grad()
def test_iwae_grows_with_k_towards_the_evidence():
    ppca = Ppca()
    x = ppca.sample(1).expand(20_000, -1)
    model = ppca.vae(stretch=2.0, shift=0.5)
    torch.manual_seed(0)
    bounds = [vaelib.iwae(model.draw(x, num_samples=k)) for k in (1, 2, 8, 32)]
    means = torch.stack([b.mean() for b in bounds])
    errors = torch.stack([b.std() / math.sqrt(len(b)) for b in bounds])
    steps = means.diff()
    assert (steps > 4 * (errors[1:] ** 2 + errors[:-1] ** 2).sqrt()).all()
    assert (means < ppca.evidence().log_prob(x[0])).all()


@torch.no_grad()
def test_iwae_is_the_sampled_elbo_at_one_draw(curved):
    model, x = curved
    draw = model.draw(x)
    assert_close(vaelib.iwae(draw), vaelib.elbo(draw, analytic=False))


@torch.no_grad()
def test_analytic_kl_is_the_mean_of_the_sampled_one(curved):
    model, x = curved
    draw = model.draw(x, num_samples=100_000)
    sampled = draw.log_qz_x - draw.log_pz
    assert ((sampled.mean(0) - draw.kl).abs() < 4 * sampled.std(0) / math.sqrt(100_000)).all()
    assert draw.kl_parts.shape == (4, 2)
    assert (draw.kl_parts >= 0).all()


@pytest.mark.parametrize("objective", [vaelib.elbo, vaelib.iwae])
def test_gradients_are_those_of_finite_differences(curved, objective):
    model, x = curved
    noise = torch.randn(3, len(x), 2, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def value(*parameters):
        def bound(x):
            return objective(model.draw(x, num_samples=3, noise=noise))

        class Bound(nn.Module):  # functional_call replaces parameters under their own names
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, x):
                return bound(x)

        state = {f"model.{n}": p for n, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Bound(), state, (x,))

    parameters = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(value, parameters, fast_mode=True)


def test_sticking_the_landing_has_the_elbos_value_and_mean_gradient(curved):
    """200 groups of 100 draws: the mean gradients agree within 4 standard errors, elementwise."""
    model, x = curved
    parameters = list(model.encoder.parameters())

    def gradients(objective):
        torch.manual_seed(0)
        rows = []
        for _ in range(200):
            value = objective(model.draw(x, 100)).sum()
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]))
        return torch.stack(rows)

    sampled = functools.partial(vaelib.elbo, analytic=False)
    draw = model.draw(x, 5)
    assert_close(vaelib.stl(draw), sampled(draw))
    a, b = gradients(vaelib.stl), gradients(sampled)
    assert not torch.equal(a, b)
    error = (a - b).std(0) / math.sqrt(len(a))
    assert ((a - b).mean(0).abs() <= 4 * error + 1e-9).all()


def test_sticking_the_landing_has_no_noise_where_q_is_exact():
    ppca = Ppca()
    model, x = ppca.vae(), ppca.sample(4)
    parameters = list(model.encoder.parameters())
    for parameter in parameters:
        parameter.requires_grad_()
    largest = {}
    for objective in (vaelib.stl, functools.partial(vaelib.elbo, analytic=False)):
        value = objective(model.draw(x, 1)).sum()
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        largest[objective] = max(g.abs().max() for g in found if g is not None)
    (landed, noisy) = largest.values()
    assert landed < 1e-5 < 1e-2 < noisy


def test_sticking_the_landing_needs_a_posterior_that_it_can_stop(curved):
    class Own(torch.distributions.Normal):
        """It may have a log_prob of its own."""

    def own(parameters):
        mu, log_var = parameters.chunk(2, -1)
        return Own(mu, (0.5 * log_var).exp())

    model, x = curved
    model.posterior = own
    with pytest.raises(ValueError, match="posterior is a Own; expected Normal, Laplace"):
        vaelib.stl(model.draw(x))


def test_elbo_without_a_closed_form_uses_the_draws():
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        torch.distributions.Independent(
            torch.distributions.Normal(torch.tensor([[-1.0, 0], [1, 0]]), torch.ones(2, 2)), 1
        ),
    )
    model = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, prior=mixture)
    draw = model.draw(torch.zeros(3, 6), num_samples=2)
    assert draw.kl_parts is None
    assert_close(vaelib.elbo(draw), draw.log_w.mean(0))
    with pytest.raises(ValueError, match="no analytic KL"):
        _ = draw.kl


@torch.no_grad()
def test_beta_weighs_the_kl(curved):
    model, x = curved
    draw = model.draw(x, num_samples=3)
    for beta in (0.0, 0.5, 4.0):
        expected = draw.log_px_z.mean(0) - beta * draw.kl
        assert_close(vaelib.elbo(draw, beta=beta), expected)
    sampled = (draw.log_qz_x - draw.log_pz).mean(0)
    expected = draw.log_px_z.mean(0) - 2 * sampled
    assert_close(vaelib.elbo(draw, analytic=False, beta=2.0), expected)


def test_free_bits_take_the_price_off_latents_that_carry_less(curved):
    model, x = curved
    draw = model.draw(x)
    mean_kl = draw.kl_parts.mean(0).detach()
    least = float(mean_kl.mean())  # between the two
    assert float(mean_kl.min()) < least < float(mean_kl.max())
    value = vaelib.elbo(draw, free_bits=least)
    expected = draw.log_px_z.mean(0).mean() - mean_kl.clamp(min=least).sum()
    assert_close(value.mean().detach(), expected.detach())
    (gradient,) = torch.autograd.grad(value.mean(), draw.kl_parts, retain_graph=True)
    assert_close(gradient, -(mean_kl > least).double().expand_as(gradient) / len(x))
    assert bool(value.mean() < vaelib.elbo(draw).mean())


@torch.no_grad()
def test_capacity_is_the_kl_that_is_aimed_at(curved):
    model, x = curved
    draw = model.draw(x)
    expected = draw.log_px_z.mean(0) - 10 * (draw.kl - 1.5).abs()
    assert_close(vaelib.elbo(draw, beta=10, capacity=1.5), expected)
    half = linear(200, end=3.0)
    assert_close(vaelib.elbo(draw, beta=10, capacity=half, step=torch.tensor(100)), expected)


def test_schedules_run_on_steps():
    def values(schedule, steps):
        return [round(float(schedule(torch.tensor(step))), 6) for step in steps]

    assert values(linear(100), (0, 25, 100, 1000)) == [0.0, 0.25, 1.0, 1.0]
    assert values(linear(10, 4.0, 1.0), (0, 5, 10)) == [4.0, 2.5, 1.0]
    assert values(cyclical(100), (0, 25, 50, 99, 100, 125)) == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    assert values(cyclical(10, share=1.0), (5, 9, 10)) == [0.5, 0.9, 0.0]


@torch.no_grad()
def test_every_argument_changes_the_objective(curved):
    model, x = curved
    draw, step = model.draw(x, num_samples=2), torch.tensor(3)
    changes = [
        {},
        {"analytic": False},
        {"beta": 0.7},
        {"beta": linear(10)},
        {"beta": linear(20)},
        {"beta": cyclical(8)},
        {"beta": cyclical(8, share=0.9)},
        {"free_bits": 10.0},
        {"free_bits": 11.0},
        {"capacity": 1.0},
        {"capacity": linear(10, end=2.0)},
    ]
    values = [float(vaelib.elbo(draw, step=step, **change).sum()) for change in changes]
    assert len(set(values)) == len(changes)


@torch.no_grad()
def test_arguments_that_make_no_sense_are_refused(curved):
    model, x = curved
    draw = model.draw(x)
    for name in ("beta", "free_bits", "capacity"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            vaelib.elbo(draw, **{name: -1.0})
    with pytest.raises(ValueError, match="schedule, .* no step"):
        vaelib.elbo(draw, beta=linear(10))
    with pytest.raises(ValueError, match="free_bits needs the analytic KL"):
        vaelib.elbo(draw, analytic=False, free_bits=1.0)


def test_fit_hands_the_step_to_a_warm_up_and_remembers_its_length(tmp_path):
    def trained(objective, out):
        torch.manual_seed(0)
        model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
        x = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
        history = vaelib.fit(model, x, objective=objective, epochs=2, batch_size=10, out=out)
        return history.train

    slow = functools.partial(vaelib.elbo, beta=linear(1000))
    quick = functools.partial(vaelib.elbo, beta=linear(1))
    assert trained(slow, tmp_path)[0] > trained(quick, None)[0]
    with pytest.raises(ValueError, match=r"objective = .*linear\(steps=1000.*linear\(steps=1,"):
        trained(quick, tmp_path)


class Warm(nn.Module):
    def forward(self, draw, weight=1.0, step=None):
        return draw.log_px_z.mean(0)

    def without_step(self, draw):
        return draw.log_px_z.mean(0)


def test_the_step_and_the_modules_of_an_objective_are_found_in_what_holds_them():
    warm = Warm()
    held = functools.partial(functools.partial(warm, weight=2.0), weight=3.0)
    assert [takes_step(o) for o in (warm, held, warm.forward)] == [True, True, True]
    assert takes_step(functools.partial(vaelib.elbo, beta=2.0))
    assert not takes_step(warm.without_step) and not takes_step(vaelib.iwae)
    for objective in (warm, held, warm.forward, warm.without_step):
        assert modules_of(objective) == [warm]
    assert modules_of(vaelib.elbo) == []
