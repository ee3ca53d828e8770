"""``gear submit`` against a real server: what it prints, and how it exits."""

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gear_sync
from gear_cli.main import main
from gear_cli.options import server_addresses
from gear_cli.output import Output
from gearproto.addresses import DEFAULT_PORT, Address
from gearproto.packets import JobCreated, JobRequeued, OptionRes, SubmitJob, WorkComplete, WorkData
from tests.harness.hostile import HostileServer, Peer

from .conftest import WAIT, Refusal, Run, command, environment, in_time

Here = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def here(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run ``gear submit`` in this process: ``here(*words, stdin=b"")``; return exit code, stdout and stderr."""

    def run(*words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        with io.TextIOWrapper(tempfile.TemporaryFile()) as file, monkeypatch.context() as patch:
            file.buffer.write(stdin)
            file.buffer.seek(0)
            patch.setattr(sys, "stdin", file)
            code = main(["submit", *words])
        out, err = capfdbinary.readouterr()
        return code, out, err

    return run


def test_result_goes_to_stdout_unchanged(gear: Run, at: str) -> None:
    done = gear("submit", "echo", at, stdin=b"\x00\xff\r\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\x00\xff\r\n", b"")


def test_server_may_be_a_unix_socket(here: Here) -> None:
    with tempfile.TemporaryDirectory(prefix="gear") as folder:
        address = f"unix:{folder}/gear.sock"
        with gear_sync.Server(listen=[address]):
            code, out, err = here("f", "abc", "--background", f"--server={address}")
            assert (code, err) == (0, b"")
            assert out.startswith(b"H:")


def test_unique_of_64_bytes_has_to_be_allowed(here: Here, at: str) -> None:
    code, out, err = here("echo", "abc", at, "--unique", "u" * 64)
    assert (code, out) == (2, b"")
    assert b"unique has 64 bytes, limit 63: gearmand 1.1.20" in err
    assert here("echo", "abc", at, "--unique", "u" * 64, "--max-unique-size=64") == (0, b"abc", b"")


def test_pieces_of_a_result_are_written_in_their_order(here: Here, at: str) -> None:
    assert here("pieces", "abc", at) == (0, b"abc", b"")
    _code, out, _err = here("pieces", "abc", "--json", at)
    assert json.loads(out)["data"] == "abc"


@pytest.mark.parametrize("form", ["--json", "--lines", "plain"])
def test_pieces_of_a_lost_run_are_no_part_of_the_result(form: str) -> None:
    seen = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(OptionRes(b"exceptions"), OptionRes(b"reruns"), JobCreated(b"H:1"), WorkData(b"H:1", b"old"))
        if form == "plain":
            assert seen.wait(WAIT)
        peer.send(JobRequeued(b"H:1"), WorkData(b"H:1", b"new"), WorkComplete(b"H:1", b""))
        peer.wait_for_end()

    with HostileServer(script) as server:
        words = ["submit", "f", "--server={}:{}".format(*server.address), *[form] * (form != "plain")]
        with subprocess.Popen(
            command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x\n")
            process.stdin.close()
            written = b""
            if form == "plain":
                written = process.stdout.read(3)
                seen.set()
            written += process.stdout.read()
            assert process.stderr is not None
            said = process.stderr.read().decode()
    if form == "plain":  # what has been written cannot be taken back
        assert (process.returncode, written) == (1, b"old")
        assert said == (
            "gear submit: the worker was lost and the job runs again: the output so far is not part of its result.\n"
        )
    else:
        assert (process.returncode, said) == (0, "")
        assert (written if form == "--lines" else json.loads(written)["data"].encode() + b"\n") == b"new\n"


@pytest.mark.parametrize("words", [(), ("-",), ("--file=-",), ("--file", "-"), ("--", "-")])
def test_workload_comes_from_stdin(here: Here, at: str, words: tuple[str, ...]) -> None:
    assert here(at, "echo", *words, stdin=b"from stdin") == (0, b"from stdin", b"")


def test_workload_comes_from_an_argument(here: Here, at: str) -> None:
    assert here("echo", "an argument", at, stdin=b"ignored") == (0, b"an argument", b"")
    assert here(at, "echo", "--", "--json") == (0, b"--json", b"")


def test_workload_comes_from_a_file(here: Here, at: str, tmp_path: Path) -> None:
    (tmp_path / "work").write_bytes(b"from a file")
    assert here("echo", f"--file={tmp_path / 'work'}", at) == (0, b"from a file", b"")


def test_warning_goes_to_stderr(here: Here, at: str) -> None:
    assert here("warn", "x", at) == (0, b"done", b"gear submit: warning: take care\n")


def test_what_workers_say_is_harmless_to_a_terminal(here: Here, at: str) -> None:
    _code, _out, err = here("nasty", "\x1b]0;title\x07\ngear submit: \u00fc", at)
    said = r"\x1b]0;title\x07" + "\n    gear submit: \u00fc\n"
    assert err.decode() == (f"gear submit: warning: {said}gear submit: the job raised an exception: ValueError: {said}")


def test_handle_is_harmless_to_a_terminal_and_as_it_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal, theirs = os.openpty()
    for place, written in ((theirs, rb"H:\x1b[31m\xff"), (tmp_path / "file", b"H:\x1b[31m\xff")):
        with open(place, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            Output(as_json=False, many=False).queued(b"H:\x1b[31m\xff")
            shown = os.read(terminal, 100) if place == theirs else (tmp_path / "file").read_bytes()
            assert shown.split() == [written]
    os.close(terminal)


def test_progress_is_drawn_on_a_terminal_and_leaves_the_result_alone(at: str) -> None:
    terminal, theirs = os.openpty()
    try:
        done = subprocess.run(
            command("submit", "echo", "x", at),
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=WAIT,
            env=environment(TERM="xterm"),
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"x")
        assert b"progress" in os.read(terminal, 65536)
    finally:
        os.close(terminal)
        os.close(theirs)


# Lines


def test_each_line_is_a_job_and_results_keep_their_order(gear: Run, at: str) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(2000))
    done = gear("submit", "echo", "--lines", at, stdin=lines)
    assert (done.returncode, done.stdout, done.stderr) == (0, lines, b"")


@pytest.mark.parametrize(
    ("stdin", "stdout"), [(b"", b""), (b"a\n\nb", b"a\n\nb\n"), (b"a\r\n\r\n\rb\r", b"a\n\n\rb\r\n")]
)
def test_last_line_needs_no_ending_and_an_empty_one_is_a_job(here: Here, at: str, stdin: bytes, stdout: bytes) -> None:
    assert here("echo", "--lines", at, stdin=stdin) == (0, stdout, b"")


def test_lines_come_from_a_file(here: Here, at: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"1\n2\n")
    assert here("pieces", "--lines", "--file", str(tmp_path / "lines"), at) == (0, b"1\n2\n", b"")


def test_job_without_a_result_leaves_an_empty_line(here: Here, at: str) -> None:
    failed = b"gear submit: line 2: the job failed.\n"
    assert here("odd", "--lines", at, stdin=b"1\n2\n3\n") == (1, b"odd\n\nodd\n", failed)


def test_result_of_a_line_is_out_before_the_next_line_is_in(at: str) -> None:
    with subprocess.Popen(
        command("submit", "echo", "--lines", at), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            with in_time(process):
                assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(WAIT) == 0


def test_reader_that_goes_away_ends_it_quietly(at: str) -> None:
    with subprocess.Popen(
        command("submit", "echo", "--lines", at),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"x\n")
        process.stdin.flush()  # and stays open: nobody waits for the end of the input
        assert process.wait(WAIT) == 141
        assert process.stderr.read() == b""


# Background jobs


def test_background_prints_the_handle(here: Here, idle: gear_sync.Server) -> None:
    at = f"--server=127.0.0.1:{idle.port}"
    code, out, _err = here("nobody", "x", "--background", "--priority=low", "--unique=u", at)
    assert code == 0
    with gear_sync.Client(idle.address) as client:
        assert client.status(out.removesuffix(b"\n")).known
        assert client.status_unique("u").known
        assert [row.low for row in client.admin.priority_status() if row.function == b"nobody"] == [1]


def test_background_jobs_of_lines_print_a_handle_each(here: Here, idle: gear_sync.Server) -> None:
    at = f"--server=127.0.0.1:{idle.port}"
    _code, out, _err = here("nobody", "--background", "--lines", "--json", at, stdin=b"1\n2\n")
    found = [json.loads(line) for line in out.splitlines()]
    assert [job["outcome"] for job in found] == ["queued", "queued"]
    with gear_sync.Client(idle.address) as client:
        assert {job.handle.decode() for job in client.admin.jobs()} == {job["handle"] for job in found}


# JSON


@pytest.mark.parametrize(
    ("function", "workload", "code", "expected"),
    [
        ("echo", b"text", 0, {"outcome": "completed", "data": "text"}),
        ("echo", b"\xff", 0, {"outcome": "completed", "base64": "/w=="}),
        ("odd", b"2", 1, {"outcome": "failed", "data": ""}),
        ("raise", b"x", 1, {"outcome": "raised", "data": "ValueError: no such luck"}),
    ],
)
def test_json_tells_handle_outcome_and_data(
    here: Here, at: str, function: str, workload: bytes, code: int, expected: dict[str, str]
) -> None:
    exit_code, out, _err = here(function, "--json", at, stdin=workload)
    found = json.loads(out)
    assert found.pop("handle").startswith("H:")
    assert (exit_code, found) == (code, expected)


# Exit codes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("odd", "2"), b"the job failed."),
        (("raise", "x"), b"the job raised an exception: ValueError: no such luck"),
        (("raise", "x", "--no-exceptions"), b"the job failed."),
    ],
)
def test_failed_job_exits_with_1_and_says_why(here: Here, at: str, words: tuple[str, ...], sentence: bytes) -> None:
    assert here(*words, at) == (1, b"", b"gear submit: " + sentence + b"\n")


@pytest.mark.parametrize("words", [(), ("--background",)])
def test_rejected_job_exits_with_1(here: Here, words: tuple[str, ...]) -> None:
    with gear_sync.Server(port=0, max_jobs=1) as server, gear_sync.Client(server.address) as client:
        client.submit_background("nobody")
        code, out, err = here("nobody", "x", f"--server=127.0.0.1:{server.port}", *words)
    assert (code, out) == (1, b"")
    assert b"the server refused the job: QUEUE_ERROR" in err


@pytest.fixture
def faithless_port() -> Iterator[int]:
    """Listen on a port, and close each connection once something has come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                received = b""
                while b"the workload" not in received:
                    received += connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(WAIT)


@pytest.mark.parametrize("words", [(), ("--background",)])
def test_lost_job_exits_with_1(here: Here, faithless_port: int, words: tuple[str, ...]) -> None:
    code, out, err = here("f", "the workload", "--json", f"--server=127.0.0.1:{faithless_port}", *words)
    assert code == 1
    assert json.loads(out)["outcome"] == "lost"
    assert b"the job may or may not have run" in err


def test_no_server_exits_with_3(refusal: Refusal, unused_port: int) -> None:
    code, text = refusal("submit", "echo", "x", f"--server=127.0.0.1:{unused_port}")
    assert code == 3
    assert text == f"gear submit: no server could be reached: 127.0.0.1:{unused_port}: Connection refused.\n"
    assert refusal("submit", "echo", "x", "--background", f"--server=127.0.0.1:{unused_port}") == (3, text)


def test_no_server_for_lines_exits_with_3(here: Here, unused_port: int) -> None:
    code, out, err = here("echo", "--lines", f"--server=127.0.0.1:{unused_port}", stdin=b"1\n2\n")
    assert (code, out) == (3, b"")
    assert err.startswith(b"gear submit: no server could be reached: ")
    assert err.count(b"\n") == 1


def test_timeout_exits_with_4(here: Here, idle: gear_sync.Server) -> None:
    code, out, err = here("nobody", "x", "--timeout=0.1", "--json", f"--server=127.0.0.1:{idle.port}")
    assert (code, err) == (4, b"gear submit: no result within 0.1 s.\n")
    assert json.loads(out)["outcome"] == "timeout"


def test_timeout_ends_at_the_first_line_without_a_result(gear: Run, idle: gear_sync.Server) -> None:
    at = f"--server=127.0.0.1:{idle.port}"
    done = gear("submit", "nobody", "--lines", "--timeout=0.1", at, stdin=b"1\n2\n3\n")
    assert (done.returncode, done.stderr) == (4, b"gear submit: line 1: no result within 0.1 s.\n")


def test_timeout_ends_the_wait_for_more_lines(idle: gear_sync.Server) -> None:
    with subprocess.Popen(
        command("submit", "nobody", "--lines", "--timeout=0.1", f"--server=127.0.0.1:{idle.port}"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        assert process.wait(WAIT) == 4
        assert process.stderr.read() == b"gear submit: line 1: no result within 0.1 s.\n"


def test_limit_of_the_protocol_exits_with_2(refusal: Refusal, idle: gear_sync.Server) -> None:
    for words in ((), ("--background",)):
        code, text = refusal("submit", "f", "x", "--unique", "u" * 65, f"--server=127.0.0.1:{idle.port}", *words)
        assert code == 2
        assert text.endswith("unique has 65 bytes, limit 64.\n")


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_servers_come_from_the_environment_unless_the_command_line_names_some(
    here: Here, server: gear_sync.Server, unused_port: int, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    away, running = f"127.0.0.1:{unused_port}", f"127.0.0.1:{server.port}"
    monkeypatch.setenv("GEAR_SERVERS", separator.join(("", away, running)))
    assert here("echo", "x") == (0, b"x", b"")
    monkeypatch.setenv("GEAR_SERVERS", away)
    assert here("echo", "x", f"--server={away},{running}") == (0, b"x", b"")
    assert here("echo", "x", "-s", away, "-s", running) == (0, b"x", b"")


@pytest.mark.parametrize("value", [None, "", " , "])
def test_server_is_on_this_machine_if_nobody_names_one(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEAR_SERVERS", raising=False)
    if value is not None:
        monkeypatch.setenv("GEAR_SERVERS", value)
    assert server_addresses(()) == [Address("127.0.0.1", DEFAULT_PORT)]
