"""Compares a server with the model, request by request, and checks the invariants after every step.

Theory of operation. The engine shows the judge every request right before it deals with it, and the judge keeps them.
After the step all output of the engine is decoded, peer by peer. Then the requests are played to the model, in their
order: for each one the model says what each peer gets, and that has to be the next thing that the peer did get. Where a
server may choose, as with the answer to ``GRAB_JOB``, the judge reads the choice from the output, checks that it was
allowed, and tells the model. Wake-ups may stand anywhere between answers. What is left over is one answer too many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gear_testing.model import Answers, ModelJob, ModelPeer, ModelServer
from gearproto.admin import CancelJob, ShowJobs, Status, parse_command
from gearproto.codec import Packet, Route, decoders
from gearproto.event import Event, event
from gearproto.events import Line
from gearproto.framing import Decoder
from gearproto.packets import (
    SUBMISSIONS,
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJobEpoch,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkException,
    WorkFail,
    WorkStatus,
)
from gearproto.server import Engine, PeerId, Report

from .invariants import Invariant, Violation

__all__ = ["Judge"]

_FROM_SERVER: Final = decoders(Route.FROM_SERVER)
_ASSIGNMENTS: Final = (JobAssign, JobAssignUniq, JobAssignAll)
_ENDS: Final = (WorkComplete, WorkFail, WorkException)
_MIN_TIMEOUT: Final = 1.0  # seconds; shorter time limits count as this


@event
class _Gone(Event):
    """The engine has given up a connection."""


@event
class _Due(Event):
    """The engine does what is due."""


class Judge:
    """Watches one engine.

    Attributes:
        model: what the engine has to agree with.
        used_up: handles of jobs that have failed because they were lost too often.
    """

    def __init__(
        self,
        *,
        handle_prefix: bytes,
        job_retries: int,
        wakeup_timeout: float,
        on_arrival: Callable[[bytes], object],
    ) -> None:
        """Begin.

        Args:
            handle_prefix: that of the engine.
            job_retries: that of the engine.
            wakeup_timeout: that of the engine.
            on_arrival: is called with the workload of each submission.
        """
        self._on_arrival = on_arrival
        self.model = ModelServer(handle_prefix=handle_prefix, job_retries=job_retries, wakeup_timeout=wakeup_timeout)
        self.used_up: set[bytes] = set()
        self._now = 0.0
        self._epoch_offset = 0.0
        self._requests: list[tuple[int, Event]] = []
        self._decoders: dict[int, Decoder] = {}
        self._got: dict[int, deque[Event]] = {}
        self._given_up: list[bytes] = []
        self._rules: dict[type[Event], Callable[[int, Any], None]] = {
            **dict.fromkeys(SUBMISSIONS, self._on_submission),
            **dict.fromkeys((GrabJob, GrabJobUniq, GrabJobAll), self._on_grab),
            **dict.fromkeys((CanDo, CanDoTimeout), self._on_can_do),
            **dict.fromkeys((SetClientId, AllYours), lambda _peer, _packet: None),
            CantDo: lambda peer, packet: self.model.lose_abilities(peer, [packet.function]),
            ResetAbilities: lambda peer, _packet: self.model.peers[peer].abilities.clear(),
            PreSleep: self._on_pre_sleep,
            Report: self._on_report,
            GetStatus: self._on_get_status,
            GetStatusUnique: self._on_get_status_unique,
            EchoReq: lambda peer, packet: self._expect(peer, EchoRes(packet.data)),
            OptionReq: self._on_option,
            Line: self._on_line,
            _Gone: self._on_gone,
            _Due: self._on_due,
        }

    # What the driver of the engine tells

    def on_request(self, peer: PeerId, request: Event) -> bool:
        """See a packet before the engine does; leave it to the engine."""
        self._requests.append((peer, request))
        return False

    def on_line(self, peer: PeerId, text: bytes) -> bool:
        """See a text command before the engine does; leave it to the engine."""
        self._requests.append((peer, Line(text)))
        return False

    def connected(self, peer: PeerId) -> None:
        """Record a connection."""
        self.model.peers[peer] = ModelPeer()
        self._decoders[peer] = Decoder(_FROM_SERVER)
        self._got[peer] = deque()

    def given_up(self, handle: bytes) -> None:
        """Record that the engine has given a job up."""
        self._given_up.append(handle)

    def on_output(self, peer: PeerId, data: bytes) -> None:
        """See what the engine has made for a peer."""
        if peer not in self._got:
            raise Violation(Invariant.ANSWERS, f"the server sends {data!r} to peer {peer}, which is gone")
        decoder, got = self._decoders[peer], self._got[peer]
        decoder.feed(data)
        while (message := decoder.next()) is not None:
            got.append(message)

    def disconnected(self, peer: PeerId) -> None:
        """Record that the engine has given up a connection, after the requests that it has shown so far."""
        self._requests.append((peer, _Gone()))

    def timed_out(self) -> None:
        """Record that the engine does what is due, after the requests that it has shown so far."""
        self._requests.append((0, _Due()))

    def settle(self, now: float, epoch_offset: float) -> None:
        """Compare what the engine has done with what the model says.

        Args:
            now: monotonic time in seconds.
            epoch_offset: what it lacks to be seconds since 1970.
        """
        self._now, self._epoch_offset = now, epoch_offset
        requests, self._requests = self._requests, []
        for peer, request in requests:
            if peer in self._got and self.model.peers[peer].asleep:  # otherwise a wake-up comes from the request
                self._take_wake_ups(peer)
            self._rules[type(request)](peer, request)
        for peer, got in self._got.items():
            if got:
                self._take_wake_ups(peer)
                if got:
                    raise self._wrong(peer, None, got[0])
        if len(self._given_up) > len(self.model.given_up):
            raise Violation(Invariant.RETRIES, f"the server gives {self._given_up} up, and the model does not")
        self.used_up.update(self._given_up)
        self._given_up.clear()
        self.model.given_up.clear()

    # What has happened

    def _on_gone(self, peer: int, _gone: _Gone) -> None:
        self._take_wake_ups(peer)
        got = self._got.pop(peer)
        del self._decoders[peer]
        if got:
            raise self._wrong(peer, None, got[0])
        answers = self.model.leave(peer, self._now)
        self._check_given_up()
        self._expect_all(answers)

    def _on_due(self, _nobody: int, _due: _Due) -> None:
        answers = self.model.handle_timeout(self._now, self._epoch_offset)
        self._check_given_up()
        self._expect_all(answers)

    def _check_given_up(self) -> None:
        """Check that the engine has given up what the model has; it may have given up more since."""
        expected = self.model.given_up
        if self._given_up[: len(expected)] != expected:
            raise Violation(Invariant.RETRIES, f"the server gives {self._given_up} up, and the model {expected}")

    def _on_submission(self, peer: int, packet: Any) -> None:
        self._on_arrival(packet.workload)
        priority, background = SUBMISSIONS[type(packet)]
        due = None
        if isinstance(packet, SubmitJobEpoch) and packet.run_at - self._epoch_offset > self._now:
            due = float(packet.run_at)
        reducer = packet.reducer if isinstance(packet, SubmitReduceJob | SubmitReduceJobBackground) else b""
        job = self.model.submit(
            peer,
            packet.function,
            packet.unique,
            packet.workload,
            priority=priority,
            background=background,
            reducer=reducer,
            due=due,
        )
        self._expect(peer, JobCreated(job.handle))

    def _on_grab(self, peer: int, packet: Event) -> None:
        state = self.model.peers[peer]
        state.asleep, state.woken_until = False, None
        answer = self._next(peer)
        candidates = self.model.candidates(peer)
        if isinstance(answer, NoJob):
            if candidates:
                handles = [job.handle for job in candidates]
                raise Violation(Invariant.JOB_KEPT, f"peer {peer} gets NO_JOB while {handles} wait")
            return
        if not isinstance(answer, _ASSIGNMENTS):
            raise self._wrong(peer, NoJob(), answer)
        job = self.model.find(answer.handle)
        if job is None:
            raise Violation(Invariant.ONE_END, f"{answer.handle!r}, which has ended, is given to peer {peer}")
        if job.worker is not None:
            raise Violation(
                Invariant.ONE_OWNER, f"{answer.handle!r} is given to peer {peer}, and peer {job.worker} has it"
            )
        if job not in candidates:
            raise Violation(Invariant.ANSWERS, f"{answer.handle!r} is given to peer {peer} out of turn")
        expected = _assignment(type(packet), job)
        if answer != expected:
            raise self._wrong(peer, expected, answer)
        self.model.start(peer, job, self._now)

    def _on_can_do(self, peer: int, packet: CanDo | CanDoTimeout) -> None:
        limit = packet.timeout / 1000 if isinstance(packet, CanDoTimeout) and packet.timeout > 0 else None
        self.model.peers[peer].abilities[packet.function] = None if limit is None else max(_MIN_TIMEOUT, limit)

    def _on_pre_sleep(self, peer: int, _packet: PreSleep) -> None:
        state = self.model.peers[peer]
        state.asleep, state.woken_until = True, None

    def _on_report(self, peer: int, report: Report) -> None:
        job = self.model.find(report.handle)
        packet = _packet_of(report)
        if job is None or job.worker != peer:
            self._on_stray_report(peer, packet, report.handle)
        elif isinstance(packet, _ENDS):
            self._expect_all(self.model.end(job, packet))
        else:
            if isinstance(packet, WorkStatus):
                job.progress = (packet.numerator, packet.denominator)
            for client in job.clients:
                self._expect(client, packet)

    def _on_stray_report(self, peer: int, packet: Packet, handle: bytes) -> None:
        state = self.model.peers[peer]
        if handle in state.cancelled:
            if isinstance(packet, _ENDS):
                state.cancelled.remove(handle)
                if isinstance(packet, WorkException):
                    state.raised = handle
        elif isinstance(packet, WorkFail) and handle == state.raised:
            state.raised = None
        else:
            answer = self._next(peer)
            if not isinstance(answer, Error) or answer.code != b"JOB_NOT_FOUND":
                raise self._wrong(peer, Error(b"JOB_NOT_FOUND", b""), answer)

    def _on_get_status(self, peer: int, packet: GetStatus) -> None:
        job = self.model.find(packet.handle)
        known = (False, False, 0, 0) if job is None else (True, job.worker is not None, *job.progress)
        self._expect(peer, StatusRes(packet.handle, *known))

    def _on_get_status_unique(self, peer: int, packet: GetStatusUnique) -> None:
        unique = packet.unique
        answers = [
            StatusResUnique(unique, True, job.worker is not None, *job.progress, len(job.clients))
            for job in self.model.jobs
            if unique and job.key == unique
        ] or [StatusResUnique(unique, False, False, 0, 0, 0)]
        answer = self._next(peer)
        if answer not in answers:  # jobs of several functions may have the same unique
            raise self._wrong(peer, answers[0], answer)

    def _on_option(self, peer: int, packet: OptionReq) -> None:
        name = packet.option.decode()
        if name in ("exceptions", "reruns"):
            setattr(self.model.peers[peer], name, True)
            self._expect(peer, OptionRes(packet.option))
        else:
            self._expect(peer, Error(b"UNKNOWN_OPTION", b"Server does not recognize given option"))

    def _on_line(self, peer: int, line: Line) -> None:
        command = parse_command(line.text)
        if isinstance(command, CancelJob):
            job = self.model.find(command.handle)
            if job is not None:
                self._expect_all(self.model.cancel(job))
            self._expect(peer, Line(b"ERR UNKNOWN_JOB" if job is None else b"OK"))
        elif isinstance(command, ShowJobs):
            for job in self.model.jobs:
                row = (job.handle, job.losses, not job.wanted, job.background)
                self._expect(peer, Line(b"%b\t%d\t%d\t%d" % row))
            self._expect(peer, Line(b"."))
        elif isinstance(command, Status):
            self._check_table(self._rows(peer))

    def _rows(self, peer: int) -> list[bytes]:
        rows: list[bytes] = []
        while True:
            line = self._next(peer)
            if not isinstance(line, Line):
                raise self._wrong(peer, Line(b"."), line)
            if line.text == b".":
                return rows
            rows.append(line.text)

    def _check_table(self, rows: list[bytes]) -> None:
        """Check the answer to ``status``: a function that has nothing may be missing."""
        found = {row.split(b"\t")[0]: row for row in rows}
        for name, (total, running, workers) in self._counted().items():
            row = b"%b\t%d\t%d\t%d" % (name, total, running, workers)
            if found.pop(name, row if (total, workers) == (0, 0) else None) != row:
                raise Violation(Invariant.COUNTS, f"status has not the row {row!r}: {rows}")
        for name, row in found.items():
            if row != name + b"\t0\t0\t0":
                raise Violation(Invariant.COUNTS, f"status has the row {row!r}")

    def _counted(self) -> dict[bytes, tuple[int, int, int]]:
        """Return all jobs, the running ones, and the workers, by function."""
        jobs = self.model.jobs
        names = {job.function: None for job in jobs}
        for peer in self.model.peers.values():
            names |= dict.fromkeys(peer.abilities)
        return {
            name: (
                sum(job.function == name for job in jobs),
                sum(job.function == name and job.worker is not None for job in jobs),
                sum(name in peer.abilities for peer in self.model.peers.values()),
            )
            for name in names
        }

    # The invariants of the whole

    def check(self, engine: Engine) -> None:
        """Check what holds whenever the engine has done all that is due."""
        model = self.model
        held = engine.queue.jobs
        if len(held) != len(model.jobs) or any(job.handle not in held for job in model.jobs):
            missing = [job.handle for job in model.jobs if job.handle not in held]
            if missing:
                raise Violation(Invariant.JOB_KEPT, f"{missing} have not ended, and the server has lost them")
            left = sorted(set(held) - {job.handle for job in model.jobs})
            raise Violation(Invariant.ONE_END, f"{left} have ended, and the server still has them")
        queued = delayed = running = 0
        for job in model.jobs:
            if job.worker is not None:
                running += 1
            elif job.due is None and job.rest is None:
                queued += 1
            else:
                delayed += 1
        counters = engine.counters()
        found = (counters.peers, counters.queued, counters.delayed, counters.running, counters.ended)
        expected = (len(model.peers), queued, delayed, running, model.ended)
        if found != expected:
            raise Violation(
                Invariant.COUNTS, f"peers, queued, delayed, running and ended are {found}, in the model {expected}"
            )
        if (name := model.overslept(self._now)) is not None:
            raise Violation(Invariant.WAKE_UP, f"jobs of {name!r} wait, workers for it sleep, and too few are woken")

    # Output

    def _take_wake_ups(self, peer: int) -> None:
        got = self._got[peer]
        while got and isinstance(got[0], Noop):
            got.popleft()
            if not self.model.wake(peer, self._now):
                raise Violation(Invariant.WAKE_UP, f"peer {peer} is woken, and it does not sleep")

    def _next(self, peer: int) -> Event | None:
        self._take_wake_ups(peer)
        got = self._got[peer]
        return got.popleft() if got else None

    def _expect(self, peer: int, packet: Event) -> None:
        answer = self._next(peer)
        if answer != packet:
            raise self._wrong(peer, packet, answer)

    def _expect_all(self, answers: Answers) -> None:
        for peer, packets in answers.items():
            for packet in packets:
                if peer in self._got:
                    self._expect(peer, packet)

    def _wrong(self, peer: int, expected: Event | None, answer: Event | None) -> Violation:
        """Return what is wrong with an answer: an end of a job that is missing, or is there twice, is a case apart."""
        is_end = isinstance(expected, _ENDS) or isinstance(answer, _ENDS)
        details = f"peer {peer} has got {answer or 'nothing'} where the model says {expected or 'nothing'}"
        return Violation(Invariant.ONE_END if is_end else Invariant.ANSWERS, details)


def _assignment(grab: type[Event], job: ModelJob) -> Packet:
    if grab is GrabJob:
        return JobAssign(job.handle, job.function, job.workload)
    if grab is GrabJobAll and job.reducer:
        return JobAssignAll(job.handle, job.function, job.unique, job.reducer, job.workload)
    return JobAssignUniq(job.handle, job.function, job.unique, job.workload)


def _packet_of(report: Report) -> Packet:
    if report.packet is WorkFail:
        return WorkFail(report.handle)
    if report.packet is WorkStatus:
        return WorkStatus(report.handle, *report.progress)
    return report.packet(report.handle, report.data)
