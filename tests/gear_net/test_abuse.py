"""What bad peers cost a server: memory stays within its limits, and everybody else is served.

The server runs in a process of its own, so that its memory can be seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gearproto import DEFAULT_MAX_SERVER_PACKET_SIZE
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    JobAssign,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from tests.harness.raw import RawConnection, packet_bytes
from tests.harness.servers import RunningServer, poll_until

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

_WAIT: Final = 20.0  # seconds; only a hang reaches it
_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_SUBMIT: Final = 7
_REQUEST: Final = b"\0REQ"

_SCRIPT: Final = """
import json, logging, resource, sys
import gear_sync
options = json.loads(sys.argv[1])
if (descriptors := options.pop("descriptors", None)) is not None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
logging.basicConfig(format="%(message)s")
server = gear_sync.Server(port=0, **options)
print(server.port, flush=True)
server.serve_forever()
"""


class ServerProcess(RunningServer):
    """Our server in a process of its own, whose memory and time can be read."""

    kind = "ours"

    def __init__(self, **options: Any) -> None:
        """Start it; the options are those of `gear_sync.Server`, and how many ``descriptors`` it may have."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.check_job()  # what is needed once is there now
        self.base = self.memory("VmRSS")

    def memory(self, name: str) -> int:
        """Return a field of the process's status in bytes."""
        match = re.search(rf"^{name}:\s*(\d+) kB$", self._status(), re.MULTILINE)
        assert match is not None
        return int(match[1]) * _KIB

    def _status(self) -> str:
        return Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")

    def growth(self) -> int:
        """Return how much memory it has had at its largest since the start."""
        return self.memory("VmHWM") - self.base

    def cpu_time(self) -> float:
        """Return the seconds that it has run."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def log_line(self) -> str:
        """Wait for its next line of log."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def check_job(self) -> None:
        """Run a job of others from its submission to its result."""
        with RawConnection(self) as client, RawConnection(self) as worker:
            worker.send(CanDo(b"check"))
            handle = client.submit(SubmitJob(b"check", b"", b"data"))
            worker.send(GrabJob())
            worker.expect(JobAssign(handle, b"check", b"data"))
            worker.send(WorkComplete(handle, b"result"))
            client.expect(WorkComplete(handle, b"result"))

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., ServerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, and ends them after the test."""
    with contextlib.ExitStack() as stack:

        def start_one(**options: Any) -> ServerProcess:
            return stack.enter_context(contextlib.closing(ServerProcess(**options)))

        yield start_one


def connect_many(server: ServerProcess, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Open connections that leave no trace in the system when they are closed."""
    socks = []
    for _ in range(count):
        sock = stack.enter_context(socket.create_connection((server.host, server.port), _WAIT))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socks.append(sock)
    return socks


# Peers that do not read


def test_a_client_that_never_reads_what_its_worker_sends(start: Start) -> None:
    server = start()
    with RawConnection(server) as client, RawConnection(server) as worker:
        handle = client.submit(SubmitJob(b"run", b"", b""))
        worker.send(CanDo(b"run"))
        worker.grab()
        chunk = bytes(_MIB)
        for _ in range(200):
            worker.send(WorkData(handle, chunk))
        worker.expect_nothing()
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := client.sock.recv(_MIB):
                received += len(data)
        assert received < 100 * _MIB
        assert server.growth() <= 96 * _MIB
        worker.send(WorkComplete(handle, b""))
        worker.expect_nothing()
    server.check_job()


def test_a_peer_that_asks_for_much_and_never_reads(start: Start) -> None:
    server = start()
    with RawConnection(server) as admin, RawConnection(server) as greedy:
        names = b"".join(b"create function %s%03d\n" % (b"x" * 200, number) for number in range(200))
        admin.send_bytes(names)
        admin.receive_bytes(len(b"OK\r\n") * 200)
        greedy.sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):  # the server reads no more of it
            while sent < 32 * _MIB:
                sent += greedy.sock.send(b"status\n" * 5000)
        assert len(admin.ask_rows(b"workers")) == 2
        assert server.growth() <= 24 * _MIB
        server.check_job()
    server.check_job()


def test_many_peers_that_broke_the_protocol_and_stay(start: Start) -> None:
    server = start(descriptors=2000)
    with contextlib.ExitStack() as stack, RawConnection(server) as admin:
        socks = connect_many(server, 1000, stack)
        for sock in socks:
            sock.sendall(b"\0BAD\0\0\0\1\0\0\0\0")
        for _ in range(100):
            admin.expect_nothing()
        server.check_job()
        for sock in socks:
            assert sock.recv(100) == b""
        poll_until(lambda: len(admin.ask_rows(b"workers")) == 1, "all bad peers are closed")
    server.check_job()


# Much in little pieces


def fill_with_long_names(server: ServerProcess, stack: contextlib.ExitStack) -> None:
    client = stack.enter_context(RawConnection(server))
    for first in range(0, 16_000, 500):
        client.send(*(SubmitJobBg(b"%08000d" % number, b"", b"") for number in range(first, first + 500)))
        for _ in range(500):
            client.receive_raw()


