"""The worker's side of a connection: abilities, the cycle of grabbing and sleeping, reports on jobs in hand.

Theory of operation. The connection keeps two things that do not depend on each other.

One is where it is in the cycle of asking for jobs (`gearproto.worker.Grab`). `WorkerConnection.grab_job` and
`WorkerConnection.stop_grabbing` move it, and so do the packets of the server, as the table in
`gearproto.worker.cycle` says. A ``GRAB_JOB`` stands among the requests that await an answer; an assignment or
``NO_JOB`` answers it. Where the table says that a packet is to be sent and no job is wanted any more, nothing is sent
and the connection is idle.

The other is the jobs in hand. A job is in hand from its assignment until its end is reported or it is given up. The
server may assign a job again that this worker still has, when its timeout has passed at the server. So handles are
counted, and each assignment is a run: `WorkerConnection.begin_run` numbers it, and `WorkerConnection.is_newest` tells
whether reports on it still count.

What never happens:

- A report is sent on a job that is not in hand, or behind the report of its end.
- The report of an earlier run is taken for that of a later one, if callers ask `WorkerConnection.is_newest` first.
- A server makes the worker hold any number of jobs: only `MAX_UNASKED` may come without being asked for.
- A packet that crosses another on its way brings worker and server out of step: the table has a row for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Unpack

from gearproto.codec import HEADER, Packet, Route, decoders
from gearproto.connection import Connection
from gearproto.errors import LocalProtocolError, RemoteProtocolError
from gearproto.event import Event
from gearproto.events import JobAssigned, ReportRefused
from gearproto.options import ConnectionOptions
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    Error,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    NoJob,
    Noop,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .cycle import ASSIGNMENTS, Grab, grab_cycle

__all__ = ["MAX_UNASKED", "WorkerConnection"]


MAX_UNASKED: Final = 16
"""Most jobs in hand that a server may have assigned without being asked; they wait until the worker can run them."""

_Assignment = JobAssign | JobAssignUniq | JobAssignAll


def ability(function: bytes, timeout_ms: int | None) -> CanDo | CanDoTimeout:
    """Return the packet that offers a function, as `WorkerConnection.can_do` sends it.

    Raises:
        LocalProtocolError: the timeout is too small.
    """
    if timeout_ms is None:
        return CanDo(function)
    if timeout_ms <= 0:
        raise LocalProtocolError(f"worker: CAN_DO_TIMEOUT: timeout is {timeout_ms} ms, minimum is 1")
    return CanDoTimeout(function, timeout_ms)


class _InHand:
    """A job in hand, or several runs of it. One object a job: a counter for each of its numbers costs 5 us more.

    Attributes:
        assigned: how often it was assigned, and has not been ended.
        runs: how often it was assigned in all.
        begun: how many of these runs have been begun.
        function: name of its function.
    """

    __slots__ = ("assigned", "begun", "function", "runs")

    def __init__(self) -> None:
        self.assigned = self.runs = self.begun = 0
        self.function = b""


class WorkerConnection(Connection):
    """A worker's connection to a job server, without any I/O.

    After `grab_job` the connection asks, sleeps and wakes by itself until the server assigns a job: `JobAssigned`.
    Then it is silent until `grab_job` is called again, which may be before the job in hand has ended.
    """

    _ROLE: ClassVar[str] = "worker"
    _SPECS = decoders(Route.TO_WORKER)

    def __init__(
        self,
        *,
        grab: type[GrabJob | GrabJobUniq | GrabJobAll] = GrabJobAll,
        asks_when_woken: bool = True,
        now: float = 0.0,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Begin a connection.

        Args:
            grab: how to ask for jobs. `GrabJob` leaves the unique out, and only `GrabJobAll` tells the reducer.
            asks_when_woken: whether a worker that the server wakes (``NOOP``) asks for a job by itself. If not it is
                `Grab.IDLE` then, and asks when `grab_job` is called: for workers with several servers, which may be
                busy with the jobs of others (see `gearproto.worker.Grabber`).
            now: monotonic time in seconds; only matters with a `probe_interval`.
            **options: the arguments of `Connection`.
        """
        super().__init__(now=now, **options)
        self._grab = grab()
        self._state = Grab.IDLE
        self._cycle = grab_cycle(asks_when_woken=asks_when_woken)
        self._wanted = False
        self._in_hand: dict[bytes, _InHand] = {}  # by handle
        self._unasked: Counter[bytes] = Counter()  # of the jobs in hand: those that nobody has asked for

    @property
    def state(self) -> Grab:
        """Where the worker is in the cycle of asking for jobs."""
        return self._state

    @property
    def in_hand(self) -> Mapping[bytes, int]:
        """The handles of the jobs in hand, and how often each was assigned.

        A job is assigned twice when its timeout ran out at the server and the same worker grabbed it again.
        """
        return MappingProxyType({handle: job.assigned for handle, job in self._in_hand.items()})

    def begin_run(self, handle: bytes) -> int:
        """Return the number of the next run of a job in hand, as the server has assigned it; see `is_newest`."""
        job = self._in_hand.get(handle)
        if job is None:
            return 1
        job.begun += 1
        return job.begun

    def is_newest(self, handle: bytes, run: int) -> bool:
        """Tell whether a run is the latest: it is not if the server has assigned the job again.

        The server would take a report on the earlier run for one on the later.
        """
        job = self._in_hand.get(handle)
        return job is None or run >= job.runs

    def has_job_of(self, function: bytes) -> bool:
        """Tell whether a job of a function is in hand."""
        return any(job.function == function for job in self._in_hand.values())

    def can_do(self, function: bytes, *, timeout_ms: int | None = None) -> None:
        """Tell the server that this worker can run a function (``CAN_DO``, ``CAN_DO_TIMEOUT``).

        Args:
            function: its name, 1 to 8191 bytes without NUL.
            timeout_ms: milliseconds after which the server gives a job to another worker; servers take 1000 or
                more. None means no limit.

        Raises:
            LocalProtocolError: an argument breaks these rules, or the connection has ended.
        """
        self._send(ability(function, timeout_ms))

    def cant_do(self, function: bytes) -> None:
        """Tell the server that this worker can no longer run a function (``CANT_DO``).

        gearmand gives the jobs of that function that are in hand to other workers; the servers of this package leave
        them where they are.

        Raises:
            LocalProtocolError: the name is empty, too long or holds NUL, or the connection has ended.
        """
        self._send(CantDo(function))

    def reset_abilities(self) -> None:
        """Tell the server that this worker can run nothing (``RESET_ABILITIES``); see `cant_do`.

        Raises:
            LocalProtocolError: the connection has ended.
        """
        self._send(ResetAbilities())

    def set_client_id(self, client_id: bytes) -> None:
        """Tell the server the name that administrators see (``SET_CLIENT_ID``).

        Args:
            client_id: any bytes except NUL; gearmand shows the first 127.

        Raises:
            LocalProtocolError: the name is too long or holds NUL, or the connection has ended.
        """
        self._send(SetClientId(client_id))

    def introduce(self, packets: Iterable[SetClientId | CanDo | CanDoTimeout]) -> None:
        """Send packets that say who this worker is, and what it can run.

        Raises:
            LocalProtocolError: a packet breaks a rule, or the connection has ended. The packets before it are queued.
        """
        for packet in packets:
            self._send(packet)

    def grab_job(self) -> None:
        """Ask for one more job (``GRAB_JOB``, ``GRAB_JOB_UNIQ`` or ``GRAB_JOB_ALL``). Does nothing if it already asks.

        A sleeping worker asks at once: after a change of its abilities, there may be a job for it.

        Raises:
            LocalProtocolError: the connection has ended.
        """
        asked = self._state is Grab.ASKED
        self._check_open(self._grab.spec.name, 0 if asked else HEADER.size)
        if not asked:
            self._ask_for_job()
        self._wanted = True

    def stop_grabbing(self) -> None:
        """Stop asking for jobs. A job that the server has just assigned still arrives; see `state`."""
        self._wanted = False
        if self._state is Grab.ASLEEP:
            self._state = Grab.IDLE

    def work_status(self, handle: bytes, numerator: int, denominator: int) -> None:
        """Report progress of a job in hand (``WORK_STATUS``).

        Args:
            handle: the job.
            numerator: units of work done.
            denominator: units of work in total.

        Raises:
            LocalProtocolError: the job is not in hand, or the connection has ended.
        """
        self._report(WorkStatus(handle, numerator, denominator))

    def work_data(self, handle: bytes, data: bytes) -> None:
        """Send a piece of the result of a job in hand (``WORK_DATA``).

        Raises:
            LocalProtocolError: the job is not in hand, the data is over the packet limit, or the connection has ended.
        """
        self._report(WorkData(handle, data))

    def work_warning(self, handle: bytes, data: bytes) -> None:
        """Send a warning from a job in hand (``WORK_WARNING``).

        Raises:
            LocalProtocolError: the job is not in hand, the data is over the packet limit, or the connection has ended.
        """
        self._report(WorkWarning(handle, data))

    def work_complete(self, handle: bytes, data: bytes) -> None:
        """End a job in hand with its result (``WORK_COMPLETE``).

        Raises:
            LocalProtocolError: the job is not in hand, the data is over the packet limit, or the connection has ended.
        """
        self._report_end(WorkComplete(handle, data))

    def work_fail(self, handle: bytes) -> None:
        """End a job in hand without a result (``WORK_FAIL``).

        Raises:
            LocalProtocolError: the job is not in hand, or the connection has ended.
        """
        self._report_end(WorkFail(handle))

    def work_exception(self, handle: bytes, data: bytes) -> None:
        """End a job in hand with an exception (``WORK_EXCEPTION``). Do not send ``WORK_FAIL`` after it.

        Raises:
            LocalProtocolError: the job is not in hand, the data is over the packet limit, or the connection has ended.
        """
        self._report_end(WorkException(handle, data))

    def give_up(self, handle: bytes) -> None:
        """Forget a job in hand without a report: the server has given it to another worker, or will.

        Raises:
            LocalProtocolError: the job is not in hand.
        """
        if handle not in self._in_hand:
            raise LocalProtocolError(f"worker: giving up {handle!r}, which is not in hand")
        self._put_down(handle)

    def _report(self, packet: WorkStatus | WorkData | WorkWarning | WorkComplete | WorkFail | WorkException) -> None:
        if packet.handle not in self._in_hand:
            raise LocalProtocolError(f"worker: {packet.spec.name} for {packet.handle!r}, which is not in hand")
        self._send(packet)

    def _report_end(self, packet: WorkComplete | WorkFail | WorkException) -> None:
        self._report(packet)
        self._put_down(packet.handle)

    def _put_down(self, handle: bytes) -> None:
        job = self._in_hand[handle]
        job.assigned -= 1
        if not job.assigned:
            del self._in_hand[handle]
        if self._unasked:
            self._unasked[handle] -= 1
            self._unasked += Counter()  # drops what is not above 0

    def _ask_for_job(self) -> None:
        self._ask(self._grab, type(self._grab))
        self._state = Grab.ASKED

    def _advance(self, packet: Packet) -> None:
        """Go one step through the cycle."""
        if self._state is Grab.ASKED and type(packet) is not Noop:
            self._grab_answered(packet)
        self._state, answer = self._cycle[self._state, type(packet)]
        if not answer:
            return
        if not self._wanted:
            self._state = Grab.IDLE
        elif self._state is Grab.ASLEEP:
            self._queue(PreSleep().encode())
        else:
            self._ask_for_job()

    def _grab_answered(self, packet: Packet) -> None:
        if self._requests[0].awaits is not type(self._grab):
            raise RemoteProtocolError(f"worker: {packet.spec.name} while {self._awaiting()}")
        self._requests.popleft()

    def _on_wake_up(self, packet: Noop | NoJob) -> Event | None:
        self._advance(packet)
        return None

    def _on_assignment(self, packet: _Assignment) -> Event | None:
        self._check_handle(packet, packet.handle)  # no report could name it
        if self._state is not Grab.ASKED:
            if self._unasked.total() >= MAX_UNASKED:
                raise RemoteProtocolError(
                    f"worker: {packet.spec.name}: over {MAX_UNASKED} jobs that were not asked for"
                )
            self._unasked[packet.handle] += 1
        self._advance(packet)
        job = self._in_hand.get(packet.handle)
        if job is None:
            self._in_hand[packet.handle] = job = _InHand()
        job.assigned += 1
        job.runs += 1
        job.function = packet.function
        unique = b"" if isinstance(packet, JobAssign) else packet.unique
        reducer = packet.reducer if isinstance(packet, JobAssignAll) else b""
        return JobAssigned(packet.handle, packet.function, unique, reducer, packet.workload)

    def _on_error(self, packet: Error) -> Event | None:
        if self._turned_away(packet):
            return None
        if packet.code == b"JOB_NOT_FOUND":
            return ReportRefused(packet.code, packet.text)  # this is the only answer to reports
        if not self._requests or self._requests[0].awaits is OptionRes:
            return super()._on_error(packet)
        if self._requests[0].awaits is type(self._grab) and packet.code == b"INVALID_COMMAND":
            raise RemoteProtocolError(f"worker: the server refused {self._grab.spec.name}: {packet.text!r}")
        return packet  # about an ability, for example: the answer to the oldest request is still to come


WorkerConnection._HANDLERS = {
    **Connection._HANDLERS,
    Noop: WorkerConnection._on_wake_up,
    NoJob: WorkerConnection._on_wake_up,
    Error: WorkerConnection._on_error,
    **dict.fromkeys(ASSIGNMENTS, WorkerConnection._on_assignment),
}
