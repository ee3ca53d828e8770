"""Events: what a connection tells the program that drives it.

If a packet contains everything, it is an event itself (see `gearproto.packets`). The classes here are for events to
which the connection adds something: which request a reply belongs to, or why a connection ended.
"""

from __future__ import annotations

from typing import NewType

from .admin import Reply
from .codec import MalformedPacket, UnexpectedPacket
from .event import Event, event
from .framing import Line
from .outcomes import Outcome

__all__ = [
    "AdminReplied",
    "Answered",
    "ConnectionClosed",
    "Data",
    "Echoed",
    "Event",
    "JobAssigned",
    "JobEnded",
    "JobQueued",
    "Line",
    "MalformedPacket",
    "OptionSet",
    "Progress",
    "ReportRefused",
    "RequestFailed",
    "RequestId",
    "RequestLost",
    "Restarted",
    "StatusReceived",
    "UnexpectedPacket",
    "UnmatchedReport",
    "Warned",
]

RequestId = NewType("RequestId", int)
"""Names one request of one connection: counts from 1, and is never used twice."""


@event
class JobQueued(Event):
    """The server has taken a submission (``JOB_CREATED``).

    Attributes:
        request: the submission.
        handle: the server's name for the job. Joined submissions share it.
    """

    request: RequestId
    handle: bytes


@event
class Progress(Event):
    """A running job has come this far (``WORK_STATUS``).

    Attributes:
        request: the submission.
        numerator: units of work done.
        denominator: units of work in total; may be 0.
    """

    request: RequestId
    numerator: int
    denominator: int


@event
class Data(Event):
    """A piece of a running job's result (``WORK_DATA``).

    Attributes:
        request: the submission.
        data: the piece, as the worker sent it; may be empty.
    """

    request: RequestId
    data: bytes


@event
class Warned(Event):
    """A warning from a running job (``WORK_WARNING``).

    Attributes:
        request: the submission.
        data: the warning, as the worker sent it; may be empty.
    """

    request: RequestId
    data: bytes


@event
class Restarted(Event):
    """The job's worker was lost, and the job will run again from the beginning (``JOB_REQUEUED``).

    Drop the pieces of the result from the lost run: the next run sends its own. This event only arrives if the option
    ``reruns`` is set.

    Attributes:
        request: the submission.
    """

    request: RequestId


@event
class JobEnded(Event):
    """A submission has ended. There is exactly one of these for each foreground submission.

    A background submission that the server has taken ends with `JobQueued` instead.

    Attributes:
        request: the submission.
        handle: the job's handle; None if the server never sent it.
        outcome: how it ended.
    """

    request: RequestId
    handle: bytes | None
    outcome: Outcome


@event
class StatusReceived(Event):
    """What the server knows of a job (``STATUS_RES``, ``STATUS_RES_UNIQUE``).

    Attributes:
        request: the query.
        known: whether the server has the job, queued or running. A finished job is unknown.
        running: whether a worker has it.
        numerator: units of work done.
        denominator: units of work in total; may be 0.
        clients: how many clients wait for the job; None in answer to ``GET_STATUS``, which does not tell.
    """

    request: RequestId
    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int | None


@event
class OptionSet(Event):
    """The server has set an option for this connection (``OPTION_RES``).

    Attributes:
        request: the ``OPTION_REQ``.
        option: name of the option.
    """

    request: RequestId
    option: bytes


@event
class Answered(Event):
    """The server has answered what `Connection.require_answer` has asked: it works."""


@event
class Echoed(Event):
    """The server has sent the data of an ``ECHO_REQ`` back (``ECHO_RES``).

    Attributes:
        request: the ``ECHO_REQ``.
        data: the data, equal to what was sent.
    """

    request: RequestId
    data: bytes


@event
class AdminReplied(Event):
    """The whole answer to a text command.

    Attributes:
        request: the command.
        reply: what the server said: typed rows, a value, or an error.
    """

    request: RequestId
    reply: Reply


@event
class RequestFailed(Event):
    """The server has answered a request that is not a submission with ``ERROR``.

    Attributes:
        request: the request.
        code: the server's code, such as ``UNKNOWN_OPTION``.
        text: the server's explanation.
    """

    request: RequestId
    code: bytes
    text: bytes


@event
class RequestLost(Event):
    """The connection ended before a request that is not a submission was answered.

    Attributes:
        request: the request.
        sent: whether any byte of it had left.
    """

    request: RequestId
    sent: bool


@event
class JobAssigned(Event):
    """The server has given this worker a job (``JOB_ASSIGN``, ``JOB_ASSIGN_UNIQ``, ``JOB_ASSIGN_ALL``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        unique: the client's own name for the job; empty if it has none or the server did not tell.
        reducer: name of the reducer; empty if there is none.
        workload: the data to work on.
    """

    handle: bytes
    function: bytes
    unique: bytes
    reducer: bytes
    workload: bytes


@event
class ReportRefused(Event):
    """The server has answered a report with ``ERROR``: it no longer counts the job as this worker's.

    ``ERROR`` does not name the job. A timeout that ran out, or a job cancelled meanwhile, are the usual reasons.

    Attributes:
        code: the server's code, ``JOB_NOT_FOUND``.
        text: the server's explanation.
    """

    code: bytes
    text: bytes


@event
class UnmatchedReport(Event):
    """A report that does not belong to a submission of this connection, and was dropped.

    Servers send them: a second copy for a job that two submissions shared, or a ``WORK_FAIL`` behind a
    ``WORK_EXCEPTION``.

    Attributes:
        packet: name of the packet, such as ``WORK_COMPLETE``.
        handle: the handle it names.
    """

    packet: str
    handle: bytes


@event
class ConnectionClosed(Event):
    """The connection has ended; nothing comes after this.

    Attributes:
        reason: why, as text.
        silent: whether the server has shown no sign of life in time, so that it may hang.
        refused: whether the server has refused the connection, for a reason that somebody has to fix.
    """

    reason: str
    silent: bool = False
    refused: bool = False
