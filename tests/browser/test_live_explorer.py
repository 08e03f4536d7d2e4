"""The explorer in a page without a kernel: its networks, and a reader's hand, keys and finger."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import ROOT, Browser, serve
from torch import nn
from torch.distributions import Independent, Normal

import vaelib

SHAPE = (1, 28, 28)


def mlp_model(**settings: object) -> vaelib.VAE:
    torch.manual_seed(0)
    return vaelib.mlp_vae(**({"latent_dim": 2, "hidden": (40,)} | settings))


def strange_model() -> vaelib.VAE:
    """Every layer and activation that network.js knows, and statistics that are not the first."""
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(3, 24),
        nn.BatchNorm1d(24),
        nn.GELU(),
        nn.Linear(24, 24, bias=False),
        nn.Tanh(),
        nn.LayerNorm(24),
        nn.ELU(),
        nn.Dropout(0.5),
        nn.Linear(24, 6 * 4 * 5),
        nn.Unflatten(1, (6, 4, 5)),
        nn.BatchNorm2d(6),
        nn.Softplus(),
        nn.Conv2d(6, 8, 3, padding=2, stride=2),
        vaelib.nets.ResidualBlock(8),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.GroupNorm(2, 4),
        nn.Sigmoid(),
        nn.ConvTranspose2d(4, 1, 4, stride=3, padding=0),
    )
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias)
    shape = decoder.eval()(torch.zeros(2, 3)).shape[1:]
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), 6))
    return vaelib.VAE(encoder, decoder, 3, vaelib.gaussian(0.1), x_shape=shape)


MODELS = {
    "relu": mlp_model,
    "silu, layer norm": lambda: mlp_model(activation="silu", norm="layer", hidden=(30, 20)),
    "one side odd": lambda: vaelib.conv_vae(2, channels=(4,), x_shape=(1, 27, 28)),
    "the book's own": lambda: vaelib.load(ROOT / "data/weights/pocket_vae.safetensors"),
    "conv": lambda: vaelib.conv_vae(2, channels=(8, 16), blocks=1, x_shape=(3, 20, 28)),
    "every layer": strange_model,
}


@pytest.fixture
def show(tmp_path: Path, light: Browser) -> Iterator[object]:
    """Write widgets into a page, open it, and return the browser."""
    with serve(tmp_path) as address:

        def show(*widgets: object) -> Browser:
            body = "\n".join(widget.to_html() for widget in widgets)
            head = '<!doctype html><html lang="en"><title>x</title><link rel="icon" href="data:,">'
            (tmp_path / "page.html").write_text(head + body, encoding="utf-8")
            light.open(f"{address}/page.html")
            return light

        yield show
        asked, failed = light.traffic()
        assert [a for a in asked if not a.startswith((address, "data:"))] == [] and failed == []
        # The tests themselves read canvases back.
        assert [line for line in light.console() if "willReadFrequently" not in line] == []


@pytest.mark.parametrize("name", MODELS)
def test_javascript_and_pytorch_agree_on_a_thousand_inputs(show, name):
    model = MODELS[name]()
    browser = show(vaelib.explore(model))
    z = 1.5 * torch.randn(1_000, model.latent_dim)
    found = browser.script(
        """const e = document.querySelector(".explorer").explorer;
        return arguments[0].map((z) => Array.from(e.decode(z)));""",
        z.tolist(),
    )
    with torch.no_grad():
        expected = model.eval().decode(z).mean.flatten(1)
    assert (torch.tensor(found) - expected).abs().max() < 1e-3


STATE = """
const root = document.querySelectorAll(".explorer")[arguments[0] || 0];
return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done({
  z: root.dataset.z.split(" ").map(Number), label: root.querySelector("canvas.image").ariaLabel ||
    root.querySelector("canvas.image").getAttribute("aria-label"),
  rate: Number(root.dataset.rate), distortion: Number(root.dataset.distortion),
  image: Array.from(root.querySelector("canvas.image").getContext("2d")
    .getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0),
  milliseconds: Number(root.dataset.milliseconds) }))));
