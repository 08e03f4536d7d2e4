"""Every chapter runs at smoke budget: by nbval against its stored outputs, by papermill with
another seed. Each run has a scratch folder of its own, so a chapter that needs a file beside it, or
leaves one behind in the repository, shows."""

import os
import subprocess
import sys

import pytest

import notebooks

EVERY_CHAPTER = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
pytestmark = pytest.mark.slow


def in_scratch(scratch, *command):
    """Run a Python module there; its output, and whether it passed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    env |= {"OMP_NUM_THREADS": "1", "VAELIB_PROGRESS": "0"}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=scratch,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return result.stdout, result.returncode == 0


def nbval(path, scratch):
    copy = scratch / path.name
    notebooks.write(notebooks.at_budget(notebooks.read(path), "smoke"), copy)
    (scratch / "pytest.ini").write_text("[pytest]\n")  # none of the repository's settings
    options = ["--nbval-lax", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]
    return in_scratch(scratch, "pytest", *options, copy.name)


def papermill(path, scratch):
    options = ["-p", "budget", "smoke", "-p", "seed", "1", "--no-progress-bar", "-k", "python3"]
    return in_scratch(scratch, "papermill", str(path), "out.ipynb", *options)


@EVERY_CHAPTER
@pytest.mark.parametrize("runner", [nbval, papermill], ids=lambda runner: runner.__name__)
def test_chapter_runs(path, runner, tmp_path):
    output, passed = runner(path, tmp_path)
    if not passed:
        pytest.fail(f"{runner.__name__} on {path.name}:\n{output[-6000:]}", pytrace=False)


@pytest.mark.parametrize("runner", [nbval, papermill], ids=lambda runner: runner.__name__)
def test_sample_runs(sample_book, runner, tmp_path):
    output, passed = runner(notebooks.find("1", sample_book), tmp_path)
    assert passed, output


def change(sample_book, folder, cell_id, source):
    notebook = notebooks.read(notebooks.find("1", sample_book))
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    cell.source = source
    path = folder / "01_changed.ipynb"
    notebooks.write(notebook, path)
    return path


def test_nbval_sees_another_output_where_it_is_asked_to(sample_book, tmp_path):
    marked = change(sample_book, tmp_path, "checked-0", "# NBVAL_CHECK_OUTPUT\nprint(7)")
    output, passed = nbval(marked, tmp_path)
    assert not passed and "mismatch" in output


def test_nbval_passes_over_outputs_that_depend_on_the_budget(sample_book, tmp_path):
    unmarked = change(sample_book, tmp_path, "noise", "assert budget == 'smoke'\nprint(budget)")
    output, passed = nbval(unmarked, tmp_path)
    assert passed, output


def test_papermill_gives_another_seed_and_sees_an_exception(sample_book, tmp_path):
    broken = change(sample_book, tmp_path, "noise", "raise RuntimeError(f'seed is {seed}')")
    output, passed = papermill(broken, tmp_path)
    assert not passed and "seed is 1" in output
