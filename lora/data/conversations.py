"""Training rows: conversations of turns, with all that was not made into one.

A row is in `Dataset.conversations` or counted in `Dataset.dropped`; nothing else happens to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.files.listing import Unread

MAX_ROW_CHARACTERS = 16 << 20


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the assistant. `arguments` is the text of a JSON object."""

    name: str
    arguments: str = "{}"
    id: str = ""


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn. `role` is system, user, assistant, tool, or text (no sides: all of it).

    thought: what an assistant wrote to itself first. name, call_id: whose result a tool turn is.
    trained: of an assistant; False where its words are there for the context alone.
    """

    role: str
    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""
    trained: bool = True

    @property
    def silent(self) -> bool:
        """Nothing is said in it."""
        return not (self.text.strip() or self.thought.strip() or self.calls)

    @property
    def learnt(self) -> bool:
        """Its words are to be trained on."""
        return self.role == "text" or (self.role == "assistant" and self.trained)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training row. `fields` are its other columns, as text; `origin` is "file:line".

    tools: a JSON list of the tools that were offered, or "". Two conversations are equal if they
    say the same, wherever they were read.
    """

    turns: tuple[ChatTurn, ...]
    fields: Mapping[str, str] = field(hash=False)
    origin: str = field(compare=False)
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows left out for one reason; `first` is the origin of the first of them."""

    reason: str
    count: int
    first: str


@dataclass(frozen=True, slots=True)
class FileRows:
    """A file that was read, and how many rows it had."""

    shown: str
    rows: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file's or folder's conversations, what was left out of it, and its layout.

    ignored: what rows that are used hold besides, and is not used. unread: files beside those read.
    """

    conversations: tuple[Conversation, ...]
    dropped: tuple[Dropped, ...]
    layout: str
    ignored: tuple[Dropped, ...] = ()
    files: tuple[FileRows, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def rows(self) -> int:
        """All rows that were read."""
        return len(self.conversations) + sum(dropped.count for dropped in self.dropped)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts what is dropped, reason by reason, in the order in which reasons came up."""

    seen: dict[str, Dropped] = field(default_factory=dict)

    def add(self, reason: str, origin: str) -> None:
        """Count one row."""
        reason = printable(reason)
        before = self.seen.get(reason, Dropped(reason, 0, origin))
        self.seen[reason] = Dropped(reason, before.count + 1, before.first)

    def dropped(self) -> tuple[Dropped, ...]:
        """The counts so far."""
        return tuple(self.seen.values())


def merged(*counts: tuple[Dropped, ...]) -> tuple[Dropped, ...]:
    """The counts together, each reason once."""
    found: dict[str, Dropped] = {}
    for dropped in (each for many in counts for each in many):
        before = found.get(dropped.reason, Dropped(dropped.reason, 0, dropped.first))
        found[dropped.reason] = Dropped(before.reason, before.count + dropped.count, before.first)
    return tuple(found.values())


def printable(text: str) -> str:
    """Text that any file takes: halves of surrogate pairs become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def by_field(rows: Sequence[Conversation], field: str) -> Mapping[str, tuple[Conversation, ...]]:
    """Return the rows of each value of `field`, by name; rows without it belong to none.

    BadData, naming the fields there are, if no row has it.
    """
    groups: dict[str, list[Conversation]] = {}
    for row in rows:
        if (value := row.fields.get(field, "").strip()) != "":
            groups.setdefault(value, []).append(row)
    if not groups:
        known = ", ".join(sorted({name for row in rows[:1000] for name in row.fields})) or "none"
        raise BadData(f"no row has a field {field!r}: the fields found are {known}")
    return {name: tuple(groups[name]) for name in sorted(groups)}
