"""Run what a chapter's ten minutes cannot hold, and keep the results in data/results.

    python book/_ext/benchmark.py [NAME ...]     NAME.json in data/results, such as evaluation

No recipe is written twice: the chapter's own cells run, once a seed, in a process of one thread,
two side by side. They are the cells tagged NAME, or, where there are none, all up to the cell
tagged `benchmark`; the last leaves a dictionary named `result`. Their `budget` is "long".

Seeds that are done are kept beside the results until all are, so a run that was cut goes on; they
count while commit and cells are the same.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import nbformat

import chapters

JOBS = {  # name -> chapter
    "first_vae": "05",
    "evaluation": "07",
    "mnist_minutes": "07",
    "pixel_likelihoods": "08",
    "cifar_minutes": "08",
    "rate_distortion": "09",
    "remedies": "09",
    "along_the_curve": "09",
}
RESULTS = chapters.ROOT / "data" / "results"
SEEDS = (0, 1, 2)
PICTURES = {"along_the_curve"}  # of the first seed: they are looked at, not averaged
PROCESSES = 2


def seeds_of(name: str) -> tuple[int, ...]:
    return SEEDS[:1] if name in PICTURES else SEEDS


def job_notebook(name: str, seed: int) -> nbformat.NotebookNode:
    """The chapter, cut down to the job's cells, its parameters set."""
    notebook = chapters.read(chapters.find(JOBS[name]))
    (parameters,) = chapters.tagged(notebook, "parameters")
    parameters.source = f'budget = "long"\nseed = {seed}'
    if own := chapters.tagged(notebook, name):
        notebook.cells = [parameters, *own]
    else:
        (last,) = chapters.tagged(notebook, "benchmark")
        notebook.cells = notebook.cells[: notebook.cells.index(last) + 1]
    return notebook


def run_seed(name: str, seed: int) -> dict:
    """One seed: the job's `result`, and what it ran on."""
    notebook = job_notebook(name, seed)
    notebook.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(result))"))
    facts = chapters.execute(notebook, chapters.find(JOBS[name]).parent)
    facts.pop("modules")
    return {"result": json.loads(notebook.cells[-1].outputs[0].text), **facts}


def in_process(name: str, seed: int) -> dict:
    command = [sys.executable, __file__, name, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write(path: Path, content: dict) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)


def benchmark(name: str) -> None:
    """Every seed that is not done yet, then the results' file."""
    commit, started = chapters.commit(), date.today().isoformat()
    cells = chapters.code_sha256(job_notebook(name, SEEDS[0]))
    kept = RESULTS / f".{name}.part"
    runs: dict[str, dict] = {}
    if kept.is_file():
        before = json.loads(kept.read_text())
        if (before["commit"], before["cells"]) == (commit, cells) and "-dirty" not in commit:
            runs = before["runs"]
    seeds = seeds_of(name)
    left = [seed for seed in seeds if str(seed) not in runs]
    print(f"{name}: {len(runs)} of {len(seeds)} seeds are done, {expected(name, left)}", flush=True)

    def one(seed: int) -> None:
        run = in_process(name, seed)
        runs[str(seed)] = run
        write(kept, {"commit": commit, "cells": cells, "runs": dict(runs)})
        print(f"  seed {seed}: {run['seconds']:.0f} s", flush=True)

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(one, left))
    ordered = [runs[str(seed)] for seed in seeds]
    path = RESULTS / f"{name}.json"
    content = {
        "chapter": chapters.find(JOBS[name]).stem,
        "commit": commit,
        "date": started,
        "device": ordered[0]["device"],
        "threads": 1,
        "versions": ordered[0]["versions"],
        "runs": [run["result"] | {"seconds": run["seconds"]} for run in ordered],
    }
    write(path, content)
    kept.unlink(missing_ok=True)
    print(f"  {path.relative_to(chapters.ROOT)}", flush=True)


def expected(name: str, left: list[int]) -> str:
    """How long the seeds that are left will take, by what the last results took."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "the rest takes no one knows how long: it has not been run before."
    seconds = max(run["seconds"] for run in json.loads(path.read_text())["runs"])
    rounds = -(-len(left) // PROCESSES)
    return f"the rest takes about {rounds * seconds / 60:.0f} minutes on a machine like the last."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(JOBS), metavar="name")
    parser.add_argument("--seed", type=int, help="run this seed only and print its result")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(JOBS):
        raise SystemExit(
            f"No benchmark is named {', '.join(unknown)}; there are {', '.join(JOBS)}."
        )
    for name in arguments.names:
        if arguments.seed is None:
            benchmark(name)
        else:
            print(json.dumps(run_seed(name, arguments.seed)))


if __name__ == "__main__":
    main()
