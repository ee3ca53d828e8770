"""The options of clients and workers, checked once for both idioms."""

from __future__ import annotations

import ssl
from typing import Unpack

from gearproto.addresses import ServerAddresses, parse_addresses
from gearproto.arguments import as_bytes
from gearproto.client import Policy, Unread, check_max_unique_size
from gearproto.options import ConnectionOptions, connection_options
from gearproto.timeouts import setting
from gearproto.worker import Grabber

from .tls import TLS, ClientTLS

__all__ = ["ClientSettings", "WorkerSettings"]


class ClientSettings:
    """The options of a client, checked; what they mean is said where users give them, at `gear_sync.Client`.

    Attributes:
        addresses: the servers.
        policy: which of several servers a job goes to.
        tls: gives the context for TLS; None for plain TCP.
        connect_timeout: seconds for each attempt to connect to a server.
        timeout: seconds that each call may take to find a server and get its answer; None for no limit.
        retry_pauses: (initial, maximum) seconds before an unreachable server is retried.
        resubmit_timeout: seconds for which a submission that was lost looks for a server.
        exceptions: whether to ask for exceptions of workers.
        max_unique_size: limit in bytes for uniques.
        unread: counts what jobs that stream hold unread.
        options: options of the connections.
    """

    def __init__(
        self,
        servers: ServerAddresses,
        *,
        policy: Policy | str,
        tls: TLS | ssl.SSLContext | None,
        connect_timeout: float,
        timeout: float | None,
        retry_pauses: tuple[float, float],
        resubmit_timeout: float,
        exceptions: bool,
        max_unique_size: int,
        max_unread: int,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Check the options.

        Raises:
            TypeError: there is no such option, or a number is something else.
            ValueError: an option is not valid, or a file for TLS cannot be used.
        """
        self.options = connection_options(**options)
        self.addresses = parse_addresses(servers)
        self.connect_timeout = setting("connect_timeout", connect_timeout)
        self.timeout = None if timeout is None else setting("timeout", timeout)
        self.resubmit_timeout = setting("resubmit_timeout", resubmit_timeout)
        self.exceptions = exceptions
        self.max_unique_size = check_max_unique_size(max_unique_size)
        self.tls = None if tls is None else ClientTLS(tls)
        self.unread = Unread(max_unread)
        self.policy = Policy(policy)
        self.retry_pauses = retry_pauses


class WorkerSettings:
    """The options of a worker, checked; what they mean is said where users give them, at `gear_sync.Worker`.

    Attributes:
        addresses: the servers.
        grabber: asks servers for jobs.
        tls: gives the context for TLS; None for plain TCP.
        connect_timeout: seconds for each attempt to connect to a server.
        retry_pauses: (initial, maximum) seconds before an unreachable server is retried.
        stop_timeout: seconds that jobs have to end in once the worker is to stop; None for no limit.
        options: options of the connections.
    """

    def __init__(
        self,
        servers: ServerAddresses,
        *,
        client_id: str | bytes | bytearray | None,
        jobs_at_once: int,
        tls: TLS | ssl.SSLContext | None,
        connect_timeout: float,
        grab_timeout: float,
        retry_pauses: tuple[float, float],
        stop_timeout: float | None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Check the options.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            TypeError: there is no such option, or a number is something else.
            ValueError: an option is not valid, or a file for TLS cannot be used.
        """
        self.options = connection_options(**options)
        self.addresses = parse_addresses(servers)
        self.tls = None if tls is None else ClientTLS(tls)
        self.connect_timeout = setting("connect_timeout", connect_timeout)
        self.stop_timeout = None if stop_timeout is None else setting("stop_timeout", stop_timeout)
        self.retry_pauses = retry_pauses
        self.grabber = Grabber(
            jobs_at_once,
            client_id=None if client_id is None else as_bytes(client_id),
            grab_timeout=setting("grab_timeout", grab_timeout),
        )
