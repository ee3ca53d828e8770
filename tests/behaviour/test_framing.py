"""What job servers make of bytes: packets, lines of text, and errors."""

from __future__ import annotations

import pytest

from gearproto.codec import PACKETS, REQUEST, RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    SubmitJobSched,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.raw import packet_bytes
from tests.harness.sites import Site

from .answers import REDUCE_SUBMISSIONS, RESULT_NOT_FOUND, SIMPLE_SUBMISSIONS, raw_report

COMMAND_NOT_EXPECTED = Error(b"INVALID_COMMAND", b"Command not expected")
REQUEST_EXPECTED = Error(b"INVALID_MAGIC", b"Request magic expected")
UNIQUE_TOO_LARGE = Error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
UNKNOWN_OPTION = Error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job does not exist on server")
EXCEPTION_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"An exception was received for a job that does not exist")


def all_reports(handle: bytes) -> dict[Packet, Error]:
    """Every report on a job, and what a worker hears that does not hold the job."""
    return {
        WorkStatus(handle, 1, 2): RESULT_NOT_FOUND,
        WorkComplete(handle, b"r"): RESULT_NOT_FOUND,
        WorkFail(handle): RESULT_NOT_FOUND,
        WorkData(handle, b"d"): NOT_FOUND,
        WorkWarning(handle, b"w"): NOT_FOUND,
        WorkException(handle, b"x"): EXCEPTION_NOT_FOUND,
    }


# 1. Framing and errors


SERVER_ONLY = [
    number for number, cls in PACKETS.items() if not cls.spec.route & cls.spec.route.TO_SERVER
]  # WORK_* go both ways


@pytest.mark.parametrize("number", [*SERVER_ONLY, 5])
def test_type_that_only_a_server_sends_is_not_expected(site: Site, number: int) -> None:
    peer = site.connect()
    peer.send_bytes(packet_bytes(REQUEST, number, b"H:x:1\x00f\x00u\x000\x000\x000\x00w"))
    peer.expect(COMMAND_NOT_EXPECTED)
    peer.expect_nothing()


def test_submit_job_sched_is_not_expected(site: Site) -> None:
    peer = site.connect()
    peer.send(SubmitJobSched(b"f", b"", b"1", b"2", b"3", b"4", b"5", b"w"))
    peer.expect(COMMAND_NOT_EXPECTED)
    assert site.connect().ask_rows(b"show jobs") == []


def test_response_magic_is_refused_and_the_connection_goes_on(site: Site) -> None:
    peer = site.connect()
    for number in range(1, 43):
        peer.send_bytes(packet_bytes(RESPONSE, number, b"1" + b"\x001" * 7))
        peer.expect(REQUEST_EXPECTED)
    peer.expect_nothing()


@pytest.mark.parametrize("magic", [b"\0REX", b"\0req", b"\0\0\0\0", b"\0EQR"])
def test_other_magic_closes_without_an_answer(site: Site, magic: bytes) -> None:
    peer = site.connect()
    peer.send_bytes(packet_bytes(magic, EchoReq.spec.number))
    peer.expect_closed()


@pytest.mark.parametrize("number", [0, 43, 44, 1000])
def test_unknown_type_closes_without_an_answer(site: Site, number: int) -> None:
    peer = site.connect()
    peer.send_bytes(packet_bytes(REQUEST, number))
    peer.expect_closed()


def test_answers_to_what_came_before_a_broken_packet_still_arrive(site: Site) -> None:
    peer = site.connect()
    peer.send(EchoReq(b"before"))
    peer.expect(EchoRes(b"before"))
    peer.send_bytes(packet_bytes(b"\0BAD", 1))
    peer.expect_closed()


def test_a_broken_peer_does_not_disturb_others(site: Site) -> None:
    other, broken = site.worker(b"f"), site.connect()
    broken.send_bytes(packet_bytes(b"\0BAD", 1))
    broken.expect_closed()
    other.expect_nothing()


def test_error_is_code_and_text_with_one_nul(site: Site) -> None:
    peer = site.connect()
    peer.send(OptionReq(b"x"))
    body = b"UNKNOWN_OPTION\0Server does not recognize given option"
    peer.expect_bytes(packet_bytes(RESPONSE, Error.spec.number, body))


def test_requests_may_come_byte_by_byte(site: Site) -> None:
    client, worker = site.connect(), site.connect()
    for byte in CanDo(b"f").encode() + EchoReq(b"e").encode():
        worker.send_bytes(bytes([byte]))
    worker.expect(EchoRes(b"e"))
    for byte in SubmitJob(b"f", b"u", b"w\0w").encode() + b"version\r\n":
        client.send_bytes(bytes([byte]))
    handle = client.receive(JobCreated).handle
    assert client.receive_line().startswith(b"OK ")
    for byte in GrabJobUniq().encode():
        worker.send_bytes(bytes([byte]))
    worker.expect(JobAssignUniq(handle, b"f", b"u", b"w\0w"))


