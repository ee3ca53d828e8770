"""What our server does otherwise than gearmand, on purpose; ``docs/differences.md`` lists it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gearproto.codec import PACKETS, REQUEST, RESPONSE, Packet
from gearproto.packets import (
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
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

from .answers import RESULT_NOT_FOUND
from .conftest import OURS, StartSite

pytestmark = OURS

OK = b"OK\r\n"
FAR_FUTURE = 4_000_000_000

SUBMISSIONS: dict[Any, tuple[Any, ...]] = {  # each with its arguments behind the unique
    **dict.fromkeys((SubmitJob, SubmitJobBg, SubmitJobHigh, SubmitJobHighBg, SubmitJobLow, SubmitJobLowBg), (b"w",)),
    SubmitJobEpoch: (0, b"w"),
    **dict.fromkeys((SubmitReduceJob, SubmitReduceJobBackground), (b"r", b"", b"w")),
}


def request(kind: type[Packet], body: bytes) -> bytes:
    """Build a request with any bytes behind its header."""
    return packet_bytes(REQUEST, kind.spec.number, body)


def expect_error(peer: RawPeer, code: bytes, *words: bytes) -> None:
    """Receive an ``ERROR`` with a code and some words in its text, and nothing more."""
    error = peer.receive(Error)
    assert error.code == code
    assert error.text
    assert all(word in error.text for word in words)
    peer.expect_nothing()


# Framing and errors


def test_what_came_before_a_broken_packet_in_one_piece_is_answered(site: Site) -> None:
    peer = site.connect()
    peer.send_bytes(EchoReq(b"before").encode() + packet_bytes(b"\0BAD", 1) + EchoReq(b"after").encode())
    peer.expect(EchoRes(b"before"))
    peer.expect_closed()


@pytest.mark.parametrize("number", [0x80000000, 0x80000010, 0xFFFFFFFF])
def test_type_with_the_top_bit_closes_that_connection_only(site: Site, number: int) -> None:
    other, peer = site.connect(), site.connect()
    peer.send_bytes(packet_bytes(REQUEST, number))
    peer.expect_closed()
    other.expect_nothing()


@pytest.mark.parametrize("kind", [SubmitJob, EchoReq, CanDo, PreSleep])
def test_header_that_announces_four_gigabytes_closes_at_once(site: Site, kind: type[Packet]) -> None:
    peer = site.connect()
    peer.send_bytes(REQUEST + kind.spec.number.to_bytes(4, "big") + b"\xff\xff\xff\xff")
    assert peer.receive(Error).code == b"PACKET_TOO_LARGE"
    peer.expect_closed()


def test_packet_of_the_limit_is_taken_and_one_byte_more_is_not(start: StartSite) -> None:
    peer = start(max_packet_size=1000).connect()
    peer.send(EchoReq(b"e" * 1000))
    assert len(peer.receive_raw()) == 12 + 1000
    peer.send(EchoReq(b"e" * 1001))
    peer.expect(Error(b"PACKET_TOO_LARGE", b"ECHO_REQ: 1001 bytes, limit 1000"))
    peer.expect_closed()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (SubmitJob, b"f"),
        (SubmitJob, b"f\0u"),
        (SubmitJobBg, b""),
        (SubmitJobEpoch, b"f\0u\x000"),
        (SubmitReduceJob, b"f\0u\0r\0w"),
        (SubmitReduceJobBackground, b"f\0u\0r"),
        (CanDoTimeout, b"f"),
        (WorkStatus, b"H:1\x001"),
    ],
)
def test_too_few_arguments_are_an_error_and_the_next_packet_is_untouched(
    site: Site, kind: type[Packet], body: bytes
) -> None:
    peer = site.connect()
    peer.send_bytes(request(kind, body) + SubmitJobBg(b"f", b"u", b"w").encode())
    name, count, wanted = kind.spec.name.encode(), body.count(b"\0") + 1, len(kind.spec.arguments)
    peer.expect(Error(b"INVALID_ARGUMENTS", b"%b: %d arguments, not %d" % (name, count, wanted)))
    handle = peer.receive(JobCreated).handle
    peer.expect_nothing()
    assert site.worker(b"f").grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"u", b"w")


@pytest.mark.parametrize("kind", [WorkData, WorkWarning, WorkComplete, WorkException])
def test_report_without_the_nul_behind_its_handle_is_one_with_empty_data(site: Site, kind: type[Packet]) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grab(GrabJobUniq())
    worker.send_bytes(request(kind, handle))
    expected = WorkFail(handle) if kind is WorkException else kind(handle, b"")  # the client has set no option
    assert client.receive_any() == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (SubmitJobEpoch, b"f\0u\0soon\0w"),
        (SubmitJobEpoch, b"f\0u\0" + b"9" * 30 + b"\0w"),
        (CanDoTimeout, b"f\0" + b"1" * 20),
        (CanDoTimeout, b"f\0long"),
        (WorkStatus, b"H:1\0half\x002"),
        (WorkStatus, b"H:1\x001\0-2"),
        (WorkStatus, b"H:1\x001." + b"0" * 31 + b"\x002"),
    ],
)
def test_bad_number_is_an_error(site: Site, kind: type[Packet], body: bytes) -> None:
    peer = site.connect()
    peer.send_bytes(request(kind, body))
    expect_error(peer, b"INVALID_ARGUMENTS", kind.spec.name.encode() + b": ")
    assert peer.ask_rows(b"status") == []


@pytest.mark.parametrize(
    "packet",
    [
        CanDo(b""),
        CanDoTimeout(b"", 1000),
        SubmitJob(b"", b"u", b"w"),
        SubmitJobHighBg(b"", b"u", b"w"),
        SubmitJobEpoch(b"", b"u", 0, b"w"),
        SubmitReduceJob(b"", b"u", b"r", b"", b"w"),
    ],
)
def test_empty_function_name_is_an_error(site: Site, packet: Packet) -> None:
    peer = site.connect()
    peer.send(packet)
    expect_error(peer, b"INVALID_ARGUMENTS", packet.spec.name.encode() + b": empty function name")
    assert peer.ask_rows(b"status") == []


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (GetStatus(b"h" * 64), b"GET_STATUS: handle of 64 bytes, limit 63"),
        (GetStatusUnique(b"u" * 65), b"GET_STATUS_UNIQUE: unique of 65 bytes, limit 64"),
        (CanDo(b"f" * 8192), b"CAN_DO: function name of 8192 bytes, limit 8191"),
        (CanDoTimeout(b"f" * 8192, 5), b"CAN_DO_TIMEOUT: function name of 8192 bytes, limit 8191"),
        (SubmitJob(b"f" * 8192, b"", b""), b"SUBMIT_JOB: function name of 8192 bytes, limit 8191"),
        *((cls(b"f", b"u" * 65, *rest), b"Unique value too large") for cls, rest in SUBMISSIONS.items()),
    ],
)
def test_argument_that_is_too_long_is_an_error(site: Site, packet: Packet, text: bytes) -> None:
    peer = site.connect()
    peer.send(packet)
    peer.expect(Error(b"ARGUMENT_TOO_LARGE", text))
    peer.expect_nothing()
    assert peer.ask_rows(b"status") == []


def test_nul_in_the_last_argument_is_an_error(site: Site) -> None:
    peer = site.connect()
    peer.send_bytes(request(GetStatus, b"a\0b"))
    expect_error(peer, b"INVALID_ARGUMENTS", b"GET_STATUS: NUL byte in the last argument")


@pytest.mark.parametrize("when", [FAR_FUTURE, 10**18, 9_999_999_999_999_999_999])
def test_job_for_a_distant_time_does_not_stop_the_server(site: Site, when: int) -> None:
    client = site.connect()
    handle = client.submit(SubmitJobEpoch(b"f", b"", when, b"w"))
    site.connect().expect_nothing()
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, False, 0, 0))


def test_endless_time_limit_does_not_stop_the_server(site: Site) -> None:
    worker, client = site.connect(), site.connect()
    worker.send(CanDoTimeout(b"f", 10**18))
    handle = client.submit(SubmitJob(b"f", b"", b""))
    assert worker.grab().handle == handle
    site.connect().expect_nothing()


def test_every_packet_with_any_rubbish_leaves_the_server_alive(site: Site) -> None:
    bodies = [b"", b"\0", b"\0" * 20, b"x", b"x\0" * 20, b"\xff" * 300, b"f\0u\0-1\0\0\0\0\0\0"]
    for number in PACKETS:
        for body in bodies:
            with site.connect() as peer:
                peer.send_bytes(packet_bytes(REQUEST, number, body) + EchoReq(b"still here").encode())
                while (packet := peer.receive_raw()) != packet_bytes(RESPONSE, 17, b"still here"):
                    assert packet.startswith(RESPONSE)
    site.connect().expect_nothing()


# Packets


def test_all_yours_is_accepted_in_silence(site: Site) -> None:
    worker = site.worker(b"f")
    worker.send(AllYours())
    worker.expect_nothing()


def test_a_connection_counts_once_for_each_function(site: Site) -> None:
    worker, admin = site.worker(b"f", b"g", b"f"), site.connect()
    worker.send(CanDoTimeout(b"f", 5000), CantDo(b""))
    worker.expect_nothing()
    assert sorted(admin.ask_rows(b"status")) == [b"f\t0\t0\t1\n", b"g\t0\t0\t1\n"]
    assert sum(row.endswith(b" : g f\n") for row in admin.ask_rows(b"workers")) == 1
    worker.send(CantDo(b"f"))
    worker.expect_nothing()
    assert b"f\t0\t0\t0\n" in admin.ask_rows(b"status")


@pytest.mark.parametrize("option", [b"reruns", b"ReRuns"])
def test_option_reruns_is_answered_with_its_name_as_sent(site: Site, option: bytes) -> None:
    peer = site.connect()
    peer.send(OptionReq(option))
    peer.expect(OptionRes(option))


def test_work_fail_for_an_exception_carries_the_bare_handle(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkException(handle, b"x"))
    client.expect_bytes(packet_bytes(RESPONSE, WorkFail.spec.number, handle))
    client.expect_nothing()


@pytest.mark.parametrize("cancelled", [False, True])
def test_work_fail_behind_work_exception_is_swallowed(site: Site, cancelled: bool) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    if cancelled:
        assert site.connect().ask(b"cancel job " + handle) == OK
    worker.send(WorkException(handle, b"x"), WorkFail(handle))
    worker.expect_nothing()
    client.expect(WorkFail(handle))
    client.expect_nothing()
    worker.send(WorkFail(handle))
    worker.expect(RESULT_NOT_FOUND)


def test_work_fail_of_another_connection_is_not_swallowed(site: Site) -> None:
    client, worker, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkException(handle, b"x"))
    client.expect(WorkFail(handle))
    other.send(WorkFail(handle))
    other.expect(RESULT_NOT_FOUND)


# Identity


@pytest.mark.parametrize("kind", SUBMISSIONS)
def test_unique_of_64_bytes_is_whole_and_joined(site: Site, kind: Any) -> None:
    client, worker, unique, rest = site.connect(), site.worker(b"f"), b"u" * 64, SUBMISSIONS[kind]
    handle = client.submit(kind(b"f", unique, *rest))
    assert client.submit(kind(b"f", unique, *rest)) == handle
    assert client.submit(kind(b"f", unique[:63], *rest)) != handle
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", unique, b"w")


def test_reducer_of_64_bytes_is_whole(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitReduceJob(b"f", b"u" * 64, b"r" * 64, b"", b"w"))
    worker.send_bytes(packet_bytes(REQUEST, 39))
    body = b"\0".join((handle, b"f", b"u" * 64, b"r" * 64, b"w"))
    worker.expect_bytes(packet_bytes(RESPONSE, 40, body))


# Coalescing loses nothing


@pytest.mark.parametrize("kind", [SubmitJob, SubmitJobBg])
def test_loss_1_newcomer_is_not_joined_to_an_abandoned_job(site: Site, kind: type[Packet]) -> None:
    client, newcomer, worker = site.connect(), site.connect(), site.worker(b"f")
    abandoned = client.submit(SubmitJob(b"f", b"u", b"old"))
    site.leave(client)
    handle = newcomer.submit(kind(b"f", b"u", b"new"))
    assert handle != abandoned
    assert worker.grab() == JobAssign(handle, b"f", b"new")
    worker.send(WorkComplete(handle, b"r"))
    if kind is SubmitJob:
        newcomer.expect(WorkComplete(handle, b"r"))
    newcomer.expect_nothing()


def test_loss_2_background_job_outlives_a_foreground_client_that_joined(site: Site) -> None:
    client, guest, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"u", b"w"))
    assert guest.submit(SubmitJob(b"f", b"u", b"w")) == handle
    site.leave(guest)
    assert worker.grab() == JobAssign(handle, b"f", b"w")


@pytest.mark.parametrize("running", [False, True])
def test_loss_3_background_submission_makes_a_foreground_job_outlive_its_client(site: Site, running: bool) -> None:
    client, background, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"u", b"w"))
    if running:
        worker.grab()
    assert background.submit(SubmitJobBg(b"f", b"u", b"w")) == handle
    site.leave(client)
    assert background.ask_rows(b"show jobs") == [handle + b"\t0\t0\t1\n"]
    if running:
        site.leave(worker)
        worker = site.worker(b"f")
    assert worker.grab() == JobAssign(handle, b"f", b"w")


@pytest.mark.parametrize("running", [False, True])
def test_loss_4_newcomer_is_not_joined_to_a_cancelled_job(site: Site, running: bool) -> None:
    client, newcomer, worker = site.connect(), site.connect(), site.worker(b"f")
    cancelled = client.submit(SubmitJob(b"f", b"u", b"old"))
    if running:
        worker.grab()
    assert newcomer.ask(b"cancel job " + cancelled) == OK
    handle = newcomer.submit(SubmitJob(b"f", b"u", b"new"))
    assert handle != cancelled
    assert worker.grab() == JobAssign(handle, b"f", b"new")
    if running:
        worker.send(WorkComplete(cancelled, b"old"))
    worker.send(WorkComplete(handle, b"new"))
    worker.expect_nothing()
    newcomer.expect(WorkComplete(handle, b"new"))
    newcomer.expect_nothing()
    client.expect(WorkFail(cancelled))
    client.expect_nothing()


def test_loss_5_workload_of_a_dash_job_does_not_meet_a_unique_of_the_same_bytes(site: Site) -> None:
    client = site.connect()
    named = client.submit(SubmitJob(b"f", b"same", b"same"))
    assert client.submit(SubmitJob(b"f", b"-", b"same")) != named


# Leaving and cancelling


def test_abandoned_job_is_gone_at_once(site: Site) -> None:
    client, admin = site.connect(), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    site.leave(client)
    assert admin.ask_rows(b"show jobs") == []
    assert admin.ask_rows(b"status") == [b"f\t0\t0\t0\n"]
    admin.send(GetStatus(handle))
    admin.expect(StatusRes(handle, False, False, 0, 0))


def test_cancelled_queued_job_is_gone_at_once_and_its_clients_are_told(site: Site) -> None:
    clients, admin = [site.connect(), site.connect()], site.connect()
    (handle,) = {client.submit(SubmitJob(b"f", b"u", b"")) for client in clients}
    assert admin.ask(b"cancel job " + handle) == OK
    assert admin.ask(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"
    assert admin.ask_rows(b"show jobs") == []
    for client in clients:
        client.expect(WorkFail(handle))
        client.expect_nothing()


@pytest.mark.parametrize("end", [lambda handle: WorkComplete(handle, b"r"), WorkFail])
def test_clients_hear_nothing_of_a_cancelled_running_job_any_more(site: Site, end: Callable[[bytes], Packet]) -> None:
    client, worker, admin = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    assert admin.ask(b"cancel job " + handle) == OK
    worker.send(WorkStatus(handle, 1, 2), WorkData(handle, b"d"), WorkWarning(handle, b"w"), end(handle))
    worker.expect_nothing()
    client.expect(WorkFail(handle))
    client.expect_nothing()
    worker.send(WorkComplete(handle, b"again"))
    worker.expect(RESULT_NOT_FOUND)


def test_cancelled_running_job_does_not_run_again_when_its_worker_is_lost(site: Site) -> None:
    client, worker, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grab()
    assert client.ask(b"cancel job " + handle) == OK
    site.leave(worker)
    other.expect_no_job()
    assert client.ask_rows(b"status") == [b"f\t0\t0\t1\n"]


# Order and wake-ups


def test_given_back_jobs_go_to_the_front_in_their_order(site: Site) -> None:
    client, lost, worker = site.connect(), site.worker(b"f"), site.worker(b"f")
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(4)]
    lost.grab()
    lost.grab()
    site.leave(lost)
    assert [worker.grab().handle for _ in handles] == handles


def test_functions_take_turns(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f", b"g")
    for name in (b"f", b"f", b"f", b"g", b"g", b"g"):
        client.submit(SubmitJobBg(name, b"", b""))
    turns = [worker.grab().function for _ in range(6)]
    assert turns in ([b"f", b"g"] * 3, [b"g", b"f"] * 3)


def test_low_job_behind_a_delayed_one_is_found(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b""))
    handle = client.submit(SubmitJobLowBg(b"f", b"", b""))
    assert worker.grab().handle == handle
    worker.sleep()


def test_can_do_wakes_a_sleeping_worker_if_jobs_wait(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"g", b"", b""))
    worker.sleep()
    worker.send(CanDo(b"g"))
    worker.expect(Noop())
    assert worker.grab().handle == handle


def test_woken_worker_that_leaves_passes_the_wakeup_on(start: StartSite) -> None:
    site = start(wakeup_timeout=1000.0)
    first, second = site.worker(b"f"), site.worker(b"f")
    first.sleep()
    second.sleep()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    first.expect(Noop())
    second.expect_nothing()
    first.close()
    second.expect(Noop())
    second.grab()


# Text commands


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_created_function_has_the_name_as_given(site: Site, end: bytes) -> None:
    admin = site.connect()
    admin.send_bytes(b"create function name" + end)
    admin.expect_bytes(OK)
    assert admin.ask_rows(b"status") == [b"name\t0\t0\t0\n"]


def test_function_with_jobs_cannot_be_dropped(site: Site) -> None:
    client = site.connect()
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    assert client.ask(b"drop function f") == b"ERR there are still connected workers or executing clients\r\n"
    assert site.worker(b"f").grab().handle == handle


def test_hostile_bytes_are_shown_as_escapes(site: Site) -> None:
    client, _worker = site.connect(), site.worker(b"a\tb\n\xff")
    assert client.ask_rows(b"status") == [b"a\\x09b\\x0a\\xff\t0\t0\t1\n"]


def test_escaped_name_names_the_function_in_commands(site: Site) -> None:
    client = site.connect()
    worker = site.worker(b"a b")
    site.leave(worker)
    assert client.ask(b"drop function a\\x20b") == OK
    assert client.ask_rows(b"status") == []


def test_unknown_command_is_answered_without_its_control_bytes(site: Site) -> None:
    assert site.connect().ask(b"x\x1b[2J\xff") == b"ERR UNKNOWN_COMMAND Unknown+server+commandx\\x1b[2J\\xff\r\n"


# Limits


def test_bytes_of_workloads_are_limited(start: StartSite) -> None:
    site = start(max_queue_size=100)
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w" * 60))
    client.send(SubmitJob(b"f", b"", b"w" * 60))
    expect_error(client, b"QUEUE_ERROR")
    worker.grab()
    worker.send(WorkComplete(handle, b""))
    client.expect(WorkComplete(handle, b""))
    client.submit(SubmitJob(b"f", b"", b"w" * 60))


def test_text_lines_are_limited(start: StartSite) -> None:
    site = start(max_line_size=100)
    peer = site.connect()
    assert peer.ask(b"x" * 98) == b"ERR UNKNOWN_COMMAND Unknown+server+command" + b"x" * 98 + b"\r\n"
    peer.send_bytes(b"x" * 101)
    peer.expect_closed()
