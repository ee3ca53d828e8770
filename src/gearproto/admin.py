r"""The text protocol for administrators: commands, the shape of each answer, its rows.

A command is a line, ended by LF or CRLF. Its answer is a line that begins with ``OK`` or ``ERR``, or rows up to a line
that holds only a dot. Names in answers are written with ``\xNN`` for every byte that could break a row or is not
printable (`escape`), so that no name can forge or end an answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast, dataclass_transform

from .codec import MAX_NUMBER_SIZE
from .errors import LocalProtocolError, RemoteProtocolError, ServerError
from .event import Event, event

__all__ = [
    "COMMANDS",
    "UNKNOWN_JOB",
    "CancelJob",
    "Command",
    "CreateFunction",
    "DropFunction",
    "FunctionPriorities",
    "FunctionStatus",
    "GetPid",
    "JobListed",
    "MaxQueue",
    "Ok",
    "PriorityStatus",
    "Refused",
    "Reply",
    "ReplyReader",
    "Row",
    "Rows",
    "ShowJobs",
    "ShowUniqueJobs",
    "Shutdown",
    "Status",
    "UniqueListed",
    "Verbose",
    "Version",
    "WorkerListed",
    "Workers",
    "escape",
    "parse_command",
    "unescape",
    "unknown_command",
]

UNKNOWN_JOB: Final = b"UNKNOWN_JOB"
"""How servers refuse ``cancel job`` for a job that they do not have, or no longer."""

MAX_WORDS: Final = 5
"""Most words in a command; gearmand closes the connection at a longer one."""

_LITERAL_ESCAPE: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")
_INCOMPLETE: Final = b"An+incomplete+set+of+arguments+was+sent+to+this+command+"
_UNKNOWN: Final = b"ERR UNKNOWN_"
_CRLF: Final = b"\r\n"


def escape(name: bytes, *, spaces: bool = False) -> bytes:
    r"""Write a name so that it fits into one field of an answer.

    Printable UTF-8 text stays as it is; every other byte becomes ``\xNN``.

    Args:
        name: any bytes.
        spaces: whether spaces become ``\x20`` too, for fields that are parted by spaces.

    Returns:
        UTF-8 text without line ends and tabs, from which `unescape` makes the name again.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and b"\\x" not in name and not (spaces and b" " in name):
        return name
    marked = _LITERAL_ESCAPE.sub(rb"\\x5c", name).decode("utf-8", "surrogateescape")
    return marked.translate(_ESCAPES[spaces]).encode()


class _Escapes(dict[int, str]):
    """What each character becomes. Kept for single bytes, so that a name of nothing else takes no long time."""

    def __init__(self, *, spaces: bool) -> None:
        super().__init__()
        self._spaces = spaces

    def __missing__(self, code: int) -> str:
        shown = character = chr(code)
        if not character.isprintable() or (self._spaces and character == " "):
            shown = "".join([_ESCAPED_BYTES[byte] for byte in character.encode("utf-8", "surrogateescape")])
        if code < 256 or 0xDC80 <= code <= 0xDCFF:
            self[code] = shown
        return shown


_ESCAPED_BYTES: Final = [f"\\x{byte:02x}" for byte in range(256)]
_ESCAPES: Final = {spaces: _Escapes(spaces=spaces) for spaces in (False, True)}


