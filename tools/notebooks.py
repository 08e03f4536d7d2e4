"""Chapters as notebooks: where they lie, how they are read and written, and what their cells are.

A chapter is book/PART/NN_name.ipynb.
"""

import ast
import os
import re
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
VERDICT = "application/vnd.vaelib.verdict+json"  # as vaelib says, whose import takes seconds


def chapters(root: Path = ROOT) -> list[Path]:
    """All chapters, in the book's order."""
    return sorted((root / "book").glob("*/[0-9][0-9]_*.ipynb"), key=lambda path: path.name)


def find(number: str, root: Path = ROOT) -> Path:
    """The chapter with this number, "05" or "5"."""
    found = [path for path in chapters(root) if path.name.startswith(number.zfill(2) + "_")]
    if len(found) != 1:
        there = ", ".join(path.stem for path in chapters(root)) or "none"
        raise SystemExit(f"{len(found)} chapters are numbered {number!r}; there are: {there}.")
    return found[0]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write whole or not at all."""
    new = path.with_name(f".{path.name}.tmp")
    try:
        nbformat.write(notebook, new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def parameters(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """The assignments in the cell tagged `parameters`."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for cell in tagged(notebook, "parameters")
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def at_budget(notebook: nbformat.NotebookNode, budget: str) -> nbformat.NotebookNode:
    """Change the budget in the parameters cell, in place."""
    (cell,) = tagged(notebook, "parameters")
    cell.source, changed = re.subn(r"(?m)^budget = .*$", f'budget = "{budget}"', cell.source)
    if changed != 1:
        raise ValueError(f"the parameters cell should set `budget` once, but says {cell.source!r}")
    return notebook


def source(notebook: nbformat.NotebookNode) -> str:
    """The code of a chapter, whose outputs it explains: all but the setup cell."""
    setup = tagged(notebook, "setup")
    return "\n".join(cell.source for cell in code_cells(notebook) if cell not in setup)


def verdicts(notebook: nbformat.NotebookNode) -> list[tuple[int, dict]]:
    """(number of the cell, record) for each verdict among the stored outputs."""
    return [
        (number, output.data[VERDICT])
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if VERDICT in output.get("data", {})
    ]


def name_of(cell: nbformat.NotebookNode) -> str:
    return f"cell {cell.get('id', '?')} ({(cell.source.strip().splitlines() or [''])[0][:40]})"


def address(root: Path = ROOT, of: str = "Repository") -> str:
    """An address in pyproject.toml, the repository's or another, empty where it has none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get(of, "")
