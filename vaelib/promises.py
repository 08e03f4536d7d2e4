"""The promises of the contract that a draw keeps or breaks: each a generator of sentences."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from .contract import labels_kind, takes_missing
from .draw import Draw, Latent, latents_of, layer_name
from .follows import look, off, unlike
from .kl import closed_form
from .modes import seeded, tensor_like
from .objectives import Objective
from .refusals import after_steps, listed, slope_of

FEW = 8  # examples, whose many draws are looked at
FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)


@dataclass(frozen=True)
class Case:
    """A copy of the model in eval mode, some data, and what training would hand it."""

    model: nn.Module
    x: Tensor
    y: Tensor | None
    objective: Objective
    seed: int
    num_samples: int

    @cached_property
    def told(self) -> list[Tensor | None]:
        """Labels as they are handed in use: half of those that are learnt are withheld."""
        if self.y is None or labels_kind(self.model) == "given":
            return [self.y]
        half = self.y.clone()
        if not bool((half < 0).any()):
            half[::2] = -1
        return [None, half]

    @cached_property
    def noise_dim(self) -> int | None:
        return getattr(self.model, "noise_dim", None)

    @property
    def takes_noise(self) -> bool:
        return self.noise_dim is not None

    def noise(self, num_samples: int, n: int, seed: int = 0) -> Tensor:
        """Standard normal noise, [num_samples, n, noise_dim]."""
        like = tensor_like(self.model)
        dtype = self.x.dtype if self.x.is_floating_point() else like.dtype
        generator = torch.Generator().manual_seed(self.seed + 1000 * (seed + 1))
        dim = self.draw(self.few, 1, self.told[0]).z[0, 0].numel()  # of a model that takes none
        shape = (num_samples, n, dim if self.noise_dim is None else self.noise_dim)
        return torch.randn(shape, generator=generator).to(like.device, dtype)

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        y: Tensor | None = None,
        noise: Tensor | None = None,
        seed: int = 0,
        model: nn.Module | None = None,
    ) -> Draw:
        """What the model says in eval mode, from a seed."""
        model = self.model if model is None else model
        given = {"noise": noise, "y": None if y is None else y[: len(x)]}
        with seeded(model, self.seed + seed):
            return model(x, num_samples, **{k: t for k, t in given.items() if t is not None})

    @cached_property
    def few(self) -> Tensor:
        return self.x[:FEW]

    def usual(self) -> Iterator[tuple[str, Draw]]:
        """A draw of 3 samples for each way of use, and that way in words."""
        for y in self.told:
            how = "" if y is None or y is self.y else " with half of the labels"
            yield how, self.draw(self.few, 3, y)

    def many(self) -> Iterator[tuple[str, Iterator[Draw]]]:
        """num_samples draws of each of a few examples, in parts, shared by the ways of use."""
        ways = [(y, noisy) for y in self.told for noisy in (False, True)[: 1 + self.takes_noise]]
        for y, noisy in ways:
            how = "" if y is None or y is self.y else " with half of the labels"
            parts = self._parts(y, noisy, self.num_samples // len(ways))
            yield how + (" from noise" if noisy else ""), parts

    def _parts(self, y: Tensor | None, noisy: bool, num_samples: int) -> Iterator[Draw]:
        values = self.draw(self.few, 1, y).values
        samples = max(1, 50 // values)
        for part in range(2, 2 + max(8, num_samples // (samples * values))):
            noise = self.noise(samples, len(self.few), part) if noisy else None
            yield self.draw(self.few, samples, y, noise, seed=part)

    @cached_property
    def trained(self) -> tuple[nn.Module, list[str]]:
        """The model after a few steps, and what was found on the way."""
        return after_steps(self.model, self.objective, self.x, self.told[-1])


def shapes(case: Case) -> Iterator[str]:
    """the draw's shapes"""
    for how, draw in case.usual():
        if not isinstance(draw, Draw):
            yield f"The model returned a {type(draw).__name__}; expected a vaelib.Draw."
            return
        drawn = any(latent.is_drawn for latent in latents_of(draw))
        shape, dtype = (3 * draw.values, len(case.few)), draw.log_px_z.dtype
        if not drawn and len(draw.log_px_z) == draw.values:
            shape = (draw.values, len(case.few))  # all is listed: further samples add nothing
        listed = f", {draw.values} values listed for each" if draw.values > 1 else ""
        for name in ("log_px_z", "log_pz", "log_qz_x", "log_weight"):
            t = getattr(draw, name)
            if name == "log_weight" and t is None:
                continue
            if t.shape != shape:
                yield (
                    f"{name} has shape {list(t.shape)} for 3 samples{listed} of {shape[1]} "
                    f"examples{how}; expected {list(shape)}, draws and then examples."
                )
            if t.dtype != dtype or (draw.x.is_floating_point() and t.dtype != draw.x.dtype):
                yield f"{name} is {t.dtype}; expected one dtype for data and log-densities."
        for i, latent in enumerate(latents_of(draw)):
            batch = latent.q.batch_shape
            expected = [shape[1:]] if i == 0 else [shape[1:], shape]
            if tuple(latent.z.shape[:2]) != shape:
                yield (
                    f"z of {layer_name(i, latent)} has shape {list(latent.z.shape)}; expected "
                    f"[{shape[0]}, {shape[1]}, ...], draws and then examples."
                )
            elif tuple(batch) not in expected:
                yield (
                    f"q of {layer_name(i, latent)} has batch shape {list(batch)}; expected "
                    f"{' or '.join(str(list(s)) for s in expected)}: declare every other axis with "
                    "Independent" + (", and let the first q read x alone." if i == 0 else ".")
                )
            if latent.point and bool((latent.q.log_prob(latent.z) != 0).any()):
                yield (
                    f"q of {layer_name(i, latent)} is a point, but log q(z|x) is not 0; expected a "
                    "log-probability of 0 at its value."
                )


