"""The batch's estimate of q(z), by every batch of 3 of 6 examples: which weights are unbiased?"""

import functools
import itertools
import math

import pytest
import torch
import vaelib
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.testing import assert_close
from vaelib.tc import beta_tcvae, log_batch_weights, total_correlation

N, B, L = 6, 3, 2
M = B - 1  # Chen et al.'s M: the batch without the example that z is of
STRATUM = (N - M) / (N * M)


def chen():
    """Chen et al. (2018), Appendix C.2, as printed: one of the others, the next, counts less."""
    w = torch.full((B, B), 1 / M)
    for i in range(B):
        w[i, i], w[i, (i + 1) % B] = 1 / N, STRATUM
    return w


def public():
    """What rtqichen/beta-tcvae and its copies make of that: columns in place of diagonals."""
    w = torch.full((B, B), 1 / M)
    w.view(-1)[:: M + 1] = 1 / N
    w.view(-1)[1 :: M + 1] = STRATUM
    w[M - 1, 0] = STRATUM
    return w


WEIGHTS = {
    "equal": log_batch_weights(B, N).exp(),
    "chen": chen(),
    "public": public(),
    "weighted": log_batch_weights(B, N, "weighted").exp(),
}


def posteriors(sigma):
    """The densities q(z_n|x_m), [N, N, L], at one z for each of the six examples."""
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(N, L, generator=draw).double()
    z = mean + sigma * torch.randn(N, L, generator=draw).double()
    return Normal(mean, sigma).log_prob(z[:, None]).exp()


def over_all_batches(w, density, power=1):
    """Mean and variance of q_hat / q, and mean of its log: [B, N], a row a place in the batch.

    Over all ordered batches without replacement, as an epoch's shuffle makes them.
    """
    w = w.double() ** power
    exact = density.mean(1)
    found = {(i, n): [] for i in range(B) for n in range(N)}
    for batch in itertools.permutations(range(N), B):
        estimate = (w * density[list(batch)][:, list(batch)]).sum(1)
        for i, n in enumerate(batch):
            found[i, n].append(estimate[i] / exact[n])
    ratios = torch.stack([torch.stack(r) for r in found.values()]).view(B, N, -1)
    return ratios.mean(-1), ratios.var(-1, correction=0), ratios.log().mean(-1)


every_width = pytest.mark.parametrize("sigma", [0.15, 0.5, 1.5])


@every_width
@pytest.mark.parametrize("name", ["equal", "chen"])
def test_stratified_weights_are_unbiased_for_q_not_for_its_logarithm(name, sigma):
    density = posteriors(sigma).prod(-1)
    mean, _, log_mean = over_all_batches(WEIGHTS[name], density)
    assert_close(mean, torch.ones_like(mean), rtol=1e-6, atol=0)  # weights are float32
    assert (log_mean < 1e-6).all()
    assert log_mean.mean() < -0.001


@every_width
def test_each_marginal_is_unbiased_too(sigma):
    for density in posteriors(sigma).unbind(-1):
        mean, _, _ = over_all_batches(WEIGHTS["equal"], density)
        assert_close(mean, torch.ones_like(mean), rtol=1e-6, atol=0)


@every_width
def test_equal_weights_have_the_least_variance(sigma):
    """They are the mean of chen's over all orders of the others, and variance is convex."""
    density = posteriors(sigma).prod(-1)
    variances = [over_all_batches(WEIGHTS[name], density)[1] for name in ("equal", "chen")]
    assert (variances[0] <= variances[1] + 1e-9).all()
    assert variances[0].mean() < 0.95 * variances[1].mean()


@every_width
def test_public_weights_are_right_in_the_first_row_alone(sigma):
    """Below it the example itself counts 1 / M, as if it were drawn by chance: 3 times too much."""
    density = posteriors(sigma).prod(-1)
    mean, _, _ = over_all_batches(WEIGHTS["public"], density)
    assert_close(mean[0], torch.ones(N).double(), rtol=1e-6, atol=0)
    own = density.diagonal()
    others = (density.sum(1) - own) / (N - 1)
    for row in (1, 2):
        w = WEIGHTS["public"].double()[row]
        known = w[row] * own + (w.sum() - w[row]) * others
        assert_close(mean[row], known / density.mean(1), rtol=1e-6, atol=0)
    # The last row but one sums to 7/6, the others to 1.
    assert WEIGHTS["public"].sum(1).tolist() == pytest.approx([1, 7 / 6, 1])
    if sigma == 0.15:  # hardly any overlap: the ratio is N times the weight of the example itself
        assert mean[1].max().item() == pytest.approx(N * STRATUM, rel=0.01)
        assert mean[2].max().item() == pytest.approx(N / M, rel=0.01)


@every_width
def test_weighted_sampling_is_too_low_for_each_z(sigma):
    """By a factor from B, no overlap, to N or a little more, all posteriors alike."""
    mean, _, _ = over_all_batches(WEIGHTS["weighted"], posteriors(sigma).prod(-1))
    assert mean.max() <= 1 / B + 1e-6
    assert mean.min() >= (B - 1) / (B * (N - 1))


def test_weighted_total_correlation_is_off_by_logs_that_are_known():
    """Far posteriors: (L - 1) log B. One posterior for all: (L - 1) log N. Neither is any TC."""
    assert offset(torch.arange(4.0) * 100, "weighted") == pytest.approx(math.log(4), abs=1e-5)
    assert offset(torch.zeros(4), "weighted", 60) == pytest.approx(math.log(60), abs=1e-5)
    assert offset(torch.zeros(4), "stratified", 60) == pytest.approx(0, abs=1e-5)
    # All the data are in the batch, so nothing is left to be off.
    assert offset(torch.arange(4.0) * 100, "stratified", 4) == pytest.approx(0, abs=1e-5)


