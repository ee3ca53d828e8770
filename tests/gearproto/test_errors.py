import pytest

from gearproto import errors


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (b"JOB_NOT_FOUND", b"Job does not exist", "JOB_NOT_FOUND: Job does not exist"),
        (b"QUEUE_ERROR", b"", "QUEUE_ERROR"),
        (b"", b"why", "why"),
        (b"", b"", ""),
        (b"\xff", "é".encode(), "\\xff: é"),
    ],
)
def test_server_error_reads_as_code_and_text(code: bytes, text: bytes, message: str) -> None:
    for cls in (errors.ServerError, errors.JobRejected):
        error = cls(code, text)
        assert str(error) == message
        assert (error.code, error.text) == (code, text)


@pytest.mark.parametrize(("data", "message"), [(b"boom", "boom"), (b"", ""), (b"\x80\xc3\xa9", "\\x80é")])
def test_raised_job_reads_as_its_data(data: bytes, message: str) -> None:
    error = errors.JobRaised(data)
    assert str(error) == message
    assert error.data == data


def test_broken_protocol_carries_the_code_that_the_peer_should_still_get() -> None:
    assert errors.RemoteProtocolError("too large", code=b"PACKET_TOO_LARGE").code == b"PACKET_TOO_LARGE"
    assert errors.RemoteProtocolError("too large").code is None


def test_every_exception_is_a_gearman_error() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.GearmanError)


def test_outcomes_of_jobs_are_caught_together_and_by_their_kind() -> None:
    for cls in (errors.JobFailed, errors.JobRaised, errors.JobRejected, errors.JobNotSent, errors.JobLost):
        assert issubclass(cls, errors.JobError)
    assert issubclass(errors.JobRejected, errors.ServerError)
    assert issubclass(errors.JobLost, errors.ConnectionLost)
    assert not issubclass(errors.JobNotSent, errors.ConnectionLost)
    assert not issubclass(errors.LocalProtocolError, errors.RemoteProtocolError)
