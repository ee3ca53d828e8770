"""What type checkers say of programs: nothing of good ones, and where the mistake is in bad ones.

Each row is a program of a few lines. All rows are one file, so that each checker runs once.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parent.parent.parent

HEAD = """
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import gear_anyio
import gear_sync
from gear_sync import JSON, TEXT, Function, JobHandle, JobRequest

length: Function[str, int] = Function("length", takes=TEXT, returns=JSON)
client = gear_sync.Client("localhost")
worker = gear_sync.Worker("localhost")
tasks = gear_anyio.Client("localhost")
task_worker = gear_anyio.Worker("localhost")
"""

GOOD = {
    "result of a function without types": 'assert_type(client.submit("f", b"x").result(), bytes)',
    "result of a typed function": 'assert_type(client.submit(length, "x").result(), int)',
    "job of a typed function": 'assert_type(client.submit(length, "x", unique="u"), gear_sync.Job[int])',
    "job without types": 'job: gear_sync.Job = client.submit("f")',
    "call": 'assert_type(client.call(length, "x"), int)',
    "many": 'assert_type(client.submit_many(length, ["x", "y"]), list[gear_sync.Job[int]])',
    "many requests": 'assert_type(client.submit_many([JobRequest("f")]), list[gear_sync.Job])',
    "as_completed": """
for job in client.as_completed(client.submit_many(length, ["x"])):
    assert_type(job.result(), int)
""",
    "background": """
assert_type(client.submit_background(length, "x", delay=1.5), JobHandle)
assert_type(client.submit_background("f", b"x", run_at=1.5e9), JobHandle)
client.submit_background_many(length, ["x"])
""",
    "tasks": """
async def use() -> None:
    assert_type(await (await tasks.submit("f", b"x")).result(), bytes)
    assert_type(await (await tasks.submit(length, "x")).result(), int)
    assert_type(await tasks.call(length, "x"), int)
    assert_type(await tasks.submit_many(length, ["x"]), list[gear_anyio.Job[int]])
    assert_type(await tasks.submit_background(length, "x", delay=1), JobHandle)
    async for job in tasks.as_completed(await tasks.submit_many(length, ["x"])):
        assert_type(await job.result(), int)
""",
    "functions": """
@worker.function("plain")
def plain(job: gear_sync.WorkerJob) -> bytes:
    return job.workload

@worker.function("nothing")
def nothing(job: gear_sync.WorkerJob) -> None: ...

@worker.function("pieces", timeout=5)
def pieces(job: gear_sync.WorkerJob) -> Iterator[bytes]:
    yield job.workload

@worker.function("without")
def without(job):  # type: ignore[no-untyped-def]
    return job.workload

worker.register("lambda", lambda job: job.workload)
assert_type(plain(gear_sync.WorkerJob.__new__(gear_sync.WorkerJob)), bytes)
""",
    "typed function": """
@worker.serve(length)
def measure(text: str, job: gear_sync.WorkerJob) -> int:
    return len(text)
""",
    "functions of tasks": """
@task_worker.function("coroutine")
async def coroutine(job: gear_anyio.WorkerJob) -> bytes:
    return job.workload

@task_worker.function("pieces")
async def pieces(job: gear_anyio.WorkerJob) -> AsyncIterator[bytes]:
    yield job.workload

@task_worker.function("thread")
def thread(job: gear_anyio.ThreadJob) -> bytes:
    return job.workload

task_worker.register("lambda", lambda job: job.workload)
""",
    "typed functions of tasks": """
@task_worker.serve(length)
async def measure(text: str, job: gear_anyio.WorkerJob) -> int:
    return len(text)

@task_worker.serve(length)
def measure_in_thread(text: str, job: gear_anyio.ThreadJob) -> int:
    return len(text)
""",
}

BAD = {
    "workload that is not bytes": 'client.submit("f", "text")',
    "value of another type": "client.submit(length, b'x')",
    "typed function without its value": "client.submit(length)",
    "result taken for another type": 'wrong: str = client.submit(length, "x").result()',
    "values of another type": "client.submit_many(length, [1])",
    "background value of another type": "client.submit_background(length, 1)",
    "stream of a typed function": 'client.submit(length, "x", stream=True)',
    "call without a declaration": 'client.call("f", b"x")',
    "function that returns text": """
