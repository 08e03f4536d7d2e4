"""Optimizers: the one that `fit` uses by default, torch's fused Adam called with less Python, and
Muon, which wants fewer steps where a step is dear; and a schedule of the learning rate.

Introduced in book/foundations/06_training.ipynb and book/models/07_evaluation.ipynb.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """Adam with torch's fused kernel (Kingma & Ba, ICLR 2015, https://arxiv.org/abs/1412.6980).

    The same updates and state dict as ``torch.optim.Adam(fused=True)``. On a CPU, where the
    parameters of a small network change within half a millisecond, torch spends as long again on
    the bookkeeping of each parameter; here the kernel is called at once while all parameters
    have gradients and have made the same number of steps.

    Args:
        parameters: tensors, or groups of them.
        lr: the learning rate.

    Example:
        >>> import torch, vaelib
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> weight.grad = torch.tensor([0.3, -20.0])
        >>> vaelib.optimizers.FusedAdam([weight], lr=0.5).step()
        >>> weight.data
        tensor([ 0.5000, -0.5000])
    """

    def __init__(
        self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-3
    ) -> None:
        # What the kernel takes, a tuple a group; none where a step is left to torch.
        self._ready: list[tuple[Any, ...]] = []
        super().__init__(parameters, lr=lr, fused=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._ready = []  # its states are no more

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; what is not the common case is left to torch."""
        groups = self.param_groups
        if closure is not None or len(self._ready) != len(groups):
            return self._torchs_step(closure)
        for parameters, states, _, _, count in self._ready:
            first = self.state[parameters[0]]
            if first is not states[0] or first["step"] is not count:
                return self._torchs_step(closure)
            if any(p.grad is None for p in parameters):
                return self._torchs_step(closure)
        for group, (parameters, _, means, squares, count) in zip(groups, self._ready):
            count += 1
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                means,
                squares,
                [],
                [count] * len(parameters),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None

    def _torchs_step(self, closure: Callable[[], Any] | None) -> Any:
        """Torch's own step; then a group's counts are one tensor again, where they are equal."""
        self._ready = []
        groups = [group["params"] for group in self.param_groups]
        for state in filter(None, (self.state[p] for group in groups for p in group)):
            state["step"] = state["step"].clone()
        result = super().step(closure)
        for parameters in groups:
            states = [self.state[p] for p in parameters]
            counts = {float(state["step"]) for state in states if state}
            if not all(states) or len(counts) != 1 or states[0]["step"].device.type != "cpu":
                self._ready = []
                return result
            for state in states:
                state["step"] = states[0]["step"]
            means, squares = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq"))
            self._ready.append((parameters, states, means, squares, states[0]["step"]))
        return result


class Muon(torch.optim.Optimizer):
    """Muon for matrices, Adam for all other parameters; a convolution's kernel is a matrix, too.

    A matrix moves by its averaged gradient with every singular value set to about one, so each
    direction that the gradient knows gets an equal step (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/). ``torch.optim.Muon`` takes matrices alone and
    multiplies in bfloat16, which is slow on a CPU; this one keeps the parameters' own dtype.

    Args:
        parameters: tensors, or groups of them.
        lr: the learning rate of matrices.
        adam_lr: that of all others.
        momentum: of the matrices' averaged gradient.
        betas: Adam's.

    Example:
        >>> import functools, torch, vaelib
        >>> muon = functools.partial(vaelib.optimizers.Muon, lr=0.02)
        >>> model = vaelib.mlp_vae(2, (8,), x_shape=(4,))
        >>> history = vaelib.fit(model, torch.ones(32, 4), epochs=1, optimizer=muon)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.03,
        adam_lr: float = 3e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        given: list[Any] = list(parameters)
        groups = []
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            for rate, matrices in ((lr, True), (adam_lr, False)):
                own = [p for p in group["params"] if _is_matrix(p) == matrices]
                groups.append(group | {"params": own, "lr": rate, "matrices": matrices})
        defaults = {"lr": lr, "adam_lr": adam_lr, "momentum": momentum, "betas": betas}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            (self._step_matrices if group["matrices"] else self._step_others)(group)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}  # by the updates' shape
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["average"] = torch.zeros_like(p)
            state["average"].lerp_(p.grad, 1 - group["momentum"])
            update = p.grad.lerp(state["average"], group["momentum"]).flatten(1)
            alike.setdefault(tuple(update.shape), []).append((p, update))
        for (rows, columns), pairs in alike.items():
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            updates = orthogonalized(torch.stack([update for _, update in pairs]))
            for (p, _), update in zip(pairs, updates):
                p.add_(update.view_as(p), alpha=-rate)

    def _step_others(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        with_count: dict[int, list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(count=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["count"] += 1
            with_count.setdefault(state["count"], []).append(p)
        for count, parameters in with_count.items():  # few kernels, as in torch's own Adam
            grads: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
            means, squares = (
                [self.state[p][name] for p in parameters] for name in ("mean", "square")
            )
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
            scales = torch._foreach_div(squares, 1 - beta2**count)
            torch._foreach_sqrt_(scales)
            torch._foreach_add_(scales, 1e-8)
            torch._foreach_addcdiv_(parameters, means, scales, -group["lr"] / (1 - beta1**count))


def _is_matrix(p: Tensor) -> bool:
    """Whether p, its first axis against all others, has more than one row and column."""
    return p.dim() >= 2 and min(len(p), p[0].numel()) > 1


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices [N, m, n] with their singular values brought near one, without finding them.

    Five steps of a polynomial that is applied to every singular value at once; those above a
    thousandth of the matrix's norm end between 0.6 and 1.3.
    """
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    square, product = x @ x.mT, None
    long = x.shape[-1] >= 2 * x.shape[-2]  # then the polynomials' product first, x once, last
    for _ in range(steps):
        curve = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        curve.diagonal(dim1=-2, dim2=-1).add_(3.4445)
        if long:
            product = curve if product is None else curve @ product
            square = curve @ square @ curve
        else:
            x = curve @ x
            square = x @ x.mT
    x = x if product is None else product @ x
    return x.mT if wide is not matrices else x


def warm_cosine(done: float) -> float:
    """A factor on the learning rate: up over the first twentieth of training, then half a cosine.

    It ends at 0 (Loshchilov & Hutter, ICLR 2017, https://arxiv.org/abs/1608.03983, Equation 5).

    Args:
        done: the share of training that is done, from 0 to 1, as `vaelib.fit` hands it over.

    Returns:
        The factor, from 0 to 1.

    Example:
        >>> from vaelib.optimizers import warm_cosine
        >>> [round(warm_cosine(t), 2) for t in (0.0, 0.05, 0.5, 1.0)]
        [0.0, 0.99, 0.5, 0.0]
    """
    return min(1.0, done / 0.05) * 0.5 * (1 + math.cos(math.pi * done))


__all__ = ["FusedAdam", "Muon", "warm_cosine"]
