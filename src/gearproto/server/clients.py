"""What clients ask a server for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gearproto.codec import MAX_HANDLE_SIZE, MAX_NAME_SIZE, MAX_UNIQUE_SIZE, Packet
from gearproto.event import Event
from gearproto.packets import (
    SUBMISSIONS,
    EchoReq,
    EchoRes,
    GetStatus,
    GetStatusUnique,
    OptionReq,
    OptionRes,
    StatusRes,
    StatusResUnique,
    SubmitJobEpoch,
    SubmitJobSched,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)

from .clock import Clock
from .jobs import RUNNING, Job
from .lifecycle import Lifecycle
from .output import Output
from .peers import Peer
from .queue import JobQueue

__all__ = ["ClientRequests", "check_name"]

# What a submission comes to: its priority as a plain int, which indexes lists faster than an enum; whether it is a
# background job; and whether it has no arguments but function, unique and workload.
_SUBMISSIONS: Final = {
    cls: (int(priority), background, cls not in (SubmitJobEpoch, SubmitReduceJob, SubmitReduceJobBackground))
    for cls, (priority, background) in SUBMISSIONS.items()
}


class ClientRequests:
    """Serves the requests of clients.

    Attributes:
        handlers: what to call for each class of request.
    """

    def __init__(self, queue: JobQueue, output: Output, lifecycle: Lifecycle, clock: Clock) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue answers.
            lifecycle: takes submissions.
            clock: the time.
        """
        self._queue = queue
        self._output = output
        self._send = output.send
        self._send_error = output.send_error
        self._submit = lifecycle.submit
        self._clock = clock
        self.handlers: dict[type[Event], Callable[[Peer, Any], None]] = {
            GetStatus: self._on_get_status,
            GetStatusUnique: self._on_get_status_unique,
            EchoReq: self._on_echo_req,
            OptionReq: self._on_option_req,
            SubmitJobSched: self._on_submit_job_sched,
            **dict.fromkeys(SUBMISSIONS, self._on_submit),
        }

    def _on_submit(self, peer: Peer, packet: Any) -> None:
        priority, background, plain = _SUBMISSIONS[type(packet)]
        name, unique = packet.function, packet.unique
        if not name or len(name) > MAX_NAME_SIZE:
            check_name(self._output, peer, packet, name)
            return
        reducer, due = b"", None
        if not plain:
            if type(packet) is SubmitJobEpoch:
                due = self._due(packet.run_at)
            else:
                reducer = packet.reducer
        if (unique and len(unique) > MAX_UNIQUE_SIZE) or (reducer and len(reducer) > MAX_UNIQUE_SIZE):
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        self._submit(peer, name, unique, packet.workload, priority, background, reducer, due)

    def _due(self, run_at: int) -> float | None:
        """Return when a job is to be run, in seconds since 1970; None if that has passed."""
        return run_at if run_at - self._clock.epoch_offset > self._clock.now else None

    def _on_submit_job_sched(self, peer: Peer, _packet: SubmitJobSched) -> None:
        self._send_error(peer, b"INVALID_COMMAND", b"Command not expected")

    def _on_get_status(self, peer: Peer, packet: GetStatus) -> None:
        handle = packet.handle
        if len(handle) > MAX_HANDLE_SIZE:
            text = f"GET_STATUS: handle of {len(handle)} bytes, limit {MAX_HANDLE_SIZE}"
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
            return
        status = _status(self._queue.jobs.get(handle))
        self._send(peer, StatusRes(handle, *status).encode())

    def _on_get_status_unique(self, peer: Peer, packet: GetStatusUnique) -> None:
        unique = packet.unique
        if len(unique) > MAX_UNIQUE_SIZE:
            text = f"GET_STATUS_UNIQUE: unique of {len(unique)} bytes, limit {MAX_UNIQUE_SIZE}"
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
            return
        job = self._queue.find_unique(unique) if unique else None
        clients = len(job.clients) if job is not None and job.clients else 0
        self._send(peer, StatusResUnique(unique, *_status(job), clients).encode())

    def _on_echo_req(self, peer: Peer, packet: EchoReq) -> None:
        self._send(peer, EchoRes(packet.data).encode())

    def _on_option_req(self, peer: Peer, packet: OptionReq) -> None:
        option = packet.option.lower()
        if option == b"exceptions":
            peer.exceptions = True
        elif option == b"reruns":
            peer.reruns = True
        else:
            self._send_error(peer, b"UNKNOWN_OPTION", b"Server does not recognize given option")
            return
        self._send(peer, OptionRes(packet.option).encode())


def check_name(output: Output, peer: Peer, packet: Packet, name: bytes) -> bool:
    """Refuse a function name that is empty or too long; return whether it is neither."""
    if not name:
        output.send_error(peer, b"INVALID_ARGUMENTS", f"{packet.spec.name}: empty function name".encode())
    elif len(name) > MAX_NAME_SIZE:
        text = f"{packet.spec.name}: function name of {len(name)} bytes, limit {MAX_NAME_SIZE}"
        output.send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
    else:
        return True
    return False


def _status(job: Job | None) -> tuple[bool, bool, int, int]:
    """Return what a status query tells of a job: known, running, numerator, denominator."""
    if job is None:
        return False, False, 0, 0
    return True, job.state is RUNNING, *job.progress
