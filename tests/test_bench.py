"""The load generators for users run."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "bench" / "server_load.py"
ABUSE = SCRIPT.parent / "server_abuse.py"
GEAR_API = SCRIPT.parent / "gear_api.py"
STARTUP = SCRIPT.parent / "startup.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="it reads times from /proc")


def test_the_load_generator_prints_a_row_for_each_server_and_scenario() -> None:
    serve = f"{shlex.quote(sys.executable)} -m gear_cli serve --port {{port}}"
    command = [sys.executable, str(SCRIPT), "--server", f"one={serve}", "--server", f"two={serve}"]
    command += ["--scenario", "drain", "--scenario", "sleepers", "--scale", "0.01", "--repeat", "1"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines()]
    assert [row[:2] for row in rows[2:]] == [[s, n] for s in ("drain", "sleepers") for n in ("one", "two")]
    assert {len(row) for row in rows} == {8}
    assert all(float(cell.replace(",", "")) >= 0 for row in rows[2:] for cell in (*row[2:6], row[7]))


def test_abuse_prints_a_row_for_each_server_and_abuse() -> None:
    serve = f"{shlex.quote(sys.executable)} -m gear_cli serve --port {{port}}"
    anyio = f"{shlex.quote(sys.executable)} {shlex.quote(str(ABUSE.parent / 'serve_anyio.py'))} trio --port {{port}}"
    command = [sys.executable, str(ABUSE), "--server", f"one={serve}", "--server", f"two={anyio}", "--seconds", "0.05"]
    command += ["--abuse", "wrong", "--abuse", "stalled TLS"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines()]
    assert [row[:2] for row in rows[2:]] == [[a, n] for a in ("wrong", "stalled TLS") for n in ("one", "two")]
    assert all(float(cell.replace(",", "")) >= 0 for row in rows[2:] for cell in row[2:])


def test_the_gear_api_is_measured_in_every_scenario() -> None:
    command = [sys.executable, str(GEAR_API), "--scale", "0.002"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines()]
    assert len(rows) == 12
    assert all(float(row[1].replace(",", "")) > 0 for row in rows[2:])


def test_startup_is_measured() -> None:
    command = [sys.executable, str(STARTUP), "--repeat", "2", "--only", "gear nonsense"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    (row,) = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines()[2:]]
    assert row[0] == "`gear nonsense`"
    assert float(row[1]) > 0
