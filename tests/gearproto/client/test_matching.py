"""Which submission each copy of a report is for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gearproto.client import ReportMatcher

H = b"H:1"
END = "end"

Matcher = ReportMatcher[int, str]


def submitted(count: int) -> Matcher:
    """Return a matcher with this many submissions that await their answers."""
    matcher: Matcher = ReportMatcher(lambda report: report == END)
    for _ in range(count):
        matcher.submitted()
    return matcher


def created(*submissions: int) -> Matcher:
    """Return a matcher with submissions that share a job."""
    matcher = submitted(len(submissions))
    for submission in submissions:
        assert list(matcher.created(H, submission)) == []
    return matcher


@given(st.integers(1, 4), st.integers(0, 9))
def test_copies_go_to_the_submissions_of_a_job_in_turn(count: int, copies: int) -> None:
    matcher = created(*range(count))
    assert [matcher.piece(H) for _ in range(copies)] == [copy % count for copy in range(copies)]


@given(st.integers(1, 4))
def test_end_is_for_all_submissions_once_and_its_other_copies_are_known(count: int) -> None:
    matcher = created(*range(count))
    assert list(matcher.end(H)) == list(range(count))
    assert [matcher.repeated(H) for _ in range(count)] == [True] * (count - 1) + [False]
    assert list(matcher.end(H)) == []
    assert matcher.piece(H) is None
    assert matcher.lose() == []


@given(st.integers(1, 4), st.integers(0, 3))
def test_each_submission_takes_its_copies_of_reports_that_came_before_any_was_created(count: int, pieces: int) -> None:
    matcher = submitted(count)
    reports = [*map(str, range(pieces)), END]
    for report in reports:
        for _ in range(count):
            matcher.keep(H, report, 10)
    assert matcher.early_size == 10 * count * len(reports)
    for submission in range(count):
        assert list(matcher.created(H, submission)) == reports
        assert list(matcher.end(H)) == [submission]
    assert (matcher.early_size, matcher.awaiting) == (0, False)


def test_first_submission_takes_reports_up_to_the_first_end_where_others_lack_copies() -> None:
    matcher = submitted(2)
    for report in ("only one copy", "1", "1", END, END):
        matcher.keep(H, report, 1)
    assert list(matcher.created(H, 1)) == ["only one copy", "1", "1", END]
    assert list(matcher.end(H)) == [1]
    assert list(matcher.created(H, 2)) == [END]


def test_early_reports_are_dropped_once_the_submissions_that_were_open_are_answered() -> None:
    matcher = submitted(2)
    matcher.keep(H, "early", 5)
    matcher.created(b"other", 1)
    assert (matcher.early_size, matcher.awaiting) == (5, True)
    matcher.submitted()
    matcher.refused()
    assert (matcher.early_size, matcher.awaiting) == (0, True)
    assert list(matcher.created(H, 3)) == []


def test_copies_of_an_end_are_forgotten_once_nothing_awaits_its_answer() -> None:
    matcher = created(1, 2)
    matcher.submitted()
    matcher.end(H)
    matcher.refused()
    assert not matcher.repeated(H)


def test_what_is_open_is_lost_once() -> None:
    matcher = created(1, 2)
    matcher.submitted()
    matcher.keep(b"early", "early", 5)
    assert matcher.lose() == [(H, 1), (H, 2)]
    assert matcher.lose() == []
    assert (matcher.early_size, matcher.awaiting, matcher.piece(H)) == (0, False, None)
