"""A job moves as `JOB_MOVES` says, and makes every move that stands there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import ClientConnection
from gearproto.addresses import Address
from gearproto.client import (
    JOB_MOVES,
    MAX_RESUBMISSIONS,
    Candidates,
    Dispatch,
    JobMove,
    JobRecord,
    JobRequest,
    JobState,
    OpenRequests,
    Policy,
    ServerChooser,
)
from gearproto.codec import Packet
from gearproto.packets import Error, JobCreated, WorkComplete, WorkData
from tests.harness.connections import sent

H: Final = b"H:a:1"
NOWHERE: Final = ServerChooser((), Policy.ORDERED)


class Journey:
    """A job, the connection that it is open on, and what can happen to it."""

    def __init__(self, *, background: bool, resubmit: bool) -> None:
        packet = JobRequest("f", b"w", b"u").packet(background=background)
        self.job = JobRecord(packet, Candidates((), ()), resubmit=resubmit)
        self.resubmissions = MAX_RESUBMISSIONS if resubmit else 0
        self.records: OpenRequests[JobRecord] = OpenRequests(ClientConnection(), Address("a"))

    @property
    def causes(self) -> list[str]:
        """What can happen to the job now: also what would not be told apart from it in another job."""
        causes = [move.cause for move in JOB_MOVES if move.before is self.job.state]
        left_out = {
            "connection lost" if self.resubmissions else "connection lost (resubmit)",
            "JOB_CREATED" if self.job.background else "JOB_CREATED (background)",
        }
        return [cause for cause in causes if cause not in left_out]

    def move(self, cause: str) -> JobMove:
        """Let something happen to the job, and return what that has come to."""
        before = self.job.state
        HAPPEN[cause](self)
        return JobMove(before, cause, self.job.state)

    def submit(self) -> None:
        self.records = OpenRequests(ClientConnection(), Address("a"))
        self.records.submit([self.job])

    def receive(self, packet: Packet) -> None:
        self.records.conn.data_to_send()
        self.records.conn.receive_data(sent(packet))
        self.hand_out_events()

    def lose(self) -> None:
        self.records.conn.data_to_send()
        self.lose_unsent()

    def lose_once_more(self) -> None:
        self.resubmissions -= 1
        self.lose()

    def lose_unsent(self) -> None:
        self.records.conn.connection_lost("gone")
        self.hand_out_events()

    def hand_out_events(self) -> None:
        for event in self.records.conn.events():
            self.records.on_event(event)


HAPPEN: Final[dict[str, Callable[[Journey], object]]] = {
    "submit": Journey.submit,
    "no server left": lambda journey: Dispatch([journey.job], NOWHERE, 0.0).plan(0.0),
    "out of time": lambda journey: Dispatch([journey.job], NOWHERE, 0.0).stop(),
    "JOB_CREATED": lambda journey: journey.receive(JobCreated(H)),
    "JOB_CREATED (background)": lambda journey: journey.receive(JobCreated(H)),
    "ERROR": lambda journey: journey.receive(Error(b"QUEUE_FULL", b"")),
    "connection lost, nothing sent": Journey.lose_unsent,
    "connection lost": Journey.lose,
    "connection lost (resubmit)": Journey.lose_once_more,
    "progress, data, warning": lambda journey: journey.receive(WorkData(H, b"piece")),
    "end of the job": lambda journey: journey.receive(WorkComplete(H, b"result")),
    "retry": lambda journey: journey.job.prepare_retry(NOWHERE),
    "give up": lambda journey: journey.job.give_up(),
}


def way_to(state: JobState) -> list[str]:
    """Return the causes that lead a new job to a state, by moves that all jobs of its kind make."""
    if state is JobState.UNSENT:
        return []
    return {
        JobState.SENT: ["submit"],
        JobState.QUEUED: ["submit", "JOB_CREATED"],
        JobState.RETRYABLE: ["out of time"],
    }[state]


@pytest.mark.parametrize("move", JOB_MOVES, ids=lambda move: f"{move.before.value}: {move.cause}")
def test_job_makes_every_move_of_the_table(move: JobMove) -> None:
    journey = Journey(background="background" in move.cause, resubmit="resubmit" in move.cause)
    for cause in way_to(move.before):
        journey.move(cause)
    assert journey.job.state is move.before
    assert journey.move(move.cause) == move


@given(st.booleans(), st.booleans(), st.data())
def test_job_makes_no_move_that_is_not_in_the_table(background: bool, resubmit: bool, data: st.DataObject) -> None:
    journey = Journey(background=background, resubmit=resubmit)
    for _step in range(data.draw(st.integers(0, 30))):
        if not (causes := journey.causes):
            break
        assert journey.move(data.draw(st.sampled_from(causes))) in JOB_MOVES


def test_job_that_a_server_has_taken_or_that_has_ended_moves_no_more() -> None:
    final = set(JobState) - {move.before for move in JOB_MOVES}
    assert final == {JobState.TAKEN, JobState.ENDED}