def unescape(text: bytes) -> bytes:
    r"""Undo `escape`: turn every ``\xNN`` into its byte."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text)


def _count(raw: bytes) -> int:
    if len(raw) > MAX_NUMBER_SIZE:
        raise ValueError(f"number of {len(raw)} bytes, limit {MAX_NUMBER_SIZE}")
    return int(raw)


class Row(ABC):
    """Base of the rows that some answers consist of. Numbers are decimal, names escaped."""

    __slots__ = ()

    @abstractmethod
    def encode(self) -> bytes:
        """Return the row without a line ending."""

    @classmethod
    @abstractmethod
    def decode(cls, line: bytes) -> Row:
        """Read a row.

        Raises:
            ValueError: the line is not a valid row.
        """


@event
class FunctionStatus(Row):
    """One function in the answer to ``status``.

    Attributes:
        function: its name.
        total: jobs that are queued, delayed or running.
        running: jobs that a worker has.
        workers: connections that can run it.
    """

    function: bytes
    total: int
    running: int
    workers: int

    def encode(self) -> bytes:
        return b"%b\t%d\t%d\t%d" % (escape(self.function), self.total, self.running, self.workers)

    @classmethod
    def decode(cls, line: bytes) -> FunctionStatus:
        function, total, running, workers = line.rsplit(b"\t", 3)
        return cls(unescape(function), _count(total), _count(running), _count(workers))


@event
class FunctionPriorities(Row):
    """One function in the answer to ``prioritystatus``.

    Attributes:
        function: its name.
        high: queued jobs of high priority.
        normal: queued jobs of normal priority, delayed ones included.
        low: queued jobs of low priority.
        workers: connections that can run it.
    """

    function: bytes
    high: int
    normal: int
    low: int
    workers: int

    def encode(self) -> bytes:
        numbers = (self.high, self.normal, self.low, self.workers)
        return b"%b\t%d\t%d\t%d\t%d" % (escape(self.function), *numbers)

    @classmethod
    def decode(cls, line: bytes) -> FunctionPriorities:
        function, *numbers = line.rsplit(b"\t", 4)
        high, normal, low, workers = map(_count, numbers)
        return cls(unescape(function), high, normal, low, workers)


@event
class WorkerListed(Row):
    """One connection in the answer to ``workers``; clients are listed too.

    Attributes:
        descriptor: the server's number for the connection.
        address: the peer's address.
        client_id: the name it has given itself; empty if none.
        functions: what it can run, last registered first.
    """

    descriptor: int
    address: bytes
    client_id: bytes
    functions: tuple[bytes, ...]

    def encode(self) -> bytes:
        return self.encode_head() + b"".join(map(self.encode_function, self.functions))

    def encode_head(self) -> bytes:
        """Return the row up to its functions, for servers that write a long one in pieces."""
        client_id = b"\\x2d" if self.client_id == b"-" else escape(self.client_id, spaces=True) or b"-"
        return b"%d %b %b :" % (self.descriptor, escape(self.address, spaces=True), client_id)

    @staticmethod
    def encode_function(name: bytes) -> bytes:
        """Return what a row has for a function."""
        return b" " + escape(name, spaces=True)

    @classmethod
    def decode(cls, line: bytes) -> WorkerListed:
        descriptor, address, rest = line.split(b" ", 2)
        client_id, colon, names = (rest + b" ").partition(b" : ")
        if not colon:
            raise ValueError("no colon")
        functions = tuple(unescape(name) for name in names.split(b" ") if name)
        client_id = b"" if client_id == b"-" else unescape(client_id)
        return cls(_count(descriptor), unescape(address), client_id, functions)


@event
class JobListed(Row):
    """One job in the answer to ``show jobs``.

    Attributes:
        handle: its handle.
        retries: how often it has been given back.
        ignored: whether nobody waits for it any more.
        background: whether it is a background job.
    """

    handle: bytes
    retries: int
    ignored: bool
    background: bool

    def encode(self) -> bytes:
        return b"%b\t%d\t%d\t%d" % (escape(self.handle), self.retries, self.ignored, self.background)

    @classmethod
    def decode(cls, line: bytes) -> JobListed:
        handle, retries, ignored, background = line.rsplit(b"\t", 3)
        return cls(unescape(handle), _count(retries), bool(_count(ignored)), bool(_count(background)))


@event
class UniqueListed(Row):
    """One job in the answer to ``show unique jobs``.

    Attributes:
        unique: its unique; may be empty.
    """

    unique: bytes

    def encode(self) -> bytes:
        if self.unique == b"." or self.unique.startswith(_UNKNOWN):
            return b"\\x%02x" % self.unique[0] + escape(self.unique[1:])
        return escape(self.unique)

    @classmethod
    def decode(cls, line: bytes) -> UniqueListed:
        return cls(unescape(line))


@event
class Ok:
    """The command was carried out, or its answer is one value.

    Attributes:
        value: the answer of commands that tell something; empty for those that change something.
    """

    value: bytes = b""

    def encode(self) -> bytes:
        """Return the line; as in gearmand, CRLF ends an ``OK`` that stands alone, and LF one with a value."""
        return b"OK %b\n" % self.value if self.value else b"OK\r\n"


@event
class Refused:
    """The command was not carried out.

    Attributes:
        code: the server's code, such as ``UNKNOWN_COMMAND``; or ``MALFORMED_REPLY`` where an answer made no sense.
        text: the server's explanation; gearmand writes ``+`` for spaces.
    """

    code: bytes
    text: bytes = b""

    def encode(self) -> bytes:
        """Return the line."""
        return b" ".join(filter(None, (b"ERR", self.code, self.text))) + _CRLF


@event
class Rows:
    """An answer of rows.

    Attributes:
        rows: the rows, in the server's order.
    """

    rows: Sequence[Row]

    def encode(self) -> bytes:
        """Return all lines, with the dot that ends them."""
        return b"\n".join([*(row.encode() for row in self.rows), b".\n"])


Reply = Ok | Refused | Rows
"""What a command can be answered with."""


_R = TypeVar("_R")


class Command(Event, Generic[_R]):
    """Base of the text commands; the parameter is what the answer tells.

    Attributes:
        words: what the command begins with.
        row: class of its rows, or None where the answer is one line.
    """

    __slots__ = ()
    words: ClassVar[tuple[bytes, ...]]
    row: ClassVar[type[Row] | None]

    def arguments(self) -> tuple[bytes, ...]:
        """Return the words behind the command."""
        return ()

    @classmethod
    def parse(cls, arguments: list[bytes]) -> Command[Any] | Refused:
        """Make the command of the words behind it; those that it has no use for are ignored."""
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
        return line + _CRLF

    def result(self, reply: Reply) -> _R:
        """Return what an answer to the command tells.

        Raises:
            ServerError: the server refused, or its answer made no sense.
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
        graceful: whether it lets running jobs end, and takes nothing new meanwhile.
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


