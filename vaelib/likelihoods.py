"""Likelihoods: callables that turn a decoder's output into a distribution over x.

A likelihood maps parameters [..., *shape] to a `torch.distributions` object over [..., *x_shape].
`VAE` declares the event axes, so a likelihood need not. One that wants more than one number for
each value of x says how many channels in `num_channels(channels of x)`, and vaelib's factories
give their decoders that many. Introduced in book/foundations/02 and book/models/08.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal

from .distributions import ContinuousBernoulli, DiscretizedLogistic, DiscretizedLogisticMixture


def bernoulli(logits: Tensor) -> Bernoulli:
    """Bernoulli likelihood of binary pixels.

    Its data are 0 or 1. Grey pixels are chances of ink: draw them with `data.binarize`.

    Args:
        logits: of any shape.

    Example:
        >>> import torch, vaelib
        >>> vaelib.bernoulli(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.6931, -0.6931])
    """
    return Bernoulli(logits=logits, validate_args=False)


def continuous_bernoulli(logits: Tensor) -> ContinuousBernoulli:
    """A density over grey values in [0, 1]: see `vaelib.distributions.ContinuousBernoulli`.

    Args:
        logits: of any shape.

    Example:
        >>> import torch, vaelib
        >>> vaelib.likelihoods.continuous_bernoulli(torch.tensor([-2.0, 0.0, 2.0])).mean
        tensor([0.3435, 0.5000, 0.6565])
    """
    return ContinuousBernoulli(logits)


@dataclass(frozen=True)
class gaussian:
    """Gaussian likelihood N(mu, scale^2) of real-valued x with one fixed standard deviation.

    It is called with means of any shape and gives a Normal of that shape. Its log-density is
    ``-|x - mu|^2 / (2 scale^2)`` minus a constant, so squared error is its negative
    log-likelihood at a fixed scale only.

    Args:
        scale: the deviation, in units of x.

    Raises:
        ValueError: unless scale is positive and finite.

    Example:
        >>> import torch, vaelib
        >>> vaelib.gaussian(0.1)(torch.zeros(3))
        Normal(loc: torch.Size([3]), scale: torch.Size([3]))
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("gaussian", "scale", self.scale)

    def __call__(self, mu: Tensor) -> Normal:
        return Normal(mu, self.scale, validate_args=False)


@dataclass(frozen=True)
class pixel_gaussian:
    """Gaussian likelihood whose decoder gives each value of x its own mean and log-deviation.

    Parameters [..., 2C, H, W], means first. Without a least deviation the density of a pixel that
    never changes has no bound, and training follows it there.

    Args:
        min_scale: the least deviation, in units of x; a step of an 8-bit pixel by default.

    Raises:
        ValueError: unless min_scale is positive and finite.

    Example:
        >>> import torch, vaelib
        >>> likelihood = vaelib.likelihoods.pixel_gaussian(min_scale=0.01)
        >>> likelihood(torch.zeros(6, 8, 8)).batch_shape
        torch.Size([3, 8, 8])
    """

    min_scale: float = 1 / 255

    def __post_init__(self) -> None:
        _check_positive("pixel_gaussian", "min_scale", self.min_scale)

    def num_channels(self, channels: int) -> int:
        return 2 * channels

    def __call__(self, parameters: Tensor) -> Normal:
        mu, log_scale = parameters.chunk(2, -3)
        least = math.log(self.min_scale)
        return Normal(mu, log_scale.clamp(min=least).exp(), validate_args=False)


class LearnedGaussian(nn.Module):
    """Gaussian likelihood with one deviation for all of x (or each channel), learnt by gradient.

    Args:
        channels: of x, for a deviation each.

    Attributes:
        log_scale: the parameter, [] or [channels, 1, 1].

    Example:
        >>> import torch, vaelib
        >>> likelihood = vaelib.likelihoods.LearnedGaussian(channels=3)
        >>> likelihood(torch.zeros(3, 8, 8)).batch_shape, likelihood.log_scale.shape
        (torch.Size([3, 8, 8]), torch.Size([3, 1, 1]))
    """

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.log_scale = _shared_log_scale(channels, 0.0)

    def forward(self, mu: Tensor) -> Normal:
        return Normal(mu, self.log_scale.exp().expand_as(mu), validate_args=False)


