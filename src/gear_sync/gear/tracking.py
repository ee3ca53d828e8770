"""Which jobs the reports of one server are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from gearproto.client import ReportMatcher

from . import constants

if TYPE_CHECKING:
    from .jobs import Job
    from .packet import Packet

__all__ = ["REPORTS", "JobTracker"]

_ENDS: Final = frozenset((constants.WORK_COMPLETE, constants.WORK_FAIL, constants.WORK_EXCEPTION))

REPORTS: Final = _ENDS | {constants.WORK_DATA, constants.WORK_WARNING, constants.WORK_STATUS}
"""The types of packets that are about a job."""


class JobTracker:
    """The jobs of a client that one server has.

    Attributes:
        known: jobs by handle, to which answers about them belong; kept only as long as the program keeps them, or they
            are foreground jobs that have not ended.
        raised: the handle whose ``WORK_EXCEPTION`` came last: some workers send ``WORK_FAIL`` behind it.
    """

    def __init__(self, max_early_size: int = 64 * 1024**2) -> None:
        """Begin without jobs.

        Args:
            max_early_size: bytes of reports that are kept for jobs whose handle has not come yet.
        """
        self._max_early_size = max_early_size
        self.known: WeakValueDictionary[bytes, Job] = WeakValueDictionary()
        self.raised: bytes | None = None
        self._matcher: ReportMatcher[Job, Packet] = ReportMatcher(lambda packet: packet.ptype in _ENDS)

    def submitted(self) -> None:
        """Count a submission of a foreground job; `created` or `refused` has to follow, or `lose`."""
        self._matcher.submitted()

    def created(self, handle: bytes, job: Job, *, background: bool) -> list[Packet]:
        """Record the handle of a job; return the reports on it that have come before, to be given to `route`."""
        self.known[handle] = job
        return [] if background else list(self._matcher.created(handle, job))

    def refused(self) -> None:
        """Record that the oldest submission of a foreground job gets no handle."""
        self._matcher.refused()

    def route(self, packet: Packet) -> list[Packet]:
        """Return a report once for each job that it is for."""
        matcher = self._matcher
        handle = bytes(packet.getArgument(0))
        end = packet.ptype in _ENDS
        if not end:
            if (job := matcher.piece(handle)) is not None:
                return [packet.about(job)]
        elif jobs := matcher.end(handle):
            self.raised = handle if packet.ptype == constants.WORK_EXCEPTION else None
            return [packet.about(job) for job in jobs]
        elif matcher.repeated(handle) or (packet.ptype == constants.WORK_FAIL and handle == self.raised):
            return []
        if matcher.awaiting and handle not in self.known and matcher.early_size < self._max_early_size:
            matcher.keep(handle, packet, len(packet.data))
            return []
        return [packet]

    def forget(self, handle: bytes) -> None:
        """Forget a handle of which nothing more comes."""
        self.known.pop(handle, None)

    def lose(self) -> list[Job]:
        """Forget all jobs, and return them: those that have not ended are lost."""
        lost = [job for _handle, job in self._matcher.lose()]
        for job in lost:
            job.lose()
        others = [job for job in self.known.values() if all(job is not other for other in lost)]
        self.known.clear()
        self.raised = None
        return lost + others
