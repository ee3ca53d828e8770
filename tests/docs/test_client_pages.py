"""Pages on clients, workers, the protocol, restarts: their programs run and print what they say; their names exist."""

import re
import threading
import typing
from pathlib import Path

import pytest

import gearproto
from gearproto.client import Policy, outcome_error

PAGES = {
    name: (Path(__file__).parent.parent.parent / "docs" / name).read_text(encoding="utf-8")
    for name in ("clients.md", "workers.md", "protocol.md", "restarts.md")
}
PROGRAMS = [
    (name, code) for name, page in PAGES.items() for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
]


@pytest.mark.parametrize(("name", "code"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_runs_and_prints_what_it_says(name: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    exec(compile(code, name, "exec"), {"__name__": "page"})
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)


def test_every_policy_stands_on_the_page() -> None:
    assert re.findall(r"^\| `(\w+)` \| the ", PAGES["clients.md"], re.MULTILINE) == [policy.value for policy in Policy]


def test_every_outcome_stands_on_the_page_with_its_exception() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`(\w+)`|nothing)", PAGES["clients.md"], re.MULTILINE))
    known = [getattr(gearproto, name) for name in rows]
    assert set(known) == set(typing.get_args(gearproto.Outcome))
    for kind in known:
        error = outcome_error(kind(*[b"" for _ in kind.__slots__]))
        assert rows[kind.__name__] == ("" if error is None else type(error).__name__)
