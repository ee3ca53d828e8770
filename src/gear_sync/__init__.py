"""Gearman over blocking sockets, and a job server in one loop; needs nothing but the standard library."""

from .server import Server

__all__ = ["Server"]
