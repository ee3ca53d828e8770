from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import Grab, LocalProtocolError, WorkerConnection
from gearproto.event import Event
from gearproto.events import Answered, JobAssigned
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    GrabJobAll,
    JobAssignAll,
    NoJob,
    Noop,
    PreSleep,
    SetClientId,
)
from gearproto.worker import DEFAULT_GRAB_TIMEOUT, Grabber
from tests.harness.connections import output, receive

F, G = b"f", b"g"
NOW = 100.0


def connection() -> WorkerConnection:
    """Return a connection as a grabber wants it."""
    return WorkerConnection(asks_when_woken=False)


def attached(grabber: Grabber, count: int = 1) -> list[WorkerConnection]:
    """Attach connections, and take what they say at first."""
    conns = [connection() for _ in range(count)]
    for conn in conns:
        grabber.attach(conn)
        conn.data_to_send()
    return conns


def assign(grabber: Grabber, conn: WorkerConnection, handle: bytes = b"H:1") -> None:
    """Let a server assign a job."""
    for event in receive(conn, JobAssignAll(handle, F, b"", b"", b"")):
        assert isinstance(event, JobAssigned)
        grabber.assigned()


def asleep(grabber: Grabber, conn: WorkerConnection) -> None:
    """Let a server that was asked have nothing."""
    assert receive(conn, NoJob()) == []
    assert output(conn)[-1] == PreSleep()
    assert conn.state is Grab.ASLEEP


# Introductions


def test_capacity_is_one_at_the_least() -> None:
    with pytest.raises(ValueError, match="capacity is 0, not a whole number of 1 or more"):
        Grabber(0)


def test_server_is_told_the_name_and_all_functions() -> None:
    grabber = Grabber(client_id=b"me")
    grabber.can_do(F)
    grabber.can_do(G, 1500)
    conn = connection()
    grabber.attach(conn)
    assert output(conn) == [SetClientId(b"me"), CanDo(F), CanDoTimeout(G, 1500)]


def test_function_is_taken_back_once_its_jobs_have_ended_and_nothing_is_asked_until_then() -> None:
    grabber = Grabber(2)
    grabber.can_do(F)
    busy, idle = attached(grabber, 2)
    assert grabber.advance(NOW) == [busy, idle]
    asleep(grabber, idle)
    assign(grabber, busy)
    busy.data_to_send()
    grabber.cant_do(F)
    assert output(idle) == [CantDo(F)]
    assert output(busy) == []
    assert grabber.advance(NOW) == []
    busy.work_complete(b"H:1", b"")
    grabber.ended()
    assert grabber.advance(NOW) == [busy]
    assert output(busy)[1:] == [CantDo(F), GrabJobAll()]  # behind the report


def test_jobs_of_a_function_may_come_until_every_server_has_been_told() -> None:
    grabber = Grabber(2)
    assert not grabber.may_assign(F)
    grabber.can_do(F)
    assert grabber.may_assign(F)
    busy, idle = attached(grabber, 2)
    grabber.advance(NOW)
    asleep(grabber, idle)
    grabber.cant_do(F)
    assert grabber.may_assign(F)  # one was asked, and has not answered
    assign(grabber, busy)
    grabber.advance(NOW)
    assert grabber.may_assign(F)
    busy.work_complete(b"H:1", b"")
    grabber.ended()
    grabber.advance(NOW)
    assert not grabber.may_assign(F)


def test_server_that_may_just_be_assigning_a_job_is_told_after_its_answer() -> None:
    for answer in (NoJob(), JobAssignAll(b"H:1", F, b"", b"", b"")):
        grabber = Grabber()
        grabber.can_do(F)
        (conn,) = attached(grabber)
        grabber.advance(NOW)
        conn.data_to_send()
        grabber.cant_do(F)
        assert grabber.advance(NOW) == []
        if receive(conn, answer):
            grabber.assigned()
            assert grabber.advance(NOW) == []
            conn.work_complete(b"H:1", b"")
            grabber.ended()
        assert grabber.advance(NOW) == [conn]
        assert CantDo(F) in output(conn)


