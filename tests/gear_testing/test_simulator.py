"""Whole networks keep every promise under faults; each broken promise is noticed, and can be played again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from gear_testing.simulator import Invariant, Violation, run_schedule, server
from gear_testing.simulator.__main__ import main
from gearproto import ClientConnection, Completed, Lost, NotSent, WorkerConnection
from gearproto.client import connection as client_connection
from gearproto.codec import RESPONSE, Packet, Route, decoders
from gearproto.event import Event
from gearproto.events import JobEnded, Line
from gearproto.framing import Decoder
from gearproto.packets import JobAssign, JobAssignAll, JobAssignUniq, JobCreated, NoJob, Noop, WorkComplete, WorkFail
from gearproto.server import Counters, Endpoint, Engine, PeerId
from gearproto.server.lifecycle import Lifecycle
from gearproto.server.waking import Waking
from tests.harness.engine import check_books

_BLOCK = 50  # schedules a test
_SCHEDULES = 10 * settings.default.max_examples if settings.default else 0  # 300 with the profile `quick`


@pytest.mark.parametrize("first", range(0, _SCHEDULES, _BLOCK))
def test_every_promise_is_kept_under_faults(first: int) -> None:
    ended = 0
    for seed in range(first, first + _BLOCK):
        # The check of the engine's books takes as long as all the rest.
        simulation = run_schedule(seed, check=check_books if seed % 10 == 0 else None)
        ended += sum(len(submission.outcomes) for submission in simulation.submissions)
    assert ended > _BLOCK


def test_simulations_hold_every_kind_of_fault() -> None:
    seen = " ".join(what for seed in range(30) for _when, _who, what in run_schedule(seed).trace)
    for what in ("half closes", "resets", "silences", "leaves", "crashes", "is paused", "has its clock put"):
        assert what in seen


# Playing again


def test_trace_follows_from_the_seed() -> None:
    one, two = (run_schedule(4730).trace for _ in range(2))
    assert one == two
    assert one != run_schedule(4731).trace


def test_trace_is_the_same_in_another_process() -> None:
    command = [sys.executable, "-m", "gear_testing.simulator", "--seed", "4730", "--trace"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"})
    trace = [f"{when:9.4f}  {who}: {what}" for when, who, what in run_schedule(4730).trace]
    assert ran.stdout.splitlines() == [*trace, f"seed 4730: {len(trace)} steps, every promise kept"]


def test_command_plays_many_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", "3", "--first", "7", "--processes", "1"]) == 0
    assert "3 schedules with " in capsys.readouterr().out


def test_command_tells_the_seed_that_fails_and_how_to_play_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Waking, "wake_sleepers", lambda *_args, **_options: None)
    assert main(["--schedules", "100", "--processes", "1"]) == 1
    told = capsys.readouterr().err
    assert "WAKE_UP: jobs of b'" in told
    seed = told.partition("The seed is ")[2].partition(":")[0]
    assert f"python -m gear_testing.simulator --seed {seed} --trace" in told
    assert main(["--seed", seed]) == 1
    assert "WAKE_UP: jobs of b'" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--schedules", "0"], ["--processes", "0"]])
def test_command_refuses_numbers_below_1(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
    assert "1 or more" in capsys.readouterr().err


# Faults that each invariant notices

Patch = Callable[[pytest.MonkeyPatch], Callable[..., Engine]]


def first_violation(make_engine: Callable[..., Engine]) -> Violation:
    for seed in range(200):
        try:
            run_schedule(seed, make_engine=make_engine)
        except Violation as violation:
            return violation
    pytest.fail("the fault is not noticed")


def rewriting(patch: pytest.MonkeyPatch, rewrite: Callable[[Engine, PeerId, list[Event]], list[Event]]) -> type[Engine]:
    """Change what leaves for peers."""
    sends = Endpoint.sends

    def rewritten(self: Endpoint) -> Iterator[tuple[PeerId, bytes]]:
        for peer, data in sends(self):
            decoder = Decoder(decoders(Route.FROM_SERVER), line_endings=True)
            decoder.feed(bytes(data))
            messages = rewrite(self.engine, peer, list(iter(decoder.next, None)))
            yield peer, b"".join(_encode(message) for message in messages)

    patch.setattr(Endpoint, "sends", rewritten)
    patch.setattr(server, "_PARTLY", 0.0)  # so that all that leaves are whole messages
    return Engine


def _encode(message: Event) -> bytes:
    if isinstance(message, Line):
        return message.text
    assert isinstance(message, Packet)
    return message.encode(RESPONSE)


def drops_wake_ups(patch: pytest.MonkeyPatch) -> type[Engine]:
    patch.setattr(Waking, "wake_sleepers", lambda *_args, **_options: None)
    return Engine


def doubles_results(patch: pytest.MonkeyPatch) -> type[Engine]:
    def rewrite(_engine: Engine, _peer: PeerId, messages: list[Event]) -> list[Event]:
        return [copy for message in messages for copy in [message] * (1 + isinstance(message, WorkComplete))]

    return rewriting(patch, rewrite)


def loses_what_workers_leave_behind(patch: pytest.MonkeyPatch) -> type[Engine]:
    patch.setattr(Lifecycle, "give_back", lambda self, job: self.end(job, None))
    return Engine


def gives_a_job_to_two(patch: pytest.MonkeyPatch) -> type[Engine]:
    last: dict[Engine, tuple[PeerId, Any]] = {}

    def rewrite(engine: Engine, peer: PeerId, messages: list[Event]) -> list[Event]:
        for number, message in enumerate(messages):
            if isinstance(message, JobAssign | JobAssignUniq | JobAssignAll):
                last[engine] = peer, message
            elif isinstance(message, NoJob) and engine in last:
                owner, assignment = last[engine]
                job = engine.queue.jobs.get(assignment.handle)
                if job is not None and job.worker is not None and owner != peer:
                    messages[number] = assignment
        return messages

    return rewriting(patch, rewrite)


def miscounts(_patch: pytest.MonkeyPatch) -> type[Engine]:
    class Miscounting(Engine):
        __slots__ = ()

        def counters(self) -> Counters:
            found = super().counters()
            numbers = (found.peers, found.queued + (found.running > 0), found.delayed, found.running)
            return Counters(*numbers, found.submitted, found.ended, found.functions)

    return Miscounting


def answers_out_of_order(patch: pytest.MonkeyPatch) -> type[Engine]:
    def rewrite(_engine: Engine, _peer: PeerId, messages: list[Event]) -> list[Event]:
        return messages[::-1] if all(isinstance(message, JobCreated) for message in messages) else messages

    return rewriting(patch, rewrite)


def runs_lost_jobs_too_often(_patch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    def make(*, job_retries: int, **options: Any) -> Engine:
        return Engine(job_retries=job_retries + (job_retries >= 0), **options)

    return make


def invents_results(patch: pytest.MonkeyPatch) -> type[Engine]:
    patch.setitem(client_connection._OUTCOMES, WorkFail, lambda _packet: Completed(b"made up"))
    return Engine


def calls_lost_submissions_not_sent(patch: pytest.MonkeyPatch) -> type[Engine]:
    lost = ClientConnection._lost

    def wrong(*args: Any) -> Event:
        event = lost(*args)
        if isinstance(event, JobEnded) and isinstance(event.outcome, Lost):
            return JobEnded(event.request, event.handle, NotSent(event.outcome.cause))
        return event

    patch.setattr(ClientConnection, "_lost", wrong)
    return Engine


def raises(patch: pytest.MonkeyPatch) -> type[Engine]:
    def give_back(_self: Any, job: Any) -> None:
        raise KeyError(job.handle)

    patch.setattr(Lifecycle, "give_back", give_back)
    return Engine


def sleeps_through_wake_ups(patch: pytest.MonkeyPatch) -> type[Engine]:
    def deaf(self: Any, packet: Any) -> None:
        assert isinstance(packet, Noop)

    patch.setitem(WorkerConnection._HANDLERS, Noop, deaf)
    return Engine


@pytest.mark.parametrize(
    ("fault", "invariant"),
    [
        (drops_wake_ups, Invariant.WAKE_UP),
        (doubles_results, Invariant.ONE_END),
        (loses_what_workers_leave_behind, Invariant.JOB_KEPT),
        (gives_a_job_to_two, Invariant.ONE_OWNER),
        (miscounts, Invariant.COUNTS),
        (answers_out_of_order, Invariant.ANSWERS),
        (runs_lost_jobs_too_often, Invariant.RETRIES),
        (invents_results, Invariant.TRUE_RESULT),
        (calls_lost_submissions_not_sent, Invariant.NOT_SENT),
        (raises, Invariant.NO_FAULT),
        (sleeps_through_wake_ups, Invariant.DRAINS),
    ],
    ids=lambda value: value.name if isinstance(value, Invariant) else value.__name__,
)
def test_invariant_notices_a_server_that(fault: Patch, invariant: Invariant, monkeypatch: pytest.MonkeyPatch) -> None:
    violation = first_violation(fault(monkeypatch))
    assert violation.invariant is invariant
    assert any(note.startswith("The seed is ") for note in violation.__notes__)


def test_every_invariant_has_a_fault_that_it_notices() -> None:
    (table,) = (mark for mark in test_invariant_notices_a_server_that.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {invariant for _fault, invariant in table.args[1]} == set(Invariant)
