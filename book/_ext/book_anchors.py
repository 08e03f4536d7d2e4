"""Links from Markdown to what our own directives make: `[C1](claims.md#c1)`.

MyST knows only headings that it has read itself. A node with an attribute `anchor` (the text
that an empty link shows) joins them here, so that a link to a missing one is still a warning.
"""

from docutils import nodes
from sphinx.application import Sphinx


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for node in doctree.findall(lambda n: isinstance(n, nodes.Element) and "anchor" in n):
        for name in node["ids"]:
            slugs[name] = (node.line, name, node["anchor"])


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", add_anchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
