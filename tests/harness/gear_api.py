"""Clients, workers and servers of the documented ``gear`` API, that tests can wait for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from gear_sync import gear

from .certificates import authority
from .servers import RunningServer
from .threads import LIMIT

__all__ = ["GearServer", "Shop", "WatchedClient", "replies", "tls_files"]

Files = tuple[str, str, str]

_S = TypeVar("_S", bound=gear.Server)


@functools.cache
def tls_files(name: str = "localhost", common_name: str | None = None, ca: str = "gear") -> Files:
    """Return key, certificate and authorities, as `addServer` takes them; the same ones in all of the run."""
    tls = authority(ca).issue(name, common_name=common_name)
    return str(tls.key), str(tls.certificate), str(tls.ca)


class WatchedClient(gear.Client):
    """A client whose hooks tests can wait for.

    Attributes:
        seen: the types of the packets that have come.
        disconnected: the jobs for which `handleDisconnect` was called.
    """

    def __init__(self, client_id: str | bytes = "unknown") -> None:
        self._happened = threading.Condition()
        self.seen: list[int] = []
        self.disconnected: list[gear.Job] = []
        super().__init__(client_id)

    def handlePacket(self, packet: gear.Packet) -> None:
        try:
            super().handlePacket(packet)
        finally:
            with self._happened:
                self.seen.append(packet.ptype)
                self._happened.notify_all()

    def handleDisconnect(self, job: gear.Job) -> gear.Job:
        with self._happened:
            self.disconnected.append(job)
            self._happened.notify_all()
        return super().handleDisconnect(job)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, that hooks make true."""
        with self._happened:
            assert self._happened.wait_for(condition, LIMIT), "it never happens"

    def finish(self, job: gear.Job) -> None:
        """Wait until a job has ended."""
        self.until(lambda: job.complete)


class GearServer(RunningServer):
    """A `gear.Server` as the other job servers of the tests."""

    kind = "ours"

    def __init__(self, server: gear.Server) -> None:
        self.server = server
        self.port = server.port

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()


class Shop:
    """Makes clients, workers and servers, and shuts them all down in the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def server(self, server: _S) -> _S:
        """Take care of a server."""
        self._stack.callback(server.shutdown)
        return server

    def client(
        self,
        *addresses: Any,
        tls: Files | tuple[()] = (),
        wait: bool = True,
        kind: type[WatchedClient] = WatchedClient,
    ) -> WatchedClient:
        """Make a client, and wait until it is connected."""
        client = kind("client")
        self._stack.callback(client.shutdown)
        self._connect(client, addresses, tls, wait)
        return client

    def worker(
        self,
        *addresses: Any,
        functions: tuple[str | bytes, ...] = (),
        kind: type[gear.Worker] = gear.Worker,
        tls: Files | tuple[()] = (),
    ) -> gear.Worker:
        """Make a worker, and wait until it is connected."""
        worker = kind("worker")
        self._stack.callback(worker.shutdown)
        for function in functions:
            worker.registerFunction(function)
        self._connect(worker, addresses, tls, True)
        return worker

    def _connect(self, client: gear.BaseClient, addresses: tuple[Any, ...], tls: Files | tuple[()], wait: bool) -> None:
        for address in addresses:
            host, port = ("localhost", address.port) if isinstance(address, gear.Server) else address
            client.addServer(host, port, *tls)
        if addresses and wait:
            with client.connections_condition:
                assert client.connections_condition.wait_for(
                    lambda: len(client.active_connections) == len(addresses), LIMIT
                )

    def standing(self, connection: gear.Connection) -> gear.Connection:
        """Take care of a connection of its own."""
        self._stack.callback(connection.disconnect)
        return connection


@contextmanager
def replies(connection: gear.Connection) -> Iterator[None]:
    """Read a connection of its own in a thread for the time of a block, and hand answers to those who wait."""

    def read() -> None:
        while (message := connection.readPacket()) is not None:
            if isinstance(message, gear.AdminRequest):
                message.setComplete()
            elif message.ptype == gear.constants.ECHO_RES:
                connection.handleEchoRes(bytes(message.data))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield
    connection.disconnect()
    thread.join(LIMIT)
