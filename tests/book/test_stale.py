"""What `make stale` lists: what can change a chapter's outputs, and nothing else."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook

import jobs
import notebooks
import stale
from uses import Uses

PACKAGE = {
    "__init__": """
import importlib
from typing import TYPE_CHECKING

from . import constants, near, shapes
from .near import middle

if TYPE_CHECKING:
    from . import slow


def __getattr__(name):
    if name == "slow":
        return importlib.import_module(".slow", __name__)
    raise AttributeError(name)
""",
    "near": """
from .far import far
from .registry import made, make


def middle(x: float) -> float:
    '''One more.'''
    return far(x) + 1


def through_the_registry(name):
    return make(name)


def unused():
    return 7
""",
    "far": """
import math as m

from . import constants

LIMIT = 5


def far(x):
    def inner(constant):  # shadows nothing here
        return min(constant, LIMIT)

    return inner(x) * m.pi * constants.FACTOR


def lonely():
    return constants.OTHER
""",
    "constants": """
FACTOR = 2
OTHER = 3
""",
    "registry": """
KINDS = {}


def made(build):
    KINDS[build.__name__] = build
    return build


def make(name):
    return KINDS[name]()
""",
    "shapes": """
from . import constants
from .registry import made


class Shape:
    def area(self):
        return 1

    def name(self):
        return "shape"


@made
def square():
    return constants.OTHER
""",
    "slow": """
def draw():
    return 1


def other():
    return 2
""",
    "look": """
from pathlib import Path

for path in Path(__file__).with_name("fonts").glob("*.ttf"):
    print(path)

STYLE = {}
""",
    "page": """
from importlib.resources import files


def page():
    return [(files(__package__) / f"{part}.css").read_text() for part in ("light", "dark")]
