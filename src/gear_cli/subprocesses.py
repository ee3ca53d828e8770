"""The commands that ``gear work`` runs for jobs, and checks before the first job."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gearproto import JobFailed

from .exits import reason
from .signals import undisturbed

if TYPE_CHECKING:
    from gear_sync import WorkerJob

__all__ = ["Commands", "Unusable", "check_command"]

_log: Final = logging.getLogger(__name__)

_SHELL: Final = "/bin/sh"

_PLAIN: Final = re.compile(r"[\w@%+:,./-]+")  # a word that the shell does not change
_UNUSABLE: Final = {126: "cannot be run", 127: "cannot be found"}  # what exit codes of shells mean


class Unusable(JobFailed):
    """The command has never worked and cannot be run, so that this is not the job's fault."""


def check_command(words: Sequence[str]) -> None:
    """Refuse a command that cannot be run, as far as this can be found out without running it.

    Args:
        words: the program and its arguments; a single word is a command for the shell.

    Raises:
        ValueError: it cannot be run.
    """
    program = words[0] if len(words) > 1 else _first_word(words[0])
    if "/" in program and shutil.which(program) is None:
        raise ValueError(f"{program} is not a file that can be executed")
    if len(words) > 1:
        if shutil.which(program) is None:
            raise ValueError(f"command not found: {program}")
        return
    (text,) = words
    if not text.strip():
        raise ValueError("the command is empty")
    if program and _shell("-c", 'command -v -- "$1"', "sh", program).returncode:  # it may be one of the shell itself
        raise ValueError(f"command not found: {program}")
    parsed = _shell("-n", "-c", text)
    if parsed.returncode:
        raise ValueError(f"the shell cannot read the command: {parsed.stderr.strip()}")


def _first_word(text: str) -> str:
    """Return the first word of a command for the shell, or nothing if the shell would change it."""
    first = next(iter(text.split()), "")
    return first if _PLAIN.fullmatch(first) else ""


def _shell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_SHELL, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding=sys.getfilesystemencoding(),
        errors="surrogateescape",
        check=False,
    )


class Commands:
    """The running commands of all threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: set[subprocess.Popen[bytes]] = set()
        self._worked = False
        self._killed = False
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], job: WorkerJob) -> bytes:
        """Run a command for a job, and return its output; a single word is run by the shell.

        Raises:
            JobFailed: it exited with another code than 0.
            TimeoutError: it took longer than its timeout.
            Unusable: it cannot be run, and no command has exited with 0 before.
        """
        if len(words) == 1:
            words = (_SHELL, "-c", *words)
        with self._start(words, job) as process:
            try:
                output, _ = process.communicate(job.workload, job.time_left)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"the job has taken longer than {job.timeout:g} s") from None
            finally:
                _kill(process)
                with self._lock:
                    self._running.remove(process)
        code = process.returncode
        if code in _UNUSABLE and not self._worked:
            raise Unusable(f"the command {_UNUSABLE[code]} (exit code {code})")
        if code:
            text = f"the command exited with {code}" if code > 0 else f"the command was killed by signal {-code}"
            _log.warning("job %s: %s", os.fsdecode(job.handle), text)
            raise JobFailed(text)
        self._worked = True
        return output

    def _start(self, words: Sequence[str], job: WorkerJob) -> subprocess.Popen[bytes]:
        names = {"GEAR_HANDLE": job.handle, "GEAR_FUNCTION": job.function, "GEAR_UNIQUE": job.unique}
        with undisturbed(), self._lock:  # so that `kill` knows every command
            if self._killed:
                raise JobFailed("the worker is shutting down")
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **{name: os.fsdecode(value) for name, value in names.items()}},
                    process_group=0,  # of its own: Ctrl-C is for the worker, which lets the command end
                )
            except OSError as error:
                if self._worked:
                    raise
                raise Unusable(f"the command cannot be run: {reason(error)}") from error
            self._running.add(process)
        return process

    def kill(self) -> None:
        """Kill all commands, and start no more."""
        with self._lock:
            self._killed = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and what it has started, unless it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
