"""Jobs, as clients, workers and servers see them, in plain, text and binary kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from . import constants
from .errors import DisconnectError
from .packet import Packet
from .text import TextList, convert_to_bytes, decode, encode

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "BaseBinaryJob",
    "BaseJob",
    "BinaryJob",
    "BinaryWorkerJob",
    "FunctionRecord",
    "Job",
    "ServerJob",
    "TextJob",
    "TextJobArguments",
    "TextJobUnique",
    "TextWorkerJob",
    "WorkerJob",
]


class FunctionRecord:
    """A function that a worker can run.

    Attributes:
        name: its name.
        timeout: how long a job may take, in the unit of job servers, milliseconds; None for as long as it likes.
    """

    def __init__(self, name: str | bytes, timeout: float | str | bytes | None = None) -> None:
        """Make a record."""
        self.name = name
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<gear.FunctionRecord 0x{id(self):x} name: {self.name!s} timeout: {self.timeout!s}>"


class BaseJob:
    """What all jobs have.

    Attributes:
        handle: the server's name for the job; None until it is known.
        connection: the connection that the job belongs to; None until it has one.
    """

    def __init__(
        self,
        name: str | bytes,
        arguments: Any,
        unique: str | bytes | None = None,
        handle: bytes | None = None,
    ) -> None:
        """Make a job.

        Raises:
            TypeError: the arguments are not of the kind that the class takes.
        """
        self._name = convert_to_bytes(name)
        self._arguments = self._validate_arguments(arguments)
        self._unique = convert_to_bytes(unique)
        self.handle = handle
        self.connection: Connection | None = None

    def _validate_arguments(self, arguments: object) -> bytes | bytearray:
        if not isinstance(arguments, bytes | bytearray):
            raise TypeError(f"job arguments must be bytes, not {type(arguments).__name__}")
        return arguments

    def __repr__(self) -> str:
        return f"<gear.Job 0x{id(self):x} handle: {self.handle!r} name: {self.name!s} unique: {self.unique!s}>"

    @property
    def name(self) -> str:
        """The function's name."""
        return decode(self._name)

    @name.setter
    def name(self, value: str | bytes) -> None:
        self._name = convert_to_bytes(value)

    @property
    def arguments(self) -> bytes:
        """What to work on."""
        return cast("bytes", self._arguments)

    @arguments.setter
    def arguments(self, value: bytes) -> None:
        self._arguments = value

    @property
    def unique(self) -> bytes | None:
        """The submitter's own name for the job; None if it has none."""
        return self._unique

    @unique.setter
    def unique(self, value: str | bytes | None) -> None:
        self._unique = convert_to_bytes(value)

    @property
    def binary_name(self) -> bytes:
        """The function's name as it goes over the wire."""
        return self._name

    @property
    def binary_arguments(self) -> bytes | bytearray:
        """What to work on as it goes over the wire."""
        return self._arguments

    @property
    def binary_unique(self) -> bytes | None:
        """The unique as it goes over the wire."""
        return self._unique


def _encoded(value: Any) -> bytes:
    """Return text as bytes; what is neither text nor bytes raises ``AttributeError``."""
    return value if isinstance(value, bytes) else cast("bytes", value.encode("utf-8", "surrogateescape"))


class TextJobArguments:
    """Makes the arguments of a job text."""

    _arguments: bytes | bytearray

    def _validate_arguments(self, arguments: object) -> bytes | bytearray:
        return cast("bytes", convert_to_bytes(arguments))

    @property
    def arguments(self) -> str:
        """What to work on, as text."""
        return decode(self._arguments)

    @arguments.setter
    def arguments(self, value: str | bytes) -> None:
        self._arguments = _encoded(value)


class TextJobUnique:
    """Makes the unique of a job text."""

    _unique: bytes | None

    @property
    def unique(self) -> str | None:
        """The submitter's own name for the job, as text; None if it has none."""
        return None if self._unique is None else decode(self._unique)

    @unique.setter
    def unique(self, value: str | bytes) -> None:
        self._unique = _encoded(value)


class BaseBinaryJob:
    """Makes the name of a job bytes."""

    _name: bytes

    @property
    def name(self) -> bytes:
        """The function's name, as bytes; cannot be set."""
        return self._name


