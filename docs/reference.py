"""Writes the reference: one page for each package, with every public name. ``conf.py`` calls `write` before each build.

A name is public if it stands in ``__all__`` of one of `MODULES`. It is described once, where it first appears in
`MODULES`; other modules that export it link there.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

MODULES = {
    "gearproto": (
        "gearproto",
        "gearproto.client",
        "gearproto.worker",
        "gearproto.server",
        "gearproto.events",
        "gearproto.admin",
        "gearproto.packets",
        "gearproto.codec",
        "gearproto.functions",
        "gearproto.addresses",
        "gearproto.connection",
        "gearproto.options",
        "gearproto.standing",
        "gearproto.framing",
    ),
    "gear_net": ("gear_net.reactor", "gear_net.listening", "gear_net.tls"),
    "gear_sync": ("gear_sync",),
    "gear_anyio": ("gear_anyio",),
    "gear_testing": (
        "gear_testing.strategies",
        "gear_testing.properties",
        "gear_testing.simulator",
        "gear_testing.running",
        "gear_testing.jobs",
        "gear_testing.clock",
        "gear_testing.model",
    ),
}
"""The modules of each page, those that describe a name before those that only export it."""


def _defines(module: ModuleType) -> set[str]:
    """Return the names that a module's own text assigns."""
    tree = ast.parse(inspect.getsource(module))
    return {
        node.target.id if isinstance(node, ast.AnnAssign) else node.targets[0].id
        for node in tree.body
        if (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name))
    }


def _home(module: ModuleType, name: str) -> str:
    """Return the module in which a constant that a package exports is assigned: its description stands there."""
    tree = ast.parse(inspect.getsource(module))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = importlib.import_module("." * node.level + (node.module or ""), module.__package__)
            return source.__name__ if name in _defines(source) else _home(source, name)
    return module.__name__


def _directive(value: object) -> str:
    if isinstance(value, type):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(value) else "autodata"


def _rows(module: ModuleType, described: dict[str, str]) -> Iterator[str]:
    elsewhere = []
    for name in module.__all__:
        value = getattr(module, name)
        directive = _directive(value)
        is_data = directive == "autodata"
        known = f"{_home(module, name) if is_data else value.__module__}.{name}"
        if known in described:
            elsewhere.append(f":py:obj:`{name} <{described[known]}>`")
            continue
        target = described[known] = known if is_data else f"{module.__name__}.{name}"
        yield from (f".. {directive}:: {target}", *(["   :members:"] if isinstance(value, type) else []), "")
    if elsewhere:
        yield from (f"Also exported here: {', '.join(elsewhere)}.", "")


def pages() -> dict[str, str]:
    """Return the pages by name, in reStructuredText."""
    described: dict[str, str] = {}
    texts = {}
    for page, names in MODULES.items():
        lines = [page, "=" * len(page), ""]
        for name in names:
            if len(names) > 1:
                lines += [name, "-" * len(name), ""]
            module = importlib.import_module(name)
            lines += [f".. automodule:: {name}", "", *_rows(module, described)]
        texts[page] = "\n".join(lines)
    return texts


def write(directory: Path) -> None:
    """Write the pages into a directory, if they have changed."""
    directory.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = directory / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
