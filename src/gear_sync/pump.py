"""Lets several threads share one link without a thread of its own: whoever waits, pumps."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from gearproto import GearmanError

from .link import Link

__all__ = ["Pump"]

_READ: Final = selectors.EVENT_READ


class _Waiter:
    """A thread that sleeps while another one pumps."""

    __slots__ = ("done", "woken")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.woken = threading.Event()


class Pump:
    """Moves a link's bytes while somebody waits for something.

    One waiting thread pumps; the others sleep. When what they wait for has come they are woken, and when the pumping
    thread leaves it wakes one of them to go on.

    Attributes:
        lock: guards the link; hold it in every call but `wait` and `close`.
    """

    def __init__(self, link: Link) -> None:
        """Begin with a link that nobody uses yet.

        Raises:
            OSError: there is no room for more descriptors.
        """
        self.lock = threading.Lock()
        self._link = link
        self._pid = os.getpid()
        self._pumping = False
        self._waiters: dict[_Waiter, None] = {}
        self._selector = selectors.DefaultSelector()
        try:
            self._waker, self._wakes = socket.socketpair()
        except OSError:
            self._selector.close()
            raise
        self._watched = _READ
        self._selector.register(link, _READ)
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._selector.register(self._wakes, _READ)

    def settle(self) -> None:
        """Send what has just been queued; if the socket is full, let the pumping thread send the rest."""
        self._link.settle()
        self._wake_waiters()
        if self._link.closed or self._link.sending:
            self._wake_pump()
        self._release()

    def look(self) -> None:
        """Read what has come while nobody pumped, so that an end of the connection shows."""
        with self.lock:
            if not self._pumping:
                self._link.read_all()
                self._wake_waiters()
                self._release()

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done, pumping if nobody else does.

        Args:
            done: tells whether it is; called with the lock held.
            timeout: longest time in seconds; None for no limit.

        Returns:
            Whether it is done. It is not if the time has passed, or the link is closed.

        Raises:
            GearmanError: this process has inherited the link from its parent.
        """
        if os.getpid() != self._pid:
            raise GearmanError("this connection belongs to the parent process: make a client of your own after a fork")
        until = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            try:
                while self._pumping and not done() and not self._link.closed:
                    left = None if until is None else until - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self._sleep(done, left)
                if not self._pumping:
                    self._pump(done, until)
                return done()
            finally:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let another thread pump if nobody does. Whoever leaves calls this, as it may have been woken to pump."""
        if not self._pumping:
            for waiter in self._waiters:
                waiter.woken.set()
                break

    def _sleep(self, done: Callable[[], bool], timeout: float | None) -> None:
        waiter = _Waiter(done)
        self._waiters[waiter] = None
        self.lock.release()
        try:
            waiter.woken.wait(timeout)
        finally:
            self.lock.acquire()
            del self._waiters[waiter]

    def _pump(self, done: Callable[[], bool], until: float | None) -> None:
        self._pumping = True
        try:
            while not done() and not self._link.closed:
                left = None if until is None else max(0.0, until - time.monotonic())
                self._turn(left)  # one at least: who asks again and again without time to wait is to see an end, too
                self._wake_waiters()
                if until is not None and time.monotonic() >= until:
                    return
        finally:
            self._pumping = False
            self._release()

    def _turn(self, timeout: float | None) -> None:
        """Wait for the socket, without the lock, and do what it is ready for, and what is due."""
        link = self._link
        deadline = link.conn.next_deadline()
        if deadline is not None:
            due_in = max(0.0, deadline - time.monotonic())
            timeout = due_in if timeout is None else min(timeout, due_in)
        if link.wants != self._watched:
            self._watched = link.wants
            self._selector.modify(link, self._watched)
        self.lock.release()
        try:
            ready = self._selector.select(timeout)
        finally:
            self.lock.acquire()
        for key, events in ready:
            if key.fileobj is link:
                link.on_ready(events)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wakes.recv(4096)
        if deadline is not None and not link.closed:
            link.conn.handle_timeout(time.monotonic())
            link.settle()

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if self._link.closed or waiter.done():
                waiter.woken.set()

    def close(self, reason: str) -> None:
        """Close the link; whoever waits is told."""
        with self.lock:
            self._link.close(reason)
            self._wake_waiters()
            self._wake_pump()
            self._release()

    def _wake_pump(self) -> None:
        """Make the pumping thread look at the link again."""
        if self._pumping:
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"w")

    def _release(self) -> None:
        """Give the selector and its sockets back, once the link is closed and nobody pumps."""
        if self._link.closed and not self._pumping and self._waker.fileno() >= 0:
            self._selector.close()
            self._waker.close()
            self._wakes.close()
