"""Training: `fit`, the one loop.

Data live on the model's device, as they came (MNIST as uint8); a batch is an index into them.
Introduced in book/foundations/05_first_vae.ipynb.
"""

import hashlib
import inspect
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, binarize, check_data, scale_pixels
from .distributions import is_bernoulli
from .evaluate import seeded
from .io import read_tensors, write_tensors
from .model import likelihood_of, positive_int, values_checked
from .objectives import elbo

Objective = Callable[..., Tensor]


@dataclass
class History:
    """What a run measured, an entry an epoch.

    train: the mean objective over the epoch's batches, nats an example, while weights moved.
    validation: the mean objective on the validation data after the epoch (empty without them).
    seconds: the epoch's time, validation excluded.
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def fit(
    model: nn.Module,
    data: Data,
    *,
    objective: Objective = elbo,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    num_samples: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    validation: Data | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[[float], float] | None = None,
    callback: Callable[[nn.Module, History], None] | None = None,
) -> History:
    """Train a model in place and return its history, with the model in eval mode.

    data: Images, a tensor or an array, [N, ...]. Every example comes once an epoch, in an order
    drawn from `seed`. Under a Bernoulli likelihood grey pixels are drawn anew at each visit.
    objective: `Draw -> [B]`, maximised; a second argument named `step` is given the step.
    lr: the learning rate; schedule, from the share of training done, in [0, 1), to a factor on it.
    optimizer: `params -> Optimizer`; fused Adam at `lr` by default.
    out: a folder for checkpoints, an epoch apart. The same call takes up a cut run where it was;
    a finished one returns at once.
    callback: called with the model and the history after each epoch.
    The caller's random state is left as it was; the same seed gives the same bits on the same
    CPU with the same thread count. Raises ValueError and TypeError for settings and data it
    cannot train with, before the first step, and FloatingPointError when the objective is not
    finite.
    """
    batch_size = positive_int("batch_size", batch_size)
    num_samples = positive_int("num_samples", num_samples)
    if epochs != 0:
        epochs = positive_int("epochs", epochs)
    if not (isinstance(lr, int | float) and 0 < lr < math.inf):
        raise ValueError(f"lr is {lr!r}; expected a positive, finite learning rate, such as 1e-3.")

    px_z = likelihood_of(model)
    like = next(model.parameters(), torch.empty(0))
    x = check_data(data, px_z).to(like.device)
    if validation is not None:
        validation = check_data(validation, px_z)
        if is_bernoulli(px_z):
            validation = binarize(validation)  # the same bits after every epoch
    draw_ink = is_bernoulli(px_z)
    takes_step = "step" in inspect.signature(objective).parameters

    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("The model has no parameters that require gradients: nothing to train.")
    if optimizer is None:
        adam: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    else:
        adam = optimizer(parameters)
    base_lrs = [group["lr"] for group in adam.param_groups]

    num_batches = math.ceil(len(x) / batch_size)
    history = History()
    checkpoint = None
    settings = {
        "objective": getattr(objective, "__qualname__", repr(objective)),
        "batch_size": batch_size,
        "lr": lr,
        "num_samples": num_samples,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "schedule": None if schedule is None else f"over {epochs} epochs",
    }

    with seeded(model, seed), values_checked(model):
        if out is not None:
            checkpoint = _Checkpoint(Path(out), model, adam, history, settings | _fingerprint(x))
            checkpoint.resume(epochs)
        steps = _progress(epochs * num_batches, done=len(history.train) * num_batches)
        for epoch in range(len(history.train), epochs):
            started = time.perf_counter()
            model.train()
            order = torch.randperm(len(x)).to(x.device)
            values = torch.empty(num_batches, device=x.device)
            for i, index in enumerate(order.split(batch_size)):
                step = epoch * num_batches + i
                if schedule is not None:
                    factor = schedule(step / (epochs * num_batches))
                    for group, base_lr in zip(adam.param_groups, base_lrs, strict=True):
                        group["lr"] = base_lr * factor

                batch = scale_pixels(x[index], like.dtype)
                if draw_ink:
                    batch = (torch.rand_like(batch) < batch).to(batch.dtype)
                draw = model(batch, num_samples)
                arguments = (torch.tensor(step, device=x.device),) if takes_step else ()
                per_example = objective(draw, *arguments)  # [B], nats
                if per_example.shape != (len(batch),):
                    raise ValueError(
                        f"The objective returned shape {list(per_example.shape)}; expected "
                        f"[{len(batch)}], one number an example: leave the mean to fit."
                    )
                loss = -per_example.mean()
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                values[i] = -loss.detach() * len(batch)  # read once an epoch: no waiting
                steps.update()
            _check_finite(values, order.split(batch_size), epoch)
            history.train.append(values.sum().item() / len(x))
            history.seconds.append(time.perf_counter() - started)
            if validation is not None:
                mean = _mean_objective(model, validation, objective, num_samples, seed)
                history.validation.append(mean)
            steps.set_postfix_str(f"{history.train[-1]:.2f} nats")
            if checkpoint is not None:
                checkpoint.write()
            if callback is not None:
                callback(model, history)
        steps.close()
    model.eval()
    return history


def _check_finite(values: Tensor, batches: tuple[Tensor, ...], epoch: int) -> None:
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        i = int(bad[0])
        raise FloatingPointError(
            f"The objective became {values[i].item()} in epoch {epoch + 1} at batch {i + 1} of "
            f"{len(values)}, examples {batches[i][:8].tolist()} and so on; expected finite nats: "
            "lower the learning rate, or look for log(0) and for variances that go to zero."
        )


@torch.no_grad()
def _mean_objective(
    model: nn.Module, x: Tensor, objective: Objective, num_samples: int, seed: int
) -> float:
    total = 0.0
    takes_step = "step" in inspect.signature(objective).parameters
    arguments = (torch.tensor(0),) if takes_step else ()
    with seeded(model, seed):  # the same noise after every epoch
        for batch in x.split(1000):
            total += objective(model(batch, num_samples), *arguments).double().sum().item()
    return total / len(x)


def _progress(total: int, done: int) -> Any:
    from tqdm.auto import tqdm

    off = os.environ.get("VAELIB_PROGRESS") == "0"
    return tqdm(total=total, initial=done, unit="step", disable=off, leave=False)


def _fingerprint(x: Tensor) -> dict[str, str]:
    content = x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return {"data": f"{list(x.shape)} {hashlib.sha256(content.data).hexdigest()[:16]}"}


class _Checkpoint:
    """The last finished epoch of a run, in one file: weights, optimizer, random state, history."""

    def __init__(
        self,
        out: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: History,
        settings: dict[str, Any],
    ) -> None:
        self.path = out / "checkpoint.safetensors"
        self.model, self.optimizer, self.history = model, optimizer, history
        self.settings = settings

    def resume(self, epochs: int) -> None:
        """Take up the run that the folder holds, if it holds one."""
        if not self.path.exists():
            self.write()  # an unwritable folder is an error now, not after the first epoch
            return
        tensors, saved = read_tensors(self.path)
        for name, value in self.settings.items():
            if saved["settings"].get(name) != value:
                raise ValueError(
                    f"{self.path} was begun with {name} = {saved['settings'].get(name)}, but this "
                    f"call has {value}; expected the same: go back to it, or choose another out."
                )
        if len(saved["history"]["train"]) > epochs:
            raise ValueError(
                f"{self.path} holds {len(saved['history']['train'])} epochs, but this call asks "
                f"for {epochs}; expected at least as many: ask for more, or choose another out."
            )
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."}
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{self.path} holds another model: {error}") from error
        state = self.optimizer.state_dict()
        state["param_groups"] = saved["param_groups"]
        state["state"] = {int(i): dict(numbers) for i, numbers in saved["optimizer"].items()}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".", 2)
                state["state"].setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        for name, values in saved["history"].items():
            getattr(self.history, name).extend(values)

    def write(self) -> None:
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        numbers: dict[int, dict[str, Any]] = {}
        state = self.optimizer.state_dict()
        for i, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{key}"] = value
                else:
                    numbers.setdefault(i, {})[key] = value
        tensors["random.cpu"] = torch.get_rng_state()
        if next(self.model.parameters()).is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        description = {
            "settings": self.settings,
            "history": asdict(self.history),
            "param_groups": state["param_groups"],
            "optimizer": numbers,
        }
        write_tensors(self.path, tensors, description)


__all__ = ["History", "fit"]
