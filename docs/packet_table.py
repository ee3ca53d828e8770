"""Writes the table of packets, from the classes themselves: ``python docs/packet_table.py > docs/packets.md``."""

from collections.abc import Iterator

from gearproto.codec import EXTENSIONS, PACKETS, Argument, Packet, Route

_INTRODUCTION = """\
# Packets

Every packet of the protocol, written from the classes in `gearproto.packets` by `docs/packet_table.py`. Arguments stand
in their order on the wire, with one NUL byte between them; *n* is the most bytes of an argument, *payload* is the rest
of the packet and may hold NUL bytes. A number takes at most 32 bytes and 19 digits; its fraction is cut off.
"""
_EXTENSIONS = """\
The protocol document does not have these. A server sends them only on connections that have asked for them, see
[the protocol engine](protocol.md).
"""
_HEAD = """\

| number | name | class | from | to | arguments |
| --- | --- | --- | --- | --- | --- |
"""


def _ends(route: Route, client: Route, worker: Route) -> str:
    return ", ".join(name for name, flag in (("client", client), ("worker", worker)) if route & flag)


def _argument(name: str, kind: type, rule: Argument) -> str:
    if kind is not bytes:
        return f"{name} ({'0 or 1' if kind is bool else 'decimal' if rule.negative else 'decimal, 0 or more'})"
    if rule.payload:
        return f"{name} (payload)"
    return f"{name} ({0 if rule.empty else 1} to {rule.limit})"


def _row(cls: type[Packet]) -> str:
    spec = cls.spec
    senders = _ends(spec.route, Route.FROM_CLIENT, Route.FROM_WORKER)
    receivers = _ends(spec.route, Route.TO_CLIENT, Route.TO_WORKER)
    arguments = ", ".join(_argument(*argument) for argument in spec.arguments)
    cells = (spec.number, spec.name, f"`{cls.__name__}`", senders, receivers, arguments)
    return "| " + " | ".join(str(cell) or "-" for cell in cells) + " |"


def lines() -> Iterator[str]:
    """Yield the page."""
    yield from (_INTRODUCTION + _HEAD).splitlines()
    for number in sorted(PACKETS):
        yield _row(PACKETS[number])
    yield from ("\n" + _EXTENSIONS + _HEAD).splitlines()
    for number in sorted(EXTENSIONS):
        yield _row(EXTENSIONS[number])


if __name__ == "__main__":
    print("\n".join(lines()))
