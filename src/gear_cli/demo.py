"""``gear demo``: a server, two workers and a client in one process; one worker is disconnected during a job."""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from itertools import islice
from operator import methodcaller
from pathlib import Path
from typing import IO, Annotated, Final, cast

from cyclopts import Parameter, validators
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from gear_sync import Client, Job, JobRequest, Server, Worker, WorkerJob
from gearproto import JobError, LocalProtocolError
from gearproto import events as core

from .exits import Exit, Failure, UsageError
from .options import read_file
from .signals import undisturbed
from .stdio import Stdout, printable

__all__ = ["count_words", "demo", "run_demo", "stdout_console"]

_WORDS: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (both apostrophes stand in words)
_FUNCTION: Final = "count words"
_STEPS: Final = 20  # progress reports of a job
_PACE: Final = 0.02  # longest pause between two of them in seconds, so that there is something to see
_LENGTH: Final = 3.0  # seconds that one worker may pause for all jobs together
_ROWS: Final = 12  # bars that fit on a small terminal
_WIDE: Final = 72  # columns of a terminal in which long bars leave room for the text after them
_WAIT: Final = 60.0  # seconds; far more than anything here takes

Count = Callable[[str], "Counter[str]"]


def count_words(text: str) -> Counter[str]:
    """Count the words of a text, ignoring case."""
    return Counter(word.lower() for word in _WORDS.findall(text))


def demo(
    file: Path | None = None,
    /,
    *,
    pieces: Annotated[int, Parameter(name=["--pieces", "-n"], validator=validators.Number(gte=1, lte=1000))] = 8,
) -> int:
    """Count the words of a text with a job server and two workers, one of which is disconnected in the middle of a job.

    Everything runs in this process, over real connections on the loopback interface, and slow enough to watch. The
    results are compared with a count without jobs.

    Exit codes: 0 every result is right; 1 a result is wrong; 2 wrong usage, or the file cannot be read.

    Args:
        file: The text, in UTF-8; by default, a text that comes with the command.
        pieces: Number of jobs to split the text into, 1 to 1000.
    """
    text = _text(file)
    logging.getLogger("gear_sync").addHandler(logging.NullHandler())  # what goes wrong here is shown below
    return run_demo(text, pieces, stdout_console())


def stdout_console() -> Console:
    """Return a console that draws on stdout."""
    return Console(file=cast("IO[str]", Stdout()), highlight=False)


def _text(file: Path | None) -> str:
    if file is None:
        return files("gear_cli").joinpath("demo.txt").read_text(encoding="utf-8")
    try:
        return read_file(file).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not text in UTF-8.") from None


class _Accident:
    """Disconnects one worker that is halfway through a job, once.

    Attributes:
        victim: the worker's name; None before the accident.
        handle: the job that it was running.
    """

    def __init__(self, jobs: int) -> None:
        self.victim: str | None = None
        self.handle: bytes | None = None
        self._spared = 2 if jobs >= 4 else 0  # each worker may have finished a job before
        self._lock = threading.Lock()

    def strike(self, name: str, worker: Worker, job: WorkerJob) -> None:
        """Cut the connection of a worker, between two reports of its job, if no worker was disconnected before."""
        with self._lock:
            if self.victim is not None:
                return
            if self._spared:
                self._spared -= 1
                return
            self.victim, self.handle = name, job.handle
        worker.abort()


def run_demo(text: str, pieces: int, console: Console, *, count: Count = count_words, pace: float = _PACE) -> int:
    """Run the demonstration.

    Args:
        text: the text whose words are counted.
        pieces: number of jobs to split it into; fewer if it has fewer lines.
        console: where to show it.
        count: how the workers count.
        pace: longest pause between two steps of a job, in seconds.

    Returns:
        The exit code.

    Raises:
        Failure: a piece is too large for a job.
    """
    parts = _split(text, pieces)
    pace = min(pace, _LENGTH / (_STEPS * len(parts)))
    accident = _Accident(len(parts))
    finished: dict[Job, str] = {}
    started = time.monotonic()
    with Server(port=0) as server:
        number = f"{len(parts)} jobs" if len(parts) > 1 else "1 job"
        console.print(f"A server on 127.0.0.1:{server.port}, two workers (anna, boris), {number}.")
        with (
            _worker("anna", server, accident, count, pace),
            _worker("boris", server, accident, count, pace),
            Client(server.address) as client,
        ):
            try:
                jobs = client.submit_many(JobRequest(function=_FUNCTION, workload=part.encode()) for part in parts)
            except LocalProtocolError as error:
                raise Failure(f"a piece of the text is too large for a job; use more --pieces: {error}.") from error
            _watch(jobs, accident, finished, console)
    return _summarise(parts, jobs, finished, accident, time.monotonic() - started, console)


