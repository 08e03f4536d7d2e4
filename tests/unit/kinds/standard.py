"""Kinds that `vaelib.VAE` makes of parts: a linear encoder and decoder, and a posterior or prior.

`flat` is probabilistic PCA; `heavy` has a Laplace posterior, `full_covariance` a whole normal.
"""

import math
from dataclasses import dataclass

import torch
from oracles import Ppca
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import vaelib
from kinds.gaussians import F64, SX, Joint, fixed, full


def flat() -> vaelib.VAE:
    return Ppca(sigma=SX).vae()


def flat_joint(model) -> Joint:
    """Of z and x, for a linear decoder of one layer."""
    decoder, prior = model.decoder, model.pz()
    cov = getattr(prior, "covariance_matrix", None)
    cov = torch.eye(model.latent_dim, dtype=F64) if cov is None else cov
    noise = SX**2 * torch.eye(decoder.out_features, dtype=F64)
    return Joint(prior.mean, cov).then(decoder.weight, decoder.bias, noise)


def flat_log_px(model, x, y=None):
    joint = flat_joint(model)
    return joint.marginal(slice(model.latent_dim, len(joint.mean))).log_prob(x)


def flat_posterior(model):
    joint = flat_joint(model)
    return joint.given(slice(0, model.latent_dim), slice(model.latent_dim, len(joint.mean)))


@torch.no_grad()
def flat_solve(model):
    weight, bias, cov = flat_posterior(model)
    L = model.latent_dim
    model.encoder.weight.zero_()
    model.encoder.weight[:L] = weight
    model.encoder.bias.copy_(torch.cat([bias, cov.diagonal().log()]))


@torch.no_grad()
def flat_wrong(model, x, y=None):
    L = model.latent_dim
    model.encoder.bias[:L] += 0.4
    return (0.5 * 0.4**2 / model.encoder.bias[L:].exp()).sum().expand(len(x))


def heavy() -> vaelib.VAE:
    """A Laplace posterior and a prior whose dimensions depend on each other."""
    root = fixed(3, 3)
    prior = full(torch.zeros(3, dtype=F64), root @ root.T + 0.5 * torch.eye(3, dtype=F64))
    encoder, decoder = nn.Linear(5, 6, dtype=F64), nn.Linear(3, 5, dtype=F64)
    likelihood, q = vaelib.gaussian(SX), vaelib.posteriors.laplace
    model = vaelib.VAE(encoder, decoder, 3, likelihood, prior, posterior=q)
    with torch.no_grad():
        decoder.weight.copy_(fixed(5, 3, seed=2))
    return model


@torch.no_grad()
def heavy_near(model):
    """The exact means, and the deviations that the exact posterior's dimensions have."""
    weight, bias, cov = flat_posterior(model)
    model.encoder.weight.zero_()
    model.encoder.weight[:3] = weight
    model.encoder.bias.copy_(torch.cat([bias, 0.5 * (cov.diagonal() / 2).log()]))


@torch.no_grad()
def heavy_wrong(model, x, y=None):
    """KL of a Laplace from the exact posterior: -(1 + log 2b) and a mean of squares."""
    weight, bias, cov = flat_posterior(model)
    loc, log_scale = model.encoder(x).chunk(2, -1)
    spread = torch.linalg.inv(cov).diagonal() * 2 * (2 * log_scale).exp()
    at_loc = full(x @ weight.T + bias, cov).log_prob(loc)
    return -(1 + math.log(2) + log_scale).sum(-1) - (at_loc - 0.5 * spread.sum(-1))


@dataclass(frozen=True)
class WholeCovariance:
    """A normal with all its covariances: L means, L log-deviations, and what is below them."""

    def num_parameters(self, latent_dim: int) -> int:
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def __call__(self, parameters: Tensor) -> MultivariateNormal:
        L = next(n for n in range(1, 99) if self.num_parameters(n) == parameters.shape[-1])
        loc, log_diagonal, below = parameters.split((L, L, parameters.shape[-1] - 2 * L), -1)
        scale_tril = torch.diag_embed(log_diagonal.exp())
        rows, columns = torch.tril_indices(L, L, -1)
        flat = torch.zeros_like(scale_tril)
        flat[..., rows, columns] = below
        return MultivariateNormal(loc, scale_tril=scale_tril + flat, validate_args=False)


def full_covariance() -> vaelib.VAE:
    posterior = WholeCovariance()
    encoder = nn.Linear(5, posterior.num_parameters(3), dtype=F64)
    decoder = nn.Linear(3, 5, dtype=F64)
    with torch.no_grad():
        decoder.weight.copy_(fixed(5, 3, seed=2))
    return vaelib.VAE(encoder, decoder, 3, vaelib.gaussian(SX), posterior=posterior)


@torch.no_grad()
def full_solve(model):
    weight, bias, cov = flat_posterior(model)
    scale_tril = torch.linalg.cholesky(cov)
    rows, columns = torch.tril_indices(3, 3, -1)
    model.encoder.weight.zero_()
    model.encoder.weight[:3] = weight
    spread = torch.cat([scale_tril.diagonal().log(), scale_tril[rows, columns]])
    model.encoder.bias.copy_(torch.cat([bias, spread]))


@torch.no_grad()
def full_wrong(model, x, y=None):
    model.encoder.bias[:3] += 0.3
    delta = torch.full((3,), 0.3, dtype=F64)
    _, _, cov = flat_posterior(model)
    return (0.5 * delta @ torch.linalg.solve(cov, delta)).expand(len(x))
