"""The packets of the Gearman protocol: one class for each row of its packet table.

Decoding, encoding, validation, the strategies of the tests and the table in the documentation all derive from the
classes here; `gearproto.codec` says how.

The file is long because the table is one: its rows stand in the order of their numbers, to be compared with the
protocol document.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .codec import EXTENSIONS, Count, Handle, Name, Packet, Payload, Route, Text, Unique, packet

__all__ = [
    "SUBMISSIONS",
    "AllYours",
    "CanDo",
    "CanDoTimeout",
    "CantDo",
    "EchoReq",
    "EchoRes",
    "Error",
    "GetStatus",
    "GetStatusUnique",
    "GrabJob",
    "GrabJobAll",
    "GrabJobUniq",
    "JobAssign",
    "JobAssignAll",
    "JobAssignUniq",
    "JobCreated",
    "JobRequeued",
    "NoJob",
    "Noop",
    "OptionReq",
    "OptionRes",
    "PreSleep",
    "Priority",
    "ResetAbilities",
    "SetClientId",
    "StatusRes",
    "StatusResUnique",
    "SubmitJob",
    "SubmitJobBg",
    "SubmitJobEpoch",
    "SubmitJobHigh",
    "SubmitJobHighBg",
    "SubmitJobLow",
    "SubmitJobLowBg",
    "SubmitJobSched",
    "SubmitReduceJob",
    "SubmitReduceJobBackground",
    "WorkComplete",
    "WorkData",
    "WorkException",
    "WorkFail",
    "WorkStatus",
    "WorkWarning",
]


class Priority(IntEnum):
    """Which jobs go first. The numbers are those of gearmand's stores."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@packet(1, Route.FROM_WORKER)
class CanDo(Packet):
    """This worker can run a function (``CAN_DO``).

    Attributes:
        function: its name.
    """

    function: Name


@packet(2, Route.FROM_WORKER)
class CantDo(Packet):
    """This worker can no longer run a function (``CANT_DO``).

    Attributes:
        function: its name.
    """

    function: Name


@packet(3, Route.FROM_WORKER)
class ResetAbilities(Packet):
    """This worker can run nothing any more (``RESET_ABILITIES``)."""


@packet(4, Route.FROM_WORKER)
class PreSleep(Packet):
    """This worker goes to sleep, and wants a ``NOOP`` when there is a job for it (``PRE_SLEEP``)."""


@packet(6, Route.TO_WORKER)
class Noop(Packet):
    """Wakes a sleeping worker (``NOOP``)."""


@packet(7, Route.FROM_CLIENT)
class SubmitJob(Packet):
    """Submits a job of normal priority (``SUBMIT_JOB``).

    Attributes:
        function: name of the function to run.
        unique: the client's own name for the job, at most 64 bytes; jobs of one function with the same unique are
            joined. Empty means none.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(8, Route.TO_CLIENT)
class JobCreated(Packet):
    """The server has taken a submission (``JOB_CREATED``). It answers submissions in their order.

    Attributes:
        handle: the server's name for the job, at most 63 bytes.
    """

    handle: Handle


@packet(9, Route.FROM_WORKER)
class GrabJob(Packet):
    """Asks for a job (``GRAB_JOB``)."""


@packet(10, Route.TO_WORKER)
class NoJob(Packet):
    """Nothing is queued for this worker's functions (``NO_JOB``)."""


@packet(11, Route.TO_WORKER)
class JobAssign(Packet):
    """Gives a job to a worker (``JOB_ASSIGN``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        workload: the data to work on.
    """

    handle: Handle
    function: Name
    workload: Payload


