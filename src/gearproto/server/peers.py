"""A peer as the server keeps it."""

from __future__ import annotations

from gearproto.framing import Decoder

from .answers import Answer
from .jobs import Job, PeerId, Worker

__all__ = ["Peer"]


class Peer(Worker):
    """One connection, which may be a client, a worker and an administrator at once."""

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
        self.reruns = False  # whether it wants to know when a job that it waits for is given back
        self.client_id = b""
        self.output: list[bytes] = []
        self.output_size = 0
        self.waiting: dict[Job, None] = {}  # the jobs that it waits for
        self.cancelled: dict[bytes, None] = {}  # cancelled jobs that it has yet to end
        self.cancelled_most = 0  # the maximum number of these so far
        self.input_size = 0  # bytes that wait, at the last count
        self.raised: bytes | None = None  # the job that it has just ended with WORK_EXCEPTION
        self.answer: Answer | None = None  # one that is not complete yet
        self.has_sent_line = False
        self.failed = False
        self.gone = False
