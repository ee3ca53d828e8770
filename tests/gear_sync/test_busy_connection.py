"""A connection on which a job streams without end: every other call is over in time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from gear_sync import Client, Task
from gearproto import ConnectionLost, GearmanError
from gearproto.packets import JobCreated, OptionRes, SubmitJob, WorkData
from tests.harness.hostile import HostileServer, Peer, bytes_of
from tests.harness.threads import LIMIT, Call

SOON: Final = 0.05  # seconds; the time limit of each call


def streams_without_end(peer: Peer) -> None:
    """Answer the first job with pieces of its result for as long as the client reads, and nothing else."""
    peer.receive_until(SubmitJob)
    peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"))
    pieces = bytes_of(*[WorkData(b"H:1", b"piece")] * 5000)
    while True:
        peer.send(pieces)


class Site:
    """A client with a job that streams, and another one that is not answered."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.streaming = client.submit("stream")
        self.events = self.streaming.events()
        next(self.events)
        self.other = client.submit("other")


@pytest.fixture(params=["nobody pumps", "another thread pumps"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with HostileServer(streams_without_end) as server, Client(server.address, timeout=SOON) as client:
        site = Site(client)
        if request.param == "nobody pumps":
            yield site
            return
        pumping = threading.Event()

        def iterate() -> None:
            with contextlib.suppress(GearmanError):
                for _event in site.events:
                    pumping.set()

        call = Call(iterate)
        assert pumping.wait(LIMIT)
        yield site
        client.close()
        call.result()


def in_time(call: Callable[[], object]) -> None:
    with pytest.raises(TimeoutError):
        call()


def answered_in_time(call: Callable[[], object]) -> None:
    with pytest.raises((TimeoutError, ConnectionLost), match=r"no answer within 0\.05 s"):
        call()


CALLS: Final[dict[str, Callable[[Site], object]]] = {
    "submit": lambda site: site.client.submit("f"),
    "submit_many": lambda site: site.client.submit_many([Task("f")] * 3),
    "submit_background": lambda site: answered_in_time(lambda: site.client.submit_background("f")),
    "submit_background_many": lambda site: site.client.submit_background_many([Task("f")] * 3),
    "wait": lambda site: site.other.wait(SOON),
    "result": lambda site: in_time(lambda: site.other.result(SOON)),
    "result of the stream": lambda site: in_time(lambda: site.streaming.result(SOON)),
    "events": lambda site: in_time(lambda: list(site.other.events(SOON))),
    "events of the stream": lambda site: in_time(lambda: list(site.streaming.events(SOON))),
    "as_completed": lambda site: in_time(lambda: list(site.client.as_completed([site.other], SOON))),
    "status": lambda site: answered_in_time(lambda: site.client.status(b"H:9")),
    "status_unique": lambda site: answered_in_time(lambda: site.client.status_unique(b"u")),
    "echo": lambda site: answered_in_time(lambda: site.client.echo(b"")),
    "admin": lambda site: answered_in_time(site.client.admin.version),
    "close": lambda site: site.client.close(),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_is_over_in_time_though_a_job_streams_without_end(site: Site, name: str) -> None:
    Call(lambda: CALLS[name](site)).result()
