"""The exceptions of all packages."""

from __future__ import annotations

__all__ = [
    "AlreadyClosed",
    "ConnectionLost",
    "GearmanError",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobNotSent",
    "JobRaised",
    "JobRejected",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "StreamBlocked",
]


class GearmanError(Exception):
    """Base of all exceptions that these packages raise on purpose."""


class ProtocolError(GearmanError):
    """The caller or the peer broke the protocol; see the two subclasses."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol does not allow, or does not allow now.

    The object is as it was before the call, and nothing was queued.
    """


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. This is final: the connection has to be closed.

    Attributes:
        code: the code of the ``ERROR`` packet that a server still sends, with the message as its text; None for none.
    """

    def __init__(self, message: str, *, code: bytes | None = None) -> None:
        """Store the message and the code."""
        super().__init__(message)
        self.code = code


class ConnectionLost(GearmanError):
    """The connection to the server was lost before it answered a request that is not a submission."""


class AlreadyClosed(GearmanError):
    """The client, worker or server was closed before the call, or its run is over: make another one."""


class StreamBlocked(GearmanError):
    """The answer cannot arrive: streaming jobs hold so much unread data that their connection is not read.

    The call can be repeated once the events of these jobs have been read, or the iterations over them have been left.
    Jobs are not affected.
    """


class ServerError(GearmanError):
    """The server answered a request with an error.

    Attributes:
        code: the server's code, such as ``UNKNOWN_OPTION``.
        text: the server's explanation; may be empty.
    """

    def __init__(self, code: bytes, text: bytes = b"") -> None:
        """Build the message from code and text."""
        super().__init__(_readable(code, text))
        self.code = code
        self.text = text


class JobError(GearmanError):
    """A job ended without ``WORK_COMPLETE``; each of the other outcomes has its own subclass."""


class JobFailed(JobError):
    """The job ended with ``WORK_FAIL``. A worker's function may raise it to report a failure."""


class JobRaised(JobError):
    """The job ended with ``WORK_EXCEPTION``.

    Attributes:
        data: the exception as the worker sent it.
    """

    def __init__(self, data: bytes) -> None:
        """Use the data, as far as it is text, as the message."""
        super().__init__(data.decode("utf-8", "backslashreplace"))
        self.data = data


class JobRejected(JobError, ServerError):
    """The server refused the submission with ``ERROR``: the job does not exist."""


class JobNotSent(JobError):
    """No byte of the submission was sent to any server: it is safe to submit again."""


class JobLost(JobError, ConnectionLost):
    """The connection ended after the submission was sent: the client cannot know whether the job ran."""


def _readable(code: bytes, text: bytes) -> str:
    return ": ".join(part.decode("utf-8", "backslashreplace") for part in (code, text) if part)
