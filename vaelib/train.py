"""Training: `fit`, the one loop.

Introduced in book/foundations/05_first_vae.ipynb; 06_training.ipynb shows why it is as it is.
"""

import os
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.data import Dataset

from .arrays import Data, binarize, check_data, is_grey
from .batches import Batches
from .checkpoints import Checkpoints
from .compute import Compute, autograd_traced
from .contract import labels_kind, labels_of, likelihood_of, takes_missing
from .distributions import is_bernoulli
from .history import History
from .interrupts import held_interrupts, stop
from .losses import Losses
from .memory import freed_memory_kept
from .modes import seeded, tensor_like
from .nets import autocast
from .nonfinite import NonFiniteError
from .objectives import Objective, elbo
from .run import Callback, Run
from .settings import Optimizer, Settings
from .sources import open_data
from .workers import Workers


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
    optimizer: Optimizer | None = None,
    schedule: Callable[[float], float] | None = None,
    ema: float | None = None,
    clip: float | None = None,
    skip: float | None = None,
    accumulate: int = 1,
    precision: Literal["float32", "bf16"] = "float32",
    compile: bool = False,
    on_nan: Literal["stop", "skip"] = "stop",
    callback: Callback | None = None,
) -> History:
    """Train a model in place and return its history, with the model in eval mode.

    Under torchrun the call is distributed data-parallel: each process takes its slice of every
    batch, and the result is the single process's to rounding. A model with a ``noise_dim`` is
    handed its noise; one that draws its own gets the same distribution, not the same numbers.
    Batch norm is the exception, here and with ``accumulate``: its statistics are those of a
    process's slice and of a part.

    The caller's random state is left as it was; the same seed gives the same bits on the same
    CPU with the same thread count, which `fit` never changes.

    Args:
        model: a `VAE`, or a module whose forward(x, num_samples) returns a `Draw`.
        data: Images, a tensor or an array, [N, ...]; or, read a batch at a time, an array on disk
            (a memory map, h5py's, zarr's) or a torch Dataset of x or (x, y). Every example comes
            once an epoch, in an order drawn from ``seed``. Under a Bernoulli likelihood grey
            pixels are drawn anew at each visit. Labels go to a model that takes them.
        objective: a function ``Draw -> [B]``, maximised; a second argument named ``step`` is given
            the step. It may return {term: [B]}, whose sum is maximised; a module's parameters are
            trained.
        epochs: how often every example comes.
        batch_size: examples a step, the short last batch included.
        lr: the learning rate of the default optimizer.
        num_samples: draws an example, K.
        seed: of the order, of ink and noise.
        out: a folder for checkpoints, one after each epoch and whenever ``save_every`` seconds have
            passed; the last two are kept. The same call takes up a cut run and ends with the same
            bits; a finished one returns at once. Ctrl-C and SIGTERM save, then stop.
        save_every: seconds between checkpoints.
        validation: data whose mean objective is measured after each epoch.
        optimizer: ``params -> Optimizer``; fused Adam at ``lr`` by default. An objective's own
            parameters come as a second group, named "objective".
        schedule: from the share of training done, in [0, 1), to a factor on the learning rate.
        ema: the decay of an average of the weights, such as 0.999, returned as ``history.ema``;
            validation then uses it.
        clip: the greatest norm of a gradient; a longer one is scaled down, the objective's own
            parameters by themselves.
        skip: the norm above which an update is left out (both: Child, ICLR 2021,
            https://arxiv.org/abs/2011.10650).
        accumulate: parts in which a batch is computed, to save memory; the result is the same to
            rounding.
        precision: "float32" (the model's own dtype), or "bf16": networks under bfloat16 autocast,
            densities and weights as they were.
        compile: pass the model and the objective through ``torch.compile``.
        on_nan: "stop" raises NonFiniteError where the objective or its gradient is not finite,
            "skip" goes on; in both cases the update is left out.
        callback: called with the model and the history after each epoch; True ends the run there,
            as `EarlyStopping` does. One with state_dict and load_state_dict is kept in ``out``.

    Returns:
        The history, an entry an epoch.

    Raises:
        ValueError: for settings, data and models that it cannot train with, before the first step:
            among them a posterior that would learn nothing from the objective.
        TypeError: likewise.
        OSError: where ``out`` cannot be written.
        NonFiniteError: see ``on_nan``.

    Example:
        >>> import torch, vaelib
        >>> model, x = vaelib.mlp_vae(2, (8,), x_shape=(1, 4, 4)), torch.rand(64, 1, 4, 4)
        >>> history = vaelib.fit(model, x, objective=vaelib.iwae, epochs=2, num_samples=5)
        >>> history.epoch
        [1, 2]
    """
    settings = Settings.of(locals())
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model is a {type(model).__name__}; expected an nn.Module.")
    source = open_data(data, model)
    x, y = source.first()
    px_z = likelihood_of(model, x, y if labels_kind(model) == "given" else None)
    checked = source.check(px_z)
    _warn_of_photographs(x, px_z)
    held_out = _held_out(validation, model, px_z)

    device = tensor_like(model).device
    workers = Workers(device)
    batches = Batches(source, model, px_z, settings, workers)
    losses = Losses(model, objective, settings.num_samples)
    compute = Compute(losses, settings, batches, device)
    run = Run(losses, settings, batches, callback)
    fingerprint = settings.fingerprint(model, run.opt, checked)
    checkpoints = None
    if out is not None and workers.rank == 0:
        checkpoints = Checkpoints(out, fingerprint)

    with (
        checkpoints or nullcontext(),
        seeded(model, settings.seed + workers.rank),
        freed_memory_kept(),
        autograd_traced(compile),
        autocast(torch.bfloat16 if precision == "bf16" else None),
        held_interrupts() as interrupts,
    ):
        if out is not None:
            run.resume(checkpoints, workers)
        bar = _progress(run.total, run.step, show=workers.rank == 0)
        saved = time.perf_counter()

        def stop_if(asked: bool) -> None:
            if asked:
                workers.any(True)  # none ends before the first one has saved
                last = None if checkpoints is None else checkpoints.last
                stop(interrupts, run.step, run.total, out, last)

        while run.step < run.total and not run.finished:
            started = time.perf_counter() - run.seconds
            losses.train()
            for batch in batches.epoch(run.done):
                run.begin()
                run.update(compute(batch, run.step))
                bar.update()
                ended = run.done == 0
                asked = workers.any(bool(interrupts))  # the processes agree on the step
                due = asked or time.perf_counter() - saved > settings.save_every
                if ended or due or device.type == "cpu":
                    run.check_finite(checkpoints)
                if due and not ended:
                    run.seconds = time.perf_counter() - started
                    run.save(checkpoints)
                    saved = time.perf_counter()
                    stop_if(asked)

            run.end_epoch(started)
            if held_out is not None:
                with run.averaged_weights():
                    step = compute.step_tensor(run.step - 1)
                    run.history.validation.append(losses.mean(*held_out, settings.seed, step))
            bar.set_postfix_str(f"{run.history.train[-1]:.2f} nats")
            try:
                run.ask(workers)
            finally:
                run.save(checkpoints)
            saved = time.perf_counter()
            stop_if(workers.any(bool(interrupts)))
        bar.close()
        stop_if(workers.any(bool(interrupts)))
    losses.eval()
    run.history.ema = run.averaged_state()
    return run.history