def fill_with_functions(server: ServerProcess, stack: contextlib.ExitStack) -> None:
    for start in range(0, 16_000, 2000):
        worker = stack.enter_context(RawConnection(server))
        worker.send(*(CanDo(b"%08000d" % number) for number in range(start, start + 2000)), EchoReq(b"end"))
        if list(iter(worker.receive_any, EchoRes(b"end"))):  # some have been refused
            return


def fill_with_halves(server: ServerProcess, stack: contextlib.ExitStack) -> None:
    half = EchoReq(bytes(16 * _MIB)).encode()[: 8 * _MIB]
    for _ in range(20):
        with contextlib.suppress(ConnectionError):
            stack.enter_context(RawConnection(server)).send_bytes(half)


@pytest.mark.parametrize("fill", [fill_with_long_names, fill_with_functions, fill_with_halves])
def test_all_that_peers_make_the_server_keep_has_one_limit(
    start: Start, fill: Callable[[ServerProcess, contextlib.ExitStack], None]
) -> None:
    limit = 48 * _MIB
    server = start(max_memory=limit)
    with contextlib.ExitStack() as stack, RawConnection(server) as admin:
        fill(server, stack)
        admin.expect_nothing()
        assert server.growth() < limit + limit // 3
        assert server.log_line().startswith(("memory limit", "peer"))


# What is announced, or never ends


def test_a_packet_that_never_ends(start: Start) -> None:
    server = start()
    with RawConnection(server) as peer:
        head = packet_bytes(_REQUEST, _SUBMIT)[:8] + DEFAULT_MAX_SERVER_PACKET_SIZE.to_bytes(4, "big")
        peer.send_bytes(head)
        left = DEFAULT_MAX_SERVER_PACKET_SIZE - 1
        for size in (*range(1, 3000), *[_MIB] * (left // _MIB)):
            peer.send_bytes(bytes(min(size, left)))
            left -= min(size, left)
        assert left == 0
        server.check_job()
        assert server.growth() <= 96 * _MIB
    server.check_job()


def test_a_packet_that_announces_4_gib(start: Start) -> None:
    server = start()
    with RawConnection(server) as peer:
        peer.send_bytes(_REQUEST + struct.pack("!II", _SUBMIT, 2**32 - 1) + b"data")
        peer.receive(Error)
        peer.expect_closed()
    server.check_job()
    assert server.growth() < _MIB


def test_a_line_that_never_ends(start: Start) -> None:
    server = start()
    with RawConnection(server) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                peer.send_bytes(b"x" * _MIB)
        with contextlib.suppress(ConnectionResetError):
            while peer.sock.recv(_MIB):
                pass
    server.check_job()
    assert server.growth() < _MIB


# Many


def test_many_idle_connections(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000
    room = wanted + 200 if hard == resource.RLIM_INFINITY else min(wanted + 200, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, room), hard))
    try:
        server = start()
        count = room - 200
        with contextlib.ExitStack() as stack, RawConnection(server) as admin:
            before = server.memory("VmRSS")
            connect_many(server, count, stack)
            poll_until(lambda: server.descriptors() >= count, "all are accepted")
            admin.expect_nothing()
            assert (server.memory("VmRSS") - before) / count < 5 * _KIB
            server.check_job()
        server.check_job()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_queued_jobs(start: Start) -> None:
    server = start()
    count, batch = 100_000, 1000
    with RawConnection(server) as client:
        before = server.memory("VmRSS")
        for first in range(0, count, batch):
            numbers = range(first, first + batch)
            client.send(*(SubmitJobBg(b"run", b"unique %d" % n, b"workload %d" % n) for n in numbers))
            for _ in numbers:
                client.receive_raw()
        assert (server.memory("VmRSS") - before) / count < _KIB
    server.check_job()


# No descriptors


def test_running_out_of_descriptors(start: Start) -> None:
    server = start(descriptors=40)
    with contextlib.ExitStack() as stack:
        client, worker = (stack.enter_context(RawConnection(server)) for _ in range(2))
        worker.send(CanDo(b"run"))
        worker.expect_nothing()
        client.expect_nothing()
        crowd = stack.enter_context(contextlib.ExitStack())
        connect_many(server, 60, crowd)
        assert server.log_line().startswith("no room for another connection")
        before = server.cpu_time()
        assert server.log_line().startswith("no room for another connection")  # it pauses, and tries again
        assert server.cpu_time() - before < 0.25  # of half a second; a server that spins takes all of it
        handle = client.submit(SubmitJob(b"run", b"", b"data"))
        worker.grab()
        worker.send(WorkComplete(handle, b"done"))
        client.expect(WorkComplete(handle, b"done"))
        crowd.close()
        server.check_job()
        client.send(EchoReq(b"still here"))
        client.receive_any()
