"""The functions that `gear.Server` shows, and what programs change in them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from gear_sync import gear
from gearproto.packets import CanDo, GrabJobUniq, Noop, PreSleep, SubmitJob
from tests.harness.gear_api import Shop
from tests.harness.raw import RawConnection
from tests.harness.threads import LIMIT, Call

Open = Callable[[], RawConnection]
Functions = set[bytes]
Change = Callable[[Functions], object]


class Registering(gear.Server):
    """A server whose program changes the functions of whoever registers `a`."""

    change: Callable[[gear.ServerConnection], object]

    def handlePacket(self, packet: gear.Packet) -> None:
        super().handlePacket(packet)
        if packet.ptype == gear.constants.CAN_DO and packet.data == b"a":
            assert isinstance(packet.connection, gear.ServerConnection)
            self.change(packet.connection)


def assigned(connection: gear.ServerConnection) -> None:
    connection.functions = {b"a", b"b"}


@pytest.mark.parametrize("change", [lambda connection: connection.functions.add("b"), assigned], ids=["add", "assign"])
def test_a_worker_gets_jobs_of_a_function_that_the_program_has_added(
    shop: Shop, change: Callable[[gear.ServerConnection], object]
) -> None:
    server = Registering(0)
    server.change = change
    client, worker = shop.client(shop.server(server)), shop.worker(server, functions=("a",))
    waiting = Call(worker.getJob)
    client.submitJob(gear.Job("b", b"x"))
    assert waiting.result().arguments == b"x"
    request = gear.StatusAdminRequest()
    client.getConnection().sendAdminRequest(request, timeout=LIMIT)
    assert request.response is not None
    assert b"b\t1\t1\t1\n" in request.response


@pytest.mark.parametrize(
    ("change", "added", "removed"),
    [
        (lambda names: names.add("c"), "c", ""),
        (lambda names: names.add(b"a"), "", ""),
        (lambda names: names.remove("a"), "", "a"),
        (lambda names: names.discard(b"c"), "", ""),
        (lambda names: names.clear(), "", "ab"),
        (lambda names: names.update([b"b"], [b"c"]), "c", ""),
        (lambda names: names.difference_update([b"b"]), "", "b"),
        (lambda names: names.intersection_update([b"b"]), "", "a"),
        (lambda names: names.symmetric_difference_update([b"b", b"c"]), "c", "b"),
        (lambda names: names.__ior__({b"c"}), "c", ""),
        (lambda names: names.__isub__({b"b"}), "", "b"),
        (lambda names: names.__iand__({b"b"}), "", "a"),
        (lambda names: names.__ixor__({b"b", b"c"}), "c", "b"),
    ],
)
def test_functions_of_a_worker_are_a_set(
    server: gear.Server, raw: Open, change: Change, added: str, removed: str
) -> None:
    worker, client = raw(), raw()
    worker.send(CanDo(b"a"), CanDo(b"b"))
    worker.expect_nothing()
    functions = server.active_connections[0].functions
    assert isinstance(functions, set)
    change(functions)
    wanted = ({"a", "b"} | set(added)) - set(removed)
    assert functions == server.active_connections[0].functions == {name.encode() for name in wanted}
    for name in "abc":
        client.submit(SubmitJob(name.encode(), b"", b""))
    assert {worker.grab(GrabJobUniq()).function.decode() for _ in wanted} == wanted
    worker.expect_no_job()


def test_any_function_may_be_popped(server: gear.Server, raw: Open) -> None:
    worker = raw()
    worker.send(CanDo(b"a"))
    worker.expect_nothing()
    functions = server.active_connections[0].functions
    assert functions.pop() == b"a"
    for action in (functions.pop, lambda: functions.remove(b"a")):
        with pytest.raises(KeyError):
            action()


def test_a_function_that_is_added_wakes_a_worker_that_sleeps(server: gear.Server, raw: Open) -> None:
    worker, client = raw(), raw()
    client.submit(SubmitJob(b"b", b"", b""))
    worker.send(PreSleep())
    worker.expect_nothing()
    (connection,) = (peer for peer in server.active_connections if peer.state == "SLEEP")
    connection.functions.add(b"b")
    worker.expect(Noop())


def test_what_cannot_be_registered_is_not_shown(server: gear.Server, raw: Open) -> None:
    worker = raw()
    worker.expect_nothing()
    functions = server.active_connections[0].functions
    functions.add(b"")
    worker.receive_any()
    assert functions == set()


def test_functions_of_a_server_are_listed_until_they_are_removed(server: gear.Server, raw: Open) -> None:
    admin = raw()
    server.functions.add("a")
    server.functions |= {b"b"}
    assert server.functions == {b"a", b"b"}
    assert sorted(admin.ask_rows(b"status")) == [b"a\t0\t0\t0\n", b"b\t0\t0\t0\n"]
    server.functions.remove(b"a")
    assert admin.ask_rows(b"status") == [b"b\t0\t0\t0\n"]
    server.functions = [b"c"]
    assert server.functions == {b"c"}


def test_a_function_that_is_in_use_stays(server: gear.Server, raw: Open) -> None:
    raw().submit(SubmitJob(b"f", b"", b""))
    server.functions.discard(b"f")
    assert server.functions == {b"f"}


@pytest.mark.parametrize("copied", [copy.copy, lambda names: names.copy(), lambda names: names | {b"b"}])
def test_copies_of_functions_are_of_the_programs_own(
    server: gear.Server, raw: Open, copied: Callable[[Functions], Functions]
) -> None:
    worker = raw()
    worker.send(CanDo(b"a"))
    worker.expect_nothing()
    functions = server.active_connections[0].functions
    other = copied(functions)
    other.add(b"b")
    assert (functions, other) == ({b"a"}, {b"a", b"b"})


def test_a_connection_on_its_own_has_functions_too() -> None:
    connection = gear.ServerConnection(("host", 5), None, False, "server")
    connection.functions.add(b"a")
    assert connection.functions == {b"a"}
