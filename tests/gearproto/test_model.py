"""The job server beside a naive model of one, and beside hostile peers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gear_testing import strategies
from gear_testing.model import Answers, ModelJob, ModelPeer, ModelServer
from gearproto.admin import Shutdown
from gearproto.codec import Packet, Route
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    Priority,
    ResetAbilities,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
)
from gearproto.server import JobGivenUp, ShutdownRequested
from tests.harness.engine import Bench, Peer, nth_handle

# The server beside a naive one

FUNCTIONS = [b"f", b"g"]
PLAIN: list[Any] = [SubmitJob, SubmitJobBg, SubmitJobHigh, SubmitJobHighBg, SubmitJobLow, SubmitJobLowBg]
functions = st.sampled_from(FUNCTIONS)
uniques = st.sampled_from([b"", b"u", b"u", b"-"])
workloads = st.sampled_from([b"", b"u"])
numbers = st.integers(0, 10**6)


class ServerBesideModel(RuleBasedStateMachine):
    """Peers send one request at a time; every answer is compared with the model's, every wake-up judged."""

    bench: Bench
    model: ModelServer

    @initialize(
        retries=st.sampled_from([-1, -1, 0, 2, 4]),
        wakeup=st.sampled_from([1, 1, 1, 0, 2]),
        idle=st.sampled_from([0, 1, 1000]),
        round_robin=st.booleans(),
    )
    def begin(self, retries: int, wakeup: int, idle: int, round_robin: bool) -> None:
        self.bench = Bench(job_retries=retries, worker_wakeup=wakeup, max_idle_functions=idle, round_robin=round_robin)
        self.model = ModelServer(handle_prefix=b"H", job_retries=retries, wakeup_timeout=1.0)
        self.peers: dict[int, Peer] = {}
        for _ in range(3):
            self.connect()
        for number in range(2):
            for function in FUNCTIONS:
                self.can_do(number, function, None)

    def peer(self, number: int) -> Peer:
        return list(self.peers.values())[number % len(self.peers)]

    def settle(self, answers: Answers) -> None:
        """Compare what everybody got with what the model says, wake-ups left out."""
        for number, peer in self.peers.items():
            got = peer.received()
            for packet in got:
                if isinstance(packet, Noop):
                    assert self.model.wake(number, self.bench.now), f"peer {number} was woken without sleeping"
            assert [packet for packet in got if not isinstance(packet, Noop)] == answers.get(number, [])
        events = self.bench.events()
        assert all(isinstance(event, JobGivenUp) for event in events)
        assert [event.handle for event in events if isinstance(event, JobGivenUp)] == self.model.given_up
        self.model.given_up.clear()

    def running_job(self, number: int) -> ModelJob:
        running = [job for job in self.model.jobs if job.worker is not None]
        return running[number % len(running)]

    def any_handle(self, number: int) -> bytes:
        return nth_handle(number % (len(self.model.jobs) + 3) + max(0, self.bench.counters().submitted - 6))

    # Connections

    @precondition(lambda self: len(self.peers) < 5)
    @rule()
    def connect(self) -> None:
        peer = self.bench.connect()
        self.peers[peer.id] = peer
        self.model.peers[peer.id] = ModelPeer()

    @precondition(lambda self: len(self.peers) > 1)
    @rule(number=numbers)
    def leave(self, number: int) -> None:
        peer = self.peer(number)
        del self.peers[peer.id]
        peer.leave()
        self.settle(self.model.leave(peer.id, self.bench.now))

    # Clients

    @rule(number=numbers, cls=st.sampled_from(PLAIN), function=functions, unique=uniques, workload=workloads)
    def submit(self, number: int, cls: Any, function: bytes, unique: bytes, workload: bytes) -> None:
        peer = self.peer(number)
        peer.send(cls(function, unique, workload))
        priority, background = SUBMISSIONS[cls]
        job = self.model.submit(peer.id, function, unique, workload, priority=priority, background=background)
        self.settle({peer.id: [JobCreated(job.handle)]})

    @rule(number=numbers, function=functions, unique=uniques, delay=st.integers(-1, 5))
    def submit_delayed(self, number: int, function: bytes, unique: bytes, delay: int) -> None:
        peer, when = self.peer(number), int(self.bench.now) + delay
        peer.send(SubmitJobEpoch(function, unique, when, b"w"))
        due = float(when) if when > self.bench.now else None
        job = self.model.submit(peer.id, function, unique, b"w", priority=Priority.NORMAL, background=True, due=due)
        self.settle({peer.id: [JobCreated(job.handle)]})

    @rule(number=numbers, which=numbers)
    def get_status(self, number: int, which: int) -> None:
        peer, handle = self.peer(number), self.any_handle(which)
        job = self.model.find(handle)
        peer.send(GetStatus(handle))
        numbers = (False, False, 0, 0) if job is None else (True, job.worker is not None, *job.progress)
        self.settle({peer.id: [StatusRes(handle, *numbers)]})

    @rule(number=numbers, unique=st.sampled_from([b"", b"u", b"v"]))
    def get_status_unique(self, number: int, unique: bytes) -> None:
        peer = self.peer(number)
        peer.send(GetStatusUnique(unique))
        matches = [job for job in self.model.jobs if unique and job.key == unique]
        answers: list[Packet] = [
            StatusResUnique(unique, True, job.worker is not None, *job.progress, len(job.clients)) for job in matches
        ] or [StatusResUnique(unique, False, False, 0, 0, 0)]
        self.settle({peer.id: answers[:1]})

    @rule(number=numbers, option=st.sampled_from([b"exceptions", b"reruns"]))
    def ask_for_option(self, number: int, option: bytes) -> None:
        peer = self.peer(number)
        peer.send(OptionReq(option))
        setattr(self.model.peers[peer.id], option.decode(), True)
        self.settle({peer.id: [OptionRes(option)]})

    # Workers

    @rule(number=numbers, function=functions, limit=st.sampled_from([None, None, 1, 1500, 3000]))
    def can_do(self, number: int, function: bytes, limit: int | None) -> None:
        peer = self.peer(number)
        peer.send(CanDo(function) if limit is None else CanDoTimeout(function, limit))
        self.model.peers[peer.id].abilities[function] = None if limit is None else max(1.0, limit / 1000)
        self.settle({})

    @rule(number=numbers, function=functions)
    def cant_do(self, number: int, function: bytes) -> None:
        peer = self.peer(number)
        peer.send(CantDo(function))
        self.model.lose_abilities(peer.id, [function])
        self.settle({})

    @rule(number=numbers)
    def reset_abilities(self, number: int) -> None:
        peer = self.peer(number)
        peer.send(ResetAbilities())
        self.model.lose_abilities(peer.id, FUNCTIONS)
        self.settle({})

    @rule(number=numbers)
    def grab(self, number: int) -> None:
        peer = self.peer(number)
        state = self.model.peers[peer.id]
        state.asleep, state.woken_until = False, None
        peer.send(GrabJobUniq())
        candidates = self.model.candidates(peer.id)
        (answer,) = peer.received()
        if isinstance(answer, JobAssignUniq):
            job = self.model.find(answer.handle)
            assert job in candidates, f"{answer} out of turn"
            assert job is not None
            assert (answer.function, answer.workload) == (job.function, job.workload)
            self.model.start(peer.id, job, self.bench.now)
        else:
            assert answer == NoJob()
            assert candidates == []
        self.settle({})

    @rule(number=numbers)
    def pre_sleep(self, number: int) -> None:
        peer = self.peer(number)
        state = self.model.peers[peer.id]
        state.asleep, state.woken_until = True, None
        peer.send(PreSleep())
        self.settle({})
        assert state.asleep == (self.model.candidates(peer.id) == [])

    @rule(number=numbers, cls=st.sampled_from(PLAIN), function=functions, worker=numbers, count=st.integers(2, 3))
    def submit_and_grab_several(self, number: int, cls: Any, function: bytes, worker: int, count: int) -> None:
        for _ in range(count):
            self.submit(number, cls, function, b"", b"w")
        for _ in range(count):
            self.grab(worker)

    @rule(number=numbers)
    def grab_all(self, number: int) -> None:
        for _ in range(len(self.model.candidates(self.peer(number).id)) + 3):
            self.grab(number)

    @rule(number=numbers, cls=st.sampled_from(PLAIN), function=functions, data=st.data())
    def wake_one_of_all_who_then_does_anything(
        self, number: int, cls: Any, function: bytes, data: st.DataObject
    ) -> None:
        for index in range(len(self.peers)):
            self.can_do(index, function, None)
            self.grab_all(index)
            self.look_and_sleep(index)
        self.submit(number, cls, function, b"", b"w")
        for index, id_ in enumerate(list(self.peers)):
            if self.model.peers[id_].woken_until is not None and len(self.peers) > 1:
                act = data.draw(st.sampled_from([self.leave, self.pre_sleep, self.reset_abilities, self.grab, None]))
                if act is not None:
                    act(index)
                else:
                    self.wait(1.0)
                break

    @rule(number=numbers)
    def look_and_sleep(self, number: int) -> None:
        if not self.model.candidates(self.peer(number).id):
            self.grab(number)
            self.pre_sleep(number)

    @precondition(lambda self: any(job.worker is not None for job in self.model.jobs))
    @rule(number=numbers, done=st.integers(0, 3))
    def report_progress(self, number: int, done: int) -> None:
        job = self.running_job(number)
        assert job.worker is not None
        packets: list[Packet] = [WorkStatus(job.handle, done, 3), WorkData(job.handle, b"%d" % done)]
        self.peers[job.worker].send(*packets)
        job.progress = (done, 3)
        self.settle(
            {client: [packet for packet in packets for _ in range(job.clients.count(client))] for client in job.clients}
        )

    @precondition(lambda self: any(job.worker is not None for job in self.model.jobs))
    @rule(number=numbers, end=st.sampled_from([WorkComplete, WorkComplete, WorkFail, WorkException]))
    def end(self, number: int, end: Any) -> None:
        job = self.running_job(number)
        assert job.worker is not None
        report = end(job.handle) if end is WorkFail else end(job.handle, b"of " + job.handle)
        self.peers[job.worker].send(report)
        self.settle(self.model.end(job, report))

    @rule(number=numbers, which=numbers)
    def report_on_any_job(self, number: int, which: int) -> None:
        """Fail a job that may be in other hands, or in none, or cancelled in these."""
        peer, handle = self.peer(number), self.any_handle(which)
        state, job = self.model.peers[peer.id], self.model.find(handle)
        report = WorkFail(handle)
        peer.send(report)
        if job is not None and job.worker == peer.id:
            self.settle(self.model.end(job, report))
        elif handle in state.cancelled:
            state.cancelled.remove(handle)
            self.settle({})
        elif handle == state.raised:
            state.raised = None
            self.settle({})
        else:
            self.settle({peer.id: [Error(b"JOB_NOT_FOUND", b"Job given in work result not found")]})

    # Administrators and time

    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        handle = self.any_handle(which)
        job = self.model.find(handle)
        administrator = self.bench.connect()
        answer = administrator.command(b"cancel job " + handle)
        administrator.leave()
        assert answer == (b"ERR UNKNOWN_JOB\r\n" if job is None else b"OK\r\n")
        self.settle({} if job is None else self.model.cancel(job))

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 1.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.bench.advance(seconds)
        self.settle_time()

    def settle_time(self) -> None:
        answers: Answers = {}
        while (now := self.model.next_time(0.0)) is not None and now <= self.bench.now:
            for client, packets in self.model.handle_timeout(now, 0.0).items():
                answers.setdefault(client, []).extend(packets)
        self.settle(answers)

    @rule(which=st.booleans())
    def tables(self, which: bool) -> None:
        administrator = self.bench.connect()
        answer = administrator.command(b"show jobs")
        rows = [b"%b\t%d\t%d\t%d" % (j.handle, j.losses, not j.wanted, j.background) for j in self.model.jobs]
        assert answer == b"\n".join([*rows, b".\n"])
        *lines, _dot, _end = administrator.command(b"status").split(b"\n")
        table = {line.split(b"\t")[0]: line for line in lines}
        for name in FUNCTIONS:
            jobs = [job for job in self.model.jobs if job.function == name]
            running = sum(job.worker is not None for job in jobs)
            workers = sum(name in peer.abilities for peer in self.model.peers.values())
            row = b"%b\t%d\t%d\t%d" % (name, len(jobs), running, workers)
            assert table.get(name, b"%b\t0\t0\t0" % name) == row
        administrator.leave()

    @invariant()
    def nobody_sleeps_beside_a_job(self) -> None:
        function = self.model.overslept(self.bench.now)
        assert function is None, f"jobs of {function!r} wait beside sleeping workers, and too few are woken"