class OptimalGaussian(nn.Module):
    """Gaussian likelihood whose deviation is the best one for the batch: sigma-VAE.

    In training log_prob(x) uses the root mean squared error of its own batch, which maximises it,
    so the scale needs no learning rate. In eval mode it is an average over the training batches:
    test data never choose their own (Rybkin, Daniilidis & Levine, ICML 2021,
    https://arxiv.org/abs/2006.13202, Equation 6).

    Args:
        momentum: the weight of a batch in that average.

    Attributes:
        scale: [], the average, a buffer.

    Example:
        >>> import torch, vaelib
        >>> likelihood = vaelib.likelihoods.OptimalGaussian(momentum=1.0)
        >>> _ = likelihood(torch.zeros(4)).log_prob(torch.tensor([3.0, -3.0, 3.0, -3.0]))
        >>> likelihood.scale
        tensor(3.)
    """

    scale: Tensor

    def __init__(self, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("scale", torch.ones(()))

    def forward(self, mu: Tensor) -> Normal:
        if self.training:
            return _BestNormal(mu, self)
        return Normal(mu, self.scale.expand_as(mu), validate_args=False)


class _BestNormal(Normal):
    """N(mu, error^2) with the error that the values to be scored turn out to have."""

    def __init__(self, mu: Tensor, likelihood: OptimalGaussian) -> None:
        super().__init__(mu, likelihood.scale.expand_as(mu), validate_args=False)
        self.likelihood = likelihood

    def log_prob(self, value: Tensor) -> Tensor:
        scale = (value - self.loc).square().mean().clamp(min=1e-12).sqrt()
        if torch.is_grad_enabled():
            kept = self.likelihood
            kept.scale.lerp_(scale.detach().to(kept.scale.dtype), kept.momentum)
        return Normal(self.loc, scale.expand_as(self.loc), validate_args=False).log_prob(value)


@dataclass(frozen=True)
class discretized_logistic:
    """8-bit pixels: `vaelib.distributions.DiscretizedLogistic`, its loc and log-scale decoded.

    Parameters [..., 2C, H, W], locs first. Zeros mean the middle of the range, and e^-2 of it.

    Args:
        bins: how many values a pixel has.

    Example:
        >>> import torch, vaelib
        >>> likelihood = vaelib.likelihoods.discretized_logistic()
        >>> likelihood.num_channels(3), likelihood(torch.zeros(6, 8, 8)).batch_shape
        (6, torch.Size([3, 8, 8]))
    """

    bins: int = 256

    def num_channels(self, channels: int) -> int:
        return 2 * channels

    def __call__(self, parameters: Tensor) -> DiscretizedLogistic:
        loc, log_scale = parameters.chunk(2, -3)
        return DiscretizedLogistic(loc + 0.5, log_scale - 2, self.bins)


class LearnedLogistic(nn.Module):
    """8-bit pixels: a discretized logistic with one scale for all of x (or each channel), learnt.

    The decoder gives locs only, as for `vaelib.gaussian`.

    Args:
        channels: of x, for a scale each.
        bins: how many values a pixel has.

    Attributes:
        log_scale: the parameter, [] or [channels, 1, 1].

    Example:
        >>> import torch, vaelib
        >>> vaelib.likelihoods.LearnedLogistic()(torch.zeros(3, 8, 8)).batch_shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, channels: int | None = None, bins: int = 256) -> None:
        super().__init__()
        self.channels, self.bins = channels, bins
        self.log_scale = _shared_log_scale(channels, -2.0)

    def forward(self, loc: Tensor) -> DiscretizedLogistic:
        return DiscretizedLogistic(loc + 0.5, self.log_scale, self.bins)


@dataclass(frozen=True)
class logistic_mixture:
    """8-bit pixels: `vaelib.distributions.DiscretizedLogisticMixture`, coupled for colour.

    Parameters [..., 10 M, H, W] for three channels: M logits, 3 M locs, 3 M log-scales and 3 M
    couplings; else [..., 3 C M, H, W], a mixture for each value.

    Args:
        num_components: M.
        bins: how many values a pixel has.

    Raises:
        ValueError: unless num_components is a whole number of at least 1, and for parameters of
            another shape.

    Example:
        >>> import torch, vaelib
        >>> likelihood = vaelib.likelihoods.logistic_mixture(num_components=5)
        >>> likelihood.num_channels(3), likelihood(torch.zeros(50, 8, 8)).event_shape
        (50, torch.Size([3, 8, 8]))
    """

    num_components: int = 5
    bins: int = 256

    def __post_init__(self) -> None:
        m = self.num_components
        if isinstance(m, bool) or not isinstance(m, int) or m < 1:
            raise ValueError(
                f"logistic_mixture got num_components={m!r}; expected a whole number of at least 1."
            )

    def num_channels(self, channels: int) -> int:
        return (10 if channels == 3 else 3 * channels) * self.num_components

    def __call__(self, parameters: Tensor) -> Distribution:
        m, n = self.num_components, parameters.shape[-3]
        if n % m or (n != 10 * m and n % (3 * m)):
            raise ValueError(
                f"The decoder gave {n} channels to a mixture of {m}; expected {10 * m} for colour, "
                f"or {3 * m} for each channel: build it with num_channels."
            )
        p = parameters.unflatten(-3, (-1, m)).movedim(-3, -1)  # [..., 10 or 3 C, H, W, M]
        coupling = None
        if n == 10 * m:
            logits, loc, log_scale, coupling = p.split((1, 3, 3, 3), -4)
            logits = logits.squeeze(-4)
        else:
            logits, loc, log_scale = p.chunk(3, -4)
        # Locs start at different places, or equal components would stay equal.
        middle = (torch.arange(m).to(p) + 0.5) / m
        return DiscretizedLogisticMixture(logits, loc + middle, log_scale - 2, coupling, self.bins)


def _shared_log_scale(channels: int | None, start: float) -> nn.Parameter:
    return nn.Parameter(torch.full(() if channels is None else (channels, 1, 1), start))


def _check_positive(likelihood: str, name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ValueError(
            f"{likelihood} got {name}={value!r}; expected a positive, finite number, in the units "
            "of x."
        )


__all__ = [
    "LearnedGaussian",
    "LearnedLogistic",
    "OptimalGaussian",
    "bernoulli",
    "continuous_bernoulli",
    "discretized_logistic",
    "gaussian",
    "logistic_mixture",
    "pixel_gaussian",
]
