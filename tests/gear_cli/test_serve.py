"""``gear serve`` as a process: where it listens, and how it ends."""

import contextlib
import inspect
import logging
import os
import re
import resource
import select
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gear_sync
from gear_cli.serve import DEFAULT_HOST, serve
from gear_cli.stderr_log import StderrHandler
from gear_net.listening import DEFAULT_BACKLOG, Keepalive
from gear_net.reactor import Reactor
from gear_net.tls import TLS, client_context
from gearproto import DEFAULT_PORT, JobRejected, ServerError
from gearproto.packets import CanDo, GrabJob, JobAssign, JobCreated, SubmitJobBg, WorkComplete
from gearproto.server import Endpoint, Engine
from tests.harness.certificates import authority, copy_files, replace_files
from tests.harness.raw import RawConnection
from tests.harness.servers import RunningServer, poll_until
from tests.harness.threads import Call

from .conftest import WAIT, Refusal, Run, command, environment, in_time


class Serving:
    """A running ``gear serve``."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process = process
        self.address = address

    def next_address(self) -> str:
        assert self.process.stdout is not None
        with in_time(self.process):
            return _address(self.process.stdout.readline())

    def wait_for_log(self, pattern: str, limit: float = WAIT) -> None:
        """Read the log up to a line; if that does not come in time, the process is killed, and the test fails."""
        assert self.process.stderr is not None
        seen = []
        with in_time(self.process, limit):
            for line in self.process.stderr:
                if re.search(pattern, line):
                    return
                seen.append(line)
        raise AssertionError(f"no {pattern!r} in its log: {seen}")


def _address(line: str) -> str:
    assert line.startswith("listening on ")
    return line.removeprefix("listening on ").removesuffix("\n")


@contextmanager
def serving(*words: str, prefix: tuple[str, ...] = (), **options: Any) -> Iterator[Serving]:
    """Run ``gear serve`` until it says where it listens."""
    options = {"env": environment()} | options
    with subprocess.Popen(
        [*prefix, *command("serve", *words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            server = Serving(process, "")
            server.address = server.next_address()
            yield server
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_0(number: signal.Signals) -> None:
    with serving("--port=0") as server, gear_sync.Client(server.address) as client:
        assert client.admin.pid() == server.process.pid
        server.process.send_signal(number)
        out, err = server.process.communicate(timeout=WAIT)
        assert (server.process.returncode, out, err) == (0, "", "")


def test_sigusr1_lets_running_jobs_end_and_takes_nothing_new() -> None:
    with serving("--port=0") as server, gear_sync.Client(server.address) as client:
        with gear_sync.Worker(server.address) as worker:

            @worker.function("last")
            def last(job: gear_sync.WorkerJob) -> bytes:
                server.process.send_signal(signal.SIGUSR1)
                with pytest.raises(JobRejected):
                    _submit_until_refused(client)  # the server has seen the signal then
                worker.stop()
                return b"done"

            job = client.submit("last")
            worker.run()
            assert job.result(WAIT) == b"done"
        assert server.process.wait(WAIT) == 0


def _submit_until_refused(client: gear_sync.Client) -> None:
    for _attempt in range(1_000_000):
        client.submit_background("other")


def test_full_pipe_at_stderr_never_stops_it() -> None:
    with serving("--port=0", "-vv") as server, gear_sync.Client(server.address) as client:
        for _ in range(2000):  # some 100 bytes of log each, and a pipe holds 64 KiB
            client.submit_background("f")
        assert client.admin.status()[0].total == 2000
        server.process.terminate()
        assert server.process.wait(WAIT) == 0


def test_log_lines_that_a_full_pipe_has_held_up_are_counted() -> None:
    reader, writer = os.pipe()
    handler = StderrHandler(writer, max_lines=2)
    with os.fdopen(reader, "rb") as file:
        handler.emit(_record("x" * 100_000))  # more than a pipe holds
        poll_until(lambda: not select.select([], [writer], [], 0)[1], "the thread is stuck with the first line")
        for number in range(10):
            handler.emit(_record(f"line {number}"))
        assert len(file.readline()) == 100_001
        assert [file.readline() for _ in range(2)] == [b"line 0\n", b"line 1\n"]
        handler.emit(_record("later"))
        handler.close()
        os.close(writer)
        assert file.read() == b"8 log lines were dropped: stderr was not read\nlater\n"


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("gear", logging.WARNING, "", 0, text, None, None)


def test_log_lines_that_nobody_can_read_are_dropped() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = StderrHandler(writer)
    handler.emit(_record("text"))
    handler.close()
    os.close(writer)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_given_back_after_a_peak() -> None:
    count, batch, size = 20_000, 500, 5000
    with serving("--port=0") as server, RawConnection(_Served(server)) as peer:
        peer.send(CanDo(b"f"))
        peer.expect_nothing()
        before = _resident(server)
        for _ in range(count // batch):
            peer.send(*[SubmitJobBg(b"f", b"", bytes(size))] * batch)
            for _ in range(batch):
                peer.receive(JobCreated)
        peak = _resident(server) - before
        assert peak > count * size
        for _ in range(count // batch):
            peer.send(*[GrabJob()] * batch)
            peer.send(*(WorkComplete(peer.receive(JobAssign).handle, b"") for _ in range(batch)))
        peer.expect_nothing()
        poll_until(lambda: _resident(server) - before < peak // 4, "most of the memory is given back")


class _Served(RunningServer):
    """A ``gear serve`` for connections without a client."""

    kind = "ours"

    def __init__(self, server: Serving) -> None:
        self.port = int(server.address.rpartition(":")[2])

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _resident(server: Serving) -> int:
    """Return the bytes that the process has in memory."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def test_shutdown_is_for_nobody_unless_it_is_allowed() -> None:
    with serving("--port=0") as server, gear_sync.Client(server.address) as client:
        with pytest.raises(ServerError, match="UNKNOWN_COMMAND"):
            client.admin.shutdown()
        assert client.admin.pid() == server.process.pid
    with serving("--port=0", "--allow-shutdown") as server, gear_sync.Client(server.address) as client:
        client.admin.shutdown()
        assert server.process.wait(WAIT) == 0


