"""KeyboardInterrupt at any point of a call leaves a client usable or clearly closed."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import gear_sync
from gear_sync import Client, Server, Worker
from gearproto import Completed, JobLost, JobNotSent, Lost
from gearproto.packets import JobCreated, OptionRes, SubmitJob, WorkComplete
from tests.harness.hostile import HostileServer, Peer
from tests.harness.threads import LIMIT, Call, working

FOLDER = str(Path(gear_sync.__file__).parent)
STRIDE = 7
"""Every so many points are interrupted; the first differs from one test to the next."""


class Interrupter:
    """Raises KeyboardInterrupt where Python itself may: when a function begins, and when a call of one in C returns.

    Attributes:
        passed: how many such points have been passed in functions called by `gear_sync`.
    """

    def __init__(self, at: int) -> None:
        self.passed = 0
        self._at = at
        self.fired = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in {"call", "c_return"} or not self._is_ours(frame):
            return
        self.passed += 1
        if self.passed == self._at:
            self.fired = True
            sys.setprofile(None)
            raise KeyboardInterrupt

    def _is_ours(self, frame: FrameType | None) -> bool:
        depth = 0
        while frame is not None and depth < 4:
            if frame.f_code.co_filename.startswith(FOLDER):
                return True
            frame = frame.f_back
            depth += 1
        return False


def interrupted(call: Callable[[], object], at: int) -> Interrupter:
    """Interrupt a call at a point; it may end before."""
    interrupter = Interrupter(at)
    sys.setprofile(interrupter)
    try:
        call()
    except KeyboardInterrupt:
        assert interrupter.fired
    finally:
        sys.setprofile(None)
    return interrupter


@pytest.fixture(autouse=True)
def no_socket_is_left_to_other_tests() -> Iterator[None]:
    """Let the garbage collector find what an interrupted call has dropped."""
    yield
    gc.collect()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """The address of a server with a worker."""
    with Server(port=0) as server, Worker(server.address) as worker:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            yield server.address


def submit_and_wait(client: Client) -> None:
    assert client.submit("reverse", b"abc").result(LIMIT) == b"cba"


def ask(client: Client) -> None:
    assert client.echo(b"x") == b"x"
    assert client.submit_background("nobody")


def check(client: Client) -> None:
    """The client works, and gives right results."""
    assert not client._servers.pump.lock.locked()
    assert not client._servers.pump._pumping
    assert client._servers.pump._waiters == {}
    call = Call(lambda: client.submit("reverse", b"again").result(LIMIT))
    assert call.result() == b"niaga"
    assert client.echo(b"x") == b"x"


# A socket that is just being made has nobody yet who could close it but the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("use", [submit_and_wait, ask])
@pytest.mark.parametrize("first", range(1, STRIDE + 1))
def test_interrupted_call_leaves_the_client_usable(
    address: tuple[str, int], use: Callable[[Client], None], connected: bool, first: int
) -> None:
    at = first
    while True:
        with Client(address, retry_pauses=(0.0001, 0.0001)) as client:
            if connected:
                client.echo(b"")
            interrupter = interrupted(lambda client=client: use(client), at)  # type: ignore[misc]
            check(client)
        if not interrupter.fired:
            break
        at += STRIDE
    assert at > 100


def loses_a_job(peer: Peer) -> None:
    peer.receive_until(SubmitJob)


def completes_a_job(peer: Peer) -> None:
    peer.receive_until(SubmitJob)
    peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"result"))
    peer.wait_for_end()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("first", range(1, STRIDE + 1, 2))
def test_job_that_is_submitted_again_ends_though_that_was_interrupted(first: int) -> None:
    """Whoever holds the job can still wait for it, and is told the truth."""
    at = first
    fired = True
    while fired:
        with (
            HostileServer(loses_a_job) as lossy,
            HostileServer(completes_a_job) as good,
            Client([lossy.address, good.address], retry_pauses=(0.0001, 0.0001), resubmit_timeout=0) as client,
        ):
            job = client.submit("f", unique="u", resubmit=True)
            lossy.join()
            fired = interrupted(lambda job=job: job.result(LIMIT), at).fired  # type: ignore[misc]
            if not fired:
                assert job.outcome == Completed(b"result")
            else:
                call = Call(lambda job=job: job.wait(LIMIT))  # type: ignore[misc]
                assert call.result()
                assert job.outcome == Completed(b"result") or isinstance(job.outcome, Lost)
                with contextlib.suppress(OSError):
                    socket.create_connection(good.address).close()  # it may not have been reached
        at += 4 * STRIDE
    assert at > 100


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("first", range(1, STRIDE + 1, 2))
def test_other_threads_are_told_the_truth_though_one_was_interrupted(address: tuple[str, int], first: int) -> None:
    def others(client: Client) -> int:
        lost = 0
        for number in range(10):
            try:
                assert client.submit("reverse", b"%d!" % number).result(LIMIT) == (b"%d!" % number)[::-1]
            except (JobLost, JobNotSent):
                lost += 1
        return lost

    at = first
    fired = True
    while fired:
        with Client(address, retry_pauses=(0.0001, 0.0001)) as client:
            calls = [Call(lambda client=client: others(client)) for _ in range(2)]  # type: ignore[misc]
            fired = interrupted(lambda client=client: submit_and_wait(client), at).fired  # type: ignore[misc]
            for call in calls:
                assert call.result() <= 10
            check(client)
        at += 4 * STRIDE
