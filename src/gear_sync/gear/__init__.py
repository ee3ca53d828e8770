"""The documented API of ``gear`` 0.16: ``from gear_sync import gear`` in place of ``import gear``.

Clients and workers whose hooks are called for every packet, in threads of their own; and a job server for tests. It
stands on `gearproto`: its framing, its packets, its job server.
"""

from . import acl, constants
from .acl import ACL, ACLEntry, ACLError
from .admin import (
    AdminRequest,
    CancelJobAdminRequest,
    ServerAdminRequest,
    ShowJobsAdminRequest,
    ShowUniqueJobsAdminRequest,
    StatusAdminRequest,
    VersionAdminRequest,
    WorkersAdminRequest,
)
from .base import BaseClient
from .client import PRECEDENCE_HIGH, PRECEDENCE_LOW, PRECEDENCE_NORMAL, Client
from .connection import Connection
from .errors import (
    ConfigurationError,
    ConnectionError,
    DisconnectError,
    GearmanError,
    InterruptedError,
    InvalidDataError,
    NoConnectedServersError,
    RetryIOError,
    TimeoutError,
    UnknownJobError,
)
from .hooks import BaseClientServer
from .jobs import (
    BaseBinaryJob,
    BaseJob,
    BinaryJob,
    BinaryWorkerJob,
    FunctionRecord,
    Job,
    ServerJob,
    TextJob,
    TextJobArguments,
    TextJobUnique,
    TextWorkerJob,
    WorkerJob,
)
from .packet import Packet
from .server import Server
from .serving.peer import NonBlockingConnection, ServerConnection
from .tasks import OptionReqTask, SubmitJobTask, Task
from .text import TextList, convert_to_bytes
from .tls import best_tls_version, create_ssl_context
from .worker import TextWorker, Worker

__all__ = [
    "ACL",
    "PRECEDENCE_HIGH",
    "PRECEDENCE_LOW",
    "PRECEDENCE_NORMAL",
    "ACLEntry",
    "ACLError",
    "AdminRequest",
    "BaseBinaryJob",
    "BaseClient",
    "BaseClientServer",
    "BaseJob",
    "BinaryJob",
    "BinaryWorkerJob",
    "CancelJobAdminRequest",
    "Client",
    "ConfigurationError",
    "Connection",
    "ConnectionError",
    "DisconnectError",
    "FunctionRecord",
    "GearmanError",
    "InterruptedError",
    "InvalidDataError",
    "Job",
    "NoConnectedServersError",
    "NonBlockingConnection",
    "OptionReqTask",
    "Packet",
    "RetryIOError",
    "Server",
    "ServerAdminRequest",
    "ServerConnection",
    "ServerJob",
    "ShowJobsAdminRequest",
    "ShowUniqueJobsAdminRequest",
    "StatusAdminRequest",
    "SubmitJobTask",
    "Task",
    "TextJob",
    "TextJobArguments",
    "TextJobUnique",
    "TextList",
    "TextWorker",
    "TextWorkerJob",
    "TimeoutError",
    "UnknownJobError",
    "VersionAdminRequest",
    "Worker",
    "WorkerJob",
    "WorkersAdminRequest",
    "acl",
    "best_tls_version",
    "constants",
    "convert_to_bytes",
    "create_ssl_context",
]
