"""The command ``geard``: a `gear.Server` as a program of its own.

It stays in the foreground: daemons are made by the service manager that starts it, which also collects what it logs.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import gearproto
from gear_sync.gear.acl import ACL, ACLEntry, ACLError
from gear_sync.gear.errors import ConfigurationError
from gear_sync.gear.server import Server as GearServer

__all__ = ["Server", "main"]

_log = logging.getLogger("gear.geard")

_ENVIRONMENT = (
    "STATSD_HOST, STATSD_PORT (8125) and STATSD_PREFIX in the environment say what statsd server to report to; that"
    " needs the package statsd. The server stays in the foreground, for a service manager to look after."
)


class Server:
    """The program: its arguments, and what they lead to.

    Attributes:
        args: the arguments, as `argparse` has read them.
        server: the job server, once it runs.
    """

    args: argparse.Namespace

    def __init__(self) -> None:
        """Begin without arguments."""
        self.server: GearServer | None = None

    def parse_arguments(self, arguments: Sequence[str] | None = None) -> None:
        """Read arguments: those of the program unless others are given."""
        parser = argparse.ArgumentParser(prog="geard", description="A Gearman job server.", epilog=_ENVIRONMENT)
        parser.add_argument("-d", dest="nodaemon", action="store_true", help="log everything")
        parser.add_argument("-p", dest="port", type=int, default=4730, help="port to listen on; 0 for any")
        parser.add_argument("--listen-address", help="name or address to listen on; all unless given")
        parser.add_argument("--log-config", metavar="FILE", help="configuration for logging; else to stderr")
        parser.add_argument("--pidfile", metavar="FILE", help="where to write the process id")
        parser.add_argument("--ssl-ca", metavar="FILE", help="certificates of the authorities")
        parser.add_argument("--ssl-cert", metavar="FILE", help="the server's certificate")
        parser.add_argument("--ssl-key", metavar="FILE", help="the certificate's private key")
        parser.add_argument("--acl", metavar="FILE", help="who may do what, by subjects of certificates")
        parser.add_argument("--keepalive", action="store_true", help="probe silent connections (TCP keepalive)")
        parser.add_argument(
            "--keepalive-idle", type=int, default=7200, metavar="SECONDS", help="seconds of silence before a probe"
        )
        parser.add_argument(
            "--keepalive-interval", type=int, default=75, metavar="SECONDS", help="seconds between probes"
        )
        parser.add_argument("--keepalive-count", type=int, default=9, metavar="COUNT", help="number of probes")
        parser.add_argument("--version", action="version", version=f"Gear version: {gearproto.__version__}")
        self.args = parser.parse_args(arguments)

    def setup_logging(self) -> None:
        """Log to where the arguments say."""
        if self.args.log_config:
            logging.config.fileConfig(self.args.log_config, disable_existing_loggers=False)
        else:
            level = logging.DEBUG if self.args.nodaemon else logging.INFO
            logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def read_acl(self) -> ACL | None:
        """Read the access control list: a section for each subject, with the keys ``register``, ``invoke``, ``grant``.

        Returns:
            The list, an empty one if there is no such file; None if none is wanted.

        Raises:
            ACLError: a pattern is not a valid regular expression.
            ValueError: ``grant`` is neither true nor false.
            configparser.Error: the file has another format.
        """
        if not self.args.acl:
            return None
        parser = configparser.ConfigParser(interpolation=None)
        if not parser.read(self.args.acl):
            _log.warning("%s cannot be read: nobody may do anything", self.args.acl)
        acl = ACL()
        for name in parser.sections():
            section = parser[name]
            grant = section.getboolean("grant", fallback=False)
            acl.add(ACLEntry(name, section.get("register"), section.get("invoke"), grant))
        return acl

    def main(self) -> None:
        """Serve until a signal asks for the end (``SIGTERM``, ``SIGINT``), or an administrator does.

        Raises:
            OSError: the address cannot be listened on, or a file cannot be read or written.
            ConfigurationError: TLS files are missing, or cannot be used.
        """
        args, environ = self.args, os.environ
        with _pidfile(args.pidfile):
            self.server = GearServer(
                args.port,
                args.ssl_key,
                args.ssl_cert,
                args.ssl_ca,
                statsd_host=environ.get("STATSD_HOST"),
                statsd_port=int(environ.get("STATSD_PORT", "8125")),
                statsd_prefix=environ.get("STATSD_PREFIX"),
                acl=self.read_acl(),
                host=args.listen_address,
                keepalive=args.keepalive,
                tcp_keepidle=args.keepalive_idle,
                tcp_keepintvl=args.keepalive_interval,
                tcp_keepcnt=args.keepalive_count,
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            _log.info("Listening on port %d", self.server.port)
            while self.server.poll_thread.is_alive():  # again and again: a signal just before a wait does not end it
                self.server.poll_thread.join(1)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        _log.info("%s: stopping", signal.Signals(number).name)
        assert self.server is not None
        self.server.shutdown()


@contextlib.contextmanager
def _pidfile(path: str | None) -> Iterator[None]:
    """Keep the process id in a file for the time of a block."""
    if path is None:
        yield
        return
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def main() -> None:
    """Run the program; what keeps it from running is one sentence, and exit code 1."""
    server = Server()
    server.parse_arguments()
    try:
        server.setup_logging()
        server.main()
    except (OSError, ConfigurationError, ACLError, ValueError, configparser.Error) as error:
        sys.exit(f"geard: {error}")


if __name__ == "__main__":
    main()
