"""What a model says of a batch: its latents, drawn or listed, and the log-densities there.

Every objective and every estimate reads a `Draw`, and knows nothing of the model that made it.
Introduced in book/foundations/05_first_vae.ipynb; book/bring_your_own.md shows models of all kinds.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
)

from .distributions import kind_of, unwrap
from .kl import closed_form


@dataclass(frozen=True)
class Latent:
    """One stochastic layer: where z is, and the two densities that price it there.

    Attributes:
        z: [K, B, ...], drawn from q or listed.
        q: q(z_l | z_<l, x), of batch shape [B] or [K, B].
        p: p(z_l | z_<l), of batch shape [], [B] or [K, B].
        values: V, how many values are listed, instead of drawn, for each of S samples; then
            K = S V, and a sample's values stand together.
        log_weight: [K, B], what each listed value counts, its exp summing to 1 over a sample's
            values; log q(z|x) unless told otherwise. Codes so told follow the weights, not q (a
            label that is known); of strata, each drawn from a part of q, log q stays q's.
        nested: whether p reads only latents that stand before this one. Then E KL(q || p), in
            closed form, is what the layer costs; a bottom-up q says False.
        point: whether q is a single value of log-probability 0 (a quantized code). Then log_w is
            of p(x, code), and every estimate of log p(x) is a bound, however many draws.
        stopped: q again, of parameters that carry no gradient but what earlier z they read, for
            `objectives.stl` and `bounds.dreg`. Needed of a family whose parameters they cannot hold
            still themselves, and by dreg of each q that reads earlier latents.

    Example:
        >>> import torch, vaelib
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.zeros(3, 2), 0.5), 1)
        >>> p = Independent(Normal(torch.zeros(2), 1.0), 1)
        >>> vaelib.Latent(q.rsample((5,)), q, p).log_qz_x.shape
        torch.Size([5, 3])
    """

    z: Tensor
    q: Distribution
    p: Distribution
    values: int = 1
    log_weight: Tensor | None = None
    nested: bool = True
    point: bool = False
    stopped: Distribution | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether z is drawn, from q or from strata of it, and not a list of all values."""
        strata = self.log_weight is not None and self.z.is_floating_point()
        return not self.point and (self.values == 1 or strata)

    @property
    def log_qz_x(self) -> Tensor:
        """log q(z|x) at z, [K, B], nats. Of codes whose weight is told, the weight is their q."""
        if self.log_weight is not None and not self.z.is_floating_point():
            return self.log_weight
        return self.q.log_prob(self.z)

    @property
    def is_bound(self) -> bool:
        """Whether a log p(x) made with this layer is a lower bound, however many draws."""
        return self.point or is_bound(self.p)


