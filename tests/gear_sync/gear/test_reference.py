"""The documented API next to the package ``gear``: the same calls, and what comes of them.

`KNOWN` lists the differences that random calls meet, and `DIFFERENCES` those of servers, clients and workers, which
random sessions avoid. Each has to be there: one that is gone fails its test.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import pytest

from tests.harness.certificates import authority
from tests.harness.gear_reference import OURS, THEIRS, mixed, ours, theirs

SEED = random.randrange(10**6)  # another one in every run
ATTEMPTS = 3  # of the package: its threads race at times

EMPTY_PATTERN = (("False", "True"), ("raises AttributeError", "False"))

Difference = Callable[[str, str, str], bool]

KNOWN: dict[str, Difference] = {
    "bytes that are not UTF-8 become text with surrogates": (
        lambda step, they, we: they == "raises UnicodeDecodeError" and not we.startswith("raises")
    ),
    "a TextList makes text of bytearrays as well": (
        lambda step, they, we: "bytearray(" in they and ("TextList" in they or step.startswith("TextList"))
    ),
    "patterns and names may be text or bytes": lambda step, they, we: (
        step.startswith("ACL") and they == "raises TypeError"
    ),
    "TextList.extend works": lambda step, they, we: step.startswith("TextList.extend") and they == "raises TypeError",
    "text jobs have text for their arguments, whatever they are made of": (
        lambda step, they, we: step in ("TextJob.arguments", "TextWorkerJob.arguments")
    ),
    "a unique is bytes, however it is set": lambda step, they, we: step.endswith(".unique") and we == f"b{they}",
    "an argument of a bytearray is a bytearray": (
        lambda step, they, we: step.startswith("Packet.getArgument") and we == f"bytearray({they})"
    ),
    "a packet without a connection knows no job": (
        lambda step, they, we: step.startswith("Packet.getJob") and we == "raises UnknownJobError"
    ),
    "what is not a regular expression is an ACLError": (
        lambda step, they, we: (they, we) == ("raises AttributeError", "raises ACLError")
    ),
    "an empty pattern permits nothing, as if there were none": (
        lambda step, they, we: (
            step.startswith("ACL") and ((they, we) in EMPTY_PATTERN or "register= " in they or "invoke= " in they)
        )
    ),
}

DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "a_call_after_shutdown": ("nothing", "GearmanError"),
    "a_name_with_a_nul": ("submitted", "InvalidDataError"),
    "a_report_of_a_stranger": ([True, ["forged"]], [False, []]),
    "a_status_request_in_a_hook": (["TimeoutError"], ["GearmanError"]),
    "a_timeout_of_a_function": ([], ["f"]),
    "a_timeout_that_is_a_number": ("TypeError", "registered"),
    "a_worker_that_is_lost": ([0, False], [1, True]),
    "an_unfinished_job_whose_server_is_lost": ([False, False], [True, True]),
    "asking_for_the_version": ("no answer", "OK N\n"),
    "cancelling_a_foreground_job": (["OK\n", False, False, 0], ["OK\n", True, True, 0]),
    "functions_of_jobs": ([], ["f"]),
    "no_server_to_submit_to": ("GearmanError", "NoConnectedServersError"),
    "one_unique_twice": ([2, False], [1, True]),
    "some_of_the_tls_files": ("plain TCP", "ConfigurationError"),
    "the_progress_of_a_job_without_any": (["", ""], ["0", "0"]),
    "the_result_of_a_text_job_that_is_not_text": ([False, []], [True, ["\\udcff"]]),
}

ABSENT = {  # how the package does its work
    *(
        "connect_thread",
        "connect_wake_read",
        "connect_wake_write",
        "connection_index",
        "connection_map",
        "edge_bitmask",
    ),
    *("error_bitmask", "poll", "read_bitmask", "readwrite_bitmask", "wake_read", "wake_write", "connectLoop"),
    *("readFromConnection", "writeToConnection", "input_buffer", "need_bytes", "statsd"),
}
OTHER_TYPES = {
    "job_lock": ("lock", "RLock"),
    "send_lock": ("lock", "RLock"),
    "related_jobs": ("dict", "Container"),  # a mapping that keeps no jobs that the program has dropped
    "conn": ("socket", "PeerSocket"),  # only of a server
}


def differences(they: list[Any], we: list[Any]) -> list[tuple[str, str, str]]:
    """Return the first difference of each run; those behind it may come from it."""
    found = []
    for theirs_run, ours_run in zip(they, we, strict=True):
        for (step, their_outcome), (our_step, our_outcome) in zip(theirs_run, ours_run, strict=False):
            assert step == our_step
            if their_outcome != our_outcome:
                found.append((step, their_outcome, our_outcome))
                break
        else:
            assert len(theirs_run) == len(ours_run)
    return found


def test_random_calls_come_to_the_same_but_for_the_known_differences() -> None:
    arguments = SEED, 2000
    found = differences(theirs("objects", *arguments), ours("objects", *arguments))
    unknown = [case for case in found if not any(matches(*case) for matches in KNOWN.values())]
    assert not unknown, f"seed {SEED}"
    unseen = [name for name, matches in KNOWN.items() if not any(matches(*case) for case in found)]
    assert not unseen, f"seed {SEED}: these are no differences any more"


def first_difference(they: list[Any], we: list[Any]) -> tuple[Any, ...] | None:
    """Return where two courses of events part; None if they do not."""
    for step, (their_event, our_event) in enumerate(zip_longest(they, we)):
        if their_event != our_event:
            return step, their_event, our_event
    return None


@pytest.mark.parametrize("number", range(2))
def test_random_sessions_take_the_same_course(number: int) -> None:
    arguments = SEED + number, 100
    for _ in range(ATTEMPTS):
        difference = first_difference(theirs("sessions", *arguments), ours("sessions", *arguments))
        if difference is None:
            return
    pytest.fail(f"seed {arguments[0]}: {difference}")


def test_differences_are_as_they_are_known() -> None:
    they, we = theirs("differences"), ours("differences")
    assert {name: (they[name], we[name]) for name in they} == DIFFERENCES


def test_attributes_are_there_and_of_the_same_types() -> None:
    they, we = theirs("attributes"), ours("attributes")
    absent = [name for name in they if name not in we and name.partition(".")[2] not in ABSENT]
    kinds = {name: (they[name], we[name]) for name in they if name in we and they[name] != we[name]}
    assert not absent
    assert not {name: pair for name, pair in kinds.items() if OTHER_TYPES.get(name.partition(".")[2]) != pair}


@pytest.fixture
def files() -> tuple[object, ...]:
    """Return key, certificate and authorities as they were usual: no certificate has alternative names."""
    old = authority("gear").issue_nameless("old")
    return old.key, old.certificate, old.ca


@pytest.mark.parametrize("modules", [(OURS, OURS), (OURS, THEIRS), (THEIRS, OURS)], ids=" with servers of ".join)
def test_programs_do_the_same(modules: tuple[str, str], files: tuple[object, ...]) -> None:
    for _ in range(ATTEMPTS):
        they, we = theirs("programs", THEIRS, *files), mixed("programs", *modules, *files)
        if they == we:
            break
    assert they == we
    assert not [name for name, result in they.items() if isinstance(result, str)]


def test_programs_run(files: tuple[object, ...]) -> None:
    failed = {name: result for name, result in ours("programs", OURS, *files).items() if isinstance(result, str)}
    assert not failed
