"""Ratings of answers: kept on this machine, in one file, for its owner alone.

They are never sent. `nomoat data from-chats` makes training rows of the good ones, which then are
the owner's data like any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.lora.inference.chat_session import KeepRating
from nomoat.lora.inference.prompts import Message

FILE: Final = "ratings.jsonl"
GOOD: Final = 4  # stars of an answer that is worth learning from


@dataclass(frozen=True)
class Ratings:
    """The file of ratings in a volunteer's home."""

    path: Path

    @classmethod
    def of(cls, home: Path) -> Ratings:
        """The ratings kept in `home`."""
        return cls(home / "chats" / FILE)

    def keep(self, rating: KeepRating, source: str, now: float) -> None:
        """Add one; NomoatError in one line if it cannot be written."""
        row = {
            "messages": _plain(rating.messages),
            "voice": rating.voice,
            "stars": rating.stars,
            "source": source,
            "at": int(now),
        }
        if rating.others:
            row["others"] = dict(rating.others)
        line = json.dumps(row, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as problem:
            raise NomoatError(f"cannot write {self.path}: {problem.strerror}") from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """All of them, the oldest first; BadData naming a line that cannot be read."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    row["messages"], row["stars"]
                except (ValueError, KeyError, TypeError):
                    raise BadData(f"{self.path}:{number} is no rating: delete the line") from None
                yield row


def training_rows(ratings: Ratings, least: int) -> list[dict[str, Any]]:
    """Conversations whose last answer has at least `least` stars, each once, as chat `messages`.

    What was asked and answered before is context: only the answer that was rated is learnt.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in ratings.rows():
        if int(row["stars"]) < least:
            continue
        messages = [dict(message) for message in row["messages"]]
        for message in messages[:-1]:
            if message["role"] == "assistant":
                message["weight"] = 0
        found[json.dumps(messages, sort_keys=True)] = {"messages": messages}
    return list(found.values())


def chat_row(messages: tuple[Message, ...]) -> str:
    """A conversation as one line of JSON Lines."""
    return json.dumps({"messages": _plain(messages)}, ensure_ascii=False) + "\n"


def _plain(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
