"""Gradients of E f(z) for z ~ Categorical(softmax(logits)): exact, and not.

`DRAWN` has those that act through z; `leave_one_out` is an objective.
"""

import time

import torch
import vaelib
from torch.nn import functional as F

# %% Draws that carry a gradient


def one_hot_sample(logits):
    shape = logits.shape
    flat = logits.softmax(-1).reshape(-1, shape[-1])
    number = torch.multinomial(flat, 1).view(shape[:-1])
    return F.one_hot(number, shape[-1]).to(logits)


def with_gradient_of(hard, soft):
    """hard, to the last bit, with the gradient of soft."""
    return hard + (soft - soft.detach())


def plain(logits, temperature=1.0):
    """A draw without a gradient, for an objective that supplies one."""
    return one_hot_sample(logits.detach())


# %% The softmax's gradient for a hard value


def argmax(logits, temperature=1.0):
    """The likeliest value, with the softmax's gradient: no draw at all."""
    hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
    return with_gradient_of(hard, (logits / temperature).softmax(-1))


def straight_through(logits, temperature=1.0):
    """A draw, with the softmax's gradient (Bengio et al., 2013)."""
    soft = (logits / temperature).softmax(-1)
    return with_gradient_of(one_hot_sample(logits), soft)


# %% Relaxed draws, and Heun's


def gumbel_softmax(logits, temperature=1.0):
    """A relaxed draw, between the values (Jang et al., Maddison et al.)."""
    gumbel = -torch.empty_like(logits).exponential_().log()
    return ((logits + gumbel) / temperature).softmax(-1)


def straight_through_gumbel(logits, temperature=1.0):
    """The value that the relaxed draw is nearest to, with its gradient."""
    soft = gumbel_softmax(logits, temperature)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
    return with_gradient_of(hard, soft)


def reinmax(logits, temperature=1.0):
    """A draw, with Heun's gradient: the mean of the slopes at two ends.

    Exact on average for an f that is quadratic in z, at temperature 1
    (Liu et al., NeurIPS 2023, https://arxiv.org/abs/2304.08612,
    Algorithm 2).
    """
    hard, first = one_hot_sample(logits), logits.softmax(-1)
    middle = (hard + (logits / temperature).softmax(-1)) / 2
    # softmax at the point `middle`, as a function of logits
    moved = logits + (middle.log() - logits).detach()
    return with_gradient_of(hard, 2 * moved.softmax(-1) - first / 2)


DRAWN = {
    "plain": plain,
    "argmax": argmax,
    "straight-through": straight_through,
    "Gumbel-softmax": gumbel_softmax,
    "straight-through Gumbel": straight_through_gumbel,
    "ReinMax": reinmax,
}


# %% Leave one out, as an objective


def leave_one_out(draw):
    """The ELBO; q learns from each draw's surplus over the other draws.

    No gradient passes through z, so p(x|z) may be anything, and the
    estimate has no bias (Kool, van Hoof & Welling, 2019,
    https://openreview.net/forum?id=r1lgTGL5DE). With a KL in closed form
    only log p(x|z) is left to be estimated.
    """
    told = draw.log_px_z if draw.kl_parts is not None else draw.log_w
    K = len(told)
    if K < 2 or draw.z.requires_grad:
        raise ValueError(
            f"leave_one_out got {K} draws, whose z has a gradient:"
            f" {draw.z.requires_grad}; expected at least 2 plain ones, or"
            " q would be taught twice."
        )
    told = told.detach()
    surplus = (told - told.mean(0)) * K / (K - 1)
    log_q = draw.log_qz_x
    return vaelib.elbo(draw) + draw.mean(surplus * (log_q - log_q.detach()))


leave_one_out.supplies_gradient = True


# %% The oracle


def exact_gradient(model, x, logits):
    """Of E log p(x|z) under q(z) of these logits [B, N, V]: [B, N, V].

    By listing all values: log p(x|z) of each, weighted by its q.
    """
    logits = logits.detach().requires_grad_()
    z = model.infer(x)[1].z  # all of them: the model lists
    log_px_z = model.px_z(z).log_prob(x).detach()  # [V^N, B]
    log_q = (z * logits.log_softmax(-1)).sum((-2, -1))
    expected = (log_q.exp() * log_px_z).sum(0)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    return gradient


