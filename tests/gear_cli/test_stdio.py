"""What is written to people."""

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gear_cli.exits import Exit, Failure
from gear_cli.stdio import Stdout, printable, say, write, write_line
from tests.harness.threads import Call


@given(st.text(st.characters(codec=None)))
@example("\x1b]0;title\x07\x9b31m\u202e\udcff\x7f\r\n")
def test_nothing_that_a_terminal_obeys_is_printable(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & {chr(code) for code in (*range(32), *range(127, 160), 0x2028, 0x202E, 0xDCFF)} - {"\t"}
    assert printable(shown) == shown
    whole = printable(text, lines=True)
    assert printable(whole.replace("\n", "")) == whole.replace("\n", "")
    assert whole.count("\n") == whole.count("\n    ") == text.rstrip("\r\n").count("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u00fc\u00a0\u20ac\tx", "\u00fc\u00a0\u20ac\tx"),
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("one\ngear: two", r"one\ngear: two"),
    ],
)
def test_text_stays_as_it_is_but_for_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_of_others_does_not_look_like_one_of_ours() -> None:
    assert printable("one\r\ngear submit: two\n\x1b[m\r\n", lines=True) == "one\n    gear submit: two\n    \\x1b[m"


def test_what_is_said_to_nobody_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("text")
    with open("/dev/full", "w", encoding="utf-8", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        say("text")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # else closing it fails


def test_nothing_is_written_to_a_stdout_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    write(b"data")
    write_line("text")
    stdout = Stdout()
    assert stdout.write("text") == 4
    assert not stdout.isatty()
    assert stdout.encoding == "utf-8"
    with pytest.raises(OSError, match="closed"):
        stdout.fileno()


def test_line_is_written_whatever_the_encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        write_line("\u00fc\udcff")
        assert path.read_bytes() == b"\\xfc\\udcff\n"


def test_all_is_written_to_a_pipe_that_takes_a_part_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(range(256)) * 4096
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as raw:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))  # as PYTHONUNBUFFERED makes it
        read = Call(lambda: source.read(len(data)))
        write(data)
        assert read.result() == data


def test_full_stdout_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(Failure, match="cannot write to stdout: No space left on device") as caught:
            write(b"data")
        assert caught.value.code == Exit.FAILED
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
