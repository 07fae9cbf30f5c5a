"""Decides if this machine may train right now: readings in, decision and reason out. Pure.

Rules stand in a table, most important first. Each says what blocks, or nothing. A block begins at
once; it ends when its cause has been gone for the rule's `settle_s`, and limits on a number end
below a lower mark than the one at which they began, so that nothing flaps. An unknown fact never
raises: it blocks only where the owner set a limit that protects the machine and that can then not
be kept (°C, W, idle).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from nomoat.client.machine import courtesy
from nomoat.client.machine.courtesy import Courtesy, Neighbourhood
from nomoat.client.machine.readings import MachineLimits, Orders, Readings
from nomoat.client.machine.rules import RULES, Rule, Situation, when


class Action(Enum):
    """TRAIN, WAIT (memory given back, work checkpointed), or STOP (end the client)."""

    TRAIN = "training"
    WAIT = "waiting"
    STOP = "stopped"


@dataclass(frozen=True, slots=True)
class Block:
    """One reason not to train, since when, and since when its cause has been gone."""

    rule: str
    text: str
    since: datetime
    gone_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """An action, its reason in one line, its start. `blocks`: all that hold, gravest first."""

    action: Action
    reason: str
    since: datetime
    blocks: tuple[Block, ...] = ()
    courtesy: Courtesy = field(default_factory=Courtesy)


def decide(
    readings: Readings,
    limits: MachineLimits,
    orders: Orders,
    in_round: bool,
    before: Decision | None = None,
) -> Decision:
    """Decide from readings, limits and orders; `before` is the last decision, for hysteresis.

    `in_round`: an update is being trained or waits to be handed over; `finish` lets it end.
    Readings without a time zone raise ValueError: wall times would mean nothing.
    """
    if readings.now.tzinfo is None:
        raise ValueError("readings.now needs a time zone")
    held = {block.rule: block for block in before.blocks} if before else {}
    blocks = tuple(
        block
        for rule in RULES
        if (block := _judge(rule, readings, limits, orders, held.get(rule.name))) is not None
    )
    kept = _courtesy(before, blocks, readings)
    if kept.until is not None:
        blocks = (*blocks, _break(kept.until, readings.now))
    if orders.finish and not in_round:
        decision = _decision(Action.STOP, "finished, as you asked", blocks, readings, before)
    elif blocks:
        decision = _decision(Action.WAIT, blocks[0].text, blocks, readings, before)
    else:
        reason = "this round, then stopping as you asked" if orders.finish else "all limits kept"
        decision = _decision(Action.TRAIN, reason, blocks, readings, before)
    return replace(decision, courtesy=kept)


def _courtesy(before: Decision | None, blocks: tuple[Block, ...], readings: Readings) -> Courtesy:
    outside = any(block.rule == "outside" and block.gone_since is None for block in blocks)
    seen = Neighbourhood(outside, readings.apart, free=not blocks)
    return courtesy.after(before.courtesy if before else Courtesy(), seen, readings.now)


def _break(until: datetime, now: datetime) -> Block:
    text = f"letting programs outside this container have the GPU, until {when(until, now)}"
    return Block("courtesy", text, until - courtesy.BREAK)


def _judge(
    rule: Rule, readings: Readings, limits: MachineLimits, orders: Orders, held: Block | None
) -> Block | None:
    text = rule.blocked(Situation(readings, limits, orders, held is not None))
    if text is not None:
        return Block(rule.name, text, held.since if held else readings.now)
    if held is None or not rule.settle_s:
        return None
    gone = held.gone_since or readings.now
    waited_s = readings.now.timestamp() - gone.timestamp()
    settle_s = rule.settle_s + rule.spread_s * _drawn(limits.lots, held.since)
    if not 0 <= waited_s < settle_s:  # a clock set back ends the wait rather than prolong it
        return None
    return Block(rule.name, held.text, held.since, gone)


def _decision(
    action: Action,
    reason: str,
    blocks: tuple[Block, ...],
    readings: Readings,
    before: Decision | None,
) -> Decision:
    """With the time since which this action has had this leading cause."""
    if action is Action.WAIT:
        return Decision(action, reason, blocks[0].since, blocks)
    same = before is not None and before.action is action
    return Decision(action, reason, before.since if before and same else readings.now, blocks)


def _drawn(lots: bytes, since: datetime) -> float:
    """A number in [0, 1) that is this volunteer's and this block's alone."""
    digest = hashlib.sha256(lots + since.isoformat().encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
