"""`check_model` finds faults that training or use would meet: gradients, other examples, state.

Noise from outside, randomness that torch's seed does not hold, and files are here, too. A planted
fault is a model that is right but for one line.
"""

import random

import numpy as np
import pytest
import torch
from breakable import Flat, a_fault_each, check, normal
from torch import nn

from vaelib import Draw


class Detached(Flat):
    def q(self, x):
        loc, log_scale = self.enc(x).detach().chunk(2, -1)
        return normal(loc, log_scale.exp())


class Unused(Flat):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)


class InfiniteGradient(Flat):
    def px_z(self, z):
        return normal(self.dec(z) + (z[..., :1] * 0).sqrt(), 0.5)


class BatchStatistics(Flat):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5, track_running_stats=False, affine=False)

    def q(self, x):
        return super().q(self.norm(x))


class LeakInDecoder(Flat):
    def px_z(self, z):
        return normal(self.dec(z) + z.mean(-2, keepdim=True).mean(-1, keepdim=True), 0.5)


class Counter(Flat):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def q(self, x):
        self.seen += len(x)
        return super().q(x)


class DrawsByNumPy(Flat):
    noise_dim = None

    def z(self, q, num_samples, noise):
        noise = np.random.standard_normal((num_samples, *q.mean.shape)).astype("f")  # noqa: NPY002
        return q.mean + q.stddev * torch.from_numpy(noise)


class DrawsByPython(DrawsByNumPy):
    def z(self, q, num_samples, noise):
        generator = torch.Generator().manual_seed(random.getrandbits(32))
        noise = torch.randn((num_samples, *q.mean.shape), generator=generator)
        return q.mean + q.stddev * noise


class NoiseIgnored(Flat):
    def z(self, q, num_samples, noise):
        return q.rsample((num_samples if noise is None else len(noise),))


class NoiseInPart(Flat):
    def z(self, q, num_samples, noise):
        z = super().z(q, num_samples, noise)
        first = torch.arange(2) == 0
        return torch.where(first, z, super().z(q, num_samples, None))


class NoiseUnasked(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat = Flat()

    def forward(self, x, num_samples=1, noise=None):
        return Draw.of(x, *self.flat.infer(x, num_samples, noise))


class PlainTensor(Flat):
    def __init__(self):
        super().__init__()
        self.shift = torch.randn(5)

    def px_z(self, z):
        return normal(self.dec(z) + self.shift, 0.5)


class LostState(Flat):
    """A number that training moves, and that no file keeps."""

    scale = 0.5

    def px_z(self, z):
        if self.training:
            self.scale *= 0.9
        return normal(self.dec(z), self.scale)


FAULTS = [
    (Detached, "no gradient reached the model's enc.weight, the model's enc.bias; expected"),
    (Unused, "no gradient reached the model's spare.weight, the model's spare.bias; expected"),
    (InfiniteGradient, "gradient of .*enc.weight.* is NaN or infinite in step 0"),
    (BatchStatistics, r"q of latent 0 \(Normal\) of an example changed with the other examples"),
    (LeakInDecoder, "log_px_z of an example changed with the other examples"),
    (Counter, "In eval mode a draw moved seen; expected state to stay"),
    (DrawsByNumPy, "Two draws from the same seed differ; .* torch's generator alone"),
    (DrawsByPython, "Two draws from the same seed differ; .* torch's generator alone"),
    (NoiseIgnored, "Other noise gave the same z, though noise_dim is 2|another seed gave another"),
    (NoiseInPart, "The same noise under another seed gave another z"),
    (NoiseUnasked, "took noise, but its noise_dim is None"),
    (PlainTensor, "shift is a tensor, but no parameter and no buffer, .*register_buffer"),
    (LostState, "After save and load.* the model draws otherwise: training moved something"),
]


@a_fault_each(FAULTS)
def test_a_broken_promise_is_found(build, says):
    with pytest.raises(ValueError, match=says):
        check(build)
