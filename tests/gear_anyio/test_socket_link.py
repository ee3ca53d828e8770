"""`SocketLink`: all that is made is sent, be it little, much, or more than the socket takes at once."""

from __future__ import annotations

import socket

import anyio
import pytest
import trio
import trio.testing

from gear_anyio.socket_link import SocketLink
from gearproto import ClientConnection
from gearproto.codec import RESPONSE
from gearproto.packets import EchoReq, EchoRes, SubmitJob
from tests.harness.loops import STRICT_LOOPS, Loop, run
from tests.harness.threads import LIMIT

BIG = 8 * 1024 * 1024


async def receive(sock: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = bytearray()
    with anyio.fail_after(LIMIT):
        while len(data) < size:
            await anyio.wait_readable(sock)
            data += sock.recv(size - len(data))
    return bytes(data)


@pytest.mark.parametrize("backend", STRICT_LOOPS)
@pytest.mark.parametrize("sizes", [[1], [BIG], [1, 1, 1], [1, BIG, 1], [BIG, BIG], [1] * 1000])
def test_all_output_is_sent_though_nothing_comes(backend: Loop, sizes: list[int]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        conn = ClientConnection()
        link = SocketLink(ours, conn, lambda _event: None)
        async with anyio.create_task_group() as group:
            group.start_soon(link.run)
            await anyio.wait_all_tasks_blocked()
            expected = b""
            for size in sizes:
                conn.submit_job(b"f", bytes(size))
                link.settle()
                expected += SubmitJob(b"f", b"", bytes(size)).encode()
            assert await receive(theirs, len(expected)) == expected
            await link.wait_until_sent(LIMIT)
            link.close("enough")
        theirs.close()

    run(backend, main)


def test_answer_that_has_come_by_the_deadline_counts_though_both_show_at_once() -> None:
    """An event loop that was held up finds both at once, and trio runs what they wake in any order."""
    clock = trio.testing.MockClock()

    async def main() -> bool:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        conn = ClientConnection(probe_interval=30, probe_timeout=10, now=anyio.current_time())
        link = SocketLink(ours, conn, lambda _event: None)
        async with anyio.create_task_group() as group:
            group.start_soon(link.run)
            await anyio.wait_all_tasks_blocked()
            clock.jump(30)
            probe = await receive(theirs, len(EchoReq(b"probe").encode()))
            theirs.sendall(EchoRes(b"probe").encode(RESPONSE))
            clock.jump(10)
            await anyio.wait_all_tasks_blocked()
            alive = bool(probe) and not conn.closed
            link.close("enough")
        theirs.close()
        return alive

    assert all(trio.run(main, clock=clock) for _ in range(20))
