"""`gear_sync.client_session`: one server of a client."""

from __future__ import annotations

import logging
import socket
import time

from gear_net.settings import ClientSettings
from gear_net.standing import LoggedStanding
from gear_sync.client_session import ClientSession
from gearproto.addresses import Address
from gearproto.standing import DEFAULT_PAUSES
from tests.harness.servers import full_listener
from tests.harness.threads import LIMIT, nothing_left_open

ADDRESS = Address("name", 1)


def new_session() -> ClientSession:
    standing = LoggedStanding(ADDRESS, logging.getLogger("test"), DEFAULT_PAUSES)
    settings = ClientSettings(
        (ADDRESS.host, ADDRESS.port),
        policy="ordered",
        tls=None,
        connect_timeout=LIMIT,
        timeout=LIMIT,
        retry_pauses=DEFAULT_PAUSES,
        resubmit_timeout=LIMIT,
        exceptions=False,
        max_unique_size=63,
        max_unread=1,
    )
    return ClientSession(ADDRESS, standing, settings, lambda job: None)


def test_attempt_that_fails_at_once_disturbs_none_that_goes_on() -> None:
    """Two threads may look the name up, and only one of them may find it."""
    with full_listener() as listener, nothing_left_open():
        session = new_session()
        now = time.monotonic()
        session.dial([(socket.AF_INET, listener.getsockname())], now)
        assert session.dialing
        session.fail(OSError("no such name"), 0.0)
        assert session.dialing
        assert session.failure is None
        session.close("closed by the client")
        assert not session.dialing


def test_attempt_that_fails_disturbs_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, nothing_left_open():
        session = new_session()
        session.use(socket.create_connection(listener.getsockname()))
        session.fail(OSError("no such name"), 0.0)
        assert session.connected
        assert session.failure is None
        session.close("closed by the client")
