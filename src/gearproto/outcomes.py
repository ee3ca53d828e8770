"""Outcomes: how a submitted job ended. Every submission that somebody waits for ends in exactly one of them."""

from __future__ import annotations

from .event import event

__all__ = ["Completed", "Failed", "Lost", "NotSent", "Outcome", "Raised", "Rejected"]


@event
class Completed:
    """The job is done (``WORK_COMPLETE``).

    Attributes:
        data: its result. Pieces sent before as ``WORK_DATA`` are not repeated in it.
    """

    data: bytes


@event
class Failed:
    """The worker, or the server in its place, gave the job up (``WORK_FAIL``)."""


@event
class Raised:
    """The job ended with an exception (``WORK_EXCEPTION``).

    Comes only where the option ``exceptions`` is set; servers send ``WORK_FAIL`` otherwise.

    Attributes:
        data: the exception as the worker put it.
    """

    data: bytes


@event
class Rejected:
    """The server refused the submission (``ERROR``). The job does not exist.

    Attributes:
        code: the server's code, such as ``QUEUE_ERROR``.
        text: the server's explanation.
    """

    code: bytes
    text: bytes


@event
class NotSent:
    """No byte of the submission left for any server. It is safe to submit again.

    Attributes:
        cause: what prevented it, for people.
    """

    cause: str


@event
class Lost:
    """The connection went after the submission had left: the job may have run, be running, or never have arrived.

    Attributes:
        cause: why the connection went, for people.
    """

    cause: str


Outcome = Completed | Failed | Raised | Rejected | NotSent | Lost
"""The closed union of all outcomes."""
