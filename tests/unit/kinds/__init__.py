"""Small models of every kind that the contract covers, in float64, that know their exact answers.

Each is written as a user would write it: `infer`, `generate`, nothing of vaelib's machinery.
A `Kind` says what is known of one, and `KINDS` has them by name. The exact log p(x) is read off
the decoder's parameters, so that it holds after training, too. The answers are linear algebra,
enumeration and quadrature. The models lie by family: `hierarchies`, `codes`, `labels`,
`sequences`, `missing`, `players`, and `standard` for those that `vaelib.VAE` makes of parts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import vaelib
from kinds.codes import Drawn, Listed, Quantized, Score, commitment
from kinds.hierarchies import BottomUp, TopDown
from kinds.labels import Conditional, Given, Labelled
from kinds.missing import Missing
from kinds.players import Critic, Player
from kinds.sequences import Autoregressive, Path, Tokens
from kinds.standard import (
    flat,
    flat_log_px,
    flat_solve,
    flat_wrong,
    full_covariance,
    full_solve,
    full_wrong,
    heavy,
    heavy_near,
    heavy_wrong,
)


@dataclass(frozen=True)
class Kind:
    """A kind of model, and what is known of it.

    Args:
        build: a model.
        log_px: (model, x, y) -> log p(x), [N], exact; of p(x|y) or p(x, y) where y counts.
        z_shapes: the event shape of each latent's z.
        solve: gives the model its exact posterior; None where its q cannot be that.
        near: gives the model a q that is not far from it, where there is no `solve`.
        wrong: moves a solved q, and returns KL(q || p(z|x)), [N], by a closed form.
        stirred: how far its parameters then move from there.
        classes: how many labels; 0 for a model that takes none.
        values: listed values a sample.
        exact: whether all is listed, so that a single sample is exact.
        kl: the number of columns of kl_parts; None where there are none.
        bound: whether every estimate is a bound.
        mean: whether p(x|z) has a mean.
        objective: what trains it; elbo, if that does.
        num_samples: that it trains with.
    """

    build: Callable[[], vaelib.VAE]
    log_px: Callable[..., Tensor]
    z_shapes: tuple[tuple[int, ...], ...]
    solve: Callable[..., None] | None = None
    near: Callable[..., None] | None = None
    stirred: float = 0.02
    wrong: Callable[..., Tensor] | None = None
    classes: int = 0
    values: int = 1
    exact: bool = False
    kl: int | None = None
    bound: bool = False
    mean: bool = True
    objective: Callable[[], Any] = lambda: vaelib.elbo
    num_samples: int = 1

    def make(self, solved: bool = False, seed: int = 0) -> vaelib.VAE:
        """A model: with its exact posterior; or with its p moved, and its q near that one's own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build()
            if not solved:
                _stir(model, 0.2)
            near = self.solve or self.near
            if near is not None:
                near(model)
            if not solved:
                _stir(model, self.stirred)
        return model

    def data(self, n: int = 8, seed: int = 7) -> tuple[Tensor, Tensor | None]:
        """x [n, ...] from the model with its first parameters, and y [n] (half of them missing)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            y = torch.arange(n) % self.classes if self.classes else None
            x = self.make(solved=True).sample(n, mean=False, y=y)
            if y is not None and self.build.labels == "learnt":  # type: ignore[attr-defined]
                y = torch.where(torch.arange(n) % 2 == 0, y, -1)
            if self.build is Missing:
                x = x.masked_fill(torch.rand(x.shape) < 0.3, math.nan)
                x[0] = math.nan  # and one of which nothing is known
        return x, y


@torch.no_grad()
def _stir(model: nn.Module, scale: float) -> None:
    for p in model.parameters():
        p += scale * torch.randn_like(p)


def of(model: type, *z_shapes: tuple[int, ...], **known: Any) -> Kind:
    """The kind of a class that brings its own answers."""
    answers = {name: getattr(model, name, None) for name in ("solve", "near", "wrong")}
    return Kind(model, model.log_px, z_shapes, **{**answers, **known})


flat_answers = {"log_px": flat_log_px, "solve": flat_solve, "wrong": flat_wrong}

KINDS: dict[str, Kind] = {
    "flat": Kind(flat, z_shapes=((2,),), kl=2, **flat_answers),
    "top_down": of(TopDown, (2,), (3,), kl=2),
    "bottom_up": of(BottomUp, (3,), (2,)),
    "listed": of(Listed, (), values=4, exact=True, kl=1),
    "drawn": of(Drawn, (), kl=1, objective=Score, num_samples=8),
    "quantized": of(Quantized, (), solve=None, bound=True, objective=lambda: commitment),
    "labelled": of(Labelled, (), (2,), classes=3, values=3),
    "path": of(Path, (7,), kl=1),
    "heavy": Kind(heavy, flat_log_px, ((3,),), near=heavy_near, wrong=heavy_wrong),
    "given": of(Given, (3,), classes=3, kl=1),
    "conditional": of(Conditional, (2,), classes=3, kl=2),
    "player": of(Player, (2,), kl=2, stirred=0.4, objective=Critic),
    "autoregressive": of(Autoregressive, (), values=3, exact=True, kl=1, mean=False),
    "tokens": of(Tokens, (2,), kl=2, mean=False),
    "missing": of(Missing, (2,), kl=1, stirred=0.05),
    "full_covariance": Kind(full_covariance, flat_log_px, ((3,),), full_solve, full_wrong, kl=1),
}
