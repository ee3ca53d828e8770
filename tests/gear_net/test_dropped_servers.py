"""A server that is dropped without being closed closes its sockets, and warns of it once."""

from __future__ import annotations

import gc
import warnings

import pytest

import gear_anyio
import gear_sync
from tests.harness.threads import nothing_left_open


@pytest.mark.parametrize("package", [gear_sync, gear_anyio], ids=["gear_sync", "gear_anyio"])
def test_server_that_is_dropped_without_close_gives_one_warning_that_names_it(package: object) -> None:
    kind: type[gear_sync.Server] | type[gear_anyio.Server] = package.Server  # type: ignore[attr-defined]
    with nothing_left_open(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server = kind(port=0)
        host, port = server.address
        del server
        gc.collect()
    (warning,) = caught
    assert warning.category is ResourceWarning
    assert str(warning.message) == f"{kind.__module__.partition('.')[0]}.Server on {(host, port)} was not closed"


@pytest.mark.parametrize("kind", [gear_sync.Server, gear_anyio.Server])
def test_server_that_is_closed_or_could_not_listen_gives_no_warning(
    kind: type[gear_sync.Server] | type[gear_anyio.Server],
) -> None:
    with nothing_left_open(), warnings.catch_warnings():
        warnings.simplefilter("error")
        server = kind(port=0)
        with pytest.raises(OSError, match="in use"):
            kind(port=server.port)
        server.close()
        del server
        gc.collect()
