"""Bounds between the ELBO and log p(x), and another gradient for the tightest: objectives, too.

On the same draws, whatever they are, elbo <= renyi <= iwae and elbo <= tvo <= iwae. So none of them
is a tighter bound than iwae; what differs is what they teach. Introduced in
book/models/10_tighter_bounds.ipynb.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draw import Draw, latents_of, layer_name
from .objectives import elbo, stopped_q


def renyi(draw: Draw, alpha: float = 0.5) -> Tensor:
    """The Renyi bound, log of the mean of w^(1 - alpha), over 1 - alpha: [B], nats.

    The ELBO at alpha = 1, `iwae` at alpha = 0, between them else (Li & Turner, NeurIPS 2016,
    https://arxiv.org/abs/1602.02311, Equation 6).

    Args:
        draw: of any model.
        alpha: from 0 to 1.

    Raises:
        ValueError: for another alpha: below 0 it is no lower bound.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4), num_samples=50)
        >>> torch.allclose(vaelib.bounds.renyi(draw, 0.0), vaelib.iwae(draw), atol=1e-4)
        True
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}; expected a number from 0 (iwae) to 1 (the ELBO).")
    if alpha == 1:
        return elbo(draw, analytic=False)
    return _weighted(draw, 1 - alpha).logsumexp(0) / (1 - alpha)


def tvo(draw: Draw, betas: Sequence[float] = (0.0, 0.025, 0.0629, 0.1583, 0.398)) -> Tensor:
    """The thermodynamic variational objective, a left Riemann sum: [B], nats.

    log p(x) is the integral over beta, from 0 to 1, of the mean of log w under the path from q to
    the posterior, q^(1 - beta) p^beta. It rises with beta, so a sum of its left ends lies below
    (Masrani, Le & Wood, NeurIPS 2019, https://arxiv.org/abs/1907.00031, Equation 8). Means under
    the path are those of the draws, weighted by w^beta; the gradient passes through the weights
    and through z, where the paper's does not.

    Args:
        draw: of any model.
        betas: where the integrand is read, rising, the first 0, all below 1; with (0,) it is the
            ELBO.

    Raises:
        ValueError: for other betas.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4), num_samples=50)
        >>> between = vaelib.elbo(draw, analytic=False) <= vaelib.bounds.tvo(draw)
        >>> bool((between & (vaelib.bounds.tvo(draw) <= vaelib.iwae(draw))).all())
        True
    """
    ends = [*betas, 1.0]
    steps = [high - low for low, high in itertools.pairwise(ends)]
    if not betas or betas[0] != 0 or min(steps) <= 0:
        raise ValueError(
            f"betas are {tuple(betas)}; expected rising numbers, the first 0, all below 1."
        )
    counts: Tensor = draw.log_weight  # type: ignore[assignment]
    log_w = torch.where(counts > -math.inf, draw.log_w, 0.0)
    path = (_weighted(draw, beta).softmax(0) for beta in betas)
    return sum(step * (at * log_w).sum(0) for step, at in zip(steps, path))  # type: ignore[return-value]


def _weighted(draw: Draw, power: float) -> Tensor:
    """log of w^power times what a draw counts, [K, B]; what counts nothing is minus infinity."""
    counts: Tensor = draw.log_weight  # type: ignore[assignment]
    return torch.where(counts > -math.inf, counts + power * draw.log_w, -math.inf)


def dreg(draw: Draw) -> Tensor:
    """`iwae`, by another gradient: doubly reparameterized. [B], nats.

    The gradient of iwae for q's parameters has a part that does not pass through z. It drowns in
    noise as K grows (Rainforth et al., ICML 2018, https://arxiv.org/abs/1802.04537). Its mean is
    that of a path through z, so that what is left is
    E sum_k (w_k / sum w)^2 d log w_k / dz_k dz_k / dphi (Tucker et al., ICLR 2019,
    https://arxiv.org/abs/1810.04152, Equation 8). With several layers the squares belong to the
    path of all of them together (Bauer & Mnih, ICML 2021, https://arxiv.org/abs/2101.11046): what a
    layer does to the next q counts once. Parameters of p have the gradient of iwae. It walks back
    through the decoder twice.

    Args:
        draw: of a model whose latents are all drawn, by equal draws.

    Raises:
        ValueError: for latents that are listed, strata or points; for a posterior whose parameters
            cannot be held still (see `objectives.stopped_q`); for a q that reads earlier latents
            and whose Latent carries no `stopped`.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4), num_samples=50)
        >>> torch.allclose(vaelib.bounds.dreg(draw), vaelib.iwae(draw), atol=1e-4)
        True
    """
    latents = latents_of(draw)
    log_w = draw.log_px_z + draw.log_pz
    for i, latent in enumerate(latents):
        if latent.point or latent.values > 1:
            raise ValueError(
                f"{layer_name(i, latent)} is not drawn by equal draws; dreg expects latents that "
                "are: use iwae, or elbo."
            )
        if i and latent.stopped is None and len(latent.q.batch_shape) > 1:
            raise ValueError(
                f"q of {layer_name(i, latent)} reads earlier latents, and its Latent carries no "
                "`stopped`; dreg expects there the same q, by weights without a gradient at the "
                "same z, such as torch.func.functional_call gives: or use iwae."
            )
        log_w = log_w - stopped_q(latent).log_prob(latent.z)
    bound = log_w.logsumexp(0) - math.log(len(log_w))
    weights = log_w.detach().softmax(0)
    left: Tensor = (weights * log_w).sum()  # what is left of it when later layers are held still
    squared: Tensor = bound.new_zeros(())
    for z in [latent.z for latent in reversed(latents) if latent.z.requires_grad]:
        (slope,) = torch.autograd.grad(left, z, retain_graph=True, allow_unused=True)
        if slope is not None:
            left = left - (slope * z).sum()
            less = (weights - 1).reshape(*weights.shape, *[1] * (z.dim() - 2))
            squared = squared + (less * slope * z).sum((0, *range(2, z.dim())))
    return bound + squared - squared.detach()


__all__ = ["dreg", "renyi", "tvo"]
