"""``gear work``: jobs run by a command or a Python function."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gear_sync
from gear_cli.main import main
from gearproto import JobFailed, JobRaised
from tests.harness.threads import Call

from .conftest import WAIT, Run, command, environment, in_time

Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Here:
    """Run ``gear work`` in this process; return its exit code, and what it and its commands have written."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["work", *words])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def at(idle: gear_sync.Server) -> str:
    """Return the option that names the server without workers."""
    return f"--server=127.0.0.1:{idle.port}"


@pytest.fixture
def client(idle: gear_sync.Server) -> Iterator[gear_sync.Client]:
    with gear_sync.Client(idle.address) as client:
        yield client


@pytest.mark.parametrize(
    "words", [("tr a-z A-Z | cat",), ("tr", "a-z", "A-Z"), ("--", "tr", "-s", "a-z", "A-Z"), ("--", "tr a-z A-Z")]
)
def test_command_reads_the_workload_and_writes_the_result(
    here: Here, at: str, client: gear_sync.Client, words: tuple[str, ...]
) -> None:
    jobs = client.submit_many(gear_sync.JobRequest(function="up", workload=text) for text in (b"one", b"two"))
    assert here("up", at, "--count=2", *words) == (0, "", "")
    assert [job.result(WAIT) for job in jobs] == [b"ONE", b"TWO"]


def test_command_may_leave_its_workload_unread(here: Here, at: str, client: gear_sync.Client) -> None:
    job = client.submit("f", b"x" * 1_000_000)
    result = Call(lambda: job.result(WAIT))  # it sends what the socket has not taken at once
    assert here("f", at, "--count=1", "echo done") == (0, "", "")
    assert result.result() == b"done\n"


def test_command_is_told_the_names_of_the_job(here: Here, at: str, client: gear_sync.Client) -> None:
    job = client.submit("f", unique="u")
    assert here("f", at, "--count=1", 'echo "$GEAR_FUNCTION $GEAR_UNIQUE $GEAR_HANDLE"') == (0, "", "")
    result = job.result(WAIT)
    assert job.handle is not None
    assert result == b"f u " + job.handle + b"\n"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("exit 3", "the command exited with 3"),
        ("kill -9 $$", "the command was killed by signal 9"),
        ("true; exit 128", "the command exited with 128"),
    ],
)
def test_command_that_does_not_end_with_0_fails_the_job(
    here: Here, at: str, client: gear_sync.Client, caplog: pytest.LogCaptureFixture, text: str, warning: str
) -> None:
    job = client.submit("f")
    code, out, _err = here("f", at, "--count=1", text)
    assert (code, out) == (0, "")
    assert warning in caplog.text
    with pytest.raises(JobFailed):
        job.result(WAIT)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("true; /nonexistent/command",), "the command cannot be found (exit code 127)"),
        (("true; /",), "the command cannot be run (exit code 126)"),
        (("{script}", "x"), "the command cannot be run: Exec format error"),
    ],
)
def test_command_that_has_never_worked_stops_the_worker_and_gives_the_job_back(
    here: Here, at: str, client: gear_sync.Client, tmp_path: Path, words: tuple[str, ...], sentence: str, threads: int
) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\0")
    script.chmod(0o755)
    job = client.submit("f")
    code, out, err = here("f", at, f"--threads={threads}", *(word.format(script=script) for word in words))
    assert (code, out) == (1, "")
    assert err.endswith(f"gear work: {sentence}; its job goes back to the server.\n")  # after what the shell says
    assert here("f", at, "--count=1", "echo another one") == (0, "", "")
    assert job.result(WAIT) == b"another one\n"


def test_command_that_has_worked_before_fails_its_job(here: Here, at: str, client: gear_sync.Client) -> None:
    jobs = client.submit_many(gear_sync.JobRequest(function="f", workload=text) for text in (b"exit 0", b"exit 127"))
    code, _out, _err = here("f", at, "--count=2", "sh")
    assert code == 0
    assert jobs[0].result(WAIT) == b""
    with pytest.raises(JobFailed):
        jobs[1].result(WAIT)


