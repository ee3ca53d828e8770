"""Arguments in seconds: what is no number is refused where it is given, and what is very long means no limit."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest

from gearproto.functions import BYTES, Function
from tests.adapters.conftest import StartWorker
from tests.harness.idioms import Idiom, make_client, make_worker
from tests.harness.network import Network, NetworkServer

pytestmark = pytest.mark.anyio

CLIENT: Final = ("connect_timeout", "timeout", "resubmit_timeout", "probe_interval", "probe_timeout")
WORKER: Final = ("connect_timeout", "grab_timeout", "stop_timeout", "probe_interval", "probe_timeout")
LONG: Final = (1e9, 1e300, math.inf)


@pytest.mark.parametrize(
    ("make", "name"), [(make_client, name) for name in CLIENT] + [(make_worker, n) for n in WORKER]
)
@pytest.mark.parametrize("wrong", [math.nan, -1, "5"])
def test_setting_that_makes_no_sense_is_refused(idiom: Idiom, make: Any, name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {wrong}".replace("5", "'5'")):
        make(idiom, "localhost", **{name: wrong})


@pytest.mark.parametrize("make", [make_client, make_worker])
def test_only_connections_know_the_time(idiom: Idiom, make: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'now'"):
        make(idiom, "localhost", now=5.0)


@pytest.mark.parametrize("long", LONG)
async def test_settings_may_be_as_long_as_you_like(network: Network, server: NetworkServer, long: float) -> None:
    settings: dict[str, Any] = dict.fromkeys(WORKER, long)
    worker = network.worker(server, **settings)
    worker.register("f", lambda job: job.workload, timeout=long)
    await network.working(worker)
    client = await network.connected_client(server, **dict.fromkeys(CLIENT, long))
    job = await client.submit("f", b"x", unique="u", resubmit=True)
    assert await job.result() == b"x"


@pytest.mark.parametrize("long", LONG)
async def test_waits_may_be_as_long_as_you_like(client: Any, start: StartWorker, long: float) -> None:
    await start(f=lambda job: job.workload)
    job = await client.submit("f", b"x")
    assert await job.wait_queued(long) == job.handle
    assert await job.wait(long)
    assert await job.result(long) == b"x"
    jobs = [await client.submit("f", b"x") for _ in range(3)]
    assert {job async for job in client.as_completed(jobs, long)} == set(jobs)
    assert [event async for event in (await client.submit("f", b"x")).events(long)]
    assert await client.call(Function("f", takes=BYTES, returns=BYTES), b"x", timeout=long) == b"x"


@pytest.mark.parametrize("wrong", [math.nan, "5"])
async def test_wait_for_no_number_of_seconds_is_refused(client: Any, wrong: Any) -> None:
    job = await client.submit("nobody")
    with pytest.raises(ValueError, match="timeout is "):
        await job.wait(wrong)
    with pytest.raises(ValueError, match="timeout is "):
        await job.wait_queued(wrong)
    with pytest.raises(ValueError, match="timeout is "):
        await job.result(wrong)
    with pytest.raises(ValueError, match="timeout is "):
        job.events(wrong)
    with pytest.raises(ValueError, match="timeout is "):
        [job async for job in client.as_completed([job], wrong)]
    with pytest.raises(ValueError, match="timeout is "):
        await client.call(Function("f", takes=BYTES, returns=BYTES), b"x", timeout=wrong)
    assert not await job.wait(-1)  # no time at all
