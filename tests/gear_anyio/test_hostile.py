"""Clients and workers of `gear_anyio` with servers that misbehave, over sockets: what is told, and what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.abc
import pytest

import gear_sync
from gear_anyio import TLS, Client, JobRequest, Worker, WorkerJob
from gear_net.tls import client_context
from gearproto import Completed, ConnectionLost, JobLost, JobNotSent, Lost, NotSent, Outcome, Rejected
from gearproto.addresses import Address
from gearproto.codec import RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJobAll,
    JobAssignAll,
    JobCreated,
    NoJob,
    Noop,
    StatusRes,
    SubmitJob,
    WorkComplete,
    WorkData,
)
from gearproto.server import Report
from tests.harness import loops
from tests.harness.certificates import authority
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import until
from tests.harness.loops import STRICT_LOOPS, Loop
from tests.harness.ports import HeldPort
from tests.harness.servers import full_listener
from tests.harness.threads import LIMIT, nothing_left_open

each_loop = pytest.mark.parametrize("loop", STRICT_LOOPS)

Script = Callable[[Peer], None]


def run(loop: Loop, main: Callable[[], Awaitable[None]]) -> None:
    """Run a test in an event loop of its own, which leaves neither descriptors nor threads."""

    async def limited() -> None:
        with anyio.fail_after(LIMIT):
            await main()

    with nothing_left_open():
        loops.run(loop, limited)


def sent(*packets: Packet) -> bytes:
    return b"".join(packet.encode(RESPONSE) for packet in packets)


def says(*what: Packet | bytes, then_waits: bool = True) -> Script:
    """Return a script that takes a submission, says something, and waits for the client to go, or goes itself."""

    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(*what)
        if then_waits:
            peer.wait_for_end()

    return script


def slowly(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        for byte in data:
            peer.send(bytes([byte]))
        peer.wait_for_end()

    return script


DONE: Final = sent(JobCreated(b"H:1"), WorkData(b"H:1", b"part "), WorkComplete(b"H:1", b"done"))


@each_loop
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        pytest.param(says(), Lost, id="silent"),
        pytest.param(lambda peer: peer.wait_for_end(), Lost, id="reads, and says nothing"),
        pytest.param(lambda peer: None, Lost | NotSent, id="closes at once"),
        pytest.param(says(then_waits=False), Lost, id="closes when asked"),
        pytest.param(says(JobCreated(b"H:1"), then_waits=False), Lost, id="closes once the job is taken"),
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Lost, id="speaks another protocol"),
        pytest.param(says(b"\0RES\0\0\0\x09\0\0\0\x05H:"), Lost, id="half a packet"),
        pytest.param(says(b"\0RES\0\0\0\x09\xff\xff\xff\xff"), Lost, id="a packet without end"),
        pytest.param(says(b"\0RES\0\0\0\xff\0\0\0\0"), Lost, id="an unknown packet"),
        pytest.param(says(Noop()), Lost, id="a packet for workers"),
        pytest.param(says(EchoRes(b"")), Lost, id="an answer to what was not asked"),
        pytest.param(says(JobCreated(b"H:1"), JobCreated(b"H:2")), Lost, id="one answer too many"),
        pytest.param(says(JobCreated(b"H:1"), StatusRes(b"H:1", True, True, 1, 2)), Lost, id="an unasked status"),
        pytest.param(says(JobCreated(b"H:1"), WorkComplete(b"H:9", b"wrong")), Lost, id="a result of another job"),
        pytest.param(says(Error(b"NO", b"not today")), Rejected, id="refuses"),
        pytest.param(says(DONE), Completed, id="all is well"),
        pytest.param(says(DONE, then_waits=False), Completed, id="closes after the result"),
        pytest.param(says(WorkComplete(b"H:9", b""), DONE), Completed, id="a result of another job before"),
        pytest.param(says(DONE, DONE), Completed, id="says all twice"),
        pytest.param(slowly(DONE), Completed, id="slow"),
    ],
)
def test_outcome_is_right_whatever_the_server_does(loop: Loop, script: Script, outcome: Any) -> None:
    async def main() -> None:
        with HostileServer(script) as server:
            async with Client(
                server.address,
                exceptions=False,
                probe_interval=0.02 if outcome is Lost else None,  # a good server may be slow to answer
                probe_timeout=0.02,
                retry_pauses=(0.01, 0.01),
            ) as client:
                (job,) = await client.submit_many([JobRequest("f")])
                assert await job.wait(LIMIT)
                assert isinstance(job.outcome, outcome)

    run(loop, main)


@each_loop
def test_connection_that_ends_anywhere_in_a_conversation_loses_the_job(loop: Loop) -> None:
    cuts = range(0, len(DONE) + 1, 3)

    async def main() -> None:
        with HostileServer(*[says(DONE[:cut], then_waits=False) for cut in cuts]) as server:
            outcomes: list[Outcome | None] = []
            for cut in cuts:
                async with Client(server.address, exceptions=False) as client:
                    job = await client.submit("f")
                    assert await job.wait(LIMIT)
                    outcomes.append(job.outcome)
                    assert isinstance(job.outcome, Completed if cut == len(DONE) else Lost)
            assert len(outcomes) == len(cuts)

    run(loop, main)


@each_loop
def test_server_that_comes_back_with_the_same_handles_confuses_nobody(loop: Loop) -> None:
    def dies(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        peer.receive_until(EchoReq)

    def stale(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(WorkComplete(b"H:1", b"of the first"), JobCreated(b"H:2"), WorkComplete(b"H:2", b"second"))
        peer.wait_for_end()

    async def main() -> None:
        with HostileServer(dies, stale) as server:
            async with Client(server.address, exceptions=False, retry_pauses=(0.01, 0.01)) as client:
                first = await client.submit("f")
                with pytest.raises(ConnectionLost, match="the server closed the connection"):
                    await client.echo(b"")
                with pytest.raises(JobLost):
                    await first.result()
                second = await client.submit("f")
                assert await second.result(LIMIT) == b"second"

    run(loop, main)


# Workers


def closes(peer: Peer) -> None:
    return


def gives_no_job(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(NoJob())


def breaks_in_a_job(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"1"))


def answers_nonsense(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(b"\0RES\0\0\0\xff\0\0\0\0")
    peer.wait_for_end()


def speaks_text(peer: Peer) -> None:
    peer.receive_until(CanDo)
    peer.send(b"hello\n")
    peer.wait_for_end()


def says_half(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(sent(JobAssignAll(b"H:1", b"f", b"", b"", b"1"))[:-1])


def assigns_without_a_handle(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(JobAssignAll(b"", b"f", b"", b"", b"1"))
    peer.wait_for_end()


def refuses_reports(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)
    peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"1"))
    peer.receive_until(Report)
    peer.send(Error(b"JOB_NOT_FOUND", b"whose?"))


def is_silent(peer: Peer) -> None:
    peer.receive_until(EchoReq)
    peer.wait_for_end()


@each_loop
@pytest.mark.parametrize(
    "script",
    [
        closes,
        gives_no_job,
        breaks_in_a_job,
        answers_nonsense,
        speaks_text,
        says_half,
        assigns_without_a_handle,
        refuses_reports,
        is_silent,
    ],
)
def test_worker_is_back_whatever_the_server_does(loop: Loop, script: Script) -> None:
    reports: list[tuple[bytes, bytes]] = []

    def behaves(peer: Peer) -> None:
        peer.answer_until(GrabJobAll)
        peer.send(JobAssignAll(b"H:2", b"f", b"", b"", b"2"))
        report = peer.receive_until(Report)
        assert isinstance(report, Report)
        reports.append((report.handle, report.body))

    async def main() -> None:
        with HostileServer(script, then=behaves) as server:
            worker = Worker(server.address, probe_interval=0.1, probe_timeout=0.1, retry_pauses=(0.001, 0.01))

            @worker.function("f")
            async def f(job: WorkerJob) -> bytes:
                return job.workload

            async with anyio.create_task_group() as group:
                group.start_soon(worker.run)
                await until(lambda: reports)
                worker.stop()
        assert {*reports} == {(b"H:2", b"H:2\x002")}

    run(loop, main)


# Sockets


@each_loop
def test_refused_connection_is_told_in_the_systems_words(loop: Loop) -> None:
    async def main() -> None:
        with HeldPort() as absent:
            async with Client(absent.address) as client:
                with pytest.raises(JobNotSent, match="Connection refused"):
                    await client.submit("f")

    run(loop, main)


@each_loop
def test_connection_that_hangs_ends_with_its_time_limit_or_the_client(loop: Loop) -> None:
    async def main() -> None:
        with full_listener() as listener:
            async with Client(listener.getsockname(), connect_timeout=0.05) as client:
                with pytest.raises(JobNotSent, match=r"no answer within 0\.05 s"):
                    await client.submit("f")
            async with Client(listener.getsockname()) as client, anyio.create_task_group() as group:
                group.start_soon(client.submit_many, [JobRequest("f")])
                await anyio.wait_all_tasks_blocked()
                client.close()

    run(loop, main)


@each_loop
@pytest.mark.parametrize("mutual", [False, True])
def test_tls_with_certificates_of_one_side_or_both(loop: Loop, mutual: bool) -> None:
    ours = authority("ours")
    mine, theirs = ours.issue("client", common_name="client"), ours.issue()
    server_tls = theirs if mutual else TLS(theirs.certificate, theirs.key)

    async def main() -> None:
        with gear_sync.Server("localhost", 0, tls=server_tls) as server:
            address = ("localhost", server.port)
            tls = mine if mutual else TLS(ca=ours.ca)
            worker = Worker(address, tls=tls)

            @worker.function("f")
            async def f(job: WorkerJob) -> bytes:
                return job.workload

            async with anyio.create_task_group() as group, Client(address, tls=tls) as client:
                group.start_soon(worker.run)
                job = await client.submit("f", b"x" * 3_000_000)
                assert await job.result(LIMIT) == b"x" * 3_000_000
                worker.stop()

    loops.run(loop, main)  # looking up a name leaves trio's thread for a while


@each_loop
def test_server_that_cannot_be_trusted_is_none(loop: Loop) -> None:
    async def main() -> None:
        with gear_sync.Server("127.0.0.1", 0, tls=authority("theirs").issue("127.0.0.1")) as server:
            async with Client(server.address, tls=TLS(ca=authority("ours").ca)) as client:
                with pytest.raises(JobNotSent, match="TLS: "):
                    await client.submit("f")

    run(loop, main)


@each_loop
def test_refusal_over_a_stream_of_tls_is_not_sent(loop: Loop) -> None:
    ours = authority("ours")
    context = client_context(TLS(ca=ours.ca))

    async def connect(address: Address) -> anyio.abc.AnyByteStream:
        return await anyio.connect_tcp(
            address.host, address.port, ssl_context=context, tls_hostname="localhost", tls_standard_compatible=False
        )

    async def main() -> None:
        with gear_sync.Server("127.0.0.1", 0, tls=ours.issue()) as server:
            async with Client(server.address, connect=connect) as client:
                with pytest.raises(JobNotSent, match="certificate"):
                    await (await client.submit("f")).result(LIMIT)

    run(loop, main)


@each_loop
def test_ipv6(loop: Loop) -> None:
    async def main() -> None:
        with gear_sync.Server("::1", 0) as server:
            async with Client(f"[::1]:{server.port}") as client:
                assert await client.echo(b"six") == b"six"

    run(loop, main)
