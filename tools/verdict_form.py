"""How a chapter judges: a rule before its run, and a verdict that the record decides."""

import ast
import re

import nbformat

from notebooks import code_cells, name_of, verdicts

PLACE = 3  # of `verdict` among the arguments of `Verdict`, where it is not named


def literal_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """No verdict is written down: it could have come out otherwise."""
    trees = [(cell, ast.parse(cell.source)) for cell in code_cells(notebook)]
    bound = bindings([tree for _, tree in trees])
    return [
        f"{name_of(cell)}: the verdict can only be {only.pop()!r}; compute it from the record"
        for cell, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Verdict"
        for value in arguments(node)
        for only in [values(value, bound)]
        if only is not None and len(only) == 1
    ]


def arguments(call: ast.Call) -> list[ast.expr]:
    """What a call of `Verdict` is given as the verdict."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "verdict"]
    return given or call.args[PLACE : PLACE + 1]


def bindings(trees: list[ast.Module]) -> dict[str, list[ast.expr | None]]:
    """By name, what it is bound to in the notebook; None for what only a run can tell."""
    found: dict[str, list[ast.expr | None]] = {}
    told = set()  # the targets whose values are written beside them
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.arg):
            found.setdefault(node.arg, []).append(None)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name) and isinstance(
                node, ast.Assign | ast.AnnAssign | ast.NamedExpr
            ):
                told.add(target)
                found.setdefault(target.id, []).append(node.value)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in told:
            found.setdefault(node.id, []).append(None)
    return found


def values(value: ast.expr | None, bound: dict, seen: tuple = ()) -> set[object] | None:
    """The values that an expression can have, as far as they are written down; else None."""
    if isinstance(value, ast.Constant):
        return {value.value}
    if isinstance(value, ast.IfExp):
        parts = [value.body, value.orelse]
    elif isinstance(value, ast.Name) and value.id in bound and value.id not in seen:
        parts, seen = bound[value.id], (*seen, value.id)
    else:
        return None
    found = [values(part, bound, seen) for part in parts]
    return None if None in found else set().union(*found)


def rule_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Each claim that is judged has its rule in the text, and the run lies between the two."""
    found = []
    for judged, record in verdicts(notebook):
        claim = record["claim"]
        start = re.compile(rf"(?:\A|\n[ \t]*\n)\*\*Rule for {re.escape(claim)}\.\*\*")
        before = notebook.cells[:judged]
        rules = [
            number
            for number, cell in enumerate(before)
            if cell.cell_type == "markdown" and start.search(cell.source)
        ]
        if not rules:
            found.append(
                f"judges {claim}, but no paragraph before it starts `**Rule for {claim}.**`"
            )
        elif not any(cell.cell_type == "code" for cell in before[rules[0] :]):
            found.append(f"states its rule for {claim} after the run that it judges")
    return found
