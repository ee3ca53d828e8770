"""Between ``gear.Server`` and the job server's engine: the server's hooks see every packet, and choose every job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from gear_sync.gear.admin import ServerAdminRequest
from gear_sync.gear.jobs import ServerJob
from gear_sync.gear.packet import RAW, Packet
from gearproto import Priority
from gearproto.codec import MalformedArgumentsError, MalformedPacket, header_key
from gearproto.event import Event
from gearproto.framing import Line
from gearproto.packets import CanDo, CantDo, JobAssignUniq, PreSleep, WorkStatus
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

from .abilities import FunctionSet
from .joblists import JobList
from .peer import Peer, ServerConnection

__all__ = ["ServerEngine"]

_TYPED: Final = server_decoders()

_T = TypeVar("_T")


class Hooks(Protocol):
    """What the engine tells and asks a `gear.Server`."""

    def call_hook(self, hook: Callable[[_T], object], argument: _T) -> None:
        """Call a hook of the program."""
        ...

    def handlePacket(self, packet: Packet) -> None:
        """Handle a packet."""
        ...

    def handleAdminRequest(self, request: ServerAdminRequest) -> None:
        """Handle a text command."""
        ...

    def choose(self, connection: Peer, *, peek: bool) -> ServerJob | None:
        """Return the next job for a worker."""
        ...

    def wakeConnections(self, job: ServerJob | None = None) -> None:
        """Wake workers for a job."""
        ...

    def wakeConnection(self, connection: ServerConnection) -> None:
        """Wake a worker if there is a job for it."""
        ...

    def peer_connected(self, connection: Peer) -> None:
        """Add a new connection."""
        ...

    def peer_gone(self, connection: Peer) -> None:
        """Remove a connection that has gone."""
        ...

    def jobs_changed(self) -> None:
        """Report how many jobs there are."""
        ...


class ServerEngine(JobObserver):
    """Hands every packet to a `gear.Server`, which hands those that it wants served back (`serve`).

    Belongs to the server's thread. It is the observer and the scheduler of its engine.

    Attributes:
        engine: the job server's logic.
        peers: the connections.
        jobs: the jobs by handle, as the server shows them.
        lists: those that wait, by priority.
    """

    def __init__(self, server: Hooks, call: Callable[[Callable[[], object]], Any], **options: Any) -> None:
        """Begin without peers and jobs.

        Args:
            server: the server.
            call: calls something in the server's thread, and returns, or raises, what that does.
            **options: those of `gearproto.server.Engine`.
        """
        self._server = server
        self._call = call
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
        self._chosen: Job | None = None  # what the next worker gets, without asking the program
        self.lists = tuple(JobList(self, priority) for priority in Priority)

    def call(self, call: Callable[[], _T]) -> _T:
        """Call something in the server's thread; return, or raise, what it does."""
        result: _T = self._call(call)
        return result

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
        if self._chosen is not None:
            return self._chosen
        job = self._server.choose(self.peers[worker.id], peek=peek)
        return None if job is None else self._behind.get(job)

    def first_for(self, connection: object) -> ServerJob | None:
        """Return the next job for a worker, if the program does not choose another."""
        id_ = _peer_of(connection)
        worker = None if id_ is None else self.engine.worker(id_)
        return None if worker is None else self._first_for(worker)

    def _first_for(self, worker: Worker) -> ServerJob | None:
        """Return the next job for a worker, by priority, then by the order of the list."""
        first, place, priority = None, 0, None
        for job in self.engine.queue.candidates(worker):
            waiting = self.lists[job.priority]
            if first is not None and job.priority != priority:
                break
            if waiting.reordered:  # a program has put jobs before those that the engine has before them
                return next(shown for shown in waiting if self._behind[shown].function in worker.abilities)
            shown = self.jobs[job.handle]
            if first is None or waiting.place(shown) < place:
                first, place, priority = shown, waiting.place(shown), job.priority
        return first

    def take_for(self, connection: object) -> ServerJob | None:
        """Give a worker its next job."""
        id_ = _peer_of(connection)
        job = None if id_ is None else self.engine.take(id_)
        return None if job is None else self.jobs[job.handle]

    def assign(self, connection: object, job: ServerJob) -> None:
        """Send a worker a job; it is given the job with that, if a program has not let it be given it before."""
        if (id_ := _peer_of(connection)) is None:
            return
        behind = self._behind.get(job)
        if behind is not None and behind.worker is None:
            self._chosen = behind
            try:
                self.engine.take(id_)
            finally:
                self._chosen = None
        packet = JobAssignUniq(
            job.handle or b"", job.binary_name, job.binary_unique or b"", bytes(job.binary_arguments)
        )
        self.engine.send(id_, packet.encode())

    def withdraw(self, job: ServerJob) -> None:
        """Take a job out of its queue; the server still knows it."""
        self.engine.queue.withdraw(self._behind[job])

    def restore(self, job: ServerJob, priority: int) -> bool:
        """Queue a job that was taken out, perhaps with another priority; return whether it waits there now."""
        behind = self._behind.get(job)
        if behind is None or behind.state is not JobState.WITHDRAWN:
            return False
        behind.priority = priority
        self.engine.queue.restore(behind)
        return True

    # What programs write

    def let_sleep(self, peer: PeerId) -> None:
        """Let a worker sleep, or wake it at once if there is a job for it."""
        self.engine.perform(peer, PreSleep())

    def change_abilities(self, peer: PeerId, added: set[bytes], removed: set[bytes]) -> None:
        """Let a worker be able to run other functions."""
        for name in removed:
            self.engine.perform(peer, CantDo(name))
        for name in added:
            self.engine.perform(peer, CanDo(name))
        if (worker := self.engine.worker(peer)) is not None:
            refused = added.difference(function.name for function in worker.abilities)
            for name in refused:
                self.peers[peer].functions.hide(name)

    def change_functions(self, added: set[bytes], removed: set[bytes]) -> None:
        """Keep functions, or forget those that have neither jobs nor workers."""
        queue = self.engine.queue
        for name in added:
            queue.table.create(name, full=queue.full)
        for name in removed:
            queue.table.drop(queue.functions[name])

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
        """Show a new job, or one whose time has come."""
        if peer is None:
            self._show_waiting(job)
            return
        submitter = None if job.background else self.peers[peer]
        shown = ServerJob(job.handle, job.function.name, job.workload, submitter, job.unique or None)
        self.jobs[job.handle] = shown
        self._behind[shown] = job
        if submitter is not None:
            submitter.related_jobs[job.handle] = shown
        self._show_waiting(job)
        self._server.jobs_changed()

    def _show_waiting(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self.lists[job.priority].show(self.jobs[job.handle], job.turn)

    def taken(self, job: Job, worker: PeerId) -> None:
        """Show a job as one that a worker has got."""
        connection, shown = self.peers[worker], self.jobs[job.handle]
        self.lists[job.priority].hide(shown)
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
        self._show_waiting(job)
        self._server.jobs_changed()

    def ended(self, job: Job, peer: PeerId | None) -> None:
        """Show a job no longer."""
        del peer
        shown = self.jobs.pop(job.handle)
        self.lists[job.priority].hide(shown)
        del self._behind[shown]
        self._running.discard(job.handle)
        for connection in (shown.client_connection, shown.worker_connection):
            if connection is not None:
                connection.related_jobs.pop(job.handle, None)
        self._server.jobs_changed()

    def worker_registered(self, worker: PeerId, function: bytes) -> None:
        """Show a function as one that a worker can run."""
        self.peers[worker].functions.show(function)

    def worker_unregistered(self, worker: PeerId, function: bytes) -> None:
        """Show a function no longer as one that a worker can run."""
        if (connection := self.peers.get(worker)) is not None:  # it may have gone, and is cleared up behind by and by
            connection.functions.hide(function)

    def worker_asleep(self, worker: PeerId) -> None:
        """Show a worker as asleep."""
        self.peers[worker].show_state("SLEEP")

    def worker_awake(self, worker: PeerId) -> None:
        """Show a worker as awake."""
        self.peers[worker].show_state("AWAKE")

    def client_id_set(self, peer: PeerId, client_id: bytes) -> None:
        """Show the name that a peer has given itself."""
        self.peers[peer].client_id = client_id

    # Counting

    def count(self) -> tuple[int, int, int]:
        """Return how many jobs there are, how many run, and how many wait. May be called from any thread."""
        total, running = len(self.jobs), len(self._running)
        return total, running, total - running

    def function_names(self) -> FunctionSet:
        """Return the names of all functions. May be called from any thread."""
        functions = self.engine.queue.functions
        return FunctionSet(lambda added, removed: self.call(lambda: self.change_functions(added, removed)), functions)


def _peer_of(connection: object) -> PeerId | None:
    """Return what the engine knows a connection as; None if it is not one of the server's."""
    return connection.peer if isinstance(connection, Peer) else None