class Job(BaseJob):
    """A job to submit with `Client.submitJob`, which is then kept up to date.

    Attributes:
        exception: what the worker sent as ``WORK_EXCEPTION``; None if it did not.
        warning: whether there was a ``WORK_WARNING``.
        complete: whether the job has ended, in whatever way; also if its server was lost.
        failure: whether it has ended without a result.
        numerator: progress as the worker told it, in bytes; None until it does.
        denominator: what the progress is to be divided by.
        fraction_complete: how much of the job is done, between 0 and 1, as last reported; None if that is unknown.
        known: whether the server had the job when it was last asked; None if it was not.
        running: whether a worker had it then.
    """

    data_type: ClassVar[type[list[Any]]] = list
    _exception: Any = None
    warning = False
    complete = False
    failure = False
    numerator: bytes | None = None
    denominator: bytes | None = None
    fraction_complete: float | None = None
    known: bool | None = None
    running: bool | None = None

    def __init__(self, name: str | bytes, arguments: Any, unique: str | bytes | None = None) -> None:
        """Make a job that has not been submitted.

        Args:
            name: the function that is to run.
            arguments: what it is to work on: bytes.
            unique: a name of your own for the job; the server joins jobs of one function that have the same.
        """
        super().__init__(name, arguments, unique)
        self._data: list[Any] = self.data_type()

    @property
    def data(self) -> list[Any]:
        """What the worker has sent so far: data, warnings and the result, in their order."""
        return self._data

    @data.setter
    def data(self, value: list[Any]) -> None:
        if not isinstance(value, self.data_type):
            raise ValueError(f"job data must be of type {self.data_type.__name__}, not {type(value).__name__}")
        self._data = value

    @property
    def binary_data(self) -> Iterator[bytes]:
        """What the worker has sent so far, each piece as bytes."""
        return (cast("bytes", convert_to_bytes(piece)) for piece in self._data)

    @property
    def exception(self) -> Any:
        """What the worker sent as ``WORK_EXCEPTION``."""
        return self._exception

    @exception.setter
    def exception(self, value: Any) -> None:
        self._exception = value

    def lose(self) -> None:
        """Record that the server was lost before the job had ended."""
        self.failure = True
        self.complete = True


class WorkerJob(BaseJob):
    """A job that a worker has been given, and reports on."""

    handle: bytes

    def __init__(self, handle: bytes, name: str | bytes, arguments: Any, unique: str | bytes | None = None) -> None:
        """Make the job out of what the server says of it."""
        super().__init__(name, arguments, unique, handle)
        self._session: object | None = None  # what `connection` was connected through when the job came

    def assign(self, connection: Connection) -> None:
        """Record the connection that the job came over; reports go there, and nowhere else."""
        self.connection = connection
        self._session = connection.session

    def _report(self, ptype: int, *arguments: bytes) -> None:
        packet = Packet(constants.REQ, ptype, b"\0".join((self.handle, *arguments)))
        if self.connection is None:
            raise DisconnectError(f"job {self.handle!r} came over no connection")
        if self._session is None:
            self.connection.sendPacket(packet)
        else:
            self.connection.sendPacketIn(self._session, packet)

    def _payload(self, data: Any) -> bytes:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"job data must be bytes, not {type(data).__name__}")
        return bytes(data)

    def sendWorkData(self, data: Any = b"") -> None:
        """Send a piece of the result (``WORK_DATA``).

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_DATA, self._payload(data))

    def sendWorkWarning(self, data: Any = b"") -> None:
        """Send a warning (``WORK_WARNING``).

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_WARNING, self._payload(data))

    def sendWorkStatus(self, numerator: float, denominator: float) -> None:
        """Tell how far the job is (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_STATUS, encode(str(numerator)), encode(str(denominator)))

    def sendWorkComplete(self, data: Any = b"") -> None:
        """End the job with its result, or the rest of it (``WORK_COMPLETE``).

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_COMPLETE, self._payload(data))

    def sendWorkFail(self) -> None:
        """End the job without a result (``WORK_FAIL``).

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_FAIL)

    def sendWorkException(self, data: Any = b"") -> None:
        """End the job with an exception (``WORK_EXCEPTION``).

        Raises:
            DisconnectError: the connection that the job came over is gone; the server gives it to another worker.
        """
        self._report(constants.WORK_EXCEPTION, self._payload(data))


class TextJob(TextJobArguments, TextJobUnique, Job):  # type: ignore[misc]  # text where others have bytes
    """A job whose arguments, unique, data and exception are text."""

    data_type: ClassVar[type[list[Any]]] = TextList

    @property
    def exception(self) -> str | None:
        """What the worker sent as ``WORK_EXCEPTION``, as text."""
        return None if self._exception is None else decode(self._exception)

    @exception.setter
    def exception(self, value: str | bytes) -> None:
        self._exception = _encoded(value)


class TextWorkerJob(TextJobArguments, TextJobUnique, WorkerJob):  # type: ignore[misc]  # text where others have bytes
    """A job that a worker has been given, with text for arguments and unique; reports take text too."""

    def _payload(self, data: Any) -> bytes:
        return super()._payload(convert_to_bytes(data))


class BinaryJob(BaseBinaryJob, Job):  # type: ignore[misc]  # bytes where others have text
    """A job whose name is bytes."""


class BinaryWorkerJob(BaseBinaryJob, WorkerJob):  # type: ignore[misc]  # bytes where others have text
    """A job that a worker has been given, whose name is bytes."""


class ServerJob(BinaryJob):
    """A job in a server. Programs may hang attributes of their own on it.

    Attributes:
        client_connection: connection of the client that waits for it; None for a background job.
        worker_connection: connection of the worker that runs it; None while it is queued.
    """

    def __init__(
        self,
        handle: bytes,
        name: str | bytes,
        arguments: bytes,
        client_connection: Connection | None,
        unique: str | bytes | None = None,
    ) -> None:
        """Make a job that is not queued."""
        super().__init__(name, arguments, unique)
        self.handle = handle
        self.client_connection = client_connection
        self.worker_connection: Connection | None = None
