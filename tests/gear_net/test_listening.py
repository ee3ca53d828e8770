"""Listening sockets: where they listen, what becomes of their files, and how accepted sockets are set."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

import gear_sync
from gear_net.listening import DEFAULT_BACKLOG, Keepalive, inherited_sockets, listen
from gear_net.serving import open_reactor
from gearproto.codec import RESPONSE
from tests.harness.ports import HeldPort
from tests.harness.raw import TURNED_AWAY
from tests.harness.servers import poll_until
from tests.harness.threads import Call

_WAIT: Final = 20.0  # seconds; only a hang reaches it

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


@contextmanager
def listening(*places: str | tuple[str, int]) -> Iterator[list[socket.socket]]:
    """Listen for the time of a block."""
    listeners = listen(places)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def ipv6_works() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free."""
    with HeldPort() as port:
        yield port.number


def check_connection(address: tuple[str, int] | str) -> None:
    """Ask a server that runs for its version."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT)
        sock.connect(address)
        sock.sendall(b"version\n")
        assert sock.recv(100).startswith(b"OK ")


# Addresses


@pytest.mark.parametrize("form", ["text", "pair"])
def test_a_port_is_listened_on(form: str, port: int) -> None:
    with listening(f"127.0.0.1:{port}" if form == "text" else ("127.0.0.1", port)) as (listener,):
        assert listener.getsockname() == ("127.0.0.1", port)


def test_port_0_is_a_free_port() -> None:
    with listening("127.0.0.1:0", "127.0.0.1:0") as listeners:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 2
        assert 0 not in ports


def test_the_port_is_4730_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, **_options: object) -> list[object]:
        asked.append((host, port))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert listen(["127.0.0.1", "::1", "[::1]", "localhost"]) == []
    assert asked == [("127.0.0.1", 4730), ("::1", 4730), ("::1", 4730), ("localhost", 4730)]


@pytest.mark.skipif(not ipv6_works(), reason="there is no IPv6 loopback")
def test_ipv6_addresses_are_listened_on() -> None:
    with listening("[::1]:0") as (listener,):
        assert listener.family == socket.AF_INET6
        assert listener.getsockname()[0] == "::1"


@pytest.mark.skipif(not ipv6_works(), reason="there is no IPv6 loopback")
def test_a_server_serves_ipv4_and_ipv6() -> None:
    with gear_sync.Server(listen=["127.0.0.1:0", "[::1]:0"]) as server:
        assert [address[0] for address in server.addresses] == ["127.0.0.1", "::1"]
        for address in server.addresses:
            check_connection(address)


def test_a_name_is_listened_on_at_each_of_its_addresses_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*kind, ("127.0.0.1", 0)), (*kind, ("127.0.0.2", 0)), (*kind, ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
    try:
        listeners = listen(["name:0"])
    except OSError:
        pytest.skip("127.0.0.2 is no address here")
    names = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    assert [host for host, _port in names] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _host, port in names}) == 1


@pytest.mark.parametrize("place", ["127.0.0.1:", "127.0.0.1:gearman", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]:x"])
def test_what_is_no_address_is_an_error(place: str) -> None:
    with pytest.raises(ValueError, match=r"the port has to be a number"):
        listen([place])


def test_one_address_that_fails_closes_the_others(tmp_path: Path, port: int) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            listen([f"unix:{path}", f"127.0.0.1:{port}", taken.getsockname()])
        with pytest.raises(ValueError, match="not an address"):
            listen([f"unix:{path}", f"127.0.0.1:{port}", "127.0.0.1:x"])
    assert not path.exists()
    with listening(f"127.0.0.1:{port}"):
        pass


def test_the_backlog_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backlogs = []
    real = socket.create_server

    def create_server(address: tuple[str, int], *, family: int, backlog: int) -> socket.socket:
        backlogs.append(backlog)
        return real(address, family=family, backlog=backlog)

    monkeypatch.setattr(socket, "create_server", create_server)
    for options in ({}, {"backlog": 7}):
        open_reactor("127.0.0.1", 0, **options).close()  # type: ignore[arg-type]
    assert backlogs == [DEFAULT_BACKLOG, 7]


# Unix sockets


@needs_unix
def test_a_unix_socket_serves_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with gear_sync.Server(listen=[f"unix:{path}"]) as server:
        assert server.addresses == [str(path)]
        assert stat.S_ISSOCK(path.stat().st_mode)
        check_connection(str(path))
    assert not path.exists()


@needs_unix
def test_the_file_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with gear_sync.Server(listen=[f"unix:{path}"]):
        check_connection(str(path))


@needs_unix
def test_the_file_of_a_live_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with gear_sync.Server(listen=[f"unix:{path}"]):
        with pytest.raises(OSError, match="in use"):
            gear_sync.Server(listen=[f"unix:{path}"])
        check_connection(str(path))


@needs_unix
def test_the_file_of_a_server_that_is_too_busy_to_answer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:  # until no more may wait to be accepted
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(path))
        with pytest.raises(OSError, match="in use"):
            Call(lambda: listen([f"unix:{path}"])).result()
        assert path.exists()


@needs_unix
def test_a_file_that_another_server_has_put_in_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with contextlib.ExitStack() as stack:
        with gear_sync.Server(listen=[f"unix:{path}"]):
            path.rename(tmp_path / "old")  # so that the new file cannot have its inode
            stack.enter_context(gear_sync.Server(listen=[f"unix:{path}"]))
        check_connection(str(path))
    assert not path.exists()


@needs_unix
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listen([f"unix:{path}"])
    assert path.read_text() == "precious"


@needs_unix
def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen([f"unix:{tmp_path / 'missing' / 'socket'}"])


@needs_unix
def test_a_server_that_stops_listening_removes_its_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with closing(open_reactor("", 0, listen=[f"unix:{path}"])) as reactor:
        reactor.drain()
        assert not path.exists()


@needs_unix
def test_the_file_of_a_socket_that_was_handed_over_stays(tmp_path: Path) -> None:
    """Its owner, such as a service manager, goes on to listen there, and starts the next server on a connection."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as owner:
        owner.bind(str(path))
        owner.listen()
        for _ in range(2):
            with gear_sync.Server(sockets=[owner.dup()]):
                check_connection(str(path))


