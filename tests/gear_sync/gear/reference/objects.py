"""Random calls of what needs no server: jobs, packets, requests, lists. Prints each call and what came of it, as JSON.

It runs with either implementation of the API, in a process of its own: ``-m ...objects MODULE SEED COUNT``.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Callable
from typing import Any

VALUES: list[Any] = [None, "", "x", "é", "f:1", b"", b"x", b"a\0b", b"a\0b\0", bytearray(b"y"), 0, 5, 1.5, [], b"\xff"]
NAMES: list[Any] = ["f", "é", b"g", b"\xff", "reverse"]
UNIQUES: list[Any] = [None, "", "u", "é", b"u", b"", b"\xff"]
ARGUMENTS: list[Any] = [b"", b"x", b"a\0b", bytearray(b"y"), b"\xff"]
READ = (
    *("name", "arguments", "unique", "handle", "connection", "binary_name", "binary_arguments", "binary_unique"),
    *("data", "exception", "warning", "complete", "failure", "numerator", "denominator", "fraction_complete"),
    *("known", "running", "client_connection", "worker_connection"),
)
TEXT = [
    b"",
    b"OK\n",
    b"OK 1\r\n",
    b"f\t1\t0\t0\n",
    b".\n",
    b".\r\n",
    b"f\t1\t0\t0\n.\n",
    b".\nmore",
    b"a\n.\nb\n",
    b"a",
]


class Recording:
    """Stands for a connection that a job is reported on."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.related_jobs: dict[bytes, Any] = {}

    def sendPacket(self, packet: Any) -> None:
        self.sent.append(bytes(packet.toBinary()))


def shown(value: Any) -> str:
    """Return a value as text that two implementations have in common."""
    if isinstance(value, BaseException):
        return f"raises {type(value).__name__}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(shown, value))})"
    return re.sub(r"0x[0-9a-f]+", "0x", repr(value)).replace("gear_sync.gear.tasks.", "gear.")


