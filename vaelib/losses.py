"""What a step measures: model and objective in one module, to be compiled and distributed."""

from typing import Any

import torch
from torch import Tensor, nn

from .draw import Draw
from .modes import seeded
from .objectives import Objective, modules_of, total
from .refusals import check_leaves, check_objective


class Losses(nn.Module):
    """The sums over a batch of the objective, its rate and distortion, and its terms.

    `terms`: the names of the objective's terms, known after the first call.
    """

    def __init__(self, model: nn.Module, objective: Objective, num_samples: int) -> None:
        super().__init__()
        self.model, self.objective, self.num_samples = model, objective, num_samples
        self.objectives = nn.ModuleList(modules_of(objective))
        self.terms: tuple[str, ...] = ()

    def forward(
        self,
        x: Tensor,
        noise: Tensor | None,
        y: Tensor | None,
        step: Tensor | None,
        first: bool = False,
    ) -> Tensor:
        """[3 + terms], nats; the first is differentiable.

        first: whether to refuse what would train wrongly in silence (see `check_objective`).
        """
        draw, value = self.value(x, noise, y, step)
        terms = self._terms(value)
        whole = total(value)
        for part in (whole, *terms):
            if part.shape != (len(x),):
                raise ValueError(
                    f"The objective returned shape {list(part.shape)}; expected [{len(x)}], one "
                    "number an example: leave the mean to fit."
                )
        if first:
            check_objective(draw, whole, self.objective)
            check_leaves(whole, [*self.model.parameters(), *self.objectives.parameters()])
        with torch.no_grad():
            distortion = -draw.mean(draw.log_px_z)
            rate = draw.rate
        parts = (whole, rate, distortion, *terms)
        return torch.stack([part.sum().to(draw.log_px_z.dtype) for part in parts])

    def value(
        self, x: Tensor, noise: Tensor | None, y: Tensor | None, step: Tensor | None
    ) -> tuple[Draw, Any]:
        """The draw, and what the objective says of it."""
        given = {"noise": noise, "y": y}
        draw = self.model(
            x, self.num_samples, **{name: t for name, t in given.items() if t is not None}
        )
        return draw, self.objective(draw) if step is None else self.objective(draw, step=step)

    def _terms(self, value: Any) -> list[Tensor]:
        """The objective's terms in the order of the first call's; [] of one that has none."""
        if isinstance(value, Tensor):
            return []
        if not isinstance(value, dict) or not all(isinstance(t, Tensor) for t in value.values()):
            raise TypeError(
                f"The objective returned {value!r:.60}; expected a tensor [B], or a dict of them, "
                "{term: [B]}."
            )
        if not self.terms:
            self.terms = tuple(value)
        if set(self.terms) != set(value):
            raise ValueError(
                f"The objective returned the terms {', '.join(value)}, but at first "
                f"{', '.join(self.terms)}; expected the same at every step."
            )
        return [value[name] for name in self.terms]

    @torch.no_grad()
    def mean(self, x: Tensor, y: Tensor | None, seed: int, step: Tensor | None) -> float:
        """The mean objective over x [N, ...], in eval mode and with the same noise each time."""
        found = 0.0
        training = self.training
        with seeded(self.model, seed):
            self.eval()
            for start in range(0, len(x), 1000):
                rows = slice(start, start + 1000)
                _, value = self.value(x[rows], None, None if y is None else y[rows], step)
                found += total(value).double().sum().item()
        self.train(training)
        return found / len(x)