class ReplyReader:
    """Reads the answer to one command, line by line."""

    __slots__ = ("_limit", "_lines", "_room", "command")

    def __init__(self, command: Command[Any], max_size: int) -> None:
        """Expect the answer.

        Args:
            command: the command that was sent.
            max_size: limit in bytes for the whole answer.
        """
        self.command = command
        self._lines: list[bytes] = []
        self._limit = self._room = max_size

    def feed(self, line: bytes) -> Reply | None:
        """Take the next line, without its ending; return the answer when it is whole.

        Raises:
            RemoteProtocolError: the answer is over its limit.
        """
        row = self.command.row
        if row is None:
            return _read_line(line)
        if line == b".":
            return _read_rows(row, self._lines)
        if not self._lines and _is_error(row, line):
            return _read_line(line)
        self._room -= len(line) + 1
        if self._room < 0:
            raise RemoteProtocolError(f"answer to {b' '.join(self.command.words).decode()}: limit {self._limit} bytes")
        self._lines.append(line)
        return None


def _is_error(row: type[Row], line: bytes) -> bool:
    """Tell whether the first line of an answer is an error instead of a row."""
    if row is UniqueListed:  # a unique may well begin with ERR
        return line.startswith(_UNKNOWN)
    return line.startswith(b"ERR ") and b"\t" not in line


def _read_line(line: bytes) -> Reply:
    word, _space, rest = line.partition(b" ")
    if word == b"OK":
        return Ok(rest)
    if word == b"ERR":
        code, _space, text = rest.partition(b" ")
        return Refused(code, text)
    return Refused(b"MALFORMED_REPLY", line)


def _read_rows(row: type[Row], lines: list[bytes]) -> Reply:
    rows = []
    for line in lines:
        try:
            rows.append(row.decode(line))
        except ValueError:
            return Refused(b"MALFORMED_REPLY", line)
    return Rows(tuple(rows))
