"""Column names: the layout of a row is found from those it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import ChatTurn, printable
from nomoat.lora.data.files.rows import DataRow
from nomoat.lora.data.layouts.tools import tools_in
from nomoat.lora.data.layouts.turns import ATTACHED, TurnReader, is_missing, text_of

SYSTEM = ("system", "system_prompt")
TOOLS = ("tools", "functions")
HISTORY = ("history",)
ONLY_LAST = "mask_history"  # true: replies before the last are not trained on
PREFERENCES = frozenset({"chosen", "rejected"})


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row as turns; notes: what it holds besides and is not used."""

    turns: tuple[ChatTurn, ...]
    tools: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """The names that one family of files gives its columns.

    needs: all must be there. takes: joined to the question. context: of SYSTEM, TOOLS and HISTORY.
    lists: it is this layout only if the needed column is a list (its name says little).
    """

    needs: tuple[str, ...]
    turns: Callable[[DataRow, ColumnLayout], ReadRow]
    takes: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    lists: bool = False

    @property
    def name(self) -> str:
        """Its columns, the question's first."""
        *asked, last = self.needs
        return ", ".join((*asked, *self.takes, last))

    @property
    def columns(self) -> frozenset[str]:
        """All columns that it reads."""
        return frozenset((*self.needs, *self.takes, *self.context))

    def fits(self, row: DataRow) -> bool:
        """Tell a row with a value in every needed column."""
        values = [row.values.get(name) for name in self.needs]
        if self.lists and not all(_looks_like_list(value) for value in values):
            return False
        return all(value is not None for value in values)


def layout_of(row: DataRow) -> ColumnLayout:
    """The layout of a row; BadData if it has none."""
    for layout in LAYOUTS:
        if layout.fits(row):
            return layout
    for layout in LAYOUTS:  # the columns are there and this row's are null: not malformed
        if not layout.lists and all(name in row.values for name in layout.needs):
            return layout
    if row.values.keys() >= PREFERENCES:
        raise BadData(
            f"{row.origin}: chosen and rejected are preference pairs, which cannot be trained on "
            "yet (planned: preference training); to train on the preferred answers, keep them as "
            "prompt and completion"
        )
    columns = printable(", ".join(sorted(map(str, row.values))[:20]) or "none")
    understood = "; ".join(layout.name for layout in LAYOUTS)
    raise BadData(f"{row.origin}: columns {columns} are none of the layouts read: {understood}")


def _looks_like_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _chat(row: DataRow, layout: ColumnLayout) -> ReadRow:
    found: list[ChatTurn] = []
    notes: list[str] = []
    offered: list[str] = []
    for name in layout.needs:
        turns = TurnReader(row.origin, name, notes=notes, tools=offered)
        turns.found.extend(found)
        for item in _list(row.values[name], row.origin, name):
            turns.add(item)
        found = turns.found
    return _in_context(row, layout, found, ReadRow((), next(iter(offered), ""), tuple(notes)))


