"""The open requests of one connection, and what their answers mean to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from gearproto.addresses import Address
from gearproto.admin import Command
from gearproto.errors import (
    ConnectionLost,
    ServerError,
    StreamBlocked,
)
from gearproto.event import Event
from gearproto.events import (
    AdminReplied,
    ConnectionClosed,
    Echoed,
    JobEnded,
    RequestFailed,
    RequestId,
    RequestLost,
    StatusReceived,
)
from gearproto.outcomes import Lost, NotSent

from .connection import ClientConnection
from .jobs import JobRecord
from .streams import StreamLog, Unread

__all__ = ["Answer", "OpenRequests"]

_T = TypeVar("_T")


class Answer:
    """The answer to a request other than the submission of a foreground job.

    Attributes:
        event: the answer; None until it has come.
        records: where the request is open, or was; None until it is asked.
    """

    __slots__ = ("event", "records")

    def __init__(self) -> None:
        """Begin without an answer."""
        self.event: Event | None = None
        self.records: OpenRequests[Any] | None = None

    def on_event(self, event: Event) -> bool:
        """Take the answer: the first event is the last."""
        self.event = event
        return True


_R = TypeVar("_R", bound=JobRecord)


class OpenRequests(Generic[_R]):
    """The open requests of one connection.

    Attributes:
        conn: the connection.
        server: the server, for handles and messages.
        reason: why it has ended, as text; empty until then.
        cost: whether the end has cost a request its answer.
    """

    def __init__(self, conn: ClientConnection, server: Address) -> None:
        """Begin without a request.

        Args:
            conn: the connection; requests that are to be recorded go through this object.
            server: the server, for handles and messages.
        """
        self.conn = conn
        self.reason = ""
        self.cost = False
        self.server = server
        self._open: dict[RequestId, _R | Answer] = {}
        self._streams = 0  # open jobs that stream
        self._unread: Unread | None = None  # what they hold, with those of other connections

    def submit(self, records: Sequence[_R]) -> None:
        """Submit jobs; all or, if one breaks a rule, none.

        Raises:
            LocalProtocolError: the request of one breaks a rule, or the connection has ended.
        """
        packets = []
        for record in records:
            assert record.packet is not None
            record.server = self.server
            packets.append(record.packet)
        self._open.update(zip(self.conn.submit_jobs(packets, checked=True), records, strict=True))
        for record in records:
            record.records = self
            if isinstance(record.log, StreamLog):
                self._streams += 1
                self._unread = record.log.unread

    def ask(self, request: Callable[[ClientConnection], RequestId], answer: Answer) -> None:
        """Queue any other request.

        Args:
            request: queues it, and returns its id.
            answer: takes the answer.

        Raises:
            LocalProtocolError: the request breaks a rule, or the connection has ended.
        """
        self._open[request(self.conn)] = answer
        answer.records = self

    def introduce(self, *, exceptions: bool) -> None:
        """Set options on a server that has just been reached (``OPTION_REQ``).

        Args:
            exceptions: whether to ask for exceptions of workers, and for `Restarted`. Some servers never answer this.
        """
        if exceptions:
            self.ask(lambda conn: conn.set_option(b"exceptions"), Answer())
            self.conn.set_option(b"reruns", optional=True)  # nobody needs to know the answer

    def on_event(self, event: Event) -> _R | Answer | None:
        """Pass an event of the connection to the request that it belongs to.

        Returns:
            That request's record; None if the event belongs to none.
        """
        if type(event) is ConnectionClosed:
            self.reason = event.reason
            return None
        request: RequestId | None = getattr(event, "request", None)
        if request is None:
            return None  # a report that belongs to nothing, or some worker's malformed progress
        record = self._open.get(request)
        if record is None:
            return None  # KeyboardInterrupt has kept the request from being recorded
        if record.on_event(event):
            del self._open[request]
            if type(event) is RequestLost or (type(event) is JobEnded and isinstance(event.outcome, Lost | NotSent)):
                self.cost = True
            if self._streams and isinstance(record, JobRecord) and record.streams:
                self._streams -= 1
        return record

    @property
    def stopped(self) -> bool:
        """Whether the connection must not be read now.

        This is so if streaming jobs are open on it, and all streaming jobs of the client hold too much unread data.
        """
        return self._streams > 0 and self._unread is not None and self._unread.full

    def check_progress(self) -> None:
        """Make sure that the answers to what is open can come.

        Raises:
            StreamBlocked: the connection is not read.
        """
        if self.stopped:
            assert self._unread is not None
            raise StreamBlocked(
                f"{self.server} is not read: jobs that stream hold {self._unread.size} bytes unread,"
                f" limit {self._unread.limit}; use another client while a long job streams"
            )

    @property
    def open(self) -> list[_R | Answer]:
        """What is open."""
        return list(self._open.values())

    @property
    def idle(self) -> bool:
        """Whether no request is open."""
        return not self._open

    def __contains__(self, record: object) -> bool:
        """Tell whether a request is open."""
        return record in self._open.values()

    def abandon(self, reason: str) -> list[_R | Answer]:
        """End requests that are still open although the connection has ended; KeyboardInterrupt can leave some behind.

        Returns:
            The records that were open.
        """
        left = list(self._open.items())
        self._open.clear()
        self._streams = 0
        for request, record in left:
            if isinstance(record, JobRecord):
                record.on_event(JobEnded(request, record.handle, record.outcome or Lost(reason)))
            else:
                record.on_event(RequestLost(request, sent=True))
        self.reason = self.reason or reason
        return [record for _request, record in left]

    # What answers mean

    def reply(self, command: Command[_T], event: Event) -> _T:
        """Return the content of the answer to a text command.

        Raises:
            ServerError: the server refused it.
            ConnectionLost: the connection ended before the answer.
        """
        self._check(event)
        assert isinstance(event, AdminReplied)
        return command.result(event.reply)

    def status(self, event: Event) -> StatusReceived:
        """Return the status in the answer to a query; raises as `reply`."""
        self._check(event)
        assert isinstance(event, StatusReceived)
        return event

    def echoed(self, event: Event) -> bytes:
        """Return the data that ``ECHO_RES`` brought back; raises as `reply`."""
        self._check(event)
        assert isinstance(event, Echoed)
        return event.data

    def _check(self, event: Event) -> None:
        if isinstance(event, RequestFailed):
            raise ServerError(event.code, event.text)
        if isinstance(event, RequestLost):
            raise ConnectionLost(f"{self.server}: {self.reason}")
