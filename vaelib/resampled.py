"""A prior whose draws are accepted or rejected by a network; `vaelib.priors` has it.

Introduced in book/models/11_learned_priors.ipynb.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from .modes import positive_int
from .nets import mlp


class ResampledPrior(nn.Module):
    """A standard normal whose draws a network a(z) accepts or rejects.

    After `truncation` - 1 rejections the next draw is taken as it comes, so the density is

        p(z) = N(z) [a(z) / Z (1 - (1 - Z)^(T-1)) + (1 - Z)^(T-1)],   Z = E a(z) under N

    (Bauer & Mnih, AISTATS 2019, https://arxiv.org/abs/1810.11428, Equation 9). Z has no closed
    form. In training each call draws `num_samples` to estimate it; in eval mode 256 times as many
    are drawn once, from a seed of their own, and kept until a weight changes.

    So ``density`` is "estimate", and the distribution's ``stderr`` is the standard error of log Z,
    which is that of log p(z) where a(z) > 0 and T is large. It is one error for all z, and
    estimates made with this prior carry it.

    Args:
        latent_dim: L, the size of z.
        hidden: units of the network's two layers.
        truncation: T, the most draws for a sample.
        num_samples: draws in training; the logarithm of their mean is too low by about half the
            variance of a(z) / Z over them.

    Raises:
        ValueError: for sizes that are not positive whole numbers.

    Example:
        >>> import torch, vaelib
        >>> prior = vaelib.priors.ResampledPrior(2).eval()
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,), prior=prior)
        >>> vaelib.log_marginal(model, torch.ones(3, 4), num_samples=8).density_stderr < 0.01
        True
    """

    density = "estimate"

    def __init__(
        self, latent_dim: int, hidden: int = 100, truncation: int = 100, num_samples: int = 1024
    ) -> None:
        super().__init__()
        self.latent_dim = positive_int("latent_dim", latent_dim)
        self.hidden = positive_int("hidden", hidden)
        self.truncation = positive_int("truncation", truncation)
        self.num_samples = positive_int("num_samples", num_samples)
        self.net = mlp((latent_dim, hidden, hidden, 1), "tanh")
        self._known: tuple[list[Tensor], Any, float] = ([], None, math.nan)  # weights, log Z, error

    def forward(self) -> "Resampled":
        if self.training:
            z = torch.randn_like(self.net[0].weight.new_empty(self.num_samples, self.latent_dim))  # type: ignore[operator]
            return Resampled(self, _log_mean(self.log_accept(z)), math.nan)
        weights, known = list(self.net.parameters()), self._known[0]
        if not known or not all(
            p.dtype == k.dtype and torch.equal(p, k) for p, k in zip(weights, known)
        ):
            self._known = ([p.detach().clone() for p in weights], *self._log_normalizer())
        return Resampled(self, *self._known[1:])

    def log_accept(self, z: Tensor) -> Tensor:
        """log a(z), z [..., L] -> [...]."""
        return F.logsigmoid(self.net(z)).squeeze(-1)

    @torch.no_grad()
    def _log_normalizer(self) -> tuple[Tensor, float]:
        """log Z and its standard error, from the same draws whatever the caller's seed."""
        generator, weight = torch.Generator().manual_seed(0), self.net[0].weight
        log_a = []
        for _ in range(256):
            z = torch.randn(self.num_samples, self.latent_dim, generator=generator)
            log_a.append(self.log_accept(z.to(weight)))  # type: ignore[arg-type]
        a = torch.cat(log_a)
        log_z = _log_mean(a)
        return log_z, ((a - log_z).exp().std() / math.sqrt(len(a))).item()  # the delta method


class Resampled(Distribution):
    """The distribution of a ResampledPrior, with its estimate of log Z and that one's error."""

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    density = "estimate"

    def __init__(self, prior: ResampledPrior, log_z: Tensor, stderr: float) -> None:
        self.prior, self.log_z, self.stderr = prior, log_z, stderr
        super().__init__(event_shape=torch.Size((prior.latent_dim,)), validate_args=False)

    @property
    def log_reach(self) -> Tensor:
        """log (1 - Z)^(T-1): the chance that all draws but the last are rejected."""
        return (self.prior.truncation - 1) * _log_one_minus(self.log_z)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), z [..., L] -> [...], nats."""
        square = value.square().sum(-1)
        log_normal = -0.5 * (square + value.shape[-1] * math.log(2 * math.pi))
        chosen = self.prior.log_accept(value) - self.log_z
        taken = chosen + _log_one_minus(self.log_reach)
        return log_normal + torch.logaddexp(taken, self.log_reach)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        z = torch.randn_like(self.log_z.new_empty(shape)).view(-1, shape[-1])
        left = torch.arange(len(z), device=z.device)  # rows that are not accepted yet
        for _ in range(self.prior.truncation - 1):
            log_a = self.prior.log_accept(z[left])
            left = left[torch.rand_like(log_a).log() >= log_a]
            z[left] = torch.randn_like(z[left])
        return z.view(shape)


def _log_mean(log_a: Tensor) -> Tensor:
    return log_a.logsumexp(0) - math.log(len(log_a))


def _log_one_minus(log_p: Tensor) -> Tensor:
    """log (1 - p), for p below 1 by 1e-7 at least."""
    return torch.log(-torch.expm1(log_p.clamp(max=-1e-7)))


__all__ = ["ResampledPrior"]
