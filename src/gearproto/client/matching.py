"""Which submission each copy of a report is for.

Theory of operation. Submissions that a server joins to one job share its handle. The server sends each report once for
each of them, one copy right after the other, and no copy says which submission it is for. So a handle stands for a list
of submissions, and copies go to them in turn.

A handle is in one of three states:

- unknown: no ``JOB_CREATED`` has told it. A report may overtake the ``JOB_CREATED`` that says whose it is. So it is
  kept while submissions await their answers (`ReportMatcher.keep`), and dropped once all that did when it came have
  them.
- open: `ReportMatcher.created` has told at least one submission. `ReportMatcher.piece` hands out copies in turn.
- ended: `ReportMatcher.end` has returned all its submissions, at the first copy of the end, as one copy tells it all.
  The other copies are still to come, and `ReportMatcher.repeated` knows them: without it they could be taken for an
  early report on a new job.

Answers come in the order of the submissions, so that two counters say what is open. No submission is returned by `end`
or `lose` twice, and none that was created is ever left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["ReportMatcher"]

_S = TypeVar("_S")
_R = TypeVar("_R")


class _Sharers(Generic[_S]):
    """The submissions that share one job.

    Attributes:
        submissions: the submissions, in the order in which they joined the job.
        turn: how many copies of reports have come.
    """

    __slots__ = ("submissions", "turn")

    def __init__(self) -> None:
        self.submissions: list[_S] = []
        self.turn = 0

    def next(self) -> _S:
        """Return whose copy comes now."""
        submission = self.submissions[self.turn % len(self.submissions)]
        self.turn += 1
        return submission


class _Early(Generic[_R]):
    """Reports on a handle that no ``JOB_CREATED`` has told yet.

    Attributes:
        reports: the reports, in their order.
        size: how many bytes they are.
        until: number of the newest submission at the last report: once it is answered, nobody takes these.
    """

    __slots__ = ("reports", "size", "until")

    def __init__(self) -> None:
        self.reports: list[_R] = []
        self.size = 0
        self.until = 0  # number of the newest submission at the last report: once it is answered, nobody takes these

    def take(self, is_end: Callable[[_R], bool]) -> list[_R]:
        """Take one copy of each report, up to the end of the job.

        There are as many copies of the end as submissions share the job: each of them takes its own. Where those that
        joined late have no copies of the first reports, copies cannot be told from repetitions; the first to come
        then takes all up to the first end.
        """
        reports = self.reports
        ends = [index for index, report in enumerate(reports) if is_end(report)]
        copies, size = len(ends), ends[0] + 1 if ends else len(reports)
        if copies > 1 and all(report == reports[index - index % copies] for index, report in enumerate(reports)):
            self.reports = [report for index, report in enumerate(reports) if index % copies]
            return reports[:size:copies]
        self.reports = reports[size:]
        return reports[:size]


class ReportMatcher(Generic[_S, _R]):
    """Matches the reports of one connection with the submissions that they are for.

    Only foreground submissions count: servers report on no others.

    Attributes:
        early_size: bytes of the reports that are kept; the caller of `keep` limits it.
    """

    __slots__ = ("_answered", "_early", "_is_end", "_jobs", "_repeated", "_submitted", "early_size")

    def __init__(self, is_end: Callable[[_R], bool]) -> None:
        """Begin without submissions.

        Args:
            is_end: tells whether a report ends its job.
        """
        self.early_size = 0
        self._is_end = is_end
        self._submitted = 0  # submissions ever
        self._answered = 0  # how many of them are answered; they are the oldest
        self._jobs: dict[bytes, _Sharers[_S]] = {}
        self._repeated: dict[bytes, int] = {}  # by handle: copies of an end that are still to come
        self._early: dict[bytes, _Early[_R]] = {}

    @property
    def awaiting(self) -> bool:
        """Whether a submission awaits its answer, so that a report on an unknown handle may be for it."""
        return self._submitted > self._answered

    def submitted(self) -> None:
        """Count a submission; `created` or `refused` has to follow, or `lose`."""
        self._submitted += 1

    def created(self, handle: bytes, submission: _S) -> Sequence[_R]:
        """Give the oldest submission that awaits its answer a handle (``JOB_CREATED``).

        Returns:
            The reports that have come for it before, in their order; an end is the last. Match them now.
        """
        if (sharers := self._jobs.get(handle)) is None:
            sharers = self._jobs[handle] = _Sharers()
        sharers.submissions.append(submission)
        early = self._early.get(handle)
        reports = () if early is None else early.take(self._is_end)
        self._count_answer()
        return reports

    def refused(self) -> None:
        """Count the oldest submission that awaits its answer as answered: it gets no handle (``ERROR``)."""
        self._count_answer()

    def _count_answer(self) -> None:
        self._answered += 1
        if self._submitted == self._answered:
            # Copies that match nothing are dropped anyway, and some servers send one copy only.
            self._repeated.clear()
        if self._early:
            for handle in [handle for handle, early in self._early.items() if early.until <= self._answered]:
                self.early_size -= self._early.pop(handle).size

    def piece(self, handle: bytes) -> _S | None:
        """Return the submission that a report other than an end is for; None if its handle is not open."""
        sharers = self._jobs.get(handle)
        return None if sharers is None else sharers.next()

    def end(self, handle: bytes) -> Sequence[_S]:
        """Return the submissions that an end is for, all that share the job; empty if its handle is not open."""
        sharers = self._jobs.pop(handle, None)
        if sharers is None:
            return ()
        if len(sharers.submissions) > 1:
            self._repeated[handle] = len(sharers.submissions) - 1
        return sharers.submissions

    def repeated(self, handle: bytes) -> bool:
        """Take a copy of an end whose handle is not open; tell whether `end` has returned its submissions before."""
        copies = self._repeated.pop(handle, 0)
        if copies > 1:
            self._repeated[handle] = copies - 1
        return copies > 0

    def keep(self, handle: bytes, report: _R, size: int) -> None:
        """Keep a report on an unknown handle for a submission that is `awaiting` its answer.

        Args:
            handle: the handle.
            report: the report.
            size: what it adds to `early_size`, in bytes.
        """
        if (early := self._early.get(handle)) is None:
            early = self._early[handle] = _Early()
        early.reports.append(report)
        early.size += size
        early.until = self._submitted
        self.early_size += size

    def lose(self) -> list[tuple[bytes, _S]]:
        """Forget everything, as the connection has ended; return the submissions that are open, with their handles."""
        left = [(handle, submission) for handle, job in self._jobs.items() for submission in job.submissions]
        self._jobs.clear()
        self._repeated.clear()
        self._early.clear()
        self.early_size = 0
        self._answered = self._submitted
        return left
