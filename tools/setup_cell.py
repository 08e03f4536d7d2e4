"""The setup cell, the same in every chapter."""

from pathlib import Path

import nbformat

from notebooks import ROOT, address, read, tagged, write

# The one copy of the setup cell; `address` writes it into every chapter.
SETUP = """\
# @title Setup: nothing where vaelib is there; on Colab, fetch the book.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = "{address}"
if importlib.util.find_spec("vaelib") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError(
            "vaelib is not installed, and this copy of the book does not"
            " know where to fetch it: in a checkout of the book run"
            " `make lab`, or `pip install -e .` in its top folder."
        )
    clone = Path("measured-vae").resolve()
    if not clone.exists():
        git = ["git", "clone", "--depth", "1", REPOSITORY, str(clone)]
        subprocess.run(git, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "-e", str(clone)]
    subprocess.run(pip, check=True)
    sys.path.insert(0, str(clone))  # pip's own entry needs a new kernel"""


def setup_source(root: Path = ROOT) -> str:
    return SETUP.replace("{address}", address(root))


def write_setup(path: Path, root: Path = ROOT) -> bool:
    """Give the chapter today's setup cell; True where that changed the file."""
    notebook, source = read(path), setup_source(root)
    # Folded on the page, in Jupyter and on Colab: it is not what the chapter is about.
    metadata = {
        "tags": ["setup", "hide-input"],
        "jupyter": {"source_hidden": True},
        "cellView": "form",
    }
    cells = tagged(notebook, "setup")
    if [(cell.source, cell.metadata) for cell in cells] == [(source, metadata)]:
        return False
    if not cells:
        cells = [nbformat.v4.new_code_cell(id="setup")]
        notebook.cells.insert(1, cells[0])  # below the title
    cells[0].source, cells[0].metadata = source, nbformat.from_dict(metadata)
    write(notebook, path)
    return True
