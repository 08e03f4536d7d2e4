"""The records of the chapters' verdicts, read from their stored outputs.

What a record must hold is `vaelib.Verdict`'s to say; a malformed one is a warning that names the
notebook and the field. `claims.json` lists the survey's claims.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import notebooks
from vaelib import Verdict

logger = logging.getLogger(__name__)

SURVEY: dict[str, str] = json.loads(
    Path(__file__).with_name("claims.json").read_text(encoding="utf-8")
)


def problem(record: dict) -> str:
    """What is wrong with a record, in a sentence; empty where nothing is."""
    try:
        verdict = Verdict(**record)
    except (TypeError, ValueError) as error:
        return str(error)
    if verdict.claim[0] == "C" and verdict.claim not in SURVEY:
        return f"claim is {verdict.claim!r}; expected one of claims.json."
    if verdict.budget != "full":
        return f"budget is {verdict.budget!r}; expected 'full', since no other run judges."
    return ""


def read_records(path: Path) -> list[dict]:
    """The verdict records among a notebook's stored outputs, in their order."""
    return [record for _, record in notebooks.verdicts(notebooks.read(path))]


def order(claim: str) -> tuple[bool, int]:
    """Sort key: the survey's claims by number, then the book's own."""
    return claim[0] != "C", int(claim[1:])


def chapter_pages(env: BuildEnvironment) -> list[tuple[str, Path]]:
    """(page, notebook) of each chapter; the page that asks is made again where one changes."""
    env.note_reread()
    # By number: the part's folder says nothing about order.
    names = sorted(env.found_docs, key=lambda name: name.rsplit("/", 1)[-1])
    pages = [(name, Path(env.doc2path(name))) for name in names]
    pages = [(name, path) for name, path in pages if path.suffix == ".ipynb"]
    for _, path in pages:
        env.note_dependency(str(path))
    return pages


class Records(SphinxDirective):
    """What directives share: the records of all chapters, and links to them."""

    def records(self, warn: bool = False) -> list[tuple[str, dict]]:
        """(page, record), the survey's claims by number, then the book's own."""
        records = []
        for docname, path in chapter_pages(self.env):
            for record in read_records(path):
                if not (fault := problem(record)):
                    records.append((docname, record))
                elif warn:
                    logger.warning("%s.ipynb: verdict record: %s", docname, fault)
        return sorted(records, key=lambda pair: order(pair[1]["claim"]))  # stable

    def chapter_link(self, docname: str) -> list[nodes.Node]:
        """A chapter's number and a link; Sphinx fills in the title once it has read it."""
        digits = re.match(r"\d+", docname.rsplit("/", 1)[-1])
        link = addnodes.pending_xref(
            "",
            nodes.inline("", docname),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{docname}",
            refdoc=self.env.docname,
            refexplicit=False,
            refwarn=True,
        )
        return [nodes.Text(f"{digits[0]} "), link] if digits else [link]