@dataclass(frozen=True)
class Draw:
    """K draws of the latents for each of B examples, and the log-densities there.

    Log-densities are [K, B], in nats, summed over the event and over the latents.

    Attributes:
        x: [B, ...], the batch as the model took it.
        z: [K, B, ...], of the first latent, the one whose q reads x alone.
        log_px_z: log p(x|z).
        log_pz: log p(z).
        log_qz_x: log q(z|x).
        qz_x: q of the first latent.
        kl_parts: the closed-form KL(q || p), [B, L]: a column a latent dimension for one flat
            latent whose KL is a sum over dimensions, else a column a layer; None where a closed
            form is missing, or is not the cost.
        px_z: p(x|z), one joint distribution over x, of batch shape [K, B].
        latents: every layer, in the model's order.
        log_weight: [K, B], what a draw counts: -log K for equal ones; exp sums to 1 over K.
        values: listed values a sample; K = S * values.
        y: the labels that were handed over.

    Example:
        >>> import torch, vaelib
        >>> draw = vaelib.mlp_vae(2, (8,), x_shape=(4,)).draw(torch.ones(3, 4), num_samples=5)
        >>> draw.log_w.shape, draw.kl.shape
        (torch.Size([5, 3]), torch.Size([3]))
    """

    x: Tensor
    z: Tensor
    log_px_z: Tensor
    log_pz: Tensor
    log_qz_x: Tensor
    qz_x: Distribution
    kl_parts: Tensor | None = None
    px_z: Distribution | None = None
    latents: tuple[Latent, ...] = ()
    log_weight: Tensor | None = None
    values: int = 1
    y: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, px_z: Distribution, *latents: Latent, y: Tensor | None = None) -> "Draw":
        """The draw of a model that says p(x|z) and its latents, as `VAE.infer` does.

        Args:
            x: [B, ...].
            px_z: p(x|z), of batch shape [K, B] and the event shape of one example.
            latents: at least one, in the model's order.
            y: the labels that were handed over.

        Raises:
            ValueError: for shapes and dtypes that do not fit together.

        Example:
            Where q is the exact posterior, every weight is p(x), here N(0, 1.5) at 2:

            >>> import torch, vaelib
            >>> from torch.distributions import Independent, Normal
            >>> x, p = torch.tensor([[2.0]]), Independent(Normal(torch.zeros(1), 1.0), 1)
            >>> q = Independent(Normal(x / 1.5, (1 / 3) ** 0.5), 1)
            >>> z = q.rsample((3,))
            >>> px_z = Independent(Normal(z, 0.5**0.5), 1)
            >>> vaelib.Draw.of(x, px_z, vaelib.Latent(z, q, p)).log_w.T
            tensor([[-2.4550, -2.4550, -2.4550]])
        """
        if not latents:
            raise ValueError("The model gave p(x|z) and no latent; expected at least one Latent.")
        if px_z.event_shape != x.shape[1:]:
            raise ValueError(
                f"x has shape {list(x.shape)}, but p(x|z) is over {list(px_z.event_shape)}; "
                "expected one example to have that shape: reshape x, or change the decoder."
            )
        shape = (*latents[0].z.shape[:1], len(x))
        for latent in latents:
            if latent.z.shape[:2] != shape:
                raise ValueError(
                    f"A latent z has shape {list(latent.z.shape)}; expected "
                    f"[{shape[0]}, {shape[1]}, ...], draws and then examples."
                )
        log_px_z = _log_prob(px_z, x)
        dtype = x.dtype if x.is_floating_point() else log_px_z.dtype
        _check("log p(x|z)", log_px_z, shape, dtype)
        values = math.prod([latent.values for latent in latents])
        if shape[0] % values:
            raise ValueError(
                f"The model gave {shape[0]} draws with {values} listed values a sample; expected "
                "a multiple, a sample's values together."
            )
        log_pz = log_qz_x = log_weight = None
        for latent in latents:
            if latent.z.is_floating_point() and latent.z.dtype != dtype:
                raise ValueError(_other_dtype("A latent z", latent.z.dtype, dtype))
            log_p, log_q = latent.p.log_prob(latent.z), latent.log_qz_x
            _check("log p(z)", log_p, shape, dtype)
            _check("log q(z|x)", log_q, shape, dtype)
            log_pz = log_p if log_pz is None else log_pz + log_p
            log_qz_x = log_q if log_qz_x is None else log_qz_x + log_q
            if latent.values > 1:
                counts = log_q if latent.log_weight is None else latent.log_weight
                log_weight = counts if log_weight is None else log_weight + counts
        equal = log_px_z.new_full((), -math.log(shape[0] / values))
        counts = equal.expand(shape) if log_weight is None else log_weight + equal
        return cls(
            x=x,
            z=latents[0].z,
            log_px_z=log_px_z,
            log_pz=log_pz,  # type: ignore[arg-type]
            log_qz_x=log_qz_x,  # type: ignore[arg-type]
            qz_x=latents[0].q,
            kl_parts=_kl_parts(latents, counts, values),
            px_z=px_z,
            latents=latents,
            log_weight=counts,
            values=values,
            y=y,
        )

    def mean(self, terms: Tensor) -> Tensor:
        """E over the draws of terms [K, B]: [B].

        What counts nothing may be infinite there, and gets no gradient.
        """
        return _mean(terms, self.log_weight, self.values)

    @property
    def log_w(self) -> Tensor:
        """Log importance weights, log p(x|z) + log p(z) - log q(z|x); [K, B], nats."""
        return self.log_px_z + self.log_pz - self.log_qz_x

    @property
    def log_w_by_sample(self) -> Tensor:
        """Each sample's own log-estimate of p(x), its listed values summed; [S, B], nats.

        Bounds, effective sample sizes and Monte Carlo errors are computed from these S.
        """
        if self.values == 1 or self.log_weight is None:
            return self.log_w
        samples = len(self.log_weight) // self.values
        counts = self.log_weight > -math.inf
        terms = torch.where(counts, self.log_w + self.log_weight, -math.inf)
        return terms.unflatten(0, (samples, self.values)).logsumexp(1) + math.log(samples)

    @property
    def kl(self) -> Tensor:
        """Analytic KL(q(z|x) || p(z)), [B], nats.

        Raises:
            ValueError: where no closed form is known.
        """
        if self.kl_parts is None:
            raise ValueError(
                "This draw has no analytic KL, since no closed form is known for its posterior and "
                "prior, or it is not the cost; draw.rate has the sampled one."
            )
        return self.kl_parts.sum(-1)

    @property
    def rate(self) -> Tensor:
        """What the code costs, the KL where it is known, or the draws' estimate; [B], nats."""
        return self.mean(self.log_qz_x - self.log_pz) if self.kl_parts is None else self.kl

    @property
    def is_bound(self) -> bool:
        """Whether estimates of log p(x) from this draw are bounds, however many draws."""
        return any(latent.is_bound for latent in self.latents) or is_bound(self.px_z)

    @property
    def density_stderr(self) -> float:
        """The standard error, nats, of densities that say `density = "estimate"` and `stderr`."""
        densities = [unwrap(d) for d in (self.px_z, *[latent.p for latent in self.latents]) if d]
        estimated = [d for d in densities if getattr(d, "density", "") == "estimate"]
        return math.hypot(*[d.stderr for d in estimated])  # type: ignore[attr-defined]


