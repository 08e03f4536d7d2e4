"""Figures: one look, and drawings that show what they were given."""

from pathlib import Path

import matplotlib as mpl
import pytest
import torch

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

from vaelib import plots


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_images_lie_in_rows(ax):
    x = torch.arange(12, dtype=torch.float32).reshape(12, 1, 1, 1) / 11
    plots.image_grid(x.expand(12, 1, 14, 14), ax, columns=5)
    page = ax.images[0].get_array()
    assert page.shape == (3 * 15 - 1, 5 * 15 - 1)
    assert page[0, 15] == pytest.approx(1 / 11)  # the second stands right of the first
    assert page[15, 0] == pytest.approx(5 / 11)  # the sixth below it
    assert page[-1, -1] == 0  # nothing where the last row ends early


def test_colour_images_keep_their_channels(ax):
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    x[:, 0] = 255
    plots.image_grid(x, ax)
    assert ax.images[0].get_array()[0, 0].tolist() == [255, 0, 0]


def test_an_ellipse_follows_its_covariance(ax):
    cov = torch.tensor([[2.0, 1.5], [1.5, 2.0]])
    plots.ellipse(torch.tensor([1.0, -1.0]), cov, ax, num_sigmas=1)
    shape = ax.patches[0]
    assert shape.width == pytest.approx(2 * 3.5**0.5)
    assert shape.height == pytest.approx(2 * 0.5**0.5)
    assert shape.angle % 180 == pytest.approx(45)


def test_the_exact_value_is_dashed_grey(ax):
    plots.exact_line(2.0, ax)
    assert ax.lines[0].get_color() == plots.COLORS["exact"]
    assert ax.lines[0].get_linestyle() == "--"


def test_the_look_is_set_for_every_later_figure():
    with mpl.rc_context():
        plots.use_style()
        assert mpl.rcParams["figure.figsize"][0] == plots.WIDTH
        assert mpl.rcParams["figure.facecolor"] == "white"


def test_figures_bring_their_own_font_and_matplotlib_has_nothing_to_say(tmp_path, caplog):
    with mpl.rc_context():
        plots.use_style()
        figure, ax = plt.subplots()
        ax.set(
            title="Bold: σ², K ≤ 64 ✓ ∇", xlabel=r"beside a formula: μ, $\nabla_\phi \mathcal{L}$"
        )
        ax.set_yscale("log")
        for form in ("png", "svg", "pdf"):
            figure.savefig(tmp_path / f"figure.{form}")
        plt.close(figure)
        fonts = {font_manager.findfont(FontProperties(weight=w)) for w in ("normal", "bold")}
    assert {Path(font).name for font in fonts} == {
        "MeasuredSans-Regular.ttf",
        "MeasuredSans-Bold.ttf",
    }
    assert not caplog.records


def test_the_figures_font_has_the_letters_of_text_and_its_licence():
    for file in ("Regular", "Bold"):
        path = Path(plots.__file__).parent / "fonts" / f"MeasuredSans-{file}.ttf"
        letters = FT2Font(path).get_charmap()
        assert all(ord(letter) in letters for letter in "äéøŁ αβθλμσφψ ≤≥≈≠±×−∞∂∑∫√ “’–… →")
    assert "SIL OPEN FONT LICENSE" in path.with_name("LICENSE-Sans.txt").read_text("utf-8")
