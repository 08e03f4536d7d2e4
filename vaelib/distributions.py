"""Distributions that torch.distributions lacks, or has with less care."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints
from torch.nn import functional as F


class ContinuousBernoulli(Distribution):
    """A density over [0, 1], proportional to e^(logit x).

    What cross-entropy on grey values lacks: its normaliser, logit / tanh(logit / 2) times the
    Bernoulli's (Loaiza-Ganem & Cunningham, NeurIPS 2019, https://arxiv.org/abs/1907.06845).
    Written in logits, since torch's own clamps probabilities: in float32 its density integrates to
    0.80 at logit 20, and to 0.40 at 40.

    Args:
        logits: of any shape.

    Example:
        >>> import torch, vaelib
        >>> density = vaelib.distributions.ContinuousBernoulli(torch.tensor(20.0))
        >>> x = torch.linspace(0, 1, 10_001)
        >>> round(torch.trapezoid(density.log_prob(x).exp(), x).item(), 3)
        1.0
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        """log-density, nats, of the broadcast shape."""
        size = self.logits.abs()
        large = size.clamp(min=0.01)
        log_tanh = (-torch.expm1(-large)).log() - torch.log1p((-large).exp())
        small = math.log(2) + size**2 / 12 - 7 * size**4 / 1440
        log_norm = torch.where(size > 0.01, large.log() - log_tanh, small)
        return self.logits * value - F.softplus(self.logits) + log_norm

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e^-logit) - 1 / logit."""
        small = self.logits.abs() < 0.03
        eta = torch.where(small, torch.ones_like(self.logits), self.logits)
        series = 0.5 + self.logits / 12 - self.logits**3 / 720
        return torch.where(small, series, -1 / torch.expm1(-eta) - 1 / eta)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        eta = self.logits.expand(shape)
        u = torch.rand_like(eta)
        size = eta.abs().clamp(min=1e-4)
        x = 1 + (u + (1 - u) * (-size).exp()).log() / size  # for a positive logit; else mirrored
        x = torch.where(eta < 0, 1 - x, x)
        return torch.where(eta.abs() < 1e-4, u, x).clamp(0, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ContinuousBernoulli":
        return type(self)(self.logits.expand(batch_shape))


class _Grid(constraints.Constraint):
    """The values 0, 1 / (bins - 1), ..., 1."""

    is_discrete = True

    def __init__(self, bins: int) -> None:
        self.n = bins - 1
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        k = value * self.n
        return (value >= 0) & (value <= 1) & ((k - k.round()).abs() < 1e-3)

    def __repr__(self) -> str:
        return f"the values 0, 1/{self.n}, ..., 1"


class DiscretizedLogistic(Distribution):
    """Logistic noise on a grid of values 0, 1/(bins - 1), ..., 1: pixels of 8 bits.

    Each value has the logistic's mass between its neighbours' midpoints; the first and the last
    also have the tails, so the probabilities sum to one (PixelCNN++,
    https://arxiv.org/abs/1701.05517, Section 2.1).

    Args:
        loc: in units of x.
        log_scale: likewise, of loc's shape. Scales below e^-30 count as e^-30, so that a value
            stays finite.
        bins: how many values there are.

    Raises:
        ValueError: where bins is less than 2.

    Example:
        >>> import torch, vaelib
        >>> pixel = vaelib.distributions.DiscretizedLogistic(torch.tensor(0.5), torch.tensor(-2.0))
        >>> round(pixel.log_prob(torch.arange(256) / 255).exp().sum().item(), 4)
        1.0
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(self, loc: Tensor, log_scale: Tensor, bins: int = 256) -> None:
        if bins < 2:
            raise ValueError(f"bins is {bins}; expected at least 2, such as 256 for 8 bits.")
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.bins = bins
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return _Grid(self.bins)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(X = value), nats, of the broadcast shape; value: on the grid."""
        return _log_mass(value, self.loc, self.log_scale, self.bins)

    @property
    def mean(self) -> Tensor:
        """The sum of P(X >= k) over the bins, exact in the memory of one bin."""
        total = torch.zeros_like(self.loc)
        for k in range(1, self.bins):
            edge = (k - 0.5) / (self.bins - 1)
            total += torch.sigmoid((self.loc - edge) * _precision(self.log_scale))
        return total / (self.bins - 1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return _draw(self.loc.expand(shape), self.log_scale.expand(shape), self.bins)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        return type(self)(
            self.loc.expand(batch_shape), self.log_scale.expand(batch_shape), self.bins
        )


class DiscretizedLogisticMixture(Distribution):
    """A mixture of M discretized logistics, pixel by pixel; see `DiscretizedLogistic`.

    Without coupling it is a mixture for each number of x. With coupling a component explains the
    three channels of a pixel together: the second's loc is moved by coupling[0] times the first's
    value, and the third's by coupling[1] and coupling[2] times the first's and the second's.

    Args:
        logits: [..., M]; with coupling [..., H, W, M].
        loc: [..., M]; with coupling [..., 3, H, W, M].
        log_scale: likewise.
        coupling: [..., 3, H, W, M], or None; with it the event is (3, H, W).
        bins: how many values there are.

    Raises:
        ValueError: where the shapes do not fit together.

    Example:
        >>> import torch, vaelib
        >>> mixture = vaelib.distributions.DiscretizedLogisticMixture(*torch.zeros(3, 8, 8, 5))
        >>> mixture.batch_shape
        torch.Size([8, 8])
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        coupling: Tensor | None = None,
        bins: int = 256,
    ) -> None:
        expected = loc.shape if coupling is None else (*loc.shape[:-4], *loc.shape[-3:])
        channels = coupling is None or (loc.dim() >= 4 and loc.shape[-4] == 3)
        alike = loc.shape == log_scale.shape == (loc if coupling is None else coupling).shape
        if not (channels and alike and tuple(logits.shape) == tuple(expected)):
            shapes = [list(t.shape) for t in (logits, loc, log_scale)]
            raise ValueError(
                f"logits, loc and log_scale have shapes {shapes}"
                + ("" if coupling is None else f" and coupling {list(coupling.shape)}")
                + "; expected [..., M] for all, or with coupling [..., H, W, M] for logits and "
                "[..., 3, H, W, M] for the others."
            )
        self.logits, self.loc, self.log_scale, self.coupling = logits, loc, log_scale, coupling
        self.bins = bins
        events = 0 if coupling is None else 3
        shape = loc.shape[:-1]
        super().__init__(shape[: len(shape) - events], shape[len(shape) - events :], False)

    @property
    def support(self) -> constraints.Constraint:
        grid = _Grid(self.bins)
        return grid if self.coupling is None else constraints.independent(grid, 3)

    def _locs(self, value: Tensor) -> Tensor:
        """loc given the channels before, [..., 3, H, W, M]; value [..., 3, H, W]."""
        if self.coupling is None:
            return self.loc
        loc, coupling = self.loc.unbind(-4), self.coupling.unbind(-4)
        x = value.unsqueeze(-1).unbind(-4)
        locs = [_next_loc(loc, coupling, x[:channel]) for channel in range(3)]
        return torch.stack(torch.broadcast_tensors(*locs), -4)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(X = value), nats, without the event's axes; value: on the grid."""
        parts = _log_mass(value.unsqueeze(-1), self._locs(value), self.log_scale, self.bins)
        if self.coupling is not None:
            parts = parts.sum(-4)
        mixed = torch.logsumexp(self.logits.log_softmax(-1) + parts, -1)
        return mixed if self.coupling is None else mixed.sum((-2, -1))

    @property
    def mean(self) -> Tensor:
        """E[X]; with coupling exact but for the cut at 0 and 1, which it leaves out."""
        weights = self.logits.softmax(-1)
        if self.coupling is None:
            return (weights * DiscretizedLogistic(self.loc, self.log_scale, self.bins).mean).sum(-1)
        loc, coupling = self.loc.unbind(-4), self.coupling.unbind(-4)
        means: list[Tensor] = []
        for _ in range(3):
            means.append(_next_loc(loc, coupling, means))
        return (weights.unsqueeze(-4) * torch.stack(means, -4)).sum(-1).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        n = torch.Size(sample_shape)
        chosen = torch.distributions.Categorical(logits=self.logits).sample(n).unsqueeze(-1)

        def of(t: Tensor) -> Tensor:
            return t.expand(n + t.shape).gather(-1, chosen).squeeze(-1)

        if self.coupling is None:
            return _draw(of(self.loc), of(self.log_scale), self.bins)
        loc, log_scale, coupling = (
            [of(t) for t in parameter.unbind(-4)]
            for parameter in (self.loc, self.log_scale, self.coupling)
        )
        drawn: list[Tensor] = []
        for channel in range(3):
            drawn.append(_draw(_next_loc(loc, coupling, drawn), log_scale[channel], self.bins))
        return torch.stack(drawn, -3)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        batch, old = torch.Size(batch_shape), len(self.batch_shape)

        def wider(t: Tensor) -> Tensor:
            return t.expand(batch + t.shape[old:])

        coupling = None if self.coupling is None else wider(self.coupling)
        wide = [wider(t) for t in (self.logits, self.loc, self.log_scale)]
        return type(self)(wide[0], wide[1], wide[2], coupling, self.bins)


