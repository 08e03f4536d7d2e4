"""The contract of a model, kept by sixteen kinds of them, against exact answers.

What is checked of which kind (`kinds` has them): + where it holds, . where it makes no sense.

    kind             exact  gap  kl  stl  train  noise  labels  enumerated  log_marginal
    flat               +     +   +    +     +      +      .         .       estimate
    top_down           +     +   +    +     +      +      .         .       estimate
    bottom_up          +     +   .    +     +      .      .         .       estimate
    listed             +     +   +    .     +      .      .         .       exact, S = 1
    drawn              +     +   +    .   score    .      .         .       estimate
    quantized          .     +   .    .   terms    .      .         .       bound
    labelled           +     +   +    +     +      +    learnt      .       estimate
    path               +     +   +    +     +      .      .         .       estimate
    heavy              .     +   .    +     +      .      .         .       estimate
    given              +     +   +    +     +      +    given       .       conditional
    conditional        +     +   +    +     +      +    given       .       conditional
    player             +     +   +    +   terms    +      .         .       estimate
    autoregressive     +     +   +    .     +      .      .         +       exact, S = 1
    tokens             .     +   +    +     +      +      .         +       estimate
    missing            +     +   +    +     +      .      .         .       estimate
    full_covariance    +     +   +    +     +      .      .         .       estimate

- exact: at the exact posterior every sample's log w is log p(x), and so is every bound.
- gap: log p(x) less the ELBO is KL(q || p(z|x)), computed apart.
- kl: kl_parts is the sampled rate in expectation (of labelled, where no log_weight is told).
- stl: the ELBO's value and mean gradient, by draws of another noise.
- train: fit raises the bound, and where it is cut and taken up again the bits are an uncut run's;
  by the ELBO, or an objective of its own: a score-function gradient, a dict of terms.
- noise: the draws may come from outside. enumerated: p(x) sums to 1, and dreams follow it.
- log_marginal is within 4 of its errors of the exact answer.
- All kinds: shapes, weights, dreams that follow p, check_model, save and load.

Statistical tests have fixed seeds and allow 4 standard errors.
"""

import dataclasses
import math

import pytest
import torch
from kinds import KINDS
from kinds.codes import Drawn, Listed, commitment
from kinds.gaussians import SX, normal
from kinds.hierarchies import BottomUp
from kinds.labels import Labelled
from kinds.missing import Missing
from kinds.players import Critic
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent

every_kind = pytest.mark.parametrize("name", KINDS)


def kinds_with(test):
    return pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if test(kind)])


def names(*chosen):
    return pytest.mark.parametrize("name", chosen)


def within(found, expected, error, slack=1e-9):
    """Whether found is expected to 4 standard errors, elementwise."""
    return bool(((found - expected).abs() <= 4 * error + slack).all())


def mean_and_error(rows):
    return rows.mean(0), rows.std(0) / math.sqrt(len(rows))


def repeated(model, bound, x, y, num_samples, times=200):
    """`times` independent bounds of each example, [times, B]."""
    x = x.repeat(times, *[1] * (x.dim() - 1))
    y = None if y is None else y.repeat(times)
    return bound(model.draw(x, num_samples, y=y)).reshape(times, -1)


def sampled(draw):
    return vaelib.elbo(draw, analytic=False)


# Shapes and weights ------------------------------------------------------------------------------


