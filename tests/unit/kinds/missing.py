"""A kind whose examples lack entries, which x holds as NaN."""

import torch
from torch import nn
from torch.distributions import Independent, Normal

import vaelib
from kinds.gaussians import F64, SX, Joint, LinearNormal, fixed, standard
from vaelib import Latent


class Partly(Normal):
    """A normal that gives a missing entry log-probability 0."""

    def log_prob(self, value):
        return torch.where(value.isnan(), 0.0, super().log_prob(value.nan_to_num()))


class Missing(vaelib.VAE):
    """Entries of x are missing; each pattern of what is missing has its own posterior."""

    missing = True
    D = 4

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, self.D, dtype=F64)
        self.q = LinearNormal(self.D, 2, lead=(2**self.D,))
        with torch.no_grad():
            self.decoder.weight.copy_(fixed(self.D, 2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        pattern = (x.isnan().long() * 2 ** torch.arange(self.D)).sum(-1)
        q = self.q(x.nan_to_num(), pattern)
        z = q.rsample((num_samples,))
        px_z = Independent(Partly(self.decoder(z), SX, validate_args=False), 1)
        return px_z, Latent(z, q, standard(2))

    def generate(self, n, y=None):
        z = torch.randn(n, 2, dtype=F64)
        return Independent(Partly(self.decoder(z), SX, validate_args=False), 1), z

    def joint(self) -> Joint:
        eye = torch.eye(self.D, dtype=F64)
        start = Joint(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
        return start.then(self.decoder.weight, self.decoder.bias, SX**2 * eye)

    def log_px(self, x, y=None):
        """Of what is there: the missing entries are rows and columns left out."""
        rows = []
        for row in x:
            there = (2 + (~row.isnan()).nonzero()[:, 0]).tolist()
            part = self.joint().marginal(there)
            rows.append(part.log_prob(row[~row.isnan()]) if there else torch.zeros((), dtype=F64))
        return torch.stack(rows)

    def solve(self):
        for pattern in range(2**self.D):
            there = [d for d in range(self.D) if not pattern >> d & 1]
            known = [2 + d for d in there]
            found, bias, cov = self.joint().given(slice(0, 2), known)
            weight = torch.zeros(2, self.D, dtype=F64)
            weight[:, there] = found
            self.q.set(weight, bias, cov, at=pattern)

    def wrong(self, x, y=None):
        pattern = (x.isnan().long() * 2 ** torch.arange(self.D)).sum(-1)
        return self.q.shift(0.3)[pattern]