def test_function_that_is_offered_again_is_not_taken_back() -> None:
    grabber = Grabber()
    grabber.can_do(F)
    (conn,) = attached(grabber)
    grabber.advance(NOW)
    assign(grabber, conn)
    grabber.cant_do(F)
    grabber.can_do(F)
    conn.work_complete(b"H:1", b"")
    grabber.ended()
    grabber.advance(NOW)
    assert CantDo(F) not in output(conn)


def test_lost_server_has_nothing_to_be_taken_back() -> None:
    grabber = Grabber()
    grabber.can_do(F)
    (conn,) = attached(grabber)
    grabber.advance(NOW)
    grabber.cant_do(F)
    conn.connection_lost("gone")
    grabber.detach(conn)
    assert grabber.advance(NOW) == []


def test_worker_without_a_name_tells_none() -> None:
    conn = connection()
    Grabber().attach(conn)
    assert output(conn) == []


def test_change_of_functions_is_told_to_every_server_there_is_and_comes() -> None:
    grabber = Grabber()
    conns = attached(grabber, 2)
    grabber.can_do(F)
    grabber.can_do(G, 5)
    grabber.cant_do(F)
    for conn in conns:
        assert output(conn) == [CanDo(F), CanDoTimeout(G, 5), CantDo(F)]
    late = connection()
    grabber.attach(late)
    assert output(late) == [CanDoTimeout(G, 5)]


def test_function_that_was_not_offered_cannot_be_taken_back() -> None:
    grabber = Grabber()
    (conn,) = attached(grabber)
    with pytest.raises(LocalProtocolError, match="CANT_DO for b'f', which was not offered"):
        grabber.cant_do(F)
    assert output(conn) == []


@pytest.mark.parametrize(("function", "timeout_ms"), [(b"", None), (F, 0), (b"f\0", 5)])
def test_function_that_breaks_a_rule_is_offered_to_nobody(function: bytes, timeout_ms: int | None) -> None:
    grabber = Grabber()
    (conn,) = attached(grabber)
    with pytest.raises(LocalProtocolError):
        grabber.can_do(function, timeout_ms)
    late = connection()
    grabber.attach(late)
    assert output(conn) == output(late) == []


# Asking


def test_as_many_servers_are_asked_as_there_is_room() -> None:
    grabber = Grabber(2)
    one, two, three = attached(grabber, 3)
    assert grabber.advance(NOW) == [one, two]
    assert output(one) == output(two) == [GrabJobAll()]
    assert output(three) == []
    assert grabber.advance(NOW) == []


def test_servers_are_asked_in_turn() -> None:
    grabber = Grabber()
    one, two = attached(grabber, 2)
    for conn in (one, two, one, two):
        assert grabber.advance(NOW) == [conn]
        assign(grabber, conn)
        assert grabber.advance(NOW) == []
        grabber.ended()


def test_full_worker_asks_nobody_even_if_it_is_woken() -> None:
    grabber = Grabber()
    one, two = attached(grabber, 2)
    grabber.advance(NOW)
    asleep(grabber, one)
    assert grabber.advance(NOW) == [two]
    output(two)
    assign(grabber, two)
    assert receive(one, Noop()) == []
    assert grabber.advance(NOW) == []
    assert output(one) == output(two) == []
    grabber.ended()
    assert grabber.advance(NOW) == [one]


def test_server_that_has_nothing_is_not_asked_again_until_it_wakes_the_worker() -> None:
    grabber = Grabber()
    (conn,) = attached(grabber)
    grabber.advance(NOW)
    asleep(grabber, conn)
    assert grabber.advance(NOW + 1000) == []
    assert grabber.next_deadline() is None
    receive(conn, Noop())
    assert grabber.advance(NOW) == [conn]


def test_sleeping_worker_asks_again_when_it_offers_another_function() -> None:
    grabber = Grabber()
    one, two = attached(grabber, 2)
    grabber.advance(NOW)
    asleep(grabber, one)
    grabber.can_do(F)
    assert grabber.advance(NOW) == [two]
    asleep(grabber, two)
    assert grabber.advance(NOW) == [one]
    assert output(one) == [CanDo(F), GrabJobAll()]


