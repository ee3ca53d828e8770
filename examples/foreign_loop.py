"""A client and a worker in a loop that has nothing but a timer and a watcher of descriptors, as Qt and Tk have.

`Loop` is what such a toolkit offers. In Qt these are `QSocketNotifier` and `QTimer`, in Tk `createfilehandler` and
`after`; the classes below it need nothing else.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from math import inf
from typing import Final

from gearproto import ClientConnection, Connection, Outcome, WorkerConnection
from gearproto.events import Event, JobAssigned, JobEnded, RequestId

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Loop:
    """The toolkit: watches descriptors, and has one timer for each of its users."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.timers: dict[object, tuple[float, Callable[[], object]]] = {}
        self.running = False

    def watch(self, sock: socket.socket, events: int, call: Callable[[int], object] | None) -> None:
        """Call a function whenever a socket is ready; None watches it no longer."""
        if sock.fileno() in self.selector.get_map():
            self.selector.unregister(sock)
        if call is not None:
            self.selector.register(sock, events, call)

    def set_timer(self, user: object, seconds: float | None, call: Callable[[], object]) -> None:
        """Call a function once, some seconds from now, in place of what this user has asked for before."""
        if seconds is None:
            self.timers.pop(user, None)
        else:
            self.timers[user] = (time.monotonic() + seconds, call)

    def run(self) -> None:
        """Run until `quit` is called."""
        self.running = True
        while self.running:
            due = min((when for when, _call in self.timers.values()), default=inf)
            timeout = None if due == inf else max(0.0, due - time.monotonic())
            for key, events in self.selector.select(timeout):
                key.data(events)
            now = time.monotonic()
            for user, (when, call) in list(self.timers.items()):
                if when <= now and self.timers.get(user) == (when, call):
                    del self.timers[user]
                    call()

    def quit(self) -> None:
        """Make `run` return."""
        self.running = False


class Peer:
    """A connection of a client or a worker. `settle` is to be called after each request."""

    def __init__(self, loop: Loop, connection: Connection, address: tuple[str, int]) -> None:
        self.loop = loop
        self.connection = connection
        self.unsent = b""
        self.sock = socket.create_connection(address)  # a toolkit that must not block connects in the background
        self.sock.setblocking(False)

    def ready(self, events: int) -> None:
        """Read and write as far as the socket is ready."""
        connection, now = self.connection, time.monotonic()
        try:
            if events & WRITE:
                count = self.sock.send(self.unsent)
                self.unsent = self.unsent[count:]
                connection.data_sent(count, now)
            if events & READ:
                data = self.sock.recv(65536)
                connection.receive_data(data, now) if data else connection.receive_eof()
        except BlockingIOError:
            pass
        except OSError as error:
            connection.connection_lost(str(error))
        self.settle()

    def on_time(self) -> None:
        """Do what is due."""
        self.connection.handle_timeout(time.monotonic())
        self.settle()

    def settle(self) -> None:
        """Take all events, then all output, then the deadline."""
        for event in self.connection.events():
            self.on_event(event)
        self.unsent += self.connection.data_to_send()
        if self.connection.closed:
            self.loop.watch(self.sock, 0, None)
            self.loop.set_timer(self, None, self.on_time)
            self.sock.close()
            return
        self.loop.watch(self.sock, READ | WRITE * bool(self.unsent), self.ready)
        deadline = self.connection.next_deadline()
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        self.loop.set_timer(self, seconds, self.on_time)

    def close(self) -> None:
        """End the connection, and everything that is open on it."""
        self.connection.connection_lost("closed here")
        self.settle()

    def on_event(self, event: Event) -> None:
        """Handle an event; it may make requests, which leave when all events are handled."""
        raise NotImplementedError


class Client(Peer):
    """A client that calls a function with each outcome."""

    connection: ClientConnection

    def __init__(self, loop: Loop, address: tuple[str, int]) -> None:
        super().__init__(loop, ClientConnection(probe_interval=30.0, now=time.monotonic()), address)
        self.callbacks: dict[RequestId, Callable[[Outcome], object]] = {}

    def submit(self, function: bytes, workload: bytes, call: Callable[[Outcome], object]) -> None:
        """Submit a job, and have a function called with its outcome."""
        self.callbacks[self.connection.submit_job(function, workload)] = call
        self.settle()

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobEnded):
            self.callbacks.pop(event.request)(event.outcome)


class Worker(Peer):
    """A worker of one function, which blocks the loop while it runs: let it be short."""

    connection: WorkerConnection

    def __init__(self, loop: Loop, address: tuple[str, int], name: bytes, function: Callable[[bytes], bytes]) -> None:
        super().__init__(loop, WorkerConnection(probe_interval=30.0, now=time.monotonic()), address)
        self.function = function
        self.connection.can_do(name)
        self.connection.grab_job()
        self.settle()

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            try:
                result = self.function(event.workload)
            except Exception as error:
                self.connection.work_exception(event.handle, repr(error).encode())
            else:
                self.connection.work_complete(event.handle, result)
            self.connection.grab_job()


def demo(address: tuple[str, int]) -> list[Outcome]:
    """Run two jobs, with a client and a worker of a server, and return their outcomes."""
    loop = Loop()
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 2:
            loop.quit()

    worker = Worker(loop, address, b"reciprocal", lambda data: b"%d" % (100 // int(data)))
    client = Client(loop, address)
    client.submit(b"reciprocal", b"4", done)
    client.submit(b"reciprocal", b"0", done)
    loop.run()
    client.close()
    worker.close()
    loop.selector.close()
    return outcomes


if __name__ == "__main__":
    print(demo(("127.0.0.1", 4730)))
