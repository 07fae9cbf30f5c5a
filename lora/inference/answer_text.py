"""Token ids to text as they come: no half characters, nothing of a text that ends the answer.

text = AnswerText(decode, stop=("\\n\\n",))
text.add(17)      -> "Hel"
text.add(4)       -> "lo"       later, when a stop text may have begun: ""
text.stopped      -> True once a stop text is complete
text.flush()      -> what was held back, when the answer ends otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders write it for bytes that are no character yet


LONGEST_CHARACTER = 4  # bytes, and so tokens


class AnswerText:
    """The text of one answer. decode: ids → text; stop: texts that end it."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._from, self._told = 0, 0  # ids from which text is decoded, and up to which it is out
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain after one token more.

        Only the last few ids are decoded again: a decoder's answer for a token depends on those
        before it (a leading space, a character in several tokens).
        """
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._told])
        after = self._decode(self._ids[self._from :])
        waiting = after.endswith(REPLACEMENT) and len(self._ids) - self._told < LONGEST_CHARACTER
        if waiting or len(after) <= len(before):
            return ""
        self._from, self._told = self._told, len(self._ids)
        return self._release(after[len(before) :])

    def flush(self) -> str:
        """Everything that was held back, for an answer that ends without a stop text.

        Half a character at the end is left out.
        """
        before = self._decode(self._ids[self._from : self._told])
        rest = self._decode(self._ids[self._from :])[len(before) :].rstrip(REPLACEMENT)
        self._told = len(self._ids)
        text = self._release(rest) + ("" if self.stopped else self._held)
        self._held = ""
        return text

    def _release(self, new: str) -> str:
        text = self._held + new
        ends = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
