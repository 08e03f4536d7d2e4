"""The sliders without a browser: what they keep, what Python sees, what they refuse."""

import json

import pytest
import torch
from torch.testing import assert_close

import vaelib

X = torch.linspace(-1, 1, 5)
AXES = {
    "title": "A parabola",
    "alt": "A parabola that opens.",
    "x": ("x", -1, 1),
    "y": ("y", 0, 4),
    "colors": {"fixed": "exact", "curve": "q", "here": "p"},
}


def view(width: float, height_above: float) -> dict:
    return {
        "lines": {"fixed": (X, X.abs()), "curve": (X, width * X.square() + height_above)},
        "dots": {"here": ([0.0], [height_above])},
        "numbers": {"sum": width + height_above},
    }


def made(**settings: object) -> object:
    values = {"width": [1.0, 2.0, 3.0], "height_above": torch.tensor([0.0, 0.5])}
    return vaelib.sliders(**({"view": view, "start": (1, 0)} | AXES | values | settings))


def test_values_follow_the_sliders():
    widget = made()
    assert widget.values == {"width": 2.0, "height above": 0.0}
    widget.at = [2, 1]
    assert widget.values == {"width": 3.0, "height above": 0.5}


def test_every_position_is_kept_and_what_is_the_same_everywhere_once():
    widget = made()
    spec = json.loads(widget.spec)
    table = torch.frombuffer(bytearray(widget.weights), dtype=torch.float16).double()
    assert len(table) == 5 + 5 + 5 + 6 * 5 + 1 + 6
    (curve,) = [s for s in spec["series"] if s["label"] == "curve"]
    for position, numbers in enumerate(spec["table"]):
        width, height = [1, 2, 3][position // 2], [0, 0.5][position % 2]
        start = curve["y"]["start"] + position * curve["y"]["stride"]
        assert_close(table[start : start + 5], width * X.double().square() + height)
        assert numbers == [width + height]
    assert spec["longest"] == 3.5


def test_a_page_gets_a_figure_and_a_script_that_asks_for_nothing():
    data, _ = made()._repr_mimebundle_()
    page = data["text/html"]
    assert data["text/plain"] == "Sliders" and 'alt="A parabola that opens."' in page
    assert "http:" not in page and "https:" not in page
    assert made().picture == made().picture  # stored outputs do not change by themselves


def test_pictures_lie_one_below_the_other():
    def view(width):
        return {"image": torch.full((1, 3, 4), width / 2)}

    settings = AXES | {"view": view, "start": (1,), "width": [0, 1, 2]}
    with pytest.raises(ValueError, match="have images; expected `image`, a sentence"):
        vaelib.sliders(**settings)
    with_picture = vaelib.sliders(**settings, image="Nothing")
    assert json.loads(with_picture.spec)["film"]["count"] == 3


def test_refusals_say_what_was_expected():
    with pytest.raises(ValueError, match=r"The view has \['line'\]; expected some of \['lines'"):
        made(view=lambda width, height_above: {"line": {}})
    with pytest.raises(ValueError, match="view 1 has .* the same labels and sizes at every"):
        made(view=lambda width, height_above: {"numbers": {f"at {height_above}": 1.0}})
    with pytest.raises(ValueError, match="curve has 5 x and 4 y"):
        made(view=lambda width, height_above: {"lines": {"curve": (X, X[1:])}})
    with pytest.raises(ValueError, match="The color of 'curve' is None; expected, in `colors`, on"):
        made(colors={"fixed": "exact"})
    with pytest.raises(ValueError, match=r"start is \(3, 0\); expected an index for each of"):
        made(start=(3, 0))
    with pytest.raises(ValueError, match=r"start is \(0,\)"):
        made(start=(0,))
