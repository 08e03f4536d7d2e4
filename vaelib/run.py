"""The state of a training run: what an update changes and a checkpoint holds."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batches import Batches
from .checkpoints import Checkpoints
from .history import History
from .io import pack, read_tensors, unpack
from .losses import Losses
from .modes import tensor_like
from .nonfinite import diagnosis
from .settings import Settings, trained
from .workers import Workers


class Run:
    """A model in training: weights, optimizer, averages, batches, history.

    Args:
        losses: the model and its objective.
        callback: what is asked after each epoch; its state, if it has one, is kept, too.
    """

    def __init__(self, losses: Losses, settings: Settings, batches: Batches, callback: Any) -> None:
        self.losses, self.model, self.settings = losses, losses.model, settings
        self.batches, self.callback = batches, callback
        if callback is not None and not callable(callback):
            raise TypeError(
                f"callback is {callback!r:.60}; expected a function of model and history."
            )
        self.parameters = trained(self.model)
        if not self.parameters:
            raise ValueError(
                "The model has no parameters that require gradients: nothing to train."
            )
        self.others = trained(losses.objectives, but=self.model.parameters())
        self.opt = settings.make_optimizer(self.parameters, self.others)
        self.base_lrs = [group["lr"] for group in self.opt.param_groups]
        self.history = History()
        self.step, self.seconds, self.finished = 0, 0.0, False
        self.total = settings.epochs * batches.per_epoch
        like = tensor_like(self.model)
        # A row a step of the epoch: sums of objective, rate, distortion, terms; norm. One tensor,
        # for small ones that stay would lie between the large ones that go, and hold their pages.
        self.log = torch.zeros(batches.per_epoch, 4, dtype=like.dtype, device=like.device)
        self.failed = torch.zeros((), dtype=torch.bool, device=like.device)
        self.averages: list[Tensor] | None = None
        if settings.ema is not None:
            self.averages = [p.detach().clone() for p in self.parameters]
        self.has_buffers = any(b.numel() for b in losses.buffers())
        self.buffers: list[Tensor] = []
        json.dumps(self._states({}))  # what cannot be kept is an error now, not after an epoch

    @property
    def done(self) -> int:
        """How many batches of this epoch are done."""
        return self.step % self.batches.per_epoch

    # A step

    def begin(self) -> None:
        """Before a step: its learning rate, no gradients, and buffers remembered."""
        if self.settings.schedule is not None:
            share = self.step / self.total
            said = self.settings.schedule(share)
            try:
                factor = float(said)
            except (TypeError, ValueError):
                factor = math.nan
            if not math.isfinite(factor):
                raise ValueError(
                    f"schedule returned {said!r:.60} for {share:.4g}; expected a finite factor on "
                    "the learning rate for every share in [0, 1)."
                )
            for group, base_lr in zip(self.opt.param_groups, self.base_lrs):
                group["lr"] = base_lr * factor
        for parameter in (*self.parameters, *self.others):
            parameter.grad = None
        if self.has_buffers:
            self.buffers = [b.clone() for b in self.losses.buffers()]

    @torch.no_grad()
    def update(self, row: Tensor) -> None:
        """One step of the optimizer, unless it would spoil the weights; nothing waits on CUDA.

        row: what `Compute` gave of the batch.
        """
        skip, stops, clip = self.settings.skip, self.settings.on_nan == "stop", self.settings.clip
        if clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, clip, row[-1])
        if self.others:
            gradients = [p.grad for p in self.others if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if clip is not None:
                nn.utils.clip_grads_with_norm_(self.others, clip, norm)
            row[0] += 0 * norm  # not finite where theirs is not
        if row.is_cuda and self.opt.defaults.get("fused"):
            good = (row[0] + row[-1]).isfinite()
            if stops:  # nothing moves after the first failure, whenever it is noticed
                self.failed |= ~good
                good = ~self.failed
            if skip is not None:
                good = good & (row[-1] <= skip)
            self.opt.grad_scale, self.opt.found_inf = None, (~good).float()  # type: ignore[attr-defined]
            self.opt.step()
            for buffer, before in zip(self.losses.buffers(), self.buffers):
                buffer.copy_(torch.where(good, buffer, before))
        else:
            total, *_, norm = row.tolist()
            finite = math.isfinite(total) and math.isfinite(norm)
            if finite and (skip is None or norm <= skip):
                self.opt.step()
            else:
                self.failed |= stops and not finite
                for buffer, before in zip(self.losses.buffers(), self.buffers):
                    buffer.copy_(before)
        if self.averages is not None and self.settings.ema is not None:
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)  # type: ignore[arg-type]
        if len(row) > self.log.shape[1]:  # the objective has terms
            self.log = self.log.new_zeros(len(self.log), len(row))
        self.log[self.done] = row
        self.step += 1

    def check_finite(self, checkpoints: Checkpoints | None) -> None:
        """NonFiniteError if an objective or a gradient was not finite, and should stop the run."""
        if self.settings.on_nan == "stop" and self.failed:
            first = (self.step - 1) // self.batches.per_epoch * self.batches.per_epoch
            last = None if checkpoints is None else checkpoints.last
            error = diagnosis(self.log[: self.step - first], first, self.batches.order, last)
            if error is not None:
                raise error

    # An epoch

    def end_epoch(self, started: float) -> None:
        """Write the epoch's means into the history: the one time that the log is read."""
        order = self.batches.order
        log, counts = self.log.double().cpu(), torch.tensor([len(i) for i in order])
        seconds = time.perf_counter() - started  # now that the device is done
        finite = log[:, [0, -1]].isfinite().all(1)
        skip = self.settings.skip
        made = finite if skip is None else finite & (log[:, -1] <= skip)
        sums = log[finite].sum(0) / counts[finite].sum()
        objective, rate, distortion = sums[:3].tolist()
        self.history.append(
            epoch=self.step // self.batches.per_epoch,
            step=self.step,
            train=objective,
            elbo=-(rate + distortion),
            rate=rate,
            distortion=distortion,
            grad_norm=log[finite, -1].mean().item(),
            lr=float(self.opt.param_groups[0]["lr"]),
            skipped=int((~made).sum()),
            seconds=seconds,
            examples_per_second=int(counts.sum()) / seconds,
        )
        for name, value in zip(self.losses.terms, sums[3:-1].tolist()):
            self.history.terms.setdefault(name, []).append(value)
        self.seconds = 0.0
        self.batches.end_epoch()

    def ask(self, workers: Workers) -> None:
        """Ask the callback, in the first process; True from it finishes the run in all of them."""
        if self.callback is None:
            return
        answer = False
        like = tensor_like(self.model)
        if workers.rank == 0:
            self.history.ema = self.averaged_state()
            with torch.random.fork_rng([like.device] if like.is_cuda else []):
                # What it draws does not change the run.
                said = self.callback(self.model, self.history)
            answer = isinstance(said, bool | np.bool_ | Tensor) and bool(said)
        self.finished = workers.any(answer)
        if self.finished:
            workers.copy(self.model.state_dict().values())  # a callback may have put the best back

    # The average of the weights

    def averaged_state(self) -> dict[str, Tensor] | None:
        """The model's state dict with the averaged weights in it."""
        if self.averages is None:
            return None
        state = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        averages = {id(p): t for p, t in zip(self.parameters, self.averages)}
        for name, p in self.model.named_parameters(remove_duplicate=False):  # tied ones, too
            if id(p) in averages:
                state[name] = averages[id(p)].clone()
        return state

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with the averaged weights in it, for a while."""
        averaged = self.averaged_state()
        if averaged is None:
            yield
            return
        own = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        self.model.load_state_dict(averaged)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    # Checkpoints

    def _states(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """The state of optimizer, objective and callback as JSON, their tensors into `tensors`."""
        return {
            name: pack(thing.state_dict(), name, tensors)
            for name, thing in self._stateful().items()
        }

    def _stateful(self) -> dict[str, Any]:
        things = {
            "optimizer": self.opt,
            "objective": self.losses.objectives
            if len(self.losses.objectives)
            else self.settings.objective,
            "callback": self.callback,
        }
        return {
            name: thing
            for name, thing in things.items()
            if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")
        }

    def save(self, checkpoints: Checkpoints | None) -> None:
        """Write all that the rest of the run depends on."""
        if checkpoints is None:
            return
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for i, t in enumerate(self.averages or []):
            tensors[f"ema.{i}"] = t
        if self.done:
            tensors["log"] = self.log[: self.done].clone()
        for name, t in self.batches.state().items():
            tensors[f"random.{name}"] = t
        tensors["random.cpu"] = torch.get_rng_state()
        if self.failed.is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.failed.device)
        description = {
            "step": self.step,
            "seconds": self.seconds,
            "finished": self.finished,
            "history": self.history.columns(),
            "terms": self.losses.terms,
            "states": self._states(tensors),
        }
        checkpoints.write(self.step, tensors, description)

    def resume(self, checkpoints: Checkpoints | None, workers: Workers) -> None:
        """Take up the run that the folder holds, if it holds one; every process reads one file."""
        found = checkpoints.read() if checkpoints is not None else None
        path = workers.tell(None if found is None else str(checkpoints.last))  # type: ignore[union-attr]
        if path is None:
            self.save(checkpoints)  # an unwritable folder is an error now, not after an epoch
            return
        tensors, saved = found or read_tensors(Path(path))
        if saved["step"] > self.total:
            per_epoch = self.batches.per_epoch
            raise ValueError(
                f"{path} holds {saved['step'] / per_epoch:.3g} epochs, but this call asks for "
                f"{self.settings.epochs}; expected at least as many: ask for more, or choose "
                "another out."
            )
        self.model.load_state_dict(_under("model.", tensors))
        for i, t in _under("ema.", tensors).items():
            self.averages[int(i)].copy_(t)  # type: ignore[index]
        states = unpack(saved["states"], tensors)
        for name, thing in self._stateful().items():
            state = states.get(name, {})
            thing.load_state_dict(self._optimizer_state(state) if thing is self.opt else state)
        if "log" in tensors:
            if tensors["log"].shape[1] > self.log.shape[1]:
                self.log = self.log.new_zeros(len(self.log), tensors["log"].shape[1])
            self.log[: len(tensors["log"])] = tensors["log"]
        self.batches.load_state(_under("random.", tensors))
        if workers.rank == 0:
            torch.set_rng_state(tensors["random.cpu"])
            if self.failed.is_cuda:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.failed.device)
        else:
            torch.manual_seed(self.settings.seed + workers.rank + 1_000_003 * saved["step"])
        self.step, self.seconds, self.finished = saved["step"], saved["seconds"], saved["finished"]
        self.losses.terms = tuple(saved["terms"])
        self.history.extend(saved["history"])

    def _optimizer_state(self, saved: dict[str, Any]) -> dict[str, Any]:
        """A state dict for the optimizer: numbers as they were saved, where they were tensors."""
        state = self.opt.state_dict()
        for group, numbers in zip(state["param_groups"], saved["param_groups"]):
            for key, value in numbers.items():
                now = group.get(key)
                group[key] = (
                    torch.full_like(now, float(value)) if isinstance(now, Tensor) else value
                )
        state["state"] = {int(i): entries for i, entries in saved["state"].items()}
        return state


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


Callback = Callable[[nn.Module, History], bool | None]
