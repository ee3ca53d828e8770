"""Clients and workers of both packages on Unix sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gear_sync
from gear_sync import TLS
from gearproto import JobNotSent
from gearproto.addresses import Address
from tests.harness.certificates import authority
from tests.harness.idioms import Idiom, make_client, make_worker, working
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

GOOD = authority("good")


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gear") as folder:  # pytest's own paths are too long
        yield Path(folder) / "gear.sock"


@pytest.mark.parametrize("tls", [False, True])
async def test_job_is_done_over_a_unix_socket(idiom: Idiom, path: Path, tls: bool) -> None:
    address = f"unix:{path}"
    options: dict[str, Any] = {"tls": TLS(ca=GOOD.ca, check_host=False)} if tls else {}
    with gear_sync.Server(listen=[address], tls=replace(GOOD.issue(), ca=None) if tls else None):
        worker = make_worker(idiom, address, **options)
        worker.register("reverse", lambda job: job.workload[::-1])
        async with working(worker), make_client(idiom, address, **options) as client:
            job = await client.submit("reverse", b"ab")
            assert await job.result(LIMIT) == b"ba"
            assert job.server == Address(address, 0)
            assert await client.admin_of(address).version()


@pytest.mark.parametrize("name", ["absent.sock", "x" * 200])
async def test_path_where_nobody_listens_is_told(idiom: Idiom, path: Path, name: str) -> None:
    address = f"unix:{path.with_name(name)}"
    async with make_client(idiom, address) as client:
        with pytest.raises(JobNotSent, match=rf"{address}: (No such file|AF_UNIX path too long)"):
            await client.submit("f")


async def test_host_name_that_cannot_be_checked_is_told(idiom: Idiom, path: Path) -> None:
    address = f"unix:{path}"
    with gear_sync.Server(listen=[address], tls=GOOD.issue()):
        async with make_client(idiom, address, tls=TLS(ca=GOOD.ca)) as client:
            with pytest.raises(JobNotSent, match="a Unix socket has no host name to check"):
                await client.submit("f")