@worker.function("f")
def function(job: gear_sync.WorkerJob) -> str:
    return ""
""",
    "async def on the blocking worker": """
@worker.function("f")
async def function(job: gear_sync.WorkerJob) -> bytes:
    return b""
""",
    "function of another job": """
@worker.function("f")
def function(job: bytes) -> bytes:
    return job
""",
    "function without an argument": """
@worker.function("f")
def function() -> bytes:
    return b""
""",
    "function without a name": """
@worker.function
def function(job: gear_sync.WorkerJob) -> bytes:
    return b""
""",
    "pieces that are not bytes": """
@worker.function("f")
def function(job: gear_sync.WorkerJob) -> Iterator[str]:
    yield ""
""",
    "registered function that returns text": """
def function(job: gear_sync.WorkerJob) -> str:
    return ""

worker.register("f", function)
""",
    "typed function that returns another type": """
@worker.serve(length)
def function(text: str, job: gear_sync.WorkerJob) -> str:
    return text
""",
    "typed function that takes another type": """
@worker.serve(length)
def function(number: int, job: gear_sync.WorkerJob) -> int:
    return number
""",
    "typed async def on the blocking worker": """
@worker.serve(length)
async def function(text: str, job: gear_sync.WorkerJob) -> int:
    return 1
""",
    "coroutine that returns text": """
@task_worker.function("f")
async def function(job: gear_anyio.WorkerJob) -> str:
    return ""
""",
    "coroutine with the job of a thread": """
@task_worker.function("f")
async def function(job: gear_anyio.ThreadJob) -> bytes:
    return b""
""",
    "function in a thread with the job of a task": """
@task_worker.function("f")
def function(job: gear_anyio.WorkerJob) -> bytes:
    return b""
""",
    "typed coroutine that returns another type": """
@task_worker.serve(length)
async def function(text: str, job: gear_anyio.WorkerJob) -> str:
    return text
""",
    "task's workload that is not bytes": """
async def use() -> None:
    await tasks.submit("f", "text")
""",
    "task's value of another type": """
async def use() -> None:
    await tasks.submit(length, 1)
""",
}

ROWS = GOOD | BAD


def program() -> tuple[str, list[str | None]]:
    """Return all rows as one file, and the row that each of its lines belongs to."""
    lines = HEAD.splitlines()
    rows: list[str | None] = [None] * len(lines)
    for number, (name, code) in enumerate(ROWS.items()):
        added = [f"def row_{number}() -> None:", *indent(code.strip(), "    ").splitlines()]
        lines += added
        rows += [name] * len(added)
    return "\n".join(lines) + "\n", rows


def mypy_errors(path: Path) -> list[int]:
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary", str(path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.stderr == ""
    return [int(line) for line in re.findall(r"^[^:\n]+:(\d+): error:", told.stdout, re.MULTILINE)]


def pyright_errors(path: Path) -> list[int]:
    settings = {"include": [str(path)], "extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (path.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(path.parent), "--outputjson"]
    told = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    found = json.loads(told.stdout)["generalDiagnostics"]
    return [each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"]


CHECKERS: dict[str, Callable[[Path], list[int]]] = {"mypy": mypy_errors, "basedpyright": pyright_errors}


def rows_with_errors(checker: str, folder: Path) -> frozenset[str | None]:
    code, rows = program()
    path = folder / f"programs_for_{checker}.py"
    path.write_text(code)
    return frozenset(rows[line - 1] for line in CHECKERS[checker](path))


@pytest.fixture(scope="module", params=CHECKERS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> frozenset[str | None]:
    """Return the rows in which a checker finds a mistake."""
    checker: str = request.param
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    return rows_with_errors(checker, tmp_path_factory.mktemp(checker))


def test_checkers_find_the_mistakes_in_bad_programs_and_none_in_good_ones(found: frozenset[str | None]) -> None:
    assert found - BAD.keys() == set(), "mistakes in good programs"
    assert BAD.keys() - found == set(), "no mistake in bad programs"
