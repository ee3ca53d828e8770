"""Outcomes: how a submitted job ended. Every foreground submission ends in exactly one of them."""

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
    """The worker failed, or the server gave the job up (``WORK_FAIL``)."""


@event
class Raised:
    """The job ended with an exception (``WORK_EXCEPTION``).

    Only arrives if the option ``exceptions`` is set; otherwise, servers send ``WORK_FAIL``.

    Attributes:
        data: the exception as the worker sent it.
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
    """No byte of the submission was sent to any server. It is safe to submit again.

    Attributes:
        cause: what prevented it, as text.
    """

    cause: str


@event
class Lost:
    """The connection ended after the submission was sent: the job may have run, be running, or never have arrived.

    Attributes:
        cause: why the connection ended, as text.
    """

    cause: str


Outcome = Completed | Failed | Raised | Rejected | NotSent | Lost
"""The closed union of all outcomes."""
