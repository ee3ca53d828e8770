"""What job servers answer to each packet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gearproto.codec import REQUEST, RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
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
    SubmitJobHighBg,
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

from .answers import REDUCE_SUBMISSIONS, RESULT_NOT_FOUND, SIMPLE_SUBMISSIONS, raw_report
from .conftest import StartSite

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


# 9. Text commands


def worker_lines(admin: RawPeer) -> dict[bytes, bytes]:
    """Return the rows of ``workers`` by what stands behind the colon."""
    rows = admin.ask_rows(b"workers")
    return {row.partition(b" :")[2].strip(): row for row in rows}
