"""What lets tests run in several processes at a time."""

import socket

import pytest

from tests.harness.ports import HeldPort


def test_report_with_lone_surrogates_reaches_the_process_that_prints_it(pytestconfig: pytest.Config) -> None:
    report = pytest.TestReport(
        "tests/test_x.py::test_y",
        location=("tests/test_x.py", 1, "test_y"),
        keywords={"\udcff": 1},
        outcome="failed",
        longrepr="assert '\udcfe'",
        when="call",
        sections=[("Captured log call", "name \udcfd")],
    )
    data = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=report)
    restored = pytestconfig.hook.pytest_report_from_serializable(config=pytestconfig, data=data)
    assert (restored.keywords, restored.longrepr) == ({"\\udcff": 1}, "assert '\\udcfe'")
    assert restored.caplog == "name \\udcfd"


def test_held_port_refuses_connections_and_can_be_listened_on_again_and_again() -> None:
    with HeldPort() as port:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(port.address)
            with (
                socket.create_server(port.address) as listener,
                socket.create_connection(port.address),
                pytest.raises(OSError, match="in use"),
            ):
                socket.create_server(port.address)
            listener.close()
