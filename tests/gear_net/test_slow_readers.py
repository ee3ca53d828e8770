"""The job server under each of its drivers: clients that read slowly are served, those that do not read are closed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from gearproto.codec import RESPONSE
from gearproto.packets import CanDo, EchoReq, JobCreated, SubmitJob, WorkComplete, WorkData
from tests.harness.drivers import DRIVERS, Driver, ThreadedServer
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import Call

MIB: Final = 1024 * 1024

Start = Callable[..., ThreadedServer]


@pytest.fixture(params=DRIVERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    driver: Driver = request.param
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(ThreadedServer(driver, **options))


def running_job(server: ThreadedServer, client: RawConnection, worker: RawConnection) -> bytes:
    """Have a worker take a job of a client; return its handle."""
    handle = client.submit(SubmitJob(b"run", b"", b""))
    worker.send(CanDo(b"run"))
    assert worker.grab().handle == handle
    return handle


def read(client: RawConnection, count: int) -> bytes:
    """Read so many bytes, and leave what comes behind them unread: `socket.MSG_WAITALL` does not with a time limit."""
    data = bytearray()
    while len(data) < count:
        data += client.sock.recv(count - len(data))
    return bytes(data)


def wait_for_unsent(server: ThreadedServer, size: int) -> None:
    poll_until(lambda: server.snapshot().unsent >= size, f"{size} bytes are unread")


def test_client_that_reads_gets_several_big_results_at_once(start: Start) -> None:
    server = start(max_unsent=16 * MIB)
    size, count = 14 * MIB, 3
    with RawConnection(server) as client, contextlib.ExitStack() as stack:
        workers = [stack.enter_context(RawConnection(server)) for _ in range(count)]
        handles = [running_job(server, client, worker) for worker in workers]
        results = [WorkComplete(handle, bytes([number]) * size) for number, handle in enumerate(handles)]
        for worker, result in zip(workers, results, strict=True):
            worker.send_bytes(result.encode()[:-1])
        poll_until(lambda: server.snapshot().received >= size * count, "all but the last bytes have arrived")
        reading = Call(lambda: [client.receive(WorkComplete) for _ in range(count)])
        with server.held():  # else a client has to read in the time between two results
            for number, worker in enumerate(workers):
                worker.send_bytes(bytes([number]))
        got = sorted(reading.result(), key=lambda packet: packet.data[:1])
        assert got == results


def test_client_that_reads_may_fall_behind_and_gets_everything(start: Start) -> None:
    server = start(max_unsent=12 * MIB, max_behind=64 * MIB)
    count = 80  # half of which the client reads meanwhile; the system holds some
    with RawConnection(server) as client, RawConnection(server) as worker:
        handle = running_job(server, client, worker)
        whole = bytearray()
        for number in range(count):
            worker.send(WorkData(handle, bytes([number]) * MIB))
            worker.expect_nothing()
            whole += read(client, MIB // 2)
        worker.send(WorkComplete(handle, b"end"))
        wait_for_unsent(server, 13 * MIB)
        packets = [WorkData(handle, bytes([number]) * MIB).encode(RESPONSE) for number in range(count)]
        expected = b"".join([*packets, WorkComplete(handle, b"end").encode(RESPONSE)])
        whole += client.receive_bytes(len(expected) - len(whole))
        assert whole == expected
        client.expect_nothing()
        assert server.snapshot().unsent == 0


def test_requests_of_a_client_that_has_fallen_behind_wait_until_it_has_read(start: Start) -> None:
    server = start()
    with RawConnection(server) as client, RawConnection(server) as worker:
        handle = running_job(server, client, worker)
        for _ in range(12):
            worker.send(WorkData(handle, bytes(MIB)))
        worker.expect_nothing()
        wait_for_unsent(server, 2 * MIB)
        client.send(SubmitJob(b"other", b"", b""))
        worker.expect_nothing()
        assert [row.split(b"\t")[0] for row in worker.ask_rows(b"show jobs")] == [handle]
        for _ in range(12):
            assert len(client.receive(WorkData).data) == MIB
        client.receive(JobCreated)


def test_client_that_joins_its_job_again_and_again_costs_no_more_than_it_may_leave_unread(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(max_unsent=4 * MIB, max_behind=16 * MIB)
    joins = 2000
    with RawConnection(server) as client, RawConnection(server) as worker, RawConnection(server) as reader:
        request = SubmitJob(b"run", b"unique", b"")
        client.send(*[request] * joins)
        created = [client.receive(JobCreated).handle for _ in range(joins)]
        handle = created[0]
        assert set(created) == {handle}
        reader.submit(request)
        worker.send(CanDo(b"run"))
        worker.grab()
        data = WorkData(handle, bytes(60_000))
        worker.send(data)  # 120 MB for the client, if it were kept
        reader.expect(data)
        poll_until(lambda: server.snapshot().jobs.peers == 2, "the client is closed")
        assert server.snapshot().unsent == 0
        assert f"limit {16 * MIB}" in caplog.text
        worker.send(WorkComplete(handle, b"done"))
        reader.expect(WorkComplete(handle, b"done"))


def test_joined_client_that_reads_gets_a_copy_for_each_submission(start: Start) -> None:
    server = start()
    joins = 300
    with RawConnection(server) as client, RawConnection(server) as worker:
        client.send(*[SubmitJob(b"run", b"unique", b"")] * joins)
        handle = {client.receive(JobCreated).handle for _ in range(joins)}.pop()
        worker.send(CanDo(b"run"))
        worker.grab()
        data = WorkData(handle, b"x" * 60_000)
        reading = Call(lambda: [client.receive_raw() for _ in range(joins)])
        worker.send(data)
        assert set(reading.result()) == {data.encode(RESPONSE)}


def test_peer_that_takes_a_big_answer_slowly_leaves_others_their_turns(start: Start) -> None:
    server = start()
    with RawConnection(server) as slow, RawConnection(server) as other:
        slow.send(EchoReq(bytes(30 * MIB)))
        for _ in range(60):
            left = MIB // 2
            assert len(slow.receive_bytes(left)) == left
            other.expect_nothing()
        assert len(slow.receive_bytes(12)) == 12
        slow.expect_nothing()
