"""What a step measures: model and objective in one module, to be compiled and distributed."""

from typing import Any

import torch
from torch import Tensor, nn

from .draw import Draw
from .modes import seeded
from .objectives import Objective, total
from .refusals import check_objective


class Losses(nn.Module):
    """The sums over a batch of the objective, its rate and distortion, and its terms.

    `terms`: the names of the objective's terms, known after the first call.
    """

    def __init__(self, model: nn.Module, objective: Objective, num_samples: int) -> None:
        super().__init__()
        self.model, self.objective, self.num_samples = model, objective, num_samples
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
        terms = [] if isinstance(value, Tensor) else list(value.values())
        whole = total(value)
        for part in (whole, *terms):
            if part.shape != (len(x),):
                raise ValueError(
                    f"The objective returned shape {list(part.shape)}; expected [{len(x)}], one "
                    "number an example: leave the mean to fit."
                )
        if isinstance(value, dict):
            self.terms = tuple(value)
        if first:
            check_objective(draw, whole, self.objective)
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
        if not isinstance(draw, Draw):
            raise TypeError(
                f"The model returned a {type(draw).__name__}; expected a vaelib.Draw, as "
                "vaelib.Draw.of makes it."
            )
        return draw, self.objective(draw) if step is None else self.objective(draw, step=step)

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
