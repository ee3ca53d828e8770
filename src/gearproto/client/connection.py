"""The client's side of a connection: submissions, their results, queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Unpack

from gearproto.codec import Packet, Route, decoders
from gearproto.connection import Connection, Limits, Request
from gearproto.errors import RemoteProtocolError
from gearproto.event import Event
from gearproto.events import (
    Data,
    JobEnded,
    JobQueued,
    MalformedPacket,
    Progress,
    RequestId,
    Restarted,
    StatusReceived,
    UnmatchedReport,
    Warned,
)
from gearproto.outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from gearproto.packets import (
    SUBMISSIONS,
    Error,
    GetStatus,
    GetStatusUnique,
    JobCreated,
    JobRequeued,
    Priority,
    StatusRes,
    StatusResUnique,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .submissions import submission

__all__ = ["ClientConnection"]

_WorkReport = WorkStatus | WorkData | WorkWarning | WorkComplete | WorkFail | WorkException | JobRequeued


class _Sharers:
    """The submissions of this connection that share one job, in the order in which they joined it.

    A server sends every report once for each of them, one copy right after the other.
    """

    __slots__ = ("requests", "turn")

    def __init__(self) -> None:
        self.requests: list[RequestId] = []
        self.turn = 0

    def next(self) -> RequestId:
        """Return whose copy comes now."""
        request = self.requests[self.turn % len(self.requests)]
        self.turn += 1
        return request


class _Early:
    """Reports for a handle that no ``JOB_CREATED`` has told yet."""

    __slots__ = ("reports", "size", "until")

    def __init__(self) -> None:
        self.reports: list[_WorkReport] = []
        self.size = 0
        self.until = 0  # the newest submission at the last report: once it is answered, nobody comes for these any more

    def take(self) -> list[_WorkReport]:
        """Take one copy of each report, up to the end of the job.

        As many copies of the end, as many submissions share the job: each of them takes its own. Where those who
        joined late have no copies of the first reports, copies cannot be told from repetitions; the first to come
        then takes all up to the first end.
        """
        reports = self.reports
        ends = [index for index, report in enumerate(reports) if type(report) in _OUTCOMES]
        copies, size = len(ends), ends[0] + 1 if ends else len(reports)
        if copies > 1 and all(report == reports[index - index % copies] for index, report in enumerate(reports)):
            self.reports = [report for index, report in enumerate(reports) if index % copies]
            return reports[:size:copies]
        self.reports = reports[size:]
        return reports[:size]


class ClientConnection(Connection):
    """A client's connection to a job server, without any I/O.

    Every foreground submission ends in exactly one `JobEnded`, whatever happens; a background submission in
    `JobQueued`, or in `JobEnded` if the server did not take it.
    """

    _ROLE: ClassVar[str] = "client"
    _SPECS = decoders(Route.TO_CLIENT)

    def __init__(self, **limits: Unpack[Limits]) -> None:
        """Begin a connection; the arguments are those of `Connection`."""
        super().__init__(**limits)
        self._jobs: dict[bytes, _Sharers] = {}
        self._spent: dict[bytes, int] = {}  # by handle: copies of an end told to all sharers, which are still to come
        self._unanswered = 0  # foreground submissions whose JOB_CREATED has not come
        self._newest = RequestId(0)  # the last of them
        self._early: dict[bytes, _Early] = {}
        self._early_size = 0

    def submit_job(
        self,
        function: bytes,
        workload: bytes,
        *,
        unique: bytes = b"",
        priority: Priority = Priority.NORMAL,
        background: bool = False,
        run_at: int | None = None,
        reducer: bytes | None = None,
    ) -> RequestId:
        """Submit a job (``SUBMIT_JOB`` and its kin). `JobQueued` tells its handle, `JobEnded` its outcome.

        The arguments are those of `submission`.

        Raises:
            LocalProtocolError: an argument breaks a rule, or the connection has ended.
        """
        packet = submission(function, workload, unique, priority, background, run_at, reducer)
        return self._submitted(self._request(packet, JobCreated, background), background)

    def submit_jobs(self, submissions: Iterable[Packet]) -> list[RequestId]:
        """Submit many jobs, or none if one of them breaks a rule.

        Args:
            submissions: packets from `submission`.

        Raises:
            LocalProtocolError: one breaks a rule, all together are over the limit for output, or the connection has
                ended.
        """
        encoded = [(self._encode(packet), SUBMISSIONS[type(packet)][1]) for packet in submissions]
        self._check_open("submissions", sum(len(data) for data, _background in encoded))
        requests = []
        for data, background in encoded:
            request = self._new_request(JobCreated, background)
            self._queue(data)
            requests.append(self._submitted(request, background))
        return requests

    def _submitted(self, request: RequestId, background: bool) -> RequestId:
        if not background:
            self._unanswered += 1
            self._newest = request
        return request

    def get_status(self, handle: bytes) -> RequestId:
        """Ask what the server knows of a job (``GET_STATUS``). The answer is `StatusReceived`.

        Args:
            handle: the job's handle, 1 to 63 bytes.

        Raises:
            LocalProtocolError: the handle breaks these rules, or the connection has ended.
        """
        return self._request(GetStatus(handle), StatusRes, handle)

    def get_status_unique(self, unique: bytes) -> RequestId:
        """Ask what the server knows of a job, by its unique (``GET_STATUS_UNIQUE``). The answer is `StatusReceived`.

        Args:
            unique: the unique given at submission, at most 64 bytes.

        Raises:
            LocalProtocolError: the unique breaks these rules, or the connection has ended.
        """
        return self._request(GetStatusUnique(unique), StatusResUnique, unique)

    def _on_job_created(self, packet: JobCreated) -> Event | None:
        self._check_handle(packet, packet.handle)  # no query could name it; before the request counts as answered
        request = self._answered(JobCreated)
        assert request.id is not None
        background: bool = request.detail
        if background:
            return JobQueued(request.id, packet.handle)
        if (sharers := self._jobs.get(packet.handle)) is None:
            sharers = self._jobs[packet.handle] = _Sharers()
        sharers.requests.append(request.id)
        early = self._early.get(packet.handle)
        for report in early.take() if early is not None else ():
            self._events.append(self._deliver(sharers, report))
        self._foreground_answered(request.id)
        return JobQueued(request.id, packet.handle)

    def _foreground_answered(self, request: RequestId) -> None:
        """Drop the early reports that no later submission can be meant by."""
        self._unanswered -= 1
        if not self._unanswered:
            self._spent.clear()  # reports that match nothing are dropped anyhow, and some servers send one copy only
        for handle in [handle for handle, early in self._early.items() if early.until <= request]:
            self._early_size -= self._early.pop(handle).size

    def _on_report(self, packet: _WorkReport) -> Event | None:
        if (sharers := self._jobs.get(packet.handle)) is not None:
            return self._deliver(sharers, packet)
        if not self._unanswered or self._is_spent(packet):
            return UnmatchedReport(packet.spec.name, packet.handle)
        # A result may overtake the JOB_CREATED that tells whose it is.
        size = len(packet.encode())
        self._early_size += size
        if self._early_size > self._max_packet:
            raise RemoteProtocolError(
                f"client: {packet.spec.name}: {self._early_size} bytes of results before JOB_CREATED,"
                f" limit {self._max_packet}"
            )
        early = self._early.setdefault(packet.handle, _Early())
        early.reports.append(packet)
        early.size += size
        early.until = self._newest
        return None

    def _is_spent(self, packet: _WorkReport) -> bool:
        """Tell whether a report is one more copy of an end that all who share the job have been told."""
        if type(packet) not in _OUTCOMES or not (copies := self._spent.pop(packet.handle, 0)):
            return False
        if copies > 1:
            self._spent[packet.handle] = copies - 1
        return True

    def _deliver(self, sharers: _Sharers, packet: _WorkReport) -> Event:
        """Return the event of a report; the end goes to all who share the job, as one copy of it tells it all."""
        if (outcome := _OUTCOMES.get(type(packet))) is None:
            return _PIECES[type(packet)](sharers.next(), packet)
        del self._jobs[packet.handle]
        first, *others = (JobEnded(request, packet.handle, outcome(packet)) for request in sharers.requests)
        self._events.extend(others)
        if others:
            self._spent[packet.handle] = len(others)
        return first

    def _on_status_res(self, packet: StatusRes) -> Event | None:
        request = self._answered(StatusRes)
        assert request.id is not None
        if packet.handle != request.detail:
            self._requests.appendleft(request)  # it is still open, and lost with the connection
            raise RemoteProtocolError(f"client: STATUS_RES for {packet.handle!r}, asked for {request.detail!r}")
        return StatusReceived(request.id, packet.known, packet.running, packet.numerator, packet.denominator, None)

    def _on_status_res_unique(self, packet: StatusResUnique) -> Event | None:
        request = self._answered(StatusResUnique)
        assert request.id is not None
        numbers = (packet.numerator, packet.denominator, packet.clients)
        return StatusReceived(request.id, packet.known, packet.running, *numbers)

    def _on_malformed(self, packet: MalformedPacket) -> Event | None:
        if packet.packet == WorkStatus.spec.name:
            return packet  # some worker's nonsense, which servers pass on: no reason to lose all other jobs
        return super()._on_malformed(packet)

    def _failed(self, request: Request, id_: RequestId, packet: Error) -> Event:
        if request.awaits is not JobCreated:
            return super()._failed(request, id_, packet)
        if not request.detail:
            self._foreground_answered(id_)
        return JobEnded(id_, None, Rejected(packet.code, packet.text))

    def _lost(self, request: Request, id_: RequestId, sent: bool, reason: str) -> Event:
        if request.awaits is not JobCreated:
            return super()._lost(request, id_, sent, reason)
        return JobEnded(id_, None, Lost(reason) if sent else NotSent(reason))

    def _lose_rest(self, reason: str) -> None:
        for handle, sharers in self._jobs.items():
            self._events.extend(JobEnded(request, handle, Lost(reason)) for request in sharers.requests)
        self._jobs.clear()
        self._early.clear()


_PIECES: Final[dict[type, Callable[[RequestId, Any], Event]]] = {
    WorkStatus: lambda request, packet: Progress(request, packet.numerator, packet.denominator),
    WorkData: lambda request, packet: Data(request, packet.data),
    WorkWarning: lambda request, packet: Warned(request, packet.data),
    JobRequeued: lambda request, _packet: Restarted(request),
}

_OUTCOMES: Final[dict[type, Callable[[Any], Outcome]]] = {
    WorkComplete: lambda packet: Completed(packet.data),
    WorkFail: lambda _packet: Failed(),
    WorkException: lambda packet: Raised(packet.data),
}

ClientConnection._HANDLERS = {
    **Connection._HANDLERS,
    JobCreated: ClientConnection._on_job_created,
    StatusRes: ClientConnection._on_status_res,
    StatusResUnique: ClientConnection._on_status_res_unique,
    MalformedPacket: ClientConnection._on_malformed,
    **dict.fromkeys((*_PIECES, *_OUTCOMES), ClientConnection._on_report),
}
