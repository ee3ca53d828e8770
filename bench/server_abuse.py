"""Shows what bad peers cost the others: how long jobs take while a server is flooded, stalled and sent nonsense.

    python bench/server_abuse.py --server 'gear serve=gear serve --port {port}'

See README.md in this directory. Linux: memory of the servers is read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import re
import resource
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from server_load import HEADER, HOST, Server

from gearproto import packets

KIB, MIB = 2**10, 2**20
CHECK: Final = b"check"
LITTLE: Final = " --max-memory 536870912"
tokens = itertools.count()


def connect(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port), 120)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no trace is left in the system
    return sock


def read_all(sock: socket.socket) -> None:
    """Read without end what a server sends."""
    with contextlib.suppress(OSError):
        while sock.recv(MIB):
            pass


def stuff(socks: list[socket.socket], data: bytes) -> None:
    """Send the same data without end to every peer that takes it, and never read."""
    for sock in socks:
        sock.setblocking(False)
    while True:
        stuck = True
        for sock in socks:
            with contextlib.suppress(OSError):
                stuck = not sock.send(data) and stuck
        if stuck:
            time.sleep(0.01)


def exchange(sock: socket.socket, data: bytes, answers: int) -> None:
    """Send packets while their answers are read."""
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        os._exit(0)
    buffer = b""
    while answers:
        buffer += sock.recv(MIB)
        start = 0
        while len(buffer) - start >= HEADER.size:
            end = start + HEADER.size + HEADER.unpack_from(buffer, start)[1]
            if end > len(buffer):
                break
            start = end
            answers -= 1
        buffer = buffer[start:]
    os.waitpid(child, 0)


def submissions(kind: type[packets.SubmitJob] | type[packets.SubmitJobBg], count: int, function: bytes) -> bytes:
    pid = os.getpid()
    return b"".join(kind(function, b"%d-%d" % (pid, next(tokens)), b"w" * 32).encode() for _ in range(count))


# What bad peers do, each in a process of its own


def flood(port: int) -> None:
    with connect(port) as sock:
        exchange(sock, submissions(packets.SubmitJobBg, 50_000, b"flood"), 50_000)


def crowd(port: int) -> None:
    socks = [connect(port) for _ in range(250)]
    data = [submissions(packets.SubmitJobBg, 200, b"flood") for _ in socks]
    for sock, text in zip(socks, data, strict=True):
        sock.sendall(text)
    for sock in socks:
        left = 200 * 40
        while left > 0:
            left -= len(sock.recv(MIB))


def unread_results(port: int) -> None:
    clients = [connect(port) for _ in range(20)]
    with connect(port) as worker:
        worker.sendall(packets.CanDo(b"run").encode() + packets.GrabJob().encode())
        for client in clients:
            client.sendall(packets.SubmitJob(b"run", b"u", b"").encode())
            handle = client.recv(100)[12:]
        worker.sendall(packets.GrabJob().encode())
        data = packets.WorkData(handle, bytes(MIB)).encode()
        while True:
            worker.sendall(data)


def unread_answers(port: int) -> None:
    socks = [connect(port) for _ in range(50)]
    for number in range(300):
        socks[0].sendall(b"create function %s%d\n" % (b"x" * 200, number))
        socks[0].recv(100)
    stuff(socks, b"status\n" * 1000)


def unread_echoes(port: int) -> None:
    stuff([connect(port) for _ in range(20)], packets.EchoReq(bytes(MIB)).encode())


def half_packets(port: int) -> None:
    socks = [connect(port) for _ in range(1000)]
    for sock in socks:
        sock.sendall(b"\0REQ\0\0\0\7" + (32 * MIB).to_bytes(4, "big"))
    while True:
        for sock in socks:
            sock.sendall(b"x")


def big_halves(port: int) -> None:
    socks = [connect(port) for _ in range(2)]
    for sock in socks:
        sock.sendall(b"\0REQ\0\0\0\7" + (32 * MIB).to_bytes(4, "big") + bytes(32 * MIB - 1))
    read_all(socks[0])


def big_packets(port: int) -> None:
    data = packets.EchoReq(bytes(32 * MIB - 100)).encode()
    with connect(port) as sock:
        while True:
            exchange(sock, data, 1)


def giant_lines(port: int) -> None:
    with connect(port) as sock:
        line = b"cancel job " + b"x" * 8000 + b"\n"
        if not os.fork():
            while True:
                sock.sendall(line * 100)
        read_all(sock)


def endless_lines(port: int) -> None:
    while True:
        with connect(port) as sock, contextlib.suppress(OSError):
            for _ in range(1000):
                sock.sendall(b"x" * MIB)


def connections(port: int) -> None:
    while True:
        socks = [connect(port) for _ in range(500)]
        for sock in socks:
            sock.close()


def garbage(port: int) -> None:
    while True:
        socks = [connect(port) for _ in range(200)]
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.sendall(os.urandom(200))
                sock.sendall(b"\0REQ" + os.urandom(200))
            sock.close()


def wrong_requests(port: int) -> None:
    with connect(port) as sock:
        data = b"\0REQ\0\0\0\12\0\0\0\0" * 10_000
        while True:
            exchange(sock, data, 10_000)


def long_answers(port: int) -> None:
    with connect(port) as sock:
        exchange(sock, submissions(packets.SubmitJobBg, 300_000, b"listed"), 300_000)
        sock.sendall(b"show jobs\n" * 1_000)
        read_all(sock)


def leaving(port: int) -> None:
    while True:
        with connect(port) as sock:
            exchange(sock, submissions(packets.SubmitJob, 200_000, b"left"), 200_000)


def abilities(port: int) -> None:
    data = b"".join(packets.CanDo(b"function %d" % number).encode() for number in range(100_000))
    while True:
        with connect(port) as sock:
            sock.sendall(data)
            exchange(sock, packets.EchoReq(b"").encode(), 1)


def joins(port: int) -> None:
    clients = [connect(port) for _ in range(100)]
    request = packets.SubmitJob(b"joined", b"one", b"").encode()
    for client in clients:
        if not os.fork():
            read_all(client)
            os._exit(0)
        client.sendall(request * 200)
    with connect(port) as worker:
        worker.sendall(packets.CanDo(b"joined").encode() + packets.GrabJob().encode())
        handle = worker.recv(1000)[12:].partition(b"\0")[0]
        while True:
            worker.sendall(packets.WorkData(handle, b"x").encode() * 1000)


def grabbing(port: int) -> None:
    with connect(port) as sock:
        data = packets.GrabJob().encode() * 10_000
        while True:
            exchange(sock, data, 10_000)


def slow_readers(port: int) -> None:
    """Have a worker report faster than its clients read, although they read all the time."""
    clients = [connect(port) for _ in range(4)]
    with connect(port) as worker:
        worker.sendall(packets.CanDo(b"run").encode())
        for client in clients:
            client.sendall(packets.SubmitJob(b"run", b"u", b"").encode())
            handle = client.recv(100)[12:]
            if not os.fork():
                while client.recv(64 * KIB):
                    time.sleep(0.01)
                os._exit(0)
        worker.sendall(packets.GrabJob().encode())
        data = packets.WorkData(handle, bytes(MIB)).encode()
        while True:
            worker.sendall(data)
            time.sleep(0.05)


def joined(port: int) -> None:
    """Join one job many times over, and never read what it reports."""
    with connect(port) as client, connect(port) as worker:
        exchange(client, packets.SubmitJob(b"joined", b"one", b"").encode() * 40_000, 40_000)
        worker.sendall(packets.CanDo(b"joined").encode() + packets.GrabJob().encode())
        handle = worker.recv(1000)[12:].partition(b"\0")[0]
        worker.sendall(packets.WorkData(handle, bytes(65_000)).encode())
        client.settimeout(60)
        time.sleep(60)


def due_at_once(port: int) -> None:
    """Submit jobs that are all due in the same second."""
    with connect(port) as sock:
        due = int(time.time()) + 5
        pid = os.getpid()
        count = 150_000
        exchange(
            sock,
            b"".join(packets.SubmitJobEpoch(b"due", b"%d-%d" % (pid, n), due, b"").encode() for n in range(count)),
            count,
        )
        time.sleep(60)


def leaving_workers(port: int) -> None:
    """Have workers with very many functions leave at the same moment."""
    data = b"".join(packets.CanDo(b"function %d" % number).encode() for number in range(20_000))
    while True:
        socks = [connect(port) for _ in range(30)]
        for sock in socks:
            sock.sendall(data)
        for sock in socks:
            exchange(sock, packets.EchoReq(b"").encode(), 1)
        for sock in socks:
            sock.close()


def asking(port: int) -> None:
    """Ask for all workers, over all of very many connections at once."""
    socks = [connect(port) for _ in range(300)]
    for sock in socks:
        sock.sendall(b"".join(packets.CanDo(b"function %d" % number).encode() for number in range(20)))
    while True:
        for sock in socks:
            sock.sendall(b"workers\n")
        for sock in socks:
            data = b""
            while not data.endswith(b"\n.\n"):
                data = data[-3:] + sock.recv(MIB)


def hung_sleepers(port: int) -> None:
    """Sleep as a worker for the jobs of others, and do not come when woken."""
    socks = [connect(port) for _ in range(2000)]
    for sock in socks:
        sock.sendall(packets.CanDo(CHECK).encode() + packets.PreSleep().encode())
    time.sleep(60)


def long_names(port: int) -> None:
    """Queue jobs that have no workload, but names of 8 KB."""
    with connect(port) as sock:
        while True:
            names = [b"%d-%d-%s" % (os.getpid(), next(tokens), b"x" * 8000) for _ in range(500)]
            exchange(sock, b"".join(packets.SubmitJobBg(name, b"", b"").encode() for name in names), len(names))


def many_halves(port: int) -> None:
    """Send nearly all of very many big packets."""
    socks = [connect(port) for _ in range(500)]
    head = b"\0REQ\0\0\0\7" + (32 * MIB).to_bytes(4, "big")
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.sendall(head + bytes(16 * MIB))
    time.sleep(60)


def greedy_workers(port: int) -> None:
    """Have workers register as many functions as they may, with long names."""
    socks = []
    while True:
        sock = connect(port)
        socks.append(sock)
        with contextlib.suppress(OSError):
            for _ in range(20):
                names = [b"%d-%d-%s" % (os.getpid(), next(tokens), b"x" * 8000) for _ in range(1000)]
                sock.sendall(b"".join(packets.CanDo(name).encode() for name in names))


def unread_lists(port: int) -> None:
    """Ask for all jobs, over very many connections, and never read them."""
    with connect(port) as sock:
        exchange(sock, submissions(packets.SubmitJobBg, 200_000, b"listed"), 200_000)
    socks = [connect(port) for _ in range(500)]
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.sendall(b"show jobs\n")
    time.sleep(60)


def no_descriptors(port: int) -> None:
    socks = []
    while True:
        with contextlib.suppress(OSError):
            socks.append(socket.create_connection((HOST, port), 0.05))


def stalled_handshakes(port: int) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    data = outgoing.read()
    socks = []
    for number in range(2000):
        socks.append(connect(port))
        socks[-1].sendall(data[: number % (len(data) + 1)])
    time.sleep(60)


def handshakes(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while True:
        with contextlib.suppress(OSError), context.wrap_socket(connect(port)) as sock:
            sock.unwrap()


class Abuse(NamedTuple):
    """What bad peers do, and how many of them do it."""

    about: str
    act: Callable[[int], None]
    processes: int = 1
    tls: bool = False
    descriptors: int = 0
    options: str = ""  # of the server


ABUSES: Final = {
    "flood": Abuse("200,000 submissions over 4 connections", flood, 4),
    "crowd": Abuse("200,000 submissions over 1,000 connections", crowd, 4),
    "results": Abuse(
        "20 clients that never read the results of one job, which come in pieces of 1 MiB", unread_results
    ),
    "answers": Abuse("50 administrators that never read", unread_answers),
    "echoes": Abuse("20 peers that never read what they have asked to be sent back", unread_echoes),
    "halves": Abuse("1,000 packets of 32 MiB that arrive byte by byte", half_packets),
    "big halves": Abuse("packets of 32 MiB of which one byte is missing", big_halves),
    "big": Abuse("packets of 32 MiB without end", big_packets, 2),
    "lines": Abuse("text commands of 8 KB", giant_lines, 2),
    "endless": Abuse("lines that never end", endless_lines, 2),
    "connections": Abuse("connections that come and go", connections, 2),
    "garbage": Abuse("connections that send nonsense", garbage, 2),
    "wrong": Abuse("packets that only a server sends", wrong_requests, 2),
    "listing": Abuse("`show jobs` again and again, while 300,000 jobs are queued", long_answers),
    "leaving": Abuse("clients that submit 200,000 jobs and leave", leaving),
    "abilities": Abuse("workers that register 100,000 functions and leave", abilities, 2),
    "joins": Abuse("20,000 submissions of one job, whose worker reports without end", joins),
    "grabs": Abuse("workers that ask again and again", grabbing, 2),
    "slow": Abuse("4 clients that read 6 MiB/s, but get 20 MiB/s", slow_readers),
    "joined": Abuse("a client that joins its job 40,000 times, and never reads its 65 KB", joined),
    "due": Abuse("300,000 delayed jobs that are due in one second", due_at_once, 2),
    "leaving workers": Abuse("60 workers with 20,000 functions each, leaving at once", leaving_workers, 2),
    "asking": Abuse("600 connections that ask `workers` at once", asking, 2),
    "hung": Abuse(
        "2,000 sleeping workers that do not react when they are woken for another client's job", hung_sleepers
    ),
    "names": Abuse("jobs with names of 8 KB and no workloads", long_names, 2, options=LITTLE),
    "many halves": Abuse("1,000 incomplete packets of 32 MiB", many_halves, 2, options=LITTLE),
    "greedy": Abuse("workers that register 20,000 names of 8 KB each", greedy_workers, 2, options=LITTLE),
    "lists": Abuse(
        "1,000 connections that never read their `show jobs`, of 400,000 jobs", unread_lists, 2, options=LITTLE
    ),
    "descriptors": Abuse("more connections than the server has descriptors", no_descriptors, descriptors=64),
    "stalled TLS": Abuse("2,000 TLS handshakes that stall", stalled_handshakes, tls=True),
    "TLS": Abuse("TLS handshakes without end", handshakes, 2, tls=True),
}


class Probe:
    """A good client and a good worker, which run one job after the other."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.client, self.worker = connect(port), connect(port)
        if tls is not None:
            self.client, self.worker = tls.wrap_socket(self.client), tls.wrap_socket(self.worker)
        self.worker.sendall(packets.CanDo(CHECK).encode())
        self.late: float | None = None

    def receive(self, sock: socket.socket) -> tuple[int, bytes]:
        data = b""
        while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[1]:
            wanted = HEADER.size if len(data) < HEADER.size else HEADER.size + HEADER.unpack_from(data)[1]
            more = sock.recv(wanted - len(data))
            if not more:
                raise SystemExit("the server closed a good connection")
            data += more
        return HEADER.unpack_from(data)[0], data[HEADER.size :]

    def run_job(self, delay: int = 0) -> float:
        """Run a job; return how long it took, or was refused in, or how late it started if it was delayed."""
        start = time.time()
        if delay:
            due = int(start) + delay
            self.client.sendall(packets.SubmitJobEpoch(CHECK, b"", due, b"").encode())
            kind, handle = self.receive(self.client)
            if kind == packets.Error.spec.number:  # the server's memory is full
                return 0.0
            self.worker.sendall(packets.PreSleep().encode())
            self.receive(self.worker)
            late = time.time() - due
            self.worker.sendall(packets.GrabJob().encode())
            self.receive(self.worker)
            self.worker.sendall(packets.WorkComplete(handle, b"").encode())
            return late
        self.client.sendall(packets.SubmitJob(CHECK, b"", b"data").encode())
        kind, handle = self.receive(self.client)
        if kind == packets.Error.spec.number:
            return time.time() - start
        self.worker.sendall(packets.GrabJob().encode())
        self.receive(self.worker)
        self.worker.sendall(packets.WorkComplete(handle, b"").encode())
        self.receive(self.client)
        return time.time() - start


