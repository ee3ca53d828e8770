import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing import strategies
from gearproto import LocalProtocolError, Priority, RemoteProtocolError, packets
from gearproto.addresses import Address
from gearproto.client import JobHandle
from gearproto.codec import (
    EXTENSIONS,
    HEADER,
    MAX_NUMBER,
    PACKETS,
    REQUEST,
    RESPONSE,
    Argument,
    Packet,
    Route,
    decoders,
)
from gearproto.event import Event
from gearproto.events import MalformedPacket, UnexpectedPacket
from gearproto.framing import Decoder
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CanDoTimeout,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GrabJob,
    GrabJobAll,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    JobRequeued,
    NoJob,
    Noop,
    OptionReq,
    PreSleep,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitReduceJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.server import Report, server_decoders

# The protocol document's table: number, name, and for each line magic and who sends or receives it.
TABLE = """
1 CAN_DO REQ Worker
2 CANT_DO REQ Worker
3 RESET_ABILITIES REQ Worker
4 PRE_SLEEP REQ Worker
6 NOOP RES Worker
7 SUBMIT_JOB REQ Client
8 JOB_CREATED RES Client
9 GRAB_JOB REQ Worker
10 NO_JOB RES Worker
11 JOB_ASSIGN RES Worker
12 WORK_STATUS REQ Worker RES Client
13 WORK_COMPLETE REQ Worker RES Client
14 WORK_FAIL REQ Worker RES Client
15 GET_STATUS REQ Client
16 ECHO_REQ REQ Client/Worker
17 ECHO_RES RES Client/Worker
18 SUBMIT_JOB_BG REQ Client
19 ERROR RES Client/Worker
20 STATUS_RES RES Client
21 SUBMIT_JOB_HIGH REQ Client
22 SET_CLIENT_ID REQ Worker
23 CAN_DO_TIMEOUT REQ Worker
24 ALL_YOURS REQ Worker
25 WORK_EXCEPTION REQ Worker RES Client
26 OPTION_REQ REQ Client/Worker
27 OPTION_RES RES Client/Worker
28 WORK_DATA REQ Worker RES Client
29 WORK_WARNING REQ Worker RES Client
30 GRAB_JOB_UNIQ REQ Worker
31 JOB_ASSIGN_UNIQ RES Worker
32 SUBMIT_JOB_HIGH_BG REQ Client
33 SUBMIT_JOB_LOW REQ Client
34 SUBMIT_JOB_LOW_BG REQ Client
35 SUBMIT_JOB_SCHED REQ Client
36 SUBMIT_JOB_EPOCH REQ Client
37 SUBMIT_REDUCE_JOB REQ Client
38 SUBMIT_REDUCE_JOB_BACKGROUND REQ Client
39 GRAB_JOB_ALL REQ Worker
40 JOB_ASSIGN_ALL RES Worker
41 GET_STATUS_UNIQUE REQ Client
42 STATUS_RES_UNIQUE RES Client
"""

