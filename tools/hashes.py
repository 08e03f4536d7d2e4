"""Hashes of what code does: comments and format are free."""

import ast
import hashlib

import nbformat

from notebooks import source


def dump(node: object) -> str:
    """`ast.dump` without empty fields: those differ between Python 3.11, 3.12 and 3.13."""
    if isinstance(node, list):
        return f"[{', '.join(dump(item) for item in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):  # early 3.12 leaves neighbouring texts unjoined
        node = ast.JoinedStr(joined_texts(node.values))
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(f'{n}={dump(v)}' for n, v in fields)})"


def joined_texts(values: list[ast.expr]) -> list[ast.expr]:
    out: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and out and isinstance(out[-1], ast.Constant):
            out[-1] = ast.Constant(out[-1].value + value.value)
        else:
            out.append(value)
    return [value for value in out if not (isinstance(value, ast.Constant) and value.value == "")]


def source_sha256(text: str) -> str:
    """A hash of what the code does: comments and format are free."""
    return hashlib.sha256(dump(ast.parse(text)).encode()).hexdigest()


def code_sha256(notebook: nbformat.NotebookNode) -> str:
    """The same for a chapter's code cells; the setup cell may change without a new run."""
    return source_sha256(source(notebook))
