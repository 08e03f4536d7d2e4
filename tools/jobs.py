"""Which cells of which chapter are a benchmark: their tags say it.

A tag whose last cell leaves a dictionary named `result` is the benchmark of that name. It is the
cells that carry the tag; where one alone does, it is every cell up to that one. The tag `one-seed`
beside it asks for the first seed only, for pictures, which are looked at and not averaged, and
`five-seeds` for two more than the usual three, where the spread over seeds is the question.
"""

import ast
import re
from pathlib import Path

import nbformat

from definitions import at_top
from notebooks import ROOT, chapters, name_of, read, tagged

SEEDS = (0, 1, 2)
COUNTS = {"one-seed": 1, "five-seeds": 5}  # where a tag asks for another number of them
PLAIN = {"setup", "parameters", "imports", "hide-input", "opener", "cover", "explorer", *COUNTS}
FIGURE = re.compile(r"figure-[BC]\d+")


def unknown_tags(notebook: nbformat.NotebookNode) -> set[str]:
    """The tags that are none of every chapter's: the benchmarks' names, or mistakes."""
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    return {tag for tag in tags - PLAIN if not FIGURE.fullmatch(tag)}


def leaves_result(cell: nbformat.NotebookNode) -> bool:
    stored = (
        ast.unparse(node)
        for statement in (ast.parse(cell.source).body if cell.cell_type == "code" else ())
        for node in at_top(statement)
        if isinstance(getattr(node, "ctx", None), ast.Store)
    )
    return any(text.partition("[")[0] == "result" for text in stored)


def jobs(root: Path = ROOT) -> dict[str, Path]:
    """The benchmarks of all chapters, by name, in the book's order."""
    found: dict[str, Path] = {}
    for path in chapters(root):
        notebook = read(path)
        for tag in sorted(unknown_tags(notebook)):
            if tag != "benchmark" and leaves_result(tagged(notebook, tag)[-1]):
                if tag in found:
                    raise ValueError(f"{path.name} and {found[tag].name} both tag cells {tag!r}.")
                found[tag] = path
    return found


def seeds_of(name: str, path: Path) -> tuple[int, ...]:
    tags = tagged(read(path), name)[-1].metadata.tags
    counts = [COUNTS[tag] for tag in tags if tag in COUNTS]
    return tuple(range(counts[0])) if counts else SEEDS


def job_notebook(name: str, path: Path, seed: int = SEEDS[0]) -> nbformat.NotebookNode:
    """The chapter, cut down to the job's cells, its parameters set."""
    notebook = read(path)
    (parameters,) = tagged(notebook, "parameters")
    parameters.source = f'budget = "long"\nseed = {seed}'
    own = tagged(notebook, name)
    if len(own) == 1:
        notebook.cells = notebook.cells[: notebook.cells.index(own[0]) + 1]
    else:
        notebook.cells = [parameters, *own]
    return notebook


def tag_problems(notebook: nbformat.NotebookNode) -> list[str]:
    found = []
    for tag in sorted(unknown_tags(notebook)):
        last = tagged(notebook, tag)[-1]
        if tag == "benchmark":
            found.append(f"{name_of(last)}: the tag should be the benchmark's own name")
        elif not leaves_result(last):
            found.append(f"{name_of(last)}: the tag {tag!r} is not known, and leaves no `result`")
    return found
