"""Which jobs the reports of one server are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from . import constants

if TYPE_CHECKING:
    from .jobs import Job
    from .packet import Packet

__all__ = ["REPORTS", "JobTracker"]

_ENDS: Final = frozenset((constants.WORK_COMPLETE, constants.WORK_FAIL, constants.WORK_EXCEPTION))

REPORTS: Final = _ENDS | {constants.WORK_DATA, constants.WORK_WARNING, constants.WORK_STATUS}
"""The types of packets that are about a job."""

_MAX_EARLY_SIZE: Final = 64 * 1024**2


class _Sharers:
    """The unfinished jobs of one handle: those that the server has joined.

    It sends every report once for each of them, one copy right after the other.
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.turn = 0

    def next(self) -> Job:
        """Return whose copy comes now."""
        job = self.jobs[self.turn % len(self.jobs)]
        self.turn += 1
        return job


class JobTracker:
    """The jobs of a client that one server has.

    Attributes:
        known: jobs by handle, to which answers about them belong; kept only as long as the program keeps them, or they
            are foreground jobs that have not ended.
        raised: the handle whose ``WORK_EXCEPTION`` came last: some workers send ``WORK_FAIL`` behind it.
    """

    def __init__(self) -> None:
        """Begin without jobs."""
        self.known: WeakValueDictionary[bytes, Job] = WeakValueDictionary()
        self.raised: bytes | None = None
        self._waiting: dict[bytes, _Sharers] = {}
        self._spent: dict[bytes, int] = {}  # by handle: copies of its end that are still to come
        self._early: list[Packet] = []  # reports on handles that no JOB_CREATED has told yet
        self._early_size = 0

    def created(self, handle: bytes, job: Job, *, background: bool) -> list[Packet]:
        """Take note of a job's handle; return the reports on it that have come before."""
        self.known[handle] = job
        self._spent.pop(handle, None)
        if background:
            return []
        self._waiting.setdefault(handle, _Sharers()).jobs.append(job)
        early = [packet for packet in self._early if packet.getArgument(0) == handle]
        self._early = [packet for packet in self._early if packet.getArgument(0) != handle]
        return early

    def settled(self) -> None:
        """Take note that no ``JOB_CREATED`` is awaited any more: reports on other handles are nobody's."""
        self._early.clear()
        self._early_size = 0
        self._spent.clear()

    def route(self, packet: Packet, *, submitting: bool) -> list[Packet]:
        """Return a report once for each job that it is for.

        Args:
            packet: the report.
            submitting: whether a ``JOB_CREATED`` is awaited, so that the report may be for a job of unknown handle.
        """
        handle = bytes(packet.getArgument(0))
        end = packet.ptype in _ENDS
        sharers = self._waiting.get(handle)
        if sharers is not None:
            if not end:
                return [packet.about(sharers.next())]
            del self._waiting[handle]
            if len(sharers.jobs) > 1:
                self._spent[handle] = len(sharers.jobs) - 1
            self.raised = handle if packet.ptype == constants.WORK_EXCEPTION else None
            return [packet.about(job) for job in sharers.jobs]
        if end and self._is_repeated(handle, packet.ptype):
            return []
        if submitting and handle not in self.known and self._early_size < _MAX_EARLY_SIZE:
            self._early.append(packet)
            self._early_size += len(packet.data)
            return []
        return [packet]

    def _is_repeated(self, handle: bytes, ptype: int) -> bool:
        """Tell whether an end has been told already."""
        if (copies := self._spent.pop(handle, 0)) > 1:
            self._spent[handle] = copies - 1
        return copies > 0 or (ptype == constants.WORK_FAIL and handle == self.raised)

    def forget(self, handle: bytes) -> None:
        """Take note that nothing more comes for a handle."""
        self.known.pop(handle, None)

    def lose(self) -> list[Job]:
        """Forget all jobs, and return them: those that have not ended are lost."""
        lost = [job for sharers in self._waiting.values() for job in sharers.jobs]
        for job in lost:
            job.lose()
        others = [job for job in self.known.values() if all(job is not other for other in lost)]
        self.known.clear()
        self._waiting.clear()
        self.settled()
        self.raised = None
        return lost + others
