"""The contract: what the bounds say of log p(x), against exact answers.

The columns exact, gap, kl and log_marginal of the table in test_contract.py.
"""

import torch
from contract import every_kind, kinds_with, mean_and_error, names, repeated, sampled, within
from kinds import KINDS
from kinds.gaussians import normal
from kinds.hierarchies import BottomUp
from torch.distributions import Categorical, Independent
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent

# The ELBO and its gap ----------------------------------------------------------------------------


@torch.no_grad()
@kinds_with(lambda kind: kind.solve)
def test_every_sample_says_log_px_where_q_is_exact(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make(solved=True)
    draw = model.draw(x, 5, y=y)
    exact = kind.log_px(model, x, y)
    assert_close(draw.log_w_by_sample, exact.expand(len(draw.log_w_by_sample), -1))
    assert_close(vaelib.iwae(draw), exact)
    assert_close(sampled(draw), exact)
    torch.manual_seed(0)
    mean, error = mean_and_error(repeated(model, vaelib.elbo, x, y, 20))
    assert within(mean, exact, error)


@torch.no_grad()
@kinds_with(lambda kind: kind.wrong)
def test_the_elbo_is_log_px_less_the_kl_from_the_posterior(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make(solved=True)
    gap = kind.wrong(model, x, y)
    expected = kind.log_px(model, x, y) - gap
    assert (gap >= 0).all() and gap.mean() > 0.01
    torch.manual_seed(0)
    for bound in (vaelib.elbo, sampled):
        mean, error = mean_and_error(repeated(model, bound, x, y, 50))
        assert within(mean, expected, error), (mean - expected) / error


@torch.no_grad()
@names("flat", "top_down", "bottom_up", "path", "heavy", "labelled", "missing", "full_covariance")
def test_the_importance_weighted_bound_grows_to_log_px(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    exact = kind.log_px(model, x, y)
    torch.manual_seed(0)
    rows = [repeated(model, vaelib.iwae, x, y, k).mean(1) for k in (1, 10, 100)]
    means, errors = zip(*[mean_and_error(row) for row in rows])
    assert means[0] + 4 * errors[0] < means[1] < exact.mean() + 4 * errors[1]
    assert abs(exact.mean() - means[2]) < (exact.mean() - means[0]) / 3 + 4 * errors[2]


@torch.no_grad()
def test_without_gradients_a_likelihood_of_ones_own_keeps_its_log_prob():
    class Halved(Independent):
        def log_prob(self, value):
            return 0.5 * super().log_prob(value)

    x, z = torch.ones(2, 3).double(), torch.zeros(4, 2, 1).double()
    q = normal(torch.zeros(2, 1).double(), torch.ones(2, 1).double())
    for kind in (Independent, Halved):
        px_z = kind(torch.distributions.Bernoulli(logits=torch.ones(4, 2, 3).double()), 1)
        draw = Draw.of(x, px_z, Latent(z, q, q))
        assert_close(draw.log_px_z, px_z.log_prob(x))


# The KL ------------------------------------------------------------------------------------------


@torch.no_grad()
@kinds_with(lambda kind: kind.kl)
def test_the_closed_form_kl_is_the_sampled_one_in_expectation(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    torch.manual_seed(0)
    difference = repeated(model, lambda d: sampled(d) - vaelib.elbo(d), x, y, 50)
    mean, error = mean_and_error(difference)
    assert within(mean, 0.0, error), mean / error


@torch.no_grad()
def test_a_bottom_up_layer_that_says_nested_is_a_trap():
    class Trap(BottomUp):
        nested = True

    kind = KINDS["bottom_up"]
    x, _ = kind.data()
    model = Trap()
    model.load_state_dict(kind.make(solved=True).state_dict())
    draw = model.draw(x, 20_000)
    assert (vaelib.elbo(draw) - sampled(draw)).abs().mean() > 0.3


def test_one_latents_kl_is_by_example_whatever_batch_its_prior_has():
    x = torch.randn(3, 2, dtype=torch.float64)
    q, p = normal(x, torch.ones_like(x)), normal(torch.zeros_like(x[0]), torch.ones_like(x[0]))
    z = q.rsample((4,))
    expected = vaelib.elbo(Draw.of(x, normal(z, 1.0), Latent(z, q, p)))
    for wide in (p.expand((3,)), p.expand((4, 3))):
        draw = Draw.of(x, normal(z, 1.0), Latent(z, q, wide))
        assert_close(vaelib.elbo(draw), expected)
        assert_close(draw.rate, draw.kl)
    draw = Draw.of(x, normal(z, 1.0), Latent(z, q.expand((4, 3)), p))
    assert_close(vaelib.elbo(draw), expected)


def test_a_q_that_reads_nothing_has_a_rate_by_example():
    class Blind(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            one = torch.ones(2, dtype=x.dtype)
            q = normal(one, one)
            z = q.rsample((num_samples, len(x)))
            return normal(z, torch.ones_like(z)), Latent(z, q, normal(0 * one, one))

    x = torch.randn(5, 2, dtype=torch.float64)
    assert_close(Blind()(x, 2).kl_parts, torch.ones(5, 1, dtype=torch.float64))
    assert_close(Blind()(x, 2).rate, torch.ones(5, dtype=torch.float64))


def test_flows_whose_closed_form_is_unknown_use_the_draws():
    from torch.distributions import TransformedDistribution
    from torch.distributions.transforms import AffineTransform

    class Flow(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            def bent(loc, by):
                base = normal(loc, torch.ones_like(loc))
                return TransformedDistribution(base, [AffineTransform(0 * loc[..., :1], by)])

            q, p = bent(x, 1.5), bent(torch.zeros_like(x[0]), 2.0)
            z = q.rsample((num_samples,))
            return normal(z, torch.ones_like(z)), Latent(z, q, p)

    x = torch.randn(5, 2, dtype=torch.float64)
    draw = Flow()(x, 3)
    assert draw.kl_parts is None
    assert_close(vaelib.elbo(draw), draw.log_w.mean(0))


# log_marginal ------------------------------------------------------------------------------------


@every_kind
def test_log_marginal_finds_the_exact_answer(name):
    kind = KINDS[name]
    x, y = kind.data(24)
    model = kind.make()
    given = {"y": y} if model.labels == "given" else {}
    state = torch.get_rng_state()
    estimate = vaelib.log_marginal(model, x, num_samples=2000, **given)
    assert torch.equal(torch.get_rng_state(), state)
    exact = kind.log_px(model, x, given.get("y"))
    assert_close(estimate.values.mean().item(), estimate.mean)
    assert estimate.values.shape == (24,)
    assert bool(estimate.bound) is kind.bound
    assert bool(estimate.conditional) is (model.labels == "given")
    if kind.bound:
        log_joint = exact - kind.wrong(model, x)
        assert_close(estimate.values, log_joint.detach())
        assert estimate.mean < exact.mean()
    elif kind.exact:
        assert_close(estimate.values, exact)
        assert estimate.mc_stderr == 0
    else:
        assert abs(estimate.mean - exact.mean()) < 4 * estimate.mc_stderr + 1e-4
        assert 0 < estimate.mc_stderr < 0.05


@kinds_with(lambda kind: kind.solve)
def test_log_marginal_has_no_error_where_q_is_exact(name):
    kind = KINDS[name]
    x, y = kind.data(6)
    model = kind.make(solved=True)
    given = {"y": y} if model.labels == "given" else {}
    estimate = vaelib.log_marginal(model, x, num_samples=7, **given)
    assert_close(estimate.values, kind.log_px(model, x, given.get("y")))
    assert estimate.mc_stderr < 1e-6
    samples = torch.ones(6) if kind.exact else torch.full((6,), 7.0)
    assert_close(estimate.ess.double(), samples.double())


def test_a_list_under_a_bound_is_summed_once():
    class Loose(Categorical):
        density = "bound"

    class Listed(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            z = torch.arange(3)[:, None].expand(-1, len(x))
            q, p = Categorical(logits=torch.zeros(len(x), 3)), Loose(logits=torch.zeros(3))
            loc = z[..., None].to(x.dtype).expand(-1, -1, 2)
            return normal(loc, torch.ones_like(loc)), Latent(z, q, p, values=3)

    estimate = vaelib.log_marginal(Listed(), torch.randn(5, 2), num_samples=50)
    assert estimate.bound and estimate.num_samples == 1
