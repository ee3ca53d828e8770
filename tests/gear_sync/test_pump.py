"""`gear_sync.pump`: threads that share a link; one pumps, the others sleep, and none is forgotten."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from gear_net.link import Link
from gear_sync import Client, Server, Worker
from gear_sync.pump import Pump
from gearproto import ClientConnection, JobNotSent
from gearproto.addresses import Address
from gearproto.event import Event
from gearproto.events import ConnectionClosed, Echoed, RequestId
from gearproto.packets import EchoReq, EchoRes, SubmitJob
from tests.harness.hostile import Peer
from tests.harness.servers import full_listener, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

BIG: Final = 16 * 1024 * 1024


class Source:
    """What a pump moves: a link, until it is closed."""

    def __init__(self, link: Link) -> None:
        self.link = link

    @property
    def sock(self) -> socket.socket | None:
        return None if self.link.closed else self.link.sock

    @property
    def wants(self) -> int:
        return self.link.wants

    def on_ready(self, events: int) -> None:
        self.link.on_ready(events)

    def next_deadline(self) -> float | None:
        return self.link.conn.next_deadline()

    def on_deadline(self, now: float) -> None:
        self.link.conn.handle_timeout(now)
        self.link.settle()

    def look(self) -> None:
        self.link.look()

    def close(self, reason: str) -> None:
        self.link.close(reason)


class Busy(Source):
    """A source that always has something to read, and a thread that wants the lock as soon as it has been pumped."""

    def __init__(self, link: Link, pump: Pump) -> None:
        super().__init__(link)
        self.turns = 0
        self.turns_at_lock = 0
        self._pump = pump
        self._wants = threading.Event()

    def on_ready(self, events: int) -> None:
        self.turns += 1
        if self.turns == 1:
            self._wants.set()
            poll_until(self._pump.gate.locked, "the other thread waits for the lock")

    def want_lock(self) -> None:
        assert self._wants.wait(LIMIT)
        with self._pump.gate, self._pump.lock:
            self.turns_at_lock = self.turns


class Site:
    """A pump on a client's connection, and the other end of its socket."""

    def __init__(self, conn: ClientConnection | None = None) -> None:
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.peer = Peer(self.sock)
        self.conn = conn or ClientConnection()
        self.events: list[Event] = []
        self.answered: dict[RequestId, bytes] = {}
        self.link = Link(ours, self.conn, self._on_event)
        self.pump = Pump("the site")
        self.pump.add(Source(self.link))

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Echoed):
            self.answered[event.request] = event.data

    def ask(self, data: bytes) -> RequestId:
        """Send a request without waiting for its answer."""
        with self.pump.lock:
            request = self.conn.echo(data)
            self.settle()
        return request

    def settle(self) -> None:
        """Send what has been queued; with the lock held."""
        self.link.settle()
        self.pump.changed(watch=self.link.sending or self.link.closed)

    def waiting(self, request: RequestId, timeout: float | None = None) -> Call[bool]:
        """Wait for an answer in a thread."""
        return Call(lambda: self.pump.wait(lambda: request in self.answered or self.link.closed, timeout))

    def pumping(self) -> bool:
        with self.pump.lock:
            return self.pump._pumping

    def sleepers(self) -> int:
        with self.pump.lock:
            return len(self.pump._waiters)

    def close(self) -> None:
        self.pump.close("the test ends")
        self.sock.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with nothing_left_open(), contextlib.closing(Site()) as site:
        yield site


def test_wait_pumps_until_it_is_done(site: Site) -> None:
    request = site.ask(b"x")
    site.peer.send(EchoRes(b"x"))
    assert site.pump.wait(lambda: request in site.answered, LIMIT)


def test_what_is_done_already_needs_no_pumping(site: Site) -> None:
    request = site.ask(b"x")
    site.peer.send(EchoRes(b"x"))
    assert site.pump.wait(lambda: True, 0)
    assert request not in site.answered


def test_wait_that_runs_out_of_time_says_so(site: Site) -> None:
    request = site.ask(b"x")
    for timeout in (0, -1, 0.001):
        assert not site.pump.wait(lambda: request in site.answered, timeout)


def test_asking_again_and_again_without_waiting_sees_the_answer(site: Site) -> None:
    request = site.ask(b"x")
    site.peer.send(EchoRes(b"x"))
    poll_until(lambda: site.pump.wait(lambda: request in site.answered, 0), "the answer is read")


