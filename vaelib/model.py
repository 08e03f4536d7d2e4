"""The model: how it sees x (`infer`) and how it dreams (`generate`).

A batch is [B, ...]; draws from the posterior are [K, B, ...], with K = num_samples there also
when it is 1. Log-densities are in nats, summed over the event. Introduced in
book/foundations/05_first_vae.ipynb; book/bring_your_own.md shows models of all kinds.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from .arrays import Data, as_labels, as_tensor, check_values, scale_pixels
from .distributions import unwrap
from .draw import Draw, as_inferred, check_count
from .likelihoods import bernoulli
from .modes import positive_int, said, tensor_like
from .nets import call
from .posteriors import Posterior, as_event, latent, normal, num_parameters

Likelihood = Callable[[Tensor], Distribution]


class VAE(nn.Module):
    """A variational autoencoder, of parts or of methods of your own.

    One flat latent z needs the parts below (Kingma & Welling, ICLR 2014,
    https://arxiv.org/abs/1312.6114). Another kind of model is a subclass that writes `infer` and
    `generate`, and then needs none of them.

    Args:
        encoder: [B, ...] -> [B, 2 * latent_dim], what `posterior` reads.
        decoder: [N, latent_dim] -> [N, ...], parameters of p(x|z).
        latent_dim: L, the size of z.
        likelihood: parameters [..., ...] -> a distribution over x (`bernoulli`,
            `gaussian`, or a callable of yours; one with parameters is an `nn.Module`).
        prior: a distribution over [latent_dim], or a module whose ``forward()`` returns one (one
            whose forward takes the model is given it); the standard normal by default. A
            distribution stays on the device it was made on, a module moves with the model.
        x_shape: the shape of one example, if inputs are to be checked against it.
        posterior: the encoder's output -> q(z|x), of batch axis [B]; by default
            `posteriors.normal`, of means and log-variances. VAE declares every other axis as event.

    Attributes:
        labels: None; "given" for p(x|y), whose y is handed over at every use, to the encoder and
            the decoder as a second argument; "learnt" for a model that is told y, [B], in
            training only, -1 where it is missing.
        noise_dim: how many standard normals a draw takes from outside; None for a model that
            draws its own.
        missing: whether NaN in x is a missing entry, to which the likelihood gives
            log-probability 0; elsewhere it is an error.
        code: the place, among the latents, of the one that is read as the code of x.

    Raises:
        TypeError: for parts that are missing, where no subclass writes `infer`.

    Example:
        >>> import torch, vaelib
        >>> encoder, decoder = torch.nn.Linear(4, 2 * 2), torch.nn.Linear(2, 4)
        >>> model = vaelib.VAE(encoder, decoder, latent_dim=2)
        >>> model.draw(torch.ones(3, 4), num_samples=5).log_w.shape
        torch.Size([5, 3])
    """

    labels: Literal["given", "learnt"] | None = None
    noise_dim: int | None = None
    missing: bool = False
    code: int = 0

    def __init__(
        self,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_dim: int | None = None,
        likelihood: Likelihood = bernoulli,
        prior: Distribution | nn.Module | None = None,
        x_shape: Sequence[int] | None = None,
        posterior: Posterior = normal,
    ) -> None:
        super().__init__()
        own = {name for name in ("infer", "encode", "draw") if _overridden(self, name)}
        if "infer" not in own and (encoder is None or decoder is None or latent_dim is None):
            raise TypeError(
                f"{type(self).__name__} got no encoder, decoder or latent_dim; expected all three, "
                "or a subclass that writes infer and generate."
            )
        self.has_parts = encoder is not None and latent_dim is not None
        self.encoder = encoder
        self.decoder = decoder
        self.latent_dim = (
            latent_dim if latent_dim is None else positive_int("latent_dim", latent_dim)
        )
        self.likelihood = likelihood
        self.prior = prior
        self.posterior = posterior
        self.x_shape = None if x_shape is None else tuple(x_shape)
        self.architecture: dict[str, Any] | None = None  # set by factories, read by `save`
        if not own and posterior is normal and self.noise_dim is None:
            self.noise_dim = self.latent_dim

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "prior":  # found out here, since torch.compile cannot follow a signature
            self.prior_reads_model = _reads_model(value)

    # How it sees, how it dreams

    def infer(
        self, x: Tensor, num_samples: int = 1, noise: Tensor | None = None, y: Tensor | None = None
    ) -> tuple[Any, ...]:
        """p(x|z) at K draws, then the latents in their order: another kind of model writes this.

        Args:
            x: [B, ...], as `prepare` gives it.
            num_samples: K, or S where values are listed.
            noise: standard normal [K, B, noise_dim], or None.
            y: [B, ...], as `prepare_labels` gives it.

        Returns:
            A distribution over x of batch shape [K, B], and a `Latent` a layer.
        """
        seen = latent(self.encode(x, y), self.pz(), num_samples, noise)
        return self.decode(seen.z, y), seen

    def generate(self, n: int, y: Tensor | None = None) -> tuple[Any, ...]:
        """p(x|z) of batch shape [n] for z drawn from the prior, then those z, in infer's order.

        A model that is not one flat latent writes this one, too.

        Args:
            n: how many.
            y: labels [n, ...], for a model that takes them.
        """
        if self.decoder is None:
            raise NotImplementedError(
                f"{type(self).__name__} writes no generate; expected one that draws its latents "
                "from the prior and returns p(x|z), then them."
            )
        z = self.pz().sample((n,))
        return self.decode(z, y), z

    def forward(
        self,
        x: Data,
        num_samples: int = 1,
        noise: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Draw:
        """The draw, its shapes checked and not its values: what loops call."""
        if _overridden(self, "draw"):  # a draw of your own counts, in loops, too
            given = {"noise": noise, "y": y}
            return self.draw(x, num_samples, **{k: t for k, t in given.items() if t is not None})
        return self._drawn(x, num_samples, noise, y)

    def draw(
        self,
        x: Data,
        num_samples: int = 1,
        noise: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Draw:
        """Draw z from q(z|x), num_samples times for each example: what people call.

        Args:
            x: [B, ...], fit for the likelihood (binary under a Bernoulli).
            num_samples: K, draws an example.
            noise: standard normal [K, B, noise_dim], if it is to be yours.
            y: labels [B, ...], for a model that takes them.

        Raises:
            ValueError: for shapes, labels, noise and values that the model does not take.
            TypeError: for what is not an array.
        """
        return self._drawn(x, num_samples, noise, y, check=True)

    def _drawn(
        self,
        x: Data,
        num_samples: int,
        noise: Tensor | None,
        y: Tensor | None,
        check: bool = False,
    ) -> Draw:
        x = self.prepare(x)
        y = self.prepare_labels(y, len(x))
        if noise is not None:
            if self.noise_dim is None:
                raise ValueError(
                    "noise was handed to a model that draws its own (noise_dim is None); expected "
                    "none."
                )
            fits = noise.dim() == 3 and noise.shape[1:] == (len(x), self.noise_dim)
            if not fits or num_samples not in (1, len(noise)):
                raise ValueError(
                    f"noise has shape {list(noise.shape)}; expected [num_samples, {len(x)}, "
                    f"{self.noise_dim}]."
                )
            num_samples = len(noise)
        num_samples = positive_int("num_samples", num_samples)
        px_z, *latents = as_inferred(self.infer(x, num_samples, noise, y))
        check_count(latents, num_samples)
        if check:
            check_values(x, px_z, self.missing)
        return Draw.of(x, px_z, *latents, y=y)

    # Its parts

    def prepare(self, x: Data) -> Tensor:
        """x on the model's device, pixels as floats, floats in the model's dtype: [B, ...].

        int64 (counts, tokens) keep their values: the first layer of a network casts.

        Raises:
            ValueError: for another shape than the model's, or no example.
        """
        x = as_tensor(x)
        if x.dim() < 2 or len(x) == 0 or (self.x_shape and x.shape[1:] != self.x_shape):
            expected = ", ".join(map(str, self.x_shape)) if self.x_shape else "..."
            raise ValueError(
                f"x has shape {list(x.shape)}; expected a batch [B, {expected}] with B at least 1."
            )
        if next(self.parameters(), None) is None:
            return scale_pixels(x)  # device and dtype follow the data
        like = tensor_like(self)
        x = scale_pixels(x.to(like.device), like.dtype)
        return x.to(like.dtype) if x.is_floating_point() else x

    def prepare_labels(self, y: Any, n: int) -> Tensor | None:
        """The labels of n examples on the model's device, or None where it takes none.

        Raises:
            ValueError: for labels that are missing, too many, or not wanted.
        """
        if y is None:
            if self.labels == "given":
                raise ValueError(
                    'The model is p(x|y) (labels = "given") and got no labels; expected y '
                    f"[{n}, ...], one for each example."
                )
            return None
        if self.labels is None:
            raise ValueError("y was handed to a model that takes no labels; expected none.")
        y = as_labels(y).to(tensor_like(self).device)
        if len(y) != n:
            raise ValueError(f"y has {len(y)} labels for {n} examples; expected one for each.")
        return y

    def encode(self, x: Data, y: Tensor | None = None) -> Distribution:
        """q(z|x) of the first latent, of batch shape [B].

        Args:
            x: [B, ...]; it may be grey.
            y: labels [B, ...], for a model that takes them.

        Raises:
            ValueError: for an encoder whose output the posterior does not fit.
        """
        x = self.prepare(x)
        y = self.prepare_labels(y, len(x))
        if self.encoder is None or self.latent_dim is None or not self.has_parts:
            return as_inferred(self.infer(x, 1, None, y))[1].q  # a model that writes infer
        parameters = call(self.encoder, x, *(() if y is None else (y,))).to(_float_dtype(x, self))
        expected = (len(x), num_parameters(self.posterior, self.latent_dim))
        if parameters.shape != expected and not _flexible(self.posterior):
            raise ValueError(
                f"The encoder returned shape {list(parameters.shape)}; expected {list(expected)}, "
                f"what the posterior reads for each of {self.latent_dim} latent dimensions."
            )
        qz_x = as_event(self.posterior(parameters), 1)
        if qz_x.event_shape != (self.latent_dim,) or qz_x.batch_shape != (len(x),):
            raise ValueError(
                f"The posterior has batch shape {list(qz_x.batch_shape)} and event shape "
                f"{list(qz_x.event_shape)}; expected [{len(x)}] and [{self.latent_dim}]."
            )
        return qz_x

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """The likelihood p(x|z), of batch shape [...].

        Args:
            z: [..., latent_dim].
            y: labels [B], for a model that takes them, where z is [B, L] or [K, B, L].

        Raises:
            ValueError: for z of another shape, a decoder that fails on it, a model that has none.
        """
        if self.decoder is None or self.latent_dim is None:
            raise ValueError(
                f"{type(self).__name__} has no decoder of one flat z; use generate, sample or "
                "reconstruct."
            )
        if not isinstance(z, Tensor):
            raise TypeError(f"z is a {type(z).__name__}; expected a tensor of latents.")
        if z.dim() == 0 or z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"z has shape {list(z.shape)}; expected [..., {self.latent_dim}], with the latent "
                "dimension last."
            )
        lead = z.shape[:-1]
        y = self.prepare_labels(y, lead[-1] if lead else 1)
        given = () if y is None else (y.expand(*lead, *y.shape[1:]).flatten(0, len(lead) - 1),)
        flat = z.reshape(-1, self.latent_dim)
        try:
            parameters = call(self.decoder, flat, *given).to(z.dtype)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if torch.compiler.is_compiling():
                raise
            raise ValueError(
                f"The decoder failed on z of shape {list(flat.shape)}: {said(error).rstrip('.')}; "
                "expected a network of flat latents, "
                f"[N, {self.latent_dim}] -> [N, ...]: one that wants a feature map begins with "
                "nn.Unflatten(1, (channels, height, width))."
            ) from error
        return as_event(self.likelihood(parameters.reshape(lead + parameters.shape[1:])), len(lead))

    def pz(self) -> Distribution:
        """The prior p(z), of event shape [latent_dim].

        Raises:
            ValueError: for a prior over something else.
        """
        prior = self.prior
        if prior is None:
            zero = tensor_like(self).new_zeros(self.latent_dim)  # type: ignore[arg-type]
            return Independent(Normal(zero, zero + 1, validate_args=False), 1, validate_args=False)
        if isinstance(prior, nn.Module):
            prior = prior(self) if self.prior_reads_model else prior()
        pz: Distribution = prior  # type: ignore[assignment]
        if pz.event_shape == () and pz.batch_shape == (self.latent_dim,):
            pz = Independent(pz, 1, validate_args=False)
        if pz.event_shape != (self.latent_dim,):
            raise ValueError(
                f"The prior has batch shape {list(pz.batch_shape)} and event shape "
                f"{list(pz.event_shape)}; expected an event of [{self.latent_dim}], latent_dim."
            )
        return pz

    # What people look at

    @torch.no_grad()
    def sample(self, n: int = 1, mean: bool = True, y: Tensor | None = None) -> Tensor:
        """Examples from the model: [n, ...].

        Args:
            n: how many.
            mean: means of p(x|z), or else draws from it.
            y: labels [n, ...], for a model that takes them.

        Raises:
            ValueError: for means where p(x|z) has none.
        """
        n = positive_int("n", n)
        return _shown(self.generate(n, self.prepare_labels(y, n))[0], mean)

    @torch.no_grad()
    def reconstruct(self, x: Data, mean: bool = True, y: Tensor | None = None) -> Tensor:
        """Encode x, draw z, decode: [B, ...], of x's shape.

        Args:
            x: [B, ...]; it may be grey.
            mean: means of p(x|z), or else draws from it.
            y: labels [B, ...], for a model that takes them.

        Raises:
            ValueError: for means where p(x|z) has none.
        """
        x = self.prepare(x)
        y = self.prepare_labels(y, len(x))
        px_z, *latents = as_inferred(self.infer(x, 1, None, y))
        shown = _shown(px_z, mean)
        if len(shown) == 1:
            return shown[0]
        log_weight: Any = Draw.of(x, px_z, *latents, y=y).log_weight  # of values that are listed
        index = Categorical(logits=log_weight.T).sample()
        return shown[index, torch.arange(shown.shape[1], device=shown.device)]


def _overridden(model: VAE, name: str) -> bool:
    return getattr(type(model), name) is not getattr(VAE, name)


def _reads_model(prior: Any) -> bool:
    """Whether a prior is a module whose forward takes the model."""
    if not isinstance(prior, nn.Module):
        return False
    parameters = inspect.signature(prior.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return any(p.default is p.empty for p in named)


def _flexible(posterior: Posterior) -> bool:
    """Whether a posterior of yours may read another number of parameters than it says."""
    return posterior.__module__ != normal.__module__ and not hasattr(posterior, "num_parameters")


def _float_dtype(x: Tensor, model: nn.Module) -> torch.dtype:
    return x.dtype if x.is_floating_point() else tensor_like(model).dtype


def _shown(px_z: Any, mean: bool) -> Tensor:
    if not mean:
        return px_z.sample()
    try:
        shown = px_z.mean
    except NotImplementedError:
        shown = None
    if shown is None or bool(shown.isnan().all()):  # as torch says it of a Categorical
        raise ValueError(
            f"p(x|z), a {type(unwrap(px_z)).__name__}, has no mean; expected mean=False, for draws."
        )
    return shown


__all__ = ["VAE"]
