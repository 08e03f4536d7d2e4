"""VAEs whose code can be counted, and their objective.

All keep the contract of `vaelib.VAE`: they write `infer` and `generate`.
"""

import math
from typing import ClassVar

import torch
import vaelib
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    OneHotCategorical,
)
from torch.nn import functional as F
from vaelib import Latent
from vaelib.nets import call
from vaelib.posteriors import as_event

from estimators import DRAWN

# %% A code that is one value


class Point(Distribution):
    """A single map of codes [B, ...], with probability 1.

    It keeps what training and probes read: how far the encoder's output
    lies from the code (commitment, [B]), and the code's vectors.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, found):
        self.code, self.commitment = found.code, found.commitment
        self.vector = found.vector
        shape = found.code.shape
        super().__init__(shape[:1], shape[1:], validate_args=False)

    def log_prob(self, value):
        differs = (value != self.code).flatten(2).any(-1)
        zero = self.commitment.new_zeros(differs.shape)
        return zero.masked_fill(differs, -math.inf)

    @property
    def mean(self):
        """The vectors: the codes' numbers have no order to be read in."""
        return self.vector


# %% Its simplest prior


class FairCodes(nn.Module):
    """All codes of a map equally likely: what a codebook costs at most."""

    def __init__(self, shape, codebook_size):
        super().__init__()
        logits = torch.zeros(*shape, codebook_size)
        self.register_buffer("logits", logits, persistent=False)

    def forward(self):
        codes = Categorical(logits=self.logits, validate_args=False)
        return as_event(codes, 0)


# %% A VAE with a map of codes


class QuantizedVAE(vaelib.VAE):
    """encoder: x -> [B, D, h, w]; decoder: the mirror; prior: of maps."""

    def __init__(self, encoder, quantizer, decoder, prior, **options):
        super().__init__(encoder, decoder, prior=prior, **options)
        self.quantizer = quantizer

    def quantize(self, x):
        """The codes of x, and all else that is `Quantized`."""
        return self.quantizer(call(self.encoder, x).movedim(1, -1))

    def px_z(self, vector, *leading):
        """p(x|z) of vectors [B, h, w, D], of batch shape [*leading, B]."""
        parameters = call(self.decoder, vector.movedim(-1, 1))
        wide = parameters.expand(*leading, *parameters.shape)
        return as_event(self.likelihood(wide), len(leading) + 1)

    def infer(self, x, num_samples=1, noise=None, y=None):
        found = self.quantize(x)
        code = found.code.expand(num_samples, *found.code.shape)
        latent = Latent(code, Point(found), self.prior(), point=True)
        return self.px_z(found.vector, num_samples), latent

    def generate(self, n, y=None):
        code = self.prior().sample((n,))
        return self.px_z(self.quantizer.vectors(code)), code


# %% Its objective


def committed(draw, weight=0.25):
    """The ELBO of one code, and the price of leaving the codes.

    The commitment is no part of the bound: without it nothing holds the
    encoder's outputs near the codes that stand for them.
    """
    price = draw.qz_x.commitment
    return {"elbo": vaelib.elbo(draw), "commitment": -weight * price}


# %% N variables of V values each


def codes_of(logits):
    """q or p of rows of logits [..., N, V], the N as one event."""
    rows = OneHotCategorical(logits=logits, validate_args=False)
    return Independent(rows, 1, validate_args=False)


def every_code(num_codes, codebook_size):
    """All values of z as one-hot rows, [V^N, 1, N, V]."""
    ways = [torch.arange(codebook_size)] * num_codes
    number = torch.cartesian_prod(*ways).view(-1, 1, num_codes)
    return F.one_hot(number, codebook_size)


# %% All of their values listed


class CategoricalVAE(vaelib.VAE):
    """encoder: x -> [B, N V], logits; decoder: [B, N V], one-hot -> x."""

    def __init__(
        self, encoder, decoder, num_codes, codebook_size, **options
    ):
        super().__init__(encoder, decoder, **options)
        self.shape = num_codes, codebook_size
        self.logits = nn.Parameter(torch.zeros(self.shape))

    def px_z(self, z):
        """p(x|z) of z [..., N, V]."""
        rows = z.flatten(-2)
        parameters = call(self.decoder, rows.flatten(0, -2))
        wide = parameters.unflatten(0, rows.shape[:-1])
        return as_event(self.likelihood(wide), rows.dim() - 1)

    def posterior_logits(self, x):
        return call(self.encoder, x).unflatten(-1, self.shape)

    def infer(self, x, num_samples=1, noise=None, y=None):
        q = codes_of(self.posterior_logits(x))
        z = every_code(*self.shape).to(self.logits)
        z = z.expand(-1, len(x), -1, -1)
        return self.px_z(z), Latent(z, q, codes_of(self.logits), len(z))

    def generate(self, n, y=None):
        z = codes_of(self.logits).sample((n,))
        return self.px_z(z), z


# %% The same, drawn


class DrawnVAE(CategoricalVAE):
    """As many codes as one likes; how: a name in `DRAWN`."""

    def __init__(self, *args, how, temperature=1.0, **options):
        super().__init__(*args, **options)
        self.how, self.temperature = how, temperature

    def infer(self, x, num_samples=1, noise=None, y=None):
        logits = self.posterior_logits(x)
        q, p = codes_of(logits), codes_of(self.logits)
        # In eval mode z is what q says, one-hot: a relaxed z is no code.
        draw = DRAWN[self.how if self.training else "plain"]
        wide = logits.expand(num_samples, *logits.shape)
        z = draw(wide, self.temperature)
        return self.px_z(z), Latent(z, q, p)


# %% Small ones, whose every answer is known


def oracle(seed, N=3, V=4, B=8, hidden=32, scale=0.8):
    """A listed VAE of bits [1, 8, 8] with random weights, and B examples.

    hidden: units of the decoder; 0 makes it linear, and log p(x|z) then
    nearly quadratic in z: a kind of problem that suits some estimators.
    """
    torch.manual_seed(seed)
    sizes = (N * V, hidden, 64) if hidden else (N * V, 64)
    mlp = vaelib.nets.mlp(sizes, "tanh")
    decoder = nn.Sequential(mlp, nn.Unflatten(1, (1, 8, 8)))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, N * V))
    model = CategoricalVAE(encoder, decoder, N, V).double()
    for p in model.decoder.parameters():
        nn.init.normal_(p, std=scale)
    for p in (*model.encoder.parameters(), model.logits):
        nn.init.normal_(p, std=0.3)
    return model, model.sample(B, mean=False)
