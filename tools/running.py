"""Run a chapter, store its outputs, tidied, and stamp it.

The stamp is the notebook's ``metadata.vaelib``.
"""

import base64
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from hashes import code_sha256
from notebooks import ROOT, code_cells, parameters, read, source, tagged, write
from uses import Uses

WIDGET = "application/vnd.jupyter.widget-view+json"
COVER = "_static/manifold.png"  # under book/


# Runs in the chapter's kernel after its last cell.
PROBE = """
import json, platform, sys
versions, device = {"python": platform.python_version()}, "cpu"
for name in ("torch", "numpy", "vaelib"):
    if name in sys.modules:
        versions[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
    device = sys.modules["torch"].cuda.get_device_name()
print(json.dumps({"versions": versions, "device": device}))
"""
# Runs before its first.
WHERE = """
print(getattr(__import__("importlib.util").util.find_spec("vaelib"), "origin", "nowhere"))
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
    with client.setup_kernel(env={**os.environ, "VAELIB_PROGRESS": "0"}):
        origin = Path(printed(client, WHERE).strip())
        if not origin.is_relative_to(folder.parents[1]):  # a stamp would tell of other code
            raise RuntimeError(
                f"the kernel would import vaelib from {origin}, not from this checkout: set "
                f"PYTHONPATH={folder.parents[1]}"
            )
        start = time.perf_counter()
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            before = time.perf_counter()
            client.execute_cell(cell, index)
            head = cell.source.strip().splitlines()[0][:60]
            print(f"{time.perf_counter() - before:8.1f} s  cell {index:3d}  {head}", flush=True)
        seconds = time.perf_counter() - start
        facts = json.loads(printed(client, PROBE))
    return {"seconds": round(seconds, 1), **facts}


def printed(client: NotebookClient, code: str) -> str:
    """What code prints in the kernel, the notebook left as it is."""
    client.nb.cells.append(cell := nbformat.v4.new_code_cell(code))
    client.execute_cell(cell, len(client.nb.cells) - 1)
    client.nb.cells.pop()
    return cell.outputs[0].text


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
    """A picture in few colours of its own: a third of the bytes, and no difference to the eye."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":  # already done
        return png
    picture = picture.convert("RGB")
    grey = all(r == g == b for _, (r, g, b) in picture.getcolors(picture.width * picture.height))
    out = io.BytesIO()
    few = picture.quantize(64 if grey else 256, dither=Image.Dither.NONE)
    few.save(out, "png", optimize=True)
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
    # Now, for by the end the tree may have moved on:
    made_from, uses = commit(path.parent), Uses(path.parents[2]).of(source(notebook))
    print(f"{path.name}:", flush=True)
    try:
        facts = execute(notebook, path.parent)
    except (CellExecutionError, RuntimeError) as error:
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
        "uses": uses,
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
