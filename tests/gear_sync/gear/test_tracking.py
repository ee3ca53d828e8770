"""Which jobs reports are about."""

from __future__ import annotations

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gear_sync.gear.tracking import JobTracker


def report(ptype: int, handle: bytes = b"H", data: bytes = b"") -> gear.Packet:
    return gear.Packet(constants.RES, ptype, handle + b"\0" + data)


def submitted(count: int = 1) -> JobTracker:
    tracker = JobTracker()
    for _ in range(count):
        tracker.submitted()
    return tracker


def jobs_of(tracker: JobTracker, packet: gear.Packet) -> list[gear.Job]:
    return [delivery.getJob() for delivery in tracker.route(packet)]


def test_copies_of_a_report_go_round_those_who_share_a_job_and_its_end_goes_to_all() -> None:
    tracker = submitted(3)
    jobs = [gear.Job("f", b"") for _ in range(3)]
    for job in jobs:
        tracker.created(b"H", job, background=False)
    for _ in range(2):
        assert [jobs_of(tracker, report(constants.WORK_DATA))[0] for _ in range(3)] == jobs
    assert jobs_of(tracker, report(constants.WORK_COMPLETE)) == jobs
    assert [jobs_of(tracker, report(constants.WORK_COMPLETE)) for _ in range(2)] == [[], []]
    unknown = report(constants.WORK_COMPLETE)
    assert tracker.route(unknown) == [unknown]


@pytest.mark.parametrize("ptype", [constants.WORK_FAIL, constants.WORK_COMPLETE])
def test_only_a_failure_behind_an_exception_is_dropped(ptype: int) -> None:
    tracker = submitted()
    job = gear.Job("f", b"")
    tracker.created(b"H", job, background=False)
    assert jobs_of(tracker, report(constants.WORK_EXCEPTION)) == [job]
    second = report(ptype)
    assert tracker.route(second) == ([] if ptype == constants.WORK_FAIL else [second])


def test_early_reports_wait_for_their_job_and_no_longer_than_for_the_last_submission() -> None:
    tracker = submitted(2)
    early = [report(constants.WORK_DATA), report(constants.WORK_DATA, b"other"), report(constants.WORK_COMPLETE)]
    for packet in early:
        assert tracker.route(packet) == []
    assert tracker.created(b"H", gear.Job("f", b""), background=False) == [early[0], early[2]]
    tracker.refused()
    tracker.submitted()
    assert tracker.created(b"other", gear.Job("f", b""), background=False) == []


def test_each_submission_that_shares_a_job_gets_a_copy_of_early_reports() -> None:
    tracker = submitted(2)
    data, end = report(constants.WORK_DATA), report(constants.WORK_COMPLETE)
    for packet in (data, data, end, end):
        assert tracker.route(packet) == []
    for _ in range(2):
        job = gear.Job("f", b"")
        early = tracker.created(b"H", job, background=False)
        assert early == [data, end]
        assert [jobs_of(tracker, packet) for packet in early] == [[job], [job]]


def test_early_reports_take_limited_memory() -> None:
    tracker = JobTracker(max_early_size=10)
    tracker.submitted()
    packet = report(constants.WORK_DATA, data=bytes(20))
    assert tracker.route(packet) == []
    assert tracker.route(packet) == [packet]


def test_background_jobs_are_known_as_long_as_somebody_has_them() -> None:
    tracker = JobTracker()
    job = gear.Job("f", b"")
    assert tracker.created(b"H", job, background=True) == []
    assert tracker.known[b"H"] is job
    del job
    assert b"H" not in tracker.known


def test_losing_a_server_ends_foreground_jobs_only() -> None:
    tracker = submitted()
    foreground, background = gear.Job("f", b""), gear.Job("f", b"")
    tracker.created(b"H:1", background, background=True)
    tracker.created(b"H:2", foreground, background=False)
    assert tracker.lose() == [foreground, background]
    assert (foreground.complete, foreground.failure, background.complete) == (True, True, False)
    assert len(tracker.known) == 0
    assert tracker.lose() == []
