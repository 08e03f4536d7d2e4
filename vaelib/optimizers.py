"""The optimizer that `fit` uses by default: torch's fused Adam, called with less Python.

Introduced in book/foundations/06_training.ipynb.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """Adam with torch's fused kernel (Kingma & Ba, ICLR 2015, https://arxiv.org/abs/1412.6980).

    The same updates and state dict as `torch.optim.Adam(fused=True)`. On a CPU, where the
    parameters of a small network change within half a millisecond, torch spends as long again on
    the bookkeeping of each parameter; here the kernel is called at once while all parameters
    have gradients and have made the same number of steps.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3) -> None:
        super().__init__(parameters, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; what is not the common case is left to torch."""
        group, *others = self.param_groups
        parameters = group["params"]
        states = [self.state[p] for p in parameters]
        count = states[0].get("step")  # one tensor, shared by all the states
        common = not others and closure is None and count is not None and count.device.type == "cpu"
        if not common or any(
            p.grad is None or s.get("step") is not count for p, s in zip(parameters, states)
        ):
            for state in filter(None, states):
                state["step"] = state["step"].clone()
            result = super().step(closure)
            if all(states) and len({float(state["step"]) for state in states}) == 1:
                for state in states:
                    state["step"] = states[0]["step"]
            return result
        count += 1
        torch._fused_adam_(
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [count] * len(states),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return None
