"""Requests of the text protocol for administrators, with their answers as they came."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from .text import convert_to_bytes

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "AdminRequest",
    "CancelJobAdminRequest",
    "ServerAdminRequest",
    "ShowJobsAdminRequest",
    "ShowUniqueJobsAdminRequest",
    "StatusAdminRequest",
    "VersionAdminRequest",
    "WorkersAdminRequest",
]

_DOTS: Final = (b".\n", b".\r\n")
_ERRORS: Final = b"ERR "


class AdminRequest:
    """A text command, to be sent with `Connection.sendAdminRequest`. Use one of the subclasses, or make your own.

    Attributes:
        command: what it begins with.
        arguments: the words behind that.
        response: the answer with its line endings; None until it is complete.
        error: why there will be no answer; None if there is one, or may be.
        wait_event: set once there is nothing to wait for any more.
    """

    command: bytes | None = None

    def __init__(self, *arguments: bytes) -> None:
        """Make a request that has not been sent.

        Raises:
            NotImplementedError: the class says of no command how its answer ends.
        """
        if type(self).isComplete is AdminRequest.isComplete:
            raise NotImplementedError(f"{type(self).__name__} does not say how its answer ends")
        self.arguments = arguments
        self.response: bytes | None = None
        self.error: str | None = None
        self.wait_event = threading.Event()
        self._lines = bytearray()

    def __repr__(self) -> str:
        return f"<gear.AdminRequest 0x{id(self):x} command: {self.command!r}>"

    def getCommand(self) -> bytes:
        """Return the line to send."""
        return b" ".join((self.command or b"", *self.arguments)) + b"\n"

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        """Tell whether an answer is complete.

        Args:
            data: all bytes that have come since the command was sent.

        Returns:
            True and what follows the answer, or False and None. If it is complete, `response` is set.
        """
        raise NotImplementedError

    def receive(self, line: bytes) -> bool:
        """Take one more line of the answer; return whether it is complete."""
        self._lines += line
        complete, _rest = self.isComplete(bytes(self._lines))
        if complete:
            self._lines.clear()
        return complete

    @property
    def received_size(self) -> int:
        """How many bytes of the answer have come."""
        return len(self._lines)

    def setComplete(self) -> None:
        """Wake the threads that wait for the answer."""
        self.wait_event.set()

    def waitForResponse(self, timeout: float | None = None) -> bool:
        """Wait for the answer.

        Args:
            timeout: longest time in seconds; None for no limit.

        Returns:
            Whether there is nothing to wait for any more.
        """
        return self.wait_event.wait(timeout)

    def fail(self, error: str) -> None:
        """End the request without an answer."""
        self.error = error
        self.setComplete()


class _LineAdminRequest(AdminRequest):
    """A request whose answer is one line."""

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        """Tell whether an answer is complete: it ends with the first line."""
        line, newline, rest = data.partition(b"\n")
        if not newline:
            return False, None
        self.response = line + newline
        return True, rest


class _RowsAdminRequest(AdminRequest):
    """A request whose answer is lines up to one that holds only a dot, or one line with an error."""

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        """Tell whether an answer is complete: it ends with a dot on a line of its own, or is an error."""
        start = 0
        while end := data.find(b"\n", start) + 1:
            if data[start:end] in _DOTS or (not start and data.startswith(_ERRORS)):
                self.response = data[:end]
                return True, data[end:]
            start = end
        return False, None

    def receive(self, line: bytes) -> bool:
        first = not self._lines
        self._lines += line
        if line not in _DOTS and not (first and line.startswith(_ERRORS)):
            return False  # spares a look at all lines for each of them
        self.response = bytes(self._lines)
        self._lines.clear()
        return True


class StatusAdminRequest(_RowsAdminRequest):
    """Asks for every function with its jobs and workers (``status``)."""

    command = b"status"

    def __init__(self) -> None:
        """Make the request."""
        super().__init__()


class ShowJobsAdminRequest(_RowsAdminRequest):
    """Asks for every job (``show jobs``)."""

    command = b"show jobs"

    def __init__(self) -> None:
        """Make the request."""
        super().__init__()


class ShowUniqueJobsAdminRequest(_RowsAdminRequest):
    """Asks for the unique id of every job (``show unique jobs``)."""

    command = b"show unique jobs"

    def __init__(self) -> None:
        """Make the request."""
        super().__init__()


class WorkersAdminRequest(_RowsAdminRequest):
    """Asks for every connection with its functions (``workers``)."""

    command = b"workers"

    def __init__(self) -> None:
        """Make the request."""
        super().__init__()


class CancelJobAdminRequest(_LineAdminRequest):
    """Cancels a queued job (``cancel job``)."""

    command = b"cancel job"

    def __init__(self, handle: str | bytes) -> None:
        """Make the request for a job handle."""
        super().__init__(convert_to_bytes(handle))


class VersionAdminRequest(_LineAdminRequest):
    """Asks for the server's version (``version``)."""

    command = b"version"

    def __init__(self) -> None:
        """Make the request."""
        super().__init__()


class ServerAdminRequest(AdminRequest):
    """A text command as a server receives it.

    Attributes:
        command: the line without its ending.
        connection: who sent it.
    """

    def __init__(self, connection: Connection) -> None:
        """Make a request that has not come yet."""
        super().__init__()
        self.connection = connection

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        """Tell whether a command is complete: it ends with the first newline."""
        line, newline, rest = data.partition(b"\n")
        if not newline:
            return False, None
        self.command = line
        return True, rest
