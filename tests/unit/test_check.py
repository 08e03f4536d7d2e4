"""`check_model`: each kind of model keeps the contract, and each broken promise is found.

A planted fault is a model that is right but for one line. Statistical promises are tested at
about five standard errors or more, so that what is right passes, whatever the seed.
"""

import random
import warnings
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from kinds import KINDS
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)

import vaelib
from vaelib import Draw, Latent
from vaelib.check import check_model
from vaelib.posteriors import reparameterized
from vaelib.priors import FlowPrior
from vaelib.refusals import check_objective

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
GREY = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
C = 4  # codes


def normal(loc, scale):
    return Independent(Normal(loc, scale), 1)


class Flat(vaelib.VAE):
    """A right model of one flat latent, a method a line to break."""

    noise_dim = 2

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(5, 4), nn.Linear(2, 5)

    def q(self, x):
        loc, log_scale = self.enc(x).chunk(2, -1)
        return normal(loc, log_scale.exp())

    def z(self, q, num_samples, noise):
        return reparameterized(q, num_samples, noise)

    def px_z(self, z):
        return normal(self.dec(z), 0.5)

    def pz(self):
        return normal(torch.zeros(2), torch.ones(2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = self.q(x)
        z = self.z(q, num_samples, noise)
        return self.px_z(z), Latent(z, q, self.pz())

    def generate(self, n, y=None):
        z = torch.randn(n, 2)
        return self.px_z(z), z


class TwoLayers(vaelib.VAE):
    """z2 -> z1 -> x, inferred in that order; layers of one size."""

    def __init__(self):
        super().__init__()
        self.enc2, self.enc1 = nn.Linear(5, 4), nn.Linear(7, 4)
        self.below, self.dec = nn.Linear(2, 2), nn.Linear(2, 5)

    def p1(self, z2):
        return self.below(z2)

    def split(self, parameters):
        loc, log_scale = parameters.chunk(2, -1)
        return normal(loc, log_scale.exp())

    def infer(self, x, num_samples=1, noise=None, y=None):
        q2 = self.split(self.enc2(x))
        z2 = q2.rsample((num_samples,))
        q1 = self.split(self.enc1(torch.cat([x.expand(num_samples, -1, -1), z2], -1)))
        z1 = q1.rsample()
        p2, p1 = normal(torch.zeros(2), torch.ones(2)), normal(self.p1(z2), 0.3)
        return normal(self.dec(z1), 0.5), Latent(z2, q2, p2), Latent(z1, q1, p1)

    def generate(self, n, y=None):
        z2 = torch.randn(n, 2)
        z1 = self.p1(z2) + 0.3 * torch.randn(n, 2)
        return normal(self.dec(z1), 0.5), z2, z1


class BottomUp(TwoLayers):
    """The same p; q(z1|x) q(z2|z1)."""

    nested = False

    def __init__(self):
        super().__init__()
        self.enc1, self.enc2 = nn.Linear(5, 4), nn.Linear(2, 4)

    def infer(self, x, num_samples=1, noise=None, y=None):
        q1 = self.split(self.enc1(x))
        z1 = q1.rsample((num_samples,))
        q2 = self.split(self.enc2(z1))
        z2 = q2.rsample()
        p2, p1 = normal(torch.zeros(2), torch.ones(2)), normal(self.p1(z2), 0.3)
        return normal(self.dec(z1), 0.5), Latent(z1, q1, p1, nested=self.nested), Latent(z2, q2, p2)

    def generate(self, n, y=None):
        px_z, z2, z1 = super().generate(n)
        return px_z, z1, z2


class Listed(vaelib.VAE):
    """One of C codes, summed over."""

    def __init__(self):
        super().__init__()
        self.enc, self.table = nn.Linear(5, C), nn.Parameter(torch.randn(C, 5))

    def latent(self, x, num_samples):
        q = Categorical(logits=self.enc(x))
        z = torch.arange(C).repeat(num_samples)[:, None].expand(-1, len(x))
        return Latent(z, q, Categorical(logits=torch.zeros(C)), values=C)

    def infer(self, x, num_samples=1, noise=None, y=None):
        latent = self.latent(x, num_samples)
        return normal(self.table[latent.z], 0.5), latent

    def generate(self, n, y=None):
        z = torch.randint(C, (n,))
        return normal(self.table[z], 0.5), z


class Drawn(Listed):
    """One of C codes, drawn: for an objective that supplies the gradient."""

    def latent(self, x, num_samples):
        q = Categorical(logits=self.enc(x))
        return Latent(q.sample((num_samples,)), q, Categorical(logits=torch.zeros(C)))


class Score:
    supplies_gradient = True

    def __call__(self, draw):
        log_w = draw.log_w.detach()
        return draw.mean(draw.log_px_z + log_w * draw.log_qz_x)


def check(build, data=X, **how):
    torch.manual_seed(0)
    check_model(build(), data, **how)


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


@pytest.mark.parametrize("seed", range(5))
def test_no_seed_finds_fault_with_what_is_right(seed):
    torch.manual_seed(seed)
    check_model(TwoLayers(), X, seed=seed)


# A broken promise each ---------------------------------------------------------------------------


class OneSample(Flat):
    def z(self, q, num_samples, noise):
        return q.rsample((1,))


class BatchFirst(Flat):
    def z(self, q, num_samples, noise):
        return super().z(q, num_samples, noise).transpose(0, 1)


class Unsummed(Flat):
    def px_z(self, z):
        return Normal(self.dec(z), 0.5)


class UnsummedPosterior(Flat):
    def q(self, x):
        return super().q(x).base_dist


class PosteriorOfDraws(Flat):
    def infer(self, x, num_samples=1, noise=None, y=None):
        q = self.q(x.expand(num_samples, -1, -1))
        z = q.rsample() if noise is None else q.mean + q.stddev * noise
        return self.px_z(z), Latent(z, q, self.pz())


class NotANumber(Flat):
    def px_z(self, z):
        return normal(self.dec(z), z.new_tensor([0.5, 0.5, 0.5, 0.5, 0.0]))


class OtherDtype(Flat):
    def px_z(self, z):
        return normal(self.dec(z).double(), 0.5)


class OtherScale(Flat):
    def z(self, q, num_samples, noise):
        return q.mean + 1.1 * (super().z(q, num_samples, noise) - q.mean)


class OtherMean(Flat):
    def z(self, q, num_samples, noise):
        return super().z(q, num_samples, noise) + 0.1 * q.stddev


class OnlyFromNoise(Flat):
    """What fit hands over is used wrongly; its own draws are right."""

    def z(self, q, num_samples, noise):
        return q.rsample((num_samples,)) if noise is None else q.mean + q.variance * noise


class LaplaceFromNormal(Flat):
    def q(self, x):
        loc, log_scale = self.enc(x).chunk(2, -1)
        return Independent(Laplace(loc, log_scale.exp()), 1)

    def z(self, q, num_samples, noise):
        if noise is None:
            noise = torch.randn(num_samples, *q.mean.shape)
        return q.mean + q.stddev * noise


class NormalFromLaplace(Flat):
    noise_dim = None

    def z(self, q, num_samples, noise):
        return Laplace(q.mean, q.stddev / 2**0.5).rsample((num_samples,))


class CorrelatedFromLaplace(NormalFromLaplace):
    """No cdf, and Stein's identity sees two moments of a normal only."""

    def q(self, x):
        q = super().q(x)
        return MultivariateNormal(q.mean, torch.diag_embed(q.variance))


class Unnormalised(Flat):
    noise_dim = None

    class Bell(Distribution):
        """A normal of one's own, without 2 pi."""

        arg_constraints: ClassVar = {}
        has_rsample = True

        def __init__(self, loc, log_scale):
            self.loc, self.log_scale = loc, log_scale
            super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

        def rsample(self, sample_shape=()):
            noise = torch.randn(self._extended_shape(sample_shape))
            return self.loc + self.log_scale.exp() * noise

        def log_prob(self, value):
            u = (value - self.loc) / self.log_scale.exp()
            return (-0.5 * u.square() - self.log_scale).sum(-1)

    def q(self, x):
        return self.Bell(*self.enc(x).chunk(2, -1))


class Trap(BottomUp):
    nested = True


class HiddenTrap(Trap):
    """p(z1|z2) by a copy of z2 that autograd does not know: the draws know it."""

    def __init__(self):
        super().__init__()
        nn.init.eye_(self.enc2.weight)

    def p1(self, z2):
        return 2 * z2.detach()


class NotAllListed(Listed):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z[: C - 1], latent.q, latent.p, values=C - 1)


class Unweighted(Listed):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z, latent.q, latent.p, C, log_weight=torch.zeros(latent.z.shape))


