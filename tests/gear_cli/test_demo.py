"""``gear demo``: shows that a job outlives the worker it was begun by."""

import io
import os
import re
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from gear_cli.demo import count_words, run_demo, stdout_console
from tests.harness.threads import Call

from .conftest import Run

TEXT = "".join(f"one line, and it's number {word}\n" for word in ("one", "two", "three", "four", "five", "six"))


def show(text: str, pieces: int, **options: object) -> tuple[int, str]:
    """Run the demonstration without pauses; return its exit code and what it shows."""
    console = Console(file=io.StringIO(), record=True, width=80, highlight=False, **options)  # type: ignore[arg-type]
    code = run_demo(text, pieces, console, pace=0)
    return code, console.export_text()


def test_it_ends_with_0_and_names_who_was_cut_off_and_who_finished(gear: Run) -> None:
    done = gear("demo")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), text
    found = re.search(r"job retried +│ piece (\d): (\w+) was lost, (\w+) finished it", text)
    assert found is not None
    piece, victim, rescuer = found.groups()
    assert {victim, rescuer} == {"anna", "boris"}
    assert f"piece {piece}: done by {rescuer}, after {victim} was lost\n" in text
    assert sorted(re.findall(r"^piece (\d): done by", text, re.MULTILINE)) == list("12345678")
    assert "8 of 8 done" in text


@pytest.mark.parametrize("pieces", [1, 2, 6, 1000])
def test_job_is_finished_by_the_other_worker_however_many_there_are(pieces: int) -> None:
    code, text = show(TEXT, pieces)
    assert code == 0
    found = re.search(r"(\w+) was lost, (\w+) finished it", text)
    assert found is not None
    assert set(found.groups()) == {"anna", "boris"}
    assert re.search(r"words +│ 36, 10 different", text)


def test_bars_are_shown_on_a_terminal() -> None:
    code, text = show(TEXT, 2, force_terminal=True)
    assert code == 0
    for row in ("piece  1", "piece  2", "all jobs"):
        assert re.search(rf"{row} ━+ 100%", text)
    assert re.search(r"100% done by \w+, after \w+ was lost", text)


@pytest.mark.parametrize("width", [80, 40])
def test_bars_fit_on_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), record=True, width=width, highlight=False, force_terminal=True)
    assert run_demo(TEXT, 2, console, pace=0) == 0
    text = console.export_text()
    assert re.search(r"piece  1 ━{8,} 100% done by \w+", text)
    assert re.search(r"all jobs ━{8,} 100%", text)


def test_bars_are_drawn_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        with open(theirs, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            shown = Call(lambda: _until_closed(screen))
            assert run_demo(TEXT, 2, stdout_console(), pace=0) == 0
        assert b"piece  1" in shown.result()
        assert b"Every result is the same" in shown.result()


def _until_closed(screen: IO[bytes]) -> bytes:
    shown = b""
    with suppress(OSError):  # as Linux says that nobody has the terminal open any more
        while data := screen.read(65536):
            shown += data
    return shown


def test_many_jobs_share_one_bar() -> None:
    code, text = show(TEXT * 3, 18, force_terminal=True)
    assert code == 0
    assert re.search(r"all jobs ━+ 100%", text)
    assert "piece  1" not in text


def test_it_counts_the_words_of_a_file(gear: Run, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("one two\nTwo it's\n", encoding="utf-8")
    done = gear("demo", str(path), "--pieces=1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"4, 3 different" in done.stdout
    assert b"two 2" in done.stdout


def test_empty_text_has_no_words() -> None:
    code, text = show("", 8)
    assert code == 0
    assert re.search(r"words +│ 0, 0 different", text)


def test_wrong_result_ends_with_1() -> None:
    console = Console(file=io.StringIO(), record=True, width=80)

    def count(text: str) -> Counter[str]:
        return count_words(text.replace("three", "four"))

    assert run_demo(TEXT, 6, console, count=count, pace=0) == 1
    assert "Wrong: piece 3 differs from a count without jobs." in console.export_text()


def test_job_that_raises_ends_with_1(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), record=True, width=80)

    def count(text: str) -> Counter[str]:
        if "three" in text:
            raise ValueError("no [threes]")
        return count_words(text)

    assert run_demo(TEXT, 6, console, count=count, pace=0) == 1
    assert "piece 3: ValueError: no [threes]" in console.export_text()
