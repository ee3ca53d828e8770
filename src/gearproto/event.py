"""What an event is: a class whose annotations are its fields, cheap to build and compared by value."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

__all__ = ["Event", "event"]

_T = TypeVar("_T", bound=type)

if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    def event(cls: _T, /) -> _T:
        """Make a class an event: its annotations are its fields, read-only to type checkers."""
        return cls

else:

    def event(cls):
        """Make a class an event: a dataclass with slots, compared and hashed by type and value."""
        # Not frozen=True: that makes building an event two to four times slower. Type checkers reject assignment all
        # the same, and the hash is what a frozen class would have.
        # dataclass would compile four methods for each class, 0.2 ms. As there are about a hundred classes, most of the
        # time of `import gearproto` went there. Only `__init__` has to be fast, so only it is compiled.
        cls = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
        defaults = tuple(field.default for field in fields(cls) if field.default is not MISSING)
        init = FunctionType(_init_code(cls.__match_args__), {}, "__init__", defaults)
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        init.__annotations__ = {field.name: field.type for field in fields(cls)} | {"return": None}
        cls.__init__ = init
        cls.__eq__ = _equal
        cls.__hash__ = _hash
        cls.__repr__ = cls.__dict__.get("__repr__", _represent)
        return cls


@cache
def _init_code(names: tuple[str, ...]) -> CodeType:
    """Compile an ``__init__`` that stores its arguments; classes whose fields have the same names share it."""
    body = "; ".join(f"self.{name} = {name}" for name in names) or "pass"
    namespace: dict[str, FunctionType] = {}
    exec(f"def __init__({', '.join(('self', *names))}): {body}", {}, namespace)
    return namespace["__init__"].__code__


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__match_args__)


def _equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _represent(self: Any) -> str:
    pairs = zip(self.__match_args__, _values(self), strict=True)
    return f"{self.__class__.__qualname__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"


class Event:
    """Anything that ``next_event()`` returns."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