# How many arguments a packet has, and which of them, all in all, are opaque data at the end.
ARGUMENTS = {
    **dict.fromkeys(["CAN_DO", "CANT_DO", "JOB_CREATED", "WORK_FAIL", "GET_STATUS", "GET_STATUS_UNIQUE"], (1, False)),
    **dict.fromkeys(["SET_CLIENT_ID", "OPTION_REQ", "OPTION_RES"], (1, False)),
    **dict.fromkeys(["RESET_ABILITIES", "PRE_SLEEP", "NOOP", "NO_JOB", "ALL_YOURS"], (0, False)),
    **dict.fromkeys(["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"], (0, False)),
    **dict.fromkeys(["ECHO_REQ", "ECHO_RES"], (1, True)),
    **dict.fromkeys(["WORK_DATA", "WORK_WARNING", "WORK_COMPLETE", "WORK_EXCEPTION"], (2, True)),
    **dict.fromkeys(["ERROR", "CAN_DO_TIMEOUT"], (2, False)),
    **dict.fromkeys(["SUBMIT_JOB", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_LOW", "JOB_ASSIGN"], (3, True)),
    **dict.fromkeys(["SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW_BG"], (3, True)),
    "WORK_STATUS": (3, False),
    **dict.fromkeys(["SUBMIT_JOB_EPOCH", "JOB_ASSIGN_UNIQ"], (4, True)),
    # The document gives these four arguments in all; servers and clients have one more, which nobody reads.
    **dict.fromkeys(["SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"], (5, True)),
    "JOB_ASSIGN_ALL": (5, True),
    "STATUS_RES": (5, False),
    "STATUS_RES_UNIQUE": (6, False),
    "SUBMIT_JOB_SCHED": (8, True),
}

REPORTS = (WorkStatus, WorkComplete, WorkFail, WorkException, WorkData, WorkWarning)
BARE = [cls for cls in PACKETS.values() if not cls.spec.arguments]
LONG = [cls for cls in PACKETS.values() if len(cls.spec.arguments) > 1]
SIDES = {
    "client": decoders(Route.TO_CLIENT),
    "worker": decoders(Route.TO_WORKER),
    "server": server_decoders(),
}
LIMITED = [
    pytest.param(cls, name, rule, id=f"{cls.spec.name}-{name}")
    for cls in PACKETS.values()
    for name, _kind, rule in cls.spec.arguments
    if rule.limit is not None
]


def decode(data: bytes, side: str) -> Event:
    decoder = Decoder(SIDES[side])
    decoder.feed(data)
    event = decoder.next()
    assert event is not None
    assert decoder.buffered == 0
    return event


def receivers(packet: Packet) -> list[tuple[bytes, str]]:
    """Under which magic a packet reaches whom."""
    route = packet.spec.route
    ways = {
        Route.TO_CLIENT: (RESPONSE, "client"),
        Route.TO_WORKER: (RESPONSE, "worker"),
        Route.FROM_CLIENT: (REQUEST, "server"),
        Route.FROM_WORKER: (REQUEST, "server"),
    }
    return [way for flag, way in ways.items() if route & flag]


def raw(number: int, body: bytes, magic: bytes = RESPONSE) -> bytes:
    return magic + number.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


def smallest(cls: type[Packet], **changed: object) -> Packet:
    """Make the smallest packet of a class that is valid, but for what is changed."""
    values = {
        name: changed.get(name, b"x"[rule.empty :] if kind is bytes else 0) for name, kind, rule in cls.spec.arguments
    }
    return cls(**values)


def test_table_equals_protocol_document() -> None:
    ours = []
    for number in sorted(PACKETS):
        spec = PACKETS[number].spec
        line = f"{spec.number} {spec.name}"
        for magic, client, worker in (
            ("REQ", Route.FROM_CLIENT, Route.FROM_WORKER),
            ("RES", Route.TO_CLIENT, Route.TO_WORKER),
        ):
            who = "/".join(name for name, flag in (("Client", client), ("Worker", worker)) if spec.route & flag)
            line += f" {magic} {who}" * bool(who)
        ours.append(line)
    assert ours == TABLE.split("\n")[1:-1]


def test_arguments_equal_protocol_document() -> None:
    ours = {cls.spec.name: (len(cls.spec.arguments), ends_in_payload(cls)) for cls in PACKETS.values()}
    assert ours == ARGUMENTS


def ends_in_payload(cls: type[Packet]) -> bool:
    rules = [rule for _name, _kind, rule in cls.spec.arguments]
    assert not any(rule.payload for rule in rules[:-1])
    return bool(rules) and rules[-1].payload


def test_extensions_are_far_from_the_document_and_only_clients_receive_them() -> None:
    assert min(EXTENSIONS) >= 10 * max(PACKETS)
    for number, cls in EXTENSIONS.items():
        assert (cls.spec.number, cls.spec.route) == (number, Route.TO_CLIENT)
        packet = smallest(cls, handle=b"H:1")
        assert decode(packet.encode(), "client") == packet
        for receiver in ("server", "worker"):
            with pytest.raises(RemoteProtocolError, match=f"unknown packet type {number}, known are 1 to 42"):
                decode(packet.encode(), receiver)
    assert JobRequeued(b"H:1").encode() == b"\0RES\0\0\x03\xe8\0\0\0\x03H:1"


def test_submissions_tell_priority_and_background_by_their_names() -> None:
    submissions = {cls for cls in PACKETS.values() if cls.spec.name.startswith("SUBMIT_")} - {packets.SubmitJobSched}
    assert set(SUBMISSIONS) == submissions
    for cls, (priority, background) in SUBMISSIONS.items():
        name = cls.spec.name
        assert background == name.endswith(("_BG", "_BACKGROUND", "_EPOCH"))
        assert priority == next((level for level in Priority if level.name in name), Priority.NORMAL)


def test_example_of_protocol_document_is_encoded_byte_by_byte() -> None:
    conversation: list[tuple[Packet, str]] = [
        (CanDo(b"reverse"), "00524551 00000001 00000007 72657665727365"),
        (GrabJob(), "00524551 00000009 00000000"),
        (NoJob(), "00524553 0000000a 00000000"),
        (PreSleep(), "00524551 00000004 00000000"),
        (SubmitJob(b"reverse", b"", b"test"), "00524551 00000007 0000000d 7265766572736500 00 74657374"),
        (JobCreated(b"H:lap:1"), "00524553 00000008 00000007 483a6c61703a31"),
        (Noop(), "00524553 00000006 00000000"),
        (
            JobAssign(b"H:lap:1", b"reverse", b"test"),
            "00524553 0000000b 00000014 483a6c61703a3100 7265766572736500 74657374",
        ),
        (WorkComplete(b"H:lap:1", b"tset"), "00524551 0000000d 0000000c 483a6c61703a3100 74736574"),
    ]
    for packet, golden in conversation:
        assert packet.encode() == bytes.fromhex(golden)
        magic, side = receivers(packet)[-1]
        assert packet.encode(magic) == packet.encode()
        if side != "server" or not isinstance(packet, REPORTS):
            assert decode(packet.encode(), side) == packet


def test_report_is_passed_on_with_magic_of_response() -> None:
    packet = WorkComplete(b"H:lap:1", b"tset")
    assert packet.encode(RESPONSE) == bytes.fromhex("00524553 0000000d 0000000c 483a6c61703a3100 74736574")
    assert decode(packet.encode(RESPONSE), "client") == packet


@given(strategies.packets())
def test_packet_survives_encoding_and_decoding(packet: Packet) -> None:
    packet.validate()
    for magic, side in receivers(packet):
        received = decode(packet.encode(magic), side)
        if isinstance(packet, REPORTS) and side == "server":
            body = packet.encode()[HEADER.size :]
            assert received == Report(type(packet), packet.handle, body)
        else:
            assert received == packet


@given(strategies.packets())
def test_packet_that_a_side_never_receives_is_unexpected(packet: Packet) -> None:
    expected = receivers(packet)
    for magic in (REQUEST, RESPONSE):
        for side in SIDES:
            received = decode(packet.encode(magic), side)
            unexpected = received == UnexpectedPacket(packet.spec.name, magic == RESPONSE)
            assert unexpected == ((magic, side) not in expected)


@pytest.mark.parametrize("side", SIDES)
def test_unused_number_is_unexpected(side: str) -> None:
    assert decode(raw(5, b"abc"), side) == UnexpectedPacket("(unused)", response=True)
    assert decode(raw(5, b"abc", REQUEST), side) == UnexpectedPacket("(unused)", response=False)


@given(strategies.packets_of(*BARE), strategies.payloads())
def test_data_behind_packet_without_arguments_is_ignored(packet: Packet, data: bytes) -> None:
    for magic, side in receivers(packet):
        assert decode(raw(packet.spec.number, data, magic), side) == packet


@given(strategies.packets_of(*LONG))
def test_missing_argument_makes_packet_malformed(packet: Packet) -> None:
    count = len(packet.spec.arguments)
    body = b"\0".join([b"1"] * (count - 1))
    for magic, side in receivers(packet):
        received = decode(raw(packet.spec.number, body, magic), side)
        if side == "server" and count == 2 and type(packet) in REPORTS:
            assert isinstance(received, Report)  # a report whose data is empty may lack the NUL
        else:
            assert received == MalformedPacket(packet.spec.name, f"{count - 1} arguments, not {count}")


@given(strategies.packets())
def test_last_argument_loses_one_nul_too_many_unless_it_is_a_payload(packet: Packet) -> None:
    arguments = packet.spec.arguments
    for magic, side in receivers(packet):
        data = raw(packet.spec.number, packet.encode()[HEADER.size :] + b"\0", magic)
        received = decode(data, side)
        if isinstance(received, Report):
            assert received.handle == getattr(packet, "handle")  # noqa: B009  (not every packet has one)
        elif arguments and arguments[-1][2].payload:
            name = arguments[-1][0]
            assert getattr(received, name) == getattr(packet, name) + b"\0"
        else:
            assert received == packet


@pytest.mark.parametrize("cls", [OptionReq, WorkFail, WorkStatus, Error, GetStatus, JobCreated, StatusRes])
def test_nul_inside_last_argument_makes_packet_malformed(cls: type[Packet]) -> None:
    body = b"\0".join([b"1"] * len(cls.spec.arguments)) + b"\0\0"
    for magic, side in receivers(smallest(cls)):
        received = decode(raw(cls.spec.number, body, magic), side)
        assert received == MalformedPacket(cls.spec.name, "NUL byte in the last argument")


def test_status_report_without_numbers_is_malformed_for_server() -> None:
    assert decode(raw(12, b"H:1", REQUEST), "server") == MalformedPacket("WORK_STATUS", "1 arguments, not 3")


@pytest.mark.parametrize("cls", [WorkComplete, WorkData, WorkException, WorkWarning])
def test_report_without_data_has_empty_data_for_server(cls: type[Packet]) -> None:
    received = decode(raw(cls.spec.number, b"H:1", REQUEST), "server")
    assert received == Report(cls, b"H:1", b"H:1\0")
    assert isinstance(received, Report)
    assert received.data == b""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"", 0),
        (b"7", 7),
        (b"007", 7),
        (b"-7", -7),
        (b"+7", 7),
        (b" 7 ", 7),
        (b"1000.5", 1000),
        (b"-3.9", -3),
        (b"3.", 3),
        (b"9" * 19, MAX_NUMBER),
        (b"-" + b"9" * 19, -MAX_NUMBER),
    ],
)
def test_number_is_read_leniently(text: bytes, number: int) -> None:
    assert decode(raw(23, b"f\0" + text, REQUEST), "server") == CanDoTimeout(b"f", number)
    assert decode(raw(36, b"f\0u\0" + text + b"\0w\0", REQUEST), "server") == SubmitJobEpoch(b"f", b"u", number, b"w\0")
    assert decode(raw(12, b"h\0" + text + b"\0" + text), "client") == WorkStatus(b"h", number, number)
    body = b"h\0" + text + b"\0" + text
    received = decode(raw(12, body, REQUEST), "server")
    if number < 0:
        assert received == MalformedPacket("WORK_STATUS", f"{text!r} is negative")
    else:
        assert received == Report(WorkStatus, b"h", body)
        assert received.progress == (number, number)


