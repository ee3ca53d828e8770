"""What threads wait for."""

from __future__ import annotations

import pytest

from gear_sync import gear
from tests.harness.threads import Call


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_waiting_ends_in_time(timeout: float) -> None:
    assert gear.Task().wait(timeout) is False


@pytest.mark.parametrize("timeout", [None, 1e100, 0])
def test_a_complete_task_is_not_waited_for(timeout: float | None) -> None:
    task = gear.Task()
    for _ in range(2):
        task.setComplete()
        assert task.wait(timeout) is True


def test_all_who_wait_are_woken() -> None:
    task = gear.SubmitJobTask(gear.Job("f", b""))
    calls = [Call(task.wait) for _ in range(5)]
    task.fail("because", answered=True)
    assert [call.result() for call in calls] == [True] * 5
    assert (task.error, task.answered, task.job.name) == ("because", True, "f")