def test_it_serves_this_machine_only_unless_told_otherwise() -> None:
    with serving("--port=0") as server:
        assert server.address.startswith("127.0.0.1:")
    with serving("--port=0", "--host=0.0.0.0") as server:
        assert server.address.startswith("0.0.0.0:")


def test_environment_says_where_to_listen_unless_the_command_line_does(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    variables = environment(GEAR_SERVE_LISTEN=f"0.0.0.0:0, unix:{path}", GEAR_PORT="tcp://10.0.0.1:4730")
    with serving(env=variables) as server:
        assert server.address.startswith("0.0.0.0:")
        assert server.next_address() == f"unix:{path}"
    for words in (("--port=0",), ("--listen=127.0.0.1:0",)):
        with serving(*words, env=variables) as server:
            assert server.address.startswith("127.0.0.1:")


def test_options_reach_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    words = ("--listen=127.0.0.1:0", f"--listen=unix:{path}", "--handle-prefix=mine", "--max-jobs=1", "-v")
    with serving(*words) as server:
        assert server.next_address() == f"unix:{path}"
        with gear_sync.Client(server.address) as client:
            assert client.submit_background("f").startswith(b"mine:")
            with pytest.raises(JobRejected):
                client.submit_background("f")
            assert client.admin.verbose() == "INFO"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"version\n")
            assert sock.recv(100).startswith(b"OK ")
        server.process.terminate()
        _out, err = server.process.communicate(timeout=WAIT)
        assert server.process.returncode == 0
        assert "INFO stopped" in err
    assert not path.exists()


def test_tls_is_spoken_with_those_who_have_a_certificate() -> None:
    tls = authority("good").issue()
    words = (f"--tls-certificate={tls.certificate}", f"--tls-key={tls.key}", f"--tls-ca={tls.ca}")
    with serving("--port=0", *words) as server:
        assert _ask_version(server.address, tls).startswith(b"OK ")
        with pytest.raises(ssl.SSLError):
            _ask_version(server.address, TLS(ca=tls.ca))
        server.process.terminate()
        _out, err = server.process.communicate(timeout=WAIT)
        assert "WARNING TLS with 127.0.0.1 failed: it has shown no certificate" in err


def test_sighup_makes_it_read_the_files_of_tls_again(tmp_path: Path) -> None:
    good = authority("good")
    files = copy_files(good.issue(common_name="old"), tmp_path)
    path = tmp_path / "socket"
    words = (f"--tls-certificate={files.certificate}", f"--tls-key={files.key}", f"--listen=unix:{path}", "-v")
    with serving("--listen=127.0.0.1:0", *words) as server, _tls_connection(server.address, files) as before:
        assert _name_shown_by(before) == "old"
        replace_files(files, good.issue(common_name="new"))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("INFO TLS: the files have been read again, for new connections")
        with _tls_connection(server.address, files) as after:
            assert _name_shown_by(after) == "new"
        Path(str(files.key)).write_bytes(b"")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("ERROR SIGHUP: the key .* has no private key in PEM form; the previous files stay")
        before.sendall(b"version\n")
        assert before.recv(100).startswith(b"OK ")
        server.process.terminate()
        assert server.process.wait(WAIT) == 0
    assert not path.exists()


def test_log_line_that_never_comes_fails_a_test_instead_of_hanging_it() -> None:
    with serving("--port=0") as server, pytest.raises(AssertionError, match=r"no 'no such line' in its log: \[\]"):
        server.wait_for_log("no such line", limit=0.1)


def test_sighup_changes_nothing_without_tls() -> None:
    with serving("--port=0", "-v") as server, gear_sync.Client(server.address) as client:
        assert client.echo(b"x") == b"x"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("INFO SIGHUP: there are no TLS files to read again")
        assert client.echo(b"x") == b"x"


