"""The command ``geard``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gearproto
from gear_sync import gear
from gear_sync.gear.cmd import geard
from tests.harness.gear_api import Shop, tls_files
from tests.harness.threads import LIMIT


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command; return its process and port."""
    command = [sys.executable, "-m", "gear_sync.gear.cmd.geard", "-p", "0", "--listen-address", "localhost", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "Listening on port" in line:
                    yield process, int(line.rsplit(maxsplit=1)[1])
                    return
            raise AssertionError("it does not listen")
        finally:
            process.kill()


def test_it_serves_until_a_signal_comes(shop: Shop, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with running("-d", "--pidfile", str(pidfile), "--keepalive") as (process, port):
        shop.client(("localhost", port)).submitJob(gear.Job("f", b""))
        assert pidfile.read_text() == f"{process.pid}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
        assert not pidfile.exists()


def test_tls_access_and_statsd(shop: Shop, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("[client]\ninvoke = f%\n[boss]\nregister = .*\ngrant = yes\n")
    key, cert, ca = tls_files()
    arguments = ("--ssl-key", key, "--ssl-cert", cert, "--ssl-ca", ca, "--acl", str(acl))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(LIMIT)
        where = {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(statsd.getsockname()[1]), "STATSD_PREFIX": "p"}
        with running(*arguments, **where) as (_process, port):
            client = shop.client(("localhost", port), tls=tls_files("peer", "client"))
            client.submitJob(gear.Job("f%", b""))
            with pytest.raises(gear.GearmanError, match="Permission denied"):
                client.submitJob(gear.Job("f", b""))
            assert statsd.recv(1000).startswith(b"p.")


def parsed(*arguments: str) -> geard.Server:
    server = geard.Server()
    server.parse_arguments(arguments)
    return server


def test_access_control_list(tmp_path: Path) -> None:
    assert parsed().read_acl() is None
    missing = parsed("--acl", str(tmp_path / "missing")).read_acl()
    assert missing is not None
    assert missing.subjects == {}
    path = tmp_path / "acl"
    path.write_text("[a]\nregister=r\ninvoke=i\ngrant=true\n[b]\n")
    acl = parsed("--acl", str(path)).read_acl()
    assert acl is not None
    entry, empty = acl.getEntries()
    assert (entry.subject, entry.register, entry.invoke, entry.grant) == ("a", "r", "i", True)
    assert empty.isEmpty()


def test_defaults() -> None:
    args = parsed().args
    assert (args.port, args.listen_address, args.nodaemon, args.pidfile, args.keepalive) == (
        4730,
        None,
        False,
        None,
        False,
    )
    assert (args.keepalive_idle, args.keepalive_interval, args.keepalive_count) == (7200, 75, 9)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--version")
    assert capsys.readouterr().out == f"Gear version: {gearproto.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ssl-key", "key"], "TLS needs ssl_key, ssl_cert and ssl_ca: without ssl_cert and ssl_ca"),
        (["-p", "99999"], "there is no port 99999"),
        (["--log-config", "/missing"], "/missing"),
        (["--pidfile", "/missing/pid"], "No such file or directory: '/missing/pid'"),
        (["--acl", "{acl}"], "'(' is not a valid regular expression"),
    ],
)
def test_what_keeps_it_from_running_is_one_sentence(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("[a]\ninvoke=(\n")
    monkeypatch.setattr(sys, "argv", ["geard", "-p", "0", *(word.format(acl=acl) for word in arguments)])
    with pytest.raises(SystemExit, match=r"^geard: [^\n]*$") as caught:
        geard.main()
    assert sentence in str(caught.value)


def test_a_logging_configuration_is_followed(tmp_path: Path) -> None:
    log, config = tmp_path / "log", tmp_path / "config"
    config.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=file,err\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=file,err\n"
        f"[handler_file]\nclass=FileHandler\nargs=({str(log)!r},)\n[handler_err]\nclass=StreamHandler\nargs=()\n"
    )
    with running("--log-config", str(config)):
        assert log.read_text().startswith("Listening on port")
