"""What workers report on their jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gearproto.codec import (
    MAX_GROWTH,
    MAX_HANDLE_SIZE,
    PACKETS,
    MalformedArgumentsError,
    Packet,
    Route,
    Spec,
    decoders,
    read_number,
    split_arguments,
)
from gearproto.event import Event, event
from gearproto.packets import (
    SUBMISSIONS,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .lifecycle import Lifecycle
from .output import Output
from .peers import Peer
from .queue import JobQueue
from .relay import Relay

__all__ = ["Report", "Reports", "server_decoders"]

_NUL: Final = b"\0"
_NOT_FOUND: Final[dict[type[Packet], bytes]] = {
    **dict.fromkeys((WorkStatus, WorkComplete, WorkFail), b"Job given in work result not found"),
    **dict.fromkeys((WorkData, WorkWarning), b"Job does not exist on server"),
    WorkException: b"An exception was received for a job that does not exist",
}
_HANDLE_TOO_LARGE: Final = b"Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf"
_ENDS: Final = frozenset((WorkComplete, WorkFail, WorkException))


@event
class Report(Event):
    """A report of a worker as a server sees it: ``WORK_STATUS``, ``WORK_DATA`` and so on, ready to be passed on.

    Attributes:
        packet: class of the packet.
        handle: the job it is about.
        body: all bytes behind the header, to be forwarded as they are.
    """

    packet: type[Packet]
    handle: bytes
    body: bytes

    @property
    def data(self) -> bytes:
        """What follows the handle."""
        return self.body[len(self.handle) + 1 :]

    @property
    def progress(self) -> tuple[int, int]:
        """Numerator and denominator of a ``WORK_STATUS``."""
        numerator, denominator = map(read_number, split_arguments(self.data, 2, False))
        return numerator, denominator


def server_decoders() -> dict[bytes, Spec]:
    """Return the specs for the decoder of a server; see `decoders`.

    Reports are decoded to `Report`, and submissions count with the size of their assignments.
    """
    table = decoders(Route.TO_SERVER)
    for cls in PACKETS.values():
        spec = cls.spec
        if cls in SUBMISSIONS:
            table[spec.key] = replace(spec, growth=MAX_GROWTH)
        elif cls in _NOT_FOUND:
            table[spec.key] = replace(spec, decode=_report_decoder(cls), make=None)
    return table


def _report_decoder(cls: type[Packet]) -> Callable[[bytes], Event]:
    """Prepare what a server does with a report: find the handle, look at the rest only as far as it is checked."""
    arguments = cls.spec.arguments
    if arguments[-1][2].payload:

        def decode(body: bytes) -> Event:
            end = body.find(0)
            if end < 0:  # Perl's worker leaves out the NUL if there is no data
                return Report(cls, body, body + _NUL)
            return Report(cls, body[:end], body)

        return decode
    if len(arguments) == 1:

        def decode_handle(body: bytes) -> Event:
            (handle,) = split_arguments(body, 1, False)
            return Report(cls, handle, handle)

        return decode_handle

    def decode_numbers(body: bytes) -> Event:
        handle, *numbers = split_arguments(body, len(arguments), False)
        for raw, (_name, _kind, rule) in zip(numbers, arguments[1:], strict=True):
            if read_number(raw) < 0 and not rule.negative:
                raise MalformedArgumentsError(f"{raw!r} is negative")
        return Report(cls, handle, body)

    return decode_numbers


class Reports:
    """Does what reports say."""

    __slots__ = ("_lifecycle", "_output", "_queue", "_relay")

    def __init__(self, queue: JobQueue, output: Output, relay: Relay, lifecycle: Lifecycle) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue what workers get.
            relay: passes reports on.
            lifecycle: ends jobs.
        """
        self._queue = queue
        self._output = output
        self._relay = relay
        self._lifecycle = lifecycle

    def on_report(self, peer: Peer, report: Report) -> None:
        """Do what a report says, if the peer holds the job."""
        job = self._queue.jobs.get(report.handle)
        kind = report.packet
        if job is None or job.worker is not peer:
            self._on_stray_report(peer, report)
            return
        if kind is WorkException:
            self._relay.pass_exception_on(job, report.body)
            peer.raised = job.handle
        elif job.clients:
            self._relay.pass_on(job.clients, kind, report.body)
        if kind in _ENDS:
            self._lifecycle.end(job, peer.id)
        elif kind is WorkStatus:
            job.progress = report.progress

    def _on_stray_report(self, peer: Peer, report: Report) -> None:
        """Answer a report on a job that the peer does not hold, unless it may well believe that it does."""
        if report.handle in peer.cancelled:
            if report.packet in _ENDS:
                del peer.cancelled[report.handle]
                if report.packet is WorkException:
                    peer.raised = report.handle
        elif report.packet is WorkFail and report.handle == peer.raised:
            peer.raised = None  # some workers send it after WORK_EXCEPTION, and break at an ERROR
        elif report.packet is WorkFail and len(report.handle) > MAX_HANDLE_SIZE:
            self._output.send_error(peer, b"ARGUMENT_TOO_LARGE", _HANDLE_TOO_LARGE)
        else:
            self._output.send_error(peer, b"JOB_NOT_FOUND", _NOT_FOUND[report.packet])
