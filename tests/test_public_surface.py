"""What programs import: one list for both idioms, the same in both but for `await`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_overloads

import pytest

import gear_anyio
import gear_sync
import gearproto

ROOT = Path(__file__).parent.parent
FOR_DEVELOPERS = {"fuzzing.md", "testing.md"}  # of parsers and servers, who test what is inside
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.py")))
    if page.name not in FOR_DEVELOPERS
]

CORE = {"gearproto", *(f"gearproto.{name}" for name in ("admin", "events", "packets", "server"))}
OFFERED = {"gear_sync", "gear_anyio", *CORE}

OF_ASYNC = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
}
"""What asynchronous classes call what others call otherwise."""

OF_ONE_IDIOM = {
    "Server": {"__enter__", "__exit__", "call_soon", "serve_forever", "serve", "serve_stream"},
    "Worker": {"__enter__", "__exit__", "close"},
}
"""A task is cancelled, a thread has to be told: how servers and workers run, and are ended, is each idiom's own."""

MADE_BY_USERS = {"Client", "Server", "Worker"}  # of the others, `__init__` is none of the users' business

PUBLIC = {
    "Admin": """cancel create_function drop_function jobs max_queue pid priority_status shutdown status unique_jobs
        verbose version workers""",
    "Client": """__enter__ __exit__ __init__ admin_of as_completed call close echo status status_unique submit
        submit_background submit_background_many submit_many""",
    "Job": """__iter__ cancel events function handle outcome progress result server status unique wait wait_queued""",
    "JobEvents": "__next__ close",
    "Server": "__init__ address close port reload_tls snapshot stop",
    "Worker": "__init__ abort function register run serve stop unregister",
    "WorkerJob": "function handle progress reducer send time_left timeout unique warn workload",
}
"""All that the classes of both idioms offer, under the names of `gear_sync`."""


def test_both_idioms_export_the_same_names() -> None:
    assert set(gear_anyio.__all__) - set(gear_sync.__all__) == {"ThreadJob"}
    assert set(gear_sync.__all__) <= set(gear_anyio.__all__)


def members(kind: type) -> dict[str, object]:
    """Return what a class offers that is not private, under the names of `gear_sync`."""
    special = {*OF_ASYNC, *OF_ASYNC.values()} | ({"__init__"} if kind.__name__ in MADE_BY_USERS else set())
    found = {
        OF_ASYNC.get(name, name): member
        for owner in reversed(kind.__mro__)
        if owner.__module__.startswith("gear")
        for name, member in vars(owner).items()
        if not name.startswith("_") or name in special
    }
    return {name: member for name, member in found.items() if name not in OF_ONE_IDIOM.get(kind.__name__, ())}


def face(member: object) -> list[str]:
    """Return signatures and docstring of a member, without what makes it asynchronous."""
    signatures = [str(inspect.signature(each)) for each in (member, *overloads(member)) if callable(each)]
    return [plain(text) for text in (*signatures, inspect.getdoc(member) or "")]


def overloads(member: object) -> list[object]:
    return list(get_overloads(member)) if inspect.isfunction(member) else []


def plain(text: str) -> str:
    """Return signature or docstring without what makes a method asynchronous."""
    text = re.sub(r"\bAsync(?=Iterator)|, task_status: [^)]*(?=\))|\n {4}task_status: .*|\b(?:async|await) ", "", text)
    return text.replace("concurrency: 'int' = 1", "threads: 'int' = 0")


def without_jobs_at_once(texts: list[str]) -> list[str]:
    return [re.sub(r"\n {4}(?:threads|concurrency): .*", "", text) for text in texts]


@pytest.mark.parametrize("name", PUBLIC)
def test_classes_offer_the_same_in_both_idioms_and_nothing_by_accident(name: str) -> None:
    blocking, asynchronous = (members(getattr(package, name)) for package in (gear_sync, gear_anyio))
    assert set(blocking) == set(asynchronous) == {*PUBLIC[name].split()}
    for method in blocking:
        ours, theirs = face(blocking[method]), face(asynchronous[method])
        assert without_jobs_at_once(ours) == without_jobs_at_once(theirs), method


def test_every_class_of_an_idiom_is_compared() -> None:
    own = {name for name in gear_sync.__all__ if "gear_sync" in getattr(getattr(gear_sync, name), "__module__", "")}
    assert own == {*PUBLIC}


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
