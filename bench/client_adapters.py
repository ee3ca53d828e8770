"""gearproto's clients and workers as adapters of a load driver for Gearman client libraries.

An adapter has the methods ``connect``, ``submit_bg``, ``submit_bg_batch``, ``fg_seq``, ``fg_100``, ``worker_connect``
and ``work``; each works off a number of jobs of function ``f0``, which echoes its data, and returns when the last
result has come.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

import gear_anyio
import gear_sync
from gear_sync import JobRequest

__all__ = ["AsyncioAdapter", "SyncAdapter", "TrioAdapter"]

BATCH = 1000


class SyncAdapter:
    """gear_sync."""

    def connect(self, host: str, port: int) -> None:
        self.client = gear_sync.Client((host, port))

    def submit_bg(self, n: int, data: bytes) -> None:
        for _ in range(n):
            self.client.submit_background("f0", data)

    def submit_bg_batch(self, n: int, data: bytes) -> None:
        for start in range(0, n, BATCH):
            results = self.client.submit_background_many([JobRequest("f0", data)] * min(BATCH, n - start))
            assert all(isinstance(result, bytes) for result in results)

    def fg_seq(self, n: int, data: bytes) -> None:
        for _ in range(n):
            assert self.client.submit("f0", data).result() == data

    def fg_100(self, n: int, data: bytes) -> None:
        for start in range(0, n, 100):
            for job in self.client.as_completed(
                self.client.submit_many([JobRequest("f0", data)] * min(100, n - start))
            ):
                assert job.result() == data

    def worker_connect(self, host: str, port: int) -> None:
        self.left = 0
        self.worker = gear_sync.Worker((host, port))
        self.worker.register("f0", self.echo)

    def echo(self, job: gear_sync.WorkerJob) -> bytes:
        self.left -= 1
        if not self.left:
            self.worker.stop()
        return job.workload

    def work(self, n: int) -> None:
        self.left = n
        self.worker.run()


class AsyncioAdapter:
    """gear_anyio on asyncio."""

    backend = "asyncio"

    def connect(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.load()

    def load(self) -> None:
        """Import the event loop before anything is measured."""
        anyio.run(anyio.lowlevel.checkpoint, backend=self.backend)

    def run(self, use: Callable[[gear_anyio.Client], Awaitable[None]]) -> None:
        async def main() -> None:
            async with gear_anyio.Client(self.address) as client:
                await use(client)

        anyio.run(main, backend=self.backend)

    def submit_bg(self, n: int, data: bytes) -> None:
        async def use(client: gear_anyio.Client) -> None:
            for _ in range(n):
                await client.submit_background("f0", data)

        self.run(use)

    def submit_bg_batch(self, n: int, data: bytes) -> None:
        async def use(client: gear_anyio.Client) -> None:
            for start in range(0, n, BATCH):
                results = await client.submit_background_many([JobRequest("f0", data)] * min(BATCH, n - start))
                assert all(isinstance(result, bytes) for result in results)

        self.run(use)

    def fg_seq(self, n: int, data: bytes) -> None:
        async def use(client: gear_anyio.Client) -> None:
            for _ in range(n):
                job = await client.submit("f0", data)
                assert await job.result() == data

        self.run(use)

    def fg_100(self, n: int, data: bytes) -> None:
        async def use(client: gear_anyio.Client) -> None:
            left = n

            async def submit() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    job = await client.submit("f0", data)
                    assert await job.result() == data

            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(submit)

        self.run(use)

    def worker_connect(self, host: str, port: int) -> None:
        self.left = 0
        self.load()
        self.worker = gear_anyio.Worker((host, port))
        self.worker.register("f0", self.echo)

    async def echo(self, job: gear_anyio.WorkerJob) -> bytes:
        self.left -= 1
        if not self.left:
            self.worker.stop()
        return job.workload

    def work(self, n: int) -> None:
        self.left = n
        options: dict[str, Any] = {"handle_signals": threading.current_thread() is threading.main_thread()}

        async def main() -> None:
            await self.worker.run(**options)

        anyio.run(main, backend=self.backend)


class TrioAdapter(AsyncioAdapter):
    """gear_anyio on trio."""

    backend = "trio"
