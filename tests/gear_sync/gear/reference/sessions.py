"""A random session of a server, a client and workers. Prints every call, hook and state as JSON.

It runs with either implementation of the API, in a process of its own: ``-m ...sessions MODULE SEED STEPS``. After each
step it waits until all have heard what there is to hear, so that both take the same course.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.gear_sync.gear.reference.sockets import send_at_once

LIMIT = 20.0  # seconds; only a hang reaches it
FUNCTIONS = ["f", "g", "h"]
PAYLOADS = [b"", b"x", b"a\0b", "é".encode(), b"1" * 300]


class Session:
    """One session.

    Attributes:
        trace: what has happened.
    """

    def __init__(self, gear: Any, seed: str) -> None:
        self.trace: list[Any] = []
        self._gear = gear
        self._random = random.Random(seed)
        self._names: dict[bytes, str] = {}  # of jobs, by handle
        self._hooks: list[tuple[str, ...]] = []
        self._heard = threading.Condition()
        self._tokens: set[bytes] = set()
        self._asked = 0
        self.server = self._recording(gear.Server, "server")(0)
        self.client = self._recording(gear.Client, "client")("client")
        self.workers = [
            self._recording(kind, name)(name) for kind, name in ((gear.Worker, "plain"), (gear.TextWorker, "text"))
        ]
        for party in (self.client, *self.workers):
            party.addServer("127.0.0.1", str(self.server.port))
            party.waitForServer(LIMIT)
        self._jobs: list[Any] = []
        self._registered: set[bytes] = set()
        self._taken: list[tuple[Any, Any]] = []  # jobs with their workers
        self._waiting: tuple[Any, threading.Thread, list[Any]] | None = None

    # Seeing what happens

    def _recording(self, base: Any, name: str) -> Any:
        """Return a class that records its hooks."""
        session = self

        def handle_packet(self: Any, packet: Any) -> None:
            if packet.ptype == session._gear.constants.STATUS_RES and packet.data.startswith(b"sync:"):
                with session._heard:
                    session._tokens.add(bytes(packet.getArgument(0)))
                    session._heard.notify_all()
            else:
                with contextlib.suppress(session._gear.UnknownJobError):  # `gear` puts off what it has read behind that
                    base.handlePacket(self, packet)

        def recorded(hook: str) -> Callable[[Any, Any], Any]:
            def call(self: Any, packet: Any) -> Any:
                about = session._about(packet)
                quiet = about.startswith("sync:")
                try:
                    result = getattr(base, hook)(self, packet)
                except Exception as error:
                    session._hooks.append((name, hook, about, type(error).__name__))
                    raise
                if not quiet:
                    job = result if isinstance(result, session._gear.Job) else None  # of a client
                    session._hooks.append((name, hook, about, "" if job is None else session._job(job)))
                return result

            return call

        hooks = {
            hook: recorded(hook)
            for hook in dir(base)
            if hook.startswith("handle") and hook not in ("handlePacket", "handlePassthrough", "handleAdminRequest")
            if "ACL" not in hook and hook not in ("handleStatus", "handleWorkers", "handleCancelJob")
            if hook != "handleNoop"  # whom a server wakes, and when, is its own affair
        }
        return type(base.__name__, (base,), {"handlePacket": handle_packet, **hooks})

    def _about(self, packet: Any) -> str:
        if not isinstance(packet, self._gear.Packet):
            return self._job(packet)
        handle, *arguments = bytes(packet.data).split(b"\0")
        if packet.ptype == self._gear.constants.STATUS_RES:
            arguments = [argument or b"0" for argument in arguments]  # `gear` leaves an unknown progress empty
        rest = b"".join(b"\0" + argument for argument in arguments)
        if packet.ptype == self._gear.constants.JOB_ASSIGN_UNIQ:
            return repr(rest)  # the handle may not be known yet
        return (self._names.get(handle) or handle.decode(errors="replace").partition("H:")[0] or "new") + repr(rest)

    def _job(self, job: Any) -> str:
        return self._names.get(job.handle, f"job of {job.binary_arguments!r}")

    def _sync(self, party: Any) -> None:
        """Wait until a party has heard all that its server has to say."""
        self._asked += 1
        token = b"sync:%d" % self._asked
        constants = self._gear.constants
        (connection,) = party.active_connections
        connection.sendPacket(self._gear.Packet(constants.REQ, constants.GET_STATUS, token))
        with self._heard:
            assert self._heard.wait_for(lambda: token in self._tokens, LIMIT), "no answer"

    def _settle(self) -> None:
        self._sync_all()
        if self._waiting is not None:
            running = sum(job.worker_connection is not None for job in list(self.server.jobs.values()))
            if running > len(self._taken) or self._has_job_for(self._waiting[0]):
                # Our server wakes one worker after the other, and some may not wait any more.
                self._finish_waiting()
                self._sync_all()

    def _sync_all(self) -> None:
        for _ in range(2):
            for party in (self.client, *self.workers):
                self._sync(party)

    def _finish_waiting(self) -> None:
        assert self._waiting is not None
        worker, thread, results = self._waiting
        self._waiting = None
        thread.join(LIMIT)
        (result,) = results
        self._record("getJob returned", self._got(worker, result))

    def _got(self, worker: Any, result: Any) -> Any:
        if isinstance(result, Exception):
            return type(result).__name__
        self._taken.append((worker, result))
        return [
            type(result).__name__,
            self._names.get(result.handle),
            repr((result.name, result.arguments, result.unique)),
            result.connection is worker.active_connections[0],
        ]

    def _record(self, what: str, outcome: Any = None) -> None:
        self.trace.append([what, outcome])

    def _state(self) -> Any:
        """Return all that programs look at."""
        server, client = self.server, self.client
        names = {bytes(peer.client_id or b""): peer for peer in list(server.active_connections)}
        return {
            "queues": [
                [self._job(job) for job in queue]
                for queue in (server.high_queue, server.normal_queue, server.low_queue)
            ],
            "getQueue": [self._job(job) for job in server.getQueue()],
            "counts": [server.total_jobs, server.running_jobs, server.waiting_jobs, server.max_handle],
            "jobs": sorted(map(self._job, list(server.jobs.values()))),
            "functions": sorted(map(repr, self._registered.intersection(server.functions))),  # not those of jobs
            "peers": [
                [
                    repr(name),
                    sorted(map(repr, peer.functions)),
                    sorted(self._names[handle] for handle in dict(peer.related_jobs)),
                ]
                for name, peer in sorted(names.items())
            ],
            "workers": [
                [
                    sorted(map(repr, worker.functions)),
                    worker.waiting_for_jobs,
                    worker.job_queue.qsize(),
                    worker.active_connections[0].state,
                ]
                for worker in self.workers
            ],
            "related": sorted(self._names[handle] for handle in dict(client.active_connections[0].related_jobs)),
            "pending": len(client.active_connections[0].pending_tasks),
            "client": [
                repr(
                    (
                        *(job.data, job.exception, job.warning, job.complete, job.failure),
                        *(job.numerator or b"0", job.denominator or b"0"),
                        *(
                            job.fraction_complete,
                            job.known,
                            job.running,
                            job.connection is client.active_connections[0],
                        ),
                    )
                )
                for job in self._jobs
            ],
        }

    # Steps

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            result = call()
        except Exception as error:
            self._record(what, f"raises {type(error).__name__}")
            return None
        self._record(what)
        return result

    def submit(self) -> None:
        """Submit a job."""
        chance, gear = self._random, self._gear
        kind = chance.choice(["Job", "TextJob", "BinaryJob"])
        function, arguments = chance.choice(FUNCTIONS), chance.choice(PAYLOADS[:3])
        number = len(self._jobs)
        unique = chance.choice([None, f"u{number}"])
        job = getattr(gear, kind)(function, b"%d:%b" % (number, arguments), unique)
        background = chance.random() < 0.3
        precedence = chance.choice([gear.PRECEDENCE_NORMAL, gear.PRECEDENCE_HIGH, gear.PRECEDENCE_LOW, 7])
        self._try(
            f"submit {kind} {number} {function} {unique} {background} {precedence}",
            lambda: self.client.submitJob(job, background, precedence, LIMIT),
        )
        if job.handle is not None:
            self._names[job.handle] = f"job {number}"
            self._jobs.append(job)

    def _has_job_for(self, worker: Any) -> bool:
        return any(job.name in worker.functions for job in self.server.getQueue())

    def get_job(self) -> None:
        """Take a job, or begin to wait for one."""
        worker = self._random.choice(self.workers)
        if self._waiting is not None:
            return
        results: list[Any] = []

        def wait() -> None:
            try:
                results.append(worker.getJob())
            except Exception as error:
                results.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        there = self._has_job_for(worker)
        thread.start()
        self._waiting = worker, thread, results
        self._record("getJob", there)
        if there:
            self._finish_waiting()
        else:
            while worker.active_connections[0].state != "SLEEP":
                self._sync(worker)

    def stop(self) -> None:
        """Stop waiting for jobs."""
        if self._waiting is not None:
            self._waiting[0].stopWaitingForJobs()
            self._finish_waiting()

    def register(self) -> None:
        """Change the functions of a worker."""
        chance, worker = self._random, self._random.choice(self.workers)
        if self._waiting is not None and self._waiting[0] is worker:
            return  # `gear` loses the answer at times when two threads ask
        way, function = (
            chance.choice(["register", "register", "register", "unregister", "set"]),
            chance.choice(FUNCTIONS),
        )
        if way == "register":
            self._registered.add(function.encode())
            self._try(f"register {function}", lambda: worker.registerFunction(function))
        elif way == "unregister":
            self._try(f"unregister {function}", lambda: worker.unRegisterFunction(function))
        else:
            records = [self._gear.FunctionRecord(name.encode()) for name in chance.sample(FUNCTIONS, 2)]
            self._registered.update(record.name for record in records)
            self._try(f"set {records[0].name!r}", lambda: worker.setFunctions(records))

    def report(self) -> None:
        """Report on a job."""
        if not self._taken:
            return
        chance, index = self._random, self._random.randrange(len(self._taken))
        _worker, job = self._taken[index]
        way = chance.choice(["Data", "Data", "Warning", "Status", "Complete", "Complete", "Fail", "Exception"])
        arguments: tuple[Any, ...] = ()
        if way == "Status":
            arguments = chance.choice([(1, 2), (0, 0), (3, "4")])
        elif way != "Fail":
            arguments = (chance.choice(PAYLOADS),)
        if way in ("Complete", "Fail", "Exception"):
            del self._taken[index]
        name = self._names[job.handle]
        self._try(f"sendWork{way} {name} {arguments}", lambda: getattr(job, f"sendWork{way}")(*arguments))

    def status(self) -> None:
        """Ask for the status of a job, as clients do."""
        if self._jobs:
            job, constants = self._random.choice(self._jobs), self._gear.constants
            packet = self._gear.Packet(constants.REQ, constants.GET_STATUS, job.handle)
            self._try(f"GET_STATUS {self._names[job.handle]}", lambda: job.connection.sendPacket(packet))

    def admin(self) -> None:
        """Send a text command."""
        chance, gear = self._random, self._gear
        way = chance.choice(["status", "workers", "cancel", "cancel"])
        if way == "status":
            request = gear.StatusAdminRequest()
        elif way == "workers":
            request = gear.WorkersAdminRequest()
        else:
            queued = [job for job in self.server.getQueue() if job.client_connection is None]
            handle = chance.choice([job.handle for job in queued] or [b"H:nobody:1"])
            way = f"cancel {self._names.get(handle)}"
            request = gear.CancelJobAdminRequest(handle)
        self._try(way, lambda: self.client.active_connections[0].sendAdminRequest(request, LIMIT))
        rows = request.response.splitlines(True)
        if way == "status":
            rows = [row for row in rows if row == b".\n" or row.split(b"\t")[0] in self._registered]
        if way == "workers":
            rows = [row.split(b" ", 2)[-1] for row in rows]
        self._record("answer", sorted(" ".join(sorted(row.decode().split())) for row in rows))

    def run(self, steps: int) -> None:
        """Take steps at random."""
        actions = [self.submit] * 6 + [self.get_job] * 4 + [self.report] * 5 + [self.register] * 3
        actions += [self.stop, self.status, self.status, self.admin, self.admin]
        for worker in self.workers:
            worker.registerFunction("f")
        for _ in range(steps):
            self._random.choice(actions)()
            self._settle()
            hooks, self._hooks[:] = sorted(self._hooks), []
            self.trace.append([hooks, self._state()])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    send_at_once()
    session = Session(importlib.import_module(sys.argv[1]), sys.argv[2])
    try:
        session.run(int(sys.argv[3]))
    finally:
        sys.stdout.write(json.dumps(session.trace))
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os._exit(0)  # `gear` takes seconds to shut down
