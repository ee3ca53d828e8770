"""``gear.ServerJob``: a job as its server sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .jobs import BinaryJob

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["ServerJob"]


class ServerJob(BinaryJob):
    """A job in a server. Programs may hang attributes of their own on it.

    Attributes:
        client_connection: who waits for it; None for a background job.
        worker_connection: who runs it; None while nobody does.
    """

    def __init__(
        self,
        handle: bytes,
        name: str | bytes,
        arguments: bytes,
        client_connection: Connection | None,
        unique: str | bytes | None = None,
    ) -> None:
        """Make a job that is not queued."""
        super().__init__(name, arguments, unique)
        self.handle = handle
        self.client_connection = client_connection
        self.worker_connection: Connection | None = None
