"""The Gearman protocol without any I/O: bytes in, events out.

`ClientConnection` and `WorkerConnection` are the two ends that talk to a job server, `gearproto.server.Engine` is the
job server itself. `gearproto.packets` has every packet, `gearproto.admin` every text command, `gearproto.events` all
other events.
"""

from .addresses import DEFAULT_PORT
from .client import ClientConnection
from .connection import Connection
from .errors import (
    AlreadyClosed,
    ConnectionLost,
    GearmanError,
    JobError,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ServerError,
    StreamBlocked,
)
from .framing import DEFAULT_MAX_LINE_SIZE, DEFAULT_MAX_PACKET_SIZE, DEFAULT_MAX_SERVER_PACKET_SIZE, Decoder
from .outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from .packets import Priority
from .worker import Grab, WorkerConnection

__all__ = [
    "DEFAULT_MAX_LINE_SIZE",
    "DEFAULT_MAX_PACKET_SIZE",
    "DEFAULT_MAX_SERVER_PACKET_SIZE",
    "DEFAULT_PORT",
    "AlreadyClosed",
    "ClientConnection",
    "Completed",
    "Connection",
    "ConnectionLost",
    "Decoder",
    "Failed",
    "GearmanError",
    "Grab",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobNotSent",
    "JobRaised",
    "JobRejected",
    "LocalProtocolError",
    "Lost",
    "NotSent",
    "Outcome",
    "Priority",
    "ProtocolError",
    "Raised",
    "Rejected",
    "RemoteProtocolError",
    "ServerError",
    "StreamBlocked",
    "WorkerConnection",
    "__version__",
]

__version__ = "0.1.0"
