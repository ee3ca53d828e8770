"""Telling the clients of jobs what happens to these."""

from __future__ import annotations

from gearproto.codec import HEADER, Packet
from gearproto.packets import (
    JobRequeued,
    WorkException,
    WorkFail,
)

from .jobs import Job
from .output import BIG, Output
from .peers import Peer

__all__ = ["Relay"]


class Relay:
    """Passes reports on to the clients of jobs, and makes those that no worker sends."""

    __slots__ = ("_dirty", "_output")

    def __init__(self, output: Output) -> None:
        """Begin.

        Args:
            output: where to queue what clients get.
        """
        self._output = output
        self._dirty = output.dirty

    def pass_on(self, clients: list[Peer], kind: type[Packet], body: bytes) -> None:
        """Pass a report on to clients.

        Args:
            clients: who gets it.
            kind: class of the packet.
            body: all bytes behind the header.
        """
        header = HEADER.pack(kind.spec.response_key, len(body))
        output = self._output
        if len(clients) >= 8:
            output.work += len(clients) >> 3
        if len(body) < BIG:
            data = header + body
            size, dirty = len(data), self._dirty
            for client in clients:
                if not client.output:
                    dirty.append(client)
                client.output.append(data)
                client.output_size += size
        else:
            for client in clients:
                output.send(client, header)
                output.send(client, body)

    def pass_exception_on(self, job: Job, body: bytes) -> None:
        """Send ``WORK_EXCEPTION`` to the clients that have asked for it, ``WORK_FAIL`` to the others."""
        clients = job.clients or ()
        self.pass_on([client for client in clients if client.exceptions], WorkException, body)
        self.pass_on([client for client in clients if not client.exceptions], WorkFail, job.handle)

    def fail(self, job: Job) -> None:
        """Tell the clients of a job that it has failed, without a report of a worker."""
        self.pass_on(job.clients or [], WorkFail, job.handle)

    def requeued(self, job: Job) -> None:
        """Tell the clients of a job that have asked for it that a run was lost, and that another will follow."""
        asked = [client for client in job.clients or () if client.reruns]
        self.pass_on(asked, JobRequeued, job.handle)
