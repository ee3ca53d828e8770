"""Lets several threads share connections without a thread of their own: the waiting threads move the bytes.

Theory of operation. A thread that waits in `Pump.wait` is in one of three states:

- looking: it holds the lock, and checks whether what it waits for is done. If so it returns. If not it pumps if no
  other thread does, and sleeps otherwise.
- pumping: it waits for the sockets without the lock, moves bytes and hands out events with the lock, and looks again.
  At most one thread is in this state.
- sleeping: until another thread finds that what it waits for is done, its time has passed, or it is its turn to pump.

The pump itself is unused, open or closed. It holds descriptors only while it is open.

Other threads may change what the pumping thread waits for: they queue output, or close a socket. They report it
(`Pump.changed`), which makes that thread look again.

What never happens:

- Threads sleep and none pumps: the thread that stops pumping wakes another (`Pump._leave`).
- A pumping thread takes the lock again and again before another gets it: it passes the gate first.
- A change to a socket or a connection is left half done, as ``KeyboardInterrupt`` may leave it: all sockets are closed
  then (`Pump.interrupted`), and what was open on them ends as lost.
- A forked child uses its parent's sockets: `Pump.check_process` refuses.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Final, Protocol

from gear_net.connecting import close_with
from gear_net.forks import FORKS
from gear_net.waker import Waker
from gearproto import GearmanError

__all__ = ["Pump", "Source"]

_READ: Final = selectors.EVENT_READ
_LONGEST_SLEEP: Final = 86400.0  # seconds; systems have limits, and time is looked at again after it
_JUST_NOW: Final = 0.0001  # seconds; looking again so soon would find nothing new, and cost a system call


class Source(Protocol):
    """What a pump moves: something with a socket, which may change."""

    @property
    def sock(self) -> socket.socket | None:
        """The socket; None if there is none now, or none that is to be watched."""
        ...

    @property
    def wants(self) -> int:
        """What to watch the socket for."""
        ...

    def on_ready(self, events: int) -> None:
        """Read and write as far as the socket is ready."""
        ...

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which to call `on_deadline`; None if never."""
        ...

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        ...

    def look(self) -> None:
        """Read some of what has come, in a bounded number of system calls."""
        ...

    def close(self, reason: str) -> None:
        """Close the socket."""
        ...


class _Waiter:
    """A thread that sleeps while another one pumps.

    `threading.Event` would do if KeyboardInterrupt could not break it. Hold the pump's lock in all but `sleep`.
    """

    __slots__ = ("_gate", "done", "left")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.left = False
        self._gate = threading.Lock()

    def prepare(self) -> None:
        self._gate.acquire(blocking=False)

    def sleep(self, timeout: float | None) -> None:
        self._gate.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))

    def wake(self) -> None:
        if self._gate.locked():
            self._gate.release()


class _Watched:
    """What the selector was told of a source. The socket may have been closed since then, so its number is kept."""

    __slots__ = ("descriptor", "sock", "wants")

    def __init__(self, sock: socket.socket, wants: int) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()
        self.wants = wants


class _Opened:
    """What a pump needs of the system: a selector, and what wakes it.

    Attributes:
        forks: tells the process that has opened it from its children.
        waker: wakes the thread that pumps.
        selector: watches the sources, and the waker, which has no data.
    """

    def __init__(self) -> None:
        self.forks = FORKS.count
        self.waker = Waker()
        close_with(self, self.waker)
        try:
            self.selector = self._new_selector()
        except OSError:  # nothing uses the pump yet
            self.waker.close()
            raise

    def _new_selector(self) -> selectors.BaseSelector:
        selector = selectors.DefaultSelector()
        selector.register(self.waker, _READ)
        return selector

    def renew_selector(self) -> None:
        self.selector.close()
        self.selector = self._new_selector()

    def close(self) -> None:
        self.selector.close()
        self.waker.close()


