"""Output that peers have not taken yet: what is kept of it, and which peers take too little.

Output goes to a peer's socket at once. What that does not take begins a `Backlog`; all further output of the peer is
queued behind it, until everything has left. Each byte counts when it is queued, even if it is shared with other peers.

A socket that takes no more is full. It has *drained* once it has taken as much again as its buffer holds: all that it
held before has left. Until then nobody knows whether the peer reads at all, as buffers of the system grow while they
fill. Such a peer may have ``max_unsent`` bytes; and more, such as several big results at once, for a moment only. Once
the socket has drained, the peer reads, and may fall behind up to ``max_behind``. But past ``max_unsent`` it has to make
progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeAlias, TypeVar

from .output import BIG

__all__ = ["Backlog", "Backlogs"]

_MAX_PIECE: Final = 4 * 1024 * 1024  # bytes taken at once, by default
_AT_ONCE: Final = 0.02  # seconds; output of this period is judged together, before a peer can have read any of it

_Peer = TypeVar("_Peer")
_Pieces: TypeAlias = Iterable[bytes | memoryview]


class Backlog:
    """The output that one peer has not taken yet.

    Attributes:
        size: its bytes, those under way included.
        full: whether the socket has been full.
        taken: bytes that it has taken since it was first full.
        drained: whether that is more than its buffer holds.
        moved_at: when it last took something, or was first full, in monotonic seconds.
        far_since: since when it is over `max_unsent`; None if it is not.
    """

    __slots__ = ("_pieces", "drained", "far_since", "full", "moved_at", "size", "taken")

    def __init__(self, pieces: _Pieces, size: int) -> None:
        """Begin with some output of this many bytes."""
        self._pieces: deque[bytes | memoryview] = deque(pieces)
        self.size = size
        self.full = False
        self.taken = 0
        self.drained = False
        self.moved_at = 0.0
        self.far_since: float | None = None

    def extend(self, pieces: _Pieces) -> None:
        """Queue more, which `size` does not count yet."""
        self._pieces.extend(pieces)

    def take(self, limit: int = _MAX_PIECE) -> bytes | memoryview:
        """Take the next bytes to send: small pieces put together, or as much of a big one as the limit allows.

        They count in `size` until they are sent. Nothing is left if they are empty.
        """
        pieces = self._pieces
        if not pieces:
            return b""
        first = pieces.popleft()
        size = len(first)
        if size > limit:
            view = memoryview(first)
            pieces.appendleft(view[limit:])
            return view[:limit]
        if not pieces or size + len(pieces[0]) > BIG:
            return first
        some = [first]
        while pieces and size + len(pieces[0]) <= BIG:
            size += len(pieces[0])
            some.append(pieces.popleft())
        return b"".join(some)


class Backlogs(Generic[_Peer]):
    """The backlogs of all peers.

    Attributes:
        open: the backlogs there are.
        far: those over ``max_unsent``, which are few.
        size: bytes in all of them.
        pause_at: bytes from which on a peer's requests have to wait.
    """

    def __init__(
        self,
        *,
        pause_at: int,
        max_unsent: int,
        max_behind: int,
        drain_timeout: float = 1.0,
        stall_timeout: float = 10.0,
    ) -> None:
        """Begin with none.

        Args:
            pause_at: bytes that a peer has not taken from which on its requests have to wait.
            max_unsent: bytes that a peer may have whose socket has not drained.
            max_behind: bytes that any other peer may have; at least ``max_unsent``.
            drain_timeout: seconds without progress after which a peer has to go that has more than ``max_unsent``.
            stall_timeout: the same, for a peer whose socket has drained.
        """
        self.size = 0
        self.pause_at = pause_at
        self._max_unsent = max_unsent
        self._max_behind = max(max_behind, max_unsent)
        self._drain_timeout = drain_timeout
        self._stall_timeout = stall_timeout
        self.open: dict[_Peer, Backlog] = {}
        self.far: dict[_Peer, Backlog] = {}

    def begin(self, peer: _Peer, pieces: _Pieces, size: int) -> Backlog:
        """Begin a peer's backlog; it is not judged before the socket has been tried."""
        backlog = self.open[peer] = Backlog(pieces, size)
        self.size += size
        return backlog

    def end(self, peer: _Peer) -> None:
        """Forget a peer's backlog: all has been sent, or the peer is gone."""
        if (backlog := self.open.pop(peer, None)) is not None:
            self.size -= backlog.size
            self.far.pop(peer, None)

    def grow(self, backlog: Backlog, size: int) -> None:
        """Count bytes that came to a backlog on its way to the socket, such as those of TLS."""
        backlog.size += size
        self.size += size

    def add(self, peer: _Peer, backlog: Backlog, pieces: _Pieces, size: int, now: float) -> str | None:
        """Queue more output of a peer.

        Returns:
            Why the peer has to go, if it has to.
        """
        if not backlog.drained and backlog.far_since is not None and now - backlog.far_since > _AT_ONCE:
            moved = backlog.moved_at > backlog.far_since
            if not moved or backlog.size > self._max_unsent + self._max_unsent // 2:
                return _too_much(backlog.size + size, self._max_unsent)
        if backlog.size + size > self._max_behind:
            return _too_much(backlog.size + size, self._max_behind)
        backlog.extend(pieces)
        self.grow(backlog, size)
        self._watch(peer, backlog, now)
        return None

    def sent(self, peer: _Peer, backlog: Backlog, count: int, now: float) -> None:
        """Count bytes that the socket has taken."""
        backlog.size -= count
        self.size -= count
        backlog.moved_at = now
        if backlog.full:
            backlog.taken += count
        if backlog.far_since is not None and backlog.size <= self._max_unsent:
            backlog.far_since = None
            del self.far[peer]

    def rest(self, peer: _Peer, backlog: Backlog, buffer_size: int, now: float, *, full: bool) -> str | None:
        """Note that no more is sent now: the socket takes no more, or others have their turn first.

        Args:
            peer: whose socket it is.
            backlog: its backlog.
            buffer_size: bytes that the socket's buffer holds.
            now: monotonic time in seconds.
            full: whether the socket takes no more.

        Returns:
            Why the peer has to go, if it has to.
        """
        if full and not backlog.full:
            backlog.full = True
            backlog.moved_at = now
        if backlog.taken >= buffer_size:
            backlog.drained = True
        self._watch(peer, backlog, now)
        return _too_much(backlog.size, self._max_behind) if backlog.size > self._max_behind else None

    def _watch(self, peer: _Peer, backlog: Backlog, now: float) -> None:
        if backlog.far_since is None and backlog.size > self._max_unsent:
            backlog.far_since = now
            self.far[peer] = backlog

    def keeps_waiting(self, peer: _Peer) -> bool:
        """Tell whether the requests of a peer have to wait until it has taken more."""
        backlog = self.open.get(peer)
        return backlog is not None and backlog.size > self.pause_at

    def may_be_stuck(self, backlog: Backlog) -> bool:
        """Tell whether the socket has to be tried before more is queued, as the peer may have to go otherwise."""
        return backlog.far_since is not None and not backlog.drained

    # Time

    def next_deadline(self) -> float | None:
        """Return the time at which a peer has to go that takes nothing until then; None if there is no such peer."""
        return min(map(self._deadline, self.far.values()), default=None) if self.far else None

    def overdue(self, now: float) -> Iterator[tuple[_Peer, str]]:
        """Return the peers that have to go, and why."""
        for peer, backlog in list(self.far.items()):
            if self._deadline(backlog) <= now:
                timeout = self._stall_timeout if backlog.drained else self._drain_timeout
                yield peer, f"{_too_much(backlog.size, self._max_unsent)}: it has read nothing for {timeout:g} s"

    def _deadline(self, backlog: Backlog) -> float:
        return _since(backlog) + (self._stall_timeout if backlog.drained else self._drain_timeout)


def _since(backlog: Backlog) -> float:
    """Return since when a backlog over its limit has not moved."""
    assert backlog.far_since is not None
    return max(backlog.moved_at, backlog.far_since)


def _too_much(size: int, limit: int) -> str:
    return f"{size} bytes unread, limit {limit}"
