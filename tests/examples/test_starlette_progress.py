"""The Starlette application sends the progress of its jobs, also to browsers that have lost their connection."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

import gear_sync
from gear_testing.running import running
from tests.harness.examples import load
from tests.harness.idioms import Gate, in_thread
from tests.harness.threads import LIMIT

pytest.importorskip("starlette")
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Browser:
    """Makes requests of an ASGI application, and may lose its connection in the middle of an answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def ask(
        self, method: str, path: str, body: bytes = b"", last: int | None = None, events: int | None = None
    ) -> tuple[int, str]:
        """Make a request; return status and body.

        Args:
            method: as in HTTP.
            path: what is asked for.
            body: what is sent.
            last: number of the last event that the browser has got.
            events: how many events to read before the connection is lost; None for all.
        """
        headers = [] if last is None else [(b"last-event-id", b"%d" % last)]
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
        answers: list[dict[str, Any]] = []
        lost = anyio.Event()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body}
            await lost.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)
            if events is not None and len(answers) > events:
                lost.set()
                await anyio.sleep_forever()

        with anyio.fail_after(LIMIT):
            await self._app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in answers).decode()
        return answers[0]["status"], text

    async def follow(self, number: int, last: int = 0, events: int | None = None) -> list[tuple[int, Any]]:
        """Return numbers and data of a job's events."""
        status, text = await self.ask("GET", f"/jobs/{number}", last=last, events=events)
        assert status == 200
        blocks = [block.split("\n") for block in text.split("\n\n")[:-1]]
        return [(int(id_.removeprefix("id: ")), json.loads(data.removeprefix("data: "))) for id_, data in blocks]


async def test_browser_gets_every_event_once_also_after_it_was_cut_off() -> None:
    app = load("starlette_progress").make_app(0)
    browser, gate = Browser(app), Gate()
    worker = gear_sync.Worker(app.state.jobs.server.address)

    @worker.function("count")
    def counting(job: gear_sync.WorkerJob) -> bytes:
        job.send(b"0")
        gate.wait()
        job.send(b"1")
        return job.workload

    async with app.router.lifespan_context(app):
        run = running(worker)
        await in_thread(run.__enter__)
        status, text = await browser.ask("POST", "/jobs/count", b"done")
        assert (status, json.loads(text)) == (202, {"number": 1})
        seen = await browser.follow(1, events=1)  # then the connection is lost, while the job is still running
        gate.open()
        rest = await browser.follow(1, last=len(seen))
        assert seen + rest == [(1, {"data": "0"}), (2, {"data": "1"}), (3, {"completed": "done"})]
        assert await browser.follow(1) == seen + rest
        await in_thread(lambda: run.__exit__(None, None, None))


async def test_unknown_job_is_told() -> None:
    app = load("starlette_progress").make_app(0)
    async with app.router.lifespan_context(app):
        assert (await Browser(app).ask("GET", "/jobs/7"))[0] == 404
