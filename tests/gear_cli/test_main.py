"""The command as a whole."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

import gear_sync
import gearproto
from gear_cli.main import main

from .conftest import WAIT, Hold, Refusal, command, environment, in_time


def test_version_is_the_package_s(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.strip() == f"gear {gearproto.__version__}"


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_says_what_each_command_is_for(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = " ".join(capfd.readouterr().out.replace("│", " ").split())
    assert "demo Count the words of a text" in text
    assert "serve Run a job server" in text
    assert "submit Submit a job" in text
    assert "work Run jobs" in text
    assert "3 no server could be reached" in text


@pytest.mark.parametrize("word", ["demo", "serve", "submit", "work"])
def test_help_of_a_command_tells_its_exit_codes(word: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--help"]) == 0
    text = capfd.readouterr().out
    assert f"Usage: gear {word}" in text
    assert "Exit codes: 0" in text


def test_nothing_is_imported_that_a_command_has_no_use_for() -> None:
    script = """
import sys
from gear_cli.main import main
def loaded(*names):
    return [name for name in names if name in sys.modules]
assert main(["nonsense"]) == 2
assert not loaded("gearproto", "cyclopts", "gear_cli.options")
assert main(["--version"]) == 0
assert not loaded("cyclopts", "gear_cli.options", "gear_sync", "ssl", "logging")
assert main(["submit", "--nonsense"]) == main(["serve", "--port=x"]) == main(["work"]) == 2
assert loaded("gear_cli.submit", "gear_cli.serve", "gear_cli.work") and not loaded("gear_sync", "ssl", "rich")
assert main(["submit", "f", "x", "--server=127.0.0.1:1"]) == 3
assert not loaded("rich", "gear_cli.demo")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=WAIT, stderr=subprocess.DEVNULL)


def test_missing_extra_is_one_sentence(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gear_cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "cyclopts", None)  # importing it fails
    for words in ((), ("--help",), ("serve",), ("demo",)):
        code, text = refusal(*words)
        assert code == 1
        assert "pip install 'gearproto[cli]'" in text


def test_error_of_the_system_is_one_sentence(refusal: Refusal) -> None:
    refusal("work", "f", "no-such-command")  # imports all that is needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no descriptor is free
    try:
        code, text = refusal("work", "f", "cat")
        assert code == 1
        assert text.endswith(": Too many open files.\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_interrupt_during_imports_ends_without_a_traceback(tmp_path: Path) -> None:
    slow = "import os, signal\nos.write(1, b'imports\\n')\nwhile True: signal.pause()\n"
    (tmp_path / "cyclopts.py").write_text(slow)
    words = command("submit", "f")
    variables = environment(PYTHONPATH=str(tmp_path))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        with in_time(process):
            assert process.stdout.readline() == b"imports\n"
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (130, b"")


def test_interrupt_ends_without_a_traceback(server: gear_sync.Server, at: str, hold: Hold) -> None:
    words = command("submit", "hold", "x", at)
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment()) as process:
        assert hold.running.wait(WAIT)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert err == b""


def test_terminated_command_leaves_the_terminal_in_order(server: gear_sync.Server, at: str) -> None:
    terminal, theirs = os.openpty()
    try:
        with subprocess.Popen(
            command("submit", "hold", "x", at), stdout=theirs, stderr=theirs, env=environment(TERM="xterm")
        ) as process:
            os.close(theirs)
            shown = b""
            while b"\x1b[?25l" not in shown:  # the cursor is hidden while there is a bar
                shown += os.read(terminal, 65536)
            process.terminate()
            with suppress(OSError):  # as Linux says that nobody has the terminal open any more
                while more := os.read(terminal, 65536):
                    shown += more
            assert process.wait(WAIT) == 143
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
        assert b"Traceback" not in shown
    finally:
        os.close(terminal)


# Stdout that takes nothing


@pytest.fixture(params=["/dev/full", "pipe"])
def deaf(request: pytest.FixtureRequest) -> Iterator[IO[str]]:
    """Yield a stdout that is full, and one that nobody reads any more."""
    if request.param == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    with open("/dev/full" if request.param == "/dev/full" else writer, "w", encoding="utf-8") as file:
        yield file
        with suppress(OSError):  # what is left of a test that has failed
            file.close()


def _check_end(deaf: IO[str], code: int, err: str, name: str) -> None:
    if deaf.name == "/dev/full":
        assert (code, err) == (1, f"{name}: cannot write to stdout: No space left on device.\n")
    else:
        assert (code, err) == (141, "")


@pytest.mark.parametrize("words", ["--version", "--help", "submit --help", "submit echo x", "submit echo x --json"])
def test_stdout_that_takes_nothing_ends_a_command(
    deaf: IO[str], at: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(sys, "stdout", deaf)
    code = main([*words.split(), *([at] if "echo" in words else [])])
    _check_end(deaf, code, capfd.readouterr().err, "gear submit" if "submit" in words else "gear")


@pytest.mark.parametrize("words", ["serve --port=0", "demo"])
def test_stdout_that_takes_nothing_ends_a_command_with_its_threads(deaf: IO[str], words: str) -> None:
    done = subprocess.run(
        command(*words.split()),
        stdout=deaf,
        stderr=subprocess.PIPE,
        timeout=WAIT,
        env=environment(),
        check=False,
        text=True,
    )
    _check_end(deaf, done.returncode, done.stderr, f"gear {words.split(maxsplit=1)[0]}")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_standard_stream_that_is_closed_is_as_good_as_an_empty_one(at: str, closed: int) -> None:
    """A socket must not get its number: what is written there would go to the server."""
    words = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command("submit", "echo", "x", at)]
    done = subprocess.run(words, capture_output=True, timeout=WAIT, env=environment(), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"" if closed == 1 else b"x", b"")