class OtherFrequencies(Drawn):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        cool = Categorical(logits=1.3 * latent.q.logits)
        return Latent(cool.sample((num_samples,)), latent.q, latent.p)


class PointWithPrice(Drawn):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z, latent.q, latent.p, point=True)


class Detached(Flat):
    def q(self, x):
        loc, log_scale = self.enc(x).detach().chunk(2, -1)
        return normal(loc, log_scale.exp())


class Unused(Flat):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)


class InfiniteGradient(Flat):
    def px_z(self, z):
        return normal(self.dec(z) + (z[..., :1] * 0).sqrt(), 0.5)


class BatchStatistics(Flat):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5, track_running_stats=False, affine=False)

    def q(self, x):
        return super().q(self.norm(x))


class LeakInDecoder(Flat):
    def px_z(self, z):
        return normal(self.dec(z) + z.mean(-2, keepdim=True).mean(-1, keepdim=True), 0.5)


class Counter(Flat):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def q(self, x):
        self.seen += len(x)
        return super().q(x)


class DrawsByNumPy(Flat):
    noise_dim = None

    def z(self, q, num_samples, noise):
        noise = np.random.standard_normal((num_samples, *q.mean.shape)).astype("f")  # noqa: NPY002
        return q.mean + q.stddev * torch.from_numpy(noise)


