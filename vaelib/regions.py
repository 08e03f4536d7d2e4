"""The smallest regions of the plane that hold a share of a density, as outlines."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

SHARES = (50, 90, 99)  # percent


@torch.no_grad()
def regions(p: Distribution, axes: tuple[int, int], span: float) -> list[dict[str, Any]]:
    """A percentage and its closed outlines [[right, up], ...] each; p is over two latents.

    axes: the latent that goes right, and the one that goes up. span: half of the side that will be
    shown; the grid is half as wide again, so that what is shown of an outline is whole.
    """
    if p.event_shape != (2,):
        raise ValueError(
            f"A density for contours is over {list(p.event_shape)}; expected the plane, [2]."
        )
    ticks = torch.linspace(-1.5 * span, 1.5 * span, 121)
    up, right = torch.meshgrid(ticks, ticks, indexing="ij")
    z = torch.stack([right, up] if axes == (0, 1) else [up, right], -1).view(-1, 2)
    log_p = p.log_prob(z.to(_like(p))).double().cpu()
    heights = (log_p - log_p.max()).exp()
    ranked = heights.sort(descending=True).values
    mass = ranked.cumsum(0) / ranked.sum()
    found, ax = [], Figure().subplots()
    for percent in SHARES:
        level = ranked[int((mass < percent / 100).sum())].item()
        drawn = ax.contour(ticks.numpy(), ticks.numpy(), heights.view(right.shape).numpy(), [level])
        lines = [line.round(2).tolist() for line in drawn.allsegs[0]]
        found.append({"percent": percent, "lines": lines})
    return found


def _like(p: Distribution) -> Tensor:
    """A draw, which tells device and dtype."""
    with torch.random.fork_rng(devices=[]):
        return p.sample()
