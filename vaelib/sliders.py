"""`sliders(view, ...)`: a figure that follows its reader's sliders, with or without a kernel.

Where `explore` runs a network in the page, this computes a figure beforehand, at every position
of its sliders, and keeps the numbers. The same script, explore.js, draws them.
"""

import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from .plots import COLORS, STYLE, WIDTH
from .widget import Weights, Widget, film

PARTS = ("lines", "dots", "numbers", "image")
View = Mapping[str, Any]


class Sliders(Widget):
    """The widget that `sliders` makes; `at` follows the reader's hand in a live kernel.

    - at: the index of each slider's value; set it to move them.
    - values: a dictionary of the values there.
    """

    PLACE = "at"
    at = traitlets.List(traitlets.Int()).tag(sync=True)

    @property
    def values(self) -> dict[str, float]:
        """The value of each slider, by its name."""
        sliders = json.loads(str(self.spec))["sliders"]
        return {s["name"]: s["values"][i] for s, i in zip(sliders, self.at, strict=True)}


def sliders(
    view: Callable[..., View],
    *,
    title: str,
    alt: str,
    x: tuple[str, float, float],
    y: tuple[str, float, float],
    colors: Mapping[str, str],
    start: Sequence[int],
    unit: str = "nats",
    longest: float | None = None,
    image: str = "",
    **values: Sequence[float] | Tensor,
) -> Sliders:
    """A figure at every position of its sliders, live in Jupyter, Colab and the page.

    - view: called with a value for each slider, by name; returns a dictionary with some of "lines"
      and "dots", {label: (x [N], y [N])}, "numbers", {label: float}, and "image", [1 or 3, H, W].
    - title, alt: what the figure shows, in short and for those who do not see it.
    - x, y: each axis as (label, lowest, highest); without a label heights mean nothing.
    - colors: the role of each label, a key of vaelib.plots.COLORS; "exact" lines are dashed.
    - start: the index of each slider's first value; unit, longest: of the numbers, and of the
      number with a full bar (default: the largest).
    - image: what the views' images show.
    - values: for each slider its values; a name's underscores are shown as spaces.

    Raises ValueError where a view has unknown parts, or other labels or sizes than the first, and
    for colors and a start that do not fit.
    """
    grid = {name: torch.as_tensor(v, dtype=torch.float64).tolist() for name, v in values.items()}
    lengths = {name: len(some) for name, some in grid.items()}
    if len(start) != len(grid) or not all(
        0 <= index < length for index, length in zip(start, lengths.values(), strict=True)
    ):
        raise ValueError(f"start is {start!r}; expected an index for each of {lengths}.")
    positions = itertools.product(*grid.values())
    views = [view(**dict(zip(grid, position, strict=True))) for position in positions]
    shapes = [_shape(one) for one in views]
    if odd := [i for i, shape in enumerate(shapes) if shape != shapes[0]]:
        raise ValueError(
            f"view {odd[0]} has {shapes[odd[0]]} and the first has {shapes[0]}; expected the same "
            "labels and sizes at every position."
        )
    table, series = Weights(), []
    for kind in ("lines", "dots"):
        for label, xy in views[0].get(kind, {}).items():
            x_part, y_part = (_put(table, [one[kind][label][i] for one in views]) for i in (0, 1))
            described = {"label": label, "role": _role(label, colors), "count": len(xy[0])}
            kind_of_mark = "line" if kind == "lines" else "dots"
            series.append({**described, "kind": kind_of_mark, "x": x_part, "y": y_part})
    rows = [[round(float(n), 4) for n in one.get("numbers", {}).values()] for one in views]
    spec: dict[str, Any] = {
        "kind": "sliders",
        "title": title,
        "alt": alt,
        "x": dict(zip(("label", "min", "max"), x, strict=True)),
        "y": dict(zip(("label", "min", "max"), y, strict=True)),
        "sliders": [
            {"name": name.replace("_", " "), "values": [round(v, 6) for v in some]}
            for name, some in grid.items()
        ],
        "series": series,
        "numbers": list(views[0].get("numbers", {})),
        "table": rows,
        "unit": unit,
        "longest": longest or max((abs(n) for row in rows for n in row), default=1.0),
    }
    if "image" in views[0]:
        if not image:
            raise ValueError(
                "The views have images; expected `image`, a sentence on what they show."
            )
        spec["film"] = {**film(torch.stack([one["image"] for one in views])), "label": image}
    first = 0
    for index, some in zip(start, grid.values(), strict=True):
        first = first * len(some) + index
    return Sliders(
        _poster(views[first], title, x, y, colors),
        alt,
        "Where JavaScript is on, sliders under this figure move it.",
        spec=json.dumps(spec),
        weights=table.to_bytes(),
        at=list(start),
    )


def _shape(view: View) -> dict[str, Any]:
    """What must be the same at every position: labels, and how many points each has."""
    if unknown := set(view) - set(PARTS):
        raise ValueError(f"The view has {sorted(unknown)}; expected some of {list(PARTS)}.")
    sizes: dict[str, Any] = {}
    for kind in ("lines", "dots"):
        for label, (x, y) in view.get(kind, {}).items():
            if len(x) != len(y):
                raise ValueError(f"{label} has {len(x)} x and {len(y)} y; expected as many.")
            sizes[label] = len(x)
    image = [tuple(view["image"].shape)] if "image" in view else []
    return {**sizes, "numbers": list(view.get("numbers", {})), "image": image}


def _role(label: str, colors: Mapping[str, str]) -> str:
    if (role := colors.get(label)) not in COLORS:
        raise ValueError(
            f"The color of {label!r} is {role!r}; expected, in `colors`, one of {list(COLORS)}."
        )
    return role


def _put(table: Weights, rows: list[Any]) -> dict[str, int]:
    """Keep [positions, N] numbers, once where all positions have the same."""
    all_rows = torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in rows])
    fixed = bool((all_rows == all_rows[0]).all())
    start = table.put(all_rows[0] if fixed else all_rows)
    return {"start": start, "stride": 0 if fixed else all_rows.shape[1]}


def _poster(
    view: View,
    title: str,
    x: tuple[str, float, float],
    y: tuple[str, float, float],
    colors: Mapping[str, str],
) -> bytes:
    """The figure at one position, as a PNG in the style of the book's figures."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, 3.2))
        ax = figure.add_subplot()
        for label, (xs, ys) in view.get("lines", {}).items():
            dashes = "--" if colors[label] == "exact" else "-"
            ax.plot(xs, ys, dashes, color=COLORS[colors[label]], label=label)
        for label, (xs, ys) in view.get("dots", {}).items():
            ax.plot(
                xs, ys, "o", ms=3 + 5 * (len(xs) == 1), color=COLORS[colors[label]], label=label
            )
        ax.set(title=title, xlabel=x[0], xlim=x[1:], ylabel=y[0], ylim=y[1:])
        ax.yaxis.set_visible(bool(y[0]))
        if view.keys() & {"lines", "dots"}:
            ax.legend()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


__all__ = ["Sliders", "sliders"]
