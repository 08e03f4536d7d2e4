"""`log_marginal` against exact likelihoods: pPCA's, and those of models of every kind."""

import math

import numpy as np
import pytest
import torch
from kinds import KINDS
from oracles import Ppca
from torch import nn
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal
from torch.testing import assert_close

import vaelib
from vaelib.data import Images


def test_estimate_is_exact_where_q_is():
    ppca = Ppca()
    x = ppca.sample(300)
    exact = ppca.evidence().log_prob(x)
    estimate = vaelib.log_marginal(ppca.vae(), x, num_samples=3)
    assert_close(estimate.values, exact, rtol=0, atol=1e-6)
    assert_close(estimate.ess, torch.full((300,), 3.0, dtype=torch.float64))
    assert estimate.mc_stderr < 1e-6
    assert estimate.stderr == pytest.approx(exact.std().item() / 300**0.5)
    assert estimate.mean == pytest.approx(exact.mean().item())
    assert estimate.data_seed is None


def test_estimate_is_right_to_its_error_where_q_is_wrong():
    ppca = Ppca()
    x = ppca.sample(50)
    exact = ppca.evidence().log_prob(x).mean().item()
    for seed in range(5):
        estimate = vaelib.log_marginal(
            ppca.vae(stretch=1.4, shift=0.3), x, num_samples=20_000, seed=seed
        )
        assert abs(estimate.mean - exact) <= 4 * estimate.mc_stderr + 1e-4
        assert estimate.ess.min() > 1000


def test_the_monte_carlo_error_is_the_spread_over_seeds():
    ppca = Ppca()
    x = ppca.sample(20)
    model = ppca.vae(stretch=1.4)
    runs = [vaelib.log_marginal(model, x, num_samples=500, seed=s) for s in range(60)]
    spread = torch.tensor([run.mean for run in runs]).std().item()
    stated = sum(run.mc_stderr for run in runs) / len(runs)
    assert 0.6 < stated / spread < 1.6  # the spread of 60 is known to about 10 %


def test_chunks_do_not_change_what_is_estimated():
    ppca = Ppca(num_pixels=1024, latent_dim=1)  # 1,024 rows a chunk: 700 draws take three
    estimate = vaelib.log_marginal(ppca.vae(), ppca.sample(3), num_samples=700)
    assert_close(estimate.ess, torch.full((3,), 700.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_grey_pixels_are_drawn_once_over_the_whole_array():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
    grey = (torch.rand(100, 1, 4, 4) * 255).to(torch.uint8)
    scored = vaelib.log_marginal(model, grey, num_samples=5, data_seed=3)
    again = vaelib.log_marginal(model, vaelib.data.binarize(grey, 3), num_samples=5)
    assert_close(scored.values, again.values, rtol=0, atol=0)
    assert scored.data_seed == 3
    assert "binarized with seed 3" in repr(scored)
    assert "K = 5" in repr(scored)


def test_same_seed_same_bits_and_the_callers_randomness_is_left_alone():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4)).train()
    x = (torch.rand(10, 1, 4, 4) * 255).to(torch.uint8)
    state = torch.get_rng_state()
    first = vaelib.log_marginal(model, x, num_samples=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.values, vaelib.log_marginal(model, x, num_samples=7).values)
    assert not torch.equal(first.values, vaelib.log_marginal(model, x, 7, seed=1).values)
    assert model.training


@pytest.mark.parametrize(
    ("x", "k", "error", "says"),
    [
        (torch.rand(3, 1, 4, 4), 0, ValueError, "num_samples is 0"),
        (torch.rand(3, 1, 4, 4), 2.5, TypeError, "num_samples is 2.5"),
        (torch.rand(3, 16), 5, ValueError, r"\[3, 16\], but the model is over \[1, 4, 4\]"),
        (torch.rand(0, 1, 4, 4), 5, ValueError, "N at least 1"),
        (torch.rand(3, 1, 4, 4) * 255, 5, ValueError, "divide by 255"),
        (torch.full((3, 1, 4, 4), torch.nan), 5, ValueError, "missing pixels"),
        ("mnist", 5, TypeError, "str; expected Images"),
    ],
)
def test_bad_input_gets_one_clear_sentence(x, k, error, says):
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
    with pytest.raises(error, match=says):
        vaelib.log_marginal(model, x, k)


def test_the_curve_is_the_estimate_at_fewer_draws():
    ppca = Ppca()
    x, model = ppca.sample(2000), ppca.vae(stretch=1.5)
    estimate = vaelib.log_marginal(model, x, num_samples=100)
    assert list(estimate.curve) == [1, 3, 6, 12, 25, 50, 100]
    assert estimate.curve[100] == pytest.approx(estimate.mean)
    assert estimate.last_gain == estimate.curve[100] - estimate.curve[50]
    for k in (1, 12):
        alone = vaelib.log_marginal(model, x, num_samples=k, seed=1)
        error = 4 * 2**0.5 * max(alone.mc_stderr if k > 1 else 0.0, 0.02)
        assert abs(alone.mean - estimate.curve[k]) < error


