"""Compares job servers under load, by the time that their processes run for one job.

    python bench/server_load.py --server 'gearmand=gearmand -t 1 -L 127.0.0.1 -p {port} -l stderr' \
        --server 'gear=gear serve --port {port}'

See README.md in this directory. Linux: times and memory of the servers are read from /proc.
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
from typing import Final, NamedTuple

from gearproto import packets

HOST: Final = "127.0.0.1"
HEADER: Final = struct.Struct("!4xII")
FUNCTION: Final = b"bench"
GRAB: Final = packets.GrabJobUniq().encode()
SLEEP: Final = packets.PreSleep().encode()
CREATED, COMPLETE = packets.JobCreated.spec.number, packets.WorkComplete.spec.number
ASSIGN, NO_JOB, NOOP = packets.JobAssignUniq.spec.number, packets.NoJob.spec.number, packets.Noop.spec.number
uniques = itertools.count(1)


class Scenario(NamedTuple):
    """One kind of load. Workers, if there are any, find their jobs queued (`background`) or wait for them asleep."""

    about: str
    jobs: int
    window: int = 1  # jobs that a client submits without waiting
    clients: int = 1
    workers: int = 1
    size: int = 64  # bytes of a workload, and of its result
    background: bool = False
    idle: int = 0  # further connections, which do nothing


SCENARIOS: Final = {
    "background": Scenario("background jobs are queued", 100_000, 100, 4, 0, background=True),
    "drain": Scenario("jobs that have been queued are done", 50_000, 100, 4, 4, background=True),
    "outstanding": Scenario("many jobs at a time", 40_000, 25, 4, 4),
    "single": Scenario("one job at a time", 10_000),
    "big": Scenario("workloads and results of 1 MiB", 400, 2, 2, 2, 2**20),
    "idle": Scenario("one job at a time, with 5,000 idle connections", 5_000, idle=5_000),
    "sleepers": Scenario("one job at a time, and 500 sleeping workers who can do it", 500, workers=500),
}


class Server:
    """One run of a server that is started by a command."""

    def __init__(self, command: str, cpu: int) -> None:
        self.held = socket.socket()  # bound, not listening: no other process is given the port
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind((HOST, 0))
        self.port = int(self.held.getsockname()[1])
        line = shlex.split(command.format(port=self.port))
        own_cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})  # which the server inherits
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.sched_setaffinity(0, own_cpus)
        until = time.monotonic() + 15
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 5):
                return
            time.sleep(0.02)
        self.stop()
        raise SystemExit(f"the server does not start: {shlex.join(line)}")

    def cpu_time(self) -> float:
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text(encoding="ascii").split()[0]) for path in threads) / 1e9

    def memory(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.held.close()


class Peer:
    """One connection; its subclasses say what a packet is answered with."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.sock = socket.create_connection((HOST, load.server.port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.input = bytearray()
        self.output: deque[bytes] = deque()
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
    """Submits jobs, a number of them at a time, and counts those that ended (background: those that were accepted)."""

    def __init__(self, load: Load, count: int, scene: Scenario) -> None:
        super().__init__(load)
        self.left = count
        self.workload = os.urandom(scene.size)
        self.packet = packets.SubmitJobBg if scene.background else packets.SubmitJob
        self.ends = CREATED if scene.background else COMPLETE
        self.starts: deque[float] = deque()
        for _ in range(min(scene.window, count)):
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

    def __init__(self, load: Load, *, counts: bool) -> None:
        super().__init__(load)
        self.counts = counts  # or else the client does
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

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peers: list[Peer] = []
        self.selector = selectors.DefaultSelector()
        self.latencies: list[float] = []
        self.done = self.asleep = 0

    def play(self, scene: Scenario, scale: float) -> tuple[float, ...]:
        """Play a scenario, and return the columns of the table."""
        jobs, workers, idle = (round(number * scale) for number in (scene.jobs, scene.workers, scene.idle))
        workers = max(workers, min(scene.workers, 4))
        each = max(1, jobs // scene.clients)
        jobs = each * scene.clients
        memory = self.server.memory()
        self.peers += [Peer(self) for _ in range(idle)]
        if scene.background and workers:
            self.peers += [Client(self, each, scene) for _ in range(scene.clients)]
            self.run(lambda: self.done == jobs)
            self.peers += [Worker(self, counts=True) for _ in range(workers)]
        else:
            self.peers += [Worker(self, counts=False) for _ in range(workers)]
            self.run(lambda: self.asleep == workers)
            self.peers += [Client(self, each, scene) for _ in range(scene.clients)]
        self.done, self.latencies = 0, []
        cpu, own, start = self.server.cpu_time(), time.process_time(), time.perf_counter()
        self.run(lambda: self.done == jobs)
        wall = time.perf_counter() - start
        own, cpu = time.process_time() - own, self.server.cpu_time() - cpu
        latency = statistics.median(self.latencies or [0.0])
        growth = self.server.memory() - memory
        return jobs / wall, cpu / jobs * 1e6, latency * 1e3, growth / 2**20, own / wall * 100

    def run(self, until: Callable[[], bool]) -> None:
        for peer in self.peers:
            peer.flush()
        end = time.monotonic() + 120
        while not until():
            for key, events in self.selector.select(5):
                if events & selectors.EVENT_READ:
                    key.data.receive()
                key.data.flush()
            if time.monotonic() > end:
                raise SystemExit(f"not done after 120 s: {self.done} jobs")

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self.selector.close()


def play(command: str, cpu: int, scene: Scenario, scale: float) -> tuple[float, ...]:
    """Play a scenario with a server of its own."""
    with contextlib.ExitStack() as stack:
        server = Server(command, cpu)
        stack.callback(server.stop)
        load = Load(server)
        stack.callback(load.close)
        return load.play(scene, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare job servers under load.")
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        help="; ".join(f"{name}: {scene.about}" for name, scene in SCENARIOS.items()),
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, of which the best counts (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all numbers of jobs and connections")
    options = parser.parse_args()
    servers = dict(text.split("=", 1) for text in options.server)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| scenario    | server         |   jobs/s | CPU us/job | by CPU | p50 ms | RSS +MiB | load % |")
    print("| ----------- | -------------- | -------: | ---------: | -----: | -----: | -------: | -----: |")
    for name in options.scenario or SCENARIOS:
        results: dict[str, list[tuple[float, ...]]] = {server: [] for server in servers}
        for _ in range(options.repeat):
            for server, command in servers.items():
                results[server].append(play(command, cpus[0], SCENARIOS[name], options.scale))
        base = None
        for server, runs in results.items():
            rate, cpu, latency, memory, load = min(runs, key=lambda run: run[1])  # others only add to it
            base = base or cpu
            print(
                f"| {name:11} | {server:14} | {rate:8,.0f} | {cpu:10.1f} | {base / cpu:6.2f} "
                f"| {latency:6.2f} | {memory:8.1f} | {load:6.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
