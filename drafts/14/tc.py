"""The total correlation of a code, KL(q(z) || prod_l q(z_l)), from a minibatch, and the beta-TCVAE.

q(z) = (1/N) sum_n q(z|x_n) takes all N examples, and a step sees B of them. Both estimates of it
here are weighted sums over the batch, q(z_i) ~ sum_j w_ij q(z_i|x_j). That z_i is of example i
itself is what makes the weights matter: q(z_i|x_i) is often the only term that is not tiny, it
is in the batch for certain, and its share of q is 1/N.

Introduced in book/models/14_disentanglement.ipynb.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from .distributions import unwrap
from .draw import Draw, latents_of
from .modes import positive_int
from .objectives import elbo

Method = Literal["stratified", "weighted"]


def log_batch_weights(batch_size: int, dataset_size: int, method: Method = "stratified") -> Tensor:
    """log w [B, B] of the estimate sum_j w_ij q(z_i|x_j) of the aggregate posterior q(z_i).

    Stratified: 1/N of the example itself, (N - 1) / (N (B - 1)) of every other. Where the others
    are drawn without replacement, as in an epoch, the mean of q over them is that over all others,
    so the estimate of q(z_i) is unbiased, given z_i; at B = N it is exact. Chen et al. (NeurIPS
    2018, https://arxiv.org/abs/1802.04942, Appendix C.2) give one of the others another weight than
    the rest; only the sum, (N - 1) / N, matters for the mean, and equal weights have the least
    variance. Weighted: 1/(NB) of each (Appendix C.1), whose mean lies between q(z)/N and q(z)/B
    about, below q(z) for each z.

    The logarithm of an unbiased estimate is not unbiased: E log q_hat(z) <= log q(z).

    Args:
        batch_size: B, at least 2 for stratified.
        dataset_size: N, how many examples there are to draw batches from, at least B.
        method: see above.

    Raises:
        ValueError: for a batch of one where stratified, a batch above N, and an unknown method.

    Example:
        >>> log_batch_weights(3, 6).exp()  # 1/6, and half of 5/6
        tensor([[0.1667, 0.4167, 0.4167],
                [0.4167, 0.1667, 0.4167],
                [0.4167, 0.4167, 0.1667]])
    """
    b, n = positive_int("batch_size", batch_size), positive_int("dataset_size", dataset_size)
    if b > n or (b < 2 and method == "stratified" and n > 1):
        raise ValueError(
            f"The batch has {b} of {n}; expected no more examples than there are, and two for "
            "the stratified estimate: set dataset_size, or a batch size that leaves no rest of one."
        )
    if method == "weighted":
        return torch.full((b, b), -math.log(n * b))
    if method != "stratified":
        raise ValueError(f"method is {method!r}; expected 'stratified' or 'weighted'.")
    log_w = torch.full((b, b), math.log(max(n - 1, 1)) - math.log(n * max(b - 1, 1)))
    return log_w.fill_diagonal_(-math.log(n))


def total_correlation(draw: Draw, dataset_size: int, method: Method = "stratified") -> Tensor:
    """log q(z) - sum_l log q(z_l) at each example's z, from the batch: [B], nats.

    Its mean over z is the total correlation, but for the bias of the logarithms. They pull the
    first term down and the second up, so small batches may give either sign, also a negative
    estimate of what is never negative. "weighted" adds (L - 1) log B nats, where posteriors hardly
    meet, to L log N - log B, where they meet in each dimension but not in all at once: of use is
    its gradient, not its value.

    Args:
        draw: of one latent, z [K, B, L], of independent dimensions given x.
        dataset_size: N, how many examples the batches are drawn from.
        method: see `log_batch_weights`.

    Raises:
        ValueError: for several latents, listed values, dimensions that depend on one another, and
            as `log_batch_weights` does.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(1, (8,), x_shape=(4,)).draw(torch.ones(3, 4))
        >>> total_correlation(draw, 100)  # one latent has none
        tensor([0., 0., 0.], grad_fn=<...>)
    """
    q = unwrap(draw.qz_x)
    if len(latents_of(draw)) > 1 or draw.values > 1 or q.batch_shape != draw.z.shape[1:]:
        raise ValueError(
            f"The draw has {len(latents_of(draw))} latents, z of shape {list(draw.z.shape)} and "
            f"{draw.values} listed values; expected one latent z [K, B, L], drawn, of a q(z|x) "
            "with independent dimensions."
        )
    log_w = log_batch_weights(draw.z.shape[1], dataset_size, method).to(draw.z)
    log_q = q.log_prob(draw.z.unsqueeze(2))  # [K, B, B, L]: z of example i under q of example j
    log_qz = (log_w + log_q.sum(-1)).logsumexp(2)  # [K, B]
    log_qz_parts = (log_w[..., None] + log_q).logsumexp(2)  # [K, B, L]
    return draw.mean(log_qz - log_qz_parts.sum(-1))


def beta_tcvae(
    draw: Draw, *, dataset_size: int, beta: float = 6.0, method: Method = "stratified"
) -> Tensor:
    """The ELBO with beta times its total correlation: [B], nats, an objective for `fit`.

    The KL is the information of z about x, plus the total correlation, plus how far each latent is
    from the prior; beta weighs the second alone (Chen et al., NeurIPS 2018,
    https://arxiv.org/abs/1802.04942, Equation 4 with alpha = gamma = 1). So it is the ELBO less
    beta - 1 times the estimate, and at beta = 1 the ELBO itself, without any estimate of q(z).

    Args:
        draw: as `total_correlation` takes it.
        dataset_size: N, fixed with ``functools.partial``.
        beta: the weight; the paper's 6 on dSprites.
        method: see `log_batch_weights`.

    Raises:
        ValueError: as `total_correlation` does.

    Example:
        >>> import functools, torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> objective = functools.partial(beta_tcvae, dataset_size=100, beta=4.0)
        >>> objective(model.draw(torch.ones(3, 4))).shape
        torch.Size([3])
    """
    return elbo(draw) - (beta - 1) * total_correlation(draw, dataset_size, method)
