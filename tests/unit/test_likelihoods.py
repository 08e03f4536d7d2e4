"""Likelihoods: quadrature, samples against densities, and what a decoder must give."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

import vaelib
from vaelib.distributions import ContinuousBernoulli
from vaelib.likelihoods import (
    LearnedGaussian,
    LearnedLogistic,
    OptimalGaussian,
    continuous_bernoulli,
    discretized_logistic,
    logistic_mixture,
    pixel_gaussian,
)

ALL = [
    continuous_bernoulli,
    pixel_gaussian(0.01),
    LearnedGaussian(),
    LearnedGaussian(3),
    OptimalGaussian(),
    discretized_logistic(),
    LearnedLogistic(3),
    logistic_mixture(2),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_continuous_bernoulli_integrates_to_one_and_has_its_mean(dtype):
    size = torch.tensor([0, 1e-5, 0.009, 0.011, 0.5, 3, 20, 40, 300], dtype=dtype)
    logits = torch.cat([size, -size])
    # A grid that is fine at both ends, where the mass of a large logit lies.
    x = torch.sin(torch.linspace(0, math.pi / 2, 200_001, dtype=torch.float64)) ** 2
    px = ContinuousBernoulli(logits.double())
    density = px.log_prob(x[:, None]).exp()
    assert_close(torch.trapezoid(density, x, dim=0), torch.ones(18).double(), rtol=0, atol=1e-6)
    mean = torch.trapezoid(density * x[:, None], x, dim=0)
    tolerance = {"rtol": 0, "atol": 1e-5}
    assert_close(ContinuousBernoulli(logits).mean.double(), mean, **tolerance)
    ours = ContinuousBernoulli(logits).log_prob(x[::5000, None].to(dtype)).double()
    assert_close(ours, px.log_prob(x[::5000, None]), rtol=1e-5, atol=1e-5)


def test_samples_of_the_continuous_bernoulli_follow_it():
    torch.manual_seed(0)
    logits = torch.tensor([-200.0, -3.0, 0.0, 5e-5, 0.3, 8.0, 150.0])
    px = ContinuousBernoulli(logits)
    x = px.sample((40_000,))
    assert 0 <= x.min() <= x.max() <= 1
    error = 4 * x.double().std(0) / 200
    assert ((x.double().mean(0) - px.mean).abs() < error + 1e-6).all()
    half = torch.quantile(x, 0.5, dim=0)
    grid = torch.linspace(0, 1, 100_001)
    cdf = torch.cumulative_trapezoid(px.log_prob(grid[:, None]).exp(), grid, dim=0)
    at_half = cdf.gather(0, (half * 1e5).long().clamp(max=99_999)[None])[0]
    assert ((at_half - 0.5).abs() < 0.03).all()


def test_gradients_of_the_continuous_bernoulli():
    logits = torch.tensor([-30.0, -1.0, 0.005, 0.02, 2.0, 60.0], dtype=torch.float64)
    x = torch.rand(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda eta: ContinuousBernoulli(eta).log_prob(x), logits.requires_grad_()
    )
    zero = torch.zeros(1, requires_grad=True)
    ContinuousBernoulli(zero).log_prob(torch.tensor([0.7])).sum().backward()
    assert zero.grad.item() == pytest.approx(0.2)  # x - 1/2


def test_a_continuous_bernoulli_is_no_bernoulli():
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), likelihood=continuous_bernoulli)
    grey = torch.rand(5, 1, 4, 4)
    assert model.draw(grey).log_px_z.shape == (1, 5)
    assert vaelib.log_marginal(model, grey, 3).data_seed is None


@pytest.mark.parametrize("likelihood", ALL, ids=lambda one: getattr(one, "__name__", str(one)))
def test_training_raises_the_bound_and_files_keep_the_model(likelihood, tmp_path):
    train, _ = vaelib.data.cifar10()
    x = train.x[:256, :, 8:24, 8:24].contiguous()
    torch.manual_seed(0)
    model = vaelib.mlp_vae(4, (32,), x_shape=(3, 16, 16), likelihood=likelihood)
    before = vaelib.log_marginal(model, x, 2).mean
    vaelib.fit(model, x, epochs=8, batch_size=32, lr=3e-3)
    after = vaelib.log_marginal(model, x, 2)
    assert after.mean > before
    assert model.sample(2, mean=False).shape == model.sample(2).shape == (2, 3, 16, 16)
    vaelib.save(model, tmp_path / "m.safetensors")
    again = vaelib.load(tmp_path / "m.safetensors")
    assert vaelib.log_marginal(again, x, 2).mean == after.mean


def test_pixel_gaussian_splits_the_decoders_channels():
    parameters = torch.randn(2, 6, 4, 4)
    px = pixel_gaussian(0.05)(parameters)
    assert_close(px.loc, parameters[:, :3])
    assert_close(px.scale, parameters[:, 3:].exp().clamp(min=0.05))
    assert pixel_gaussian().num_channels(3) == 6


def test_the_optimal_deviation_is_the_best_and_test_data_do_not_choose_it():
    torch.manual_seed(0)
    mu, x = torch.zeros(1, 50, 7), 0.3 * torch.randn(50, 7)
    likelihood = OptimalGaussian(momentum=1.0)
    best = likelihood(mu).log_prob(x).sum()
    for scale in (0.2, 0.29, 0.31, 0.5):
        assert Normal(mu, scale).log_prob(x).sum() <= best + 1e-3
    assert likelihood.scale.item() == pytest.approx(x.square().mean().sqrt().item())
    likelihood.eval()
    assert_close(likelihood(mu).log_prob(10 * x), Normal(mu, likelihood.scale).log_prob(10 * x))
    with torch.no_grad():
        likelihood.train()(mu).log_prob(10 * x)
    assert likelihood.scale < 1


def test_learned_and_optimal_deviation_find_the_same_one():
    torch.manual_seed(0)
    x = torch.randn(2000, 4) @ torch.randn(4, 12) + 0.25 * torch.randn(2000, 12)
    found = []
    for likelihood in (LearnedGaussian(), OptimalGaussian()):
        torch.manual_seed(1)
        model = vaelib.mlp_vae(4, (32,), x_shape=(12,), likelihood=likelihood)
        vaelib.fit(model, x, epochs=60, batch_size=100, lr=5e-3)
        name = "log_scale" if isinstance(likelihood, LearnedGaussian) else "scale"
        value = getattr(likelihood, name)
        found.append(value.exp().item() if name == "log_scale" else value.item())
    assert found[0] == pytest.approx(found[1], rel=0.15)
    assert 0.2 < found[1] < 0.4


def test_a_mixtures_channels_land_where_they_belong():
    m = 2
    parameters = torch.zeros(1, 10 * m, 4, 5)
    parameters[:, 0] = 3.0  # the first component's logit
    parameters[:, m : 4 * m] = torch.arange(3 * m).view(1, -1, 1, 1) / 100
    px = logistic_mixture(m)(parameters)
    assert px.event_shape == (3, 4, 5)
    assert px.logits.shape == (1, 4, 5, m)
    assert px.logits[0, 0, 0].tolist() == [3, 0]
    assert px.loc.shape == px.coupling.shape == (1, 3, 4, 5, m)
    expected = torch.arange(6).view(3, 2) / 100 + torch.tensor([0.25, 0.75])
    assert_close(px.loc[0, :, 2, 3], expected)
    grey = logistic_mixture(m)(torch.zeros(7, 2, 3 * m, 4, 5))
    assert grey.batch_shape == (7, 2, 1, 4, 5)
    with pytest.raises(ValueError, match="gave 7 channels to a mixture of 2; expected 20"):
        logistic_mixture(m)(torch.zeros(1, 7, 4, 4))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pixel_gaussian(0), "min_scale=0; expected a positive"),
        (lambda: vaelib.gaussian(-1.0), "gaussian got scale=-1.0"),
        (lambda: logistic_mixture(0), "num_components=0; expected a whole number"),
        (lambda: logistic_mixture(2.5), "num_components=2.5"),
    ],
)
def test_bad_settings_get_one_clear_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_values_off_the_grid_are_refused():
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), likelihood=LearnedLogistic())
    model.draw(torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"the likelihood is over .*the values 0, 1/255, \.\.\."):
        model.draw(torch.full((3, 1, 4, 4), 0.123))
