"""`gear.Packet`."""

from __future__ import annotations

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gear_sync.gear.packet import RAW
from gearproto.codec import MAX_GROWTH
from gearproto.packets import SUBMISSIONS
from gearproto.server import server_decoders

REQ = constants.REQ


def test_binary_form() -> None:
    packet = gear.Packet(REQ, constants.SUBMIT_JOB, b"f\0u\0x")
    assert packet.toBinary() == bytearray(b"\0REQ\0\0\0\x07\0\0\0\x05f\0u\0x")
    assert isinstance(packet.toBinary(), bytearray)


def test_arguments() -> None:
    packet = gear.Packet(REQ, constants.SUBMIT_JOB, b"f\0u\0a\0b")
    assert [packet.getArgument(index) for index in range(4)] == [b"f", b"u", b"a", b"b"]
    assert packet.getArgument(2, last=True) == b"a\0b"
    assert packet.getArgument(0, True) == b"f\0u\0a\0b"
    with pytest.raises(IndexError):
        packet.getArgument(4)
    assert packet.getArgument(4, last=True) == b""


@pytest.mark.parametrize(
    ("code", "data", "error"),
    [
        ("\0REQ", b"", TypeError),
        (REQ, "text", TypeError),
        (b"REQ\0", b"", gear.InvalidDataError),
        (b"", b"", gear.InvalidDataError),
    ],
)
def test_what_is_no_packet(code: bytes, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        gear.Packet(code, constants.NOOP, data)


def test_comparison_leaves_the_connection_out() -> None:
    packet = gear.Packet(REQ, constants.NOOP, b"")
    assert packet == gear.Packet(bytearray(REQ), constants.NOOP, b"", gear.Connection("localhost", 1))
    assert packet != gear.Packet(constants.RES, constants.NOOP, b"")
    assert packet != b""
    with pytest.raises(TypeError):
        hash(packet)


def test_attributes_can_be_assigned_to() -> None:
    packet = gear.Packet(REQ, constants.NOOP, b"")
    packet.code, packet.ptype, packet.data = constants.RES, constants.ECHO_RES, bytearray(b"x")
    assert packet.toBinary() == b"\0RES\0\0\0\x11\0\0\0\x01x"


@pytest.mark.parametrize(
    ("ptype", "data", "shown"),
    [
        (constants.NOOP, b"", "NOOP"),
        (constants.WORK_COMPLETE, b"H:1\0x", "WORK_COMPLETE handle: b'H:1'"),
        (constants.JOB_ASSIGN_UNIQ, b"H:1\0f\0u\0x", "JOB_ASSIGN_UNIQ handle: b'H:1' function: b'f' unique: b'u'"),
        (constants.SUBMIT_JOB, b"f\0u\0x", "SUBMIT_JOB function: b'f' unique: b'u'"),
        (constants.CAN_DO, b"f", "CAN_DO function: b'f'"),
        (constants.SET_CLIENT_ID, b"me", "SET_CLIENT_ID id: b'me'"),
        (constants.OPTION_REQ, b"o", "OPTION_REQ option: b'o'"),
        (constants.ERROR, b"1\0no", "ERROR code: b'1' message: b'no'"),
        (constants.SUBMIT_JOB, b"f", "SUBMIT_JOB"),
        (101, b"anything", "UNKNOWN"),
    ],
)
def test_description(ptype: int, data: bytes, shown: str) -> None:
    packet = gear.Packet(REQ, ptype, data)
    assert repr(packet) == f"<gear.Packet 0x{id(packet):x} type: {shown}>"


def test_the_job_of_a_packet() -> None:
    connection = gear.Connection("localhost", 1)
    job = gear.Job("f", b"")
    connection.related_jobs[b"H:1"] = job
    packet = gear.Packet(constants.RES, constants.WORK_COMPLETE, b"H:1\0x", connection)
    assert packet.getJob() is job
    for unknown in (gear.Packet(constants.RES, constants.WORK_FAIL, b"H:2", connection), gear.Packet(REQ, 14, b"H:1")):
        with pytest.raises(gear.UnknownJobError):
            unknown.getJob()


def test_server_counts_submissions_as_the_assignments_that_they_become() -> None:
    assert {key: RAW[key].growth for key in server_decoders() if key in RAW} == {
        key: spec.growth for key, spec in server_decoders().items() if key in RAW
    }
    assert sum(spec.growth == MAX_GROWTH for spec in RAW.values()) == len(SUBMISSIONS)
