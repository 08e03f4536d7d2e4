"""The chapter tool on a sample book: what it stores, and that each of its checks can fail."""

import copy
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

import benchmark
import form
import hashes
import notebooks
import outputs
import running
import setup_cell
import verdict_form


@pytest.fixture
def chapter(sample_book):
    """The sample chapter; a test may change its book, and the next one finds it as it was."""
    before = {path: path.read_bytes() for path in sample_book.rglob("*") if path.is_file()}
    yield notebooks.find("01", sample_book)
    for path, content in before.items():
        path.write_bytes(content)


def problems(path, root):
    return outputs.stamp_problems(path) + form.form_problems(path, root)


def test_a_chapter_that_was_run_has_no_problem(chapter, sample_book):
    assert problems(chapter, sample_book) == []


def test_stamp_says_what_the_chapter_was_made_with(chapter):
    stamp = notebooks.read(chapter).metadata.vaelib
    assert set(stamp) == {
        *("code_sha256", "commit", "budget", "seconds", "versions", "device", "uses")
    }
    assert stamp.budget == "full" and stamp.device == "cpu" and stamp.seconds > 0
    assert set(stamp.uses) == {"vaelib", "files"} and list(stamp.uses.vaelib) == ["one"]


def test_stderr_is_not_stored(chapter):
    assert "noise\\n" not in chapter.read_text()


@pytest.mark.slow
def test_a_second_run_stores_the_same_bytes(chapter):
    first = notebooks.read(chapter)
    assert running.run(chapter)
    second = notebooks.read(chapter)
    second.metadata.vaelib.seconds = first.metadata.vaelib.seconds
    assert nbformat.writes(second) == nbformat.writes(first)


@pytest.mark.slow
def test_a_chapter_that_fails_is_left_as_it_was(chapter, capsys):
    notebook = notebooks.read(chapter)
    source(notebook, "noise", "raise ValueError('on purpose')")
    notebooks.write(notebook, chapter)
    before = chapter.read_bytes()
    assert not running.run(chapter)
    assert "on purpose" in capsys.readouterr().err
    assert chapter.read_bytes() == before
    assert [path.name for path in chapter.parent.iterdir()] == [chapter.name]