""",
}
FILES = {  # by file, the chapters that read it
    "data/results/long_run.json": {"07"},
    "data/results/other.json": set(),
    "data/results/gpu/card.json": {"10"},
    "data/weights/net.bin": {"07"},
    "vaelib/dark.css": {"05", "09"},
    "vaelib/fonts/sans.ttf": {"05", "09", "11"},
}
CHAPTERS = {
    "01": "import vaelib\n\nvaelib.middle(1)",
    "02": "from vaelib.shapes import Shape\n\nShape().area()",
    "03": "import vaelib\nfrom vaelib import near\n\nnear.through_the_registry('square')",
    "04": "import vaelib\n\nvaelib.slow.draw()",
    "05": "import vaelib\n\ngetattr(vaelib, name)",  # may be any of it
    "06": "script = '''\nimport vaelib\nvaelib.middle(1)\n'''",
    "07": "results('long_run')\nload(folder / 'weights/net.bin')",
    "08": "print(1)",
    "09": "import vaelib.page\n\nvaelib.page.page()",
    "11": "from vaelib.look import STYLE\n\nprint(STYLE)",
    "10": "for path in (stored / 'gpu').glob('*.json'):\n    print(path)",
}


@pytest.fixture
def book(tmp_path):
    """A book whose chapters were just stamped."""
    (tmp_path / "vaelib").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / f"vaelib/{name}.py").write_text(text)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    uses = Uses(tmp_path)
    for number, code in CHAPTERS.items():
        notebook = new_notebook(cells=[new_code_cell(code)])
        notebook.metadata.vaelib = {"uses": uses.of(code)}
        path = tmp_path / f"book/part/{number}_sample.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        notebooks.write(notebook, path)
    return tmp_path


def change(book, module, before, after):
    path = book / f"vaelib/{module}.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def listed(book):
    return {name[:2]: said for name, said in stale.stale_chapters(book).items()}


def test_nothing_is_stale_where_nothing_changed(book):
    assert listed(book) == {}


FREE = [
    ("near", "One more.", "Two more, it says."),
    ("near", "(x: float) -> float", "(x: int) -> int"),
    ("near", "return 7", "return 8"),
    ("far", "# shadows", "# what shadows"),
    ("far", "min(constant, LIMIT)", "min(\n            constant, LIMIT\n        )"),
]


@pytest.mark.parametrize(("module", "before", "after"), FREE)
def test_what_changes_no_output_lists_no_chapter(book, module, before, after):
    change(book, module, before, after)
    assert set(listed(book)) <= {"05"}  # that chapter may take any name


CHANGES = [  # module, before, after, the chapters, the definition
    ("near", "far(x) + 1", "far(x) + 2", {"01", "05", "06"}, "vaelib.near.middle"),
    ("constants", "FACTOR = 2", "FACTOR = 4", {"01", "05", "06"}, "vaelib.constants.FACTOR"),
    ("far", "LIMIT = 5", "LIMIT = 6", {"01", "05", "06"}, "vaelib.far.LIMIT"),
    ("far", "import math as m", "import cmath as m", {"01", "05", "06"}, "vaelib.far.far"),
    ("near", "return 7", "return 8", {"05"}, "vaelib.near.unused"),
    ("shapes", 'return "shape"', 'return "form"', {"02", "05"}, "vaelib.shapes.Shape"),
    ("shapes", "constants.OTHER", "constants.OTHER + 1", {"03", "05"}, "vaelib.shapes.square"),
    ("constants", "OTHER = 3", "OTHER = 4", {"03", "05"}, "vaelib.constants.OTHER"),
    ("slow", "return 1", "return 3", {"04", "05"}, "vaelib.slow.draw"),
    ("__init__", '".slow"', '".far"', {"04", "05", "09"}, "vaelib.__getattr__"),
]


@pytest.mark.parametrize(
    ("module", "before", "after", "chapters", "definition"), CHANGES, ids=lambda value: str(value)
)
def test_a_change_lists_the_chapters_that_reach_it(
    book, module, before, after, chapters, definition
):
    change(book, module, before, after)
    found = listed(book)
    assert set(found) == chapters
    assert set(found.values()) == {f"changed: {definition}"}


def test_what_vanished_or_came_is_named(book):
    change(book, "slow", "def draw", "def paint")
    assert listed(book)["04"] == "gone: vaelib.slow.draw; new: vaelib.slow.other, vaelib.slow.paint"


def test_what_a_module_does_when_it_is_imported_counts(book):
    change(book, "constants", "OTHER = 3", "OTHER = 3\nprint(OTHER)")
    assert {"01", "02", "03", "04", "05"} <= set(listed(book))
    assert "new: vaelib.constants.<module>" in listed(book)["01"]


@pytest.mark.parametrize(("name", "chapters"), FILES.items())
def test_a_file_that_changes_lists_the_chapters_that_read_it(book, name, chapters):
    (book / name).write_text("{1}")
    assert listed(book) == dict.fromkeys(chapters, f"changed: {name}")


def test_a_stamp_of_the_old_form_is_named(book):
    path = notebooks.find("01", book)
    notebook = notebooks.read(path)
    notebook.metadata.vaelib = {"modules": {}}
    notebooks.write(notebook, path)
    assert listed(book) == {"01": "made in the old form: run again"}


def test_a_star_hides_what_is_used(book):
    change(book, "near", "import far", "import *")
    with pytest.raises(ValueError, match="hides which names are used"):
        Uses(book)


def tagged(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def benchmark_book(book, code, seeds="one-seed"):
    cells = [
        tagged('budget = "full"\nseed = 0', "parameters"),
        tagged("import vaelib", "long_run"),
        new_code_cell("aside = 1"),
        tagged(code, "long_run", seeds),
    ]
    path = book / "book/part/12_sample.ipynb"
    notebooks.write(new_notebook(cells=cells), path)
    return path


def test_a_benchmark_older_than_its_cells_or_its_code_is_named(book):
    path = benchmark_book(book, "result = {'seed': seed, 'x': vaelib.middle(1)}")
    assert jobs.jobs(book) == {"long_run": path} and jobs.seeds_of("long_run", path) == (0,)
    cells = jobs.job_notebook("long_run", path)
    assert "aside" not in notebooks.source(cells) and '"long"' in notebooks.source(cells)
    stored = {
        "cells": stale.code_sha256(cells),
        "uses": Uses(book).of(notebooks.source(cells)),
    }
    (book / "data/results/long_run.json").write_text(json.dumps(stored))
    assert stale.stale_benchmarks(book) == {}
    change(book, "constants", "FACTOR = 2", "FACTOR = 4")
    assert stale.stale_benchmarks(book) == {"long_run": "changed: vaelib.constants.FACTOR"}
    change(book, "constants", "FACTOR = 4", "FACTOR = 2")
    benchmark_book(book, "result = {'seed': seed, 'x': vaelib.middle(2)}")
    assert stale.stale_benchmarks(book) == {"long_run": "the cells of 12_sample.ipynb changed"}


@pytest.mark.parametrize("tag, seeds", [("one-seed", 1), ("five-seeds", 5), ("hide-input", 3)])
def test_a_tag_says_how_many_seeds_a_benchmark_has(book, tag, seeds):
    path = benchmark_book(book, "result = {'seed': seed}", tag)
    assert jobs.seeds_of("long_run", path) == tuple(range(seeds))


def test_the_benchmarks_of_the_book_are_those_whose_results_it_has():
    stored = {path.stem for path in (notebooks.ROOT / "data/results").glob("*.json")}
    stored -= {"bench", "records"}
    assert set(jobs.jobs()) == stored
