"""Links that are slow but move: what is large is delivered, however silent the server is meanwhile."""

from __future__ import annotations

import socket
from typing import Any, Final

import pytest

from gearproto.addresses import Address
from gearproto.packets import GrabJobAll, JobAssignAll, JobCreated, OptionRes, SubmitJob, WorkComplete
from gearproto.server import Report
from tests.harness.clocks import SkippingClock
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import Gate, Idiom, anyio_backend_of, make_client, make_worker, working

pytestmark = pytest.mark.anyio

SIZE: Final = 6_000_000
CHUNK: Final = 64 * 1024
PAUSE: Final = 10.0  # seconds that each chunk takes
PROBES: Final[dict[str, Any]] = {"probe_interval": 2 * PAUSE, "probe_timeout": 2 * PAUSE}  # much less than SIZE takes


class SlowSocket(socket.socket):
    """A socket of which the system takes little at a time, and late."""

    clock: SkippingClock
    _full = False

    def send(self, data: Any, flags: int = 0) -> int:
        self._full = not self._full
        if not self._full:
            raise BlockingIOError
        self.clock.skip(PAUSE)
        return super().send(memoryview(data)[:CHUNK], flags)


def slow(idiom: Idiom, clock: SkippingClock) -> Any:
    """Return what opens slow connections for an idiom."""

    def open_socket(address: Address) -> socket.socket:
        sock = SlowSocket()
        sock.clock = clock
        sock.connect((address.host, address.port))
        sock.setblocking(False)
        return sock

    async def open_socket_soon(address: Address) -> socket.socket:
        return open_socket(address)

    return open_socket if idiom == "gear_sync" else open_socket_soon


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SkippingClock:
    return SkippingClock(monkeypatch)


@pytest.fixture
def anyio_backend(idiom: Idiom, clock: SkippingClock) -> Any:
    return ("trio", {"clock": clock}) if idiom == "trio" else anyio_backend_of(idiom)


async def test_large_upload_over_a_slow_link_arrives(idiom: Idiom, clock: SkippingClock) -> None:
    def server(peer: Peer) -> None:
        submitted = peer.receive_until(SubmitJob)
        assert isinstance(submitted, SubmitJob)
        size = b"%d" % len(submitted.workload)
        peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", size))
        peer.wait_for_end()

    with HostileServer(server) as hostile:
        async with make_client(idiom, hostile.address, connect=slow(idiom, clock), timeout=None, **PROBES) as client:
            job = await client.submit("f", bytes(SIZE))
            assert await job.result() == b"%d" % SIZE


async def test_large_result_over_a_slow_link_arrives(idiom: Idiom, clock: SkippingClock) -> None:
    results: list[int] = []
    over = Gate()

    def server(peer: Peer) -> None:
        for size in (SIZE, 1):  # the second tells that the connection has been kept
            peer.receive_until(GrabJobAll)
            peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"%d" % size))
            report = peer.receive_until(Report)
            assert isinstance(report, Report)
            results.append(len(report.data))
        over.open()
        peer.wait_for_end()

    with HostileServer(server) as hostile:
        worker = make_worker(idiom, hostile.address, connect=slow(idiom, clock), **PROBES)
        worker.register("f", lambda job: bytes(int(job.workload)))
        async with working(worker):
            await over.reached()
    assert results == [SIZE, 1]
