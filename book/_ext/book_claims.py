"""The claims page, made from the records of the chapters' verdicts.

The directive `{verdicts}` shows the records of all chapters in `_toc.yml`, C-numbers first, each
with a figure of its chapter, and lists the claims of `claims.json` that no chapter has measured
yet; `{tally}` shows all claims at a glance.
"""

import json
import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import book_pictures
from book_records import SURVEY, Records, chapter_pages, order

VERDICTS = {  # and the class of its badge
    "holds": "verdict-holds",
    "holds under a condition": "verdict-condition",
    "undecided": "verdict-undecided",
    "does not hold": "verdict-fails",
}

PLAN: dict[str, dict] = json.loads(Path(__file__).with_name("plan.json").read_text("utf-8"))
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
            title = SURVEY.get(claim) or pairs[0][1]["title"]
            section = nodes.section("", nodes.title("", claim), classes=["claim"])
            self.mark(section, claim, title)
            section += nodes.paragraph("", sentence(title), classes=["claim-title"])
            # Two chapters may judge two halves of a claim: each names its own.
            titles = [record["title"] for _, record in pairs]
            parts = titles if len(set(titles)) > 1 else [""] * len(titles)
            cards = [self.card(*pair, part) for pair, part in zip(pairs, parts)]
            section += nodes.container("", *cards, classes=["claim-cards", f"cards-{len(cards)}"])
            if chapters := self.to_come(claim):
                text = f"More is to come in {' and in '.join(chapters)}."
                section += nodes.paragraph("", text, classes=["claim-source"])
            result.append(section)
        if waiting := [claim for claim in SURVEY if claim not in by_claim]:
            section = nodes.section("", nodes.title("", "Not measured yet"), ids=["waiting"])
            section += self.waiting(waiting)
            result.append(section)
        return result

    def card(self, docname: str, record: dict, part: str = "") -> nodes.Node:
        """One verdict on a claim, or on a part of it: where from, what was measured, a figure."""
        verdict, seeds = record["verdict"], record["seeds"]
        css = ["verdict-badge", VERDICTS[verdict]]
        badge = nodes.inline("", f"{SIGNS[verdict]} {verdict}", classes=css)
        runs = f", {seeds} seed{'s' * (seeds > 1)}" if seeds else ", nothing random"
        source = [nodes.Text(" Chapter "), *self.chapter_link(docname), nodes.Text(runs)]
        path = Path(self.env.doc2path(docname))
        picture = book_pictures.picture(self.env.app.outdir, path, record["claim"])
        parts: list[nodes.Node] = [
            nodes.paragraph("", "", badge, *source, classes=["claim-source"]),
            nodes.raw("", picture or "", format="html"),
        ]
        if part:
            parts.append(nodes.paragraph("", "", nodes.strong("", sentence(part))))
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
        return nodes.container("", *parts, classes=["claim-card"])

    def to_come(self, claim: str) -> list[str]:
        """The chapters that are to measure a claim and are not written yet."""
        written = {path.stem[:2] for _, path in chapter_pages(self.env)}
        numbers = [n for n in PLAN["claims"].get(claim, ()) if n not in written]
        return [f"chapter {n}, {PLAN['chapters'][n]}" for n in numbers]

    def waiting(self, claims: list[str]) -> nodes.Node:
        rows = []
        for claim in claims:
            node = nodes.paragraph("", "", nodes.strong("", claim))
            self.mark(node, claim, SURVEY[claim])
            chapters = [
                nodes.paragraph("", f"{number} {PLAN['chapters'][number]}")
                for number in PLAN["claims"][claim]
            ]
            rows.append([[node], [nodes.paragraph("", SURVEY[claim])], chapters])
        return table(
            ["Id", "Claim", "Will be measured in chapter"], rows, [8, 52, 40], "waiting-table"
        )

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
