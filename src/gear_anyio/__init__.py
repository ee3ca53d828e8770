"""Gearman for asyncio and trio, through anyio."""

from .server import Server

__all__ = ["Server"]
