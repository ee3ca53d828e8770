"""Between ``gear.Server`` and the job server's engine: the server's hooks see every packet, and choose every job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gear_sync.gear.admin import ServerAdminRequest
from gear_sync.gear.jobs import ServerJob
from gear_sync.gear.packet import RAW, Packet
from gearproto.codec import MalformedArgumentsError, MalformedPacket, header_key
from gearproto.event import Event
from gearproto.framing import Line
from gearproto.packets import JobAssignUniq, WorkStatus
from gearproto.server import (
    Engine,
    Job,
    JobObserver,
    JobQueue,
    JobState,
    PeerId,
    Report,
    Waking,
    Worker,
    server_decoders,
)
from gearproto.server.jobs import FunctionQueue

from .peer import Peer
from .queue import age, first_for

if TYPE_CHECKING:
    from gear_sync.gear.server import Server

__all__ = ["ServerEngine"]

_TYPED: Final = server_decoders()


class ServerEngine(JobObserver):
    """Hands every packet to a `gear.Server`, which hands those that it wants served back (`serve`).

    Belongs to the server's thread. It is the observer and the scheduler of its engine.

    Attributes:
        engine: the job server's logic.
        peers: the connections.
        jobs: the jobs by handle, as the server shows them.
    """

    def __init__(self, server: Server, **options: Any) -> None:
        """Begin without peers and jobs.

        Args:
            server: the server.
            **options: those of `gearproto.server.Engine`.
        """
        self._server = server
        self.engine = Engine(
            observer=self,
            scheduler=self,
            wake_policy=self._on_wake,
            on_request=self._on_request,
            on_line=self._on_line,
            packets=RAW,
            **options,
        )
        self.peers: dict[PeerId, Peer] = {}
        self.jobs: dict[bytes, ServerJob] = {}
        self._behind: dict[ServerJob, Job] = {}  # what the engine knows these as
        self._running: set[bytes] = set()

    # Peers

    def connected(self, peer: Peer) -> None:
        """Begin with a new connection."""
        self.peers[peer.peer] = peer
        self._server.peer_connected(peer)

    def disconnected(self, id_: PeerId) -> None:
        """Give up a connection that has been closed."""
        peer = self.peers.pop(id_)
        self._server.peer_gone(peer)
        peer.gone()

    # Packets and lines

    def _on_request(self, id_: PeerId, request: Event) -> bool:
        if not isinstance(request, Packet):
            return False
        request.connection = self.peers[id_]
        self._server.call_hook(self._server.handlePacket, request)
        return True

    def serve(self, packet: Packet) -> None:
        """Do what a packet asks for, as the job server does."""
        spec = _TYPED.get(header_key(bytes(packet.code), packet.ptype))
        id_ = _peer_of(packet.connection)
        if spec is None or id_ is None:
            return
        try:
            event = spec.decode(bytes(packet.data))
        except MalformedArgumentsError as error:
            event = MalformedPacket(spec.name, str(error))
        self.engine.perform(id_, event)
        if isinstance(event, Report) and event.packet is WorkStatus:
            self._show_progress(id_, event.handle)

    def _show_progress(self, id_: PeerId, handle: bytes) -> None:
        job = self.engine.queue.jobs.get(handle)
        if job is not None and job.worker is not None and job.worker.id == id_:
            shown = self.jobs[handle]
            shown.numerator, shown.denominator = (b"%d" % number for number in job.progress)

    def _on_line(self, id_: PeerId, line: bytes) -> bool:
        request = ServerAdminRequest(self.peers[id_])
        request.command = line
        self._server.call_hook(self._server.handleAdminRequest, request)
        return True

    def answer(self, request: ServerAdminRequest) -> None:
        """Answer a text command, as the job server does."""
        if (id_ := _peer_of(request.connection)) is not None:
            self.engine.perform(id_, Line(request.command or b""))

    # Choosing jobs

    def next_job(self, queue: JobQueue, worker: Worker, *, peek: bool) -> Job | None:
        """Ask the program for the next job of a worker."""
        del queue
        job = self._server.choose(self.peers[worker.id], peek=peek)
        return None if job is None else self._behind.get(job)

    def first_for(self, connection: object) -> ServerJob | None:
        """Return the next job for a worker, if the program does not choose another."""
        id_ = _peer_of(connection)
        worker = None if id_ is None else self.engine.worker(id_)
        job = None if worker is None else first_for(self.engine.queue, worker)
        return None if job is None else self.jobs[job.handle]

    def take_for(self, connection: object) -> ServerJob | None:
        """Give a worker its next job."""
        id_ = _peer_of(connection)
        job = None if id_ is None else self.engine.take(id_)
        return None if job is None else self.jobs[job.handle]

    def assign(self, connection: object, job: ServerJob) -> None:
        """Send a worker the job that it has been given."""
        if (id_ := _peer_of(connection)) is None:
            return
        packet = JobAssignUniq(
            job.handle or b"", job.binary_name, job.binary_unique or b"", bytes(job.binary_arguments)
        )
        self.engine.send(id_, packet.encode())

    def waiting(self, priority: int) -> list[ServerJob]:
        """Return the jobs of a priority that wait for a worker, in their order. May be called from any thread."""
        pairs = list(self._behind.items())
        waiting = [(shown, job) for shown, job in pairs if job.state is JobState.QUEUED and job.priority == priority]
        return [shown for shown, _job in sorted(waiting, key=lambda pair: age(pair[1]))]

    def withdraw(self, job: ServerJob) -> None:
        """Take a job out of its queue."""
        if (behind := self._behind.get(job)) is not None:
            self.engine.queue.withdraw(behind)

    def restore(self, job: ServerJob) -> None:
        """Queue a job again that was taken out."""
        if (behind := self._behind.get(job)) is not None:
            self.engine.queue.restore(behind)

    # Waking workers

    def _on_wake(self, waking: Waking, function: FunctionQueue, job: Job | None, misses: int) -> None:
        """Let the program wake workers for a job; for one that others were woken for in vain it has been asked."""
        if job is not None:
            self._server.call_hook(self._server.wakeConnections, self.jobs[job.handle])
        else:
            waking.wake_sleepers(function, misses)

    def wake_for(self, name: bytes) -> None:
        """Wake a worker for one more job of a function."""
        function = self.engine.queue.functions.get(name)
        if function is not None:
            self.engine.waking.wake_sleepers(function)

    def wake_all(self) -> None:
        """Wake every sleeping worker that there is a job for."""
        for connection in list(self.peers.values()):
            self._server.call_hook(self._server.wakeConnection, connection)

    def wake_one(self, connection: object) -> None:
        """Wake a worker if it sleeps and there is a job for it."""
        if (id_ := _peer_of(connection)) is not None:
            self.engine.wake(id_)

    # What the engine tells

    def queued(self, job: Job, peer: PeerId | None) -> None:
        """Show a new job."""
        if peer is None:
            return
        submitter = None if job.background else self.peers[peer]
        shown = ServerJob(job.handle, job.function.name, job.workload, submitter, job.unique or None)
        self.jobs[job.handle] = shown
        self._behind[shown] = job
        if submitter is not None:
            submitter.related_jobs[job.handle] = shown
        self._server.jobs_changed()

    def taken(self, job: Job, worker: PeerId) -> None:
        """Show a job as one that a worker has got."""
        connection, shown = self.peers[worker], self.jobs[job.handle]
        shown.worker_connection = connection
        shown.running = True
        self._running.add(job.handle)
        connection.related_jobs[job.handle] = shown
        self._server.jobs_changed()

    def given_back(self, job: Job, worker: PeerId) -> None:
        """Show a job as one that waits again."""
        shown = self.jobs[job.handle]
        if (connection := self.peers.get(worker)) is not None:
            connection.related_jobs.pop(job.handle, None)
        shown.worker_connection = None
        shown.running = False
        self._running.discard(job.handle)
        self._server.jobs_changed()

    def ended(self, job: Job, peer: PeerId | None) -> None:
        """Show a job no longer."""
        del peer
        shown = self.jobs.pop(job.handle)
        del self._behind[shown]
        self._running.discard(job.handle)
        for connection in (shown.client_connection, shown.worker_connection):
            if connection is not None:
                connection.related_jobs.pop(job.handle, None)
        self._server.jobs_changed()

    def worker_registered(self, worker: PeerId, function: bytes) -> None:
        """Show a function as one that a worker can run."""
        self.peers[worker].functions.add(function)

    def worker_unregistered(self, worker: PeerId, function: bytes) -> None:
        """Show a function no longer as one that a worker can run."""
        if (connection := self.peers.get(worker)) is not None:  # it may have gone, and is cleared up behind by and by
            connection.functions.discard(function)

    def worker_asleep(self, worker: PeerId) -> None:
        """Show a worker as asleep."""
        self.peers[worker].changeState("SLEEP")

    def worker_awake(self, worker: PeerId) -> None:
        """Show a worker as awake."""
        self.peers[worker].changeState("AWAKE")

    def client_id_set(self, peer: PeerId, client_id: bytes) -> None:
        """Show the name that a peer has given itself."""
        self.peers[peer].client_id = client_id

    # Counting

    def count(self) -> tuple[int, int, int]:
        """Return how many jobs there are, how many run, and how many wait. May be called from any thread."""
        total, running = len(self.jobs), len(self._running)
        return total, running, total - running

    def function_names(self) -> set[bytes]:
        """Return the names of all functions. May be called from any thread."""
        return set(self.engine.queue.functions)


def _peer_of(connection: object) -> PeerId | None:
    """Return what the engine knows a connection as; None if it is not one of the server's."""
    return connection.peer if isinstance(connection, Peer) else None
