"""Links between the built pages: every relative address and every anchor leads somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import toc_pages

EVERYWHERE = {"", "top"}  # anchors that every browser knows


class Page(HTMLParser):
    """The anchors of a page, and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.references: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if not value:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src", "poster"):
                self.references.append(value)


@pytest.fixture(scope="module")
def parsed(pages: Path) -> dict[Path, Page]:
    # By name: the folder may still hold pages of chapters that have gone.
    files = [pages / f"{name}.html" for name in (*toc_pages(), "index", "search", "genindex")]
    return {path.resolve(): Page(path) for path in files}


def fault(path: Path, reference: str, parsed: dict[Path, Page], root: Path) -> str | None:
    """What is wrong with a reference, or None. Other sites are not asked."""
    parts = urlsplit(reference)
    if parts.scheme in ("http", "https", "mailto", "data"):
        return None
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return "leads out of the folder of pages"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(root):
        return "leads out of the folder of pages"
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if target in parsed and anchor not in parsed[target].ids | EVERYWHERE:
        return f"no #{anchor} there"
    if target.suffix == ".html" and target not in parsed:
        return "no page of the book"
    return None


def test_every_link_leads_somewhere(pages: Path, parsed: dict[Path, Page]) -> None:
    root = pages.resolve()
    faults = [
        f"{path.relative_to(root)} -> {reference}: {found}"
        for path, page in sorted(parsed.items())
        for reference in dict.fromkeys(page.references)
        if (found := fault(path, reference, parsed, root))
    ]
    assert not faults, "\n".join(faults)


def test_no_page_is_unreachable(pages: Path, parsed: dict[Path, Page]) -> None:
    """From the first page, following links only."""
    root = pages.resolve()
    reached, to_visit = set(), [root / f"{toc_pages()[0]}.html"]
    while to_visit:
        path = to_visit.pop()
        if path in reached or path not in parsed:
            continue
        reached.add(path)
        for reference in parsed[path].references:
            parts = urlsplit(reference)
            if not parts.scheme and parts.path:
                to_visit.append((path.parent / unquote(parts.path)).resolve())
    assert {(root / f"{page}.html") for page in toc_pages()} - reached == set()


def test_a_name_of_the_package_is_on_one_page(parsed: dict[Path, Page], pages: Path) -> None:
    """What vaelib and one of its modules both list is shown by its short name alone."""
    names = [
        name
        for page in toc_pages()
        if page.startswith("api_")
        for name in parsed[(pages / f"{page}.html").resolve()].ids
        if name.startswith("vaelib.")
    ]
    assert len(names) == len(set(names))
    for name in ("report", "Report", "log_marginal", "Estimate", "bernoulli", "gaussian"):
        assert [n for n in names if n.rsplit(".", 1)[-1] == name] == [f"vaelib.{name}"]
