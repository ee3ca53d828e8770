"""Networks of job servers, clients and workers of one test, over TCP or over pipes in memory."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, TypeVar

import anyio
import anyio.abc
from anyio.streams.stapled import StapledObjectStream

import gear_anyio
import gear_sync
from gearproto.addresses import Address

from .idioms import AnyClient, AnyWorker, Idiom, ThreadedWorker, in_thread, make_client, make_worker, until, working
from .servers import Gearmand, Kind, OurServer, RunningServer

__all__ = ["BACKENDS", "Backend", "Connector", "Network", "NetworkServer", "open_network", "pipe"]

_T = TypeVar("_T")
Backend = Literal["ours", "gearmand", "pipes"]
BACKENDS: Final[tuple[Backend, ...]] = ("ours", "gearmand", "pipes")


def pipe(size: float = 0) -> tuple[StapledObjectStream[bytes], StapledObjectStream[bytes]]:
    """Return the two ends of a pipe in memory, which holds some chunks each way before sending blocks."""
    to_left, from_right = anyio.create_memory_object_stream[bytes](size)
    to_right, from_left = anyio.create_memory_object_stream[bytes](size)
    return StapledObjectStream(to_right, from_right), StapledObjectStream(to_left, from_left)


class NetworkServer(ABC):
    """A job server that runs until `close`.

    Attributes:
        address: its address, for clients and workers.
        kind: which server it is.
    """

    address: tuple[str, int]
    kind: Kind

    @abstractmethod
    async def restart(self) -> None:
        """Stop the server and start it again at the same address; it forgets all jobs."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the server."""


class Network(ABC):
    """The servers, clients and workers of a test.

    Attributes:
        idiom: how clients and workers are used.
        backend: what the servers are, and how they are reached.
    """

    def __init__(self, idiom: Idiom, backend: Backend, group: anyio.abc.TaskGroup, stack: AsyncExitStack) -> None:
        self.idiom = idiom
        self.backend = backend
        self.group = group
        self._stack = stack
        self._servers: list[NetworkServer] = []

    @abstractmethod
    async def new_server(self, **options: Any) -> NetworkServer:
        """Start a server; gearmand does without options."""

    @property
    def kind(self) -> Kind:
        """Which server it is."""
        return "gearmand" if self.backend == "gearmand" else "ours"

    @property
    def connect(self) -> Any:
        """What opens connections; None for TCP."""
        return None

    async def start(self, **options: Any) -> NetworkServer:
        """Start a server, which is stopped with the network."""
        server = await self.new_server(**options)
        self._stack.push_async_callback(server.close)
        self._servers.append(server)
        return server

    def client(self, *servers: NetworkServer, **options: Any) -> AnyClient:
        """Make a client of these servers, or of all that have been started."""
        addresses = [server.address for server in servers or self._servers]
        return make_client(self.idiom, addresses, connect=self.connect, **options)

    def worker(self, *servers: NetworkServer, concurrency: int | None = None, **options: Any) -> AnyWorker:
        """Make a worker for these servers, or for all that have been started."""
        addresses = [server.address for server in servers or self._servers]
        worker = make_worker(self.idiom, addresses, concurrency=concurrency, connect=self.connect, **options)
        if isinstance(worker, ThreadedWorker):
            self._stack.push_async_callback(worker.close)
        return worker

    async def connected_client(self, *servers: NetworkServer, **options: Any) -> AnyClient:
        """Make a client that is closed with the network."""
        return await self._hold(self.client(*servers, **options))

    async def working(self, worker: AnyWorker) -> AnyWorker:
        """Run a worker that is stopped with the network."""
        await self._hold(working(worker))
        return worker

    async def _hold(self, context: AbstractAsyncContextManager[_T]) -> _T:
        """Enter a context that is left with the network, in a task of its own: cancel scopes have to be nested."""
        leaving, left = anyio.Event(), anyio.Event()

        async def hold(*, task_status: anyio.abc.TaskStatus[_T]) -> None:
            async with context as value:
                task_status.started(value)
                await leaving.wait()
            left.set()

        async def leave() -> None:
            leaving.set()
            await left.wait()

        self._stack.push_async_callback(leave)
        value: _T = await self.group.start(hold)
        return value


class _Listening(NetworkServer):
    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self.address = server.host, server.port
        self.kind = server.kind

    async def restart(self) -> None:
        await in_thread(self._server.restart)

    async def close(self) -> None:
        await in_thread(self._server.close)


