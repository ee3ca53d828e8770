"""Gearman over blocking sockets, and a job server in one loop; needs nothing but the standard library."""

from gear_net.tls import TLS
from gearproto import Priority
from gearproto.client import JobRequest, Policy

from .client import Client
from .job import Job
from .server import Server
from .worker import Worker
from .worker_job import WorkerJob

__all__ = ["TLS", "Client", "Job", "JobRequest", "Policy", "Priority", "Server", "Worker", "WorkerJob"]
