"""Right models in float32, a method a line, for tests that break one line: see test_check_*.py.

`X` and `GREY` are their data; `check` is `check_model` on a model made anew.
"""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal

import vaelib
from vaelib import Latent
from vaelib.check import check_model
from vaelib.posteriors import reparameterized

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
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


def check(build, data=X, **how):
    torch.manual_seed(0)
    check_model(build(), data, **how)


def a_fault_each(faults):
    """The parameters of a test: a model with a fault, and what `check_model` says of it."""
    return pytest.mark.parametrize(
        ("build", "says"), faults, ids=[build.__name__ for build, _ in faults]
    )
