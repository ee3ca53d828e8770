"""One small situation for each known difference of servers, clients and workers. Prints what came of each, as JSON.

It runs with either implementation of the API, in a process of its own: ``-m ...differences MODULE``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.gear_sync.gear.reference.programs import HOST, LIMIT, connect, until
from tests.gear_sync.gear.reference.sockets import send_at_once


class Situations:
    """The situations, each with a server of its own."""

    def __init__(self, gear: Any) -> None:
        self._gear = gear

    def _submitted(self, *, background: bool = False, function: str = "f", unique: str | None = None) -> Any:
        """Return a server, a client that has submitted a job, and the job."""
        server = self._gear.Server(0)
        client = connect(self._gear.Client("client"), server)
        job = self._gear.Job(function, b"x", unique=unique)
        client.submitJob(job, background=background)
        until(server.getQueue)
        return server, client, job

    def _taken(self, *, background: bool = False) -> Any:
        """Return a server, a client, its job, a worker, and the job as the worker has got it."""
        server, client, job = self._submitted(background=background)
        worker = connect(self._gear.Worker("worker"), server)
        worker.registerFunction("f")
        return server, client, job, worker, worker.getJob()

    def _answer(self, client: Any, request: Any) -> Any:
        try:
            client.getConnection().sendAdminRequest(request, 0.2)
        except self._gear.TimeoutError:
            return "no answer"
        return re.sub(r"[0-9.]+", "N", request.response.decode())

    def cancelling_a_foreground_job(self) -> Any:
        server, client, job = self._submitted()
        answer = self._answer(client, self._gear.CancelJobAdminRequest(job.handle))
        self._answer(client, self._gear.StatusAdminRequest())
        return [answer, job.complete, job.failure, server.total_jobs]

    def functions_of_jobs(self) -> Any:
        server, _client, _job = self._submitted()
        return sorted(name.decode() for name in server.functions)

    def one_unique_twice(self) -> Any:
        server, client, job = self._submitted(unique="u")
        again = self._gear.Job("f", b"x", unique="u")
        client.submitJob(again)
        self._answer(client, self._gear.StatusAdminRequest())
        return [server.total_jobs, again.handle == job.handle]

    def a_worker_that_is_lost(self) -> Any:
        server, _client, job, worker, _taken = self._taken(background=True)
        worker.shutdown()
        until(lambda: server.running_jobs == 0)
        return [server.total_jobs, job.handle in server.jobs]

    def a_timeout_of_a_function(self) -> Any:
        server = self._gear.Server(0)
        worker = connect(self._gear.Worker("worker"), server)
        worker.registerFunction("f", b"60000")
        self._answer(worker, self._gear.StatusAdminRequest())
        return sorted(name.decode() for name in server.functions)

    def a_timeout_that_is_a_number(self) -> Any:
        worker = self._gear.Worker("worker")
        try:
            worker.registerFunction("f", 60000)
        except TypeError:
            return "TypeError"
        return "registered"

    def the_progress_of_a_job_without_any(self) -> Any:
        _server, client, job = self._submitted()
        packet = self._gear.Packet(self._gear.constants.REQ, self._gear.constants.GET_STATUS, job.handle)
        job.connection.sendPacket(packet)
        until(lambda: job.known)
        del client
        return [job.numerator.decode(), job.denominator.decode()]

    def asking_for_the_version(self) -> Any:
        _server, client, _job = self._submitted()
        return self._answer(client, self._gear.VersionAdminRequest())

    def the_result_of_a_text_job_that_is_not_text(self) -> Any:
        server = self._gear.Server(0)
        client, worker = connect(self._gear.Client(), server), connect(self._gear.Worker("worker"), server)
        worker.registerFunction("f")
        job = self._gear.TextJob("f", "x")
        client.submitJob(job)
        worker.getJob().sendWorkComplete(b"\xff")
        self._answer(worker, self._gear.StatusAdminRequest())
        self._answer(client, self._gear.StatusAdminRequest())
        return [job.complete, [piece.encode(errors="backslashreplace").decode() for piece in job.data]]

    def no_server_to_submit_to(self) -> Any:
        client = self._gear.Client()
        try:
            client.submitJob(self._gear.Job("f", b""))
        except self._gear.GearmanError as error:
            return type(error).__name__

    def a_report_of_a_stranger(self) -> Any:
        server, client, job, _worker, _taken = self._taken()
        stranger = connect(self._gear.Worker("stranger"), server)
        forged = self._gear.WorkerJob(job.handle, "f", b"")
        forged.connection = stranger.getConnection()
        forged.sendWorkComplete(b"forged")
        self._answer(stranger, self._gear.StatusAdminRequest())
        self._answer(client, self._gear.StatusAdminRequest())
        return [job.complete, [piece.decode() for piece in job.data]]

    def an_unfinished_job_whose_server_is_lost(self) -> Any:
        gone = threading.Event()

        class Client(self._gear.Client):  # type: ignore[misc,name-defined]
            def handleDisconnect(self, job: Any) -> Any:
                gone.set()
                return super().handleDisconnect(job)

        server = self._gear.Server(0)
        client = connect(Client(), server)
        job = self._gear.Job("f", b"")
        client.submitJob(job)
        client._lostConnection(client.getConnection())
        assert gone.wait(LIMIT)
        return [job.complete, job.failure]

    def a_status_request_in_a_hook(self) -> Any:
        outcome: list[str] = []
        gear = self._gear

        class Client(gear.Client):  # type: ignore[misc,name-defined]
            def handleJobCreated(self, packet: Any) -> Any:
                job = super().handleJobCreated(packet)
                try:
                    packet.connection.sendAdminRequest(gear.StatusAdminRequest(), 0.1)
                except Exception as error:
                    outcome.append(type(error).__name__)
                return job

        client = connect(Client(), gear.Server(0))
        client.submitJob(gear.Job("f", b""))
        until(lambda: outcome)
        return outcome

    def some_of_the_tls_files(self) -> Any:
        client = self._gear.Client()
        try:
            client.addServer(HOST, 1, ssl_ca="/some/file")
        except self._gear.ConfigurationError:
            return "ConfigurationError"
        return "plain TCP"

    def a_name_with_a_nul(self) -> Any:
        _server, client, _job = self._submitted()
        try:
            client.submitJob(self._gear.Job("f\0g", b""))
        except self._gear.InvalidDataError:
            return "InvalidDataError"
        return "submitted"

    def a_call_after_shutdown(self) -> Any:
        client = self._gear.Client()
        client.shutdown()
        try:
            client.addServer(HOST, 1)
        except self._gear.GearmanError:
            return "GearmanError"
        return "nothing"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    send_at_once()
    situations = Situations(importlib.import_module(sys.argv[1]))
    results: dict[str, Any] = {}
    for name in sorted(name for name in vars(Situations) if not name.startswith("_")):
        call: Callable[[], Any] = getattr(situations, name)
        try:
            results[name] = call()
        except Exception as error:
            results[name] = repr(error)
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os._exit(0)  # `gear` takes seconds to shut down
