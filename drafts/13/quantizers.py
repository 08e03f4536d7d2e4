"""Quantizers: the nearest of a few codes, and a gradient all the same.

Each is called with z [B, ..., D], whose last axis is what is quantized, and
returns a `Quantized`. The file is cut as a chapter's cells are.
"""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

# %% What every quantizer returns


class Quantized(NamedTuple):
    """vector [B, ..., D], to decode; code [B, ...], int64; commitment [B].

    The commitment is a squared distance, summed over the example: how far
    the encoder's outputs lie from the codes that they were given.
    """

    vector: Tensor
    code: Tensor
    commitment: Tensor


# %% Two ways to send a gradient past an argmin


def straight_through(z, vector):
    """vector, to the last bit, with the gradient of z."""
    return vector.detach() + (z - z.detach())  # z + (vector - z) rounds


def rotated(z, vector):
    """vector, with the gradient of z turned and scaled until it lies there.

    The turn and the scale count as constants: a gradient comes back turned
    by the angle from vector to z, times |vector| / |z| (Fifty et al., ICLR
    2025, https://arxiv.org/abs/2410.06424, Section 4).
    """
    length = z.norm(dim=-1, keepdim=True).detach().clamp(min=1e-6)
    a = z.detach() / length
    b = F.normalize(vector.detach(), dim=-1, eps=1e-6)
    middle = F.normalize(a + b, dim=-1, eps=1e-6)

    def along(direction):
        return (z * direction).sum(-1, keepdim=True)

    turned = z - 2 * along(middle) * middle + 2 * along(a) * b
    moved = turned * vector.detach().norm(dim=-1, keepdim=True) / length
    return vector.detach() + (moved - moved.detach())


# %% A codebook: V vectors, and the weight that each carries


class Codebook(nn.Module):
    def __init__(self, codebook_size, dim):
        super().__init__()
        self.codebook_size = codebook_size
        self.register_buffer("codebook", torch.empty(codebook_size, dim))
        self.register_buffer("total", torch.empty(codebook_size, dim))
        self.register_buffer("count", torch.empty(codebook_size))
        self.place(torch.randn(codebook_size, dim))

    @torch.no_grad()
    def place(self, codebook):
        """Put the codes there, each with the weight of one vector.

        code = total / count must hold from the start: with a count of 0
        a code that the first batch leaves out would be thrown far away.
        """
        self.codebook.copy_(codebook)
        self.total.copy_(codebook)
        self.count.fill_(1.0)

    def start_at(self, z):
        """Put them on some of the vectors z [..., D], chosen at random."""
        self.place(some_of(z, self.codebook_size))

    def nearest(self, z):
        """The least |z - code|^2 / 2, without what all codes share."""
        half = self.codebook.square().sum(-1) / 2
        return (half - z @ self.codebook.T).argmin(-1)

    def vectors(self, code):
        return self.codebook[code]


# %% Vectors of a batch, at random


