"""The chapter tool: runs chapters and stamps them, and finds what is out of step.

    python book/_ext/chapters.py run 05     execute, store the outputs, stamp
    python book/_ext/chapters.py check      stamps, stored outputs and form (fast: runs nothing)
    python book/_ext/chapters.py stale      chapters made with other vaelib modules than today's
    python book/_ext/chapters.py address    write pyproject's repository into the setup cells

A chapter is book/PART/NN_name.ipynb. The stamp is its ``metadata.vaelib``.
"""

import argparse
import ast
import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

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

VERDICT = "application/vnd.vaelib.verdict+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
COVER = "_static/manifold.png"  # under book/
MAX_BYTES = 1_000_000
MAX_LINES, MAX_COLUMNS = 30, 76
MIN_CHECKED, MIN_EXERCISES = 5, 3

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:root|work|tmp)/[\w.-]|home/\w+)")
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")  # may spell anything
DIRECTIVE = re.compile(r"^\s*(?:```+|~~~+|:::+)\{", re.MULTILINE)
ROLE = re.compile(r"\{[a-z][\w:-]*\}`")


# ---- finding and reading -------------------------------------------------------------------


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


# ---- hashes --------------------------------------------------------------------------------


def dump(node: object) -> str:
    """`ast.dump` without empty fields: those differ between Python 3.11, 3.12 and 3.13."""
    if isinstance(node, list):
        return f"[{', '.join(dump(item) for item in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):  # early 3.12 leaves neighbouring texts unjoined
        node = ast.JoinedStr(joined_texts(node.values))
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(f'{n}={dump(v)}' for n, v in fields)})"


def joined_texts(values: list[ast.expr]) -> list[ast.expr]:
    out: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and out and isinstance(out[-1], ast.Constant):
            out[-1] = ast.Constant(out[-1].value + value.value)
        else:
            out.append(value)
    return [value for value in out if not (isinstance(value, ast.Constant) and value.value == "")]


def source_sha256(source: str) -> str:
    """A hash of what the code does: comments and format are free."""
    return hashlib.sha256(dump(ast.parse(source)).encode()).hexdigest()


def code_sha256(notebook: nbformat.NotebookNode) -> str:
    """The same for a chapter's code cells; the setup cell may change without a new run."""
    setup = tagged(notebook, "setup")
    return source_sha256("\n".join(c.source for c in code_cells(notebook) if c not in setup))


# ---- run -----------------------------------------------------------------------------------

# Runs in the chapter's kernel after its last cell.
PROBE = """
import json, platform, sys
versions, device = {"python": platform.python_version()}, "cpu"
for name in ("torch", "numpy", "vaelib"):
    if name in sys.modules:
        versions[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
    device = sys.modules["torch"].cuda.get_device_name()
files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items())
         if name.partition(".")[0] == "vaelib"]
print(json.dumps({"versions": versions, "device": device, "files": sorted(filter(None, files))}))
"""


def execute(notebook: nbformat.NotebookNode, folder: Path) -> dict:
    """Run every cell in a fresh kernel, in place; say what it ran on."""
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    start = time.perf_counter()
    with client.setup_kernel(env={**os.environ, "VAELIB_PROGRESS": "0"}):
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            before = time.perf_counter()
            client.execute_cell(cell, index)
            head = cell.source.strip().splitlines()[0][:60]
            print(f"{time.perf_counter() - before:8.1f} s  cell {index:3d}  {head}", flush=True)
        seconds = time.perf_counter() - start
        notebook.cells.append(probe := nbformat.v4.new_code_cell(PROBE))
        client.execute_cell(probe, len(notebook.cells) - 1)
        notebook.cells.pop()
    found = json.loads(probe.outputs[0].text)
    return {
        "seconds": round(seconds, 1),
        "versions": found["versions"],
        "device": found["device"],
        "modules": module_hashes(map(Path, found["files"])),
    }


