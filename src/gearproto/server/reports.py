"""What workers report on their jobs, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from gearproto.packets import (
    MAX_HANDLE_SIZE,
    RESPONSE,
    JobRequeued,
    Packet,
    Report,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .jobs import Job
from .output import BIG, Output
from .peers import Peer
from .queue import JobQueue

__all__ = ["Reports"]

_HEADER: Final = Struct("!4sII")
_NOT_FOUND: Final[dict[type[Packet], bytes]] = {
    **dict.fromkeys((WorkStatus, WorkComplete, WorkFail), b"Job given in work result not found"),
    **dict.fromkeys((WorkData, WorkWarning), b"Job does not exist on server"),
    WorkException: b"An exception was received for a job that does not exist",
}
_HANDLE_TOO_LARGE: Final = b"Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf"
_ENDS: Final = frozenset((WorkComplete, WorkFail, WorkException))


class Reports:
    """Passes reports on to the clients of their jobs."""

    def __init__(self, queue: JobQueue, output: Output, end: Callable[[Job, Peer | None], None]) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue what clients get.
            end: called when a job has ended by the report of a peer.
        """
        self._queue = queue
        self._output = output
        self._dirty = output.dirty
        self._end = end

    def on_report(self, peer: Peer, report: Report) -> None:
        """Do what a report says, if the peer holds the job."""
        job = self._queue.jobs.get(report.handle)
        kind = report.packet
        if job is None or job.worker is not peer:
            self._on_stray_report(peer, report)
            return
        if kind is WorkException:
            self._relay_exception(job, report)
            peer.raised = job.handle
        elif job.clients:
            self._relay(job.clients, kind.spec.number, report.body)
        if kind in _ENDS:
            self._end(job, peer)
        elif kind is WorkStatus:
            job.progress = report.progress

    def fail(self, job: Job) -> None:
        """Tell the clients of a job that it has failed, without a report of a worker."""
        self._relay(job.clients or [], WorkFail.spec.number, job.handle)

    def requeued(self, job: Job) -> None:
        """Tell the clients of a job that have asked for it that a run was lost, and that another will follow."""
        asked = [client for client in job.clients or () if client.reruns]
        self._relay(asked, JobRequeued.spec.number, job.handle)

    def _on_stray_report(self, peer: Peer, report: Report) -> None:
        """Answer a report on a job that the peer does not hold, unless it may well believe that it does."""
        if report.handle in peer.cancelled:
            if report.packet in _ENDS:
                del peer.cancelled[report.handle]
                if report.packet is WorkException:
                    peer.raised = report.handle
        elif report.packet is WorkFail and report.handle == peer.raised:
            peer.raised = None  # some workers send it behind WORK_EXCEPTION, and fall over an ERROR
        elif report.packet is WorkFail and len(report.handle) > MAX_HANDLE_SIZE:
            self._output.send_error(peer, b"ARGUMENT_TOO_LARGE", _HANDLE_TOO_LARGE)
        else:
            self._output.send_error(peer, b"JOB_NOT_FOUND", _NOT_FOUND[report.packet])

    def _relay(self, clients: list[Peer], number: int, body: bytes) -> None:
        """Pass a report on to all who wait for its job."""
        header = _HEADER.pack(RESPONSE, number, len(body))
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

    def _relay_exception(self, job: Job, report: Report) -> None:
        """Send ``WORK_EXCEPTION`` to those who have asked for it, ``WORK_FAIL`` to the others."""
        clients = job.clients or ()
        self._relay([client for client in clients if client.exceptions], WorkException.spec.number, report.body)
        self._relay([client for client in clients if not client.exceptions], WorkFail.spec.number, job.handle)
