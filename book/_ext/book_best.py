"""The records page: `{best}` is the table of data/results/records.json, a row a task."""

import json

from docutils import nodes
from sphinx.application import Sphinx

import notebooks
from book_claims import table
from book_records import Records, chapter_pages

PATH = notebooks.ROOT / "data" / "results" / "records.json"


def figure(record: dict) -> str:
    """Value and errors, to the decimals that the spread over seeds leaves."""
    text = f"{record['value']:.2f} \u00b1 {record['spread over seeds']:.2f} over seeds"
    error = record["standard error over images"]
    return text if error is None else f"{text}, \u00b1 {error:.2f} over images"


class Best(Records):
    """`{best}`: task, figure, what it took, and where it comes from."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(PATH))
        pages = {path.stem: name for name, path in chapter_pages(self.env)}
        rows = []
        for record in json.loads(PATH.read_text(encoding="utf-8")):
            what = [nodes.paragraph("", figure(record)), nodes.paragraph("", record["unit"])]
            took = (
                f"{record['seeds']} seeds, {record['training seconds']:,} seconds of training "
                f"each on {record['device']}, {record['date']}"
            )
            source = nodes.paragraph("", "", *self.chapter_link(pages[record["chapter"]]))
            command = nodes.paragraph("", "", nodes.literal("", record["command"]))
            rows.append(
                [
                    [nodes.paragraph("", record["task"])],
                    what,
                    [nodes.paragraph("", took)],
                    [source, command],
                ]
            )
        heads = ["Task", "Figure", "What it took", "Chapter, and the command"]
        return [table(heads, rows, [26, 26, 24, 24], "records-table")]


def setup(app: Sphinx) -> dict:
    app.add_directive("best", Best)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
