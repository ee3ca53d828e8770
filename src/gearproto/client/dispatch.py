"""Decides which jobs go to which server next, and what happens to jobs for which no server is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from gearproto.addresses import Address
from gearproto.connection import encoded
from gearproto.errors import ConnectionLost, LocalProtocolError, ServerError
from gearproto.events import StatusReceived
from gearproto.framing import DEFAULT_MAX_PACKET_SIZE
from gearproto.options import DEFAULT_MAX_OUTPUT_SIZE, ConnectionOptions
from gearproto.outcomes import NotSent

from .jobs import JobRecord
from .policies import ServerChooser, Try, WaitUntil

__all__ = ["NO_ANSWER", "Dispatch", "check_submissions", "status_of_all", "unreachable"]

NO_ANSWER: Final = (ConnectionLost, ServerError, TimeoutError)
"""What a query raises that a server has not answered, or has refused."""

_R = TypeVar("_R", bound=JobRecord)


def unreachable(failures: Iterable[tuple[Address, OSError]]) -> str:
    """Say why no server could be reached: none failed if the time was up before one could be tried."""
    text = "; ".join(f"{address}: {error.strerror or error}" for address, error in failures)
    return f"no server could be reached: {text or 'the time was up before one could be tried'}"


def status_of_all(answers: Sequence[StatusReceived | Exception]) -> StatusReceived:
    """Combine what several servers know of a job.

    Args:
        answers: what they answered, or why they did not, which is one of `NO_ANSWER`. Servers that were not waited for
            once another one knew the job may be left out, or among those that did not answer.

    Raises:
        ConnectionLost, ServerError, TimeoutError: none knows it, but the first that did not answer might.
    """
    unknown = [answer for answer in answers if isinstance(answer, StatusReceived)]
    for status in unknown:
        if status.known:
            return status
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return unknown[0]


def check_submissions(jobs: Iterable[JobRecord], options: ConnectionOptions) -> None:
    """Refuse jobs for several servers if one of them breaks a rule, before any server has received its share.

    Args:
        jobs: jobs that are not submitted yet.
        options: the options of the connections that they are meant for.

    Raises:
        LocalProtocolError: one breaks a rule, or all together are over the limit for output.
    """
    most = options.get("max_packet_size", DEFAULT_MAX_PACKET_SIZE)
    packets = (job.packet for job in jobs if job.packet is not None)
    size, limit = (
        sum(len(encoded(packet, most)) for packet in packets),
        options.get("max_output_size", DEFAULT_MAX_OUTPUT_SIZE),
    )
    if size > limit:
        raise LocalProtocolError(f"client: submissions of {size} bytes, limit {limit}")


class Dispatch(Generic[_R]):
    """Jobs that are to be submitted, and the servers that were tried for them.

    Call `plan`, try the servers that it returns, and call `failed` for those that failed, until nothing is `left`.

    Attributes:
        left: the jobs that are not submitted yet.
        retry_at: the monotonic time until which to wait before the next `plan`, if that named no server.
    """

    def __init__(
        self,
        jobs: Iterable[_R],
        chooser: ServerChooser,
        connect_timeout: float,
        failures: Iterable[tuple[Address, OSError]] = (),
    ) -> None:
        """Begin with jobs that have not been submitted.

        Args:
            jobs: the jobs.
            chooser: chooses among the servers.
            connect_timeout: seconds to wait for a server that failed lately, if no other can be tried. Jobs that
                are submitted again look for a server for longer, see `JobRecord.search_until`.
            failures: why servers failed before; told of where none is tried any more.
        """
        self.left = list(jobs)
        self.retry_at = 0.0
        self._chooser = chooser
        self._connect_timeout = connect_timeout
        self._failures: dict[Address, OSError] = {}
        self._failed_before = failures

    def plan(self, now: float) -> dict[int, list[_R]]:
        """Return the indexes of the servers to try now, with the jobs for each; these are no longer `left`.

        Jobs for which there is no server end as `NotSent`. Jobs that have ended meanwhile are dropped.

        Args:
            now: monotonic time in seconds.
        """
        groups: dict[int, list[_R]] = {}
        waiting: list[_R] = []
        for job in self.left:
            if job.outcome is not None:
                continue
            match self._next(job, now):
                case Try(index):
                    groups.setdefault(index, []).append(job)
                case WaitUntil(when):
                    self.retry_at = min(when, self.retry_at) if waiting else when
                    waiting.append(job)
                case _:
                    job.end(self._not_sent())
        self.left = waiting
        return groups

    def _next(self, job: _R, now: float) -> Try | WaitUntil | None:
        step = job.candidates.next(now, max(now + self._connect_timeout, job.search_until))
        if step is None and now < job.search_until:
            job.candidates = self._chooser.candidates(job.unique)  # each server may be tried again
            step = job.candidates.next(now, job.search_until)
        return step

    def failed(self, address: Address, error: OSError | None, jobs: Iterable[_R]) -> None:
        """Take jobs back whose server could not be reached.

        Args:
            address: the server.
            error: why, if known.
            jobs: the jobs.
        """
        if error is not None:
            self._failures[address] = error
        self.left += jobs

    def stop(self) -> list[_R]:
        """Stop, and mark the jobs that are left as retryable; return them."""
        stopped, self.left = self.left, []
        for job in stopped:
            job.candidates = self._chooser.candidates(job.unique)
            job.mark_retryable(self._not_sent())
        return stopped

    def _not_sent(self) -> NotSent:
        return NotSent(unreachable(self._failures.items() or self._failed_before))
