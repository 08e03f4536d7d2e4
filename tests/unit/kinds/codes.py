"""Kinds whose latent is one of a few codes: listed, drawn, or the nearest one (VQ-VAE).

With each comes the objective that trains it where the ELBO does not: `Score`, `commitment`.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

import vaelib
from kinds.gaussians import F64, SX, fixed, normal
from vaelib import Latent


def discrete_gap(q: Categorical, log_joint: Tensor) -> Tensor:
    """KL(q || p(c|x)), log_joint [C, B] = log p(x, c)."""
    log_q = q.logits.T.detach()
    return (log_q.exp() * (log_q - log_joint.log_softmax(0))).sum(0)


class Listed(vaelib.VAE):
    """One of four codes, summed over, not drawn; what each counts is q(code|x)."""

    codes = 4

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, self.codes, dtype=F64)
        self.table = nn.Parameter(0.5 * fixed(self.codes, 5))
        self.logits = nn.Parameter(0.5 * fixed(self.codes, seed=1))

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = Categorical(logits=self.encoder(x))
        z = torch.arange(self.codes)[:, None].expand(-1, len(x))
        prior = Categorical(logits=self.logits)
        return normal(self.table[z], SX), Latent(z, q, prior, values=self.codes)

    def generate(self, n, y=None):
        z = Categorical(logits=self.logits).sample((n,))
        return normal(self.table[z], SX), z

    def log_joint(self, x):
        """log p(x, code), [codes, B]."""
        log_prior = self.logits.detach().log_softmax(0)
        return torch.stack(
            [normal(t, SX).log_prob(x) + log_prior[c] for c, t in enumerate(self.table.detach())]
        )

    def log_px(self, x, y=None):
        return self.log_joint(x).logsumexp(0)

    @torch.no_grad()
    def solve(self):
        """The posterior's logits are linear in x, since the codes share a covariance."""
        self.encoder.weight.copy_(self.table / SX**2)
        self.encoder.bias.copy_(self.logits - self.table.square().sum(-1) / (2 * SX**2))

    @torch.no_grad()
    def wrong(self, x, y=None):
        self.encoder.bias += torch.tensor([1.0, -1.0, 0.5, 0.0])
        return discrete_gap(Categorical(logits=self.encoder(x)), self.log_joint(x))


class Drawn(Listed):
    """The same code drawn: no gradient comes to q through z."""

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = Categorical(logits=self.encoder(x))
        z = q.sample((num_samples,))
        return normal(self.table[z], SX), Latent(z, q, Categorical(logits=self.logits))


class Score:
    """The sampled ELBO, with q's gradient by its score; the other draws' mean is the baseline."""

    supplies_gradient = True

    def __call__(self, draw):
        log_w = draw.log_w.detach()
        others = (log_w.sum(0) - log_w) / max(1, len(log_w) - 1)
        log_q = draw.log_qz_x
        signal = (log_w - others) * (log_q - log_q.detach())
        return draw.mean(draw.log_px_z + draw.log_pz - log_q.detach() + signal)


class Point(Distribution):
    """A single code, with probability 1; keeps the encoder's output and the code's vector."""

    arg_constraints: ClassVar = {}

    def __init__(self, code, before, vector):
        super().__init__(code.shape, validate_args=False)
        self.code, self.before, self.vector = code, before, vector

    def log_prob(self, value):
        return torch.zeros_like(self.before[..., 0]).masked_fill(value != self.code, -math.inf)


class Quantized(Listed):
    """The nearest code, straight through (VQ-VAE): every estimate is of p(x, code), a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 5, dtype=F64)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(5) + 0.1 * fixed(5, 5, seed=2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        before = self.encoder(x)
        code = torch.cdist(before, self.table).argmin(-1)
        vector = self.table[code]
        through = before + (vector - before).detach()
        q, prior = Point(code, before, vector), Categorical(logits=self.logits)
        latent = Latent(code.expand(num_samples, -1), q, prior, point=True)
        return normal(through.expand(num_samples, -1, -1), SX), latent

    def wrong(self, x, y=None):
        """What p(x, code) lacks of p(x)."""
        code = torch.cdist(self.encoder(x), self.table).argmin(-1)
        return self.log_px(x) - self.log_joint(x).gather(0, code[None])[0]


def commitment(draw):
    """The ELBO, the codes drawn to the encoder's outputs, and these to the codes."""
    q = draw.qz_x
    return {
        "elbo": vaelib.elbo(draw),
        "codebook": -(q.before.detach() - q.vector).square().sum(-1),
        "commitment": -5 * (q.before - q.vector.detach()).square().sum(-1),
    }
