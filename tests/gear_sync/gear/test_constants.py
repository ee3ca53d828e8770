"""`gear.constants`, and the names of the package."""

from __future__ import annotations

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.codec import PACKETS


def test_every_packet_type_has_its_constant() -> None:
    for number, cls in PACKETS.items():
        assert getattr(constants, cls.spec.name) == number
        assert constants.types[number] == cls.spec.name
    assert len(constants.types) == len(PACKETS)


def test_magic_and_some_numbers_of_the_documentation() -> None:
    assert (constants.REQ, constants.RES) == (b"\0REQ", b"\0RES")
    assert (constants.CAN_DO, constants.SUBMIT_JOB, constants.SUBMIT_JOB_EPOCH) == (1, 7, 36)
    assert (constants.SUBMIT_REDUCE_JOB, constants.STATUS_RES_UNIQUE) == (37, 42)


def test_precedences() -> None:
    assert (gear.PRECEDENCE_NORMAL, gear.PRECEDENCE_LOW, gear.PRECEDENCE_HIGH) == (0, 1, 2)


def test_submodules_come_with_the_package() -> None:
    assert gear.constants is constants
    assert gear.acl.ACL is gear.ACL


def test_all_names_are_there() -> None:
    for name in gear.__all__:
        assert hasattr(gear, name)
