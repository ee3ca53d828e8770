"""Asks several servers about a job at once, so that one that hangs holds no other up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gearproto import ClientConnection, ConnectionLost
from gearproto.client import NO_ANSWER, Answer, JobRecord, OpenRequests, unreachable
from gearproto.events import RequestId, StatusReceived

from .client_session import ClientSession

__all__ = ["Question"]

_NEVER: Final = float("inf")


class Question:
    """What one of several servers is asked about a job.

    Attributes:
        session: the server.
        result: its answer, or why there is none; None until that is known.
        due_at: monotonic time in seconds at which to `advance` even if nothing has `moved`.
    """

    def __init__(
        self, session: ClientSession, request: Callable[[ClientConnection], RequestId], worthwhile: float
    ) -> None:
        """Begin without having asked.

        Args:
            session: the server.
            request: queues the request.
            worthwhile: monotonic time in seconds until which it is worth waiting for a server that failed lately.
        """
        self.session = session
        self.result: StatusReceived | Exception | None = None
        self.due_at = _NEVER
        self._request = request
        self._worthwhile = worthwhile
        self._answer = Answer()
        self._dialed = False
        self._awaits_dial = False

    def ask(self, records: OpenRequests[JobRecord]) -> None:
        """Queue the request on a connection to the server."""
        records.ask(self._request, self._answer)

    @property
    def moved(self) -> bool:
        """Whether there is something to `advance`."""
        if self._answer.records is not None:
            return self._answer.event is not None
        return self.session.connected or (self._awaits_dial and not self.session.dialing)

    def advance(
        self,
        use: Callable[[ClientSession, Callable[[OpenRequests[JobRecord]], None]], bool],
        dial: Callable[[ClientSession], None],
    ) -> None:
        """Do what can be done without waiting.

        Args:
            use: makes a call to a session's connection, if there is one; returns whether there is.
            dial: begins to connect a session.
        """
        self.due_at = _NEVER
        if self._answer.records is not None:
            self._take_answer(self._answer.records)
        elif self.session.dialing:
            self._awaits_dial = True
        elif not use(self.session, self.ask):
            self._reach(dial)

    def _take_answer(self, records: OpenRequests[JobRecord]) -> None:
        if self._answer.event is not None:
            try:
                self.result = records.status(self._answer.event)
            except NO_ANSWER as error:  # told if no other server knows the job
                self.result = error

    def _reach(self, dial: Callable[[ClientSession], None]) -> None:
        """Connect, once; later if the server has failed lately."""
        self._awaits_dial = False
        retry_at = self.session.retry_at
        if self._dialed or retry_at > self._worthwhile:
            failure = self.session.failure
            self.result = ConnectionLost(unreachable([(self.session.address, failure)] if failure else []))
        elif retry_at > time.monotonic():
            self.due_at = retry_at
        else:
            self._dialed = self._awaits_dial = True
            dial(self.session)
            self.due_at = 0.0  # it may have been reached, or not, by now
