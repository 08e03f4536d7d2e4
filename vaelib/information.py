"""Information: where the nats go, and what a model's codes say of x.

Introduced in book/models/07_evaluation.ipynb.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from .arrays import Data, as_tensor
from .contract import labels_of, prepared
from .distributions import unwrap
from .draw import Draw, latents_of
from .estimates import Scored, scored, standard_error
from .model import VAE
from .modes import positive_int, seeded


@dataclass(frozen=True)
class Information:
    """Where the nats go: -ELBO = distortion + rate, rate = mutual information + marginal KL.

    All in nats, averages over examples.

    Attributes:
        rate: E KL(q(z|x) || p(z)).
        rate_stderr: its standard error.
        distortion: -E log p(x|z).
        distortion_stderr: its standard error.
        elbo_stderr: the standard error of the ELBO.
        mutual_information: between x and z under q, a bracket (low, high); None where `notes` say
            why.
        mutual_information_stderr: the standard error of its low end.
        marginal_kl: KL(q(z) || p(z)), a bracket; None likewise.
        kl_parts: the rate of each latent dimension (or layer), where the KL is analytic.
        active_units: the numbers of the model's code that vary, see `vaelib.evaluate.active_units`.
        notes: a sentence on each thing that this model does not have.
    """

    rate: float
    rate_stderr: float
    distortion: float
    distortion_stderr: float
    elbo_stderr: float
    mutual_information: tuple[float, float] | None
    mutual_information_stderr: float | None
    marginal_kl: tuple[float, float] | None
    kl_parts: list[float] | None
    active_units: int
    notes: list[str] = field(default_factory=list)

    @property
    def elbo(self) -> float:
        """-(rate + distortion), nats."""
        return -(self.rate + self.distortion)


@torch.no_grad()
def information(
    model: nn.Module,
    x: Data,
    num_samples: int = 8,
    queries: int = 2000,
    data_seed: int = 0,
    seed: int = 0,
    y: Any = None,
) -> Information:
    """Rate, distortion, and how much z tells about x: nats.

    The aggregate posterior q(z) is unknown; the mixture of the N posteriors stands in for it, at
    one z for each of the first examples. With the example's own posterior in the mixture
    the mutual information comes out low, and never above log N; without it, high; and the rate
    caps both (Hoffman & Johnson, 2016,
    http://approximateinference.org/accepted/HoffmanJohnson2016.pdf; the brackets: Poole et al.,
    ICML 2019, https://arxiv.org/abs/1905.06922, Section 2).

    Args:
        model: any model of the contract; one of several latents, of a point or of p(x|y) has no
            such mixture, and says so in ``notes``.
        x: [N, ...]; grey pixels are drawn where the likelihood is Bernoulli.
        num_samples: samples an example, for what has no closed form.
        queries: how many z are looked up in the mixture.
        data_seed: of the bits.
        seed: of the samples.
        y: labels [N, ...], if not in x, for a model of p(x|y).

    Raises:
        ValueError: as `vaelib.log_marginal` does.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> found = vaelib.evaluate.information(model, torch.ones(20, 4))
        >>> low, high = found.mutual_information  # of twenty examples that are the same
        >>> round(low, 3)
        0.0
    """
    num_samples, queries = (
        positive_int("num_samples", num_samples),
        positive_int("queries", queries),
    )
    data = scored(model, x, y, data_seed)
    n, why = len(data.x), _why_no_mixture(data)
    rates, distortions, parts, codes, zs, posteriors = [], [], [], [], [], []
    with seeded(model, seed):
        for batch, labels in data.batches(max(1, 128 // data.first.values)):
            draw = model(batch, 1 if data.listed else num_samples, **labels)
            rates.append(draw.rate.double().cpu())
            distortions.append(-draw.mean(draw.log_px_z.double()).cpu())
            if draw.kl_parts is not None:
                parts.append(draw.kl_parts.double().sum(0).cpu())
            codes.append(_code(draw, getattr(model, "code", 0)))
            if not why:
                zs.append(_one_z(draw))
                posteriors.append(draw.qz_x)
        log_q = None if why else _log_q(posteriors, torch.cat(zs)[:queries])
    rate, distortion = torch.cat(rates), torch.cat(distortions)
    mean_rate = rate.mean().item()
    told = stderr = marginal = None
    if log_q is not None and math.isfinite(mean_rate):
        own = log_q.diagonal().clone()
        with_own = own - (log_q.logsumexp(1) - math.log(n))
        without = own - (log_q.fill_diagonal_(-math.inf).logsumexp(1) - math.log(max(1, n - 1)))
        low = min(mean_rate, max(0.0, with_own.mean().item()))
        high = max(low, min(mean_rate, without.mean().item()))
        told, stderr = (low, high), standard_error(with_own)
        marginal = (max(0.0, mean_rate - high), max(0.0, mean_rate - low))
    elif not why:
        why = "q(z|x) has no density at the z of other examples, or the rate is not finite"
    return Information(
        rate=mean_rate,
        rate_stderr=standard_error(rate),
        distortion=distortion.mean().item(),
        distortion_stderr=standard_error(distortion),
        elbo_stderr=standard_error(rate + distortion),
        mutual_information=told,
        mutual_information_stderr=stderr,
        marginal_kl=marginal,
        kl_parts=(torch.stack(parts).sum(0) / n).tolist() if parts else None,
        active_units=_num_varying(torch.cat(codes)),
        notes=[f"Mutual information and marginal KL are left out: {why}."] if why else [],
    )


def _why_no_mixture(data: Scored) -> str:
    """Why a mixture of the examples' posteriors is no aggregate posterior; "" where it is."""
    latents = latents_of(data.first)
    if len(latents) > 1:
        return f"they are of a single latent, and this model has {len(latents)}"
    if latents[0].point:
        return "the posterior is a point, which has no density at the z of other examples"
    if data.y is not None:
        return "the model is p(x|y), and they would be of examples of equal y alone"
    return ""


def _one_z(draw: Draw) -> Tensor:
    """One z for each example, [B, ...], that follows q; of listed values, drawn by weight."""
    if draw.values == 1 or draw.log_weight is None:
        return draw.z[0]
    index = Categorical(logits=draw.log_weight.T).sample()
    return draw.z[index, torch.arange(len(index), device=index.device)]


def _log_q(posteriors: list[Distribution], z: Tensor) -> Tensor | None:
    """log q(z_i|x_j) of z [Q, ...], [Q, N]; None where the posteriors do not know it."""
    try:
        columns = [
            q.log_prob(z.unsqueeze(1).expand(-1, *q.batch_shape, *z.shape[1:])).double().cpu()
            for q in posteriors
        ]
        log_q = torch.cat(columns, 1)
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError, ValueError):
        return None
    return None if log_q.dim() != 2 or log_q.isnan().any() else log_q


