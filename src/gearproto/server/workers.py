"""What workers ask a server for, but for their reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from gearproto.codec import RESPONSE
from gearproto.event import Event
from gearproto.packets import (
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    NoJob,
    PreSleep,
    ResetAbilities,
    SetClientId,
)

from .answering import Answering
from .chores import emptied
from .clients import check_name
from .jobs import FunctionQueue
from .lifecycle import Lifecycle
from .observing import JobObserver
from .output import BIG, Output
from .peers import Peer
from .queue import JobQueue
from .waking import Waking

__all__ = ["WorkerRequests"]

_MIN_JOB_TIMEOUT: Final = 1.0  # seconds; gearmand raises shorter timeouts to this
_MAX_CLIENT_ID_SIZE: Final = 127

_NUL: Final = b"\0"
_NO_JOB: Final = NoJob().encode()
_ASSIGN: Final = RESPONSE + JobAssign.spec.number.to_bytes(4, "big")
_ASSIGN_UNIQ: Final = RESPONSE + JobAssignUniq.spec.number.to_bytes(4, "big")
_ASSIGN_ALL: Final = RESPONSE + JobAssignAll.spec.number.to_bytes(4, "big")


class WorkerRequests:
    """Serves the requests of workers.

    Attributes:
        handlers: what to call for each class of request.
    """

    def __init__(
        self,
        queue: JobQueue,
        output: Output,
        lifecycle: Lifecycle,
        waking: Waking,
        answering: Answering,
        *,
        max_functions: int,
        observer: JobObserver | None,
    ) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue answers.
            lifecycle: hands jobs out.
            waking: the workers that sleep.
            answering: what takes long.
            max_functions: how many functions one worker may register.
            observer: who is told.
        """
        self._queue = queue
        self._output = output
        self._send = output.send
        self._take = lifecycle.take
        self._waking = waking
        self._answering = answering
        self._max_functions = max_functions
        self._observer = observer
        self.handlers: dict[type[Event], Callable[[Peer, Any], None]] = {
            CanDo: self._on_can_do,
            CanDoTimeout: self._on_can_do,
            CantDo: self._on_cant_do,
            ResetAbilities: self._on_reset_abilities,
            PreSleep: self._on_pre_sleep,
            GrabJob: self._on_grab_job,
            GrabJobUniq: self._on_grab_job_uniq,
            GrabJobAll: self._on_grab_job_all,
            SetClientId: self._on_set_client_id,
            AllYours: self._on_all_yours,
        }

    # What a worker can do

    def _on_can_do(self, peer: Peer, packet: CanDo | CanDoTimeout) -> None:
        if not check_name(self._output, peer, packet, packet.function):
            return
        timeout = None
        if isinstance(packet, CanDoTimeout) and packet.timeout > 0:
            timeout = max(_MIN_JOB_TIMEOUT, packet.timeout / 1000)
        full = self._queue.full
        if (full or len(peer.abilities) >= self._max_functions) and self._ability(peer, packet.function) is None:
            why = "memory limit of the server" if full else f"limit of {self._max_functions} functions per worker"
            self._output.send_error(peer, b"TOO_MANY_FUNCTIONS", f"{packet.spec.name}: {why}".encode())
            return
        wanted = self._queue.register(peer, self._queue.table.function(packet.function), timeout)
        if self._observer is not None:
            self._observer.worker_registered(peer.id, packet.function)
        if wanted:
            self._waking.wake_if_wanted(peer)

    def _ability(self, peer: Peer, name: bytes) -> FunctionQueue | None:
        """Return a function if a worker can run it."""
        function = self._queue.functions.get(name)
        return function if function in peer.abilities else None

    def _on_cant_do(self, peer: Peer, packet: CantDo) -> None:
        if (function := self._ability(peer, packet.function)) is not None:
            self.unregister(peer, function)

    def _on_reset_abilities(self, peer: Peer, _packet: ResetAbilities) -> None:
        self._answering.begin(peer, self._unregister_all(peer))

    def _unregister_all(self, peer: Peer) -> Iterator[bytes]:
        """Forget all abilities step by step, as there may be very many; the steps answer nothing."""
        for function in emptied(peer.abilities):
            self.unregister(peer, function)
            yield b""

    def unregister(self, peer: Peer, function: FunctionQueue) -> None:
        """Forget an ability. Jobs in hand stay with the worker: it may well end them, and none runs twice for that."""
        self._queue.unregister(peer, function)
        if self._observer is not None:
            self._observer.worker_unregistered(peer.id, function.name)
        if peer.woken_for is function:
            self._waking.pass_on(peer, None)

    def _on_set_client_id(self, peer: Peer, packet: SetClientId) -> None:
        peer.client_id = packet.client_id[:_MAX_CLIENT_ID_SIZE]
        if self._observer is not None:
            self._observer.client_id_set(peer.id, peer.client_id)

    # Jobs

    def _on_all_yours(self, peer: Peer, packet: AllYours) -> None:
        """Do nothing: it would spare the wake-up of a worker that has no other server."""

    def _on_pre_sleep(self, peer: Peer, _packet: PreSleep) -> None:
        self._waking.sleep(peer)

    def _on_grab_job(self, peer: Peer, _packet: GrabJob) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        else:
            self._assign(peer, _ASSIGN, (job.handle, job.function.name, b""), job.workload)

    def _on_grab_job_uniq(self, peer: Peer, _packet: GrabJobUniq) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        else:
            self._assign(peer, _ASSIGN_UNIQ, (job.handle, job.function.name, job.unique, b""), job.workload)

    def _on_grab_job_all(self, peer: Peer, _packet: GrabJobAll) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        elif job.reducer:
            head = (job.handle, job.function.name, job.unique, job.reducer, b"")
            self._assign(peer, _ASSIGN_ALL, head, job.workload)
        else:
            self._assign(peer, _ASSIGN_UNIQ, (job.handle, job.function.name, job.unique, b""), job.workload)

    def _assign(self, peer: Peer, kind: bytes, arguments: tuple[bytes, ...], workload: bytes) -> None:
        head = _NUL.join(arguments)  # ends in a NUL, as its last argument is empty
        size = (len(head) + len(workload)).to_bytes(4, "big")
        if len(workload) < BIG:
            self._send(peer, kind + size + head + workload)
        else:
            self._send(peer, kind + size + head)
            self._send(peer, workload)
