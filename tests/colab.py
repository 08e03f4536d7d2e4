"""Does the book run with what Colab ships?

    python tests/colab.py       (`make colab`)

Makes an environment of Colab's versions in .venv-colab, lets a chapter's setup cell fetch the last
commit and install it there, as on Colab, and fails where that changes a package. Then the unit
tests and every chapter run in what was fetched. An environment that is right is kept.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ROOT / "tests/unit/colab-versions.txt"
CHAPTER = ROOT / "book/foundations/01_latent_variables.ipynb"
HOME = ROOT / ".venv-colab"
FREEZE = HOME / "freeze.txt"  # what was there before vaelib; written last
CLONE = HOME / "measured-vae"  # where the setup cell puts it
PYTHON = str(HOME / "bin/python")
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
ENV |= {"OMP_NUM_THREADS": "1", "VAELIB_PROGRESS": "0"}


def python(*arguments: str, cwd: Path = HOME) -> int:
    return subprocess.run([PYTHON, *arguments], cwd=cwd, env=ENV).returncode


def pip(*arguments: str) -> None:
    if python("-m", "pip", "--disable-pip-version-check", *arguments):
        sys.exit(f"pip {arguments[0]} failed in {HOME.name}: see above.")


def frozen() -> set[str]:
    """What pip freeze lists, but for vaelib itself."""
    command = [PYTHON, "-m", "pip", "freeze", "--exclude-editable"]
    return set(subprocess.check_output(command, env=ENV, text=True).splitlines())


def make_environment(pins: list[str]) -> None:
    """Colab's versions and what they need, no more: kept where it is so, else made anew."""
    if FREEZE.exists():
        before = set(FREEZE.read_text().splitlines())
        if set(pins) <= {line.partition("+")[0] for line in before}:  # torch 2.11.0+cpu will do
            added = [re.split("==| @ ", line)[0] for line in frozen() - before]
            pip("uninstall", "-qq", "-y", "vaelib", *added)
            if frozen() == before:
                print(f"{HOME.name} has Colab's versions already.", flush=True)
                return
    print(f"Installing Colab's versions into {HOME.name} (minutes, about 6 GB) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
    pip("install", "-qq", *pins)
    FREEZE.write_text("\n".join(sorted(frozen())) + "\n")


def must_be_as_before(what: str, may_add: bool) -> None:
    before, now = set(FREEZE.read_text().splitlines()), frozen()
    gone, new = before - now, set() if may_add else now - before
    if gone or new:
        changes = [f"- {line}" for line in sorted(gone)] + [f"+ {line}" for line in sorted(new)]
        sys.exit("\n".join([f"{what} changed what Colab ships:", *changes]))
    print(f"{what} left all {len(before)} packages as they were.", flush=True)


def run_setup_cell() -> None:
    """The setup cell as a reader's kernel runs it, with this repository as its address."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "setup" in cell["metadata"].get("tags", [])]
    lines = [
        f'REPOSITORY = "{ROOT.as_uri()}"\n' if line.startswith("REPOSITORY =") else line
        for line in cell["source"]
    ]
    shutil.rmtree(CLONE, ignore_errors=True)
    check = "\nimport vaelib; print('imported from', Path(vaelib.__file__).relative_to(Path.cwd()))"
    if python("-c", "".join(lines) + check):
        sys.exit("The setup cell failed: see above.")


def main() -> None:
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    interpreter, *pins = [line for line in lines if "==" in line]
    make_environment(pins)
    print(f"Colab has {interpreter}; here it is", end=" ", flush=True)
    python("--version")
    run_setup_cell()
    must_be_as_before("The setup cell", may_add=False)
    tools = ["-e", f"{CLONE}[test]", "papermill"]
    pip("install", "-qq", "-c", str(FREEZE), *tools)
    must_be_as_before("The test tools", may_add=True)
    # What those versions need is the newest, and deprecates what they do: no fault of vaelib's.
    options = ["-q", "--durations=30", "-W", "default::DeprecationWarning"]
    tests = ["tests/unit", "tests/book/test_running.py"]
    sys.exit(python("-m", "pytest", *options, *tests, cwd=CLONE))


if __name__ == "__main__":
    main()
