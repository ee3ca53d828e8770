"""The targets of the fuzzer take the kept inputs and any others, and notice faults; the command says what it does."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing import strategies
from gear_testing.fuzz import __main__ as command
from gear_testing.fuzz import corpus
from gear_testing.fuzz.reach import new_reach, reached
from gear_testing.fuzz.targets import TARGETS
from gearproto import ClientConnection, WorkerConnection, admin
from gearproto.framing import Decoder
from gearproto.server.lifecycle import Lifecycle

targets = pytest.mark.parametrize("name", TARGETS)


@targets
def test_kept_inputs_find_nothing(name: str) -> None:
    inputs = corpus.kept(name)
    assert inputs
    for data in inputs:
        TARGETS[name](data)


@targets
@given(data=st.data())
def test_random_bytes_find_nothing(name: str, data: st.DataObject) -> None:
    inputs = st.sampled_from(corpus.kept(name))
    TARGETS[name](data.draw(st.binary(max_size=200) | strategies.mutations(inputs) | st.lists(inputs).map(b"".join)))


# Faults that a target notices


def _reads_one_chunk(patch: pytest.MonkeyPatch) -> None:
    feed = Decoder.feed

    def forget_and_feed(self: Any, data: bytes) -> None:
        self._partial, self._data, self._cursor = None, b"", 0
        feed(self, data)

    patch.setattr(Decoder, "feed", forget_and_feed)


def _miscounts_ends(patch: pytest.MonkeyPatch) -> None:
    cancel = Lifecycle.fail

    def fail(self: Any, job: Any) -> None:
        cancel(self, job)
        self.ended += 1

    patch.setattr(Lifecycle, "fail", fail)


def _forgets_a_digit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(admin.JobListed, "encode", lambda _row: b"H:1\t0\t0")


def _ends_twice(patch: pytest.MonkeyPatch) -> None:
    lost = ClientConnection._lost

    def twice(self: Any, *details: Any) -> Any:
        self._events.append(lost(self, *details))
        return lost(self, *details)

    patch.setattr(ClientConnection, "_lost", twice)


def _miscounts_jobs_in_hand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerConnection, "in_hand", property(lambda _self: defaultdict(lambda: 99)))


FAULTS = {
    "decoder": _reads_one_chunk,
    "engine": _miscounts_ends,
    "admin": _forgets_a_digit,
    "client": _ends_twice,
    "worker": _miscounts_jobs_in_hand,
}


@targets
def test_kept_inputs_find_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)

    def run_all() -> None:
        for data in corpus.kept(name):
            TARGETS[name](data)

    with pytest.raises((AssertionError, ValueError)):
        run_all()


# The kept inputs


def test_inputs_are_kept_once_and_never_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "file_of", lambda target: tmp_path / target)
    Path(tmp_path, "decoder").write_text("b'old'\n")
    assert corpus.keep("decoder", [b"\0\xff\n", b"old", b"a", b"a"]) == 2
    assert corpus.kept("decoder") == [b"old", b"a", b"\0\xff\n"]
    assert Path(tmp_path, "decoder").read_text() == "b'old'\nb'a'\nb'\\x00\\xff\\n'\n"


def test_only_inputs_that_reach_new_lines_are_worth_keeping() -> None:
    target = TARGETS["admin"]
    assert reached(target, b"status\n") == reached(target, b"status\n")
    assert new_reach(
        target, [b"status\n"], [b"version\n\n\n", b"drop function f", b"status\n", b"drop function ff"]
    ) == [b"drop function f"]


# The command


def test_without_atheris_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert command.main(["decoder"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("atheris is not installed")
    assert "pip install 'gearproto[fuzz]'" in told
    assert "--random" in told


def test_random_changes_need_no_atheris(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["decoder", "--random", "--seconds", "0"]) == 0
    assert capsys.readouterr().out == "100 runs, nothing found\n"


def test_finding_is_told_as_a_line_to_keep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def find(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(TARGETS, "decoder", find)
    with pytest.raises(ZeroDivisionError):
        command.main(["decoder", "--random", "--seconds", "0"])
    told, line = capsys.readouterr().out.splitlines()
    assert told == f"found: append this line to {corpus.file_of('decoder')}"
    assert line.startswith(("b'", 'b"'))


def test_every_target_has_a_name_in_the_command() -> None:
    assert set(command._NAMES) == set(TARGETS)


def test_negative_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["decoder", "--random", "--seconds", "-1"])
    assert "--seconds is 0 or more" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzzer_without_time_runs_the_kept_inputs_and_ends(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["admin", "--seconds", "0"]) == 0
    assert capfd.readouterr().out == "nothing found\n"


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzzer_guided_by_coverage_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["admin", "--seconds", "1"]) == 0
    assert "stat::number_of_executed_units" in capfd.readouterr().err