def drawn_gradients(model, x, logits, how, times, K=1, temperature=1.0):
    """`times` estimates of it, each from K draws: [times, B, N, V]."""
    wide = logits.detach().expand(times, *logits.shape).contiguous()
    wide.requires_grad_()
    each = wide.expand(K, *wide.shape)
    z = DRAWN[how](each, temperature)
    log_px_z = model.px_z(z).log_prob(x)  # [K, times, B]
    if how == "plain":  # leave one out
        log_q = (z * each.log_softmax(-1)).sum((-2, -1))
        told = log_px_z.detach()
        log_px_z = (told - told.mean(0)) * K / (K - 1) * log_q
    (gradients,) = torch.autograd.grad(log_px_z.mean(0).sum(), wide)
    return gradients


# %% Judged against it


def judged(estimates, exact):
    """Estimates [S, B, ...] of exact [B, ...]: a row, means over B.

    All lengths are shares of the exact gradient's, example by example.
    The bias is freed of what chance alone would show: |mean - exact|^2
    is too large by the variance over S.
    """
    S = len(estimates)
    flat, exact = estimates.flatten(2).double(), exact.flatten(1).double()
    size = exact.norm(dim=1)
    variance = flat.var(0).sum(-1)
    off = (flat.mean(0) - exact).square().sum(-1)
    bias = (off - variance / S).clamp(min=0).sqrt()
    mean_error = (variance / S).sqrt()
    one = F.cosine_similarity(flat, exact, dim=-1)
    whole = F.cosine_similarity(flat.mean(0), exact, dim=-1)
    return {
        "bias": (bias / size).mean().item(),
        "chance": (mean_error / size).mean().item(),
        "deviation": (variance.sqrt() / size).mean().item(),
        "error": ((variance + bias.square()).sqrt() / size).mean().item(),
        "cosine of one": one.mean().item(),
        "cosine of the mean": whole.mean().item(),
    }


# %% Who is asked, with how many draws, at what temperature

ROSTER = (
    ("argmax", 1, 1.0), ("straight-through", 1, 1.0),
    ("Gumbel-softmax", 1, 1.0), ("Gumbel-softmax", 1, 0.5),
    ("Gumbel-softmax", 1, 0.1), ("straight-through Gumbel", 1, 1.0),
    ("straight-through Gumbel", 1, 0.5), ("ReinMax", 1, 1.0),
    ("ReinMax", 1, 2.0), ("straight-through", 4, 1.0), ("ReinMax", 4, 1.0),
    ("plain", 2, 1.0), ("plain", 4, 1.0),
)  # fmt: skip


# %% The table


@torch.enable_grad()
def estimator_table(model, x, times=2_000, roster=ROSTER):
    """A row for each estimator of the gradient in the encoder's logits.

    The gradient is that of E log p(x|z): the KL has a closed form. Draws
    are calls of the decoder; microseconds are of an estimate, here.
    """
    logits = model.posterior_logits(x).detach()
    exact, rows = exact_gradient(model, x, logits), []
    for how, K, temperature in roster:
        began = time.process_time()
        setting = {"K": K, "temperature": temperature}
        found = drawn_gradients(model, x, logits, how, times, **setting)
        seconds = time.process_time() - began
        name = "leave one out" if how == "plain" else how
        row = {"estimator": name, "draws": K, "temperature": temperature}
        cost = {"microseconds": 1e6 * seconds / times / len(x)}
        rows.append(row | judged(found, exact) | cost)
    return rows


# %% The same for a quantizer: nearest codes, made soft


def soft_exact(f, z, codebook, width):
    """Gradient in z [N, D] of E f(code), code ~ softmax(-|z-c|^2 / 2w^2).

    An argmin has no gradient; of a code drawn near z there is one, and by
    listing the codes it is exact.
    """
    z = z.detach().requires_grad_()
    square = torch.cdist(z, codebook).square()
    q = (-square / (2 * width**2)).softmax(-1)
    expected = (q * f(codebook).detach()).sum()
    (gradient,) = torch.autograd.grad(expected, z)
    return gradient


def soft_estimate(f, z, codebook, width, through):
    """The same by a drawn code, through straight_through or rotated."""
    z = z.detach().requires_grad_()
    square = torch.cdist(z, codebook).square()
    q = (-square / (2 * width**2)).softmax(-1).detach()
    code = torch.multinomial(q, 1).squeeze(1)
    value = f(through(z, codebook[code])).sum()
    (gradient,) = torch.autograd.grad(value, z)
    return gradient
