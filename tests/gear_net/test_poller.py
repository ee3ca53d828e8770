"""`gear_net.poller`: which sockets are ready."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gear_net.poller import READ, WRITE, Poller, SelectorPoller

BOTH = READ | WRITE


@pytest.fixture(params=[Poller, SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Any]:
    with contextlib.closing(request.param()) as poller:
        yield poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_socket_is_ready_for_what_it_is_watched_for(poller: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    poller.register(ours, READ, "item")
    assert poller.poll(0) == []
    poller.modify(ours, BOTH, "item")
    assert poller.poll(0) == [("item", WRITE)]
    theirs.send(b"x")
    assert poller.poll(0) == [("item", BOTH)]
    poller.modify(ours, READ, "other")
    assert poller.poll(None) == [("other", READ)]
    poller.modify(ours, 0, "other")
    assert poller.poll(0) == []
    poller.unregister(ours)
    poller.register(ours, READ, "again")
    assert poller.poll(0) == [("again", READ)]


def test_socket_that_has_failed_is_ready_for_what_it_is_watched_for(poller: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _address = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        poller.register(ours, READ, "item")
        theirs.close()  # with a reset
        ((item, events),) = poller.poll(10)
        assert item == "item"
        assert events & READ


def test_descriptor_is_readable_as_long_as_a_socket_is_ready(
    poller: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    poller.register(ours, READ, "item")
    assert select.select([poller], [], [], 0)[0] == []
    theirs.send(b"x")
    assert select.select([poller], [], [], 10)[0] == [poller]


def test_every_socket_has_its_turn_however_many_are_ready(poller: Any) -> None:
    count = 1200
    with contextlib.ExitStack() as stack:
        for number in range(count // 2):
            for sock in socket.socketpair():
                poller.register(stack.enter_context(sock), WRITE, (number, sock.fileno()))
        seen: set[Any] = set()
        polls = 0
        while len(seen) < count:
            found = [item for item, _events in poller.poll(0)]
            assert len(found) == len(set(found))
            seen.update(found)
            polls += 1
        assert polls <= 3
