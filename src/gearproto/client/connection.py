"""The client's side of a connection: submissions, their results, queries.

Theory of operation. Servers answer requests in order, and ``JOB_CREATED`` names no request. So the requests that await
an answer are kept in the order in which they were sent (`gearproto.connection`). A submission is in one of three
states, and in one place for each:

- requested: it is among those requests.
- created: ``JOB_CREATED`` has moved it to the `ReportMatcher`, which tells whose each report is. A background
  submission is never in this state: `JobQueued` is its end.
- ended: its `JobEnded` has been returned, or is among the events to be returned next.

Packets of the server move it on: ``JOB_CREATED``, ``ERROR`` and the reports. The end of the connection moves all that
are left: those requested end as `NotSent` or `Lost`, depending on whether a byte of them has left, and those created as
`Lost`.

What never happens:

- A foreground submission ends twice, or not at all. A handler checks a packet before it takes the submission out of its
  place, so that one which breaks the protocol leaves the submission where the end of the connection finds it.
- A report is dropped because it came before the ``JOB_CREATED`` that tells whose it is. It is kept, up to a limit in
  bytes.
- A report reaches a submission of another connection: handles are forgotten with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Unpack

from gearproto.codec import Packet, Route, decoders
from gearproto.connection import Connection, Request, encoded
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
from gearproto.options import ConnectionOptions
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

from .matching import ReportMatcher
from .submissions import submission

__all__ = ["ClientConnection"]

_WorkReport = WorkStatus | WorkData | WorkWarning | WorkComplete | WorkFail | WorkException | JobRequeued


class ClientConnection(Connection):
    """A client's connection to a job server, without any I/O.

    Every foreground submission ends in exactly one `JobEnded`, whatever happens; a background submission in
    `JobQueued`, or in `JobEnded` if the server did not take it.
    """

    _ROLE: ClassVar[str] = "client"
    _SPECS = decoders(Route.TO_CLIENT)

    def __init__(self, *, now: float = 0.0, **options: Unpack[ConnectionOptions]) -> None:
        """Begin a connection; the arguments are those of `Connection`."""
        super().__init__(now=now, **options)
        self._matcher: ReportMatcher[RequestId, _WorkReport] = ReportMatcher(lambda report: type(report) in _OUTCOMES)

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
        """Submit a job (``SUBMIT_JOB`` and its variants). `JobQueued` has its handle, `JobEnded` its outcome.

        The arguments are those of `submission`.

        Raises:
            LocalProtocolError: an argument breaks a rule, or the connection has ended.
        """
        packet = submission(function, workload, unique, priority, background, run_at, reducer)
        request = self._request(packet, JobCreated, background)
        if not background:
            self._matcher.submitted()
        return request

    def submit_jobs(self, submissions: Iterable[Packet], *, checked: bool = False) -> list[RequestId]:
        """Submit many jobs, or none if one of them breaks a rule.

        Args:
            submissions: packets from `submission`.
            checked: whether their arguments have been checked; see `Packet.validate`.

        Raises:
            LocalProtocolError: one breaks a rule, all together are over the limit for output, or the connection has
                ended.
        """
        limit = self._max_packet
        jobs = [(encoded(packet, limit, checked=checked), SUBMISSIONS[type(packet)][1]) for packet in submissions]
        self._check_open("submissions", sum(len(data) for data, _background in jobs))
        requests = []
        for data, background in jobs:
            request = self._new_request(JobCreated, background)
            self._queue(data)
            if not background:
                self._matcher.submitted()
            requests.append(request)
        return requests

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
        for report in self._matcher.created(packet.handle, request.id):
            event = self._on_report(report)
            assert event is not None  # its handle is open now
            self._events.append(event)
        return JobQueued(request.id, packet.handle)

    def _on_report(self, packet: _WorkReport) -> Event | None:
        outcome = _OUTCOMES.get(type(packet))
        if outcome is None:
            if (request := self._matcher.piece(packet.handle)) is not None:
                return _PIECES[type(packet)](request, packet)
        elif requests := self._matcher.end(packet.handle):
            first, *others = (JobEnded(request, packet.handle, outcome(packet)) for request in requests)
            self._events.extend(others)
            return first
        return self._on_early_report(packet, is_end=outcome is not None)

    def _on_early_report(self, packet: _WorkReport, *, is_end: bool) -> Event | None:
        """Keep a report that may have arrived before the ``JOB_CREATED`` of its submission."""
        matcher = self._matcher
        if not matcher.awaiting or (is_end and matcher.repeated(packet.handle)):
            return UnmatchedReport(packet.spec.name, packet.handle)
        matcher.keep(packet.handle, packet, len(packet.encode()))
        if matcher.early_size > self._max_packet:
            raise RemoteProtocolError(
                f"client: {packet.spec.name}: {matcher.early_size} bytes of results before JOB_CREATED,"
                f" limit {self._max_packet}"
            )
        return None

    def _on_status_res(self, packet: StatusRes) -> Event | None:
        request = self._answered(StatusRes)
        assert request.id is not None
        if packet.handle != request.detail:
            self._requests.appendleft(request)  # it is still open, and is lost with the connection
            raise RemoteProtocolError(f"client: STATUS_RES for {packet.handle!r}, asked for {request.detail!r}")
        return StatusReceived(request.id, packet.known, packet.running, packet.numerator, packet.denominator, None)

    def _on_status_res_unique(self, packet: StatusResUnique) -> Event | None:
        request = self._answered(StatusResUnique)
        assert request.id is not None
        numbers = (packet.numerator, packet.denominator, packet.clients)
        return StatusReceived(request.id, packet.known, packet.running, *numbers)

    def _on_malformed(self, packet: MalformedPacket) -> Event | None:
        if packet.packet == WorkStatus.spec.name:
            return packet  # servers pass on whatever a worker sends: keep the other jobs
        return super()._on_malformed(packet)

    def _failed(self, request: Request, id_: RequestId, packet: Error) -> Event:
        if request.awaits is not JobCreated:
            return super()._failed(request, id_, packet)
        if not request.detail:
            self._matcher.refused()
        return JobEnded(id_, None, Rejected(packet.code, packet.text))

    def _lost(self, request: Request, id_: RequestId, sent: bool, reason: str) -> Event:
        if request.awaits is not JobCreated:
            return super()._lost(request, id_, sent, reason)
        return JobEnded(id_, None, Lost(reason) if sent else NotSent(reason))

    def _lose_rest(self, reason: str) -> None:
        for handle, request in self._matcher.lose():
            self._events.append(JobEnded(request, handle, Lost(reason)))


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