@contextlib.contextmanager
def certificates() -> Iterator[str]:
    """Return the words that make a server speak TLS."""
    import trustme  # noqa: PLC0415  (needed for two of the abuses only)

    with tempfile.TemporaryDirectory() as folder:
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(f"{folder}/server.pem")
        yield f" --tls-certificate {folder}/server.pem --tls-key {folder}/server.pem"


def peak(pid: int) -> int:
    match = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert match is not None
    return int(match[1]) * KIB


def play(command: str, cpu: int, abuse: Abuse, seconds: float) -> tuple[float, ...]:
    """Let bad peers at a server, and return the columns of the table."""
    with contextlib.ExitStack() as stack:
        tls = None
        command += abuse.options
        if abuse.tls:
            command += stack.enter_context(certificates())
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        server = Server(command, cpu)
        stack.callback(server.stop)
        probe = Probe(server.port, tls)
        for _ in range(20):
            probe.run_job()
        memory = peak(server.process.pid)
        if abuse.descriptors:
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (abuse.descriptors, abuse.descriptors))
        bad = [
            multiprocessing.get_context("fork").Process(target=run_alone, args=(abuse.act, server.port))
            for _ in range(abuse.processes)
        ]
        for process in bad:
            process.start()
        start, cpu_time = time.monotonic(), server.cpu_time()
        times = []
        late = 0.0
        try:
            while time.monotonic() - start < seconds and any(process.is_alive() for process in bad):
                times.append(probe.run_job())
                if len(times) % 50 == 20:
                    late = max(late, probe.run_job(delay=1))
            busy = (server.cpu_time() - cpu_time) / (time.monotonic() - start)
        finally:
            for process in bad:
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.killpg(process.pid, 9)  # type: ignore[arg-type]
                process.join()
        grown = peak(server.process.pid) - memory
        times.append(probe.run_job())
    return len(times), statistics.median(times) * 1e3, max(times) * 1e3, late * 1e3, grown / MIB, busy * 100


