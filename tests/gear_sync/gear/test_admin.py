"""Requests of the text protocol."""

from __future__ import annotations

import pytest

from gear_sync import gear

ROWS: list[tuple[type[gear.AdminRequest], bytes]] = [
    (gear.StatusAdminRequest, b"status\n"),
    (gear.ShowJobsAdminRequest, b"show jobs\n"),
    (gear.ShowUniqueJobsAdminRequest, b"show unique jobs\n"),
    (gear.WorkersAdminRequest, b"workers\n"),
]


@pytest.mark.parametrize(("kind", "command"), ROWS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_rows_end_at_a_dot(kind: type[gear.AdminRequest], command: bytes, end: bytes) -> None:
    request = kind()
    assert request.getCommand() == command
    answer = b"a." + end + b"." + end
    assert request.isComplete(answer[:-1]) == (False, None)
    assert request.response is None
    assert request.isComplete(answer + b"rest") == (True, b"rest")
    assert request.response == answer


def test_an_error_ends_rows_too() -> None:
    request = gear.StatusAdminRequest()
    assert request.isComplete(b"ERR no\nrest") == (True, b"rest")
    assert request.response == b"ERR no\n"
    assert gear.StatusAdminRequest().isComplete(b"row\nERR row\n") == (False, None)


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (gear.CancelJobAdminRequest("H:1"), b"cancel job H:1\n"),
        (gear.CancelJobAdminRequest(b"H:1"), b"cancel job H:1\n"),
        (gear.VersionAdminRequest(), b"version\n"),
    ],
)
def test_one_line_ends_at_its_end(request_: gear.AdminRequest, command: bytes) -> None:
    assert request_.getCommand() == command
    assert request_.isComplete(b"OK") == (False, None)
    assert request_.isComplete(b"OK 1\r\nrest") == (True, b"rest")
    assert request_.response == b"OK 1\r\n"


def test_lines_come_one_by_one() -> None:
    rows, line = gear.StatusAdminRequest(), gear.VersionAdminRequest()
    assert [rows.receive(part) for part in (b"a\n", b".\n")] == [False, True]
    assert rows.response == b"a\n.\n"
    error = gear.StatusAdminRequest()
    assert error.receive(b"ERR no\r\n")
    assert error.response == b"ERR no\r\n"
    assert line.receive(b"OK 1\n")
    assert line.response == b"OK 1\n"


def test_waiting() -> None:
    request = gear.VersionAdminRequest()
    assert not request.waitForResponse(0)
    request.setComplete()
    assert request.waitForResponse(0)


def test_the_base_cannot_be_used_itself() -> None:
    with pytest.raises(NotImplementedError):
        gear.AdminRequest()


def test_description() -> None:
    request = gear.CancelJobAdminRequest("H:1")
    assert repr(request) == f"<gear.AdminRequest 0x{id(request):x} command: b'cancel job'>"
    assert (request.command, request.arguments) == (b"cancel job", (b"H:1",))


def test_a_server_gets_lines() -> None:
    request = gear.ServerAdminRequest(gear.Connection("localhost", 1))
    assert request.isComplete(b"sta") == (False, None)
    assert request.isComplete(b"status\nversion\n") == (True, b"version\n")
    assert request.command == b"status"