class Pump:
    """Moves the bytes of some sources while somebody waits for something.

    One waiting thread pumps; the others sleep. When what they wait for has come they are woken, and when the pumping
    thread leaves it wakes one of them to take over.

    A pump belongs to the process that uses it first, and holds no descriptor before: a parent may make it for the
    children that it forks.

    Attributes:
        gate: take it before `lock`. A thread that pumps without a pause passes the gate between two turns, so whichever
            thread holds it is the next one to get the lock.
        lock: guards the sources; hold it in every call to them, and to `changed` and `interrupted`.
        closed: whether `close` was called.
    """

    def __init__(self, owner: str, before_look: Callable[[], None] | None = None) -> None:
        """Begin without sources.

        Args:
            owner: what the sources belong to, as text.
            before_look: called with the lock held before each look at the sockets.
        """
        self.gate = threading.Lock()
        self.lock = threading.Lock()
        self.closed = False
        self._owner = owner
        self._before_look = before_look
        self._sources: list[Source] = []
        self._watched: dict[Source, _Watched] = {}
        self._pumper: _Waiter | None = None
        self._moved_at = 0.0  # when a pumping thread has read last
        self._waiters: dict[_Waiter, None] = {}
        self._opened: _Opened | None = None  # from the first use on, until all is closed

    def __del__(self) -> None:
        """Close what nobody can close any more, and warn of it."""
        if self._opened is not None and not self.inherited:
            warnings.warn(f"{self._owner} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close("dropped without being closed")

    def add(self, source: Source) -> None:
        """Move the bytes of one more source."""
        self._sources.append(source)

    @property
    def inherited(self) -> bool:
        """Whether this process has inherited the pump from its parent, which has used it."""
        return self._opened is not None and self._opened.forks != FORKS.count

    def check_process(self) -> None:
        """Refuse to run in a forked child, whose sockets are its parent's too.

        Raises:
            GearmanError: this process has inherited the pump from its parent.
        """
        opened = self._opened
        if opened is not None and opened.forks != FORKS.count:  # as `inherited`, which takes another call
            raise GearmanError(f"{self._owner} belongs to the parent process: make another one after a fork")

    def open(self) -> bool:
        """Begin to use the pump, before any socket is there; return whether nobody has before. With the lock held.

        Raises:
            GearmanError: this process has inherited the pump from its parent.
            OSError: the process has no descriptor left.
        """
        self.check_process()
        if self._opened is not None or self.closed:
            return False
        self._opened = _Opened()
        return True

    def changed(self, *, watch: bool) -> None:
        """Pass on what the calling thread has changed.

        Args:
            watch: whether a socket is to be watched differently: it could not take all output, or is closed.
        """
        self._wake_waiters()
        if watch and self._pumping:
            self.wake()

    def look(self) -> None:
        """Read some of what has come while nobody pumped, so that an end of a connection shows."""
        if self._pumping or time.monotonic() - self._moved_at < _JUST_NOW:
            return
        for source in self._sources:
            source.look()
        self._wake_waiters()

    def interrupted(self, error: BaseException) -> None:
        """Close all sockets if what was being done to them may have been left half way, as by KeyboardInterrupt."""
        if not isinstance(error, Exception):
            for source in self._sources:
                source.close("interrupted")
            self._wake_waiters()
            self.wake()

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done, pumping if nobody else does.

        Args:
            done: tells whether it is; called with the lock held.
            timeout: longest time in seconds; None for no limit. 0 is time for one turn of the pump, so that calls that
                have no time to wait see an end, too; less than 0 is time for none.

        Returns:
            Whether it is done. It is not if the time has passed, or the pump is closed.

        Raises:
            GearmanError: this process has inherited the pump from its parent.
            OSError: the process has no descriptor left.
        """
        self.check_process()
        until = None if timeout is None else time.monotonic() + timeout
        waiter = _Waiter(done)
        try:
            return self._wait(waiter, until, turned=timeout is not None and timeout < 0)
        finally:
            try:
                if not waiter.left:
                    self._leave(waiter)
            except BaseException:
                self._leave(waiter)  # KeyboardInterrupt may come here, too, and others would wait without end
                raise

    # Locks are only ever taken by `with`: KeyboardInterrupt cannot come between taking one and what gives it back.

    def _wait(self, waiter: _Waiter, until: float | None, *, turned: bool) -> bool:
        done = waiter.done
        deadline = None
        while True:
            with self.gate, self.lock:
                if done():
                    self._depart(waiter)  # with the lock that is held: another round of locks takes 1 us
                    waiter.left = True
                    return True
                now = time.monotonic()
                left = None if until is None else until - now
                over = left is not None and left <= 0
                pumping = self._pumper is None or self._pumper is waiter
                if self.closed or (over and (turned or not pumping)):
                    return False
                if pumping:
                    if self._opened is None and self.open():
                        continue  # nothing could wake this thread before: look again at what has changed since
                    self._pumper = waiter
                    self._waiters.pop(waiter, None)
                    deadline = self._prepare()
                else:
                    waiter.prepare()
                    self._waiters[waiter] = None
            if not pumping:
                waiter.sleep(left)
                continue
            if deadline is not None and (left is None or deadline - now < left):
                left = deadline - now
            if left is not None:
                left = 0.0 if left < 0 else min(left, _LONGEST_SLEEP)
            assert self._opened is not None
            ready = self._opened.selector.select(left)
            with self.gate:
                pass  # a thread that waits for the lock holds the gate
            with self.lock:
                self._move(ready, deadline)
                self._wake_waiters()
            turned = True

    def _leave(self, waiter: _Waiter) -> None:
        """Let another thread pump if this one did, or was woken to do so."""
        with self.gate, self.lock:
            self._depart(waiter)

    def _depart(self, waiter: _Waiter) -> None:
        """Do what `_leave` does. With the lock held."""
        self._waiters.pop(waiter, None)
        if self._pumper is waiter:
            self._pumper = None
            self._release()
        if self._pumper is None:
            for other in self._waiters:
                other.wake()
                break

    @property
    def _pumping(self) -> bool:
        return self._pumper is not None

    def _prepare(self) -> float | None:
        """Tell the selector what to look at; return when something is due."""
        try:
            if self._before_look is not None:
                self._before_look()
            self._watch()
            deadline = None
            for source in self._sources:
                due = source.next_deadline()
                if due is not None and (deadline is None or due < deadline):
                    deadline = due
            return deadline
        except BaseException as error:  # the selector may know half of what it was told; nothing has been read
            self.interrupted(error)
            self._renew()
            raise

    def _move(self, ready: list[tuple[selectors.SelectorKey, int]], deadline: float | None) -> None:
        """Do what the sockets are ready for, and what is due."""
        try:
            for key, events in ready:
                if key.data is None:
                    assert self._opened is not None
                    self._opened.waker.clear()
                else:
                    key.data.on_ready(events)
            now = self._moved_at = time.monotonic()
            if deadline is not None and now >= deadline:
                for source in self._sources:
                    source.on_deadline(now)
        except BaseException as error:  # what was open on the sockets that this closes ends as lost
            self.interrupted(error)
            raise

    def _renew(self) -> None:
        """Begin with a selector that knows nothing, as this one may know half of what it was told."""
        assert self._opened is not None
        self._watched.clear()
        self._opened.renew_selector()

    def _watch(self) -> None:
        """Tell the selector what to look at; gone sockets first, as a new one may have the same descriptor."""
        watched = self._watched
        for source in self._sources:
            before = watched.get(source)
            sock = source.sock
            if sock is not None if before is None else (before.sock is not sock or before.wants != source.wants):
                break
        else:
            return
        assert self._opened is not None
        selector = self._opened.selector
        for source, entry in list(watched.items()):
            if source.sock is not entry.sock:
                selector.unregister(entry.descriptor)
                del watched[source]
        for source in self._sources:
            if (sock := source.sock) is None:
                continue
            entry_or_none = watched.get(source)
            if entry_or_none is None:
                watched[source] = entry = _Watched(sock, source.wants)
                selector.register(entry.descriptor, entry.wants, source)
            elif entry_or_none.wants != source.wants:
                entry_or_none.wants = source.wants
                selector.modify(entry_or_none.descriptor, entry_or_none.wants, source)

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if self.closed or waiter.done():
                waiter.wake()

    def close(self, reason: str) -> None:
        """Close all sources, and wake all waiting threads. Can be called twice."""
        with self.gate, self.lock:
            self.closed = True
            for source in self._sources:
                source.close(reason)
            self._wake_waiters()
            self.wake()
            self._release()

    def wake(self) -> None:
        """Make the pumping thread, if any, look again. Without the lock or with it, from signal handlers too."""
        if (opened := self._opened) is not None and opened.forks == FORKS.count:
            opened.waker.wake()

    def _release(self) -> None:
        """Give the selector and its sockets back, once all is closed and nobody pumps."""
        if self.closed and not self._pumping and self._opened is not None:
            self._opened.close()
            self._opened = None
