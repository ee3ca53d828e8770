"""Draws the diagrams of the documentation from the code: ``python docs/diagrams.py`` writes them to ``docs/generated``.

Each is a Mermaid diagram that pages include.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gearproto.client import JOB_MOVES, JobState
from gearproto.codec import Packet
from gearproto.worker import ASSIGNMENTS, Grab, grab_cycle

DOCS = Path(__file__).parent
SRC = DOCS.parent / "src"
GROUPS = ("gearproto.client", "gearproto.worker", "gearproto.server", "gear_sync.gear")
"""Packages inside of others that are drawn by themselves."""


# Imports


def modules(src: Path = SRC) -> dict[str, Path]:
    """Return the files of all modules, by the names that they are imported by."""
    found = {}
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    """Yield which of the known modules a module imports, wherever in its text: for type checkers alone, too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                if f"{source}.{alias.name}" in known:
                    yield f"{source}.{alias.name}"
                elif source in known:
                    yield source


def import_graph() -> dict[str, set[str]]:
    """Return what each module of ours imports of ours."""
    known = modules()
    return {name: set(imported(name, path, known)) - {name} for name, path in known.items()}


def _package(name: str) -> str:
    for group in GROUPS:
        if name == group or name.startswith(f"{group}."):
            return group
    return name.partition(".")[0]


def imports_page() -> Iterator[str]:
    """Yield the lines of the graph of imports between packages.

    The modules of gearproto that are in no package of their own are one part. Its ``__init__`` is left out: it only
    gathers names.
    """
    graph: dict[str, set[str]] = {}
    for name, others in import_graph().items():
        if name != "gearproto":
            graph.setdefault(_package(name), set()).update(_package(other) for other in others)
    yield "flowchart TD"
    for package in sorted(graph):
        yield f'    {package.replace(".", "_")}["{package}"]'
    for package in sorted(graph):
        for other in sorted(graph[package] - {package}):
            yield f"    {package.replace('.', '_')} --> {other.replace('.', '_')}"


# States


def worker_cycle_page() -> Iterator[str]:
    """Yield the lines of the states of a worker that asks a server for jobs."""
    cycle = grab_cycle(asks_when_woken=True)
    yield "stateDiagram-v2"
    yield f"    [*] --> {Grab.IDLE.name}"
    yield f"    {Grab.IDLE.name} --> {Grab.ASKED.name}: the worker wants a job / GRAB_JOB"
    yield f"    {Grab.ASLEEP.name} --> {Grab.ASKED.name}: the worker can do more / GRAB_JOB"
    yield f"    {Grab.ASLEEP.name} --> {Grab.IDLE.name}: the worker wants no job"
    for (before, received), (after, sends) in cycle.items():
        if before is after or received in ASSIGNMENTS[1:]:
            continue
        assert issubclass(received, Packet)
        answer = {Grab.ASLEEP: "PRE_SLEEP", Grab.ASKED: "GRAB_JOB"}[after] if sends else ""
        yield f"    {before.name} --> {after.name}: {received.spec.name}" + f" / {answer}" * bool(answer)


def job_states_page() -> Iterator[str]:
    """Yield the lines of the states of a job that a client has submitted."""
    yield "stateDiagram-v2"
    yield f"    [*] --> {JobState.UNSENT.name}"
    for move in JOB_MOVES:
        yield f"    {move.before.name} --> {move.after.name}: {move.cause}"
    for state in JobState:
        if all(move.before is not state for move in JOB_MOVES):
            yield f"    {state.name} --> [*]"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "imports.md": imports_page,
    "job_states.md": job_states_page,
    "worker_cycle.md": worker_cycle_page,
}


def page(name: str) -> str:
    """Return the text of a page."""
    return "\n".join(("```mermaid", *PAGES[name](), "```", ""))


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / "generated" / name).write_text(page(name), encoding="utf-8")
