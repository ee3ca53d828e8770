"""Gearman for asyncio and trio, through anyio."""

from gear_net.tls import TLS
from gearproto import Priority
from gearproto.policies import Policy
from gearproto.tasks import Task

from .assignment import ThreadJob, WorkerJob
from .client import Client
from .job import Job
from .server import Server
from .worker import Worker

__all__ = ["TLS", "Client", "Job", "Policy", "Priority", "Server", "Task", "ThreadJob", "Worker", "WorkerJob"]
