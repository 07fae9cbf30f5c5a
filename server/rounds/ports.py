"""The coordinator's two ports: the volunteers it speaks to, and the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.server.rounds.watching import Traffic


def named_nodes(grid: Grid) -> dict[str, int]:
    """{owner name: node id} of the grid's nodes."""
    return {node.owner_name: node.node_id for node in grid.get_nodes()}


def at_once(_grid: Grid, _number: int) -> None:
    """Begin a round without waiting for anybody."""


@dataclass(frozen=True)
class Fleet:
    """The volunteers behind a Grid.

    volunteers: {name: node id} of those to ask. roster: who may take part in a masked sum; None:
    nothing is masked. before_round: waits, if it must, until a round may begin. meter: the
    bytes a port has carried so far; None: payload is counted. withdraw: takes back messages, by
    their ids, whose answers nobody waits for any more.
    """

    volunteers: Callable[[Grid], Mapping[str, int]] = named_nodes
    roster: Callable[[], RosterView] | None = None
    before_round: Callable[[Grid, int], None] = at_once
    meter: Callable[[], Traffic] | None = None
    withdraw: Callable[[Collection[str]], None] = lambda _message_ids: None


@dataclass(frozen=True)
class Clock:
    """Seconds that only go forward, and a way to let some pass. Tests pass others."""

    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