def unwrap(distribution: Distribution) -> Distribution:
    """The distribution inside any number of `Independent`s."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def kind_of(distribution: Distribution) -> str:
    """The name of the distribution inside any number of `Independent`s."""
    return type(unwrap(distribution)).__name__


def support_of(distribution: Distribution) -> constraints.Constraint | None:
    """What values the distribution is over, each by itself; None where it does not say."""
    try:
        support: Any = distribution.support
    except NotImplementedError:
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def is_bernoulli(distribution: Distribution) -> bool:
    """Whether the distribution is over bits, whoever wrote it: a Bernoulli, or of its support."""
    if isinstance(unwrap(distribution), Bernoulli):
        return True
    return support_of(distribution) is constraints.boolean


def _next_loc(
    loc: Sequence[Tensor], coupling: Sequence[Tensor], before: Sequence[Tensor]
) -> Tensor:
    """The loc of the channel that comes after `before`, the values of the earlier ones."""
    channel = len(before)
    moves = zip(coupling[max(0, channel - 1) :], before)  # coupling: g by r, b by r, b by g
    return loc[channel] + sum(c * x for c, x in moves)


def _precision(log_scale: Tensor) -> Tensor:
    return (-log_scale.clamp(min=-30.0)).exp()


def _log_mass(x: Tensor, loc: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    """log P of a bin. With a and b its edges in scales, s(b) - s(a) = s(b) s(-a) (1 - e^(a-b)).

    No difference of nearly equal numbers, so it holds in the tails, where both are 0 or 1. Edges
    are made from whole numbers: two neighbours must share theirs to the last bit.
    """
    n, precision = bins - 1, _precision(log_scale)
    k = (x * n).round()
    above = F.logsigmoid(((k + 0.5) / n - loc) * precision)  # log s(b): not above the bin
    below = F.logsigmoid((loc - (k - 0.5) / n) * precision)  # log s(-a): not below it
    width = precision / n
    wide = width.clamp(min=1e-3)  # narrower ones by their series: 1 - e^-w = w e^(-w/2) ...
    inside = torch.where(
        width > 1e-3, (-torch.expm1(-wide)).log(), -log_scale - math.log(n) - width / 2
    )
    zero = torch.zeros((), dtype=loc.dtype, device=loc.device)
    first, last = k == 0, k == n
    return (
        torch.where(first, zero, below)
        + torch.where(last, zero, above)
        + torch.where(first | last, zero, inside)
    )


def _draw(loc: Tensor, log_scale: Tensor, bins: int) -> Tensor:
    uniform = torch.rand_like(loc)
    tiny = torch.finfo(loc.dtype).tiny
    logistic = uniform.clamp(min=tiny).log() - torch.log1p(-uniform)
    x = loc + logistic / _precision(log_scale)
    return ((x * (bins - 1)).round() / (bins - 1)).clamp(0, 1)


__all__ = ["ContinuousBernoulli", "DiscretizedLogistic", "DiscretizedLogisticMixture"]
