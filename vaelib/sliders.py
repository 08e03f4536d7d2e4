"""`sliders(view, ...)`: a figure that follows its reader's sliders, with or without a kernel.

Where `explore` runs a network in the page, this computes a figure beforehand, at every position
of its sliders, and keeps the numbers. The same script, js/*.js, draws them.
"""

import io
import itertools
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import matplotlib as mpl
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from .plots import COLORS, STYLE, WIDTH
from .widget import Weights, Widget, callable_module, film

PARTS = ("lines", "dots", "numbers", "image")
GREEK = {"beta": "β", "lambda_": "λ", "mu": "μ", "sigma": "σ"}  # as the text around writes them
Axis = tuple[str, float, float]


class Sliders(Widget):
    """The widget that `sliders` makes; `at` follows the reader's hand in a live kernel.

    - at: the index of each slider's value; set it to move them.
    - values: a dictionary of the values there.
    """

    PLACE = "at"
    at = traitlets.List(traitlets.Int()).tag(sync=True)

    @traitlets.validate("at")
    def _valid_at(self, proposal: Any) -> list[int]:
        lengths = [len(slider["values"]) for slider in json.loads(str(self.spec))["sliders"]]
        return _indices(proposal.value, lengths, "at", traitlets.TraitError)

    @property
    def values(self) -> dict[str, float]:
        """The value of each slider, by the name that the view has for it."""
        sliders = json.loads(str(self.spec))["sliders"]
        return {s["keyword"]: s["values"][i] for s, i in zip(sliders, self.at, strict=True)}


