import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing import strategies
from gearproto import ClientConnection, LocalProtocolError, RemoteProtocolError, WorkerConnection, admin
from gearproto.codec import Packet, Route
from gearproto.connection import TOO_MANY_CONNECTIONS, Connection
from gearproto.event import Event
from gearproto.events import (
    AdminReplied,
    Answered,
    ConnectionClosed,
    Echoed,
    JobEnded,
    Line,
    OptionSet,
    RequestFailed,
    RequestId,
    RequestLost,
)
from gearproto.options import DEFAULT_MAX_OUTPUT_SIZE
from gearproto.outcomes import Rejected
from gearproto.packets import EchoReq, EchoRes, Error, OptionReq, OptionRes
from tests.harness.connections import drain, drain_to_error, output, receive, sent

ROLES = [ClientConnection, WorkerConnection]
role = pytest.mark.parametrize("role", ROLES)
Role = type[ClientConnection] | type[WorkerConnection]

ONE, TWO, THREE = RequestId(1), RequestId(2), RequestId(3)
EOF_REASON = "the server closed the connection"


# Requests and their answers


@role
@given(data=strategies.payloads())
def test_echo_is_answered_with_the_same_data(role: Role, data: bytes) -> None:
    connection = role()
    assert connection.echo(data) == 1
    assert output(connection) == [EchoReq(data)]
    assert receive(connection, EchoRes(data)) == [Echoed(ONE, data)]


@role
def test_echo_with_other_data_ends_the_connection(role: Role) -> None:
    connection = role()
    connection.echo(b"one")
    connection.receive_data(sent(EchoRes(b"two")))
    message = f"{role.__name__[:6].lower()}: ECHO_RES with other data than ECHO_REQ"
    assert drain_to_error(connection) == ([], message, [RequestLost(ONE, sent=False), ConnectionClosed(message)])


@role
def test_option_is_set(role: Role) -> None:
    connection = role()
    request = connection.set_option(b"exceptions")
    assert output(connection) == [OptionReq(b"exceptions")]
    assert receive(connection, OptionRes(b"exceptions")) == [OptionSet(request, b"exceptions")]


@role
def test_unknown_option_fails(role: Role) -> None:
    connection = role()
    connection.set_option(b"nonsense")
    error = Error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
    assert receive(connection, error) == [RequestFailed(ONE, error.code, error.text)]
    assert not connection.closed


@role
@pytest.mark.parametrize("refusal", [Error(b"UNKNOWN_OPTION", b""), Error(b"unknown", b"no such option"), None])
def test_optional_option_may_be_refused_or_passed_over(role: Role, refusal: Error | None) -> None:
    connection = role()
    option, echo = connection.set_option(b"o", optional=True), connection.echo(b"x")
    if refusal is None:
        refusal = Error(b"NO_ANSWER", b"the server passed over the request")
        events = receive(connection, EchoRes(b"x"))
    else:
        events = receive(connection, refusal, EchoRes(b"x"))
    assert set(events) == {RequestFailed(option, refusal.code, refusal.text), Echoed(echo, b"x")}
    assert not connection.closed


@role
def test_optional_option_that_was_passed_over_makes_way_for_a_text_answer(role: Role) -> None:
    connection = role()
    options = [connection.set_option(b"o", optional=True) for _ in range(2)]
    version = connection.admin(admin.Version())
    connection.receive_data(b"OK 1\n")
    *failed, replied = sorted(drain(connection), key=lambda event: str(event.request))  # type: ignore[attr-defined]
    assert [event.request for event in failed] == options  # type: ignore[attr-defined]
    assert replied == AdminReplied(version, admin.Ok(b"1"))


@pytest.mark.parametrize("refuses", [False, True])
def test_error_about_something_else_answers_the_request_behind_an_optional_one(refuses: bool) -> None:
    client = ClientConnection()
    if refuses:  # a server that refuses options in its own words may do so once more
        client.set_option(b"first")
        receive(client, Error(b"INVALID_COMMAND", b""))
    option, job = client.set_option(b"o", optional=True), client.submit_job(b"f", b"")
    client.data_to_send()
    events = receive(client, Error(b"INVALID_COMMAND", b""))
    if refuses:
        assert events == [RequestFailed(option, b"INVALID_COMMAND", b"")]
    else:
        no_answer = RequestFailed(option, b"NO_ANSWER", b"the server passed over the request")
        assert set(events) == {no_answer, JobEnded(job, None, Rejected(b"INVALID_COMMAND", b""))}


