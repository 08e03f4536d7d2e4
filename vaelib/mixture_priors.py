"""Priors that are mixtures: of normals anywhere, or of the encoder's own posteriors.

`vaelib.priors` has them. Introduced in book/models/11_learned_priors.ipynb.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal, constraints

from .arrays import Data, as_tensor, scale_pixels, some_of
from .distributions import unwrap
from .modes import positive_int


class GaussianMixture(Distribution):
    """A mixture of normals with diagonal covariance, over [L].

    The distance of a z from each component is a product of matrices, in float64, since it is a
    small difference of large numbers: so thousands of components cost little, and the aggregate
    posterior of a data set is one of these.

    Args:
        logits: of the components, [C]; they need not be normalized.
        mean: [C, L].
        sigma: standard deviations, [C, L].

    Example:
        >>> import torch, vaelib
        >>> mean, sigma = torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1)
        >>> q = vaelib.mixture_priors.GaussianMixture(torch.zeros(2), mean, sigma)
        >>> round(q.log_prob(torch.zeros(1)).item(), 4)  # -(1 + log 2 pi) / 2
        -1.4189
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(self, logits: Tensor, mean: Tensor, sigma: Tensor) -> None:
        self.logits, self.means, self.sigma = logits, mean, sigma
        super().__init__(event_shape=mean.shape[1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of the density at z [..., L]: [...], nats."""
        z, mean = value.double().reshape(-1, value.shape[-1]), self.means.double()
        precision = self.sigma.double() ** -2
        weighted = precision * mean
        square = z.square() @ precision.T - 2 * z @ weighted.T + (weighted * mean).sum(1)
        log_norm = self.sigma.double().log().sum(1) + z.shape[1] / 2 * math.log(2 * math.pi)
        log_joint = self.logits.double().log_softmax(0) - log_norm - square / 2  # [N, C]
        return log_joint.logsumexp(1).to(value.dtype).view(value.shape[:-1])

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(0) @ self.means

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        index = Categorical(logits=self.logits).sample(torch.Size(sample_shape))
        return torch.normal(self.means[index], self.sigma[index])


class MixturePrior(nn.Module):
    """A mixture of normals whose shares, means and deviations are learnt.

    Args:
        latent_dim: L, the size of z.
        num_components: C.

    Raises:
        ValueError: for sizes that are not positive whole numbers.

    Example:
        >>> import torch, vaelib
        >>> prior = vaelib.priors.MixturePrior(2, num_components=10)
        >>> vaelib.mlp_vae(2, prior=prior).pz().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, latent_dim: int, num_components: int = 100) -> None:
        super().__init__()
        self.latent_dim = positive_int("latent_dim", latent_dim)
        self.num_components = positive_int("num_components", num_components)
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.mean = nn.Parameter(torch.randn(num_components, latent_dim) / 2)
        self.log_sigma = nn.Parameter(torch.zeros(num_components, latent_dim))

    def forward(self) -> GaussianMixture:
        return GaussianMixture(self.logits, self.mean, self.log_sigma.exp())

    @torch.no_grad()
    def start_at(self, z: Tensor) -> None:
        """Put the means on some of the codes z [N, L], chosen at random, and share a width.

        A mixture that is fitted to codes finds few of them from a start around zero. The width is a
        kernel density's by Scott's rule (1992), C^(-1 / (L + 4)) of the deviation.
        """
        self.mean.copy_(some_of(z, self.num_components))
        width = z.std(0) * self.num_components ** (-1 / (self.latent_dim + 4))
        self.log_sigma.copy_(width.log().expand_as(self.log_sigma))


_STEEP = 100  # so that Adam's usual steps, of a few thousandths, move a pixel


class VampPrior(nn.Module):
    """The variational mixture of posteriors: the encoder's q(z|u) at pseudo-inputs u, which learn.

    It is q(z) itself where the pseudo-inputs are the data, and so the best prior with that encoder;
    a few hundred learnt ones stand in for them (Tomczak & Welling, AISTATS 2018,
    https://arxiv.org/abs/1705.07120, Equation 9). The encoder is the model's: a prior holds none.

    Args:
        num_components: C, how many pseudo-inputs.
        x_shape: the shape of one.
        pixels: whether they are kept between 0 and 1; else they are any numbers.

    Raises:
        ValueError: for sizes that are not positive whole numbers.

    Example:
        >>> import vaelib
        >>> model = vaelib.mlp_vae(2, prior=vaelib.priors.VampPrior(50))
        >>> model.pz().sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self, num_components: int = 500, x_shape: Sequence[int] = (1, 28, 28), pixels: bool = True
    ) -> None:
        super().__init__()
        self.num_components = positive_int("num_components", num_components)
        self.x_shape, self.pixels = [positive_int("a size", n) for n in x_shape], pixels
        inputs = torch.randn(num_components, *self.x_shape)
        self.inputs = nn.Parameter(inputs / _STEEP if pixels else inputs)

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, [C, ...], as the encoder sees them."""
        return (_STEEP * self.inputs).sigmoid() if self.pixels else self.inputs

    def forward(self, model: Any) -> Distribution:
        qz_u = model.encode(self.pseudo_inputs)
        logits, base = self.inputs.new_zeros(self.num_components), unwrap(qz_u)
        if type(base) is Normal:
            return GaussianMixture(logits, base.loc, base.scale)
        return MixtureSameFamily(Categorical(logits=logits), qz_u, validate_args=False)

    @torch.no_grad()
    def start_at(self, x: Data) -> None:
        """Take some examples of x [N, ...], chosen at random, as pseudo-inputs."""
        some = scale_pixels(some_of(as_tensor(x), self.num_components)).to(self.inputs)
        self.inputs.copy_(some.clamp(0.02, 0.98).logit() / _STEEP if self.pixels else some)


__all__ = ["GaussianMixture", "MixturePrior", "VampPrior"]
