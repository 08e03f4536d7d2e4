"""Posteriors: callables that turn an encoder's output into q(z|x).

A posterior maps parameters [B, ...] to a `torch.distributions` object with batch axis [B]; `VAE`
declares every other axis as event. One that wants another number of parameters than two a latent
dimension says so in `num_parameters(latent_dim)`, and vaelib's factories give their encoders that
many outputs.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

from .draw import Latent
from .flows import AutoregressiveLayers, BentNormal, CouplingLayers
from .mixtures import NormalMixture

Posterior = Callable[[Tensor], Distribution]


def normal(parameters: Tensor) -> Normal:
    """A normal a latent dimension.

    (Kingma & Welling, ICLR 2014, Appendix C.2, https://arxiv.org/abs/1312.6114.)

    Args:
        parameters: means and then log-variances, [..., 2 L] -> [..., L].

    Example:
        >>> import torch, vaelib
        >>> vaelib.posteriors.normal(torch.zeros(3, 4)).stddev
        tensor([[1., 1.],
                [1., 1.],
                [1., 1.]])
    """
    mu, log_var = parameters.chunk(2, dim=-1)
    return Normal(mu, (0.5 * log_var).exp(), validate_args=False)


def laplace(parameters: Tensor) -> Laplace:
    """A Laplace a latent dimension.

    Args:
        parameters: locs and then log-scales, [..., 2 L] -> [..., L].

    Example:
        >>> import vaelib
        >>> model = vaelib.mlp_vae(2, posterior=vaelib.posteriors.laplace)
    """
    loc, log_scale = parameters.chunk(2, dim=-1)
    return Laplace(loc, log_scale.exp(), validate_args=False)


def full_covariance(parameters: Tensor) -> MultivariateNormal:
    """A normal whose latent dimensions are correlated.

    (Kingma & Welling, Foundations and Trends 2019, Section 2.5.1, https://arxiv.org/abs/1906.02691,
    Algorithm 2.) With zeros below the diagonal it is the law of `normal`.

    Args:
        parameters: L means, then L log-variances (of the diagonal of the covariance's Cholesky
            factor), then the L (L - 1) / 2 entries below it, row by row: [..., L (L + 3) / 2] ->
            event [L].

    Raises:
        ValueError: for a number of parameters that no L asks for.

    Example:
        >>> import torch, vaelib
        >>> q = vaelib.posteriors.full_covariance(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.5]))
        >>> q.covariance_matrix
        tensor([[1.0000, 0.5000],
                [0.5000, 1.2500]])
    """
    n = parameters.shape[-1]
    latent_dim = (math.isqrt(9 + 8 * n) - 3) // 2
    if full_covariance.num_parameters(latent_dim) != n:  # type: ignore[attr-defined]
        raise ValueError(
            f"full_covariance got {n} parameters; expected L (L + 3) / 2 of L latent dimensions: L "
            "means, L log-variances and the L (L - 1) / 2 entries below the diagonal."
        )
    mu, log_var, below = parameters.split((latent_dim, latent_dim, n - 2 * latent_dim), -1)
    scale_tril = torch.diag_embed((0.5 * log_var).exp())
    row, column = torch.tril_indices(latent_dim, latent_dim, -1, device=parameters.device)
    scale_tril[..., row, column] = below
    return MultivariateNormal(mu, scale_tril=scale_tril, validate_args=False)


full_covariance.num_parameters = lambda latent_dim: latent_dim * (latent_dim + 3) // 2  # type: ignore[attr-defined]


class _Bent:
    """What makes flow layers a posterior: 2 L + C parameters, of a normal and a context."""

    latent_dim: int
    context_dim: int

    def num_parameters(self, latent_dim: int) -> int:
        if latent_dim != self.latent_dim:
            raise ValueError(
                f"The model has latent_dim={latent_dim}, and its posterior is a "
                f"{type(self).__name__} of latent_dim={self.latent_dim}; expected the same."
            )
        return 2 * latent_dim + self.context_dim

    def forward(self, parameters: Tensor) -> BentNormal:
        sizes = (self.latent_dim, self.latent_dim, self.context_dim)
        mu, log_var, context = parameters.split(sizes, -1)
        flow: Any = self
        return BentNormal(flow, mu, 0.5 * log_var, context if self.context_dim else None)


class CouplingFlow(_Bent, CouplingLayers):
    """A diagonal normal, bent by affine coupling layers that also read a context of x.

    Draws and densities take one pass (Rezende & Mohamed, ICML 2015,
    https://arxiv.org/abs/1505.05770, with the layers of Dinh et al., ICLR 2017,
    https://arxiv.org/abs/1605.08803). It starts as the diagonal normal.

    Its encoder gives L means, L log-variances and the C numbers of the context.

    Args:
        latent_dim: L, the size of z.
        context_dim: C; 0 for a flow that reads z alone.
        hidden: units of a layer's network.
        num_layers: coupling layers.

    Raises:
        ValueError: for fewer than two latents.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(4, posterior=vaelib.posteriors.CouplingFlow(4))
        >>> model.encode(torch.zeros(3, 1, 28, 28)).rsample((5,)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(
        self, latent_dim: int, context_dim: int = 16, hidden: int = 64, num_layers: int = 4
    ) -> None:
        super().__init__(latent_dim, hidden, num_layers, context_dim)


class AutoregressiveFlow(_Bent, AutoregressiveLayers):
    """A diagonal normal, bent by autoregressive layers that also read a context of x.

    Inverse autoregressive flow (Kingma et al., NeurIPS 2016, https://arxiv.org/abs/1606.04934,
    Section 4): each latent is moved and scaled by what a masked network reads in those before it.
    A draw with its density takes one pass, the density of any other z takes L a layer. It starts as
    the diagonal normal.

    Its encoder gives L means, L log-variances and the C numbers of the context.

    Args:
        latent_dim: L, the size of z.
        context_dim: C; 0 for a flow that reads z alone.
        hidden: units of a layer's network.
        num_layers: autoregressive layers, each in the other order than the one before.

    Raises:
        ValueError: for fewer than two latents.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(4, posterior=vaelib.posteriors.AutoregressiveFlow(4))
        >>> model.encode(torch.zeros(3, 1, 28, 28)).rsample((5,)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(
        self, latent_dim: int, context_dim: int = 16, hidden: int = 64, num_layers: int = 2
    ) -> None:
        super().__init__(latent_dim, hidden, num_layers, context_dim)


def num_parameters(posterior: Posterior, latent_dim: int) -> int:
    """How many numbers a posterior reads for each example."""
    count = getattr(posterior, "num_parameters", None)
    return 2 * latent_dim if count is None else int(count(latent_dim))


def as_event(distribution: Distribution, num_leading: int) -> Distribution:
    """Declare every batch axis after the leading ones as part of the event."""
    extra = len(distribution.batch_shape) - num_leading
    if extra <= 0:
        return distribution
    return Independent(distribution, extra, validate_args=False)


def reparameterized(q: Distribution, num_samples: int = 1, noise: Tensor | None = None) -> Tensor:
    """z [K, B, ...] that follow q: its own draws, by `rsample` where it has one, or from `noise`.

    Args:
        q: of batch shape [B].
        num_samples: K.
        noise: standard normal [K, B, ...], for a normal q.

    Raises:
        ValueError: for noise of another shape, or handed to a posterior that is no normal: other
            draws would not follow q.
    """
    shape = torch.Size((num_samples,))
    if noise is None:
        return q.rsample(shape) if q.has_rsample else q.sample(shape)
    kind = type(q.base_dist if isinstance(q, Independent) else q)
    if kind not in (Normal, MultivariateNormal):
        raise ValueError(
            f"noise was handed to a posterior that is a {kind.__name__}; expected none, since only "
            "a normal's draws are made from normal noise: let it draw its own (noise_dim = None)."
        )
    expected = (*q.batch_shape, *q.event_shape)
    if noise.shape[1:] != expected or num_samples not in (1, len(noise)):
        raise ValueError(
            f"noise has shape {list(noise.shape)}; expected [num_samples, "
            f"{', '.join(map(str, expected))}]."
        )
    if isinstance(q, MultivariateNormal):
        return q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    base: Any = q.base_dist if isinstance(q, Independent) else q
    return base.loc + base.scale * noise


def latent(
    q: Distribution, p: Distribution, num_samples: int = 1, noise: Tensor | None = None
) -> Latent:
    """A layer at draws of q: one from each of its strata, where it offers them (see `mixtures`)."""
    if noise is None and hasattr(q, "strata"):
        z, log_weight = q.strata(num_samples)
        return Latent(z, q, p, values=len(z) // num_samples, log_weight=log_weight)
    return Latent(reparameterized(q, num_samples, noise), q, p)


__all__ = [
    "AutoregressiveFlow",
    "CouplingFlow",
    "NormalMixture",
    "full_covariance",
    "laplace",
    "normal",
]
