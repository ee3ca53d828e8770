"""The text commands for administrators, and how a server reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast, dataclass_transform

from gearproto.codec import MAX_NUMBER_SIZE
from gearproto.errors import LocalProtocolError, RemoteProtocolError, ServerError
from gearproto.event import Event, event

from .escaping import escape, unescape
from .replies import Ok, Refused, Reply, Rows
from .rows import FunctionPriorities, FunctionStatus, JobListed, Row, UniqueListed, WorkerListed

__all__ = [
    "COMMANDS",
    "MAX_WORDS",
    "UNKNOWN_JOB",
    "CancelJob",
    "Command",
    "CreateFunction",
    "DropFunction",
    "GetPid",
    "MaxQueue",
    "PriorityStatus",
    "ShowJobs",
    "ShowUniqueJobs",
    "Shutdown",
    "Status",
    "Verbose",
    "Version",
    "Workers",
    "parse_command",
    "unknown_command",
]

UNKNOWN_JOB: Final = b"UNKNOWN_JOB"
"""How servers refuse ``cancel job`` for a job that they do not have, or no longer."""

MAX_WORDS: Final = 5
"""Most words in a command; gearmand closes the connection at a longer one."""

_INCOMPLETE: Final = b"An+incomplete+set+of+arguments+was+sent+to+this+command+"


_R = TypeVar("_R")


class Command(Event, Generic[_R]):
    """Base of the text commands; the type parameter is the type of the answer.

    Attributes:
        words: what the command begins with.
        row: class of its rows, or None where the answer is one line.
    """

    __slots__ = ()
    words: ClassVar[tuple[bytes, ...]]
    row: ClassVar[type[Row] | None]

    def arguments(self) -> tuple[bytes, ...]:
        """Return the words that follow the command."""
        return ()

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        """Build the command from the words that follow it; extra words are ignored."""
        del arguments
        return cls()

    def encode(self) -> bytes:
        """Return the command as a line.

        Raises:
            LocalProtocolError: an argument is empty, or there are more arguments than the command has.
        """
        arguments = self.arguments()
        name = b" ".join(self.words).decode()
        if not all(arguments):
            raise LocalProtocolError(f"{name}: empty argument")
        line = b" ".join([*self.words, *(escape(argument, spaces=True) for argument in arguments)])
        # create function is the one command of which gearmand expects CRLF: it cuts the last letter off otherwise.
        return line + b"\r\n"

    def result(self, reply: Reply) -> _R:
        """Return the content of an answer to the command.

        Raises:
            ServerError: the server refused, or its answer was not valid.
        """
        if isinstance(reply, Refused):
            raise ServerError(reply.code, reply.text.replace(b"+", b" "))
        return self._result(reply)

    def _result(self, reply: Ok | Rows) -> _R:
        return cast("_R", tuple(reply.rows) if isinstance(reply, Rows) else None)


class _TextCommand(Command[str]):
    """Base of the commands that are answered with a text."""

    __slots__ = ()

    def _result(self, reply: Ok | Rows) -> str:
        assert isinstance(reply, Ok)
        return reply.value.decode("utf-8", "backslashreplace")


COMMANDS: Final[dict[tuple[bytes, ...], type[Command[Any]]]] = {}
"""Every command by its words."""

_C = TypeVar("_C", bound=type[Command[Any]])

if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    def command(words: bytes, row: type[Row] | None = None) -> Callable[[_C], _C]: ...

else:

    def command(words, row=None):
        """Make a class the command with these words, answered by such rows."""

        def decorate(cls):
            cls = event(cls)
            cls.words = tuple(words.split())
            cls.row = row
            COMMANDS[cls.words] = cls
            return cls

        return decorate


@command(b"status", FunctionStatus)
class Status(Command[tuple[FunctionStatus, ...]]):
    """Asks for every function with its jobs and workers (``status``)."""


@command(b"prioritystatus", FunctionPriorities)
class PriorityStatus(Command[tuple[FunctionPriorities, ...]]):
    """Asks for every function with its queued jobs by priority (``prioritystatus``)."""


@command(b"workers", WorkerListed)
class Workers(Command[tuple[WorkerListed, ...]]):
    """Asks for every connection with its functions (``workers``)."""


@command(b"version")
class Version(_TextCommand):
    """Asks for the server's version (``version``)."""


@command(b"verbose")
class Verbose(_TextCommand):
    """Asks for the server's log level (``verbose``)."""


