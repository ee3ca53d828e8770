"""The public attributes of all objects, each with the builtin type that it is of. Prints them as JSON.

It runs with either implementation of the API, in a process of its own: ``-m ...attributes MODULE``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
from typing import Any

from tests.gear_sync.gear.reference.programs import connect, until
from tests.gear_sync.gear.reference.sockets import send_at_once


def kind(value: object) -> str:
    """Return the name of a value's type, or of the last but `object` that it derives from."""
    if isinstance(value, type):
        return "class"
    return "callable" if callable(value) else type(value).__mro__[-2].__name__


def collect(gear: Any) -> dict[str, str]:
    """Return the kinds of all attributes."""
    server = gear.Server(0)
    client, worker = connect(gear.Client(), server), connect(gear.Worker("w"), server)
    job = gear.Job("f", b"")
    client.submitJob(job)
    until(server.getQueue)
    (held,) = server.getQueue()
    things = {
        "client": client,
        "worker": worker,
        "server": server,
        "connection": job.connection,
        "server_connection": held.client_connection,
        "job": job,
        "server_job": held,
        "non_blocking": gear.NonBlockingConnection("host", 1),
        "worker_job": gear.WorkerJob(b"H:1", "f", b""),
        "packet": gear.Packet(gear.constants.REQ, 1, b""),
        "request": gear.StatusAdminRequest(),
        "task": gear.SubmitJobTask(job),
        "module": gear,
    }
    return {
        f"{name}.{attribute}": kind(getattr(thing, attribute))
        for name, thing in things.items()
        for attribute in dir(thing)
        if not attribute.startswith("_") and kind(getattr(thing, attribute)) != "module"
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    send_at_once()
    sys.stdout.write(json.dumps(collect(importlib.import_module(sys.argv[1]))))
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os._exit(0)  # `gear` takes seconds to shut down
