"""What is older than the code and the files that it was made with."""

import json
from pathlib import Path

from hashes import code_sha256
from jobs import job_notebook, jobs
from notebooks import ROOT, chapters, read, source
from uses import Uses


def differences(before: dict | None, now: dict) -> str:
    """What changed between two answers of `Uses.of`, in a sentence; empty where nothing did."""
    if before is None:
        return "made in the old form: run again"
    old, new = (
        {
            name if home == "files" else f"{home}.{name}": digest
            for home, digests in uses.items()
            for name, digest in digests.items()
        }
        for uses in (before, now)
    )
    kinds = {
        "changed": [name for name in old if name in new and old[name] != new[name]],
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)


def stale_chapters(root: Path = ROOT) -> dict[str, str]:
    """By chapter, what changed since it ran. Whether its own code did is for `check` to say."""
    uses, found = Uses(root), {}
    for path in chapters(root):
        notebook = read(path)
        before = notebook.metadata.get("vaelib", {}).get("uses")
        found[path.name] = differences(before, uses.of(source(notebook)))
    return {name: said for name, said in found.items() if said}


def stale_benchmarks(root: Path = ROOT) -> dict[str, str]:
    """By benchmark, what changed since it ran, its chapter's cells first."""
    uses, found = Uses(root), {}
    for name, path in jobs(root).items():
        stored = root / "data" / "results" / f"{name}.json"
        if not stored.is_file():
            found[name] = f"not run yet: `python tools/benchmark.py {name}`"
            continue
        content, cells = json.loads(stored.read_text("utf-8")), job_notebook(name, path)
        said = differences(content.get("uses"), uses.of(source(cells)))
        if content.get("cells", code_sha256(cells)) != code_sha256(cells):
            said = "; ".join(filter(None, (f"the cells of {path.name} changed", said)))
        found[name] = said
    return {name: said for name, said in found.items() if said}
