"""``gear.Worker``: takes jobs from servers, one whenever somebody asks for one."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, Queue
from typing import Any, ClassVar, Final

from gearproto.event import Event
from gearproto.packets import JobAssign, NoJob, Noop
from gearproto.worker import Grab, GrabTurns, grab_cycle

from . import constants
from .base import BaseClient
from .connection import Connection
from .errors import DisconnectError, InterruptedError, InvalidDataError
from .jobs import FunctionRecord, TextWorkerJob, WorkerJob
from .packet import Packet
from .text import convert_to_bytes, encode

__all__ = ["TextWorker", "Worker"]

_GRAB_TIMEOUT: Final = 1.0  # seconds that a server may take to answer before others are asked in its place
_LAST_WAIT: Final = 5.0  # seconds; how long servers may take to answer once nobody waits for a job any more
_STATES: Final = {"IDLE": Grab.IDLE, "GRAB_WAIT": Grab.ASKED, "SLEEP": Grab.ASLEEP}
_NAMES: Final = {state: name for name, state in _STATES.items()}
_CYCLE: Final = grab_cycle(asks_when_woken=False)
_NUMBER: Final = re.compile(rb"[0-9]+(\.[0-9]*)?")


class _JobQueue(Queue["WorkerJob | None"]):
    """Jobs that no thread has taken; a thread that waits for one is woken."""

    def __init__(self, changed: threading.Condition) -> None:
        super().__init__()
        self._changed = changed

    def put(self, item: WorkerJob | None, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        with self._changed:
            self._changed.notify_all()


class Worker(BaseClient):
    """A Gearman worker.

    ```python
    worker = gear.Worker("reverser")
    worker.addServer("gearman.example.com")
    worker.registerFunction("reverse")

    while True:
        job = worker.getJob()
        job.sendWorkComplete(job.arguments[::-1])
    ```

    Attributes:
        job_class: class attribute: what `getJob` returns.
        functions: the functions that it has registered, by name in bytes.
        worker_id: its name, as it was given.
        waiting_for_jobs: how many threads wait in `getJob`.
        job_queue: jobs that have been assigned, and not been taken by a thread.
        job_lock: guards the two.
    """

    _log_name: ClassVar[str] = "Worker"
    job_class: ClassVar[type[WorkerJob]] = WorkerJob

    def __init__(self, client_id: str | bytes | None = None, worker_id: str | bytes | None = None) -> None:
        """Begin without servers.

        Args:
            client_id: its name, which administrators see.
            worker_id: the same, by its old name.

        Raises:
            Exception: there is neither.
        """
        name = worker_id if client_id is None else client_id
        if name is None:
            raise Exception("a worker needs a client_id")
        super().__init__(name)
        self.worker_id = name
        self.functions: dict[bytes, FunctionRecord] = {}
        self.waiting_for_jobs = 0
        self.job_lock = threading.RLock()
        self._jobs_changed = threading.Condition(self.job_lock)
        self.job_queue: Queue[WorkerJob | None] = _JobQueue(self._jobs_changed)
        self._stops = 0
        self._turns: GrabTurns[Connection] = GrabTurns(_state, _GRAB_TIMEOUT)
        self._start()

    def __repr__(self) -> str:
        return f"<gear.Worker 0x{id(self):x}>"

    # Functions

    def registerFunction(self, name: str | bytes, timeout: float | str | bytes | None = None) -> None:
        """Tell all servers, and those that are connected to from now on, of a function that this worker can run.

        Args:
            name: the function.
            timeout: how many milliseconds a job of it may take before the server gives it to another worker; None for
                as many as it likes.

        Raises:
            InvalidDataError: the name holds a NUL byte, or the time-out is not a number. Nothing has changed then.
        """
        record = FunctionRecord(name, timeout)
        key, packet = _ability(record)
        with self.broadcast_lock:
            self.functions[key] = record
            self.broadcast(packet)
        self._look_again()

    def unRegisterFunction(self, name: str | bytes) -> None:
        """Tell all servers that this worker can no longer run a function.

        Raises:
            KeyError: it is not registered.
        """
        key = convert_to_bytes(name)
        assert isinstance(key, bytes)
        with self.broadcast_lock:
            del self.functions[key]
            self.broadcast(Packet(constants.REQ, constants.CANT_DO, key))

    def setFunctions(self, functions: Iterable[FunctionRecord]) -> None:
        """Replace all functions that this worker can run.

        Args:
            functions: the functions.

        Raises:
            InvalidDataError: one is not a `FunctionRecord`, or cannot be registered. Nothing has changed then.
        """
        records: dict[bytes, tuple[FunctionRecord, Packet]] = {}
        for record in functions:
            if not isinstance(record, FunctionRecord):
                raise InvalidDataError(f"a function has to be a FunctionRecord, not {type(record).__name__}")
            key, packet = _ability(record)
            records[key] = record, packet
        with self.broadcast_lock:
            self.functions = {key: record for key, (record, _packet) in records.items()}
            self.broadcast(Packet(constants.REQ, constants.RESET_ABILITIES, b""))
            for _record, packet in records.values():
                self.broadcast(packet)
        self._look_again()

    def _onConnect(self, conn: Connection) -> None:
        conn.sendPacket(Packet(constants.REQ, constants.SET_CLIENT_ID, self.client_id or b"", conn))
        for record in tuple(self.functions.values()):
            _key, packet = _ability(record)
            conn.sendPacket(packet)
        conn.changeState("IDLE")

    def _onActiveConnection(self, conn: Connection) -> None:
        with self.job_lock:
            self._turns.add(conn)
            self._updateStateMachines()

    # Jobs

    def getJob(self) -> Any:
        """Wait for a job. Any number of threads may, and each job goes to one of them.

        Servers are asked for jobs only while somebody waits. Their loss and return goes unnoticed here.

        Returns:
            The job, a `job_class`.

        Raises:
            InterruptedError: `stopWaitingForJobs` or `shutdown` was called.
        """
        with self._jobs_changed:
            stops = self._stops
            self.waiting_for_jobs += 1
            try:
                while self.running and self._stops == stops:
                    with contextlib.suppress(Empty):
                        if (job := self.job_queue.get_nowait()) is not None:
                            return job
                        break  # as programs stop a worker that know how `gear` does
                    self._updateStateMachines()
                    self._jobs_changed.wait()
            finally:
                if self._stops == stops:  # otherwise it has been taken off
                    self.waiting_for_jobs -= 1
        raise InterruptedError("no more jobs are waited for")

    def stopWaitingForJobs(self) -> None:
        """Make every `getJob` that waits raise `InterruptedError`.

        A server that has been asked for a job may take a few seconds to answer; then the connection is given up, so
        that it gives the job to another worker. A job that comes meanwhile is for the next call of `getJob`.
        """
        with self._jobs_changed:
            self._stops += 1
            self.waiting_for_jobs = 0
            self._sleep_no_longer()
            self._jobs_changed.notify_all()
            if threading.current_thread() is not self.poll_thread:
                self._jobs_changed.wait_for(lambda: not self._asked(), _LAST_WAIT)
            late = self._asked()
            if not self.waiting_for_jobs:
                self._sleep_no_longer()  # where the answer was NO_JOB
        for connection in late:
            self._give_up(connection, "no answer to GRAB_JOB_UNIQ")

    def _shutdown(self) -> None:
        self.stopWaitingForJobs()

    def _look_again(self) -> None:
        """Ask servers again that had no job when they were asked last."""
        with self.job_lock:
            self._sleep_no_longer()
            self._updateStateMachines()

    def _sleep_no_longer(self) -> None:
        for connection in self._active():
            if connection.state == "SLEEP":
                connection.changeState("IDLE")

    def _asked(self) -> list[Connection]:
        """Return the connections that have been asked for a job, and have not answered."""
        return [connection for connection in self._turns if _state(connection) is Grab.ASKED]

    def _updateStateMachines(self) -> None:
        """Ask as many servers for a job as there are threads that nothing has been asked for."""
        with self.job_lock:
            wanted = self.waiting_for_jobs - self.job_queue.qsize()
            asked = self._turns.take(wanted, time.monotonic(), lambda connection: connection.state == "IDLE")
            for connection in asked:
                connection.changeState("GRAB_WAIT")
            for connection in asked:
                self._try_to(self._sendGrabJobUniq, connection)

    def _sendGrabJobUniq(self, connection: Connection | None = None) -> None:
        """Ask a server for a job, or all of them."""
        if connection is None:
            self.broadcast(Packet(constants.REQ, constants.GRAB_JOB_UNIQ, b""))
            return
        with self.job_lock:
            if connection.state == "SLEEP":
                connection.changeState("GRAB_WAIT")
        self.sendPacket(Packet(constants.REQ, constants.GRAB_JOB_UNIQ, b"", connection), connection)

    def _sendPreSleep(self, connection: Connection) -> None:
        """Tell a server that this worker sleeps until it is woken."""
        self.sendPacket(Packet(constants.REQ, constants.PRE_SLEEP, b"", connection), connection)

    def _try_to(self, send: Callable[[Connection], object], connection: Connection) -> None:
        """Send a packet without waiting for the socket to take it; a connection where that fails is taken for lost."""
        try:
            send(connection)
        except DisconnectError as error:
            self._give_up(connection, str(error))
        except Exception as error:  # of the program; what has been asked for is unknown
            self.log.exception("Error in a method that sends")
            self._give_up(connection, f"sending failed: {error}")
        else:
            self._waker.wake()  # for the thread that reads: it may have to send the rest, and knows when to ask another

    def _advance(self, packet: Packet, received: type[Event]) -> None:
        """Go one step through the cycle of a connection, and ask servers for what is wanted then."""
        connection = packet.connection
        assert connection is not None
        with self.job_lock:
            before = _state(connection)
            after, answer = _CYCLE[before, received]
            if after is not before:
                connection.changeState(_NAMES[after])
            if before is Grab.ASKED:
                self._jobs_changed.notify_all()
            if answer:
                self._try_to(self._sendPreSleep, connection)
            self._updateStateMachines()

    def _on_lost(self, connection: Connection) -> None:
        with self._jobs_changed:
            self._turns.remove(connection)
            self._jobs_changed.notify_all()
            self._updateStateMachines()

    def _next_deadline(self) -> float | None:
        with self.job_lock:
            return self._turns.next_deadline()

    def _on_deadline(self) -> None:
        self._updateStateMachines()

    # Hooks

    def handleNoop(self, packet: Packet) -> None:
        """Ask a server that has woken this worker for a job, if somebody waits for one (``NOOP``)."""
        self._advance(packet, Noop)

    def handleNoJob(self, packet: Packet) -> None:
        """Go to sleep where there is no job, and ask another server (``NO_JOB``)."""
        self._advance(packet, NoJob)

    def handleJobAssign(self, packet: Packet) -> Any:
        """Hand a job to a thread that waits for one (``JOB_ASSIGN``).

        Returns:
            The job.
        """
        handle, name, arguments = (packet.getArgument(index, last=index == 2) for index in range(3))
        return self._assign(packet, handle, name, b"", arguments)

    def handleJobAssignUnique(self, packet: Packet) -> Any:
        """Hand a job to a thread that waits for one (``JOB_ASSIGN_UNIQ``).

        Returns:
            The job.
        """
        handle, name, unique, arguments = (packet.getArgument(index, last=index == 3) for index in range(4))
        return self._assign(packet, handle, name, unique, arguments)

    def _assign(
        self,
        packet: Packet,
        handle: bytes | bytearray,
        name: bytes | bytearray,
        unique: bytes | bytearray,
        arguments: bytes | bytearray,
    ) -> WorkerJob:
        connection = packet.connection
        assert connection is not None
        job = self.job_class(bytes(handle), bytes(name), arguments, bytes(unique) or None)
        job.assign(connection)
        with self._jobs_changed:
            self.job_queue.put(job)
            self._advance(packet, JobAssign)
        return job


class TextWorker(Worker):
    """A worker whose jobs have text for arguments and unique, and take text in their reports."""

    job_class: ClassVar[type[WorkerJob]] = TextWorkerJob


def _state(connection: Connection) -> Grab:
    """Return where a connection is in its cycle; one that is not open wants nothing."""
    return _STATES.get(connection.state, Grab.IDLE)


def _ability(record: FunctionRecord) -> tuple[bytes, Packet]:
    """Return the name of a function, and the packet that registers it."""
    name = convert_to_bytes(record.name)
    assert isinstance(name, bytes)
    if 0 in name:
        raise InvalidDataError(f"function name {name[:64]!r} holds a NUL byte")
    if record.timeout is None:
        return name, Packet(constants.REQ, constants.CAN_DO, name)
    given = record.timeout
    timeout = given if isinstance(given, bytes) else encode(str(given))
    if _NUMBER.fullmatch(timeout) is None:
        raise InvalidDataError(f"the time-out of function {name!r} has to be a number, not {given!r}")
    return name, Packet(constants.REQ, constants.CAN_DO_TIMEOUT, name + b"\0" + timeout)
