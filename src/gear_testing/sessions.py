"""Whole conversations of one peer with a job server, made with the engine itself.

A `Stage` is a job server with the peer of the session and somebody at the other end: a worker that runs the client's
jobs, or a client whose jobs the worker gets. Each step of a session sends one message and lets the other end act, so
that handles are real and answers come in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gearproto import admin
from gearproto.codec import Packet, Route, decoders
from gearproto.event import Event
from gearproto.framing import Decoder
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    OptionReq,
    PreSleep,
    ResetAbilities,
    SetClientId,
    SubmitJobEpoch,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.server import Engine, PeerId

__all__ = ["ROLES", "Exchange", "Message", "Role", "Session", "play"]

Role = Literal["client", "worker", "administrator"]
"""What a peer is to a job server."""

ROLES: Final[tuple[Role, ...]] = ("client", "worker", "administrator")
"""Every role."""

Message = Packet | admin.Command[Any]
"""What a peer sends: a packet or a text command. Both have ``encode()``."""

FUNCTIONS: Final = (b"reverse", b"resize", b"a\tb")
_UNIQUES: Final = (b"", b"", b"u", b"-")
_FROM_SERVER: Final = decoders(Route.FROM_SERVER)
_ASSIGNMENTS: Final = (JobAssign, JobAssignUniq, JobAssignAll)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message of a peer, and what it got before it sent the next one.

    Attributes:
        request: the message.
        answers: packets, and lines of answers to text commands. Not all of them answer this request: a result, or a
            wake-up, comes when it comes.
        data: the answers as bytes.
    """

    request: Message
    answers: tuple[Event, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation of one peer with a job server.

    Attributes:
        role: what the peer is.
        exchanges: what it sent and got.
    """

    role: Role
    exchanges: tuple[Exchange, ...]

    @property
    def to_server(self) -> bytes:
        """All bytes that the peer sends."""
        return b"".join(exchange.request.encode() for exchange in self.exchanges)

    @property
    def from_server(self) -> bytes:
        """All bytes that the peer gets."""
        return b"".join(exchange.data for exchange in self.exchanges)


class Stage:
    """A job server with two peers: the one whose session it is, and one at the other end.

    Attributes:
        handles: those that the peer has been told, as a client or as a worker.
        in_hand: those of the jobs that it runs.
    """

    def __init__(self) -> None:
        self._engine = Engine(handle_prefix=b"H:stage", epoch_offset=0.0)
        self._peer = self._engine.connect(0.0)
        self._other = self._engine.connect(0.0)
        self._decoders = {peer: Decoder(_FROM_SERVER) for peer in (self._peer, self._other)}
        self._output = {self._peer: b"", self._other: b""}
        self._exchanges: list[Exchange] = []
        self.handles: list[bytes] = []
        self.in_hand: list[bytes] = []

    def session(self, role: Role) -> Session:
        """Return what has been said."""
        return Session(role, tuple(self._exchanges))

    def say(self, request: Message, then: Callable[[], object] | None) -> None:
        """Let the peer send a message, and then the other end act.

        Args:
            request: the message.
            then: what the other end does.
        """
        self._receive(self._peer, request)
        if then is not None:
            then()
        data, answers = self._take(self._peer)
        for answer in answers:
            if isinstance(answer, JobCreated):
                self.handles.append(answer.handle)
            elif isinstance(answer, _ASSIGNMENTS):
                self.handles.append(answer.handle)
                self.in_hand.append(answer.handle)
        self._exchanges.append(Exchange(request, answers, data))

    def submit(self, packet: Packet) -> None:
        """Let the other end submit a job."""
        self._receive(self._other, packet)

    def work(self, function: bytes, reports: list[Callable[[bytes], Packet]]) -> None:
        """Let the other end run the next job of a function, if there is one.

        Args:
            function: the function.
            reports: make the reports of a handle.
        """
        self._receive(self._other, CanDo(function), GrabJob())
        for answer in self._take(self._other)[1]:
            if isinstance(answer, JobAssign):
                self._receive(self._other, *(report(answer.handle) for report in reports))
        self._receive(self._other, CantDo(function))

    def _receive(self, peer: PeerId, *messages: Message) -> None:
        engine = self._engine
        engine.receive_data(peer, b"".join(message.encode() for message in messages), 0.0)
        while engine.next_event() is not None:
            pass
        while (transmit := engine.next_transmit()) is not None:
            receiver, data = transmit
            self._output[receiver] += data

    def _take(self, peer: PeerId) -> tuple[bytes, tuple[Event, ...]]:
        data, self._output[peer] = self._output[peer], b""
        decoder = self._decoders[peer]
        decoder.feed(data)
        return data, tuple(iter(decoder.next, None))


# What may come next

_payloads: Final = st.binary(max_size=20)
_functions: Final = st.sampled_from(FUNCTIONS)
_uniques: Final = st.sampled_from(_UNIQUES)
_PLAIN: Final[tuple[Any, ...]] = tuple(
    cls for cls in SUBMISSIONS if cls not in (SubmitJobEpoch, SubmitReduceJob, SubmitReduceJobBackground)
)
_submissions: Final[SearchStrategy[Packet]] = st.one_of(
    st.builds(lambda cls, *args: cls(*args), st.sampled_from(_PLAIN), _functions, _uniques, _payloads),
    st.builds(SubmitJobEpoch, _functions, _uniques, st.integers(-1, 2**40), _payloads),
    st.builds(
        lambda cls, *args: cls(*args),
        st.sampled_from([SubmitReduceJob, SubmitReduceJobBackground]),
        _functions,
        _uniques,
        st.just(b"sum"),
        st.just(b""),
        _payloads,
    ),
)
_counts: Final = st.integers(0, 100)
_pieces: Final[SearchStrategy[Callable[[bytes], Packet]]] = st.one_of(
    st.builds(lambda done, of: lambda handle: WorkStatus(handle, done, of), _counts, _counts),
    st.builds(lambda cls, data: lambda handle: cls(handle, data), st.sampled_from([WorkData, WorkWarning]), _payloads),
)
_ends: Final[SearchStrategy[Callable[[bytes], Packet]]] = st.one_of(
    st.builds(
        lambda cls, data: lambda handle: cls(handle, data), st.sampled_from([WorkComplete, WorkException]), _payloads
    ),
    st.just(WorkFail),
)
_runs: Final = st.builds(lambda pieces, end: [*pieces, end], st.lists(_pieces, max_size=3), _ends)
_echoes: Final[SearchStrategy[Message]] = st.builds(EchoReq, _payloads)
_options: Final[SearchStrategy[Message]] = st.builds(OptionReq, st.sampled_from([b"exceptions", b"reruns", b"none"]))


def _client_step(draw: DrawFn, stage: Stage) -> None:
    handles = st.sampled_from([*stage.handles, b"H:nobody:1"])
    queries: SearchStrategy[Message] = st.builds(GetStatus, handles) | st.builds(GetStatusUnique, _uniques)
    lines: SearchStrategy[Message] = st.sampled_from([admin.Status(), admin.ShowJobs()])
    cancels: SearchStrategy[Message] = st.builds(admin.CancelJob, handles)
    request = draw(st.one_of(_submissions, _submissions, queries, _echoes, _options, lines, cancels))
    runs = draw(st.none() | st.tuples(_functions, _runs))
    stage.say(request, None if runs is None else partial(stage.work, *runs))


def _worker_step(draw: DrawFn, stage: Stage) -> None:
    abilities: SearchStrategy[Message] = st.one_of(
        st.builds(CanDo, _functions),
        st.builds(CanDoTimeout, _functions, st.integers(-1, 10**6)),
        st.builds(CantDo, _functions),
        st.just(ResetAbilities()),
        st.builds(SetClientId, st.sampled_from([b"", b"worker 1", b"\xff"])),
    )
    grabs: SearchStrategy[Message] = st.sampled_from([GrabJob(), GrabJobUniq(), GrabJobAll(), PreSleep()])
    kinds = [grabs, grabs, abilities, _echoes | _options]
    if stage.in_hand:
        job = draw(st.sampled_from(stage.in_hand))
        kinds[1:1] = [_pieces.map(lambda report: report(job)), _ends.map(lambda report: report(job))]
    request = draw(st.one_of(kinds))
    if isinstance(request, WorkComplete | WorkFail | WorkException):
        stage.in_hand.remove(request.handle)
    submission = draw(st.none() | _submissions)
    stage.say(request, None if submission is None else partial(stage.submit, submission))


def _administrator_step(draw: DrawFn, stage: Stage, commands: SearchStrategy[admin.Command[Any]]) -> None:
    submission = draw(st.none() | _submissions)
    stage.say(draw(commands), None if submission is None else partial(stage.submit, submission))


@st.composite
def play(draw: DrawFn, role: Role, max_size: int, commands: SearchStrategy[admin.Command[Any]]) -> Session:
    """Return a session.

    Args:
        draw: given by Hypothesis.
        role: what the peer is.
        max_size: most requests.
        commands: what an administrator may ask.
    """
    stage = Stage()
    if role == "worker" and draw(st.booleans()):
        for function in FUNCTIONS:
            stage.say(CanDo(function), None)
    for _ in range(draw(st.integers(1, max_size))):
        if role == "client":
            _client_step(draw, stage)
        elif role == "worker":
            _worker_step(draw, stage)
        else:
            _administrator_step(draw, stage, commands)
    return stage.session(role)