def some_of(z, n):
    """n of the vectors z [..., D], each once if there are enough."""
    z = z.detach().flatten(0, -2)
    rounds = -(-n // len(z))
    shuffled = [torch.randperm(len(z), device=z.device)] * rounds
    return z[torch.cat(shuffled)[:n]]


# %% A run's processes share a batch


def summed(t):
    """The sum over the processes of a run: they share a batch."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(t)
    return t


# %% Vector quantization: codes follow the vectors that choose them


class VectorQuantizer(Codebook):
    """The nearest code (VQ-VAE, https://arxiv.org/abs/1711.00937)."""

    def __init__(
        self, codebook_size, dim, decay=0.99, through=straight_through
    ):
        super().__init__(codebook_size, dim)
        self.decay, self.through = decay, through

    def forward(self, z):
        with torch.no_grad():
            code = self.nearest(z)
            vector = self.vectors(code)
            # A frozen encoder keeps its codebook, in training mode, too.
            if self.training and z.requires_grad:
                self.follow(z.flatten(0, -2), code.flatten())
        commitment = (z - vector).square().flatten(1).sum(1)
        return Quantized(self.through(z, vector), code, commitment)

    def follow(self, z, code):
        """Move the averages of total and count, and the codes with them."""
        count = torch.zeros_like(self.count)
        count.index_add_(0, code, torch.ones_like(z[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, code, z)
        self.count.lerp_(summed(count), 1 - self.decay)
        self.total.lerp_(summed(total), 1 - self.decay)
        known = (self.count > 1e-5).unsqueeze(1)  # else 0 / 0: let it stay
        mean = self.total / self.count.clamp(min=1e-5).unsqueeze(1)
        self.codebook.copy_(torch.where(known, mean, self.codebook))


# %% The same with restarts


class RestartingQuantizer(VectorQuantizer):
    """Codes that hardly anyone chooses begin anew at a vector of the batch.

    A code is dead below `share` of a fair share of the vectors. It restarts
    with the weight of an average code: with less it would be dead again
    after the next batch. No branch asks a tensor, so that processes cannot
    part: in one of them alone the broadcast would wait forever.
    """

    def __init__(self, *args, share=0.1, **options):
        super().__init__(*args, **options)
        self.share = share

    def follow(self, z, code):
        super().follow(z, code)
        fair = self.count.mean()
        dead = self.count < self.share * fair
        found = some_of(z, self.codebook_size)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(found, src=0)  # the same in every process
        rows = dead.unsqueeze(1)
        self.codebook.copy_(torch.where(rows, found, self.codebook))
        self.total.copy_(torch.where(rows, fair * found, self.total))
        self.count.copy_(torch.where(dead, fair, self.count))


# %% Residual vector quantization


class ResidualQuantizer(nn.Module):
    """Quantizers in a row, each of what the ones before it left over.

    (SoundStream, https://arxiv.org/abs/2107.03312, Algorithm 1.) A code has
    one more axis, [B, ..., L]; its first places hold the coarse part.
    """

    def __init__(self, parts, through=straight_through):
        super().__init__()
        self.parts, self.through = nn.ModuleList(parts), through
        self.codebook_size = parts[0].codebook_size

    def start_at(self, z):
        for part in self.parts:
            part.start_at(z)
            z = z - part.vectors(part.nearest(z))

    def vectors(self, code):
        """The sum of the first levels' codes, as many as code has."""
        levels = zip(self.parts, code.unbind(-1))
        return sum(part.vectors(its) for part, its in levels)

    def forward(self, z):
        rest, vector, codes, commitment = z, 0, [], 0
        for part in self.parts:
            found = part(rest)
            rest = rest - found.vector.detach()
            vector = vector + found.vector.detach()
            codes.append(found.code)
            commitment = commitment + found.commitment
        # One gradient for the sum: each level's own would count L times.
        vector = self.through(z, vector)
        return Quantized(vector, torch.stack(codes, -1), commitment)


# %% Finite scalar quantization


class FSQ(nn.Module):
    """Each of D channels rounded to a few levels: no codebook to collapse.

    (Mentzer et al., ICLR 2024, https://arxiv.org/abs/2309.15505.) Levels
    such as (8, 8, 8) make 512 codes, with nothing to learn or commit to.
    """

    def __init__(self, levels):
        super().__init__()
        place = torch.tensor([1, *levels[:-1]]).cumprod(0)
        steps = torch.tensor(levels)
        self.register_buffer("levels", steps, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.codebook_size = math.prod(levels)

    def bound(self, z):
        """Squeeze z into what rounds to its levels: of 8, to -4 ... 3."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = (self.levels % 2 == 0) / 2
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def vectors(self, code):
        number = code.unsqueeze(-1) // self.place % self.levels
        return (number - self.levels // 2) / (self.levels // 2)

    def forward(self, z):
        bounded, middle = self.bound(z), self.levels // 2
        number = (bounded.round() + middle).long()
        code = (number * self.place).sum(-1)
        vector = self.vectors(code).to(z.dtype)
        vector = straight_through(bounded / middle, vector)
        return Quantized(vector, code, z.new_zeros(len(z)))


# %% How many codes are in use


def usage(code, codebook_size):
    """How often each code is chosen: [V], of code [...]."""
    return code.flatten().bincount(minlength=codebook_size).double()


def perplexity(count):
    """e to the entropy of the codes' shares; count [V]."""
    return torch.special.entr(count / count.sum()).sum().exp()


def perplexity_of_fair_codes(codebook_size, n):
    """e to the expected entropy of n codes' shares, all equally likely.

    What a batch shows of a codebook in full use: each count is binomial,
    and V E[-s log s] is a sum over its n + 1 values.
    """
    k = torch.arange(n + 1, dtype=torch.float64)
    log_ways = math.lgamma(n + 1) - (k + 1).lgamma() - (n - k + 1).lgamma()
    p = 1 / codebook_size
    log_chance = log_ways + k * math.log(p) + (n - k) * math.log1p(-p)
    entropy = (log_chance.exp() * torch.special.entr(k / n)).sum()
    return math.exp(codebook_size * entropy)
