"""What `gear_sync.Client` has sent when a submission returns: a program may wait for none of its jobs for long."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from gear_sync import Client, JobRequest
from gearproto.client import record_of
from gearproto.event import Event
from gearproto.packets import JobCreated, OptionRes, SubmitJob, WorkComplete
from tests.harness.hostile import HostileServer, Peer
from tests.harness.threads import LIMIT

SIZE: Final = 8_000_000  # more than the systems of both ends hold


def read_submissions(peer: Peer, came: list[Event]) -> None:
    with contextlib.suppress(EOFError):
        while True:
            came.append(peer.receive_until(SubmitJob))


def test_job_has_left_when_submit_returns() -> None:
    came: list[Event] = []
    with HostileServer(lambda peer: read_submissions(peer, came)) as server, Client(server.address) as client:
        client.submit("f", bytes(SIZE))
    assert len(came) == 1


def test_jobs_for_several_servers_have_left_when_submit_many_returns() -> None:
    came: list[Event] = []

    def script(peer: Peer) -> None:
        read_submissions(peer, came)

    with (
        HostileServer(script) as one,
        HostileServer(script) as other,
        Client([one.address, other.address], policy="round_robin") as client,
    ):
        client.submit_many([JobRequest("f", bytes(SIZE)) for _ in range(4)])
    assert len(came) == 4


def test_submission_that_no_server_reads_returns_after_the_timeout_and_leaves_later() -> None:
    read_on = threading.Event()

    def script(peer: Peer) -> None:
        assert read_on.wait(LIMIT)
        peer.receive_until(SubmitJob)
        peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"all of it"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address, timeout=0.05) as client:
        job = client.submit("f", bytes(SIZE))
        assert not record_of(job).taken_or_ended
        read_on.set()
        assert job.result(LIMIT) == b"all of it"
