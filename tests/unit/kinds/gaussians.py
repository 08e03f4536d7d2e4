"""What the kinds and their answers are made of: normals, and linear maps between them.

`Joint` is the linear algebra of the exact answers; `LinearNormal` is a layer that can hold them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

F64 = torch.float64
SX = 0.6  # the deviation of x, in every kind with Gaussian x


def fixed(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that no test moves."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def normal(loc: Tensor, scale: Any) -> Independent:
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def standard(dim: int) -> Independent:
    return normal(torch.zeros(dim, dtype=F64), torch.ones(dim, dtype=F64))


def full(mean: Tensor, cov: Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, cov, validate_args=False)


class Joint:
    """A Gaussian that grows: `then` appends weight v + bias + noise, v some of what is there."""

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        self.mean, self.cov = mean.detach(), cov.detach()

    def then(self, weight: Tensor, bias: Tensor, cov: Tensor, reads: slice = slice(None)):
        wide = torch.zeros(len(weight), len(self.mean), dtype=F64)
        wide[:, reads] = weight.detach()
        cross = wide @ self.cov
        below = torch.cat([cross, wide @ cross.T + cov.detach()], 1)
        mean = torch.cat([self.mean, wide @ self.mean + bias.detach()])
        return Joint(mean, torch.cat([torch.cat([self.cov, cross.T], 1), below]))

    def marginal(self, part: Any) -> MultivariateNormal:
        return full(self.mean[part], self.cov[part][:, part])

    def given(self, wanted: Any, known: Any) -> tuple[Tensor, Tensor, Tensor]:
        """p(wanted | known) = N(weight known + bias, cov)."""
        cross = self.cov[wanted][:, known]
        weight = torch.linalg.solve(self.cov[known][:, known], cross.T).T
        cov = self.cov[wanted][:, wanted] - weight @ cross.T
        return weight, self.mean[wanted] - weight @ self.mean[known], cov


class LinearNormal(nn.Module):
    """N(weight v + bias, S S'), v its input; S lower triangular. `lead`: several, by an index."""

    def __init__(self, inputs: int, outputs: int, lead: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*lead, outputs, inputs, dtype=F64))
        self.bias = nn.Parameter(torch.zeros(*lead, outputs, dtype=F64))
        self.log_diagonal = nn.Parameter(torch.zeros(*lead, outputs, dtype=F64))
        self.below = nn.Parameter(torch.zeros(*lead, outputs, outputs, dtype=F64))

    def set(self, weight: Tensor, bias: Tensor, cov: Tensor, at: Any = ...) -> None:
        scale_tril = torch.linalg.cholesky(cov)
        with torch.no_grad():
            self.weight[at], self.bias[at] = weight, bias
            self.log_diagonal[at] = scale_tril.diagonal(dim1=-2, dim2=-1).log()
            self.below[at] = scale_tril.tril(-1)

    @property
    def scale_tril(self) -> Tensor:
        return self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    @property
    def cov(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    def forward(self, v: Tensor, index: Any = ...) -> MultivariateNormal:
        loc = (self.weight[index] @ v.unsqueeze(-1)).squeeze(-1) + self.bias[index]
        return MultivariateNormal(loc, scale_tril=self.scale_tril[index], validate_args=False)

    @torch.no_grad()
    def shift(self, by: float = 0.5) -> Tensor:
        """Move the means, by `by` each; KL of N(m + by, C) from N(m, C), by' C^-1 by / 2."""
        self.bias += by
        delta = torch.full_like(self.bias, by)
        return 0.5 * (delta * torch.linalg.solve(self.cov, delta)).sum(-1)


def moved(q: MultivariateNormal, num_samples: int, noise: Tensor | None) -> Tensor:
    """z [K, B, D]: q's own draws, or made of the noise that came."""
    if noise is not None:
        return q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    return q.rsample() if len(q.batch_shape) == 2 else q.rsample((num_samples,))
