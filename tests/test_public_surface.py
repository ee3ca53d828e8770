"""What programs import: one list for both idioms, the same in both but for `await`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gear_anyio
import gear_sync
import gearproto

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.py"))]

CORE = {"gearproto", *(f"gearproto.{name}" for name in ("admin", "events", "packets", "server"))}
OFFERED = {"gear_sync", "gear_anyio", *CORE}


def test_both_idioms_export_the_same_names() -> None:
    assert set(gear_anyio.__all__) - set(gear_sync.__all__) == {"ThreadJob"}
    assert set(gear_sync.__all__) <= set(gear_anyio.__all__)


def imports_of(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each module that the Python code of a page imports, and the line that does."""
    text = page.read_text(encoding="utf-8")
    blocks = [text] if page.suffix == ".py" else re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, ast.unparse(node)) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or "", ast.unparse(node)


def test_docstring_of_the_core_names_its_modules() -> None:
    assert all(f"`{name}" in (gearproto.__doc__ or "") for name in CORE - {"gearproto"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_import_from_no_deeper_module(page: Path) -> None:
    deep = [line for module, line in imports_of(page) if module.startswith("gear") and module not in OFFERED]
    assert deep == []