def test_server_that_does_not_answer_makes_room_after_its_timeout() -> None:
    grabber = Grabber()
    silent, other = attached(grabber, 2)
    assert grabber.advance(NOW) == [silent]
    assert grabber.next_deadline() == NOW + DEFAULT_GRAB_TIMEOUT
    assert grabber.advance(NOW + DEFAULT_GRAB_TIMEOUT - 0.1) == []
    assert grabber.advance(NOW + DEFAULT_GRAB_TIMEOUT) == [other]
    asleep(grabber, other)
    assert grabber.advance(NOW + 1000) == []  # asked already, and not answered


def test_server_on_trial_is_asked_once_it_has_answered() -> None:
    grabber = Grabber(2)
    grabber.can_do(F)
    on_trial = connection()
    on_trial.require_answer(NOW, 5.0)
    grabber.attach(on_trial)
    assert output(on_trial) == [EchoReq(b"trial"), CanDo(F)]
    (sound,) = attached(grabber)
    assert grabber.advance(NOW) == [sound]
    assert receive(on_trial, EchoRes(b"trial")) == [Answered()]
    assert grabber.advance(NOW) == [on_trial]
    assert output(on_trial) == [GrabJobAll()]


def test_late_assignment_is_a_job_like_any_other() -> None:
    grabber = Grabber()
    silent, other = attached(grabber, 2)
    grabber.advance(NOW)
    grabber.advance(NOW + DEFAULT_GRAB_TIMEOUT)
    assign(grabber, other)
    assign(grabber, silent)
    assert grabber.running == 2
    grabber.ended()
    assert grabber.advance(NOW + 10) == []
    grabber.ended()
    assert grabber.advance(NOW + 10) == [silent]


def test_detached_server_makes_room_at_once() -> None:
    grabber = Grabber()
    one, two = attached(grabber, 2)
    assert grabber.advance(NOW) == [one]
    grabber.detach(one)
    assert grabber.advance(NOW) == [two]
    grabber.detach(one)
    assert grabber.next_deadline() == NOW + DEFAULT_GRAB_TIMEOUT


# Stopping


def test_worker_that_stops_is_drained_once_jobs_and_answers_are_there() -> None:
    grabber = Grabber(2)
    one, two = attached(grabber, 2)
    grabber.advance(NOW)
    grabber.stop()
    assert grabber.stopping
    assert not grabber.drained
    assign(grabber, one)
    assert grabber.advance(NOW) == []
    assert not grabber.drained
    receive(two, NoJob())
    assert grabber.advance(NOW) == []
    assert not grabber.drained
    grabber.ended()
    assert grabber.advance(NOW) == []
    assert grabber.drained


def test_worker_that_stops_waits_for_a_silent_server_no_longer_than_its_timeout() -> None:
    grabber = Grabber()
    attached(grabber)
    grabber.advance(NOW)
    grabber.stop()
    grabber.advance(NOW + DEFAULT_GRAB_TIMEOUT)
    assert grabber.drained


def test_worker_that_has_stopped_does_not_ask_for_a_new_function() -> None:
    grabber = Grabber()
    (conn,) = attached(grabber)
    grabber.advance(NOW)
    asleep(grabber, conn)
    grabber.stop()
    grabber.can_do(F)
    assert grabber.advance(NOW) == []
    assert output(conn) == [CanDo(F)]


# All together


class Server:
    """A job server with jobs to give, which may be silent for a while."""

    def __init__(self, number: int) -> None:
        self.conn = connection()
        self.jobs = 0
        self.given = 0
        self.silent = False
        self.sleeps = False
        self._number = number
        self._unread: deque[Event] = deque()

    def add_job(self) -> None:
        """Get a job, and wake the worker if it sleeps."""
        self.jobs += 1
        if self.sleeps:
            self.sleeps = False
            receive(self.conn, Noop())

    def answer(self) -> list[Event]:
        """Answer all that the worker has said, unless silent; return what it makes of that."""
        self._unread.extend(output(self.conn))
        events: list[Event] = []
        while self._unread and not self.silent:
            packet = self._unread.popleft()
            if isinstance(packet, GrabJobAll):
                self.sleeps = False
                if self.jobs:
                    self.jobs -= 1
                    self.given += 1
                    handle = b"H:%d:%d" % (self._number, self.given)
                    events += receive(self.conn, JobAssignAll(handle, F, b"", b"", b""))
                else:
                    events += receive(self.conn, NoJob())
            elif isinstance(packet, PreSleep):
                self.sleeps = True
                if self.jobs:
                    self.sleeps = False
                    receive(self.conn, Noop())
            self._unread.extend(output(self.conn))
        return events