def test_num_samples_draws_are_made_and_no_more():
    rows = []

    class Counting(vaelib.VAE):
        def decode(self, z, y=None):
            rows.append(z.shape[:-1].numel())
            return super().decode(z, y)

    inner = Ppca(num_pixels=1024, latent_dim=1).vae()  # 512 rows a chunk
    model = Counting(inner.encoder, inner.decoder, 1, likelihood=inner.likelihood)
    for k in (1, 7, 512, 700):
        rows.clear()
        vaelib.log_marginal(model, torch.zeros(5, 1024, dtype=torch.float64), k)
        assert sum(rows) - 3 == 5 * k  # two more to see which likelihood it is, one what it draws
        assert max(rows) <= 512


def test_95_percent_intervals_cover_the_truth():
    ppca = Ppca()
    evidence, model = ppca.evidence(), ppca.vae(stretch=1.3)
    x = ppca.sample(40, seed=5)
    over_examples = over_draws = 0
    for seed in range(100):
        other = vaelib.log_marginal(ppca.vae(), ppca.sample(200, seed=seed), 2)
        over_examples += abs(other.mean + evidence.entropy().item()) < 1.96 * other.stderr
        drawn = vaelib.log_marginal(model, x, 400, seed=seed)
        exact = evidence.log_prob(x).mean().item()
        over_draws += abs(drawn.mean - exact) < 1.96 * drawn.mc_stderr
    assert 88 <= over_examples <= 100
    assert 88 <= over_draws <= 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bernoullis_x_enters_linearly_and_changes_nothing(dtype):
    torch.manual_seed(0)
    for shape in ((1, 28, 28), (3, 5, 5), (7,)):
        model = vaelib.mlp_vae(3, (16,), x_shape=shape).to(dtype)
        model.decoder[-2].weight.data *= 50  # far logits too
        x = (torch.rand(6, *shape) < 0.3).to(dtype)
        z = torch.randn(4, 6, 3, dtype=dtype)
        with torch.no_grad():
            ours = model.draw(x, 4, z).log_px_z
            px_z = model.decode(model.draw(x, 4, z).z)
            logits = px_z.base_dist.logits.double()
        exact = (x.double() * logits - torch.logaddexp(logits, torch.zeros(()).double())).flatten(2)
        assert ours.dtype == dtype
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        assert_close(ours.double(), exact.sum(-1), rtol=tolerance, atol=tolerance)


class _Half(torch.distributions.Bernoulli):
    """A Bernoulli with a log_prob of its own."""

    def log_prob(self, value):
        return super().log_prob(value) / 2


def test_a_subclass_of_bernoulli_keeps_its_own_log_prob():
    model = vaelib.mlp_vae(3, (16,), x_shape=(7,), likelihood=lambda logits: _Half(logits=logits))
    x, noise = (torch.rand(6, 7) < 0.5).float(), torch.randn(2, 6, 3)
    with torch.no_grad():
        found = model.draw(x, 2, noise).log_px_z
    assert_close(found, model.draw(x, 2, noise).log_px_z.detach())


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_estimated_and_says_what_the_estimate_is(name):
    kind = KINDS[name]
    solved = kind.solve is not None
    model, (x, y) = kind.make(solved=solved), kind.data(20)
    y = y if model.labels == "given" else None
    exact = kind.log_px(model, x, y).detach()
    estimate = vaelib.log_marginal(model, x, 400, y=y)
    assert estimate.bound == kind.bound
    assert ("a lower bound, however many draws" in repr(estimate)) == kind.bound
    assert estimate.conditional == (y is not None)
    assert repr(estimate).startswith("log p(x) = " if y is None else "log p(x|y) = ")
    assert estimate.acceptance is None
    if kind.bound:
        assert (estimate.values < exact).all()
    elif solved:
        assert_close(estimate.values, exact, rtol=0, atol=1e-9)
    else:
        assert abs(estimate.mean - exact.mean().item()) < 4 * estimate.mc_stderr
    with pytest.raises(ValueError, match=r"takes no labels|in training only|20 examples"):
        vaelib.log_marginal(model, x, 4, y=torch.zeros(3))


@pytest.mark.parametrize("name", ["listed", "autoregressive"])
def test_where_all_is_listed_one_sample_is_exact(name):
    kind = KINDS[name]
    model, (x, _) = kind.make(), kind.data(20)  # q is not the posterior
    estimate = vaelib.log_marginal(model, x, 500)
    assert_close(estimate.values, kind.log_px(model, x).detach(), rtol=0, atol=1e-9)
    assert estimate.num_samples == 1 and list(estimate.curve) == [1]
    assert estimate.mc_stderr == 0.0
    assert_close(estimate.ess, torch.ones(20).double())


