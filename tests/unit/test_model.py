"""Shapes, distributions and messages of `VAE` and `mlp_vae`."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.testing import assert_close

import vaelib


@pytest.fixture
def model():
    torch.manual_seed(0)
    return vaelib.mlp_vae(3, hidden=(8,), x_shape=(1, 4, 4))


@pytest.fixture
def x():
    return (torch.rand(5, 1, 4, 4) < 0.5).float()


@pytest.mark.parametrize("k", [1, 4])
def test_a_draw_has_samples_then_batch(model, x, k):
    draw = model.draw(x, num_samples=k)
    assert draw.z.shape == (k, 5, 3)
    for name in ("log_px_z", "log_pz", "log_qz_x", "log_w"):
        assert getattr(draw, name).shape == (k, 5), name
    assert draw.kl.shape == (5,)
    assert draw.kl_parts.shape == (5, 3)
    assert draw.qz_x.batch_shape == (5,)
    assert draw.qz_x.event_shape == (3,)
    assert vaelib.elbo(draw).shape == vaelib.iwae(draw).shape == (5,)


def test_log_densities_are_those_of_torch_distributions(model, x):
    draw = model.draw(x, num_samples=2)
    logits = model.decoder(draw.z.reshape(-1, 3)).reshape(2, 5, 1, 4, 4)
    mu, log_var = model.encoder(x).chunk(2, -1)
    expected = Bernoulli(logits=logits).log_prob(x.expand(2, -1, -1, -1, -1)).sum((2, 3, 4))
    assert_close(draw.log_px_z, expected)
    assert_close(draw.log_pz, Normal(0.0, 1.0).log_prob(draw.z).sum(-1))
    assert_close(draw.log_qz_x, Normal(mu, (log_var / 2).exp()).log_prob(draw.z).sum(-1))


def test_forward_is_draw(model, x):
    noise = torch.randn(2, 5, 3)
    assert_close(model(x, 2, noise).log_w, model.draw(x, 2, noise).log_w)


@pytest.mark.parametrize("lead", [(), (2,), (2, 5)])
def test_decode_keeps_the_leading_axes_as_batch(model, lead):
    px_z = model.decode(torch.zeros(*lead, 3))
    assert px_z.batch_shape == lead
    assert px_z.event_shape == (1, 4, 4)


def test_encode_and_reconstruct_accept_grey_and_bytes(model):
    grey = torch.rand(5, 1, 4, 4)
    assert model.reconstruct(grey).shape == grey.shape
    assert set(model.reconstruct(grey, mean=False).unique().tolist()) <= {0.0, 1.0}
    pixels = (grey * 255).to(torch.uint8)
    assert_close(model.encode(pixels).mean, model.encode(pixels.float() / 255).mean)
    assert_close(model.encode(pixels.numpy()).mean, model.encode(pixels).mean)


def test_samples_are_means_unless_asked(model):
    assert model.sample(7).shape == (7, 1, 4, 4)
    assert ((model.sample(7) > 0) & (model.sample(7) < 1)).all()
    assert set(model.sample(7, mean=False).unique().tolist()) <= {0.0, 1.0}


def test_a_model_without_parameters_follows_the_data():
    class Same(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.zeros_like(x)], -1)

    model = vaelib.VAE(Same(), nn.Identity(), 2, likelihood=vaelib.gaussian(0.5))
    draw = model.draw(torch.zeros(3, 2, dtype=torch.float64), num_samples=2)
    assert draw.log_w.dtype == torch.float64
    assert draw.log_w.shape == (2, 3)


def test_a_prior_may_be_a_module():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.ones(2))

        def forward(self):
            return Independent(Normal(torch.zeros(2), self.log_scale.exp()), 1)

    model = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, prior=Wide())
    draw = model.draw(torch.zeros(3, 6), num_samples=2)
    vaelib.elbo(draw).sum().backward()
    assert model.prior.log_scale.grad.abs().sum() > 0
    expected = Normal(torch.zeros(2), torch.e).log_prob(draw.z).sum(-1)
    assert_close(draw.log_pz, expected)


def test_a_double_model_scales_bytes_in_double(model):
    draw = model.double().draw(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8))
    assert draw.log_w.dtype == torch.float64


def test_a_users_bernoulli_is_a_bernoulli_too(x):
    def mine(logits):
        return Independent(Bernoulli(logits=logits), 3)

    model = vaelib.mlp_vae(2, (4,), x_shape=(1, 4, 4), likelihood=mine)
    assert model.draw(x).log_px_z.shape == (1, 5)
    with pytest.raises(ValueError, match="binarize"):
        model.draw(x * 0.5)


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (lambda x: x * 0.5, ValueError, "binarize"),
        (lambda x: x * 255, ValueError, "binarize"),
        (lambda x: (x * 100).to(torch.uint8), ValueError, "binarize"),
        (lambda x: x + torch.nan, ValueError, "NaN or infinite"),
        (lambda x: x / 0, ValueError, "NaN or infinite"),
        (lambda x: x[:, 0], ValueError, r"\[5, 4, 4\]; expected a batch \[B, 1, 4, 4\]"),
        (lambda x: x[:0], ValueError, "expected a batch"),
        (lambda x: 3 * x.long(), ValueError, "binarize"),
        (lambda x: x.to(torch.complex64), TypeError, "complex64; expected real"),
        (lambda x: "x.png", TypeError, "str; expected Images"),
        (lambda x: x.tolist(), TypeError, "list; expected Images"),
        (lambda x: np.array(["a"]), TypeError, "array of"),
    ],
)
def test_bad_input_gets_one_clear_sentence(model, x, bad, error, says):
    with pytest.raises(error, match=says):
        model.draw(bad(x))


@pytest.mark.parametrize("k", [0, -1])
def test_a_draw_of_none_is_refused(model, x, k):
    with pytest.raises(ValueError, match="num_samples is"):
        model.draw(x, num_samples=k)
    with pytest.raises(ValueError, match="n is"):
        model.sample(k)


def test_parts_that_do_not_fit_are_named(x):
    with pytest.raises(ValueError, match=r"encoder returned shape \[5, 3\]; expected \[5, 4\]"):
        vaelib.VAE(nn.Linear(16, 3), nn.Linear(2, 16), 2).draw(x.flatten(1))
    with pytest.raises(ValueError, match=r"p\(x\|z\) is over \[15\]"):
        vaelib.VAE(nn.Linear(16, 4), nn.Linear(2, 15), 2).draw(x.flatten(1))
    with pytest.raises(ValueError, match="prior has batch shape"):
        vaelib.VAE(nn.Linear(16, 4), nn.Linear(2, 16), 2, prior=Normal(0.0, 1.0)).draw(x.flatten(1))
    with pytest.raises(ValueError, match="latent dimension last"):
        vaelib.mlp_vae(3).decode(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="noise has shape"):
        vaelib.mlp_vae(3, x_shape=(1, 4, 4)).draw(x, noise=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="activation is 'rlu'; expected one of relu"):
        vaelib.mlp_vae(3, activation="rlu")
    with pytest.raises(ValueError, match="norm is 'batch'"):
        vaelib.mlp_vae(3, norm="batch")
    with pytest.raises(ValueError, match="latent_dim is 0"):
        vaelib.mlp_vae(0)
    with pytest.raises(ValueError, match="scale=-1"):
        vaelib.gaussian(-1)


def test_gaussian_is_squared_error_and_its_constant(x):
    model = vaelib.mlp_vae(2, (4,), x_shape=(1, 4, 4), likelihood=vaelib.gaussian(0.3))
    grey = torch.rand(5, 1, 4, 4)
    draw = model.draw(grey)
    mu = model.decode(draw.z[0]).mean
    squared = (grey - mu).square().sum((1, 2, 3))
    constant = 16 * (torch.tensor(0.3).log() + 0.5 * torch.tensor(2 * torch.pi).log())
    assert_close(draw.log_px_z[0], -squared / (2 * 0.3**2) - constant)


def test_a_likelihood_with_limits_refuses_values_outside():
    def beta(parameters):
        return torch.distributions.Beta(parameters.exp(), parameters.exp())

    model = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, likelihood=beta)
    assert model.draw(torch.full((2, 6), 0.5)).log_w.shape == (1, 2)
    with pytest.raises(ValueError, match="rescale x"):
        model.draw(torch.full((2, 6), 1.5))


def test_a_prior_whose_forward_takes_the_model_is_given_it():
    """As VampPrior's, whose components are q(z|u) at pseudo-inputs u."""

    class Pseudo(nn.Module):
        def __init__(self):
            super().__init__()
            self.u = nn.Parameter(torch.randn(1, 6))

        def forward(self, model):
            q = model.encode(self.u)
            return Independent(Normal(q.mean[0], q.stddev[0]), 1)

    torch.manual_seed(0)
    model = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, vaelib.gaussian(1.0), prior=Pseudo())
    draw = model.draw(torch.randn(3, 6), num_samples=2)
    q = model.encode(model.prior.u)
    assert_close(draw.log_pz, Normal(q.mean[0], q.stddev[0]).log_prob(draw.z).sum(-1))
    vaelib.elbo(draw).sum().backward()
    assert model.prior.u.grad.abs().sum() > 0
    assert draw.kl_parts.shape == (3, 2)
