from datetime import UTC, datetime, timedelta, timezone

import pytest

from gearproto import LocalProtocolError, Priority
from gearproto.addresses import parse_address
from gearproto.packets import (
    Packet,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)
from gearproto.tasks import JobHandle, Task, as_bytes


@pytest.mark.parametrize(("name", "raw"), [("é", "é".encode()), (b"\xff", b"\xff"), ("", b"")])
def test_text_goes_over_the_wire_as_utf_8_and_bytes_as_they_are(name: str | bytes, raw: bytes) -> None:
    assert as_bytes(name) == raw


@pytest.mark.parametrize(
    ("task", "background", "packet"),
    [
        (Task("f"), False, SubmitJob(b"f", b"", b"")),
        (Task("é", b"w", "ü"), False, SubmitJob("é".encode(), "ü".encode(), b"w")),
        (Task(b"f", b"w", b"u"), True, SubmitJobBg(b"f", b"u", b"w")),
        (Task("f", priority=Priority.HIGH), False, SubmitJobHigh(b"f", b"", b"")),
        (Task("f", priority=Priority.LOW), True, SubmitJobLowBg(b"f", b"", b"")),
        (Task("f", b"w", "u", reducer="é"), False, SubmitReduceJob(b"f", b"u", "é".encode(), b"", b"w")),
        (Task("f", b"w", "u", reducer=b""), True, SubmitReduceJobBackground(b"f", b"u", b"", b"", b"w")),
        (Task("f", b"w", run_at=0), True, SubmitJobEpoch(b"f", b"", 0, b"w")),
        (Task("f", b"w", run_at=12.9), True, SubmitJobEpoch(b"f", b"", 12, b"w")),
        (Task("f", run_at=datetime(1970, 1, 2, tzinfo=UTC)), True, SubmitJobEpoch(b"f", b"", 86400, b"")),
        (
            Task("f", run_at=datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=1)))),
            True,
            SubmitJobEpoch(b"f", b"", 82800, b""),
        ),
    ],
)
def test_task_is_the_packet_of_its_fields(task: Task, background: bool, packet: Packet) -> None:
    assert task.packet(background=background) == packet


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("f", run_at=datetime(2030, 1, 1)), "client: run_at needs a time zone"),  # noqa: DTZ001
        (Task("f", run_at=5), "client: SUBMIT_JOB_EPOCH is for background jobs without a reducer"),
        (Task("f", reducer="r", priority=Priority.LOW), "client: a delayed or reduce job has normal priority, not LOW"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(task: Task, message: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        task.packet()
    assert str(caught.value) == message


def test_handle_is_the_bytes_of_the_server_and_knows_the_server() -> None:
    address = parse_address("a.example:1")
    handle = JobHandle(b"H:a:1", address)
    assert handle == b"H:a:1"
    assert {handle: 1}[b"H:a:1"] == 1  # type: ignore[index]
    assert handle.server == address


@pytest.mark.parametrize("run_at", [float("nan"), float("inf"), float("-inf")])
def test_time_that_is_none_is_refused(run_at: float) -> None:
    with pytest.raises(LocalProtocolError, match="which is no time"):
        Task("f", run_at=run_at).packet(background=True)