def _held_out(
    validation: Data | None, model: nn.Module, px_z: Distribution
) -> tuple[Tensor, Tensor | None] | None:
    """Validation data, with the same bits after every epoch, and labels where they are given."""
    if validation is None:
        return None
    missing = takes_missing(model)
    x = check_data(validation, px_z, missing=missing)
    if is_bernoulli(px_z):
        x = binarize(x, missing=missing).to(tensor_like(model).dtype)
    return x, labels_of(model, validation)


def _warn_of_photographs(x: Tensor, px_z: Distribution) -> None:
    colour = x.dim() == 4 and x.shape[1] == 3 and min(x.shape[2:]) >= 8
    if colour and is_bernoulli(px_z) and is_grey(x):
        warnings.warn(
            "The data are colour images and the likelihood is Bernoulli, so every pixel becomes a "
            "bit; for photographs use vaelib.likelihoods.discretized_logistic, logistic_mixture or "
            "pixel_gaussian.",
            stacklevel=3,
        )


def _progress(total: int, done: int, show: bool) -> Any:
    from tqdm.auto import tqdm

    off = os.environ.get("VAELIB_PROGRESS") == "0" or not show
    return tqdm(total=total, initial=done, unit="step", disable=off, leave=False)


__all__ = ["History", "NonFiniteError", "fit"]