def module_hashes(files) -> dict[str, str]:
    return {
        f"vaelib/{path.name}": source_sha256(path.read_text(encoding="utf-8"))
        for path in files
        if path.suffix == ".py"
    }


def tidy(notebook: nbformat.NotebookNode) -> list[str]:
    """Keep of the outputs what a reader needs, the same bytes in every run; return the stderr."""
    stderr: list[str] = []
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled", "papermill"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                stderr.append(output.text)
                continue
            # A widget's id is random. What has no page of its own (a progress bar) goes with it.
            widget = output.get("data", {}).pop(WIDGET, None)
            if widget is None or "text/html" in output.data:
                kept.append(output)
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
        cell.outputs = kept
    for count, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.language_info = {"name": "python"}
    return stderr


def smaller(png: str) -> str:
    """A picture in 256 colours of its own: a third of the bytes, and no difference to the eye."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":  # already done
        return png
    out = io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, with -dirty where the tree differs from it."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(describe, cwd=root, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def run(path: Path) -> bool:
    """Execute a chapter and, only where every cell ran, store its outputs and stamp it."""
    before = path.read_bytes()
    notebook = read(path)
    made_from = commit(path.parent)  # now: by the end the tree may have moved on
    print(f"{path.name}:", flush=True)
    try:
        facts = execute(notebook, path.parent)
    except (CellExecutionError, DeadKernelError) as error:
        print(f"{error}\n{path.name}: failed; the file is as it was.", file=sys.stderr)
        return False
    if path.read_bytes() != before:
        print(f"{path.name}: edited while it ran; nothing is stored.", file=sys.stderr)
        return False
    for text in tidy(notebook):
        print(f"stderr, not stored:\n{text.rstrip()}", file=sys.stderr)
    notebook.metadata.vaelib = {
        "code_sha256": code_sha256(notebook),
        "commit": made_from,
        "budget": parameters(notebook).get("budget"),
        **facts,
    }
    write(notebook, path)
    for picture in covers(notebook):
        (path.parents[1] / COVER).write_bytes(picture)
    print(f"{facts['seconds']:8.1f} s  in all; {path.stat().st_size / 1e6:.2f} MB")
    return True


def covers(notebook: nbformat.NotebookNode) -> list[bytes]:
    """The pictures of the cell tagged `cover`: the README shows it."""
    return [
        base64.b64decode(output.data["image/png"])
        for cell in tagged(notebook, "cover")
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


# ---- stale and address ---------------------------------------------------------------------


def stale(path: Path, root: Path = ROOT) -> list[str]:
    """The vaelib modules that have changed, or gone, since the chapter ran."""
    made_with = read(path).metadata.get("vaelib", {}).get("modules", {})
    now = module_hashes((root / "vaelib").glob("*.py"))
    return [name for name, sha256 in made_with.items() if now.get(name) != sha256]


def address(root: Path = ROOT, of: str = "Repository") -> str:
    """An address in pyproject.toml, the repository's or another, empty where it has none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get(of, "")


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


# ---- checks: each returns sentences, none where all is well ---------------------------------


def text_of(output: nbformat.NotebookNode) -> str:
    """An output's text; pictures and packed numbers left out, for they may spell anything."""
    if output.output_type == "stream":
        return output.text
    texts = [
        value if isinstance(value, str) else json.dumps(value)
        for mime, value in output.get("data", {}).items()
        if mime == "image/svg+xml" or not mime.startswith("image/")
    ]
    return BASE64.sub("", "\n".join(texts))


def name_of(cell: nbformat.NotebookNode) -> str:
    return f"cell {cell.get('id', '?')} ({(cell.source.strip().splitlines() or [''])[0][:40]})"