def finite(case: Case) -> Iterator[str]:
    """finiteness"""
    for how, draw in case.usual():
        counts = torch.ones_like(draw.log_px_z, dtype=torch.bool)
        if draw.values > 1 and draw.log_weight is not None:
            counts = draw.log_weight > -math.inf
        for name in ("log_px_z", "log_pz", "log_qz_x"):
            t = getattr(draw, name)
            bad = int((counts & ~t.isfinite()).sum())
            if bad:
                yield (
                    f"{name} is NaN or infinite in {bad} of {t.numel()} places{how}; expected "
                    "finite nats: look for a log of 0, a scale of 0, or a value outside of the "
                    "support."
                )
        if draw.kl_parts is not None and not bool(draw.kl_parts.isfinite().all()):
            yield f"kl_parts are NaN or infinite{how}; expected finite nats."
    if takes_missing(case.model) and case.few.is_floating_point():
        x = case.few.clone()
        x[0] = torch.nan
        log_px_z = case.draw(x, 2, case.told[0]).log_px_z[:, 0]
        if not bool((log_px_z == 0).all()):
            yield (
                f"missing is True, but an example of NaN alone has log p(x|z) = {log_px_z[0]:.4g}; "
                "expected 0: leave what is missing out of the sum."
            )


def densities_agree(case: Case) -> Iterator[str]:
    """agreement of densities and distributions"""
    for how, draw in case.usual():
        again: dict[str, Tensor] = {}
        if draw.px_z is not None:
            again["log_px_z"] = draw.px_z.log_prob(draw.x)
        if draw.latents:
            again["log_pz"] = sum(t.p.log_prob(t.z) for t in draw.latents)  # type: ignore[assignment]
        again["log_qz_x"] = sum(t.q.log_prob(t.z) for t in latents_of(draw))  # type: ignore[assignment]
        for name, t in again.items():
            said = getattr(draw, name)
            if t.shape != said.shape or not close(t, said):
                yield (
                    f"{name} is not the log-density of the draw's own distributions at z{how}; "
                    "expected theirs: build the draw with vaelib.Draw.of."
                )


