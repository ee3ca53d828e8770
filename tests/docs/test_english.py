"""Code and pages avoid some phrases that native readers stumble over. Each pattern stands beside what it finds."""

import re
from bisect import bisect
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = [
    path
    for place in ("src", "docs", "bench", "examples", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    for path in sorted([ROOT / place, *(ROOT / place).rglob("*")])
    if path.suffix in (".py", ".md") and "_build" not in path.parts
]
PATTERNS = {
    "'x' is no address": r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more than\b)",
    "bytes that are none": r"\b(?:that|which) (?:is|are) none\b",
    "Take note of a lost connection.": r"\b(?:takes?|taking|took) note\b",
    "the job begins anew": r"\banew\b",
    "3 jobs have not ended; they go on": r"\b(?:go|goes|went|gone) on\b",
    "with this option so many jobs run": r"\bso many\b",
    "and is told so": r"\b(?:is|are|be|been|was|were) told so\b",
    "whoever waits, pumps": r"\bwho(?:so)?ever\b",
    "for those who wait": r"\b(?:those|all|others) who\b",
    "if who waits is cancelled": r"\b(?:if|that|until|unless|when|because) who\b",
    "Wake who waits for it.": r"\bwho waits?\b",
    "how many bytes to read at the most": r"\bat the (?:longest|most|least)\b",
    "a job ended otherwise than by a result": r"\b(?:otherwise|something else) than\b",
    "600 ms in a flood, else 2 s": r"[a-z], else [a-z0-9]|\bwhich else\b",
    "bytes for a job beside its workload": r"\bbeside\b",
}


def prose(path: Path) -> tuple[str, list[int]]:
    """Return a file's text in one line, without the marks of comments, and where each of its lines begins."""
    lines = [re.sub(r"^\s*(?:# ?)?", "", line) + " " for line in path.read_text(encoding="utf-8").splitlines()]
    return "".join(lines), list(accumulate((len(line) for line in lines), initial=0))


TEXTS = {str(path.relative_to(ROOT)): prose(path) for path in FILES}


@pytest.mark.parametrize(("example", "pattern"), PATTERNS.items(), ids=PATTERNS)
def test_no_file_has_the_phrase(example: str, pattern: str) -> None:
    assert re.search(pattern, example, re.IGNORECASE), "the pattern does not find its own example"
    found = [
        f"{name}:{bisect(starts, hit.start())}: ...{text[max(0, hit.start() - 30) : hit.end() + 30]}..."
        for name, (text, starts) in TEXTS.items()
        for hit in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert found == []
