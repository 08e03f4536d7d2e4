"""Live widgets in the built pages: one copy of script, style and weights a page, and a directive.

A chapter's stored output holds a widget whole, so that it also lives outside the book. Here its
script and style give way to today's, two files that all pages share.

    ```{explorer} pocket_vae
    ```

in a page of text puts an explorer of data/weights/pocket_vae.safetensors there.
"""

import functools
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util import logging

import vaelib
from book_static import write_static
from vaelib.widget import script

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]

# What vaelib.widget.Widget.to_html writes.
STYLE = re.compile(r'<style>[^<]*</style>(?=<div class="explorer")')
WEIGHTS = re.compile(r'<script type="text/plain" data-weights="(\w+)">[^<]*</script>')
SCRIPT = re.compile(
    r'<script type="module">(?:(?!</script>).)*\n' + r"start\((.*?)\);</script>", re.S
)


def shared_script() -> str:
    """The widgets' module as a plain script: browsers load no module from a file on disk."""
    source = re.sub(r"^export (default .*|(?=function))", "", script(), flags=re.M)
    return f"(() => {{\n{source}\nglobalThis.startWidget = start;\n}})();\n"


@functools.cache
def shared_files() -> dict[str, str]:
    return {
        "widgets.js": shared_script(),
        "explore.css": (files("vaelib") / "explore.css").read_text("utf-8"),
    }


def share(html: str, static: str) -> str:
    """Let the widgets of one page share script, style and weights; static: the way to _static."""
    if 'class="explorer" id=' not in html:
        return html
    html = STYLE.sub("", html)
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        new = found[1] not in seen
        seen.add(found[1])
        return found[0] if new else ""

    html = WEIGHTS.sub(once, html)
    # Started where it stands, before it is painted: nothing below it jumps.
    html = SCRIPT.sub(r"<script>startWidget(\1);</script>", html)
    if '<script type="module">' in html:
        logger.warning("a widget's own script is left: to_html and book_widgets.py do not agree")
    mark = {name: hashlib.sha256(t.encode()).hexdigest()[:8] for name, t in shared_files().items()}
    head = (
        f'<link rel="stylesheet" href="{static}/explore.css?v={mark["explore.css"]}" />\n'
        f'<script src="{static}/widgets.js?v={mark["widgets.js"]}"></script>\n</head>'
    )
    return html.replace("</head>", head, 1)


class ExplorerDirective(Directive):
    """An explorer of a model in data/weights, with test digits as dots."""

    required_arguments = 1
    option_spec: ClassVar = {"at": str}  # where it starts, as in `:at: 0.5 -1`

    def run(self) -> list[nodes.Node]:
        path = ROOT / "data" / "weights" / f"{self.arguments[0]}.safetensors"
        if not path.is_file():
            raise self.error(f"There is no {path.relative_to(ROOT)}; `make weights` trains them.")
        _, test = vaelib.data.mnist()
        widget = vaelib.explore(vaelib.load(path), points=test[:400])
        if "at" in self.options:
            widget.z = [float(v) for v in self.options["at"].split()]
        return [nodes.raw("", widget.to_html(), format="html")]


def prepare(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    for name, text in shared_files().items():
        write_static(app, name, text)

    render = app.builder.templates.render

    def render_and_share(template: str, context: dict) -> str:
        static = "../" * context.get("pagename", "").count("/") + "_static"
        return share(render(template, context), static)

    app.builder.templates.render = render_and_share


def setup(app: Sphinx) -> dict:
    app.add_directive("explorer", ExplorerDirective)
    app.connect("builder-inited", prepare)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