@pytest.mark.parametrize(
    "text", [b"1" + b"0" * 19, b"x", b"0x10", b"1e3", b"--1", b"-", b".5", b"1_000", b"1 2", "\u0661".encode(), b" "]
)
def test_text_that_is_no_number_makes_packet_malformed(text: bytes) -> None:
    for number, body, magic, side in (
        (23, b"f\0%b", REQUEST, "server"),
        (36, b"f\0u\0%b\0w", REQUEST, "server"),
        (12, b"h\x001\0%b", REQUEST, "server"),
        (12, b"h\0%b\x001", REQUEST, "server"),
        (12, b"h\0%b\x001", RESPONSE, "client"),
        (20, b"h\0%b\x001\x001\x001", RESPONSE, "client"),
    ):
        received = decode(raw(number, body % text, magic), side)
        assert received == MalformedPacket(PACKETS[number].spec.name, f"{text!r} is not a number of at most 19 digits")


@given(st.binary(min_size=25, max_size=31).map(lambda text: b"x" + text.replace(b"\0", b"x")))
def test_reason_of_malformed_number_stays_short(text: bytes) -> None:
    received = decode(raw(23, b"f\0" + text, REQUEST), "server")
    assert isinstance(received, MalformedPacket)
    assert received.reason.startswith(repr(text[:24]))
    assert len(received.reason) < 160


