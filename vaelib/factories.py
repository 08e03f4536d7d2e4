"""Factories: whole models by a few numbers, in one registry that `save` and `load` read."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Literal, ParamSpec

from torch import nn
from torch.distributions import Distribution

from .likelihoods import bernoulli
from .model import VAE, Likelihood
from .modes import positive_int
from .nets import Activation, Flatten, conv_decoder, conv_encoder, mlp
from .posteriors import Posterior, normal, num_parameters

P = ParamSpec("P")

# By name; a model remembers how it was made, in `model.architecture`.
FACTORIES: dict[str, Callable[..., VAE]] = {}
PARTS = ("likelihood", "posterior", "prior")  # said apart, since they may be yours


def factory(build: Callable[P, VAE]) -> Callable[P, VAE]:
    """Register a function that makes models of numbers, words and lists of numbers."""
    signature = inspect.signature(build)

    @functools.wraps(build)
    def made(*args: P.args, **kwargs: P.kwargs) -> VAE:
        model = build(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        settings = {name: value for name, value in given.arguments.items() if name not in PARTS}
        for name, value in settings.items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                settings[name] = [int(n) for n in value]
        model.architecture = {"factory": build.__name__, **settings}
        return model

    FACTORIES[build.__name__] = made
    return made


@factory
def mlp_vae(
    latent_dim: int,
    hidden: Sequence[int] = (400,),
    *,
    x_shape: Sequence[int] = (1, 28, 28),
    activation: Activation = "relu",
    norm: Literal["layer"] | None = None,
    likelihood: Likelihood = bernoulli,
    posterior: Posterior = normal,
    prior: Distribution | nn.Module | None = None,
) -> VAE:
    """A VAE whose encoder and decoder are multilayer perceptrons, mirrored.

    Args:
        latent_dim: L, the size of z.
        hidden: the encoder's hidden sizes, from x to z.
        x_shape: the shape of one example.
        activation: as in `nets.mlp`.
        norm: as in `nets.mlp`.
        likelihood: as in `VAE`.
        posterior: as in `VAE`.
        prior: as in `VAE`.

    Raises:
        ValueError: for sizes that are not positive whole numbers, and names that are not known.

    Example:
        >>> import vaelib
        >>> vaelib.mlp_vae(latent_dim=2, hidden=(16,)).sample(3).shape
        torch.Size([3, 1, 28, 28])
    """
    latent_dim = positive_int("latent_dim", latent_dim)
    x_shape, hidden = tuple(x_shape), tuple(hidden)
    num_outputs = num_parameters(posterior, latent_dim)
    encoder = nn.Sequential(
        Flatten(), *mlp((math.prod(x_shape), *hidden, num_outputs), activation, norm)
    )
    out_shape = decoder_shape(likelihood, x_shape)
    decoder = nn.Sequential(
        *mlp((latent_dim, *reversed(hidden), math.prod(out_shape)), activation, norm),
        nn.Unflatten(1, out_shape),
    )
    return VAE(encoder, decoder, latent_dim, likelihood, prior, x_shape, posterior)


@factory
def conv_vae(
    latent_dim: int,
    channels: Sequence[int] = (32, 64),
    *,
    blocks: int = 0,
    x_shape: Sequence[int] = (1, 28, 28),
    activation: Activation = "silu",
    likelihood: Likelihood = bernoulli,
    posterior: Posterior = normal,
    prior: Distribution | nn.Module | None = None,
) -> VAE:
    """A VAE whose encoder and decoder are convolutional, mirrored.

    Args:
        latent_dim: L, the size of z.
        channels: of the encoder's stages, each half as high and wide as the one before.
        blocks: residual blocks a stage.
        x_shape: the shape of one example, (C, H, W).
        activation: as in `nets.mlp`.
        likelihood: as in `VAE`.
        posterior: as in `VAE`.
        prior: as in `VAE`.

    Raises:
        ValueError: as `nets.conv_encoder` does.

    Example:
        >>> import vaelib
        >>> logistic = vaelib.likelihoods.discretized_logistic()
        >>> model = vaelib.conv_vae(2, (8,), x_shape=(3, 8, 8), likelihood=logistic)
        >>> model.sample(5).shape
        torch.Size([5, 3, 8, 8])
    """
    latent_dim = positive_int("latent_dim", latent_dim)
    x_shape, channels = tuple(x_shape), tuple(channels)
    num_outputs = num_parameters(posterior, latent_dim)
    encoder = conv_encoder(x_shape, num_outputs, channels, blocks, activation)
    out_shape = decoder_shape(likelihood, x_shape)
    decoder = conv_decoder(latent_dim, out_shape, channels, blocks, activation)
    return VAE(encoder, decoder, latent_dim, likelihood, prior, x_shape, posterior)


def decoder_shape(likelihood: Likelihood, x_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a decoder's output must have for a likelihood of x of shape x_shape."""
    num_channels = getattr(likelihood, "num_channels", None)
    return x_shape if num_channels is None else (num_channels(x_shape[0]), *x_shape[1:])


__all__ = ["conv_vae", "mlp_vae"]
