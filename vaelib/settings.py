"""The settings of a training run: checked once, and the fingerprint of its checkpoints."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .modes import positive_int
from .objectives import Objective
from .optimizers import FusedAdam

Optimizer = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Settings:
    """What `fit` was asked for; its docstring says what each setting means.

    Raises ValueError and TypeError for settings that cannot be trained with.
    """

    objective: Objective
    epochs: int
    batch_size: int
    lr: float
    num_samples: int
    seed: int
    save_every: float
    optimizer: Optimizer | None
    schedule: Callable[[float], float] | None
    ema: float | None
    clip: float | None
    skip: float | None
    accumulate: int
    precision: Literal["float32", "bf16"]
    compile: bool
    on_nan: Literal["stop", "skip"]

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "Settings":
        """Those among the arguments of a call of `fit`."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("batch_size", "num_samples", "accumulate", "epochs"):
            if name != "epochs" or self.epochs != 0:
                put(name, positive_int(name, getattr(self, name)))
        put("lr", _number("lr", self.lr, "a positive, finite learning rate, such as 1e-3"))
        if self.save_every != math.inf:
            expected = "seconds between checkpoints, or math.inf"
            put("save_every", _number("save_every", self.save_every, expected))
        for name, expected in (
            ("clip", "the greatest norm of a gradient, or None"),
            ("skip", "a norm of the gradient, or None"),
            ("ema", "a decay between 0 and 1, such as 0.999, or None"),
        ):
            value = getattr(self, name)
            if value is not None:
                put(name, _number(name, value, expected, below=1 if name == "ema" else math.inf))
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed is {self.seed!r}; expected a whole number.")
        put("seed", int(self.seed))
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(
                f"seed is {self.seed}; expected a whole number of at most 63 bits and a sign."
            )
        for name, choices in (("precision", ("float32", "bf16")), ("on_nan", ("stop", "skip"))):
            if getattr(self, name) not in choices:
                told = ", ".join(map(repr, choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {told}.")
        if not callable(self.objective):
            raise TypeError(
                f"objective is {self.objective!r:.60}; expected a function (or module) of a Draw, "
                "such as vaelib.elbo."
            )
        _check_optimizer(self.optimizer)
        _check_schedule(self.schedule)

    def make_optimizer(
        self, parameters: list[nn.Parameter], objectives: list[nn.Parameter]
    ) -> torch.optim.Optimizer:
        """The optimizer of the model's parameters, and of the objective's in a named group."""
        given: Any = parameters
        if objectives:
            given = [
                {"params": parameters, "name": "model"},
                {"params": objectives, "name": "objective"},
            ]
        if self.optimizer is None:
            if parameters[0].is_cuda:
                return torch.optim.Adam(given, lr=self.lr, fused=True)
            return FusedAdam(given, lr=self.lr)
        made = self.optimizer(given)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer returned a {type(made).__name__}; expected a torch.optim.Optimizer of "
                "the parameters that it was given."
            )
        closure = inspect.signature(made.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TypeError(
                f"optimizer is {type(made).__name__}, whose step needs a closure; expected one "
                "that steps by the gradients of a batch, such as torch.optim.Adam."
            )
        return made

    def fingerprint(
        self, model: nn.Module, opt: torch.optim.Optimizer, data: str
    ) -> dict[str, Any]:
        """What a run must keep to end as it began."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        del found["save_every"], found["epochs"]  # these may change
        return found | {
            "data": data,
            "model": described(model),
            "objective": stable_name(self.objective),
            "optimizer": f"{type(opt).__name__} {stable_name(opt.defaults)}",
            "schedule": self.schedule and [stable_name(self.schedule), self.epochs],
            "threads": torch.get_num_threads(),
        }


def _number(name: str, value: Any, expected: str, below: float = math.inf) -> float:
    if not (isinstance(value, int | float | np.number) and 0 < value < below):
        raise ValueError(f"{name} is {value!r}; expected {expected}.")
    return float(value)


def _check_optimizer(optimizer: Any) -> None:
    form = "expected a function of the parameters, such as lambda p: torch.optim.Adam(p, lr=1e-3)"
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is an {type(optimizer).__name__} that is made already; {form}.")
    if optimizer is not None and not callable(optimizer):
        raise TypeError(f"optimizer is {optimizer!r:.60}; {form}.")


def _check_schedule(schedule: Any) -> None:
    scheduler = torch.optim.lr_scheduler.LRScheduler
    form = (
        "expected a function from the share of training done, in [0, 1), to a factor on the "
        "learning rate, such as lambda t: 1 - t"
    )
    if isinstance(schedule, scheduler) or (
        isinstance(schedule, type) and issubclass(schedule, scheduler)
    ):
        name = getattr(schedule, "__name__", type(schedule).__name__)
        raise TypeError(f"schedule is torch's {name}; {form}.")
    if schedule is not None and not callable(schedule):
        raise TypeError(f"schedule is {schedule!r:.60}; {form}.")


def stable_name(thing: Any) -> str:
    """A name that is the same in another process: no address in memory."""
    if isinstance(thing, nn.Module):
        return described(thing)
    name = thing if isinstance(thing, str) else getattr(thing, "__qualname__", None) or repr(thing)
    return re.sub(r" at 0x[0-9a-f]+", "", name)


def described(model: nn.Module) -> str:
    """A module's parts and shapes, a line each."""
    state = model.state_dict()
    for name, t in state.items():
        if not isinstance(t, Tensor):
            raise TypeError(
                f"The model's state dict has {name}, a {type(t).__name__}; expected tensors only, "
                "since that is what a checkpoint keeps: make it a buffer."
            )
    shapes = [f"{name} {list(t.shape)} {t.dtype}" for name, t in state.items()]
    parts = [
        f"{name}: {stable_name(getattr(model, name))}"
        for name in ("likelihood", "posterior", "prior")
        if hasattr(model, name) and not isinstance(getattr(model, name), nn.Module)
    ]
    return stable_name("\n".join([*str(model).splitlines(), *shapes, *parts]))


def trained(module: nn.Module, but: Any = ()) -> list[nn.Parameter]:
    """The parameters of a module that are trained, but for those of `but`."""
    others = {id(p) for p in but}
    return [p for p in module.parameters() if p.requires_grad and id(p) not in others]
