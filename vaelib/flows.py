"""Flows: maps that can be undone, and the distributions that they make of a normal.

A flow bends, ``y, log_det = flow.bend(x)``, and unbends, ``x, log_det = flow.unbend(y)``, [..., L]
both ways; log_det [...] is log det dy/dx each time. Told so, its networks read a context, too.
`vaelib.posteriors` and `vaelib.priors` hold the families that are made of these.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from .nets import WithContext, call, masked_mlp, mlp


class CouplingLayers(nn.Module):
    """Affine coupling layers, one pass either way (Dinh et al., ICLR 2017, arXiv:1605.08803).

    Each layer keeps one half of the numbers and, by a network that reads it, moves and scales the
    other half, by at most e^2 or e^-2. It starts as the identity.

    Args:
        latent_dim: L, how many numbers.
        hidden: units of a layer's network.
        num_layers: coupling layers.
        context_dim: C, how many further numbers the networks read.

    Raises:
        ValueError: for fewer than two latents, and a negative size.

    Example:
        >>> import torch, vaelib
        >>> flow = vaelib.flows.CouplingLayers(5)
        >>> x, log_det = flow.unbend(flow.bend(torch.ones(3, 5))[0])
        >>> torch.equal(x, torch.ones(3, 5)), log_det
        (True, tensor([0., 0., 0.], grad_fn=<AddBackward0>))
    """

    def __init__(
        self, latent_dim: int, hidden: int = 64, num_layers: int = 4, context_dim: int = 0
    ) -> None:
        super().__init__()
        _check_sizes(self, latent_dim, context_dim, "one half to move by the other")
        self.latent_dim, self.hidden, self.num_layers = latent_dim, hidden, num_layers
        self.context_dim = context_dim
        half = latent_dim // 2
        self.halves = [slice(None, half), slice(half, None)]
        self.nets = nn.ModuleList()
        for i in range(num_layers):
            moved = (half, latent_dim - half)[(i + 1) % 2]
            net = mlp((latent_dim - moved, hidden, 2 * moved), "silu")
            self.nets.append(_starting_at_zero(net, context_dim))

    def layer(
        self, i: int, halves: list[Tensor], context: Tensor | None = None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What layer i does to its moved half: log-scale and shift, each [..., L_moved]."""
        return _affine(self.nets[i], halves[i % 2], context, held)

    def bend(
        self, x: Tensor, context: Tensor | None = None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """y [..., L] and log det dy/dx [...].

        Args:
            x: [..., L].
            context: [..., C], of x's leading axes or the last of them.
            held: whether the weights get no gradient.
        """
        halves = [x[..., part] for part in self.halves]
        log_det = x.new_zeros(x.shape[:-1])
        for i in range(len(self.nets)):
            log_scale, shift = self.layer(i, halves, context, held)
            moved = (i + 1) % 2
            halves[moved] = halves[moved] * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(-1)
        return torch.cat(halves, -1), log_det

    def unbend(
        self, y: Tensor, context: Tensor | None = None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x [..., L] that bends to y, the layers undone, last first; and log det dy/dx [...]."""
        halves = [y[..., part] for part in self.halves]
        log_det = y.new_zeros(y.shape[:-1])
        for i in reversed(range(len(self.nets))):
            log_scale, shift = self.layer(i, halves, context, held)
            moved = (i + 1) % 2
            halves[moved] = (halves[moved] - shift) * (-log_scale).exp()
            log_det = log_det + log_scale.sum(-1)
        return torch.cat(halves, -1), log_det


class AutoregressiveLayers(nn.Module):
    """Autoregressive affine layers: bent in one pass, unbent in L.

    Each layer moves and scales every number by what a masked network reads in the numbers before
    it, by at most e^2 or e^-2; the next layer goes through them in the other order. It starts as
    the identity. Drawn by `bend` it is inverse autoregressive flow (Kingma et al., NeurIPS 2016,
    https://arxiv.org/abs/1606.04934, Section 4; their gate is a bounded log-scale here), scored by
    `bend` masked autoregressive flow (Papamakarios et al., NeurIPS 2017,
    https://arxiv.org/abs/1705.07057).

    Args:
        latent_dim: L, how many numbers.
        hidden: units of a layer's network; fewer than L leave some of what is before unread.
        num_layers: autoregressive layers.
        context_dim: C, how many further numbers the networks read.

    Raises:
        ValueError: for fewer than two latents, and a negative size.

    Example:
        >>> import torch, vaelib
        >>> flow = vaelib.flows.AutoregressiveLayers(5)
        >>> torch.equal(flow.unbend(flow.bend(torch.ones(3, 5))[0])[0], torch.ones(3, 5))
        True
    """

    def __init__(
        self, latent_dim: int, hidden: int = 64, num_layers: int = 2, context_dim: int = 0
    ) -> None:
        super().__init__()
        _check_sizes(self, latent_dim, context_dim, "one to move by another")
        self.latent_dim, self.hidden, self.num_layers = latent_dim, hidden, num_layers
        self.context_dim = context_dim
        self.nets = nn.ModuleList()
        for i in range(num_layers):
            net = masked_mlp(latent_dim, hidden, 2, reverse=i % 2 == 1)
            self.nets.append(_starting_at_zero(net, context_dim))

    def bend(
        self, x: Tensor, context: Tensor | None = None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """y [..., L] and log det dy/dx [...], in one pass: see `CouplingLayers.bend`."""
        log_det = x.new_zeros(x.shape[:-1])
        for net in self.nets:
            log_scale, shift = _affine(net, x, context, held)
            x = x * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(-1)
        return x, log_det

    def unbend(
        self, y: Tensor, context: Tensor | None = None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x [..., L] that bends to y, and log det dy/dx [...], in L passes a layer."""
        place = torch.arange(self.latent_dim, device=y.device)
        log_det = y.new_zeros(y.shape[:-1])
        for i in reversed(range(len(self.nets))):
            rank = place.flip(0) if i % 2 else place
            x = torch.zeros_like(y)
            for known in range(self.latent_dim):  # so many numbers of x are right
                log_scale, shift = _affine(self.nets[i], x, context, held)
                x = torch.where(rank <= known, (y - shift) * (-log_scale).exp(), 0.0)
            log_det = log_det + log_scale.sum(-1)  # of all before the last: no scale reads that
            y = x
        return y, log_det


Layers = CouplingLayers | AutoregressiveLayers


class Flow(Distribution):
    """The law of z where u = bend(z) is standard normal: a prior's, scored by one bend.

    Args:
        flow: with `bend` and `unbend`.
        held: whether its weights are held still.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, flow: Layers, held: bool = False) -> None:
        self.flow, self.held = flow, held
        super().__init__(event_shape=torch.Size((flow.latent_dim,)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), z [..., latent_dim] -> [...], by the change of variables."""
        u, log_det = self.flow.bend(value.reshape(-1, self.flow.latent_dim), None, self.held)
        return (_log_normal(u) + log_det).view(value.shape[:-1])

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        like = next(self.flow.parameters())
        return self.from_normal(torch.randn(shape, dtype=like.dtype, device=like.device))

    def from_normal(self, u: Tensor) -> Tensor:
        """z that bends to u, both [..., latent_dim]."""
        z, _ = self.flow.unbend(u.reshape(-1, u.shape[-1]), None, self.held)
        return z.view(u.shape)

    def stopped(self) -> "Flow":
        """The same law, its parameters held still: log_prob has the gradient of z alone."""
        return Flow(self.flow, held=True)


class BentNormal(Distribution):
    """The law of z = bend(u), where u is a diagonal normal: a posterior's, drawn by one bend.

    It remembers its last draw, so that the log-density there costs nothing more; that one's
    gradient is the whole one, by the parameters and the draw that they made. Any other z is unbent.

    Args:
        flow: with `bend` and `unbend`.
        loc: of u, [..., L].
        log_scale: of u, [..., L].
        context: what the flow reads, [..., C], or None.
        held: whether the flow's weights are held still.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        flow: Layers,
        loc: Tensor,
        log_scale: Tensor,
        context: Tensor | None = None,
        held: bool = False,
    ) -> None:
        self.flow, self.held = flow, held
        self.loc, self.log_scale, self.context = loc, log_scale, context
        self._last: tuple[Tensor, int, Tensor] | None = None  # a draw, its version, log-density
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z), z [..., L] -> [...], by the change of variables."""
        if self._last is not None and value is self._last[0]:
            _, version, log_q = self._last
            lacks_gradient = torch.is_grad_enabled() and not log_q.requires_grad
            if version == _version(value) and not lacks_gradient:
                return log_q
        value, _ = torch.broadcast_tensors(value, self.loc)
        u, log_det = self.flow.unbend(value, self.context, self.held)
        return self._log_prob((u - self.loc) * (-self.log_scale).exp(), log_det)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        u = self.loc + self.log_scale.exp() * eps
        z, log_det = self.flow.bend(u, self.context, self.held)
        self._last = z, _version(z), self._log_prob(eps, log_det)
        return z

    @property
    def mean(self) -> Tensor:
        """E z [..., L], nearly: over 64 normal draws and their negatives, the same for every law.

        So laws that are equal have equal means, and `vaelib.evaluate.active_units` counts no noise.
        """
        eps = torch.randn(64, self.flow.latent_dim, generator=torch.Generator().manual_seed(0))
        eps = torch.cat([eps, -eps]).to(self.loc)
        eps = eps.view(len(eps), *[1] * len(self.batch_shape), -1)
        u = self.loc + self.log_scale.exp() * eps
        return self.flow.bend(u, self.context, self.held)[0].mean(0)

    def stopped(self) -> "BentNormal":
        """The same law, its parameters held still: log_prob has the gradient of z alone."""
        context = None if self.context is None else self.context.detach()
        return BentNormal(self.flow, self.loc.detach(), self.log_scale.detach(), context, held=True)

    def _log_prob(self, eps: Tensor, log_det: Tensor) -> Tensor:
        return _log_normal(eps) - self.log_scale.sum(-1) - log_det


def _affine(net: nn.Module, x: Tensor, context: Tensor | None, held: bool) -> tuple[Tensor, Tensor]:
    """Log-scale, in [-2, 2], and shift."""
    inputs = (x,) if context is None else (x, context)
    log_scale, shift = call(net, *inputs, held=held).chunk(2, -1)
    return 2 * torch.tanh(log_scale / 2), shift


def _starting_at_zero(net: nn.Sequential, context_dim: int) -> nn.Module:
    """The network, its output 0 at first; with a context, if there is one."""
    nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(net[-1].bias)  # type: ignore[arg-type]
    return WithContext(net, context_dim) if context_dim else net


def _check_sizes(flow: nn.Module, latent_dim: int, context_dim: int, why: str) -> None:
    if latent_dim < 2 or context_dim < 0:
        raise ValueError(
            f"{type(flow).__name__} got latent_dim={latent_dim} and context_dim={context_dim}; "
            f"expected at least 2 latents, {why}, and no negative size."
        )


def _version(t: Tensor) -> int:
    """How often a tensor was changed in place, where torch counts that and compiles it."""
    return 0 if torch.compiler.is_compiling() or t.is_inference() else t._version


def _log_normal(u: Tensor) -> Tensor:
    """Log-density of the standard normal, [..., L] -> [...]."""
    return -0.5 * (u.square().sum(-1) + u.shape[-1] * math.log(2 * math.pi))


__all__ = ["AutoregressiveLayers", "CouplingLayers"]