@role
@given(answer=strategies.replies(), data=st.data())
def test_text_command_is_answered_by_one_reply(
    role: Role, answer: tuple[admin.Command[Any], admin.Reply], data: st.DataObject
) -> None:
    command, reply = answer
    connection = role()
    request = connection.admin(command)
    output(connection)
    stream = reply.encode()
    events: list[Event] = []
    for chunk in data.draw(strategies.splits(stream)):
        assert not events
        connection.receive_data(chunk)
        events = drain(connection)
    (event,) = events
    assert isinstance(event, AdminReplied)
    assert event.request == request
    assert event.reply.encode() == stream


@role
def test_packets_and_text_share_a_connection(role: Role) -> None:
    connection = role()
    connection.echo(b"1")
    connection.admin(admin.Status())
    connection.echo(b"\n.\n")
    assert output(connection) == [EchoReq(b"1"), Line(b"status"), EchoReq(b"\n.\n")]
    connection.receive_data(sent(EchoRes(b"1")) + b"f\t1\t2\t3\n.\n" + sent(EchoRes(b"\n.\n")))
    row = admin.FunctionStatus(b"f", 1, 2, 3)
    assert drain(connection) == [
        Echoed(ONE, b"1"),
        AdminReplied(TWO, admin.Rows((row,))),
        Echoed(THREE, b"\n.\n"),
    ]


@role
def test_answers_out_of_order_end_the_connection(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.set_option(b"o")
    connection.data_to_send()
    message = f"{role.__name__[:6].lower()}: OPTION_RES while awaiting ECHO_RES"
    connection.receive_data(sent(OptionRes(b"o"), EchoRes(b"x")))
    assert drain_to_error(connection) == (
        [],
        message,
        [RequestLost(ONE, sent=True), RequestLost(TWO, sent=True), ConnectionClosed(message)],
    )


@role
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sent(EchoRes(b"x")), "ECHO_RES while no request is open"),
        (sent(OptionRes(b"x")), "OPTION_RES while no request is open"),
        (b"ERR UNKNOWN_COMMAND Unknown+server+command\n", "text b'ERR UNKNOWN_COMMAND Unkn' while no request is open"),
        (b"x" * 5000 + b"\n", "text b'" + "x" * 24 + "' while no request is open"),
        (EchoReq(b"x").encode(), "ECHO_REQ is not a request that a {role} receives"),
        (EchoReq(b"x").encode(b"\0RES"), "ECHO_REQ is not a response that a {role} receives"),
        (b"\0RES\0\0\0\x13\0\0\0\x01x", "ERROR: 1 arguments, not 2"),
    ],
)
def test_answer_to_nothing_ends_the_connection(role: Role, data: bytes, reason: str) -> None:
    connection = role()
    connection.receive_data(data)
    name = role.__name__[:6].lower()
    message = f"{name}: {reason.format(role=name)}"
    assert drain_to_error(connection) == ([], message, [ConnectionClosed(message)])
    assert connection.closed


