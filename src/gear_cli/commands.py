"""The names of the commands of ``gear``."""

from __future__ import annotations

from typing import Final

__all__ = ["COMMANDS"]

COMMANDS: Final = ("demo", "serve", "submit", "work")
