"""Estimates: how likely a model finds data, with their errors.

Introduced in book/foundations/05_first_vae.ipynb.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arrays import Data, as_tensor, binarize, check_data
from .contract import labels_of, likelihood_of, prepared, takes_missing
from .distributions import is_bernoulli
from .draw import Draw, latents_of
from .model import VAE
from .modes import positive_int, seeded, tensor_like


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x), in nats, and its errors.

    Attributes:
        mean: the average over examples.
        stderr: its standard error over examples, sd / sqrt(N).
        mc_stderr: its Monte Carlo error, by the delta method; 0 where every value is listed.
        ess: [N], effective sample size, of num_samples.
        values: [N], log p(x) of each example.
        num_samples: samples an example; 1 where every value is listed, since that says it all.
        data_seed: of the bits; None where nothing was drawn: the data were scored as they are.
        seed: of the samples.
        curve: the mean that the first k samples give, for k = num_samples, half of it ...
        bound: whether it is a lower bound however many samples, as for a quantized code.
        conditional: whether it is of log p(x|y).
        acceptance: the share of moves that annealed chains made; None for other estimates.
        density_stderr: the error of densities that are estimates themselves, such as a resampled
            prior's; it is one for all examples, no number of which makes it smaller.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> vaelib.log_marginal(model, torch.ones(3, 4), num_samples=8)
        log p(x) = ... nats (Monte Carlo error ...; 3 examples, binarized with seed 0; K = 8)
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
    bound: bool = False
    conditional: bool = False
    acceptance: float | None = None
    density_stderr: float = 0.0

    @property
    def last_gain(self) -> float:
        """What the last doubling of the samples added to the mean, nats; nan for a single one.

        Where the curve bends as 1 / K, about as much is still missing.
        """
        k = self.num_samples
        return self.curve[k] - self.curve[k // 2] if k > 1 and self.curve else math.nan

    def __repr__(self) -> str:
        what = "log p(x|y)" if self.conditional else "log p(x)"
        bits = "as given" if self.data_seed is None else f"binarized with seed {self.data_seed}"
        return (
            f"{what} = {self.mean:.2f} +- {self.stderr:.2f} nats (Monte Carlo error "
            f"{self.mc_stderr:.3f}; {len(self.values):,} examples, {bits}; "
            f"K = {self.num_samples:,}"
            + ("" if self.acceptance is None else f"; {self.acceptance:.0%} of moves accepted")
            + (f"; a density is estimated, +- {e:.3f}" if (e := self.density_stderr) else "")
            + ("; a lower bound, however many draws)" if self.bound else ")")
        )


@torch.no_grad()
def log_marginal(
    model: nn.Module,
    x: Data,
    num_samples: int = 500,
    data_seed: int = 0,
    seed: int = 0,
    y: Any = None,
) -> Estimate:
    """Importance-sampling estimate of log p(x), nats; a lower bound in expectation.

    Under a Bernoulli likelihood grey pixels are drawn once, over the whole array in its order, so
    that every model is scored on the same bits. Memory does not grow with num_samples; sums are
    kept in float64 (Burda, Grosse & Salakhutdinov, ICLR 2016, Equation 8; the error is the delta
    method's, Owen, Monte Carlo, 2013, Section 9.2).

    Args:
        model: any model of the contract; where all its latents are listed the answer is exact.
        x: [N, ...].
        num_samples: samples an example, each with all values that are listed for it.
        data_seed: of the bits.
        seed: of the samples.
        y: labels [N, ...], if not in x, for a model of p(x|y); the estimate is then of that.

    Raises:
        ValueError: for data that the likelihood does not take, and labels too many or missing.
        TypeError: for what is not an array.

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> vaelib.log_marginal(model, torch.ones(3, 4), num_samples=10).values.shape
        torch.Size([3])
    """
    num_samples = positive_int("num_samples", num_samples)
    data = scored(model, x, y, data_seed)
    if data.listed:
        num_samples = 1

    log_sums, log_sums_squares = [], []
    marks = sorted({num_samples >> i for i in range(num_samples.bit_length())})
    curve = dict.fromkeys(marks, 0.0)
    # Of p(x|z) at a time: pixels that a CPU's cache holds, 2 MB in float32, or that fill a GPU.
    rows = 2 ** (19 if data.first.z.device.type == "cpu" else 26) // max(1, data.x[0].numel())
    most = max(1, rows // data.first.values)  # samples
    with seeded(model, seed):
        for batch, labels in data.batches(max(1, most // num_samples)):
            log_sum = log_sum_squares = torch.tensor(-math.inf, dtype=torch.float64)
            for start in range(0, num_samples, most):
                k = min(most, num_samples - start)
                log_w = model(batch, k, **labels).log_w_by_sample.double().cpu()
                so_far = torch.logaddexp(log_sum, log_w.logcumsumexp(0))  # row i: of start + i + 1
                for mark in marks:
                    if start < mark <= start + k:
                        values_here = so_far[mark - start - 1] - math.log(mark)
                        curve[mark] += values_here.sum().item() / len(data.x)
                log_sum = so_far[-1]
                log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_w).logsumexp(0))
            log_sums.append(log_sum)
            log_sums_squares.append(log_sum_squares)
    sums = torch.cat(log_sums), torch.cat(log_sums_squares)
    estimate = data.says(summary(*sums, num_samples, data.data_seed, seed, curve))
    return replace(estimate, mc_stderr=0.0) if data.listed else estimate


# The data as they are scored ---------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Data as a model is scored on them, and what the model says of the first example.

    Attributes:
        x: [N, ...], bits drawn, all checked.
        y: [N, ...], the labels of a model of p(x|y), else None.
        data_seed: of the bits, None where none were drawn.
        px_z: p(x|z), of two examples, which tells the likelihood.
        first: the draw of the first example.
        bound: whether its estimates are bounds.
        density_stderr: the error of densities that are estimates themselves.
    """

    x: Tensor
    y: Tensor | None
    data_seed: int | None
    px_z: Distribution
    first: Draw
    bound: bool
    density_stderr: float

    @property
    def listed(self) -> bool:
        """Whether one sample says it all, since every latent is a list of its values."""
        return not any(latent.is_drawn or latent.point for latent in latents_of(self.first))

    @property
    def exact(self) -> bool:
        """Whether log p(x) is found without an error: all is listed, and no density is a bound."""
        return self.listed and not self.bound

    def head(self, n: int) -> "Scored":
        """The first n examples."""
        return replace(self, x=self.x[:n], y=None if self.y is None else self.y[:n])

    def batches(self, size: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """`size` examples at a time, and their labels as the model's keywords."""
        for start in range(0, len(self.x), size):
            part = slice(start, start + size)
            yield self.x[part], {} if self.y is None else {"y": self.y[part]}

    def says(self, estimate: Estimate) -> Estimate:
        """The estimate, and what kind of one it is."""
        return replace(
            estimate,
            bound=self.bound,
            conditional=self.y is not None,
            density_stderr=self.density_stderr,
        )


@torch.no_grad()
def scored(model: nn.Module, data: Data, y: Any = None, data_seed: int = 0) -> Scored:
    """Check the data, draw their bits where the likelihood is Bernoulli, and look at the model."""
    y = labels_of(model, data, y)
    x = as_tensor(data)
    px_z = likelihood_of(model, x, y)
    missing = takes_missing(model)
    check_data(x, px_z, missing=missing)
    bits = is_bernoulli(px_z)
    if bits:
        x = binarize(x, data_seed, missing)
        if next(model.parameters(), None) is not None:  # else the data decide
            x = x.to(tensor_like(model).dtype)
    if not isinstance(model, VAE):  # which takes x as it is
        x = prepared(model, x)
    with seeded(model, 0):
        first = model(x[:1], 1, **({} if y is None else {"y": y[:1]}))
    facts = is_bound(model, first), first.density_stderr
    return Scored(x, y, data_seed if bits else None, px_z, first, *facts)


def is_bound(model: nn.Module, draw: Draw) -> bool:
    """Whether what this model and its draws say of log p(x) is a bound, however many draws."""
    return draw.is_bound or getattr(getattr(model, "prior", None), "density", "") == "bound"


@torch.no_grad()
def dream(model: nn.Module, y: Tensor | None = None) -> Draw:
    """The model's draw of an example that it makes up itself: what it is, without data."""
    with seeded(model, 0):
        x = model.generate(1, y)[0].sample()  # type: ignore[operator]
        return model(x, 1, **({} if y is None else {"y": y}))  # type: ignore[no-any-return]


def why_not_flat(draw: Draw) -> str:
    """Why a draw is not of one flat, continuous latent, as half a sentence; "" where it is."""
    latents = latents_of(draw)
    z = latents[0].z
    if len(latents) > 1:
        return f"this model has {len(latents)} latents"
    if latents[0].values > 1:
        how = "drawn by strata" if latents[0].is_drawn else "one of values that are listed"
        return f"this model's latent is {how}"
    if latents[0].point:
        return "this model's posterior is a point"
    if not z.is_floating_point() or z.dim() != 3:
        return f"this model's z is {z.dtype} {list(z.shape[2:])}".replace("torch.", "")
    return ""


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


def standard_error(values: Tensor) -> float:
    """sd / sqrt(N) of values [N]; nan for a single one."""
    n = len(values)
    return values.std().item() / math.sqrt(n) if n > 1 else math.nan
