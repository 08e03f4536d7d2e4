"""The chapter tool: runs chapters and stamps them, and finds what is out of step.

python tools/chapters.py run 05     execute, store the outputs, stamp
python tools/chapters.py check      stamps, stored outputs and form (fast: runs nothing)
python tools/chapters.py stale      chapters and benchmarks that code or data of today changes
python tools/chapters.py address    write pyproject's repository into the setup cells
"""

import argparse
import sys

import notebooks
from form import form_problems
from outputs import stamp_problems
from running import run
from setup_cell import write_setup
from stale import stale_benchmarks, stale_chapters


def check() -> int:
    bad = 0
    for path in notebooks.chapters():
        problems = stamp_problems(path) + form_problems(path)
        bad += len(problems)
        for problem in problems or ["ok"]:
            print(f"{path.name}: {problem}")
    return 1 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="execute chapters, store their outputs, stamp them")
    running.add_argument("numbers", nargs="+", metavar="NUMBER", help="as 05")
    commands.add_parser("check", help="stamps, stored outputs and form; runs nothing")
    commands.add_parser("stale", help="list what was made with other code or data than today's")
    commands.add_parser("address", help="write the repository's address into the setup cells")
    given = parser.parse_args(arguments)

    if given.command == "run":
        results = [run(path) for path in [notebooks.find(number) for number in given.numbers]]
        return 0 if all(results) else 1
    if given.command == "check":
        return check()
    if given.command == "stale":
        for name, said in stale_chapters().items():
            print(f"{name}: {said}")
        for name, said in stale_benchmarks().items():
            print(f"benchmark {name}: {said}")
    elif given.command == "address":
        for path in notebooks.chapters():
            if write_setup(path):
                print(f"{path.name}: setup cell written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
