"""How a chapter opens, on its page and on the pages that list it.

Below its title stand a picture that it makes, its claims and verdicts, the time it takes, and
links to its notebook; Colab's only where pyproject.toml has the repository's address. The
directive `{chapters}` lists a part's chapters as cards.
"""

import html
import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import book_claims
import book_pictures
import book_records
import notebooks

WORDS_A_MINUTE = 170


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
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", notebooks.address())
    if not found:
        return None
    where = path.relative_to(notebooks.ROOT).as_posix()
    return f"https://colab.research.google.com/github/{found[1]}/blob/main/{where}"


def claims(notebook: nbformat.NotebookNode, up: str) -> str:
    """The chapter's claims, each with its verdict, as links to the claims page."""
    items = []
    for _, record in notebooks.verdicts(notebook):
        claim, verdict = record["claim"], record["verdict"]
        items.append(
            f'<a class="chip {book_claims.VERDICTS[verdict]}" href="{up}claims.html'
            f'#{claim.lower()}"><b>{claim}</b> {verdict}</a>'
        )
    return " ".join(items)


def opener(outdir: str, path: Path, docname: str) -> str:
    """What stands below a chapter's title."""
    notebook, up = notebooks.read(path), "../" * docname.count("/")
    links = [
        f'<a class="button" href="{up}_sources/{docname}.ipynb" download>Download the notebook</a>'
    ]
    if address := colab(path):
        links.insert(0, f'<a class="button" href="{address}">Open in Colab</a>')
    return (
        f'<div class="opener">{book_pictures.banner(outdir, path, up)}<div>'
        f"<p><b>Chapter {path.stem[:2]}</b> · {minutes_to_read(notebook)} minutes to read · "
        f"{minutes_to_run(notebook)} to run on two CPU cores</p>"
        f'<p class="chips">{claims(notebook, up)}</p><p class="buttons">{" ".join(links)}</p>'
        "</div></div>"
    )


class Chapters(SphinxDirective):
    """`{chapters}`: a card for each chapter of a part, with its picture, question and verdicts."""

    required_arguments = 1  # the part's folder

    def run(self) -> list[nodes.Node]:
        cards = []
        for docname, path in book_records.chapter_pages(self.env):
            if docname.split("/")[0] != self.arguments[0]:
                continue
            notebook = notebooks.read(path)
            title = html.escape(notebook.cells[0].source.splitlines()[0].removeprefix("# "))
            picture = book_pictures.banner(self.env.app.outdir, path)
            cards.append(
                f'<li class="card">{picture}<div>'
                f'<p><b>{path.stem[:2]}</b> <a href="{docname}.html">{title}</a></p>'
                f'<p class="chips">{claims(notebook, "")}</p></div></li>'
            )
        return [nodes.raw("", f'<ul class="cards">{"".join(cards)}</ul>', format="html")]


def add_opener(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None and (path := Path(app.env.doc2path(pagename))).suffix == ".ipynb":
        head, end, rest = context["body"].partition("</h1>")
        context["body"] = head + end + opener(app.outdir, path, pagename) + rest


def setup(app: Sphinx) -> dict:
    app.add_directive("chapters", Chapters)
    app.connect("html-page-context", add_opener)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
