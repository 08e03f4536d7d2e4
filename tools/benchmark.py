"""Run what a chapter's ten minutes cannot hold, and keep the results in data/results.

    python tools/benchmark.py [NAME ...] [--processes N]     NAME.json, such as evaluation

No recipe is written twice: the chapter's own cells run, those tagged NAME (see jobs.py), once a
seed, in a process of one thread, N side by side. The last leaves a dictionary named `result`.
Their `budget` is "long".

Seeds that are done are kept beside the results until all are, and so are parts of a seed that a job
names (`vaelib.results.kept`): a run that was cut goes on. They count while commit and cells are the
same. Processes that have no seed of their own left help with the parts of those that run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from threading import Lock

import nbformat

import records
import running
from hashes import code_sha256
from jobs import job_notebook, jobs, seeds_of
from notebooks import ROOT, source
from uses import Uses

RESULTS = ROOT / "data" / "results"
HELPERS = 3  # processes, at most, that help with a seed
PAUSE = 1.0  # seconds between two looks for one to help with


def run_seed(name: str, path: Path, seed: int) -> dict:
    """One seed: the job's `result`, and what it ran on."""
    notebook = job_notebook(name, path, seed)
    notebook.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(result))"))
    facts = running.execute(notebook, path.parent)
    return {"result": json.loads(notebook.cells[-1].outputs[0].text), **facts}


def in_process(name: str, seed: int, parts: Path, shared: bool = False) -> dict:
    command = [sys.executable, __file__, name, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VAELIB_KEPT": str(parts / str(seed))}
    environment |= {"VAELIB_SHARED": "1"} if shared else {}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Work:
    """Of the processes on one seed: how many are at it, and what they have spent."""

    processes: int = 0
    done: bool = False
    seconds: float = 0.0
    lock: Lock = field(default_factory=Lock)


def in_parts(name: str, seed: int, parts: Path, work: Work) -> tuple[bool, dict | None]:
    """Run a seed, or help with its parts: whether there was work; from who ends last, the run."""

    def taken() -> bool:
        return any((parts / str(seed)).glob("*.taken"))

    with work.lock:
        wanted = taken() and work.processes <= HELPERS
        if work.done or (work.processes and not wanted):
            return False, None
        work.processes += 1
    seconds = 0.0
    try:
        run = in_process(name, seed, parts, shared=True)
        seconds = run["seconds"]
    finally:
        with work.lock:
            work.seconds += seconds
            work.processes -= 1
            work.done = not work.processes
            last = work.done
    if not last:
        return True, None
    if not taken():
        return True, run
    run = in_process(name, seed, parts)  # makes what a process that failed has left
    return True, run | {"seconds": round(work.seconds + run["seconds"], 1)}


Seeds = list[tuple[Work, Callable[[], bool]]]  # and what runs each, or helps with it


def lend_a_hand(seeds: Seeds) -> None:
    """Help once with each seed that has parts; a seed may take long to name one, so look again."""
    helped: set[int] = set()
    while left := [i for i, (work, _) in enumerate(seeds) if not work.done and i not in helped]:
        helped |= {i for i in left if seeds[i][1]()}
        time.sleep(PAUSE)


def write(path: Path, content: dict) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)


def benchmark(
    name: str, path: Path, pool: ThreadPoolExecutor, everyones: Seeds | None = None
) -> Iterator[None]:
    """Hand every seed that is not done to the pool; next, helpers; last, write the results.

    Helpers help with everyone's seeds, those of other benchmarks in the same line included.
    """
    commit, started = running.commit(), date.today().isoformat()
    first = job_notebook(name, path)
    cells, uses = code_sha256(first), Uses().of(source(first))
    kept, parts = RESULTS / f".{name}.part", RESULTS / f".{name}.parts"
    runs: dict[str, dict] = {}
    before = json.loads(kept.read_text()) if kept.is_file() else {"commit": None, "cells": None}
    if (before["commit"], before["cells"]) == (commit, cells) and "-dirty" not in commit:
        runs = before["runs"]
    else:
        shutil.rmtree(parts, ignore_errors=True)
        write(kept, {"commit": commit, "cells": cells, "runs": {}})
    seeds = seeds_of(name, path)
    left = [seed for seed in seeds if str(seed) not in runs]
    print(f"{name}: {len(runs)} of {len(seeds)} seeds are done; {expected(name)}", flush=True)

    for taken in parts.glob("*/*.taken"):  # by a run that was cut
        taken.unlink()
    one_writes = Lock()
    works = {seed: Work() for seed in left}

    def one(seed: int) -> bool:
        worked, run = in_parts(name, seed, parts, works[seed])
        if run is None:
            return worked
        with one_writes:  # seeds may end at the same moment
            runs[str(seed)] = run
            write(kept, {"commit": commit, "cells": cells, "runs": runs})
        print(f"  {name}, seed {seed}: {run['seconds']:.0f} s", flush=True)
        return worked

    own: Seeds = [(works[seed], partial(one, seed)) for seed in left]
    everyones = [] if everyones is None else everyones
    everyones += own
    futures = [pool.submit(run) for _, run in own]
    yield
    futures += [pool.submit(lend_a_hand, everyones) for _ in range(HELPERS)]
    yield
    for future in futures:
        future.result()
    ordered = [runs[str(seed)] for seed in seeds]
    content = {
        "chapter": path.stem,
        "commit": commit,
        "date": started,
        "device": ordered[0]["device"],
        "threads": 1,
        "versions": ordered[0]["versions"],
        "cells": cells,
        "runs": [run["result"] | {"seconds": run["seconds"]} for run in ordered],
        "uses": uses,
    }
    write(RESULTS / f"{name}.json", content)
    kept.unlink(missing_ok=True)
    shutil.rmtree(parts, ignore_errors=True)
    print(f"  data/results/{name}.json", flush=True)


def expected(name: str) -> str:
    """How long a seed took when the last results were made."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "how long one takes, nobody knows: it has not been run before"
    last = json.loads(path.read_text())
    seconds = max(run["seconds"] for run in last["runs"])
    return f"one took {seconds / 60:.0f} minutes on {last['device']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument(
        "--processes", type=int, default=2, help="seeds side by side, of all names, 2 at first"
    )
    parser.add_argument("--seed", type=int, help="run this seed only and print its result")
    given, there = parser.parse_args(), jobs()
    if unknown := set(given.names) - set(there):
        raise SystemExit(
            f"No benchmark is named {', '.join(unknown)}; there are {', '.join(there)}."
        )
    names = given.names or list(there)
    if given.seed is not None:
        for name in names:
            print(json.dumps(run_seed(name, there[name], given.seed)))
        return
    with ThreadPoolExecutor(given.processes) as pool:
        seeds: Seeds = []
        started = [benchmark(name, there[name], pool, seeds) for name in names]
        for _ in range(3):  # all seeds wait in one line, helpers behind; then the files
            for job in started:
                next(job, None)
    records.main()


if __name__ == "__main__":
    main()