@pytest.mark.slow
def test_a_kernel_that_would_import_another_vaelib_is_refused(
    chapter, monkeypatch, tmp_path, capsys
):
    (tmp_path / "vaelib").mkdir()
    (tmp_path / "vaelib/__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = chapter.read_bytes()
    assert not running.run(chapter)
    assert f"from {tmp_path}/vaelib/__init__.py, not from this checkout" in capsys.readouterr().err
    assert chapter.read_bytes() == before


def with_benchmark(chapter):
    notebook = notebooks.read(chapter)
    cell(notebook, "imports").metadata.tags.append("sums")
    source(notebook, "noise", "result = {'seed': seed, 'two': 1 + vaelib.one(), 'is': budget}")
    cell(notebook, "noise").metadata["tags"] = ["sums"]
    source(notebook, "progress", "raise RuntimeError('not a cell of the benchmark')")
    notebooks.write(notebook, chapter)


@pytest.mark.slow
def test_a_benchmark_runs_the_cells_that_its_tag_names(chapter):
    with_benchmark(chapter)
    found = benchmark.run_seed("sums", chapter, seed=2)
    assert found["result"] == {"seed": 2, "two": 2, "is": "long"}


def test_a_widget_goes_and_its_page_stays():
    bar = {running.WIDGET: {"model_id": "random"}, "text/plain": "HBox()"}
    page = {running.WIDGET: {"model_id": "random"}, "text/html": "<p>page</p>"}
    outputs = [nbformat.v4.new_output("display_data", copy.deepcopy(data)) for data in (bar, page)]
    cell = nbformat.v4.new_code_cell("show()", outputs=outputs)
    running.tidy(nbformat.v4.new_notebook(cells=[cell]))
    assert [output.data for output in cell.outputs] == [{"text/html": "<p>page</p>"}]


def cell(notebook, cell_id):
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def output(notebook, cell_id, text, name="stdout"):
    cell(notebook, cell_id).outputs = [nbformat.v4.new_output("stream", name=name, text=text)]


def without(notebook, cell_id):
    notebook.cells = [cell for cell in notebook.cells if cell.id != cell_id]


def clear(notebook):
    for cell in notebooks.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None


def error(notebook):
    new = nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
    cell(notebook, "noise").outputs = [new]


def add(notebook, cell_id, source):
    cell(notebook, cell_id).source += source


def source(notebook, cell_id, text):
    cell(notebook, cell_id).source = text


def taken(notebook, cell_id):
    return notebook.cells.pop(notebook.cells.index(cell(notebook, cell_id)))


FENCE = "\n```" + "{note}\nHello.\n```"
BREAKS = {
    "has no stamp": lambda n: n.metadata.pop("vaelib"),
    "code has changed": lambda n: add(n, "noise", "\nprint(1)"),
    "of budget 'smoke'": lambda n: n.metadata.vaelib.update(budget="smoke"),
    "not run once each": lambda n: cell(n, "noise").update(execution_count=99),
    "stores no outputs": clear,
    "1,000,000 is the limit": lambda n: output(n, "noise", "a b " * 300_000),
    "stores widgets metadata": lambda n: n.metadata.update(widgets={"a": 1}),
    "stores its timing": lambda n: cell(n, "noise").metadata.update(execution={"a": "b"}),
    "names a path": lambda n: add(n, "noise", '  # see "/' + 'home/ada/x"'),
    "stores an error, ValueError": error,
    "stores stderr": lambda n: output(n, "noise", "x", name="stderr"),
    "stores a widget's": lambda n: cell(n, "figure").outputs[0].data.update({running.WIDGET: {}}),
    "stores a path": lambda n: output(n, "noise", "in /" + "root/book/x.py"),
    "memory address": lambda n: output(n, "noise", "<object at 0x7f0011223344>"),
    "nbformat 4.4": lambda n: n.update(nbformat_minor=4),
    "first cell": lambda n: source(n, "title", "Does it run?"),
    "setup cell is not": lambda n: add(n, "setup", "\n"),
    "tagged `parameters`": lambda n: without(n, "parameters"),
    "parameters cell should": lambda n: source(n, "parameters", 'budget = "full"\nseed = 1'),
    "has 33 lines": lambda n: source(n, "noise", "1\n" * 33),
    "has a line of 77": lambda n: source(n, "noise", "x" * 77),
    "alternative text": lambda n: cell(n, "figure").metadata.clear(),
    "MyST directive": lambda n: add(n, "title", FENCE),
    "MyST directive or role": lambda n: add(n, "title", " See {doc}`intro`."),
    "no verdict record": lambda n: without(n, "verdict"),
    "4 cells say": lambda n: without(n, "checked-0"),
    "stores none": lambda n: cell(n, "checked-0").update(outputs=[]),
    "but draws": lambda n: cell(n, "checked-0").update(outputs=cell(n, "figure").outputs),
    "folded in part": lambda n: cell(n, "solution-1").metadata.pop("cellView"),
    "numbered [1, 2]": lambda n: without(n, "exercise-3"),
    "exercise 2 has no": lambda n: without(n, "solution-2"),
    "do not follow each other": lambda n: n.cells.insert(3, n.cells.pop()),
    "and `imports` do not": lambda n: cell(n, "imports").metadata.clear(),
    "tag 'openr' is not known": lambda n: cell(n, "noise").metadata.update(tags=["openr"]),
    "the benchmark's own name": lambda n: cell(n, "noise").metadata.update(tags=["benchmark"]),
    "no paragraph before it": lambda n: source(n, "rule", "See the **Rule for B00.**"),
    "no paragraph before it starts `**Rule for B00": lambda n: source(n, "rule", "No rule."),
    "after the run": lambda n: n.cells.insert(
        n.cells.index(cell(n, "verdict")) - 1, taken(n, "rule")
    ),
}


@pytest.mark.parametrize("expected", BREAKS)
@pytest.mark.filterwarnings("ignore:Cell is missing an id")  # what a 4.4 notebook is
def test_each_check_can_fail(chapter, sample_book, expected):
    notebook = notebooks.read(chapter)
    BREAKS[expected](notebook)
    chapter.write_text(nbformat.v4.writes(notebook))
    assert any(expected in problem for problem in problems(chapter, sample_book))


def test_packed_bytes_are_no_path(chapter, sample_book):
    notebook = notebooks.read(chapter)
    page = "<img src='data:image/png;base64," + "A" * 200 + "/" + "root/" + "A" * 200 + "'>"
    cell(notebook, "verdict").outputs[0].data["text/html"] = page
    notebooks.write(notebook, chapter)
    assert problems(chapter, sample_book) == []


def test_comments_format_and_setup_are_free(chapter):
    notebook = notebooks.read(chapter)
    before = hashes.code_sha256(notebook)
    add(notebook, "noise", "  # a comment")
    source(notebook, "progress", 'assert (\n  os.environ["VAELIB_PROGRESS"]\n  == "0")')
    add(notebook, "setup", "\nprint(1)")
    assert hashes.code_sha256(notebook) == before


def test_hash_does_not_depend_on_the_version_of_python():
    source = (
        "def f(x: int, *a, **k):\n    return f'{x=} a{x!r:>{k}}' 'b' f'{1:.2f}'\n"
        "class A(B):\n    x = 1e-3, None, ..., 1j, b'q'\n"
        "match f():\n    case [1, _]:\n        lambda: [*x]\n"
    )
    # Computed once, the same on 3.11, 3.12 and 3.13.
    assert hashes.source_sha256(source)[:12] == "9399a5941fdc"


LITERAL = {
    "Verdict('B00', verdict='holds')": True,
    "vaelib.Verdict('B00', 'title', 'measured', 'holds')": True,
    "verdict = 'holds'\nVerdict(verdict=verdict)": True,
    "said = 'holds'\nverdict = said\nVerdict(verdict=verdict)": True,
    "Verdict(verdict='holds' if seed else 'holds')": True,
    "Verdict(verdict='holds' if seed else 'does not hold')": False,
    "verdict = 'holds'\nif seed:\n    verdict = 'does not hold'\nVerdict(verdict=verdict)": False,
    "Verdict(verdict=judged(seed))": False,
    "for said in outcomes:\n    Verdict(verdict=said)": False,
    "said = 'holds'\ndef judge(said):\n    return Verdict(verdict=said)": False,
    "said, why = judged(seed)\nVerdict(verdict=said)": False,
}


@pytest.mark.parametrize(("code", "literal"), LITERAL.items(), ids=str)
def test_a_verdict_that_could_not_have_come_out_otherwise_is_seen(chapter, code, literal):
    notebook = notebooks.read(chapter)
    source(notebook, "noise", code)
    found = verdict_form.literal_problems(notebook)
    assert ["can only be 'holds'" in problem for problem in found] == [True] * literal


def test_address_reaches_the_setup_cell_and_nothing_else(chapter, sample_book):
    project = sample_book / "pyproject.toml"
    with project.open("a") as file:
        file.write('[project.urls]\nRepository = "https://example.org/book"\n')
    assert "setup cell is not" in "".join(problems(chapter, sample_book))
    assert setup_cell.write_setup(chapter, sample_book)
    assert not setup_cell.write_setup(chapter, sample_book)
    assert 'REPOSITORY = "https://example.org/book"' in notebooks.read(chapter).cells[1].source
    assert problems(chapter, sample_book) == []


def test_address_inserts_a_setup_cell_where_there_is_none(chapter, sample_book):
    notebook = notebooks.read(chapter)
    without(notebook, "setup")
    notebooks.write(notebook, chapter)
    assert setup_cell.write_setup(chapter, sample_book)
    inserted = notebooks.read(chapter).cells[1]
    assert inserted.metadata.tags == ["setup", "hide-input"]
    assert inserted.source == setup_cell.setup_source(sample_book)


def test_setup_cell_does_nothing_where_vaelib_is(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    before = list(sys.path)
    exec(setup_cell.setup_source(), {})
    assert sys.path == before


def test_setup_cell_says_what_to_do_where_it_cannot_fetch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="make lab"):
        exec(setup_cell.SETUP.replace("{address}", ""), {})


def test_setup_cell_fetches_and_installs(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    monkeypatch.setattr("sys.path", [])
    monkeypatch.chdir(tmp_path)
    exec(setup_cell.SETUP.replace("{address}", "https://example.org/book"), {})
    clone = str(tmp_path / "measured-vae")
    assert commands[0] == ["git", "clone", "--depth", "1", "https://example.org/book", clone]
    assert commands[1][1:] == ["-m", "pip", "install", "-q", "-e", clone]


def test_unknown_chapter_is_named(sample_book):
    with pytest.raises(SystemExit, match="'99'; there are: 01_sample"):
        notebooks.find("99", sample_book)


def test_benchmarks_share_their_processes_and_keep_what_is_done(chapter, tmp_path, monkeypatch):
    """A run that fails in one seed keeps the others; the next makes only what is missing."""
    with_benchmark(chapter)
    asked, broken = [], {("sums", 1)}

    def in_process(name, seed, parts, shared):
        asked.append((name, seed))
        if (name, seed) in broken:
            raise SystemExit("cut")
        facts = {"device": "cpu", "seconds": 1.0, "versions": {}}
        return {"result": {"seed": seed, "x": 10 * seed}, **facts}

    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmark, "in_process", in_process)
    monkeypatch.setattr(benchmark.running, "commit", lambda: "0" * 40)

    def run():
        with ThreadPoolExecutor(2) as pool:
            for _ in benchmark.benchmark("sums", chapter, pool):
                pass

    with pytest.raises(SystemExit):
        run()
    assert not (tmp_path / "sums.json").exists()
    broken.clear()
    asked.clear()
    run()
    assert asked == [("sums", 1)]
    content = json.loads((tmp_path / "sums.json").read_text())
    assert [run["x"] for run in content["runs"]] == [0, 10, 20]
    assert [path.name for path in tmp_path.iterdir()] == ["sums.json"]


def test_idle_processes_help_with_a_seed_and_the_last_puts_it_together(
    chapter, tmp_path, monkeypatch
):
    with_benchmark(chapter)
    at_work, whole = {0: 0, 1: 0, 2: 0}, []

    def in_process(name, seed, parts, shared=False):
        at_work[seed] += 1
        time.sleep(0.2)  # a seed does not begin with a part
        (parts / str(seed)).mkdir(parents=True, exist_ok=True)
        (parts / str(seed) / "a_part.taken").touch()
        time.sleep(0.5)
        at_work[seed] -= 1
        if not shared:
            whole.append((seed, at_work[seed]))
        facts = {"device": "cpu", "seconds": 1.0, "versions": {}}
        return {"result": {"seed": seed, "shared": shared}, **facts}

    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmark, "in_process", in_process)
    monkeypatch.setattr(benchmark, "PAUSE", 0.02)
    with ThreadPoolExecutor(5) as pool:
        for _ in benchmark.benchmark("sums", chapter, pool):
            pass
    assert sorted(whole) == [(0, 0), (1, 0), (2, 0)]  # nobody is at work any more
    runs = json.loads((tmp_path / "sums.json").read_text())["runs"]
    assert [run["shared"] for run in runs] == [False] * 3
    assert sum(run["seconds"] for run in runs) > 6  # two each, and at least a helper