def sliders(
    view: Callable[..., Mapping[str, Any]],
    *,
    title: str,
    alt: str,
    x: Axis,
    y: Axis,
    colors: Mapping[str, str],
    start: Sequence[int],
    unit: str = "nats",
    digits: int = 2,
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
    - start: the index of each slider's first value.
    - unit, digits, longest: of the numbers; longest is the one with a full bar (default: the
      largest), and longer ones are cut.
    - image: what the views' images show.
    - values: for each slider its values; a name's underscores are shown as spaces.

    Raises ValueError where a view has unknown parts, or other labels or sizes than the first, and
    for axes, colors and a start that do not fit.
    """
    axes = [(label, float(low), float(high)) for label, low, high in (x, y)]
    for name, (_, low, high) in zip("xy", axes, strict=True):
        if not low < high:
            raise ValueError(f"{name} runs from {low:g} to {high:g}; expected the lowest first.")
    # Numbers of a list reach the view as they are: it may look them up.
    grid = {
        name: some.tolist() if hasattr(some, "tolist") else list(some)
        for name, some in values.items()
    }
    start = _indices(start, [len(some) for some in grid.values()], "start", ValueError)
    positions = itertools.product(*grid.values())
    views = [_kept(view(**dict(zip(grid, position, strict=True)))) for position in positions]
    shapes = [_shape(one) for one in views]
    if odd := [i for i, shape in enumerate(shapes) if shape != shapes[0]]:
        raise ValueError(
            f"view {odd[0]} has {shapes[odd[0]]} and the first has {shapes[0]}; expected the same "
            "labels and sizes at every position."
        )
    if not views[0]["lines"] and not views[0]["dots"] and "image" not in views[0]:
        raise ValueError('The views show nothing; expected "lines", "dots" or an "image".')
    table, series = Weights(), []
    for kind in ("lines", "dots"):
        for label, (xs, _) in views[0][kind].items():
            name = f"A number of {label!r}, in shares of its axis,"
            parts = {
                axis: _put(
                    table, [(one[kind][label][i] - low) / (high - low) for one in views], name
                )
                for i, (axis, (_, low, high)) in enumerate(zip("xy", axes, strict=True))
            }
            mark = {"kind": "line" if kind == "lines" else "dots", "role": _role(label, colors)}
            series.append({"label": label, "count": len(xs), **mark, **parts})
    rows = [[round(float(n), 6) for n in one["numbers"].values()] for one in views]
    largest = max((abs(n) for row in rows for n in row), default=1.0)
    spec: dict[str, Any] = {
        "kind": "sliders",
        "title": title,
        "alt": alt,
        **{
            name: dict(zip(("label", "min", "max"), axis, strict=True))
            for name, axis in zip("xy", axes, strict=True)
        },
        "sliders": [
            {"keyword": name, "name": GREEK.get(name, name.replace("_", " ")), "values": some}
            for name, some in grid.items()
        ],
        "series": series,
        "numbers": list(views[0]["numbers"]),
        "table": rows,
        "unit": unit,
        "digits": digits,
        "longest": float(longest or largest or 1.0),
    }
    if "image" in views[0]:
        if not image:
            raise ValueError(
                "The views have images; expected `image`, a sentence on what they show."
            )
        spec["film"] = {**film(torch.stack([one["image"] for one in views])), "label": image}
    try:
        text = json.dumps(spec, allow_nan=False)
    except ValueError:
        raise ValueError(
            "A number or a slider's value is not finite; expected finite ones."
        ) from None
    first = 0
    for index, some in zip(start, grid.values(), strict=True):
        first = first * len(some) + index
    return Sliders(
        _poster(views[first], spec),
        alt,
        "Where JavaScript is on, sliders under this figure move it.",
        spec=text,
        weights=table.to_bytes(),
        at=start,
    )


def _indices(at: Any, lengths: list[int], name: str, error: type[Exception]) -> list[int]:
    found = [int(i) for i in at]
    if len(found) != len(lengths) or not all(
        0 <= i < n for i, n in zip(found, lengths, strict=True)
    ):
        raise error(f"{name} is {found}; expected an index for each slider, of lengths {lengths}.")
    return found


def _kept(view: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in tensors, which later positions cannot change."""
    if unknown := set(view) - set(PARTS):
        raise ValueError(f"The view has {sorted(unknown)}; expected some of {list(PARTS)}.")

    def keep(values: Any) -> Tensor:
        return torch.as_tensor(values).detach().cpu().double().clone()

    copy: dict[str, Any] = {
        kind: {label: (keep(xs), keep(ys)) for label, (xs, ys) in view.get(kind, {}).items()}
        for kind in ("lines", "dots")
    }
    copy["numbers"] = dict(view.get("numbers", {}))
    if "image" in view:
        copy["image"] = torch.as_tensor(view["image"]).detach().cpu().clone()
    return copy


def _shape(view: dict[str, Any]) -> dict[str, Any]:
    """What must be the same at every position: labels, and how many points each has."""
    sizes: dict[str, Any] = {}
    for kind in ("lines", "dots"):
        for label, (x, y) in view[kind].items():
            if x.dim() != 1 or x.shape != y.shape:
                raise ValueError(
                    f"{label!r} has x {list(x.shape)} and y {list(y.shape)}; expected [N] twice."
                )
            sizes[f"{kind}: {label}"] = len(x)
    if view["numbers"]:
        sizes["numbers"] = list(view["numbers"])
    if "image" in view:
        sizes["image"] = list(view["image"].shape)
        if len(sizes["image"]) != 3 or sizes["image"][0] not in (1, 3):
            raise ValueError(f"image is {sizes['image']}; expected [1 or 3, height, width].")
    return sizes


def _role(label: str, colors: Mapping[str, str]) -> str:
    if (role := colors.get(label)) not in COLORS:
        raise ValueError(
            f"The color of {label!r} is {role!r}; expected, in `colors`, one of {list(COLORS)}."
        )
    return cast(str, role)


def _put(table: Weights, rows: list[Tensor], name: str) -> dict[str, int]:
    """Keep [positions, N] numbers, once where all positions have the same."""
    all_rows = torch.stack(rows)
    fixed = bool((all_rows == all_rows[0]).all())
    start = table.put(all_rows[0] if fixed else all_rows, name)
    return {"start": start, "stride": 0 if fixed else all_rows.shape[1]}


def _poster(view: dict[str, Any], spec: dict[str, Any]) -> bytes:
    """All that the widget shows at one position, as a PNG in the style of the book's figures."""
    picture, roles = view.get("image"), {one["label"]: one["role"] for one in spec["series"]}
    heights = [3.0] if roles else []
    if picture is not None:
        heights.append(0.9 * WIDTH * picture.shape[1] / picture.shape[2])
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.6))
        axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
        if roles:
            ax, x, y = axes[0], spec["x"], spec["y"]
            for label, (xs, ys) in view["lines"].items():
                dashes = "--" if roles[label] == "exact" else "-"
                ax.plot(xs, ys, dashes, color=COLORS[roles[label]], label=label)
            for label, (xs, ys) in view["dots"].items():
                size = 8 if len(xs) == 1 else 3
                ax.plot(xs, ys, "o", ms=size, color=COLORS[roles[label]], label=label)
            ax.set(title=spec["title"], xlabel=x["label"], ylabel=y["label"])
            ax.set(xlim=(x["min"], x["max"]), ylim=(y["min"], y["max"]))
            ax.yaxis.set_visible(bool(y["label"]))
            ax.legend()
        if picture is not None:
            shown = picture.double() / 255 if picture.dtype == torch.uint8 else picture
            shown = shown.clamp(0, 1).movedim(0, -1).squeeze(-1)
            axes[-1].imshow(shown.numpy(), vmin=0, vmax=1)
            axes[-1].set(title=spec["film"]["label"])
            axes[-1].set_axis_off()
        numbers = [f"{label} {float(n):.{spec['digits']}f}" for label, n in view["numbers"].items()]
        said = textwrap.wrap(f"{'; '.join(numbers)} {spec['unit']}", 90)
        figure.supxlabel("\n".join(said), fontsize=9)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


callable_module(__name__, sliders)

__all__ = ["Sliders", "sliders"]
