"""Turns arguments of callers into bytes for the wire."""

from __future__ import annotations

from .errors import LocalProtocolError

__all__ = ["as_bytes", "as_payload"]


def as_bytes(name: str | bytes | bytearray) -> bytes:
    """Return a name as it goes over the wire: text as UTF-8, bytes as they are.

    Raises:
        LocalProtocolError: it is neither, or text that UTF-8 cannot hold.
    """
    if isinstance(name, bytes):
        return name
    if isinstance(name, str):
        try:
            return name.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError(f"{name!r} cannot be encoded as UTF-8") from None
    return as_payload("a name", name)


def as_payload(what: str, data: object) -> bytes:
    """Return data as bytes; it may be any object with the buffer interface.

    Args:
        what: names the data in messages.
        data: the data.

    Raises:
        LocalProtocolError: it is not such an object.
    """
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        raise LocalProtocolError(f"{what} has to be bytes, not {type(data).__name__}") from None
