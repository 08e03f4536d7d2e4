"""Estimates: how likely a model finds data, and where the nats go, with their errors.

Introduced in book/foundations/05_first_vae.ipynb.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .data import Data, as_tensor, binarize, check_data
from .distributions import is_bernoulli, unwrap
from .model import in_eval_mode, likelihood_of, positive_int, tensor_like, values_checked


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x), in nats, and its errors.

    - mean: the average over examples.
    - stderr: its standard error over examples, sd / sqrt(N).
    - mc_stderr: its Monte Carlo error, by the delta method.
    - ess [N]: effective sample size, of num_samples.
    - values [N]: log p(x) of each example.
    - curve: the mean that the first k draws give, for k = num_samples, half of it, a quarter ...
    """

    mean: float
    stderr: float
    mc_stderr: float
    ess: Tensor
    values: Tensor
    num_samples: int
    data_seed: int | None  # None where nothing was drawn: the data were scored as they are
    seed: int
    curve: dict[int, float] = field(default_factory=dict)

    @property
    def last_gain(self) -> float:
        """What the last doubling of the draws added to the mean, nats; nan for a single draw.

        Where the curve bends as 1 / K, about as much is still missing.
        """
        k = self.num_samples
        return self.curve[k] - self.curve[k // 2] if k > 1 and self.curve else math.nan

    def __repr__(self) -> str:
        bits = "as given" if self.data_seed is None else f"binarized with seed {self.data_seed}"
        return (
            f"log p(x) = {self.mean:.2f} +- {self.stderr:.2f} nats (Monte Carlo error "
            f"{self.mc_stderr:.3f}; {len(self.values):,} examples, {bits}; "
            f"K = {self.num_samples:,})"
        )


@torch.no_grad()
def log_marginal(
    model: nn.Module, x: Data, num_samples: int = 500, data_seed: int = 0, seed: int = 0
) -> Estimate:
    """Importance-sampling estimate of log p(x), nats; a lower bound in expectation.

    x: [N, ...]. Under a Bernoulli likelihood grey pixels are drawn once, with `data_seed`, over
    the whole array in its order, so that every model is scored on the same bits. Memory does not
    grow with num_samples; sums are kept in float64 (Burda, Grosse & Salakhutdinov, ICLR 2016,
    Equation 8; the error is the delta method's, Owen, Monte Carlo, 2013, Section 9.2).
    """
    num_samples = positive_int("num_samples", num_samples)
    px_z = likelihood_of(model)
    x, drawn = scored(x, px_z, data_seed)

    log_sums, log_sums_squares = [], []
    marks = sorted({num_samples >> i for i in range(num_samples.bit_length())})
    curve = dict.fromkeys(marks, 0.0)
    rows = max(1, 2**19 // max(1, x[0].numel()))  # of z at a time: 2 MB of float32 pixels
    with seeded(model, seed), values_checked(model):
        for batch in x.split(max(1, rows // num_samples)):
            log_sum = log_sum_squares = torch.tensor(-math.inf, dtype=torch.float64)
            for start in range(0, num_samples, rows):
                k = min(rows, num_samples - start)
                log_w = model.draw(batch, k).log_w.double().cpu()  # type: ignore[operator]
                so_far = torch.logaddexp(log_sum, log_w.logcumsumexp(0))  # row i: of start + i + 1
                for mark in marks:
                    if start < mark <= start + k:
                        values_here = so_far[mark - start - 1] - math.log(mark)
                        curve[mark] += values_here.sum().item() / len(x)
                log_sum = so_far[-1]
                log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_w).logsumexp(0))
            log_sums.append(log_sum)
            log_sums_squares.append(log_sum_squares)
    sums = torch.cat(log_sums), torch.cat(log_sums_squares)
    return summary(*sums, num_samples, drawn, seed, curve)


def scored(x: Data, px_z: Distribution, data_seed: int) -> tuple[Tensor, int | None]:
    """The data as they are scored, and the seed of their bits: None where none were drawn."""
    x = check_data(x, px_z)
    return (binarize(x, data_seed), data_seed) if is_bernoulli(px_z) else (x, None)


def summary(
    log_sum: Tensor,
    log_sum_squares: Tensor,
    num_samples: int,
    data_seed: int | None,
    seed: int,
    curve: dict[int, float] | None = None,
    sign: float = 1.0,
) -> Estimate:
    """The Estimate from the logs of the sums of num_samples weights and of their squares, [N].

    sign: -1 where the weights' mean estimates 1 / p(x), so that values are -log of it.
    """
    values = sign * (log_sum - math.log(num_samples))
    ess = (2 * log_sum - log_sum_squares).exp()
    # Var(log mean w) is about Var(w) / (K E[w]^2); Var(w) / E[w]^2 is (K / ess - 1) K / (K - 1).
    variances = (1 / ess - 1 / num_samples).clamp(min=0) * num_samples / max(1, num_samples - 1)
    n = len(values)
    return Estimate(
        mean=values.mean().item(),
        stderr=standard_error(values),
        mc_stderr=variances.sum().sqrt().item() / n if num_samples > 1 else math.nan,
        ess=ess,
        values=values,
        num_samples=num_samples,
        data_seed=data_seed,
        seed=seed,
        curve=curve or {},
    )


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed torch's generators, in eval mode; put random state and mode back at the end."""
    like = tensor_like(model)
    devices = [like.device] if like.is_cuda else []
    with in_eval_mode(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Information:
    """Where the nats go: -ELBO = distortion + rate, rate = mutual information + marginal KL.

    All in nats, averages over examples. The last two are brackets, (low, high): see `information`.

    - rate: E KL(q(z|x) || p(z)); distortion: -E log p(x|z); with their standard errors.
    - mutual_information: between x and z under q, and the standard error of its low end.
      marginal_kl: KL(q(z) || p(z)).
    - kl_parts: the rate of each latent dimension (or layer), where the KL is analytic.
    - active_units: the latents whose posterior mean varies, see `active_units`.
    """

    rate: float
    rate_stderr: float
    distortion: float
    distortion_stderr: float
    elbo_stderr: float
    mutual_information: tuple[float, float]
    mutual_information_stderr: float
    marginal_kl: tuple[float, float]
    kl_parts: list[float] | None
    active_units: int

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
) -> Information:
    """Rate, distortion, and how much z tells about x: nats, over x [N, ...].

    The aggregate posterior q(z) is unknown; the mixture of the N posteriors stands in for it, at
    one z for each of the first `queries` examples. With the example's own posterior in the mixture
    the mutual information comes out low, and never above log N; without it, high; and the rate
    caps both (Hoffman & Johnson, 2016, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf;
    the brackets: Poole et al., ICML 2019, https://arxiv.org/abs/1905.06922, Section 2).
    """
    px_z = likelihood_of(model)
    x, _ = scored(x, px_z, data_seed)
    n = len(x)
    rates, distortions, parts, firsts, posteriors = [], [], [], [], []
    with seeded(model, seed), values_checked(model):
        for batch in x.split(128):
            draw = model.draw(batch, num_samples)  # type: ignore[operator]
            kl = draw.kl if draw.kl_parts is not None else (draw.log_qz_x - draw.log_pz).mean(0)
            rates.append(kl.double().cpu())
            distortions.append(-draw.log_px_z.double().mean(0).cpu())
            if draw.kl_parts is not None:
                parts.append(draw.kl_parts.double().sum(0).cpu())
            firsts.append(draw.z[0])
            posteriors.append(draw.qz_x)
    rate, distortion = torch.cat(rates), torch.cat(distortions)
    z = torch.cat(firsts)[:queries].unsqueeze(1)
    log_q = torch.cat([q.log_prob(z).double().cpu() for q in posteriors], 1)  # z_i under q(z|x_j)
    own = log_q.diagonal().clone()
    with_own = own - (log_q.logsumexp(1) - math.log(n))
    without = own - (log_q.fill_diagonal_(-math.inf).logsumexp(1) - math.log(max(1, n - 1)))
    mean_rate = rate.mean().item()
    low = min(mean_rate, max(0.0, with_own.mean().item()))
    high = max(low, min(mean_rate, without.mean().item()))
    return Information(
        rate=mean_rate,
        rate_stderr=standard_error(rate),
        distortion=distortion.mean().item(),
        distortion_stderr=standard_error(distortion),
        elbo_stderr=standard_error(rate + distortion),
        mutual_information=(low, high),
        mutual_information_stderr=standard_error(with_own),
        marginal_kl=(max(0.0, mean_rate - high), max(0.0, mean_rate - low)),
        kl_parts=(torch.stack(parts).sum(0) / n).tolist() if parts else None,
        active_units=_num_varying(torch.cat([q.mean for q in posteriors])),
    )


@torch.no_grad()
def active_units(model: nn.Module, x: Data, threshold: float = 0.01) -> int:
    """The number of latents whose posterior mean varies over x by more than `threshold`.

    The variance over examples of E[z_d | x], in units of z (Burda, Grosse & Salakhutdinov, ICLR
    2016, Section 5.3, https://arxiv.org/abs/1509.00519).
    """
    return _num_varying(encoded(model, x), threshold)


def _num_varying(means: Tensor, threshold: float = 0.01) -> int:
    return int((means.flatten(1).var(0) > threshold).sum())


@torch.no_grad()
def encoded(model: nn.Module, x: Data) -> Tensor:
    """The means of q(z|x), [N, D], in eval mode and a batch at a time; x may be grey."""
    with in_eval_mode(model):
        means = [model.encode(b).mean for b in as_tensor(x).split(512)]  # type: ignore[operator]
    return torch.cat(means).flatten(1)


def coverage(qz_x: Distribution, z: Tensor, level: float = 0.9) -> Tensor:
    """How often z lies in the central interval of q, [D]: `level`, where q is the posterior.

    z: [S, B, D], draws from the exact posterior of each example; qz_x: of batch shape [B], with
    independent dimensions whose `icdf` torch knows, such as a diagonal Gaussian.
    """
    tail = torch.full((), (1 - level) / 2, dtype=z.dtype, device=z.device)
    q = unwrap(qz_x)
    inside = (z >= q.icdf(tail)) & (z <= q.icdf(1 - tail))
    return inside.to(z.dtype).flatten(0, -2).mean(0)


def standard_error(values: Tensor) -> float:
    """sd / sqrt(N) of values [N]; nan for a single one."""
    n = len(values)
    return values.std().item() / math.sqrt(n) if n > 1 else math.nan
