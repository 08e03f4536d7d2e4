"""The contract: gradients are right, and finite where a term counts nothing.

The column stl of the table in test_contract.py, and finite differences.
"""

import math

import pytest
import torch
from contract import mean_and_error, names, sampled, within
from kinds import KINDS
from kinds.gaussians import normal
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent

# What counts nothing -----------------------------------------------------------------------------


def certain(requires_grad=True):
    """A listed code of three with logits for two examples, one of which leaves two codes out."""
    logits = torch.tensor([[0.2, -0.3, 0.9], [0.0, -math.inf, -math.inf]], dtype=torch.float64)
    logits.requires_grad_(requires_grad)
    loc = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64, requires_grad=requires_grad)
    q, z = Categorical(logits=logits), torch.arange(3)[:, None].expand(3, 2)
    p = Categorical(logits=torch.zeros(3, dtype=torch.float64))
    x = torch.zeros(2, 1, dtype=torch.float64)
    px_z = Independent(Normal(loc[z], 1.0), 1)
    return Draw.of(x, px_z, Latent(z, q, p, values=3)), logits, loc


def test_terms_that_count_nothing_may_be_infinite():
    draw, _, _ = certain()
    weights = draw.log_weight.exp()
    for infinite in (math.inf, -math.inf, math.nan):
        terms = torch.randn(3, 2, dtype=torch.float64)
        terms[1:, 1] = infinite
        terms.requires_grad_()
        mean = draw.mean(terms)
        expected = [(weights[:, 0] * terms[:, 0]).sum(), terms[0, 1]]
        assert_close(mean, torch.stack(expected))
        (gradient,) = torch.autograd.grad(mean.sum(), terms)
        assert_close(gradient, weights.detach())
    terms = torch.zeros(3, 2, dtype=torch.float64)
    terms[0, 1] = -math.inf  # and what counts is counted
    assert draw.mean(terms)[1] == -math.inf


@pytest.mark.parametrize(
    "objective", [vaelib.elbo, sampled, vaelib.iwae, vaelib.stl, lambda d: d.rate]
)
def test_codes_that_cannot_be_leave_every_gradient_finite(objective):
    draw, logits, loc = certain()
    value = objective(draw)
    assert value.isfinite().all()
    found = torch.autograd.grad(value.sum(), [logits, loc], allow_unused=True)
    gradients = [g for g in found if g is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert (gradients[0][1].abs() < 1e-12).all()  # logits of the example that knows its code


# Finite differences ------------------------------------------------------------------------------


@names("flat", "top_down", "given", "labelled", "listed", "autoregressive", "player")
def test_gradients_are_those_of_finite_differences(name):
    kind = KINDS[name]
    x, y = kind.data(4)
    model = kind.make()
    noise = None
    if model.noise_dim is not None:
        noise = torch.randn(2, len(x), model.noise_dim, dtype=torch.float64)
    parameters = dict(model.named_parameters())

    class Bound(nn.Module):
        def __init__(self, objective):
            super().__init__()
            self.model, self.objective = model, objective

        def forward(self):
            return self.objective(self.model(x, 2, noise=noise, y=y))

    def value_of(bound):
        def value(*tensors):
            state = {f"model.{n}": t for n, t in zip(parameters, tensors)}
            return torch.func.functional_call(bound, state, ())

        return value

    for objective in (vaelib.elbo, sampled, vaelib.iwae):
        inputs = tuple(p.detach().clone().requires_grad_() for p in parameters.values())
        assert torch.autograd.gradcheck(value_of(Bound(objective)), inputs, fast_mode=True)


# Sticking the landing ----------------------------------------------------------------------------


# Of the others, three have no noise in log q, and a drawn code is refused.
STL = [n for n in KINDS if n not in ("listed", "autoregressive", "quantized", "drawn")]


@names(*STL)
def test_sticking_the_landing_is_the_elbo_by_another_gradient(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    parameters = list(model.parameters())

    def gradient(objective):
        found = torch.autograd.grad(
            objective(model.draw(x, 20, y=y)).sum(), parameters, allow_unused=True
        )
        return torch.cat([g.flatten() for g in found if g is not None])

    draw = model.draw(x, 5, y=y)
    assert_close(vaelib.stl(draw), sampled(draw))
    torch.manual_seed(0)
    differences = []
    for seed in range(64):
        torch.manual_seed(seed)
        a = gradient(vaelib.stl)
        torch.manual_seed(seed)
        differences.append(a - gradient(sampled))
    mean, error = mean_and_error(torch.stack(differences))
    assert within(mean, 0.0, error) and error.max() > 1e-6


@names("flat", "top_down", "path", "given", "player", "missing", "full_covariance")
def test_sticking_the_landing_has_no_noise_where_q_is_exact(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make(solved=True)
    of_q = [
        p
        for n, p in model.named_parameters()
        if n.split(".")[0] in ("q", "q1", "q2", "encoder", "shift")
    ]
    largest = []
    for objective in (vaelib.stl, sampled):
        found = torch.autograd.grad(objective(model.draw(x, 1, y=y)).sum(), of_q)
        largest.append(max(g.abs().max() for g in found))
    assert largest[1] > 1e-3
    if len(kind.z_shapes) == 1:
        assert largest[0] < 1e-9


@names("drawn", "tokens_like")
def test_sticking_the_landing_refuses_a_family_that_it_does_not_know(name):
    if name == "drawn":
        x, _ = KINDS["drawn"].data()
        draw = KINDS["drawn"].make().draw(x, 3)
    else:
        x = torch.zeros(2, 1)
        q = Independent(torch.distributions.StudentT(3.0, torch.zeros(2, 1), 1.0), 1)
        z = q.rsample((3,))
        draw = Draw.of(x, normal(z, 1.0), Latent(z, q, normal(torch.zeros(1), torch.ones(1))))
    with pytest.raises(ValueError, match="expected Normal, Laplace, MultivariateNormal"):
        vaelib.stl(draw)
