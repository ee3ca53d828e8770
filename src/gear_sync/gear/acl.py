"""Who may register, invoke and grant what: access control by the subjects of client certificates (``gear.acl``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import gearproto

from .text import convert_to_bytes

if TYPE_CHECKING:
    Pattern = str | bytes

__all__ = ["ACL", "ACLEntry", "ACLError"]


class ACLError(gearproto.GearmanError):
    """An entry exists already, or does not, or a pattern is not a valid regular expression."""


def _compiled(pattern: Pattern | None) -> re.Pattern[bytes] | None:
    """Prepare a pattern; none and an empty one permit nothing."""
    if not pattern:
        return None
    try:
        return re.compile(convert_to_bytes(pattern))
    except re.error as error:
        raise ACLError(f"{pattern!r} is not a valid regular expression: {error}") from error


def _permits(pattern: re.Pattern[bytes] | None, name: str | bytes) -> bool:
    return pattern is not None and pattern.match(convert_to_bytes(name)) is not None


class ACLEntry:
    """What one subject may do. Patterns are regular expressions which the beginning of a name has to match.

    Attributes:
        subject: common name in the subject's certificate.
        register: pattern of the functions that it may register as a worker; None for none.
        invoke: pattern of the functions whose jobs it may submit and cancel; None for none.
        grant: whether it may change the list.
    """

    def __init__(
        self, subject: str, register: Pattern | None = None, invoke: Pattern | None = None, grant: bool = False
    ) -> None:
        """Make an entry.

        Raises:
            ACLError: a pattern is not a valid regular expression.
        """
        self.subject = subject
        self.setRegister(register)
        self.setInvoke(invoke)
        self.setGrant(grant)

    def __repr__(self) -> str:
        return f"<ACLEntry for {self.subject} register={self.register!s} invoke={self.invoke!s} grant={self.grant}>"

    def isEmpty(self) -> bool:
        """Tell whether the entry permits nothing."""
        return not (self.register or self.invoke or self.grant)

    def canRegister(self, name: str | bytes) -> bool:
        """Tell whether the subject may register a function."""
        return _permits(self._register, name)

    def canInvoke(self, name: str | bytes) -> bool:
        """Tell whether the subject may submit jobs of a function."""
        return _permits(self._invoke, name)

    def setRegister(self, register: Pattern | None) -> None:
        """Say which functions the subject may register.

        Raises:
            ACLError: the pattern is not a valid regular expression; the entry stays as it was.
        """
        self._register = _compiled(register)
        self.register = register

    def setInvoke(self, invoke: Pattern | None) -> None:
        """Say of which functions the subject may submit jobs.

        Raises:
            ACLError: the pattern is not a valid regular expression; the entry stays as it was.
        """
        self._invoke = _compiled(invoke)
        self.invoke = invoke

    def setGrant(self, grant: bool) -> None:
        """Say whether the subject may change the list."""
        self.grant = grant


class ACL:
    """An access control list. A subject that is not in it may do nothing.

    Attributes:
        subjects: the entries by subject.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.subjects: dict[str, ACLEntry] = {}

    def add(self, entry: ACLEntry) -> None:
        """Add an entry.

        Raises:
            ACLError: its subject has one.
        """
        if entry.subject in self.subjects:
            raise ACLError(f"there is an entry for {entry.subject} already")
        self.subjects[entry.subject] = entry

    def remove(self, subject: str) -> None:
        """Remove an entry.

        Raises:
            ACLError: there is none.
        """
        if subject not in self.subjects:
            raise ACLError(f"there is no entry for {subject}")
        del self.subjects[subject]

    def getEntries(self) -> list[ACLEntry]:
        """Return all entries, sorted by subject."""
        return sorted(self.subjects.values(), key=lambda entry: entry.subject)

    def canRegister(self, subject: str | None, name: str | bytes) -> bool:
        """Tell whether a subject, None for a peer without a certificate, may register a function."""
        entry = self._find(subject)
        return entry is not None and entry.canRegister(name)

    def canInvoke(self, subject: str | None, name: str | bytes) -> bool:
        """Tell whether a subject, None for a peer without a certificate, may submit jobs of a function."""
        entry = self._find(subject)
        return entry is not None and entry.canInvoke(name)

    def canGrant(self, subject: str | None) -> bool:
        """Tell whether a subject, None for a peer without a certificate, may change the list."""
        entry = self._find(subject)
        return entry is not None and entry.grant

    def grantRegister(self, subject: str, register: Pattern) -> None:
        """Let a subject register functions.

        Raises:
            ACLError: the pattern is not a valid regular expression.
        """
        self._grant(subject, lambda entry: entry.setRegister(register))

    def grantInvoke(self, subject: str, invoke: Pattern) -> None:
        """Let a subject submit jobs.

        Raises:
            ACLError: the pattern is not a valid regular expression.
        """
        self._grant(subject, lambda entry: entry.setInvoke(invoke))

    def grantGrant(self, subject: str) -> None:
        """Let a subject change the list."""
        self._grant(subject, lambda entry: entry.setGrant(True))

    def revokeRegister(self, subject: str) -> None:
        """Let a subject register nothing any more."""
        if (entry := self._find(subject)) is not None:
            entry.setRegister(None)
            self._drop_if_empty(entry)

    def revokeInvoke(self, subject: str) -> None:
        """Let a subject submit nothing any more."""
        if (entry := self._find(subject)) is not None:
            entry.setInvoke(None)
            self._drop_if_empty(entry)

    def revokeGrant(self, subject: str) -> None:
        """Let a subject change the list no more."""
        if (entry := self._find(subject)) is not None:
            entry.setGrant(False)
            self._drop_if_empty(entry)

    def _find(self, subject: str | None) -> ACLEntry | None:
        return None if subject is None else self.subjects.get(subject)

    def _grant(self, subject: str, change: Callable[[ACLEntry], None]) -> None:
        entry = self.subjects.get(subject) or ACLEntry(subject)
        change(entry)
        self.subjects[subject] = entry

    def _drop_if_empty(self, entry: ACLEntry) -> None:
        if entry.isEmpty():
            self.remove(entry.subject)
