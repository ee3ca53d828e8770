from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing import strategies
from gearproto import LocalProtocolError, RemoteProtocolError, ServerError
from gearproto.admin import (
    COMMANDS,
    MAX_WORDS,
    CancelJob,
    Command,
    CreateFunction,
    DropFunction,
    FunctionPriorities,
    FunctionStatus,
    GetPid,
    JobListed,
    MaxQueue,
    Ok,
    PriorityStatus,
    Refused,
    Reply,
    ReplyReader,
    Row,
    Rows,
    ShowJobs,
    ShowUniqueJobs,
    Shutdown,
    Status,
    UniqueListed,
    Verbose,
    Version,
    WorkerListed,
    Workers,
    escape,
    parse_command,
    unescape,
)
from gearproto.events import Line
from gearproto.framing import Decoder

LIMIT = 1_000_000


def lines_of(text: bytes) -> list[bytes]:
    """Cut an answer into lines, as a client's decoder does."""
    decoder = Decoder({}, max_line_size=LIMIT)
    decoder.feed(text)
    lines = []
    while (event := decoder.next()) is not None:
        assert isinstance(event, Line)
        lines.append(event.text)
    assert decoder.buffered == 0
    return lines


def read(command: Command[Any], text: bytes, *, limit: int = LIMIT) -> Reply:
    """Read a whole answer, of which the last line must be the end."""
    reader = ReplyReader(command, limit)
    *before, last = lines_of(text)
    for line in before:
        assert reader.feed(line) is None
    reply = reader.feed(last)
    assert reply is not None
    return reply


names = strategies.hostile_names() | st.text(max_size=10).map(lambda text: text.encode("utf-8", "surrogatepass"))
row_commands: list[Command[Any]] = [cls() for cls in COMMANDS.values() if cls.row is not None]
row_of_any_class = st.one_of(*(strategies.rows(command.row) for command in row_commands if command.row is not None))


# Escaping


@given(names, st.booleans())
def test_escaped_name_is_unescaped_to_itself(name: bytes, spaces: bool) -> None:
    assert unescape(escape(name, spaces=spaces)) == name


@given(names, st.booleans())
def test_escaped_name_is_printable_text_in_one_field(name: bytes, spaces: bool) -> None:
    text = escape(name, spaces=spaces).decode()
    assert text.isprintable()
    assert len(text.splitlines()) <= 1
    assert not spaces or len(text.split()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=10).filter(lambda text: "\\x" not in text))
def test_printable_name_is_left_alone(text: str) -> None:
    assert escape(text.encode()) == escape(text.encode(), spaces=True) == text.encode()


@given(names, names)
def test_different_names_are_escaped_differently(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        (b"a b", b"a b"),
        (b"a\tb\n", b"a\\x09b\\x0a"),
        (b"\xff", b"\\xff"),
        ("é".encode(), "é".encode()),
        ("a\u2028".encode(), b"a\\xe2\\x80\\xa8"),
        (b"\\x41", b"\\x5cx41"),
        (b"\\x4", b"\\x4"),
        (b"\\", b"\\"),
        (b"\\x4\n", b"\\x4\\x0a"),
        (b"\\\\x41\0", b"\\\\x5cx41\\x00"),
        (b"", b""),
    ],
)
def test_escape_writes_what_could_break_a_row_in_hexadecimal(name: bytes, escaped: bytes) -> None:
    assert escape(name) == escaped


def test_escape_writes_spaces_where_they_part_fields() -> None:
    assert escape(b" a b", spaces=True) == b"\\x20a\\x20b"


@given(st.binary(max_size=30))
def test_unescape_takes_any_text(text: bytes) -> None:
    assert len(unescape(text)) <= len(text)
    assert unescape(b"\\x4G\\X41\\x4") == b"\\x4G\\X41\\x4"


# Commands


@given(strategies.text_commands())
def test_command_survives_encoding_and_parsing(command: Command[Any]) -> None:
    (line,) = lines_of(command.encode())
    assert parse_command(line) == command
    assert len(line.split()) <= MAX_WORDS
    assert line.decode().isprintable()


