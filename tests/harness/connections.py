"""Drives connections in tests: bytes of a server in, events out."""

from gearproto import RemoteProtocolError
from gearproto.codec import RESPONSE, Packet
from gearproto.connection import Connection
from gearproto.event import Event
from gearproto.framing import Decoder
from gearproto.server import server_decoders

_TO_SERVER = server_decoders()


def sent(*packets: Packet) -> bytes:
    """Return packets as a server sends them."""
    return b"".join(packet.encode(RESPONSE) for packet in packets)


def drain(connection: Connection) -> list[Event]:
    """Pull all events."""
    events = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    return events


def drain_to_error(connection: Connection) -> tuple[list[Event], str | None, list[Event]]:
    """Pull all events; return those before an error, its message if there was one, and those after it."""
    before: list[Event] = []
    try:
        while (event := connection.next_event()) is not None:
            before.append(event)
    except RemoteProtocolError as error:
        return before, str(error), drain(connection)
    return before, None, []


def receive(connection: Connection, *packets: Packet) -> list[Event]:
    """Let packets arrive, and pull all events."""
    connection.receive_data(sent(*packets))
    return drain(connection)


def received_by_server(data: bytes) -> list[Event]:
    """Return what a server makes of the output of a connection."""
    decoder = Decoder(_TO_SERVER)
    decoder.feed(data)
    events = []
    while (event := decoder.next()) is not None:
        events.append(event)
    assert decoder.buffered == 0
    return events


def output(connection: Connection) -> list[Event]:
    """Take all output, as a server reads it."""
    return received_by_server(connection.data_to_send())
