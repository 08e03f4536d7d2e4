"""Flows: undone exactly, their determinants autograd's, their laws of mass one and drawn as said.

Weights are drawn at random, far from the start, in float64; statistical tests allow 4 standard
errors.
"""

import math

import pytest
import torch
from oracles import grid_2d
from torch.distributions import Independent, Normal
from torch.testing import assert_close

import vaelib
from vaelib.flows import AutoregressiveLayers, CouplingLayers, Flow
from vaelib.nets import autocast, masked_mlp
from vaelib.posteriors import AutoregressiveFlow, CouplingFlow, normal

LAYERS = [CouplingLayers, AutoregressiveLayers]
POSTERIORS = [CouplingFlow, AutoregressiveFlow]
every_flow = pytest.mark.parametrize("kind", LAYERS)
every_posterior = pytest.mark.parametrize("kind", POSTERIORS)


def shaken(module, seed=0, std=0.2):
    """In float64, its weights drawn anew."""
    torch.manual_seed(seed)
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def posterior(kind, latent_dim=3, batch_size=4, seed=0, num_layers=3):
    """A posterior far from its start, and its q, with the parameters that q was made of."""
    flow = shaken(kind(latent_dim, context_dim=2, hidden=12, num_layers=num_layers), seed)
    parameters = torch.randn(batch_size, 2 * latent_dim + 2, dtype=torch.float64)
    parameters.requires_grad_()
    return flow, flow(parameters), parameters


# The maps ----------------------------------------------------------------------------------------


@torch.no_grad()
@every_flow
@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize("latent_dim", [2, 5])
def test_what_is_bent_is_unbent(kind, context_dim, latent_dim):
    flow = shaken(kind(latent_dim, hidden=16, num_layers=3, context_dim=context_dim))
    x = 2 * torch.randn(7, 4, latent_dim, dtype=torch.float64)
    context = torch.randn(4, context_dim, dtype=torch.float64) if context_dim else None
    y, log_det = flow.bend(x, context)
    assert (y - x).abs().mean() > 0.3
    again, log_det_again = flow.unbend(y, context)
    assert_close(again, x, rtol=0, atol=1e-10)
    assert_close(log_det_again, log_det, rtol=0, atol=1e-10)


@every_flow
def test_the_determinant_is_that_of_autograds_jacobian(kind):
    flow = shaken(kind(5, hidden=16, num_layers=3, context_dim=2))
    x, context = torch.randn(5, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.bend(x, context)[0], x)
    assert_close(flow.bend(x, context)[1], torch.linalg.slogdet(jacobian)[1])


@torch.no_grad()
@every_flow
def test_a_flow_starts_as_the_identity(kind):
    x = torch.randn(3, 5)
    y, log_det = kind(5, context_dim=2).bend(x, torch.randn(3, 2))
    assert torch.equal(y, x) and torch.equal(log_det, torch.zeros(3))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hidden", [2, 16])
def test_a_masked_net_reads_what_is_before(reverse, hidden):
    net = shaken(masked_mlp(4, hidden, 2, reverse=reverse))
    x = torch.randn(4, dtype=torch.float64)
    for block in torch.autograd.functional.jacobian(net, x).split(4):
        block = block.flip(0, 1) if reverse else block
        assert torch.equal(block.triu(), torch.zeros(4, 4).double())
        if hidden == 16:
            assert (block.tril(-1) != 0).sum() == 6


@every_flow
@pytest.mark.parametrize("sizes", [{"latent_dim": 1}, {"latent_dim": 3, "context_dim": -1}])
def test_sizes_that_make_no_flow_get_a_sentence(kind, sizes):
    with pytest.raises(ValueError, match="at least 2 latents"):
        kind(**sizes)
    with pytest.raises(ValueError, match="positive whole numbers"):
        kind(3, hidden=0)


# The laws ----------------------------------------------------------------------------------------


