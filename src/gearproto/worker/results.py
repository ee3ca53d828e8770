"""How a job ends: turns what its function returned, yielded or raised into an outcome."""

from __future__ import annotations

from collections.abc import Iterator
from types import CoroutineType

from gearproto.errors import JobFailed
from gearproto.outcomes import Completed, Failed, Raised

__all__ = ["completed", "described", "ended_by", "is_failure", "is_interrupt", "piece", "raised", "timed_out"]


def timed_out(timeout: float) -> Raised:
    """Return the outcome of a job that has taken longer than the timeout of its function."""
    return raised(TimeoutError(f"the job has taken longer than {timeout:g} s"))


def completed(function: bytes, result: object) -> Completed:
    """Return the outcome of a job whose function has returned.

    Args:
        function: its name.
        result: what it has returned: bytes, another object with the buffer interface, or None for no bytes.

    Raises:
        TypeError: the result is something else.
    """
    if result is None:
        return Completed(b"")
    return Completed(_bytes(function, result, "returned", "a result has to be bytes or None"))


def piece(function: bytes, data: object) -> bytes:
    """Return a piece of a result that a function has yielded.

    Raises:
        TypeError: it is neither bytes nor another object with the buffer interface.
    """
    return _bytes(function, data, "yielded", "a piece has to be bytes")


def _bytes(function: bytes, value: object, did: str, rule: str) -> bytes:
    if type(value) is bytes:
        return value
    try:
        return bytes(memoryview(value))  # type: ignore[arg-type]
    except TypeError:
        if isinstance(value, CoroutineType):
            value.close()  # otherwise Python warns that nobody has awaited it
        name = function.decode("utf-8", "backslashreplace")
        raise TypeError(f"{name} {did} {type(value).__name__}; {rule}") from None


def ended_by(error: BaseException) -> Failed | Raised:
    """Return the outcome of a job whose function has raised.

    `JobFailed` is a failure, and so is a group that contains nothing else, as raised by tasks of a function. Anything
    else is an exception.
    """
    return Failed() if is_failure(error) else raised(error)


def is_failure(error: BaseException) -> bool:
    """Tell whether an exception is `JobFailed`, or a group of nothing else."""
    return all(issubclass(type(part), JobFailed) for part in _parts(error))


def raised(error: BaseException) -> Raised:
    """Return the end of a job with an exception, told by its type and message."""
    return Raised(described(error).encode("utf-8", "backslashreplace"))


def described(error: BaseException) -> str:
    """Return the type and the message of an exception; only the type if the message cannot be formatted."""
    name = type(error).__name__
    try:
        return "".join((name, ": ", str(error)))
    except BaseException:  # whatever `__str__` raises must end the job, and not the worker
        return name


def is_interrupt(error: BaseException) -> bool:
    """Tell whether an exception is KeyboardInterrupt, or a group with one in it."""
    return any(isinstance(part, KeyboardInterrupt) for part in _parts(error))


def _parts(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group and of the groups in it; or the exception itself if it is not a group."""
    left = [error]
    while left:
        error = left.pop()
        if isinstance(error, BaseExceptionGroup):
            left += error.exceptions
        else:
            yield error
