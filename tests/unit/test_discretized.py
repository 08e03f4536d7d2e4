"""Discretized likelihoods against sums, enumeration, and formulas written another way."""

import math

import pytest
import torch
from torch.testing import assert_close

import vaelib
from vaelib.distributions import DiscretizedLogistic, DiscretizedLogisticMixture

GRID = torch.arange(256, dtype=torch.float64) / 255


def logistic(locs, log_scales, dtype=torch.float64):
    loc, log_scale = torch.meshgrid(
        torch.tensor(locs, dtype=dtype), torch.tensor(log_scales, dtype=dtype), indexing="ij"
    )
    return DiscretizedLogistic(loc.clone().requires_grad_(), log_scale.clone().requires_grad_())


def coupled(bins=4, m=3, seed=0, size=(1, 1)):
    torch.manual_seed(seed)
    shape = (3, *size, m)
    logits = torch.randn(*size, m, dtype=torch.float64)
    loc, coupling = torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    log_scale = torch.randn(shape, dtype=torch.float64) - 2
    return DiscretizedLogisticMixture(logits, loc, log_scale, coupling, bins=bins)


LOCS = [*torch.linspace(-1, 2, 61).tolist(), 0.5 / 255, 254.5 / 255, 1e3, -1e3, 1e6]
LOG_SCALES = [-200.0, -40, -30, -15, -8, -5, -3, 0, 3, 10, 50, 80]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_probabilities_sum_to_one_and_values_and_gradients_are_finite(dtype, error):
    px = logistic(LOCS, LOG_SCALES, dtype)
    log_p = px.log_prob(GRID.to(dtype)[:, None, None])
    assert log_p.isfinite().all()
    assert_close(log_p.exp().sum(0), torch.ones_like(px.loc), rtol=0, atol=error)
    log_p.sum().backward()
    assert px.loc.grad.isfinite().all() and px.log_scale.grad.isfinite().all()


def test_a_bin_has_the_mass_between_its_edges_and_the_outer_ones_the_tails():
    px = logistic([-0.2, 0.3, 0.9], [-4.0, -2.0, 1.0])
    edges = (torch.arange(1, 256, dtype=torch.float64) - 0.5)[:, None, None] / 255
    cdf = torch.sigmoid((edges - px.loc) / px.log_scale.exp())
    one = torch.ones_like(cdf[:1])
    mass = torch.cat((cdf, one)) - torch.cat((0 * one, cdf))
    assert_close(px.log_prob(GRID[:, None, None]).exp(), mass, rtol=1e-7, atol=1e-14)


def test_far_out_it_falls_as_a_logistic_does():
    """log P is the distance in scales, to a constant: not a floor such as 1e-12."""
    px = logistic([100.0], [-3.0])
    far, near = px.log_prob(GRID[[3, 7]][:, None, None]).flatten()
    assert_close(near - far, torch.tensor(4 / 255 * math.exp(3), dtype=torch.float64))


def test_the_mean_is_the_sum_over_the_grid():
    px = logistic([-0.5, 0.0, 0.4, 1.1], [-12.0, -5.0, -1.0, 4.0])
    mean = (px.log_prob(GRID[:, None, None]).exp() * GRID[:, None, None]).sum(0)
    assert_close(px.mean, mean, rtol=0, atol=1e-10)


def test_samples_agree_with_the_probabilities():
    """A chi-square over the bins that have at least ten expected; its sd is sqrt(2 df)."""
    torch.manual_seed(0)
    n = 100_000
    for loc, log_scale in ((0.02, -3.0), (0.5, -6.0), (0.97, -1.0)):
        px = DiscretizedLogistic(torch.tensor(loc), torch.tensor(log_scale))
        counts = torch.bincount((px.sample((n,)) * 255).round().long(), minlength=256)
        expected = n * px.log_prob(GRID.float()).exp()
        seen = expected >= 10
        chi2 = ((counts - expected)[seen] ** 2 / expected[seen]).sum().item()
        df = int(seen.sum())
        assert abs(chi2 - df) < 5 * math.sqrt(2 * df)