@packet(12, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkStatus(Packet):
    """Progress of a running job (``WORK_STATUS``).

    Attributes:
        handle: job handle, at most 63 bytes.
        numerator: units of work done.
        denominator: units of work in total; may be 0.
    """

    handle: Handle
    numerator: Count
    denominator: Count


@packet(13, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkComplete(Packet):
    """A job is done (``WORK_COMPLETE``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the result.
    """

    handle: Handle
    data: Payload


@packet(14, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkFail(Packet):
    """A job has failed (``WORK_FAIL``).

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


@packet(15, Route.FROM_CLIENT)
class GetStatus(Packet):
    """Asks what the server knows of a job (``GET_STATUS``).

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


@packet(16, Route.FROM_CLIENT | Route.FROM_WORKER)
class EchoReq(Packet):
    """Asks the server to send data back (``ECHO_REQ``).

    Attributes:
        data: any bytes.
    """

    data: Payload


@packet(17, Route.TO_CLIENT | Route.TO_WORKER)
class EchoRes(Packet):
    """The data of an ``ECHO_REQ`` (``ECHO_RES``).

    Attributes:
        data: the bytes of the request.
    """

    data: Payload


@packet(18, Route.FROM_CLIENT)
class SubmitJobBg(Packet):
    """Submits a background job of normal priority (``SUBMIT_JOB_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(19, Route.TO_CLIENT | Route.TO_WORKER)
class Error(Packet):
    """The server could not do what was asked (``ERROR``).

    Attributes:
        code: a word for programs, such as ``JOB_NOT_FOUND``.
        text: an explanation.
    """

    code: Text
    text: Text


@packet(20, Route.TO_CLIENT)
class StatusRes(Packet):
    """Answers ``GET_STATUS`` (``STATUS_RES``).

    Attributes:
        handle: the handle asked about.
        known: whether the server has the job, queued or running.
        running: whether a worker has it.
        numerator: units of work done.
        denominator: units of work in total; may be 0.
    """

    handle: Handle
    known: bool
    running: bool
    numerator: int
    denominator: int


@packet(21, Route.FROM_CLIENT)
class SubmitJobHigh(Packet):
    """Submits a job of high priority (``SUBMIT_JOB_HIGH``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(22, Route.FROM_WORKER)
class SetClientId(Packet):
    """Tells the name of this worker, which administrators see (``SET_CLIENT_ID``).

    Attributes:
        client_id: the name.
    """

    client_id: Text


@packet(23, Route.FROM_WORKER)
class CanDoTimeout(Packet):
    """This worker can run a function, with a timeout for each job (``CAN_DO_TIMEOUT``).

    Attributes:
        function: its name.
        timeout: in milliseconds; 0 or less means none.
    """

    function: Name
    timeout: int


@packet(24, Route.FROM_WORKER)
class AllYours(Packet):
    """This worker has no other server (``ALL_YOURS``); changes nothing."""


@packet(25, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkException(Packet):
    """A job has ended with an exception (``WORK_EXCEPTION``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the exception, in any form that the worker chooses.
    """

    handle: Handle
    data: Payload


@packet(26, Route.FROM_CLIENT | Route.FROM_WORKER)
class OptionReq(Packet):
    """Sets an option for this connection (``OPTION_REQ``).

    Attributes:
        option: its name; the protocol knows ``exceptions``.
    """

    option: Text


@packet(27, Route.TO_CLIENT | Route.TO_WORKER)
class OptionRes(Packet):
    """The server has set an option (``OPTION_RES``).

    Attributes:
        option: its name, as it was sent.
    """

    option: Text


@packet(28, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkData(Packet):
    """A piece of a running job's result (``WORK_DATA``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the piece.
    """

    handle: Handle
    data: Payload


@packet(29, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkWarning(Packet):
    """A warning from a running job (``WORK_WARNING``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the warning.
    """

    handle: Handle
    data: Payload


@packet(30, Route.FROM_WORKER)
class GrabJobUniq(Packet):
    """Asks for a job and its unique (``GRAB_JOB_UNIQ``)."""


@packet(31, Route.TO_WORKER)
class JobAssignUniq(Packet):
    """Gives a job to a worker, with its unique (``JOB_ASSIGN_UNIQ``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        unique: the client's own name for the job; may be empty.
        workload: the data to work on.
    """

    handle: Handle
    function: Name
    unique: Unique
    workload: Payload


@packet(32, Route.FROM_CLIENT)
class SubmitJobHighBg(Packet):
    """Submits a background job of high priority (``SUBMIT_JOB_HIGH_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(33, Route.FROM_CLIENT)
class SubmitJobLow(Packet):
    """Submits a job of low priority (``SUBMIT_JOB_LOW``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(34, Route.FROM_CLIENT)
class SubmitJobLowBg(Packet):
    """Submits a background job of low priority (``SUBMIT_JOB_LOW_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(35, Route.FROM_CLIENT)
class SubmitJobSched(Packet):
    """Submits a background job for a time given as in a crontab (``SUBMIT_JOB_SCHED``). No server runs it.

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        minute: 0 to 59.
        hour: 0 to 23.
        day: day of the month, 1 to 31.
        month: 1 to 12.
        weekday: 0 to 6, Monday is 0.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    minute: Text
    hour: Text
    day: Text
    month: Text
    weekday: Text
    workload: Payload


@packet(36, Route.FROM_CLIENT)
class SubmitJobEpoch(Packet):
    """Submits a background job that runs at a given time (``SUBMIT_JOB_EPOCH``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        run_at: seconds since 1970; the past means now.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    run_at: int
    workload: Payload


@packet(37, Route.FROM_CLIENT)
class SubmitReduceJob(Packet):
    """Submits a job together with the name of a reducer (``SUBMIT_REDUCE_JOB``).

    The protocol document leaves the fourth argument out, but servers and clients have it.

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        reducer: handed to the worker, at most 64 bytes.
        aggregator: ignored.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    reducer: Unique
    aggregator: Text
    workload: Payload


@packet(38, Route.FROM_CLIENT)
class SubmitReduceJobBackground(Packet):
    """Submits a background job together with the name of a reducer (``SUBMIT_REDUCE_JOB_BACKGROUND``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        reducer: handed to the worker, at most 64 bytes.
        aggregator: ignored.
        workload: the data to work on.
    """

    function: Name
    unique: Unique
    reducer: Unique
    aggregator: Text
    workload: Payload


@packet(39, Route.FROM_WORKER)
class GrabJobAll(Packet):
    """Asks for a job, its unique and its reducer (``GRAB_JOB_ALL``).

    Servers answer with ``JOB_ASSIGN_UNIQ`` if the job has no reducer.
    """


@packet(40, Route.TO_WORKER)
class JobAssignAll(Packet):
    """Gives a job to a worker, with its unique and its reducer (``JOB_ASSIGN_ALL``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        unique: the client's own name for the job; may be empty.
        reducer: name of the reducer.
        workload: the data to work on.
    """

    handle: Handle
    function: Name
    unique: Unique
    reducer: Unique
    workload: Payload


@packet(41, Route.FROM_CLIENT)
class GetStatusUnique(Packet):
    """Asks what the server knows of a job, by its unique (``GET_STATUS_UNIQUE``).

    Attributes:
        unique: the client's own name for the job.
    """

    unique: Unique


@packet(42, Route.TO_CLIENT)
class StatusResUnique(Packet):
    """Answers ``GET_STATUS_UNIQUE`` (``STATUS_RES_UNIQUE``).

    Attributes:
        unique: the unique asked about. The protocol document says handle, but servers send the unique.
        known: whether the server has the job, queued or running.
        running: whether a worker has it.
        numerator: units of work done.
        denominator: units of work in total; may be 0.
        clients: how many clients wait for the job.
    """

    unique: Unique
    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int


@packet(1000, Route.TO_CLIENT, EXTENSIONS)
class JobRequeued(Packet):
    """A job was taken from its worker, and will run again from the beginning (``JOB_REQUEUED``).

    Only sent if the option ``reruns`` is set, which is not in the protocol document.

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


SUBMISSIONS: Final[dict[type[Packet], tuple[Priority, bool]]] = {
    SubmitJob: (Priority.NORMAL, False),
    SubmitJobBg: (Priority.NORMAL, True),
    SubmitJobHigh: (Priority.HIGH, False),
    SubmitJobHighBg: (Priority.HIGH, True),
    SubmitJobLow: (Priority.LOW, False),
    SubmitJobLowBg: (Priority.LOW, True),
    SubmitJobEpoch: (Priority.NORMAL, True),
    SubmitReduceJob: (Priority.NORMAL, False),
    SubmitReduceJobBackground: (Priority.NORMAL, True),
}
"""Priority of each submission that servers run, and whether it is a background job."""
