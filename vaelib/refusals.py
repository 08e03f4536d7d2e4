"""What would train wrongly in silence, and is refused before the first step."""

import copy
import inspect
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .draw import Draw, latents_of, layer_name
from .objectives import Objective, elbo, modules_of, parts_of, takes_step, total


def check_objective(draw: Draw, value: Tensor, objective: Objective) -> None:
    """Refuse what would train wrongly in silence, on the first batch of a run, its graph alive.

    Args:
        draw: of a model in training.
        value: the objective there, [B], its terms summed.
        objective: for its word, `supplies_gradient = True`, that it gives each q a gradient that
            does not pass through z.

    Raises:
        ValueError: for a q with parameters whose z carries no gradient, and for a listed q that
            the objective gives none, as `iwae` does: log p(x) does not depend on q.

    Warns:
        UserWarning: where the objective falls as log p(x|z) rises.
    """
    if not value.requires_grad:
        return
    slope = slope_of(value, [draw.log_px_z])
    supplied = any(getattr(part, "supplies_gradient", False) for part in parts_of(objective))
    for i, latent in enumerate(latents_of(draw)):
        learns = latent.q.log_prob(latent.z.detach()).requires_grad
        if supplied or latent.point or not learns:
            continue
        if latent.is_drawn and not latent.z.requires_grad:
            raise ValueError(
                f"q of {layer_name(i, latent)} has parameters, but its z carries no gradient, so "
                "that p(x|z) would teach q nothing; expected a reparameterized draw (q.rsample), "
                "listed values (values=V), or an objective with supplies_gradient = True."
            )
        if not latent.is_drawn:
            tensors = _tensors(latent.q)
            known = elbo(draw)
            theirs, their_slope = slope_of(known, tensors), slope_of(known, [draw.log_px_z])
            # By what each makes of log p(x|z), so that an objective in other units counts as well.
            least = 1e-4 * _size(theirs) * _size(slope) / max(_size(their_slope), 1e-30)
            if _size(slope_of(value, tensors)) < least:
                raise ValueError(
                    f"q of {layer_name(i, latent)} is listed, and the objective gives it no "
                    "gradient (listed values make iwae log p(x) itself, which does not depend on "
                    "q); expected an objective that teaches q, such as elbo."
                )
    rise = sum(float(t.sum()) for t in slope)
    if rise < -1e-6 * _size(slope):
        warnings.warn(
            "The objective falls as log p(x|z) rises, so that training makes the data less likely; "
            "objectives are maximised: expected elbo(draw), not -elbo(draw).",
            stacklevel=_outside(),
        )


def check_leaves(value: Tensor, trained: Iterable[Tensor]) -> None:
    """ValueError where the objective depends on a parameter that nobody would train."""
    known, seen, stack = {id(p) for p in trained}, set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            raise ValueError(
                f"The objective depends on a tensor of shape {list(leaf.shape)} that requires a "
                "gradient and belongs neither to the model nor to the objective, so that it would "
                "stay untrained; expected an objective that is an nn.Module with it, or "
                "requires_grad = False."
            )
        stack += [parent for parent, _ in node.next_functions]


def _outside() -> int:
    """The stacklevel, for its caller's warning, of the first frame outside of vaelib and torch."""
    level, frame = 1, inspect.currentframe().f_back  # type: ignore[union-attr]
    while frame is not None and frame.f_globals["__name__"].split(".")[0] in ("vaelib", "torch"):
        level, frame = level + 1, frame.f_back
    return level


def slope_of(value: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """The gradient of value.sum() with respect to those tensors that it depends on."""
    tensors = [t for t in tensors if t.requires_grad]
    if not tensors or not value.requires_grad:
        return []
    grads = torch.autograd.grad(value.sum(), tensors, retain_graph=True, allow_unused=True)
    return [grad for grad in grads if grad is not None]


def _size(tensors: list[Tensor]) -> float:
    return sum(float(t.abs().double().sum()) for t in tensors)


def _tensors(q: Distribution) -> list[Tensor]:
    """The tensors that a distribution is made of."""
    found = []
    for part in vars(q).values():
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, Distribution):
            found += _tensors(part)
    return found


def after_steps(
    model: nn.Module, objective: Objective, x: Tensor, y: Tensor | None, steps: int = 4
) -> tuple[nn.Module, list[str]]:
    """A copy of the model after a few steps of the objective, and what was wrong on the way."""
    model, objective = copy.deepcopy((model, objective))
    model.train()
    named = {f"the model's {name}": p for name, p in model.named_parameters() if p.requires_grad}
    for part in modules_of(objective):
        own = part.train().named_parameters()
        named |= {f"the objective's {name}": p for name, p in own if p.requires_grad}
    if not named:
        return model.eval(), []
    optimizer = torch.optim.Adam(list(named.values()), lr=1e-3)
    labels = {} if y is None else {"y": y}
    reached: set[str] = set()
    broken: list[str] = []
    for step in range(steps):
        draw = model(x, 2, **labels)
        at = {}
        if takes_step(objective):
            at["step"] = torch.tensor(step, device=draw.log_px_z.device)
        value = total(objective(draw, **at))
        if value.shape != (len(x),):
            return model.eval(), [
                f"The objective gave shape {list(value.shape)}; expected [{len(x)}], one "
                "number an example."
            ]
        if not value.requires_grad:
            return model.eval(), ["The objective depends on no parameter; expected a gradient."]
        if step == 0:
            try:
                check_objective(draw, value, objective)
            except ValueError as error:
                broken.append(str(error))
        optimizer.zero_grad()
        (-value.mean()).backward()
        grads = {name: p.grad for name, p in named.items() if p.grad is not None}
        bad = [name for name, grad in grads.items() if not bool(grad.isfinite().all())]
        if bad:
            broken.append(
                f"The gradient of {listed(bad)} is NaN or infinite in step {step}; expected "
                "finite numbers."
            )
            return model.eval(), broken
        reached |= {name for name, grad in grads.items() if bool((grad != 0).any())}
        optimizer.step()
    if len(reached) < len(named):
        broken.append(
            f"In {steps} steps of the objective no gradient reached "
            f"{listed([name for name in named if name not in reached])}; expected one for every "
            "parameter: use it, let its path be differentiable, or set requires_grad to False."
        )
    return model.eval(), broken


def listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
