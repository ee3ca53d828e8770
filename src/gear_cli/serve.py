"""``gear serve``: a job server in this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter, validators

from gearproto import DEFAULT_MAX_SERVER_PACKET_SIZE, DEFAULT_PORT

from .exits import Exit, Failure, UsageError, reason
from .options import Flag, Verbose, from_environment, log_to_stderr, seconds
from .stderr_log import StderrHandler
from .stdio import printable, write_line

if TYPE_CHECKING:
    from gear_net.serving import ServerOptions
    from gear_sync.server import Server

__all__ = ["serve", "tune_memory"]

DEFAULT_HOST: Final = "127.0.0.1"

_log = logging.getLogger(__name__)

_LISTEN_VARIABLE: Final = "GEAR_SERVE_LISTEN"
_LISTENING = Group.create_ordered("Listening")
_TLS = Group.create_ordered("TLS")
_JOBS = Group.create_ordered("Jobs")
_LIMITS = Group.create_ordered("Limits")
_LOGGING = Group.create_ordered("Logging")


def _between(low: int, high: int) -> validators.Number:
    return validators.Number(gte=low, lte=high)


_natural = validators.Number(gte=0)
_positive = validators.Number(gt=0)
_LONGEST = 86400.0  # seconds
_M_TRIM_THRESHOLD = -1  # of glibc's malloc.h
_M_MMAP_THRESHOLD = -3
_VERBOSITY = (b"ERROR", b"INFO", b"DEBUG")


def serve(
    *,
    host: Annotated[str | None, Parameter(group=_LISTENING, show_default=DEFAULT_HOST)] = None,
    port: Annotated[
        int | None,
        Parameter(group=_LISTENING, show_default=str(DEFAULT_PORT), validator=_between(0, 65535)),
    ] = None,
    listen: Annotated[tuple[str, ...], Parameter(group=_LISTENING, show_default=False)] = (),
    backlog: Annotated[int, Parameter(group=_LISTENING, validator=_between(1, 2**31 - 1))] = 4096,
    keepalive: Annotated[int, Parameter(group=_LISTENING, validator=_between(0, 32767))] = 60,
    tls_certificate: Annotated[Path | None, Parameter(group=_TLS)] = None,
    tls_key: Annotated[Path | None, Parameter(group=_TLS)] = None,
    tls_ca: Annotated[Path | None, Parameter(group=_TLS)] = None,
    handshake_timeout: Annotated[float, seconds(_LONGEST), Parameter(group=_TLS)] = 10.0,
    job_retries: Annotated[int, Parameter(group=_JOBS, validator=validators.Number(gte=-1))] = 20,
    worker_wakeup: Annotated[int, Parameter(group=_JOBS, validator=_natural)] = 1,
    wakeup_timeout: Annotated[float, seconds(_LONGEST), Parameter(group=_JOBS)] = 1.0,
    round_robin: Annotated[bool, Parameter(group=_JOBS, negative="--no-round-robin")] = True,
    exceptions: Annotated[Flag, Parameter(group=_JOBS)] = False,
    handle_prefix: Annotated[str | None, Parameter(group=_JOBS)] = None,
    max_jobs: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 10_000_000,
    max_queue_size: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 4 * 1024**3,
    max_packet_size: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = DEFAULT_MAX_SERVER_PACKET_SIZE,
    max_connections: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 100_000,
    max_unsent: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 64 * 1024**2,
    max_behind: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 1024**3,
    max_memory: Annotated[int | None, Parameter(group=_LIMITS, validator=_positive)] = None,
    max_functions: Annotated[int, Parameter(group=_LIMITS, validator=_positive)] = 20_000,
    max_idle_functions: Annotated[int, Parameter(group=_LIMITS, validator=_natural)] = 1000,
    max_kept_functions: Annotated[int, Parameter(group=_LIMITS, validator=_natural)] = 10_000,
    allow_shutdown: Annotated[Flag, Parameter(group=_LISTENING)] = False,
    verbose: Annotated[Verbose, Parameter(group=_LOGGING)] = 0,
) -> int:
    """Run a job server until SIGTERM or SIGINT.

    The server prints the addresses that it listens on, one in each line. By default, only programs on this machine can
    connect. Without --host, --port and --listen, it uses the addresses in the environment variable GEAR_SERVE_LISTEN,
    in the form of --listen, separated by commas or spaces. If a service manager such as systemd passes sockets
    (LISTEN_FDS), they are used instead of all other addresses.

    SIGUSR1 stops the server gracefully: it accepts nothing new, and exits when no job is running.

    With --tls-certificate and --tls-key, the server speaks TLS on all addresses, and nothing else. With --tls-ca, it
    only serves peers that present a certificate from this authority. On SIGHUP, it reads these files again, for new
    connections.

    Exit codes: 0 stopped, 1 cannot listen on an address, 2 wrong usage.

    Args:
        host: Address or name to listen on; 0.0.0.0 or :: for all addresses of this machine.
        port: TCP port; 0 lets the system choose one.
        listen: Address to listen on instead of host and port: host:port, [IPv6]:port or unix:PATH. Can be repeated.
        backlog: Number of connections that may wait to be accepted.
        keepalive: Seconds of silence after which TCP probes a peer; 0 for never.
        tls_certificate: PEM file with the server's certificate, followed by the intermediate certificates.
        tls_key: PEM file with the private key of the certificate.
        tls_ca: PEM file with the CA certificates that verify clients and workers.
        handshake_timeout: Seconds within which a TLS handshake has to complete.
        job_retries: How often a job is given to another worker if its worker is lost or its timeout passes; after that
            it fails, with a warning. -1 means no limit. From the third time on, the job waits first: 1, 2, 4 seconds,
            up to 60.
        worker_wakeup: Number of sleeping workers that are woken for a job; 0 means all.
        wakeup_timeout: Seconds after which other workers are woken if a woken worker has not asked for a job: twice as
            many each time, and all of them the fourth time.
        round_robin: Whether the functions of a worker take turns within a priority. If not, the function that has had
            jobs for the longest time is served until it has none.
        exceptions: Send exceptions of workers to every client, even if it has not asked for them.
        handle_prefix: Start of every job handle; H: and the host name by default.
        max_jobs: Number of jobs in the server; more are refused.
        max_queue_size: Bytes of the workloads, names and uniques of all jobs; more are refused.
        max_packet_size: Bytes of a packet; a peer that sends a larger one gets an error, and is disconnected.
        max_connections: Number of connections; more are closed at once.
        max_unsent: Bytes of unread output; a peer that reads nothing is disconnected when it has more.
        max_behind: Bytes of unread output; a peer that reads too slowly is disconnected when it has more.
        max_memory: Bytes of memory for everything that peers make the server store; half of the machine's memory by
            default.
        max_functions: Number of functions that one worker can register.
        max_idle_functions: Number of functions without jobs and workers that the server remembers.
        max_kept_functions: Number of functions that administrators can create or limit; these are never forgotten.
        allow_shutdown: Let anyone who can connect stop the server with the command shutdown.
        verbose: see Verbose.
    """
    from gear_net.listening import Keepalive, inherited_sockets
    from gear_net.tls import TLS
    from gear_sync.server import Server

    log_to_stderr(verbose, StderrHandler())
    places = _places(host, port, listen)
    options: ServerOptions = {
        "listen": places,
        "backlog": backlog,
        "keepalive": Keepalive(idle=keepalive) if keepalive else None,
        "handshake_timeout": handshake_timeout,
        "job_retries": job_retries,
        "worker_wakeup": worker_wakeup,
        "wakeup_timeout": wakeup_timeout,
        "round_robin": round_robin,
        "exceptions": exceptions,
        "max_jobs": max_jobs,
        "max_queue_size": max_queue_size,
        "max_packet_size": max_packet_size,
        "max_connections": max_connections,
        "max_unsent": max_unsent,
        "max_behind": max_behind,
        "max_memory": max_memory,
        "trim_memory": True,
        "max_functions": max_functions,
        "max_idle_functions": max_idle_functions,
        "max_kept_functions": max_kept_functions,
        "allow_shutdown": allow_shutdown,
        "verbosity": _VERBOSITY[min(verbose, len(_VERBOSITY) - 1)],
    }
    if handle_prefix is not None:
        if not handle_prefix or not handle_prefix.isprintable() or " " in handle_prefix:
            raise UsageError("--handle-prefix must not be empty, or contain spaces or control characters.")
        options["handle_prefix"] = handle_prefix
    try:
        if sockets := inherited_sockets():
            options["sockets"] = sockets
        if tls_certificate is not None or tls_key is not None or tls_ca is not None:
            options["tls"] = TLS(certificate=tls_certificate, key=tls_key, ca=tls_ca)
        server = Server(**options)
    except OSError as error:
        raise Failure(
            f"cannot listen on {error.filename or ', '.join(map(_written, places))}: {reason(error)}."
        ) from error
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    try:
        _handle_signals(server, tls=options.get("tls") is not None)
        for address in server.addresses:
            text = f"unix:{address}" if isinstance(address, str) else _written(address)
            write_line(f"listening on {printable(text)}")
        tune_memory()
        server.serve_forever()
    finally:
        server.close()  # which removes files of Unix sockets
    return Exit.DONE


def _places(host: str | None, port: int | None, listen: Sequence[str]) -> Sequence[str | tuple[str, int]]:
    """Return where to listen; the command line takes precedence over the environment."""
    if listen:
        return listen
    if host is None and port is None and (found := from_environment(_LISTEN_VARIABLE)):
        return found
    if host == "":
        raise UsageError("--host is empty; use 0.0.0.0 or :: for all addresses of this machine.")
    return [(DEFAULT_HOST if host is None else host, DEFAULT_PORT if port is None else port)]


def tune_memory() -> None:
    """Tune the garbage collector and the C library for a process that is a job server and nothing else.

    Both settings have been measured.
    """
    # Looking through long-lived objects again and again would cost a busy server much of its time.
    gc.set_threshold(100_000, 50, 50)
    gc.collect()
    gc.freeze()
    # If memory goes back to the system after every big packet, and is requested again for the next one, this takes half
    # of the time of such packets. So up to 64 MiB are kept, and returned when the server is idle (``trim_memory``).
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every C library has this
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, 32 * 1024**2)
            mallopt(_M_TRIM_THRESHOLD, 64 * 1024**2)


def _written(place: str | tuple[str, int]) -> str:
    if isinstance(place, str):
        return place
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _handle_signals(server: Server, *, tls: bool) -> None:
    def reload() -> None:
        if not tls:
            _log.info("SIGHUP: there are no TLS files to read again")
            return
        try:
            server.reload_tls()
        except ValueError as error:
            _log.error("SIGHUP: %s; the previous files stay in use", error)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: server.stop())
    if sys.platform != "win32":
        signal.signal(signal.SIGUSR1, lambda _number, _frame: server.stop(graceful=True))
        # Not in the handler itself: it may interrupt a line that is just being logged.
        signal.signal(signal.SIGHUP, lambda _number, _frame: server.call_soon(reload))
