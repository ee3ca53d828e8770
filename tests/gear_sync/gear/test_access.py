"""Access control over mutual TLS: who may register, invoke and grant, and the text commands for it."""

from __future__ import annotations

import pytest

from gear_sync import gear
from tests.harness.gear_api import GearServer, Shop, WatchedClient, tls_files
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT


class Command(gear.AdminRequest):
    """Any command."""

    def __init__(self, line: bytes, *, rows: bool = False) -> None:
        super().__init__()
        self.command = line
        self._end = b".\n" if rows else b"\n"

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        self.response = data
        return (True, b"") if data.endswith(self._end) else (False, None)


def ask(client: gear.BaseClient, line: bytes, *, rows: bool = False) -> bytes:
    request = Command(line, rows=rows)
    client.getConnection().sendAdminRequest(request, timeout=LIMIT)
    assert request.response is not None
    return request.response


@pytest.fixture
def acl() -> gear.ACL:
    acl = gear.ACL()
    acl.add(gear.ACLEntry("boss", grant=True))
    acl.add(gear.ACLEntry("client", invoke="f"))
    acl.add(gear.ACLEntry("worker", register="f"))
    return acl


@pytest.fixture
def guarded(shop: Shop, acl: gear.ACL) -> gear.Server:
    return shop.server(gear.Server(0, *tls_files(), acl=acl))


def as_(shop: Shop, server: gear.Server, subject: str) -> WatchedClient:
    return shop.client(server, tls=tls_files("peer", subject))


def test_clients_and_workers_do_what_they_may(shop: Shop, guarded: gear.Server) -> None:
    client = as_(shop, guarded, "client")
    worker = shop.worker(guarded, functions=("f", "g"), tls=tls_files("peer", "worker"))
    job = gear.Job("f", b"x")
    client.submitJob(job)
    worker.getJob().sendWorkComplete(b"y")
    client.finish(job)
    assert job.data == [b"y"]
    with pytest.raises(gear.GearmanError, match="0: Permission denied by ACL"):
        client.submitJob(gear.Job("g", b"x"))
    assert {frozenset(peer.functions) for peer in guarded.active_connections} == {frozenset(), frozenset([b"f"])}
    assert {peer.ssl_subject for peer in guarded.active_connections} == {"client", "worker"}


@pytest.mark.parametrize("timeout", [None, 1000])
def test_registering_what_one_may_not_is_passed_over(shop: Shop, guarded: gear.Server, timeout: int | None) -> None:
    worker = shop.worker(guarded, tls=tls_files("peer", "client"))
    worker.registerFunction("f", timeout)
    worker.getConnection().echo(timeout=LIMIT)
    assert guarded.active_connections[0].functions == set()


def test_strangers_and_plain_connections_may_do_nothing(shop: Shop, guarded: gear.Server, acl: gear.ACL) -> None:
    with pytest.raises(gear.GearmanError, match="Permission denied"):
        as_(shop, guarded, "stranger").submitJob(gear.Job("f", b"x"))
    plain = shop.server(gear.Server(0, acl=acl))
    client = shop.client(plain)
    with pytest.raises(gear.GearmanError, match="Permission denied"):
        client.submitJob(gear.Job("f", b"x"), background=True)
    assert ask(client, b"acl grant grant me") == b"ERR PERMISSION_DENIED\n"
    assert ask(client, b"acl self-revoke all") == b"ERR PERMISSION_DENIED\n"
    assert plain.active_connections[0].ssl_subject is None


def test_cancelling_takes_the_right_to_invoke(shop: Shop, guarded: gear.Server) -> None:
    client, boss = as_(shop, guarded, "client"), as_(shop, guarded, "boss")
    job = gear.Job("f", b"")
    client.submitJob(job, background=True)
    assert job.handle is not None
    assert ask(boss, b"cancel job " + job.handle) == b"ERR PERMISSION_DENIED\n"
    assert guarded.total_jobs == 1
    assert ask(client, b"cancel job " + job.handle) == b"OK\n"
    assert guarded.total_jobs == 0


