"""Small models of every kind that the contract covers, in float64, that know their exact answers.

Each is written as a user would write it: `infer`, `generate`, nothing of vaelib's machinery.
A `Kind` says what is known of one. Its exact log p(x) is read off the decoder's parameters, so
that it holds after training, too. The answers are linear algebra, enumeration and quadrature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from oracles import Ppca, grid_2d
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    constraints,
)
from torch.nn.functional import one_hot

import vaelib
from vaelib import Latent

F64 = torch.float64
SX = 0.6  # the deviation of x, in every kind with Gaussian x


# What the answers are made of --------------------------------------------------------------------


def fixed(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that no test moves."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def normal(loc: Tensor, scale: Any) -> Independent:
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def standard(dim: int) -> Independent:
    return normal(torch.zeros(dim, dtype=F64), torch.ones(dim, dtype=F64))


def full(mean: Tensor, cov: Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, cov, validate_args=False)


class Joint:
    """A Gaussian that grows: `then` appends weight v + bias + noise, v some of what is there."""

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        self.mean, self.cov = mean.detach(), cov.detach()

    def then(self, weight: Tensor, bias: Tensor, cov: Tensor, reads: slice = slice(None)):
        wide = torch.zeros(len(weight), len(self.mean), dtype=F64)
        wide[:, reads] = weight.detach()
        cross = wide @ self.cov
        below = torch.cat([cross, wide @ cross.T + cov.detach()], 1)
        mean = torch.cat([self.mean, wide @ self.mean + bias.detach()])
        return Joint(mean, torch.cat([torch.cat([self.cov, cross.T], 1), below]))

    def marginal(self, part: Any) -> MultivariateNormal:
        return full(self.mean[part], self.cov[part][:, part])

    def given(self, wanted: Any, known: Any) -> tuple[Tensor, Tensor, Tensor]:
        """p(wanted | known) = N(weight known + bias, cov)."""
        cross = self.cov[wanted][:, known]
        weight = torch.linalg.solve(self.cov[known][:, known], cross.T).T
        cov = self.cov[wanted][:, wanted] - weight @ cross.T
        return weight, self.mean[wanted] - weight @ self.mean[known], cov


class LinearNormal(nn.Module):
    """N(weight v + bias, S S'), v its input; S lower triangular. `lead`: several, by an index."""

    def __init__(self, inputs: int, outputs: int, lead: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*lead, outputs, inputs, dtype=F64))
        self.bias = nn.Parameter(torch.zeros(*lead, outputs, dtype=F64))
        self.log_diagonal = nn.Parameter(torch.zeros(*lead, outputs, dtype=F64))
        self.below = nn.Parameter(torch.zeros(*lead, outputs, outputs, dtype=F64))

    def set(self, weight: Tensor, bias: Tensor, cov: Tensor, at: Any = ...) -> None:
        scale_tril = torch.linalg.cholesky(cov)
        with torch.no_grad():
            self.weight[at], self.bias[at] = weight, bias
            self.log_diagonal[at] = scale_tril.diagonal(dim1=-2, dim2=-1).log()
            self.below[at] = scale_tril.tril(-1)

    @property
    def scale_tril(self) -> Tensor:
        return self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    @property
    def cov(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    def forward(self, v: Tensor, index: Any = ...) -> MultivariateNormal:
        loc = (self.weight[index] @ v.unsqueeze(-1)).squeeze(-1) + self.bias[index]
        return MultivariateNormal(loc, scale_tril=self.scale_tril[index], validate_args=False)

    @torch.no_grad()
    def shift(self, by: float = 0.5) -> Tensor:
        """Move the means, by `by` each; KL of N(m + by, C) from N(m, C), by' C^-1 by / 2."""
        self.bias += by
        delta = torch.full_like(self.bias, by)
        return 0.5 * (delta * torch.linalg.solve(self.cov, delta)).sum(-1)


def moved(q: MultivariateNormal, num_samples: int, noise: Tensor | None) -> Tensor:
    """z [K, B, D]: q's own draws, or made of the noise that came."""
    if noise is not None:
        return q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    return q.rsample() if len(q.batch_shape) == 2 else q.rsample((num_samples,))


def discrete_gap(q: Categorical, log_joint: Tensor) -> Tensor:
    """KL(q || p(c|x)), log_joint [C, B] = log p(x, c)."""
    log_q = q.logits.T.detach()
    return (log_q.exp() * (log_q - log_joint.log_softmax(0))).sum(0)


# The kinds ---------------------------------------------------------------------------------------


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


# Those that vaelib.VAE makes of parts ------------------------------------------------------------


def flat() -> vaelib.VAE:
    return Ppca(sigma=SX).vae()


def flat_joint(model) -> Joint:
    """Of z and x, for a linear decoder of one layer."""
    decoder, prior = model.decoder, model.pz()
    cov = getattr(prior, "covariance_matrix", None)
    cov = torch.eye(model.latent_dim, dtype=F64) if cov is None else cov
    noise = SX**2 * torch.eye(decoder.out_features, dtype=F64)
    return Joint(prior.mean, cov).then(decoder.weight, decoder.bias, noise)


def flat_log_px(model, x, y=None):
    joint = flat_joint(model)
    return joint.marginal(slice(model.latent_dim, len(joint.mean))).log_prob(x)


def flat_posterior(model):
    joint = flat_joint(model)
    return joint.given(slice(0, model.latent_dim), slice(model.latent_dim, len(joint.mean)))


@torch.no_grad()
def flat_solve(model):
    weight, bias, cov = flat_posterior(model)
    L = model.latent_dim
    model.encoder.weight.zero_()
    model.encoder.weight[:L] = weight
    model.encoder.bias.copy_(torch.cat([bias, cov.diagonal().log()]))


@torch.no_grad()
def flat_wrong(model, x, y=None):
    L = model.latent_dim
    model.encoder.bias[:L] += 0.4
    return (0.5 * 0.4**2 / model.encoder.bias[L:].exp()).sum().expand(len(x))


def heavy() -> vaelib.VAE:
    """A Laplace posterior and a prior whose dimensions depend on each other."""
    root = fixed(3, 3)
    prior = full(torch.zeros(3, dtype=F64), root @ root.T + 0.5 * torch.eye(3, dtype=F64))
    encoder, decoder = nn.Linear(5, 6, dtype=F64), nn.Linear(3, 5, dtype=F64)
    likelihood, q = vaelib.gaussian(SX), vaelib.posteriors.laplace
    model = vaelib.VAE(encoder, decoder, 3, likelihood, prior, posterior=q)
    with torch.no_grad():
        decoder.weight.copy_(fixed(5, 3, seed=2))
    return model


@torch.no_grad()
def heavy_near(model):
    """The exact means, and the deviations that the exact posterior's dimensions have."""
    weight, bias, cov = flat_posterior(model)
    model.encoder.weight.zero_()
    model.encoder.weight[:3] = weight
    model.encoder.bias.copy_(torch.cat([bias, 0.5 * (cov.diagonal() / 2).log()]))


@torch.no_grad()
def heavy_wrong(model, x, y=None):
    """KL of a Laplace from the exact posterior: -(1 + log 2b) and a mean of squares."""
    weight, bias, cov = flat_posterior(model)
    loc, log_scale = model.encoder(x).chunk(2, -1)
    spread = torch.linalg.inv(cov).diagonal() * 2 * (2 * log_scale).exp()
    at_loc = full(x @ weight.T + bias, cov).log_prob(loc)
    return -(1 + math.log(2) + log_scale).sum(-1) - (at_loc - 0.5 * spread.sum(-1))


@dataclass(frozen=True)
class WholeCovariance:
    """A normal with all its covariances: L means, L log-deviations, and what is below them."""

    def num_parameters(self, latent_dim: int) -> int:
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def __call__(self, parameters: Tensor) -> MultivariateNormal:
        L = next(n for n in range(1, 99) if self.num_parameters(n) == parameters.shape[-1])
        loc, log_diagonal, below = parameters.split((L, L, parameters.shape[-1] - 2 * L), -1)
        scale_tril = torch.diag_embed(log_diagonal.exp())
        rows, columns = torch.tril_indices(L, L, -1)
        flat = torch.zeros_like(scale_tril)
        flat[..., rows, columns] = below
        return MultivariateNormal(loc, scale_tril=scale_tril + flat, validate_args=False)


def full_covariance() -> vaelib.VAE:
    posterior = WholeCovariance()
    encoder = nn.Linear(5, posterior.num_parameters(3), dtype=F64)
    decoder = nn.Linear(3, 5, dtype=F64)
    with torch.no_grad():
        decoder.weight.copy_(fixed(5, 3, seed=2))
    return vaelib.VAE(encoder, decoder, 3, vaelib.gaussian(SX), posterior=posterior)


@torch.no_grad()
def full_solve(model):
    weight, bias, cov = flat_posterior(model)
    scale_tril = torch.linalg.cholesky(cov)
    rows, columns = torch.tril_indices(3, 3, -1)
    model.encoder.weight.zero_()
    model.encoder.weight[:3] = weight
    spread = torch.cat([scale_tril.diagonal().log(), scale_tril[rows, columns]])
    model.encoder.bias.copy_(torch.cat([bias, spread]))


@torch.no_grad()
def full_wrong(model, x, y=None):
    model.encoder.bias[:3] += 0.3
    delta = torch.full((3,), 0.3, dtype=F64)
    _, _, cov = flat_posterior(model)
    return (0.5 * delta @ torch.linalg.solve(cov, delta)).expand(len(x))


# The registry ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of model, and what is known of it.

    Args:
        build: a model.
        log_px: (model, x, y) -> log p(x), [N], exact; of p(x|y) or p(x, y) where y counts.
        z_shapes: the event shape of each latent's z.
        solve: gives the model its exact posterior; None where its q cannot be that.
        near: gives the model a q that is not far from it, where there is no `solve`.
        wrong: moves a solved q, and returns KL(q || p(z|x)), [N], by a closed form.
        stirred: how far its parameters then move from there.
        classes: how many labels; 0 for a model that takes none.
        values: listed values a sample.
        exact: whether all is listed, so that a single sample is exact.
        kl: the number of columns of kl_parts; None where there are none.
        bound: whether every estimate is a bound.
        mean: whether p(x|z) has a mean.
        objective: what trains it; elbo, if that does.
        num_samples: that it trains with.
    """

    build: Callable[[], vaelib.VAE]
    log_px: Callable[..., Tensor]
    z_shapes: tuple[tuple[int, ...], ...]
    solve: Callable[..., None] | None = None
    near: Callable[..., None] | None = None
    stirred: float = 0.02
    wrong: Callable[..., Tensor] | None = None
    classes: int = 0
    values: int = 1
    exact: bool = False
    kl: int | None = None
    bound: bool = False
    mean: bool = True
    objective: Callable[[], Any] = lambda: vaelib.elbo
    num_samples: int = 1

    def make(self, solved: bool = False, seed: int = 0) -> vaelib.VAE:
        """A model: with its exact posterior; or with its p moved, and its q near that one's own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build()
            if not solved:
                _stir(model, 0.2)
            near = self.solve or self.near
            if near is not None:
                near(model)
            if not solved:
                _stir(model, self.stirred)
        return model

    def data(self, n: int = 8, seed: int = 7) -> tuple[Tensor, Tensor | None]:
        """x [n, ...] from the model with its first parameters, and y [n] (half of them missing)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            y = torch.arange(n) % self.classes if self.classes else None
            x = self.make(solved=True).sample(n, mean=False, y=y)
            if y is not None and self.build.labels == "learnt":  # type: ignore[attr-defined]
                y = torch.where(torch.arange(n) % 2 == 0, y, -1)
            if self.build is Missing:
                x = x.masked_fill(torch.rand(x.shape) < 0.3, math.nan)
                x[0] = math.nan  # and one of which nothing is known
        return x, y


@torch.no_grad()
def _stir(model: nn.Module, scale: float) -> None:
    for p in model.parameters():
        p += scale * torch.randn_like(p)


def of(model: type, *z_shapes: tuple[int, ...], **known: Any) -> Kind:
    """The kind of a class that brings its own answers."""
    answers = {name: getattr(model, name, None) for name in ("solve", "near", "wrong")}
    return Kind(model, model.log_px, z_shapes, **{**answers, **known})


flat_answers = {"log_px": flat_log_px, "solve": flat_solve, "wrong": flat_wrong}

KINDS: dict[str, Kind] = {
    "flat": Kind(flat, z_shapes=((2,),), kl=2, **flat_answers),
    "top_down": of(TopDown, (2,), (3,), kl=2),
    "bottom_up": of(BottomUp, (3,), (2,)),
    "listed": of(Listed, (), values=4, exact=True, kl=1),
    "drawn": of(Drawn, (), kl=1, objective=Score, num_samples=8),
    "quantized": of(Quantized, (), solve=None, bound=True, objective=lambda: commitment),
    "labelled": of(Labelled, (), (2,), classes=3, values=3),
    "path": of(Path, (7,), kl=1),
    "heavy": Kind(heavy, flat_log_px, ((3,),), near=heavy_near, wrong=heavy_wrong),
    "given": of(Given, (3,), classes=3, kl=1),
    "conditional": of(Conditional, (2,), classes=3, kl=2),
    "player": of(Player, (2,), kl=2, stirred=0.4, objective=Critic),
    "autoregressive": of(Autoregressive, (), values=3, exact=True, kl=1, mean=False),
    "tokens": of(Tokens, (2,), kl=2, mean=False),
    "missing": of(Missing, (2,), kl=1, stirred=0.05),
    "full_covariance": Kind(full_covariance, flat_log_px, ((3,),), full_solve, full_wrong, kl=1),
}
