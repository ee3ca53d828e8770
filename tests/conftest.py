"""Hypothesis profiles, the marker ``interop``, tests in parallel, and a short way for the garbage collector."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.harness")

from tests.harness import programs  # noqa: E402  (rewriting has to be registered first)

settings.register_profile(
    "ci",
    deadline=None,  # shared machines are slow at any moment
    derandomize=False,  # every run tries new examples
    print_blob=True,  # a failure can be replayed from the log
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=30)  # every run tries others
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled modules beside what pytest remembers where none may stand beside their sources.

    Without them each process of this run compiles all tests, which takes 4 s, and each program that a test starts
    compiles our packages, which takes 0.1 s.
    """
    cache = getattr(config, "cache", None)
    if sys.dont_write_bytecode and cache is not None:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(cache.mkdir("bytecode"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run tests in as many processes as there are processors, but files and single tests in this one.

    To start the processes takes a second or more, which would be most of the time that a few tests take.
    """
    if not any(Path(argument).is_dir() for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Escape lone surrogates in reports, as in captured log records: the processes exchange texts as UTF-8."""
    data = yield
    escaped: dict[str, Any] | None = _escape(data)
    return escaped


def _escape(data: Any) -> Any:
    match data:
        case str():
            return data.encode(errors="backslashreplace").decode()
        case dict():
            return {_escape(key): _escape(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(_escape(item) for item in data)
    return data


def pytest_collection_finish() -> None:
    """Keep what lives until the end out of the garbage collector's way: to look through all tests takes it 0.15 s."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip an interop test whose programs are missing; see ``tests.harness.programs``."""
    for marker in item.iter_markers("interop"):
        for program in marker.args:
            programs.require(program)
