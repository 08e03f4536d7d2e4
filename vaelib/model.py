"""The model: p(z), p(x|z) and q(z|x), and the draws from q(z|x) that every objective reads.

A batch is [B, ...]; draws from the posterior are [K, B, ...], with K = num_samples there also
when it is 1. Log-densities are in nats, summed over the event. Introduced in
book/foundations/05_first_vae.ipynb.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence

from .data import Data, as_tensor, check_values, scale_pixels
from .distributions import is_bernoulli, unwrap
from .likelihoods import bernoulli
from .nets import conv_decoder, conv_encoder, mlp

Likelihood = Callable[[Tensor], Distribution]


@dataclass(frozen=True)
class Draw:
    """K draws z from q(z|x) for each of B examples, and the log-densities there.

    Log-densities are [K, B], in nats. `kl_parts` is the analytic KL(q(z|x) || p(z)), [B, L], a
    column a latent dimension, or None where no closed form is known.
    """

    x: Tensor
    z: Tensor
    log_px_z: Tensor
    log_pz: Tensor
    log_qz_x: Tensor
    qz_x: Distribution
    kl_parts: Tensor | None = None

    @property
    def log_w(self) -> Tensor:
        """Log importance weights, log p(x|z) + log p(z) - log q(z|x): [K, B], nats."""
        return self.log_px_z + self.log_pz - self.log_qz_x

    @property
    def kl(self) -> Tensor:
        """Analytic KL(q(z|x) || p(z)): [B], nats. ValueError where no closed form is known."""
        if self.kl_parts is None:
            raise ValueError(
                "This draw has no analytic KL, since no closed form is known for its posterior and "
                "prior; use the sampled one, (log_qz_x - log_pz).mean(0)."
            )
        return self.kl_parts.sum(-1)


class VAE(nn.Module):
    """A variational autoencoder (Kingma & Welling, ICLR 2014, https://arxiv.org/abs/1312.6114).

    - encoder: [B, ...] -> [B, 2 * latent_dim], mean and log-variance of q(z|x).
    - decoder: [N, latent_dim] -> [N, ...], parameters of p(x|z).
    - likelihood: parameters [..., ...] -> a distribution over x (`bernoulli`, `gaussian(scale)`,
      or a callable of yours; one with parameters is an `nn.Module`).
    - prior: a distribution over [latent_dim], or a module whose `forward()` returns one; the
      standard normal by default. A distribution stays on the device it was made on, a module
      moves with the model.
    - x_shape: the shape of one example, if inputs are to be checked against it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        likelihood: Likelihood = bernoulli,
        prior: Distribution | nn.Module | None = None,
        x_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent_dim = positive_int("latent_dim", latent_dim)
        self.likelihood = likelihood
        self.prior = prior
        self.x_shape = None if x_shape is None else tuple(x_shape)
        self.architecture: dict[str, Any] | None = None  # set by factories, read by `save`
        self._values_checked = False

    def encode(self, x: Data) -> Distribution:
        """The posterior q(z|x), of batch shape [B] and event shape [latent_dim]; x may be grey."""
        return self._posterior(self._input(x))

    def decode(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z) for z of shape [..., latent_dim]; its batch shape is [...]."""
        if not isinstance(z, Tensor):
            raise TypeError(f"z is a {type(z).__name__}; expected a tensor of latents.")
        if z.dim() == 0 or z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"z has shape {list(z.shape)}; expected [..., {self.latent_dim}], with the latent "
                "dimension last."
            )
        lead = z.shape[:-1]
        parameters = self.decoder(z.reshape(-1, self.latent_dim)).to(z.dtype)
        px_z = self.likelihood(parameters.reshape(lead + parameters.shape[1:]))
        return _as_event(px_z, len(lead))

    def draw(self, x: Data, num_samples: int = 1, noise: Tensor | None = None) -> Draw:
        """Draw z from q(z|x), num_samples times for each example, by reparameterization.

        - x: [B, ...], fit for the likelihood (binary under a Bernoulli).
        - noise: standard normal [K, B, latent_dim], if it is to be yours.

        Raises ValueError for values that the likelihood does not allow, and TypeError for what is
        not an array.
        """
        x = self._input(x)
        qz_x = self._posterior(x)
        z = self._latents(qz_x, positive_int("num_samples", num_samples), noise)
        px_z = self.decode(z)
        if px_z.event_shape != x.shape[1:]:
            raise ValueError(
                f"x has shape {list(x.shape)}, but p(x|z) is over {list(px_z.event_shape)}; "
                "expected one example to have that shape: reshape x, or change the decoder."
            )
        if not self._values_checked:
            check_values(x, px_z)
        pz = self._pz(z)
        return Draw(
            x=x,
            z=z,
            log_px_z=_log_prob(px_z, x),
            log_pz=pz.log_prob(z),
            log_qz_x=qz_x.log_prob(z),
            qz_x=qz_x,
            kl_parts=_kl_parts(qz_x, pz),
        )

    def forward(self, x: Data, num_samples: int = 1, noise: Tensor | None = None) -> Draw:
        """The same as `draw`."""
        return self.draw(x, num_samples) if noise is None else self.draw(x, num_samples, noise)

    @torch.no_grad()
    def sample(self, n: int = 1, mean: bool = True) -> Tensor:
        """n images from the model, [n, *x_shape]: means of p(x|z), or draws if not `mean`."""
        like = tensor_like(self)
        z = self._pz(like).sample((positive_int("n", n),))
        px_z = self.decode(z)
        return px_z.mean if mean else px_z.sample()

    @torch.no_grad()
    def reconstruct(self, x: Data, mean: bool = True) -> Tensor:
        """Encode x, draw one z, decode: [B, *x_shape], means of p(x|z) or draws if not `mean`."""
        px_z = self.decode(self.encode(x).sample())
        return px_z.mean if mean else px_z.sample()

    def _input(self, x: Data) -> Tensor:
        """x as a floating tensor on the model's device, its shape and dtype checked."""
        x = as_tensor(x)
        if x.dim() < 2 or len(x) == 0 or (self.x_shape and x.shape[1:] != self.x_shape):
            expected = ", ".join(map(str, self.x_shape)) if self.x_shape else "..."
            raise ValueError(
                f"x has shape {list(x.shape)}; expected a batch [B, {expected}] with B at least 1."
            )
        if next(self.parameters(), None) is None:
            return scale_pixels(x)  # device and dtype follow the data
        weight = tensor_like(self)
        x = scale_pixels(x.to(weight.device), weight.dtype)
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"x is {x.dtype} but the model is {weight.dtype}; expected the same: convert one, "
                f"as in x.to({weight.dtype})."
            )
        return x

    def _posterior(self, x: Tensor) -> Distribution:
        parameters = self.encoder(x).to(x.dtype)  # under autocast only the networks are bf16
        if parameters.shape != (len(x), 2 * self.latent_dim):
            raise ValueError(
                f"The encoder returned shape {list(parameters.shape)}; expected "
                f"[{len(x)}, {2 * self.latent_dim}], a mean and a log-variance for each of "
                f"{self.latent_dim} latent dimensions."
            )
        mu, log_var = parameters.chunk(2, dim=-1)
        sigma = (0.5 * log_var).exp()
        return Independent(Normal(mu, sigma, validate_args=False), 1, validate_args=False)

    def _latents(self, qz_x: Distribution, num_samples: int, noise: Tensor | None) -> Tensor:
        if noise is None:
            return qz_x.rsample((num_samples,))
        expected = (*qz_x.batch_shape, *qz_x.event_shape)
        if noise.shape[1:] != expected or num_samples not in (1, len(noise)):
            raise ValueError(
                f"noise has shape {list(noise.shape)}; expected [num_samples, "
                f"{', '.join(map(str, expected))}]."
            )
        q = unwrap(qz_x)  # Independent's stddev is the root of a square, which may be 0 or infinite
        return q.mean + q.stddev * noise

    def _pz(self, like: Tensor) -> Distribution:
        """The prior, as a distribution of event shape [latent_dim]."""
        if self.prior is None:
            zero = like.new_zeros(self.latent_dim)
            return Independent(Normal(zero, zero + 1, validate_args=False), 1, validate_args=False)
        pz = self.prior() if isinstance(self.prior, nn.Module) else self.prior
        if pz.event_shape == () and pz.batch_shape == (self.latent_dim,):
            pz = Independent(pz, 1)
        if pz.event_shape != (self.latent_dim,):
            raise ValueError(
                f"The prior has batch shape {list(pz.batch_shape)} and event shape "
                f"{list(pz.event_shape)}; expected an event of [{self.latent_dim}], latent_dim."
            )
        return pz


