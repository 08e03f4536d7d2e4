"""Whether a chapter has the parts and the form that every chapter has.

Each check returns sentences, none where all is well.
"""

import re
from pathlib import Path

import nbformat

from jobs import tag_problems
from notebooks import ROOT, code_cells, name_of, parameters, read, tagged, verdicts
from outputs import text_of
from setup_cell import setup_source
from verdict_form import literal_problems, rule_problems

MAX_LINES, MAX_COLUMNS = 30, 76
MIN_CHECKED, MIN_EXERCISES = 5, 3

# Chapters that do not keep the newest rules yet: imports, tags, and how they judge.
NOT_YET = {"07"}
DIRECTIVE = re.compile(r"^\s*(?:```+|~~~+|:::+)\{", re.MULTILINE)
ROLE = re.compile(r"\{[a-z][\w:-]*\}`")


def form_problems(path: Path, root: Path = ROOT) -> list[str]:
    """Whether the chapter has the parts and the form that every chapter has."""
    notebook = read(path)
    markdown = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    code = code_cells(notebook)
    found = []

    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        found.append(f"is nbformat {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5")
    first = notebook.cells[0] if notebook.cells else None
    if not first or first.cell_type != "markdown" or not first.source.startswith("# "):
        found.append("its first cell is not Markdown that starts with `# `")
    if [cell.source for cell in tagged(notebook, "setup")] != [setup_source(root)]:
        found.append("its setup cell is not the book's: run `make address`")
    if len(tagged(notebook, "parameters")) != 1:
        found.append("it should have one cell tagged `parameters`")
    elif parameters(notebook) != {"budget": "full", "seed": 0}:
        found.append('its parameters cell should say `budget = "full"` and `seed = 0`')

    for cell in code:
        name, lines = name_of(cell), cell.source.splitlines()
        if len(lines) > MAX_LINES:
            found.append(f"{name} has {len(lines)} lines; {MAX_LINES} is the limit")
        if (longest := max(map(len, lines))) > MAX_COLUMNS:
            found.append(f"{name} has a line of {longest} columns; {MAX_COLUMNS} is the limit")
        pictures = [m for o in cell.outputs for m in o.get("data", {}) if m.startswith("image/")]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if pictures and not alt.strip():
            found.append(f"{name} shows a picture without alternative text (mystnb.image.alt)")

    for cell in markdown:
        if DIRECTIVE.search(cell.source) or ROLE.search(cell.source):
            found.append(f"{name_of(cell)} uses a MyST directive or role; chapters are CommonMark")
    if not verdicts(notebook):
        found.append("displays no verdict record")
    found += checked_output_problems(code) + fold_problems(code) + exercise_problems(notebook)
    if path.name[:2] not in NOT_YET:
        found += import_problems(notebook) + tag_problems(notebook)
        found += literal_problems(notebook) + rule_problems(notebook)
    return found


def import_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """The page folds the first three cells into one: setup, parameters, imports."""
    starts = [
        number - place
        for place, tag in enumerate(("setup", "parameters", "imports"))
        for number, cell in enumerate(notebook.cells)
        if tag in cell.metadata.get("tags", [])
    ]
    if len(starts) != 3 or len(set(starts)) != 1:
        return ["its cells tagged `setup`, `parameters` and `imports` do not follow each other"]
    return []


def checked_output_problems(code: list[nbformat.NotebookNode]) -> list[str]:
    checked = [cell for cell in code if "NBVAL_CHECK_OUTPUT" in cell.source]
    found = []
    if len(checked) < MIN_CHECKED:
        found.append(f"{len(checked)} cells say NBVAL_CHECK_OUTPUT; {MIN_CHECKED} should")
    for cell in checked:
        mimes = {mime for output in cell.outputs for mime in output.get("data", {})}
        if not cell.outputs or not "".join(map(text_of, cell.outputs)).strip():
            found.append(f"{name_of(cell)} says NBVAL_CHECK_OUTPUT but stores none")
        if any(mime.startswith("image/") for mime in mimes):
            found.append(f"{name_of(cell)} says NBVAL_CHECK_OUTPUT but draws: pixels may differ")
    return found


def marks(cell: nbformat.NotebookNode) -> dict[str, bool]:
    """What folds a cell: on the page, in JupyterLab, on Colab."""
    return {
        "tag hide-input": "hide-input" in cell.metadata.get("tags", []),
        "jupyter.source_hidden": cell.metadata.get("jupyter", {}).get("source_hidden") is True,
        "cellView: form": cell.metadata.get("cellView") == "form",
    }


def fold_problems(code: list[nbformat.NotebookNode]) -> list[str]:
    """What is folded in one of the three places is folded in all."""
    found = []
    for cell in code:
        missing = ", ".join(mark for mark, there in marks(cell).items() if not there)
        if any(marks(cell).values()) and missing:
            found.append(f"{name_of(cell)} is folded in part: it lacks {missing}")
    return found


def exercise_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Numbered exercises, each followed by a solution that is folded."""
    exercises: list[int] = []
    solved, current, found = set(), None, []
    for cell in notebook.cells:
        if cell.cell_type == "code" and all(marks(cell).values()):
            solved.add(current)
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if match := re.match(r"### Exercise (\d+): \S", line):
                current = int(match[1])
                exercises.append(current)
            elif re.match(r"#{1,3} ", line):
                current = None
    if len(exercises) < MIN_EXERCISES or exercises != list(range(1, len(exercises) + 1)):
        found.append(
            f"its headings `### Exercise N: ...` are numbered {exercises}; "
            f"1 to at least {MIN_EXERCISES} expected"
        )
    return found + [f"exercise {n} has no folded solution" for n in exercises if n not in solved]
