"""Evaluation: how likely a model finds data, with the errors of the answer.

Introduced in book/foundations/05_first_vae.ipynb.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import Data, binarize, check_data
from .distributions import is_bernoulli
from .model import likelihood_of, positive_int, tensor_like, values_checked


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x), in nats, and its errors.

    - mean: the average over examples.
    - stderr: its standard error over examples, sd / sqrt(N).
    - mc_stderr: its Monte Carlo error, by the delta method.
    - ess [N]: effective sample size, of num_samples.
    - values [N]: log p(x) of each example.
    """

    mean: float
    stderr: float
    mc_stderr: float
    ess: Tensor
    values: Tensor
    num_samples: int
    data_seed: int | None  # None where nothing was drawn: the data were scored as they are
    seed: int

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
    x = check_data(x, px_z)
    drawn = is_bernoulli(px_z)
    if drawn:
        x = binarize(x, data_seed)

    values, ess = [], []
    rows = max(1, 2**20 // max(1, x[0].numel()))  # of z at a time: 4 MB of float32 pixels
    images = min(len(x), 64, rows)
    draws = rows // images
    with seeded(model, seed), values_checked(model):
        for batch in x.split(images):
            log_sum = log_sum_squares = torch.tensor(-math.inf, dtype=torch.float64)
            for start in range(0, num_samples, draws):
                k = min(draws, num_samples - start)
                log_w = model.draw(batch, k).log_w.double().cpu()  # type: ignore[operator]
                log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
                log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_w).logsumexp(0))
            values.append(log_sum - math.log(num_samples))
            ess.append((2 * log_sum - log_sum_squares).exp())
    return _summary(
        torch.cat(values), torch.cat(ess), num_samples, data_seed if drawn else None, seed
    )


def _summary(
    values: Tensor, ess: Tensor, num_samples: int, data_seed: int | None, seed: int
) -> Estimate:
    # Var(log mean w) is about Var(w) / (K E[w]^2); Var(w) / E[w]^2 is (K / ess - 1) K / (K - 1).
    variances = (1 / ess - 1 / num_samples).clamp(min=0) * num_samples / max(1, num_samples - 1)
    n = len(values)
    return Estimate(
        mean=values.mean().item(),
        stderr=values.std().item() / math.sqrt(n) if n > 1 else math.nan,
        mc_stderr=variances.sum().sqrt().item() / n if num_samples > 1 else math.nan,
        ess=ess,
        values=values,
        num_samples=num_samples,
        data_seed=data_seed,
        seed=seed,
    )


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed torch's generators, in eval mode; put random state and mode back at the end."""
    like = tensor_like(model)
    devices = [like.device] if like.is_cuda else []
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        model.train(training)


__all__ = ["Estimate", "log_marginal"]