def moments(z):
    return torch.stack([z[..., 0], z[..., 1], *(z**2).unbind(-1), z.prod(-1)], -1)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", [*LAYERS, *POSTERIORS])
def test_a_density_has_mass_one_and_the_moments_of_its_draws(kind, seed):
    """Quadrature over the plane, and 40,000 draws."""
    if kind in LAYERS:
        q = Flow(shaken(kind(2, hidden=16), seed))
    else:
        q = posterior(kind, 2, 1, seed)[1]
    z, log_area = grid_2d(half_width=18.0, points=721)
    p = (q.log_prob(z.unsqueeze(-2) if kind in POSTERIORS else z).reshape(-1) + log_area).exp()
    assert math.isclose(p.sum(), 1, abs_tol=1e-4)
    drawn = moments(q.sample((40_000,)).reshape(-1, 2))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - p @ moments(z)).abs() < 4 * error).all()


@every_posterior
def test_a_posterior_starts_as_the_diagonal_normal(kind):
    flow = kind(3, context_dim=2)
    parameters = torch.randn(4, flow.num_parameters(3))
    exact = Independent(normal(parameters[:, :6]), 1)
    z = torch.randn(5, 4, 3)
    assert_close(flow(parameters).log_prob(z), exact.log_prob(z))
    torch.manual_seed(0)
    ours = flow(parameters).rsample((2,))
    torch.manual_seed(0)
    assert_close(ours, exact.rsample((2,)))


@torch.no_grad()
@every_posterior
def test_a_posteriors_mean_is_near_that_of_its_draws(kind):
    """128 draws' errors off at most, and exact where nothing is bent."""
    q = posterior(kind)[1]
    drawn = q.sample((40_000,))
    assert ((q.mean - drawn.mean(0)).abs() < 4 * drawn.std(0) / math.sqrt(128)).all()
    parameters = torch.randn(4, 8).double()
    assert_close(kind(3, context_dim=2).double()(parameters).mean, parameters[:, :3])


@every_posterior
def test_a_posterior_that_ignores_x_has_no_active_units(kind):
    model = vaelib.mlp_vae(3, (8,), x_shape=(4,), posterior=shaken(kind(3, context_dim=2)).float())
    x = torch.rand(200, 4)
    with torch.no_grad():
        model.encoder[-1].weight.mul_(10)
        assert vaelib.evaluate.active_units(model, x) == 3
        model.encoder[-1].weight.zero_()
    assert vaelib.evaluate.active_units(model, x) == 0


@every_posterior
def test_draws_that_share_a_context_are_those_of_each_example(kind):
    flow, q, parameters = posterior(kind)
    z = q.rsample((6,))
    for i, one in enumerate(parameters):
        alone = flow(one.expand(6, -1))
        assert_close(alone.log_prob(z[:, i].clone()), q.log_prob(z)[:, i])


@every_posterior
def test_a_posterior_takes_any_leading_axes(kind):
    q = posterior(kind)[1]
    one = torch.randn(3, dtype=torch.float64)
    assert_close(q.log_prob(one), q.log_prob(one.expand(4, 3)))
    pairs = q.log_prob(torch.randn(5, 1, 3, dtype=torch.float64).expand(5, 4, 3))
    assert pairs.shape == (5, 4)


# What is remembered, and what is held ------------------------------------------------------------


def gradients(value, tensors):
    return torch.autograd.grad(value.sum(), tensors, retain_graph=True)


