"""Disentanglement: how the numbers of a code [N, L] and known factors [N, F] match one another.

Codes are floating, factors int64 classes; every score is higher for better, and blind to the order,
sign and scale of the latents. They disagree on purpose: MIG, SAP and completeness want one latent a
factor, modularity and disentanglement one factor a latent, and the FactorVAE score one factor for
the stillest latent. None is 0 for a useless code of few examples: compare at equal N, and with the
score of the same codes in another order. Those that fit a classifier or match columns are in
`vaelib.predictability`.

Introduced in book/models/14_disentanglement.ipynb.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from .distributions import kind_of, unwrap
from .modes import positive_int

ROUNDING = 1e-10  # nats: what a latent that does not move may seem to know

# Mutual information -------------------------------------------------------------------------------


def factor_information(
    codes: Tensor | Distribution, factors: Tensor, bins: int = 20, seed: int = 0
) -> Tensor:
    """Mutual information of each latent with each factor: [L, F], nats.

    Of a tensor, by a histogram of equal bins between the least and the greatest value (Locatello et
    al., ICML 2019, https://arxiv.org/abs/1811.12359, Appendix C). Of q(z|x), by its density, at one
    z an example, the N posteriors standing for q(z), those of a class for q(z|v) (Chen et al.,
    NeurIPS 2018, https://arxiv.org/abs/1802.04942, Appendix B). Both are biased upwards: a latent
    that knows nothing of v has about (cells - 1)(classes - 1) / 2N nats, where q's own width makes
    the cells of the second. The first also loses what differs within a bin, so it cannot see more
    than log(bins) of a factor's entropy; the second takes time as N squared.

    Args:
        codes: [N, L], or q(z|x) of batch shape [N] and independent dimensions.
        factors: classes [N, F].
        bins: of the histogram.
        seed: of the draws from q.

    Raises:
        ValueError: for other shapes, values that are not finite, and a factor of one value.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> vaelib.disentanglement.factor_information(factors.double(), factors)  # log 4 = 1.3863
        tensor([[1.3863, 0.0000],
                [0.0000, 1.3863]], dtype=torch.float64)
    """
    if isinstance(codes, Distribution):
        return _by_density(codes, factors, seed)
    codes, factors = checked(codes, factors)
    low, bins = codes.amin(0), positive_int("bins", bins)
    width = (codes.amax(0) - low) / bins
    width = torch.where(width > 0, width, 1.0)  # a latent that does not move falls in one bin
    place = ((codes - low) / width).long().clamp(max=bins - 1)
    cells = F.one_hot(place, bins).double().flatten(1)  # [N, L bins]
    columns = []
    for factor in factors.T:
        counts = cells.T @ _one_hot(factor)
        p = counts.view(codes.shape[1], bins, -1) / len(codes)
        h = torch.special.entr
        columns.append(h(p.sum(2)).sum(1) + h(p.sum(1)).sum(1) - h(p).sum((1, 2)))
    return torch.stack(columns, 1).clamp(min=0)  # -1e-16 is 0


@torch.no_grad()
def _by_density(qz_x: Distribution, factors: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        z = qz_x.sample()
    _, factors = checked(z, factors)
    if unwrap(qz_x).batch_shape != z.shape:
        raise ValueError(
            f"q(z|x) is {kind_of(qz_x)} of shape {list(z.shape)}; expected independent dimensions, "
            "such as a diagonal Gaussian's: hand over codes [N, L] instead."
        )
    one_hot = [_one_hot(factor) for factor in factors.T]
    total = torch.zeros(z.shape[1], len(one_hot), dtype=torch.float64)
    for rows in torch.arange(len(z)).split(64):
        log_q = unwrap(qz_x).log_prob(z[rows, None]).double().cpu()  # [64, N, L]
        q = (log_q - log_q.amax(1, keepdim=True)).exp()
        for k, member in enumerate(one_hot):  # the example itself is in both: never 0
            of_class = torch.einsum("qnl,qn->ql", q, member[rows] @ member.T)
            share = (member[rows] @ member.mean(0))[:, None]
            total[:, k] += (of_class / q.sum(1) / share).log().sum(0)
    return (total / len(z)).clamp(min=0)


def mig(codes: Tensor | Distribution, factors: Tensor, bins: int = 20, seed: int = 0) -> float:
    """Mutual information gap, in [0, 1]: how far the best latent of a factor leads the second best.

    The lead over the factor's entropy, a mean over factors (Chen et al., NeurIPS 2018,
    https://arxiv.org/abs/1802.04942, Equation 6). The biases of `factor_information` cancel between
    two latents that know nothing, not in the leader of them. Factors count alike, whatever their
    entropy; one of more than ``bins`` classes cannot reach 1.

    Args:
        codes: [N, L], L at least 2, or q(z|x).
        factors: classes [N, F].
        bins: of the histogram, for a tensor.
        seed: of the draws, for q(z|x).

    Raises:
        ValueError: as `factor_information` does, and for one latent.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> round(vaelib.disentanglement.mig(factors.double(), factors), 6)
        1.0
    """
    information = factor_information(codes, factors, bins, seed)
    entropy = torch.stack(
        [torch.special.entr(_one_hot(factor).mean(0)).sum() for factor in factors.cpu().T]
    )
    return gap(information / entropy)


def modularity(
    codes: Tensor | Distribution, factors: Tensor, bins: int = 20, seed: int = 0
) -> float:
    """Modularity, in [0, 1]: 1 where each latent knows of one factor alone.

    One minus a latent's squared information on all but its best factor, over (F - 1) times that on
    the best; a mean over the latents that move (Ridgeway & Mozer, NeurIPS 2018,
    https://arxiv.org/abs/1802.05312, Section 3). One that moves but knows nothing is judged by its
    bias, whose ratios do not shrink with N: a useless code may score 0.8, and above a rotated one.

    Args:
        codes: [N, L], or q(z|x).
        factors: classes [N, F], F at least 2.
        bins: of the histogram, for a tensor.
        seed: of the draws, for q(z|x).

    Raises:
        ValueError: as `factor_information` does, for one factor, and where no latent moves.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> a, b = factors.double().T
        >>> codes = torch.stack([a, a, b], 1)  # a factor in two latents is no fault
        >>> round(vaelib.disentanglement.modularity(codes, factors), 6)
        1.0
    """
    information = factor_information(codes, factors, bins, seed)
    squared = information[information.amax(1) > ROUNDING].square()
    if not squared.numel() or squared.shape[1] < 2:
        raise ValueError(
            f"There are {information.shape[1]} factors and {len(squared)} latents that move; "
            "modularity expected two factors or more, and a latent that moves: add columns."
        )
    best = squared.amax(1)
    return (1 - (squared.sum(1) - best) / (best * (squared.shape[1] - 1))).mean().item()


# Sampling -----------------------------------------------------------------------------------------


def factor_vae_score(
    codes: Tensor,
    factors: Tensor,
    batch_size: int = 64,
    votes: int = 10_000,
    test_votes: int = 5_000,
    seed: int = 0,
) -> float:
    """The FactorVAE score, in [0, 1], 1/F by chance: the stillest latent tells the fixed factor.

    A vote: a factor and an example are drawn, then a batch of examples with that example's class of
    the factor; the latent of least variance in it, relative to its variance in all, is the vote.
    Each latent is given the factor that it mostly stands for, and the score is the accuracy of that
    on new votes (Kim & Mnih, ICML 2018, https://arxiv.org/abs/1802.05983, Section 4; counts of
    Locatello et al., 2019). Rows stand in for the generator, so factors should be independent of
    one another in them. A latent that does not move has no vote.

    Args:
        codes: [N, L].
        factors: classes [N, F], two examples or more of each class.
        batch_size: examples a vote; of 64, drawn with repetition.
        votes: that assign factors to latents.
        test_votes: that are scored.
        seed: of the draws.

    Raises:
        ValueError: for other shapes, a class of one example, and codes that do not move.

    Example:
        >>> import torch, vaelib
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> vaelib.disentanglement.factor_vae_score(factors.double(), factors)
        1.0
    """
    codes, factors = checked(codes, factors)
    spread = codes.std(0)
    codes = codes[:, spread > 0] / spread[spread > 0]
    classes = [f.unique(return_inverse=True, return_counts=True) for f in factors.T]
    counts = torch.stack([many[place] for _, place, many in classes])  # of each example's class
    if not codes.numel() or counts.min() < 2:
        raise ValueError(
            f"There are {codes.shape[1]} latents that move and {int(counts.min())} examples of the "
            "rarest class; expected a latent that moves, and two examples or more of each class: "
            "merge or drop rare classes."
        )
    draw = torch.Generator().manual_seed(seed)
    order = factors.argsort(0)  # the rows of a class lie together
    first = torch.stack([torch.searchsorted(f.sort()[0], f) for f in factors.T.contiguous()])
    winners, fixed = [], torch.randint(factors.shape[1], (votes + test_votes,), generator=draw)
    for k in fixed.split(1000):
        row = torch.randint(len(codes), k.shape, generator=draw)
        step = torch.rand(len(k), batch_size, dtype=torch.float64, generator=draw)
        place = first[k, row, None] + (step * counts[k, row, None]).long()
        winners.append(codes[order[place, k[:, None]]].var(1).argmin(1))
    winner = torch.cat(winners)
    table = torch.zeros(codes.shape[1], factors.shape[1], dtype=torch.long)
    ones = torch.ones(votes, dtype=torch.long)
    table.index_put_((winner[:votes], fixed[:votes]), ones, accumulate=True)
    return (table.argmax(1)[winner[votes:]] == fixed[votes:]).double().mean().item()


# What they share, with `vaelib.predictability` too ------------------------------------------------


def gap(scores: Tensor) -> float:
    """The lead of the best of [L, F] over the second best, a mean over F."""
    if len(scores) < 2:
        raise ValueError(
            f"The code has {len(scores)} latent; expected two or more, of which the best leads the "
            "second best: add columns."
        )
    best, second = scores.topk(2, 0).values
    return (best - second).mean().item()


def _one_hot(classes: Tensor) -> Tensor:
    return F.one_hot(classes.unique(return_inverse=True)[1]).double()


def checked(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, float64, and classes, on the CPU."""
    codes = columns_of("codes", codes)
    if factors.dtype != torch.int64 or factors.dim() != 2 or len(factors) != len(codes):
        raise ValueError(
            f"The factors are {str(factors.dtype).removeprefix('torch.')} {list(factors.shape)} "
            f"for {len(codes)} codes; expected int64 [N, F], a row a code: y[:, None] for one."
        )
    factors = factors.cpu()
    for k, factor in enumerate(factors.T):
        if factor.min() < 0 or factor.min() == factor.max():
            raise ValueError(
                f"Factor {k} goes from {factor.min()} to {factor.max()}; expected two classes or "
                "more, from 0: leave out rows without a label (-1) and columns of one value."
            )
    return codes, factors


def columns_of(name: str, t: Tensor) -> Tensor:
    """A code, or what is compared with one, [N, L], float64, on the CPU."""
    if t.dim() != 2 or len(t) < 2 or not t.isfinite().all():
        raise ValueError(
            f"The {name} have shape {list(t.shape)}; expected [N, L], N at least 2 and every value "
            "finite: flatten them, or leave out rows."
        )
    return t.detach().double().cpu()


__all__ = ["factor_information", "factor_vae_score", "mig", "modularity"]