def test_every_thread_is_woken_for_what_it_waits_for(site: Site) -> None:
    requests = [site.ask(b"%d" % number) for number in range(20)]
    calls = [site.waiting(request) for request in requests]
    poll_until(lambda: site.pumping() and site.sleepers() == 19, "one pumps, the others sleep")
    for number, call in enumerate(calls):
        site.peer.send(EchoRes(b"%d" % number))
        assert call.result()
        assert all(later.running for later in calls[number + 1 :])


def test_last_thread_goes_on_when_the_pumping_one_runs_out_of_time(site: Site) -> None:
    first, second = site.ask(b"1"), site.ask(b"2")
    leaving = site.waiting(first, 0.05)
    poll_until(lambda: site.pumping() or not leaving.running, "one pumps")
    staying = site.waiting(second)
    assert not leaving.result()
    site.peer.send(EchoRes(b"1"), EchoRes(b"2"))
    assert staying.result()


def test_sleeping_thread_can_run_out_of_time_and_harms_nobody(site: Site) -> None:
    first, second = site.ask(b"1"), site.ask(b"2")
    pumping = site.waiting(first)
    poll_until(site.pumping, "one pumps")
    assert not site.pump.wait(lambda: second in site.answered, 0.01)
    assert site.sleepers() == 0
    site.peer.send(EchoRes(b"1"))
    assert pumping.result()


def test_thread_that_is_interrupted_hands_the_pump_over(site: Site) -> None:
    request = site.ask(b"1")
    interrupt = threading.Event()

    def interrupted() -> bool:
        if interrupt.is_set():
            raise KeyboardInterrupt
        return False

    leaving = Call(lambda: site.pump.wait(interrupted, None))
    poll_until(site.pumping, "one pumps")
    staying = site.waiting(request)
    poll_until(lambda: site.sleepers() == 1, "the other sleeps")
    interrupt.set()
    site.peer.send(EchoRes(b"1"))
    with pytest.raises(KeyboardInterrupt):
        leaving.result()
    assert staying.result()


def test_many_threads_that_come_and_go_never_stall(site: Site) -> None:
    """Each thread asks and waits; now and then it gives up at once, and asks again."""
    stop = threading.Event()

    def answer() -> None:
        with contextlib.suppress(EOFError, OSError):
            while not stop.is_set():
                packet = site.peer.receive()
                assert isinstance(packet, EchoReq)
                site.peer.send(EchoRes(packet.data))

    def ask(name: int) -> int:
        late = 0
        for number in range(30):
            request = site.ask(b"%d %d" % (name, number))
            while not site.pump.wait(lambda request=request: request in site.answered, 0.0005 * (number % 3)):  # type: ignore[misc]
                late += 1
                assert late < 1_000_000
            assert site.answered[request] == b"%d %d" % (name, number)
        return 30

    answering = Call(answer)
    calls = [Call(lambda name=name: ask(name)) for name in range(10)]  # type: ignore[misc]
    assert [call.result() for call in calls] == [30] * 10
    stop.set()
    site.pump.close("done")
    answering.result()


def test_close_wakes_all_who_wait(site: Site) -> None:
    requests = [site.ask(b"1"), site.ask(b"2"), site.ask(b"3")]
    calls = [site.waiting(request) for request in requests]
    poll_until(lambda: site.pumping() and site.sleepers() == 2, "one pumps, the others sleep")
    site.pump.close("enough")
    site.pump.close("enough")
    assert [call.result() for call in calls] == [True] * 3
    assert site.events[-1] == ConnectionClosed("enough")
    assert not site.pump.wait(lambda: False, None)


def test_end_of_the_peer_wakes_all_who_wait(site: Site) -> None:
    calls = [site.waiting(site.ask(b"1")), site.waiting(site.ask(b"2")), site.waiting(site.ask(b"3"))]
    poll_until(lambda: site.pumping() and site.sleepers() == 2, "one pumps, the others sleep")
    site.sock.close()
    assert [call.result() for call in calls] == [True] * 3


def test_failure_noticed_by_a_thread_that_only_sends_wakes_all_who_wait(site: Site) -> None:
    calls = [site.waiting(site.ask(b"1")), site.waiting(site.ask(b"2"))]
    poll_until(lambda: site.pumping() and site.sleepers() == 1, "one pumps, the other sleeps")
    with site.pump.lock:
        site.link.close("noticed while sending")
        site.settle()
    assert [call.result() for call in calls] == [True] * 2


