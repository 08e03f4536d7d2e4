"""`check_model` passes each kind of model that keeps the contract, and leaves it as it was.

The faults that it finds are in test_check_infer.py, test_check_training.py and
test_check_generate.py, what it asks of an objective in test_check_objective.py. Statistical
promises are tested at about five standard errors or more, so that what is right passes, whatever
the seed.
"""

import random

import numpy as np
import pytest
import torch
from breakable import GREY, BottomUp, Flat, TwoLayers, X, check, normal
from kinds import KINDS
from torch import nn
from torch.distributions import (
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)

import vaelib
from vaelib import Draw
from vaelib.check import check_model
from vaelib.posteriors import AutoregressiveFlow, CouplingFlow, NormalMixture, full_covariance
from vaelib.priors import AutoregressivePrior, FlowPrior

# What keeps its promises -------------------------------------------------------------------------


def mixed(parameters):
    """A posterior of correlated dimensions, without a cdf."""
    loc, log_scale = parameters.chunk(2, -1)
    scale_tril = torch.diag_embed(log_scale.exp()) + 0.5 * torch.ones(2, 2).tril(-1)
    return MultivariateNormal(loc, scale_tril=scale_tril)


SHAPE = {"x_shape": (1, 8, 8)}
RIGHT = {
    "mlp": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE), GREY),
    "conv": (lambda: vaelib.conv_vae(3, (4, 8), **SHAPE), GREY),
    "gaussian": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE, likelihood=vaelib.gaussian(0.3)), GREY),
    "learned scale": (
        lambda: vaelib.conv_vae(2, (4,), **SHAPE, likelihood=vaelib.likelihoods.OptimalGaussian()),
        GREY,
    ),
    "laplace": (
        lambda: vaelib.mlp_vae(3, (8,), **SHAPE, posterior=vaelib.posteriors.laplace),
        GREY,
    ),
    "correlated": (lambda: vaelib.mlp_vae(2, (8,), **SHAPE, posterior=mixed), GREY),
    "flow prior": (lambda: vaelib.mlp_vae(2, (8,), **SHAPE, prior=FlowPrior(2)), GREY),
    "autoregressive prior": (
        lambda: vaelib.mlp_vae(2, (8,), **SHAPE, prior=AutoregressivePrior(2)),
        GREY,
    ),
    "full covariance": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE, posterior=full_covariance), GREY),
    "coupling flow": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE, posterior=CouplingFlow(3)), GREY),
    "autoregressive flow": (
        lambda: vaelib.mlp_vae(3, (8,), **SHAPE, posterior=AutoregressiveFlow(3)),
        GREY,
    ),
    "mixture": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE, posterior=NormalMixture(3)), GREY),
    "flat": (Flat, X),
    "two layers": (TwoLayers, X),
    "bottom-up": (BottomUp, X),
    "numpy": (Flat, X.double().numpy()),
    "double": (lambda: vaelib.mlp_vae(3, (8,), **SHAPE).double(), GREY),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name):
    build, data = RIGHT[name]
    check(build, data)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_keeps_the_contract(name):
    kind = KINDS[name]
    x, y = kind.data(32)
    check_model(kind.make(), x, y=y, objective=kind.objective())


@pytest.mark.parametrize("kind", [Gamma, LogNormal, "one-hot", "relaxed", "grid"])
def test_posteriors_of_other_supports_pass(kind):
    """Over positive numbers, corners, a simplex, and a map of channels."""

    class Other(Flat):
        noise_dim = None

        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(5, 8)

        def family(self, parameters):
            some, cube = parameters[..., :4], parameters.unflatten(-1, (2, 2, 2))
            if kind == "one-hot":
                return Independent(OneHotCategoricalStraightThrough(logits=cube[..., 0, :]), 1)
            if kind == "relaxed":
                return RelaxedOneHotCategorical(torch.tensor(0.7), logits=some)
            if kind == "grid":
                return Independent(Normal(cube, 0.1), 3)
            a, b = some.chunk(2, -1)
            return Independent(kind(a.exp() if kind is Gamma else a, b.exp()), 1)

        def q(self, x):
            return self.family(self.enc(x))

        def pz(self):
            return self.family(torch.zeros(8))

        def px_z(self, z):
            flat = z.flatten(-len(self.pz().event_shape))
            return normal(self.dec(flat[..., :2]), 0.5)

        def generate(self, n, y=None):
            z = self.pz().sample((n,))
            return self.px_z(z), z

    check(Other)


@pytest.mark.parametrize("seed", range(5))
def test_no_seed_finds_fault_with_what_is_right(seed):
    torch.manual_seed(seed)
    check_model(TwoLayers(), X, seed=seed)


def test_the_model_and_every_random_state_stay_as_they_were():
    torch.manual_seed(0)
    model = vaelib.conv_vae(2, (4,), **SHAPE, likelihood=vaelib.likelihoods.OptimalGaussian())
    state = {name: t.clone() for name, t in model.state_dict().items()}
    seen = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    check_model(model, GREY)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), seen[0])
    assert (np.random.get_state()[1] == seen[1]).all() and random.getstate() == seen[2]  # noqa: NPY002


# What it is handed, and what it says -------------------------------------------------------------


def test_a_plain_module_is_checked_in_what_it_has():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = Flat()

        def forward(self, x, num_samples=1):
            return Draw.of(x, *self.flat.infer(x, num_samples))

    check(Plain)


def test_a_draw_made_by_hand_is_checked_in_what_it_says():
    class ByHand(Flat):
        noise_dim = None
        off, kl_parts = 0.0, None

        def draw(self, x, num_samples=1):
            x = self.prepare(x)
            q = self.q(x)
            z = q.rsample((num_samples,))
            px_z = self.px_z(z)
            log_p, log_q = self.pz().log_prob(z), q.log_prob(z) + self.off
            return Draw(x, z, px_z.log_prob(x), log_p, log_q, q, self.kl_parts, px_z)

    check(ByHand)
    ByHand.kl_parts = torch.ones(8, 2)
    with pytest.raises(ValueError, match="kl_parts are off"):
        check(ByHand)
    ByHand.kl_parts, ByHand.off = None, 0.1
    with pytest.raises(ValueError, match="log_qz_x is not the log-density .* vaelib.Draw.of"):
        check(ByHand)


def test_labels_are_handed_as_in_training_and_in_use():
    kind = KINDS["given"]
    x, y = kind.data(32)
    with pytest.raises(ValueError, match="the data have none; expected Images"):
        check_model(kind.make(), x)
    check_model(kind.make(), vaelib.data.Images(x, y))
    kind = KINDS["labelled"]
    x, _ = kind.data(32)
    check_model(kind.make(), x, y=torch.arange(32) % 3)  # half of them are withheld


@pytest.mark.parametrize("data", [X[:1], X * torch.nan, X[:, 0], "x"])
def test_data_that_are_none_are_refused(data):
    with pytest.raises((ValueError, TypeError)):
        check(Flat, data)
