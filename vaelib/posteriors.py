"""Posteriors: callables that turn an encoder's output into q(z|x).

A posterior maps parameters [B, ...] to a `torch.distributions` object with batch axis [B]; `VAE`
declares every other axis as event. One that wants another number of parameters than two a latent
dimension says so in `num_parameters(latent_dim)`, and vaelib's factories give their encoders that
many outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

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


__all__ = ["laplace", "normal"]
