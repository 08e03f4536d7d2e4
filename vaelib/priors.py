"""Priors that are learnt, as modules that return distributions.

Introduced in book/models/07_evaluation.ipynb.
"""

from .flows import AutoregressiveLayers, CouplingLayers, Flow
from .mixture_priors import MixturePrior, VampPrior
from .resampled import ResampledPrior


class FlowPrior(CouplingLayers):
    """A standard normal, bent by affine coupling layers (Dinh et al., ICLR 2017, arXiv:1605.08803).

    Called without arguments it returns the distribution, of event shape [latent_dim]; it starts as
    the standard normal. Each layer keeps one half of the latents and, by a network that reads it,
    moves and scales the other half, by at most e^2 or e^-2.

    Args:
        latent_dim: L, the size of z.
        hidden: units of a layer's network.
        num_layers: coupling layers.

    Raises:
        ValueError: for fewer than two latents.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, prior=vaelib.priors.FlowPrior(2))
        >>> round(model.pz().log_prob(torch.zeros(2)).item(), 4)  # -log 2 pi, before any training
        -1.8379
    """

    def __init__(self, latent_dim: int, hidden: int = 64, num_layers: int = 4) -> None:
        super().__init__(latent_dim, hidden, num_layers)

    def forward(self) -> Flow:
        return Flow(self)


class AutoregressivePrior(AutoregressiveLayers):
    """A standard normal, bent by autoregressive layers: scored in one pass, drawn in L a layer.

    Masked autoregressive flow (Papamakarios et al., NeurIPS 2017, https://arxiv.org/abs/1705.07057)
    as a prior. Called without arguments it returns the distribution, of event shape [latent_dim];
    it starts as the standard normal.

    Args:
        latent_dim: L, the size of z.
        hidden: units of a layer's network.
        num_layers: autoregressive layers, each in the other order than the one before.

    Raises:
        ValueError: for fewer than two latents.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, prior=vaelib.priors.AutoregressivePrior(2))
        >>> round(model.pz().log_prob(torch.zeros(2)).item(), 4)  # -log 2 pi, before any training
        -1.8379
    """

    def __init__(self, latent_dim: int, hidden: int = 64, num_layers: int = 2) -> None:
        super().__init__(latent_dim, hidden, num_layers)

    def forward(self) -> Flow:
        return Flow(self)


__all__ = ["AutoregressivePrior", "FlowPrior", "MixturePrior", "ResampledPrior", "VampPrior"]
