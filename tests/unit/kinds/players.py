"""A kind that plays a game against its objective, whose equilibrium is known."""

import math

import torch
from torch import nn

import vaelib
from kinds.gaussians import F64, SX, normal, standard
from vaelib import Latent


class Player(vaelib.VAE):
    """q(z|x) = N(x / (1 + s^2) + shift, ...), exact where shift, all that it learns, is 0."""

    noise_dim = 2
    var = SX**2 / (1 + SX**2)

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((2,), 0.5, dtype=F64))

    def infer(self, x, num_samples=1, noise=None, y=None):
        loc = x / (1 + SX**2) + self.shift
        q = normal(loc, torch.full_like(loc, math.sqrt(self.var)))
        z = vaelib.posteriors.reparameterized(q, num_samples, noise)
        return normal(z, SX), Latent(z, q, standard(2))

    def generate(self, n, y=None):
        z = torch.randn(n, 2, dtype=F64)
        return normal(z, SX), z

    def log_px(self, x, y=None):
        return normal(torch.zeros(2, dtype=F64), math.sqrt(1 + SX**2)).log_prob(x)

    def solve(self):
        nn.init.zeros_(self.shift)

    def wrong(self, x, y=None):
        nn.init.constant_(self.shift, 0.3)
        return torch.full((len(x),), 2 * 0.3**2 / (2 * self.var), dtype=F64)


class Critic(nn.Module):
    """Two players, one optimizer: each reads the other on detached weights.

    The critic scores z by weight . z, and wants high scores at a price for leaving `home`; the
    player wants low ones, beside its ELBO. `equilibrium` is where neither gains by moving.
    """

    strength, price = 1.5, 2.0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1, bias=False, dtype=F64)
        self.register_buffer("home", torch.tensor([[0.8, -0.4]], dtype=F64))
        nn.init.constant_(self.net.weight, 2.0)

    def forward(self, draw):
        frozen = {name: p.detach() for name, p in self.net.named_parameters()}
        seen = torch.func.functional_call(self.net, frozen, (draw.z,)).squeeze(-1)
        own = self.net(draw.z.detach()).squeeze(-1)
        away = (self.net.weight - self.home).square().sum()
        return {
            "elbo": vaelib.elbo(draw),
            "fool": -self.strength * draw.mean(seen),
            "judge": self.strength * draw.mean(own) - 0.5 * self.price * away,
        }

    def equilibrium(self, x):
        """shift and weight: shift = -var strength weight, price (weight - home) = strength E z."""
        code = x.mean(0) / (1 + SX**2)
        s, c = self.strength, self.price
        weight = (self.home[0] + s / c * code) / (1 + s**2 * Player.var / c)
        return -Player.var * s * weight, weight
