"""``gear demo``: a server, two workers and a client in one process, and a worker that is cut off in the middle."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from gear_sync import Client, Job, Server, Task, Worker, WorkerJob
from gearproto import JobError
from gearproto import events as core

from .options import FAILED, USAGE, fail

__all__ = ["count_words", "demo", "run_demo"]

_WORDS: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (both apostrophes stand in words)
_STEPS: Final = 20  # progress reports of a job
_PACE: Final = 0.02  # seconds between them, so that there is something to see
_WAIT: Final = 60.0  # seconds; the most that anything in the demonstration may take

Count = Callable[[str], "Counter[str]"]


def count_words(text: str) -> Counter[str]:
    """Count the words of a text, without regard to case."""
    return Counter(word.lower() for word in _WORDS.findall(text))


def demo(
    file: Path | None = None,
    /,
    *,
    pieces: Annotated[int, Parameter(name=["--pieces", "-n"])] = 8,
) -> int:
    """Count the words of a text with a job server and two workers, one of which is cut off in the middle of a job.

    Everything runs in this process and on this machine's loopback. Exit code 0 means that every result was right.

    Args:
        file: The text, in UTF-8; one that is shipped with the command unless given.
        pieces: In how many jobs to split it.
    """
    if not 1 <= pieces <= 1000:
        fail(f"--pieces is {pieces}, 1 to 1000 are possible", USAGE)
    return run_demo(_read(file), pieces, Console(), count_words)


def _read(file: Path | None) -> str:
    if file is None:
        return files("gear_cli").joinpath("demo.txt").read_text(encoding="utf-8")
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", FAILED)
    except UnicodeDecodeError:
        fail(f"{file} is no text in UTF-8", FAILED)


class _Accident:
    """Cuts the line of a worker that is halfway through a job, once.

    With jobs enough each worker may finish one before: the victim is the third to be halfway.
    """

    def __init__(self, jobs: int) -> None:
        self._spared = 2 if jobs >= 4 else 0
        self.victim: str | None = None
        self.handle: bytes | None = None
        self._lock = threading.Lock()

    def strike(self, name: str, worker: Worker, job: WorkerJob) -> None:
        with self._lock:
            if self.victim is not None:
                return
            if self._spared:
                self._spared -= 1
                return
            self.victim, self.handle = name, job.handle
        worker.abort()


def run_demo(text: str, pieces: int, console: Console, count: Count) -> int:
    """Run the demonstration.

    Args:
        text: what to count the words of.
        pieces: in how many jobs to split it.
        console: where to show it.
        count: how the workers count.

    Returns:
        The exit code.
    """
    parts = _split(text, pieces)
    started = time.monotonic()
    accident = _Accident(len(parts))
    with Server(port=0) as server:
        console.print(f"server on 127.0.0.1:{server.port}, {len(parts)} jobs, workers anna and boris")
        with (
            _worker("anna", server, accident, count),
            _worker("boris", server, accident, count),
            Client(server.address) as client,
        ):
            jobs = client.submit_many(Task(function="count words", workload=part.encode()) for part in parts)
            finished = _watch(jobs, accident, console)
    elapsed = time.monotonic() - started
    return _summarise(parts, jobs, finished, accident, elapsed, console)


def _split(text: str, pieces: int) -> list[str]:
    """Cut a text between lines, into pieces of about the same size."""
    lines = text.splitlines(keepends=True)
    size = max(1, -(-len(lines) // pieces))
    source = iter(lines)
    return list(iter(lambda: "".join(islice(source, size)), "")) or [""]


@contextmanager
def _worker(name: str, server: Server, accident: _Accident, count: Count) -> Iterator[None]:
    """Run a worker in a thread."""
    with Worker(server.address, client_id=name) as worker:

        @worker.function("count words")
        def run(job: WorkerJob) -> bytes:
            lines = job.workload.decode().splitlines(keepends=True)
            words: Counter[str] = Counter()
            pace = threading.Event()
            for step in range(_STEPS):
                words += count("".join(lines[step * len(lines) // _STEPS : (step + 1) * len(lines) // _STEPS]))
                job.progress(step + 1, _STEPS)
                if step == _STEPS // 2:
                    accident.strike(name, worker, job)
                pace.wait(_PACE)
            return json.dumps({"worker": name, "words": words}).encode()

        thread = threading.Thread(target=worker.run, name=name)
        thread.start()
        yield
        worker.stop()
        thread.join(_WAIT)


def _watch(jobs: list[Job], accident: _Accident, console: Console) -> dict[Job, str]:
    """Show how the jobs come on, until all have ended; return who finished which."""
    finished: dict[Job, str] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as bars:
        rows = [bars.add_task(f"piece {number}", total=_STEPS, note="") for number, _ in enumerate(jobs, 1)]
        threads = [
            threading.Thread(target=_follow, args=(job, row, bars, accident, finished))
            for job, row in zip(jobs, rows, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_WAIT)
    return finished


def _follow(job: Job, row: TaskID, bars: Progress, accident: _Accident, finished: dict[Job, str]) -> None:
    """Move one job's bar; a job that begins again falls back."""
    try:
        for event in job.events(_WAIT):
            if isinstance(event, core.Progress):
                again = job.handle == accident.handle
                note = f"[yellow]{accident.victim} was cut off, again" if again else ""
                bars.update(row, completed=event.numerator, note=note)
        finished[job] = json.loads(job.result(0))["worker"]
    except (JobError, TimeoutError) as error:
        bars.update(row, note=f"[red]{error}")
        return
    note = f"[green]{finished[job]}"
    if job.handle == accident.handle:
        note += f"[yellow], begun by {accident.victim}, who was cut off"
    bars.update(row, note=note)


def _summarise(
    parts: list[str],
    jobs: list[Job],
    finished: dict[Job, str],
    accident: _Accident,
    elapsed: float,
    console: Console,
) -> int:
    """Compare the results with a count of our own, and print a summary; return the exit code."""
    total: Counter[str] = Counter()
    wrong = 0
    for job, part in zip(jobs, parts, strict=True):
        words = Counter(json.loads(job.result(0))["words"]) if job in finished else Counter()
        total += words
        wrong += words != count_words(part)
    rescued = next((job for job in jobs if job.handle == accident.handle), None)
    table = Table(show_header=False)
    table.add_row("jobs", f"{len(jobs)}, of which {len(finished)} completed and {wrong} wrong")
    table.add_row("cut off", f"{accident.victim}, in the middle of {(accident.handle or b'nothing').decode()}")
    if rescued is not None and rescued in finished:
        table.add_row("finished by", finished[rescued])
    table.add_row("words", f"{total.total()}, {len(total)} different")
    table.add_row("most frequent", ", ".join(f"{word} {number}" for word, number in total.most_common(5)))
    table.add_row("seconds", f"{elapsed:.1f}")
    console.print(table)
    if wrong:
        console.print("[red]wrong results")
        return FAILED
    console.print("[green]every result is right")
    return 0
