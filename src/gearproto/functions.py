"""Functions with types: one declaration says how callers and workers turn values into bytes.

    resize = Function("resize", takes=JSON, returns=TEXT)

Workers ``serve`` it, clients ``call`` it. On the wire there is nothing but the encoded value, so that programs in other
languages, and those that use no declarations, can do either.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from .errors import GearmanError

__all__ = ["BYTES", "JSON", "TEXT", "Codec", "CodecError", "Function", "structured"]

_T = TypeVar("_T")
_A = TypeVar("_A")
_R = TypeVar("_R")


class CodecError(GearmanError, ValueError):
    """A value cannot be encoded, or bytes cannot be decoded; the message names the function and what is wrong."""


class Codec(Generic[_T]):
    """Turns values of one type into bytes, and back.

    Attributes:
        name: its name in messages.
    """

    __slots__ = ("_decode", "_encode", "name")

    def __init__(self, name: str, encode: Callable[[_T], bytes], decode: Callable[[bytes], _T]) -> None:
        """Build a codec from two functions.

        Args:
            name: its name in messages.
            encode: turns a value into bytes; raises ValueError or TypeError if it cannot.
            decode: turns bytes into a value; raises ValueError or TypeError if it cannot.
        """
        self.name = name
        self._encode = encode
        self._decode = decode

    def encode(self, value: _T, what: str = "value") -> bytes:
        """Return a value as bytes.

        Args:
            value: the value.
            what: what it is, for the message of an error.

        Raises:
            CodecError: it cannot be encoded.
        """
        try:
            return self._encode(value)
        except (ValueError, TypeError) as error:
            raise CodecError(f"{what} cannot be written as {self.name}: {error}") from error

    def decode(self, data: bytes, what: str = "value") -> _T:
        """Return the value of bytes.

        Args:
            data: the bytes.
            what: what they are, for the message of an error.

        Raises:
            CodecError: they cannot be decoded.
        """
        try:
            return self._decode(data)
        except (ValueError, TypeError) as error:
            raise CodecError(f"{what} is not valid {self.name}: {error}") from error


def _as_bytes(value: bytes) -> bytes:
    return bytes(memoryview(value))


def _write_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


BYTES: Final[Codec[bytes]] = Codec("bytes", _as_bytes, _as_bytes)
"""Bytes as they are."""

TEXT: Final[Codec[str]] = Codec("UTF-8 text", str.encode, bytes.decode)
"""Text in UTF-8."""

JSON: Final[Codec[Any]] = Codec("JSON", _write_json, json.loads)
"""Whatever JSON can say, in UTF-8."""


def structured(kind: type[_T]) -> Codec[_T]:
    """Return a JSON codec for a type that msgspec supports, such as dataclasses, `msgspec.Struct` and lists of them.

    Decoding checks the types. Needs the extra ``msgspec``.

    Raises:
        ModuleNotFoundError: msgspec is not installed.
        TypeError: msgspec cannot check this type.
    """
    import msgspec  # noqa: PLC0415  (only where it is used)

    name = f"JSON of {getattr(kind, '__name__', kind)}"
    return Codec(name, msgspec.json.encode, msgspec.json.Decoder(kind).decode)


class Function(Generic[_A, _R]):
    """A function's name, and how its values go over the wire.

    Attributes:
        name: what clients call it.
        timeout: seconds that a job of it may take in a worker; None for no limit.
    """

    __slots__ = ("_returns", "_takes", "name", "timeout")

    def __init__(self, name: str, *, takes: Codec[_A], returns: Codec[_R], timeout: float | None = None) -> None:
        """Declare a function.

        Args:
            name: what clients call it.
            takes: the codec of its workload.
            returns: the codec of its result.
            timeout: seconds that a job of it may take in a worker; None for no limit.
        """
        self.name = name
        self.timeout = timeout
        self._takes = takes
        self._returns = returns

    def __repr__(self) -> str:
        """Show name and codecs."""
        return f"<Function {self.name}: {self._takes.name} -> {self._returns.name}>"

    def workload(self, value: _A) -> bytes:
        """Return the workload for a value.

        Raises:
            CodecError: it cannot be encoded.
        """
        return self._takes.encode(value, f"{self.name}: the value")

    def value(self, workload: bytes) -> _A:
        """Return the value of a workload.

        Raises:
            CodecError: it cannot be decoded.
        """
        return self._takes.decode(workload, f"{self.name}: the workload")

    def result_data(self, result: _R) -> bytes:
        """Return the bytes of a result.

        Raises:
            CodecError: it cannot be encoded.
        """
        return self._returns.encode(result, f"{self.name}: the result")

    def result(self, data: bytes) -> _R:
        """Return the result that bytes stand for.

        Raises:
            CodecError: they cannot be decoded.
        """
        return self._returns.decode(data, f"{self.name}: the result")
