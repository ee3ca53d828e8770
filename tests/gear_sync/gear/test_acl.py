"""Access control lists by themselves."""

from __future__ import annotations

import pytest

from gear_sync import gear


def test_an_entry_permits_what_its_patterns_match_at_the_start() -> None:
    entry = gear.ACLEntry("s", register="foo", invoke=b"b(a|e)r")
    assert entry.canRegister("foobar")
    assert entry.canRegister(b"foo")
    assert not entry.canRegister("a foo")
    assert entry.canInvoke("ber")
    assert not entry.canInvoke("bir")
    assert repr(entry) == "<ACLEntry for s register=foo invoke=b'b(a|e)r' grant=False>"


def test_patterns_may_be_named() -> None:
    acl = gear.ACL()
    acl.grantRegister("s", register="f")
    acl.grantInvoke("s", invoke="g")
    entry = acl.subjects["s"]
    assert (entry.register, entry.invoke) == ("f", "g")
    acl.grantRegister("s", register="")
    assert (entry.register, entry.invoke) == ("", "g")
    entry.setRegister(register="h")
    entry.setInvoke(invoke=None)
    assert (entry.register, entry.invoke) == ("h", None)


@pytest.mark.parametrize("pattern", [None, "", b""])
def test_no_pattern_permits_nothing(pattern: str | bytes | None) -> None:
    entry = gear.ACLEntry("s", pattern, pattern)
    assert not entry.canRegister("")
    assert not entry.canInvoke("anything")
    assert entry.isEmpty()


def test_entries_are_empty_only_without_any_right() -> None:
    for entry in (gear.ACLEntry("s", register="x"), gear.ACLEntry("s", invoke="x"), gear.ACLEntry("s", grant=True)):
        assert not entry.isEmpty()


def test_a_bad_pattern_changes_nothing() -> None:
    entry = gear.ACLEntry("s", register="foo", invoke="foo")
    for change in (entry.setRegister, entry.setInvoke):
        with pytest.raises(gear.ACLError, match="not a valid regular expression"):
            change("(")
    assert (entry.register, entry.invoke) == ("foo", "foo")
    assert entry.canRegister("foo")
    with pytest.raises(gear.ACLError):
        gear.ACLEntry("s", register="(")


def test_a_list_denies_by_default() -> None:
    acl = gear.ACL()
    acl.add(gear.ACLEntry("s", "r", "i", True))
    assert acl.canRegister("s", "r")
    assert acl.canInvoke("s", b"i")
    assert acl.canGrant("s")
    for subject in (None, "stranger"):
        assert not acl.canRegister(subject, "r")
        assert not acl.canInvoke(subject, "i")
        assert not acl.canGrant(subject)


def test_entries_come_and_go_once() -> None:
    acl = gear.ACL()
    for subject in ("b", "a"):
        acl.add(gear.ACLEntry(subject, grant=True))
    with pytest.raises(gear.ACLError, match="already"):
        acl.add(gear.ACLEntry("a"))
    assert [entry.subject for entry in acl.getEntries()] == ["a", "b"]
    acl.remove("a")
    with pytest.raises(gear.ACLError, match="no entry"):
        acl.remove("a")
    assert list(acl.subjects) == ["b"]


def test_rights_are_granted_and_revoked_one_by_one() -> None:
    acl = gear.ACL()
    acl.grantRegister("s", "r")
    acl.grantInvoke("s", "i")
    acl.grantGrant("s")
    acl.grantRegister("s", "r2")
    assert (acl.canRegister("s", "r2"), acl.canInvoke("s", "i"), acl.canGrant("s")) == (True, True, True)
    acl.revokeRegister("s")
    acl.revokeInvoke("s")
    assert not acl.canRegister("s", "r2")
    assert list(acl.subjects) == ["s"]
    acl.revokeGrant("s")
    assert acl.subjects == {}
    for revoke in (acl.revokeRegister, acl.revokeInvoke, acl.revokeGrant):
        revoke("nobody")


def test_a_right_that_cannot_be_granted_leaves_no_entry() -> None:
    acl = gear.ACL()
    with pytest.raises(gear.ACLError):
        acl.grantRegister("s", "(")
    assert acl.subjects == {}