@pytest.mark.parametrize("text", [b"1.%b", b"%b7", b"7%b", b"x%b"])
def test_number_takes_at_most_32_bytes(text: bytes) -> None:
    filler = b"0" if b"." in text else b" "
    longest = text % (filler * (34 - len(text)))
    if not text.startswith(b"x"):
        assert decode(raw(23, b"f\0" + longest, REQUEST), "server") == CanDoTimeout(b"f", 7 if b"7" in text else 1)
    for size, body, magic, side in ((33, b"h\x001\0%b", REQUEST, "server"), (10**6, b"h\0%b\x001", RESPONSE, "client")):
        received = decode(raw(12, body % (text % (filler * (size + 2 - len(text)))), magic), side)
        assert received == MalformedPacket("WORK_STATUS", f"number of {size} bytes, limit 32")


@given(st.integers(-5, 5))
def test_truth_is_any_number_but_0(number: int) -> None:
    received = decode(raw(20, b"h\0%d\0%d\x001\x002" % (number, number)), "client")
    assert received == StatusRes(b"h", number != 0, number != 0, 1, 2)


def test_truth_is_encoded_as_1_or_0() -> None:
    assert StatusRes(b"h", True, False, 3, 4).encode()[HEADER.size :] == b"h\x001\x000\x003\x004"
    assert StatusResUnique(b"", False, True, 3, 4, 5).encode()[HEADER.size :] == b"\x000\x001\x003\x004\x005"


