"""The reference has every public name, once."""

import importlib
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))
LEFT_OUT = {"gear_sync.gear", "gear_testing.fuzz.corpus"}
"""Packages that another page describes, or that nobody imports."""


def test_every_package_that_exports_names_is_in_the_reference() -> None:
    packages = {
        ".".join(path.parent.relative_to(ROOT / "src").parts)
        for path in (ROOT / "src").rglob("__init__.py")
        if "__all__" in path.read_text(encoding="utf-8")
    }
    assert packages - LEFT_OUT <= {name for names in REFERENCE["MODULES"].values() for name in names}


def test_every_public_name_is_described_or_linked_where_it_is_exported() -> None:
    pages = REFERENCE["pages"]()
    for page, modules in REFERENCE["MODULES"].items():
        for module in modules:
            for name in importlib.import_module(module).__all__:
                assert re.search(rf"^\.\. auto\w+:: \S*\.{name}$|:py:obj:`{name} <", pages[page], re.MULTILINE)


def test_no_name_is_described_twice() -> None:
    described = re.findall(r"^\.\. auto(?!module)\w+:: (\S+)", "\n".join(REFERENCE["pages"]().values()), re.MULTILINE)
    assert len(described) == len(set(described))