def as_inferred(inferred: Any) -> tuple[Any, ...]:
    """What `infer` returned, if it is p(x|z) and then latents; else a TypeError that says so."""
    if isinstance(inferred, tuple) and len(inferred) > 1:
        if isinstance(inferred[0], Distribution):
            if not [part for part in inferred[1:] if not isinstance(part, Latent)]:
                return inferred
    parts = inferred if isinstance(inferred, tuple) else (inferred,)
    told = ", ".join(type(part).__name__ for part in parts)
    raise TypeError(
        f"infer returned {told}; expected p(x|z), a distribution over x, and then a vaelib.Latent "
        "for each layer."
    )


def check_count(latents: list[Latent], num_samples: int) -> None:
    """ValueError unless each latent has as many draws as were asked for."""
    values = math.prod([latent.values for latent in latents])
    expected = [num_samples * values]
    if not [latent for latent in latents if latent.is_drawn or latent.point]:
        expected.append(values)  # all is listed: further samples add nothing
    for latent in latents:
        if len(latent.z) not in expected:
            raise ValueError(
                f"infer gave {len(latent.z)} draws for num_samples = {num_samples}; expected "
                f"{expected[0]}" + (f", {values} listed values a sample." if values > 1 else ".")
            )


def latents_of(draw: Draw) -> tuple[Latent, ...]:
    """The latents of a draw, also of one that was built by hand of the first's parts alone."""
    return draw.latents or (Latent(draw.z, draw.qz_x, draw.qz_x),)


def layer_name(i: int, latent: Latent) -> str:
    """A layer by its place and the family of its q, for messages."""
    return f"latent {i} ({kind_of(latent.q)})"


def _mean(terms: Tensor, log_weight: Tensor | None, values: int) -> Tensor:
    """See `Draw.mean`."""
    if values == 1 or log_weight is None:
        return terms.mean(0)
    return (log_weight.exp() * torch.where(log_weight > -math.inf, terms, 0.0)).sum(0)


def is_bound(distribution: Distribution | None) -> bool:
    """Whether a density says of itself, by `density = "bound"`, that it is no exact one."""
    return distribution is not None and getattr(unwrap(distribution), "density", "") == "bound"


