"""The examples of the documentation that programs were written after, corrected where they cannot run."""

from __future__ import annotations

import pytest

from gear_sync import gear
from tests.harness.gear_api import Shop, tls_files
from tests.harness.threads import LIMIT, Call


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_client_and_worker_examples(shop: Shop, tls: bool) -> None:
    server = shop.server(gear.Server(0, *(tls_files() if tls else ())))

    def work() -> None:
        worker = gear.Worker("reverser")
        if tls:
            ssl_key, ssl_cert, ssl_ca = tls_files()
            worker.addServer("localhost", server.port, ssl_key, ssl_cert, ssl_ca)
        else:
            worker.addServer("localhost", server.port)
        worker.registerFunction("reverse")
        job = worker.getJob()
        job.sendWorkComplete(job.arguments[::-1])
        worker.shutdown()

    working = Call(work)
    client = shop.client()
    if tls:
        ssl_key, ssl_cert, ssl_ca = tls_files()
        client.addServer("localhost", server.port, ssl_key, ssl_cert, ssl_ca)
    else:
        client.addServer("localhost", server.port)
    client.waitForServer(LIMIT)  # Wait for at least one server to be connected

    job = gear.Job("reverse", b"test string")
    client.submitJob(job)
    client.finish(job)
    assert job.data == [b"gnirts tset"]
    working.result()


def test_text_example() -> None:
    server = gear.Server(0)
    client, worker = gear.Client(), gear.TextWorker("reverser")
    for end in (client, worker):
        end.addServer("localhost", server.port)
        end.waitForServer(LIMIT)
    worker.registerFunction("reverse")
    job = gear.TextJob("reverse", "test string")
    client.submitJob(job)
    taken = worker.getJob()
    taken.sendWorkComplete(taken.arguments[::-1])
    worker.shutdown()
    client.shutdown()
    server.shutdown()
    assert taken.arguments == "test string"


def test_asynchronous_use_handles_having_no_server(shop: Shop) -> None:
    client = shop.client()
    with pytest.raises(gear.NoConnectedServersError):
        client.submitJob(gear.Job("reverse", b"test string"))
    with pytest.raises(gear.GearmanError):
        client.submitJob(gear.Job("reverse", b"test string"))
    with pytest.raises(gear.NoConnectedServersError):
        client.getConnection()


def test_administrative_protocol_on_the_connection_of_a_client(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    request = gear.StatusAdminRequest()
    client.getConnection().sendAdminRequest(request)
    assert request.response == b".\n"


def test_server_example_takes_no_parameter_but_the_port() -> None:
    server = gear.Server(0)
    assert server.port > 0
    server.shutdown()
    server.shutdown()
    assert not server.poll_thread.is_alive()