# Codes -------------------------------------------------------------------------------------------


@torch.no_grad()
def active_units(model: nn.Module, x: Data, threshold: float = 0.01, y: Any = None) -> int:
    """How many numbers of the model's code vary over x.

    By the variance over examples of E[z_d | x], in units of z (Burda, Grosse & Salakhutdinov, ICLR
    2016, Section 5.3, https://arxiv.org/abs/1509.00519); of a categorical code, of each value's
    probability.

    Args:
        model: any model of the contract.
        x: [N, ...].
        threshold: the variance that a number must exceed.
        y: labels [N, ...], if not in x, for a model of p(x|y).

    Example:
        >>> import torch, vaelib
        >>> vaelib.evaluate.active_units(vaelib.mlp_vae(2, (8,), x_shape=(4,)), torch.ones(20, 4))
        0
    """
    return _num_varying(encoded(model, x, y), threshold)


def _num_varying(codes: Tensor, threshold: float = 0.01) -> int:
    return int((codes.var(0) > threshold).sum())


@torch.no_grad()
def encoded(model: nn.Module, x: Data, y: Any = None) -> Tensor:
    """The model's code of x, [N, D], in eval mode and a batch at a time; x may be grey.

    Of the latent that the model names, ``model.code`` (the first by default), the means of q; of a
    categorical one its probabilities; of one that has neither, such as a point, z itself. The
    random state is left as it was.

    Args:
        model: any model of the contract.
        x: [N, ...].
        y: labels [N, ...], if not in x, for a model of p(x|y).

    Example:
        >>> import torch, vaelib
        >>> vaelib.evaluate.encoded(vaelib.mlp_vae(2, (8,), x_shape=(4,)), torch.rand(20, 4)).shape
        torch.Size([20, 2])
    """
    y, x = labels_of(model, x, y), as_tensor(x)
    place, codes = getattr(model, "code", 0), []
    with seeded(model, 0):
        for start in range(0, len(x), 512):
            part = slice(start, start + 512)
            labels = {} if y is None else {"y": y[part]}
            code = None
            if place == 0 and isinstance(model, VAE):  # no need to draw, and to decode
                code = _of_posterior(model.encode(x[part], **labels))  # type: ignore[operator]
            if code is None:
                code = _code(model(prepared(model, x[part]), 1, **labels), place)
            codes.append(code.reshape(len(code), -1))
    return torch.cat(codes)


