"""What a page folds away: a chapter opens on its idea, and code that only draws stays behind it.

The cells tagged `setup`, `parameters` and `imports` that follow each other become one fold. A cell
tagged `hide-input` shows its result and folds its code; in an exercise, where it is a solution, it
folds both. A fold is a `<details>`: it opens without scripts, and its summary says what it holds.
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

OPENING = ["tag_setup", "tag_parameters", "tag_imports"]


class Fold(nodes.Element):
    """Cells, or the code of one, behind a line that says what they are."""


def open_fold(translator, node: Fold) -> None:
    translator.body.append(f'<details class="fold {node["kind"]}">\n')
    translator.body.append(f"<summary>{translator.encode(node['label'])}</summary>\n")


def close_fold(translator, node: Fold) -> None:
    translator.body.append("</details>\n")


def is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def openings(document: nodes.document) -> Iterator[list[nodes.container]]:
    """Cells that follow each other and only make the chapter ready."""
    for first in document.findall(is_cell):
        if OPENING[0] not in first["classes"]:
            continue
        siblings = first.parent.children
        run = [first]
        for cell in siblings[siblings.index(first) + 1 :]:
            if not is_cell(cell) or not set(OPENING[1:]) & set(cell["classes"]):
                break
            run.append(cell)
        yield run


def shows(cell: nodes.container) -> str:
    """What a cell makes, as the summary of its code names it."""
    html = "".join(raw.astext() for raw in cell.findall(nodes.raw))
    if 'class="explorer"' in html:
        return "Code of this widget"
    kinds = ["figure"] * any(cell.findall(nodes.image))
    kinds += ["table"] * ("<table" in html) + ["verdict"] * ('class="verdict"' in html)
    return f"Code of this {' and '.join(kinds)}" if kinds else "Code"


def is_solution(cell: nodes.container) -> bool:
    return isinstance(cell.parent, nodes.section) and cell.parent[0].astext().startswith("Exercise")


class Folds(SphinxPostTransform):
    """Before MyST-NB's own folds, which say the same of every cell."""

    default_priority = 190
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for run in list(openings(self.document)):
            fold = Fold(kind="fold-setup", label="Set-up")
            place = run[0].parent.index(run[0])
            run[0].parent.insert(place, fold)
            for cell in run:
                cell.parent.remove(cell)
                cell.attributes.pop("hide_mode", None)
                fold.append(cell)
        for cell in list(self.document.findall(is_cell)):
            if cell.get("hide_mode") != "input":
                continue
            del cell["hide_mode"]
            if is_solution(cell):
                fold = Fold(kind="fold-solution", label="Solution")
                fold.extend(cell.children)
                cell.children = []
                cell += fold
            else:
                fold = Fold(kind="fold-code", label=shows(cell))
                code = cell.children[0]
                cell.replace(code, fold)
                fold += code


def setup(app: Sphinx) -> dict:
    app.add_node(Fold, html=(open_fold, close_fold))
    app.add_post_transform(Folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
