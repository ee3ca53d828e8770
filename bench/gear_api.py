"""Compares the documented gear API with the package ``gear``: the same programs with either, in processes of their own.

Run it with an interpreter that has this package; ``--other`` names one that has ``gear``. See README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_LIMIT = 300.0  # seconds
_HOST = "127.0.0.1"


class Measurements:
    """The scenarios, with one implementation of the API."""

    def __init__(self, gear: Any, scale: float) -> None:
        self._gear = gear
        self._scale = scale

    def _count(self, count: int) -> int:
        return max(1, int(count * self._scale))

    def _client(self, port: int) -> tuple[Any, Callable[[Any], None]]:
        """Return a client, and what waits for the end of a job."""
        ended = threading.Condition()

        class Client(self._gear.Client):
            def handleWorkComplete(self, packet: Any) -> Any:  # noqa: N802
                job = super().handleWorkComplete(packet)
                with ended:
                    ended.notify_all()
                return job

        def wait(job: Any) -> None:
            with ended:
                ended.wait_for(lambda: job.complete, _LIMIT)

        client = Client()
        client.addServer(_HOST, port)
        client.waitForServer(_LIMIT)
        return client, wait

    def _work(self, port: int, ended: Callable[[], object] = lambda: None) -> Any:
        """Start a worker in a thread, which calls something after each job."""
        worker = self._gear.Worker("worker")
        worker.addServer(_HOST, port)
        worker.waitForServer(_LIMIT)
        worker.registerFunction("f")

        def run() -> None:
            while True:
                try:
                    job = worker.getJob()
                except self._gear.InterruptedError:
                    return
                job.sendWorkComplete(job.arguments)
                ended()

        threading.Thread(target=run, daemon=True).start()
        return worker

    def _timed(self, count: int, action: Callable[[], None]) -> float:
        """Return the microseconds that each of ``count`` jobs takes."""
        start = time.perf_counter()
        action()
        return (time.perf_counter() - start) / count * 1e6

    def round_trips(self) -> float:
        """One job after the other: submit it, work on it, wait for its end."""
        server = self._gear.Server(0)
        client, wait = self._client(server.port)
        worker = self._work(server.port)
        count = self._count(500)

        def run() -> None:
            for _ in range(count):
                job = self._gear.Job("f", b"x")
                client.submitJob(job)
                wait(job)

        taken = self._timed(count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def background(self) -> float:
        """Submit background jobs that nobody works on, one after the other."""
        server = self._gear.Server(0)
        client, _wait = self._client(server.port)
        count = self._count(3000)
        jobs = [self._gear.Job("f", b"x") for _ in range(count)]

        def run() -> None:
            for job in jobs:
                client.submitJob(job, background=True)

        taken = self._timed(count, run)
        for end in (client, server):
            end.shutdown()
        return taken

    def together(self) -> float:
        """Many jobs at a time, from eight threads."""
        server = self._gear.Server(0)
        client, wait = self._client(server.port)
        worker = self._work(server.port)
        count = self._count(150)

        def submit() -> None:
            for _ in range(count):
                job = self._gear.Job("f", b"x")
                client.submitJob(job)
                wait(job)

        def run() -> None:
            threads = [threading.Thread(target=submit) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        taken = self._timed(8 * count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def big(self) -> float:
        """Jobs of 4 MiB there and back, one after the other."""
        server = self._gear.Server(0)
        client, wait = self._client(server.port)
        worker = self._work(server.port)
        count = self._count(10)
        data = bytes(4 * 1024 * 1024)

        def run() -> None:
            for _ in range(count):
                job = self._gear.Job("f", data)
                client.submitJob(job)
                wait(job)

        taken = self._timed(count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def pieces(self) -> float:
        """One job whose result comes in many pieces."""
        server = self._gear.Server(0)
        client, wait = self._client(server.port)
        worker = self._gear.Worker("worker")
        worker.addServer(_HOST, server.port)
        worker.waitForServer(_LIMIT)
        worker.registerFunction("f")
        count = self._count(20000)
        job = self._gear.Job("f", b"")
        client.submitJob(job)
        taken_job = worker.getJob()

        def run() -> None:
            for _ in range(count):
                taken_job.sendWorkData(b"piece")
            taken_job.sendWorkComplete(b"")
            wait(job)

        taken = self._timed(count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def queued(self) -> float:
        """Work off jobs that wait behind 2000 of another function."""
        server = self._gear.Server(0)
        client, wait = self._client(server.port)
        for _ in range(self._count(2000)):
            client.submitJob(self._gear.Job("other", b""), background=True)
        worker = self._work(server.port)
        count = self._count(200)

        def run() -> None:
            for _ in range(count):
                job = self._gear.Job("f", b"x")
                client.submitJob(job)
                wait(job)

        taken = self._timed(count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def connecting(self) -> float:
        """Connect clients, one after the other."""
        server = self._gear.Server(0)
        count = self._count(30)
        clients: list[Any] = []

        def run() -> None:
            for _ in range(count):
                client = self._gear.Client()
                client.addServer(_HOST, server.port)
                client.waitForServer(_LIMIT)
                clients.append(client)

        taken = self._timed(count, run)
        for end in (*clients, server):
            end.shutdown()
        return taken

    def status(self) -> float:
        """Ask for the status, one time after the other."""
        server = self._gear.Server(0)
        client, _wait = self._client(server.port)
        worker = self._work(server.port)
        count = self._count(1000)

        def run() -> None:
            for _ in range(count):
                client.getConnection().sendAdminRequest(self._gear.StatusAdminRequest())

        taken = self._timed(count, run)
        for end in (client, worker, server):
            end.shutdown()
        return taken

    def holding(self) -> float:
        """Submit 1500 jobs that the server's program holds back, as test servers do, while a worker sleeps."""
        return self._hold_and_release()[0]

    def releasing(self) -> float:
        """Release 1500 jobs that were held back, and work on them."""
        return self._hold_and_release()[1]

    def _hold_and_release(self) -> tuple[float, float]:
        class Server(self._gear.Server):
            def getJobForConnection(self, connection: Any, peek: bool = False) -> Any:  # noqa: N802
                for queue in (self.high_queue, self.normal_queue, self.low_queue):
                    for job in queue:
                        if hasattr(job, "released") and job.name in connection.functions:
                            if not peek:
                                queue.remove(job)
                                connection.related_jobs[job.handle] = job
                                job.worker_connection = connection
                            job.running = True
                            return job
                return None

        server = Server(0)
        client, _wait = self._client(server.port)
        ended = threading.Semaphore(0)
        worker = self._work(server.port, ended.release)
        count = self._count(1500)

        def submit() -> None:
            for _ in range(count):
                client.submitJob(self._gear.Job("f", b"x"), background=True)

        def release() -> None:
            for job in server.getQueue():
                job.released = True
            server.wakeConnections()
            for _ in range(count):
                ended.acquire()

        taken = self._timed(count, submit), self._timed(count, release)
        for end in (client, worker, server):
            end.shutdown()
        return taken