def test_pumping_thread_sends_what_another_could_not(site: Site) -> None:
    request = site.ask(b"1")
    pumping = site.waiting(request)
    poll_until(site.pumping, "one pumps")
    with site.pump.lock:
        site.conn.submit_job(b"f", b"w" * BIG)
        site.settle()
        assert site.link.sending
    packet = site.peer.receive_until(SubmitJob)
    assert isinstance(packet, SubmitJob)
    assert len(packet.workload) == BIG
    site.peer.send(EchoRes(b"1"))
    assert pumping.result()


def test_thread_that_pumps_without_a_pause_lets_others_have_the_lock(site: Site) -> None:
    pump = Pump("the other")
    busy = Busy(site.link, pump)
    pump.add(busy)
    site.peer.send(b"never read")
    other = Call(busy.want_lock)
    assert pump.wait(lambda: busy.turns_at_lock > 0, LIMIT)
    assert busy.turns_at_lock == 1
    other.result()
    pump.close("the test ends")


def test_silent_peer_is_given_up_by_probes() -> None:
    conn = ClientConnection(probe_interval=0.01, probe_timeout=0.02, now=time.monotonic())
    with nothing_left_open(), contextlib.closing(Site(conn)) as site:
        assert site.pump.wait(lambda: site.link.closed, LIMIT)
        assert site.events == [ConnectionClosed("no answer to ECHO_REQ within 0.02 s", silent=True)]


def test_peer_that_answers_probes_is_kept_though_nobody_waits_for_long() -> None:
    conn = ClientConnection(probe_interval=0.01, probe_timeout=0.01, now=time.monotonic())
    with contextlib.closing(Site(conn)) as site:
        assert site.pump.wait(lambda: conn._probe_end is not None, LIMIT)
        probe = site.peer.receive_until(EchoReq)
        assert isinstance(probe, EchoReq)
        site.peer.send(EchoRes(probe.data))
        poll_until(lambda: time.monotonic() > (conn.next_deadline() or 0), "the time for the answer is over")
        request = site.ask(b"x")
        site.peer.send(EchoRes(b"x"))
        assert site.pump.wait(lambda: request in site.answered, LIMIT)


CHILD: Final = """
import os
import gear_sync
from gearproto import GearmanError
from tests.harness.hostile import HostileServer
from tests.harness.servers import poll_until
from gearproto.packets import JobCreated, SubmitJob, WorkComplete

read, write = os.pipe()

def script(peer):
    peer.receive_until(SubmitJob)
    os.read(read, 1)
    peer.send(b"\\0RES\\0\\0\\0\\x1b\\0\\0\\0\\x0aexceptions", JobCreated(b"H:1"), WorkComplete(b"H:1", b"result"))
    peer.wait_for_end()

with HostileServer(script) as server, gear_sync.Client(server.address) as client:
    job = client.submit("f")
    child = os.fork()
    if not child:
        calls = [lambda: job.result(1), lambda: job.wait(1), lambda: next(job.events(1)), lambda: client.submit("f"),
                 lambda: client.echo(b""), lambda: client.status(b"H:1"), lambda: client.admin.version()]
        told = 0
        for call in calls:
            try:
                call()
            except GearmanError as error:
                told += "parent process" in str(error)
        client.close()
        os._exit(told)
    _pid, status = os.waitpid(child, 0)
    os.write(write, b"x")
    assert job.result(20) == b"result"
    print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_client_and_jobs_of_the_parent_are_errors_after_a_fork_and_the_parent_s_connection_lives() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


RUNNING_AT_FORK: Final = """
import os
import sys
import threading
import gear_sync
from gearproto import GearmanError