def test_target_is_a_python_function(at: str, client: gear_sync.Client, tmp_path: Path) -> None:
    (tmp_path / "my_jobs.py").write_text(
        "class Work:\n"
        "    @staticmethod\n"
        "    def backwards(job):\n"
        "        return job.workload[::-1]\n\n"
        "def pieces(job):\n"
        "    yield job.workload\n"
        "    raise ValueError('late')\n"
    )

    def work(function: str) -> None:
        words = command("work", "f", f"--target=my_jobs:{function}", "--count=1", at)
        # The console script has no current directory on its path, unlike python -m: safe path is as it is there.
        done = subprocess.run(words, cwd=tmp_path, env=environment(PYTHONSAFEPATH="1"), timeout=WAIT, check=False)
        assert done.returncode == 0

    job = client.submit("f", b"abc")
    work("Work.backwards")
    assert job.result(WAIT) == b"cba"
    job = client.submit("f", b"abc")
    work("pieces")
    with pytest.raises(JobRaised, match="ValueError: late"):
        job.result(WAIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_the_job_in_hand_end(
    at: str, client: gear_sync.Client, tmp_path: Path, number: signal.Signals
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = command("work", "slow", at, "--client-id=slow one", f"cat {fifo}")
    job = client.submit("slow")
    with subprocess.Popen(words, env=environment(), start_new_session=True) as worker:
        with fifo.open("wb") as end:  # opens once the command of the job reads
            os.killpg(worker.pid, number)  # as a terminal does it: to all of its processes
            assert [row.client_id for row in client.admin.workers() if row.functions] == [b"slow one"]
            end.write(b"finished")
        assert job.result(WAIT) == b"finished"
        assert worker.wait(WAIT) == 0


def test_second_signal_ends_the_worker_and_its_command_at_once(
    at: str, client: gear_sync.Client, gear: Run, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    job = client.submit("slow")
    words = command("work", "slow", at, f"cat {fifo}")
    with subprocess.Popen(words, env=environment()) as worker, fifo.open("wb"):
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(WAIT) == 130
    assert gear("work", "slow", at, "--count=1", "echo another one").returncode == 0
    assert job.result(WAIT) == b"another one\n"


HANGING = """
import ctypes, os, threading, time

def say_so():
    os.write(1, b"started\\n")  # print may still hold a lock when this is read, with which Python cannot end

def deaf(job):
    say_so()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def locked(job):
    mutex = ctypes.create_string_buffer(128)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    say_so()
    libc.pthread_mutex_lock(mutex)  # no signal ends this

def leaves_a_thread(job):
    threading.Thread(target=time.sleep, args=(60,)).start()
    say_so()
    time.sleep(60)
"""


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("function", ["deaf", "locked", "leaves_a_thread"])
def test_second_signal_ends_the_worker_whatever_its_function_does(
    at: str, client: gear_sync.Client, gear: Run, tmp_path: Path, function: str, threads: int
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    job = client.submit("f")
    words = command("work", "f", at, f"--target=hanging:{function}", f"--threads={threads}")
    with subprocess.Popen(words, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        with in_time(worker):
            assert worker.stdout.readline() == b"started\n"
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
        try:
            assert worker.wait(WAIT) == 130
        finally:
            worker.kill()
    assert gear("work", "f", at, "--count=1", "echo another one").returncode == 0
    assert job.result(WAIT) == b"another one\n"


FORKING = """
import multiprocessing, time

processes = multiprocessing.get_context("fork")

def terminate(job):
    child = processes.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    with processes.Pool(2) as pool:
        return b"%d" % child.exitcode + b"".join(pool.map(bytes.upper, [b"a", b"b"]))
"""


@pytest.mark.parametrize("threads", [0, 1])
def test_children_that_a_function_forks_can_be_terminated_and_the_worker_lives(
    at: str, client: gear_sync.Client, tmp_path: Path, threads: int
) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    words = command("work", "f", at, "--target=forking:terminate", f"--threads={threads}")
    with subprocess.Popen(words, env=environment(), cwd=tmp_path) as worker:
        try:
            for _ in range(3):
                assert client.submit("f").result(WAIT) == b"%dAB" % -signal.SIGTERM
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(WAIT) == 0
        finally:
            worker.kill()


@pytest.mark.parametrize("threads", [0, 1])
def test_command_ends_with_the_worker_that_is_made_to_end(
    at: str, client: gear_sync.Client, tmp_path: Path, threads: int
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    client.submit("slow")
    words = command("work", "slow", at, f"--threads={threads}", f"exec sleep 60 > {fifo}")
    with subprocess.Popen(words, env=environment()) as worker, fifo.open("rb") as end:
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(WAIT) == 130
        assert Call(end.read).result() == b""  # it ends when the command does


@pytest.mark.parametrize("threads", [0, 1])
def test_command_that_takes_too_long_is_killed(
    gear: Run, at: str, client: gear_sync.Client, tmp_path: Path, threads: int
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    job = client.submit("slow")
    words = command("work", "slow", at, f"--threads={threads}", "--timeout=0.5", f"exec sleep 60 > {fifo}")
    with subprocess.Popen(words, env=environment()) as worker, fifo.open("rb") as end:
        assert Call(end.read).result() == b""
        with pytest.raises(JobRaised, match=r"TimeoutError: the job has taken longer than 0\.5 s"):
            job.result(WAIT)
        worker.terminate()
        assert worker.wait(WAIT) == 0


def test_server_that_cannot_be_reached_is_tried_again(unused_port: int) -> None:
    words = command("work", "f", "cat", "--count=1", f"--server=127.0.0.1:{unused_port}")
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment()) as worker:
        assert worker.stderr is not None
        with in_time(worker):
            assert f"127.0.0.1:{unused_port}: Connection refused" in worker.stderr.readline().decode()
        with gear_sync.Server(port=unused_port) as server, gear_sync.Client(server.address) as client:
            assert client.submit("f", b"text").result(WAIT) == b"text"
            assert worker.wait(WAIT) == 0


def test_verbose_tells_of_connections(gear: Run, at: str, client: gear_sync.Client) -> None:
    client.submit("f")
    assert b": connected\n" in gear("work", "f", at, "cat", "--count=1", "-v").stderr


def test_several_jobs_run_at_once_if_asked_for(here: Here, at: str, client: gear_sync.Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    meet = (
        f"cd {tmp_path} && if mkdir first 2>/dev/null; then echo met > pipe; else cat pipe; fi"  # each waits for both
    )
    jobs = client.submit_many([gear_sync.JobRequest("meet"), gear_sync.JobRequest("meet")])
    assert here("meet", at, "--threads=2", "--count=2", meet) == (0, "", "")
    assert sorted(job.result(WAIT) for job in jobs) == [b"", b"met\n"]


def test_function_s_time_limit_is_told_to_the_server(here: Here, at: str, client: gear_sync.Client) -> None:
    job = client.submit("f")
    code, _out, _err = here("f", at, "--threads=1", "--timeout=0.01", "--count=1", "cat && sleep 0.1")
    assert code == 0
    with pytest.raises(JobRaised, match=r"TimeoutError: the job has taken longer than 0\.01 s"):
        job.result(WAIT)