def test_many_requests_may_come_in_one_piece(site: Site) -> None:
    peer = site.connect()
    peer.send(*(EchoReq(b"%d" % number) for number in range(500)))
    peer.expect(*(EchoRes(b"%d" % number) for number in range(500)))


def test_a_packet_may_be_cut_anywhere(site: Site) -> None:
    peer = site.connect()
    data = EchoReq(b"0123456789").encode()
    for cut in range(1, len(data)):
        peer.send_bytes(data[:cut])
        peer.send_bytes(data[cut:])
        peer.expect(EchoRes(b"0123456789"))


def test_packets_and_text_mix_and_are_answered_in_order(site: Site) -> None:
    peer = site.connect()
    one, two = EchoReq(b"1").encode(), EchoReq(b"2").encode()
    peer.send_bytes(one + b"show jobs\n" + two + b"bogus\r\nshow jobs\r\n" + one)
    peer.expect(EchoRes(b"1"))
    peer.expect_bytes(b".\n")
    peer.expect(EchoRes(b"2"))
    peer.expect_bytes(b"ERR UNKNOWN_COMMAND Unknown+server+commandbogus\r\n.\n")
    peer.expect(EchoRes(b"1"))


def test_data_behind_grab_job_is_ignored(site: Site) -> None:
    peer = site.connect()
    peer.send_bytes(packet_bytes(REQUEST, GrabJob.spec.number, b"junk"))
    peer.expect(NoJob())
    peer.expect_nothing()


def test_data_behind_pre_sleep_is_ignored(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send_bytes(packet_bytes(REQUEST, PreSleep.spec.number, b"junk"))
    worker.expect_nothing()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())


def test_function_name_may_have_8000_bytes(site: Site) -> None:
    name = b"n" * 8000
    worker, client = site.worker(name), site.connect()
    handle = client.submit(SubmitJobBg(name, b"", b"w"))
    assert worker.grab() == JobAssign(handle, name, b"w")


def test_text_line_without_end_closes(site: Site) -> None:
    peer = site.connect()
    peer.send_bytes(b"x" * 20_000)
    peer.expect_closed()


@pytest.mark.parametrize("kind", SIMPLE_SUBMISSIONS)
def test_unique_over_64_bytes_is_too_large(site: Site, kind: type[Packet]) -> None:
    client = site.connect()
    client.send(kind(b"f", b"u" * 65, b"w"))
    client.expect(UNIQUE_TOO_LARGE)
    client.expect_nothing()
    assert client.ask_rows(b"show jobs") == []


@pytest.mark.parametrize("kind", REDUCE_SUBMISSIONS)
def test_reducer_over_64_bytes_is_too_large(site: Site, kind: type[Packet]) -> None:
    client = site.connect()
    client.send(kind(b"f", b"", b"r" * 65, b"", b"w"))
    client.expect(UNIQUE_TOO_LARGE)
    client.expect_nothing()


@pytest.mark.parametrize("option", [b"", b"nothing", b"exceptions2", b"exceptions ", b"x" * 64, b"x" * 4000])
def test_option_other_than_exceptions_is_unknown(site: Site, option: bytes) -> None:
    peer = site.connect()
    peer.send(OptionReq(option))
    peer.expect(UNKNOWN_OPTION)
    peer.expect_nothing()


@pytest.mark.parametrize("packet", all_reports(b"H:nobody:1"))
def test_report_on_an_unknown_job_is_refused(site: Site, packet: Packet) -> None:
    worker = site.worker(b"f")
    worker.send(packet)
    worker.expect(all_reports(b"H:nobody:1")[packet])
    worker.expect_nothing()


@pytest.mark.parametrize("index", range(6))
def test_report_on_the_job_of_another_connection_is_refused(site: Site, index: int) -> None:
    client, worker, stranger = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grab()
    packet, error = list(all_reports(handle).items())[index]
    stranger.send(packet)
    stranger.expect(error)
    client.send(packet)
    client.expect(error)
    client.expect_nothing()
    worker.send(WorkComplete(handle, b"r"))
    client.expect(WorkComplete(handle, b"r"))


@pytest.mark.parametrize("index", range(6))
def test_report_on_a_queued_job_is_refused(site: Site, index: int) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    packet, error = list(all_reports(handle).items())[index]
    worker.send(packet)
    worker.expect(error)
    client.expect_nothing()


def test_work_fail_with_an_overlong_handle_is_too_large(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send_bytes(raw_report(WorkFail, b"h" * 64))
    text = b"Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf"
    worker.expect(Error(b"ARGUMENT_TOO_LARGE", text))
    worker.expect_nothing()
