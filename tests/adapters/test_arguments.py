"""What clients and workers of both packages take for names and data, and how they refuse the rest."""

from __future__ import annotations

from typing import Any

import pytest

from gearproto import JobRaised, LocalProtocolError
from tests.harness.idioms import AnyClient, Idiom, make_client
from tests.harness.network import Network, NetworkServer
from tests.harness.threads import LIMIT

from .conftest import StartWorker

pytestmark = pytest.mark.anyio


def pieces(job: Any) -> Any:
    yield bytearray(b"1")
    job.send(bytearray(b"2"))
    job.warn(bytearray(b"w"))
    return bytearray(job.workload)


def sends_text(job: Any) -> None:
    job.send("text")


async def test_bytearray_is_taken_wherever_bytes_is(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    worker = await start()
    worker.register(bytearray(b"pieces"), pieces)
    submitted: dict[str, Any] = {"workload": bytearray(b"ab"), "unique": bytearray(b"u")}
    job = await client.submit(bytearray(b"pieces"), **submitted)
    assert await job.result(LIMIT) == b"12ab"
    handle = await client.submit_background(bytearray(b"nobody"), **submitted)
    assert (await client.status(bytearray(handle))).known
    assert (await client.status_unique(bytearray(b"u"))).known
    assert await client.echo(bytearray(b"x")) == b"x"
    worker.unregister(bytearray(b"pieces"))


async def test_text_is_no_data(client: AnyClient, start: StartWorker) -> None:
    await start(sends_text=sends_text)
    text: Any = "text"
    with pytest.raises(LocalProtocolError, match="the workload has to be bytes, not str"):
        await client.submit("f", text)
    with pytest.raises(LocalProtocolError, match="the data has to be bytes, not str"):
        await client.echo(text)
    with pytest.raises(JobRaised, match="a piece has to be bytes, not str"):
        await (await client.submit("sends_text")).result(LIMIT)


async def test_priority_may_be_a_name(client: AnyClient, start: StartWorker) -> None:
    await start(f=lambda job: b"done")
    assert await (await client.submit("f", priority="high")).result(LIMIT) == b"done"
    assert await client.submit_background("f", priority="low")
    with pytest.raises(LocalProtocolError, match="priority is 'urgent', which has to be a Priority or one of 'high'"):
        await client.submit("f", priority="urgent")


async def test_unique_of_64_bytes_needs_a_word(network: Network, server: NetworkServer, client: AnyClient) -> None:
    with pytest.raises(LocalProtocolError, match=r"limit 63: gearmand .* max_unique_size=64"):
        await client.submit("f", unique="u" * 64)
    with pytest.raises(LocalProtocolError, match="limit 63"):
        await client.submit_background("f", unique="u" * 64)
    async with network.client(server, max_unique_size=64) as other:
        await other.submit("f", unique="u" * 64)


async def test_limit_for_uniques_is_checked(idiom: Idiom) -> None:
    with pytest.raises(ValueError, match="max_unique_size is 65"):
        make_client(idiom, "localhost", max_unique_size=65)