def test_gradients_are_those_of_finite_differences():
    x = GRID[[0, 1, 77, 255]]
    loc = torch.tensor([0.1, 0.0, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor([-4.0, 6.0, -2.0, -5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: DiscretizedLogistic(a, b).log_prob(x), (loc, log_scale)
    )


def test_a_mixture_is_the_weighted_sum_of_its_components():
    torch.manual_seed(0)
    logits, loc, log_scale = (torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(3))
    mixture = DiscretizedLogisticMixture(logits, loc, log_scale - 3)
    assert mixture.batch_shape == (2, 5) and mixture.event_shape == ()
    x = GRID[torch.randint(0, 256, (2, 5))]
    parts = DiscretizedLogistic(loc, log_scale - 3).log_prob(x[..., None]).exp()
    assert_close(mixture.log_prob(x).exp(), (logits.softmax(-1) * parts).sum(-1))
    p = mixture.log_prob(GRID[:, None, None]).exp()
    assert_close(p.sum(0), torch.ones(2, 5, dtype=torch.float64))
    assert_close(mixture.mean, (p * GRID[:, None, None]).sum(0))


def colours(bins):
    values = torch.arange(bins, dtype=torch.float64) / (bins - 1)
    return torch.cartesian_prod(values, values, values).view(-1, 3, 1, 1)


def test_the_probabilities_of_all_colours_sum_to_one():
    p = coupled().log_prob(colours(4)).exp()
    assert p.shape == (64,)
    assert_close(p.sum(), torch.ones((), dtype=torch.float64))


def test_coupling_is_the_chain_of_the_channels():
    """Written out with scalars: red, then green given red, then blue given both."""
    px = coupled(bins=256, m=2, size=(2, 3))
    torch.manual_seed(1)
    x = GRID[torch.randint(0, 256, (3, 2, 3))]
    total = 0.0
    for i in range(2):
        for j in range(3):
            mixed = 0.0
            weights = px.logits[i, j].softmax(-1)
            for m in range(2):
                r, g = x[0, i, j], x[1, i, j]
                k = px.coupling[:, i, j, m]
                moved = (0.0, k[0] * r, k[1] * r + k[2] * g)
                p = weights[m]
                for c in range(3):
                    loc = px.loc[c, i, j, m] + moved[c]
                    one = DiscretizedLogistic(loc, px.log_scale[c, i, j, m])
                    p = p * one.log_prob(x[c, i, j]).exp()
                mixed = mixed + p
            total = total + mixed.log()
    assert px.event_shape == (3, 2, 3)
    assert_close(px.log_prob(x), total)


def test_samples_of_colours_agree_with_their_probabilities():
    px, n = coupled(), 100_000
    torch.manual_seed(0)
    digits = (px.sample((n,)) * 3).round().long().view(n, 3) * torch.tensor([16, 4, 1])
    counts = torch.bincount(digits.sum(1), minlength=64)
    expected = n * px.log_prob(colours(4)).exp()
    seen = expected >= 10
    chi2 = ((counts - expected)[seen] ** 2 / expected[seen]).sum().item()
    assert abs(chi2 - int(seen.sum())) < 5 * math.sqrt(2 * int(seen.sum()))


def test_the_mean_of_colours_is_that_of_many_draws():
    """Away from the edges, since the formula leaves out the cut at 0 and 1."""
    torch.manual_seed(0)
    shape, n = (3, 1, 2, 2), 100_000
    loc = 0.4 + 0.2 * torch.rand(shape, dtype=torch.float64)
    coupling = 0.2 * torch.rand(shape, dtype=torch.float64) - 0.1
    logits = torch.randn(1, 2, 2, dtype=torch.float64)
    px = DiscretizedLogisticMixture(logits, loc, torch.full_like(loc, -5.0), coupling)
    x = px.sample((n,))
    assert ((px.mean - x.mean(0)).abs() < 4 * x.std(0) / math.sqrt(n)).all()


def test_shapes_that_do_not_fit_are_refused_in_a_sentence():
    t = torch.zeros
    with pytest.raises(ValueError, match=r"expected \[\.\.\., M\]"):
        DiscretizedLogisticMixture(t(4, 3), t(4, 2), t(4, 2))
    with pytest.raises(ValueError, match="coupling"):
        DiscretizedLogisticMixture(t(8, 8, 5), t(2, 8, 8, 5), t(2, 8, 8, 5), t(2, 8, 8, 5))
    with pytest.raises(ValueError, match="bins is 1"):
        DiscretizedLogistic(t(3), t(3), bins=1)


def test_a_vae_learns_with_it():
    def likelihood(h):
        return DiscretizedLogistic(*h.chunk(2, -3))

    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Unflatten(1, (2, 4, 4)))
    model = vaelib.VAE(encoder, decoder, 2, x_shape=(1, 4, 4), likelihood=likelihood)
    x = torch.randint(100, 156, (200, 1, 4, 4), dtype=torch.uint8)
    history = vaelib.fit(model, x, epochs=20, batch_size=20, lr=0.03)
    # Uniform over 56 of 256 values is 16 log 56 nats; before, over all, 16 log 256 and more.
    assert history.train[-1] > -16 * math.log(100) > history.train[0]


@pytest.mark.parametrize("px", [coupled(m=2), DiscretizedLogistic(GRID[:1], GRID[:1])])
def test_expand_repeats_it(px):
    wide = px.expand((5, *px.batch_shape))
    x = px.sample()
    assert wide.batch_shape == (5, *px.batch_shape)
    assert_close(wide.log_prob(x), px.log_prob(x).expand(wide.batch_shape))