@given(strategies.packets_of(*REPORTS))
def test_report_has_what_follows_the_handle_as_data(packet: Packet) -> None:
    report = decode(packet.encode(), "server")
    assert isinstance(report, Report)
    expected = getattr(packet, "data", b"")
    if isinstance(packet, WorkStatus):
        expected = b"%d\0%d" % (packet.numerator, packet.denominator)
    assert (report.packet, report.data) == (type(packet), expected)


def test_work_fail_with_one_nul_too_many_is_reported_with_the_bare_handle() -> None:
    # gearmand itself sends this to clients; servers that are asked to pass one on must not multiply it.
    report = decode(raw(14, b"H:1\0", REQUEST), "server")
    assert report == Report(WorkFail, b"H:1", b"H:1")
    assert decode(raw(14, b"H:1\0"), "client") == WorkFail(b"H:1")


@pytest.mark.parametrize(("cls", "name", "rule"), LIMITED)
def test_argument_may_reach_its_limit_and_not_exceed_it(cls: type[Packet], name: str, rule: Argument) -> None:
    assert rule.limit is not None
    smallest(cls, **{name: b"n" * rule.limit}).validate()
    message = f"^{cls.spec.name}: {name} has {rule.limit + 1} bytes, limit {rule.limit}$"
    with pytest.raises(LocalProtocolError, match=message):
        smallest(cls, **{name: b"n" * (rule.limit + 1)}).validate()


def test_limits_are_those_of_the_protocol() -> None:
    limits = {
        "function": 8191,
        "unique": 64,
        "reducer": 64,
        "handle": 63,
        "client_id": 8191,
        "option": 8191,
    }
    for cls in PACKETS.values():
        for name, _kind, rule in cls.spec.arguments:
            if name in limits:
                assert rule.limit == limits[name]
                assert rule.empty == (name not in ("function", "handle"))


@pytest.mark.parametrize("cls", PACKETS.values(), ids=lambda cls: cls.spec.name)
def test_only_payloads_may_hold_nul(cls: type[Packet]) -> None:
    for name, kind, rule in cls.spec.arguments:
        if kind is not bytes:
            continue
        packet = smallest(cls, **{name: b"a\0b"})
        if rule.payload:
            packet.validate()
        else:
            with pytest.raises(LocalProtocolError, match=f"^{cls.spec.name}: {name} must not hold NUL bytes$"):
                packet.validate()


@pytest.mark.parametrize("cls", PACKETS.values(), ids=lambda cls: cls.spec.name)
def test_only_functions_and_handles_must_not_be_empty(cls: type[Packet]) -> None:
    for name, kind, _rule in cls.spec.arguments:
        packet = smallest(cls, **{name: b""})
        if kind is bytes and name in ("function", "handle"):
            with pytest.raises(LocalProtocolError, match=f"^{cls.spec.name}: {name} must not be empty$"):
                packet.validate()
        elif kind is bytes:
            packet.validate()


