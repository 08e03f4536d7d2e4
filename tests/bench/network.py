"""What every contender trains, and on what: a case's network, images and order; Adam's step."""

import math
from pathlib import Path

import torch
from torch import nn

import vaelib
from vaelib.data import mnist

ROOT = Path(__file__).resolve().parents[2]
LATENT_DIM = 20


def build(case):
    """The network of a case, as a vaelib.VAE; contenders other than fit use its two modules."""
    torch.manual_seed(0)
    shape = (1, 28, 28) if case["images"] == "mnist" else (3, 32, 32)
    if case["net"] == "mlp":
        return vaelib.mlp_vae(LATENT_DIM, (400,), x_shape=shape)
    channels, side = shape[0], shape[1] // 4
    encoder = nn.Sequential(
        nn.Conv2d(channels, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * side * side, 2 * LATENT_DIM),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT_DIM, 64 * side * side),
        nn.ReLU(),
        nn.Unflatten(1, (64, side, side)),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1),
    )
    return vaelib.VAE(encoder, decoder, LATENT_DIM, x_shape=shape)


def images(case):
    """uint8 [N, C, H, W]: MNIST's first N, or noise of CIFAR-10's shape (for speed alone)."""
    n = case["examples"]
    if case["images"] == "mnist":
        return mnist()[0].x[:n]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


class Orders:
    """A batch sampler with the order of the examples that `fit` draws from seed 0."""

    def __init__(self, n, batch_size):
        self.n, self.batch_size = n, batch_size
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self):
        order = torch.randperm(self.n, generator=self.generator)
        return iter([index.tolist() for index in order.split(self.batch_size)])

    def __len__(self):
        return math.ceil(self.n / self.batch_size)


def adam(parameters, gradients, means, squares, steps, lr=1e-3):
    """torch's fused step, in place."""
    torch._fused_adam_(
        parameters,
        gradients,
        means,
        squares,
        [],
        steps,
        lr=lr,
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.0,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
