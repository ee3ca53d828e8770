"""What the connections of clients and workers share: framing, output, requests and their answers, the end.

Theory of operation. A connection is open, then ended, then closed. `Connection._end` ends it, for whatever reason, and
turns every open request into an event. It is closed when the last event has been returned.

Open requests stand in the order in which they were sent, as servers answer in order. Three counters say where the
output is: bytes queued, of which some were taken, of which some were sent. A request that begins behind what was sent
when the connection ends was not sent.

A silent server is probed. The interval begins again with every sign of life; an unanswered probe, or output that does
not leave, ends the connection.

What never happens:

- A request has no answer, or two: it is taken off when its answer comes, or by the end.
- Something that was sent counts as not sent. A byte counts as queued before it can be taken.
- An event of the server overtakes another: input is parsed only when the events before it were returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from .admin import Command, ReplyReader
from .codec import HEADER, MAX_HANDLE_SIZE, Packet, Spec
from .errors import LocalProtocolError, RemoteProtocolError
from .event import Event
from .events import (
    AdminReplied,
    Answered,
    ConnectionClosed,
    Echoed,
    Line,
    MalformedPacket,
    OptionSet,
    RequestFailed,
    RequestId,
    RequestLost,
    UnexpectedPacket,
)
from .framing import DEFAULT_MAX_LINE_SIZE, DEFAULT_MAX_PACKET_SIZE, Decoder
from .options import DEFAULT_MAX_OUTPUT_SIZE, whole_number
from .packets import EchoReq, EchoRes, Error, OptionReq, OptionRes
from .timeouts import setting

__all__ = ["TOO_MANY_CONNECTIONS", "Connection", "encoded"]

TOO_MANY_CONNECTIONS: Final = b"TOO_MANY_CONNECTIONS"
"""The code of ``ERROR`` with which our server turns a connection away: it reads nothing of it."""


def encoded(packet: Packet, max_size: int, *, checked: bool = False) -> bytes:
    """Check a packet that the caller asked for, and return it as bytes.

    Args:
        packet: the packet.
        max_size: limit in bytes for what stands behind its header.
        checked: whether its arguments have been checked.

    Raises:
        LocalProtocolError: an argument breaks its rule, or the packet is over the limit.
    """
    if not checked:
        packet.validate()
    data = packet.encode()
    size = len(data) - HEADER.size
    if size > max_size:
        raise LocalProtocolError(f"{packet.spec.name}: {size} bytes, limit {max_size}")
    return data


class Request:
    """A request that awaits its answer.

    Attributes:
        id: what the caller knows it by; None for probes of the connection's own.
        awaits: the packet that answers it, or the reader of a text answer.
        start: where in the output stream it begins, in bytes.
        detail: what the kind of request needs to know.
        optional: whether a server may pass over it without an answer.
    """

    __slots__ = ("awaits", "detail", "id", "optional", "start")

    def __init__(self, id_: RequestId | None, awaits: type[Packet] | ReplyReader, start: int, detail: Any) -> None:
        self.id = id_
        self.awaits = awaits
        self.start = start
        self.detail = detail
        self.optional = False

    def __str__(self) -> str:
        """Name what the request awaits."""
        if isinstance(self.awaits, ReplyReader):
            return f"the answer to {b' '.join(self.awaits.command.words).decode()}"
        return self.awaits.spec.name


class Connection:
    """Base of `ClientConnection` and `WorkerConnection`: one connection to a job server, without any I/O.

    Pass on what arrives (`receive_data`, `receive_eof`), pull all events (`events`), send the output (`data_to_send`),
    report how much was sent (`data_sent`), and call `handle_timeout` at `next_deadline`. Requests only queue output.
    """

    _ROLE: ClassVar[str]
    _SPECS: ClassVar[Mapping[bytes, Spec]]
    _HANDLERS: ClassVar[dict[type[Event], Callable[[Any, Any], Event | None]]]

    def __init__(
        self,
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_output_size: int = DEFAULT_MAX_OUTPUT_SIZE,
        probe_interval: float | None = None,
        probe_timeout: float = 10.0,
        now: float = 0.0,
    ) -> None:
        """Begin a connection that the transport has just opened.

        Args:
            max_packet_size: limit in bytes for packets in both directions, without the header; also for a whole text
                answer.
            max_line_size: limit in bytes for a text line with its ending.
            max_output_size: limit in bytes for output that `data_to_send` has not taken; more is refused.
            probe_interval: seconds without a sign of life after which the server is probed (``ECHO_REQ``). Signs of
                life are received bytes, and output that had to wait and was then sent. None means never.
            probe_timeout: seconds that the server has to answer, counted from when the probe was sent; then the
                connection ends. It also ends if neither the probe nor other output can be sent in this time.
            now: monotonic time in seconds; only matters with a `probe_interval`.
        """
        self._max_packet = whole_number("max_packet_size", max_packet_size)
        self._max_output = whole_number("max_output_size", max_output_size)
        whole_number("max_line_size", max_line_size)
        self._decoder = Decoder(self._SPECS, max_packet_size=max_packet_size, max_line_size=max_line_size)
        self._events: deque[Event] = deque()
        self._requests: deque[Request] = deque()
        self._last_request = 0
        self._refuses_options = False  # whether the server has answered an OPTION_REQ with ERROR
        self._output: list[bytes] = []
        self._queued = 0  # bytes ever queued: where in the stream the next packet begins
        self._taken = 0  # bytes ever taken by data_to_send
        self._sent = 0  # bytes ever reported by data_sent
        self._counts_sent = False  # whether data_sent is in use; if not, what was taken counts as sent
        self._waited_to = 0  # output up to this position in the stream had to wait for the peer
        self._heard = False  # whether anything has arrived
        self._eof = False
        self._ended = False
        self._probe_interval = probe_interval
        if probe_interval is not None:
            self._probe_interval = setting("probe_interval", probe_interval, above_0=True)
        self._probe_timeout = setting("probe_timeout", probe_timeout, above_0=True)
        self._alive_at = now  # the latest sign of life
        self._alive = False  # there was another one, at an unknown time
        self._probe_end: int | None = None  # where in the stream the unanswered probe ends
        self._probed_at = 0.0  # when it was queued or sent
        self._probe_left = False  # it was sent at an unknown time
        self._rests = False  # the connection is not read
        self._answer_timeout = 0.0
        self._answer_by: float | None = None  # while the server is on trial

    @property
    def on_trial(self) -> bool:
        """Whether the server has yet to answer what `require_answer` has asked."""
        return self._answer_by is not None

    @property
    def closed(self) -> bool:
        """Whether the connection has ended and all its events have been returned."""
        return self._ended and not self._events

    @property
    def output_size(self) -> int:
        """How many bytes of output wait for `data_to_send`."""
        return self._queued - self._taken

    def receive_data(self, data: bytes, now: float | None = None) -> None:
        """Store what arrived. Never raises because of what the server sent; after the end it is ignored.

        Args:
            data: the bytes.
            now: monotonic time in seconds; only matters with a `probe_interval`, which begins again. Without it the
                bytes count as having arrived at the next `handle_timeout`, and the next probe comes up to one interval
                later.
        """
        if self._ended:
            return
        if data:
            self._heard = True
            self._show_life(now)
        self._decoder.feed(data)

    def data_sent(self, n: int, now: float | None = None) -> None:
        """Report that the next bytes taken by `data_to_send` were sent; ignored after the end.

        This decides between `NotSent` and `Lost` when the connection ends, and when a probe was sent. If your transport
        cannot tell, never call it; then everything that was taken counts as sent.

        Args:
            n: how many bytes.
            now: monotonic time in seconds, as in `receive_data`.

        Raises:
            LocalProtocolError: fewer bytes were taken and not reported yet.
        """
        if self._ended:
            return
        if not 0 <= n <= self._taken - self._sent:
            raise LocalProtocolError(
                f"{self._ROLE}: {n} bytes reported as sent, and {self._taken - self._sent} bytes wait to be sent"
            )
        probe = self._probe_end
        progress = n > 0 and self._sent < self._waited_to
        self._sent += n
        self._counts_sent = True
        self._waited_to = self._taken
        if progress:
            self._show_life(now)
        elif probe is not None and self._sent - n < probe <= self._sent:
            self._probe_left = now is None
            self._probed_at = self._probed_at if now is None else now

    def _show_life(self, now: float | None) -> None:
        """Record a sign of life: a probe is answered by it, and the interval to the next one begins."""
        self._probe_end = None
        self._alive = now is None
        if now is not None:
            self._alive_at = now

    def receive_eof(self) -> None:
        """Handle the end of input: the server sends nothing more. Events then end with `ConnectionClosed`."""
        self._eof = True

    def connection_lost(self, reason: str, unsent: int | None = None) -> None:
        """End the connection at once, because of the transport or the caller.

        Args:
            reason: why, as text.
            unsent: how many of the bytes taken by `data_to_send` were not sent. None means that `data_sent` has
                reported what was sent.

        Raises:
            LocalProtocolError: it is more than the bytes that were taken.
        """
        if unsent is not None and not self._ended:
            if not 0 <= unsent <= self._taken:
                raise LocalProtocolError(f"{self._ROLE}: {unsent} bytes unsent, and {self._taken} bytes were taken")
            self._sent = self._taken - unsent
            self._counts_sent = True
        self._end(reason)

    def connection_refused(self, reason: str) -> None:
        """End the connection because the server refuses it, for example because of a certificate.

        With TLS 1.3, a client may send before the server has verified its certificate. If the refusal is the first
        thing that the server sends, it has read nothing: what was sent counts as not sent, and may go to another
        server.

        Args:
            reason: why, as text.
        """
        if not self._heard and not self._ended:
            self._refused()
        self._end(reason, refused=True)

    def _refused(self) -> None:
        """Count all that was sent as not sent: the server has read nothing."""
        self._sent = 0
        self._counts_sent = True

    def next_event(self) -> Event | None:
        """Parse and return one event. None means that more input is needed, or that the connection has ended.

        Raises:
            RemoteProtocolError: the server broke the protocol, and the connection has ended. This is raised once:
                further calls return how the open requests ended, and `ConnectionClosed`. A loop that stops at the error
                loses these events; `events` does not.
        """
        while not self._events:
            if self._ended:
                return None
            try:
                received = self._decoder.next()
                if received is None:
                    if not self._eof:
                        return None
                    self._end_of_stream()
                    continue
                event = self._HANDLERS[type(received)](self, received)
            except RemoteProtocolError as error:  # what is open ends with an event each, which later calls return
                self._end(str(error))
                raise
            if event is not None:
                return event
        return self._events.popleft()

    def events(self) -> Iterator[Event]:
        """Yield events until more input is needed, or the connection has ended.

        Does not raise. If `next_event` would, the events after the error follow instead: the open requests end, and the
        reason in `ConnectionClosed` is the text of the error.
        """
        while True:
            try:
                event = self.next_event()
            except RemoteProtocolError:  # the events that follow end what is open, and tell the reason
                continue
            if event is None:
                return
            yield event

    def data_to_send(self) -> bytes:
        """Take all queued output; empty when there is none."""
        if not self._output:
            return b""
        data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
        self._taken = self._queued
        self._output.clear()
        return data

    def require_answer(self, now: float, timeout: float) -> None:
        """Put the server on trial: send an ``ECHO_REQ``, and end the connection if it is not answered in time.

        Call this first on a new connection to a server that was silent before: an operating system accepts connections
        even for a program that hangs. The event `Answered` says that the answer has arrived.

        Args:
            now: monotonic time in seconds.
            timeout: seconds that the server has to answer.
        """
        self._ask(EchoReq(b"trial"), EchoRes, b"trial")
        self._answer_timeout = timeout
        self._answer_by = now + timeout

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` has to be called, or None."""
        if self._ended:
            return None
        due = self._probe_due()
        if self._answer_by is None or (due is not None and due < self._answer_by):
            return due
        return self._answer_by

    def _probe_due(self) -> float | None:
        if self._rests or self._probe_interval is None:
            return None
        if self._probe_end is None:
            return self._alive_at + self._probe_interval
        return self._probed_at + self._probe_timeout

    def handle_timeout(self, now: float) -> None:
        """Do what is due: probe a silent server, or give it up.

        Args:
            now: monotonic time in seconds.
        """
        if self._ended:
            return
        if self._answer_by is not None and now >= self._answer_by:
            self._end(f"no answer within {self._answer_timeout:g} s", silent=True)
            return
        due = self._probe_due()
        if due is None or now < due:
            return
        if self._alive:
            self._show_life(now)
        elif self._probe_end is None:
            self._ask(EchoReq(b"probe"), EchoRes, b"probe")
            self._probe_end = self._queued
            self._probed_at = now
            self._waited_to = self._taken
        elif self._probe_left:
            self._probe_left = False
            self._probed_at = now
        elif self._counts_sent and self._sent < self._probe_end:
            self._end(f"no output could be sent within {self._probe_timeout:g} s", silent=True)
        else:
            self._end(f"no answer to ECHO_REQ within {self._probe_timeout:g} s", silent=True)

    def rest(self) -> None:
        """Suspend probes while the connection is not read; see `resume`."""
        self._rests = True

    def resume(self, now: float) -> None:
        """End a `rest`: the connection is read again. The interval to the next probe begins.

        Args:
            now: monotonic time in seconds.
        """
        self._rests = False
        self._show_life(now)

    def echo(self, data: bytes) -> RequestId:
        """Ask the server to send data back (``ECHO_REQ``). The answer is `Echoed`.

        Raises:
            LocalProtocolError: the data is over the packet limit, or the connection has ended.
        """
        return self._request(EchoReq(data), EchoRes, data)

    def set_option(self, option: bytes, *, optional: bool = False) -> RequestId:
        """Set an option of this connection (``OPTION_REQ``). The answer is `OptionSet` or `RequestFailed`.

        Args:
            option: its name; ``exceptions`` makes the server send ``WORK_EXCEPTION`` instead of ``WORK_FAIL``, and
                ``reruns``, which our own server knows, makes it send ``JOB_REQUEUED``.
            optional: whether the server may ignore an option that it does not know. Then the request fails when the
                answer to a later one arrives. An ``ERROR`` counts as such an answer unless it is about an option, or
                the server has answered another option with ``ERROR``.

        Raises:
            LocalProtocolError: the name holds NUL or is too long, or the connection has ended.
        """
        request = self._request(OptionReq(option), OptionRes, option)
        self._requests[-1].optional = optional
        return request

    def admin(self, command: Command[Any]) -> RequestId:
        """Send a text command. The answer is `AdminReplied`.

        Raises:
            LocalProtocolError: an argument is not valid, or the connection has ended.
        """
        line = command.encode()
        self._check_open("text command", len(line))
        reader = ReplyReader(command, self._max_packet)
        request = self._new_request(reader, None)
        self._queue(line)
        return request

    # Output: everything leaves through here, so that the order of the stream is the order of the calls.

    def _check_open(self, what: str, size: int) -> None:
        if self._ended or self._eof:
            raise LocalProtocolError(f"{self._ROLE}: {what} on a connection that has ended")
        if self.output_size + size > self._max_output:
            raise LocalProtocolError(
                f"{self._ROLE}: {what} of {size} bytes, output has {self.output_size} of {self._max_output}"
            )

    def _queue(self, data: bytes) -> None:
        self._queued += len(data)  # first: KeyboardInterrupt may come in between, and no uncounted byte may be sent
        self._output.append(data)

    def _send(self, packet: Packet) -> None:
        """Check and queue a packet that has no answer."""
        data = encoded(packet, self._max_packet)
        self._check_open(packet.spec.name, len(data))
        self._queue(data)

    def _request(self, packet: Packet, awaits: type[Packet], detail: Any = None) -> RequestId:
        """Check and queue a packet that is answered."""
        data = encoded(packet, self._max_packet)
        self._check_open(packet.spec.name, len(data))
        request = self._new_request(awaits, detail)
        self._queue(data)
        return request

    def _new_request(self, awaits: type[Packet] | ReplyReader, detail: Any) -> RequestId:
        self._last_request += 1
        request = RequestId(self._last_request)
        self._requests.append(Request(request, awaits, self._queued, detail))
        return request

    def _ask(self, packet: Packet, awaits: type[Packet], detail: Any = None) -> None:
        """Queue a request of the connection's own, which no caller knows of."""
        self._requests.append(Request(None, awaits, self._queued, detail))
        self._queue(packet.encode())

    # Input

    def _answered(self, packet: type[Packet]) -> Request:
        """Return the request that a packet answers: the oldest one, as servers answer in order."""
        if packet is not OptionRes:
            self._pass_over_options()
        if self._requests and self._requests[0].awaits is packet:
            return self._requests.popleft()
        raise RemoteProtocolError(f"{self._ROLE}: {packet.spec.name} while {self._awaiting()}")

    def _pass_over_options(self) -> None:
        """Fail the oldest requests if they are optional, as what has come answers a later one."""
        while self._requests and self._requests[0].optional:
            request = self._requests.popleft()
            assert request.id is not None
            self._events.append(RequestFailed(request.id, b"NO_ANSWER", b"the server passed over the request"))

    def _check_handle(self, packet: Packet, handle: bytes) -> None:
        """Refuse a handle that no packet can name."""
        if not 0 < len(handle) <= MAX_HANDLE_SIZE:
            raise RemoteProtocolError(
                f"{self._ROLE}: {packet.spec.name}: handle has {len(handle)} bytes, limit 1 to {MAX_HANDLE_SIZE}"
            )

    def _awaiting(self) -> str:
        return f"awaiting {self._requests[0]}" if self._requests else "no request is open"

    def _on_echo_res(self, packet: EchoRes) -> Event | None:
        request = self._answered(EchoRes)
        if packet.data != request.detail:
            self._requests.appendleft(request)  # it is still open, and is lost with the connection
            raise RemoteProtocolError(f"{self._ROLE}: ECHO_RES with other data than ECHO_REQ")
        if request.id is not None:
            return Echoed(request.id, packet.data)
        if self._answer_by is None:
            return None
        self._answer_by = None
        return Answered()

    def _on_option_res(self, packet: OptionRes) -> Event | None:
        request = self._answered(OptionRes)
        assert request.id is not None
        return OptionSet(request.id, packet.option)

    def _on_line(self, line: Line) -> Event | None:
        self._pass_over_options()
        reader = self._requests[0].awaits if self._requests else None
        if not isinstance(reader, ReplyReader):
            raise RemoteProtocolError(f"{self._ROLE}: text {line.text[:24]!r} while {self._awaiting()}")
        reply = reader.feed(line.text)
        if reply is None:
            return None
        request = self._requests.popleft()
        assert request.id is not None
        return AdminReplied(request.id, reply)

    def _on_error(self, packet: Error) -> Event | None:
        """Give ``ERROR`` to the oldest request; where none is open it is an event of its own."""
        if self._turned_away(packet):
            return None
        if not self._refuses_options and b"option" not in (packet.code + packet.text).lower():
            self._pass_over_options()
        if not self._requests:
            return packet
        request = self._requests.popleft()
        self._refuses_options |= request.awaits is OptionRes
        return None if request.id is None else self._failed(request, request.id, packet)

    def _turned_away(self, packet: Error) -> bool:
        """End the connection if the server turns it away, in which case it has read nothing."""
        if packet.code != TOO_MANY_CONNECTIONS or (self._requests and self._requests[0].id not in (None, 1)):
            return False  # it has answered before
        self._refused()
        self._end(f"the server refuses it: {packet.text.decode('utf-8', 'backslashreplace')}", refused=True)
        return True

    def _failed(self, request: Request, id_: RequestId, packet: Error) -> Event:
        del request
        return RequestFailed(id_, packet.code, packet.text)

    def _on_unexpected(self, packet: UnexpectedPacket) -> Event | None:
        kind = "response" if packet.response else "request"
        raise RemoteProtocolError(f"{self._ROLE}: {packet.packet} is not a {kind} that a {self._ROLE} receives")

    def _on_malformed(self, packet: MalformedPacket) -> Event | None:
        raise RemoteProtocolError(f"{self._ROLE}: {packet.packet}: {packet.reason}")

    # The end

    def _end_of_stream(self) -> None:
        if self._decoder.buffered:
            raise RemoteProtocolError(
                f"{self._ROLE}: the server closed the connection {self._decoder.buffered} bytes into a message"
            )
        self._end("the server closed the connection")

    def _end(self, reason: str, *, silent: bool = False, refused: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        left = self._sent if self._counts_sent else self._taken
        for request in self._requests:
            if request.id is not None:
                self._events.append(self._lost(request, request.id, request.start < left, reason))
        self._requests.clear()
        self._output.clear()
        self._taken = self._queued
        self._lose_rest(reason)
        self._events.append(ConnectionClosed(reason, silent, refused))

    def _lost(self, request: Request, id_: RequestId, sent: bool, reason: str) -> Event:
        """Return what the end means for an open request."""
        del request, reason
        return RequestLost(id_, sent)

    def _lose_rest(self, reason: str) -> None:
        """Report what the end means for everything but open requests."""


Connection._HANDLERS = {
    EchoRes: Connection._on_echo_res,
    OptionRes: Connection._on_option_res,
    Error: Connection._on_error,
    Line: Connection._on_line,
    UnexpectedPacket: Connection._on_unexpected,
    MalformedPacket: Connection._on_malformed,
}