class DrawsByPython(DrawsByNumPy):
    def z(self, q, num_samples, noise):
        generator = torch.Generator().manual_seed(random.getrandbits(32))
        noise = torch.randn((num_samples, *q.mean.shape), generator=generator)
        return q.mean + q.stddev * noise


class NoiseIgnored(Flat):
    def z(self, q, num_samples, noise):
        return q.rsample((num_samples if noise is None else len(noise),))


class NoiseInPart(Flat):
    def z(self, q, num_samples, noise):
        z = super().z(q, num_samples, noise)
        first = torch.arange(2) == 0
        return torch.where(first, z, super().z(q, num_samples, None))


class NoiseUnasked(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat = Flat()

    def forward(self, x, num_samples=1, noise=None):
        return Draw.of(x, *self.flat.infer(x, num_samples, noise))


class GeneratesOtherShape(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return normal(px_z.mean[:, :4], 0.5), z


class GeneratesOneLess(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return normal(px_z.mean.unsqueeze(0), 0.5), z


class GeneratesOtherLikelihood(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return Independent(Laplace(px_z.mean, 0.5), 1), z


class GeneratesNothing(Flat):
    generate = vaelib.VAE.generate


class GeneratesOtherLatents(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return px_z, z.round().long()


class GeneratesInOtherOrder(TwoLayers):
    def generate(self, n, y=None):
        px_z, z2, z1 = super().generate(n)
        return px_z, z1, z2


class GeneratesOfOtherPrior(Flat):
    def pz(self):
        return normal(torch.ones(2), torch.ones(2))


class PlainTensor(Flat):
    def __init__(self):
        super().__init__()
        self.shift = torch.randn(5)

    def px_z(self, z):
        return normal(self.dec(z) + self.shift, 0.5)


class LostState(Flat):
    """A number that training moves, and that no file keeps."""

    scale = 0.5

    def px_z(self, z):
        if self.training:
            self.scale *= 0.9
        return normal(self.dec(z), self.scale)


class NanIsNotMissing(Flat):
    missing = True

    def q(self, x):
        return super().q(x.nan_to_num())

    def px_z(self, z):
        class Filled(Normal):
            def log_prob(self, value):
                return super().log_prob(value.nan_to_num())

        return Independent(Filled(self.dec(z), 0.5), 1)


class NoDraw(nn.Module):
    def forward(self, x, num_samples=1):
        return x


BROKEN = [
    (OneSample, "infer gave 1 draws for num_samples = 3; expected 3"),
    (BatchFirst, "infer gave 8 draws for num_samples = 3; expected 3"),
    (Unsummed, r"p\(x\|z\) has batch shape \[1, 2, 5\] .* with Independent"),
    (UnsummedPosterior, r"log q\(z\|x\) has shape .* Independent"),
    (PosteriorOfDraws, r"q of latent 0 .* batch shape \[3, 8\]; expected \[8\].* read x alone"),
    (NotANumber, "log_px_z is NaN or infinite in 24 of 24 places"),
    (OtherDtype, r"log p\(x\|z\) is torch.float64"),
    (OtherScale, r"latent 0 \(Normal\) do not follow its q: E \(z - mean\) . grad log q"),
    (OtherMean, r"do not follow its q: E grad log q is .*, not 0"),
    (OnlyFromNoise, "latent 0 .* from noise do not follow its q"),
    (LaplaceFromNormal, r"latent 0 \(Laplace\) do not follow its q: E \(z - mean\) . grad log q"),
    (NormalFromLaplace, r"do not follow its q: their distribution lies 0.0.* from q's"),
    (CorrelatedFromLaplace, r"do not follow its q: their distribution lies 0.0.* from q's"),
    (Unnormalised, r"the density of log q integrates to 6.2"),
    (Trap, r"p of latent 0 \(Normal\) reads a later latent, .* expected nested=False"),
    (HiddenTrap, "kl_parts are off: the draws say .* nats more, .* nested=False"),
    (NotAllListed, r"weights of a sample's 3 listed values sum to 0.* expected 1: list every"),
    (Unweighted, r"weights of a sample's 4 listed values sum to 4; expected 1"),
    (PointWithPrice, r"q of latent 0 \(Categorical\) is a point, but log q\(z\|x\) is not 0"),
    (Drawn, r"q of latent 0 \(Categorical\) has parameters, but its z carries no gradient"),
    (Detached, "no gradient reached the model's enc.weight, the model's enc.bias; expected"),
    (Unused, "no gradient reached the model's spare.weight, the model's spare.bias; expected"),
    (InfiniteGradient, "gradient of .*enc.weight.* is NaN or infinite in step 0"),
    (BatchStatistics, r"q of latent 0 \(Normal\) of an example changed with the other examples"),
    (LeakInDecoder, "log_px_z of an example changed with the other examples"),
    (Counter, "In eval mode a draw moved seen; expected state to stay"),
    (DrawsByNumPy, "Two draws from the same seed differ; .* torch's generator alone"),
    (DrawsByPython, "Two draws from the same seed differ; .* torch's generator alone"),
    (NoiseIgnored, "Other noise gave the same z, though noise_dim is 2|another seed gave another"),
    (NoiseInPart, "The same noise under another seed gave another z"),
    (NoiseUnasked, "took noise, but its noise_dim is None"),
    (GeneratesOtherShape, r"batch shape \[1000\] and event shape \[4\]; expected \[1000\] and \[5"),
    (GeneratesOneLess, r"batch shape \[1, 1000\] and event shape \[5\]; expected \[1000\]"),
    (GeneratesOtherLikelihood, "generate gave a p.* that is a Laplace, and infer a Normal"),
    (GeneratesNothing, "generate.1000. failed: GeneratesNothing writes no generate"),
    (GeneratesOtherLatents, r"kinds \['int64'\]; expected .* and \['float32'\], in infer's order"),
    (GeneratesInOtherOrder, "latent 0 does not follow the p of infer's latent 0: .* infer's order"),
    (GeneratesOfOtherPrior, "latent 0 does not follow the p of infer's latent 0"),
    (PlainTensor, "shift is a tensor, but no parameter and no buffer, .*register_buffer"),
    (LostState, "After save and load.* the model draws otherwise: training moved something"),
    (NanIsNotMissing, r"an example of NaN alone has log p\(x\|z\)"),
    (NoDraw, r"gave no p\(x\|z\) for 2 examples"),
]


@pytest.mark.parametrize(("build", "says"), BROKEN, ids=[build.__name__ for build, _ in BROKEN])
def test_a_broken_promise_is_found(build, says):
    with pytest.raises(ValueError, match=says):
        check(build)


def test_the_frequencies_of_a_drawn_code_are_those_of_q():
    check(Drawn, objective=Score())
    with pytest.raises(ValueError, match="the frequency of an outcome is off by"):
        check(OtherFrequencies, objective=Score())


def test_all_that_is_broken_is_said_a_sentence_a_line():
    class Both(Unused, GeneratesOtherLikelihood):
        pass

    with pytest.raises(ValueError) as error:
        check(Both)
    assert len(str(error.value).splitlines()) == 2


def test_an_objectives_own_parameters_are_to_have_a_gradient():
    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

        def forward(self, draw):
            return {"elbo": vaelib.elbo(draw), "own": -(self.used**2).expand(len(draw.x))}

    with pytest.raises(ValueError, match="no gradient reached the objective's spare; expected"):
        check(Flat, objective=Objective())


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (lambda draw: vaelib.elbo(draw).mean(), r"gave shape \[\]; expected \[40\]"),
        (lambda draw: vaelib.elbo(draw).detach(), "depends on no parameter"),
    ],
)
def test_an_objective_of_no_use_is_named(objective, says):
    with pytest.raises(ValueError, match=says):
        check(Flat, objective=objective)


def test_schedules_get_their_step():
    check(Flat, objective=partial(vaelib.elbo, beta=vaelib.objectives.linear(10)))


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


# What fit asks of the objective ------------------------------------------------------------------


def ask(build, objective, x=X, **given):
    """check_objective on a first batch, as fit calls it; a warning is an error."""
    torch.manual_seed(0)
    draw = build()(x, 3)
    value = vaelib.objectives.total(objective(draw, **given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_objective(draw, value, objective)
    value.sum().backward()  # the graph is still there


def test_a_drawn_code_needs_an_objective_that_supplies_its_gradient():
    with pytest.raises(ValueError, match=r"latent 0 \(Categorical\) .* supplies_gradient"):
        ask(Drawn, vaelib.elbo)
    ask(Drawn, Score())
    ask(Drawn, partial(partial(Score())))


def test_a_detached_draw_is_refused_by_its_place():
    class Second(TwoLayers):
        def infer(self, x, num_samples=1, noise=None, y=None):
            px_z, first, second = super().infer(x, num_samples)
            return px_z, first, Latent(second.z.detach(), second.q, second.p)

    with pytest.raises(ValueError, match=r"q of latent 1 \(Normal\) has parameters"):
        ask(Second, vaelib.elbo)


class ListedByChance(Listed):
    """Its q is made of probabilities, not of logits."""

    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z, Categorical(probs=latent.q.probs), latent.p, values=C)


@pytest.mark.parametrize("build", [Listed, ListedByChance])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_listed_q_is_refused_where_the_objective_teaches_it_nothing(build, scale):
    ask(build, lambda draw: scale * vaelib.elbo(draw))
    ask(build, lambda draw: scale * vaelib.elbo(draw, analytic=False))
    ask(build, partial(vaelib.elbo, beta=0.0))
    with pytest.raises(ValueError, match=r"q of latent 0 \(Categorical\) is listed, and .* iwae"):
        ask(build, lambda draw: scale * vaelib.iwae(draw))


def test_a_listed_q_that_has_nothing_to_learn_yet_is_no_fault():
    class Even(Listed):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.table)
            nn.init.zeros_(self.enc.weight)
            nn.init.zeros_(self.enc.bias)

    ask(Even, vaelib.elbo)


@pytest.mark.parametrize("name", KINDS)
def test_no_kind_is_refused_with_its_objective(name):
    kind, objective = KINDS[name], KINDS[name].objective()
    x, y = kind.data()
    draw = kind.make()(x, kind.num_samples, **({} if y is None else {"y": y}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_objective(draw, vaelib.objectives.total(objective(draw)), objective)


@pytest.mark.parametrize(
    "objective",
    [
        vaelib.elbo,
        vaelib.iwae,
        vaelib.stl,
        partial(vaelib.elbo, beta=4.0),
        partial(vaelib.elbo, capacity=25.0),
        partial(vaelib.elbo, free_bits=1.0),
        lambda draw: -draw.kl,
        lambda draw: 1e-3 * draw.mean(draw.log_px_z),
        lambda draw: vaelib.elbo(draw) - 100 * draw.z.square().sum(-1).mean(0),
    ],
)
def test_no_objective_that_is_maximised_gets_a_warning(objective):
    ask(Flat, objective)


def test_annealing_from_nothing_gets_no_warning():
    schedule = vaelib.objectives.linear(100)
    ask(Flat, lambda draw, step: schedule(step) * vaelib.elbo(draw), step=torch.tensor(0))


@pytest.mark.parametrize("objective", [vaelib.elbo, vaelib.iwae])
def test_an_objective_of_the_wrong_sign_gets_one(objective):
    with pytest.raises(UserWarning, match=r"falls as log p\(x\|z\) rises"):
        ask(Flat, lambda draw: -objective(draw))


def test_the_warning_points_at_the_line_that_called_fit():
    with pytest.warns(UserWarning, match="rises") as caught:
        vaelib.fit(Flat(), X, objective=lambda draw: -vaelib.elbo(draw), epochs=1, batch_size=10)
    assert [warning.filename for warning in caught] == [__file__]


def test_draws_without_latents_are_asked_for_their_z():
    """As a model of one's own makes them, by hand."""
    q = normal(torch.zeros(5, 2, requires_grad=True), 1.0)
    for z in (q.rsample((3,)), q.sample((3,))):
        log_q, log_p = q.log_prob(z), normal(torch.zeros(2), 1.0).log_prob(z)
        draw = Draw(X[:5], z, -z.square().sum(-1), log_p, log_q, q)
        value = vaelib.elbo(draw)
        if z.requires_grad:
            check_objective(draw, value, vaelib.elbo)
        else:
            with pytest.raises(ValueError, match="q of latent 0"):
                check_objective(draw, value, vaelib.elbo)