def _split(text: str, pieces: int) -> list[str]:
    """Cut a text between lines, into pieces of about the same size."""
    lines = text.splitlines(keepends=True)
    number = max(1, min(pieces, len(lines)))
    source = iter(lines)
    sizes = ((index + 1) * len(lines) // number - index * len(lines) // number for index in range(number))
    return ["".join(islice(source, size)) for size in sizes]


@contextmanager
def _worker(name: str, server: Server, accident: _Accident, count: Count, pace: float) -> Iterator[None]:
    """Run a worker in a thread."""
    worker = Worker(server.address, client_id=name)

    @worker.function(_FUNCTION)
    def run(job: WorkerJob) -> bytes:
        lines = job.workload.decode().splitlines(keepends=True)
        words: Counter[str] = Counter()
        for step in range(_STEPS):
            words += count("".join(lines[step * len(lines) // _STEPS : (step + 1) * len(lines) // _STEPS]))
            job.progress(step + 1, _STEPS)
            if step == _STEPS // 2:
                accident.strike(name, worker, job)
            time.sleep(pace)
        return json.dumps({"worker": name, "words": words}).encode()

    thread = threading.Thread(target=worker.run, name=name)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(_WAIT)
        worker.close()


class _Display:
    """What the user sees of the jobs: bars on a terminal, lines otherwise."""

    def __init__(self, jobs: list[Job], console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        bar = 24 if console.width >= _WIDE else 8
        self._room = max(0, console.width - len(f"all jobs {'-' * bar} 100% "))  # otherwise rich drops the bars
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=bar),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._live,
        )
        self._rows: dict[Job, TaskID] = {}
        if len(jobs) <= _ROWS:
            for number, job in enumerate(jobs, 1):
                self._rows[job] = self._bars.add_task(f"piece {number:>2}", total=_STEPS, note="")
        self._all = self._bars.add_task("all jobs", total=len(jobs), note="")
        self._numbers = {job: number for number, job in enumerate(jobs, 1)}
        self._told = False

    def __enter__(self) -> _Display:
        with undisturbed():
            self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with undisturbed():
            self._bars.stop()

    def progress(self, job: Job, done: int, victim: str | None) -> None:
        """Show how far a job is; the victim is the worker that was disconnected while it ran the job, if any was."""
        note = "" if victim is None else f"[yellow]{victim} was lost; starts again"
        self._update(job, done, note)
        if victim is not None and not self._told:
            self._told = True
            self._line(job, f"{victim} was lost in the middle of the job, which starts again")

    def finished(self, job: Job, worker: str, victim: str | None) -> None:
        """Show which worker has finished a job."""
        again = "" if victim is None else f", after {victim} was lost"
        self._update(job, _STEPS, f"[green]done by {worker}[/][yellow]{again}")
        self._line(job, f"done by {worker}{again}")
        self._bars.advance(self._all)

    def failed(self, job: Job, error: Exception) -> None:
        """Show that a job has no result."""
        text = printable(str(error))
        self._update(job, None, f"[red]{escape(text)}")
        self._line(job, text)

    def _update(self, job: Job, done: int | None, note: str) -> None:
        if job in self._rows:
            text = Text.from_markup(note)
            text.truncate(self._room, overflow="ellipsis")
            self._bars.update(self._rows[job], completed=done, note=text.markup)

    def _line(self, job: Job, text: str) -> None:
        if not self._live:
            self._console.print(f"piece {self._numbers[job]}: {text}", markup=False)


_Notes = queue.SimpleQueue[Callable[[_Display], object] | None]
"""What to show next, from the threads that follow the jobs; None when a job has ended."""


def _watch(jobs: list[Job], accident: _Accident, finished: dict[Job, str], console: Console) -> None:
    """Show the progress of the jobs until all have ended, and record which worker finished which job."""
    notes = _Notes()
    for job in jobs:
        threading.Thread(target=_follow, args=(job, notes, accident, finished), daemon=True).start()
    with _Display(jobs, console) as display:
        left = len(jobs)
        while left:
            note = notes.get()  # in this thread, which an error of stdout or a signal has to end
            if note is None:
                left -= 1
            else:
                with undisturbed():
                    note(display)


def _follow(job: Job, notes: _Notes, accident: _Accident, finished: dict[Job, str]) -> None:
    """Show what happens to one job; progress that goes backwards means that the job has started again."""
    last, victim = 0, None
    try:
        for event in job.events(_WAIT):
            if isinstance(event, core.Progress):
                if event.numerator <= last and job.handle == accident.handle:
                    victim = accident.victim
                last = event.numerator
                notes.put(methodcaller("progress", job, last, victim))
        worker = str(json.loads(job.result(0))["worker"])
        finished[job] = worker
        victim = accident.victim if job.handle == accident.handle else None
        notes.put(methodcaller("finished", job, worker, victim))
    except (JobError, TimeoutError) as error:
        notes.put(methodcaller("failed", job, error))
    finally:
        notes.put(None)


def _summarise(
    parts: list[str],
    jobs: list[Job],
    finished: dict[Job, str],
    accident: _Accident,
    elapsed: float,
    console: Console,
) -> int:
    """Compare the results with a count without jobs, and print a summary; return the exit code."""
    total: Counter[str] = Counter()
    wrong: list[int] = []
    retried: int | None = None
    for number, (job, part) in enumerate(zip(jobs, parts, strict=True), 1):
        words = Counter(json.loads(job.result(0))["words"]) if job in finished else None
        if words is None or words != count_words(part):
            wrong.append(number)
        total += words or Counter()
        if job.handle == accident.handle:
            retried = number
    by_worker = Counter(finished.values())
    table = Table(show_header=False)
    table.add_row(
        "jobs", f"{len(finished)} of {len(jobs)} done: " + ", ".join(f"{n} by {w}" for w, n in by_worker.items())
    )
    rescuer = None if retried is None else finished.get(jobs[retried - 1])
    if retried is not None:
        table.add_row("job retried", f"piece {retried}: {accident.victim} was lost, {rescuer} finished it")
    table.add_row("words", f"{total.total():,}, {len(total):,} different")
    table.add_row("most frequent", ", ".join(f"{word} {number}" for word, number in total.most_common(5)))
    table.add_row("elapsed", f"{elapsed:.1f} s")
    console.print(table)
    if wrong:
        console.print(f"[bold red]Wrong:[/] piece {', '.join(map(str, wrong))} differs from a count without jobs.")
        return Exit.FAILED
    if rescuer in {None, accident.victim}:
        console.print("[bold red]Wrong:[/] no job was interrupted and finished by the other worker.")
        return Exit.FAILED
    console.print("[green]Every result is the same as in a count without jobs.")
    return Exit.DONE
