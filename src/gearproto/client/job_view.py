"""What users see of a submitted job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from gearproto.addresses import Address
from gearproto.outcomes import Outcome

from .job_request import JobHandle
from .jobs import JobRecord

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    _R_co = TypeVar("_R_co", covariant=True, default=bytes)
else:
    from typing import TypeVar

    _R_co = TypeVar("_R_co", covariant=True)

__all__ = ["JobView", "record_of"]


class JobView(Generic[_R_co]):
    """What is known of a submitted job, and its result; `gear_sync.Job` and `gear_anyio.Job` can wait for it too."""

    __slots__ = ("_decode", "_record")

    def __init__(self, record: JobRecord, decode: Callable[[bytes], _R_co] | None = None) -> None:
        """Show a record.

        Args:
            record: what is known of the job.
            decode: makes the result of its bytes; None for the bytes themselves.
        """
        self._record = record
        self._decode = decode

    def __repr__(self) -> str:
        """Show function, state, handle and outcome."""
        return f"<{type(self).__name__} {self._record.shown()}>"

    def __str__(self) -> str:
        """Name the job, for messages."""
        return str(self._record)

    @property
    def function(self) -> bytes:
        """Name of the function that runs the job."""
        return self._record.function

    @property
    def unique(self) -> bytes:
        """The caller's own name for the job; may be empty."""
        return self._record.unique

    @property
    def handle(self) -> JobHandle | None:
        """The server's name for the job; None until the server has sent it."""
        return self._record.handle

    @property
    def server(self) -> Address | None:
        """Where the job was submitted; None until it was."""
        return self._record.server

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended; None as long as that is not known."""
        return self._record.outcome

    @property
    def progress(self) -> tuple[int, int] | None:
        """The latest progress, as units done and units in all; None before the first."""
        return self._record.progress

    def _result(self) -> _R_co:
        """Return the result of a job that has ended; raises as `JobRecord.result_data`."""
        data = self._record.result_data()
        return data if self._decode is None else self._decode(data)  # type: ignore[return-value]  # then it is bytes


def record_of(job: JobView[object]) -> JobRecord:
    """Return what a client knows of a job."""
    return job._record