def stamp_problems(path: Path) -> list[str]:
    """Whether the stored outputs are those of the code, whole and clean."""
    notebook = read(path)
    code = code_cells(notebook)
    stamp = notebook.metadata.get("vaelib", {})
    again = f"run `make run CHAPTER={path.name[:2]}`"
    found = []
    if not stamp:
        found.append(f"has no stamp: {again}")
    elif stamp.get("code_sha256") != code_sha256(notebook):
        found.append(f"its code has changed since its outputs were stored: {again}")
    if stamp and stamp.get("budget") != "full":
        found.append(f"its outputs are of budget {stamp.get('budget')!r}, not 'full': {again}")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append(f"its cells were not run once each and in order: {again}")
    if not any(cell.outputs for cell in code):
        found.append(f"stores no outputs: {again}")
    if path.stat().st_size > MAX_BYTES:
        found.append(f"has {path.stat().st_size:,} bytes; {MAX_BYTES:,} is the limit")
    for key in ("widgets", "papermill"):
        if key in notebook.metadata:
            found.append(f"stores {key} metadata: {again}")
    for cell in notebook.cells:
        name = name_of(cell)
        if "execution" in cell.metadata:
            found.append(f"{name} stores its timing")
        if MACHINE_PATH.search(cell.source):
            found.append(f"{name} names a path of one machine")
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"{name} stores an error, {output.ename}")
                continue
            if output.get("name") == "stderr":
                found.append(f"{name} stores stderr")
            if WIDGET in output.get("data", {}):
                found.append(f"{name} stores a widget's random id")
            if match := MACHINE_PATH.search(text_of(output)):
                found.append(f"{name} stores a path of one machine, {match[0]}")
            if MEMORY_ADDRESS.search(text_of(output)):
                found.append(f"{name} stores a memory address")
    return found


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
    if not any(VERDICT in output.get("data", {}) for cell in code for output in cell.outputs):
        found.append("displays no verdict record")
    return found + checked_output_problems(code) + exercise_problems(notebook)


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


def exercise_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Numbered exercises, each followed by a solution that is folded in all three places."""
    found, exercises, solved, current = [], [], set(), None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if match := re.match(r"### Exercise (\d+): \S", line):
                    current = int(match[1])
                    exercises.append(current)
                elif re.match(r"#{1,3} ", line):
                    current = None
        elif cell.cell_type == "code":
            folded = {
                "tag hide-input": "hide-input" in cell.metadata.get("tags", []),
                "jupyter.source_hidden": cell.metadata.get("jupyter", {}).get("source_hidden")
                is True,
                "cellView: form": cell.metadata.get("cellView") == "form",
            }
            if all(folded.values()):
                solved.add(current)
            elif any(folded.values()):
                missing = ", ".join(mark for mark, there in folded.items() if not there)
                found.append(f"{name_of(cell)} is folded in part: it lacks {missing}")
    if len(exercises) < MIN_EXERCISES or exercises != list(range(1, len(exercises) + 1)):
        found.append(
            f"its headings `### Exercise N: ...` are numbered {exercises}; "
            f"1 to at least {MIN_EXERCISES} expected"
        )
    found += [f"exercise {n} has no folded solution" for n in exercises if n not in solved]
    return found


# ---- command line --------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="execute chapters, store their outputs, stamp them")
    running.add_argument("numbers", nargs="+", metavar="NUMBER", help="as 05")
    commands.add_parser("check", help="stamps, stored outputs and form; runs nothing")
    commands.add_parser("stale", help="list chapters made with other vaelib modules than today's")
    commands.add_parser("address", help="write the repository's address into the setup cells")
    given = parser.parse_args(arguments)

    if given.command == "run":
        results = [run(path) for path in [find(number) for number in given.numbers]]
        return 0 if all(results) else 1
    bad = 0
    for path in chapters():
        if given.command == "check":
            problems = stamp_problems(path) + form_problems(path)
            bad += len(problems)
            for problem in problems or ["ok"]:
                print(f"{path.name}: {problem}")
        elif given.command == "stale" and (modules := stale(path)):
            print(f"{path.name}: older than {', '.join(modules)}")
        elif given.command == "address" and write_setup(path):
            print(f"{path.name}: setup cell written")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
