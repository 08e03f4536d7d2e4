"""What a training run measured, an entry an epoch: to read, to plot, to write to a file.

Introduced in book/foundations/06_training.ipynb.
"""

import csv
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TERM = "term: "
APART = ("terms", "ema")  # no list of an entry an epoch


@dataclass
class History:
    """What a run measured, an entry an epoch; means are over the epoch, while weights moved.

    Attributes:
        epoch: epochs done by then.
        step: updates done by then.
        train: the mean objective, nats an example.
        elbo: the mean ELBO, -(rate + distortion), nats an example, whatever the objective.
        rate: the mean rate, nats an example.
        distortion: the mean distortion, nats an example.
        grad_norm: the mean norm of the gradient, before clipping.
        lr: the learning rate of the last step.
        skipped: updates left out, for a gradient that was not finite or above ``skip``.
        seconds: the time of the epoch, validation excluded.
        examples_per_second: likewise.
        validation: the mean objective on the validation data (empty without them).
        terms: of an objective that returns {term: [B]}, the mean of each, by its name.
        ema: the averaged weights, for ``model.load_state_dict`` (None without ``ema``).

    Example:
        >>> import torch, vaelib
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> history = vaelib.fit(model, torch.ones(32, 4), epochs=2, batch_size=8)
        >>> history.epoch, history.step
        ([1, 2], [4, 8])
    """

    epoch: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    elbo: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    distortion: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    examples_per_second: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    ema: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def loss(self) -> list[float]:
        """What was minimised, -train."""
        return [-value for value in self.train]

    def columns(self) -> dict[str, list[Any]]:
        """The lists by name, those without an entry left out; a term is "term: name"."""
        lists = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in APART}
        lists |= {TERM + name: values for name, values in self.terms.items()}
        return {name: list(values) for name, values in lists.items() if values}

    def append(self, **entries: Any) -> None:
        """Add one entry to each list that is named."""
        for name, value in entries.items():
            getattr(self, name).append(value)

    def extend(self, columns: dict[str, list[Any]]) -> None:
        """Add whole columns, as `columns` gave them."""
        for name, values in columns.items():
            if name.startswith(TERM):
                self.terms.setdefault(name.removeprefix(TERM), []).extend(values)
            else:
                getattr(self, name).extend(values)

    def to_frame(self) -> "DataFrame":
        """The lists as columns of a pandas DataFrame.

        Raises:
            ImportError: where pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError(
                "pandas is not installed; expected it for to_frame: pip install pandas, or use "
                "to_csv."
            ) from error
        return DataFrame(self.columns())

    def to_csv(self, path: str | Path) -> None:
        """Write the lists as columns of a CSV file, a row an epoch."""
        columns = self.columns()
        with open(path, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(columns)
            rows.writerows(zip(*columns.values()))

    def to_tensorboard(self, folder: str | Path) -> None:
        """Write the lists as TensorBoard scalars.

        Raises:
            ImportError: where TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard is not installed; expected it for to_tensorboard: pip install "
                "tensorboard, or use to_csv."
            ) from error
        with SummaryWriter(str(folder)) as writer:
            for name, values in self.columns().items():
                for step, value in zip(self.step, values):
                    writer.add_scalar(name, value, step)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the objective against the epoch, on training and validation data; nats.

        Args:
            ax: where to; a new figure's without it.
        """
        from .plots import COLORS, WIDTH

        if ax is None:
            from matplotlib import pyplot as plt

            ax = plt.subplots(figsize=(WIDTH / 2, 2.6))[1]
        ax.plot(self.epoch, self.train, color=COLORS["q"], label="training, weights moving")
        if self.validation:
            ax.plot(self.epoch, self.validation, color=COLORS["p"], label="validation")
            ax.legend()
        ax.set(xlabel="epoch", ylabel="objective (nats)")
        return ax


__all__ = ["History"]
