"""Jobs of all kinds."""

from __future__ import annotations

from typing import Any

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from tests.harness.gear_api import Shop


class Recorder(gear.Connection):
    """A connection that keeps what is sent on it."""

    def __init__(self) -> None:
        super().__init__("localhost", 1)
        self.sent: list[tuple[int, bytes]] = []

    def sendPacket(self, packet: gear.Packet) -> None:
        assert packet.code == constants.REQ
        self.sent.append((packet.ptype, bytes(packet.data)))


def test_a_new_job() -> None:
    job = gear.Job("näme", b"\0arguments", unique="ü")
    assert (job.name, job.arguments, job.unique) == ("näme", b"\0arguments", "ü".encode())
    assert (job.binary_name, job.binary_arguments, job.binary_unique) == ("näme".encode(), b"\0arguments", "ü".encode())
    assert (job.handle, job.connection, job.data, job.exception) == (None, None, [], None)
    assert (job.warning, job.complete, job.failure) == (False, False, False)
    assert (job.numerator, job.denominator, job.fraction_complete) == (None, None, None)
    assert (job.known, job.running) == (None, None)
    assert repr(job) == f"<gear.Job 0x{id(job):x} handle: None name: näme unique: {'ü'.encode()!r}>"


@pytest.mark.parametrize("kind", [gear.Job, gear.BinaryJob])
def test_arguments_are_bytes(kind: type[gear.Job]) -> None:
    assert kind("f", bytearray(b"x")).arguments == b"x"
    for arguments in ("x", None, 5):
        with pytest.raises(TypeError):
            kind("f", arguments)


def test_attributes_can_be_set() -> None:
    job = gear.Job("f", b"")
    job.name, job.unique, job.arguments = "g", None, b"y"
    job.anything = "of the program's own"  # type: ignore[attr-defined]
    assert (job.binary_name, job.unique, job.arguments) == (b"g", None, b"y")
    job.data = [b"piece"]
    with pytest.raises(ValueError, match="must be of type list"):
        job.data = (b"piece",)  # type: ignore[assignment]
    job.exception = b"oops"
    assert (list(job.binary_data), job.exception) == ([b"piece"], b"oops")


@pytest.mark.parametrize(
    ("numerator", "denominator", "fraction"),
    [(b"1", b"4", 0.25), (b"1", b"0", None), (b"x", b"1", None), (b"", b"", None)],
)
def test_fraction_complete(shop: Shop, numerator: bytes, denominator: bytes, fraction: float | None) -> None:
    job = gear.Job("f", b"")
    job.fraction_complete = 0.5
    data = b"H:1\0%b\0%b" % (numerator, denominator)
    packet = gear.Packet(gear.constants.RES, gear.constants.WORK_STATUS, data).about(job)
    assert shop.client().handleWorkStatus(packet) is job
    assert (job.numerator, job.denominator, job.fraction_complete) == (numerator, denominator, fraction)


def test_text_jobs() -> None:
    job = gear.TextJob("f", "ä", unique="ü")
    assert (job.arguments, job.unique) == ("ä", "ü")
    assert (job.binary_arguments, job.binary_unique) == ("ä".encode(), "ü".encode())
    job.arguments, job.unique, job.exception = "x", b"y", "z"
    assert (job.binary_arguments, job.binary_unique, job.exception) == (b"x", b"y", "z")
    assert isinstance(job.data, gear.TextList)
    job.data.append(b"\xc3\xa9")
    assert (job.data, list(job.binary_data)) == (["é"], [b"\xc3\xa9"])
    assert gear.TextJob("f", b"bytes").arguments == "bytes"
    assert gear.TextJob("f", "").unique is None
    assert gear.TextJob("f", "").exception is None
    for attribute in ("arguments", "unique", "exception"):
        with pytest.raises(AttributeError):
            setattr(job, attribute, None)


def test_binary_jobs() -> None:
    job = gear.BinaryJob("f", b"x")
    assert job.name == b"f"
    with pytest.raises(AttributeError):
        job.name = "g"  # type: ignore[misc,assignment]


def test_subclasses_may_bring_constructors_of_their_own() -> None:
    class Mine(gear.TextJob):
        def __init__(self) -> None:
            super().__init__("mine", "arguments")

    assert Mine().name == "mine"


@pytest.mark.parametrize(
    ("call", "ptype", "data"),
    [
        (lambda job: job.sendWorkData(b"a\0b"), constants.WORK_DATA, b"H\0a\0b"),
        (lambda job: job.sendWorkWarning(b"w"), constants.WORK_WARNING, b"H\0w"),
        (lambda job: job.sendWorkStatus(1, 2.5), constants.WORK_STATUS, b"H\x001\x002.5"),
        (lambda job: job.sendWorkComplete(), constants.WORK_COMPLETE, b"H\0"),
        (lambda job: job.sendWorkFail(), constants.WORK_FAIL, b"H"),
        (lambda job: job.sendWorkException(bytearray(b"e")), constants.WORK_EXCEPTION, b"H\0e"),
    ],
)
def test_reports(call: Any, ptype: int, data: bytes) -> None:
    for kind in (gear.WorkerJob, gear.TextWorkerJob, gear.BinaryWorkerJob):
        job = kind(b"H", "f", b"x")
        job.connection = connection = Recorder()
        call(job)
        assert connection.sent == [(ptype, data)]


def test_reports_of_text_jobs_take_text_and_those_of_others_do_not() -> None:
    job = gear.TextWorkerJob(b"H", "f", b"x", unique=b"u")
    job.connection = connection = Recorder()
    job.sendWorkData("é")
    assert (job.arguments, job.unique, connection.sent) == ("x", "u", [(constants.WORK_DATA, "H\0é".encode())])
    for kind in (gear.WorkerJob, gear.TextWorkerJob):
        with pytest.raises(TypeError):
            kind(b"H", "f", b"x").sendWorkData(5)
    with pytest.raises(TypeError):
        gear.WorkerJob(b"H", "f", b"x").sendWorkComplete("text")


def test_a_job_without_a_connection_cannot_report() -> None:
    with pytest.raises(gear.DisconnectError):
        gear.WorkerJob(b"H", "f", b"x").sendWorkFail()


def test_function_records() -> None:
    record = gear.FunctionRecord("f", 5)
    assert (record.name, record.timeout) == ("f", 5)
    assert repr(record) == f"<gear.FunctionRecord 0x{id(record):x} name: f timeout: 5>"


def test_server_jobs() -> None:
    job = gear.ServerJob(b"H", b"f", b"x", None, b"u")
    assert (job.handle, job.name, job.arguments, job.unique) == (b"H", b"f", b"x", b"u")
    assert (job.client_connection, job.worker_connection) == (None, None)
