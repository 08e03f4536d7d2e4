"""Callbacks for `fit`: what looks at a run after each epoch, and may end it."""

from typing import Any

from torch import Tensor, nn

from .history import History


class EarlyStopping:
    """Stop where the validation objective has not risen for some epochs; keep the best.

    When it stops the run, the model gets the weights of the best epoch (the averaged ones, where
    `fit` averages); after a run that went to its end, `restore` does so. What it knows is
    kept in the run's checkpoints, so its patience survives a kill.

    Args:
        patience: epochs without a rise, at least 1.
        min_delta: nats by which a rise must exceed the best so far.

    Raises:
        ValueError: for less than 1 epoch or 0 nats, and in a run without validation data.

    Example:
        >>> import torch, vaelib
        >>> model, x = vaelib.mlp_vae(2, (8,), x_shape=(4,)), torch.rand(40, 4)
        >>> stopper = vaelib.EarlyStopping(patience=3)
        >>> history = vaelib.fit(model, x[8:], validation=x[:8], epochs=20, callback=stopper)
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        if patience < 1 or min_delta < 0:
            raise ValueError(
                f"EarlyStopping got patience={patience} and min_delta={min_delta}; expected at "
                "least 1 epoch, and at least 0 nats."
            )
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_epoch = float("-inf"), 0
        self.best_weights: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, history: History) -> bool:
        if not history.validation:
            raise ValueError(
                "EarlyStopping got a run without validation data; expected fit(validation=...)."
            )
        epoch, value = history.epoch[-1], history.validation[-1]
        if epoch == 1:  # another run
            self.best, self.best_epoch, self.best_weights = float("-inf"), 0, {}
        if value > self.best + self.min_delta:
            weights = model.state_dict() if history.ema is None else history.ema
            self.best, self.best_epoch = value, epoch
            self.best_weights = {name: t.detach().clone() for name, t in weights.items()}
        if epoch - self.best_epoch < self.patience:
            return False
        self.restore(model)
        return True

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into the model."""
        if self.best_weights:
            model.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.best_weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_weights = dict(state.get("weights", {}))


__all__ = ["EarlyStopping"]