@role
def test_text_while_a_packet_is_awaited_ends_the_connection(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.receive_data(b"OK\n")
    with pytest.raises(RemoteProtocolError, match="text b'OK' while awaiting ECHO_RES"):
        drain(connection)


@role
def test_packet_while_text_is_awaited_ends_the_connection(role: Role) -> None:
    connection = role()
    connection.admin(admin.ShowJobs())
    connection.echo(b"x")
    with pytest.raises(RemoteProtocolError, match="ECHO_RES while awaiting the answer to show jobs"):
        receive(connection, EchoRes(b"x"))


@role
def test_error_while_nothing_is_awaited_is_an_event_of_its_own(role: Role) -> None:
    connection = role()
    error = Error(b"INVALID_COMMAND", b"Command not expected")
    assert receive(connection, error) == [error]
    assert not connection.closed


def test_error_answers_the_oldest_request_of_a_client() -> None:
    connection = ClientConnection()
    connection.echo(b"x")
    connection.admin(admin.Version())
    assert receive(connection, Error(b"A", b"a"), Error(b"B", b"b")) == [
        RequestFailed(ONE, b"A", b"a"),
        RequestFailed(TWO, b"B", b"b"),
    ]
    assert receive(connection, Error(b"C", b"c")) == [Error(b"C", b"c")]


@role
def test_reply_over_the_packet_limit_ends_the_connection(role: Role) -> None:
    connection = role(max_packet_size=100)
    connection.admin(admin.ShowUniqueJobs())
    connection.receive_data(b"123456789\n" * 10)
    assert drain(connection) == []
    connection.receive_data(b"\n.\n")
    with pytest.raises(RemoteProtocolError, match=r"^answer to show unique jobs: limit 100 bytes$"):
        drain(connection)


@role
def test_packet_over_the_limit_ends_the_connection(role: Role) -> None:
    connection = role(max_packet_size=10)
    connection.receive_data(sent(EchoRes(b"x" * 11))[:12])
    with pytest.raises(RemoteProtocolError, match=r"^ECHO_RES: 11 bytes, limit 10$"):
        drain(connection)


@role
def test_line_over_the_limit_ends_the_connection(role: Role) -> None:
    connection = role(max_line_size=10)
    connection.admin(admin.ShowUniqueJobs())
    connection.receive_data(b"123456789\n")
    assert drain(connection) == []
    connection.receive_data(b"1234567890")
    with pytest.raises(RemoteProtocolError, match=r"^text line of over 10 bytes$"):
        drain(connection)


# Output


@role
def test_output_leaves_in_the_order_of_the_calls_and_once(role: Role) -> None:
    connection = role()
    assert connection.data_to_send() == b""
    connection.echo(b"1")
    connection.set_option(b"2")
    expected = EchoReq(b"1").encode() + OptionReq(b"2").encode()
    assert connection.output_size == len(expected)
    assert connection.data_to_send() == expected
    assert connection.output_size == 0
    assert connection.data_to_send() == b""


Call = Callable[[Connection], object]
REFUSED: list[tuple[Call, str]] = [
    (lambda connection: connection.echo(b"x" * 41), "ECHO_REQ: 41 bytes, limit 40"),
    (lambda connection: connection.echo("x"), "ECHO_REQ: data must be bytes, not str"),  # type: ignore[arg-type]
    (lambda connection: connection.set_option(b"a\0b"), "OPTION_REQ: option must not hold NUL bytes"),
    (lambda connection: connection.set_option(b"x" * 8192), "OPTION_REQ: option has 8192 bytes, limit 8191"),
    (lambda connection: connection.admin(admin.CancelJob(b"")), "cancel job: empty argument"),
    (lambda connection: connection.admin(admin.MaxQueue(b"f", (1, 2))), "maxqueue: 2 sizes, not 0, 1 or 3"),
]


@role
@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused_call_leaves_the_connection_as_it_was(role: Role, call: Call, message: str) -> None:
    connection = role(max_packet_size=40)
    connection.echo(b"before")
    with pytest.raises(LocalProtocolError) as caught:
        call(connection)
    assert str(caught.value) == message
    assert connection.echo(b"after") == TWO
    assert output(connection) == [EchoReq(b"before"), EchoReq(b"after")]
    assert receive(connection, EchoRes(b"before"), EchoRes(b"after")) == [Echoed(ONE, b"before"), Echoed(TWO, b"after")]


@role
def test_output_over_its_limit_is_refused_until_some_is_taken(role: Role) -> None:
    connection = role(max_output_size=100)
    connection.echo(b"x" * 38)
    name = role.__name__[:6].lower()
    with pytest.raises(LocalProtocolError) as caught:
        connection.echo(b"x" * 39)
    assert str(caught.value) == f"{name}: ECHO_REQ of 51 bytes, output has 50 of 100"
    with pytest.raises(LocalProtocolError) as caught:
        connection.admin(admin.CancelJob(b"x" * 38))
    assert str(caught.value) == f"{name}: text command of 51 bytes, output has 50 of 100"
    connection.echo(b"x" * 38)  # fills it to the last byte
    assert connection.output_size == 100
    with pytest.raises(LocalProtocolError):
        connection.set_option(b"")
    connection.data_to_send()
    assert connection.set_option(b"") == THREE


@role
def test_output_limit_has_the_documented_default(role: Role) -> None:
    assert DEFAULT_MAX_OUTPUT_SIZE == 256 * 1024 * 1024
    connection = role()
    for _ in range(8):
        connection.echo(bytes(32 * 1024 * 1024 - 12))
    with pytest.raises(LocalProtocolError):
        connection.echo(b"")


# The end


@role
def test_end_of_stream_ends_the_connection(role: Role) -> None:
    connection = role()
    assert not connection.closed
    connection.receive_eof()
    assert not connection.closed
    assert connection.next_event() == ConnectionClosed(EOF_REASON)
    assert connection.closed
    assert connection.next_event() is None


@role
@given(packet=st.sampled_from([EchoRes(b"abc"), Error(b"code", b"text")]), data=st.data())
def test_end_of_stream_inside_a_message_is_an_error(role: Role, packet: Packet, data: st.DataObject) -> None:
    stream = sent(packet)
    size = data.draw(st.integers(1, len(stream) - 1))
    connection = role()
    connection.echo(b"abc")
    connection.receive_data(stream[:size])
    connection.receive_eof()
    message = f"{role.__name__[:6].lower()}: the server closed the connection {size} bytes into a message"
    assert drain_to_error(connection) == ([], message, [RequestLost(ONE, sent=False), ConnectionClosed(message)])


@role
def test_events_that_have_arrived_come_before_the_end_of_stream(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.receive_data(sent(EchoRes(b"x")))
    connection.receive_eof()
    assert drain(connection) == [Echoed(ONE, b"x"), ConnectionClosed(EOF_REASON)]


@role
def test_lost_connection_ends_at_once(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.data_to_send()
    connection.receive_data(sent(EchoRes(b"x")))
    connection.connection_lost("reset by peer")
    connection.connection_lost("again")
    connection.receive_eof()
    connection.receive_data(sent(EchoRes(b"x")))
    assert drain(connection) == [RequestLost(ONE, sent=True), ConnectionClosed("reset by peer")]
    assert connection.closed


@role
@given(data=st.data())
def test_request_is_sent_as_soon_as_one_byte_of_it_has_left(role: Role, data: st.DataObject) -> None:
    connection = role()
    connection.echo(b"taken")
    connection.admin(admin.Version())
    taken = len(connection.data_to_send())
    connection.set_option(b"not taken")
    unsent = data.draw(st.integers(0, taken))
    end = data.draw(st.sampled_from(["eof", "lost", "error", "lost with unsent"]))
    if end == "lost with unsent":
        connection.data_sent(data.draw(st.integers(0, taken)))
        connection.connection_lost("reset", unsent)
    else:
        first = data.draw(st.integers(0, taken - unsent))
        connection.data_sent(first)
        connection.data_sent(taken - unsent - first)
        connection.receive_data(b"\0bad" + bytes(8) if end == "error" else b"")
        if end == "lost":
            connection.connection_lost("reset")
        else:
            connection.receive_eof()
    before, error, after = drain_to_error(connection)
    assert (error is None) == (end != "error")
    echo_size = len(EchoReq(b"taken").encode())
    left = taken - unsent
    *lost, closed = before + after
    assert lost == [
        RequestLost(ONE, sent=left > 0),
        RequestLost(TWO, sent=left > echo_size),
        RequestLost(THREE, sent=False),
    ]
    assert isinstance(closed, ConnectionClosed)


@role
def test_first_end_of_stream_counts(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.data_to_send()
    connection.data_sent(0)
    connection.receive_eof()
    connection.receive_eof()
    assert drain(connection) == [RequestLost(ONE, sent=False), ConnectionClosed(EOF_REASON)]


@role
@pytest.mark.parametrize("ending", ["eof", "lost", "error"])
def test_nothing_can_be_asked_after_the_end(role: Role, ending: str) -> None:
    connection = role()
    connection.echo(b"waits")
    if ending == "lost":
        connection.connection_lost("gone")
    elif ending == "eof":
        connection.receive_eof()
    else:
        connection.receive_data(b"\0bad" + bytes(8))
        drain_to_error(connection)
    name = role.__name__[:6].lower()
    calls: list[tuple[Call, str]] = [
        (lambda connection: connection.echo(b""), "ECHO_REQ"),
        (lambda connection: connection.set_option(b""), "OPTION_REQ"),
        (lambda connection: connection.admin(admin.Status()), "text command"),
    ]
    for call, what in calls:
        with pytest.raises(LocalProtocolError) as caught:
            call(connection)
        assert str(caught.value) == f"{name}: {what} on a connection that has ended"


@role
def test_nothing_waits_for_output_after_the_end(role: Role) -> None:
    connection = role()
    connection.echo(b"x")
    connection.connection_lost("gone")
    assert connection.data_to_send() == b""
    assert connection.output_size == 0


@role
def test_output_may_still_be_taken_after_the_end_of_input(role: Role) -> None:
    # The server may have closed one direction only.
    connection = role()
    connection.echo(b"x")
    connection.receive_eof()
    assert output(connection) == [EchoReq(b"x")]
    assert drain(connection) == [RequestLost(ONE, sent=True), ConnectionClosed(EOF_REASON)]


_streams = st.one_of(
    st.binary(max_size=100),
    st.lists(strategies.packets(Route.FROM_SERVER) | strategies.packets(), max_size=5).map(
        lambda packets: sent(*packets)
    ),
    strategies.mutations(
        st.lists(strategies.packets(Route.FROM_SERVER), max_size=5).map(lambda packets: sent(*packets))
    ),
)


@role
@given(stream=_streams, data=st.data())
def test_any_bytes_of_a_server_give_events_or_a_protocol_error(role: Role, stream: bytes, data: st.DataObject) -> None:
    connection = role(max_packet_size=200)
    connection.echo(b"x")
    connection.admin(admin.Version())
    connection.set_option(b"x")
    for chunk in data.draw(strategies.splits(stream)):
        connection.receive_data(chunk)
        before, error, after = drain_to_error(connection)
        assert all(isinstance(event, Event) for event in before + after)
        assert connection.closed == (error is not None)
        if connection.closed:
            assert after[-1] == ConnectionClosed(str(error))
            break
    else:
        connection.receive_eof()
        before, error, after = drain_to_error(connection)
        assert isinstance((before + after)[-1], ConnectionClosed)
    assert connection.closed


class Replay:
    """A socket on which a server has sent some chunks, and then the end."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        return next(self._chunks, b"")


def _loop_of_the_page() -> Callable[[Connection, Replay, Callable[[Event], object]], None]:
    """Return the function ``run`` of the page on the protocol."""
    page = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    match = re.search(r"^def run\(.*?(?=^\S)", page.partition("```python")[2], re.DOTALL | re.MULTILINE)
    assert match is not None
    select = SimpleNamespace(select=lambda read, write, others, _timeout: (read, write, others))
    names: dict[str, Any] = {"time": time, "select": select}
    exec(match[0], names)
    run: Callable[[Connection, Replay, Callable[[Event], object]], None] = names["run"]
    return run


_run_of_the_page = _loop_of_the_page()


@role
@given(stream=_streams, data=st.data())
def test_loop_of_the_page_on_the_protocol_loses_no_event(role: Role, stream: bytes, data: st.DataObject) -> None:
    def asked() -> Connection:
        connection = role(max_packet_size=200)
        connection.echo(b"x")
        connection.admin(admin.Version())
        connection.set_option(b"x")
        return connection

    chunks = data.draw(strategies.splits(stream))
    plain = asked()
    plain.data_to_send()
    plain.receive_data(stream)
    plain.receive_eof()
    before, _error, after = drain_to_error(plain)
    seen: list[Event] = []
    _run_of_the_page(asked(), Replay(chunks), seen.append)
    assert seen == before + after


# Signs of life


@role
def test_connection_without_probes_has_no_deadline(role: Role) -> None:
    connection = role(now=100)
    assert connection.next_deadline() is None
    connection.handle_timeout(1e9)
    assert connection.data_to_send() == b""


@role
def test_silent_server_is_probed_and_given_up(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=100)
    connection.set_option(b"x")
    connection.data_to_send()
    assert connection.next_deadline() == 130
    connection.handle_timeout(129.9)
    assert connection.data_to_send() == b""
    connection.handle_timeout(130)
    assert output(connection) == [EchoReq(b"probe")]
    assert connection.next_deadline() == 135
    connection.handle_timeout(134.9)
    assert not connection.closed
    connection.handle_timeout(135)
    assert connection.next_deadline() is None
    reason = "no answer to ECHO_REQ within 5 s"
    assert drain(connection) == [RequestLost(ONE, sent=True), ConnectionClosed(reason, silent=True)]
    connection.handle_timeout(1000)
    assert connection.data_to_send() == b""


@role
def test_probe_that_is_answered_shows_nowhere(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=100)
    connection.handle_timeout(130)
    connection.data_to_send()
    assert receive(connection, EchoRes(b"probe")) == []
    assert connection.echo(b"mine") == ONE
    connection.handle_timeout(135)
    assert connection.next_deadline() == 165
    assert output(connection) == [EchoReq(b"mine")]
    assert receive(connection, EchoRes(b"mine")) == [Echoed(ONE, b"mine")]


@role
def test_any_byte_is_a_sign_of_life(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=100)
    connection.echo(b"x")
    connection.data_to_send()
    for now, byte in zip(range(130, 1000, 30), sent(EchoRes(b"x")), strict=False):
        connection.receive_data(bytes([byte]))
        connection.handle_timeout(now)
        assert connection.next_deadline() == now + 30
    assert connection.data_to_send() == b""
    deadline = connection.next_deadline()
    assert deadline is not None
    connection.handle_timeout(deadline)
    assert output(connection) == [EchoReq(b"probe")]


@role
def test_any_byte_after_a_probe_saves_the_connection(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=100)
    connection.handle_timeout(130)
    connection.receive_data(sent(EchoRes(b"probe"))[:1])
    connection.handle_timeout(135)
    assert not connection.closed
    assert connection.next_deadline() == 165
    connection.data_to_send()
    connection.handle_timeout(165)
    assert not connection.closed
    assert output(connection) == [EchoReq(b"probe")]
    assert connection.next_deadline() == 170


@role
def test_probe_comes_one_interval_after_the_last_byte(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=100)
    connection.echo(b"x")
    connection.data_to_send()
    answer = sent(EchoRes(b"x"))
    connection.receive_data(answer[:1], 101)
    connection.receive_data(answer[1:2], 129)
    connection.handle_timeout(130)
    assert connection.data_to_send() == b""
    assert connection.next_deadline() == 159
    connection.handle_timeout(159)
    assert output(connection) == [EchoReq(b"probe")]
    connection.receive_data(answer[2:3], 163)
    assert connection.next_deadline() == 193
    connection.handle_timeout(193)
    connection.handle_timeout(198)
    assert drain(connection)[-1] == ConnectionClosed("no answer to ECHO_REQ within 5 s", silent=True)


@role
@given(data=st.data())
def test_output_that_goes_on_leaving_keeps_the_connection_and_a_stall_ends_it(role: Role, data: st.DataObject) -> None:
    """Of large output some leaves from time to time, while the server has nothing to say: then it leaves no more."""
    connection = role(probe_interval=30, probe_timeout=5, max_packet_size=1_000_000, now=0)
    connection.echo(bytes(data.draw(st.integers(100_000, 1_000_000))))
    now, held = 0.0, len(connection.data_to_send())
    timed = data.draw(st.booleans())
    part = data.draw(st.integers(1, 20_000))
    connection.data_sent(part)  # what the system takes at once
    held -= part
    while held > part and data.draw(st.integers(0, 20)):
        wait = now + data.draw(st.floats(0, 35, exclude_max=True))  # from one sign of life to the end
        while (deadline := connection.next_deadline()) is not None and deadline < wait:
            connection.handle_timeout(deadline)
        now = wait
        connection.data_sent(part, now if timed else None)
        held -= part
    assert not connection.closed
    while (deadline := connection.next_deadline()) is not None:
        now = deadline
        connection.handle_timeout(now)
    ends = drain(connection)
    assert ends[-1] == ConnectionClosed("no output could be sent within 5 s", silent=True)
    assert ends[0] == RequestLost(ONE, sent=True)


@role
def test_stalled_output_is_given_up_as_soon_as_silence_is(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=0)
    connection.echo(bytes(1000))
    connection.data_to_send()
    connection.data_sent(400, 1)
    connection.data_sent(100, 12)
    assert connection.next_deadline() == 42
    connection.handle_timeout(42)
    connection.handle_timeout(46.9)
    assert not connection.closed
    connection.handle_timeout(47)
    assert drain(connection)[-1] == ConnectionClosed("no output could be sent within 5 s", silent=True)


@role
def test_probe_of_which_a_part_had_to_wait_shows_life_by_leaving(role: Role) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=0)
    connection.echo(b"")
    connection.data_sent(len(connection.data_to_send()), 0)
    connection.handle_timeout(30)
    size = len(connection.data_to_send())
    connection.data_sent(size - 1, 33)
    assert connection.next_deadline() == 35
    connection.data_sent(1, 34)
    assert connection.next_deadline() == 64


@role
@pytest.mark.parametrize(("timed", "end"), [(True, 39), (False, 40)])
def test_time_of_a_probe_begins_when_it_has_left(role: Role, timed: bool, end: float) -> None:
    connection = role(probe_interval=30, probe_timeout=5, now=0)
    connection.echo(b"")
    connection.data_sent(len(connection.data_to_send()), 0)
    connection.handle_timeout(30)
    connection.data_sent(len(connection.data_to_send()), 34 if timed else None)
    connection.handle_timeout(35)
    assert connection.next_deadline() == end
    connection.handle_timeout(end)
    assert drain(connection)[-1] == ConnectionClosed("no answer to ECHO_REQ within 5 s", silent=True)


@role
def test_output_that_leaves_at_once_is_no_sign_of_life(role: Role) -> None:
    """The system takes it, also for a server that hangs."""
    connection = role(probe_interval=30, probe_timeout=5, now=0)
    for now in range(37):
        connection.echo(b"x")
        connection.data_sent(len(connection.data_to_send()), now)
        connection.handle_timeout(now)
    assert drain(connection)[-1] == ConnectionClosed("no answer to ECHO_REQ within 5 s", silent=True)


@role
@given(data=st.data())
def test_only_what_was_taken_can_have_left(role: Role, data: st.DataObject) -> None:
    connection = role()
    connection.echo(b"taken")
    taken = len(connection.data_to_send())
    connection.echo(b"not taken")
    first = data.draw(st.integers(0, taken))
    connection.data_sent(first)
    wrong = data.draw(st.one_of(st.integers(max_value=-1), st.integers(taken - first + 1)))
    with pytest.raises(LocalProtocolError, match=f"{wrong} bytes reported as sent, and {taken - first} bytes wait"):
        connection.data_sent(wrong)
    more = data.draw(st.one_of(st.integers(max_value=-1), st.integers(taken + 1)))
    with pytest.raises(LocalProtocolError, match=f"{more} bytes unsent, and {taken} bytes were taken"):
        connection.connection_lost("reset", more)
    assert not connection.closed
    connection.connection_lost("reset")
    connection.data_sent(wrong)  # like all that comes after the end
    connection.connection_lost("again", more)
    assert drain(connection)[:2] == [RequestLost(ONE, sent=first > 0), RequestLost(TWO, sent=False)]


@role
@pytest.mark.parametrize("reports", [False, True])
def test_server_that_refuses_the_connection_has_read_nothing(role: Role, reports: bool) -> None:
    connection = role()
    connection.echo(b"sent")
    sent = len(connection.data_to_send())
    if reports:
        connection.data_sent(sent)
    connection.echo(b"not taken")
    connection.receive_data(b"")
    connection.connection_refused("it wants a certificate")
    connection.connection_refused("again")
    assert drain(connection) == [
        RequestLost(ONE, sent=False),
        RequestLost(TWO, sent=False),
        ConnectionClosed("it wants a certificate", refused=True),
    ]


@role
def test_server_that_has_spoken_may_have_read_all_before_it_refuses(role: Role) -> None:
    connection = role()
    connection.echo(b"sent")
    connection.data_to_send()
    connection.receive_data(b"\0")
    connection.connection_refused("late")
    assert drain(connection) == [RequestLost(ONE, sent=True), ConnectionClosed("late", refused=True)]


@role
@pytest.mark.parametrize("requests", [0, 2])
def test_server_without_room_has_read_nothing(role: Role, requests: int) -> None:
    connection = role()
    sent = [connection.echo(b"sent") for _ in range(requests)]
    connection.data_to_send()
    reason = "the server refuses it: too many connections"
    assert receive(connection, Error(TOO_MANY_CONNECTIONS, b"too many connections")) == [
        *(RequestLost(request, sent=False) for request in sent),
        ConnectionClosed(reason, refused=True),
    ]


@role
def test_server_that_has_answered_has_room(role: Role) -> None:
    connection = role()
    connection.echo(b"one")
    connection.echo(b"two")
    connection.data_to_send()
    _echoed, event = receive(connection, EchoRes(b"one"), Error(TOO_MANY_CONNECTIONS, b"text"))
    assert isinstance(event, RequestFailed | Error)
    assert not connection.closed


@role
def test_refusal_after_the_end_changes_nothing(role: Role) -> None:
    connection = role()
    connection.echo(b"sent")
    connection.data_to_send()
    connection.connection_lost("gone")
    connection.connection_refused("late")
    assert drain(connection) == [RequestLost(ONE, sent=True), ConnectionClosed("gone")]


@role
def test_all_that_was_taken_counts_as_sent_if_nobody_reports(role: Role) -> None:
    connection = role()
    connection.echo(b"taken")
    connection.data_to_send()
    connection.echo(b"not taken")
    connection.connection_lost("reset")
    assert drain(connection)[:2] == [RequestLost(ONE, sent=True), RequestLost(TWO, sent=False)]


@role
def test_no_bytes_are_no_sign_of_life(role: Role) -> None:
    connection = role(probe_interval=30, now=100)
    connection.receive_data(b"")
    connection.handle_timeout(130)
    assert output(connection) == [EchoReq(b"probe")]


@role
def test_probe_and_echo_of_the_caller_are_told_apart_by_order(role: Role) -> None:
    connection = role(probe_interval=30, now=100)
    connection.echo(b"probe")
    connection.handle_timeout(130)
    connection.echo(b"last")
    assert receive(connection, EchoRes(b"probe"), EchoRes(b"probe"), EchoRes(b"last")) == [
        Echoed(ONE, b"probe"),
        Echoed(TWO, b"last"),
    ]


@role
@pytest.mark.parametrize("probed", [False, True])
def test_probes_rest_while_nobody_reads(role: Role, probed: bool) -> None:
    connection = role(probe_interval=30, probe_timeout=10, now=100)
    if probed:
        connection.handle_timeout(130)
        assert output(connection) == [EchoReq(b"probe")]
    connection.rest()
    assert connection.next_deadline() is None
    connection.handle_timeout(10_000)
    assert (output(connection), connection.closed) == ([], False)
    connection.resume(10_000)
    assert connection.next_deadline() == 10_030
    connection.handle_timeout(10_030)
    assert output(connection) == [EchoReq(b"probe")]
    connection.handle_timeout(10_040)
    assert drain(connection) == [ConnectionClosed("no answer to ECHO_REQ within 10 s", silent=True)]


@role
def test_lost_probe_is_no_lost_request(role: Role) -> None:
    connection = role(probe_interval=30, now=100)
    connection.handle_timeout(130)
    connection.connection_lost("gone")
    assert drain(connection) == [ConnectionClosed("gone")]


def test_client_whose_server_refuses_a_probe_goes_on() -> None:
    connection = ClientConnection(probe_interval=30, now=100)
    connection.handle_timeout(130)
    assert receive(connection, Error(b"INVALID_COMMAND", b"")) == []
    assert not connection.closed


# Servers on trial


@role
def test_server_on_trial_is_asked_first_and_its_answer_ends_the_trial(role: Role) -> None:
    connection = role(now=100)
    assert not connection.on_trial
    connection.require_answer(100, 5)
    connection.set_option(b"x")
    assert output(connection) == [EchoReq(b"trial"), OptionReq(b"x")]
    assert connection.next_deadline() == 105
    connection.handle_timeout(104.9)
    assert connection.on_trial
    events = receive(connection, EchoRes(b"trial"), OptionRes(b"x"))
    assert [type(event) for event in events] == [Answered, OptionSet]
    assert not connection.on_trial
    assert connection.next_deadline() is None
    connection.handle_timeout(105)
    assert not connection.closed


@role
def test_server_on_trial_that_does_not_answer_in_time_is_given_up_as_silent(role: Role) -> None:
    connection = role(now=100)
    connection.require_answer(100, 5)
    request = connection.echo(b"x")
    connection.data_to_send()
    connection.handle_timeout(105)
    reason = "no answer within 5 s"
    assert drain(connection) == [RequestLost(request, sent=True), ConnectionClosed(reason, silent=True)]
    assert connection.next_deadline() is None


@role
def test_trial_and_probes_have_their_own_times(role: Role) -> None:
    connection = role(now=100, probe_interval=3, probe_timeout=10)
    connection.require_answer(100, 5)
    connection.data_to_send()
    assert connection.next_deadline() == 103
    connection.handle_timeout(103)
    assert output(connection) == [EchoReq(b"probe")]
    assert connection.next_deadline() == 105
    assert receive(connection, EchoRes(b"trial")) == [Answered()]
    assert receive(connection, EchoRes(b"probe")) == []
