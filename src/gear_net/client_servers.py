"""The servers of a client, and what is decided about submissions before anything waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from gearproto.addresses import Address, ServerAddress, parse_address
from gearproto.client import (
    Candidates,
    JobRecord,
    JobRequest,
    ServerChooser,
    ServerStanding,
    check_submissions,
)

from .settings import ClientSettings
from .standing import LoggedStanding

__all__ = ["ClientServersBase"]


class _Session(ServerStanding, Protocol):
    """What is asked of a session here; see `gear_net.sessions.ClientSessionBase`."""

    address: Address

    @property
    def failure(self) -> OSError | None: ...

    @property
    def dialing(self) -> bool: ...

    @property
    def paused(self) -> bool: ...

    def read_on(self) -> None: ...


_S = TypeVar("_S", bound=_Session)
_R = TypeVar("_R", bound=JobRecord)


class ClientServersBase(Generic[_S, _R]):
    """The servers of a client: what both idioms decide about them. Each places jobs, asks and waits in its own way.

    Attributes:
        settings: the options of the client.
        sessions: the servers, in the order in which the user gave them.
    """

    def __init__(
        self,
        settings: ClientSettings,
        log: logging.Logger,
        session: Callable[[Address, LoggedStanding], _S],
        record: Callable[..., _R],
    ) -> None:
        """Begin without connections.

        Args:
            settings: the options of the client.
            log: where the sessions log.
            session: makes the session of a server.
            record: makes the record of a job; takes the arguments of `JobRecord`.
        """
        self.settings = settings
        self.sessions = [
            session(address, LoggedStanding(address, log, settings.retry_pauses)) for address in settings.addresses
        ]
        self._chooser = ServerChooser(self.sessions, settings.policy)
        self._new_record = record

    def record(
        self, request: JobRequest, *, background: bool = False, resubmit: bool = False, stream: bool = False
    ) -> _R:
        """Make the record of a job that is to be submitted.

        Args:
            request: the job.
            background: whether it is a background job.
            resubmit: whether a submission that was lost with its connection is sent again.
            stream: whether the pieces of its result are dropped once they have been consumed.

        Raises:
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        packet = request.packet(background=background, max_unique_size=self.settings.max_unique_size)
        unread = self.settings.unread if stream else None
        return self._new_record(packet, self._chooser.candidates(packet.unique), resubmit=resubmit, unread=unread)

    def records(self, requests: Iterable[JobRequest], *, background: bool = False, resubmit: bool = False) -> list[_R]:
        """Make the records of jobs that are to be submitted together; raises as `record`, if one breaks a rule."""
        records = [self.record(request, background=background, resubmit=resubmit) for request in requests]
        if len(self.sessions) > 1:  # otherwise the one session submits all or none
            check_submissions(records, self.settings.options)
        return records

    def only(self, server: ServerAddress) -> Candidates:
        """Return the way of what is meant for one server.

        Raises:
            ValueError: it is none of the client's servers.
        """
        address = parse_address(server)
        if address not in self.settings.addresses:
            raise ValueError(f"{address} is not one of this client's servers")
        return self._chooser.only(self.settings.addresses.index(address))

    def in_order(self) -> Candidates:
        """Return the way of a query that any server can answer."""
        return self._chooser.in_order()

    def no_answer(self, server: Address | None) -> TimeoutError:
        """Return what is raised when a server has not answered in time."""
        return TimeoutError(f"{server}: no answer within {self.settings.timeout:g} s")

    def known_failures(self) -> list[tuple[Address, OSError]]:
        """Return why servers cannot be reached, if known."""
        late = TimeoutError("no answer in time")
        failures = [(session.address, late if session.dialing else session.failure) for session in self.sessions]
        return [(address, failure) for address, failure in failures if failure is not None]

    @property
    def paused(self) -> bool:
        """Whether a connection is not read, as jobs that stream hold too much unread."""
        return any(session.paused for session in self.sessions)

    def read_on(self) -> None:
        """Read on where that was not possible and is again."""
        for session in self.sessions:
            session.read_on()
