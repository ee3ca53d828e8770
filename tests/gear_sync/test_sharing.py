"""Threads that share a client of several servers: what one of them begins, the one that pumps has to see."""

from __future__ import annotations

from gear_sync import Client, Server
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call


def test_thread_connects_to_a_server_while_another_waits_for_a_job_of_a_second_one() -> None:
    with Server(port=0) as one, Server(port=0) as two:
        with Client([one.address, two.address], probe_interval=None) as client:
            job = client.submit("nobody")
            waiting = Call(lambda: job.wait(LIMIT))
            poll_until(
                lambda: client._servers.pump._pumping and job.handle is not None, "a thread pumps, with nothing to read"
            )
            asking = Call(lambda: client.admin_of(two.address).version())
            assert asking.result()
            assert waiting.running
        assert waiting.result()