def _code(draw: Draw, place: int) -> Tensor:
    """The code of each example, [B, D], that the latent at this place is read as."""
    latents = latents_of(draw)
    if not 0 <= place < len(latents):
        raise ValueError(
            f"model.code is {place}, but there are {len(latents)} latents; expected the place of "
            "one of them, from 0."
        )
    latent = latents[place]
    code, leading = _of_posterior(latent.q), len(latent.q.batch_shape)
    if code is None and 1 < latent.values == len(latent.z):  # listed
        code, leading = latent.q.log_prob(latent.z).exp().T, 1
    if code is None:
        code, leading = latent.z.to(draw.log_px_z.dtype), 2
    if leading == 1:
        return code.reshape(len(code), -1)
    code = code.reshape(*code.shape[:2], -1)  # the mean over the draws that it depends on
    return torch.stack([draw.mean(numbers) for numbers in code.unbind(-1)], -1)


def _of_posterior(q: Distribution) -> Tensor | None:
    """The means of q, or its probabilities where it has no finite mean; None for neither."""
    for distribution, name in ((q, "mean"), (unwrap(q), "probs")):
        try:
            code = getattr(distribution, name)
        except (AttributeError, NotImplementedError):
            continue
        if code.isfinite().all():
            return code
    return None


def coverage(qz_x: Distribution, z: Tensor, level: float = 0.9) -> Tensor:
    """How often z lies in the central interval of q, [D]: the level, where q is the posterior.

    Args:
        qz_x: of batch shape [B], with independent dimensions whose ``icdf`` torch knows, such as a
            diagonal Gaussian.
        z: [S, B, D], draws from the exact posterior of each example.
        level: the probability of the interval under q.

    Example:
        >>> import torch, vaelib
        >>> from torch.distributions import Normal
        >>> quantiles = torch.linspace(0.005, 0.995, 100).view(100, 1, 1)
        >>> z = Normal(0.0, 1.0).icdf(quantiles)  # of a posterior twice as wide as q
        >>> vaelib.evaluate.coverage(Normal(torch.zeros(1, 1), 0.5), z, level=0.9)
        tensor([0.5800])
    """
    tail = torch.full((), (1 - level) / 2, dtype=z.dtype, device=z.device)
    q = unwrap(qz_x)
    inside = (z >= q.icdf(tail)) & (z <= q.icdf(1 - tail))
    return inside.to(z.dtype).flatten(0, -2).mean(0)
