"""Reports to statsd, received by a socket in place of its server."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from gear_sync import gear
from tests.harness.gear_api import Shop
from tests.harness.raw import packet_bytes
from tests.harness.threads import LIMIT


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(LIMIT)
        yield sock


def receive_until(statsd: socket.socket, last: str) -> list[str]:
    reports: list[str] = []
    while last not in reports:
        reports.append(statsd.recv(1000).decode())
    return reports


def test_packets_and_jobs_are_reported(shop: Shop, statsd: socket.socket) -> None:
    port = statsd.getsockname()[1]
    server = shop.server(gear.Server(0, statsd_host="127.0.0.1", statsd_port=port, statsd_prefix="my.prefix"))
    assert server.statsd is not None
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    client.submitJob(gear.Job("f", b""))
    assert receive_until(statsd, "my.prefix.packet.SUBMIT_JOB:1|c")[-5:-2] == [
        "my.prefix.queue.total:1|g",
        "my.prefix.queue.running:0|g",
        "my.prefix.queue.waiting:1|g",
    ]
    job = worker.getJob()
    receive_until(statsd, "my.prefix.queue.running:1|g")
    job.sendWorkComplete()
    receive_until(statsd, "my.prefix.queue.total:0|g")
    reports = receive_until(statsd, "my.prefix.packet.WORK_COMPLETE:1|c")
    assert reports[-2].startswith("my.prefix.packet.WORK_COMPLETE:")
    assert reports[-2].endswith("|ms")
    client.getConnection().sendRaw(packet_bytes(gear.constants.REQ, 101))
    receive_until(statsd, "my.prefix.packet.UNKNOWN:1|c")


def test_without_the_package_nothing_is_reported(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "statsd", None)
    server = shop.server(gear.Server(0, statsd_host="127.0.0.1"))
    assert server.statsd is None
    assert "the package statsd is not installed" in caplog.text
    shop.client(server).submitJob(gear.Job("f", b""))
