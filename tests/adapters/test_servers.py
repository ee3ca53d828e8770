"""What every job server of ours does alike: `gear_sync.Server`, `gear_anyio.Server` on each loop, and `gear.Server`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from gear_sync import gear
from gearproto.codec import REQUEST, RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    CantDo,
    Error,
    GetStatus,
    Noop,
    ResetAbilities,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
    WorkStatus,
)
from tests.harness.drivers import DRIVERS, ThreadedServer
from tests.harness.gear_api import GearServer
from tests.harness.raw import RawConnection, packet_bytes
from tests.harness.servers import RunningServer

StartServer = Callable[..., RunningServer]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=[*DRIVERS, "gear"])
def start_server(request: pytest.FixtureRequest, stack: contextlib.ExitStack) -> StartServer:
    """Start a server of each kind in turn; `gear.Server` has none of the options."""

    def start(**options: Any) -> RunningServer:
        server = GearServer(gear.Server(0)) if request.param == "gear" else ThreadedServer(request.param, **options)
        stack.callback(server.close)
        return server

    return start


def test_no_handle_is_the_beginning_of_another(start_server: StartServer, stack: contextlib.ExitStack) -> None:
    client = stack.enter_context(RawConnection(start_server()))
    handles = sorted(client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(101))
    assert not any(after.startswith(before) for before, after in pairwise(handles))


@pytest.mark.parametrize("lose", [CantDo(b"f"), ResetAbilities()])
def test_running_job_stays_with_a_worker_that_loses_the_ability(
    start_server: StartServer, stack: contextlib.ExitStack, lose: Packet
) -> None:
    server = start_server()
    client, worker, other = (stack.enter_context(RawConnection(server)) for _ in range(3))
    worker.send(CanDo(b"f"))
    other.send(CanDo(b"f"))
    other.expect_nothing()
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grab()
    other.sleep()
    worker.send(lose)
    worker.expect_nothing()
    other.expect_no_job()
    worker.send(WorkStatus(handle, 1, 2), WorkComplete(handle, b"r"))
    worker.expect_nothing()
    client.expect(WorkStatus(handle, 1, 2), WorkComplete(handle, b"r"))


def test_progress_of_any_length_is_refused_and_not_kept(start_server: StartServer, stack: contextlib.ExitStack) -> None:
    server = start_server()
    client, worker = (stack.enter_context(RawConnection(server)) for _ in range(2))
    worker.send(CanDo(b"f"))
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grab()
    worker.send_bytes(packet_bytes(REQUEST, WorkStatus.spec.number, handle + b"\x003.9\x007"))
    worker.expect_nothing()
    client.expect_bytes(packet_bytes(RESPONSE, WorkStatus.spec.number, handle + b"\x003.9\x007"))
    for numerator, denominator in ((b"1", b"1." + b"0" * 10**6), (b" " * 10**6 + b"1", b"1"), (b"-1", b"2")):
        body = handle + b"\0" + numerator + b"\0" + denominator
        worker.send_bytes(packet_bytes(REQUEST, WorkStatus.spec.number, body))
        assert worker.receive(Error).code == b"INVALID_ARGUMENTS"
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, True, 3, 7))
    if isinstance(server, GearServer):
        job = server.server.jobs[handle]
        assert (job.numerator, job.denominator) == (b"3", b"7")


@pytest.mark.parametrize("wrong", [-3600, 3600])
def test_delayed_jobs_follow_a_clock_that_is_put_right(
    start_server: StartServer, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + wrong)
    server = start_server()
    client, worker = (stack.enter_context(RawConnection(server)) for _ in range(2))
    worker.send(CanDo(b"f"), CanDo(b"g"))
    worker.sleep()
    if wrong < 0:
        before = client.submit(SubmitJobEpoch(b"f", b"", int(clock()) - 60, b""))  # an hour ahead, as it seems
        worker.expect_no_job()
        worker.sleep()
        monkeypatch.setattr(time, "time", clock)
        client.expect_nothing()
        worker.expect(Noop())
        assert worker.grab().handle == before
    else:
        monkeypatch.setattr(time, "time", clock)
        after = client.submit(SubmitJobEpoch(b"g", b"", int(clock()) + 60, b""))  # an hour ago, as it seemed
        worker.expect_no_job()
        client.send(GetStatus(after))
        client.expect(StatusRes(after, True, False, 0, 0))
