"""The diagrams in the documentation are those that the code draws."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_diagrams_are_what_the_code_says() -> None:
    diagrams = runpy.run_path(str(DOCS / "diagrams.py"))
    pages = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "generated").iterdir()}
    assert pages == {name: diagrams["page"](name) for name in diagrams["PAGES"]}, "run python docs/diagrams.py"
