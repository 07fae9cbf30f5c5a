"""Files people already have → conversations: the layout is found from the columns' names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.rows import MAX_LINE_BYTES, Row, read_rows
from nomoat.storage.atomic import replacing

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    "text": "text",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said. `role` is system, user, assistant, or text (no sides: all of it)."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training row. `fields` are its other columns, as text; `origin` is "file:line".

    Two conversations are equal if they say the same, wherever they were read.
    """

    turns: tuple[Turn, ...]
    fields: Mapping[str, str] = field(hash=False)
    origin: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows left out for one reason; `first` is the origin of the first of them."""

    reason: str
    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a file or folder holds: its conversations, what was left out, and its layout."""

    conversations: tuple[Conversation, ...]
    dropped: tuple[Dropped, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts what is dropped, reason by reason, in the order in which reasons came up."""

    seen: dict[str, Dropped] = field(default_factory=dict)

    def add(self, reason: str, origin: str) -> None:
        """Count one row."""
        before = self.seen.get(reason, Dropped(reason, 0, origin))
        self.seen[reason] = Dropped(reason, before.count + 1, before.first)

    def dropped(self) -> tuple[Dropped, ...]:
        """The counts so far."""
        return tuple(self.seen.values())


class _Unusable(Exception):
    """This row is well formed but has nothing to train on; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one family of files names its columns: needed ones, further ones, and their reading."""

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    turns: Callable[[Row, Layout], tuple[Turn, ...]]

    def fits(self, row: Row) -> bool:
        """Whether the row has a value in every needed column."""
        return all(row.values.get(name) is not None for name in self.needs)


def _chat(row: Row, layout: Layout) -> tuple[Turn, ...]:
    turns = []
    for name in layout.needs:
        value = row.values[name]
        if isinstance(value, str):  # a list inside a CSV cell
            value = _inner_json(value, row.origin, name)
        turns += [_turn(item, row.origin, name) for item in _list(value, row.origin, name)]
    return tuple(turns)


def _inner_json(value: str, origin: str, name: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadData(f"{origin}: column {name} is text, not a list of turns") from None


def _list(value: Any, origin: str, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadData(f"{origin}: column {name} is a {type(value).__name__}, not a list of turns")
    return value


def _turn(item: Any, origin: str, name: str) -> Turn:
    if not isinstance(item, dict):
        raise BadData(f"{origin}: a turn in {name} must be an object with role and content")
    role = item.get("role", item.get("from"))
    text = item.get("content", item.get("value"))
    if not isinstance(role, str):
        raise BadData(f"{origin}: a turn in {name} has neither a role nor a from")
    if role not in ROLES:
        raise _Unusable(f"has a turn of the role {role[:40]!r}")
    return Turn(ROLES[role], _content(text, origin, name))


def _content(value: Any, origin: str, name: str) -> str:
    """Text as it is, or the text parts of OpenAI's list form."""
    if isinstance(value, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in value):
            raise _Unusable("has parts that are not text")
        value = "".join(str(part.get("text", "")) for part in value)
    return _text(value, origin, name)


def _text(value: Any, origin: str, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise BadData(f"{origin}: column {name} is a {type(value).__name__}, not text")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _Unusable("has half of a surrogate pair, which is not Unicode text")
    return value


def _pair(row: Row, layout: Layout) -> tuple[Turn, ...]:
    *asked, reply = layout.needs
    if any(isinstance(row.values[name], list) for name in layout.needs):
        return _chat(row, layout)  # TRL's conversational prompt/completion
    names = (*asked, *layout.takes)
    parts = [_text(row.values.get(name), row.origin, name) for name in names]
    question = "\n\n".join(part for part in parts if part.strip())
    return (Turn("user", question), Turn("assistant", _text(row.values[reply], row.origin, reply)))


def _seed_task(row: Row, _layout: Layout) -> tuple[Turn, ...]:
    """Self-instruct: an instruction and its worked instances, of which the first is taken."""
    instances = _list(row.values["instances"], row.origin, "instances")
    if not instances or not isinstance(instances[0], dict):
        raise BadData(f"{row.origin}: column instances holds no object with input and output")
    first = instances[0]
    flat = {"instruction": row.values["instruction"], "input": first.get("input")}
    return _pair(Row({**flat, "output": first.get("output", "")}, row.origin), _ALPACA)


def _plain(row: Row, layout: Layout) -> tuple[Turn, ...]:
    (name,) = layout.needs
    return (Turn("text", _text(row.values[name], row.origin, name)),)


_ALPACA = Layout("instruction, input, output", ("instruction", "output"), ("input",), _pair)
LAYOUTS = (  # the first that fits is taken
    Layout("messages", ("messages",), (), _chat),
    Layout("conversations", ("conversations",), (), _chat),
    Layout("instruction, instances", ("instruction", "instances"), (), _seed_task),
    _ALPACA,
    Layout("instruction, context, response", ("instruction", "response"), ("context",), _pair),
    Layout("prompt, completion", ("prompt", "completion"), (), _pair),
    Layout("prompt, response", ("prompt", "response"), (), _pair),
    Layout("question, answer", ("question", "answer"), (), _pair),
    Layout("input, output", ("input", "output"), (), _pair),
    Layout("text", ("text",), (), _plain),
)


def read(path: Path) -> Dataset:
    """Read a file, or every data file below a folder, in whichever layout it is.

    Rows without anything to learn from are dropped and counted. Raises BadData with file and
    line for what is malformed, and if nothing is left.
    """
    kept: list[Conversation] = []
    tally, layouts = Tally(), dict[str, None]()
    for row in read_rows(path):
        layout = _layout(row)
        layouts[layout.name] = None
        try:
            kept.append(_conversation(row, layout))
        except _Unusable as reason:
            tally.add(str(reason), row.origin)
    if not kept:
        reasons = "; ".join(f"{d.reason} ({d.count}, {d.first})" for d in tally.dropped())
        raise BadData(f"{path} holds no usable row: {reasons}")
    return Dataset(tuple(kept), tally.dropped(), " | ".join(layouts))


def _layout(row: Row) -> Layout:
    for layout in LAYOUTS:
        if layout.fits(row):
            return layout
    for layout in LAYOUTS:  # the columns are there and this row's are null: not malformed
        if all(name in row.values for name in layout.needs):
            return layout
    columns = ", ".join(sorted(map(str, row.values))[:20]) or "none"
    understood = "; ".join(layout.name for layout in LAYOUTS)
    raise BadData(f"{row.origin}: columns {columns} are none of the layouts read: {understood}")


def _conversation(row: Row, layout: Layout) -> Conversation:
    if not layout.fits(row):
        raise _Unusable("is empty")
    turns = layout.turns(row, layout)
    said = [turn for turn in turns if turn.text.strip()]
    if not said:
        raise _Unusable("is empty")
    if not any(turn.role in ("assistant", "text") for turn in said):
        raise _Unusable("has no reply to learn from")
    if any(turn.role == "text" for turn in said) and len(said) > 1:
        raise BadData(f"{row.origin}: a turn of the role text stands alone in its row")
    return Conversation(tuple(said), _fields(row, layout), row.origin)


def _fields(row: Row, layout: Layout) -> dict[str, str]:
    used = {*layout.needs, *layout.takes}
    return {
        _clean(name): _clean(str(value))
        for name, value in row.values.items()
        if name not in used and isinstance(value, str | int | float)
    }


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def write_jsonl(conversations: Iterable[Conversation], path: Path) -> None:
    """Write conversations in the normal form, one per line; what `read` reads back is equal."""
    with replacing(path) as file:
        for line in _normal_lines(conversations):
            file.write(line)


def _normal_lines(conversations: Iterable[Conversation]) -> Iterator[bytes]:
    for conversation in conversations:
        messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        row = {"messages": messages, **conversation.fields}
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            limit = MAX_LINE_BYTES >> 20
            raise BadData(f"{conversation.origin}: the row takes more than {limit} MiB as JSON")
        yield line