def _check(name: str, log_density: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if log_density.shape != shape:
        raise ValueError(
            f"{name} has shape {list(log_density.shape)}; expected {list(shape)}, draws and then "
            "examples, summed over the event: declare the other axes with Independent."
        )
    if log_density.dtype != dtype:
        raise ValueError(_other_dtype(name, log_density.dtype, dtype))


def _other_dtype(name: str, found: torch.dtype, expected: torch.dtype) -> str:
    return (
        f"{name} is {found} but the data are {expected}; expected the same: under precision='bf16' "
        "call networks by vaelib.nets.call, which casts their outputs back."
    )


def _log_prob(px_z: Distribution, x: Tensor) -> Tensor:
    """log p(x|z), [K, B]; faster for a Bernoulli where no gradient is asked.

    Its sum over pixels is x * logit - softplus(logit): x enters by a product of matrices, and up
    to 64 pixels share a logarithm, since softplus(l) = max(l, 0) + log(1 + e^-|l|), and those
    factors lie in (1, 2]. A subclass may have a log_prob of its own, which is then called.
    """
    plain = type(px_z) is Independent and type(px_z.base_dist) is Bernoulli
    if plain and not x.is_floating_point():
        x = x.to(unwrap(px_z).logits.dtype)  # type: ignore[attr-defined]
    if not plain or len(px_z.batch_shape) != 2:
        return px_z.log_prob(x)
    if torch.is_grad_enabled() and torch.compiler.is_compiling() and not x.requires_grad:
        flat = unwrap(px_z).logits.flatten(2), x.flatten(1)  # type: ignore[attr-defined]
        return _LogBernoulli.apply(*flat)  # type: ignore[no-untyped-call, no-any-return]
    if torch.is_grad_enabled():
        return px_z.log_prob(x)
    logits: Tensor = unwrap(px_z).logits  # type: ignore[attr-defined]
    logits = logits.flatten(2).transpose(0, 1)  # [B, K, pixels]
    ink = (logits @ x.flatten(1).unsqueeze(-1)).squeeze(-1)
    group = math.gcd(logits.shape[-1], 64)
    factors = logits.abs().neg_().exp_().add_(1).unflatten(-1, (-1, group)).prod(-1)
    return (ink - logits.clamp(min=0).sum(-1) - factors.log().sum(-1)).T


class _LogBernoulli(torch.autograd.Function):
    """log p(x|z) for compiled training, where logarithms are what a step has beside products."""

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        """Of logits [K, B, pixels] and x [B, pixels]: [K, B]; 16 pixels share a logarithm."""
        group = math.gcd(logits.shape[-1], 16)
        factors = (1 + logits.abs().neg().exp()).unflatten(-1, (group, -1)).prod(-2)
        return (x * logits - logits.clamp(min=0)).sum(-1) - factors.log().sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits, x = ctx.saved_tensors
        return grad.unsqueeze(-1) * (x - logits.sigmoid()), None


# The closed-form KL ------------------------------------------------------------------------------


def _kl_parts(latents: tuple[Latent, ...], log_weight: Tensor, values: int) -> Tensor | None:
    """[B, L] nats: see `Draw`."""
    columns = []
    for latent in latents:
        if not latent.nested or latent.point or latent.log_weight is not None:
            return None
        kl = _kl_by_dimension(latent) if len(latents) == 1 else None
        if kl is None:
            kl = closed_form(latent.q, latent.p)
            if kl is None:
                return None
            kl = _mean(kl, log_weight, values) if kl.dim() == 2 else kl
            kl = kl.expand(log_weight.shape[1:]).unsqueeze(-1)  # also of a q that reads nothing
        columns.append(kl)
    return columns[0] if len(columns) == 1 else torch.cat(columns, -1)


def _kl_by_dimension(latent: Latent) -> Tensor | None:
    """[B, L], for a flat latent whose dimensions are independent under q and under p."""
    q, p = latent.q, latent.p
    if type(q) is not Independent or type(p) is not Independent or q.base_dist.event_shape:
        return None
    if len(q.event_shape) != 1 or len(p.event_shape) != 1:
        return None
    if len(q.batch_shape) != 1 or len(p.batch_shape) > 1:
        return None
    return closed_form(q.base_dist, p.base_dist)


__all__ = ["Draw", "Latent"]
