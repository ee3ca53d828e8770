"""What users see of a job is what its record knows."""

from __future__ import annotations

from gearproto.addresses import Address
from gearproto.client import Candidates, JobHandle, JobRecord, JobRequest, record_of
from gearproto.client.job_view import JobView
from gearproto.events import JobEnded, JobQueued, Progress, RequestId
from gearproto.outcomes import Completed

ONE = RequestId(1)
SERVER = Address("a")


def test_view_shows_what_the_record_knows() -> None:
    record = JobRecord(JobRequest("f", b"w", "u").packet(), Candidates((), ()))
    view: JobView[bytes] = JobView(record)
    assert record_of(view) is record
    assert (view.function, view.unique) == (b"f", b"u")
    assert (view.handle, view.server, view.outcome, view.progress) == (None, None, None, None)
    record.server = SERVER
    for event in (JobQueued(ONE, b"H:1"), Progress(ONE, 1, 2), JobEnded(ONE, b"H:1", Completed(b"r"))):
        record.on_event(event)
    assert (view.handle, view.server) == (JobHandle(b"H:1", SERVER), SERVER)
    assert (view.outcome, view.progress) == (Completed(b"r"), (1, 2))
    assert str(view) == str(record) == "job 'f' (unique u, handle H:1)"
    assert repr(view) == f"<JobView {record.shown()}>"


def test_result_is_decoded_if_the_function_is_typed() -> None:
    record = JobRecord(JobRequest("f").packet(), Candidates((), ()))
    record.end(Completed(b"12"))
    plain: JobView[bytes] = JobView(record)
    assert plain._result() == b"12"
    assert JobView(record, int)._result() == 12
