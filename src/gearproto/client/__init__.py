"""The client's side: a connection, the jobs that are submitted over it, and which of several servers they go to."""

from .connection import ClientConnection
from .dispatch import NO_ANSWER, Dispatch, check_submissions, status_of_all, unreachable
from .job_events import Cursor, JobEvent, Resubmitted
from .job_request import DEFAULT_MAX_UNIQUE_SIZE, JobHandle, JobRequest, check_max_unique_size, earliest
from .job_states import JOB_MOVES, JobMove, JobState
from .job_view import JobView, record_of
from .jobs import DEFAULT_RESUBMIT_TIMEOUT, MAX_RESUBMISSIONS, JobRecord, outcome_error
from .matching import ReportMatcher
from .policies import Candidates, Policy, ServerChooser, ServerStanding, Try, WaitUntil
from .requests import Answer, OpenRequests
from .streams import DEFAULT_MAX_UNREAD, Unread
from .submissions import Submission, submission
from .typed import requests_of, unpacked

__all__ = [
    "DEFAULT_MAX_UNIQUE_SIZE",
    "DEFAULT_MAX_UNREAD",
    "DEFAULT_RESUBMIT_TIMEOUT",
    "JOB_MOVES",
    "MAX_RESUBMISSIONS",
    "NO_ANSWER",
    "Answer",
    "Candidates",
    "ClientConnection",
    "Cursor",
    "Dispatch",
    "JobEvent",
    "JobHandle",
    "JobMove",
    "JobRecord",
    "JobRequest",
    "JobState",
    "JobView",
    "OpenRequests",
    "Policy",
    "ReportMatcher",
    "Resubmitted",
    "ServerChooser",
    "ServerStanding",
    "Submission",
    "Try",
    "Unread",
    "WaitUntil",
    "check_max_unique_size",
    "check_submissions",
    "earliest",
    "outcome_error",
    "record_of",
    "requests_of",
    "status_of_all",
    "submission",
    "unpacked",
    "unreachable",
]
