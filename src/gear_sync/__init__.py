"""Gearman over blocking sockets: client, worker, and a job server in one loop; needs the standard library only."""

from gear_net.connecting import Connect
from gear_net.listening import Keepalive
from gear_net.serving import ServerOptions, open_reactor
from gear_net.snapshot import Snapshot
from gear_net.tls import TLS
from gearproto import (
    AlreadyClosed,
    Completed,
    ConnectionLost,
    Failed,
    GearmanError,
    JobError,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
    Lost,
    NotSent,
    Outcome,
    Priority,
    ProtocolError,
    Raised,
    Rejected,
    RemoteProtocolError,
    ServerError,
    StreamBlocked,
)
from gearproto.client import JobEvent, JobHandle, JobRequest, Policy, Resubmitted
from gearproto.events import Data, Progress, Restarted, StatusReceived, Warned
from gearproto.functions import BYTES, JSON, TEXT, Codec, CodecError, Function, structured

from .admin import Admin
from .client import Client
from .job import Job, JobEvents
from .server import Server
from .worker import Worker
from .worker_job import WorkerJob

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "TLS",
    "Admin",
    "AlreadyClosed",
    "Client",
    "Codec",
    "CodecError",
    "Completed",
    "Connect",
    "ConnectionLost",
    "Data",
    "Failed",
    "Function",
    "GearmanError",
    "Job",
    "JobError",
    "JobEvent",
    "JobEvents",
    "JobFailed",
    "JobHandle",
    "JobLost",
    "JobNotSent",
    "JobRaised",
    "JobRejected",
    "JobRequest",
    "Keepalive",
    "LocalProtocolError",
    "Lost",
    "NotSent",
    "Outcome",
    "Policy",
    "Priority",
    "Progress",
    "ProtocolError",
    "Raised",
    "Rejected",
    "RemoteProtocolError",
    "Restarted",
    "Resubmitted",
    "Server",
    "ServerError",
    "ServerOptions",
    "Snapshot",
    "StatusReceived",
    "StreamBlocked",
    "Warned",
    "Worker",
    "WorkerJob",
    "open_reactor",
    "structured",
]
