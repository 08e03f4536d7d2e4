"""`check_model` finds faults of generate: shapes, likelihoods, latents, orders other than infer's.

A planted fault is a model that is right but for one line.
"""

import pytest
import torch
from breakable import Flat, TwoLayers, a_fault_each, check, normal
from torch import nn
from torch.distributions import Independent, Laplace

import vaelib


class GeneratesOtherShape(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return normal(px_z.mean[:, :4], 0.5), z


class GeneratesOneLess(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return normal(px_z.mean.unsqueeze(0), 0.5), z


class GeneratesOtherLikelihood(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return Independent(Laplace(px_z.mean, 0.5), 1), z


class GeneratesNothing(Flat):
    generate = vaelib.VAE.generate


class GeneratesOtherLatents(Flat):
    def generate(self, n, y=None):
        px_z, z = super().generate(n)
        return px_z, z.round().long()


class GeneratesInOtherOrder(TwoLayers):
    def generate(self, n, y=None):
        px_z, z2, z1 = super().generate(n)
        return px_z, z1, z2


class GeneratesOfOtherPrior(Flat):
    def pz(self):
        return normal(torch.ones(2), torch.ones(2))


FAULTS = [
    (GeneratesOtherShape, r"batch shape \[1000\] and event shape \[4\]; expected \[1000\] and \[5"),
    (GeneratesOneLess, r"batch shape \[1, 1000\] and event shape \[5\]; expected \[1000\]"),
    (GeneratesOtherLikelihood, "generate gave a p.* that is a Laplace, and infer a Normal"),
    (GeneratesNothing, "generate.1000. failed: GeneratesNothing writes no generate"),
    (GeneratesOtherLatents, r"kinds \['int64'\]; expected .* and \['float32'\], in infer's order"),
    (GeneratesInOtherOrder, "latent 0 does not follow the p of infer's latent 0: .* infer's order"),
    (GeneratesOfOtherPrior, "latent 0 does not follow the p of infer's latent 0"),
]


@a_fault_each(FAULTS)
def test_a_broken_promise_is_found(build, says):
    with pytest.raises(ValueError, match=says):
        check(build)


def test_all_that_is_broken_is_said_a_sentence_a_line():
    class Both(GeneratesOtherLikelihood):
        """And a layer that nothing uses."""

        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 3)

    with pytest.raises(ValueError) as error:
        check(Both)
    assert len(str(error.value).splitlines()) == 2