def weights_sum(case: Case) -> Iterator[str]:
    """weights of listed values"""
    for how, draw in case.usual():
        if draw.values > 1 and draw.log_weight is not None:
            weights = draw.log_weight.exp().unflatten(0, (-1, draw.values))
            sums = weights.sum(1) * len(weights)
            if not bool(((sums - 1).abs() < 1e-3).all()):
                worst = sums.flatten()[(sums - 1).abs().argmax()]
                yield (
                    f"The weights of a sample's {draw.values} listed values sum to {worst:.4g}{how}"
                    "; expected 1: list every value of q once, a sample's together, or say their "
                    "weights as log_weight."
                )


def nested_layers(case: Case) -> Iterator[str]:
    """nested latents"""
    for how, draw in case.usual():
        for i, latent in enumerate(draw.latents):
            later = [t.z for t in draw.latents[i + 1 :]]
            log_p = latent.p.log_prob(latent.z.detach())
            if latent.nested and any(t.any() for t in slope_of(log_p, later)):
                yield (
                    f"p of {layer_name(i, latent)} reads a later latent{how}, so that its "
                    "closed-form KL is not what it costs; expected nested=False."
                )


@torch.no_grad()
def draws_follow(case: Case) -> Iterator[str]:
    """draws and the closed-form KL"""
    for how, parts in case.many():
        looks: dict[str, list[dict[str, Tensor]]] = {}
        shared: dict[str, int] = {}  # listed values above a layer, which may share its noise
        gaps = []
        for draw in parts:
            values = draw.values
            for i, latent in enumerate(latents_of(draw)):
                if not latent.is_drawn:
                    continue
                name, seen = layer_name(i, latent), look(latent.q, latent.z)
                shared[name] = values
                if latent.values > 1:
                    seen, shared[name] = _by_strata(seen, latent), 1
                looks.setdefault(name, []).append(seen)
            if draw.kl_parts is not None:
                gaps.append(_by_sample(draw, draw.log_qz_x - draw.log_pz - _kl_by_draw(draw)))
        faults = {name: unlike(its_parts, shared[name]) for name, its_parts in looks.items()}
        for name, found in faults.items():
            if found is not None:
                yield f"The draws of {name}{how} do not follow its q: {found}."
        if gaps and not any(faults.values()):
            gap = torch.cat(gaps).reshape(-1, 1)  # of mean 0, whatever the distribution of the KL
            worst = off(gap, reach=gap.abs().max().item(), least=0.01)
            if worst is not None:
                yield (
                    f"kl_parts are off: the draws{how} say {worst[1]:.3g} nats more, give or take "
                    f"{worst[2]:.2g}; expected the same: a layer whose p reads a later latent says "
                    "nested=False."
                )


def same_seed(case: Case) -> Iterator[str]:
    """what a seed and eval mode keep"""
    before = state_of(case.model)
    drawn = [[case.draw(case.few, 3, y) for y in case.told] for _ in range(2)]
    with torch.no_grad():
        case.draw(case.few, 3, case.told[0])
    moved = [n for n, t in state_of(case.model).items() if not same_bits(t, before[n])]
    if moved:
        yield (
            f"In eval mode a draw moved {listed(moved)}; expected state to stay: move it where "
            "self.training alone."
        )
    elif not all(same_draw(a, b) for a, b in zip(*drawn)):
        yield (
            "Two draws from the same seed differ; expected the same bits: draw from torch's "
            "generator alone, not from NumPy's or Python's, and keep no count of calls."
        )


