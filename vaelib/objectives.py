"""Objectives: functions of a `Draw`, maximised, one number an example.

    objective(draw) -> [B], in nats, higher is better;   loss = -objective(draw).mean()

An objective may take a second argument named `step`, a 0-d tensor, for schedules. Introduced in
book/foundations/03_elbo.ipynb.
"""

import math

import torch
from torch import Tensor

from .model import Draw


def elbo(draw: Draw, analytic: bool = True) -> Tensor:
    """Evidence lower bound, E log p(x|z) - KL(q(z|x) || p(z)): [B], nats.

    Uses the analytic KL where the draw has one, else (or with `analytic=False`) the mean of
    log w over the K draws (Kingma & Welling, ICLR 2014, Equations 7 and 10).
    """
    if analytic and draw.kl_parts is not None:
        return draw.log_px_z.mean(0) - draw.kl
    return draw.log_w.mean(0)


def iwae(draw: Draw) -> Tensor:
    """Importance-weighted bound, the log of the mean of w over the K draws: [B], nats.

    The sampled ELBO at K = 1; tighter, in expectation, with every further draw (Burda, Grosse &
    Salakhutdinov, ICLR 2016, Theorem 1, https://arxiv.org/abs/1509.00519).
    """
    log_w = draw.log_w
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


__all__ = ["elbo", "iwae"]
