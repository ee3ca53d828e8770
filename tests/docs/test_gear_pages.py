"""The pages for those who come from other libraries: their programs run, and their names exist."""

import re
import threading
from pathlib import Path

import pytest

import gear_sync
from gear_sync import gear

PAGES = {
    name: (Path(__file__).parent.parent.parent / "docs" / name).read_text(encoding="utf-8")
    for name in ("gear.md", "pygearman.md")
}
PROGRAMS = [
    (name, code) for name, page in PAGES.items() for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
]


@pytest.mark.parametrize(("name", "code"), PROGRAMS, ids=[name for name, _code in PROGRAMS])
def test_a_program_runs_and_prints_what_it_says(name: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    exec(compile(code, name, "exec"), {"__name__": "page"})
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)


def test_every_name_of_the_gear_api_on_the_page_exists() -> None:
    names = re.findall(r"`gear\.(\w+)(?:\.(\w+))?", PAGES["gear.md"])
    assert names
    for name, attribute in names:
        owner = getattr(gear, name)
        assert not attribute or hasattr(owner, attribute)


def test_every_method_of_the_native_api_on_the_pages_exists() -> None:
    with gear_sync.Client("localhost") as client:
        for page in PAGES.values():
            for name in re.findall(r"`client\.(\w+)\(", page):
                assert hasattr(client, name)
            for name in re.findall(r"`client\.admin\.(\w+)\(", page):
                assert hasattr(client.admin, name)
