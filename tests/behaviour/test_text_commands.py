"""What job servers answer to lines of text."""

from __future__ import annotations

import re

import pytest

from gearproto.packets import (
    JobCreated,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHighBg,
    SubmitJobLowBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
)
from tests.harness.sites import Site

from .answers import QUEUE_FULL


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
