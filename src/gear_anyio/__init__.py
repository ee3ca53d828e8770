"""Gearman for asyncio and trio, through anyio."""

from gear_net.tls import TLS
from gearproto import Priority
from gearproto.client import JobRequest, Policy

from .client import Client
from .job import Job
from .server import Server
from .worker import Worker
from .worker_job import ThreadJob, WorkerJob

__all__ = ["TLS", "Client", "Job", "JobRequest", "Policy", "Priority", "Server", "ThreadJob", "Worker", "WorkerJob"]
