"""Kinds over steps in an order: a path in time, bits one after another, and tokens."""

import math
from typing import ClassVar

import torch
from oracles import grid_2d
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal, constraints

import vaelib
from kinds.codes import Listed, discrete_gap
from kinds.gaussians import F64, SX, Joint, LinearNormal, fixed, full, normal
from vaelib import Latent


class Path(vaelib.VAE):
    """z_t = 0.9 z_{t-1} + noise, x_t = gain z_t + noise: one latent that spans time."""

    T, a = 7, 0.9

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.3, dtype=F64))
        self.q = LinearNormal(self.T, self.T)

    def pz(self):
        one = torch.eye(self.T, dtype=F64)
        root = torch.linalg.inv(one - self.a * one.roll(1, 0).tril())  # z = root noise
        return full(torch.zeros(self.T, dtype=F64), root @ root.T)

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = self.q(x)
        z = q.rsample((num_samples,))
        return normal(self.gain * z, SX), Latent(z, q, self.pz())

    def generate(self, n, y=None):
        z, steps = torch.zeros(n, dtype=F64), []
        for _ in range(self.T):
            z = self.a * z + torch.randn(n, dtype=F64)
            steps.append(z)
        path = torch.stack(steps, -1)
        return normal(self.gain * path, SX), path

    def log_px(self, x, y=None):
        """Kalman's filter, a step at a time."""
        gain, B = self.gain.detach(), len(x)
        mean, var, total = torch.zeros(B, dtype=F64), torch.zeros((), dtype=F64), 0.0
        for t in range(self.T):
            mean, var = self.a * mean, self.a**2 * var + 1
            of_x = gain**2 * var + SX**2
            total = total + Normal(gain * mean, of_x.sqrt()).log_prob(x[:, t])
            k = gain * var / of_x
            mean, var = mean + k * (x[:, t] - gain * mean), (1 - k * gain) * var
        return total

    def solve(self):
        prior, eye = self.pz(), torch.eye(self.T, dtype=F64)
        joint = Joint(prior.mean, prior.covariance_matrix)
        joint = joint.then(self.gain * eye, torch.zeros(self.T, dtype=F64), SX**2 * eye)
        self.q.set(*joint.given(slice(0, self.T), slice(self.T, 2 * self.T)))

    def wrong(self, x, y=None):
        return self.q.shift(0.2).expand(len(x))


class Bits(Distribution):
    """Bits in their order: logit_d = bias_d + sum over e < d of weight_de x_e. It has no mean."""

    arg_constraints: ClassVar = {}
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, bias, weight):
        self.bias, self.weight = bias, weight.tril(-1)
        super().__init__(bias.shape[:-1], bias.shape[-1:], validate_args=False)

    def log_prob(self, value):
        logits = self.bias + (self.weight @ value.unsqueeze(-1)).squeeze(-1)
        return (value * logits - nn.functional.softplus(logits)).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape=()):
        x = torch.zeros(self._extended_shape(torch.Size(sample_shape)), dtype=self.bias.dtype)
        for d in range(x.shape[-1]):
            logit = self.bias[..., d] + (self.weight[..., d, :] * x).sum(-1)
            x[..., d] = torch.bernoulli(torch.sigmoid(logit))
        return x


class Autoregressive(vaelib.VAE):
    """A listed code, and a decoder that reads x itself: p(x|z) is one joint distribution."""

    codes, D = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Embedding(2**self.D, self.codes, dtype=F64)  # a row for every x
        self.bias = nn.Parameter(fixed(self.codes, self.D))
        self.weight = nn.Parameter(1.5 * fixed(self.codes, self.D, self.D, seed=1))
        self.logits = nn.Parameter(0.5 * fixed(self.codes, seed=2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = Categorical(logits=self.q(self.number(x)))
        z = torch.arange(self.codes)[:, None].expand(-1, len(x))
        px_z = Bits(self.bias[z], self.weight[z])
        return px_z, Latent(z, q, Categorical(logits=self.logits), values=self.codes)

    def generate(self, n, y=None):
        z = Categorical(logits=self.logits).sample((n,))
        return Bits(self.bias[z], self.weight[z]), z

    def number(self, x):
        return (x.round().long() * 2 ** torch.arange(self.D)).sum(-1)

    def every(self):
        """All x there are, [2^D, D], in the order of their numbers."""
        return (torch.arange(2**self.D)[:, None] >> torch.arange(self.D) & 1).to(F64)

    def log_joint(self, x):
        """log p(x, code), bit by bit."""
        log_prior = self.logits.detach().log_softmax(0)
        rows = []
        for c in range(self.codes):
            total = log_prior[c].expand(len(x))
            for d in range(self.D):
                logit = self.bias[c, d].detach() + x[:, :d] @ self.weight[c, d, :d].detach()
                chance = torch.sigmoid(logit)
                total = total + torch.where(x[:, d] == 1, chance, 1 - chance).log()
            rows.append(total)
        return torch.stack(rows)

    log_px = Listed.log_px

    @torch.no_grad()
    def solve(self):
        self.q.weight.copy_(self.log_joint(self.every()).T)

    @torch.no_grad()
    def wrong(self, x, y=None):
        self.q.weight += torch.tensor([1.0, -1.0, 0.5])
        return discrete_gap(Categorical(logits=self.q(self.number(x))), self.log_joint(x))


def words(logits: Tensor) -> Categorical:
    return Categorical(logits=logits, validate_args=False)


class Tokens(vaelib.VAE):
    """Three tokens of five, int64, that an embedding reads; the standard parts."""

    def __init__(self) -> None:
        encoder = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 4))
        decoder = nn.Sequential(nn.Linear(2, 15), nn.Unflatten(1, (3, 5)))
        super().__init__(encoder, decoder, 2, likelihood=words, x_shape=(3,))
        self.double()
        with torch.no_grad():
            decoder[0].weight.copy_(1.5 * fixed(15, 2))

    def every(self):
        """All x there are, [5^3, 3]."""
        return torch.cartesian_prod(*[torch.arange(5)] * 3)

    @torch.no_grad()
    def log_joint(self, x):
        """log p(x, z) plus the log of a cell's area, at a grid of z: [grid, B], and that grid."""
        z, log_cell = grid_2d(8.0, 161)
        log_p = self.decoder(z).log_softmax(-1)  # [grid, 3, 5]
        picked = sum(log_p[:, t, x[:, t]] for t in range(3))
        return picked + (-0.5 * z.square().sum(-1) - math.log(2 * math.pi) + log_cell)[:, None], z

    def log_px(self, x, y=None):
        return self.log_joint(x)[0].logsumexp(0)

    @torch.no_grad()
    def near(self):
        """q is the prior, whose weights are at most 1 / p(x)."""
        self.encoder[-1].weight.zero_()
        self.encoder[-1].bias.zero_()

    @torch.no_grad()
    def wrong(self, x, y=None):
        log_joint, z = self.log_joint(x)
        mean, log_var = self.encoder(x).chunk(2, -1)
        log_q = normal(mean, (0.5 * log_var).exp()).log_prob(z[:, None])
        cell = log_q + 2 * math.log(0.1)
        return (cell.exp() * (cell - log_joint.log_softmax(0))).sum(0)
