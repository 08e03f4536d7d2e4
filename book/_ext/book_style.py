"""The look of the pages: one style sheet, joined from parts in an order that matters."""

from pathlib import Path

from sphinx.application import Sphinx

from book_static import write_static

PARTS = ["page", "cells", "claims", "chapters", "api", "narrow", "print"]  # the later wins


def style() -> str:
    folder = Path(__file__).with_name("css")
    return "\n".join((folder / f"{part}.css").read_text("utf-8") for part in PARTS)


def write_style(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    write_static(app, "measured.css", style())
    app.add_css_file("measured.css", priority=800)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
