"""Compares job servers under load, by the time that their processes run for one job.

    python bench/server_load.py --server 'gearmand=gearmand -t 1 -L 127.0.0.1 -p {port} -l stderr' \
        --server 'gear=gear serve --port {port}'

See README.md beside this file. Linux: times and memory of the servers are read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import selectors
import shlex
import socket
import statistics
import struct
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gearproto import packets

HOST: Final = "127.0.0.1"
HEADER: Final = struct.Struct("!4xII")
FUNCTION: Final = b"bench"
GRAB: Final = packets.GrabJobUniq().encode()
SLEEP: Final = packets.PreSleep().encode()
CREATED, COMPLETE, ASSIGN, NO_JOB, NOOP = (
    cls.spec.number
    for cls in (packets.JobCreated, packets.WorkComplete, packets.JobAssignUniq, packets.NoJob, packets.Noop)
)
uniques = itertools.count(1)


Result = tuple[float, ...]


class Server:
    """One run of a server that is started by a command."""

    def __init__(self, command: str, cpu: int | None) -> None:
        with socket.create_server((HOST, 0)) as probe:
            self.port = int(probe.getsockname()[1])
        line = shlex.split(command.format(port=self.port))
        own_cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, own_cpus if cpu is None else {cpu})  # which the server inherits
        try:
            self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            os.sched_setaffinity(0, own_cpus)
        until = time.monotonic() + 15
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise SystemExit(f"the server does not start: {shlex.join(line)}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 5) as sock:
            sock.sendall(b"version\n")
            return sock.recv(100).startswith(b"OK")
        return False

    def cpu_time(self) -> float:
        """Return the seconds that its threads have run."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text(encoding="ascii").split()[0]) for path in threads) / 1e9

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Peer:
    """One connection; its subclasses say what a packet is answered with."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.sock = socket.create_connection((HOST, load.server.port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.input = bytearray()
        self.output: deque[bytes] = deque()
        load.peers.append(self)
        load.selector.register(self.sock, selectors.EVENT_READ, self)

    def on_packet(self, number: int, body: bytes) -> None:
        raise RuntimeError(f"unexpected packet {number}: {body[:200]!r}")

    def receive(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise RuntimeError("the server closed a connection")
        self.input += data
        start = 0
        while len(self.input) - start >= HEADER.size:
            number, size = HEADER.unpack_from(self.input, start)
            end = start + HEADER.size + size
            if end > len(self.input):
                break
            self.on_packet(number, bytes(memoryview(self.input)[start + HEADER.size : end]))
            start = end
        del self.input[:start]

    def flush(self) -> None:
        """Send what there is, in one piece as far as the socket takes it."""
        data = b"".join(self.output)
        self.output.clear()
        try:
            sent = self.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.output.append(data[sent:])
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.output else 0)
        if self.load.selector.get_key(self.sock).events != wanted:
            self.load.selector.modify(self.sock, wanted, self)


class Client(Peer):
    """Submits jobs, so many at a time, and counts those that have ended (background: those that were taken)."""

    def __init__(self, load: Load, count: int, window: int, size: int, *, background: bool) -> None:
        super().__init__(load)
        self.left = count
        self.workload = os.urandom(size)
        self.packet = packets.SubmitJobBg if background else packets.SubmitJob
        self.ends = CREATED if background else COMPLETE
        self.starts: deque[float] = deque()
        for _ in range(min(window, count)):
            self.submit()

    def submit(self) -> None:
        self.left -= 1
        self.starts.append(time.perf_counter())
        self.output.append(self.packet(FUNCTION, b"%d" % next(uniques), self.workload).encode())

    def on_packet(self, number: int, body: bytes) -> None:
        if number == self.ends:
            self.load.done += 1
            self.load.latencies.append(time.perf_counter() - self.starts.popleft())
            if self.left:
                self.submit()
        elif number != CREATED:
            super().on_packet(number, body)


class Worker(Peer):
    """Sends each workload back as the result, and sleeps when there is nothing to do."""

    def __init__(self, load: Load, *, counts: bool = False) -> None:
        super().__init__(load)
        self.counts = counts
        self.output += [packets.CanDo(FUNCTION).encode(), GRAB]

    def on_packet(self, number: int, body: bytes) -> None:
        if number == ASSIGN:
            handle, _function, _unique, workload = body.split(b"\0", 3)
            self.output += [packets.WorkComplete(handle, workload).encode(), GRAB]
            self.load.done += self.counts
        elif number == NO_JOB:
            self.output.append(SLEEP)
            self.load.asleep += 1
        elif number == NOOP:
            self.output.append(GRAB)
        else:
            super().on_packet(number, body)


class Load:
    """All connections to one server, in one loop."""

    def __init__(self, server: Server, scale: float) -> None:
        self.server = server
        self.scale = scale
        self.peers: list[Peer] = []
        self.selector = selectors.DefaultSelector()
        self.latencies: list[float] = []
        self.done = 0
        self.asleep = 0

    def count(self, number: int) -> int:
        return max(10, round(number * self.scale))

    def clients(self, number: int, count: int, window: int, size: int = 64, *, background: bool = False) -> int:
        """Add clients that submit so many jobs together; return how many."""
        each = max(1, count // number)
        for _ in range(number):
            Client(self, each, window, size, background=background)
        return each * number

    def workers(self, number: int, *, counts: bool = False) -> None:
        for _ in range(number):
            Worker(self, counts=counts)

    def run(self, until: Callable[[], bool]) -> None:
        """Move packets until something is so."""
        for peer in self.peers:
            peer.flush()
        end = time.monotonic() + 120
        while not until():
            for key, events in self.selector.select(5):
                if events & selectors.EVENT_READ:
                    key.data.receive()
                key.data.flush()
            if time.monotonic() > end:
                raise RuntimeError(f"not done after 120 s: {self.done} jobs")

    def measure(self, jobs: int, memory: int | None = None) -> Result:
        """Run until so many jobs are done, and tell what it took: the columns of the table."""
        self.done, self.latencies = 0, []
        memory = self.server.memory() if memory is None else memory
        cpu, own, start = self.server.cpu_time(), time.process_time(), time.perf_counter()
        self.run(lambda: self.done >= jobs)
        wall = time.perf_counter() - start
        own, cpu = time.process_time() - own, self.server.cpu_time() - cpu
        latency = statistics.median(self.latencies or [0.0])
        growth = self.server.memory() - memory
        return jobs / wall, cpu / jobs * 1e6, latency * 1e3, growth / 2**20, own / wall * 100

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self.selector.close()


def background(load: Load) -> Result:
    """Four clients submit background jobs, 100 at a time each; nobody works."""
    return load.measure(load.clients(4, load.count(100_000), 100, background=True))


def outstanding(load: Load) -> Result:
    """Four clients with 25 jobs at a time each, four workers."""
    load.workers(4)
    return load.measure(load.clients(4, load.count(40_000), 25))


def single(load: Load) -> Result:
    """One client with one job at a time, one worker."""
    load.workers(1)
    return load.measure(load.clients(1, load.count(10_000), 1))


def drain(load: Load) -> Result:
    """Four workers do what has been queued before."""
    jobs = load.clients(4, load.count(50_000), 100, background=True)
    load.run(lambda: load.done >= jobs)
    load.workers(4, counts=True)
    return load.measure(jobs)


def big(load: Load) -> Result:
    """Two clients and two workers, workloads and results of 1 MiB, two at a time each."""
    load.workers(2)
    return load.measure(load.clients(2, load.count(400), 2, 2**20))


def idle(load: Load) -> Result:
    """As `single`, beside 5,000 connections that do nothing; the memory is that of the connections."""
    memory = load.server.memory()
    for _ in range(load.count(5_000)):
        Peer(load)
    load.workers(1)
    load.run(lambda: load.asleep == 1)
    return load.measure(load.clients(1, load.count(5_000), 1), memory)


def sleepers(load: Load) -> Result:
    """One client with one job at a time, 500 workers that sleep and all want it."""
    number = load.count(500)
    load.workers(number)
    load.run(lambda: load.asleep == number)
    return load.measure(load.clients(1, load.count(500), 1))


SCENARIOS: Final = {scene.__name__: scene for scene in (background, outstanding, single, drain, big, idle, sleepers)}


def run_once(command: str, cpu: int | None, scene: Callable[[Load], Result], scale: float) -> Result:
    server = Server(command, cpu)
    load = Load(server, scale)
    try:
        return scene(load)
    finally:
        load.close()
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare job servers under load.")
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be repeated; all unless given")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, of which the median counts (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all numbers of jobs and connections")
    parser.add_argument("--server-cpu", type=int, help="processor for the servers; 0 unless given, if there are two")
    parser.add_argument("--load-cpu", type=int, help="processor for the load; 1 unless given, if there are two")
    options = parser.parse_args()
    servers = dict(text.split("=", 1) for text in options.server)
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        options.server_cpu = cpus[0] if options.server_cpu is None else options.server_cpu
        options.load_cpu = cpus[1] if options.load_cpu is None else options.load_cpu
    if options.load_cpu is not None:
        os.sched_setaffinity(0, {options.load_cpu})
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| scenario    | server       |   jobs/s | CPU us/job | by CPU | p50 ms | RSS +MiB | load % |")
    print("| ----------- | ------------ | -------: | ---------: | -----: | -----: | -------: | -----: |")
    for name in options.scenario or SCENARIOS:
        results: dict[str, list[Result]] = {server: [] for server in servers}
        for _ in range(options.repeat):
            for server, command in servers.items():
                results[server].append(run_once(command, options.server_cpu, SCENARIOS[name], options.scale))
        base = None
        for server, runs in results.items():
            rate, cpu, latency, memory, load = map(statistics.median, zip(*runs, strict=True))
            base = base or cpu
            print(
                f"| {name:11} | {server:12} | {rate:8,.0f} | {cpu:10.1f} | {base / cpu:6.2f} "
                f"| {latency:6.2f} | {memory:8.1f} | {load:6.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
