"""Training: `fit`, the one loop.

Data live on the model's device, as they came (MNIST as uint8); a batch is an index into them.
Introduced in book/foundations/05_first_vae.ipynb; 06_training.ipynb shows why it is as it is.
"""

import ctypes
import inspect
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .batches import draw_ink, open_data
from .checkpoints import Checkpoints
from .data import Data, binarize, check_data, scale_pixels
from .distributions import is_bernoulli
from .estimates import seeded
from .history import History
from .io import read_tensors
from .model import Draw, likelihood_of, positive_int, tensor_like, values_checked
from .objectives import elbo
from .optimizers import FusedAdam
from .workers import Workers

Objective = Callable[..., Tensor]


class NonFiniteError(FloatingPointError):
    """The objective or its gradient was not finite; `indices` [b] are the batch's examples."""

    def __init__(self, message: str, indices: Tensor) -> None:
        super().__init__(message)
        self.indices = indices


def fit(
    model: nn.Module,
    data: Data | Dataset[Any],
    *,
    objective: Objective = elbo,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    num_samples: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    save_every: float = 300.0,
    validation: Data | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[[float], float] | None = None,
    ema: float | None = None,
    clip: float | None = None,
    skip: float | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    compile: bool = False,
    on_nan: str = "stop",
    callback: Callable[[nn.Module, History], None] | None = None,
) -> History:
    """Train a model in place and return its history, with the model in eval mode.

    - data: Images, a tensor or an array, [N, ...]; or, read a batch at a time, a memory-mapped
      array or a `torch.utils.data.Dataset` of x or (x, y). Every example comes once an epoch, in
      an order drawn from `seed`. Under a Bernoulli likelihood grey pixels are drawn anew at each
      visit.
    - objective: `Draw -> [B]`, maximised; a second argument named `step` is given the step.
    - lr: the learning rate; schedule: from the share of training done, in [0, 1), to a factor on
      it. optimizer: `params -> Optimizer`; fused Adam at `lr` by default.
    - out: a folder for checkpoints, one after each epoch and whenever `save_every` seconds have
      passed; the last two are kept. The same call takes up a cut run and ends with the same bits;
      a finished one returns at once. Ctrl-C saves, then stops.
    - ema: the decay of an average of the weights, such as 0.999, returned as `history.ema`;
      validation then uses it.
    - clip: the greatest norm of a gradient; a longer one is scaled down. skip: the norm above
      which an update is left out (both: Child, ICLR 2021, https://arxiv.org/abs/2011.10650).
    - accumulate: parts in which a batch is computed, to save memory; the result is the same to
      rounding.
    - precision: "float32" (the model's own dtype), or "bf16": networks under bfloat16 autocast,
      densities and weights as they were.
    - compile: pass the model and the objective through `torch.compile`.
    - on_nan: "stop" raises NonFiniteError where the objective or its gradient is not finite,
      "skip" goes on; in both cases the update is left out.
    - callback: called with the model and the history after each epoch.

    Under `torchrun` the call is distributed data-parallel: each process takes its slice of every
    batch, and the result is the single process's to rounding. The noise is handed to models whose
    `forward` has an argument `noise`, as all of vaelib's; one that draws its own gets the same
    distribution, not the same numbers. Batch norm is the exception, here and with `accumulate`:
    its statistics are those of a process's slice and of a part.

    The caller's random state is left as it was; the same seed gives the same bits on the same
    CPU with the same thread count, which `fit` never changes. Raises ValueError and TypeError for
    settings and data it cannot train with, before the first step, and OSError where `out` cannot
    be written.
    """
    batch_size = positive_int("batch_size", batch_size)
    num_samples = positive_int("num_samples", num_samples)
    accumulate = positive_int("accumulate", accumulate)
    if epochs != 0:
        epochs = positive_int("epochs", epochs)
    lr = _number("lr", lr, "a positive, finite learning rate, such as 1e-3")
    if save_every != math.inf:
        save_every = _number("save_every", save_every, "seconds between checkpoints, or math.inf")
    if clip is not None:
        clip = _number("clip", clip, "the greatest norm of a gradient, or None")
    if skip is not None:
        skip = _number("skip", skip, "a norm of the gradient, or None")
    if ema is not None:
        ema = _number("ema", ema, "a decay between 0 and 1, such as 0.999, or None", below=1)
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed is {seed!r}; expected a whole number.")
    seed = int(seed)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed}; expected a whole number of at most 63 bits and a sign.")
    _check_choice("precision", precision, ("float32", "bf16"))
    _check_choice("on_nan", on_nan, ("stop", "skip"))

    px_z = likelihood_of(model)
    like = tensor_like(model)
    source = open_data(data, px_z, like.device)
    if validation is not None:
        validation = check_data(validation, px_z)
        if is_bernoulli(px_z):
            validation = binarize(validation).to(like.dtype)  # the same bits after every epoch
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("The model has no parameters that require gradients: nothing to train.")
    if optimizer is not None:
        opt = optimizer(parameters)
    elif like.is_cuda:
        opt = torch.optim.Adam(parameters, lr=lr, fused=True)
    else:
        opt = FusedAdam(parameters, lr=lr)
    base_lrs = [group["lr"] for group in opt.param_groups]
    takes_step = "step" in inspect.signature(objective).parameters

    num_batches = math.ceil(len(source) / batch_size)
    total = epochs * num_batches
    settings = {
        "data": source.fingerprint,
        "model": _describe(model),
        "objective": _name(objective),
        "optimizer": f"{type(opt).__name__} {_name(opt.defaults)}",
        "schedule": None if schedule is None else [_name(schedule), epochs],
        "batch_size": batch_size,
        "lr": lr,
        "num_samples": num_samples,
        "seed": seed,
        "ema": ema,
        "clip": clip,
        "skip": skip,
        "accumulate": accumulate,
        "precision": precision,
        "compile": compile,
        "on_nan": on_nan,
        "threads": torch.get_num_threads(),
    }
    workers = Workers(like.device)
    losses = workers.wrap(_Losses(model, objective))  # every process gets the first one's weights
    noise = _Noise(model, px_z, num_samples, seed)
    run = _Run(model, parameters, opt, noise, ema, skip, num_batches)
    history, checkpoints = run.history, None
    if out is not None and workers.rank == 0:
        checkpoints = Checkpoints(out, settings)

    with (
        checkpoints or nullcontext(),
        seeded(model, seed + workers.rank),
        values_checked(model),
        _freed_memory_kept(),
        _held_interrupts() as interrupts,
    ):
        if out is not None:
            run.resume(checkpoints, workers, epochs, seed)
        fast = _compiled(losses, like.device) if compile else losses
        share, _ = workers.share(min(batch_size, len(source)))
        part_size = math.ceil((share.stop - share.start) / accumulate)
        autocast: Any = nullcontext()
        if precision == "bf16":
            autocast = torch.autocast(like.device.type, torch.bfloat16)
        bar = _progress(total, run.step, show=workers.rank == 0)
        saved = time.perf_counter()

        for _ in range(run.step // num_batches, epochs):
            started = time.perf_counter() - run.seconds
            model.train()
            order = noise.order(len(source)).split(batch_size)
            left = order[run.step % num_batches :]
            mine = [index[workers.share(len(index))[0]] for index in left]
            for index, rows in zip(left, source.batches(mine)):
                if schedule is not None:
                    factor = float(schedule(run.step / total))
                    if not math.isfinite(factor):
                        raise ValueError(
                            f"schedule returned {factor} for {run.step / total:.4g}; expected a "
                            "finite factor on the learning rate for every share in [0, 1)."
                        )
                    for group, base_lr in zip(opt.param_groups, base_lrs):
                        group["lr"] = base_lr * factor

                # Every process draws the whole batch's noise and uses its own share.
                share, weight = workers.share(len(index))
                epsilon, words = noise.draw(len(index))
                if words is None:
                    batch = scale_pixels(rows, like.dtype)
                else:
                    batch = draw_ink(rows, like.dtype, words[share])
                parts = batch.split(part_size)
                if epsilon is None:
                    epsilons = (None,) * len(parts)
                else:
                    epsilons = epsilon[:, share].split(part_size, dim=1)

                run.begin()
                step = torch.full((), run.step, device=like.device) if takes_step else None
                totals = torch.zeros(3, dtype=like.dtype, device=like.device)
                for i, (x, e) in enumerate(zip(parts, epsilons)):
                    compute = fast if len(x) == part_size else losses  # a short batch: eager
                    with workers.no_sync(losses, i + 1 < len(parts)), autocast:
                        sums = compute(x, num_samples, e, step)
                    (sums[0] * (-weight * workers.size / len(index))).backward()
                    totals += weight * sums.detach()
                workers.add(totals)
                run.update(totals, clip, on_nan)
                bar.update()

                ended = run.step % num_batches == 0
                stop = workers.any(bool(interrupts))  # the processes agree on the step
                due = stop or time.perf_counter() - saved > save_every
                if on_nan == "stop" and (ended or due or like.device.type == "cpu"):
                    run.check_finite(order, checkpoints)
                if due and not ended:
                    run.seconds = time.perf_counter() - started
                    run.save(checkpoints)
                    saved = time.perf_counter()
                    if stop:
                        _stop(workers, run, total, out, checkpoints)

            run.end_epoch(started, order)
            if validation is not None:
                with run.averaged_weights():
                    mean = _mean_objective(model, validation, objective, num_samples, seed, step)
                history.validation.append(mean)
            bar.set_postfix_str(f"{history.train[-1]:.2f} nats")
            run.save(checkpoints)
            saved = time.perf_counter()
            if callback is not None and workers.rank == 0:
                with torch.random.fork_rng([like.device] if like.is_cuda else []):
                    callback(model, history)  # what it draws does not change the run
            if workers.any(bool(interrupts)):
                _stop(workers, run, total, out, checkpoints)
        bar.close()
        if workers.any(bool(interrupts)):
            _stop(workers, run, total, out, checkpoints)
    model.eval()
    history.ema = run.averaged_state()
    return history


class _Losses(nn.Module):
    """Model and objective in one, to be compiled and distributed: objective, rate, distortion."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(
        self, x: Tensor, num_samples: int, epsilon: Tensor | None, step: Tensor | None
    ) -> Tensor:
        """Their sums over the batch, [3], nats; the first is differentiable."""
        noise = () if epsilon is None else (epsilon,)
        draw: Draw = self.model(x, num_samples, *noise)
        value = self.objective(draw) if step is None else self.objective(draw, step=step)
        if value.shape != (len(x),):
            raise ValueError(
                f"The objective returned shape {list(value.shape)}; expected [{len(x)}], one "
                "number an example: leave the mean to fit."
            )
        with torch.no_grad():
            distortion = -draw.log_px_z.mean(0)
            if draw.kl_parts is None:
                rate = (draw.log_qz_x - draw.log_pz).mean(0)
            else:
                rate = draw.kl
        return torch.stack([part.sum().to(x.dtype) for part in (value, rate, distortion)])


class _Noise:
    """All that `fit` itself draws: the order of the examples, ink, and noise for the posterior."""

    def __init__(self, model: nn.Module, px_z: Any, num_samples: int, seed: int) -> None:
        like = tensor_like(model)
        self.dtype, self.device = like.dtype, like.device
        self.latents = None  # a model that takes no noise draws its own
        methods = (model.forward, getattr(model, "draw", model.forward))
        if all("noise" in inspect.signature(method).parameters for method in methods):
            self.latents = (num_samples, int(model.latent_dim))  # type: ignore[arg-type]
        self.event_shape = px_z.event_shape if is_bernoulli(px_z) else None
        self.orders = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed + 2**31)
        self.this_order = self.orders.get_state()

    def order(self, n: int) -> Tensor:
        """The order of an epoch."""
        self.this_order = self.orders.get_state()
        return torch.randperm(n, generator=self.orders)

    def draw(self, n: int) -> tuple[Tensor | None, Tensor | None]:
        """Noise [K, n, latent_dim] and words for `draw_ink` [n, ...], where there is a use."""
        epsilon = words = None
        if self.latents is not None:
            shape = (self.latents[0], n, self.latents[1])
            epsilon = torch.randn(
                shape, generator=self.generator, dtype=self.dtype, device=self.device
            )
        if self.event_shape is not None:
            count = n * math.prod(self.event_shape)
            longs = torch.empty(math.ceil(count / 4), dtype=torch.int64, device=self.device)
            longs.random_(-(2**63), None, generator=self.generator)  # all 64 bits are random
            words = longs.view(torch.int16)[:count].view(n, *self.event_shape)
        return epsilon, words


class _Run:
    """The state of a run: what an update changes and a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        opt: torch.optim.Optimizer,
        noise: _Noise,
        ema: float | None,
        skip: float | None,
        num_batches: int,
    ) -> None:
        self.model, self.opt, self.noise, self.ema = model, opt, noise, ema
        self.parameters: list[Tensor] = list(parameters)
        self.history = History()
        self.step, self.seconds, self.num_batches = 0, 0.0, num_batches
        like = tensor_like(model)
        # A row a step of the epoch: sums of objective, rate, distortion; norm. One tensor, for
        # small ones that stay would lie between the large ones that go, and hold their pages.
        self.log = torch.zeros(num_batches, 4, dtype=like.dtype, device=like.device)
        self.skip = skip
        self.failed = torch.zeros((), dtype=torch.bool, device=like.device)
        self.averages: list[Tensor] | None = None
        if ema is not None:
            self.averages = [p.detach().clone() for p in self.parameters]
        self.buffers: list[Tensor] = []

    def begin(self) -> None:
        """Before a step: no gradients, and buffers remembered, such as batch norm's averages."""
        for parameter in self.parameters:
            parameter.grad = None
        self.buffers = [b.clone() for b in self.model.buffers()]

    @torch.no_grad()
    def update(self, totals: Tensor, clip: float | None, on_nan: str) -> None:
        """One step of the optimizer, unless it would spoil the weights; nothing waits on CUDA."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        finite_sum = totals[0] + norm
        if norm.is_cuda and self.opt.defaults.get("fused"):
            good = finite_sum.isfinite()
            if on_nan == "stop":  # nothing moves after the first failure, whenever it is noticed
                self.failed |= ~good
                good = ~self.failed
            if self.skip is not None:
                good = good & (norm <= self.skip)
            self.opt.grad_scale, self.opt.found_inf = None, (~good).float()  # type: ignore[attr-defined]
            self.opt.step()
            for buffer, before in zip(self.model.buffers(), self.buffers):
                buffer.copy_(torch.where(good, buffer, before))
        elif math.isfinite(finite_sum) and (self.skip is None or norm <= self.skip):
            self.opt.step()
        else:
            self.failed |= (on_nan == "stop") and not math.isfinite(finite_sum)
            for buffer, before in zip(self.model.buffers(), self.buffers):
                buffer.copy_(before)
        if self.averages is not None and self.ema is not None:
            decay = min(self.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        row = self.log[self.step % self.num_batches]
        torch.cat((totals, norm.to(totals.dtype).view(1)), out=row)
        self.step += 1

    def check_finite(self, order: tuple[Tensor, ...], checkpoints: Checkpoints | None) -> None:
        """NonFiniteError if an objective or a gradient was not finite."""
        if not self.failed:
            return
        log = self.log[: (self.step - 1) % self.num_batches + 1]
        i = int((~log[:, [0, 3]].isfinite().all(1)).nonzero()[0])
        objective, rate, distortion, norm = log[i].tolist()
        step = (self.step - 1) // self.num_batches * self.num_batches + i
        if not math.isfinite(rate):
            cause = "the KL is not: q(z|x)'s log-variance or mean overflows; bound it, or clip"
        elif not math.isfinite(distortion):
            cause = "log p(x|z) is not: look for log(0), a scale near 0, or logits that overflow"
        elif not math.isfinite(objective):
            cause = "rate and distortion are finite: look into the objective"
        else:
            cause = "only the gradient is not: look for a root, a log or a norm at 0"
        if i > 20 and bool(log[i - 10 : i, 3].mean() > 5 * log[:i, 3].median()):
            cause += "; gradients grew before it: lower the learning rate, warm it up, or clip"
        saved = "none was asked for with out="
        if checkpoints is not None:
            saved = str(checkpoints.last)
        raise NonFiniteError(
            f"At step {step} (epoch {step // self.num_batches + 1}, batch {i + 1} of "
            f"{self.num_batches}) the objective is {objective / len(order[i]):.4g} and the "
            f"gradient's norm {norm:.4g}; expected finite numbers. Of its parts, {cause}. The "
            f"update was left out, so the weights are those before it. Examples: "
            f"{order[i][:8].tolist()} and so on, all in this error's .indices. Last checkpoint: "
            f"{saved}.",
            order[i],
        )

    def end_epoch(self, started: float, order: tuple[Tensor, ...]) -> None:
        """Write the epoch's means into the history: the one time that the log is read."""
        log, counts = self.log.double().cpu(), torch.tensor([len(i) for i in order])
        seconds = time.perf_counter() - started  # now that the device is done
        finite = log[:, [0, 3]].isfinite().all(1)
        made = finite if self.skip is None else finite & (log[:, 3] <= self.skip)
        objective, rate, distortion = (log[finite, :3].sum(0) / counts[finite].sum()).tolist()
        self.history.append(
            epoch=self.step // self.num_batches,
            step=self.step,
            train=objective,
            elbo=-(rate + distortion),
            rate=rate,
            distortion=distortion,
            grad_norm=log[finite, 3].mean().item(),
            lr=float(self.opt.param_groups[0]["lr"]),
            skipped=int((~made).sum()),
            seconds=seconds,
            examples_per_second=int(counts.sum()) / seconds,
        )
        self.seconds = 0.0
        self.noise.this_order = self.noise.orders.get_state()

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

    def save(self, checkpoints: Checkpoints | None) -> None:
        """Write all that the rest of the run depends on."""
        if checkpoints is None:
            return
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for i, t in enumerate(self.averages or []):
            tensors[f"ema.{i}"] = t
        numbers: dict[int, dict[str, Any]] = {}
        state = self.opt.state_dict()
        for i, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{key}"] = value
                else:
                    numbers.setdefault(i, {})[key] = value
        if rows := self.step % self.num_batches:
            tensors["log"] = self.log[:rows].clone()
        tensors["random.order"] = self.noise.this_order
        tensors["random.noise"] = self.noise.generator.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if self.failed.is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.failed.device)
        description = {
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history.columns(),
            "param_groups": [
                {key: v.item() if isinstance(v, Tensor) else v for key, v in group.items()}
                for group in state["param_groups"]
            ],
            "optimizer": numbers,
        }
        checkpoints.write(self.step, tensors, description)

    def resume(
        self, checkpoints: Checkpoints | None, workers: Workers, epochs: int, seed: int
    ) -> None:
        """Take up the run that the folder holds, if it holds one; every process reads one file."""
        found = checkpoints.read() if checkpoints is not None else None
        path = workers.tell(None if found is None else str(checkpoints.last))  # type: ignore[union-attr]
        if path is None:
            self.save(checkpoints)  # an unwritable folder is an error now, not after an epoch
            return
        tensors, saved = found or read_tensors(path)
        if saved["step"] > epochs * self.num_batches:
            raise ValueError(
                f"{path} holds {saved['step'] / self.num_batches:.3g} epochs, but this call asks "
                f"for {epochs}; expected at least as many: ask for more, or choose another out."
            )
        self.model.load_state_dict(_under("model.", tensors))
        for i, t in _under("ema.", tensors).items():
            self.averages[int(i)].copy_(t)  # type: ignore[index]
        state = self.opt.state_dict()
        for group, numbers in zip(state["param_groups"], saved["param_groups"]):
            for key, value in numbers.items():
                now = group.get(key)
                group[key] = torch.full_like(now, value) if isinstance(now, Tensor) else value
        state["state"] = {int(i): dict(numbers) for i, numbers in saved["optimizer"].items()}
        for name, tensor in _under("optimizer.", tensors).items():
            i, key = name.split(".", 1)
            state["state"].setdefault(int(i), {})[key] = tensor
        self.opt.load_state_dict(state)
        if "log" in tensors:
            self.log[: len(tensors["log"])] = tensors["log"]
        self.noise.orders.set_state(tensors["random.order"])
        self.noise.this_order = tensors["random.order"]
        self.noise.generator.set_state(tensors["random.noise"])
        if workers.rank == 0:
            torch.set_rng_state(tensors["random.cpu"])
            if self.failed.is_cuda:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.failed.device)
        else:
            torch.manual_seed(seed + workers.rank + 1_000_003 * saved["step"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.history.extend(saved["history"])


def _compiled(losses: nn.Module, device: torch.device) -> Callable[..., Tensor]:
    """The module compiled at its first call; as it is, with a warning, where that fails."""
    mode = "reduce-overhead" if device.type == "cuda" else None  # CUDA graphs
    compute: Callable[..., Tensor] = torch.compile(losses, mode=mode)

    def call(*arguments: Any) -> Tensor:
        nonlocal compute
        try:
            return compute(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            if compute is losses:
                raise
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"torch.compile failed ({reason}), so fit goes on without it; expected a C++ "
                "compiler (CPU) or Triton (CUDA): install one, or leave compile=False.",
                stacklevel=3,
            )
            compute = losses
            return compute(*arguments)

    return call


@torch.no_grad()
def _mean_objective(
    model: nn.Module,
    x: Tensor,
    objective: Objective,
    num_samples: int,
    seed: int,
    step: Tensor | None,
) -> float:
    total = 0.0
    arguments = {} if step is None else {"step": step}
    with seeded(model, seed):  # the same noise after every epoch
        for batch in x.split(1000):
            total += objective(model(batch, num_samples), **arguments).double().sum().item()
    return total / len(x)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Let glibc keep what a step frees, for the next step asks for it again.

    Otherwise it returns the memory, and page faults take up to a quarter of a step on large images
    (tests/bench/faults.py).
    """
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        yield
        return
    mallopt(mmap_threshold, 2**25)  # the greatest that it takes
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(trim_threshold, 2**26)  # where glibc's own adjustment ends
        malloc_trim(0)


@contextmanager
def _held_interrupts() -> Iterator[list[int]]:
    """Hold the first Ctrl-C back until the step in hand is done; a second one stops at once."""
    caught: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield caught
        return

    def catch(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, catch)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(
    workers: Workers,
    run: _Run,
    total: int,
    out: str | Path | None,
    checkpoints: Checkpoints | None,
) -> NoReturn:
    workers.any(True)  # no process ends before the first one has saved
    after = f"Stopped after step {run.step} of {total}"
    if out is None:
        raise KeyboardInterrupt(
            f"{after}; nothing was saved, and the model has the weights of that step. With "
            "out=, a folder, the same call goes on where it was cut."
        )
    raise KeyboardInterrupt(
        f"{after}, and saved {checkpoints.last if checkpoints is not None else out}. Call fit "
        "again with the same arguments to go on."
    )


def _progress(total: int, done: int, show: bool) -> Any:
    from tqdm.auto import tqdm

    off = os.environ.get("VAELIB_PROGRESS") == "0" or not show
    return tqdm(total=total, initial=done, unit="step", disable=off, leave=False)


def _name(thing: Any) -> str:
    """A name that is the same in another process: no address in memory."""
    name = thing if isinstance(thing, str) else getattr(thing, "__qualname__", None) or repr(thing)
    return re.sub(r" at 0x[0-9a-f]+", "", name)


def _describe(model: nn.Module) -> str:
    """The model's parts and shapes, a line each."""
    state = model.state_dict()
    for name, t in state.items():
        if not isinstance(t, Tensor):
            raise TypeError(
                f"The model's state dict has {name}, a {type(t).__name__}; expected tensors only, "
                "since that is what a checkpoint keeps: make it a buffer."
            )
    shapes = [f"{name} {list(t.shape)} {t.dtype}" for name, t in state.items()]
    parts = [f"{name}: {_name(getattr(model, name, None))}" for name in ("likelihood", "prior")]
    return _name("\n".join([*str(model).splitlines(), *shapes, *parts]))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _number(name: str, value: Any, expected: str, below: float = math.inf) -> float:
    if not (isinstance(value, int | float | np.number) and 0 < value < below):
        raise ValueError(f"{name} is {value!r}; expected {expected}.")
    return float(value)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


__all__ = ["History", "NonFiniteError", "fit"]
