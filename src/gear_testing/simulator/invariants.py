"""The promises that a simulation checks, each under its name."""

from __future__ import annotations

from enum import Enum

__all__ = ["Invariant", "Violation"]


class Invariant(Enum):
    """A promise. Its value says what holds."""

    JOB_KEPT = "a job that the server has acknowledged is queued, delayed or running until it ends"
    ONE_END = "a job ends once, and each submission of it gets exactly one end"
    ONE_OWNER = "a job is in the hands of one worker at a time"
    COUNTS = "the server counts the jobs, workers and connections that there are"
    WAKE_UP = "where a worker sleeps and a job waits that it could run, somebody has been woken for the job"
    ANSWERS = "every request is answered as it should be, in the order of the requests"
    RETRIES = "a job whose workers were lost runs again as often as allowed, and then it fails"
    TRUE_RESULT = "what a client is told is what a worker has reported on that job"
    NOT_SENT = "a submission that counts as not sent has reached no server"
    NO_FAULT = "no party raises, and none is cut off that keeps to the protocol"
    DRAINS = "once the faults end, every submission comes to its end"


class Violation(AssertionError):
    """A promise is broken.

    Attributes:
        invariant: which.
        details: what was seen.
    """

    def __init__(self, invariant: Invariant, details: str) -> None:
        """Build the message."""
        super().__init__(f"{invariant.name}: {details}\n  The promise: {invariant.value}.")
        self.invariant = invariant
        self.details = details