class Counted(vaelib.VAE):
    """A listed code beside a drawn z, x wide: counts samples and rows. Its exact p(x) is known."""

    def __init__(self):
        super().__init__()
        self.bias, self.calls = nn.Parameter(torch.tensor([0.0, 1.0, -1.0]).double()), []

    def infer(self, x, num_samples=1, noise=None, y=None):
        B = len(x)
        code = torch.arange(3).repeat(num_samples)[:, None].expand(-1, B)
        self.calls.append((num_samples, code.numel()))
        q = Independent(Normal(x.mean(-1, keepdim=True), 0.5), 1)
        z = q.rsample((len(code),))
        loc = (z.squeeze(-1) + self.bias[code]).unsqueeze(-1).expand(-1, -1, x.shape[1])
        uniform = Categorical(logits=torch.zeros(B, 3).double())
        prior = Independent(Normal(torch.zeros(1).double(), 1.0), 1)
        px_z = Independent(Normal(loc, 8.0), 1)
        return px_z, vaelib.Latent(code, uniform, uniform, 3), vaelib.Latent(z, q, prior)


def test_samples_of_listed_values_are_counted_whole_and_their_memory_is_bounded():
    model = Counted()
    x = 8 * torch.randn(4, 1024, generator=torch.Generator().manual_seed(0)).double()
    eye, D = torch.eye(1024).double(), 1024
    exact = torch.stack(
        [
            MultivariateNormal(
                model.bias[c].detach().expand(D), 64 * eye + torch.ones(D, D).double()
            ).log_prob(x)
            for c in range(3)
        ]
    ).logsumexp(0) - math.log(3)
    for k in (1, 60, 400):  # 2^19 / 1,024 = 512 rows: 170 samples of 3
        model.calls.clear()
        estimate = vaelib.log_marginal(model, x, k)
        looks, calls = model.calls[:2], model.calls[2:]
        assert [rows for _, rows in looks] == [6, 3]
        assert sum(rows for _, rows in calls) == 4 * k * 3
        assert max(rows for _, rows in calls) <= 512
        assert estimate.num_samples == k
        assert estimate.ess.max() <= k + 1e-9
        assert list(estimate.curve) == sorted({k >> i for i in range(k.bit_length())})
        assert estimate.curve[k] == pytest.approx(estimate.mean)
    assert abs(estimate.mean - exact.mean().item()) < 4 * estimate.mc_stderr


def test_the_random_numbers_are_those_of_a_plain_loop():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1024,), likelihood=vaelib.gaussian(1.0))
    x = torch.randn(5, 1024)
    for k, size in ((7, 73), (700, 1)):  # stored results depend on it: 512 rows at a time
        rows = []
        torch.manual_seed(3)
        for batch in x.split(size):
            with torch.no_grad():
                parts = [model(batch, n).log_w for n in ((7,) if k == 7 else (512, 188))]
            rows.append(torch.cat(parts).double().logsumexp(0) - math.log(k))
        found = vaelib.log_marginal(model, x, k, seed=3)
        assert_close(found.values, torch.cat(rows), rtol=0, atol=1e-9)


def test_data_of_every_dtype_are_scored():
    torch.manual_seed(0)
    grey = (torch.rand(20, 1, 4, 4) * 255).to(torch.uint8)
    model = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4))
    single = vaelib.log_marginal(model, grey, 2000)
    double = vaelib.log_marginal(model.double(), grey, 2000)
    assert single.mean == pytest.approx(double.mean, abs=0.05)
    table = np.random.default_rng(0).normal(size=(20, 5))  # float64
    gaussian = vaelib.mlp_vae(2, (8,), x_shape=(5,), likelihood=vaelib.gaussian(1.0))
    assert vaelib.log_marginal(gaussian, table, 5).values.isfinite().all()
    counts = torch.arange(20).reshape(10, 2)
    poisson = vaelib.mlp_vae(
        2, (8,), x_shape=(2,), likelihood=lambda p: torch.distributions.Poisson(p.exp())
    )
    assert vaelib.log_marginal(poisson, counts, 5).values.isfinite().all()
    with pytest.raises(ValueError, match="NaN or infinite"):
        vaelib.log_marginal(gaussian, table * np.nan, 5)


def test_labels_come_from_images_or_by_themselves():
    kind = KINDS["conditional"]
    model, (x, y) = kind.make(), kind.data(20)
    by_name = vaelib.log_marginal(model, x, 9, y=y)
    assert torch.equal(by_name.values, vaelib.log_marginal(model, Images(x, y), 9).values)
    other = vaelib.log_marginal(model, x, 9, y=(y + 1) % 3)
    assert not torch.equal(by_name.values, other.values)
    with pytest.raises(ValueError, match='labels = "given", but the data have none'):
        vaelib.log_marginal(model, x, 9)


def test_a_prior_whose_density_is_a_bound_is_repeated():
    class Bounded(nn.Module):
        density = "bound"

        def forward(self):
            return Normal(torch.zeros(2), torch.ones(2))

    model = vaelib.mlp_vae(2, (8,), x_shape=(4,), prior=Bounded())
    assert vaelib.log_marginal(model, torch.ones(3, 4), 5).bound
