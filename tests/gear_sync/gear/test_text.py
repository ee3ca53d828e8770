"""Text and bytes."""

from __future__ import annotations

import pytest

from gear_sync import gear


@pytest.mark.parametrize(
    ("given", "expected"),
    [("é", b"\xc3\xa9"), (b"\xff", b"\xff"), (None, None), (5, 5), ("\udcff", b"\xff")],
)
def test_only_text_is_converted(given: object, expected: object) -> None:
    assert gear.convert_to_bytes(given) == expected


def test_a_text_list_decodes_what_is_put_into_it() -> None:
    items = gear.TextList()
    items.append(b"a")
    items.append("b")
    items.insert(0, b"\xc3\xa9")
    items.extend([b"c", "d"])
    assert items == ["é", "a", "b", "c", "d"]
    assert isinstance(items, list)
