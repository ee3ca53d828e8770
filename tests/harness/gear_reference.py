"""The package ``gear`` itself, in an environment and in processes of its own, to compare the documented API with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .programs import unavailable

__all__ = ["OURS", "THEIRS", "VARIABLE", "mixed", "ours", "theirs"]

OURS, THEIRS = "gear_sync.gear", "gear"

VARIABLE = "GEARPROTO_GEAR_PYTHON"
"""In the environment: a Python interpreter that has the package ``gear`` 0.16 installed."""

_ROOT = Path(__file__).parent.parent.parent
_LIMIT = 100.0  # seconds


def ours(script: str, *arguments: object) -> Any:
    """Run a script with the API of this project; return the JSON that it prints."""
    return _run(sys.executable, script, (OURS, *arguments))


def theirs(script: str, *arguments: object) -> Any:
    """Run a script with the package ``gear``; skip the test without it, or fail it where interop is required."""
    return mixed(script, THEIRS, *arguments)


def mixed(script: str, *arguments: object) -> Any:
    """Run a script where both can be imported, as `theirs` does."""
    python = os.environ.get(VARIABLE)
    if not python:
        unavailable(f"{VARIABLE} names no interpreter that has the package gear")
    return _run(python, script, arguments)


def _run(python: str, script: str, arguments: tuple[object, ...]) -> Any:
    command = [python, "-m", f"tests.gear_sync.gear.reference.{script}", *map(str, arguments)]
    path = {**os.environ, "PYTHONPATH": str(_ROOT / "src")}
    output = subprocess.run(command, cwd=_ROOT, env=path, stdout=subprocess.PIPE, timeout=_LIMIT, check=False).stdout
    return json.loads(output)
