"""What is in the repository: small, and free of any one machine."""

import re
import subprocess

import yaml

import notebooks
import outputs

PATH = outputs.MACHINE_PATH
MIRROR = re.compile(r"--(?:extra-)?index-url|--find-links|https?://(?:localhost|127\.)[^ ]*/simple")
MAX_BYTES = 100 * 2**20  # most of it Fashion-MNIST and CIFAR-10, as data sheets say


def listed():
    """All that git has, or would take."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=notebooks.ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [notebooks.ROOT / name for name in files.split("\0") if name]


def tracked():
    return [path for path in listed() if path.is_file()]


def test_nothing_is_a_link():
    """A link's target is a path that no other test reads, and often one of this machine."""
    links = [str(path.relative_to(notebooks.ROOT)) for path in listed() if path.is_symlink()]
    assert not links, f"{links}: put the file itself there, or ignore it"


def test_repository_is_small():
    sizes = {str(path.relative_to(notebooks.ROOT)): path.stat().st_size for path in tracked()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MAX_BYTES, f"the largest are {largest}"


def machine_lines(text):
    for line in outputs.BASE64.sub("", text).splitlines():
        if PATH.search(line) or MIRROR.search(line):
            yield line.strip()[:120]


def test_no_file_names_a_path_or_a_mirror_of_one_machine():
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data or path == notebooks.ROOT / "tests/book/test_tree.py":
            continue
        text = data.decode("utf-8", errors="replace")
        if path.suffix == ".ipynb":
            continue  # test_chapters looks at these cell by cell
        found += [f"{path.relative_to(notebooks.ROOT)}: {line}" for line in machine_lines(text)]
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_should():
    assert list(machine_lines("see /home/ada/x\npip --find-links wheels")) != []
    assert list(machine_lines("cd /work/x")) != [] and list(machine_lines("/tmp/a.py")) != []
    assert list(machine_lines("https://example.org/home/work/tmp/x\n~/work/x\na/tmp/b")) == []


def test_the_workflow_runs_every_part_of_make_test():
    makefile = (notebooks.ROOT / "Makefile").read_text(encoding="utf-8")
    whole = re.search(r"^test: (.*?) ##", makefile, re.MULTILINE)[1].split()
    workflow = yaml.safe_load((notebooks.ROOT / ".github/workflows/test.yml").read_text())
    parts = " ".join(workflow["jobs"]["test"]["strategy"]["matrix"]["part"]).split()
    assert set(parts) | {"browser"} == set(whole)  # `pages` makes the browser ready