@pytest.mark.parametrize("wrong", ["text", bytearray(b"x"), None, 3])
def test_argument_of_wrong_type_is_refused(wrong: object) -> None:
    with pytest.raises(LocalProtocolError, match=f"^SUBMIT_JOB: function must be bytes, not {type(wrong).__name__}$"):
        smallest(SubmitJob, function=wrong).validate()


@pytest.mark.parametrize("wrong", ["1", b"1", 1.5, None])
def test_number_of_wrong_type_is_refused(wrong: object) -> None:
    with pytest.raises(LocalProtocolError, match=f"^WORK_STATUS: numerator must be int, not {type(wrong).__name__}$"):
        smallest(WorkStatus, numerator=wrong).validate()


@pytest.mark.parametrize("sign", [1, -1])
def test_number_of_over_19_digits_is_refused(sign: int) -> None:
    CanDoTimeout(b"f", sign * MAX_NUMBER).validate()
    with pytest.raises(LocalProtocolError, match=r"^CAN_DO_TIMEOUT: timeout has over 19 digits$"):
        CanDoTimeout(b"f", sign * (MAX_NUMBER + 1)).validate()


@pytest.mark.parametrize(("numerator", "denominator", "wrong"), [(-1, 2, "numerator"), (1, -2, "denominator")])
def test_progress_is_not_negative(numerator: int, denominator: int, wrong: str) -> None:
    packet = WorkStatus(b"h", numerator, denominator)
    with pytest.raises(LocalProtocolError, match=f"^WORK_STATUS: {wrong} must not be negative$"):
        packet.validate()
    assert decode(packet.encode(RESPONSE), "client") == packet  # gearmand passes it on


@given(strategies.packets(), strategies.packets())
def test_packets_are_equal_only_within_a_type(one: Packet, other: Packet) -> None:
    values = [tuple(getattr(packet, name) for name, _kind, _rule in packet.spec.arguments) for packet in (one, other)]
    assert (one == other) == (type(one) is type(other) and values[0] == values[1])
    twin = type(one)(*values[0])
    assert twin == one
    assert hash(twin) == hash(one)
    assert bool(one)


def test_packets_with_equal_arguments_of_two_types_differ() -> None:
    assert len({SubmitJob(b"f", b"u", b"w"), SubmitJobBg(b"f", b"u", b"w")}) == 2
    assert len({Noop(), NoJob()}) == 2
    assert len({EchoReq(b"x"), EchoRes(b"x"), EchoReq(b"x")}) == 2


@given(strategies.packets())
def test_packets_have_no_dictionary(packet: Packet) -> None:
    assert not hasattr(packet, "__dict__")
    assert repr(packet).startswith(type(packet).__name__ + "(")


def test_wire_names_are_made_of_class_names() -> None:
    for cls in PACKETS.values():
        assert set(cls.spec.name) <= set(string.ascii_uppercase + "_")
        assert cls.spec.name.replace("_", "").lower() == cls.__name__.lower()
        assert cls.__doc__ is not None
        assert f"``{cls.spec.name}``" in cls.__doc__


def test_all_names_of_packets_are_public() -> None:
    assert {cls.__name__ for cls in PACKETS.values()} <= set(packets.__all__)


def test_empty_arguments_at_both_ends_survive() -> None:
    for packet in (SubmitReduceJob(b"f", b"", b"", b"", b""), SubmitJobHigh(b"f", b"", b""), SetClientId(b"")):
        assert decode(packet.encode(), "server") == packet
    assert decode(JobAssignUniq(b"h", b"f", b"", b"\0\0").encode(), "worker") == JobAssignUniq(b"h", b"f", b"", b"\0\0")
    assert decode(GrabJobAll().encode(), "server") == GrabJobAll()


def test_arguments_may_be_of_a_class_of_bytes_and_keep_to_the_same_rules() -> None:
    handle = JobHandle(b"H:1", Address("localhost", 4730))
    WorkData(handle, JobHandle(b"\0", handle.server)).validate()
    with pytest.raises(LocalProtocolError, match="WORK_FAIL: handle must not hold NUL bytes"):
        WorkFail(JobHandle(b"\0", handle.server)).validate()
