"""Gearman over blocking sockets, and a job server in one loop; needs nothing but the standard library."""

from gearproto.tasks import Task

from .client import Client
from .job import Job
from .server import Server
from .worker import Worker, WorkerJob

__all__ = ["Client", "Job", "Server", "Task", "Worker", "WorkerJob"]
