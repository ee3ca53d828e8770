"""Sets of function names that programs may change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gear_sync.gear.text import convert_to_bytes

__all__ = ["FunctionSet"]


class FunctionSet(set[bytes]):
    """Names of functions. The server learns what a program adds or removes, and acts on it."""

    _changed: Callable[[set[bytes], set[bytes]], object] | None = None  # as in copies, which are made without __init__

    def __init__(self, changed: Callable[[set[bytes], set[bytes]], object], names: Iterable[bytes] = ()) -> None:
        """Begin.

        Args:
            changed: called with the names that a program has added, and with those that it has removed.
            names: those that are there already.
        """
        super().__init__(names)
        self._changed = changed

    def __reduce__(self) -> tuple[type[set[bytes]], tuple[list[bytes]]]:
        return set, (list(self),)  # copies are sets of the program's own

    def show(self, name: bytes) -> None:
        """Add a name without telling anybody."""
        super().add(name)

    def hide(self, name: bytes) -> None:
        """Remove a name without telling anybody."""
        super().discard(name)

    def replace(self, names: Iterable[str | bytes]) -> None:
        """Let these be all names."""
        wanted = {convert_to_bytes(name) for name in names}
        self._change(lambda: (set.intersection_update(self, wanted), set.update(self, wanted)))

    def _change(self, change: Callable[..., Any], *arguments: Any) -> Any:
        if self._changed is None:
            return change(*arguments)
        before = frozenset(self)
        result = change(*arguments)
        self._changed(set(self - before), set(before - self))
        return result

    def add(self, name: str | bytes, /) -> None:
        """Add a name."""
        self._change(super().add, convert_to_bytes(name))

    def discard(self, name: object, /) -> None:
        """Remove a name if it is there."""
        self._change(super().discard, convert_to_bytes(name))

    def remove(self, name: str | bytes, /) -> None:
        """Remove a name.

        Raises:
            KeyError: it is not there.
        """
        self._change(super().remove, convert_to_bytes(name))

    def pop(self) -> bytes:
        """Remove and return any name.

        Raises:
            KeyError: there is none.
        """
        name: bytes = self._change(super().pop)
        return name

    def clear(self) -> None:
        """Remove all names."""
        self._change(super().clear)

    def update(self, *others: Iterable[Any]) -> None:
        """Add names."""
        self._change(super().update, *others)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove names."""
        self._change(super().difference_update, *others)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Remove all names but those that the others have."""
        self._change(super().intersection_update, *others)

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        """Remove the names that the other has, and add those that only it has."""
        self._change(super().symmetric_difference_update, other)

    def __ior__(self, other: Any) -> FunctionSet:  # type: ignore[override,misc]
        self._change(super().__ior__, other)
        return self

    def __isub__(self, other: Any) -> FunctionSet:  # type: ignore[misc]
        self._change(super().__isub__, other)
        return self

    def __iand__(self, other: Any) -> FunctionSet:  # type: ignore[misc]
        self._change(super().__iand__, other)
        return self

    def __ixor__(self, other: Any) -> FunctionSet:  # type: ignore[override,misc]
        self._change(super().__ixor__, other)
        return self