def test_rights_are_granted_and_revoked(shop: Shop, guarded: gear.Server, acl: gear.ACL) -> None:
    boss, client = as_(shop, guarded, "boss"), as_(shop, guarded, "client")
    assert ask(boss, b"acl list", rows=True) == (
        b"boss\tregister=None\tinvoke=None\tgrant=True\n"
        b"client\tregister=None\tinvoke=f\tgrant=False\n"
        b"worker\tregister=f\tinvoke=None\tgrant=False\n.\n"
    )
    assert ask(client, b"acl grant invoke client .*") == b"ERR PERMISSION_DENIED\n"
    assert ask(client, b"acl revoke all boss") == b"ERR PERMISSION_DENIED\n"
    assert ask(boss, b"acl grant invoke client f|a b\r") == b"OK\n"
    assert ask(boss, b"acl grant register client w") == b"OK\n"
    assert ask(boss, b"acl grant grant client") == b"OK\n"
    entry = acl.subjects["client"]
    assert (entry.invoke, entry.register, entry.grant) == ("f|a b", "w", True)
    client.submitJob(gear.Job("a b", b""))
    assert ask(boss, b"acl revoke grant client") == b"OK\n"
    assert ask(boss, b"acl revoke register client") == b"OK\n"
    assert ask(boss, b"acl revoke invoke client") == b"OK\n"
    assert "client" not in acl.subjects
    assert ask(boss, b"acl revoke all worker") == b"OK\n"
    assert ask(boss, b"acl self-revoke grant") == b"OK\n"
    assert acl.subjects == {}
    assert ask(boss, b"acl list", rows=True) == b".\n"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"acl grant invoke s (", b"ERR UNABLE '(' is not a valid regular expression: "),
        (b"acl grant invoke s", b"ERR UNABLE an argument is missing"),
        (b"acl grant invoke", b"ERR UNABLE an argument is missing"),
        (b"acl grant grant", b"ERR UNABLE an argument is missing"),
        (b"acl grant", b"ERR UNKNOWN_ACL_VERB"),
        (b"acl grant all s .*", b"ERR UNKNOWN_ACL_VERB"),
        (b"acl revoke invoke", b"ERR UNABLE an argument is missing"),
        (b"acl revoke nonsense s", b"ERR UNKNOWN_ACL_VERB"),
        (b"acl self-revoke", b"ERR UNKNOWN_ACL_VERB"),
        (b"acl nonsense", b"ERR UNKNOWN_COMMAND"),
    ],
)
def test_commands_that_make_no_sense_change_nothing(
    shop: Shop, guarded: gear.Server, acl: gear.ACL, line: bytes, answer: bytes
) -> None:
    assert ask(as_(shop, guarded, "boss"), line).startswith(answer)
    assert sorted(acl.subjects) == ["boss", "client", "worker"]


def test_subjects_cannot_forge_rows(shop: Shop, guarded: gear.Server, acl: gear.ACL) -> None:
    acl.add(gear.ACLEntry("a\n.\nb\tc", grant=True))
    rows = ask(as_(shop, guarded, "boss"), b"acl list", rows=True).splitlines()
    assert rows[0] == b"a\\x0a.\\x0ab\\x09c\tregister=None\tinvoke=None\tgrant=True"


def test_without_a_list_there_is_nothing_to_ask(server: gear.Server) -> None:
    with RawConnection(GearServer(server)) as peer:
        for line in (b"acl list", b"acl grant grant s", b"acl revoke all s", b"acl self-revoke all"):
            assert peer.ask(line) == b"ERR ACL_DISABLED\n"


def test_a_list_may_be_put_in_place_while_the_server_runs(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    client.submitJob(gear.Job("f", b""))
    server.acl = gear.ACL()
    with pytest.raises(gear.GearmanError, match="Permission denied"):
        client.submitJob(gear.Job("f", b""))
    poll_until(lambda: server.total_jobs == 1, "the first one is there still")
