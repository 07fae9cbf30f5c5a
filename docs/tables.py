"""Write the generated tables of docs/protocol.md from the code, or check that they are in step.

python docs/tables.py           rewrite them
python docs/tables.py --check   exit 1 if a table is not what the code says
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nomoat.aggregation.protocol.wire import Body, Limit, kind_of
from nomoat.aggregation.secagg.client import session as client
from nomoat.aggregation.secagg.client.session import ClientPhase
from nomoat.aggregation.secagg.messages import (
    TO_COORDINATOR,
    TO_VOLUNTEER,
    AddressedBox,
    Participant,
)
from nomoat.aggregation.secagg.server import session as server
from nomoat.aggregation.secagg.server.collector import ServerPhase

DOCUMENT = Path(__file__).with_name("protocol.md")


def client_states() -> Iterator[str]:
    """One row per phase of a volunteer: what it accepts, and where that leads."""
    yield "| phase | a volunteer that … | accepts → next phase |"
    yield "|---|---|---|"
    for phase in ClientPhase:
        moves = [
            f"{message.__name__} → {following.name}"
            for (at, message), following in client.TRANSITIONS.items()
            if at is phase and message in TO_VOLUNTEER
        ]
        yield f"| {phase.name} | {phase.value} | {', '.join(moves) or 'nothing: it is over'} |"


def server_states() -> Iterator[str]:
    """One row per phase of the coordinator."""
    yield "| phase | the coordinator is … | accepts | after closing |"
    yield "|---|---|---|---|"
    phases = list(ServerPhase)
    for phase, following in zip(phases, [*phases[1:], None], strict=True):
        accepted = server.ACCEPTS.get(phase)
        name = accepted.__name__ if accepted else "nothing"
        after = (
            f"{following.name} or ABANDONED" if accepted and following else "nothing: it is over"
        )
        if phase is ServerPhase.NEW and following:
            after = f"{following.name} (by opening)"
        yield f"| {phase.name} | {phase.value} | {name} | {after} |"


def messages() -> Iterator[str]:
    """One row per message: direction, kind on the wire, fields in order with their bounds."""
    yield "| message | to | kind | fields in order |"
    yield "|---|---|---|---|"
    groups = (("volunteer", TO_VOLUNTEER), ("coordinator", TO_COORDINATOR))
    for to, group in (*groups, ("inside another", (Participant, AddressedBox))):
        for message in group:
            hints = typing.get_type_hints(message, include_extras=True)
            names = (f.name for f in dataclasses.fields(message))
            fields = "; ".join(f"{name}: {describe(hints[name])}" for name in names)
            yield f"| {message.__name__} | {to} | `{kind_of(message)}` | {fields} |"


def describe(hint: Any) -> str:
    """A field's type and bounds in words."""
    limit = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        limit = next((extra for extra in extras if isinstance(extra, Limit | Body)), None)
    if isinstance(limit, Body):
        return f"body, ≤ {limit.high:,} bytes"
    bounds = "" if limit is None else f" {limit.low:,} to {limit.high:,}"
    if limit is not None and limit.low == limit.high:
        bounds = f" {limit.low:,}"
    if typing.get_origin(hint) is tuple:
        return f"{bounds.strip()} × ({describe(typing.get_args(hint)[0])})"
    if isinstance(hint, types.UnionType):
        return " or ".join(map(describe, typing.get_args(hint)))
    if hint in (bytes, str):
        return f"{hint.__name__}, length{bounds}"
    return f"{hint.__name__}{bounds}"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "client-states": client_states,
    "server-states": server_states,
    "messages": messages,
}


def filled(text: str) -> str:
    """`text` with every generated table in its place."""
    for name, table in TABLES.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            sys.exit(f"{DOCUMENT.name} has no place for the table {name}")
        text = before + begin + "\n".join(table()) + "\n" + end + after
    return text


def main() -> None:
    """See the module's docstring."""
    text = DOCUMENT.read_text()
    made = filled(text)
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if made == text else "docs/protocol.md: run python docs/tables.py")
    DOCUMENT.write_text(made)


if __name__ == "__main__":
    main()
