"""The picture that other sites show beside a link to the book."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from book_static import write_static
from vaelib.plots import COLORS, STYLE


def card() -> bytes:
    """The picture for links to the book, 1200 x 630, as other sites want it."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        canvas = Figure(figsize=(12, 6.3), dpi=100, layout="none")
        ax = canvas.add_axes((0, 0, 1, 1))
        x = np.linspace(0, 12, 400)
        for center, width, height, role in [(4.3, 1.5, 3.4, "p"), (7.3, 1.1, 2.5, "q")]:
            curve = height * np.exp(-(((x - center) / width) ** 2) / 2)
            ax.fill_between(x, curve, color=COLORS[role], alpha=0.82, lw=0)
        ax.text(0.6, 5.2, "The Measured VAE", fontsize=46, weight="bold", color="#141a24")
        ax.text(0.6, 4.45, "A survey claims; this book measures.", fontsize=24, color="#3c4656")
        ax.set(xlim=(0, 12), ylim=(0, 6.3))
        ax.set_axis_off()
        file = io.BytesIO()
        canvas.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def write_card(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    write_static(app, "card.png", card())


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
