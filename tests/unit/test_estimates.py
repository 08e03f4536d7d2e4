"""`log_marginal` against pPCA's exact likelihood."""

import pytest
import torch
from oracles import Ppca
from torch.testing import assert_close

import vaelib


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
        def decode(self, z):
            rows.append(z.shape[:-1].numel())
            return super().decode(z)

    inner = Ppca(num_pixels=1024, latent_dim=1).vae()  # 512 rows a chunk
    model = Counting(inner.encoder, inner.decoder, 1, likelihood=inner.likelihood)
    for k in (1, 7, 512, 700):
        rows.clear()
        vaelib.log_marginal(model, torch.zeros(5, 1024, dtype=torch.float64), k)
        assert sum(rows) - 1 == 5 * k  # one more to see which likelihood it is
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
