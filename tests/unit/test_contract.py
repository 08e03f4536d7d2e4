"""The contract of a model, kept by sixteen kinds of them, against exact answers.

What is checked of which kind: + where it holds, . where it makes no sense.

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

Where they are: exact, gap, kl and log_marginal in test_contract_bounds.py, stl in
test_contract_gradients.py, train in test_contract_training.py, labels and what else one kind
alone promises in test_contract_of_one_kind.py, the rest here. The kinds are in kinds/, tolerances
in contract.py.
"""

import dataclasses
import math

import pytest
import torch
from contract import every_kind, kinds_with, mean_and_error, names, sampled, within
from kinds import KINDS
from kinds.gaussians import normal
from kinds.missing import Missing
from torch import nn
from torch.distributions import Independent
from torch.testing import assert_close

import vaelib
from vaelib import Draw, Latent

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
def test_check_model_finds_no_fault(name):
    kind, (x, y) = KINDS[name], KINDS[name].data(48)
    vaelib.check_model(kind.make(), x, y=y, objective=kind.objective())


# Noise from outside ------------------------------------------------------------------------------


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


# Files -------------------------------------------------------------------------------------------


def parameters_of(model):
    return torch.cat([t.flatten() for t in model.state_dict().values()])


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