class TcpNetwork(Network):
    """Servers in threads and processes of their own."""

    async def new_server(self, **options: Any) -> NetworkServer:
        if self.backend == "gearmand":
            return _Listening(await in_thread(Gearmand))
        return _Listening(await in_thread(lambda: OurServer(**options)))


class _Piped(NetworkServer):
    kind = "ours"

    def __init__(self, number: int, options: dict[str, Any]) -> None:
        self.address = "pipe", number
        self._options = options

    @abstractmethod
    async def start(self) -> None: ...

    async def restart(self) -> None:
        await self.close()
        await self.start()


class PipeNetwork(Network):
    """Servers that are reached by pipes in memory: object streams for `gear_anyio`, socket pairs for `gear_sync`."""

    def __init__(self, idiom: Idiom, backend: Backend, group: anyio.abc.TaskGroup, stack: AsyncExitStack) -> None:
        super().__init__(idiom, backend, group, stack)
        self._piped: dict[int, Any] = {}

    @property
    def connect(self) -> Any:
        return lambda address: self._piped[address.port].connect(address)

    async def new_server(self, **options: Any) -> NetworkServer:
        number = len(self._piped) + 1
        server = _Socketpaired(number, options) if self.idiom == "gear_sync" else _Stapled(number, options, self.group)
        self._piped[number] = server
        await server.start()
        return server


class _Stapled(_Piped):
    def __init__(self, number: int, options: dict[str, Any], group: anyio.abc.TaskGroup) -> None:
        super().__init__(number, options)
        self._group = group
        self._server: gear_anyio.Server | None = None
        self._ended = anyio.Event()
        self._open = 0

    async def start(self) -> None:
        self._ended = anyio.Event()
        self._server = server = gear_anyio.Server(listen=[], **self._options)
        self._group.start_soon(self._serve, server, self._ended)

    async def _serve(self, server: gear_anyio.Server, ended: anyio.Event) -> None:
        await server.serve()
        ended.set()

    async def connect(self, _address: Address) -> anyio.abc.AnyByteStream:
        if self._server is None:
            raise ConnectionRefusedError("nobody is there")
        ours, theirs = pipe()
        self._open += 1
        self._group.start_soon(self._serve_stream, self._server, theirs)
        return ours

    async def _serve_stream(self, server: gear_anyio.Server, stream: anyio.abc.AnyByteStream) -> None:
        await server.serve_stream(stream)
        self._open -= 1

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            await self._ended.wait()
            await until(lambda: not self._open)


class _Socketpaired(_Piped):
    def __init__(self, number: int, options: dict[str, Any]) -> None:
        super().__init__(number, options)
        self._server: gear_sync.Server | None = None

    async def start(self) -> None:
        self._server = gear_sync.Server(listen=[], **self._options)
        self._server.__enter__()

    def connect(self, _address: Address) -> socket.socket:
        server = self._server
        if server is None:
            raise ConnectionRefusedError("nobody is there")
        with server._lock:
            if server._closed:
                raise ConnectionRefusedError("the server has stopped")
            ours, theirs = socket.socketpair()
            server._calls.append(lambda: server._reactor.adopt(theirs))
        server._reactor.wake()
        return ours

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await in_thread(lambda: server.__exit__(None, None, None))


class Connector:
    """Opens connections for clients and workers of an idiom, until it is told to refuse.

    Attributes:
        calls: how often it was asked for one.
        refuses: whether it opens none.
    """

    def __init__(self, idiom: Idiom) -> None:
        self.calls = 0
        self.refuses = False
        self.connect: Any = self._open if idiom == "gear_sync" else self._open_soon

    def _open(self, address: Address) -> socket.socket:
        self.calls += 1
        if self.refuses:
            raise ConnectionRefusedError("the connector refuses")
        return socket.create_connection(address)

    async def _open_soon(self, address: Address) -> socket.socket:
        return self._open(address)


@asynccontextmanager
async def open_network(idiom: Idiom, backend: Backend) -> AsyncIterator[Network]:
    """Make a network, and stop all that has been started there when the block ends, the latest first."""
    kind = PipeNetwork if backend == "pipes" else TcpNetwork
    async with anyio.create_task_group() as group:
        async with AsyncExitStack() as stack:
            yield kind(idiom, backend, group, stack)
        group.cancel_scope.cancel()
