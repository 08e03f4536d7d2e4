"""Mixtures as posteriors, drawn by strata: once from each component."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from .distributions import unwrap
from .modes import positive_int


@dataclass(frozen=True)
class NormalMixture:
    """A mixture of diagonal normals whose weights read x, too.

    Its draws pass no gradient to the weights; a draw from each component does, counted by them:
    `VAE` draws so, and `elbo` and `iwae` are then the stratified bounds, SELBO and SIWAE
    (Morningstar et al., AISTATS 2021, https://arxiv.org/abs/2003.01687).

    Parameters [..., C (2 L + 1)]: C logits, then the C components' means, then their log-variances.

    Args:
        num_components: C.

    Raises:
        ValueError: unless num_components is a whole number of at least 1, and for parameters of
            another shape.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, posterior=vaelib.posteriors.NormalMixture(3))
        >>> draw = model.draw(torch.zeros(5, 1, 28, 28), num_samples=10)
        >>> draw.z.shape, draw.log_w_by_sample.shape
        (torch.Size([30, 5, 2]), torch.Size([10, 5]))
    """

    num_components: int = 4

    def __post_init__(self) -> None:
        positive_int("num_components", self.num_components)

    def num_parameters(self, latent_dim: int) -> int:
        return self.num_components * (2 * latent_dim + 1)

    def __call__(self, parameters: Tensor) -> "Mixture":
        n, c = parameters.shape[-1], self.num_components
        if n < 3 * c or n % c or n // c % 2 == 0:
            raise ValueError(
                f"A NormalMixture of {c} components got {n} parameters; expected {c} (2 L + 1) of "
                "L latent dimensions."
            )
        logits, others = parameters.split((c, n - c), -1)
        mu, log_var = others.unflatten(-1, (2, c, -1)).unbind(-3)  # [..., C, L]
        return Mixture.of(logits, mu, (0.5 * log_var).exp())


class Mixture(MixtureSameFamily):
    """A mixture of diagonal normals that can also draw once from each: what `NormalMixture` gives.

    Its components are Independent, of batch shape [..., C].
    """

    @classmethod
    def of(cls, logits: Tensor, loc: Tensor, scale: Tensor) -> "Mixture":
        """Of logits [..., C], loc and scale [..., C, L]."""
        components = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        weights = Categorical(logits=logits, validate_args=False)
        return cls(weights, components, validate_args=False)

    def strata(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """One draw from each of C components, S times, and the log of what each counts.

        Args:
            num_samples: S.

        Returns:
            z [S C, B, L], a sample's C values together, and the components' log-weights [S C, B],
            with their gradient.
        """
        z = self.component_distribution.rsample((num_samples,)).movedim(-2, 1)  # [S, C, B, L]
        log_weight = self.mixture_distribution.logits.movedim(-1, 0)  # [C, B]
        return z.flatten(0, 1), log_weight.repeat(num_samples, *[1] * (log_weight.dim() - 1))

    def stopped(self) -> "Mixture":
        """The same law, its parameters held still: log_prob has the gradient of z alone."""
        components: Any = unwrap(self.component_distribution)
        logits = self.mixture_distribution.logits
        return Mixture.of(logits.detach(), components.loc.detach(), components.scale.detach())


__all__ = ["NormalMixture"]