def _as_event(px_z: Distribution, num_leading: int) -> Distribution:
    """Declare every batch axis after z's leading ones as part of the event."""
    extra = len(px_z.batch_shape) - num_leading
    return Independent(px_z, extra, validate_args=False) if extra > 0 else px_z


def _log_prob(px_z: Distribution, x: Tensor) -> Tensor:
    """log p(x|z), [K, B]; faster for a Bernoulli where no gradient is asked.

    Its sum over pixels is x * logit - softplus(logit): x enters by a product of matrices, and up
    to 64 pixels share a logarithm, since softplus(l) = max(l, 0) + log(1 + e^-|l|), and those
    factors lie in (1, 2]. A subclass may have a log_prob of its own, which is then called.
    """
    plain = isinstance(px_z, Independent) and type(unwrap(px_z)) is Bernoulli
    if torch.is_grad_enabled() or not plain:
        return px_z.log_prob(x)
    logits: Tensor = unwrap(px_z).logits  # type: ignore[attr-defined]
    logits = logits.flatten(2).transpose(0, 1)  # [B, K, pixels]
    ink = (logits @ x.flatten(1).unsqueeze(-1)).squeeze(-1)
    group = math.gcd(logits.shape[-1], 64)
    factors = logits.abs().neg_().exp_().add_(1).unflatten(-1, (-1, group)).prod(-1)
    return (ink - logits.clamp(min=0).sum(-1) - factors.log().sum(-1)).T


