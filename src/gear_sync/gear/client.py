"""``gear.Client``: submits jobs, and keeps them up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar, Final

from gearproto.codec import MAX_NUMBER_SIZE

from . import constants
from .base import BaseClient
from .connection import Connection
from .errors import ConfigurationError, DisconnectError, GearmanError, InvalidDataError, NoConnectedServersError
from .jobs import Job
from .packet import Packet
from .tasks import OptionReqTask, SubmitJobTask
from .text import convert_to_bytes
from .tracking import REPORTS

__all__ = ["PRECEDENCE_HIGH", "PRECEDENCE_LOW", "PRECEDENCE_NORMAL", "Client"]

PRECEDENCE_NORMAL: Final = 0
"""Normal job precedence."""

PRECEDENCE_LOW: Final = 1
"""Low job precedence."""

PRECEDENCE_HIGH: Final = 2
"""High job precedence."""

_SUBMISSIONS: Final = {
    (PRECEDENCE_NORMAL, False): constants.SUBMIT_JOB,
    (PRECEDENCE_NORMAL, True): constants.SUBMIT_JOB_BG,
    (PRECEDENCE_LOW, False): constants.SUBMIT_JOB_LOW,
    (PRECEDENCE_LOW, True): constants.SUBMIT_JOB_LOW_BG,
    (PRECEDENCE_HIGH, False): constants.SUBMIT_JOB_HIGH,
    (PRECEDENCE_HIGH, True): constants.SUBMIT_JOB_HIGH_BG,
}


_UNSAFE_UNIQUE: Final = 64  # bytes


class Client(BaseClient):
    """A Gearman client.

    ```python
    client = gear.Client()
    client.addServer("gearman.example.com")
    client.waitForServer()
    client.submitJob(gear.Job("reverse", b"test string"))
    ```

    Attributes:
        options: the options that are asked for on every connection.
    """

    _log_name: ClassVar[str] = "Client"

    def __init__(self, client_id: str | bytes = "unknown") -> None:
        """Begin without servers.

        Args:
            client_id: what loggers are named after.
        """
        super().__init__(client_id)
        self._warned_of_unique = False
        self.options: set[bytes] = set()
        self._start()

    def __repr__(self) -> str:
        return f"<gear.Client 0x{id(self):x}>"

    def setOption(self, name: str | bytes, timeout: float | None = 30) -> bool:
        """Ask all servers for an option, and from now on every one that is connected to.

        Args:
            name: the option; ``exceptions`` makes servers pass ``WORK_EXCEPTION`` on.
            timeout: longest time to wait for each answer, in seconds; None for no limit.

        Returns:
            Whether all servers that are connected have set it.
        """
        option = convert_to_bytes(name)
        assert isinstance(option, bytes)
        self.options.add(option)
        tasks: list[OptionReqTask] = []
        lost = False
        for connection in self._active():
            connection.check_not_reading("OPTION_REQ")
            try:
                tasks.append(self._ask_for_option(connection, option))
            except DisconnectError:
                lost = True
        # Each of them, so that the timeout is one of the server's and not of the server before it.
        answered = [task.wait(timeout) for task in tasks]
        return not lost and all(answered) and all(task.error is None for task in tasks)

    def _onConnect(self, conn: Connection) -> None:
        for option in tuple(self.options):
            self._ask_for_option(conn, option)

    def _ask_for_option(self, connection: Connection, option: bytes) -> OptionReqTask:
        """Ask for an option; the task fails if the server refuses, or passes over it."""
        packet = Packet(constants.REQ, constants.OPTION_REQ, option, connection)
        packet.task = task = OptionReqTask()
        self.sendPacket(packet, connection)
        connection.sendBarrier(task)
        return task

    def submitJob(
        self, job: Job, background: bool = False, precedence: int = PRECEDENCE_NORMAL, timeout: float | None = 30
    ) -> None:
        """Submit a job and wait until a server has taken it; then the job has its `handle`.

        Servers take turns. One that refuses the job, or is found to be down before the job has left, is passed over.
        Where a job may have arrived, it is not offered to another server: it would run twice.

        Args:
            job: the job.
            background: whether the server is to keep the job though nobody waits for it. No result comes then.
            precedence: `PRECEDENCE_NORMAL`, `PRECEDENCE_LOW` or `PRECEDENCE_HIGH`.
            timeout: longest time for a server to answer, in seconds; None for no limit. The connection to one that
                does not is given up.

        Raises:
            NoConnectedServersError: no server is connected; a kind of `GearmanError`.
            GearmanError: no server took the job, or none is known to have.
            ConfigurationError: there is no such precedence.
            InvalidDataError: name or unique hold a NUL byte.
        """
        if (precedence, bool(background)) not in _SUBMISSIONS:
            raise ConfigurationError(f"there is no precedence {precedence!r}")
        self._check_running()
        ptype = _SUBMISSIONS[precedence, bool(background)]
        unique = _checked("unique", job.binary_unique or b"")
        if len(unique) == _UNSAFE_UNIQUE and not self._warned_of_unique:
            self._warned_of_unique = True
            self.log.warning("gearmand 1.1.20 corrupts the arguments of jobs whose unique has 64 bytes, as %r", unique)
        data = b"\0".join((_checked("name", job.binary_name), unique, job.binary_arguments))
        problem = ""
        for connection in self._each_connection():
            connection.check_not_reading("submitJob")
            task = SubmitJobTask(job, bool(background))
            job.connection = connection
            packet = Packet(constants.REQ, ptype, data, connection)
            packet.task = task
            try:
                self.sendPacket(packet, connection)
            except DisconnectError as error:
                problem = str(error)
                continue
            except Exception as error:  # of a program that has overridden it
                if task.sent:
                    raise GearmanError(f"{connection}: {error}: the job may be queued there") from error
                self.log.exception("Error in sendPacket")
                problem = str(error)
                continue
            if not task.wait(timeout):
                self._give_up(connection, "no answer to a submission")
                raise GearmanError(f"{connection} did not answer within {timeout:g} s: the job may be queued there")
            if task.error is None:
                return
            if not task.answered:
                raise GearmanError(f"{connection}: {task.error}: the job may be queued there")
            problem = task.error
        job.connection = None
        if not self._active():
            raise NoConnectedServersError("no server is connected")
        raise GearmanError(f"no server took the job: {problem}")

    def _each_connection(self) -> Iterator[Connection]:
        """Return every open connection once, beginning with the one whose turn it is."""
        try:
            connection = self.getConnection()
        except NoConnectedServersError:
            return
        yield connection
        tried = [connection]
        while untried := [other for other in self._active() if other not in tried]:
            with contextlib.suppress(NoConnectedServersError):
                connection = self.getConnection()
            if connection in tried:
                connection = untried[0]
            tried.append(connection)
            yield connection

    def _deliveries(self, packet: Packet, connection: Connection) -> list[Packet]:
        if packet.ptype not in REPORTS:
            return [packet]
        return connection.tracker.route(packet)

    # Hooks

    def handleJobCreated(self, packet: Packet) -> Job | None:
        """Give the oldest submission its handle (``JOB_CREATED``).

        Returns:
            The job; None if no submission is open.
        """
        connection = _connection(packet)
        task = connection.takeTask(SubmitJobTask)
        if not isinstance(task, SubmitJobTask):
            self.log.error("Unasked for: %s", packet)
            return None
        job = task.job
        handle = job.handle = bytes(packet.getArgument(0))
        early = connection.tracker.created(handle, job, background=task.background)
        task.setComplete()
        for report in early:
            for delivery in connection.tracker.route(report):
                self._call_hook(self.handlePacket, delivery)
        return job

    def handleWorkComplete(self, packet: Packet) -> Job:
        """Update a job that is done (``WORK_COMPLETE``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        self._add_data(job, packet)
        job.complete = True
        self._forget(job, packet)
        return job

    def handleWorkFail(self, packet: Packet) -> Job:
        """Update a job that has failed (``WORK_FAIL``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        job.failure = True
        job.complete = True
        self._forget(job, packet)
        return job

    def handleWorkException(self, packet: Packet) -> Job:
        """Update a job that has ended with an exception (``WORK_EXCEPTION``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        job.exception = packet.getArgument(1, True)
        job.failure = True
        job.complete = True
        self._forget(job, packet)
        return job

    def handleWorkData(self, packet: Packet) -> Job:
        """Add a piece of its result to a job (``WORK_DATA``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        self._add_data(job, packet)
        return job

    def handleWorkWarning(self, packet: Packet) -> Job:
        """Add a warning to a job (``WORK_WARNING``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        self._add_data(job, packet)
        job.warning = True
        return job

    def handleWorkStatus(self, packet: Packet) -> Job:
        """Update the progress of a job (``WORK_STATUS``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        _set_progress(job, packet.getArgument(1), packet.getArgument(2))
        return job

    def handleStatusRes(self, packet: Packet) -> Job:
        """Update a job whose status was asked for (``STATUS_RES``).

        Returns:
            The job.

        Raises:
            UnknownJobError: it is not known.
        """
        job = packet.getJob()
        job.known = packet.getArgument(1) == b"1"
        job.running = packet.getArgument(2) == b"1"
        _set_progress(job, packet.getArgument(3), packet.getArgument(4))
        return job

    def handleOptionRes(self, packet: Packet) -> None:
        """Record an option that a server has set (``OPTION_RES``)."""
        connection = _connection(packet)
        connection.handleOptionRes(bytes(packet.getArgument(0)))
        if (task := connection.takeTask(OptionReqTask)) is not None:
            task.setComplete()

    def _add_data(self, job: Job, packet: Packet) -> None:
        if data := packet.getArgument(1, True):
            job.data.append(data)

    def _forget(self, job: Job, packet: Packet) -> None:
        if job.handle is not None:
            _connection(packet).tracker.forget(job.handle)


def _connection(packet: Packet) -> Connection:
    assert packet.connection is not None, "packets that were received have a connection"
    return packet.connection


def _checked(what: str, value: bytes) -> bytes:
    if 0 in value:
        raise InvalidDataError(f"job {what} {value[:64]!r} holds a NUL byte")
    return value


def _set_progress(job: Job, *numbers: bytes | bytearray) -> None:
    """Note the progress of a job, unless it takes more bytes than any number does."""
    if max(map(len, numbers)) <= MAX_NUMBER_SIZE:
        job.numerator, job.denominator = map(bytes, numbers)
        try:
            job.fraction_complete = float(job.numerator) / float(job.denominator)
        except (ValueError, ZeroDivisionError):
            job.fraction_complete = None