@every_kind
def test_a_draw_has_its_shapes_and_its_weights_sum_to_one(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model, B = kind.make(), len(x)
    for num_samples in (1, 3):
        draw = model.draw(x, num_samples, y=y)
        S = 1 if kind.exact else num_samples
        K = S * kind.values
        assert draw.values == kind.values and draw.px_z.event_shape == x.shape[1:]
        assert draw.px_z.batch_shape == (K, B)
        for density in (draw.log_px_z, draw.log_pz, draw.log_qz_x, draw.log_w, draw.log_weight):
            assert density.shape == (K, B) and density.dtype == torch.float64
        assert [latent.z.shape for latent in draw.latents] == [(K, B, *s) for s in kind.z_shapes]
        assert draw.z is draw.latents[0].z and draw.qz_x is draw.latents[0].q
        assert_close(draw.log_weight.exp().sum(0), torch.ones(B).double())
        assert_close(draw.mean(torch.ones(K, B).double()), torch.ones(B).double())
        assert draw.log_w_by_sample.shape == (S, B) and draw.log_w_by_sample.isfinite().all()
        assert draw.rate.shape == (B,)
        assert draw.is_bound is kind.bound
        if kind.kl is None:
            assert draw.kl_parts is None
            assert_close(draw.rate, draw.mean(draw.log_qz_x - draw.log_pz))
        else:
            assert draw.kl_parts.shape == (B, kind.kl)
            assert_close(draw.rate, draw.kl_parts.sum(-1))
            assert (draw.kl_parts >= -1e-12).all()
        for value in (vaelib.elbo(draw), sampled(draw), vaelib.iwae(draw)):
            assert value.shape == (B,) and value.isfinite().all()


@every_kind
def test_log_densities_are_those_of_q_p_and_the_likelihood(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    draw = kind.make().draw(x, 3, y=y)
    assert_close(draw.px_z.log_prob(x), draw.log_px_z)
    assert_close(sum(latent.p.log_prob(latent.z) for latent in draw.latents), draw.log_pz)
    assert_close(sum(latent.q.log_prob(latent.z) for latent in draw.latents), draw.log_qz_x)
    by_sample = draw.log_w.where(draw.log_weight > -math.inf, -math.inf) + draw.log_weight
    rows = by_sample.reshape(-1, kind.values, len(x)).exp().sum(1)
    assert_close(draw.log_w_by_sample.exp(), rows * len(rows))


@every_kind
def test_the_first_q_and_pictures_of_x(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model, n = kind.make(), len(x)
    q = model.encode(x, y)
    assert q.batch_shape == (n,) and q.event_shape == kind.z_shapes[0]
    draw = model.draw(x, y=y)
    assert_close(q.log_prob(draw.z), draw.latents[0].q.log_prob(draw.z))
    dreamt = y.clamp(min=0) if y is not None else None
    assert model.sample(n, mean=False, y=dreamt).shape == x.shape
    assert model.reconstruct(x, mean=False, y=y).shape == x.shape
    if kind.mean:
        assert model.sample(n, y=dreamt).shape == model.reconstruct(x, y=y).shape == x.shape
    else:
        with pytest.raises(ValueError, match="has no mean; expected mean=False"):
            model.sample(n)
        with pytest.raises(ValueError, match="has no mean; expected mean=False"):
            model.reconstruct(x)


@every_kind
def test_the_same_seed_draws_the_same_bits(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()

    def drawn():
        torch.manual_seed(3)
        return model.draw(x, 4, y=y).log_w, model.sample(
            5, mean=False, y=None if y is None else y[:5].abs()
        )

    for a, b in zip(drawn(), drawn()):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


@every_kind
def test_data_may_be_numpy_or_float32(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    draw = model.draw(x.numpy(), 2, y=None if y is None else y.numpy())
    assert torch.equal(draw.x.nan_to_num(), x.nan_to_num())
    if x.is_floating_point():
        draw = model.draw(x.float(), 2, y=y)
        assert draw.x.dtype == draw.log_w.dtype == torch.float64


def test_encode_of_a_model_that_writes_infer_is_its_own():
    class Named(vaelib.VAE):
        """Its parts have the names that the standard model's have."""

        def __init__(self):
            super().__init__()
            self.encoder, self.latent_dim = nn.Linear(5, 4), 2

        def infer(self, x, num_samples=1, noise=None, y=None):
            q = vaelib.posteriors.laplace(self.encoder(x))
            q = Independent(q, 1)
            z = q.rsample((num_samples,))
            return normal(torch.zeros(*z.shape[:2], 5), 1.0), Latent(z, q, q)

    q = Named().encode(torch.randn(3, 5))
    assert type(q.base_dist) is torch.distributions.Laplace


@every_kind
def test_noise_from_outside_is_used_or_refused(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    if model.noise_dim is None:
        with pytest.raises(ValueError, match="draws its own"):
            model.draw(x, 2, noise=torch.zeros(2, len(x), 2), y=y)
        return
    noise = torch.randn(2, len(x), model.noise_dim, dtype=torch.float64)
    first, second = (model.draw(x, 2, noise=noise, y=y) for _ in range(2))
    assert torch.equal(first.log_w, second.log_w)
    other = model.draw(x, 2, noise=noise + 1, y=y)
    assert all(
        not torch.equal(a.z, b.z)
        for a, b in zip(first.latents, other.latents)
        if a.z.is_floating_point()
    )
    assert model.draw(x, noise=noise, y=y).log_w.shape == first.log_w.shape
    for wrong in (noise[:, 1:], noise[..., 1:], noise[0]):
        with pytest.raises(ValueError, match="noise has shape"):
            model.draw(x, 2, noise=wrong, y=y)


@names("flat", "top_down", "labelled", "given", "player")
def test_noise_of_another_number_of_draws_is_refused(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    noise = torch.randn(2, len(x), model.noise_dim, dtype=torch.float64)
    with pytest.raises(ValueError, match="noise"):
        model.draw(x, 3, noise=noise, y=y)


@every_kind
def test_check_model_finds_no_fault(name):
    kind, (x, y) = KINDS[name], KINDS[name].data(48)
    vaelib.check_model(kind.make(), x, y=y, objective=kind.objective())


# Bounds ------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="expected one of Normal, Laplace, MultivariateNormal"):
        vaelib.stl(draw)


# Dreams ------------------------------------------------------------------------------------------


@torch.no_grad()
@every_kind
def test_dreams_have_the_shapes_of_what_is_seen(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    y = torch.arange(5) % kind.classes if kind.classes else None
    px_z, *z = model.generate(5, y)
    draw = model.draw(x, y=kind.data()[1])
    assert px_z.batch_shape == (5,) and px_z.event_shape == x.shape[1:]
    assert type(px_z) is type(draw.px_z)
    assert [t.shape for t in z] == [(5, *shape) for shape in kind.z_shapes]
    assert [t.dtype for t in z] == [latent.z.dtype for latent in draw.latents]
    assert px_z.sample().shape == (5, *x.shape[1:])


@kinds_with(lambda kind: not hasattr(kind.build, "every"))
def test_dreams_follow_p(name):
    """Where x ~ p, E s = 0 and E x s' = -1 (Stein), s the slope of the exact log p(x)."""
    kind = KINDS[name]
    model, n = kind.make(), 20_000
    y = torch.full((n,), 1) if kind.classes else None
    torch.manual_seed(0)
    x = model.sample(n, mean=False, y=y)
    if kind.build is Missing:
        answers = model.joint().marginal(slice(2, 2 + model.D)).log_prob
    else:

        def answers(x):
            return kind.log_px(model, x, y)

    x.requires_grad_()
    (slope,) = torch.autograd.grad(answers(x).sum(), x)
    x = x.detach()
    mean, error = mean_and_error(slope)
    assert within(mean, 0.0, error)
    mean, error = mean_and_error(x.unsqueeze(-1) * slope.unsqueeze(-2))
    assert within(mean, -torch.eye(x.shape[-1]).double(), error)


@torch.no_grad()
@kinds_with(lambda kind: hasattr(kind.build, "every"))
def test_dreams_of_what_can_be_enumerated_follow_p(name):
    """Pearson's X^2 on n - 1 degrees of freedom: mean n - 1, variance 2 (n - 1)."""
    kind = KINDS[name]
    model, n = kind.make(), 20_000
    every = model.every()
    p = kind.log_px(model, every).exp()
    assert_close(p.sum().item(), 1.0)
    torch.manual_seed(0)
    x = model.sample(n, mean=False)
    places = model.number(x) if name == "autoregressive" else (x * torch.tensor([25, 5, 1])).sum(-1)
    counts = torch.bincount(places, minlength=len(every))
    statistic = ((counts - n * p).square() / (n * p)).sum()
    # Its tail beyond 4 deviations is that of a chi-square: below 4e-4 for 15 degrees or more.
    degrees = len(every) - 1
    assert abs(statistic - degrees) < 4 * math.sqrt(2 * degrees)


# Each kind's own ---------------------------------------------------------------------------------


def test_a_listed_code_has_an_exact_gradient_and_iwae_teaches_its_q_nothing():
    kind, (x, _) = KINDS["listed"], KINDS["listed"].data()
    model = kind.make()
    (of_q,) = torch.autograd.grad(vaelib.iwae(model.draw(x)).sum(), model.encoder.weight)
    assert of_q.abs().max() < 1e-12
    q = Categorical(logits=model.encoder(x))
    by_hand = (q.probs.T * (model.log_joint(x) - q.logits.T)).sum(0)
    assert_close(vaelib.elbo(model.draw(x)), by_hand)
    assert_close(vaelib.elbo(model.draw(x)), sampled(model.draw(x)))
    (found,) = torch.autograd.grad(vaelib.elbo(model.draw(x)).sum(), model.encoder.weight)
    (expected,) = torch.autograd.grad(by_hand.sum(), model.encoder.weight)
    assert_close(found, expected)


def test_a_drawn_codes_score_gradient_is_the_listed_ones_in_expectation():
    kind, (x, _) = KINDS["drawn"], KINDS["drawn"].data()
    drawn, listed = kind.make(), Listed()
    listed.load_state_dict(drawn.state_dict())

    def gradient(model, objective):
        value = objective(model.draw(x, 50)).sum()
        found = torch.autograd.grad(value, list(model.parameters()))
        return torch.cat([g.flatten() for g in found])

    torch.manual_seed(0)
    objective = kind.objective()
    assert_close(objective(drawn.draw(x, 3)).shape, torch.Size([8]))
    rows = torch.stack([gradient(drawn, objective) for _ in range(300)])
    mean, error = mean_and_error(rows)
    assert within(mean, gradient(listed, sampled), error)


def test_a_quantized_code_is_a_bound_by_one_code():
    kind, (x, _) = KINDS["quantized"], KINDS["quantized"].data()
    model = kind.make()
    draw = model.draw(x, 2)
    assert draw.is_bound and (draw.log_qz_x == 0).all()
    assert_close(draw.log_w, (kind.log_px(model, x) - kind.wrong(model, x)).expand(2, -1))
    assert_close(draw.rate, -draw.log_pz[0])
    terms = commitment(draw)
    gradients = torch.autograd.grad(terms["elbo"].sum(), [model.encoder.weight, model.logits])
    assert all(g.abs().sum() > 0 for g in gradients)  # straight through the code


def test_a_label_is_summed_over_where_it_is_missing_and_fixed_where_it_is_known():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model = kind.make()
    told = model.draw(x, 2, y=y)
    weights = told.log_weight.exp().reshape(2, 3, -1).sum(0)
    known = y >= 0
    assert_close(weights[:, known], nn.functional.one_hot(y[known], 3).T.double())
    assert ((weights[:, ~known] > 0) & (weights[:, ~known] < 1)).all()
    for objective in (vaelib.elbo, sampled, vaelib.stl):
        value = objective(model.draw(x, 2, y=y)).sum()
        gradients = torch.autograd.grad(value, list(model.parameters()))
        assert all(g.isfinite().all() for g in gradients)
        # A bound on p(x, y) teaches q(y|x) nothing where y is known.
        value = objective(model.draw(x[known], 2, y=y[known])).sum()
        (of_q_y,) = torch.autograd.grad(value, model.q_y.weight, allow_unused=True)
        assert of_q_y is None or of_q_y.abs().max() == 0


@torch.no_grad()
def test_a_weight_that_is_told_is_the_one_that_would_be_taken():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()

    class Untold(Labelled):
        told = False

    model, untold = kind.make(), Untold()
    untold.load_state_dict(model.state_dict())
    noise = torch.randn(3, len(x), 2, dtype=torch.float64)
    first, second = model.draw(x, noise=noise, y=y), untold.draw(x, noise=noise, y=y)
    assert_close(first.log_weight, second.log_weight)
    assert_close(first.log_w_by_sample, second.log_w_by_sample)
    assert_close(sampled(first), sampled(second))
    assert second.kl_parts.shape == (len(x), 2)
    assert_close(second.kl_parts[y >= 0, 0], torch.full((4,), math.log(3)).double())
    torch.manual_seed(0)
    difference = repeated(untold, lambda d: sampled(d) - vaelib.elbo(d), x, y, 50)
    mean, error = mean_and_error(difference)
    assert within(mean, 0.0, error)


@torch.no_grad()
def test_a_known_label_may_be_told_by_its_weight_alone():
    """q(y|x) stays as it was; log w is still of p(x, y), not of p(x, y) / q(y|x), no bound."""
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model, y = kind.make(solved=True), torch.arange(8) % 3
    z = torch.arange(3)[:, None].expand(-1, len(x))
    known = torch.where(z == y, 0.0, -math.inf).double()
    q_y, uniform = Categorical(logits=model.q_y(x)), Categorical(logits=torch.zeros(3).double())
    px_z, _, continuous = model.infer(x, 1, None, y)
    draw = Draw.of(x, px_z, Latent(z, q_y, uniform, 3, known), continuous)
    assert_close(vaelib.iwae(draw), kind.log_px(model, x, y))


def test_labels_that_are_learnt_are_no_part_of_scoring():
    kind, (x, y) = KINDS["labelled"], KINDS["labelled"].data()
    model = kind.make()
    unseen = vaelib.log_marginal(model, x, num_samples=50)
    labelled = vaelib.log_marginal(model, vaelib.data.Images(x, y.clamp(min=0)), num_samples=50)
    assert torch.equal(unseen.values, labelled.values)
    with pytest.raises(ValueError, match="training only"):
        vaelib.log_marginal(model, x, y=y)


@names("given", "conditional")
def test_labels_that_are_given_are_asked_for_everywhere(name):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model = kind.make()
    for call in (model.draw, model.encode, model.reconstruct, lambda x: model.sample(3)):
        with pytest.raises(ValueError, match="got no labels"):
            call(x)
    with pytest.raises(ValueError, match="labels"):
        vaelib.log_marginal(model, x)
    with pytest.raises(ValueError, match="7 labels for 8"):
        model.draw(x, y=y[1:])
    of_images = vaelib.log_marginal(model, vaelib.data.Images(x, y), num_samples=20)
    assert torch.equal(of_images.values, vaelib.log_marginal(model, x, 20, y=y).values)
    assert not torch.equal(
        of_images.values, vaelib.log_marginal(model, x, 20, y=(y + 1) % 3).values
    )
    with pytest.raises(ValueError, match="takes no labels"):
        KINDS["flat"].make().draw(x, y=y)


@torch.no_grad()
def test_decode_takes_the_condition():
    kind, (x, y) = KINDS["conditional"], KINDS["conditional"].data()
    model = kind.make()
    z = torch.randn(3, len(x), 2, dtype=torch.float64)
    expected = z @ model.decoder.linear.weight[:, :2].T + model.means()[y]
    assert_close(model.decode(z, y).mean, expected)
    assert_close(model.decode(z[0], y).mean, expected[0])


@torch.no_grad()
def test_a_path_by_its_filter_is_the_path_by_its_covariance():
    kind, (x, _) = KINDS["path"], KINDS["path"].data()
    model = kind.make()
    prior, gain = model.pz(), model.gain
    cov = gain**2 * prior.covariance_matrix + SX**2 * torch.eye(7).double()
    whole = torch.distributions.MultivariateNormal(torch.zeros(7).double(), cov)
    assert_close(kind.log_px(model, x), whole.log_prob(x))


@torch.no_grad()
def test_a_heavy_posterior_trains_on_its_own_draws():
    """A Laplace has kurtosis 6; its draws obey Stein's identity, normal noise does not."""
    kind, (x, _) = KINDS["heavy"], KINDS["heavy"].data()
    torch.manual_seed(0)
    draw = kind.make().draw(x, 20_000)
    q = draw.qz_x

    def stein(z):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
        return mean_and_error(((z.detach() - q.mean) * slope).sum(-1).flatten())

    u = (draw.z - q.mean) / q.base_dist.scale
    assert abs((u**4).mean() / (u**2).mean() ** 2 - 6) < 0.2
    mean, error = stein(draw.z)
    assert within(mean, -3.0, error)
    mean, error = stein(q.mean + q.stddev * torch.randn_like(draw.z))
    assert abs(mean + 3) > 20 * error


def test_bits_are_known_by_their_support():
    kind, (x, _) = KINDS["autoregressive"], KINDS["autoregressive"].data()
    model = kind.make()
    with pytest.raises(ValueError, match="binarize"):
        model.draw(x * 0.5 + 0.2)
    grey = torch.rand(40, model.D, dtype=torch.float64)
    estimate = vaelib.log_marginal(model, grey, data_seed=3)
    bits = vaelib.data.binarize(grey, 3)
    assert estimate.data_seed == 3
    assert_close(estimate.values, kind.log_px(model, bits))


def test_tokens_keep_their_values():
    kind, (x, _) = KINDS["tokens"], KINDS["tokens"].data()
    model = kind.make()
    assert x.dtype == torch.int64
    assert torch.equal(model.draw(x).x, x) and torch.equal(model.draw(x.numpy()).x, x)


def test_missing_entries_cost_nothing_and_leave_gradients_finite():
    kind, (x, _) = KINDS["missing"], KINDS["missing"].data()
    model = kind.make()
    draw = model.draw(x, 3)
    assert x[0].isnan().all() and (draw.log_px_z[:, 0] == 0).all()
    gradients = torch.autograd.grad(vaelib.elbo(draw).sum(), list(model.parameters()))
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    solved = kind.make(solved=True)
    assert_close(solved.draw(x).log_w[0, 0].item(), 0.0)  # p of nothing is 1
    assert model.reconstruct(x).isfinite().all()
    with pytest.raises(ValueError, match="missing = True"):
        KINDS["flat"].make().draw(torch.full((2, 5), math.nan))
    with pytest.raises(ValueError, match="infinite"):
        model.draw(x.nan_to_num(math.inf))


# Training ----------------------------------------------------------------------------------------


def fitted(name, epochs=4, model=None, **settings):
    kind = KINDS[name]
    x, y = kind.data(48)
    model = kind.make() if model is None else model
    data = x if y is None else vaelib.data.Images(x, y)
    objective = settings.pop("objective", None) or kind.objective()
    settings = {"batch_size": 16, "lr": 0.02, "num_samples": kind.num_samples, **settings}
    return model, vaelib.fit(model, data, objective=objective, epochs=epochs, **settings)


@torch.no_grad()
def bound_of(name, model, objective):
    """The mean objective over 48 examples, and its Monte Carlo error."""
    x, y = KINDS[name].data(48)
    torch.manual_seed(0)
    rows = repeated(model, lambda draw: vaelib.objectives.total(objective(draw)), x, y, 8, 100)
    return mean_and_error(rows.mean(1))


@every_kind
def test_fit_raises_the_bound(name):
    kind = KINDS[name]
    objective = vaelib.elbo if name == "player" else kind.objective()  # its game raises no sum
    before, first = bound_of(name, kind.make(), vaelib.elbo)
    model, history = fitted(name, epochs=16, objective=objective)
    assert not model.training and len(history.train) == 16
    after, last = bound_of(name, model, vaelib.elbo)
    assert after > before + 4 * (first**2 + last**2).sqrt() + 1e-9, (before, after)
    exact = kind.log_px(model, *kind.data(48)).mean()
    assert after < exact + 4 * last + 1e-9  # still a bound


class Cut(Exception):
    """The power goes."""


@every_kind
def test_a_cut_run_ends_with_the_bits_of_an_uncut_one(name, tmp_path):
    objectives = [KINDS[name].objective() for _ in range(2)]
    whole, history = fitted(name, objective=objectives[0])

    def pull(model, history):
        if history.epoch[-1] == 2:
            raise Cut

    model = KINDS[name].make()
    with pytest.raises(Cut):
        fitted(name, model=model, objective=objectives[1], out=tmp_path, callback=pull)
    resumed = KINDS[name].make(seed=1)  # what it holds comes from the checkpoint
    again = KINDS[name].objective()
    resumed, taken_up = fitted(name, model=resumed, objective=again, out=tmp_path)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert taken_up.train == history.train and taken_up.elbo == history.elbo
    assert taken_up.terms == history.terms
    if isinstance(again, nn.Module):
        for a, b in zip(objectives[0].state_dict().values(), again.state_dict().values()):
            assert torch.equal(a, b)


@names("quantized", "player")
def test_terms_are_logged_and_sum_to_what_is_maximised(name):
    _, history = fitted(name)
    expected = {
        "quantized": ["elbo", "codebook", "commitment"],
        "player": ["elbo", "fool", "judge"],
    }
    assert sorted(history.terms) == sorted(expected[name])
    assert all(len(column) == 4 for column in history.terms.values())
    for epoch, total in enumerate(history.train):
        assert_close(sum(column[epoch] for column in history.terms.values()), total)


def test_fit_refuses_a_drawn_code_that_would_learn_nothing():
    model = KINDS["drawn"].make()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="gradient"):
        fitted("drawn", model=model, objective=vaelib.elbo)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    for objective in (vaelib.iwae, sampled):
        with pytest.raises(ValueError, match="gradient"):
            fitted("drawn", objective=objective)


def test_fit_refuses_a_drawn_code_among_other_latents():
    class Second(Drawn):
        """z1 is continuous and learns; z2, drawn, would not."""

        def __init__(self):
            super().__init__()
            self.q1 = nn.Linear(5, 5, dtype=torch.float64)

        def infer(self, x, num_samples=1, noise=None, y=None):
            _, code = super().infer(x, num_samples, noise, y)
            q = normal(self.q1(x), torch.ones_like(x))
            z = q.rsample((num_samples,))
            p = normal(torch.zeros_like(x[0]), torch.ones_like(x[0]))
            return normal(self.table[code.z] + z, SX), Latent(z, q, p), code

        def generate(self, n, y=None):
            z = torch.randn(n, 5, dtype=torch.float64)
            code = Categorical(logits=self.logits).sample((n,))
            return normal(self.table[code] + z, SX), z, code

    with pytest.raises(ValueError, match="gradient"):
        vaelib.fit(Second(), KINDS["drawn"].data(8)[0], epochs=1)


@names("listed", "autoregressive", "labelled")
def test_fit_refuses_to_teach_a_listed_code_by_iwae(name):
    with pytest.raises(ValueError, match="listed"):
        fitted(name, objective=vaelib.iwae)


def test_fit_warns_of_an_objective_with_the_wrong_sign():
    def loss(draw):
        return -vaelib.elbo(draw)

    with pytest.warns(UserWarning, match="falls|sign|maximi") as caught:
        fitted("flat", objective=loss, epochs=2)
    assert len([w for w in caught if issubclass(w.category, UserWarning)]) == 1


def test_each_term_moves_its_own_player_alone():
    x, _ = KINDS["player"].data()
    player, critic = KINDS["player"].make(), Critic()
    terms = critic(player.draw(x))
    moved = {}
    for name, term in terms.items():
        both = [player.shift, critic.net.weight]
        found = torch.autograd.grad(term.sum(), both, retain_graph=True, allow_unused=True)
        moved[name] = [g is not None and bool((g != 0).any()) for g in found]
    assert moved == {"elbo": [True, False], "fool": [True, False], "judge": [False, True]}


def test_two_players_find_their_equilibrium():
    """A strongly monotone game: 300 steps of descent at 0.05 leave e^-15 of where they began.

    What is left is the noise of 64 x 64 draws, below 1e-3 a step; 0.01 is stated.
    """
    player, critic = KINDS["player"].make(), Critic()
    x, _ = KINDS["player"].data(64)
    shift, weight = critic.equilibrium(x)
    start = torch.cat(
        [player.shift.detach() - shift, critic.net.weight.detach()[0] - weight]
    ).norm()
    assert start > 1
    vaelib.fit(
        player,
        x,
        objective=critic,
        epochs=300,
        batch_size=64,
        num_samples=64,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )
    assert (player.shift - shift).norm() < 0.01
    assert (critic.net.weight[0] - weight).norm() < 0.01


def test_an_objective_is_a_group_of_its_own():
    seen = []

    def optimizer(parameters):
        groups = list(parameters)
        seen.extend(groups)
        return torch.optim.SGD(groups, lr=0.01)

    critic = Critic()
    player, _ = fitted("player", objective=critic, epochs=1, optimizer=optimizer)
    named = [
        group for group in seen if isinstance(group, dict) and group.get("name") == "objective"
    ]
    assert len(named) == 1 and list(named[0]["params"]) == [critic.net.weight]
    assert not any(name.startswith("net") for name in player.state_dict())


# Files -------------------------------------------------------------------------------------------


@every_kind
def test_save_and_load_bring_the_same_draws(name, tmp_path):
    kind, (x, y) = KINDS[name], KINDS[name].data()
    model, other = kind.make(), kind.make(seed=1)
    path = tmp_path / "model.safetensors"
    vaelib.save(model, path)
    assert not torch.equal(*(parameters_of(m) for m in (model, other)))
    assert vaelib.load(path, into=other) is other and not other.training
    assert torch.equal(*(parameters_of(m) for m in (model, other)))
    draws = []
    for m in (model.eval(), other):
        torch.manual_seed(5)
        draws.append(m.draw(x, 3, y=y))
    for field in dataclasses.fields(Draw):
        a, b = (getattr(draw, field.name) for draw in draws)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), field.name
    with pytest.raises(ValueError, match="into=model"):
        vaelib.load(path)
    stranger = KINDS["flat" if name != "flat" else "listed"].make()
    with pytest.raises(ValueError, match="another model"):
        vaelib.load(path, into=stranger)


def parameters_of(model):
    return torch.cat([t.flatten() for t in model.state_dict().values()])


# What an outsider found ---------------------------------------------------------------------------


class Strata(vaelib.VAE):
    """A mixture posterior, a draw from each component: strata, which count by their weights."""

    def __init__(self, swapped=False, held=False):
        super().__init__()
        self.swapped, self.held = swapped, held
        self.log_share = nn.Parameter(torch.tensor([2.0, 0.0, -2.0]))
        self.loc = nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))
        self.log_scale = nn.Parameter(torch.tensor([-0.5, -0.5, -0.5]))

    def infer(self, x, num_samples=1, noise=None, y=None):
        shape = (num_samples, 3, len(x), 1)
        loc, scale = (t[:, None].expand(len(x), 3, 1) for t in (self.loc, self.log_scale.exp()))
        q = MixtureSameFamily(
            Categorical(logits=self.log_share.expand(len(x), 3)), normal(loc, scale)
        )
        eps = torch.randn(shape, dtype=x.dtype)
        z = self.loc[:, None, None] + self.log_scale.exp()[:, None, None] * eps
        z = (z.detach() if self.held else z).flatten(0, 1)
        share = self.log_share.log_softmax(-1)
        share = share.flip(0) if self.swapped else share
        share = share[:, None].expand(num_samples, 3, len(x)).flatten(0, 1)
        p = normal(torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype))
        return normal(z, torch.full_like(z, 0.5)), Latent(z, q, p, values=3, log_weight=share)

    def generate(self, n, y=None):
        z = torch.randn(n, 1, dtype=self.loc.dtype)
        return normal(z, torch.full_like(z, 0.5)), z


def test_strata_are_drawn_and_not_listed():
    torch.manual_seed(0)
    model, x = Strata().double(), 1.25**0.5 * torch.randn(60, 1, dtype=torch.float64)
    exact = Normal(0.0, 1.25**0.5).log_prob(x).sum(-1)
    estimate = vaelib.log_marginal(model, x, num_samples=2000)
    assert estimate.num_samples == 2000 and estimate.mc_stderr > 0
    assert abs(estimate.mean - exact.mean()) < 4 * estimate.mc_stderr + 1e-4
    vaelib.check_model(model, x)
    with pytest.raises(ValueError, match="do not follow its q"):
        vaelib.check_model(Strata(swapped=True).double(), x)
    with pytest.raises(ValueError, match="its z carries no gradient"):
        vaelib.fit(Strata(held=True).double(), x, epochs=1)


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
