"""Annealed importance sampling: a second opinion on log p(x), which needs no good encoder.

A chain walks from an easy distribution to the posterior over many small steps, each a move of
Hamiltonian Monte Carlo, and weighs itself on the way. Introduced in
book/models/07_evaluation.ipynb.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .data import Data
from .estimates import Estimate, scored, seeded, summary
from .model import VAE, likelihood_of, positive_int, tensor_like

Density = Callable[[Tensor], Tensor]  # z [K, B, D] -> log-density [K, B]


def ais(
    model: VAE,
    x: Data,
    num_samples: int = 16,
    num_steps: int = 200,
    num_leaps: int = 8,
    start: str = "prior",
    data_seed: int = 0,
    seed: int = 0,
) -> Estimate:
    """log p(x) by annealed importance sampling, nats; a lower bound in expectation.

    - x: [N, ...], kept whole on the model's device: a hundred images, not ten thousand.
    - num_samples: chains an image; num_steps: temperatures; num_leaps: leapfrog steps a move.
    - start: "prior", which asks nothing of the encoder, or "posterior", q(z|x), which is nearer.

    The step sizes are tuned in a run of their own and then held, so the weights stay unbiased
    (Neal, Statistics and Computing 2001; Wu et al., ICLR 2017, https://arxiv.org/abs/1611.04273).
    """
    num_samples = positive_int("num_samples", num_samples)
    if start not in ("prior", "posterior"):
        raise ValueError(f"start is {start!r}; expected 'prior' or 'posterior'.")
    px_z = likelihood_of(model)
    x, drawn = scored(x, px_z, data_seed)
    with seeded(model, seed):
        with torch.no_grad():
            x = model._input(x)
            first = model._pz(x) if start == "prior" else model.encode(x)
            z = first.sample((num_samples, len(x)) if start == "prior" else (num_samples,))
        log_w = _anneal(model, x, first.log_prob, z, num_steps, num_leaps, forward=True)
    return _estimate(log_w, drawn, seed)


def bidirectional(
    model: VAE,
    n: int,
    num_samples: int = 16,
    num_steps: int = 200,
    num_leaps: int = 8,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """Bounds on log p(x) from both sides, of n examples that the model draws itself.

    For such an x one exact draw from p(z|x) is known, the z that made it. Chains from there back to
    the prior give an upper bound in expectation, chains from the prior a lower one; where they
    meet, both are right (bidirectional Monte Carlo: Grosse, Ghahramani & Adams, 2015,
    https://arxiv.org/abs/1511.02543).
    """
    num_samples, n = positive_int("num_samples", num_samples), positive_int("n", n)
    with seeded(model, seed):
        with torch.no_grad():
            pz = model._pz(tensor_like(model))
            z = pz.sample((n,))
            x = model.decode(z).sample()
        settings = (num_steps, num_leaps)
        start = pz.sample((num_samples, n))
        lower = _anneal(model, x, pz.log_prob, start, *settings, forward=True)
        there = z.expand(num_samples, *z.shape)
        upper = _anneal(model, x, pz.log_prob, there, *settings, forward=False)
    return _estimate(lower, None, seed), _estimate(upper, None, seed, sign=-1.0)


def _anneal(
    model: VAE,
    x: Tensor,
    log_first: Density,
    z: Tensor,
    num_steps: int,
    num_leaps: int,
    forward: bool,
) -> Tensor:
    """Log weights [K, B] of chains from `first` to p(x, z), or back if not `forward`."""
    num_steps = positive_int("num_steps", num_steps)
    pz = model._pz(tensor_like(model))

    def log_last(z: Tensor) -> Tensor:
        return model.decode(z).log_prob(x) + pz.log_prob(z)

    share = torch.linspace(-4, 4, num_steps + 1, dtype=torch.float64).sigmoid()
    betas = ((share - share[0]) / (share[-1] - share[0])).tolist()  # slow at both ends
    if not forward:
        betas = betas[::-1]
    sizes = [z.new_full(z.shape[1:-1], 0.1) for _ in range(num_steps)]
    for tuning in (True, False):
        at, size = z, sizes[0]
        log_w = torch.zeros(z.shape[:-1], dtype=torch.float64, device=z.device)
        for step, (before, beta) in enumerate(pairwise(betas)):
            # Forward the chain is weighed and then moved at the new temperature; back, moved at
            # the old one and then weighed.
            here = beta if forward else before

            def log_f(z: Tensor, here: float = here) -> Tensor:
                return (1 - here) * log_first(z) + here * log_last(z)

            if forward:
                log_w += (beta - before) * _difference(log_first, log_last, at)
            at, accepted = _hmc(log_f, at, size if tuning else sizes[step], num_leaps)
            if not forward:
                log_w += (beta - before) * _difference(log_first, log_last, at)
            if tuning:
                sizes[step] = size
                size = size * torch.where(accepted.mean(0) > 0.65, 1.1, 0.9)
    return log_w


@torch.no_grad()
def _difference(log_first: Density, log_last: Density, z: Tensor) -> Tensor:
    return (log_last(z) - log_first(z)).double()


def _hmc(log_f: Density, z: Tensor, size: Tensor, num_leaps: int) -> tuple[Tensor, Tensor]:
    """One Hamiltonian move of each chain z [K, B, D]: where it is now, and whether it went.

    (Neal, Handbook of Markov Chain Monte Carlo, 2011, Chapter 5, https://arxiv.org/abs/1206.1901.)
    """
    step = size.unsqueeze(-1)
    momentum = torch.randn_like(z)
    value, gradient = _value_and_gradient(log_f, z)
    energy = value - momentum.square().sum(-1) / 2
    at, momentum = z, momentum + step / 2 * gradient
    for leap in range(num_leaps):
        at = at + step * momentum
        value, gradient = _value_and_gradient(log_f, at)
        momentum = momentum + (step if leap < num_leaps - 1 else step / 2) * gradient
    change = value - momentum.square().sum(-1) / 2 - energy
    accepted = change > torch.rand_like(change).log()  # not so where it is NaN
    return torch.where(accepted.unsqueeze(-1), at, z), accepted.to(z.dtype)


def _value_and_gradient(log_f: Density, z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_f(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def _estimate(log_w: Tensor, drawn: int | None, seed: int, sign: float = 1.0) -> Estimate:
    log_w = log_w.cpu()
    sums = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
    return summary(*sums, len(log_w), drawn, seed, sign=sign)
