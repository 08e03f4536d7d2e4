"""How a step gets its gradients: by autograd, in parts, in several processes, or compiled.

Introduced in book/foundations/06_training.ipynb.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .batches import Batch, Batches
from .losses import Losses
from .modes import said
from .objectives import takes_step
from .settings import Settings, trained


class Compute:
    """A batch's gradients, into the parameters, and its sums over all processes.

    Every process gets the first one's weights when this is made.
    """

    def __init__(
        self, losses: Losses, settings: Settings, batches: Batches, device: torch.device
    ) -> None:
        self.workers, self.device = batches.workers, device
        self.losses = self.workers.wrap(losses)
        self.parameters = trained(losses.model)
        self.takes_step = takes_step(settings.objective)
        self.part = math.ceil(batches.share / settings.accumulate)
        self.fast: Callable[..., Tensor] = self.losses
        self.whole: WholeStep | None = None
        if settings.compile and device.type == "cpu":
            if self.workers.size == settings.accumulate == 1:
                self.whole = WholeStep(losses)
        if settings.compile and self.whole is None:
            # CUDA graphs overwrite what they gave; parts of a batch are added up.
            graphs = device.type == "cuda" and settings.accumulate == 1
            self.fast = compiled(self.losses, "reduce-overhead" if graphs else None)

    def step_tensor(self, step: int) -> Tensor | None:
        """The step as objectives take it: on the device, so that it recompiles nothing."""
        return torch.full((), step, device=self.device) if self.takes_step else None

    def __call__(self, batch: Batch, step: int) -> Tensor:
        """[4 + terms]: sums of objective, rate, distortion and terms; the model's gradient's norm.

        The first step and a short batch are never compiled: the first one is looked at.
        """
        now, first = self.step_tensor(step), step == 0
        if self.whole is not None and len(batch.x) == self.part and not first:
            return self.whole(batch.x, batch.noise, batch.y, now)
        parts = list(batch.split(self.part))
        totals: Any = 0.0
        for i, part in enumerate(parts):
            arguments = (part.x, part.noise, part.y, now)
            with self.workers.no_sync(self.losses, i + 1 < len(parts)):
                if first and i == 0:
                    sums = self.losses(*arguments, True)
                else:
                    compute = self.fast if len(part.x) == self.part else self.losses
                    sums = compute(*arguments)
                (sums[0] * (-batch.weight * self.workers.size / batch.size)).backward()
            totals = totals + batch.weight * sums.detach()
        self.workers.add(totals)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        return torch.cat((totals, norm.to(totals.dtype).view(1)))


class WholeStep:
    """The losses of a batch, their gradient and its norm, compiled as one graph.

    `torch.compile` of the losses alone gives two graphs and runs autograd between them; here it
    traces `torch.autograd.grad`, too, so that nothing is kept or computed twice.
    """

    def __init__(self, losses: Losses) -> None:
        models = trained(losses.model)
        self.parameters = models + trained(losses.objectives, but=losses.model.parameters())

        def compute(*arguments: Any) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            sums = losses(*arguments)
            loss = sums[0] * (-1 / len(arguments[0]))
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            with torch.no_grad():
                squares = [g.square().sum() for g in gradients[: len(models)] if g is not None]
                norm = torch.stack(squares or [0 * loss]).sum().sqrt()
                return torch.cat((sums, norm.to(sums.dtype).view(1))), gradients

        self.compute = compiled(compute)

    def __call__(self, *arguments: Any) -> Tensor:
        """Sums of objective, rate, distortion and terms, and the norm; fills `grad`."""
        row, gradients = self.compute(*arguments)
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient
        return row


@contextmanager
def autograd_traced(wanted: bool) -> Iterator[None]:
    """Let torch.compile trace torch.autograd.grad; an older one compiles what is before it."""
    if not wanted or not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        yield
        return
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield


def compiled(compute: Callable[..., Any], mode: str | None = None) -> Callable[..., Any]:
    """The function compiled at its first call; as it is, with a warning, where that fails."""
    now: Callable[..., Any] = torch.compile(compute, mode=mode)

    def call(*arguments: Any) -> Any:
        nonlocal now
        try:
            return now(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            if now is compute:
                raise
            reason = said(error)
            warnings.warn(
                f"torch.compile failed ({reason}), so fit goes on without it; expected a C++ "
                "compiler (CPU) or Triton (CUDA): install one, or leave compile=False.",
                stacklevel=3,
            )
            now = compute
            return compute(*arguments)

    return call
