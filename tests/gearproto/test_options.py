"""Options that clients and workers pass on to their connections."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gearproto.client import ClientConnection
from gearproto.options import DEFAULT_PROBE_INTERVAL, ConnectionOptions, connection_options
from gearproto.worker import WorkerConnection


def test_probes_are_sent_unless_told_otherwise() -> None:
    assert connection_options() == {"probe_interval": DEFAULT_PROBE_INTERVAL}
    assert connection_options(probe_interval=None) == {"probe_interval": None}
    assert connection_options(max_packet_size=5)["max_packet_size"] == 5


@pytest.mark.parametrize("name", ["now", "max_pocket_size"])
def test_unknown_option_is_refused(name: str) -> None:
    wrong: Any = {name: 5.0}
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        connection_options(**wrong)


@pytest.mark.parametrize("name", sorted(ConnectionOptions.__annotations__))
@pytest.mark.parametrize("wrong", [0, -1, "5", math.nan, b""])
def test_number_out_of_range_is_refused_once_for_all_connections(name: str, wrong: Any) -> None:
    options: Any = {name: wrong}
    for use in (connection_options, ClientConnection, WorkerConnection):
        with pytest.raises(ValueError, match=f"^{name} is "):
            use(**options)