@command(b"getpid")
class GetPid(Command[int]):
    """Asks for the server's process id (``getpid``)."""

    def _result(self, reply: Ok | Rows) -> int:
        assert isinstance(reply, Ok)
        if not reply.value.isdigit() or len(reply.value) > MAX_NUMBER_SIZE:
            raise ServerError(b"MALFORMED_REPLY", reply.value)
        return int(reply.value)


@command(b"show jobs", JobListed)
class ShowJobs(Command[tuple[JobListed, ...]]):
    """Asks for every job (``show jobs``)."""


@command(b"show unique jobs", UniqueListed)
class ShowUniqueJobs(Command[tuple[UniqueListed, ...]]):
    """Asks for the uniques of all jobs (``show unique jobs``)."""


@command(b"cancel job")
class CancelJob(Command[None]):
    """Cancels a job; its clients see it as failed (``cancel job``).

    Attributes:
        handle: the job's handle.
    """

    handle: bytes

    def arguments(self) -> tuple[bytes, ...]:
        return (self.handle,)

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        return cls(unescape(arguments[0]))


@command(b"create function")
class CreateFunction(Command[None]):
    """Makes a function known to the server (``create function``).

    Attributes:
        function: its name.
    """

    function: bytes

    def arguments(self) -> tuple[bytes, ...]:
        return (self.function,)

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        return cls(unescape(arguments[0])) if arguments else _incomplete(b"create")


@command(b"drop function")
class DropFunction(Command[None]):
    """Makes the server forget a function that has no workers and no jobs (``drop function``).

    Attributes:
        function: its name.
    """

    function: bytes

    def arguments(self) -> tuple[bytes, ...]:
        return (self.function,)

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        return cls(unescape(arguments[0])) if arguments else _incomplete(b"drop")


@command(b"maxqueue")
class MaxQueue(Command[None]):
    """Limits the jobs of a function; more are refused (``maxqueue``).

    Attributes:
        function: its name.
        sizes: none for no limit, one for all priorities, or one each for high, normal and low; 0 means no limit.
    """

    function: bytes
    sizes: tuple[int, ...] = ()

    def arguments(self) -> tuple[bytes, ...]:
        if len(self.sizes) not in (0, 1, 3):
            raise LocalProtocolError(f"maxqueue: {len(self.sizes)} sizes, not 0, 1 or 3")
        return (self.function, *(b"%d" % size for size in self.sizes))

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        if not arguments:
            return _incomplete(b"maxqueue")
        function, *numbers = arguments
        return cls(unescape(function), tuple(int(raw) if raw.isdigit() and len(raw) < 19 else 0 for raw in numbers))


@command(b"shutdown")
class Shutdown(Command[None]):
    """Stops the server (``shutdown``, ``shutdown graceful``).

    Attributes:
        graceful: whether the server lets running jobs end, and accepts nothing new meanwhile.
    """

    graceful: bool = False

    def arguments(self) -> tuple[bytes, ...]:
        return (b"graceful",) if self.graceful else ()

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        return cls(arguments[:1] == [b"graceful"])


def parse_command(line: bytes) -> Command[Any] | Refused:
    """Read a command, as a server does.

    Args:
        line: the line without its ending.

    Returns:
        The command, or what to answer instead.

    Raises:
        RemoteProtocolError: the line has more than `MAX_WORDS` words.
    """
    words = line.split()
    if not words or line[:1].isspace():
        return unknown_command(b"")
    if len(words) > MAX_WORDS:
        raise RemoteProtocolError(f"text command of {len(words)} words, limit {MAX_WORDS}")
    name = words[0].lower()
    if (simple := COMMANDS.get((name,))) is not None:
        return simple.parse(words[1:])
    lowered = tuple(word.lower() for word in words)
    if name == b"show" and len(words) > 1:
        for cls in (ShowJobs, ShowUniqueJobs):
            if lowered[: len(cls.words)] == cls.words:
                return cls()
        return Refused(b"UNKNOWN_SHOW_ARGUMENTS")
    if name == b"cancel" and len(words) > 2:
        return CancelJob.parse(words[2:]) if lowered[1] == b"job" else Refused(b"UNKNOWN_ERROR")
    if name in (b"create", b"drop"):
        known = COMMANDS.get(lowered[:2])
        return _incomplete(name) if known is None else known.parse(words[2:])
    return unknown_command(words[0])


def unknown_command(word: bytes) -> Refused:
    """Return what a server answers to a command that it does not have."""
    return Refused(b"UNKNOWN_COMMAND", b"Unknown+server+command" + escape(word))


def _incomplete(word: bytes) -> Refused:
    return Refused(b"INVALID_ARGUMENTS", _INCOMPLETE + word)
