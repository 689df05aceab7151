"""What a request says, as text: piece by piece, in whole characters, until a stop string."""

from collections.abc import Sequence
from typing import NamedTuple

from imprint.decoding import Chance, Request
from imprint.tokenizer import Tokenizer

HALF = "\ufffd"
"""Stands for bytes that are no character, such as the first ones of a character."""


class Piece(NamedTuple):
    """What is new since the last piece."""

    text: str
    chances: list[Chance]
    """Of the tokens that begin in ``text``, if the request keeps them."""


class Voice:
    """Turns the tokens of one request into text while they come."""

    def __init__(
        self, request: Request, tokenizer: Tokenizer, *, stops: Sequence[str] = ()
    ) -> None:
        """Listen to ``request``; its text ends before the first of ``stops``."""
        self.request, self.tokenizer, self.stops = request, tokenizer, stops
        self.stopped = False
        """Whether a stop string came."""
        self._decoded = 0  # tokens of which the text is known
        self._held = ""  # text that may be the beginning of a stop string
        self._told = 0  # characters
        self._known = 0  # characters
        self._begins: list[int] = []  # character at which each token begins that was not told yet

    @property
    def finished(self) -> str | None:
        """Why the text is at its end, as OpenAI calls it; None if it goes on."""
        if self.stopped or self.request.stopped:
            return "stop"
        return "length" if self.request.done else None

    def piece(self) -> Piece:
        """Return the text that has come and cannot change any more."""
        said, done = self.request.said, self.request.done
        fresh = "" if self.stopped else self.tokenizer.decode(said[self._decoded :])
        if fresh.endswith(HALF) and not done:
            fresh = ""  # its last bytes are still to come
        elif not self.stopped:
            self._begins += [self._known] * (len(said) - self._decoded)
            self._decoded = len(said)
            self._known += len(fresh)
        text = self._held + fresh
        ends = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if ends and not self.stopped:
            self.stopped = True
            text, self._held = text[: min(ends)], ""
        else:
            keep = 0 if done else self._beginning(text)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self._told += len(text)
        return Piece(text, self._chances(everything=done and not self.stopped))

    def _beginning(self, text: str) -> int:
        """Return how many characters at the end of ``text`` could begin a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0

    def _chances(self, *, everything: bool) -> list[Chance]:
        count = sum(everything or begin < self._told for begin in self._begins)
        first = self._decoded - len(self._begins)
        del self._begins[:count]
        return self.request.chances[first : first + count]