class Objects:
    """Calls at random."""

    def __init__(self, gear: Any, seed: str) -> None:
        self._gear = gear
        self._random = random.Random(seed)
        self.steps: list[tuple[str, str]] = []

    def _do(self, step: str, call: Callable[[], Any]) -> Any:
        try:
            value = call()
            outcome = shown(value)
        except Exception as error:
            value, outcome = error, shown(error)
        self.steps.append((step, outcome))
        return value

    def _any(self, values: list[Any] = VALUES) -> Any:
        return self._random.choice(values)

    def _call(self, target: Any, name: str, *arguments: Any) -> Any:
        label = target.__name__ if isinstance(target, type) else type(target).__name__
        return self._do(f"{label}.{name}{shown(arguments)}", lambda: getattr(target, name)(*arguments))

    def _make(self, name: str, *arguments: Any) -> Any:
        made = self._do(f"{name}{shown(arguments)}", lambda: getattr(self._gear, name)(*arguments))
        return None if isinstance(made, Exception) else made

    def _read(self, thing: Any, *names: str) -> None:
        for name in names:
            if hasattr(type(thing), name) or name in vars(thing):
                self._do(f"{type(thing).__name__}.{name}", lambda name=name: getattr(thing, name))  # type: ignore[misc]

    def _set(self, thing: Any, name: str, value: Any) -> None:
        self._do(f"{type(thing).__name__}.{name} = {shown(value)}", lambda: setattr(thing, name, value))

    def job(self) -> None:
        """A job of a client."""
        kind = self._any(["Job", "Job", "TextJob", "TextJob", "BinaryJob"])
        strange = self._random.random() < 0.3
        job = self._make(kind, self._any(NAMES), self._any(VALUES if strange else ARGUMENTS), self._any(UNIQUES))
        if job is None:
            return
        self._read(job, *READ)
        for _ in range(self._random.randrange(4)):
            name = self._any(
                ["name", "arguments", "unique", "unique", "exception", "data", "handle", "fraction_complete"]
            )
            values = {
                "name": NAMES,
                "unique": [b"u", "u"],
                "arguments": [b"z", "z"] if kind == "TextJob" else ARGUMENTS,
            }
            lists = [[b"x"], ["é"], self._gear.TextList(["x"]), ()]
            self._set(job, name, self._any(values.get(name, lists if name == "data" else VALUES)))
        for _ in range(self._random.randrange(3)):
            if isinstance(job.data, list):
                self._call(job.data, "append", self._any([b"1", "é", bytearray(b"2")]))
        self._read(job, *READ)
        self._do(f"list({kind}.binary_data)", lambda: list(job.binary_data))

    def worker_job(self) -> None:
        """A job of a worker, and its reports."""
        kind = self._any(["WorkerJob", "WorkerJob", "TextWorkerJob", "BinaryWorkerJob"])
        job = self._make(kind, b"H:1", self._any(NAMES), self._any(ARGUMENTS), self._any([None, "u", b"u", b""]))
        if job is None:
            return
        self._read(job, *READ)
        job.connection = connection = Recording()
        for _ in range(3):
            report = self._any(["Data", "Warning", "Complete", "Exception", "Fail", "Status"])
            arguments: tuple[Any, ...] = ()
            if report == "Status":
                arguments = self._any([0, 1, "2", 1.5]), self._any([0, 1, "2", 1.5])
            elif report != "Fail" and self._random.random() < 0.9:
                arguments = (self._any(),)
            self._call(job, f"sendWork{report}", *arguments)
        self._do(f"sent by {kind}", lambda: connection.sent)

    def server_job(self) -> None:
        """A job of a server."""
        job = self._make("ServerJob", b"H:1", self._any(NAMES), self._any(ARGUMENTS), None, self._any([None, "u", b""]))
        self._read(job, *(name for name in READ if name != "connection"))

    def packet(self) -> None:
        """A packet."""
        constants = self._gear.constants
        code = self._any([constants.REQ, constants.RES, b"\0XYZ", bytearray(b"\0REQ"), b"REQ", "\0REQ", None, b""])
        ptype = self._any([*range(37), 101])
        data = self._any([*ARGUMENTS, b"H:1\0f\0u\0x", b"H:1\0\x001\x000", bytearray(b"H:1\0f\0u\0x"), "x", None])
        packet = self._make("Packet", code, ptype, data)
        if packet is None:
            return
        self._call(packet, "toBinary")
        for _ in range(3):
            self._call(packet, "getArgument", self._any([0, 1, 2, 9]), self._any([False, True]))
        self._call(packet, "getJob")
        other = self._gear.Packet(constants.REQ, ptype, b"x")
        for value in (packet, other, 5, None):
            self._do(f"Packet == {shown(value)}", lambda value=value: packet == value)  # type: ignore[misc]
        self._do("hash(Packet)", lambda: hash(packet))
        job = self._gear.Job("f", b"")
        packet.connection = Recording()
        packet.connection.related_jobs[b"H:1"] = job
        self._do("Packet.getJob", lambda: packet.getJob() is job)

    def request(self) -> None:
        """A text command, and pieces of its answer."""
        rows = ["StatusAdminRequest", "ShowJobsAdminRequest", "ShowUniqueJobsAdminRequest", "WorkersAdminRequest"]
        name = self._any([*rows, "VersionAdminRequest", "CancelJobAdminRequest", "AdminRequest", "ServerAdminRequest"])
        arguments = (self._any(["H:1", b"H:1"]),) if name == "CancelJobAdminRequest" else ()
        if name == "ServerAdminRequest":
            arguments = (None,)
        request = self._make(name, *arguments)
        if request is None:
            return
        if name != "ServerAdminRequest":
            self._call(request, "getCommand")
        self._read(request, "command", "arguments", "response")
        whole = self._any(TEXT)
        for end in sorted({self._random.randrange(len(whole) + 1), len(whole)}):
            self._call(request, "isComplete", whole[:end])
            self._read(request, "command", "response")
        self._call(request, "waitForResponse", 0)
        self._call(request, "setComplete")
        self._call(request, "waitForResponse", 0)

    def texts(self) -> None:
        """A list of texts, and texts as bytes."""
        items = self._make("TextList", self._any([[], ["a"], [b"a"]]))
        for _ in range(3):
            name = self._any(["append", "insert", "extend", "pop", "clear"])
            value = self._any(["é", b"x", bytearray(b"y")])
            arguments = {"append": (value,), "insert": (0, value), "extend": ([value],)}.get(name, ())
            self._call(items, name, *arguments)
        self._do("TextList", lambda: items)
        self._make("convert_to_bytes", self._any())

    def access(self) -> None:
        """An access control list."""
        acl = self._gear.ACL()
        patterns = [None, "f", b"f", "(", "", ".*"]
        for _ in range(12):
            name = self._any(["add", "remove", "grantRegister", "grantInvoke", "grantGrant", "revokeRegister"])
            name = self._any([name, "revokeInvoke", "revokeGrant", "canRegister", "canInvoke", "canGrant"])
            subject = self._any(["s", "t"])
            arguments: tuple[Any, ...] = (subject,)
            if name == "add":
                entry = self._make(
                    "ACLEntry", subject, self._any(patterns), self._any(patterns), self._any([False, True])
                )
                if entry is None:
                    continue
                arguments = (entry,)
            elif name.startswith("grant") and name != "grantGrant":
                arguments = (subject, self._any(patterns))
            elif name in ("canRegister", "canInvoke"):
                arguments = (self._any([subject, None]), self._any(["f", "fg", "g", b"f"]))
            self._call(acl, name, *arguments)
            self._call(acl, "getEntries")
            for entry in list(acl.subjects.values()):
                self._call(entry, "isEmpty")

    def other(self) -> None:
        """Records, tasks, constants, exceptions, connections that are not open."""
        self._make("FunctionRecord", self._any(NAMES), self._any([None, 5, b"5"]))
        task = self._make(self._any(["Task", "OptionReqTask"]))
        self._call(task, "wait", 0)
        self._call(task, "setComplete")
        self._call(task, "wait", 0)
        name = self._any(
            [
                *("ConnectionError", "InvalidDataError", "ConfigurationError", "NoConnectedServersError"),
                *("UnknownJobError", "InterruptedError", "TimeoutError", "GearmanError", "RetryIOError", "ACLError"),
            ]
        )
        error = getattr(self._gear, name)
        for base in (Exception, OSError, TimeoutError, ConnectionError, InterruptedError):
            self._do(f"{name} is a {base.__name__}", lambda base=base: issubclass(error, base))  # type: ignore[misc]
        number = self._random.randrange(37)
        self._do(f"constants.types[{number}]", lambda: self._gear.constants.types[number])
        connection = self._make(
            "Connection", "localhost", self._any([4730, "4730"]), None, None, None, self._any(["c", b"c"])
        )
        self._read(connection, "host", "port", "use_ssl", "conn", "connected", "connect_time", "state", "options")
        self._do("Connection.related_jobs", lambda: dict(connection.related_jobs))
        self._call(connection, "hasPendingData")
        self._call(connection, "disconnect")
        self._call(connection, "changeState", "SLEEP")
        self._read(connection, "state")

    def run(self) -> None:
        """Make one of these."""
        kinds = [self.job, self.worker_job, self.server_job, self.packet, self.request, self.texts, self.other]
        kinds += [self.access] * 3
        self._random.choice(kinds)()


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    runs = []
    for number in range(int(sys.argv[3])):
        objects = Objects(module, f"{sys.argv[2]}/{number}")
        objects.run()
        runs.append(objects.steps)
    sys.stdout.write(json.dumps(runs))
