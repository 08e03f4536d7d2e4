"""Quantizers: the nearest of a few codes, and a gradient all the same.

Each is called with z [B, ..., D], whose last axis is what is quantized, and returns a `Quantized`:
a vector to decode, its number, and how far z was from it. Introduced in
book/models/13_discrete_codes.ipynb.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from .arrays import some_of

Through = Callable[[Tensor, Tensor], Tensor]


class Quantized(NamedTuple):
    """What a quantizer returns.

    Attributes:
        vector: [B, ..., D], what is decoded, with a gradient for z.
        code: [B, ...], int64, which of the codes it is; a residual quantizer's has one more axis.
        commitment: [B], the squared distance from z to its codes, summed over the example.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import FSQ
        >>> FSQ((8, 8, 8))(torch.zeros(2, 7, 7, 3)).code.shape
        torch.Size([2, 7, 7])
    """

    vector: Tensor
    code: Tensor
    commitment: Tensor


# Two ways to send a gradient past an argmin ------------------------------------------------------


def straight_through(z: Tensor, vector: Tensor) -> Tensor:
    """vector, to the last bit, with the gradient of z.

    (Bengio et al., 2013, https://arxiv.org/abs/1308.3432.)

    Args:
        z: [..., D], what was quantized.
        vector: [..., D], what it became.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import straight_through
        >>> z = torch.tensor([0.4], requires_grad=True)
        >>> straight_through(z, z.round()).backward()
        >>> z.grad
        tensor([1.])
    """
    return vector.detach() + (z - z.detach())  # z + (vector - z) would round


def rotated(z: Tensor, vector: Tensor) -> Tensor:
    """vector, with the gradient of z turned and scaled until it lies there.

    The turn and the scale count as constants: a gradient comes back turned by the angle from vector
    to z, times the length of vector over that of z (Fifty et al., ICLR 2025,
    https://arxiv.org/abs/2410.06424, Section 4). It grows without bound as z nears the origin.

    Args:
        z: [..., D], what was quantized.
        vector: [..., D], what it became.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import rotated
        >>> z = torch.tensor([[2.0, 0.0]], requires_grad=True)
        >>> rotated(z, torch.tensor([[0.0, 1.0]]))[0, 1].backward()  # along the vector
        >>> z.grad.round(decimals=4)  # along z, and half as long
        tensor([[0.5000, 0.0000]])
    """
    length = z.norm(dim=-1, keepdim=True).detach().clamp(min=1e-6)
    a = z.detach() / length
    b = F.normalize(vector.detach(), dim=-1, eps=1e-6)
    middle = F.normalize(a + b, dim=-1, eps=1e-6)

    def along(direction: Tensor) -> Tensor:
        return (z * direction).sum(-1, keepdim=True)

    turned = z - 2 * along(middle) * middle + 2 * along(a) * b
    moved = turned * vector.detach().norm(dim=-1, keepdim=True) / length
    return vector.detach() + (moved - moved.detach())


# Vector quantization -----------------------------------------------------------------------------


class VectorQuantizer(nn.Module):
    """The nearest of V codes, which follow the vectors that choose them.

    VQ-VAE (van den Oord et al., NeurIPS 2017, https://arxiv.org/abs/1711.00937, Appendix A.1): a
    code is a moving average of the vectors that chose it, total / count. Codes move in training
    mode alone, and only where z carries a gradient: a frozen encoder keeps its codebook. Under
    torch.distributed, the processes of a run add up their counts.

    Args:
        codebook_size: V.
        dim: D.
        decay: of the moving averages, a step.
        restart: codes below this share of an even share of the vectors begin anew, at a vector of
            the batch, with the weight of an average code: with less they would be dead again after
            the next batch. 0: never.
        through: how the gradient passes, `straight_through` or `rotated`.

    Attributes:
        codebook: [V, D].
        count: [V], how many vectors a step choose each code, averaged.
        total: [V, D], the sum of those vectors, averaged.

    Raises:
        ValueError: for sizes, a decay or a share that cannot be.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import VectorQuantizer
        >>> quantizer = VectorQuantizer(codebook_size=512, dim=8)
        >>> z = torch.randn(2, 7, 7, 8)
        >>> quantizer.start_at(z)
        >>> found = quantizer(z)
        >>> found.vector.shape, found.code.shape, found.commitment.shape
        (torch.Size([2, 7, 7, 8]), torch.Size([2, 7, 7]), torch.Size([2]))
    """

    codebook: Tensor
    count: Tensor
    total: Tensor

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        decay: float = 0.99,
        restart: float = 0.0,
        through: Through = straight_through,
    ) -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1 or not 0 <= decay < 1 or not 0 <= restart < 1:
            raise ValueError(
                f"VectorQuantizer got codebook_size={codebook_size}, dim={dim}, decay={decay} and "
                f"restart={restart}; expected sizes of at least 1, and shares from 0 to below 1."
            )
        self.codebook_size, self.dim = codebook_size, dim
        self.decay, self.restart, self.through = decay, restart, through
        self.register_buffer("codebook", torch.empty(codebook_size, dim))
        self.register_buffer("total", torch.empty(codebook_size, dim))
        self.register_buffer("count", torch.empty(codebook_size))
        self.place(torch.randn(codebook_size, dim))

    @torch.no_grad()
    def place(self, codebook: Tensor) -> None:
        """Put the codes there, each with the weight of one vector.

        code = total / count must hold from the start: with a count of 0, a code that the first
        batch leaves out would be thrown far away.

        Args:
            codebook: [V, D].
        """
        self.codebook.copy_(codebook)
        self.total.copy_(codebook)
        self.count.fill_(1.0)

    def start_at(self, z: Tensor) -> None:
        """Put the codes on vectors of z [..., D], chosen at random."""
        self.place(some_of(z.flatten(0, -2), self.codebook_size))

    def nearest(self, z: Tensor) -> Tensor:
        """Which code is nearest to each vector: z [..., D] -> int64 [...].

        By half the squared distance, less half of z squared, which all codes have in common.

        Raises:
            ValueError: for vectors of another size.
        """
        if z.shape[-1] != self.dim:
            raise ValueError(
                f"z has shape {list(z.shape)}; expected [..., {self.dim}], with what is quantized "
                "in the last axis: move the channels there."
            )
        half = self.codebook.square().sum(-1) / 2
        return (half - z @ self.codebook.T).argmin(-1)

    def vectors(self, code: Tensor) -> Tensor:
        """The vectors of these codes, int64 [...] -> [..., D]."""
        return self.codebook[code]

    def forward(self, z: Tensor) -> Quantized:
        with torch.no_grad():
            code = self.nearest(z)
            vector = self.vectors(code)
            if self.training and z.requires_grad:
                self._follow(z.flatten(0, -2), code.flatten())
        commitment = (z - vector).square().flatten(1).sum(1)
        return Quantized(self.through(z, vector), code, commitment)

    def _follow(self, z: Tensor, code: Tensor) -> None:
        """Move the averages of total and count, and the codes with them."""
        count = torch.zeros_like(self.count)
        count.index_add_(0, code, torch.ones_like(z[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, code, z)
        self.count.lerp_(_summed(count), 1 - self.decay)
        self.total.lerp_(_summed(total), 1 - self.decay)
        known = (self.count > 1e-5).unsqueeze(1)  # else 0 / 0: let it stay
        mean = self.total / self.count.clamp(min=1e-5).unsqueeze(1)
        self.codebook.copy_(torch.where(known, mean, self.codebook))
        if self.restart:
            self._restart(z)

    def _restart(self, z: Tensor) -> None:
        """No branch asks a tensor: one that skipped the broadcast would leave others waiting."""
        fair = self.count.mean()
        dead = self.count < self.restart * fair
        found = some_of(z, self.codebook_size)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(found, src=0)
        rows = dead.unsqueeze(1)
        self.codebook.copy_(torch.where(rows, found, self.codebook))
        self.total.copy_(torch.where(rows, fair * found, self.total))
        self.count.copy_(torch.where(dead, fair, self.count))


def _summed(t: Tensor) -> Tensor:
    """The sum over the processes of a run, which share a batch."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(t)
    return t


class ResidualQuantizer(nn.Module):
    """Vector quantizers in a row, each of what the ones before it left over.

    (SoundStream, Zeghidour et al., 2021, https://arxiv.org/abs/2107.03312, Algorithm 1.) Its codes
    have one more axis, [B, ..., levels]; the first levels hold the coarse part. The gradient passes
    once, for the sum: each level's own would count once a level.

    Args:
        parts: the quantizers, of one codebook size and dimension.
        through: how the gradient passes; that of the parts is not used.

    Raises:
        ValueError: for no parts, or parts of different sizes.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import ResidualQuantizer, VectorQuantizer
        >>> quantizer = ResidualQuantizer([VectorQuantizer(64, 8) for _ in range(4)])
        >>> code = quantizer(torch.randn(2, 7, 7, 8)).code
        >>> code.shape
        torch.Size([2, 7, 7, 4])
        >>> coarse = quantizer.vectors(code[..., :1])
    """

    parts: Any  # an nn.ModuleList of them

    def __init__(self, parts: Sequence[VectorQuantizer], through: Through = straight_through):
        super().__init__()
        sizes = {(part.codebook_size, part.dim) for part in parts}
        if len(sizes) != 1:
            raise ValueError(
                f"ResidualQuantizer got parts of (codebook_size, dim) {sorted(sizes)}; expected at "
                "least one part, and one size of all."
            )
        self.parts, self.through = nn.ModuleList(parts), through
        ((self.codebook_size, self.dim),) = sizes

    def start_at(self, z: Tensor) -> None:
        """Put each part's codes on vectors of z [..., D], less what the parts before it took."""
        for part in self.parts:
            part.start_at(z)
            z = z - part.vectors(part.nearest(z))

    def vectors(self, code: Tensor) -> Tensor:
        """The sum of the first levels' vectors, of as many as code has: [..., l] -> [..., D]."""
        levels = zip(self.parts, code.unbind(-1), strict=False)
        return torch.stack([part.vectors(its) for part, its in levels]).sum(0)

    def forward(self, z: Tensor) -> Quantized:
        rest, codes = z, []
        vector, commitment = torch.zeros_like(z), z.new_zeros(len(z))
        for part in self.parts:
            found = part(rest)
            rest = rest - found.vector.detach()
            vector = vector + found.vector.detach()
            codes.append(found.code)
            commitment = commitment + found.commitment
        return Quantized(self.through(z, vector), torch.stack(codes, -1), commitment)


class FSQ(nn.Module):
    """Finite scalar quantization: each of D channels rounded to a few levels.

    (Mentzer et al., ICLR 2024, https://arxiv.org/abs/2309.15505.) Levels such as (8, 8, 8) make 512
    codes, with no codebook to learn, to commit to, or to collapse.

    Args:
        levels: of each channel, at least 2.

    Attributes:
        codebook_size: V, the product of the levels.

    Raises:
        ValueError: for no levels, or fewer than 2.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import FSQ
        >>> quantizer = FSQ((8, 5))
        >>> quantizer.codebook_size, quantizer(torch.randn(3, 2)).code.shape
        (40, torch.Size([3]))
    """

    levels: Tensor
    place: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(
                f"FSQ got levels {tuple(levels)}; expected one or more, of at least 2."
            )
        place = torch.tensor([1, *levels[:-1]]).cumprod(0)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.codebook_size, self.dim = math.prod(levels), len(levels)

    def bound(self, z: Tensor) -> Tensor:
        """Squeeze z [..., D] into what rounds to its levels: of 8, to -4 ... 3."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = (self.levels % 2 == 0) / 2
        # z = 0 goes to 0; with two levels that would be the flat end of tanh: to between them.
        shift = torch.atanh(torch.where(self.levels > 2, offset / half, 0.0))
        return torch.tanh(z + shift) * half - offset

    def vectors(self, code: Tensor) -> Tensor:
        """The vectors of these codes, int64 [...] -> [..., D], from -1 to 1."""
        number = code.unsqueeze(-1) // self.place % self.levels
        return (number - self.levels // 2) / (self.levels // 2)

    def forward(self, z: Tensor) -> Quantized:
        if z.shape[-1] != self.dim:
            raise ValueError(
                f"z has shape {list(z.shape)}; expected [..., {self.dim}], with what is rounded in "
                "the last axis: move the channels there."
            )
        bounded, middle = self.bound(z), self.levels // 2
        number = (bounded.round() + middle).long()
        code = (number * self.place).sum(-1)
        vector = straight_through(bounded / middle, self.vectors(code).to(z.dtype))
        return Quantized(vector, code, z.new_zeros(len(z)))


# How many codes are in use -----------------------------------------------------------------------


def usage(code: Tensor, codebook_size: int) -> Tensor:
    """How often each code is chosen: int64 [...] -> float64 [V].

    Example:
        >>> import torch
        >>> from vaelib.quantizers import usage
        >>> usage(torch.tensor([[0, 2], [2, 2]]), 4)
        tensor([1., 0., 3., 0.], dtype=torch.float64)
    """
    return code.flatten().bincount(minlength=codebook_size).double()


def perplexity(count: Tensor) -> Tensor:
    """e to the entropy of the codes' shares: as many codes, used evenly, have that entropy.

    It depends on how many were counted: few vectors show few codes, see
    `perplexity_of_fair_codes`. Add up the counts of a whole data set, not perplexities of batches.

    Args:
        count: [V], or of any shape, as `usage` gives it.

    Example:
        >>> import torch
        >>> from vaelib.quantizers import perplexity
        >>> round(perplexity(torch.tensor([5, 5, 0, 5])).item(), 4)
        3.0
    """
    return torch.special.entr(count / count.sum()).sum().exp()


def perplexity_of_fair_codes(codebook_size: int, n: int) -> float:
    """e to the expected entropy of n codes' shares, where all codes are equally likely.

    What n vectors show of a codebook in full use. Each count is binomial, and V E[-s log s] is a
    sum over its n + 1 values. For large n the entropy falls short of log V by (V - 1) / 2n (Miller,
    1955).

    Args:
        codebook_size: V.
        n: how many codes are counted.

    Example:
        >>> from vaelib.quantizers import perplexity_of_fair_codes
        >>> round(perplexity_of_fair_codes(512, 49))
        46
    """
    k = torch.arange(n + 1, dtype=torch.float64)
    log_ways = math.lgamma(n + 1) - (k + 1).lgamma() - (n - k + 1).lgamma()
    p = 1 / codebook_size
    log_chance = log_ways + k * math.log(p) + (n - k) * math.log1p(-p)
    entropy = (log_chance.exp() * torch.special.entr(k / n)).sum().item()
    return math.exp(codebook_size * entropy)


__all__ = [
    "FSQ",
    "Quantized",
    "ResidualQuantizer",
    "VectorQuantizer",
    "perplexity",
    "perplexity_of_fair_codes",
    "rotated",
    "straight_through",
    "usage",
]
