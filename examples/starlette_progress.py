"""A Starlette application with a job server in it: submit jobs over HTTP, and follow them in the browser.

``POST /jobs/FUNCTION`` submits the body as a job, and answers with its number. ``GET /jobs/NUMBER`` sends the events of
the job as they come (SSE). Each has a number too, and a browser that has lost its connection asks for those behind the
last one that it got (``Last-Event-ID``). So it misses nothing, and gets nothing twice.

Workers connect to the job server at port 4730, or run in the application as well. Run it with
``uvicorn examples.starlette_progress:app``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import anyio
import anyio.abc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import gear_anyio
from gear_anyio import Completed, Data, Progress, Warned


class Followed:
    """A job whose events are kept for any number of browsers, as long as the application runs."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ended = False
        self._changed = anyio.Event()

    async def follow(self, job: gear_anyio.Job) -> None:
        """Keep all events of the job."""
        async for event in job:
            self.ended = event is job.outcome
            self.events.append(json.dumps(_described(event)))
            self._changed.set()
            self._changed = anyio.Event()

    async def since(self, number: int) -> AsyncIterator[str]:
        """Yield the events behind one, as a browser reads them, until the job has ended."""
        while True:
            while number < len(self.events):
                yield f"id: {number + 1}\ndata: {self.events[number]}\n\n"
                number += 1
            if self.ended:
                return
            await self._changed.wait()


def _described(event: object) -> dict[str, Any]:
    match event:
        case Progress():
            return {"progress": [event.numerator, event.denominator]}
        case Data() | Warned() | Completed():
            return {type(event).__name__.lower(): event.data.decode("utf-8", "replace")}
    return {type(event).__name__.lower(): True}


class Jobs:
    """The jobs of the application, and the job server and the client that it needs."""

    def __init__(self, port: int) -> None:
        self.server = gear_anyio.Server(port=port)
        self.client = gear_anyio.Client(self.server.address)
        self._jobs: dict[int, Followed] = {}
        self._numbers = count(1)
        self._tasks: anyio.abc.TaskGroup | None = None

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Run the job server for as long as the application runs."""
        async with anyio.create_task_group() as self._tasks:
            await self._tasks.start(self.server.serve)
            async with self.client:
                yield
            self._tasks.cancel_scope.cancel()

    async def submit(self, request: Request) -> Response:
        """Submit the body as a job."""
        job = await self.client.submit(request.path_params["function"], await request.body())
        number = next(self._numbers)
        followed = self._jobs[number] = Followed()
        assert self._tasks is not None
        self._tasks.start_soon(followed.follow, job)
        return JSONResponse({"number": number}, status_code=202)

    async def follow(self, request: Request) -> Response:
        """Send the events of a job."""
        followed = self._jobs.get(request.path_params["number"])
        if followed is None:
            return JSONResponse({"error": "no such job"}, status_code=404)
        last = request.headers.get("last-event-id", "0")
        events = followed.since(int(last) if last.isdigit() else 0)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


def make_app(port: int) -> Starlette:
    """Make the application, with its job server at a port."""
    jobs = Jobs(port)
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] = jobs.lifespan
    app = Starlette(
        routes=[
            Route("/jobs/{function}", jobs.submit, methods=["POST"]),
            Route("/jobs/{number:int}", jobs.follow, methods=["GET"]),
        ],
        lifespan=lifespan,
    )
    app.state.jobs = jobs
    return app


def __getattr__(name: str) -> Starlette:
    """Make ``app`` when a web server asks for it, so that importing this file opens no port."""
    if name == "app":
        return make_app(4730)
    raise AttributeError(name)
