"""The claims page, made from the records of the chapters' verdicts.

The directive `{verdicts}` shows the records of all chapters in `_toc.yml`, C-numbers first, each
with a figure of its chapter, and lists the claims of `claims.json` that no chapter has measured
yet; `{tally}` shows all claims at a glance.
"""

import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import book_pictures
from book_records import SURVEY, Records, order

VERDICTS = {  # and the class of its badge
    "holds": "verdict-holds",
    "holds under a condition": "verdict-condition",
    "undecided": "verdict-undecided",
    "does not hold": "verdict-fails",
}

SIGNS = {
    "holds": "\u2713",
    "holds under a condition": "\u25d0",
    "undecided": "?",
    "does not hold": "\u2717",
    "not measured yet": "\u00b7",
}


def number(value: float) -> str:
    short = re.sub(r"e([+-])0*", r"e\1", f"{value:.4g}").replace("e+", "e")
    return short.replace("-", "\N{MINUS SIGN}")


class Tally(Records):
    """`{tally}`: a tile for every claim, with the sign of its verdict."""

    def run(self) -> list[nodes.Node]:
        records = self.records()
        verdicts: dict[str, list[str]] = {claim: [] for claim in SURVEY}
        for _, record in records:
            verdicts.setdefault(record["claim"], []).append(record["verdict"])
        page = "" if self.env.docname == "claims" else "claims.html"
        tiles = []
        for claim, found in sorted(verdicts.items(), key=lambda item: order(item[0])):
            # Two chapters may judge two halves of a claim: the tile shows the stricter.
            worst = max(found, key=list(VERDICTS).index, default="not measured yet")
            sign, css = SIGNS[worst], VERDICTS.get(worst, "verdict-waiting")
            tiles.append(
                f'<li><a class="tile {css}" href="{page}#{claim.lower()}">{claim}'
                f'<span aria-hidden="true">{sign}</span>'
                f'<span class="unseen">: {worst}</span></a></li>'
            )
        counts = Counter(r["verdict"] for _, r in records)
        measured = {r["claim"] for _, r in records}
        own = len(measured - set(SURVEY))
        legend = [
            f'<li class="{VERDICTS[v]}"><b>{SIGNS[v]} {counts[v]}</b> {v}</li>' for v in VERDICTS
        ]
        text = (
            f"<p>{len(measured) - own} of the survey\u2019s {len(SURVEY)} claims are measured so "
            f"far, and {own} of the book\u2019s own, with {len(records)} verdicts:</p>"
            f'<ul class="tally-legend">{"".join(legend)}</ul>'
        )
        several = [c for c in sorted(verdicts, key=order) if len(set(verdicts[c])) > 1]
        if several:
            text += (
                f"<p>Where the parts of a claim came out differently ({', '.join(several)}), the "
                "tile shows the harsher verdict.</p>"
            )
        html = f'<div class="tally">{text}<ul class="tiles">{"".join(tiles)}</ul></div>'
        return [nodes.raw("", html, format="html")]


class Verdicts(Records):
    """`{verdicts}`: what was measured, and what is still to be."""

    def run(self) -> list[nodes.Node]:
        by_claim: dict[str, list[tuple[str, dict]]] = {}
        for docname, record in self.records(warn=True):
            by_claim.setdefault(record["claim"], []).append((docname, record))
        result: list[nodes.Node] = []
        for claim, pairs in by_claim.items():
            section = nodes.section("", nodes.title("", claim), classes=["claim"])
            self.mark(section, claim, pairs[0][1]["title"])
            section.extend(self.card(*pair) for pair in pairs)
            result.append(section)
        if waiting := [claim for claim in SURVEY if claim not in by_claim]:
            section = nodes.section("", nodes.title("", "Not measured yet"), ids=["waiting"])
            section += self.waiting(waiting)
            result.append(section)
        return result

    def card(self, docname: str, record: dict) -> nodes.Node:
        """One verdict: the claim, what was measured, a figure, and the chapter."""
        sign = SIGNS[record["verdict"]]
        badge = nodes.inline(
            "",
            f"{sign} {record['verdict']}",
            classes=["verdict-badge", VERDICTS[record["verdict"]]],
        )
        parts: list[nodes.Node] = [
            nodes.paragraph("", "", badge),
            nodes.paragraph("", sentence(record["title"]), classes=["claim-title"]),
        ]
        if record.get("condition"):
            parts.append(nodes.paragraph("", f"Condition: {record['condition']}."))
        parts.append(nodes.paragraph("", sentence(record["measured"])))
        small = []
        if record.get("interval"):
            low, high = map(number, record["interval"])
            small.append(f"Interval {low} to {high} {record.get('unit') or ''}".rstrip() + ".")
        if record.get("note"):
            small.append(record["note"])
        if small:
            parts.append(nodes.paragraph("", " ".join(small), classes=["verdict-small"]))
        seeds = record["seeds"]
        runs = "nothing random" if not seeds else f"{seeds} seed{'s' * (seeds > 1)}"
        source = [nodes.Text(f"{runs} \u00b7 chapter "), *self.chapter_link(docname)]
        parts.append(nodes.paragraph("", "", *source, classes=["claim-source"]))
        text = nodes.container("", *parts, classes=["claim-text"])
        path = Path(self.env.doc2path(docname))
        picture = book_pictures.picture(self.env.app.outdir, path, record["claim"])
        if not picture:
            return nodes.container("", text, classes=["claim-card"])
        figure = nodes.raw("", picture, format="html")
        return nodes.container("", text, figure, classes=["claim-card"])

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

    def waiting(self, claims: list[str]) -> nodes.Node:
        rows = []
        for claim in claims:
            node = nodes.paragraph("", "", nodes.strong("", claim))
            self.mark(node, claim, SURVEY[claim])
            rows.append([[node], [nodes.paragraph("", SURVEY[claim])]])
        return table(["Id", "Claim"], rows, [8, 92], "waiting-table")

    def mark(self, node: nodes.Element, claim: str, title: str) -> None:
        node["ids"].append(claim.lower())
        node["anchor"] = f"{claim}: {title}"
        node.line = self.lineno


def sentence(text: str) -> str:
    """With a capital letter and a full stop, as the chapters' records have not."""
    return text[0].upper() + text[1:] + "." * (not text.endswith("."))


def table(
    head: list[str], rows: list[list[list[nodes.Node]]], widths: list[int], css_class: str
) -> nodes.table:
    """A table of docutils nodes: a cell is a list of nodes."""

    def row(cells: list[list[nodes.Node]]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells))

    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec("", colwidth=width) for width in widths]
    group += nodes.thead("", row([[nodes.paragraph("", text)] for text in head]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=[css_class])


def setup(app: Sphinx) -> dict:
    app.add_directive("verdicts", Verdicts)
    app.add_directive("tally", Tally)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
