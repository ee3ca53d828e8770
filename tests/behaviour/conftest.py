"""A job server of each kind in turn, for what servers do on the wire: every clause is said once.

A test runs against the pure server in memory, ours behind a socket, and gearmand. `OURS` restricts it to ours, for what
gearmand does otherwise; `OVER_TCP` and `OURS_OVER_TCP` to servers that listen, for what has to do with sockets. What
takes seconds `WAITS` for gearmand alone: ours needs them in memory only, where they pass at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.harness.sites import Site, SiteKind, open_site

StartSite = Callable[..., Site]

_GEARMAND: Final = pytest.param("gearmand", marks=pytest.mark.interop("gearmand"))

OURS: Final = pytest.mark.parametrize("site_kind", ["memory", "ours"])
OVER_TCP: Final = pytest.mark.parametrize("site_kind", ["ours", _GEARMAND])
WAITS: Final = pytest.mark.parametrize("site_kind", ["memory", _GEARMAND])
OURS_OVER_TCP: Final = pytest.mark.parametrize("site_kind", ["ours"])


@pytest.fixture(params=["memory", "ours", _GEARMAND])
def site_kind(request: pytest.FixtureRequest) -> SiteKind:
    """Each kind of server in turn."""
    kind: SiteKind = request.param
    return kind


@pytest.fixture
def start(site_kind: SiteKind) -> Iterator[StartSite]:
    """Start a server of the kind: ``start(*arguments_of_gearmand, **options_of_ours)``."""
    with contextlib.ExitStack() as stack:

        def start_site(*arguments: str, **options: Any) -> Site:
            return open_site(site_kind, stack, *arguments, **options)

        yield start_site


@pytest.fixture
def site(start: StartSite) -> Site:
    """A new server of each kind in turn."""
    return start()
