"""Small VAEs and images for them, for tests of `fit`: a run takes a fraction of a second."""

import torch

import vaelib


def small(seed=0, **keywords):
    """Over 4 x 4 pixels."""
    torch.manual_seed(seed)
    return vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4), **keywords)


def table_vae(dim=6, **keywords):
    """Over the columns of a table."""
    torch.manual_seed(0)
    return vaelib.mlp_vae(2, (8,), x_shape=(dim,), likelihood=vaelib.gaussian(0.5), **keywords)


def grey(n=40):
    """n images of 4 x 4 uint8 pixels."""
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(n, 1, 4, 4, generator=generator) * 256).to(torch.uint8)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Cut(Exception):
    """What ends a run in a test: the power goes."""
