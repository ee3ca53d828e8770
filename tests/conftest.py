"""Hypothesis profiles, the marker ``interop``, and a short way for the garbage collector."""

import gc
import os

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
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    """Keep what lives until the end out of the garbage collector's way: to look through all tests takes it 0.15 s."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip an interop test whose programs are missing; see ``tests.harness.programs``."""
    for marker in item.iter_markers("interop"):
        for program in marker.args:
            programs.require(program)
