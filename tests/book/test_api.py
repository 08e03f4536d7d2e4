"""The package's pages: every public name has its place there, and an example."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import vaelib

PAGES = sorted((Path(__file__).resolve().parents[2] / "book").glob("api_*.md"))
SHOWN = [
    name
    for page in PAGES
    for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", page.read_text("utf-8"), re.M)
]
# What only other functions make: those have the example.
MADE = {"vaelib.NonFiniteError", "vaelib.Report", "vaelib.evaluate.Information"}


def found(name):
    """What a name stands for; a module that can be called stands for its function."""
    thing = pkgutil.resolve_name(name)
    return getattr(thing, name.rsplit(".", 1)[-1]) if inspect.ismodule(thing) else thing


def public_names():
    """What the modules list in `__all__`: those of vaelib itself first."""
    names = [f"vaelib.{name}" for name in vaelib.__all__]
    for module in pkgutil.iter_modules(vaelib.__path__):
        if module.name != "__main__":
            listed = getattr(importlib.import_module(f"vaelib.{module.name}"), "__all__", ())
            names += [f"vaelib.{module.name}.{name}" for name in listed]
    modules = {f"vaelib.{module.name}" for module in pkgutil.iter_modules(vaelib.__path__)}
    return [name for name in names if name not in modules or callable(pkgutil.resolve_name(name))]


def test_every_public_name_has_its_place():
    shown = {id(found(name)) for name in SHOWN}
    assert [name for name in public_names() if id(found(name)) not in shown] == []


def test_a_name_is_shown_once_and_the_way_that_users_write_it():
    assert len({id(found(name)) for name in SHOWN}) == len(SHOWN) > 80
    short = {f"vaelib.{name}" for name in vaelib.__all__} & set(public_names())
    assert short <= set(SHOWN)


@pytest.mark.parametrize("name", [name for name in SHOWN if callable(found(name))])
def test_every_function_and_class_has_an_example(name):
    assert name in MADE or re.search(r"Example:\n.*^ *>>> ", found(name).__doc__, re.M | re.S)
