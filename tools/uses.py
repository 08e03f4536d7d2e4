"""What the outputs of a chapter, or of a benchmark, depend on: vaelib's definitions, and files.

A stamp keeps a digest of each, `make stale` compares them with today's.
"""

import ast
import hashlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from definitions import Bare
from notebooks import ROOT
from reach import Name, Package

FOLDERS = ("data/results", "data/weights")
CODE = re.compile(r"\b(?:import|from) vaelib\b")


class Uses:
    """Reads a checkout once, and then says of any code what it uses there."""

    def __init__(self, root: Path = ROOT):
        self.package = Package(root / "vaelib")
        inside = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))]
        beside = [p for p in (root / "vaelib").rglob("*") if p.suffix not in (".py", ".pyc")]
        self.files = {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in [*inside, *beside]
            if path.is_file() and not path.name.startswith(".")
        }
        self.called: dict[str, set[str]] = {}
        for file in self.files:
            for name in names_of(file):
                self.called.setdefault(name, set()).add(file)

    def of(self, source: str) -> dict[str, dict[str, str]]:
        """By module, then by name, the digests of the definitions that code uses; and "files"."""
        nodes = Bare().visit(ast.parse(source)).body
        found = self.package.reach(self.roots(nodes))
        reached = map(self.package.nodes, found)
        files = {f for body in [nodes, *reached] for f in self.read_by(body)}
        if any(map(self.package.opens_files, found)):
            files |= {name for name in self.files if name.startswith("vaelib/")}
        digests: dict[str, dict[str, str]] = {}
        for home, name in sorted(found):
            if self.package.nodes((home, name)):
                digests.setdefault(home, {})[name] = self.package.digest((home, name))
        return digests | {"files": {name: self.files[name] for name in sorted(files)}}

    def roots(self, nodes: list[ast.stmt]) -> set[Name]:
        """What code names itself, also in the scripts that it keeps as texts."""
        found = self.package.named_by(nodes)
        texts = list(strings(nodes))
        for text in filter(CODE.search, texts):
            try:
                found |= self.roots(ast.parse(textwrap.dedent(text)).body)
            except SyntaxError:
                found |= self.package.behind("vaelib", [])
        if {"-m", "vaelib"} <= set(texts) or any("-m vaelib" in text for text in texts):
            found |= self.package.behind("vaelib.__main__", [])
        return found

    def read_by(self, nodes: list[ast.stmt]) -> set[str]:
        """The files that code names."""
        found = {name for text in strings(nodes) for name in self.called.get(text.strip("/"), ())}
        for node in walk(nodes):  # as `stored / "gpu"`, whose files are then listed
            if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
                found |= {name for name in self.files if node.right.value in name.split("/")[2:-1]}
        return found


def names_of(file: str) -> set[str]:
    """What code may call a file: its path or the end of it; data by stem or folder, too."""
    path = Path(file)
    names = {"/".join(path.parts[i:]) for i in range(len(path.parts))}
    if path.parts[0] == "data":
        names |= {"/".join(path.parts[i:-1]) for i in range(len(path.parts) - 2)} | {path.stem}
    return names


def walk(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    return (node for statement in nodes for node in ast.walk(statement))


def strings(nodes: list[ast.stmt]) -> Iterator[str]:
    for node in walk(nodes):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
