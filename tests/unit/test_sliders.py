"""The sliders without a browser: what they keep, what Python sees, what they refuse."""

import json

import pytest
import torch
import traitlets
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
    assert widget.values == {"width": 2.0, "height_above": 0.0}
    widget.at = [2, 1]
    assert widget.values == {"width": 3.0, "height_above": 0.5}
    assert view(**widget.values)["numbers"] == {"sum": 3.5}
    with pytest.raises(traitlets.TraitError, match=r"at is \[3, 0\]; expected an index for each"):
        widget.at = [3, 0]


def test_every_position_is_kept_and_what_is_the_same_everywhere_once():
    widget = made()
    spec = json.loads(widget.spec)
    table = torch.frombuffer(bytearray(widget.weights), dtype=torch.float16).double()
    assert len(table) == 5 + 5 + 5 + 6 * 5 + 1 + 6
    (curve,) = [s for s in spec["series"] if s["label"] == "curve"]
    for position, numbers in enumerate(spec["table"]):
        width, height = [1, 2, 3][position // 2], [0, 0.5][position % 2]
        start = curve["y"]["start"] + position * curve["y"]["stride"]
        share = (width * X.double().square() + height - AXES["y"][1]) / 4  # of the axis
        assert_close(table[start : start + 5], share, atol=1e-3, rtol=0)
        assert numbers == [width + height]
    assert spec["longest"] == 3.5


def test_a_curve_far_from_zero_keeps_its_shape():
    far = made(
        view=lambda width, height_above: {"lines": {"curve": (X + 2020, 0.9 * X - 1000)}},
        x=("year", 2019, 2021),
        y=("ELBO", -1001, -999),
    )
    table = torch.frombuffer(bytearray(far.weights), dtype=torch.float16).double()
    assert_close(table[:5], (X.double() + 1) / 2, atol=1e-3, rtol=0)
    assert_close(table[5:], (0.9 * X.double() + 1) / 2, atol=1e-3, rtol=0)


def test_a_view_may_use_one_buffer_again_and_parameters():
    buffer, scale = torch.empty(5), torch.ones(1, requires_grad=True)

    def view(width, height_above):
        buffer.copy_(X.square() * width)
        return {"lines": {"curve": (X, buffer), "fixed": (X, scale * X)}}

    spec = json.loads(made(view=view).spec)
    (curve,) = [s for s in spec["series"] if s["label"] == "curve"]
    assert curve["y"]["stride"] == 5


def test_values_reach_the_view_as_they_are():
    places = {0.1: 1.0, 3: 2.0}
    widget = made(
        view=lambda width, height_above: {"dots": {"here": ([0.0], [places[width]])}},
        width=[0.1, 3],
    )
    assert widget.values["width"] == 3 and isinstance(widget.values["width"], int)


def test_names_of_greek_letters_become_letters():
    spec = json.loads(
        vaelib.sliders(
            lambda sigma: {"dots": {"here": ([0.0], [sigma])}}, **AXES, start=(0,), sigma=[1e-4, 1]
        ).spec
    )
    (slider,) = spec["sliders"]
    assert slider["name"] == "σ" and slider["values"] == pytest.approx([1e-4, 1])


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
    with pytest.raises(ValueError, match=r"'curve' has x \[5\] and y \[4\]; expected"):
        made(view=lambda width, height_above: {"lines": {"curve": (X, X[1:])}})
    with pytest.raises(ValueError, match="The color of 'curve' is None; expected, in `colors`, on"):
        made(colors={"fixed": "exact"})
    with pytest.raises(ValueError, match=r"start is \[3, 0\]; expected an index for each"):
        made(start=(3, 0))
    with pytest.raises(ValueError, match=r"start is \[0\]"):
        made(start=(0,))
    with pytest.raises(ValueError, match="x runs from 1 to -1; expected the lowest first"):
        made(x=("x", 1, -1))
    with pytest.raises(ValueError, match="A number of 'curve', in shares of its axis, is nan"):
        made(view=lambda width, height_above: {"lines": {"curve": (X, X / 0 * 0)}})
    with pytest.raises(ValueError, match="A number or a slider's value is not finite"):
        made(view=lambda width, height_above: view(1, 2) | {"numbers": {"n": float("nan")}})
    with pytest.raises(ValueError, match="The views show nothing"):
        made(view=lambda width, height_above: {"numbers": {"n": 1.0}})
    with pytest.raises(ValueError, match=r"image is \[2, 2\]; expected \[1 or 3"):
        made(view=lambda width, height_above: {"image": X.new_ones(2, 2)})