def test_every_command_has_the_documented_line() -> None:
    lines: dict[bytes, Command[Any]] = {
        b"status": Status(),
        b"prioritystatus": PriorityStatus(),
        b"workers": Workers(),
        b"version": Version(),
        b"verbose": Verbose(),
        b"getpid": GetPid(),
        b"show jobs": ShowJobs(),
        b"show unique jobs": ShowUniqueJobs(),
        b"cancel job H:a:1": CancelJob(b"H:a:1"),
        b"create function f": CreateFunction(b"f"),
        b"drop function f": DropFunction(b"f"),
        b"maxqueue f": MaxQueue(b"f"),
        b"maxqueue f 5": MaxQueue(b"f", (5,)),
        b"maxqueue f 1 2 3": MaxQueue(b"f", (1, 2, 3)),
        b"shutdown": Shutdown(),
        b"shutdown graceful": Shutdown(graceful=True),
    }
    assert {line + b"\r\n": command.encode() for line, command in lines.items()} == {
        line + b"\r\n": line + b"\r\n" for line in lines
    }
    assert {line: parse_command(line) for line in lines} == lines
    assert {type(command) for command in lines.values()} == set(COMMANDS.values())


@pytest.mark.parametrize("command", [CancelJob(b""), CreateFunction(b""), DropFunction(b""), MaxQueue(b"", (1,))])
def test_empty_argument_is_refused(command: Command[Any]) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{b' '.join(command.words).decode()}: empty argument$"):
        command.encode()


@pytest.mark.parametrize("sizes", [(1, 2), (1, 2, 3, 4)])
def test_maxqueue_with_other_than_0_1_or_3_sizes_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError, match=f"^maxqueue: {len(sizes)} sizes, not 0, 1 or 3$"):
        MaxQueue(b"f", sizes).encode()


