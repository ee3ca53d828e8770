"""What our server and gearmand both do on the wire: every test runs against each of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from gearproto.codec import PACKETS, REQUEST, RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitJobSched,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.raw import RawPeer, packet_bytes
from tests.harness.sites import Site

from .conftest import WAITS, StartSite

COMMAND_NOT_EXPECTED = Error(b"INVALID_COMMAND", b"Command not expected")
REQUEST_EXPECTED = Error(b"INVALID_MAGIC", b"Request magic expected")
UNIQUE_TOO_LARGE = Error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
QUEUE_FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
UNKNOWN_OPTION = Error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
RESULT_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")
NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job does not exist on server")
EXCEPTION_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"An exception was received for a job that does not exist")

FAR_FUTURE = 4_000_000_000

SIMPLE_SUBMISSIONS = (SubmitJobHigh, SubmitJobHighBg, SubmitJob, SubmitJobBg, SubmitJobLow, SubmitJobLowBg)
REDUCE_SUBMISSIONS = (SubmitReduceJob, SubmitReduceJobBackground)


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


def raw_report(kind: type[Packet], body: bytes) -> bytes:
    """Build a report with any bytes behind its header."""
    return packet_bytes(REQUEST, kind.spec.number, body)


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


# 2. Packets one by one


@pytest.mark.parametrize("data", [b"", b"x", b"\0", b"\0RES\0\0", bytes(range(256)), b"e" * 100_000])
def test_echo_returns_any_bytes(site: Site, data: bytes) -> None:
    peer = site.connect()
    peer.send(EchoReq(data))
    peer.expect(EchoRes(data))


def test_can_do_is_not_answered_and_counted(site: Site) -> None:
    worker = site.connect()
    worker.send(CanDo(b"f"))
    worker.expect_nothing()
    assert site.connect().ask_rows(b"status") == [b"f\t0\t0\t1\n"]


@pytest.mark.parametrize("limit", [b"0", b"-5", b"", b"1000", b"1000.5"])
def test_can_do_timeout_registers_with_any_limit(site: Site, limit: bytes) -> None:
    worker, client = site.connect(), site.connect()
    worker.send_bytes(packet_bytes(REQUEST, CanDoTimeout.spec.number, b"f\0" + limit))
    worker.expect_nothing()
    assert client.ask_rows(b"status") == [b"f\t0\t0\t1\n"]
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grab()
    worker.send(WorkComplete(handle, b"r"))
    client.expect(WorkComplete(handle, b"r"))


def test_cant_do_is_not_answered_and_takes_the_function_away(site: Site) -> None:
    worker, client = site.worker(b"f", b"g"), site.connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.send(CantDo(b"f"))
    worker.expect_no_job()
    assert sorted(client.ask_rows(b"status")) == [b"f\t1\t0\t0\n", b"g\t0\t0\t1\n"]


def test_cant_do_of_an_unknown_function_changes_nothing(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send(CantDo(b"g"))
    worker.expect_nothing()
    assert b"f\t0\t0\t1\n" in site.connect().ask_rows(b"status")


def test_reset_abilities_is_not_answered_and_takes_all_functions_away(site: Site) -> None:
    worker, client = site.worker(b"f", b"g"), site.connect()
    worker.send(ResetAbilities())
    worker.expect_nothing()
    assert sorted(client.ask_rows(b"status")) == [b"f\t0\t0\t0\n", b"g\t0\t0\t0\n"]


@pytest.mark.parametrize(("sent", "shown"), [(b"me", b"me"), (b"i" * 127, b"i" * 127), (b"i" * 300, b"i" * 127)])
def test_client_id_is_shown_cut_to_127_bytes(site: Site, sent: bytes, shown: bytes) -> None:
    worker = site.worker(b"f")
    worker.send(SetClientId(sent))
    worker.expect_nothing()
    assert worker_lines(site.connect())[b"f"].split(b" ")[2] == shown


def test_client_id_may_change(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send(SetClientId(b"a-long-name"), SetClientId(b"b"))
    worker.expect_nothing()
    assert worker_lines(site.connect())[b"f"].split(b" ")[2] == b"b"


ASSIGNED: dict[tuple[type[Packet], bool], Callable[[bytes], Packet]] = {
    (GrabJob, False): lambda handle: JobAssign(handle, b"f", b"w\0w"),
    (GrabJobUniq, False): lambda handle: JobAssignUniq(handle, b"f", b"u", b"w\0w"),
    (GrabJobAll, False): lambda handle: JobAssignUniq(handle, b"f", b"u", b"w\0w"),
    (GrabJob, True): lambda handle: JobAssign(handle, b"f", b"w\0w"),
    (GrabJobUniq, True): lambda handle: JobAssignUniq(handle, b"f", b"u", b"w\0w"),
    (GrabJobAll, True): lambda handle: JobAssignAll(handle, b"f", b"u", b"r", b"w\0w"),
}


@pytest.mark.parametrize("kind", [GrabJob, GrabJobUniq, GrabJobAll])
def test_every_grab_is_answered_with_no_job_if_there_is_none(site: Site, kind: type[Packet]) -> None:
    worker = site.worker(b"f")
    worker.send(kind())
    worker.expect_bytes(packet_bytes(RESPONSE, NoJob.spec.number))
    worker.expect_nothing()


@pytest.mark.parametrize("kind", [GrabJob, GrabJobUniq, GrabJobAll])
@pytest.mark.parametrize("reduced", [False, True])
def test_every_grab_has_its_own_answer(site: Site, kind: type[Packet], reduced: bool) -> None:
    worker, client = site.worker(b"f"), site.connect()
    submission = SubmitReduceJob(b"f", b"u", b"r", b"a", b"w\0w") if reduced else SubmitJob(b"f", b"u", b"w\0w")
    handle = client.submit(submission)
    worker.send(kind())
    worker.expect_bytes(ASSIGNED[kind, reduced](handle).encode())
    worker.expect_nothing()


@pytest.mark.parametrize("kind", [GrabJob, GrabJobUniq, GrabJobAll])
def test_unique_and_workload_may_be_empty(site: Site, kind: type[Packet]) -> None:
    worker, client = site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    expected = JobAssign(handle, b"f", b"") if kind is GrabJob else JobAssignUniq(handle, b"f", b"", b"")
    assert worker.grab(kind()) == expected


def test_one_connection_may_run_several_jobs(site: Site) -> None:
    worker, client = site.worker(b"f"), site.connect()
    handles = [client.submit(SubmitJob(b"f", b"", b"%d" % number)) for number in range(3)]
    assert [worker.grab().handle for _ in handles] == handles
    for handle in reversed(handles):
        worker.send(WorkComplete(handle, handle))
        client.expect(WorkComplete(handle, handle))


def test_pre_sleep_is_not_answered_without_a_job(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send(PreSleep())
    worker.expect_nothing()


def test_pre_sleep_with_a_job_waiting_earns_noop_at_once_and_is_no_sleep(site: Site) -> None:
    worker, client = site.worker(b"f"), site.connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.send(PreSleep())
    worker.expect(Noop())
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()


def test_each_submission_is_answered_in_order(site: Site) -> None:
    client = site.connect()
    names = [b"f%d" % number for number in range(9)]
    simple = [kind(name, b"", b"w") for kind, name in zip(SIMPLE_SUBMISSIONS, names[:6], strict=True)]
    client.send(
        *simple,
        SubmitReduceJob(b"f6", b"", b"r", b"", b"w"),
        SubmitReduceJobBackground(b"f7", b"", b"r", b"", b"w"),
        SubmitJobEpoch(b"f8", b"", 0, b"w"),
    )
    handles = [client.receive(JobCreated).handle for _ in names]
    for name, handle in zip(names, handles, strict=True):
        assert site.worker(name).grab().handle == handle


@pytest.mark.parametrize("kind", [*SIMPLE_SUBMISSIONS, *REDUCE_SUBMISSIONS])
def test_only_foreground_clients_hear_of_their_job(site: Site, kind: type[Packet]) -> None:
    client, worker = site.connect(), site.worker(b"f")
    arguments = (b"r", b"") if kind in REDUCE_SUBMISSIONS else ()
    handle = client.submit(kind(b"f", b"", *arguments, b"w"))
    worker.grab()
    worker.send(WorkData(handle, b"d"), WorkStatus(handle, 1, 2), WorkWarning(handle, b"w"), WorkComplete(handle, b"r"))
    worker.expect_nothing()
    if kind not in (SubmitJobBg, SubmitJobHighBg, SubmitJobLowBg, SubmitReduceJobBackground):
        client.expect(
            WorkData(handle, b"d"), WorkStatus(handle, 1, 2), WorkWarning(handle, b"w"), WorkComplete(handle, b"r")
        )
    client.expect_nothing()
    assert client.ask_rows(b"show jobs") == []


@pytest.mark.parametrize("end", [WorkComplete(b"H", b"r"), WorkFail(b"H"), WorkException(b"H", b"x")])
def test_background_job_ends_without_a_word(site: Site, end: Packet) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b"w"))
    worker.grab()
    worker.send_bytes(raw_report(type(end), end.encode()[12:].replace(b"H", handle)))
    worker.expect_nothing()
    client.expect_nothing()
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, False, False, 0, 0))


def test_get_status_follows_the_life_of_a_job(site: Site) -> None:
    client, worker, watcher = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b"w"))

    def status() -> StatusRes:
        watcher.send(GetStatus(handle))
        return watcher.receive(StatusRes)

    assert status() == StatusRes(handle, True, False, 0, 0)
    worker.grab()
    assert status() == StatusRes(handle, True, True, 0, 0)
    worker.send(WorkStatus(handle, 3, 4))
    worker.expect_nothing()
    assert status() == StatusRes(handle, True, True, 3, 4)
    worker.send(WorkComplete(handle, b""))
    worker.expect_nothing()
    assert status() == StatusRes(handle, False, False, 0, 0)


def test_get_status_of_an_unknown_handle_is_all_zero(site: Site) -> None:
    peer = site.connect()
    peer.send(GetStatus(b"H:nowhere:12"))
    peer.expect_bytes(packet_bytes(RESPONSE, StatusRes.spec.number, b"H:nowhere:12\x000\x000\x000\x000"))


def test_get_status_unique_follows_the_life_of_a_job(site: Site) -> None:
    client, worker, watcher = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"u", b"w"))

    def status() -> StatusResUnique:
        watcher.send(GetStatusUnique(b"u"))
        return watcher.receive(StatusResUnique)

    assert status() == StatusResUnique(b"u", True, False, 0, 0, 1)
    worker.grab()
    worker.send(WorkStatus(handle, 3, 4))
    worker.expect_nothing()
    site.connect().submit(SubmitJob(b"f", b"u", b""))
    assert status() == StatusResUnique(b"u", True, True, 3, 4, 2)
    worker.send(WorkComplete(handle, b""))
    worker.expect_nothing()
    assert status() == StatusResUnique(b"u", False, False, 0, 0, 0)


@pytest.mark.parametrize("unique", [b"nobody", b""])
def test_get_status_unique_of_an_unknown_unique_is_all_zero(site: Site, unique: bytes) -> None:
    peer = site.connect()
    peer.submit(SubmitJobBg(b"f", b"", b"w"))
    peer.send(GetStatusUnique(unique))
    peer.expect_bytes(packet_bytes(RESPONSE, StatusResUnique.spec.number, unique + b"\x000\x000\x000\x000\x000"))


def test_get_status_unique_counts_submissions_that_wait(site: Site) -> None:
    client, other = site.connect(), site.connect()
    for peer, kind in ((client, SubmitJob), (client, SubmitJob), (other, SubmitJob), (other, SubmitJobBg)):
        peer.submit(kind(b"f", b"u", b""))
    other.send(GetStatusUnique(b"u"))
    other.expect(StatusResUnique(b"u", True, False, 0, 0, 3))
    site.leave(client)
    other.send(GetStatusUnique(b"u"))
    other.expect(StatusResUnique(b"u", True, False, 0, 0, 1))


def test_get_status_unique_counts_no_clients_of_background_jobs(site: Site) -> None:
    client = site.connect()
    client.submit(SubmitJobBg(b"f", b"u", b""))
    client.send(GetStatusUnique(b"u"))
    client.expect(StatusResUnique(b"u", True, False, 0, 0, 0))


@pytest.mark.parametrize("option", [b"exceptions", b"EXCEPTIONS", b"Exceptions"])
def test_option_is_answered_with_its_name_as_sent(site: Site, option: bytes) -> None:
    peer = site.connect()
    peer.send(OptionReq(option))
    peer.expect_bytes(packet_bytes(RESPONSE, OptionRes.spec.number, option))


def test_option_counts_for_jobs_submitted_before(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    client.send(OptionReq(b"exceptions"))
    client.expect(OptionRes(b"exceptions"))
    worker.send(WorkException(handle, b"x\0y"))
    client.expect(WorkException(handle, b"x\0y"))
    client.expect_nothing()


def test_exception_is_work_fail_to_clients_without_the_option(site: Site) -> None:
    with_option, without, worker = site.connect(), site.connect(), site.worker(b"f")
    with_option.send(OptionReq(b"exceptions"))
    with_option.expect(OptionRes(b"exceptions"))
    handle = with_option.submit(SubmitJob(b"f", b"u", b""))
    assert without.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.grab()
    worker.send(WorkException(handle, b"x"))
    with_option.expect(WorkException(handle, b"x"))
    without.expect(WorkFail(handle))
    with_option.expect_nothing()
    without.expect_nothing()


def test_exception_ends_the_job(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkException(handle, b"x"), WorkComplete(handle, b"r"))
    worker.expect(RESULT_NOT_FOUND)
    client.expect(WorkFail(handle))
    client.expect_nothing()
    assert client.ask_rows(b"show jobs") == []


def test_exceptions_may_be_on_for_all_connections(start: StartSite) -> None:
    site = start("--exceptions", exceptions=True)
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkException(handle, b"x"))
    client.expect(WorkException(handle, b"x"))


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        (WorkStatus, b"\x001\x002"),
        (WorkStatus, b"\x00007\x00012"),
        (WorkData, b"\0"),
        (WorkData, b"\0data\0with\0nul"),
        (WorkWarning, b"\0"),
        (WorkWarning, b"\0careful\0"),
        (WorkComplete, b"\0"),
        (WorkComplete, b"\0done\0\n\r"),
        (WorkFail, b""),
    ],
)
def test_report_is_forwarded_byte_for_byte_to_every_client(site: Site, kind: type[Packet], rest: bytes) -> None:
    clients, worker = [site.connect() for _ in range(3)], site.worker(b"f")
    (handle,) = {client.submit(SubmitJob(b"f", b"u", b"")) for client in clients}
    worker.grab()
    worker.send_bytes(raw_report(kind, handle + rest))
    worker.expect_nothing()
    for client in clients:
        client.expect_bytes(packet_bytes(RESPONSE, kind.spec.number, handle + rest))
        client.expect_nothing()


@pytest.mark.parametrize("kind", [WorkComplete, WorkFail])
def test_job_is_gone_after_its_end(site: Site, kind: type[Packet]) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    end = WorkFail(handle) if kind is WorkFail else WorkComplete(handle, b"")
    worker.send(end, end)
    worker.expect(RESULT_NOT_FOUND)
    client.expect(end)
    client.expect_nothing()
    worker.expect_no_job()


def test_reports_arrive_in_the_order_of_the_worker(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    reports: list[Packet] = []
    for number in range(50):
        reports += [WorkStatus(handle, number, 50), WorkData(handle, b"%d" % number), WorkWarning(handle, b"")]
    reports.append(WorkComplete(handle, b"end"))
    worker.send(*reports)
    client.expect(*reports)


# 3. Job life and identity


def test_handles_are_prefix_and_count(site: Site) -> None:
    one, two = site.connect(), site.connect()
    handles = [one.submit(SubmitJobBg(b"f", b"", b"")), one.submit(SubmitJobLow(b"g", b"", b""))]
    handles.append(two.submit(SubmitJob(b"f", b"", b"")))
    assert [int(handle.rpartition(b":")[2]) for handle in handles] == [1, 2, 3]
    assert len({handle.rpartition(b":")[0] for handle in handles}) == 1
    assert all(re.fullmatch(rb"H:[^\0]{1,58}", handle) for handle in handles)


def test_handle_prefix_may_be_chosen(start: StartSite) -> None:
    site = start("--job-handle-prefix=J:mine", handle_prefix="J:mine")
    assert re.fullmatch(rb"J:mine(:[0-9a-f]+)?:0*1", site.connect().submit(SubmitJobBg(b"f", b"", b"")))


@pytest.mark.parametrize("name", [b"a b", b"a\tb", b"a\nb", b"\xff\xfe", "ä".encode(), b".", b"-"])
def test_function_name_may_be_any_bytes(site: Site, name: bytes) -> None:
    worker, client = site.worker(name), site.connect()
    handle = client.submit(SubmitJob(name, b"", b"w"))
    assert worker.grab() == JobAssign(handle, name, b"w")


def test_case_of_function_names_matters(site: Site) -> None:
    worker, client = site.worker(b"F"), site.connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_no_job()


def test_function_stays_in_status_after_its_jobs_and_workers(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkComplete(handle, b""))
    client.expect(WorkComplete(handle, b""))
    site.leave(worker)
    site.until(lambda: client.ask_rows(b"status") == [b"f\t0\t0\t0\n"], "the function is there without its worker")


def test_ten_megabytes_go_through_both_ways(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    workload = os.urandom(1 << 20) * 10
    handle = client.submit(SubmitJob(b"f", b"", workload))
    assert worker.grab() == JobAssign(handle, b"f", workload)
    worker.send(WorkComplete(handle, workload))
    client.expect(WorkComplete(handle, workload))


# 4. Coalescing


def test_empty_uniques_are_never_joined(site: Site) -> None:
    one, two, worker = site.connect(), site.connect(), site.worker(b"f")
    handles = [client.submit(SubmitJob(b"f", b"", b"w")) for client in (one, one, two)]
    assert len({*handles}) == 3
    for _ in handles:
        handle = worker.grab().handle
        worker.send(WorkComplete(handle, b"of " + handle))
    for client, handle in zip((one, one, two), handles, strict=True):
        client.expect(WorkComplete(handle, b"of " + handle))


FOREGROUND = (SubmitJobHigh, SubmitJob, SubmitJobLow)
ROWS = (b"1\t0\t0", b"0\t1\t0", b"0\t0\t1")


@pytest.mark.parametrize("first", SIMPLE_SUBMISSIONS)
def test_same_function_and_unique_is_the_same_job_as_it_was_first_submitted(site: Site, first: type[Packet]) -> None:
    client = site.connect()
    for number, second in enumerate(SIMPLE_SUBMISSIONS):
        function, unique = b"f%d" % number, b"u" * 63
        worker = site.worker(function)
        worker.sleep()
        handle = client.submit(first(function, unique, b"one"))
        worker.expect(Noop())
        assert client.submit(second(function, unique, b"two")) == handle
        worker.expect_nothing()
        row = ROWS[SIMPLE_SUBMISSIONS.index(first) // 2]
        assert b"%b\t%b\t1\n" % (function, row) in client.ask_rows(b"prioritystatus")
        assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, function, unique, b"one")
        worker.expect_no_job()
        worker.sleep()
        assert client.submit(second(function, unique, b"three")) == handle  # it may run already
        worker.expect_nothing()
        worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"r"))
        worker.expect_nothing()
        waiting = (first in FOREGROUND) + 2 * (second in FOREGROUND)
        client.expect(*[WorkData(handle, b"d")] * waiting, *[WorkComplete(handle, b"r")] * waiting)
        client.expect_nothing()
        assert client.submit(SubmitJobBg(function, unique, b"four")) != handle


def test_same_unique_of_another_function_is_another_job(site: Site) -> None:
    client = site.connect()
    assert client.submit(SubmitJob(b"f", b"u", b"")) != client.submit(SubmitJob(b"g", b"u", b""))


def test_unique_dash_is_keyed_by_the_workload(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"-", b"same"))
    assert client.submit(SubmitJob(b"f", b"-", b"same")) == handle
    assert client.submit(SubmitJob(b"f", b"-", b"other")) != handle
    assert client.submit(SubmitJob(b"g", b"-", b"same")) != handle
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"-", b"same")


def test_unique_dash_with_an_empty_workload_is_never_joined(site: Site) -> None:
    client = site.connect()
    assert client.submit(SubmitJob(b"f", b"-", b"")) != client.submit(SubmitJob(b"f", b"-", b""))


def test_foreground_joins_a_running_job_and_hears_the_rest(site: Site) -> None:
    one, two, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = one.submit(SubmitJob(b"f", b"u", b""))
    worker.grab()
    worker.send(WorkData(handle, b"1"))
    one.expect(WorkData(handle, b"1"))
    assert two.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.send(WorkData(handle, b"2"), WorkComplete(handle, b"r"))
    for client in (one, two):
        client.expect(WorkData(handle, b"2"), WorkComplete(handle, b"r"))


def test_one_connection_that_submits_twice_hears_everything_twice(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    assert client.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.grab()
    worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"r"))
    client.expect(WorkData(handle, b"d"), WorkData(handle, b"d"))
    client.expect(WorkComplete(handle, b"r"), WorkComplete(handle, b"r"))
    client.expect_nothing()


def test_joining_succeeds_when_the_queue_is_full(site: Site) -> None:
    client = site.worker(b"f")
    assert client.ask(b"maxqueue f 1") == b"OK\r\n"
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    client.send(SubmitJob(b"f", b"v", b""))
    client.expect(QUEUE_FULL)
    assert client.submit(SubmitJob(b"f", b"u", b"")) == handle


# 5. Order and wake-ups


def test_jobs_of_a_function_go_by_priority_then_age(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    low = [client.submit(SubmitJobLowBg(b"f", b"", b"")), client.submit(SubmitJobLow(b"f", b"", b""))]
    normal = [client.submit(SubmitJob(b"f", b"", b"")), client.submit(SubmitReduceJob(b"f", b"", b"r", b"", b""))]
    normal.append(client.submit(SubmitJobBg(b"f", b"", b"")))
    high = [client.submit(SubmitJobHigh(b"f", b"", b"")), client.submit(SubmitJobHighBg(b"f", b"", b""))]
    expected = high + normal + low
    assert [worker.grab().handle for _ in expected] == expected


def test_sleeping_worker_is_woken_once_until_it_grabs(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()
    worker.grab()
    worker.grab()
    worker.sleep()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())


def test_worker_that_is_awake_is_not_woken(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()


def test_grab_ends_the_sleep(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    worker.expect_no_job()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()


def test_worker_is_woken_only_for_its_functions(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.submit(SubmitJobBg(b"g", b"", b""))
    worker.expect_nothing()


def test_worker_may_sleep_while_it_runs_a_job(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grab()
    worker.sleep()
    second = client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())
    assert worker.grab().handle == second


def test_every_sleeping_worker_of_the_function_can_be_woken(start: StartSite) -> None:
    site = start(worker_wakeup=0)
    workers = [site.worker(b"f") for _ in range(4)]
    for worker in workers:
        worker.sleep()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    for worker in workers:
        worker.expect(Noop())


def test_one_worker_a_job_can_be_woken(start: StartSite) -> None:
    site = start("--worker-wakeup=1", worker_wakeup=1, wakeup_timeout=1000.0)
    workers = [site.worker(b"f") for _ in range(3)]
    for worker in workers:
        worker.sleep()
    client = site.connect()
    for expected in (1, 2, 3):
        client.submit(SubmitJobBg(b"f", b"", b""))
        assert sum(woken(worker) for worker in workers) == 1, f"after {expected - 1} others"


def test_woken_worker_may_come_too_late(start: StartSite) -> None:
    site = start(worker_wakeup=0)
    quick, slow = site.worker(b"f"), site.worker(b"f")
    quick.sleep()
    slow.sleep()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    quick.expect(Noop())
    slow.expect(Noop())
    quick.grab()
    slow.expect_no_job()


def woken(worker: RawPeer) -> bool:
    """Tell whether a worker has been sent a ``NOOP`` since the last look."""
    worker.send(EchoReq(b"?"))
    packet = worker.receive_any()
    if packet == Noop():
        worker.expect(EchoRes(b"?"))
        return True
    assert packet == EchoRes(b"?")
    return False


# 6. Losing a worker, time limits, retries


def test_job_of_a_lost_worker_runs_again_and_the_client_hears_nothing(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    lost.grab()
    lost.send(WorkStatus(handle, 1, 2), WorkData(handle, b"first run"))
    client.expect(WorkStatus(handle, 1, 2), WorkData(handle, b"first run"))
    other.sleep()
    lost.close()
    other.expect(Noop())
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, False, 0, 0))
    assert client.ask_rows(b"show jobs") == [handle + b"\t1\t0\t0\n"]
    assert other.grab() == JobAssign(handle, b"f", b"w")
    other.send(WorkData(handle, b"second run"), WorkComplete(handle, b"r"))
    client.expect(WorkData(handle, b"second run"), WorkComplete(handle, b"r"))


def test_background_job_of_a_lost_worker_runs_again(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b"w"))
    lost.grab()
    other.sleep()
    lost.close()
    other.expect(Noop())
    assert other.grab().handle == handle


def test_every_job_of_a_lost_worker_runs_again(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f", b"g"), site.worker(b"f", b"g")
    handles = {client.submit(SubmitJob(name, b"", b"")) for name in (b"f", b"g", b"f")}
    for _ in handles:
        lost.grab()
    site.leave(lost)
    assert {other.grab().handle for _ in handles} == handles


def test_runs_can_be_limited(start: StartSite) -> None:
    site = start("--job-retries=2", job_retries=1)
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    background = client.submit(SubmitJobBg(b"f", b"", b""))
    for _ in range(2):
        assert {worker.grab().handle, worker.grab().handle} == {handle, background}
        lost, worker = worker, site.worker(b"f")
        site.leave(lost)
    client.expect(WorkFail(handle))
    client.expect_nothing()
    worker.expect_no_job()
    assert client.ask_rows(b"show jobs") == []


@pytest.mark.parametrize("kind", [WorkFail, WorkException])
def test_failed_job_is_not_run_again(site: Site, kind: type[Packet]) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkFail(handle) if kind is WorkFail else WorkException(handle, b"x"))
    client.expect(WorkFail(handle))
    worker.expect_no_job()


@WAITS
def test_time_limit_gives_the_job_back_or_fails_it(start: StartSite) -> None:
    site = start("--job-retries=2", job_retries=1)
    client, slow, last, other = (site.connect() for _ in range(4))
    once, twice = (client.submit(SubmitJob(function, b"", b"")) for function in (b"once", b"twice"))
    lost = site.worker(b"twice")
    assert lost.grab().handle == twice
    site.leave(lost)
    slow.send(CanDoTimeout(b"once", 1))  # raised to 1000 ms
    last.send(CanDoTimeout(b"twice", 1000))
    assert slow.grab().handle == once
    assert last.grab().handle == twice
    other.send(CanDo(b"once"))
    other.sleep()
    other.expect(Noop())
    if site.kind == "gearmand":  # another of its threads wakes workers, and queues the job after that
        watcher = site.connect()
        site.until(lambda: watcher.ask_rows(b"status").count(b"once\t1\t0\t2\n") == 1, "the job is queued")
    assert other.grab().handle == once
    client.expect(WorkFail(twice))
    for worker, handle in ((slow, once), (last, twice)):
        worker.expect_nothing()
        worker.send(WorkComplete(handle, b"late"))
        worker.expect(RESULT_NOT_FOUND)
    client.expect_nothing()


# 7. Losing a client


def test_abandoned_job_is_never_handed_out(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJob(b"f", b"", b""))
    site.leave(client)
    worker.expect_no_job()
    worker.sleep()
    assert site.connect().ask_rows(b"show jobs") == []


def test_worker_of_an_abandoned_running_job_is_not_told(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    site.leave(client)
    worker.send(WorkStatus(handle, 1, 2), WorkData(handle, b"d"), WorkWarning(handle, b"w"), WorkComplete(handle, b"r"))
    worker.expect_nothing()
    assert site.connect().ask_rows(b"show jobs") == []


def test_abandoned_running_job_is_dropped_with_its_worker(site: Site) -> None:
    client, worker, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    site.leave(client)
    site.leave(worker)
    other.expect_no_job()


def test_abandoned_running_job_can_be_joined(site: Site) -> None:
    client, worker, newcomer = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    worker.grab()
    site.leave(client)
    assert newcomer.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.send(WorkComplete(handle, b"r"))
    newcomer.expect(WorkComplete(handle, b"r"))


def test_one_of_several_clients_may_leave(site: Site) -> None:
    leaver, stayer, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = leaver.submit(SubmitJob(b"f", b"u", b""))
    stayer.submit(SubmitJob(b"f", b"u", b""))
    site.leave(leaver)
    assert worker.grab().handle == handle
    worker.send(WorkComplete(handle, b"r"))
    stayer.expect(WorkComplete(handle, b"r"))


def test_background_job_outlives_its_client(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    site.leave(client)
    assert worker.grab().handle == handle


# 8. Delayed jobs


@pytest.mark.parametrize("when", [b"0", b"1", b"-1", b"", b"1000000000"])
def test_delayed_job_of_the_past_runs_now(site: Site, when: bytes) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.send_bytes(packet_bytes(REQUEST, SubmitJobEpoch.spec.number, b"f\0u\0" + when + b"\0w\0w"))
    handle = client.receive(JobCreated).handle
    worker.expect(Noop())
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"u", b"w\0w")
    worker.send(WorkComplete(handle, b"r"))
    worker.expect_nothing()
    client.expect_nothing()


def test_delayed_job_is_not_handed_out_before_its_time(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    worker.expect_no_job()
    worker.sleep()
    worker.expect_no_job()


def test_delayed_job_is_a_background_job_of_normal_priority(site: Site) -> None:
    client = site.connect()
    handle = client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    assert client.ask_rows(b"status") == [b"f\t1\t0\t0\n"]
    assert client.ask_rows(b"prioritystatus") == [b"f\t0\t1\t0\t0\n"]
    assert client.ask_rows(b"show jobs") == [handle + b"\t0\t0\t1\n"]
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, False, 0, 0))


def test_delayed_job_counts_in_maxqueue(site: Site) -> None:
    client = site.worker(b"f")
    client.ask(b"maxqueue f 1")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    client.send(SubmitJob(b"f", b"", b""))
    client.expect(QUEUE_FULL)


def test_delayed_job_does_not_hide_ready_ones(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    assert worker.grab().handle == handle


def test_immediate_submission_joins_a_delayed_job_and_waits(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobEpoch(b"f", b"u", FAR_FUTURE, b"w"))
    assert client.submit(SubmitJob(b"f", b"u", b"x")) == handle
    worker.expect_no_job()
    client.expect_nothing()


@WAITS
def test_delayed_job_whose_time_has_come_is_handed_out(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobEpoch(b"f", b"", int(site.time()) + 1, b"w"))

    def grabbed() -> bool:
        worker.send(GrabJob())
        packet = worker.receive_any()
        assert packet in (NoJob(), JobAssign(handle, b"f", b"w"))
        return packet != NoJob()

    site.until(grabbed, "the job's time has come")


# 9. Text commands


def worker_lines(admin: RawPeer) -> dict[bytes, bytes]:
    """Return the rows of ``workers`` by what stands behind the colon."""
    rows = admin.ask_rows(b"workers")
    return {row.partition(b" :")[2].strip(): row for row in rows}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("command", [b"status", b"STATUS", b"Status extra words", b"status   x"])
def test_status_tells_total_running_workers(site: Site, command: bytes, end: bytes) -> None:
    client, worker = site.connect(), site.worker(b"f")
    for _ in range(3):
        client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grab()
    client.send_bytes(command + end)
    client.expect_bytes(b"f\t3\t1\t1\n.\n")
    client.expect_nothing()


def test_status_lists_every_function(site: Site) -> None:
    client, _worker = site.connect(), site.worker(b"f", b"g")
    client.submit(SubmitJobBg(b"h", b"", b""))
    assert sorted(client.ask_rows(b"status")) == [b"f\t0\t0\t1\n", b"g\t0\t0\t1\n", b"h\t1\t0\t0\n"]


@pytest.mark.parametrize("command", [b"status", b"prioritystatus", b"show jobs", b"show unique jobs"])
def test_empty_answer_is_one_dot(site: Site, command: bytes) -> None:
    peer = site.connect()
    peer.send_bytes(command + b"\n")
    peer.expect_bytes(b".\n")
    peer.expect_nothing()


def test_prioritystatus_tells_queued_jobs_by_priority(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    for kind, count in ((SubmitJobHighBg, 4), (SubmitJobBg, 2), (SubmitJobLowBg, 1)):
        for _ in range(count):
            client.submit(kind(b"f", b"", b""))
    worker.grab()
    client.send_bytes(b"prioritystatus\n")
    client.expect_bytes(b"f\t3\t2\t1\t1\n.\n")


def test_workers_lists_every_connection(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f", b"g")
    worker.send(SetClientId(b"me"))
    worker.expect_nothing()
    # The third is that of the site itself. A server may not have noticed yet that peers of an earlier test have left.
    site.until(lambda: len(client.ask_rows(b"workers")) == 3, "three connections are listed")
    rows = client.ask_rows(b"workers")
    assert len({row.split(b" ")[0] for row in rows}) == 3
    assert sum(re.fullmatch(rb"\d+ 127\.0\.0\.1 - :\n", row) is not None for row in rows) == 2
    assert sum(re.fullmatch(rb"\d+ 127\.0\.0\.1 me : g f\n", row) is not None for row in rows) == 1


def test_version_is_ok_and_the_version(site: Site) -> None:
    assert re.fullmatch(rb"OK \d[^\s]*\n", site.connect().ask(b"version"))


def test_getpid_is_ok_and_a_number(site: Site) -> None:
    assert re.fullmatch(rb"OK [1-9]\d*\n", site.connect().ask(b"getpid"))


def test_verbose_is_ok_and_the_level(site: Site) -> None:
    assert site.connect().ask(b"verbose") == b"OK ERROR\n"


def test_show_jobs_tells_retries_ignored_background(site: Site) -> None:
    client = site.connect()
    one = client.submit(SubmitJob(b"f", b"", b""))
    two = client.submit(SubmitJobBg(b"g", b"", b""))
    assert sorted(client.ask_rows(b"show jobs")) == sorted([one + b"\t0\t0\t0\n", two + b"\t0\t0\t1\n"])


def test_show_jobs_marks_a_running_job_that_nobody_waits_for(site: Site) -> None:
    client, worker, admin = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    site.leave(client)
    assert admin.ask_rows(b"show jobs") == [handle + b"\t0\t1\t0\n"]


def test_show_unique_jobs_is_one_unique_a_line(site: Site) -> None:
    client = site.connect()
    for unique in (b"u", b"", b"-", b"a b"):
        client.submit(SubmitJob(b"f", unique, b"w"))
    assert sorted(client.ask_rows(b"show unique jobs")) == sorted([b"u\n", b"\n", b"-\n", b"a b\n"])


def test_cancelled_queued_job_fails_for_its_clients_and_does_not_run(site: Site) -> None:
    client, worker, admin = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    assert admin.ask(b"cancel job " + handle) == b"OK\r\n"
    client.expect(WorkFail(handle))
    worker.expect_no_job()
    client.expect_nothing()


def test_cancelled_queued_background_job_does_not_run(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    assert client.ask(b"cancel job " + handle + b"\r") == b"OK\r\n"
    worker.expect_no_job()
    assert client.ask_rows(b"show jobs") == []


def test_worker_of_a_cancelled_job_may_go_on(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    assert site.connect().ask(b"cancel job " + handle) == OK
    client.expect(WorkFail(handle))
    worker.send(WorkData(handle, b"d"), WorkStatus(handle, 1, 2), WorkComplete(handle, b"r"))
    worker.expect_nothing()


OK = b"OK\r\n"
UNKNOWN = b"ERR UNKNOWN_COMMAND Unknown+server+command"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"bogus", UNKNOWN + b"bogus\r\n"),
        (b"Bogus and more", UNKNOWN + b"Bogus\r\n"),
        (b"", UNKNOWN + b"\r\n"),
        (b" status", UNKNOWN + b"\r\n"),
        (b"priority status", UNKNOWN + b"priority\r\n"),
        (b"show", UNKNOWN + b"show\r\n"),
        (b"show nothing", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (b"show unique", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (b"show unique things", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (b"cancel", UNKNOWN + b"cancel\r\n"),
        (b"cancel job", UNKNOWN + b"cancel\r\n"),
        (b"cancel task H:1", b"ERR UNKNOWN_ERROR\r\n"),
        (b"cancel task H:1 x", b"ERR UNKNOWN_ERROR\r\n"),
        (b"cancel job H:nobody:1", b"ERR UNKNOWN_JOB\r\n"),
        (b"CANCEL job H:nobody:1", b"ERR UNKNOWN_JOB\r\n"),
        (b"create", INCOMPLETE + b"create\r\n"),
        (b"create function", INCOMPLETE + b"create\r\n"),
        (b"create thing f", INCOMPLETE + b"create\r\n"),
        (b"drop", INCOMPLETE + b"drop\r\n"),
        (b"drop function", INCOMPLETE + b"drop\r\n"),
        (b"drop thing f", INCOMPLETE + b"drop\r\n"),
        (b"drop function nothing", b"ERR function not found\r\n"),
        (b"maxqueue", INCOMPLETE + b"maxqueue\r\n"),
        (b"maxqueue nothing 5", OK),
        (b"maxqueue nothing", OK),
        (b"maxqueue nothing 1 2", OK),
        (b"maxqueue nothing 1 2 3", OK),
        (b"maxqueue nothing -1", OK),
        (b"maxqueue nothing many", OK),
    ],
)
def test_text_command_is_answered_byte_for_byte(site: Site, line: bytes, answer: bytes, end: bytes) -> None:
    peer = site.connect()
    peer.send_bytes(line + end)
    peer.expect_bytes(answer)
    peer.expect_nothing()


@pytest.mark.parametrize("line", [b"a b c d e f", b"status 2 3 4 5 6", b"maxqueue f 1 2 3 4"])
def test_more_than_five_words_close(site: Site, line: bytes) -> None:
    peer = site.connect()
    peer.send_bytes(line + b"\n")
    peer.expect_closed()


def test_five_words_are_answered(site: Site) -> None:
    peer = site.connect()
    assert peer.ask(b"a b c d e") == UNKNOWN + b"a\r\n"


def test_created_function_is_listed(site: Site) -> None:
    admin = site.connect()
    assert admin.ask(b"create function f\r") == OK
    assert admin.ask(b"create function f\r") == OK
    assert admin.ask_rows(b"status") == [b"f\t0\t0\t0\n"]


def test_dropped_function_is_not_listed(site: Site) -> None:
    admin = site.connect()
    admin.ask(b"create function f\r")
    assert admin.ask(b"drop function f\r") == OK
    assert admin.ask_rows(b"status") == []
    assert admin.ask(b"drop function f\r") == b"ERR function not found\r\n"


def test_function_with_a_worker_cannot_be_dropped(site: Site) -> None:
    admin, _worker = site.connect(), site.worker(b"f")
    assert admin.ask(b"drop function f\r") == b"ERR there are still connected workers or executing clients\r\n"
    assert admin.ask_rows(b"status") == [b"f\t0\t0\t1\n"]


MAX_QUEUE_CASES = {  # arguments: how many high, normal and low jobs are taken of three each, in this order
    b"2": (2, 0, 0),
    b"5": (3, 2, 0),
    b"2 4 6": (2, 2, 2),
    b"0 4 4": (3, 1, 0),
    b"": (3, 3, 3),
    b"0": (3, 3, 3),
    b"-1": (3, 3, 3),
    b"many": (3, 3, 3),
    b"1 3": (1, 2, 3),
}


@pytest.mark.parametrize("sizes", MAX_QUEUE_CASES)
def test_maxqueue_compares_the_total_with_the_limit_of_the_priority(site: Site, sizes: bytes) -> None:
    client = site.worker(b"f")
    assert client.ask(b"maxqueue f " + sizes) == OK
    taken = []
    for kind in (SubmitJobHighBg, SubmitJobBg, SubmitJobLowBg):
        client.send(*[kind(b"f", b"", b"")] * 3)
        answers = [client.receive_any() for _ in range(3)]
        assert all(isinstance(answer, JobCreated) or answer == QUEUE_FULL for answer in answers)
        taken.append(sum(isinstance(answer, JobCreated) for answer in answers))
    assert tuple(taken) == MAX_QUEUE_CASES[sizes]


def test_maxqueue_counts_running_jobs(site: Site) -> None:
    client = site.worker(b"f")
    client.ask(b"maxqueue f 1")
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    client.grab()
    client.send(SubmitJobBg(b"f", b"", b""))
    client.expect(QUEUE_FULL)
    client.send(WorkComplete(handle, b""))
    client.submit(SubmitJobBg(b"f", b"", b""))


def test_maxqueue_of_an_unknown_function_is_not_remembered(site: Site) -> None:
    client = site.connect()
    assert client.ask(b"maxqueue f 1") == OK
    assert client.ask_rows(b"status") == []
    client.submit(SubmitJobBg(b"f", b"", b""))
    client.submit(SubmitJobBg(b"f", b"", b""))


def test_maxqueue_can_be_taken_back(site: Site) -> None:
    client = site.worker(b"f")
    client.ask(b"maxqueue f 1")
    client.submit(SubmitJobBg(b"f", b"", b""))
    client.ask(b"maxqueue f")
    client.submit(SubmitJobBg(b"f", b"", b""))
