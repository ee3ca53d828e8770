"""The page for operators names every option with the default that it has, and its programs run."""

import inspect
import re
import signal
import threading
from pathlib import Path

import pytest

import gear_sync
from gear_net.listening import DEFAULT_BACKLOG, Keepalive
from gear_net.reactor import Reactor
from gear_net.serving import ServerOptions
from gearproto.server import Endpoint, Engine

PAGE = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
OPTIONS = dict(
    re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.partition("## Options")[2].partition("\n## ")[0], re.MULTILINE)
)


def test_every_option_stands_in_the_table() -> None:
    assert set(OPTIONS) == {"host", "port", *ServerOptions.__annotations__}


def test_the_defaults_are_those_of_the_code() -> None:
    defaults = {
        name: parameter.default
        for called in (Engine.__init__, Endpoint.__init__, Reactor.__init__, gear_sync.Server.__init__)
        for name, parameter in inspect.signature(called).parameters.items()
        if parameter.default is not parameter.empty
    }
    defaults |= {"backlog": DEFAULT_BACKLOG, "max_memory": None, "trim_memory": False}
    for name, text in OPTIONS.items():
        if name not in ("keepalive", "handle_prefix", "listen", "sockets", "tls"):
            shown = (
                f'b"{defaults[name].decode()}"'
                if isinstance(defaults[name], bytes)
                else repr(defaults[name]).replace("'", '"')
            )
            assert text == f"`{shown}`", name
    keepalive = Keepalive()
    assert OPTIONS["keepalive"] == f"`Keepalive({keepalive.idle}, {keepalive.interval}, {keepalive.count})`"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="one of them handles signals of POSIX systems")
@pytest.mark.parametrize("code", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_runs_and_prints_what_it_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        exec(compile(code, "server.md", "exec"), {"__name__": "page"})
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert set(threading.enumerate()) <= before
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"print\(.*\)  # (.*)", code)
    assert len(printed) == len(promised)
    for line, promise in zip(printed, promised, strict=True):
        assert re.fullmatch(re.escape(promise).replace(r"\.\.\.", ".*"), line)
