"""Pages that ask for nothing outside themselves, and repairs of the theme's accessibility.

MathJax is copied out of an installed Python package. Any other script or style sheet with an
address outside the book is a warning, and the book is built with warnings as errors.
"""

import re
import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)

MATHJAX_PACKAGE = "sphinx-mathjax-offline"
MATHJAX_FILE = "tex-svg-full.js"  # the full one: a macro loaded on demand would be a request

# What the markup of pydata-sphinx-theme 0.17.1, sphinx-book-theme 1.3.0 and myst-nb 1.4.0 gets
# wrong. A label that differs from the visible text confuses voice control; a sidebar without a
# role is content outside every landmark.
REPAIRS = [
    (re.compile(r'(<i class="theme-switch [^>]*?)\s+title="[^"]*"'), r"\1"),
    (re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="Search"'), r"\1"),
    (
        re.compile(r'<div id="pst-primary-sidebar" class="'),
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class="',
    ),
    # Until the theme's own script runs, "auto" is neither light nor dark: wrong colours, two logos.
    (
        re.compile(r'localStorage\.getItem\("theme"\) \|\| "auto"'),
        'localStorage.getItem("theme") || '
        '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")',
    ),
    # Half a megabyte that turns each icon into a picture once the page stands, and moves it: the
    # theme's style sheet draws them too, from the letters in fonts.css.
    (re.compile(r'<script defer src="[^"]*/scripts/fontawesome\.js[^"]*"></script>\s*'), ""),
]
REPAIRS_WHERE_PRESENT = [
    # No line begins with the full stop after a formula.
    (
        re.compile(r'(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:!?)]+)'),
        r'<span class="together">\1\2</span>',
    ),
    # Sphinx sets a long signature as a list of definitions that has no terms, within a term.
    (
        re.compile(r'(?<=<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>\s*', re.S),
        lambda lines: re.sub(r"<(/?)dd>", r"<\1span>", lines[1]),
    ),
]


def find_mathjax() -> Path:
    """The one file of MathJax that the pages need, where pip has put it."""
    try:
        found = [f for f in files(MATHJAX_PACKAGE) or [] if f.name == MATHJAX_FILE]
    except PackageNotFoundError:
        found = []
    if not found or not Path(found[0].locate()).is_file():
        raise ExtensionError(
            f"{MATHJAX_FILE} was not found: formulas need the Python package {MATHJAX_PACKAGE}. "
            f"Install it with `pip install {MATHJAX_PACKAGE}==0.0.2` and build again."
        )
    return Path(found[0].locate())


def repair(html: str, page: str) -> str:
    """Mend one finished page; warn where the theme no longer has what is to be mended."""
    for pattern, replacement in REPAIRS:
        html, count = pattern.subn(replacement, html)
        if not count:
            logger.warning(
                "the theme's markup has changed: %s is not on page %s, so look at book_offline.py",
                pattern.pattern,
                page,
            )
    for pattern, replacement in REPAIRS_WHERE_PRESENT:
        html = pattern.sub(replacement, html)
    return html


def prepare(app: Sphinx) -> None:
    """Copy MathJax, and let every page that the theme renders pass through `repair`."""
    if app.builder.format != "html":
        return
    # Not under book/_static: Jupyter Book would put every script there on every page.
    target = Path(app.outdir, "_static", "mathjax", MATHJAX_FILE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(find_mathjax(), target)

    render = app.builder.templates.render

    def render_and_repair(template: str, context: dict) -> str:
        html = render(template, context)
        return repair(html, context["pagename"]) if 'id="pst-primary-sidebar"' in html else html

    app.builder.templates.render = render_and_repair


def refuse_outside_files(app, pagename, templatename, context, doctree) -> None:
    """Warn of scripts and style sheets that a browser would fetch from elsewhere."""
    for kind in ("script_files", "css_files"):
        for file in context.get(kind) or []:
            address = str(getattr(file, "filename", file) or "")
            if re.match(r"(https?:)?//", address):
                logger.warning("%s asks for %s: the book has to work offline", pagename, address)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", refuse_outside_files, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