@every_posterior
def test_the_remembered_density_is_the_one_by_unbending_and_so_is_its_gradient(kind):
    flow, q, parameters = posterior(kind)
    z = q.rsample((5,))
    remembered, unbent = q.log_prob(z), q.log_prob(z.clone())  # another tensor is unbent
    assert remembered is q.log_prob(z) and remembered is not unbent
    assert_close(remembered, unbent, rtol=0, atol=1e-10)
    of = [parameters, *flow.parameters()]
    for ours, theirs in zip(gradients(remembered, of), gradients(unbent, of), strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@every_posterior
def test_the_remembered_densitys_gradient_is_that_of_finite_differences(kind):
    flow, _, parameters = posterior(kind, batch_size=2)

    def log_q(parameters):
        torch.manual_seed(1)
        q = flow(parameters)
        return q.log_prob(q.rsample((2,)))

    assert torch.autograd.gradcheck(log_q, parameters)


@every_posterior
def test_a_draw_without_a_gradient_is_not_remembered_where_one_is_asked(kind):
    """As of an objective that scores a sample."""
    _, q, parameters = posterior(kind)
    z = q.sample((5,))
    with torch.no_grad():
        assert q.log_prob(z) is q.log_prob(z)
    assert gradients(q.log_prob(z), [parameters])[0].abs().sum() > 0
    z.requires_grad_()
    assert gradients(q.log_prob(z), [z])[0].abs().sum() > 0


@every_posterior
def test_an_older_draw_is_unbent(kind):
    _, q, _ = posterior(kind)
    first = q.rsample((2,))
    log_q = q.log_prob(first)
    assert not torch.equal(q.log_prob(q.rsample((2,))), log_q)
    assert_close(q.log_prob(first), log_q)


@torch.no_grad()
@every_posterior
def test_a_draw_that_was_changed_in_place_is_unbent(kind):
    _, q, _ = posterior(kind)
    z = q.sample((2,))
    before = q.log_prob(z)
    z += 0.5
    assert_close(q.log_prob(z), q.log_prob(z.clone()))
    assert not torch.allclose(q.log_prob(z), before)


@every_posterior
def test_inference_mode_counts_no_changes_and_needs_none(kind):
    _, q, _ = posterior(kind)
    with torch.inference_mode():
        z = q.sample((2,))
        assert q.log_prob(z) is q.log_prob(z)
        assert_close(q.log_prob(z), q.log_prob(z.clone()))


@pytest.mark.parametrize("kind", [*LAYERS, *POSTERIORS])
def test_a_stopped_law_has_the_gradient_of_z_alone(kind):
    if kind in LAYERS:
        flow, parameters = shaken(kind(3, hidden=12)), None
        q = Flow(flow)
    else:
        flow, q, parameters = posterior(kind)
    z = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    stopped = q.stopped()
    assert_close(stopped.log_prob(z), q.log_prob(z))
    assert_close(gradients(stopped.log_prob(z), [z]), gradients(q.log_prob(z), [z]))
    assert not stopped.log_prob(z.detach()).requires_grad
    assert not stopped.rsample((2,)).requires_grad
    of = [*flow.parameters()] + ([] if parameters is None else [parameters])
    found = torch.autograd.grad(stopped.log_prob(z).sum(), of, allow_unused=True)
    assert all(grad is None for grad in found)
    assert all(grad.abs().sum() > 0 for grad in gradients(q.log_prob(z), of))


@every_posterior
def test_networks_alone_run_under_autocast(kind):
    flow = shaken(kind(3, context_dim=2)).float()
    q = flow(torch.randn(4, 8))
    with autocast(torch.bfloat16):
        z = q.rsample((5,))
        found = [z, q.log_prob(z), q.log_prob(z.clone()), q.stopped().log_prob(z)]
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in found)
    assert_close(found[1], found[2], rtol=0.05, atol=0.05)
    assert not torch.equal(q.log_prob(z.clone()), found[2])  # in bfloat16 it was


def test_a_normal_by_hand_is_a_flow_of_one_layer():
    """u = 2 z + 3 on both halves: z is N(-1.5, 0.25), by constants alone."""
    flow = CouplingLayers(2, num_layers=2).double()
    for net in flow.nets:
        net[2].bias.data = torch.tensor([2 * math.atanh(math.log(2) / 2), 3.0]).double()
    z = torch.randn(6, 2, dtype=torch.float64)
    assert_close(Flow(flow).log_prob(z), Normal(-1.5, 0.5).log_prob(z).sum(-1))