def run_alone(act: Callable[[int], None], port: int) -> None:
    os.setpgid(0, 0)  # so that the children that it forks end with it
    with contextlib.suppress(OSError):
        act(port)
        return
    time.sleep(60)  # the server has closed the connection, as it may


def main() -> None:
    parser = argparse.ArgumentParser(description="Show what bad peers cost the others.")
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it")
    parser.add_argument(
        "--abuse",
        action="append",
        choices=ABUSES,
        help="; ".join(f"{name}: {abuse.about}" for name, abuse in ABUSES.items()),
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="longest time for each (8)")
    options = parser.parse_args()
    servers = dict(text.split("=", 1) for text in options.server)
    cpus = sorted(os.sched_getaffinity(0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| abuse       | server         |   jobs | median ms | longest ms | delayed: late ms | RSS +MiB | CPU % |")
    print("| ----------- | -------------- | -----: | --------: | ---------: | ---------------: | -------: | ----: |")
    for name in options.abuse or ABUSES:
        for server, command in servers.items():
            jobs, median, longest, late, grown, busy = play(command, cpus[0], ABUSES[name], options.seconds)
            print(
                f"| {name:11} | {server:14} | {jobs:6,.0f} | {median:9.1f} | {longest:10.0f} | {late:16.0f} "
                f"| {grown:8.1f} | {busy:5.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