def _kl_parts(qz_x: Distribution, pz: Distribution) -> Tensor | None:
    """Analytic KL a latent dimension, [B, latent_dim], where torch knows a closed form."""
    if not (isinstance(qz_x, Independent) and isinstance(pz, Independent)):
        return None
    if qz_x.reinterpreted_batch_ndims != 1 or pz.reinterpreted_batch_ndims != 1:
        return None
    q, p = qz_x.base_dist, pz.base_dist
    if type(q) is Normal and type(p) is Normal:  # torch.compile cannot follow torch's look-up
        var_ratio = (q.scale / p.scale).square()
        return 0.5 * (var_ratio + ((q.loc - p.loc) / p.scale).square() - 1 - var_ratio.log())
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def tensor_like(model: nn.Module) -> Tensor:
    """A tensor of the model's device and dtype: a parameter, if it has one."""
    return next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))


@contextmanager
def values_checked(model: nn.Module) -> Iterator[None]:
    """Let `draw` skip its look at the values of x, for loops that checked all data before."""
    before = getattr(model, "_values_checked", None)
    if before is None:  # a model of yours, which makes its own checks
        yield
        return
    model._values_checked = True  # type: ignore[assignment]
    try:
        yield
    finally:
        model._values_checked = before


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, so that an example moves no statistics; its mode back after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def likelihood_of(model: nn.Module) -> Distribution:
    """p(x|z) at z = 0: tells which likelihood a model has."""
    like = tensor_like(model)
    with in_eval_mode(model):
        z = like.new_zeros(1, model.latent_dim)  # type: ignore[call-overload]
        return model.decode(z)  # type: ignore[operator]


def mlp_vae(
    latent_dim: int,
    hidden: Sequence[int] = (400,),
    *,
    x_shape: Sequence[int] = (1, 28, 28),
    activation: str = "relu",
    norm: str | None = None,
    likelihood: Likelihood = bernoulli,
    prior: Distribution | nn.Module | None = None,
) -> VAE:
    """A VAE whose encoder and decoder are multilayer perceptrons, mirrored.

    hidden: the encoder's hidden sizes, from x to z. Activations and norms are those of
    `vaelib.nets.mlp`. Raises ValueError for sizes that are not positive whole numbers.
    """
    latent_dim = positive_int("latent_dim", latent_dim)
    x_shape, hidden = tuple(x_shape), tuple(hidden)
    num_pixels = math.prod(x_shape)
    encoder = nn.Sequential(
        nn.Flatten(), *mlp((num_pixels, *hidden, 2 * latent_dim), activation, norm)
    )
    out_shape = decoder_shape(likelihood, x_shape)
    decoder = nn.Sequential(
        *mlp((latent_dim, *reversed(hidden), math.prod(out_shape)), activation, norm),
        nn.Unflatten(1, out_shape),
    )
    model = VAE(encoder, decoder, latent_dim, likelihood, prior, x_shape)
    model.architecture = {
        "factory": "mlp_vae",
        "latent_dim": latent_dim,
        "hidden": list(hidden),
        "x_shape": list(x_shape),
        "activation": activation,
        "norm": norm,
    }
    return model


def conv_vae(
    latent_dim: int,
    channels: Sequence[int] = (32, 64),
    *,
    blocks: int = 0,
    x_shape: Sequence[int] = (1, 28, 28),
    activation: str = "silu",
    likelihood: Likelihood = bernoulli,
    prior: Distribution | nn.Module | None = None,
) -> VAE:
    """A VAE whose encoder and decoder are convolutional, mirrored; x_shape is (C, H, W).

    - channels: of the encoder's stages, each half as high and wide as the one before.
    - blocks: residual blocks a stage. See `vaelib.nets.conv_encoder`, also for the errors.
    """
    latent_dim = positive_int("latent_dim", latent_dim)
    x_shape, channels = tuple(x_shape), tuple(channels)
    encoder = conv_encoder(x_shape, 2 * latent_dim, channels, blocks, activation)
    out_shape = decoder_shape(likelihood, x_shape)
    decoder = conv_decoder(latent_dim, out_shape, channels, blocks, activation)
    model = VAE(encoder, decoder, latent_dim, likelihood, prior, x_shape)
    model.architecture = {
        "factory": "conv_vae",
        "latent_dim": latent_dim,
        "channels": list(channels),
        "blocks": blocks,
        "x_shape": list(x_shape),
        "activation": activation,
    }
    return model


def decoder_shape(likelihood: Likelihood, x_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a decoder's output must have for a likelihood of x of shape x_shape."""
    num_channels = getattr(likelihood, "num_channels", None)
    return x_shape if num_channels is None else (num_channels(x_shape[0]), *x_shape[1:])


def device() -> torch.device:
    """The device to put models on: cuda where there is one, else cpu.

    Under torchrun each process gets a GPU of its own.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if rank is None else f"cuda:{rank}")


def positive_int(name: str, value: int) -> int:
    """value, if it is a whole number of at least 1; else a ValueError or TypeError with `name`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected a whole number of at least 1.")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected a whole number of at least 1.")
    return int(value)


__all__ = ["VAE", "Draw", "conv_vae", "device", "is_bernoulli", "mlp_vae"]
