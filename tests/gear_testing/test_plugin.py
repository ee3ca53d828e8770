"""The fixtures, in tests of other projects, and what the plugin leaves alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import gear_anyio  # noqa: F401  (else each run below would import it anew)
from gear_testing import running

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent

SYNC = """
    import threading
    import pytest
    import gear_sync
    from gear_testing.clock import VirtualClock

    def test_client_and_worker(gear_client, gear_worker):
        @gear_worker.function("reverse")
        def reverse(job):
            return job.workload[::-1]

        assert isinstance(gear_client, gear_sync.Client)
        assert gear_client.submit("reverse", b"abc").result(timeout=10) == b"cba"

    def test_each_test_has_a_server_of_its_own(gear_server, gear_client):
        assert gear_server.snapshot().jobs.submitted == 0
        gear_client.submit_background("mail", b"")
        assert gear_server.snapshot().jobs.submitted == 1

    def test_another_one(gear_server):
        assert gear_server.snapshot().jobs.submitted == 0

    def test_server_takes_no_port(gear_server):
        assert gear_server.address.startswith("unix:")

    def test_server_restarts_under_its_address(gear_server, gear_client):
        job = gear_client.submit("never", b"")
        job.wait_queued(10)
        gear_server.restart()
        with pytest.raises(gear_sync.JobLost):
            job.result(timeout=10)
        assert gear_client.echo(b"again") == b"again"

    def test_stopped_server_cannot_be_reached(gear_server):
        gear_server.stop()
        with gear_sync.Client(gear_server.address, timeout=0) as client, pytest.raises(gear_sync.JobNotSent):
            client.submit("reverse", b"abc")

    def test_clock(gear_clock):
        assert isinstance(gear_clock, VirtualClock)
        assert gear_clock() == 0

    def test_no_thread_is_left():
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("gear ")]
"""

ANYIO = """
    import pytest
    import gear_anyio

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

    async def test_client_and_worker(gear_client, gear_worker):
        @gear_worker.function("reverse")
        async def reverse(job):
            return job.workload[::-1]

        assert isinstance(gear_client, gear_anyio.Client)
        job = await gear_client.submit("reverse", b"abc")
        assert await job.result(timeout=10) == b"cba"
"""


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    """Run tests of another project, in this process."""
    pytester.makepyfile(source)
    installed = any(entry.name == "gear_testing" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "gear_testing.plugin"]
    known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # other tests of this process may have imported it
    options = ["-W", "error", *known, "-p", "no:xdist", "-p", "no:cacheprovider"]
    return pytester.runpytest_inprocess(*options, *plugin, *arguments)


def test_fixtures_of_plain_tests(pytester: pytest.Pytester) -> None:
    run(pytester, SYNC).assert_outcomes(passed=8)


def test_fixtures_of_anyio_tests(pytester: pytest.Pytester) -> None:
    run(pytester, ANYIO).assert_outcomes(passed=2)


def test_coroutine_without_anyio_is_told_what_it_needs(pytester: pytest.Pytester) -> None:
    result = run(pytester, "async def test_it(gear_client): pass", "-W", "ignore")
    result.stdout.fnmatch_lines(["*gear_client in a coroutine needs pytest.mark.anyio: *test_it"])


def test_coroutine_where_anyio_is_not_installed_is_told_what_to_install(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anyio" else find_spec(name))
    result = run(pytester, "async def test_it(gear_worker): pass", "-W", "ignore")
    result.stdout.fnmatch_lines(["*anyio, which is not installed: pip install 'gearproto?anyio,testing?'"])


def test_worker_whose_function_never_returns_fails_its_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_LIMIT", 0.05)
    source = """
        import threading
        entered, leave = threading.Event(), threading.Event()
        def test_it(gear_client, gear_worker):
            @gear_worker.function("stuck")
            def stuck(job):
                entered.set()
                leave.wait()
            gear_client.submit("stuck")
            assert entered.wait(10)
        def test_next():
            leave.set()
            for thread in threading.enumerate():
                if thread.name == "gear worker":
                    thread.join(10)
    """
    result = run(pytester, source)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the worker has not stopped within 0.05 s: a function does not return*"])


def test_plugin_is_an_entry_point_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"gear_testing": "gear_testing.plugin"}


def test_plugin_imports_none_of_our_packages(tmp_path: Path) -> None:
    program = """
import pytest, sys
pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:], sys.argv[1]])
print("loaded:", sorted(name for name in sys.modules if name.startswith("gear")))
"""
    installed = any(entry.name == "gear_testing" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "gear_testing.plugin"]
    command = [sys.executable, "-c", program, str(tmp_path), *plugin]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "loaded: ['gear_testing', 'gear_testing.plugin']" in ran.stdout
