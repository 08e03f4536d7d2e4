"""Objectives: functions (or modules) of a `Draw`, maximised, one number an example.

    objective(draw) -> [B], in nats, higher is better;   loss = -objective(draw).mean()

An objective may take a second argument named `step`, a 0-d tensor, for schedules. It may return
{term: [B]}: their sum is maximised, and `fit` logs each. One that is an `nn.Module` has its
parameters trained with the model's. Introduced in book/foundations/03_elbo.ipynb.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

from .draw import Draw, Latent, latents_of

Objective = Callable[..., Tensor | dict[str, Tensor]]
Weight = float | Callable[[Tensor], Tensor]


def elbo(
    draw: Draw,
    analytic: bool = True,
    *,
    beta: Weight = 1.0,
    free_bits: float = 0.0,
    capacity: Weight | None = None,
    step: Tensor | None = None,
) -> Tensor:
    """Evidence lower bound, E log p(x|z) - KL(q(z|x) || p(z)): [B], nats.

    Uses the analytic KL where the draw has one, else the mean of log q(z|x) - log p(z) over the K
    draws (Kingma & Welling, ICLR 2014, Equations 7 and 10). Every further argument makes another
    objective of it; with beta above 1, or with free bits, it lies below the ELBO. Fix them with
    ``functools.partial``.

    Args:
        draw: of any model.
        analytic: False for the mean over the draws, also where a closed form is known.
        beta: the weight of the KL (beta-VAE, Higgins et al., ICLR 2017), a number or a schedule
            such as `objectives.linear` or `objectives.cyclical`, a function of the step.
        free_bits: nats that each latent may cost without a price. A latent whose mean KL over the
            batch is less counts as if it had that much, so nothing pulls it further down (Kingma et
            al., NeurIPS 2016, https://arxiv.org/abs/1606.04934, Equation 15). The mean is over the
            draw's own batch: a part of one under ``accumulate``, a process's share under torchrun.
        capacity: the KL in nats that is aimed at, also a number or a schedule: the penalty is beta
            times the distance from it (Burgess et al., 2018, https://arxiv.org/abs/1804.03599,
            Equation 8).
        step: 0-d, what schedules are functions of; `fit` hands it over.

    Raises:
        ValueError: for a negative number, for a schedule without a step, and for free bits where
            the draw has no analytic KL.

    Example:
        >>> import functools, torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4))
        >>> torch.equal(vaelib.elbo(draw), draw.log_px_z.mean(0) - draw.kl)
        True
        >>> warmed = functools.partial(vaelib.elbo, beta=vaelib.objectives.linear(1000))
    """
    if analytic and draw.kl_parts is not None:
        kl = draw.kl
        if free_bits:
            least = _weight("free_bits", free_bits, step)
            paid = draw.kl_parts.mean(0) > least
            kl = torch.where(paid, draw.kl_parts, least).sum(-1)
    elif free_bits:
        raise ValueError("free_bits needs the analytic KL of each latent, and this draw has none.")
    else:
        kl = draw.mean(draw.log_qz_x - draw.log_pz)
    if capacity is not None:
        kl = (kl - _weight("capacity", capacity, step)).abs()
    return draw.mean(draw.log_px_z) - _weight("beta", beta, step) * kl


@dataclass(frozen=True)
class linear:
    """A schedule in a straight line, then level.

    Args:
        steps: updates until the end.
        start: the value at step 0.
        end: the value from ``steps`` on.

    Example:
        >>> import torch, vaelib
        >>> vaelib.objectives.linear(100)(torch.tensor(25))
        tensor(0.2500)
    """

    steps: int
    start: float = 0.0
    end: float = 1.0

    def __call__(self, step: Tensor) -> Tensor:
        return self.start + (self.end - self.start) * (step / self.steps).clamp(max=1)


@dataclass(frozen=True)
class cyclical:
    """A schedule of cycles, each from 0 to 1 in a straight line, then level.

    (Fu et al., NAACL 2019, https://arxiv.org/abs/1903.10145, Equation 6.)

    Args:
        period: updates a cycle.
        share: the part of a cycle that rises.

    Example:
        >>> import torch, vaelib
        >>> vaelib.objectives.cyclical(100)(torch.tensor([0, 25, 75, 125]))
        tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """

    period: int
    share: float = 0.5

    def __call__(self, step: Tensor) -> Tensor:
        return (step % self.period / (self.period * self.share)).clamp(max=1)


def _weight(name: str, value: Weight, step: Tensor | None) -> Tensor | float:
    if callable(value):
        if step is None:
            raise ValueError(
                f"{name} is a schedule, {value!r}, but no step was given; expected elbo(draw, "
                "step=step), as fit calls it."
            )
        return value(step)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a number of at least 0, or a schedule.")
    return value


def iwae(draw: Draw) -> Tensor:
    """Importance-weighted bound, the log of the mean of w over the draws: [B], nats.

    The sampled ELBO at K = 1; tighter, in expectation, with every further draw (Burda, Grosse &
    Salakhutdinov, ICLR 2016, Theorem 1, https://arxiv.org/abs/1509.00519). Of values that are
    listed it is log p(x) itself, which teaches their q nothing: `fit` then refuses it.

    Args:
        draw: of any model.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4), num_samples=50)
        >>> bool((vaelib.iwae(draw) >= draw.log_w.mean(0)).all())
        True
    """
    by_sample = draw.log_w_by_sample
    return torch.logsumexp(by_sample, dim=0) - math.log(len(by_sample))


def stl(draw: Draw) -> Tensor:
    """The sampled ELBO, by another gradient: sticking the landing. [B], nats.

    q's parameters act through the draws z alone; the gradient of log q(z|x) at fixed z, of mean
    zero, is left out of every latent that is drawn. So the gradient's variance falls to nothing
    where a single layer's q is exact (Roeder, Wu & Duvenaud, NeurIPS 2017,
    https://arxiv.org/abs/1703.09194, Equation 8). A listed q has an exact gradient already.

    Args:
        draw: of any model.

    Raises:
        ValueError: for a posterior whose parameters it cannot hold still: see `stopped_q`.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4))
        >>> torch.allclose(vaelib.stl(draw), vaelib.elbo(draw, analytic=False))
        True
    """
    log_qz_x = sum(stopped_q(latent).log_prob(latent.z) for latent in latents_of(draw))
    return draw.mean(draw.log_px_z + draw.log_pz - log_qz_x)


# What rebuilds a distribution, by exact type: a subclass may have a log_prob of its own.
PARAMETERS = {
    Normal: ("loc", "scale"),
    Laplace: ("loc", "scale"),
    MultivariateNormal: ("loc", "scale_tril"),
}


def stopped_q(latent: Latent) -> Distribution:
    """The latent's q with its parameters held still, so that only z moves its log-density.

    Args:
        latent: one that carries `stopped`; or whose q has a method of that name, as the families of
            `vaelib.posteriors` have; or is a Normal, Laplace or MultivariateNormal, also in
            Independent; or is listed, and then q itself, whose gradient is exact.

    Raises:
        ValueError: for any other.

    Example:
        >>> import torch, vaelib
        >>> (latent,) = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4)).latents
        >>> vaelib.objectives.stopped_q(latent).log_prob(latent.z.detach()).requires_grad
        False
    """
    q = latent.q
    if latent.stopped is not None:
        return latent.stopped
    if not latent.is_drawn:
        return q
    base = q.base_dist if type(q) is Independent else q
    if hasattr(base, "stopped"):
        stopped: Distribution = base.stopped()
    elif type(base) in PARAMETERS:
        parameters = {name: getattr(base, name).detach() for name in PARAMETERS[type(base)]}
        stopped = type(base)(**parameters, validate_args=False)
    else:
        raise ValueError(
            f"The objective needs log q with its parameters held still, and the posterior is a "
            f"{type(base).__name__}; expected {', '.join(kind.__name__ for kind in PARAMETERS)}, a "
            "distribution with a method stopped(), or a Latent(stopped=...): or use "
            "elbo(draw, analytic=False)."
        )
    if base is q:
        return stopped
    return Independent(stopped, q.reinterpreted_batch_ndims, validate_args=False)  # type: ignore[attr-defined]


def parts_of(objective: Objective) -> list[Any]:
    """The objective, what functools.partial holds, and whose bound method that is."""
    parts: list[Any] = [objective]
    while parts[-1] is not None:
        last = parts[-1]
        whole = isinstance(last, functools.partial)
        parts.append(last.func if whole else getattr(last, "__self__", None))
    return parts[:-1]


def modules_of(objective: Objective) -> list[nn.Module]:
    """Its parts that are modules, whose parameters are trained."""
    return [part for part in parts_of(objective) if isinstance(part, nn.Module)]


def takes_step(objective: Objective) -> bool:
    """Whether what is called in the end has an argument named `step`."""
    called = next(p for p in parts_of(objective) if not isinstance(p, functools.partial))
    called = called.forward if isinstance(called, nn.Module) else called
    return "step" in inspect.signature(called).parameters


def total(value: Tensor | dict[str, Tensor]) -> Tensor:
    """What is maximised of what an objective returned: [B], the sum of its terms if it has any."""
    return value if isinstance(value, Tensor) else sum(value.values(), torch.zeros(()))


__all__ = ["cyclical", "elbo", "iwae", "linear", "stl", "stopped_q"]
