"""The fonts of the pages, cut down to the letters in use, inside a style sheet.

One family for pages, widgets and figures: matplotlib's DejaVu Sans. No text jumps, and no request
is made.
"""

import base64
import io
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fontTools import subset
from sphinx.application import Sphinx

FONTS = {  # family, weight: the file in matplotlib
    ("DejaVu Sans", 400): "DejaVuSans.ttf",
    ("DejaVu Sans", 700): "DejaVuSans-Bold.ttf",
    ("DejaVu Sans Mono", 400): "DejaVuSansMono.ttf",
}
LETTERS = [
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),  # Latin
    *range(0x391, 0x3CA),  # Greek
    *range(0x2010, 0x2027),  # dashes, quotes
    *range(0x2070, 0x2090),  # raised and lowered digits
    *range(0x2190, 0x2195),  # arrows
    *(ord(sign) for sign in "−∂∇∈∏∑√∞∫≈≠≡≤≥‖∥∝±×÷·✓✗◐○●▲▼▶◀"),
]
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


def face(path: Traversable, family: str, weight: int, letters: Iterable[int]) -> str:
    """A font cut down to some letters, as a rule that holds it."""
    options = subset.Options(flavor="woff", hinting=False, layout_features=["kern"])
    options.drop_tables += ["FFTM"]  # the font editor's own time stamp
    buffer = io.BytesIO()
    with subset.load_font(str(path), options) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=letters)
        cutter.subset(font)
        subset.save_font(font, buffer, options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; '
        f"src: url(data:font/woff;base64,{data}); }}"
    )


def font_css() -> str:
    """The style sheet that holds the fonts. It comes after the theme's, so its icons win."""
    folder = files("matplotlib") / "mpl-data" / "fonts" / "ttf"
    license_ = (folder / "LICENSE_DEJAVU").read_text("utf-8").replace("*/", "* /")
    theme = files("pydata_sphinx_theme") / "theme" / "pydata_sphinx_theme" / "static"
    icons = theme / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf"
    rules = [
        f"/* DejaVu fonts, cut down to the letters in use.\n\n{license_}*/",
        *(face(folder / FONTS[key], *key, LETTERS) for key in FONTS),
        "/* Font Awesome Free 6, https://fontawesome.com, icons CC BY 4.0, font SIL OFL 1.1. */",
        face(icons, "Font Awesome 6 Free", 900, ICONS.values()),
    ]
    return "\n".join(rules) + "\n"


def write_fonts(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    (static / "fonts.css").write_text(font_css(), encoding="utf-8")
    app.add_css_file("fonts.css", priority=150)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_fonts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
