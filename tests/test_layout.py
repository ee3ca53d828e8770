"""What holds for all of src, whatever it does: packages stand on what others offer, not on what others hide."""

from __future__ import annotations

import ast
import functools
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"
SEAMED = {"Engine", "JobQueue", "Reactor"}

LONG = 600  # lines
REASON = "The file is long because"


@functools.cache
def sources() -> dict[Path, ast.Module]:
    """Return what each file says."""
    return {path.relative_to(SRC): ast.parse(path.read_text()) for path in sorted(SRC.rglob("*.py"))}


def package(path: Path) -> str:
    """Return the package at the top that a file belongs to."""
    return path.parts[0]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def names_defined() -> dict[str, set[str]]:
    """Return which private names of objects and modules each package defines."""
    defined: dict[str, set[str]] = defaultdict(set)
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined[package(path)].add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    defined[package(path)].add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined[package(path)].add(node.id)
    return defined


def private_attributes() -> Iterator[tuple[Path, int, str]]:
    """Yield every private attribute of anything but the object itself that a file touches."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield path, node.lineno, node.attr


def test_nothing_subclasses_the_engine_the_queue_or_the_reactor() -> None:
    subclasses = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in node.bases} & SEAMED
    ]
    assert subclasses == []


def test_no_package_touches_private_attributes_of_what_another_has_made() -> None:
    defined = names_defined()
    touched = [
        f"{path}:{line}: {name}"
        for path, line, name in private_attributes()
        if name not in defined[package(path)] and any(name in names for names in defined.values())
    ]
    assert touched == []


def test_no_package_imports_private_names_of_another() -> None:
    imported = [
        f"{path}:{node.lineno}: {alias.name}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module
        for alias in node.names
        if is_private(alias.name) and node.module.partition(".")[0] != package(path)
        if node.module.partition(".")[0].startswith("gear")
    ]
    assert imported == []


def test_a_long_file_says_at_its_beginning_why_it_is_long() -> None:
    long = {
        path
        for path, tree in sources().items()
        if len((SRC / path).read_text().splitlines()) > LONG and REASON not in (ast.get_docstring(tree) or "")
    }
    assert long == set()


def test_exceptions_that_linters_no_longer_need_are_errors() -> None:
    tools = tomllib.loads((SRC.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["warn_unused_ignores"]
    assert "RUF" in tools["ruff"]["lint"]["select"]
    assert "RUF100" not in tools["ruff"]["lint"]["ignore"]
    for contract in tools["importlinter"]["contracts"]:
        assert contract["unmatched_ignore_imports_alerting"] == "error"
        assert "ignore_imports" not in contract


def test_classes_below_the_idioms_document_their_public_attributes() -> None:
    undocumented = [
        f"{path}:{cls.lineno}: {cls.name}.{name}"
        for path, tree in sources().items()
        if package(path) in ("gearproto", "gear_net")
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for name in sorted(attributes_begun(cls))
        if not is_private(name) and f"{name}:" not in (ast.get_docstring(cls) or "")
    ]
    assert undocumented == []


def attributes_begun(cls: ast.ClassDef) -> set[str]:
    """Return the attributes that ``__init__`` of a class gives its objects."""
    return {
        node.attr
        for method in cls.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }
