"""KL(q || p) in closed form, where one is known."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MultivariateNormal, Normal

from .distributions import unwrap


def closed_form(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p), of the batch shape; None where none is known.

    By exact types, since a subclass may have a log_prob of its own.
    """
    kinds = type(q), type(p)
    if kinds == (Normal, Normal):
        var_ratio = (q.scale / p.scale).square()  # type: ignore[attr-defined]
        shift = (q.loc - p.loc) / p.scale  # type: ignore[attr-defined]
        return 0.5 * (var_ratio + shift.square() - 1 - var_ratio.log())
    if kinds == (Categorical, Categorical):
        weights = q.logits.exp()  # type: ignore[attr-defined]
        log_ratio = q.logits - p.logits  # type: ignore[attr-defined]
        return (weights * torch.where(weights > 0, log_ratio, 0.0)).sum(-1)
    if kinds == (Independent, Independent):
        if q.reinterpreted_batch_ndims != p.reinterpreted_batch_ndims:  # type: ignore[attr-defined]
            return None
        kl = closed_form(q.base_dist, p.base_dist)  # type: ignore[attr-defined]
        if kl is None:
            return None
        return kl.sum(tuple(range(-q.reinterpreted_batch_ndims, 0)))  # type: ignore[attr-defined]
    if kinds == (MultivariateNormal, Independent) and type(unwrap(p)) is Normal:
        normal = unwrap(p)
        mean, scale = normal.loc, normal.scale  # type: ignore[attr-defined]
        whitened = q.scale_tril / scale.unsqueeze(-1)  # type: ignore[attr-defined]
        shift = (q.loc - mean) / scale  # type: ignore[attr-defined]
        log_det = whitened.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        size = whitened.square().sum((-2, -1)) + shift.square().sum(-1)
        return 0.5 * (size - q.event_shape[0]) - log_det
    name = " ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
    try:
        return TORCHS[name](q, p) if name in TORCHS else None
    except NotImplementedError:  # as of two flows whose transforms differ
        return None


# The closed forms that torch knows, by the names of exact types: what torch.compile can look up.
TORCHS: dict[str, Callable[[Distribution, Distribution], Tensor]] = {
    " ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds): known
    for kinds, known in torch.distributions.kl._KL_REGISTRY.items()
    if Independent not in kinds
}
