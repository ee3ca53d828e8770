"""Processes that functions fork: signals for a child reach it and nobody else, and it reports on no job."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import closing
from typing import Final

import pytest

import gear_sync
from tests.harness.idioms import IDIOMS
from tests.harness.loops import RUN
from tests.harness.servers import OurServer, poll_until
from tests.harness.threads import LIMIT

PROGRAM: Final = f"""
{RUN}
import multiprocessing, os, signal, time, gear_anyio, gear_sync

SIGNALS = signal.SIGTERM, signal.SIGINT
processes = multiprocessing.get_context("fork")
before = []

def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])

def terminate(job):
    child = processes.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return b"%d" % child.exitcode

def pool(job):
    with processes.Pool(2) as pool:
        return b"".join(pool.map(bytes.upper, [b"a", b"b"]))

def in_child(call):
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, call())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as file:
        return file.read()

def handlers(job):
    def look():
        now = [signal.getsignal(number) for number in SIGNALS]
        return b"%d %d %d" % (now == before, signal.set_wakeup_fd(-1), mask() == held)
    held = mask()
    seen = in_child(look)
    return b"%b %d" % (seen, mask() == held)

def progress_in_child(job):
    def look():
        try:
            progress = job.progress(1, 2)
            if progress is not None:
                progress.send(None)
        except Exception as error:
            return str(error).encode()
        return b"reported"
    return in_child(look)

def calls_in_child(job):
    def call_all():
        worker, refused = workers[-1], 0
        for call in (worker.abort, lambda: worker.register("other", print)):
            try:
                call()
            except Exception as error:
                refused += "belongs to the parent process" in str(error)
        return b"%d" % refused
    return in_child(call_all)

def ending(end):
    def function(job):
        if not (child := os.fork()):
            return end()
        return b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return function

def raises():
    raise ValueError("in the child")

functions = [terminate, pool, handlers, progress_in_child, calls_in_child]
workers = []
ends = dict(returns=lambda: b"twice", exits=lambda: sys.exit(7), says=lambda: sys.exit("a word"), raises=raises)
named = {{function.__name__: function for function in functions}} | {{name: ending(end) for name, end in ends.items()}}

def coroutine(function):
    async def run(job):
        return function(job)
    return run

async def main():
    global before
    before = [signal.getsignal(number) for number in SIGNALS]
    worker = gear_anyio.Worker(sys.argv[1])
    workers.append(worker)
    for name, function in named.items():
        worker.register("plain " + name, function)
        worker.register("coroutine " + name, coroutine(function))
    await worker.run()

def main_sync(threads):
    global before
    before = [signal.getsignal(number) for number in SIGNALS]
    with gear_sync.Worker(sys.argv[1], threads=threads) as worker:
        workers.append(worker)
        for name, function in named.items():
            worker.register("plain " + name, function)
        worker.run()

signal.signal(signal.SIGINT, lambda number, frame: sys.exit(3))
if sys.argv[2] == "gear_sync":
    main_sync(0)
elif sys.argv[2] == "gear_sync threads":
    main_sync(2)
else:
    run(main)
"""


RESULTS: Final = {
    "terminate": b"%d" % -signal.SIGTERM,
    "pool": b"AB",
    "handlers": b"1 -1 1 1",  # those from before, no wake-up descriptor, and the same signal masks
    "progress_in_child": rb"job .* belongs to the parent process: a forked child cannot report on it",
    "calls_in_child": b"2",
    "returns": b"1",
    "exits": b"7",
    "says": b"1",
    "raises": b"1",
}


@pytest.mark.parametrize("program", [*IDIOMS, "gear_sync threads"])
def test_child_of_a_function_is_on_its_own(program: str) -> None:
    kinds = ["plain"] if program.startswith("gear_sync") else ["plain", "coroutine"]
    server = OurServer()
    words = [sys.executable, "-c", PROGRAM, server.address, program]
    with (
        closing(server),
        gear_sync.Client(server.address) as client,
        subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            for kind in kinds:
                for name, result in RESULTS.items():
                    job = client.submit(f"{kind} {name}")
                    assert re.fullmatch(result, job.result(LIMIT)), (kind, name, job.result())
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
            assert process.stderr is not None
            said = process.stderr.read()
            for text in ("ValueError: in the child", "a word", "a function has returned in a process"):
                assert said.count(text) == len(kinds), said
        finally:
            process.kill()


PREFORK: Final = f"""
{RUN}
import os, signal, gear_anyio, gear_sync

def f(job):
    return b"%d" % os.getpid()

if sys.argv[2].startswith("gear_sync"):
    worker = gear_sync.Worker(sys.argv[1], threads=2 * sys.argv[2].endswith("threads"))
else:
    worker = gear_anyio.Worker(sys.argv[1])
worker.register("f", f)
children = []
for _ in range(2):
    if not (child := os.fork()):
        worker.run() if sys.argv[2].startswith("gear_sync") else run(worker.run)
        os._exit(0)
    children.append(child)
sys.stdin.read()
for child in children:
    os.kill(child, signal.SIGTERM)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.parametrize("program", [*IDIOMS, "gear_sync threads"])
def test_worker_that_was_made_before_a_fork_runs_in_each_child(program: str) -> None:
    server = OurServer()
    words = [sys.executable, "-c", PREFORK, server.address, program]
    with (
        closing(server),
        gear_sync.Client(server.address) as client,
        subprocess.Popen(words, stdin=subprocess.PIPE) as process,
    ):
        try:
            poll_until(lambda: [row.workers for row in client.admin.status()] == [2], "both children are there")
            jobs = client.submit_many(gear_sync.JobRequest("f") for _ in range(20))
            assert all(job.result(LIMIT).isdigit() for job in jobs)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