def _in_context(
    row: DataRow, layout: ColumnLayout, turns: Iterable[ChatTurn], read: ReadRow
) -> ReadRow:
    """The turns with what the row's other columns say of them."""
    turns, notes, tools = list(turns), list(read.notes), read.tools
    given = [name for name in SYSTEM if name in layout.context and _there(row.values.get(name))]
    for name in given:
        text = text_of(row.values[name], row.origin, name)
        if not turns or turns[0].role != "system":
            turns.insert(0, ChatTurn("system", text))
        elif turns[0].text.strip() != text.strip():
            notes.append(f"column {name} is not used: the row has another system turn")
    for name in (name for name in TOOLS if name in layout.context):
        offered = tools_in(row.values.get(name))
        if offered and tools not in ("", offered):
            notes.append(f"column {name} is not used: the row has other tools")
        tools = tools or offered
    if row.values.get(ONLY_LAST) in (True, 1, "1", "true", "True"):
        last = max((k for k, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
        turns = [
            replace(turn, trained=False) if turn.role == "assistant" and k != last else turn
            for k, turn in enumerate(turns)
        ]
    return ReadRow(tuple(turns), tools, tuple(notes))


def _there(value: Any) -> bool:
    return not is_missing(value) and str(value).strip() != ""


def _list(value: Any, origin: str, name: str) -> list[Any]:
    if isinstance(value, str):  # a list inside a CSV cell
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadData(f"{origin}: column {name} is text, not a list of turns") from None
    if not isinstance(value, list):
        raise BadData(f"{origin}: column {name} is a {type(value).__name__}, not a list of turns")
    return value


def _pair(row: DataRow, layout: ColumnLayout) -> ReadRow:
    *asked, reply = layout.needs
    if any(isinstance(row.values[name], list) for name in layout.needs):
        return _chat(row, layout)  # TRL's conversational prompt/completion
    names = (*asked, *layout.takes)
    parts = [text_of(row.values.get(name), row.origin, name) for name in names]
    question = "\n\n".join(part for part in parts if part.strip())
    answer = text_of(row.values[reply], row.origin, reply)
    turns = [*_history(row, layout), ChatTurn("user", question), ChatTurn("assistant", answer)]
    return _in_context(row, layout, turns, ReadRow((), ""))


def _history(row: DataRow, layout: ColumnLayout) -> list[ChatTurn]:
    """Exchanges before the question: [question, answer] each, or turns."""
    value = row.values.get("history")
    if "history" not in layout.context or not _there(value):
        return []
    turns = TurnReader(row.origin, "history")
    for item in _list(value, row.origin, "history"):
        if isinstance(item, Mapping):
            turns.add(item)
        elif isinstance(item, list) and len(item) == 2:
            for role, said in zip(("user", "assistant"), item, strict=True):
                turns.found.append(ChatTurn(role, text_of(said, row.origin, "history")))
        else:
            raise BadData(f"{row.origin}: column history holds what is no [question, answer]")
    return turns.found


def _seed_task(row: DataRow, _layout: ColumnLayout) -> ReadRow:
    """Self-instruct: an instruction and its worked instances, of which the first is taken."""
    instances = _list(row.values["instances"], row.origin, "instances")
    if not instances or not isinstance(instances[0], dict):
        raise BadData(f"{row.origin}: column instances holds no object with input and output")
    first = instances[0]
    flat = {"instruction": row.values["instruction"], "input": first.get("input")}
    read = _pair(DataRow({**flat, "output": first.get("output", "")}, row.origin), ALPACA)
    more = len(instances) - 1
    return (
        replace(read, notes=(f"instances beyond the first are not used ({more} here)",))
        if (more)
        else read
    )


def _plain(row: DataRow, layout: ColumnLayout) -> ReadRow:
    (name,) = layout.needs
    if isinstance(row.values[name], list):
        raise BadData(f"{row.origin}: column {name} is a list, not text")
    return ReadRow((ChatTurn("text", text_of(row.values[name], row.origin, name)),), "")


CHAT = (*SYSTEM, *TOOLS, ONLY_LAST)
PAIR = (*SYSTEM, *HISTORY, *TOOLS, ONLY_LAST)
ALPACA = ColumnLayout(("instruction", "output"), _pair, ("input",), PAIR)
LAYOUTS = (  # the first that fits is taken
    ColumnLayout(("messages",), _chat, (), CHAT),
    ColumnLayout(("conversations",), _chat, (), CHAT),
    *(
        ColumnLayout((name,), _chat, (), CHAT, lists=True)
        for name in ("conversation", "dialog", "dialogue", "chat")
    ),
    ColumnLayout(("instruction", "instances"), _seed_task),
    ALPACA,
    ColumnLayout(("instruction", "response"), _pair, ("context",), PAIR),
    *(
        ColumnLayout((asked, reply), _pair, (), PAIR)
        for asked, reply in (
            ("prompt", "completion"),
            ("prompt", "response"),
            ("question", "answer"),
            ("question", "response"),
            ("query", "response"),
            ("problem", "solution"),
            ("input", "output"),
        )
    ),
    ColumnLayout(("text",), _plain),
)
KNOWN = frozenset().union(*(layout.columns for layout in LAYOUTS), PREFERENCES, ATTACHED)
