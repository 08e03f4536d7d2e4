"""What a page says of itself to those who link to it: a description, and a picture where the
site's address is known, since such pictures need whole addresses.
"""

import html
import re

from docutils import nodes
from sphinx.application import Sphinx

import notebooks


def description(doctree: nodes.document | None) -> str:
    """The first paragraph of a page, up to the last sentence's end before 200 characters."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split()).replace(r"\mid", "|")
        text = re.sub(r"\\([A-Za-z]+)", r"\1", text)  # \log is log where nothing sets formulas
        if len(text) > 40:
            whole = re.match(r"(.{40,200}[.?!])(\s|$)", text)
            return whole[1] if whole else text[:199].rsplit(" ", 1)[0] + "…"
    return "Variational autoencoders, explained and measured."


def describe(app, pagename, templatename, context, doctree) -> None:
    """Describe each page to those who link to it."""
    plain = re.sub(r"<[^>]+>", "", str(context.get("title") or "The Measured VAE"))
    tags = {
        "og:site_name": "The Measured VAE",
        "og:type": "article",
        "og:title": html.unescape(plain),
        "og:description": description(doctree),
    }
    if site := notebooks.address(of="Documentation").rstrip("/"):
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


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
