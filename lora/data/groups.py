"""Rows by the value of one of their other columns: a volunteer, a topic, a domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import Conversation


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
