"""A tiny book with one chapter that passes every check, for the tests of the checks themselves."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import notebooks
import running
import setup_cell

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

FIGURE = f"""\
import base64
from IPython.display import Image, display

display(Image(base64.b64decode(
    "{PIXEL[:60]}"
    "{PIXEL[60:]}"
)))"""

VERDICT = f"""\
display({{
    "{notebooks.VERDICT}":
        {{"claim": "B00", "verdict": "holds"}},
    "text/html": "<p>B00 holds.</p>",
}}, raw=True)"""

SETUP = setup_cell.SETUP.replace("{address}", "")

FOLDED = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}, "cellView": "form"}


def sample_notebook():
    cells = [
        new_markdown_cell("# Does it run?\n\nIt tests claim B00, that $1 + 1 = 2$.", id="title"),
        new_code_cell(SETUP, id="setup", metadata={"tags": ["setup"]}),
        new_code_cell(
            'budget = "full"\nseed = 0', id="parameters", metadata={"tags": ["parameters"]}
        ),
        new_code_cell(
            "import os\nimport sys\n\nimport vaelib\n\nvaelib.one()",
            id="imports",
            metadata={"tags": ["imports"]},
        ),
        new_markdown_cell("Add one to one.\n\n**Rule for B00.** Holds at 2.", id="rule"),
        new_code_cell('print("noise", file=sys.stderr)\nprint(budget, seed)', id="noise"),
        new_code_cell('assert os.environ["VAELIB_PROGRESS"] == "0"', id="progress"),
        new_code_cell(FIGURE, id="figure", metadata={"mystnb": {"image": {"alt": "A red dot."}}}),
        new_code_cell(VERDICT, id="verdict"),
    ]
    for n in range(5):
        source = f"# NBVAL_CHECK_OUTPUT\nprint({n} + vaelib.one())"
        cells.append(new_code_cell(source, id=f"checked-{n}"))
    for n in (1, 2, 3):
        cells.append(new_markdown_cell(f"### Exercise {n}: again\n\nRun it.", id=f"exercise-{n}"))
        cells.append(new_code_cell(f"print({n})", id=f"solution-{n}", metadata=FOLDED))
    return new_notebook(cells=cells)


@pytest.fixture(scope="session")
def made_book(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    (root / "vaelib").mkdir()
    (root / "vaelib/__init__.py").write_text("def one():\n    return 1\n")
    (root / "pyproject.toml").write_text('[project]\nname = "sample"\n')
    path = root / "book/foundations/01_sample.ipynb"
    path.parent.mkdir(parents=True)
    notebooks.write(sample_notebook(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))  # this vaelib, not ours
        assert running.run(path)
    return root


@pytest.fixture
def sample_book(made_book, monkeypatch):
    """The folder of a book whose chapter 01 has been run and whose vaelib has one function."""
    monkeypatch.setenv("PYTHONPATH", str(made_book))
    return made_book
