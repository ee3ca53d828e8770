"""The README's code blocks run, and print what their comments say."""

import re
import threading
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[-1])
def test_code_block_runs_and_prints_what_it_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    printed = capsys.readouterr().out
    promised = [piece for comment in re.findall(r"print\(.*?\)  # (.*)", code) for piece in comment.split(", then ")]
    assert promised
    for piece in promised:
        pattern = r".*".join(re.escape(part) for part in re.split(r"\.\.\.(?:, )?", piece))
        assert re.search(pattern, printed), f"{piece!r} is not in {printed!r}"


def test_the_two_commands_stand_in_the_readme() -> None:
    assert "pip install '.[cli]' && gear demo" in README
    assert "pip install -e '.[test]' && pytest" in README
