"""Pages on testing, fuzzing and embedding: their programs run, their tests pass, and their tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from gear_testing import plugin, running, strategies  # noqa: F401  (imported once, and not in each run below)
from gear_testing.fuzz.targets import TARGETS
from gear_testing.simulator import Invariant
from tests.harness.examples import EXAMPLES

pytest_plugins = ["pytester"]

DOCS = Path(__file__).parent.parent.parent / "docs"
TESTING = (DOCS / "testing.md").read_text(encoding="utf-8")
FUZZING = (DOCS / "fuzzing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TESTING, re.DOTALL)
PROGRAMS = [code for code in BLOCKS if "def test_" not in code]
TESTS = [code for code in BLOCKS if "def test_" in code]


@pytest.mark.parametrize("code", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_runs_and_prints_what_it_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "testing.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)


@pytest.mark.parametrize("code", TESTS, ids=range(len(TESTS)))
def test_the_tests_on_the_page_pass(code: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(code)
    installed = any(entry.name == "gear_testing" for entry in entry_points(group="pytest11"))
    arguments = [] if installed else ["-p", "gear_testing.plugin"]
    result = pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:cacheprovider", *arguments)
    result.assert_outcomes(passed=code.count("def test_"))


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_the_program_that_fuzzes_a_parser_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", FUZZING, re.DOTALL)
    program = tmp_path / "fuzz_parser.py"
    program.write_text(code, encoding="utf-8")
    command = [sys.executable, str(program), "-len_control=0", "-runs=100"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Done 100 runs" in ran.stderr
    assert "no interesting inputs" not in ran.stderr


def test_every_fixture_stands_on_the_page() -> None:
    fixtures = {name for name in vars(plugin) if name.startswith("gear_") and callable(getattr(plugin, name))}
    assert set(re.findall(r"^\| `(gear_\w+)` \|", TESTING, re.MULTILINE)) == fixtures


def test_every_strategy_on_the_page_is_there() -> None:
    table = TESTING.partition("| strategy | what it makes |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)\(", table))
    assert named <= set(strategies.__all__)
    assert {"packets", "text_commands", "sessions", "splits", "mutations", "hostile_names"} <= named


def test_every_promise_stands_on_the_page_in_its_words() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", TESTING, re.MULTILINE))
    assert rows == {invariant.name: invariant.value for invariant in Invariant}


def test_every_target_stands_on_the_page() -> None:
    assert re.findall(r"^\| `(\w+)` \| ", FUZZING, re.MULTILINE) == list(TARGETS)


def test_every_example_stands_on_the_page() -> None:
    page = (DOCS / "embedding.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)) == {path.name for path in EXAMPLES.glob("*.py")}


def test_commands_on_the_pages_are_those_of_the_package() -> None:
    commands = set(re.findall(r"python -m ([\w.]+)", TESTING + FUZZING))
    assert commands == {"gear_testing.simulator", "gear_testing.fuzz"}
    assert all(find_spec(f"{name}.__main__") for name in commands)
