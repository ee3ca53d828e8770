"""Jobs as they end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from gearproto.client import JobRecord, record_of

from .client_servers import ClientServers, seconds_left
from .job import Job

__all__ = ["as_completed"]

_R = TypeVar("_R")


def as_completed(
    servers: ClientServers, jobs: dict[Job[_R], int], until: float, timeout: float | None
) -> Iterator[Job[_R]]:
    """Yield jobs as they end.

    Args:
        servers: those of the jobs' client.
        jobs: the jobs, and how often to yield each.
        until: monotonic time in seconds at which the time is up.
        timeout: the same as the caller said it, for the message.

    Raises:
        TimeoutError: the time has passed.
    """
    left = {record_of(job): (job, count) for job, count in jobs.items()}
    ended: deque[JobRecord] = deque()
    pump = servers.pump
    late = f"jobs have not ended within {timeout:g} s; they have not been cancelled" if timeout is not None else ""
    try:
        with pump.gate, pump.lock:
            for record in left:
                record.watch(ended.append)
        while left:
            if not pump.wait(lambda: bool(ended or servers.retryable or servers.stuck(left)), seconds_left(until)):
                servers.check_open()
                raise TimeoutError(f"{len(left)} {late}")
            while ended:  # first: a job that is submitted again may have to wait for its server
                job, count = left.pop(ended.popleft())
                yield from [job] * count
            with pump.gate, pump.lock:
                if (stuck := servers.stuck(left)) is not None:
                    stuck.check_progress()
            for record in list(servers.retryable):
                servers.retry(record, until)
            if left and not ended and time.monotonic() >= until:
                raise TimeoutError(f"{len(left)} {late}")
    finally:
        for record in left:
            record.unwatch(ended.append)
