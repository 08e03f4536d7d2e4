"""The page "Bring your own model": its code runs, in order, and prints what the page says."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "book" / "bring_your_own.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    """(code, the text that it prints) in the order of the page."""
    found = FENCE.findall(PAGE.read_text())
    following = [*found[1:], ("", "")]
    return [
        (code, after[1] if after[0] == "text" else "")
        for (kind, code), after in zip(found, following)
        if kind == "python"
    ]


def test_every_block_runs_and_prints_what_the_page_says():
    """A text block is matched as doctests are: free in white space, and `...` for anything."""
    namespace: dict[str, object] = {}
    same = doctest.OutputChecker().check_output
    loosely = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for number, (code, expected) in enumerate(blocks(), 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"block {number} of {PAGE.name}", "exec"), namespace)
        got = printed.getvalue()
        assert same(expected, got, loosely), f"block {number} printed:\n{got}"


def test_the_page_is_short_and_its_lines_fit():
    prose = FENCE.sub("", PAGE.read_text())
    assert len(prose.split()) < 1500
    assert max(len(line) for code, text in blocks() for line in (code + text).splitlines()) <= 76


@pytest.mark.parametrize("name", ["_toc.yml", "glossary.md"])
def test_the_page_is_found(name):
    assert "bring_your_own" in (PAGE.parent / name).read_text()
