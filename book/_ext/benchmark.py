"""Run what a chapter's ten minutes cannot hold, and keep the results in data/results.

    python book/_ext/benchmark.py [05 ...]

A chapter tags as `benchmark` the cell that ends what is to be repeated and leaves a dictionary
named `result`. Its own cells run up to there, once a seed, so no recipe is written twice.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import nbformat

import chapters

RESULTS = {"05": "first_vae", "07": "evaluation"}  # chapter -> data/results/NAME.json
SEEDS = (0, 1, 2)


def run_seed(number: str, seed: int) -> dict:
    """One seed of a chapter, up to its `benchmark` cell: its `result` and what it ran on."""
    path = chapters.find(number)
    notebook = chapters.read(path)
    (parameters,) = chapters.tagged(notebook, "parameters")
    parameters.source = f'budget = "full"\nseed = {seed}'
    (last,) = chapters.tagged(notebook, "benchmark")
    notebook.cells = notebook.cells[: notebook.cells.index(last) + 1]
    notebook.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(result))"))
    facts = chapters.execute(notebook, path.parent)
    facts.pop("modules")
    return {"result": json.loads(notebook.cells[-1].outputs[0].text), **facts}


def in_process(number: str, seed: int) -> dict:
    """The same in a process of one thread: two side by side beat two threads in one."""
    command = [sys.executable, __file__, number, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"chapter {number}, seed {seed} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def benchmark(number: str) -> None:
    commit, start = chapters.commit(), time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: in_process(number, seed), SEEDS))
    content = {
        "chapter": chapters.find(number).stem,
        "commit": commit,
        "date": date.today().isoformat(),
        "device": runs[0]["device"],
        "threads": 1,
        "versions": runs[0]["versions"],
        "seconds": round(time.perf_counter() - start, 1),
        "runs": [run["result"] | {"seconds": run["seconds"]} for run in runs],
    }
    path = chapters.ROOT / "data" / "results" / f"{RESULTS[number]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{path.relative_to(chapters.ROOT)}: {len(runs)} runs in {content['seconds']} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", default=list(RESULTS), metavar="05")
    parser.add_argument("--seed", type=int, help="run this seed only and print its result")
    arguments = parser.parse_args()
    for number in arguments.numbers:
        if number not in RESULTS:
            raise SystemExit(f"chapter {number} has no benchmark; there are: {', '.join(RESULTS)}.")
        if arguments.seed is None:
            benchmark(number)
        else:
            print(json.dumps(run_seed(number, arguments.seed)))


if __name__ == "__main__":
    main()
