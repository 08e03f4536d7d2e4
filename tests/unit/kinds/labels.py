"""Kinds that know a label y: learnt with x (M2), or given as a condition."""

import math

import torch
from oracles import Ppca
from torch import nn
from torch.distributions import Categorical
from torch.nn.functional import one_hot

import vaelib
from kinds.codes import discrete_gap
from kinds.gaussians import F64, SX, Joint, LinearNormal, fixed, moved, normal, standard
from vaelib import Latent


class Labelled(vaelib.VAE):
    """M2 (Kingma et al., 2014): x of a class y and a z; y summed over where missing, else fixed."""

    labels = "learnt"
    noise_dim = 2
    classes = 3
    told = True  # whether to say log_weight, or leave it to the default

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(0.6 * fixed(self.classes, 5, seed=4))
        self.decoder = nn.Linear(2, 5, bias=False, dtype=F64)
        self.q_y, self.q_z = nn.Linear(5, self.classes, dtype=F64), LinearNormal(8, 2)
        with torch.no_grad():
            self.decoder.weight.copy_(fixed(5, 2, seed=5))

    def infer(self, x, num_samples=1, noise=None, y=None):
        B, C = len(x), self.classes
        y = torch.full((B,), -1) if y is None else y
        certain = one_hot(y.clamp(min=0), C).to(x).log()  # 0 at the label, -inf elsewhere
        q_y = Categorical(logits=torch.where((y < 0)[:, None], self.q_y(x), certain))
        every = torch.arange(C).repeat(num_samples)[:, None].expand(-1, B)  # [S * C, B]
        q_z = self.q_z(torch.cat([x.expand(len(every), -1, -1), one_hot(every, C).to(x)], -1))
        if noise is not None:
            noise = noise.repeat_interleave(C, 0)
        z = moved(q_z, len(every), noise)
        weight = q_y.log_prob(every) if self.told else None
        uniform = Categorical(logits=torch.zeros(C, dtype=F64))
        px_z = normal(self.decoder(z) + self.table[every], SX)
        return px_z, Latent(every, q_y, uniform, C, weight), Latent(z, q_z, standard(2))

    def generate(self, n, y=None):
        y = (
            Categorical(logits=torch.zeros(self.classes, dtype=F64)).sample((n,))
            if y is None
            else y
        )
        z = torch.randn(n, 2, dtype=F64)
        return normal(self.decoder(z) + self.table[y], SX), y, z

    def joint(self) -> Joint:
        """Of z and x less its class's mean."""
        W, eye = self.decoder.weight, torch.eye(5, dtype=F64)
        start = Joint(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
        return start.then(W, torch.zeros(5, dtype=F64), SX**2 * eye)

    def log_joint(self, x):
        """log p(x, y), [classes, B]."""
        noise = self.joint().marginal(slice(2, 7))
        rows = [noise.log_prob(x - t) - math.log(self.classes) for t in self.table.detach()]
        return torch.stack(rows)

    def log_px(self, x, y=None):
        """log p(x), and log p(x, y) where y is known."""
        both = self.log_joint(x)
        if y is None:
            return both.logsumexp(0)
        return torch.where(y < 0, both.logsumexp(0), both.gather(0, y.clamp(min=0)[None])[0])

    @torch.no_grad()
    def solve(self):
        weight, _, cov = self.joint().given(slice(0, 2), slice(2, 7))
        self.q_z.set(torch.cat([weight, -weight @ self.table.T], 1), torch.zeros(2), cov)
        precise = torch.linalg.inv(self.joint().marginal(slice(2, 7)).covariance_matrix)
        self.q_y.weight.copy_(self.table @ precise)
        self.q_y.bias.copy_(-0.5 * (self.table @ precise * self.table).sum(-1))

    @torch.no_grad()
    def wrong(self, x, y=None):
        self.q_y.bias += torch.tensor([1.0, -0.5, 0.0])
        of_y = discrete_gap(Categorical(logits=self.q_y(x)), self.log_joint(x))
        return self.q_z.shift(0.3) + (of_y if y is None else torch.where(y < 0, of_y, 0.0))


class Given(vaelib.VAE):
    """p(x|y): y is a condition, which moves the prior p(z|y), of batch shape [B]."""

    labels = "given"
    noise_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.centre, self.decoder = nn.Parameter(fixed(3, 3)), nn.Linear(3, 5, dtype=F64)
        self.q = LinearNormal(8, 3)
        with torch.no_grad():
            self.decoder.weight.copy_(fixed(5, 3, seed=2))

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = self.q(torch.cat([x, one_hot(y, 3).to(x)], -1))
        z = moved(q, num_samples, noise)
        centre = self.centre[y]
        return normal(self.decoder(z), SX), Latent(
            z, q, normal(centre, torch.full_like(centre, 0.8))
        )

    def generate(self, n, y=None):
        z = self.centre[y] + 0.8 * torch.randn(n, 3, dtype=F64)
        return normal(self.decoder(z), SX), z

    def joint(self, c) -> Joint:
        eye = torch.eye(5, dtype=F64)
        of_z = Joint(self.centre[c], 0.64 * torch.eye(3, dtype=F64))
        return of_z.then(self.decoder.weight, self.decoder.bias, SX**2 * eye)

    def log_px(self, x, y=None):
        rows = torch.stack([self.joint(c).marginal(slice(3, 8)).log_prob(x) for c in range(3)])
        return rows.gather(0, y[None])[0]

    def solve(self):
        answers = [self.joint(c).given(slice(0, 3), slice(3, 8)) for c in range(3)]
        weight, _, cov = answers[0]
        biases = torch.stack([bias for _, bias, _ in answers], 1)
        self.q.set(torch.cat([weight, biases], 1), torch.zeros(3), cov)

    def wrong(self, x, y=None):
        return self.q.shift(0.3).expand(len(x))


class WithLabel(nn.Module):
    """A linear layer of its input and of a label."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs + 3, outputs, dtype=F64)

    def forward(self, v, y):
        return self.linear(torch.cat([v, one_hot(y, 3).to(v)], -1))


class Conditional(vaelib.VAE):
    """p(x|y) of the standard parts: encoder and decoder take the label as a second argument."""

    labels = "given"

    def __init__(self) -> None:
        super().__init__(WithLabel(5, 4), WithLabel(2, 5), 2, likelihood=vaelib.gaussian(SX))
        with torch.no_grad():  # orthogonal columns: a diagonal posterior is exact
            self.decoder.linear.weight.copy_(torch.cat([Ppca().W, fixed(5, 3, seed=3)], 1))

    def means(self):
        """E x of each label, [3, 5]."""
        return self.decoder.linear.weight[:, 2:].T.detach() + self.decoder.linear.bias.detach()

    def joint(self) -> Joint:
        W, eye = self.decoder.linear.weight[:, :2], torch.eye(5, dtype=F64)
        start = Joint(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
        return start.then(W, torch.zeros(5, dtype=F64), SX**2 * eye)

    def log_px(self, x, y=None):
        return self.joint().marginal(slice(2, 7)).log_prob(x - self.means()[y])

    @torch.no_grad()
    def solve(self):
        weight, _, cov = self.joint().given(slice(0, 2), slice(2, 7))
        linear = self.encoder.linear
        linear.weight.zero_()
        linear.weight[:2] = torch.cat([weight, -weight @ self.means().T], 1)
        linear.bias.copy_(torch.cat([torch.zeros(2, dtype=F64), cov.diagonal().log()]))

    @torch.no_grad()
    def wrong(self, x, y=None):
        self.encoder.linear.bias[:2] += 0.4
        return (0.5 * 0.4**2 / self.encoder.linear.bias[2:].exp()).sum().expand(len(x))
