"""The table of verdicts, made from the records that the chapters' stored outputs hold.

A chapter displays a record under the MIME type `application/vnd.vaelib.verdict+json`. The
directive `{verdicts}` collects the records of all chapters in `_toc.yml`, C-numbers first, and
lists the claims of `claims.json` that no chapter has measured yet. A malformed record is a
warning that names the notebook and the field.
"""

import json
import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

MIME = "application/vnd.vaelib.verdict+json"
SURVEY: dict[str, str] = json.loads(
    Path(__file__).with_name("claims.json").read_text(encoding="utf-8")
)
VERDICTS = {  # and the class of its badge
    "holds": "verdict-holds",
    "holds under a condition": "verdict-condition",
    "does not hold": "verdict-fails",
}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


# field: (test, what is expected, whether it may be absent or null)
FIELDS = {
    "claim": (
        lambda v: is_text(v) and (v in SURVEY or re.fullmatch(r"B\d+", v) is not None),
        'an id of claims.json or a chapter\'s own, such as "B01"',
        False,
    ),
    "title": (is_text, "the claim in a sentence", False),
    "measured": (is_text, "a sentence on what was measured", False),
    "value": (is_number, "a finite number", True),
    "unit": (is_text, "a text", True),
    "interval": (
        lambda v: is_interval(v) and v[0] <= v[1],
        "two finite numbers, the lower first",
        True,
    ),
    "seeds": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
        "a whole number, 0 where nothing is random",
        False,
    ),
    "budget": (lambda v: v == "full", '"full", since a smoke run judges nothing', False),
    "verdict": (lambda v: is_text(v) and v in VERDICTS, f"one of {list(VERDICTS)}", False),
    "condition": (is_text, "a text", True),
    "note": (lambda v: isinstance(v, str), "a text", True),
}


def problems(record: object) -> list[str]:
    """What is wrong with a record, a sentence a field."""
    if not isinstance(record, dict):
        return [f"the record is {record!r}, expected an object"]
    found = []
    for field, (valid, expected, optional) in FIELDS.items():
        value = record.get(field)
        if value is None:
            if not optional:
                found.append(f"field {field!r} is missing, expected {expected}")
        elif not valid(value):
            found.append(f"field {field!r} is {value!r}, expected {expected}")
    found += [f"field {field!r} is not known" for field in sorted(set(record) - set(FIELDS))]
    if not found and (record["verdict"] == "holds under a condition") != bool(
        record.get("condition")
    ):
        found.append("field 'condition' goes with the verdict 'holds under a condition' only")
    return found


def read_records(notebook: Path) -> list[object]:
    """The verdict records among a notebook's stored outputs, in their order."""
    text = notebook.read_text(encoding="utf-8")
    cells = json.loads(text, parse_constant=str)["cells"]  # NaN is no measurement: not a number
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]


def order(claim: str) -> tuple[bool, int]:
    """Sort key: the survey's claims by number, then the book's own."""
    return claim[0] != "C", int(claim[1:])


def number(value: float) -> str:
    short = re.sub(r"e([+-])0*", r"e\1", f"{value:.4g}").replace("e+", "e")
    return short.replace("-", "\N{MINUS SIGN}")


class Verdicts(SphinxDirective):
    """`{verdicts}`: what was measured, and what is still to be."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the chapters may have changed
        records = []
        # Chapters by number: the part's folder says nothing about order.
        for docname in sorted(self.env.found_docs, key=lambda name: name.rsplit("/", 1)[-1]):
            path = Path(self.env.doc2path(docname))
            if path.suffix != ".ipynb":
                continue
            self.env.note_dependency(str(path))
            for record in read_records(path):
                faults = problems(record)
                for fault in faults:
                    logger.warning("%s.ipynb: verdict record: %s", docname, fault)
                if not faults:
                    records.append((docname, record))
        records.sort(key=lambda pair: order(pair[1]["claim"]))  # stable: chapters keep their order
        waiting = [claim for claim in SURVEY if claim not in {r["claim"] for _, r in records}]

        result: list[nodes.Node] = [self.summary([r for _, r in records])]
        if records:
            result.append(self.measured(records))
        if waiting:
            result.append(nodes.rubric("", "Not measured yet"))
            result.append(self.waiting(waiting))
        return result

    def summary(self, records: list[dict]) -> nodes.Node:
        """How many claims were measured, and with which verdicts."""
        survey = {r["claim"] for r in records} & set(SURVEY)
        text = f"Measured so far: {len(survey)} of the survey's {len(SURVEY)} claims"
        own = {r["claim"] for r in records} - survey
        if own:
            text += f", and {len(own)} of the book's own"
        if records:
            counts = Counter(r["verdict"] for r in records)
            text += ". Verdicts: " + ", ".join(f"{counts[v]} \u201c{v}\u201d" for v in VERDICTS)
        return nodes.paragraph("", text + ".", classes=["verdict-summary"])

    def measured(self, records: list[tuple[str, dict]]) -> nodes.Node:
        rows, seen = [], set()
        for docname, record in records:
            claim = nodes.paragraph("", "", nodes.strong("", record["claim"]))
            if record["claim"] not in seen:  # claims.md#c1 leads to the first row of C1
                self.mark(claim, record["claim"], record["title"])
                seen.add(record["claim"])
            rows.append(
                [
                    [claim],
                    [nodes.paragraph("", record["title"])],
                    self.what_was_measured(record),
                    self.badge(record),
                    [nodes.paragraph("", str(record["seeds"] or "none"))],
                    [nodes.paragraph("", "", *self.chapter_link(docname))],
                ]
            )
        head = ["Id", "Claim", "Measured", "Verdict", "Seeds", "Chapter"]
        return table(head, rows, [4, 22, 34, 18, 5, 17], "verdict-table")

    def what_was_measured(self, record: dict) -> list[nodes.Node]:
        parts: list[nodes.Node] = [nodes.paragraph("", record["measured"])]
        if record.get("interval"):
            low, high = map(number, record["interval"])
            text = f"Interval {low} to {high} {record.get('unit') or ''}".rstrip()
            parts.append(nodes.paragraph("", text, classes=["verdict-small"]))
        if record.get("note"):
            parts.append(nodes.paragraph("", record["note"], classes=["verdict-small"]))
        return parts

    def badge(self, record: dict) -> list[nodes.Node]:
        classes = ["verdict-badge", VERDICTS[record["verdict"]]]
        badge = nodes.inline("", record["verdict"], classes=classes)
        parts: list[nodes.Node] = [nodes.paragraph("", "", badge)]
        if record.get("condition"):
            parts.append(nodes.paragraph("", record["condition"], classes=["verdict-small"]))
        return parts

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
            text = nodes.paragraph("", SURVEY[claim])
            rows.append([[node], [text], [nodes.paragraph("", "not measured yet")]])
        return table(["Id", "Claim", "Verdict"], rows, [8, 67, 25], "waiting-table")

    def mark(self, node: nodes.Element, claim: str, title: str) -> None:
        node["ids"].append(claim.lower())
        node["anchor"] = f"{claim}: {title}"
        node.line = self.lineno


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
