"""Whole small programs, in the manner of those that were written for `gear`. Prints what each has done, as JSON.

They run with either implementation of the API, or with the clients and workers of one and the servers of the other, in
a process of their own: ``-m ...programs MODULE SERVER_MODULE KEY CERTIFICATE CA``.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import logging
import os
import queue
import re
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from tests.gear_sync.gear.reference.sockets import send_at_once

LIMIT = 20.0  # seconds; only a hang reaches it
HOST = "127.0.0.1"

Program = Callable[[Any], Any]


def until(condition: Callable[[], object]) -> None:
    """Look again and again whether a condition holds, as programs of that time do."""
    pause = threading.Event()
    for _ in range(int(LIMIT / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it never happens")


def connect(party: Any, *servers: Any) -> Any:
    """Connect a client or worker; ports come out of a file of settings, as text."""
    for server in servers:
        party.addServer(HOST, str(server.port))
    party.waitForServer(LIMIT)
    until(lambda: len(party.active_connections) == len(servers))
    return party


def log_processor(gear: Any) -> Any:
    """A client sends log events as JSON in background jobs; workers parse them, and pass over those that are bad."""
    server = gear.Server(0)
    client = connect(gear.Client("log-client"), server)
    parsed: queue.Queue[Any] = queue.Queue()
    failed = 0

    class LogRetriever(threading.Thread):
        def __init__(self, name: str) -> None:
            super().__init__(daemon=True)
            self.worker = connect(gear.TextWorker(name), server)
            self.worker.registerFunction("push-log")

        def run(self) -> None:
            nonlocal failed
            while True:
                try:
                    job = self.worker.getJob()
                    event = json.loads(job.arguments)
                except gear.InterruptedError:
                    return
                except ValueError:
                    failed += 1
                    job.sendWorkException("not JSON")
                    continue
                parsed.put((event["source"].upper(), job.unique))
                job.sendWorkComplete()

    retrievers = [LogRetriever(f"retriever-{number}") for number in range(2)]
    for retriever in retrievers:
        retriever.start()
    for number in range(20):
        source = "{" if number % 5 == 0 else json.dumps({"source": f"http://host/é/{number}"})
        job = gear.TextJob("push-log", source, unique=f"log-{number}")
        client.submitJob(job, background=True, precedence=gear.PRECEDENCE_LOW)
    events = sorted(parsed.get(timeout=LIMIT) for _ in range(16))
    until(lambda: server.total_jobs == 0)
    for retriever in retrievers:
        retriever.worker.stopWaitingForJobs()
        retriever.join(LIMIT)
    return [events, failed, server.total_jobs, sorted(map(repr, server.functions))]


class _Builds:
    """Makes the two ends of a scheduler and its executors."""

    def __init__(self, gear: Any) -> None:
        self.log: list[Any] = []
        self.gear = gear
        self.lost = threading.Event()
        builds = self

        class Scheduler(gear.Client):  # type: ignore[misc]
            def __init__(self) -> None:
                self.builds: dict[str, Any] = {}
                super().__init__("scheduler")

            def handleWorkStatus(self, packet: Any) -> Any:
                job = super().handleWorkStatus(packet)
                builds.log.append(("status", job.unique.decode(), job.fraction_complete))
                return job

            def handleWorkData(self, packet: Any) -> Any:
                job = super().handleWorkData(packet)
                builds.log.append(("data", job.unique.decode(), json.loads(job.data[-1])))
                return job

            def handleWorkComplete(self, packet: Any) -> Any:
                job = super().handleWorkComplete(packet)
                self.finish(job, json.loads(b"".join(job.data[-1:]))["result"])
                return job

            def handleWorkFail(self, packet: Any) -> Any:
                job = super().handleWorkFail(packet)
                self.finish(job, "FAILED")
                return job

            def handleWorkException(self, packet: Any) -> Any:
                job = super().handleWorkException(packet)
                self.finish(job, f"EXCEPTION {job.exception.decode()}")
                return job

            def handleStatusRes(self, packet: Any) -> Any:
                try:
                    job = super().handleStatusRes(packet)
                except gear.UnknownJobError:
                    builds.log.append(("unknown", packet.getArgument(0) == b"H:nobody:1"))
                    return None
                builds.log.append(("known", job.unique.decode(), job.known, job.running))
                return job

            def handleDisconnect(self, job: Any) -> Any:
                job = super().handleDisconnect(job)
                self.finish(job, "LOST")
                builds.lost.set()
                return job

            def finish(self, job: Any, result: str) -> None:
                if self.builds.pop(job.unique.decode(), None) is not None:  # it may be told of twice
                    builds.log.append((result, job.unique.decode()))

            def launch(self, name: str, arguments: Any, precedence: int) -> Any:
                job = gear.Job(name, json.dumps(arguments).encode(), unique=f"build-{arguments['number']}".encode())
                self.builds[job.unique.decode()] = job
                self.submitJob(job, precedence=precedence, timeout=300)
                return job

            def lookup(self, connection: Any, handle: bytes) -> None:
                packet = gear.Packet(gear.constants.REQ, gear.constants.GET_STATUS, handle)
                connection.sendPacket(packet)

        class Executor(gear.TextWorker):  # type: ignore[misc]
            def handleNoop(self, packet: Any) -> None:
                threading.Event().wait(0.001)  # spreads the load
                super().handleNoop(packet)

        self.scheduler_class = Scheduler
        self.executor_class = Executor


def zuul(gear: Any) -> Any:
    """A scheduler launches builds, watches and cancels them; an executor runs them."""
    builds = _Builds(gear)
    server = gear.Server(0)
    scheduler = connect(builds.scheduler_class(), server)
    low = scheduler.launch("executor:execute", {"number": 1, "do": "complete"}, gear.PRECEDENCE_LOW)
    scheduler.launch("executor:execute", {"number": 2, "do": "fail"}, gear.PRECEDENCE_NORMAL)
    scheduler.launch("executor:execute", {"number": 3, "do": "raise"}, gear.PRECEDENCE_HIGH)
    doomed = scheduler.launch("executor:execute", {"number": 4, "do": "complete"}, gear.PRECEDENCE_LOW)
    scheduler.lookup(low.connection, low.handle)
    scheduler.lookup(low.connection, b"H:nobody:1")
    until(lambda: len(builds.log) == 2)
    request = gear.CancelJobAdminRequest(doomed.handle)
    del scheduler.builds["build-4"]
    doomed.connection.sendAdminRequest(request, timeout=300)
    executor = connect(builds.executor_class("executor"), server)
    for name in ("executor:execute", "executor:stop:host"):
        executor.registerFunction(name)
    order = []
    for _ in range(3):
        job = executor.getJob()
        arguments = json.loads(job.arguments)
        order.append((job.name, job.unique, arguments["number"]))
        job.sendWorkData(json.dumps({"url": "http://é"}))
        job.sendWorkStatus(0, 100)
        if arguments["do"] == "complete":
            executor.unRegisterFunction("executor:execute")  # it is paused
            job.sendWorkStatus(50, 100)
            job.sendWorkComplete(json.dumps({"result": "SUCCESS"}))
        elif arguments["do"] == "fail":
            job.sendWorkFail()
        else:
            job.sendWorkException("Traceback")
    until(lambda: not scheduler.builds)
    return [order, builds.log, request.response.decode(), low.complete, low.failure, doomed.handle in server.jobs]


def zuul_restart(gear: Any) -> Any:
    """A scheduler learns that its server has gone."""
    builds = _Builds(gear)
    server = gear.Server(0)
    scheduler = connect(builds.scheduler_class(), server)
    scheduler.launch("executor:execute", {"number": 1}, gear.PRECEDENCE_NORMAL)
    server.shutdown()
    assert builds.lost.wait(LIMIT)
    until(lambda: not scheduler.active_connections)
    try:
        scheduler.submitJob(gear.Job("f", b""), timeout=1)
    except gear.GearmanError:
        builds.log.append("not submitted")
    return builds.log


def executor_that_asks(gear: Any) -> Any:
    """An executor that asks for jobs itself once it has room, and says how many it has."""
    server = gear.Server(0)
    client = connect(gear.Client(), server)
    sent = []

    class Governed(gear.TextWorker):  # type: ignore[misc]
        accepting = True

        def sendPacket(self, packet: Any, connection: Any) -> Any:
            sent.append(gear.constants.types[packet.ptype])
            return super().sendPacket(packet, connection)

        def handleNoop(self, packet: Any) -> None:
            if self.accepting:
                super().handleNoop(packet)

    executor = connect(Governed("governed"), server)
    executor.registerFunction("execute")
    for number in range(2):
        client.submitJob(gear.Job("execute", b"%d" % number))
    first = executor.getJob()
    executor._sendGrabJobUniq(executor.getConnection())
    until(lambda: executor.job_queue.qsize() == 1)
    second = executor.getJob()
    names = sorted({thread.name for thread in (executor.poll_thread, executor.connect_thread)})
    return [[first.arguments, second.arguments], sent, executor.getConnection().state, names, executor.log.name[:11]]


def holding_server(gear: Any) -> Any:
    """A server of a test suite that holds jobs back, and releases them by a pattern."""

    class Holding(gear.Server):  # type: ignore[misc]
        def __init__(self) -> None:
            self.hold_jobs_in_queue = True
            super().__init__(0)

        def getJobForConnection(self, connection: Any, peek: bool = False) -> Any:
            for jobs in [self.high_queue, self.normal_queue, self.low_queue]:
                for job in jobs:
                    if not hasattr(job, "waiting"):
                        job.waiting = self.hold_jobs_in_queue
                    if job.waiting:
                        continue
                    if job.name in connection.functions:
                        if not peek:
                            jobs.remove(job)
                            connection.related_jobs[job.handle] = job
                            job.worker_connection = connection
                        job.running = True
                        return job
            return None

        def release(self, regex: str = "") -> int:
            released = 0
            for job in self.high_queue + self.normal_queue + self.low_queue:
                if getattr(job, "waiting", True) and re.match(regex, job.name.decode()):
                    job.waiting = False
                    released += 1
            self.wakeConnections()
            return released

    server = Holding()
    client, worker = connect(gear.Client(), server), connect(gear.TextWorker("w"), server)
    for name in ("build:a", "build:b", "build:c"):
        worker.registerFunction(name)
    got: queue.Queue[str] = queue.Queue()

    def work() -> None:
        while True:
            try:
                job = worker.getJob()
            except gear.InterruptedError:
                return
            job.sendWorkComplete()
            got.put(job.name)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for name in ("build:a", "build:b", "build:c", "build:b"):
        client.submitJob(gear.Job(name, b"{}"))
    until(lambda: len(server.getQueue()) == 4)
    held = [[job.name.decode() for job in server.getQueue()], got.qsize()]
    steps = [held]
    for regex, count in (("build:b", 2), ("nothing", 0), ("", 2)):
        until(lambda: any(peer.state == "SLEEP" for peer in server.active_connections))  # `gear` may miss it otherwise
        until(lambda: worker.getConnection().state == "SLEEP")
        released = server.release(regex)
        steps.append([released, [got.get(timeout=LIMIT) for _ in range(count)]])
    until(lambda: server.getQueue() == [])
    server.normal_queue.sort(key=lambda job: job.name)
    worker.stopWaitingForJobs()
    thread.join(LIMIT)
    return [steps, isinstance(server.normal_queue, list), len(server.low_queue), worker.getConnection().state]


def nodepool(gear: Any) -> Any:
    """A launcher reads the demand for nodes out of the status of each server."""
    servers = [gear.Server(0) for _ in range(2)]
    client = connect(gear.Client("nodepool"), *servers)
    workers = []
    for number, server in enumerate(servers):
        worker = connect(gear.Worker(f"label-{number}"), server)
        for name in ("build:one", "build:one:label"):
            worker.registerFunction(name)
        worker.getConnection().sendAdminRequest(gear.StatusAdminRequest())
        workers.append(worker)
    for number in range(6):
        client.submitJob(gear.Job("build:one" if number % 3 else "build:one:label", b""), background=True)
    demand: collections.Counter[str] = collections.Counter()
    for connection in client.active_connections:
        try:
            request = gear.StatusAdminRequest()
            connection.sendAdminRequest(request)
        except Exception:
            client._lostConnection(connection)
            continue
        for line in request.response.split(b"\n"):
            parts = [part.strip().decode() for part in line.split(b"\t")]
            if len(parts) < 4 or not parts[0].startswith("build:"):
                continue
            demand[parts[0]] += int(parts[1]) - int(parts[2])
    request = gear.WorkersAdminRequest()
    first = next(connection for connection in client.active_connections if connection.port == str(servers[0].port))
    first.sendAdminRequest(request)
    labels = sorted(word.decode() for word in request.response.split() if word.startswith(b"label"))
    client._lostConnection(first)
    left = len(client.active_connections)
    return [sorted(demand.items()), labels, left <= 2]


def turbo_hipster(gear: Any) -> Any:
    """A worker with one handler for each of its functions, which reports while it works, and is stopped by a job."""
    server = gear.Server(0)
    client = connect(gear.Client("client"), server)

    class Manager(threading.Thread):
        def __init__(self) -> None:
            super().__init__(daemon=True)
            self.handlers: dict[str, Callable[[Any], None]] = {}
            self.worker = connect(gear.Worker("manager"), server)
            self.running = True

        def register(self, name: str, handler: Callable[[Any], None]) -> None:
            self.handlers[name] = handler
            self.worker.setFunctions([gear.FunctionRecord(known.encode()) for known in self.handlers])

        def run(self) -> None:
            while self.running:
                try:
                    job = self.worker.getJob()
                    self.handlers[job.name](job)
                except gear.InterruptedError:
                    break
                except Exception as error:
                    job.sendWorkException(str(error).encode())

    manager = Manager()

    def build(job: Any) -> None:
        arguments = json.loads(job.arguments.decode())
        job.sendWorkData(json.dumps({"name": job.name, "manager": "manager"}).encode())
        for step in range(3):
            job.sendWorkStatus(step, 3)
        job.sendWorkWarning(b"nearly")
        job.sendWorkComplete(json.dumps({"result": arguments["LOG_PATH"]}).encode())

    def stop(job: Any) -> None:
        manager.running = False
        job.sendWorkComplete()

    def fail(_job: Any) -> None:
        raise ZeroDivisionError("oops")

    for name, handler in (("build:real-db", build), ("stop:manager", stop), ("fail", fail)):
        manager.register(name, handler)
    manager.start()
    jobs = []
    for name in ("build:real-db", "fail", "stop:manager"):
        job = gear.Job(name, json.dumps({"LOG_PATH": "12/34"}).encode())
        job.extra = name
        client.submitJob(job)
        jobs.append(job)
        until(lambda: jobs[-1].complete)
    manager.join(LIMIT)
    return [
        (
            job.extra,
            [piece.decode() for piece in job.data],
            job.warning,
            job.failure,
            repr(job.exception),
            job.fraction_complete,
        )
        for job in jobs
    ]


def gearhorn(gear: Any) -> Any:
    """A server that knows one more packet: whoever sends it gets the jobs of a function that others broadcast."""
    subscribe = 101

    class Horn(gear.Server):  # type: ignore[misc]
        def __init__(self) -> None:
            self.subscribers: dict[bytes, list[Any]] = {}
            super().__init__(0)

        def handlePacket(self, packet: Any) -> None:
            if packet.ptype == subscribe:
                self.subscribers.setdefault(bytes(packet.data), []).append(packet.connection)
                packet.connection.functions.add(b"of the program")
                packet.connection.sendPacket(gear.Packet(gear.constants.RES, subscribe, b"welcome"))
            else:
                super().handlePacket(packet)

        def handleStatus(self, request: Any) -> None:
            rows = [b"%b\t%d\n" % (name, len(peers)) for name, peers in self.subscribers.items()]
            request.connection.conn.send(b"".join([*rows, b".\n"]))

    class Listener(gear.Worker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.welcomes: queue.Queue[bytes] = queue.Queue()
            super().__init__("listener")

        def handlePacket(self, packet: Any) -> None:
            if packet.ptype == subscribe:
                self.welcomes.put(bytes(packet.data))
            else:
                super().handlePacket(packet)

    server = Horn()
    listener = connect(Listener(), server)
    listener.broadcast(gear.Packet(gear.constants.REQ, subscribe, b"news"))
    welcome = listener.welcomes.get(timeout=LIMIT)
    client = connect(gear.Client(), server)
    request = gear.StatusAdminRequest()
    client.getConnection().sendAdminRequest(request)
    job = gear.Job("of the program", b"x")
    client.submitJob(job)
    taken = listener.getJob()
    taken.sendWorkComplete(b"heard")
    until(lambda: job.complete)
    return [welcome.decode(), request.response.decode(), taken.name, job.data[0].decode()]


def gearstore(gear: Any) -> Any:
    """Jobs are stored by one server's worker, and shipped to another server by a client."""
    inner, outer = gear.Server(0), gear.Server(0)
    store: list[tuple[str, bytes, Any]] = []
    shipper = connect(gear.Worker("store"), inner)
    shipper.registerFunction("store")
    submitter, client = connect(gear.Client("a"), inner), connect(gear.Client("b"), outer)
    for number in range(3):
        submitter.submitJob(gear.Job("store", json.dumps(["f", number]).encode(), unique=f"u{number}"), background=True)
    for _ in range(3):
        job = shipper.getJob()
        name, number = json.loads(job.arguments)
        store.append((name, b"%d" % number, job.unique))
        job.sendWorkComplete()
    for name, arguments, unique in store:
        client.submitJob(gear.Job(name, arguments, unique))
    until(lambda: inner.total_jobs == 0)
    worker = connect(gear.Worker("last"), outer)
    worker.registerFunction("f")
    jobs = [worker.getJob() for _ in range(3)]
    return [[(job.name, job.arguments.decode(), job.unique.decode()) for job in jobs], outer.max_handle]


