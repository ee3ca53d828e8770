"""Names, given as text or as bytes."""

__all__ = ["as_bytes"]


def as_bytes(name: str | bytes) -> bytes:
    """Return a name as it goes over the wire: text as UTF-8, bytes as they are."""
    return name.encode() if isinstance(name, str) else name
