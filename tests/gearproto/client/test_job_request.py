from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from gearproto import LocalProtocolError, Priority
from gearproto.addresses import parse_address
from gearproto.arguments import as_bytes
from gearproto.client import DEFAULT_MAX_UNIQUE_SIZE, JobHandle, JobRequest, check_max_unique_size, earliest
from gearproto.codec import Packet
from gearproto.packets import (
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)


@pytest.mark.parametrize(
    ("name", "raw"),
    [("é", "é".encode()), (b"\xff", b"\xff"), ("", b""), (bytearray(b"f"), b"f"), (memoryview(b"f"), b"f")],
)
def test_text_goes_over_the_wire_as_utf_8_and_bytes_as_they_are(name: Any, raw: bytes) -> None:
    assert as_bytes(name) == raw
    assert isinstance(as_bytes(name), bytes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (3, "a name has to be bytes, not int"),
        (None, "a name has to be bytes, not NoneType"),
        ("\udcff", r"'\\udcff' cannot be encoded as UTF-8"),
    ],
)
def test_name_that_cannot_be_sent_is_refused(name: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{message}$"):
        as_bytes(name)


@pytest.mark.parametrize(
    ("task", "background", "packet"),
    [
        (JobRequest("f"), False, SubmitJob(b"f", b"", b"")),
        (JobRequest("é", b"w", "ü"), False, SubmitJob("é".encode(), "ü".encode(), b"w")),
        (JobRequest(b"f", b"w", b"u"), True, SubmitJobBg(b"f", b"u", b"w")),
        (JobRequest("f", priority=Priority.HIGH), False, SubmitJobHigh(b"f", b"", b"")),
        (JobRequest("f", priority=Priority.LOW), True, SubmitJobLowBg(b"f", b"", b"")),
        (JobRequest("f", priority="high"), False, SubmitJobHigh(b"f", b"", b"")),
        (JobRequest("f", priority="Low"), True, SubmitJobLowBg(b"f", b"", b"")),
        (JobRequest(bytearray(b"f"), bytearray(b"w"), bytearray(b"u")), False, SubmitJob(b"f", b"u", b"w")),
        (JobRequest("f", b"w", "u", reducer=bytearray(b"r")), False, SubmitReduceJob(b"f", b"u", b"r", b"", b"w")),
        (JobRequest("f", b"w", "u", reducer="é"), False, SubmitReduceJob(b"f", b"u", "é".encode(), b"", b"w")),
        (JobRequest("f", b"w", "u", reducer=b""), True, SubmitReduceJobBackground(b"f", b"u", b"", b"", b"w")),
        (JobRequest("f", b"w", run_at=0), True, SubmitJobEpoch(b"f", b"", 0, b"w")),
        (JobRequest("f", b"w", run_at=12.9), True, SubmitJobEpoch(b"f", b"", 12, b"w")),
        (JobRequest("f", run_at=datetime(1970, 1, 2, tzinfo=UTC)), True, SubmitJobEpoch(b"f", b"", 86400, b"")),
        (
            JobRequest("f", run_at=datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=1)))),
            True,
            SubmitJobEpoch(b"f", b"", 82800, b""),
        ),
    ],
)
def test_task_is_the_packet_of_its_fields(task: JobRequest, background: bool, packet: Packet) -> None:
    assert task.packet(background=background) == packet


PRIORITIES = "which has to be a Priority or one of 'high', 'normal', 'low'"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (JobRequest("f", run_at=datetime(2030, 1, 1)), "client: run_at needs a time zone"),  # noqa: DTZ001
        (JobRequest("f", run_at=5), "client: SUBMIT_JOB_EPOCH is for background jobs without a reducer"),
        (
            JobRequest("f", reducer="r", priority=Priority.LOW),
            "client: a delayed or reduce job has normal priority, not LOW",
        ),
        (JobRequest("f", priority="urgent"), f"client: priority is 'urgent', {PRIORITIES}"),
        (JobRequest("f", priority=0), f"client: priority is 0, {PRIORITIES}"),  # type: ignore[arg-type]
        (JobRequest(""), "SUBMIT_JOB: function must not be empty"),
        (JobRequest("f", "text"), "the workload has to be bytes, not str"),  # type: ignore[arg-type]
    ],
)
def test_fields_that_do_not_go_together_are_refused(task: JobRequest, message: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        task.packet()
    assert str(caught.value) == message


def test_packet_does_not_change_with_the_caller_s_bytearray() -> None:
    workload, unique = bytearray(b"w"), bytearray(b"u")
    packet = JobRequest("f", workload, unique).packet()
    workload[:] = unique[:] = b"other"
    assert packet == SubmitJob(b"f", b"u", b"w")


def test_unique_of_64_bytes_is_refused_unless_that_is_allowed() -> None:
    task = JobRequest("f", unique="é" * 32)
    with pytest.raises(LocalProtocolError) as caught:
        task.packet(max_unique_size=DEFAULT_MAX_UNIQUE_SIZE)
    assert str(caught.value) == (
        "client: unique has 64 bytes, limit 63: gearmand 1.1.20 corrupts the workload of a job whose unique has 64;"
        " max_unique_size=64 allows it"
    )
    assert task.packet().unique == ("é" * 32).encode()
    with pytest.raises(LocalProtocolError, match=r"^client: unique has 4 bytes, limit 3$"):
        JobRequest("f", unique="four").packet(max_unique_size=3)
    with pytest.raises(LocalProtocolError, match="unique has 65 bytes, limit 64"):
        JobRequest("f", unique="x" * 65).packet(max_unique_size=DEFAULT_MAX_UNIQUE_SIZE)


@pytest.mark.parametrize("size", [-1, 65, "9"])
def test_limit_for_uniques_that_the_protocol_does_not_allow_is_refused(size: object) -> None:
    assert check_max_unique_size(64) == 64
    with pytest.raises(ValueError, match=rf"^max_unique_size is {size!r}, not a whole number from 0 to 64$"):
        check_max_unique_size(size)


def test_handle_is_the_bytes_of_the_server_and_knows_the_server() -> None:
    address = parse_address("a.example:1")
    handle = JobHandle(b"H:a:1", address)
    assert handle == b"H:a:1"
    assert {handle: 1}[b"H:a:1"] == 1  # type: ignore[index]
    assert handle.server == address


@pytest.mark.parametrize("run_at", [float("nan"), float("inf"), float("-inf"), "tomorrow", "5", 10**400])
def test_time_that_is_none_is_refused(run_at: Any) -> None:
    with pytest.raises(LocalProtocolError, match="which is not a finite time"):
        JobRequest("f", run_at=run_at).packet(background=True)


def test_delay_ends_at_a_whole_second_that_is_not_before_it() -> None:
    assert earliest(None, None, 100.5) is None
    assert earliest(7.5, None, 100.5) == 7.5
    assert [earliest(None, delay, 100.5) for delay in (0, 0.5, 0.6)] == [101, 101, 102]


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 10**400, "5"])
def test_delay_that_makes_no_sense_is_refused(delay: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"delay is .*, which is not a finite number of seconds"):
        earliest(None, delay, 0.0)
    with pytest.raises(LocalProtocolError, match="give either run_at or delay, not both"):
        earliest(0, delay, 0.0)
