"""An idle client of `gear_anyio` notices that its connection has ended before it uses it."""

from __future__ import annotations

import pytest

from gear_anyio import Client
from gearproto.packets import EchoReq, EchoRes, JobCreated, OptionRes, SubmitJob, WorkComplete
from tests.harness.hostile import HostileServer, Peer
from tests.harness.loops import STRICT_LOOPS, Loop, run
from tests.harness.threads import LIMIT


@pytest.mark.parametrize("backend", STRICT_LOOPS)
def test_end_that_came_while_the_event_loop_was_busy_is_no_loss(backend: Loop) -> None:
    def leave(peer: Peer) -> None:
        peer.receive_until(EchoReq)
        peer.send(OptionRes(b"exceptions"), EchoRes(b"x"))

    def work(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
        peer.wait_for_end()

    async def main() -> None:
        with HostileServer(leave, work) as server:
            async with Client(server.address) as client:
                assert await client.echo(b"x") == b"x"
                server.wait_for_scripts(1)  # blocks the event loop, too
                job = await client.submit("f")
                assert await job.result(LIMIT) == b"done"

    run(backend, main)