def test_certificate_that_has_expired_is_warned_of() -> None:
    tls = authority("good").issue(expired=True)
    with serving("--port=0", f"--tls-certificate={tls.certificate}", f"--tls-key={tls.key}") as server:
        server.wait_for_log(
            f"WARNING the certificate {re.escape(str(tls.certificate))} is of no use: certificate has expired"
        )


@contextmanager
def _tls_connection(address: str, tls: TLS) -> Iterator[ssl.SSLSocket]:
    host, _colon, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), WAIT) as plain,
        client_context(TLS(ca=tls.ca)).wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        yield sock


def _name_shown_by(sock: ssl.SSLSocket) -> str | None:
    certificate: Any = sock.getpeercert()
    return dict(pair for group in certificate["subject"] for pair in group).get("commonName")


def _ask_version(address: str, tls: TLS) -> bytes:
    host, _colon, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), WAIT) as plain,
        client_context(tls).wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"version\n")
        return sock.recv(100)


def test_sockets_of_a_service_manager_are_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As a service manager does it: descriptor 3, and the number of the very process that is to use it.
        script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        shell = ("bash", "-c", script, "bash")
        with serving("--port=1", prefix=shell, pass_fds=[listener.fileno()]) as server:
            assert server.address == f"127.0.0.1:{listener.getsockname()[1]}"
            with gear_sync.Client(server.address) as client:
                assert client.admin.pid() == server.process.pid


def test_restarts_on_the_same_socket_lose_no_job_that_a_client_waits_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'

        def start() -> Serving:
            context = serving(prefix=("bash", "-c", script, "bash"), pass_fds=[listener.fileno()])
            return stack.enter_context(context)

        server = start()
        worker = stack.enter_context(gear_sync.Worker(server.address))
        worker.register("f", lambda job: job.workload[::-1])
        working = Call(worker.run)
        client = stack.enter_context(gear_sync.Client(server.address))
        for restart in range(2):
            data = [b"%d-%d" % (restart, number) for number in range(50)]
            jobs = [client.submit("f", text, unique=text, resubmit=True) for text in data]
            server.process.send_signal(signal.SIGUSR1)
            assert server.process.wait(WAIT) == 0
            server = start()
            for text, job in zip(data, jobs, strict=True):
                try:
                    result = job.result(WAIT)
                except JobRejected:  # it came after the signal
                    result = client.submit("f", text, unique=text, resubmit=True).result(WAIT)
                assert result == text[::-1]
        worker.stop()
        working.result()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("LISTEN_FDS=x", "LISTEN_FDS is 'x', not a number of sockets"),
        ("LISTEN_FDS=1", "which is not a listening socket: Bad file descriptor"),
        ("exec 3</dev/null; LISTEN_FDS=1", "which is not a listening socket: Socket operation on non-socket"),
        (
            "exec 3<&{fd}; LISTEN_FDS=1",
            "LISTEN_FDS names descriptor 3, which is not a listening socket: It does not listen",
        ),
    ],
)
def test_sockets_of_a_service_manager_that_make_no_sense_are_one_sentence(script: str, sentence: str) -> None:
    with socket.socket() as sock:
        shell = ["bash", "-c", f'exec 3<&-; {script.format(fd=sock.fileno())} LISTEN_PID=$$ exec "$@"', "bash"]
        done = subprocess.run(
            [*shell, *command("serve", "--port=0")],
            capture_output=True,
            timeout=WAIT,
            env=environment(),
            pass_fds=[sock.fileno()],
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, b"")
    err = done.stderr.decode()
    assert err.endswith(f"{sentence}.\n")
    assert err.count("\n") == 1


def test_port_in_use_is_one_sentence(gear: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = gear("serve", f"--port={port}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"gear serve: cannot listen on 127.0.0.1:{port}: Address already in use.\n"


def test_place_that_cannot_be_listened_on_exits_with_1(refusal: Refusal, tmp_path: Path) -> None:
    place = f"unix:{tmp_path / 'none' / 'socket'}"
    sentence = f"gear serve: cannot listen on {place}: No such file or directory.\n"
    assert refusal("serve", f"--listen={place}") == (1, sentence)


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def test_defaults_that_the_help_shows_are_those_of_the_library() -> None:
    shown = _defaults(serve)
    library = {**_defaults(Engine), **_defaults(Endpoint), **_defaults(Reactor), **_defaults(gear_sync.Server)}
    library |= {"max_memory": None, "trim_memory": False, "backlog": DEFAULT_BACKLOG, "keepalive": Keepalive().idle}
    apart = {"host", "port", "listen", "handle_prefix", "verbose", "tls_certificate", "tls_key", "tls_ca"}
    assert {name: shown[name] for name in shown.keys() - apart} == {
        name: library[name] for name in shown.keys() - apart
    }
    assert (library["host"], library["port"]) == (DEFAULT_HOST, DEFAULT_PORT)
