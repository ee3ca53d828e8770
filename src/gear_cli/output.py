"""What ``gear submit`` writes about its jobs: results to stdout, everything else to stderr; and the exit code."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gearproto import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected

from .exits import Exit, Failure
from .signals import undisturbed
from .stdio import printable, say, write

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Output"]

_SEVERITY: Final = (Exit.DONE, Exit.FAILED, Exit.TIMEOUT, Exit.NO_SERVER)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _judge(end: Outcome | TimeoutError) -> tuple[str, bytes, Exit, str]:
    """Return an outcome's name, its data, the exit code, and what to say of it."""
    match end:
        case Completed(data):
            return "completed", data, Exit.DONE, ""
        case Failed():
            return "failed", b"", Exit.FAILED, "the job failed."
        case Raised(data):
            return "raised", data, Exit.FAILED, f"the job raised an exception: {_text(data)}"
        case Rejected(code, text):
            data = b": ".join(part for part in (code, text) if part)
            return "rejected", data, Exit.FAILED, f"the server refused the job: {_text(data)}."
        case NotSent(cause):
            return "not_sent", cause.encode(), Exit.NO_SERVER, f"the job was not sent: {cause}."
        case Lost(cause):
            said = f"the connection was lost, and the job may or may not have run: {cause}."
            return "lost", cause.encode(), Exit.FAILED, said
        case _:
            return "timeout", b"", Exit.TIMEOUT, f"{end}."


@dataclass(slots=True)
class Output:
    """Where results, warnings and progress go, and the exit code that they add up to.

    Attributes:
        as_json: whether to write objects.
        many: whether each line of the input is a job.
        code: the worst so far.
        submitted: how many jobs have been submitted.
        all_submitted: whether there will be no more.
    """

    as_json: bool
    many: bool
    code: Exit = Exit.DONE
    submitted: int = 0
    all_submitted: bool = False
    _line: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _begun: bool = False  # whether pieces of an incomplete result have been written
    _bar: _Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    @property
    def place(self) -> str:
        """Start of a message about the current job."""
        return f"line {self._line}: " if self.many else ""

    def next_line(self) -> None:
        """Move on to the job of the next line."""
        self._line += 1

    def progress(self, done: int, of: int) -> None:
        """Show how far the only job is."""
        if not self.many:
            self._show(done, of)

    def warning(self, data: bytes) -> None:
        """Show a warning of the job."""
        self._say(f"warning: {_text(data)}")

    def piece(self, data: bytes) -> None:
        """Take a piece of the result."""
        if self.as_json or self.many:
            self._pieces.append(data)
        else:
            self._write(data)
            self._begun = True

    def restarted(self) -> None:
        """Drop the pieces of a lost run, as the job runs again.

        Raises:
            Failure: some have been written, and cannot be taken back.
        """
        self._pieces.clear()
        if self._begun:
            text = "the worker was lost and the job runs again: the output so far is not part of its result."
            raise Failure(text, Exit.FAILED)

    def queued(self, handle: bytes) -> None:
        """Take the handle of a background job."""
        if self.as_json:
            self._write_object({"handle": _text(handle), "outcome": "queued"})
        else:
            if sys.stdout is not None and sys.stdout.isatty():
                handle = printable(_text(handle)).encode()
            self._write(handle + b"\n")

    def end(self, handle: bytes | None, end: Outcome | TimeoutError) -> None:
        """Take the end of the job."""
        name, data, code, text = _judge(end)
        self.code = max(self.code, code, key=_SEVERITY.index)
        if text:
            self._say(text)
        pieces, self._pieces = self._pieces, []
        if isinstance(end, Completed):
            data = b"".join((*pieces, data))
        if self.as_json:
            self._write_object(
                {"handle": None if handle is None else _text(handle), "outcome": name, **_readable(data)}
            )
        elif self.many:
            result = data if isinstance(end, Completed) else b""
            self._write(result.removesuffix(b"\n") + b"\n")
        elif isinstance(end, Completed):
            self._write(data)
        if self.many:
            self._show(self._line, self.submitted if self.all_submitted else 0)

    def _write_object(self, value: dict[str, str | None]) -> None:
        self._write(json.dumps(value).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        if sys.stdout is not None:
            if self._bar is not None and sys.stdout.isatty():
                self._hide()  # both on one terminal would be a mess
            write(data)

    def _say(self, text: str) -> None:
        self._hide()
        say(f"gear submit: {self.place}{printable(text, lines=True)}")

    def _show(self, done: int, of: int) -> None:
        if (
            sys.stderr is None
            or not sys.stderr.isatty()
            or (self.many and sys.stdout is not None and sys.stdout.isatty())
        ):
            return
        if self._bar is None:
            self._bar = _Bar("jobs done" if self.many else "progress")
            self._bar.start()  # a signal may come at its end: the bar has to be known by then
        self._bar.show(done, of)

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _readable(data: bytes) -> dict[str, str | None]:
    """Return data as a part of a JSON object."""
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


class _Bar:
    """A progress bar on stderr; rich is imported for it only."""

    def __init__(self, title: str) -> None:
        with undisturbed():
            # rich takes longer to load than most jobs take.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task: TaskID = self._bar.add_task(title, total=None)

    def start(self) -> None:
        """Draw the bar, and hide the cursor."""
        with undisturbed():
            self._bar.start()

    def show(self, done: int, of: int) -> None:
        """Show the number of units done, and of all units; 0 if that is not known."""
        with undisturbed():
            self._bar.update(self._task, completed=done, total=of or None)

    def close(self) -> None:
        """Remove the bar."""
        with undisturbed():
            self._bar.stop()
