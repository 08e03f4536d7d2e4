"""The API page, made from the signatures and docstrings of a package's public names.

`{api} vaelib` lists `vaelib.__all__` in its order, grouped by the module that defines a name; a
name that is a module itself (`vaelib.data`) brings its own `__all__`. Sphinx's autodoc is not
used because it reads docstrings as reStructuredText, where log p(x|z) and 2*K are markup. Ours
are plain prose: paragraphs, lists that start with a dash, ``code``, and indented code.
"""

import dataclasses
import enum
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)


def annotation_text(annotation: object) -> str:
    """A type as a reader writes it: `Tensor`, not `torch.Tensor`."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"ForwardRef\('([^']*)'\)", r"\1", text)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def default_text(value: object) -> str:
    """A default value without the memory addresses that some have in their repr."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, enum.Enum):
        return str(value)
    text = repr(value)
    return "..." if " at 0x" in text or text == "<factory>" else text


def signature_text(name: str, function: object, width: int = 76) -> str:
    """`name(x, *, y=0) -> Tensor`, a line a parameter where it is longer than `width`."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return name
    parts, before = [], None
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls") and before is None and not parts:
            continue
        kind = parameter.kind
        if before is inspect.Parameter.POSITIONAL_ONLY and kind is not before:
            parts.append("/")
        if kind is inspect.Parameter.KEYWORD_ONLY and before not in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            parts.append("*")
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        text = stars.get(kind, "") + parameter.name
        typed = parameter.annotation is not parameter.empty
        if typed:
            text += f": {annotation_text(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f"{' = ' if typed else '='}{default_text(parameter.default)}"
        parts.append(text)
        before = kind
    if before is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    end = ")"
    if signature.return_annotation is not signature.empty and not inspect.isclass(function):
        end += f" -> {annotation_text(signature.return_annotation)}"
    line = f"{name}({', '.join(parts)}{end}"
    if len(line) <= width:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + end


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Example):\n")

MARKUP = re.compile(
    r"``(?P<double>.+?)``|`(?P<single>[^`]+)`|"
    r"book/(?P<chapter>[\w/]+)\.ipynb|(?P<url>https?://[^\s)>\]]*[^\s)>\].,;:])"
)


def inline(text: str) -> list[nodes.Node]:
    """Prose with ``code`` (or `code`), addresses, and chapters by their path in it."""
    text = " ".join(text.split())
    result: list[nodes.Node] = []
    end = 0
    for match in MARKUP.finditer(text):
        result.append(nodes.Text(text[end : match.start()]))
        end = match.end()
        if code := match["double"] or match["single"]:
            result.append(nodes.literal(code, code))
        elif chapter := match["chapter"]:
            result.append(chapter_link(chapter, match[0]))
        else:
            result.append(nodes.reference("", match["url"], refuri=match["url"]))
    result.append(nodes.Text(text[end:]))
    return result


def chapter_link(docname: str, text: str) -> nodes.Node:
    """A link with the chapter's title, or just the path where the chapter is not in the book."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=False,
        refwarn=False,
    )


def prose(docstring: str) -> list[nodes.Node]:
    """A docstring as nodes: paragraphs, dash lists, indented code."""
    result: list[nodes.Node] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if block.startswith((" ", ">>> ")):
            code = textwrap.dedent(block)
            if result and isinstance(result[-1], nodes.literal_block):  # a blank line in code
                code = f"{result.pop().astext()}\n\n{code}"
            result.append(nodes.literal_block(code, code, language="python"))
            continue
        section = SECTION.match(block)
        if section:
            body = textwrap.dedent(block[section.end() :])
            result.append(nodes.paragraph("", "", nodes.strong("", section[1])))
            if section[1] == "Example":
                result.append(nodes.literal_block(body, body, language="python"))
            else:  # an entry begins where a line is not indented
                entries = re.split(r"\n(?! )", body)
                paragraphs = [nodes.paragraph("", "", *inline(entry)) for entry in entries]
                result.append(nodes.bullet_list("", *(nodes.list_item("", p) for p in paragraphs)))
            continue
        lead, *items = re.split(r"^- ", block, flags=re.M)
        # Code may follow its sentence without a blank line: "For example::" and indented lines.
        lead, _, code = re.sub(r"::\n(?= )", ":\n\0", lead).partition("\0")
        if lead.strip():
            result.append(nodes.paragraph("", "", *inline(lead.replace("::", ":"))))
        if code:
            code = textwrap.dedent(code)
            result.append(nodes.literal_block(code, code, language="python"))
        if items:
            paragraphs = [nodes.paragraph("", "", *inline(item)) for item in items]
            result.append(
                nodes.bullet_list("", *(nodes.list_item("", p) for p in paragraphs), bullet="-")
            )
    return result


