"""What the live widgets share: a script, numbers in float16, and a form for pages without a kernel.

In live Jupyter and Colab a widget runs through anywidget, in step with Python. In a page built from
stored outputs the same JavaScript runs by itself: no kernel, no server, no request.
"""

import base64
import hashlib
import html
import io
import itertools
import json
import sys
from collections.abc import Callable
from importlib.resources import files
from types import ModuleType
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

PARTS = ("network", "drawing", "explorer", "paper", "sliders", "start")


def script() -> str:
    """The widgets' JavaScript, one module: js/*.js share a scope, and import nothing."""
    folder = files(__package__) / "js"
    return "\n".join((folder / f"{part}.js").read_text("utf-8") for part in PARTS)


class Weights:
    """The numbers of a widget, one tensor after the other, as float16."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.size = 0

    def put(self, tensor: Tensor, name: str = "A weight") -> int:
        """Keep the tensor, and say where it begins; name: what errors call a number of it."""
        values = tensor.detach().double().cpu().numpy().ravel()
        with np.errstate(over="ignore"):
            half = values.astype("<f2")
        if not np.isfinite(half).all():
            raise ValueError(
                f"{name} is {np.abs(values).max():.3g}; expected finite numbers up to 65,504, "
                "since a page keeps them as float16."
            )
        start, self.size = self.size, self.size + values.size
        self.parts.append(half)
        return start

    def to_bytes(self) -> bytes:
        return b"".join(part.tobytes() for part in self.parts)


class Widget(anywidget.AnyWidget):
    """What the book's widgets share: one script, numbers in float16, and a form for pages."""

    _esm = script()  # a path would start a watcher
    _css = (files(__package__) / "explore.css").read_text("utf-8")
    spec = traitlets.Unicode().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)

    PLACE = ""  # the trait that says where the reader has moved it
    _count = itertools.count()  # ids in a page: the same in every run

    def __init__(self, picture: bytes, alt: str, sentence: str, **traits: Any) -> None:
        super().__init__(**traits)
        self.picture, self.alt, self.sentence = picture, alt, sentence

    def to_html(self) -> str:
        """The widget for a page without a kernel: numbers, picture and script in one piece."""
        name = hashlib.sha256(self.weights).hexdigest()[:16]
        state = json.dumps(
            {"spec": self.spec, "place": getattr(self, self.PLACE), "weights": name},
            allow_nan=False,
        ).replace("<", "\\u003c")  # no text of ours ends the script, or opens another
        here = f"explorer-{hashlib.sha256(state.encode()).hexdigest()[:8]}-{next(self._count)}"
        still = (
            f'<img alt="{html.escape(self.alt)}" '
            f'src="data:image/png;base64,{base64.b64encode(self.picture).decode()}">'
            f"<p>{html.escape(self.sentence)}</p>"
        )
        start = f"start(document.getElementById({json.dumps(here)}));"
        return (
            f'<style>{self._css}</style><div class="explorer" id="{here}">{still}</div>'
            f'<script type="application/json" data-state-of="{here}">{state}</script>'
            f'<script type="text/plain" data-weights="{name}">'
            f"{base64.b64encode(self.weights).decode()}</script>"
            f'<script type="module">{self._esm}\n{start}</script>'
        )

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/html": self.to_html(), "text/plain": type(self).__name__}, metadata


def film(pictures: Tensor) -> dict[str, Any]:
    """Pictures [T, 1 or 3, H, W], uint8 or in [0, 1], as one PNG, one below the other."""
    strip = png(pictures.permute(1, 0, 2, 3).flatten(1, 2))
    return {"count": len(pictures), "png": base64.b64encode(strip).decode()}


def png(image: Tensor) -> bytes:
    """[1 or 3, H, W], uint8 or in [0, 1], as a PNG; ink is dark, as everywhere in the book."""
    image = image.detach().cpu()
    image = image / 255 if image.dtype == torch.uint8 else image
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    array = 255 - pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", optimize=True)
    return file.getvalue()


def callable_module(name: str, function: Callable[..., Any]) -> None:
    """Let the module of this name be called as its function.

    `vaelib.explore` is a function, until someone imports from `vaelib.explore` first: then Python
    has put the module in its place.
    """
    kind = type("CallableModule", (ModuleType,), {"__call__": staticmethod(function)})
    sys.modules[name].__class__ = kind


__all__ = ["Weights", "Widget", "callable_module", "film", "png", "script"]
