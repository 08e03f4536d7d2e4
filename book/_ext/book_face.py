"""The face of the book: its font, what stands at the head of a chapter, cards, and descriptions.

- One family for pages, widgets and figures: matplotlib's DejaVu Sans, cut down to the letters in
  use, inside the style sheet, so that no text jumps and no request is made.
- A chapter opens with a picture that it makes, its claims and verdicts, the time it takes, and
  links to its notebook; Colab's only where pyproject.toml has the repository's address.
- `{chapters}` lists the chapters as cards.
- Pages have a description for links to them; a picture for those where the site's address is
  known, since such pictures need whole addresses.
"""

import base64
import html
import io
import re
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
from docutils import nodes
from fontTools import subset
from matplotlib.figure import Figure
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from vaelib.plots import COLORS, STYLE

import book_claims
import book_pictures
import chapters

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
WORDS_A_MINUTE = 170


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


# ---- the head of a chapter --------------------------------------------------------------------


def minutes_to_read(notebook: nbformat.NotebookNode) -> int:
    """To five minutes, by the words of text and of the code that is not folded."""
    words = sum(
        len(cell.source.split())
        for cell in notebook.cells
        if "hide-input" not in cell.metadata.get("tags", [])
    )
    return max(5, 5 * round(words / WORDS_A_MINUTE / 5))


def minutes_to_run(notebook: nbformat.NotebookNode) -> int:
    return max(1, round(notebook.metadata.vaelib["seconds"] / 60))


def colab(path: Path) -> str | None:
    """The address that opens a chapter in Colab, where the repository is on GitHub."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", chapters.address())
    if not found:
        return None
    where = path.relative_to(chapters.ROOT).as_posix()
    return f"https://colab.research.google.com/github/{found[1]}/blob/main/{where}"


def claims(path: Path, up: str) -> str:
    """The chapter's claims, each with its verdict, as links to the claims page."""
    items = []
    for record in book_claims.read_records(path):
        claim, verdict = record["claim"], record["verdict"]
        items.append(
            f'<a class="chip {book_claims.VERDICTS[verdict]}" href="{up}claims.html'
            f'#{claim.lower()}"><b>{claim}</b> {verdict}</a>'
        )
    return " ".join(items)


def opener(outdir: str, path: Path, docname: str) -> str:
    """What stands below a chapter's title."""
    notebook, up = chapters.read(path), "../" * docname.count("/")
    links = [
        f'<a class="button" href="{up}_sources/{docname}.ipynb" download>Download the notebook</a>'
    ]
    if address := colab(path):
        links.insert(0, f'<a class="button" href="{address}">Open in Colab</a>')
    return (
        f'<div class="opener">{book_pictures.banner(outdir, path, up)}<div>'
        f"<p><b>Chapter {path.stem[:2]}</b> · {minutes_to_read(notebook)} minutes to read · "
        f"{minutes_to_run(notebook)} to run on two CPU cores</p>"
        f'<p class="chips">{claims(path, up)}</p><p class="buttons">{" ".join(links)}</p>'
        "</div></div>"
    )


class Chapters(SphinxDirective):
    """`{chapters}`: a card for each chapter of a part, with its picture, question and verdicts."""

    required_arguments = 1  # the part's folder

    def run(self) -> list[nodes.Node]:
        cards = []
        for docname, path in book_claims.chapter_pages(self.env):
            if docname.split("/")[0] != self.arguments[0]:
                continue
            notebook = chapters.read(path)
            title = html.escape(notebook.cells[0].source.splitlines()[0].removeprefix("# "))
            picture = book_pictures.banner(self.env.app.outdir, path)
            cards.append(
                f'<li class="card">{picture}<div>'
                f'<p><b>{path.stem[:2]}</b> <a href="{docname}.html">{title}</a></p>'
                f'<p class="chips">{claims(path, "")}</p></div></li>'
            )
        return [nodes.raw("", f'<ul class="cards">{"".join(cards)}</ul>', format="html")]


# ---- for links to a page ----------------------------------------------------------------------


def description(doctree: nodes.document | None) -> str:
    """The first paragraph of a page, up to the last sentence's end before 200 characters."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split()).replace(r"\mid", "|")
        text = re.sub(r"\\([A-Za-z]+)", r"\1", text)  # \log is log where nothing sets formulas
        if len(text) > 40:
            whole = re.match(r"(.{40,200}[.?!])(\s|$)", text)
            return whole[1] if whole else text[:199].rsplit(" ", 1)[0] + "…"
    return "Variational autoencoders, explained and measured."


def add_face(app, pagename, templatename, context, doctree) -> None:
    """Describe each page, and open each chapter."""
    plain = re.sub(r"<[^>]+>", "", str(context.get("title") or "The Measured VAE"))
    tags = {
        "og:site_name": "The Measured VAE",
        "og:type": "article",
        "og:title": html.unescape(plain),
        "og:description": description(doctree),
    }
    if site := chapters.address(of="Documentation").rstrip("/"):
        tags |= {
            "og:url": f"{site}/{pagename}.html",
            "og:image": f"{site}/_static/card.png",
            "og:image:alt": "The Measured VAE: two overlapping bell curves",
        }
    lines = [f'<meta name="description" content="{html.escape(tags["og:description"])}" />']
    lines += [f'<meta property="{k}" content="{html.escape(v)}" />' for k, v in tags.items()]
    if site:
        lines.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines) + "\n"

    if doctree is not None and (path := Path(app.env.doc2path(pagename))).suffix == ".ipynb":
        head, end, rest = context["body"].partition("</h1>")
        context["body"] = head + end + opener(app.outdir, path, pagename) + rest


def write_files(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    (static / "fonts.css").write_text(font_css(), encoding="utf-8")
    app.add_css_file("fonts.css", priority=150)
    (static / "card.png").write_bytes(card())


def slim(app: Sphinx, error: Exception | None) -> None:
    """Figures as lossless WebP, about half of matplotlib's PNG, pixel by pixel the same."""
    if error or app.builder.format != "html":
        return
    outdir = Path(app.outdir)
    for png in sorted((outdir / "_images").glob("*.png")):
        webp = png.with_suffix(".webp")
        if not webp.exists():  # the name is that of the content
            with Image.open(png) as image:
                image.save(webp, "WEBP", lossless=True, quality=90, method=5)
        png.unlink()
    for page in outdir.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        new = re.sub(r"(_images/[0-9a-f]{64})\.png", r"\1.webp", html)
        if new != html:
            page.write_text(new, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", slim)
    app.add_directive("chapters", Chapters)
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", add_face)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
