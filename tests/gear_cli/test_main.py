"""The command as a whole."""

import signal
import subprocess
import sys

import pytest

import gear_sync
import gearproto
from gear_cli.main import main

from .conftest import WAIT, Hold, Refusal, command, environment


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


def test_unknown_command_exits_with_2(refusal: Refusal) -> None:
    code, text = refusal("nonsense")
    assert code == 2
    assert text.startswith('gear: Unknown command "nonsense".')


def test_only_the_demo_needs_rich_before_there_is_something_to_draw() -> None:
    script = """
import sys
import gear_cli.main
for words in (["serve"], ["submit", "f"], ["work", "f"]):
    gear_cli.main.app.parse_args(words, print_error=False, exit_on_error=False)
    assert f"gear_cli.{words[0]}" in sys.modules
    assert "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=WAIT)


def test_interrupt_ends_without_a_traceback(server: gear_sync.Server, at: str, hold: Hold) -> None:
    words = command("submit", "hold", "x", at)
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment()) as process:
        assert hold.running.wait(WAIT)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert err == b""
