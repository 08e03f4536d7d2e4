"""One look for every figure of the book: colours by role, sizes, fonts, and a few drawings.

Functions take `ax`, draw on it and return nothing. `use_style()` is called once a chapter.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from torch import Tensor

# One colour a role, from Okabe & Ito's palette, which colour-blind readers tell apart.
COLORS = {
    "data": "#00795C",
    "p": "#0072B2",
    "q": "#D55E00",
    "exact": "#6B6B6B",
    "other": "#B0568F",
    "fifth": "#9A7400",
}
# Ten classes, after Petroff's sequence (https://arxiv.org/abs/2107.02270).
CLASS_COLORS = [
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
]
WIDTH = 7.2  # inches: 720 px of a page, 1440 on a high-density screen

# The pages' sans, which lies beside this file: figures look alike on every machine.
for _path in sorted(Path(__file__).with_name("fonts").glob("*.ttf")):
    font_manager.fontManager.addfont(_path)

STYLE: dict[str, Any] = {
    "figure.figsize": (WIDTH, 3.2),
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    # In the size of the pages' tables and captions, formulas in MathJax's letters. Signs that the
    # font lacks come from matplotlib's own; beside a formula they can't: there write $\nabla$.
    "font.family": ["Measured Sans", "DejaVu Sans"],
    "font.size": 11,
    "mathtext.fontset": "cm",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(
        color=[COLORS[role] for role in ("p", "q", "data", "other", "fifth", "exact")]
    ),
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "image.cmap": "gray_r",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Give every later figure the book's look; in a notebook, at twice the pixels."""
    mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        # Without bbox_inches=None figures are cropped, and no two would have one width.
        set_matplotlib_formats("retina", bbox_inches=None, metadata={"Software": None})


def image_grid(x: Tensor, ax: Axes, columns: int = 10) -> None:
    """Draw images [N, 1, H, W] or [N, 3, H, W], from 0 to 1 or uint8, as one picture."""
    images = np.moveaxis(x.detach().cpu().numpy(), 1, -1)
    top = 255 if images.dtype == np.uint8 else 1
    n, height, width, channels = images.shape
    rows, gap = -(-n // columns), max(1, height // 14)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    page = np.full(shape, top if channels == 3 else 0, images.dtype)
    for i, image in enumerate(images):
        r, c = i // columns * (height + gap), i % columns * (width + gap)
        page[r : r + height, c : c + width] = image
    ax.imshow(page.squeeze(-1) if channels == 1 else page, vmin=0, vmax=top)
    ax.set_axis_off()


def ellipse(mean: Tensor, cov: Tensor, ax: Axes, num_sigmas: float = 2, **style: Any) -> None:
    """Draw the ellipse num_sigmas from the mean [2] of a Gaussian with covariance [2, 2]."""
    values, vectors = np.linalg.eigh(cov.detach().cpu().numpy())
    angle = np.degrees(np.arctan2(*vectors[::-1, 1]))
    width, height = 2 * num_sigmas * np.sqrt(values[::-1])
    center = tuple(mean.detach().cpu().tolist())
    ax.add_patch(Ellipse(center, width, height, angle=angle, **{"fill": False, "lw": 1.8} | style))


def exact_line(value: float, ax: Axes, label: str = "exact", vertical: bool = False) -> None:
    """Draw the exact value that estimates are held against: dashed grey, in every figure."""
    line = ax.axvline if vertical else ax.axhline
    line(value, color=COLORS["exact"], linestyle="--", linewidth=1.5, label=label)


__all__ = ["CLASS_COLORS", "COLORS", "WIDTH", "ellipse", "exact_line", "image_grid", "use_style"]