with gear_sync.Worker(sys.argv[1]) as worker, gear_sync.Client(sys.argv[1]) as client:
    worker.register("reverse", lambda job: job.workload[::-1])
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert client.submit("reverse", b"abc").result(20) == b"cba"
    child = os.fork()
    if not child:
        try:
            worker.run()
        except GearmanError as error:
            worker.stop()
            worker.close()
            os._exit("belongs to the parent process" in str(error))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert client.submit("reverse", b"abc").result(20) == b"cba"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_worker_that_ran_before_a_fork_refuses_to_in_the_child_and_goes_on_in_the_parent() -> None:
    with Server(port=0) as server:
        command = [sys.executable, "-c", RUNNING_AT_FORK, f"127.0.0.1:{server.port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stderr


MADE_BEFORE_FORK: Final = """
import os
import signal
import sys
import gear_sync

address = "127.0.0.1", int(sys.argv[1])
client = gear_sync.Client(address, timeout=20)
worker = gear_sync.Worker(address)
worker.register("reverse", lambda job: job.workload[::-1])

def child(run):
    pid = os.fork()
    if pid:
        return pid
    try:
        run()
        os._exit(0)
    finally:
        os._exit(1)

def use():
    number = b"%d" % os.getpid()
    assert client.submit("reverse", number).result(20) == number[::-1]
    client.close()

working = child(worker.run)
for pid in [child(use) for _ in range(3)]:
    assert os.waitpid(pid, 0)[1] == 0
use()
os.kill(working, signal.SIGTERM)
assert os.waitpid(working, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_client_and_worker_that_were_made_before_a_fork_work_in_the_children() -> None:
    with Server(port=0) as server:
        command = [sys.executable, "-c", MADE_BEFORE_FORK, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stderr


# Dropped without being closed


COLLECTIONS: Final = {"none in between": (0, 10, 10), "some": (50, 2, 2), "many": (10, 5, 5), "all": (1, 1, 1)}
"""Thresholds of the garbage collector: which generation an object is in changes when it is finalized."""


def warnings_of_drop(use: Callable[[], object], collections: tuple[int, int, int] = (0, 10, 10)) -> list[str]:
    """Let something be made, used and dropped; return what is warned of meanwhile."""
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(*collections)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            use()
            gc.collect()
    finally:
        gc.set_threshold(*before)
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


@pytest.mark.parametrize("collections", COLLECTIONS.values(), ids=COLLECTIONS)
@pytest.mark.parametrize("connect", [None, socket.create_connection])
def test_client_that_is_dropped_without_close_gives_one_warning_that_names_it(
    connect: Callable[[Address], socket.socket] | None, collections: tuple[int, int, int]
) -> None:
    with Server(port=0) as server, nothing_left_open(server_goes_on=True):
        host, port = server.address

        def use() -> None:
            client = Client([server.address, (host, 9)], connect=connect)
            assert client.echo(b"x") == b"x"

        for _ in range(10):
            assert warnings_of_drop(use, collections) == [
                f"ResourceWarning: gear_sync.Client of {host}:{port}, {host}:9 was not closed"
            ]


@pytest.mark.parametrize("collections", COLLECTIONS.values(), ids=COLLECTIONS)
def test_client_that_is_dropped_while_it_connects_gives_one_warning_that_names_it(
    collections: tuple[int, int, int],
) -> None:
    with full_listener() as silent, nothing_left_open():
        host, port = silent.getsockname()

        def use() -> None:
            with pytest.raises(JobNotSent):
                Client((host, port), timeout=0.001).submit("f")

        assert warnings_of_drop(use, collections) == [
            f"ResourceWarning: gear_sync.Client of {host}:{port} was not closed"
        ]


@pytest.mark.parametrize("collections", COLLECTIONS.values(), ids=COLLECTIONS)
def test_worker_that_is_dropped_without_close_gives_one_warning_that_names_it(
    collections: tuple[int, int, int],
) -> None:
    with Server(port=0) as server, nothing_left_open(server_goes_on=True):
        host, port = server.address

        def use() -> None:
            worker = Worker(server.address)
            worker.register("f", lambda _job: worker.stop())
            with Client(server.address) as client:
                client.submit_background("f")
            worker.run()

        assert warnings_of_drop(use, collections) == [
            f"ResourceWarning: gear_sync.Worker of {host}:{port} was not closed"
        ]


def test_client_and_worker_that_are_closed_or_were_never_used_give_no_warning() -> None:
    with Server(port=0) as server, nothing_left_open(server_goes_on=True):

        def use() -> None:
            for kind in (Client, Worker):
                kind(server.address)
                kind(server.address).close()
            with Client(server.address) as client:
                client.echo(b"x")

        assert warnings_of_drop(use) == []


def test_jobs_keep_their_client_alive() -> None:
    with Server(port=0) as server, Worker(server.address) as worker, working(worker):
        worker.register("reverse", lambda job: job.workload[::-1])

        def use() -> None:
            jobs = [Client(server.address).submit("reverse", b"abc")]
            gc.collect()
            assert jobs[0].result(LIMIT) == b"cba"

        assert len(warnings_of_drop(use)) == 1
