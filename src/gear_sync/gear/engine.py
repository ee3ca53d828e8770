"""The job server's engine behind `gear.Server`: every packet and every choice goes through the server's hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Unpack

from gearproto.codec import MalformedArgumentsError, MalformedPacket, Spec, header_key
from gearproto.events import Line
from gearproto.packets import JobAssignUniq, SetClientId, WorkStatus
from gearproto.server import Engine, EngineOptions, PeerId, Report, server_decoders
from gearproto.server.jobs import FunctionQueue, Job, JobState, Worker
from gearproto.server.peers import Peer as EnginePeer
from gearproto.server.queue import JobQueue

from .admin import ServerAdminRequest
from .packet import Packet
from .peer import Peer
from .queue import HookedQueue, age
from .serverjob import ServerJob
from .stream import RAW

if TYPE_CHECKING:
    from .server import Server

__all__ = ["HookedEngine"]

_TYPED: Final = server_decoders()


class HookedEngine(Engine):
    """An engine that hands every packet to a `gear.Server`, which hands those that it wants served back (`serve`).

    Belongs to the server's thread.

    Attributes:
        peers: the connections.
        jobs: the jobs by handle, as the server shows them.
    """

    _specs: ClassVar[Mapping[bytes, Spec]] = RAW
    _queue_type: ClassVar[type[JobQueue]] = HookedQueue
    _queue: HookedQueue

    def __init__(
        self,
        server: Server,
        *,
        handle_prefix: bytes,
        epoch_offset: float,
        version: bytes,
        pid: int,
        **options: Unpack[EngineOptions],
    ) -> None:
        """Begin without peers and jobs; the arguments are those of `gearproto.server.Engine`."""
        super().__init__(handle_prefix=handle_prefix, epoch_offset=epoch_offset, version=version, pid=pid, **options)
        self._queue.engine = self
        self._server = server
        self.peers: dict[PeerId, Peer] = {}
        self.jobs: dict[bytes, ServerJob] = {}
        self._behind: dict[ServerJob, Job] = {}  # what the engine knows these as
        self._submitter: Peer | None = None
        self._newest: ServerJob | None = None  # the job that was queued last
        self._running = 0
        self._handlers[Packet] = self._on_packet

    @property
    def chosen(self) -> bool:
        """Whether the program chooses the jobs for workers itself."""
        return self._server.chooses

    @property
    def submitted(self) -> int:
        """How many jobs have been taken since the start."""
        return self._last_job

    # Peers

    def connect(self, now: float, *, address: bytes = b"-", descriptor: int = -1) -> PeerId:
        """Take note of a new connection."""
        id_ = super().connect(now, address=address, descriptor=descriptor)
        peer = self.peers[id_] = Peer(self._server, id_, address.decode("utf-8", "backslashreplace"))
        self._server.peer_connected(peer)
        return id_

    def disconnect(self, peer: PeerId, now: float) -> None:
        """Take note that a connection has gone."""
        gone = self.peers.get(peer)
        if gone is None:
            return
        self._server.peer_gone(gone)
        super().disconnect(peer, now)
        del self.peers[peer]
        gone.gone()

    def waits(self, peer: PeerId) -> bool:
        """Tell whether a peer waits for the results of jobs."""
        found = self._peers.get(peer)
        return found is not None and bool(found.waiting)

    def _peer(self, connection: object) -> EnginePeer | None:
        """Return what the engine knows a connection as; None if it is gone."""
        return self._peers.get(connection.peer) if isinstance(connection, Peer) else None

    # Packets and lines

    def _on_packet(self, peer: EnginePeer, packet: Packet) -> None:
        packet.connection = self.peers[peer.id]
        self._server.call_hook(self._server.handlePacket, packet)

    def serve(self, packet: Packet) -> None:
        """Do what a packet asks for, as the job server does."""
        peer = self._peer(packet.connection)
        spec = _TYPED.get(header_key(bytes(packet.code), packet.ptype))
        if peer is None or spec is None:
            return
        try:
            event = spec.decode(bytes(packet.data))
        except MalformedArgumentsError as error:
            event = MalformedPacket(spec.name, str(error))
        self._submitter = self.peers[peer.id]
        self._handlers[type(event)](peer, event)
        if isinstance(event, Report) and event.packet is WorkStatus:
            self._show_progress(peer, event.handle)

    def _show_progress(self, peer: EnginePeer, handle: bytes) -> None:
        job = self._queue.jobs.get(handle)
        if job is not None and job.worker is peer:
            shown = self.jobs[handle]
            shown.numerator, shown.denominator = (b"%d" % number for number in job.progress)

    def transmit(self, connection: Peer, data: bytes) -> None:
        """Queue output for a peer."""
        if (peer := self._peer(connection)) is not None:
            self._send(peer, data)

    def fail(self, connection: Peer, reason: str) -> None:
        """Close a peer's connection."""
        if (peer := self._peer(connection)) is not None:
            self._fail(peer, reason)

    def _on_line(self, peer: EnginePeer, line: Line) -> None:
        self._check_first_line(peer, line)
        request = ServerAdminRequest(self.peers[peer.id])
        request.command = line.text
        self._server.call_hook(self._server.handleAdminRequest, request)

    def answer(self, request: ServerAdminRequest) -> None:
        """Answer a text command, as the job server does."""
        if (peer := self._peer(request.connection)) is not None:
            super()._on_line(peer, Line(request.command or b""))

    def _on_set_client_id(self, peer: EnginePeer, packet: SetClientId) -> None:
        super()._on_set_client_id(peer, packet)
        self.peers[peer.id].client_id = peer.client_id

    # Choosing jobs

    def choose(self, worker: Worker, *, peek: bool) -> Job | None:
        """Ask the program for the next job of a worker."""
        assert isinstance(worker, EnginePeer)
        job = self._server.choose(self.peers[worker.id], peek=peek)
        return None if job is None else self._behind.get(job)

    def first_for(self, connection: object) -> ServerJob | None:
        """Return the next job for a worker, if the program does not choose another."""
        peer = self._peer(connection)
        job = None if peer is None else self._queue.first_for(peer)
        return None if job is None else self.jobs[job.handle]

    def take_for(self, connection: object) -> ServerJob | None:
        """Give a worker its next job."""
        peer = self._peer(connection)
        job = None if peer is None else self._take(peer)
        return None if job is None else self.jobs[job.handle]

    def assign(self, connection: object, job: ServerJob) -> None:
        """Send a worker the job that it has been given."""
        if (peer := self._peer(connection)) is not None:
            packet = JobAssignUniq(
                job.handle or b"", job.binary_name, job.binary_unique or b"", bytes(job.binary_arguments)
            )
            self._send(peer, packet.encode())

    def queued(self, priority: int) -> list[ServerJob]:
        """Return the jobs of a priority that wait for a worker, in their order. May be called from any thread."""
        pairs = list(self._behind.items())
        waiting = [(shown, job) for shown, job in pairs if job.state is JobState.QUEUED and job.priority == priority]
        return [shown for shown, _job in sorted(waiting, key=lambda pair: age(pair[1]))]

    def withdraw(self, job: ServerJob) -> None:
        """Take a job out of its queue."""
        if (behind := self._behind.get(job)) is not None:
            self._queue.withdraw(behind)

    def restore(self, job: ServerJob) -> None:
        """Queue a job again that was taken out."""
        if (behind := self._behind.get(job)) is not None:
            self._queue.restore(behind)

    # Waking workers

    def _wake(self, function: FunctionQueue, misses: int = 0) -> None:
        job = self._newest
        if job is not None and job.binary_name == function.name and not misses:
            self._server.call_hook(self._server.wakeConnections, job)
        else:
            self.wake_for(function.name, misses)

    def wake_for(self, name: bytes, misses: int = 0) -> None:
        """Wake a worker for one more job of a function; more if others were woken in vain."""
        function = self._queue.functions.get(name)
        if function is None:
            return
        if not self.chosen:
            super()._wake(function, misses)
            return
        count = self._wakeups(misses)
        for worker in list(function.sleepers):
            if not worker.asleep:
                del function.sleepers[worker]
            elif self.wake_if_wanted(worker, misses) and count is not None:
                count -= 1
                if not count:
                    return

    def wake_all(self) -> None:
        """Wake every sleeping worker that there is a job for."""
        for connection in list(self.peers.values()):
            self._server.call_hook(self._server.wakeConnection, connection)

    def wake_one(self, connection: object) -> None:
        """Wake a worker if it sleeps and there is a job for it."""
        peer = self._peer(connection)
        if peer is not None and peer.asleep:
            self.wake_if_wanted(peer)

    def wake_if_wanted(self, worker: Worker, misses: int = 0) -> bool:
        """Wake a sleeping worker if there is a job for it; return whether there is."""
        function = self._queue.function_for(worker)
        if function is not None:
            self._wake_up(worker, function, misses)
        return function is not None

    def _wake_up(self, worker: Worker, function: FunctionQueue, misses: int = 0) -> None:
        super()._wake_up(worker, function, misses)
        self.woke_up(worker)

    # What the queue tells

    def added(self, job: Job) -> None:
        """Take note of a new job."""
        submitter = None if job.background else self._submitter
        shown = ServerJob(job.handle, job.function.name, job.workload, submitter, job.unique or None)
        self.jobs[job.handle] = shown
        self._behind[shown] = job
        self._newest = shown
        if submitter is not None:
            submitter.related_jobs[job.handle] = shown
        self._server.jobs_changed()

    def ended(self, job: Job) -> None:
        """Take note that a job has ended."""
        shown = self.jobs.pop(job.handle)
        del self._behind[shown]
        self._running -= job.worker is not None
        if self._newest is shown:
            self._newest = None
        for connection in (shown.client_connection, shown.worker_connection):
            if connection is not None:
                connection.related_jobs.pop(job.handle, None)
        self._server.jobs_changed()

    def taken(self, worker: Worker, job: Job) -> None:
        """Take note that a worker has got a job."""
        assert isinstance(worker, EnginePeer)
        connection, shown = self.peers[worker.id], self.jobs[job.handle]
        shown.worker_connection = connection
        shown.running = True
        self._running += 1
        connection.related_jobs[job.handle] = shown
        self._server.jobs_changed()

    def given_back(self, job: Job) -> None:
        """Take note that a worker has lost a job."""
        shown = self.jobs[job.handle]
        if shown.worker_connection is not None:
            shown.worker_connection.related_jobs.pop(job.handle, None)
        shown.worker_connection = None
        shown.running = False
        self._running -= 1
        self._newest = shown
        self._server.jobs_changed()

    def can_do(self, worker: Worker, name: bytes) -> None:
        """Take note that a worker can run a function."""
        assert isinstance(worker, EnginePeer)
        self.peers[worker.id].functions.add(name)

    def cannot_do(self, worker: Worker, name: bytes) -> None:
        """Take note that a worker can no longer run a function."""
        assert isinstance(worker, EnginePeer)
        if (connection := self.peers.get(worker.id)) is not None:
            connection.functions.discard(name)

    def fell_asleep(self, worker: Worker) -> None:
        """Take note that a worker sleeps."""
        assert isinstance(worker, EnginePeer)
        self.peers[worker.id].changeState("SLEEP")

    def woke_up(self, worker: Worker) -> None:
        """Take note that a worker is awake."""
        assert isinstance(worker, EnginePeer)
        self.peers[worker.id].changeState("AWAKE")

    # Counting

    def count(self) -> tuple[int, int, int]:
        """Return how many jobs there are, how many run, and how many wait. May be called from any thread."""
        total, running = len(self.jobs), self._running
        return total, running, total - running

    def function_names(self) -> set[bytes]:
        """Return the names of all functions. May be called from any thread."""
        return set(self._queue.functions)