TestServerBesideModel = ServerBesideModel.TestCase
TestServerBesideModel.settings = settings(max_examples=2 * settings().max_examples)


# Hostile peers

_noise = st.one_of(
    st.binary(max_size=60),
    strategies.mutations(
        st.lists(strategies.packets(Route.TO_SERVER).map(Packet.encode), min_size=1, max_size=4).map(b"".join)
    ),
    strategies.text_commands()
    .filter(lambda command: not isinstance(command, Shutdown))
    .map(lambda command: command.encode()),
    strategies.mutations(strategies.text_commands().map(lambda command: command.encode())),
)


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(st.tuples(st.integers(0, 2), _noise, st.booleans()), max_size=12))
def test_hostile_peers_never_raise_nor_disturb_another_conversation(noise: list[tuple[int, bytes, bool]]) -> None:
    bench = Bench()
    client, worker = bench.connect(), bench.worker(b"private")
    hostile = [bench.connect() for _ in range(3)]
    for round_, (number, data, leaves) in enumerate(noise):
        hostile[number].send(data).raw()
        if any(isinstance(event, ShutdownRequested) for event in bench.events()):
            return
        if leaves:
            hostile[number].leave()
            hostile[number] = bench.connect()
        bench.advance(0.5)
        workload = b"round %d" % round_
        handle = client.submit(SubmitJobHigh(b"private", b"", workload))
        assert worker.grab() == JobAssignUniq(handle, b"private", b"", workload)
        assert worker.send(WorkComplete(handle, workload)).received() == []
        assert client.received() == [WorkComplete(handle, workload)]
        assert client.ask(EchoReq(data)) == EchoRes(data)
