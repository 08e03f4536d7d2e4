"""What a module defines: the statements behind each name at its top level, and its imports.

Docstrings and annotations are taken out, for they change nothing that runs.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

DOES = "<module>"  # the name of what a module does beside defining
LAZY = "__getattr__"
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
ASSIGNMENT = ast.Assign | ast.AnnAssign | ast.AugAssign
OF_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")  # the annotations that a dataclass reads

Name = tuple[str, str]  # a module and a name in it; the name is "" for the module itself


@dataclass
class Module:
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, list[Name]] = field(default_factory=dict)
    loads: set[Name] = field(default_factory=set)  # the imports that run with it
    package: str = ""  # where its relative imports start


class Bare(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        node.returns = None
        return self.visit_ClassDef(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), node)]
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        text = " ".join(name for name in OF_FIELDS if name in ast.unparse(node.annotation))
        node.annotation = ast.copy_location(ast.Constant(text), node.annotation)
        return self.generic_visit(node)


def imported(node: ast.AST, package: str) -> Iterator[tuple[str, Name]]:
    """(a name, what it stands for) for each name that an import binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, (whole, "")
    elif isinstance(node, ast.ImportFrom):
        base = package.rsplit(".", node.level - 1)[0] if node.level else ""
        source = ".".join(filter(None, (base, node.module)))
        for alias in node.names:
            if alias.name == "*":
                raise ValueError(f"`from {source} import *` hides which names are used.")
            yield alias.asname or alias.name, (source, alias.name)


def at_top(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and what is in it, without the insides of functions and classes."""
    yield node
    if not isinstance(node, FUNCTION | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from at_top(child)


def read_module(source: str, package: str) -> Module:
    """A statement that is no definition, such as a call or an `if`, belongs to `DOES`."""
    module = Module(package=package)
    for statement in Bare().visit(ast.parse(source)).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the module's docstring
        inside = list(at_top(statement))
        for_types = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        for bound, target in (pair for node in inside for pair in imported(node, package)):
            module.imports.setdefault(bound, []).append(target)
            if not for_types:
                module.loads.add(target)
        stored = [node for node in inside if isinstance(getattr(node, "ctx", None), ast.Store)]
        names = {node.id for node in stored if isinstance(node, ast.Name)}
        names |= {n.name for n in inside if isinstance(n, FUNCTION | ast.ClassDef)}
        into = any(isinstance(node, ast.Attribute | ast.Subscript) for node in stored)
        defines = isinstance(statement, FUNCTION | ast.ClassDef | ASSIGNMENT) and not into
        harmless = for_types or isinstance(statement, ast.Import | ast.ImportFrom)
        for name in names if defines or harmless else names | {DOES}:
            module.definitions.setdefault(name, []).append(statement)
    return module
