"""What code can reach of a package: every definition that it names, and that those name in turn.

Code names a definition by `vaelib.x`, by `from vaelib.y import z`, by chains such as
`vaelib.plots.image_grid`; imports and re-exports between are followed. Where a name cannot be
followed, more is taken, never less: a module used as a value is all of it, so is one that is asked
for a name that it does not show; a class is all its methods; what a decorator of the package
registers goes with the registry, a subclass with a base that looks at its subclasses; what a
module does beside defining goes with every module that imports it.
"""

import ast
import dis
import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType

from definitions import ASSIGNMENT, DOES, LAZY, Module, Name, imported, read_module
from hashes import dump

LOOKS_UP = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
OF_EVERY_MODULE = {"__doc__", "__file__", "__name__", "__path__"}


def looked_up(nodes: list[ast.stmt]) -> set[str]:
    """The names that code looks for in its module, as the compiler sees it."""
    found: set[str] = set()
    left = [compile(ast.Module(nodes, []), "", "exec", dont_inherit=True)]
    while left:
        code = left.pop()
        found |= {i.argval for i in dis.get_instructions(code) if i.opname in LOOKS_UP}
        left += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def chains(node: ast.AST) -> Iterator[list[str]]:
    """Each name in the code, with the attributes that are read from it: `a.b.c`."""
    rest, inner = [], node
    while isinstance(inner, ast.Attribute):
        rest, inner = [inner.attr, *rest], inner.value
    if isinstance(inner, ast.Name):
        yield [inner.id, *rest]
    else:
        for child in ast.iter_child_nodes(node):
            yield from chains(child)


def is_variable(node: ast.stmt) -> bool:
    return isinstance(node, ASSIGNMENT)


def is_told(node: ast.stmt) -> bool:
    """Whether it is a class that is told of its subclasses."""
    return any(getattr(inner, "name", "") == "__init_subclass__" for inner in ast.walk(node))


class Package:
    def __init__(self, folder: Path):
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            name = name.removesuffix(".__init__")
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            self.modules[name] = read_module(path.read_text("utf-8"), package)
        for slow in ("names", "digest", "opens_files"):
            setattr(self, slow, functools.cache(getattr(self, slow)))
        self.registered: dict[Name, set[Name]] = {}  # empty while it is being found out
        self.registered = self.registrations()

    def nodes(self, definition: Name) -> list[ast.stmt]:
        return self.modules[definition[0]].definitions.get(definition[1], [])

    def whole(self, source: str) -> set[Name]:
        """All that a module holds, and all that the modules below it hold."""
        found, seen, left = set(), set(), {source}
        while left:
            seen.add(name := left.pop())
            module = self.modules[name]
            found |= {(name, DOES)} | {(name, defined) for defined in module.definitions}
            below = {other for other in self.modules if other.startswith(f"{name}.")}
            for other, taken in (target for some in module.imports.values() for target in some):
                if (inner := f"{other}.{taken}".rstrip(".")) in self.modules:
                    below.add(inner)
                elif other in self.modules:
                    found |= self.behind(other, [taken])
            left |= below - seen
        return found

    def behind(self, source: str, path: list[str]) -> set[Name]:
        """The definitions that `source.a.b` leads to."""
        if source not in self.modules:
            return set()
        if not path:
            return self.whole(source)
        (name, *rest), module, found = path, self.modules[source], {(source, DOES)}
        targets = module.imports.get(name, [])
        imports = [target for target in targets if target != (source, name)]
        for other, taken in imports:
            found |= self.behind(other, [taken, *rest] if taken else rest)
        if LAZY in module.definitions and not (targets and module.loads.issuperset(targets)):
            found.add((source, LAZY))
        if name in module.definitions:
            found.add((source, name))
        elif imports or name in OF_EVERY_MODULE:
            pass
        elif f"{source}.{name}" in self.modules:
            found |= self.behind(f"{source}.{name}", rest)
        else:
            found |= self.whole(source)
        return found

    def named_by(self, nodes: list[ast.stmt], home: str = "") -> set[Name]:
        """What code names, by its own imports and by its module's names."""
        module = self.modules.get(home, Module())
        own: dict[str, list[Name]] = defaultdict(list)
        for node in (node for statement in nodes for node in ast.walk(statement)):
            for bound, target in imported(node, module.package):
                own[bound].append(target)
        outside, found = looked_up(nodes), set()
        for first, *rest in (chain for statement in nodes for chain in chains(statement)):
            for source, taken in own.get(first, []):
                found |= self.behind(source, [taken, *rest] if taken else rest)
            if first in outside and (first in module.definitions or first in module.imports):
                found |= self.behind(home, [first, *rest])
        return found

    def names(self, definition: Name) -> set[Name]:
        home, name = definition
        module = self.modules[home]
        found = self.named_by(self.nodes(definition), home) | {(home, DOES)}
        if name == DOES:
            loaded = {s for s, _ in module.loads} | {f"{s}.{taken}" for s, taken in module.loads}
            found |= {(source, DOES) for source in loaded if source in self.modules}
        return found

    def reach(self, roots: Iterable[Name]) -> set[Name]:
        """These definitions and all that they lead to."""
        found, left = set(), set(roots)
        while left:
            found.add(definition := left.pop())
            left |= (self.names(definition) | self.registered.get(definition, set())) - found
        return found

    def registrations(self) -> dict[Name, set[Name]]:
        """By registry, what is put there when a module is imported."""
        found: dict[Name, set[Name]] = defaultdict(set)
        for home, module in self.modules.items():
            for name, nodes in module.definitions.items():
                for node in nodes:
                    for part, keeps in (("decorator_list", is_variable), ("bases", is_told)):
                        at = [ast.copy_location(ast.Expr(v), v) for v in getattr(node, part, [])]
                        named = {d for d in self.named_by(at, home) if d[1] != DOES}
                        for other in self.reach(named) - {(home, name)}:
                            if any(map(keeps, self.nodes(other))):
                                found[other].add((home, name))
        return found

    def opens_files(self, definition: Name) -> bool:
        """Whether it opens files of its package: any of them, as far as can be told."""
        imports, names = self.modules[definition[0]].imports, looked_up(self.nodes(definition))
        sources = {source for name in names for source, _ in imports.get(name, [])}
        return "importlib.resources" in sources

    def digest(self, definition: Name) -> str:
        """Of what a definition does, and of what the names stand for that it imports."""
        module, nodes = self.modules[definition[0]], self.nodes(definition)
        used = sorted((n, module.imports[n]) for n in looked_up(nodes) if n in module.imports)
        return hashlib.sha256(f"{dump(nodes)} {used}".encode()).hexdigest()[:12]
