"""Making answers that take long, step by step."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import Answer
from .output import Output
from .peers import Peer

__all__ = ["Answering"]


class Answering:
    """Makes the answers of an engine, each as far as its peer may have it made at once."""

    __slots__ = ("_max_output", "_max_text", "_output")

    def __init__(self, output: Output, *, max_output_size: int, max_text_size: int) -> None:
        """Begin; the limits are those of `Engine`."""
        self._output = output
        self._max_output = max_output_size
        self._max_text = max_text_size

    def begin(self, peer: Peer, rest: Iterator[bytes]) -> None:
        """Begin to answer a peer with pieces that are made when they are asked for."""
        peer.answer = Answer(rest)
        self.go_on(peer)

    def go_on(self, peer: Peer) -> None:
        """Make as much of an answer as may be made at once, and send it once it is whole, or as long as may be."""
        answer, output = peer.answer, self._output
        assert answer is not None
        while output.work <= output.work_limit and peer.output_size <= self._max_output:
            size = answer.size
            output.work += answer.make(output.work_limit - output.work, self._max_text)
            output.under_way += answer.size - size
            if answer.ended or answer.size >= self._max_text:
                output.under_way -= answer.size
                for chunk in answer.take():
                    output.send(peer, chunk)
            if answer.ended:
                peer.answer = None
                return

    def forget(self, gone: Peer) -> None:
        """Forget the answer to a peer that has gone."""
        if gone.answer is not None:
            self._output.under_way -= gone.answer.size
            gone.answer = None
