"""Modules do not import each other in circles, not even for type checkers alone."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

DIAGRAMS: Final[dict[str, Any]] = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "diagrams.py"))

DOCUMENTED: Final = {
    "gear_sync.gear.admin",
    "gear_sync.gear.connection",
    "gear_sync.gear.jobs",
    "gear_sync.gear.packet",
    "gear_sync.gear.tasks",
    "gear_sync.gear.tracking",
}
"""A circle in the documented `gear` API itself: packets, jobs and requests know their connection, and it knows them."""


def circles(graph: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """Yield the largest sets of modules that import each other, each directly or through others."""
    reached = {name: _reach(graph, name) for name in graph}
    seen: set[str] = set()
    for name in graph:
        if name not in seen and name in reached[name]:
            circle = {other for other in reached[name] if name in reached[other]}
            seen |= circle
            yield circle


def _reach(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    left = [start]
    while left:
        for other in graph[left.pop()] - reached:
            reached.add(other)
            left.append(other)
    return reached


def test_only_the_documented_gear_api_is_a_circle() -> None:
    assert list(circles(DIAGRAMS["import_graph"]())) == [DOCUMENTED]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str](), "e": {"f"}, "f": {"e", "a"}}
    assert list(circles(graph)) == [{"b", "c"}, {"e", "f"}]


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    module = tmp_path / "b.py"
    module.write_text(
        "import a\nfrom a import c\nfrom . import c as d\nfrom .c import x\n"
        "if TYPE_CHECKING:\n    from a.c import y\ndef f():\n    import os, a.c\n"
    )
    known = {"a", "a.b", "a.c", "os"}
    assert list(DIAGRAMS["imported"]("a.b", module, known)) == ["a", "a.c", "a.c", "a.c", "a.c", "os", "a.c"]