def own_doc(obj: object) -> str:
    """The docstring of an object, not one that its class or a base class lends it."""
    doc = getattr(obj, "__doc__", None)
    if inspect.isclass(obj):
        doc = obj.__dict__.get("__doc__")
        if dataclasses.is_dataclass(obj) and doc and doc.startswith(f"{obj.__name__}("):
            return ""  # made up by dataclass
    elif not (inspect.isroutine(obj) or isinstance(obj, property | ModuleType)):
        doc = None if doc == type(obj).__doc__ else doc
    return doc or ""


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class defines itself and explains."""
    for name, member in cls.__dict__.items():
        member = getattr(member, "__func__", member)  # classmethod, staticmethod
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        if own_doc(member):
            yield name, member


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or else what the module itself defines without an underscore."""
    here = (n for n, o in vars(module).items() if getattr(o, "__module__", None) == module.__name__)
    return list(getattr(module, "__all__", None) or (n for n in here if not n.startswith("_")))


class Api(SphinxDirective):
    """`{api} package`: a section a module, within it a section a public name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        package = self.arguments[0]
        try:
            root = importlib.import_module(package)
        except Exception as error:  # whatever an import may raise, the page should say it
            logger.warning(
                "%s can't be imported, so its page stays empty (%s: %s). "
                "Install it with `pip install -e .` in the repository.",
                package,
                type(error).__name__,
                error,
                location=self.get_location(),
            )
            return []
        sections = [self.module(name, names) for name, names in self.groups(root)]
        return sections

    def groups(self, root: ModuleType) -> Iterator[tuple[str, list[tuple[str, object]]]]:
        """Yield (module, its public names) in the order in which `__all__` meets them."""
        groups: dict[str, list[tuple[str, object]]] = {}
        for name in root.__all__:
            if name.startswith("__"):
                continue
            obj = getattr(root, name)
            if isinstance(obj, ModuleType):
                public = [(n, getattr(obj, n)) for n in public_names(obj)]
                groups.setdefault(obj.__name__, []).extend(
                    (f"{obj.__name__}.{n}", o)
                    for n, o in public
                    if n not in root.__all__ or getattr(root, n) is not o  # shown by its short name
                )
                continue
            module = getattr(obj, "__module__", None) or root.__name__
            if not module.startswith(root.__name__):  # a name taken over from another package
                module = root.__name__
            groups.setdefault(module, []).append((f"{root.__name__}.{name}", obj))
        yield from groups.items()

    def module(self, name: str, names: list[tuple[str, object]]) -> nodes.section:
        self.env.note_dependency(getattr(sys.modules.get(name), "__file__", None) or __file__)
        # A page anchor of the module must not be that of a function of the same name.
        section = self.section(f"module-{name}", name, literal=False)
        section += prose(own_doc(sys.modules[name])) if name in sys.modules else []
        for full_name, obj in names:
            section += self.entry(full_name, obj)
        return section

    def entry(self, name: str, obj: object) -> nodes.section:
        section = self.section(name, name.rsplit(".", 1)[-1], literal=True)
        if inspect.isclass(obj) or inspect.isroutine(obj):
            section += self.signature(signature_text(name, obj))
        else:
            section += self.signature(f"{name}: {annotation_text(type(obj))}")
        doc = own_doc(obj)
        if not doc and (inspect.isclass(obj) or inspect.isroutine(obj)):
            logger.warning("%s has no docstring", name, location=self.get_location())
        section += prose(doc)
        if inspect.isclass(obj):
            entries = [
                entry
                for member_name, member in members(obj)
                for entry in self.member(name, member_name, member)
            ]
            if entries:
                section += nodes.definition_list("", *entries, classes=["api-members"])
        return section

    def member(self, cls: str, name: str, member: object) -> Iterator[nodes.Node]:
        if isinstance(member, property):
            returns = inspect.signature(member.fget).return_annotation
            text = f".{name}"
            if returns is not inspect.Signature.empty:
                text += f": {annotation_text(returns)}"
        else:
            text = f".{signature_text(name, member, width=1000)}"
        term = nodes.term("", "", nodes.literal(text, text), ids=[f"{cls}.{name}"])
        term["anchor"] = f"{cls}.{name}"
        term.line = self.lineno
        body = nodes.definition("", *prose(own_doc(member)))
        yield nodes.definition_list_item("", term, body)

    def section(self, anchor: str, title: str, literal: bool) -> nodes.section:
        section = nodes.section("", ids=[anchor], names=[anchor.lower()], classes=["api"])
        section["anchor"] = anchor
        section.line = self.lineno
        content = nodes.literal(title, title) if literal else nodes.Text(title)
        section += nodes.title(title, "", content)
        return section

    def signature(self, text: str) -> nodes.literal_block:
        return nodes.literal_block(text, text, language="python", classes=["api-signature"])


def find_checkout(app: Sphinx) -> None:
    """Let the package be imported from the repository too, not only where it is installed."""
    root = str(Path(app.srcdir).resolve().parent)
    if root not in sys.path:
        sys.path.append(root)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", find_checkout)
    app.add_directive("api", Api)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
