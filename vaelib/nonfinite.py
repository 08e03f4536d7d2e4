"""What `fit` says when a number is not finite: where, which part, and what to look at."""

import math
from pathlib import Path

from torch import Tensor


class NonFiniteError(FloatingPointError):
    """The objective or its gradient was not finite; the message says where, and what to look at.

    Attributes:
        indices: [b], the examples of the batch.
    """

    def __init__(self, message: str, indices: Tensor) -> None:
        super().__init__(message)
        self.indices = indices


def diagnosis(
    log: Tensor, first_step: int, order: tuple[Tensor, ...], last: Path | None
) -> NonFiniteError | None:
    """The error for the first row of an epoch's log that is not finite, or None where all are.

    Args:
        log: [steps, 4 or more]: sums of objective, rate and distortion first, the gradient's norm
            last.
        first_step: the step of the first row.
        order: the examples of each of the epoch's batches.
        last: the last checkpoint, if there are any.
    """
    bad = (~log[:, [0, -1]].isfinite().all(1)).nonzero()
    if len(bad) == 0:
        return None
    i = int(bad[0])
    objective, rate, distortion, *_, norm = log[i].tolist()
    if not math.isfinite(rate):
        cause = "the KL is not: q(z|x)'s log-variance or mean overflows; bound it, or clip"
    elif not math.isfinite(distortion):
        cause = "log p(x|z) is not: look for log(0), a scale near 0, or logits that overflow"
    elif not math.isfinite(objective):
        cause = "rate and distortion are finite: look into the objective"
    else:
        cause = "only the gradient is not: look for a root, a log or a norm at 0"
    if i > 20 and bool(log[i - 10 : i, -1].mean() > 5 * log[:i, -1].median()):
        cause += "; gradients grew before it: lower the learning rate, warm it up, or clip"
    return NonFiniteError(
        f"At step {first_step + i} (epoch {first_step // len(order) + 1}, batch {i + 1} of "
        f"{len(order)}) the objective is {objective / len(order[i]):.4g} and the gradient's norm "
        f"{norm:.4g}; expected finite numbers. Of its parts, {cause}. The update was left out, so "
        f"the weights are those before it. Examples: {order[i][:8].tolist()} and so on, all in "
        f"this error's .indices. Last checkpoint: {last or 'none was asked for with out='}.",
        order[i],
    )
