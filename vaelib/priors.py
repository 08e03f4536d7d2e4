"""Priors that are learnt, as modules that return distributions.

Introduced in book/models/07_evaluation.ipynb.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from .mixtures import MixturePrior, VampPrior
from .nets import mlp
from .resampled import ResampledPrior


class FlowPrior(nn.Module):
    """A standard normal, bent by affine coupling layers (Dinh et al., ICLR 2017, arXiv:1605.08803).

    Called without arguments it returns the distribution, of event shape [latent_dim]; it starts as
    the standard normal. Each layer keeps one half of the latents and, by a network that reads it,
    moves and scales the other half, by at most e^2 or e^-2.

    Args:
        latent_dim: L, the size of z.
        hidden: units of a layer's network.
        num_layers: coupling layers.

    Raises:
        ValueError: for fewer than two latents.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, prior=vaelib.priors.FlowPrior(2))
        >>> round(model.pz().log_prob(torch.zeros(2)).item(), 4)  # -log 2 pi, before any training
        -1.8379
    """

    def __init__(self, latent_dim: int, hidden: int = 64, num_layers: int = 4) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(
                f"FlowPrior got latent_dim={latent_dim}; expected at least 2, one half to move by "
                "the other."
            )
        self.latent_dim, self.hidden, self.num_layers = latent_dim, hidden, num_layers
        half = latent_dim // 2
        self.halves = [slice(None, half), slice(half, None)]
        self.nets = nn.ModuleList()
        for i in range(num_layers):
            moved = (half, latent_dim - half)[(i + 1) % 2]
            net = mlp((latent_dim - moved, hidden, 2 * moved), "silu")
            nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(net[-1].bias)  # type: ignore[arg-type]
            self.nets.append(net)

    def forward(self) -> "Flow":
        return Flow(self)

    def layer(self, i: int, halves: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What layer i does to its moved half: log-scale and shift, each [N, D_moved]."""
        log_scale, shift = self.nets[i](halves[i % 2]).chunk(2, -1)
        return 2 * torch.tanh(log_scale / 2), shift


class Flow(Distribution):
    """The distribution of a FlowPrior: z with u = f(z) standard normal, f its layers in order."""

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, flow: FlowPrior) -> None:
        self.flow = flow
        super().__init__(event_shape=torch.Size((flow.latent_dim,)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), z [..., latent_dim] -> [...], by the change of variables."""
        z = value.reshape(-1, self.flow.latent_dim)
        halves = [z[:, part] for part in self.flow.halves]
        log_det = z.new_zeros(len(z))
        for i in range(len(self.flow.nets)):
            log_scale, shift = self.flow.layer(i, halves)
            moved = (i + 1) % 2
            halves[moved] = halves[moved] * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(-1)
        square = torch.cat(halves, -1).square().sum(-1)
        log_normal = -0.5 * (square + self.flow.latent_dim * math.log(2 * math.pi))
        return (log_normal + log_det).view(value.shape[:-1])

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        like = next(self.flow.parameters())
        return self.from_normal(torch.randn(shape, dtype=like.dtype, device=like.device))

    def from_normal(self, u: Tensor) -> Tensor:
        """z with f(z) = u, both [..., latent_dim]: the layers undone, last first."""
        halves = [u.reshape(-1, u.shape[-1])[:, part] for part in self.flow.halves]
        for i in reversed(range(len(self.flow.nets))):
            log_scale, shift = self.flow.layer(i, halves)
            moved = (i + 1) % 2
            halves[moved] = (halves[moved] - shift) * (-log_scale).exp()
        return torch.cat(halves, -1).view(u.shape)


__all__ = ["FlowPrior", "MixturePrior", "ResampledPrior", "VampPrior"]
