"""Pages for developers name modules, classes, functions and files that exist."""

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import pytest

import gear_anyio
import gear_net
import gear_sync
import gearproto
from gearproto.codec import EXTENSIONS, PACKETS

ROOT = Path(__file__).parent.parent.parent
PACKAGES = (gearproto, gear_net, gear_sync, gear_anyio)
NAMES_OF_PACKAGES = sorted(path.parent.name for path in (ROOT / "src").glob("*/__init__.py"))
PAGES = ("docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md")
WIRE_NAMES = {packet.spec.name for packets in (PACKETS, EXTENSIONS) for packet in packets.values()}
FILE = re.compile(r"[\w.-]*/[\w./-]*|[\w-]+\.(?:py|md|toml)")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


def names() -> dict[str, list[object]]:
    """Return what all modules have, by name."""
    found = defaultdict(list)
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                found[name].append(value)
    return found


KNOWN = names()


def has(value: object, attributes: list[str]) -> bool:
    """Tell whether an object has an attribute, which may be one that its class sets when it begins."""
    for attribute in attributes:
        if not hasattr(value, attribute):
            return inspect.isclass(value) and f"self.{attribute}" in inspect.getsource(value)
        value = getattr(value, attribute)
    return True


def exists(name: str) -> bool:
    """Tell whether a dotted name is that of a module, a class or something in them."""
    first, *rest = parts = name.split(".")
    if first in NAMES_OF_PACKAGES:
        for end in range(len(parts), 0, -1):
            try:
                module = importlib.import_module(".".join(parts[:end]))
            except ModuleNotFoundError:
                continue
            return has(module, parts[end:])
    return any(has(value, rest) for value in KNOWN.get(first, ()))


def named(page: str) -> set[str]:
    """Return what a page sets in backticks, but for blocks of code; of commands, the files in them."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    set_off = set(re.findall(r"`([^`\n]+)`", text))
    return set_off | {word for command in set_off for word in re.findall(r"\b(?:tests|src|docs|bench)/\S+", command)}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_exists(page: str) -> None:
    files = {name for name in named(page) if FILE.fullmatch(name)}
    assert [name for name in files if not ((ROOT / name).exists() or (ROOT / "src" / name).exists())] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_class_function_and_module_exists(page: str) -> None:
    """That is every name with a dot or a capital letter in it; single words in small letters may be anything."""
    names = {name for name in named(page) if NAME.fullmatch(name) and not FILE.fullmatch(name)}
    names = {name for name in names if "." in name or not (name.islower() or name.isupper())}
    assert names
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_packet_exists(page: str) -> None:
    names = {name for name in named(page) if re.fullmatch(r"[A-Z]+_[A-Z_]+|NOOP|ERROR", name)}
    assert names - WIRE_NAMES == set()