class World:
    """A worker with its servers, under virtual time, and an account of what it is owed."""

    def __init__(self, capacity: int, servers: int) -> None:
        self.now = NOW
        self.capacity = capacity
        self.grabber = Grabber(capacity)
        self.servers = [Server(number) for number in range(servers)]
        self.hands: list[tuple[Server, bytes, bool]] = []
        self._asked_at: dict[int, float] = {}
        for server in self.servers:
            self.grabber.attach(server.conn)
        self.settle()

    @property
    def late(self) -> int:
        """How many jobs in hand came later than their server had time to answer."""
        return sum(late for _server, _handle, late in self.hands)

    def settle(self) -> None:
        """Let worker and servers talk until nobody has anything to say."""
        while True:
            asked = self.grabber.advance(self.now)
            for conn in asked:
                self._asked_at[id(conn)] = self.now
            before = len(self.hands)
            for server in self.servers:
                for event in server.answer():
                    assert isinstance(event, JobAssigned)
                    self.grabber.assigned()
                    late = self.now >= self._asked_at[id(server.conn)] + DEFAULT_GRAB_TIMEOUT
                    self.hands.append((server, event.handle, late))
            self.check()
            if not asked and before == len(self.hands) and not any(s.conn.output_size for s in self.servers):
                return

    def check(self) -> None:
        """No more jobs than room, but for those that came late."""
        assert self.grabber.running == len(self.hands) <= self.capacity + self.late

    def end_job(self) -> None:
        """End the job that is in hand for longest."""
        if self.hands:
            server, handle, _late = self.hands.pop(0)
            server.conn.work_complete(handle, b"")
            self.grabber.ended()

    def go_on(self, seconds: float) -> None:
        """Let time pass, with a stop at each deadline."""
        until = self.now + seconds
        while (deadline := self.grabber.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.settle()
        self.now = until
        self.settle()

    @property
    def stalls(self) -> bool:
        """Whether the worker has room and a server that is not silent has a job, and they do not meet."""
        return len(self.hands) < self.capacity and any(server.jobs and not server.silent for server in self.servers)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_worker_has_no_more_jobs_than_room_and_no_silent_server_stalls_it_for_long(
    capacity: int, count: int, data: st.DataObject
) -> None:
    world = World(capacity, count)
    each = st.integers(0, count - 1)
    steps = st.one_of(
        st.tuples(st.just("job"), each),
        st.tuples(st.just("silence"), each),
        st.tuples(st.just("speech"), each),
        st.just(("end", 0)),
        st.tuples(st.just("time"), st.integers(0, 5)),
    )
    for what, number in data.draw(st.lists(steps, max_size=40)):
        if what == "job":
            world.servers[number].add_job()
        elif what in {"silence", "speech"}:
            world.servers[number].silent = what == "silence"
        elif what == "end":
            world.end_job()
        else:
            world.go_on(number)
        world.settle()
        silent = sum(server.silent for server in world.servers)
        if not silent:
            assert not world.stalls
    # However things stand now: each silent server may stall the others for its timeout, and once only.
    silent = sum(server.silent for server in world.servers)
    world.go_on(silent * DEFAULT_GRAB_TIMEOUT)
    assert not world.stalls
    # Nothing is ever lost between them.
    for server in world.servers:
        server.silent = False
    world.settle()
    while world.hands:
        world.end_job()
        world.settle()
    assert [server.jobs for server in world.servers] == [0] * count
    assert world.grabber.running == 0


@given(st.integers(1, 3), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_servers_with_jobs_are_served_alike(capacity: int, jobs: list[int]) -> None:
    world = World(capacity, len(jobs))
    for server, count in zip(world.servers, jobs, strict=True):
        for _ in range(count):
            server.add_job()
    world.settle()
    while world.hands:
        busy = [server.given for server in world.servers if server.jobs]
        if busy:
            assert max(busy) - min(busy) <= 1
        world.end_job()
        world.settle()
    assert [server.given for server in world.servers] == jobs