SCENARIOS = [
    "round_trips",
    "background",
    "together",
    "big",
    "pieces",
    "queued",
    "holding",
    "releasing",
    "connecting",
    "status",
]


def measure(python: str, module: str, scenario: str, scale: float) -> float:
    """Measure one scenario in a process of its own; return microseconds for each job, piece or request."""
    command = [python, __file__, "--measure", module, "--scenario", scenario, "--scale", str(scale)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return float(json.loads(output))


def load(module: str) -> Any:
    """Import one implementation."""
    return importlib.import_module(module)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", metavar="PYTHON", help="interpreter that has the package gear, to compare with")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="which ones; all unless given")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 makes everything smaller")
    parser.add_argument("--repeat", type=int, default=1, help="number of runs; the best one counts")
    parser.add_argument("--measure", choices=["gear", "gear_sync.gear"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    scenarios = args.scenario or SCENARIOS
    if args.measure:
        (scenario,) = scenarios
        print(json.dumps(getattr(Measurements(load(args.measure), args.scale), scenario)()))
        return
    print(f"| {'scenario':<12} | {'ours us':>10} | {'gear us':>10} | {'ratio':>7} |")
    print(f"| {'-' * 12} | {'-' * 9}: | {'-' * 9}: | {'-' * 6}: |")
    for scenario in scenarios:
        ours = min(measure(sys.executable, "gear_sync.gear", scenario, args.scale) for _ in range(args.repeat))
        other, ratio = "", ""
        if args.other:
            theirs = min(measure(args.other, "gear", scenario, args.scale) for _ in range(args.repeat))
            other, ratio = f"{theirs:,.0f}", f"{theirs / ours:.1f}"
        print(f"| {scenario:<12} | {ours:>10,.0f} | {other:>10} | {ratio:>7} |", flush=True)


if __name__ == "__main__":
    main()
