"""The commands that ``gear work`` runs for jobs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from gear_sync.worker import WorkerJob
from gearproto import JobFailed

__all__ = ["Commands"]

_log: Final = logging.getLogger(__name__)


class Commands:
    """The commands that run, of all threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: set[subprocess.Popen[bytes]] = set()
        self._killed = False
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], job: WorkerJob) -> bytes:
        """Run a command for a job, and return what it writes.

        Raises:
            JobFailed: it ended otherwise than with 0.
            TimeoutError: it has taken longer than it may.
        """
        with self._start(words, job) as process:
            try:
                left = None if job.until is None else max(0.0, job.until - time.monotonic())
                output, _ = process.communicate(job.workload, left)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"the job has taken longer than {job.limit:g} s") from None
            finally:
                with self._lock:
                    self._running.remove(process)
                _kill(process)
        code = process.returncode
        if code:
            text = f"the command ended with {code}" if code > 0 else f"the command was killed by signal {-code}"
            _log.warning("job %s: %s", os.fsdecode(job.handle), text)
            raise JobFailed(text)
        return output

    def _start(self, words: Sequence[str], job: WorkerJob) -> subprocess.Popen[bytes]:
        names = {"GEAR_HANDLE": job.handle, "GEAR_FUNCTION": job.function, "GEAR_UNIQUE": job.unique}
        with self._lock:
            if self._killed:
                raise JobFailed("the worker ends")
            # In a process group of its own: Ctrl-C is for the worker, which lets the command end.
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **{name: os.fsdecode(value) for name, value in names.items()}},
                process_group=0,
            )
            self._running.add(process)
        return process

    def kill(self) -> None:
        """Kill all commands, and start no other."""
        with self._lock:
            self._killed = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and what it has started, unless it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
