"""Annealed importance sampling: a second opinion on log p(x), which needs no good encoder.

A chain walks from an easy distribution to the posterior over many small steps, each a move of
Hamiltonian Monte Carlo, and weighs itself on the way. Introduced in
book/models/07_evaluation.ipynb.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from .arrays import Data
from .draw import Draw
from .estimates import Estimate, dream, is_bound, scored, summary, why_not_flat
from .model import VAE
from .modes import in_eval_mode, positive_int, seeded, unvalidated

Density = Callable[[Tensor], Tensor]  # z [K, B, D] -> log-density [K, B]


def ais(
    model: VAE,
    x: Data,
    num_samples: int = 16,
    num_steps: int = 200,
    num_leaps: int = 8,
    start: Literal["prior", "posterior"] = "prior",
    data_seed: int = 0,
    seed: int = 0,
    y: Any = None,
) -> Estimate:
    """log p(x) by annealed importance sampling, nats; a lower bound in expectation.

    The step sizes are tuned in a run of their own and then held, so the weights stay unbiased
    (Neal, Statistics and Computing 2001; Wu et al., ICLR 2017, https://arxiv.org/abs/1611.04273).

    Args:
        model: one of a single flat, continuous latent, that `decode` and `pz` say all of.
        x: [N, ...], kept whole on the model's device: a hundred images, not ten thousand.
        num_samples: chains an image.
        num_steps: temperatures.
        num_leaps: leapfrog steps a move.
        start: "prior", which asks nothing of the encoder, or "posterior", q(z|x), which is nearer.
        data_seed: of the bits.
        seed: of the chains.
        y: labels [N, ...], if not in x, for a model of p(x|y).

    Returns:
        The estimate; its ``acceptance`` is the share of moves that the chains made.

    Raises:
        ValueError: for a model of another kind, and as `vaelib.log_marginal` does.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> found = vaelib.evaluate.ais(model, torch.ones(3, 4), num_samples=4, num_steps=20)
        >>> found.values.shape, 0 < found.acceptance <= 1
        (torch.Size([3]), True)
    """
    num_samples = positive_int("num_samples", num_samples)
    if start not in ("prior", "posterior"):
        raise ValueError(f"start is {start!r}; expected 'prior' or 'posterior'.")
    data = scored(model, x, y, data_seed)
    _check_walkable(model, data.first)
    with seeded(model, seed):
        with torch.no_grad():
            prepared = model.prepare(data.x)
            y = model.prepare_labels(data.y, len(prepared))
            first = model.pz() if start == "prior" else model.encode(prepared, y)
            z = first.sample((num_samples, len(prepared)) if start == "prior" else (num_samples,))
        log_joint = _log_joint(model, prepared, y)
        log_w, acceptance = _anneal(first.log_prob, log_joint, z, num_steps, num_leaps)
    estimate = _estimate(log_w, data.data_seed, seed, acceptance)
    return data.says(estimate)


def bidirectional(
    model: VAE,
    n: int,
    num_samples: int = 16,
    num_steps: int = 200,
    num_leaps: int = 8,
    seed: int = 0,
    y: Any = None,
) -> tuple[Estimate, Estimate]:
    """Bounds on log p(x) from both sides, of examples that the model draws itself; nats.

    For such an x one exact draw from p(z|x) is known, the z that made it. Chains from there back to
    the prior give an upper bound in expectation, chains from the prior a lower one; where they
    meet, both are right (bidirectional Monte Carlo: Grosse, Ghahramani & Adams, 2015,
    https://arxiv.org/abs/1511.02543).

    Args:
        model: as `ais` takes it.
        n: how many examples.
        num_samples: chains an example.
        num_steps: temperatures.
        num_leaps: leapfrog steps a move.
        seed: of the examples and the chains.
        y: labels [n, ...], for a model of p(x|y).

    Returns:
        The lower and the upper estimate.

    Raises:
        ValueError: for a model of another kind.

    Example:
        >>> import vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> lower, upper = vaelib.evaluate.bidirectional(model, 5, 4, num_steps=10)
        >>> lower.values.shape == upper.values.shape
        True
    """
    num_samples, n = positive_int("num_samples", num_samples), positive_int("n", n)
    y = model.prepare_labels(y, n)
    dreamt = dream(model, None if y is None else y[:1])
    _check_walkable(model, dreamt)
    if is_bound(model, dreamt):
        raise ValueError(
            "bidirectional got a model with a density that is a bound; expected exact ones, or its "
            "two bounds are none."
        )
    with seeded(model, seed):
        with torch.no_grad():
            pz = model.pz()
            z = pz.sample((n,))
            x = model.decode(z, y).sample()
        log_joint = _log_joint(model, x, y)
        settings = (num_steps, num_leaps)
        start = pz.sample((num_samples, n))
        lower = _anneal(pz.log_prob, log_joint, start, *settings)
        there = z.expand(num_samples, *z.shape)
        upper = _anneal(pz.log_prob, log_joint, there, *settings, forward=False)
    conditional = y is not None
    below, above = (
        replace(_estimate(log_w, None, seed, acceptance, sign), conditional=conditional)
        for (log_w, acceptance), sign in ((lower, 1.0), (upper, -1.0))
    )
    return below, above


@torch.no_grad()
def _check_walkable(model: VAE, draw: Draw) -> None:
    """ValueError unless the model's draw is of one flat z, whose densities decode and pz say."""
    why = why_not_flat(draw)
    if not why:
        try:
            with unvalidated(), in_eval_mode(model):
                log_px_z = model.decode(draw.z, draw.y).log_prob(draw.x)
                log_pz = model.pz().log_prob(draw.z)
            found = torch.stack([log_px_z, log_pz]), torch.stack([draw.log_px_z, draw.log_pz])
            if not torch.allclose(*found, rtol=0.01, atol=0.01, equal_nan=True):
                why = "this model's draws have another p(x|z) or p(z) than those say"
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            why = "this model has not both for its z"
    if why:
        raise ValueError(
            "Annealed importance sampling moves a single flat, continuous z, by the model's decode "
            f"and pz, but {why}; expected such a model: use log_marginal for others."
        )


def _log_joint(model: VAE, x: Tensor, y: Tensor | None) -> Density:
    with torch.no_grad():
        pz = model.pz()
    return lambda z: model.decode(z, y).log_prob(x) + pz.log_prob(z)


def _anneal(
    log_first: Density,
    log_last: Density,
    z: Tensor,
    num_steps: int,
    num_leaps: int,
    forward: bool = True,
) -> tuple[Tensor, float]:
    """Log weights [K, B] of chains from first to last, or back if not `forward`.

    With them the share of moves that were accepted, of the run that counts.
    """
    num_steps = positive_int("num_steps", num_steps)
    share = torch.linspace(-4, 4, num_steps + 1, dtype=torch.float64).sigmoid()
    betas = ((share - share[0]) / (share[-1] - share[0])).tolist()  # slow at both ends
    if not forward:
        betas = betas[::-1]
    sizes = [z.new_full(z.shape[1:-1], 0.1) for _ in range(num_steps)]
    for tuning in (True, False):
        at, size, moved = z, sizes[0], z.new_zeros(())
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
            moved += accepted.mean() / num_steps
            if tuning:
                sizes[step] = size
                size = size * torch.where(accepted.mean(0) > 0.65, 1.1, 0.9)
    return log_w, moved.item()


@torch.no_grad()
def _difference(log_first: Density, log_last: Density, z: Tensor) -> Tensor:
    """What a step of the temperature weighs; a z without a density weighs nothing."""
    difference = (log_last(z) - log_first(z)).double()
    return torch.where(difference.isnan(), -torch.inf, difference)


def _hmc(log_f: Density, z: Tensor, size: Tensor, num_leaps: int) -> tuple[Tensor, Tensor]:
    """One Hamiltonian move of each chain z [K, B, D]: where it is now, and whether it went.

    A proposal without a finite density is rejected, and one to which no finite gradient led.
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
    accepted &= value.isfinite()
    return torch.where(accepted.unsqueeze(-1), at, z), accepted.to(z.dtype)


def _value_and_gradient(log_f: Density, z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_f(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def _estimate(
    log_w: Tensor, drawn: int | None, seed: int, acceptance: float, sign: float = 1.0
) -> Estimate:
    log_w = log_w.cpu()
    sums = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
    estimate = summary(*sums, len(log_w), drawn, seed, sign=sign)
    return replace(estimate, acceptance=acceptance)
