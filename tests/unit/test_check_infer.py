"""`check_model` finds faults of what infer gives: shapes, densities, draws, lists of codes.

A planted fault is a model that is right but for one line. Statistical promises are tested at
about five standard errors or more, so that what is right passes, whatever the seed.
"""

from typing import ClassVar

import pytest
import torch
from breakable import BottomUp, C, Drawn, Flat, Listed, a_fault_each, check, normal
from kinds.codes import Score
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
)

from vaelib import Latent


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


class PointWithPrice(Drawn):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        return Latent(latent.z, latent.q, latent.p, point=True)


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


FAULTS = [
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
    (NanIsNotMissing, r"an example of NaN alone has log p\(x\|z\)"),
    (NoDraw, r"gave no p\(x\|z\) for 2 examples"),
]


@a_fault_each(FAULTS)
def test_a_broken_promise_is_found(build, says):
    with pytest.raises(ValueError, match=says):
        check(build)


class OtherFrequencies(Drawn):
    def latent(self, x, num_samples):
        latent = super().latent(x, num_samples)
        cool = Categorical(logits=1.3 * latent.q.logits)
        return Latent(cool.sample((num_samples,)), latent.q, latent.p)


def test_the_frequencies_of_a_drawn_code_are_those_of_q():
    check(Drawn, objective=Score())
    with pytest.raises(ValueError, match="the frequency of an outcome is off by"):
        check(OtherFrequencies, objective=Score())