# Inherited sockets

_CHILD: Final = """
import os, sys
import gear_sync
from gear_net.listening import inherited_sockets
sockets = inherited_sockets()
assert all(not os.get_inheritable(sock.fileno()) for sock in sockets)
print(len(sockets), flush=True)
if sockets:
    gear_sync.Server(sockets=sockets, allow_shutdown=True).serve_forever()
"""


@contextmanager
def child(listeners: list[socket.socket], pid: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server on sockets as a service manager starts it: from descriptor 3 on."""
    first = 3 + len(listeners) + 10
    moves = "".join(f"os.dup2({listener.fileno()}, {first + n});" for n, listener in enumerate(listeners))
    moves += "".join(f"os.dup2({first + n}, {3 + n});" for n in range(len(listeners)))
    start = f"import os, sys; {moves} os.environ['LISTEN_PID'] = {pid}; os.environ['LISTEN_FDS'] = '{len(listeners)}';"
    start += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen(
        [sys.executable, "-c", start, _CHILD],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[listener.fileno() for listener in listeners],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="descriptors are inherited on POSIX systems")
def test_inherited_sockets_are_served(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening("127.0.0.1:0", f"unix:{path}") as listeners, child(listeners, "str(os.getpid())") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        for listener in listeners:
            check_connection(listener.getsockname())
        check_connection(listeners[0].getsockname())
        with socket.create_connection(listeners[0].getsockname(), _WAIT) as admin:
            admin.sendall(b"shutdown\n")
            assert process.wait(_WAIT) == 0
        assert path.exists()


@pytest.mark.skipif(os.name != "posix", reason="descriptors are inherited on POSIX systems")
def test_sockets_for_another_process_are_left_alone() -> None:
    with listening("127.0.0.1:0") as listeners, child(listeners, "'1'") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        assert process.wait(_WAIT) == 0


def test_without_a_service_manager_no_sockets_are_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_sockets() == []
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.delenv("LISTEN_FDS")
    assert inherited_sockets() == []


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "", "٣"])
def test_number_of_sockets_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", text)
    with pytest.raises(ValueError, match=f"^LISTEN_FDS is '{text}', not a number of sockets$"):
        inherited_sockets()


# Accepted sockets


def accepted_socket(**options: object) -> dict[str, int]:
    """Return how a server sets the socket of a peer."""
    with closing(open_reactor("127.0.0.1", 0, **options)) as reactor:  # type: ignore[arg-type]
        (address,) = reactor.addresses
        assert isinstance(address, tuple)
        with socket.create_connection(address, _WAIT):
            accepted: list[socket.socket] = []
            reactor.on_connected = lambda _peer, sock: accepted.append(sock)
            while not accepted:
                reactor.turn(_WAIT)
            (sock,) = accepted
            tcp = {
                name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
                if hasattr(socket, name)
            }
            assert not sock.getblocking()
            return {"SO_KEEPALIVE": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), **tcp}


def test_keepalive_is_on_unless_told_otherwise() -> None:
    options = accepted_socket()
    assert options["SO_KEEPALIVE"]
    assert options["TCP_NODELAY"]
    assert options.get("TCP_KEEPIDLE", 60) == 60
    assert options.get("TCP_KEEPINTVL", 10) == 10
    assert options.get("TCP_KEEPCNT", 6) == 6


def test_keepalive_can_be_set() -> None:
    options = accepted_socket(keepalive=Keepalive(idle=7, interval=3, count=2))
    assert options["SO_KEEPALIVE"]
    assert options.get("TCP_KEEPIDLE", 7) == 7
    assert options.get("TCP_KEEPINTVL", 3) == 3
    assert options.get("TCP_KEEPCNT", 2) == 2


def test_keepalive_can_be_off() -> None:
    options = accepted_socket(keepalive=None)
    assert not options["SO_KEEPALIVE"]
    assert options["TCP_NODELAY"]


def test_connections_past_the_limit_are_closed_at_once() -> None:
    with gear_sync.Server(port=0, max_connections=2) as server:
        socks = [socket.create_connection(server.address, _WAIT) for _ in range(2)]
        poll_until(lambda: server.snapshot().jobs.peers == 2, "both are connected")
        with socket.create_connection(server.address, _WAIT) as third:
            assert third.recv(100) == TURNED_AWAY.encode(RESPONSE)
            assert third.recv(1) == b""
        socks.pop().close()
        poll_until(lambda: server.snapshot().jobs.peers == 1, "one has gone")
        check_connection(server.address)
        socks.pop().close()


def test_name_that_could_be_no_hosts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a\.\.b' cannot be the name of a host"):
        listen([("a..b", 0)])
