"""A job server in a loop of your own: sockets and `selectors` here, all decisions in `Endpoint`."""

import contextlib
import secrets
import selectors
import socket
import time

from gearproto.server import TURNED_AWAY, Close, CloseWrite, Endpoint, Engine, PauseReading, ResumeReading

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def serve(endpoint, listener):
    """Serve until the endpoint has stopped."""
    selector = selectors.DefaultSelector()
    selector.register(listener, READ)
    socks, watched = {}, {}  # by peer

    def watch(peer, more=0, less=0):
        watched[peer] = watched.get(peer, 0) & ~less | more
        with contextlib.suppress(KeyError):
            selector.unregister(socks[peer])
        if watched[peer]:  # a selector cannot wait for nothing
            selector.register(socks[peer], watched[peer], peer)

    while not endpoint.stopped:
        deadline = endpoint.next_deadline()
        ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
        now = time.monotonic()
        endpoint.begin_turn(now, time.time(), len(ready))
        for (sock, _fd, _events, peer), events in ready:
            if sock is listener:
                accept(endpoint, listener, socks, watch, now)
                continue
            if events & WRITE:
                watch(peer, less=WRITE)
                endpoint.writable(peer)
            if events & READ:
                try:
                    data = sock.recv(endpoint.max_read)
                    endpoint.received(peer, data, now) if data else endpoint.ended(peer, now)
                except OSError as error:
                    endpoint.lost(peer, now, str(error))
        endpoint.settle(now)
        for peer, data in endpoint.sends():
            try:
                sent = socks[peer].send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                endpoint.sent(peer, 0, now)
                endpoint.lost(peer, now, str(error))
                continue
            if sent < len(data):
                endpoint.sent(peer, sent, now)
                watch(peer, more=WRITE)
        while endpoint.changes:
            match endpoint.changes.popleft():
                case PauseReading(peer):
                    watch(peer, less=READ)
                case ResumeReading(peer):
                    watch(peer, more=READ)
                case CloseWrite(peer):
                    with contextlib.suppress(OSError):
                        socks[peer].shutdown(socket.SHUT_WR)
                case Close(peer):
                    watch(peer, less=READ | WRITE)
                    socks.pop(peer).close()
                    del watched[peer]
    for sock in socks.values():
        sock.close()
    selector.close()


def accept(endpoint, listener, socks, watch, now):
    """Accept a connection, or turn it away."""
    try:
        sock, address = listener.accept()
    except OSError:  # it has gone already, or there is no room for now
        return
    sock.setblocking(False)
    if endpoint.refusal() is None:
        peer = endpoint.accepted(now, address=address[0].encode())
        socks[peer] = sock
        watch(peer, more=READ)
    else:
        with contextlib.suppress(OSError):
            sock.send(TURNED_AWAY)
        sock.close()


if __name__ == "__main__":
    prefix = b"H:example:" + secrets.token_hex(4).encode()
    serve(Endpoint(Engine(handle_prefix=prefix, epoch_offset=0.0)), socket.create_server(("127.0.0.1", 4730)))
