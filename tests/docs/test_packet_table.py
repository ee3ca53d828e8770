"""The table of packets in the documentation is the one that the code has."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_packets_page_is_what_the_classes_say() -> None:
    lines = runpy.run_path(str(DOCS / "packet_table.py"))["lines"]
    assert (DOCS / "packets.md").read_text(encoding="utf-8").splitlines() == list(lines())