UNKNOWN = b"ERR UNKNOWN_COMMAND Unknown+server+command"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"", UNKNOWN),
        (b"   ", UNKNOWN),
        (b" status", UNKNOWN),
        (b"\tstatus", UNKNOWN),
        (b"nonsense", UNKNOWN + b"nonsense"),
        (b"NonSense 1 2 3 4", UNKNOWN + b"NonSense"),
        (b"\x1b[2J", UNKNOWN + b"\\x1b[2J"),
        (b"priority status", UNKNOWN + b"priority"),
        (b"show", UNKNOWN + b"show"),
        (b"show nothing", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show unique", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show unique nothing", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"cancel", UNKNOWN + b"cancel"),
        (b"cancel job", UNKNOWN + b"cancel"),
        (b"cancel that job", b"ERR UNKNOWN_ERROR"),
        (b"cancel 1 2 3", b"ERR UNKNOWN_ERROR"),
        (b"cancel 1 2 3 4", b"ERR UNKNOWN_ERROR"),
        (b"create", INCOMPLETE + b"create"),
        (b"create function", INCOMPLETE + b"create"),
        (b"create job f", INCOMPLETE + b"create"),
        (b"DROP", INCOMPLETE + b"drop"),
        (b"drop function", INCOMPLETE + b"drop"),
        (b"drop function\t", INCOMPLETE + b"drop"),
        (b"maxqueue", INCOMPLETE + b"maxqueue"),
    ],
)
def test_line_that_is_no_command_is_refused_as_gearmand_does(line: bytes, answer: bytes) -> None:
    refused = parse_command(line)
    assert isinstance(refused, Refused)
    assert refused.encode() == answer + b"\r\n"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"STATUS", Status()),
        (b"Status more words behind it", Status()),
        (b"status ", Status()),
        (b"version 1", Version()),
        (b"SHOW jobs", ShowJobs()),
        (b"Show Jobs", ShowJobs()),
        (b"show jobs more", ShowJobs()),
        (b"show Unique JOBS", ShowUniqueJobs()),
        (b"show  unique   jobs", ShowUniqueJobs()),
        (b"CANCEL job H:1", CancelJob(b"H:1")),
        (b"cancel Job H:1", CancelJob(b"H:1")),
        (b"cancel job H:1 more", CancelJob(b"H:1")),
        (b"Create Function F", CreateFunction(b"F")),
        (b"create function f more", CreateFunction(b"f")),
        (b"DROP FUNCTION a\\x20b", DropFunction(b"a b")),
        (b"MaxQueue f", MaxQueue(b"f")),
        (b"maxqueue f 0", MaxQueue(b"f", (0,))),
        (b"maxqueue f -1", MaxQueue(b"f", (0,))),
        (b"maxqueue f many", MaxQueue(b"f", (0,))),
        (b"maxqueue f 1 2", MaxQueue(b"f", (1, 2))),
        (b"maxqueue f 1 x 3", MaxQueue(b"f", (1, 0, 3))),
        (b"maxqueue f " + b"9" * 18, MaxQueue(b"f", (10**18 - 1,))),
        (b"maxqueue f " + b"9" * 5000, MaxQueue(b"f", (0,))),
        (b"shutdown now", Shutdown()),
        (b"shutdown graceful now", Shutdown(graceful=True)),
    ],
)
def test_command_is_read_leniently(line: bytes, command: Command[Any]) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize("line", [b"status 1 2 3 4 5", b"a b c d e f", b"maxqueue f 1 2 3 4", b"cancel job 1 2 3 4"])
def test_command_of_over_five_words_ends_the_connection(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^text command of 6 words, limit 5$"):
        parse_command(line)


@given(st.lists(st.sampled_from(sorted({word for words in COMMANDS for word in words})) | names, max_size=7))
def test_any_line_is_a_command_or_refused_in_one_line(words: list[bytes]) -> None:
    line = b" ".join(words).replace(b"\n", b"")
    try:
        command = parse_command(line)
    except RemoteProtocolError:
        assert len(line.split()) > MAX_WORDS
        return
    if isinstance(command, Refused):
        assert len(lines_of(command.encode())) == 1
    elif not isinstance(command, MaxQueue) or len(command.sizes) != 2:
        (line,) = lines_of(command.encode())
        assert parse_command(line) == command


def test_every_command_names_itself_in_its_documentation() -> None:
    for words, cls in COMMANDS.items():
        assert cls.__doc__ is not None
        assert f"``{b' '.join(words).decode()}``" in cls.__doc__ or cls is Shutdown


# Answers


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Rows([FunctionStatus(b"resize", 5, 2, 1)]), b"resize\t5\t2\t1\n.\n"),
        (Rows([FunctionPriorities(b"resize", 1, 2, 3, 4)]), b"resize\t1\t2\t3\t4\n.\n"),
        (
            Rows([WorkerListed(32, b"127.0.0.1", b"", ()), WorkerListed(33, b"::1", b"w1", (b"b", b"a"))]),
            b"32 127.0.0.1 - :\n33 ::1 w1 : b a\n.\n",
        ),
        (Rows([JobListed(b"H:a:1", 2, False, True)]), b"H:a:1\t2\t0\t1\n.\n"),
        (Rows([UniqueListed(b"u"), UniqueListed(b""), UniqueListed(b"-")]), b"u\n\n-\n.\n"),
        (Rows([]), b".\n"),
        (Ok(), b"OK\r\n"),
        (Ok(b"1.1.20"), b"OK 1.1.20\n"),
        (Refused(b"UNKNOWN_JOB"), b"ERR UNKNOWN_JOB\r\n"),
        (Refused(b"function", b"not found"), b"ERR function not found\r\n"),
    ],
)
def test_answer_has_the_text_of_gearmand(reply: Reply, text: bytes) -> None:
    assert reply.encode() == text


@given(strategies.replies())
def test_answer_survives_encoding_and_reading(answer: tuple[Command[Any], Reply]) -> None:
    command, reply = answer
    received = read(command, reply.encode())
    if isinstance(reply, Rows):
        assert isinstance(received, Rows)
        assert tuple(received.rows) == tuple(reply.rows)
    else:
        assert received == reply


@given(row_of_any_class)
def test_row_is_one_line_of_printable_text_and_no_end(row: Row) -> None:
    text = row.encode().decode()
    assert text.replace("\t", "").isprintable()
    assert text != "."
    assert type(row).decode(row.encode()) == row


