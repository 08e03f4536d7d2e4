"""Models with known answers, written without vaelib's own formulas."""

import math

import torch
from torch import nn
from torch.distributions import MultivariateNormal

import vaelib


class Ppca:
    """Probabilistic PCA, x = W z + mu + sigma eps (Tipping & Bishop, JRSS B 1999), in float64.

    The columns of W are orthogonal, so that the exact posterior has a diagonal covariance.
    """

    def __init__(self, num_pixels=5, latent_dim=2, sigma=0.7, seed=0):
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(num_pixels, num_pixels, generator=generator, dtype=torch.float64)
        lengths = torch.linspace(2.0, 0.5, latent_dim, dtype=torch.float64)
        self.W = torch.linalg.qr(square).Q[:, :latent_dim] * lengths
        self.mu = torch.randn(num_pixels, generator=generator, dtype=torch.float64)
        self.sigma = sigma
        self.latent_dim = latent_dim

    def evidence(self):
        """p(x)."""
        eye = torch.eye(len(self.mu), dtype=torch.float64)
        return MultivariateNormal(self.mu, self.W @ self.W.T + self.sigma**2 * eye)

    def posterior(self, x):
        """p(z|x), by conditioning the joint Gaussian of (z, x)."""
        cov_zx = self.W.T
        gain = cov_zx @ torch.linalg.inv(self.evidence().covariance_matrix)
        mean = (x - self.mu) @ gain.T
        cov = torch.eye(self.latent_dim, dtype=torch.float64) - gain @ self.W
        return MultivariateNormal(mean, cov)

    def sample(self, n, seed=1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.evidence().sample((n,))

    def vae(self, stretch=1.0, shift=0.0):
        """The same model as a VAE; q is the exact posterior, or wrong by stretch and shift."""
        posterior = self.posterior(torch.zeros_like(self.mu))
        gain = self.posterior(torch.eye(len(self.mu), dtype=torch.float64)).mean - posterior.mean
        sigma = posterior.covariance_matrix.diagonal().sqrt() * stretch
        encoder = nn.Linear(len(self.mu), 2 * self.latent_dim, dtype=torch.float64)
        decoder = nn.Linear(self.latent_dim, len(self.mu), dtype=torch.float64)
        with torch.no_grad():
            encoder.weight.zero_()
            encoder.weight[: self.latent_dim] = gain.T
            encoder.bias[: self.latent_dim] = posterior.mean + shift
            encoder.bias[self.latent_dim :] = 2 * sigma.log()
            decoder.weight.copy_(self.W)
            decoder.bias.copy_(self.mu)
        return vaelib.VAE(encoder, decoder, self.latent_dim, likelihood=vaelib.gaussian(self.sigma))


def grid_2d(half_width=9.0, points=601):
    """A grid of z [points^2, 2] and the log of a cell's area, for quadrature in two dimensions."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    return z, 2 * math.log((axis[1] - axis[0]).item())
