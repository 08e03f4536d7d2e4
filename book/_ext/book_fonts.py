"""The fonts of the pages, inside a style sheet: no text jumps, and no request is made.

Serif for reading, sans for tables, captions and figures, mono for code: `tools/fonts.py` cut them
and says why these. The signs that the three lack are matplotlib's DejaVu Sans, on pages as in
figures.
"""

import base64
import io
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

import vaelib
from book_static import write_static

PAGES, FIGURES = Path(__file__).with_name("fonts"), Path(vaelib.__file__).with_name("fonts")
SANS, SERIF, MONO = "Measured Sans", "Measured Serif", "Measured Mono"
FONTS = {  # family, weight, style: the file
    (SERIF, 400, "normal"): PAGES / "MeasuredSerif-Regular.ttf",
    (SERIF, 400, "italic"): PAGES / "MeasuredSerif-Italic.ttf",
    (SERIF, 700, "normal"): PAGES / "MeasuredSerif-Bold.ttf",
    (SANS, 400, "normal"): FIGURES / "MeasuredSans-Regular.ttf",
    (SANS, 700, "normal"): FIGURES / "MeasuredSans-Bold.ttf",
    (MONO, 400, "normal"): PAGES / "MeasuredMono-Regular.ttf",
}
SIGNS = [ord(sign) for sign in "∇∈≡‖∥∝✓✗◐○●▲▼▶◀↔⁺⁻⁼₊₋₌"]
ICONS = {  # of Font Awesome, as the theme's pages use them
    "angle-left": 0xF104,
    "angle-right": 0xF105,
    "bars": 0xF0C9,
    "circle-half-stroke": 0xF042,
    "download": 0xF019,
    "file": 0xF15B,
    "file-pdf": 0xF1C1,
    "list": 0xF03A,
    "magnifying-glass": 0xF002,
    "moon": 0xF186,
    "outdent": 0xF03B,
    "sun": 0xF185,
}

# A browser lays the text out before it has read even these fonts, in a face of the system's, and
# then anew: lines move. So the page is shown when they are there, which takes milliseconds.
WAIT = """{
  const root = document.documentElement, ours = [...document.fonts].filter((font) => {
    return font.family.includes("Measured");
  });
  root.classList.add("setting");
  Promise.all(ours.map((font) => font.load())).finally(() => root.classList.remove("setting"));
}"""


def open_font(path: Traversable) -> TTFont:
    return TTFont(io.BytesIO(path.read_bytes()))


def rule(font: TTFont, family: str, weight: int, style: str = "normal") -> str:
    """A font as a rule of a style sheet that holds it."""
    font.flavor, font.recalcTimestamp = "woff", False
    buffer = io.BytesIO()
    font.save(buffer)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: {style}; '
        f"src: url(data:font/woff;base64,{data}); }}"
    )


def cut(path: Traversable, letters: Iterable[int]) -> TTFont:
    """A font cut down to some letters."""
    options = subset.Options(hinting=False, layout_features=["kern"])
    options.drop_tables += ["FFTM"]  # the font editor's own time stamp
    font = open_font(path)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=letters)
    cutter.subset(font)
    return font


def licence(path: Traversable) -> str:
    return path.read_text("utf-8").replace("*/", "* /")


def font_css() -> str:
    """The style sheet that holds the fonts. It comes after the theme's, so its icons win."""
    dejavu = files("matplotlib") / "mpl-data" / "fonts" / "ttf"
    theme = files("pydata_sphinx_theme") / "theme" / "pydata_sphinx_theme" / "static"
    icons = theme / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf"
    copyrights = [
        licence(folder / f"LICENSE-{name}.txt").split("\n\n")[0]
        for name, folder in {"Serif": PAGES, "Sans": FIGURES, "Mono": PAGES}.items()
    ]
    rules = [
        "html.setting body { visibility: hidden; }",
        "/* Measured Serif, Sans and Mono: cut from fonts that are\n\n",
        "\n".join(copyrights),
        licence(PAGES / "LICENSE-Serif.txt").partition("\n\n")[2] + "*/",
        *(rule(open_font(path), *key) for key, path in FONTS.items()),
        f"/* DejaVu fonts, cut down to a few signs.\n\n{licence(dejavu / 'LICENSE_DEJAVU')}*/",
        rule(cut(dejavu / "DejaVuSans.ttf", SIGNS), "DejaVu Sans", 400),
        "/* Font Awesome Free 6, https://fontawesome.com, icons CC BY 4.0, font SIL OFL 1.1. */",
        rule(cut(icons, ICONS.values()), "Font Awesome 6 Free", 900),
    ]
    return "\n".join(rules) + "\n"


def write_fonts(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    write_static(app, "fonts.css", font_css())
    app.add_css_file("fonts.css", priority=150)
    app.add_js_file(None, body=WAIT, priority=100)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_fonts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
