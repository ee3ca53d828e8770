"""The job server under each of its drivers, when all that peers make it keep has reached its limit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from gear_net.machine import machine_memory
from gearproto.packets import CanDo, EchoReq, Error, SubmitJob, SubmitJobBg, WorkComplete, WorkData
from tests.harness.drivers import DRIVERS, Driver, ThreadedServer
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until

MIB: Final = 1024 * 1024

Start = Callable[..., ThreadedServer]


@pytest.fixture(params=DRIVERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    driver: Driver = request.param
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(ThreadedServer(driver, **options))


def submit_until_refused(client: RawConnection) -> int:
    """Submit jobs until the server takes no more; return how many it has taken."""
    count, batch = 0, 200
    while True:
        client.send(*[SubmitJobBg(b"run", b"", bytes(1000))] * batch)
        answers = [client.receive_any() for _ in range(batch)]
        refusals = [answer for answer in answers if isinstance(answer, Error)]
        count += batch - len(refusals)
        if refusals:
            assert set(refusals) == {Error(b"QUEUE_ERROR", b"Server is at its memory limit")}
            return count


def test_past_the_limit_jobs_and_connections_are_refused_until_there_is_room_again(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(max_memory=8 * MIB)
    with RawConnection(server) as client, RawConnection(server) as worker:
        worker.send(CanDo(b"run"))
        count = submit_until_refused(client)
        assert 4000 < count < 8000  # of 1,500 bytes each
        with RawConnection(server) as late:
            late.expect_turned_away()
        for _ in range(count):
            worker.send(WorkComplete(worker.grab().handle, b""))
        worker.expect_nothing()
        client.submit(SubmitJobBg(b"run", b"", b""))
        with RawConnection(server) as late:
            late.expect_nothing()
    text = caplog.text
    assert f"memory limit {8 * MIB} reached: nothing new is taken" in text
    assert f"refused a connection: memory limit {8 * MIB}" in text
    assert f"below the memory limit {8 * MIB} again" in text


def test_peer_with_most_unread_output_goes_first(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(max_memory=24 * MIB)
    with contextlib.ExitStack() as stack:
        worker, *clients = (stack.enter_context(RawConnection(server)) for _ in range(4))
        worker.send(CanDo(b"run"))
        handles = []
        for client in clients:
            handles.append(client.submit(SubmitJob(b"run", b"", b"")))
            worker.grab()
        for handle, count in zip(handles, (8, 14, 10), strict=True):
            for _ in range(count):
                worker.send(WorkData(handle, bytes(MIB)))
        for _ in range(8):
            if server.snapshot().jobs.peers == 3:
                break
            worker.send(WorkData(handles[1], bytes(MIB)))
            worker.expect_nothing()
        poll_until(lambda: server.snapshot().jobs.peers == 3, "a client is closed")
        assert "peer 3 (127.0.0.1): closed with" in caplog.text
        for client, count in ((clients[0], 8), (clients[2], 10)):
            assert all(len(client.receive(WorkData).data) == MIB for _ in range(count))
            client.expect_nothing()


def test_halves_of_packets_are_bounded_however_many_peers_send_them(start: Start) -> None:
    server = start(max_memory=8 * MIB)
    half = EchoReq(bytes(16 * MIB)).encode()[: 3 * MIB]
    with contextlib.ExitStack() as stack, RawConnection(server) as good:
        good.expect_nothing()
        for _ in range(10):
            peer = stack.enter_context(RawConnection(server))
            with contextlib.suppress(ConnectionError):
                peer.send_bytes(half)
        poll_until(lambda: server.snapshot().jobs.peers <= 3, "most are closed")
        good.expect_nothing()


def test_machine_has_no_more_memory_than_its_container(tmp_path: Path) -> None:
    whole = machine_memory(())
    assert whole > 64 * MIB
    limit, none = tmp_path / "limit", tmp_path / "none"
    limit.write_text("67108864\n")
    none.write_text("max\n")
    assert machine_memory([tmp_path / "missing", limit, none]) == 64 * MIB
    assert machine_memory([none]) == whole
