"""How many log lines peers may cause."""

from __future__ import annotations

__all__ = ["LogLimit"]


class LogLimit:
    """Lets some lines of a topic through at once, and after that one for each interval; the others are counted."""

    def __init__(self, burst: int = 10, interval: float = 5.0) -> None:
        """Begin with nothing logged.

        Args:
            burst: how many lines of a topic may come at once.
            interval: seconds after which one more may come.
        """
        self._burst = burst
        self._interval = interval
        self._topics: dict[str, _Topic] = {}

    def admit(self, topic: str, now: float) -> int | None:
        """Decide about one line.

        Args:
            topic: what it is about; one of a few words of the program.
            now: monotonic time in seconds.

        Returns:
            How many lines of the topic were left out since the last one that was not; None to leave this one out.
        """
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = _Topic(self._burst, now)
        earned = (now - known.since) / self._interval
        if known.tokens + earned >= self._burst:
            known.tokens, known.since = self._burst, now
        elif earned >= 1:
            known.tokens += int(earned)
            known.since += int(earned) * self._interval
        if not known.tokens:
            known.left_out += 1
            return None
        known.tokens -= 1
        left_out, known.left_out = known.left_out, 0
        return left_out


class _Topic:
    """Warnings on one topic.

    Attributes:
        tokens: how many may be logged now.
        since: time up to which the tokens are counted.
        left_out: how many were not logged since the last that was.
    """

    __slots__ = ("left_out", "since", "tokens")

    def __init__(self, tokens: int, now: float) -> None:
        self.tokens = tokens
        self.since = now
        self.left_out = 0