def noise_counts(case: Case) -> Iterator[str]:
    """noise"""
    n, y = len(case.few), case.told[0]
    if case.noise_dim is None:
        try:
            case.draw(case.few, 3, y, case.noise(3, n))
        except FAILURES:
            return
        yield (
            "The model took noise, but its noise_dim is None; expected a ValueError, or the number "
            "of standard normals that a draw takes as noise_dim."
        )
        return
    one = case.draw(case.few, 3, y, case.noise(3, n))
    again = case.draw(case.few, 3, y, case.noise(3, n), seed=1)
    other = case.draw(case.few, 3, y, case.noise(3, n, seed=1))
    pairs = [
        (a.z, b.z, c.z) for a, b, c in zip(latents_of(one), latents_of(again), latents_of(other))
    ]
    if all(same_bits(a, c) for a, _, c in pairs):
        yield (
            f"Other noise gave the same z, though noise_dim is {case.noise_dim}; expected z to be "
            "made from the noise that is handed over, or noise_dim = None."
        )
    elif not all(same_bits(a, b) for a, b, _ in pairs):
        yield (
            "The same noise under another seed gave another z; expected noise to decide every "
            "draw: raise noise_dim to all that it takes, or say noise_dim = None."
        )


def alone(case: Case) -> Iterator[str]:
    """examples that know nothing of each other"""
    y, noise = case.told[0], None
    if case.noise_dim is not None:
        noise = case.noise(3, len(case.few))
    x, one_y = case.few, y
    others = x[:1].expand_as(x).clone()  # a mean over the batch, too, is then another
    if y is not None:
        one_y = y[:1].expand(len(y), *y.shape[1:])
    a, b = case.draw(x, 3, y, noise), case.draw(others, 3, one_y, noise)
    leak = "{} of an example changed with the other examples of its batch, in eval mode; expected "
    leak += "each example alone: no statistics of the batch there."
    for i, (mine, theirs) in enumerate(zip(latents_of(a), latents_of(b))):
        if not close(mine.q.log_prob(mine.z)[:, 0], theirs.q.log_prob(mine.z)[:, 0]):
            yield leak.format(f"q of {layer_name(i, mine)}")
            return
        if not close(mine.z[:, 0], theirs.z[:, 0]):
            return  # random numbers came in another order: what follows cannot be compared
    for name in ("log_px_z", "log_pz"):
        if not close(getattr(a, name)[:, 0], getattr(b, name)[:, 0]):
            yield leak.format(name)
            return


def _kl_by_draw(draw: Draw) -> Tensor:
    """The closed-form KL of every layer at each draw, [K, B] or [B]: `kl` is its mean."""
    known = [closed_form(latent.q, latent.p) for latent in draw.latents]
    if not known or any(kl is None for kl in known):
        return draw.kl
    return sum(known)  # type: ignore[arg-type, return-value]


def _by_strata(seen: dict[str, Tensor], latent: Latent) -> dict[str, Tensor]:
    """Of strata, what is of mean 0 under q: the sum over a sample's strata by their weights."""
    weights = latent.log_weight.exp().unsqueeze(-1)  # type: ignore[union-attr]
    return {
        name: (weights * t).unflatten(0, (-1, latent.values)).sum(1)
        for name, t in seen.items()
        if name in ("slope", "spread")
    }


def _by_sample(draw: Draw, terms: Tensor) -> Tensor:
    """The mean of terms [K, B] over each sample's listed values: [S, B]."""
    if draw.values == 1 or draw.log_weight is None:
        return terms
    samples = len(terms) // draw.values
    weighted = draw.log_weight.exp() * torch.where(draw.log_weight > -math.inf, terms, 0.0)
    return samples * weighted.unflatten(0, (samples, draw.values)).sum(1)


# Words and bits ----------------------------------------------------------------------------------


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def same_draw(a: Draw, b: Draw) -> bool:
    pairs = [(a.log_px_z, b.log_px_z), (a.log_pz, b.log_pz), (a.log_qz_x, b.log_qz_x)]
    return all(same_bits(s, t) for s, t in pairs)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    state = {**dict(model.named_buffers()), **model.state_dict()}
    return {name: t.detach().clone() for name, t in state.items() if isinstance(t, Tensor)}
