"""Fuzzes a target: ``python -m gear_testing.fuzz decoder --seconds 60``."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

__all__ = ["main"]

_NAMES: Final = ("decoder", "engine", "admin", "client", "worker")
_MAX_SIZE: Final = 2048  # bytes of an input
_ROUND: Final = 100  # runs between two looks at the clock
_MAX_KEPT: Final = 200  # bytes of an input that `--keep` adds
_NO_ATHERIS: Final = """\
atheris is not installed, which guides the fuzzer by coverage: pip install 'gearproto[fuzz]'
(It has packages for Linux.) Add --random to try random changes of the kept inputs without it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 if nothing was found, 1 if there is a fault, 2 if it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m gear_testing.fuzz", description=__doc__)
    parser.add_argument("target", choices=_NAMES, help="what to fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for how long (60); 0 for a quick run")
    parser.add_argument("--keep", action="store_true", help="add inputs that reach new code to the kept ones")
    parser.add_argument("--random", action="store_true", help="do without coverage, and without atheris")
    parser.add_argument("--inputs", help=argparse.SUPPRESS)  # the directory of the process that fuzzes
    options = parser.parse_args(arguments)
    if options.seconds < 0:
        parser.error("--seconds is 0 or more")
    if options.random:
        return _try_random(options.target, options.seconds)
    if importlib.util.find_spec("atheris") is None:
        print(_NO_ATHERIS, file=sys.stderr)
        return 2
    if options.inputs is not None:
        return _fuzz(options.target, options.seconds, Path(options.inputs))
    return _guide(options.target, options.seconds, keep=options.keep)


def _guide(target: str, seconds: int, *, keep: bool) -> int:
    """Fuzz in another process, which the fuzzer ends as it likes, and tell what it has found."""
    from . import corpus  # noqa: PLC0415
    from .reach import new_reach  # noqa: PLC0415
    from .targets import TARGETS  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="gear-fuzz-") as directory:
        inputs, findings = Path(directory, "inputs"), Path(directory, "findings")
        inputs.mkdir()
        findings.mkdir()
        for data in corpus.kept(target):
            Path(inputs, hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        command = [sys.executable, "-m", "gear_testing.fuzz", target, "--seconds", str(seconds), "--inputs", directory]
        failed = subprocess.run(command, check=False).returncode != 0
        for finding in sorted(findings.iterdir()):
            print(f"found: append this line to {corpus.file_of(target)}\n{finding.read_bytes()!r}")
        if not failed:
            print("nothing found")
        if keep and not failed:
            small = [path.read_bytes() for path in inputs.iterdir() if path.stat().st_size <= _MAX_KEPT]
            new = new_reach(TARGETS[target], corpus.kept(target), small)
            print(f"{corpus.keep(target, new)} inputs reach new lines, and are kept")
    return 1 if failed else 0


def _fuzz(target: str, seconds: int, directory: Path) -> int:
    """Fuzz in this process; the fuzzer does not return."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gearproto"]):
        from .targets import TARGETS  # noqa: PLC0415
    limits = [f"-max_len={_MAX_SIZE}", f"-max_total_time={seconds}", "-timeout=5", "-print_final_stats=1"]
    if not seconds:
        limits.append("-runs=0")  # the kept inputs alone: no time at all means no limit to it
    findings = f"-artifact_prefix={directory / 'findings'}/"
    atheris.Setup([sys.argv[0], *limits, findings, str(directory / "inputs")], TARGETS[target])
    atheris.Fuzz()
    return 0


def _try_random(target: str, seconds: int) -> int:
    """Try random changes of the kept inputs."""
    from . import corpus  # noqa: PLC0415
    from .targets import TARGETS  # noqa: PLC0415

    random = Random()
    seeds = corpus.kept(target)
    end = time.monotonic() + seconds
    runs = 0
    while runs % _ROUND or not runs or time.monotonic() < end:
        data = _changed(random, random.choice(seeds), random.choice(seeds))
        runs += 1
        try:
            TARGETS[target](data)
        except Exception:
            print(f"found: append this line to {corpus.file_of(target)}\n{data!r}")
            raise
    print(f"{runs} runs, nothing found")
    return 0


def _changed(random: Random, one: bytes, other: bytes) -> bytes:
    """Join a part of each, and change some bytes."""
    data = bytearray(one[: random.randint(0, len(one))] + other[random.randint(0, len(other)) :])
    for _ in range(random.choice((0, 1, 3))):
        at = random.randint(0, len(data))
        data[at : at + random.choice((0, 1))] = random.randbytes(random.choice((0, 1, 4)))
    return bytes(data[:_MAX_SIZE])


if __name__ == "__main__":
    sys.exit(main())
