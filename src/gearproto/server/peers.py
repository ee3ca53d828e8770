"""A peer as the server keeps it."""

from __future__ import annotations

from gearproto.framing import Decoder

from .answers import Answer
from .jobs import Job, PeerId, Worker

__all__ = ["Peer"]


class Peer(Worker):
    """One connection, which may be a client, a worker and an administrator at once.

    Attributes:
        decoder: cuts what it sends into packets and lines.
        address: its address, for ``workers``.
        descriptor: the number of its connection, for ``workers``.
        exceptions: whether it gets ``WORK_EXCEPTION`` (option ``exceptions``).
        reruns: whether it is told when a job that it waits for is given back (option ``reruns``).
        client_id: the name that it has given itself; empty if none.
        output: what is to be sent to it.
        output_size: how many bytes that are.
        waiting: the jobs that it waits for.
        cancelled: handles of cancelled jobs that it has yet to end.
        cancelled_most: the largest number of these so far, as a dict keeps the memory.
        input_size: bytes of its input that are not dealt with, when they were last counted.
        raised: handle of the job that it has last ended with ``WORK_EXCEPTION``, until its ``WORK_FAIL``; or None.
        answer: an answer that is not complete yet; None if there is none.
        has_sent_line: whether it has sent a text command.
        failed: whether it has broken the protocol, or was closed by a hook; nothing it sends counts any more.
        gone: whether its connection has ended.
    """

    __slots__ = (
        "address",
        "answer",
        "cancelled",
        "cancelled_most",
        "client_id",
        "decoder",
        "descriptor",
        "exceptions",
        "failed",
        "gone",
        "has_sent_line",
        "input_size",
        "output",
        "output_size",
        "raised",
        "reruns",
        "waiting",
    )

    def __init__(self, id_: PeerId, decoder: Decoder, address: bytes, descriptor: int, exceptions: bool) -> None:
        super().__init__(id_)
        self.decoder = decoder
        self.address = address
        self.descriptor = descriptor
        self.exceptions = exceptions
        self.reruns = False
        self.client_id = b""
        self.output: list[bytes] = []
        self.output_size = 0
        self.waiting: dict[Job, None] = {}
        self.cancelled: dict[bytes, None] = {}
        self.cancelled_most = 0
        self.input_size = 0
        self.raised: bytes | None = None
        self.answer: Answer | None = None
        self.has_sent_line = False
        self.failed = False
        self.gone = False
