"""The exceptions of the documented ``gear`` API.

As in ``gear``, three of them share a name with a builtin that they are not, and none derives from another, but that
`NoConnectedServersError` is a `GearmanError`, so that a program may catch either out of ``submitJob``.
"""

from __future__ import annotations

import builtins

import gearproto

__all__ = [
    "ConfigurationError",
    "ConnectionError",
    "DisconnectError",
    "GearmanError",
    "InterruptedError",
    "InvalidDataError",
    "NoConnectedServersError",
    "RetryIOError",
    "TimeoutError",
    "UnknownJobError",
]


class ConnectionError(gearproto.GearmanError):
    """No connection could be opened; the cause is chained."""


class DisconnectError(gearproto.GearmanError, builtins.ConnectionError):
    """The connection is down, or the one that a job came over is. Also a ``OSError``, as a socket would raise."""


class InvalidDataError(gearproto.GearmanError):
    """Something cannot be put into a packet, or is not what a method takes."""


class ConfigurationError(gearproto.GearmanError):
    """A server is named twice, a precedence does not exist, or TLS files are missing."""


class GearmanError(gearproto.GearmanError):
    """No server took a job, or a request cannot be made here."""


class NoConnectedServersError(GearmanError):
    """No server is connected."""


class UnknownJobError(gearproto.GearmanError):
    """A packet names a job that the connection does not know."""


class InterruptedError(gearproto.GearmanError):
    """Waiting for a job was stopped."""


class TimeoutError(gearproto.GearmanError):
    """There was no answer, or no server, within the time allowed."""


class RetryIOError(gearproto.GearmanError):
    """A non-blocking connection has no whole message yet."""
