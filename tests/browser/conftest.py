"""The built pages, a server for them, and a browser a colour mode."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PAGES, ROOT, Browser, serve, toc_pages


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of built pages: what `make book` left, else built now."""
    if (PAGES / "index.html").exists():
        missing = [page for page in toc_pages() if not (PAGES / f"{page}.html").exists()]
        assert not missing, f"built before {missing} came into _toc.yml: run `make book` again"
        return PAGES
    out = tmp_path_factory.mktemp("site")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book"]
    command += ["--config", "_config.yml", "--path-output", str(out), "-W", "--keep-going"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, f"the book does not build:\n{built.stdout}\n{built.stderr}"
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def address(pages: Path) -> Iterator[str]:
    with serve(pages) as address:
        yield address


@pytest.fixture(scope="session")
def light() -> Iterator[Browser]:
    with Browser(dark=False) as browser:
        yield browser


@pytest.fixture(scope="session")
def dark() -> Iterator[Browser]:
    with Browser(dark=True) as browser:
        yield browser