"""


def press(browser: Browser, key: str, shift: bool = False) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.command("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 * shift)


def place(browser: Browser, selector: str, x: float, y: float) -> tuple[float, float]:
    """A place in an element, from shares of its width and height, in the window."""
    left, top, width, height = browser.script(
        """const e = document.querySelector(arguments[0]);
        e.scrollIntoView({ block: "center" });
        const b = e.getBoundingClientRect();
        return [b.left, b.top, b.width, b.height];""",
        selector,
    )
    return left + x * width, top + y * height


def drag(browser: Browser, selector: str, *path: tuple[float, float]) -> None:
    for i, (x, y) in enumerate(path):
        px, py = place(browser, selector, x, y)
        kind = "mousePressed" if i == 0 else "mouseMoved"
        facts = {"x": px, "y": py, "button": "left", "buttons": 1, "clickCount": 1}
        browser.command("Input.dispatchMouseEvent", type=kind, **facts)
    browser.command("Input.dispatchMouseEvent", **(facts | {"type": "mouseReleased", "buttons": 0}))


def click(browser: Browser, text: str) -> None:
    browser.script(
        """[...document.querySelectorAll(".explorer button")]
        .find((b) => b.textContent === arguments[0]).click();""",
        text,
    )


def test_mouse_keys_and_sliders_move_the_image(show):
    model = mlp_model()
    browser = show(vaelib.explore(model))
    drag(browser, ".pad", (0.5, 0.5), (0.75, 0.25))
    state = browser.script(STATE)
    assert state["z"] == pytest.approx([1.5, 1.5], abs=0.05)
    with torch.no_grad():
        mean = model.decode(torch.tensor([state["z"]])).mean.flatten()
    assert (255 - torch.tensor(state["image"]) - 255 * mean).abs().max() < 2
    assert browser.script("return document.activeElement.className") == "pad"
    press(browser, "Home")
    press(browser, "ArrowRight")
    press(browser, "ArrowUp", shift=True)
    state = browser.script(STATE)
    assert state["z"] == pytest.approx([0.1, 0.5], abs=1e-6)
    assert "z1 = 0.10, z2 = 0.50" in state["label"]
    browser.script("""const s = document.querySelector('.explorer input');
        s.value = -3; s.dispatchEvent(new Event("input"));""")
    assert browser.script(STATE)["z"] == pytest.approx([-3, 0.5], abs=1e-6)
    for _ in range(3):
        press(browser, "ArrowLeft", shift=True)  # no further than the edge
    assert browser.script(STATE)["z"] == pytest.approx([-3, 0.5], abs=1e-6)


def test_a_finger_moves_the_pad(show):
    browser = show(vaelib.explore(mlp_model()))
    browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        for kind, where in (("touchStart", (0.5, 0.5)), ("touchMove", (0.25, 0.5))):
            x, y = place(browser, ".pad", *where)
            browser.command("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    finally:
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)
    assert browser.script(STATE)["z"] == pytest.approx([-1.5, 0], abs=0.05)


def test_a_drawing_is_encoded_placed_and_priced(show):
    model = mlp_model()
    browser = show(vaelib.explore(model, draw=True))
    drag(browser, ".paper", (0.5, 0.2), (0.5, 0.4), (0.5, 0.6), (0.5, 0.8))
    state = browser.script(STATE)
    ink = browser.script("""return Array.from(
        document.querySelector(".explorer").explorer.paper.ink());""")
    x = torch.tensor(ink).view(1, *SHAPE)
    assert 0.02 < x.mean() < 0.2
    rows, columns = torch.arange(28.0).view(-1, 1), torch.arange(28.0)
    for place_of in (rows, columns):  # centred, as MNIST's digits are
        assert abs((x[0, 0] * place_of).sum() / x.sum() - 13.5) < 0.6
    with torch.no_grad():
        q = model.encode(x)
        mean, var = q.mean, q.variance
        rate = 0.5 * (mean.square() + var - 1 - var.log()).sum()
        logits = model.decoder(mean)
        distortion = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    assert state["z"] == pytest.approx(mean[0].tolist(), abs=2e-3)
    assert state["rate"] == pytest.approx(rate.item(), abs=2e-3)
    assert state["distortion"] == pytest.approx(distortion.item(), rel=1e-3)


def test_examples_dots_and_pins(show):
    model, (_, test) = mlp_model(), vaelib.data.mnist()
    browser = show(vaelib.explore(model, points=test[:200], draw=True, interpolate=True))
    legend = browser.script("""return [...document.querySelectorAll(".legend li")]
        .map((e) => e.textContent);""")
    assert legend == list("0123456789")
    seen = []
    for name in ("A", "B"):
        click(browser, "Next example")
        seen.append(browser.script(STATE)["z"])
        click(browser, f"Pin {name} here")
    with torch.no_grad():
        assert seen[0] == pytest.approx(model.encode(test.x[:1]).mean[0].tolist(), abs=5e-3)
    browser.script("""const s = document.querySelector("[id$=way]");
        s.value = 0.5; s.dispatchEvent(new Event("input"));""")
    middle = [(a + b) / 2 for a, b in zip(*seen, strict=True)]
    assert browser.script(STATE)["z"] == pytest.approx(middle, abs=1e-3)


def test_contours_say_where_the_knob_is(show):
    wide, narrow = (Independent(Normal(torch.zeros(2), s), 1) for s in (1.0, 0.2))
    contours = {"wide": wide, "narrow": narrow}
    browser = show(vaelib.explore(mlp_model(), contours=contours))
    said = """return document.querySelector("[id$=value]").textContent;"""
    assert browser.script(said).endswith("; within the middle 50 % of wide")
    browser.script("""const menu = document.querySelector("select");
        menu.selectedIndex = 1; menu.dispatchEvent(new Event("change"));""")
    assert browser.script(said).endswith("; within the middle 50 % of narrow")
    drag(browser, ".pad", (0.5, 0.5), (0.75, 0.5))  # to z1 = 1.5, seven deviations away
    assert browser.script(said).endswith("; beyond all contours of narrow")


def test_a_replay_shows_each_picture(show):
    pictures = torch.stack([torch.full((30, 40), i / 3) for i in range(4)])
    browser = show(vaelib.explore(mlp_model(), replay=pictures))
    pixel = """const s = document.querySelector("[id$=replay]");
        s.value = arguments[0]; s.dispatchEvent(new Event("input"));
        const c = document.querySelector("canvas.replay");
        return [c.width, c.height, c.getContext("2d").getImageData(5, 5, 1, 1).data[0]];"""
    assert [browser.script(pixel, t) for t in (0, 3)] == [[40, 30, 255], [40, 30, 0]]


def test_two_widgets_of_a_page_do_not_meddle(show):
    model = mlp_model()
    browser = show(vaelib.explore(model), vaelib.explore(model))
    drag(browser, ".pad", (0.5, 0.5), (0.75, 0.25))
    assert browser.script(STATE, 0)["z"] == pytest.approx([1.5, 1.5], abs=0.05)
    assert browser.script(STATE, 1)["z"] == [0, 0]
    ids = browser.script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_sliders_move_a_figure_its_numbers_and_its_pictures(show):
    x = torch.linspace(-1, 1, 50)

    def view(height, width):
        return {
            "lines": {"curve": (x, height + width * x.square())},
            "dots": {"here": ([0.0], [height])},
            "numbers": {"height": -height, "width": width},
            "image": torch.full((1, 2, 3), height / 2),
        }

    browser = show(
        vaelib.sliders(
            view,
            title="A parabola",
            alt="A parabola.",
            x=("x", -1, 1),
            y=("y", 0, 4),
            colors={"curve": "q", "here": "p"},
            start=(0, 1),
            image="Ever darker",
            height=[0.0, 1.0, 2.0],
            width=[0.5, 1.0],
        )
    )
    ask = """const root = document.querySelector(".explorer");
        const text = (s) => [...root.querySelectorAll(s)].map((e) => e.textContent);
        const plot = root.querySelector("canvas.plot"), film = root.querySelector("canvas.film");
        const orange = plot.getContext("2d").getImageData(0, 0, plot.width, plot.height).data;
        let top = null; // of the curve, in shares of the canvas
        for (let i = 0; i < orange.length && top === null; i += 4)
          if (orange[i] === 213 && orange[i + 1] === 94) top = i / 4 / plot.width / plot.height;
        const widths = [...root.querySelectorAll(".bar")].map((e) => e.offsetWidth);
        return { widths, top, at: root.dataset.at,
          numbers: text("dd"), values: text(".control .value"),
          label: plot.getAttribute("aria-label"),
          pixel: film.getContext("2d").getImageData(0, 0, 1, 1).data[0] };"""
    first = browser.script(ask)
    assert first["at"] == "0 1" and first["numbers"] == ["0.00 nats", "1.00 nats"]
    assert first["pixel"] == 255 and first["label"] == "A parabola. Now height 0, width 1."
    browser.script("document.querySelector('.explorer input').focus()")
    press(browser, "ArrowRight")
    press(browser, "ArrowRight")
    second = browser.script(ask)
    assert second["at"] == "2 1" and second["numbers"] == ["\u22122.00 nats", "1.00 nats"]
    assert second["values"] == ["2", "1"] and second["pixel"] == 0
    assert first["top"] > second["top"] + 0.3  # the curve went up
    assert second["widths"][0] == pytest.approx(2 * second["widths"][1], abs=1)
    said = "return new Promise((r) => setTimeout(() => r(document.querySelector('[role=status]')"
    heard = browser.script(said + ".textContent), 900))")
    assert heard == "height \u22122.00 nats, width 1.00 nats"  # once, where the move has ended


def test_without_javascript_a_picture_and_a_sentence_stay():
    page = vaelib.explore(mlp_model()).to_html()
    image = page.split('src="data:image/png;base64,')[1].split('"')[0]
    assert base64.b64decode(image).startswith(b"\x89PNG")
    assert "Where JavaScript is on" in page and 'alt="A grid of images' in page
