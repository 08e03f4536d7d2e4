"""Likelihoods: callables that turn a decoder's output into a distribution over x.

A likelihood maps parameters of shape [..., *x_shape] to a `torch.distributions` object. `VAE`
declares the event axes, so a likelihood need not. Introduced in book/foundations/02.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal


def bernoulli(logits: Tensor) -> Bernoulli:
    """Bernoulli likelihood of binary pixels, from logits of any shape.

    Its data are 0 or 1. Grey pixels are chances of ink: draw them with `vaelib.data.binarize`.
    """
    return Bernoulli(logits=logits, validate_args=False)


@dataclass(frozen=True)
class gaussian:
    """Gaussian likelihood N(mu, scale^2) of real-valued x with one fixed standard deviation.

    `gaussian(scale)` is a callable: it maps means of any shape to a Normal of that shape. Its
    log-density is -|x - mu|^2 / (2 scale^2) minus a constant, so squared error is its negative
    log-likelihood at a fixed scale only. Raises ValueError unless scale is positive and finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, int | float) and 0 < self.scale < math.inf):
            raise ValueError(
                f"gaussian got scale={self.scale!r}; expected a positive, finite number, in the "
                "units of x."
            )

    def __call__(self, mu: Tensor) -> Normal:
        return Normal(mu, self.scale, validate_args=False)


def unwrap(distribution: Distribution) -> Distribution:
    """The distribution inside any number of `Independent`s."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def is_bernoulli(distribution: Distribution) -> bool:
    """Whether the distribution is Bernoulli, whoever wrote the likelihood."""
    return isinstance(unwrap(distribution), Bernoulli)
