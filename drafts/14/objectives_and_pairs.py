"""Chapter 14, draft: objectives that ask for one trait a dimension, and the model of pairs."""

import math
from functools import partial

import torch
import vaelib
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F
from vaelib import Latent
from vaelib.nets import call, mlp
from vaelib.posteriors import as_event, reparameterized


# -- the weight of the KL, from strong to weak --------------------------------------------------
class falling:
    """A weight that falls geometrically from start to end in `steps`, then stays."""

    def __init__(self, start, end, steps):
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step):
        done = (step / self.steps).clamp(max=1)
        return self.start * (self.end / self.start) ** done


# -- total correlation, from a batch ------------------------------------------------------------
def log_q_pairs(draw):
    """log q(z_l | x_j) at each z of the batch: [B (z), B (x), L]."""
    q = draw.qz_x.base_dist
    return q.log_prob(draw.z[0][:, None])


def log_aggregate(log_q, N):
    """log q(z), from a batch of B of N: [B, B, ...] -> [B, ...].

    A z drawn from its own example's posterior: that one counts 1/N, and
    the B - 1 others stand for the N - 1 others. So q(z), not its log, is
    unbiased.
    """
    B = len(log_q)
    own = torch.eye(B, dtype=torch.bool, device=log_q.device)
    weight = torch.where(own, 1 / N, (N - 1) / (N * (B - 1))).log()
    weight = weight.view(B, B, *[1] * (log_q.dim() - 2))
    return (log_q + weight).logsumexp(1)


def total_correlation(draw, N):
    log_q = log_q_pairs(draw)
    joint = log_aggregate(log_q.sum(-1), N)  # [B]
    return joint - log_aggregate(log_q, N).sum(-1)


def tcvae(draw, N, beta):
    """beta-TCVAE: the ELBO, and beta - 1 times the total correlation."""
    return vaelib.elbo(draw) - (beta - 1) * total_correlation(draw, N)


# -- total correlation, by a critic -------------------------------------------------------------
class Factor(nn.Module):
    """FactorVAE: a critic tells codes from codes shuffled dimension by dimension."""

    def __init__(self, latent_dim, gamma, hidden=(256, 256)):
        super().__init__()
        self.net, self.gamma = mlp((latent_dim, *hidden, 1), "silu"), gamma

    def forward(self, draw):
        z = draw.z[0]
        order = torch.rand_like(z).argsort(0)
        shuffled = z.detach().gather(0, order)
        held = {k: v.detach() for k, v in self.net.named_parameters()}
        odds = torch.func.functional_call(self.net, held, (z,))[:, 0]
        judge = F.logsigmoid(self.net(z.detach())) + F.logsigmoid(-self.net(shuffled))
        return {"elbo": vaelib.elbo(draw), "tc": -self.gamma * odds, "judge": judge[:, 0]}


# -- moments -------------------------------------------------------------------------------------
def dip(draw, off, diagonal, kind):
    """DIP-VAE: the covariance of the codes, pulled to one."""
    mean, variance = draw.qz_x.mean, draw.qz_x.variance
    centred = mean - mean.mean(0)
    covariance = centred.T @ centred / len(mean)
    if kind == 2:
        covariance = covariance + torch.diag(variance.mean(0))
    gap = (covariance - torch.eye(len(covariance)).to(covariance)).square()
    own = gap.diagonal().sum()
    price = off * (gap.sum() - own) + diagonal * own
    return {"elbo": vaelib.elbo(draw), "dip": -price.expand(len(mean))}


# -- pairs ---------------------------------------------------------------------------------------
class Pairs(vaelib.VAE):
    """Two pictures of which some traits are the same: adaptive group-VAE (Locatello et al., 2020).

    x [B, 2, H, W]; z [K, B, 2, L]. `single` sees and dreams one picture.
    """

    def __init__(self, single):
        C, *size = single.x_shape
        super().__init__(latent_dim=single.latent_dim, x_shape=(2, *size))
        self.single = single

    def infer(self, x, num_samples=1, noise=None, y=None):
        one = call(self.single.encoder, x.flatten(0, 1).unsqueeze(1))
        mean, log_var = one.unflatten(0, (-1, 2)).chunk(2, -1)  # [B, 2, L]
        variance = log_var.exp()
        far = kl_divergence(*(Normal(m, v.sqrt()) for m, v in zip(mean.unbind(1), variance.unbind(1))))
        middle = (far.amax(1, True) + far.amin(1, True)) / 2
        shared = (far < middle).unsqueeze(1)  # [B, 1, L]
        mean = torch.where(shared, mean.mean(1, True), mean)
        variance = torch.where(shared, variance.mean(1, True), variance)
        q = Independent(Normal(mean, variance.sqrt(), validate_args=False), 2)
        z = reparameterized(q, num_samples, noise)
        return self.px_z(z), Latent(z, q, self.prior_of(mean))

    def prior_of(self, like):
        zero = torch.zeros_like(like[0])
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 2)

    def px_z(self, z):
        parameters = call(self.single.decoder, z.flatten(0, -2)).unflatten(0, z.shape[:-1])
        return as_event(self.likelihood(parameters.squeeze(-3)), z.dim() - 2)

    def generate(self, n, y=None):
        like = next(self.parameters()).new_zeros(n, 2, self.latent_dim)
        z = self.prior_of(like).sample((n,))
        return self.px_z(z), z