def offset(means, method, dataset_size=4):
    """The estimate less log q - log q_1 - log q_2 of these four, at means (m, m), unit widths."""
    q = Independent(Normal(means[:, None].expand(4, 2), 1.0), 1)
    z = q.base_dist.mean[None]
    log_q = q.base_dist.log_prob(z[0][:, None])
    exact = log_q.sum(-1).logsumexp(1) - log_q.logsumexp(1).sum(-1) + math.log(4)
    found = total_correlation(drawn(z, q), dataset_size, method)
    return (found - exact).mean().item()


def drawn(z, q):
    """A draw of z from q, of an example that is one number."""
    x = torch.zeros(z.shape[1], 1)
    p = Independent(Normal(torch.zeros(z.shape[-1]), 1.0), 1)
    px_z = Independent(Normal(z[..., :1], 1.0), 1)
    return vaelib.Draw.of(x, px_z, vaelib.Latent(z, q, p))


def test_the_whole_data_in_one_batch_are_exact():
    """With equal weights: N = B makes them all 1 / N. Chen et al.'s keep an odd one."""
    assert_close(log_batch_weights(5, 5).exp(), torch.full((5, 5), 1 / 5))
    q = Independent(Normal(torch.randn(7, 3), 0.4), 1)
    z = q.sample((2,))
    mixture = q.base_dist.log_prob(z.unsqueeze(2)).double()
    log_qz = mixture.sum(-1).logsumexp(2) - math.log(7)
    parts = mixture.logsumexp(2) - math.log(7)
    expected = (log_qz - parts.sum(-1)).mean(0)
    assert_close(total_correlation(drawn(z, q), 7).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["stratified", "weighted"])
def test_total_correlation_is_that_of_loops(method):
    torch.manual_seed(0)
    mean, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    q = Independent(Normal(mean, scale), 1)
    z = q.sample((2,))
    n, expected = 50, []
    for i in range(4):
        values = []
        for k in range(2):
            terms = torch.zeros(4, 3).double()
            for j, d in itertools.product(range(4), range(3)):
                terms[j, d] = Normal(mean[j, d], scale[j, d]).log_prob(z[k, i, d]).exp()
            if method == "weighted":
                w = torch.full((4, 1), 1 / (4 * n)).double()
            else:
                w = torch.full((4, 1), (n - 1) / (3 * n)).double()
                w[i] = 1 / n
            joint = (w[:, 0] * terms.prod(1)).sum()
            values.append(math.log(joint) - sum(math.log(t) for t in (w * terms).sum(0)))
        expected.append(sum(values) / 2)
    found = total_correlation(drawn(z, q), n, method)
    assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_bias_of_total_correlation_has_either_sign_and_falls_with_the_batch():
    """q(z) a correlated Gaussian, whose total correlation is -log(1 - rho^2) / 2 = 0.511 nats."""
    rho, n, width = 0.8, 4000, 0.2
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]])
    means = MultivariateNormal(torch.zeros(2), covariance - width**2 * torch.eye(2))
    bias, error = {}, {}
    for b in (5, 20, 400):
        values = []
        for _ in range(8000 // b):
            q = Independent(Normal(means.sample((b,)), width), 1)
            values.append(total_correlation(drawn(q.sample((1,)), q), n))
        values = torch.cat(values)
        bias[b] = values.mean().item() + math.log(1 - rho**2) / 2
        error[b] = 2 * values.std().item() / math.sqrt(8000)  # a batch's values go together
    assert bias[5] > 4 * error[5]
    assert bias[20] < -4 * error[20]
    assert abs(bias[400]) < 0.1 < min(abs(bias[5]), abs(bias[20]))


def test_beta_one_is_the_elbo_and_beta_matters():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(3, (8,), x_shape=(4,))
    draw = model.draw(torch.rand(16, 4).bernoulli(), num_samples=2)
    assert_close(beta_tcvae(draw, dataset_size=100, beta=1), vaelib.elbo(draw), rtol=0, atol=0)
    one, six = (beta_tcvae(draw, dataset_size=100, beta=b) for b in (1.0, 6.0))
    assert_close((one - six) / 5, total_correlation(draw, 100), rtol=1e-4, atol=1e-5)


def test_fit_trains_it_and_the_code_becomes_independent():
    torch.manual_seed(0)
    bits = torch.rand(500, 2).bernoulli()
    bits[:, 1] = torch.where(torch.rand(500) < 0.9, bits[:, 0], bits[:, 1])  # two, that agree
    x = bits.repeat_interleave(4, 1)
    found = {}
    for beta in (1.0, 20.0):
        torch.manual_seed(0)
        model = vaelib.mlp_vae(2, (32,), x_shape=(8,))
        objective = functools.partial(beta_tcvae, dataset_size=len(x), beta=beta)
        vaelib.fit(model, x, objective=objective, epochs=25, batch_size=100, lr=3e-3, seed=0)
        with torch.no_grad():
            found[beta] = total_correlation(model.draw(x), len(x)).mean().item()  # exact: B = N
    assert found[20.0] < found[1.0]
    assert found[20.0] < 0.05


def test_what_has_no_such_estimate_is_refused():
    for b, n in ((1, 10), (7, 6)):
        with pytest.raises(ValueError, match=f"batch has {b} of {n}; expected"):
            log_batch_weights(b, n)
    with pytest.raises(ValueError, match="'mss'; expected 'stratified' or 'weighted'"):
        log_batch_weights(3, 6, "mss")
    q = MultivariateNormal(torch.zeros(3, 2), torch.eye(2))
    with pytest.raises(ValueError, match="independent dimensions"):
        total_correlation(drawn(q.sample((1,)), q), 10)
