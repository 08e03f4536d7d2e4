"""Kinds with two layers of latents, z2 -> z1 -> x: inferred from the top down, or bottom up."""

import torch
from torch import nn

import vaelib
from kinds.gaussians import F64, SX, Joint, LinearNormal, fixed, moved, normal, standard
from vaelib import Latent


class TopDown(vaelib.VAE):
    """z2 -> z1 -> x, and q(z2|x) q(z1|z2, x): a ladder, whose noise may come from outside."""

    noise_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.decoder = LinearNormal(2, 3), nn.Linear(3, 5, dtype=F64)
        self.q2, self.q1 = LinearNormal(5, 2), LinearNormal(7, 3)
        self.p1.set(fixed(3, 2), fixed(3, seed=1), 0.64 * torch.eye(3, dtype=F64))
        with torch.no_grad():
            self.decoder.weight.copy_(fixed(5, 3, seed=2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        of_z2, of_z1 = (None, None) if noise is None else noise.split((2, 3), -1)
        q2 = self.q2(x)
        z2 = moved(q2, num_samples, of_z2)
        q1 = self.q1(torch.cat([z2, x.expand(len(z2), *x.shape)], -1))
        z1 = moved(q1, num_samples, of_z1)
        return (
            normal(self.decoder(z1), SX),
            Latent(z2, q2, standard(2)),
            Latent(z1, q1, self.p1(z2)),
        )

    def generate(self, n, y=None):
        z2 = torch.randn(n, 2, dtype=F64)
        z1 = self.p1(z2).sample()
        return normal(self.decoder(z1), SX), z2, z1

    def joint(self) -> Joint:
        """Of z2, z1, x."""
        top = Joint(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
        both = top.then(self.p1.weight, self.p1.bias, self.p1.cov)
        noise = SX**2 * torch.eye(5, dtype=F64)
        return both.then(self.decoder.weight, self.decoder.bias, noise, reads=slice(2, 5))

    def log_px(self, x, y=None):
        return self.joint().marginal(slice(5, 10)).log_prob(x)

    def solve(self):
        joint = self.joint()
        self.q2.set(*joint.given(slice(0, 2), slice(5, 10)))
        self.q1.set(*joint.given(slice(2, 5), [0, 1, *range(5, 10)]))

    def wrong(self, x, y=None):
        return (self.q2.shift() + self.q1.shift(-0.2)).expand(len(x))


class BottomUp(TopDown):
    """The same p, but q(z1|x) q(z2|z1): KL(q(z1|x) || p(z1|z2)) at a z2 that z1 drew is no cost."""

    noise_dim = None
    nested = False

    def __init__(self) -> None:
        super().__init__()
        self.q1, self.q2 = LinearNormal(5, 3), LinearNormal(3, 2)

    def infer(self, x, num_samples=1, noise=None, y=None):
        q1 = self.q1(x)
        z1 = q1.rsample((num_samples,))
        q2 = self.q2(z1)
        z2 = q2.rsample()
        first = Latent(z1, q1, self.p1(z2), nested=self.nested)
        return normal(self.decoder(z1), SX), first, Latent(z2, q2, standard(2))

    def generate(self, n, y=None):
        px_z, z2, z1 = super().generate(n)
        return px_z, z1, z2

    def solve(self):
        joint = self.joint()
        self.q1.set(*joint.given(slice(2, 5), slice(5, 10)))
        self.q2.set(*joint.given(slice(0, 2), slice(2, 5)))
