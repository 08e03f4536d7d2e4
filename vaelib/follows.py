"""Do draws follow the distribution that they are said to come from?

By its cdf (or its own draws), by Stein's identities, and by its integral: see `unlike`.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, VonMises, constraints

from .distributions import support_of, unwrap

NUMBERS = 256  # of each latent, at most, that are looked at one by one
ALARM = 1e-6  # chance that a family of tests finds fault where there is none


def look(q: Distribution, z: Tensor) -> dict[str, Tensor]:
    """What z [K, B, ...] shows of q, of batch shape [], [B] or [K, B]: tensors [K, B, ...].

    hits: outcomes less their probabilities, of mean 0 under q. slope: grad log q, of mean 0;
    spread: (z - mean) grad log q + 1, of mean 0 by parts (Stein's identity), where q is smooth on
    all of R^D. place: z by its cdf, uniform; or else mine and own: z, and q's own draws. z and
    log_q: of few dimensions, for the integral.
    """
    base = unwrap(q)
    if base.has_enumerate_support:
        own = len(base.event_shape)
        hits = []
        for outcome in base.enumerate_support(expand=False)[:NUMBERS]:
            hit = (z - outcome).abs() < 1e-3  # straight through, 1 may be 0.9999999
            hit = hit.flatten(-own).all(-1) if own else hit
            hits.append((1.0 * hit - base.log_prob(outcome).exp()).reshape(*z.shape[:2], -1))
        return {"hits": torch.cat(hits, -1)}
    look = {}
    log_q = q.log_prob(z)
    centre = _mean_of(q)
    try:
        look["place"] = _columns(base.cdf(z))
    except NotImplementedError:
        lead = z.dim() - len(q.batch_shape) - len(q.event_shape)
        try:
            own_z = q.sample(z.shape[:lead])
            look["mine"] = torch.cat([_columns(z - centre), log_q.unsqueeze(-1)], -1)
            look["own"] = torch.cat([_columns(own_z - centre), q.log_prob(own_z).unsqueeze(-1)], -1)
        except NotImplementedError:
            pass
    smooth = support_of(q) in (None, constraints.real) and not isinstance(base, VonMises)
    if z.is_floating_point() and smooth:  # torch calls VonMises, on a circle, real
        with torch.enable_grad():
            at = z.detach().clone().requires_grad_()
            total_log_q = q.log_prob(at).sum()
            flat_q = not total_log_q.requires_grad
            slope = z * 0 if flat_q else torch.autograd.grad(total_log_q, at)[0]
        spread = (z - centre) * slope + 1
        whole = spread.reshape(*z.shape[:2], -1).mean(-1, keepdim=True)
        look["slope"], look["spread"] = _columns(slope), torch.cat([_columns(spread), whole], -1)
        flat = z.reshape(*z.shape[:2], -1)
        if flat.shape[-1] <= 20 and len(q.batch_shape) < 2:
            look["z"], look["log_q"] = flat, log_q
    return look


def unlike(looks: list[dict[str, Tensor]], values: int) -> str | None:
    """What is wrong with the draws, or None; values: listed above them, which may share noise."""
    look = {name: torch.cat([part[name] for part in looks]) for name in looks[0]}
    advice = "draw z by q.rsample(), or give q the log_prob of what is drawn"
    for name, says in {
        "hits": "the frequency of an outcome is off by {:.3g}, give or take {:.2g}",
        "slope": "E grad log q is {:.3g}, give or take {:.2g}, not 0",
        "spread": "E (z - mean) . grad log q + 1 is {:.3g} a dimension, give or take {:.2g}, not 0",
    }.items():
        if name in look:
            terms = look[name].unflatten(0, (-1, values)).mean(1)
            found = off(terms.flatten(0, 1), reach=float(name == "hits"))
            if found is not None:
                return f"{says.format(*found[1:])}; expected q's own: {advice}"
    for name in {"place", "mine"} & look.keys():
        mine = look[name].flatten(0, 1)
        own = look["own"].flatten(0, 1) if name == "mine" else None
        distance, least = _distance(mine, own, len(mine) // values)
        if distance > least:
            return (
                f"their distribution lies {distance:.3g} from q's, by the greatest distance of "
                f"cdfs; expected at most {least:.2g}: {advice}"
            )
    if "z" in look:
        integral, error = _integral(look["z"].double(), look["log_q"].double())
        if abs(integral - 1) > error:
            return (
                f"the density of log q integrates to {integral:.3g}, give or take {error:.2g}; "
                f"expected 1: {advice}"
            )
    return None


def _deviations(tests: int, n: float = math.inf) -> float:
    """Standard errors of n terms that one of so many means exceeds with a chance of ALARM."""
    z = -NormalDist().inv_cdf(ALARM / 2 / tests)
    return z + (z**3 + z) / (4 * n)  # Student's, to first order


def off(terms: Tensor, reach: float = 0.0, least: float = 1e-4) -> tuple[int, float, float] | None:
    """Of columns [n, C] of mean 0, the place, mean and allowance of the worst that is off.

    reach: of terms in [-reach, reach], large ones perhaps rare; then the allowance is Bernstein's
    (Maurer & Pontil, COLT 2009, https://arxiv.org/abs/0907.3740, Theorem 4). least: what rounding
    may do.
    """
    terms = terms.double()
    n, deviations = len(terms), _deviations(terms.shape[1], len(terms))
    allowed = deviations * terms.std(0) / math.sqrt(n) + least
    allowed = allowed + reach * 7 * deviations**2 / (6 * (n - 1))
    mean = terms.mean(0)
    place = int((mean.abs() - allowed).nan_to_num(math.inf).argmax())
    if mean[place].abs() <= allowed[place]:
        return None
    return place, mean[place].item(), allowed[place].item()


def _distance(mine: Tensor, own: Tensor | None, n: int) -> tuple[float, float]:
    """The greatest distance of cdfs over columns [rows, C], and what chance allows.

    own: draws to compare with; None: the uniform distribution. n: rows that are independent. By
    Massart's inequality (1990), and Wei and Dudley's (2012) for two samples.
    """
    allowed = math.sqrt(math.log(2 * mine.shape[1] / ALARM) / (2 * n))
    a = mine.T.contiguous().sort().values  # [C, rows]
    if own is None:
        rank = torch.arange(1, 1 + a.shape[1], device=a.device) / a.shape[1]
        return torch.maximum(rank - a, a - rank + 1 / a.shape[1]).max().item(), allowed
    b = own.T.contiguous().sort().values
    both = torch.cat([a, b], 1)
    cdfs = [torch.searchsorted(t, both, right=True) / t.shape[1] for t in (a, b)]
    return (cdfs[0] - cdfs[1]).abs().max().item(), math.sqrt(2) * allowed


def _integral(z: Tensor, log_q: Tensor) -> tuple[float, float]:
    """The integral of exp(log q), from draws z [K, B, D] that follow its shape, and its allowance.

    E r / q is 1 over it, for r a normal that one half of an example's draws is fitted by, a little
    narrower; the other half is for the mean. Where r fits badly, nothing is said.
    """
    half, d = len(z) // 2, z.shape[-1]
    if half < 20 * d:
        return 1.0, math.inf
    fitted, rest = z[:half], z[half:]
    cov = 0.8 * torch.einsum("kbi,kbj->bij", *[fitted - fitted.mean(0)] * 2) / (half - 1)
    factor, failed = torch.linalg.cholesky_ex(cov)
    if bool(failed.any()):
        return 1.0, math.inf
    r = MultivariateNormal(fitted.mean(0), scale_tril=factor)
    log_ratio = (r.log_prob(rest) - log_q[half:]).flatten()
    n, top = len(log_ratio), log_ratio.max()
    ratio = (log_ratio - top).exp()
    if not bool(ratio.sum().square() > 0.2 * n * ratio.square().sum()):
        return 1.0, math.inf
    integral = ((-top).exp() / ratio.mean()).item()
    return integral, _deviations(1, n) * integral * (ratio.std() / ratio.mean()).item() / n**0.5


def _mean_of(q: Distribution) -> Tensor | float:
    """The mean, where q says one; 0 does elsewhere."""
    try:
        mean = q.mean
    except NotImplementedError:
        return 0.0
    return mean if bool(mean.isfinite().all()) else 0.0


def _columns(t: Tensor) -> Tensor:
    """[K, B, ...] -> [K, B, at most NUMBERS]."""
    return t.reshape(*t.shape[:2], -1)[..., :NUMBERS]