def apimon(gear: Any) -> Any:
    """An executor that waits in several threads, and is shut down while it waits."""
    server = gear.Server(0)
    worker, client = connect(gear.TextWorker("apimon"), server), connect(gear.Client(), server)
    worker.registerFunction("run")
    done: queue.Queue[str] = queue.Queue()

    def run() -> None:
        while True:
            try:
                job = worker.getJob()
            except gear.InterruptedError:
                done.put("interrupted")
                return
            job.sendWorkComplete("ok")
            done.put(job.arguments)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    jobs = [gear.TextJob("run", str(number)) for number in range(5)]
    for job in jobs:
        client.submitJob(job)
    ran = sorted(done.get(timeout=LIMIT) for _ in jobs)
    until(lambda: all(job.complete for job in jobs))
    worker.shutdown()
    for thread in threads:
        thread.join(LIMIT)
    try:
        worker.getJob()
    except gear.InterruptedError:
        ran.append("shut down")
    return [ran, [job.data for job in jobs], sorted(done.get(timeout=LIMIT) for _ in threads)]


def encrypted(gear: Any) -> Any:
    """A client and a worker that show certificates to a server, and it to them: none of these names a host."""
    files = sys.argv[3:6]
    server = gear.Server(0, *files)
    client, worker = gear.Client("client"), gear.TextWorker("worker")
    for party in (client, worker):
        party.addServer("localhost", server.port, *files)
        party.waitForServer(LIMIT)
    worker.registerFunction("f")
    job = gear.TextJob("f", "é" * 50000)
    client.submitJob(job)
    worker.getJob().sendWorkComplete("done")
    until(lambda: job.complete)
    return [job.data, client.active_connections[0].use_ssl, [peer.ssl_subject for peer in server.active_connections]]


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        *(log_processor, zuul, zuul_restart, executor_that_asks, holding_server, nodepool, turbo_hipster, gearhorn),
        *(gearstore, apimon, encrypted),
    )
}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    send_at_once()
    clients, servers = (importlib.import_module(name) for name in sys.argv[1:3])
    module = types.SimpleNamespace(**{**vars(clients), "Server": servers.Server})
    results = {}
    for program_name, program in PROGRAMS.items():
        try:
            results[program_name] = program(module)
        except Exception as error:
            results[program_name] = repr(error)
    sys.stdout.write(json.dumps(results, default=repr))
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os._exit(0)  # `gear` takes seconds to shut down
