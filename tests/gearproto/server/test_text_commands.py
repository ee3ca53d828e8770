"""Text commands where the state of the server, or its options, decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing.strategies import hostile_names
from gearproto.admin import unescape
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    Noop,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
)
from tests.gearproto.server.common import RESULT_NOT_FOUND, busy
from tests.harness.engine import Bench, nth_handle

names = hostile_names().map(lambda raw: raw.replace(b"\0", b"\n")).filter(bool)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"status", b"f\t4\t2\t1\nh\t0\t0\t1\ng\t1\t0\t0\n.\n"),
        (b"prioritystatus", b"f\t0\t1\t1\t1\nh\t0\t0\t0\t1\ng\t0\t0\t1\t0\n.\n"),
        (b"workers", b"7 10.0.0.1 - :\n2 - w\\x201 : h f\n.\n"),
        (b"show jobs", b"".join(nth_handle(n) + b"\t0\t0\t%d\n" % (n in (3, 4)) for n in range(1, 6)) + b".\n"),
        (b"show unique jobs", b"\none\n-\ntwo\n\\x2e\n.\n"),
        (b"cancel job " + nth_handle(4), b"OK\r\n"),
        (b"create function f", b"OK\r\n"),
        (b"drop function f", b"ERR there are still connected workers or executing clients\r\n"),
        (b"drop function g", b"ERR there are still connected workers or executing clients\r\n"),
        (b"drop function h", b"ERR there are still connected workers or executing clients\r\n"),
        (b"shutdown", b"ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n"),
        (b"Shutdown graceful", b"ERR UNKNOWN_COMMAND Unknown+server+commandShutdown\r\n"),
        (b"non\0sense\xff", b"ERR UNKNOWN_COMMAND Unknown+server+commandnon\\x00sense\\xff\r\n"),
    ],
)
def test_text_command_tells_and_changes_what_is_there(bench: Bench, line: bytes, answer: bytes) -> None:
    client, _ = busy(bench)
    assert client.command(line) == answer


def test_answers_about_the_server_are_what_it_was_told() -> None:
    peer = Bench(version=b"1.2", pid=42, verbosity=b"DEBUG").connect()
    assert [peer.command(line) for line in (b"version", b"getpid", b"verbose")] == [
        b"OK 1.2\n",
        b"OK 42\n",
        b"OK DEBUG\n",
    ]


def test_created_function_is_known_until_it_is_dropped() -> None:
    bench = Bench(max_idle_functions=0)
    peer = bench.connect()
    peer.command(b"create function f")
    peer.submit(SubmitJob(b"f", b"", b""))
    assert peer.command(b"drop function f").startswith(b"ERR there are")
    assert peer.command(b"cancel job " + nth_handle(1)).endswith(b"OK\r\n")
    assert peer.command(b"status") == b"f\t0\t0\t0\n.\n"
    assert peer.command(b"drop function f") == b"OK\r\n"
    assert peer.command(b"status") == b".\n"


def test_functions_to_be_remembered_are_limited() -> None:
    bench = Bench(max_kept_functions=1)
    peer = bench.connect()
    assert peer.command(b"create function f") == b"OK\r\n"
    bench.worker(b"g")
    for command in (b"create function h", b"create function g", b"maxqueue g 1"):
        assert peer.command(command) == b"ERR TOO_MANY_FUNCTIONS are to be remembered, drop some first\r\n"
    assert peer.command(b"maxqueue f 1") == b"OK\r\n"
    assert peer.command(b"drop function f") == b"OK\r\n"
    assert peer.command(b"maxqueue g 1") == b"OK\r\n"


def test_function_that_was_dropped_and_comes_back_is_a_new_one(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    client.command(b"maxqueue f 1")
    worker.send(CantDo(b"f"))
    assert client.command(b"drop function f") == b"OK\r\n"
    worker.fall_asleep()
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(2)]
    assert worker.received() == []
    assert worker.ask(CanDo(b"f")) == Noop()
    assert [worker.grabbed() for _ in handles] == handles


def test_only_so_many_late_ends_of_cancelled_jobs_are_forgiven(bench: Bench) -> None:
    bench.engine._lifecycle.max_cancelled = 2
    client, worker = bench.connect(), bench.worker(b"f")
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(3)]
    for handle in handles:
        assert worker.grabbed() == handle
        client.command(b"cancel job " + handle)
    assert worker.send(*(WorkComplete(handle, b"") for handle in handles)).received() == [RESULT_NOT_FOUND]


def test_job_cancelled_while_it_runs_is_not_run_again_when_its_worker_is_lost(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    handle = client.submit(SubmitJobBg(b"f", b"", b"w"))
    worker.grabbed()
    client.command(b"cancel job " + handle)
    assert bench.engine.next_deadline() is None
    worker.leave()
    assert bench.worker(b"f").grab() is None


@given(st.lists(names, min_size=1, max_size=5, unique=True), hostile_names(), hostile_names())
def test_no_name_breaks_a_row(functions: list[bytes], client_id: bytes, unique: bytes) -> None:
    bench = Bench()
    client_id, unique = client_id.replace(b"\0", b""), unique.replace(b"\0", b"")
    worker = bench.worker(*functions).send(SetClientId(client_id))
    for function in functions:
        worker.submit(SubmitJobBg(function, unique, b"w"))
    for command in (b"status", b"prioritystatus"):
        *rows, dot, end = worker.command(command).split(b"\n")
        assert [unescape(row.split(b"\t")[0]) for row in rows] == functions
        assert (dot, end) == (b".", b"")
    first, dot, end = worker.command(b"workers").split(b"\n")
    _, _, shown, _, *listed = first.split(b" ")
    assert (unescape(shown), dot, end) == (client_id or b"-", b".", b"")
    assert [unescape(name) for name in reversed([*listed])] == functions
    *rows, dot, end = worker.command(b"show unique jobs").split(b"\n")
    assert [unescape(row) for row in rows] == [unique] * len(functions)
    assert (dot, end) == (b".", b"")