@pytest.mark.parametrize(
    "row",
    [
        UniqueListed(b"."),
        UniqueListed(b"ERR UNKNOWN_JOB"),
        UniqueListed(b"err unknown_show_arguments x"),
        UniqueListed(b"ERR"),
        UniqueListed(b"\\x2e"),
        FunctionStatus(b"ERR UNKNOWN_COMMAND", 0, 0, 0),
        FunctionStatus(b".\n.", 0, 0, 0),
        FunctionStatus(b"a\t1\t1\t1", 0, 0, 0),
        FunctionPriorities(b"\t", 0, 0, 0, 0),
        JobListed(b"ERR a\t", 0, True, False),
        WorkerListed(1, b"a\tb c", b"-", (b":", b"-", b" ")),
        WorkerListed(1, b"", b":", ()),
        WorkerListed(1, b":", b" : a", (b"b",)),
    ],
)
def test_hostile_name_neither_forges_nor_ends_an_answer(row: Row) -> None:
    command = next(command for command in row_commands if command.row is type(row))
    reply = read(command, Rows([row, row]).encode())
    assert isinstance(reply, Rows)
    assert tuple(reply.rows) == (row, row)


@pytest.mark.parametrize(
    ("command", "text", "reply"),
    [
        (Version(), b"OK 1.1.20\n", Ok(b"1.1.20")),
        (Verbose(), b"OK ERROR\n", Ok(b"ERROR")),
        (GetPid(), b"OK 1234\r\n", Ok(b"1234")),
        (CancelJob(b"H:1"), b"OK\r\n", Ok()),
        (CancelJob(b"H:1"), b"OK \n", Ok()),
        (CancelJob(b"H:1"), b"ERR UNKNOWN_JOB\r\n", Refused(b"UNKNOWN_JOB")),
        (DropFunction(b"f"), b"ERR function not found\r\n", Refused(b"function", b"not found")),
        (Shutdown(), b"ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n", None),
        (Version(), b"1.1.20\n", Refused(b"MALFORMED_REPLY", b"1.1.20")),
        (Version(), b"OKAY\n", Refused(b"MALFORMED_REPLY", b"OKAY")),
        (Version(), b".\n", Refused(b"MALFORMED_REPLY", b".")),
        (Version(), b"\n", Refused(b"MALFORMED_REPLY", b"")),
        (Status(), b".\n", Rows(())),
        (Status(), b"ERR UNKNOWN_COMMAND x\r\n", Refused(b"UNKNOWN_COMMAND", b"x")),
        (Status(), b"ERR x\t1\t2\t3\n.\n", Rows((FunctionStatus(b"ERR x", 1, 2, 3),))),
        (Status(), b"f\t0\t0\t0\nERR x\n.\n", Refused(b"MALFORMED_REPLY", b"ERR x")),
        (Status(), b"f\t1\t2\n.\n", Refused(b"MALFORMED_REPLY", b"f\t1\t2")),
        (Status(), b"f\t1\t2\tx\nf\t1\t2\t3\n.\n", Refused(b"MALFORMED_REPLY", b"f\t1\t2\tx")),
        (Status(), b"f\t1\t2\t" + b"9" * 5000 + b"\n.\n", Refused(b"MALFORMED_REPLY", b"f\t1\t2\t" + b"9" * 5000)),
        (Status(), b"f\t1\t2\t" + b"0" * 33 + b"\n.\n", Refused(b"MALFORMED_REPLY", b"f\t1\t2\t" + b"0" * 33)),
        (PriorityStatus(), b"f\t1\t2\t3\n.\n", Refused(b"MALFORMED_REPLY", b"f\t1\t2\t3")),
        (PriorityStatus(), b"ERR UNKNOWN_COMMAND Unknown+server+commandprioritystatus\r\n", None),
        (Workers(), b"x 1 - : f\n.\n", Refused(b"MALFORMED_REPLY", b"x 1 - : f")),
        (Workers(), b"5 1\n.\n", Refused(b"MALFORMED_REPLY", b"5 1")),
        (Workers(), b"5 1 - f\n.\n", Refused(b"MALFORMED_REPLY", b"5 1 - f")),
        (Workers(), b"5 1 - : f  g \n.\n", Rows((WorkerListed(5, b"1", b"", (b"f", b"g")),))),
        (Workers(), b"5 1 my id : f\n.\n", Rows((WorkerListed(5, b"1", b"my id", (b"f",)),))),
        (ShowJobs(), b"H:1\t0\t0\n.\n", Refused(b"MALFORMED_REPLY", b"H:1\t0\t0")),
        (ShowJobs(), b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n", Refused(b"UNKNOWN_SHOW_ARGUMENTS")),
        (ShowUniqueJobs(), b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n", Refused(b"UNKNOWN_SHOW_ARGUMENTS")),
        (ShowUniqueJobs(), b"ERR of mine\n.\n", Rows((UniqueListed(b"ERR of mine"),))),
        (ShowUniqueJobs(), b"a\nERR UNKNOWN_\n.\n", Rows((UniqueListed(b"a"), UniqueListed(b"ERR UNKNOWN_")))),
    ],
)
def test_answer_of_a_server_is_read(command: Command[Any], text: bytes, reply: Reply | None) -> None:
    if reply is None:
        word = b" ".join(command.words)
        reply = Refused(b"UNKNOWN_COMMAND", b"Unknown+server+command" + word)
    assert read(command, text) == reply


@given(st.sampled_from(row_commands), st.lists(names.map(lambda name: name.replace(b"\n", b""))))
def test_any_lines_are_rows_or_an_error_or_not_the_end(command: Command[Any], lines: list[bytes]) -> None:
    reader = ReplyReader(command, LIMIT)
    replies = [reply for line in lines if (reply := reader.feed(line)) is not None]
    assert all(isinstance(reply, Rows | Refused) for reply in replies)


@pytest.mark.parametrize("command", row_commands, ids=lambda command: b" ".join(command.words).decode())
def test_answer_may_reach_its_limit_and_not_exceed_it(command: Command[Any]) -> None:
    reader = ReplyReader(command, 100)
    for _ in range(10):
        assert reader.feed(b"123456789") is None
    assert reader.feed(b".") == Refused(b"MALFORMED_REPLY", b"123456789") or isinstance(command, ShowUniqueJobs)
    reader = ReplyReader(command, 100)
    for _ in range(10):
        reader.feed(b"123456789")
    with pytest.raises(RemoteProtocolError, match=f"^answer to {b' '.join(command.words).decode()}: limit 100 bytes$"):
        reader.feed(b"")


@given(row_of_any_class, row_of_any_class)
def test_rows_are_equal_only_within_a_type(one: Row, other: Row) -> None:
    assert (one == other) == (type(one) is type(other) and one.encode() == other.encode())
    assert len({one, other}) == 1 + (one != other)
    assert not hasattr(one, "__dict__")


# What an answer tells


@pytest.mark.parametrize(
    ("command", "reply", "result"),
    [
        (Version(), Ok(b"1.1.20"), "1.1.20"),
        (Verbose(), Ok(b"\xff"), "\\xff"),
        (GetPid(), Ok(b"123"), 123),
        (CancelJob(b"H:1"), Ok(), None),
        (MaxQueue(b"f", (1,)), Ok(b""), None),
        (Status(), Rows((FunctionStatus(b"f", 1, 2, 3),)), (FunctionStatus(b"f", 1, 2, 3),)),
        (ShowUniqueJobs(), Rows(()), ()),
    ],
)
def test_result_is_what_the_answer_tells(command: Command[Any], reply: Reply, result: object) -> None:
    assert command.result(reply) == result


@given(strategies.text_commands())
def test_refused_command_has_no_result(command: Command[Any]) -> None:
    with pytest.raises(ServerError, match=r"^CODE: a text with spaces$") as caught:
        command.result(Refused(b"CODE", b"a+text+with+spaces"))
    assert caught.value.code == b"CODE"


@pytest.mark.parametrize("value", [b"", b"x", b"-5", b"1 2", b"1" * 33, "٣".encode()])
def test_process_id_that_is_no_number_is_a_malformed_answer(value: bytes) -> None:
    with pytest.raises(ServerError) as caught:
        GetPid().result(Ok(value))
    assert (caught.value.code, caught.value.text) == (b"MALFORMED_REPLY", value)
