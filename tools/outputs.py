"""Whether a chapter's stored outputs are those of its code, whole and clean."""

import json
import re
from pathlib import Path

import nbformat

from hashes import code_sha256
from notebooks import code_cells, name_of, read
from running import WIDGET

MAX_BYTES = 1_000_000

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:root|work|tmp)/[\w.-]|home/\w+)")
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")  # may spell anything


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
